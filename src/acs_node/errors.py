"""What a refused HTTP request is told: ``ApiError``, and every text that clients compare.

The texts are those of the OpenWhisk v1 API, spelling included.  A text that only one place
uses stands at that place.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import getrandbits
from typing import Final

import orjson

__all__ = [
    "API_HEADERS",
    "ApiError",
    "already_exists",
    "concurrent_modification",
    "database_unavailable",
    "error_body",
    "forbidden",
    "internal_error",
    "invalid_credentials",
    "kind_forbidden",
    "malformed_content",
    "malformed_query",
    "method_not_allowed",
    "missing_credentials",
    "not_found",
    "not_found_named",
    "request_id",
    "route_not_found",
    "too_large",
    "too_many_in_flight",
    "unavailable",
    "unsupported_media_type",
    "wrong_collection",
]

API_HEADERS: list[tuple[bytes, bytes]] = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-allow-headers",
        b"Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent",
    ),
    (b"access-control-allow-methods", b"GET, DELETE, POST, PUT, HEAD"),
]
"""On every answer of an API route, and all that ``OPTIONS`` answers."""

_CHALLENGE = (("WWW-Authenticate", 'Basic realm="OpenWhisk secure realm"'),)


UNAVAILABLE_RETRY_S: Final = 1
"""When a caller may come back whom the database kept out: it is tried again this often."""


class ApiError(Exception):
    """A request that ends with ``status`` and the body ``{"error": text, "code": id}``."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.status}: {self.text}"


def error_body(text: str, tid: str) -> bytes:
    """Return the JSON body of an error; ``tid`` is the request's ``X-Request-ID``."""
    return orjson.dumps({"error": text, "code": tid})


def request_id(header_value: bytes | None) -> str:
    """Return the request's own id, or a fresh one of 32 characters.

    An id that starts with ``sid_`` is not taken over: those are a server's own.
    """
    if header_value and header_value[:4].lower() != b"sid_":
        return header_value.decode("latin-1")
    return f"{getrandbits(128):032x}"


def malformed_content(detail: str) -> ApiError:
    return ApiError(400, f"The request content was malformed:\n{detail}")


def malformed_query(parameter: str, detail: str) -> ApiError:
    return ApiError(400, f"The query parameter '{parameter}' was malformed:\n{detail}")


def missing_credentials() -> ApiError:
    return ApiError(
        401,
        "The resource requires authentication, which was not supplied with the request",
        _CHALLENGE,
    )


def invalid_credentials() -> ApiError:
    return ApiError(401, "The supplied authentication is invalid", _CHALLENGE)


def forbidden(resource: str) -> ApiError:
    return ApiError(403, f"The supplied authentication is not authorized to access '{resource}'.")


def kind_forbidden(kind: str) -> ApiError:
    return ApiError(
        403, f"The supplied authentication is not authorized to access actions of kind '{kind}'."
    )


def not_found() -> ApiError:
    """Return the 404 of an entity or a record that does not exist."""
    return ApiError(404, "The requested resource does not exist.")


def not_found_named(resource: str) -> ApiError:
    """Return the 404 of a package that does not exist in the caller's own namespace."""
    return ApiError(404, f"The requested resource '{resource}' does not exist.")


def route_not_found() -> ApiError:
    return ApiError(404, "The requested resource could not be found.")


def method_not_allowed(supported: Iterable[str]) -> ApiError:
    methods = ", ".join(supported)
    text = f"HTTP method not allowed, supported methods: {methods}"
    return ApiError(405, text, (("Allow", methods),))


def already_exists() -> ApiError:
    return ApiError(409, "resource already exists")


def concurrent_modification() -> ApiError:
    return ApiError(409, "Concurrent modification to resource detected.")


def wrong_collection() -> ApiError:
    return ApiError(409, "Resource by this name exists but is not in this collection.")


def too_large(field: str, size_bytes: int, size_bytes_max: int) -> ApiError:
    return ApiError(413, f"{field} larger than allowed: {size_bytes} > {size_bytes_max} bytes.")


def unsupported_media_type() -> ApiError:
    return ApiError(415, "The request's Content-Type is not supported. Expected:\napplication/json")


def internal_error() -> ApiError:
    return ApiError(500, "There was an internal server error.")


def database_unavailable(uncertain: bool) -> ApiError:
    """Return the 503 of a request for which the database did not answer."""
    done = (
        "it is not known whether the change was made, so look before you repeat it"
        if uncertain
        else "nothing was changed"
    )
    why = f"The database does not answer (tries: 1, allowed: 1); {done}. The server's log has the"
    return unavailable(f"{why} cause, and it goes on when that is gone.", UNAVAILABLE_RETRY_S)


def too_many_in_flight(reason: str, retry_after_us: int = 0) -> ApiError:
    """Return the 429 of a queue or a namespace that takes no more; ``reason`` says why."""
    retry_s = max(1, -(-retry_after_us // 1_000_000))
    text = f"Too many concurrent requests in flight: {reason.rstrip('.')}."
    return ApiError(429, text, (("Retry-After", str(retry_s)),))


def unavailable(why: str, retry_after_s: int | None) -> ApiError:
    """Return a 503; ``why`` says which limit, how much there is, and what would lift it.

    ``retry_after_s`` None: waiting does not help.
    """
    text = "The server is currently unavailable (because it is overloaded or down for maintenance)."
    headers = () if retry_after_s is None else (("Retry-After", str(retry_after_s)),)
    return ApiError(503, f"{text} {why}", headers)
