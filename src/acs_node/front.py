"""The HTTP front: answers invocations in the protocol itself, leaves all else to ASGI.

A subclass of uvicorn's httptools protocol, which keeps what that one is good at (framing,
pipelining, graceful shutdown) and spares the invoke route the ASGI machinery: a scope, a task,
an event and three awaits per request, which cost more than the scheduler.
"""

from __future__ import annotations

import math
import resource
from asyncio import TimerHandle, Transport, get_running_loop
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .controller import BLOCKING_MS_MAX, Controller, Invocation
from .entities import EntityStore
from .entity_types import Identity
from .errors import (
    API_HEADERS,
    ApiError,
    error_body,
    internal_error,
    invalid_credentials,
    malformed_query,
    request_id,
    too_large,
    unavailable,
    unsupported_media_type,
)
from .names import check_entity_name, resolve_namespace
from .pace import LOOK_S, Pace
from .requests import authenticate_header

PAYLOAD_BYTES_MAX: Final = 1024 * 1024
HEAD_BYTES_MAX: Final = 64 * 1024
"""Request line and headers; more is answered with 431."""

HEADERS_MAX: Final = 256
"""Each takes some 150 bytes of memory, however short it is."""

STRANGER_BYTES_MAX: Final = 64 * 1024
"""Of a body that is kept before it is known that the client may invoke."""

