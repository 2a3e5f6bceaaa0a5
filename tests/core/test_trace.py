"""Traces: every class has its entry, replay is exact on any build, damage is named by its line.

``pytest --rewrite`` on the plain build writes the files of ``tests/core/traces`` anew.  What the
core decides may change them, what build it is may not.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from harness import SchedulerPair, Times

from acs_core import ABI, COMPILED, demand, effects, events, trace, trace_fields
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.demand import OpenWhiskRule, RuntimeFitRule, Snapshot
from acs_core.events import Activation, Event, QueueSpec
from acs_core.prewarm import Prewarm
from acs_core.queue_states import QueueState
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import TraceError, TraceReader, TraceWriter, replay

FILES = Path(__file__).parent / "traces"


class Recorded:
    """A core in whose place it stands, with every step written down."""

    def __init__(self, core: Any, *, payloads: bool = True) -> None:
        self.core = core
        self.writer = TraceWriter(core.config, payloads=payloads)
        self.lines = [self.writer.header()]

    def step(self, event: Event, now_us: int) -> list[object]:
        made: list[object] = self.core.step(event, now_us)
        self.lines.append(self.writer.line(event, now_us, made))
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def ended(self) -> list[str]:
        return [*self.lines, self.writer.end()]


def eventful_day(config: SchedulerConfig, *, payloads: bool = True) -> tuple[list[str], list[str]]:
    """Return the traces of a scheduler and of a pool that have seen most of what there is."""
    pair = SchedulerPair({}, config=config, keep_alive_us=2_000_000, times=Times(reserve_us=700))
    scheduler: Any = Recorded(pair.scheduler, payloads=payloads)
    pair.scheduler = scheduler
    world = SchedulerPair({"i1": 1024, "i2": 512})
    pair._memory_mb = world._memory_mb
    pair.engines = world.engines
    pools: dict[str, Any] = {}
    for name, memory_mb in pair._memory_mb.items():
        pool = ContainerPool(
            PoolConfig(name, memory_mb, 2_000_000, 400_000, (Prewarm("k", 64, expiry_us=1),))
        )
        pools[name] = Recorded(pool, payloads=payloads)
    pair.pools = pools
    pair.tell(events.InvokerReported("i1", 1024, 10, 250_000, 1 / 3))
    pair.tell(events.InvokerReported("i2", 512, creations_per_s=float("inf")))
    pair.cap("n", 5)
    for action, options in (("a", {}), ("b", {"concurrency": 3, "action_limit": 2})):
        pair.open(QueueSpec(f"n/{action}", "n", action, 7, **options), history_us=1_500)

    def arrive(queue: str, name: str, payload: bytes, deadline_us: int = 0) -> Activation:
        activation = Activation(
            name, payload, pair.now_us, deadline_us, ("root", "päre\u2028\ud800")
        )
        pair.accepted.add(name)
        pair.tell(events.Arrived(queue, activation))
        return activation

    pair.open(QueueSpec("m/p", "m", "p", 0, memory_mb=64, kind="k"))
    pair.advance(400_000)
    arrive("m/p", "prewarmed", b"")
    pair.advance(600_000)
    arrive("m/p", "wakes it", b"")
    pair.tell(events.QueueClosing("m/p", "no more"))
    first = arrive("n/a", "first", b"1")
    for number in range(40):
        pair.run_us[f"a{number}"] = 1_000 + number * 777
        arrive("n/a", f"a{number}", bytes([number]) * number)
        arrive("n/b", f"b{number}", b"{}")
        pair.advance(7_001)
    pair.tell(events.Cancelled("b39"))
    for number in range(30):  # more than may wait
        arrive("n/b", f"burst{number}", b"")
    pair.tell(events.Cancelled("burst9"))
    pair.outcomes["bad"] = events.Outcome.DEVELOPER_ERROR
    arrive("n/a", "bad", b"")
    pair.advance(200_000)
    arrive("n/a", "broken", b"")
    pair.advance(1)
    pair.break_sandbox("i1", pair.containers_of("i1")[0])
    pair.advance(1_000_000)
    pair.tell(events.Arrived("n/a", first))  # the same object again, after its end
    pair.open(QueueSpec("n/big", "n", "big", 0, memory_mb=1024))
    arrive("n/big", "evicts", b"")
    pair.advance(900_000)
    stray = Activation("stray", b"s", pair.now_us)
    pair.tell_pool("i1", effects.Deliver("nowhere", "i1", 1, stray))
    pair.engines["i1"].fault = "no image"
    pair.engines["i2"].fault = "down"
    pair.advance(5_000_000)
    arrive("n/a", "late", b"x", pair.now_us + 1_234_567)
    pair.advance(700_000)
    pair.engines["i1"].fault = pair.engines["i2"].fault = ""
    pair.denial = "not now"
    arrive("n/b", "kept", b"y")
    pair.advance(50_000)
    pair.denial = ""
    pair.tell(events.HungerElsewhere("n/elsewhere", "n", 0, 3, False, "n/a", 3))
    pair.tell(events.HungerEnded("n/elsewhere"))
    pair.advance(4_000_000)
    pair.run_us["long"] = 90_000_000
    arrive("n/b", "long", b"")
    pair.advance(1_000_000)
    arrive("n/b", "forwarded", b"f" * 99)
    arrive("n/b", "forwarded too", b"f")
    pair.tell(events.LeadershipLost("n/b", "s2"))
    pair.open(QueueSpec("n/b", "n", "b", 8, concurrency=3))
    pair.advance(2_000_000)
    arrive("n/a", "moves", b"")
    pair.tell(events.LeadershipLost("n/a", "s2"))  # while it reserves
    pair.open(QueueSpec("n/a", "n", "a", 8))
    pair.advance(2_000_000)
    pair.cut_off("i2")
    pair.cap("n", 0)
    arrive("n/a", "starved", b"z", pair.now_us + 2_000_000)
    pair.tell(events.QueueClosing("n/a", "n/a was deleted"))
    pair.advance(20_000_000)
    for on in (True, False):
        pair.tell_pool("i1", events.IdleHeld(on))
    for invoker in ("i1", "i2"):
        pair.tell_pool(invoker, events.DrainRequested())
    pair.run_until_quiet(200_000_000)
    return scheduler.ended(), pools["i1"].ended()


CONFIG = SchedulerConfig(
    name="c",
    report_decisions=True,
    shadow=demand.OpenWhiskRule(),
    waiting_max=20,
    decision_interval_us=800_000,
)


@pytest.fixture(scope="module")
def day() -> tuple[list[str], list[str]]:
    return eventful_day(CONFIG)


# --- the table -------------------------------------------------------------------------------


def classes_of(*modules: Any) -> list[type]:
    return [
        cls
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type)
        and cls.__module__ == module.__name__
        and not issubclass(cls, IntEnum)
        and cls is not Event
    ]


def filled(cls: type) -> object:
    """Make an object of the class out of the table, as a reader would."""
    samples: dict[Any, object] = {
        trace_fields._text: "x",
        trace_fields._integer: 7,
        trace_fields._small: 1,
        trace_fields._flag: True,
        trace_fields._number: 0.1,
        trace_fields._payload: "AAE=",
        trace_fields._activation: {"activation_id": "x", "payload": "AAE="}
        | {"arrived_us": 1, "deadline_us": 2, "causes": ["y"]},
        trace_fields._rule: {"RuntimeFitRule": {}},
    }
    document = {name: samples.get(read) for name, read in trace_fields.FIELDS[cls].items()}
    spec = {name: samples.get(read) for name, read in trace_fields.FIELDS[QueueSpec].items()}
    optional = ("action_limit", "wait_target_us", "wait_max_us")
    for name in document:
        if name == "spec":
            document[name] = spec
        elif document[name] is None and name not in optional:
            document[name] = []
    return trace_fields._read_object(cls, document)


def test_every_event_and_every_effect_has_an_entry() -> None:
    assert set(classes_of(events, effects)) <= trace_fields.FIELDS.keys()


def data_of(cls: type, made: object) -> set[str]:
    if not COMPILED:
        return set(vars(made))
    return {name for name, value in vars(cls).items() if inspect.isdatadescriptor(value)}


ENTRIES = sorted(
    trace_fields.FIELDS.keys()
    - {
        effects.Decided,
        effects.Differed,
        Snapshot,
        demand.Decision,
        SchedulerConfig,
        PoolConfig,
        Prewarm,
        RuntimeFitRule,
    },
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", ENTRIES, ids=lambda cls: cls.__name__)
def test_an_entry_has_every_field(cls: type) -> None:
    notes = {"queue", *trace_fields.NOTES} if cls is Activation else set()
    assert set(trace_fields.FIELDS[cls]) | notes == data_of(cls, filled(cls))


def test_decisions_have_every_field() -> None:
    snapshot = Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        **dict.fromkeys(inspect_counts(), 1),
        average_duration_ms=None,
        namespace_limit=3,
        action_limit=3,
        concurrency=1,
    )
    seen = data_of(Snapshot, snapshot) - {"state"}
    assert set(trace_fields.FIELDS[Snapshot]) == seen
    decided = data_of(demand.Decision, RuntimeFitRule().decide(snapshot))
    public = {name for name in decided if not name.startswith("_")}
    words = {"reason", "rejected"}
    assert set(trace_fields.FIELDS[demand.Decision]) == (public | words) - {"snapshot"}


def inspect_counts() -> tuple[str, ...]:
    spaces = ("existing", "in_progress")
    return ("incoming", "waiting", "stale", *spaces, *[f"namespace_{name}" for name in spaces])


@pytest.mark.parametrize("cls", [SchedulerConfig, PoolConfig, Prewarm])
def test_configurations_have_every_field(cls: Any) -> None:
    assert [field.name for field in dataclasses.fields(cls)] == list(trace_fields.FIELDS[cls])


# --- writing and replaying -------------------------------------------------------------------


def test_a_line_holds_time_event_and_effects() -> None:
    scheduler = Recorded(Scheduler(SchedulerConfig(name="c")))
    scheduler.step(events.QueueOpened(QueueSpec("q", "n", "a", 3), 5), 11)
    header, line, end = [json.loads(line) for line in scheduler.ended()]
    build = "compiled" if COMPILED else "plain"
    assert [header[key] for key in ("format", "version", "abi", "build", "payloads")] == [
        "acs-trace",
        1,
        ABI,
        build,
        "base64",
    ]
    assert header["config"]["SchedulerConfig"]["rule"] == {"RuntimeFitRule": {}}
    assert line == {
        "step": 1,
        "at": 11,
        "event": {
            "QueueOpened": {
                "spec": {
                    "queue": "q",
                    "namespace": "n",
                    "action": "a",
                    "revision": 3,
                    "memory_mb": 256,
                    "concurrency": 1,
                    "timeout_us": 60_000_000,
                    "action_limit": None,
                    "kind": "",
                    "containers_min": 0,
                    "wait_target_us": None,
                    "wait_max_us": None,
                },
                "epoch": 5,
                "history_us": 0,
            }
        },
        "effects": [{"Adopt": {"queue": "q", "epoch": 5, "invoker": ""}}],
    }
    assert end == {"end": 1}


def test_the_day_was_eventful(day: tuple[list[str], list[str]]) -> None:
    """Else the tests below would show less than they say."""
    text = "".join(day[0] + day[1])
    values = {"QueueSpec", "Activation", "Completion", "Held", "Place"}
    names = {cls.__name__ for cls in classes_of(events, effects)} - values
    assert {name for name in names if f'{{"{name}":' not in text} == set()
    assert '"notes":{' in text


@pytest.mark.parametrize(("index", "core"), [(0, "scheduler"), (1, "pool")])
def test_replay_is_exact(index: int, core: str, day: tuple[list[str], list[str]]) -> None:
    lines = day[index]
    report = replay(lines)
    assert report.difference is None
    assert (report.core, report.steps, report.complete) == (core, len(lines) - 2, True)
    assert report.first_us == 0 < report.last_us
    assert (report.abi, report.build) == (ABI, "compiled" if COMPILED else "plain")


def test_replay_is_exact_under_the_original_rule() -> None:
    config = SchedulerConfig(rule=OpenWhiskRule(50, True, 1.25), waiting_max=5)
    for lines in eventful_day(config):
        assert replay(lines).difference is None


@pytest.mark.parametrize("index", [0, 1])
def test_invariants_are_asserted_after_each_step(
    index: int, day: tuple[list[str], list[str]]
) -> None:
    assert replay(day[index], check=True).difference is None


def test_a_broken_invariant_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, config: SchedulerConfig) -> None:
            self.steps = 0

        def step(self, event: object, now_us: int) -> list[object]:
            self.steps += 1
            return []

        def check(self) -> None:
            assert self.steps < 2, "a place is counted twice"

    writer = TraceWriter(CONFIG)
    lines = [
        writer.header(),
        *[writer.line(events.TimeReached(), n, []) for n in range(3)],
        writer.end(),
    ]
    monkeypatch.setattr("acs_core.trace.Scheduler", Broken)
    assert replay(lines).difference is None
    difference = replay(lines, check=True).difference
    assert difference is not None
    assert (difference.line, difference.at_us) == (3, 1)
    assert difference.got[0].startswith("broke an invariant: a place is counted twice")


def test_payloads_left_out_are_compared_by_digest() -> None:
    lines, pool = eventful_day(CONFIG, payloads=False)
    assert len("".join(lines)) < len("".join(eventful_day(CONFIG)[0])) * 2
    assert replay(lines).difference is None
    assert replay(pool).difference is None
    digest = "39:" + json.loads(find(lines, '"a39"', '"Arrived"'))["event"]["Arrived"][
        "activation"
    ]["payload"].removeprefix("39:")
    changed = [line.replace(digest, f"39:{'0' * 64}", 1) for line in lines]
    assert changed != lines
    assert replay(changed).difference is not None


def find(lines: Iterable[str], *parts: str) -> str:
    return next(line for line in lines if all(part in line for part in parts))


def test_payload_of_adopted_work_is_known_to_be_elsewhere() -> None:
    scheduler = Recorded(Scheduler(SchedulerConfig()), payloads=False)
    scheduler.step(events.InvokerReported("i", 1024), 0)
    scheduler.step(events.QueueOpened(QueueSpec("q", "n", "a", 0), 1), 1)
    scheduler.step(events.Adopted("i", "q", 1, (events.Held("c", True, ("x",)),)), 2)
    (reject,) = scheduler.step(events.ContainerGone("c", "it died"), 3)
    assert isinstance(reject, effects.Reject)
    assert replay(scheduler.ended()).difference is None


def test_the_same_object_may_arrive_within_the_microsecond_of_its_delivery() -> None:
    scheduler = Recorded(Scheduler(SchedulerConfig()))
    scheduler.step(events.InvokerReported("i", 1024), 1)
    scheduler.step(events.QueueOpened(QueueSpec("q", "n", "a", 0), 1), 1)
    scheduler.step(events.Adopted("i", "q", 1), 1)
    (reserve, *_) = scheduler.step(events.Arrived("q", Activation("w", b"", 1)), 1)
    assert isinstance(reserve, effects.Reserve)
    container = reserve.places[0].container
    scheduler.step(events.Reserved("q", reserve.serial, (container,)), 1)
    scheduler.step(events.Pulled(container, 1, 1), 1)
    scheduler.step(events.Pulled(container, 1, 1, (), (events.Completion("w", 0, 1, 0),)), 1)
    activation = Activation("x", b"", 1)
    (deliver,) = scheduler.step(events.Arrived("q", activation), 1)
    assert isinstance(deliver, effects.Deliver)
    scheduler.step(events.Pulled(container, 1, 1, (), (events.Completion("x", 0, 1, 0),)), 1)
    assert scheduler.step(events.Arrived("q", activation), 1) == []
    assert ['"notes"' in line for line in scheduler.lines][-3:] == [False, False, True]
    assert replay(scheduler.ended()).difference is None


def test_values_of_either_build_are_written_alike() -> None:
    """The plain build keeps a 1 for True and an 8 for 8.0."""
    writer = TraceWriter(SchedulerConfig(rule=OpenWhiskRule(8, 1)))  # type: ignore[arg-type]
    assert '"OpenWhiskRule":{"stale_ms":8.0,"over_provision":true' in writer.header()
    line = writer.line(events.InvokerReported("i", 1, 0, 0, 8), 0, [effects.Throttle("q", 1, "")])  # type: ignore[arg-type]
    assert '"creations_per_s":8.0' in line
    assert '"on":true' in line


@pytest.mark.parametrize("number", [0.1, 1e-320, 5e300, float("inf"), float("-inf"), float("nan")])
def test_floats_come_back_bit_for_bit(number: float) -> None:
    writer = TraceWriter(SchedulerConfig())
    line = writer.line(events.LimitsChanged("n", 1, number), 0, [])
    json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    (step,) = TraceReader([writer.header(), line, writer.end()])
    assert isinstance(step.event, events.LimitsChanged)
    assert repr(step.event.weight) == repr(number)


def test_what_has_no_entry_cannot_be_written() -> None:
    class Own:
        """A rule of one's own."""

        def decide(self, snapshot: Snapshot) -> demand.Decision:
            return RuntimeFitRule().decide(snapshot)

    with pytest.raises(TypeError, match="Own is nothing that a trace can hold"):
        TraceWriter(SchedulerConfig(rule=Own())).header()
    writer = TraceWriter(SchedulerConfig())
    with pytest.raises(TypeError, match="object is nothing"):
        writer.line(events.TimeReached(), 0, [object()])
    assert json.loads(writer.end()) == {"end": 0}


