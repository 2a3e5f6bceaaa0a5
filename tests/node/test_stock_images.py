"""Images that are not ours: reached by TCP on loopback, their output taken from the engine."""

import asyncio
import io
import json
import os
import tarfile
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker import DockerClient

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import ECHO, Container, PythonCases  # noqa: E402
from node.server import rest_client, running_server  # noqa: E402
from waiting import wait_until  # noqa: E402

from acs_node.images import image_reference  # noqa: E402
from acs_node.manifest import parse  # noqa: E402
from acs_node.sandboxes import (  # noqa: E402
    EngineUnavailable,
    SandboxError,
    SandboxSpec,
    docker,
    pulls,
)
from acs_node.sandboxes.docker import DockerEngine  # noqa: E402

KIND = "stock:1"
NAME = f"stock-{os.getpid()}"
IMAGE = f"acs-test/{NAME}:1"
UNREACHABLE = "127.0.0.1:1/acs/none:1"
DOCKERFILE = f"""
FROM {image_reference("python:3")}
LABEL acs.kind=""
COPY stock_proxy.py /stock_proxy.py
ENTRYPOINT ["/usr/local/bin/python3", "-B", "/stock_proxy.py"]
"""


def manifest(**more: Any) -> dict[str, Any]:
    image = {"prefix": "acs-test", "name": NAME, "tag": "1"}
    ours = dict(zip(("name", "tag"), image_reference("python:3").split(":"), strict=True))
    return {
        "runtimes": {
            "stock": [{"kind": KIND, "image": image, **more}],
            "python": [{"kind": "python:3", "image": ours}],
        }
    }


@pytest.fixture(scope="module")
def image(docker_client: DockerClient, docker_images: None) -> Iterator[str]:
    """An image of nobody's label, under a name that only this module uses."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        proxy = Path(__file__).with_name("stock_proxy.py").read_bytes()
        for name, content in (("Dockerfile", DOCKERFILE.encode()), ("stock_proxy.py", proxy)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    docker_client.images.build(fileobj=context, custom_context=True, tag=IMAGE, rm=True)
    yield IMAGE
    docker_client.api.remove_image(IMAGE, force=True)


@pytest.fixture
def network(docker_client: DockerClient) -> Iterator[str]:
    name = f"acs-test-{uuid.uuid4().hex[:8]}"
    yield name
    docker_client.api.remove_network(name)


@pytest.fixture
async def engine(
    docker_client: DockerClient, image: str, network: str
) -> AsyncIterator[DockerEngine]:
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = DockerEngine(
            folder,
            instance=f"test-{uuid.uuid4().hex}",
            client=docker_client,
            network=network,
            manifest=parse(manifest()),
        )
        yield engine
        await engine.close()
        assert list(Path(folder).glob("sandboxes/*")) == []


class TestStockImage(PythonCases):
    """The cases of every runtime, over TCP."""

    kind = KIND


async def test_a_kind_of_ours_in_a_manifest_is_reached_as_ever(engine: DockerEngine) -> None:
    sandbox = await engine.start(SandboxSpec("ours", "python:3", 128))
    assert (sandbox.port, sandbox.sentinels) == (0, True)
    container = Container(sandbox)
    assert await container.init(ECHO) == (200, {"ok": True})
    container.http.close()


async def test_an_image_of_an_action_marks_no_logs(engine: DockerEngine, image: str) -> None:
    sandbox = await engine.start(SandboxSpec("own", "blackbox", 128, image=image))
    assert sandbox.port > 0
    assert not sandbox.sentinels


async def test_images_that_cannot_be_had(
    engine: DockerEngine, docker_client: DockerClient, image: str
) -> None:
    with pytest.raises(SandboxError) as caught:
        await engine.start(SandboxSpec("c", "blackbox", 128, image=UNREACHABLE))
    assert (str(caught.value), caught.value.final) == (
        f"Failed to pull container image '{UNREACHABLE}'.",
        True,
    )
    # "latest" is pulled though it is here, for it may be another one tomorrow.
    docker_client.api.tag(image, "127.0.0.1:1/acs/stock", "latest")
    for name in ("127.0.0.1:1/acs/stock", "127.0.0.1:1/acs/stock:latest"):
        with pytest.raises(SandboxError, match="Failed to pull"):
            await engine.start(SandboxSpec("c", "blackbox", 128, image=name))
    docker_client.api.remove_image("127.0.0.1:1/acs/stock:latest")


@pytest.fixture
async def silent_registry() -> AsyncIterator[str]:
    """A registry that says what it is, and then nothing more."""
    asked: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            if (await reader.readexactly(1)) != b"\x16":  # TLS, which the engine tries first
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"ET /v2/ "):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
                    writer.write(b"Connection: close\r\n")
                    writer.write(b"Docker-Distribution-Api-Version: registry/2.0\r\n\r\n{}")
                else:
                    asked.append(writer)
                    return
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for each in asked:
        each.close()


async def test_a_registry_that_falls_silent_holds_up_nobody_else(
    engine: DockerEngine, silent_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(name: str) -> asyncio.Task[Any]:
        spec = SandboxSpec(name, "blackbox", 128, image=f"{silent_registry}/acs/{name}:1")
        return asyncio.create_task(engine.start(spec))

    # More than there are threads for starts, and places for pulls.
    pulls_ = [begin(f"pulled{number}") for number in range(6)]
    async with asyncio.timeout(60):
        sandbox = await engine.start(SandboxSpec("ours", "python:3", 128))
        assert not any(each.done() for each in pulls_)
        await engine.remove(sandbox)
        monkeypatch.setattr(pulls, "PULL_S", 0.1)
        with pytest.raises(SandboxError, match=r"image .*/late:1 did not come in 0\.1 s"):
            await begin("late")
        await engine.close()
        for each in await asyncio.gather(*pulls_, return_exceptions=True):
            assert isinstance(each, EngineUnavailable)
            assert "the engine is closed" in str(each)


async def test_a_pull_without_progress_ends_and_leaves_its_place(
    engine: DockerEngine, silent_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "SILENT_S", 0.5)
    # Twice as many as may be pulled at once: the second half has its turn.
    wanted = [f"{silent_registry}/acs/silent:{number}" for number in range(2 * pulls.PULLS_MAX)]
    async with asyncio.timeout(60):
        failed = await asyncio.gather(
            *(
                engine.start(SandboxSpec(f"c{number}", "blackbox", 128, image=name))
                for number, name in enumerate(wanted)
            ),
            return_exceptions=True,
        )
    for name, error in zip(wanted, failed, strict=True):
        assert str(error) == f"image {name} did not come: no progress for 0.5 s"
        assert isinstance(error, SandboxError)
        assert not error.final


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('so')", r"ended at its start: .*so|ended before its port"),
        ("import signal; signal.pause()", r"was not ready within 2 s"),
    ],
    ids=["ends", "never-listens"],
)
async def test_an_image_without_a_proxy(
    engine: DockerEngine,
    docker_client: DockerClient,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    message: str,
) -> None:
    monkeypatch.setattr(docker, "READY_S", 2.0)
    name = f"acs-test/none-{os.getpid()}"
    entry = ["/usr/local/bin/python3", "-c", program]
    made = docker_client.api.create_container(image, entrypoint=entry)["Id"]
    docker_client.api.commit(made, repository=name, tag="1")
    docker_client.api.remove_container(made)
    try:
        with pytest.raises(SandboxError, match=message):
            await engine.start(SandboxSpec("c", "blackbox", 128, image=f"{name}:1"))
    finally:
        docker_client.api.remove_image(f"{name}:1", force=True)


async def test_without_a_network_it_is_refused(
    docker_client: DockerClient, image: str, tmp_path: Path
) -> None:
    engine = DockerEngine(tmp_path, instance="none", client=docker_client, network="none")
    with pytest.raises(SandboxError, match="is reached by TCP, and the network"):
        await engine.start(SandboxSpec("c", "blackbox", 128, image=image))
    await engine.close()


# End to end


SPEAK = """
import sys
runs = []
def main(args):
    runs.append(1)
    if "die" in args:
        sys.stdout.flush()
        __import__("os")._exit(5)
    print("out", len(runs))
    print("err", file=sys.stderr)
    return {"run": len(runs), **args}
