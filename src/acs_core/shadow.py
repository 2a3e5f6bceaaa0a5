"""A second rule that is asked beside the one that decides, and changes nothing.

It sees each snapshot that the active rule saw, so what it would do next time depends on what
the active one did: the counts compare decisions, not two courses of events.
"""

from __future__ import annotations

from .snapshot import Decision, DemandRule, Snapshot


class ShadowTally:
    """How often the shadow of one queue would have decided otherwise."""

    def __init__(self) -> None:
        self.decisions = 0
        self.differed = 0
        self.more = 0
        self.fewer = 0
        self.failed = 0
        self.failure = ""

    def ask(self, rule: DemandRule, snapshot: Snapshot, decision: Decision) -> Decision | None:
        """Ask the shadow; return its decision where verdict, count or drop differ."""
        self.decisions += 1
        try:
            other = rule.decide(snapshot)
            ours = (decision.verdict, decision.count, decision.drop)
            same = (other.verdict, other.count, other.drop) == ours
            extra = other.count - decision.count
        except Exception as error:
            # It is there to be tried out: whatever it raises may not touch the active one.
            self.failed += 1
            self.failure = f"{type(error).__name__}: {error}"
            return None
        if same:
            return None
        self.differed += 1
        self.more += max(0, extra)
        self.fewer += max(0, -extra)
        return other

    def words(self) -> str:
        """Return what was counted, in words."""
        text = (
            f"the shadow rule differed in {self.differed} of {self.decisions} decisions: it would"
            f" have added {self.more} more and {self.fewer} fewer"
        )
        return f"{text}; it failed {self.failed} times ({self.failure})" if self.failed else text
