"""What a web action's result is over HTTP: by the extension of its URL, status, headers and body.

Pure.  The forms and the texts are those of OpenWhisk's web actions.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from .errors import ApiError

__all__ = ["EXTENSIONS", "WebResponse", "is_json_type", "is_text_type", "web_response"]


@dataclass(frozen=True, slots=True)
class WebResponse:
    """An answer; ``headers`` are as they go over the wire, without the length."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def web_response(extension: str, result: Any) -> WebResponse:
    """Return what a result is; ``extension`` is one of ``EXTENSIONS``.

    Raises: ApiError 400 or 404, when the result has not the form that the extension asks for.
    """
    return _FORMS[extension](result)


def is_json_type(media_type: str) -> bool:
    """Tell whether a media type, in lower case and without parameters, is JSON."""
    return media_type == "application/json" or media_type.endswith("+json")


def is_text_type(media_type: str) -> bool:
    """Tell whether content of a media type is text; what is not is passed on in base64."""
    return (
        media_type.startswith("text/")
        or is_json_type(media_type)
        or media_type in _TEXT_TYPES
        or media_type.endswith("+xml")
    )


_TEXT_TYPES: Final = (
    "application/xml",
    "application/javascript",
    "application/x-javascript",
    "application/x-www-form-urlencoded",
)


# --- forms ---------------------------------------------------------------------------------------


def _json(result: Any) -> WebResponse:
    if not isinstance(result, dict | list):
        raise _not_valid("application/json")
    return _of_type("application/json", _dump(result))


def _text(result: Any) -> WebResponse:
    value = result
    if isinstance(result, dict):
        field = next((name for name in ("body", "text") if name in result), None)
        if field is None:
            raise ApiError(404, "Response does not include requested property.")
        value = result[field]
    text = value.encode() if isinstance(value, str) else _dump(value)
    return _of_type("text/plain; charset=UTF-8", text)


def _html(result: Any) -> WebResponse:
    return _of_type("text/html; charset=UTF-8", _string(result, "html", "text/html"))


def _svg(result: Any) -> WebResponse:
    return _of_type("image/svg+xml", _string(result, "svg", "image/svg+xml"))


def _string(result: Any, field: str, media_type: str) -> bytes:
    value = result
    if isinstance(result, dict):
        value = result.get("body", result.get(field))
    if not isinstance(value, str):
        raise _not_valid(media_type)
    return value.encode()


def _http(result: Any) -> WebResponse:
    if not isinstance(result, dict):
        raise _not_valid("message/http")
    headers = list(_headers(result.get("headers")))
    body = result.get("body")
    empty = body is None or body == ""
    status = _status(result.get("statusCode"), HTTPStatus.NO_CONTENT if empty else HTTPStatus.OK)
    if empty or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return WebResponse(status, tuple(headers), b"")
    given = next((value for name, value in headers if name.lower() == b"content-type"), None)
    content_type, data = _content(body, None if given is None else given.decode("latin-1"))
    if given is None:
        headers.append((b"content-type", content_type.encode()))
    return WebResponse(status, tuple(headers), data)


_FORMS: Final = {".http": _http, ".json": _json, ".text": _text, ".html": _html, ".svg": _svg}

EXTENSIONS: Final = tuple(_FORMS)
"""The first is meant where a URL has none."""


# --- parts of .http ------------------------------------------------------------------------------


def _status(value: Any, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, str) and re.fullmatch("[0-9]{3}", value):
        value = int(value)
    # One below 200 would not end the request.
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise _not_valid("message/http")
    return value


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

_OF_THE_CONNECTION: Final = frozenset(
    ("connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade")
)
"""Headers that only the server can know; an action's own ones are left out."""


def _headers(given: Any) -> Iterator[tuple[bytes, bytes]]:
    if given is None:
        return
    if not isinstance(given, dict):
        raise _not_valid("message/http")
    for name, values in given.items():
        if not _HEADER_NAME.fullmatch(name):
            raise _not_valid("message/http")
        for value in values if isinstance(values, list) else [values]:
            text = _header_value(value)
            if name.lower() not in _OF_THE_CONNECTION:
                yield name.encode(), text.encode()


def _header_value(value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float):
        text = orjson.dumps(value).decode()
    else:
        raise _not_valid("message/http")
    if not _HEADER_VALUE.fullmatch(text):
        raise _not_valid("message/http")
    return text


_MEDIA_TYPE = re.compile(r"[!#$&^_.+0-9a-z-]+/[!#$&^_.+0-9a-z-]+")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


def _content(body: Any, given: str | None) -> tuple[str, bytes]:
    """Return the content type and the bytes of a body, whose type may be given by a header."""
    media_type = None
    if given is not None:
        media_type = given.partition(";")[0].strip().lower()
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise ApiError(400, "Response did not specify a known content-type.")
    if not isinstance(body, str):
        if media_type is not None and not is_json_type(media_type):
            raise _mismatch()
        return "application/json", _dump(body)
    if media_type is None or given is None:
        return "text/html; charset=UTF-8", body.encode()
    if is_json_type(media_type) and _BASE64.fullmatch(body):
        return given, base64.b64decode(body)
    if not is_text_type(media_type):
        try:
            return given, base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise _mismatch() from None
    charset = _CHARSET.search(given)
    try:
        return given, body.encode(charset[1] if charset else "utf-8")
    except (LookupError, UnicodeError):
        return given, body.encode()


def _of_type(content_type: str, body: bytes) -> WebResponse:
    return WebResponse(HTTPStatus.OK, ((b"content-type", content_type.encode()),), body)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested deeper than can be written
        raise _not_valid("application/json") from None


def _not_valid(what: str) -> ApiError:
    return ApiError(400, f"Response is not valid '{what}'.")


def _mismatch() -> ApiError:
    return ApiError(400, "Response type in header did not match generated content type.")
