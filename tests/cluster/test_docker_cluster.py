"""An invoker of a cluster on a real Docker Engine: its settings, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster.load import Client
from cluster.started import started
from docker import DockerClient
from waiting import eventually, until

from acs_node.cluster.local import LocalCluster
from acs_node.images import image_reference
from acs_node.sandboxes.docker_containers import INSTANCE_LABEL

pytestmark = pytest.mark.usefixtures("docker_images")

CODE = """\
import time
def main(args):
    time.sleep(args.get("s", 0))
    return args
"""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One invoker whose manifest has a stem cell, and whose containers sleep after 0.2 s."""
    name, tag = image_reference("python:3").split(":")
    cell = {"initialCount": 1, "memory": "256 MB"}
    runtime = {"kind": "python:3", "image": {"name": name, "tag": tag}, "stemCells": [cell]}

    def prepare(folder: Path) -> dict[str, Any]:
        manifest = folder / "runtimes.json"
        manifest.write_text(json.dumps({"runtimes": {"python": [runtime]}}))
        settings = {"manifest": str(manifest), "network": "none", "pause-grace-s": "0.2"}
        return {"of_invokers": settings}

    with started(prepare, invokers=1, sandbox="docker", lease_s=2) as made:
        yield made


def containers(client: DockerClient) -> dict[str, str]:
    """Return the engine's containers of the invoker: ids to states."""
    labels = {"label": f"{INSTANCE_LABEL}=acs-invoker0"}
    found = client.api.containers(all=True, filters=labels)
    return {each["Id"]: each["State"] for each in found}


def shown(cluster: LocalCluster) -> Any:
    """Return what the invoker says of itself."""
    (node,) = cluster.of("invoker")
    return httpx.get(f"{node.health}/health/ready").json()


def pool(cluster: LocalCluster) -> dict[str, int]:
    counts: dict[str, int] = shown(cluster)["containers"]
    return counts


async def invoke(client: Client, arguments: dict[str, Any], blocking: bool = True) -> Any:
    path = f"actions/act?blocking={str(blocking).lower()}&result={str(blocking).lower()}"
    status, answer = await client.request("POST", path, arguments)
    assert status == (200 if blocking else 202), answer
    return answer


async def test_an_invoker_prewarms_pauses_and_is_killed(
    cluster: LocalCluster, docker_client: DockerClient
) -> None:
    client = Client(cluster.url, cluster.auth)
    await until(lambda: pool(cluster)["prewarm_ready"] == 1, "the stem cell", 60)
    (cell,) = containers(docker_client)
    status, _ = await client.request(
        "PUT", "actions/act", {"exec": {"kind": "python:3", "code": CODE}}
    )
    assert status == 200
    assert await invoke(client, {"n": 1}) == {"n": 1}
    assert pool(cluster)["created"] == 1
    await until(lambda: containers(docker_client).get(cell) == "paused", "the pause of the first")
    await until(lambda: pool(cluster)["prewarm_ready"] == 1, "another stem cell")
    assert sorted(containers(docker_client).values()) == ["paused", "running"]
    assert await invoke(client, {"n": 2}) == {"n": 2}

    accepted = (await invoke(client, {"s": 60}, blocking=False))["activationId"]
    await until(lambda: shown(cluster)["held"] == 1, "its delivery")
    (node,) = cluster.of("invoker")
    before = containers(docker_client)
    node.kill()
    assert containers(docker_client).keys() == before.keys()
    node.start()
    assert not before.keys() & containers(docker_client).keys()
    assert await invoke(client, {"n": 3}) == {"n": 3}

    async def ended() -> Any:
        status, found = await client.request("GET", f"activations/{accepted}")
        return found if status == 200 else None

    record = await eventually(ended, "its record")
    assert "it is unknown whether the activation ran" in record["response"]["result"]["error"]
    client.close()
