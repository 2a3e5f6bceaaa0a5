"""Room that the queues of several schedulers share: who is asked for it, who gives, who waits."""

from __future__ import annotations

import pytest
from harness import Desk

from acs_core import events as ev
from acs_core.events import HungerElsewhere, HungerEnded, InvokerReported, LimitsChanged
from acs_core.hunger import Asking, Elsewhere, Hunger, whom_to_ask
from acs_core.limits import CONTAINERS_MAX, HUNGER_LOOKS_MAX

MEMORY = 100
PLACE = Hunger("q", "n", 0, 1, False)


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


@pytest.mark.parametrize(
    ("in_namespace", "wealth", "before"),
    [
        # Of "m" by a place, of "n" by a place, and of "n" by memory; each began after the other.
        (True, (9.0, 1, 9), True),
        (True, (9.0, 1, 0), False),
        (True, (9.0, 0, 9), False),
        (False, (3.0, 0, 9), True),
        (False, (2.0, 1, 2), False),
    ],
)
def test_whose_room_it_is(in_namespace: bool, wealth: tuple[float, int, int], before: bool) -> None:
    elsewhere = Elsewhere()
    for since, (namespace, lacks_memory) in enumerate([("m", False), ("n", False), ("n", True)]):
        name = f"q{since}"
        elsewhere.hungers[name] = HungerElsewhere(name, namespace, 1, 2, lacks_memory)
        elsewhere.since[name] = since
    assert elsewhere.comes_before("own", "n", in_namespace, wealth) is before
    assert not elsewhere.comes_before("own", "other", True, wealth)
    # What is told of a queue that has come here since is no other's.
    assert not elsewhere.comes_before("q1", "n", True, wealth)


@pytest.mark.parametrize(
    ("lacks_memory", "held", "told"),
    [(True, 1, True), (True, 2, False), (False, 1, False), (False, 2, False)],
)
def test_memory_lacks_while_there_is_a_place(lacks_memory: bool, held: int, told: bool) -> None:
    hunger = Hunger("q", "n", 0, 2, lacks_memory)
    (event,) = Asking().look([hunger], {"a": ("n", held)}, (), ())
    assert event.lacks_memory is told


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


def test_what_is_taken_back_of_its_own_queue_changes_nothing() -> None:
    desk = desk_with(0)
    desk.arrive("a1")
    desk.do(ev.Denied("n/a", 1, "no room"))
    # Each scheduler hears what itself has told as well.
    desk.do(HungerEnded("n/a"))
    desk.scheduler.check()
    assert desk.scheduler.hungers() != []
    assert [w for w in desk.wait(500_000) if "reserve" in w] != []
    desk.do(ev.Reserved("n/a", 2, ("c-2",)))
    assert desk.scheduler.hungers() == []
    desk.scheduler.check()


@pytest.mark.parametrize("granted_first", [False, True])
def test_a_queue_that_comes_here_was_hungry_elsewhere(granted_first: bool) -> None:
    desk = desk_with(0)
    desk.do(hungry())
    desk.open("n/poor", memory_mb=100)
    desk.do(ev.Adopted("i", "n/poor", 1))
    desk.do(ev.Arrived("n/poor", ev.Activation("p1", b"", 0)), ev.Denied("n/poor", 1, "no room"))
    desk.wait(500_000)
    events = [HungerEnded("n/poor"), ev.Reserved("n/poor", 2, ("c-2",))]
    for event in reversed(events) if granted_first else events:
        desk.do(event)
        desk.scheduler.check()
    assert desk.scheduler.hungers() == []
