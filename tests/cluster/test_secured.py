"""Who gets a link: members of the cluster, and with TLS those who prove what they say they are."""

from __future__ import annotations

import json
import logging
import stat
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from cluster.load import Client
from cluster.started import started
from waiting import eventually, until

from acs_node import acs_pb2 as pb
from acs_node import frame_link, grpc_link
from acs_node.cluster.local import LocalCluster
from acs_node.etcd import Etcd, EtcdConfig, Lease
from acs_node.membership import Member, Membership
from acs_node.peer_link import Peer, PeerLink
from acs_node.tls import LinkTls


@pytest.fixture(scope="module", params=["grpc", "grpc-tls", "frames", "frames-tls"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """One node of each role."""
    links, _, tls = request.param.partition("-")
    with started(schedulers=1, invokers=1, links=links, tls=bool(tls)) as made:
        yield made


def files_of(cluster: LocalCluster, name: str) -> tuple[bytes, bytes, bytes] | None:
    """Return authority, certificate and key of a node; None without TLS."""
    folder = cluster.folder / "certificates"
    if not folder.exists():
        return None
    return tuple((folder / f).read_bytes() for f in ("ca.pem", f"{name}.pem", f"{name}.key"))  # type: ignore[return-value]


@asynccontextmanager
async def etcd_of(cluster: LocalCluster) -> AsyncIterator[Etcd]:
    ca, certificate, key = files_of(cluster, "scheduler-scheduler0") or (None, None, None)
    etcd = Etcd(EtcdConfig((cluster.etcd.endpoint,), ca=ca, certificate=certificate, key=key))
    yield etcd
    await etcd.close()


async def member(etcd: Etcd, role: str) -> Member:
    seen = Membership(etcd, "acs", "a-test", lambda member: None, lambda member: None)
    await seen.start()
    (found,) = seen.members(role)
    await seen.close()
    return found


def tls_of(cluster: LocalCluster, name: str) -> LinkTls | None:
    files = files_of(cluster, name)
    return None if files is None else LinkTls("acs", *files)


async def dialled(cluster: LocalCluster, me: Peer, as_: str) -> str:
    """Dial the invoker as ``me``, with the certificate of ``as_``; return what came of it."""
    said = Said()
    logging.getLogger("acs_node.peer_link").addHandler(said)
    async with etcd_of(cluster) as etcd:
        invoker = await member(etcd, "invoker")
    peer = Peer(pb.INVOKER, invoker.name, invoker.instance)
    link = PeerLink(peer, print)
    tls = tls_of(cluster, as_)
    try:
        if invoker.frames_address:
            link.dial(me, frame_link.dialler(peer, invoker.frames_address, tls))
        else:
            link.dial(me, grpc_link.dialler(peer, invoker.address, tls))
        await until(lambda: link.up or said.lines, "an answer")
        return "up" if link.up else said.lines[0]
    finally:
        logging.getLogger("acs_node.peer_link").removeHandler(said)
        await link.close()


class Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_invocations_work(cluster: LocalCluster) -> None:
    client = Client(cluster.url, cluster.auth)
    body = {
        "exec": {"kind": "python:3", "code": "def main(args):\n    return {'sum': args['a'] + 1}"},
        "limits": {"memory": 128},
    }
    assert (await client.request("PUT", "actions/add?overwrite=true", body))[0] == 200
    status, answer = await client.request("POST", "actions/add?blocking=true", {"a": 1})
    assert (status, answer["response"]["result"]) == (200, {"sum": 2})
    client.close()
    for node in cluster.nodes:
        with urllib.request.urlopen(f"{node.health}/health/ready", timeout=5) as answer:
            links = json.load(answer)["links"]
        assert len(links) == 2
        assert all(link["up"] for link in links.values())


async def test_a_node_that_has_no_frames_is_spoken_to_over_grpc() -> None:
    with started(schedulers=1, invokers=1, links="frames") as cluster:
        (scheduler,) = cluster.of("scheduler")
        scheduler.set("links", "grpc")
        assert scheduler.stop() == 0
        scheduler.start()  # the controller dials it, and it dials the invoker
        await test_invocations_work(cluster)


async def test_a_stranger_gets_no_link(cluster: LocalCluster) -> None:
    stranger = Peer(pb.CONTROLLER, "controller0", "controller0-made-up")
    says = await dialled(cluster, stranger, "controller-controller0")
    assert "controller controller0 (controller0-made-up) is no member of the cluster acs" in says


async def test_the_name_of_a_member_is_not_enough(cluster: LocalCluster) -> None:
    async with etcd_of(cluster) as etcd:
        scheduler = await member(etcd, "scheduler")
    # Its instance, under another role.
    says = await dialled(
        cluster, Peer(pb.CONTROLLER, "scheduler0", scheduler.instance), "scheduler-scheduler0"
    )
    assert "is no member" in says or "its certificate is of scheduler0.scheduler" in says


async def test_who_has_announced_itself_needs_its_own_certificate(cluster: LocalCluster) -> None:
    me = Peer(pb.CONTROLLER, "controller9", "controller9-1")
    async with etcd_of(cluster) as etcd:
        lease = await Lease.begin(etcd, 20)
        seen = Membership(etcd, "acs", "a-test", lambda member: None, lambda member: None)
        await seen.announce(Member("controller", me.name, me.instance, "127.0.0.1:1"), lease)

        async def told() -> str | None:  # the invoker is, in its own time
            answer = await dialled(cluster, me, "invoker-invoker0")
            return None if "is no member" in answer else answer

        says = await eventually(told, "an answer that is for a member", 30)
        await lease.end()
    if files_of(cluster, "invoker-invoker0") is None:
        assert says == "up"  # without TLS a node is believed: docs/protocol.md
    else:
        assert "its certificate is of invoker0.invoker.acs.acs.internal" in says


def test_keys_of_a_cluster_on_this_machine_are_its_owners_alone(cluster: LocalCluster) -> None:
    keys = list((cluster.folder / "certificates").glob("*.key"))
    if files_of(cluster, "ca") is not None:
        assert len(keys) == 5
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
