"""What the core asks for.  The caller performs effects in the order in which they come.

What must have happened before an effect is carried out stands in its docstring.  Effects
that an invoker's pool takes as its events (``Create``, ``Deliver``, ``Resume``, ``Release``,
``Adopt``) are sent to it as they are.
"""

from __future__ import annotations

from enum import IntEnum

from .events import Activation, Event, QueueSpec, _check_name, _check_range
from .limits import TIME_MAX_US


class Cause(IntEnum):
    """Why an activation ends without a run."""

    QUEUE_FULL = 0
    """The backlog is at its bound; worth another try."""
    EXPIRED = 1
    """It waited longer than the bound."""
    CREATION_FAILED = 2
    """Its container cannot be created, whatever is tried."""
    CLOSED = 3
    """The queue was closed before its turn."""
    CANCELLED = 4
    """Nobody wants it any more."""
    UNKNOWN = 5
    """It was delivered, its container is gone and nobody knows whether it ran."""
    NO_CONTAINER = 6
    """The namespace may hold no container at all."""
    CALLERS_HOLD = 7
    """A call whose callers, and others like them, hold every container that it could get."""
    WOULD_EXPIRE = 8
    """It would wait longer than its bound on all containers that its queue may ever get."""
    UNFIT = 9
    """As CREATION_FAILED, and the fault is the action's own."""


class Place:
    """Where a container is to be created; its id is unique for ever."""

    def __init__(self, container: str, invoker: str) -> None:
        self.container = container
        self.invoker = invoker


# --- a scheduler asks its node ---------------------------------------------------------------


class Reserve:
    """Reserve these places in one transaction; answer with ``Reserved`` or ``Denied``.

    The answer names ``serial``, which no other one of this scheduler has.
    """

    def __init__(
        self,
        queue: str,
        epoch: int,
        serial: int,
        namespace: str,
        memory_mb: int,
        places: tuple[Place, ...],
    ) -> None:
        self.queue = queue
        self.epoch = epoch
        self.serial = serial
        self.namespace = namespace
        self.memory_mb = memory_mb
        self.places = places


class Unreserve:
    """Give these granted places back: nothing was or will be created there."""

    def __init__(self, queue: str, epoch: int, containers: tuple[str, ...]) -> None:
        self.queue = queue
        self.epoch = epoch
        self.containers = containers


class Reject:
    """End the activation without a run: ``cause`` is a Cause, ``reason`` is for people.

    ``retry_after_us`` says when another try is worth it, 0 when nothing is known.
    """

    def __init__(
        self, activation: Activation, cause: int, reason: str, retry_after_us: int
    ) -> None:
        self.activation = activation
        self.cause = cause
        self.reason = reason
        self.retry_after_us = retry_after_us


class Forward:
    """Hand these activations, never delivered, to the scheduler ``to``, in this order."""

    def __init__(self, queue: str, activations: tuple[Activation, ...], to: str) -> None:
        self.queue = queue
        self.activations = activations
        self.to = to


class CloseQueue:
    """The queue is removed: give up its leadership.  Nothing of it is left in the core."""

    def __init__(self, queue: str, epoch: int) -> None:
        self.queue = queue
        self.epoch = epoch


class Throttle:
    """The queue takes arrivals or does not; tell the controllers.  ``reason`` is for people.

    Each throttle is lifted before the queue is closed or forwarded.
    """

    def __init__(self, queue: str, on: bool, reason: str) -> None:
        self.queue = queue
        self.on = on
        self.reason = reason


class Decided:
    """A decision about a queue with all that went into it; only when asked for."""

    def __init__(self, queue: str, snapshot: object, decision: object) -> None:
        self.queue = queue
        self.snapshot = snapshot
        self.decision = decision


class Differed:
    """The shadow rule would have decided otherwise, on this snapshot; only when asked for."""

    def __init__(self, queue: str, snapshot: object, decision: object) -> None:
        self.queue = queue
        self.snapshot = snapshot
        self.decision = decision


# --- a scheduler asks an invoker; its pool takes these as events ------------------------------


