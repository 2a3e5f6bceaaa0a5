"""What a function cannot do: each promise of docs/security.md, tried from inside a container.

``attacker.py`` is the function.  Three containers on a real Docker Engine serve all tests: one that
attacks, one that is attacked, and one without a network.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from docker import DockerClient
from docker.errors import NotFound
from requirements import missing

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import DEADLINE_S, Container  # noqa: E402

from acs_node.sandboxes import Sandbox, SandboxSpec  # noqa: E402
from acs_node.sandboxes.docker import DockerEngine  # noqa: E402
from acs_node.sandboxes.docker_containers import FILES_MAX, METADATA_ADDRESS, PIDS_MAX  # noqa: E402

ATTACKER = (Path(__file__).parent / "attacker.py").read_text()
MEMORY_MB = 128
PORT = 8080
USER = 65532
PLATFORM_SECRET = "a secret of the platform"
NETWORK_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
NOT_PERMITTED = "Operation not permitted"
READ_ONLY = "Read-only file system"

T = TypeVar("T")


class Yard:
    """An engine with its containers, on an event loop of its own."""

    def __init__(self, folder: Path, client: DockerClient) -> None:
        self.client = client
        self.network = f"acs-test-{uuid.uuid4().hex[:8]}"
        self._loop = asyncio.new_event_loop()
        self._engine = self.wait(self._make_engine(folder))
        self.attacker, self.victim, self.lonely = self.wait(self._start())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, 2 * DEADLINE_S))

    async def _make_engine(self, folder: Path) -> DockerEngine:
        # With a client of its own, which reads the settings of this process's docker.
        return DockerEngine(folder, instance=self.network, network=self.network)

    async def _start(self) -> list[Container]:
        sandboxes = await asyncio.gather(
            *(self._engine.start(spec(network)) for network in (True, True, False))
        )
        return [Container(sandbox) for sandbox in sandboxes]

    def load(self) -> None:
        for container in (self.attacker, self.victim, self.lonely):
            assert self.wait(container.init(ATTACKER)) == (200, {"ok": True})

    def attack(self, attack: str, container: Container | None = None, **arguments: object) -> Any:
        """Run one attack, in the attacker's container unless another is given."""
        container = container or self.attacker
        status, result = self.wait(container.run({"attack": attack, **arguments}))
        assert status == 200, result
        return result

    def address(self, sandbox: Sandbox) -> str:
        attached = self.client.api.inspect_container(sandbox.handle)["NetworkSettings"]
        address: str = attached["Networks"][self.network]["IPAddress"]
        return address

    def filters_traffic(self) -> bool:
        """Say whether the engine made packet filter rules for the network; True if unknown."""
        program = shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            return False
        bridge = f"br-{self.client.api.inspect_network(self.network)['Id'][:12]}"
        rules = subprocess.run([program, "-S"], capture_output=True, text=True, check=False)
        return rules.returncode != 0 or bridge in rules.stdout

    def close(self) -> None:
        try:
            self.wait(self._engine.close())
        finally:
            with contextlib.suppress(NotFound):
                self.client.api.remove_network(self.network)
            self._loop.close()


def spec(network: bool) -> SandboxSpec:
    environment = {"__OW_API_HOST": "http://127.0.0.1:1"}
    return SandboxSpec(f"c-{uuid.uuid4().hex[:8]}", "python:3", MEMORY_MB, environment, network)


@pytest.fixture(scope="module")
def yard(docker_client: DockerClient, docker_images: None) -> Iterator[Yard]:
    with tempfile.TemporaryDirectory(prefix="acs-") as temporary, pytest.MonkeyPatch.context() as m:
        folder = Path(temporary)
        m.setenv("ACS_TEST_SECRET", PLATFORM_SECRET)
        # Whoever configures docker's client for a proxy does not mean functions to know it.
        proxies = {"default": {"httpProxy": f"http://user:{PLATFORM_SECRET}@127.0.0.1:1"}}
        (folder / "config.json").write_text(json.dumps({"proxies": proxies}))
        m.setenv("DOCKER_CONFIG", str(folder))
        yard = Yard(folder, docker_client)
        try:
            yard.load()
            yield yard
        finally:
            yard.close()


def test_a_function_has_no_privileges_and_gets_none(yard: Yard) -> None:
    seen = yard.attack("privileges")
    assert set(seen.pop("ids")) == {USER}
    status = seen.pop("status")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert seen.pop("old privileges") == "Invalid argument", "what was given up stays so"
    assert seen == dict.fromkeys(seen, NOT_PERMITTED)


def test_forbidden_calls_of_the_kernel_are_refused(yard: Yard) -> None:
    # Anybody may make both where no filter stands before them.
    assert yard.attack("forbidden_calls") == {
        "keyctl": NOT_PERMITTED,
        "user namespace": NOT_PERMITTED,
    }


def test_the_root_file_system_is_read_only(yard: Yard) -> None:
    seen = yard.attack("root_file_system")
    assert seen.pop("write") == [*[READ_ONLY] * 4, "Permission denied"]
    assert set(seen.pop("kernel")) <= {READ_ONLY, "Permission denied", "No such file or directory"}
    limits = seen.pop("own limits")
    assert limits
    assert set(limits) <= {READ_ONLY, "Permission denied"}
    assert seen == {"remount": NOT_PERMITTED, "scratch": "done"}


