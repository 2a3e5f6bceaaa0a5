"""The job runner in asyncio does its jobs and leaves nobody behind."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "job_runner.py"


def test_every_job_has_its_result() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "200 results, b'ABC' and b'3'; workers: all ended\n"
    assert done.stderr == ""


async def test_a_failing_job_fails_alone() -> None:
    example = runpy.run_path(str(EXAMPLE))

    async def half(text: bytes) -> bytes:
        return b"%d" % (int(text) // 2)

    runner = example["JobRunner"]({"half": half}, workers_max=1)
    with pytest.raises(ValueError, match="invalid literal"):
        await runner.run("half", b"x")
    assert await runner.run("half", b"8") == b"4"
    assert runner.created == ["half"]
    await runner.close()
    assert not runner.workers


async def test_a_job_that_cannot_run_is_rejected_with_the_reason() -> None:
    example = runpy.run_path(str(EXAMPLE))

    async def never(text: bytes) -> bytes:
        raise AssertionError(text)

    runner = example["JobRunner"]({"never": never}, workers_max=0, wait_max_s=0.05)
    with pytest.raises(example["Rejected"], match="no invoker has 1 MB"):
        await runner.run("never", b"x")
    assert runner.created == []
    await runner.close()


async def test_an_idle_worker_leaves_after_its_keep_alive() -> None:
    example = runpy.run_path(str(EXAMPLE))
    runner_class = example["JobRunner"]
    runner_class._work.__globals__["KEEP_ALIVE_S"] = 0.05

    async def echo(text: bytes) -> bytes:
        return text

    runner = runner_class({"echo": echo}, workers_max=1)
    assert await runner.run("echo", b"1") == b"1"
    assert await runner.run("echo", b"2") == b"2"
    (worker,) = runner._tasks
    await asyncio.wait_for(asyncio.shield(worker), 60)
    assert not runner.workers
    assert await runner.run("echo", b"3") == b"3"  # as nobody is left, another one
    assert runner.created == ["echo", "echo"]
    await runner.close()
