"""What sequences and conductors do next: generators that ask for calls and are told their ends.

Pure.  ``composer`` makes the calls and writes the records.  A generator yields ``Call`` and is
sent ``Ended``; what it returns is the end of the composition.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from .action_schema import SEQUENCE, SEQUENCE_ACTIONS_MAX
from .entity_types import Action, annotation
from .errors import ApiError
from .names import check_namespace, split_path
from .runtime_protocol import APPLICATION_ERROR, SUCCESS, failure

__all__ = ["Budget", "Call", "Ended", "Steps", "conductor", "is_composition", "sequence"]

CONDUCTOR_RUNS_MAX: Final = 2 * SEQUENCE_ACTIONS_MAX + 1
"""Runs of the conductor itself: one before, and two for each action, one of them for an error."""

Name = tuple[str, str]
"""Namespace, and path within it."""


@dataclass(frozen=True, slots=True)
class Call:
    """An action to invoke with these arguments (JSON).  ``itself``: it is the conductor."""

    name: Name
    arguments: bytes
    itself: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """What a call, or a composition, came to: an Outcome, and the JSON of the result."""

    outcome: int
    result: bytes


@dataclass(slots=True)
class Budget:
    """What is counted against the limits, of a composition with all that is nested in it."""

    actions: int = 0
    conductor_runs: int = 0


Steps = Generator[Call, Ended, Ended]


def is_composition(action: Action) -> bool:
    """Tell whether an action is run by calling others."""
    return action.exec.kind == SEQUENCE or is_conductor(action)


def is_conductor(action: Action) -> bool:
    """Tell whether an action says what is to be called next."""
    return action.exec.kind != SEQUENCE and bool(annotation(action, "conductor", False))


def component_names(action: Action) -> Sequence[Name]:
    """Return the names of a sequence's components."""
    return [_split(each.removeprefix("/")) for each in action.exec.components]


def sequence(components: Sequence[Name], arguments: bytes) -> Steps:
    """One after the other, each with the result of the one before; the first failure is the end.

    An ``error`` in the first arguments has no meaning.
    """
    ended = Ended(SUCCESS, arguments)
    for name in components:
        ended = yield Call(name, ended.result)
        if ended.outcome != SUCCESS:
            break
    return ended


def conductor(name: Name, own_namespace: str, arguments: bytes, budget: Budget) -> Steps:
    """Run the conductor, call what it names, and tell it the result, until it names nothing.

    What cannot be called is told to the conductor as ``{"error": …}``.
    """
    state: dict[str, Any] = {}
    while True:
        budget.conductor_runs += 1
        if budget.conductor_runs > CONDUCTOR_RUNS_MAX:
            return _error("Too many actions in the composition.")
        ended = yield Call(name, _with_state(arguments, state), itself=True)
        result = orjson.loads(ended.result)
        if not isinstance(result, dict):
            return ended
        params = _boxed("value", result.get("params"))
        if "action" not in result:
            return Ended(ended.outcome, ended.result if params is None else orjson.dumps(params))
        state = _boxed("state", result.get("state")) or {}
        wanted = result["action"]
        target = _target(wanted, own_namespace)
        if target is None:
            shown = orjson.dumps(wanted).decode()
            arguments = _error(
                f"Failed to parse action name from json value {shown} during composition."
            ).result
        elif budget.actions >= SEQUENCE_ACTIONS_MAX:
            arguments = _error("Too many actions in the composition.").result
        else:
            arguments = (yield Call(target, orjson.dumps(params or {}))).result


def refusal_in_composition(name: Name, error: ApiError) -> Ended:
    """Return what a conductor is told of an action that cannot be called."""
    shown = "/".join(name)
    if error.status == 403:
        text = f"Failed entitlement check for action with name '{shown}' during composition."
    elif error.status in (404, 409):
        text = f"Failed to resolve action with name '{shown}' during composition."
    else:
        text = error.text
    return _error(text)


def refusal_in_sequence(error: ApiError) -> Ended:
    """Return the end of a sequence one of whose components cannot be called."""
    missing = error.status in (404, 409)
    return _error("Sequence component does not exist." if missing else error.text)


def too_long() -> Ended:
    """Return the end of a sequence that has more actions than it may."""
    return _error("Too many actions in the sequence.")


def _error(text: str) -> Ended:
    return Ended(APPLICATION_ERROR, failure(APPLICATION_ERROR, text).result)


def _boxed(key: str, value: Any) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    return {key: value}


def _with_state(arguments: bytes, state: dict[str, Any]) -> bytes:
    if not state:
        return arguments
    return orjson.dumps({**(_boxed("value", orjson.loads(arguments)) or {}), **state})


def _split(name: str) -> Name:
    namespace, _, path = name.partition("/")
    return namespace, path


def _target(wanted: Any, own_namespace: str) -> Name | None:
    """Read ``a``, ``pkg/a``, ``/ns/a``, ``[/]ns/pkg/a``; None if it is none of these."""
    if not isinstance(wanted, str):
        return None
    absolute = wanted.startswith("/") or wanted.count("/") == 2
    namespace, path = _split(wanted.removeprefix("/")) if absolute else (own_namespace, wanted)
    namespace = own_namespace if namespace == "_" else namespace
    try:
        check_namespace(namespace)
        split_path(path)
    except ApiError:
        return None
    return namespace, path
