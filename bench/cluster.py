"""A cluster of processes over gRPC against the yardstick, and many actions against one.

One controller, one scheduler, one invoker and an etcd, all on this machine; see README.md.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


class Cluster(Server):
    """A cluster with ``actions`` no-ops and exactly so many containers."""

    def __init__(
        self, folder: Path, sandbox: str, actions: int, containers: int, users: int = USERS
    ) -> None:
        super().__init__(folder, sandbox, actions, containers, users)
        self.name = f"cluster, {self.name}"
        self.cluster = LocalCluster(
            folder,
            schedulers=1,
            invokers=1,
            sandbox=sandbox,
            memory_mb=max(4_000, 400 * containers),
            # Of a cap one place is kept for calls between functions.
            namespace_containers=containers + 1,
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
        }

    def print_costs(self, seconds: int) -> None:
        """Load once more, and print what an activation costs each process."""
        before = {node.name: _cpu_s(node.pid) for node in self.cluster.nodes}
        before["etcd"] = _cpu_s(self.cluster.etcd.pid)
        requests = self.load(seconds).requests
        after = {node.name: _cpu_s(node.pid) for node in self.cluster.nodes}
        after["etcd"] = _cpu_s(self.cluster.etcd.pid)
        costs = {name: round((after[name] - before[name]) * 1e6 / requests) for name in before}
        print(
            f"  CPU per activation, us: {costs}; added wait, us: {self.status()['added_wait_us']}"
        )


def _cpu_s(pid: int) -> float:
    """Return what a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("a cluster of processes against the yardstick")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--containers", type=counts, default=[32])
    options.add_argument("--actions", type=counts, default=[1, 100])
    chosen = options.parse_args(arguments)
    document = {"sandbox": chosen.sandbox, "seconds": chosen.seconds, "machine": machine()}
    print(f"sandbox {chosen.sandbox}, {chosen.seconds} s each, {document['machine']}")
    results: list[Comparison] = []
    try:
        require_wrk()
        if 1 in chosen.actions:
            for containers in chosen.containers:
                with (
                    folder() as here,
                    folder() as there,
                    Yardstick(here) as yardstick,
                    Cluster(there, chosen.sandbox, 1, containers) as cluster,
                ):
                    results.append(compare(yardstick, cluster, chosen.pairs, chosen.seconds))
                    cluster.print_costs(chosen.seconds)
        for actions in chosen.actions:
            if actions > 1:
                users = max(USERS, 2 * actions)
                with (
                    folder() as here,
                    folder() as there,
                    Cluster(here, chosen.sandbox, 1, actions, users) as one,
                    Cluster(there, chosen.sandbox, actions, actions, users) as many,
                ):
                    results.append(compare(one, many, chosen.pairs, chosen.seconds))
    except (BenchFailed, EtcdMissing, NodeFailed, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["comparisons"] = [result.document() for result in results]
    write_json(chosen.json, document)
    return 1 if any(result.errors() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