SURPLUS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Read and thrown away of a body that is too large, for the answer to be heard; then the end."""

FRAMING_BYTES_MAX: Final = 512 * 1024
"""What may come with a body and is none of it (sizes of chunks, trailers), beyond what small
chunks need.  A read has up to 256 KiB of what comes after, which is counted with it."""

FRAMING_BYTES_PER_BYTE: Final = 8
"""The smallest chunk: one byte, with its size and the ends of two lines."""

CONNECTIONS_MAX: Final = 10_000
"""At once, or half of the descriptors that the process may open; more are answered with 503."""

_PREFIX: Final = b"/api/v1/namespaces/"
_CACHED_MAX: Final = 4096
"""Parsed URLs and credentials that are remembered; both repeat from request to request."""
_CACHED_BYTES_MAX: Final = 1024
"""The longest of them: a head may have 64 KiB, but one that is so long does not repeat."""

_DIGITS_MAX: Final = 20
"""Of a number in a query, leading zeros included: int() refuses thousands."""

_HEADERS: Final = b"".join(b"%b: %b\r\n" % header for header in API_HEADERS)


class Front:
    """What the connections of one server share: the controller, and what was parsed before."""

    def __init__(self, controller: Controller, entities: EntityStore) -> None:
        self.controller = controller
        self._entities = entities
        self._is_invocation: dict[bytes, bool] = {}
        self._invocations: dict[tuple[bytes, str], Invocation] = {}
        self._identities: dict[bytes, Identity] = {}
        self.heads: dict[bytes, _Head] = {}
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.body_bytes_max = entities.limits.body_bytes_max
        self.connections_max = min(CONNECTIONS_MAX, descriptors // 2)
        self.is_current = entities.is_current
        self._answers: list[tuple[Transport, bytes]] = []
        self._loop = get_running_loop()

    def answer(self, transport: Transport, data: bytes) -> None:
        """Write an answer at the end of this turn of the loop, after what its containers get.

        Each write wakes its client, which takes the processor at once where processors are
        few; the containers' next runs must not wait for that.
        """
        if not self._answers:
            self._loop.call_soon(self.write_answers)
        self._answers.append((transport, data))

    def write_answers(self) -> None:
        """Write the answers that wait for the end of the turn."""
        self.controller.sync()
        answers, self._answers = self._answers, []
        for transport, data in answers:
            if not transport.is_closing():
                transport.write(data)

    def protocol(self) -> type[HttpToolsProtocol]:
        """Return the protocol class to give to uvicorn."""
        return type("InvokeProtocol", (_Protocol,), {"front": self})

    def identity(self, authorization: bytes | None) -> Identity:
        """Return who asks.  Raises: ApiError 401."""
        known = self._identities.get(authorization or b"")
        if known is not None and self.is_current(known):
            return known
        identity = authenticate_header(self._entities, authorization)
        assert authorization is not None
        # A function's key is for a while only, and its memory would never be used again.
        if len(authorization) <= _CACHED_BYTES_MAX and not identity.caller:
            _remember(self._identities, authorization, identity)
        return identity

    def is_invocation(self, url: bytes) -> bool:
        """Tell whether a POST to this URL is for the invoke route."""
        known = self._is_invocation.get(url)
        if known is None:
            known = is_invocation(url)
            if len(url) <= _CACHED_BYTES_MAX:
                _remember(self._is_invocation, url, known)
        return known

    def invocation(self, url: bytes, own_namespace: str) -> Invocation:
        """Return what the URL asks for.  Raises: ApiError 400."""
        known = self._invocations.get((url, own_namespace))
        if known is None:
            known = parse_invocation(url, own_namespace)
            if len(url) <= _CACHED_BYTES_MAX:
                _remember(self._invocations, (url, own_namespace), known)
        return known


def parse_invocation(url: bytes, own_namespace: str) -> Invocation:
    """Read an invoke URL: ``/api/v1/namespaces/{ns}/actions/[{package}/]{name}[?query]``.

    Raises: ApiError 400 for an illegal name or a query parameter that cannot be read.
    """
    path, _, query = url.decode("latin-1").partition("?")
    segments = [unquote(s) for s in path.rstrip("/").split("/")[4:]]
    namespace = resolve_namespace(segments[0], own_namespace)
    names = segments[2:]
    for name in names:
        check_entity_name(name)
    blocking = result_only = False
    timeout_ms = BLOCKING_MS_MAX
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "blocking":
            blocking = _flag(key, value)
        elif key == "result":
            result_only = _flag(key, value)
        elif key == "timeout":
            digits = value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX
            if not digits or not 0 < int(value) <= BLOCKING_MS_MAX:
                raise malformed_query(
                    key, f"Timeout must be number of milliseconds up to {BLOCKING_MS_MAX}."
                )
            timeout_ms = int(value)
    return Invocation(namespace, "/".join(names), blocking, result_only, timeout_ms)


def is_invocation(url: bytes) -> bool:
    """Tell whether a POST to this URL is for the invoke route."""
    if not url.startswith(_PREFIX):
        return False
    segments = url.partition(b"?")[0].rstrip(b"/").split(b"/")
    # "", api, v1, namespaces, {ns}, actions, {name} or {package}, {name}
    return len(segments) in (7, 8) and segments[5] == b"actions"


class _Protocol(HttpToolsProtocol):
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
                cycle = _Cycle.of(self, head)
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
        if 3 < head_end <= _CACHED_BYTES_MAX and self._whole:
            self._remember_head(data, head_end)

    def _remember_head(self, data: bytes, head_end: int) -> None:
        """Keep what the parser made of a head, if ``data`` was one plain invocation."""
        cycle: Any = self.cycle
        if not isinstance(cycle, _Cycle) or cycle.understood is None or not cycle.keep_alive:
            return
        names = [name for name, _ in self.headers]
        length = dict(self.headers).get(b"content-length", b"")
        plain = not _NOT_PLAIN.intersection(names) and names.count(b"content-length") == 1
        if plain and length.isdigit() and int(length) == len(data) - head_end:
            identity, invocation = cycle.understood
            head = _Head(identity, invocation, int(length))
            _remember(self.front.heads, data[:head_end], head)

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
        is_invocation = isinstance(self.cycle, _Cycle)
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
        if isinstance(cycle, _Cycle) and not cycle.whole:
            cycle.refuse(error)  # its body cannot be read
        elif not isinstance(cycle, _Cycle) and cycle is not None and cycle.more_body:
            self.transport.close()  # likewise; its application hears that the client has gone
        else:
            self._enqueue(_Cycle(self, error))

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
        self._enqueue(_Cycle(self))

    def _enqueue(self, cycle: _Cycle) -> None:
        before = self.cycle
        self.cycle = cycle  # type: ignore[assignment]
        if before is None or before.response_complete:
            cycle.begin()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, _Cycle):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        cycle: Any = self.cycle
        if isinstance(cycle, _Cycle):
            cycle.add(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._declining:
            return
        self._whole = True
        cycle: Any = self.cycle
        if isinstance(cycle, _Cycle):
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


class _Ignored:
    """Stands for the event on which an ASGI application would wait."""

    def set(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Head:
    """What the head of a plain invocation means: it is the same for the same bytes.

    Clients send the same head again and again, and the parser is a third of what the front
    costs.  Who it identifies is checked each time: a key may have been revoked.
    """

    identity: Identity
    invocation: Invocation
    length: int


_NOT_PLAIN: Final = frozenset((b"x-request-id", b"expect", b"transfer-encoding", b"upgrade"))


class _Cycle:
    """One invoke request and its answer; plays the part of uvicorn's cycle for the base class.

    With ``error`` it is a request that cannot be read, and that is its answer.
    """

    __slots__ = (
        "_error",
        "_expects",
        "_headers",
        "_parts",
        "_protocol",
        "_size",
        "_tid",
        "_url",
        "disconnected",
        "keep_alive",
        "response_complete",
        "turn",
        "understood",
        "whole",
    )
    message_event = _Ignored()

    def __init__(self, protocol: _Protocol, error: ApiError | None = None) -> None:
        self._protocol = protocol
        self._error = error
        self._url = protocol.url
        self._headers = protocol.headers
        self._expects = protocol.expect_100_continue
        self._parts: list[bytes] = []
        self._size = 0
        self._tid = ""
        self.keep_alive = (
            error is None
            and protocol.parser.get_http_version() != "1.0"
            and protocol.parser.should_keep_alive()
        )
        self.turn = False
        self.whole = error is not None
        self.disconnected = False
        self.response_complete = False
        self.understood: tuple[Identity, Invocation] | None = None

    @classmethod
    def of(cls, protocol: _Protocol, head: _Head) -> _Cycle:
        """Return the cycle of a whole request whose head is known."""
        cycle = cls.__new__(cls)
        cycle._protocol = protocol
        cycle._tid = request_id(None)
        cycle.keep_alive = cycle.turn = cycle.whole = True
        cycle.disconnected = cycle.response_complete = False
        return cycle

    def begin(self) -> None:
        """Its turn has come: those before it on the connection are answered."""
        self.turn = True
        if self.whole:
            self.run()
        elif self._expects:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def add(self, body: bytes) -> None:
        """Take a part of the body; one that is too large is counted, not kept."""
        before = self._size
        self._size += len(body)
        if self._error is None and before <= STRANGER_BYTES_MAX < self._size:
            try:
                self._protocol.front.identity(_header(self._headers, b"authorization"))
            except ApiError as error:
                self._error = error
        if self._error is None and self._size <= PAYLOAD_BYTES_MAX:
            self._parts.append(body)
        else:
            self._parts.clear()

    def refuse(self, error: ApiError) -> None:
        """Answer with the error, as the rest of the body cannot be read."""
        self._error = error
        self.keep_alive = False
        self.whole = True
        if self.turn:
            self.run()

    def run(self) -> None:
        """Invoke, or say what is wrong with the request."""
        authorization = tid = content_type = None
        for name, value in self._headers or ():
            if name == b"authorization":
                authorization = value
            elif name == b"x-request-id":
                tid = value
            elif name == b"content-type":
                content_type = value
        self._tid = request_id(tid)
        front = self._protocol.front
        try:
            if self._error is not None:
                raise self._error
            identity = front.identity(authorization)
            invocation = front.invocation(self._url, identity.namespace)
            if self._size > PAYLOAD_BYTES_MAX:
                raise too_large("Request", self._size, PAYLOAD_BYTES_MAX)
            if self._size and content_type != b"application/json" and not _is_json(content_type):
                raise unsupported_media_type()
        except ApiError as error:
            self.fail(error)
            return
        if tid is None and not identity.caller:
            self.understood = identity, invocation
        self.invoke(identity, invocation, b"".join(self._parts))

    def invoke(self, identity: Identity, invocation: Invocation, body: bytes) -> None:
        """Have the controller invoke; whatever it says at once is the answer."""
        front = self._protocol.front
        try:
            if not front.is_current(identity):
                raise invalid_credentials()
            front.controller.invoke(identity, invocation, body, self._tid, self)
        except ApiError as error:
            self.fail(error)
        except Exception:
            self._protocol.logger.exception("request %s failed", self._tid)
            self.fail(internal_error())

    # --- the controller's Caller ---------------------------------------------------------------

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        """Send the answer."""
        more = (
            b"x-openwhisk-activation-id: %b\r\n" % activation_id.encode() if activation_id else b""
        )
        self._write(status, body, more)

    def fail(self, error: ApiError) -> None:
        """Send an error in the API's form."""
        more = b"".join(
            b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in error.headers
        )
        self._write(error.status, error_body(error.text, self._tid), more)

    def _write(self, status: int, body: bytes, more: bytes) -> None:
        transport = self._protocol.transport
        if self.disconnected or self.response_complete or transport.is_closing():
            return
        self.response_complete = True
        close = b"" if self.keep_alive else b"Connection: close\r\n"
        self._protocol.front.answer(
            transport,
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%bX-Request-ID: %b\r\n%b%b"
            b"Content-Length: %d\r\n\r\n%b"
            % (
                status,
                _PHRASES[status],
                _HEADERS,
                self._tid.encode("latin-1"),
                more,
                close,
                len(body),
                body,
            ),
        )
        if not self.keep_alive:
            self._protocol.front.write_answers()
            transport.close()
        self._protocol.on_response_complete()


_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def _is_json(content_type: bytes | None) -> bool:
    media_type = (content_type or b"").partition(b";")[0]
    return media_type.strip().lower() == b"application/json"


def _flag(key: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise malformed_query(key, f"The value '{value}' is neither true nor false.")
    return value.lower() == "true"


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """Return the last header of this lower-case name."""
    for name, value in reversed(headers):
        if name == wanted:
            return value
    return None


def _origin_form(url: bytes) -> bytes:
    """Return the URL of a request without its scheme and host, which a proxy's client sends."""
    parsed = httptools.parse_url(url)
    if parsed.schema is None:
        return url
    path: bytes = parsed.path or b"/"
    return path if parsed.query is None else b"%b?%b" % (path, parsed.query)


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep the newest; the oldest goes when the cache is full."""
    if len(cache) >= _CACHED_MAX:
        del cache[next(iter(cache))]
    cache[key] = value
