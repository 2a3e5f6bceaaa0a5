"""Room that queues of several schedulers share: who lacks it elsewhere, and whom to ask for it.

A scheduler knows the containers of its own queues.  What others hold of a namespace it meets in
what is denied to it.  So schedulers tell each other which of their queues find no room, and whom
each of those asks for a container (``Asking``); who is asked knows itself whether it gives
(``scheduler_room``), and the richer ones leave the room to the poorer (``Elsewhere``).

Leaves out how that is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .events import HungerElsewhere
from .limits import HUNGER_LOOKS_MAX


@dataclass(frozen=True, slots=True)
class Hunger:
    """A queue that waits for room which other schedulers' queues have.

    ``containers`` are those that it has and will have, ``containers_max`` its namespace's cap.
    ``lacks_memory``: else it was denied, and may lack a place of its namespace.
    """

    queue: str
    namespace: str
    containers: int
    containers_max: int
    lacks_memory: bool


class Elsewhere:
    """What a scheduler knows of room that it shares with others; kept by ``Starving``.

    ``hungers`` are others' queues as they were told last, ``lacking`` its own that found no room
    though there seemed to be some: memory (True), or they were denied (False); until something is
    granted to them.  ``since`` tells the order in which all of these began, ``given`` of containers
    that go for whom they do.  A queue that moves here is in both for as long as its last scheduler
    has not taken back what it told.
    """

    def __init__(self) -> None:
        self.hungers: dict[str, HungerElsewhere] = {}
        self.since: dict[str, int] = {}
        self.lacking: dict[str, bool] = {}
        self.given: dict[str, str] = {}

    def forget(self, queue: str) -> HungerElsewhere | None:
        """Forget the hunger of another's queue and return what was told last, if anything."""
        told = self.hungers.pop(queue, None)
        if told is not None and queue not in self.lacking:
            del self.since[queue]
        return told

    def end(self, queue: str) -> None:
        """Note that the own queue was granted something, or wishes no more."""
        if self.lacking.pop(queue, None) is not None and queue not in self.hungers:
            del self.since[queue]

    def check(self) -> None:
        """Assert that exactly those are in the order that lack something.  Cost: O(n)."""
        assert self.since.keys() == self.hungers.keys() | self.lacking.keys()

    def gives(self, there: Collection[str]) -> dict[str, int]:
        """Count, by who is to have the room, the containers of ``there`` that are on their way out.

        The others are forgotten.  Cost: O(given).
        """
        self.given = {name: to for name, to in self.given.items() if name in there}
        counts: dict[str, int] = {}
        for to in self.given.values():
            counts[to] = counts.get(to, 0) + 1
        return counts

    def comes_before(
        self, queue: str, namespace: str, in_namespace: bool, wealth: tuple[float, int, int]
    ) -> bool:
        """Tell whether room belongs to a hunger before the queue with that wealth.

        ``wealth`` are the containers of its namespace, its own, and since when it lacks more.  For
        a place of the namespace only the last two count.  No two are in each other's way, for each
        hears of the other only after that one began: of equals, one of them is first for both.
        Cost: O(hungers).
        """
        for name, hunger in self.hungers.items():
            if name == queue or hunger.lacks_memory == in_namespace:
                continue
            other = hunger.namespace_containers, hunger.containers, self.since[name]
            if in_namespace:
                if hunger.namespace == namespace and other[1:] < wealth[1:]:
                    return True
            elif other < wealth:
                return True
        return False


Holders = Mapping[str, tuple[str, int]]
"""Of every queue in the cluster that has containers: its namespace, and how many."""


def totals(holders: Holders) -> dict[str, int]:
    """Return the containers of each namespace.  Cost: O(holders)."""
    counts: dict[str, int] = {}
    for namespace, count in holders.values():
        counts[namespace] = counts.get(namespace, 0) + count
    return counts


def whom_to_ask(hunger: Hunger, holders: Holders, own: Collection[str], tries: int) -> str:
    """Return the queue to ask for a container at the ``tries``-th time; empty: there is none.

    Args:
      holders: Counted from what all share, so that nobody has to be asked who has how many.
      own: The queues of this scheduler.  Memory they give by themselves.
      tries: 0 at first, one more each time that nothing came of it.

    Whatever it seemed to lack, it lacks a place where its namespace has all that it may.

    First the queue with the most, of the namespace with the most; whether it is for it to give,
    it knows itself.  Who has none may also be given a turn, by anyone.  Cost: O(n log n).
    """
    held = totals(holders)
    mine = held.get(hunger.namespace, 0)
    lacks_memory = mine < hunger.containers_max
    if lacks_memory and not hunger.lacks_memory:
        return ""  # a place is there by now

    def may_give(queue: str) -> bool:
        namespace, count = holders[queue]
        if queue == hunger.queue or (lacks_memory and queue in own):
            return False
        if namespace != hunger.namespace:
            return lacks_memory and (hunger.containers == 0 or held[namespace] > mine + 1)
        return hunger.containers == 0 or count > hunger.containers + 1

    def wealth(queue: str) -> tuple[int, int, str]:
        namespace, count = holders[queue]
        return -held[namespace], -count, queue

    able = sorted(filter(may_give, holders), key=wealth)
    return able[tries % len(able)] if able else ""


class Asking:
    """Whom the hungry queues of one scheduler ask, each one queue at a time.

    The next one is asked when nothing has come of it, until the hungry one has more; nobody while
    a container is on its way out for it.  What nobody gave anything for in HUNGER_LOOKS_MAX looks
    is told no more, so that nobody waits for ever for one that cannot be helped.
    """

    def __init__(self) -> None:
        self._tries: dict[Hunger, int] = {}

    def look(
        self,
        hungers: Iterable[Hunger],
        holders: Holders,
        own: Collection[str],
        given_to: Collection[str],
    ) -> list[HungerElsewhere]:
        """Return what the others are to be told; ``given_to`` are queues for which somebody gives.

        For the other arguments see ``whom_to_ask``.  Cost: O(hungers x n log n).
        """
        held = totals(holders)
        tries: dict[Hunger, int] = {}
        told = []
        for hunger in hungers:
            queue, namespace = hunger.queue, hunger.namespace
            tries[hunger] = self._tries.get(hunger, -1)
            giver = ""
            if queue not in given_to:
                tries[hunger] += 1
                if tries[hunger] >= HUNGER_LOOKS_MAX:
                    continue
                giver = whom_to_ask(hunger, holders, own, tries[hunger])
            of_giver = held[holders[giver][0]] if giver else 0
            mine = held.get(namespace, 0)
            lacks_memory = hunger.lacks_memory and mine < hunger.containers_max
            told.append(
                HungerElsewhere(
                    queue, namespace, hunger.containers, mine, lacks_memory, giver, of_giver
                )
            )
        self._tries = tries
        return told
