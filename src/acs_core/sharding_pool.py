"""The baseline's invoker: the pool to which activations are pushed.

Same form as ``containers.ContainerPool``, and the same words to its node about sandboxes and
runs, so that a node can serve either; only that work comes as ``Push``, through the feed of
``sharding_feed``, and leaves as ``RunEnded`` of the node's own, without a scheduler.  Containers
are free (they take more), busy, or prewarmed; without room the least recently used idle ones go;
what finds none waits in one line, whose head blocks all behind it.

Source: OpenWhisk's ContainerPool and ContainerProxy.  The original passes messages between a pool
and one actor for each container; here a step does all of it, in the same order.  What differs:

- of several containers that fit, the one that is longest in its pool is taken; there, any;
- a paused container is removed as it is; there it is resumed first, at the engine's cost;
- when a container goes without the feed being asked, the head of the line is looked at again,
  which there may be stuck; nor is a sandbox left behind where waking fails;
- prewarmed sandboxes are those of ``prewarm``;
- it can drain: what has not started is refused, what runs ends by itself or at its own limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from . import limits
from .effects import (
    Abort,
    AssignSandbox,
    Cause,
    Initialise,
    PauseSandbox,
    Reject,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from .events import (
    Activation,
    DrainRequested,
    Event,
    FailureClass,
    Initialised,
    Outcome,
    QueueSpec,
    RunEnded,
    SandboxBroke,
    SandboxFailed,
    SandboxPaused,
    SandboxReady,
    SandboxRemoved,
    SandboxResumed,
    TimeReached,
    _check_name,
    _check_range,
    refused_time,
)
from .prewarm import Prewarm, PrewarmedSandboxes
from .sharding_container import ProxyState, PushContainer, least_recently_used

_STARTING = int(ProxyState.STARTING)
_RUNNING = int(ProxyState.RUNNING)
_READY = int(ProxyState.READY)
_PAUSING = int(ProxyState.PAUSING)
_PAUSED = int(ProxyState.PAUSED)
_RESUMING = int(ProxyState.RESUMING)
_REMOVING = int(ProxyState.REMOVING)
_APPLICATION_ERROR = int(Outcome.APPLICATION_ERROR)
_NEVER = limits.TIME_MAX_US
_DRAINS = "the invoker is draining"


class Push(Event):
    """Run the activation of that queue: its namespace, action and revision say what is shared."""

    def __init__(self, spec: QueueSpec, activation: Activation) -> None:
        self.spec = spec
        self.activation = activation


class Processed:
    """The pool takes one more activation from its feed."""


@dataclass(frozen=True, slots=True)
class PushPoolConfig:
    """What a pool is told once: as ``containers.PoolConfig``, with the original's durations.

    Raises: ValueError that names the field, the value and the limit.
    """

    invoker: str = "invoker"
    memory_mb: int = 1_024
    keep_alive_us: int = limits.PUSH_KEEP_ALIVE_US
    pause_grace_us: int = limits.PUSH_PAUSE_GRACE_US
    prewarm: tuple[Prewarm, ...] = ()
    prewarm_check_us: int = limits.PREWARM_CHECK_US

    def __post_init__(self) -> None:
        _check_name("invoker", self.invoker)
        _check_range("memory_mb", self.memory_mb, 0, limits.MEMORY_MAX_MB)
        _check_range("keep_alive_us", self.keep_alive_us, 1, _NEVER // 4)
        _check_range("pause_grace_us", self.pause_grace_us, 1, _NEVER // 4)
        _check_range("prewarm_check_us", self.prewarm_check_us, 1, _NEVER // 4)


class PushPool:
    """The containers of one invoker of the baseline, and the line before them.

    ``check`` says what holds after each step.  Cost of a step: O(containers) where one is created
    or time has passed, else O(containers of the queue that take more).
    """

    def __init__(self, config: PushPoolConfig | None = None) -> None:
        self.config = config or PushPoolConfig()
        self._now_us = 0
        # Free ones take more, in the order in which they came there; busy ones do not.
        self._free: dict[str, PushContainer] = {}
        # The same by queue.
        self._free_of: dict[str, dict[str, PushContainer]] = {}
        self._busy: dict[str, PushContainer] = {}
        # All that are there, also those on their way out, which neither of these has.
        self._containers: dict[str, PushContainer] = {}
        self._buffer: deque[Push] = deque()
        # What the pool has told itself and not yet handled; one at most is the buffer's head.
        self._mail: deque[Push] = deque()
        self._resent = False
        self._draining = False
        # No container wants time to pass before this.
        self._due_us = _NEVER
        self._prewarmed = PrewarmedSandboxes(
            self.config.invoker, self.config.prewarm, self.config.prewarm_check_us
        )
        # Where nothing is prewarmed nothing of it is asked, twice in every step.
        self._prewarms = bool(self.config.prewarm)
        self._serial = 0
        self._starts = {"warm": 0, "prewarmed": 0, "cold": 0, "recreated": 0}

    # --- the public face -----------------------------------------------------------------

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Raises:
          ValueError: Time goes backwards or beyond TIME_MAX_US; nothing changed.
          TypeError: Not an event of this pool; nothing changed.
        """
        if not self._now_us <= now_us <= _NEVER:
            raise refused_time(now_us, self._now_us)
        handler = _HANDLERS.get(type(event))
        if handler is None:
            raise TypeError(f"{type(event).__name__} is no event of a push pool")
        self._now_us = now_us
        out: list[object] = []
        if isinstance(event, Push):  # this and the next come with every activation
            self._push(event, now_us, out)
        elif isinstance(event, RunEnded):
            self._run_ended(event, now_us, out)
        else:
            handler(self, event, now_us, out)
        while self._mail:
            self._push(self._mail.popleft(), now_us, out)
        return out

    def next_deadline_us(self) -> int | None:
        """Return when ``TimeReached`` is wanted next, or earlier; None when nothing is due.

        Cost: O(kinds that are prewarmed).
        """
        due_us = self._due_us
        if self._prewarms:
            due_us = min(due_us, self._prewarmed.next_deadline_us())
        return None if due_us == _NEVER else due_us

    def counts(self) -> dict[str, int]:
        """Return the containers by state, what waits, and how runs found their container."""
        counts = {state.name.lower(): 0 for state in ProxyState}
        for container in self._containers.values():
            counts[ProxyState(container.state).name.lower()] += 1
        counts["free"] = len(self._free)
        counts["busy"] = len(self._busy)
        counts["waiting"] = len(self._buffer)
        return counts | {f"{name}_starts": count for name, count in self._starts.items()}

    def used_mb(self) -> int:
        """Return the memory as the pool counts it: what is on its way out is free already."""
        used_mb = 0
        for container in self._free.values():
            used_mb += container.spec.memory_mb
        for container in self._busy.values():
            used_mb += container.spec.memory_mb
        if self._prewarms:
            used_mb += self._prewarmed.used_mb() - self._prewarmed.going_mb()
        return used_mb

    def check(self) -> None:
        """Assert every invariant that can be seen from inside."""
        assert not self._mail
        assert not self._free.keys() & self._busy.keys()
        assert self._free.keys() | self._busy.keys() <= self._containers.keys()
        assert not self._resent
        assert not (self._draining and self._buffer)
        for container in self._free.values():
            assert container.assigned < container.spec.concurrency
        by_queue: dict[str, list[str]] = {}
        for name, container in self._free.items():
            by_queue.setdefault(container.spec.queue, []).append(name)
        assert by_queue == {queue: list(free) for queue, free in self._free_of.items()}
        for name, container in self._containers.items():
            assert self._container_due_us(container) >= self._due_us
            assert len(container.running) <= container.spec.concurrency
            pooled = name in self._free or name in self._busy
            assert pooled == (container.state != _REMOVING)
            starting = container.state == _STARTING
            if pooled:
                assert container.assigned == len(container.running) + len(container.held) + starting
            idle = container.state in (_READY, _PAUSED)
            assert not (idle and (container.running or container.held))
            asleep = container.state in (_PAUSING, _RESUMING)
            assert not (asleep and container.running)
            assert container.state != _RUNNING or container.running

    # --- where a run goes ----------------------------------------------------------------------

    def _push(self, event: Push, now_us: int, out: list[object]) -> None:
        if self._draining:
            out.append(Reject(event.activation, Cause.CLOSED, _DRAINS, 0))
            return
        is_head = bool(self._buffer) and self._buffer[0] is event
        if is_head:
            self._resent = False
        elif self._buffer:
            self._buffer.append(event)
            return
        container = self._find(event.spec)
        if container is None and self._prewarms:
            container = self._take_prewarmed(event.spec, now_us, out)
        victims: list[PushContainer] = []
        if container is None:
            if self.used_mb() + event.spec.memory_mb > self.config.memory_mb:
                if self._free:
                    # The quirk: it asks for no more than all free ones hold, and looks no further.
                    free_mb = sum([c.spec.memory_mb for c in self._free.values()])
                    victims = least_recently_used(self._free, min(event.spec.memory_mb, free_mb))
                if not victims:
                    if not is_head:
                        self._buffer.append(event)
                    return
            container = self._create(event.spec, victims, out)
        container.assigned += 1
        container.last_used_us = now_us
        self._place(container)
        if is_head:
            self._buffer.popleft()
            self._next(out)
        self._assign(container, event.activation, now_us, out)
        for victim in victims:
            # One that sleeps goes without asking the feed.
            if victim.state == _READY:
                self._next(out)
            victim.state = _REMOVING
        if self._prewarms and self._prewarmed.next_deadline_us() <= now_us:
            self._prewarm(now_us, out)

    def _find(self, spec: QueueSpec) -> PushContainer | None:
        """Return a container of that queue that takes more: a warm one, else one on its way."""
        free = self._free_of.get(spec.queue, {})
        for warming in range(3):
            for container in free.values():
                if container.warming == warming:
                    self._starts["warm"] += 1
                    return container
        return None

    def _take_prewarmed(
        self, spec: QueueSpec, now_us: int, out: list[object]
    ) -> PushContainer | None:
        sandbox = self._prewarmed.take(spec, now_us)
        if not sandbox:
            return None
        self._starts["prewarmed"] += 1
        container = self._add(spec, 1)
        container.state = _RUNNING
        out.append(AssignSandbox(container.container, sandbox, spec))
        return container

    def _create(
        self, spec: QueueSpec, victims: list[PushContainer], out: list[object]
    ) -> PushContainer:
        """Start a container, and ask those to go that are in its way; it does not wait for that."""
        self._starts["recreated" if victims else "cold"] += 1
        for victim in victims:
            self._drop(victim)
            victim.cause = "its memory is needed"
            out.append(Remove(victim.container, victim.cause))
        container = self._add(spec, 2)
        out.append(StartSandbox(container.container, spec))
        return container

    def _add(self, spec: QueueSpec, warming: int) -> PushContainer:
        self._serial += 1
        container = PushContainer(f"{self.config.invoker}-push-{self._serial}", spec, warming)
        self._containers[container.container] = container
        return container

    def _place(self, container: PushContainer) -> None:
        """Put the container where its assigned runs say."""
        name = container.container
        if container.assigned >= container.spec.concurrency:
            self._drop(container)
            self._busy[name] = container
        elif name not in self._free:
            self._busy.pop(name, None)
            self._free[name] = container
            self._free_of.setdefault(container.spec.queue, {})[name] = container

    def _next(self, out: list[object]) -> None:
        """Look at the head of the line once more, or else ask the feed for one."""
        if not self._buffer:
            out.append(Processed())
        elif not self._resent:
            self._resent = True
            self._mail.append(self._buffer[0])

    # --- a container's life --------------------------------------------------------------------

    def _assign(
        self, container: PushContainer, activation: Activation, now_us: int, out: list[object]
    ) -> None:
        state = container.state
        if container.first is None and not container.initialised:
            container.first = activation
            if state == _RUNNING:  # it was prewarmed
                self._initialise(container, now_us, out)
        elif container.initialised and state in (_RUNNING, _READY):
            self._run(container, activation, now_us, out)
        else:
            container.held.append(activation)
            if state == _PAUSED:
                container.state = _RESUMING
                out.append(ResumeSandbox(container.container))

    def _initialise(self, container: PushContainer, now_us: int, out: list[object]) -> None:
        first = container.first
        assert first is not None
        container.state = _RUNNING
        self._limit(container, first, now_us)
        out.append(Initialise(container.container, first))

    def _limit(self, container: PushContainer, activation: Activation, now_us: int) -> None:
        deadline_us = min(now_us + container.spec.timeout_us, _NEVER - 1)
        container.running[activation.activation_id] = deadline_us
        self._due_us = min(self._due_us, deadline_us)

    def _run(
        self, container: PushContainer, activation: Activation, now_us: int, out: list[object]
    ) -> None:
        container.state = _RUNNING
        self._limit(container, activation, now_us)
        out.append(Run(container.container, activation, 0))

    def _run_held(self, container: PushContainer, now_us: int, out: list[object]) -> None:
        while container.held and len(container.running) < container.spec.concurrency:
            self._run(container, container.held.popleft(), now_us, out)

    def _sandbox_ready(self, event: SandboxReady, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._prewarmed.ready(event.container, out)
        elif container.state == _STARTING:
            self._initialise(container, now_us, out)
            if self._draining:
                self._leave(container, _DRAINS, out)  # once that run has ended

    def _initialised(self, event: Initialised, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.first is None or container.initialised:
            return
        first = container.first
        if container.running.get(first.activation_id, _NEVER) == _NEVER:
            return  # it was given up, and the node answers for it
        container.initialised = True
        self._limit(container, first, now_us)  # /init and /run have the full limit each
        out.append(Run(event.container, first, event.init_us))
        self._run_held(container, now_us, out)

    def _run_ended(self, event: RunEnded, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.running.pop(event.activation_id, None) is None:
            return
        container.assigned -= 1
        if container.state == _REMOVING:
            self._remove_empty(container, out)
        elif not container.initialised:
            # /init failed: what waits for it fails like it.
            self._abort_held(container, "its container could not be initialised", out)
            self._destroy(container, "its /init failed", out)
        elif event.outcome > _APPLICATION_ERROR:
            self._fail(container, now_us, out)
        else:
            self._run_held(container, now_us, out)
            container.warming = 0
            self._place(container)
            self._next(out)
            if not container.running:
                container.state = _READY
                self._idles(container, now_us)

    def _fail(self, container: PushContainer, now_us: int, out: list[object]) -> None:
        """A run has ended badly in a warm container: it takes no more."""
        self._give_back(container)
        if container.running:
            self._leave(container, "a run ended badly", out)  # when the others have ended
        else:
            self._destroy(container, "its last run ended badly", out)

    def _destroy(self, container: PushContainer, cause: str, out: list[object]) -> None:
        """Remove the container; the pool takes one more, of its line or of its feed."""
        self._drop(container)
        self._next(out)
        self._leave(container, cause, out)

    def _leave(self, container: PushContainer, cause: str, out: list[object]) -> None:
        """Let the container take no more, and remove it as soon as nothing runs in it."""
        self._drop(container)
        if self._buffer:
            self._next(out)
        container.state = _REMOVING
        container.cause = cause
        self._remove_empty(container, out)

    def _drop(self, container: PushContainer) -> None:
        name = container.container
        self._busy.pop(name, None)
        if self._free.pop(name, None) is not None:
            free = self._free_of[container.spec.queue]
            del free[name]
            if not free:
                del self._free_of[container.spec.queue]

    def _remove_empty(self, container: PushContainer, out: list[object]) -> None:
        if not container.running:
            out.append(Remove(container.container, container.cause))

    def _give_back(self, container: PushContainer) -> None:
        """Let what was assigned and has not started look for another container."""
        for activation in container.held:
            self._mail.append(Push(container.spec, activation))
        container.held.clear()

    def _abort_held(self, container: PushContainer, reason: str, out: list[object]) -> None:
        for activation in container.held:
            out.append(Reject(activation, Cause.CREATION_FAILED, reason, 0))
        container.held.clear()

    # --- what becomes of sandboxes ---------------------------------------------------------------

    def _sandbox_failed(self, event: SandboxFailed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            if self._prewarmed.failed(event.container, now_us):
                self._next(out)
            return
        if container.state != _STARTING:
            return
        assert container.first is not None
        unfit = event.failure == FailureClass.UNFIT
        cause = Cause.UNFIT if unfit else Cause.CREATION_FAILED
        out.append(Reject(container.first, cause, event.cause, 0))
        self._abort_held(container, event.cause, out)
        self._drop(container)
        del self._containers[event.container]
        self._next(out)

    def _sandbox_broke(self, event: SandboxBroke, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._prewarmed.broke(event.container, event.cause, now_us, out)
            return
        if container.state == _STARTING:
            return  # its start fails, or not
        running = bool(container.running)
        container.running.clear()  # the node has answered for them
        if container.state == _REMOVING:
            if running:
                self._remove_empty(container, out)
            return
        waking = container.state == _RESUMING
        if container.initialised:
            self._give_back(container)
        else:
            self._abort_held(container, event.cause, out)
        if waking:
            self._leave(container, event.cause, out)  # what it held is looked at anyway
        else:
            self._destroy(container, event.cause, out)

    def _sandbox_removed(self, event: SandboxRemoved, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            if self._prewarmed.removed(event.container, now_us):
                self._next(out)
            return
        if container.state == _STARTING:
            return  # its start fails, or not
        if container.state != _REMOVING:  # nobody had asked for it
            broke = SandboxBroke(event.container, "its sandbox is gone")
            done: list[object] = []
            self._sandbox_broke(broke, now_us, done)
            out += [effect for effect in done if not isinstance(effect, Remove)]
        del self._containers[event.container]

    def _sandbox_paused(self, event: SandboxPaused, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.state != _PAUSING:
            return
        container.state = _PAUSED
        self._idles(container, now_us)
        if container.held:
            container.state = _RESUMING
            out.append(ResumeSandbox(event.container))

    def _sandbox_resumed(self, event: SandboxResumed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is not None and container.state == _RESUMING:
            self._run_held(container, now_us, out)

    # --- time ----------------------------------------------------------------------------------

    def _idles(self, container: PushContainer, now_us: int) -> None:
        container.idle_since_us = now_us
        self._due_us = min(self._due_us, self._idle_due_us(container))

    def _container_due_us(self, container: PushContainer) -> int:
        """Return when a container wants time to pass, _NEVER for none."""
        due_us = min(container.running.values(), default=_NEVER)
        return min(due_us, self._idle_due_us(container))

    def _idle_due_us(self, container: PushContainer) -> int:
        """Return when an idle container is to be paused or removed, _NEVER for others."""
        if container.state == _READY:
            return container.idle_since_us + self.config.pause_grace_us
        if container.state == _PAUSED:
            return container.idle_since_us + self.config.keep_alive_us
        return _NEVER

    def _time_reached(self, event: TimeReached, now_us: int, out: list[object]) -> None:
        for container in list(self._containers.values()):
            for activation_id, deadline_us in container.running.items():
                if deadline_us <= now_us:
                    timeout_us = container.spec.timeout_us
                    out.append(Abort(container.container, activation_id, timeout_us))
                    container.running[activation_id] = _NEVER
            if self._idle_due_us(container) > now_us:
                continue
            if container.state == _READY:
                container.state = _PAUSING
                out.append(PauseSandbox(container.container))
            else:
                self._leave(container, "it was idle for its keep-alive", out)
        dues = [self._container_due_us(container) for container in self._containers.values()]
        self._due_us = min(dues, default=_NEVER)
        if self._prewarmed.next_deadline_us() <= now_us:
            self._prewarm(now_us, out)

    def _drain_requested(self, event: DrainRequested, now_us: int, out: list[object]) -> None:
        """Refuse what has not started, and let each container go when nothing runs in it.

        One that is being started serves the run that it is started for.
        """
        self._draining = True
        self._resent = False
        waiting = list(self._buffer)
        self._buffer.clear()
        for container in list(self._containers.values()):
            waiting += [Push(container.spec, activation) for activation in container.held]
            if container.state == _STARTING:
                container.assigned -= len(container.held)
                container.held.clear()
                self._place(container)
            elif container.state != _REMOVING:
                container.held.clear()
                self._leave(container, _DRAINS, out)
        self._mail += waiting  # which is refused now
        self._prewarmed.leave_all(out)

    def _prewarm(self, now_us: int, out: list[object]) -> None:
        self._prewarmed.look(self.config.memory_mb - self.used_mb(), now_us, out)


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    Push: PushPool._push,
    SandboxReady: PushPool._sandbox_ready,
    SandboxFailed: PushPool._sandbox_failed,
    SandboxBroke: PushPool._sandbox_broke,
    SandboxRemoved: PushPool._sandbox_removed,
    SandboxPaused: PushPool._sandbox_paused,
    SandboxResumed: PushPool._sandbox_resumed,
    Initialised: PushPool._initialised,
    RunEnded: PushPool._run_ended,
    TimeReached: PushPool._time_reached,
    DrainRequested: PushPool._drain_requested,
}
