"""A cluster to break: every node and every etcd a process in a network namespace of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from waiting import wait_until

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import NodeFailed, NodeProcess

from .engine import Engine, RunServer
from .network import Network

CLUSTER: Final = "acs"
API_PORT: Final = 3233
_KEY: Final = re.compile(r"--auth (\S+)")
_WALL_CLOCK: Final = Path(__file__).parent / "wall_clock.c"


def wall_clock(folder: Path) -> Path:
    """Compile what a process is to load that has a wall clock of its own.  Raises: NodeFailed."""
    library = folder / "wall_clock.so"
    made = subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", library, _WALL_CLOCK, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise NodeFailed(f"the wall clock cannot be compiled: {made.stderr}")
    return library


class EtcdServer:
    """One member of an etcd of ``peers``; its data stays when it ends."""

    def __init__(self, name: str, network: Network, folder: Path, quota_bytes: int = 0) -> None:
        self.name = name
        self.endpoint = f"{network.add(name).address}:2379"
        self._network = network
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self.peers: list[str] = [name]

    def spawn(self) -> None:
        """Begin to start it.  Raises: EtcdMissing."""
        program = shutil.which("etcd")
        if program is None:
            raise EtcdMissing("there is no program etcd; install the package etcd-server")
        hosts = self._network.hosts
        here = hosts[self.name]
        peers = ",".join(f"{each}=http://{hosts[each].address}:2380" for each in self.peers)
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "log", "ab") as output:
            self._process = subprocess.Popen(
                [
                    *here.command,
                    program,
                    f"--name={self.name}",
                    f"--data-dir={self._folder / 'data'}",
                    f"--listen-client-urls=http://{here.address}:2379",
                    f"--advertise-client-urls=http://{here.address}:2379",
                    f"--listen-peer-urls=http://{here.address}:2380",
                    f"--initial-advertise-peer-urls=http://{here.address}:2380",
                    f"--initial-cluster={peers}",
                    f"--quota-backend-bytes={self._quota_bytes}",
                    "--logger=zap",
                    "--log-level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class World:
    """The cluster below ``folder``.

    ``preload`` names nodes whose wall clock can be moved (``set_clock``); ``nodes`` that end by
    themselves are started anew, as a service manager does, unless they were told to stay down.
    ``engine_of`` is an invoker whose containers are those of a Docker Engine of its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        schedulers: int = 2,
        invokers: int = 3,
        etcds: int = 1,
        lease_s: int = 4,
        links: str = "grpc",
        containers: int = 64,
        memory_mb: int = 4_096,
        sandbox: str = "process",
        quota_bytes: int = 0,
        preload: tuple[str, ...] = (),
        engine_of: str = "",
        settings: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self.folder = folder
        self.network = Network()
        self.lease_s = lease_s
        self.containers = containers
        self.engine = Engine(folder / "engine") if engine_of else None
        self.run_server = RunServer(folder / "runs") if engine_of else None
        self.exits: list[tuple[str, int]] = []
        self._stay_down: set[str] = set()
        self._watching: threading.Thread | None = None
        self._stop_watching = threading.Event()
        self._lock = threading.Lock()
        self.etcds = [
            EtcdServer(f"e{n}", self.network, folder / f"e{n}", quota_bytes) for n in range(etcds)
        ]
        for each in self.etcds:
            each.peers = [other.name for other in self.etcds]
        self.nodes: dict[str, NodeProcess] = {}
        more = settings or {}
        common = {
            "etcd": self.endpoints,
            "lease-s": str(lease_s),
            "links": links,
            "links-without-tls": "true",
        }
        capped = {"namespace-containers": str(containers)}
        api = self.network.add("c0").address
        self._add("controller", "c0", {**common, **capped, "api-host": api}, preload, more)
        for n in range(schedulers):
            traced = {"trace": str(self.traces)}
            self._add("scheduler", f"s{n}", {**common, **capped, **traced}, preload, more)
        for n in range(invokers):
            own = {
                "sandbox": sandbox,
                "memory-mb": str(memory_mb),
                "api-url": f"http://{api}:{API_PORT}",
            }
            if f"i{n}" == engine_of:
                own["sandbox"] = "docker"
            self._add("invoker", f"i{n}", {**common, **own}, preload, more)
            if f"i{n}" == engine_of and self.engine is not None:
                node = self.nodes[engine_of]
                inside = (*self.network.hosts[engine_of].command, "env")
                node.command = (  # type: ignore[assignment]
                    *inside, f"DOCKER_HOST={self.engine.host}", *NodeProcess.command,
                )  # fmt: skip

    def _add(
        self,
        role: str,
        name: str,
        settings: dict[str, str],
        preload: tuple[str, ...],
        more: dict[str, dict[str, str]],
    ) -> None:
        host = self.network.add(name)
        folder = self.folder / name
        settings = {**settings, "host": host.address, **more.get(role, {})}
        if role != "scheduler":
            settings["data"] = str(folder / "d")  # short: sockets lie below it
        node = NodeProcess(role, name, folder, settings)
        command: tuple[str, ...] = host.command
        if name in preload:
            folder.mkdir(parents=True, exist_ok=True)
            self._clock_file(name).write_bytes(bytes(8))
            library = wall_clock(folder)
            command += (
                "env", f"LD_PRELOAD={library}", f"ACS_WALL_CLOCK={self._clock_file(name)}",
            )  # fmt: skip
        node.command = (*command, *NodeProcess.command)  # type: ignore[assignment]
        self.nodes[name] = node

    def _clock_file(self, name: str) -> Path:
        return self.folder / name / "clock"

    @property
    def endpoints(self) -> str:
        """Where etcd is."""
        return ",".join(each.endpoint for each in self.etcds)

    @property
    def api(self) -> tuple[str, int]:
        """Where the REST API is."""
        return self.network.hosts["c0"].address, API_PORT

    @property
    def database(self) -> Path:
        """The controller's SQLite file."""
        return self.folder / "c0" / "d" / "acs.db"

    @property
    def traces(self) -> Path:
        """Where each start of each scheduler has written what it was told and decided."""
        return self.folder / "traces"

    @property
    def auth(self) -> str:
        """The key that the controller has made at its first start."""
        match = _KEY.search(self.nodes["c0"].log.read_text())
        assert match is not None
        return match[1]

    def of(self, role: str) -> list[str]:
        """Return the names of a role's nodes."""
        return [name for name, node in self.nodes.items() if node.role == role]

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait until it serves.  Raises: EtcdMissing, NodeFailed."""
        if self.engine is not None:
            self.engine.prepare()
        for each in self.etcds:
            each.spawn()
        for node in self.nodes.values():
            node.spawn()
        for node in self.nodes.values():
            node.wait()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        while not self._stop_watching.wait(0.3):
            with self._lock:
                for name, node in self.nodes.items():
                    if name not in self._stay_down and not node.is_running():
                        self.exits.append((name, node.ended()))
                        node.spawn()

    def stop(self) -> dict[str, int]:
        """End the nodes in the order that loses nothing; return the exit codes."""
        self._stop_watching.set()
        if self._watching is not None:
            self._watching.join()
        codes = {}
        for role in ("controller", "scheduler", "invoker"):
            names = self.of(role)
            for name in names:
                self.nodes[name].signal(signal.SIGTERM)
            for name in names:
                codes[name] = self.nodes[name].ended()
        return codes

    def close(self) -> None:
        """End whatever is left, at once."""
        self._stop_watching.set()
        if self._watching is not None:
            self._watching.join()
        for node in self.nodes.values():
            node.signal(signal.SIGCONT)
            node.kill()
        for each in self.etcds:
            each.kill()
        for name in self.network.hosts:
            for pid in self.network.processes(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.network.close()
        if self.engine is not None:
            self.engine.stop()
        if self.run_server is not None:
            self.run_server.close()

    def in_engine(self) -> list[str]:
        """Return the containers that an engine still has."""
        if self.engine is None:
            return []
        found = [self.engine.containers(f"{CLUSTER}-{name}") for name in self.of("invoker")]
        return [f"container {each}" for some in found for each in some]

    # --- what can be done to it ------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        """End nodes as a crash does; they stay down until ``revive``."""
        with self._lock:
            self._stay_down.update(names)
            for name in names:
                self.nodes[name].signal(signal.SIGKILL)
            for name in names:
                self.nodes[name].kill()

    def revive(self, *names: str) -> None:
        """Start nodes again and wait until they serve."""
        with self._lock:
            for name in names:
                self.nodes[name].spawn()
                self._stay_down.discard(name)
        for name in names:
            self.nodes[name].wait()

    def restart(self, name: str) -> int:
        """End a node as an operator does, start it again, and return its exit code."""
        with self._lock:
            self._stay_down.add(name)
        code = self.nodes[name].stop()
        self.revive(name)
        return code

    def freeze(self, name: str) -> None:
        """Let a node sleep, without its containers."""
        self.nodes[name].signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.nodes[name].signal(signal.SIGCONT)

    def cut(self, one: str, other: str, ways: str = "both") -> None:
        """Lose packets from ``one`` to ``other``, back, or both ways, until ``network.heal``."""
        if ways in ("both", "there"):
            self.network.cut(one, other)
        if ways in ("both", "back"):
            self.network.cut(other, one)

    def set_clock(self, name: str, offset_s: int) -> None:
        """Move the wall clock of a node that was started with ``preload``."""
        with open(self._clock_file(name), "r+b") as file:  # in place: the node has it mapped
            file.write(struct.pack("q", offset_s))

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl on all members.  Raises: NodeFailed."""
        done = subprocess.run(
            ["etcdctl", f"--endpoints={self.endpoints}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        if done.returncode != 0:
            raise NodeFailed(f"etcdctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def until(self, condition: Callable[[], object], what: str, within_s: float = 60) -> None:
        """Wait for something.  Raises: NodeFailed."""
        try:
            wait_until(condition, what, within_s)
        except AssertionError as error:
            raise NodeFailed(str(error)) from None
