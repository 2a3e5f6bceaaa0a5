"""The histogram of waits: what a percentile may be off by."""

from hypothesis import given
from hypothesis import strategies as st

from acs_node.waits import BUCKETS, WaitHistogram


def histogram(*waits_us: int) -> WaitHistogram:
    made = WaitHistogram()
    for wait_us in waits_us:
        made.add(wait_us)
    return made


def test_without_waits_there_is_no_percentile() -> None:
    assert WaitHistogram().percentile_us(99) is None


@given(st.integers(0, 2**31))
def test_a_percentile_is_at_most_a_quarter_too_high_and_never_too_low(wait_us: int) -> None:
    found = histogram(wait_us).percentile_us(50)
    assert found is not None
    assert wait_us <= found <= wait_us * 1.25


@given(st.lists(st.integers(0, 10**9), min_size=1), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_as_many_waits_as_it_says_are_no_longer(waits_us: list[int], percent: float) -> None:
    found = histogram(*waits_us).percentile_us(percent)
    assert found is not None
    assert sum(wait_us <= found for wait_us in waits_us) >= percent / 100 * len(waits_us)


def test_what_is_out_of_range_is_counted_at_the_ends() -> None:
    made = histogram(-5, 2**60)
    assert len(made.counts) == BUCKETS
    assert made.counts[0] == 1
    assert made.counts[-1] == 1


def test_clear_forgets() -> None:
    made = histogram(1, 2, 3)
    made.clear()
    assert made.percentile_us(50) is None
