"""The thread pool runs its jobs, refuses what could never run, and lets idle workers go."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "thread_pool.py"
MODULE = runpy.run_path(str(EXAMPLE))
ThreadPool, Rejected = MODULE["ThreadPool"], MODULE["Rejected"]
LIMIT_S = 60
"""Far beyond what any of this takes: a job that hangs is a failure and no endless test."""


def test_every_job_has_its_result() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"the sum is 2450; workers: {'fetch': (\d+), 'double': (\d+)}\n", done.stdout
    )
    assert found is not None, done.stdout
    assert all(int(count) >= 1 for count in found.groups())
    assert done.stderr == ""


def test_a_failing_job_fails_alone() -> None:
    with ThreadPool({"half": lambda text: int(text) // 2}, workers_max=1) as pool:
        failed, succeeded = pool.submit("half", "x"), pool.submit("half", "8")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result(LIMIT_S)
        assert succeeded.result(LIMIT_S) == 4
        assert pool.started == ["half"]
        with pytest.raises(KeyError, match="third"):
            pool.submit("third", "9")


def test_no_more_workers_than_allowed_run_at_once() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.005)
        with lock:
            running[0] -= 1

    with ThreadPool({"a": work, "b": work}, workers_max=2) as pool:
        for future in [pool.submit(name) for name in "ab" * 20]:
            future.result(LIMIT_S)
    assert 1 <= most[0] <= 2


@pytest.mark.parametrize(("reserve", "depth"), [(0, 0), (2, 2)])
def test_calls_beyond_the_workers_are_refused_at_once(reserve: int, depth: int) -> None:
    """A pool of the standard library would wait for ever here."""

    def nest(levels: int) -> int:
        return 0 if levels == 0 else 1 + int(pool.call("nest", levels - 1))

    with ThreadPool({"nest": nest}, workers_max=1 + reserve, reserve=reserve) as pool:
        assert pool.submit("nest", depth).result(LIMIT_S) == depth
        with pytest.raises(Rejected, match="job-"):  # it names who holds the workers
            pool.submit("nest", depth + 1).result(LIMIT_S)
        assert pool.submit("nest", depth).result(LIMIT_S) == depth


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers_max is 0; it must be at least 1"):
        ThreadPool({"f": int}, workers_max=0)


def test_a_worker_is_used_again_within_its_keep_alive_and_ends_after_it() -> None:
    workers: list[threading.Thread] = []
    with ThreadPool(
        {"f": lambda: workers.append(threading.current_thread())}, 4, keep_alive_s=0.2
    ) as pool:
        pool.submit("f").result(LIMIT_S)
        pool.submit("f").result(LIMIT_S)
        for worker in workers:
            worker.join(LIMIT_S)
            assert not worker.is_alive()
        before = len(pool.started)
        pool.submit("f").result(LIMIT_S)  # as nobody is left, another one
        assert len(pool.started) == before + 1
    patient: list[threading.Thread] = []
    with ThreadPool(
        {"f": lambda: patient.append(threading.current_thread())}, 4, keep_alive_s=3600
    ) as pool:
        for _ in range(20):
            pool.submit("f").result(LIMIT_S)
        for worker in set(patient):
            worker.join(0.1)  # it has nothing to do, and stays
            assert worker.is_alive()
        assert len(pool.started) <= 4
    for worker in patient:
        worker.join(LIMIT_S)
        assert not worker.is_alive()


def test_what_is_cancelled_while_it_waits_does_not_run() -> None:
    begun, go_on, ran = threading.Event(), threading.Event(), []

    def work(name: str) -> None:
        begun.set()
        assert go_on.wait(LIMIT_S)
        ran.append(name)

    with ThreadPool({"work": work}, workers_max=1) as pool:
        first = pool.submit("work", "first")
        assert begun.wait(LIMIT_S)
        second, third = pool.submit("work", "second"), pool.submit("work", "third")
        assert second.cancel()
        go_on.set()
        third.result(LIMIT_S)
        with pytest.raises(CancelledError):
            second.result(LIMIT_S)
        assert first.done()
    assert ran == ["first", "third"]


def test_closing_runs_what_waits_and_takes_in_nothing_more() -> None:
    pool = ThreadPool({"f": lambda number: number}, workers_max=1)
    results = [pool.submit("f", number) for number in range(20)]
    pool.close()
    assert [result.result(0) for result in results] == list(range(20))
    with pytest.raises(RuntimeError, match="the pool is closed"):
        pool.submit("f", 1)


def test_where_the_system_gives_no_thread_the_job_waits_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, refusals = threading.Thread.start, [True]

    def refuse_once(thread: threading.Thread) -> None:
        if refusals and thread.name != "clock":
            refusals.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with ThreadPool({"f": lambda: 7}, workers_max=1) as pool:
        assert pool.submit("f").result(LIMIT_S) == 7
    assert not refusals
