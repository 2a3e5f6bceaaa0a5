"""Traces: what a core was told and what it asked for, line by line, and their exact replay.

Takes and yields lines; files belong to the node.  A core is a function of its configuration and
its events, so a trace holds these, and the effects only to compare with.  The form of the lines
is docs/trace.md's subject; what of each class is written stands in one table, ``_FIELDS``.

Never written: an event that ``step`` refused, as nothing came of it, and the scheduler's notes
on an activation, except those that an arrival brings along from an earlier stay.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite
from typing import Final

from . import ABI, COMPILED, effects, events
from .containers import ContainerPool, PoolConfig
from .demand import Decision, DemandRule, OpenWhiskRule, RuntimeFitRule, Snapshot
from .events import Activation, Arrived, Event, QueueSpec
from .limits import TIME_MAX_US
from .prewarm import Prewarm
from .scheduler import Scheduler, SchedulerConfig

FORMAT: Final = "acs-trace"
VERSION: Final = 1
"""Changes when a reader of the former version would misunderstand a line."""

EXAMPLES_MAX: Final = 20
"""Differing decisions that a comparison shows; it counts all."""


class TraceError(ValueError):
    """A line is not what a trace has there: ``line`` counts from 1."""

    def __init__(self, line: int, found: str, expected: str) -> None:
        super().__init__(f"line {line}: {found}; expected {expected}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trace.  ``effects`` is what was recorded, as JSON gives it."""

    line: int
    at_us: int
    event: Event
    effects: list[object]
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step whose effects are not the recorded ones; each effect is JSON.

    ``got`` holds one text that begins with ``raised`` when the core refused the event.
    """

    line: int
    at_us: int
    event: str
    expected: tuple[str, ...]
    got: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OtherDecision:
    """A decision that the other rule would not have taken, with the reasons of both."""

    line: int
    queue_state: str
    recorded: str
    other: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How another rule decides on the snapshots of a trace.

    ``decisions`` were taken; on ``more`` and ``fewer`` of them the other rule asks for more or
    fewer containers, on ``verdicts`` for as many under another verdict.
    """

    decisions: int
    more: int
    fewer: int
    verdicts: int
    examples: tuple[OtherDecision, ...]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay has found; it is exact when ``difference`` is None.

    ``steps`` ran, from ``first_us`` to ``last_us``.  ``complete``: the end line was reached.
    """

    core: str
    abi: int
    build: str
    steps: int
    first_us: int
    last_us: int
    complete: bool
    difference: Difference | None
    comparison: Comparison | None


class TraceWriter:
    """Turns the steps of one core, all of them from its first, into lines that end in newlines.

    Args:
      config: That of the core, a SchedulerConfig or a PoolConfig.
      payloads: Write payloads whole; else their lengths and SHA-256, which a replay compares
        as well.
    Raises: TypeError for a class that no entry of the table describes, such as a rule of one's
      own; that line was not counted.
    """

    def __init__(self, config: SchedulerConfig | PoolConfig, *, payloads: bool = True) -> None:
        self._config = config
        self._payloads = "base64" if payloads else "sha256"
        self._encode = _encoder(_whole if payloads else _digest)
        self._steps = 0

    def header(self) -> str:
        """Return the first line."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "abi": ABI,
            "build": "compiled" if COMPILED else "plain",
            "payloads": self._payloads,
            "config": _tagged(self._config),
        }
        return self._encode(header) + "\n"

    def line(self, event: Event, now_us: int, effects: Sequence[object]) -> str:
        """Return the line of a step that has just been taken, before its effects are performed.

        Cost: O(size of the line).
        """
        step: dict[str, object] = {
            "step": self._steps + 1,
            "at": now_us,
            "event": _tagged(event),
        }
        if isinstance(event, Arrived):
            notes = _notes_before(event.activation, effects)
            if notes is not None:
                step["notes"] = notes
        step["effects"] = [_tagged(effect) for effect in effects]
        text = self._encode(step)
        self._steps += 1
        return text + "\n"

    def end(self) -> str:
        """Return the last line, which tells that nothing was cut off."""
        return self._encode({"end": self._steps}) + "\n"


