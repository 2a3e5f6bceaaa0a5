"""Web actions: ``/api/v1/web/{namespace}/{package or default}/{action}[.extension][/rest]``.

An action with the annotation ``web-export`` is called by anybody, with any method, as its owner;
the request becomes its arguments, and its result the answer (``web_responses``).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .entities import EntityStore
from .entity_types import Action, Identity, annotation
from .errors import ApiError, error_body, malformed_content, method_not_allowed, not_found
from .invocations import BLOCKING_MS_MAX, Caller, Invocation
from .requests import authenticate_header, header, read_body
from .resolution import resolve_action
from .responses import json_bytes
from .runtime_protocol import APPLICATION_ERROR, STATUS_TEXTS, SUCCESS
from .web_responses import EXTENSIONS, is_json_type, is_text_type, web_response

__all__ = ["METHODS", "PREFIX", "Invoke", "WebActions"]

PREFIX: Final = "/api/v1/web/"
METHODS: Final = ("OPTIONS", "GET", "DELETE", "POST", "PUT", "HEAD", "PATCH")

WAIT_MS = BLOCKING_MS_MAX
"""How long a client waits for the answer."""

Invoke = Callable[[Identity, Invocation, bytes, str, Caller], None]
"""``Controller.invoke``."""

_ALLOWED_HEADERS: Final = (
    b"Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
)
_RESERVED: Final = "__ow_"
_STATUSES: Final = {text.decode(): outcome for outcome, text in enumerate(STATUS_TEXTS)}


class WebActions:
    """The ASGI application of the web actions of all namespaces."""

    def __init__(self, entities: EntityStore, invoke: Invoke) -> None:
        self._entities = entities
        self._invoke = invoke

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in METHODS:
            raise method_not_allowed(sorted(METHODS))
        request = Request(scope, receive)
        target = _target(scope["path"])
        owner, action = await self._exported(target)
        cors = [] if annotation(action, "web-custom-options") is True else _cors(scope)
        if scope["method"] == "OPTIONS" and cors:
            response = Response()
        else:
            response = await self._call(request, target, owner, action)
        own = {name for name, _ in response.raw_headers}
        response.raw_headers += [each for each in cors if each[0] not in own]
        await response(scope, receive, send)

    async def _exported(self, target: _Target) -> tuple[Identity, Action]:
        """Return a web action and its owner.  Raises: ApiError 404."""
        owner = await self._entities.namespace(target.namespace)
        if owner is None:
            raise not_found()
        try:
            resolved = await resolve_action(
                self._entities, owner.namespace, owner.namespace, target.path
            )
        except ApiError:
            raise not_found() from None  # a stranger learns no more
        if annotation(resolved.action, "web-export") is not True:
            raise not_found()
        return owner, resolved.action

    async def _call(
        self, request: Request, target: _Target, owner: Identity, action: Action
    ) -> Response:
        """Return the answer to a request for a web action; errors have its headers as well."""
        tid = request.scope["tid"]
        try:
            user = self._user(request.scope, annotation(action, "require-whisk-auth"))
            content = await read_body(request, self._entities.limits.payload_bytes_max)
            raw = annotation(action, "raw-http") is True
            arguments = _arguments(request, target.rest, content, user, raw)
            answer = _Answer()
            invocation = Invocation(owner.namespace, target.path, True, timeout_ms=WAIT_MS)
            self._invoke(owner, invocation, _dump(arguments), tid, answer)
            status, body, activation_id = await answer.given
        except ApiError as error:
            return _refusal(error, tid)
        try:
            response = _response(target.extension, status, body)
        except ApiError as error:
            response = _refusal(error, tid)
        if activation_id is not None:
            response.headers["x-openwhisk-activation-id"] = activation_id
        return response

    def _user(self, scope: Scope, required: Any) -> Identity | None:
        """Return who asks, if that is known.  Raises: ApiError 401 when he may not."""
        user = None
        try:
            user = authenticate_header(self._entities, header(scope, b"authorization"))
        except ApiError:
            if required is True:
                raise
        if required is None or required is False or required is True:
            return user
        wanted = required if isinstance(required, str) else orjson.dumps(required).decode()
        given = header(scope, b"x-require-whisk-auth") or b""
        right = hmac.compare_digest(wanted.encode(), given)
        if not (right and wanted and isinstance(required, str | int | float)):
            raise ApiError(401, "The supplied authentication is invalid")
        return user


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL names; ``path`` is "hello" or "package/hello", ``rest`` what follows it."""

    namespace: str
    path: str
    extension: str
    rest: str


