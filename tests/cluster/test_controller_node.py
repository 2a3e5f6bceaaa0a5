"""A controller among others, without the others: what it waits for at its end."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acs_node.cluster import controller
from acs_node.cluster.controller import ControllerHouse


class Waiting:
    """A ``Controller`` with work that ends when ``let_go`` is set."""

    def __init__(self) -> None:
        self.accepts = True
        self.let_go = asyncio.Event()

    def stop_accepting(self) -> None:
        self.accepts = False

    async def drained(self) -> None:
        await self.let_go.wait()


def house(lease_lost: bool, tmp_path: Path) -> tuple[ControllerHouse, Waiting, list[str]]:
    lost = asyncio.get_running_loop().create_future()
    if lease_lost:
        lost.set_result(None)
    config = SimpleNamespace(lease_s=10, cluster="acs", data=str(tmp_path))
    node: Any = SimpleNamespace(config=config, etcd=None, lease=SimpleNamespace(lost=lost))
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
