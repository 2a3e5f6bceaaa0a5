"""What functions, images, people and a kill do to containers, end to end on a real Docker Engine.

After each failure the same must hold; ``DockerHouse.goes_on`` says what.
"""

from __future__ import annotations

import asyncio
import io
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from docker import DockerClient
from node.docker_house import DockerHouse, docker_house
from node.server import rest_client, running_server
from waiting import until, wait_until

from acs_node import images
from acs_node.images import image_reference
from acs_node.sandboxes.docker_containers import CONTAINER_LABEL, INSTANCE_LABEL

pytestmark = pytest.mark.usefixtures("docker_images")

NO_RESPONSE = "The action did not produce a valid response and exited unexpectedly."
NO_INIT = "The action did not initialize and exited unexpectedly."
NO_MEMORY = "The action exhausted its memory and was aborted."
TIME_LIMIT = "The action exceeded its time limits of 500 milliseconds."

MIB = 1024 * 1024


@pytest.fixture
async def house(docker_client: DockerClient) -> AsyncIterator[DockerHouse]:
    async with docker_house(docker_client) as house:
        yield house


def function(body: str, top: str = "") -> str:
    """Return an action that does ``body``, or nothing when its arguments say ``good``."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    head = f"import os, signal, socket, sys, threading, time\n{top}\n"
    return f"{head}def main(args):\n    if args.get('good'):\n        return args\n{lines}"


def logged(record: Any) -> list[str]:
    """Return the lines of a record's log without their times."""
    return [line.partition(" ")[2] for line in record["logs"]]


# What functions do


@pytest.mark.parametrize(
    ("body", "limits", "says", "ended"),
    [
        ("bytearray(600 << 20)", {"memory": 128}, NO_MEMORY, "out of memory"),
        ("os._exit(3)", {}, NO_RESPONSE, "exited with status 3"),
        ("os.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)", {}, NO_RESPONSE, "status 137"),
        # The connection to the host among them; the proxy cannot answer any more.
        ("os.closerange(3, 1024)\nsignal.pause()", {"timeout": 500}, TIME_LIMIT, ""),
        ("os.closerange(3, 1024)\nreturn {}", {}, NO_RESPONSE, "exited with status"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()", {"timeout": 500},
         TIME_LIMIT, ""),
        ("time.sleep(0.6)\nreturn {'late': True}", {"timeout": 500}, TIME_LIMIT, ""),
        # It doubles until its memory, its processes or its time are used up.
        ("while True:\n    try: os.fork()\n    except OSError: pass", {"timeout": 500},
         "The action ", ""),
    ],
    ids=["memory", "exit", "kill", "sockets", "sockets-return", "sigterm", "late", "forks"],
)  # fmt: skip
async def test_a_function_that_costs_its_container(
    house: DockerHouse, body: str, limits: dict[str, int], says: str, ended: str
) -> None:
    await house.put("bad", function(body), limits=limits)
    record = await house.ends_badly("bad", says=says)
    assert record["response"]["status"] == "action developer error"
    if ended:
        (line,) = [line for line in logged(record) if "The container failed" in line]
        assert ended in line
    await house.goes_on("bad")
    assert house.house.invoker.pool.counts()["created"] == 3, "a container that failed is not kept"


async def test_memory_that_runs_out_while_code_is_loaded(house: DockerHouse) -> None:
    code = function("return args", top="bytearray(600 << 20)")
    await house.put("bad", code, limits={"memory": 128})
    await house.ends_badly("bad", says=NO_MEMORY)
    await house.goes_on()


