"""Frames over plain sockets: their bounds, and how the other side hears why a stream ends."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from waiting import until

from acs_node import acs_pb2 as pb
from acs_node import certificates, frame_link
from acs_node.frame_link import HELLO_BYTES_MAX, LENGTH_BYTES, FrameServer
from acs_node.peer_link import (
    FRAME_RECEIVED_BYTES_MAX,
    LinkBroken,
    Peer,
    PeerLink,
    Reception,
    Stream,
)
from acs_node.tls import LinkTls

SERVER = Peer(pb.SCHEDULER, "s0", "s0-1")
HELLO = pb.Frame(
    hello=pb.Hello(
        protocol=1, role=pb.CONTROLLER, name="c0", instance="c0-1", to_instance="s0-1", clock="x"
    )
).SerializeToString()


@asynccontextmanager
async def server() -> AsyncIterator[tuple[FrameServer, int]]:
    made = FrameServer(Reception(SERVER, lambda peer: PeerLink(peer, print)))
    port = await made.listen("127.0.0.1:0")
    try:
        yield made, port
    finally:
        await made.close()


@asynccontextmanager
async def greeted(port: int) -> AsyncIterator[Stream]:
    """Return a stream whose greetings are over."""
    async with frame_link.dialler(SERVER, f"127.0.0.1:{port}").connect() as stream:
        await stream.write(HELLO)
        assert await stream.read() is not None
        yield stream


async def reason(said: bytes, *, closing: bool = False) -> str:
    """Say these bytes to a server and return why it ends the stream; empty if it says nothing."""
    async with server() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        if closing:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
    size = int.from_bytes(answer[:LENGTH_BYTES])
    assert len(answer) == (LENGTH_BYTES + size if answer else 0)
    return str(pb.Frame.FromString(answer[LENGTH_BYTES:]).refusal.reason)


async def test_before_its_greeting_nobody_makes_us_keep_much() -> None:
    says = await reason((HELLO_BYTES_MAX + 1).to_bytes(LENGTH_BYTES))
    assert says == "a frame has 4097 bytes (allowed: 4096)"


@pytest.mark.parametrize("said", [b"\0", b"\0\0\0\7", b"\0\0\0\7hello"])
async def test_a_connection_that_ends_within_a_frame_is_no_good_end(said: bytes) -> None:
    assert await reason(said, closing=True) == "the connection ended within a frame"


async def test_who_only_connects_and_goes_is_told_nothing() -> None:
    assert await reason(b"", closing=True) == ""


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acs_node.peer_link.HELLO_S", 0.05)
    assert await reason(b"") == "no hello within 0.05 s"


async def test_where_nobody_listens_is_said() -> None:
    async with server() as (_, port):
        pass
    with pytest.raises(LinkBroken, match=r"refused|Connect call failed"):
        async with frame_link.dialler(SERVER, f"127.0.0.1:{port}").connect():
            pass


async def test_one_who_does_not_shake_hands_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_link, "HELLO_S", 0.05)
    authority = certificates.make_authority("test", 1)
    pair = certificates.make_node(authority, "test", "controller", "c0", 1)
    tls = LinkTls("test", authority.certificate, pair.certificate, pair.key)
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    with pytest.raises(LinkBroken, match=r"no connection within 0\.05 s"):
        async with frame_link.dialler(SERVER, address, tls).connect():
            pass
    silent.close()


async def test_a_server_that_closes_ends_its_streams() -> None:
    async with server() as (made, port), greeted(port) as stream:
        await made.close()
        assert await stream.read() is None


async def test_a_frame_with_too_many_bytes_ends_the_stream() -> None:
    async with server() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for frame in (HELLO, b""):
            size = len(frame) or FRAME_RECEIVED_BYTES_MAX + 1
            writer.write(size.to_bytes(LENGTH_BYTES) + frame)
        answers = await reader.read()
        writer.close()
    assert b"a frame has 85000193 bytes (allowed: 85000192)" in answers


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_link, "STREAMS_MAX", 1)
    async with server() as (_, port), greeted(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()


async def test_a_peer_that_resets_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with server() as (made, port):
        for _ in range(20):
            reset = socket.create_connection(("127.0.0.1", port))
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.close()
        async with greeted(port):  # it came after them
            pass
        await until(lambda: not made._serving, "the end of all")
    assert caplog.text == ""


async def test_an_address_without_meaning_is_said() -> None:
    with pytest.raises(LinkBroken, match="the address has no meaning"):
        async with frame_link.dialler(SERVER, "nowhere").connect():
            pass


async def test_what_is_written_to_one_who_has_gone_is_a_broken_stream() -> None:
    gone = asyncio.Event()

    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        gone.set()

    listener = await asyncio.start_server(leave, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]

    async def write() -> None:
        async with frame_link.dialler(SERVER, f"127.0.0.1:{port}").connect() as stream:
            await gone.wait()
            while True:
                await stream.write(bytes(100_000))
                await asyncio.sleep(0)

    with pytest.raises(LinkBroken):
        await write()
    listener.close()
