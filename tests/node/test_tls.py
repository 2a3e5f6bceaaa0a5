"""Links with TLS: the role is in the certificate, and nobody gets further than that says."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from requirements import missing
from waiting import until

from acs_node import acs_pb2 as pb
from acs_node import certificates, grpc_link
from acs_node.certificates import Pair
from acs_node.cluster.etcd_process import EtcdMissing, EtcdProcess, TlsFiles
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, Lease
from acs_node.grpc_link import METHOD, GrpcLink, LinkServer, Peer
from acs_node.links import Cancel
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
        self.links: list[GrpcLink] = []
        self.got: list[Any] = []
        self.port = 0

    def accept(self, peer: Peer) -> GrpcLink:
        self.links.append(GrpcLink(peer, self.got.append))
        return self.links[-1]


@asynccontextmanager
async def listening(tls: LinkTls | None) -> AsyncIterator[Listening]:
    there = Listening()
    server = LinkServer(SERVER, there.accept, tls)
    there.port = await server.listen("127.0.0.1:0")
    try:
        yield there
    finally:
        for link in there.links:
            await link.close()
        await server.close()


@asynccontextmanager
async def dialling(
    there: Listening, me: Peer, tls: LinkTls | None, to: Peer = SERVER
) -> AsyncIterator[GrpcLink]:
    link = GrpcLink(to, print)
    link.dial(me, f"127.0.0.1:{there.port}", tls)
    try:
        yield link
    finally:
        await link.close()


async def test_nodes_with_certificates_of_one_authority_speak(authority: Pair) -> None:
    async with (
        listening(tls_of(authority, "invoker", "i0")) as there,
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
    authority: Pair, role: str, name: str, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        listening(tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, tls_of(authority, role, name, cluster)) as link,
    ):
        link.send(Cancel("1"))
        says = f"its certificate is of {node_domain(cluster, role, name)}"
        await until(lambda: says in caplog.text, "the refusal")
        assert (there.links, there.got, link.up) == ([], [], False)
    assert "FAILED_PRECONDITION: hello says controller c0 (c0-1)" in caplog.text


@pytest.mark.parametrize(
    ("role", "name", "cluster"),
    [
        ("controller", "i0", CLUSTER),
        ("invoker", "i1", CLUSTER),
        ("invoker", "i0", "other"),
    ],
)
async def test_who_dials_sees_that_the_other_side_is_another_node(
    authority: Pair, role: str, name: str, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        listening(tls_of(authority, role, name, cluster)) as there,
        dialling(there, CLIENT, tls_of(authority, "controller", "c0")) as link,
    ):
        link.send(Cancel("1"))
        await until(lambda: "is down: UNAVAILABLE" in caplog.text, "the refusal")
        assert (there.links, there.got, link.up) == ([], [], False)


async def test_a_certificate_of_another_authority_gets_no_stream(
    authority: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stranger = tls_of(certificates.make_authority(CLUSTER, 1), "controller", "c0")
    # Even one that believes in our servers.
    stranger = LinkTls(CLUSTER, authority.certificate, stranger.certificate, stranger.key)
    async with (
        listening(tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, stranger) as link,
    ):
        await until(lambda: "is down: UNAVAILABLE" in caplog.text, "the refusal")
        assert (there.links, link.up) == ([], False)


@pytest.mark.parametrize("listens_with_tls", [True, False])
async def test_a_side_without_tls_does_not_speak_with_one_that_has_it(
    authority: Pair, listens_with_tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = tls_of(authority, "invoker", "i0")
    client = tls_of(authority, "controller", "c0")
    async with (
        listening(server if listens_with_tls else None) as there,
        dialling(there, CLIENT, None if listens_with_tls else client) as link,
    ):
        await until(lambda: "is down: UNAVAILABLE" in caplog.text, "the refusal")
        assert (there.links, link.up) == ([], False)


async def test_a_peer_whose_name_no_certificate_can_have_is_not_dialled(
    authority: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    capital = Peer(pb.INVOKER, "I0", "i0-1")
    async with (
        listening(tls_of(authority, "invoker", "i0")) as there,
        dialling(there, CLIENT, tls_of(authority, "controller", "c0"), capital) as link,
    ):
        await until(lambda: "name is 'I0'; with TLS it must be" in caplog.text, "the reason")
        assert (there.links, link.up) == ([], False)


async def test_a_hello_with_a_name_that_no_certificate_can_have_is_refused(
    authority: Pair,
) -> None:
    async with listening(tls_of(authority, "invoker", "i0")) as there:
        tls = tls_of(authority, "controller", "c0")
        options = tls.expecting("invoker", "i0")
        credentials = tls.channel_credentials()
        target = f"127.0.0.1:{there.port}"
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            call = channel.stream_stream(METHOD, pb.Frame.SerializeToString, pb.Frame.FromString)()
            await call.write(GrpcLink(SERVER, print).hello(Peer(pb.CONTROLLER, "C0", "c0-1")))
            with pytest.raises(grpc.aio.AioRpcError, match="hello says controller C0"):
                await call.read()


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


async def ends_with(there: Listening, frame: bytes) -> tuple[grpc.StatusCode, str]:
    """Send a frame after the greetings and return how the stream ended."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{there.port}") as channel:
        call = channel.stream_stream(METHOD, lambda raw: raw, pb.Frame.FromString)()
        await call.write(GrpcLink(SERVER, print).hello(CLIENT).SerializeToString())
        await call.read()
        await call.write(frame)
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code(), str(error.details())
        return await call.code(), await call.details()


async def test_a_frame_with_too_many_messages_ends_the_stream() -> None:
    messages = [pb.Message()] * (grpc_link.FRAME_MESSAGES_MAX + 1)
    async with listening(None) as there:
        frame = pb.Frame(first=1, messages=messages).SerializeToString()
        code, says = await ends_with(there, frame)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert says == "a frame has 513 messages (allowed: 512)"
        assert there.got == []


async def test_a_frame_with_too_many_bytes_ends_the_stream() -> None:
    most = grpc_link.FRAME_RECEIVED_BYTES_MAX
    async with listening(None) as there:
        code, says = await ends_with(there, bytes(most + 1))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"larger than max ({most + 1} vs. {most})" in says
        assert there.got == []
