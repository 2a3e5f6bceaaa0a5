"""Prewarmed sandboxes: how many stand ready, who takes them, and that they are in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest
from harness import SchedulerPair, describe

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import limits
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.prewarm import Prewarm, PrewarmedSandboxes

S = 1_000_000
CHECK_US = 10 * S


class Pool:
    """A pool with its clock; ``do`` returns what it asks for, in words."""

    def __init__(self, *prewarm: Prewarm, memory_mb: int = 1_000) -> None:
        config = PoolConfig("i", memory_mb, 60 * S, prewarm=prewarm, prewarm_check_us=CHECK_US)
        self.pool = ContainerPool(config)
        self.now_us = 5
        assert not prewarm or self.pool.next_deadline_us() == 0

    def do(self, *events: ev.Event) -> list[str]:
        words = []
        for event in events:
            words += [describe(effect) for effect in self.pool.step(event, self.now_us)]
            self.pool.check()
        return words

    def at(self, now_us: int) -> list[str]:
        self.now_us = now_us
        return self.do(ev.TimeReached())

    def create(self, name: str, memory_mb: int = 100, kind: str = "k") -> list[str]:
        spec = ev.QueueSpec("q", "n", "a", 0, memory_mb=memory_mb, kind=kind)
        return self.do(fx.Create(name, "i", 1, spec))

    def counts(self) -> tuple[int, int, int]:
        counts = self.pool.counts()
        return counts["prewarm_starting"], counts["prewarm_ready"], counts["prewarm_going"]


def stocked(*prewarm: Prewarm, count: int, memory_mb: int = 1_000) -> Pool:
    """Return a pool whose ``count`` sandboxes are up."""
    pool = Pool(*prewarm, memory_mb=memory_mb)
    pool.do(ev.TimeReached())
    for number in range(1, count + 1):
        assert pool.do(ev.SandboxReady(f"i-prewarm-{number}")) == []
    assert pool.counts() == (0, count, 0)
    return pool


def test_so_many_are_started_as_are_configured_and_fit() -> None:
    pool = Pool(Prewarm("k", 100, count=2), Prewarm("x", 300, count=3))
    assert pool.do(ev.TimeReached()) == [
        "prewarm i-prewarm-1 k 100",
        "prewarm i-prewarm-2 k 100",
        "prewarm i-prewarm-3 x 300",
        "prewarm i-prewarm-4 x 300",
    ]
    assert pool.pool.used_mb() == 800
    # The last one is tried again after a while.
    assert pool.pool.next_deadline_us() == 5 + limits.RETRY_MAX_US


def test_one_is_taken_by_a_creation_of_its_kind_and_memory_and_replaced() -> None:
    pool = stocked(Prewarm("k", 100, count=2), count=2)
    assert pool.create("c1", kind="x") == ["start c1"]
    assert pool.create("c2", memory_mb=101) == ["start c2"]
    assert pool.create("c3") == [
        "assign i-prewarm-1 to c3",
        "prewarm i-prewarm-3 k 100",
    ]
    assert pool.do(ev.SandboxReady("c3")) == ["serving c3", "pull c3 epoch 1 free 1"]
    work = ev.Activation("a", b"", 5)
    assert pool.do(fx.Deliver("c3", "i", 1, work)) == ["init c3 for a"]
    assert pool.create("c4")[0] == "assign i-prewarm-2 to c4"
    assert pool.create("c5") == ["start c5"]  # one that still starts is not taken
    assert pool.pool.used_mb() == 100 + 101 + 5 * 100


def test_one_that_is_not_confirmed_is_a_failed_creation() -> None:
    pool = stocked(Prewarm("k", 100), count=1)
    assert pool.create("c1") == ["assign i-prewarm-1 to c1", "prewarm i-prewarm-2 k 100"]
    assert pool.do(fx.Adopt("q", 1)) == ["adopted q epoch 1 holds c1 (starting)"]
    assert pool.do(ev.SandboxFailed("c1", 0, "its reservation is gone")) == [
        "failed c1 RECOVERABLE: its reservation is gone"
    ]
    assert pool.pool.used_mb() == 100, "of the next one"


def test_one_that_is_released_before_it_is_confirmed_goes_when_it_is() -> None:
    pool = stocked(Prewarm("k", 100), count=1)
    pool.create("c1")
    assert pool.do(fx.Release("c1", "i", 1, "room")) == []
    assert pool.do(ev.SandboxReady("c1")) == ["remove c1: room"]


def test_a_failed_start_is_tried_again_ever_later() -> None:
    pool = Pool(Prewarm("k", 100))
    pool.do(ev.TimeReached())
    for number in range(1, 12):
        assert pool.do(ev.SandboxFailed(f"i-prewarm-{number}", 0, "no")) == []
        assert pool.do(ev.SandboxFailed(f"i-prewarm-{number}", 0, "no")) == []
        wait_us = min(100_000 * 2 ** (number - 1), 10 * S)
        assert pool.pool.next_deadline_us() == pool.now_us + wait_us
        assert pool.at(pool.now_us + wait_us - 1) == []
        assert pool.at(pool.now_us + 1) == [f"prewarm i-prewarm-{number + 1} k 100"]
    # One that was of use ends the row.
    pool.do(ev.SandboxReady("i-prewarm-12"))
    assert pool.create("c1")[-1] == "prewarm i-prewarm-13 k 100"
    pool.do(ev.SandboxFailed("i-prewarm-13", 0, "no"))
    assert pool.pool.next_deadline_us() == pool.now_us + 100_000


def test_one_that_breaks_is_replaced_after_a_while() -> None:
    pool = stocked(Prewarm("k", 100), count=1)
    broke = ev.SandboxBroke("i-prewarm-1", "it exited")
    assert pool.do(broke, broke) == ["remove i-prewarm-1: it exited"]
    assert pool.create("c1") == ["start c1"]
    assert pool.do(ev.SandboxFailed("i-prewarm-1", 0, "late")) == []
    assert pool.at(100_005) == ["prewarm i-prewarm-2 k 100"]
    pool.do(ev.SandboxRemoved("i-prewarm-1"), ev.SandboxRemoved("i-prewarm-2"))
    assert pool.pool.used_mb() == 100
    assert pool.at(300_004) == []
    assert pool.at(300_005) == ["prewarm i-prewarm-3 k 100"]


def test_one_that_breaks_while_it_starts_goes_when_it_is_up() -> None:
    pool = Pool(Prewarm("k", 100))
    pool.do(ev.TimeReached())
    assert pool.do(ev.SandboxBroke("i-prewarm-1", "it exited")) == []
    again = ev.SandboxReady("i-prewarm-1")
    assert pool.do(again, again) == ["remove i-prewarm-1: it is not needed any more"]


def test_numbers_follow_the_cold_starts_and_what_nobody_took_expires() -> None:
    growing = Prewarm("k", 10, count=2, expiry_us=CHECK_US // 2, count_max=4, threshold=2)
    pool = stocked(growing, count=2)
    assert pool.at(CHECK_US + 4) == []
    assert pool.at(CHECK_US + 5) == [
        "remove i-prewarm-1: nobody took it",
        "remove i-prewarm-2: nobody took it",
    ]
    pool.do(ev.SandboxRemoved("i-prewarm-1"), ev.SandboxRemoved("i-prewarm-2"))
    for number in range(5):
        assert pool.create(f"c{number}", 10) == [f"start c{number}"]
    grown = ["prewarm i-prewarm-3 k 10", "prewarm i-prewarm-4 k 10"]
    assert pool.at(2 * CHECK_US + 5) == grown
    for number in range(10, 40):
        pool.create(f"c{number}", 10)
    pool.do(ev.SandboxReady("i-prewarm-3"))
    # At most count_max; what still starts does not expire.
    assert pool.at(3 * CHECK_US + 5) == [
        "remove i-prewarm-3: nobody took it",
        "prewarm i-prewarm-5 k 10",
        "prewarm i-prewarm-6 k 10",
        "prewarm i-prewarm-7 k 10",
    ]


def test_the_least_number_stays_and_a_fixed_one_does_not_grow() -> None:
    least = Prewarm("k", 10, count=0, expiry_us=1, count_min=1)
    pool = Pool(least, Prewarm("x", 10, count=0))
    assert pool.do(ev.TimeReached()) == []
    pool.create("c1", 10, "x")
    assert pool.at(CHECK_US + 5) == ["prewarm i-prewarm-1 k 10"]
    assert pool.at(2 * CHECK_US + 5) == []


def test_one_look_lets_go_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PREWARM_EXPIRIES_MAX", 1)
    pool = stocked(Prewarm("k", 10, count=2, expiry_us=1, count_max=2), count=2)
    assert pool.at(CHECK_US + 5) == ["remove i-prewarm-1: nobody took it"]
    assert pool.at(2 * CHECK_US + 5) == ["remove i-prewarm-2: nobody took it"]


def test_prewarmed_sandboxes_make_way_and_a_creation_waits_for_their_memory() -> None:
    pool = stocked(Prewarm("k", 100, count=3), count=3, memory_mb=500)
    # The oldest go, and no more of them than are needed.
    assert pool.create("c1", 350) == [
        "remove i-prewarm-1: its memory is needed",
        "remove i-prewarm-2: its memory is needed",
    ]
    assert pool.pool.counts()["waiting"] == 1
    assert pool.pool.next_deadline_us() == 5 + limits.RETRY_MAX_US
    assert pool.create("c2", 50) == []  # in its turn
    refused = "failed c3 RECOVERABLE: 101 MB do not fit: 400 of 500 MB are in use at invoker i"
    assert pool.create("c3", 101) == [refused]
    # What is nobody's sandbox yet is not believed to be one.
    odd = (ev.SandboxReady, ev.SandboxRemoved)
    assert pool.do(*[event("c1") for event in odd]) == []
    assert pool.do(ev.SandboxFailed("c1", 0, "no"), ev.SandboxBroke("c1", "no")) == []
    assert pool.do(ev.SandboxRemoved("i-prewarm-1")) == []
    assert pool.do(ev.SandboxRemoved("i-prewarm-2")) == ["start c1", "start c2"]
    assert pool.pool.used_mb() == 500
    # There is no room to replace them, also later.
    assert pool.at(5 + limits.RETRY_MAX_US) == []


def test_one_makes_way_for_the_last_megabyte() -> None:
    pool = stocked(Prewarm("k", 100), count=1, memory_mb=150)
    assert pool.create("c1", 51) == ["remove i-prewarm-1: its memory is needed"]


def test_the_failures_of_one_stock_do_not_end_when_another_is_taken_from() -> None:
    pool = stocked(Prewarm("k", 100), Prewarm("x", 100), count=2)
    pool.do(ev.SandboxBroke("i-prewarm-1", "it exited"))
    assert pool.create("c1", kind="x")[1:] == ["prewarm i-prewarm-3 x 100"]


def test_each_look_at_the_numbers_forgets_failures() -> None:
    pool = Pool(Prewarm("k", 10, expiry_us=100 * S, count_min=1))
    pool.do(ev.TimeReached())
    pool.do(ev.SandboxFailed("i-prewarm-1", 0, "no"))
    assert pool.at(100_005) == ["prewarm i-prewarm-2 k 10"]
    pool.do(ev.SandboxFailed("i-prewarm-2", 0, "no"))
    assert pool.at(CHECK_US + 5) == ["prewarm i-prewarm-3 k 10"]
    pool.do(ev.SandboxFailed("i-prewarm-3", 0, "no"))
    assert pool.pool.next_deadline_us() == CHECK_US + 5 + 100_000


def test_what_expires_at_a_look_goes_then_and_without_demand_nothing_follows() -> None:
    pool = stocked(Prewarm("k", 10, expiry_us=CHECK_US), count=1)
    assert pool.at(CHECK_US + 5) == ["remove i-prewarm-1: nobody took it"]
    pool.do(ev.SandboxRemoved("i-prewarm-1"))
    assert pool.at(2 * CHECK_US + 5) == []


def test_a_start_that_fails_after_the_drain_is_not_tried_again() -> None:
    pool = Pool(Prewarm("k", 100, count=2))
    pool.do(ev.TimeReached())
    assert pool.do(ev.DrainRequested()) == []
    assert pool.do(ev.SandboxFailed("i-prewarm-1", 0, "no")) == []
    assert pool.pool.next_deadline_us() is None


def test_each_report_tells_whether_the_sandbox_is_one_of_these() -> None:
    sandboxes = PrewarmedSandboxes("i", (Prewarm("k", 100, count=2),), CHECK_US)
    out: list[object] = []
    sandboxes.look(1_000, 0, out)
    for name, known in (("i-prewarm-1", True), ("c1", False)):
        assert sandboxes.ready(name, out) is known
        assert sandboxes.broke(name, "it exited", 0, out) is known
        assert sandboxes.removed(name, 0) is known
        assert sandboxes.removed(name, 0) is False
    assert sandboxes.failed("i-prewarm-2", 0) is True
    assert sandboxes.failed("i-prewarm-2", 0) is False


def test_those_that_start_make_way_last() -> None:
    pool = stocked(Prewarm("k", 100, count=1), Prewarm("x", 150, count=0), count=1, memory_mb=300)
    pool.create("c1")  # takes it; the next one starts
    assert pool.counts() == (1, 0, 0)
    assert pool.create("c2", 150) == []
    assert pool.counts() == (0, 0, 1)
    gone = [ev.SandboxReady("i-prewarm-2"), ev.SandboxRemoved("i-prewarm-2")]
    words = ["remove i-prewarm-2: it is not needed any more", "start c2"]
    assert pool.do(*gone) == words


def test_one_that_fails_frees_its_memory_too() -> None:
    pool = Pool(Prewarm("k", 100), memory_mb=150)
    pool.do(ev.TimeReached())
    assert pool.create("c1", 150) == []
    assert pool.do(ev.SandboxFailed("i-prewarm-1", 0, "no")) == ["start c1"]


@pytest.mark.parametrize("event", [ev.DrainRequested(), fx.Release("c1", "i", 1, "room")])
def test_a_creation_that_waits_is_ended_like_a_failed_one(event: ev.Event) -> None:
    pool = Pool(Prewarm("k", 100), memory_mb=150)
    pool.do(ev.TimeReached())
    pool.create("c1", 150)
    assert pool.do(fx.Adopt("q", 1)) == ["adopted q epoch 1 holds c1 (starting)"]
    assert [words.partition(":")[0] for words in pool.do(event)] == ["failed c1 RECOVERABLE"]
    assert pool.pool.used_mb() == 100


def test_a_draining_invoker_keeps_none() -> None:
    pool = stocked(Prewarm("k", 100, count=2, expiry_us=S), count=2)
    assert pool.create("c1")[-1] == "prewarm i-prewarm-3 k 100"
    pool.do(ev.SandboxReady("c1"))
    assert pool.do(ev.DrainRequested()) == [
        "remove i-prewarm-2: the invoker is draining",
        "leaving c1: the invoker is draining",
        "remove c1: the invoker is draining",
    ]
    assert pool.do(ev.SandboxFailed("i-prewarm-3", 0, "no"), ev.DrainRequested()) == []
    pool.do(ev.SandboxRemoved("i-prewarm-2"), ev.SandboxRemoved("c1"))
    assert pool.at(100 * S) == []
    assert pool.pool.next_deadline_us() is None
    assert pool.pool.used_mb() == 0


@pytest.mark.parametrize(
    ("field", "value", "low", "high"),
    [
        ("memory_mb", 0, 1, limits.TIME_MAX_US),
        ("count", -1, 0, limits.PREWARM_MAX),
        ("count", limits.PREWARM_MAX + 1, 0, limits.PREWARM_MAX),
        ("expiry_us", -1, 0, limits.TIME_MAX_US),
        ("count_max", 0, 1, limits.PREWARM_MAX),
        ("count_min", 4, 0, 3),
        ("threshold", 0, 1, limits.TIME_MAX_US),
        ("increment", 0, 1, 3),
        ("increment", 4, 1, 3),
    ],
)
def test_what_is_prewarmed_is_configured_within_bounds(
    field: str, value: int, low: int, high: int
) -> None:
    given: dict[str, Any] = {"kind": "k", "memory_mb": 1, "count_max": 3, field: value}
    with pytest.raises(ValueError, match=rf"{field} is {value}; it must be in {low}\.\.{high}"):
        Prewarm(**given)


@pytest.mark.parametrize("kind", ["", "x" * (limits.NAME_MAX + 1)])
def test_what_is_prewarmed_has_a_kind(kind: str) -> None:
    assert Prewarm("x" * limits.NAME_MAX, 100) == Prewarm(
        "x" * limits.NAME_MAX, 100, 1, 0, 0, count_max=1, threshold=1, increment=1
    )
    with pytest.raises(ValueError, match=r"kind is .*; it must have 1..1024 letters"):
        Prewarm(kind, 100)


def test_a_scheduler_gets_a_prewarmed_sandbox_as_its_container() -> None:
    pair = SchedulerPair({"i1": 300}, prewarm=(Prewarm("k", 100),))
    pair.open(ev.QueueSpec("n/a", "n", "a", 0, memory_mb=100, kind="k"))
    pair.open(ev.QueueSpec("n/b", "n", "b", 0, memory_mb=250, kind="k"))
    pair.advance(400_000)
    pair.arrive("n/a", "a1")
    pair.advance(40_000)  # no creation takes so short a time
    assert "a1" in pair.results
    # The scheduler knows nothing of the replacement; it makes way.
    pair.advance(11 * S)
    pair.arrive("n/b", "b1")
    pair.advance(600_000)
    assert "b1" in pair.results
