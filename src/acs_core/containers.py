# cython: nonecheck=True
# (None in place of what an event carries is an error on both builds, not a crash.)
"""The invoker's side: the life of its containers and the pool that holds them.

Same form as the scheduler: ``step(event, now_us)`` returns effects.  The pool takes what a
scheduler asks of an invoker (``Create``, ``Deliver``, ``Release``, ``Adopt``) and what its
node reports of sandboxes; it asks its node for sandboxes and runs, and tells the scheduler
what happened.  It leaves out payloads, results and logs: those pass it by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from . import limits
from .effects import (
    Abort,
    Adopt,
    Create,
    Deliver,
    Initialise,
    Release,
    Remove,
    Run,
    StartSandbox,
)
from .events import (
    Activation,
    Adopted,
    Completion,
    ContainerGone,
    ContainerLeaving,
    ContainerServing,
    CreationFailed,
    DrainRequested,
    Event,
    FailureClass,
    Held,
    Initialised,
    Outcome,
    Pulled,
    QueueSpec,
    Returned,
    RunEnded,
    SandboxBroke,
    SandboxFailed,
    SandboxReady,
    SandboxRemoved,
    TimeReached,
    refused_time,
)


class ContainerState(IntEnum):
    """Where a container is in its life."""

    STARTING = 0
    """Its sandbox is being started."""
    FRESH = 1
    """Up, offers one slot; ``/init`` comes with the first activation."""
    INITIALISING = 2
    READY = 3
    """Initialised; offers a slot for each that is free."""
    LEAVING = 4
    """Takes no more work; removed when the last run has ended."""
    REMOVING = 5
    """The engine was asked to remove it; holds its memory until that is confirmed."""


_STARTING = int(ContainerState.STARTING)
_FRESH = int(ContainerState.FRESH)
_INITIALISING = int(ContainerState.INITIALISING)
_READY = int(ContainerState.READY)
_LEAVING = int(ContainerState.LEAVING)
_REMOVING = int(ContainerState.REMOVING)
_APPLICATION_ERROR = int(Outcome.APPLICATION_ERROR)
_NEVER = limits.TIME_MAX_US


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What a pool is told once: the invoker's name, its memory, and how long to keep idlers."""

    invoker: str = "invoker"
    memory_mb: int = 1_024
    keep_alive_us: int = limits.KEEP_ALIVE_US


class PoolContainer:
    """One container.  ``running`` maps the activations in it to their time limits."""

    def __init__(self, container: str, epoch: int, spec: QueueSpec) -> None:
        self.container = container
        self.epoch = epoch
        self.spec = spec
        self.state_index = _STARTING
        self.running: dict[str, int] = {}
        # The activation on whose behalf /init runs or ran, until its own end.
        self.first: Activation | None = None
        self.init_us = 0
        # Started since the last pull and not ended: the next pull says so.
        self.unreported: list[str] = []
        self.cause = ""
        self.initialised = False


