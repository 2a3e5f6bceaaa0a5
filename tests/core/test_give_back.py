"""Fairness as a scheduler keeps it: shares with room for all, turns without."""

from __future__ import annotations

import pytest
from harness import Desk, SchedulerPair, Times

from acs_core.demand import OpenWhiskRule
from acs_core.events import (
    Adopted,
    ContainerServing,
    CreationFailed,
    FailureClass,
    InvokerReported,
    LimitsChanged,
    QueueSpec,
    Reserved,
)
from acs_core.scheduler import SchedulerConfig

MEMORY = 100


class Load:
    """Queues that always have work: as soon as one activation ends, the next one arrives."""

    def __init__(self, pair: SchedulerPair, users: dict[str, int], namespace: str = "n") -> None:
        self.pair = pair
        self.ended = dict.fromkeys(users, 0)
        self._serial = 0
        self._users = users
        for queue in users:
            pair.open(QueueSpec(queue, namespace, queue, 1, memory_mb=MEMORY))

    def run(self, us: int) -> None:
        """Keep every queue at its number of users for so long."""
        until_us = self.pair.now_us + us
        while self.pair.now_us < until_us:
            for queue, users in self._users.items():
                shown = self.pair.scheduler.explain(queue)
                for _ in range(users - int(str(shown["waiting"])) - int(str(shown["running"]))):
                    self._serial += 1
                    self.pair.arrive(queue, f"{queue}-{self._serial}")
            self.pair.advance(20_000)

    def serving(self) -> dict[str, int]:
        """Count the containers that serve each queue and stay."""
        shown = {queue: self.pair.scheduler.explain(queue) for queue in self._users}
        return {q: int(str(s["serving"])) - int(str(s["leaving"])) for q, s in shown.items()}


def started(pair: SchedulerPair) -> dict[str, int]:
    """Count the results by queue."""
    counts: dict[str, int] = {}
    for name in pair.results:
        queue = name.rpartition("-")[0]
        counts[queue] = counts.get(queue, 0) + 1
    return counts


def pair_with_room_for(containers: int) -> SchedulerPair:
    config = SchedulerConfig(name="c", wait_max_us=60_000_000)
    times = Times(creation_us=300_000, run_us=400_000)
    return SchedulerPair({"i": containers * MEMORY}, config=config, times=times)


def test_a_newcomer_gets_its_share_of_a_busy_machine() -> None:
    pair = pair_with_room_for(8)
    first = Load(pair, {"a": 40})
    first.run(5_000_000)
    assert first.serving() == {"a": 8}
    both = Load(pair, {"b": 40})
    first._users.update(both._users)
    first.run(30_000_000)
    assert first.serving() == {"a": 4, "b": 4}


def test_a_newcomer_with_little_work_takes_no_more_than_it_needs() -> None:
    pair = pair_with_room_for(8)
    load = Load(pair, {"a": 40})
    load.run(5_000_000)
    Load(pair, {"b": 1})
    load._users["b"] = 1
    load.run(20_000_000)
    assert load.serving() == {"a": 7, "b": 1}


def test_with_more_queues_than_containers_each_gets_its_turn() -> None:
    pair = pair_with_room_for(2)
    users = {f"q{i}": 3 for i in range(5)}
    Load(pair, users).run(40_000_000)
    counts = started(pair)
    assert set(counts) == set(users), f"some never ran: {counts}"
    assert min(counts.values()) >= 0.5 * sum(counts.values()) / 5, counts
    assert not pair.rejected


def test_with_more_queues_than_places_of_the_namespace_each_gets_its_turn() -> None:
    config = SchedulerConfig(name="c", wait_max_us=60_000_000, namespace_containers_max=2)
    times = Times(creation_us=300_000, run_us=400_000)
    pair = SchedulerPair({"i": 100 * MEMORY}, config=config, times=times)
    users = {f"q{i}": 3 for i in range(5)}
    Load(pair, users).run(40_000_000)
    counts = started(pair)
    assert set(counts) == set(users), f"some never ran: {counts}"
    assert not pair.rejected


def test_who_lacks_memory_keeps_nobody_from_a_place() -> None:
    pair = SchedulerPair({"i": 3 * MEMORY})
    for name, memory_mb in (("a", MEMORY), ("large", 3 * MEMORY), ("b", MEMORY)):
        pair.open(QueueSpec(name, "n", name, 1, memory_mb=memory_mb))
    pair.advance(1)
    pair.arrive("a", "a1")
    pair.arrive("large", "l1")
    pair.arrive("b", "b1")
    # The memory belongs to the large one first; the namespace has places for both.
    binds = [str(pair.scheduler.explain(name)["binds"]) for name in ("large", "b")]
    assert all("memory" in text for text in binds), binds
    pair.advance(5_000_000)
    assert set(pair.results) == {"a1", "l1", "b1"}


def test_namespaces_share_by_weight() -> None:
    pair = pair_with_room_for(8)
    heavy, light = Load(pair, {"h": 40}, "heavy"), Load(pair, {"l": 40}, "light")
    pair.tell(LimitsChanged("heavy", 10_000, 3.0))
    heavy._users.update(light._users)
    heavy.run(40_000_000)
    assert heavy.serving() == {"h": 6, "l": 2}


