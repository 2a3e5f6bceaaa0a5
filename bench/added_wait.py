"""What the scheduler adds: from an activation's arrival until its ``/run`` is written.

First the closed-loop throughput, then an open loop at a share of it (default half), whose
arrivals come when they come, whether or not the ones before were answered.  The waits are the
server's own stamps; what the client saw is printed beside, with how late the generator was.
"""

from __future__ import annotations

import random
import select
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from standalone import (
    BODY,
    BenchFailed,
    Server,
    container_counts,
    folder,
    machine,
    parser,
    require_wrk,
    write_json,
)

from acs_node.waits import WaitHistogram

CONNECTIONS = 128
"""Requests in flight; more arrivals than that wait for a connection, which is seen as lateness."""

DRAIN_S = 30.0


@dataclass(slots=True)
class Seen:
    """What the client saw, in seconds.  ``latencies`` count from when a request was due."""

    latencies: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    errors: int = 0


class _Connection:
    """A keep-alive connection with at most one request under way, due at ``due_s``."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.due_s = 0.0

    def fileno(self) -> int:
        return self.socket.fileno()

    def answered(self) -> bytes | None:
        """Read what has come; return the answer when it is whole."""
        data = self.socket.recv(65_536)
        if not data:
            raise BenchFailed("the server closed a connection")
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return None
        answer, self.received = self.received, b""
        return answer


def arrivals(count: int, rate_per_s: float, poisson: bool) -> list[float]:
    """Return when requests are due, in seconds from the start."""
    chance = random.Random(1)
    due_s, times = 0.0, []
    for _ in range(count):
        due_s += chance.expovariate(rate_per_s) if poisson else 1.0 / rate_per_s
        times.append(due_s)
    return times


def open_loop(address: tuple[str, int], request: bytes, times: Sequence[float]) -> Seen:
    """Send ``request`` at each of the times and wait for all answers.

    ``select`` is used because its time-out has microseconds; epoll's has milliseconds, and
    would let arrivals come in bunches.
    """
    free = [_Connection(address) for _ in range(CONNECTIONS)]
    connections = list(free)
    due = deque(times)
    busy: set[_Connection] = set()
    seen = Seen()
    started_s = time.perf_counter()
    deadline_s = started_s + times[-1] + DRAIN_S
    try:
        while due or busy:
            now_s = time.perf_counter()
            while due and free and started_s + due[0] <= now_s:
                connection = free.pop()
                connection.due_s = started_s + due.popleft()
                connection.socket.sendall(request)
                busy.add(connection)
                now_s = time.perf_counter()
                seen.lateness.append(now_s - connection.due_s)
            if now_s > deadline_s:
                raise BenchFailed(f"{len(busy)} requests were not answered in {DRAIN_S:g} s")
            until_s = started_s + due[0] if due and free else deadline_s
            for connection in select.select(busy, [], [], max(0.0, until_s - now_s))[0]:
                answer = connection.answered()
                if answer is not None:
                    seen.latencies.append(time.perf_counter() - connection.due_s)
                    seen.errors += not answer.startswith(b"HTTP/1.1 200")
                    busy.discard(connection)
                    free.append(connection)
    finally:
        for connection in connections:
            connection.socket.close()
    return seen


def percentile_ms(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of seconds, in milliseconds."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1] * 1_000


def waits_between(before: Sequence[int], after: Sequence[int]) -> WaitHistogram:
    """Return the server's waits between two readings of its status."""
    waits = WaitHistogram()
    waits.counts = [new - old for old, new in zip(before, after, strict=True)]
    return waits


@dataclass(frozen=True, slots=True)
class Result:
    """One open loop; ``created`` counts the containers that came during it."""

    containers: int
    created: int
    closed_per_s: float
    offered_per_s: float
    answered: int
    errors: int
    wait_p50_ms: float
    wait_p99_ms: float
    client_p50_ms: float
    client_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float

    def print(self) -> None:
        print(f"\ncontainers {self.containers} (new {self.created})")
        print(f"  closed loop               {self.closed_per_s:9,.0f}/s")
        print(f"  open loop                 {self.offered_per_s:9,.0f}/s, errors {self.errors}")
        for name, p50, p99 in (
            ("added wait (server)", self.wait_p50_ms, self.wait_p99_ms),
            ("latency (client)", self.client_p50_ms, self.client_p99_ms),
            ("lateness of the generator", self.late_p50_ms, self.late_p99_ms),
        ):
            print(f"  {name:25} p50 {p50:8.3f} ms  p99 {p99:8.3f} ms", flush=True)


def measure(server: Server, seconds: int, share: float, poisson: bool) -> Result:
    """Measure a server: closed loop first, then the open one at ``share`` of it."""
    server.prime()
    closed_per_s = statistics.median(server.load(seconds).requests_per_s for _ in range(3))
    rate_per_s = closed_per_s * share
    request = (
        f"POST {server.path()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {server.authorization()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    address = ("127.0.0.1", server.process.port)
    open_loop(address, request, arrivals(int(rate_per_s), rate_per_s, poisson))  # settles
    times = arrivals(int(rate_per_s * seconds), rate_per_s, poisson)
    before = server.status()
    seen = open_loop(address, request, times)
    after = server.status()
    waits = waits_between(before["added_wait_counts"], after["added_wait_counts"])
    wait_p50_us, wait_p99_us = waits.percentile_us(50), waits.percentile_us(99)
    assert wait_p50_us is not None
    assert wait_p99_us is not None
    return Result(
        containers=after["containers"],
        created=after["containers_created"] - before["containers_created"],
        closed_per_s=closed_per_s,
        offered_per_s=len(times) / times[-1],
        answered=len(seen.latencies),
        errors=seen.errors,
        wait_p50_ms=wait_p50_us / 1_000,
        wait_p99_ms=wait_p99_us / 1_000,
        client_p50_ms=percentile_ms(seen.latencies, 50),
        client_p99_ms=percentile_ms(seen.latencies, 99),
        late_p50_ms=percentile_ms(seen.lateness, 50),
        late_p99_ms=percentile_ms(seen.lateness, 99),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("added wait on warm containers")
    options.add_argument("--share", type=float, default=0.5, help="of the closed-loop throughput")
    options.add_argument("--arrivals", choices=("poisson", "uniform"), default="poisson")
    options.add_argument("--containers", type=container_counts, default=[None, 16])
    chosen = options.parse_args(arguments)
    document: dict[str, Any] = {
        "sandbox": chosen.sandbox,
        "seconds": chosen.seconds,
        "share": chosen.share,
        "arrivals": chosen.arrivals,
        "machine": machine(),
    }
    print(f"sandbox {chosen.sandbox}, {chosen.arrivals} arrivals, {document['machine']}")
    results = []
    try:
        require_wrk()
        for containers in chosen.containers:
            with folder() as here, Server(here, chosen.sandbox, 1, containers) as server:
                poisson = chosen.arrivals == "poisson"
                results.append(measure(server, chosen.seconds, chosen.share, poisson))
                results[-1].print()
    except (BenchFailed, httpx.HTTPError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["results"] = [asdict(result) for result in results]
    write_json(chosen.json, document)
    return 1 if any(result.errors for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