class TraceReader:
    """Checks and reads a trace; iterate, once, for its steps.

    Args:
      lines: With or without their newlines.
      cut: Let the trace end anywhere, within its last line also; ``complete`` then tells.
    Raises: TraceError at the first line that is damaged, missing, repeated, out of order or of
      another version.
    Cost: O(longest line) of memory.
    """

    def __init__(self, lines: Iterable[str], *, cut: bool = False) -> None:
        self._lines = enumerate(lines, 1)
        self._cut = cut
        self.complete = False
        _, text = next(self._lines, (1, ""))
        header = _document(1, text, "a header")
        if header.get("format") != FORMAT:
            raise TraceError(1, f"format is {header.get('format')!r:.80}", repr(FORMAT))
        if header.get("version") != VERSION:
            raise TraceError(1, f"version is {header.get('version')!r:.80}", str(VERSION))
        fields = _checked(1, lambda: _read_fields(header, _HEADER))
        config = fields["config"]
        assert isinstance(config, (SchedulerConfig, PoolConfig))
        self.config: SchedulerConfig | PoolConfig = config
        self.abi = int(str(fields["abi"]))
        self.build = str(fields["build"])
        self.whole_payloads = fields["payloads"] == "base64"

    def __iter__(self) -> Iterator[Step]:
        at_us = 0
        steps = 0
        number = 1
        for number, text in self._lines:
            try:
                document = _document(number, text, f"step {steps + 1} or the end line")
            except TraceError:
                if self._cut and next(self._lines, None) is None:
                    return
                raise
            if "end" in document:
                self._finish(number, document, steps)
                return
            steps += 1
            step = _step(number, text, document)
            if document["step"] != steps:
                raise TraceError(number, f"step is {document['step']!r:.80}", str(steps))
            if not at_us <= step.at_us <= TIME_MAX_US:
                raise TraceError(number, f"at is {step.at_us}", f"{at_us}..{TIME_MAX_US}")
            at_us = step.at_us
            yield step
        if not self._cut:
            found = "the trace ends, it was cut off or is written still"
            raise TraceError(number + 1, found, f"step {steps + 1} or the end line")

    def _finish(self, number: int, document: dict[str, object], steps: int) -> None:
        if document != {"end": steps} or type(document["end"]) is not int:
            raise TraceError(number, f"the line is {document!r:.80}", f'{{"end":{steps}}}')
        for after, text in self._lines:
            raise TraceError(after, f"the line is {text!r:.80}", "nothing after the end line")
        self.complete = True


def replay(
    lines: Iterable[str],
    *,
    rule: DemandRule | None = None,
    cut: bool = False,
    check: bool = False,
) -> ReplayReport:
    """Run a trace through a fresh core and compare the effects of each step, bit for bit.

    Stops at the first difference.  Only whitespace and the order of keys may be changed by what
    has handled the trace in between.

    Args:
      lines, cut: As ``TraceReader`` takes them.
      rule: Also ask this rule at each decision of a scheduler; decisions that the trace may
        hold as effects are not compared then.  See docs/trace.md for what it does not tell.
      check: Also assert the invariants after each step (``Scheduler.check``); the first that is
        broken is a difference.
    Returns: A report.
    Raises: TraceError, and then nothing was returned of the lines before; ValueError when there
      is a rule and the trace is a pool's.
    Cost: O(size of the trace) of time, O(what the core holds) of memory; with ``check``
      O(what the core holds) more a step.
    """
    trace = TraceReader(lines, cut=cut)
    encode = _encoder(_whole if trace.whole_payloads else _stand_in)
    both: _BothRules | None = None
    core: Scheduler | ContainerPool
    if isinstance(trace.config, SchedulerConfig):
        config = trace.config
        if rule is not None:
            both = _BothRules(config.rule, rule)
            config = replace(config, rule=both, report_decisions=False)
        core = Scheduler(config)
    elif rule is not None:
        raise ValueError("the trace is that of a pool, which has no rule")
    else:
        core = ContainerPool(trace.config)
    steps, first_us, last_us = 0, 0, 0
    difference = None
    for step in trace:
        first_us = step.at_us if steps == 0 else first_us
        last_us = step.at_us
        steps += 1
        recorded = step.effects
        if both is not None:
            both.line = step.line
            reports = {"Decided", "Differed"}
            recorded = [e for e in recorded if not (isinstance(e, dict) and reports & e.keys())]
        try:
            difference = _run(core, step, recorded, encode)
        except RecursionError:
            found = "effects has brackets too deep in brackets"
            raise TraceError(step.line, found, "a list of effects") from None
        if difference is None and check:
            difference = _check(core, step, recorded, encode)
        if difference is not None:
            break
    return ReplayReport(
        "scheduler" if isinstance(core, Scheduler) else "pool",
        trace.abi,
        trace.build,
        steps,
        first_us,
        last_us,
        trace.complete,
        difference,
        both.comparison() if both is not None else None,
    )


