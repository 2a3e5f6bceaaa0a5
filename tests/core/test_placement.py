"""Which invoker gets a container: the soonest ready, never one without room."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert place([view("a", creations=3), view("b", creations=3, rate=4.0)], 100, 1) == ["b"]


views = st.lists(
    st.builds(
        InvokerView,
        st.sampled_from("abcdef"),
        st.integers(-100, 600),
        st.integers(0, 5),
        st.sampled_from([0, 1, 300_000]),
        st.sampled_from([0.0, 0.5, 10.0]),
    ),
    max_size=6,
    unique_by=lambda v: v.invoker,
)


@settings(derandomize=True, database=None)
@given(views, st.integers(1, 300), st.integers(0, 12))
def test_as_many_as_fit_each_where_it_is_ready_first(
    invokers: list[InvokerView], memory_mb: int, count: int
) -> None:
    before = {v.invoker: (v.free_mb, v.creations) for v in invokers}
    fits = sum([max(0, v.free_mb // memory_mb) for v in invokers])
    chosen = place(invokers, memory_mb, count)
    assert len(chosen) == min(count, fits)
    for v in invokers:
        free_mb, creations = before[v.invoker]
        times = chosen.count(v.invoker)
        assert (v.free_mb, v.creations) == (free_mb - times * memory_mb, creations + times)
        assert times == 0 or v.free_mb >= 0
