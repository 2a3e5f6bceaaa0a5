"""Proof that a shadow rule influences nothing: the same world with it and without it (X1)."""

from __future__ import annotations

from typing import Any

import pytest
from harness import SchedulerPair, Times, describe
from hypothesis import example, given
from hypothesis import strategies as st

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import (
    Decision,
    DemandRule,
    OpenWhiskRule,
    RuntimeFitRule,
    Snapshot,
    Verdict,
)
from acs_core.scheduler import SchedulerConfig
from acs_core.shadow import ShadowTally


class Broken:
    """A rule that is not ready."""

    def decide(self, snapshot: Snapshot) -> Decision:
        raise ArithmeticError("not ready")


def run(
    rule: DemandRule, shadow: DemandRule | None, arrivals: list[tuple[int, int]]
) -> tuple[list[str], list[str], str | None]:
    """Return what was asked for, what the shadow said, and its tally."""
    config = SchedulerConfig(name="c", rule=rule, shadow=shadow, report_decisions=True)
    pair = SchedulerPair({"i": 400}, config=config, times=Times(run_us=120_000))
    effects, said = [], []

    def saw(event: ev.Event, now_us: int, out: list[object]) -> None:
        for effect in out:
            if isinstance(effect, fx.Differed):
                said.append(describe(effect))
            elif isinstance(effect, fx.Decided):
                decision: Decision = effect.decision  # type: ignore[assignment]
                effects.append(f"{now_us} {decision!r} {decision.snapshot.stale}")
            else:
                effects.append(f"{now_us} {describe(effect)}")

    pair.watch = saw
    pair.open(ev.QueueSpec("q", "n", "q", 1, memory_mb=100))
    for number, (count, pause_us) in enumerate(arrivals):
        for index in range(count):
            pair.arrive("q", f"{number}-{index}")
        pair.advance(pause_us)
    return effects, said, pair.scheduler.explain("q")["shadow"]  # type: ignore[return-value]


class Says:
    """A rule that says what it is told to, and fails where that is nothing."""

    def __init__(self, decision: Decision | None) -> None:
        self.decision = decision

    def decide(self, snapshot: Snapshot) -> Decision:
        if self.decision is None:
            raise ArithmeticError("not ready")
        return self.decision


said = st.tuples(st.sampled_from([Verdict.SKIP, Verdict.ADD]), st.integers(0, 3), st.booleans())


@given(st.lists(st.tuples(said, said | st.none()), max_size=12))
def test_a_tally_counts_every_difference(
    course: list[tuple[tuple[Verdict, int, bool], tuple[Verdict, int, bool] | None]],
) -> None:
    snapshot: Any = None
    tally = ShadowTally()
    for ours, others in course:
        decision, other = (
            None if words is None else Decision(words[0], words[1], snapshot, "", "", drop=words[2])
            for words in (ours, others)
        )
        assert decision is not None
        found = tally.ask(Says(other), snapshot, decision)
        assert found is (None if ours == others else other)
    both = [(ours, others) for ours, others in course if others is not None]
    extra = [others[1] - ours[1] for ours, others in both]
    assert (tally.decisions, tally.failed) == (len(course), len(course) - len(both))
    assert tally.differed == sum([ours != others for ours, others in both])
    assert (tally.more, tally.fewer) == (
        sum([count for count in extra if count > 0]),
        -sum([count for count in extra if count < 0]),
    )
    failed = f"; it failed {tally.failed} times (ArithmeticError: not ready)"
    assert tally.words() == (
        f"the shadow rule differed in {tally.differed} of {len(course)} decisions: it would have"
        f" added {tally.more} more and {tally.fewer} fewer" + failed * (tally.failed > 0)
    )


RULES: list[DemandRule] = [RuntimeFitRule(), OpenWhiskRule(), OpenWhiskRule(stale_ms=30)]
loads = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from([0, 50_000, 300_000])), min_size=1, max_size=8
)


@given(st.sampled_from(RULES), st.sampled_from([*RULES, Broken()]), loads)
@example(RULES[0], RULES[1], [(20, 300_000)] * 4)
def test_a_shadow_changes_nothing(
    rule: DemandRule, shadow: DemandRule, arrivals: list[tuple[int, int]]
) -> None:
    """X1."""
    alone, nobody, nothing = run(rule, None, arrivals)
    beside, _, tally = run(rule, shadow, arrivals)
    assert beside == alone
    assert (nobody, nothing) == ([], None)
    assert (tally is None) == (not any("Decision(" in line for line in alone))


def test_a_shadow_says_where_it_differs_and_how_much() -> None:
    _, said, tally = run(RuntimeFitRule(), OpenWhiskRule(), [(20, 300_000)] * 4)
    assert said
    assert str(tally).startswith(f"the shadow rule differed in {len(said)} of ")
    assert run(RuntimeFitRule(), RuntimeFitRule(), [(20, 300_000)] * 4)[1] == []


@pytest.mark.parametrize("rule", RULES)
def test_a_shadow_that_fails_is_counted(rule: DemandRule) -> None:
    _, said, tally = run(rule, Broken(), [(3, 300_000)])
    assert not said
    assert str(tally).endswith("times (ArithmeticError: not ready)")
