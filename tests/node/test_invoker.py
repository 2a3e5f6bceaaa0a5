"""The invoker with real process sandboxes; the scheduler's part is played by the test."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node.house import ECHO, WAITS
from waiting import Gate, until

from acs_core.containers import ContainerPool, PoolConfig
from acs_core.effects import Create, Deliver, Release, Resume
from acs_core.events import (
    Activation,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    FailureClass,
    InvokerReported,
    Outcome,
    Pulled,
    QueueSpec,
    Returned,
)
from acs_core.health import Trial
from acs_core.prewarm import Prewarm
from acs_core.sharding_supervision import InvocationResult
from acs_node import clock, invoker, log_collection, runtime_protocol
from acs_node.container_connection import ContainerConnection
from acs_node.entity_types import Action, ActionLimits, Exec
from acs_node.invoker import Invoker
from acs_node.links import Inbox, LocalLink, Logs, Result, Submit
from acs_node.runtime_protocol import RunTemplate
from acs_node.sandboxes import (
    EngineUnavailable,
    ImageUnavailable,
    Sandbox,
    SandboxError,
    SandboxSpec,
)
from acs_node.sandboxes.process import ProcessEngine

EPOCH = 1


class FaultyEngine(ProcessEngine):
    """The process engine, which fails as the test says."""

    def __init__(self, data_dir: Path, *, python: str | None = None) -> None:
        super().__init__(data_dir, python=python)
        self.start_errors: list[Exception] = []
        self.remove_errors: list[Exception] = []
        self.pause_errors: list[Exception] = []
        self.resume_errors: list[Exception] = []
        self.may_pause = asyncio.Event()
        self.may_pause.set()
        self.ending_error: Exception | None = None
        self.may_find_out = asyncio.Event()
        self.may_find_out.set()
        self.socket_path = ""
        self.sandboxes: list[Sandbox] = []

    async def start(self, spec: SandboxSpec) -> Sandbox:
        if self.start_errors:
            raise self.start_errors.pop(0)
        sandbox = await super().start(spec)
        self.sandboxes.append(sandbox)
        return replace(sandbox, socket_path=self.socket_path) if self.socket_path else sandbox

    async def pause(self, sandbox: Sandbox) -> None:
        await self.may_pause.wait()
        if self.pause_errors:
            raise self.pause_errors.pop(0)
        await super().pause(sandbox)

    async def resume(self, sandbox: Sandbox) -> None:
        if self.resume_errors:
            raise self.resume_errors.pop(0)
        await super().resume(sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        if self.remove_errors:
            raise self.remove_errors.pop(0)
        await super().remove(sandbox)

    async def ending(self, sandbox: Sandbox) -> Any:
        await self.may_find_out.wait()
        if self.ending_error:
            raise self.ending_error
        return await super().ending(sandbox)


class Stage:
    """An invoker and what it said, in order."""

    def __init__(
        self, folder: Path, engine: FaultyEngine, code: str, pool: dict[str, Any], **limits: int
    ) -> None:
        defaults = {"timeout_ms": 10_000, "memory_mb": 256, "logs_mb": 1, "concurrency": 1}
        self.action = Action(
            "guest", None, "act", "0.0.1", 1, 0, False, Exec("python:3", code, False), (),
            ActionLimits(**{**defaults, **limits}), (),
        )  # fmt: skip
        self.spec = QueueSpec(
            "guest/act@1", "guest", "guest/act", 1, memory_mb=self.action.limits.memory_mb,
            timeout_us=self.action.limits.timeout_ms * 1000, kind="python:3",
            concurrency=self.action.limits.concurrency,
        )  # fmt: skip
        self.folder = folder
        self.engine = engine
        self.said: list[object] = []
        self.action_error: Exception | None = None
        self.invoker = Invoker(
            ContainerPool(PoolConfig("i0", 512, **pool)), engine, self._action_of, {}
        )
        link = LocalLink(self.said.append, Inbox())
        self.invoker.connect(link, link)

    def _action_of(self, queue: str) -> Action:
        assert queue == self.spec.queue
        if self.action_error:
            raise self.action_error
        return self.action

    def create(self, container: str = "c1") -> None:
        self.invoker.receive(Create(container, "i0", EPOCH, self.spec))

    def deliver(self, activation_id: str, arguments: Any = None, container: str = "c1") -> None:
        value = json.dumps(arguments or {}).encode()
        payload = RunTemplate(self.action, "guest").payload(value, activation_id, b"tid")
        activation = Activation(activation_id, payload, clock.now_us())
        self.invoker.receive(Deliver(container, "i0", EPOCH, activation))

    def sent(self, kind: type) -> list[Any]:
        return [each for each in self.said if type(each) is kind]

    async def wait(self, kind: type, count: int = 1) -> Any:
        """Wait for the ``count``-th message of a kind."""
        await until(lambda: len(self.sent(kind)) >= count, f"{kind.__name__} number {count}")
        return self.sent(kind)[count - 1]

    async def serving(self, container: str = "c1") -> None:
        self.create(container)
        await self.wait(ContainerServing, len(self.sent(ContainerServing)) + 1)

    async def result(self, activation_id: str) -> Result:
        def found() -> list[Any]:
            return [r for r in self.sent(Result) if r.activation_id == activation_id]

        (result,) = await until(found, f"the result of {activation_id}")
        assert isinstance(result, Result)
        return result

    async def logs(self, activation_id: str) -> list[str]:
        def found() -> list[Any]:
            entries = [entry for message in self.sent(Logs) for entry in message.entries]
            return [lines for name, lines in entries if name == activation_id]

        (lines,) = await until(found, f"the logs of {activation_id}")
        return [line.partition(" ")[2] for line in lines]

    async def gone(self, count: int = 1) -> None:
        """Wait for the removal of a container; then nothing of it may be left."""
        await self.wait(ContainerGone, count)
        await until(lambda: not self.invoker._tasks, "the end of tasks")
        self.invoker.pool.check()

    async def asleep(self) -> None:
        """Run once, and wait until the container is paused."""
        await self.serving()
        self.deliver("a1")
        await self.result("a1")
        await until(lambda: self.invoker.pool.counts()["paused"], "the pause")

    def resume(self) -> None:
        self.invoker.receive(Resume("c1", "i0", EPOCH))

    async def prewarmed(self) -> None:
        await until(lambda: self.invoker.pool.counts()["prewarm_ready"], "a prewarmed sandbox")

    def pid(self, container: str = "c1") -> int:
        return int((self.folder / "sandboxes" / container / "pid").read_text().split()[0])


@asynccontextmanager
async def stage(
    code: str = ECHO,
    *,
    python: str | None = None,
    pool: dict[str, Any] | None = None,
    **limits: int,
) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="acs-") as name:
        folder = Path(name)
        made = Stage(folder, FaultyEngine(folder, python=python), code, pool or {}, **limits)
        try:
            yield made
        finally:
            made.engine.remove_errors.clear()
            await made.invoker.close()
            assert list((folder / "sandboxes").iterdir()) == []


def error_of(result: Result) -> Any:
    return json.loads(result.response)["error"]


async def test_a_cold_and_a_warm_run() -> None:
    async with stage("def main(args):\n    print('seen', args)\n    return args\n") as s:
        await s.serving()
        s.deliver("a1", {"n": 1})
        cold = await s.result("a1")
        assert (cold.outcome, cold.response) == (Outcome.SUCCESS, b'{"n":1}')
        assert cold.init_us > 0
        assert cold.duration_us >= cold.init_us
        pull = await s.wait(Pulled, 2)
        assert s.said.index(cold) < s.said.index(pull), "a result goes before the next pull"
        assert [c.activation_id for c in pull.completions] == ["a1"]
        s.deliver("a2", {"n": 2})
        warm = await s.result("a2")
        assert (warm.response, warm.init_us) == (b'{"n":2}', 0)
        assert await s.logs("a1") == ["stdout: seen {'n': 1}"]
        assert await s.logs("a2") == ["stdout: seen {'n': 2}"]
        assert s.invoker.waits.percentile_us(99) is not None
        await until(lambda: not s.invoker._logs.talking, "the end of listening")
        reports = s.sent(InvokerReported)
        assert reports[-1].creation_us > 0


async def test_how_fast_the_engine_is_goes_to_the_scheduler() -> None:
    async with stage() as s:
        s.engine.start_errors.append(SandboxError("planted"))
        s.create("c0")
        await s.wait(CreationFailed)
        s.create("c1")
        s.create("c2")
        await s.wait(ContainerServing, 2)
        first, second = s.sent(InvokerReported)
        assert first.creation_us >= second.creation_us > 0
        assert first.creations_per_s == 0.0, "one of two under way is no rate yet"
        assert second.creations_per_s > 0.0


async def test_without_a_log_limit_no_logs_follow() -> None:
    async with stage("def main(args):\n    print('x' * 400_000)\n    return {}\n", logs_mb=0) as s:
        await s.serving()
        for number in range(3):
            s.deliver(f"a{number}")
            assert not (await s.result(f"a{number}")).logs_follow
        assert not s.sent(Logs)


async def test_a_container_that_dies_idle_leaves_at_once_and_work_for_it_is_given_back() -> None:
    async with stage() as s:
        await s.serving()
        s.deliver("a1")
        await s.result("a1")
        s.engine.may_find_out.clear()  # nobody waits for the cause of its death
        os.kill(s.pid(), signal.SIGKILL)
        await s.wait(ContainerLeaving)
        s.deliver("a2")
        assert s.sent(Returned)[0].activation_ids == ("a2",)
        assert [r.activation_id for r in s.sent(Result)] == ["a1"], "it never started"
        await s.gone()


async def test_a_container_that_dies_before_its_first_work_leaves_as_well() -> None:
    async with stage() as s:
        await s.serving()
        os.kill(s.pid(), signal.SIGKILL)
        await s.gone()
        assert s.invoker.pool.used_mb() == 0


@pytest.mark.parametrize(
    ("code", "initialises", "how"),
    [
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
            True,
            "was killed by SIGKILL",
        ),
        ("import os\nos._exit(3)\n", True, "exited with status 3"),
        ("import os\ndef main(args):\n    os._exit(0)\n", False, "exited with status 0"),
        (
            "import os, signal\ndef main(args):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
            False,
            "was killed by SIGKILL",
        ),
    ],
)
async def test_a_container_that_dies_under_its_work_is_answered_for(
    code: str, initialises: bool, how: str
) -> None:
    async with stage(code) as s:
        await s.serving()
        s.deliver("a1")
        result = await s.result("a1")
        assert result.outcome == Outcome.DEVELOPER_ERROR
        assert error_of(result) == runtime_protocol_error(initialises)
        await s.gone()
        lines = await s.logs("a1")
        assert lines[-2:] == [
            f"stderr: The container failed: it {how}.",
            f"stderr: {log_collection.AFTER_FAILURE}",
        ]
        assert s.invoker._containers == {}


def runtime_protocol_error(initialises: bool) -> str:
    return str(json.loads(runtime_protocol.broke(initialises, False).result)["error"])


async def test_a_death_that_the_engine_cannot_explain_is_answered_for() -> None:
    async with stage("import os\ndef main(args):\n    os._exit(0)\n") as s:
        s.engine.ending_error = RuntimeError("planted")
        await s.serving()
        s.deliver("a1")
        assert (await s.result("a1")).outcome == Outcome.DEVELOPER_ERROR
        await s.gone()
        assert not [line for line in await s.logs("a1") if "planted" in line]


@pytest.mark.parametrize("sleeps", ["initialising", "running"])
async def test_a_run_past_its_limit_is_ended_with_its_container(sleeps: str) -> None:
    code = "import signal\nsignal.pause()\n"
    if sleeps == "running":
        code = "import signal\ndef main(args):\n    signal.pause()\n"
    async with stage(code, timeout_ms=100) as s:
        await s.serving()
        s.deliver("a1")
        result = await s.result("a1")
        assert result.timed_out
        assert result.outcome == Outcome.DEVELOPER_ERROR
        where = " during initialization." if sleeps == "initialising" else "."
        assert error_of(result) == f"The action exceeded its time limits of 100 milliseconds{where}"
        await s.gone()
        assert s.invoker.pool.used_mb() == 0


async def test_a_sandbox_that_cannot_be_started_fails_with_the_cause() -> None:
    async with stage(python="/nonexistent/python") as s:
        s.create()
        failed = await s.wait(CreationFailed)
        assert failed.failure == FailureClass.RECOVERABLE
        assert "/nonexistent/python" in failed.cause
        assert s.invoker.pool.used_mb() == 0
        assert s.invoker._containers == {}


@pytest.mark.parametrize("answer", [False, OSError("etcd is away")], ids=["gone", "silent"])
async def test_a_container_whose_reservation_is_not_confirmed_does_not_serve(
    answer: bool | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, str]] = []

    async def convert(container: str, spec: QueueSpec) -> bool:
        asked.append((container, spec.queue))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with stage() as s:
        s.invoker._convert = convert
        s.create()
        failed = await s.wait(CreationFailed)
        assert asked == [(failed.container, s.spec.queue)]
        assert failed.failure == FailureClass.RECOVERABLE
        assert "its reservation is gone" in failed.cause
        assert s.invoker.pool.used_mb() == 0
        assert s.invoker._containers == {}
        (sandbox,) = s.engine.sandboxes
        assert not Path(sandbox.socket_path).exists()
        assert ("etcd is away" in caplog.text) == isinstance(answer, Exception)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SandboxError("no image", final=True), FailureClass.FINAL),
        (ImageUnavailable("no image of the kind"), FailureClass.FINAL),
        (EngineUnavailable("no engine"), FailureClass.RECOVERABLE),
        (RuntimeError("can't start new thread"), FailureClass.RECOVERABLE),
    ],
)
async def test_whatever_a_start_raises_ends_the_creation(error: Exception, failure: int) -> None:
    async with stage() as s:
        s.engine.start_errors = [error]
        s.create()
        failed = await s.wait(CreationFailed)
        assert failed.failure == failure
        assert str(error) in failed.cause
        assert s.invoker.pool.used_mb() == 0
        await s.serving("c2")


@pytest.mark.parametrize("image", ["", "own/image"])
async def test_an_image_of_the_action_says_nothing_of_the_host(image: str) -> None:
    seen: list[tuple[Trial, InvocationResult]] = []
    async with stage() as s:
        s.invoker._observe = lambda trial, result: seen.append((trial, result))
        s.action = replace(s.action, exec=replace(s.action.exec, image=image))
        s.engine.start_errors = [SandboxError("it ended at its start")]
        s.create()
        await s.wait(CreationFailed)
        assert seen == ([] if image else [(Trial.CREATION, InvocationResult.SYSTEM_ERROR)])


async def test_a_creation_for_an_action_that_nobody_knows_ends() -> None:
    async with stage() as s:
        s.action_error = KeyError("guest/act@1")
        s.create()
        assert "guest/act@1" in (await s.wait(CreationFailed)).cause
        assert s.invoker.pool.used_mb() == 0


@pytest.mark.parametrize("how", ["nobody listens", "it closes at once"])
async def test_a_sandbox_that_takes_no_connection_is_removed(how: str, monkeypatch: Any) -> None:
    async with stage() as s:
        path = s.folder / "other.sock"
        if how == "it closes at once":
            listener = await asyncio.start_unix_server(lambda r, w: w.close(), str(path))
            open_connection = ContainerConnection.open

            async def open_and_lose(path: str, on_lost: Callable[[], None]) -> ContainerConnection:
                connection = await open_connection(path, on_lost)
                await until(lambda: connection.lost, "the loss")
                return connection

            monkeypatch.setattr(ContainerConnection, "open", open_and_lose)
        s.engine.socket_path = str(path)
        s.create()
        failed = await s.wait(CreationFailed)
        assert failed.failure == FailureClass.RECOVERABLE
        assert "does not accept connections" in failed.cause
        assert s.invoker.pool.used_mb() == 0
        assert list((s.folder / "sandboxes").iterdir()) == []
        if how == "it closes at once":
            listener.close()
            await listener.wait_closed()


@pytest.mark.parametrize(
    "error", [EngineUnavailable("no engine"), SandboxError("resists"), OSError("planted")]
)
async def test_a_removal_is_tried_until_it_succeeds(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoker, "REMOVE_RETRY_S", 0.005)
    async with stage() as s:
        await s.serving()
        s.engine.remove_errors = [error] * 3
        s.invoker.receive(Release("c1", "i0", EPOCH, "planted"))
        assert s.invoker.pool.used_mb() == 256, "until it is really gone"
        await s.gone()
        assert s.engine.remove_errors == []
        assert s.invoker.pool.used_mb() == 0


@pytest.mark.parametrize("fault", ["init_body", "run_body"])
async def test_a_fault_of_ours_ends_the_activation_and_its_container(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> bytes:
        raise ValueError("planted")

    async with stage() as s:
        await s.serving()
        monkeypatch.setattr(runtime_protocol, fault, broken)
        s.deliver("a1")
        result = await s.result("a1")
        assert result.outcome == Outcome.PLATFORM_ERROR
        assert "planted" in error_of(result)
        await s.gone()
        monkeypatch.undo()
        await s.serving("c2")
        s.deliver("a2", container="c2")
        assert (await s.result("a2")).outcome == Outcome.SUCCESS


async def test_logs_that_cannot_be_read_cost_only_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage() as s:
        await s.serving()
        (sandbox,) = s.engine.sandboxes

        def broken(now_ns: int) -> int:
            raise ValueError("planted")

        monkeypatch.setattr(sandbox.logs, "drain", broken)
        s.deliver("a1")
        await s.result("a1")
        await until(lambda: not s.invoker._logs.talking, "the end of listening")
        s.invoker.receive(Release("c1", "i0", EPOCH, "planted"))
        await s.gone()


async def test_a_log_without_its_end_is_given_up_after_the_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_collection, "GRACE_US", 20_000)
    code = (
        "import os\n"
        "def main(args):\n"
        "    print('said', flush=True)\n"
        "    for fd in range(3, 10):\n"
        "        try:\n"
        "            if 'std' in os.readlink(f'/proc/self/fd/{fd}'):\n"
        "                os.dup2(os.open('/dev/null', os.O_WRONLY), fd)\n"
        "        except OSError: pass\n"
        "    return {}\n"
    )
    async with stage(code) as s:
        await s.serving()
        s.deliver("a1")
        await s.result("a1")
        assert await s.logs("a1") == ["stdout: said", f"stderr: {log_collection.INCOMPLETE}"]


async def test_drain_lets_the_run_end_and_removes_everything() -> None:
    async with stage(WAITS) as s:
        await s.serving("c1")
        await s.serving("c2")
        go = Gate(s.folder / "go")
        s.deliver("a1", {"go": str(go)})
        draining = asyncio.ensure_future(s.invoker.drain())
        await s.wait(ContainerGone)
        assert not draining.done()
        go.open()
        assert (await s.result("a1")).outcome == Outcome.SUCCESS
        await draining
        assert s.invoker._containers == {}
        assert [line for line in await s.logs("a1") if "Data might" in line] == []
        s.create("c3")
        assert "draining" in (await s.wait(CreationFailed)).cause


async def test_a_drain_with_a_limit_gives_up_what_still_runs() -> None:
    async with stage("import signal\ndef main(args):\n    signal.pause()\n") as s:
        await s.serving()
        s.deliver("a1")
        await s.invoker.drain(limit_us=50_000)
        result = await s.result("a1")
        assert result.outcome == Outcome.PLATFORM_ERROR
        assert not result.timed_out
        assert error_of(result) == "The action was aborted: its invoker stops."
        assert s.invoker._containers == {}


# --- sleep ---------------------------------------------------------------------------------------

SLEEPY: dict[str, Any] = {"pause_grace_us": 1_000}


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_an_idle_container_sleeps_and_is_woken() -> None:
    async with stage(pool=SLEEPY) as s:
        await s.asleep()
        # A process that just runs takes the signal a little later.
        await until(lambda: state_of(s.pid()) == "T", "the stop")
        assert len(s.sent(ContainerPaused)) == 1
        offers = len(s.sent(Pulled))
        s.resume()
        await s.wait(Pulled, offers + 1)
        s.deliver("a2", {"n": 2})
        assert (await s.result("a2")).response == b'{"n":2}'


async def test_a_delivery_that_crosses_the_pause_runs() -> None:
    async with stage(pool=SLEEPY) as s:
        s.engine.may_pause.clear()
        await s.serving()
        s.deliver("a1")
        await s.wait(ContainerPaused)
        s.deliver("a2", {"n": 2})
        assert [r.activation_id for r in s.sent(Result)] == ["a1"]
        s.engine.may_pause.set()
        assert (await s.result("a2")).response == b'{"n":2}'


@pytest.mark.parametrize("error", [EngineUnavailable("no engine"), OSError("planted")])
async def test_a_container_that_cannot_be_paused_is_given_up(error: Exception) -> None:
    async with stage(pool=SLEEPY) as s:
        s.engine.pause_errors = [error]
        await s.serving()
        s.deliver("a1")
        leaving = await s.wait(ContainerLeaving)
        assert leaving.cause == f"the engine could not pause it: {error}"
        await s.gone()


async def test_a_container_that_cannot_be_resumed_gives_its_work_back() -> None:
    async with stage(pool=SLEEPY) as s:
        await s.asleep()
        s.engine.resume_errors = [SandboxError("planted")]
        s.deliver("a2")
        assert (await s.wait(Returned)).activation_ids == ("a2",)
        assert s.sent(ContainerLeaving)[0].cause == "the engine could not resume it: planted"
        await s.gone()


async def test_an_engine_that_does_not_answer_a_pause_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invoker, "PAUSE_S", 0.02)
    async with stage(pool=SLEEPY) as s:
        s.engine.may_pause.clear()
        await s.serving()
        s.deliver("a1")
        leaving = await s.wait(ContainerLeaving)
        assert leaving.cause == "the engine did not pause it within 0.02 s"
        await s.gone()


@pytest.mark.parametrize("paused", [True, False])
async def test_a_sleeping_container_is_removed_without_being_woken(paused: bool) -> None:
    async with stage(pool=SLEEPY) as s:
        if paused:
            await s.asleep()
        else:  # on its way there
            s.engine.may_pause.clear()
            await s.serving()
            s.deliver("a1")
            await s.wait(ContainerPaused)
        s.invoker.receive(Release("c1", "i0", EPOCH, "planted"))
        await s.wait(ContainerGone)
        s.engine.may_pause.set()
        await s.gone()
        assert s.sent(ContainerGone)[0].cause == "planted"
        assert s.invoker.pool.used_mb() == 0


async def test_a_container_that_is_killed_in_its_sleep_leaves() -> None:
    async with stage(pool=SLEEPY) as s:
        await s.asleep()
        os.kill(s.pid(), signal.SIGKILL)
        leaving = await s.wait(ContainerLeaving)
        assert leaving.cause == "its connection ended while it was idle"
        await s.gone()


# --- prewarmed sandboxes -------------------------------------------------------------------------

WARM: dict[str, Any] = {"prewarm": (Prewarm("python:3", 256),)}


async def test_a_prewarmed_sandbox_becomes_the_container() -> None:
    async with stage(
        "def main(args):\n    print('x' * 2_000_000)\n    return args\n", pool=WARM
    ) as s:
        await s.prewarmed()
        (sandbox,) = s.engine.sandboxes
        s.create()
        assert len(s.sent(ContainerServing)) == 1, "at once"
        s.deliver("a1", {"n": 1})
        assert (await s.result("a1")).response == b'{"n":1}'
        logs = await s.logs("a1")
        assert sum(map(len, logs)) < 1_100_000, "the limit of the action's logs holds"
        await until(lambda: len(s.engine.sandboxes) == 2, "another one")
        os.kill(s.pid(sandbox.spec.container), signal.SIGKILL)
        leaving = await s.wait(ContainerLeaving)
        assert leaving.container == "c1"
        assert leaving.cause == "its connection ended while it was idle"
        await s.gone()
        await s.prewarmed()


async def test_a_prewarmed_sandbox_serves_when_its_reservation_is_confirmed() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    answers: asyncio.Queue[bool] = asyncio.Queue()

    async def convert(container: str, spec: QueueSpec) -> bool:
        await asked.put(container)
        return await answers.get()

    async with stage(pool=WARM) as s:
        s.invoker._convert = convert
        await s.prewarmed()
        assert asked.empty(), "it is nobody's yet"
        s.create()
        assert await asked.get() == "c1"
        assert s.sent(ContainerServing) + s.sent(Pulled) == []
        answers.put_nowait(True)
        await s.wait(ContainerServing)
        await s.wait(Pulled)
        s.deliver("a1", {"n": 1})
        assert (await s.result("a1")).response == b'{"n":1}'

        await s.prewarmed()
        s.create("c2")
        assert await asked.get() == "c2"
        answers.put_nowait(False)
        failed = await s.wait(CreationFailed)
        assert (failed.container, failed.failure) == ("c2", FailureClass.RECOVERABLE)
        assert "its reservation is gone" in failed.cause
        assert [each.container for each in s.sent(ContainerServing)] == ["c1"]
        assert "c2" not in s.invoker._containers
        assert s.invoker.pool.used_mb() == 256, "of c1"


async def test_prewarmed_sandboxes_have_names_that_no_other_start_has() -> None:
    async with stage(pool=WARM) as one, stage(pool=WARM) as other:
        await one.prewarmed()
        await other.prewarmed()
        names = {s.engine.sandboxes[0].spec.container for s in (one, other)}
        assert len(names) == 2


async def test_a_prewarmed_sandbox_that_dies_is_replaced() -> None:
    async with stage(pool=WARM) as s:
        await s.prewarmed()
        os.kill(s.pid(s.engine.sandboxes[0].spec.container), signal.SIGKILL)
        await until(lambda: len(s.engine.sandboxes) == 2, "another one")
        assert s.sent(ContainerGone) == [], "it was nobody's"


async def test_a_prewarmed_sandbox_that_cannot_be_started_is_tried_again() -> None:
    async with stage(pool=WARM) as s:
        s.engine.start_errors = [SandboxError("planted"), RuntimeError("planted")]
        await s.prewarmed()
        assert s.engine.start_errors == []


async def test_a_prewarmed_sandbox_for_an_action_that_nobody_knows_is_removed() -> None:
    async with stage(pool=WARM) as s:
        await s.prewarmed()
        s.action_error = KeyError("guest/act@1")
        s.create()
        failed = await s.wait(CreationFailed)
        assert (failed.container, failed.failure) == ("c1", FailureClass.RECOVERABLE)
        assert "guest/act@1" in failed.cause
        assert "c1" not in s.invoker._containers
        await s.prewarmed()


async def test_a_drain_takes_prewarmed_sandboxes_along_and_starts_no_more() -> None:
    async with stage(pool={"prewarm": (Prewarm("python:3", 128, 3, count_max=3),)}) as s:
        await s.prewarmed()
        await s.invoker.drain()
        assert s.invoker._containers == {}
        assert s.invoker.pool.used_mb() == 0, "no other one was started in their place"


async def test_close_leaves_nothing_also_in_the_middle_of_starts_and_runs() -> None:
    async with stage("import signal\ndef main(args):\n    signal.pause()\n") as s:
        await s.serving("c1")
        s.deliver("a1")
        s.create("c2")
        pid = s.pid("c1")
    assert not Path(f"/proc/{pid}").exists()


async def test_a_container_that_close_removes_is_no_news() -> None:
    async with stage() as s:
        await s.serving()
        said = list(s.said)
    await until(lambda: len(asyncio.all_tasks()) == 1, "the end of all tasks")
    assert s.said == said, "its end was told, and it was removed once more"


async def test_messages_that_are_not_for_an_invoker_are_refused() -> None:
    async with stage() as s:
        with pytest.raises(TypeError, match="Submit is no message for an invoker"):
            s.invoker.receive(Submit(s.spec, Activation("a", b"", 0)))


# Several runs in one container

MEET = """
import asyncio, os
met = []
came = asyncio.Condition()
async def main(args):
    async with came:
        met.append(args["n"])
        if args.get("die") and len(met) == args["die"]:
            os._exit(3)
        came.notify_all()
        await came.wait_for(lambda: len(met) >= args["meet"])
    return {"n": args["n"]}
