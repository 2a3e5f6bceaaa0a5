"""The whole life of containers on a real Docker Engine, as the pool decides it.

Each test looks at what the engine has, not only at what the pool believes.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from node.house import ECHO, House, open_house
from node.server import rest_client, running_server
from waiting import until, wait_until

from acs_core.prewarm import Prewarm
from acs_node.images import image_reference
from acs_node.sandboxes import Sandbox, SandboxSpec
from acs_node.sandboxes.docker import DockerEngine
from acs_node.sandboxes.docker_containers import CONTAINER_LABEL, INSTANCE_LABEL

pytestmark = pytest.mark.usefixtures("docker_images")

INTERFACES = (
    "import socket\ndef main(args):\n"
    "    return {'interfaces': sorted(name for _, name in socket.if_nameindex())}\n"
)
LEAVE_SECRETS = """
import os
PLACES = ("/tmp", "/dev/shm")
def main(args):
    found = [name for place in PLACES for name in os.listdir(place) if "secret" in name]
    for place in PLACES:
        open(f"{place}/secret", "w").close()
    return {"found": found}
"""
SLOW = "import time\ndef main(args):\n    time.sleep(0.5)\n    return {'slept': True}\n"


class RecordingEngine(DockerEngine):
    """A real engine that remembers what it was asked to start."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.started: list[SandboxSpec] = []

    async def start(self, spec: SandboxSpec) -> Sandbox:
        self.started.append(spec)
        return await super().start(spec)


@dataclass
class Docker:
    """A house whose functions run in Docker, and the engine's view of it."""

    house: House
    client: DockerClient
    instance: str

    @property
    def started(self) -> list[str]:
        engine = self.house.invoker._engine
        assert isinstance(engine, RecordingEngine)
        return [spec.container for spec in engine.started]

    def seen(self) -> dict[str, str]:
        """Return the engine's containers of this house: the sandbox's name to its state."""
        return {
            each["Labels"][CONTAINER_LABEL]: each["State"]
            for each in containers(self.client, self.instance)
        }

    def states(self) -> list[str]:
        return sorted(self.seen().values())

    def memory_mb(self) -> int:
        """Return the memory that the engine has given out."""
        inspected = map(
            self.client.api.inspect_container,
            (each["Id"] for each in containers(self.client, self.instance)),
        )
        return sum(each["HostConfig"]["Memory"] for each in inspected) >> 20

    def counts(self) -> dict[str, int]:
        return self.house.invoker.pool.counts()

    async def result(self, name: str, arguments: Any = None) -> Any:
        answer = await self.house.invoke(name, arguments)
        assert answer.status == 200, answer.body
        return answer.body


def containers(client: DockerClient, instance: str) -> list[Any]:
    found: list[Any] = client.api.containers(
        all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"}
    )
    return found


@asynccontextmanager
async def docker(
    client: DockerClient, network: str = "none", **options: Any
) -> AsyncIterator[Docker]:
    """Open a house on the engine; nothing of it may be left there at the end."""
    instance = f"test-{uuid.uuid4().hex}"

    def engine(folder: Path) -> DockerEngine:
        return RecordingEngine(folder, instance=instance, client=client, network=network)

    async with open_house(engine=engine, **options) as house:
        yield Docker(house, client, instance)
        house.check()
    assert containers(client, instance) == []


async def test_a_container_sleeps_after_its_grace_and_is_woken(docker_client: DockerClient) -> None:
    async with docker(docker_client, pool={"pause_grace_us": 20_000}) as d:
        await d.house.put("echo")
        for number in range(3):
            assert await d.result("echo", {"n": number}) == {"n": number}
            await until(lambda: d.counts()["paused"], "its sleep")
            assert d.states() == ["paused"]
        assert len(d.started) == 1, "woken, not made anew"


async def test_an_idle_container_goes_after_its_keep_alive(docker_client: DockerClient) -> None:
    async with docker(
        docker_client, pool={"pause_grace_us": 20_000, "keep_alive_us": 300_000}
    ) as d:
        await d.house.put("echo")
        await d.result("echo")
        await until(lambda: d.counts()["paused"], "its sleep")
        await until(lambda: d.house.invoker.pool.used_mb() == 0, "its end")
        assert d.seen() == {}, "its memory was given back before it was gone"


