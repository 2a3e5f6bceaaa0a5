"""`acs invoker drain`: an invoker leaves by its name, and nothing fails."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cluster.load import WAITS, Client, Load, check
from cluster.started import started
from waiting import Gate, until

from acs_node import etcd_pb2 as pb
from acs_node.cli import main
from acs_node.cluster import drain as draining
from acs_node.cluster.local import LocalCluster
from acs_node.etcd import Etcd, EtcdConfig, Lease
from acs_node.membership import Member, Membership


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One controller, one scheduler, two invokers."""
    with started(schedulers=1, invokers=2, lease_s=2) as made:
        yield made


def drain(cluster: LocalCluster, name: str, *arguments: str) -> Result:
    endpoint = f"--etcd={cluster.etcd.endpoint}"
    return CliRunner().invoke(main, ["invoker", "drain", name, endpoint, *arguments])


async def test_a_drained_invoker_ends_and_nothing_fails(cluster: LocalCluster) -> None:
    node = cluster.of("invoker")[1]
    folder = Path(tempfile.mkdtemp(dir=cluster.folder))
    users = Load(cluster.url, cluster.auth, folder / "runs")
    await users.deploy()
    shown: list[Result] = []

    def during() -> None:
        served = threading.Event()

        def looks() -> None:
            while not served.is_set() and len(users.answered_s) < 100:
                served.wait(0.02)

        looks()
        shown.append(drain(cluster, node.name))
        before = len(users.answered_s)
        while len(users.answered_s) < before + 50:
            served.wait(0.02)

    await users.run(during)
    assert shown[0].exit_code == 0, shown[0].output
    assert shown[0].output.startswith(f"invoker {node.name} ({node.name}-")
    assert node.ended() == 0
    assert "this invoker is drained" in node.output()
    verdict = await check(users)
    assert (verdict.lost, verdict.twice, verdict.failed, verdict.unknown) == ([], [], [], 0)
    assert set(users.statuses) <= {200, 202}
    assert users.broken == 0
    node.start()  # and is not drained again


async def test_what_runs_may_end_and_who_waits_is_told(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    client = Client(cluster.url, cluster.auth)
    body = {"exec": {"kind": "python:3", "code": WAITS}, "limits": {"memory": 128}}
    assert (await client.request("PUT", "actions/waits?overwrite=true", body))[0] == 200
    go, started = Gate(tmp_path / "go"), tmp_path / "started"
    arguments = {"go": str(go), "started": str(started)}
    status, accepted = await client.request("POST", "actions/waits", arguments)
    assert status == 202
    await until(started.exists, "the run")
    # It runs on one of the two; the other one leaves, or would.
    shown = {
        node: await asyncio.to_thread(drain, cluster, node.name, "--timeout=2")
        for node in cluster.of("invoker")
    }
    codes = sorted(result.exit_code for result in shown.values())
    assert codes == [0, 124]
    busy = next(node for node, result in shown.items() if result.exit_code == 124)
    assert "has not left within 2 s" in shown[busy].output
    assert busy.is_running()
    go.open()
    assert await asyncio.to_thread(busy.ended) == 0
    path = f"activations/{accepted['activationId']}"
    status, record = await client.request("GET", path)
    while status == 404:
        status, record = await client.request("GET", path)
    assert record["response"]["success"]
    client.close()
    for node in cluster.of("invoker"):
        await asyncio.to_thread(node.start)


def test_a_name_that_is_nobodys_is_told(cluster: LocalCluster) -> None:
    # Also where it is how another one's begins.
    shown = drain(cluster, "invoker")
    assert shown.exit_code == 3
    assert "there is no member invoker/invoker" in shown.output


def test_etcd_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acs_node.etcd.CALL_S", 0.2)
    shown = CliRunner().invoke(main, ["invoker", "drain", "i0", "--etcd=127.0.0.1:1"])
    assert shown.exit_code == 4
    assert "etcd at 127.0.0.1:1" in shown.output
    shown = CliRunner().invoke(main, ["invoker", "drain", "i0", "--etcd=nowhere"])
    assert shown.exit_code == 2


async def test_only_the_instance_that_was_meant_leaves(etcd_endpoint: str) -> None:
    etcd = Etcd(EtcdConfig((etcd_endpoint,)))
    cluster = "drain-test"
    left: list[str] = []
    watches = [
        draining.DrainWatch(etcd, cluster, instance, lambda i=instance: left.append(i))  # type: ignore[misc]
        for instance in ("i0-1", "i0-12", "i0-2")
    ]
    for each in watches:
        await each.start()
    lease = await Lease.begin(etcd, 5)
    seen = Membership(etcd, cluster, "test", lambda member: None, lambda member: None)
    await seen.join(Member("invoker", "i0", "i0-1", "a"), lease)
    with pytest.raises(draining.DrainTooLong, match=r"has not left within 0\.2 s"):
        await draining.drain(etcd, cluster, "i0", 0.2)
    await until(lambda: left, "the one that is meant")
    await lease.end()  # it leaves, and the key with it
    assert (await etcd.list(f"{cluster}/drain/"))[0] == []
    assert left == ["i0-1"]
    for each in watches:
        await each.close()
    await etcd.close()


class Leaving(Etcd):
    """An etcd where the invoker leaves after it was found."""

    lease: Lease

    async def transaction(self, *operations: Any) -> pb.TxnResponse:
        answer = await super().transaction(*operations)
        if not operations[0] and not self.lease.lost.done():
            await self.lease.end()
            self.lease.lost.cancel()
        return answer


async def test_one_that_leaves_as_it_is_asked_is_told(etcd_endpoint: str) -> None:
    etcd = Etcd(EtcdConfig((etcd_endpoint,)))
    lease = await Lease.begin(etcd, 5)
    seen = Membership(etcd, "drain-race", "test", lambda member: None, lambda member: None)
    await seen.join(Member("invoker", "i0", "i0-1", "a"), lease)
    leaving = Leaving(EtcdConfig((etcd_endpoint,)))
    leaving.lease = lease
    with pytest.raises(draining.DrainError, match=r"i0 \(i0-1\) has left meanwhile"):
        await draining._ask(leaving, "drain-race", "drain-race/member/invoker/i0")
    await leaving.close()
    await etcd.close()


async def test_a_key_that_is_no_members_is_told(etcd_endpoint: str) -> None:
    etcd = Etcd(EtcdConfig((etcd_endpoint,)))
    await etcd.put("drain-odd/member/invoker/i0", b"{}")
    with pytest.raises(draining.DrainError, match="is no member's"):
        await draining.drain(etcd, "drain-odd", "i0", 1)
    await etcd.close()


def test_what_was_drained_is_not_started_anew_and_what_was_killed_is(
    cluster: LocalCluster,
) -> None:
    stop = threading.Event()
    said: list[str] = []
    told = threading.Condition()

    def say(text: str) -> None:
        with told:
            said.append(text)
            told.notify_all()

    drained, killed = cluster.of("invoker")
    watching = threading.Thread(target=cluster.watch, args=(stop, say))
    watching.start()
    try:
        assert drain(cluster, drained.name).exit_code == 0
        killed.signal(signal.SIGKILL)
        with told:
            assert told.wait_for(lambda: len(said) == 2, 60)
    finally:
        stop.set()
        watching.join()
    assert f"invoker {drained.name} has left" in said
    assert any(f"{killed.name} has ended and is started anew" in text for text in said)
    assert not drained.is_running()
    killed.wait()
