"""What the core is told and asks for: refused values, defaults, and who takes what."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from requirements import needs_build

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.limits import CONCURRENCY_MAX, COUNT_MAX, MEMORY_MAX_MB, NAME_MAX, TIME_MAX_US


def spec(**changes: Any) -> ev.QueueSpec:
    given: dict[str, Any] = {"queue": "q", "namespace": "n", "action": "a", "revision": 0}
    return ev.QueueSpec(**given | changes)


def activation(**changes: Any) -> ev.Activation:
    given: dict[str, Any] = {"activation_id": "a", "payload": b"x", "arrived_us": 0}
    return ev.Activation(**given | changes)


@pytest.mark.parametrize("field", ["queue", "namespace", "action"])
@pytest.mark.parametrize("value", ["", "x" * (NAME_MAX + 1), 7, None, b"x"])
def test_a_queue_needs_names(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .*; it must be a string of 1..{NAME_MAX}"):
        spec(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "low", "high"),
    [
        ("revision", -1, 0, TIME_MAX_US),
        ("memory_mb", 0, 1, MEMORY_MAX_MB),
        ("memory_mb", 1.5, 1, MEMORY_MAX_MB),
        ("concurrency", 0, 1, CONCURRENCY_MAX),
        ("concurrency", CONCURRENCY_MAX + 1, 1, CONCURRENCY_MAX),
        ("timeout_us", 0, 1, TIME_MAX_US),
        ("timeout_us", TIME_MAX_US + 1, 1, TIME_MAX_US),
        ("action_limit", -1, 0, COUNT_MAX),
        ("action_limit", "many", 0, COUNT_MAX),
        ("containers_min", -1, 0, COUNT_MAX),
        ("containers_min", COUNT_MAX + 1, 0, COUNT_MAX),
        ("wait_target_us", -1, 0, TIME_MAX_US),
        ("wait_max_us", 0, 1, TIME_MAX_US),
        ("wait_max_us", TIME_MAX_US + 1, 1, TIME_MAX_US),
    ],
)
def test_a_queue_needs_numbers_in_range(field: str, value: Any, low: int, high: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} is {value!r}; .* integer in {low}\.\.{high}"):
        spec(**{field: value})


def test_the_bounds_of_a_queue_are_accepted() -> None:
    longest = spec(queue="q" * NAME_MAX, concurrency=CONCURRENCY_MAX, timeout_us=TIME_MAX_US)
    assert (longest.concurrency, longest.timeout_us) == (CONCURRENCY_MAX, TIME_MAX_US)
    assert spec(action_limit=0).action_limit == 0
    plain = spec()
    found = (plain.memory_mb, plain.concurrency, plain.timeout_us, plain.action_limit)
    assert found == (256, 1, 60_000_000, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_id", ""),
        ("activation_id", "x" * (NAME_MAX + 1)),
        ("arrived_us", -1),
        ("arrived_us", 0.5),
        ("deadline_us", -1),
        ("deadline_us", TIME_MAX_US + 1),
    ],
)
def test_an_activation_names_what_is_wrong(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} is"):
        activation(**{field: value})


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("epoch", lambda n: ev.QueueOpened(spec(), n)),
        ("history_us", lambda n: ev.QueueOpened(spec(), 1, n)),
        ("epoch", lambda n: ev.Pulled("c", n, 1)),
        ("epoch", lambda n: ev.Returned("c", n, ())),
        ("epoch", lambda n: ev.Adopted("i", "q", n)),
        ("epoch", lambda n: fx.Create("c", "i", n, spec())),
        ("epoch", lambda n: fx.Adopt("q", n)),
    ],
)
def test_numbers_of_messages_begin_at_0_and_end(field: str, make: Callable[[int], object]) -> None:
    for number in (0, TIME_MAX_US):
        assert make(number) is not None
    for number in (-1, TIME_MAX_US + 1):
        with pytest.raises(ValueError, match=rf"{field} is {number}"):
            make(number)


@pytest.mark.parametrize("slots", [-1, CONCURRENCY_MAX + 1])
def test_an_offer_is_of_as_many_slots_as_a_container_may_have(slots: int) -> None:
    assert ev.Pulled("c", 1, CONCURRENCY_MAX).free_slots == CONCURRENCY_MAX
    with pytest.raises(ValueError, match=f"free_slots is {slots}"):
        ev.Pulled("c", 1, slots)


def test_a_long_wrong_name_is_not_repeated_in_full() -> None:
    with pytest.raises(ValueError) as caught:
        activation(activation_id="x" * 100_000)
    assert len(str(caught.value)) < 200


def test_a_new_activation_is_not_under_way() -> None:
    fresh = activation(causes=("root", "parent"))
    assert (fresh.queue, fresh.delivered_us, fresh.started, fresh.withdrawn) == (
        "",
        -1,
        False,
        False,
    )
    assert fresh.causes == ("root", "parent")


def test_what_is_not_said_is_the_usual() -> None:
    reported = ev.InvokerReported("i", 7)
    assert (reported.memory_mb, reported.elsewhere_mb) == (7, 0)
    assert (reported.creation_us, reported.creations_per_s) == (0, 0.0)
    assert ev.LimitsChanged("n", 1).weight == 1.0
    assert not fx.Abort("c", "a", 1).drained
    assert not fx.Create("c", "i", 1, spec()).keep
    assert (spec().containers_min, spec().kind) == (0, "")
    assert (spec().wait_target_us, spec().wait_max_us) == (None, None)


def test_what_an_invoker_is_asked_is_an_event_of_its_pool() -> None:
    for asked in (fx.Create, fx.Deliver, fx.Release, fx.Adopt):
        assert issubclass(asked, ev.Event)
    for own in (fx.Reserve, fx.Unreserve, fx.Reject, fx.Forward, fx.CloseQueue, fx.Run, fx.Remove):
        assert not issubclass(own, ev.Event)


def test_numbers_of_outcomes_and_causes_are_part_of_the_wire() -> None:
    assert [int(outcome) for outcome in ev.Outcome] == [0, 1, 2, 3]
    assert [int(failure) for failure in ev.FailureClass] == [0, 1, 2]
    assert [int(cause) for cause in fx.Cause] == list(range(10))
    assert [cause.name for cause in fx.Cause] == [
        "QUEUE_FULL",
        "EXPIRED",
        "CREATION_FAILED",
        "CLOSED",
        "CANCELLED",
        "UNKNOWN",
        "NO_CONTAINER",
        "CALLERS_HOLD",
        "WOULD_EXPIRE",
        "UNFIT",
    ]


def test_the_collector_has_nothing_to_look_at_in_what_waits() -> None:
    needs_build("compiled")  # plain objects are always tracked
    work = activation(causes=("b",))
    ended = ev.Completion("a", 0, 1, 0)
    pulled = ev.Pulled("c", 1, 1, (), (ended,))
    for made in (work, ev.Arrived("q", work), ended, pulled, fx.Deliver("c", "i", 1, work)):
        assert not gc.is_tracked(made)


@pytest.mark.parametrize("rate", [-1.0, 0.0009, float("nan")])
def test_an_engine_is_not_slower_than_anybody_waits_for(rate: float) -> None:
    with pytest.raises(ValueError, match=f"creations_per_s is {rate!r}; it must be 0 or at least"):
        ev.InvokerReported("i", 1, creations_per_s=rate)
