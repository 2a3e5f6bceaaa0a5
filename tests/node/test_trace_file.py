"""The trace of a node: every step, an end, and an end of it without harm when the disk is full."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from acs_core.events import Activation, Arrived, Event, QueueOpened, QueueSpec, TimeReached
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import replay
from acs_node import trace_file
from acs_node.stepper import Stepper
from acs_node.trace_file import TraceFile

CONFIG = SchedulerConfig()


def filled(trace: TraceFile, count: int = 1) -> None:
    scheduler = Scheduler(CONFIG)
    for number in range(count):
        event: Event = Arrived("q", Activation(f"a{number}", b"secret", 1))
        if number == 0:
            event = QueueOpened(QueueSpec("q", "n", "a", 0), 1)
        trace.record(event, 1, scheduler.step(event, 1))


def replayed(path: Path, *, cut: bool = False) -> int:
    with path.open(encoding="ascii") as lines:
        report = replay(lines, cut=cut)
    assert report.difference is None
    return report.steps


def test_a_trace_is_written_and_ended(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("an earlier one, and longer than what follows")
    trace = TraceFile(path, CONFIG)
    filled(trace, 3)
    assert path.stat().st_size == 0  # it is buffered
    trace.close()
    trace.close()
    assert replayed(path) == 3
    assert "secret" not in path.read_text()
    filled(trace)
    assert replayed(path) == 3


def test_others_may_not_read_it(tmp_path: Path) -> None:
    TraceFile(tmp_path / "trace", CONFIG).close()
    assert stat.S_IMODE((tmp_path / "trace").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        TraceFile(tmp_path / "missing" / "trace", CONFIG)


def test_a_full_trace_ends_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = TraceFile(tmp_path / "trace", CONFIG, bytes_max=2_000)
    filled(trace, 50)
    trace.close()
    assert 3 < replayed(tmp_path / "trace") < 50
    assert 2_000 <= (tmp_path / "trace").stat().st_size < 3_000
    assert [r.message for r in caplog.records] == [
        f"the trace {tmp_path / 'trace'} is full and ends here; serving goes on"
    ]


def test_a_full_disk_ends_the_trace_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_file, "BUFFER_BYTES", 1_000)
    trace = TraceFile(Path("/dev/full"), CONFIG)
    filled(trace, 50)
    trace.close()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the trace /dev/full ends here: [Errno 28] No space left" in record.message


def test_a_disk_that_is_full_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    trace = TraceFile(Path("/dev/full"), CONFIG)
    filled(trace)
    trace.close()
    (record,) = caplog.records
    assert "the trace /dev/full lacks its end: [Errno 28]" in record.message


async def test_a_stepper_tells_before_it_performs() -> None:
    told: list[object] = []

    class Core:
        def step(self, event: Event, now_us: int) -> list[object]:
            told.append(now_us)
            return ["effect"]

        def next_deadline_us(self) -> int | None:
            return None

    def record(event: Event, now_us: int, effects: list[object]) -> None:
        told.extend([event, now_us, list(effects)])

    stepper = Stepper(Core(), {str: told.append}, lambda *_: None, record)
    event = TimeReached()
    stepper.step(event)
    assert told == [told[0], event, told[0], ["effect"], "effect"]
