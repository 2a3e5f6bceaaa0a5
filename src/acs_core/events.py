"""What the core is told: the work, the queues, and what happened to containers.

Events are plain values: made once, read by ``Scheduler.step`` or ``ContainerPool.step``,
never changed by them (an ``Activation`` travels inside and is the work itself).  Times are
microseconds of the caller's monotonic clock, ids opaque strings.

A number out of its range, or a name that would be kept and is too long, makes no event:
ValueError that names the field, the value and the limit.  So ``step`` never finds one half way.

Events that a scheduler takes are what an invoker's pool sends, and the other way round (see
``effects``): a link carries them, nobody translates.
"""

from __future__ import annotations

from enum import IntEnum

from .limits import (
    CALLS_RESERVE,
    CAUSES_MAX,
    CONCURRENCY_MAX,
    COUNT_MAX,
    CREATION_MAX_US,
    CREATIONS_MIN_PER_S,
    MEMORY_MAX_MB,
    NAME_MAX,
    TIME_MAX_US,
)

# At hand as C numbers for what is made for every activation.
_SLOTS_MAX = CONCURRENCY_MAX
_TIME_MAX_US = TIME_MAX_US


class Outcome(IntEnum):
    """How a run ended; the numbers are OpenWhisk's status codes."""

    SUCCESS = 0
    APPLICATION_ERROR = 1
    DEVELOPER_ERROR = 2
    PLATFORM_ERROR = 3


class FailureClass(IntEnum):
    """Whether trying a failed creation again can help."""

    RECOVERABLE = 0
    """No room, engine busy or gone: the work waits on."""
    FINAL = 1
    """Nothing is there to start: waiting work is answered with the cause."""
    UNFIT = 2
    """As FINAL, and the fault is the action's own: the image that it names cannot be had."""


_FAILURE_MAX = max(FailureClass)


class QueueSpec:
    """What is known of a queue when it opens; shared by its containers.

    Args:
      queue: Its id, unique for (invoking namespace, action, revision).
      namespace, action, revision: What the queue is for.
      memory_mb: Memory of one container, in MB, > 0.
      concurrency: Runs at once in one container, 1..CONCURRENCY_MAX.
      timeout_us: Time limit of a run, in microseconds, > 0.
      action_limit: Most containers of this action; None: only the namespace's cap binds.
      kind: The runtime, as far as sandboxes can be prewarmed for it; "": not at all.
      containers_min: The floor: so many containers are kept while the queue is open, whether there
        is work or not, as far as the caps and what is free or idles allow; 0..COUNT_MAX.
      wait_target_us: Target for the 99th percentile of the wait; None: what the rule of demand has.
      wait_max_us: Longest wait of an activation, > 0; None: what the scheduler has for all.
    Raises: ValueError that names the field, the value and the limit.
    """

    def __init__(
        self,
        queue: str,
        namespace: str,
        action: str,
        revision: int,
        *,
        memory_mb: int = 256,
        concurrency: int = 1,
        timeout_us: int = 60_000_000,
        action_limit: int | None = None,
        kind: str = "",
        containers_min: int = 0,
        wait_target_us: int | None = None,
        wait_max_us: int | None = None,
    ) -> None:
        for field, text in (("queue", queue), ("namespace", namespace), ("action", action)):
            _check_name(field, text)
        _check_range("revision", revision, 0, TIME_MAX_US)
        _check_range("memory_mb", memory_mb, 1, MEMORY_MAX_MB)
        _check_range("concurrency", concurrency, 1, CONCURRENCY_MAX)
        _check_range("timeout_us", timeout_us, 1, TIME_MAX_US)
        if action_limit is not None:
            _check_range("action_limit", action_limit, 0, COUNT_MAX)
        if kind != "":
            _check_name("kind", kind)
        _check_range("containers_min", containers_min, 0, COUNT_MAX)
        if wait_target_us is not None:
            _check_range("wait_target_us", wait_target_us, 0, TIME_MAX_US)
        if wait_max_us is not None:
            _check_range("wait_max_us", wait_max_us, 1, TIME_MAX_US)
        self.queue = queue
        self.namespace = namespace
        self.action = action
        self.revision = revision
        self.memory_mb = memory_mb
        self.concurrency = concurrency
        self.timeout_us = timeout_us
        self.action_limit = action_limit
        self.kind = kind
        self.containers_min = containers_min
        self.wait_target_us = wait_target_us
        self.wait_max_us = wait_max_us


