"""A test activation: whether this host can start a sandbox, run a function in it, and remove it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from typing import Any, Final

import orjson

from acs_core.sharding_supervision import InvocationResult

from . import clock
from .container_connection import ContainerConnection, FreshConnections
from .sandboxes import Sandbox, SandboxEngine, SandboxSpec

log = logging.getLogger(__name__)

TEST_S: Final = 60.0
"""How long all of it may take, as in OpenWhisk."""

MEMORY_MB: Final = 128
"""Beside what containers may have together: it is tested when few or none of them are there."""

CODES: Final = {
    "python": "def main(args):\n    return {'n': args['n']}\n",
    "nodejs": "function main(args) { return {n: args.n}; }\n",
}
"""By the family of the kind."""


class TestFailed(Exception):
    """The function did not do what it should have; the text says what came instead."""


class HealthTest:
    """Tests one engine with sandboxes of one kind."""

    def __init__(self, engine: SandboxEngine, kind: str) -> None:
        self._engine = engine
        self._kind = kind
        self._code = CODES[kind.partition(":")[0]]
        # Unique for ever, as names of containers are.
        self._names = map(f"h{secrets.token_hex(4)}-{{}}".format, itertools.count(1))
        # Of a test whose time was over: what still goes on.
        self._late: asyncio.Task[None] | None = None

    async def run(self) -> InvocationResult:
        """Test once."""
        # An engine that hangs is not asked for ever more.
        task = self._late or asyncio.ensure_future(self._try())
        self._late = task
        await asyncio.wait([task], timeout=TEST_S)
        if not task.done():
            log.warning("a test activation has not ended within %g s", TEST_S)
            return InvocationResult.TIMEOUT
        self._late = None
        error = task.exception()
        if error is not None:
            log.warning("a test activation failed: %s", error)
            return InvocationResult.SYSTEM_ERROR
        return InvocationResult.SUCCESS

    async def close(self) -> None:
        """End what is under way; the engine removes what it has begun."""
        if self._late is not None:
            self._late.cancel()
            await asyncio.wait([self._late])

    async def _try(self) -> None:
        sandbox = await self._engine.start(SandboxSpec(next(self._names), self._kind, MEMORY_MB))
        try:
            await self._use(sandbox)
        finally:
            await self._engine.remove(sandbox)

    async def _use(self, sandbox: Sandbox) -> None:
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_lost() -> None:
            if not lost.done():
                lost.set_exception(TestFailed("its connection ended"))

        connection: ContainerConnection | FreshConnections
        if sandbox.port:
            connection = FreshConnections(sandbox.port, on_lost)
        else:
            connection = await ContainerConnection.open(sandbox.socket_path, on_lost)
        try:
            code = {"name": "healthTest", "main": "main", "binary": False, "code": self._code}
            await _post(connection, lost, b"/init", {"value": {**code, "env": {}}})
            number = secrets.randbelow(1_000_000)
            deadline_ms = clock.wall_ms() + int(TEST_S * 1000)
            run = {"value": {"n": number}, "deadline": str(deadline_ms)}
            answer = await _post(connection, lost, b"/run", run)
            if orjson.loads(answer) != {"n": number}:
                raise TestFailed(f"it answered {answer!r:.200}")
        finally:
            connection.close()
            lost.cancel()


async def _post(
    connection: ContainerConnection | FreshConnections,
    lost: asyncio.Future[None],
    route: bytes,
    document: object,
) -> bytes:
    """Return the body of a good answer.  Raises: TestFailed."""
    answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def on_reply(status: int, body: bytes, size: int) -> None:
        if not answered.done():
            answered.set_result((status, body))

    connection.post(route, orjson.dumps(document), on_reply)
    ends: list[asyncio.Future[Any]] = [answered, lost]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not answered.done():
        lost.result()
    status, body = answered.result()
    if status != 200:
        raise TestFailed(f"{route.decode()} answered {status}: {body!r:.200}")
    return body
