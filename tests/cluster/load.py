"""A steady load on a cluster, and a checker that does not take the platform's word.

Functions append to a log of their own when they start: (activation id, process, time).  Together
with what clients were told and what the records say, it shows whether anything was lost, or
started twice.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import WAITS_AT_GATE, eventually

CODE = """\
import os, time

def main(args):
    log = os.open(args["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = f"{os.environ['__OW_ACTIVATION_ID']} {os.getpid()} {time.time():.6f}\\n"
    os.write(log, line.encode())
    os.close(log)
    time.sleep(args["ms"] / 1000)
    return {"n": args["n"]}
"""

WAITS = (
    WAITS_AT_GATE
    + """
def main(args):
    open(args["started"], "w").close()
    at_gate(args)
    return {}
"""
)


class Client:
    """One keep-alive connection; dialled anew when it breaks."""

    def __init__(self, url: str, auth: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self._auth = base64.b64encode(auth.encode()).decode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON.  Raises: OSError when the connection broke on the way."""
        text = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /api/v1/namespaces/_/{path} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Basic {self._auth}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(30):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address)
                reader, writer = self._streams
                writer.write(head.encode() + text)
                answer = await reader.readuntil(b"\r\n\r\n")
                lines = answer.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                content = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise OSError(f"{method} {path}: {error!r}") from None
        return int(lines[0].split(" ")[1]), json.loads(content) if content else None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Load:
    """Users that invoke one after the other until ``stop``; half of them do not wait."""

    url: str
    auth: str
    log: Path
    users: int = 8
    actions: int = 4
    ms: tuple[int, ...] = (2, 10, 40)
    accepted: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    answered_s: list[float] = field(default_factory=list)
    _stopping: bool = False

    async def deploy(self) -> None:
        client = Client(self.url, self.auth)
        for n in range(self.actions):
            body = {
                "exec": {"kind": "python:3", "code": CODE},
                "limits": {"memory": 128, "logs": 0, "timeout": 20_000},
            }
            status, answer = await client.request("PUT", f"actions/load{n}?overwrite=true", body)
            assert status == 200, answer
        client.close()

    async def run(self, during: Callable[[], Any]) -> None:
        """Load while ``during`` runs in a thread, then let the users finish."""
        users = [asyncio.ensure_future(self._user(n)) for n in range(self.users)]
        try:
            await asyncio.to_thread(during)
        finally:
            self._stopping = True
            await asyncio.gather(*users)

    async def _user(self, number: int) -> None:
        client = Client(self.url, self.auth)
        blocking = "true" if number % 2 else "false"
        turn = number
        while not self._stopping:
            turn += 1
            action = f"load{turn % self.actions}"
            body = {"log": str(self.log), "n": turn, "ms": self.ms[turn % len(self.ms)]}
            try:
                status, answer = await client.request(
                    "POST", f"actions/{action}?blocking={blocking}", body
                )
            except OSError:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            self.statuses[status] += 1
            if status in (200, 202, 500, 502):
                self.accepted.add(answer["activationId"])
                self.answered_s.append(time.monotonic())
                if status == 202:
                    await asyncio.sleep(0.02)  # as fast as those who wait
            else:
                await asyncio.sleep(0.05)
        client.close()


@dataclass
class Verdict:
    """What became of the accepted activations."""

    accepted: int
    ended: int
    unknown: int
    failed: list[str]  # definite failures, with their texts
    lost: list[str]  # accepted, and no record
    twice: list[str]  # started more than once
    unrun: list[str]  # recorded as a success, and never started


async def check(load: Load, within_s: float = 40.0) -> Verdict:
    """Compare what was accepted, the records, and the functions' own log."""
    client = Client(load.url, load.auth)
    records: dict[str, Any] = {}
    missing = set(load.accepted)

    async def all_there() -> bool:
        for id_ in list(missing):
            try:
                status, answer = await client.request("GET", f"activations/{id_}")
            except OSError:
                break
            if status == 200:
                records[id_] = answer
                missing.discard(id_)
        return not missing

    with contextlib.suppress(AssertionError):  # what is missing is part of the verdict
        await eventually(all_there, "all records", within_s)
    client.close()
    lines = load.log.read_text().splitlines() if load.log.exists() else []
    starts = Counter(line.split()[0] for line in lines)
    unknown, failed, unrun = 0, [], []
    for id_, record in records.items():
        response = record["response"]
        if response["success"]:
            if id_ not in starts:
                unrun.append(id_)
            continue
        text = str(response["result"].get("error"))
        if "not known whether" in text or "unknown whether" in text:
            unknown += 1
        else:
            failed.append(text)
    return Verdict(
        accepted=len(load.accepted),
        ended=len(records),
        unknown=unknown,
        failed=failed,
        lost=sorted(missing),
        twice=[id_ for id_, count in starts.items() if count > 1],
        unrun=unrun,
    )


def pause(seconds: float) -> None:
    """Let the load go on for a while: the time itself is what is tested."""
    time.sleep(seconds)


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
