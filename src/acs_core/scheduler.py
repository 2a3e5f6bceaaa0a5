# cython: nonecheck=True
# (None in place of what an event carries is an error on both builds, not a crash.)
"""The scheduler of one node: owns its queues and their containers, decides, does nothing.

``step(event, now_us)`` returns effects; the caller performs them in order and reports what
happened as new events.  An event is applied whole or not at all.  One thread at a time.

Here: the public face, arrivals and pulls, and the looks that time brings.  The layers below, and
what each holds, are listed in ``scheduler_base``.  Who holds what is kept in ``ledger``; what a
queue's states are is ``queue_states``; how many containers it needs ``demand``; where they go
``placement``.  Left out is what happens inside an invoker: ``containers``.

Time: all of it is the caller's ``now_us``.  A queue has at most one entry in the deadline
index, never later than its next due moment; a look that finds nothing due costs one entry.
"""

from __future__ import annotations

from collections.abc import Callable

from . import limits
from .effects import Cause, Throttle
from .events import (
    Activation,
    Adopted,
    Arrived,
    Cancelled,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    Denied,
    Event,
    HungerElsewhere,
    HungerEnded,
    InvokerGone,
    InvokerReported,
    LeadershipLost,
    LimitsChanged,
    Outcome,
    Pulled,
    QueueClosing,
    QueueOpened,
    Reserved,
    Returned,
    TimeReached,
    refused_time,
)
from .explanation import binds, explain
from .hunger import Hunger
from .ledger import QueueEntry
from .queue_states import QueueState, Signal
from .scheduler_config import SchedulerConfig, UnknownQueue
from .scheduler_containers import SchedulerContainers

__all__ = ["Scheduler", "SchedulerConfig", "UnknownQueue"]

__all__ = ["Scheduler", "SchedulerConfig", "UnknownQueue"]

# Enum members as plain integers: comparing them costs nothing when compiled.
_UNINITIALIZED = int(QueueState.UNINITIALIZED)
_RUNNING = int(QueueState.RUNNING)
_IDLE = int(QueueState.IDLE)
_FLUSHING = int(QueueState.FLUSHING)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_ACTION_THROTTLED = int(QueueState.ACTION_THROTTLED)
_REMOVING = int(QueueState.REMOVING)
_APPLICATION_ERROR = int(Outcome.APPLICATION_ERROR)
_NEVER = limits.TIME_MAX_US
_LOOKS_MAX = limits.LOOKS_MAX


