"""F4, where two schedulers have the queues of one namespace, or one invoker's memory, between them.

They tell each other each second what they lack, and no more; loads are kept up, shares are counted.
"""

from __future__ import annotations

import pytest
from harness import SchedulerPair, Times

from acs_core.events import HungerElsewhere, HungerEnded, InvokerReported, QueueSpec
from acs_core.hunger import Asking
from acs_core.scheduler import SchedulerConfig

MEMORY = 100


class Cluster:
    """Schedulers that share one invoker's memory and the caps, and tell each other each second.

    ``queues`` has of each its scheduler, its namespace, and how many users always want a run.
    """

    def __init__(
        self, queues: dict[str, tuple[int, str, int]], cap: int = 1_000, room: int = 1_000
    ) -> None:
        times = Times(creation_us=300_000, run_us=400_000)
        self.memory_mb = room * MEMORY
        self.pairs = [
            SchedulerPair(
                {"i": self.memory_mb},
                config=SchedulerConfig(
                    name=name,
                    wait_max_us=60_000_000,
                    namespace_containers_max=cap,
                    namespace_reserve=0,
                    retry_max_us=2_000_000,
                ),
                times=times,
            )
            for name in "ab"
        ]
        self.pairs[1]._granted = self.pairs[0]._granted  # one etcd
        self.users = {}
        self._queues = queues
        self._asking = [Asking() for _ in self.pairs]
        self._told: list[dict[str, HungerElsewhere]] = [{} for _ in self.pairs]
        self._serial = 0
        for queue, (at, namespace, users) in queues.items():
            self.pairs[at].open(QueueSpec(queue, namespace, queue, 1, memory_mb=MEMORY))
            self.users[queue] = users

    def run(self, seconds: int) -> None:
        """Keep every queue at its number of users for so long."""
        for turn in range(50 * seconds):
            for queue, users in self.users.items():
                shown = self._shown(queue)
                for _ in range(users - int(str(shown["waiting"])) - int(str(shown["running"]))):
                    self._serial += 1
                    self.pairs[self._queues[queue][0]].arrive(queue, f"{queue}-{self._serial}")
            for pair in self.pairs:
                pair.advance(20_000)
            if turn % 50 == 0:
                self._exchange()

    def serving(self) -> dict[str, int]:
        """Count the containers that serve each queue and stay."""
        shown = {queue: self._shown(queue) for queue in self._queues}
        return {q: int(str(s["serving"])) - int(str(s["leaving"])) for q, s in shown.items()}

    def ended(self) -> dict[str, int]:
        """Count the results by queue."""
        counts = dict.fromkeys(self._queues, 0)
        for pair in self.pairs:
            for name in pair.results:
                counts[name.rpartition("-")[0]] += 1
        return counts

    def _shown(self, queue: str) -> dict[str, object]:
        return self.pairs[self._queues[queue][0]].scheduler.explain(queue)

    def _exchange(self) -> None:
        """Do what the nodes do: of memory, and of hunger."""
        holders = {}
        for queue, (_, namespace, _) in self._queues.items():
            shown = self._shown(queue)
            count = sum([int(str(shown[w])) for w in ("serving", "in_progress", "reserving")])
            if count:
                holders[queue] = namespace, count
        given_to = {queue for pair in self.pairs for queue in pair.scheduler.gives()}
        for index, pair in enumerate(self.pairs):
            own = set(pair.scheduler.containers())
            used = [c for c in pair.held() if c not in own and not c.startswith("ab"[index])]
            pair.tell(InvokerReported("i", self.memory_mb, len(used) * MEMORY, 300_000))
            queues = pair.scheduler.queues()
            told = self._asking[index].look(pair.scheduler.hungers(), holders, queues, given_to)
            now = {hunger.queue: hunger for hunger in told}
            for other in self.pairs:
                for queue in self._told[index].keys() - now.keys():
                    other.tell(HungerEnded(queue))
                for hunger in told:
                    other.tell(hunger)
            self._told[index] = now


@pytest.mark.parametrize(("namespace", "limits"), [("n", {"cap": 8}), ("m", {"room": 8})])
def test_a_starving_queue_gets_its_share_of_what_another_scheduler_s_queue_has(
    namespace: str, limits: dict[str, int]
) -> None:
    """A place where both are of one namespace, memory where they are not."""
    cluster = Cluster({"rich": (0, "n", 40), "poor": (1, namespace, 0)}, **limits)
    cluster.run(5)
    assert cluster.serving() == {"rich": 8, "poor": 0}
    cluster.users["poor"] = 40
    cluster.run(40)
    assert cluster.serving() == {"rich": 4, "poor": 4}
    assert not any(pair.rejected for pair in cluster.pairs)


def test_one_that_was_denied_gets_its_share_of_its_own_scheduler_s_as_well() -> None:
    cluster = Cluster({"x": (0, "n", 40), "y": (1, "n", 40), "poor": (1, "n", 0)}, cap=9)
    cluster.run(20)
    cluster.users["poor"] = 40
    cluster.run(40)
    assert cluster.serving() == {"x": 3, "y": 3, "poor": 3}


def test_with_more_queues_than_places_each_gets_its_turn() -> None:
    cluster = Cluster({f"q{n}": (n % 2, "n", 3) for n in range(5)}, cap=2)
    cluster.run(90)
    ended = cluster.ended()
    assert min(ended.values()) > 0, ended
    assert not any(pair.rejected for pair in cluster.pairs)


def test_who_needs_little_takes_no_more_than_that() -> None:
    cluster = Cluster({"rich": (0, "n", 40), "poor": (1, "n", 1)}, cap=8)
    cluster.run(30)
    assert cluster.serving() == {"rich": 7, "poor": 1}
