"""The HTTP connections to one container: each carries a request at a time.

Sends ready-made bodies and hands back status and body; what they mean is
``runtime_protocol``.  The answer of an action proxy nearly always arrives whole and with a
Content-Length; that case is answered without a parser, all else goes to httptools.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import httptools

OnReply = Callable[[int, bytes, int], None]
"""Called with status, body and the body's whole size, of which ``body`` may be the beginning."""

BODY_KEPT_MAX = 2 * 1024 * 1024
"""More of an answer than this is counted, not kept: results may have 1 MiB."""


class ContainerConnection(asyncio.Protocol):
    """One keep-alive connection.  ``on_lost`` is called once, when it ends for any reason.

    ``lost`` tells whether it has ended.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._on_lost = on_lost
        self._on_reply: OnReply | None = None
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._parts: list[bytes] = []
        self._kept = 0
        self._size = 0

    @classmethod
    async def open(
        cls, path: str, on_lost: Callable[[], None], port: int = 0
    ) -> ContainerConnection:
        """Connect to the socket at ``path``, or to ``port`` of loopback.  Raises: OSError."""
        loop = asyncio.get_running_loop()
        if port:
            _, connection = await loop.create_connection(lambda: cls(on_lost), "127.0.0.1", port)
        else:
            _, connection = await loop.create_unix_connection(lambda: cls(on_lost), path)
        return connection

    def post(self, route: bytes, body: bytes, on_reply: OnReply) -> None:
        """Send a request.  Without an answer ``on_lost`` is all that comes."""
        assert self._on_reply is None, "one request at a time"
        assert self._transport is not None
        self._on_reply = on_reply
        self._transport.write(
            b"POST %b HTTP/1.1\r\nHost: action\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (route, len(body), body)
        )

    def close(self) -> None:
        """End the connection; ``on_lost`` follows."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._on_reply = None
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            if self._whole(data):
                return
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    # --- the usual answer ----------------------------------------------------------------------

    def _whole(self, data: bytes) -> bool:
        """Answer with ``data`` if it is one whole, plain response."""
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or data[:9] != b"HTTP/1.1 ":
            return False
        head = data[:head_end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0 or b"\r\ntransfer-encoding:" in head:
            return False
        line_end = head.find(b"\r\n", at + 2)
        length = head[at + 17 :] if line_end < 0 else head[at + 17 : line_end]
        body = data[head_end + 4 :]
        try:
            if int(length) != len(body) or len(body) > BODY_KEPT_MAX:
                return False
            status = int(data[9:12])
        except ValueError:
            return False
        self._answer(status, body, len(body))
        return True

    def _answer(self, status: int, body: bytes, size: int) -> None:
        on_reply = self._on_reply
        self._on_reply = None
        if on_reply is None:
            self.close()  # an answer that nobody asked for: the container is not to be trusted
            return
        on_reply(status, body, size)

    # --- httptools -----------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._kept < BODY_KEPT_MAX:
            part = data[: BODY_KEPT_MAX - self._kept]
            self._kept += len(part)
            self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._parser is None:
            self.close()  # more than one answer to one request
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        body, size = b"".join(self._parts), self._size
        self._parts, self._kept, self._size = [], 0, 0
        self._parser = None
        self._answer(status, body, size)


class ContainerConnections:
    """Several connections to one container, as one that takes any number of requests.

    More are opened with ``open_more`` when they are needed, up to ``connections_max``; what comes
    beyond that waits its turn.  When one of those ends all do, for a container that closes one is
    not to be trusted.  The owner hears of the end of the first, and closes the others.
    """

    def __init__(
        self,
        first: ContainerConnection,
        open_more: Callable[[Callable[[], None]], Awaitable[ContainerConnection]],
    ) -> None:
        self.connections_max = 1
        self._open_more = open_more
        self._open = [first]
        self._idle = [first]
        self._waiting: deque[tuple[bytes, bytes, OnReply]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def lost(self) -> bool:
        """Whether it has ended."""
        return self._open[0].lost

    def post(self, route: bytes, body: bytes, on_reply: OnReply) -> None:
        """Send a request as soon as a connection is free; see ``ContainerConnection``."""
        self._waiting.append((route, body, on_reply))
        self._serve()

    def close(self) -> None:
        """End every connection; idempotent."""
        self._closed = True
        self._waiting.clear()
        for task in self._opening:
            task.cancel()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.pop()
            route, body, on_reply = self._waiting.popleft()
            connection.post(route, body, partial(self._replied, connection, on_reply))
        there = len(self._open) + len(self._opening)
        missing = len(self._waiting) - len(self._opening)
        for _ in range(min(missing, self.connections_max - there)):
            self._opening.add(asyncio.ensure_future(self._connect()))

    def _replied(
        self,
        connection: ContainerConnection,
        on_reply: OnReply,
        status: int,
        body: bytes,
        size: int,
    ) -> None:
        self._idle.append(connection)
        self._serve()
        on_reply(status, body, size)

    async def _connect(self) -> None:
        try:
            connection = await self._open_more(self.close)
        except OSError:
            return  # what waits is served by those that there are
        finally:
            # Not when the task is done, a turn of the loop later: who posts meanwhile counts it.
            task = asyncio.current_task()
            assert task is not None
            self._opening.discard(task)
        self._open.append(connection)
        self._idle.append(connection)
        if self._closed:
            connection.close()
        self._serve()


class FreshConnections:
    """A connection for each request, to a proxy on TCP, as OpenWhisk does it.

    Proxies that are not ours close connections as they please, so one that ends says nothing
    unless an answer was due on it.  ``on_lost`` is called once, when that happens.
    """

    def __init__(self, port: int, on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._port = port
        self._on_lost = on_lost
        self._open: set[ContainerConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    def post(self, route: bytes, body: bytes, on_reply: OnReply) -> None:
        """Send a request; see ``ContainerConnection``."""
        task = asyncio.ensure_future(self._exchange(route, body, on_reply))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def close(self) -> None:
        """End every connection; ``on_lost`` does not follow."""
        self.lost = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._open):
            connection.close()

    async def _exchange(self, route: bytes, body: bytes, on_reply: OnReply) -> None:
        def lost() -> None:
            if connection in self._open:
                self._open.discard(connection)
                self._lose()

        def reply(status: int, body: bytes, size: int) -> None:
            self._open.discard(connection)
            connection.close()
            on_reply(status, body, size)

        try:
            connection = await ContainerConnection.open("", lost, self._port)
        except OSError:
            self._lose()
            return
        self._open.add(connection)
        if connection.lost:
            lost()
        else:
            connection.post(route, body, reply)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._on_lost()
