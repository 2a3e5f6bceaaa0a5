"""What a trace holds of each class, and how values are read from JSON and written to it.

One table, ``FIELDS``, names every class that a line can hold with its fields and their types; a
type is the function that reads it.  ``trace`` makes lines of it.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from math import isfinite

from . import effects, events
from .containers import PoolConfig
from .demand import RuntimeFitRule
from .events import Activation, Event, QueueSpec
from .openwhisk_rule import OpenWhiskRule
from .prewarm import Prewarm
from .scheduler import SchedulerConfig
from .snapshot import Decision, Snapshot


class WrongValue(Exception):
    """Where in a document, what was found, and what belongs there."""

    def __init__(self, found: str, expected: str, where: str = "") -> None:
        self.found = found
        self.expected = expected
        self.where = where

    def inside(self, name: str) -> WrongValue:
        """Return the same, seen from around the value."""
        where = f"{name}.{self.where}" if self.where else name
        return WrongValue(self.found, self.expected, where)


def read_fields(value: object, fields: Mapping[str, _Read]) -> dict[str, object]:
    if type(value) is not dict or value.keys() != fields.keys():
        raise WrongValue(_shown(value), f"an object with {', '.join(fields) or 'no fields'}")
    values: dict[str, object] = {}
    for name, read in fields.items():
        try:
            values[name] = read(value[name])
        except WrongValue as wrong:
            raise wrong.inside(name) from None
    return values


def _read_object(made_by: type, value: object) -> object:
    values = read_fields(value, FIELDS[made_by])
    try:
        made: object = made_by(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise WrongValue(_shown(value), f"what {made_by.__name__} takes ({error})") from None
    return made


def _read_tagged(value: object, classes: Mapping[str, type]) -> object:
    """Read an object under its class's name."""
    name = next(iter(value)) if type(value) is dict and len(value) == 1 else ""
    if name not in classes:
        raise WrongValue(_shown(value), f"an object under one of {', '.join(classes)}")
    assert isinstance(value, dict)
    try:
        return _read_object(classes[name], value[name])
    except WrongValue as wrong:
        raise wrong.inside(name) from None


def _shown(value: object) -> str:
    return f"{value!r:.80}"


# --- writing ---------------------------------------------------------------------------------


def encoder(payload: Callable[[bytes], str]) -> Callable[[object], str]:
    """Return the function that turns documents with our objects in them into JSON."""

    def plain(value: object) -> object:
        if type(value) is bytes:
            return payload(value)
        names = FIELDS.get(type(value))
        if names is None:
            raise TypeError(f"{type(value).__name__} is nothing that a trace can hold")
        fields = {name: getattr(value, name) for name in names}
        for name, write in _CONVERTED[type(value)]:
            fields[name] = write(fields[name])
        return fields

    return json.JSONEncoder(separators=(",", ":"), check_circular=False, default=plain).encode


def tagged(value: object) -> dict[str, object]:
    return {type(value).__name__: value}


# --- values ----------------------------------------------------------------------------------


_Read = Callable[[object], object]


def _text(value: object) -> object:
    if type(value) is not str:
        raise WrongValue(_shown(value), "a string")
    return value


def _integer(value: object) -> object:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise WrongValue(_shown(value), "an integer of 64 bits")
    return value


def _small(value: object) -> object:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise WrongValue(_shown(value), "an integer of 32 bits")
    return value


def _flag(value: object) -> object:
    if type(value) is not bool:
        raise WrongValue(_shown(value), "true or false")
    return value


def _number(value: object) -> object:
    if type(value) in (float, int) or value in ("inf", "-inf", "nan"):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            pass
    raise WrongValue(_shown(value), "a number")


def _write_number(value: object) -> object:
    number = float(value)  # type: ignore[arg-type]
    return number if isfinite(number) else repr(number)  # JSON has no word for these


def _list(value: object) -> object:
    if type(value) is not list:
        raise WrongValue(_shown(value), "a list")
    return value


def _payload(value: object) -> object:
    """Read a payload, or keep the text that stands for it."""
    text = str(_text(value))
    if re.fullmatch(r"(0|[1-9][0-9]*):[0-9a-f]{64}", text, re.ASCII):
        return text.encode("ascii")
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise WrongValue(_shown(value), "base64, or length:SHA-256") from None


def _one_of(*names: str) -> _Read:
    def read(value: object) -> object:
        if value not in names:
            raise WrongValue(_shown(value), " or ".join(names))
        return value

    return read


def _optional(read_one: _Read) -> _Read:
    def read(value: object) -> object:
        return None if value is None else read_one(value)

    write_one = _WRITE.get(read_one)
    if write_one is not None:
        write = write_one
        _WRITE[read] = lambda value: None if value is None else write(value)
    return read


def _many(read_one: _Read) -> _Read:
    def read(value: object) -> object:
        if type(value) is not list:
            raise WrongValue(_shown(value), "a list")
        return tuple([read_one(item) for item in value])

    return read


def _made_by(made_by: type) -> _Read:
    return lambda value: _read_object(made_by, value)


def _rule(value: object) -> object:
    return _read_tagged(value, _RULES)


