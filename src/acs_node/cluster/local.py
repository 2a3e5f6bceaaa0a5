"""All nodes of a cluster on this machine, each a process, with an etcd of its own.

To try a cluster, and to break it: tests and benchmarks start, kill and look at nodes here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from .etcd_process import EtcdMissing, EtcdProcess, TlsFiles

START_S: Final = 40.0
"""From exec to the line that says that a node serves: an earlier lease of its name may have to
end first."""

STOP_S: Final = 75.0
"""From SIGTERM to the end of a node."""

RESTART_S: Final = 0.5
"""Before a node that ended by itself is started anew."""

CLUSTER: Final = "acs"
"""The nodes keep the default."""

CERTIFICATE_DAYS: Final = 365

_URL: Final = re.compile(r"listening on (http://[^\s,]+)")
_HEALTH: Final = re.compile(r"health on (http://[^\s,]+)")
_KEY: Final = re.compile(r"--auth (\S+)")


class NodeFailed(Exception):
    """A node does not start or ends; the text has its last words."""


class NodeProcess:
    """One node.  ``lines`` is what it has said since it was started last."""

    command = (sys.executable, "-P", "-m", "acs_node.cli")

    def __init__(self, role: str, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.role = role
        self.name = name
        self.log = folder / "log"
        self._folder = folder
        self._arguments = [f"--{key}={value}" for key, value in settings.items()]
        self._process: subprocess.Popen[bytes] | None = None
        self._offset = 0

    def set(self, key: str, value: str) -> None:
        """Give it a setting from its next start on."""
        self._arguments.append(f"--{key}={value}")

    def spawn(self) -> None:
        """Begin to start it; ``wait`` says when it serves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as output:
            self._offset = output.tell()
            self._process = subprocess.Popen(
                [*self.command, self.role, f"--name={self.name}", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(self._folder)},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it serves.  Raises: NodeFailed."""
        deadline_s = time.monotonic() + START_S
        while not _HEALTH.search(self.output()):
            if self._process is None or self._process.poll() is not None:
                raise NodeFailed(f"{self.role} {self.name} does not start:\n{self.output()}")
            if time.monotonic() > deadline_s:
                raise NodeFailed(
                    f"{self.role} {self.name} does not serve within {START_S:g} s:\n{self.output()}"
                )
            time.sleep(0.02)

    def start(self) -> None:
        """Start it and wait until it serves.  Raises: NodeFailed."""
        self.spawn()
        self.wait()

    def output(self) -> str:
        """Return what it has said since it was started last."""
        with open(self.log, "rb") as file:
            file.seek(self._offset)
            return file.read().decode("utf-8", "replace")

    def said(self, pattern: re.Pattern[str]) -> str:
        """Return the group of the pattern in what it has said.  Raises: NodeFailed."""
        match = pattern.search(self.output())
        if match is None:
            raise NodeFailed(f"{self.role} {self.name} has not said {pattern.pattern!r}")
        return match[1]

    @property
    def pid(self) -> int:
        """Its process, also when it has ended."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def health(self) -> str:
        """URL of its health server."""
        return self.said(_HEALTH)

    def is_running(self) -> bool:
        """Tell whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, as far as it is there."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> int:
        """Ask it to end, wait, and return its exit code.  Raises: NodeFailed."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end and return its exit code.  Raises: NodeFailed."""
        assert self._process is not None
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"{self.role} {self.name} did not end within {STOP_S:g} s") from None


