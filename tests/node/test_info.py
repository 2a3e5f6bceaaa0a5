"""What a server says of itself without a key."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from node.server import rest_client, running_server

from acs_node.action_schema import RuntimeKinds, SystemLimits
from acs_node.api import create_app
from acs_node.images import image_reference
from acs_node.manifest import parse


async def get(
    path: str,
    kinds: RuntimeKinds | None = None,
    **more: Any,
) -> tuple[int, Any]:
    entities = Mock(limits=SystemLimits(invocations_per_minute=60), kinds=kinds or RuntimeKinds())
    app = create_app(entities, Mock(), info={}, **more)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://acs") as client:
        response = await client.get(path)
    return response.status_code, response.json()


async def test_the_root_tells_limits_and_runtimes() -> None:
    status, document = await get("/")
    assert (status, document["description"]) == (200, "OpenWhisk")
    assert document["api_paths"] == ["/api/v1"]
    limits = document["limits"]
    assert limits["actions_per_minute"] == 60
    assert limits["concurrent_actions"] == 2_147_483_647
    assert limits["sequence_length"] == 50
    assert (limits["min_action_memory"], limits["max_action_memory"]) == (134217728, 536870912)
    assert (limits["min_action_duration"], limits["max_action_duration"]) == (100, 300_000)
    assert (limits["min_action_logs"], limits["max_action_logs"]) == (0, 10485760)
    assert limits["default_max_action_logs"] == 10485760
    (python,) = document["runtimes"]["python"]
    assert (python["kind"], python["default"], python["deprecated"]) == ("python:3", True, False)


async def test_the_root_tells_the_images_of_a_manifest_and_what_is_deprecated() -> None:
    manifest = parse(
        {
            "runtimes": {
                "java": [
                    {
                        "kind": "java:8",
                        "default": True,
                        "deprecated": True,
                        "requireMain": True,
                        "image": {"prefix": "openwhisk", "name": "java8action", "tag": "1.0"},
                    }
                ]
            }
        }
    )
    _, document = await get("/", kinds=manifest.kinds())
    assert document["runtimes"] == {
        "java": [
            {
                "kind": "java:8",
                "image": "openwhisk/java8action:1.0",
                "default": True,
                "deprecated": True,
                "attached": True,
                "requireMain": True,
            }
        ]
    }


@pytest.mark.parametrize(
    ("states", "count", "ready"),
    [
        ({"a": "up", "b": "up"}, 2, (200, {"healthy": "2/2"})),
        ({"a": "up", "b": "down"}, 1, (500, {"unhealthy": "1/2"})),
        ({}, 0, (500, {"unhealthy": "0/0"})),
    ],
)
async def test_invokers_are_told_and_counted(
    states: dict[str, str], count: int, ready: tuple[int, Any]
) -> None:
    assert await get("/invokers", invokers=lambda: states) == (200, states)
    assert await get("/invokers/healthy/count", invokers=lambda: states) == (200, count)
    assert await get("/invokers/ready", invokers=lambda: states) == ready


async def test_what_is_under_way_is_counted() -> None:
    assert await get("/activation/count", pending=lambda: 3) == (200, 3)


def test_a_real_server_is_ready() -> None:
    with running_server() as server, rest_client(server) as client:
        client.auth = None
        assert client.get(f"{server.url}/invokers/ready").json() == {"healthy": "1/1"}
        assert client.get(f"{server.url}/invokers").json() == {"invoker0/0/standalone": "up"}
        assert client.get(f"{server.url}/activation/count").json() == 0
        assert client.post(f"{server.url}/invokers").status_code == 405
        runtimes = client.get(server.url).json()["runtimes"]
        told = {each["kind"]: each["image"] for family in runtimes.values() for each in family}
        assert told == {kind: image_reference(kind) for kind in ("python:3", "nodejs:20")}
