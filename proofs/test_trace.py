"""Proof of ``acs_core.trace`` (T1, T2): what a core did is replayed exactly, damage is found.

The scheduler's traces are those of the hostile world of ``test_scheduler``; a pool's and a
scheduler's together come from a kinder one (``harness``) with late and repeated messages.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import SchedulerPair, Times
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler import HostileWorld

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import trace_fields
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.limits import (
    CONCURRENCY_MAX,
    COUNT_MAX,
    CREATION_MAX_US,
    CREATIONS_MIN_PER_S,
    MEMORY_MAX_MB,
    TIME_MAX_US,
)
from acs_core.prewarm import Prewarm
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import ReplayReport, TraceError, TraceReader, TraceWriter, replay
from acs_core.trace_fields import EVENTS, FIELDS


class RecordedWorld(HostileWorld):
    """The hostile world, written down twice: with payloads and without."""

    def step(self, event: ev.Event) -> None:
        if not hasattr(self, "traces"):
            self.traces = {
                whole: TraceWriter(self.config, payloads=whole) for whole in (False, True)
            }
            self.lines = {whole: [writer.header()] for whole, writer in self.traces.items()}
            saw = self.outside.saw

            def write(event: ev.Event, now_us: int, effects: list[object]) -> None:
                for whole, writer in self.traces.items():
                    self.lines[whole].append(writer.line(event, now_us, effects))
                saw(event, now_us, effects)

            self.outside.saw = write  # type: ignore[method-assign]
        super().step(event)

    def teardown(self) -> None:
        super().teardown()
        other = RuntimeFitRule() if self.original else OpenWhiskRule()
        for whole, writer in getattr(self, "traces", {}).items():
            lines = [*self.lines[whole], writer.end()]
            for rule in (None, other):
                report = replay(lines, rule=rule)
                assert report.difference is None
                assert report.steps == len(lines) - 2


TestReplayOfAHostileWorld = RecordedWorld.TestCase
TestReplayOfAHostileWorld.settings = settings(stateful_step_count=50)


class Recorded:
    """A core with its trace."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.writer = TraceWriter(core.config)
        self.lines = [self.writer.header()]

    def step(self, event: ev.Event, now_us: int) -> list[object]:
        effects: list[object] = self.core.step(event, now_us)
        self.lines.append(self.writer.line(event, now_us, effects))
        return effects

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


DEEDS = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from("abc"), st.integers(1, 9), st.binary(max_size=9)),
    st.tuples(st.just("advance"), st.integers(0, 300_000)),
    st.tuples(st.just("advance"), st.integers(0, 2_000_000)),
    st.tuples(st.just("cap"), st.integers(0, 3)),
    st.tuples(st.just("fault"), st.sampled_from(["", "down", "no image"])),
    st.tuples(st.just("break")),
    st.tuples(st.just("drain")),
)


@given(
    deeds=st.lists(DEEDS, min_size=15, max_size=60),
    delays=st.lists(st.integers(0, 90_000), min_size=1, max_size=9),
    copies=st.lists(st.integers(1, 2), min_size=1, max_size=9),
)
def test_both_cores_replay_exactly(
    deeds: list[tuple[Any, ...]], delays: list[int], copies: list[int]
) -> None:
    """T1."""
    sent = [0]

    def delay(message: object) -> int:
        sent[0] += 1
        return delays[sent[0] % len(delays)]

    def copies_of(message: object) -> int:
        # A link repeats no give-back (see test_scheduler).
        return 1 if isinstance(message, ev.Returned) else copies[sent[0] % len(copies)]

    pair = SchedulerPair(
        {"i1": 1024},
        config=SchedulerConfig(waiting_max=4),
        times=Times(reserve_us=500),
        delay=delay,
        copies=copies_of,
    )
    scheduler: Any = Recorded(Scheduler(pair.config))
    config = PoolConfig("i1", 1024, 500_000, 100_000, (Prewarm("k", 300),), 2_000_000)
    pool: Any = Recorded(ContainerPool(config))
    pair.scheduler, pair.pools["i1"] = scheduler, pool
    pair.tell(ev.InvokerReported("i1", 1024))
    for name in "abc":
        concurrency = 1 + (name == "b")
        pair.open(
            ev.QueueSpec(name, "n", name, 0, memory_mb=300, concurrency=concurrency, kind="k")
        )
    serial = 0
    for deed, *words in deeds:
        if deed == "arrive":
            queue, count, payload = words
            for _ in range(count):
                serial += 1
                pair.accepted.add(f"{serial}")
                pair.tell(ev.Arrived(queue, ev.Activation(f"{serial}", payload, pair.now_us)))
        elif deed == "advance":
            pair.advance(*words)
        elif deed == "cap":
            pair.cap("n", *words)
        elif deed == "fault":
            (pair.engines["i1"].fault,) = words
        elif deed == "break":
            for container in pair.containers_of("i1")[:1]:
                pair.break_sandbox("i1", container)
        else:
            pair.tell_pool("i1", ev.DrainRequested())
    for core in (scheduler, pool):
        assert replay([*core.lines, core.writer.end()]).difference is None