class Activation:
    """One accepted piece of work, from its arrival to its end.

    Args:
      activation_id: Unique; 1..NAME_MAX characters.
      payload: Opaque bytes; the core neither reads nor copies them.
      arrived_us: When the controller accepted it; the wait is counted from here.
      deadline_us: Latest time at which it may still be handed to a container; 0: the queue's
        own wait bound alone.
      causes: Ids of the activations that wait for its end, outermost first, 0..CAUSES_MAX; an
        activation whose caller does not wait has none.
    Raises: ValueError that names the field, the value and the limit.
    """

    def __init__(
        self,
        activation_id: str,
        payload: bytes,
        arrived_us: int,
        deadline_us: int = 0,
        causes: tuple[str, ...] = (),
    ) -> None:
        _check_name("activation_id", activation_id)
        _check_range("arrived_us", arrived_us, 0, _TIME_MAX_US)
        _check_range("deadline_us", deadline_us, 0, _TIME_MAX_US)
        if causes:
            if len(causes) > CAUSES_MAX:
                raise ValueError(f"causes has {len(causes)} ids; it must have at most {CAUSES_MAX}")
            for cause in causes:
                _check_name("causes", cause)
        self.activation_id = activation_id
        self.payload = payload
        self.arrived_us = arrived_us
        self.deadline_us = deadline_us
        self.causes = causes
        # The scheduler's own notes on it.
        self.queue = ""
        self.delivered_us = -1
        self.started = False
        self.withdrawn = False


class Completion:
    """The end of one run, as it rides on a container's next pull."""

    def __init__(self, activation_id: str, init_us: int, run_us: int, outcome: int) -> None:
        _check_range("init_us", init_us, 0, _TIME_MAX_US)
        _check_range("run_us", run_us, 0, _TIME_MAX_US)
        _check_range("outcome", outcome, 0, 3)
        self.activation_id = activation_id
        self.init_us = init_us
        self.run_us = run_us
        self.outcome = outcome


class Event:
    """Base of everything that ``step`` takes."""


# --- told to a scheduler by its node ---------------------------------------------------------


class QueueOpened(Event):
    """This scheduler leads the queue now, under ``epoch``.

    ``history_us`` is the mean run time known from earlier; 0: what the scheduler remembers.
    """

    def __init__(self, spec: QueueSpec, epoch: int, history_us: int = 0) -> None:
        _check_range("epoch", epoch, 0, TIME_MAX_US)
        _check_range("history_us", history_us, 0, TIME_MAX_US)
        self.spec = spec
        self.epoch = epoch
        self.history_us = history_us


class QueueClosing(Event):
    """Close the queue: no arrivals, drain through its containers, then remove it."""

    def __init__(self, queue: str, why: str) -> None:
        self.queue = queue
        self.why = why


class LeadershipLost(Event):
    """Another scheduler leads the queue: forward what waits, deliver nothing more."""

    def __init__(self, queue: str, to: str) -> None:
        self.queue = queue
        self.to = to


class LimitsChanged(Event):
    """The most containers that a namespace may hold, and its weight against others, from now on.

    ``reserve`` of them are for calls, see ``limits.CALLS_RESERVE``.
    """

    def __init__(
        self,
        namespace: str,
        containers_max: int,
        weight: float = 1.0,
        reserve: int = CALLS_RESERVE,
    ) -> None:
        _check_name("namespace", namespace)
        _check_range("containers_max", containers_max, 0, COUNT_MAX)
        _check_range("reserve", reserve, 0, COUNT_MAX)
        self.namespace = namespace
        self.containers_max = containers_max
        self.weight = weight
        self.reserve = reserve


class Arrived(Event):
    """An accepted activation for a queue.  A known id is ignored (a controller's resend)."""

    def __init__(self, queue: str, activation: Activation) -> None:
        self.queue = queue
        self.activation = activation


class Cancelled(Event):
    """Nobody wants the activation any more; without effect once it was delivered."""

    def __init__(self, activation_id: str) -> None:
        self.activation_id = activation_id


class Reserved(Event):
    """The coordination granted these containers of the ``Reserve`` with that serial, no others.

    An answer to an earlier one changes nothing; what it grants is given back.
    """

    def __init__(self, queue: str, serial: int, containers: tuple[str, ...]) -> None:
        _check_range("serial", serial, 0, TIME_MAX_US)
        self.queue = queue
        self.serial = serial
        self.containers = containers


class Denied(Event):
    """The coordination granted nothing of the ``Reserve`` with that serial."""

    def __init__(self, queue: str, serial: int, reason: str) -> None:
        _check_range("serial", serial, 0, TIME_MAX_US)
        self.queue = queue
        self.serial = serial
        self.reason = reason