def _run(
    core: Scheduler | ContainerPool,
    step: Step,
    recorded: list[object],
    encode: Callable[[object], str],
) -> Difference | None:
    """Take the step; return the difference, if there is one."""
    try:
        got = [_tagged(effect) for effect in core.step(step.event, step.at_us)]
    except Exception as error:
        # The recorded core took the event.  Whatever ours says of it is the finding.
        refusal = f"raised {type(error).__name__}: {error}"
        return _difference(step, recorded, (refusal,), encode)
    text = encode(got)
    # Almost always the line ends with the very same characters.
    if step.text.endswith(f'"effects":{text}}}') and recorded is step.effects:
        return None
    again = json.loads(text)
    if _sorted(again) == _sorted(recorded):
        return None
    return _difference(step, recorded, tuple([_sorted(effect) for effect in again]), encode)


def _check(
    core: Scheduler | ContainerPool,
    step: Step,
    recorded: list[object],
    encode: Callable[[object], str],
) -> Difference | None:
    """Look at the core after the step; return the invariant that is broken as a difference."""
    try:
        core.check()
    except AssertionError as error:
        return _difference(step, recorded, (f"broke an invariant: {error}",), encode)
    return None


def _difference(
    step: Step, recorded: list[object], got: tuple[str, ...], encode: Callable[[object], str]
) -> Difference:
    expected = tuple([_sorted(effect) for effect in recorded])
    return Difference(step.line, step.at_us, encode(_tagged(step.event)), expected, got)


class _BothRules:
    """Decides as one rule does and notes where another one decides otherwise."""

    def __init__(self, rule: DemandRule, other: DemandRule) -> None:
        # What a scheduler counts as stale depends on the rule; those without do not look.
        ages = [float(age) for r in (rule, other) if (age := getattr(r, "stale_ms", None))]
        if len(set(ages)) > 1:
            raise ValueError(f"both rules count stale activations, after {ages} ms: not the same")
        self.stale_ms = ages[0] if ages else 0.0
        self.line = 0
        self._rule = rule
        self._other = other
        self._counts = {"decisions": 0, "more": 0, "fewer": 0, "verdicts": 0}
        self._examples: list[OtherDecision] = []

    def decide(self, snapshot: Snapshot) -> Decision:
        """Return the first rule's decision."""
        decision = self._rule.decide(snapshot)
        other = self._other.decide(snapshot)
        self._counts["decisions"] += 1
        if (other.count, other.verdict) != (decision.count, decision.verdict):
            if other.count == decision.count:
                self._counts["verdicts"] += 1
            else:
                self._counts["more" if other.count > decision.count else "fewer"] += 1
            if len(self._examples) < EXAMPLES_MAX:
                state = snapshot.state.name
                self._examples.append(
                    OtherDecision(self.line, state, _decision(decision), _decision(other))
                )
        return decision

    def comparison(self) -> Comparison:
        """Return what was noted."""
        return Comparison(**self._counts, examples=tuple(self._examples))


def _decision(decision: Decision) -> str:
    return f"{decision.verdict.name} {decision.count}: {decision.reason}"


