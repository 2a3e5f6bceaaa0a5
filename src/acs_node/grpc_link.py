"""Links between processes: one gRPC stream for each pair of nodes, and what keeps it alive.

A link outlives its streams: every message has a number, what the other side has not confirmed is
kept and written again after a reconnect, and what arrives twice is taken once.  A link ends with
its peer's instance: a node that was started anew is another one.  Who is a peer, and when it is
gone, ``membership`` tells; what the messages mean is in ``wire``.

Everything that was sent in one turn of the loop goes out as one frame.  While a frame is on its
way, until the other side confirms it, the next one gathers: what a link costs is its frames, and
under load they grow by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from . import acs_pb2 as pb
from . import clock, wire
from .tls import LinkTls, presented_names

log = logging.getLogger(__name__)

PROTOCOL: Final = 1
"""Raised when an old node would misunderstand a new one, at most once in a minor release."""

OLDEST: Final = 1
"""The oldest version that is still spoken: that of the minor release before, so that a cluster is
upgraded node by node."""

SERVICE: Final = "acs.v1.Node"
METHOD: Final = f"/{SERVICE}/Link"

HEARTBEAT_S: Final = 1.0
"""At least so often each side writes a frame."""

SILENCE_S: Final = 5.0
"""After so long without a frame a stream is given up and dialled anew."""

HELLO_S: Final = 5.0
"""How long the other side may take to say who it is."""

CLOSE_S: Final = 1.0
"""At the end of a link: how long the other side may take to hear of it."""

LAST_WORDS_S: Final = 1.0
LAST_SILENCE_S: Final = 0.25
"""How long a link that is cut is read on for what it may still bring, and how much silence says
that there is nothing more."""

REDIAL_MIN_S: Final = 0.05
REDIAL_MAX_S: Final = 1.0
"""Wait before a broken stream is dialled anew; doubled, and up to half of it left to chance."""

FRAME_MESSAGES_MAX: Final = 512
FRAME_BYTES_MAX: Final = 1024 * 1024
"""Where a frame ends, after the message that crosses it: others are served in between."""

FRAME_RECEIVED_BYTES_MAX: Final = wire.DOCUMENT_BYTES_MAX + FRAME_BYTES_MAX + 65_536
"""No frame has more bytes: the largest message may be its last one."""

OUTBOX_MESSAGES_MAX: Final = 65_536
OUTBOX_BYTES_MAX: Final = 256 * 1024 * 1024
"""What is kept for a peer that does not read: some seconds of full load."""

DISOWNED: Final = grpc.StatusCode.NOT_FOUND
"""How a stream is refused to a node that counts as gone."""

GATHER_S: Final = 0.01
"""For how long at most the next frame gathers: a peer need not confirm at once."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", FRAME_RECEIVED_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # Else channels to one address share their waits, also those of a link that is over.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Another server must not get in on the same port without anybody noticing.
    ("grpc.so_reuseport", 0),
)


class LinkFull(Exception):
    """The peer has not read for too long; the message was not taken."""


class LinkBroken(Exception):
    """The other side does not keep to the protocol, or is silent."""


class Refused(Exception):
    """A peer that this node does not speak with; the text says why."""


class Disowned(Refused):
    """A peer whose lease has ended, as far as this node knows."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node; ``role`` as in ``acs.proto``, ``instance`` new for each of its starts."""

    role: int
    name: str
    instance: str

    def __str__(self) -> str:
        return f"{role_name(self.role)} {self.name} ({self.instance})"


def role_name(role: int) -> str:
    """Return the word for a role."""
    names: dict[int, str] = {pb.CONTROLLER: "controller", pb.SCHEDULER: "scheduler"}
    names[pb.INVOKER] = "invoker"
    return names.get(role, f"role {role}")


_Read = Callable[[], Awaitable[Any]]
_Write = Callable[[pb.Frame], Awaitable[None]]


