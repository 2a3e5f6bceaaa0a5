"""Floors: containers that a queue keeps although nothing waits for them."""

from __future__ import annotations

import pytest
from harness import Desk, SchedulerPair

from acs_core import events as ev
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.effects import Create
from acs_core.limits import TIME_MAX_US
from acs_core.scheduler import Scheduler, SchedulerConfig


def made(memory_mb: int = 1_000, **config: object) -> Desk:
    desk = Desk(**config)
    desk.do(ev.InvokerReported("i1", memory_mb))
    return desk


def keeps(desk: Desk, queue: str = "n/a", floor: int = 1, **spec: object) -> list[str]:
    """Open a queue with a floor; return what it asks for, as soon as it may."""
    desk.open(queue, containers_min=floor, memory_mb=spec.pop("memory_mb", 100), **spec)
    return desk.do(ev.Adopted("i1", queue, 1), ev.TimeReached())


def grant(desk: Desk, queue: str, *names: str) -> list[str]:
    """Grant what the queue asked for last and let it serve."""
    serial = max(int(name.rpartition("-")[2]) for name in names)
    words = desk.do(ev.Reserved(queue, serial, names))
    for name in names:
        desk.do(ev.ContainerServing(name, "i1"), ev.Pulled(name, 1, 1))
    return words


def kept(desk: Desk, queue: str = "n/a") -> object:
    return desk.scheduler.explain(queue)["kept"]


def test_a_floor_is_there_before_any_work() -> None:
    desk = made()
    assert keeps(desk, floor=2) == ["reserve for n/a c-1@i1, c-2@i1"]
    assert grant(desk, "n/a", "c-1", "c-2") == [
        "create c-1@i1 for n/a, to be kept",
        "create c-2@i1 for n/a, to be kept",
    ]
    assert (kept(desk), desk.scheduler.explain("n/a")["containers_min"]) == (2, 2)
    assert desk.arrive("a1") == ["deliver a1 to c-2"]


def test_what_is_created_for_work_belongs_to_a_floor_that_lacks_it() -> None:
    desk = made()
    desk.open(containers_min=1, memory_mb=100)
    desk.arrive("a1")
    assert desk.do(ev.Adopted("i1", "n/a", 1)) == ["reserve for n/a c-1@i1"]
    assert grant(desk, "n/a", "c-1") == ["create c-1@i1 for n/a, to be kept"]
    assert desk.wait(5_000_000) == []


def test_what_goes_is_replaced_once_a_second_at_most() -> None:
    desk = made()
    keeps(desk)
    grant(desk, "n/a", "c-1")
    desk.now_us += 400_000
    desk.do(ev.ContainerGone("c-1", "it died"))
    assert desk.wait(599_999) == []
    assert desk.wait(1) == ["reserve for n/a c-2@i1"]
    grant(desk, "n/a", "c-2")
    desk.wait(5_000_000)
    assert desk.do(ev.ContainerLeaving("c-2", "broken"), ev.TimeReached()) == [
        "reserve for n/a c-3@i1"
    ]


def test_failed_creations_of_a_floor_are_tried_again_ever_later() -> None:
    desk = made(reserve_answer_us=20_000_000)
    keeps(desk)
    desk.do(ev.Denied("n/a", 1, "no"))
    for number in range(2, 9):
        assert desk.wait(11_000_000)[:1] == [f"reserve for n/a c-{number}@i1"]
        desk.do(ev.Denied("n/a", number, "no"))
    assert desk.wait(9_999_999) == []
    assert desk.scheduler.explain("n/a")["trouble"] == "no"


def test_no_floor_is_too_large_for_an_invoker_that_lacks_the_memory() -> None:
    desk = made(50)
    assert keeps(desk) == []
    assert "no invoker has 100 MB" in str(desk.scheduler.explain("n/a")["trouble"])
    desk.do(ev.InvokerReported("i2", 100), ev.Adopted("i2", "n/a", 1))
    assert desk.wait(1_000_000) == ["reserve for n/a c-1@i2"]


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"namespace_containers_max": 3}, ["reserve for n/a c-1@i1, c-2@i1"]),  # one is for calls
        ({"namespace_containers_max": 0}, []),
    ],
)
def test_floors_keep_to_the_cap_of_their_namespace(
    limits: dict[str, int], asked: list[str]
) -> None:
    assert keeps(made(**limits), floor=5) == asked


