"""Who lacks room, in the order in which it belongs to them.

Leaves out what makes a queue rich or poor, who gives (``fairness``), and when somebody looks.
"""

from __future__ import annotations

from itertools import islice

from sortedcontainers import SortedList

from .events import HungerElsewhere
from .hunger import Elsewhere
from .limits import LINE_MAX


class _Entry:
    """Where a queue stands, and why."""

    def __init__(
        self, namespace: str, lacks_memory: bool, share: float, containers: int, since: int
    ) -> None:
        self.namespace = namespace
        self.lacks_memory = lacks_memory
        self.share = share
        self.containers = containers
        self.since = since


class Starving:
    """The queues that found no room: one line for memory, and one for places in each namespace.

    The poorest is first: the smallest share of its namespace (which is the same for all in the
    line of one namespace), then the fewest containers, then who starves longest.  How rich a
    queue is, is what ``put`` was told last: a caller that reads a line tells it of those anew.

    ``elsewhere``: what is known of room that is shared with other schedulers.

    Cost of each call: O(log n), of reading a line O(LINE_MAX).
    """

    def __init__(self) -> None:
        self.elsewhere = Elsewhere()
        self._entries: dict[str, _Entry] = {}
        self._memory = SortedList()
        self._places: dict[str, SortedList] = {}
        self._since = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, queue: str) -> bool:
        return queue in self._entries

    def hear(self, hunger: HungerElsewhere) -> None:
        """Note what another scheduler's queue lacks; it has lacked it since the first word."""
        self.elsewhere.hungers[hunger.queue] = hunger
        if hunger.queue not in self.elsewhere.since:
            self.elsewhere.since[hunger.queue] = self._since
            self._since += 1

    def lack(self, queue: str, lacks_memory: bool) -> None:
        """Note that the queue may lack what other schedulers have: memory, or it was denied.

        Until something is granted to it, it keeps its place in the order, also while it asks again.
        """
        elsewhere = self.elsewhere
        elsewhere.lacking[queue] = lacks_memory or elsewhere.lacking.get(queue, False)
        if queue not in elsewhere.since:
            elsewhere.since[queue] = self.since(queue)
            self._since += 1

    def since(self, queue: str) -> int:
        """Return the place of the queue in the order in which all here began to lack room."""
        entry = self._entries.get(queue)
        starves = self._since if entry is None else entry.since
        return min(starves, self.elsewhere.since.get(queue, starves))

    def names(self) -> list[str]:
        """Return all of them.  Cost: O(n)."""
        return list(self._entries)

    def lacks_memory(self, queue: str) -> bool:
        """Tell whether the queue is here because memory lacks, not a place of its namespace."""
        entry = self._entries.get(queue)
        return entry is not None and entry.lacks_memory

    def put(
        self, queue: str, namespace: str, lacks_memory: bool, share: float, containers: int
    ) -> bool:
        """Put the queue where it belongs, and tell whether that is another place than before.

        One that is here starves for as long as before.
        """
        known = self._entries.get(queue)
        if known is not None:
            # Mostly so: whoever reads a line tells it of those in front each time.
            if (
                containers == known.containers
                and share == known.share
                and lacks_memory == known.lacks_memory
            ):
                return False
            since = known.since
            self.drop(queue)
        else:
            since = self._since
            self._since += 1
        self._entries[queue] = _Entry(namespace, lacks_memory, share, containers, since)
        line = self._places.get(namespace)
        if line is None:
            line = self._places[namespace] = SortedList()
        line.add((containers, since, queue))
        if lacks_memory:
            self._memory.add((share, containers, since, queue))
        return True

    def drop(self, queue: str) -> None:
        """Forget the queue; one that is not here is fine."""
        entry = self._entries.pop(queue, None)
        if entry is None:
            return
        line = self._places[entry.namespace]
        line.remove((entry.containers, entry.since, queue))
        if not line:
            del self._places[entry.namespace]
        if entry.lacks_memory:
            self._memory.remove((entry.share, entry.containers, entry.since, queue))

    def first(self, namespace: str | None) -> list[str]:
        """Return the first LINE_MAX of the namespace, whatever they lack; None: for memory."""
        line = self._memory if namespace is None else self._places.get(namespace, ())
        return [place[-1] for place in islice(line, LINE_MAX)]

    def check(self) -> None:
        """Assert that the lines hold exactly what is here.  Cost: O(n log n)."""
        self.elsewhere.check()
        memory = [
            (e.share, e.containers, e.since, q) for q, e in self._entries.items() if e.lacks_memory
        ]
        assert sorted(memory) == list(self._memory)
        places: dict[str, list[tuple[int, int, str]]] = {}
        for queue, entry in self._entries.items():
            line = places.setdefault(entry.namespace, [])
            line.append((entry.containers, entry.since, queue))
        assert {name: sorted(line) for name, line in places.items()} == {
            name: list(line) for name, line in self._places.items()
        }