class HungerElsewhere(Event):
    """A queue of another scheduler, or one of this that was denied, finds no room.

    Richer ones take none before another scheduler's, until ``HungerEnded`` or the next word on it.

    Args:
      queue, namespace: Whose hunger it is.
      containers: What that queue has and will have, 0..COUNT_MAX.
      namespace_containers: What its namespace has in the whole cluster, 0..COUNT_MAX.
      lacks_memory: It lacks memory; else a place of its namespace.
      giver: The queue that is asked for a container, if that is here; empty: nobody is.
      giver_containers: What the giver's namespace has in the whole cluster, 0..COUNT_MAX.
    Raises: ValueError that names the field, the value and the limit.
    """

    def __init__(
        self,
        queue: str,
        namespace: str,
        containers: int,
        namespace_containers: int,
        lacks_memory: bool,
        giver: str = "",
        giver_containers: int = 0,
    ) -> None:
        _check_name("queue", queue)
        _check_name("namespace", namespace)
        _check_range("containers", containers, 0, COUNT_MAX)
        _check_range("namespace_containers", namespace_containers, 0, COUNT_MAX)
        _check_range("giver_containers", giver_containers, 0, COUNT_MAX)
        self.queue = queue
        self.namespace = namespace
        self.containers = containers
        self.namespace_containers = namespace_containers
        self.lacks_memory = lacks_memory
        self.giver = giver
        self.giver_containers = giver_containers


class HungerEnded(Event):
    """The queue of a ``HungerElsewhere`` has what it wanted, or wants it no more."""

    def __init__(self, queue: str) -> None:
        self.queue = queue


class InvokerReported(Event):
    """An invoker lives: its memory for containers and how fast its engine creates them.

    ``memory_mb`` is its whole, ``elsewhere_mb`` what other schedulers' containers hold of it.
    ``creation_us`` is the measured mean of an unloaded creation, 0 while unknown;
    ``creations_per_s`` what its engine manages, 0.0 while unknown.
    """

    def __init__(
        self,
        invoker: str,
        memory_mb: int,
        elsewhere_mb: int = 0,
        creation_us: int = 0,
        creations_per_s: float = 0.0,
    ) -> None:
        _check_name("invoker", invoker)
        _check_range("memory_mb", memory_mb, 0, MEMORY_MAX_MB)
        _check_range("elsewhere_mb", elsewhere_mb, 0, MEMORY_MAX_MB)
        _check_range("creation_us", creation_us, 0, CREATION_MAX_US)
        if not (creations_per_s == 0.0 or creations_per_s >= CREATIONS_MIN_PER_S):
            raise ValueError(
                f"creations_per_s is {creations_per_s!r}; "
                f"it must be 0 or at least {CREATIONS_MIN_PER_S}"
            )
        self.invoker = invoker
        self.memory_mb = memory_mb
        self.elsewhere_mb = elsewhere_mb
        self.creation_us = creation_us
        self.creations_per_s = creations_per_s


class InvokerGone(Event):
    """The invoker's lease has expired: what it held and did not report is *unknown*."""

    def __init__(self, invoker: str) -> None:
        self.invoker = invoker


class TimeReached(Event):
    """Time has passed: do what is due.  Also what ``next_deadline_us`` asks for."""


# --- told to a scheduler by an invoker -------------------------------------------------------


class Held:
    """A container that an invoker holds, and the delivered activations that have not ended.

    ``serving`` is False while it is being created; ``keep`` is that of its ``Create``.
    """

    def __init__(
        self,
        container: str,
        serving: bool,
        activation_ids: tuple[str, ...] = (),
        keep: bool = False,
    ) -> None:
        _check_name("container", container)
        for activation_id in activation_ids:
            _check_name("activation_ids", activation_id)
        self.container = container
        self.serving = serving
        self.activation_ids = activation_ids
        self.keep = keep


class Adopted(Event):
    """The invoker obeys ``epoch`` of the queue and nothing lower; ``held`` is what it has of it.

    What an earlier leader delivered must not be delivered again.
    """

    def __init__(
        self,
        invoker: str,
        queue: str,
        epoch: int,
        held: tuple[Held, ...] = (),
    ) -> None:
        _check_range("epoch", epoch, 0, TIME_MAX_US)
        self.invoker = invoker
        self.queue = queue
        self.epoch = epoch
        self.held = held


class ContainerServing(Event):
    """The container is up and its reservation was converted; pulls follow."""

    def __init__(self, container: str, invoker: str) -> None:
        self.container = container
        self.invoker = invoker


class CreationFailed(Event):
    """The container could not be created; ``failure`` is a FailureClass."""

    def __init__(self, container: str, failure: int, cause: str) -> None:
        _check_range("failure", failure, 0, _FAILURE_MAX)
        self.container = container
        self.failure = failure
        self.cause = cause


