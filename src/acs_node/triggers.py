"""Triggers and rules: what they are, and what a PUT makes of them.

A trigger is a named event; a rule has it invoke an action.  Whether a rule is active stands in
its trigger, so that firing reads one entity.  Pure; ``rules`` changes both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .action_schema import SystemLimits
from .entity_types import Parameter
from .errors import ApiError, malformed_content
from .fields import FIRST_VERSION, entity_name, next_version, pairs, publish, version
from .names import is_path

__all__ = [
    "ACTIVE",
    "INACTIVE",
    "Reaction",
    "Rule",
    "Trigger",
    "create_rule",
    "create_trigger",
    "update_rule",
    "update_trigger",
]

ACTIVE = "active"
INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a rule has its trigger do; ``action`` is (namespace, path)."""

    action: tuple[str, str]
    status: str

    def document(self) -> dict[str, Any]:
        return {"action": _name_document(self.action), "status": self.status}


@dataclass(frozen=True, slots=True)
class Trigger:
    """One revision of a trigger.  ``reactions``: by the full name of the rule."""

    collection: ClassVar[str] = "triggers"

    namespace: str
    name: str
    version: str
    revision: int
    updated: int  # ms since the epoch
    publish: bool
    parameters: tuple[Parameter, ...]
    annotations: tuple[Parameter, ...]
    reactions: Mapping[str, Reaction] = field(default_factory=dict)
    code: ClassVar[None] = None

    @property
    def path(self) -> str:
        return self.name

    def with_revision(self, revision: int) -> Trigger:
        return replace(self, revision=revision)

    def with_reaction(self, rule: str, reaction: Reaction | None) -> Trigger:
        """Return the trigger with what ``rule`` has it do from now on; None: nothing."""
        reactions = {name: each for name, each in self.reactions.items() if name != rule}
        if reaction is not None:
            reactions[rule] = reaction
        return replace(self, reactions=reactions)

    def document(self) -> dict[str, Any]:
        """Return the JSON of a single trigger."""
        document = {
            **self.summary(),
            "parameters": [parameter.document() for parameter in self.parameters],
            "limits": {},
        }
        if self.reactions:
            document["rules"] = {name: each.document() for name, each in self.reactions.items()}
        return document

    stored = document

    def summary(self) -> dict[str, Any]:
        """Return the JSON of a row in a list."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "version": self.version,
            "publish": self.publish,
            "annotations": [note.document() for note in self.annotations],
            "updated": self.updated,
        }

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], *, revision: int, code: str | None
    ) -> Trigger:
        """Rebuild what ``stored`` gave."""
        return cls(
            namespace=document["namespace"],
            name=document["name"],
            version=document["version"],
            revision=revision,
            updated=document["updated"],
            publish=document["publish"],
            parameters=tuple(Parameter(**each) for each in document["parameters"]),
            annotations=tuple(Parameter(**each) for each in document["annotations"]),
            reactions={
                rule: Reaction(_name(each["action"]), each["status"])
                for rule, each in document.get("rules", {}).items()
            },
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One revision of a rule; ``trigger`` and ``action`` are (namespace, path)."""

    collection: ClassVar[str] = "rules"

    namespace: str
    name: str
    version: str
    revision: int
    updated: int  # ms since the epoch
    publish: bool
    annotations: tuple[Parameter, ...]
    trigger: tuple[str, str]
    action: tuple[str, str]
    code: ClassVar[None] = None

    @property
    def path(self) -> str:
        return self.name

    @property
    def full_name(self) -> str:
        """The name by which a trigger knows it."""
        return f"{self.namespace}/{self.name}"

    def with_revision(self, revision: int) -> Rule:
        return replace(self, revision=revision)

    def document(self, status: str) -> dict[str, Any]:
        """Return the JSON of a single rule, whose trigger tells the status."""
        return {**self.summary(), "status": status}

    def summary(self) -> dict[str, Any]:
        """Return the JSON of a row in a list."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "version": self.version,
            "publish": self.publish,
            "annotations": [note.document() for note in self.annotations],
            "updated": self.updated,
            "trigger": _name_document(self.trigger),
            "action": _name_document(self.action),
        }

    stored = summary

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, revision: int, code: str | None) -> Rule:
        """Rebuild what ``stored`` gave."""
        return cls(
            namespace=document["namespace"],
            name=document["name"],
            version=document["version"],
            revision=revision,
            updated=document["updated"],
            publish=document["publish"],
            annotations=tuple(Parameter(**each) for each in document["annotations"]),
            trigger=_name(document["trigger"]),
            action=_name(document["action"]),
        )


def _name_document(name: tuple[str, str]) -> dict[str, str]:
    """Return the JSON of an entity's name: its last segment, and what stands before it."""
    path, _, last = "/".join(name).rpartition("/")
    return {"path": path, "name": last}


