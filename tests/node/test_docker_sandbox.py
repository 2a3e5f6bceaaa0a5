"""Sandboxes on a real Docker Engine: life and engine faults."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import NotFound
from requirements import missing

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import (  # noqa: E402
    DEADLINE_S,
    ECHO,
    PYTHON_SLEEPER,
    SILENCE_S,
    Container,
    PythonRuntimeCases,
    ends_when_its_host_is_silent,
)
from waiting import eventually  # noqa: E402

from acs_node import images  # noqa: E402
from acs_node.docker_client import connect  # noqa: E402
from acs_node.images import image_reference  # noqa: E402
from acs_node.sandboxes import (  # noqa: E402
    EngineUnavailable,
    Sandbox,
    SandboxEngine,
    SandboxError,
    SandboxSpec,
    docker,
)
from acs_node.sandboxes.docker import DockerEngine  # noqa: E402
from acs_node.sandboxes.docker_containers import INSTANCE_LABEL  # noqa: E402

pytestmark = pytest.mark.usefixtures("docker_images")

MakeEngine = Callable[..., DockerEngine]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not tmp_path: its length leaves too little of a socket's 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        yield Path(folder)


@pytest.fixture
def instance() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def make_engine(
    docker_client: DockerClient, data_dir: Path, instance: str
) -> AsyncIterator[MakeEngine]:
    """Make engines on one data folder; checks at the end that closing them leaves nothing."""
    engines: list[DockerEngine] = []

    def make(**options: Any) -> DockerEngine:
        options = {"instance": instance, "client": docker_client, "network": "none"} | options
        engines.append(DockerEngine(data_dir, **options))
        return engines[-1]

    yield make
    try:
        for engine in engines:
            await engine.close()
            await engine.close()
    finally:
        left = containers(docker_client, instance)
        for handle in left:
            docker_client.api.remove_container(handle, force=True)
    assert left == []
    assert os.listdir(data_dir / "sandboxes") == []


@pytest.fixture
def engine(make_engine: MakeEngine) -> DockerEngine:
    return make_engine()


def spec(memory_mb: int = 128, **environment: str) -> SandboxSpec:
    return SandboxSpec(f"c-{uuid.uuid4().hex[:8]}", "python:3", memory_mb, environment)


def containers(client: DockerClient, instance: str) -> list[str]:
    """Return the engine's ids of an instance's containers, ended ones too."""
    found = client.api.containers(all=True, filters={"label": f"{INSTANCE_LABEL}={instance}"})
    return [entry["Id"] for entry in found]


async def until(condition: Callable[[], bool]) -> None:
    await eventually(lambda: asyncio.to_thread(condition), "the condition", DEADLINE_S)


async def result_of(sandbox: Sandbox, code: str, value: object = None) -> Any:
    """Load an action in a fresh sandbox, run it once, and return its result."""
    container = Container(sandbox)
    try:
        assert await container.init(code) == (200, {"ok": True})
        status, result = await container.run(value)
        assert status == 200, result
        return result
    finally:
        container.http.close()


class TestPythonInDocker(PythonRuntimeCases):
    """The cases of every runtime."""


# Life


async def test_it_ends_when_its_host_is_silent(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(silence_s=SILENCE_S)
    await ends_when_its_host_is_silent(engine, "python:3", PYTHON_SLEEPER, monkeypatch)


async def test_a_container_starts_runs_and_is_removed(
    engine: DockerEngine, docker_client: DockerClient, instance: str, data_dir: Path
) -> None:
    as_interface: SandboxEngine = engine
    sandbox = await as_interface.start(spec())
    assert containers(docker_client, instance) == [sandbox.handle]

    container = Container(sandbox)
    assert await container.init(ECHO) == (200, {"ok": True})
    for number in range(3):
        assert await container.run({"number": number}) == (200, {"number": number})
    container.http.close()

    for _ in range(2):
        await engine.remove(sandbox)
        assert containers(docker_client, instance) == []
        assert os.listdir(data_dir / "sandboxes") == []


async def test_close_removes_what_runs_and_refuses_more(
    make_engine: MakeEngine, docker_client: DockerClient, instance: str, data_dir: Path
) -> None:
    engine = make_engine()
    await asyncio.gather(*(engine.start(spec()) for _ in range(3)))
    late = asyncio.create_task(engine.start(spec()))
    await until(lambda: len(os.listdir(data_dir / "sandboxes")) == 4)
    await engine.close()
    assert (await late).spec.memory_mb == 128
    assert containers(docker_client, instance) == []
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.start(spec())


async def test_a_cancelled_start_leaves_nothing(
    engine: DockerEngine, docker_client: DockerClient, instance: str, data_dir: Path
) -> None:
    starting = asyncio.create_task(engine.start(spec()))
    await until(lambda: containers(docker_client, instance) != [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: containers(docker_client, instance) == [])
    await until(lambda: os.listdir(data_dir / "sandboxes") == [])


async def test_leftovers_of_this_data_folder_alone_are_removed(
    make_engine: MakeEngine, docker_client: DockerClient, instance: str, data_dir: Path
) -> None:
    crashed = make_engine()
    left = await crashed.start(spec())
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        foreign = DockerEngine(
            folder, instance=f"{instance}-other", client=docker_client, network="none"
        )
        other = await foreign.start(spec())
        engine = make_engine()
        mine = await engine.start(spec())

        assert await engine.remove_leftovers() == 1

        assert containers(docker_client, instance) == [mine.handle]
        assert containers(docker_client, f"{instance}-other") == [other.handle]
        assert os.listdir(data_dir / "sandboxes") == [mine.spec.container]
        assert await engine.remove_leftovers() == 0
        assert await result_of(other, ECHO, {"alive": 1}) == {"alive": 1}
        await foreign.close()
    await crashed.remove(left)


async def test_a_container_removed_behind_our_back(
    engine: DockerEngine, docker_client: DockerClient, data_dir: Path
) -> None:
    sandbox = await engine.start(spec())
    docker_client.api.remove_container(sandbox.handle, force=True)
    assert "removed by somebody else" in (await engine.ending(sandbox)).cause
    await engine.remove(sandbox)
    assert os.listdir(data_dir / "sandboxes") == []


async def test_a_paused_container_takes_no_time_until_it_is_resumed(
    engine: DockerEngine, docker_client: DockerClient
) -> None:
    sandbox = await engine.start(spec())
    container = Container(sandbox)
    assert await container.init(ECHO) == (200, {"ok": True})
    for number in range(2):
        await engine.pause(sandbox)
        assert docker_client.api.inspect_container(sandbox.handle)["State"]["Paused"]
        with pytest.raises(SandboxError, match=r"pause container .* 409: .*already paused"):
            await engine.pause(sandbox)
        await engine.resume(sandbox)
        assert await container.run({"number": number}) == (200, {"number": number})
    with pytest.raises(SandboxError, match=r"unpause container .*not paused"):
        await engine.resume(sandbox)
    container.http.close()


@pytest.mark.parametrize("how", ["remove", "close", "leftover"])
async def test_a_paused_container_is_removed(
    make_engine: MakeEngine, docker_client: DockerClient, instance: str, how: str
) -> None:
    engine = make_engine()
    sandbox = await engine.start(spec())
    await engine.pause(sandbox)
    if how == "remove":
        await engine.remove(sandbox)
        with pytest.raises(SandboxError, match="404"):
            await engine.resume(sandbox)
    elif how == "close":
        await engine.close()
    else:
        assert await make_engine().remove_leftovers() == 1
    assert containers(docker_client, instance) == []


async def test_a_pause_without_an_engine(make_engine: MakeEngine, relay: Relay) -> None:
    engine = make_engine(client=None)
    sandbox = await engine.start(spec())
    relay.lose()
    for call in (engine.pause, engine.resume):
        with pytest.raises(EngineUnavailable, match=str(relay.path)):
            await call(sandbox)
    relay.lost = False
    await engine.close()


# Endings


async def test_out_of_memory_is_recorded(engine: DockerEngine) -> None:
    sandbox = await engine.start(spec(memory_mb=64))
    container = Container(sandbox)
    await container.init("def main(args):\n    return {'size': len(bytearray(200 << 20))}\n")
    with pytest.raises((OSError, http.client.HTTPException)):
        await container.run()
    ending = await engine.ending(sandbox)
    assert ending.out_of_memory
    assert "out of memory" in ending.cause


async def test_an_exit_is_recorded_with_its_status(engine: DockerEngine) -> None:
    sandbox = await engine.start(spec())
    container = Container(sandbox)
    await container.init("import os\ndef main(args):\n    os._exit(3)\n")
    with pytest.raises((OSError, http.client.HTTPException)):
        await container.run()
    ending = await engine.ending(sandbox)
    assert (ending.cause, ending.out_of_memory) == ("exited with status 3", False)


async def test_a_container_that_runs_has_not_ended(engine: DockerEngine) -> None:
    ending = await engine.ending(await engine.start(spec()))
    assert (ending.cause, ending.out_of_memory) == ("still runs", False)


# Bounds; test_containment.py has those that a function can try


async def test_cpu_shares_follow_memory(
    make_engine: MakeEngine, docker_client: DockerClient
) -> None:
    engine = make_engine(host_memory_mb=1024)
    shares = []
    for memory_mb in (128, 256):
        sandbox = await engine.start(spec(memory_mb))
        config = docker_client.api.inspect_container(sandbox.handle)["HostConfig"]
        shares.append(config["CpuShares"])
    assert shares == [128, 256]


SHARED_DIRECTORY_TRICKS = """
import os
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return type(error).__name__
    return "done"
