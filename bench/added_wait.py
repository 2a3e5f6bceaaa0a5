"""What the scheduler adds: from an activation's arrival until its ``/run`` is written.

First the closed-loop throughput, then an open loop at a share of it (default half), whose
arrivals come when they come, whether or not the ones before were answered.  The waits are the
server's own stamps; what the client saw is printed beside, with how late the generator was.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
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


@dataclass(slots=True)
class Seen:
    """What the client saw, in seconds.  ``latencies`` count from when a request was due."""

    latencies: list[float]
    lateness: list[float]
    errors: int


def arrivals(count: int, rate_per_s: float, poisson: bool) -> list[float]:
    """Return when requests are due, in seconds from the start."""
    chance = random.Random(1)
    due_s, times = 0.0, []
    for _ in range(count):
        due_s += chance.expovariate(rate_per_s) if poisson else 1.0 / rate_per_s
        times.append(due_s)
    return times


@contextmanager
def generator() -> Iterator[Path]:
    """Compile ``open_loop.c``: one in Python would take a core from what is measured."""
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        program = Path(folder) / "open_loop"
        source = Path(__file__).with_name("open_loop.c")
        done = subprocess.run(
            ["cc", "-O2", "-o", program, source], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchFailed(f"{source.name} does not compile: {done.stderr}")
        yield program


def open_loop(program: Path, port: int, request: bytes, times: Sequence[float]) -> Seen:
    """Send ``request`` at each of the times and wait for all answers."""
    file = program.with_name("request")
    file.write_bytes(request)
    done = subprocess.run(
        [program, str(port), str(CONNECTIONS), file],
        input=array("d", times).tobytes(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(done.stderr.decode().strip())
    seen = array("d", done.stdout)
    errors = sum(status != 200 for status in seen[2::3])
    return Seen(list(seen[0::3]), list(seen[1::3]), errors)


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
    """One open loop at ``share`` of the closed one's throughput.

    ``created`` counts the containers that came during it; ``processors_busy`` is the share of the
    machine's processor time that anybody used.
    """

    containers: int
    created: int
    closed_per_s: float
    share: float
    offered_per_s: float
    processors_busy: float
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
        print(
            f"  open loop                 {self.offered_per_s:9,.0f}/s, errors {self.errors}, "
            f"processors {self.processors_busy:.0%} busy"
        )
        for name, p50, p99 in (
            ("added wait (server)", self.wait_p50_ms, self.wait_p99_ms),
            ("latency (client)", self.client_p50_ms, self.client_p99_ms),
            ("lateness of the generator", self.late_p50_ms, self.late_p99_ms),
        ):
            print(f"  {name:25} p50 {p50:8.3f} ms  p99 {p99:8.3f} ms", flush=True)


def processor_time() -> tuple[int, int]:
    """Return what the machine's processors have idled and were there, in ticks."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def measure(
    server: Server, program: Path, seconds: int, shares: Sequence[float], poisson: bool
) -> list[Result]:
    """Measure a server: closed loop first, then an open one at each of the shares of it."""
    server.prime()
    closed_per_s = statistics.median(server.load(seconds).requests_per_s for _ in range(3))
    return [_measure_open(server, program, seconds, closed_per_s, each, poisson) for each in shares]


def _measure_open(
    server: Server,
    program: Path,
    seconds: int,
    closed_per_s: float,
    share: float,
    poisson: bool,
) -> Result:
    rate_per_s = closed_per_s * share
    request = (
        f"POST {server.path()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {server.authorization()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    port = httpx.URL(server.process.url).port
    assert port is not None
    open_loop(program, port, request, arrivals(int(rate_per_s), rate_per_s, poisson))  # settles
    times = arrivals(int(rate_per_s * seconds), rate_per_s, poisson)
    before, (idle_before, all_before) = server.status(), processor_time()
    seen = open_loop(program, port, request, times)
    after, (idle_after, all_after) = server.status(), processor_time()
    waits = waits_between(before["added_wait_counts"], after["added_wait_counts"])
    wait_p50_us, wait_p99_us = waits.percentile_us(50), waits.percentile_us(99)
    assert wait_p50_us is not None
    assert wait_p99_us is not None
    return Result(
        containers=after["containers"],
        created=after["containers_created"] - before["containers_created"],
        closed_per_s=closed_per_s,
        share=share,
        offered_per_s=len(times) / times[-1],
        processors_busy=1 - (idle_after - idle_before) / (all_after - all_before),
        answered=len(seen.latencies),
        errors=seen.errors,
        wait_p50_ms=wait_p50_us / 1_000,
        wait_p99_ms=wait_p99_us / 1_000,
        client_p50_ms=percentile_ms(seen.latencies, 50),
        client_p99_ms=percentile_ms(seen.latencies, 99),
        late_p50_ms=percentile_ms(seen.lateness, 50),
        late_p99_ms=percentile_ms(seen.lateness, 99),
    )


def read_shares(text: str) -> list[float]:
    """Read ``0.25,0.5``."""
    found = [float(part) for part in text.split(",")]
    if not all(0 < each <= 1 for each in found):
        raise argparse.ArgumentTypeError(f"{text}: each must be more than 0 and at most 1")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("added wait on warm containers")
    options.add_argument(
        "--shares", type=read_shares, default=[0.5], help="of the closed loop, as 0.25,0.5"
    )
    options.add_argument("--arrivals", choices=("poisson", "uniform"), default="poisson")
    options.add_argument("--containers", type=container_counts, default=[None, 16])
    chosen = options.parse_args(arguments)
    document: dict[str, Any] = {
        "sandbox": chosen.sandbox,
        "seconds": chosen.seconds,
        "shares": chosen.shares,
        "arrivals": chosen.arrivals,
        "machine": machine(),
    }
    print(f"sandbox {chosen.sandbox}, {chosen.arrivals} arrivals, {document['machine']}")
    results: list[Result] = []
    try:
        require_wrk()
        for containers in chosen.containers:
            with (
                generator() as program,
                folder() as here,
                Server(here, chosen.sandbox, 1, containers) as server,
            ):
                poisson = chosen.arrivals == "poisson"
                found = measure(server, program, chosen.seconds, chosen.shares, poisson)
                for result in found:
                    result.print()
                results += found
    except (BenchFailed, httpx.HTTPError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["results"] = [asdict(result) for result in results]
    write_json(chosen.json, document)
    return 1 if any(result.errors for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
