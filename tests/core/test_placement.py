"""Which invoker gets a container: the soonest ready, never one without room."""

from __future__ import annotations

import pytest

from acs_core.placement import InvokerView, place


def view(name: str, free_mb: int = 1_000, creations: int = 0, rate: float = 0.0) -> InvokerView:
    return InvokerView(name, free_mb, creations, 300_000, rate)


def test_the_invoker_where_it_is_ready_first() -> None:
    assert place([view("busy", creations=1), view("free")], 100, 1) == ["free"]


def test_among_equals_the_one_with_most_memory_then_by_name() -> None:
    assert place([view("a", 500), view("b", 600)], 100, 1) == ["b"]
    assert place([view("b"), view("a")], 100, 1) == ["a"]


def test_a_batch_is_spread_and_never_overbooks() -> None:
    views = [view("a", 250), view("b", 100)]
    assert place(views, 100, 5) == ["a", "b", "a"]
    assert [v.free_mb for v in views] == [50, 0]


@pytest.mark.parametrize("invokers", [[], [("a", 99)], [("a", -50)]])
def test_no_room_means_no_name(invokers: list[tuple[str, int]]) -> None:
    assert place([view(name, free_mb) for name, free_mb in invokers], 100, 3) == []


def test_nothing_wanted_changes_nothing() -> None:
    views = [view("a")]
    assert place(views, 100, 0) == []
    assert (views[0].free_mb, views[0].creations) == (1_000, 0)


def test_creations_ahead_are_counted_at_the_measured_rate() -> None:
    # Unknown: one after the other.  Measured: four a second, behind three others.
    assert view("a", creations=3).ready_us() == 1_200_000
    assert view("a", creations=3, rate=4.0).ready_us() == 1_050_000
    assert view("a", creations=1, rate=0.5).ready_us() == 2_300_000
    assert InvokerView("a", 1_000, 3, 300_000).ready_us() == 1_200_000
    assert place([view("a", creations=3), view("b", creations=3, rate=4.0)], 100, 1) == ["b"]
