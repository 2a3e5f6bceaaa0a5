"""A network namespace for each node of a cluster on one machine, and packets that get lost.

All hosts hang on one bridge, as does this process.  A direction between two hosts
is cut by a neighbour entry that nobody answers to: packets leave and vanish, without an error for
who sends them, as on a wire that broke.  No packet filter is needed, only root and ``ip``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

NOBODY: Final = "02:00:00:00:00:01"
_CLONE_NEWNET: Final = 0x40000000


class NetworkMissing(Exception):
    """Namespaces cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace; ``command`` before another one runs it inside."""

    name: str
    address: str
    namespace: str

    @property
    def path(self) -> Path:
        """The namespace's file."""
        return Path("/run/netns") / self.namespace

    @property
    def command(self) -> tuple[str, ...]:
        """What to put before a command that is to run here."""
        return ("nsenter", f"--net={self.path}")

    @property
    def id(self) -> int:
        """The namespace's number, as ``/proc/self/ns/net`` tells it to who is inside."""
        return os.stat(self.path).st_ino


class Network:
    """A bridge and its hosts.  Raises: NetworkMissing."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise NetworkMissing("network namespaces need root")
        for program in ("ip", "nsenter"):
            if shutil.which(program) is None:
                raise NetworkMissing(f"there is no program {program}; install iproute2, util-linux")
        self.hosts: dict[str, Host] = {}
        self._cut: set[tuple[str, str]] = set()
        self._subnet, self._wire, self._hub = "", "", ""
        self._ports = 0
        number = 0
        taken = _ip("-4", "-o", "address")
        while not self._wire:
            number = random.randrange(256)
            if f" 10.213.{number}." not in taken:
                self._try(number)
        _ip("address", "add", f"{self._subnet}.1/24", "dev", self._wire)
        _ip("link", "set", self._wire, "up")

    def _try(self, number: int) -> None:
        """Make the bridge and the wire to it, unless somebody else has this number."""
        hub = wire = f"acsf{number}"
        if (Path("/run/netns") / hub).exists():
            return
        _ip("netns", "add", hub)
        self._hub, self._wire, self._subnet = hub, wire, f"10.213.{number}"
        # In a namespace of its own: a Docker Engine has this one's filters drop bridged packets.
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        self._plug(wire, "")

    def _plug(self, end: str, namespace: str) -> None:
        """Join a new interface ``end``, in a namespace or here, to the bridge."""
        self._ports += 1
        port = f"p{self._ports}"
        at = ("-n", namespace) if namespace else ()
        _ip(*at, "link", "add", end, "type", "veth", "peer", "name", port, "netns", self._hub)
        _ip("-n", self._hub, "link", "set", port, "master", "bridge", "up")

    @property
    def gateway(self) -> str:
        """The address of this process."""
        return f"{self._subnet}.1"

    def add(self, name: str) -> Host:
        """Return the host of that name, made if there is none yet."""
        if name in self.hosts:
            return self.hosts[name]
        number = len(self.hosts) + 2
        host = Host(name, f"{self._subnet}.{number}", f"{self._hub}-{name}")
        _ip("netns", "add", host.namespace)
        self.hosts[name] = host
        self._plug("eth0", host.namespace)
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")
        return host

    def cut(self, sender: str, receiver: str) -> None:
        """Lose what ``sender`` writes to ``receiver``, until ``heal``."""
        self._cut.add((sender, receiver))
        self._neighbour("replace", sender, receiver, "lladdr", NOBODY, "nud", "permanent")

    def heal(self) -> None:
        """Deliver everything again."""
        for sender, receiver in self._cut:
            self._neighbour("delete", sender, receiver)
        self._cut.clear()

    def _neighbour(self, verb: str, sender: str, receiver: str, *more: str) -> None:
        at, to = self.hosts[sender], self.hosts[receiver]
        _ip("-n", at.namespace, "neighbour", verb, to.address, *more, "dev", "eth0")

    def processes(self, name: str) -> list[int]:
        """Return who runs at a host."""
        return [int(line) for line in _ip("netns", "pids", self.hosts[name].namespace).split()]

    def inside(self, name: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns when its sockets are made at a host."""
        results: list[T] = []
        host = self.hosts[name]

        def run() -> None:
            with open(host.path, "rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {host.path}")
            results.append(call())

        # A thread of its own, which takes the namespace with it when it ends.
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if not results:
            raise OSError(f"nothing could be asked at {name}")
        return results[0]

    def close(self) -> None:
        """Remove everything; what runs in the namespaces has ended before."""
        for host in self.hosts.values():
            with contextlib.suppress(NetworkMissing):
                _ip("netns", "delete", host.namespace)
        self.hosts.clear()
        with contextlib.suppress(NetworkMissing):
            _ip("netns", "delete", self._hub)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NetworkMissing(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
