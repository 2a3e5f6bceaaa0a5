"""Which scheduler gets a queue, and which queue leaves one that is too hot.  Pure functions.

A scheduler's load is its work per second: the activations that arrived in the last second and those
that it has in hand, which are to be dealt with in the next one.  The number of its queues says
nothing: most of them sleep.

Leaves out how loads are told and how a queue is handed over; the nodes see to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from . import limits


def work_per_s(arrived: int, in_hand: int, span_us: int) -> float:
    """Return the load of ``arrived`` activations in ``span_us`` beside those ``in_hand``."""
    return arrived * 1e6 / max(1, span_us) + in_hand


def choose(queue: str, loads: Mapping[str, float]) -> str:
    """Return which of the schedulers, at least one, is to open the queue.

    Its first two by rendezvous hashing are looked at, and the second gets it where the first has
    clearly more to do.  So everybody names the same one while loads are alike, only the queues of
    a scheduler that goes move, and a lightly loaded one is not overrun by all that ask at once, as
    the least loaded of all would be (Mitzenmacher, The Power of Two Choices, 2001).
    Cost: O(schedulers).
    """

    def weight(name: str) -> bytes:
        return hashlib.blake2b(f"{queue} {name}".encode(), digest_size=8).digest()

    first, *others = sorted(loads, key=weight, reverse=True)[:2]
    for second in others:
        if is_hotter(loads[first], loads[second]):
            return second
    return first


def is_hotter(load: float, other: float) -> bool:
    """Tell whether the load is so far above the other that it is no noise."""
    return load > other * limits.SPREAD_RATIO + limits.SPREAD_MIN_PER_S


def coolest(name: str, loads: Mapping[str, float]) -> str:
    """Return where a queue of the scheduler ``name`` could go; empty: it may stay where it is."""
    others = sorted((load, other) for other, load in loads.items() if other != name)
    if others and is_hotter(loads[name], others[0][0]):
        return others[0][1]
    return ""


def refuge(name: str, missed: Mapping[str, int], others: Iterable[str]) -> str:
    """Return where the queues of a scheduler go that controllers do not reach; empty: nowhere.

    ``missed`` counts the controllers that miss each scheduler.  It is the one that fewest miss, by
    name where that is undecided, and only one that fewer miss than ``name``: so where each
    controller misses another scheduler nothing goes to and fro.
    """
    best = min(others, key=lambda each: (missed.get(each, 0), each), default=name)
    return best if missed.get(best, 0) < missed.get(name, 0) else ""


def to_move(gap: float, queues: Iterable[tuple[str, float]]) -> str:
    """Return the queue to move from a scheduler that has ``gap`` more to do than another.

    ``queues`` are names with their work per second.  It is the largest whose move leaves the one
    no hotter than the other was, half of the gap at most; empty: there is none.  So a move never
    makes the hottest scheduler hotter, and moving ends.  Cost: O(queues).
    """
    best, best_load = "", 0.0
    for queue, load in queues:
        if best_load < load <= gap / 2.0:
            best, best_load = queue, load
    return best
