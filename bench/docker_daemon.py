"""What the Docker Engine itself can do: run → rm and pause → unpause, by how many ask at once.

A user is a thread that repeats one cycle with a container of its own.  Nothing of the scheduler is
involved; the figures are the ground of every comparison, and of ``acs_core.simulation_engine``.
Needs ``acs images build``; honours ``DOCKER_HOST``; removes what it made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, ImageNotFound, NotFound

from acs_node.docker_client import connect
from acs_node.images import image_reference
from acs_node.sandboxes import SandboxError

LABEL = "acs-docker-daemon-bench"
CALL_S = 120.0
SHARES = (50, 90, 99)
ERRORS_SHOWN = 3
WAIT_FOREVER = ["-c", "import signal; signal.pause()"]

PUBLISHED = {
    "run-rm": "10 cycles/s; an operation 500-1,300 ms",
    "pause-unpause": "37.6 cycles/s with 16 users; an operation 50-400 ms",
}
"""DEVIEW 2019, on the talk's machines."""


class BenchFailed(Exception):
    """Why there is no result, in words for the user."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one cell: cycles a second, and each operation's latencies in milliseconds."""

    cycle: str
    network: str
    users: int
    seconds: float
    cycles: int
    cycles_per_s: float
    errors: int
    first_errors: list[str]
    latencies_ms: dict[str, dict[str, float]]


