"""What the semaphores answer: the original's vectors, refused input, and many threads."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from acs_core.semaphores import (
    ConcurrentState,
    ForcibleSemaphore,
    NestedSemaphore,
    ResizableSemaphore,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "semaphores.json").read_text())
INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)
JOIN_S = 30.0

CLASSES: dict[str, Callable[..., Any]] = {
    "ForcibleSemaphore": lambda init: ForcibleSemaphore(init["maxAllowed"]),
    "ResizableSemaphore": lambda init: ResizableSemaphore(
        init["maxAllowed"], init["reductionSize"]
    ),
    "NestedSemaphore": lambda init: NestedSemaphore(init["memoryPermits"]),
}
METHODS = {
    "tryAcquire": "try_acquire",
    "forceAcquire": "force_acquire",
    "release": "release",
    "tryAcquireConcurrent": "try_acquire_concurrent",
    "forceAcquireConcurrent": "force_acquire_concurrent",
    "releaseConcurrent": "release_concurrent",
}
RAISES = {"IllegalArgument": ValueError, "Overflow": OverflowError}


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let the interpreter change threads wherever it can, so that a race shows."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


def together(times: int, call: Callable[[], Any]) -> list[Any]:
    """Run ``call`` in so many threads, all of which begin at once; return what they returned."""
    barrier = threading.Barrier(times, timeout=JOIN_S)
    results: list[Any] = []

    def work() -> None:
        barrier.wait()
        results.append(call())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert len(results) == times, "a thread raised or hangs"
    return results


def perform(semaphore: Any, op: str, args: list[Any]) -> Any:
    if op == "availablePermits":
        return semaphore.available_permits
    if op == "counter":
        return semaphore.operation_count
    if op == "concurrentState":
        state = semaphore.concurrent_state.get(args[0])
        return state and {
            "availablePermits": state.available_permits,
            "counter": state.operation_count,
        }
    result = getattr(semaphore, METHODS[op])(*args)
    return list(result) if isinstance(result, tuple) else result


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['class']}: {v['name']}")
def test_answers_the_original_gave(vector: dict[str, Any]) -> None:
    for _ in range(vector.get("repeat", 1)):
        semaphore = CLASSES[vector["class"]](vector["init"])
        for step in vector["steps"]:
            op, args, expect = step["op"], step["args"], step["expect"]
            if op == "concurrently":
                call = partial(perform, semaphore, args["op"], args["args"])
                results = together(args["times"], call)
                if expect is not None:
                    counts = Counter(json.dumps(result) for result in results)
                    assert counts == expect["multiset"]
            elif isinstance(expect, dict) and "raises" in expect:
                with pytest.raises(RAISES[expect["raises"]]):
                    perform(semaphore, op, args)
            else:
                assert perform(semaphore, op, args) == expect, step


# --- the forcible and the resizable one ------------------------------------------------------


def test_release_is_not_capped_at_what_was_allowed() -> None:
    semaphore = ForcibleSemaphore(1)
    semaphore.release(2)
    assert semaphore.available_permits == 3


def test_at_most_one_reduction_a_release() -> None:
    semaphore = ResizableSemaphore(0, 3)
    assert semaphore.release(9, False) == (True, False)
    assert (semaphore.available_permits, semaphore.operation_count) == (6, 1)
    # 6 - 6 + 3 is a multiple again, and so is 0.
    assert semaphore.try_acquire(6)
    assert semaphore.release(3) == (True, False)
    assert semaphore.available_permits == 0


def test_operations_are_counted_once_whatever_they_take() -> None:
    semaphore = ResizableSemaphore(5, 7)
    assert semaphore.try_acquire(4)
    assert semaphore.operation_count == 1
    assert semaphore.release(4) == (False, True)
    assert semaphore.release() == (False, False)
    assert semaphore.operation_count == -1
    assert semaphore.reduction_size == 7


@pytest.mark.parametrize("n", [0, -1, INT32_MIN])
def test_counts_below_one_are_refused(n: int) -> None:
    forcible, resizable = ForcibleSemaphore(2), ResizableSemaphore(2, 5)
    for call in (
        forcible.try_acquire,
        forcible.force_acquire,
        forcible.release,
        resizable.try_acquire,
        resizable.release,
    ):
        with pytest.raises(ValueError, match=f"^n is {n}; it must be at least 1"):
            call(n)
    with pytest.raises(ValueError, match=f"reduction_size is {n}; it must be at least 1"):
        ResizableSemaphore(1, n)
    assert forcible.available_permits == 2
    assert (resizable.available_permits, resizable.operation_count) == (2, 0)


@pytest.mark.parametrize("n", [True, 1.0, "1", None])
def test_counts_that_are_no_integers_are_refused(n: Any) -> None:
    semaphore, nested = ForcibleSemaphore(2), NestedSemaphore(2)
    for field, call in (
        ("n", semaphore.try_acquire),
        ("n", semaphore.force_acquire),
        ("n", semaphore.release),
        ("n", ResizableSemaphore(2, 5).try_acquire),
        ("n", ResizableSemaphore(2, 5).release),
        ("max_allowed", ForcibleSemaphore),
        ("memory_permits", NestedSemaphore),
        ("max_allowed", lambda value: ResizableSemaphore(value, 1)),
        ("reduction_size", lambda value: ResizableSemaphore(1, value)),
        ("max_concurrent", lambda value: nested.try_acquire_concurrent("a", value, 1)),
        ("memory", lambda value: nested.force_acquire_concurrent("a", 2, value)),
        ("max_concurrent", lambda value: nested.release_concurrent("a", value, 1)),
        ("memory", lambda value: nested.release_concurrent("a", 2, value)),
    ):
        with pytest.raises(TypeError, match=f"^{field} is {n!r}; it must be an integer"):
            call(n)
    assert semaphore.available_permits == nested.available_permits == 2
    assert nested.concurrent_state == {}


def test_counts_stay_within_int32() -> None:
    full, deep = ForcibleSemaphore(INT32_MAX), ForcibleSemaphore(INT32_MIN)
    with pytest.raises(OverflowError, match=f"permits would be {INT32_MAX + 1}"):
        full.release()
    with pytest.raises(OverflowError, match=f"permits would be {INT32_MIN - 1}"):
        deep.force_acquire()
    assert not deep.try_acquire(INT32_MAX)
    assert (full.available_permits, deep.available_permits) == (INT32_MAX, INT32_MIN)
    for call in (full.try_acquire, full.force_acquire, full.release):
        with pytest.raises(OverflowError, match=f"n would be {INT32_MAX + 1}"):
            call(INT32_MAX + 1)
    for make in (ForcibleSemaphore, NestedSemaphore):
        with pytest.raises(OverflowError):
            make(INT32_MIN - 1)
    resizable = ResizableSemaphore(INT32_MAX, 7)
    for complete in (True, False):
        with pytest.raises(OverflowError, match=f"permits would be {INT32_MAX + 1}"):
            resizable.release(1, complete)
    assert (resizable.available_permits, resizable.operation_count) == (INT32_MAX, 0)
    indebted = ResizableSemaphore(INT32_MIN, INT32_MAX)
    with pytest.raises(OverflowError, match="permits would be"):
        indebted.release(1)  # -2**31 + 1 is minus the reduction size: a multiple
    assert (indebted.available_permits, indebted.operation_count) == (INT32_MIN, 0)


# --- the nested one --------------------------------------------------------------------------


def test_one_run_a_container_counts_memory_only() -> None:
    nested = NestedSemaphore(3)
    assert nested.try_acquire_concurrent("a", 1, 2)
    assert not nested.try_acquire_concurrent("a", 1, 2)
    nested.force_acquire_concurrent("a", 1, 2)
    assert nested.available_permits == -1
    nested.release_concurrent("a", 1, 2)
    assert (nested.available_permits, nested.concurrent_state) == (1, {})


def test_forced_acquire_prefers_a_free_run() -> None:
    nested = NestedSemaphore(4)
    nested.force_acquire_concurrent("a", 2, 4)
    nested.force_acquire_concurrent("a", 2, 4)
    assert nested.available_permits == 0
    nested.force_acquire_concurrent("a", 2, 4)
    assert nested.available_permits == -4
    assert nested.concurrent_state == {"a": ConcurrentState(1, 3)}


def test_first_max_concurrent_of_a_key_decides_when_memory_returns() -> None:
    nested = NestedSemaphore(10)
    assert nested.try_acquire_concurrent("a", 2, 4)
    assert nested.try_acquire_concurrent("a", 2, 4)
    # Three runs bought with another number: two free ones reach a multiple of the first, 2,
    # and go away without memory in return.
    assert nested.try_acquire_concurrent("a", 3, 4)
    assert nested.available_permits == 2
    assert nested.concurrent_state["a"] == (0, 3)


def test_state_is_a_view_of_one_moment_that_cannot_be_written() -> None:
    nested = NestedSemaphore(4)
    before = nested.concurrent_state
    nested.force_acquire_concurrent("a", 2, 4)
    assert before == {}
    with pytest.raises(TypeError):
        before["a"] = ConcurrentState(0, 0)  # type: ignore[index]  # refused at run time


def test_unknown_key_is_refused() -> None:
    nested = NestedSemaphore(4)
    with pytest.raises(KeyError, match="b"):
        nested.release_concurrent("b", 2, 4)
    assert (nested.available_permits, nested.concurrent_state) == (4, {})


@pytest.mark.parametrize(("max_concurrent", "memory"), [(0, 1), (-2, 1), (1, 0), (2, 0), (2, -1)])
def test_nested_counts_below_one_are_refused(max_concurrent: int, memory: int) -> None:
    nested = NestedSemaphore(8)
    nested.force_acquire_concurrent("a", 2, 4)
    for call in (
        nested.try_acquire_concurrent,
        nested.force_acquire_concurrent,
        nested.release_concurrent,
    ):
        with pytest.raises(ValueError, match="it must be at least 1"):
            call("a", max_concurrent, memory)
    assert (nested.available_permits, nested.concurrent_state) == (4, {"a": (1, 1)})


def test_nested_overflow_changes_nothing() -> None:
    nested = NestedSemaphore(INT32_MAX)
    nested.force_acquire_concurrent("a", 2, 1)
    nested.release(1)
    # The run would be the second free one, and the memory would come back: one too much.
    with pytest.raises(OverflowError, match="memory permits would be"):
        nested.release_concurrent("a", 2, 1)
    with pytest.raises(OverflowError, match="memory permits would be"):
        nested.release_concurrent("b", 1, 1)
    assert (nested.available_permits, nested.concurrent_state) == (INT32_MAX, {"a": (1, 1)})
    deep = NestedSemaphore(INT32_MIN)
    for max_concurrent in (1, 2):
        with pytest.raises(OverflowError, match="memory permits would be"):
            deep.force_acquire_concurrent("a", max_concurrent, 1)
    assert (deep.available_permits, deep.concurrent_state) == (INT32_MIN, {})


def test_release_that_frees_no_container_needs_no_memory() -> None:
    nested = NestedSemaphore(INT32_MAX)
    nested.force_acquire_concurrent("a", 3, 1)
    assert nested.try_acquire_concurrent("a", 3, 1)
    nested.release(1)
    nested.release_concurrent("a", 3, 1)
    assert nested.concurrent_state == {"a": (2, 1)}


# --- threads ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ForcibleSemaphore(32),
        lambda: NestedSemaphore(32),
        lambda: ResizableSemaphore(32, 35),
    ],
    ids=["forcible", "nested", "resizable"],
)
def test_64_threads_share_32_permits(make: Callable[[], Any]) -> None:
    for _ in range(20):
        semaphore = make()
        assert Counter(together(64, semaphore.try_acquire)) == {True: 32, False: 32}
        assert semaphore.available_permits == 0


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("semaphore", [ForcibleSemaphore(8), ResizableSemaphore(8, 99)])
def test_threads_lose_no_permit(semaphore: Any) -> None:
    def work() -> None:
        for _ in range(300):
            if semaphore.try_acquire(3):
                semaphore.release(3)

    together(8, work)
    assert semaphore.available_permits == 8


@pytest.mark.usefixtures("eager_switches")
def test_threads_lose_no_forced_permit() -> None:
    semaphore = ForcibleSemaphore(8)

    def work() -> None:
        for _ in range(300):
            semaphore.force_acquire(3)
            semaphore.release(2)
            semaphore.release(1)

    together(8, work)
    assert semaphore.available_permits == 8


@pytest.mark.usefixtures("eager_switches")
def test_threads_lose_no_container() -> None:
    nested = NestedSemaphore(20)

    def work() -> None:
        for _ in range(200):
            if nested.try_acquire_concurrent("a", 5, 3):
                nested.release_concurrent("a", 5, 3)
            nested.force_acquire_concurrent("b", 2, 1)
            nested.release_concurrent("b", 2, 1)

    together(8, work)
    left = {key: runs.operation_count for key, runs in nested.concurrent_state.items()}
    # A failed first acquire leaves its key behind, with nothing in it.
    assert (nested.available_permits, set(left.values())) in [(20, set()), (20, {0})]


@pytest.mark.usefixtures("eager_switches")
def test_parallel_runs_fill_containers_before_memory() -> None:
    for _ in range(20):
        nested = NestedSemaphore(20)
        acquire = partial(nested.try_acquire_concurrent, "a", 5, 3)
        assert Counter(together(5, acquire)) == {True: 5}
        assert (nested.available_permits, nested.concurrent_state["a"]) == (17, (0, 5))
        assert Counter(together(25, acquire)) == {True: 25}
        assert (nested.available_permits, nested.concurrent_state["a"]) == (2, (0, 30))
        assert not acquire()
