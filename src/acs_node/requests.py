"""What is read of an HTTP request: who asks, its query parameters, its JSON body."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.types import Scope

from .entities import EntityStore, Identity
from .errors import (
    invalid_credentials,
    malformed_content,
    malformed_query,
    missing_credentials,
    too_large,
    unsupported_media_type,
)

__all__ = [
    "authenticate_header",
    "epoch_ms",
    "flag",
    "header",
    "json_object",
    "page",
    "payload",
    "read_body",
]

LIST_LIMIT: Final = 30
LIST_LIMIT_MAX: Final = 200

_INT64_MAX: Final = 2**63 - 1
"""The largest number that a database compares with; a skip or a time beyond it is cut to it."""

_INTEGER = re.compile(r"-?[0-9]{1,100}")


def authenticate_header(entities: EntityStore, raw_header: bytes | None) -> Identity:
    """Return who the value of an ``Authorization`` header is.  About 3 µs; no I/O.

    Raises: ApiError 401 for a missing, malformed or wrong one.
    """
    if not raw_header:
        raise missing_credentials()
    scheme, _, encoded = raw_header.strip().partition(b" ")
    if scheme.lower() != b"basic":
        raise invalid_credentials()
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise invalid_credentials() from None
    uuid, _, key = decoded.partition(":")
    identity = entities.authenticate(uuid, key)
    if identity is None:
        raise invalid_credentials()
    return identity


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of this lower-case ``name``."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a query parameter that is true or false.  Raises: ApiError 400."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.lower() not in ("true", "false"):
        raise malformed_query(name, f"The value '{text}' is neither true nor false.")
    return text.lower() == "true"


def page(request: Request, collection: str) -> tuple[int, int]:
    """Return skip and limit of a list request.  Raises: ApiError 400."""
    skip = _integer(request, "skip", 0, collection)
    if skip < 0:
        raise malformed_query(
            "skip", f"The value '{skip}' is not greater than or equal to 0 for {collection}."
        )
    limit = _integer(request, "limit", LIST_LIMIT, collection)
    if not 0 <= limit <= LIST_LIMIT_MAX:
        raise malformed_query(
            "limit",
            f"The value '{limit}' is not in the range of 0 to {LIST_LIMIT_MAX} for {collection}.",
        )
    return min(skip, _INT64_MAX), limit or LIST_LIMIT_MAX


def _integer(request: Request, name: str, default: int, collection: str) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        raise malformed_query(name, f"The value '{text}' is not an integer for {collection}.")
    return int(text)


def epoch_ms(request: Request, name: str) -> int | None:
    """Return a query parameter that is a time in ms, if given.  Raises: ApiError 400."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or int(text) < 0:
        raise malformed_query(name, f"Parameter is not a valid value for epoch seconds: {text}")
    return min(int(text), _INT64_MAX)


async def json_object(request: Request, size_bytes_max: int) -> dict[str, Any]:
    """Return the body, which must be a JSON object; no more of it is read than the bound.

    Raises: ApiError 400, 413 or 415.
    """
    body = await payload(request, size_bytes_max)
    if not body:
        raise malformed_content("The body is empty, a JSON object is expected.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed_content(str(error)) from None
    if not isinstance(value, dict):
        raise malformed_content("The body must be a JSON object.")
    return value


async def payload(request: Request, size_bytes_max: int) -> bytes:
    """Return the body, which says that it is JSON or is empty; no more is read than the bound.

    Raises: ApiError 413 or 415.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in ("application/json", ""):
        raise unsupported_media_type()
    body = await read_body(request, size_bytes_max)
    if body and not content_type:
        raise unsupported_media_type()
    return body


async def read_body(request: Request, size_bytes_max: int) -> bytes:
    """Return the body; no more of it is read than the bound.  Raises: ApiError 413."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > size_bytes_max:
        raise too_large("Request", int(announced), size_bytes_max)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > size_bytes_max:
            raise too_large("Request", len(body), size_bytes_max)
    return bytes(body)
