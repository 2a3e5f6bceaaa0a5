"""What a queue that opens knows of its action: M3."""

from __future__ import annotations

from statistics import median_high

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.events import QueueSpec
from acs_core.history import RunHistory
from acs_core.limits import TYPICAL_ACTIONS, TYPICAL_KNOWN_MIN

openings = st.tuples(
    st.sampled_from(["n", "m"]),
    st.integers(0, 40).map(str),
    st.integers(0, 1),
    st.just(0) | st.integers(1, 10**9),
    st.lists(st.integers(0, 10**9), max_size=3),
)


def spec_of(namespace: str, action: str, revision: int = 0) -> QueueSpec:
    return QueueSpec(f"{namespace}/{action}@{revision}", namespace, action, revision)


@given(st.lists(openings, max_size=150))
def test_a_queue_begins_with_what_its_action_or_its_namespace_took(
    opened: list[tuple[str, str, int, int, list[int]]],
) -> None:
    """M3: by plain lists: the means of the actions, the guesses, and who opened in which order."""
    history = RunHistory()
    means: dict[tuple[str, str], float] = {}
    guesses: dict[tuple[str, str], int] = {}
    revisions: dict[tuple[str, str], int] = {}
    order: list[tuple[str, str]] = []
    for namespace, action, revision, given_us, runs_us in opened:
        key = (namespace, action)
        load = history.open(spec_of(namespace, action, revision), 0, given_us)
        newest = [other for other in order if other[0] == namespace][-TYPICAL_ACTIONS:]
        known = [means[other] for other in newest if other in means]
        guess = int(median_high(known)) if len(known) >= TYPICAL_KNOWN_MIN else 0
        guess = guesses.get(key, 0) or guess
        mean_us = given_us
        if key in means:
            guess = max(1, int(means[key]))
            if revisions[key] == revision:
                mean_us = given_us or guess
        guess = 0 if mean_us else guess
        assert (load.samples, load.mean_us) == ((1, mean_us) if mean_us else (0, 0))
        assert load.typical_us == guess
        for run_us in runs_us:
            load.ran(run_us)
        means.pop(key, None)
        if load.samples:
            means[key] = load.mean_us
        guesses[key], revisions[key] = guess, revision
        order = [other for other in order if other != key] + [key]


@given(st.integers(0, 30), st.integers(0, 1))
def test_what_is_known_is_that_of_the_moment(runs: int, revision: int) -> None:
    """M3: also while the former queue still runs what it has."""
    history = RunHistory()
    first = history.open(spec_of("n", "a"), 0, 0)
    for run_us in range(1, runs + 1):
        first.ran(1_000 * run_us)
    load = history.open(spec_of("n", "a", revision), 0, 0)
    known_us = load.typical_us if revision else load.mean_us
    assert known_us == pytest.approx(first.mean_us, abs=1.0)