"""


@pytest.fixture(scope="module")
def client(image: str) -> Iterator[httpx.Client]:
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        path = Path(folder) / "runtimes.json"
        document = manifest(stemCells=[{"initialCount": 1, "memory": "128 MB"}])
        path.write_text(json.dumps(document))
        arguments = ("--manifest", str(path))
        with (
            running_server(*arguments, sandbox="docker") as server,
            rest_client(server, timeout_s=60) as client,
        ):
            yield client


def put(client: httpx.Client, name: str, **execution: Any) -> None:
    body = {"exec": execution, "limits": {"memory": 128}}
    client.put(f"namespaces/_/actions/{name}", json=body).raise_for_status()


def invoke(client: httpx.Client, name: str, **arguments: Any) -> Any:
    path = f"namespaces/_/actions/{name}?blocking=true"
    return client.post(path, json=arguments).json()


def logs(client: httpx.Client, activation_id: str) -> list[str]:
    def found() -> Any:
        reply = client.get(f"namespaces/_/activations/{activation_id}")
        return reply.json() if reply.status_code == 200 else None

    return [line[31:] for line in wait_until(found, "the record")["logs"]]


@pytest.mark.parametrize("how", ["kind", "blackbox"])
def test_an_action_of_it(client: httpx.Client, image: str, how: str) -> None:
    execution = {"kind": KIND} if how == "kind" else {"kind": "blackbox", "image": image}
    put(client, how, code=SPEAK, **execution)
    for number in (1, 2):
        answer = invoke(client, how, n=number)
        assert answer["response"]["result"] == {"run": number, "n": number}
        said = logs(client, answer["activationId"])
        marks = [line for line in said if "XXX" in line]
        assert sorted(line for line in said if line not in marks) == [
            "stderr: err",
            f"stdout: out {number}",
        ]
        assert marks == []
    died = invoke(client, how, die=True)
    assert "exited unexpectedly" in died["response"]["result"]["error"]
    assert invoke(client, how)["response"]["result"] == {"run": 1}, "in a new container"


def test_an_action_whose_image_is_not_there(client: httpx.Client) -> None:
    put(client, "missing", kind="blackbox", image=UNREACHABLE)
    answer = invoke(client, "missing")
    assert f"Failed to pull container image '{UNREACHABLE}'." in json.dumps(answer)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from acs_node.cli import main

    (tmp_path / "m.json").write_text("{}")
    result = CliRunner().invoke(main, ["standalone", "--manifest", str(tmp_path / "m.json")])
    assert result.exit_code == 2
    assert "m.json: the manifest has no 'runtimes'" in result.output
