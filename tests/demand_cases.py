"""Snapshots and decisions for tests of the demand rules: what a case does not name is usual."""

from __future__ import annotations

from typing import Any

from acs_core.demand import MS_MAX, Decision, OpenWhiskRule, RuntimeFitRule, Snapshot, Verdict
from acs_core.queue_states import QueueState

NUMBERS = {
    "arrivals_per_s": 0.0,
    "oldest_run_ms": 0.0,
    "steady_short_ms": 0.0,
    "oldest_wait_ms": 0.0,
    "typical_run_ms": 0.0,
    "creation_ms": 0.0,
    "wait_target_ms": 0.0,
    "duration_spread_ms": 0.0,
    "average_duration_ms": -MS_MAX,
}
"""The fields of a snapshot that are no counts, each with the least that it may be."""


def snapshot(**changes: Any) -> Snapshot:
    """Return one busy container of many allowed, one waiting; the namespace holds no other."""
    fields: dict[str, Any] = {
        "state": QueueState.RUNNING,
        "initialized": True,
        "incoming": 0,
        "waiting": 1,
        "existing": 1,
        "in_progress": 0,
        "stale": 0,
        "average_duration_ms": 20.0,
        "namespace_limit": 1000,
        "action_limit": 1000,
        "concurrency": 1,
        "creation_ms": 300.0,
        "running": 1,
    }
    fields.update(changes)
    fields.setdefault("namespace_existing", fields["existing"])
    fields.setdefault("namespace_in_progress", fields["in_progress"])
    return Snapshot(**fields)


def fit(**changes: Any) -> Decision:
    return RuntimeFitRule().decide(snapshot(**changes))


def old(rule: OpenWhiskRule | None = None, **changes: Any) -> tuple[Verdict, int, bool]:
    decision = (rule or OpenWhiskRule()).decide(snapshot(**changes))
    assert decision.reason
    assert decision.rejected
    return decision.verdict, decision.count, decision.drop
