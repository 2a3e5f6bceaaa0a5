"""What is kept of a queue's work, and when growth counts as having been in vain."""

from __future__ import annotations

import pytest

from acs_core.limits import DURATION_SAMPLES, GROWTH_GAIN_MIN, GROWTH_PAUSE_US
from acs_core.load import QueueLoad

SECOND_US = 1_000_000
HOLD_US = 5 * SECOND_US


def grown(runs: int, more_runs: int, containers: int = 4, more: int = 8) -> QueueLoad:
    """Return a load whose steady term was obeyed once, and is about to be again.

    ``runs`` ended in the first 5 s on ``containers``, ``more_runs`` in the next 5 s on ``more``.
    """
    load = QueueLoad(0)
    load.note_steady(True, False, 0)
    load.runs_ended += runs
    load.judge_growth(containers, HOLD_US, HOLD_US)
    load.note_steady(True, True, HOLD_US)
    load.runs_ended += more_runs
    load.judge_growth(more, HOLD_US, 2 * HOLD_US)
    return load


def test_growth_that_paid_is_the_new_measure() -> None:
    load = grown(100, 200)
    assert load.steady_short_us(2 * HOLD_US) == HOLD_US
    load.note_steady(True, True, 2 * HOLD_US)
    # Now 40 runs/s on 8 containers are what 16 must beat by half: 60, of which this is short.
    load.runs_ended += 299
    load.judge_growth(16, HOLD_US, 3 * HOLD_US)
    assert load.steady_short_us(3 * HOLD_US) == 0


def test_growth_in_vain_is_not_repeated_before_a_pause() -> None:
    load = grown(100, 110)
    end_us = 2 * HOLD_US + GROWTH_PAUSE_US
    assert load.steady_short_us(end_us) == 0
    load.note_steady(True, False, end_us - 1)
    assert load.steady_short_us(end_us + 7) == 7


@pytest.mark.parametrize(("more_runs", "in_vain"), [(149, True), (150, False)])
def test_growth_must_bring_its_share_of_throughput(more_runs: int, in_vain: bool) -> None:
    assert GROWTH_GAIN_MIN == 0.5
    load = grown(100, more_runs)
    assert (load.steady_short_us(2 * HOLD_US) == 0) is in_vain


def test_little_growth_is_not_judged() -> None:
    # 4 of 4: nothing has grown yet.  Below a quarter more, noise would decide.
    for more in (4, 3):
        assert grown(100, 0, 4, more).steady_short_us(2 * HOLD_US) == HOLD_US
    assert grown(100, 0, 8, 9).steady_short_us(2 * HOLD_US) == HOLD_US
    assert grown(100, 0, 8, 10).steady_short_us(2 * HOLD_US) == 0


def test_growth_is_judged_once_the_term_has_asked_long_enough() -> None:
    load = grown(100, 200)
    load.note_steady(True, True, 2 * HOLD_US)
    load.judge_growth(16, HOLD_US, 3 * HOLD_US - 1)
    assert load.steady_short_us(3 * HOLD_US - 1) == HOLD_US - 1
    load.judge_growth(16, HOLD_US, 3 * HOLD_US)
    assert load.steady_short_us(3 * HOLD_US) == 0


def test_a_term_that_is_content_is_not_judged() -> None:
    load = grown(100, 0, 4, 4)
    load.note_steady(False, False, 2 * HOLD_US)
    load.judge_growth(16, HOLD_US, 9 * HOLD_US)
    assert load.steady_short_us(9 * HOLD_US) == 0
    load.note_steady(True, False, 9 * HOLD_US)
    assert load.steady_short_us(9 * HOLD_US + 1) == 1


def test_mean_and_spread_follow_the_runs() -> None:
    load = QueueLoad(0)
    assert load.samples == 0
    for run_us in (10, 30):
        load.ran(run_us)
    assert (load.mean_us, load.spread_us()) == (20.0, 10.0)
    for _ in range(40 * DURATION_SAMPLES):
        load.ran(1_000)
    assert load.samples == DURATION_SAMPLES
    assert load.mean_us == pytest.approx(1_000)
    assert load.spread_us() == pytest.approx(0, abs=1)


def test_history_is_a_first_sample() -> None:
    load = QueueLoad(0, 400)
    assert (load.samples, load.mean_us) == (1, 400.0)
    load.ran(200)
    assert load.mean_us == 300.0


def test_the_rate_is_forgotten_by_half_each_interval() -> None:
    load = QueueLoad(0)
    load.arrivals = 10
    load.update_rate(SECOND_US - 1, SECOND_US)
    assert (load.rate_per_s, load.arrivals) == (0.0, 10)
    load.update_rate(SECOND_US, SECOND_US)
    assert (load.rate_per_s, load.arrivals) == (5.0, 0)
    load.update_rate(3 * SECOND_US, SECOND_US)
    assert load.rate_per_s == 1.25
    load.update_rate(100 * SECOND_US, SECOND_US)
    assert load.rate_per_s == pytest.approx(0, abs=1e-15)
