"""Firing triggers: each active rule's action is invoked, and a record says what came of each.

A 202 goes out when every invocation is accepted, or its refusal is in the trigger's record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from . import clock
from .activations import DEFINITE, ActivationStore, Record
from .entities import EntityStore
from .entity_types import Identity
from .errors import ApiError, malformed_content
from .invocations import Caller, Invocation
from .runtime_protocol import APPLICATION_ERROR, PLATFORM_ERROR, STATUS_TEXTS, SUCCESS
from .triggers import ACTIVE, Reaction, Trigger

__all__ = ["Firing"]


class Invoker(Protocol):
    """What is asked of the controller."""

    def fire_id(self, identity: Identity) -> str:
        """Return the id of a new trigger activation.  Raises: ApiError 429 or 503."""
        ...

    def invoke(
        self, identity: Identity, invocation: Invocation, body: bytes, tid: str, caller: Caller
    ) -> None: ...


class Firing:
    """Fires triggers of namespaces by their owners."""

    def __init__(
        self, entities: EntityStore, activations: ActivationStore, invoker: Invoker
    ) -> None:
        self._entities = entities
        self._activations = activations
        self._invoker = invoker

    async def fire(
        self,
        identity: Identity,
        name: str,
        body: bytes,
        headers: Mapping[str, str],
        tid: str,
    ) -> str | None:
        """Fire a trigger of the caller's namespace; return the activation's id.

        None: no rule is active, nothing was done.  ``body`` is a JSON object or empty.
        Raises: ApiError 400, 404, 429 or 503.
        """
        given = _read(body)
        trigger = await self._entities.get(Trigger, identity.namespace, name)
        if not any(each.status == ACTIVE for each in trigger.reactions.values()):
            return None
        activation_id = self._invoker.fire_id(identity)
        start_ms = clock.wall_ms()
        defaults = {parameter.key: parameter.value for parameter in trigger.parameters}
        arguments = _write({**defaults, "__ow_headers": dict(headers), **given})
        logs = await asyncio.gather(
            *(
                self._react(identity, rule, reaction, arguments, tid)
                for rule, reaction in trigger.reactions.items()
            )
        )
        record = _record(trigger, identity, activation_id, start_ms, body or b"{}", logs)
        self._activations.note(record)
        self._activations.put(record)
        self._activations.sync()
        return activation_id

    async def _react(
        self, identity: Identity, rule: str, reaction: Reaction, arguments: bytes, tid: str
    ) -> str:
        """Invoke the action of one rule; return the line about it."""
        namespace, path = reaction.action
        names = {"rule": rule, "action": f"{namespace}/{path}"}
        if reaction.status != ACTIVE:
            error = f"Rule '{rule}' is inactive, action '{names['action']}' was not activated."
            return _line(APPLICATION_ERROR, {"error": error, **names})
        reply = _Reply()
        try:
            self._invoker.invoke(identity, Invocation(namespace, path), arguments, tid, reply)
            activation_id = await reply.accepted
        except ApiError as error:
            outcome = PLATFORM_ERROR if error.status >= 500 else APPLICATION_ERROR
            return _line(outcome, {"error": error.text, **names})
        return _line(SUCCESS, {"activationId": activation_id, **names})


class _Reply:
    """The caller of an invocation that nobody waits for."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        if not self.accepted.done():
            self.accepted.set_result(activation_id)

    def fail(self, error: ApiError) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)


def _read(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed_content(str(error)) from None
    if not isinstance(given, dict):
        raise malformed_content("The body must be a JSON object.")
    return given


def _write(arguments: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(arguments)
    except orjson.JSONEncodeError as error:  # nested deeper than can be written
        raise malformed_content(str(error)) from None


def _line(outcome: int, more: dict[str, Any]) -> str:
    return orjson.dumps({"statusCode": outcome, "success": outcome == SUCCESS, **more}).decode()


def _record(
    trigger: Trigger,
    identity: Identity,
    activation_id: str,
    start_ms: int,
    result: bytes,
    logs: list[str],
) -> Record:
    known = orjson.dumps(
        {
            "namespace": identity.namespace,
            "name": trigger.name,
            "version": trigger.version,
            "subject": identity.subject,
            "publish": False,
            "activationId": activation_id,
            "start": start_ms,
        }
    )
    head = b'%b,"response":{"status":"%b","success":true,"result":%b,"size":%d},%b' % (
        known[:-1],
        STATUS_TEXTS[SUCCESS],
        result,
        len(result),
        b'"annotations":[]',
    )
    return Record(
        activation_id, identity.namespace, trigger.name, start_ms, start_ms, SUCCESS, DEFINITE,
        head, orjson.dumps(logs),
    )  # fmt: skip