def test_floors_keep_to_the_limit_of_their_action() -> None:
    desk = made()
    assert keeps(desk, floor=5, action_limit=1) == ["reserve for n/a c-1@i1"]
    grant(desk, "n/a", "c-1")
    assert desk.wait(60_000_000) == []  # nor is room made for what the limit does not allow


def test_a_queue_with_a_floor_stays_open_and_another_does_not() -> None:
    desk = made()
    keeps(desk, action_limit=0)
    desk.open("n/b")
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.wait(100_000_000) == ["close n/b epoch 1"]
    assert desk.do(ev.QueueClosing("n/a", "updated")) == ["close n/a epoch 1"]


def test_a_closing_queue_gives_its_floor_up_and_makes_none() -> None:
    desk = made()
    keeps(desk)
    grant(desk, "n/a", "c-1")
    assert desk.do(ev.QueueClosing("n/a", "updated")) == ["release c-1: updated"]
    desk.arrive("late")
    assert desk.wait(5_000_000) == []
    assert desk.do(ev.ContainerGone("c-1", "updated")) == ["close n/a epoch 1"]


def test_what_a_closing_queue_creates_is_not_kept() -> None:
    desk = made()
    desk.open(containers_min=1, memory_mb=100)
    desk.arrive("a1")
    desk.do(ev.QueueClosing("n/a", "updated"), ev.Adopted("i1", "n/a", 1))
    assert grant(desk, "n/a", "c-1") == ["create c-1@i1 for n/a"]


@pytest.mark.parametrize("memory_mb", [100, 300])
def test_idle_ones_of_a_floor_make_no_room_for_others(memory_mb: int) -> None:
    # Memory for one, or a cap of one for all but calls.
    desk = made(memory_mb, namespace_containers_max=2 if memory_mb > 100 else 10)
    keeps(desk)
    grant(desk, "n/a", "c-1")
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.arrive("b1", queue="n/b") == []
    assert [w for w in desk.wait(50_000_000) if "release" in w] == []


@pytest.mark.parametrize("memory_mb", [100, 300])
def test_calls_go_before_floors(memory_mb: int) -> None:
    desk = made(memory_mb, namespace_containers_max=1 if memory_mb > 100 else 10)
    keeps(desk)
    grant(desk, "n/a", "c-1")
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    call = ev.Activation("b1", b"", 0, 0, ("root",))
    assert desk.do(ev.Arrived("n/b", call)) == ["release c-1: b needs the room"]
    # The floor waits with its next try, and then finds that the call has the room.
    desk.do(ev.ContainerGone("c-1", "released"))
    assert kept(desk) == 0
    assert desk.scheduler.explain("n/b")["reserving"] == 1


def test_no_one_of_a_floor_is_given_back_and_the_others_are() -> None:
    desk = made(300)
    desk.open(containers_min=2, memory_mb=100)
    held = [ev.Held(f"kept{n}", True, (f"a{n}",), True) for n in range(2)]
    desk.do(ev.Adopted("i1", "n/a", 1, (*held, ev.Held("extra", True, ("a2",)))))
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    assert desk.arrive("b1", queue="n/b") == ["release extra: b has too few containers"]
    desk.open("n/d", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/d", 1))
    desk.arrive("d1", queue="n/d")
    assert [w for w in desk.wait(50_000_000) if "release" in w] == []


def test_one_of_a_floor_that_works_is_given_back_for_a_call() -> None:
    desk = made(200)
    desk.open(containers_min=2, memory_mb=100)
    held = [ev.Held(name, True, (f"a{name}",), True) for name in ("kept", "too")]
    desk.do(ev.Adopted("i1", "n/a", 1, tuple(held)))
    desk.now_us += 10_000_000
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1))
    call = ev.Activation("b1", b"", desk.now_us, 0, ("root",))
    assert desk.do(ev.Arrived("n/b", call)) == ["release kept: b has too few containers"]


def test_a_floor_is_made_from_what_idles_and_not_from_what_works() -> None:
    desk = made(200)
    desk.open("n/b", memory_mb=100)
    held = (ev.Held("busy", True, ("b1",)), ev.Held("idle", True))
    desk.do(ev.Adopted("i1", "n/b", 1, held), ev.Pulled("idle", 1, 1))
    assert keeps(desk, floor=2) == ["release idle: a needs the room"]
    desk.do(ev.ContainerGone("idle", "released"))
    assert desk.wait(1_000_000) == ["reserve for n/a c-1@i1"]
    grant(desk, "n/a", "c-1")
    desk.do(ev.Arrived("n/b", ev.Activation("b2", b"", desk.now_us)))
    assert [w for w in desk.wait(30_000_000) if "release" in w] == []


