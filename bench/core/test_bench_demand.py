"""One decision, and the snapshot that it is made from."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from acs_core.demand import DemandRule, OpenWhiskRule, RuntimeFitRule, Snapshot, Verdict
from acs_core.queue_states import QueueState


def snapshot(waiting: int, existing: int, run_ms: float, arrivals_per_s: float) -> Snapshot:
    return Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        incoming=0,
        waiting=waiting,
        existing=existing,
        in_progress=0,
        stale=waiting,
        namespace_existing=existing,
        namespace_in_progress=0,
        average_duration_ms=run_ms,
        namespace_limit=1_000,
        action_limit=1_000,
        concurrency=1,
        arrivals_per_s=arrivals_per_s,
        creation_ms=300.0,
        running=existing,
    )


CASES = {
    "idle": ((0, 1, 20.0, 0.0), Verdict.SKIP, Verdict.SKIP),
    "enough": ((1, 1, 20.0, 10.0), Verdict.SKIP, Verdict.ADD),
    "backlog": ((500, 10, 100.0, 100.0), Verdict.ADD, Verdict.ADD),
    "900 slots, near saturation": ((1, 900, 100.0, 8_900.0), Verdict.SKIP, Verdict.ADD),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", [RuntimeFitRule(), OpenWhiskRule()], ids=["ours", "openwhisk"])
def test_decide(benchmark: BenchmarkFixture, rule: DemandRule, case: str) -> None:
    benchmark.group = f"decide, {case}"
    numbers, ours, original = CASES[case]
    decision = benchmark(rule.decide, snapshot(*numbers))
    assert decision.verdict is (ours if isinstance(rule, RuntimeFitRule) else original)


def test_snapshot(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "snapshot"
    assert benchmark(snapshot, 1, 2, 3.0, 4.0).existing == 2
