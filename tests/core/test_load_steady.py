"""What a queue's load remembers of the steady term: since when it asks, and whether it paid."""

from __future__ import annotations

import pytest

from acs_core import limits
from acs_core.load import QueueLoad

HOLD_US = 1_000_000
PAUSE_US = limits.GROWTH_PAUSE_US


def test_a_new_queue_knows_nothing() -> None:
    load = QueueLoad(7)
    assert (load.mean_us, load.spread_us(), load.samples, load.rate_per_s) == (0.0, 0.0, 0, 0.0)
    assert (load.arrivals, load.rate_since_us, load.steady_short_us(9)) == (0, 7, 0)
    assert (load.runs_ended, load.steady_ended) == (0, 0)
    assert (load.growth_containers, load.growth_rate_per_s) == (0, 0.0)


def test_a_known_mean_counts_for_one_run() -> None:
    load = QueueLoad(0, 1)
    assert (load.mean_us, load.samples) == (1.0, 1)
    load.ran(3)
    assert (load.mean_us, load.samples) == (2.0, 2)


def test_the_steady_term_is_heard_since_it_asks_without_a_break() -> None:
    load = QueueLoad(0)
    load.note_steady(True, False, 0)
    assert load.steady_short_us(5) == 5
    load.note_steady(True, False, 100)
    assert load.steady_short_us(300) == 300
    load.note_steady(False, False, 400)
    assert load.steady_short_us(500) == 0
    load.note_steady(True, False, 600)
    assert load.steady_short_us(601) == 1
    load.note_steady(True, True, 700)  # more came: it has to ask as long again
    assert load.steady_short_us(750) == 50


class Growing:
    """A queue whose steady term asks for more all the time."""

    def __init__(self) -> None:
        self.load = QueueLoad(0)
        self.now_us = 0
        self.load.note_steady(True, False, 0)

    def measure(self, containers: int, runs: int, us: int = HOLD_US, grew: bool = True) -> int:
        """Let so many runs end in the next ``us``, judge; return for how long is asked then."""
        self.now_us += us
        self.load.runs_ended += runs
        self.load.judge_growth(containers, HOLD_US, self.now_us)
        asked_us: int = self.load.steady_short_us(self.now_us)
        if asked_us > 0 and grew:
            self.load.note_steady(True, True, self.now_us)
        return asked_us


def test_growth_that_pays_goes_on() -> None:
    growing = Growing()
    assert growing.measure(4, 400) == HOLD_US
    assert (growing.load.growth_containers, growing.load.growth_rate_per_s) == (4, 400.0)
    # Twice the containers should have brought twice the runs; half of the gain is enough.
    assert growing.measure(8, 600) == HOLD_US
    assert (growing.load.growth_containers, growing.load.growth_rate_per_s) == (8, 600.0)


def test_growth_in_vain_is_followed_by_a_pause() -> None:
    growing = Growing()
    growing.measure(4, 400)
    assert growing.measure(8, 599) == 0
    load, now_us = growing.load, growing.now_us
    assert load.growth_containers == 0
    assert load.steady_short_us(now_us + PAUSE_US) == 0
    assert load.steady_short_us(now_us + PAUSE_US + 3) == 3
    # During the pause it is not judged, and runs that end in it count for nothing later.
    load.runs_ended += 77
    load.note_steady(True, False, now_us + PAUSE_US)
    growing.now_us += PAUSE_US
    assert growing.measure(8, 900) == HOLD_US
    assert (load.growth_containers, load.growth_rate_per_s) == (8, 900.0)


def test_growth_in_vain_again_and_again_is_tried_ever_less_often() -> None:
    growing = Growing()
    load = growing.load
    for doublings in (0, 1, 2, 3, 4, 5, 6, 6):
        growing.measure(4, 400)
        assert growing.measure(8, 400) == 0
        pause_us = PAUSE_US << doublings
        growing.now_us += pause_us
        assert load.steady_short_us(growing.now_us + 1) == 1
        assert load.steady_short_us(growing.now_us) == 0
        load.note_steady(True, False, growing.now_us)
    assert load.growths_in_vain == 6
    # Growth that pays ends that.
    growing.measure(4, 400)
    growing.measure(8, 800)
    assert load.growths_in_vain == 0


@pytest.mark.parametrize(("containers", "judged"), [(8, True), (9, False), (10, True)])
def test_a_small_step_is_not_measured(containers: int, judged: bool) -> None:
    growing = Growing()
    growing.measure(8, 800)
    # A quarter more at least, or it drowns in noise; as many or fewer begin anew.
    growing.measure(containers, 10_000)
    assert (growing.load.growth_rate_per_s == 10_000.0) is judged


def test_fewer_containers_begin_anew() -> None:
    growing = Growing()
    growing.measure(8, 800)
    assert growing.measure(8, 100) == HOLD_US
    assert growing.measure(3, 50) == HOLD_US
    assert (growing.load.growth_containers, growing.load.growth_rate_per_s) == (3, 50.0)


def test_nothing_is_judged_before_the_term_has_asked_long_enough() -> None:
    growing = Growing()
    assert growing.measure(4, 400, HOLD_US - 1, grew=False) == HOLD_US - 1
    assert growing.load.growth_containers == 0
    assert growing.measure(4, 0, 1) == HOLD_US
    assert growing.load.growth_containers == 4
    silent = QueueLoad(0)
    silent.judge_growth(4, 0, HOLD_US)
    assert silent.growth_containers == 0


def test_a_single_container_is_a_beginning_too() -> None:
    growing = Growing()
    growing.measure(1, 100)
    assert growing.measure(2, 149) == 0


def test_no_time_at_all_counts_as_a_microsecond() -> None:
    load = QueueLoad(0)
    load.note_steady(True, False, 0)
    load.runs_ended += 1
    load.judge_growth(1, 0, 0)
    assert load.growth_rate_per_s == 1_000_000.0
