"""The HTTP front: answers invocations in the protocol itself, leaves all else to ASGI.

What all connections share, and what an invoke URL means; ``front_connection`` has a connection,
``front_cycle`` a request and its answer.
"""

from __future__ import annotations

import resource
from asyncio import Transport, get_running_loop
from typing import Final
from urllib.parse import parse_qsl, unquote

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .controller import Controller
from .entities import EntityStore
from .entity_types import Identity
from .errors import (
    malformed_query,
)
from .front_connection import CACHED_BYTES_MAX, CONNECTIONS_MAX, Connection, remember
from .front_cycle import Head
from .invocations import BLOCKING_MS_MAX, Invocation
from .names import check_entity_name, resolve_namespace
from .requests import authenticate_header

_PREFIX: Final = b"/api/v1/namespaces/"

_DIGITS_MAX: Final = 20
"""Of a number in a query, leading zeros included: int() refuses thousands."""


class Front:
    """What the connections of one server share: the controller, and what was parsed before."""

    def __init__(self, controller: Controller, entities: EntityStore) -> None:
        self.controller = controller
        self._entities = entities
        self._is_invocation: dict[bytes, bool] = {}
        self._invocations: dict[tuple[bytes, str], Invocation] = {}
        self._identities: dict[bytes, Identity] = {}
        self.heads: dict[bytes, Head] = {}
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
        return type("InvokeProtocol", (Connection,), {"front": self})

    def identity(self, authorization: bytes | None) -> Identity:
        """Return who asks.  Raises: ApiError 401."""
        known = self._identities.get(authorization or b"")
        if known is not None and self.is_current(known):
            return known
        identity = authenticate_header(self._entities, authorization)
        assert authorization is not None
        # A function's key is for a while only, and its memory would never be used again.
        if len(authorization) <= CACHED_BYTES_MAX and not identity.callers:
            remember(self._identities, authorization, identity)
        return identity

    def is_invocation(self, url: bytes) -> bool:
        """Tell whether a POST to this URL is for the invoke route."""
        known = self._is_invocation.get(url)
        if known is None:
            known = is_invocation(url)
            if len(url) <= CACHED_BYTES_MAX:
                remember(self._is_invocation, url, known)
        return known

    def invocation(self, url: bytes, own_namespace: str) -> Invocation:
        """Return what the URL asks for.  Raises: ApiError 400."""
        known = self._invocations.get((url, own_namespace))
        if known is None:
            known = parse_invocation(url, own_namespace)
            if len(url) <= CACHED_BYTES_MAX:
                remember(self._invocations, (url, own_namespace), known)
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


def _flag(key: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise malformed_query(key, f"The value '{value}' is neither true nor false.")
    return value.lower() == "true"
