"""An invoker that slept past its lease starts nothing more, and what it has ends by its leash."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.load import CODE, Client
from requirements import missing
from waiting import until

from acs_node.cluster.etcd_process import EtcdMissing
from acs_node.cluster.local import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One node of each role."""
    # Not below tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        made = LocalCluster(Path(folder), schedulers=1, invokers=1, lease_s=2)
        try:
            made.start()
        except EtcdMissing as error:
            missing("etcd", str(error))
        try:
            yield made
        finally:
            made.kill()


def get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as not_ready:
        return json.load(not_ready)


STAYS = """
import os, signal
def main(args):
    with open(args["file"], "w") as file:
        file.write(f"{os.getpid()}\\n")
    signal.pause()
"""


def is_over(pid: int) -> bool:
    """Tell whether the process has ended; nobody reaps it while its host sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_what_runs_at_a_sleeper_ends_by_its_leash(cluster: LocalCluster) -> None:
    """Others have given it up long since; only the invoker could end it, and it does not wake."""
    client = Client(cluster.url, cluster.auth)
    body = {"exec": {"kind": "python:3", "code": STAYS}, "limits": {"timeout": 300_000}}
    assert (await client.request("PUT", "actions/stays", body))[0] == 200
    started = cluster.folder / "started"
    status, accepted = await client.request("POST", "actions/stays", {"file": str(started)})
    assert status == 202
    pid = int(await until(lambda: started.exists() and started.read_text(), "the run", within_s=30))
    (invoker,) = cluster.of("invoker")
    invoker.signal(signal.SIGSTOP)
    await until(lambda: is_over(pid), "the end of the run by its leash", within_s=60)
    status, record = 404, {}
    while status == 404:
        status, record = await client.request("GET", f"activations/{accepted['activationId']}")
    # Its scheduler or its controller says so, whoever is first.
    error = record["response"]["result"]["error"]
    assert re.search("(not known|unknown) whether the (action|activation) ran", error), error
    invoker.signal(signal.SIGCONT)
    await until(lambda: not invoker.is_running(), "its end", within_s=60)
    client.close()


async def test_what_others_may_not_count_is_said_to_be_an_orphan(cluster: LocalCluster) -> None:
    client = Client(cluster.url, cluster.auth)
    body = {"exec": {"kind": "python:3", "code": CODE}, "limits": {"memory": 128, "logs": 0}}
    assert (await client.request("PUT", "actions/act", body))[0] == 200
    arguments = {"log": str(cluster.folder / "runs"), "n": 1, "ms": 0}
    assert (await client.request("POST", "actions/act?blocking=true", arguments))[0] == 200
    (invoker,) = cluster.of("invoker")

    def orphans() -> int:
        count = get(f"{invoker.health}/health/ready")["orphans"]
        assert isinstance(count, int)
        return count

    assert orphans() == 0
    os.kill(cluster.etcd.pid, signal.SIGSTOP)
    await until(lambda: orphans() == 1, "doubt about its lease", within_s=30)
    client.close()


async def test_what_was_delivered_to_a_sleeper_is_not_started(cluster: LocalCluster) -> None:
    log = cluster.folder / "runs"
    client = Client(cluster.url, cluster.auth)
    body = {"exec": {"kind": "python:3", "code": CODE}, "limits": {"memory": 128, "logs": 0}}
    assert (await client.request("PUT", "actions/act", body))[0] == 200
    arguments = {"log": str(log), "n": 1, "ms": 0}
    assert (await client.request("POST", "actions/act?blocking=true", arguments))[0] == 200
    assert len(log.read_text().splitlines()) == 1

    (invoker,) = cluster.of("invoker")

    def pulled() -> bool:
        links = get(f"{invoker.health}/health/ready")["links"]
        return not any(link["unconfirmed"] for link in links.values())

    await until(pulled, "its offer of the next slot", within_s=30)
    invoker.signal(signal.SIGSTOP)
    # Its warm container has a free slot: this is on its way to it at once.
    status, accepted = await client.request("POST", "actions/act", arguments)
    assert status == 202

    await until(lambda: not get(f"{cluster.url}/invokers"), "the end of its lease", within_s=30)
    path = f"activations/{accepted['activationId']}"
    status, record = await client.request("GET", path)
    while status == 404:
        status, record = await client.request("GET", path)
    assert "unknown whether" in record["response"]["result"]["error"]

    invoker.signal(signal.SIGCONT)
    await until(lambda: not invoker.is_running(), "its end", within_s=60)
    assert "without a lease others take over" in invoker.output()
    assert len(log.read_text().splitlines()) == 1, "it was started although others had given it up"
    client.close()