# --- differences -----------------------------------------------------------------------------


def test_the_first_difference_is_reported(day: tuple[list[str], list[str]]) -> None:
    lines = list(day[0])
    number = lines.index(find(lines, '"Deliver":{"container":"c-2"'))
    deliver = '"Deliver":{"container":"c-2"'
    lines[number] = lines[number].replace(deliver, deliver.replace("c-2", "c-9"))
    lines[number + 5] = lines[number + 5].replace('"effects":[', '"effects":[{"Adopt":{}},')
    report = replay(lines)
    assert report.steps == number
    difference = report.difference
    assert difference is not None
    assert difference.line == number + 1
    assert difference.at_us == json.loads(lines[number])["at"]
    assert json.loads(difference.event) == json.loads(lines[number])["event"]
    differing = [(e, g) for e, g in zip(difference.expected, difference.got, strict=True) if e != g]
    ((expected, got),) = differing
    assert expected.replace('"c-9"', '"c-2"') == got


def test_an_event_that_our_core_refuses_is_a_difference(day: tuple[list[str], list[str]]) -> None:
    lines = list(day[0])
    number = lines.index(find(lines, '"Arrived":{"queue":"n/a"'))
    lines[number] = lines[number].replace('"Arrived":{"queue":"n/a"', '"Arrived":{"queue":"n/z"')
    difference = replay(lines).difference
    assert difference is not None
    assert difference.line == number + 1
    assert difference.got == ("raised UnknownQueue: 'queue n/z is not open here'",)


