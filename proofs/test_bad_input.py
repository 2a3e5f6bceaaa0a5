"""Proof of S6 for bad input: a named exception and nothing changed, or a defined effect.

The exception is of the same type on both builds.  What is wrong by itself makes no event; what is
wrong where things stand is refused by ``step``; what a link can really produce does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from harness import describe
from test_scheduler import deep, dump

from acs_core import COMPILED
from acs_core import effects as fx
from acs_core import events as ev
from acs_core.containers import ContainerPool, PoolConfig
from acs_core.limits import (
    CONCURRENCY_MAX,
    COUNT_MAX,
    CREATION_MAX_US,
    CREATIONS_MIN_PER_S,
    MEMORY_MAX_MB,
    NAME_MAX,
    TIME_MAX_US,
)
from acs_core.scheduler import Scheduler, SchedulerConfig, UnknownQueue

NAN = float("nan")
SPEC = ev.QueueSpec("n/a", "n", "a", 0, memory_mb=100)
Make = Callable[..., Any]

# --- no event comes of it ----------------------------------------------------------------------

spec = partial(ev.QueueSpec, "q", "n", "a")
work = partial(ev.Activation, "a", b"")
opened = partial(ev.QueueOpened, SPEC)
limits = partial(ev.LimitsChanged, "n")
report = partial(ev.InvokerReported, "i")
ended = partial(ev.RunEnded, "c", "a")

NUMBERS: list[tuple[str, Make, dict[str, int], int, int]] = [
    ("revision", spec, {}, 0, TIME_MAX_US),
    ("memory_mb", spec, {"revision": 0}, 1, MEMORY_MAX_MB),
    ("concurrency", spec, {"revision": 0}, 1, CONCURRENCY_MAX),
    ("timeout_us", spec, {"revision": 0}, 1, TIME_MAX_US),
    ("containers_min", spec, {"revision": 0}, 0, COUNT_MAX),
    ("arrived_us", work, {}, 0, TIME_MAX_US),
    ("deadline_us", work, {"arrived_us": 0}, 0, TIME_MAX_US),
    ("init_us", partial(ev.Completion, "a"), {"run_us": 1, "outcome": 0}, 0, TIME_MAX_US),
    ("run_us", partial(ev.Completion, "a"), {"init_us": 1, "outcome": 0}, 0, TIME_MAX_US),
    ("outcome", partial(ev.Completion, "a"), {"init_us": 1, "run_us": 1}, 0, 3),
    ("epoch", opened, {}, 0, TIME_MAX_US),
    ("history_us", opened, {"epoch": 1}, 0, TIME_MAX_US),
    ("containers_max", limits, {}, 0, COUNT_MAX),
    ("memory_mb", report, {}, 0, MEMORY_MAX_MB),
    ("elsewhere_mb", report, {"memory_mb": 1}, 0, MEMORY_MAX_MB),
    ("creation_us", report, {"memory_mb": 1}, 0, CREATION_MAX_US),
    ("epoch", partial(fx.Adopt, "q"), {}, 0, TIME_MAX_US),
    ("epoch", partial(fx.Create, "c", "i", spec=SPEC), {}, 0, TIME_MAX_US),
    ("epoch", partial(ev.Adopted, "i", "q"), {}, 0, TIME_MAX_US),
    ("epoch", partial(ev.Pulled, "c"), {"free_slots": 1}, 0, TIME_MAX_US),
    ("epoch", partial(ev.Returned, "c", activation_ids=()), {}, 0, TIME_MAX_US),
    ("serial", partial(ev.Reserved, "q", containers=()), {}, 0, TIME_MAX_US),
    ("serial", partial(ev.Denied, "q", reason="x"), {}, 0, TIME_MAX_US),
    ("free_slots", partial(ev.Pulled, "c"), {"epoch": 1}, 0, CONCURRENCY_MAX),
    ("failure", partial(ev.CreationFailed, "c", cause="x"), {}, 0, 2),
    ("failure", partial(ev.SandboxFailed, "c", cause="x"), {}, 0, 2),
    ("init_us", partial(ev.Initialised, "c"), {}, 0, TIME_MAX_US),
    ("run_us", ended, {"outcome": 0}, 0, TIME_MAX_US),
    ("outcome", ended, {"run_us": 1}, 0, 3),
]
NAMED: list[tuple[str, Make]] = [
    ("queue", lambda name: ev.QueueSpec(name, "n", "a", 0)),
    ("namespace", lambda name: ev.QueueSpec("q", name, "a", 0)),
    ("action", lambda name: ev.QueueSpec("q", "n", name, 0)),
    ("activation_id", lambda name: ev.Activation(name, b"", 0)),
    ("namespace", lambda name: ev.LimitsChanged(name, 1)),
    ("invoker", lambda name: ev.InvokerReported(name, 1)),
    ("container", lambda name: ev.Held(name, True)),
    ("queue", lambda name: fx.Adopt(name, 1)),
    ("container", lambda name: fx.Create(name, "i", 1, SPEC)),
    ("activation_ids", lambda name: ev.Held("c", True, ("a", name))),
]


@pytest.mark.parametrize(("field", "make", "others", "low", "high"), NUMBERS)
def test_a_number_out_of_its_range_makes_no_event(
    field: str, make: Make, others: dict[str, int], low: int, high: int
) -> None:
    for number in (low, high):
        assert getattr(make(**others, **{field: number}), field) == number
    wrong = [low - 1, high + 1, -(2**63), 2**63 - 1, -(2**63) - 1, 2**63, 2**100]
    for value in (*wrong, 1.0, 1.5, NAN, "1", None):
        with pytest.raises(ValueError, match=rf"{field} is .*; it must be an integer in {low}\.\."):
            make(**others, **{field: value})


@pytest.mark.parametrize("value", [-1.0, -0.001, CREATIONS_MIN_PER_S / 2, NAN, float("-inf")])
def test_an_engine_has_a_rate(value: float) -> None:
    with pytest.raises(ValueError, match=r"creations_per_s is .*; it must be 0 or at least 0.001"):
        report(1, creations_per_s=value)
    with pytest.raises(TypeError):
        report(1, creations_per_s="fast")


@pytest.mark.parametrize(("field", "make"), NAMED)
def test_a_name_that_would_be_kept_has_its_bounds(field: str, make: Make) -> None:
    make("x" * NAME_MAX)
    for name in ("", "x" * (NAME_MAX + 1), "x" * 10_000, 7, None, b"x"):
        with pytest.raises(
            ValueError, match=f"{field} is .*; it must be a string of 1..{NAME_MAX}"
        ):
            make(name)


@pytest.mark.parametrize("name", ["waiting_max", "wait_max_us", "namespace_containers_max"])
@pytest.mark.parametrize("value", [-1, 2**62, 2**63, 1.5, NAN])
def test_a_scheduler_is_not_configured_so(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        SchedulerConfig(**{name: value})


@pytest.mark.parametrize("name", ["waiting_max", "namespace_containers_max"])
def test_a_scheduler_counts_no_further_than_its_rule(name: str) -> None:
    assert getattr(SchedulerConfig(**{name: COUNT_MAX}), name) == COUNT_MAX
    with pytest.raises(ValueError, match=f"{name} is {2**31}; it must be at most {COUNT_MAX}"):
        SchedulerConfig(**{name: 2**31})


# --- a step is refused -------------------------------------------------------------------------


def busy_scheduler() -> Scheduler:
    """Return one at 1,000 us: c-1 runs a1, a2 waits, n/b is being adopted, n/c was closed."""
    scheduler = Scheduler(SchedulerConfig(name="c", namespace_containers_max=1))
    for event in (
        ev.InvokerReported("i1", 1_000),
        ev.QueueOpened(SPEC, 4),
        ev.Adopted("i1", "n/a", 4),
        ev.Arrived("n/a", ev.Activation("a1", b"x", 0)),
        ev.Arrived("n/a", ev.Activation("a2", b"x", 0)),
        ev.Reserved("n/a", 1, ("c-1",)),
        ev.ContainerServing("c-1", "i1"),
        ev.Pulled("c-1", 4, 1),
        ev.QueueOpened(ev.QueueSpec("n/c", "n", "a", 2), 6),
        ev.Adopted("i1", "n/c", 6),
        ev.QueueClosing("n/c", "updated"),
        ev.QueueOpened(ev.QueueSpec("n/b", "n", "a", 1), 5),
    ):
        scheduler.step(event, 1_000)
        scheduler.check()
    assert scheduler.queues() == ["n/a", "n/b"]
    assert scheduler.counts()["delivered"] == scheduler.counts()["waiting"] == 1
    return scheduler


def busy_pool() -> ContainerPool:
    """Return one at 1,000 us: c1 runs a1, c2 is idle, c3 is being started."""
    pool = ContainerPool(PoolConfig("i1", 400))
    for name in ("c1", "c2", "c3"):
        pool.step(fx.Create(name, "i1", 4, SPEC), 1_000)
    for event in (
        ev.SandboxReady("c1"),
        ev.SandboxReady("c2"),
        fx.Deliver("c1", "i1", 4, ev.Activation("a1", b"x", 0)),
        ev.Initialised("c1", 5),
    ):
        pool.step(event, 1_000)
        pool.check()
    return pool


def seen(core: Scheduler | ContainerPool) -> object:
    """Return all that can be seen of a core; on the plain build all that there is."""
    if isinstance(core, Scheduler):
        return dump(core, ["n/a", "n/b"])
    shown = (core.counts(), core.used_mb(), core.next_deadline_us())
    return shown if COMPILED else (shown, deep(core, {}))


TIMES: list[tuple[Any, type[Exception]]] = [
    (999, ValueError),
    (-1, ValueError),
    (-(2**63), ValueError),
    (TIME_MAX_US + 1, ValueError),
    (2**63 - 1, ValueError),
    (-(2**63) - 1, OverflowError),
    (2**63, OverflowError),
    (2**100, OverflowError),
    (NAN, ValueError if COMPILED else TypeError),
    ("1000", TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize("make", [busy_scheduler, busy_pool])
@pytest.mark.parametrize(("now_us", "error"), TIMES)
def test_a_wrong_time_changes_nothing(make: Make, now_us: Any, error: type[Exception]) -> None:
    core = make()
    before = seen(core)
    with pytest.raises(error):
        core.step(ev.TimeReached(), now_us)
    assert seen(core) == before
    core.check()
    core.step(ev.TimeReached(), 1_000)


def test_a_time_is_an_integer() -> None:
    """C takes the whole part of a float, without a word; the plain build refuses it."""
    for core in (busy_scheduler(), busy_pool()):
        before = seen(core)
        if COMPILED:
            core.step(ev.TimeReached(), 1_000.9)  # type: ignore[arg-type]
            core.step(ev.TimeReached(), 1_000)
        else:
            with pytest.raises(TypeError):
                core.step(ev.TimeReached(), 1_000.9)  # type: ignore[arg-type]
        assert seen(core) == before


def test_the_last_moment_is_a_time() -> None:
    for core in (busy_scheduler(), busy_pool()):
        core.step(ev.TimeReached(), TIME_MAX_US)
        core.check()
        with pytest.raises(ValueError, match="time was"):
            core.step(ev.TimeReached(), TIME_MAX_US - 1)


REFUSED: list[tuple[Make, Any, type[Exception]]] = [
    (busy_scheduler, ev.Arrived("n/c", ev.Activation("z", b"", 0)), UnknownQueue),
    (busy_scheduler, ev.Arrived("x" * 10_000, ev.Activation("z", b"", 0)), UnknownQueue),
    (busy_scheduler, ev.Arrived("", ev.Activation("z", b"", 0)), UnknownQueue),
    (busy_scheduler, ev.QueueClosing("n/c", "why"), UnknownQueue),
    (busy_scheduler, ev.LeadershipLost("n/c", "s2"), UnknownQueue),
    (busy_scheduler, ev.QueueOpened(SPEC, 9), ValueError),
    (busy_scheduler, ev.LimitsChanged("n", 1, NAN), ValueError),
    (busy_scheduler, ev.LimitsChanged("n", 1, float("inf")), ValueError),
    (busy_scheduler, ev.LimitsChanged("new", 1, -1.0), ValueError),
    # More work in a container than it takes, behind one that is well.
    (
        busy_scheduler,
        ev.Adopted("i1", "n/b", 5, (ev.Held("c-8", True), ev.Held("c-9", True, ("y", "z")))),
        ValueError,
    ),
    (busy_scheduler, ev.SandboxReady("c-1"), TypeError),
    (busy_scheduler, ev.Event(), TypeError),
    (busy_scheduler, None, TypeError),
    (busy_pool, ev.Pulled("c1", 4, 1), TypeError),
    (busy_pool, ev.Event(), TypeError),
    (busy_pool, "Create", TypeError),
]


@pytest.mark.parametrize(("make", "event", "error"), REFUSED)
def test_a_refused_event_changes_nothing(make: Make, event: Any, error: type[Exception]) -> None:
    core = make()
    before = seen(core)
    with pytest.raises(error):
        core.step(event, 2_000)
    assert seen(core) == before
    core.step(ev.TimeReached(), 1_000)  # its clock stands as well


# --- what the world can produce ----------------------------------------------------------------

LONG = "x" * 10_000
HARMLESS: list[tuple[Make, ev.Event, list[str]]] = [
    # Duplicate ids.
    (busy_scheduler, ev.Arrived("n/a", ev.Activation("a1", b"y", 7)), []),
    (busy_scheduler, ev.Arrived("n/b", ev.Activation("a2", b"y", 7)), []),
    (busy_scheduler, ev.Reserved("n/a", 1, ("c-1", "c-1")), []),
    (busy_scheduler, ev.ContainerServing("c-1", "i1"), []),
    (busy_scheduler, ev.Pulled("c-1", 4, 1), []),
    # Unknown ids, and those of 0 and 10,000 characters.
    (busy_scheduler, ev.Cancelled("nobody"), []),
    (busy_scheduler, ev.Cancelled(LONG), []),
    (busy_scheduler, ev.Cancelled(""), []),
    (busy_scheduler, ev.ContainerServing(LONG, "i1"), []),
    (busy_scheduler, ev.ContainerLeaving("", "idle"), []),
    (busy_scheduler, ev.ContainerGone("c-9", "died"), []),
    (busy_scheduler, ev.CreationFailed("c-9", 1, "no image"), []),
    (busy_scheduler, ev.Returned("c-1", 4, ("nobody", LONG)), []),
    (busy_scheduler, ev.Returned("c-1", 3, ("a1",)), []),
    (busy_scheduler, ev.Returned("c-9", 1, ("a1",)), []),
    (busy_scheduler, ev.InvokerGone("i9"), []),
    (busy_scheduler, ev.Pulled("c-1", 4, 0, ("nobody",), (ev.Completion(LONG, 0, 1, 0),)), []),
    (busy_scheduler, ev.Adopted("i9", "n/b", 5, (ev.Held("c-9", True, ("z",)),)), []),
    # Of a removed queue, or of a container of another revision or epoch.
    (busy_scheduler, ev.Reserved("n/c", 2, ("c-2",)), ["unreserve c-2"]),
    (busy_scheduler, ev.Denied("n/c", 1, "no room"), []),
    (busy_scheduler, ev.Adopted("i1", "n/c", 6, (ev.Held("c-9", True),)), []),
    (busy_scheduler, ev.Adopted("i1", "n/b", 4, (ev.Held("c-9", True),)), []),
    (busy_scheduler, ev.Pulled("c-1", 5, 1), []),
    (busy_pool, fx.Create("c1", "i1", 4, SPEC), []),
    (busy_pool, fx.Deliver("c1", "i1", 4, ev.Activation("a1", b"", 0)), []),
    (busy_pool, fx.Deliver("c1", "i1", 4, ev.Activation("z", b"", 0)), ["return from c1 z"]),
    (busy_pool, fx.Deliver("c2", "i1", 3, ev.Activation("z", b"", 0)), ["return from c2 z"]),
    (busy_pool, fx.Deliver(LONG, "i1", 4, ev.Activation("z", b"", 0)), [f"return from {LONG} z"]),
    (busy_pool, fx.Release("c1", "i1", 3, "late"), []),
    (busy_pool, fx.Release("", "i1", 4, "unknown"), []),
    (busy_pool, ev.SandboxReady("c1"), []),
    (busy_pool, ev.SandboxFailed("c1", 0, "late"), []),
    (busy_pool, ev.Initialised("c1", 5), []),
    (busy_pool, ev.Initialised("c2", 5), []),
    (busy_pool, ev.RunEnded("c1", "nobody", 1, 0), []),
    (busy_pool, ev.SandboxBroke("c9", "unknown"), []),
    (busy_pool, ev.SandboxRemoved("c9"), []),
]


@pytest.mark.parametrize(("make", "event", "effects"), HARMLESS)
def test_late_repeated_and_unknown_words_do_no_harm(
    make: Make, event: ev.Event, effects: list[str]
) -> None:
    core = make()
    before = core.counts()
    assert [describe(effect) for effect in core.step(event, 1_000)] == effects
    assert core.counts() == before
    core.check()


@pytest.mark.parametrize("size", [0, 16 * 2**20])
def test_a_payload_of_any_size_is_handed_on_as_it_is(size: int) -> None:
    scheduler, payload = busy_scheduler(), bytes(size)
    scheduler.step(ev.Cancelled("a2"), 1_000)
    scheduler.step(ev.Arrived("n/a", ev.Activation("a3", payload, 0)), 1_000)
    done = (ev.Completion("a1", 0, 1, 0),)
    (deliver,) = scheduler.step(ev.Pulled("c-1", 4, 1, (), done), 1_000)
    assert isinstance(deliver, fx.Deliver)
    assert deliver.activation.payload is payload
    pool = busy_pool()
    (start,) = pool.step(fx.Deliver("c2", "i1", 4, deliver.activation), 1_000)
    assert isinstance(start, fx.Initialise)
    assert start.activation.payload is payload


def test_the_largest_value_of_every_field_goes_through_a_decision() -> None:
    scheduler = Scheduler(SchedulerConfig(waiting_max=COUNT_MAX))
    largest = ev.QueueSpec(
        "n/a",
        "n",
        "a",
        TIME_MAX_US,
        memory_mb=MEMORY_MAX_MB,
        concurrency=CONCURRENCY_MAX,
        timeout_us=TIME_MAX_US,
        action_limit=COUNT_MAX,
    )
    now_us = TIME_MAX_US - 1
    for event in (
        ev.InvokerReported("i1", MEMORY_MAX_MB, 0, CREATION_MAX_US, CREATIONS_MIN_PER_S),
        ev.LimitsChanged("n", COUNT_MAX, 1_000.0),
        ev.QueueOpened(largest, TIME_MAX_US, TIME_MAX_US),
        ev.Adopted("i1", "n/a", TIME_MAX_US),
    ):
        scheduler.step(event, now_us)
    arrived = ev.Arrived("n/a", ev.Activation("a1", b"", TIME_MAX_US, TIME_MAX_US))
    (reserve,) = scheduler.step(arrived, now_us)
    assert isinstance(reserve, fx.Reserve)
    assert len(reserve.places) == 1
    scheduler.check()
    granted = ev.Reserved("n/a", reserve.serial, (reserve.places[0].container,))
    created = scheduler.step(granted, now_us)
    assert [type(effect) for effect in created] == [fx.Create]
    scheduler.step(ev.InvokerReported("i1", MEMORY_MAX_MB, MEMORY_MAX_MB), now_us)
    scheduler.step(ev.TimeReached(), TIME_MAX_US)
    scheduler.check()
