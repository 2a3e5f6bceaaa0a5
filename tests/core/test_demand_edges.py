"""Where the bounds of the demand rules lie: one case on each side, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest
from demand_cases import NUMBERS, fit, old, snapshot

from acs_core.demand import (
    MS_MAX,
    OpenWhiskRule,
    Snapshot,
    Verdict,
    predicted_wait_ms,
    resumptions,
    starts_within,
    steady_containers,
)
from acs_core.limits import TIME_MAX_US
from acs_core.queue_states import QueueState

LONG: dict[str, Any] = {"average_duration_ms": 10_000.0}
"""So long that nobody waits for its end: a container for each."""
FAILING: dict[str, Any] = LONG | {"state": QueueState.FLUSHING}


def test_verdicts_keep_their_numbers() -> None:
    # Whoever embeds the compiled core reads them as such.
    assert [(verdict.name, verdict.value) for verdict in Verdict] == [
        ("SKIP", 0),
        ("ADD_INITIAL", 1),
        ("ADD", 2),
        ("THROTTLE_NAMESPACE", 3),
        ("UNTHROTTLE_NAMESPACE", 4),
        ("PAUSE", 5),
    ]


def test_what_is_left_out_of_a_snapshot_is_nothing() -> None:
    least = Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        incoming=0,
        waiting=0,
        existing=0,
        in_progress=0,
        stale=0,
        namespace_existing=0,
        namespace_in_progress=0,
        average_duration_ms=None,
        namespace_limit=1,
        action_limit=1,
        concurrency=1,
    )
    counts = (least.running, least.paused, least.contending_queues)
    assert counts == (0, 0, 0)
    assert (least.arrivals_per_s, least.oldest_run_ms, least.typical_run_ms) == (0.0, 0.0, 0.0)
    assert (least.steady_short_ms, least.oldest_wait_ms) == (0.0, 0.0)
    assert (least.creation_ms, least.wait_target_ms, least.duration_spread_ms) == (None, None, None)


@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_are_taken_up_to_their_bounds(field: str) -> None:
    for bound in (NUMBERS[field], MS_MAX):
        assert getattr(snapshot(**{field: bound}), field) == bound


def test_the_longest_duration_is_the_longest_time_of_the_core() -> None:
    assert MS_MAX == (TIME_MAX_US + 1) / 1000


def test_a_decision_about_nothing_names_no_numbers() -> None:
    nothing = OpenWhiskRule().decide(snapshot(namespace_limit=0))
    assert (nothing.drop, nothing.steady_short) == (False, False)
    assert (nothing.wanted, nothing.room, nothing.steady, nothing.limit_ms) == (0, 0, 0, 0.0)


def test_no_more_of_a_steady_load_is_looked_at_than_could_be_added() -> None:
    # A load of 100 containers on one: told is that it is short, not by how many it is.
    heavy = {"arrivals_per_s": 5_000.0, "wait_target_ms": 50.0}
    assert fit(**heavy, waiting=0).steady == 2
    assert fit(**heavy, namespace_limit=1).steady == 2
    assert fit(**heavy, waiting=7).steady == 1 + 7
    assert fit(**heavy, waiting=7, namespace_limit=4).steady == 1 + 3


def test_a_queue_that_both_terms_call_short_waits_no_longer_than_one_asks() -> None:
    both = {
        "average_duration_ms": 0.2,
        "creation_ms": 50.0,
        "waiting": 128,
        "arrivals_per_s": 5_000.0,
    }
    assert fit(**both, steady_short_ms=249.0).count == 0
    assert fit(**both, steady_short_ms=250.0).count == 1


def test_while_creations_fail_one_is_tried_and_only_one() -> None:
    two = fit(**FAILING, waiting=2)
    assert two.count == 1
    assert "creations fail" in two.reason
    # One that is wanted anyhow is no probe; one that is being tried is enough.
    one = fit(**FAILING, waiting=1)
    assert one.count == 1
    assert "would wait longer" in one.reason
    assert fit(**FAILING, waiting=2, in_progress=1).count == 0


def test_one_that_is_missing_is_enough_to_throttle() -> None:
    full = fit(**LONG, waiting=1, namespace_limit=1)
    assert (full.verdict, full.room) == (Verdict.THROTTLE_NAMESPACE, 0)


def test_as_many_as_a_steady_load_needs_are_no_promise_of_more() -> None:
    enough = fit(arrivals_per_s=37.5, wait_target_ms=400.0)
    assert (enough.steady, enough.steady_short) == (1, False)
    assert enough.rejected.startswith("add 1: nobody waits")


def test_initial_ones_are_the_first_ones() -> None:
    assert fit(**LONG, initialized=False).verdict is Verdict.ADD
    first = fit(**LONG, initialized=False, existing=0, running=0)
    assert first.verdict is Verdict.ADD_INITIAL


def test_beyond_what_erlang_is_reckoned_for_two_and_a_half_deviations_are_added() -> None:
    # A load of 150,000, whose deviation is 387.3.
    assert steady_containers(7.5e6, 20.0, 20.0, 1, 50.0, 10**6) == 150_969


def test_original_provisions_over_only_for_who_has_none() -> None:
    rule = OpenWhiskRule(over_provision=True)
    stale: dict[str, Any] = {"average_duration_ms": 1_000.0, "waiting": 5, "stale": 5}
    assert old(rule, **stale)[:2] == (Verdict.ADD, 5)
    none: dict[str, Any] = {"existing": 0, "running": 0, "state": QueueState.REMOVING}
    assert old(rule, **stale, **none)[1] == 1


@pytest.mark.parametrize(
    ("initialized", "average_duration_ms", "verdict"),
    [
        (False, None, Verdict.ADD_INITIAL),
        (False, 20.0, Verdict.SKIP),
        (True, None, Verdict.SKIP),
    ],
)
def test_original_begins_only_with_who_never_began_and_is_unknown(
    initialized: bool, average_duration_ms: float | None, verdict: Verdict
) -> None:
    given: dict[str, Any] = {"initialized": initialized, "average_duration_ms": average_duration_ms}
    assert old(existing=0, running=0, waiting=0, **given)[0] is verdict


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        # Unknown runs: a slot for each that is stale.
        ({"average_duration_ms": None, "waiting": 9, "stale": 1}, 1),
        ({"average_duration_ms": None, "waiting": 9, "stale": 4, "concurrency": 2}, 2),
        # 200 runs of half a millisecond before one is stale, be they stale or fresh.
        ({"average_duration_ms": 0.5, "waiting": 100, "stale": 100}, 1),
        ({"average_duration_ms": 0.5, "waiting": 1_000}, 4),
        # Without a duration the fresh ones ask for nothing.
        ({"average_duration_ms": 0.0, "waiting": 9}, 0),
        # Two runs of 50 ms each: ten for twenty, less those there are and those in the making.
        ({"average_duration_ms": 50.0, "waiting": 20, "in_progress": 2}, 7),
        # Who leaves serves what is stale, and nothing else.
        (
            {
                "average_duration_ms": 100.0,
                "waiting": 10,
                "stale": 2,
                "state": QueueState.REMOVING,
            },
            2,
        ),
        # The fresh ones are absorbed by those there are, or fewer than those: they take nothing
        # from the share of the stale.
        ({"average_duration_ms": 20.0, "waiting": 13, "stale": 3, "existing": 4}, 1),
        ({"average_duration_ms": 1_000.0, "waiting": 6, "stale": 1, "existing": 10}, 1),
    ],
)
def test_original_weighs_the_stale_and_the_fresh_apart(changes: dict[str, Any], added: int) -> None:
    assert old(**changes)[1] == added


@pytest.mark.parametrize(
    ("changes", "wait_ms"),
    [
        ({"average_duration_ms": 0.5}, 0.5),
        ({"average_duration_ms": 100.0, "waiting": 100}, 10_000.0),
        # A run that lasts longer than usual may last as long again.
        ({"average_duration_ms": 100.0, "oldest_run_ms": 500.0}, 500.0),
    ],
)
def test_predicted_wait_is_found_wherever_it_lies(changes: dict[str, Any], wait_ms: float) -> None:
    found_ms = predicted_wait_ms(snapshot(**changes), 1)
    assert wait_ms <= found_ms <= wait_ms + 0.001


def test_who_is_about_to_wait_is_resumed_for_as_well() -> None:
    asleep: dict[str, Any] = {"existing": 3, "paused": 3, "running": 0} | LONG
    assert resumptions(snapshot(**asleep, waiting=1, incoming=2)) == 3


def test_who_is_about_to_wait_is_counted_with_those_who_do() -> None:
    assert fit(**LONG, waiting=1, incoming=2).count == 3
    steady = {"arrivals_per_s": 37.5, "wait_target_ms": 50.0, "steady_short_ms": 1_500.0}
    assert fit(**steady, waiting=0, incoming=1).count == 1


@pytest.mark.parametrize(
    ("changes", "within_ms", "starts"),
    [
        # No run, so none that lasts too long.
        ({"running": 0, "oldest_run_ms": 100.0}, 200.0, 11),
        # Both have just begun, and end close together.
        ({"existing": 2, "running": 2, "oldest_run_ms": 0.5}, 15.0, 0),
        ({"existing": 2, "running": 2, "oldest_run_ms": 1.0}, 19.5, 1),
        # It sleeps for longer than a run.
        ({"running": 0, "paused": 1}, 0.0, 0),
    ],
)
def test_starts_are_counted_from_when_a_slot_is_ready(
    changes: dict[str, Any], within_ms: float, starts: int
) -> None:
    given = snapshot(**changes)
    assert starts_within(given, given.existing, within_ms) == starts


def test_a_wait_is_rounded_up_by_a_microsecond_at_most() -> None:
    for run_ms in range(1, 50):
        found_ms = predicted_wait_ms(snapshot(average_duration_ms=float(run_ms)), 1)
        assert run_ms <= found_ms <= run_ms + 0.001


def test_the_steady_term_says_nothing_before_a_run_has_ended() -> None:
    unknown: dict[str, Any] = {"average_duration_ms": None, "arrivals_per_s": 100.0}
    assert fit(**unknown, oldest_run_ms=10.0).steady == 0
    assert fit(**unknown, oldest_run_ms=30.0, namespace_existing=11).steady == 0
    assert fit().steady == 0
    assert fit(waiting=0).steady == 0


def test_a_steady_load_shares_the_slots_of_a_container() -> None:
    heavy = {"arrivals_per_s": 5_000.0, "wait_target_ms": 50.0}
    assert fit(**heavy, concurrency=2, running=2).steady == 2


def test_a_slot_is_asked_for_each_that_is_overdue_and_not_a_container() -> None:
    overdue: dict[str, Any] = {"average_duration_ms": 100.0, "oldest_wait_ms": 3_000.0}
    assert fit(**overdue, existing=4, waiting=3, running=12, concurrency=2).count == 2


def test_half_as_many_again_is_rounded_up() -> None:
    closed: dict[str, Any] = {"average_duration_ms": 30.0, "steady_short_ms": 5_000.0}
    four = {"existing": 4, "running": 4, "waiting": 4, "arrivals_per_s": 120.0}
    assert fit(**closed, **four).steady == 6
    # One, of even runs, which a second would not make wait less: saturated all the same.
    even = {"creation_ms": 1_000.0, "duration_spread_ms": 0.0, "arrivals_per_s": 30.0}
    assert fit(**closed, **even).count == 1
    # One is in the making: whether that is enough is not known yet.
    making = {"existing": 5, "in_progress": 1, "running": 6, "waiting": 6, "arrivals_per_s": 180.0}
    assert fit(**closed, **making).steady_short is False


def test_what_is_in_the_making_has_its_place() -> None:
    making: dict[str, Any] = LONG | {"waiting": 5, "in_progress": 1, "namespace_limit": 4}
    assert fit(**making).room == 2
    assert fit(**making, contending_queues=1).room == 1


def test_original_tells_what_it_would_add() -> None:
    rule = OpenWhiskRule()
    assert rule.decide(snapshot(average_duration_ms=1_000.0, waiting=5, stale=5)).wanted == 5
    assert rule.decide(snapshot()).wanted == 0


def test_as_many_steady_containers_as_may_be_and_no_more() -> None:
    assert steady_containers(37.5, 20.0, 20.0, 1, 50.0, 1) == 1
    # Erlang's formula is exact up to a load of 100,000, and needs fewer than what is taken above.
    assert steady_containers(5e6, 20.0, 20.0, 1, 50.0, 10**6) < 100_791
    assert steady_containers(1e7, 20.0, 20.0, 2, 50.0, 10**6) == 100_560
