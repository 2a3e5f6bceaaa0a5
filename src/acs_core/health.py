"""Whether an invoker should get new containers, by what became of creations, runs and tests.

An invoker supervises itself: it knows best what its engine does.  It begins unproven, and a test
activation decides; when it is unwell, tests bring it back.  This leaves out what a test runs, and
who is told.  The states and thresholds are OpenWhisk's, and the words are shared with the
baseline (``sharding_supervision``).  Bettered here:

- creations and runs are counted apart, or a thousand runs in warm containers would hide an engine
  that starts nothing more;
- a bad result alone never makes an invoker well, as the first one does there;
- tests that fail come ever more seldom, and never end.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from .limits import (
    HEALTH_RESULTS_MAX,
    HEALTH_TEST_INTERVAL_US,
    HEALTH_TEST_RETRY_US,
    HEALTH_TOLERANCE,
    TIME_MAX_US,
)
from .sharding import InvokerStatus
from .sharding_supervision import InvocationResult


class Trial(Enum):
    """What was tried on the invoker."""

    CREATION = "creation"
    RUN = "run"


class InvokerHealth:
    """One invoker: UP, UNHEALTHY (the system fails) or UNRESPONSIVE (it does not answer in time).

    ``test_due_us`` is when a test is wanted, TIME_MAX_US when none is; who begins one says so, and
    how it ended.

    Invariants: H1 to H3 (docs/invariants.md).
    """

    def __init__(self, now_us: int) -> None:
        self.status = InvokerStatus.UNHEALTHY
        self.test_due_us = now_us
        self._results: dict[Trial, deque[InvocationResult]] = {
            trial: deque(maxlen=HEALTH_RESULTS_MAX) for trial in Trial
        }
        self._bad = 0  # of all that are kept
        self._is_testing = False
        self._failures = 0  # of tests, one after the other

    def completed(self, trial: Trial, result: InvocationResult, now_us: int) -> bool:
        """Take in what became of a creation or a run; return whether the status has changed.

        Cost: O(1) while all is well.
        """
        success = result is InvocationResult.SUCCESS
        if success and self._bad == 0 and self.status == InvokerStatus.UP:
            return False  # it would change no count that can matter
        self._add(trial, result)
        return self._judge(success, now_us)

    def test_begun(self) -> None:
        """Ask for no other test until this one has ended."""
        self._is_testing = True
        self.test_due_us = TIME_MAX_US

    def test_ended(self, result: InvocationResult, now_us: int) -> bool:
        """Take in what became of a test, which created and ran; return as ``completed``."""
        self._is_testing = False
        success = result is InvocationResult.SUCCESS
        for trial in Trial:
            self._add(trial, result)
        changed = self._judge(success, now_us)
        self._failures = 0 if success else self._failures + 1
        if self.status == InvokerStatus.UP:
            self.test_due_us = TIME_MAX_US
        else:
            self.test_due_us = now_us + self._pause_us()
        return changed

    def _pause_us(self) -> int:
        if self._failures == 0:
            return 0  # it is on its way back
        return min(HEALTH_TEST_RETRY_US << min(self._failures - 1, 30), HEALTH_TEST_INTERVAL_US)

    def _add(self, trial: Trial, result: InvocationResult) -> None:
        results = self._results[trial]
        if len(results) == HEALTH_RESULTS_MAX:
            self._bad -= results[0] is not InvocationResult.SUCCESS
        results.append(result)
        self._bad += result is not InvocationResult.SUCCESS

    def _judge(self, success: bool, now_us: int) -> bool:
        was = self.status
        if self._exceeds(InvocationResult.SYSTEM_ERROR):
            self.status = InvokerStatus.UNHEALTHY
        elif self._exceeds(InvocationResult.TIMEOUT):
            self.status = InvokerStatus.UNRESPONSIVE
        elif success:
            self.status = InvokerStatus.UP
        if self.status == InvokerStatus.UP:
            self.test_due_us = TIME_MAX_US
        elif was == InvokerStatus.UP and not self._is_testing:
            self._failures = 0
            self.test_due_us = now_us
        return self.status != was

    def _exceeds(self, bad: InvocationResult) -> bool:
        counts = [results.count(bad) for results in self._results.values()]
        return max(counts) > HEALTH_TOLERANCE