def small_trace() -> list[str]:
    core = Recorded(Scheduler(SchedulerConfig(name="c", report_decisions=True)))
    core.step(ev.InvokerReported("i", 1024, creations_per_s=0.3), 1)
    core.step(ev.QueueOpened(ev.QueueSpec("q", "n", "a", 0), 4), 2)
    core.step(ev.Adopted("i", "q", 4, (ev.Held("held", True, ("h",)),)), 3)
    for number in range(4):
        activation = ev.Activation(f"a{number}", bytes([number]) * number, number, 0, ("root",))
        core.step(ev.Arrived("q", activation), 4 + number)
    core.step(ev.TimeReached(), 200_000)
    core.step(ev.Reserved("q", 1, ("c-1",)), 200_001)
    core.step(ev.ContainerServing("c-1", "i"), 300_000)
    core.step(ev.Pulled("c-1", 4, 1), 300_000)
    done = ev.Completion("a0", 3, 2_001, 0)
    core.step(ev.Pulled("c-1", 4, 1, ("a0",), (done,)), 310_000)
    (gone,) = [e for e in core.step(ev.ContainerGone("held", "x"), 400_000) if type(e) is fx.Reject]
    assert gone.cause == fx.Cause.UNKNOWN
    return [*core.lines, core.writer.end()]


# --- every event comes back as it was ----------------------------------------------------------

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.lists(st.text(max_size=3), max_size=3)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    trace_fields._text: st.text(st.characters(), max_size=3),
    trace_fields._integer: INTEGERS,
    trace_fields._small: st.integers(-(2**31), 2**31 - 1),
    trace_fields._flag: st.booleans(),
    trace_fields._number: st.floats(),
    trace_fields._texts: TEXTS.map(tuple),
}
NAMES = st.text(st.characters(), min_size=1, max_size=3)
SPECS = st.builds(
    ev.QueueSpec,
    NAMES,
    NAMES,
    NAMES,
    st.integers(0, TIME_MAX_US),
    concurrency=st.integers(1, 1_000),
    timeout_us=st.integers(1, TIME_MAX_US),
    action_limit=st.none() | st.integers(0, COUNT_MAX),
)
TIMES = st.integers(0, TIME_MAX_US)
CAUSES = st.lists(NAMES, max_size=3).map(tuple)
WORK = st.builds(ev.Activation, NAMES, st.binary(max_size=9), TIMES, TIMES, CAUSES)
OUTCOMES = st.integers(0, 3)
DONE = st.builds(ev.Completion, NAMES, TIMES, TIMES, OUTCOMES)
HELD = st.builds(ev.Held, NAMES, st.booleans(), st.lists(NAMES, max_size=3).map(tuple))
# By the name of a field: where not every value of its type will do.
PARTS = {
    "spec": SPECS,
    "activation": WORK,
    "completions": DONE,
    "held": HELD,
    "queue": NAMES,
    "container": NAMES,
    "namespace": NAMES,
    "invoker": NAMES,
    "epoch": TIMES,
    "history_us": TIMES,
    "init_us": TIMES,
    "run_us": TIMES,
    "containers": st.integers(0, COUNT_MAX),
    "containers_max": st.integers(0, COUNT_MAX),
    "namespace_containers": st.integers(0, COUNT_MAX),
    "giver_containers": st.integers(0, COUNT_MAX),
    "reserve": st.integers(0, COUNT_MAX),
    "memory_mb": st.integers(0, MEMORY_MAX_MB),
    "elsewhere_mb": st.integers(0, MEMORY_MAX_MB),
    "serial": TIMES,
    "creation_us": st.integers(0, CREATION_MAX_US),
    "creations_per_s": st.sampled_from([0.0, float("inf")]) | st.floats(CREATIONS_MIN_PER_S),
    "free_slots": st.integers(0, CONCURRENCY_MAX),
    "failure": st.integers(0, 1),
    "outcome": OUTCOMES,
}


def events_of(cls: Any) -> st.SearchStrategy[Any]:
    fields = {}
    for name, read in FIELDS[cls].items():
        # Of "containers" there are counts and names.
        value = VALUES[read] if read is trace_fields._texts else PARTS.get(name, VALUES.get(read))
        if name in ("completions", "held"):
            value = st.lists(value, max_size=3).map(tuple)
        fields[name] = value
    return st.builds(cls, **fields)


