"""The talk's cluster, simulated: throughput by (users, actions), pushed and pulled.

docs/experiment.md has the parameters, what was fitted, and the last table.  The same on every
machine; only how long it takes differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.events import QueueSpec
from acs_core.simulation import Cluster
from acs_core.simulation_config import SimulationConfig
from acs_core.simulation_pull import PullCluster
from acs_core.simulation_push import PushCluster
from acs_core.simulation_report import SimulationReport

MEMORY_MB = 256
CONTAINERS_PER_INVOKER = 18
RUN_US = 2_000
OVERHEAD_US = 9_700
"""Fitted: so long a run keeps its slot beyond its duration, for 13,731 TPS of one action."""

SIDES: dict[str, tuple[type[Cluster], SimulationConfig]] = {
    name: (
        kind,
        SimulationConfig(
            controllers=3,
            schedulers=3,
            invokers=10,
            invoker_mb=MEMORY_MB * CONTAINERS_PER_INVOKER,
            overhead_us=OVERHEAD_US,
            rule=rule,
        ),
    )
    for name, kind, rule in (
        ("sharding", PushCluster, RuntimeFitRule()),
        ("fit", PullCluster, RuntimeFitRule()),
        ("openwhisk", PullCluster, OpenWhiskRule()),
    )
}


def simulate(side: str, users: int, actions: int, seconds: int) -> SimulationReport:
    """Let the users work for so long, and measure the second half of it."""
    kind, config = SIDES[side]
    specs = [
        QueueSpec(f"talk/{number}", "talk", str(number), 0, memory_mb=MEMORY_MB)
        for number in range(actions)
    ]
    cluster = kind(config, specs, seed=1)
    cluster.load_users(users, RUN_US)
    cluster.measure_from(seconds * 500_000)
    cluster.run_until(seconds * 1_000_000)
    cluster.check()
    return cluster.report()


def main(arguments: list[str]) -> int:
    """Simulate each mix under each scheduler, and print what came of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--mixes", default="2000x1,2000x10,2000x100,200x100,100x100,50x50,100x1", metavar="UxA,..."
    )
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--seconds", type=int, default=40, help="simulated, of each")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    sides = options.sides.split(",")
    try:
        mixes = [(int(u), int(a)) for u, a in (mix.split("x") for mix in options.mixes.split(","))]
    except ValueError:
        mixes = [(0, 0)]
    if min(min(mix) for mix in mixes) < 1 or options.seconds < 2 or not set(sides) <= SIDES.keys():
        parser.error(
            f"--mixes {options.mixes}: as 2000x100, both 1 or more; --seconds: 2 or more; "
            f"--sides: of {', '.join(SIDES)}"
        )
    results = []
    for users, actions in mixes:
        for side in sides:
            start_s = time.process_time()
            report = simulate(side, users, actions, options.seconds)
            took_s = time.process_time() - start_s
            results.append({"side": side, "users": users, "actions": actions, **asdict(report)})
            latency = report.latency
            print(
                f"{users:6} users {actions:6} actions {side:9}: {report.tps:9,.0f} TPS, mean "
                f"{latency.mean_ms:10,.1f} ms, p99 {latency.p99_ms:10,.1f} ms, "
                f"{report.created:6} created, {report.rejected} refused, {took_s:.1f} s of CPU",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
