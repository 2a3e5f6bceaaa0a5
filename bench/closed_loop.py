"""A closed loop of users against one server: each waits for its answer and asks again.

A program of its own, so that it has a processor of its own: ``python closed_loop.py`` reads a
``Plan`` as JSON from standard input and writes what came of it to standard output.  After its
containers are made no user leaves: what waits in the server when measuring begins is their work.
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
JOIN_AT_ONCE = 100
LOOK_S = 0.25
"""Between two looks at what the server says of itself."""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many users, with those of the stages before, measured for ``seconds``.

    Warming up ends when the server has named the same work of its engine for ``Plan.still_s``,
    after ``warm_max_s`` at the latest.
    """

    users: int
    seconds: float
    warm_max_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: user ``u`` sends ``requests[u % len(requests)]`` again and again.

    Before the stage of this index, ``prime_users`` send ``prime_requests`` instead, until their
    server has ``prime_to`` containers and, for ``still_s``, no more than before, ``prime_max_s`` at
    the longest.
    """

    port: int
    status_url: str
    requests: list[str]
    stages: list[Stage]
    still_s: float
    prime_before: int
    prime_requests: list[str]
    prime_users: int
    prime_to: int
    prime_max_s: float

    def longest_s(self) -> float:
        """Return how long it may take."""
        return self.prime_max_s + sum([each.warm_max_s + each.seconds for each in self.stages])


@dataclass(slots=True)
class Loop:
    """What happened in a stage.

    ``latency_ms`` is of what was answered in the measured time, whenever it was sent;
    ``at_least_ms`` counts also each user who still waited at its end, with the time so far, which
    is less than it will have been.  ``answered`` is how many, by the request's number.
    """

    users: int
    statuses: dict[str, int]
    measured_s: float
    warm_s: float
    prime_s: float
    still: bool
    answered: list[int]
    latency_ms: dict[str, float]
    at_least_ms: dict[str, float]
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


def run(plan: Plan) -> list[Loop]:
    """Run the plan in a process of its own.  Raises: RuntimeError, and TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.longest_s() + 60,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator ended with code {done.returncode}: {done.stderr}")
    return [Loop(**each) for each in json.loads(done.stdout)]


class Meter:
    """What all users tell; it counts only while it is on."""

    def __init__(self, requests: int) -> None:
        self.on = False
        self.stopping = False
        self.statuses: dict[str, int] = {}
        self.latencies: list[list[float]] = [[] for _ in range(requests)]

    def begin(self) -> None:
        """Count from now on, from nothing."""
        self.statuses = {}
        self.latencies = [[] for _ in self.latencies]
        self.on = True

    def answered(self, request: int, status: str, took_s: float) -> None:
        if self.on:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.latencies[request].append(took_s)


