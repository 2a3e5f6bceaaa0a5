"""Log pipes: what a container writes, and the logs that come out."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_node.sandboxes import logpipes
from acs_node.sandboxes.logpipes import LINE_BYTES_MAX, LogPipes

NOW_NS = 1_704_067_200_123_456_789
TIME = "2024-01-01T00:00:00.123456789Z"
END = logpipes.SENTINEL + b"\n"


class Container:
    """The other side: what a proxy opens and writes."""

    def __init__(self, directory: Path) -> None:
        self.pipes = LogPipes.create(str(directory))
        self.out = os.open(directory / "stdout", os.O_WRONLY)
        self.err = os.open(directory / "stderr", os.O_WRONLY)

    def write(self, out: bytes = b"", err: bytes = b"") -> None:
        """Write all, draining as the pipes fill."""
        for fd, data in ((self.out, out), (self.err, err)):
            while data:
                data = data[os.write(fd, data[:4096]) :]
                self.pipes.drain(NOW_NS)

    def end(self) -> None:
        self.write(END, END)

    def logs(self) -> list[list[str]]:
        """Return all complete logs, without times."""
        logs = []
        while (lines := self.pipes.next_log()) is not None:
            logs.append([line.removeprefix(TIME + " ") for line in lines])
        return logs

    def close(self) -> None:
        self.pipes.close()
        os.close(self.out)
        os.close(self.err)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    container.close()


def test_a_line_has_the_form_of_the_record(container: Container) -> None:
    container.write(b"hello\n", b"  indented\n")
    container.end()
    assert container.pipes.next_log() == [f"{TIME} stdout: hello", f"{TIME} stderr:   indented"]
    assert container.pipes.next_log() is None


def test_lines_have_the_time_of_the_drain_that_found_them(container: Container) -> None:
    os.write(container.out, b"a\n")
    assert container.pipes.drain(0) == 0
    os.write(container.out, b"b\n" + END)
    os.write(container.err, END)
    assert container.pipes.drain(1_000_000_001) == 1
    assert container.pipes.next_log() == [
        "1970-01-01T00:00:00.000000000Z stdout: a",
        "1970-01-01T00:00:01.000000001Z stdout: b",
    ]


def test_a_log_is_complete_with_both_sentinels(container: Container) -> None:
    assert container.pipes.drain(NOW_NS) == 0
    container.write(END)
    assert container.logs() == []
    container.write(b"second\n" + END, b"first\n" + END)
    assert container.logs() == [["stderr: first"]]
    container.write(err=END)
    assert container.logs() == [["stdout: second"]]


def test_many_runs_between_two_drains(container: Container) -> None:
    for stream in (container.out, container.err):
        os.write(stream, END * 3 + b"x\n" + END)
    assert container.pipes.drain(NOW_NS) == 4
    assert container.logs() == [[], [], [], ["stdout: x", "stderr: x"]]


@given(
    runs=st.lists(
        st.tuples(*[st.lists(st.text("ab❄\r X_", min_size=0, max_size=8), max_size=4)] * 2),
        max_size=5,
    ),
    cuts=st.lists(st.integers(1, 60), max_size=20),
    glued=st.booleans(),
)
def test_however_the_bytes_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[list[str], list[str]]],
    cuts: list[int],
    glued: bool,
) -> None:
    container = Container(tmp_path_factory.mktemp("pipes"))
    try:
        for fd, which in ((container.out, 0), (container.err, 1)):
            data = b""
            for run in runs:
                text = "".join(line + "\n" for line in run[which]).encode()
                # Output without a last newline has the sentinel glued to it.
                data += (text[:-1] if glued and run[which] and run[which][-1] else text) + END
            for cut in cuts:
                os.write(fd, data[:cut])
                container.pipes.drain(NOW_NS)
                data = data[cut:]
            os.write(fd, data)
            container.pipes.drain(NOW_NS)
        expected = [
            [f"stdout: {line}" for line in out] + [f"stderr: {line}" for line in err]
            for out, err in runs
        ]
        assert container.logs() == expected
        assert container.pipes.take_rest(NOW_NS) == []
    finally:
        container.close()


def test_bytes_that_are_no_utf8_are_replaced(container: Container) -> None:
    container.write(b"a\xff\xfeb\n")
    container.end()
    assert container.logs() == [["stdout: a��b"]]


def test_long_lines_are_cut_between_characters(container: Container) -> None:
    text = "x" + "❄" * LINE_BYTES_MAX  # 3 bytes each, so the bound falls inside of one
    container.write(text.encode() + b"\nshort\n")
    container.write(b"y" * (LINE_BYTES_MAX + 1))
    container.end()
    [lines] = container.logs()
    pieces = [line.removeprefix("stdout: ") for line in lines]
    assert all(len(piece.encode()) <= LINE_BYTES_MAX for piece in pieces)
    assert "".join(pieces) == text + "short" + "y" * (LINE_BYTES_MAX + 1)
    assert len(pieces) == 4 + 1 + 2


@pytest.mark.parametrize("length", [0, 1, 36, 37, 38, 39, 1000])
def test_a_sentinel_is_found_after_any_long_line(container: Container, length: int) -> None:
    container.write(b"z" * (LINE_BYTES_MAX + length) + END, END)
    [lines] = container.logs()
    assert "".join(line.removeprefix("stdout: ") for line in lines) == "z" * (
        LINE_BYTES_MAX + length
    )


def test_the_limit_of_a_log(container: Container) -> None:
    size = len(f"{TIME} stdout: 12345\n")
    container.pipes.limit_bytes = 3 * size
    container.write(b"12345\n" * 3)
    container.end()
    assert container.logs() == [["stdout: 12345"] * 3]
    container.write(b"12345\n" * 3, b"a\n")
    container.end()
    truncation = (
        f"stderr: Logs were truncated because the total bytes size exceeds the limit of {3 * size}"
        " bytes."
    )
    assert container.logs() == [["stdout: 12345"] * 3 + [truncation]]
    container.write(b"fits\n")
    container.end()
    assert container.logs() == [["stdout: fits"]]


def test_limit_zero_keeps_nothing_and_still_counts_runs(container: Container) -> None:
    container.pipes.limit_bytes = 0
    container.write(b"lost\n" * 100, b"lost")
    container.end()
    assert container.logs() == [[]]
    container.pipes.limit_bytes = 1000
    container.write(b"kept\n")
    container.end()
    assert container.logs() == [["stdout: kept"]]


def held(pipes: LogPipes) -> int:
    """Return how many characters the pipes hold."""
    return sum(len(line) for log in pipes._logs.values() for line in log.lines) + sum(
        len(stream.tail) for stream in pipes._streams
    )


@pytest.mark.parametrize(
    "data", [b"x" * 65536, b"\n" * 65536, b"ab\n" * 20000, (b"ab\n" + END) * 1500, END * 1500]
)
def test_memory_is_bounded_whatever_is_written(container: Container, data: bytes) -> None:
    container.pipes.limit_bytes = limit = 200_000
    most = 0
    for _ in range(40):
        container.write(data, data)
        most = max(most, held(container.pipes))
    truncations = logpipes.AHEAD_MAX * 150 if END in data else 150
    assert most <= 2 * limit + 2 * (LINE_BYTES_MAX + logpipes.READ_BYTES) + truncations
    assert len(container.pipes._logs) <= logpipes.AHEAD_MAX + 1


def test_one_drain_is_bounded(container: Container) -> None:
    os.write(container.out, b"\n" * 100_000)
    container.pipes.drain(NOW_NS)
    first = len(container.pipes.take_rest(NOW_NS))
    assert first == 100_000, "take_rest reads to the end"
    os.set_blocking(container.out, False)
    written = os.write(container.out, b"\n" * 100_000)
    container.pipes.drain(NOW_NS)
    kept = sum(len(log.lines) for log in container.pipes._logs.values())
    assert kept == logpipes.READ_BYTES < written, "more lines wait for the next drain"


def test_what_a_dead_container_left(container: Container) -> None:
    container.write(END, END)
    container.write(b"run two\n" + END + b"run three\nno newline", b"trace\nback")
    assert container.logs() == [[]]
    rest = container.pipes.take_rest(NOW_NS)
    assert [line.removeprefix(TIME + " ") for line in rest] == [
        "stdout: run two",
        "stderr: trace",
        "stderr: back",
        "stdout: run three",
        "stdout: no newline",
    ]
    assert container.pipes.take_rest(NOW_NS) == []
    assert container.pipes.next_log() is None


def test_a_writer_that_never_stops_does_not_hold_take_rest(container: Container) -> None:
    class Endless:
        """Reads of the pipe that always find more."""

        reads = 0

        def __call__(self, fd: int, size: int) -> bytes:
            self.reads += 1
            return b"x" * size

    endless = Endless()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logpipes.os, "read", endless)
        container.pipes.take_rest(NOW_NS)
    assert endless.reads == 2 * logpipes.REST_BYTES_MAX // logpipes.READ_BYTES


async def test_ready_waits_for_the_line_however_it_comes(container: Container) -> None:
    waiting = asyncio.create_task(container.pipes.ready())
    for piece in (b"warning: odd libc\n", logpipes.READY[:10], logpipes.READY[10:]):
        os.write(container.out, piece)
        await asyncio.wait([waiting], timeout=0.01)
        assert not waiting.done()
    os.write(container.out, b"\n" + b"first\n")
    await asyncio.wait_for(waiting, 5)
    container.end()
    assert container.logs() == [["stdout: warning: odd libc", "stdout: first"]]


async def test_ready_can_be_given_up(container: Container) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(container.pipes.ready(), 0.01)
    assert not asyncio.get_running_loop().remove_reader(container.pipes._streams[0].fd)


async def test_closing_ends_the_wait_and_frees_the_descriptor(container: Container) -> None:
    waiting = asyncio.create_task(container.pipes.ready())
    await asyncio.wait([waiting], timeout=0.01)
    fd = container.pipes._streams[0].fd
    container.pipes.close()
    assert not asyncio.get_running_loop().remove_reader(fd)
    with pytest.raises(OSError, match="were closed"):
        await waiting
    with pytest.raises(OSError, match="are closed"):
        await container.pipes.ready()


async def test_closing_right_after_a_cancel_frees_the_descriptor(container: Container) -> None:
    waiting = asyncio.create_task(container.pipes.ready())
    await asyncio.wait([waiting], timeout=0.01)
    fd = container.pipes._streams[0].fd
    waiting.cancel()
    container.pipes.close()
    assert not asyncio.get_running_loop().remove_reader(fd)
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_closed_pipes_give_what_was_read(container: Container) -> None:
    container.write(b"read\n")
    container.pipes.close()
    container.pipes.close()
    assert container.pipes.drain(NOW_NS) == 0
    assert container.pipes.take_rest(NOW_NS) == [f"{TIME} stdout: read"]


def test_folders_that_cannot_hold_pipes(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        LogPipes.create(str(tmp_path / "missing"))
    (tmp_path / "stderr").write_text("")
    with pytest.raises(FileExistsError):
        LogPipes.create(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_others_may_open_the_pipes(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        LogPipes.create(str(tmp_path)).close()
    finally:
        os.umask(previous)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("stdout", "stderr")} == {0o666}


def test_a_run_without_output_is_cheap(container: Container) -> None:
    # The time is bounded loosely; what makes it cheap is that nothing is decoded or split.
    best = float("inf")
    for _ in range(200):
        os.write(container.out, END)
        os.write(container.err, END)
        start = time.perf_counter()
        assert container.pipes.drain(NOW_NS) == 1
        assert container.pipes.next_log() == []
        best = min(best, time.perf_counter() - start)
    assert best < 50e-6
