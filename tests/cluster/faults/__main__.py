"""``make faults``: each fault of the catalogue under load, and the table of what it cost."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvloop

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import NodeFailed

from .catalogue import catalogue
from .network import NetworkMissing
from .runner import HEAD, Plan, Row, capacity, suffer

SHARE: Final = 0.55
"""Of the capacity that was measured; at least 0.5 is asked for."""

USERS: Final = 96
CAPACITY_S: Final = 10.0


def _print(row: Row, number: int, seconds: float) -> None:
    how = f"{row.rate:.0f}/s, {seconds:.0f} s, held {row.held_max}, ran {row.running_max}"
    cells = " | ".join(row.cells())
    print(f"{number:3} {cells}   [{how}]", flush=True)


def _write(path: str | None, rows: list[Row]) -> None:
    if path:
        document = [dict(zip(HEAD, row.cells(), strict=True)) for row in rows]
        Path(path).write_text(json.dumps(document, indent=1, ensure_ascii=False))


def _table(rows: list[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


async def _main(chosen: argparse.Namespace) -> int:
    faults = [f for f in catalogue() if all(word in f.name for word in chosen.words)]
    faults = faults[chosen.first - 1 :]
    if chosen.list:
        print(*(fault.name for fault in faults), sep="\n")
        return 0
    rows: list[Row] = []
    plan = Plan(chosen.rate, links=chosen.links)
    with (
        tempfile.TemporaryDirectory(prefix="acsf-") as top,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as checkers,
    ):
        if not plan.rate:
            most = await capacity(Path(top) / "cap", plan, USERS, CAPACITY_S)
            least = 1.05 * plan.accepted_min / plan.load_min_s
            plan = replace(plan, rate=max(SHARE * most, least))
            print(f"capacity {most:.0f}/s; the load is {plan.rate:.0f}/s, "
                  f"{plan.rate / most:.2f} of it", flush=True)  # fmt: skip
        for number, fault in enumerate(faults, 1):
            begun_s = time.monotonic()
            folder = Path(chosen.keep or top) / f"f{number}"
            row = await suffer(fault, plan, folder, checkers)
            rows.append(row)
            _print(row, number, time.monotonic() - begun_s)
            _write(chosen.json, rows)
        for row in rows:
            await row.finish()
        _write(chosen.json, rows)
    print(_table(rows))
    bad = [row for row in rows if row.broken or row.slow]
    if bad:
        print(f"{len(bad)} of {len(rows)} faults cost more than they may")
    accepted = sum(row.verdict.accepted for row in rows)
    lost = sum(len(row.verdict.lost) for row in rows)
    twice = sum(len(row.verdict.twice) for row in rows)
    print(f"{sum(row.steps for row in rows)} steps of schedulers replayed and checked")
    print(f"{len(rows)} faults, {accepted} accepted, {lost} lost, {twice} twice")
    return 1 if bad else 0


def main() -> int:
    """Return the exit code: 0 when no fault cost more than it may."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults with all of these in their names")
    parser.add_argument("--first", type=int, default=1, help="number of the first one")
    parser.add_argument("--list", action="store_true", help="print the faults' names")
    parser.add_argument("--rate", type=float, default=0.0, help="invocations per second")
    parser.add_argument("--links", choices=("grpc", "frames"), default="grpc")
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
