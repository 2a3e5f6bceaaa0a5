"""What the fuzzer runs: bytes become events for a core, or the text of a trace.

Decoding never fails and wastes nothing: every byte means something, ids come from a small pool,
numbers are small or at a bound.  Which fields an event has is read off the table of
``trace_fields``, so a new event is fuzzed without a line here.
"""

from __future__ import annotations

from typing import Any

from test_bad_input import seen

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import trace, trace_fields
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.limits import TIME_MAX_US
from acs_core.scheduler import Scheduler, SchedulerConfig, UnknownQueue

STEPS_MAX = 80
QUEUES = ["n/a", "n/b", "m/c"]
CONTAINERS = [f"c-{n}" for n in range(1, 7)]
ACTIVATIONS = [f"a{n}" for n in range(8)]
WORDS = [*QUEUES, *CONTAINERS, *ACTIVATIONS, "n", "m", "i1", "i2", "", "x" * 1_025]
POOLS = {
    "queue": QUEUES,
    "container": CONTAINERS,
    "containers": CONTAINERS,
    "invoker": ["i1", "i2"],
    "namespace": ["n", "m"],
    "activation_id": ACTIVATIONS,
    "activation_ids": ACTIVATIONS,
    "started": ACTIVATIONS,
}
BOUNDS = [-1, 1_000, 2**31 - 1, 2**31, 2**40, 2**62 - 1, 2**62, 2**63 - 1, -(2**63)]
FLOATS = [0.0, 1.0, 0.5, 4.0, -1.0, 1e-320, 1e300, float("inf"), float("nan")]
# How much later the next event comes, in microseconds; most come at once.
PASSES_US = [0, 0, 0, 0, 1, 5_000, 100_000, 1_000_000, 70_000_000, -1]
PARTS = {
    "spec": ev.QueueSpec,
    "activation": ev.Activation,
    "held": ev.Held,
    "completions": ev.Completion,
}
MANY = {"held", "completions"}


