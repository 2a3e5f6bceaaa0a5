"""Proofs of ``acs_core.demand`` against plain models, on random snapshots and closed loops."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from models import at_least
from models_demand import (
    Loop,
    backlog_containers,
    most_in_a_window,
    original,
    slots_of,
    starts,
    steady_p99_ms,
    wait_limit,
    wait_of_newest,
)

from acs_core.demand import (
    CREATION_MS,
    MS_MAX,
    RESUME_MS,
    Decision,
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

MANY = at_least(1_000)
SOME = at_least(300)

small = st.integers(0, 12)
whole_ms = st.integers(0, 3_000).map(float)
STATES = st.sampled_from(QueueState)
ACTIVE = st.sampled_from(
    [
        QueueState.RUNNING,
        QueueState.IDLE,
        QueueState.NAMESPACE_THROTTLED,
        QueueState.ACTION_THROTTLED,
        QueueState.REMOVING,
    ]
)
SPACIOUS = {"namespace_limit": 1_000, "action_limit": 1_000, "contending_queues": 0}


@st.composite
def fields(draw: st.DrawFn, /, **fixed: Any) -> dict[str, Any]:
    """Draw the fields of a snapshot; durations are whole milliseconds, which models share."""
    existing, in_progress = draw(small), draw(st.integers(0, 4))
    concurrency = draw(st.integers(1, 4))
    paused = draw(st.integers(0, existing))
    drawn: dict[str, Any] = {
        "state": draw(STATES),
        "initialized": draw(st.booleans()),
        "incoming": draw(st.integers(0, 2)),
        "waiting": draw(st.integers(0, 60)),
        "existing": existing,
        "in_progress": in_progress,
        "stale": draw(st.integers(0, 60)),
        "namespace_existing": existing + draw(st.integers(0, 3)),
        "namespace_in_progress": in_progress + draw(st.integers(0, 3)),
        "average_duration_ms": draw(st.none() | whole_ms),
        "namespace_limit": draw(st.integers(-1, 40)),
        "action_limit": draw(st.integers(-1, 40)),
        "concurrency": concurrency,
        "arrivals_per_s": draw(st.integers(0, 500)) / 2,
        "creation_ms": draw(st.none() | whole_ms),
        "wait_target_ms": draw(st.none() | whole_ms),
        "running": draw(st.integers(0, concurrency * (existing - paused))),
        "paused": paused,
        "oldest_run_ms": draw(st.just(0.0) | whole_ms),
        "contending_queues": draw(st.integers(0, 3)),
        "duration_spread_ms": draw(st.none() | whole_ms),
        "steady_short_ms": draw(st.just(0.0) | st.just(1e6)),
        "oldest_wait_ms": draw(st.just(0.0) | st.just(1e6)),
        "typical_run_ms": draw(st.just(0.0) | whole_ms),
    }
    for name, value in fixed.items():
        drawn[name] = draw(value) if isinstance(value, st.SearchStrategy) else value
    return drawn


def contents(decision: Decision) -> tuple[object, ...]:
    return (
        decision.verdict,
        decision.count,
        decision.drop,
        decision.steady_short,
        decision.wanted,
        decision.room,
        decision.steady,
        decision.limit_ms,
        decision.reason,
        decision.rejected,
    )


def decide(given: dict[str, Any]) -> Decision:
    return RuntimeFitRule().decide(Snapshot(**given))


# --- the original ----------------------------------------------------------------------------


# Mostly the states and limits that lead far down the original's table.
@MANY
# Fewer are added where there are some already; seldom drawn, so it is always tried.
@example(
    {
        "state": QueueState.RUNNING,
        "initialized": True,
        "incoming": 0,
        "waiting": 58,
        "existing": 8,
        "in_progress": 2,
        "stale": 0,
        "namespace_existing": 8,
        "namespace_in_progress": 2,
        "namespace_limit": 1_000,
        "action_limit": 1_000,
        "concurrency": 1,
    },
    50.0,
    100,
    False,
    1.0,
)
@given(
    fields(
        state=st.sampled_from([*QueueState, *[QueueState.RUNNING] * 8, QueueState.REMOVING]),
        namespace_limit=st.sampled_from([-1, 5, 12, 40, 1_000]),
        action_limit=st.sampled_from([0, 5, 40, 1_000]),
        stale=st.just(0) | st.integers(0, 60),
    ),
    st.none() | st.sampled_from([-1.0, 0.0, 0.3, 7.0, 50.0, 100.0, 333.3, 1e4]),
    st.sampled_from([1, 100, 250.5]),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 1.1, 1.5]),
)
def test_original_agrees_with_its_table(
    given: dict[str, Any],
    average_ms: float | None,
    stale_ms: float,
    over_provision: bool,
    ratio: float,
) -> None:
    """D1."""
    snapshot = Snapshot(**given | {"average_duration_ms": average_ms})
    decision = OpenWhiskRule(stale_ms, over_provision, ratio).decide(snapshot)
    expected = original(snapshot, stale_ms, over_provision, ratio)
    assert (decision.verdict.name, decision.count, decision.drop) == expected


# --- ours: sizes -----------------------------------------------------------------------------


@SOME
@given(fields(state=QueueState.RUNNING, arrivals_per_s=0.0, oldest_wait_ms=0.0, **SPACIOUS))
def test_backlog_term_adds_what_adding_one_by_one_finds(given: dict[str, Any]) -> None:
    """D2."""
    assert decide(given).wanted == backlog_containers(Snapshot(**given))


@SOME
@given(fields(), st.integers(0, 5))
def test_predicted_wait_is_that_of_handing_out_one_by_one(given: dict[str, Any], more: int) -> None:
    """D2."""
    snapshot = Snapshot(**given)
    containers = snapshot.existing + more
    assume(containers > 0)
    wait = wait_of_newest(snapshot, containers)
    assert predicted_wait_ms(snapshot, containers) == pytest.approx(float(wait), abs=0.002)


@SOME
@given(fields(), st.integers(0, 5), st.integers(0, 20_000))
def test_starts_within_counts_every_slot(given: dict[str, Any], more: int, within_ms: int) -> None:
    """D2."""
    snapshot = Snapshot(**given)
    containers = snapshot.existing + more
    slots = slots_of(snapshot, containers)
    ready = slots.there + slots.making
    expected = starts(ready, slots.run, Fraction(within_ms))
    found = starts_within(snapshot, containers, float(within_ms))
    # A run of a microsecond divides no millisecond exactly: each slot may be one off.
    assert abs(found - expected) <= (0 if slots.run >= 1 else len(ready))


@SOME
@given(
    fields(
        state=QueueState.RUNNING,
        in_progress=0,
        arrivals_per_s=0.0,
        oldest_wait_ms=0.0,
        typical_run_ms=0.0,  # no prediction counts it
        **SPACIOUS,
    )
)
def test_adds_exactly_when_the_predicted_wait_is_too_long(given: dict[str, Any]) -> None:
    """D2."""
    snapshot = Snapshot(**given)
    decision = decide(given)
    limit_ms = float(wait_limit(snapshot))
    assume(slots_of(snapshot, snapshot.existing).run >= 1)  # predictions are exact to 1 us
    assert decision.limit_ms == pytest.approx(limit_ms)
    creation_ms = 300.0 if snapshot.creation_ms is None else snapshot.creation_ms
    too_long = predicted_wait_ms(snapshot, snapshot.existing) > limit_ms + 0.002
    slots = snapshot.concurrency * snapshot.existing
    all_have_one = snapshot.waiting + snapshot.incoming + snapshot.running <= slots
    assert (decision.count > 0) == (too_long and not all_have_one)
    if decision.count:
        promised_ms = creation_ms + limit_ms
        after = predicted_wait_ms(snapshot, snapshot.existing + decision.count)
        assert after <= promised_ms + 0.002


@SOME
@given(
    st.floats(0.1, 5_000),
    st.floats(0.1, 100),
    st.floats(0, 3),
    st.integers(1, 7),
    st.floats(0, 500),
)
@example(37.5, 20.0, 1.0, 1, 50.0)
def test_steady_term_is_the_fewest_by_erlang(
    per_s: float, run_ms: float, variation: float, concurrency: int, target_ms: float
) -> None:
    """D3."""
    assume(per_s * run_ms / 1000 < 150)  # beyond, the model's powers overflow
    spread_ms = variation * run_ms
    found = steady_containers(per_s, run_ms, spread_ms, concurrency, target_ms)
    p99_ms = steady_p99_ms(per_s, run_ms, spread_ms, found * concurrency)
    assert p99_ms <= target_ms * (1 + 1e-6) + 1e-6
    if found > 1:
        fewer_ms = steady_p99_ms(per_s, run_ms, spread_ms, (found - 1) * concurrency)
        assert fewer_ms > target_ms * (1 - 1e-6) - 1e-6
        assert fewer_ms > 0.0 or found * concurrency > per_s * run_ms / 1000 + 10


@SOME
@given(
    st.floats(1, 1e9),
    st.floats(1, 1.5),
    st.floats(0.01, 1e4),
    st.integers(1, 100),
    st.floats(0, 1e3),
)
def test_steady_term_grows_with_the_load(
    per_s: float, factor: float, run_ms: float, concurrency: int, target_ms: float
) -> None:
    """D3."""
    sizes = [
        steady_containers(rate, run_ms, run_ms, concurrency, target_ms, 10**9)
        for rate in (per_s, per_s * factor)
    ]
    assert sizes[0] <= sizes[1]
    assert sizes[0] == 10**9 or sizes[0] * concurrency > per_s * run_ms / 1000 * (1 - 1e-9)


# --- ours: invariants ------------------------------------------------------------------------


# Short runs, and yet the first has waited for long.
OVERDUE: dict[str, Any] = {
    "state": QueueState.RUNNING,
    "initialized": True,
    "incoming": 0,
    "waiting": 3,
    "existing": 4,
    "in_progress": 0,
    "stale": 0,
    "namespace_existing": 4,
    "namespace_in_progress": 0,
    "average_duration_ms": 100.0,
    "concurrency": 1,
    "running": 4,
    "oldest_wait_ms": 1e6,
    **SPACIOUS,
}


@MANY
@example(OVERDUE, 1)
@given(fields(), st.integers(0, 40))
def test_demand_is_monotone_in_backlog(given: dict[str, Any], more: int) -> None:
    """D4."""
    fewer, greater = decide(given), decide(given | {"waiting": given["waiting"] + more})
    assert fewer.wanted <= greater.wanted
    assert fewer.count <= greater.count
    assert fewer.steady_short <= greater.steady_short


@MANY
@given(fields())
def test_additions_keep_to_every_cap(given: dict[str, Any]) -> None:
    """D5."""
    decision = decide(given)
    count = decision.count
    assert count >= 0
    if count == 0:
        return
    total = given["existing"] + given["in_progress"] + count
    work = given["waiting"] + given["incoming"] + given["running"]
    assert total <= math.ceil(work / given["concurrency"])
    assert total <= given["action_limit"]
    others = given["contending_queues"] if total > count else 0
    held = given["namespace_existing"] + given["namespace_in_progress"]
    assert held + count + others <= given["namespace_limit"]
    assert decision.verdict in (Verdict.ADD, Verdict.ADD_INITIAL, Verdict.UNTHROTTLE_NAMESPACE)
    assert given["state"] not in (QueueState.UNINITIALIZED, QueueState.REMOVED)
    if given["state"] is QueueState.FLUSHING:
        assert (count, given["in_progress"]) == (1, 0)


@MANY
@given(fields(state=QueueState.NAMESPACE_THROTTLED))
def test_throttle_is_on_exactly_as_long_as_its_cause(given: dict[str, Any]) -> None:
    """D6."""
    assume(min(given["namespace_limit"], given["action_limit"]) > 0)
    held = given["namespace_existing"] + given["namespace_in_progress"]
    total = given["existing"] + given["in_progress"]
    free = given["namespace_limit"] - held - (given["contending_queues"] if total else 0)
    cause = free <= 0 and backlog_containers(Snapshot(**given)) > 0
    assert decide(given).verdict is (
        Verdict.THROTTLE_NAMESPACE if cause else Verdict.UNTHROTTLE_NAMESPACE
    )
    from_running = decide(given | {"state": QueueState.RUNNING}).verdict
    assert (from_running is Verdict.THROTTLE_NAMESPACE) == cause
    assert from_running is not Verdict.UNTHROTTLE_NAMESPACE


@SOME
@given(fields(existing=0, paused=0, running=0, in_progress=0), ACTIVE)
def test_first_container_is_asked_for_at_once(given: dict[str, Any], state: QueueState) -> None:
    """D5."""
    held = given["namespace_existing"] + given["namespace_in_progress"]
    assume(given["waiting"] + given["incoming"] > 0)
    assume(held < given["namespace_limit"] and given["action_limit"] > 0)
    assert decide(given | {"state": state}).count >= 1


@MANY
@given(fields())
def test_decisions_are_pure(given: dict[str, Any]) -> None:
    """D7."""
    for rule in (RuntimeFitRule(), OpenWhiskRule()):
        snapshot = Snapshot(**given)
        first = contents(rule.decide(snapshot))
        assert contents(rule.decide(snapshot)) == first
        assert contents(type(rule)().decide(Snapshot(**given))) == first
        for name, value in given.items():
            assert getattr(snapshot, name) == value


extreme = st.sampled_from([0, 1, COUNT_MAX])
extreme_ms = st.sampled_from([0.0, 1e-9, 1.0, MS_MAX])


@SOME
@given(st.data())
def test_the_bounds_of_every_field_are_survived(data: st.DataObject) -> None:
    """D7."""
    given: dict[str, Any] = {
        name: data.draw(extreme, name)
        for name in (
            "incoming",
            "waiting",
            "existing",
            "in_progress",
            "stale",
            "namespace_existing",
            "namespace_in_progress",
            "running",
            "contending_queues",
        )
    }
    given |= {
        name: data.draw(extreme_ms, name)
        for name in (
            "average_duration_ms",
            "arrivals_per_s",
            "creation_ms",
            "wait_target_ms",
            "oldest_run_ms",
            "duration_spread_ms",
            "steady_short_ms",
            "oldest_wait_ms",
            "typical_run_ms",
        )
    }
    limit = data.draw(st.sampled_from([-COUNT_MAX, 1, COUNT_MAX]), "limit")
    concurrency = data.draw(st.sampled_from([1, COUNT_MAX]), "concurrency")
    state = data.draw(STATES, "state")
    snapshot = Snapshot(
        **given,
        state=state,
        initialized=True,
        paused=data.draw(st.sampled_from([0, given["existing"]]), "paused"),
        namespace_limit=limit,
        action_limit=limit,
        concurrency=concurrency,
    )
    for rule in (RuntimeFitRule(), OpenWhiskRule()):
        assert 0 <= rule.decide(snapshot).count <= COUNT_MAX
    assert predicted_wait_ms(snapshot, snapshot.existing) >= 0.0


@given(fields())
def test_resumptions_are_the_fewest_that_start_all_in_time(given: dict[str, Any]) -> None:
    """D9: one by one, until what waits starts within U of when they are awake."""
    snapshot = Snapshot(**given)
    awake = Snapshot(**given | {"existing": given["existing"] - given["paused"], "paused": 0})
    creation_ms = CREATION_MS if snapshot.creation_ms is None else snapshot.creation_ms
    resume_ms = min(RESUME_MS, creation_ms)
    starts = starts_within(awake, awake.existing, resume_ms)
    fewest = 0
    while fewest < snapshot.paused and starts < snapshot.waiting + snapshot.incoming:
        fewest += 1
        # What one more starts: as if it had been there, from when it is awake on.
        one = {"waiting": 0, "incoming": 0, "running": 0, "in_progress": 0, "paused": 0}
        more = Snapshot(**given | one | {"existing": 1, "oldest_run_ms": given["oldest_run_ms"]})
        starts += starts_within(more, 1, resume_ms)
    assert resumptions(snapshot) == fewest


# --- ours: closed loops ----------------------------------------------------------------------


@settings(max_examples=max(40, settings().max_examples // 50))  # each is a long simulation
@given(
    st.integers(1, 60),
    st.sampled_from([0.5, 5, 20, 170, 450, 1_100, 6_000]),
    st.sampled_from([50, 300, 900]),
    st.none() | st.sampled_from([5, 100]),
    st.integers(0, 30),
)
def test_constant_load_settles(
    per_s: int, run_ms: float, creation_ms: int, target_ms: float | None, start: int
) -> None:
    """D8."""
    assume(per_s * run_ms / 1000 < 40)
    keep_alive_ms = 10 * max(creation_ms, run_ms)
    loop = Loop(per_s, run_ms, creation_ms, keep_alive_ms, start, target_ms=target_ms)
    settled_ms = 3 * keep_alive_ms
    loop.run(8 * keep_alive_ms)
    assert most_in_a_window(loop.created, keep_alive_ms, settled_ms) <= 1
    assert most_in_a_window(loop.removed, keep_alive_ms, settled_ms) <= 1
    target = max(creation_ms, run_ms / 4) if target_ms is None else target_ms
    assert max(loop.waits) <= creation_ms + max(creation_ms, target) + 0.002


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("per_s", "run_ms", "target_ms"), [(37.5, 20, 50), (200, 20, 5)])
def test_random_arrivals_of_short_runs_settle_too(
    per_s: float, run_ms: float, target_ms: float, seed: int
) -> None:
    """D8."""
    loop = Loop(per_s, run_ms, 100, 10_000, 40, seed, target_ms)
    loop.run(100_000)
    assert most_in_a_window(loop.created, 10_000, 50_000) <= 1
    assert most_in_a_window(loop.removed, 10_000, 50_000) <= 1
    late = sorted(loop.waits[len(loop.waits) // 2 :])
    assert late[int(len(late) * 0.99)] <= 2 * target_ms
