"""What a queue's work has looked like: arrivals, run times, and whether growth has paid.

Smoothed numbers for ``demand``.  Leaves out what is done with them.
"""

from __future__ import annotations

from math import ldexp, sqrt

from . import limits

_DURATION_SAMPLES = limits.DURATION_SAMPLES


class QueueLoad:
    """The load of one queue since ``now_us``.

    ``mean_us`` and ``variance`` are of run times without init, valid when ``samples`` > 0;
    ``history_us`` is the mean known from earlier, 0 when there is none.  ``typical_us`` is a
    guess at it, of an earlier revision or other actions; 0: there is none, or none is needed.
    """

    def __init__(self, now_us: int, history_us: int = 0) -> None:
        self.mean_us = float(history_us)
        self.variance = 0.0
        self.samples = 1 if history_us > 0 else 0
        self.typical_us = 0
        self.runs_ended = 0
        # Arrivals since rate_since_us, and the smoothed rate before that.
        self.arrivals = 0
        self.rate_since_us = now_us
        self.rate_per_s = 0.0
        # Since when the steady term asks for more, and the runs that had ended by then; the
        # containers and the runs per second at the last growth that it caused.
        self.steady_since_us = -1
        self.steady_ended = 0
        self.growth_containers = 0
        self.growth_rate_per_s = 0.0
        self.growths_in_vain = 0  # one after the other

    def ran(self, run_us: int) -> None:
        """Let a run count that ended as the action meant it.  Cost: O(1)."""
        # About a second of runs: over a fixed few, one hiccup of the machine at 10,000 runs/s
        # would count for a tenth of the mean, and containers would be added for it.
        smoothed = _DURATION_SAMPLES + int(self.rate_per_s)
        self.samples = min(self.samples + 1, smoothed)
        delta = run_us - self.mean_us
        self.mean_us += delta / self.samples
        self.variance += (delta * (run_us - self.mean_us) - self.variance) / self.samples

    def update_rate(self, now_us: int, interval_us: int) -> None:
        """Fold the arrivals since the last look, ``interval_us`` ago or more, into the rate."""
        elapsed_us = now_us - self.rate_since_us
        if elapsed_us < interval_us:
            return
        rate = self.arrivals * 1_000_000 / elapsed_us
        # Half of the old rate for each interval that passed, so that silence is forgotten; linear
        # in between, because a power is not the same on every build.
        halvings = min(elapsed_us // interval_us, 60)
        rest = min(elapsed_us / interval_us - halvings, 1.0)
        weight = ldexp(1.0 - rest / 2.0, -halvings)
        self.rate_per_s = rate + (self.rate_per_s - rate) * weight
        self.arrivals = 0
        self.rate_since_us = now_us

    def spread_us(self) -> float:
        """Return the standard deviation of the run times."""
        return sqrt(self.variance)

    def steady_short_us(self, now_us: int) -> int:
        """Return for how long every decision has said that the steady term asks for more."""
        return max(0, now_us - self.steady_since_us) if self.steady_since_us >= 0 else 0

    def note_steady(self, short: bool, grew: bool, now_us: int) -> None:
        """Note what a decision says of the steady term, and whether it added containers."""
        if not short:
            self.steady_since_us = -1
        elif self.steady_since_us < 0 or grew:
            self.steady_since_us = now_us
        if now_us <= self.steady_since_us:
            self.steady_ended = self.runs_ended

    def judge_growth(self, containers: int, hold_us: int, now_us: int) -> None:
        """Before the steady term is obeyed: did obeying it the last time bring anything?

        Where something else than containers binds, more of them lengthen every run, and longer
        runs ask for more containers.  So growth is measured: runs per second over the time that
        the term has asked, ``hold_us`` at least, against those before the last growth.  After
        growth in vain it is listened to again only after a pause, twice as long each time.
        """
        asked_us = now_us - self.steady_since_us
        if self.steady_since_us < 0 or asked_us < hold_us:
            return
        rate_per_s = (self.runs_ended - self.steady_ended) * 1_000_000 / max(1, asked_us)
        before = self.growth_containers
        if before > 0 and before < containers < before * limits.GROWTH_STEP_MIN:
            return
        if containers > before > 0:
            hoped = (containers / before - 1.0) * limits.GROWTH_GAIN_MIN
            if rate_per_s < self.growth_rate_per_s * (1.0 + hoped):
                self.growth_containers = 0
                pause_us = limits.GROWTH_PAUSE_US << self.growths_in_vain
                self.growths_in_vain = min(self.growths_in_vain + 1, limits.GROWTH_DOUBLINGS_MAX)
                self.steady_since_us = now_us + pause_us
                return
            self.growths_in_vain = 0
        self.growth_containers = containers
        self.growth_rate_per_s = rate_per_s
