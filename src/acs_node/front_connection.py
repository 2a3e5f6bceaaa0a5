"""One client connection: framing, its bounds and its time-outs.

A subclass of uvicorn's httptools protocol, which keeps what that one is good at (framing,
pipelining, graceful shutdown) and spares the invoke route the ASGI machinery: a scope, a task,
an event and three awaits per request, which cost more than the scheduler.
"""

from __future__ import annotations

import math
from asyncio import TimerHandle, Transport
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import ApiError, too_large, unavailable
from .front_cycle import PAYLOAD_BYTES_MAX, Head, InvokeCycle
from .pace import LOOK_S, Pace

if TYPE_CHECKING:
    from .front import Front

__all__ = ["CACHED_BYTES_MAX", "CONNECTIONS_MAX", "Connection", "remember"]

HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers; more is answered with 431."""

HEADERS_MAX: Final = 256
"""Each takes some 150 bytes of memory, however short it is."""

SURPLUS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Read and thrown away of a body that is too large, for the answer to be heard; then the end."""

FRAMING_BYTES_MAX: Final = 512 * 1024
"""What may come with a body and is none of it (sizes of chunks, trailers), beyond what small
chunks need.  A read has up to 256 KiB of what comes after, which is counted with it."""

FRAMING_BYTES_PER_BYTE: Final = 8
"""The smallest chunk: one byte, with its size and the ends of two lines."""

CONNECTIONS_MAX: Final = 10_000
"""At once, or half of the descriptors that the process may open; more are answered with 503."""

_CACHED_MAX: Final = 4096
"""Parsed URLs and credentials that are remembered; both repeat from request to request."""

CACHED_BYTES_MAX: Final = 1024
"""The longest of them: a head may have 64 KiB, but one that is so long does not repeat."""

_NOT_PLAIN: Final = frozenset((b"x-request-id", b"expect", b"transfer-encoding", b"upgrade"))


