"""An engine that is stopped, killed or hangs under its containers, end to end.

On a Docker Engine of this file's own, so that no other test and nobody's containers see it.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from node.docker_house import DockerHouse, docker_house
from node.house import ECHO, WAITS, Recorder
from requirements import missing
from waiting import until

from acs_node.images import image_reference

TOOL = Path(__file__).parents[2] / "tools" / "private_dockerd"
CALL_S = 3.0
"""What the engine has for a call here; a start takes 0.3 s."""

NO_RESPONSE = "The action did not produce a valid response and exited unexpectedly."
EXIT = "import os\ndef main(args):\n    if args.get('good'): return args\n    os._exit(3)\n"


class PrivateEngine:
    """A Docker Engine of our own, with the runtime image, that can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder / 'docker.sock'}"
        self.start()
        self.client = DockerClient(base_url=self.host, version="1.41", timeout=60)

    @property
    def pid(self) -> int:
        return int((self.folder / "dockerd.pid").read_text())

    def start(self) -> None:
        self._tool("start")

    def stop(self) -> None:
        self._tool("stop")

    def kill(self) -> None:
        """End it at once; its containers run on."""
        process = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            assert select.select([process], [], [], 30)[0], "the engine did not end"
        finally:
            os.close(process)

    def hang(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.stop()
        # One that was killed leaves this behind, and the next one does not take it for its own.
        subprocess.run(["umount", str(self.folder / "data")], capture_output=True, check=False)
        shutil.rmtree(self.folder)

    def _tool(self, verb: str) -> None:
        done = subprocess.run(
            [sys.executable, str(TOOL), verb, str(self.folder)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def private(docker_client: DockerClient, docker_images: None) -> Iterator[PrivateEngine]:
    if os.geteuid() != 0:
        missing("docker", "an engine of one's own needs root")
    if shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        missing("docker", "dockerd is not installed")
    private = PrivateEngine(Path(tempfile.mkdtemp(prefix="acs-engine-")))
    try:
        image = docker_client.images.get(image_reference("python:3"))
        private.client.images.load(b"".join(image.save(named=True)))
        yield private
    finally:
        private.close()


@pytest.fixture
async def house(
    private: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerHouse]:
    monkeypatch.setenv("DOCKER_HOST", private.host)
    options = {"client": None, "call_s": CALL_S}
    scheduler = {"retry_max_us": 500_000}
    async with docker_house(private.client, options=options, scheduler=scheduler) as house:
        yield house


def begin(house: DockerHouse, name: str, arguments: Any = None) -> Recorder:
    """Invoke an action whose answer will take a while."""
    house.invoked += 1
    return house.house.start(name, arguments)


async def record(house: DockerHouse, caller: Recorder) -> Any:
    """Wait for the answer to what ``begin`` began, and return its record."""
    answer = await asyncio.wait_for(caller.answered, 60.0)
    assert answer.activation_id is not None, answer
    return await house.house.document(answer.activation_id)


async def failed_creation(caplog: pytest.LogCaptureFixture) -> None:
    await until(lambda: "was not created" in caplog.text, "a creation that fails", 30.0)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_an_engine_that_ends_and_comes_again(
    private: PrivateEngine,
    house: DockerHouse,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    await house.put("wait", WAITS)
    await house.put("cold", ECHO)
    assert (await house.invoke("wait", {"go": "/"}))["response"]["success"]
    running = begin(house, "wait", {"go": "never"})
    await until(lambda: house.house.scheduler.scheduler.counts()["delivered"], "the run")

    await asyncio.to_thread(getattr(private, how))
    try:
        waiting = begin(house, "cold", {"n": 1})
        await failed_creation(caplog)
        # A stopped engine takes its containers along, one that is killed does at its next start.
        assert bool(running.answers) <= (how == "stop")
    finally:
        await asyncio.to_thread(private.start)

    ended = await record(house, running)
    assert ended["response"]["result"] == {"error": NO_RESPONSE}
    assert "The container failed: it " in ended["logs"][-2]
    assert (await record(house, waiting))["response"]["result"] == {"n": 1}
    assert (await house.invoke("wait", {"go": "/"}))["response"]["success"]
    await house.goes_on("cold")


async def test_an_engine_that_hangs_and_goes_on(
    private: PrivateEngine, house: DockerHouse, caplog: pytest.LogCaptureFixture
) -> None:
    for name, code in (("warm", ECHO), ("exit", EXIT), ("cold", ECHO)):
        await house.put(name, code)
    for name in ("warm", "exit"):
        assert (await house.invoke(name, {"good": True}))["response"]["success"]
    private.hang()
    try:
        waiting = begin(house, "cold", {"n": 1})
        # What has its containers needs no engine, and a run that ends badly does not wait for it.
        assert (await house.invoke("warm", {"good": True}))["response"]["success"]
        ended = await house.ends_badly("exit", says=NO_RESPONSE)
        assert "it ended, and its engine does not say why." in ended["logs"][-2]
        await failed_creation(caplog)
        assert house.house.invoker.pool.used_mb() >= 2 * 256, "what is not removed is counted"
    finally:
        private.go_on()
    assert (await record(house, waiting))["response"]["result"] == {"n": 1}
    await house.goes_on("warm", "exit", "cold")


async def test_what_waits_for_a_dead_engine_ends_with_the_cause(
    private: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", private.host)
    scheduler = {"retry_max_us": 200_000, "wait_max_us": 1_000_000}
    async with docker_house(
        private.client, options={"client": None, "call_s": CALL_S}, scheduler=scheduler
    ) as house:
        await house.put("cold", ECHO)
        await asyncio.to_thread(private.stop)
        try:
            ended = await house.ends_badly("cold", says="is not initiated for 1000 ms")
        finally:
            await asyncio.to_thread(private.start)
        assert "no answer from the Docker Engine" in ended["response"]["result"]["error"]
        await house.goes_on("cold")


def test_a_stopped_engine_of_ours_leaves_no_bridge_and_finds_its_networks_again(
    private: PrivateEngine,
) -> None:
    made = private.client.networks.create("acs-test-stop", driver="bridge")
    bridge = Path(f"/sys/class/net/br-{made.id[:12]}")
    try:
        assert bridge.exists()
        private.stop()
        assert not bridge.exists(), "its subnet is taken until somebody removes it"
    finally:
        private.start()
    assert bridge.exists()
    private.client.networks.get(made.id).remove()
