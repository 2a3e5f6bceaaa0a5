"""Runtimes end to end: kinds and concurrency through a real ``acs standalone``."""

import asyncio
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from node.server import rest_client, running_server
from requirements import missing

from acs_node import wskprops

RUNS = 6
MEET = {
    "python:3": """
import asyncio
inside = most = 0
came = asyncio.Condition()
async def main(args):
    global inside, most
    inside += 1
    most = max(most, inside)
    async with came:
        came.notify_all()
        await came.wait_for(lambda: most >= args["meet"])
    inside -= 1
    return {"met": most}
""",
    "nodejs:20": """
let inside = 0, met = 0
async function main({ meet }) {
  inside++
  met = Math.max(met, inside)
  while (met < meet) await new Promise((resolve) => setTimeout(resolve, 2))
  inside--
  return { met }
}
""",
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        running_server("--concurrency-max", "10", "--containers", "2") as server,
        rest_client(server) as client,
    ):
        yield client


def put(client: httpx.Client, name: str, kind: str, code: str, **limits: int) -> httpx.Response:
    document = {"exec": {"kind": kind, "code": code}, "limits": limits}
    return client.put(f"namespaces/_/actions/{name}", json=document)


@pytest.mark.parametrize("kind", MEET)
async def test_runs_meet_in_one_container(client: httpx.Client, kind: str) -> None:
    if kind.startswith("nodejs") and shutil.which("node") is None:
        missing("node", "there is no node in PATH")
    name = kind.partition(":")[0]
    put(client, name, kind, MEET[kind], concurrency=RUNS).raise_for_status()
    path = f"namespaces/_/actions/{name}?blocking=true&result=true"
    assert client.post(path, json={"meet": 1}).json() == {"met": 1}

    async def run(one: httpx.AsyncClient) -> Any:
        return (await one.post(path, json={"meet": RUNS})).json()

    # There is one container, for the other one is kept for calls: so they can only meet inside.
    async with httpx.AsyncClient(
        base_url=client.base_url, auth=client.auth, timeout=30, trust_env=False
    ) as others:
        answers = await asyncio.gather(*(run(others) for _ in range(RUNS)))
    assert answers == [{"met": RUNS}] * RUNS


def test_more_than_the_setting_allows_is_refused(client: httpx.Client) -> None:
    refused = put(client, "greedy", "python:3", MEET["python:3"], concurrency=11)
    assert refused.status_code == 400
    assert "concurrency 11 exceeds allowed threshold of 10" in refused.json()["error"]
    root = client.base_url.copy_with(path=f"{wskprops.API_PATH}/namespaces/_/limits")
    assert client.get(root).json()["maxActionConcurrency"] == 10


def test_images_of_openwhisk_are_told_that_runs_may_overlap(client: httpx.Client) -> None:
    code = "import os\ndef main(args):\n    return {'told': os.environ['__OW_ALLOW_CONCURRENT']}\n"
    put(client, "told", "python:3", code).raise_for_status()
    path = "namespaces/_/actions/told?blocking=true&result=true"
    assert client.post(path, json={}).json() == {"told": "true"}
