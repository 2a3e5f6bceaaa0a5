"""A container's end is told when nothing that was delivered to it can be on its way any more."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from acs_core.effects import Create, Deliver, Release
from acs_core.events import (
    Activation,
    ContainerGone,
    ContainerLeaving,
    ContainerServing,
    QueueSpec,
    Returned,
)
from acs_node import acs_pb2 as pb
from acs_node.cluster import farewells
from acs_node.cluster.farewells import Farewells
from acs_node.cluster.invoker import InvokerHouse
from acs_node.cluster.scheduler import SchedulerHouse
from acs_node.coordination import MemoryCoordination
from acs_node.peer_link import Peer

SPEC = QueueSpec("n/a@1", "n", "n/a", 1)


@dataclass(eq=False)
class Line:
    """A link that is up or not."""

    name: str
    up: bool = True


S0, S1 = Line("s0"), Line("s1")


class Stage:
    """What was told on each link."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.farewells: Farewells[Line] = Farewells(
            lambda link, gone: self.told.append((link.name, gone.container))
        )

    def gone(self, container: str, link: Line) -> None:
        self.farewells.gone(ContainerGone(container, "idle"), link)


async def test_an_end_waits_for_the_answer_to_the_leave() -> None:
    stage = Stage()
    stage.farewells.leaving("c1", S0)
    stage.gone("c1", S0)
    assert stage.told == []
    stage.farewells.answered("c2", S0)
    stage.farewells.answered("c1", S1)  # of an earlier leader
    assert stage.told == []
    stage.farewells.answered("c1", S0)
    assert stage.told == [("s0", "c1")]
    assert len(stage.farewells) == 0


async def test_an_end_is_told_at_once_after_the_answer_or_without_a_leave() -> None:
    stage = Stage()
    stage.farewells.leaving("c1", S0)
    stage.farewells.answered("c1", S0)
    stage.gone("c1", S0)
    stage.gone("c2", S0)
    assert stage.told == [("s0", "c1"), ("s0", "c2")]


async def test_who_has_adopted_the_container_since_is_told_of_its_end() -> None:
    stage = Stage()
    stage.farewells.leaving("c1", S0)
    stage.gone("c1", S1)
    assert stage.told == [("s1", "c1")]
    assert len(stage.farewells) == 0


async def test_who_never_answers_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewells, "ANSWER_S", 0.0)
    stage = Stage()
    stage.farewells.leaving("c1", S0)
    stage.gone("c1", S0)
    await until(lambda: stage.told == [("s0", "c1")], "the end")


async def test_while_a_link_is_down_its_answer_may_still_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewells, "ANSWER_S", 0.0)
    stage = Stage()
    link = Line("s0", up=False)
    stage.farewells.leaving("c1", link)
    stage.gone("c1", link)
    for _ in range(3):
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.0, over.set)
        await over.wait()
    assert stage.told == []
    link.up = True
    await until(lambda: stage.told == [("s0", "c1")], "the end")


async def test_nobody_is_told_when_its_scheduler_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewells, "ANSWER_S", 0.0)
    stage = Stage()
    for container in ("c1", "c2"):
        stage.farewells.leaving(container, S0)
    stage.gone("c1", S0)
    stage.farewells.forget(S0)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.0, over.set)
    await over.wait()
    assert stage.told == []
    assert len(stage.farewells) == 0


class FakeLink:
    """Keeps what is sent."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.sent: list[object] = []
        self.up = True

    def send(self, message: object) -> None:
        self.sent.append(message)


class Unkept:
    """An ``Invoker`` whose containers are all gone: it gives back whatever is delivered."""

    def __init__(self, house: InvokerHouse) -> None:
        self._house = house

    def receive(self, message: object) -> None:
        if isinstance(message, Deliver):
            ids = (message.activation.activation_id,)
            self._house.to_scheduler(Returned(message.container, message.epoch, ids))


def invoker() -> tuple[InvokerHouse, dict[str, FakeLink]]:
    config = SimpleNamespace(memory_mb=512, cluster="acs", name="i0")
    lease = SimpleNamespace(is_over_in_sleep=lambda: False)
    me = Peer(pb.INVOKER, "i0", "i0-1")
    node: Any = SimpleNamespace(
        config=config, etcd=None, lease=lease, me=me, coordination=MemoryCoordination({})
    )
    house = InvokerHouse(node)
    links = {}
    for name in ("s0", "s1"):
        links[name] = FakeLink(Peer(pb.SCHEDULER, name, f"{name}-1"))
        house.linked(links[name])  # type: ignore[arg-type]
    house._invoker = Unkept(house)  # type: ignore[assignment]
    house._actions[SPEC.queue] = object()  # type: ignore[assignment]
    house.receive(links["s0"].peer, Create("c1", "i0", 1, SPEC))
    return house, links


async def test_a_delivery_that_meets_a_removal_is_given_back_before_the_end_is_told() -> None:
    house, links = invoker()
    to = links["s0"]
    for event in (ContainerServing("c1", "i0"), ContainerLeaving("c1", "idle")):
        house.to_scheduler(event)
    gone = ContainerGone("c1", "idle")
    house.to_scheduler(gone)
    house.receive(to.peer, Deliver("c1", "i0", 1, Activation("a1", b"", 0)))
    house.receive(to.peer, Release("c1", "i0", 0, "it leaves"))
    assert [type(m) for m in to.sent] == [
        ContainerServing, ContainerLeaving, Returned, ContainerGone,
    ]  # fmt: skip
    assert to.sent[-1] is gone
    assert links["s1"].sent == []
    house.to_scheduler(ContainerLeaving("c1", "idle"))
    house.gone(to.peer)
    assert len(house._farewells) == 0


async def test_what_a_leader_of_before_delivers_is_given_back_to_that_one() -> None:
    house, links = invoker()
    house._owners["c1"] = links["s1"]  # type: ignore[assignment]
    house.receive(links["s0"].peer, Deliver("c1", "i0", 1, Activation("a1", b"", 0)))
    assert [type(m) for m in links["s0"].sent] == [Returned]
    assert links["s1"].sent == []


async def test_a_scheduler_answers_a_leave_behind_its_last_delivery() -> None:
    peer = Peer(pb.INVOKER, "i0", "i0-1")
    link = FakeLink(peer)
    steps: list[object] = []
    house = SchedulerHouse.__new__(SchedulerHouse)
    house._node = SimpleNamespace(links={peer.instance: link})  # type: ignore[assignment]
    house.scheduler = SimpleNamespace(receive=steps.append)  # type: ignore[assignment]
    leave = ContainerLeaving("c1", "idle")
    house.receive(peer, leave)
    assert steps == [leave]
    (answer,) = link.sent
    assert isinstance(answer, Release)
    assert (answer.container, answer.invoker, answer.epoch) == ("c1", "i0", 0)
    del house._node.links[peer.instance]  # it has gone meanwhile
    house.receive(peer, leave)
    assert len(link.sent) == 1


async def test_while_etcd_is_away_nothing_goes_for_idling() -> None:
    house, _ = invoker()
    valid = iter([False, True, False, False, True])
    held: list[bool] = []
    house._node.lease = SimpleNamespace(is_valid=valid.__next__)  # type: ignore[assignment]
    house._invoker = None
    house._look()  # there is no pool yet
    house._invoker = SimpleNamespace(hold_idle=held.append)  # type: ignore[assignment]
    for _ in range(4):
        house._look()
    assert held == [True, False]