class Adopt(Event):
    """Obey ``epoch`` of the queue from now on and answer with ``Adopted``.

    ``invoker`` is who is asked because it has joined; "": every member, when a queue opens.
    Must reach it before anything else under that epoch.
    Raises: ValueError that names the field, the value and the limit.
    """

    def __init__(self, queue: str, epoch: int, invoker: str = "") -> None:
        _check_name("queue", queue)
        _check_range("epoch", epoch, 0, TIME_MAX_US)
        self.queue = queue
        self.epoch = epoch
        self.invoker = invoker


class Create(Event):
    """Create a container for the queue; its reservation is committed.

    With ``keep`` it belongs to the queue's floor: it stays, however long it idles, until it is
    released.
    Raises: ValueError that names the field, the value and the limit.
    """

    def __init__(
        self, container: str, invoker: str, epoch: int, spec: QueueSpec, keep: bool = False
    ) -> None:
        _check_name("container", container)
        _check_range("epoch", epoch, 0, TIME_MAX_US)
        self.container = container
        self.invoker = invoker
        self.epoch = epoch
        self.spec = spec
        self.keep = keep


class Deliver(Event):
    """Run the activation in the container, which offered the slot."""

    def __init__(self, container: str, invoker: str, epoch: int, activation: Activation) -> None:
        self.container = container
        self.invoker = invoker
        self.epoch = epoch
        self.activation = activation


class Resume(Event):
    """Wake the paused container: it is wanted, and pulls when it is awake."""

    def __init__(self, container: str, invoker: str, epoch: int) -> None:
        self.container = container
        self.invoker = invoker
        self.epoch = epoch


class Release(Event):
    """Remove the container once what runs in it has ended."""

    def __init__(self, container: str, invoker: str, epoch: int, why: str) -> None:
        self.container = container
        self.invoker = invoker
        self.epoch = epoch
        self.why = why


# --- a pool asks its node --------------------------------------------------------------------


class StartSandbox:
    """Start a sandbox; answer with ``SandboxReady`` or ``SandboxFailed``."""

    def __init__(self, container: str, spec: QueueSpec) -> None:
        self.container = container
        self.spec = spec


class PrewarmSandbox:
    """Start a sandbox of a kind, for an action that is not known yet.

    Answer with ``SandboxReady`` or ``SandboxFailed``.
    """

    def __init__(self, container: str, kind: str, memory_mb: int) -> None:
        self.container = container
        self.kind = kind
        self.memory_mb = memory_mb


class AssignSandbox:
    """The prewarmed ``sandbox``, which is up, is this container from now on.

    All that is reported of it afterwards is reported of ``container``: first that it is ready, or
    that it failed.  So a node with others beside it confirms the reservation as of any container.
    """

    def __init__(self, container: str, sandbox: str, spec: QueueSpec) -> None:
        self.container = container
        self.sandbox = sandbox
        self.spec = spec


class PauseSandbox:
    """Pause the sandbox; answer with ``SandboxPaused``, or ``SandboxBroke`` when it cannot be."""

    def __init__(self, container: str) -> None:
        self.container = container


class ResumeSandbox:
    """Resume the sandbox; answer with ``SandboxResumed``, or ``SandboxBroke`` when it cannot be."""

    def __init__(self, container: str) -> None:
        self.container = container


class Initialise:
    """Send ``/init`` on behalf of the activation.

    Answer with ``Initialised``, or, when it fails, with ``RunEnded`` (DEVELOPER_ERROR).
    """

    def __init__(self, container: str, activation: Activation) -> None:
        self.container = container
        self.activation = activation


class Run:
    """Send ``/run``; answer with ``RunEnded`` after the result was handed on.

    ``init_us`` is the time of the ``/init`` on behalf of this activation, 0 when it was warm.
    """

    def __init__(self, container: str, activation: Activation, init_us: int) -> None:
        self.container = container
        self.activation = activation
        self.init_us = init_us


class Abort:
    """Give the run up: answer for it and report ``RunEnded``.

    It has exceeded its time limit; or, ``drained``, the invoker does not wait for it any longer.
    """

    def __init__(
        self, container: str, activation_id: str, timeout_us: int, drained: bool = False
    ) -> None:
        self.container = container
        self.activation_id = activation_id
        self.timeout_us = timeout_us
        self.drained = drained


class Remove:
    """Remove the sandbox; answer with ``SandboxRemoved`` when the engine has confirmed it.

    It may be paused, or on its way there or back; that is not waited for.
    """

    def __init__(self, container: str, cause: str) -> None:
        self.container = container
        self.cause = cause
