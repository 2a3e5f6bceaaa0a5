"""How long the first run in a container takes: cold, prewarmed, warm and resumed, on Docker.

Beside them the same container without ACS: create, start and ready by the engine's client, then
``/init`` and ``/run`` by hand, with the same image and settings.  All are measured in turn (bare,
cold, warm, prewarmed, resumed, bare, …), each while the engine does nothing else.

*total* is from the invocation at the controller until its answer; *added* is total less ``/init``,
``/run`` and, for a cold start, the engine's create, start and ready within that very start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docker import DockerClient
from standalone import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from node.house import House, open_house
from node.runtime_cases import UnixHttp
from waiting import until

from acs_core.prewarm import Prewarm
from acs_node.docker_client import connect
from acs_node.images import image_reference
from acs_node.links import Link, Result
from acs_node.sandboxes import SandboxError, SandboxSpec
from acs_node.sandboxes.docker import DockerEngine
from acs_node.sandboxes.logpipes import LogPipes

KIND = "python:3"
COLD_MB, PREWARMED_MB = 128, 256
WARM_RUNS = 20
GRACE_US = 200_000
ROUNDS_OF_A_HOUSE = 20
"""Then its containers are removed: sleeping ones would fill the machine."""
FOR_EVER_US = 3_600_000_000

Samples = dict[str, list[dict[str, float]]]


def ms_since(begin_ns: int) -> float:
    return (time.perf_counter_ns() - begin_ns) / 1e6


class TimedEngine(DockerEngine):
    """Tells what the engine took of the last start, in ms."""

    def __init__(self, folder: Path, client: DockerClient, instance: str, network: str) -> None:
        super().__init__(folder, instance=instance, client=client, network=network)
        self.took: dict[str, float] = {}
        for name, method in (
            ("create", "create_container"),
            ("start", "start"),
            ("unpause", "unpause"),
        ):
            setattr(client.api, method, self._timed(name, getattr(client.api, method)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            begin_ns = time.perf_counter_ns()
            try:
                return call(*arguments, **options)
            finally:
                self.took[name] = ms_since(begin_ns)

        return timed

    async def _wait_ready(self, logs: LogPipes, handle: str) -> None:
        begin_ns = time.perf_counter_ns()
        await super()._wait_ready(logs, handle)
        self.took["ready"] = ms_since(begin_ns)

    async def bare(self, code: str) -> dict[str, float]:
        """Create, start, initialise and run a container without any of ACS; remove it."""
        client = self._containers.prepare()
        api = client.api
        spec = SandboxSpec(f"b-{uuid.uuid4().hex[:8]}", KIND, COLD_MB)
        directory = self._directory / spec.container
        directory.mkdir(parents=True)
        directory.chmod(0o733)
        logs = LogPipes.create(str(directory))
        config = self._containers.configuration(client, spec, directory)
        image = image_reference(KIND)
        self.took = {}
        begin_ns = time.perf_counter_ns()
        created = api.create_container(image, **config)
        api.start(created["Id"])
        ready_ns = time.perf_counter_ns()
        await logs.ready()
        took = {**self.took, "ready": ms_since(ready_ns)}
        connection = UnixHttp(str(directory / "run.sock"))
        value = {"name": "bare", "main": "main", "code": code, "binary": False, "env": {}}
        for route, body in (("/init", {"value": value}), ("/run", {"value": {}})):
            call_ns = time.perf_counter_ns()
            connection.request("POST", route, json.dumps(body))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SandboxError(f"{route} answered {answer.status}")
            took[route[1:]] = ms_since(call_ns)
        took["total"] = ms_since(begin_ns)
        connection.close()
        api.remove_container(created["Id"], force=True)
        logs.close()
        self._remove_directory(spec.container)
        return took


class Tap:
    """A link to the controller that keeps the last result on its way."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.result: Result | None = None

    def send(self, message: Any) -> None:
        if isinstance(message, Result):
            self.result = message
        self._link.send(message)


