"""The routes that are kept ready: what is the same for every invocation of an action."""

from __future__ import annotations

from typing import Final

from .entities import CACHED_CODE_BYTES_MAX, EntityStore
from .entity_types import Action, Entity, Identity
from .packages import Package
from .resolution import Resolved
from .routes import Route
from .throttles import Throttles

__all__ = ["ROUTES_MAX", "RouteCache"]

ROUTES_MAX: Final = 10_000
"""Actions whose route is kept ready; others are made anew from the entity store.  Their code
is bounded as in the store, ``CACHED_CODE_BYTES_MAX``: a route keeps its action in memory."""

Key = tuple[str, str, str]


class RouteCache:
    """Routes by (invoking namespace, namespace, path); the oldest goes when there are too many.

    Whoever learns of a change tells it: ``changed`` and ``namespace_changed``.
    """

    def __init__(self, entities: EntityStore, throttles: Throttles) -> None:
        self.code_bytes = 0
        self._entities = entities
        self._throttles = throttles
        self._routes: dict[Key, Route] = {}
        self.get = self._routes.get

    def kept(self) -> list[Key]:
        """Return what there is, the oldest first."""
        return list(self._routes)

    def make(self, identity: Identity, resolved: Resolved) -> Route:
        route = Route(resolved, identity, self._throttles.of(identity))
        # One that was changed or deleted since it was read serves this once: nobody would tell.
        if self.is_newest(resolved):
            key = (identity.namespace, *resolved.at)
            self._drop(key)
            self._routes[key] = route
            self.code_bytes += len(resolved.action.exec.code or "")
            while len(self._routes) > ROUTES_MAX or self.code_bytes > CACHED_CODE_BYTES_MAX:
                self._drop(next(iter(self._routes)))
        return route

    def is_newest(self, resolved: Resolved) -> bool:
        """Tell whether nothing of it was changed since it was read."""
        parts: tuple[Action | Package, ...] = (resolved.action, *resolved.packages)
        for each in parts:
            known = self._entities.cached(type(each), each.namespace, each.path)
            if known is None or known.revision != each.revision:
                return False
        return True

    def _drop(self, key: tuple[str, str, str]) -> None:
        route = self._routes.pop(key, None)
        if route is not None:
            self.code_bytes -= len(route.action.exec.code or "")

    def changed(self, old: Entity) -> None:
        """Forget what depends on something that was updated or deleted."""
        for key in [key for key, route in self._routes.items() if route.depends_on(old)]:
            self._drop(key)

    def namespace_changed(self, name: str) -> None:
        """Forget what is in, or is invoked from, a namespace."""
        for key in [key for key, route in self._routes.items() if route.is_in(name)]:
            self._drop(key)