@pytest.mark.parametrize("path", ["/tmp/big", "/dev/shm/big"])
def test_scratch_space_is_bounded(yard: Yard, path: str) -> None:
    filled = yard.attack("fill", path=path)
    assert filled["outcome"] == "No space left on device"
    assert 60 <= filled["mib"] <= 64


def test_processes_are_bounded(yard: Yard) -> None:
    bomb = yard.attack("start_threads", most=2 * PIDS_MAX)
    assert bomb["refused"] == "can't start new thread"
    assert PIDS_MAX - 10 <= bomb["started"] < PIDS_MAX
    assert yard.attack("start_threads", most=1)["started"] == 1, "it works again"


def test_memory_is_bounded_and_not_swapped(yard: Yard) -> None:
    taken = yard.attack("take_memory", mib=2 * MEMORY_MB)
    assert taken["killed"], "a child took twice the memory of its container"
    assert taken["limit"] == MEMORY_MB << 20
    # Version 2 of cgroups tells swap apart, if the kernel counts it at all.
    assert taken["swap"] in (None, "0")
    config = yard.client.api.inspect_container(yard.attacker.sandbox.handle)["HostConfig"]
    # Without swap accounting the kernel has nothing to limit, and the engine drops the setting.
    assert config["MemorySwap"] == (MEMORY_MB << 20 if yard.client.info()["SwapLimit"] else -1)


def test_file_descriptors_are_bounded(yard: Yard) -> None:
    seen = yard.attack("open_files")
    assert seen["outcome"] == "Too many open files"
    assert FILES_MAX - 30 <= seen["opened"] < FILES_MAX
    assert seen["raise"] == "not allowed to raise maximum limit"
    assert seen["core"] == [0, 0]


def test_nothing_of_the_host_or_of_others_is_seen(yard: Yard) -> None:
    yard.attack("leave_a_secret", yard.victim)
    seen = yard.attack("look_around", other=yard.victim.sandbox.spec.container)
    assert [names for names in seen["scratch"] if "secret" in names] == []
    assert seen["shared"] == ["Permission denied", "No such file or directory"]
    assert seen["sockets"] == []
    assert seen["docker"] == ["No such file or directory"] * 3
    mounts = {each for each in seen["mounts"] if not each.startswith(("/proc", "/sys", "/dev"))}
    assert mounts == {"/", "/acs", "/tmp", "/sbin/docker-init", *NETWORK_FILES}
    assert len(seen["environments"]) <= 3, "it sees processes of others"
    assert not {"kmsg", "mem", "vda", "sda"} & set(seen["devices"])
    assert sorted(seen["interfaces"]) == ["eth0", "lo"], "the network of the host"


def test_nothing_secret_is_in_the_environment(yard: Yard) -> None:
    seen = yard.attack("look_around", other="")
    assert PLATFORM_SECRET not in json.dumps(seen)
    environment = {k: v for k, v in seen["environment"].items() if not k.startswith("__OW_")}
    assert environment.pop("HOSTNAME") == str(yard.attacker.sandbox.handle)[:12]
    assert environment == {"PATH": "/usr/local/bin", "HOME": "/tmp", "TMPDIR": "/tmp"}
    # The one of the run keys that is a credential is there when the run is given one.
    assert {k for k in seen["environment"] if k.startswith("__OW_")} == {
        "__OW_API_HOST",
        "__OW_ACTION_NAME",
        "__OW_ACTION_VERSION",
        "__OW_ACTIVATION_ID",
        "__OW_API_KEY",
        "__OW_DEADLINE",
        "__OW_NAMESPACE",
        "__OW_TRANSACTION_ID",
    }


def test_no_other_container_is_reached(yard: Yard) -> None:
    yard.attack("listen", yard.victim, port=PORT)
    target = [yard.address(yard.victim.sandbox), PORT]
    (outcome,) = yard.attack("knock", targets=[target])["outcomes"]
    if outcome == "done" and not yard.filters_traffic():
        missing("docker", "this Docker Engine manages no iptables: it cannot block such traffic")
    assert outcome == "TimeoutError"


def test_services_on_the_hosts_loopback_are_not_reached(yard: Yard) -> None:
    gateway = yard.attack("gateway")["address"]
    assert gateway is not None
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        targets = [[address, port] for address in ("127.0.0.1", gateway)]
        outcomes = yard.attack("knock", targets=targets)["outcomes"]
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()
    assert outcomes[0] == "Connection refused"
    assert outcomes[1] in ("Connection refused", "TimeoutError")


def test_the_metadata_address_is_the_containers_own(yard: Yard) -> None:
    assert yard.attack("own", address=METADATA_ADDRESS, port=PORT) == {"peer": METADATA_ADDRESS}
    targets = [[METADATA_ADDRESS, 80], ["169.254.170.2", 80]]
    metadata, other = yard.attack("knock", targets=targets)["outcomes"]
    assert metadata == "Connection refused"
    assert other in ("TimeoutError", "No route to host")


def test_a_container_without_a_network_reaches_nothing(yard: Yard) -> None:
    seen = yard.attack("look_around", yard.lonely, other="")
    assert seen["interfaces"] == ["lo"]
    targets = [[METADATA_ADDRESS, 80], [yard.address(yard.victim.sandbox), PORT], ["192.0.2.1", 80]]
    outcomes = yard.attack("knock", yard.lonely, targets=targets)["outcomes"]
    assert outcomes == ["Network is unreachable"] * 3
