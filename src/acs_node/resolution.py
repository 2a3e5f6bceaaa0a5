"""What a path means to a caller: which action, through which packages, with which parameters.

Rights are here as well: what is in one's own namespace, and what is in a published package of
another.  Of a foreign package that is not published nobody learns whether it exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .action_schema import SEQUENCE, SEQUENCE_ACTIONS_MAX
from .entities import EntityStore
from .entity_types import Action
from .errors import ApiError, forbidden, not_found_named
from .fields import merged
from .names import split_path
from .packages import Package

__all__ = ["Resolved", "check_binding", "check_sequence", "readable_package", "resolve_action"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """An action as it is invoked: with the parameters that it inherits, package < binding < own.

    ``at`` is (namespace, path) as it was asked for, ``packages`` are the ones that it was
    reached through, ``binding`` the name of the first if that is one.
    """

    action: Action
    at: tuple[str, str]
    packages: tuple[Package, ...] = ()
    binding: str = ""


async def resolve_action(
    entities: EntityStore, caller_namespace: str, namespace: str, path: str
) -> Resolved:
    """Return the action that ``path`` in ``namespace`` is to a caller.

    Raises: ApiError 403, 404; 409 when a name on the way belongs to something else.
    """
    package_name, name = split_path(path)
    if package_name is None:
        if namespace != caller_namespace:
            raise forbidden(f"{namespace}/{path}")
        return Resolved(await entities.get(Action, namespace, name), (namespace, path))
    packages = await readable_package(entities, caller_namespace, namespace, package_name)
    home = packages[-1]
    action = await entities.get(Action, home.namespace, f"{home.name}/{name}")
    layers = [each.parameters for each in reversed(packages)]
    if any(layers):
        action = replace(action, parameters=merged(*layers, action.parameters))
    binding = f"{namespace}/{package_name}" if len(packages) > 1 else ""
    return Resolved(action, (namespace, path), packages, binding)


async def readable_package(
    entities: EntityStore, caller_namespace: str, namespace: str, name: str
) -> tuple[Package, ...]:
    """Return a package that a caller may read; behind a binding also the one it stands for.

    Raises: ApiError 403, 404; 409 when the name belongs to something else.
    """
    package = await _readable(entities, caller_namespace, namespace, name)
    if package.binding is None:
        return (package,)
    return package, await _readable(entities, caller_namespace, *package.binding)


async def _readable(
    entities: EntityStore, caller_namespace: str, namespace: str, name: str
) -> Package:
    full_name = f"{namespace}/{name}"
    try:
        package = await entities.find(Package, namespace, name)
    except ApiError:
        if namespace == caller_namespace:
            raise
        package = None
    if namespace != caller_namespace:
        if package is None or not package.publish:
            raise forbidden(full_name)
    elif package is None:
        raise not_found_named(full_name)
    return package


async def check_sequence(
    entities: EntityStore, caller_namespace: str, path: str, components: Sequence[str]
) -> None:
    """Check the components ("/ns/[package/]name") of what is to be the caller's ``path``.

    Those of sequences in it count as its own.  Raises: ApiError 400 or 403.
    """
    itself = (caller_namespace, path)
    count = 0
    # Names, and the sequences that they are in.
    left = [(each, frozenset((itself,))) for each in components]
    while left:
        name, inside = left.pop()
        namespace, _, component = name.removeprefix("/").partition("/")
        try:
            resolved = await resolve_action(entities, caller_namespace, namespace, component)
        except ApiError as error:
            if error.status == 403:
                raise
            raise ApiError(400, "Sequence component does not exist.") from None
        action = resolved.action
        at = (action.namespace, action.path)
        if at in inside:
            raise ApiError(400, "Sequence may not refer to itself.")
        if action.exec.kind == SEQUENCE:
            left += [(each, inside | {at}) for each in action.exec.components]
        else:
            count += 1
        if count + len(left) > SEQUENCE_ACTIONS_MAX:
            raise ApiError(400, "Too many actions in the sequence.")


async def check_binding(
    entities: EntityStore, caller_namespace: str, name: str, target: tuple[str, str]
) -> None:
    """Check what a package ``name`` of the caller is to stand for.

    Raises: ApiError 400, 403, 409 or 422.
    """
    if target == (caller_namespace, name):
        raise ApiError(422, f"Package binding '{name}' contains a circular reference.")
    try:
        package = await _readable(entities, caller_namespace, *target)
    except ApiError as error:
        if error.status == 404:
            raise ApiError(400, "Binding references a package that does not exist.") from None
        if error.status == 409:
            raise ApiError(409, "Cannot bind to a resource that is not a package.") from None
        raise
    if package.binding is not None:
        raise ApiError(400, "Cannot bind to another package binding.")
