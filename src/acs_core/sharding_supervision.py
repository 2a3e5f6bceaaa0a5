"""The baseline's view of which invokers are well: pings, and what became of activations.

One ``Supervision`` per controller.  It leaves out how pings travel and what a test activation
runs; the caller sends one for every ``True`` that it gets.

Source: OpenWhisk's invoker supervision, with its quirk that an invoker that goes from
UNRESPONSIVE to UNHEALTHY is not tested again every minute.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from .events import _check_range
from .limits import (
    HEALTH_RESULTS_MAX,
    HEALTH_SILENCE_US,
    HEALTH_TEST_INTERVAL_US,
    HEALTH_TOLERANCE,
    TIME_MAX_US,
)
from .sharding import SHARDED_MEMORY_MAX_MB, InvokerStatus, ShardedInvoker

_UP: Final = InvokerStatus.UP
_DOWN: Final = InvokerStatus.DOWN

INVOKERS_MAX = 100_000
"""Largest number of an invoker, plus 1: the list has a place for each below it."""


class InvocationResult(Enum):
    """What an activation tells of the invoker that it was sent to."""

    SUCCESS = "Success"
    SYSTEM_ERROR = "SystemError"
    TIMEOUT = "Timeout"


_SUCCESS: Final = InvocationResult.SUCCESS


class SupervisedInvoker:
    """The health of one invoker, and when to test it; begins UNHEALTHY at its first ping."""

    def __init__(self, now_us: int) -> None:
        self.status = InvokerStatus.UNHEALTHY
        self._results: deque[InvocationResult] = deque(maxlen=HEALTH_RESULTS_MAX)
        self._heard_us = now_us
        # When the next test is due; -1: no timer runs.
        self.test_due_us = now_us + HEALTH_TEST_INTERVAL_US

    def pinged(self, enabled: bool, now_us: int) -> bool:
        """Take in a ping; return whether to send a test activation."""
        self._heard_us = now_us
        if not enabled:
            return self._go(InvokerStatus.DOWN, now_us)
        if self.status == InvokerStatus.DOWN:
            return self._go(InvokerStatus.UNHEALTHY, now_us)
        return False

    def completed(self, result: InvocationResult, now_us: int) -> int:
        """Take in what became of an activation; return how many test activations to send."""
        self._heard_us = now_us
        results = self._results
        results.append(result)
        success = result is _SUCCESS
        if self.status is _DOWN or (success and self.status is _UP):
            return 0
        tests = int(success and self.status == InvokerStatus.UNHEALTHY)
        if results.count(InvocationResult.SYSTEM_ERROR) > HEALTH_TOLERANCE:
            status = InvokerStatus.UNHEALTHY
        elif results.count(InvocationResult.TIMEOUT) > HEALTH_TOLERANCE:
            status = InvokerStatus.UNRESPONSIVE
        elif success:
            status = InvokerStatus.UP
        elif len(results) > HEALTH_TOLERANCE:
            status = self.status
        elif result is InvocationResult.SYSTEM_ERROR:
            status = InvokerStatus.UNHEALTHY
        else:
            status = InvokerStatus.UNRESPONSIVE
        return tests + self._go(status, now_us)

    def next_deadline_us(self) -> int:
        """Return when ``time_reached`` is wanted next, TIME_MAX_US when nothing is due."""
        due_us = TIME_MAX_US if self.test_due_us < 0 else self.test_due_us
        if self.status != InvokerStatus.DOWN:
            due_us = min(due_us, self._heard_us + HEALTH_SILENCE_US)
        return due_us

    def time_reached(self, now_us: int) -> bool:
        """Let time pass; return whether to send a test activation."""
        if self.status != InvokerStatus.DOWN and now_us >= self._heard_us + HEALTH_SILENCE_US:
            return self._go(InvokerStatus.DOWN, now_us)
        if 0 <= self.test_due_us <= now_us:
            self.test_due_us = now_us + HEALTH_TEST_INTERVAL_US
            return True
        return False

    def _go(self, status: InvokerStatus, now_us: int) -> bool:
        """Change the status; return whether that asks for a test activation."""
        was = self.status
        if status == was:
            return False
        self.status = status
        tested = (InvokerStatus.UNHEALTHY, InvokerStatus.UNRESPONSIVE)
        self.test_due_us = now_us + HEALTH_TEST_INTERVAL_US if status in tested else -1
        if was in tested:
            self.test_due_us = -1  # the quirk: what entering has started, leaving stops
        return status in tested


class Supervision:
    """All invokers that one controller has heard of, by number."""

    def __init__(self) -> None:
        self._supervised: dict[int, SupervisedInvoker] = {}
        self.invokers: list[ShardedInvoker] = []
        """The list for ``Shards.update_invokers``; who never pinged is DOWN in it."""
        self.changes = 0
        """How often the list has changed."""

    def register(self, invoker: int, memory_mb: int) -> None:
        """Have a place in the list for the invoker and for each before it; new ones are DOWN.

        Raises: ValueError that names the field, the value and the limit; nothing changed.
        """
        _check_range("invoker", invoker, 0, INVOKERS_MAX - 1)
        _check_range("memory_mb", memory_mb, 0, SHARDED_MEMORY_MAX_MB)
        for number in range(len(self.invokers), invoker + 1):
            self.invokers.append(ShardedInvoker(number, InvokerStatus.DOWN, memory_mb))
            self.changes += 1

    def pinged(self, invoker: int, memory_mb: int, now_us: int, *, enabled: bool = True) -> int:
        """Take in a ping; return how many test activations to send to that invoker.

        Raises: as ``register``.
        """
        self.register(invoker, memory_mb)
        supervised = self._supervised.get(invoker)
        tests = 0
        if supervised is None:
            supervised = self._supervised[invoker] = SupervisedInvoker(now_us)
            tests = 1
        tests += supervised.pinged(enabled, now_us)
        self._note(invoker, supervised, memory_mb)
        return tests

    def completed(self, invoker: int, result: InvocationResult, now_us: int) -> int:
        """Take in what became of an activation; return how many test activations to send."""
        supervised = self._supervised.get(invoker)
        if supervised is None:
            return 0
        was = supervised.status
        tests = supervised.completed(result, now_us)
        if supervised.status is not was:
            self._note(invoker, supervised, self.invokers[invoker].memory_mb)
        return tests

    def next_deadline_us(self) -> int | None:
        """Return when ``time_reached`` is wanted next; None when never.  Cost: O(invokers)."""
        due_us = min([s.next_deadline_us() for s in self._supervised.values()], default=TIME_MAX_US)
        return None if due_us == TIME_MAX_US else due_us

    def time_reached(self, now_us: int) -> list[int]:
        """Let time pass; return the invokers to send a test activation to.  Cost: O(invokers)."""
        tests = []
        for invoker, supervised in self._supervised.items():
            if supervised.time_reached(now_us):
                tests.append(invoker)
            self._note(invoker, supervised, self.invokers[invoker].memory_mb)
        return tests

    def _note(self, invoker: int, supervised: SupervisedInvoker, memory_mb: int) -> None:
        known = self.invokers[invoker]
        if known.status != supervised.status or known.memory_mb != memory_mb:
            self.invokers[invoker] = ShardedInvoker(invoker, supervised.status, memory_mb)
            self.changes += 1