class LocalCluster:
    """An etcd and nodes below ``folder``; ``of_invokers`` are further settings of theirs."""

    def __init__(
        self,
        folder: Path,
        *,
        controllers: int = 1,
        schedulers: int = 1,
        invokers: int = 2,
        sandbox: str = "process",
        port: int = 0,
        memory_mb: int = 1_024,
        lease_s: int = 10,
        namespace_containers: int | None = None,
        tls: bool = False,
        links: str = "grpc",
        database_url_file: Path | None = None,
        of_invokers: Mapping[str, str] | None = None,
    ) -> None:
        """``database_url_file``: of the PostgreSQL database of several controllers."""
        self.folder = folder
        self._certificates = folder / "certificates" if tls else None
        self.etcd = EtcdProcess(folder / "etcd", self._files("etcd") if tls else None)
        self.nodes: list[NodeProcess] = []
        self._controllers = controllers
        self._database_url_file = database_url_file
        self._schedulers = schedulers
        self._invokers = invokers
        self._sandbox = sandbox
        self._port = port
        self._memory_mb = memory_mb
        self._lease_s = lease_s
        self._links = links
        self._namespace_containers = namespace_containers
        self._of_invokers = of_invokers or {}

    def start(self) -> None:
        """Start everything and wait until it serves.  Raises: EtcdMissing, NodeFailed."""
        self._certify()
        self.etcd.start()
        common = {
            "etcd": self.etcd.endpoint,
            "lease-s": str(self._lease_s),
            "links": self._links,
        }
        capped = dict(common)
        if self._namespace_containers is not None:
            capped["namespace-containers"] = str(self._namespace_containers)
        controllers = []
        for number in range(self._controllers):
            port = str(self._port + number if self._port else 0)
            controllers.append(self._node("controller", number, {**capped, "api-port": port}))
            if self._database_url_file is not None:
                file = self._database_url_file.absolute()
                controllers[-1].set("database-url-file", str(file))
        # The first one makes the first key, and says where it listens: functions are told.
        controllers[0].start()
        invoker = {
            **common,
            "sandbox": self._sandbox,
            "memory-mb": str(self._memory_mb),
            "api-url": self.url,
            **self._of_invokers,
        }
        others = controllers[1:]
        others += [self._node("scheduler", n, capped) for n in range(self._schedulers)]
        others += [self._node("invoker", n, invoker) for n in range(self._invokers)]
        for node in others:
            node.spawn()
        for node in others:
            node.wait()
        # A later start of a controller must be found where functions and clients know it.
        for controller, url in zip(controllers, self.urls, strict=True):
            controller.set("api-port", url.rpartition(":")[2])

    def _node(self, role: str, number: int, settings: dict[str, str]) -> NodeProcess:
        name = f"{role}{number}"
        folder = self.folder / name
        if role != "scheduler":
            # Short: the sockets of containers lie below it.
            settings = {**settings, "data": str(folder / "data")}
        if self._certificates is not None:
            files = self._files(f"{role}-{name}")
            for prefix in ("tls", "etcd"):
                settings = {
                    **settings,
                    f"{prefix}-ca": str(files.ca),
                    f"{prefix}-certificate": str(files.certificate),
                    f"{prefix}-key": str(files.key),
                }
        node = NodeProcess(role, name, folder, settings)
        self.nodes.append(node)
        return node

    # --- certificates --------------------------------------------------------------------------

    def _files(self, name: str) -> TlsFiles:
        folder = self._certificates
        assert folder is not None
        return TlsFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")

    def _certify(self) -> None:
        """Make an authority and all certificates anew: whoever has them starts now."""
        folder = self._certificates
        if folder is None:
            return
        from .. import certificates

        if folder.exists():
            shutil.rmtree(folder)
        authority = certificates.make_authority(CLUSTER, CERTIFICATE_DAYS)
        certificates.write_pair(folder, "ca", authority)
        etcd = certificates.make_server(authority, ["127.0.0.1", "localhost"], CERTIFICATE_DAYS)
        certificates.write_pair(folder, "etcd", etcd)
        counts = {
            "controller": self._controllers,
            "scheduler": self._schedulers,
            "invoker": self._invokers,
        }
        for role, count in counts.items():
            for number in range(count):
                name = f"{role}{number}"
                pair = certificates.make_node(authority, CLUSTER, role, name, CERTIFICATE_DAYS)
                certificates.write_pair(folder, f"{role}-{name}", pair)

    def of(self, role: str) -> list[NodeProcess]:
        """Return the nodes of a role."""
        return [node for node in self.nodes if node.role == role]

    @property
    def url(self) -> str:
        """Where the first controller listens."""
        return self.of("controller")[0].said(_URL)

    @property
    def urls(self) -> list[str]:
        """Where each controller listens."""
        return [node.said(_URL) for node in self.of("controller")]

    @property
    def auth(self) -> str:
        """The key that the first controller made at its first start."""
        text = self.of("controller")[0].log.read_text()
        match = _KEY.search(text)
        if match is None:
            raise NodeFailed(f"the controller has made no key:\n{text}")
        return match[1]

    def stop(self) -> dict[str, int]:
        """End everything in the order that loses nothing; return the exit codes by name."""
        codes = {}
        for role in ("controller", "scheduler", "invoker"):
            nodes = [node for node in self.of(role) if node.is_running()]
            for node in nodes:
                node.signal(signal.SIGTERM)
            for node in nodes:
                codes[node.name] = node.ended()
        self.etcd.stop()
        return codes

    def kill(self) -> None:
        """End everything at once."""
        for node in self.nodes:
            node.kill()
        self.etcd.kill()

    def watch(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Start anew what fails, until ``stop`` is set.  What was drained stays away."""
        drained: set[str] = set()
        while not stop.wait(RESTART_S):
            for node in self.nodes:
                if node.is_running() or node.name in drained:
                    continue
                if node.ended() == 0:
                    drained.add(node.name)
                    say(f"{node.role} {node.name} has left")
                else:
                    say(f"{node.role} {node.name} has ended and is started anew; see {node.log}")
                    node.spawn()


@contextlib.contextmanager
def running(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Start a cluster and end it whatever happens."""
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def run(cluster: LocalCluster) -> int:
    """``acs cluster up``: run until SIGTERM or SIGINT; return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        cluster.start()
    except (EtcdMissing, NodeFailed, OSError) as error:
        print(f"acs cluster: {error}", file=sys.stderr)
        cluster.kill()
        return 1
    urls = ", ".join(cluster.urls)
    print(f"acs cluster: listening on {urls}, etcd on {cluster.etcd.endpoint}")
    for node in cluster.nodes:
        print(f"  {node.name}: {node.health}/health/ready, log {node.log}")
    with contextlib.suppress(NodeFailed):
        print(f"  --apihost {cluster.url} --auth {cluster.auth}")
    sys.stdout.flush()
    cluster.watch(stop, lambda text: print(text, flush=True))
    failed = {name: code for name, code in cluster.stop().items() if code}
    for name, code in failed.items():
        print(f"acs cluster: {name} ended with code {code}", file=sys.stderr)
    return 1 if failed else 0
