"""A busy event loop gets a processor to itself; ``tests/core/test_processors.py`` has when."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from requirements import missing
from waiting import until

from acs_node.sandboxes import SandboxSpec, process
from acs_node.sandboxes.process import ProcessEngine


async def test_functions_leave_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        missing("processors", "with one processor there is none to spare")
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)
    everything = os.sched_getaffinity(0)

    async def while_busy(condition: Callable[[], bool], what: str) -> None:
        def spin_and_look() -> bool:
            spin_until = time.thread_time() + 0.02
            while time.thread_time() < spin_until:
                pass
            return condition()

        await until(spin_and_look, what, 20)

    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = ProcessEngine(folder)
        try:
            sandbox = await engine.start(SandboxSpec("c1", "python:3", 64))
            pid = int((Path(folder) / "sandboxes/c1/pid").read_text().split()[0])
            await while_busy(
                lambda: len(os.sched_getaffinity(pid)) == len(everything) - 1,
                "the function to leave the loop's processor",
            )
            assert os.sched_getaffinity(0) == everything - os.sched_getaffinity(pid)
            # A thread that the loop has started begins where the loop is, and does not stay.
            await asyncio.to_thread(lambda: None)
            others = [int(t) for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
            await while_busy(
                lambda: {*map(len, map(os.sched_getaffinity, others))} == {len(everything)},
                "the threads to leave it",
            )
            # One that is started meanwhile keeps off as well.
            await engine.start(SandboxSpec("c2", "python:3", 64))
            await until(
                lambda: os.sched_getaffinity(pid) == everything, "the function's return", 20
            )
            await engine.remove(sandbox)
            assert os.sched_getaffinity(0) == everything
        finally:
            await engine.close()
