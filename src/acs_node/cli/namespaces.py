"""``acs namespace``: who may use a server; works on its data folder, by its database.

For operators on the server's machine: whoever may write the folder may do all of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from acs_node.cli import output
from acs_node.cli.errors import BadSetting, Rejected
from acs_node.cli.options import json_option
from acs_node.cli.servers import data_option, database_option

if TYPE_CHECKING:
    from acs_node.namespaces import NamespaceStore

T = TypeVar("T")

_NUMBERS = {
    "invocations_per_minute": "Invocations a minute.",
    "concurrent_invocations": "Invocations at once.",
    "fires_per_minute": "Fires of triggers a minute.",
    "timeout_ms_max": "Longest time limit of an action, ms.",
    "memory_mb_max": "Most memory of a container, MB.",
    "logs_mb_max": "Longest log of an activation, MB.",
    "concurrency_max": "Most runs at once in a container.",
}


@click.group()
def namespace() -> None:
    """Create and change the namespaces of a server on this machine, and their keys."""


def _limit_options(function: Any) -> Any:
    kinds = click.option(
        "--allowed-kinds", metavar="KIND[,KIND]", help="The only kinds of its actions."
    )
    function = kinds(function)
    for name, text in reversed(_NUMBERS.items()):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, type=click.IntRange(0), metavar="N", help=text)(function)
    return function


@namespace.command()
@click.argument("name")
@_limit_options
@data_option
@database_option
@json_option
def create(name: str, data: Path, database_url: str, as_json: bool, **limits: Any) -> None:
    """Create namespace NAME and print its key, which is shown this once.

    What is not limited here is as the server's.
    """
    from acs_node.entity_types import NamespaceLimits

    chosen = NamespaceLimits(**_given(limits))
    uuid, key = _change(
        data, database_url, lambda store: store.create_namespace(name, limits=chosen)
    )
    _show_key(name, f"{uuid}:{key}", "created", as_json)


@namespace.command(name="rotate-key")
@click.argument("name")
@data_option
@database_option
@json_option
def rotate_key(name: str, data: Path, database_url: str, as_json: bool) -> None:
    """Give namespace NAME another key and print it; the old one stops at once."""
    uuid, key = _change(data, database_url, lambda store: store.rotate_key(name), name)
    _show_key(name, f"{uuid}:{key}", "has another key", as_json)


@namespace.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Do not ask.")
@data_option
@database_option
@json_option
def delete(name: str, force: bool, data: Path, database_url: str, as_json: bool) -> None:
    """Delete namespace NAME with its actions and records; its key stops at once."""
    if not force:
        click.confirm(f"Delete {name} and all that is in it?", abort=True, err=True)
    _change(data, database_url, lambda store: store.delete_namespace(name), name)
    if as_json:
        output.print_json({"deleted": name})
    else:
        click.echo(f"ok: deleted namespace {name}")


@namespace.command(name="list")
@data_option
@database_option
@json_option
def list_namespaces(data: Path, database_url: str, as_json: bool) -> None:
    """List namespaces and where their limits differ from the server's."""

    async def read(store: NamespaceStore) -> list[tuple[str, str, dict[str, Any]]]:
        return [(each.namespace, each.uuid, each.limits.document()) for each in store.namespaces()]

    found = _run(data, database_url, read)
    if as_json:
        output.print_json(
            [{"namespace": name, "uuid": uuid, "limits": limits} for name, uuid, limits in found]
        )
    else:
        rows = [(name, uuid, _limits_text(limits)) for name, uuid, limits in found]
        output.print_table(("Namespace", "UUID", "Limits"), rows)


@namespace.command()
@click.argument("name")
@click.option("--clear", is_flag=True, help="Forget all limits that it has now.")
@_limit_options
@data_option
@database_option
@json_option
def limits(
    name: str, clear: bool, data: Path, database_url: str, as_json: bool, **given: Any
) -> None:
    """Show or set the limits of namespace NAME; they hold at once."""
    from acs_node.entity_types import NamespaceLimits
    from acs_node.errors import not_found

    async def change(store: NamespaceStore) -> dict[str, Any]:
        identity = await store.namespace(name)
        if identity is None:
            raise not_found()
        old = NamespaceLimits() if clear else identity.limits
        new = replace(old, **_given(given))
        if new != identity.limits:
            await store.set_limits(name, new)
        return new.document()

    document = _change(data, database_url, change, name)
    if as_json:
        output.print_json(document)
    else:
        click.echo(f"{name}: {_limits_text(document)}")


def _given(limits: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in limits.items() if value is not None}
    if "allowed_kinds" in given:
        given["allowed_kinds"] = tuple(each.strip() for each in given["allowed_kinds"].split(","))
    return given


def _limits_text(limits: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return ",".join(value) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{key} {text(value)}" for key, value in limits.items()) or "as the server's"


def _show_key(name: str, key: str, done: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"namespace": name, "auth": key})
    else:
        click.echo(f"ok: namespace {name} {done}; its key is shown this once:\n{key}")


def _change(
    data: Path, url: str, work: Callable[[NamespaceStore], Awaitable[T]], name: str | None = None
) -> T:
    """Do ``work`` and tell the server that runs on the folder."""
    from acs_node.data_folder import poke

    done = _run(data, url, work, name)
    try:
        poke(data)
    except OSError as error:
        raise BadSetting(
            f"it is done, but the server on {data} cannot be told ({error.strerror}); restart it"
        ) from None
    return done


def _run(
    data: Path, url: str, work: Callable[[NamespaceStore], Awaitable[T]], name: str | None = None
) -> T:
    """Do ``work`` on the namespaces of a data folder, or of the database at ``url``."""
    from acs_node import clock
    from acs_node.database import Database, DatabaseError, DatabaseUnavailable
    from acs_node.errors import ApiError
    from acs_node.namespaces import NamespaceStore

    path = data / "acs.db"
    if not url and not path.exists():
        raise BadSetting(
            f"no server has used the folder {data} yet: start `acs standalone` on it first, or "
            "name another one with --data"
        )

    async def session() -> T:
        database = Database(url or f"sqlite:///{path}")
        await database.open()
        try:
            store = NamespaceStore(database, clock_ms=clock.wall_ms)
            await store.open()
            return await work(store)
        finally:
            await database.close()

    try:
        return asyncio.run(session())
    except ApiError as error:
        known = name is None or error.status != 404
        text = error.text if known else f"there is no namespace {name!r}"
        raise Rejected(f"{text} ({error.status})") from None
    except (DatabaseError, DatabaseUnavailable) as error:
        raise BadSetting(str(error)) from None
