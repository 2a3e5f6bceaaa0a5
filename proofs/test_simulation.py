"""Proofs of simulated clusters: nothing is lost, run twice or left to chance (Y1, Y2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.events import QueueSpec
from acs_core.simulation import Cluster
from acs_core.simulation_config import Faults, SimulationConfig
from acs_core.simulation_engine import EngineModel
from acs_core.simulation_pull import PullCluster
from acs_core.simulation_push import PushCluster

SECOND = 1_000_000

shares = st.sampled_from([0.0, 0.0, 0.01, 0.2])
faults = st.builds(
    Faults,
    creation_fails=shares,
    message_late=shares,
    message_twice=shares,
    message_lost=st.sampled_from([0.0, 0.0, 0.002]),
    late_us=st.sampled_from([1_000, 5 * SECOND]),
    invoker_life_us=st.sampled_from([0, 30 * SECOND]),
    lease_us=st.sampled_from([1 * SECOND, 20 * SECOND]),
)
configs = st.builds(
    SimulationConfig,
    controllers=st.integers(1, 3),
    schedulers=st.integers(1, 3),
    invokers=st.integers(1, 3),
    invoker_mb=st.sampled_from([512, 1024]),
    link_us=st.sampled_from([0, 200, 20_000]),
    coordination_us=st.sampled_from([0, 2_000]),
    controller_us=st.sampled_from([0, 300]),
    engine=st.builds(EngineModel, sigma=st.sampled_from([0.0, 0.5])),
    faults=faults,
    rule=st.sampled_from([RuntimeFitRule(), OpenWhiskRule()]),
    namespace_containers_max=st.sampled_from([1, 3, 100]),
    pause_grace_us=st.sampled_from([0, SECOND]),
    push_pause_grace_us=st.just(SECOND),
    keep_alive_us=st.sampled_from([2 * SECOND, 10 * SECOND]),
)


def cluster_of(kind: type[Cluster], config: SimulationConfig, seed: int) -> Cluster:
    specs = [
        QueueSpec(f"q{n}", f"n{n % 2}", f"a{n}", 0, concurrency=1 + n % 2, timeout_us=3 * SECOND)
        for n in range(4)
    ]
    cluster = kind(config, specs, seed)
    chance = cluster.chance
    arrivals = []
    at_us = 0
    for _ in range(120):
        at_us += int(chance.exponential(0.1 * SECOND))
        run_us = int(chance.lognormal(20_000, 2.0))
        arrivals.append((at_us, chance.below(4), run_us))
    cluster.load(iter(arrivals))
    return cluster


@pytest.mark.parametrize("kind", [PullCluster, PushCluster])
@settings(max_examples=max(60, settings().max_examples // 10))  # each is a whole cluster
@given(config=configs, seed=st.integers(0, 2**64))
def test_whatever_fails_each_ends_once(
    kind: type[Cluster], config: SimulationConfig, seed: int
) -> None:
    """Y1."""
    cluster = cluster_of(kind, config, seed)
    for step in range(20):
        cluster.run_until(step * SECOND)
        cluster.check()
    cluster.run_until(1_000 * SECOND)
    cluster.check()
    report = cluster.report()
    assert report.arrived == 120 == report.ended + report.rejected + report.unknown
    assert report.started_twice == 0
    assert report.open == cluster.pending() == 0
    assert cluster.exhausted()


@pytest.mark.parametrize("kind", [PullCluster, PushCluster])
@settings(max_examples=max(15, settings().max_examples // 50))
@given(config=configs, seed=st.integers(0, 2**64), pieces=st.integers(2, 9))
def test_a_simulation_in_pieces_is_the_same(
    kind: type[Cluster], config: SimulationConfig, seed: int, pieces: int
) -> None:
    """Y2."""
    whole = cluster_of(kind, config, seed)
    whole.run_until(50 * SECOND)
    parts = cluster_of(kind, config, seed)
    for piece in range(1, pieces + 1):
        parts.run_until(50 * SECOND * piece // pieces)
    assert parts.report() == whole.report()
