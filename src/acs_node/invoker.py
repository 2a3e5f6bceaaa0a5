"""An invoker as a node: the container pool with sandboxes, their connections and logs.

What happens to a container is decided by ``acs_core.containers``; this carries it out: starts,
pauses, resumes and removes sandboxes, sends ``/init`` and ``/run``, hands results to the
controller and logs after them.  A result is sent before the container pulls again; logs are
collected on a tick, so that neither the reply nor the container waits for them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace

from acs_core.containers import ContainerPool, PoolConfig
from acs_core.effects import (
    Abort,
    AssignSandbox,
    Initialise,
    PauseSandbox,
    PrewarmSandbox,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from acs_core.engine_speed import EngineSpeed
from acs_core.events import (
    Activation,
    Adopted,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    DrainRequested,
    Event,
    FailureClass,
    Initialised,
    InvokerReported,
    Pulled,
    QueueSpec,
    Returned,
    RunEnded,
    SandboxBroke,
    SandboxFailed,
    SandboxPaused,
    SandboxReady,
    SandboxRemoved,
    SandboxResumed,
    TimeReached,
)

from . import clock, runtime_protocol
from .container_connection import ContainerConnection
from .entity_types import Action, has_network
from .links import Link, Logs, Result
from .runtime_protocol import Response
from .sandboxes import Sandbox, SandboxEngine, SandboxError, SandboxSpec
from .stepper import Stepper
from .waits import WaitHistogram

log = logging.getLogger(__name__)

LOG_TICK_S = 0.02
"""How often the logs of busy containers are read: a pipe of 1 MiB takes 50 MB/s in between."""

LOG_GRACE_US = 2_000_000
"""How long the end of a log is waited for after the result, as upstream."""

REMOVE_RETRY_S = 1.0
"""Between two tries to remove a sandbox that the engine could not remove."""

PAUSE_S = 30.0
"""How long an engine may take to pause or to resume; then the container is given up.  Four starts
that come first take 0.6 s."""

LOGS_INCOMPLETE = "There was an issue while collecting your logs. Data might be missing."
LOGS_AFTER_FAILURE = "The action did not initialize or run as expected. Log data might be missing."
CONTAINER_FAILED = "The container failed: it {}."
"""The error of the result is OpenWhisk's, and does not say why."""


@dataclass(slots=True, eq=False)
class _Container:
    """A container with its sandbox.  ``activation`` is what runs in it, if anything does.

    ``spec`` and ``action`` are not set while it is prewarmed, for nobody yet.
    """

    name: str
    spec: QueueSpec = field(init=False, repr=False)
    action: Action = field(init=False, repr=False)
    sandbox: Sandbox | None = None
    connection: ContainerConnection | None = None
    activation: Activation | None = None
    initialising: bool = False
    started_us: int = 0
    started_ms: int = 0
    wait_us: int = 0
    init_us: int = 0
    # How it ended under its last run, if it did.
    failed: str = ""
    # Ended runs whose logs were not handed on, with the time until which they are waited for.
    unlogged: list[tuple[str, int]] = field(default_factory=list)


