"""What a shadow rule would have done is counted, and what it breaks breaks nothing."""

from __future__ import annotations

from demand_cases import snapshot

from acs_core.demand import Decision, RuntimeFitRule, Snapshot, Verdict
from acs_core.shadow import ShadowTally


class Says:
    """A rule that says what it was told to."""

    def __init__(self, verdict: Verdict, count: int = 0) -> None:
        self.decision = Decision(verdict, count, waits(), "", "")

    def decide(self, snapshot: Snapshot) -> Decision:
        return self.decision


class Broken:
    """A rule that is not ready."""

    def decide(self, snapshot: Snapshot) -> Decision:
        raise ArithmeticError("not ready")


def waits() -> Snapshot:
    """Return a queue with work and no container yet."""
    return snapshot(waiting=3, existing=0, running=0, average_duration_ms=None)


def test_more_and_fewer_are_counted_apart_and_the_same_is_no_difference() -> None:
    tally = ShadowTally()
    seen = waits()
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
    assert tally.ask(Broken(), waits(), RuntimeFitRule().decide(waits())) is None
    assert tally.words().endswith("; it failed 1 times (ArithmeticError: not ready)")