FILL = """\
try:
    with open("/tmp/big", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    return {"error": os.strerror(error.errno)}
"""
# To the kernel a thread is a process, the one that takes the least memory.
THREADS = """\
count = 0
try:
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        count += 1
except RuntimeError as error:
    return {"error": f"{error} after {count}"}
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [(FILL, "No space left on device"), (THREADS, "can't start new thread after 10")],
    ids=["disk", "processes"],
)
async def test_a_function_that_is_refused_more_keeps_its_container(
    house: DockerHouse, body: str, says: str
) -> None:
    await house.put("bad", function(body), limits={"memory": 512})
    record = await house.ends_badly("bad", says=says)
    assert record["response"]["status"] == "application error"
    await house.goes_on("bad")
    assert house.house.invoker.pool.counts()["created"] == 2


async def test_a_function_that_floods_stdout(house: DockerHouse) -> None:
    body = "for _ in range(5000):\n    print('x' * 1000)\nreturn {'done': True}"
    await house.put("bad", function(body), limits={"logs": 1})
    record = await house.invoke("bad")
    assert record["response"]["result"] == {"done": True}
    lines = logged(record)
    assert 0.9 * MIB < sum(map(len, lines)) < 1.1 * MIB
    assert "Logs were truncated" in lines[-1]
    await house.goes_on("bad")
    assert logged(await house.invoke("bad", {"good": True})) == []


async def test_a_thread_that_floods_stdout_for_ever(house: DockerHouse) -> None:
    flood = "def flood():\n    while True:\n        print('y' * 500)"
    body = "threading.Thread(target=flood, daemon=True).start()\nreturn {'done': True}"
    await house.put("bad", function(body, top=flood), limits={"logs": 1})
    record = await house.invoke("bad")
    assert record["response"]["result"] == {"done": True}
    await house.goes_on()


# What images do


async def test_a_missing_image_is_told_at_once_with_the_cure(
    docker_client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with docker_house(docker_client) as house:
        await house.put("bad", function("return {}"))
        with monkeypatch.context() as patch:
            patch.setitem(images.REPOSITORIES, "python:3", "acs-test/missing")
            record = await house.ends_badly("bad", says="image acs-test/missing:")
        assert record["response"]["status"] == "whisk internal error"
        assert "`acs images build`" in record["response"]["result"]["error"]
        # A revision that failed for good is not tried at once; what is deployed anew is.
        await house.put("bad", function("return {}"))
        await house.goes_on("bad")


async def test_an_image_of_an_action_that_cannot_be_had_is_its_own_fault(
    docker_client: DockerClient,
) -> None:
    # With a network, since an image that is not ours is reached by TCP.
    network = f"acs-test-{uuid.uuid4().hex[:8]}"
    image = "127.0.0.1:1/acs/none:1"
    try:
        async with docker_house(docker_client, options={"network": network}) as house:
            blackbox = {"exec": {"kind": "blackbox", "image": image}}
            await house.house.entities.put_action("guest", "bad", blackbox, overwrite=True)
            record = await house.ends_badly(
                "bad", says=f"Failed to pull container image '{image}'."
            )
            assert record["response"]["status"] == "action developer error"
            # What is deployed anew is tried at once.
            await house.put("bad", function("return {}"))
            await house.goes_on("bad")
    finally:
        docker_client.api.remove_network(network)


async def test_a_proxy_that_ends_at_its_start_is_tried_until_the_wait_bound(
    docker_client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = image_reference("python:3")
    with monkeypatch.context() as patch:
        patch.setitem(images.REPOSITORIES, "python:3", f"acs-test/ends-{os.getpid()}")
        broken = image_reference("python:3")
        command = "import sys; sys.exit(print('no luck') or 7)"
        recipe = f'FROM {base}\nENTRYPOINT ["/usr/local/bin/python3", "-c", "{command}"]\n'
        docker_client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=broken, rm=True)
        try:
            scheduler = {"wait_max_us": 3_000_000, "retry_max_us": 200_000}
            async with docker_house(docker_client, scheduler=scheduler) as house:
                await house.put("bad", function("return {}"))
                record = await house.ends_badly("bad", says="is not initiated for 3000 ms")
                assert "exit status 7, output: no luck" in record["response"]["result"]["error"]
                assert house.house.invoker.pool.counts()["created"] > 1
                patch.undo()
                await house.goes_on("bad")
        finally:
            docker_client.api.remove_image(broken, force=True)


# What people do


@pytest.mark.parametrize("how", ["remove", "kill"])
async def test_a_container_that_somebody_ends_while_it_idles(house: DockerHouse, how: str) -> None:
    await house.put("echo", function("return args"))
    assert (await house.invoke("echo", {"n": 1}))["response"]["success"]
    handle = await house.container()
    await asyncio.to_thread(end, house.client, handle, how)
    await house.goes_on("echo")
    assert handle not in house.containers().values()


@pytest.mark.parametrize("how", ["remove", "kill"])
async def test_a_container_that_somebody_ends_while_it_runs(house: DockerHouse, how: str) -> None:
    await house.put("bad", function("signal.pause()\nreturn {}"))
    running = asyncio.create_task(house.ends_badly("bad", says=NO_RESPONSE))
    await until(lambda: house.house.invoker.pool.counts()["ready"], "the run")
    await asyncio.to_thread(end, house.client, await house.container(), how)
    (line,) = [line for line in logged(await running) if "The container failed" in line]
    # A removal kills first, and may be asked about in between.
    assert "exited with status 137" in line or "was removed by somebody else" in line
    await house.goes_on("bad")


def end(client: DockerClient, handle: str, how: str) -> None:
    if how == "remove":
        client.api.remove_container(handle, force=True)
    else:
        client.api.kill(handle)


async def test_a_container_that_somebody_removes_in_its_sleep(docker_client: DockerClient) -> None:
    async with docker_house(docker_client, pool={"pause_grace_us": 1}) as house:
        await house.put("echo", function("return args"))
        assert (await house.invoke("echo", {"n": 1}))["response"]["success"]
        await until(lambda: house.house.invoker.pool.counts()["paused"], "the pause")
        await asyncio.to_thread(end, docker_client, await house.container(), "remove")
        await house.goes_on("echo")


# What a kill of the server does


def recorded(client: httpx.Client) -> int:
    """Return how many records there are."""
    count: int = client.get("namespaces/_/activations?count=true").json()["activations"]
    return count


@pytest.fixture
def foreign(docker_client: DockerClient) -> Iterator[list[str]]:
    """Containers of others: of another data folder, and of somebody without labels."""
    image = image_reference("python:3")
    made = [
        docker_client.api.create_container(image, labels=labels)["Id"]
        for labels in ({INSTANCE_LABEL: "another", CONTAINER_LABEL: "c1"}, {})
    ]
    yield made
    for handle in made:
        docker_client.api.remove_container(handle, force=True)


def test_a_killed_server_removes_its_own_at_the_next_start_and_nothing_else(
    docker_client: DockerClient, foreign: list[str]
) -> None:
    with running_server(sandbox="docker") as server:
        instance = (server.data / "instance").read_text()

        def own() -> dict[str, str]:
            found = docker_client.api.containers(
                all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"}
            )
            return {each["Id"]: each["State"] for each in found}

        with rest_client(server) as client:
            for name in ("idle", "running", "starting"):
                code = function("signal.pause()")
                body = {"exec": {"kind": "python:3", "code": code}}
                client.put(f"namespaces/_/actions/{name}", json=body).raise_for_status()
            good = {"good": True}
            path = "namespaces/_/actions/{}?blocking={}&result=true".format
            assert client.post(path("idle", "true"), json=good).json() == good
            accepted = [client.post(path("running", "false")).json()["activationId"]]
            wait_until(lambda: list(own().values()) == ["running"] * 2, "the second container")
            accepted.append(client.post(path("starting", "false")).json()["activationId"])
            wait_until(lambda: len(own()) == 3, "the third container")
            before = own()
        server.kill()
        assert own().keys() == before.keys(), "nothing removes them before the next start"
        server.start()

        assert own() == {}
        assert list((server.data / "sandboxes").iterdir()) == []
        for handle in foreign:
            assert docker_client.api.inspect_container(handle)["State"]["Status"] == "created"
        with rest_client(server) as client:
            for activation_id in accepted:
                record = client.get(f"namespaces/_/activations/{activation_id}").json()
                assert "It is not known whether" in record["response"]["result"]["error"]
            assert client.post(path("running", "true"), json=good).json() == good
            wait_until(lambda: recorded(client) == 4, "the record of each, once")
            assert client.get("acs/status").json()["containers"] == len(own()) == 1
    assert own() == {}