class ContainerPool:
    """The containers of one invoker.

    Invariants: C1-C6 (docs/invariants.md).
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._now_us = 0
        self._containers: dict[str, PoolContainer] = {}
        # Containers without a run, idle longest first; the value is since when.
        self._idle: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._next_abort_us = _NEVER
        self._draining = False
        self._keep_alive_us = self.config.keep_alive_us
        self._created = 0

    # --- the public face -----------------------------------------------------------------

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Effects that are events of a scheduler (``Pulled`` …) go to the one that leads the
        container's queue; the others are the node's to carry out.

        Raises:
          ValueError: Time goes backwards or beyond TIME_MAX_US; nothing changed.
          TypeError: Not an event of a pool, or a time that is no integer; nothing changed.
        Cost: O(1) for deliveries and ends of runs; O(containers) for a creation.
        """
        # "| 0" refuses what is no integer; in C, where nothing else comes, it costs nothing.
        if not self._now_us <= now_us | 0 <= _NEVER:
            raise refused_time(now_us, self._now_us)
        out: list[object] = []
        if isinstance(event, RunEnded):
            self._run_ended(event, now_us, out)
        elif isinstance(event, Deliver):
            self._delivered(event, now_us, out)
        else:
            handler = _HANDLERS.get(type(event))
            if handler is None:
                raise TypeError(f"{type(event).__name__} is no event of a pool")
            handler(self, event, now_us, out)
        self._now_us = now_us
        return out

    def next_deadline_us(self) -> int | None:
        """Return when ``TimeReached`` is wanted next, None when nothing is due.  Cost: O(1)."""
        due_us = self._next_abort_us
        for since_us in self._idle.values():
            due_us = min(due_us, since_us + self._keep_alive_us)
            break
        return None if due_us == _NEVER else due_us

    def used_mb(self) -> int:
        """Return the memory that containers hold until the engine confirmed their removal."""
        return sum([c.spec.memory_mb for c in self._containers.values()])

    def counts(self) -> dict[str, int]:
        """Return the containers by state, and how many were ever created.  Cost: O(containers)."""
        counts = {state.name.lower(): 0 for state in ContainerState}
        for container in self._containers.values():
            counts[ContainerState(container.state_index).name.lower()] += 1
        counts["idle"] = len(self._idle)
        counts["created"] = self._created
        return counts

    def check(self) -> None:
        """Assert every invariant that can be seen from inside.  Cost: O(containers)."""
        assert self.used_mb() <= self.config.memory_mb  # C1
        for name, container in self._containers.items():
            state = container.state_index
            assert len(container.running) <= container.spec.concurrency  # C2
            assert (name in self._idle) == (state in (_FRESH, _READY) and not container.running)
            if state in (_STARTING, _FRESH):
                assert not container.running  # C3: no run before the sandbox is up
            if state == _LEAVING:
                assert container.running or container.first is None
            for deadline_us in container.running.values():
                assert self._next_abort_us <= deadline_us  # C4: no run without a limit
        assert self._idle.keys() <= self._containers.keys()
        times = list(self._idle.values())
        assert times == sorted(times)

    # --- deliveries and runs: the hot path -----------------------------------------------------

    def _delivered(self, event: Deliver, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        activation = event.activation
        activation_id = activation.activation_id
        if container is not None and activation_id in container.running:
            return  # a repeated message
        if container is None or event.epoch < container.epoch:
            out.append(Returned(event.container, (activation_id,)))
            return
        state = container.state_index
        if state == _READY and len(container.running) < container.spec.concurrency:
            self._idle.pop(event.container, None)
            if container.spec.concurrency > 1:
                container.unreported.append(activation_id)
            self._limit(container, activation_id, now_us)
            out.append(Run(event.container, activation, 0))
        elif state == _FRESH:
            del self._idle[event.container]
            container.state_index = _INITIALISING
            container.first = activation
            self._limit(container, activation_id, now_us)
            out.append(Initialise(event.container, activation))
        else:
            # On its way out, or more than it offered: the activation has not started.
            out.append(Returned(event.container, (activation_id,)))

    def _limit(self, container: PoolContainer, activation_id: str, now_us: int) -> None:
        """Start the clock of a run."""
        deadline_us = now_us + container.spec.timeout_us
        container.running[activation_id] = deadline_us
        self._next_abort_us = min(self._next_abort_us, deadline_us)

    def _run_ended(self, event: RunEnded, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.running.pop(event.activation_id, None) is None:
            return  # it was given up before
        init_us = 0
        first = container.first
        if first is not None and first.activation_id == event.activation_id:
            init_us = container.init_us
            container.first = None
        completion = Completion(event.activation_id, init_us, event.run_us, event.outcome)
        reusable = container.state_index == _READY and event.outcome <= _APPLICATION_ERROR
        started = self._started(container)
        free_slots = 1 if reusable else 0
        out.append(Pulled(event.container, container.epoch, free_slots, started, (completion,)))
        if reusable:
            if not container.running:
                self._idle[event.container] = now_us
        else:
            self._leave(container, "its last run ended badly", True, out)

    def _started(self, container: PoolContainer) -> tuple[str, ...]:
        """Return what started since the last pull and still runs."""
        if not container.unreported:
            return ()
        started = tuple([i for i in container.unreported if i in container.running])
        container.unreported = []
        return started

    # --- the life of containers ----------------------------------------------------------------

    def _create(self, event: Create, now_us: int, out: list[object]) -> None:
        if event.container in self._containers:
            return
        spec = event.spec
        refusal = ""
        if event.epoch < self._epochs.get(spec.queue, 0):
            refusal = f"epoch {event.epoch} of {spec.queue} is over"
        elif self._draining:
            refusal = f"invoker {self.config.invoker} is draining"
        elif self.used_mb() + spec.memory_mb > self.config.memory_mb:
            refusal = (
                f"{spec.memory_mb} MB do not fit: {self.used_mb()} of "
                f"{self.config.memory_mb} MB are in use at invoker {self.config.invoker}"
            )
        if refusal:
            out.append(CreationFailed(event.container, FailureClass.RECOVERABLE, refusal))
            return
        self._created += 1
        self._containers[event.container] = PoolContainer(event.container, event.epoch, spec)
        out.append(StartSandbox(event.container, spec))

    def _sandbox_ready(self, event: SandboxReady, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            return
        if container.state_index == _LEAVING:  # released while it started
            self._leave(container, container.cause, False, out)
            return
        if container.state_index != _STARTING:
            return  # said before
        container.state_index = _FRESH
        self._idle[event.container] = now_us
        out.append(ContainerServing(event.container, self.config.invoker))
        out.append(Pulled(event.container, container.epoch, 1))

    def _sandbox_failed(self, event: SandboxFailed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or not _is_starting(container):
            return  # it is up, or was: its creation fails no more
        del self._containers[event.container]
        out.append(CreationFailed(event.container, event.failure, event.cause))

    def _initialised(self, event: Initialised, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.first is None or container.initialised:
            return
        first = container.first
        if container.running[first.activation_id] == _NEVER:
            return  # it was aborted, and the node answers for it
        container.initialised = True
        container.init_us = event.init_us
        # /init and /run have the full time limit each.
        self._limit(container, first.activation_id, now_us)
        out.append(Run(event.container, first, event.init_us))
        if container.state_index == _INITIALISING:
            container.state_index = _READY
            if container.spec.concurrency > 1:
                free_slots = container.spec.concurrency - 1
                started = (first.activation_id,)
                out.append(Pulled(event.container, container.epoch, free_slots, started))

    def _sandbox_broke(self, event: SandboxBroke, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.state_index == _REMOVING:
            return
        if container.state_index == _LEAVING and _is_starting(container):
            return  # said before
        # The node has answered for the runs; what it has not is unknown when the container goes.
        container.running.clear()
        container.first = None
        self._leave(container, event.cause, True, out)

    def _sandbox_removed(self, event: SandboxRemoved, now_us: int, out: list[object]) -> None:
        container = self._containers.pop(event.container, None)
        if container is not None:
            self._idle.pop(event.container, None)  # when nobody had asked for the removal
            out.append(ContainerGone(event.container, container.cause or "its sandbox is gone"))

    def _release(self, event: Release, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch < container.epoch:
            return
        if container.state_index not in (_LEAVING, _REMOVING):
            self._leave(container, event.why, False, out)

    def _leave(self, container: PoolContainer, cause: str, tell: bool, out: list[object]) -> None:
        """Take no more work; remove the container as soon as nothing runs in it."""
        name = container.container
        starting = container.state_index == _STARTING
        self._idle.pop(name, None)
        if tell and container.state_index != _LEAVING:
            out.append(ContainerLeaving(name, cause))
        container.state_index = _LEAVING
        container.cause = container.cause or cause
        if not container.running and not starting:
            container.state_index = _REMOVING
            out.append(Remove(name, container.cause))

    def _drain_requested(self, event: DrainRequested, now_us: int, out: list[object]) -> None:
        self._draining = True
        for container in list(self._containers.values()):
            if container.state_index not in (_LEAVING, _REMOVING):
                self._leave(container, "the invoker is draining", True, out)

    def _adopt(self, event: Adopt, now_us: int, out: list[object]) -> None:
        if event.epoch < self._epochs.get(event.queue, 0):
            return
        self._epochs.pop(event.queue, None)
        self._epochs[event.queue] = event.epoch
        if len(self._epochs) > limits.EPOCHS_MAX:
            del self._epochs[next(iter(self._epochs))]
        held = []
        news: list[object] = []
        for name, container in self._containers.items():
            if container.spec.queue != event.queue:
                continue
            container.epoch = event.epoch
            state = container.state_index
            held.append(Held(name, not _is_starting(container), tuple(container.running)))
            # What was said to an earlier leader is void; it is said anew.
            if state in (_LEAVING, _REMOVING):
                news.append(ContainerLeaving(name, container.cause))
            elif state == _FRESH:
                news.append(Pulled(name, event.epoch, 1))
            elif state == _READY and len(container.running) < container.spec.concurrency:
                free_slots = container.spec.concurrency - len(container.running)
                news.append(Pulled(name, event.epoch, free_slots, self._started(container)))
        out.append(Adopted(self.config.invoker, event.queue, event.epoch, tuple(held)))
        out.extend(news)

    def _time_reached(self, event: TimeReached, now_us: int, out: list[object]) -> None:
        while self._idle:
            name = next(iter(self._idle))
            if self._idle[name] + self._keep_alive_us > now_us:
                break
            self._leave(self._containers[name], "it was idle for its keep-alive", True, out)
        if self._next_abort_us <= now_us:
            self._abort_overdue(now_us, out)

    def _abort_overdue(self, now_us: int, out: list[object]) -> None:
        """Give up the runs whose limit has passed; each is aborted once."""
        next_us = _NEVER
        for container in self._containers.values():
            for activation_id, deadline_us in container.running.items():
                if deadline_us <= now_us:
                    out.append(Abort(container.container, activation_id, container.spec.timeout_us))
                    container.running[activation_id] = _NEVER
                else:
                    next_us = min(next_us, deadline_us)
        self._next_abort_us = next_us


def _is_starting(container: PoolContainer) -> bool:
    """Tell whether its sandbox is not up yet; it may be on its way out already."""
    state = container.state_index
    # What leaves although it was up runs something; else it is being removed.
    return state == _STARTING or (state == _LEAVING and not container.running)


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    Create: ContainerPool._create,
    Release: ContainerPool._release,
    Adopt: ContainerPool._adopt,
    SandboxReady: ContainerPool._sandbox_ready,
    SandboxFailed: ContainerPool._sandbox_failed,
    SandboxBroke: ContainerPool._sandbox_broke,
    SandboxRemoved: ContainerPool._sandbox_removed,
    Initialised: ContainerPool._initialised,
    DrainRequested: ContainerPool._drain_requested,
    TimeReached: ContainerPool._time_reached,
}
