"""Test activations on a real engine, and what an invoker makes of them."""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from node.test_invoker import Stage, stage
from requirements import missing
from waiting import until

from acs_core.events import CreationFailed, QueueSpec
from acs_core.health import Trial
from acs_core.limits import TIME_MAX_US
from acs_core.sharding import InvokerStatus
from acs_core.sharding_supervision import InvocationResult
from acs_node import health_test
from acs_node.cluster.health import HealthWatch
from acs_node.health_test import CODES, HealthTest
from acs_node.sandboxes import Sandbox, SandboxError, SandboxSpec
from acs_node.sandboxes.process import ProcessEngine

GOOD, BAD, LATE = (
    InvocationResult.SUCCESS,
    InvocationResult.SYSTEM_ERROR,
    InvocationResult.TIMEOUT,
)


class Engine(ProcessEngine):
    """The process engine, which hangs or fails as the test says."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.error: Exception | None = None
        self.port = 0
        self.started: list[SandboxSpec] = []
        self.removed = 0

    async def start(self, spec: SandboxSpec) -> Sandbox:
        await self.may_start.wait()
        if self.error is not None:
            raise self.error
        self.started.append(spec)
        sandbox = await super().start(spec)
        return replace(sandbox, port=self.port) if self.port else sandbox

    async def remove(self, sandbox: Sandbox) -> None:
        await super().remove(sandbox)
        self.removed += 1


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        engine = Engine(Path(folder))
        yield engine
        await engine.close()


async def test_a_host_that_works_passes_and_nothing_is_left(engine: Engine) -> None:
    test = HealthTest(engine, "python:3")
    assert [await test.run() for _ in range(2)] == [GOOD, GOOD]
    assert engine.removed == 2
    assert len({spec.container for spec in engine.started}) == 2
    await test.close()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def main(args: syntax", "/init answered 502"),
        ("def main(args):\n    return {'n': 'another'}", "it answered"),
        ("def main(args):\n    return []", "it answered"),
        ("def main(args):\n    import os; os._exit(1)", "its connection ended"),
        ("def main(args):\n    raise ValueError", "it answered"),
    ],
)
async def test_a_function_that_does_something_else_is_a_failure(
    engine: Engine,
    code: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(CODES, "python", code)
    test = HealthTest(engine, "python:3")
    assert await test.run() is BAD
    assert f"a test activation failed: {says}" in caplog.text
    assert engine.removed == 1
    await test.close()


async def test_an_engine_that_fails_is_a_failure(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    test = HealthTest(engine, "python:3")
    engine.error = SandboxError("no more threads")
    assert await test.run() is BAD
    assert "a test activation failed: no more threads" in caplog.text
    engine.error = None
    assert await test.run() is GOOD
    await test.close()


async def test_a_sandbox_that_listens_nowhere_is_a_failure(engine: Engine) -> None:
    # As stock images are reached: on a port, where here nobody is.
    engine.port = 1
    test = HealthTest(engine, "python:3")
    assert await test.run() is BAD
    assert engine.removed == 1
    await test.close()


async def test_an_engine_that_hangs_is_asked_once_and_not_ever_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_test, "TEST_S", 0.05)
    engine.may_start.clear()
    test = HealthTest(engine, "python:3")
    assert [await test.run() for _ in range(3)] == [LATE, LATE, LATE]
    engine.may_start.set()
    monkeypatch.setattr(health_test, "TEST_S", 30.0)
    assert await test.run() is GOOD  # the first one, after all
    assert len(engine.started) == engine.removed == 1
    engine.may_start.clear()
    monkeypatch.setattr(health_test, "TEST_S", 0.05)
    assert await test.run() is LATE
    await test.close()


async def test_other_kinds_are_tested_with_functions_of_theirs(engine: Engine) -> None:
    if shutil.which("node") is None:
        missing("node", "there is no node in PATH")
    test = HealthTest(engine, "nodejs:20")
    assert await test.run() is GOOD
    await test.close()


async def test_answers_that_are_no_success_are_failures(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = "def main(args):\n    return {'n': 'x' * 3_000_000}"
    monkeypatch.setitem(CODES, "python", code)
    test = HealthTest(engine, "python:3")
    assert await test.run() is BAD
    await test.close()


# --- what an invoker sees of itself -------------------------------------------------------------


def observed(made: Stage) -> list[tuple[Trial, InvocationResult]]:
    seen: list[tuple[Trial, InvocationResult]] = []
    made.invoker._observe = lambda trial, result: seen.append((trial, result))
    return seen


async def test_creations_and_runs_are_told() -> None:
    async with stage() as made:
        seen = observed(made)
        await made.serving()
        made.deliver("a1")
        await made.result("a1")
        assert seen == [(Trial.CREATION, GOOD), (Trial.RUN, GOOD)]


async def test_a_function_that_fails_says_nothing_bad_of_its_host() -> None:
    async with stage("def main(args):\n    import os; os._exit(1)") as made:
        seen = observed(made)
        await made.serving()
        made.deliver("a1")
        await made.result("a1")
        assert seen == [(Trial.CREATION, GOOD), (Trial.RUN, GOOD)]
        await made.gone()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SandboxError("busy"), [(Trial.CREATION, BAD)]),
        (OSError("odd"), [(Trial.CREATION, BAD)]),
        (SandboxError("no such image", final=True), []),  # it may be the action's own
    ],
)
async def test_an_engine_that_fails_is_told_and_a_wrong_action_is_not(
    error: Exception, told: list[tuple[Trial, InvocationResult]]
) -> None:
    async with stage() as made:
        seen = observed(made)
        made.engine.start_errors.append(error)
        made.create()
        await made.wait(CreationFailed)
        assert seen == told


async def test_a_reservation_that_is_gone_is_no_fault_of_the_host() -> None:
    async with stage() as made:
        seen = observed(made)

        async def convert(container: str, spec: QueueSpec) -> bool:
            return False

        made.invoker._convert = convert
        made.create()
        failed = await made.wait(CreationFailed)
        assert failed.cause == "its reservation is gone, or cannot be confirmed"
        assert seen == []


async def test_a_pause_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acs_node.invoker.PAUSE_S", 0.05)
    async with stage(pool={"pause_grace_us": 1}) as made:
        seen = observed(made)
        made.engine.may_pause.clear()
        await made.serving()
        made.deliver("a1")
        await until(lambda: (Trial.CREATION, LATE) in seen, "the time-out")
        made.engine.may_pause.set()
        await made.gone()


# --- when it tests ------------------------------------------------------------------------------


class Outcomes:
    """Tests whose outcome the test chooses."""

    def __init__(self) -> None:
        self.result = GOOD
        self.count = 0
        self.statuses: list[InvokerStatus] = []
        self.watch = HealthWatch(self.run, lambda: self.statuses.append(self.watch.status))

    async def run(self) -> InvocationResult:
        self.count += 1
        await asyncio.sleep(0)
        return self.result


async def test_an_invoker_is_tested_at_its_start_and_then_left_alone() -> None:
    tests = Outcomes()
    await tests.watch.start()
    assert tests.statuses == [InvokerStatus.UP]
    for _ in range(20):
        tests.watch.completed(Trial.RUN, GOOD)
        await asyncio.sleep(0)
    assert tests.count == 1
    await tests.watch.close()


async def test_an_invoker_whose_creations_fail_is_tested_until_it_is_well(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acs_core.health.HEALTH_TEST_RETRY_US", 1_000)
    caplog.set_level(logging.INFO)
    tests = Outcomes()
    await tests.watch.start()
    tests.result = BAD
    for _ in range(4):
        tests.watch.completed(Trial.CREATION, BAD)
    assert tests.watch.status == InvokerStatus.UNHEALTHY
    await until(lambda: tests.count > 3, "tests that fail")
    assert tests.statuses == [InvokerStatus.UP, InvokerStatus.UNHEALTHY]
    tests.result = GOOD
    await until(lambda: len(tests.statuses) == 3, "its return")
    assert tests.statuses[-1] == InvokerStatus.UP
    assert "this invoker is unhealthy" in caplog.text
    assert "this invoker is up" in caplog.text
    count = tests.count
    assert tests.watch._health.test_due_us == TIME_MAX_US
    await tests.watch.close()
    assert tests.count == count


async def test_an_invoker_that_fails_its_first_test_begins_unwell_and_is_tested_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("acs_core.health.HEALTH_TEST_RETRY_US", 1_000)
    tests = Outcomes()
    tests.result = LATE
    await tests.watch.start()
    assert (tests.statuses, tests.watch.status) == ([], InvokerStatus.UNHEALTHY)
    tests.result = GOOD
    await until(lambda: tests.statuses, "its first success")
    assert tests.statuses == [InvokerStatus.UP]
    await tests.watch.close()