async def test_a_floor_of_containers_is_there_whatever_idles_and_goes_with_its_action(
    docker_client: DockerClient,
) -> None:
    async with docker(docker_client, pool={"keep_alive_us": 100_000}) as d:
        floor = [{"key": "acs-containers-min", "value": 2}]
        await d.house.put("kept", annotations=floor)
        await d.house.put("echo")
        assert await d.result("kept", {"n": 1}) == {"n": 1}
        await until(lambda: d.counts()["idle"] == 2, "the floor")
        floor_there = d.seen()
        await d.result("echo")
        # Another action's container, which idles as they do, goes after the keep-alive.
        assert d.counts()["created"] == 3
        await until(lambda: d.house.invoker.pool.used_mb() == 512, "the end of what is not kept")
        assert d.seen() == floor_there
        handle = next(iter(containers(d.client, d.instance)))["Id"]
        await asyncio.to_thread(d.client.api.remove_container, handle, force=True)
        await until(lambda: len(d.started) == 4 and d.counts()["idle"] == 2, "another one")
        await d.house.entities.delete_action("guest", "kept")
        await until(lambda: d.house.invoker.pool.used_mb() == 0, "its end")
        assert d.seen() == {}


async def test_a_prewarmed_sandbox_is_taken_and_replaced(docker_client: DockerClient) -> None:
    async with docker(docker_client, pool={"prewarm": (Prewarm("python:3", 256),)}) as d:
        await until(lambda: d.counts()["prewarm_ready"] == 1, "a prewarmed sandbox")
        (ready,) = d.seen()
        await d.house.put("echo")
        assert await d.result("echo", {"n": 1}) == {"n": 1}
        await until(lambda: d.counts()["prewarm_ready"] == 1, "another one")
        (same, replaced) = d.started
        assert same == ready
        assert d.seen() == {ready: "running", replaced: "running"}
        assert d.memory_mb() == d.house.invoker.pool.used_mb() == 512


def test_stem_cells_of_a_manifest_are_taken_and_replaced(
    docker_client: DockerClient, tmp_path: Path
) -> None:
    name, tag = image_reference("python:3").split(":")
    cell = {"initialCount": 2, "memory": "256 MB"}
    runtime = {"kind": "python:3", "image": {"name": name, "tag": tag}, "stemCells": [cell]}
    manifest = tmp_path / "runtimes.json"
    manifest.write_text(json.dumps({"runtimes": {"python": [runtime]}}))
    arguments = ("--network", "none", "--manifest", str(manifest))
    with running_server(*arguments, sandbox="docker") as server, rest_client(server) as client:
        instance = (server.data / "instance").read_text()

        def status() -> dict[str, Any]:
            found: dict[str, Any] = client.get("acs/status").json()
            return found

        wait_until(lambda: status()["sandboxes_prewarmed"] == 2, "the stem cells", 60)
        cells = {each["Id"] for each in containers(docker_client, instance)}
        body = {"exec": {"kind": "python:3", "code": ECHO}}
        client.put("namespaces/_/actions/echo", json=body).raise_for_status()
        answer = client.post("namespaces/_/actions/echo?blocking=true&result=true", json={"n": 1})
        assert answer.json() == {"n": 1}
        wait_until(lambda: status()["sandboxes_prewarmed"] == 2, "another one")
        now = {each["Id"] for each in containers(docker_client, instance)}
        assert now > cells
        assert len(now) == 3, "one was taken, and one came in its place"


async def test_prewarmed_sandboxes_follow_the_demand(docker_client: DockerClient) -> None:
    reactive = Prewarm("python:3", 256, 0, expiry_us=300_000, count_max=2)
    pool = {"prewarm": (reactive,), "prewarm_check_us": 300_000}
    async with docker(docker_client, pool=pool) as d:
        await d.house.put("echo")
        await d.result("echo")
        await until(lambda: len(d.started) == 2, "what the cold start calls for")
        cold, grown = d.started
        assert (cold[0], grown[0]) == ("s", "p"), "the first one was for nobody"
        # Nobody takes it, and no cold start calls for more.
        await until(lambda: d.house.invoker.pool.used_mb() == 256, "its expiry")
        assert list(d.seen()) == [cold]
        assert len(d.started) == 2


