"""What the PUT bodies of all entities share: parameters, annotations, version, names of others.

Pure: parsed JSON in, values or an ``ApiError`` out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from .entity_types import Parameter
from .errors import malformed_content, too_large
from .names import resolve_namespace, split_path

__all__ = [
    "FIRST_VERSION",
    "check_size",
    "entity_name",
    "merged",
    "next_version",
    "pairs",
    "publish",
    "version",
]

FIRST_VERSION: Final = "0.0.1"

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)


def pairs(body: Mapping[str, Any], name: str, size_bytes_max: int) -> tuple[Parameter, ...] | None:
    """Read ``[{"key":…,"value":…}]``; None when absent; of a key given twice the last wins.

    Raises: ApiError 400 or 413.
    """
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise malformed_content(f"{name} malformed!")
    found: dict[str, Parameter] = {}
    for each in value:
        if not (isinstance(each, dict) and isinstance(each.get("key"), str) and "value" in each):
            raise malformed_content(f"{name} malformed!")
        init = each.get("init", False)
        if not isinstance(init, bool):
            raise malformed_content(f"{name} malformed!")
        found[each["key"]] = Parameter(each["key"], each["value"], init and name == "parameters")
    check_size(name, found.values(), size_bytes_max)
    return tuple(found.values())


def check_size(name: str, given: Iterable[Parameter], size_bytes_max: int) -> None:
    """Raise ApiError 413 when keys and values together are larger than allowed.

    Raises: ApiError 400 for a value that could not be written as part of an entity.
    """
    size = 0
    for each in given:
        try:
            # In so many brackets that a list of entities can still be written with it inside.
            wrapped = orjson.dumps([[[[[[[[each.value]]]]]]]])
        except orjson.JSONEncodeError:
            raise malformed_content(f"{name}: '{each.key}' is nested too deep") from None
        size += len(each.key.encode()) + len(wrapped) - 16
    if size > size_bytes_max:
        raise too_large(name, size, size_bytes_max)


def merged(*layers: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Return the parameters of all layers; of a key in several, the last layer's one."""
    found: dict[str, Parameter] = {}
    for layer in layers:
        for each in layer:
            found[each.key] = each
    return tuple(found.values())


def publish(body: Mapping[str, Any], default: bool) -> bool:
    """Read ``publish``.  Raises: ApiError 400."""
    value = body.get("publish")
    if value is None:
        return default
    if not isinstance(value, bool):
        raise malformed_content("publish must be true or false")
    return value


def version(body: Mapping[str, Any]) -> str | None:
    """Read ``version``; None when absent.  Raises: ApiError 400."""
    value = body.get("version")
    if value is None:
        return None
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise malformed_content("version must be a string such as '0.0.1'")
    return value


def next_version(old: str) -> str:
    """Return the version after an update that names none."""
    major, minor, patch = old.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def entity_name(field: str, value: Any, own_namespace: str) -> tuple[str, str]:
    """Read the name of another entity: ``"/ns/[pkg/]name"`` or ``{"path": …, "name": …}``.

    Returns namespace and path; ``_`` is ``own_namespace``.  Raises: ApiError 400.
    """
    if isinstance(value, dict):
        path, name = value.get("path"), value.get("name")
        if isinstance(path, str) and isinstance(name, str):
            value = f"{path}/{name}"
    if isinstance(value, str):
        namespace, slash, path = value.removeprefix("/").partition("/")
        if slash:
            split_path(path)
            return resolve_namespace(namespace, own_namespace), path
    raise malformed_content(f"{field} must be a name such as '/namespace/name'")
