"""The processes of the process sandbox: started as programs, or forked from a template.

What a template is, and what is said over its socket: ``runtimes/python/template.py``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol

ANSWER_SECONDS = 10.0  # a fork takes 2 ms, the start of the interpreter 40
ROOM_BYTES = 4096  # in which others find a proxy's environment
PACKET_BYTES_MAX = 64 * 1024
SAID_BYTES_MAX = 2_000  # of what a template that failed wrote


LOST = "ended, and the template that knows how with it"


class Process(Protocol):
    """A process that leads its own session.  Its methods may be called from several threads.

    It stays a zombie until it is reaped: that keeps its number ``pid``, and so that of its
    process group, from being given to others, unless it is LOST.
    """

    pid: int
    reaped: bool

    def ending(self) -> str | None:
        """Say how it ended, in words that complete "it ..."; None while it runs."""
        ...

    def reap(self) -> None:
        """Wait for its end and let go of its number; idempotent."""
        ...


class Spawned:
    """A program of its own, a child of ours."""

    def __init__(
        self, command: list[str], folder: Path, work: Path, environment: dict[str, str]
    ) -> None:
        """Start it with the FIFOs of ``folder`` as its output.  Raises: OSError, ValueError."""
        # For writing only: an end that the child could read from would defeat the proxy's leash.
        out = os.open(folder / "stdout", os.O_WRONLY | os.O_CLOEXEC)
        err = os.open(folder / "stderr", os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=work,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(out)
            os.close(err)
        self.pid = self._process.pid
        self.reaped = False

    def ending(self) -> str | None:
        """See ``Process``."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self.pid, flags)
        if ended is None:
            return None
        return _how(ended.si_status, killed=ended.si_code != os.CLD_EXITED)

    def reap(self) -> None:
        """See ``Process``."""
        self._process.wait()
        self.reaped = True


class Forked:
    """A proxy that was forked from a template."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid = pid
        self.reaped = False
        self._template = template

    def ending(self) -> str | None:
        """See ``Process``."""
        try:
            return self._template.ended(self.pid, reap=False)
        except OSError:
            return None if _runs(self.pid) else LOST

    def reap(self) -> None:
        """See ``Process``."""
        if not self.reaped:
            with suppress(OSError):  # the template is gone: then init has done it
                self._template.ended(self.pid, reap=True)
            self.reaped = True


class TemplateError(OSError):
    """What the template could not do, in its words."""


class Template:
    """One running template.  Its methods block, for 2 ms unless the machine swaps.

    They may be called from several threads.  ``broken``: it has gone, or did not answer in time,
    and answers no more.
    """

    def __init__(self, command: list[str]) -> None:
        """Start it.  Raises: OSError with what it said."""
        self.broken = False
        self._lock = Lock()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as it runs
        self._socket, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            with inner:
                self._process = subprocess.Popen(
                    command,
                    stdin=inner.fileno(),
                    stdout=self._said,
                    stderr=self._said,
                    env={"ROOM": "." * ROOM_BYTES},
                    start_new_session=True,  # a terminal's Ctrl-C is for the platform
                )
        except BaseException:
            self._socket.close()
            self._said.close()
            raise
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def fork(self, folder: Path, work: Path, environment: dict[str, str]) -> Forked:
        """Start a proxy; see ``Spawned``.  Raises: OSError."""
        said = self._ask({"fork": str(folder), "work": str(work), "environment": environment})
        return Forked(self, said["pid"])

    def ended(self, pid: int, *, reap: bool) -> str | None:
        """Say how a proxy has ended; None while it runs.  Raises: OSError."""
        said = self._ask({"ended": pid, "reap": reap})
        return _how(said["status"], killed=said["signal"]) if said else None

    def close(self) -> None:
        """End the template; idempotent.  Its proxies live on, and how they end is lost."""
        self.broken = True
        self._socket.close()
        self._said.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        with self._lock:
            try:
                self._socket.send(json.dumps(request).encode())
                said = self._receive()
            except OSError:
                # Whatever comes later would be taken for the answer to something else.
                self.broken = True
                raise
        if "error" in said:
            raise TemplateError(said["error"])
        return said

    def _receive(self) -> dict[str, Any]:
        packet = self._socket.recv(PACKET_BYTES_MAX)
        if not packet:
            self._said.seek(0)
            said = self._said.read()[-SAID_BYTES_MAX:].decode(errors="replace").strip()
            raise OSError(f"the template of the proxies ended; it said: {said or 'nothing'}")
        answer: dict[str, Any] = json.loads(packet)
        return answer


def _runs(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([pidfd], [], [], 0)[0]
    finally:
        os.close(pidfd)


def _how(status: int, *, killed: bool) -> str:
    if killed:
        return f"was killed by {signal.Signals(status).name}"
    return f"exited with status {status}"
