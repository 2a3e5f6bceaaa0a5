"""What the entities are: frozen values, and their JSON forms towards clients and database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Final, Protocol, Self

__all__ = [
    "CONTAINERS_MIN",
    "WAIT_TARGET",
    "NETWORK_NOTE",
    "Action",
    "ActionLimits",
    "Entity",
    "Exec",
    "Identity",
    "NamespaceLimits",
    "Parameter",
    "annotation",
    "has_network",
]

CONTAINERS_MIN: Final = "acs-containers-min"
"""Annotation: how many containers are kept for the action once it was invoked first."""

WAIT_TARGET: Final = "acs-wait-target"
"""Annotation: target for the 99th percentile of the wait, in milliseconds."""


@dataclass(frozen=True, slots=True)
class NamespaceLimits:
    """What one namespace may do, where it differs from the system; None = as the system."""

    invocations_per_minute: int | None = None
    concurrent_invocations: int | None = None
    fires_per_minute: int | None = None
    timeout_ms_max: int | None = None
    memory_mb_max: int | None = None
    logs_mb_max: int | None = None
    concurrency_max: int | None = None
    allowed_kinds: tuple[str, ...] | None = None

    def document(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> NamespaceLimits:
        kinds = document.get("allowed_kinds")
        limits = cls(**document)
        return limits if kinds is None else replace(limits, allowed_kinds=tuple(kinds))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the owner of ``namespace``, known by the credential ``uuid``.

    ``callers`` ends with the activation that asks, by a key made for it; before it are those that
    wait for that one, outermost first.  Empty for anybody else.
    """

    namespace: str
    subject: str
    uuid: str
    limits: NamespaceLimits
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionLimits:
    """Limits of one action; ``instances`` is its container cap, None = the namespace's."""

    timeout_ms: int
    memory_mb: int
    logs_mb: int
    concurrency: int
    instances: int | None = None

    def document(self) -> dict[str, int]:
        document = {
            "timeout": self.timeout_ms,
            "memory": self.memory_mb,
            "logs": self.logs_mb,
            "concurrency": self.concurrency,
        }
        if self.instances is not None:
            document["instances"] = self.instances
        return document


@dataclass(frozen=True, slots=True)
class Exec:
    """What runs.  ``code`` is as the client sent it, or None where it was not asked for.

    ``binary``: ``code`` is a base64 archive.  ``image`` and ``components`` belong to kinds
    that are not code (a container image, a sequence).
    """

    kind: str
    code: str | None
    binary: bool
    main: str | None = None
    image: str | None = None
    components: tuple[str, ...] = ()

    def document(self, *, code: bool) -> dict[str, Any]:
        document: dict[str, Any] = {"kind": self.kind, "binary": self.binary}
        if code and self.code is not None:
            document["code"] = self.code
        if self.main is not None:
            document["main"] = self.main
        if self.image is not None:
            document["image"] = self.image
        if self.components:
            document["components"] = list(self.components)
        return document


@dataclass(frozen=True, slots=True)
class Parameter:
    """A key and any JSON value; ``init`` ones go to the environment instead of the arguments."""

    key: str
    value: Any
    init: bool = False

    def document(self) -> dict[str, Any]:
        document = {"key": self.key, "value": self.value}
        if self.init:
            document["init"] = True
        return document


class Entity(Protocol):
    """What the store asks of an action, a package, a trigger, a rule.

    All kinds of a namespace share one key space.  No two changes of any entity share a
    ``revision``.
    """

    collection: ClassVar[str]

    @property
    def namespace(self) -> str: ...

    @property
    def path(self) -> str:
        """The name within the namespace: ``hello`` or ``package/hello``."""
        ...

    @property
    def revision(self) -> int: ...

    @property
    def updated(self) -> int: ...

    @property
    def code(self) -> str | None:
        """What is stored apart, as lists leave it out."""
        ...

    def stored(self) -> dict[str, Any]:
        """Return what ``from_document`` takes, without the code."""
        ...

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], *, revision: int, code: str | None
    ) -> Self: ...

    def with_revision(self, revision: int) -> Self: ...


@dataclass(frozen=True, slots=True)
class Action:
    """One revision of a function."""

    collection: ClassVar[str] = "actions"

    namespace: str
    package: str | None
    name: str
    version: str
    revision: int
    updated: int  # ms since the epoch
    publish: bool
    exec: Exec
    parameters: tuple[Parameter, ...]
    limits: ActionLimits
    annotations: tuple[Parameter, ...]

    @property
    def path(self) -> str:
        """The name within the namespace: ``hello`` or ``package/hello``."""
        return self.name if self.package is None else f"{self.package}/{self.name}"

    @property
    def full_namespace(self) -> str:
        """The namespace as clients see it: ``guest`` or ``guest/package``."""
        return self.namespace if self.package is None else f"{self.namespace}/{self.package}"

    @property
    def code(self) -> str | None:
        return self.exec.code

    def with_revision(self, revision: int) -> Action:
        return replace(self, revision=revision)

    def stored(self) -> dict[str, Any]:
        return self.document(code=False)

    def document(self, *, code: bool = True) -> dict[str, Any]:
        """Return the JSON of a single action, with or without its code."""
        return {
            "namespace": self.full_namespace,
            "name": self.name,
            "version": self.version,
            "publish": self.publish,
            "updated": self.updated,
            "exec": self.exec.document(code=code),
            "parameters": [parameter.document() for parameter in self.parameters],
            "limits": self.limits.document(),
            "annotations": [note.document() for note in self.annotations],
        }

    def summary(self) -> dict[str, Any]:
        """Return the JSON of a row in a list: no parameters and no code."""
        return {
            "namespace": self.full_namespace,
            "name": self.name,
            "version": self.version,
            "publish": self.publish,
            "annotations": [note.document() for note in self.annotations],
            "updated": self.updated,
            "limits": self.limits.document(),
            "exec": {"binary": self.exec.binary},
        }

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], *, revision: int, code: str | None
    ) -> Action:
        """Rebuild what ``document(code=False)`` gave, with ``code`` from where it was kept."""
        namespace, _, package = document["namespace"].partition("/")
        execution, limits = document["exec"], document["limits"]
        return cls(
            namespace=namespace,
            package=package or None,
            name=document["name"],
            version=document["version"],
            revision=revision,
            updated=document["updated"],
            publish=document["publish"],
            exec=Exec(
                kind=execution["kind"],
                code=code,
                binary=execution["binary"],
                main=execution.get("main"),
                image=execution.get("image"),
                components=tuple(execution.get("components", ())),
            ),
            parameters=tuple(Parameter(**each) for each in document["parameters"]),
            limits=ActionLimits(
                timeout_ms=limits["timeout"],
                memory_mb=limits["memory"],
                logs_mb=limits["logs"],
                concurrency=limits["concurrency"],
                instances=limits.get("instances"),
            ),
            annotations=tuple(Parameter(**each) for each in document["annotations"]),
        )


class Annotated(Protocol):
    @property
    def annotations(self) -> tuple[Parameter, ...]: ...


def annotation(entity: Annotated, key: str, default: Any = None) -> Any:
    """Return the value of an entity's annotation, or ``default``."""
    for note in entity.annotations:
        if note.key == key:
            return note.value
    return default


NETWORK_NOTE = "acs-network"
"""The annotation by which an action does without a network; its only value is ``none``."""


def has_network(action: Action) -> bool:
    """Say whether the containers of an action get the network that the server gives."""
    return annotation(action, NETWORK_NOTE) is None
