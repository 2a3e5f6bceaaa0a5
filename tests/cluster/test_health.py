"""An invoker whose host starts nothing more gets no containers, and comes back by itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from cluster.load import Client
from cluster.started import started
from waiting import until

from acs_node.cluster.local import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One controller, one scheduler, two invokers."""
    with started(schedulers=1, invokers=2) as made:
        yield made


def get(url: str) -> dict[str, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        return json.load(error)  # type: ignore[no-any-return]


async def test_a_host_that_starts_nothing_gets_nothing_and_comes_back(
    cluster: LocalCluster,
) -> None:
    broken, sound = cluster.of("invoker")

    def states() -> dict[str, str]:
        return {key.partition("/")[0]: s for key, s in get(f"{cluster.url}/invokers").items()}

    # The controller dials an invoker when it hears of it, in its own time.
    well = {broken.name: "up", sound.name: "up"}
    await until(lambda: states() == well, "the links", within_s=30)
    client = Client(cluster.url, cluster.auth)
    number = 0

    async def use(count: int) -> None:
        """Have new actions run, each of which needs a container."""
        nonlocal number
        for _ in range(count):
            number += 1
            body = {
                "exec": {"kind": "python:3", "code": "def main(args):\n    return {}"},
                "limits": {"memory": 128, "logs": 0},
            }
            assert (await client.request("PUT", f"actions/a{number}", body))[0] == 200
            path = f"actions/a{number}?blocking=true"
            status, answer = await client.request("POST", path, {})
            assert status == 200, answer

    sandboxes = cluster.folder / broken.name / "data" / "sandboxes"
    away = sandboxes.with_name("away")
    sandboxes.rename(away)
    for _ in range(60):
        await use(1)  # a creation that fails is tried again, and nothing is lost
        if states()[broken.name] == "unhealthy":
            break
    assert states() == {broken.name: "unhealthy", sound.name: "up"}
    assert get(f"{cluster.url}/invokers/ready") == {"unhealthy": "1/2"}
    assert get(f"{broken.health}/health/ready")["health"] == "unhealthy"
    asked = broken.output().count("was not created")
    await use(4)
    assert broken.output().count("was not created") == asked

    away.rename(sandboxes)
    await until(lambda: states()[broken.name] == "up", "its return", within_s=60)
    made = get(f"{broken.health}/health/ready")["containers"]
    await use(12)
    assert get(f"{broken.health}/health/ready")["containers"] != made
    client.close()
