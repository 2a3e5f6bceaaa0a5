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
from dataclasses import replace
from functools import partial

from acs_core.containers import ContainerPool
from acs_core.effects import (
    Abort,
    AssignSandbox,
    Initialise,
    PauseSandbox,
    PrewarmSandbox,
    Reject,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from acs_core.engine_speed import EngineSpeed
from acs_core.events import (
    Adopted,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    DrainRequested,
    Event,
    FailureClass,
    IdleHeld,
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
from acs_core.health import Trial
from acs_core.sharding_feed import Acknowledged, FedPool
from acs_core.sharding_supervision import InvocationResult

from . import clock, runtime_protocol
from .container_connection import ContainerConnection, ContainerConnections, FreshConnections
from .entity_types import Action, has_network
from .invoker_container import Container, RunningActivation
from .links import Link, Logs, Result
from .log_collection import LogCollection
from .runtime_protocol import Response
from .sandboxes import ImageUnavailable, Sandbox, SandboxEngine, SandboxError, SandboxSpec
from .stepper import Stepper
from .waits import WaitHistogram

log = logging.getLogger(__name__)

REMOVE_RETRY_S = 1.0
"""Between two tries to remove a sandbox that the engine could not remove."""

LOOK_S = 0.02
"""Between two looks whether a drain is over."""

PAUSE_S = 30.0
"""How long an engine may take to pause or to resume; then the container is given up.  Four starts
that come first take 0.6 s."""

UNRESERVED = FailureClass.RECOVERABLE, "its reservation is gone, or cannot be confirmed"
"""Why a container may not serve that has lost its place while it was created."""


_GOOD = InvocationResult.SUCCESS
_BAD = InvocationResult.SYSTEM_ERROR


class Invoker:
    """Runs one ``pool``; ``receive`` takes everything that links bring.

    ``action_of`` returns the action of an open queue; ``environment`` is given to every
    sandbox.  ``convert`` is asked, where there are other nodes, before a container serves: False
    when its reservation is gone.  ``observe`` is told what became of creations and runs, as far
    as that says something of this host and its engine.  ``logs`` is given where invokers of one
    process share it, None: this one has its own.
    """

    def __init__(
        self,
        pool: ContainerPool | FedPool,
        engine: SandboxEngine,
        action_of: Callable[[str], Action],
        environment: Mapping[str, str],
        convert: Callable[[str, QueueSpec], Awaitable[bool]] | None = None,
        observe: Callable[[Trial, InvocationResult], None] | None = None,
        logs: LogCollection | None = None,
    ) -> None:
        self.pool = pool
        self.waits = WaitHistogram()
        self._engine = engine
        self._action_of = action_of
        self._environment = environment
        self._convert = convert
        self._observe = observe
        self._scheduler: Link | None = None
        self._controller: Link | None = None
        self._containers: dict[str, Container] = {}
        self._logs = logs or LogCollection(self._to_controller)
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
            Acknowledged,
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
                Reject: self._to_controller,
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
            self.pool.config.invoker,
            self.pool.config.memory_mb,
            creation_us=self._speed.creation_us,
            creations_per_s=self._speed.creations_per_s,
        )

    def hold_idle(self, on: bool) -> None:
        """Keep containers however long they idle, or no longer."""
        self._stepper.step(IdleHeld(on))

    async def drain(self, limit_us: int = 0) -> None:
        """Take no more work and wait until every run has ended and every container is gone.

        What still runs after ``limit_us`` is given up; 0: each run has its own limit.
        """
        self._draining = True
        self._stepper.step(DrainRequested(limit_us))
        while self._containers or self._tasks:
            # Runs end by themselves or at their time limit, so this does end.
            await asyncio.wait(
                [*self._tasks, asyncio.ensure_future(asyncio.sleep(LOOK_S))],
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def close(self) -> None:
        """Stop at once: end tasks, answer nothing more, remove every sandbox."""
        self._stepper.close()
        self._logs.close()
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

    def _to_controller(self, message: Reject | Logs) -> None:
        assert self._controller is not None
        self._controller.send(message)

    def _run(self, effect: Run) -> None:
        name = effect.container
        container = self._containers[name]
        activation = effect.activation
        now_us = clock.now_us()
        now_ms = clock.wall_ms()
        run = container.runs.get(activation.activation_id)
        if run is None:  # not the one that was initialised for
            run = RunningActivation(activation, now_us, now_ms, now_us - activation.arrived_us)
            container.runs[activation.activation_id] = run
            self.waits.add(run.wait_us)
            self._logs.listen(container)
        else:
            run.initialising = False
            run.started_us = now_us
        deadline_ms = now_ms + container.spec.timeout_us // 1000
        body = runtime_protocol.run_body(activation.payload, deadline_ms)
        connection = container.connection
        if connection is not None:
            connection.post(
                b"/run",
                body,
                lambda status, reply, size: self._on_run(name, container, run, status, reply, size),
            )

    def _on_run(
        self,
        name: str,
        container: Container,
        run: RunningActivation,
        status: int,
        body: bytes,
        size: int,
    ) -> None:
        if run.activation.activation_id in container.runs:  # else it was given up
            self._end(name, container, run, runtime_protocol.run_response(status, body, size))

    def _end(
        self,
        name: str,
        container: Container,
        run: RunningActivation,
        response: Response,
        *,
        timed_out: bool = False,
    ) -> None:
        """Hand on the result of what runs in the container, then let the pool know."""
        activation_id = run.activation.activation_id
        del container.runs[activation_id]
        now_us = clock.now_us()
        run_us = now_us - run.started_us
        initialising = run.initialising
        init_us = run_us if initialising else run.init_us
        logs_follow = container.action.limits.logs_mb > 0 and container.sandbox is not None
        assert self._controller is not None
        self._controller.send(
            Result(
                activation_id,
                response.outcome,
                response.result,
                run.started_ms,
                run.wait_us,
                init_us,
                run_us if initialising else run.init_us + run_us,
                timed_out,
                logs_follow,
            )
        )
        if self._observe is not None and not self._draining:
            failed = response.outcome == runtime_protocol.PLATFORM_ERROR
            self._observe(Trial.RUN, _BAD if failed else _GOOD)
        if logs_follow:
            self._logs.expect(container, activation_id, now_us)
        self._stepper.step(
            RunEnded(name, activation_id, 0 if initialising else run_us, response.outcome)
        )

    # --- initialisation ------------------------------------------------------------------------

    def _initialise(self, effect: Initialise) -> None:
        name = effect.container
        container = self._containers[name]
        activation = effect.activation
        now_us = clock.now_us()
        now_ms = clock.wall_ms()
        run = RunningActivation(
            activation, now_us, now_ms, now_us - activation.arrived_us, initialising=True
        )
        container.runs[activation.activation_id] = run
        sandbox, connection = container.sandbox, container.connection
        if sandbox is not None:
            sandbox.logs.limit_bytes = container.action.limits.logs_mb * 1024 * 1024
            if container.spec.concurrency > 1 and isinstance(connection, ContainerConnection):
                connection = container.connection = ContainerConnections(
                    connection, partial(_connect, sandbox)
                )
        self._logs.listen(container)
        body = runtime_protocol.init_body(
            container.action,
            container.spec.namespace,
            activation.activation_id,
            runtime_protocol.transaction_id_of(activation.payload),
            now_ms + container.spec.timeout_us // 1000,
            runtime_protocol.api_key_of(activation.payload),
        )
        if connection is not None:
            connection.post(
                b"/init",
                body,
                lambda status, reply, size: self._on_init(
                    name, container, run, status, reply, size
                ),
            )

    def _on_init(
        self,
        name: str,
        container: Container,
        run: RunningActivation,
        status: int,
        body: bytes,
        size: int,
    ) -> None:
        if run.activation.activation_id not in container.runs:
            return
        response = runtime_protocol.init_response(status, body, size)
        if response is not None:
            self._end(name, container, run, response)
            return
        connection = container.connection
        if isinstance(connection, ContainerConnections) and runtime_protocol.overlaps(body):
            connection.connections_max = container.spec.concurrency
        run.init_us = clock.now_us() - run.started_us
        self._stepper.step(Initialised(name, run.init_us))

    def _abort(self, effect: Abort) -> None:
        container = self._containers[effect.container]
        run = container.runs.get(effect.activation_id)
        if run is None:
            return
        if effect.drained:
            self._end(effect.container, container, run, runtime_protocol.drained())
        else:
            response = runtime_protocol.timed_out(effect.timeout_us // 1000, run.initialising)
            self._end(effect.container, container, run, response, timed_out=True)

    # --- the life of sandboxes -----------------------------------------------------------------

    def _start_sandbox(self, effect: StartSandbox) -> None:
        container = Container(effect.container)
        self._belongs_to(container, effect.spec)
        action = container.action
        spec = self._sandbox_spec(effect.container, action.exec.kind, effect.spec.memory_mb)
        spec = replace(spec, image=action.exec.image or "", network=has_network(action))
        self._start(self._create(container, spec))

    def _prewarm_sandbox(self, effect: PrewarmSandbox) -> None:
        self._start(self._prewarm(Container(effect.container), effect.kind, effect.memory_mb))

    async def _prewarm(self, container: Container, kind: str, memory_mb: int) -> None:
        async with self._prewarming:
            if self._draining:
                failure = FailureClass.RECOVERABLE
                self._stepper.step(SandboxFailed(container.name, failure, "the invoker drains"))
            else:
                spec = self._sandbox_spec(next(self._prewarm_names), kind, memory_mb)
                await self._create(container, spec, confirm=False)  # it is nobody's yet

    def _assign_sandbox(self, effect: AssignSandbox) -> None:
        container = self._containers.pop(effect.sandbox)
        container.name = effect.container
        self._containers[effect.container] = container
        self._belongs_to(container, effect.spec)
        if self._convert is None:
            self._stepper.step(SandboxReady(container.name))
        else:
            self._start(self._confirm(container))

    async def _confirm(self, container: Container) -> None:
        """Let a container whose sandbox was prewarmed serve, or give that one up."""
        if await self._may_serve(container):
            self._stepper.step(SandboxReady(container.name))
        else:
            await self._refuse(container, UNRESERVED)

    async def _refuse(self, container: Container, failure: tuple[FailureClass, str]) -> None:
        """Answer that a container whose sandbox is up is none, once that one is removed."""
        await self._dismiss(container)
        self._creation_failed(container.name, *failure)

    def _belongs_to(self, container: Container, spec: QueueSpec) -> None:
        """Say whose container it is.  Raises: whatever ``action_of`` does."""
        container.spec = spec
        container.action = self._action_of(spec.queue)

    def _sandbox_spec(self, name: str, kind: str, memory_mb: int) -> SandboxSpec:
        return SandboxSpec(name, kind, memory_mb, self._environment)

    async def _create(
        self, container: Container, spec: SandboxSpec, *, confirm: bool = True
    ) -> None:
        """Start the sandbox of a container, connect to it, and tell the pool."""
        name = container.name
        self._containers[name] = container
        self._speed.begin(spec.container, clock.now_us())
        failure = await self._start_and_connect(container, spec, confirm)
        self._note_creation(spec, failure)
        self._speed.end(spec.container, clock.now_us(), created=failure is None)
        if failure is not None:
            self._creation_failed(name, *failure)
            return
        self._to_scheduler(self.report())
        self._stepper.step(SandboxReady(name))

    async def _start_and_connect(
        self, container: Container, spec: SandboxSpec, confirm: bool
    ) -> tuple[FailureClass, str] | None:
        """Give the container its sandbox and connection; return why not, if it has none."""
        try:
            sandbox = await self._engine.start(spec)
        except SandboxError as error:
            return _failure_class(error, spec), str(error)
        except Exception as error:
            # Whatever it is: a creation without an end would hold its memory for ever.
            log.exception("container %s was not created", container.name)
            return FailureClass.RECOVERABLE, f"the invoker failed: {error!r}"
        container.sandbox = sandbox
        try:
            container.connection = await _first(sandbox, lambda: self._on_lost(container))
            if container.connection.lost:
                raise ConnectionResetError("it closed the first connection")
        except OSError as error:
            container.sandbox = container.connection = None
            await self._removed(container.name, sandbox)
            text = f"container {container.name} does not accept connections: {error}"
            return FailureClass.RECOVERABLE, text
        if confirm and self._convert is not None and not await self._may_serve(container):
            await self._dismiss(container)
            return UNRESERVED
        return None

    def _note_creation(self, spec: SandboxSpec, failure: tuple[FailureClass, str] | None) -> None:
        """Tell the observer, unless the failure is not the host's.

        That of an image which the action has brought may be the image's, or its registry's.
        """
        if self._observe is None or self._draining:
            return
        if failure is None:
            self._observe(Trial.CREATION, _GOOD)
        elif failure[0] == FailureClass.RECOVERABLE and not (failure is UNRESERVED or spec.image):
            self._observe(Trial.CREATION, _BAD)

    async def _dismiss(self, container: Container) -> None:
        """Remove the sandbox of a container that never served."""
        connection, container.connection = container.connection, None
        if connection is not None:
            connection.close()
        sandbox, container.sandbox = container.sandbox, None
        if sandbox is not None:
            await self._removed(container.name, sandbox)

    async def _may_serve(self, container: Container) -> bool:
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

    def _on_lost(self, container: Container) -> None:
        """The connection to a container ended: by our removal, or because it died."""
        connection, container.connection = container.connection, None
        if connection is None:
            return
        connection.close()  # others of the same container
        name = container.name
        if not container.runs:
            # At once: what is delivered from now on is given back, and runs elsewhere.
            self._stepper.step(SandboxBroke(name, "its connection ended while it was idle"))
        else:
            self._start(self._find_out(name, container))

    async def _find_out(self, name: str, container: Container) -> None:
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
        for run in list(container.runs.values()):
            log.info("container %s %s during a run", name, cause)
            container.failed = cause
            response = runtime_protocol.broke(run.initialising, out_of_memory)
            self._end(name, container, run, response)
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
            if self._observe is not None:
                self._observe(Trial.CREATION, InvocationResult.TIMEOUT)
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
            self._logs.take_last(container)
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

    # --- faults of ours ------------------------------------------------------------------------

    def _failed(self, effect: object, cause: str) -> None:
        """Answer for what an effect that was not carried out was about."""
        if isinstance(effect, (Run, Initialise)):
            container = self._containers[effect.container]
            activation = effect.activation
            run = container.runs.setdefault(
                activation.activation_id,
                RunningActivation(activation, clock.now_us(), clock.wall_ms(), 0),
            )
            response = runtime_protocol.failure(
                runtime_protocol.PLATFORM_ERROR, f"The invoker failed: {cause}"
            )
            self._end(effect.container, container, run, response)
        elif isinstance(effect, StartSandbox):
            text = f"the invoker failed: {cause}"
            self._creation_failed(effect.container, FailureClass.RECOVERABLE, text)
        elif isinstance(effect, AssignSandbox):
            container = self._containers[effect.container]
            failure = FailureClass.RECOVERABLE, f"the invoker failed: {cause}"
            self._start(self._refuse(container, failure))

    # --- tasks ---------------------------------------------------------------------------------

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the invoker lost a task", exc_info=task.exception())


def _failure_class(error: SandboxError, spec: SandboxSpec) -> FailureClass:
    if isinstance(error, ImageUnavailable) and spec.image:
        return FailureClass.UNFIT
    return FailureClass.FINAL if error.final else FailureClass.RECOVERABLE


async def _first(
    sandbox: Sandbox, on_lost: Callable[[], None]
) -> ContainerConnection | FreshConnections:
    """Connect to a new sandbox.  Raises: OSError."""
    if sandbox.port:
        return FreshConnections(sandbox.port, on_lost)
    return await _connect(sandbox, on_lost)


async def _connect(sandbox: Sandbox, on_lost: Callable[[], None]) -> ContainerConnection:
    """Connect to the proxy of a sandbox.  Raises: OSError."""
    return await ContainerConnection.open(sandbox.socket_path, on_lost)
