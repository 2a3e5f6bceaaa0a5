"""What is answered over HTTP beside errors: JSON."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

__all__ = ["json_bytes", "json_response"]


def json_response(value: Any, status: int = 200) -> Response:
    """Return an answer whose body is ``value`` as JSON."""
    return json_bytes(orjson.dumps(value), status)


def json_bytes(body: bytes, status: int = 200) -> Response:
    """Return an answer whose body is JSON already."""
    return Response(body, status, media_type="application/json")
