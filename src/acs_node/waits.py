"""A histogram of waits: what the scheduler adds to an activation.

Each power of two has four buckets of one width, so a percentile is at most 25 % too high.
"""

from __future__ import annotations

BUCKETS = 4 * 32


class WaitHistogram:
    """Counts durations in microseconds; adding costs well under a microsecond."""

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def add(self, wait_us: int) -> None:
        """Count a wait."""
        self.counts[_bucket(wait_us)] += 1

    def percentile_us(self, percent: float) -> int | None:
        """Return the upper bound of the bucket that holds the percentile; None without counts."""
        left = percent / 100 * sum(self.counts)
        for index, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return _upper_us(index)
        return None

    def clear(self) -> None:
        """Forget everything counted so far."""
        self.counts = [0] * BUCKETS


def _bucket(wait_us: int) -> int:
    if wait_us < 4:
        return max(wait_us, 0)
    # The highest bit and the two after it.
    exponent = wait_us.bit_length() - 1
    return min(4 * (exponent - 1) + ((wait_us >> (exponent - 2)) & 3), BUCKETS - 1)


def _upper_us(index: int) -> int:
    if index < 4:
        return index
    exponent = index // 4 + 1
    return ((5 + index % 4) << (exponent - 2)) - 1
