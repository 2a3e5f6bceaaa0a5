"""The REST API but for invoking: authentication, namespaces, limits, activations; all routes.

An ASGI application on Starlette's router.  ``POST`` on an action is answered before it comes
here, by the server's protocol; see ``front``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .activations import ActivationStore, Record
from .database import DatabaseUnavailable
from .entities import EntityStore, Identity, SystemLimits
from .entity_api import EntityApi, Fire
from .errors import (
    API_HEADERS,
    ApiError,
    database_unavailable,
    error_body,
    forbidden,
    internal_error,
    method_not_allowed,
    not_found,
    request_id,
    route_not_found,
    unavailable,
)
from .info import Info, number
from .names import (
    check_activation_id,
    check_entity_name,
    check_name_filter,
    resolve_namespace,
)
from .openapi import API_VERSION, openapi_document
from .operators import Disable, InFlight, Operator
from .requests import authenticate_header, epoch_ms, flag, header, page
from .responses import json_bytes, json_response
from .swagger import html_page, swagger_document
from .web import PREFIX as WEB_PREFIX
from .web import Invoke, WebActions

__all__ = ["authenticate_header", "create_app"]

log = logging.getLogger(__name__)

_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'"

Handler = Callable[[Request, Identity], Awaitable[Response]]


async def _settled(activation_id: str) -> None:
    """Nothing is on its way."""


def _accepts_nothing() -> None:
    """Nobody accepts anything here."""


async def _no_fire(*_: object) -> str | None:
    """Nobody invokes actions here."""
    raise unavailable("It runs no actions (allowed: 0).", None)


def _no_invoke(*_: object) -> None:
    """Nobody invokes actions here."""
    raise unavailable("It runs no actions (allowed: 0).", None)


def create_app(
    entities: EntityStore,
    activations: ActivationStore,
    *,
    info: Mapping[str, str],
    settled: Callable[[str], Awaitable[None]] = _settled,
    fire: Fire = _no_fire,
    invoke: Invoke = _no_invoke,
    invokers: Callable[[], Mapping[str, str]] = dict,
    pending: Callable[[], int] = int,
    in_flight: Callable[[], list[tuple[str, str]]] = list,
    disable: Callable[[], None] = _accepts_nothing,
    operator: Operator | None = None,
) -> ASGIApp:
    """Return the application; ``info`` holds ``build`` (a date) and ``buildno``.

    ``settled`` returns when the record of an activation that has ended is in the store.
    ``fire`` is ``Firing.fire``; ``invoke``, ``in_flight`` and ``disable`` are the ``Controller``'s;
    ``invokers`` and ``pending`` are as for ``Info``.  ``operator``: who may disable; None: nobody.
    """
    operator = operator or Operator()
    api = _Api(entities, activations, info, settled)
    web = WebActions(entities, invoke)
    base = "/api/v1/namespaces"
    about = Info(entities.limits, entities.kinds, invokers, pending)
    routes = [
        Route(f"{WEB_PREFIX}{{rest:path}}", web),
        Route("/", _Open(about.root)),
        Route("/ping", _Open(api.ping)),
        Route("/invokers", _Open(about.invokers)),
        Route("/invokers/healthy/count", _Open(about.healthy_count)),
        Route("/invokers/ready", _Open(about.ready)),
        *_both("/activation", InFlight(operator, in_flight)),
        Route("/disable", Disable(operator, disable)),
        Route("/activation/count", _Open(about.pending_count)),
        *_both("/api/v1", _Open(api.describe)),
        Route("/api/v1/openapi.json", _Open(api.openapi)),
        *_both("/api/v1/api-docs", _Open(api.swagger)),
        *_both("/api/v1/docs", _Open(api.docs)),
        *_both(base, _Guarded(entities, {"GET": api.list_namespaces})),
        *_both(f"{base}/{{ns}}/limits", _Guarded(entities, {"GET": api.limits})),
        Route(f"{base}/{{ns}}/limits/{{rest:path}}", _Guarded(entities, {"GET": api.no_sublimits})),
        *_both(f"{base}/{{ns}}/activations", _Guarded(entities, {"GET": api.list_activations})),
    ]
    for suffix, handler in (
        ("", api.get_activation),
        ("/result", api.get_result),
        ("/logs", api.get_logs),
    ):
        path = f"{base}/{{ns}}/activations/{{id}}{suffix}"
        routes += _both(path, _Guarded(entities, {"GET": handler}))
    routes += _entity_routes(EntityApi(entities, fire), entities, f"{base}/{{ns}}")
    return _Envelope(Router(routes, redirect_slashes=False, default=_no_route))


def _entity_routes(api: EntityApi, entities: EntityStore, base: str) -> list[Route]:
    def guarded(
        shared: bool = False, elsewhere: tuple[str, ...] = (), **handlers: Handler
    ) -> ASGIApp:
        return _Guarded(entities, handlers, elsewhere=elsewhere, shared=shared)

    action: dict[str, Handler] = {
        "GET": api.get_action,
        "PUT": api.put_action,
        "DELETE": api.delete_action,
    }
    return [
        *_both(f"{base}/actions", guarded(GET=api.list_actions)),
        Route(f"{base}/actions/{{package}}/", guarded(True, GET=api.list_package_actions)),
        Route(f"{base}/actions/{{name}}", guarded(False, ("POST",), **action)),
        Route(f"{base}/actions/{{package}}/{{name}}", guarded(True, ("POST",), **action)),
        *_both(f"{base}/packages", guarded(True, GET=api.list_packages)),
        *_both(f"{base}/triggers", guarded(GET=api.list_triggers)),
        *_both(
            f"{base}/triggers/{{name}}",
            guarded(
                GET=api.get_trigger,
                PUT=api.put_trigger,
                DELETE=api.delete_trigger,
                POST=api.fire_trigger,
            ),
        ),
        *_both(f"{base}/rules", guarded(GET=api.list_rules)),
        *_both(
            f"{base}/rules/{{name}}",
            guarded(
                GET=api.get_rule,
                PUT=api.put_rule,
                DELETE=api.delete_rule,
                POST=api.set_rule_status,
            ),
        ),
        *_both(
            f"{base}/packages/{{name}}",
            guarded(True, GET=api.get_package, PUT=api.put_package, DELETE=api.delete_package),
        ),
    ]


class _Envelope:
    """What every answer has: the request's id, the headers of the API, errors as JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        tid = request_id(header(scope, b"x-request-id"))
        headers = [(b"x-request-id", tid.encode("latin-1"))]
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        # Routed by the raw segments, which are decoded one by one: "%2F" separates nothing.
        raw_path = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("latin-1")
        inner: MutableMapping[str, Any] = {**scope, "path": path, "tid": tid}
        is_web = path.startswith(WEB_PREFIX)
        if not is_web:
            headers += API_HEADERS
        try:
            if scope["method"] == "OPTIONS" and path.startswith("/api/") and not is_web:
                await Response()(inner, receive, send_with_headers)
            else:
                await self._app(inner, receive, send_with_headers)
        except ClientDisconnect:
            return
        except ApiError as error:
            await _error_response(error, tid)(inner, receive, send_with_headers)
        except DatabaseUnavailable as gone:
            log.error("request %s: %s", tid, gone)
            refused = database_unavailable(gone.uncertain)
            await _error_response(refused, tid)(inner, receive, send_with_headers)
        except Exception:
            # No header is logged: one of them is a credential.
            log.exception("request %s failed: %s %s", tid, scope["method"], inner["path"])
            if started:
                raise  # the server breaks the connection: the client must not take it for whole
            await _error_response(internal_error(), tid)(inner, receive, send_with_headers)


