"""The REST API of entities: actions, packages, triggers, rules; all but invoking an action.

Each handler reads its request, asks the store, and forms the answer; ``api`` routes to them, and
has checked before who asks, that names are legal, and that what is changed is the caller's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from . import rules
from .action_schema import components
from .entities import EntityStore
from .entity_types import Action, Identity, annotation
from .packages import Package, read_binding
from .requests import flag, json_object, page, payload
from .resolution import check_binding, check_sequence, readable_package, resolve_action
from .responses import json_response
from .triggers import INACTIVE, Rule, Trigger

__all__ = ["EntityApi", "Fire"]


Fire = Callable[[Identity, str, bytes, Mapping[str, str], str], Awaitable[str | None]]
"""``Firing.fire``."""


class EntityApi:
    """The handlers."""

    def __init__(self, entities: EntityStore, fire: Fire) -> None:
        self._entities = entities
        self._fire = fire

    async def _body(self, request: Request) -> dict[str, Any]:
        return await json_object(request, self._entities.limits.body_bytes_max)

    # Actions.

    async def list_actions(self, request: Request, caller: Identity) -> Response:
        return await self._actions(request, caller.namespace, "")

    async def list_package_actions(self, request: Request, caller: Identity) -> Response:
        package = (await self._readable(request, "package", caller))[-1]
        return await self._actions(request, package.namespace, package.name)

    async def _actions(self, request: Request, namespace: str, package: str) -> Response:
        skip, limit = page(request, "actions")
        if flag(request, "count"):
            number = await self._entities.count(Action, namespace, skip, package=package)
            return json_response({"actions": number})
        found = await self._entities.list(Action, namespace, skip, limit, package=package)
        return json_response([action.summary() for action in found])

    async def get_action(self, request: Request, caller: Identity) -> Response:
        with_code = flag(request, "code", default=True)
        resolved = await resolve_action(
            self._entities, caller.namespace, request.path_params["ns"], _path(request)
        )
        document = resolved.action.document(code=with_code)
        if resolved.binding and not with_code:
            document["binding"] = resolved.binding
        return json_response(document)

    async def put_action(self, request: Request, caller: Identity) -> Response:
        overwrite = flag(request, "overwrite")
        body = await self._body(request)
        path = _path(request)
        names = components(body, caller.namespace)
        if names:
            await check_sequence(self._entities, caller.namespace, path, names)
        action = await self._entities.put_action(caller.namespace, path, body, overwrite)
        return json_response(action.document())

    async def delete_action(self, request: Request, caller: Identity) -> Response:
        action = await self._entities.delete_action(caller.namespace, _path(request))
        return json_response(action.document())

    # Packages.

    async def list_packages(self, request: Request, caller: Identity) -> Response:
        skip, limit = page(request, "packages")
        namespace = request.path_params["ns"]
        if namespace == caller.namespace:
            if flag(request, "count"):
                number = await self._entities.count(Package, namespace, skip)
                return json_response({"packages": number})
            found = await self._entities.list(Package, namespace, skip, limit)
        else:
            every = await self._entities.list(Package, namespace, 0, None)
            shared = [each for each in every if each.publish and each.binding is None][skip:]
            if flag(request, "count"):
                return json_response({"packages": len(shared)})
            found = shared[:limit]
        return json_response([package.summary() for package in found])

    async def get_package(self, request: Request, caller: Identity) -> Response:
        packages = await self._readable(request, "name", caller)
        named, home = packages[0], packages[-1]
        # A binding shows its own name, and what it inherits.
        document = named.document()
        inherited = {each.key: each.document() for each in home.parameters}
        own = {each.key: each.document() for each in named.parameters}
        document["parameters"] = list((inherited | own).values())
        inside = await self._entities.list(Action, home.namespace, 0, None, package=home.name)
        document["actions"] = [_inside(each) for each in inside if not _is_feed(each)]
        document["feeds"] = [_inside(each) for each in inside if _is_feed(each)]
        return json_response(document)

    async def _readable(
        self, request: Request, field: str, caller: Identity
    ) -> tuple[Package, ...]:
        names = request.path_params
        return await readable_package(self._entities, caller.namespace, names["ns"], names[field])

    async def put_package(self, request: Request, caller: Identity) -> Response:
        overwrite = flag(request, "overwrite")
        body = await self._body(request)
        name = request.path_params["name"]
        target = read_binding(body, caller.namespace)
        if target is not None:
            await check_binding(self._entities, caller.namespace, name, target)
        package = await self._entities.put_package(caller.namespace, name, body, overwrite)
        return json_response(package.document())

    async def delete_package(self, request: Request, caller: Identity) -> Response:
        force = flag(request, "force")
        name = request.path_params["name"]
        package = await self._entities.delete_package(caller.namespace, name, force)
        return json_response(package.document())

    # Triggers.

    async def list_triggers(self, request: Request, caller: Identity) -> Response:
        return await self._list(Trigger, request, caller)

    async def get_trigger(self, request: Request, caller: Identity) -> Response:
        name = request.path_params["name"]
        trigger = await self._entities.get(Trigger, caller.namespace, name)
        return json_response(trigger.document())

    async def put_trigger(self, request: Request, caller: Identity) -> Response:
        overwrite = flag(request, "overwrite")
        body = await self._body(request)
        name = request.path_params["name"]
        trigger = await rules.put_trigger(self._entities, caller.namespace, name, body, overwrite)
        return json_response(trigger.document())

    async def delete_trigger(self, request: Request, caller: Identity) -> Response:
        name = request.path_params["name"]
        trigger = await rules.delete_trigger(self._entities, caller.namespace, name)
        return json_response(trigger.document())

    async def fire_trigger(self, request: Request, caller: Identity) -> Response:
        body = await payload(request, self._entities.limits.payload_bytes_max)
        # The key of the one who fires is no business of the functions.
        headers = {
            name: value for name, value in request.headers.items() if name != "authorization"
        }
        name = request.path_params["name"]
        activation_id = await self._fire(caller, name, body, headers, request.scope["tid"])
        if activation_id is None:
            return Response(status_code=204)
        response = json_response({"activationId": activation_id}, 202)
        response.headers["x-openwhisk-activation-id"] = activation_id
        return response

    # Rules.

    async def list_rules(self, request: Request, caller: Identity) -> Response:
        return await self._list(Rule, request, caller)

    async def get_rule(self, request: Request, caller: Identity) -> Response:
        rule = await self._entities.get(Rule, caller.namespace, request.path_params["name"])
        return json_response(rule.document(await rules.status_of(self._entities, rule)))

    async def put_rule(self, request: Request, caller: Identity) -> Response:
        overwrite = flag(request, "overwrite")
        body = await self._body(request)
        name = request.path_params["name"]
        rule, status = await rules.put_rule(self._entities, caller.namespace, name, body, overwrite)
        return json_response(rule.document(status))

    async def delete_rule(self, request: Request, caller: Identity) -> Response:
        name = request.path_params["name"]
        rule = await rules.delete_rule(self._entities, caller.namespace, name)
        return json_response(rule.document(INACTIVE))

    async def set_rule_status(self, request: Request, caller: Identity) -> Response:
        body = await self._body(request)
        name = request.path_params["name"]
        await rules.set_status(self._entities, caller.namespace, name, body.get("status"))
        return Response()

    async def _list(
        self, kind: type[Trigger] | type[Rule], request: Request, caller: Identity
    ) -> Response:
        skip, limit = page(request, kind.collection)
        if flag(request, "count"):
            number = await self._entities.count(kind, caller.namespace, skip)
            return json_response({kind.collection: number})
        found = await self._entities.list(kind, caller.namespace, skip, limit)
        return json_response([each.summary() for each in found])


def _path(request: Request) -> str:
    names = request.path_params
    return f"{names['package']}/{names['name']}" if "package" in names else str(names["name"])


def _is_feed(action: Action) -> bool:
    return annotation(action, "feed") is not None


def _inside(action: Action) -> dict[str, Any]:
    """Return what a package tells of an action in it."""
    return {
        "name": action.name,
        "version": action.version,
        "annotations": [note.document() for note in action.annotations],
    }