class Connection(HttpToolsProtocol):
    """One client connection."""

    front: Front

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole = True  # the parser stands between two requests
        self._head_bytes = -1  # none is being read
        self._head_chunks_bytes = 0
        self._in_head = False
        self._framing_bytes = 0  # of this request, behind its head
        self._body_bytes = 0
        self._pace = Pace()
        self._refused = False
        self._declining = False
        self._idle_since = 0.0
        self._look_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.front.connections_max:
            self.url, self.headers = b"", []
            self._refuse(_too_many_connections(len(self.connections), self.front.connections_max))
            return
        self._idle_since = self.loop.time()
        self._look_later()

    # --- parser callbacks ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        # The scope is made when it turns out that ASGI is needed.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._whole = False
        self._in_head = True
        self._head_bytes = 0
        self._head_chunks_bytes = 0
        self._framing_bytes = 0
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _HeadTooLarge
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it must not count as a header
        self._head_bytes += len(name) + len(value)
        if len(self.headers) >= HEADERS_MAX:
            self._head_bytes = HEAD_BYTES_MAX + 1
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _HeadTooLarge
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        fresh = self._whole and (self.cycle is None or self.cycle.response_complete)
        head_end = data.find(b"\r\n\r\n") + 4 if fresh else 0
        if head_end > 3:
            head = self.front.heads.get(data[:head_end])
            if head is not None and len(data) - head_end == head.length:
                # The same bytes mean the same: what the parser made of them is known.
                cycle = InvokeCycle.of(self, head)
                self.cycle = cycle  # type: ignore[assignment]
                cycle.invoke(head.identity, head.invocation, data[head_end:])
                return
        headers = self.headers
        self._pace.received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(offer, data)
        except httptools.HttpParserError:
            self._refuse_unreadable()
        if self._head_bytes >= 0 and self.headers is headers:
            # A header comes to on_header as a whole, so one without an end never does.
            self._head_chunks_bytes += len(data)
            if self._head_chunks_bytes > HEAD_BYTES_MAX:
                self._refuse(_head_too_large())
        if not self._whole and not self._in_head:
            self._bound_body(len(data))
        if 3 < head_end <= CACHED_BYTES_MAX and self._whole:
            self._remember_head(data, head_end)

    def _remember_head(self, data: bytes, head_end: int) -> None:
        """Keep what the parser made of a head, if ``data`` was one plain invocation."""
        cycle: Any = self.cycle
        if not isinstance(cycle, InvokeCycle) or cycle.understood is None or not cycle.keep_alive:
            return
        names = [name for name, _ in self.headers]
        length = dict(self.headers).get(b"content-length", b"")
        plain = not _NOT_PLAIN.intersection(names) and names.count(b"content-length") == 1
        if plain and length.isdigit() and int(length) == len(data) - head_end:
            identity, invocation = cycle.understood
            head = Head(identity, invocation, int(length))
            remember(self.front.heads, data[:head_end], head)

    def _decline(self, offer: httptools.HttpParserUpgrade | None, data: bytes) -> None:
        """Go on in HTTP/1.1 with a client that offers another protocol in ``data``.

        The parser takes the body of such a request for the other protocol, so a new one reads
        the head once more, without the offer, and what follows it.
        """
        rest = memoryview(data)
        while offer is not None and self._declining:
            self._declining = False
            head = [
                b"%b %b HTTP/" % (self.parser.get_method(), self.url),
                self.parser.get_http_version().encode() + b"\r\n",
                *(b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade"),
                b"\r\n",
            ]
            rest = rest[offer.args[0] :]
            offer = None
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(b"".join(head))
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as another:
                offer = another
            except httptools.HttpParserError:
                self._refuse_unreadable()
        if offer is not None:
            self._refused = True  # CONNECT: what follows its head is no HTTP

    def _bound_body(self, read_bytes: int) -> None:
        """End a body that goes on and on, after so many more bytes of it have been read."""
        self._framing_bytes += read_bytes
        is_invocation = isinstance(self.cycle, InvokeCycle)
        used = PAYLOAD_BYTES_MAX if is_invocation else self.front.body_bytes_max
        if self._body_bytes > used + SURPLUS_BYTES_MAX:
            self._refuse(too_large("Request", self._body_bytes, used))
        elif self._framing_bytes > FRAMING_BYTES_MAX + FRAMING_BYTES_PER_BYTE * self._body_bytes:
            self._refuse(ApiError(400, "The body is little and its framing much."))

    def _refuse_unreadable(self) -> None:
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(_head_too_large())
        else:
            self._refuse(ApiError(400, "Invalid HTTP request received."))

    def _refuse(self, error: ApiError) -> None:
        """Answer a request that cannot be read, after those before it; then close."""
        self._refused = True
        cycle: Any = self.cycle
        if isinstance(cycle, InvokeCycle) and not cycle.whole:
            cycle.refuse(error)  # its body cannot be read
        elif not isinstance(cycle, InvokeCycle) and cycle is not None and cycle.more_body:
            self.transport.close()  # likewise; its application hears that the client has gone
        else:
            self._enqueue(InvokeCycle(self, error))

    def on_headers_complete(self) -> None:
        self._head_bytes = -1
        self._in_head = False
        parser = self.parser
        method = parser.get_method()
        if not self.url.startswith(b"/") and method != b"CONNECT":
            self.url = _origin_form(self.url)
        if parser.should_upgrade() and method != b"CONNECT":
            self._declining = True
            return
        if method != b"POST" or not self.front.is_invocation(self.url):
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expects
            self.scope["headers"] = headers
            super().on_headers_complete()
            return
        self._enqueue(InvokeCycle(self))

    def _enqueue(self, cycle: InvokeCycle) -> None:
        before = self.cycle
        self.cycle = cycle  # type: ignore[assignment]
        if before is None or before.response_complete:
            cycle.begin()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, InvokeCycle):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        cycle: Any = self.cycle
        if isinstance(cycle, InvokeCycle):
            cycle.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._declining:
            return
        self._whole = True
        cycle: Any = self.cycle
        if isinstance(cycle, InvokeCycle):
            cycle.whole = True
            if cycle.turn:
                cycle.run()
        else:
            super().on_message_complete()

    # --- time-outs: one timer per connection instead of one per request --------------------------

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            # Not from here: they may be answered at once, and a thousand would nest too deep.
            self.loop.call_soon(self._start_next)
            return
        if not self.flow.write_paused:
            self.flow.resume_reading()
        self._idle_since = self.loop.time()

    def _start_next(self) -> None:
        if self.transport.is_closing():
            return
        cycle, app = self.pipeline.pop()
        # No more is read while others wait; the last one may lack a part of its body.
        if not self.pipeline and not self.flow.write_paused:
            self.flow.resume_reading()
        self._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """Read no further requests of a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.pipeline and not self.transport.is_closing():
            self.flow.resume_reading()

    def _look_later(self) -> None:
        self._look_timer = self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """End a connection on which nothing happens, or too little."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if self.transport.is_closing():
            # It waits for the client to take what it was answered.
            receiving = idle = False
        else:
            receiving = not (self._whole or self._refused or self.flow.read_paused)
            cycle: Any = self.cycle
            answered = cycle is None or cycle.response_complete
            idle = self._whole and answered and self._idle_since + LOOK_S <= self.loop.time()
        slow = self._pace.look(receiving=receiving, unsent_bytes=unsent_bytes)
        if slow and unsent_bytes:
            self.transport.abort()
        elif slow:
            self._refuse(ApiError(408, slow))
        elif idle:
            self.transport.close()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
        super().connection_lost(exc)


class _HeadTooLarge(Exception):
    """Raised inside the parser, to stop it; it comes out as the parser's own error."""


def _head_too_large() -> ApiError:
    return ApiError(
        431,
        "The head of the request is larger than allowed:"
        f" {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers.",
    )


def _too_many_connections(count: int, connections_max: int) -> ApiError:
    return unavailable(
        f"Too many connections are open (count: {count}, allowed: {connections_max})."
        " There is room when one ends, as those do that idle;"
        f" up to {CONNECTIONS_MAX} are allowed where the process may open twice as many files.",
        math.ceil(2 * LOOK_S),
    )


def _origin_form(url: bytes) -> bytes:
    """Return the URL of a request without its scheme and host, which a proxy's client sends."""
    parsed = httptools.parse_url(url)
    if parsed.schema is None:
        return url
    path: bytes = parsed.path or b"/"
    return path if parsed.query is None else b"%b?%b" % (path, parsed.query)


def remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep the newest; the oldest goes when the cache is full."""
    if len(cache) >= _CACHED_MAX:
        del cache[next(iter(cache))]
    cache[key] = value