def _event(value: object) -> object:
    return _read_tagged(value, EVENTS)


def _config(value: object) -> object:
    return _read_tagged(value, _CONFIGS)


_WRITE: dict[_Read, Callable[[object], object]] = {
    # The plain build keeps what it was given, 1 for True and 5 for 5.0; the compiled one not.
    _flag: bool,
    _number: _write_number,
    _rule: tagged,
}

_texts = _many(_text)
_activation = _made_by(Activation)
_spec = _made_by(QueueSpec)
_optional_number = _optional(_number)

HEADER: dict[str, _Read] = {
    "format": _text,
    "version": _integer,
    "abi": _integer,
    "build": _text,
    "payloads": _one_of("base64", "sha256"),
    "config": _config,
}
STEP: dict[str, _Read] = {"step": _integer, "at": _integer, "event": _event, "effects": _list}
NOTES: dict[str, _Read] = {"delivered_us": _integer, "started": _flag, "withdrawn": _flag}

# Every class that a line can hold, and all its fields, under the names of its constructor's
# arguments.  Whoever adds a class or a field adds it here, or a test fails.
FIELDS: dict[type, dict[str, _Read]] = {
    QueueSpec: {
        "queue": _text,
        "namespace": _text,
        "action": _text,
        "revision": _integer,
        "memory_mb": _integer,
        "concurrency": _integer,
        "timeout_us": _integer,
        "action_limit": _optional(_integer),
        "kind": _text,
        "containers_min": _integer,
        "wait_target_us": _optional(_integer),
        "wait_max_us": _optional(_integer),
    },
    Activation: {
        "activation_id": _text,
        "payload": _payload,
        "arrived_us": _integer,
        "deadline_us": _integer,
        "causes": _texts,
    },
    events.Completion: {
        "activation_id": _text,
        "init_us": _integer,
        "run_us": _integer,
        "outcome": _small,
    },
    events.Held: {
        "container": _text,
        "serving": _flag,
        "activation_ids": _texts,
        "keep": _flag,
    },
    effects.Place: {"container": _text, "invoker": _text},
    # --- told to a scheduler
    events.QueueOpened: {"spec": _spec, "epoch": _integer, "history_us": _integer},
    events.QueueClosing: {"queue": _text, "why": _text},
    events.LeadershipLost: {"queue": _text, "to": _text},
    events.LimitsChanged: {
        "namespace": _text,
        "containers_max": _integer,
        "weight": _number,
        "reserve": _integer,
    },
    events.Arrived: {"queue": _text, "activation": _activation},
    events.Cancelled: {"activation_id": _text},
    events.Reserved: {"queue": _text, "serial": _integer, "containers": _texts},
    events.Denied: {"queue": _text, "serial": _integer, "reason": _text},
    events.HungerElsewhere: {
        "queue": _text,
        "namespace": _text,
        "containers": _integer,
        "namespace_containers": _integer,
        "lacks_memory": _flag,
        "giver": _text,
        "giver_containers": _integer,
    },
    events.HungerEnded: {"queue": _text},
    events.InvokerReported: {
        "invoker": _text,
        "memory_mb": _integer,
        "elsewhere_mb": _integer,
        "creation_us": _integer,
        "creations_per_s": _number,
    },
    events.InvokerGone: {"invoker": _text},
    events.TimeReached: {},
    events.Adopted: {
        "invoker": _text,
        "queue": _text,
        "epoch": _integer,
        "held": _many(_made_by(events.Held)),
    },
    events.ContainerServing: {"container": _text, "invoker": _text},
    events.CreationFailed: {"container": _text, "failure": _small, "cause": _text},
    events.Pulled: {
        "container": _text,
        "epoch": _integer,
        "free_slots": _integer,
        "started": _texts,
        "completions": _many(_made_by(events.Completion)),
    },
    events.Returned: {"container": _text, "epoch": _integer, "activation_ids": _texts},
    events.ContainerPaused: {"container": _text},
    events.ContainerLeaving: {"container": _text, "cause": _text},
    events.ContainerGone: {"container": _text, "cause": _text},
    # --- told to a pool
    events.SandboxReady: {"container": _text},
    events.SandboxFailed: {"container": _text, "failure": _small, "cause": _text},
    events.SandboxBroke: {"container": _text, "cause": _text},
    events.SandboxRemoved: {"container": _text},
    events.SandboxPaused: {"container": _text},
    events.SandboxResumed: {"container": _text},
    events.Initialised: {"container": _text, "init_us": _integer},
    events.RunEnded: {
        "container": _text,
        "activation_id": _text,
        "run_us": _integer,
        "outcome": _small,
    },
    events.DrainRequested: {"limit_us": _integer},
    events.IdleHeld: {"on": _flag},
    # --- a scheduler asks an invoker
    effects.Adopt: {"queue": _text, "epoch": _integer, "invoker": _text},
    effects.Create: {
        "container": _text,
        "invoker": _text,
        "epoch": _integer,
        "spec": _spec,
        "keep": _flag,
    },
    effects.Deliver: {
        "container": _text,
        "invoker": _text,
        "epoch": _integer,
        "activation": _activation,
    },
    effects.Resume: {"container": _text, "invoker": _text, "epoch": _integer},
    effects.Release: {"container": _text, "invoker": _text, "epoch": _integer, "why": _text},
    # --- a scheduler asks its node
    effects.Reserve: {
        "queue": _text,
        "epoch": _integer,
        "serial": _integer,
        "namespace": _text,
        "memory_mb": _integer,
        "places": _many(_made_by(effects.Place)),
    },
    effects.Unreserve: {"queue": _text, "epoch": _integer, "containers": _texts},
    effects.Reject: {
        "activation": _activation,
        "cause": _small,
        "reason": _text,
        "retry_after_us": _integer,
    },
    effects.Forward: {"queue": _text, "activations": _many(_activation), "to": _text},
    effects.CloseQueue: {"queue": _text, "epoch": _integer},
    effects.Throttle: {"queue": _text, "on": _flag, "reason": _text},
    effects.Decided: {
        "queue": _text,
        "snapshot": _made_by(Snapshot),
        "decision": _made_by(Decision),
    },
    effects.Differed: {
        "queue": _text,
        "snapshot": _made_by(Snapshot),
        "decision": _made_by(Decision),
    },
    # --- a pool asks its node
    effects.StartSandbox: {"container": _text, "spec": _spec},
    effects.PrewarmSandbox: {"container": _text, "kind": _text, "memory_mb": _integer},
    effects.AssignSandbox: {"container": _text, "sandbox": _text, "spec": _spec},
    effects.PauseSandbox: {"container": _text},
    effects.ResumeSandbox: {"container": _text},
    effects.Initialise: {"container": _text, "activation": _activation},
    effects.Run: {"container": _text, "activation": _activation, "init_us": _integer},
    effects.Abort: {
        "container": _text,
        "activation_id": _text,
        "timeout_us": _integer,
        "drained": _flag,
    },
    effects.Remove: {"container": _text, "cause": _text},
    # --- decisions: only ever written
    Snapshot: {
        "state_index": _integer,
        "initialized": _flag,
        "incoming": _integer,
        "waiting": _integer,
        "existing": _integer,
        "in_progress": _integer,
        "stale": _integer,
        "namespace_existing": _integer,
        "namespace_in_progress": _integer,
        "average_duration_ms": _optional_number,
        "namespace_limit": _integer,
        "action_limit": _integer,
        "concurrency": _integer,
        "arrivals_per_s": _number,
        "creation_ms": _optional_number,
        "wait_target_ms": _optional_number,
        "running": _integer,
        "paused": _integer,
        "oldest_run_ms": _number,
        "contending_queues": _integer,
        "duration_spread_ms": _optional_number,
        "steady_short_ms": _number,
        "oldest_wait_ms": _number,
        "typical_run_ms": _number,
    },
    # Not its snapshot, which is that of the effect.
    Decision: {
        "verdict": _integer,
        "count": _integer,
        "drop": _flag,
        "steady_short": _flag,
        "wanted": _integer,
        "room": _integer,
        "steady": _integer,
        "limit_ms": _number,
        "reason": _text,
        "rejected": _text,
    },
    # --- configurations
    RuntimeFitRule: {},
    OpenWhiskRule: {
        "stale_ms": _number,
        "over_provision": _flag,
        "over_provision_ratio": _number,
    },
    SchedulerConfig: {
        "name": _text,
        "rule": _rule,
        "waiting_max": _integer,
        "waiting_low_fraction": _number,
        "wait_max_us": _integer,
        "namespace_containers_max": _integer,
        "namespace_reserve": _integer,
        "decision_interval_us": _integer,
        "backlog_interval_us": _integer,
        "idle_grace_us": _integer,
        "stop_grace_us": _integer,
        "retry_min_us": _integer,
        "retry_max_us": _integer,
        "reserve_answer_us": _integer,
        "create_answer_us": _integer,
        "report_decisions": _flag,
        "give_back": _flag,
        "throttle_by_wait": _flag,
        "shadow": _optional(_rule),
    },
    PoolConfig: {
        "invoker": _text,
        "memory_mb": _integer,
        "keep_alive_us": _integer,
        "pause_grace_us": _integer,
        "prewarm": _many(_made_by(Prewarm)),
        "prewarm_check_us": _integer,
    },
    Prewarm: {
        "kind": _text,
        "memory_mb": _integer,
        "count": _integer,
        "expiry_us": _integer,
        "count_min": _integer,
        "count_max": _integer,
        "threshold": _integer,
        "increment": _integer,
    },
}

_CONVERTED: dict[type, list[tuple[str, Callable[[object], object]]]] = {
    cls: [(name, _WRITE[read]) for name, read in fields.items() if read in _WRITE]
    for cls, fields in FIELDS.items()
}
EVENTS = {cls.__name__: cls for cls in FIELDS if issubclass(cls, Event)}
_RULES = {cls.__name__: cls for cls in (RuntimeFitRule, OpenWhiskRule)}
_CONFIGS = {cls.__name__: cls for cls in (SchedulerConfig, PoolConfig)}