class Bytes:
    """Draws values from bytes; after their end every byte is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def one_of(self, items: list[Any]) -> Any:
        return items[self.byte() % len(items)]

    def number(self) -> int:
        byte = self.byte()
        return byte % 8 if byte < 224 else BOUNDS[byte % len(BOUNDS)]

    def text(self, name: str) -> str:
        byte = self.byte()
        pool = POOLS.get(name, WORDS) if byte < 240 else WORDS
        return pool[byte % len(pool)]

    def made(self, cls: Any) -> Any:
        """Make an object of the class; raises what its constructor raises."""
        fields = trace_fields.FIELDS[cls]
        return cls(**{name: self.field(name, read) for name, read in fields.items()})

    def field(self, name: str, read: Any) -> Any:
        if name in MANY:
            return tuple([self.made(PARTS[name]) for _ in range(self.byte() % 3)])
        if name in PARTS:
            return self.made(PARTS[name])
        if read is trace_fields._texts:
            return tuple([self.text(name) for _ in range(self.byte() % 4)])
        if read is trace_fields._text:
            return self.text(name)
        if read is trace_fields._flag:
            return self.byte() % 2 == 1
        if read is trace_fields._number:
            return self.one_of(FLOATS)
        if read is trace_fields._payload:
            return b"x"
        if read is trace_fields._small:
            return max(-(2**31), min(self.number(), 2**31 - 1))
        if read is trace_fields._integer:
            return self.number()
        # The optional ones: half of the time nothing.
        return None if self.byte() % 2 else self.number()


# --- cores -----------------------------------------------------------------------------------


def _events_taken(core: Scheduler | ContainerPool) -> list[type]:
    """Return the events that the core knows: any other one is a TypeError."""
    taken = []
    for cls in trace_fields.EVENTS.values():
        try:
            core.step(Bytes(bytes([1] * 64)).made(cls), 0)
        except UnknownQueue:
            pass
        except TypeError:
            continue
        taken.append(cls)
    return taken


TAKEN = {core: _events_taken(core()) for core in (Scheduler, ContainerPool)}
ALL = [*trace_fields.EVENTS.values(), ev.Event]


def run_scheduler(data: bytes) -> None:
    """Tell a scheduler what the bytes say; AssertionError, or what else it raises, is a bug."""
    source = Bytes(data)
    config = SchedulerConfig(
        name="c",
        rule=source.one_of([RuntimeFitRule(), OpenWhiskRule()]),
        waiting_max=3,
        namespace_containers_max=2,
        report_decisions=True,
    )
    core = Scheduler(config)
    spec = ev.QueueSpec("n/a", "n", "a", 0, memory_mb=100)
    for event in (
        ev.InvokerReported("i1", 200),
        ev.QueueOpened(spec, 1),
        ev.Adopted("i1", "n/a", 1),
    ):
        core.step(event, 0)
    _run(core, source)


def run_pool(data: bytes) -> None:
    """Tell a pool what the bytes say; AssertionError, or what else it raises, is a bug."""
    _run(ContainerPool(PoolConfig("i1", 16)), Bytes(data))


def _run(core: Scheduler | ContainerPool, source: Bytes) -> None:
    taken = TAKEN[type(core)]
    now_us = 0
    answers: list[ev.Event] = []
    for _ in range(STEPS_MAX):
        if not source.left():
            break
        kind = source.byte()
        if kind >= 128 and answers:  # what was asked for is done
            event = answers.pop(kind % len(answers))
        else:
            kinds = ALL if kind % 128 == 127 else taken
            try:
                event = source.made(kinds[kind % len(kinds)]) if kinds else ev.Event()
            except ValueError:
                continue  # no event came of it
            except KeyError:
                event = ev.Event()  # the base has no fields
        passes_us = source.one_of(PASSES_US)
        at_us = now_us + passes_us if source.byte() < 250 else source.number()
        before = seen(core)
        try:
            effects = core.step(event, at_us)
        except (ValueError, UnknownQueue, TypeError) as error:
            assert seen(core) == before, f"{type(event).__name__} was refused half way"  # S6
            foreign = type(event) not in taken
            wrong_time = not now_us <= at_us <= TIME_MAX_US
            assert foreign == isinstance(error, TypeError) or wrong_time, repr(error)  # noqa: PT017 (no test)
        else:
            now_us = at_us
            answers = [*answers, *[a for effect in effects for a in _answers(effect)]][-8:]
        core.check()


def _answers(effect: object) -> list[ev.Event]:
    """Return what a kind world reports when the effect was carried out."""
    if isinstance(effect, fx.Reserve):
        names = tuple([place.container for place in effect.places])
        return [ev.Reserved(effect.queue, effect.serial, names)]
    if isinstance(effect, fx.Create):
        return [
            ev.ContainerServing(effect.container, effect.invoker),
            ev.Pulled(effect.container, effect.epoch, 1),
        ]
    if isinstance(effect, fx.Deliver):
        done = (ev.Completion(effect.activation.activation_id, 0, 2_000, 0),)
        return [ev.Pulled(effect.container, effect.epoch, 1, (), done)]
    if isinstance(effect, fx.Release):
        return [ev.ContainerGone(effect.container, effect.why)]
    if isinstance(effect, fx.StartSandbox):
        return [ev.SandboxReady(effect.container)]
    if isinstance(effect, fx.Initialise):
        return [ev.Initialised(effect.container, 5)]
    if isinstance(effect, fx.Run):
        return [ev.RunEnded(effect.container, effect.activation.activation_id, 9, 0)]
    if isinstance(effect, fx.Remove):
        return [ev.SandboxRemoved(effect.container)]
    return []


# --- traces ----------------------------------------------------------------------------------


def run_trace(data: bytes) -> None:
    """Replay the bytes as a trace; anything but a report or a TraceError is a bug."""
    lines = data[1:].decode("utf-8", "replace").splitlines(keepends=True)
    try:
        report = trace.replay(lines, cut=data[:1] == b"c")
    except trace.TraceError as error:
        assert 1 <= error.line <= len(lines) + 1  # noqa: PT017 (no test)
    else:
        assert report.steps <= len(lines)


TARGETS = {"scheduler": run_scheduler, "pool": run_pool, "trace": run_trace}
