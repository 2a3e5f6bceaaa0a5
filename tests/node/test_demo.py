"""The demo: what it measures, how it fails, and that it leaves nothing behind."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from acs_node import demo
from acs_node.cli import main
from acs_node.demo import DemoFailed, Report, ServerProcess, exercise

Answer = Callable[[dict[str, Any]], bytes]


def reply(body: object, status: str = "200 OK") -> bytes:
    content = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def right_sum(argument: dict[str, Any]) -> bytes:
    return reply(
        {"sum": argument["a"] + argument["b"], "pid": 7, "host": "here", "python": "/bin/python"}
    )


@asynccontextmanager
async def fake_server(answer: Answer) -> AsyncIterator[int]:
    """Serve the demo's three requests on a port; ``answer`` makes what an invocation gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                content = await reader.readexactly(length)
                if head.startswith(b"POST"):
                    writer.write(answer(json.loads(content)))
                else:
                    writer.write(reply({"sandbox": "fake", "containers_created": 3}))
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "WARM_COUNT", 10)
    monkeypatch.setattr(demo, "LOAD_COUNT", 50)
    monkeypatch.setattr(demo, "USER_COUNT", 4)


async def run_against(answer: Answer) -> Report:
    async with fake_server(answer) as port:
        return await exercise(port, "user:key", lambda text: None)


async def test_every_invocation_is_distinct_and_counted() -> None:
    seen: list[int] = []

    def answer(argument: dict[str, Any]) -> bytes:
        seen.append(argument["a"])
        return right_sum(argument)

    report = await run_against(answer)
    assert sorted(seen) == list(range(61))
    assert (report.warm_count, report.load_count, report.users) == (10, 50, 4)
    assert (report.sandbox, report.containers_created, report.containers_answered) == ("fake", 3, 1)
    assert (report.python, report.pid, report.host) == ("/bin/python", 7, "here")
    assert 0 < report.warm_p50_ms <= report.warm_p99_ms
    assert report.load_per_s > 0


@pytest.mark.parametrize("wrong_at", [0, 5, 40])
async def test_one_wrong_answer_fails_the_demo(wrong_at: int) -> None:
    def answer(argument: dict[str, Any]) -> bytes:
        return right_sum(argument | ({"b": 1} if argument["a"] == wrong_at else {}))

    with pytest.raises(DemoFailed, match=rf"wrong answer: {wrong_at} \+ {7 * wrong_at} gave"):
        await run_against(answer)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (reply({"error": "sorry"}, "502 Bad Gateway"), r'was answered 502: \{"error": "sorry"\}'),
        (reply([1]), "is no JSON object"),
        (reply({"sum": 0}), "KeyError"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "a reply without Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{", "longer than 0.5 s"),
    ],
)
async def test_an_unusable_answer_fails_the_demo(
    bad: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DEMO_S", 0.5)
    with pytest.raises(DemoFailed, match=message):
        await run_against(lambda argument: bad)


async def test_nobody_listening_fails_the_demo() -> None:
    async with fake_server(right_sum) as port:
        pass
    with pytest.raises(DemoFailed, match="no usable answer: ConnectionRefusedError"):
        await exercise(port, "user:key", lambda text: None)


# The child process


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script stand in for the server; it gets ``home``."""
    head = "import os, signal, sys\nhome = os.environ['HOME']\n"
    monkeypatch.setattr(ServerProcess, "command", (sys.executable, "-c", head + script))


SAY_URL = "print('listening on http://127.0.0.1:1')\n"


def test_a_server_that_ends_at_once_is_reported_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, "sys.exit('the data folder is in use')")
    with pytest.raises(DemoFailed, match=r"ended and did not print(.|\n)*folder is in use"):
        ServerProcess(tmp_path).start()


def test_a_silent_server_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "signal.pause()")
    server = ServerProcess(tmp_path)
    with pytest.raises(DemoFailed, match=r"ran for 0\.1 s and did not .*; it printed nothing"):
        server.start(within_s=0.1)
    assert not server.is_running()


def test_a_server_that_ignores_sigterm_is_killed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, f"signal.signal(15, signal.SIG_IGN)\n{SAY_URL}signal.pause()")
    server = ServerProcess(tmp_path)
    server.start()
    with pytest.raises(DemoFailed, match=r"did not end within 0\.1 s of SIGTERM"):
        server.stop(within_s=0.1)
    assert not server.is_running()


def test_a_server_has_a_home_of_its_own_and_no_foreign_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSK_CONFIG_FILE", "/elsewhere")
    monkeypatch.setenv("ACS_AUTH", "a:b")
    print_settings = "print(sorted(os.environ.keys() & {'ACS_AUTH', 'WSK_CONFIG_FILE'}), home)\n"
    child(monkeypatch, f"{print_settings}{SAY_URL}signal.pause()")
    server = ServerProcess(tmp_path)
    with server:
        assert server.output.startswith(f"[] {tmp_path}\n")
        with pytest.raises(DemoFailed, match="wrote no key to"):
            _ = server.auth


def demo_command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", *arguments])


def test_a_failing_demo_exits_1_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child(monkeypatch, f"{SAY_URL}signal.pause()")
    result = demo_command()
    assert result.exit_code == 1
    assert "acs: the demo failed: the server wrote no key to" in result.stderr
    assert "listening on http://" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_server_that_ends_badly_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def skip(port: int, auth: str, say: object) -> None:
        assert auth == "a:b"

    monkeypatch.setattr(demo, "exercise", skip)
    write_key = "open(f'{home}/.wskprops', 'w').write('AUTH=a:b'); print('--auth a:b')\n"
    child(
        monkeypatch,
        f"signal.signal(15, lambda *a: sys.exit(3))\n{write_key}{SAY_URL}signal.pause()",
    )
    result = demo_command()
    assert result.exit_code == 1
    assert "the server ended with code 3; it printed:" in result.stderr
    assert "a:b" not in result.stderr


# Against a real server


@pytest.fixture
def short_path() -> Iterator[Path]:
    # tmp_path is too long: the path of a container's Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        yield Path(folder)


def test_the_demo_runs_and_leaves_nothing_behind(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    monkeypatch.setenv("HOME", str(short_path))
    result = demo_command("--sandbox", "process", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["sandbox"] == "process"
    assert report["load_count"] == 50
    assert 1 <= report["containers_answered"] <= report["containers_created"]
    assert Path(report["python"]).exists()
    assert os.listdir(short_path) == []

    shown = demo_command("--sandbox", "process").stdout
    assert "first (cold) invocation" in shown
    assert "50 with 4 at once" in shown
