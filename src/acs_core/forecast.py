# cython: nonecheck=True
# (None in place of a snapshot is an AttributeError on both builds, not a crash.)
"""Who would wait too long whatever is done: the throttle by predicted wait.

A ``Forecast`` takes the formula of ``demand`` with every container that the queue may ever get:
up to its caps and the memory of all invokers, as if nobody else wanted any, and all of them
created at once, which errs on the side of taking work in.  What is in the making is taken to
need a whole creation still, which errs by that much on the other side.  Until a run has ended
it predicts nothing.  Whom it turns away is ``scheduler``'s business; when it is made anew, too.
"""

from __future__ import annotations

from .demand import starts_within, wait_behind_ms
from .limits import COUNT_MAX, TIME_MAX_US
from .snapshot import Snapshot

_COUNT_MAX = COUNT_MAX


class Forecast:
    """What a queue can start in time, as seen at ``at_us``; never changed.

    An arrival behind ``startable`` or more would not start within ``within_us``.  It is at least
    1: one may always wait, so that a measurement that was wrong is made again.

    Args:
      snapshot: The queue; its ``waiting`` does not count.
      memory_places: Containers that fit in the memory of all invokers.
      within_us: The wait bound, in microseconds, > 0.
      at_us: When the snapshot was taken.
    Cost: O(1).  Invariants: W1, W2 (docs/invariants.md).
    """

    def __init__(self, snapshot: Snapshot, memory_places: int, within_us: int, at_us: int) -> None:
        self.snapshot = snapshot
        self.memory_places = memory_places
        self.at_us = at_us
        self.within_us = within_us
        there = snapshot.existing + snapshot.in_progress
        # What is there counts, also where a limit was lowered since.
        self.containers = max(there, min(snapshot.action_limit, memory_places))
        self.startable = self.startable_within(within_us)

    def startable_within(self, within_us: int) -> int:
        """Return behind how many an arrival would not start in so long, COUNT_MAX: unknown."""
        if self.snapshot.average_duration_ms is None or self.containers == 0:
            return _COUNT_MAX
        starts = starts_within(self.snapshot, self.containers, within_us / 1000)
        return max(1, int(min(starts, float(_COUNT_MAX))))

    def wait_us(self, ahead: int) -> int:
        """Return the predicted wait of an arrival behind so many; -1 when it is unknown.

        Cost: O(log of the wait).
        """
        if self.snapshot.average_duration_ms is None or self.containers == 0:
            return -1
        wait_ms = wait_behind_ms(self.snapshot, self.containers, ahead + 1)
        return min(int(wait_ms * 1000) + 1, TIME_MAX_US)

    def limit(self) -> str:
        """Return what binds the containers, in words."""
        s = self.snapshot
        if self.containers > min(s.action_limit, self.memory_places):
            return "those there are; the limits are lower"
        if self.memory_places < s.action_limit:
            return f"the memory of all invokers holds {self.memory_places}"
        if s.action_limit < s.namespace_limit:
            return f"the action's limit is {s.action_limit}"
        return f"the namespace's limit is {s.namespace_limit}"

    def refusal(self, waiting: int, within_us: int) -> str:
        """Return why an arrival behind ``waiting`` is turned away, and when that ends."""
        startable = self.startable_within(within_us)
        run_ms = self.snapshot.average_duration_ms
        return (
            f"{waiting} activations of this action wait (allowed: {startable}, as a new one must"
            f" start within {within_us // 1000} ms and would wait"
            f" {self.wait_us(waiting) // 1000} ms: {self.containers} containers, {self.limit()},"
            f" {_plain(run_ms)} ms a run); taken in again when fewer than {startable} wait"
        )


def _plain(number: float | None) -> str:
    """Return a number for people: four digits, and never an exponent where it is large."""
    assert number is not None  # a forecast without it refuses nobody
    return f"{number:.4g}" if number < 1_000 else f"{number:.0f}"