def test_a_floor_is_made_within_the_namespace_from_what_idles() -> None:
    desk = made(1_000, namespace_containers_max=2)
    desk.open("n/b", memory_mb=100)
    held = (ev.Held("idle", True),)
    desk.do(ev.Adopted("i1", "n/b", 1, held), ev.Pulled("idle", 1, 1))
    assert keeps(desk, floor=1) == ["release idle: a needs the room"]


def test_what_idles_in_another_namespace_is_no_place_for_a_floor() -> None:
    desk = made(1_000, namespace_containers_max=2)
    desk.do(ev.QueueOpened(ev.QueueSpec("m/c", "m", "c", 0, memory_mb=100), 1))
    desk.do(ev.Adopted("i1", "m/c", 1, (ev.Held("other", True),)), ev.Pulled("other", 1, 1))
    desk.now_us += 5_000_000  # it idles longest
    desk.open("n/b", memory_mb=100)
    desk.do(ev.Adopted("i1", "n/b", 1, (ev.Held("idle", True),)), ev.Pulled("idle", 1, 1))
    assert keeps(desk, floor=1) == ["release idle: a needs the room"]


def test_adopted_ones_belong_to_the_floor_as_they_did() -> None:
    desk = made()
    desk.open(containers_min=2, memory_mb=100)
    held = (ev.Held("old", True, (), True), ev.Held("other", True))
    desk.do(ev.Adopted("i1", "n/a", 1, held))
    assert kept(desk) == 1
    assert desk.wait(1_000_000) == ["reserve for n/a c-1@i1"]


def test_of_too_many_adopted_ones_those_that_idle_go() -> None:
    desk = made()
    desk.open(containers_min=1, memory_mb=100)
    held = (
        ev.Held("busy", True, ("a1",), True),
        ev.Held("new", False, (), True),
        ev.Held("idle", True, (), True),
        ev.Held("idle too", True, (), True),
    )
    desk.do(ev.Adopted("i1", "n/a", 1, held))
    released = "release idle: more than the floor are kept"
    assert desk.wait(900_000) == [released, released.replace("idle", "idle too")]
    desk.do(ev.ContainerServing("new", "i1"), ev.Pulled("new", 1, 1))
    assert desk.wait(1_000_000) == [released.replace("idle", "new")]
    assert desk.wait(20_000_000) == []


def test_kept_containers_outlive_their_keep_alive_until_they_are_released() -> None:
    pool = ContainerPool(PoolConfig("i1", 1_000, keep_alive_us=100))
    spec = ev.QueueSpec("q", "n", "a", 0, memory_mb=100)
    for name, keep in (("c1", True), ("c2", False)):
        pool.step(Create(name, "i1", 1, spec, keep), 0)
        pool.step(ev.SandboxReady(name), 0)
    assert pool.counts()["idle"] == 2
    pool.step(ev.TimeReached(), 1_000)
    pool.check()
    assert (pool.counts()["idle"], pool.next_deadline_us()) == (1, None)


def test_a_floor_stays_through_idleness_in_both_cores() -> None:
    pair = SchedulerPair({"i": 500}, config=SchedulerConfig(name="c"), keep_alive_us=2_000_000)
    pair.open(ev.QueueSpec("q", "n", "a", 0, memory_mb=100, containers_min=2))
    pair.advance(1_000_000)
    assert pair.containers_of("i") == ["c-1", "c-2"]
    for number in range(30):
        pair.arrive("q", f"a{number}")
    pair.advance(100_000_000)
    assert pair.containers_of("i") == ["c-1", "c-2"]
    assert len(pair.results) == 30
    pair.break_sandbox("i", "c-1")
    pair.advance(2_000_000)
    assert len(pair.containers_of("i")) == 2


def test_at_the_last_moment_a_floor_is_still_due() -> None:
    # Found by fuzzing: what was due at that very time counted as never due.
    scheduler = Scheduler(SchedulerConfig(name="c"))
    scheduler.step(ev.InvokerReported("i1", 200), 0)
    spec = ev.QueueSpec("n/a", "n", "a", 0, containers_min=1)
    scheduler.step(ev.QueueOpened(spec, 1), TIME_MAX_US)
    scheduler.step(ev.InvokerGone("i1"), TIME_MAX_US)
    scheduler.check()
    assert scheduler.next_deadline_us() == TIME_MAX_US
