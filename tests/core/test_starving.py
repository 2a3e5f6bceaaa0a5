"""Many queues without room: who is looked at, and how many in one step."""

from __future__ import annotations

import pytest
from harness import Desk

from acs_core import events as ev
from acs_core import limits
from acs_core.demand import Decision, RuntimeFitRule, Snapshot
from acs_core.effects import Adopt, Decided, Deliver, Release, Reserve
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.starving import Starving

QUEUES = 2_000
MEMORY_MB = 100


class CountingRule:
    """The default rule; notes how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def decide(self, snapshot: Snapshot) -> Decision:
        self.asked += 1
        return RuntimeFitRule().decide(snapshot)


class Crowd:
    """Two busy containers, and QUEUES queues that want one each."""

    def __init__(self, memory_lacks: bool) -> None:
        self.rule = CountingRule()
        cap = 10_000 if memory_lacks else 2
        self.scheduler = Scheduler(
            SchedulerConfig("c", self.rule, namespace_containers_max=cap, namespace_reserve=0)
        )
        places = 2 if memory_lacks else 10_000
        self.step(ev.InvokerReported("i", places * MEMORY_MB))
        for index in range(2):
            held = ev.Held(f"busy-{index}", True, (f"run-{index}",))
            self.open(f"owner-{index}", (held,))
        self.queues = [f"q{index:05}" for index in range(QUEUES)]
        for queue in self.queues:
            self.open(queue)
            self.step(ev.Arrived(queue, ev.Activation(f"work-{queue}", b"", 0)))

    def open(self, queue: str, held: tuple[ev.Held, ...] = ()) -> None:
        self.step(ev.QueueOpened(ev.QueueSpec(queue, "n", queue, 1, memory_mb=MEMORY_MB), 1))
        self.step(ev.Adopted("i", queue, 1, held))

    def step(self, event: ev.Event, now_us: int = 0) -> list[object]:
        return self.scheduler.step(event, now_us)

    def asked_by(self, event: ev.Event, now_us: int) -> tuple[int, list[object]]:
        """Apply the event; return how many decisions that took, and the effects."""
        before = self.rule.asked
        effects = self.step(event, now_us)
        return self.rule.asked - before, effects


@pytest.mark.parametrize("memory_lacks", [False, True])
def test_what_comes_free_goes_to_who_starves_longest_and_few_are_asked(memory_lacks: bool) -> None:
    crowd = Crowd(memory_lacks)
    shown = [crowd.scheduler.explain(queue)["no_room"] for queue in crowd.queues]
    assert all(shown)
    asked, effects = crowd.asked_by(ev.ContainerGone("busy-0", "stopped"), 1)
    reserved = [effect for effect in effects if isinstance(effect, Reserve)]
    assert [effect.queue for effect in reserved] == [crowd.queues[0]]
    # The second finds nothing, and nobody behind it would.  The lifted throttle asks twice.
    assert asked == (2 if memory_lacks else 3)
    crowd.scheduler.check()


@pytest.mark.parametrize("memory_lacks", [False, True])
def test_no_step_decides_for_more_than_a_few_of_them(memory_lacks: bool) -> None:
    crowd = Crowd(memory_lacks)
    now_us = 200_000
    ticks = looked_at = 0
    while (crowd.scheduler.next_deadline_us() or now_us + 1) <= now_us:
        asked, _ = crowd.asked_by(ev.TimeReached(), now_us)
        assert asked <= 2 * limits.LOOKS_MAX
        looked_at += asked
        ticks += 1
        assert ticks < QUEUES
    assert looked_at >= QUEUES
    for event in (
        ev.InvokerReported("i", 200),
        ev.Arrived(crowd.queues[-1], ev.Activation("x", b"", now_us)),
        ev.Arrived(crowd.queues[-1], ev.Activation("y", b"", now_us)),
        ev.CreationFailed("busy-1", ev.FailureClass.RECOVERABLE, "no disk"),
    ):
        asked, _ = crowd.asked_by(event, now_us)
        assert asked <= 2 * limits.LINE_MAX + 1
    crowd.scheduler.check()


def test_what_concerns_every_queue_is_shared_out_among_ticks() -> None:
    crowd = Crowd(memory_lacks=False)
    asked, _ = crowd.asked_by(ev.LimitsChanged("n", 3, reserve=0), 1)
    assert 0 < asked <= 3 * limits.LOOKS_MAX  # the lifted throttle asks twice
    ticks = 0
    while crowd.scheduler.next_deadline_us() == 1:
        more, _ = crowd.asked_by(ev.TimeReached(), 1)
        assert more <= 3 * limits.LOOKS_MAX
        asked += more
        ticks += 1
    assert asked >= QUEUES
    assert ticks >= QUEUES // limits.LOOKS_MAX
    crowd.scheduler.check()


def test_invokers_that_come_and_go_concern_few_queues_in_a_step() -> None:
    rule = CountingRule()
    scheduler = Scheduler(SchedulerConfig("c", rule))
    queues = [f"q{index:03}" for index in range(10 * limits.LOOKS_MAX)]
    for queue in queues:
        scheduler.step(ev.QueueOpened(ev.QueueSpec(queue, "n", queue, 1), 1), 0)
        scheduler.step(ev.Arrived(queue, ev.Activation(f"a-{queue}", b"", 0)), 0)

    def concerned(event: ev.Event) -> list[str]:
        """Apply the event; return the queues that reserve then, or with the ticks after it."""
        reserving = []
        while True:
            before = rule.asked
            effects = scheduler.step(event, 1)
            assert rule.asked - before <= 2 * limits.LOOKS_MAX
            scheduler.check()
            for effect in effects:  # which become more on the way
                if isinstance(effect, Adopt) and effect.invoker:
                    adopted = ev.Adopted(effect.invoker, effect.queue, effect.epoch)
                    effects += scheduler.step(adopted, 1)
                elif isinstance(effect, Reserve):
                    reserving.append(effect.queue)
                    names = tuple([place.container for place in effect.places])
                    scheduler.step(ev.Reserved(effect.queue, effect.serial, names), 1)
            event = ev.TimeReached()
            if (scheduler.next_deadline_us() or 2) > 1:
                return sorted(reserving)

    assert concerned(ev.InvokerReported("i", 1_000_000)) == queues, "all were without an invoker"
    assert concerned(ev.InvokerReported("j", 1_000_000)) == []
    assert concerned(ev.InvokerGone("i")) == queues, "all had their container there"
    # One that was closed meanwhile is passed over, and so is its successor's name.
    scheduler.step(ev.LimitsChanged("n", 100), 1)
    scheduler.step(ev.LeadershipLost(queues[-1], "elsewhere"), 1)
    scheduler.step(ev.QueueOpened(ev.QueueSpec(queues[-1], "n", "x", 1), 2), 1)
    concerned(ev.TimeReached())
    assert scheduler.counts()["waiting"] == len(queues) - 1


def test_everybody_gets_a_turn() -> None:
    crowd = Crowd(memory_lacks=True)
    queues = crowd.queues[:40]
    for queue in crowd.queues[40:]:
        crowd.step(ev.LeadershipLost(queue, "elsewhere"))
    served: set[str] = set()
    now_us = 0
    turn = 0
    # Each container goes when it is asked to, and those who starve look when they ask to.
    while len(served) < len(queues) and turn < 10_000:
        turn += 1
        now_us += 10_000
        for effect in crowd.step(ev.TimeReached(), now_us):
            gone: list[object] = []
            if isinstance(effect, Release):
                gone = crowd.step(ev.ContainerGone(effect.container, "released"), now_us)
            for asked in (effect, *gone):
                if isinstance(asked, Reserve):
                    names = tuple([place.container for place in asked.places])
                    crowd.step(ev.Reserved(asked.queue, asked.serial, names), now_us)
                    for name in names:
                        crowd.step(ev.ContainerServing(name, "i"), now_us)
                        for given in crowd.step(ev.Pulled(name, 1, 1), now_us):
                            if isinstance(given, Deliver):
                                served.add(asked.queue)
    assert served == set(queues)


def test_room_is_made_for_the_first_ones_alone() -> None:
    scheduler = Scheduler(SchedulerConfig())
    scheduler.step(ev.InvokerReported("i", 100), 0)
    held = tuple([ev.Held(f"busy-{n}", True, (f"run-{n}",)) for n in range(100)])
    releases = 0
    for index in range(1 + 2 * limits.LINE_MAX):
        queue = f"q{index}"
        scheduler.step(ev.QueueOpened(ev.QueueSpec(queue, "n", queue, 1, memory_mb=1), 1), 0)
        scheduler.step(ev.Adopted("i", queue, 1, held if index == 0 else ()), 0)
        if index > 0:
            arrived = ev.Arrived(queue, ev.Activation(f"work-{queue}", b"", 0))
            effects = scheduler.step(arrived, 0)
            releases += sum(isinstance(effect, Release) for effect in effects)
    assert releases == limits.LINE_MAX
    scheduler.check()


def test_one_step_looks_through_many_containers_once() -> None:
    scheduler = Scheduler(SchedulerConfig())
    count = limits.ROOM_SCAN_MAX // 2 + 1
    scheduler.step(ev.InvokerReported("i", count), 0)
    held = tuple([ev.Held(f"busy-{n}", True, (f"run-{n}",)) for n in range(count)])
    scheduler.step(ev.LimitsChanged("n", 0), 0)
    for queue, namespace, there in (("rich", "m", held), ("a", "n", ()), ("b", "n", ())):
        scheduler.step(ev.QueueOpened(ev.QueueSpec(queue, namespace, queue, 1, memory_mb=1), 1), 0)
        scheduler.step(ev.Adopted("i", queue, 1, there), 0)
    for queue in ("a", "b"):
        scheduler.step(ev.Arrived(queue, ev.Activation(f"work-{queue}", b"", 0)), 0)

    def releases(event: ev.Event, now_us: int) -> int:
        return sum(isinstance(effect, Release) for effect in scheduler.step(event, now_us))

    # Both look, one makes room; the other does so a little later, not at its next look.
    assert releases(ev.LimitsChanged("n", 10), 1) == 1
    later_us = 1 + limits.BACKLOG_INTERVAL_US
    assert scheduler.next_deadline_us() == later_us
    assert releases(ev.TimeReached(), later_us) == 1
    scheduler.check()


def test_the_poorest_is_first_then_who_starves_longest() -> None:
    line = Starving()
    line.put("a", "n", True, 2.0, 1)
    line.put("b", "n", False, 2.0, 0)
    line.put("c", "m", True, 1.0, 5)
    line.put("d", "m", True, 1.0, 5)
    assert line.first(None) == ["c", "d", "a"]
    assert line.first("n") == ["b", "a"]
    assert line.lacks_memory("a")
    assert not line.lacks_memory("b")
    line.put("c", "m", True, 1.0, 6)
    line.put("c", "m", True, 1.0, 5)  # it starves for as long as before
    line.put("a", "n", True, 0.5, 0)
    assert line.first(None) == ["a", "c", "d"]
    assert line.first("n") == ["a", "b"]
    line.check()
    for name in ("a", "a", "b"):
        line.drop(name)
    assert line.first("n") == []
    assert (len(line), "b" in line, line.lacks_memory("c"), line.lacks_memory("a")) == (
        2,
        False,
        True,
        False,
    )
    line.check()


def test_a_line_is_read_no_further_than_its_bound() -> None:
    line = Starving()
    for index in range(3 * limits.LINE_MAX):
        line.put(f"q{index}", "n", True, 1.0, 0)
    assert line.first(None) == [f"q{index}" for index in range(limits.LINE_MAX)]
    assert line.first("n") == line.first(None)


def test_who_waits_for_a_look_already_is_not_put_in_the_line_again() -> None:
    crowd = Crowd(memory_lacks=False)
    crowd.asked_by(ev.LimitsChanged("n", 3, reserve=0), 1)
    asked, _ = crowd.asked_by(ev.LimitsChanged("n", 4, reserve=0), 1)
    assert asked <= 3 * limits.LOOKS_MAX
    ticks = 0
    while crowd.scheduler.next_deadline_us() == 1:
        crowd.asked_by(ev.TimeReached(), 1)
        ticks += 1
    assert ticks <= 2 + QUEUES // limits.LOOKS_MAX  # once each
    crowd.scheduler.check()


def test_who_finds_no_place_ends_the_line() -> None:
    config = SchedulerConfig(namespace_containers_max=1, report_decisions=True)
    scheduler = Scheduler(config)
    scheduler.step(ev.InvokerReported("i", 10_000), 0)
    for epoch, queue in enumerate("abcd", 1):
        scheduler.step(ev.QueueOpened(ev.QueueSpec(queue, "n", queue, 0), epoch), 0)
        held = (ev.Held("x", True, ("a1",)),) if queue == "a" else ()
        scheduler.step(ev.Adopted("i", queue, epoch, held), 0)
    for queue in "bcd":
        scheduler.step(ev.Arrived(queue, ev.Activation(queue, b"", 0)), 0)
    out = scheduler.step(ev.ContainerGone("x", "it died"), 0)
    assert [e.queue for e in out if isinstance(e, Reserve)] == ["b"]
    # The second one finds none; what is left belongs to the others no more than to it.
    assert {e.queue for e in out if isinstance(e, Decided)} == {"b", "c"}


def test_a_queue_whose_creations_fail_asks_for_the_room_of_one() -> None:
    desk = Desk(namespace_containers_max=2, namespace_reserve=0)
    desk.do(ev.InvokerReported("i1", 1_000))
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    desk.arrive("b1", queue="n/b")
    desk.do(ev.Reserved("n/b", 1, ("c-1",)))
    desk.do(ev.CreationFailed("c-1", ev.FailureClass.RECOVERABLE, "the engine is down"))
    assert desk.scheduler.explain("n/b")["state"] == "FLUSHING"
    desk.open("n/a", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True), ev.Held("y", True))))
    desk.pull("x")
    desk.pull("y")
    assert desk.wait(150_000) == ["release x: b needs the room"]


def test_memory_that_an_invoker_reports_goes_to_who_lacks_it_at_once() -> None:
    desk = Desk()
    desk.do(ev.InvokerReported("i1", 100))
    desk.open("n/a", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True, ("a1",)),)))
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.arrive("b1", queue="n/b") == []
    assert desk.do(ev.InvokerReported("i1", 200)) == ["reserve for n/b c-1@i1"]