def _target(raw_path: str) -> _Target:
    """Raises: ApiError 404 for a URL that cannot name a web action."""
    segments = raw_path.removeprefix(PREFIX).split("/")
    if len(segments) < 3:
        raise not_found()
    namespace, package, name = (unquote(segment) for segment in segments[:3])
    extension = next((each for each in EXTENSIONS if name.endswith(each)), "")
    name = name.removesuffix(extension)
    # As it is stored: no name has a slash, and what has one names nothing.
    if "/" in package or "/" in name:
        raise not_found()
    rest = "".join(f"/{unquote(segment)}" for segment in segments[3:])
    path = name if package == "default" else f"{package}/{name}"
    return _Target(namespace, path, extension or EXTENSIONS[0], rest)


def _cors(scope: Scope) -> list[tuple[bytes, bytes]]:
    wanted = header(scope, b"access-control-request-headers")
    return [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", ", ".join(METHODS).encode()),
        (b"access-control-allow-headers", wanted or _ALLOWED_HEADERS),
    ]


# --- the request ---------------------------------------------------------------------------------


def _arguments(
    request: Request, rest: str, content: bytes, user: Identity | None, raw: bool
) -> dict[str, Any]:
    """Return the arguments that a request gives.  Raises: ApiError 400."""
    query = request.scope["query_string"].decode("latin-1")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    arguments: dict[str, Any] = {
        "__ow_method": request.method.lower(),
        "__ow_headers": _headers(request.scope, user),
        "__ow_path": rest,
    }
    if user is not None:
        arguments["__ow_user"] = user.namespace
    if raw:
        as_text = is_text_type(media_type) and not is_json_type(media_type)
        return {**arguments, "__ow_query": query, "__ow_body": _as_string(content, as_text)}
    given: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    _check_reserved(given)
    if content:
        body = _body(content, media_type)
        if isinstance(body, dict):
            _check_reserved(body)
            given |= body
        else:
            arguments["__ow_body"] = body
    return {**given, **arguments}


def _headers(scope: Scope, user: Identity | None) -> dict[str, str]:
    """Return the request's headers; without the credential of a user of this system.

    The action may belong to somebody else, who would get his key.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        if user is not None and name == b"authorization":
            continue
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _body(content: bytes, media_type: str) -> Any:
    """Return a body: fields of an object or a form, or one value."""
    if is_json_type(media_type):
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise malformed_content(str(error)) from None
    if media_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True))
    return _as_string(content, is_text_type(media_type))


def _as_string(content: bytes, as_text: bool) -> str:
    if as_text:
        return content.decode("utf-8", "replace")
    return base64.b64encode(content).decode()


def _check_reserved(given: dict[str, Any]) -> None:
    if any(key.startswith(_RESERVED) for key in given):
        raise ApiError(
            400, "Request defines parameters that are not allowed (e.g., reserved properties)."
        )


def _dump(arguments: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(arguments)
    except orjson.JSONEncodeError as error:  # nested deeper than can be written
        raise malformed_content(str(error)) from None


# --- the answer ----------------------------------------------------------------------------------


class _Answer:
    """The caller of the invocation: keeps what it is told."""

    def __init__(self) -> None:
        self.given: asyncio.Future[tuple[int, bytes, str | None]]
        self.given = asyncio.get_running_loop().create_future()

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        if not self.given.done():
            self.given.set_result((status, body, activation_id))

    def fail(self, error: ApiError) -> None:
        if not self.given.done():
            self.given.set_exception(error)


def _response(extension: str, status: int, body: bytes) -> Response:
    """Return the answer to an invocation that was accepted.  Raises: ApiError."""
    if status == 202:
        raise ApiError(202, "Response not yet ready.")
    if body.lstrip()[:1] == b"[":
        outcome, result = SUCCESS, orjson.loads(body)
    else:
        ended = orjson.loads(body)["response"]
        outcome, result = _STATUSES[ended["status"]], ended["result"]
    if outcome == APPLICATION_ERROR:
        result = result["error"]
    elif outcome != SUCCESS:
        raise ApiError(400, "There was an error processing your request.")
    made = web_response(extension, result)
    response = Response(made.body, made.status)
    length = [each for each in response.raw_headers if each[0] == b"content-length"]
    response.raw_headers = [(name.lower(), value) for name, value in made.headers] + length
    return response


def _refusal(error: ApiError, tid: str) -> Response:
    response = json_bytes(error_body(error.text, tid), error.status)
    response.headers.update(dict(error.headers))
    return response
