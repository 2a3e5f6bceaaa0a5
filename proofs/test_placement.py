"""Proof of ``acs_core.placement``: as many as fit, each where it is ready first (S4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acs_core.placement import InvokerView, place

views = st.lists(
    st.builds(
        InvokerView,
        st.sampled_from("abcdef"),
        st.integers(-100, 600),
        st.integers(0, 5),
        st.sampled_from([0, 1, 300_000]),
        st.sampled_from([0.0, 0.5, 1.0, 10.0]),
    ),
    max_size=6,
    unique_by=lambda v: v.invoker,
)


def ready_us(view: InvokerView, creations: int) -> int:
    """Return when one more is ready behind so many, an unknown engine doing one by one."""
    if view.creations_per_s == 0.0:
        return view.creation_us * (creations + 1)
    return view.creation_us + int(creations * 1_000_000 / view.creations_per_s)


@given(views, st.integers(1, 300), st.integers(0, 12))
def test_each_goes_where_it_is_ready_first(
    invokers: list[InvokerView], memory_mb: int, count: int
) -> None:
    free_mb = {v.invoker: v.free_mb for v in invokers}
    creations = {v.invoker: v.creations for v in invokers}
    by_name = {v.invoker: v for v in invokers}
    chosen = place(invokers, memory_mb, count)
    for name in chosen:
        soonest = min(
            (ready_us(by_name[other], creations[other]), -free, other)
            for other, free in free_mb.items()
            if free >= memory_mb
        )
        assert name == soonest[2]
        free_mb[name] -= memory_mb
        creations[name] += 1
    assert len(chosen) == count or max(free_mb.values(), default=0) < memory_mb
    assert free_mb == {v.invoker: v.free_mb for v in invokers}
    assert creations == {v.invoker: v.creations for v in invokers}
