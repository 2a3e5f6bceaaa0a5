"""What is the same for every invocation of one revision of an action by one namespace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

import orjson

from acs_core.events import QueueSpec
from acs_core.limits import BLACKBOX_WAIT_MAX_US, WAIT_MAX_US

from . import clock
from .action_schema import BLACKBOX, SEQUENCE, SEQUENCE_ACTIONS_MAX
from .activations import DEFINITE, Record
from .entities import EntityStore
from .entity_types import (
    CONTAINERS_MIN,
    WAIT_TARGET,
    Action,
    Entity,
    Identity,
    annotation,
    has_network,
)
from .errors import ApiError, malformed_content
from .fields import merged
from .packages import Package
from .resolution import Resolved
from .runtime_protocol import STATUS_TEXTS, RunTemplate
from .throttles import Throttle

__all__ = ["CompositionRoute", "Route", "action_behind"]

E = TypeVar("E", Action, Package)

CAUSED_BY_SEQUENCE: Final = b',{"key":"causedBy","value":"sequence"}'


COMPOSITION_US_MAX: Final = SEQUENCE_ACTIONS_MAX * WAIT_MAX_US
"""After this nobody waits for the end of a composition whose server is gone."""


class CompositionRun(Protocol):
    """What a record says of a run; see ``composer.Run``."""

    activation_id: str
    cause: str
    start_ms: int
    duration_ms: int
    memory_mb: int
    components: list[str]


class Route:
    """All that is the same for every invocation of one revision of an action by one namespace."""

    def __init__(
        self, resolved: Resolved, identity: Identity, throttle: Throttle | None = None
    ) -> None:
        action = resolved.action
        self.throttle = throttle
        limits = action.limits
        target_ms = annotation(action, WAIT_TARGET)
        self.action = action
        self.packages = resolved.packages
        self.namespace = identity.namespace
        self.spec = QueueSpec(
            f"{identity.namespace}/{action.namespace}/{action.path}@{action.revision}"
            f"{_inherited(resolved)}",
            identity.namespace,
            f"{action.namespace}/{action.path}",
            action.revision,
            memory_mb=limits.memory_mb,
            concurrency=limits.concurrency,
            timeout_us=limits.timeout_ms * 1000,
            action_limit=limits.instances,
            # Prewarmed sandboxes have the network already.
            kind=action.exec.kind if has_network(action) else "",
            containers_min=annotation(action, CONTAINERS_MIN, 0),
            wait_target_us=None if target_ms is None else round(target_ms * 1000),
            wait_max_us=BLACKBOX_WAIT_MAX_US if action.exec.kind == BLACKBOX else None,
        )
        # It waits, is initialised and runs, each for as long as it may.
        self.longest_us = (self.spec.wait_max_us or WAIT_MAX_US) + 2 * self.spec.timeout_us
        self.template = RunTemplate(action, identity.namespace)
        # The credential that its runs may call with, if any.
        self.uuid = identity.uuid if annotation(action, "provide-api-key", True) else ""
        self.defaults: dict[str, Any] = {p.key: p.value for p in action.parameters if not p.init}
        self.reserved: frozenset[str] = frozenset()
        if annotation(action, "final") is True:
            self.reserved = frozenset(p.key for p in action.parameters if p.value is not None)
        known = orjson.dumps(
            {
                "namespace": identity.namespace,
                "name": action.name,
                "version": action.version,
                "subject": identity.subject,
                "publish": False,
            }
        )
        self.record_start = known[:-1] + b',"activationId":"'
        notes = orjson.dumps(
            [
                {"key": "path", "value": f"{action.full_namespace}/{action.name}"},
                {"key": "kind", "value": action.exec.kind},
                {"key": "limits", "value": limits.document()},
                *([{"key": "binding", "value": resolved.binding}] if resolved.binding else ()),
            ]
        )
        self.record_notes = b'"annotations":' + notes[:-1] + b',{"key":"timeout","value":'

    def depends_on(self, entity: Entity) -> bool:
        """Tell whether this is no longer right when ``entity`` changes."""
        at = (entity.namespace, entity.path)
        return at == (self.action.namespace, self.action.path) or any(
            at == (each.namespace, each.path) for each in self.packages
        )

    def is_in(self, namespace: str) -> bool:
        """Tell whether it is invoked by a namespace, or has something of it."""
        parts: tuple[Action | Package, ...] = (self.action, *self.packages)
        return self.namespace == namespace or any(each.namespace == namespace for each in parts)

    def is_of(self, old: Action | Package) -> bool:
        """Tell whether its containers were made for ``old`` or what it was before.

        Of a package only what goes into the environment counts, which is in the queue's name.
        """
        of: list[Action | Package] = [self.action]
        if isinstance(old, Package):
            of = [*self.packages] if any(parameter.init for parameter in old.parameters) else []
        at = (old.namespace, old.path)
        return any(
            at == (each.namespace, each.path) and each.revision <= old.revision for each in of
        )

    def arguments(self, body: bytes) -> bytes:
        """Return the JSON of the arguments: the action's own ones under the request's.

        Raises: ApiError 400.
        """
        if not body:
            return orjson.dumps(self.defaults) if self.defaults else b"{}"
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise malformed_content(str(error)) from None
        if not isinstance(given, dict):
            raise malformed_content("The body must be a JSON object.")
        if self.reserved and not self.reserved.isdisjoint(given):
            raise ApiError(
                400, "Request defines parameters that are not allowed (e.g., reserved properties)."
            )
        if not self.defaults:
            return body
        return self._over_defaults(given)

    def component_arguments(self, given: bytes) -> bytes:
        """Return the arguments of a call from a composition, which may name reserved keys.

        An array is passed on as it is.  Raises: ApiError 400.
        """
        if not self.defaults or not given.lstrip().startswith(b"{"):
            return given
        return self._over_defaults(orjson.loads(given))

    def _over_defaults(self, given: dict[str, Any]) -> bytes:
        try:
            return orjson.dumps({**self.defaults, **given})
        except orjson.JSONEncodeError as error:  # nested deeper than can be written
            raise malformed_content(str(error)) from None

    def record_head(
        self,
        activation_id: str,
        start_ms: int,
        end_ms: int,
        outcome: int,
        response: bytes,
        notes: bytes,
        timed_out: bool,
        cause: str = "",
    ) -> bytes:
        """Return the record's JSON without its logs and closing brace.

        ``notes`` are more annotations.  ``cause``: the composition that this is a part of.
        """
        if cause:
            notes += CAUSED_BY_SEQUENCE
        return (
            b'%b%b","start":%d,"end":%d,"duration":%d%b,"response":{"status":"%b","success":%b,'
            b'"result":%b,"size":%d},%b%b}%b]'
        ) % (
            self.record_start,
            activation_id.encode(),
            start_ms,
            end_ms,
            end_ms - start_ms,
            b',"cause":"%b"' % cause.encode() if cause else b"",
            STATUS_TEXTS[outcome],
            b"false" if outcome else b"true",
            response,
            len(response),
            self.record_notes,
            b"true" if timed_out else b"false",
            notes,
        )

    def accept_head(self, activation_id: str, start_ms: int) -> bytes:
        """Return what is known of the record when the activation is accepted."""
        return b'%b%b","start":%d,%bfalse}]' % (
            self.record_start,
            activation_id.encode(),
            start_ms,
            self.record_notes,
        )


class CompositionRoute(Route):
    """The same for a sequence or a conductor, which has no queue: its components have."""

    def __init__(
        self, resolved: Resolved, identity: Identity, throttle: Throttle | None = None
    ) -> None:
        super().__init__(resolved, identity, throttle)
        self.resolved = resolved
        # A sequence has no arguments of its own, and a conductor gets them in each of its runs.
        self.defaults = {}
        self.longest_us = COMPOSITION_US_MAX

    def record(
        self, run: CompositionRun, outcome: int, result: bytes, rank: int = DEFINITE
    ) -> Record:
        """Return the record of a run that ends now; its logs are the ids of what it called."""
        end_ms = max(clock.wall_ms(), run.start_ms)
        head = b'%b%b","start":%d,"end":%d,"duration":%d%b,%b,"response":%b' % (
            self.record_start,
            run.activation_id.encode(),
            run.start_ms,
            end_ms,
            run.duration_ms,
            b',"cause":"%b"' % run.cause.encode() if run.cause else b"",
            self._notes(run.memory_mb or self.action.limits.memory_mb, run.cause),
            b'{"status":"%b","success":%b,"result":%b,"size":%d}'
            % (STATUS_TEXTS[outcome], b"false" if outcome else b"true", result, len(result)),
        )
        return Record(
            run.activation_id, self.namespace, self.action.path, run.start_ms, end_ms,
            outcome, rank, head, orjson.dumps(run.components),
        )  # fmt: skip

    def accept_head(self, activation_id: str, start_ms: int) -> bytes:
        return b'%b%b","start":%d,%b' % (
            self.record_start,
            activation_id.encode(),
            start_ms,
            self._notes(self.action.limits.memory_mb, ""),
        )

    def _notes(self, memory_mb: int, cause: str) -> bytes:
        """Return the annotations of a record."""
        action = self.action
        limits = {**action.limits.document(), "memory": memory_mb}
        notes: list[tuple[str, Any]] = [
            ("topmost", not cause),
            ("path", f"{action.full_namespace}/{action.name}"),
            ("kind", SEQUENCE),
            ("limits", limits),
        ]
        if action.exec.kind != SEQUENCE:
            notes.append(("conductor", True))
        if cause:
            notes.append(("causedBy", SEQUENCE))
        if self.resolved.binding:
            notes.append(("binding", self.resolved.binding))
        return b'"annotations":' + orjson.dumps([{"key": k, "value": v} for k, v in notes])


def _inherited(resolved: Resolved) -> str:
    """Return what tells queues of one action apart whose containers differ in the environment."""
    if not any(parameter.init for each in resolved.packages for parameter in each.parameters):
        return ""
    return "".join(f"~{each.namespace}/{each.path}@{each.revision}" for each in resolved.packages)


async def action_behind(entities: EntityStore, queue: str) -> Action:
    """Return the action of a queue that ``Route`` named, here or on another node.

    Raises: ApiError 404 when the action, or a package that its environment comes from, is gone or
    was changed since.
    """
    name, *inherited = queue.split("~")
    _, _, path = name.partition("/")
    action = _unchanged(await entities.get(Action, *_at(path)), path)
    layers = []
    for each in inherited:
        layers.append(_unchanged(await entities.get(Package, *_at(each)), each).parameters)
    return replace(action, parameters=merged(*reversed(layers), action.parameters))


def entities_behind(queue: str) -> list[tuple[str, str]]:
    """Return namespace and path of each entity that ``action_behind`` looks at."""
    name, *inherited = queue.split("~")
    return [_at(name.partition("/")[2]), *map(_at, inherited)]


def _at(name: str) -> tuple[str, str]:
    namespace, _, path = name.rpartition("@")[0].partition("/")
    return namespace, path


def _unchanged(entity: E, name: str) -> E:
    if str(entity.revision) != name.rpartition("@")[2]:
        raise ApiError(404, f"it has revision {entity.revision} now")
    return entity
