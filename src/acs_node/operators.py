"""What only operators may do over HTTP: their credential, and the routes that ask for it.

The credential is a line ``user:password`` in a file.  Without such a file there is none, and these
routes are closed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from .addresses import is_loopback
from .errors import invalid_credentials, method_not_allowed, missing_credentials
from .requests import header
from .responses import json_response

__all__ = ["Disable", "InFlight", "Operator", "OperatorFileError"]

_FILE_BYTES_MAX: Final = 4_096


class OperatorFileError(ValueError):
    """The file of the credential cannot be used; the text says why and shows none of it."""


class Operator:
    """Who may do it: the holder of ``credential``, which is ``user:password``; None: nobody."""

    def __init__(self, credential: bytes | None = None) -> None:
        self._hash = None if credential is None else _hash(credential)

    @classmethod
    def of_file(cls, path: Path | None) -> Operator:
        """Read the credential; no path: nobody has one.  Raises: OperatorFileError."""
        if path is None:
            return cls()
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_BYTES_MAX + 1).strip()
        except OSError as error:
            raise OperatorFileError(f"the operator's file {path}: {error.strerror}") from None
        user, _, password = text.partition(b":")
        if len(text) > _FILE_BYTES_MAX or len(text.splitlines()) != 1 or not (user and password):
            raise OperatorFileError(
                f"the operator's file {path} must have one line user:password of at most"
                f" {_FILE_BYTES_MAX} bytes"
            )
        return cls(text)

    def check(self, authorization: bytes | None) -> None:
        """Raises: ApiError 401 unless it is the operator who asks."""
        if not authorization:
            raise missing_credentials()
        scheme, _, encoded = authorization.strip().partition(b" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            raise invalid_credentials() from None
        known = self._hash is not None and hmac.compare_digest(_hash(given), self._hash)
        if scheme.lower() != b"basic" or not known:
            raise invalid_credentials()


class InFlight:
    """``GET /activation``: the activations that have not ended, as ``[id, action]``.

    For programs on this machine and for the operator: it names what belongs to everybody.
    """

    def __init__(self, operator: Operator, listed: Callable[[], list[tuple[str, str]]]) -> None:
        self._operator = operator
        self._listed = listed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed(["GET"])
        if not _is_local(scope):
            self._operator.check(header(scope, b"authorization"))
        await json_response(self._listed())(scope, receive, send)


class Disable:
    """``POST /disable``: the controller accepts nothing more until it is started anew."""

    def __init__(self, operator: Operator, disable: Callable[[], None]) -> None:
        self._operator = operator
        self._disable = disable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise method_not_allowed(["POST"])
        self._operator.check(header(scope, b"authorization"))
        self._disable()
        response: Response = PlainTextResponse("controller is disabled")
        await response(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


def _hash(credential: bytes) -> bytes:
    return hashlib.sha256(credential).digest()
