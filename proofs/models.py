"""What the core must do, said as plainly as possible: models of queue, index, scheduler and pool.

``Outside`` knows of a scheduler what anybody knows who sees its events and effects; it shares
no code with it.  ``PlainPool`` says what a pool of containers answers.  Both name the invariants
of ``docs/invariants.md`` where they assert them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.scheduler import Scheduler, SchedulerConfig


def at_least(examples: int) -> settings:
    """Return the settings of the profile with so many examples, or more where it has more."""
    return settings(max_examples=max(examples, settings().max_examples))


class PlainQueue:
    """Q1 and Q2 as a list of names."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.names: list[str] = []

    def offer(self, name: str) -> bool:
        if len(self.names) >= self.capacity:
            return False
        self.names.append(name)
        return True

    def put_back(self, name: str) -> None:
        self.names.insert(0, name)

    def take(self) -> str | None:
        return self.names.pop(0) if self.names else None

    def withdraw(self, name: str) -> None:
        self.names.remove(name)


class PlainIndex:
    """A dictionary of due times, searched from end to end."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def next_us(self) -> int:
        return min(self.times.values(), default=-1)

    def pop_due(self, now_us: int) -> str | None:
        due = sorted([(us, key) for key, us in self.times.items() if us <= now_us])
        if not due:
            return None
        del self.times[due[0][1]]
        return due[0][1]


@dataclass
class SeenContainer:
    """``offered``: slots that it has said are free and that were not used since."""

    queue: str
    invoker: str
    serving: bool = False
    leaving: bool = False
    paused: bool = False
    woken: bool = False
    keep: bool = False
    since_us: int = 0
    offered: int = 0
    held: list[str] = field(default_factory=list)
    started: set[str] = field(default_factory=set)


@dataclass
class SeenQueue:
    spec: ev.QueueSpec
    epoch: int
    unheard: set[str]
    # Invokers that joined later, and have not told either.
    joining: set[str] = field(default_factory=set)
    line: list[str] = field(default_factory=list)
    pending: tuple[fx.Place, ...] = ()
    serial: int = -1
    asked_us: int = 0
    throttled: bool = False
    closing: bool = False
    hopeless: fx.Cause | None = None
    failures: int = 0
    retry_us: int = 0
    runs_us: set[int] = field(default_factory=set)


class Outside:
    """An observer of one scheduler: told each event, asked with each effect, satisfied after."""

    def __init__(self, scheduler: Scheduler, config: SchedulerConfig) -> None:
        self.scheduler = scheduler
        self.config = config
        self.queues: dict[str, SeenQueue] = {}
        self.containers: dict[str, SeenContainer] = {}
        self.opened: set[str] = set()
        self.last_of_action: dict[tuple[str, str], SeenQueue] = {}
        self.invokers: dict[str, ev.InvokerReported] = {}
        self.caps: dict[str, int] = {}
        self.reserves: dict[str, int] = {}
        # Accepted and not ended: its queue while it waits, else its container.
        self.live: dict[str, str] = {}
        self.expires_us: dict[str, int] = {}
        self.spent: list[ev.Activation] = []
        self.objects: dict[str, ev.Activation] = {}
        self.names: set[str] = set()
        # Containers whose creation was given up: what a release of them says.
        self.given_up: dict[str, tuple[str, int]] = {}
        self.late = ""
        self.serials: set[int] = set()
        self.totals = {"accepted": 0, "ended": 0, "rejected": 0, "forwarded": 0}
        # What this one step owes.
        self.new = ""
        self.cancelled = ""
        self.lost: set[str] = set()
        self.creates: dict[str, tuple[str, str]] = {}
        self.unreserve: set[str] = set()
        self.forward: list[str] | None = None
        self.adopt: set[tuple[str, str]] = set()
        self.room_came = False
        self.now_us = 0

    def saw(self, event: ev.Event, now_us: int, effects: list[object]) -> None:
        """Check one step of the scheduler."""
        self.now_us = now_us
        self.room_came = isinstance(
            event, (ev.ContainerGone, ev.CreationFailed, ev.InvokerReported)
        )
        told = getattr(self, f"_told_{type(event).__name__}", None)
        if told is not None:
            told(event)
        for effect in effects:
            getattr(self, f"_asked_{type(effect).__name__}")(effect)
        self._settled()
        if isinstance(event, ev.TimeReached):
            due_us = self.scheduler.next_deadline_us()
            assert due_us is None or due_us > now_us  # L3: no look asks for itself at once

    # --- what it was told --------------------------------------------------------------------

    def _told_QueueOpened(self, event: ev.QueueOpened) -> None:  # noqa: N802
        spec = event.spec
        queue = self.queues[spec.queue] = SeenQueue(spec, event.epoch, set(self.invokers))
        self.adopt = {(spec.queue, "")}
        self.opened.add(spec.queue)
        before = self.last_of_action.get((spec.namespace, spec.action))
        self.last_of_action[spec.namespace, spec.action] = queue
        if event.history_us > 0:
            queue.runs_us.add(event.history_us)
        elif before is not None and before.spec.revision == spec.revision:
            # M3: its mean, at least a microsecond
            queue.runs_us |= {max(1, run_us) for run_us in before.runs_us}

    def _told_Adopted(self, event: ev.Adopted) -> None:  # noqa: N802
        queue = self.queues.get(event.queue)
        if queue is None or queue.epoch != event.epoch:
            return
        if event.invoker not in queue.unheard | queue.joining:
            return
        if event.invoker in queue.joining:  # what failed before may succeed there
            queue.retry_us = 0
        queue.unheard.discard(event.invoker)
        queue.joining.discard(event.invoker)
        for held in event.held:
            if held.container in self.containers:
                continue
            self.names.add(held.container)
            self.given_up.pop(held.container, None)
            container = SeenContainer(event.queue, event.invoker, keep=held.keep)
            container.since_us = self.now_us
            self.containers[held.container] = container
            if held.serving:
                self._serves(container)
            for name in held.activation_ids:
                if name not in self.live:
                    self.totals["accepted"] += 1
                elif self.live[name] == event.queue and name in queue.line:
                    queue.line.remove(name)
                    self.spent.append(self.objects[name])
                else:
                    continue
                self.live[name] = held.container
                container.held.append(name)
                container.started.add(name)

    def _told_Arrived(self, event: ev.Arrived) -> None:  # noqa: N802
        activation = event.activation
        name = activation.activation_id
        if name in self.live or any(activation is spent for spent in self.spent):
            return
        self.totals["accepted"] += 1
        own_us = self.queues[event.queue].spec.wait_max_us
        bound_us = activation.arrived_us + (own_us or self.config.wait_max_us)
        self.expires_us[name] = min(bound_us, activation.deadline_us or bound_us)
        self.live[name] = event.queue
        self.objects[name] = activation
        self.queues[event.queue].line.append(name)
        self.new = name

    def _told_Cancelled(self, event: ev.Cancelled) -> None:  # noqa: N802
        if any(event.activation_id in queue.line for queue in self.queues.values()):
            self.cancelled = event.activation_id

    def _told_Reserved(self, event: ev.Reserved) -> None:  # noqa: N802
        queue = self.queues.get(event.queue)
        asked = queue is not None and queue.serial == event.serial
        places = queue.pending if queue is not None and asked else ()
        granted = [place for place in places if place.container in event.containers]
        usable = [place for place in granted if place.invoker in self.invokers]
        if queue is not None:  # S5: nor where it is not known yet what there is
            usable = [place for place in usable if place.invoker not in queue.joining]
        self.unreserve = set(event.containers) - self.containers.keys()
        if queue is None or not granted:
            return
        queue.pending = ()
        self.creates = {place.container: (event.queue, place.invoker) for place in usable}
        self.unreserve -= self.creates.keys()

    def _told_Denied(self, event: ev.Denied) -> None:  # noqa: N802
        queue = self.queues.get(event.queue)
        if queue is not None and queue.serial == event.serial:
            if queue.pending:
                self._fails(queue)
            queue.pending = ()

    def _told_ContainerServing(self, event: ev.ContainerServing) -> None:  # noqa: N802
        self._comes_late(event.container)
        if event.container in self.containers:
            self._serves(self.containers[event.container])

    def _told_TimeReached(self, event: ev.TimeReached) -> None:  # noqa: N802
        """L7: what was not answered in time has failed, no later than this."""
        for queue in self.queues.values():
            if queue.pending and self.now_us >= queue.asked_us + self.config.reserve_answer_us:
                self.unreserve |= {place.container for place in queue.pending}
                queue.pending = ()
                self._fails(queue)
        for name, container in list(self.containers.items()):
            over = self.now_us >= container.since_us + self.config.create_answer_us
            if over and not container.serving:
                queue = self.queues[container.queue]
                self._fails(queue)
                self.lost |= set(container.held)
                self.given_up[name] = (container.invoker, queue.epoch)
                del self.containers[name]
                self.room_came = True

    def _comes_late(self, name: str) -> None:
        if name in self.given_up:
            self.late = name

    def _told_Pulled(self, event: ev.Pulled) -> None:  # noqa: N802
        self._comes_late(event.container)
        container = self.containers.get(event.container)
        if container is None or event.epoch != self.queues[container.queue].epoch:
            return
        self._serves(container)
        container.started |= set(event.started) & set(container.held)
        for completion in event.completions:
            if completion.activation_id in container.held:
                self._let_go(container, completion.activation_id)
                del self.live[completion.activation_id]
                self.totals["ended"] += 1
                if completion.outcome <= ev.Outcome.APPLICATION_ERROR:
                    self.queues[container.queue].runs_us.add(completion.run_us)
        if not container.leaving:
            if event.free_slots:
                container.paused = container.woken = False
            room = self.queues[container.queue].spec.concurrency - len(container.held)
            container.offered = min(container.offered + event.free_slots, room)

    def _told_Returned(self, event: ev.Returned) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is None or event.epoch != self.queues[container.queue].epoch:
            return
        container.offered = 0
        for name in reversed(event.activation_ids):
            if name in container.held and name not in container.started:
                self._let_go(container, name)
                self.live[name] = container.queue
                self.queues[container.queue].line.insert(0, name)
                self.spent.remove(self.objects[name])

    def _told_ContainerPaused(self, event: ev.ContainerPaused) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and container.serving and not container.leaving:
            container.offered = 0
            # Else what was delivered to it while it fell asleep wakes it.
            container.paused = not container.held

    def _told_ContainerLeaving(self, event: ev.ContainerLeaving) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and container.serving:
            container.leaving, container.offered, container.paused = True, 0, False

    def _told_ContainerGone(self, event: ev.ContainerGone) -> None:  # noqa: N802
        self.given_up.pop(event.container, None)
        container = self.containers.pop(event.container, None)
        if container is not None:
            self.lost |= set(container.held)

    def _told_CreationFailed(self, event: ev.CreationFailed) -> None:  # noqa: N802
        self.given_up.pop(event.container, None)
        container = self.containers.pop(event.container, None)
        if container is not None:
            self.lost |= set(container.held)
            queue = self.queues[container.queue]
            self._fails(queue)
            others = [c for c in self.containers.values() if c.queue == container.queue]
            if event.failure != ev.FailureClass.RECOVERABLE and not others:
                unfit = event.failure == ev.FailureClass.UNFIT
                queue.hopeless = fx.Cause.UNFIT if unfit else fx.Cause.CREATION_FAILED

    def _told_InvokerReported(self, event: ev.InvokerReported) -> None:  # noqa: N802
        if event.invoker not in self.invokers:
            for key, queue in self.queues.items():
                queue.joining.add(event.invoker)
                self.adopt.add((key, event.invoker))
        self.invokers[event.invoker] = event

    def _told_InvokerGone(self, event: ev.InvokerGone) -> None:  # noqa: N802
        if self.invokers.pop(event.invoker, None) is None:
            return
        for name, container in list(self.containers.items()):
            if container.invoker == event.invoker:
                self.lost |= set(container.held)
                del self.containers[name]
        for queue in self.queues.values():
            queue.unheard.discard(event.invoker)
            queue.joining.discard(event.invoker)

    def _told_LimitsChanged(self, event: ev.LimitsChanged) -> None:  # noqa: N802
        self.caps[event.namespace] = event.containers_max
        self.reserves[event.namespace] = event.reserve
        for queue in self.queues.values():
            if queue.spec.namespace == event.namespace:
                queue.retry_us = 0

    def _told_QueueClosing(self, event: ev.QueueClosing) -> None:  # noqa: N802
        self.queues[event.queue].closing = True

    def _told_LeadershipLost(self, event: ev.LeadershipLost) -> None:  # noqa: N802
        queue = self.queues[event.queue]
        self.forward = list(queue.line)
        self.unreserve = {place.container for place in queue.pending}
        queue.pending = ()
        queue.closing = True
        for name, container in list(self.containers.items()):
            if container.queue == event.queue:
                self.totals["forwarded"] += len(container.held)
                for held in container.held:
                    del self.live[held]
                del self.containers[name]

    def _serves(self, container: SeenContainer) -> None:
        if not container.serving:
            container.serving = True
            queue = self.queues[container.queue]
            queue.hopeless, queue.failures, queue.retry_us = None, 0, 0

    def _fails(self, queue: SeenQueue) -> None:
        pause_us = self.config.retry_min_us * 2**queue.failures
        queue.retry_us = self.now_us + min(pause_us, self.config.retry_max_us)
        queue.failures += 1

    def _let_go(self, container: SeenContainer, name: str) -> None:
        container.held.remove(name)
        container.started.discard(name)

    # --- what it asks for --------------------------------------------------------------------

    def _asked_Adopt(self, effect: fx.Adopt) -> None:  # noqa: N802
        self.adopt.remove((effect.queue, effect.invoker))
        assert effect.epoch == self.queues[effect.queue].epoch

    def _asked_Deliver(self, effect: fx.Deliver) -> None:  # noqa: N802
        name = effect.activation.activation_id
        container = self.containers[effect.container]
        queue = self.queues[container.queue]
        assert self.live[name] == container.queue  # S2: it waits; no other container has it
        assert queue.line[0] == name  # S3: nobody is overtaken
        assert not queue.unheard  # S5: every invoker has told what it holds
        assert effect.epoch == queue.epoch
        assert effect.invoker == container.invoker
        assert container.serving
        assert not container.leaving
        assert container.offered > 0  # S1: only into an offered slot
        assert self.now_us < self.expires_us[name]  # L2: never after its bound
        assert effect.activation is self.objects[name]
        queue.line.pop(0)
        container.offered -= 1
        container.held.append(name)
        assert len(container.held) <= queue.spec.concurrency
        self.live[name] = effect.container
        self.spent.append(effect.activation)

    def _asked_Reject(self, effect: fx.Reject) -> None:  # noqa: N802
        name = effect.activation.activation_id
        assert effect.reason
        assert effect.retry_after_us >= 0
        place = self.live.pop(name)  # S2, K1: it has not ended before
        self.totals["rejected"] += 1
        cause = fx.Cause(effect.cause)
        if cause is fx.Cause.UNKNOWN:
            self.lost.remove(name)
            return
        line = self.queues[place].line
        if cause is fx.Cause.CANCELLED:
            assert name == self.cancelled
            self.cancelled = ""
            self.spent.append(effect.activation)
        elif cause in (fx.Cause.QUEUE_FULL, fx.Cause.CLOSED):
            assert name == self.new
            if cause is fx.Cause.QUEUE_FULL:
                low = int(self.config.waiting_max * self.config.waiting_low_fraction)
                assert len(line) - 1 > (low if self.queues[place].throttled else -1)
                if not self.queues[place].throttled:
                    assert len(line) - 1 >= self.config.waiting_max
            else:
                assert self.queues[place].closing
        elif cause is fx.Cause.WOULD_EXPIRE:  # W1: an arrival, behind another one
            assert name == self.new
            assert len(line) > 1
            assert self.config.throttle_by_wait
            assert effect.retry_after_us >= self.expires_us[name] - self.now_us
        elif cause is fx.Cause.EXPIRED:
            assert self.now_us >= self.expires_us[name]  # L2: not before its bound
            assert name in (line[0], self.new)
        else:
            assert name in (line[0], self.new)
            if cause in (fx.Cause.CREATION_FAILED, fx.Cause.UNFIT):  # only where no try can help
                assert self.queues[place].hopeless is cause
        line.remove(name)

    def _asked_Forward(self, effect: fx.Forward) -> None:  # noqa: N802
        names = [activation.activation_id for activation in effect.activations]
        assert names == self.forward  # S3, S2: what waited, in its order, and nothing else
        self.forward = None
        self.totals["forwarded"] += len(names)
        for name in names:
            del self.live[name]
        assert not self.queues[effect.queue].throttled  # L3
        del self.queues[effect.queue]

    def _asked_CloseQueue(self, effect: fx.CloseQueue) -> None:  # noqa: N802
        queue = self.queues.pop(effect.queue)
        assert queue.epoch == effect.epoch
        assert not queue.line
        assert not (queue.closing and queue.joining)  # what these hold has to go first
        assert not queue.pending
        assert not queue.throttled  # L3
        assert not any(c.queue == effect.queue for c in self.containers.values())

    def _asked_Reserve(self, effect: fx.Reserve) -> None:  # noqa: N802
        queue = self.queues[effect.queue]
        spec = queue.spec
        assert (effect.epoch, effect.namespace) == (queue.epoch, spec.namespace)
        assert effect.memory_mb == spec.memory_mb
        assert not queue.pending
        assert not queue.unheard  # S5
        assert self.now_us >= queue.retry_us or self.room_came  # L5: not before the pause is over
        assert 0 < len(effect.places) <= 100
        for place in effect.places:
            assert place.container not in self.names
            self.names.add(place.container)
        assert effect.serial not in self.serials  # no answer fits two of them
        self.serials.add(effect.serial)
        queue.pending, queue.serial = effect.places, effect.serial
        queue.asked_us = self.now_us
        # S4: with these, were they all granted, no cap is exceeded and no invoker overbooked.
        # N4: nobody here makes calls, so the places that are for calls stay free.
        assert self.counted(spec.namespace, None) <= self.shared(spec.namespace)
        if spec.action_limit is not None:
            assert self.counted(spec.namespace, effect.queue) <= spec.action_limit
        for invoker in {place.invoker for place in effect.places}:
            assert invoker not in queue.joining  # S5
            report = self.invokers[invoker]
            assert self.used_mb(invoker) <= report.memory_mb - report.elsewhere_mb

    def _asked_Unreserve(self, effect: fx.Unreserve) -> None:  # noqa: N802
        assert effect.containers
        for name in effect.containers:
            assert name not in self.containers  # B1: what exists keeps its place
            if name in self.creates:  # granted, and not wanted any more
                del self.creates[name]
            else:
                self.unreserve.remove(name)

    def _asked_Create(self, effect: fx.Create) -> None:  # noqa: N802
        queue, invoker = self.creates.pop(effect.container)
        assert (effect.spec, effect.invoker) == (self.queues[queue].spec, invoker)
        assert effect.epoch == self.queues[queue].epoch
        seen = self.queues[queue]
        # L6: kept are so many as the floor lacks, and none for a queue that ends.
        lacks = seen.spec.containers_min - len(self.kept(queue))
        assert effect.keep == (lacks > 0 and not seen.closing)
        self.containers[effect.container] = SeenContainer(queue, invoker, keep=effect.keep)
        self.containers[effect.container].since_us = self.now_us

    def _asked_Release(self, effect: fx.Release) -> None:  # noqa: N802
        if effect.container == self.late:  # L7
            assert (effect.invoker, effect.epoch) == self.given_up.pop(self.late)
            self.late = ""
            return
        container = self.containers[effect.container]
        queue = self.queues[container.queue]
        assert effect.why
        assert (effect.invoker, effect.epoch) == (container.invoker, queue.epoch)
        assert container.serving
        assert not container.leaving
        # A container that does nothing, of a queue that has nothing for it; or one that its queue
        # gives back, after its runs, to another one that has work.
        others = [other.line for other in self.queues.values() if other is not queue]
        given_back = self.config.give_back and any(others)
        if container.keep:  # L6: nobody takes it, unless it is one too many
            too_many = len(self.kept(container.queue)) > queue.spec.containers_min
            assert queue.closing or (too_many and not container.held)
        assert given_back or not (container.held or queue.line)
        container.leaving, container.offered, container.paused = True, 0, False

    def _asked_Resume(self, effect: fx.Resume) -> None:  # noqa: N802
        container = self.containers[effect.container]
        queue = self.queues[container.queue]
        assert (effect.invoker, effect.epoch) == (container.invoker, queue.epoch)
        assert container.paused  # S7: one that sleeps, once, for work that waits
        assert not container.woken
        assert queue.line
        assert not queue.unheard  # S5
        container.woken = True

    def _asked_Throttle(self, effect: fx.Throttle) -> None:  # noqa: N802
        queue = self.queues[effect.queue]
        assert effect.on is not queue.throttled
        if effect.on:
            assert len(queue.line) >= self.config.waiting_max
        queue.throttled = effect.on

    def _asked_Decided(self, effect: fx.Decided) -> None:  # noqa: N802
        snapshot: Any = effect.snapshot
        queue = self.queues[effect.queue]
        assert snapshot.namespace_limit == self.shared(queue.spec.namespace)

    def _asked_Differed(self, effect: fx.Differed) -> None:  # noqa: N802
        assert effect.queue in self.queues

    # --- after each step ---------------------------------------------------------------------

    def _settled(self) -> None:
        """Assert that the step owes nothing, and that what it shows of itself is so."""
        owed = (
            self.late,
            self.cancelled,
            self.lost,
            self.creates,
            self.unreserve,
            self.forward,
            self.adopt,
        )
        assert not any(owed), owed
        self.creates, self.unreserve, self.lost, self.new = {}, set(), set(), ""
        held = sum([len(c.held) for c in self.containers.values()])
        waiting = sum([len(q.line) for q in self.queues.values()])
        counts = {**self.totals, "waiting": waiting, "delivered": held}
        assert self.scheduler.counts() == counts  # K1
        assert len(self.live) == waiting + held
        due_us = self.scheduler.next_deadline_us()
        for key, queue in self.queues.items():
            mine = [c for c in self.containers.values() if c.queue == key]
            shown = self.scheduler.explain(key)
            expected = {
                "epoch": queue.epoch,
                "waiting": len(queue.line),
                "running": sum([len(c.held) for c in mine]),
                "serving": sum([c.serving for c in mine]),
                "in_progress": sum([not c.serving for c in mine]),
                "leaving": sum([c.leaving for c in mine]),
                "paused": sum([c.paused for c in mine]),
                "reserving": len(queue.pending),
                "kept": len(self.kept(key)),
                "namespace_containers_max": self.cap(queue.spec.namespace),
                "namespace_containers": self.counted(queue.spec.namespace, None, pending=False),
            }
            assert {name: shown[name] for name in expected} == expected  # B1
            runs_us, mean_ms = queue.runs_us, shown["mean_run_ms"]
            assert (mean_ms is None) is (not runs_us)  # M1: of runs that ended well, without init
            if mean_ms is not None:
                assert min(runs_us) <= round(1000 * float(str(mean_ms))) <= max(runs_us)
            assert (shown["state"] == "ACTION_THROTTLED") == queue.throttled
            assert (shown["state"] == "REMOVING") == queue.closing
            if shown["state"] == "UNINITIALIZED":
                assert queue.unheard  # S5, L3: no longer than that
            if queue.closing:  # L3: a closing queue ends as soon as nothing is left of it
                assert queue.line or mine or queue.pending or queue.unheard or queue.joining
            lacks = len(self.kept(key)) < queue.spec.containers_min
            if lacks and not (queue.pending or queue.unheard or queue.closing):
                assert due_us is not None  # L6: somebody will look
            if queue.line:
                assert due_us is not None  # L3: somebody will look
                if not queue.unheard:
                    assert not any(c.offered for c in mine)  # L1
                    staff = [c for c in mine if c.serving and not c.leaving]
                    if staff and all(c.paused for c in staff):
                        assert any(c.woken for c in staff)  # L4
            if queue.throttled:
                assert queue.line  # L3
        for key in self.opened - self.queues.keys():
            assert not self.scheduler.has_queue(key)

    def kept(self, queue: str) -> list[SeenContainer]:
        mine = [c for c in self.containers.values() if c.queue == queue]
        return [c for c in mine if c.keep and not c.leaving]

    def cap(self, namespace: str) -> int:
        return self.caps.get(namespace, self.config.namespace_containers_max)

    def shared(self, namespace: str) -> int:
        """Return how many containers work without causes may have."""
        cap = self.cap(namespace)
        reserve = self.reserves.get(namespace, self.config.namespace_reserve)
        return min(cap, max(1, cap - reserve))

    def counted(self, namespace: str, queue: str | None, *, pending: bool = True) -> int:
        """Count the containers of the namespace, or of one queue, that its cap counts."""
        total = 0
        for key, seen in self.queues.items():
            if seen.spec.namespace == namespace and queue in (None, key):
                total += sum([c.queue == key for c in self.containers.values()])
                total += len(seen.pending) if pending else 0
        return total

    def used_mb(self, invoker: str) -> int:
        memory = {key: queue.spec.memory_mb for key, queue in self.queues.items()}
        used = sum([memory[c.queue] for c in self.containers.values() if c.invoker == invoker])
        for queue in self.queues.values():
            there = [place for place in queue.pending if place.invoker == invoker]
            used += len(there) * queue.spec.memory_mb
        return used


@dataclass
class PlainContainer:
    """A container of a pool, as flags that are set once and never cleared."""

    epoch: int
    spec: ev.QueueSpec
    up: bool = False
    asked_to_initialise: bool = False
    initialised: bool = False
    leaving: bool = False
    removing: bool = False
    cause: str = ""
    first: str = ""
    # The activations in it, and when each is given up; None: it has been.
    running: dict[str, int | None] = field(default_factory=dict)
    unreported: list[str] = field(default_factory=list)
    idle_since: tuple[int, int] = (0, 0)
    # "pausing", "paused" or "resuming"; whether somebody wants it; and what was delivered then.
    sleep: str = ""
    wanted: bool = False
    kept: list[str] = field(default_factory=list)
    stays: bool = False

    @property
    def idle(self) -> bool:
        rests = (self.initialised or not self.asked_to_initialise) and not self.wanted
        return self.up and rests and not self.leaving and not self.running

    @property
    def awake(self) -> bool:
        return self.idle and self.initialised and not self.sleep

    @property
    def free(self) -> int:
        if not self.up or self.leaving or self.sleep:
            return 0
        if self.asked_to_initialise and not self.initialised:
            return 0
        return self.spec.concurrency - len(self.running) if self.initialised else 1


class PlainPool:
    """What a pool answers to each event, as the lines of ``harness.describe``."""

    def __init__(self, memory_mb: int, keep_alive_us: int, grace_us: int) -> None:
        self.memory_mb = memory_mb
        self.keep_alive_us = keep_alive_us
        self.grace_us = grace_us
        self.drained_us = 2**62
        self.containers: dict[str, PlainContainer] = {}
        self.epochs: dict[str, int] = {}
        self.draining = False
        self.turn = 0
        self.out: list[str] = []

    def step(self, event: ev.Event, now_us: int) -> list[str]:
        self.out = []
        self.turn += 1
        getattr(self, f"_{type(event).__name__}")(event, now_us)
        return self.out

    def used_mb(self) -> int:
        return sum([c.spec.memory_mb for c in self.containers.values()])

    def next_deadline_us(self) -> int | None:
        ending = [c for c in self.containers.values() if c.idle and not c.stays]
        times = [c.idle_since[0] + self.keep_alive_us for c in ending]
        for container in self.containers.values():
            times += [us for us in container.running.values() if us is not None]
            if container.awake and self.grace_us:
                times.append(container.idle_since[0] + self.grace_us)
        return min(times, default=None)

    def _limit(self, container: PlainContainer, name: str, now_us: int) -> None:
        container.running[name] = min(now_us + container.spec.timeout_us, self.drained_us)

    def _Create(self, event: fx.Create, now_us: int) -> None:  # noqa: N802
        spec = event.spec
        if event.container in self.containers:
            return
        late = event.epoch < self.epochs.get(spec.queue, 0)
        if late or self.draining or self.used_mb() + spec.memory_mb > self.memory_mb:
            self.out.append(f"failed {event.container} RECOVERABLE")
            return
        self.containers[event.container] = PlainContainer(event.epoch, spec, stays=event.keep)
        self.out.append(f"start {event.container}")

    def _SandboxReady(self, event: ev.SandboxReady, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is None or container.up:
            return
        container.up = True
        if container.leaving:
            self._remove(event.container, container)
            return
        container.idle_since = (now_us, self.turn)
        self.out.append(f"serving {event.container}")
        self._pull(event.container, container, 1)

    def _SandboxFailed(self, event: ev.SandboxFailed, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and not container.up:
            del self.containers[event.container]
            self.out.append(f"failed {event.container} {ev.FailureClass(event.failure).name}")

    def _SandboxRemoved(self, event: ev.SandboxRemoved, now_us: int) -> None:  # noqa: N802
        container = self.containers.pop(event.container, None)
        if container is not None:
            self._give_back(event.container, container)
            self.out.append(f"gone {event.container}")

    def _SandboxBroke(self, event: ev.SandboxBroke, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and not container.removing:
            container.running.clear()
            self._leave(event.container, container, tell=True)

    def _Initialised(self, event: ev.Initialised, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is None or not container.asked_to_initialise or container.initialised:
            return
        if container.running.get(container.first) is None:
            return  # it has ended, or was given up
        container.initialised = True
        self._limit(container, container.first, now_us)
        self.out.append(f"run {container.first} in {event.container} init {event.init_us}")
        if container.spec.concurrency > 1 and not container.leaving:
            self._pull(event.container, container, container.free, [container.first])

    def _Deliver(self, event: fx.Deliver, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        name = event.activation.activation_id
        if container is not None and (name in container.running or name in container.kept):
            return
        asleep = container is not None and container.sleep and not container.leaving
        if container is not None and asleep and event.epoch >= container.epoch:
            if len(container.kept) < container.spec.concurrency:
                container.kept.append(name)
                self._wake(event.container, container)
            else:
                self.out.append(f"return from {event.container} {name}")
            return
        if container is None or event.epoch < container.epoch or container.free == 0:
            self.out.append(f"return from {event.container} {name}")
            return
        if container.initialised:
            self.out.append(f"run {name} in {event.container} init 0")
            if container.spec.concurrency > 1:
                container.unreported.append(name)
        else:
            container.asked_to_initialise, container.first = True, name
            self.out.append(f"init {event.container} for {name}")
        self._limit(container, name, now_us)

    def _RunEnded(self, event: ev.RunEnded, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is None or event.activation_id not in container.running:
            return
        del container.running[event.activation_id]
        good = event.outcome <= 1 and container.initialised and not container.leaving
        ended = f" ended {event.activation_id} {ev.Outcome(event.outcome).name}"
        self._pull(event.container, container, int(good), self._started(container), ended)
        container.idle_since = (now_us, self.turn)
        if not good:
            self._leave(event.container, container, tell=True)

    def _Resume(self, event: fx.Resume, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and event.epoch >= container.epoch:
            if container.sleep and not container.leaving:
                self._wake(event.container, container)
            elif container.initialised and container.free:
                started = self._started(container)
                self._pull(event.container, container, container.free, started)

    def _SandboxPaused(self, event: ev.SandboxPaused, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and container.sleep == "pausing" and not container.leaving:
            container.sleep = "paused"
            if container.wanted:
                self._wake(event.container, container)

    def _SandboxResumed(self, event: ev.SandboxResumed, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is None or container.sleep != "resuming" or container.leaving:
            return
        container.sleep, container.wanted = "", False
        for name in container.kept:
            self.out.append(f"run {name} in {event.container} init 0")
            self._limit(container, name, now_us)
            if container.spec.concurrency > 1:
                container.unreported.append(name)
        container.kept = []
        container.idle_since = (now_us, self.turn)
        if container.free:
            self._pull(event.container, container, container.free, self._started(container))

    def _wake(self, name: str, container: PlainContainer) -> None:
        container.wanted = True
        if container.sleep == "paused":
            container.sleep = "resuming"
            self.out.append(f"resume {name}")

    def _give_back(self, name: str, container: PlainContainer) -> None:
        if container.kept:
            self.out.append(f"return from {name} {', '.join(container.kept)}")
        container.kept = []

    def _Release(self, event: fx.Release, now_us: int) -> None:  # noqa: N802
        container = self.containers.get(event.container)
        if container is not None and event.epoch >= container.epoch and not container.leaving:
            self._leave(event.container, container, tell=False)

    def _DrainRequested(self, event: ev.DrainRequested, now_us: int) -> None:  # noqa: N802
        self.draining = True
        if event.limit_us:
            self.drained_us = min(self.drained_us, now_us + event.limit_us)
        for container in self.containers.values():
            for name, limit_us in container.running.items():
                if limit_us is not None:
                    container.running[name] = min(limit_us, self.drained_us)
        for name, container in self.containers.items():
            if not container.leaving:
                self._leave(name, container, tell=True)

    def _Adopt(self, event: fx.Adopt, now_us: int) -> None:  # noqa: N802
        if event.epoch < self.epochs.get(event.queue, 0):
            return
        self.epochs[event.queue] = event.epoch
        held = []
        news: list[tuple[str, PlainContainer]] = []
        for name, container in self.containers.items():
            if container.spec.queue == event.queue:
                container.epoch = event.epoch
                starting = "" if container.up else " (starting)"
                held_ids = [*container.running, *container.kept]
                ids = " with " + ", ".join(held_ids) if held_ids else ""
                held.append(f"{name}{' (kept)' * container.stays}{starting}{ids}")
                news.append((name, container))
        holds = " holds " + ", ".join(held) if held else ""
        self.out.append(f"adopted {event.queue} epoch {event.epoch}{holds}")
        for name, container in news:
            if container.leaving:
                self.out.append(f"leaving {name}")
            elif container.sleep:
                self.out.append(f"paused {name}")
            elif container.free:
                self._pull(name, container, container.free, self._started(container))

    def _TimeReached(self, event: ev.TimeReached, now_us: int) -> None:  # noqa: N802
        idle = [(c.idle_since, name) for name, c in self.containers.items() if c.idle]
        for since, name in sorted(idle):
            over = since[0] + self.keep_alive_us <= now_us
            if over and not self.containers[name].stays:  # C12
                self._leave(name, self.containers[name], tell=True)
        for since, name in sorted(idle):
            container = self.containers[name]
            if self.grace_us and container.awake and since[0] + self.grace_us <= now_us:
                container.sleep = "pausing"
                self.out += [f"paused {name}", f"pause {name}"]
        for container in self.containers.values():
            for name, limit_us in container.running.items():
                if limit_us is not None and limit_us <= now_us:
                    container.running[name] = None
                    drained = limit_us == self.drained_us
                    self.out.append(f"abort {name}" + " drained" * drained)

    def _started(self, container: PlainContainer) -> list[str]:
        started = [name for name in container.unreported if name in container.running]
        container.unreported = []
        return started

    def _pull(
        self,
        name: str,
        container: PlainContainer,
        free: int,
        started: list[str] | None = None,
        ended: str = "",
    ) -> None:
        text = " started " + ", ".join(started) if started else ""
        self.out.append(f"pull {name} epoch {container.epoch} free {free}{text}{ended}")

    def _leave(self, name: str, container: PlainContainer, *, tell: bool) -> None:
        if tell and not container.leaving:
            self.out.append(f"leaving {name}")
        container.leaving = True
        self._give_back(name, container)
        if container.up and not container.running:
            self._remove(name, container)

    def _remove(self, name: str, container: PlainContainer) -> None:
        if not container.removing:
            container.removing = True
            self.out.append(f"remove {name}")
