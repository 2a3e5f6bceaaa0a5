"""The job runner in asyncio does its jobs and leaves nobody behind."""

from __future__ import annotations

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
