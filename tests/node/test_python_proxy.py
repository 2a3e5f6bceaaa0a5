"""The python proxy as a child process: the cases of every runtime, and its own connections."""

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import (  # noqa: E402
    DEADLINE_S,
    ECHO,
    PYTHON_SLEEPER,
    SILENCE_S,
    Container,
    PythonRuntimeCases,
    RuntimeFixtures,
    UnixHttp,
    ends_when_its_host_is_silent,
)

from acs_node.runtimes.python import proxy  # noqa: E402
from acs_node.sandboxes import logpipes  # noqa: E402
from acs_node.sandboxes.logpipes import LogPipes  # noqa: E402
from acs_node.sandboxes.process import ProcessEngine  # noqa: E402

IDLE = (403, {"error": "Only the first connection may use the action."})


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not tmp_path: its length leaves too little of a socket's 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        yield Path(folder)


@pytest.fixture
async def engine(data_dir: Path) -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine(data_dir)
    yield engine
    await engine.close()
    assert list((data_dir / "sandboxes").iterdir()) == []


def connect(container: Container) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE_S)
    connection.connect(container.sandbox.socket_path)
    return connection


def ask(connection: UnixHttp, body: bytes = b"{}") -> tuple[int, object]:
    connection.request("POST", "/run", body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


class TestCases(PythonRuntimeCases):
    """All cases, over the process engine."""


class TestConnections(RuntimeFixtures):
    async def test_an_idle_container_refuses_others(self, container: Container) -> None:
        await container.init(ECHO)
        other = UnixHttp(container.sandbox.socket_path)
        assert ask(other) == IDLE
        assert ask(other, b"x" * 3_000_000) == IDLE, "the body is read, so the answer is seen"
        assert ask(other) == IDLE, "the connection is kept"
        other.close()
        assert await container.run({"a": 1}) == (200, {"a": 1})

    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01 garbage\r\n\r\n" + b"G" * 100_000,
            b"x" * 100_000,
            b"POST /run HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /run HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
        ids=["garbage", "no-end", "negative", "huge", "chunked"],
    )
    async def test_garbage_of_others_ends_their_connection_only(
        self, container: Container, data: bytes
    ) -> None:
        await container.init(ECHO)
        with connect(container) as other:
            try:
                other.sendall(data)
                answer = to_end(other)
            except (BrokenPipeError, ConnectionResetError):
                answer = b"HTTP/1.1 400 "  # closed while it still sent
            assert b"HTTP/1.1 400 " in answer
        assert await container.run({"a": 1}) == (200, {"a": 1})

    async def test_half_requests_of_others_block_nobody(self, container: Container) -> None:
        await container.init(ECHO)
        halves = [connect(container) for _ in range(proxy.VISITORS_MAX)]
        for half in halves:
            half.sendall(b"POST /run HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        other = UnixHttp(container.sandbox.socket_path)
        assert ask(other) == IDLE
        with suppress(ConnectionResetError):
            assert halves[0].recv(1) == b"", "the oldest made room"
        assert await container.run({"a": 1}) == (200, {"a": 1})
        for half in halves:
            half.close()
        assert ask(other) == IDLE
        other.close()

    async def test_requests_in_pieces_and_in_a_row(self, container: Container) -> None:
        await container.init(ECHO)
        connection = container.http.sock
        assert connection is not None
        request = b'POST /run HTTP/1.1\r\ncontent-LENGTH:  18 \r\nX: y\r\n\r\n{"value":{"n": 10}}'
        request = request.replace(b"18", b"19")
        for position in range(len(request)):
            connection.sendall(request[position : position + 1])
        connection.sendall(request * 3)
        body = b'{"n":10}'
        answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n" + body
        )
        received = b""
        while len(received) < 4 * len(answer):
            received += connection.recv(65536)
        assert received == 4 * answer

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
            (b"POST /run HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", b"411"),
            (b"POST /run HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
            (b"x" * (proxy.HEAD_BYTES_MAX + 1), b"431"),
        ],
    )
    async def test_a_host_that_cannot_be_understood_ends_the_proxy(
        self, engine: ProcessEngine, container: Container, data: bytes, status: bytes
    ) -> None:
        assert container.http.sock is not None
        container.http.sock.sendall(data)
        assert to_end(container.http.sock).startswith(b"HTTP/1.1 " + status)
        assert (await engine.ending(container.sandbox)).cause == "exited with status 0"

    async def test_others_of_an_async_function_end_alone(self, container: Container) -> None:
        await container.init("async def main(args):\n    return args\n")
        for data in (
            b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /run HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            b"x" * (proxy.HEAD_BYTES_MAX + 1),
        ):
            with connect(container) as other:
                other.sendall(data)
                assert to_end(other).startswith(b"HTTP/1.1 41")
        for part in (b"POST", b"POST /run HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
            with connect(container) as other:
                other.sendall(part)
        assert await container.run({"a": 1}) == (200, {"a": 1})

    @pytest.mark.parametrize(
        "data", [b"", b"POST /ru", b"POST /run HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"]
    )
    async def test_the_proxy_ends_with_its_host(
        self, engine: ProcessEngine, container: Container, data: bytes
    ) -> None:
        assert container.http.sock is not None
        container.http.sock.sendall(data)
        container.http.close()
        assert (await engine.ending(container.sandbox)).cause == "exited with status 0"


async def test_the_proxy_ends_with_a_host_that_never_connected(data_dir: Path) -> None:
    pipes = LogPipes.create(str(data_dir))
    work = data_dir / "work"
    work.mkdir()
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", proxy.__file__, str(data_dir)]
    with subprocess.Popen(command, cwd=work, stdin=subprocess.DEVNULL) as process:
        await asyncio.wait_for(pipes.ready(), DEADLINE_S)
        assert process.poll() is None
        pipes.close()
        assert process.wait(DEADLINE_S) == 0


def test_both_sides_agree_on_the_lines() -> None:
    assert proxy.READY_LINE == logpipes.READY + b"\n"
    assert proxy.SENTINEL_LINE == logpipes.SENTINEL + b"\n"


def test_start_up_imports_little() -> None:
    path = proxy.__file__
    code = f"exec(compile(open({path!r}).read(), {path!r}, 'exec'), {{'__name__': 'proxy'}})\n"
    code += "import sys; print(*sys.modules)"
    clean = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"json", "re", "socket", "threading", "typing"} & set(clean.stdout.split())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(VALUES)
