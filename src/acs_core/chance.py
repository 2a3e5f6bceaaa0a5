"""Chance for simulations: numbers that look random and follow from a seed alone.

Integer arithmetic of 64 bits, so every build and machine draws the same.  Not for secrets.

Source: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

import math

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_UNIT = 2.0**-53


class Chance:
    """A stream of draws.  Cost: O(1) each.

    Args:
      seed: Any integer; its low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def draw(self) -> int:
        """Return an integer, each in 0..2**63 - 1 as likely."""
        self._state = (self._state + _GOLDEN) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * _MIX_1) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * _MIX_2) & _MASK
        return (mixed ^ (mixed >> 31)) >> 1

    def below(self, count: int) -> int:
        """Return an integer in 0..count - 1; ``count`` is far below 2**63."""
        return self.draw() % count

    def unit(self) -> float:
        """Return a number in 0..1, below 1."""
        return (self.draw() >> 10) * _UNIT

    def exponential(self, mean: float) -> float:
        """Return a number of the exponential distribution."""
        return -mean * math.log(1.0 - self.unit())

    def normal(self) -> float:
        """Return a number of the standard normal distribution."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return radius * math.cos(2.0 * math.pi * self.unit())

    def lognormal(self, median: float, sigma: float) -> float:
        """Return a number whose logarithm is normal; ``sigma`` 0: the median, without a draw."""
        if sigma == 0.0:
            return median
        return median * math.exp(sigma * self.normal())
