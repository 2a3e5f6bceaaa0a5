"""An invocation: what was asked for, who waits for the answer, and what is pending of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from .activations import Record
from .errors import ApiError
from .routes import Route

__all__ = [
    "BLOCKING_MS_MAX",
    "COMPONENT",
    "Caller",
    "Invocation",
    "Pending",
    "accepted_body",
    "tell",
]

BLOCKING_MS_MAX: Final = 60_000
"""Longest wait of a blocking invocation, and what it waits when nothing is said."""


class Caller(Protocol):
    """Who waits for the answer: one HTTP request."""

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        """Send the answer; a caller that has gone takes it and does nothing."""
        ...

    def fail(self, error: ApiError) -> None:
        """Send an error in the API's form."""
        ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a request asks for, as read from its URL."""

    namespace: str
    path: str
    blocking: bool = False
    result_only: bool = False
    timeout_ms: int = BLOCKING_MS_MAX


COMPONENT: Final = Invocation("", "")
"""What a composition invokes has no request of its own."""


@dataclass(slots=True)
class Pending:
    """An activation that has not ended.  ``caller`` is None when nobody waits any more."""

    route: Route
    invocation: Invocation
    caller: Caller | None
    arrived_us: int
    arrived_ms: int
    causes: tuple[str, ...] = ()
    timer: asyncio.TimerHandle | None = None
    cause: str = ""  # the composition that this is a part of, and who in it waits for the end
    ended: asyncio.Future[tuple[Record, bytes]] | None = None


def tell(ended: asyncio.Future[tuple[Record, bytes]], record: Record, response: bytes) -> None:
    """Give the end of a component to the composition, unless it waits no more."""
    if not ended.done():
        ended.set_result((record, response))


def accepted_body(activation_id: str) -> bytes:
    """Return the body of a 202."""
    return b'{"activationId":"%b"}' % activation_id.encode()
