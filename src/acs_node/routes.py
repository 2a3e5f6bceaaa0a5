"""What is the same for every invocation of one revision of an action by one namespace."""

from __future__ import annotations

from typing import Any, Final

import orjson

from acs_core.events import QueueSpec
from acs_core.limits import WAIT_MAX_US

from .entity_types import Action, Entity, Identity, annotation
from .errors import ApiError, malformed_content
from .packages import Package
from .resolution import Resolved
from .runtime_protocol import STATUS_TEXTS, RunTemplate

__all__ = ["Route"]

CAUSED_BY_SEQUENCE: Final = b',{"key":"causedBy","value":"sequence"}'


class Route:
    """All that is the same for every invocation of one revision of an action by one namespace."""

    def __init__(self, resolved: Resolved, identity: Identity) -> None:
        action = resolved.action
        limits = action.limits
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
            kind=action.exec.kind,
        )
        # It waits, is initialised and runs, each for as long as it may.
        self.longest_us = WAIT_MAX_US + 2 * self.spec.timeout_us
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


def _inherited(resolved: Resolved) -> str:
    """Return what tells queues of one action apart whose containers differ in the environment."""
    if not any(parameter.init for each in resolved.packages for parameter in each.parameters):
        return ""
    return "".join(f"~{each.namespace}/{each.path}@{each.revision}" for each in resolved.packages)
