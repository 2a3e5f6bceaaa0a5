"""Names in URLs: which are legal, what they are told if not, and what a path means.

Pure functions on percent-decoded text.  The rules and texts are those of the OpenWhisk v1 API.
"""

from __future__ import annotations

import re
from typing import Final

from .errors import ApiError, malformed_query

__all__ = [
    "NAME_CHARACTERS_MAX",
    "check_activation_id",
    "check_entity_name",
    "check_namespace",
    "is_path",
    "check_name_filter",
    "resolve_namespace",
    "split_path",
]

NAME_CHARACTERS_MAX: Final = 256
"""Longest entity name and namespace."""

_NAME = re.compile(r"\A(\w|\w[\w@ .&-]{0,254}[\w@.&-])\Z", re.ASCII)
_ACTIVATION_ID = re.compile(r"\A[0-9a-f]{32}\Z")
_ACTIVATION_ID_CHARACTERS = 32


def check_entity_name(name: str) -> None:
    """Raise ApiError 400 unless ``name`` may name an entity."""
    if len(name) > NAME_CHARACTERS_MAX:
        raise ApiError(
            400, f"Name segement longer than allowed: {len(name)} > {NAME_CHARACTERS_MAX}."
        )
    if not _NAME.match(name):
        raise ApiError(400, "The name of the entity contains illegal characters.")


def check_namespace(name: str) -> None:
    """Raise ApiError 400 unless ``name`` may name a namespace."""
    if len(name) > NAME_CHARACTERS_MAX:
        raise ApiError(400, f"Namespace longer than allowed: {len(name)} > {NAME_CHARACTERS_MAX}.")
    if not _NAME.match(name):
        raise ApiError(400, "The namespace contains illegal characters.")


def check_activation_id(activation_id: str) -> None:
    """Raise ApiError 400 unless ``activation_id`` is 32 lower-case hexadecimal digits."""
    length = len(activation_id)
    if length != _ACTIVATION_ID_CHARACTERS:
        raise ApiError(
            400, f"Activation id length is {length} but must be {_ACTIVATION_ID_CHARACTERS}."
        )
    if not _ACTIVATION_ID.match(activation_id):
        raise ApiError(400, "The activation id is not valid.")


def check_name_filter(path: str) -> None:
    """Raise ApiError 400 unless ``path`` is ``action`` or ``package/action``."""
    segments = path.split("/")
    if len(segments) > 2 or not all(_NAME.match(segment) for segment in segments):
        raise malformed_query(
            "name",
            f"Parameter may be a 'simple' name or 'package-name/simple' name: {path}",
        )


def is_path(text: str) -> bool:
    """Tell whether ``text`` is one to three names with slashes between; one may lead."""
    segments = text.removeprefix("/").split("/")
    return len(segments) <= 3 and all(_NAME.match(segment) for segment in segments)


def resolve_namespace(segment: str, own: str) -> str:
    """Return the namespace that a URL segment means: ``_`` is the caller's ``own``.

    Raises: ApiError 400 for an illegal one.
    """
    if segment == "_":
        return own
    check_namespace(segment)
    return segment


def split_path(path: str) -> tuple[str | None, str]:
    """Split ``hello`` into ``(None, "hello")`` and ``pkg/hello`` into ``("pkg", "hello")``.

    Raises: ApiError 400 for an illegal name or more than two segments (``/`` is illegal in one).
    """
    package, slash, name = path.partition("/")
    if not slash:
        check_entity_name(package)
        return None, package
    check_entity_name(package)
    check_entity_name(name)
    return package, name