def test_without_give_back_a_busy_queue_keeps_all() -> None:
    config = SchedulerConfig(name="c", give_back=False)
    times = Times(creation_us=300_000, run_us=400_000)
    pair = SchedulerPair({"i": 2 * MEMORY}, config=config, times=times)
    load = Load(pair, {"a": 40})
    load.run(5_000_000)
    Load(pair, {"b": 5})
    load._users["b"] = 5
    load.run(10_000_000)
    assert load.serving() == {"a": 2, "b": 0}


@pytest.mark.parametrize("weight", [0.0, -1.0, 1_001.0, float("nan")])
def test_a_weight_out_of_range_is_refused_and_nothing_changed(weight: float) -> None:
    pair = pair_with_room_for(1)
    with pytest.raises(ValueError, match="weight is"):
        pair.scheduler.step(LimitsChanged("n", 5, weight), 1)
    pair.scheduler.check()


def two_at_work(gap_us: int) -> tuple[SchedulerPair, int]:
    """Let two queues fill two containers; the second's work comes once in ``gap_us``.

    Returns the pair when the first one has far too much to do, and how many containers there were.
    """
    pair = pair_with_room_for(2)
    for queue in ("busy", "calls"):
        pair.open(QueueSpec(queue, "n", queue, 1, memory_mb=MEMORY))
        pair.arrive(queue, f"{queue}-first")
        pair.advance(1_000_000)
    pair.times = Times(creation_us=300_000, run_us=1_000)
    for number in range(3_000_000 // gap_us):
        pair.arrive("calls", f"calls-{number}")
        pair.advance(gap_us)
    pair.times = Times(creation_us=300_000, run_us=400_000)
    for number in range(20):
        pair.arrive("busy", f"busy-{number}")
    return pair, int(str(pair.scheduler.explain("calls")["serving"]))


def leaving(pair: SchedulerPair) -> int:
    return int(str(pair.scheduler.explain("calls")["leaving"]))


def test_a_pause_between_two_calls_costs_nobody_its_only_container() -> None:
    pair, had = two_at_work(gap_us=20_000)
    assert had == 1
    for number in range(100, 200):
        pair.advance(20_000)
        assert leaving(pair) == 0
        pair.arrive("calls", f"calls-later{number}")
    assert started(pair)["calls"] >= 100


def test_who_pauses_for_longer_than_usual_gives_its_container_to_who_has_too_few() -> None:
    pair, _ = two_at_work(gap_us=20_000)
    assert leaving(pair) == 0
    pair.advance(200_000)  # ten times the usual gap, but a creation takes longer
    assert leaving(pair) == 0
    pair.advance(300_000)
    assert int(str(pair.scheduler.explain("calls")["serving"])) == leaving(pair)


def test_who_calls_seldom_keeps_its_container_for_a_second() -> None:
    pair, _ = two_at_work(gap_us=750_000)
    pair.advance(100_000)
    assert leaving(pair) == 0
    assert int(str(pair.scheduler.explain("calls")["serving"])) == 1
    pair.advance(1_500_000)
    assert int(str(pair.scheduler.explain("calls")["serving"])) == 0


def test_who_works_gives_nothing_to_who_has_no_work() -> None:
    # The original's rule asks for a container of a queue whose creation failed, work or not.
    desk = Desk(rule=OpenWhiskRule())
    desk.do(InvokerReported("i1", 2 * MEMORY))
    for queue in ("n/a", "n/b"):
        desk.open(queue, memory_mb=MEMORY, action_limit=1)
        desk.do(Adopted("i1", queue, 1))
    desk.arrive("a1", "a2")
    desk.do(Reserved("n/a", 1, ("c-1",)), ContainerServing("c-1", "i1"))
    assert desk.pull("c-1") == ["deliver a1 to c-1"]
    desk.wait(20_000_000)  # its turn is over
    desk.arrive("b1", queue="n/b")
    desk.do(Reserved("n/b", 2, ("c-2",)))
    failed = CreationFailed("c-2", int(FailureClass.FINAL), "no such image")
    assert any("no such image" in word for word in desk.do(failed))
    desk.do(InvokerReported("i1", MEMORY))
    assert desk.wait(1_000_000) == []
    assert desk.do(LimitsChanged("n", 5)) == []  # all are looked at
    shown = desk.scheduler.explain("n/b")
    assert (shown["waiting"], shown["count"], shown["serving"]) == (0, 1, 0)
    # It has the room as soon as it has work for it.
    assert desk.arrive("b2", queue="n/b") == ["release c-1: b has too few containers"]


def test_room_is_made_for_those_alone_for_whom_there_is_none() -> None:
    desk = Desk()
    desk.do(InvokerReported("i1", 4 * MEMORY))
    long = {"memory_mb": MEMORY, "run_us": 10_000_000}
    desk.open("n/b", **long)
    desk.arrive("b1", "b2", "b3", queue="n/b")
    asked = desk.do(Adopted("i1", "n/b", 1))
    assert asked == ["reserve for n/b c-1@i1, c-2@i1, c-3@i1"]
    desk.do(Reserved("n/b", 3, ("c-1", "c-2", "c-3")))
    for number in (1, 2, 3):
        desk.do(ContainerServing(f"c-{number}", "i1"))
        desk.pull(f"c-{number}")
    for number in (1, 2, 3):
        desk.pull(f"c-{number}", ended=f"b{number}")
    # Two are wanted, and there is room for one.
    desk.open("n/a", **long)
    desk.arrive("a1", "a2")
    assert desk.do(Adopted("i1", "n/a", 1)) == [
        "release c-1: a needs the room",
        "reserve for n/a c-4@i1",
    ]
