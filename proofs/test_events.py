"""Proof of ``acs_core.events``: what is out of its range is refused where it is made (E1)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acs_core.events import Activation, QueueSpec

TIMES_MAX = 2**62 - 1
RANGES = {
    "revision": (0, TIMES_MAX),
    "memory_mb": (1, 2**40),
    "concurrency": (1, 1_000),
    "timeout_us": (1, TIMES_MAX),
    "action_limit": (0, 2**31 - 1),
    "arrived_us": (0, TIMES_MAX),
    "deadline_us": (0, TIMES_MAX),
}
NAMES = ["queue", "namespace", "action", "activation_id"]
near = st.sampled_from(
    [end + change for ends in RANGES.values() for end in ends for change in (-1, 0, 1)]
)


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
