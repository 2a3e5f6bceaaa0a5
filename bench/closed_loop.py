"""A closed loop of users against one server: each waits for its answer and asks again.

A program of its own, so that it has a processor of its own: ``python closed_loop.py`` reads a
``Plan`` as JSON from standard input and writes what came of it to standard output.  It warms up and
measures on the same connections: what waits in the server when measuring begins is work of the
same users.  Latency is that of requests answered in the measured time, whenever they were sent.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httpx
import uvloop

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: user ``u`` sends ``requests[u % len(requests)]`` again and again.

    Warming up ends when ``status_url`` names the same work of the engine for ``still_s``, after
    ``warm_min_s`` at the earliest and ``warm_max_s`` at the latest; "": after ``warm_min_s``.
    """

    port: int
    requests: list[str]
    users: int
    seconds: float
    warm_min_s: float
    warm_max_s: float
    status_url: str = ""
    still_s: float = 4.0


@dataclass(slots=True)
class Loop:
    """What happened; ``latencies_us`` of each request, by its number."""

    statuses: dict[str, int]
    measured_s: float
    warm_s: float
    still: bool
    answered: list[int]
    latency_ms: dict[str, float]
    latency_p99_ms: list[float]
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def tps(self) -> float:
        """Answers of success a second."""
        return self.statuses.get("200", 0) / self.measured_s

    def errors(self) -> int:
        """Answers other than success, and connections that broke."""
        return sum([count for status, count in self.statuses.items() if status != "200"])


def run(plan: Plan) -> Loop:
    """Run the plan in a process of its own.  Raises: RuntimeError, and TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.warm_max_s + plan.seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator ended with code {done.returncode}: {done.stderr}")
    return Loop(**json.loads(done.stdout))


class Meter:
    """What all users of a run tell; it counts only while it is on."""

    def __init__(self, requests: int) -> None:
        self.on = False
        self.stopping = False
        self.statuses: dict[str, int] = {}
        self.latencies: list[list[float]] = [[] for _ in range(requests)]

    def answered(self, request: int, status: str, took_s: float) -> None:
        if self.on:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.latencies[request].append(took_s)


class User(asyncio.Protocol):
    """One user with a connection of its own."""

    def __init__(self, meter: Meter, request: int, body: bytes) -> None:
        self._meter = meter
        self._request = request
        self._body = body
        self._sent_s = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        end = buffer.find(_END)
        if end < 0 or len(buffer) < end + len(_END) + _length(buffer[:end]):
            return
        self._buffer = b""
        took_s = time.perf_counter() - self._sent_s
        self._meter.answered(self._request, buffer[9:12].decode(), took_s)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._meter.stopping:
            self._meter.answered(self._request, "broken", time.perf_counter() - self._sent_s)

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_s = time.perf_counter()
        self._transport.write(self._body)


def _length(head: bytes) -> int:
    """Return the length of the body that a response's head announces, 0 where it does not."""
    at = head.lower().find(_LENGTH)
    return 0 if at < 0 else int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])


def percentile(ordered: list[float], percent: float) -> float:
    """Return the smallest value that so many percent do not exceed, 0 without values."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else 0.0


def in_ms(latencies: list[float]) -> dict[str, float]:
    """Sum up latencies."""
    ordered = sorted(latencies)
    mean = sum(ordered) / len(ordered) if ordered else 0.0
    shares = {f"p{p:g}": percentile(ordered, p) for p in (50, 99, 99.9)}
    return {name: round(1_000 * each, 3) for name, each in {"mean": mean, **shares}.items()}


async def _status(url: str) -> dict[str, Any]:
    if not url:
        return {}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        found: dict[str, Any] = (await client.get(url)).raise_for_status().json()
    found.pop("added_wait_counts", None)
    return found


async def _warm_up(plan: Plan) -> tuple[float, bool]:
    """Wait until the containers are there; return for how long, and whether they are."""
    begun_s = changed_s = time.monotonic()
    done: dict[str, int] = {}
    while True:
        await asyncio.sleep(0.25)
        now_s = time.monotonic()
        if plan.status_url:
            engine = (await _status(plan.status_url))["engine"]
            if engine != done:  # its busy time among it: something is under way
                done, changed_s = engine, now_s
        still = not plan.status_url or now_s - changed_s >= plan.still_s
        warm_s = now_s - begun_s
        if (still and warm_s >= plan.warm_min_s) or warm_s >= plan.warm_max_s:
            return warm_s, still


async def measure(plan: Plan) -> Loop:
    """Load the server, and measure when it is warm."""
    loop = asyncio.get_running_loop()
    faults: list[str] = []
    loop.set_exception_handler(lambda _, context: faults.append(str(context)))
    meter = Meter(len(plan.requests))
    bodies = [request.encode() for request in plan.requests]
    transports = []
    for user in range(plan.users):
        request = user % len(bodies)
        transport, _ = await loop.create_connection(
            lambda request=request: User(meter, request, bodies[request]), "127.0.0.1", plan.port
        )
        transports.append(transport)
    warm_s, still = await _warm_up(plan)
    before = await _status(plan.status_url)
    meter.on = True
    begun_s = time.monotonic()
    await asyncio.sleep(plan.seconds)
    meter.on = False
    measured_s = time.monotonic() - begun_s
    meter.stopping = True
    after = await _status(plan.status_url)
    for transport in transports:
        transport.abort()
    if faults:
        raise RuntimeError(f"{len(faults)} faults of the load generator: {faults[0]}")
    everything = [took_s for each in meter.latencies for took_s in each]
    return Loop(
        meter.statuses,
        measured_s,
        warm_s,
        still,
        [len(each) for each in meter.latencies],
        in_ms(everything),
        [in_ms(each)["p99"] for each in meter.latencies],
        before,
        after,
    )


def main() -> None:
    """Do what standard input says."""
    plan = Plan(**json.load(sys.stdin))
    json.dump(asdict(uvloop.run(measure(plan))), sys.stdout)


if __name__ == "__main__":
    main()
