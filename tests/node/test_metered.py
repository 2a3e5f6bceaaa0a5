"""The meter of an engine: what is counted, for how long it was busy, and who closes it."""

import asyncio
from typing import Any, cast

import pytest

from acs_node import clock
from acs_node.sandboxes import Sandbox, SandboxEnd, SandboxError, SandboxSpec
from acs_node.sandboxes.metered import MeteredEngine


class FakeEngine:
    """Does nothing, when it may; or fails."""

    name = "fake"

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.error: Exception | None = None
        self.closed = 0

    async def _do(self) -> None:
        await self.may_go_on.wait()
        if self.error:
            raise self.error

    async def start(self, spec: SandboxSpec) -> Any:
        await self._do()
        return spec

    async def pause(self, sandbox: Sandbox) -> None:
        await self._do()

    async def resume(self, sandbox: Sandbox) -> None:
        await self._do()

    async def remove(self, sandbox: Sandbox) -> None:
        await self._do()

    async def ending(self, sandbox: Sandbox) -> SandboxEnd:
        return SandboxEnd("exited with status 3")

    async def remove_leftovers(self) -> int:
        return 7

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that stands until its one number is changed."""
    now = [1_000_000]
    monkeypatch.setattr(clock, "now_us", lambda: now[0])
    return now


SPEC = SandboxSpec("c1", "python:3", 256)


BOX = cast(Sandbox, object())


async def test_everything_is_passed_on_and_counted(now: list[int]) -> None:
    metered = MeteredEngine(FakeEngine())
    assert metered.name == "fake"
    assert await metered.start(SPEC) is SPEC  # type: ignore[comparison-overlap]
    await metered.pause(BOX)
    await metered.resume(BOX)
    await metered.remove(BOX)
    assert (await metered.ending(BOX)).cause == "exited with status 3"
    assert await metered.remove_leftovers() == 7
    assert metered.document() == {
        "started": 1, "removed": 1, "paused": 1, "resumed": 1, "failed": 0, "busy_ms": 0,
    }  # fmt: skip


async def test_calls_at_the_same_time_count_once(now: list[int]) -> None:
    engine = FakeEngine()
    metered = MeteredEngine(engine)
    engine.may_go_on.clear()
    first = asyncio.ensure_future(metered.start(SPEC))
    await asyncio.sleep(0)
    now[0] += 3_000
    second = asyncio.ensure_future(metered.start(SPEC))
    await asyncio.sleep(0)
    now[0] += 4_000
    assert metered.document()["busy_ms"] == 7, "what is under way counts so far"
    engine.may_go_on.set()
    await asyncio.gather(first, second)
    now[0] += 9_000  # nothing is under way
    assert metered.document()["busy_ms"] == 7
    assert metered.document()["started"] == 2


async def test_what_fails_is_no_start(now: list[int]) -> None:
    engine = FakeEngine()
    engine.error = SandboxError("planted")
    metered = MeteredEngine(engine)
    with pytest.raises(SandboxError, match="planted"):
        await metered.start(SPEC)
    assert (metered.document()["started"], metered.document()["failed"]) == (0, 1)


async def test_it_closes_with_the_last_of_its_users(now: list[int]) -> None:
    engine = FakeEngine()
    metered = MeteredEngine(engine, users=2)
    await metered.close()
    assert engine.closed == 0
    await metered.close()
    assert engine.closed == 1
