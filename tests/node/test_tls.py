"""Links with TLS: the role is in the certificate, and nobody gets further than that says."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from node.transports import FRAMES, GRPC, Transport
from requirements import missing
from waiting import until

from acs_node import acs_pb2 as pb
from acs_node import certificates, peer_link
from acs_node.certificates import Pair
from acs_node.cluster.etcd_process import EtcdMissing, EtcdProcess, TlsFiles
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, Lease
from acs_node.links import Cancel
from acs_node.peer_link import LinkBroken, Peer, PeerLink, Reception
from acs_node.tls import LinkTls, node_domain

CLUSTER = "test"
SERVER = Peer(pb.INVOKER, "i0", "i0-1")
CLIENT = Peer(pb.CONTROLLER, "c0", "c0-1")


@pytest.fixture(scope="module")
def authority() -> Pair:
    return certificates.make_authority(CLUSTER, 1)


def tls_of(authority: Pair, role: str, name: str, cluster: str = CLUSTER) -> LinkTls:
    pair = certificates.make_node(authority, cluster, role, name, 1)
    return LinkTls(CLUSTER, authority.certificate, pair.certificate, pair.key)


class Listening:
    """An invoker that takes whatever link it is asked for, and what came."""

    def __init__(self) -> None:
        self.links: list[PeerLink] = []
        self.got: list[Any] = []
        self.port = 0
        self.transport = GRPC

    def accept(self, peer: Peer) -> PeerLink:
        self.links.append(PeerLink(peer, self.got.append))
        return self.links[-1]


@asynccontextmanager
async def listening(transport: Transport, tls: LinkTls | None) -> AsyncIterator[Listening]:
    there = Listening()
    there.transport = transport
    server, there.port = await transport.listen(Reception(SERVER, there.accept, tls))
    try:
        yield there
    finally:
        for link in there.links:
            await link.close()
        await server.close()


@asynccontextmanager
async def dialling(
    there: Listening, me: Peer, tls: LinkTls | None, to: Peer = SERVER
) -> AsyncIterator[PeerLink]:
    link = PeerLink(to, print)
    link.dial(me, there.transport.dialler(to, there.port, tls))
    try:
        yield link
    finally:
        await link.close()


async def test_nodes_with_certificates_of_one_authority_speak(
    transport: Transport, authority: Pair
) -> None:
    async with (
        listening(transport, tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, tls_of(authority, "controller", "c0")) as link,
    ):
        link.send(Cancel("1"))
        await until(lambda: there.got, "the message")
        assert there.links[0].peer == CLIENT


@pytest.mark.parametrize(
    ("role", "name", "cluster"),
    [
        ("invoker", "i1", CLUSTER),  # an invoker cannot act as a controller
        ("controller", "c1", CLUSTER),  # nor one controller as another
        ("controller", "c0", "other"),
        ("scheduler", "c0", CLUSTER),
    ],
)
async def test_a_hello_that_says_other_than_its_certificate_is_refused(
    transport: Transport,
    authority: Pair,
    role: str,
    name: str,
    cluster: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        listening(transport, tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, tls_of(authority, role, name, cluster)) as link,
    ):
        link.send(Cancel("1"))
        says = f"its certificate is of {node_domain(cluster, role, name)}"
        await until(lambda: says in caplog.text, "the refusal")
        assert (there.links, there.got, link.up) == ([], [], False)
    assert "hello says controller c0 (c0-1)" in caplog.text


@pytest.mark.parametrize(
    ("role", "name", "cluster"),
    [
        ("controller", "i0", CLUSTER),
        ("invoker", "i1", CLUSTER),
        ("invoker", "i0", "other"),
    ],
)
async def test_who_dials_sees_that_the_other_side_is_another_node(
    transport: Transport,
    authority: Pair,
    role: str,
    name: str,
    cluster: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        listening(transport, tls_of(authority, role, name, cluster)) as there,
        dialling(there, CLIENT, tls_of(authority, "controller", "c0")) as link,
    ):
        link.send(Cancel("1"))
        await until(lambda: "is down: " in caplog.text, "the refusal")
        assert (there.links, there.got, link.up) == ([], [], False)


async def test_a_certificate_of_another_authority_gets_no_stream(
    transport: Transport, authority: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stranger = tls_of(certificates.make_authority(CLUSTER, 1), "controller", "c0")
    # Even one that believes in our servers.
    stranger = LinkTls(CLUSTER, authority.certificate, stranger.certificate, stranger.key)
    async with (
        listening(transport, tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, stranger) as link,
    ):
        await until(lambda: "is down: " in caplog.text, "the refusal")
        assert (there.links, link.up) == ([], False)


@pytest.mark.parametrize("listens_with_tls", [True, False])
async def test_a_side_without_tls_does_not_speak_with_one_that_has_it(
    transport: Transport, authority: Pair, listens_with_tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = tls_of(authority, "invoker", "i0")
    client = tls_of(authority, "controller", "c0")
    async with (
        listening(transport, server if listens_with_tls else None) as there,
        dialling(there, CLIENT, None if listens_with_tls else client) as link,
    ):
        await until(lambda: "is down: " in caplog.text, "the refusal")
        assert (there.links, link.up) == ([], False)


async def test_a_peer_whose_name_no_certificate_can_have_is_not_dialled(
    transport: Transport, authority: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    capital = Peer(pb.INVOKER, "I0", "i0-1")
    async with (
        listening(transport, tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, tls_of(authority, "controller", "c0"), capital) as link,
    ):
        says = "name is 'I0'; with TLS it must be"
        if transport is FRAMES:
            says = "its certificate is of i0.invoker.test.acs.internal"
        await until(lambda: says in caplog.text, "the reason")
        assert (there.links, link.up) == ([], False)


async def test_a_hello_with_a_name_that_no_certificate_can_have_is_refused(
    transport: Transport,
    authority: Pair,
) -> None:
    async with listening(transport, tls_of(authority, "invoker", "i0")) as there:
        tls = tls_of(authority, "controller", "c0")
        async with transport.dialler(SERVER, there.port, tls).connect() as stream:
            hello = PeerLink(SERVER, print).hello(Peer(pb.CONTROLLER, "C0", "c0-1"))
            await stream.write(hello.SerializeToString())
            with pytest.raises(LinkBroken, match="hello says controller C0"):
                await stream.read()


@pytest.mark.parametrize(
    ("cluster", "name", "says"),
    [
        ("a.b", "i0", "cluster is 'a.b'"),
        ("A", "i0", "cluster is 'A'"),
        ("", "i0", "cluster is ''"),
        ("a", "I0", "name is 'I0'"),
        ("a", ".i", "name is '.i'"),
        ("a", "i.", "name is 'i.'"),
        ("a", "*", "name is '\\*'"),
        ("a", "", "name is ''"),
        ("a", "x" * 65, "with TLS it must be 1..64"),
    ],
)
def test_names_that_dns_reads_in_two_ways_are_refused(cluster: str, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        node_domain(cluster, "invoker", name)


def test_no_two_nodes_have_one_domain() -> None:
    names = ("a", "a.invoker", "a.b", "a-b", "a_b", "x" * 64)
    roles = ("controller", "scheduler", "invoker")
    clusters = ("a", "invoker", "b")
    made = [node_domain(c, r, n) for c in clusters for r in roles for n in names]
    assert len(set(made)) == len(made)


def test_keys_are_not_in_what_is_printed(authority: Pair) -> None:
    tls = tls_of(authority, "invoker", "i0")
    config = EtcdConfig(password="hunter2", key=authority.key)
    for shown in (repr(tls), repr(authority), repr(config)):
        assert "PRIVATE" not in shown
        assert "hunter2" not in shown


# --- etcd ---------------------------------------------------------------------------------------


@pytest.fixture
def secured(authority: Pair, tmp_path: Path) -> Iterator[EtcdProcess]:
    """An etcd that asks for certificates."""
    certificates.write_pair(tmp_path, "ca", authority)
    pair = certificates.make_server(authority, ["127.0.0.1", "localhost"], 1)
    certificate, key = certificates.write_pair(tmp_path, "etcd", pair)
    etcd = EtcdProcess(tmp_path / "etcd", TlsFiles(tmp_path / "ca.pem", certificate, key))
    try:
        etcd.start()
    except EtcdMissing as error:
        missing("etcd", str(error))
    yield etcd
    etcd.kill()


async def test_etcd_is_spoken_to_with_a_nodes_certificate(
    secured: EtcdProcess, authority: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = certificates.make_node(authority, CLUSTER, "scheduler", "s0", 1)
    known = EtcdConfig(
        (secured.endpoint,), ca=authority.certificate, certificate=pair.certificate, key=pair.key
    )
    client = Etcd(known)
    lease = await Lease.begin(client, 5)
    await client.put("x", b"1", lease.id)
    assert (await client.list("x"))[0][0].value == b"1"
    await lease.end()
    await client.close()

    monkeypatch.setattr("acs_node.etcd.CALL_S", 0.5)
    for stranger in (
        EtcdConfig((secured.endpoint,)),  # without TLS
        EtcdConfig((secured.endpoint,), ca=authority.certificate),  # without a certificate
    ):
        client = Etcd(stranger)
        with pytest.raises(EtcdError):
            await client.list("x")
        await client.close()


async def test_an_etcd_of_another_authority_is_not_believed(
    secured: EtcdProcess, authority: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acs_node.etcd.CALL_S", 0.5)
    other = certificates.make_authority(CLUSTER, 1)
    pair = certificates.make_node(authority, CLUSTER, "scheduler", "s0", 1)
    client = Etcd(
        EtcdConfig(
            (secured.endpoint,), ca=other.certificate, certificate=pair.certificate, key=pair.key
        )
    )
    with pytest.raises(EtcdError):
        await client.list("x")
    await client.close()


# --- sizes --------------------------------------------------------------------------------------


async def ends_with(there: Listening, frame: bytes) -> str:
    """Send a frame after the greetings and return why the stream ended."""
    async with there.transport.dialler(SERVER, there.port).connect() as stream:
        await stream.write(PeerLink(SERVER, print).hello(CLIENT).SerializeToString())
        await stream.read()
        try:
            await stream.write(frame)
            while await stream.read() is not None:
                pass
        except LinkBroken as error:
            return str(error)
    return "nothing was said"


async def test_a_frame_with_too_many_messages_ends_the_stream(transport: Transport) -> None:
    messages = [pb.Message()] * (peer_link.FRAME_MESSAGES_MAX + 1)
    async with listening(transport, None) as there:
        frame = pb.Frame(first=1, messages=messages).SerializeToString()
        assert "a frame has 513 messages (allowed: 512)" in await ends_with(there, frame)
        assert there.got == []


async def test_a_frame_with_too_many_bytes_ends_the_stream() -> None:
    most = peer_link.FRAME_RECEIVED_BYTES_MAX
    async with listening(GRPC, None) as there:
        says = await ends_with(there, bytes(most + 1))
        assert f"larger than max ({most + 1} vs. {most})" in says
        assert there.got == []