class User(asyncio.Protocol):
    """One user with a connection of its own; ``body`` is what it asks for next."""

    def __init__(self, meter: Meter, request: int, body: bytes) -> None:
        self._meter = meter
        self._request = request
        self.body = body
        self.sent_s = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._send()

    def leave(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        end = buffer.find(_END)
        if end < 0 or len(buffer) < end + len(_END) + _length(buffer[:end]):
            return
        self._buffer = b""
        took_s = time.perf_counter() - self.sent_s
        self._meter.answered(self._request, buffer[9:12].decode(), took_s)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._meter.stopping:
            self._meter.answered(self._request, "broken", time.perf_counter() - self.sent_s)

    def _send(self) -> None:
        assert self._transport is not None
        self.sent_s = time.perf_counter()
        self._transport.write(self.body)


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


class Crowd:
    """The users of one plan."""

    def __init__(self, plan: Plan, client: httpx.AsyncClient) -> None:
        self._plan = plan
        self._client = client
        self._meter = Meter(len(plan.requests))
        self._bodies = [request.encode() for request in plan.requests]
        self._users: list[User] = []
        self.prime_s = 0.0

    async def join(self, users: int) -> None:
        """Let users come until there are so many; one by one takes long where all are busy."""
        while (here := len(self._users)) < users:
            numbers = range(here, min(users, here + JOIN_AT_ONCE))
            self._users += await asyncio.gather(*[self._come(number) for number in numbers])

    async def _come(self, number: int) -> User:
        request = number % len(self._bodies)
        user = User(self._meter, request, self._bodies[request])
        loop = asyncio.get_running_loop()
        _, here = await loop.create_connection(lambda: user, "127.0.0.1", self._plan.port)
        return here

    async def prime(self, stay: int) -> None:
        """Have the server make its containers, see ``Plan``; so many users stay."""
        plan = self._plan
        own, self._bodies = self._bodies, [each.encode() for each in plan.prime_requests]
        for number, user in enumerate(self._users):
            user.body = self._bodies[number % len(own)]
        begun_s = time.monotonic()
        await self.join(plan.prime_users)
        most, grown_s = -1, begun_s
        while (now_s := time.monotonic()) - begun_s < plan.prime_max_s:
            engine = (await self._status())["engine"]
            there = engine["started"] - engine["removed"]
            if there > most:
                most, grown_s = there, now_s
            elif now_s - grown_s >= plan.still_s and there >= plan.prime_to:
                break
            await asyncio.sleep(LOOK_S)
        for user in self._users[stay:]:
            user.leave()
        del self._users[stay:]
        self._bodies = own
        for number, user in enumerate(self._users):
            user.body = own[number % len(own)]
        self.prime_s = time.monotonic() - begun_s

    async def measure(self, stage: Stage) -> Loop:
        """Let the users of the stage come, warm up, and measure."""
        await self.join(stage.users)
        warm_s, still = await self._warm_up(stage)
        meter = self._meter
        before = await self._status()
        meter.begin()
        begun_s = time.monotonic()
        await asyncio.sleep(stage.seconds)
        meter.on = False
        measured_s = time.monotonic() - begun_s
        ended_s = time.perf_counter()
        waiting = [ended_s - user.sent_s for user in self._users]
        everything = [took_s for each in meter.latencies for took_s in each]
        return Loop(
            stage.users,
            meter.statuses,
            measured_s,
            warm_s,
            self.prime_s,
            still,
            [len(each) for each in meter.latencies],
            in_ms(everything),
            in_ms([*everything, *waiting]),
            [in_ms(each)["p99"] for each in meter.latencies],
            before,
            await self._status(),
        )

    def leave(self) -> None:
        """Let all go."""
        self._meter.stopping = True
        for user in self._users:
            user.leave()

    async def _warm_up(self, stage: Stage) -> tuple[float, bool]:
        """Wait until the engine is still; return for how long that took, and whether it is."""
        begun_s = changed_s = time.monotonic()
        done: dict[str, int] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = time.monotonic()
            engine = (await self._status())["engine"]
            if engine != done:  # its busy time among it: something is under way
                done, changed_s = engine, now_s
            still = now_s - changed_s >= self._plan.still_s
            if still or now_s - begun_s >= stage.warm_max_s:
                return now_s - begun_s, still

    async def _status(self) -> dict[str, Any]:
        reply = await self._client.get(self._plan.status_url)
        found: dict[str, Any] = reply.raise_for_status().json()
        found.pop("added_wait_counts", None)
        return found


async def measure(plan: Plan) -> list[Loop]:
    """Load the server stage by stage."""
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(str(context)))
    loops = []
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        crowd = Crowd(plan, client)
        for number, stage in enumerate(plan.stages):
            if number == plan.prime_before:
                await crowd.prime(stage.users)
            loops.append(await crowd.measure(stage))
        crowd.leave()
    if faults:
        raise RuntimeError(f"{len(faults)} faults of the load generator: {faults[0]}")
    return loops


def main() -> None:
    """Do what standard input says."""
    given = json.load(sys.stdin)
    plan = Plan(**given | {"stages": [Stage(**each) for each in given["stages"]]})
    json.dump([asdict(each) for each in uvloop.run(measure(plan))], sys.stdout)


if __name__ == "__main__":
    main()
