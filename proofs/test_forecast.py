"""Proofs of the throttle by predicted wait: against the plain model, and against a twin without.

In the worlds here every run of a queue takes the same time, so that the prediction's one
assumption holds; what it does with others is bounded by W2 alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from harness import SchedulerPair, Times
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import at_least
from models_demand import wait_of_newest
from test_demand import fields

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import Snapshot
from acs_core.forecast import Forecast
from acs_core.limits import COUNT_MAX, MEMORY_MAX_MB, TIME_MAX_US
from acs_core.queue_states import QueueState
from acs_core.scheduler import Scheduler, SchedulerConfig

WAIT_US = 2_000_000
WORLDS = settings(max_examples=max(50, settings().max_examples // 5))  # each is a long simulation


@at_least(1_000)
@given(fields(), st.integers(0, 40), st.integers(1, 20_000), st.integers(1, 80))
def test_a_forecast_is_what_handing_out_slot_by_slot_finds(
    given: dict[str, Any], places: int, within_ms: int, ahead: int
) -> None:
    snapshot = Snapshot(**given)
    forecast = Forecast(snapshot, places, within_ms * 1_000, 7)
    there = snapshot.existing + snapshot.in_progress
    containers = max(there, min(snapshot.action_limit, places))
    if snapshot.average_duration_ms is None or containers == 0:
        assert forecast.startable == COUNT_MAX
        assert forecast.wait_us(ahead) == -1
        return
    assert forecast.startable >= 1
    # Where it turns, unless that is at one or beyond what can be enumerated; and anywhere.
    edge = min(forecast.startable, 500)
    for behind in (edge, edge - 1, ahead):
        newest = Snapshot(**given | {"waiting": behind + 1, "incoming": 0})
        wait_ms = wait_of_newest(newest, containers)
        if behind > 0:
            assert (behind >= forecast.startable) == (wait_ms > within_ms)
    # 1e-12 of a wait, and a microsecond, are what bisecting leaves.
    assert 0 <= forecast.wait_us(ahead) - wait_ms * 1_000 <= 2 + float(wait_ms) * 1e-9


class World:
    """One queue whose runs take the same time, and what became of each arrival when."""

    def __init__(self, throttle: bool, run_us: int, places: int, limit: int, creation: int) -> None:
        config = SchedulerConfig(name="c", wait_max_us=WAIT_US, throttle_by_wait=throttle)
        times = Times(run_us=run_us, creation_us=creation, init_us=0, latency_us=0)
        self.pair = SchedulerPair({"i": places * 100}, config=config, times=times)
        self.pair.watch = self.saw
        self.arrived: dict[str, int] = {}
        self.waits: dict[str, int] = {}
        self.refused: dict[str, fx.Reject] = {}
        self.expired: list[str] = []
        self.cap(limit)
        self.pair.open(ev.QueueSpec("q", "n", "q", 1, memory_mb=100))
        # So that the run time is known.
        self.arrive("first")
        self.pair.advance(creation + run_us + 100_000)

    def cap(self, limit: int) -> None:
        self.pair.cap("n", limit)

    def saw(self, event: ev.Event, now_us: int, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Deliver):
                name = effect.activation.activation_id
                self.waits[name] = now_us - self.arrived[name]
            elif isinstance(effect, fx.Reject):
                name = effect.activation.activation_id
                if effect.cause == fx.Cause.WOULD_EXPIRE:
                    self.refused[name] = effect
                elif effect.cause == fx.Cause.EXPIRED:
                    self.expired.append(name)

    def arrive(self, name: str) -> None:
        self.arrived[name] = self.pair.now_us
        self.pair.arrive("q", name)


worlds = st.fixed_dictionaries(
    {
        "run_us": st.sampled_from([7_000, 40_000, 150_000, 900_000, 2_500_000]),
        "places": st.integers(1, 4),
        "limit": st.integers(1, 4),
        "creation": st.sampled_from([20_000, 300_000]),
    }
)
bursts = st.lists(
    st.tuples(st.integers(1, 200), st.sampled_from([0, 3_000, 60_000, 400_000])), max_size=12
)
FLOOD = [(200, 0)] * 4


@WORLDS
@given(worlds, bursts)
@example({"run_us": 40_000, "places": 2, "limit": 4, "creation": 300_000}, FLOOD)
@example({"run_us": 2_500_000, "places": 2, "limit": 2, "creation": 20_000}, FLOOD)
def test_the_first_one_refused_would_not_have_been_served_in_time(
    world: dict[str, int], arrivals: list[tuple[int, int]]
) -> None:
    """W1: up to there both are the same, so what becomes of it in the twin is what it missed."""
    real, twin = World(True, **world), World(False, **world)
    serial = 0
    for count, pause_us in arrivals:
        for _ in range(count):
            serial += 1
            for each in (real, twin):
                each.arrive(f"a{serial}")
            if real.refused:
                break
        for each in (real, twin):
            each.pair.advance(pause_us)
        if real.refused:
            break
    twin.pair.advance(WAIT_US)
    assert not twin.refused
    for name in real.refused:
        assert name in twin.expired or twin.waits[name] > WAIT_US - tolerance_us(real)


def tolerance_us(world: World) -> int:
    """Return W1's: a forecast's age, runs that end evenly spread, and creations under way.

    The formula takes what is in the making to take a whole creation still, behind the others.
    """
    config, times = world.pair.config, world.pair.times
    return config.backlog_interval_us + times.run_us + 4 * times.creation_us


@WORLDS
@given(worlds, bursts)
@example({"run_us": 40_000, "places": 2, "limit": 4, "creation": 300_000}, FLOOD)
def test_refusals_end_with_their_cause(
    world: dict[str, int], arrivals: list[tuple[int, int]]
) -> None:
    """L3, W2: once the line has drained, or the cap was raised for long enough, all is taken in."""
    real = World(True, **world)
    for number, (count, pause_us) in enumerate(arrivals):
        for index in range(count):
            real.arrive(f"{number}-{index}")
        real.pair.advance(pause_us)
    for name, reject in real.refused.items():
        assert reject.retry_after_us >= WAIT_US, name
        assert "taken in again when fewer than" in reject.reason
    before = len(real.refused)
    real.pair.advance(WAIT_US + world["run_us"])
    assert len(real.refused) == before
    # One is delivered or waits alone, whatever was measured.
    real.arrive("later")
    assert "later" not in real.refused


def test_raising_the_cap_ends_refusals() -> None:
    real = World(True, 100_000, 8, 1, 20_000)
    for index in range(40):
        real.arrive(f"a{index}")
    assert real.refused
    real.cap(8)
    real.pair.advance(real.pair.config.backlog_interval_us)
    before = set(real.refused)
    for index in range(40):
        real.arrive(f"b{index}")
    assert set(real.refused) == before
    real.pair.advance(WAIT_US)
    assert not real.expired


def test_a_forecast_is_made_anew_before_anybody_is_refused() -> None:
    """Runs have become short since the last decision: that counts, and not what was foreseen."""
    config = SchedulerConfig(name="c", wait_max_us=WAIT_US, decision_interval_us=1_000_000)
    scheduler = Scheduler(config)
    for event in (
        ev.InvokerReported("i", 100),
        ev.QueueOpened(ev.QueueSpec("q", "n", "q", 1, memory_mb=100), 1, 500_000),
        ev.Adopted("i", "q", 1),
        ev.Arrived("q", ev.Activation("a0", b"", 0)),
        ev.Reserved("q", 1, ("c-1",)),
        ev.ContainerServing("c-1", "i"),
        ev.Pulled("c-1", 1, 1),
    ):
        scheduler.step(event, 0)

    def refused(now_us: int, *names: str) -> int:
        effects = []
        for name in names:
            effects += scheduler.step(ev.Arrived("q", ev.Activation(name, b"", now_us)), now_us)
        return sum([isinstance(effect, fx.Reject) for effect in effects])

    assert refused(1, *[f"b{index}" for index in range(20)]) > 10
    scheduler.step(ev.Pulled("c-1", 1, 1, (), (ev.Completion("a0", 0, 1_000, 0),)), 2_000)
    assert refused(2_500, "c1", "c2") == 1  # not that often
    assert refused(config.backlog_interval_us + 1, "d1", "d2") == 0


def test_a_queue_that_is_offered_too_much_runs_what_it_takes_in() -> None:
    """At four times its capacity, with the throttle nearly nothing expires; without, most does."""
    expired = {}
    for throttle in (True, False):
        world = World(throttle, 40_000, 2, 2, 20_000)
        for index in range(2_000):
            world.arrive(f"a{index}")
            world.pair.advance(5_000)
        world.pair.advance(2 * WAIT_US)
        expired[throttle] = len(world.expired)
    # Those that end their wait in the moment of their bound.
    assert expired[True] <= 10
    assert expired[False] > 500


def test_the_largest_memory_and_the_longest_runs_are_survived() -> None:
    scheduler = Scheduler(SchedulerConfig(name="c", namespace_containers_max=1))
    spec = ev.QueueSpec("q", "n", "q", 1, memory_mb=1)
    for event in (
        ev.InvokerReported("i", MEMORY_MAX_MB),
        ev.InvokerReported("j", MEMORY_MAX_MB),
        ev.QueueOpened(spec, 1, TIME_MAX_US),
        ev.Adopted("i", "q", 1),
        ev.Adopted("j", "q", 1),
    ):
        scheduler.step(event, 0)
    effects = []
    for index in range(30):
        effects += scheduler.step(ev.Arrived("q", ev.Activation(f"a{index}", b"", 0)), 0)
    refused = [effect for effect in effects if isinstance(effect, fx.Reject)]
    assert refused
    assert all(2**61 < reject.retry_after_us <= TIME_MAX_US for reject in refused)
    snapshot: Any = scheduler.explain("q")["inputs"]
    huge = Snapshot(state=QueueState.RUNNING, initialized=True, **snapshot)
    assert Forecast(huge, 1, 1_000, 0).wait_us(100) == TIME_MAX_US


def test_without_the_throttle_nothing_is_refused_by_prediction() -> None:
    config = dataclasses.asdict(SchedulerConfig())
    assert config["throttle_by_wait"] is True
    world = World(False, 900_000, 1, 1, 20_000)
    for index in range(50):
        world.arrive(f"a{index}")
    assert not world.refused
