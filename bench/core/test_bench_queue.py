"""A line per action: put one in and take one out, for uniformly random actions.

``ActionQueue`` beside what one would write without it.  They do less: no bound, no withdrawal,
no deadline, no container.
"""

from __future__ import annotations

import asyncio
import heapq
import queue
import random
from collections import deque
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from acs_core.action_queue import ActionQueue, DeadlineIndex
from acs_core.events import Activation

TURNS = 10_000
ACTIONS = [1, 1_000, 100_000]

Run = Callable[[], None]


def orders(count: int) -> list[int]:
    return random.Random(1).choices(range(count), k=TURNS)


def action_queues(count: int) -> tuple[Run, Callable[[], int]]:
    lines = {index: ActionQueue(10_000) for index in range(count)}
    order = orders(count)
    activation = Activation("0" * 32, b"{}", 1)

    def run() -> None:
        for index in order:
            lines[index].offer(activation)
            lines[index].take()

    return run, lambda: sum(line.waiting for line in lines.values())


def deques(count: int) -> tuple[Run, Callable[[], int]]:
    lines: dict[int, deque[Activation]] = {index: deque() for index in range(count)}
    order = orders(count)
    activation = Activation("0" * 32, b"{}", 1)

    def run() -> None:
        for index in order:
            lines[index].append(activation)
            lines[index].popleft()

    return run, lambda: sum(len(line) for line in lines.values())


def asyncio_queues(count: int) -> tuple[Run, Callable[[], int]]:
    lines: dict[int, asyncio.Queue[Activation]] = {
        index: asyncio.Queue(10_000) for index in range(count)
    }
    order = orders(count)
    activation = Activation("0" * 32, b"{}", 1)

    def run() -> None:
        for index in order:
            lines[index].put_nowait(activation)
            lines[index].get_nowait()

    return run, lambda: sum(line.qsize() for line in lines.values())


def thread_queues(count: int) -> tuple[Run, Callable[[], int]]:
    lines: dict[int, queue.Queue[Activation]] = {
        index: queue.Queue(10_000) for index in range(count)
    }
    order = orders(count)
    activation = Activation("0" * 32, b"{}", 1)

    def run() -> None:
        for index in order:
            lines[index].put_nowait(activation)
            lines[index].get_nowait()

    return run, lambda: sum(line.qsize() for line in lines.values())


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("make", [action_queues, deques, asyncio_queues, thread_queues])
def test_put_and_take(
    benchmark: BenchmarkFixture,
    make: Callable[[int], tuple[Run, Callable[[], int]]],
    actions: int,
) -> None:
    benchmark.group = f"{TURNS:,} put and taken, {actions:,} lines"
    run, left = make(actions)
    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
    assert left() == 0


def deadline_index(count: int) -> tuple[Run, Callable[[], int]]:
    index = DeadlineIndex()
    names = [str(number) for number in range(count)]
    for number, name in enumerate(names):
        index.set(name, number)
    now_us = count

    def run() -> None:
        nonlocal now_us
        for _ in range(TURNS):
            name = index.pop_due(now_us)
            assert name is not None
            index.set(name, now_us)
            now_us += 1

    return run, lambda: sum(index.time_of(name) >= 0 for name in names)


def heap(count: int) -> tuple[Run, Callable[[], int]]:
    """A heap cannot move or drop a deadline, which is what the index is for."""
    entries = [(number, str(number)) for number in range(count)]
    now_us = count

    def run() -> None:
        nonlocal now_us
        for _ in range(TURNS):
            _, name = heapq.heappop(entries)
            heapq.heappush(entries, (now_us, name))
            now_us += 1

    return run, lambda: len(entries)


@pytest.mark.parametrize("keys", ACTIONS)
@pytest.mark.parametrize("make", [deadline_index, heap])
def test_deadline(
    benchmark: BenchmarkFixture,
    make: Callable[[int], tuple[Run, Callable[[], int]]],
    keys: int,
) -> None:
    benchmark.group = f"{TURNS:,} deadlines popped and set, {keys:,} keys"
    run, left = make(keys)
    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
    assert left() == keys
