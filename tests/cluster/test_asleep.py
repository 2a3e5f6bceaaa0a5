"""An invoker that slept past its lease starts nothing of what was delivered meanwhile."""

from __future__ import annotations

import json
import signal
import tempfile
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
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


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