async def test_an_action_without_network_takes_no_sandbox_that_has_one(
    docker_client: DockerClient,
) -> None:
    network = f"acs-test-{uuid.uuid4().hex[:8]}"
    pool = {"prewarm": (Prewarm("python:3", 256),)}
    try:
        async with docker(docker_client, network, pool=pool) as d:
            await until(lambda: d.counts()["prewarm_ready"] == 1, "a prewarmed sandbox")
            note = {"key": "acs-network", "value": "none"}
            await d.house.put("alone", INTERFACES, annotations=[note])
            assert await d.result("alone") == {"interfaces": ["lo"]}
            await d.house.put("open", INTERFACES)
            assert await d.result("open") == {"interfaces": ["eth0", "lo"]}
            # Taken away by an update, the annotation has no effect any more.
            await d.house.put("alone", INTERFACES, delAnnotations=["acs-network"])
            assert await d.result("alone") == {"interfaces": ["eth0", "lo"]}
    finally:
        docker_client.api.remove_network(network)


@pytest.mark.parametrize("paused", [False, True])
async def test_an_idle_container_makes_room_for_another_action(
    docker_client: DockerClient, paused: bool
) -> None:
    pool = {"pause_grace_us": 20_000} if paused else None
    async with docker(docker_client, memory_mb=256, pool=pool) as d:
        for name in ("one", "other"):
            await d.house.put(name)
            assert await d.result(name, {"name": name}) == {"name": name}
            assert d.memory_mb() == 256
            if paused:
                await until(lambda: d.counts()["paused"], "its sleep")
        assert len(d.started) == 2
        assert list(d.seen()) == d.started[1:]


async def test_what_a_run_leaves_is_seen_by_runs_of_its_own_action_alone(
    docker_client: DockerClient,
) -> None:
    async with docker(docker_client, memory_mb=256) as d:
        for _ in range(2):  # the second time as another revision
            for name in ("one", "other"):
                await d.house.put(name, LEAVE_SECRETS)
                assert await d.result(name) == {"found": []}
                assert await d.result(name) == {"found": ["secret", "secret"]}


async def test_prewarmed_sandboxes_make_room(docker_client: DockerClient) -> None:
    pool = {"prewarm": (Prewarm("python:3", 128, 2),)}
    async with docker(docker_client, memory_mb=512, pool=pool) as d:
        await until(lambda: d.counts()["prewarm_ready"] == 2, "two prewarmed sandboxes")
        await d.house.put("large", ECHO, limits={"memory": 512})
        assert await d.result("large", {"n": 1}) == {"n": 1}
        assert list(d.seen()) == d.started[2:3]
        assert d.memory_mb() == 512


async def test_a_drain_lets_runs_end_and_leaves_nothing(docker_client: DockerClient) -> None:
    pool = {"prewarm": (Prewarm("python:3", 128),), "pause_grace_us": 20_000}
    async with docker(docker_client, pool=pool) as d:
        await d.house.put("echo")
        await d.house.put("slow", SLOW)
        await d.result("echo")
        await until(lambda: d.counts()["paused"] and d.counts()["prewarm_ready"], "its sleep")
        caller = d.house.start("slow")
        await until(lambda: d.counts()["ready"], "the run")
        assert d.states() == ["paused", "running", "running"]
        await d.house.invoker.drain()
        assert d.seen() == {}
        (answer,) = caller.answers
        assert (answer.status, answer.body) == (200, {"slept": True})


def test_a_server_without_a_network_for_functions(docker_client: DockerClient) -> None:
    options = ("--network", "none", "--prewarm", "python:3:256:1", "--pause-grace", "0.02")
    with running_server(*options, sandbox="docker") as server, rest_client(server) as client:

        def status(what: str) -> Any:
            return client.get("acs/status").json()[what]

        wait_until(lambda: status("sandboxes_prewarmed") == 1, "the prewarmed sandbox")
        document = {"exec": {"kind": "python:3", "code": INTERFACES}}
        client.put("namespaces/_/actions/look", json=document).raise_for_status()
        for _ in range(2):
            reply = client.post("namespaces/_/actions/look?blocking=true&result=true")
            assert reply.json() == {"interfaces": ["lo"]}
            wait_until(lambda: status("containers_paused") == 1, "its sleep")
        assert status("containers_created") == 1
        instance = (server.data / "instance").read_text()
        names = [each["Labels"][CONTAINER_LABEL] for each in containers(docker_client, instance)]
        assert [name[0] for name in names] == ["p", "p"], "both were started for nobody"
        assert server.stop() == 0
        assert containers(docker_client, instance) == []
