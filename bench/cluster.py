"""A cluster of processes against the yardstick, and many actions against one.

One controller, one scheduler, one invoker and an etcd, all on this machine, linked by gRPC and by
frames over plain sockets; see README.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import added_wait
import httpx
from standalone import (
    USERS,
    BenchFailed,
    Comparison,
    Server,
    Yardstick,
    compare,
    counts,
    folder,
    machine,
    parser,
    require_wrk,
    write_json,
)

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import LocalCluster, NodeFailed

LINKS = ("grpc", "frames")

IDLE_S = 10
"""How long an idle cluster is looked at."""


class Cluster(Server):
    """A cluster with ``actions`` no-ops and exactly so many containers."""

    def __init__(
        self,
        folder: Path,
        sandbox: str,
        actions: int,
        containers: int,
        users: int = USERS,
        *,
        tls: bool = False,
        links: str = "grpc",
    ) -> None:
        super().__init__(folder, sandbox, actions, containers, users)
        self.name = f"cluster, {links}{' with TLS' if tls else ''}, {self.name}"
        self._tls = tls
        self.cluster = LocalCluster(
            folder,
            schedulers=1,
            invokers=1,
            sandbox=sandbox,
            memory_mb=max(4_000, 400 * containers),
            # Of a cap one place is kept for calls between functions.
            namespace_containers=containers + 1,
            tls=tls,
            links=links,
        )
        self.process = self.cluster  # type: ignore[assignment]  # it has url and auth as well

    def __enter__(self) -> Cluster:
        try:
            self.cluster.start()
            self._deploy()
        except BaseException:
            self.cluster.kill()
            raise
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is not None:
            self.cluster.kill()
            return
        failed = {name: code for name, code in self.cluster.stop().items() if code}
        if failed:
            raise BenchFailed(f"nodes ended with codes {failed}")

    def status(self) -> dict[str, Any]:
        (invoker,) = self.cluster.of("invoker")
        with urllib.request.urlopen(f"{invoker.health}/health/ready", timeout=5) as answer:
            document = json.load(answer)
        pool = document["containers"]
        gone = ("idle", "created", "prewarm_starting", "prewarm_ready", "prewarm_going")
        return {
            "containers": sum(count for state, count in pool.items() if state not in gone),
            "containers_created": pool["created"],
            "added_wait_us": document["added_wait_us"],
            "added_wait_counts": document["added_wait_counts"],
        }

    def _await_engine(self) -> None:
        """An invoker does not tell how long its engine worked; forked processes serve at once."""

    def costs(self, seconds: int) -> dict[str, Any]:
        """Load once more, then wait; return what that cost each process, and etcd's calls."""
        idle, _ = self._cpu_of(lambda: time.sleep(IDLE_S))
        self.load(2)  # containers that idled away are there again
        calls = self._etcd_calls()
        used, requests = self._cpu_of(lambda: self.load(seconds).requests)
        calls = {name: count - calls.get(name, 0) for name, count in self._etcd_calls().items()}
        return {
            "requests": requests,
            "cpu_us_per_activation": {n: round(s * 1e6 / requests) for n, s in used.items()},
            "idle_cpu_share": {name: round(s / IDLE_S, 4) for name, s in idle.items()},
            "etcd_calls": {name: count for name, count in calls.items() if count},
            "added_wait_us": self.status()["added_wait_us"],
        }

    def _cpu_of(self, work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """Return the CPU seconds of each process while the work is done, and what it returns."""
        pids = {node.name: node.pid for node in self.cluster.nodes}
        pids["etcd"] = self.cluster.etcd.pid
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        result = work()
        return {name: _cpu_s(pid) - before[name] for name, pid in pids.items()}, result

    def _etcd_calls(self) -> dict[str, int]:
        """Return how often each method of etcd was called; with TLS it does not tell us."""
        if self._tls:
            return {}
        url = f"http://{self.cluster.etcd.endpoint}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        return {name: int(count) for name, count in _STARTED.findall(text)}


_STARTED = re.compile(r'^grpc_server_started_total{grpc_method="(\w+)",[^}]*} (\d+)$', re.MULTILINE)


def _cpu_s(pid: int) -> float:
    """Return what a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("a cluster of processes against the yardstick")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--containers", type=counts, default=[32])
    options.add_argument("--actions", type=counts, default=[1, 100])
    options.add_argument("--links", nargs="+", choices=LINKS, default=LINKS)
    options.add_argument("--tls", action="store_true", help="and 1 action once more over TLS")
    chosen = options.parse_args(arguments)
    document = {"sandbox": chosen.sandbox, "seconds": chosen.seconds, "machine": machine()}
    print(f"sandbox {chosen.sandbox}, {chosen.seconds} s each, {document['machine']}")
    results: list[Comparison] = []
    costs: dict[str, Any] = {}
    waits: dict[str, added_wait.Result] = {}
    try:
        require_wrk()
        if 1 in chosen.actions:
            with_tls = (False, True)[: 1 + chosen.tls]
            for links, containers, tls in product(chosen.links, chosen.containers, with_tls):
                with (
                    added_wait.generator() as program,
                    folder() as here,
                    folder() as there,
                    Yardstick(here) as yardstick,
                    Cluster(there, chosen.sandbox, 1, containers, tls=tls, links=links) as cluster,
                ):
                    results.append(compare(yardstick, cluster, chosen.pairs, chosen.seconds))
                    costs[cluster.name] = cluster.costs(chosen.seconds)
                    for what, value in costs[cluster.name].items():
                        print(f"  {what}: {value}")
                    (found,) = added_wait.measure(
                        cluster, program, chosen.seconds, [0.5], poisson=True
                    )
                    waits[cluster.name] = found
                    found.print()
        for links, actions in product(chosen.links, chosen.actions):
            if actions > 1:
                users = max(USERS, 2 * actions)
                with (
                    folder() as here,
                    folder() as there,
                    Cluster(here, chosen.sandbox, 1, actions, users, links=links) as one,
                    Cluster(there, chosen.sandbox, actions, actions, users, links=links) as many,
                ):
                    results.append(compare(one, many, chosen.pairs, chosen.seconds))
    except (BenchFailed, EtcdMissing, NodeFailed, OSError, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["costs"] = costs
    document["half_load"] = {name: asdict(found) for name, found in waits.items()}
    document["comparisons"] = [result.document() for result in results]
    write_json(chosen.json, document)
    return 1 if any(result.errors() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
