"""When the event loop gets a processor to itself."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acs_node.sandboxes import SandboxSpec, process
from acs_node.sandboxes.process import ProcessEngine
from acs_node.sandboxes.processors import BUSY, CALM, LoopProcessor


def looked(available: set[int], *shares: float) -> LoopProcessor:
    """Return one that has seen the loop use these shares of seconds, after a first look."""
    processor = LoopProcessor(available)
    assert not processor.look(1000.0, 3.0)
    used_s = 3.0
    for second, share in enumerate(shares, 1001):
        used_s += share
        processor.look(float(second), used_s)
    return processor


def test_a_busy_loop_gets_one_and_a_calm_one_gives_it_back() -> None:
    assert looked({0, 1, 2}).for_functions == {0, 1, 2}
    assert looked({0, 1, 2}, BUSY + 0.01).for_functions == {0, 1}
    assert looked({0, 1, 2}, BUSY + 0.01, CALM - 0.01).for_functions == {0, 1, 2}


def test_between_the_bounds_nothing_changes() -> None:
    between = (BUSY + CALM) / 2
    assert looked({0, 1}, between).for_functions == {0, 1}
    assert looked({0, 1}, 0.9, between, between).for_functions == {0}


def test_the_loop_keeps_to_the_processor_that_it_was_given() -> None:
    assert looked({0, 1, 2}).for_loop == {0, 1, 2}
    busy = looked({0, 1, 2}, 0.9)
    assert busy.for_loop == {2}
    busy.share()
    assert busy.for_loop == busy.for_functions == {0, 1, 2}
    assert looked({3}, 0.9).for_loop == {3}


def test_it_says_when_something_changes() -> None:
    processor = LoopProcessor({4, 7})
    assert not processor.look(10.0, 1.0)
    assert processor.look(11.0, 1.9)
    assert not processor.look(12.0, 2.8)
    assert processor.look(13.0, 2.8)


def test_one_processor_is_shared() -> None:
    assert looked({3}, 0.9, 0.9).for_functions == {3}


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="with one processor there is none to spare"
)
async def test_functions_leave_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOOK_S", 0.01)
    everything = os.sched_getaffinity(0)

    async def until(condition: Callable[[], bool], busy: bool) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            if busy:
                spin_until = time.thread_time() + 0.02
                while time.thread_time() < spin_until:
                    pass
            await asyncio.sleep(0 if busy else 0.01)

    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = ProcessEngine(folder)
        try:
            sandbox = await engine.start(SandboxSpec("c1", "python:3", 64))
            pid = int((Path(folder) / "sandboxes/c1/pid").read_text().split()[0])
            await until(lambda: len(os.sched_getaffinity(pid)) == len(everything) - 1, busy=True)
            assert os.sched_getaffinity(0) == everything - os.sched_getaffinity(pid)
            # A thread that the loop has started begins where the loop is, and does not stay.
            await asyncio.to_thread(lambda: None)
            others = [int(t) for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
            await until(
                lambda: {*map(len, map(os.sched_getaffinity, others))} == {len(everything)},
                busy=True,
            )
            # One that is started meanwhile keeps off as well.
            await engine.start(SandboxSpec("c2", "python:3", 64))
            await until(lambda: os.sched_getaffinity(pid) == everything, busy=False)
            await engine.remove(sandbox)
            assert os.sched_getaffinity(0) == everything
        finally:
            await engine.close()
