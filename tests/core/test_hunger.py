"""Room that the queues of several schedulers share: who is asked for it, who gives, who waits."""

from __future__ import annotations

import pytest
from harness import Desk, SchedulerPair, Times

from acs_core import events as ev
from acs_core.events import HungerElsewhere, HungerEnded, InvokerReported, LimitsChanged, QueueSpec
from acs_core.hunger import Asking, Hunger, whom_to_ask
from acs_core.limits import CONTAINERS_MAX, HUNGER_LOOKS_MAX
from acs_core.scheduler import SchedulerConfig

MEMORY = 100
PLACE = Hunger("q", "n", 0, 1, False)


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


def test_a_starving_queue_gets_its_share_of_what_another_scheduler_s_queue_has() -> None:
    cluster = Cluster({"rich": (0, "n", 40), "poor": (1, "n", 0)}, cap=8)
    cluster.run(5)
    assert cluster.serving() == {"rich": 8, "poor": 0}
    cluster.users["poor"] = 40
    cluster.run(30)
    assert cluster.serving() == {"rich": 4, "poor": 4}
    assert not any(pair.rejected for pair in cluster.pairs)


def test_one_that_was_denied_gets_its_share_of_its_own_scheduler_s_as_well() -> None:
    cluster = Cluster({"x": (0, "n", 40), "y": (1, "n", 40), "poor": (1, "n", 0)}, cap=9)
    cluster.run(20)
    cluster.users["poor"] = 40
    cluster.run(40)
    assert cluster.serving() == {"x": 3, "y": 3, "poor": 3}


def test_memory_is_shared_by_the_namespaces_of_several_schedulers() -> None:
    cluster = Cluster({"rich": (0, "n", 40), "poor": (1, "m", 0)}, room=8)
    cluster.run(5)
    assert cluster.serving() == {"rich": 8, "poor": 0}
    cluster.users["poor"] = 40
    cluster.run(40)
    assert cluster.serving() == {"rich": 4, "poor": 4}


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


# --- whom to ask -------------------------------------------------------------------------------


def test_the_richest_is_asked_first_and_then_the_others_in_turn() -> None:
    holders = {"a": ("n", 2), "b": ("n", 3), "c": ("n", 2), "q": ("n", 9), "x": ("other", 9)}
    asked = [whom_to_ask(PLACE, holders, (), tries) for tries in range(4)]
    assert asked == ["b", "a", "c", "b"]


@pytest.mark.parametrize(
    ("hunger", "holders", "asked"),
    [
        # Who has some gets none of those that would then have fewer.
        (Hunger("q", "n", 1, 1, False), {"a": ("n", 2)}, ""),
        (Hunger("q", "n", 1, 1, False), {"a": ("n", 3)}, "a"),
        (PLACE, {}, ""),
        # Memory comes of any namespace, of a richer one unless there is nothing yet.
        (Hunger("q", "n", 0, 99, True), {"x": ("m", 1)}, "x"),
        (Hunger("q", "n", 1, 99, True), {"x": ("m", 2), "q": ("n", 1)}, ""),
        (Hunger("q", "n", 1, 99, True), {"x": ("m", 3), "q": ("n", 1)}, "x"),
        # Its own scheduler's queues give memory by themselves.
        (Hunger("q", "n", 0, 99, True), {"own": ("m", 9)}, ""),
        (PLACE, {"own": ("n", 9)}, "own"),
    ],
)
def test_who_may_be_asked(hunger: Hunger, holders: dict[str, tuple[str, int]], asked: str) -> None:
    assert whom_to_ask(hunger, holders, ("own", "q"), 0) == asked


def test_nobody_is_asked_while_a_container_is_on_its_way_out_for_it() -> None:
    asking = Asking()
    holders = {"a": ("n", 3), "b": ("n", 2)}

    def givers(given_to: tuple[str, ...] = ()) -> list[str]:
        return [each.giver for each in asking.look([PLACE], holders, (), given_to)]

    assert [givers(), givers(("q",)), givers(("q",)), givers(), givers()] == [
        *(["a"], [""], [""]),
        *(["b"], ["a"]),
    ]
    assert asking.look([], holders, (), ()) == []
    assert givers() == ["a"], "it begins anew"
    told = asking.look([Hunger("q", "n", 1, 1, False)], holders, (), ())
    assert [(t.giver, t.namespace_containers, t.giver_containers) for t in told] == [("a", 5, 5)]


def test_what_cannot_be_helped_is_told_no_more_until_it_has_more() -> None:
    asking = Asking()
    looks = [len(asking.look([PLACE], {}, (), ())) for _ in range(HUNGER_LOOKS_MAX + 1)]
    assert looks == [1] * HUNGER_LOOKS_MAX + [0]
    assert len(asking.look([Hunger("q", "n", 1, 1, False)], {}, (), ())) == 1


# --- who gives, and who waits ------------------------------------------------------------------


def hungry(containers: int = 0, giver: str = "", lacks_memory: bool = False) -> HungerElsewhere:
    namespace = "m" if lacks_memory else "n"
    return HungerElsewhere("n/poor", namespace, containers, containers, lacks_memory, giver, 2)


