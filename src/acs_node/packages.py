"""Packages and bindings: what they are, and what a PUT makes of them.

A package groups actions of its namespace and gives them parameters; a published one is everybody's
to read and invoke.  A binding is a package that stands for another one, with parameters of its
own over it.  Pure; ``resolution`` follows bindings, ``entities`` stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from .action_schema import SystemLimits
from .entity_types import Parameter
from .errors import ApiError, malformed_content
from .fields import FIRST_VERSION, next_version, pairs, publish, version
from .names import check_entity_name, resolve_namespace

__all__ = ["Package", "create_package", "read_binding", "update_package"]

_RESERVED = "default"


@dataclass(frozen=True, slots=True)
class Package:
    """One revision of a package; ``binding`` is (namespace, name) of what it stands for."""

    collection: ClassVar[str] = "packages"

    namespace: str
    name: str
    version: str
    revision: int
    updated: int  # ms since the epoch
    publish: bool
    parameters: tuple[Parameter, ...]
    annotations: tuple[Parameter, ...]
    binding: tuple[str, str] | None = None
    code: ClassVar[None] = None

    @property
    def path(self) -> str:
        return self.name

    def with_revision(self, revision: int) -> Package:
        return replace(self, revision=revision)

    def document(self) -> dict[str, Any]:
        """Return the JSON of a single package, without what it contains."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "version": self.version,
            "publish": self.publish,
            "updated": self.updated,
            "parameters": [parameter.document() for parameter in self.parameters],
            "annotations": [note.document() for note in self.annotations],
            "binding": self._binding() or {},
        }

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
            "binding": self._binding() or False,
        }

    def _binding(self) -> dict[str, str] | None:
        if self.binding is None:
            return None
        return {"namespace": self.binding[0], "name": self.binding[1]}

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], *, revision: int, code: str | None
    ) -> Package:
        """Rebuild what ``stored`` gave."""
        binding = document["binding"]
        return cls(
            namespace=document["namespace"],
            name=document["name"],
            version=document["version"],
            revision=revision,
            updated=document["updated"],
            publish=document["publish"],
            parameters=tuple(Parameter(**each) for each in document["parameters"]),
            annotations=tuple(Parameter(**each) for each in document["annotations"]),
            binding=(binding["namespace"], binding["name"]) if binding else None,
        )


def create_package(
    namespace: str, name: str, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits
) -> Package:
    """Return the new package that ``body`` describes.  Raises: ApiError 400 or 413."""
    if name == _RESERVED:
        raise ApiError(400, f"Package name '{name}' is reserved.")
    binding = read_binding(body, namespace)
    return Package(
        namespace=namespace,
        name=name,
        version=version(body) or FIRST_VERSION,
        revision=0,
        updated=now_ms,
        publish=publish(body, False),
        parameters=pairs(body, "parameters", limits.parameters_bytes_max) or (),
        annotations=_naming(
            pairs(body, "annotations", limits.annotations_bytes_max) or (), binding
        ),
        binding=binding,
    )


def update_package(
    old: Package, body: Mapping[str, Any], *, now_ms: int, limits: SystemLimits
) -> Package:
    """Return ``old`` with what ``body`` says; what is absent is kept, what is given replaces.

    Raises: ApiError 400 or 413; 409 when a package that is none shall become a binding.
    """
    binding = read_binding(body, old.namespace)
    if binding is not None and old.binding is None:
        raise ApiError(409, "Resource is a package and cannot be converted into a binding.")
    binding = binding or old.binding
    parameters = pairs(body, "parameters", limits.parameters_bytes_max)
    annotations = pairs(body, "annotations", limits.annotations_bytes_max)
    return replace(
        old,
        version=version(body) or next_version(old.version),
        updated=now_ms,
        publish=publish(body, old.publish),
        parameters=old.parameters if parameters is None else parameters,
        annotations=_naming(old.annotations if annotations is None else annotations, binding),
        binding=binding,
    )


def _naming(
    annotations: tuple[Parameter, ...], binding: tuple[str, str] | None
) -> tuple[Parameter, ...]:
    """Return the annotations with the one by which a binding tells its target."""
    if binding is None:
        return annotations
    target = {"namespace": binding[0], "name": binding[1]}
    rest = (note for note in annotations if note.key != "binding")
    return (*rest, Parameter("binding", target))


def read_binding(body: Mapping[str, Any], own_namespace: str) -> tuple[str, str] | None:
    """Return (namespace, name) of what ``body`` binds, if anything.  Raises: ApiError 400."""
    value = body.get("binding")
    if value is None or value == {}:
        return None
    namespace = value.get("namespace", "_") if isinstance(value, dict) else None
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise malformed_content("binding must have a namespace and a name")
    check_entity_name(name)
    return resolve_namespace(namespace, own_namespace), name