def _name(document: Mapping[str, str]) -> tuple[str, str]:
    namespace, _, path = f"{document['path']}/{document['name']}".partition("/")
    return namespace, path


def create_trigger(
    namespace: str, name: str, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits
) -> Trigger:
    """Return the new trigger that ``body`` describes.  Raises: ApiError 400 or 413."""
    annotations = pairs(body, "annotations", limits.annotations_bytes_max) or ()
    for note in annotations:
        if note.key == "feed" and not (isinstance(note.value, str) and is_path(note.value)):
            raise ApiError(400, "Feed name is not valid")
    _check_limits(body)
    return Trigger(
        namespace=namespace,
        name=name,
        version=version(body) or FIRST_VERSION,
        revision=0,
        updated=now_ms,
        publish=publish(body, False),
        parameters=pairs(body, "parameters", limits.parameters_bytes_max) or (),
        annotations=annotations,
    )


def update_trigger(
    old: Trigger, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits
) -> Trigger:
    """Return ``old`` with what ``body`` says; what is absent is kept, what is given replaces.

    Raises: ApiError 400 or 413.
    """
    parameters = pairs(body, "parameters", limits.parameters_bytes_max)
    annotations = pairs(body, "annotations", limits.annotations_bytes_max)
    _check_limits(body)
    return replace(
        old,
        version=version(body) or next_version(old.version),
        updated=now_ms,
        publish=publish(body, old.publish),
        parameters=old.parameters if parameters is None else parameters,
        annotations=old.annotations if annotations is None else annotations,
    )


def _check_limits(body: Mapping[str, Any]) -> None:
    if not isinstance(body.get("limits") or {}, dict):
        raise malformed_content("limits must be an object")


def create_rule(
    namespace: str, name: str, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits
) -> Rule:
    """Return the new rule that ``body`` describes.  Raises: ApiError 400 or 413."""
    if body.get("trigger") is None or body.get("action") is None:
        raise ApiError(400, "rule requires a valid trigger and a valid action")
    return Rule(
        namespace=namespace,
        name=name,
        version=version(body) or FIRST_VERSION,
        revision=0,
        updated=now_ms,
        publish=publish(body, False),
        annotations=pairs(body, "annotations", limits.annotations_bytes_max) or (),
        trigger=entity_name("trigger", body["trigger"], namespace),
        action=entity_name("action", body["action"], namespace),
    )


def update_rule(old: Rule, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits) -> Rule:
    """Return ``old`` with what ``body`` says; what is absent is kept.

    Raises: ApiError 400 or 413.
    """
    annotations = pairs(body, "annotations", limits.annotations_bytes_max)
    trigger, action = body.get("trigger"), body.get("action")
    return replace(
        old,
        version=version(body) or next_version(old.version),
        updated=now_ms,
        publish=publish(body, old.publish),
        annotations=old.annotations if annotations is None else annotations,
        trigger=old.trigger if trigger is None else entity_name("trigger", trigger, old.namespace),
        action=old.action if action is None else entity_name("action", action, old.namespace),
    )