class Invoker:
    """Runs one ``ContainerPool``; ``receive`` takes everything that links bring.

    ``action_of`` returns the action of an open queue; ``environment`` is given to every
    sandbox.  ``convert`` is asked, where there are other nodes, before a container serves: False
    when its reservation is gone.
    """

    def __init__(
        self,
        config: PoolConfig,
        engine: SandboxEngine,
        action_of: Callable[[str], Action],
        environment: Mapping[str, str],
        convert: Callable[[str, QueueSpec], Awaitable[bool]] | None = None,
    ) -> None:
        self.pool = ContainerPool(config)
        self.waits = WaitHistogram()
        self._config = config
        self._engine = engine
        self._action_of = action_of
        self._environment = environment
        self._convert = convert
        self._scheduler: Link | None = None
        self._controller: Link | None = None
        self._containers: dict[str, _Container] = {}
        # Containers that run something or owe a log; read on every tick.
        self._talking: dict[str, _Container] = {}
        # What was read of them and not handed on yet.
        self._collected: list[tuple[str, list[str]]] = []
        self._tick: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._speed = EngineSpeed()
        self._draining = False
        # The pool's names of prewarmed sandboxes begin anew with each start; an engine's must not.
        self._prewarm_names = map(f"p{secrets.token_hex(4)}-{{}}".format, itertools.count(1))
        # One after the other, so that those that somebody waits for do not wait for many.
        self._prewarming = asyncio.Semaphore(1)
        to_scheduler = (
            Pulled,
            Returned,
            ContainerServing,
            ContainerPaused,
            ContainerLeaving,
            ContainerGone,
            CreationFailed,
            Adopted,
        )
        self._stepper = Stepper(
            self.pool,
            {
                **dict.fromkeys(to_scheduler, self._to_scheduler),
                Run: self._run,
                Initialise: self._initialise,
                StartSandbox: self._start_sandbox,
                PrewarmSandbox: self._prewarm_sandbox,
                AssignSandbox: self._assign_sandbox,
                PauseSandbox: self._pause_sandbox,
                ResumeSandbox: self._resume_sandbox,
                Remove: self._remove,
                Abort: self._abort,
            },
            self._failed,
        )

    def connect(self, scheduler: Link, controller: Link) -> None:
        """Set the links on which this node speaks, and start what is to be prewarmed."""
        self._scheduler = scheduler
        self._controller = controller
        self._stepper.step(TimeReached())

    def receive(self, message: object) -> None:
        """Take an effect of a scheduler that is meant for an invoker."""
        if not isinstance(message, Event):
            raise TypeError(f"{type(message).__name__} is no message for an invoker")
        self._stepper.step(message)

    def report(self) -> InvokerReported:
        """Return what a scheduler wants to know of this invoker."""
        return InvokerReported(
            self._config.invoker,
            self._config.memory_mb,
            creation_us=self._speed.creation_us,
            creations_per_s=self._speed.creations_per_s,
        )

    async def drain(self, limit_us: int = 0) -> None:
        """Take no more work and wait until every run has ended and every container is gone.

        What still runs after ``limit_us`` is given up; 0: each run has its own limit.
        """
        self._draining = True
        self._stepper.step(DrainRequested(limit_us))
        while self._containers or self._tasks:
            # Runs end by themselves or at their time limit, so this does end.
            await asyncio.wait(
                [*self._tasks, asyncio.ensure_future(asyncio.sleep(LOG_TICK_S))],
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def close(self) -> None:
        """Stop at once: end tasks, answer nothing more, remove every sandbox."""
        self._stepper.close()
        if self._tick is not None:
            self._tick.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for container in self._containers.values():
            # The engine ends them next: that is news to nobody.
            connection, container.connection = container.connection, None
            if connection is not None:
                connection.close()
        await self._engine.close()

    # --- runs: the hot path --------------------------------------------------------------------

    def _to_scheduler(self, event: Event) -> None:
        assert self._scheduler is not None
        self._scheduler.send(event)

    def _run(self, effect: Run) -> None:
        name = effect.container
        container = self._containers[name]
        activation = effect.activation
        now_us = clock.now_us()
        now_ms = clock.wall_ms()
        if container.activation is None:  # not the one that was initialised for
            container.activation = activation
            container.started_ms = now_ms
            container.wait_us = now_us - activation.arrived_us
            container.init_us = 0
            self.waits.add(container.wait_us)
            self._listen(name, container)
        container.initialising = False
        container.started_us = now_us
        deadline_ms = now_ms + container.spec.timeout_us // 1000
        body = runtime_protocol.run_body(activation.payload, deadline_ms)
        connection = container.connection
        if connection is not None:
            connection.post(
                b"/run",
                body,
                lambda status, reply, size: self._on_run(name, container, status, reply, size),
            )

    def _on_run(
        self, name: str, container: _Container, status: int, body: bytes, size: int
    ) -> None:
        if container.activation is not None:  # else it was given up
            self._end(name, container, runtime_protocol.run_response(status, body, size))

    def _end(
        self, name: str, container: _Container, response: Response, *, timed_out: bool = False
    ) -> None:
        """Hand on the result of what runs in the container, then let the pool know."""
        activation = container.activation
        assert activation is not None
        container.activation = None
        now_us = clock.now_us()
        run_us = now_us - container.started_us
        initialising = container.initialising
        init_us = run_us if initialising else container.init_us
        logs_follow = container.action.limits.logs_mb > 0 and container.sandbox is not None
        assert self._controller is not None
        self._controller.send(
            Result(
                activation.activation_id,
                response.outcome,
                response.result,
                container.started_ms,
                container.wait_us,
                init_us,
                run_us if initialising else container.init_us + run_us,
                timed_out,
                logs_follow,
            )
        )
        if logs_follow:
            container.unlogged.append((activation.activation_id, now_us + LOG_GRACE_US))
        self._stepper.step(
            RunEnded(
                name, activation.activation_id, 0 if initialising else run_us, response.outcome
            )
        )

    # --- initialisation ------------------------------------------------------------------------

    def _initialise(self, effect: Initialise) -> None:
        name = effect.container
        container = self._containers[name]
        activation = effect.activation
        now_us = clock.now_us()
        container.activation = activation
        container.initialising = True
        container.started_us = now_us
        container.started_ms = clock.wall_ms()
        container.wait_us = now_us - activation.arrived_us
        container.init_us = 0
        if container.sandbox is not None:
            container.sandbox.logs.limit_bytes = container.action.limits.logs_mb * 1024 * 1024
        self._listen(name, container)
        body = runtime_protocol.init_body(
            container.action,
            container.spec.namespace,
            activation.activation_id,
            runtime_protocol.transaction_id_of(activation.payload),
            container.started_ms + container.spec.timeout_us // 1000,
            runtime_protocol.api_key_of(activation.payload),
        )
        connection = container.connection
        if connection is not None:
            connection.post(
                b"/init",
                body,
                lambda status, reply, size: self._on_init(name, container, status, reply, size),
            )

    def _on_init(
        self, name: str, container: _Container, status: int, body: bytes, size: int
    ) -> None:
        if container.activation is None:
            return
        response = runtime_protocol.init_response(status, body, size)
        if response is not None:
            self._end(name, container, response)
            return
        container.init_us = clock.now_us() - container.started_us
        self._stepper.step(Initialised(name, container.init_us))

    def _abort(self, effect: Abort) -> None:
        container = self._containers[effect.container]
        if container.activation is None:
            return
        if effect.drained:
            self._end(effect.container, container, runtime_protocol.drained())
        else:
            response = runtime_protocol.timed_out(effect.timeout_us // 1000, container.initialising)
            self._end(effect.container, container, response, timed_out=True)

    # --- the life of sandboxes -----------------------------------------------------------------

    def _start_sandbox(self, effect: StartSandbox) -> None:
        container = _Container(effect.container)
        self._belongs_to(container, effect.spec)
        action = container.action
        spec = self._sandbox_spec(effect.container, action.exec.kind, effect.spec.memory_mb)
        self._start(self._create(container, replace(spec, network=has_network(action))))

    def _prewarm_sandbox(self, effect: PrewarmSandbox) -> None:
        self._start(self._prewarm(_Container(effect.container), effect.kind, effect.memory_mb))

    async def _prewarm(self, container: _Container, kind: str, memory_mb: int) -> None:
        async with self._prewarming:
            if self._draining:
                failure = FailureClass.RECOVERABLE
                self._stepper.step(SandboxFailed(container.name, failure, "the invoker drains"))
            else:
                spec = self._sandbox_spec(next(self._prewarm_names), kind, memory_mb)
                await self._create(container, spec)

    def _assign_sandbox(self, effect: AssignSandbox) -> None:
        container = self._containers.pop(effect.sandbox)
        container.name = effect.container
        self._containers[effect.container] = container
        self._belongs_to(container, effect.spec)

    def _belongs_to(self, container: _Container, spec: QueueSpec) -> None:
        """Say whose container it is.  Raises: whatever ``action_of`` does."""
        container.spec = spec
        container.action = self._action_of(spec.queue)

    def _sandbox_spec(self, name: str, kind: str, memory_mb: int) -> SandboxSpec:
        return SandboxSpec(name, kind, memory_mb, self._environment)

    async def _create(self, container: _Container, spec: SandboxSpec) -> None:
        """Start the sandbox of a container, connect to it, and tell the pool."""
        name = container.name
        self._containers[name] = container
        self._speed.begin(spec.container, clock.now_us())
        failure = await self._start_and_connect(container, spec)
        self._speed.end(spec.container, clock.now_us(), created=failure is None)
        if failure is not None:
            self._creation_failed(name, *failure)
            return
        self._to_scheduler(self.report())
        self._stepper.step(SandboxReady(name))

    async def _start_and_connect(
        self, container: _Container, spec: SandboxSpec
    ) -> tuple[FailureClass, str] | None:
        """Give the container its sandbox and connection; return why not, if it has none."""
        try:
            sandbox = await self._engine.start(spec)
        except SandboxError as error:
            return (FailureClass.FINAL if error.final else FailureClass.RECOVERABLE), str(error)
        except Exception as error:
            # Whatever it is: a creation without an end would hold its memory for ever.
            log.exception("container %s was not created", container.name)
            return FailureClass.RECOVERABLE, f"the invoker failed: {error!r}"
        container.sandbox = sandbox
        try:
            container.connection = await ContainerConnection.open(
                sandbox.socket_path, lambda: self._on_lost(container)
            )
            if container.connection.lost:
                raise ConnectionResetError("it closed the first connection")
        except OSError as error:
            container.sandbox = container.connection = None
            await self._removed(container.name, sandbox)
            text = f"container {container.name} does not accept connections: {error}"
            return FailureClass.RECOVERABLE, text
        if self._convert is not None and not await self._may_serve(container):
            connection = container.connection
            container.connection = None
            if connection is not None:
                connection.close()
            container.sandbox = None
            await self._removed(container.name, sandbox)
            return FailureClass.RECOVERABLE, "its reservation is gone, or cannot be confirmed"
        return None

    async def _may_serve(self, container: _Container) -> bool:
        assert self._convert is not None
        try:
            return await self._convert(container.name, container.spec)
        except Exception as error:
            log.warning("container %s is not confirmed: %s", container.name, error)
            return False

    def _creation_failed(self, name: str, failure: FailureClass, cause: str) -> None:
        log.warning("container %s was not created: %s", name, cause)
        self._containers.pop(name, None)
        self._stepper.step(SandboxFailed(name, failure, cause))

    def _on_lost(self, container: _Container) -> None:
        """The connection to a container ended: by our removal, or because it died."""
        if container.connection is None:
            return
        container.connection = None
        name = container.name
        if container.activation is None:
            # At once: what is delivered from now on is given back, and runs elsewhere.
            self._stepper.step(SandboxBroke(name, "its connection ended while it was idle"))
        else:
            self._start(self._find_out(name, container))

    async def _find_out(self, name: str, container: _Container) -> None:
        """Answer for the run of a container that died, and tell the pool."""
        cause, out_of_memory = "closed its connection", False
        if container.sandbox is not None:
            try:
                ending = await self._engine.ending(container.sandbox)
                cause, out_of_memory = ending.cause, ending.out_of_memory
            except Exception as error:
                # What engines say names the platform's files: it is for its operator.
                log.warning("how container %s ended is not known: %s", name, error)
                cause = "ended, and its engine does not say why"
        if container.activation is not None:
            log.info("container %s %s during a run", name, cause)
            container.failed = cause
            self._end(
                name, container, runtime_protocol.broke(container.initialising, out_of_memory)
            )
        self._stepper.step(SandboxBroke(name, cause))

    def _pause_sandbox(self, effect: PauseSandbox) -> None:
        done = SandboxPaused(effect.container)
        self._start(self._call(effect.container, "pause", self._engine.pause, done))

    def _resume_sandbox(self, effect: ResumeSandbox) -> None:
        done = SandboxResumed(effect.container)
        self._start(self._call(effect.container, "resume", self._engine.resume, done))

    async def _call(
        self, name: str, verb: str, call: Callable[[Sandbox], Awaitable[None]], done: Event
    ) -> None:
        """Have the engine do something with a container, and tell the pool how that ended."""
        container = self._containers[name]
        sandbox = container.sandbox
        assert sandbox is not None
        try:
            async with asyncio.timeout(PAUSE_S):
                await call(sandbox)
        except TimeoutError:
            cause = f"the engine did not {verb} it within {PAUSE_S:g} s"
        except Exception as error:
            cause = f"the engine could not {verb} it: {error}"
        else:
            self._stepper.step(done)
            return
        if container.sandbox is sandbox:  # else it is being removed, and that was the reason
            log.warning("container %s is given up: %s", name, cause)
            self._stepper.step(SandboxBroke(name, cause))

    def _remove(self, effect: Remove) -> None:
        self._start(self._remove_sandbox(effect.container, effect.cause))

    async def _remove_sandbox(self, name: str, cause: str) -> None:
        container = self._containers[name]
        connection, container.connection = container.connection, None
        if connection is not None:
            connection.close()
        try:
            self._last_logs(name, container)
        except Exception:
            log.exception("the last logs of container %s are lost", name)
        sandbox, container.sandbox = container.sandbox, None
        if sandbox is not None:
            await self._removed(name, sandbox)
        log.debug("container %s is gone: %s", name, cause)
        del self._containers[name]
        self._stepper.step(SandboxRemoved(name))

    async def _removed(self, name: str, sandbox: Sandbox) -> None:
        """Remove the sandbox, however often that must be tried.

        Its memory stays in the account until it is really gone.
        """
        while True:
            try:
                await self._engine.remove(sandbox)
                return
            except SandboxError as error:
                log.warning("container %s is not removed yet: %s", name, error)
            except Exception:
                log.exception("container %s is not removed yet", name)
            await asyncio.sleep(REMOVE_RETRY_S)

    # --- logs ----------------------------------------------------------------------------------

    def _listen(self, name: str, container: _Container) -> None:
        """Have the container's logs read from the next tick on."""
        if container.sandbox is None:
            return
        self._talking[name] = container
        if self._tick is None:
            self._tick = self._loop.call_later(LOG_TICK_S, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        now_ns = clock.wall_ns()
        now_us = clock.now_us()
        for name, container in list(self._talking.items()):
            try:
                self._collect(container, now_ns, now_us)
            except Exception:
                log.exception("the logs of container %s are lost", name)
                container.unlogged.clear()
            if container.activation is None and not container.unlogged:
                del self._talking[name]
        self._send_logs()
        if self._talking:
            self._tick = self._loop.call_later(LOG_TICK_S, self._on_tick)

    def _collect(self, container: _Container, now_ns: int, now_us: int) -> None:
        sandbox = container.sandbox
        if sandbox is None:
            return
        logs = sandbox.logs
        logs.drain(now_ns)
        told = 0
        for activation_id, until_us in container.unlogged:
            lines = logs.next_log()
            if lines is None:
                if now_us < until_us:
                    break
                lines = [*logs.take_rest(now_ns), logs.stderr_line(LOGS_INCOMPLETE, now_ns)]
            told += 1
            self._collected.append((activation_id, lines))
        del container.unlogged[:told]

    def _last_logs(self, name: str, container: _Container) -> None:
        """Hand on what a container that goes has printed, for the run that it ended with."""
        self._talking.pop(name, None)
        sandbox = container.sandbox
        if sandbox is None:
            return
        now_ns = clock.wall_ns()
        self._collect(container, now_ns, clock.now_us())
        for activation_id, _ in container.unlogged:
            lines = sandbox.logs.take_rest(now_ns)
            if container.failed:
                said = CONTAINER_FAILED.format(container.failed)
                lines.append(sandbox.logs.stderr_line(said, now_ns))
            lines.append(sandbox.logs.stderr_line(LOGS_AFTER_FAILURE, now_ns))
            self._collected.append((activation_id, lines))
        container.unlogged.clear()
        self._send_logs()

    def _send_logs(self) -> None:
        if self._collected:
            assert self._controller is not None
            self._controller.send(Logs(self._collected))
            self._collected = []

    # --- faults of ours ------------------------------------------------------------------------

    def _failed(self, effect: object, cause: str) -> None:
        """Answer for what an effect that was not carried out was about."""
        if isinstance(effect, (Run, Initialise)):
            container = self._containers[effect.container]
            container.activation = effect.activation
            response = runtime_protocol.failure(
                runtime_protocol.PLATFORM_ERROR, f"The invoker failed: {cause}"
            )
            self._end(effect.container, container, response)
        elif isinstance(effect, StartSandbox):
            text = f"the invoker failed: {cause}"
            self._creation_failed(effect.container, FailureClass.RECOVERABLE, text)
        elif isinstance(effect, AssignSandbox):
            self._stepper.step(SandboxBroke(effect.container, f"the invoker failed: {cause}"))

    # --- tasks ---------------------------------------------------------------------------------

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the invoker lost a task", exc_info=task.exception())
