# cython: nonecheck=True
"""When a queue is decided about, and what follows from a verdict.

The rules are ``demand``'s.  Here: what they are shown, what is done about their answers, floors,
paused containers that wake, throttles that lift, and the end of a queue that has nothing left.
"""

from __future__ import annotations

from . import limits, nesting
from .demand import RESUME_MS, STEADY_HOLD_CREATIONS, resumptions
from .effects import Cause, Decided, Differed, Resume
from .events import FailureClass
from .explanation import INPUTS, binds
from .ledger import QueueEntry
from .queue_states import QueueState, Signal
from .scheduler_room import SchedulerRoom
from .shadow import ShadowTally
from .snapshot import Decision, Snapshot, Verdict

# Enum members as plain integers: comparing them costs nothing when compiled.
_IDLE = int(QueueState.IDLE)
_FLUSHING = int(QueueState.FLUSHING)
_ACTION_THROTTLED = int(QueueState.ACTION_THROTTLED)
_REMOVING = int(QueueState.REMOVING)
_RECOVERABLE = int(FailureClass.RECOVERABLE)
_RESUME_US = int(RESUME_MS * 1000)


class SchedulerDecisions(SchedulerRoom):
    """Decisions and what follows from them; see the module."""

    def _refuse_stuck(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Reject calls, the newest first, until none of this queue is stuck (N3)."""
        refused = True
        while refused:
            refused = False
            for call in queue.line.newest_calls():
                victim = nesting.victim(self._ledger, self._calls, call)
                if victim is not None:
                    reason = nesting.why_stuck(self._ledger, victim)
                    other = self._queues[victim.queue]
                    other.line.withdraw(victim)
                    self._reject(victim, Cause.CALLERS_HOLD, reason, 0, out)
                    self._settle(other, now_us, out)
                    refused = True
                    break

    def _settle(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Lift throttles whose cause is gone, and end a queue that has nothing left."""
        state = queue.life.state_index
        if state == _ACTION_THROTTLED:
            low = int(queue.line.capacity * self.config.waiting_low_fraction)
            if queue.line.waiting <= low:
                text = f"{queue.line.waiting} activations wait"
                self._move(queue, Signal.BACKLOG_LOW, text, out)
                self._consider(queue, now_us, out)
        elif (
            state == _REMOVING
            and not (queue.line.waiting or queue.delivered)
            and not self._is_unheard(queue)
        ):
            for container in list(queue.serving.values()):
                if container.container not in queue.leaving:
                    self._release(container, queue.cause, now_us, out)
            if not (queue.serving or queue.in_progress or queue.reserving):
                queue.life.fire(Signal.EMPTIED)
                self._close(queue, out)

    def _is_unheard(self, queue: QueueEntry) -> bool:
        """Tell whether an invoker has not told yet what it holds of the queue."""
        key = queue.spec.queue
        return bool([key for invoker in self._invokers.values() if key in invoker.unheard])

    def _consider(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Decide now if it is time to, and see to it that somebody looks again."""
        self._resume_paused(queue, now_us, out)
        if queue.line.waiting > 0 and not queue.reserving:
            due_us = queue.retry_us
            starves = queue.line.depth() == 0 and queue.spec.queue in self._starving
            if queue.decided_us >= 0 and (queue.serving or queue.in_progress or starves):
                interval_us = self._backlog_interval_us
                if starves and queue.serving:
                    # Another arrival makes no room, and when there is some it will be asked.
                    interval_us = max(interval_us, self._decision_interval_us)
                due_us = max(due_us, queue.decided_us + interval_us)
            if now_us < due_us:
                head = queue.line.head()
                assert head is not None
                due_us = min(due_us, self._expires_us(queue, head))
                if queue.paused:
                    due_us = min(due_us, now_us + self._decision_interval_us)
                self._wake(queue, due_us)
                return
            self._decide(queue, now_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _keep_floor(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Bring the queue up to its floor, or down where adopted ones are too many (L6).

        From what is free or idles: nobody who works gives anything for it.
        """
        if not self._sees_to_floor(queue) or now_us < max(queue.floor_us, queue.retry_us):
            return
        queue.floor_us = now_us + limits.FLOOR_INTERVAL_US
        lacks = queue.floor_lacks()
        for container in list(queue.kept.values()) if lacks < 0 else ():
            idles = container.serving_since_us >= 0 and not container.outstanding
            if lacks < 0 and idles and queue.line.waiting == 0:
                lacks += 1
                self._release(container, "more than the floor are kept", now_us, out)
        if lacks > 0 and queue.namespace.room(queue.line.depth()) <= 0:
            self._make_room(queue, 1, True, False, now_us, out)
        elif lacks > 0:
            self._reserve(queue, lacks, False, now_us, out)

    def _decide(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Ask the rule, act on its verdict, and note whether the queue lacks room for it."""
        state = queue.life.state_index
        if state == _IDLE or queue.adopting or queue.reserving:
            return
        if queue.namespace.levels:
            self._lower_levels(queue, now_us, out)
        creation_us = self._ledger.creation_us()
        containers = len(queue.serving) + len(queue.in_progress)
        queue.load.judge_growth(containers, STEADY_HOLD_CREATIONS * creation_us, now_us)
        snapshot = self._snapshot(queue, creation_us, now_us)
        decision = self.config.rule.decide(snapshot)
        queue.decided_us = now_us
        queue.decision = decision
        if self._throttle_by_wait:
            self._foresee(queue, snapshot, now_us)
        queue.load.note_steady(decision.steady_short, decision.count > 0, now_us)
        if self.config.report_decisions:
            out.append(Decided(queue.spec.queue, snapshot, decision))
        if self._shadow is not None:
            self._ask_shadow(queue, snapshot, decision, now_us, out)
        verdict = decision.verdict
        lacks_place = lacks_memory = False
        if verdict is Verdict.PAUSE:
            self._no_container_allowed(queue, now_us, out)
        elif verdict is Verdict.THROTTLE_NAMESPACE:
            if queue.life.can(Signal.NAMESPACE_FULL):
                queue.life.fire(Signal.NAMESPACE_FULL)
            if decision.drop:
                self._reject_waiting(
                    queue,
                    Cause.NO_CONTAINER,
                    "Too many concurrent requests in flight. "
                    + binds(queue, self._ledger, self._starving, now_us),
                    self._decision_interval_us,
                    out,
                )
            if queue.line.waiting > 0:
                lacks_place = True
                self._make_room(queue, 1, True, True, now_us, out)
        elif (
            state == _FLUSHING
            and queue.line.waiting > 0
            and not queue.in_progress
            and queue.namespace.room(queue.line.depth()) <= 0
        ):
            # The rules name no throttle here; without a place it could not even be tried again.
            lacks_place = True
            self._make_room(queue, 1, True, True, now_us, out)
        elif verdict is Verdict.UNTHROTTLE_NAMESPACE and queue.life.can(Signal.NAMESPACE_FREE):
            queue.life.fire(Signal.NAMESPACE_FREE)
            # The original waits for its next tick here; nothing is won by that.
            self._decide(queue, now_us, out)
            return
        if decision.count > 0:
            queue.initialized = True
            if self._is_overtaking(queue, True, now_us):
                lacks_place = True
            else:
                lacks_memory = self._reserve(queue, decision.count, True, now_us, out)
        elif self._starving.elsewhere.lacking:
            self._starving.elsewhere.end(queue.spec.queue)  # it wishes no more
        # Who has no work lacks nothing, whatever a rule asks for.
        if (lacks_place or lacks_memory) and queue.line.waiting > 0:
            self._starve(queue, lacks_memory)
        elif self._starving:
            self._starving.drop(queue.spec.queue)
        if queue.line.depth() > 0:
            self._refuse_stuck(queue, now_us, out)

    def _resume_paused(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Wake the paused containers that serve sooner than waiting does, the last idle first.

        No rule of demand is asked, and no failed creation holds it up: these containers are there.
        """
        if not queue.paused or queue.line.waiting == 0 or queue.adopting:
            return
        wanted = resumptions(self._snapshot(queue, self._ledger.creation_us(), now_us))
        head = queue.line.head()
        assert head is not None
        if wanted == 0 and now_us - head.arrived_us > _RESUME_US:
            wanted = 1  # it was to be served by now: runs last longer than predicted
        asleep = [c for c in queue.paused.values() if not c.resuming]
        wanted -= len(queue.paused) - len(asleep)
        for container in asleep[::-1][: max(0, wanted)]:
            container.resuming = True
            out.append(Resume(container.container, container.invoker, queue.epoch))

    def _ask_shadow(
        self,
        queue: QueueEntry,
        snapshot: Snapshot,
        decision: Decision,
        now_us: int,
        out: list[object],
    ) -> None:
        assert self._shadow is not None
        if self._shadow_stale_us not in (0, self._stale_us):
            # What is stale is each rule's own word.
            shown = {name: getattr(snapshot, name) for name in INPUTS}
            shown["stale"] = queue.line.older_than(now_us - self._shadow_stale_us)
            snapshot = Snapshot(state=snapshot.state, initialized=snapshot.initialized, **shown)
        if queue.shadow is None:
            queue.shadow = ShadowTally()
        other = queue.shadow.ask(self._shadow, snapshot, decision)
        if other is not None and self.config.report_decisions:
            out.append(Differed(queue.spec.queue, snapshot, other))

    def _no_container_allowed(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """The limit is 0: what waits keeps until its wait bound, in case the limit is raised."""
        self._failed(queue, "no container is allowed: its limit is 0", _RECOVERABLE, now_us, out)

    def _feed_starved(self, namespace: str | None, now_us: int, out: list[object]) -> None:
        """Memory has appeared, and a place in the namespace: the first ones in line look again.

        Who finds none of it ends that line: what is left belongs to those who come later no more
        than to it.  The rest have their next look.  Cost: 2 x LINE_MAX decisions at most.
        """
        if not self._starving:
            return
        line = self._line(None)
        if namespace is not None:
            both = {queue.spec.queue: queue for queue in (*self._line(namespace), *line)}
            line = sorted(both.values(), key=self._wealth)
        depth_in_vain = -1
        for queue in line:
            key = queue.spec.queue
            if queue.reserving or key not in self._starving:
                continue
            if not self._starving.lacks_memory(key) and queue.line.depth() <= depth_in_vain:
                continue
            self._decide(queue, now_us, out)
            if self._starving.lacks_memory(key):
                return
            if key in self._starving:
                depth_in_vain = max(depth_in_vain, queue.line.depth())