def main(args):
    return {
        "create": attempt(open, "/acs/x", "w"),
        "folder": attempt(os.mkdir, "/acs/x"),
        "link": attempt(os.symlink, "/etc/passwd", "/acs/x"),
        "replace": attempt(os.rename, "/acs/stdout", "/acs/run.sock"),
        "unlink": [attempt(os.unlink, "/acs/" + f) for f in ("run.sock", "stdout", "stderr")],
        "open up": attempt(os.chmod, "/acs", 0o777),
        "own": attempt(os.chown, "/acs", os.getuid(), -1),
        "list": attempt(os.listdir, "/acs"),
    }
"""


async def test_a_function_cannot_change_the_shared_directory(
    engine: DockerEngine, data_dir: Path
) -> None:
    sandbox = await engine.start(spec())
    tried = await result_of(sandbox, SHARED_DIRECTORY_TRICKS)
    outcomes = tried.pop("unlink") + list(tried.values())
    assert outcomes == ["PermissionError"] * len(outcomes)
    names = os.listdir(data_dir / "sandboxes" / sandbox.spec.container)
    assert sorted(names) == ["run.sock", "stderr", "stdout"]
    assert (data_dir / "sandboxes").stat().st_mode & 0o777 == 0o700


async def test_removal_does_not_follow_symbolic_links(engine: DockerEngine, data_dir: Path) -> None:
    outside = data_dir / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    sandbox = await engine.start(spec())
    os.symlink(outside, data_dir / "sandboxes" / sandbox.spec.container / "link")
    await engine.remove(sandbox)
    assert (outside / "file").read_text() == "precious"
    assert os.listdir(data_dir / "sandboxes") == []


# Network


@pytest.fixture
def network(docker_client: DockerClient) -> Iterator[str]:
    name = f"acs-test-{uuid.uuid4().hex[:8]}"
    yield name
    with contextlib.suppress(NotFound):
        docker_client.api.remove_network(name)


async def test_a_removed_network_is_made_again(
    make_engine: MakeEngine, docker_client: DockerClient, network: str
) -> None:
    engine = make_engine(network=network)
    await engine.remove(await engine.start(spec()))
    docker_client.api.remove_network(network)
    with pytest.raises(SandboxError, match=network) as caught:
        await engine.start(spec())
    assert not caught.value.final
    await engine.start(spec())
    await engine.close()


async def test_a_network_with_traffic_between_containers_is_named(
    docker_client: DockerClient, data_dir: Path, network: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def look() -> None:
        engine = DockerEngine(data_dir, instance="i", client=docker_client, network=network)
        await engine.ping()
        await engine.close()

    await look()
    await look()
    assert "reach each other" not in caplog.text, "of what we make, nor of what we find of ours"
    docker_client.api.remove_network(network)
    docker_client.api.create_network(network, driver="bridge")
    await look()
    assert f"network {network} lets its containers reach each other" in caplog.text


# Starts that fail


async def test_a_missing_image_names_the_cure(
    engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setitem(images.REPOSITORIES, "python:3", "acs-test/missing")
    with pytest.raises(SandboxError, match="acs images build") as caught:
        await engine.start(spec())
    assert caught.value.final
    assert not isinstance(caught.value, EngineUnavailable)
    assert os.listdir(data_dir / "sandboxes") == []


async def test_specs_that_cannot_be_started(engine: DockerEngine, data_dir: Path) -> None:
    for container, kind, memory_mb, text in (
        ("..", "python:3", 128, "container is '..'"),
        ("a/b", "python:3", 128, "container is 'a/b'"),
        ("c" * 101, "python:3", 128, "must match"),
        ("c" * 100, "python:3", 128, "107"),
        ("c", "cobol:1", 128, "kind 'cobol:1' has no image"),
        ("c", "python:3", 1, "(?i)memory"),
    ):
        with pytest.raises(SandboxError, match=text) as caught:
            await engine.start(SandboxSpec(container, kind, memory_mb))
        assert caught.value.final, text
    assert os.listdir(data_dir / "sandboxes") == []


async def test_a_name_that_is_taken(
    engine: DockerEngine, docker_client: DockerClient, data_dir: Path
) -> None:
    wanted = spec()
    name = f"acs_{wanted.container}"
    foreign = docker_client.api.create_container(image_reference("python:3"), name=name)["Id"]
    try:
        with pytest.raises(SandboxError, match=name) as caught:
            await engine.start(wanted)
        assert not caught.value.final
        assert docker_client.api.inspect_container(foreign)["Id"] == foreign
        assert os.listdir(data_dir / "sandboxes") == []
    finally:
        docker_client.api.remove_container(foreign, force=True)


async def test_the_same_container_twice(engine: DockerEngine) -> None:
    wanted = spec()
    sandbox = await engine.start(wanted)
    with pytest.raises(SandboxError, match=wanted.container):
        await engine.start(wanted)
    assert await result_of(sandbox, ECHO, {"alive": 1}) == {"alive": 1}


async def test_a_proxy_that_ends_at_its_start_is_quoted(
    make_engine: MakeEngine,
    docker_client: DockerClient,
    instance: str,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = image_reference("python:3")
    monkeypatch.setitem(images.REPOSITORIES, "python:3", f"acs-test/broken-{os.getpid()}")
    broken = image_reference("python:3")
    command = "import os, sys; sys.exit(print('no luck for', os.getuid()) or 7)"
    # What an image says about its user counts for nothing.
    recipe = f'FROM {base}\nUSER 0:0\nENTRYPOINT ["/usr/local/bin/python3", "-c", "{command}"]\n'
    docker_client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=broken, rm=True)
    try:
        with pytest.raises(
            SandboxError, match="exit status 7, output: no luck for 65532"
        ) as caught:
            await make_engine().start(spec())
        assert not caught.value.final
        assert containers(docker_client, instance) == []
        assert os.listdir(data_dir / "sandboxes") == []
    finally:
        docker_client.api.remove_image(broken, force=True)


def test_settings_that_are_refused(data_dir: Path) -> None:
    for network in ("host", "bridge", "default", "", "container:other"):
        with pytest.raises(ValueError, match="network is"):
            DockerEngine(data_dir, instance="i", network=network)
    with pytest.raises(ValueError, match="workers is 1, must be at least 2"):
        DockerEngine(data_dir, instance="i", workers=1)


# Faults of the engine


async def test_no_engine(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = f"unix://{data_dir}/none.sock"
    monkeypatch.setenv("DOCKER_HOST", host)
    engine = DockerEngine(data_dir, instance="i")
    for call in (engine.ping(), engine.start(spec()), engine.remove_leftovers()):
        with pytest.raises(EngineUnavailable, match=host):
            await call
    assert os.listdir(data_dir / "sandboxes") == []
    await engine.close()


async def test_an_engine_that_hangs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    socket_path = data_dir / "hangs.sock"
    server = await asyncio.start_unix_server(never_answer, socket_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket_path}")
    engine = DockerEngine(data_dir, instance="i", call_s=0.2)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(EngineUnavailable, match=r"hangs\.sock"):
            await engine.start(spec())
    assert os.listdir(data_dir / "sandboxes") == []
    await engine.close()
    server.close()


class Relay:
    """A Unix socket before the engine's that can lose the engine or hold requests back."""

    def __init__(self, target: str, path: Path) -> None:
        self._target = target
        self.path = path
        self.lost = False
        self.lose_at: bytes | None = None
        self.hold: bytes | None = None
        self.held_count = 0
        self.let_go = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[Any] | None] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lose()
        self.let_go.set()
        self._server.close()
        await asyncio.gather(*filter(None, self._serving))

    def lose(self) -> None:
        """Close all connections and refuse new ones until ``lost`` is False again."""
        self.lost = True
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.lost:
            writer.close()
            return
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, engine_writer}
        self._serving.add(asyncio.current_task())
        try:
            await asyncio.gather(
                self._copy(reader, engine_writer), self._copy(engine_reader, writer)
            )
        except ConnectionError:
            pass
        finally:
            self._writers -= {writer, engine_writer}
            self._serving.discard(asyncio.current_task())

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.lose_at and self.lose_at in data:
                self.lose_at = None
                self.lose()
                return
            if self.hold and data.startswith(self.hold):
                self.held_count += 1
                await self.let_go.wait()
            writer.write(data)
        writer.close()


