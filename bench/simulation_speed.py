"""How many activations a second of processor time ``acs_core.simulation`` manages.

    python bench/simulation_speed.py [--queues N] [--runs N]

Calls of 2 ms come to all queues alike, Poisson, 20,000 a second, drawn in plain Python; what is
counted is the processor time of all of it after the first simulated seconds, in which containers
are made.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator

from simulated_talk import MEMORY_MB, RUN_US

import acs_core
from acs_core.chance import Chance
from acs_core.events import QueueSpec
from acs_core.simulation_config import SimulationConfig
from acs_core.simulation_pull import PullCluster

CALLS_PER_S = 20_000
WARM_S = 4
SECONDS = 4
CONFIG = SimulationConfig(
    controllers=3, schedulers=3, invokers=100, invoker_mb=20 * MEMORY_MB, overhead_us=500
)


def calls(queues: int) -> Iterator[tuple[int, int, int]]:
    """Yield calls for as long as somebody reads them."""
    chance = Chance(1)
    at_us = 0.0
    while True:
        at_us += chance.exponential(1_000_000 / CALLS_PER_S)
        yield int(at_us), chance.below(queues), RUN_US


def speed(queues: int) -> float:
    """Return the activations a second of processor time."""
    specs = [
        QueueSpec(f"talk/{number}", "talk", str(number), 0, memory_mb=MEMORY_MB)
        for number in range(queues)
    ]
    cluster = PullCluster(CONFIG, specs, seed=1)
    cluster.load(calls(queues))
    cluster.run_until(WARM_S * 1_000_000)
    cluster.measure_from(WARM_S * 1_000_000)
    begun_s = time.process_time()
    cluster.run_until((WARM_S + SECONDS) * 1_000_000)
    return cluster.report().ended / (time.process_time() - begun_s)


def main(arguments: list[str]) -> int:
    """Measure and print it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queues", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    speeds = [speed(options.queues) for _ in range(options.runs)]
    print(
        f"{options.queues:,} queues, {'compiled' if acs_core.COMPILED else 'plain'}: "
        + " · ".join([f"{each:,.0f}" for each in speeds])
        + f", median {statistics.median(speeds):,.0f} activations a second"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