# --- reading ---------------------------------------------------------------------------------


class _WrongValue(Exception):
    """Where in a document, what was found, and what belongs there."""

    def __init__(self, found: str, expected: str, where: str = "") -> None:
        self.found = found
        self.expected = expected
        self.where = where

    def inside(self, name: str) -> _WrongValue:
        """Return the same, seen from around the value."""
        where = f"{name}.{self.where}" if self.where else name
        return _WrongValue(self.found, self.expected, where)


def _document(number: int, text: str, expected: str) -> dict[str, object]:
    # RecursionError: brackets in brackets; other ValueErrors: a number of thousands of digits.
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if text.strip() else "it is empty"
        raise TraceError(number, f"the line is not JSON ({reason})", expected) from None
    if type(document) is not dict:
        raise TraceError(number, f"the line is {text.strip()!r:.80}", expected)
    return document


def _step(number: int, text: str, document: dict[str, object]) -> Step:
    notes = document.pop("notes", None)
    fields = _checked(number, lambda: _read_fields(document, _STEP))
    event = fields["event"]
    assert isinstance(event, Event)
    if notes is not None:
        if not isinstance(event, Arrived):
            raise TraceError(number, "there are notes", "them on an arrival alone")
        for name, value in _checked(number, lambda: _read_fields(notes, _NOTES)).items():
            setattr(event.activation, name, value)
    effects = fields["effects"]
    assert isinstance(effects, list)
    return Step(number, int(str(fields["at"])), event, effects, text.rstrip())


