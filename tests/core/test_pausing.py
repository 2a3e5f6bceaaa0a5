"""What a scheduler does with containers that sleep; whole stories are in ``tests/scenarios``."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Desk

from acs_core import events as ev


def asleep(*names: str, **config: Any) -> Desk:
    """Return a desk whose queue n/a has containers that fell asleep in this order.

    Each has two slots; a run has taken 20 ms so far.
    """
    desk = Desk(**config)
    desk.do(ev.InvokerReported("i1", 1_000))
    desk.open(memory_mb=100, concurrency=2, run_us=20_000)
    desk.do(ev.Adopted("i1", "n/a", 1, tuple([ev.Held(name, True) for name in names])))
    for name in names:
        desk.pull(name, 2)
        desk.now_us += 10
    for name in names:
        assert desk.do(ev.ContainerPaused(name), ev.ContainerPaused(name)) == []
    assert desk.scheduler.explain("n/a")["paused"] == len(names)
    return desk


def test_work_wakes_the_one_that_fell_asleep_last() -> None:
    desk = asleep("x", "y")
    assert desk.arrive("a1") == ["wake y"]
    assert desk.arrive("a2", "a3", "a4") == []  # y has room for all of them, twice
    assert desk.arrive("a5") == ["wake x"]
    assert desk.do(ev.ContainerPaused("y")) == []  # said before: it was asked already
    assert desk.pull("y", 2) == ["deliver a1 to y", "deliver a2 to y"]
    assert desk.scheduler.explain("n/a")["paused"] == 1
    assert desk.pull("x", 2) == ["deliver a3 to x", "deliver a4 to x"]
    assert desk.pull("x", 2, ended="a4") == ["deliver a5 to x"]


def test_an_awake_container_goes_first() -> None:
    desk = asleep("x")
    desk.do(ev.Adopted("i2", "n/a", 1))
    desk.arrive("a1")
    desk.pull("x", 2)
    assert desk.arrive("a2") == ["deliver a2 to x"]


def test_what_is_delivered_to_one_that_falls_asleep_needs_no_other_word() -> None:
    desk = asleep("x")
    desk.arrive("a1")
    desk.pull("x", 2)
    assert desk.do(ev.ContainerPaused("x")) == []
    assert desk.scheduler.explain("n/a")["paused"] == 0
    assert "wake x" not in desk.arrive("a2")  # it is being woken, and has no slot until then
    assert desk.pull("x", 1, started="a1") == ["deliver a2 to x"]


def test_what_it_gives_back_goes_to_another_that_sleeps() -> None:
    desk = asleep("x", "y")
    desk.arrive("a1")
    desk.pull("y", 2)
    desk.do(ev.ContainerPaused("y"))
    words = desk.do(ev.ContainerLeaving("y", "it broke"), ev.Returned("y", 1, ("a1",)))
    assert words == ["wake x"]
    assert desk.pull("x", 2) == ["deliver a1 to x"]


def test_the_next_one_is_woken_when_one_cannot_be() -> None:
    desk = asleep("x", "y")
    desk.arrive("a1")
    assert desk.do(ev.ContainerLeaving("y", "it broke")) == ["wake x"]
    desk.do(ev.ContainerGone("x", "it died"))
    assert desk.wait(100_000)[0].startswith("reserve for n/a")


def test_failed_creations_hold_up_no_sleeper() -> None:
    desk = Desk()
    desk.do(ev.InvokerReported("i1", 1_000))
    desk.open(memory_mb=100)
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True),)))
    desk.pull("x")
    assert desk.arrive("long") == ["deliver long to x"]
    desk.arrive("a1")
    desk.wait(700_000)
    desk.do(ev.Denied("n/a", 1, "no room"))  # the next try is a while away
    done = ev.Pulled("x", 1, 0, (), (ev.Completion("long", 0, 600_000, 0),))
    desk.do(done, ev.Cancelled("a1"), ev.ContainerPaused("x"))
    assert desk.arrive("a2") == ["wake x"]


def test_who_waits_for_a_run_looks_again_whether_to_wake_another() -> None:
    desk = asleep("x", "y")
    desk.arrive("a1")
    desk.pull("y", 2)
    desk.arrive("a2")
    assert desk.arrive("a3") == []  # one of them ends soon
    assert desk.wait(99_000) == []
    assert desk.wait(200_000) == ["wake x"]  # it has not: one more, once


def test_sleepers_make_room_first_and_wake_no_more() -> None:
    desk = asleep("x", "y", namespace_containers_max=2)
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    released = desk.arrive("b1", queue="n/b")
    assert released == ["release x: b needs the room"]
    assert desk.scheduler.explain("n/a")["paused"] == 1
    assert desk.do(ev.ContainerPaused("x")) == []
    assert desk.arrive("a1") == ["wake y"]


def test_the_richest_gives_a_sleeper_back_rather_than_one_that_works() -> None:
    desk = asleep("x", "y", namespace_containers_max=2)
    desk.arrive("a1", "a2")
    desk.pull("y", 2)
    desk.arrive("a3")
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.arrive("b1", queue="n/b") == ["release x: b has too few containers"]


@pytest.mark.parametrize("paused", [ev.ContainerPaused("nobody"), ev.ContainerPaused("new")])
def test_nobody_sleeps_who_does_not_serve(paused: ev.Event) -> None:
    desk = Desk()
    desk.do(ev.InvokerReported("i1", 1_000))
    desk.open()
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("new", False),)))
    assert desk.do(paused) == []
    assert desk.scheduler.explain("n/a")["paused"] == 0


def test_a_closing_queue_wakes_whom_it_needs_and_releases_the_rest() -> None:
    desk = asleep("x", "y")
    desk.arrive("a1")
    desk.do(ev.QueueClosing("n/a", "updated"))
    assert desk.pull("y", 2) == ["deliver a1 to y"]
    assert sorted(desk.pull("y", 1, ended="a1")) == ["release x: updated", "release y: updated"]


def test_a_new_leader_wakes_nobody_before_all_have_told_what_they_hold() -> None:
    desk = Desk()
    for invoker in ("i1", "i2"):
        desk.do(ev.InvokerReported(invoker, 1_000))
    desk.open(memory_mb=100)
    desk.arrive("a1")
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True),)))
    assert desk.do(ev.ContainerPaused("x")) == []
    assert desk.do(ev.Adopted("i2", "n/a", 1)) == ["wake x"]
