"""What a simulation measured: counts, percentiles, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

_STEPS = 64
"""Buckets between a power of two and the next: values are known to 1.6 %."""


class Histogram:
    """How often which number of microseconds came, in buckets that grow with it.

    Exact below 64.  Memory: O(log of the largest).  Cost of ``add``: O(1).
    """

    def __init__(self) -> None:
        self._counts: list[int] = []
        self.count = 0
        self.total = 0
        self.largest = 0

    def add(self, value: int) -> None:
        """Count a value of 0 or more."""
        index = value
        if value >= _STEPS:
            shift = 0
            rest = value
            while rest >= 2 * _STEPS:
                rest >>= 1
                shift += 1
            index = shift * _STEPS + rest
        while index >= len(self._counts):
            self._counts.append(0)
        self._counts[index] += 1
        self.count += 1
        self.total += value
        if value > self.largest:
            self.largest = value

    def quantile(self, share: float) -> int:
        """Return the smallest value, to a bucket's upper end, that so many are not above.

        0 when there is none.  Cost: O(buckets).
        """
        wanted = share * self.count
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                shift = max(0, index // _STEPS - 1)
                base = (index - shift * _STEPS) << shift
                return min(base + (1 << shift) - 1, self.largest)
        return 0

    def mean(self) -> float:
        """Return the mean, exact, 0.0 when there is none."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a time, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def percentiles(histogram: Histogram) -> Percentiles:
    """Return what is usually asked of a histogram of microseconds."""
    quantiles = [histogram.quantile(share) / 1000 for share in (0.5, 0.9, 0.99, 0.999, 1.0)]
    return Percentiles(histogram.mean() / 1000, *quantiles)


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What came of a simulation; counts and times are of what arrived after the warm-up.

    ``tps`` are the runs answered in the span, whenever they had arrived.

    ``wait`` is from the arrival to the start of the run (of the action's /run), ``latency`` to the
    answer; both of what has run.  ``unknown`` were delivered and never heard of again.
    ``open`` had not ended when the time was over.  ``container_s`` and ``memory_mb_s`` are of all
    sandboxes from the engine's first work on them to their confirmed removal, warm-up included.
    """

    span_s: float
    arrived: int
    ended: int
    errors: int
    rejected: int
    unknown: int
    open: int
    cold: int
    tps: float
    wait: Percentiles
    latency: Percentiles
    created: int
    removed: int
    container_s: float
    memory_mb_s: float
    engine_busy_share: float
    started_twice: int
    events: int
