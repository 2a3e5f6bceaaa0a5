"""Activations through ``Scheduler.step``: arrival, pull, completion; uniformly random queues.

Beside them, in the same groups, what one would write without a scheduler: a line per action in a
dictionary, and a dictionary of what runs.  That has no bound on the wait, no resend, no container,
no epoch, no demand and no fairness.
"""

from __future__ import annotations

import asyncio
import queue
import random
from collections import deque
from collections.abc import Callable
from types import ModuleType

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ACTIVATIONS = 10_000
ROUNDS = 10
QUEUES = [1, 1_000, 100_000]

Put = Callable[[object], object]
Get = Callable[[], object]


def line_of_deque() -> tuple[Put, Get]:
    line: deque[object] = deque()
    return line.append, line.popleft


def line_of_asyncio() -> tuple[Put, Get]:
    line: asyncio.Queue[object] = asyncio.Queue(10_000)
    return line.put_nowait, line.get_nowait


def line_of_threads() -> tuple[Put, Get]:
    line: queue.Queue[object] = queue.Queue(10_000)
    return line.put_nowait, line.get_nowait


@pytest.mark.parametrize("queues", QUEUES)
@pytest.mark.parametrize("make_line", [line_of_deque, line_of_asyncio, line_of_threads])
def test_by_hand(
    benchmark: BenchmarkFixture, make_line: Callable[[], tuple[Put, Get]], queues: int
) -> None:
    """Each is put into the line of its action, taken out, and noted as running until it ends."""
    benchmark.group = f"{ACTIVATIONS:,} activations, a container waits, {queues:,} queues"
    names = [f"guest/action{index}@1" for index in range(queues)]
    lines = {name: make_line() for name in names}
    order = random.Random(1).choices(names, k=ACTIVATIONS)
    ids = [f"{index:032x}" for index in range(2**10)]
    running: dict[str, object] = {}
    ended = 0

    def run() -> None:
        nonlocal ended
        for index, name in enumerate(order):
            activation_id = ids[index % 2**10]
            lines[name][0]((activation_id, b"{}"))
            taken = lines[name][1]()
            running[activation_id] = taken
            del running[activation_id]
            ended += 1

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    assert ended == (1 + (0 if benchmark.disabled else ROUNDS)) * ACTIVATIONS
    assert not running


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
