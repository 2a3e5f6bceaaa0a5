"""Answers that do not come, or come after they were given up."""

from __future__ import annotations

import pytest
from harness import Desk

from acs_core import events as ev
from acs_core import limits

RELEASED = "release c-1: it serves too late: it was given up"


def asking(**config: int) -> Desk:
    """Return a desk that has asked for c-1 on i1, with a1 waiting and no answer yet."""
    times = {"reserve_answer_us": 1_000_000, "create_answer_us": 5_000_000}
    desk = Desk(retry_min_us=100_000, **{**times, **config})
    desk.do(ev.InvokerReported("i1", 256))
    desk.open()
    desk.do(ev.Adopted("i1", "n/a", 1))
    assert desk.arrive("a1") == ["reserve for n/a c-1@i1"]
    return desk


def creating(**config: int) -> Desk:
    desk = asking(**config)
    assert desk.do(ev.Reserved("n/a", 1, ("c-1",))) == ["create c-1@i1 for n/a"]
    return desk


def test_a_reservation_without_an_answer_is_given_up_and_made_again() -> None:
    desk = asking()
    assert desk.wait(999_999) == []
    assert desk.wait(1) == ["unreserve c-1"]
    assert desk.scheduler.explain("n/a")["trouble"] == "no answer to a reservation for 1000 ms"
    assert desk.wait(100_000) == ["reserve for n/a c-2@i1"]
    # What was asked for first is granted after all.
    assert desk.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1"]
    assert desk.do(ev.Denied("n/a", 1, "late")) == []
    assert desk.do(ev.Reserved("n/a", 2, ("c-2",))) == ["create c-2@i1 for n/a"]


def test_a_grant_of_what_was_given_up_is_given_back_at_once() -> None:
    desk = asking()
    desk.wait(1_000_000)
    assert desk.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1"]


def test_a_creation_without_an_answer_has_failed() -> None:
    desk = creating()
    assert desk.wait(4_999_999) == []
    assert desk.wait(1) == []
    shown = desk.scheduler.explain("n/a")
    assert (shown["in_progress"], shown["state"]) == (0, "FLUSHING")
    assert shown["trouble"] == "no answer to a creation for 5000 ms"
    assert desk.wait(100_000) == ["reserve for n/a c-2@i1"]


@pytest.mark.parametrize(
    "word", [ev.ContainerServing("c-1", "i1"), ev.Pulled("c-1", 1, 1), ev.Pulled("c-1", 2, 1)]
)
def test_a_container_that_serves_after_it_was_given_up_is_released_once(word: ev.Event) -> None:
    desk = creating()
    desk.wait(5_000_000)
    assert desk.do(word) == [RELEASED]
    assert desk.do(ev.ContainerServing("c-1", "i1"), ev.Pulled("c-1", 1, 1)) == []


@pytest.mark.parametrize(
    "word",
    [
        ev.CreationFailed("c-1", ev.FailureClass.RECOVERABLE, "late"),
        ev.ContainerGone("c-1", "late"),
    ],
)
def test_one_that_is_gone_after_it_was_given_up_is_forgotten(word: ev.Event) -> None:
    desk = creating()
    desk.wait(5_000_000)
    assert desk.do(word, ev.ContainerServing("c-1", "i1")) == []


def test_one_that_was_given_up_serves_when_its_invoker_tells_of_it() -> None:
    desk = creating()
    desk.wait(5_000_000)
    desk.do(ev.InvokerGone("i1"), ev.InvokerReported("i1", 256))
    desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("c-1", True),)))
    assert desk.do(ev.Pulled("c-1", 1, 1)) == ["deliver a1 to c-1"]


def test_room_of_what_was_given_up_goes_to_who_lacks_it() -> None:
    desk = creating()
    desk.open("n/b")
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.arrive("b1", queue="n/b") == []
    assert desk.wait(5_000_000) == ["reserve for n/b c-2@i1"]


def test_the_oldest_of_those_that_were_given_up_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "GIVEN_UP_MAX", 1)
    desk = asking(create_answer_us=500_000)
    for serial in (1, 2):
        name = f"c-{serial}"
        desk.do(ev.Reserved("n/a", serial, (name,)))
        desk.wait(500_000)
        if serial == 1:
            desk.wait(100_000)
    assert desk.do(ev.ContainerServing("c-1", "i1")) == []
    assert desk.do(ev.ContainerServing("c-2", "i1")) == [RELEASED.replace("c-1", "c-2")]


def test_a_queue_that_closes_is_held_up_by_no_missing_answer() -> None:
    desk = creating()
    desk.do(ev.Cancelled("a1"), ev.QueueClosing("n/a", "updated"))
    assert desk.wait(5_000_000) == ["close n/a epoch 1"]
    asked = asking()
    asked.do(ev.Cancelled("a1"), ev.QueueClosing("n/a", "updated"))
    assert asked.wait(1_000_000) == ["unreserve c-1", "close n/a epoch 1"]
