"""Between the protobuf messages of ``acs.proto`` and what the nodes and the core speak.

The only place that looks at foreign input: what is decoded keeps every bound that the core takes
for granted, or it is a ``WireError`` that names the message, the field, the value and the limit.
Links, frames and their order are in ``peer_link``.

Times on the wire are the sender's monotonic clock; ``decode`` is told by how much the receiver's
is ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from acs_core.effects import Adopt, Create, Deliver, Reject, Release, Resume, Throttle
from acs_core.events import (
    Activation,
    Adopted,
    Completion,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    Held,
    InvokerReported,
    Pulled,
    QueueSpec,
    Returned,
)
from acs_core.limits import CONCURRENCY_MAX, NAME_MAX, TIME_MAX_US

from . import acs_pb2 as pb
from .links import (
    ActionFound,
    ActionWanted,
    Cancel,
    Close,
    Drained,
    Fence,
    Fenced,
    Inquiry,
    Logs,
    Misdirected,
    NotHeld,
    QueueClosed,
    Result,
    Submit,
)

TEXT_MAX: Final = 65_536
"""Characters of a reason or a cause, which is for people."""

PAYLOAD_BYTES_MAX: Final = 2 * 1024 * 1024
"""Arguments or a result: 1 MiB each, and what the platform adds."""

LIST_MAX: Final = 100_000
"""Entries of one list: containers of a queue, activations that are asked for."""

DOCUMENT_BYTES_MAX: Final = 80 * 1024 * 1024
"""An action with its code: 48 MiB, a third more as base64, and some."""

_TENS: Final[dict[tuple[int, int], int]] = {
    (pb.CONTROLLER, pb.SCHEDULER): 0,
    (pb.SCHEDULER, pb.CONTROLLER): 1,
    (pb.SCHEDULER, pb.INVOKER): 2,
    (pb.INVOKER, pb.SCHEDULER): 3,
    (pb.INVOKER, pb.CONTROLLER): 4,
    (pb.CONTROLLER, pb.INVOKER): 5,
}
"""How the fields of ``Message`` are numbered: who says it to whom."""

_CAUSE_MAX: Final = max(pb.Cause.values())


class WireError(ValueError):
    """A message of another node has no meaning; the text names field, value and limit."""


def kinds(sender: int, receiver: int) -> frozenset[str]:
    """Return the kinds of messages that a role may send to another; none where they do not talk."""
    tens = _TENS.get((sender, receiver))
    return frozenset(f.name for f in pb.Message.DESCRIPTOR.fields if f.number // 10 == tens)


def encode(message: object) -> pb.Message:
    """Return the protobuf message.  Raises: TypeError for what does not travel on links."""
    found = _ENCODERS.get(type(message))
    if found is None:
        raise TypeError(f"{type(message).__name__} does not travel between nodes")
    kind, fill = found
    encoded = pb.Message()
    part = getattr(encoded, kind)
    part.SetInParent()
    fill(part, message)
    return encoded


def decode(message: pb.Message, ahead_us: int = 0) -> object:
    """Return what ``encode`` was given, its times moved to the clock of the receiver.

    Raises: WireError.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise WireError("message is empty, or of a kind that this version does not know")
    try:
        return _DECODERS[kind](getattr(message, kind), ahead_us)
    except WireError:
        raise
    except ValueError as error:  # what the core's own constructors say
        raise WireError(f"{kind}.{error}") from None


# --- checks ----------------------------------------------------------------------------------


def _name(field: str, text: str) -> str:
    if not 0 < len(text) <= NAME_MAX:
        raise WireError(f"{field} is {text!r:.80}; it must be a string of 1..{NAME_MAX} characters")
    return text


def _names(field: str, texts: Iterable[str], most: int = LIST_MAX) -> tuple[str, ...]:
    names = tuple(texts)
    if len(names) > most:
        raise WireError(f"{field} has {len(names)} entries; it must have at most {most}")
    for name in names:
        _name(field, name)
    return names


def _text(field: str, text: str) -> str:
    if len(text) > TEXT_MAX:
        raise WireError(f"{field} has {len(text)} characters; it must have at most {TEXT_MAX}")
    return text