def test_json_is_that_of_the_standard_library(value: object) -> None:
    assert (
        proxy.dumps(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert proxy.loads(b" \n" + json.dumps(value, indent=1).encode() + b"\t ") == value


@pytest.mark.parametrize("text", [b"", b" ", b"{", b"nul", b'{"a":1,}', b"1 2", b"\xff", b"'a'"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        proxy.loads(text)


def test_json_without_the_c_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    specification = importlib.util.spec_from_file_location("proxy_without_c", proxy.__file__)
    assert specification is not None
    assert specification.loader is not None
    pure = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pure)
    assert pure.dumps({"a": ["❄", 1]}) == '{"a":["❄",1]}'.encode()
    assert pure.dumps("\ud834") == b'"\\ud834"'
    assert pure.loads(b' {"a": [1.5, null]} ') == {"a": [1.5, None]}
    for bad in (float("nan"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            pure.dumps(bad)
    with pytest.raises(ValueError):
        pure.loads(b"{")


# The environment of a run: as Python sees it, and as the C library hands it to processes.
TELL = """
import os, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
source = open(sys.argv[1]).read()
proxy = type(sys)("proxy")
exec(compile(source, sys.argv[1], "exec"), proxy.__dict__)

def seen():
    inside = os.environ.get("__OW_ACTIVATION_ID")
    outside = os.popen('printf %s "${__OW_ACTIVATION_ID-gone}"').read()
    assert ("gone" if inside is None else inside) == outside, (inside, outside)
    return inside

def tell(text, again=True):
    proxy.tell("activation_id", text, again)
    assert seen() == text, (seen(), text)

tell("first", again=False)
for text in ("second", "a longer one", "", "x" * 5000, "short", "\u2744"):
    tell(text)
os.environ["__OW_ACTIVATION_ID"] = "the function's own"
assert seen() == "the function's own"
tell("a")
del os.environ["__OW_ACTIVATION_ID"]
assert seen() is None
tell("b")
try:
    proxy.tell("activation_id", "null" + chr(0), True)
except ValueError:
    assert seen() == "b"
else:
    raise AssertionError("a null byte was taken")

def resident_kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4

before = resident_kb()
for number in range(50_000):
    proxy.tell("activation_id", f"{number:0100}", True)
print(resident_kb() - before)
"""


def environment_growth_kb(*missing: str) -> int:
    command = [sys.executable, "-I", "-S", "-c", TELL, proxy.__file__, *missing]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return int(told.stdout)


def test_the_environment_of_runs_takes_no_memory() -> None:
    # setenv() would keep 50,000 values of 100 bytes.
    assert environment_growth_kb() < 1_000


def test_the_environment_without_the_c_module() -> None:
    environment_growth_kb("_ctypes")


async def test_it_ends_when_its_host_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is stopped keeps its connections open."""
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = ProcessEngine(folder, silence_s=SILENCE_S)
        await ends_when_its_host_is_silent(engine, "python:3", PYTHON_SLEEPER, monkeypatch)
        await engine.close()