class Bench:
    """A house on a real engine, and what is measured in it."""

    def __init__(self, house: House, engine: TimedEngine, code: str) -> None:
        self._house = house
        self._engine = engine
        self._code = code
        assert house.invoker._controller is not None
        self._tap = Tap(house.invoker._controller)
        house.invoker._controller = self._tap

    async def round(self, number: int, samples: Samples) -> None:
        await self._quiet()
        samples["bare"].append(await self._engine.bare(self._code))
        cold, prewarmed = f"cold{number}", f"prewarmed{number}"
        await self._house.put(cold, self._code, limits={"memory": COLD_MB})
        await self._house.put(prewarmed, self._code, limits={"memory": PREWARMED_MB})
        await self._quiet()
        samples["cold"].append(await self._invoke(cold, "create", "start", "ready"))
        for _ in range(WARM_RUNS):
            samples["warm"].append(await self._invoke(cold))
        await self._quiet()
        samples["prewarmed"].append(await self._invoke(prewarmed))
        await self._quiet()
        resumed = await self._invoke(cold)
        if "unpause" in self._engine.took:  # else it could not be paused, and was given up
            samples["resumed"].append({"unpause": self._engine.took["unpause"], **resumed})

    async def _invoke(self, name: str, *calls: str) -> dict[str, float]:
        """Invoke once; what the engine takes for ``calls`` is not counted as added."""
        self._engine.took = {}
        begin_ns = time.perf_counter_ns()
        answer = await self._house.invoke(name)
        total = ms_since(begin_ns)
        result = self._tap.result
        if answer.status != 200 or result is None:
            raise SandboxError(f"{name} answered {answer.status}: {answer.body}")
        took = {call: self._engine.took[call] for call in calls}
        function = result.duration_us / 1000
        added = total - function - sum(took.values())
        return {**took, "init": result.init_us / 1000, "function": function, "total": total,
                "added": added}  # fmt: skip

    async def _quiet(self) -> None:
        """Wait until every container sleeps, one stands ready, and the engine is asked nothing."""
        invoker = self._house.invoker

        def quiet() -> bool:
            counts = invoker.pool.counts()
            at_rest = counts["paused"] + counts["prewarm_ready"] == len(invoker._containers)
            return at_rest and counts["prewarm_ready"] == 1 and not invoker._tasks

        await until(quiet, "the engine to be at rest", 60.0)


async def measure(rounds: int, network: str, code: str) -> Samples:
    """Measure so many rounds of each kind."""
    samples: Samples = {kind: [] for kind in ("bare", "cold", "warm", "prewarmed", "resumed")}
    for first in range(0, rounds, ROUNDS_OF_A_HOUSE):
        numbers = range(first, min(first + ROUNDS_OF_A_HOUSE, rounds))
        await measure_in_a_house(numbers, network, code, samples)
    return samples


async def measure_in_a_house(numbers: range, network: str, code: str, samples: Samples) -> None:
    client = connect()
    engines: list[TimedEngine] = []

    def engine(folder: Path) -> TimedEngine:
        engines.append(TimedEngine(folder, client, f"bench-{uuid.uuid4().hex}", network))
        return engines[0]

    pool = {
        "prewarm": (Prewarm(KIND, PREWARMED_MB),),
        "pause_grace_us": GRACE_US,
        "keep_alive_us": FOR_EVER_US,
    }
    try:
        async with open_house(engine=engine, memory_mb=1_000_000, pool=pool) as house:
            bench = Bench(house, engines[0], code)
            for number in numbers:
                await bench.round(number, samples)
    finally:
        client.close()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99: with few values the p99 is the largest."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{p}": ordered[min(last, len(ordered) * p // 100)] for p in (50, 90, 99)}


def columns(samples: Samples) -> dict[str, dict[str, list[float]]]:
    """Return the values of each part of each kind, in the order in which they were measured."""
    return {
        kind: {part: [round(each[part], 3) for each in taken] for part in taken[0]}
        for kind, taken in samples.items()
    }


def table(values: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return n and the percentiles of every part of every kind."""
    return {
        kind: {
            "n": len(parts["total"]),
            **{part: percentiles(taken) for part, taken in parts.items()},
        }
        for kind, parts in values.items()
    }


def show(summary: dict[str, Any], values: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n{'ms':24}{'n':>6}{'p50':>10}{'p90':>10}{'p99':>10}")
    for kind, parts in summary.items():
        for part, found in parts.items():
            if part != "n":
                figures = "".join(f"{value:10.2f}" for value in found.values())
                print(f"{kind + ' ' + part:24}{parts['n']:6}{figures}")
    pairs = zip(values["cold"]["total"], values["bare"]["total"], strict=True)
    difference = statistics.median(cold - bare for cold, bare in pairs)
    print(f"\ncold total - bare total, median of pairs: {difference:.1f} ms")
    for kind, aim_ms in (("cold", 10), ("prewarmed", 15)):
        print(f"{kind}: adds {summary[kind]['added']['p50']:.1f} ms (aim: < {aim_ms})")


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="The start of a container, on Docker")
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--network", default="acs", help="of the functions; or none")
    options.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    chosen = options.parse_args(arguments)
    document: dict[str, Any] = {
        "rounds": chosen.rounds, "network": chosen.network, "machine": machine(),
    }  # fmt: skip
    print(f"{chosen.rounds} rounds, network {chosen.network}, {document['machine']}")
    try:
        samples = asyncio.run(measure(chosen.rounds, chosen.network, "def main(args): return {}\n"))
    except SandboxError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    values = document["samples"] = columns(samples)
    document["summary"] = table(values)
    show(document["summary"], values)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(document) + "\n")  # a line for each number is too many
    return 0


if __name__ == "__main__":
    tempfile.tempdir = "/tmp"  # a socket's path has at most 107 bytes
    sys.exit(main())