def _bytes(field: str, data: bytes, most: int = PAYLOAD_BYTES_MAX) -> bytes:
    if len(data) > most:
        raise WireError(f"{field} has {len(data)} bytes; it must have at most {most}")
    return data


def _number(field: str, value: int, most: int = TIME_MAX_US) -> int:
    if not 0 <= value <= most:
        raise WireError(f"{field} is {value}; it must be an integer in 0..{most}")
    return value


def _part(field: str, message: Any, name: str) -> Any:
    if not message.HasField(name):
        raise WireError(f"{field}.{name} is missing")
    return getattr(message, name)


def _time(field: str, value: int, ahead_us: int) -> int:
    # Older than the receiver's clock: as old as it can say.
    return max(0, _number(field, value) + ahead_us)


# --- parts -----------------------------------------------------------------------------------


# Parts are filled where they lie: protobuf copies what a constructor is given, at every level.


def _to_spec(part: pb.QueueSpec, spec: QueueSpec) -> None:
    part.queue = spec.queue
    part.namespace = spec.namespace
    part.action = spec.action
    part.revision = spec.revision
    part.memory_mb = spec.memory_mb
    part.concurrency = spec.concurrency
    part.timeout_us = spec.timeout_us
    if spec.action_limit is not None:
        part.action_limit = spec.action_limit
    part.kind = spec.kind
    part.containers_min = spec.containers_min
    if spec.wait_target_us is not None:
        part.wait_target_us = spec.wait_target_us
    if spec.wait_max_us is not None:
        part.wait_max_us = spec.wait_max_us


def _spec(field: str, m: pb.QueueSpec) -> QueueSpec:
    try:
        return QueueSpec(
            m.queue,
            m.namespace,
            m.action,
            m.revision,
            memory_mb=m.memory_mb,
            concurrency=m.concurrency,
            timeout_us=m.timeout_us,
            action_limit=m.action_limit if m.HasField("action_limit") else None,
            kind=m.kind,
            containers_min=m.containers_min,
            wait_target_us=m.wait_target_us if m.HasField("wait_target_us") else None,
            wait_max_us=m.wait_max_us if m.HasField("wait_max_us") else None,
        )
    except ValueError as error:
        raise WireError(f"{field}.{error}") from None


def _to_activation(part: pb.Activation, activation: Activation) -> None:
    part.activation_id = activation.activation_id
    part.payload = activation.payload
    part.arrived_us = activation.arrived_us
    part.deadline_us = activation.deadline_us
    part.causes.extend(activation.causes)


def _activation(field: str, m: pb.Activation, ahead_us: int) -> Activation:
    deadline_us = m.deadline_us
    if deadline_us:
        # 0 says that there is none; one that has passed has passed at 1 as well.
        deadline_us = max(1, _time(f"{field}.deadline_us", deadline_us, ahead_us))
    try:
        return Activation(
            m.activation_id,
            _bytes(f"{field}.payload", m.payload),
            _time(f"{field}.arrived_us", m.arrived_us, ahead_us),
            deadline_us,
            tuple(m.causes),
        )
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"{field}.{error}") from None


# --- encoders --------------------------------------------------------------------------------


def _of_submit(part: pb.Submit, m: Submit) -> None:
    _to_spec(part.spec, m.spec)
    _to_activation(part.activation, m.activation)


def _of_reject(part: pb.Reject, m: Reject) -> None:
    part.activation_id = m.activation.activation_id
    part.cause = m.cause  # type: ignore[assignment]  # the same numbers, a test compares them
    part.reason = m.reason[:TEXT_MAX]
    part.retry_after_us = m.retry_after_us


def _of_deliver(part: pb.Deliver, m: Deliver) -> None:
    part.container = m.container
    part.invoker = m.invoker
    part.epoch = m.epoch
    _to_activation(part.activation, m.activation)


def _of_create(part: pb.Create, m: Create) -> None:
    part.container = m.container
    part.invoker = m.invoker
    part.epoch = m.epoch
    part.keep = m.keep
    _to_spec(part.spec, m.spec)