def test_what_a_formatter_changes_is_no_difference(day: tuple[list[str], list[str]]) -> None:
    lines = [json.dumps(json.loads(line), sort_keys=True) for line in day[0]]
    report = replay(lines)
    assert report.difference is None
    assert report.steps == len(lines) - 2


def test_numbers_of_another_type_are_a_difference(day: tuple[list[str], list[str]]) -> None:
    lines = list(day[0])
    number = lines.index(find(lines, '{"Reserve":{"queue":"n/a"'))
    lines[number] = lines[number].replace('"memory_mb":256,"places"', '"memory_mb":256.0,"places"')
    assert replay(lines).difference is not None


# --- damage ----------------------------------------------------------------------------------

SMALL = Recorded(Scheduler(SchedulerConfig()))
SMALL.step(events.InvokerReported("i", 1024), 5)
SMALL.step(events.QueueOpened(QueueSpec("q", "n", "a", 0), 1), 6)
SMALL.step(events.Arrived("q", Activation("x", b"", 6)), 7)
SMALL.step(events.Pulled("c", 1, 1), 7)
LINES = SMALL.ended()


def edited(number: int, old: str, new: str) -> list[str]:
    lines = list(LINES)
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    return lines


DAMAGES: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 1, "the line is not JSON (it is empty); expected a header"),
    "no header": (LINES[1:], 1, "format is None; expected 'acs-trace'"),
    "other format": (edited(1, '"acs-trace"', "7"), 1, "format is 7; expected 'acs-trace'"),
    "other version": (edited(1, '"version":1', '"version":2'), 1, "version is 2; expected 1"),
    "header field": (
        edited(1, f'"abi":{ABI},', ""),
        1,
        "expected an object with format, version, abi",
    ),
    "payloads": (edited(1, "base64", "rot13"), 1, "payloads is 'rot13'; expected base64 or sha256"),
    "configuration": (
        edited(1, '"waiting_max":10000', '"waiting_max":0'),
        1,
        "what SchedulerConfig takes (waiting_max is 0",
    ),
    "configuration field": (
        edited(1, '"waiting_max":10000,', ""),
        1,
        "expected an object with name, rule, waiting_max",
    ),
    "flag": (
        edited(1, '"report_decisions":false', '"report_decisions":0'),
        1,
        "config.SchedulerConfig.report_decisions is 0; expected true or false",
    ),
    "unknown rule": (
        edited(1, "RuntimeFitRule", "MyRule"),
        1,
        "config.SchedulerConfig.rule is {'MyRule': {}}; expected an object under one of "
        "RuntimeFitRule, OpenWhiskRule",
    ),
    "cut": (LINES[:3], 4, "the trace ends, it was cut off or is written still; expected step 3"),
    "cut in a line": ([*LINES[:2], LINES[2][:50]], 3, "is not JSON"),
    "header alone": (LINES[:1], 2, "the trace ends"),
    "empty line": (edited(3, LINES[2], "\n"), 3, "the line is not JSON (it is empty)"),
    "no object": (edited(3, LINES[2], "[1]\n"), 3, "the line is '[1]'; expected step 2"),
    "brackets": (edited(3, LINES[2], "[" * 100_000), 3, "is not JSON"),
    "digits": (edited(3, '"at":6', f'"at":{"6" * 5000}'), 3, "is not JSON"),
    "missing step": (LINES[:2] + LINES[3:], 3, "step is 3; expected 2"),
    "repeated step": (LINES[:3] + LINES[2:], 4, "step is 2; expected 3"),
    "order": ([*LINES[:3], LINES[4], LINES[3], LINES[5]], 4, "step is 4; expected 3"),
    "back in time": (edited(4, '"at":7', '"at":5'), 4, "at is 5; expected 6..4611686018427387903"),
    "end of time": (edited(3, '"at":6', f'"at":{2**62}'), 3, "at is 4611686018427387904"),
    "step field": (edited(3, '"at":6,', ""), 3, "expected an object with step, at, event, effects"),
    "unknown event": (edited(3, "QueueOpened", "QueueOpen"), 3, "expected an object under one of"),
    "two events": (edited(5, '{"Pulled"', '{"TimeReached":{},"Pulled"'), 5, "event is {"),
    "no event": (edited(5, '{"Pulled"', '7,"x":{"Pulled"'), 5, "it is {"),
    "event field": (
        edited(5, '"epoch":1,', ""),
        5,
        "expected an object with container, epoch, free_slots, started, completions",
    ),
    "text": (edited(5, '"c"', "7"), 5, "event.Pulled.container is 7; expected a string"),
    "integer": (edited(5, '"epoch":1', '"epoch":true'), 5, "is True; expected an integer of 64"),
    "large integer": (edited(5, '"epoch":1', f'"epoch":{2**63}'), 5, "expected an integer of 64"),
    "list": (edited(5, '"started":[]', '"started":{}'), 5, "started is {}; expected a list"),
    "item": (edited(5, '"started":[]', '"started":[1]'), 5, "started is 1; expected a string"),
    "outcome": (
        edited(
            5,
            '"completions":[]',
            '"completions":[{"activation_id":"x","init_us":0,"run_us":0,"outcome":2147483648}]',
        ),
        5,
        "event.Pulled.completions.outcome is 2147483648; expected an integer of 32 bits",
    ),
    "number": (edited(2, '"creations_per_s":0.0', '"creations_per_s":"x"'), 2, "expected a number"),
    "large number": (
        edited(2, '"creations_per_s":0.0', f'"creations_per_s":{"9" * 400}'),
        2,
        "expected a number",
    ),
    "value": (
        edited(4, '"activation_id":"x"', '"activation_id":""'),
        4,
        "event.Arrived.activation is {'activation_id': ''",
    ),
    "payload": (
        edited(4, '"payload":""', '"payload":"A"'),
        4,
        "expected base64, or length:SHA-256",
    ),
    "payload text": (edited(4, '"payload":""', '"payload":"ä"'), 4, "expected base64"),
    "effects": (edited(3, '"effects":[', '"effects":7,"x":['), 3, "it is {"),
    "no effects": (edited(5, '"effects":[]', '"effects":{}'), 5, "effects is {}; expected a list"),
    "notes": (edited(5, '"effects"', '"notes":{},"effects"'), 5, "expected them on an arrival"),
    "note": (edited(4, '"effects"', '"notes":{"started":1},"effects"'), 4, "delivered_us, started"),
    "end count": (edited(6, "4", "5"), 6, "the line is {'end': 5}; expected {\"end\":4}"),
    "end of type": (edited(6, "4", "4.0"), 6, 'expected {"end":4}'),
    "after the end": ([*LINES, LINES[-1]], 7, "expected nothing after the end line"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_by_its_line(name: str) -> None:
    lines, number, words = DAMAGES[name]
    with pytest.raises(TraceError) as caught:
        replay(lines)
    assert str(caught.value).startswith(f"line {number}: ")
    assert words in str(caught.value)
    assert caught.value.line == number
    assert len(str(caught.value)) < 1_500


def test_the_undamaged_trace_replays() -> None:
    report = replay(LINES)
    assert report.difference is None
    assert (report.steps, report.first_us, report.last_us) == (4, 5, 7)


def test_a_trace_without_steps_replays() -> None:
    writer = TraceWriter(SchedulerConfig())
    report = replay([writer.header(), writer.end()])
    assert (report.steps, report.first_us, report.last_us) == (0, 0, 0)


def test_a_trace_goes_up_to_the_last_time_of_all() -> None:
    recorded = Recorded(Scheduler(SchedulerConfig()))
    recorded.step(events.TimeReached(), 2**62 - 1)
    assert replay(recorded.ended()).last_us == 2**62 - 1


def test_an_end_is_wanted_unless_said_otherwise() -> None:
    with pytest.raises(TraceError, match="it was cut off or is written still"):
        list(TraceReader(LINES[:3]))


def test_what_can_be_read_and_not_be_written_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """How deep brackets may go differs between the two, and between versions of Python."""

    def too_deep(value: object) -> str:
        raise RecursionError

    monkeypatch.setattr(trace, "_sorted", too_deep)
    lines = edited(5, '"effects":[]', '"effects":[[]]')
    with pytest.raises(TraceError, match="line 5: effects has brackets too deep in brackets"):
        replay(lines)


@pytest.mark.parametrize("tail", ["", "{", LINES[3][:60]])
def test_a_cut_trace_replays_on_request(tail: str) -> None:
    report = replay(LINES[:3] + ([tail] if tail else []), cut=True)
    assert report.difference is None
    assert (report.steps, report.complete) == (2, False)
    assert replay(LINES, cut=True).complete


def test_a_cut_trace_may_not_be_damaged_elsewhere() -> None:
    with pytest.raises(TraceError, match="line 3: the line is not JSON"):
        replay([*LINES[:2], LINES[2][:50], LINES[3]], cut=True)


# --- another rule ----------------------------------------------------------------------------


def test_another_rule_is_compared_on_the_same_snapshots(
    day: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "EXAMPLES_MAX", 3)
    report = replay(day[0], rule=OpenWhiskRule())
    assert report.difference is None
    comparison = report.comparison
    assert comparison is not None
    decided = sum([line.count('"Decided":') for line in day[0]])
    assert comparison.decisions == decided
    assert comparison.more > 0  # 100 ms of waiting are enough for the original
    assert comparison.verdicts > 0
    assert comparison.more + comparison.fewer + comparison.verdicts > 3
    assert len(comparison.examples) == 3
    example = comparison.examples[0]
    assert '"Decided"' in day[0][example.line - 1]
    assert example.queue_state in QueueState.__members__
    assert example.recorded.partition(":")[0] != example.other.partition(":")[0]
    monkeypatch.setattr(trace, "EXAMPLES_MAX", 1_000_000)
    whole = replay(day[0], rule=OpenWhiskRule()).comparison
    assert whole is not None
    assert len(whole.examples) == whole.more + whole.fewer + whole.verdicts


def test_a_comparison_has_a_bounded_number_of_examples(day: tuple[list[str], list[str]]) -> None:
    class Greedy:
        """A rule that always wants more."""

        def decide(self, snapshot: Snapshot) -> demand.Decision:
            return demand.Decision(demand.Verdict.ADD, 999, snapshot, "", "")

    comparison = replay(day[0], rule=Greedy()).comparison
    assert comparison is not None
    assert comparison.more == comparison.decisions > 20
    assert len(comparison.examples) == 20


def test_what_is_no_effect_is_a_difference_in_a_comparison_too() -> None:
    lines = edited(5, '"effects":[]', '"effects":[[]]')
    assert replay(lines, rule=OpenWhiskRule()).difference is not None


def test_a_rule_may_ask_for_fewer() -> None:
    lines, _ = eventful_day(SchedulerConfig(rule=OpenWhiskRule()))
    comparison = replay(lines, rule=RuntimeFitRule()).comparison
    assert comparison is not None
    assert comparison.fewer > 0


def test_the_same_rule_decides_the_same() -> None:
    for rule in (RuntimeFitRule(), OpenWhiskRule(50)):
        lines, _ = eventful_day(SchedulerConfig(rule=rule))
        comparison = replay(lines, rule=rule).comparison
        assert comparison is not None
        assert comparison.decisions > 50
        assert comparison.examples == ()


def test_a_comparison_still_finds_differences() -> None:
    lines, _ = eventful_day(SchedulerConfig())
    changed = [
        line.replace('"memory_mb":256,"places"', '"memory_mb":255,"places"') for line in lines
    ]
    assert replay(changed, rule=OpenWhiskRule()).difference is not None


def test_comparisons_that_mean_nothing_are_refused(day: tuple[list[str], list[str]]) -> None:
    with pytest.raises(ValueError, match="the trace is that of a pool"):
        replay(day[1], rule=OpenWhiskRule())
    lines, _ = eventful_day(SchedulerConfig(rule=OpenWhiskRule(50)))
    with pytest.raises(ValueError, match=r"after \[50.0, 100.0\] ms: not the same"):
        replay(lines, rule=OpenWhiskRule())


# --- across builds ---------------------------------------------------------------------------

RECORDINGS: dict[str, Callable[[], list[str]]] = {
    "scheduler": lambda: eventful_day(CONFIG)[0],
    "scheduler-original-rule": lambda: eventful_day(
        SchedulerConfig(name="o", rule=OpenWhiskRule(50, True), decision_interval_us=800_000),
        payloads=False,
    )[0],
    "pool": lambda: eventful_day(CONFIG)[1],
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_trace_of_the_plain_build_replays_on_this_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    path = FILES / f"{name}.ndjson"
    if request.config.getoption("--rewrite"):
        assert not COMPILED, "these files are written by the plain build"
        path.write_text("".join(RECORDINGS[name]()), encoding="ascii")
    with path.open(encoding="ascii") as lines:
        report = replay(lines)
    assert report.difference is None
    assert report.build == "plain"
    assert report.steps > 100


@pytest.mark.parametrize("name", ["scheduler", "pool"])
def test_this_build_writes_the_lines_that_the_plain_one_wrote(name: str) -> None:
    lines = (FILES / f"{name}.ndjson").read_text(encoding="ascii").splitlines(keepends=True)
    steps = TraceReader(lines)
    pool = isinstance(steps.config, PoolConfig)
    core = Recorded((ContainerPool if pool else Scheduler)(steps.config))  # type: ignore[arg-type]
    for step in steps:
        core.step(step.event, step.at_us)
    assert core.ended()[1:] == lines[1:]


@pytest.mark.parametrize(("read", "bits"), [(trace_fields._integer, 63), (trace_fields._small, 31)])
def test_integers_are_read_up_to_their_bits(read: Any, bits: int) -> None:
    for inside in (-(2**bits), 2**bits - 1):
        assert read(inside) == inside
    for outside in (-(2**bits) - 1, 2**bits):
        with pytest.raises(trace_fields.WrongValue):
            read(outside)


def test_what_should_be_an_object_is_one() -> None:
    with pytest.raises(trace_fields.WrongValue):
        trace_fields.read_fields([], {})