class _Open:
    """A resource that everybody may GET."""

    def __init__(self, handler: Callable[[], Response]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed(["GET"])
        await self._handler()(scope, receive, send)


class _Guarded:
    """A resource whose ``handlers``, by method, are called with who asks.

    The order of the refusals: 401, illegal names, 405, 403; the handler's own come after.
    ``elsewhere``: methods that are supported, but not answered here.  ``shared``: what others
    own may be read, if its handler finds that it is published.
    """

    def __init__(
        self,
        entities: EntityStore,
        handlers: Mapping[str, Handler],
        elsewhere: tuple[str, ...] = (),
        shared: bool = False,
    ) -> None:
        self._entities = entities
        self._handlers = handlers
        self._shared = shared
        self._supported = sorted((*handlers, *elsewhere))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = authenticate_header(self._entities, header(scope, b"authorization"))
        names = scope["path_params"]
        for field, segment in names.items():
            names[field] = unquote(segment)
        if "ns" in names:
            names["ns"] = resolve_namespace(names["ns"], caller.namespace)
        for field in ("package", "name"):
            if field in names:
                check_entity_name(names[field])
        if "id" in names:
            check_activation_id(names["id"])
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = self._handlers.get(method)
        if handler is None:
            raise method_not_allowed(self._supported)
        foreign = names.get("ns", caller.namespace) != caller.namespace
        if foreign and not (self._shared and method == "GET"):
            rest = [names[field] for field in ("package", "name") if field in names]
            raise forbidden("/".join([names["ns"], *rest]))
        response = await handler(Request(scope, receive), caller)
        await response(scope, receive, send)


class _Api:
    """The handlers: each reads its request, asks a store, and forms the answer."""

    def __init__(
        self,
        entities: EntityStore,
        activations: ActivationStore,
        info: Mapping[str, str],
        settled: Callable[[str], Awaitable[None]],
    ) -> None:
        self._entities = entities
        self._activations = activations
        self._info = info
        self._settled = settled

    def ping(self) -> Response:
        return PlainTextResponse("pong")

    def describe(self) -> Response:
        return json_response(
            {
                "description": "OpenWhisk API",
                "api_version": API_VERSION,
                "api_version_path": "v1",
                "build": self._info["build"],
                "buildno": self._info["buildno"],
                "swagger_paths": {"ui": "/docs", "api-docs": "/api-docs"},
            }
        )

    def openapi(self) -> Response:
        return json_response(self._document())

    def swagger(self) -> Response:
        return json_response(swagger_document(self._document()))

    def docs(self) -> Response:
        page = html_page(self._document(), "/api/v1/openapi.json")
        return HTMLResponse(page, headers={"content-security-policy": _NOTHING_FROM_ELSEWHERE})

    def _document(self) -> dict[str, Any]:
        return openapi_document(self._entities.limits, self._entities.kinds)

    async def list_namespaces(self, request: Request, caller: Identity) -> Response:
        return json_response([caller.namespace])

    async def limits(self, request: Request, caller: Identity) -> Response:
        return json_response(
            _limits_document(self._entities.limits.of_namespace(caller.limits), caller)
        )

    async def no_sublimits(self, request: Request, caller: Identity) -> Response:
        rest = request.path_params["rest"]
        raise ApiError(400, f"The limits of a namespace have no part '{rest}'.")

    # Activations.

    async def list_activations(self, request: Request, caller: Identity) -> Response:
        skip, limit = page(request, "activations")
        count, docs = flag(request, "count"), flag(request, "docs")
        name = request.query_params.get("name") or None
        if name is not None:
            check_name_filter(name)
        since, upto = epoch_ms(request, "since"), epoch_ms(request, "upto")
        if count and docs:
            raise ApiError(400, "The parameter 'docs' is not permitted with 'count'.")
        if count:
            number = await self._activations.count(
                caller.namespace, name=name, since=since, upto=upto, skip=skip
            )
            return json_response({"activations": number})
        rows = await self._activations.list(
            caller.namespace,
            name=name, since=since, upto=upto, skip=skip, limit=limit, docs=docs,
        )  # fmt: skip
        return json_bytes(b"[" + b",".join(rows) + b"]")

    async def get_activation(self, request: Request, caller: Identity) -> Response:
        record = await self._record(request, caller)
        return json_bytes(record.full())

    async def get_result(self, request: Request, caller: Identity) -> Response:
        record = await self._record(request, caller)
        return json_bytes(record.response())

    async def get_logs(self, request: Request, caller: Identity) -> Response:
        record = await self._record(request, caller)
        return json_bytes(b'{"logs":' + record.logs + b"}")

    async def _record(self, request: Request, caller: Identity) -> Record:
        activation_id = request.path_params["id"]
        await self._settled(activation_id)
        record = await self._activations.get(caller.namespace, activation_id)
        if record is None:
            raise not_found()
        return record


def _both(path: str, app: ASGIApp) -> list[Route]:
    """Route ``path`` with and without a slash at its end."""
    return [Route(path, app), Route(f"{path}/", app)]


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise route_not_found()


def _error_response(error: ApiError, tid: str) -> Response:
    response = json_bytes(error_body(error.text, tid), error.status)
    response.headers.update(dict(error.headers))
    return response


def _limits_document(limits: SystemLimits, caller: Identity) -> dict[str, Any]:
    document = {
        "invocationsPerMinute": number(limits.invocations_per_minute),
        "concurrentInvocations": number(limits.concurrent_invocations),
        "firesPerMinute": number(limits.fires_per_minute),
        "maxActionMemory": limits.memory_mb_max,
        "minActionMemory": limits.memory_mb_min,
        "maxActionLogs": limits.logs_mb_max,
        "minActionLogs": limits.logs_mb_min,
        "maxActionTimeout": limits.timeout_ms_max,
        "minActionTimeout": limits.timeout_ms_min,
        "maxActionConcurrency": limits.concurrency_max,
        "minActionConcurrency": limits.concurrency_min,
        "maxParameterSize": f"{limits.parameters_bytes_max} B",
        "maxActionInstances": limits.instances_max,
    }
    if caller.limits.allowed_kinds is not None:
        document["allowedKinds"] = list(caller.limits.allowed_kinds)
    return document
