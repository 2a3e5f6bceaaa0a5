"""One invoke request and its answer, in the HTTP protocol itself."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from .entity_types import Identity
from .errors import (
    API_HEADERS,
    ApiError,
    error_body,
    internal_error,
    invalid_credentials,
    request_id,
    too_large,
    unsupported_media_type,
)
from .invocations import Invocation

if TYPE_CHECKING:
    from .front_connection import Connection

__all__ = ["PAYLOAD_BYTES_MAX", "Head", "InvokeCycle"]

PAYLOAD_BYTES_MAX: Final = 1024 * 1024

STRANGER_BYTES_MAX: Final = 64 * 1024
"""Of a body that is kept before it is known that the client may invoke."""

_HEADERS: Final = b"".join(b"%b: %b\r\n" % header for header in API_HEADERS)
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class _Ignored:
    """Stands for the event on which an ASGI application would wait."""

    def set(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a plain invocation means: it is the same for the same bytes.

    Clients send the same head again and again, and the parser is a third of what the front
    costs.  Who it identifies is checked each time: a key may have been revoked.
    """

    identity: Identity
    invocation: Invocation
    length: int


class InvokeCycle:
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

    def __init__(self, protocol: Connection, error: ApiError | None = None) -> None:
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
    def of(cls, protocol: Connection, head: Head) -> InvokeCycle:
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
        if tid is None and not identity.callers:
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


def _is_json(content_type: bytes | None) -> bool:
    media_type = (content_type or b"").partition(b";")[0]
    return media_type.strip().lower() == b"application/json"


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """Return the last header of this lower-case name."""
    for name, value in reversed(headers):
        if name == wanted:
            return value
    return None
