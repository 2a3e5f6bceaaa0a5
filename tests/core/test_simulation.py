"""Simulated clusters: exact times, what faults do, and the same numbers on every build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from acs_core.chance import Chance
from acs_core.demand import OpenWhiskRule
from acs_core.events import QueueSpec
from acs_core.prewarm import Prewarm
from acs_core.simulation import Cluster
from acs_core.simulation_config import Faults, SimulationConfig
from acs_core.simulation_engine import EngineModel, Operation, SimulatedEngine
from acs_core.simulation_pull import PullCluster
from acs_core.simulation_push import PushCluster
from acs_core.simulation_report import Histogram, percentiles

SECOND = 1_000_000
EXACT = EngineModel(sigma=0.0)
BOTH = pytest.mark.parametrize("kind", [PullCluster, PushCluster])


def actions_of(count: int, **fields: Any) -> list[QueueSpec]:
    return [QueueSpec(f"q{number}", "n", f"a{number}", 0, **fields) for number in range(count)]


def at(*times_us: int, run_us: int = 2_000, action: int = 0) -> Iterator[tuple[int, int, int]]:
    return iter([(time_us, action, run_us) for time_us in times_us])


# --- what it is made of ------------------------------------------------------------------------


def test_draws_are_those_of_splitmix64() -> None:
    chance = Chance(0)
    assert [chance.draw() for _ in range(3)] == [
        0xE220A8397B1DCDAF >> 1,
        0x6E789E6AA1B965F4 >> 1,
        0x06C45D188009454F >> 1,
    ]
    assert Chance(2**64 + 7).draw() == Chance(7).draw()


def test_distributions_have_their_means() -> None:
    chance = Chance(1)
    draws = range(20_000)
    assert sum(chance.below(10) for _ in draws) / 20_000 == pytest.approx(4.5, rel=0.02)
    assert sum(chance.unit() for _ in draws) / 20_000 == pytest.approx(0.5, rel=0.02)
    assert sum(chance.exponential(3.0) for _ in draws) / 20_000 == pytest.approx(3.0, rel=0.03)
    assert sum(chance.normal() for _ in draws) / 20_000 == pytest.approx(0.0, abs=0.03)
    logs = sorted(chance.lognormal(5.0, 1.0) for _ in draws)
    assert logs[10_000] == pytest.approx(5.0, rel=0.03)
    assert chance.lognormal(5.0, 0.0) == 5.0


def test_quantiles_are_known_to_a_bucket() -> None:
    chance = Chance(2)
    values = sorted(int(chance.lognormal(20_000.0, 2.0)) for _ in range(5_000))
    histogram = Histogram()
    assert (histogram.quantile(0.5), histogram.mean()) == (0, 0.0)
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(0, int(share * 5_000) - 1)]
        assert exact <= histogram.quantile(share) <= exact * (1 + 1 / 64) + 1
    assert histogram.quantile(1.0) == values[-1]
    assert histogram.quantile(2.0) == 0
    assert histogram.mean() == sum(values) / 5_000
    assert percentiles(histogram).max_ms == values[-1] / 1000


def test_an_engine_does_one_part_alone_and_one_beside_others() -> None:
    engine = SimulatedEngine(EXACT, Chance(0))
    first = engine.ask(Operation.CREATE, 0)
    assert (first, engine.ask(Operation.CREATE, 0)) == (420_000, 490_000)
    assert engine.ask(Operation.PAUSE, SECOND) == SECOND + 25_300
    assert engine.busy_us == 2 * 70_000 + 13_300
    assert engine.operations == [2, 0, 1, 0]
    assert EXACT.creation_us() == 420_000
    assert EngineModel(create_serial_us=0).creations_per_s() == 0.0


# --- exact times -------------------------------------------------------------------------------


def test_a_cold_and_a_warm_run_where_containers_pull() -> None:
    cluster = PullCluster(SimulationConfig(engine=EXACT), actions_of(1), 0)
    cluster.load(at(0, SECOND))
    cluster.run_until(2 * SECOND)
    report = cluster.report()
    # Cold: to the scheduler, adoption there and back, the reservation, to the invoker, the
    # creation, the pull and the delivery, /init.  Warm: to the scheduler and to the invoker.
    assert report.wait.max_ms == (200 + 400 + 2_000 + 200 + 420_000 + 400 + 10_000) / 1000
    assert report.wait.p50_ms == pytest.approx(0.4, rel=0.02)
    assert report.latency.p50_ms >= 0.4 + 2.0 + 0.5 + 0.4
    assert (report.ended, report.cold, report.created, report.open) == (2, 1, 1, 0)
    cluster.check()
    cluster.run_until(20 * SECOND)
    assert cluster.exhausted()
    report = cluster.report()
    assert report.removed == 1
    # Since the engine was asked for it, until its keep-alive had ended and it was removed.
    assert report.container_s == pytest.approx(
        SECOND / SECOND + 0.0004 + 0.0025 + 10 + 0.08 - 0.0028
    )
    assert report.memory_mb_s == 256 * report.container_s
    # The serial parts of one creation and one removal, of all the time of one engine.
    assert report.engine_busy_share == (70_000 + 30_000) / (20 * SECOND)


def test_a_cold_and_a_warm_run_where_they_are_pushed_to() -> None:
    cluster = PushCluster(SimulationConfig(engine=EXACT), actions_of(1), 0)
    cluster.load(at(0, SECOND))
    cluster.run_until(2 * SECOND)
    report = cluster.report()
    assert report.wait.max_ms == (200 + 420_000 + 10_000) / 1000
    assert report.wait.p50_ms == pytest.approx(0.2, rel=0.02)
    assert (report.ended, report.cold, report.created) == (2, 1, 1)
    cluster.check()


@BOTH
def test_processors_serve_one_at_a_time(kind: type[Cluster]) -> None:
    config = SimulationConfig(engine=EXACT, controller_us=1_000, dispatch_us=700)
    cluster = kind(config, actions_of(1), 0)
    cluster.load(at(0, SECOND, SECOND))
    cluster.run_until(2 * SECOND)
    hops_us = 400 if kind is PullCluster else 200
    assert cluster.report().wait.p50_ms >= (hops_us + 1_000 + 700) / 1000


@BOTH
def test_a_run_that_takes_too_long_is_given_up(kind: type[Cluster]) -> None:
    cluster = kind(SimulationConfig(engine=EXACT), actions_of(1, timeout_us=SECOND), 0)
    cluster.load(at(0, run_us=5 * SECOND))
    cluster.run_until(10 * SECOND)
    report = cluster.report()
    assert (report.ended, report.errors, report.open) == (1, 1, 0)
    assert report.latency.max_ms == pytest.approx(1433.0, abs=3.0)
    cluster.check()


@BOTH
def test_only_what_arrives_after_the_warm_up_counts(kind: type[Cluster]) -> None:
    cluster = kind(SimulationConfig(engine=EXACT), actions_of(1), 0)
    cluster.load(at(0, 5 * SECOND))
    cluster.measure_from(SECOND)
    cluster.run_until(2 * SECOND)
    assert (cluster.report().arrived, cluster.pending()) == (0, 0)
    assert not cluster.exhausted()
    cluster.run_until(6 * SECOND)
    report = cluster.report()
    assert (report.span_s, report.arrived, report.ended, report.tps) == (5.0, 1, 1, 0.2)


@BOTH
def test_users_ask_again_when_answered(kind: type[Cluster]) -> None:
    cluster = kind(SimulationConfig(engine=EXACT, invokers=2), actions_of(2), 3)
    cluster.load_users(4, 1_000, think_us=100_000)
    cluster.run_until(10 * SECOND)
    report = cluster.report()
    assert 4 * 9 / 0.103 < report.ended < 4 * 10 / 0.1
    assert report.arrived == report.ended + report.open


# --- the talk ----------------------------------------------------------------------------------


def test_many_actions_cost_throughput_only_where_they_are_pushed() -> None:
    def tps(kind: type[Cluster], count: int) -> float:
        config = SimulationConfig(
            controllers=2, invokers=2, invoker_mb=256 * 2, engine=EXACT, overhead_us=9_000
        )
        cluster = kind(config, actions_of(count), 1)
        cluster.load_users(12, 2_000)
        cluster.measure_from(4 * SECOND)
        cluster.run_until(6 * SECOND)
        return cluster.report().tps

    assert tps(PushCluster, 4) < 0.1 * tps(PushCluster, 1)
    assert tps(PullCluster, 4) > 0.9 * tps(PullCluster, 1)


# --- what nodes do besides -----------------------------------------------------------------------


def test_several_schedulers_share_the_invokers() -> None:
    config = SimulationConfig(
        schedulers=3, invokers=2, invoker_mb=512, engine=EXACT, rule=OpenWhiskRule()
    )
    cluster = PullCluster(config, actions_of(6), 4)
    cluster.load((number * 10_000, number % 6, 2_000) for number in range(600))
    cluster.run_until(60 * SECOND)
    report = cluster.report()
    assert report.ended + report.rejected == 600
    assert report.ended > 300
    cluster.check()
    cluster.run_until(120 * SECOND)
    assert cluster.exhausted()


def test_a_namespace_has_no_more_containers_than_it_may() -> None:
    config = SimulationConfig(engine=EXACT, schedulers=2, namespace_containers_max=2)
    cluster = PullCluster(config, actions_of(4), 0)
    cluster.load((1_000 * number, number % 4, 2_000) for number in range(400))
    cluster.run_until(3 * SECOND)
    report = cluster.report()
    assert report.created - report.removed <= 2


def test_what_is_rejected_is_no_throughput() -> None:
    config = SimulationConfig(engine=EXACT, namespace_containers_max=0)
    cluster = PullCluster(config, actions_of(1), 0)
    cluster.load(at(0, SECOND))
    cluster.run_until(100 * SECOND)
    report = cluster.report()
    assert (report.arrived, report.rejected, report.tps) == (2, 2, 0.0)


def test_an_invoker_is_filled_to_its_last_megabyte() -> None:
    config = SimulationConfig(engine=EXACT, invoker_mb=512)
    cluster = PullCluster(config, actions_of(2, memory_mb=256), 0)
    cluster.load(iter([(0, 0, 2_000), (0, 1, 2_000)]))
    cluster.run_until(5 * SECOND)
    report = cluster.report()
    assert (report.ended, report.created, report.removed) == (2, 2, 0)


@BOTH
def test_prewarmed_sandboxes_are_taken(kind: type[Cluster]) -> None:
    config = SimulationConfig(engine=EXACT, prewarm=(Prewarm("python", 256, 2),))
    cluster = kind(config, actions_of(1, kind="python"), 0)
    cluster.load(at(SECOND))
    cluster.run_until(2 * SECOND)
    assert cluster.report().wait.max_ms < 20


@BOTH
def test_idle_containers_sleep_and_wake(kind: type[Cluster]) -> None:
    config = SimulationConfig(
        engine=EXACT, pause_grace_us=SECOND, push_pause_grace_us=SECOND, keep_alive_us=30 * SECOND
    )
    cluster = kind(config, actions_of(1), 0)
    cluster.load(at(0, 5 * SECOND))
    cluster.measure_from(SECOND)
    cluster.run_until(6 * SECOND)
    report = cluster.report()
    assert (report.ended, report.created) == (1, 1)
    assert 25 < report.wait.max_ms < 40


def test_the_baseline_has_its_own_keep_alive() -> None:
    config = SimulationConfig(
        engine=EXACT, push_keep_alive_us=20 * SECOND, push_pause_grace_us=SECOND
    )
    cluster = PushCluster(config, actions_of(1), 0)
    cluster.load(at(0))
    cluster.run_until(30 * SECOND)
    assert (cluster.report().created, cluster.report().removed) == (1, 1)


# --- faults ------------------------------------------------------------------------------------


@BOTH
def test_everything_goes_wrong_and_nothing_is_lost(kind: type[Cluster]) -> None:
    faults = Faults(0.3, 0.05, 0.05, 0.0005, invoker_life_us=60 * SECOND)
    config = SimulationConfig(controllers=2, schedulers=2, invokers=3, faults=faults)
    cluster = kind(config, actions_of(5), 7)
    cluster.load((number * 50_000, number % 5, 20_000) for number in range(2_000))
    cluster.run_until(100 * SECOND)
    cluster.check()
    cluster.run_until(400 * SECOND)
    report = cluster.report()
    assert report.arrived == 2_000 == report.ended + report.rejected + report.unknown
    assert report.ended > 1_000
    assert report.unknown > 0
    assert report.started_twice == 0


def test_an_invoker_that_is_gone_is_found_by_its_silence() -> None:
    faults = Faults(message_lost=1.0, lease_us=600 * SECOND)
    cluster = PushCluster(SimulationConfig(faults=faults, invokers=1), actions_of(1), 0)
    cluster.load(at(SECOND, 5 * SECOND, 20 * SECOND))
    cluster.run_until(19 * SECOND)
    assert cluster.pending() == 2
    cluster.check()
    cluster.run_until(21 * SECOND)
    # Nobody is up: the last one is refused at once.
    assert (cluster.report().rejected, cluster.pending()) == (1, 2)
    cluster.run_until(200 * SECOND)
    assert cluster.report().unknown == 2
    assert cluster.report().started_twice == 0


def test_every_message_comes_twice() -> None:
    config = SimulationConfig(faults=Faults(message_twice=1.0), keep_alive_us=SECOND)
    for cluster in (PullCluster(config, actions_of(1), 0), PushCluster(config, actions_of(1), 0)):
        cluster.load(at(0, 10 * SECOND))
        cluster.run_until(20 * SECOND)
        report = cluster.report()
        assert (report.ended, report.started_twice, cluster.pending()) == (2, 0, 0)


def test_an_invoker_adopts_a_queue_that_is_closed_by_then() -> None:
    faults = Faults(message_late=1.0, late_us=200 * SECOND)
    cluster = PullCluster(SimulationConfig(faults=faults), actions_of(1), 0)
    cluster.load(at(0))
    cluster.run_until(1_000 * SECOND)
    report = cluster.report()
    assert (report.rejected, report.created, cluster.pending()) == (1, 0, 0)


def test_a_reservation_that_comes_too_late_for_what_waited() -> None:
    cluster = PullCluster(SimulationConfig(coordination_us=200 * SECOND), actions_of(1), 0)
    cluster.load(at(0))
    cluster.run_until(1_000 * SECOND)
    report = cluster.report()
    assert (report.rejected, report.open) == (1, 0)
    assert report.created == report.removed


def test_what_was_given_up_is_run_all_the_same() -> None:
    cluster = PushCluster(SimulationConfig(invoker_mb=256, engine=EXACT), actions_of(2), 0)
    work = [(number, 0, 50 * SECOND) for number in range(4)] + [(5, 1, SECOND)]
    cluster.load(iter(work))
    cluster.run_until(300 * SECOND)
    report = cluster.report()
    # The fourth had begun when its completion was given up; the fifth begins after that.
    assert (report.ended, report.unknown) == (3, 2)
    assert report.created == 2


def test_an_invoker_that_dies_and_comes_back_serves_again() -> None:
    faults = Faults(invoker_life_us=20 * SECOND, lease_us=5 * SECOND)
    for kind in (PullCluster, PushCluster):
        cluster = kind(SimulationConfig(faults=faults, push_keep_alive_us=SECOND), actions_of(1), 1)
        cluster.load((number * SECOND, 0, 2_000) for number in range(600))
        cluster.run_until(1_000 * SECOND)
        cluster.check()
        report = cluster.report()
        assert report.ended > 100
        assert report.ended + report.rejected + report.unknown == 600


# --- the same on every build -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (PullCluster, (16945, 2891, 20, 132.5526738152888)),
        (PushCluster, (14518, 3557, 20, 67.7995642395277)),
    ],
)
def test_the_same_numbers_on_every_build(kind: type[Cluster], expected: tuple[Any, ...]) -> None:
    faults = Faults(0.1, 0.05, 0.05, 0.0001, invoker_life_us=60 * SECOND)
    config = SimulationConfig(controllers=2, schedulers=2, invokers=3, faults=faults)
    cluster = kind(config, actions_of(7), 42)
    cluster.load_users(20, 30_000, 1.0, 50_000)
    cluster.run_until(30 * SECOND)
    report = cluster.report()
    assert (report.events, report.ended, report.cold, report.latency.mean_ms) == expected


# --- misuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SimulationConfig(controllers=0), "controllers is 0; .* in 1..1000"),
        (lambda: SimulationConfig(invokers=0), "invokers is 0"),
        (lambda: SimulationConfig(link_us=-1), "link_us is -1"),
        (lambda: Faults(message_lost=1.5), "message_lost is 1.5; it must be in 0..1"),
        (lambda: Faults(lease_us=-1), "lease_us is -1"),
        (lambda: EngineModel(sigma=4.0), "sigma is 4.0; it must be in 0..3"),
        (lambda: EngineModel(pause_serial_us=-1), "pause_serial_us is -1"),
    ],
)
def test_what_is_no_cluster(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("arrival", [(5, 1, 0), (5, -1, 0), (5, 0, -1), (-5, 0, 0)])
def test_what_is_no_arrival(arrival: tuple[int, int, int]) -> None:
    cluster = PullCluster(SimulationConfig(), actions_of(1), 0)
    with pytest.raises(ValueError, match=r"an arrival is .* of one of 1 actions, and run 0 us"):
        cluster.load(iter([arrival]))


def test_a_cluster_alone_schedules_nothing() -> None:
    cluster = Cluster(SimulationConfig(), actions_of(1), 0)
    for call in (
        lambda: cluster.submit(None, "", 0),  # type: ignore[arg-type]
        lambda: cluster.at_host(None, None, 0),  # type: ignore[arg-type]
        lambda: cluster.new_host(0, 0),
        lambda: cluster.lost(None, 0),  # type: ignore[arg-type]
    ):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(AssertionError):
        cluster.dispatch(77, None, None, 0)
