"""``acs demo``: a real server, a real function, every answer checked, and how fast it was.

``ServerProcess`` is of use without the demo: it runs ``acs standalone`` as a child with a home of
its own, so that the user's settings stay untouched.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from acs_node import wskprops

START_S = 30.0  # from exec to the line that says where the server listens
STOP_S = 20.0  # from SIGTERM to the end of the process
DEMO_S = 60.0  # everything between the two
WARM_COUNT = 500  # enough for a p99 of five samples
LOAD_COUNT = 2_000
USER_COUNT = 32

FUNCTION = """\
import os, platform, sys

def main(args):
    return {
        "sum": args["a"] + args["b"],
        "pid": os.getpid(),
        "host": platform.node(),
        "python": sys.executable,
    }
"""

_ACTION_PATH = f"{wskprops.API_PATH}/namespaces/_/actions/demo"
_STATUS_PATH = f"{wskprops.API_PATH}/acs/status"
_LISTENING = r"listening on http://127\.0\.0\.1:(\d+)"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_OUTPUT_LINES_SHOWN = 5


class DemoFailed(Exception):
    """What went wrong, in words for the user."""


class ServerProcess:
    """An ``acs standalone`` of this interpreter as a child process.

    Use as a context manager, or call ``start`` and ``stop``; it can be started again over the same
    data. ``home`` is its HOME and holds its data folder.
    """

    # -P: a json.py in the user's folder must not become part of the server.
    command = (sys.executable, "-P", "-m", "acs_node.cli", "standalone")

    def __init__(
        self,
        home: Path,
        *arguments: str,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server.

        ``arguments`` go behind ``acs standalone``; ``environ`` goes over this process's own
        environment; with ``port`` 0 the first start takes a free one, which later starts keep.
        """
        self.home = home
        self.data = home / "data"
        self.port = port
        self._arguments = arguments
        self._environ = environ or {}
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def url(self) -> str:
        """Where the started server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What the server has written to stdout and stderr since its last start."""
        with self._changed:
            return "".join(self._lines)

    @property
    def auth(self) -> str:
        """The key of namespace ``guest``, from the settings file that the server wrote.

        Raises DemoFailed when there is none.
        """
        path = self.home / ".wskprops"
        if key := wskprops.read(path).get("AUTH"):
            return key
        raise DemoFailed(f"the server wrote no key to {path}{self.last_output()}")

    def start(self, within_s: float = START_S) -> None:
        """Start the server and return when it has said where it listens.

        Raises DemoFailed, with what it printed, when it ends or stays silent instead.
        """
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key != "WSK_CONFIG_FILE" and not key.startswith("ACS_")
        }
        process = subprocess.Popen(
            (*self.command, "--port", str(self.port), "--data", str(self.data), *self._arguments),
            env=inherited | {"HOME": str(self.home), "PYTHONUNBUFFERED": "1"} | dict(self._environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # an interrupt of ours must not stop it before we do
        )
        with self._changed:
            self._process = process
            self._lines, self._ended = [], False
        threading.Thread(target=self._collect, args=(process,), daemon=True).start()
        try:
            self.port = int(self.wait_for_output(_LISTENING, within_s)[1])
        except BaseException:
            self.kill()
            raise

    def wait_for_output(self, pattern: str, within_s: float = START_S) -> re.Match[str]:
        """Return the first match of a regular expression in what the server prints.

        Raises DemoFailed, with what it printed, when it ends or does not print it in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._printed(pattern), within_s)
            if match := self._printed(pattern):
                return match
            how = "ended" if self._ended else f"ran for {within_s:g} s"
        raise DemoFailed(f"the server {how} and did not print {pattern!r}{self.last_output()}")

    def last_output(self) -> str:
        """The last lines that the server printed, without its key, as the end of a message."""
        with self._changed:
            lines = [line for line in self._lines if "--auth " not in line]
        shown = "".join(lines[-_OUTPUT_LINES_SHOWN:]).rstrip()
        return f"; it printed:\n{shown}" if shown else "; it printed nothing"

    def stop(self, within_s: float = STOP_S) -> int:
        """Ask the server to end (SIGTERM) and return its exit code; an ended one is no error.

        Raises DemoFailed when it does not end in time; it is killed then.
        """
        assert self._process is not None, "not started"
        if self.is_running():
            os.kill(self._process.pid, signal.SIGTERM)
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"the server did not end within {within_s:g} s of SIGTERM"
            raise DemoFailed(f"{message}{self.last_output()}") from None

    def is_running(self) -> bool:
        """Tell whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait()

    def _printed(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, "".join(self._lines))

    def _collect(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with self._changed:
                    if process is self._process:  # else the late words of an earlier one
                        self._lines.append(line)
                        self._changed.notify_all()
        with self._changed:
            if process is self._process:
                self._ended = True
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Report:
    """What the demo saw; latencies are from request to answer at the client."""

    sandbox: str
    cold_ms: float
    warm_count: int
    warm_p50_ms: float
    warm_p99_ms: float
    load_count: int
    users: int
    load_per_s: float
    load_p50_ms: float
    load_p99_ms: float
    containers_created: int
    containers_answered: int
    python: str
    pid: int
    host: str

    def rows(self) -> list[tuple[str, str]]:
        """Arrange the report as a table of two columns."""
        return [
            ("first (cold) invocation", f"{self.cold_ms:.1f} ms"),
            (f"warm, {self.warm_count} one by one, p50", f"{self.warm_p50_ms:.2f} ms"),
            (f"warm, {self.warm_count} one by one, p99", f"{self.warm_p99_ms:.2f} ms"),
            (f"{self.load_count:,} with {self.users} at once", f"{self.load_per_s:,.0f}/s"),
            (f"{self.load_count:,} with {self.users} at once, p50", f"{self.load_p50_ms:.2f} ms"),
            (f"{self.load_count:,} with {self.users} at once, p99", f"{self.load_p99_ms:.2f} ms"),
            ("containers created", f"{self.containers_created}"),
            ("containers that answered", f"{self.containers_answered}"),
            ("sandbox", self.sandbox),
            ("where the first one ran", f"{self.python}, pid {self.pid}, host {self.host}"),
        ]


def run_demo(sandbox: str = "auto", say: Callable[[str], object] = lambda text: None) -> Report:
    """Start a server in a temporary folder, exercise it, stop it, and report.

    ``say`` is told what happens.

    Raises DemoFailed on a wrong answer, and when the server does not start, answer or end as it
    should. Nothing stays behind in either case.
    """
    import uvloop

    if sandbox != "process":
        _make_images(say)
    with tempfile.TemporaryDirectory(prefix="acs-demo-") as folder:
        server = ServerProcess(Path(folder), "--sandbox", sandbox)
        say("starting `acs standalone` in a temporary folder")
        with server:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(exercise(server.port, server.auth, say))
            say("stopping it")
            if (exit_code := server.stop()) != 0:
                raise DemoFailed(f"the server ended with code {exit_code}{server.last_output()}")
    return report


def _make_images(say: Callable[[str], object]) -> None:
    """Make the image that functions run in, where an engine answers; a second time is quick."""
    from acs_node.docker_client import connect
    from acs_node.images import build_images
    from acs_node.sandboxes import EngineUnavailable, SandboxError

    try:
        client = connect()
    except EngineUnavailable:
        return  # the server will say so, and what it does instead
    try:

        def progress(text: str) -> None:
            say(f"image: {text}")

        build_images(client, progress, kinds=["python:3"])
    except SandboxError as error:
        raise DemoFailed(f"the image was not made: {error}") from error
    finally:
        client.close()


async def exercise(port: int, auth: str, say: Callable[[str], object]) -> Report:
    """Deploy the function on a server, invoke it cold, warm and under load; check every answer.

    Raises DemoFailed when an answer is wrong, no 200 or missing, or all takes over ``DEMO_S``.
    """
    try:
        async with asyncio.timeout(DEMO_S):
            return await _measure(port, auth, say)
    except TimeoutError:
        raise DemoFailed(f"it took longer than {DEMO_S:g} s") from None
    except (OSError, EOFError, ValueError, KeyError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DemoFailed(f"the server gave no usable answer: {what}") from error


async def _measure(port: int, auth: str, say: Callable[[str], object]) -> Report:
    connections = [await _Connection.open(port, auth) for _ in range(USER_COUNT)]
    first = connections[0]
    body = {"exec": {"kind": "python:default", "code": FUNCTION}}
    await first.ask("PUT", f"{_ACTION_PATH}?overwrite=true", json.dumps(body).encode())
    say("invoking the function, cold and warm")
    numbers = iter(range(1 + WARM_COUNT + LOAD_COUNT))
    cold, warm, load = _Samples(), _Samples(), _Samples()
    await cold.take(first, numbers, 1)
    await warm.take(first, numbers, WARM_COUNT)
    say(f"invoking it {LOAD_COUNT:,} times with {USER_COUNT} at once")
    started_s = time.perf_counter()
    await asyncio.gather(*(load.take(each, numbers, LOAD_COUNT) for each in connections))
    load_s = time.perf_counter() - started_s
    status = await first.ask("GET", _STATUS_PATH)
    for connection in connections:
        connection.close()
    ((pid, host, python),) = cold.places
    return Report(
        sandbox=status["sandbox"],
        cold_ms=cold.percentile_ms(50),
        warm_count=len(warm.latencies_ms),
        warm_p50_ms=warm.percentile_ms(50),
        warm_p99_ms=warm.percentile_ms(99),
        load_count=len(load.latencies_ms),
        users=USER_COUNT,
        load_per_s=len(load.latencies_ms) / load_s,
        load_p50_ms=load.percentile_ms(50),
        load_p99_ms=load.percentile_ms(99),
        containers_created=status["containers_created"],
        containers_answered=len(cold.places | warm.places | load.places),
        python=python,
        pid=pid,
        host=host,
    )


class _Samples:
    """Invocations of one phase: how long they took and where they ran."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.places: set[tuple[int, str, str]] = set()

    async def take(self, connection: "_Connection", numbers: Iterator[int], count: int) -> None:
        """Invoke for the next numbers until this phase has ``count``, shared with other users."""
        while len(self.latencies_ms) < count:
            index = len(self.latencies_ms)
            self.latencies_ms.append(0.0)  # holds the place while others go on
            number = next(numbers)
            started_s = time.perf_counter()
            answer = await connection.ask(
                "POST",
                f"{_ACTION_PATH}?blocking=true&result=true",
                b'{"a":%d,"b":%d}' % (number, 7 * number),
            )
            self.latencies_ms[index] = (time.perf_counter() - started_s) * 1_000
            if answer.get("sum") != 8 * number:
                raise DemoFailed(f"wrong answer: {number} + {7 * number} gave {answer}")
            self.places.add((answer["pid"], answer["host"], answer["python"]))

    def percentile_ms(self, percent: int) -> float:
        """The nearest-rank percentile of the latencies, in ms."""
        ordered = sorted(self.latencies_ms)
        return ordered[-(-len(ordered) * percent // 100) - 1]


class _Connection:
    """One keep-alive connection that understands no more HTTP than this server speaks.

    A full client would cost more per request than the server, and the demo would measure itself.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._headers = headers

    @classmethod
    async def open(cls, port: int, auth: str) -> "_Connection":
        """Connect to a port of this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        headers = (
            f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Basic {b64encode(auth.encode()).decode()}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        return cls(reader, writer, headers)

    async def ask(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """Send a request; give back the JSON object that came with a 200.

        Raises DemoFailed on another status; OSError, EOFError or ValueError without an answer.
        """
        head = f"{method} {path}{self._headers}{len(body)}\r\n\r\n"
        self._writer.write(head.encode("ascii") + body)
        reply_head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(reply_head)
        if length is None:
            raise ValueError(f"a reply without Content-Length: {reply_head!r}")
        reply = await self._reader.readexactly(int(length[1]))
        if reply_head[9:12] != b"200":
            said = reply.decode("utf-8", "replace")
            raise DemoFailed(f"{method} {path} was answered {reply_head[9:12].decode()}: {said}")
        value = json.loads(reply)
        if not isinstance(value, dict):
            raise ValueError(f"{reply!r} is no JSON object")
        return value

    def close(self) -> None:
        """Drop the connection."""
        self._writer.close()
