"""Activations through ``Scheduler.step``: arrival, pull, completion; uniformly random queues."""

from __future__ import annotations

from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ACTIVATIONS = 10_000
ROUNDS = 10
QUEUES = [1, 1_000, 100_000]


@pytest.mark.parametrize("queues", QUEUES)
def test_container_waits(benchmark: BenchmarkFixture, step_loop: ModuleType, queues: int) -> None:
    """Each arrival is delivered at once: two steps for an activation."""
    benchmark.group = f"{ACTIVATIONS:,} activations, a container waits, {queues:,} queues"
    loop = step_loop.SchedulerLoop(queues)
    benchmark.pedantic(loop.run_idle, (ACTIVATIONS,), rounds=ROUNDS, warmup_rounds=1)
    loop.check()


@pytest.mark.parametrize("queues", QUEUES)
def test_work_waits(benchmark: BenchmarkFixture, step_loop: ModuleType, queues: int) -> None:
    """Each arrival waits for the pull that follows.

    The loop's time goes by one microsecond an activation, so this holds as many decisions as
    the queues are allowed to make: at 1,000 queues one for five arrivals, at 100,000 one each.
    """
    benchmark.group = f"{ACTIVATIONS:,} activations, work waits, {queues:,} queues"
    loop = step_loop.SchedulerLoop(queues)
    loop.fill()
    benchmark.pedantic(loop.run_backlog, (ACTIVATIONS,), rounds=ROUNDS, warmup_rounds=1)
    loop.check()


@pytest.mark.parametrize("queues", [1_000, 10_000])
def test_tick(benchmark: BenchmarkFixture, step_loop: ModuleType, queues: int) -> None:
    """The largest step: all queues that had arrivals within a moment are due at once."""
    benchmark.group = f"one tick at {queues:,} queues after {ACTIVATIONS:,} arrivals"
    loop = step_loop.SchedulerLoop(queues)

    def arrivals() -> None:
        loop.run_idle(ACTIVATIONS)

    benchmark.pedantic(loop.tick, setup=arrivals, rounds=ROUNDS)
    loop.check()
