"""What a shadow rule would have done is counted, and what it breaks breaks nothing."""

from __future__ import annotations

from acs_core.demand import Decision, RuntimeFitRule, Snapshot, Verdict
from acs_core.queue_states import QueueState
from acs_core.shadow import ShadowTally


class Says:
    """A rule that says what it was told to."""

    def __init__(self, verdict: Verdict, count: int = 0) -> None:
        self.decision = Decision(verdict, count, snapshot(), "", "")

    def decide(self, snapshot: Snapshot) -> Decision:
        return self.decision


class Broken:
    """A rule that is not ready."""

    def decide(self, snapshot: Snapshot) -> Decision:
        raise ArithmeticError("not ready")


def snapshot() -> Snapshot:
    return Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        incoming=0,
        waiting=3,
        existing=0,
        in_progress=0,
        stale=0,
        namespace_existing=0,
        namespace_in_progress=0,
        average_duration_ms=None,
        namespace_limit=10,
        action_limit=10,
        concurrency=1,
    )


def test_more_and_fewer_are_counted_apart_and_the_same_is_no_difference() -> None:
    tally = ShadowTally()
    seen = snapshot()
    ours = Says(Verdict.ADD, 2).decision
    assert tally.ask(Says(Verdict.ADD, 2), seen, ours) is None
    more = tally.ask(Says(Verdict.ADD, 5), seen, ours)
    assert more is not None
    assert more.count == 5
    assert tally.ask(Says(Verdict.SKIP), seen, ours) is not None
    assert tally.words() == (
        "the shadow rule differed in 2 of 3 decisions: it would have added 3 more and 2 fewer"
    )


def test_a_rule_that_fails_is_told_of_and_changes_nothing() -> None:
    tally = ShadowTally()
    assert tally.ask(Broken(), snapshot(), RuntimeFitRule().decide(snapshot())) is None
    assert tally.words().endswith("; it failed 1 times (ArithmeticError: not ready)")
