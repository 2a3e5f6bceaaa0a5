# cython: nonecheck=True
# (None in place of what an event carries is an error on both builds, not a crash.)
"""The invoker's side: the life of its containers and the pool that holds them.

Same form as the scheduler: ``step(event, now_us)`` returns effects.  The pool takes what a
scheduler asks of an invoker (``Create``, ``Deliver``, ``Resume``, ``Release``, ``Adopt``) and
what its node reports of sandboxes; it asks its node for sandboxes and runs, and tells the scheduler
what happened.  It leaves out payloads, results and logs: those pass it by.  Sandboxes that are
nobody's yet are in ``prewarm``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from . import limits
from .effects import (
    Abort,
    Adopt,
    AssignSandbox,
    Create,
    Deliver,
    Initialise,
    PauseSandbox,
    Release,
    Remove,
    Resume,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from .events import (
    Activation,
    Adopted,
    Completion,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    DrainRequested,
    Event,
    FailureClass,
    Held,
    IdleHeld,
    Initialised,
    Outcome,
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
    refused_time,
)
from .prewarm import Prewarm, PrewarmedSandboxes


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
    PAUSING = 6
    """It idled; its sandbox is being paused, and it offers nothing until it was resumed."""
    PAUSED = 7
    RESUMING = 8
    """It is wanted again; what is delivered to it waits for its sandbox to run on."""
    WAITING = 9
    """Waits for the memory of prewarmed sandboxes that are being removed."""


_STARTING = int(ContainerState.STARTING)
_FRESH = int(ContainerState.FRESH)
_INITIALISING = int(ContainerState.INITIALISING)
_READY = int(ContainerState.READY)
_LEAVING = int(ContainerState.LEAVING)
_REMOVING = int(ContainerState.REMOVING)
_PAUSING = int(ContainerState.PAUSING)
_PAUSED = int(ContainerState.PAUSED)
_RESUMING = int(ContainerState.RESUMING)
_WAITING = int(ContainerState.WAITING)
_APPLICATION_ERROR = int(Outcome.APPLICATION_ERROR)
_NEVER = limits.TIME_MAX_US


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """What a pool is told once: the invoker's name, its memory, and how long to keep idlers.

    An idle container is paused after ``pause_grace_us`` (0: never) and removed after
    ``keep_alive_us``, both counted from its last run.  ``prewarm`` says which sandboxes stand
    ready; every ``prewarm_check_us`` their numbers follow the demand.  Without it there are none.

    Raises: ValueError that names the field, the value and the limit.
    """

    invoker: str = "invoker"
    memory_mb: int = 1_024
    keep_alive_us: int = limits.KEEP_ALIVE_US
    pause_grace_us: int = limits.PAUSE_GRACE_US
    prewarm: tuple[Prewarm, ...] = ()
    prewarm_check_us: int = limits.PREWARM_CHECK_US

    def __post_init__(self) -> None:
        for name, low in (
            ("memory_mb", 0),
            ("keep_alive_us", 0),
            ("pause_grace_us", 0),
            ("prewarm_check_us", 1),
        ):
            value = getattr(self, name)
            if not low <= value <= limits.TIME_MAX_US:
                raise ValueError(f"{name} is {value}; it must be in {low}..{limits.TIME_MAX_US}")


class PoolContainer:
    """One container.  ``running`` maps the activations in it to their time limits."""

    def __init__(self, container: str, epoch: int, spec: QueueSpec, keep: bool) -> None:
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
        # Delivered while it was paused, or being paused or resumed; none of them has started.
        self.held: list[Activation] = []
        # Somebody wants it, so that it is resumed as soon as it is paused.
        self.wanted = False
        # It stays until it is released, however long it idles.
        self.keep = keep


class ContainerPool:
    """The containers of one invoker.

    Invariants: C1-C12 (docs/invariants.md).
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._now_us = 0
        self._containers: dict[str, PoolContainer] = {}
        # Containers without a run, idle longest first; the value is since when.
        self._idle: dict[str, int] = {}
        # The same for those that are kept, which no keep-alive ends.
        self._kept_idle: dict[str, int] = {}
        # Those of both that are to be paused, in the same order; empty where nothing is paused.
        self._awake: dict[str, int] = {}
        # Accepted, and not started before the memory of prewarmed sandboxes is free; in order.
        self._waiting: dict[str, PoolContainer] = {}
        self._prewarmed = PrewarmedSandboxes(
            self.config.invoker, self.config.prewarm, self.config.prewarm_check_us
        )
        # Where nothing is prewarmed nothing of it is asked, twice in every step.
        self._prewarms = bool(self.config.prewarm)
        self._epochs: dict[str, int] = {}
        self._next_abort_us = _NEVER
        self._draining = False
        # When what runs is not waited for any longer, because the invoker drains.
        self._drained_us = _NEVER
        self._keep_alive_us = self.config.keep_alive_us
        self._pause_grace_us = self.config.pause_grace_us
        self._created = 0
        self._idle_held = False

    # --- the public face -----------------------------------------------------------------

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Effects that are events of a scheduler (``Pulled`` …) go to the one that leads the
        container's queue; the others are the node's to carry out.

        Raises:
          ValueError: Time goes backwards or beyond TIME_MAX_US, or the limit of a drain is none;
            nothing changed.
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
        """Return when ``TimeReached`` is wanted next, None when nothing is due.

        Cost: O(kinds that are prewarmed).
        """
        due_us = self._next_abort_us
        if self._prewarms:
            due_us = min(due_us, self._prewarmed.next_deadline_us())
        for since_us in () if self._idle_held else self._idle.values():
            due_us = min(due_us, since_us + self._keep_alive_us)
            break
        for since_us in self._awake.values():
            due_us = min(due_us, since_us + self._pause_grace_us)
            break
        return None if due_us == _NEVER else due_us

    def used_mb(self) -> int:
        """Return the memory of all sandboxes until the engine confirmed their removal."""
        used_mb = sum([c.spec.memory_mb for c in self._containers.values()])
        return used_mb - self._waiting_mb() + self._prewarmed.used_mb()

    def _waiting_mb(self) -> int:
        return sum([c.spec.memory_mb for c in self._waiting.values()])

    def counts(self) -> dict[str, int]:
        """Return the containers by state, and how many were ever created.  Cost: O(containers)."""
        counts = {state.name.lower(): 0 for state in ContainerState}
        for container in self._containers.values():
            counts[ContainerState(container.state_index).name.lower()] += 1
        counts["idle"] = len(self._idle) + len(self._kept_idle)
        counts["created"] = self._created
        starting, ready, going = self._prewarmed.counts()
        counts["prewarm_starting"] = starting
        counts["prewarm_ready"] = ready
        counts["prewarm_going"] = going
        return counts

    def check(self) -> None:
        """Assert every invariant that can be seen from inside.  Cost: O(containers)."""
        memory_mb = self.config.memory_mb
        assert self.used_mb() <= memory_mb  # C1
        # C10: what waits gets its memory from what is going.
        going_mb = self._prewarmed.going_mb()
        assert self.used_mb() + self._waiting_mb() - going_mb <= memory_mb
        assert not self._waiting or going_mb > 0
        for name, container in self._containers.items():
            state = container.state_index
            assert len(container.running) <= container.spec.concurrency  # C2
            asleep = state in (_PAUSING, _PAUSED, _RESUMING)
            rests = (state in (_FRESH, _READY) or asleep) and not container.wanted
            rests = rests and not container.running
            assert (name in self._idle) == (rests and not container.keep)
            assert (name in self._kept_idle) == (rests and container.keep)  # C12
            assert (name in self._waiting) == (state == _WAITING)
            assert asleep or not (container.held or container.wanted)  # C8
            assert container.wanted or not container.held
            assert (state == _RESUMING) <= container.wanted
            assert (state == _PAUSED) <= (not container.wanted)
            assert len(container.held) <= container.spec.concurrency
            if asleep or state in (_STARTING, _FRESH, _WAITING):
                assert not container.running  # C3: no run before the sandbox is up
            if state == _LEAVING:
                assert container.running or container.first is None
            for deadline_us in container.running.values():
                assert self._next_abort_us <= deadline_us  # C4: no run without a limit
        idle = {**self._idle, **self._kept_idle}
        assert idle.keys() <= self._containers.keys()
        times = list(self._idle.values())
        assert times == sorted(times)
        for name, since_us in self._awake.items():
            assert self._containers[name].state_index == _READY
            assert idle[name] == since_us
        times = list(self._awake.values())
        assert times == sorted(times)

    # --- deliveries and runs: the hot path -----------------------------------------------------

    def _delivered(self, event: Deliver, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        activation = event.activation
        activation_id = activation.activation_id
        if container is not None and (
            activation_id in container.running
            or (container.held and activation_id in [a.activation_id for a in container.held])
        ):
            return  # a repeated message
        if container is None or event.epoch < container.epoch:
            out.append(Returned(event.container, event.epoch, (activation_id,)))
            return
        state = container.state_index
        if state == _READY and len(container.running) < container.spec.concurrency:
            if not container.running:
                self._stir(container)
            self._start_run(container, activation, now_us, out)
        elif state == _FRESH:
            self._stir(container)
            container.state_index = _INITIALISING
            container.first = activation
            self._limit(container, activation_id, now_us)
            out.append(Initialise(event.container, activation))
        elif _PAUSING <= state <= _RESUMING and len(container.held) < container.spec.concurrency:
            container.held.append(activation)
            self._wake(container, out)
        else:
            # On its way out, or more than it offered: the activation has not started.
            out.append(Returned(event.container, event.epoch, (activation_id,)))

    def _start_run(
        self, container: PoolContainer, activation: Activation, now_us: int, out: list[object]
    ) -> None:
        """Run the activation in an initialised container."""
        if container.spec.concurrency > 1:
            container.unreported.append(activation.activation_id)
        self._limit(container, activation.activation_id, now_us)
        out.append(Run(container.container, activation, 0))

    def _limit(self, container: PoolContainer, activation_id: str, now_us: int) -> None:
        """Start the clock of a run."""
        # _NEVER marks a run that was given up: the longest limit of all ends just before it.
        deadline_us = min(now_us + container.spec.timeout_us, self._drained_us, _NEVER - 1)
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
                self._rest(container, now_us)
        else:
            self._leave(container, "its last run ended badly", True, out)

    def _rest(self, container: PoolContainer, now_us: int) -> None:
        """Count an initialised container as idle from now on."""
        (self._kept_idle if container.keep else self._idle)[container.container] = now_us
        if self._pause_grace_us > 0:
            self._awake[container.container] = now_us

    def _stir(self, container: PoolContainer) -> None:
        """Count a container as idle no longer; one that is not is fine."""
        (self._kept_idle if container.keep else self._idle).pop(container.container, None)
        if self._awake:
            self._awake.pop(container.container, None)

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
        # Prewarmed sandboxes are in nobody's way: their memory counts as free here.
        committed_mb = self.used_mb() + self._waiting_mb() - self._prewarmed.used_mb()
        refusal = ""
        if event.epoch < self._epochs.get(spec.queue, 0):
            refusal = f"epoch {event.epoch} of {spec.queue} is over"
        elif self._draining:
            refusal = f"invoker {self.config.invoker} is draining"
        elif committed_mb + spec.memory_mb > self.config.memory_mb:
            refusal = (
                f"{spec.memory_mb} MB do not fit: {committed_mb} of "
                f"{self.config.memory_mb} MB are in use at invoker {self.config.invoker}"
            )
        if refusal:
            out.append(CreationFailed(event.container, FailureClass.RECOVERABLE, refusal))
            return
        self._created += 1
        container = PoolContainer(event.container, event.epoch, spec, event.keep)
        sandbox = self._prewarmed.take(spec, now_us)
        if sandbox:
            self._containers[event.container] = container
            out.append(AssignSandbox(event.container, sandbox, spec))
            self._prewarmed.look(self._free_mb(), now_us, out)
            return
        missing_mb = spec.memory_mb - self._free_mb()
        self._containers[event.container] = container
        if missing_mb > 0:
            container.state_index = _WAITING
            self._waiting[event.container] = container
            self._prewarmed.evict(missing_mb - self._prewarmed.going_mb(), now_us, out)
        else:
            out.append(StartSandbox(event.container, spec))

    def _free_mb(self) -> int:
        """Return the memory that nobody has and nobody waits for; below 0 while some is going."""
        return self.config.memory_mb - self.used_mb() - self._waiting_mb()

    def _start_waiting(self, out: list[object]) -> None:
        """Start the containers whose memory is free now, in the order of their creation."""
        for name, container in list(self._waiting.items()):
            if self.used_mb() + container.spec.memory_mb > self.config.memory_mb:
                return
            del self._waiting[name]
            container.state_index = _STARTING
            out.append(StartSandbox(name, container.spec))

    def _sandbox_ready(self, event: SandboxReady, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._prewarmed.ready(event.container, out)
            return
        if container.state_index == _LEAVING:  # released while it started
            self._leave(container, container.cause, False, out)
            return
        if container.state_index != _STARTING:
            return  # said before
        self._serve(container, now_us, out)

    def _serve(self, container: PoolContainer, now_us: int, out: list[object]) -> None:
        """Offer the one slot that a container has until it is initialised."""
        container.state_index = _FRESH
        (self._kept_idle if container.keep else self._idle)[container.container] = now_us
        out.append(ContainerServing(container.container, self.config.invoker))
        out.append(Pulled(container.container, container.epoch, 1))

    def _sandbox_failed(self, event: SandboxFailed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._prewarmed.failed(event.container, now_us)
        elif _is_starting(container) and container.state_index != _WAITING:
            del self._containers[event.container]
            out.append(CreationFailed(event.container, event.failure, event.cause))
        else:
            return  # it is up, or was: its creation fails no more
        self._start_waiting(out)

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
        if container is None:
            self._prewarmed.broke(event.container, event.cause, now_us, out)
            return
        if container.state_index in (_REMOVING, _WAITING):
            return
        if container.state_index == _LEAVING and _is_starting(container):
            return  # said before
        # The node has answered for the runs; what it has not is unknown when the container goes.
        container.running.clear()
        container.first = None
        self._leave(container, event.cause, True, out)

    def _sandbox_removed(self, event: SandboxRemoved, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._prewarmed.removed(event.container, now_us)
        elif container.state_index != _WAITING:  # that one has none yet
            del self._containers[event.container]
            # When nobody had asked for the removal:
            self._stir(container)
            self._return_held(container, out)
            out.append(ContainerGone(event.container, container.cause or "its sandbox is gone"))
        self._start_waiting(out)

    def _release(self, event: Release, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch < container.epoch:
            return
        if container.state_index not in (_LEAVING, _REMOVING):
            self._leave(container, event.why, False, out)

    def _leave(self, container: PoolContainer, cause: str, tell: bool, out: list[object]) -> None:
        """Take no more work; remove the container as soon as nothing runs in it."""
        name = container.container
        if container.state_index == _WAITING:
            del self._containers[name]
            del self._waiting[name]
            out.append(CreationFailed(name, FailureClass.RECOVERABLE, cause))
            return
        starting = container.state_index == _STARTING
        self._stir(container)
        if tell and container.state_index != _LEAVING:
            out.append(ContainerLeaving(name, cause))
        container.state_index = _LEAVING
        container.cause = container.cause or cause
        self._return_held(container, out)
        if not container.running and not starting:
            container.state_index = _REMOVING
            out.append(Remove(name, container.cause))

    def _return_held(self, container: PoolContainer, out: list[object]) -> None:
        """Give back what was delivered and waits for the sandbox to run on (C8)."""
        container.wanted = False
        if container.held:
            ids = tuple([activation.activation_id for activation in container.held])
            container.held = []
            # A leader that came later was told of them, so they are its own.
            out.append(Returned(container.container, container.epoch, ids))

    # --- pausing and resuming ------------------------------------------------------------------

    def _resume(self, event: Resume, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch < container.epoch:
            return
        if _PAUSING <= container.state_index <= _RESUMING:
            self._wake(container, out)
        elif container.state_index == _READY:
            self._offer_all(container, out)  # it is awake: whoever asks has not heard so

    def _offer_all(self, container: PoolContainer, out: list[object]) -> None:
        """Offer every free slot of an initialised container anew."""
        free_slots = container.spec.concurrency - len(container.running)
        if free_slots > 0:
            started = self._started(container)
            out.append(Pulled(container.container, container.epoch, free_slots, started))

    def _wake(self, container: PoolContainer, out: list[object]) -> None:
        """Resume a container, as soon as it is paused."""
        self._stir(container)
        container.wanted = True
        if container.state_index == _PAUSED:
            container.state_index = _RESUMING
            out.append(ResumeSandbox(container.container))

    def _pause_idle(self, now_us: int, out: list[object]) -> None:
        while self._awake:
            name = next(iter(self._awake))
            if self._awake[name] + self._pause_grace_us > now_us:
                break
            del self._awake[name]
            self._containers[name].state_index = _PAUSING
            out.append(ContainerPaused(name))  # before the engine works on it: it takes a while
            out.append(PauseSandbox(name))

    def _sandbox_paused(self, event: SandboxPaused, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.state_index != _PAUSING:
            return
        container.state_index = _PAUSED
        if container.wanted:
            self._wake(container, out)

    def _sandbox_resumed(self, event: SandboxResumed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or container.state_index != _RESUMING:
            return
        container.state_index = _READY
        container.wanted = False
        for activation in container.held:
            self._start_run(container, activation, now_us, out)
        container.held = []
        self._offer_all(container, out)
        if not container.running:
            self._rest(container, now_us)

    # --- drain, adoption, time -----------------------------------------------------------------

    def _drain_requested(self, event: DrainRequested, now_us: int, out: list[object]) -> None:
        if not 0 <= event.limit_us <= limits.TIME_MAX_US:
            raise ValueError(f"limit_us is {event.limit_us}; it must be in 0..{limits.TIME_MAX_US}")
        self._draining = True
        self._prewarmed.leave_all(out)
        if event.limit_us > 0:
            self._drained_us = min(self._drained_us, now_us + event.limit_us)
            for container in self._containers.values():
                for activation_id, deadline_us in container.running.items():
                    if self._drained_us < deadline_us < _NEVER:
                        container.running[activation_id] = self._drained_us
                        self._next_abort_us = min(self._next_abort_us, self._drained_us)
        for container in list(self._containers.values()):
            if container.state_index not in (_LEAVING, _REMOVING):
                self._leave(container, "the invoker is draining", True, out)

    def _hold_idle(self, event: IdleHeld, now_us: int, out: list[object]) -> None:
        self._idle_held = event.on

    def _adopt(self, event: Adopt, now_us: int, out: list[object]) -> None:
        queue = event.queue
        if event.epoch < self._epochs.get(queue, 0):
            return
        self._epochs.pop(queue, None)
        self._epochs[queue] = event.epoch
        if len(self._epochs) > limits.EPOCHS_MAX:
            del self._epochs[next(iter(self._epochs))]
        held = []
        news: list[object] = []
        for name, container in self._containers.items():
            if container.spec.queue != queue:
                continue
            container.epoch = event.epoch
            state = container.state_index
            ids = [*container.running, *[a.activation_id for a in container.held]]
            held.append(Held(name, not _is_starting(container), tuple(ids), container.keep))
            # What was said to an earlier leader is void; it is said anew.
            if state in (_LEAVING, _REMOVING):
                news.append(ContainerLeaving(name, container.cause))
            elif _PAUSING <= state <= _RESUMING:
                news.append(ContainerPaused(name))
            elif state == _FRESH:
                news.append(Pulled(name, event.epoch, 1))
            elif state == _READY:
                self._offer_all(container, news)
        out.append(Adopted(self.config.invoker, queue, event.epoch, tuple(held)))
        out.extend(news)

    def _time_reached(self, event: TimeReached, now_us: int, out: list[object]) -> None:
        while self._idle and not self._idle_held:
            name = next(iter(self._idle))
            if self._idle[name] + self._keep_alive_us > now_us:
                break
            self._leave(self._containers[name], "it was idle for its keep-alive", True, out)
        self._pause_idle(now_us, out)
        if self._next_abort_us <= now_us:
            self._abort_overdue(now_us, out)
        if self._prewarms and self._prewarmed.next_deadline_us() <= now_us:
            self._prewarmed.look(self._free_mb(), now_us, out)

    def _abort_overdue(self, now_us: int, out: list[object]) -> None:
        """Give up the runs whose limit has passed; each is aborted once."""
        next_us = _NEVER
        for container in self._containers.values():
            for activation_id, deadline_us in container.running.items():
                if deadline_us <= now_us:
                    drained = deadline_us == self._drained_us
                    timeout_us = container.spec.timeout_us
                    out.append(Abort(container.container, activation_id, timeout_us, drained))
                    container.running[activation_id] = _NEVER
                else:
                    next_us = min(next_us, deadline_us)
        self._next_abort_us = next_us


def _is_starting(container: PoolContainer) -> bool:
    """Tell whether its sandbox is not up yet; it may be on its way out already."""
    state = container.state_index
    if state == _WAITING:
        return True
    # What leaves although it was up runs something; else it is being removed.
    return state == _STARTING or (state == _LEAVING and not container.running)


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    Create: ContainerPool._create,
    Resume: ContainerPool._resume,
    Release: ContainerPool._release,
    Adopt: ContainerPool._adopt,
    SandboxReady: ContainerPool._sandbox_ready,
    SandboxFailed: ContainerPool._sandbox_failed,
    SandboxBroke: ContainerPool._sandbox_broke,
    SandboxRemoved: ContainerPool._sandbox_removed,
    SandboxPaused: ContainerPool._sandbox_paused,
    SandboxResumed: ContainerPool._sandbox_resumed,
    Initialised: ContainerPool._initialised,
    DrainRequested: ContainerPool._drain_requested,
    IdleHeld: ContainerPool._hold_idle,
    TimeReached: ContainerPool._time_reached,
}
