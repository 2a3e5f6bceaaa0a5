"""What a server says of itself to programs on its machine."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from . import clock
from .addresses import is_loopback
from .houses import House

__all__ = ["Status", "with_status"]


class Status:
    """What the server says of itself, in numbers."""

    def __init__(self, house: House, instance: str) -> None:
        self._house = house
        self._instance = instance
        self._started_us = clock.now_us()

    def document(self) -> dict[str, Any]:
        """Return it as JSON can take it."""
        uptime_ms = (clock.now_us() - self._started_us) // 1000
        return {"uptime_ms": uptime_ms, **self._house.document()}


def with_status(app: ASGIApp, status: Status) -> ASGIApp:
    """Answer ``GET /api/v1/acs/status`` to clients on this machine; it names nobody's data."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        local = scope["type"] == "http" and scope["path"] == "/api/v1/acs/status"
        if not (local and scope.get("client") and is_loopback(scope["client"][0])):
            await app(scope, receive, send)
            return
        body = orjson.dumps(status.document())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
