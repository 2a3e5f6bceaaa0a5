"""The nodejs proxy as a child process: the cases of every runtime, and what it says to a host."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from requirements import missing

for module in ("node.runtime_cases", "node.nodejs_cases"):
    pytest.register_assert_rewrite(module)

from node.nodejs_cases import NodejsRuntimeCases  # noqa: E402
from node.runtime_cases import (  # noqa: E402
    NODEJS_SLEEPER,
    SILENCE_S,
    Container,
    ends_when_its_host_is_silent,
)

from acs_node.sandboxes import SandboxError, SandboxSpec  # noqa: E402
from acs_node.sandboxes.process import ProcessEngine  # noqa: E402


@pytest.fixture
async def engine() -> AsyncIterator[ProcessEngine]:
    if shutil.which("node") is None:
        missing("node", "there is no node in PATH")
    # Not tmp_path: its length leaves too little of a socket's 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = ProcessEngine(folder)
        yield engine
        await engine.close()
        assert list((Path(folder) / "sandboxes").iterdir()) == []


class TestNodejs(NodejsRuntimeCases):
    """All cases, over the process engine."""

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
            (b"POST /run HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", b"411"),
            (b"POST /run HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
            (b"x" * (16 * 1024 + 1), b"431"),
        ],
    )
    async def test_a_host_that_cannot_be_understood_ends_the_proxy(
        self, engine: ProcessEngine, container: Container, data: bytes, status: bytes
    ) -> None:
        assert container.http.sock is not None
        container.http.sock.sendall(data)
        assert container.http.sock.recv(4096).startswith(b"HTTP/1.1 " + status)
        assert (await engine.ending(container.sandbox)).cause == "exited with status 0"

    async def test_requests_in_pieces_and_in_a_row(self, container: Container) -> None:
        await container.init(self.echo)
        connection = container.http.sock
        assert connection is not None
        request = b'POST /run HTTP/1.1\r\ncontent-LENGTH:  19 \r\nX: y\r\n\r\n{"value":{"n": 10}}'
        for position in range(len(request)):
            connection.sendall(request[position : position + 1])
        connection.sendall(request * 3)
        answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
            b'{"n":10}'
        )
        received = b""
        while len(received) < 4 * len(answer):
            received += connection.recv(65536)
        assert received == 4 * answer

    async def test_the_environment_of_runs_takes_no_memory(self, container: Container) -> None:
        # The real process.env would keep every value: 100 MB of these.
        await container.init("function main() { return { rss: process.memoryUsage.rss() } }")
        connection = container.http.sock
        assert connection is not None
        for number in range(500):
            body = b'{"value":{},"activation_id":"%0200000d"}' % number
            connection.sendall(
                b"POST /run HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            connection.recv(65536)
            container.sandbox.logs.drain(0)
        _, seen = await container.run()
        assert seen["rss"] < 120e6


async def test_without_node_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = ProcessEngine(tmp_path, python="/nonexistent")
    with pytest.raises(SandboxError, match=r"no node in PATH; install Node\.js") as caught:
        await engine.start(SandboxSpec("c", "nodejs:20", 256))
    assert caught.value.final
    await engine.close()


async def test_it_ends_when_its_host_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is stopped keeps its connections open."""
    if shutil.which("node") is None:
        missing("node", "there is no node in PATH")
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = ProcessEngine(folder, silence_s=SILENCE_S)
        await ends_when_its_host_is_silent(engine, "nodejs:20", NODEJS_SLEEPER, monkeypatch)
        await engine.close()
