"""Proof of ``acs_core.events``, ``effects``: out of its range is refused where it is made (E1)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acs_core.effects import Adopt, Create
from acs_core.events import Activation, QueueSpec

TIMES_MAX = 2**62 - 1
SPEC = QueueSpec("q", "n", "a", 0)
RANGES = {
    "revision": (0, TIMES_MAX),
    "memory_mb": (1, 2**40),
    "concurrency": (1, 1_000),
    "timeout_us": (1, TIMES_MAX),
    "action_limit": (0, 2**31 - 1),
    "wait_target_us": (0, TIMES_MAX),
    "wait_max_us": (1, TIMES_MAX),
    "arrived_us": (0, TIMES_MAX),
    "deadline_us": (0, TIMES_MAX),
}
NAMES = ["queue", "namespace", "action", "activation_id"]
near = st.sampled_from(
    [end + change for ends in RANGES.values() for end in ends for change in (-1, 0, 1)]
)


# What a pool takes of a scheduler.
ORDERS = {
    Adopt: {"queue": "q", "epoch": 1},
    Create: {"container": "c", "invoker": "i", "epoch": 1, "spec": SPEC},
}


def make(field: str, value: object) -> QueueSpec | Activation:
    """Make what has such a field, with this value in it."""
    if field in ("activation_id", "arrived_us", "deadline_us"):
        return Activation(**{"activation_id": "a", "payload": b"", "arrived_us": 0, field: value})
    given = {"queue": "q", "namespace": "n", "action": "a", "revision": 0, field: value}
    return QueueSpec(**given)


@given(field=st.sampled_from(sorted(RANGES)), value=near | st.integers())
def test_numbers_are_taken_exactly_in_their_range(field: str, value: int) -> None:
    low, high = RANGES[field]
    if low <= value <= high:
        assert getattr(make(field, value), field) == value
    else:
        with pytest.raises(ValueError, match=rf"{field} is {value}; .* in {low}\.\.{high}$"):
            make(field, value)


@given(field=st.sampled_from(NAMES), length=st.integers(0, 2_000))
@example(field="queue", length=1_024)
@example(field="queue", length=1_025)
@example(field="queue", length=0)
@example(field="queue", length=1)
def test_names_are_taken_up_to_their_length(field: str, length: int) -> None:
    if 1 <= length <= 1_024:
        assert getattr(make(field, length * "x"), field) == length * "x"
    else:
        with pytest.raises(ValueError, match=rf"{field} is .* of 1\.\.1024 characters$"):
            make(field, length * "x")


@given(order=st.sampled_from([Adopt, Create]), epoch=near | st.integers())
@example(order=Adopt, epoch=0)
@example(order=Create, epoch=0)
def test_epochs_of_orders_are_taken_exactly_in_their_range(order: type, epoch: int) -> None:
    if 0 <= epoch <= TIMES_MAX:
        assert order(**{**ORDERS[order], "epoch": epoch}).epoch == epoch
    else:
        with pytest.raises(ValueError, match=rf"epoch is {epoch}; .* in 0\.\.{TIMES_MAX}$"):
            order(**{**ORDERS[order], "epoch": epoch})


@pytest.mark.parametrize(("order", "field"), [(Adopt, "queue"), (Create, "container")])
@pytest.mark.parametrize("length", [0, 1_025])
def test_names_of_orders_are_bounded(order: type, field: str, length: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .* of 1\.\.1024 characters$"):
        order(**{**ORDERS[order], field: length * "x"})