class GrpcLink:
    """Both directions between this node and ``peer``.

    ``receive`` is called with each message, in order; it may raise, which costs that message
    alone.  ``changed`` is called when the link comes up or goes down.  ``kinds`` are those that
    the peer's role may send (``wire.kinds``); None: all.  ``disowned`` is called when the peer,
    which was dialled, says that this node counts as gone there.
    """

    def __init__(
        self,
        peer: Peer,
        receive: Callable[[object], None],
        changed: Callable[[GrpcLink], None] | None = None,
        kinds: frozenset[str] | None = None,
        disowned: Callable[[], None] | None = None,
    ) -> None:
        self.peer = peer
        self._kinds = kinds
        self._disowned = disowned
        self.up = False
        self._receive = receive
        self._changed = changed
        self._outbox: deque[tuple[pb.Message, int]] = deque()
        self._outbox_bytes = 0
        self._first = 1  # the number of the first one in the outbox
        self._written = 0  # how many of them this stream has
        self._tried = 0  # the number of the last one that any stream was given
        self._received = 0
        self._owing = False  # a confirmation
        self._gathering: asyncio.TimerHandle | None = None
        self._same_clock = False
        self._wake = asyncio.Event()
        self._beat = False
        self._heard = False
        self._silent_beats = 0
        self.heard_us = clock.now_us()
        """When a frame came last, to a second; that of its beginning before the first one."""
        self._stream: asyncio.Task[Any] | None = None
        self._broken: asyncio.Future[None] | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False
        self._last_kinds: frozenset[str] = frozenset()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(HEARTBEAT_S, self._on_beat)

    # --- what nodes use ------------------------------------------------------------------------

    def send(self, message: object) -> None:
        """Hand over a message; it arrives after everything that was sent before it, or never.

        Raises: LinkFull, and nothing was taken.  TypeError for what does not travel.
        """
        encoded = wire.encode(message)
        size = encoded.ByteSize()
        if not self.has_room(size):
            raise LinkFull(
                f"the {self.peer} has not confirmed {len(self._outbox)} messages of "
                f"{self._outbox_bytes} bytes (allowed: {OUTBOX_MESSAGES_MAX} of {OUTBOX_BYTES_MAX})"
            )
        self._outbox.append((encoded, size))
        self._outbox_bytes += size
        self._wake.set()

    def has_room(self, size: int = 0) -> bool:
        """Tell whether a message of so many bytes would be taken."""
        return (
            len(self._outbox) < OUTBOX_MESSAGES_MAX
            and self._outbox_bytes + size <= OUTBOX_BYTES_MAX
        )

    def unconfirmed(self) -> int:
        """Return how many messages the other side has not confirmed."""
        return len(self._outbox)

    def cut(self, last_kinds: frozenset[str] = frozenset()) -> None:
        """Take nothing more but messages of these kinds, from this moment on; ``close`` follows.

        They are what is true whoever says it.  Where this node is behind they have come already.
        """
        self._closed = True
        self._last_kinds = last_kinds
        self._timer.cancel()

    def undelivered(self) -> list[object]:
        """Return what the other side has not confirmed: it may have taken it, or not."""
        return [wire.decode(message) for message, _ in self._outbox]

    def unwritten(self) -> list[object]:
        """Return what no stream was ever given: the other side has certainly not taken it."""
        start = max(0, self._tried + 1 - self._first)
        return [wire.decode(self._outbox[at][0]) for at in range(start, len(self._outbox))]

    def take_unwritten(self) -> list[object]:
        """Take back what no stream was ever given; it will not be written."""
        taken = self.unwritten()
        for _ in taken:
            self._outbox_bytes -= self._outbox.pop()[1]
        return taken

    async def close(self) -> None:
        """End the link and have the other side know; what was not confirmed is dropped.

        First what it may still bring is read, for ``LAST_WORDS_S`` at the most.
        """
        self.cut(self._last_kinds)
        if self._last_kinds:
            await self._last_words()
        served = self._dialling is None
        if served and self._broken is not None and not self._broken.done():
            # The server answers with that.  A handler that is cancelled says nothing to the other
            # side, which would write into the void until it notices the silence.
            self._broken.set_exception(Refused(f"the link of the {self.peer} has ended here"))
        for task in (self._dialling, self._stream):
            if task is not None and task is not asyncio.current_task():
                if served:
                    await asyncio.wait([task], timeout=CLOSE_S)
                await _end(task)

    async def _last_words(self) -> None:
        until_s = self._loop.time() + LAST_WORDS_S
        self._heard = True
        while self.up and self._heard and self._loop.time() < until_s:
            assert self._broken is not None
            self._heard = False
            await asyncio.wait([self._broken], timeout=LAST_SILENCE_S)

    # --- streams -------------------------------------------------------------------------------

    def hello(self, me: Peer) -> pb.Frame:
        """Return the first frame of a stream."""
        return pb.Frame(
            hello=pb.Hello(
                protocol=PROTOCOL,
                role=me.role,  # type: ignore[arg-type]
                name=me.name,
                instance=me.instance,
                to_instance=self.peer.instance,
                clock=_clock_name(),
                received=self._received,
                oldest=OLDEST,
            )
        )

    def dial(self, me: Peer, address: str, tls: LinkTls | None = None) -> None:
        """Keep a stream to ``address`` until the link is closed."""
        self._dialling = asyncio.ensure_future(self._dial(me, address, tls))

    def _channel(self, address: str, tls: LinkTls | None) -> grpc.aio.Channel:
        if tls is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        expected = tls.expecting(role_name(self.peer.role), self.peer.name)
        return grpc.aio.secure_channel(
            address, tls.channel_credentials(), options=(*_OPTIONS, *expected)
        )

    async def _dial(self, me: Peer, address: str, tls: LinkTls | None) -> None:
        delay_s = REDIAL_MIN_S
        while True:
            try:
                async with self._channel(address, tls) as channel:
                    call = channel.stream_stream(
                        METHOD, pb.Frame.SerializeToString, pb.Frame.FromString
                    )()
                    async with asyncio.timeout(HELLO_S):
                        await call.write(self.hello(me))
                        frame = await call.read()
                    if isinstance(frame, pb.Frame):
                        hello = check_hello(frame, me.instance)
                        delay_s = REDIAL_MIN_S
                        await self.converse(hello, call.read, call.write)
                    # Raises nothing, and says how it ended.
                    if await call.code() == DISOWNED and self._disowned is not None:
                        self._disowned()
                    why = await call.details() or "the stream ended"
            except TimeoutError:
                why = f"no answer within {HELLO_S:g} s"
            except grpc.aio.AioRpcError as error:
                if error.code() == DISOWNED and self._disowned is not None:
                    self._disowned()
                why = f"{error.code().name}: {error.details()}"
            except (LinkBroken, Refused, asyncio.InvalidStateError, ValueError) as error:
                why = str(error)  # the last one: a name that no certificate can have
            log.info("the stream to the %s at %s is down: %s", self.peer, address, why)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, REDIAL_MAX_S)

    async def converse(self, hello: pb.Hello, read: _Read, write: _Write) -> None:
        """Use a stream whose greetings are over, until it ends; the one before it ends first.

        Raises: LinkBroken, or what the stream raises.
        """
        before = self._stream
        if before is not None:
            if self._broken is not None and not self._broken.done():
                self._broken.set_exception(LinkBroken("the peer has dialled anew"))
            await asyncio.wait([before])
        self._confirm(hello.received)
        self._written = 0
        self._same_clock = hello.clock == _clock_name()
        self._silent_beats = 0
        self._owing = False
        self._broken = self._loop.create_future()
        self._stream = asyncio.current_task()
        tasks = [asyncio.ensure_future(self._read(read)), asyncio.ensure_future(self._write(write))]
        self._set_up(True)
        try:
            done, _ = await asyncio.wait(
                [*tasks, self._broken], return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                future.result()
        finally:
            try:
                for task in tasks:
                    await _end(task)
            finally:
                self._broken.cancel()
                self._stream = None
                self._set_up(False)

    def _set_up(self, up: bool) -> None:
        self.up = up
        if self._changed is not None and not self._closed:
            self._changed(self)

    async def _write(self, write: _Write) -> None:
        while True:
            frame = self._next_frame()
            if frame is None:
                self._wake.clear()
                await self._wake.wait()
            else:
                await write(frame)

    def _next_frame(self) -> pb.Frame | None:
        """Return what is to be written now; None when there is nothing."""
        start = self._written
        if not self._beat and not self._owing:
            if start == len(self._outbox):
                return None
            if start and len(self._outbox) - start < FRAME_MESSAGES_MAX and self._gathers():
                return None
        self._beat = self._owing = False
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        frame = pb.Frame(first=self._first + start, received=self._received, sent_us=clock.now_us())
        size = 0
        messages = frame.messages
        end = min(len(self._outbox), start + FRAME_MESSAGES_MAX)
        while self._written < end and size < FRAME_BYTES_MAX:
            message, bytes_ = self._outbox[self._written]
            messages.append(message)
            size += bytes_
            self._written += 1
        self._tried = max(self._tried, self._first + self._written - 1)
        return frame

    def _gathers(self) -> bool:
        """Tell whether what there is waits for more, while a frame is not confirmed."""
        if self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_S, self._wake.set)
        return self._loop.time() < self._gathering.when()

    async def _read(self, read: _Read) -> None:
        while True:
            frame = await read()
            if frame is grpc.aio.EOF:
                return
            self._take(frame)

    def _take(self, frame: pb.Frame) -> None:
        """Take what a frame brings.  Raises: LinkBroken when a message before it is missing."""
        if self._closed and not self._last_kinds:
            return
        self._heard = True
        self._confirm(frame.received)
        ahead_us = 0 if self._same_clock else clock.now_us() - frame.sent_us
        number = frame.first
        if len(frame.messages) > FRAME_MESSAGES_MAX:
            raise LinkBroken(
                f"a frame has {len(frame.messages)} messages (allowed: {FRAME_MESSAGES_MAX})"
            )
        if frame.messages and not 0 < number <= self._received + 1:
            raise LinkBroken(f"message {number} came after message {self._received}")
        for message in frame.messages:
            if self._closed and not self._last_kinds:
                return  # by what was just received
            if number > self._received:  # else it came before the stream broke
                self._received = number
                self._take_message(message, ahead_us)
            number += 1
        if frame.messages:
            self._owing = True
            self._wake.set()

    def _take_message(self, message: pb.Message, ahead_us: int) -> None:
        kind = message.WhichOneof("kind")
        if self._closed and kind not in self._last_kinds:
            return
        try:
            if self._kinds is not None and kind not in self._kinds:
                raise wire.WireError(f"{kind} is nothing that its role may send")
            self._receive(wire.decode(message, ahead_us))
        except wire.WireError as error:
            log.error("the %s sent what has no meaning: %s", self.peer, error)
        except Exception:
            log.exception("a message of the %s was not received", self.peer)

    def _confirm(self, number: int) -> None:
        """Forget what the other side has.  Raises: LinkBroken for what was never sent."""
        if number >= self._first + len(self._outbox):
            raise LinkBroken(f"message {number} is confirmed and was never sent")
        while self._first <= number:
            _, size = self._outbox.popleft()
            self._outbox_bytes -= size
            self._first += 1
            self._written = max(0, self._written - 1)
        if self._outbox and not self._written:
            self._wake.set()

    def _on_beat(self) -> None:
        self._timer = self._loop.call_later(HEARTBEAT_S, self._on_beat)
        if self._heard:
            self.heard_us = clock.now_us()
        if not self.up:
            return
        self._silent_beats = 0 if self._heard else self._silent_beats + 1
        self._heard = False
        self._beat = True
        self._wake.set()
        assert self._broken is not None
        if self._silent_beats * HEARTBEAT_S >= SILENCE_S and not self._broken.done():
            self._broken.set_exception(
                LinkBroken(f"the {self.peer} was silent for {SILENCE_S:g} s")
            )


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task that uses a stream, until it has ended.

    More than once: gRPC takes a cancellation that meets the end of a stream for that, and the task
    would go on dialling, or waiting for something to write.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CLOSE_S)
    if not task.cancelled():
        task.exception()  # nobody else asks for it