@pytest.fixture
async def relay(
    docker_client: DockerClient, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Relay]:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        missing("docker", f"the relay needs a Unix socket, DOCKER_HOST is {host}")
    async with Relay(host.removeprefix("unix://"), data_dir / "relay.sock") as relay:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
        yield relay


async def test_a_removal_without_an_engine_is_not_confirmed(
    make_engine: MakeEngine, relay: Relay, docker_client: DockerClient, instance: str
) -> None:
    engine = make_engine(client=None)
    sandbox = await engine.start(spec())
    relay.lose()
    with pytest.raises(EngineUnavailable, match=str(relay.path)):
        await engine.remove(sandbox)
    with pytest.raises(EngineUnavailable, match="no answer from the Docker Engine"):
        await engine.ending(sandbox)
    assert containers(docker_client, instance) == [sandbox.handle]
    relay.lost = False
    await engine.remove(sandbox)
    assert containers(docker_client, instance) == []
    await engine.close()


async def test_a_start_that_loses_the_engine_is_cleaned_up_when_it_is_back(
    make_engine: MakeEngine, relay: Relay, docker_client: DockerClient, instance: str
) -> None:
    engine = make_engine(client=None)
    relay.lose_at = b"/start"
    with pytest.raises(EngineUnavailable):
        await engine.start(spec())
    assert len(containers(docker_client, instance)) == 1
    relay.lost = False
    sandbox = await engine.start(spec())
    assert containers(docker_client, instance) == [sandbox.handle]
    await engine.close()


