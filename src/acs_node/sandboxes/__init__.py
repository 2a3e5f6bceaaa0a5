"""What an invoker needs of a sandbox engine: the interface, and its errors.

An engine starts, pauses, resumes and removes sandboxes; it decides nothing.  What becomes of
which one, and when, is said by ``acs_core.containers``.  Implementations: ``docker``, ``process``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .logpipes import LogPipes


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to start: a sandbox for one action, which is not known before ``/init``.

    ``container`` is its name: unique for ever, ``[A-Za-z0-9_.-]{1,100}``, and that of the container
    that it becomes unless it was prewarmed; ``kind`` is a resolved runtime kind such as
    ``python:3``; ``memory_mb`` bounds memory (no swap); ``environment`` is set before the proxy
    starts; ``image`` is that of an action which brings its own.  ``network`` False: it reaches no
    other machine, whatever others may.
    """

    container: str
    kind: str
    memory_mb: int
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = True
    image: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A started sandbox whose action proxy accepts connections on ``socket_path``.

    ``logs`` are its stdout and stderr, opened by the host before any user code ran.
    ``handle`` belongs to the engine (a process, an engine's container id).
    ``port``, if not 0, is what it listens on instead, on loopback: OpenWhisk's own way.
    ``sentinels``: the end of each activation is marked in its logs.
    """

    spec: SandboxSpec
    socket_path: str
    logs: LogPipes
    handle: object
    port: int = 0
    sentinels: bool = True


@dataclass(frozen=True, slots=True)
class SandboxEnd:
    """How a sandbox ended: ``cause`` in words, as "exited with status 3"; the user reads it.

    ``out_of_memory``: the kernel killed it.
    """

    cause: str
    out_of_memory: bool = False


class SandboxError(Exception):
    """An engine could not do it; ``final`` when a retry cannot help (image missing)."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class ImageUnavailable(SandboxError):
    """An image was asked for where it should be, and cannot be had; final."""

    def __init__(self, message: str) -> None:
        super().__init__(message, final=True)


class EngineUnavailable(SandboxError):
    """The engine itself does not answer; the work is kept and tried again."""


class SandboxEngine(Protocol):
    """One engine on this host.  All methods are called from the invoker's event loop."""

    name: str

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Create and start a sandbox and return once its proxy accepts connections.

        Raises: SandboxError, and then nothing of the sandbox is left behind.
        """
        ...

    async def pause(self, sandbox: Sandbox) -> None:
        """Take the processor from the sandbox, and leave it its memory, until it is resumed.

        Raises: SandboxError, and then it may be paused or not.
        """
        ...

    async def resume(self, sandbox: Sandbox) -> None:
        """Let a paused sandbox run on.  Raises: SandboxError, as ``pause``."""
        ...

    async def remove(self, sandbox: Sandbox) -> None:
        """End and remove the sandbox and its files, whatever state it is in; idempotent.

        It may be paused; a call that pauses or resumes it may be under way.
        """
        ...

    async def ending(self, sandbox: Sandbox) -> SandboxEnd:
        """Say how a sandbox whose connection broke has ended (waits at most 3 s).

        Raises: SandboxError when the engine does not say.
        """
        ...

    async def remove_leftovers(self) -> int:
        """Remove what a crashed run of *this* data folder left; return how many."""
        ...

    async def close(self) -> None:
        """Remove every sandbox that is still there and release the engine."""
        ...