def _of_adopted(part: pb.Adopted, m: Adopted) -> None:
    part.invoker = m.invoker
    part.queue = m.queue
    part.epoch = m.epoch
    for held in m.held:
        part.held.add(
            container=held.container,
            serving=held.serving,
            activation_ids=held.activation_ids,
            keep=held.keep,
        )


def _of_pulled(part: pb.Pulled, m: Pulled) -> None:
    part.container = m.container
    part.epoch = m.epoch
    part.free_slots = m.free_slots
    part.started.extend(m.started)
    for each in m.completions:
        part.completions.add(
            activation_id=each.activation_id,
            init_us=each.init_us,
            run_us=each.run_us,
            outcome=each.outcome,
        )


def _of_result(part: pb.Result, m: Result) -> None:
    part.activation_id = m.activation_id
    part.outcome = m.outcome
    part.response = m.response
    part.start_ms = m.start_ms
    part.wait_us = m.wait_us
    part.init_us = m.init_us
    part.duration_us = m.duration_us
    part.timed_out = m.timed_out
    part.logs_follow = m.logs_follow


def _of_logs(part: pb.Logs, m: Logs) -> None:
    for id_, lines in m.entries:
        # What a function prints need not be text that protobuf takes.
        text = [line.encode("utf-8", "replace").decode() for line in lines]
        part.entries.add(activation_id=id_, lines=text)


def _of_action_found(part: pb.ActionFound, m: ActionFound) -> None:
    part.queue = m.queue
    part.document = m.document
    part.revision = m.revision
    part.error = m.error


_Fill = Callable[[Any, Any], None]


def _plain(kind: type[Any], *names: str) -> _Fill:
    """Return what fills a message that comes seldom, whose fields are called as the object's."""

    def fill(part: Any, m: Any) -> None:
        part.MergeFrom(kind(**{name: getattr(m, name) for name in names}))

    return fill


_CONTAINER = ("container", "invoker", "epoch")

_ENCODERS: Final[dict[type, tuple[str, _Fill]]] = {
    Submit: ("submit", _of_submit),
    Cancel: ("cancel", _plain(pb.Cancel, "activation_id")),
    Close: ("close", _plain(pb.Close, "queue", "why")),
    Reject: ("reject", _of_reject),
    Throttle: ("throttle", _plain(pb.Throttle, "queue", "on", "reason")),
    QueueClosed: ("queue_closed", _plain(pb.QueueClosed, "queue")),
    Misdirected: ("misdirected", _plain(pb.Misdirected, "activation_id", "queue", "leader")),
    Adopt: ("adopt", _plain(pb.Adopt, "queue", "epoch", "invoker")),
    Create: ("create", _of_create),
    Deliver: ("deliver", _of_deliver),
    Resume: ("resume", _plain(pb.Resume, *_CONTAINER)),
    Release: ("release", _plain(pb.Release, *_CONTAINER, "why")),
    InvokerReported: (
        "invoker_reported",
        _plain(
            pb.InvokerReported,
            "invoker",
            "memory_mb",
            "elsewhere_mb",
            "creation_us",
            "creations_per_s",
        ),
    ),
    Adopted: ("adopted", _of_adopted),
    ContainerServing: ("container_serving", _plain(pb.ContainerServing, "container", "invoker")),
    CreationFailed: (
        "creation_failed",
        _plain(pb.CreationFailed, "container", "failure", "cause"),
    ),
    Pulled: ("pulled", _of_pulled),
    Returned: ("returned", _plain(pb.Returned, "container", "epoch", "activation_ids")),
    ContainerPaused: ("container_paused", _plain(pb.ContainerPaused, "container")),
    ContainerLeaving: ("container_leaving", _plain(pb.ContainerLeaving, "container", "cause")),
    ContainerGone: ("container_gone", _plain(pb.ContainerGone, "container", "cause")),
    Result: ("result", _of_result),
    Logs: ("logs", _of_logs),
    ActionWanted: ("action_wanted", _plain(pb.ActionWanted, "queue")),
    ActionFound: ("action_found", _of_action_found),
    Inquiry: ("inquiry", _plain(pb.Inquiry, "activation_ids")),
    NotHeld: ("not_held", _plain(pb.NotHeld, "activation_ids")),
    Fence: ("fence", _plain(pb.Fence, "scheduler", "activation_ids")),
    Drained: ("drained", _plain(pb.Drained)),
    Fenced: ("fenced", _plain(pb.Fenced, "scheduler", "known")),
}


