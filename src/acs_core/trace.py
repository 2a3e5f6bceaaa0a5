"""Traces: what a core was told and what it asked for, line by line, and their exact replay.

Takes and yields lines; files belong to the node.  A core is a function of its configuration and
its events, so a trace holds these, and the effects only to compare with.  The form of the lines
is docs/trace.md's subject; what of each class is written stands in ``trace_fields``.

Never written: an event that ``step`` refused, as nothing came of it, and the scheduler's notes
on an activation, except those that an arrival brings along from an earlier stay.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from . import ABI, COMPILED, effects
from .containers import ContainerPool, PoolConfig
from .events import Activation, Arrived, Event
from .limits import TIME_MAX_US
from .scheduler import Scheduler, SchedulerConfig
from .snapshot import Decision, DemandRule, Snapshot
from .trace_fields import HEADER, NOTES, STEP, WrongValue, encoder, read_fields, tagged

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
        self._encode = encoder(_whole if payloads else _digest)
        self._steps = 0

    def header(self) -> str:
        """Return the first line."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "abi": ABI,
            "build": "compiled" if COMPILED else "plain",
            "payloads": self._payloads,
            "config": tagged(self._config),
        }
        return self._encode(header) + "\n"

    def line(self, event: Event, now_us: int, effects: Sequence[object]) -> str:
        """Return the line of a step that has just been taken, before its effects are performed.

        Cost: O(size of the line).
        """
        step: dict[str, object] = {
            "step": self._steps + 1,
            "at": now_us,
            "event": tagged(event),
        }
        if isinstance(event, Arrived):
            notes = _notes_before(event.activation, effects)
            if notes is not None:
                step["notes"] = notes
        step["effects"] = [tagged(effect) for effect in effects]
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
        fields = _checked(1, lambda: read_fields(header, HEADER))
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
    encode = encoder(_whole if trace.whole_payloads else _stand_in)
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
        got = [tagged(effect) for effect in core.step(step.event, step.at_us)]
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
    return Difference(step.line, step.at_us, encode(tagged(step.event)), expected, got)


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
    fields = _checked(number, lambda: read_fields(document, STEP))
    event = fields["event"]
    assert isinstance(event, Event)
    if notes is not None:
        if not isinstance(event, Arrived):
            raise TraceError(number, "there are notes", "them on an arrival alone")
        for name, value in _checked(number, lambda: read_fields(notes, NOTES)).items():
            setattr(event.activation, name, value)
    effects = fields["effects"]
    assert isinstance(effects, list)
    return Step(number, int(str(fields["at"])), event, effects, text.rstrip())


def _checked(number: int, read: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return read()
    except WrongValue as wrong:
        where = f"{wrong.where} is " if wrong.where else "it is "
        raise TraceError(number, where + wrong.found, wrong.expected) from None


# --- writing ---------------------------------------------------------------------------------


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
    notes = {name: getattr(activation, name) for name in NOTES}
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