class Scheduler(SchedulerContainers):
    """Queues, containers and decisions of one scheduler node; see the module.

    Invariants: S1-S7, K1, L1-L7, B1, N1-N4, W1, W2, X1 (docs/invariants.md).
    """

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Args:
          event: Any event that ``events`` says is told to a scheduler.
          now_us: Time in microseconds; never earlier than in the last call.
        Raises:
          ValueError: Time goes backwards or beyond TIME_MAX_US, a queue is opened twice, a weight
            is out of its range, or a container is said to hold more than it takes; nothing changed.
          UnknownQueue: The event names a queue that is not open; nothing changed.
          TypeError: Not a scheduler's event, or a time that is no integer; nothing changed.
        Cost: O(1) amortised for arrivals and pulls; O(invokers) for a decision that adds.
        """
        # "| 0" refuses what is no integer; in C, where nothing else comes, it costs nothing.
        if not self._now_us <= now_us | 0 <= _NEVER:
            raise refused_time(now_us, self._now_us)
        out: list[object] = []
        if isinstance(event, Arrived):
            self._arrived(event, now_us, out)
        elif isinstance(event, Pulled):
            self._pulled(event, now_us, out)
        elif isinstance(event, TimeReached):
            self._time_reached(now_us, out)
        else:
            handler = _HANDLERS.get(type(event))
            if handler is None:
                raise TypeError(f"{type(event).__name__} is no event of a scheduler")
            handler(self, event, now_us, out)
        self._scanned = 0
        self._now_us = now_us
        return out

    def next_deadline_us(self) -> int | None:
        """Return when ``TimeReached`` is wanted next, None when nothing is due.  Cost: O(1).

        It may be a time that has passed: one step looks at a bounded number of queues.
        """
        if self._soon or self._asking:
            return self._now_us
        due_us = self._due.next_us()
        return None if due_us < 0 else due_us

    def has_queue(self, queue: str) -> bool:
        """Tell whether the queue is here, open or closing.  Cost: O(1)."""
        return queue in self._queues

    def has_activation(self, activation_id: str) -> bool:
        """Tell whether the activation waits here or was delivered and has not ended.  O(1)."""
        return activation_id in self._activations

    def queues(self) -> list[str]:
        """Return the names of the queues that are here, open or closing.  Cost: O(queues)."""
        return list(self._queues)

    def containers(self) -> list[str]:
        """Return the names of the containers that are known here.  Cost: O(containers)."""
        return list(self._containers)

    def in_hand(self) -> int:
        """Return how many activations are here: waiting or delivered, not ended.  Cost: O(1)."""
        return len(self._activations)

    def can_move(self, queue: str) -> bool:
        """Tell whether the queue may go to another scheduler now (``LeadershipLost``).

        Not while containers are reserved or created for it: those hang on who asked for them.
        Nor while it is adopted or closes.  Cost: O(1).
        """
        entry = self._queues.get(queue)
        if entry is None or entry.life.state_index == _REMOVING:
            return False
        return not (entry.reserving or entry.in_progress or entry.adopting)

    def hungers(self) -> list[Hunger]:
        """Return the queues that wait for room which others may have, those with the fewest first.

        Those that lack memory, and those whose reservation was denied; not those that lack a place
        which queues of this scheduler have: they get theirs here.  At most LINE_MAX.
        Cost: O(n log n) of those.
        """
        lacking = dict.fromkeys(self._starving.first(None), True)
        lacking.update(self._starving.elsewhere.lacking)
        queues = [self._queues[name] for name in lacking]
        hungry = sorted([(self._there(q), q.spec.queue) for q in queues if q.line.waiting > 0])
        return [
            Hunger(
                name,
                self._queues[name].spec.namespace,
                containers,
                self._queues[name].namespace.containers_max,
                lacking[name],
            )
            for containers, name in hungry[: limits.LINE_MAX]
        ]

    def gives(self) -> dict[str, int]:
        """Count, by the other schedulers' queues that are to have the room, what is on its way out.

        Cost: O(given).
        """
        return self._starving.elsewhere.gives(self._containers)

    def counts(self) -> dict[str, int]:
        """Return the account of activations: accepted is the sum of the rest.  Cost: O(queues)."""
        return {
            "accepted": self._accepted,
            "waiting": sum([q.line.waiting for q in self._queues.values()]),
            "delivered": sum([len(q.delivered) for q in self._queues.values()]),
            "ended": self._ended,
            "rejected": self._rejected,
            "forwarded": self._forwarded,
        }

    def explain(self, queue: str) -> dict[str, object]:
        """Return the state of the queue in words and numbers.

        Raises: UnknownQueue.  Cost: O(invokers).
        """
        return explain(self._entry(queue), self._ledger, self._starving, self._now_us)

    def check(self) -> None:
        """Assert every invariant that can be seen from inside.  Cost: O(everything)."""
        self._ledger.check()
        self._due.check()
        self._calls.check()
        counts = self.counts()
        assert counts["accepted"] == sum(counts.values()) - counts["accepted"]  # K1
        assert len(self._activations) == counts["waiting"] + counts["delivered"]
        self._starving.check()
        assert set(self._starving.names()) <= self._queues.keys()
        soon = [queue for queue in self._queues.values() if queue.soon]
        assert soon == [q for q in soon if q in self._soon]
        for key, queue in self._queues.items():
            assert queue.life.state_index != QueueState.REMOVED
            assert bool(queue.adopting) or queue.life.state_index != _UNINITIALIZED
            assert not queue.adopting or queue.life.state_index != _RUNNING
            asks = queue.reserving or (queue.in_progress and not queue.adopting)
            works = queue.line.waiting or queue.load.arrivals
            if works or asks or self._sees_to_floor(queue):
                assert self._due.time_of(key) >= 0  # L3: somebody will look
            if queue.line.waiting:
                # L1: nobody idles beside work, once it may be served (S5).
                free = [c for c in queue.serving.values() if c.level <= queue.line.depth()]
                assert queue.adopting or not any(c.free for c in free)

    # --- arrivals and pulls: the hot path ----------------------------------------------------

    # --- arrivals and pulls: the hot path ----------------------------------------------------

    def _arrived(self, event: Arrived, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        activation = event.activation
        if activation.activation_id in self._activations:
            return  # a controller's resend of what is waiting or delivered already
        if activation.withdrawn or activation.delivered_us >= 0:
            return  # the same object again, after its end
        self._accepted += 1
        if self._expires_us(queue, activation) <= now_us:
            text = self._waited_too_long(queue, activation)
            self._reject_new(activation, Cause.EXPIRED, text, 0, out)
            return
        state = queue.life.state_index
        if state != _RUNNING and not self._admit(queue, activation, now_us, out):
            return
        queue.load.arrivals += 1
        if queue.line.waiting == 0 and (state == _RUNNING or not queue.adopting):
            container = self._top(queue)
            if container is not None:
                activation.queue = event.queue
                self._activations[activation.activation_id] = activation
                self._deliver(queue, container, activation, now_us, out)
                # From the first arrival until the look that counts it, a look is due.
                if queue.load.arrivals == 1 and self._due.time_of(event.queue) < 0:
                    self._wake(queue, now_us + self._decision_interval_us)
                return
        forecast = queue.forecast
        if (
            forecast is not None
            and not activation.causes  # calls go before what was forecast
            and queue.line.waiting > 0
            and (queue.line.waiting >= forecast.startable or activation.deadline_us > 0)
            and self._refuse_late(queue, activation, now_us, out)
        ):
            return
        if not queue.line.offer(activation):
            self._refuse_full(queue, activation, out)
            return
        activation.queue = event.queue
        self._activations[activation.activation_id] = activation
        if queue.line.waiting >= queue.line.capacity and queue.life.can(Signal.BACKLOG_FULL):
            queue.life.fire(Signal.BACKLOG_FULL)
            out.append(Throttle(event.queue, True, f"{queue.line.waiting} activations wait"))
        if activation.causes:
            self._serve_calls(queue, now_us, out)
        self._consider(queue, now_us, out)
        if activation.causes:
            self._refuse_stuck(queue, now_us, out)

    def _pulled(self, event: Pulled, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch != container.queue.epoch:
            # late: the container is gone or was given up, or speaks to an earlier leader
            self._release_late(event.container, out)
            return
        queue = container.queue
        if container.serving_since_us < 0:
            self._serve(container, now_us)  # its ContainerServing was overtaken
        for activation_id in event.started:
            activation = container.outstanding.get(activation_id)
            if activation is not None:
                activation.started = True
        for completion in event.completions:
            if container.outstanding.pop(completion.activation_id, None) is not None:
                del self._activations[completion.activation_id]
                del queue.delivered[completion.activation_id]
                self._ended += 1
                queue.load.runs_ended += 1
                if completion.outcome <= _APPLICATION_ERROR:
                    queue.load.ran(completion.run_us)
        if not container.leaving:
            room = queue.spec.concurrency - len(container.outstanding)
            container.free = min(container.free + event.free_slots, room)
            if container.free > 0:
                container.idle_since_us = now_us
                if queue.paused:
                    queue.paused.pop(event.container, None)
                if not container.stacked:
                    container.stacked = True
                    stack = queue.open if container.level == 0 else queue.open_to_calls
                    stack.append(container)
                if container.level > 0:
                    self._serve_calls(queue, now_us, out)
                while (
                    container.level == 0
                    and container.free > 0
                    and queue.line.waiting > 0
                    and not queue.adopting
                ):
                    activation = self._take(queue, now_us, out)
                    if activation is None:
                        break
                    self._deliver(queue, container, activation, now_us, out)
        if queue.life.state_index != _RUNNING:
            self._settle(queue, now_us, out)

    def _admit(
        self, queue: QueueEntry, activation: Activation, now_us: int, out: list[object]
    ) -> bool:
        """Tell whether a queue that is not RUNNING takes the activation; reject it if not."""
        life = queue.life
        if life.state_index == _REMOVING:
            self._reject_new(activation, Cause.CLOSED, queue.cause, 0, out)
            return False
        if life.state_index == _ACTION_THROTTLED:
            self._refuse_full(queue, activation, out)
            return False
        if life.state_index == _FLUSHING and queue.final and now_us < queue.retry_us:
            wait_us = queue.retry_us - now_us
            self._reject_new(activation, queue.hopeless, queue.cause, wait_us, out)
            return False
        life.fire(Signal.WORK_ARRIVED)
        return True

    def _refuse_late(
        self, queue: QueueEntry, activation: Activation, now_us: int, out: list[object]
    ) -> bool:
        """Tell whether the activation would expire in the line, and reject it then (W1).

        With a new forecast where the last one is older than ``backlog_interval_us``: nothing else
        lifts this throttle, so nothing can forget to (L3).
        """
        forecast = queue.forecast
        assert forecast is not None
        if now_us - forecast.at_us >= self._backlog_interval_us:
            snapshot = self._snapshot(queue, self._ledger.creation_us(), now_us)
            forecast = self._foresee(queue, snapshot, now_us)
        waiting = queue.line.waiting
        within_us = self._expires_us(queue, activation) - now_us
        if waiting < forecast.startable_within(within_us):
            return False
        reason = forecast.refusal(waiting, within_us)
        self._reject_new(activation, Cause.WOULD_EXPIRE, reason, forecast.wait_us(waiting), out)
        return True

    # --- time --------------------------------------------------------------------------------

    # --- time --------------------------------------------------------------------------------

    def _time_reached(self, now_us: int, out: list[object]) -> None:
        if self._asking:
            self._ask_joined(out)
        for _ in range(_LOOKS_MAX):
            key = self._due.pop_due(now_us)
            if key is not None:
                self._look(self._queues[key], now_us, out)
            elif self._soon:
                queue = self._soon.popleft()
                queue.soon = False
                if self._queues.get(queue.spec.queue) is queue:
                    self._look(queue, now_us, out)
            else:
                return

    def _look(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Do what time alone brings: expiry, a decision, idleness, the end."""
        head = queue.line.head()
        while head is not None and self._expires_us(queue, head) <= now_us:
            queue.line.drop_head()
            self._reject(head, Cause.EXPIRED, self._expiry_reason(queue, head), 0, out)
            head = queue.line.head()
        if queue.reserving or queue.in_progress:
            self._give_up(queue, now_us, out)
        self._resume_paused(queue, now_us, out)
        if now_us >= queue.retry_us and (
            queue.line.waiting > 0
            or queue.load.arrivals > 0
            or queue.life.state_index == _NAMESPACE_THROTTLED
        ):
            self._decide(queue, now_us, out)
        self._keep_floor(queue, now_us, out)
        self._settle(queue, now_us, out)
        key = queue.spec.queue
        if key not in self._queues:
            return
        if self._is_quiet(queue):
            state = queue.life.state_index
            grace_us = self.config.stop_grace_us if state == _IDLE else self.config.idle_grace_us
            if now_us - queue.quiet_since_us >= grace_us and queue.life.can(Signal.QUIET_LONG):
                queue.quiet_since_us = now_us
                queue.life.fire(Signal.QUIET_LONG)
                if queue.life.state_index != _IDLE:
                    self._close(queue, out)
                    return
        self._wake(queue, self._next_look_us(queue, now_us))

    def _expiry_reason(self, queue: QueueEntry, activation: Activation) -> str:
        reason = self._waited_too_long(queue, activation)
        if queue.cause:
            return f"{reason}: {queue.cause}"
        what = binds(queue, self._ledger, self._starving, self._now_us)
        return reason if what == "nothing" else f"{reason}: {what}"


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    QueueOpened: Scheduler._queue_opened,
    QueueClosing: Scheduler._queue_closing,
    LeadershipLost: Scheduler._leadership_lost,
    LimitsChanged: Scheduler._limits_changed,
    Cancelled: Scheduler._cancelled,
    Reserved: Scheduler._reserved,
    Denied: Scheduler._denied,
    HungerElsewhere: Scheduler._hunger_elsewhere,
    HungerEnded: Scheduler._hunger_ended,
    InvokerReported: Scheduler._invoker_reported,
    InvokerGone: Scheduler._invoker_gone,
    Adopted: Scheduler._adopted,
    ContainerServing: Scheduler._container_serving,
    CreationFailed: Scheduler._creation_failed,
    Returned: Scheduler._returned,
    ContainerLeaving: Scheduler._container_leaving,
    ContainerPaused: Scheduler._container_paused,
    ContainerGone: Scheduler._container_gone,
}