def shown(value: object) -> object:
    """Return all that is in a value; floats by their bits."""
    if isinstance(value, tuple):
        return [shown(item) for item in value]
    fields = FIELDS.get(type(value))
    if fields is None:
        return value.hex() if isinstance(value, float) else (type(value), value)
    return [(name, shown(getattr(value, name))) for name in fields]


@settings(max_examples=4 * settings().max_examples)
@given(event=st.sampled_from(sorted(EVENTS)).flatmap(lambda n: events_of(EVENTS[n])))
def test_every_event_comes_back_as_it_was(event: ev.Event) -> None:
    """T1."""
    writer = TraceWriter(SchedulerConfig())
    line = writer.line(event, 5, [])
    assert line.isascii()
    assert line.count("\n") == 1
    json.loads(line, parse_constant=pytest.fail)  # not every reader takes Infinity and NaN
    (step,) = TraceReader([writer.header(), line, writer.end()])
    assert type(step.event) is type(event)
    assert shown(step.event) == shown(event)


# --- damage --------------------------------------------------------------------------------------

TRACE = small_trace()
LAST = len(TRACE) - 1
WHOLE = [line.rstrip("\n") for line in TRACE]
places = st.integers(0, LAST)


def outcome_of(lines: list[str]) -> TraceError | ReplayReport:
    try:
        return replay(lines)
    except TraceError as error:
        return error


def line_of_error(lines: list[str]) -> int:
    error = outcome_of(lines)
    assert isinstance(error, TraceError), "nothing was found"
    return error.line


@given(place=places)
def test_a_lost_line_is_named(place: int) -> None:
    """T2."""
    assert line_of_error(TRACE[:place] + TRACE[place + 1 :]) == place + 1


@given(place=places)
def test_a_repeated_line_is_named(place: int) -> None:
    """T2."""
    assert line_of_error(TRACE[: place + 1] + TRACE[place:]) == place + 2


@given(place=places, other=places)
def test_an_exchange_of_lines_is_named(place: int, other: int) -> None:
    """T2."""
    low, high = sorted((place, other))
    lines = list(TRACE)
    lines[low], lines[high] = lines[high], lines[low]
    if low < high:
        assert line_of_error(lines) == low + 1
    else:
        assert replay(lines).difference is None


@given(end=st.integers(0, len("".join(TRACE)) - 2))
def test_a_cut_is_named(end: int) -> None:
    """T2."""
    text = "".join(TRACE)[:end]
    lines = text.splitlines(keepends=True)
    # One that lacks its newline alone is whole.
    whole = sum(line.rstrip("\n") in WHOLE for line in lines)
    assert line_of_error(lines) == whole + 1


def leaves_of(value: Any) -> list[tuple[Any, Any]]:
    """Return the places of all numbers, texts and flags: where, and under which key."""
    found: list[tuple[Any, Any]] = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found += leaves_of(item) if isinstance(item, (dict, list)) else [(value, key)]
    return found


@given(data=st.data())
def test_any_change_of_an_effect_is_a_difference(data: st.DataObject) -> None:
    """T2."""
    documents = [json.loads(line) for line in TRACE]
    places = [n for n, document in enumerate(documents) if document.get("effects")]
    place = data.draw(st.sampled_from(places))
    effects = documents[place]["effects"]
    where, key = data.draw(st.sampled_from([*leaves_of(effects), (effects, None)]))
    if key is None:
        effects.pop(data.draw(st.integers(0, len(effects) - 1)))
    elif isinstance(where[key], bool):
        where[key] = data.draw(st.sampled_from([not where[key], int(where[key]), None]))
    elif isinstance(where[key], (int, float)):
        where[key] = data.draw(st.sampled_from([where[key] + 1, f"{where[key]}"]))
    else:
        where[key] = f"{where[key]}."
    outcome = outcome_of([json.dumps(document) for document in documents])
    assert isinstance(outcome, ReplayReport)
    assert outcome.difference is not None
    assert outcome.difference.line == place + 1


@settings(max_examples=10 * settings().max_examples)
@given(
    place=places,
    at=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 3),
    text=st.one_of(
        st.text(max_size=2),
        st.sampled_from(["0", "-1", "null", "true", "[]", "{}", '""', "1e999", "NaN", "9" * 25]),
    ),
)
def test_any_edit_is_found_or_changes_nothing(
    place: int, at: float, length: int, text: str
) -> None:
    """No other exception ever, and never a line number that lies before or behind the edit."""
    line = TRACE[place]
    start = int(at * (len(line) - 1))
    lines = list(TRACE)
    lines[place] = line[:start] + text + line[min(start + length, len(line) - 1) :]
    outcome = outcome_of(lines)
    if isinstance(outcome, TraceError):
        assert outcome.line in (place + 1, place + 2)
    elif outcome.difference is not None:
        assert outcome.difference.line > place