"""


async def begun(s: Stage, *arguments: dict[str, int]) -> None:
    """Initialise a container with a first run, and deliver what is to run at once."""
    await s.serving()
    s.deliver("a0", {"n": 0, "meet": 1})
    await s.result("a0")
    for number, value in enumerate(arguments, 1):
        s.deliver(f"a{number}", value)


async def test_runs_of_an_async_function_overlap() -> None:
    async with stage(MEET, concurrency=3) as s:
        await begun(s, *({"n": n, "meet": 4} for n in (1, 2, 3)))
        for n in (1, 2, 3):
            result = await s.result(f"a{n}")
            assert json.loads(result.response) == {"n": n}
            assert await s.logs(f"a{n}") == []
        s.deliver("a4", {"n": 4, "meet": 5})
        assert (await s.result("a4")).outcome == Outcome.SUCCESS
        s.invoker.pool.check()


async def test_runs_of_a_function_that_cannot_overlap_take_turns() -> None:
    code = "ran = []\ndef main(args):\n    ran.append(1)\n    return {'ran': len(ran)}\n"
    async with stage(code, concurrency=3) as s:
        await s.serving()
        s.deliver("a0")
        await s.result("a0")
        for n in (1, 2, 3):
            s.deliver(f"a{n}")
        results = [json.loads((await s.result(f"a{n}")).response) for n in (1, 2, 3)]
        assert results == [{"ran": 2}, {"ran": 3}, {"ran": 4}]


async def test_all_runs_of_a_container_that_dies_are_answered() -> None:
    async with stage(MEET, concurrency=3) as s:
        await begun(s, *({"n": n, "meet": 9, "die": 4} for n in (1, 2, 3)))
        for n in (1, 2, 3):
            result = await s.result(f"a{n}")
            assert result.outcome == Outcome.DEVELOPER_ERROR
            assert b"exited unexpectedly" in result.response
        await s.gone()


async def test_a_run_that_takes_too_long_takes_no_other_with_it() -> None:
    async with stage(MEET, concurrency=2, timeout_ms=2_000) as s:
        await begun(s, {"n": 1, "meet": 4})
        late = await s.result("a1")
        assert late.timed_out
        await s.gone()
        assert len(s.sent(Result)) == 2


async def test_a_connection_that_cannot_be_opened_only_delays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(MEET, concurrency=2) as s:
        await begun(s)
        monkeypatch.setattr(invoker, "_connect", refuse)
        s.deliver("a1", {"n": 1, "meet": 2})
        s.deliver("a2", {"n": 2, "meet": 2})
        for n in (1, 2):
            assert json.loads((await s.result(f"a{n}")).response) == {"n": n}


async def refuse(*_: object) -> ContainerConnection:
    raise ConnectionRefusedError("no more of them")
