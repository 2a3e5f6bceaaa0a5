"""What a queue that opens knows of its action: M3."""

from __future__ import annotations

from statistics import median_high

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.history import RunHistory
from acs_core.limits import TYPICAL_ACTIONS, TYPICAL_KNOWN_MIN

openings = st.tuples(
    st.sampled_from(["n", "m"]),
    st.integers(0, 40).map(str),
    st.just(0) | st.integers(1, 10**9),
    st.lists(st.integers(0, 10**9), max_size=3),
)


@given(st.lists(openings, max_size=150))
def test_a_queue_begins_with_what_its_action_or_its_namespace_took(
    opened: list[tuple[str, str, int, list[int]]],
) -> None:
    """M3: by two plain lists: the means of the actions, and who opened in which order."""
    history = RunHistory()
    means: dict[tuple[str, str], float] = {}
    order: list[tuple[str, str]] = []
    for namespace, action, given_us, runs_us in opened:
        key = (namespace, action)
        load = history.open(namespace, action, 0, given_us)
        newest = [other for other in order if other[0] == namespace][-TYPICAL_ACTIONS:]
        known = [means[other] for other in newest if other in means]
        if given_us > 0 or key in means:
            expected = given_us or max(1, int(means[key]))
            assert (load.samples, load.mean_us, load.typical_us) == (1, expected, 0)
        else:
            enough = len(known) >= TYPICAL_KNOWN_MIN
            assert (load.samples, load.typical_us) == (0, int(median_high(known)) if enough else 0)
        for run_us in runs_us:
            load.ran(run_us)
        means.pop(key, None)
        if load.samples:
            means[key] = load.mean_us
        order = [other for other in order if other != key] + [key]


@given(st.integers(0, 30))
def test_what_is_known_is_that_of_the_moment(runs: int) -> None:
    """M3: also while the former queue, of another revision, still runs what it has."""
    history = RunHistory()
    first = history.open("n", "a", 0, 0)
    for run_us in range(1, runs + 1):
        first.ran(1_000 * run_us)
    assert history.open("n", "a", 0, 0).mean_us == pytest.approx(first.mean_us, abs=1.0)
