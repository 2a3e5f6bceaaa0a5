"""A steady, open load of mixed actions on the REST API: so many a second, whatever becomes of them.

Who waits for an answer delays nobody: an outage is seen as it is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CONNECTIONS_MAX: Final = 4_000
"""Invocations under way; what would come beyond is counted as not sent."""

ANSWER_S: Final = 100.0
"""How long an answer is waited for; a blocking invocation may take 60 s."""

CODE: Final = """\
import os, socket, time

_HERE = f"{os.getpid()}.{time.monotonic_ns()} {os.stat('/proc/self/ns/net').st_ino}"
_TO = []

def _open(path, port):
    if os.path.isdir(os.path.dirname(path)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return lambda line: os.write(file, line)
    # In a container of an engine: the host is its gateway.
    with open("/proc/net/route") as routes:
        gateway = next(r.split()[2] for r in routes if r.split()[1] == "00000000")
    host = socket.inet_ntoa(bytes.fromhex(gateway)[::-1])
    stream = socket.create_connection((host, port), 10)
    return lambda line: (stream.sendall(line), stream.recv(1))

def _say(args, word):
    if not _TO:
        _TO.append(_open(args["log"], args["port"]))
    # The one clock that all processes have in common, and that nobody sets.
    line = f"{word} {os.environ['__OW_ACTIVATION_ID']} {_HERE} {time.monotonic():.6f}\\n"
    _TO[0](line.encode())

def main(args):
    _say(args, "S")
    time.sleep(args["ms"] / 1000)
    _say(args, "E")
    return {"n": args["n"]}
"""
"""What each action runs: it says itself when and where it starts and ends."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Actions of one duration; ``weight`` is their share of all invocations."""

    name: str
    ms: int
    weight: float


MIX: Final = (
    Kind("short0", 2, 0.30),
    Kind("short1", 2, 0.25),
    Kind("short2", 2, 0.20),
    Kind("middle0", 20, 0.15),
    Kind("middle1", 20, 0.07),
    Kind("long", 200, 0.026),
    Kind("longest", 5_000, 0.004),
)


@dataclass(slots=True)
class Sent:
    """An accepted activation; ``n`` comes back in its result."""

    n: int
    at_s: float
    status: int


_ID: Final = re.compile(rb'"activationId":"([0-9a-f]{32})"')
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass
class SteadyLoad:
    """``rate`` invocations a second until ``stop``, every second one of which waits.

    With ``users`` instead of a rate: so many at a time, the next one when one is answered.
    """

    address: tuple[str, int]
    auth: str
    log: Path
    rate: float = 0.0
    users: int = 0
    port: int = 0
    """Where functions tell of their runs that do not see the log."""
    mix: Sequence[Kind] = MIX
    seed: int = 1
    accepted: dict[str, Sent] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    answered: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._authorization = base64.b64encode(self.auth.encode()).decode()
        self._idle: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def deploy(self) -> None:
        """Put the actions."""
        for kind in self.mix:
            body = {
                "exec": {"kind": "python:3", "code": CODE},
                "limits": {"memory": 128, "logs": 0, "timeout": 20_000},
            }
            status, answer = await self.ask("PUT", f"actions/{kind.name}?overwrite=true", body)
            assert status == 200, (status, answer)

    async def run(self) -> None:
        """Load until ``stop``, then wait for the answers that are due."""
        if self.users:
            for _ in range(self.users):
                self._begin(self._user())
        else:
            await self._arrive()
        await self._stopping.wait()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        for connection in self._idle:
            connection.close()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping.set()

    async def _arrive(self) -> None:
        begun_s = time.monotonic()
        while not self._stopping.is_set():
            due = int((time.monotonic() - begun_s) * self.rate)
            while self.sent < due:
                self.sent += 1
                if len(self._tasks) < CONNECTIONS_MAX:
                    self._begin(self._invoke())
                else:
                    self.answers["not sent"] += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.005)

    async def _user(self) -> None:
        while not self._stopping.is_set():
            self.sent += 1
            await self._invoke(blocking=True)

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _invoke(self, blocking: bool | None = None) -> None:
        n = self.sent
        (kind,) = self._chance.choices(self.mix, [each.weight for each in self.mix])
        waits = n % 2 == 0 if blocking is None else blocking
        body = {"log": str(self.log), "n": n, "ms": kind.ms, "port": self.port}
        path = f"actions/{kind.name}?blocking={'true' if waits else 'false'}"
        try:
            status, content = await self._request("POST", path, body)
        except OSError as error:
            self.answers["no connection" if "connect" in str(error).lower() else "broken"] += 1
            return
        self.answered += 1
        self.answers[str(status)] += 1
        found = _ID.search(content)
        # An error of the function or the platform is an end as well; it has a record.
        if status in (200, 202, 500, 502) and found is not None:
            self.accepted[found[1].decode()] = Sent(n, time.monotonic(), status)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON of another request.  Raises: OSError."""
        status, content = await self._request(method, path, body)
        return status, json.loads(content) if content else None

    async def _request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        text = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /api/v1/namespaces/_/{path} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Basic {self._authorization}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        )
        connection = self._idle.pop() if self._idle else None
        if connection is None or connection.lost:
            try:
                async with asyncio.timeout(ANSWER_S):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        _Connection, *self.address
                    )
            except (OSError, TimeoutError) as error:
                raise OSError(f"connect: {error!r}") from None
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await connection.ask(head.encode() + text)
        except TimeoutError:
            connection.close()
            raise OSError(f"no answer within {ANSWER_S:g} s") from None
        self._idle.append(connection)
        return answer


class _Connection(asyncio.Protocol):
    """One request at a time over HTTP/1.1, as far as the controller's answers need it."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: Any = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self.lost:
            raise OSError("the connection broke")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) >= whole:
            status, content = int(self._buffer[9:12]), self._buffer[end + 4 : whole]
            self._buffer = self._buffer[whole:]
            if self._answer is not None and not self._answer.done():
                self._answer.set_result((status, content))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(OSError(f"the stream broke: {error!r}"))

    def close(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
