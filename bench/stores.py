"""How long lists take in a large database: 100,000 actions and 10 million activation records.

python bench/stores.py [--actions 100000] [--records 10000000] [--lists 300] [--json FILE]
                       [--folder FOLDER]

Fills a database on SQLite in bulk, in a temporary folder (some 6 GB, removed at the end), and
measures the stores' own lists by time and by name.  Exits with 1 when a 99th percentile is above
``P99_MS_MAX``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from acs_node.activations import ActivationStore
from acs_node.database import Database, entities
from acs_node.entities import EntityStore, RuntimeKinds, SystemLimits
from acs_node.entity_types import Action

P99_MS_MAX = 20.0
NAMESPACES = 10
T0 = 1_700_000_000_000
WARM_UP = 20
SPACING_MS = 50
"""Between two records: 10 million of them are six days."""


def namespace(number: int) -> str:
    return f"space{number}"


RECORDS = f"""
INSERT INTO activations (activation_id, namespace, path, start_ms, end_ms, status_code, rank,
                         deadline_ms, head, logs)
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :records),
chosen AS (
  SELECT n, {T0} + n * {SPACING_MS} AS start_ms, 'space' || (n * 7919 % {NAMESPACES}) AS space,
         -- Of two draws the smaller: some actions are invoked often, many seldom.
         'action' || min(abs(random()) % :actions, abs(random()) % :actions) AS name
  FROM numbers
)
SELECT id_of(start_ms), space, name, start_ms, start_ms + 5, 0, 2, 0, CAST(printf(
  '{{"namespace":"%s","name":"%s","version":"0.0.1","subject":"%s","publish":false,'
  || '"activationId":"%032x","start":%d,"end":%d,"duration":5,"response":{{"status":"success",'
  || '"success":true,"result":{{"a":1}},"size":7}},"annotations":[{{"key":"path","value":"%s/%s"}},'
  || '{{"key":"kind","value":"python:3"}}]', space, name, space, n, start_ms,
  start_ms + 5, space, name
) AS BLOB), CAST('[]' AS BLOB) FROM chosen
"""
"""In SQL, as a loop in Python takes ten times as long."""


def id_of(start_ms: int) -> bytes:
    """Return an id that begins with the time."""
    return start_ms.to_bytes(6, "big") + random.randbytes(10)


def action_rows(count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        space, name = namespace(number % NAMESPACES), f"action{number // NAMESPACES}"
        document = {
            "namespace": space, "name": name, "version": "0.0.1", "publish": False,
            "updated": T0 + number, "exec": {"kind": "python:3", "binary": False},
            "parameters": [{"key": "a", "value": 1}],
            "limits": {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1},
            "annotations": [{"key": "exec", "value": "python:3"}],
        }  # fmt: skip
        code = "def main(args):\n    return args\n"
        yield space, name, "actions", number + 1, T0 + number, orjson.dumps(document), code


def fill(path: Path, actions: int, records: int) -> None:
    """Fill a database that has its tables; indexes are made at the end, which is faster."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        made = "SELECT sql, name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        indexes = connection.execute(made).fetchall()
        for _, name in indexes:
            connection.execute(f"DROP INDEX {name}")
        columns = [column.name for column in entities.c]
        marks = ", ".join("?" * len(columns))
        connection.executemany(
            f"INSERT INTO entities ({', '.join(columns)}) VALUES ({marks})", action_rows(actions)
        )
        connection.create_function("id_of", 1, id_of)
        connection.execute(RECORDS, {"records": records, "actions": actions // NAMESPACES})
        for sql, _ in indexes:
            connection.execute(sql)
        connection.execute("ANALYZE")
    connection.close()


async def percentiles(
    lists: int, call: Callable[[random.Random], Awaitable[Any]]
) -> dict[str, float]:
    """Return how long calls take, in ms, one after the other, and how much of it is CPU."""
    chance = random.Random(2)
    took, cpu = [], []
    for _ in range(WARM_UP):
        await call(chance)
    # As a server does; the collector's pauses are not the database's.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    for _ in range(lists):
        start, start_cpu = time.perf_counter(), time.process_time()
        await call(chance)
        took.append((time.perf_counter() - start) * 1000)
        cpu.append((time.process_time() - start_cpu) * 1000)
    return {
        f"{what}{p}_ms": sorted(each)[min(lists - 1, lists * p // 100)]
        for what, each in (("p", took), ("cpu_p", cpu))
        for p in (50, 99)
    }


async def measure(url: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    database = Database(url)
    await database.open()
    store = ActivationStore(database, clock_ms=lambda: T0, buffer_max=1_000)
    actions = EntityStore(
        database, kinds=RuntimeKinds(), limits=SystemLimits(), clock_ms=lambda: T0
    )
    last_ms = T0 + options.records * SPACING_MS
    per_namespace = options.actions // NAMESPACES

    def space(chance: random.Random) -> str:
        return namespace(chance.randrange(NAMESPACES))

    def name(chance: random.Random) -> str:
        return f"action{chance.randrange(per_namespace)}"

    def moment(chance: random.Random) -> int:
        return chance.randrange(T0, last_ms)

    calls: dict[str, Callable[[random.Random], Awaitable[Any]]] = {
        "actions, the last 30": lambda c: actions.list(Action, space(c), 0, 30),
        "actions, 200 from the middle": lambda c: actions.list(
            Action, space(c), per_namespace // 2, 200
        ),
        "records, the last 30": lambda c: store.list(space(c)),
        "records, the last 200": lambda c: store.list(space(c), limit=200),
        "records until a time": lambda c: store.list(space(c), upto=moment(c)),
        "records since a time, until a day after": lambda c: store.list(
            space(c), since=(since := moment(c)), upto=since + 86_400_000
        ),
        "records of a name": lambda c: store.list(space(c), name=name(c)),
        "records of a name until a time": lambda c: store.list(
            space(c), name=name(c), upto=moment(c)
        ),
        "whole records of a name": lambda c: store.list(space(c), name=name(c), docs=True),
    }
    try:
        return {each: await percentiles(options.lists, call) for each, call in calls.items()}
    finally:
        await store.close()
        await database.close()


async def create(url: str) -> None:
    database = Database(url)
    await database.open()
    await database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actions", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--lists", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="Where the database is kept, to measure again.")
    parser.add_argument("--fill-only", action="store_true", help="Make it, measure nothing.")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="acs-"))
        )
        path = folder / "acs.db"
        if not path.exists():
            asyncio.run(create(f"sqlite:///{path}"))
            start = time.perf_counter()
            fill(path, options.actions, options.records)
            print(f"written in {time.perf_counter() - start:.0f} s")
        print(
            f"{options.actions:,} actions and {options.records:,} records:"
            f" {path.stat().st_size / 1e9:.2f} GB"
        )
        if options.fill_only:
            return 0
        results = asyncio.run(measure(f"sqlite:///{path}", options))
    print(f"{'':42}  p50 ms  p99 ms  CPU, p99")
    for name, result in results.items():
        print(
            f"{name:42}{result['p50_ms']:8.2f}{result['p99_ms']:8.2f}{result['cpu_p99_ms']:10.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(max(result["p99_ms"] for result in results.values()) > P99_MS_MAX)


if __name__ == "__main__":
    sys.exit(main())