class Pulled(Event):
    """A container's message: what ended and started since the last one, and free slots.

    ``free_slots`` are offered anew; offered and used ones never exceed the concurrency, so a
    repeated message does no harm.
    """

    def __init__(
        self,
        container: str,
        epoch: int,
        free_slots: int,
        started: tuple[str, ...] = (),
        completions: tuple[Completion, ...] = (),
    ) -> None:
        _check_range("epoch", epoch, 0, _TIME_MAX_US)
        _check_range("free_slots", free_slots, 0, _SLOTS_MAX)
        self.container = container
        self.epoch = epoch
        self.free_slots = free_slots
        self.started = started
        self.completions = completions


class Returned(Event):
    """A live invoker gives back deliveries that it has not started: they go to the front.

    ``epoch`` is that of the deliveries: those of an earlier leader are none of this one's.
    """

    def __init__(self, container: str, epoch: int, activation_ids: tuple[str, ...]) -> None:
        _check_range("epoch", epoch, 0, TIME_MAX_US)
        self.container = container
        self.epoch = epoch
        self.activation_ids = activation_ids


class ContainerPaused(Event):
    """The container sleeps, or is about to: what it offered is void until it pulls again.

    What was delivered to it meanwhile wakes it.
    """

    def __init__(self, container: str) -> None:
        self.container = container


class ContainerLeaving(Event):
    """The container takes no more work; it still counts until it is gone."""

    def __init__(self, container: str, cause: str) -> None:
        self.container = container
        self.cause = cause


class ContainerGone(Event):
    """The engine confirmed the removal: the container counts no longer."""

    def __init__(self, container: str, cause: str) -> None:
        self.container = container
        self.cause = cause


# --- told to a pool by its node --------------------------------------------------------------


class SandboxReady(Event):
    """The sandbox of a container is up and may be initialised."""

    def __init__(self, container: str) -> None:
        self.container = container


class SandboxFailed(Event):
    """The sandbox could not be started; nothing of it is left."""

    def __init__(self, container: str, failure: int, cause: str) -> None:
        _check_range("failure", failure, 0, _FAILURE_MAX)
        self.container = container
        self.failure = failure
        self.cause = cause


class SandboxBroke(Event):
    """A started sandbox ended by itself, or could not be paused or resumed.

    The node has answered for what ran in it.
    """

    def __init__(self, container: str, cause: str) -> None:
        self.container = container
        self.cause = cause


class SandboxRemoved(Event):
    """The engine confirmed that the sandbox is gone."""

    def __init__(self, container: str) -> None:
        self.container = container


class SandboxPaused(Event):
    """The sandbox takes no processor time until it is resumed."""

    def __init__(self, container: str) -> None:
        self.container = container


class SandboxResumed(Event):
    """The sandbox runs on."""

    def __init__(self, container: str) -> None:
        self.container = container


class Initialised(Event):
    """``/init`` of the container succeeded and took ``init_us``."""

    def __init__(self, container: str, init_us: int) -> None:
        _check_range("init_us", init_us, 0, _TIME_MAX_US)
        self.container = container
        self.init_us = init_us


class RunEnded(Event):
    """The activation's ``/init`` or ``/run`` is over, and its result is on its way."""

    def __init__(self, container: str, activation_id: str, run_us: int, outcome: int) -> None:
        _check_range("run_us", run_us, 0, _TIME_MAX_US)
        _check_range("outcome", outcome, 0, 3)
        self.container = container
        self.activation_id = activation_id
        self.run_us = run_us
        self.outcome = outcome


class DrainRequested(Event):
    """Take no more work, let runs end, remove every container.

    What still runs ``limit_us`` after the first such event is given up; 0: each has its own limit.
    """

    def __init__(self, limit_us: int = 0) -> None:
        self.limit_us = limit_us


class IdleHeld(Event):
    """Keep what idles from now on, or no longer: what goes could not be created again."""

    def __init__(self, on: bool) -> None:
        self.on = on


def _check_name(field: str, text: str) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= NAME_MAX:
        shown = f"{text!r:.80}"
        raise ValueError(f"{field} is {shown}; it must be a string of 1..{NAME_MAX} characters")


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if isinstance(value, int):
        try:
            number = value
        except OverflowError:  # pragma: no cover: in C alone, for what has no 64 bits
            number = low - 1
        if low <= number <= high:
            return
    raise ValueError(f"{field} is {value!r}; it must be an integer in {low}..{high}")


def refused_time(now_us: int, was_us: int) -> Exception:
    """Return what a ``step`` at ``now_us`` raises when its last one was at ``was_us``."""
    if not -(2**63) <= now_us < 2**63:  # as C says it, where it never comes so far
        return OverflowError(f"now_us is {now_us}; it must have 64 bits")
    if now_us < was_us:
        return ValueError(f"now_us is {now_us}; time was {was_us} already")
    return ValueError(f"now_us is {now_us}; it must be at most {TIME_MAX_US}")
