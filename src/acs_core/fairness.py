"""Who gives a container back when another queue has too few.  Pure.

Max-min by weight between namespaces, and max-min between the queues of a namespace: the richest
gives, as long as the other is better off afterwards than the giver.  Where nobody has more than
one, there are more queues with work than containers, and turns are taken: who has had a container
for a quantum gives it to who has none.

Leaves out how it is given back (after a run, never during one) and what is idle anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """What is looked at of one queue.

    Args:
      queue, namespace: Their names.
      containers: What it has and will have: serving, in progress and reserved ones, without
        those that are on their way out.
      turn_us: How long the one that serves longest has served; 0 when none serves.
      weight: Of its namespace, > 0.
    """

    queue: str
    namespace: str
    containers: int
    turn_us: int = 0
    weight: float = 1.0


def giver(
    holdings: Sequence[Holding],
    needy: Holding,
    quantum_us: int,
    in_namespace: bool,
    containers: Mapping[str, int] | None = None,
) -> Holding | None:
    """Return who gives a container to ``needy``; None when that would be no fairer.

    Args:
      holdings: All queues that hold a container which serves; ``needy`` may be among them.
      needy: Who wants one more.
      quantum_us: How long a turn lasts at least.
      in_namespace: Only its own namespace's cap binds, so only that one can give.
      containers: Those of each namespace, where ``holdings`` are not all: of each namespace the
        queue with the most (then the longest turn, then the last name) and the one with the
        longest turn (then the last name) are enough.  None: add them up.

    Between namespaces the one with the most containers by weight gives, if it has not fewer than
    the other one's afterwards; else the needy's own.  Within it the queue with the most, if that
    leaves it with no fewer than the needy then has.  Ties go to the longest turn, then by name.

    Cost: O(holdings).
    """
    totals: dict[str, int] = {needy.namespace: 0}
    totals.update(containers or {})
    for holding in holdings if containers is None else ():
        totals[holding.namespace] = totals.get(holding.namespace, 0) + holding.containers
    own_share = (totals[needy.namespace] + 1) / needy.weight

    def share(holding: Holding) -> float:
        return totals[holding.namespace] / holding.weight

    def wealth(holding: Holding) -> tuple[float, int, int, str]:
        return share(holding), holding.containers, holding.turn_us, holding.queue

    own = [h for h in holdings if h.namespace == needy.namespace and h.queue != needy.queue]
    foreign = []
    if not in_namespace:
        foreign = [h for h in holdings if h.namespace != needy.namespace]
    # A namespace with more than its share: whichever queue of it has most can spare one.
    rich = [h for h in foreign if share(h) - 1 / h.weight >= own_share]
    rich = rich or [h for h in own if h.containers > needy.containers + 1]
    if rich:
        return max(rich, key=wealth)
    if needy.containers > 0:
        return None
    done = [h for h in (*own, *foreign) if h.turn_us >= quantum_us]
    # Between namespaces a turn is taken where the two change roles by it.
    done = [h for h in done if h.namespace == needy.namespace or share(h) >= own_share]
    return max(done, key=lambda h: (h.turn_us, h.queue), default=None)


def quantum_us(containers: int, creation_us: int, swaps_per_s: float, turn_max_us: int) -> int:
    """Return how long a turn lasts at least, in microseconds.

    As long as a creation, and so long that swapping ``containers`` in turn keeps the engines at
    half of what they can swap; never longer than ``turn_max_us``, so that a turn comes within the
    wait bound.  ``swaps_per_s`` of 0 is unknown: one creation after the other then.
    """
    rate = swaps_per_s if swaps_per_s > 0.0 else 1_000_000 / max(1, creation_us)
    return min(turn_max_us, max(creation_us, int(containers * 1_000_000 / (0.5 * rate))))
