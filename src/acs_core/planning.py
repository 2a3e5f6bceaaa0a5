"""How many invokers a load needs: a search over simulations.

Pure: a simulation is asked for, measured and judged; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .events import QueueSpec
from .simulation import Cluster
from .simulation_config import SimulationConfig
from .simulation_report import SimulationReport
from .workload import RUN_MAX_US, Shape, Workload

KIND: Final = "trace"
"""Of all actions of a load, so that sandboxes can be prewarmed for them."""


def prepare(
    kind: type[Cluster],
    workload: Workload,
    config: SimulationConfig,
    *,
    seed: int,
    shape: Shape = Shape.POISSON,
    memory_mb: int = 256,
    wait_target_us: int | None = None,
) -> Cluster:
    """Return a cluster that this load will come to; each action is one of the namespace ``trace``.

    ``memory_mb`` is of each container, ``wait_target_us`` each action's W; None: what the rule
    takes where none is given.  Let its time pass with ``pass_time``.
    """
    actions = [
        QueueSpec(
            f"trace/{number}",
            "trace",
            str(number),
            0,
            memory_mb=memory_mb,
            timeout_us=RUN_MAX_US,
            kind=KIND,
            wait_target_us=wait_target_us,
        )
        for number in range(len(workload.names))
    ]
    cluster = kind(config, actions, seed)
    cluster.load(workload.arrivals(seed, shape))
    return cluster


def pass_time(cluster: Cluster, workload: Workload, steps: int = 100) -> Iterator[float]:
    """Let all of the load come and end; yield the share that is done, now and then.

    What the load leaves behind is waited for, as long as runs and waits may take.
    """
    for step in range(1, steps + 1):
        cluster.run_until(workload.span_us * step // steps)
        yield step / (steps + 1)
    cluster.run_until(workload.span_us + 3 * RUN_MAX_US)
    yield 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One number of invokers, and whether it is enough."""

    invokers: int
    report: SimulationReport
    enough: bool


def search(
    measure: Callable[[int], SimulationReport], wait_p99_ms: float, most: int
) -> Iterator[Trial]:
    """Try numbers of invokers until the fewest that are enough are known; yield each trial.

    Enough is where the 99th percentile of the wait is at most ``wait_p99_ms`` and nothing was
    refused or lost.  Doubles from 1, then halves what is between: the answer is the smallest
    that was enough, or none up to ``most`` is, nor beyond where twice as many changed nothing.
    Takes for granted that more are never worse.
    """
    low, high = 0, 1
    before: SimulationReport | None = None
    while True:
        trial = _try(measure, wait_p99_ms, high)
        yield trial
        if trial.enough:
            break
        if high >= most or (before is not None and _same(before, trial.report)):
            return
        before = trial.report
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        trial = _try(measure, wait_p99_ms, middle)
        yield trial
        if trial.enough:
            high = middle
        else:
            low = middle


def _same(one: SimulationReport, other: SimulationReport) -> bool:
    """Tell whether two clusters served alike: then their size binds nothing."""
    return (one.wait, one.ended, one.created) == (other.wait, other.ended, other.created)


def _try(measure: Callable[[int], SimulationReport], wait_p99_ms: float, invokers: int) -> Trial:
    report = measure(invokers)
    refused = report.rejected + report.unknown + report.open
    return Trial(invokers, report, report.wait.p99_ms <= wait_p99_ms and refused == 0)
