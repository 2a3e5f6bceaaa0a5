"""What became of a load, from witnesses that the platform does not speak through.

The functions' own log (who ran what, where, from when to when), the rows of the record store as
they lie in its file, and every change of the cluster's keys as etcd tells it.  What schedulers
have decided is run again from their traces, with the invariants asserted.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import eventually

from acs_core.trace import replay
from acs_node import etcd_pb2
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, backoff

from .steady import Sent


@dataclass(slots=True)
class Start:
    """A run as its container tells it; ``end_s`` is None when it never said so."""

    activation: str
    container: str
    namespace: int
    start_s: float
    end_s: float | None = None


class RunLog:
    """What functions have written themselves."""

    def __init__(self, path: Path) -> None:
        self.runs: list[Start] = []
        open_: dict[tuple[str, str], Start] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            word, activation, container, namespace, at = line.split()
            if word == "S":
                run = Start(activation, container, int(namespace), float(at))
                self.runs.append(run)
                open_[activation, container] = run
            else:
                open_[activation, container].end_s = float(at)
        self.starts_s = sorted(run.start_s for run in self.runs)

    def twice(self) -> list[str]:
        """Return what was started more than once."""
        counts = Counter(run.activation for run in self.runs)
        return [activation for activation, count in counts.items() if count > 1]

    def running_max(self, without: frozenset[int] = frozenset()) -> int:
        """Return how many containers ran something at one moment, at most.

        Those in the namespaces ``without`` are left out: an invoker that is cut off has orphans.
        """
        steps: list[tuple[float, int]] = []
        for run in self.runs:
            if run.namespace not in without and run.end_s is not None:
                steps += ((run.start_s, 1), (run.end_s, -1))
        most = now = 0
        for _, step in sorted(steps):
            now += step
            most = max(most, now)
        return most

    def shared(self) -> int:
        """Return how often a container of one slot ran two activations at a time."""
        count = 0
        last: dict[str, float] = {}
        for run in sorted(self.runs, key=lambda run: run.start_s):
            count += run.start_s < last.get(run.container, 0.0)
            last[run.container] = run.end_s or run.start_s
        return count

    def rate(self, begin_s: float, end_s: float) -> float:
        """Return starts per second between two moments."""
        count = bisect_left(self.starts_s, end_s) - bisect_left(self.starts_s, begin_s)
        return count / (end_s - begin_s)

    def back_s(self, from_s: float, until_s: float, rate: float) -> float | None:
        """Return how long after ``from_s`` runs start as often as ``rate`` again, and go on so.

        None when they never do before ``until_s``.
        """
        at_s = from_s
        while at_s + 4 <= until_s:
            if self.rate(at_s, at_s + 1) >= rate and self.rate(at_s, at_s + 4) >= rate:
                return at_s - from_s
            at_s += 0.05
        return None


class Records:
    """The rows of the record store."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def read(self) -> dict[str, tuple[int, Any]]:
        """Return rank and response of every activation."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT hex(activation_id), rank, head FROM activations")
            return {
                id_.lower(): (rank, json.loads(head + b"}").get("response"))
                for id_, rank, head in rows
            }

    async def settled(self, ids: Mapping[str, object], within_s: float) -> dict[str, Any]:
        """Return the rows once every id has ended, or after a while."""
        rows: dict[str, Any] = {}

        async def have_ended() -> bool:
            nonlocal rows
            rows = await asyncio.to_thread(self.read)
            accepted = [id_ for id_, (rank, _) in rows.items() if rank == 0]
            missing = [id_ for id_ in ids if rows.get(id_, (0, None))[0] == 0]
            return not (accepted or missing)

        with suppress(AssertionError):  # what has not ended is for the verdict
            await eventually(have_ended, "all ends", within_s, look_s=0.5)
        return rows


class History:
    """Every change below the cluster's name, as etcd tells it, in order.

    ``held_max`` is the most containers that a namespace has held at one revision,
    ``invokers_max`` the same of each invoker.
    """

    def __init__(self, endpoints: str, cluster: str) -> None:
        self._etcd = Etcd(EtcdConfig(tuple(endpoints.split(","))))
        self._prefix = f"{cluster}/"
        self._revision = 0
        self._task: asyncio.Task[None] | None = None
        self.keys: dict[str, bytes] = {}
        self.held_max = 0
        self.invokers_max: Counter[str] = Counter()  # since ``mark``
        self.gaps = 0
        self.changes = 0

    async def start(self) -> None:
        """List, then follow.  Raises: EtcdError."""
        await self._list()
        self._task = asyncio.ensure_future(self._follow())

    async def close(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._etcd.close()

    async def left(self) -> list[str]:
        """Return the keys that are there now.  Raises: EtcdError."""
        found, _ = await self._etcd.list(self._prefix)
        return [kv.key.decode().removeprefix(self._prefix) for kv in found]

    def mark(self) -> None:
        """Count anew from now on how many containers each invoker holds at most."""
        self.invokers_max.clear()
        self._count()

    async def _list(self) -> None:
        found, self._revision = await self._etcd.list(self._prefix)
        self.keys = {kv.key.decode().removeprefix(self._prefix): kv.value for kv in found}
        self._count()

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._etcd.watch(self._prefix, self._revision + 1)) as answers:
                    async for answer in answers:
                        if answer.compact_revision or answer.canceled:
                            self.gaps += 1
                            await self._list()
                            break
                        self._take(answer.events)
                        self._revision = max(self._revision, answer.header.revision)
            except EtcdError:
                await backoff(0)

    def _take(self, events: Any) -> None:
        revision = 0
        for event in events:
            if event.kv.mod_revision != revision:
                self._count()  # one transaction is one moment
                revision = event.kv.mod_revision
            self.changes += 1
            key = event.kv.key.decode().removeprefix(self._prefix)
            if event.type == etcd_pb2.Event.DELETE:
                self.keys.pop(key, None)
            else:
                self.keys[key] = event.kv.value
        self._count()

    def _count(self) -> None:
        held: Counter[str] = Counter()
        invokers: Counter[str] = Counter()
        for key in list(self.keys):
            if key.startswith("held/namespace/"):
                held[key.split("/")[2]] += 1
            elif key.startswith("held/invoker/"):
                invokers[key.split("/")[2]] += 1
        self.held_max = max([self.held_max, *held.values()])
        self.invokers_max |= invokers


def broken_invariants(traces: Path) -> tuple[int, list[str]]:
    """Run the schedulers' traces again, with every invariant asserted after each step.

    Returns how many steps that were, and what was found.  A killed scheduler's trace is cut off,
    or empty when all of it was held in memory still.
    """
    steps, found = 0, []
    for file in sorted(file for file in traces.glob("*.trace") if file.stat().st_size):
        with open(file, encoding="ascii") as lines:
            report = replay(lines, cut=True, check=True)
        steps += report.steps
        if report.difference is not None:
            found.append(f"{file.name}, line {report.difference.line}: {report.difference.got}")
    return steps, found


@dataclass
class Verdict:
    """What became of everything that was accepted."""

    accepted: int = 0
    ended: int = 0
    unknown: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unrun: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: int = 0

    @classmethod
    def of(cls, sent: Mapping[str, Sent], rows: Mapping[str, Any], log: RunLog) -> Verdict:
        """Compare what clients were told with the rows and with what functions say."""
        verdict = cls(accepted=len(sent), twice=log.twice())
        started = {run.activation for run in log.runs}
        verdict.open = sum(rank == 0 for rank, _ in rows.values())
        for id_, told in sent.items():
            rank, response = rows.get(id_, (0, None))
            if rank == 0:
                verdict.lost.append(id_)
                continue
            verdict.ended += 1
            if response["success"]:
                if id_ not in started:
                    verdict.unrun.append(id_)
                if response["result"] != {"n": told.n}:
                    verdict.wrong.append(id_)
                continue
            text = str(response["result"].get("error"))
            if "not known whether" in text or "unknown whether" in text:
                verdict.unknown += 1
            else:
                verdict.failures[text[:90]] += 1
        return verdict
