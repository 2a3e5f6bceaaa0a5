"""What makes a Docker Engine faster: settings of containers, and how many calls at once.

Every variant is the sandbox engine itself with one thing changed, and all take turns in each
round, so that what else the machine does meets all alike.  Times are medians over containers.

*latency*: one container at a time; *load*: ``--containers`` starts at once while as many others
are removed, as when actions push each other out of memory.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from standalone import folder, machine, parser, write_json

from acs_node.docker_client import connect
from acs_node.sandboxes import Sandbox, SandboxError, SandboxSpec
from acs_node.sandboxes.docker import DockerEngine

KIND = "python:3"
MEMORY_MB = 128
NETWORK = "acs-bench"
CALLS = ("create_container", "start", "remove_container")


@dataclass(slots=True)
class Variant:
    """One way to run containers, and what was measured of it, in seconds by what was timed."""

    name: str
    host_config: dict[str, Any] = field(default_factory=dict)
    network: str = NETWORK
    workers: int = 4
    removals: int | None = None
    seen: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, seconds: float) -> None:
        self.seen.setdefault(what, []).append(seconds)

    def medians_ms(self) -> dict[str, float]:
        return {what: 1_000 * statistics.median(times) for what, times in self.seen.items()}


LATENCY = (
    Variant("as it is"),
    Variant("logging driver none", {"LogConfig": {"Type": "none", "Config": {}}}),
    Variant("logging driver local", {"LogConfig": {"Type": "local", "Config": {}}}),
    Variant("network none", network="none"),
    Variant("no init process", {"Init": False}),
    Variant("no tmpfs", {"Tmpfs": {}}),
    Variant("root writable", {"ReadonlyRootfs": False}),
    Variant("no seccomp", {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}),
)
LOAD = (
    Variant("2 calls at once, 1 removal", workers=2),
    Variant("4 calls at once, 1 removal", workers=4, removals=1),
    Variant("4 calls at once, 2 removals", workers=4),
    Variant("4 calls at once, 4 removals", workers=4, removals=4),
    Variant("8 calls at once, 4 removals", workers=8),
)


class _Engine(DockerEngine):
    """The engine with a variant's settings."""

    def __init__(self, here: Path, client: DockerClient, variant: Variant) -> None:
        super().__init__(
            here, instance=f"bench-{here.name}", client=client,
            network=variant.network, workers=variant.workers,
        )  # fmt: skip
        if variant.removals is not None:
            self._unhurried = asyncio.Semaphore(variant.removals)

        configuration = self._containers.configuration

        def varied(client: DockerClient, spec: SandboxSpec, directory: Path) -> dict[str, Any]:
            made = configuration(client, spec, directory)
            return made | {"host_config": made["host_config"] | variant.host_config}

        self._containers.configuration = varied  # type: ignore[method-assign]


@contextmanager
def timed(client: DockerClient, variant: Variant) -> Iterator[None]:
    """Time the calls of the engine that are made meanwhile."""

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*arguments: Any, **options: Any) -> Any:
            began_s = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                variant.note(name, time.perf_counter() - began_s)

        return timing

    with ExitStack() as stack:
        for name in CALLS:
            setattr(client.api, name, wrap(name, getattr(client.api, name)))
            stack.callback(delattr, client.api, name)
        yield


class Round:
    """Names of containers that were never used before."""

    def __init__(self) -> None:
        self._count = 0

    def spec(self) -> SandboxSpec:
        self._count += 1
        return SandboxSpec(f"b{self._count}", KIND, MEMORY_MB)


async def start(engine: DockerEngine, spec: SandboxSpec, variant: Variant) -> Sandbox:
    began_s = time.perf_counter()
    sandbox = await engine.start(spec)
    variant.note("until ready", time.perf_counter() - began_s)
    return sandbox


async def one_by_one(engine: DockerEngine, variant: Variant, count: int, names: Round) -> None:
    for _ in range(count):
        await engine.remove(await start(engine, names.spec(), variant))


async def in_turn(engine: DockerEngine, variant: Variant, count: int, names: Round) -> None:
    """Start ``count`` while as many are removed."""
    old = await asyncio.gather(*[engine.start(names.spec()) for _ in range(count)])
    began_s = time.perf_counter()
    removing = asyncio.gather(*map(engine.remove, old))
    new = await asyncio.gather(*[start(engine, names.spec(), variant) for _ in range(count)])
    variant.note("until all are ready", time.perf_counter() - began_s)
    await removing
    variant.note("until all is done", time.perf_counter() - began_s)
    await asyncio.gather(*map(engine.remove, new))


async def measure(
    here: Path,
    client: DockerClient,
    variants: Sequence[Variant],
    work: Callable[[DockerEngine, Variant, int, Round], Any],
    options: Any,
) -> None:
    names = Round()
    for number in range(options.rounds + 1):
        for variant in variants:
            engine = _Engine(here, client, variant)
            try:
                await engine.ping()
                with timed(client, variant):
                    await work(engine, variant, options.containers, names)
            finally:
                await engine.close()
            if number == 0:
                variant.seen.clear()  # the first round warms up


def show(title: str, variants: Sequence[Variant]) -> None:
    columns = list(variants[0].seen)
    print(f"\n{title}, median ms" + "".join(f"{column:>22}" for column in columns))
    width = len(f"{title}, median ms")
    for variant in variants:
        medians = variant.medians_ms()
        print(f"{variant.name:{width}}" + "".join(f"{medians[c]:22.1f}" for c in columns))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("what makes a Docker Engine faster")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--containers", type=int, default=4, help="of a variant in each round")
    options.add_argument("--part", choices=("latency", "load"), help="unless given, both")
    chosen = options.parse_args(arguments)
    print(machine())
    document: dict[str, Any] = {"machine": machine(), "rounds": chosen.rounds}
    parts = {"latency": (LATENCY, one_by_one), "load": (LOAD, in_turn)}
    try:
        client = connect()
        with folder() as here:
            for part, (variants, work) in parts.items():
                if part != (chosen.part or part):
                    continue
                asyncio.run(measure(here, client, variants, work, chosen))
                show(part, variants)
                document[part] = {v.name: v.seen for v in variants}
        with suppress(APIError):  # it stays where another run uses it
            client.api.remove_network(NETWORK)
        client.close()
    except SandboxError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    write_json(chosen.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
