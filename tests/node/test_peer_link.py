"""Links between processes: order, batches, cuts, silence, floods, and who is refused."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from node.transports import GRPC, Transport
from waiting import WAIT_S, until

from acs_core.effects import Deliver
from acs_core.events import Activation
from acs_node import acs_pb2 as pb
from acs_node import clock, peer_link, wire
from acs_node.grpc_link import GrpcServer
from acs_node.links import Cancel, QueueClosed
from acs_node.peer_link import (
    Disowned,
    LinkBroken,
    LinkFull,
    Peer,
    PeerLink,
    Reception,
    Refused,
)

SERVER = Peer(pb.SCHEDULER, "s0", "s0-1")
CLIENT = Peer(pb.CONTROLLER, "c0", "c0-1")


class Proxy:
    """A TCP proxy that can cut what runs through it, or stop reading."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: list[asyncio.StreamWriter] = []
        self._go = asyncio.Event()
        self._go.set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._pairs += [writer, far_writer]
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._go.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        for writer in self._pairs:
            writer.transport.abort()
        self._pairs.clear()

    def stall(self, stalled: bool) -> None:
        (self._go.clear if stalled else self._go.set)()

    async def close(self) -> None:
        self._go.set()
        self.cut()
        self._server.close()


class Pair:
    """Two ends of a link and what each has received."""

    def __init__(self) -> None:
        self.at_server: list[Any] = []
        self.at_client: list[Any] = []
        self.accepted: list[PeerLink] = []
        self.states: list[bool] = []
        self.on_server: Callable[[Any], None] = self.at_server.append

    @property
    def far(self) -> PeerLink:
        return self.accepted[0]


@asynccontextmanager
async def linked(
    transport: Transport, pair: Pair | None = None
) -> AsyncIterator[tuple[Pair, PeerLink, Proxy]]:
    pair = pair or Pair()

    def accept(peer: Peer) -> PeerLink:
        if not pair.accepted:
            pair.accepted.append(PeerLink(peer, lambda m: pair.on_server(m)))
        if peer != pair.far.peer:
            raise Refused(f"{peer} is not expected")
        return pair.far

    server, port = await transport.listen(Reception(SERVER, accept))
    proxy = Proxy(port)
    await proxy.start()
    near = PeerLink(SERVER, pair.at_client.append, lambda link: pair.states.append(link.up))
    near.dial(CLIENT, transport.dialler(SERVER, proxy.port))
    try:
        await until(lambda: near.up, "the link")
        yield pair, near, proxy
    finally:
        await near.close()
        for link in pair.accepted:
            await link.close()
        await server.close()
        await proxy.close()