class Timings:
    """What the users of one cell measured; safe for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times_ms: dict[str, list[float]] = {}
        self.ends_s: list[float] = []
        self.errors: list[str] = []

    def timed(self, name: str, call: Callable[[], object]) -> object:
        """Call, and note how long that took."""
        start_s = time.perf_counter()
        result = call()
        took_ms = (time.perf_counter() - start_s) * 1_000
        with self._lock:
            self._times_ms.setdefault(name, []).append(took_ms)
        return result

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean and percentiles of each operation."""
        shown = {}
        for name, times in self._times_ms.items():
            ordered = sorted(times)
            last = len(ordered) - 1
            at = {f"p{share}": ordered[min(last, share * len(ordered) // 100)] for share in SHARES}
            at["mean"] = statistics.fmean(ordered)
            shown[name] = {key: round(value, 1) for key, value in at.items()}
        return shown


def measure(cycle: str, network: str, users: int, seconds: float) -> Figures:
    """Let so many users repeat a cycle for so long; what is under way then is finished."""
    timings = Timings()
    ready = threading.Barrier(users + 1)
    deadline_s = [0.0]
    body = {"run-rm": _run_and_remove, "pause-unpause": _pause_and_unpause}[cycle]
    threads = [
        threading.Thread(target=_user, args=(body, network, timings, ready, deadline_s))
        for _ in range(users)
    ]
    for thread in threads:
        thread.start()
    try:
        ready.wait(CALL_S)
    except threading.BrokenBarrierError:
        for thread in threads:
            thread.join()
        raise BenchFailed(f"{cycle}, {users} users: {'; '.join(timings.errors[:1])}") from None
    start_s = time.perf_counter()
    deadline_s[0] = start_s + seconds
    ready.wait(CALL_S)
    for thread in threads:
        thread.join()
    took_s = max([*timings.ends_s, start_s + 1e-9]) - start_s
    return Figures(
        cycle,
        network,
        users,
        round(took_s, 2),
        len(timings.ends_s),
        round(len(timings.ends_s) / took_s, 2),
        len(timings.errors),
        timings.errors[:ERRORS_SHOWN],
        timings.summary(),
    )


def _user(
    body: Callable[[DockerClient, str, Timings, Callable[[], bool]], None],
    network: str,
    timings: Timings,
    ready: threading.Barrier,
    deadline_s: list[float],
) -> None:
    def go_on() -> bool:
        if deadline_s[0] == 0.0:  # the first call: all are set up
            ready.wait(CALL_S)
            ready.wait(CALL_S)
        return time.perf_counter() < deadline_s[0]

    try:
        client = connect(CALL_S)
        try:
            body(client, network, timings, go_on)
        finally:
            client.close()
    except (APIError, SandboxError, OSError, threading.BrokenBarrierError) as error:
        timings.errors.append(str(error))
        ready.abort()


def _create(client: DockerClient, network: str) -> str:
    container = client.containers.create(
        image_reference("python:3"),
        entrypoint="python3",
        command=WAIT_FOREVER,
        name=f"{LABEL}-{uuid.uuid4().hex[:12]}",
        network=network,
        labels={LABEL: ""},
    )
    return str(container.id)


def _run_and_remove(
    client: DockerClient, network: str, timings: Timings, go_on: Callable[[], bool]
) -> None:
    def run() -> str:
        name = _create(client, network)
        client.api.start(name)
        return name

    while go_on():
        name = timings.timed("run", run)
        timings.timed("rm", lambda name=name: client.api.remove_container(name, force=True))  # type: ignore[misc]
        timings.ends_s.append(time.perf_counter())


def _pause_and_unpause(
    client: DockerClient, network: str, timings: Timings, go_on: Callable[[], bool]
) -> None:
    name = _create(client, network)
    client.api.start(name)
    while go_on():
        try:
            timings.timed("pause", lambda: client.api.pause(name))
            timings.timed("unpause", lambda: client.api.unpause(name))
        except APIError as error:  # an engine at its limit may fail at it; the next may succeed
            timings.errors.append(str(error))
            with contextlib.suppress(APIError):
                client.api.unpause(name)  # else all that follow fail
        else:
            timings.ends_s.append(time.perf_counter())
    client.api.remove_container(name, force=True)


def clean(client: DockerClient) -> None:
    """Remove what this program has left behind, also an earlier time."""
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        try:
            container.remove(force=True)
        except NotFound:
            continue


def main(arguments: list[str]) -> int:
    """Measure every cell, print it, and write all as JSON if asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", default="1,4,16,50", help="how many at once, with commas")
    parser.add_argument("--networks", default="bridge,none")
    parser.add_argument("--cycles", default="run-rm,pause-unpause")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each cell")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    cycles = options.cycles.split(",")
    if not set(cycles) <= PUBLISHED.keys():
        parser.error(f"--cycles {options.cycles}: it must be of {', '.join(PUBLISHED)}")
    try:
        counts = [int(count) for count in options.users.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or max(counts) > 200 or options.seconds <= 0:
        parser.error(f"--users {options.users}: numbers in 1..200; --seconds: more than 0")
    results = []
    try:
        client = connect(CALL_S)
        client.images.get(image_reference("python:3"))
        clean(client)
        try:
            for cycle in cycles:
                print(f"{cycle}; published: {PUBLISHED[cycle]}", flush=True)
                for network in options.networks.split(","):
                    for users in counts:
                        figures = measure(cycle, network, users, options.seconds)
                        results.append(figures)
                        print(_line(figures), flush=True)
        finally:
            clean(client)
            version = client.version()["Version"]
            client.close()
    except ImageNotFound:
        print("docker_daemon: there is no image; build it with: acs images build", file=sys.stderr)
        return 2
    except (BenchFailed, SandboxError, APIError) as error:
        print(f"docker_daemon: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        machine = {"engine": version, "machine": platform.machine(), "kernel": platform.release()}
        cells = [asdict(figures) for figures in results]
        options.json.write_text(
            json.dumps({**machine, "published": PUBLISHED, "cells": cells}, indent=1) + "\n"
        )
    return 1 if any(figures.errors for figures in results) else 0


def _line(figures: Figures) -> str:
    parts = [
        f"{name} p50 {times['p50']:,.0f} p99 {times['p99']:,.0f} ms"
        for name, times in figures.latencies_ms.items()
    ]
    return (
        f"  {figures.network:7} {figures.users:3} users: {figures.cycles_per_s:6.1f} cycles/s; "
        f"{'; '.join(parts)}; {figures.errors} errors{': ' * bool(figures.errors)}"
        f"{'; '.join(figures.first_errors[:1])}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