async def test_a_start_that_loses_the_engine_is_cleaned_up_also_when_no_other_follows(
    make_engine: MakeEngine,
    relay: Relay,
    docker_client: DockerClient,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker, "OWED_S", 0.05)
    engine = make_engine(client=None)
    relay.lose_at = b"/start"
    with pytest.raises(EngineUnavailable):
        await engine.start(spec())
    assert len(containers(docker_client, instance)) == 1
    relay.lost = False
    await until(lambda: containers(docker_client, instance) == [])
    await engine.close()


async def test_closing_without_an_engine_releases_the_rest(
    make_engine: MakeEngine, relay: Relay, docker_client: DockerClient, instance: str
) -> None:
    engine = make_engine(client=None)
    sandbox = await engine.start(spec())
    relay.lose()
    with pytest.raises(EngineUnavailable):
        await engine.close()
    assert containers(docker_client, instance) == [sandbox.handle]
    relay.lost = False
    assert await make_engine().remove_leftovers() == 1


async def test_closing_does_not_ask_an_engine_that_hangs_for_each_container(
    make_engine: MakeEngine, relay: Relay, docker_client: DockerClient, instance: str
) -> None:
    engine = make_engine(client=None, workers=2, call_s=2)
    await asyncio.gather(*(engine.start(spec()) for _ in range(3)))
    relay.hold = b"DELETE "
    with pytest.raises(EngineUnavailable):
        await engine.close()
    assert relay.held_count == 1
    relay.let_go.set()
    assert await make_engine().remove_leftovers() >= 2