def desk_with(containers: int, *running: str, **config: object) -> Desk:
    """A scheduler whose queue n/a has containers, of which the first ones run something."""
    desk = Desk(namespace_reserve=0, **config)
    desk.do(InvokerReported("i", 10_000, creation_us=100_000))
    desk.open(memory_mb=100)
    held = [ev.Held(f"c-{n}", True, running[n : n + 1]) for n in range(containers)]
    desk.do(ev.Adopted("i", "n/a", 1, tuple(held)))
    return desk


def test_an_idle_container_goes_and_only_one_at_a_time() -> None:
    desk = desk_with(2, "run")
    desk.pull("c-1")
    assert desk.do(hungry(giver="n/unknown")) == []
    (said,) = desk.do(hungry(giver="n/a"))
    assert "c-1" in said
    assert desk.scheduler.gives() == {"n/poor": 1}
    assert desk.do(hungry(giver="n/a")) == [], "it is on its way out"
    desk.do(ev.ContainerGone("c-1", "removed"))
    assert desk.scheduler.gives() == {}


def test_a_paused_container_goes_as_well() -> None:
    desk = desk_with(1)
    desk.pull("c-0")
    desk.do(ev.ContainerPaused("c-0"))
    (said,) = desk.do(hungry(giver="n/a"))
    assert "c-0" in said


def test_who_has_some_gets_no_container_that_its_queue_is_about_to_need() -> None:
    desk = desk_with(2, "run")
    desk.pull("c-1")
    assert desk.do(hungry(1, "n/a")) == []
    desk.now_us += 2_000_000
    assert desk.do(hungry(1, "n/a")) != []


def test_a_floor_is_nobody_elses() -> None:
    desk = desk_with(0)
    desk.open("n/b", memory_mb=100, containers_min=1)
    desk.do(ev.Adopted("i", "n/b", 1, (ev.Held("k-0", True, (), True),)))
    desk.pull("k-0")
    assert desk.do(hungry(giver="n/b")) == []


def test_without_give_back_nothing_goes() -> None:
    desk = desk_with(1, give_back=False)
    desk.pull("c-0")
    assert desk.do(hungry(giver="n/a")) == []


def test_a_queue_that_is_adopted_is_not_asked() -> None:
    desk = Desk()
    desk.do(InvokerReported("i", 10_000))
    desk.open(memory_mb=100)
    assert desk.do(hungry(giver="n/a")) == []


def test_a_busy_queue_gives_if_it_has_more_than_its_share() -> None:
    desk = desk_with(2, "x", "y")
    assert desk.do(hungry(1, "n/a")) == []
    desk.do(LimitsChanged("m", 1_000, 2.0))
    (said,) = desk.do(hungry(giver="n/a"))
    assert "c-0" in said


def test_the_richer_waits_for_the_poorer_and_goes_on_when_that_has_enough() -> None:
    desk = desk_with(2, "x", "y")
    desk.do(hungry(1))
    desk.now_us += 1_000_000
    assert [w for w in desk.arrive("a1", "a2", "a3") if "reserve" in w] == []
    assert desk.do(HungerEnded("n/never")) == []
    assert [w for w in desk.do(HungerEnded("n/poor")) if "reserve" in w] != []


def test_memory_is_left_to_the_poorer_namespace() -> None:
    desk = desk_with(2, "x", "y")
    desk.do(hungry(1, lacks_memory=True))
    desk.now_us += 1_000_000
    assert [w for w in desk.arrive("a1", "a2", "a3") if "reserve" in w] == []


def test_of_equals_the_one_that_began_first_goes_first() -> None:
    desk = desk_with(0)
    desk.do(hungry())
    assert [w for w in desk.arrive("a1") if "reserve" in w] == []
    # It is here that it lacks a place, from before the next word on the other.
    assert [w for w in desk.do(HungerEnded("n/poor"), hungry()) if "reserve" in w] != []
    assert desk.do(hungry()) == []


def test_a_scheduler_s_own_are_in_nobody_s_way_by_what_it_says_of_them() -> None:
    desk = desk_with(0)
    desk.open("n/poor", memory_mb=100)
    desk.do(ev.Adopted("i", "n/poor", 1), hungry())
    assert [w for w in desk.arrive("a1") if "reserve" in w] != []


def test_what_is_hungry_is_what_was_denied_or_lacks_memory_while_it_waits() -> None:
    desk = desk_with(0)
    desk.arrive("a1")
    assert desk.scheduler.hungers() == []
    desk.do(ev.Denied("n/a", 1, "no room"))
    assert desk.scheduler.hungers() == [Hunger("n/a", "n", 0, CONTAINERS_MAX, False)]
    desk.do(ev.Cancelled("a1"))
    assert desk.scheduler.hungers() == []


def test_a_grant_ends_the_hunger_and_so_does_the_end_of_the_queue() -> None:
    desk = desk_with(0)
    desk.arrive("a1")
    desk.do(ev.Denied("n/a", 1, "no room"))
    said = desk.wait(500_000)
    assert [w for w in said if "reserve" in w] != []
    assert desk.scheduler.hungers() != []
    desk.do(ev.Reserved("n/a", 2, ("c-2",)))
    assert desk.scheduler.hungers() == []

    desk = desk_with(0)
    desk.arrive("a1")
    desk.do(ev.Denied("n/a", 1, "no room"), ev.LeadershipLost("n/a", "s2"))
    assert desk.scheduler.hungers() == []
