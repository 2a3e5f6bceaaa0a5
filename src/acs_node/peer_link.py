"""Links between processes: one stream for each pair of nodes, and what keeps it alive.

A link outlives its streams: every message has a number, what the other side has not confirmed is
kept and written again after a reconnect, and what arrives twice is taken once.  A link ends with
its peer's instance: a node that was started anew is another one.  Who is a peer, and when it is
gone, ``membership`` tells; what the messages mean is in ``wire``; streams are made in ``grpc_link``
and ``frame_link``.

Everything that was sent in one turn of the loop goes out as one frame.  Where frames cost much
(``Stream.gathers``), the next one gathers while one is on its way, until the other side confirms
it: under load they grow by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from . import acs_pb2 as pb
from . import clock, wire
from .tls import LinkTls

log = logging.getLogger(__name__)

PROTOCOL: Final = 1
"""Raised when an old node would misunderstand a new one, at most once in a minor release."""

OLDEST: Final = 1
"""The oldest version that is still spoken: that of the minor release before, so that a cluster is
upgraded node by node."""

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

WAIT_S: Final = 0.01
"""For how long at most a frame waits for more to write, see ``PeerLink._waits``."""

_MESSAGES_TAG: Final = bytes([pb.Frame.DESCRIPTOR.fields_by_name["messages"].number << 3 | 2])
"""What stands before each message of a serialized frame, and before its length."""


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


class Stream(Protocol):
    """One connection's frames in both directions.

    ``gathers`` tells that frames cost so much that what comes while one is on its way should wait
    for it.  ``read`` and ``write`` raise LinkBroken, Refused or Disowned: why it has ended.
    """

    gathers: bool

    async def read(self) -> pb.Frame | None:
        """Return the next frame; None when the other side has ended the stream."""
        ...

    async def write(self, frame: bytes) -> None:
        """Write a serialized frame; wait while the other side does not read."""
        ...


@dataclass(frozen=True, slots=True)
class Dialler:
    """What connects to the node at ``address``; ``connect`` raises what a stream does."""

    address: str
    connect: Callable[[], AbstractAsyncContextManager[Stream]]


class PeerLink:
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
        changed: Callable[[PeerLink], None] | None = None,
        kinds: frozenset[str] | None = None,
        disowned: Callable[[], None] | None = None,
    ) -> None:
        self.peer = peer
        self._kinds = kinds
        self._disowned = disowned
        self.up = False
        self._receive = receive
        self._changed = changed
        self._outbox: deque[bytes] = deque()  # as they stand in a frame
        self._outbox_bytes = 0
        self._first = 1  # the number of the first one in the outbox
        self._written = 0  # how many of them this stream has
        self._tried = 0  # the number of the last one that any stream was given
        self._received = 0
        self._owing = False  # a confirmation
        self._gathers = False
        self._waiting: asyncio.TimerHandle | None = None
        self._waited = False
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
        part = _frame_part(wire.encode(message))
        size = len(part)
        if not self.has_room(size):
            raise LinkFull(
                f"the {self.peer} has not confirmed {len(self._outbox)} messages of "
                f"{self._outbox_bytes} bytes (allowed: {OUTBOX_MESSAGES_MAX} of {OUTBOX_BYTES_MAX})"
            )
        self._outbox.append(part)
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
        return _messages(self._outbox)

    def unwritten(self) -> list[object]:
        """Return what no stream was ever given: the other side has certainly not taken it."""
        start = max(0, self._tried + 1 - self._first)
        return _messages(islice(self._outbox, start, None))

    def take_unwritten(self) -> list[object]:
        """Take back what no stream was ever given; it will not be written."""
        taken = self.unwritten()
        for _ in taken:
            self._outbox_bytes -= len(self._outbox.pop())
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

    def dial(self, me: Peer, dialler: Dialler) -> None:
        """Keep a stream until the link is closed."""
        self._dialling = asyncio.ensure_future(self._dial(me, dialler))

    async def _dial(self, me: Peer, dialler: Dialler) -> None:
        delay_s = REDIAL_MIN_S
        while True:
            why = "the other side has ended it"
            try:
                async with dialler.connect() as stream:
                    async with asyncio.timeout(HELLO_S):
                        await stream.write(self.hello(me).SerializeToString())
                        frame = await stream.read()
                    if frame is not None:
                        hello = check_hello(frame, me.instance)
                        delay_s = REDIAL_MIN_S
                        await self.converse(hello, stream)
            except TimeoutError:
                why = f"no answer within {HELLO_S:g} s"
            except (LinkBroken, Refused) as error:
                why = str(error)
                if isinstance(error, Disowned) and self._disowned is not None:
                    self._disowned()
            except Exception as error:
                # Whatever it is: a peer that is dialled no more is lost without anybody noticing.
                log.exception("the stream to the %s ended as none should", self.peer)
                why = str(error)
            log.info("the stream to the %s at %s is down: %s", self.peer, dialler.address, why)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(2 * delay_s, REDIAL_MAX_S)

    async def converse(self, hello: pb.Hello, stream: Stream) -> None:
        """Use a stream whose greetings are over, until it ends; the one before it ends first.

        Raises: what a stream does.
        """
        while (before := self._stream) is not None:  # another one may have come meanwhile
            if self._broken is not None and not self._broken.done():
                self._broken.set_exception(LinkBroken("the peer has dialled anew"))
            await asyncio.wait([before])
        self._confirm(hello.received)
        self._written = 0
        self._same_clock = hello.clock == _clock_name()
        self._silent_beats = 0
        self._owing = False
        self._gathers = stream.gathers
        self._broken = self._loop.create_future()
        self._stream = asyncio.current_task()
        tasks = [asyncio.ensure_future(each) for each in (self._read(stream), self._write(stream))]
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

    async def _write(self, stream: Stream) -> None:
        while True:
            frame = self._next_frame()
            if frame is None:
                self._wake.clear()
                await self._wake.wait()
            else:
                await stream.write(frame)

    def _next_frame(self) -> bytes | None:
        """Return what is to be written now, serialized; None when there is nothing."""
        start = self._written
        ready = len(self._outbox) - start
        if not self._beat and (not (ready or self._owing) or self._waits(ready)):
            return None
        self._beat = self._owing = False
        self._waited = False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        frame = pb.Frame(first=self._first + start, received=self._received, sent_us=clock.now_us())
        # Serialized messages in a row are one: what was serialized once is only joined.
        parts = [frame.SerializeToString()]
        size = 0
        for part in islice(self._outbox, start, start + FRAME_MESSAGES_MAX):
            parts.append(part)
            size += len(part)
            if size >= FRAME_BYTES_MAX:
                break
        self._written += len(parts) - 1
        self._tried = max(self._tried, self._first + self._written - 1)
        return b"".join(parts)

    def _waits(self, ready: int) -> bool:
        """Tell whether what is ready waits for more, ``WAIT_S`` at the most.

        Where frames cost much, messages do while a frame is on its way.  Elsewhere a confirmation
        does, which goes along with the next one.
        """
        if self._gathers:
            patient = not self._owing and self._written > 0 and ready < FRAME_MESSAGES_MAX
        else:
            patient = not ready
        if not patient:
            return False
        if self._waiting is None:
            self._waiting = self._loop.call_later(WAIT_S, self._on_waited)
        return not self._waited

    def _on_waited(self) -> None:
        self._waited = True
        self._wake.set()

    async def _read(self, stream: Stream) -> None:
        while (frame := await stream.read()) is not None:
            self._take(frame)
            if frame.messages:
                await asyncio.sleep(0)  # there may be more already; others are served in between

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
            self._outbox_bytes -= len(self._outbox.popleft())
            self._first += 1
            self._written = max(0, self._written - 1)
        if self._outbox and not self._written:
            self._wake.set()

    def _on_beat(self) -> None:
        self._timer = self._loop.call_later(HEARTBEAT_S, self._on_beat)
        heard, self._heard = self._heard, False
        if heard:
            self.heard_us = clock.now_us()
        if not self.up:
            return
        self._silent_beats = 0 if heard else self._silent_beats + 1
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


class Reception:
    """Where links begin that other nodes dial; ``accept`` returns a peer's, or raises Refused.

    With ``tls``, who says that it is another node than its certificate says gets no link.
    """

    def __init__(
        self, me: Peer, accept: Callable[[Peer], PeerLink], tls: LinkTls | None = None
    ) -> None:
        self.me = me
        self.tls = tls
        self._accept = accept

    async def serve(self, stream: Stream, names: Sequence[str]) -> None:
        """Use a stream until it ends; ``names`` are those in the other side's certificate.

        Raises: what a stream does; whoever made the stream tells the other side.
        """
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await stream.read()
        except TimeoutError:
            raise LinkBroken(f"no hello within {HELLO_S:g} s") from None
        if frame is None:
            return
        hello = check_hello(frame, self.me.instance)
        peer = Peer(hello.role, hello.name, hello.instance)
        self._check_proof(peer, names)
        link = self._accept(peer)
        await stream.write(link.hello(self.me).SerializeToString())
        await link.converse(hello, stream)

    def _check_proof(self, peer: Peer, names: Sequence[str]) -> None:
        """See that the peer is who it says it is, where that can be known.  Raises: Refused."""
        if self.tls is None or self.tls.is_proven(role_name(peer.role), peer.name, names):
            return
        log.warning("a node with a certificate of %s says that it is the %s", names, peer)
        raise Refused(f"hello says {peer}; its certificate is of {', '.join(names)}")


def _frame_part(message: pb.Message) -> bytes:
    """Return a message as it stands in a serialized frame."""
    body = message.SerializeToString()
    length = bytearray()
    rest = len(body)
    while rest > 0x7F:  # seven bits a byte, the lowest first
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"".join((_MESSAGES_TAG, length, body))


def _messages(parts: Iterable[bytes]) -> list[object]:
    return [wire.decode(pb.Frame.FromString(part).messages[0]) for part in parts]


_CLOCK: list[str] = []


def _clock_name() -> str:
    """Return what all processes have in common that read this monotonic clock."""
    if not _CLOCK:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers may have a clock of their own beside the machine's.
        offsets = Path("/proc/self/timens_offsets")
        _CLOCK.append(f"{boot} {offsets.read_text() if offsets.exists() else ''}")
    return _CLOCK[0]
