"""An etcd of one's own, on loopback, for a cluster on one machine and for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_S: Final = 20.0
STOP_S: Final = 5.0
TRIES: Final = 5
"""Another program may take a port between our look and etcd's."""


class EtcdMissing(Exception):
    """There is no etcd, or it does not start; the text says what to do."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


class EtcdProcess:
    """One etcd with its data in ``folder``; ``endpoint`` is where clients dial in.

    With ``tls`` it takes only clients that have a certificate of that authority.
    """

    def __init__(self, folder: Path, tls: TlsFiles | None = None) -> None:
        self.endpoint = ""
        self._folder = folder
        self._tls = tls
        self._peer = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same port as before if it was started before.

        Raises: EtcdMissing.
        """
        program = shutil.which("etcd")
        if program is None:
            raise EtcdMissing("there is no program etcd; install the package etcd-server")
        again = bool(self.endpoint)
        scheme, security = "http", []
        if self._tls is not None:
            scheme, security = "https", _security(self._tls)
        for _ in range(1 if again else TRIES):
            if not again:
                self.endpoint = f"127.0.0.1:{_free_port()}"
                self._peer = _free_port()
            client, peer = f"{scheme}://{self.endpoint}", f"http://127.0.0.1:{self._peer}"
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / "log", "ab") as output:
                self._process = subprocess.Popen(
                    [
                        program,
                        f"--data-dir={self._folder / 'data'}",
                        f"--listen-client-urls={client}",
                        f"--advertise-client-urls={client}",
                        f"--listen-peer-urls={peer}",
                        f"--initial-advertise-peer-urls={peer}",
                        f"--initial-cluster=default={peer}",
                        "--logger=zap",
                        "--log-level=warn",
                        *security,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            if self._answers():
                return
            self.kill()
        raise EtcdMissing(f"etcd does not start; {self._folder / 'log'} says why")

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def _answers(self) -> bool:
        host, port = self.endpoint.split(":")
        assert self._process is not None
        deadline_s = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """End it; its data stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _security(tls: TlsFiles) -> list[str]:
    return [
        f"--cert-file={tls.certificate}",
        f"--key-file={tls.key}",
        f"--trusted-ca-file={tls.ca}",
        "--client-cert-auth",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
