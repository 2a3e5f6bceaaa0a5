"""Runs through ``ContainerPool.step``: a delivery to a warm container, and the end of the run."""

from __future__ import annotations

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

RUNS = 10_000


@pytest.mark.parametrize("containers", [1, 100, 1_000])
def test_run(benchmark: BenchmarkFixture, step_loop: ModuleType, containers: int) -> None:
    benchmark.group = f"{RUNS:,} runs, {containers:,} containers"
    loop = step_loop.PoolLoop(containers)
    benchmark.pedantic(loop.run, (RUNS,), rounds=10, warmup_rounds=1)
    loop.check()