async def test_removals_do_not_keep_starts_waiting(make_engine: MakeEngine, relay: Relay) -> None:
    engine = make_engine(client=None, workers=2)
    sandboxes = await asyncio.gather(*(engine.start(spec()) for _ in range(3)))
    relay.hold = b"DELETE "
    removals = [asyncio.create_task(engine.remove(sandbox)) for sandbox in sandboxes]
    await until(lambda: relay.held_count == 1)
    started = await asyncio.wait_for(engine.start(spec()), DEADLINE_S)
    assert not any(removal.done() for removal in removals)
    relay.let_go.set()
    await asyncio.gather(*removals)
    await engine.remove(started)
    await engine.close()


async def test_starts_do_not_keep_a_resume_waiting(
    make_engine: MakeEngine, relay: Relay, docker_client: DockerClient
) -> None:
    engine = make_engine(client=None, workers=2)
    sandbox = await engine.start(spec())
    await engine.pause(sandbox)
    relay.hold = f"POST /v{docker_client.api._version}/containers/create".encode()
    starts = [asyncio.create_task(engine.start(spec())) for _ in range(3)]
    await until(lambda: relay.held_count == 2)
    await asyncio.wait_for(engine.resume(sandbox), DEADLINE_S)
    assert not any(start.done() for start in starts)
    relay.let_go.set()
    await asyncio.gather(*starts)
    await engine.close()


def test_connections_name_the_engine(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(EngineUnavailable, match=r"tcp://127\.0\.0\.1:1"):
        connect(call_s=1)