def check_hello(frame: pb.Frame, to_instance: str) -> pb.Hello:
    """Return the greeting of a frame.  Raises: LinkBroken, Refused."""
    if not frame.HasField("hello"):
        raise LinkBroken("the first frame has no hello")
    hello = frame.hello
    oldest = hello.oldest or hello.protocol
    if hello.protocol < max(OLDEST, oldest) or oldest > PROTOCOL:
        spoken = f"this node speaks {OLDEST}..{PROTOCOL}"
        raise Refused(f"hello.protocol is {hello.protocol}, the oldest {oldest}; {spoken}")
    if hello.role not in (pb.CONTROLLER, pb.SCHEDULER, pb.INVOKER):
        raise Refused(f"hello.role is {hello.role}; it must be one of {pb.Role.keys()[1:]}")
    for field in ("name", "instance"):
        if not 0 < len(getattr(hello, field)) <= 256:
            raise Refused(f"hello.{field} must be a string of 1..256 characters")
    if hello.to_instance != to_instance:
        raise Refused(f"hello.to_instance is {hello.to_instance}; this is {to_instance}")
    return hello


class LinkServer:
    """Where other nodes dial in.  ``accept`` returns the link of a peer, or raises Refused.

    With ``tls``, who has no certificate of its authority gets no stream, and who says that it is
    another node than its certificate says gets no link.
    """

    def __init__(
        self, me: Peer, accept: Callable[[Peer], GrpcLink], tls: LinkTls | None = None
    ) -> None:
        self.me = me
        self._accept = accept
        self._tls = tls
        # Kept: a server that nobody holds is collected and closes its port without a word.
        self._server = grpc.aio.server(options=_OPTIONS)
        self._health = health.aio.HealthServicer()

    async def listen(self, address: str) -> int:
        """Listen on ``host:port`` and return the port.  Raises: OSError."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve, pb.Frame.FromString, pb.Frame.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Link": handler}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._tls.server_credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for other nodes: {error}") from None
        await self.set_ready(False)
        await self._server.start()
        return int(port)

    async def set_ready(self, ready: bool) -> None:
        """Say in gRPC's health protocol whether this node does its work."""
        status = health_pb2.HealthCheckResponse
        await self._health.set("", status.SERVING if ready else status.NOT_SERVING)

    async def close(self) -> None:
        """End every stream."""
        await self._server.stop(0.2)

    async def _serve(self, _: object, context: Any) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await context.read()
            if frame is grpc.aio.EOF:
                return
            hello = check_hello(frame, self.me.instance)
            peer = Peer(hello.role, hello.name, hello.instance)
            self._check_proof(peer, context)
            link = self._accept(peer)
            await context.write(link.hello(self.me))
            await link.converse(hello, context.read, context.write)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello")
        except Disowned as error:
            await context.abort(DISOWNED, str(error))
        except Refused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except LinkBroken as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _check_proof(self, peer: Peer, context: Any) -> None:
        """See that the peer is who it says it is, where that can be known.  Raises: Refused."""
        if self._tls is None:
            return
        names = presented_names(context.auth_context())
        if not self._tls.is_proven(role_name(peer.role), peer.name, names):
            log.warning("a node with a certificate of %s says that it is the %s", names, peer)
            raise Refused(f"hello says {peer}; its certificate is of {', '.join(names)}")


_CLOCK: list[str] = []


def _clock_name() -> str:
    """Return what all processes have in common that read this monotonic clock."""
    if not _CLOCK:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers may have a clock of their own beside the machine's.
        offsets = Path("/proc/self/timens_offsets")
        _CLOCK.append(f"{boot} {offsets.read_text() if offsets.exists() else ''}")
    return _CLOCK[0]
