"""When an event loop gets a processor to itself."""

from __future__ import annotations

from acs_core.limits import LOOP_BUSY, LOOP_CALM
from acs_core.processors import LoopProcessor


def looked(available: set[int], *shares: float) -> LoopProcessor:
    """Return one that has seen the loop use these shares of seconds, after a first look."""
    processor = LoopProcessor(available)
    assert not processor.look(1_000_000_000, 3_000_000)
    used_us = 3_000_000
    for second, share in enumerate(shares, 1001):
        used_us += int(share * 1_000_000)
        processor.look(second * 1_000_000, used_us)
    return processor


def test_a_busy_loop_gets_one_and_a_calm_one_gives_it_back() -> None:
    assert looked({0, 1, 2}).for_functions == {0, 1, 2}
    assert looked({0, 1, 2}, LOOP_BUSY + 0.01).for_functions == {0, 1}
    assert looked({0, 1, 2}, LOOP_BUSY + 0.01, LOOP_CALM - 0.01).for_functions == {0, 1, 2}


def test_between_the_bounds_nothing_changes() -> None:
    between = (LOOP_BUSY + LOOP_CALM) / 2
    assert looked({0, 1}, between).for_functions == {0, 1}
    assert looked({0, 1}, 0.9, between, between).for_functions == {0}


def test_the_loop_keeps_to_the_processor_that_it_was_given() -> None:
    assert looked({0, 1, 2}).for_loop == {0, 1, 2}
    busy = looked({0, 1, 2}, 0.9)
    assert busy.for_loop == {2}
    busy.share()
    assert busy.for_loop == busy.for_functions == {0, 1, 2}
    assert looked({3}, 0.9).for_loop == {3}


def test_it_says_when_something_changes() -> None:
    processor = LoopProcessor({4, 7})
    assert not processor.look(10_000_000, 1_000_000)
    assert processor.look(11_000_000, 1_900_000)
    assert not processor.look(12_000_000, 2_800_000)
    assert processor.look(13_000_000, 2_800_000)


def test_one_processor_is_shared() -> None:
    assert looked({3}, 0.9, 0.9).for_functions == {3}
