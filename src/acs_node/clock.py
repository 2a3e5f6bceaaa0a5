"""The only reader of the clock.

The core gets monotonic microseconds; people and records get wall-clock time.
"""

from __future__ import annotations

import time


def now_us() -> int:
    """Return monotonic time in microseconds; only differences mean anything."""
    return time.monotonic_ns() // 1000


def wall_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def wall_ns() -> int:
    """Return nanoseconds since 1970."""
    return time.time_ns()