def _checked(number: int, read: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return read()
    except _WrongValue as wrong:
        where = f"{wrong.where} is " if wrong.where else "it is "
        raise TraceError(number, where + wrong.found, wrong.expected) from None


def _read_fields(value: object, fields: Mapping[str, _Read]) -> dict[str, object]:
    if type(value) is not dict or value.keys() != fields.keys():
        raise _WrongValue(_shown(value), f"an object with {', '.join(fields) or 'no fields'}")
    values: dict[str, object] = {}
    for name, read in fields.items():
        try:
            values[name] = read(value[name])
        except _WrongValue as wrong:
            raise wrong.inside(name) from None
    return values


def _read_object(made_by: type, value: object) -> object:
    values = _read_fields(value, _FIELDS[made_by])
    try:
        made: object = made_by(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise _WrongValue(_shown(value), f"what {made_by.__name__} takes ({error})") from None
    return made


def _read_tagged(value: object, classes: Mapping[str, type]) -> object:
    """Read an object under its class's name."""
    name = next(iter(value)) if type(value) is dict and len(value) == 1 else ""
    if name not in classes:
        raise _WrongValue(_shown(value), f"an object under one of {', '.join(classes)}")
    assert isinstance(value, dict)
    try:
        return _read_object(classes[name], value[name])
    except _WrongValue as wrong:
        raise wrong.inside(name) from None


def _shown(value: object) -> str:
    return f"{value!r:.80}"


# --- writing ---------------------------------------------------------------------------------


def _encoder(payload: Callable[[bytes], str]) -> Callable[[object], str]:
    """Return the function that turns documents with our objects in them into JSON."""

    def plain(value: object) -> object:
        if type(value) is bytes:
            return payload(value)
        names = _FIELDS.get(type(value))
        if names is None:
            raise TypeError(f"{type(value).__name__} is nothing that a trace can hold")
        fields = {name: getattr(value, name) for name in names}
        for name, write in _CONVERTED[type(value)]:
            fields[name] = write(fields[name])
        return fields

    return json.JSONEncoder(separators=(",", ":"), check_circular=False, default=plain).encode


def _tagged(value: object) -> dict[str, object]:
    return {type(value).__name__: value}


def _sorted(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _notes_before(activation: Activation, made: Sequence[object]) -> dict[str, object] | None:
    """Return the notes that the activation had before its arrival, None when it was new.

    A scheduler ignores the same object after its end, and a fresh one of that id it does not.
    The step has changed one note at most: it has set the time of a delivery.
    """
    if activation.delivered_us < 0 and not activation.withdrawn:
        return None
    if any(isinstance(e, effects.Deliver) and e.activation is activation for e in made):
        return None
    notes = {name: getattr(activation, name) for name in _NOTES}
    return {name: bool(note) if name != "delivered_us" else note for name, note in notes.items()}


def _whole(payload: bytes) -> str:
    return b64encode(payload).decode("ascii")


def _digest(payload: bytes) -> str:
    return f"{len(payload)}:{sha256(payload).hexdigest()}"


def _stand_in(payload: bytes) -> str:
    """Return the digest for which this payload stands in a replay.

    An empty one is the core's own: it stands for work whose payload is elsewhere.
    """
    return payload.decode("latin-1") if payload else _digest(b"")


# --- values ----------------------------------------------------------------------------------


_Read = Callable[[object], object]


def _text(value: object) -> object:
    if type(value) is not str:
        raise _WrongValue(_shown(value), "a string")
    return value


def _integer(value: object) -> object:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _WrongValue(_shown(value), "an integer of 64 bits")
    return value


def _small(value: object) -> object:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise _WrongValue(_shown(value), "an integer of 32 bits")
    return value


def _flag(value: object) -> object:
    if type(value) is not bool:
        raise _WrongValue(_shown(value), "true or false")
    return value


def _number(value: object) -> object:
    if type(value) in (float, int) or value in ("inf", "-inf", "nan"):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            pass
    raise _WrongValue(_shown(value), "a number")


def _write_number(value: object) -> object:
    number = float(value)  # type: ignore[arg-type]
    return number if isfinite(number) else repr(number)  # JSON has no word for these


def _list(value: object) -> object:
    if type(value) is not list:
        raise _WrongValue(_shown(value), "a list")
    return value


def _payload(value: object) -> object:
    """Read a payload, or keep the text that stands for it."""
    text = str(_text(value))
    if re.fullmatch(r"(0|[1-9][0-9]*):[0-9a-f]{64}", text, re.ASCII):
        return text.encode("ascii")
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise _WrongValue(_shown(value), "base64, or length:SHA-256") from None


def _one_of(*names: str) -> _Read:
    def read(value: object) -> object:
        if value not in names:
            raise _WrongValue(_shown(value), " or ".join(names))
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
            raise _WrongValue(_shown(value), "a list")
        return tuple([read_one(item) for item in value])

    return read


def _made_by(made_by: type) -> _Read:
    return lambda value: _read_object(made_by, value)


def _rule(value: object) -> object:
    return _read_tagged(value, _RULES)


def _event(value: object) -> object:
    return _read_tagged(value, _EVENTS)


def _config(value: object) -> object:
    return _read_tagged(value, _CONFIGS)


_WRITE: dict[_Read, Callable[[object], object]] = {
    # The plain build keeps what it was given, 1 for True and 5 for 5.0; the compiled one not.
    _flag: bool,
    _number: _write_number,
    _rule: _tagged,
}

_texts = _many(_text)
_activation = _made_by(Activation)
_spec = _made_by(QueueSpec)
_optional_number = _optional(_number)

_HEADER: dict[str, _Read] = {
    "format": _text,
    "version": _integer,
    "abi": _integer,
    "build": _text,
    "payloads": _one_of("base64", "sha256"),
    "config": _config,
}
_STEP: dict[str, _Read] = {"step": _integer, "at": _integer, "event": _event, "effects": _list}
_NOTES: dict[str, _Read] = {"delivered_us": _integer, "started": _flag, "withdrawn": _flag}

# Every class that a line can hold, and all its fields, under the names of its constructor's
# arguments.  Whoever adds a class or a field adds it here, or a test fails.
_FIELDS: dict[type, dict[str, _Read]] = {
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
    for cls, fields in _FIELDS.items()
}
_EVENTS = {cls.__name__: cls for cls in _FIELDS if issubclass(cls, Event)}
_RULES = {cls.__name__: cls for cls in (RuntimeFitRule, OpenWhiskRule)}
_CONFIGS = {cls.__name__: cls for cls in (SchedulerConfig, PoolConfig)}