def frames_taken(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list in which each frame of cancellations has their numbers, as it comes."""
    frames: list[list[int]] = []
    take = PeerLink._take

    def seen(self: PeerLink, frame: pb.Frame) -> None:
        if frame.messages:
            frames.append([int(message.cancel.activation_id) for message in frame.messages])
        take(self, frame)

    monkeypatch.setattr(PeerLink, "_take", seen)
    return frames


def numbers(messages: list[Any]) -> list[int]:
    return [int(message.activation_id) for message in messages]


async def test_messages_arrive_in_order_both_ways(transport: Transport) -> None:
    async with linked(transport) as (pair, near, _):
        for n in range(2_000):
            near.send(Cancel(str(n)))
            pair.far.send(QueueClosed(f"q{n}"))
        await until(lambda: len(pair.at_server) == len(pair.at_client) == 2_000, "all messages")
        assert numbers(pair.at_server) == list(range(2_000))
        assert [m.queue for m in pair.at_client] == [f"q{n}" for n in range(2_000)]
        await until(lambda: not near.unconfirmed() + pair.far.unconfirmed(), "confirmations")


async def test_what_is_sent_in_one_turn_goes_out_as_one_frame(
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = frames_taken(monkeypatch)
    async with linked(transport) as (pair, near, _):
        for n in range(300):
            near.send(Cancel(str(n)))
        await until(lambda: len(pair.at_server) == 300, "all messages")
    assert frames == [[*range(300)]]


@pytest.mark.parametrize("confirms", [True, False])
async def test_what_is_sent_while_a_frame_is_on_its_way_goes_out_as_one_frame(
    monkeypatch: pytest.MonkeyPatch, confirms: bool
) -> None:
    monkeypatch.setattr(peer_link, "HEARTBEAT_S", 3_600)
    monkeypatch.setattr(peer_link, "WAIT_S", 3_600 if confirms else 0.01)
    frames = frames_taken(monkeypatch)
    next_frame = PeerLink._next_frame

    def mute(self: PeerLink) -> bytes | None:
        return None if self is pair.far and not confirms else next_frame(self)

    async with linked(GRPC) as (pair, near, proxy):
        monkeypatch.setattr(PeerLink, "_next_frame", mute)
        if confirms:
            proxy.stall(True)
        near.send(Cancel("0"))
        await until(lambda: near._written, "the first frame")
        for n in range(1, 300):
            near.send(Cancel(str(n)))
            if n % 100 == 0:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        if confirms:
            assert len(near.unwritten()) == 299
            proxy.stall(False)
        await until(lambda: len(pair.at_server) == 300, "all messages")
        assert [n for frame in frames for n in frame] == [*range(300)]
        assert not confirms or frames[1] == [*range(1, 300)]


async def test_a_full_frame_waits_for_no_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_link, "WAIT_S", 3_600)
    monkeypatch.setattr(peer_link, "FRAME_MESSAGES_MAX", 10)
    async with linked(GRPC) as (_, near, proxy):
        proxy.stall(True)
        near.send(Cancel("0"))
        await until(lambda: near._written == 1, "the first frame")
        for n in range(1, 20):
            near.send(Cancel(str(n)))
        await until(lambda: near._written == 11, "the second one")
        assert numbers(near.unwritten()) == [*range(11, 20)]
        proxy.stall(False)


async def test_nothing_is_lost_or_doubled_or_moved_when_streams_are_cut(
    transport: Transport,
) -> None:
    async with linked(transport) as (pair, near, proxy):
        for n in range(3_000):
            near.send(Cancel(str(n)))
            pair.far.send(Cancel(str(n)))
            if n % 300 == 299:
                await until(lambda: bool(pair.at_server), "something to arrive")
                proxy.cut()
        await until(lambda: len(pair.at_server) >= 3_000 <= len(pair.at_client), "all messages")
        assert numbers(pair.at_server) == numbers(pair.at_client) == list(range(3_000))
        assert False in pair.states


async def test_a_silent_peer_is_dialled_anew(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(peer_link, "SILENCE_S", 0.1)
    async with linked(transport) as (pair, near, proxy):
        proxy.stall(True)
        near.send(Cancel("1"))
        await until(lambda: False in pair.states, "the silence to be noticed")
        proxy.stall(False)
        await until(lambda: pair.at_server, "the message")
        assert numbers(pair.at_server) == [1]


async def test_heart_beats_keep_an_idle_link(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(peer_link, "SILENCE_S", 0.2)
    beats = 0
    take = PeerLink._take

    def counted(self: PeerLink, frame: pb.Frame) -> None:
        nonlocal beats
        beats += not frame.messages
        take(self, frame)

    monkeypatch.setattr(PeerLink, "_take", counted)
    async with linked(transport) as (pair, near, _):
        await until(lambda: beats > 100, "heart-beats over more than the silence")
        assert near.up
        assert pair.states == [True]


async def test_a_peer_that_does_not_read_costs_a_bounded_memory(
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_link, "OUTBOX_MESSAGES_MAX", 100)
    async with linked(transport) as (pair, near, proxy):
        proxy.stall(True)
        for n in range(100):
            near.send(Cancel(str(n)))
        assert not near.has_room()
        with pytest.raises(LinkFull, match=r"scheduler s0 \(s0-1\) has not confirmed 100 messages"):
            near.send(Cancel("too many"))
        proxy.stall(False)
        await until(near.has_room, "room", within_s=15)
        near.send(Cancel("100"))
        await until(lambda: len(pair.at_server) == 101, "all that was taken")
        assert numbers(pair.at_server) == list(range(101))


async def test_bytes_are_bounded_as_well(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "OUTBOX_BYTES_MAX", 1_000)
    async with linked(transport) as (_, near, _):
        with pytest.raises(LinkFull, match=r"allowed: \d+ of 1000"):
            near.send(Deliver("c", "i", 1, Activation("a", bytes(1_000), 0)))
        assert near.unconfirmed() == 0


async def test_a_payload_of_a_mebibyte_arrives(transport: Transport) -> None:
    async with linked(transport) as (pair, near, _):
        payload = bytes(range(256)) * 4096
        for n in range(5):
            near.send(Deliver("c", "i", n, Activation("a", payload, clock.now_us())))
        await until(lambda: len(pair.at_server) == 5, "all messages")
        assert all(m.activation.payload == payload for m in pair.at_server)


async def test_times_are_the_same_on_one_machine_and_moved_between_two(
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked(transport) as (pair, near, _):
        near.send(Deliver("c", "i", 1, Activation("a", b"", 12_345)))
        await until(lambda: pair.at_server, "the message")
        assert pair.at_server[0].activation.arrived_us == 12_345

    clocks = iter(["one", "two"] * 9)
    monkeypatch.setattr(peer_link, "_clock_name", lambda: next(clocks))
    async with linked(transport) as (pair, near, _):
        sent_us = clock.now_us() - 1_000_000
        near.send(Deliver("c", "i", 1, Activation("a", b"", sent_us)))
        await until(lambda: pair.at_server, "the message")
        # On its way it ages by nothing: only the difference of the clocks is taken away.
        assert sent_us <= pair.at_server[0].activation.arrived_us <= clock.now_us() - 1_000_000


async def test_a_receiver_that_raises_loses_one_message(
    transport: Transport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = Pair()

    def fragile(message: Any) -> None:
        if message.activation_id == "1":
            raise ZeroDivisionError("planted")
        pair.at_server.append(message)

    pair.on_server = fragile
    async with linked(transport, pair) as (_, near, _):
        for n in range(3):
            near.send(Cancel(str(n)))
        await until(lambda: len(pair.at_server) == 2, "the others")
        assert numbers(pair.at_server) == [0, 2]
    assert "planted" in caplog.text


async def test_what_has_no_meaning_is_logged_and_the_rest_arrives(
    transport: Transport, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(transport) as (pair, near, _):
        near.send(Cancel("0"))
        monkeypatch.setitem(wire._ENCODERS, Cancel, ("cancel", lambda part, m: None))
        with caplog.at_level(logging.ERROR):
            near.send(Cancel("bad"))
            near.send(QueueClosed("q"))
            await until(lambda: len(pair.at_server) == 2, "the others")
    assert (
        "controller c0 (c0-1) sent what has no meaning: cancel.activation_id is ''" in caplog.text
    )


async def test_what_a_role_may_not_send_is_not_taken(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(transport) as (pair, near, _):
        near.send(Cancel("0"))
        await until(lambda: pair.at_server, "the first")
        pair.far._kinds = wire.kinds(pb.INVOKER, pb.SCHEDULER)
        near.send(Cancel("1"))
        await until(lambda: not near.unconfirmed(), "the refusal", within_s=15)
        assert numbers(pair.at_server) == [0]
    assert "cancel is nothing that its role may send" in caplog.text


async def test_from_a_link_that_is_cut_nothing_is_taken_not_even_what_is_there(
    transport: Transport,
) -> None:
    pair = Pair()
    pair.on_server = lambda message: (pair.at_server.append(message), pair.far.cut())
    async with linked(transport, pair) as (_, near, _):
        for n in range(3):
            near.send(Cancel(str(n)))
        await until(lambda: pair.at_server, "the first")
        await pair.far.close()
        assert numbers(pair.at_server) == [0]
        assert [m.activation_id for m in near.undelivered()] == ["0", "1", "2"]  # type: ignore[attr-defined]


async def test_a_link_that_is_cut_is_read_on_for_its_last_words(
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_link, "LAST_SILENCE_S", 3_600)
    monkeypatch.setattr(peer_link, "LAST_WORDS_S", 3_600)
    async with linked(transport) as (pair, near, proxy):
        proxy.stall(True)
        for message in (Cancel("0"), QueueClosed("guest/act"), Cancel("1")):
            pair.far.send(message)
        await until(lambda: not pair.far.unwritten(), "the write")
        near.cut(frozenset({"cancel"}))
        closing = asyncio.ensure_future(near.close())
        proxy.stall(False)
        await until(lambda: len(pair.at_client) == 2, "what is still taken")
        assert pair.at_client == [Cancel("0"), Cancel("1")]
        assert not closing.done()
        proxy.cut()
        await closing


async def test_last_words_end_with_silence(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "LAST_WORDS_S", 3_600)
    async with linked(transport) as (pair, near, _):
        near.cut(frozenset({"cancel"}))
        await near.close()
        await until(lambda: not pair.far.up, "the end of the stream")


async def test_last_words_of_one_who_goes_on_talking_end_as_well(
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked(transport) as (pair, near, _):

        async def talk() -> None:
            while True:
                pair.far.send(Cancel("0"))
                await asyncio.sleep(peer_link.LAST_SILENCE_S / 10)

        talking = asyncio.ensure_future(talk())
        near.cut(frozenset({"cancel"}))
        async with asyncio.timeout(WAIT_S):  # without a bound it would go on for ever
            await near.close()
        talking.cancel()
        assert pair.at_client


async def test_what_no_stream_was_given_is_told_from_what_may_have_been_taken(
    transport: Transport,
) -> None:
    async with linked(transport) as (pair, near, proxy):
        near.send(Cancel("0"))
        await until(lambda: pair.at_server, "the first")
        near.send(Cancel("1"))
        await until(lambda: len(pair.at_server) == 2, "the second")
        await proxy.close()
        await until(lambda: not near.up, "the end of the stream")
        near.send(Cancel("2"))
        near.send(Cancel("3"))
        assert numbers(near.unwritten()) == [2, 3]
        assert numbers(near.undelivered())[-2:] == [2, 3]


async def test_what_was_written_once_stays_written_when_the_stream_is_another(
    transport: Transport,
) -> None:
    async with linked(transport) as (pair, near, proxy):
        proxy.stall(True)
        near.send(Cancel("0"))
        await until(lambda: not near.unwritten(), "the write")
        proxy.cut()
        await until(lambda: not near.up, "the end of the stream")
        near.send(Cancel("1"))
        assert numbers(near.unwritten()) == [1]
        assert numbers(near.undelivered()) == [0, 1]
        proxy.stall(False)
        await until(lambda: len(pair.at_server) == 2, "both")


async def test_the_other_side_hears_at_once_that_a_link_has_ended(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer_link, "SILENCE_S", 1e9)
    caplog.set_level(logging.INFO)
    async with linked(transport) as (pair, near, _):
        await pair.far.close()
        await until(lambda: not near.up, "the end of the stream")
        await until(lambda: "ended here" in caplog.text, "the reason")
        assert "the link of the controller c0 (c0-1) has ended here" in caplog.text


async def test_a_cancellation_that_gets_lost_does_not_keep_a_link_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_link, "CLOSE_S", 0.0)
    link = PeerLink(SERVER, lambda message: None)
    lost: list[str] = []

    async def goes_on() -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append("one")
        await asyncio.Event().wait()

    link._dialling = asyncio.ensure_future(goes_on())
    await asyncio.wait_for(link.close(), 20)
    assert link._dialling.done()
    assert lost == ["one", "one"]


async def test_a_cancellation_that_gets_lost_does_not_keep_a_stream_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_link, "CLOSE_S", 0.0)
    states: list[bool] = []
    link = PeerLink(SERVER, lambda message: None, lambda link: states.append(link.up))
    writing = asyncio.Event()

    class Stubborn:
        gathers = False

        async def read(self) -> None:
            await writing.wait()

        async def write(self, frame: bytes) -> None:
            writing.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    link.send(Cancel("a"))
    await asyncio.wait_for(link.converse(pb.Hello(), Stubborn()), 20)
    assert states == [True, False]
    await link.close()


async def test_after_close_nothing_is_dialled_and_nobody_is_told(transport: Transport) -> None:
    async with linked(transport) as (pair, near, proxy):
        await near.close()
        told = len(pair.states)
        await until(lambda: not pair.far.up, "the other side to notice")
        assert len(pair.states) == told
        await proxy.close()


async def test_health_is_served_beside_the_links() -> None:
    server = GrpcServer(Reception(SERVER, lambda peer: PeerLink(peer, print)))
    port = await server.listen("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        kinds = health_pb2.HealthCheckResponse
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == kinds.NOT_SERVING
        await server.set_ready(True)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == kinds.SERVING
    await server.close()


async def test_a_port_in_use_is_an_os_error(transport: Transport) -> None:
    reception = Reception(SERVER, lambda peer: PeerLink(peer, print))
    one, port = await transport.listen(reception)
    with pytest.raises(OSError, match=f"{port}"):
        await transport.listen(reception, port)
    await one.close()


async def say(transport: Transport, port: int, frames: list[bytes]) -> None:
    """Dial, write these frames, and read until the other side ends it."""
    async with transport.dialler(SERVER, port).connect() as stream:
        for frame in frames:
            await stream.write(frame)
        while await stream.read() is not None:
            pass


def greeting(**changes: Any) -> pb.Frame:
    fields: dict[str, Any] = {
        "protocol": peer_link.PROTOCOL,
        "role": pb.CONTROLLER,
        "name": "c0",
        "instance": "c0-1",
        "to_instance": "s0-1",
        "clock": "elsewhere",
        "received": 0,
    }
    return pb.Frame(hello=pb.Hello(**(fields | changes)))


@pytest.mark.parametrize(
    ("ours", "theirs", "speak"),
    [
        ((1, 1), (1, 0), True),  # who says nothing of older ones speaks its own alone
        ((1, 1), (2, 1), True),  # they are a release ahead, and still speak ours
        ((2, 1), (1, 1), True),
        ((2, 1), (2, 1), True),
        ((3, 2), (2, 1), True),
        ((1, 1), (2, 2), False),
        ((3, 2), (1, 1), False),  # two releases behind
        ((1, 1), (3, 2), False),
    ],
)
def test_nodes_of_neighbouring_releases_speak_with_each_other(
    monkeypatch: pytest.MonkeyPatch, ours: tuple[int, int], theirs: tuple[int, int], speak: bool
) -> None:
    monkeypatch.setattr(peer_link, "PROTOCOL", ours[0])
    monkeypatch.setattr(peer_link, "OLDEST", ours[1])
    frame = greeting(protocol=theirs[0], oldest=theirs[1])
    if speak:
        assert peer_link.check_hello(frame, "s0-1").name == "c0"
    else:
        with pytest.raises(Refused, match=f"this node speaks {ours[1]}..{ours[0]}"):
            peer_link.check_hello(frame, "s0-1")


@pytest.mark.parametrize(
    ("frames", "code", "says"),
    [
        ([pb.Frame(received=0)], "INVALID_ARGUMENT", "the first frame has no hello"),
        ([greeting(protocol=99)], "FAILED_PRECONDITION", "hello.protocol is 99, the oldest 99; "),
        ([greeting(protocol=99, oldest=98)], "FAILED_PRECONDITION", "the oldest 98; this node"),
        ([greeting(protocol=0)], "FAILED_PRECONDITION", "hello.protocol is 0, the oldest 0; this"),
        ([greeting(protocol=1, oldest=2)], "FAILED_PRECONDITION", "hello.protocol is 1, the old"),
        ([greeting(role=9)], "FAILED_PRECONDITION", "hello.role is 9"),
        ([greeting(name="")], "FAILED_PRECONDITION", "hello.name must be"),
        ([greeting(instance="x" * 257)], "FAILED_PRECONDITION", "hello.instance must be"),
        ([greeting(to_instance="old")], "FAILED_PRECONDITION", "to_instance is old; this is s0-1"),
        ([greeting(name="stranger")], "FAILED_PRECONDITION", "stranger .* is not expected"),
        ([greeting(received=7)], "INVALID_ARGUMENT", "message 7 is confirmed and was never sent"),
        (
            [greeting(), pb.Frame(first=5, messages=[pb.Message()])],
            "INVALID_ARGUMENT",
            "message 5 came after message 0",
        ),
        (
            [greeting(), pb.Frame(messages=[pb.Message()])],
            "INVALID_ARGUMENT",
            "message 0 came after message 0",
        ),
    ],
)
async def test_who_breaks_the_protocol_is_told_how(
    transport: Transport, frames: list[pb.Frame], code: str, says: str
) -> None:
    links: list[PeerLink] = []

    def accept(peer: Peer) -> PeerLink:
        if peer.name != "c0":
            raise Refused(f"{peer} is not expected")
        links.append(PeerLink(peer, lambda m: None))
        return links[-1]

    server, port = await transport.listen(Reception(SERVER, accept))
    by_grpc = f"{code}: .*" if transport is GRPC else ""
    with pytest.raises(LinkBroken, match=by_grpc + says):
        await say(transport, port, [frame.SerializeToString() for frame in frames])
    for link in links:
        await link.close()
    await server.close()


async def test_a_message_that_comes_twice_is_taken_once(transport: Transport) -> None:
    got: list[Any] = []
    reception = Reception(SERVER, lambda peer: PeerLink(peer, got.append))
    server, port = await transport.listen(reception)
    async with transport.dialler(SERVER, port).connect() as stream:
        one, two = (wire.encode(Cancel(text)) for text in "12")
        for frame in (
            greeting(),
            pb.Frame(first=1, messages=[one]),
            pb.Frame(first=1, messages=[one, two]),
        ):
            await stream.write(frame.SerializeToString())
        await until(lambda: len(got) >= 2, "the messages")
        assert numbers(got) == [1, 2]
    await server.close()


async def test_garbage_ends_the_stream_and_no_more(transport: Transport) -> None:
    async with linked(transport) as (pair, near, proxy):
        with pytest.raises(LinkBroken):
            await say(transport, proxy.port, [b"\xff\xff\xff\xff"])
        near.send(Cancel("1"))
        await until(lambda: pair.at_server, "the message")


async def test_a_server_that_is_another_one_is_not_spoken_to(transport: Transport) -> None:
    server, port = await transport.listen(Reception(SERVER, lambda peer: PeerLink(peer, print)))
    ups: list[bool] = []
    link = PeerLink(Peer(pb.SCHEDULER, "s0", "s0-0"), print, lambda changed: ups.append(changed.up))
    link.dial(CLIENT, transport.dialler(link.peer, port))
    with pytest.raises(AssertionError, match="the link"):
        await until(lambda: link.up, "the link", within_s=0.3)
    assert ups == []
    await link.close()
    await server.close()


async def test_what_was_never_written_can_be_taken_back(transport: Transport) -> None:
    async with linked(transport) as (pair, near, proxy):
        near.send(Cancel("1"))
        await until(lambda: len(pair.at_server) == 1, "the first one")
        await proxy.close()
        await until(lambda: not near.up, "the end of the stream")
        for n in (2, 3):
            near.send(Cancel(str(n)))
        assert numbers(near.take_unwritten()) == [2, 3]
        assert near.take_unwritten() == []
        assert near._outbox_bytes == sum(map(len, near._outbox))
        near.send(Cancel("4"))
        assert near._dialling is not None
        near._dialling.cancel()
        await proxy.start()
        near.dial(CLIENT, transport.dialler(SERVER, proxy.port))
        await until(lambda: len(pair.at_server) == 2, "the next one")
        assert numbers(pair.at_server) == [1, 4]


async def test_a_link_knows_when_it_heard_last(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "HEARTBEAT_S", 0.01)
    async with linked(transport) as (_, near, proxy):
        heard_us = near.heard_us
        await until(lambda: near.heard_us > heard_us, "a frame")
        await proxy.close()
        await until(lambda: not near.up, "the end of the stream")
        near._on_beat()
        heard_us = near.heard_us
        near._on_beat()
        assert near.heard_us == heard_us


async def test_who_counts_as_gone_is_told_so(transport: Transport) -> None:
    told: list[str] = []

    def accept(peer: Peer) -> PeerLink:
        raise Disowned(f"{peer} counts as gone here")

    server, port = await transport.listen(Reception(SERVER, accept))
    near = PeerLink(SERVER, told.append, disowned=lambda: told.append("gone"))  # type: ignore[arg-type]
    near.dial(CLIENT, transport.dialler(SERVER, port))
    await until(lambda: "gone" in told, "the refusal")
    await near.close()
    await server.close()
