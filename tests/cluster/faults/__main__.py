"""``make faults``: each fault of the catalogue under load, and the table of what it cost."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import NodeFailed

from .catalogue import LEASE_S, Fault, Moment, catalogue
from .evidence import History, Records, RunLog, Verdict
from .network import NetworkMissing
from .steady import SteadyLoad
from .world import CLUSTER, World

ACCEPTED_MIN: Final = 10_000
LOAD_MIN_S: Final = 30.0
SHARE: Final = 0.55
"""Of the capacity that was measured; the issue asks for 0.5."""

WARM_S: Final = 6.0
BEFORE_S: Final = 5.0
"""The throughput that counts as normal is that of so long before the fault."""

AFTER_S: Final = 8.0
SETTLE_S: Final = 90.0
CAPACITY_USERS: Final = 96
CAPACITY_S: Final = 10.0


@dataclass
class Row:
    """What a fault cost."""

    name: str
    verdict: Verdict
    answers: Counter[str]
    rate: float
    during: float
    back_s: float | None
    unknown_max: int
    held_max: int
    running_max: int
    problems: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        refused = {
            cause: count for cause, count in self.answers.items() if cause not in ("200", "202")
        }
        causes = [f"{cause}: {count}" for cause, count in sorted(refused.items())]
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
            "ok" if not self.problems else "; ".join(self.problems),
        )


HEAD: Final = (
    "fault",
    "accepted",
    "ended",
    "errors by cause",
    "unknown",
    "throughput during",
    "back after s",
    "verdict",
)


async def capacity(folder: Path) -> float:
    """Return how many invocations a second the cluster serves at most, of this mix."""
    world = World(folder, lease_s=LEASE_S)
    try:
        await asyncio.to_thread(world.start)
        load = SteadyLoad(world.api, world.auth, folder / "runs", users=CAPACITY_USERS)
        await load.deploy()
        running = asyncio.ensure_future(load.run())
        await asyncio.sleep(WARM_S)
        before, at_s = load.answered, time.monotonic()
        await asyncio.sleep(CAPACITY_S)
        rate = (load.answered - before) / (time.monotonic() - at_s)
        load.stop()
        await running
        return rate
    finally:
        await asyncio.to_thread(world.close)


async def suffer(fault: Fault, rate: float, folder: Path) -> Row:
    """Run one fault on a cluster of its own."""
    world = World(folder, lease_s=LEASE_S, **fault.world)
    history = History(world.endpoints, CLUSTER)
    try:
        await asyncio.to_thread(world.start)
        await history.start()
        load = SteadyLoad(world.api, world.auth, folder / "runs", rate=rate)
        await load.deploy()
        begun_s = time.monotonic()
        running = asyncio.ensure_future(load.run())
        await asyncio.sleep(WARM_S + BEFORE_S)
        moment = Moment(history)
        failure = ""
        try:
            await asyncio.to_thread(fault.inflict, world, moment)
        except NodeFailed as error:
            failure = str(error).splitlines()[0]
            moment.healed()
        enough_s = max(begun_s + LOAD_MIN_S, time.monotonic() + AFTER_S)
        while time.monotonic() < enough_s or len(load.accepted) < ACCEPTED_MIN:
            await asyncio.sleep(0.2)
            if time.monotonic() > enough_s + 60:
                break
        ended_s = time.monotonic()
        load.stop()
        await running
        rows = await Records(world.database).settled(load.accepted, SETTLE_S)
        codes = await asyncio.to_thread(world.stop)
        left = await _left(world, history)
        row = _judge(fault, world, load, moment, ended_s, rows, history, codes, left)
        row.problems += [failure] if failure else []
        return row
    finally:
        await history.close()
        await asyncio.to_thread(world.close)


async def _left(world: World, history: History) -> list[str]:
    """Return what is still there although every node has ended."""
    keys = [key for key in await history.left() if not key.startswith("guard/")]
    return keys + [
        f"process {pid}" for name in world.nodes for pid in world.network.processes(name)
    ]


def _judge(
    fault: Fault,
    world: World,
    load: SteadyLoad,
    moment: Moment,
    ended_s: float,
    rows: dict[str, Any],
    history: History,
    codes: dict[str, int],
    left: list[str],
) -> Row:
    log = RunLog(load.log)
    verdict = Verdict.of(load.accepted, rows, log)
    normal = log.rate(moment.hurt_s - BEFORE_S, moment.hurt_s)
    during = log.rate(moment.hurt_s, max(moment.healed_s, moment.hurt_s + 1)) / normal
    from_s = moment.hurt_s if fault.back_of == "hurt" else moment.healed_s
    back_s = log.back_s(from_s, ended_s, 0.9 * normal)
    unknown_max = sum(moment.held.get(name, 0) for name in fault.unknown_of)
    orphans = frozenset(world.network.hosts[name].id for name in fault.orphans)
    running_max = log.running_max(orphans)
    row = Row(
        fault.name, verdict, load.answers, normal, during, back_s, unknown_max,
        history.held_max, running_max,
    )  # fmt: skip
    says = row.problems.append
    for what in ("lost", "twice", "unrun", "wrong"):
        found = getattr(verdict, what)
        if found:
            says(f"{len(found)} {what}, as {found[0]}")
    if verdict.accepted < ACCEPTED_MIN:
        says(f"only {verdict.accepted} accepted")
    if verdict.open:
        says(f"{verdict.open} rows have no end")
    if verdict.unknown > unknown_max:
        says(f"unknown over {unknown_max}")
    if verdict.failures:
        says(f"{sum(verdict.failures.values())} failed")
    if history.held_max > world.containers or running_max > world.containers:
        says(f"cap {world.containers}: {history.held_max} held, {running_max} ran")
    if log.shared():
        says(f"{log.shared()} runs shared a slot")
    if back_s is None or back_s > fault.back_s:
        says(f"not back within {fault.back_s:g} s")
    if during < fault.during_min:
        says(f"throughput during below {fault.during_min:g}")
    bad = {name: code for name, code in codes.items() if code}
    bad |= {name: code for name, code in world.exits if code != 3}
    if bad:
        says(f"exit codes {bad}")
    if left:
        says(f"{len(left)} left over, as {left[0]}")
    return row


def _print(row: Row, number: int, seconds: float) -> None:
    print(f"{number:3} {' | '.join(row.cells())}   [{row.rate:.0f}/s, {seconds:.0f} s, "
          f"held {row.held_max}, ran {row.running_max}]", flush=True)  # fmt: skip


def _table(rows: list[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


async def _main(chosen: argparse.Namespace) -> int:
    faults = [f for f in catalogue() if all(word in f.name for word in chosen.words)]
    if chosen.list:
        print(*(fault.name for fault in faults), sep="\n")
        return 0
    keep = Path(chosen.keep) if chosen.keep else None
    rows = []
    rate = chosen.rate
    with tempfile.TemporaryDirectory(prefix="acsf-") as top:
        if not rate:
            most = await capacity(Path(top) / "cap")
            rate = max(SHARE * most, ACCEPTED_MIN / LOAD_MIN_S * 1.05)
            print(f"capacity {most:.0f}/s; the load is {rate:.0f}/s, {rate / most:.2f} of it")
        for number, fault in enumerate(faults, 1):
            begun_s = time.monotonic()
            folder = (keep or Path(top)) / f"f{number}"
            row = await suffer(fault, rate, folder)
            rows.append(row)
            _print(row, number, time.monotonic() - begun_s)
            if chosen.json:
                document = [dict(zip(HEAD, row.cells(), strict=True)) for row in rows]
                Path(chosen.json).write_text(json.dumps(document, indent=1, ensure_ascii=False))
    print(_table(rows))
    bad = [row for row in rows if row.problems]
    if bad:
        print(f"{len(bad)} of {len(rows)} faults cost more than they may")
    accepted, lost, twice = (
        sum(counts)
        for counts in zip(
            *((r.verdict.accepted, len(r.verdict.lost), len(r.verdict.twice)) for r in rows),
            strict=True,
        )
    )
    print(f"{len(rows)} faults, {accepted} accepted, {lost} lost, {twice} twice")
    return 1 if bad else 0


def main() -> int:
    """Return the exit code: 0 when no fault cost more than it may."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults with all of these in their names")
    parser.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--rate", type=float, default=0.0, help="invocations per second")
    parser.add_argument("--keep", help="folder to keep logs in")
    parser.add_argument("--json", help="file to write rows to as they come")
    chosen = parser.parse_args()
    try:
        return uvloop.run(_main(chosen))
    except (EtcdMissing, NetworkMissing, NodeFailed) as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