# --- decoders --------------------------------------------------------------------------------


def _submit(m: pb.Submit, ahead_us: int) -> Submit:
    spec = _spec("submit.spec", _part("submit", m, "spec"))
    activation = _part("submit", m, "activation")
    return Submit(spec, _activation("submit.activation", activation, ahead_us))


def _reject(m: pb.Reject, _: int) -> Reject:
    # Who rejects says which one; whoever is told has the rest.
    activation = Activation(m.activation_id, b"", 0)
    cause = _number("reject.cause", m.cause, _CAUSE_MAX)
    retry_us = _number("reject.retry_after_us", m.retry_after_us)
    return Reject(activation, cause, _text("reject.reason", m.reason), retry_us)


def _throttle(m: pb.Throttle, _: int) -> Throttle:
    return Throttle(_name("throttle.queue", m.queue), m.on, _text("throttle.reason", m.reason))


def _misdirected(m: pb.Misdirected, _: int) -> Misdirected:
    return Misdirected(
        _name("misdirected.activation_id", m.activation_id),
        _name("misdirected.queue", m.queue),
        _name("misdirected.leader", m.leader),
    )


def _adopt(m: pb.Adopt, _: int) -> Adopt:
    invoker = _name("adopt.invoker", m.invoker) if m.invoker else ""
    return Adopt(m.queue, m.epoch, invoker)


def _create(m: pb.Create, _: int) -> Create:
    invoker = _name("create.invoker", m.invoker)
    spec = _spec("create.spec", _part("create", m, "spec"))
    return Create(m.container, invoker, m.epoch, spec, m.keep)


def _deliver(m: pb.Deliver, ahead_us: int) -> Deliver:
    return Deliver(
        _name("deliver.container", m.container),
        _name("deliver.invoker", m.invoker),
        _number("deliver.epoch", m.epoch),
        _activation("deliver.activation", _part("deliver", m, "activation"), ahead_us),
    )


def _resume(m: pb.Resume, _: int) -> Resume:
    return Resume(
        _name("resume.container", m.container),
        _name("resume.invoker", m.invoker),
        _number("resume.epoch", m.epoch),
    )


def _release(m: pb.Release, _: int) -> Release:
    return Release(
        _name("release.container", m.container),
        _name("release.invoker", m.invoker),
        _number("release.epoch", m.epoch),
        _text("release.why", m.why),
    )


def _reported(m: pb.InvokerReported, _: int) -> InvokerReported:
    return InvokerReported(m.invoker, m.memory_mb, m.elsewhere_mb, m.creation_us, m.creations_per_s)


def _adopted(m: pb.Adopted, _: int) -> Adopted:
    if len(m.held) > LIST_MAX:
        raise WireError(f"adopted.held has {len(m.held)} entries; it must have at most {LIST_MAX}")
    held = []
    for each in m.held:
        ids = _names("adopted.held.activation_ids", each.activation_ids, CONCURRENCY_MAX)
        name = _name("adopted.held.container", each.container)
        held.append(Held(name, each.serving, ids, each.keep))
    invoker, queue = _name("adopted.invoker", m.invoker), _name("adopted.queue", m.queue)
    return Adopted(invoker, queue, m.epoch, tuple(held))


def _serving(m: pb.ContainerServing, _: int) -> ContainerServing:
    return ContainerServing(
        _name("container_serving.container", m.container),
        _name("container_serving.invoker", m.invoker),
    )


def _creation_failed(m: pb.CreationFailed, _: int) -> CreationFailed:
    container = _name("creation_failed.container", m.container)
    return CreationFailed(container, m.failure, _text("creation_failed.cause", m.cause))


def _pulled(m: pb.Pulled, _: int) -> Pulled:
    if len(m.completions) > CONCURRENCY_MAX:
        raise WireError(
            f"pulled.completions has {len(m.completions)} entries; "
            f"it must have at most {CONCURRENCY_MAX}"
        )
    completions = tuple(
        [
            Completion(
                _name("pulled.completions.activation_id", c.activation_id),
                c.init_us,
                c.run_us,
                c.outcome,
            )
            for c in m.completions
        ]
    )
    container = _name("pulled.container", m.container)
    started = _names("pulled.started", m.started, CONCURRENCY_MAX)
    return Pulled(container, m.epoch, m.free_slots, started, completions)


