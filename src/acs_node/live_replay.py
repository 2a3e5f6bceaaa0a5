"""A load sent to a running server in scaled time: what its users would have seen.

Each action of the load becomes a function that sleeps as long as the load's call ran.  Calls are
sent when they are due, whether or not earlier ones were answered; ``speed`` divides all times, so a
container's creation weighs as much more as time runs faster.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from acs_core.workload import Shape, Workload

CALLS_MAX: Final = 5_000
"""Calls that wait for their answer at once; one more waits until another is answered."""

CALL_S: Final = 75.0
"""Longest wait for an answer: a server answers within a minute, if only that it goes on."""

LATE_S: Final = 0.1
"""A call that is sent so much later than it is due is counted: the sender was too slow."""

FUNCTION: Final = """\
import time

def main(args):
    time.sleep(args["sleep_ms"] / 1000)
    return {}
"""


@dataclass(slots=True)
class LiveReport:
    """What came of it; times are those of the clock on the wall, not the load's.

    ``wait_ms`` is as the records have it, from the arrival to the start of the run or ``/init``;
    ``refused`` had 429 or 503, ``open`` was still running after a minute, ``failed`` is the rest.
    """

    calls: int = 0
    answered: int = 0
    cold: int = 0
    refused: int = 0
    open: int = 0
    failed: int = 0
    late: int = 0
    wait_ms: dict[str, float] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0


def percentiles(values: list[float]) -> dict[str, float]:
    """Return those of a list; empty for an empty one."""
    ordered = sorted(values)
    shares = (50, 90, 99, 99.9) if ordered else ()
    return {f"p{p:g}": ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)] for p in shares}


class LiveReplay:
    """One replay.  ``url_of`` names the invocation of an action by its number."""

    def __init__(
        self, url_of: Callable[[int], str], headers: Mapping[str, str], speed: float
    ) -> None:
        self.report = LiveReport()
        self._url_of = url_of
        self._headers = headers
        self._speed = speed
        self._waits: list[float] = []
        self._latencies: list[float] = []
        self._room = asyncio.Semaphore(CALLS_MAX)

    async def run(
        self, workload: Workload, seed: int, shape: Shape, progress: Callable[[float], None]
    ) -> LiveReport:
        """Send all calls and wait for their answers."""
        loop = asyncio.get_running_loop()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CALLS_MAX)
        async with httpx.AsyncClient(
            headers=self._headers, limits=limits, timeout=CALL_S, trust_env=False
        ) as client:
            begun_s = loop.time()
            async with asyncio.TaskGroup() as calls:
                for at_us, action, run_us in workload.arrivals(seed, shape):
                    due_s = begun_s + at_us / 1_000_000 / self._speed
                    if due_s > loop.time():
                        progress((at_us + 1) / (workload.span_us + 1))
                        await asyncio.sleep(due_s - loop.time())
                    await self._room.acquire()
                    self.report.calls += 1
                    self.report.late += loop.time() - due_s > LATE_S
                    calls.create_task(self._call(client, action, run_us))
            self.report.elapsed_s = loop.time() - begun_s
        self.report.wait_ms = percentiles(self._waits)
        self.report.latency_ms = percentiles(self._latencies)
        return self.report

    async def _call(self, client: httpx.AsyncClient, action: int, run_us: int) -> None:
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        body = {"sleep_ms": run_us / 1_000 / self._speed}
        try:
            reply = await client.post(self._url_of(action), json=body)
        except httpx.HTTPError:
            self.report.failed += 1
        else:
            self._judge(reply, 1_000 * (loop.time() - sent_s))
        finally:
            self._room.release()

    def _judge(self, reply: httpx.Response, latency_ms: float) -> None:
        report = self.report
        if reply.status_code == 200:
            report.answered += 1
            self._latencies.append(latency_ms)
            notes: dict[str, Any] = {
                each["key"]: each["value"] for each in reply.json()["annotations"]
            }
            self._waits.append(notes["waitTime"])
            report.cold += "initTime" in notes
        elif reply.status_code in (429, 503):
            report.refused += 1
        elif reply.status_code == 202:
            report.open += 1
        else:
            report.failed += 1
