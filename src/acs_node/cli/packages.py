"""``acs package``: create, update, bind, get, list, delete."""

from pathlib import Path
from typing import Any

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection, split_name
from acs_node.cli.options import (
    annotation_option,
    api_command,
    entity_body,
    list_options,
    list_query,
    parameter_options,
)


@click.group()
def package() -> None:
    """Create, change and show packages of actions, and bind those of others."""


def _settings_options(function: Any) -> Any:
    """Add the options that ``create`` and ``update`` share."""
    shared = click.option(
        "--shared",
        type=click.Choice(["yes", "no"]),
        flag_value="yes",
        is_flag=False,
        help="Whether everybody may use it.",
    )
    return shared(annotation_option(parameter_options(function)))


@package.command()
@click.argument("name")
@_settings_options
@api_command
def create(connection: Connection, name: str, **settings: Any) -> None:
    """Create package NAME."""
    _put(connection, name, overwrite=False, **settings)


@package.command()
@click.argument("name")
@_settings_options
@api_command
def update(connection: Connection, name: str, **settings: Any) -> None:
    """Change package NAME, or create it. What is not given stays."""
    _put(connection, name, overwrite=True, **settings)


def _put(
    connection: Connection,
    name: str,
    *,
    overwrite: bool,
    shared: str | None,
    param: tuple[tuple[str, str], ...],
    param_file: Path | None,
    annotation: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    body = entity_body(param, param_file, annotation)
    if shared is not None:
        body["publish"] = shared == "yes"
    verb = "update" if overwrite else "create"
    reply = connection.call(
        "PUT",
        connection.path("packages", name),
        doing=f"{verb} package {name!r}",
        params={"overwrite": "true" if overwrite else "false"},
        body=body,
    )
    output.say(reply.body, f"{verb}d package {name}", as_json)


@package.command()
@click.argument("package_name", metavar="PACKAGE")
@click.argument("name")
@annotation_option
@parameter_options
@api_command
def bind(
    connection: Connection,
    package_name: str,
    name: str,
    param: tuple[tuple[str, str], ...],
    param_file: Path | None,
    annotation: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Create NAME, which stands for PACKAGE with parameters of its own over it."""
    namespace, target = split_name(package_name)
    body = entity_body(param, param_file, annotation)
    body["binding"] = {"namespace": namespace or connection.namespace, "name": target}
    reply = connection.call(
        "PUT",
        connection.path("packages", name),
        doing=f"bind package {package_name!r} to {name!r}",
        params={"overwrite": "false"},
        body=body,
    )
    output.say(reply.body, f"created binding {name}", as_json)


@package.command()
@click.argument("name")
@api_command
def get(connection: Connection, name: str, as_json: bool) -> None:
    """Print package NAME, with what is in it, as JSON."""
    reply = connection.call("GET", connection.path("packages", name), doing=f"get package {name!r}")
    output.print_json(reply.body)


@package.command(name="list")
@click.argument("owner", metavar="[NAMESPACE]", required=False)
@list_options
@api_command
def list_packages(
    connection: Connection,
    owner: str | None,
    limit: int,
    skip: int,
    count: bool,
    as_json: bool,
) -> None:
    """List packages, the one changed last first; of another NAMESPACE those that are shared."""
    namespace = (owner or connection.namespace).strip("/")
    reply = connection.call(
        "GET",
        connection.quoted("namespaces", namespace, "packages"),
        doing="list packages",
        params=list_query(limit, skip, count),
    )
    output.print_list(
        reply.body, "packages", output.PACKAGE_COLUMNS, output.package_row, as_json=as_json
    )


@package.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="With the actions in it.")
@api_command
def delete(connection: Connection, name: str, force: bool, as_json: bool) -> None:
    """Delete package NAME."""
    reply = connection.call(
        "DELETE",
        connection.path("packages", name),
        doing=f"delete package {name!r}",
        params={"force": "true"} if force else {},
    )
    output.say(reply.body, f"deleted package {name}", as_json)