def _returned(m: pb.Returned, _: int) -> Returned:
    container = _name("returned.container", m.container)
    ids = _names("returned.activation_ids", m.activation_ids, CONCURRENCY_MAX)
    return Returned(container, m.epoch, ids)


def _result(m: pb.Result, _: int) -> Result:
    return Result(
        _name("result.activation_id", m.activation_id),
        _number("result.outcome", m.outcome, 3),
        _bytes("result.response", m.response),
        _number("result.start_ms", m.start_ms),
        _number("result.wait_us", m.wait_us),
        _number("result.init_us", m.init_us),
        _number("result.duration_us", m.duration_us),
        m.timed_out,
        m.logs_follow,
    )


def _logs(m: pb.Logs, _: int) -> Logs:
    if len(m.entries) > LIST_MAX:
        raise WireError(f"logs.entries has {len(m.entries)}; it must have at most {LIST_MAX}")
    return Logs(
        [(_name("logs.activation_id", each.activation_id), list(each.lines)) for each in m.entries]
    )


def _action_found(m: pb.ActionFound, _: int) -> ActionFound:
    return ActionFound(
        _name("action_found.queue", m.queue),
        _bytes("action_found.document", m.document, DOCUMENT_BYTES_MAX),
        _number("action_found.revision", m.revision),
        _text("action_found.error", m.error),
    )


def _inquiry(m: pb.Inquiry, _: int) -> Inquiry:
    return Inquiry(_names("inquiry.activation_ids", m.activation_ids))


def _not_held(m: pb.NotHeld, _: int) -> NotHeld:
    return NotHeld(_names("not_held.activation_ids", m.activation_ids))


def _fence(m: pb.Fence, _: int) -> Fence:
    scheduler = _name("fence.scheduler", m.scheduler)
    return Fence(scheduler, _names("fence.activation_ids", m.activation_ids))


def _fenced(m: pb.Fenced, _: int) -> Fenced:
    return Fenced(_name("fenced.scheduler", m.scheduler), _names("fenced.known", m.known))


def _named(field: str, kind: Callable[..., object], name: str) -> Callable[[Any, int], object]:
    """Return the decoder of a message that is one name."""
    return lambda m, _: kind(_name(f"{field}.{name}", getattr(m, name)))


def _explained(
    field: str, kind: Callable[..., object], name: str, text: str
) -> Callable[[Any, int], object]:
    """Return the decoder of a message that is a name and a text for people."""
    return lambda m, _: kind(
        _name(f"{field}.{name}", getattr(m, name)), _text(f"{field}.{text}", getattr(m, text))
    )


_DECODERS: Final[dict[str, Callable[[Any, int], object]]] = {
    "submit": _submit,
    "cancel": _named("cancel", Cancel, "activation_id"),
    "close": _explained("close", Close, "queue", "why"),
    "reject": _reject,
    "throttle": _throttle,
    "queue_closed": _named("queue_closed", QueueClosed, "queue"),
    "misdirected": _misdirected,
    "adopt": _adopt,
    "create": _create,
    "deliver": _deliver,
    "resume": _resume,
    "release": _release,
    "invoker_reported": _reported,
    "adopted": _adopted,
    "container_serving": _serving,
    "creation_failed": _creation_failed,
    "pulled": _pulled,
    "returned": _returned,
    "container_paused": _named("container_paused", ContainerPaused, "container"),
    "container_leaving": _explained("container_leaving", ContainerLeaving, "container", "cause"),
    "container_gone": _explained("container_gone", ContainerGone, "container", "cause"),
    "result": _result,
    "logs": _logs,
    "action_wanted": _named("action_wanted", ActionWanted, "queue"),
    "action_found": _action_found,
    "inquiry": _inquiry,
    "not_held": _not_held,
    "fence": _fence,
    "fenced": _fenced,
    "drained": lambda m, _: Drained(),
}
