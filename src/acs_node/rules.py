"""Changes of triggers and rules: a rule and its triggers change together or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .entities import EntityStore
from .errors import ApiError, forbidden
from .resolution import resolve_action
from .triggers import (
    ACTIVE,
    INACTIVE,
    Reaction,
    Rule,
    Trigger,
    create_rule,
    create_trigger,
    update_rule,
    update_trigger,
)

__all__ = [
    "delete_rule",
    "delete_trigger",
    "put_rule",
    "put_trigger",
    "set_status",
    "status_of",
]


async def put_trigger(
    entities: EntityStore, namespace: str, name: str, body: Mapping[str, Any], overwrite: bool
) -> Trigger:
    """Create or update a trigger as the PUT body says; return it as stored.

    Raises: ApiError 400, 409 or 413, and nothing changed.
    """
    rules: dict[str, Any] = {"now_ms": entities.now_ms(), "limits": entities.limits}
    old = await entities.basis(Trigger, namespace, name, overwrite)
    if old is None:
        draft = create_trigger(namespace, name, body, **rules)
    else:
        draft = update_trigger(old, body, **rules)
    (trigger,) = await entities.save([(old, draft)], overwrite=overwrite)
    assert isinstance(trigger, Trigger)
    return trigger


async def delete_trigger(entities: EntityStore, namespace: str, name: str) -> Trigger:
    """Delete a trigger and return it as it was; its rules stay, inactive.

    Raises: ApiError 404; 409 when it was changed meanwhile, and nothing changed.
    """
    trigger = await entities.existing(Trigger, namespace, name)
    await entities.save([(trigger, None)])
    return trigger


async def put_rule(
    entities: EntityStore, namespace: str, name: str, body: Mapping[str, Any], overwrite: bool
) -> tuple[Rule, str]:
    """Create or update a rule as the PUT body says; return it as stored, and its status.

    A new one is active; one that is changed stays what it was.
    Raises: ApiError 400 (no such trigger or action), 403, 409 or 413, and nothing changed.
    """
    rules: dict[str, Any] = {"now_ms": entities.now_ms(), "limits": entities.limits}
    old = await entities.basis(Rule, namespace, name, overwrite)
    if old is None:
        draft = create_rule(namespace, name, body, **rules)
    else:
        draft = update_rule(old, body, **rules)
    trigger = await _trigger_of(entities, draft)
    if trigger is None:
        raise ApiError(400, f"trigger {_shown(draft.trigger)} does not exist")
    try:
        await resolve_action(entities, namespace, *draft.action)
    except ApiError as error:
        if error.status == 404:
            raise ApiError(400, f"action {_shown(draft.action)} does not exist") from None
        raise
    status = ACTIVE
    changes: list[tuple[Any, Any]] = [(old, draft)]
    if old is not None:
        before = await _trigger_of(entities, old)
        status = _status(before, old)
        if before is not None and before.path != trigger.path:
            changes.append((before, before.with_reaction(old.full_name, None)))
    reaction = Reaction(draft.action, status)
    changes.append((trigger, trigger.with_reaction(draft.full_name, reaction)))
    rule, *_ = await entities.save(changes, overwrite=overwrite)
    assert isinstance(rule, Rule)
    return rule, status


async def delete_rule(entities: EntityStore, namespace: str, name: str) -> Rule:
    """Delete a rule and return it as it was.

    Raises: ApiError 404; 409 when it was changed meanwhile, and nothing changed.
    """
    rule = await entities.existing(Rule, namespace, name)
    changes: list[tuple[Any, Any]] = [(rule, None)]
    trigger = await _trigger_of(entities, rule)
    if trigger is not None:
        changes.append((trigger, trigger.with_reaction(rule.full_name, None)))
    await entities.save(changes)
    return rule


async def set_status(entities: EntityStore, namespace: str, name: str, status: object) -> None:
    """Make a rule active or inactive.

    Raises: ApiError 400 for another status, 404 when the rule or its trigger is gone.
    """
    if status not in (ACTIVE, INACTIVE):
        raise ApiError(400, f"The status of a rule is '{ACTIVE}' or '{INACTIVE}', not {status!r}.")
    rule = await entities.existing(Rule, namespace, name)
    trigger = await _trigger_of(entities, rule)
    if trigger is None:
        raise ApiError(404, "Only rules with existing triggers can be activated")
    if _status(trigger, rule) != status:
        changed = trigger.with_reaction(rule.full_name, Reaction(rule.action, str(status)))
        await entities.save([(trigger, changed)])


async def status_of(entities: EntityStore, rule: Rule) -> str:
    """Tell whether a rule is active."""
    return _status(await _trigger_of(entities, rule), rule)


async def _trigger_of(entities: EntityStore, rule: Rule) -> Trigger | None:
    """Return the trigger that a rule names, which is of the same namespace.

    Raises: ApiError 403 for another one's; 409 when the name belongs to something else.
    """
    namespace, path = rule.trigger
    if namespace != rule.namespace:
        raise forbidden(f"{namespace}/{path}")
    return await entities.find(Trigger, namespace, path)


def _status(trigger: Trigger | None, rule: Rule) -> str:
    reaction = None if trigger is None else trigger.reactions.get(rule.full_name)
    return INACTIVE if reaction is None else reaction.status


def _shown(name: tuple[str, str]) -> str:
    return f"/{'/'.join(name)}"
