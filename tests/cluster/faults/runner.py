"""One fault on a cluster of its own: load, break, heal, wait, and judge what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from waiting import until

from acs_node.cluster.local import NodeFailed

from .catalogue import Fault, Moment
from .evidence import History, Records, RunLog, Verdict, broken_invariants
from .steady import MIX, Kind, SteadyLoad
from .world import CLUSTER, World

NORMAL_MIN: Final = 0.9
"""Of what was asked for: below it the machine had no time for this, and no time means anything."""

SETTLE_S: Final = 90.0
"""How long what was accepted may take to end after the load has."""


@dataclass(frozen=True)
class Plan:
    """How much load, and for how long: ``warm_s``, then ``before_s`` that count as normal, then
    the fault, then ``after_s``; in all at least ``load_min_s`` and ``accepted_min``."""

    rate: float
    lease_s: int = 4
    warm_s: float = 6.0
    before_s: float = 5.0
    after_s: float = 8.0
    load_min_s: float = 30.0
    accepted_min: int = 10_000
    mix: Sequence[Kind] = MIX
    invokers: int = 3
    links: str = "grpc"


@dataclass
class Row:
    """What a fault cost.  ``broken``: promises that were not kept; ``slow``: times and rates.

    ``busy`` is the machine's load average at the end.
    """

    name: str
    verdict: Verdict
    answers: Counter[str]
    rate: float
    during: float
    after: float
    back_s: float | None
    unknown_max: int
    held_max: int
    running_max: int
    busy: float = 0.0
    steps: int = 0
    broken: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    checking: asyncio.Future[tuple[int, list[str]]] | None = None

    async def finish(self) -> None:
        """Wait until the traces are checked."""
        if self.checking is not None:
            self.steps, found = await self.checking
            self.broken += found
            self.checking = None

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        refused = sorted(item for item in self.answers.items() if item[0] not in ("200", "202"))
        causes = [f"{cause}: {count}" for cause, count in refused]
        causes += [f"'{text}': {count}" for text, count in self.verdict.failures.items()]
        back = "never" if self.back_s is None else f"{self.back_s:.1f}"
        return (
            self.name,
            str(self.verdict.accepted),
            str(self.verdict.ended),
            ", ".join(causes) or "none",
            f"{self.verdict.unknown} (≤ {self.unknown_max})",
            f"{self.during:.2f}",
            back,
            f"{self.busy:.0f}",
            "; ".join(self.broken + self.slow) or "ok",
        )


HEAD: Final = (
    "fault",
    "accepted",
    "ended",
    "errors by cause",
    "unknown",
    "throughput during",
    "back after s",
    "load average",
    "verdict",
)


async def capacity(folder: Path, plan: Plan, users: int, seconds: float) -> float:
    """Return how many invocations a second the cluster serves at most, of this mix."""
    world = World(folder, lease_s=plan.lease_s, links=plan.links)
    try:
        await asyncio.to_thread(world.start)
        load = SteadyLoad(world.api, world.auth, folder / "runs", users=users)
        await load.deploy()
        running = asyncio.ensure_future(load.run())
        await asyncio.sleep(plan.warm_s)
        before, at_s = load.answered, time.monotonic()
        await asyncio.sleep(seconds)
        rate = (load.answered - before) / (time.monotonic() - at_s)
        load.stop()
        await running
        return rate
    finally:
        await asyncio.to_thread(world.close)


async def suffer(fault: Fault, plan: Plan, folder: Path, checkers: Executor | None = None) -> Row:
    """Run one fault.  Raises: EtcdMissing, NetworkMissing, NodeFailed when nothing starts.

    With ``checkers`` the traces are checked there, and ``row.finish`` waits for that.
    """
    world = World(
        folder, lease_s=plan.lease_s, links=plan.links, invokers=plan.invokers, **fault.world
    )
    history = History(world.endpoints, CLUSTER)
    try:
        await asyncio.to_thread(world.start)
        await history.start()
        load = SteadyLoad(world.api, world.auth, folder / "runs", rate=plan.rate, mix=plan.mix)
        load.port = 0 if world.run_server is None else world.run_server.port
        await load.deploy()
        moment = Moment(history)
        ended_s, failure = await _under_load(fault, plan, world, load, moment)
        rows = await Records(world.database).settled(load.accepted, SETTLE_S)
        try:
            codes = await asyncio.to_thread(world.stop)
        except NodeFailed as error:
            failure.append(str(error))
            codes = {}
        left = await _left(world, history)
        row = _judge(fault, plan, world, load, moment, ended_s, rows, history)
        row.broken += failure
        bad = {name: code for name, code in codes.items() if code}
        bad |= {name: code for name, code in world.exits if code != 3}
        if bad:
            row.broken.append(f"exit codes {bad}")
        if left:
            row.broken.append(f"{len(left)} left over, as {left[0]}")
        loop = asyncio.get_running_loop()
        row.checking = loop.run_in_executor(checkers, broken_invariants, world.traces)
        if checkers is None:
            await row.finish()
        return row
    finally:
        await history.close()
        await asyncio.to_thread(world.close)


async def _under_load(
    fault: Fault, plan: Plan, world: World, load: SteadyLoad, moment: Moment
) -> tuple[float, list[str]]:
    """Break the cluster and heal it; return when the load ended, and what could not be done."""
    begun_s = time.monotonic()
    running = asyncio.ensure_future(load.run())
    await asyncio.sleep(plan.warm_s + plan.before_s)
    failure = []
    try:
        await asyncio.to_thread(fault.inflict, world, moment)
    except NodeFailed as error:
        failure.append(str(error).splitlines()[0])
        moment.healed()
    enough_s = max(begun_s + plan.load_min_s, time.monotonic() + plan.after_s)
    with contextlib.suppress(AssertionError):  # the verdict says how many there were
        await until(
            lambda: time.monotonic() >= enough_s and len(load.accepted) >= plan.accepted_min,
            "enough load",
            enough_s + 60 - time.monotonic(),
        )
    ended_s = time.monotonic()
    load.stop()
    await running
    return ended_s, failure


async def _left(world: World, history: History) -> list[str]:
    """Return what is still there although every node has ended."""
    keys = [key for key in await history.left() if not key.startswith("guard/")]
    keys += await asyncio.to_thread(world.in_engine)
    return keys + [
        f"process {pid}" for name in world.nodes for pid in world.network.processes(name)
    ]


def _waiting(load: SteadyLoad, log: RunLog, at_s: float) -> int:
    """Return how many had been accepted at a moment and had not started."""
    started = {run.activation for run in log.runs if run.start_s < at_s}
    return sum(sent.at_s < at_s and id_ not in started for id_, sent in load.accepted.items())


def _judge(
    fault: Fault,
    plan: Plan,
    world: World,
    load: SteadyLoad,
    moment: Moment,
    ended_s: float,
    rows: dict[str, Any],
    history: History,
) -> Row:
    log = RunLog(load.log)
    verdict = Verdict.of(load.accepted, rows, log)
    # No more than was asked for: what ran before may have been a backlog.
    normal = min(plan.rate, log.rate(moment.hurt_s - plan.before_s, moment.hurt_s)) or 1e-9
    during = log.rate(moment.hurt_s, max(moment.healed_s, moment.hurt_s + 1)) / normal
    after = log.rate(moment.healed_s, ended_s) / normal
    from_s = moment.hurt_s if fault.back_of == "hurt" else moment.healed_s
    back_s = log.back_s(from_s, ended_s, 0.9 * normal)
    unknown_max = sum(history.invokers_max[name] for name in fault.unknown_of)
    if fault.waiting_too:
        unknown_max += _waiting(load, log, moment.hurt_s)
    orphans = frozenset(world.network.hosts[name].id for name in fault.orphans)
    running_max = log.running_max(orphans)
    row = Row(
        fault.name, verdict, load.answers, normal, during, after, back_s, unknown_max,
        history.held_max, running_max, os.getloadavg()[0],
    )  # fmt: skip
    says = row.broken.append
    for what in ("lost", "twice", "unrun", "wrong"):
        found = getattr(verdict, what)
        if found:
            says(f"{len(found)} {what}, as {found[0]}")
    if verdict.accepted < plan.accepted_min:
        says(f"only {verdict.accepted} accepted")
    if verdict.open:
        says(f"{verdict.open} rows have no end")
    if verdict.unknown > unknown_max:
        says(f"unknown over {unknown_max}")
    failed = [text for text in verdict.failures if not text.startswith(fault.may_fail)]
    if failed:
        says(f"{sum(verdict.failures[text] for text in failed)} failed")
    if history.held_max > world.containers or running_max > world.containers:
        says(f"cap {world.containers}: {history.held_max} held, {running_max} ran")
    if log.shared():
        says(f"{log.shared()} runs shared a slot")
    back_max_s = fault.back_leases * plan.lease_s + 1
    if back_s is None or back_s > back_max_s:
        row.slow.append(f"not back within {back_max_s:g} s")
    if normal < NORMAL_MIN * plan.rate:
        row.slow.append(f"void: {normal:.0f}/s ran before the fault")
    if during < fault.during_min:
        row.slow.append(f"throughput during below {fault.during_min:g}")
    return row
