"""Proof of ``acs_core.load``: smoothed numbers are those of exact arithmetic (M1, M2)."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acs_core.limits import DURATION_SAMPLES
from acs_core.load import QueueLoad

INTERVAL_US = 100_000
runs = st.lists(st.integers(0, 10**9), max_size=40)


def about(value: Fraction) -> object:
    return pytest.approx(float(value), rel=1e-9, abs=1e-6)


@given(history_us=st.integers(0, 10**9), runs_us=runs)
def test_mean_and_spread_are_those_of_the_last_runs(history_us: int, runs_us: list[int]) -> None:
    """M1: of all of them while they are few, then each new one for the weight of one."""
    load = QueueLoad(0, history_us)
    mean, variance = Fraction(history_us), Fraction(0)
    seen = [Fraction(history_us)] if history_us > 0 else []
    assert load.samples == len(seen)
    for run_us in runs_us:
        load.ran(run_us)
        seen.append(Fraction(run_us))
        if len(seen) <= DURATION_SAMPLES:
            mean = sum(seen) / len(seen)
            variance = sum((s - mean) ** 2 for s in seen) / len(seen)
        else:
            share = Fraction(1, DURATION_SAMPLES)
            before = mean
            mean = (1 - share) * mean + share * run_us
            variance = (1 - share) * variance + share * (run_us - before) * (run_us - mean)
        assert load.samples == min(len(seen), DURATION_SAMPLES)
        assert load.mean_us == about(mean)
        assert load.variance == pytest.approx(float(variance), rel=1e-6, abs=1.0)
        assert load.spread_us() ** 2 == pytest.approx(load.variance)


@given(rate=st.integers(0, 50), count=st.integers(1, 100))
def test_busy_queues_are_smoothed_over_a_second_of_runs(rate: int, count: int) -> None:
    """M1: so many runs more as arrive in a second."""
    load = QueueLoad(0)
    load.arrivals = rate
    load.update_rate(1_000_000, 1_000_000)
    for _ in range(count):
        load.ran(1_000)
    # One interval has passed since the beginning, when the rate was 0.
    assert load.samples == min(count, DURATION_SAMPLES + rate // 2)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 9_000_000) | st.integers(0, 300_000)),
        max_size=12,
    )
)
@example([(7, 99_999), (0, 1), (0, 100_000), (50, 150_000), (0, 6_000_000), (0, 6_050_000)])
def test_rate_halves_its_past_with_each_interval(steps: list[tuple[int, int]]) -> None:
    """M2: what was known weighs half for each whole interval that passed, linear in between."""
    now_us = since_us = 5
    load = QueueLoad(now_us)
    rate, waiting = Fraction(0), 0
    for arrivals, us in steps:
        now_us += us
        waiting += arrivals
        load.arrivals += arrivals
        load.update_rate(now_us, INTERVAL_US)
        elapsed_us = now_us - since_us
        if elapsed_us >= INTERVAL_US:
            whole, rest = divmod(elapsed_us, INTERVAL_US)
            weight = (1 - Fraction(rest, INTERVAL_US) / 2) / 2**whole
            rate = weight * rate + (1 - weight) * Fraction(waiting * 1_000_000, elapsed_us)
            waiting, since_us = 0, now_us
        assert (load.arrivals, load.rate_since_us) == (waiting, since_us)
        assert load.rate_per_s == about(rate)
