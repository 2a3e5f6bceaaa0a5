"""Proof of ``acs_core.scheduler`` in a hostile world, seen from outside (``models.Outside``).

Reports come late, in any order, twice, or never; creations fail; containers and invokers die and
come back; reservations are denied, granted in part, answered twice; limits, leaders and the clock
jump.  At the end the world turns kind, and everything must come to its end in time.

One thing a link never does, so the world does not either: it repeats no ``Returned`` later than
right after the first.

S1-S7, K1, L1-L7, B1, N4 and W2 of docs/invariants.md; ``Outside`` says which it asserts where.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from models import Outside, at_least

import acs_core
from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.scheduler import Scheduler, SchedulerConfig, UnknownQueue

SPECS = {
    "n/a": {"memory_mb": 128, "concurrency": 1},
    "n/b": {"memory_mb": 256, "concurrency": 3, "action_limit": 2, "wait_max_us": 2_000_000},
    "m/c": {"memory_mb": 512, "concurrency": 2, "wait_max_us": 5_000_000},
}
MEMORY_MB = {"i1": 1024, "i2": 512}
failures = st.sampled_from(ev.FailureClass)
queues = st.sampled_from(sorted(SPECS))
invokers = st.sampled_from(sorted(MEMORY_MB))
OUTCOMES = st.sampled_from(ev.Outcome)


@dataclass
class Real:
    """A container as it really is."""

    queue: str
    invoker: str
    epoch: int
    concurrency: int
    up: bool = False
    leaving: bool = False
    asleep: bool = False
    keep: bool = False
    held: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    @property
    def idles(self) -> bool:
        return self.up and not (self.leaving or self.asleep or self.held or self.running)


class HostileWorld(RuleBasedStateMachine):
    """One scheduler, and everything that may happen to it."""

    @initialize(
        original=st.booleans(),
        waiting_max=st.integers(1, 5),
        report=st.booleans(),
        low=st.booleans(),
        floor=st.sampled_from([0, 0, 1, 2]),
    )
    def build(self, original: bool, waiting_max: int, report: bool, low: bool, floor: int) -> None:
        self.floor = floor
        self.config = SchedulerConfig(
            rule=OpenWhiskRule() if original else RuntimeFitRule(),
            waiting_max=waiting_max,
            waiting_low_fraction=0.0 if low else 0.6,
            wait_max_us=3_000_000,
            namespace_containers_max=3,
            idle_grace_us=2_000_000,
            stop_grace_us=1_000_000,
            retry_max_us=800_000,
            reserve_answer_us=2_000_000,
            create_answer_us=4_000_000,
            report_decisions=report,
        )
        self.original = original
        self.scheduler = Scheduler(self.config)
        self.outside = Outside(self.scheduler, self.config)
        self.now_us = 1_000_000
        self.serial = 0
        self.real: dict[str, Real] = {}
        self.reports: list[ev.Event] = []
        self.asked: list[fx.Reserve] = []
        self.started: set[str] = set()
        # Sent again to a new leader while they run: it may refuse them, but not run them.
        self.sent_again: set[str] = set()
        self.all_idle_long = False
        self.damaged: set[str] = set()
        # Nothing is ever heard of these again.
        self.forgotten: set[str] = set()
        for invoker, memory_mb in MEMORY_MB.items():
            self.step(ev.InvokerReported(invoker, memory_mb))
        self.open("n/a")
        self.reports_arrive()

    # --- the world does what the scheduler asks for ------------------------------------------

    def step(self, event: ev.Event) -> None:
        effects = self.scheduler.step(event, self.now_us)
        self.scheduler.check()
        self.outside.saw(event, self.now_us, effects)
        for effect in effects:
            if isinstance(effect, fx.Adopt):
                self.adopt(effect)
            elif isinstance(effect, fx.Reserve):
                self.asked.append(effect)
            elif isinstance(effect, fx.Create):
                spec = effect.spec
                self.real[effect.container] = Real(
                    spec.queue, effect.invoker, effect.epoch, spec.concurrency, keep=effect.keep
                )
            elif isinstance(effect, fx.Deliver):
                name = effect.activation.activation_id
                assert name not in self.started  # S2
                container = self.real.get(effect.container)
                if container is not None:  # else it died, and nobody has said so yet
                    container.held.append(name)
                    if container.asleep:
                        self.wake(effect.container)
            elif isinstance(effect, fx.Resume):
                if effect.container in self.real:
                    self.wake(effect.container)
            elif isinstance(effect, fx.Release):
                if effect.container in self.real:
                    self.real[effect.container].leaving = True
            elif isinstance(effect, fx.Reject) and effect.cause != fx.Cause.UNKNOWN:
                name = effect.activation.activation_id
                assert name not in self.started or name in self.sent_again  # S2

    def adopt(self, effect: fx.Adopt) -> None:
        """Every invoker that is asked obeys at once; its answer is under way."""
        for invoker in [effect.invoker] if effect.invoker else self.outside.invokers:
            held: list[ev.Held] = []
            pulls: list[ev.Event] = []
            for name, container in self.real.items():
                if (container.queue, container.invoker) == (effect.queue, invoker):
                    container.epoch = effect.epoch
                    ids = tuple(container.held + container.running)
                    held.append(ev.Held(name, container.up, ids, container.keep))
                    # Once adopted, all of it counts as begun: none of it is given back.
                    for activation_id in container.held:
                        self.started.add(activation_id)
                    container.running += container.held
                    container.held = []
                    if container.asleep:
                        pulls.append(ev.ContainerPaused(name))
                    elif container.up and not container.leaving:
                        pulls.append(ev.Pulled(name, effect.epoch, self.room(container)))
            self.reports.append(ev.Adopted(invoker, effect.queue, effect.epoch, tuple(held)))
            self.reports.extend(pulls)

    def wake(self, name: str) -> None:
        container = self.real[name]
        if container.up and not container.leaving:
            container.asleep = False
            if self.room(container):
                self.reports.append(ev.Pulled(name, container.epoch, self.room(container)))

    def granted(self, asked: fx.Reserve) -> ev.Reserved:
        names = tuple([place.container for place in asked.places])
        return ev.Reserved(asked.queue, asked.serial, names)

    def room(self, container: Real) -> int:
        return max(0, container.concurrency - len(container.held) - len(container.running))

    def pick(self, data: st.DataObject, items: Any) -> Any:
        return data.draw(st.sampled_from(sorted(items)))

    def come_up(self, name: str) -> None:
        container = self.real[name]
        container.up = True
        self.reports.append(ev.ContainerServing(name, container.invoker))
        self.reports.append(ev.Pulled(name, container.epoch, 1))

    def end_run(self, name: str, activation_id: str, outcome: int) -> None:
        container = self.real[name]
        if activation_id in container.held:
            container.held.remove(activation_id)
            self.begin(activation_id)
        else:
            container.running.remove(activation_id)
        done = ev.Completion(activation_id, 0, 20_000, outcome)
        free = 0 if container.leaving else 1
        self.reports.append(ev.Pulled(name, container.epoch, free, (), (done,)))

    def begin(self, activation_id: str) -> None:
        assert activation_id not in self.started
        self.started.add(activation_id)

    # --- arrivals ----------------------------------------------------------------------------

    def arrive(self, queue: str, deadline_us: int = 0) -> None:
        self.serial += 1
        activation = ev.Activation(f"a{self.serial}", b"x", self.now_us, deadline_us)
        self.step(ev.Arrived(queue, activation))

    @rule(
        queue=queues,
        left_us=st.sampled_from([None, None, None, 0, 1, 400_000]),
        count=st.integers(1, 4),
    )
    def arrivals(self, queue: str, left_us: int | None, count: int) -> None:
        for _ in range(count):
            if queue in self.outside.queues:
                self.arrive(queue, 0 if left_us is None else self.now_us + left_us)

    @precondition(lambda self: self.outside.live)
    @rule(data=st.data(), same=st.booleans())
    def arrive_again(self, data: st.DataObject, same: bool) -> None:
        """A controller sends again what it has no answer for."""
        name = self.pick(data, self.outside.live)
        place = self.outside.live[name]
        queue = self.outside.containers[place].queue if place not in SPECS else place
        activation = self.outside.objects.get(name)
        if activation is None or not same:
            activation = ev.Activation(name, b"x", self.now_us)
        self.step(ev.Arrived(queue, activation))

    @precondition(lambda self: self.outside.spent)
    @rule(data=st.data())
    def repeated_after_its_end(self, data: st.DataObject) -> None:
        """Within one process the very same object may come once more."""
        activation = data.draw(st.sampled_from(self.outside.spent))
        if activation.queue in self.outside.queues:
            self.step(ev.Arrived(activation.queue, activation))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.step(ev.Cancelled(self.pick(data, [*self.outside.live, "nobody"])))

    # --- reservations and creations ----------------------------------------------------------

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), keep=st.booleans(), kind=st.integers(0, 3))
    def answer(self, data: st.DataObject, keep: bool, kind: int) -> None:
        asked = self.asked[data.draw(st.integers(0, len(self.asked) - 1))]
        if not keep:
            self.asked.remove(asked)
        names = [place.container for place in asked.places]
        if kind == 0:
            self.step(ev.Denied(asked.queue, asked.serial, "no room"))
            return
        granted = names if kind > 1 else names[: len(names) // 2 + 1]
        self.step(ev.Reserved(asked.queue, asked.serial, tuple(granted)))

    @rule(queue=queues)
    def hunger_is_taken_back(self, queue: str) -> None:
        """A scheduler hears what itself has told, and of queues that were elsewhere before."""
        self.step(ev.HungerEnded(queue))

    @precondition(lambda self: any(q.pending for q in self.outside.queues.values()))
    @rule(data=st.data(), denied=st.booleans())
    def late_answer(self, data: st.DataObject, denied: bool) -> None:
        """The answer to an earlier reservation comes while this one is not answered yet."""
        seen = self.outside.queues
        queue = self.pick(data, [key for key, each in seen.items() if each.pending])
        serial = seen[queue].serial - 1
        if denied:
            self.step(ev.Denied(queue, serial, "no room"))
        else:
            names = tuple([place.container for place in seen[queue].pending])
            self.step(ev.Reserved(queue, serial, names))

    @precondition(lambda self: any(not c.up for c in self.real.values()))
    @rule(data=st.data(), kind=st.integers(0, 5))
    def creation(self, data: st.DataObject, kind: int) -> None:
        name = self.pick(data, [n for n, c in self.real.items() if not c.up])
        if kind > max(ev.FailureClass):
            self.come_up(name)
            return
        del self.real[name]
        self.reports.append(ev.CreationFailed(name, kind, "the engine says no"))

    @rule(queue=queues, count=st.integers(1, 3), denied=st.booleans(), failure=failures)
    def creations_fail(self, queue: str, count: int, denied: bool, failure: int) -> None:
        if queue not in self.outside.queues:
            return
        for _ in range(count):
            self.arrive(queue)
        asked, self.asked = self.asked, []
        for reserve in asked:
            if denied:
                self.step(ev.Denied(reserve.queue, reserve.serial, "no room"))
            else:
                names = [place.container for place in reserve.places]
                self.step(ev.Reserved(reserve.queue, reserve.serial, tuple(names)))
        for name, container in list(self.real.items()):
            if not container.up:
                del self.real[name]
                self.step(ev.CreationFailed(name, failure, "the engine says no"))

    @rule(queue=queues, rounds=st.integers(1, 3), failure=failures)
    def a_creation_fails_beside_others(self, queue: str, rounds: int, failure: int) -> None:
        for _ in range(rounds):
            if queue not in self.outside.queues:
                return
            for _ in range(SPECS[queue]["concurrency"] + 1):
                self.arrive(queue)
            asked, self.asked = self.asked, []
            for reserve in asked:
                self.step(self.granted(reserve))
            self.now_us += 500_000
            self.step(ev.TimeReached())
        there = [name for name, container in self.real.items() if container.queue == queue]
        coming = [name for name in there if not self.real[name].up]
        if len(there) > 1 and coming:
            del self.real[coming[-1]]
            self.step(ev.CreationFailed(coming[-1], failure, "the engine says no"))

    @rule(queue=queues, answered=st.booleans())
    def closes_while_it_asks(self, queue: str, answered: bool) -> None:
        if queue not in self.outside.queues:
            return
        self.arrive(queue)
        for name in list(self.outside.queues[queue].line):
            self.step(ev.Cancelled(name))
        if queue in self.outside.queues:
            self.step(ev.QueueClosing(queue, "updated"))
        if answered and queue in self.outside.queues:
            asked = [reserve for reserve in self.asked if reserve.queue == queue]
            self.asked = [reserve for reserve in self.asked if reserve.queue != queue]
            for reserve in asked:
                self.step(ev.Denied(queue, reserve.serial, "no room"))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), wait=st.booleans(), late=st.booleans())
    def answer_is_lost(self, data: st.DataObject, wait: bool, late: bool) -> None:
        """The answer to a reservation never comes, or only after it was given up."""
        asked = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if wait:
            self.now_us += self.config.reserve_answer_us
            self.step(ev.TimeReached())
        if late:
            self.step(self.granted(asked))

    @precondition(lambda self: any(not c.up for c in self.real.values()))
    @rule(data=st.data(), wait=st.booleans(), late=st.booleans(), at_once=st.booleans())
    def creation_is_lost(self, data: st.DataObject, wait: bool, late: bool, at_once: bool) -> None:
        """Nobody hears of a creation, or only after it was given up."""
        name = self.pick(data, [n for n, c in self.real.items() if not c.up])
        if wait:
            self.now_us += self.config.create_answer_us
            self.step(ev.TimeReached())
        if late:
            self.come_up(name)
            if at_once:  # its pull overtakes the word that it serves
                self.step(self.reports.pop())
        else:
            del self.real[name]
            self.forgotten.add(name)

    # --- containers --------------------------------------------------------------------------

    @precondition(lambda self: any(c.held or c.running for c in self.real.values()))
    @rule(data=st.data(), outcome=OUTCOMES)
    def run_ends(self, data: st.DataObject, outcome: int) -> None:
        name = self.pick(data, [n for n, c in self.real.items() if c.held or c.running])
        container = self.real[name]
        self.end_run(name, self.pick(data, container.held + container.running), outcome)

    @precondition(lambda self: any(c.held for c in self.real.values()))
    @rule(data=st.data(), report=st.booleans())
    def run_starts(self, data: st.DataObject, report: bool) -> None:
        name = self.pick(data, [n for n, c in self.real.items() if c.held])
        container = self.real[name]
        activation_id = self.pick(data, container.held)
        container.held.remove(activation_id)
        container.running.append(activation_id)
        self.begin(activation_id)
        if report:
            self.reports.append(ev.Pulled(name, container.epoch, 0, (activation_id,)))

    @precondition(lambda self: any(c.held for c in self.real.values()))
    @rule(data=st.data(), leave=st.booleans())
    def give_back(self, data: st.DataObject, leave: bool) -> None:
        name = self.pick(data, [n for n, c in self.real.items() if c.held])
        container = self.real[name]
        back, container.held = container.held, []
        if leave:
            container.leaving = True
            self.reports.append(ev.ContainerLeaving(name, "idle"))
        self.reports.append(ev.Returned(name, container.epoch, tuple(back)))
        if not leave:
            self.reports.append(ev.Pulled(name, container.epoch, self.room(container)))

    @precondition(lambda self: any(c.idles for c in self.real.values()))
    @rule(data=st.data(), at_once=st.booleans())
    def container_falls_asleep(self, data: st.DataObject, at_once: bool) -> None:
        name = self.pick(data, [n for n, c in self.real.items() if c.idles])
        self.real[name].asleep = True
        self.reports.append(ev.ContainerPaused(name))
        if at_once:
            self.reports_arrive()

    @precondition(lambda self: self.real)
    @rule(data=st.data(), leaves=st.booleans())
    def container_ends(self, data: st.DataObject, leaves: bool) -> None:
        name = self.pick(data, self.real)
        container = self.real[name]
        if leaves:
            container.leaving = True
            self.reports.append(ev.ContainerLeaving(name, "idle"))
        else:
            del self.real[name]
            self.reports.append(ev.ContainerGone(name, "it died"))

    @precondition(lambda self: self.real)
    @rule(data=st.data(), free=st.integers(0, 4), epoch=st.integers(-1, 1))
    def odd_pull(self, data: st.DataObject, free: int, epoch: int) -> None:
        """Slots that nobody has, or words to another leader."""
        name = self.pick(data, [n for n, c in self.real.items() if c.up] or ["nobody"])
        spoken = self.real[name].epoch + epoch if name in self.real else 1
        self.step(ev.Pulled(name, spoken, free))

    @precondition(lambda self: any(c.started for c in self.outside.containers.values()))
    @rule(data=st.data())
    def odd_return(self, data: st.DataObject) -> None:
        """What was said to have started is said to come back."""
        seen = self.outside.containers
        name = self.pick(data, [n for n, c in seen.items() if c.started])
        epoch = self.outside.queues[seen[name].queue].epoch
        self.step(ev.Returned(name, epoch, tuple(sorted(seen[name].started))))

    @precondition(lambda self: any(c.held for c in self.outside.containers.values()))
    @rule(data=st.data(), later=st.booleans())
    def late_return(self, data: st.DataObject, later: bool) -> None:
        """Deliveries of another leader come back, by the names that this one's have."""
        seen = self.outside.containers
        name = self.pick(data, [n for n, c in seen.items() if c.held])
        epoch = self.outside.queues[seen[name].queue].epoch + (1 if later else -1)
        self.step(ev.Returned(name, epoch, tuple(seen[name].held)))

    # --- the wire ----------------------------------------------------------------------------

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), keep=st.booleans())
    def report_arrives(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.reports) - 1))
        report = self.reports[index]
        if not keep or isinstance(report, ev.Returned):
            del self.reports[index]
        self.step(report)
        if keep:
            self.step(report)

    @precondition(lambda self: self.reports)
    @rule()
    def reports_arrive(self) -> None:
        reports, self.reports = self.reports, []
        for report in reports:
            self.step(report)

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def report_is_lost(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.reports) - 1))
        report = self.reports[index]
        if not isinstance(report, ev.Adopted):
            self.damaged.add(report.container)  # type: ignore[attr-defined]
            del self.reports[index]

    @rule(steps=st.integers(1, 12))
    def things_take_their_course(self, steps: int) -> None:
        """Some steps without trouble, so that the rest is reached."""
        for _ in range(steps):
            self.one_thing()

    @rule(queue=queues, count=st.integers(1, 4), steps=st.integers(0, 8))
    def work_and_its_course(self, queue: str, count: int, steps: int) -> None:
        if queue not in self.outside.queues:
            self.open(queue)
            self.reports_arrive()
        for _ in range(count):
            self.arrive(queue)
        for _ in range(steps):
            self.one_thing()

    def one_thing(self) -> None:
        """Do what would be done next if all went well."""
        if self.reports:
            self.step(self.reports.pop(0))
        elif self.asked:
            asked = self.asked.pop(0)
            self.step(self.granted(asked))
        else:
            for name, container in self.real.items():
                if not container.up:
                    self.come_up(name)
                    return
                if container.held or container.running:
                    self.end_run(name, (container.held + container.running)[0], 0)
                    return

    # --- time, invokers, limits, queues ------------------------------------------------------

    @rule(
        us=st.sampled_from([1, 5_000, 100_000, 500_000, 3_000_000, 70_000_000]), tick=st.booleans()
    )
    def time_passes(self, us: int, tick: bool) -> None:
        self.now_us += us
        if tick:
            self.step(ev.TimeReached())

    @rule()
    def next_deadline(self) -> None:
        due_us = self.scheduler.next_deadline_us()
        if due_us is not None:
            self.now_us = max(self.now_us, due_us)
            self.step(ev.TimeReached())

    @rule(
        invoker=invokers,
        memory_mb=st.sampled_from([100, 512, 1024]),
        elsewhere_mb=st.sampled_from([0, 200]),
        rate=st.sampled_from([0.0, 4.0]),
    )
    def invoker_reports(self, invoker: str, memory_mb: int, elsewhere_mb: int, rate: float) -> None:
        self.step(ev.InvokerReported(invoker, memory_mb, elsewhere_mb, 200_000, rate))

    @rule(invoker=invokers, dies=st.booleans(), back=st.booleans())
    def invoker_gone(self, invoker: str, dies: bool, back: bool) -> None:
        for name, container in list(self.real.items()):
            if container.invoker == invoker:
                if dies:
                    del self.real[name]
                else:  # it lives on, unknown, and starts what had reached it
                    self.damaged.add(name)
        self.step(ev.InvokerGone(invoker))
        if back:
            self.step(ev.InvokerReported(invoker, MEMORY_MB[invoker]))

    @rule(namespace=st.sampled_from("nm"), cap=st.sampled_from([0, 1, 1, 2, 4]))
    def limits_change(self, namespace: str, cap: int) -> None:
        self.step(ev.LimitsChanged(namespace, cap))

    @rule(queue=queues, late=st.booleans())
    def queue_opens(self, queue: str, late: bool) -> None:
        if queue not in self.outside.queues:
            self.open(queue)
            if not late:
                self.reports_arrive()

    def open(self, queue: str) -> None:
        self.serial += 1
        namespace, action = queue.split("/")
        floor = self.floor if queue == "m/c" else 0
        spec = ev.QueueSpec(queue, namespace, action, 0, containers_min=floor, **SPECS[queue])
        self.step(ev.QueueOpened(spec, self.serial, 5_000 * (self.serial % 2)))

    @precondition(lambda self: self.outside.queues)
    @rule(data=st.data())
    def queue_closes(self, data: st.DataObject) -> None:
        self.step(ev.QueueClosing(self.pick(data, self.outside.queues), "updated"))

    @precondition(lambda self: self.outside.queues)
    @rule(
        data=st.data(),
        again=st.booleans(),
        heard=st.sampled_from(["none", "one", "one that ends", "one, and work comes", "all"]),
    )
    def leader_changes(self, data: st.DataObject, again: bool, heard: str) -> None:
        """Leadership goes and comes back; all that is not ended is sent again."""
        queue = self.pick(data, self.outside.queues)
        # What has begun is sent again only while it runs: the nodes tell apart what has ended.
        line = self.outside.queues[queue].line
        waiting = [name for name in line if name not in self.started]
        there = [c.running for c in self.real.values() if c.queue == queue]
        begun = [name for running in there for name in running if name in self.outside.live]
        self.step(ev.LeadershipLost(queue, "s2"))
        if again:
            self.open(queue)
            self.sent_again |= set(begun)
            for name in waiting + begun:
                self.step(ev.Arrived(queue, ev.Activation(name, b"x", self.now_us)))
            if heard == "all":
                self.reports_arrive()
            elif heard != "none":
                self.hear_one(queue, heard)

    def hear_one(self, queue: str, heard: str) -> None:
        """Let the answer of one invoker arrive, with what its containers offer."""
        answers = [r for r in self.reports if isinstance(r, ev.Adopted) and r.queue == queue]
        for answer in answers[:1]:
            names = [held.container for held in answer.held]
            offers = [r for r in self.reports if getattr(r, "container", "") in names]
            for report in (answer, *offers):
                self.reports.remove(report)
                self.step(report)
            if heard == "one that ends":
                for name in names:
                    self.real.pop(name, None)
                    self.step(ev.ContainerGone(name, "it died"))
                self.now_us += 3_000_000
                self.step(ev.TimeReached())
        if heard == "one, and work comes":
            self.arrive(queue)

    # --- misuse ------------------------------------------------------------------------------

    @rule(kind=st.integers(0, 7))
    def misuse(self, kind: int) -> None:
        before = dump(self.scheduler, sorted(SPECS))
        known = sorted(self.outside.queues)
        activation = ev.Activation("misused", b"", self.now_us)
        spec = ev.QueueSpec(known[0] if known else "x", "n", "a", 0)
        wrong: list[tuple[Any, int, type[Exception]]] = [
            (ev.Arrived("nowhere", activation), self.now_us, UnknownQueue),
            (ev.QueueClosing("nowhere", "why"), self.now_us, UnknownQueue),
            (ev.LeadershipLost("nowhere", "s2"), self.now_us, UnknownQueue),
            (ev.TimeReached(), self.outside.now_us - 1, ValueError),
            (ev.LimitsChanged("n", 1, 0.0), self.now_us, ValueError),
            (ev.SandboxReady("c"), self.now_us, TypeError),
            (None, self.now_us, TypeError),
            (ev.QueueOpened(spec, 9), self.now_us, ValueError),
        ]
        event, now_us, error = wrong[kind]
        if kind < 7 or known:
            with pytest.raises(error):
                self.scheduler.step(event, now_us)
        assert dump(self.scheduler, sorted(SPECS)) == before  # S6

    # --- the world turns kind ----------------------------------------------------------------

    def kind_turn(self) -> bool:
        """Do at once all that can be done without time; tell whether there was anything."""
        did = bool(self.reports or self.asked)
        reports, self.reports = self.reports, []
        for report in reports:
            self.step(report)
        asked, self.asked = self.asked, []
        for reserve in asked:
            self.step(self.granted(reserve))
        for name, container in list(self.real.items()):
            if not container.up:
                self.come_up(name)
                did = True
        for name in sorted(self.outside.containers):
            hopeless = name in self.forgotten and not self.outside.containers[name].serving
            if (name not in self.real or name in self.damaged) and not hopeless:
                self.real.pop(name, None)
                self.step(ev.ContainerGone(name, "cleaned up"))
                did = True
        for name, container in list(self.real.items()):
            if name not in self.outside.containers:
                del self.real[name]
                continue
            for activation_id in container.held + container.running:
                self.end_run(name, activation_id, 0)
                did = True
            if self.all_idle_long and not (container.leaving or container.keep):
                container.leaving = True
                self.reports.append(ev.ContainerLeaving(name, "idle"))
            if container.leaving and not self.reports:
                del self.real[name]
                self.step(ev.ContainerGone(name, "left"))
                did = True
        return did

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for invoker in MEMORY_MB:
            self.step(ev.InvokerReported(invoker, 8_192))
        for namespace, cap in (("n", 1), ("m", 2)):
            self.step(ev.LimitsChanged(namespace, cap))
        # Slots whose offer came before its container was known are offered again.
        for name, container in self.real.items():
            if container.asleep:
                self.reports.append(ev.ContainerPaused(name))
            elif container.up and not container.leaving:
                self.reports.append(ev.Pulled(name, container.epoch, self.room(container)))
        # L2: within the longest pause after failures and a look for each queue that must go
        # before.  The original's rule leaves a full queue without containers to its wait bound.
        # What is never answered is given up before.
        bound_us = self.config.retry_max_us + 10 * self.config.decision_interval_us
        bound_us += self.config.reserve_answer_us + self.config.create_answer_us
        if self.original:
            bound_us += max(self.config.wait_max_us, SPECS["m/c"]["wait_max_us"])
        since_us = self.now_us
        self.drive(lambda: not self.outside.live, since_us + bound_us)
        assert not any(queue.throttled for queue in self.outside.queues.values())
        # Then only floors are left: containers go after their keep-alive, queues after their
        # graces.  And floors are whole: the cap of m is 2, of which one is for calls.
        self.all_idle_long = True
        bound_us += self.config.idle_grace_us + self.config.stop_grace_us + 1_000_000
        self.drive(self.nothing_but_floors, self.now_us + bound_us)
        if "m/c" in self.outside.queues:
            self.step(ev.QueueClosing("m/c", "it is over"))
            self.drive(lambda: not self.outside.queues, self.now_us + bound_us)
        assert self.scheduler.next_deadline_us() is None
        assert not self.outside.containers

    def nothing_but_floors(self) -> bool:
        queues = self.outside.queues
        kept = [c for c in self.outside.containers.values() if c.keep and not c.leaving]
        whole = 0 < len(kept) <= self.floor and all(c.serving for c in kept)  # L6
        if "m/c" in queues and self.floor and not queues["m/c"].closing:
            return len(queues) == 1 and whole and len(self.outside.containers) == len(kept)
        return not queues

    def drive(self, done: Any, until_us: int) -> None:
        while self.kind_turn() or not done():
            if self.reports or self.asked:
                continue
            due_us = self.scheduler.next_deadline_us()
            if done():
                return
            assert due_us is not None, "nobody will look"
            self.now_us = max(self.now_us, due_us)
            assert self.now_us <= until_us, self.outside.live or self.outside.queues
            self.step(ev.TimeReached())


def dump(scheduler: Scheduler, keys: list[str]) -> object:
    """Return all that can be seen of a scheduler; on the plain build all that there is."""
    shown = [scheduler.explain(key) for key in keys if scheduler.has_queue(key)]
    seen = (scheduler.counts(), scheduler.next_deadline_us(), shown)
    return seen if acs_core.COMPILED else (seen, deep(scheduler, {}))


def deep(value: Any, known: dict[int, int]) -> Any:
    if isinstance(value, dict):
        return [(key, deep(item, known)) for key, item in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return [deep(item, known) for item in value]
    if not hasattr(value, "__dict__") or isinstance(value, IntEnum):
        return repr(value)
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = len(known)
    return type(value).__name__, deep(vars(value), known)


TestHostileWorld = HostileWorld.TestCase
TestHostileWorld.settings = at_least(800)
