"""What the demand rules answer: the published cases, every branch, every refused input."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from demand_cases import NUMBERS, fit, old, snapshot

from acs_core import demand
from acs_core.demand import (
    MS_MAX,
    DemandRule,
    OpenWhiskRule,
    RuntimeFitRule,
    Snapshot,
    Verdict,
    predicted_wait_ms,
    resumptions,
    starts_within,
    steady_containers,
)
from acs_core.limits import COUNT_MAX
from acs_core.queue_states import QueueState

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "demand.json").read_text())
STATES = {state.name.replace("_", "").lower(): state for state in QueueState}
VERDICTS = {
    "Skip": Verdict.SKIP,
    "AddInitialContainer": Verdict.ADD_INITIAL,
    "AddContainer": Verdict.ADD,
    "EnableNamespaceThrottling": Verdict.THROTTLE_NAMESPACE,
    "DisableNamespaceThrottling": Verdict.UNTHROTTLE_NAMESPACE,
    "Pausing": Verdict.PAUSE,
}
THROTTLE, UNTHROTTLE = Verdict.THROTTLE_NAMESPACE, Verdict.UNTHROTTLE_NAMESPACE


# --- the original ----------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_original_answers_its_own_vectors(vector: dict[str, Any]) -> None:
    config = vector["config"]
    rule = OpenWhiskRule(
        config["stale_threshold_ms"], config["allow_over_provision"], config["over_provision_ratio"]
    )
    decision = rule.decide(
        Snapshot(
            state=STATES[vector["state"].lower()],
            initialized=vector["initialized"],
            incoming=vector["incoming"],
            waiting=vector["current"],
            existing=vector["existing"],
            in_progress=vector["in_progress"],
            stale=vector["stale"],
            namespace_existing=vector["ns_existing"],
            namespace_in_progress=vector["ns_in_progress"],
            average_duration_ms=vector["avg_duration_ms"],
            namespace_limit=vector["ns_limit"],
            action_limit=vector["action_limit"],
            concurrency=vector["max_action_concurrency"],
        )
    )
    expect = vector["expect"]
    assert decision.verdict is VERDICTS[expect["decision"]]
    assert decision.count == expect["num"]
    assert decision.drop is expect.get("drop_msg", False)


# What the original's own tests leave out; each line is one row of its decision table.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": QueueState.FLUSHING, "namespace_limit": 0}, (Verdict.SKIP, 0, False)),
        ({"state": QueueState.REMOVED, "action_limit": -1}, (Verdict.PAUSE, 0, False)),
        ({"namespace_limit": 1}, (THROTTLE, 0, False)),
        (
            {"state": QueueState.NAMESPACE_THROTTLED, "namespace_limit": 1},
            (Verdict.SKIP, 0, False),
        ),
        ({"state": QueueState.ACTION_THROTTLED, "stale": 9}, (Verdict.SKIP, 0, False)),
        # A duration of 0 or less: a container absorbs as many as run at once.
        ({"average_duration_ms": 0.0, "stale": 7, "concurrency": 2}, (Verdict.ADD, 4, False)),
        ({"average_duration_ms": -5.0, "waiting": 9}, (Verdict.SKIP, 0, False)),
        # 5 in progress for 1 stale: the stale share is -4 and eats into the fresh one.
        (
            {
                "average_duration_ms": 1000.0,
                "waiting": 12,
                "stale": 1,
                "in_progress": 5,
                "existing": 0,
            },
            (Verdict.ADD, 2, False),
        ),
        # The action's limit binds: no throttling of the namespace.
        ({"average_duration_ms": 1000.0, "stale": 9, "action_limit": 4}, (Verdict.ADD, 3, False)),
        (
            {"state": QueueState.REMOVING, "average_duration_ms": 50.0, "stale": 5},
            (Verdict.ADD, 3, False),
        ),
        ({"state": QueueState.REMOVING, "stale": 0}, (Verdict.SKIP, 0, False)),
        ({"average_duration_ms": None, "waiting": 2, "stale": 9}, (Verdict.ADD, 2, False)),
        # Without containers and work, but once initialised: nothing.
        ({"existing": 0, "waiting": 0, "average_duration_ms": None}, (Verdict.SKIP, 0, False)),
        ({"existing": 0, "waiting": 0}, (Verdict.SKIP, 0, False)),
        # Rounding up saturates at int32 where a run is absurdly long.
        (
            {"average_duration_ms": MS_MAX, "waiting": COUNT_MAX, "stale": 3, "in_progress": 1},
            (Verdict.THROTTLE_NAMESPACE, 998, False),
        ),
    ],
)
def test_original_in_corners(changes: dict[str, Any], expected: tuple[Verdict, int, bool]) -> None:
    assert old(**changes) == expected


def test_original_over_provisions_one_container_of_an_idle_queue() -> None:
    rule = OpenWhiskRule(over_provision=True)
    full = {"existing": 0, "namespace_existing": 2, "namespace_limit": 2, "running": 0}
    assert old(rule, **full) == (Verdict.ADD, 1, False)
    assert old(rule, **full, state=QueueState.REMOVING, stale=3) == (Verdict.ADD, 1, False)
    long = {"average_duration_ms": 1000.0, "state": QueueState.REMOVING, "stale": 3}
    assert old(rule, **full | long) == (THROTTLE, 1, False)
    assert old(rule, **full | {"namespace_existing": 3}) == (THROTTLE, 0, True)
    # It has one now: no more, and no throttling either while the ratio would allow one.
    assert old(rule, namespace_existing=2, namespace_limit=2) == (Verdict.SKIP, 0, False)
    assert old(
        rule, namespace_existing=2, namespace_limit=2, state=QueueState.NAMESPACE_THROTTLED
    ) == (UNTHROTTLE, 0, False)


# --- ours: the cases of the design -----------------------------------------------------------


def test_waiting_for_a_short_run_beats_a_new_container() -> None:
    assert fit(average_duration_ms=20.0).count == 0


@pytest.mark.parametrize(("run_ms", "added"), [(499.0, 0), (500.0, 0), (501.0, 1)])
def test_break_even_is_the_creation_time(run_ms: float, added: int) -> None:
    assert fit(creation_ms=500.0, average_duration_ms=run_ms).count == added


def test_long_runs_get_a_container_each_unless_one_is_about_to_end() -> None:
    assert fit(average_duration_ms=10_000.0).count == 1
    staggered = {"average_duration_ms": 10_000.0, "existing": 20, "running": 20, "waiting": 3}
    assert fit(**staggered).count == 0
    assert fit(**staggered, oldest_run_ms=10_000.0).count == 0
    # All twenty have just begun: nobody is about to end.
    assert fit(**staggered, oldest_run_ms=100.0).count == 3


def test_runs_of_minutes_excuse_no_wait_of_minutes() -> None:
    # 20 runs of a minute, one about to end every 3 s: not within 1.5 s, the most that d/4 excuses.
    slow = {"average_duration_ms": 60_000.0, "existing": 20, "running": 20, "waiting": 1}
    assert fit(**slow).count == 1
    assert fit(**slow).limit_ms == 1_500.0
    assert fit(**slow, wait_target_ms=3_000.0).count == 0
    assert fit(**slow | {"average_duration_ms": 5_996.0}).limit_ms == 1_499.0


def test_a_queue_of_many_containers_waits_for_no_long_run() -> None:
    # One of 21 staggered runs is about to end every 476 ms: three of them after a creation.
    many = {"average_duration_ms": 10_000.0, "existing": 21, "running": 21, "waiting": 3}
    assert fit(**many).count == 3
    assert fit(**many).limit_ms == 300.0
    assert fit(**many, wait_target_ms=1_500.0).count == 0
    making = many | {"existing": 20, "running": 20, "waiting": 4}
    assert fit(**making, in_progress=1).limit_ms == 300.0


SATURATED: dict[str, Any] = {
    "average_duration_ms": 30.0,
    "existing": 5,
    "running": 5,
    "waiting": 5,
    "namespace_existing": 50,
    "steady_short_ms": 2_000.0,
    "arrivals_per_s": 150.0,
}


SLOTS_OF_TWO = {"concurrency": 2, "running": 10, "waiting": 10, "arrivals_per_s": 300.0}


def test_closed_loop_users_get_half_as_many_containers_again() -> None:
    grown = fit(**SATURATED)
    assert (grown.verdict, grown.count, grown.steady, grown.steady_short) == (
        Verdict.ADD,
        3,
        8,
        True,
    )
    assert "5 waiting behind 5 running" in grown.reason
    # Not at once, and no more than there is work for.
    early = fit(**SATURATED | {"steady_short_ms": 1_999.0})
    assert (early.count, early.steady_short) == (0, True)
    slow = SATURATED | {"creation_ms": 500.0}
    assert fit(**slow | {"steady_short_ms": 2_499.0}).count == 0
    assert fit(**slow | {"steady_short_ms": 2_500.0}).count == 3
    assert fit(**SATURATED | SLOTS_OF_TWO).count == 3
    one = {"existing": 1, "running": 1, "waiting": 1, "namespace_existing": 1}
    assert fit(**SATURATED | one).count == 1


@pytest.mark.parametrize(
    "otherwise",
    [
        {"waiting": 4},
        {"running": 4},
        {"arrivals_per_s": 149.0},
        {"in_progress": 1, "waiting": 6},
        {"wait_target_ms": 300.0},
        # The newest would wait for 20 ms, which nobody minds.
        {"average_duration_ms": 20.0, "arrivals_per_s": 225.0},
        {"existing": 0, "running": 0, "arrivals_per_s": 0.0},
        # One of more than ten such queues: whether it pays would not show.
        {"namespace_existing": 51},
        {"namespace_in_progress": 1},
    ],
)
def test_a_queue_that_is_not_saturated_is_left_alone(otherwise: dict[str, Any]) -> None:
    assert fit(**SATURATED | otherwise).steady_short is False


OVERDUE: dict[str, Any] = {
    "average_duration_ms": 100.0,
    "existing": 4,
    "running": 4,
    "waiting": 3,
    "oldest_wait_ms": 3_000.0,
}


def test_overdue_work_is_believed_more_than_the_mean_run() -> None:
    assert fit(**OVERDUE | {"oldest_wait_ms": 2_999.0}).count == 0
    three = fit(**OVERDUE)
    assert (three.verdict, three.count) == (Verdict.ADD, 3)
    assert "the first of 3 has waited for 3000 ms" in three.reason
    assert "4 running" in three.rejected
    # A slot for each, and as many in the making at a time as there are.
    assert fit(**OVERDUE | {"waiting": 9}).count == 4
    assert fit(**OVERDUE | {"waiting": 9, "in_progress": 3}).count == 1
    assert fit(**OVERDUE | {"concurrency": 2, "running": 8}).count == 2
    assert fit(**OVERDUE | {"running": 2}).count == 1
    # Where nothing was promised sooner, nothing is overdue.
    assert fit(**OVERDUE, wait_target_ms=2_700.0).count == 0
    assert fit(**OVERDUE, wait_target_ms=2_699.0).count == 3
    assert fit(**OVERDUE, creation_ms=1_500.0).count == 0


def test_short_runs_never_get_more_than_they_fill() -> None:
    few: dict[str, Any] = {
        "average_duration_ms": 10.0,
        "existing": 10,
        "running": 10,
        "waiting": 105,
    }
    assert fit(**few, stale=105).count == 0
    # OpenWhisk adds one container for every ten that are stale.
    assert old(**few, stale=105)[:2] == (Verdict.ADD, 11)


def test_a_burst_of_short_runs_shares_new_containers() -> None:
    # The busy one starts 10 within 300 ms, each new one 11 within 300 ms of its start.
    assert fit(average_duration_ms=30.0, waiting=98).count == 8
    assert fit(average_duration_ms=30.0, waiting=99).count == 9


def test_concurrent_runs_share_a_container() -> None:
    assert fit(average_duration_ms=10_000.0, concurrency=10, running=10, waiting=20).count == 2


def test_steady_load_adds_after_five_creation_times() -> None:
    load = {"arrivals_per_s": 37.5, "wait_target_ms": 50.0}
    early = fit(**load, steady_short_ms=1499.0)
    assert (early.verdict, early.count, early.steady_short) == (Verdict.SKIP, 0, True)
    assert "37.5 arrivals/s" in early.rejected
    late = fit(**load, steady_short_ms=1500.0)
    assert (late.verdict, late.count, late.steady) == (Verdict.ADD, 1, 2)
    assert "37.5 arrivals/s" in late.reason
    enough = fit(**load, steady_short_ms=1500.0, existing=2)
    assert (enough.count, enough.steady_short) == (0, False)


def test_steady_load_in_the_making_is_not_asked_for_again() -> None:
    load = {"arrivals_per_s": 37.5, "wait_target_ms": 50.0, "steady_short_ms": 1500.0}
    assert fit(**load, in_progress=1).steady_short is False


def test_even_runs_need_fewer_containers_than_spread_ones() -> None:
    load = {"arrivals_per_s": 37.5, "wait_target_ms": 200.0}
    assert fit(**load).steady_short is True
    assert fit(**load, duration_spread_ms=0.0).steady_short is False


def test_steady_load_without_work_for_more_containers_adds_none() -> None:
    decision = fit(
        arrivals_per_s=37.5, wait_target_ms=50.0, steady_short_ms=1500.0, waiting=0, running=1
    )
    assert (decision.count, decision.steady_short) == (0, True)


def test_saturation_by_a_closed_loop_settles_at_two_containers() -> None:
    no_op = {
        "average_duration_ms": 0.2,
        "creation_ms": 50.0,
        "waiting": 64,
        "steady_short_ms": 250.0,
    }
    one = fit(**no_op, arrivals_per_s=5_000.0)
    assert (one.count, one.steady) == (1, 2)
    two = fit(**no_op, arrivals_per_s=8_000.0, existing=2, running=2)
    assert (two.count, two.steady_short) == (0, False)


def test_unknown_duration_starts_slowly() -> None:
    fresh = {"average_duration_ms": None, "waiting": 99}
    first = fit(**fresh, existing=0, running=0, initialized=False)
    assert (first.verdict, first.count) == (Verdict.ADD_INITIAL, 1)
    ages = [0.0, 3.0, 30.0, 300.0, 3000.0]
    assert [fit(**fresh, oldest_run_ms=age).count for age in ages] == [0, 0, 9, 49, 99]


def test_a_new_action_is_taken_for_what_is_typical_of_its_namespace() -> None:
    fresh = {"average_duration_ms": None, "existing": 0, "running": 0, "waiting": 20}
    assert fit(**fresh, typical_run_ms=2.0).count == 1
    assert fit(**fresh, typical_run_ms=10_000.0).count == 20
    assert "no run has ended, and 10000 ms are usual" in fit(**fresh, typical_run_ms=1e4).reason
    assert "usual" not in fit(**fresh, typical_run_ms=2.0).reason
    # A guess costs no more than twenty, whatever waits.
    assert fit(**fresh | {"waiting": 1_000}, typical_run_ms=10_000.0).count == 20
    # Nor more than a twentieth of what the namespace may have.
    assert fit(**fresh, typical_run_ms=10_000.0, namespace_limit=64).count == 3
    begun = fresh | {"waiting": 1_000, "existing": 3, "running": 3, "in_progress": 4}
    assert fit(**begun, typical_run_ms=10_000.0).count == 13
    assert fit(**begun, typical_run_ms=10_000.0, oldest_run_ms=301.0).count == 993
    # A run that has lasted longer says more, and one that has ended says all.
    begun = fresh | {"existing": 1, "running": 1}
    assert fit(**begun, typical_run_ms=2.0, oldest_run_ms=301.0).count == 20
    assert fit(**begun | {"average_duration_ms": 2.0}, typical_run_ms=10_000.0).count == 0


def test_no_prediction_counts_what_is_typical() -> None:
    fresh = {"average_duration_ms": None, "waiting": 20, "oldest_run_ms": 10.0}
    of_guess = snapshot(**fresh, typical_run_ms=10_000.0)
    assert predicted_wait_ms(of_guess, 1) == predicted_wait_ms(snapshot(**fresh), 1)
    assert resumptions(of_guess) == resumptions(snapshot(**fresh))


def test_known_history_gives_a_burst_its_containers_at_once() -> None:
    decision = fit(existing=0, running=0, waiting=20, average_duration_ms=10_000.0)
    assert (decision.verdict, decision.count) == (Verdict.ADD, 20)


def test_creation_time_that_nobody_measured_has_a_default() -> None:
    assert fit(average_duration_ms=300.0, creation_ms=None).count == 0
    assert fit(average_duration_ms=301.0, creation_ms=None).count == 1


def test_stuck_run_is_not_waited_for() -> None:
    assert fit(oldest_run_ms=299.0).count == 0
    assert fit(oldest_run_ms=301.0).count == 1


def test_paused_containers_are_counted_on() -> None:
    asleep = {"existing": 3, "running": 1, "average_duration_ms": 10_000.0, "waiting": 2}
    assert fit(**asleep, paused=2).count == 0
    assert predicted_wait_ms(snapshot(**asleep, paused=2), 3) == pytest.approx(30.0, abs=0.01)
    quick = snapshot(**asleep, paused=2, creation_ms=5.0)
    assert predicted_wait_ms(quick, 3) == pytest.approx(5.0, abs=0.01)


def test_containers_in_progress_are_counted_on() -> None:
    assert fit(average_duration_ms=10_000.0, in_progress=1).count == 0


# --- ours: states and caps -------------------------------------------------------------------

NEEDY = {"average_duration_ms": 10_000.0, "waiting": 5}


@pytest.mark.parametrize("state", [QueueState.UNINITIALIZED, QueueState.REMOVED])
def test_queue_that_is_not_open_gets_nothing(state: QueueState) -> None:
    decision = fit(**NEEDY, state=state, namespace_limit=0)
    assert (decision.verdict, decision.count) == (Verdict.SKIP, 0)
    assert state.name in decision.reason
    assert "5 waiting" in decision.rejected


@pytest.mark.parametrize("limits", [{"namespace_limit": 0}, {"action_limit": -1}])
def test_limit_of_zero_pauses(limits: dict[str, int]) -> None:
    for state in QueueState:
        decision = fit(**NEEDY, **limits, state=state)
        pauses = state in (
            QueueState.RUNNING,
            QueueState.NAMESPACE_THROTTLED,
            QueueState.ACTION_THROTTLED,
            QueueState.REMOVING,
        )
        assert decision.verdict is (Verdict.PAUSE if pauses else Verdict.SKIP)
        assert decision.count == 0
        assert decision.rejected


@pytest.mark.parametrize(
    "state",
    [
        QueueState.RUNNING,
        QueueState.NAMESPACE_THROTTLED,
        QueueState.ACTION_THROTTLED,
        QueueState.REMOVING,
    ],
)
def test_full_namespace_is_throttled_as_long_as_more_is_needed(state: QueueState) -> None:
    decision = fit(**NEEDY, state=state, namespace_limit=3, namespace_existing=3)
    assert (decision.verdict, decision.count, decision.drop) == (THROTTLE, 0, False)
    assert "3 and 0 in progress of 3" in decision.reason
    assert "add 5" in decision.rejected


def test_throttle_lifts_when_either_cause_is_gone() -> None:
    throttled = {"state": QueueState.NAMESPACE_THROTTLED, "namespace_existing": 3}
    served = fit(**throttled, namespace_limit=3)
    assert (served.verdict, served.count) == (UNTHROTTLE, 0)
    freed = fit(**NEEDY, **throttled, namespace_limit=5)
    assert (freed.verdict, freed.count, freed.room) == (UNTHROTTLE, 2, 2)
    assert "room 2, wanted 5" in freed.reason


def test_caps_cut_what_is_added() -> None:
    by_namespace = fit(**NEEDY, namespace_limit=3)
    assert (by_namespace.verdict, by_namespace.count) == (Verdict.ADD, 2)
    assert "add 5" in by_namespace.rejected
    by_action = fit(**NEEDY, action_limit=1)
    assert (by_action.verdict, by_action.count) == (Verdict.SKIP, 0)
    assert "action 1 and 0 in progress of 1" in by_action.reason


def test_places_are_left_for_queues_without_any() -> None:
    assert fit(**NEEDY, namespace_limit=4, contending_queues=2).count == 1
    assert fit(**NEEDY, namespace_limit=4, contending_queues=3).verdict is THROTTLE
    first = fit(
        **NEEDY, namespace_limit=1, contending_queues=3, existing=0, running=0, initialized=False
    )
    assert (first.verdict, first.count) == (Verdict.ADD_INITIAL, 1)


def test_failing_creations_are_tried_one_at_a_time() -> None:
    failing = NEEDY | {"state": QueueState.FLUSHING}
    probe = fit(**failing)
    assert (probe.verdict, probe.count) == (Verdict.ADD, 1)
    assert "creations fail" in probe.reason
    assert "all 5" in probe.rejected
    under_way = fit(**failing, in_progress=1)
    assert (under_way.verdict, under_way.count) == (Verdict.SKIP, 0)
    assert fit(**failing, namespace_limit=1).verdict is Verdict.SKIP
    assert fit(state=QueueState.FLUSHING).verdict is Verdict.SKIP
    assert fit(state=QueueState.FLUSHING, average_duration_ms=10_000.0).count == 1


def test_empty_queue_gets_nothing_in_any_state() -> None:
    for state in QueueState:
        decision = fit(state=state, waiting=0, running=0, existing=0, initialized=False)
        assert decision.count == 0
        assert decision.verdict is (
            UNTHROTTLE if state is QueueState.NAMESPACE_THROTTLED else Verdict.SKIP
        )


def test_decision_tells_what_it_was_made_of() -> None:
    given = snapshot(**NEEDY)
    rule: DemandRule = RuntimeFitRule()
    decision = rule.decide(given)
    assert decision.snapshot is given
    assert (decision.wanted, decision.room, decision.limit_ms) == (5, 999, 1500.0)
    assert repr(decision).startswith("Decision(ADD, 5: 5 waiting and 1 running on 1 containers")
    assert "fewer than 5" in decision.rejected
    assert given.state is QueueState.RUNNING


# --- predictions -----------------------------------------------------------------------------


def test_predicted_wait_without_backlog_or_containers() -> None:
    assert predicted_wait_ms(snapshot(waiting=0), 1) == 0.0
    assert predicted_wait_ms(snapshot(running=0), 1) == 0.0
    assert predicted_wait_ms(snapshot(existing=0, running=0), 0) == math.inf


def test_predicted_wait_counts_the_containers_in_the_making() -> None:
    busy = snapshot(average_duration_ms=100.0, waiting=4, incoming=1)
    assert predicted_wait_ms(busy, 1) == pytest.approx(500.0, abs=0.01)
    assert predicted_wait_ms(busy, 2) == pytest.approx(400.0, abs=0.01)
    assert predicted_wait_ms(busy, 3) == pytest.approx(300.0, abs=0.01)
    assert starts_within(busy, 3, 299.9) == 2
    assert starts_within(busy, 3, 300.0) == 5


def test_fewer_containers_than_there_are_is_refused() -> None:
    few = snapshot(existing=3)
    for ask in (partial(predicted_wait_ms, few, 2), partial(starts_within, few, 2, 1.0)):
        with pytest.raises(
            ValueError, match=r"containers is 2; it must be at least existing \(3\)"
        ):
            ask()


def test_steady_containers_at_the_edges() -> None:
    assert steady_containers(0.0, 20.0, 20.0, 1, 50.0) == 0
    assert steady_containers(math.nan, 20.0, 20.0, 1, 50.0) == 0
    assert steady_containers(37.5, 20.0, 20.0, 1, 50.0) == 2
    assert steady_containers(37.5, 20.0, 20.0, 1, 400.0) == 1
    assert steady_containers(37.5, 20.0, 0.0, 1, 200.0) == 1
    assert steady_containers(37.5, 20.0, 20.0, 1_000, 50.0) == 1
    assert steady_containers(1e9, 20.0, 20.0, 1, 50.0, 7) == 7
    assert steady_containers(100.0, 20.0, 20.0, 1, 0.0, 3) == 3
    assert steady_containers(37.5, 20.0, 20.0, 1, 0.0) == 4
    # Beyond the load that is computed exactly: a little more than the load.
    assert 200_000 < steady_containers(1e7, 20.0, 20.0, 1, 50.0, 10**6) < 202_000
    assert steady_containers(1e7, 20.0, 20.0, 1, 50.0, 200_001) == 200_001


def test_steady_containers_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match=r"duration_ms is 0\.0; it must be more than 0"):
        steady_containers(1.0, 0.0, 1.0, 1, 1.0)
    with pytest.raises(ValueError, match="concurrency is 0; it must be at least 1"):
        steady_containers(1.0, 1.0, 1.0, 0, 1.0)


# --- refused input ---------------------------------------------------------------------------

COUNTS = [
    "incoming",
    "waiting",
    "existing",
    "in_progress",
    "stale",
    "namespace_existing",
    "namespace_in_progress",
    "running",
    "paused",
    "contending_queues",
]


@pytest.mark.parametrize("field", [*COUNTS, "concurrency", "namespace_limit", "action_limit"])
@pytest.mark.parametrize("value", [1.5, "1", None, True])
def test_count_that_is_no_integer_is_refused(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{field} is {value!r}; it must be an integer"):
        snapshot(**{field: value})


@pytest.mark.parametrize(
    ("field", "low"),
    [(field, 0) for field in COUNTS]
    + [("concurrency", 1), ("namespace_limit", -COUNT_MAX), ("action_limit", -COUNT_MAX)],
)
def test_count_out_of_range_is_refused(field: str, low: int) -> None:
    for value in (low - 1, COUNT_MAX + 1, 2**64):
        with pytest.raises(ValueError, match=f"^{field} is {value}; it must be in {low}.."):
            snapshot(**{field: value})
    assert getattr(snapshot(**{field: max(low, 1)}), field) == max(low, 1)


@pytest.mark.parametrize("field", NUMBERS)
def test_number_out_of_range_is_refused(field: str) -> None:
    low = NUMBERS[field]
    for value in (low - 1e3, MS_MAX * 2, math.nan, math.inf, -math.inf, 2**70):
        with pytest.raises(ValueError, match=f"^{field} is "):
            snapshot(**{field: value})
    for wrong in ("1", True):
        with pytest.raises(TypeError, match=f"^{field} is {wrong!r}; it must be a number"):
            snapshot(**{field: wrong})
    assert getattr(snapshot(**{field: 7}), field) == 7.0


def test_state_and_paused_are_checked() -> None:
    with pytest.raises(TypeError, match="state is 1; it must be a QueueState"):
        snapshot(state=1)
    with pytest.raises(ValueError, match=r"paused is 2; it must be at most existing \(1\)"):
        snapshot(paused=2)


def test_arguments_of_the_original_are_checked() -> None:
    with pytest.raises(ValueError, match=r"stale_ms is 0; it must be in 0\.001"):
        OpenWhiskRule(stale_ms=0)
    with pytest.raises(ValueError, match=r"over_provision_ratio is -1; it must be in 0\.0"):
        OpenWhiskRule(over_provision_ratio=-1)
    with pytest.raises(TypeError, match="over_provision_ratio is None; it must be a number"):
        OpenWhiskRule(over_provision_ratio=None)  # type: ignore[arg-type]  # refused at run time
    rule = OpenWhiskRule(50, True, 2)
    assert (rule.stale_ms, rule.over_provision, rule.over_provision_ratio) == (50.0, True, 2.0)


def test_nothing_in_place_of_a_snapshot_is_an_error_not_a_crash() -> None:
    none: Any = None
    for ask in (
        partial(RuntimeFitRule().decide, none),
        partial(OpenWhiskRule().decide, none),
        partial(starts_within, none, 1, 1.0),
        partial(predicted_wait_ms, none, 1),
    ):
        with pytest.raises(AttributeError):
            ask()


def test_the_formula_is_written_down() -> None:
    assert "S(n, t) >= Q" in (demand.__doc__ or "")


@pytest.mark.parametrize(
    ("changes", "resumed"),
    [
        # Nobody is awake: at once, whatever the run time.
        ({"existing": 1, "paused": 1, "running": 0}, 1),
        ({"existing": 1, "paused": 1, "running": 0, "average_duration_ms": None}, 1),
        # The busy one ends within the 30 ms of a resume, or later.
        ({"existing": 2, "paused": 1, "average_duration_ms": 30.0}, 0),
        ({"existing": 2, "paused": 1, "average_duration_ms": 31.0}, 1),
        ({"existing": 2, "paused": 1, "average_duration_ms": 20.0, "oldest_run_ms": 31.0}, 1),
        # A short run is worth waiting for, many of them are not.
        ({"existing": 4, "paused": 3, "average_duration_ms": 2.0, "waiting": 15}, 0),
        ({"existing": 4, "paused": 3, "average_duration_ms": 2.0, "waiting": 16}, 1),
        ({"existing": 4, "paused": 3, "average_duration_ms": 2.0, "waiting": 32}, 2),
        # Each has several slots; no more than there are.
        ({"existing": 4, "paused": 3, "average_duration_ms": 1e4, "waiting": 5}, 3),
        ({"existing": 4, "paused": 3, "average_duration_ms": 1e4, "waiting": 5}
         | {"concurrency": 4, "running": 4}, 2),
        # No cap is in the way: they are there.
        ({"existing": 1, "paused": 1, "running": 0, "namespace_limit": 0, "action_limit": 0}, 1),
        ({"existing": 2, "paused": 2, "running": 0, "waiting": 0}, 0),
    ],
)  # fmt: skip
def test_as_many_are_resumed_as_serve_sooner_than_waiting(
    changes: dict[str, Any], resumed: int
) -> None:
    assert resumptions(snapshot(**changes)) == resumed
