"""A private PostgreSQL server for tests: its own folder, on loopback, ended with the session."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from requirements import missing
from waiting import wait_until

START_S = 60.0
_POLL_S = 0.02


class PostgresServer:
    """A server with a password; ``stop`` and ``start`` it as often as a test likes."""

    def __init__(self, folder: Path, programs: Path, user: str) -> None:
        self.password = secrets.token_hex(12)
        self.port = _free_port()
        self._data = folder / "data"
        self._programs = programs
        # PostgreSQL refuses to be root's.
        self._as: dict[str, Any] = {} if os.geteuid() else {"user": user, "extra_groups": []}
        if self._as:
            shutil.chown(folder, user)
        self._process: subprocess.Popen[bytes] | None = None
        secret = folder / "password"
        secret.write_text(self.password)
        self._run(
            "initdb", "-D", str(self._data), "-U", "acs", "--auth=scram-sha-256", "--no-sync",
            f"--pwfile={secret}", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and return when it answers; again on the same port."""
        assert self._process is None
        self._process = subprocess.Popen(
            [
                self._programs / "postgres", "-D", self._data, "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=40",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", **self._as,
        )  # fmt: skip
        wait_until(self._answers, "an answer of postgres", START_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "postgres has ended"
        with contextlib.suppress(OSError), self._connect("postgres") as connection:
            connection.execute("SELECT 1")
            return True
        return False

    def stop(self) -> None:
        """End it at once; what runs in it breaks, what was committed stays."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(START_S)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def new_database(self, options: str = "") -> str:
        """Create an empty database and return its URL."""
        name = f"acs_{secrets.token_hex(6)}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever still uses it."""
        with self._connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://acs:{self.password}@127.0.0.1:{self.port}/{name}"

    def _connect(self, name: str) -> Any:
        import psycopg

        try:
            return psycopg.connect(
                host="127.0.0.1", port=self.port, user="acs", password=self.password,
                dbname=name, autocommit=True, connect_timeout=5,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            raise OSError(str(error)) from None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], capture_output=True, cwd="/", **self._as
        )
        assert done.returncode == 0, done.stderr.decode()


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server of its own; skip the test where the programs are missing."""
    programs = _programs()
    if programs is None:
        missing("postgres", "PostgreSQL's programs initdb and postgres are not installed")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        missing("postgres", f"psycopg is not installed: {error}")
    names = {each.pw_name for each in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    with tempfile.TemporaryDirectory(prefix="acs-postgres-") as folder:
        server = PostgresServer(Path(folder), programs, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path | None:
    """Return where PostgreSQL's programs are; Debian has them by version and not on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return None if path is None or shutil.which("postgres") is None else Path(path).parent


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
