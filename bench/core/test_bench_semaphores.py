"""Acquire and release, uncontended; beside the standard library's semaphores."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from acs_core import ForcibleSemaphore, NestedSemaphore, ResizableSemaphore

TURNS = 1_000
PERMITS = 1_000

Case = tuple[Callable[[], None], Callable[[], int]]


def forcible() -> Case:
    semaphore = ForcibleSemaphore(PERMITS)

    def run() -> None:
        for _ in range(TURNS):
            semaphore.try_acquire()
            semaphore.release()

    return run, lambda: semaphore.available_permits


def resizable() -> Case:
    # Two containers of PERMITS / 2: one is never used up, so no release takes it away.
    semaphore = ResizableSemaphore(PERMITS, 2 * PERMITS)

    def run() -> None:
        for _ in range(TURNS):
            semaphore.try_acquire()
            semaphore.release()

    return run, lambda: semaphore.available_permits


def nested() -> Case:
    semaphore = NestedSemaphore(PERMITS)
    keys = [f"action{index}" for index in range(100)]

    def run() -> None:
        for index in range(TURNS):
            key = keys[index % 100]
            semaphore.try_acquire_concurrent(key, 10, 1)
            semaphore.release_concurrent(key, 10, 1)

    return run, lambda: semaphore.available_permits


def of_threading(semaphore: threading.Semaphore) -> Case:
    def run() -> None:
        for _ in range(TURNS):
            semaphore.acquire(blocking=False)
            semaphore.release()

    return run, lambda: PERMITS


def standard() -> Case:
    return of_threading(threading.Semaphore(PERMITS))


def standard_bounded() -> Case:
    return of_threading(threading.BoundedSemaphore(PERMITS))


@pytest.mark.parametrize("make", [forcible, resizable, nested, standard, standard_bounded])
def test_acquire_and_release(benchmark: BenchmarkFixture, make: Callable[[], Case]) -> None:
    benchmark.group = f"{TURNS:,} acquired and released"
    run, permits = make()
    benchmark(run)
    assert permits() == PERMITS
