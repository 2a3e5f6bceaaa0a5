"""A controller among others, without the others: its start, its end, and when it is cut off."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acs_node.cluster import controller
from acs_node.cluster.controller import ControllerHouse
from acs_node.cluster.process import Node
from acs_node.cluster.routing import CUT_OFF
from acs_node.cluster.sharing import Sharing
from acs_node.ids import ActivationIds
from acs_node.links import Result
from acs_node.peer_link import Peer


class Waiting:
    """A ``Controller`` with work that ends when ``let_go`` is set."""

    def __init__(self) -> None:
        self.accepts = True
        self.connected: object = None
        self.let_go = asyncio.Event()

    def connect(self, link: object) -> None:
        self.connected = link

    def stop_accepting(self) -> None:
        self.accepts = False

    def pause_accepting(self, why: str) -> None:
        assert why == CUT_OFF
        self.accepts = False

    def accept_again(self, why: str) -> None:
        assert why == CUT_OFF
        self.accepts = True

    async def drained(self) -> None:
        await self.let_go.wait()


def house(lease_lost: bool, tmp_path: Path) -> tuple[ControllerHouse, Waiting, list[str]]:
    lost = asyncio.get_running_loop().create_future()
    if lease_lost:
        lost.set_result(None)
    config = SimpleNamespace(lease_s=10, cluster="acs", data=str(tmp_path))
    lease = SimpleNamespace(lost=lost, is_valid=lambda: not lease_lost)
    node: Any = SimpleNamespace(config=config, etcd=None, lease=lease)
    made = ControllerHouse(node)
    cut: list[str] = []
    connection = SimpleNamespace(transport=SimpleNamespace(abort=lambda: cut.append("a client")))
    server: Any = SimpleNamespace(
        should_exit=False, server_state=SimpleNamespace(connections=[connection])
    )
    waiting: Any = Waiting()
    made._controller, made._server = waiting, server

    async def serve() -> None:
        while not cut and not waiting.let_go.is_set():
            await asyncio.sleep(0)

    made._serving = asyncio.ensure_future(serve())
    return made, waiting, cut


async def test_without_a_lease_nothing_is_waited_for(tmp_path: Path) -> None:
    made, waiting, cut = house(True, tmp_path)
    async with asyncio.timeout(20):
        await made.stop()
    assert not waiting.accepts
    assert not waiting.let_go.is_set()
    assert cut == ["a client"]


async def test_with_a_lease_what_was_accepted_ends_first(tmp_path: Path) -> None:
    made, waiting, cut = house(False, tmp_path)
    stopping = asyncio.ensure_future(made.stop())
    while waiting.accepts:
        await asyncio.sleep(0)
    assert not stopping.done()
    waiting.let_go.set()
    await stopping
    assert cut == []


async def test_what_does_not_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controller, "DRAIN_S", 0.0)
    made, _, cut = house(False, tmp_path)
    monkeypatch.setattr(controller.standalone, "end_clients", lambda *_: _ended(cut))
    await made.stop()
    assert "the stop takes too long" in caplog.text
    assert cut == ["by the end"]


async def _ended(cut: list[str]) -> None:
    cut.append("by the end")


async def test_results_that_come_before_it_has_started_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = house(False, tmp_path)
    there, made._controller = made._controller, None
    invoker = Peer(3, "i0", "i0-1")
    results = [Result(str(n), 0, b"{}", 0, 0, 0, 0, False, False) for n in range(3)]
    monkeypatch.setattr(controller, "EARLY_MAX", 2)
    made.receive(invoker, results[0])
    made.receive(invoker, results[1])
    with pytest.raises(OverflowError, match="2 messages came before this node has started"):
        made.receive(invoker, results[2])
    heard: list[object] = []
    assert there is not None
    there.receive = heard.append  # type: ignore[method-assign]
    made._begin(there)
    assert heard == results[:2]
    made.receive(invoker, results[2])
    assert heard == results


async def test_who_is_cut_off_accepts_nothing_until_it_is_not(tmp_path: Path) -> None:
    made, waiting, _ = house(True, tmp_path)
    made._look()
    assert not waiting.accepts
    link: Any = SimpleNamespace(up=True, peer=Peer(2, "s0", "s0-1"))
    made.linked(link)
    made._look()
    assert waiting.accepts


@pytest.mark.parametrize("valid", [True, False])
def test_a_node_that_counts_as_gone_elsewhere_ends_unless_its_lease_certainly_holds(
    valid: bool,
) -> None:
    lost: list[str] = []
    lease = SimpleNamespace(is_valid=lambda: valid, lose=lambda: lost.append("lost"))
    node: Any = SimpleNamespace(lease=lease)
    Node._disowned(node)
    assert lost == ([] if valid else ["lost"])


async def test_what_other_controllers_have_that_live_is_not_of_the_dead() -> None:
    mine, living, dead = (ActivationIds(number).next(0) for number in (1, 2, 3))

    async def numbers(prefix: str) -> tuple[list[Any], int]:
        assert prefix == "acs/number/"
        keys = ((b"acs/number/1", b"c0-1"), (b"acs/number/2", b"c1-1"))
        return [SimpleNamespace(key=key, value=value) for key, value in keys], 5

    sharing = Sharing.__new__(Sharing)
    sharing._cluster, sharing._instance = "acs", "c0-1"
    sharing._etcd = SimpleNamespace(list=numbers)  # type: ignore[assignment]
    assert await sharing.of_the_dead([mine, living, dead]) == [mine, dead]
