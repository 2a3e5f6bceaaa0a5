"""``acs trigger`` and ``acs rule``: what happens, and what is then invoked."""

from pathlib import Path
from typing import Any

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection
from acs_node.cli.options import (
    annotation_option,
    api_command,
    entity_body,
    list_options,
    list_query,
    parameter_options,
    read_parameters,
)


@click.group()
def trigger() -> None:
    """Create, change, show and fire triggers."""


@trigger.command(name="create")
@click.argument("name")
@annotation_option
@parameter_options
@api_command
def create_trigger(connection: Connection, name: str, as_json: bool, **settings: Any) -> None:
    """Create trigger NAME."""
    body = entity_body(**settings)
    _put(connection, "trigger", name, body, overwrite=False, as_json=as_json)


@trigger.command(name="update")
@click.argument("name")
@annotation_option
@parameter_options
@api_command
def update_trigger(connection: Connection, name: str, as_json: bool, **settings: Any) -> None:
    """Change trigger NAME, or create it. What is not given stays."""
    body = entity_body(**settings)
    _put(connection, "trigger", name, body, overwrite=True, as_json=as_json)


def _put(
    connection: Connection, what: str, name: str, body: object, *, overwrite: bool, as_json: bool
) -> None:
    verb = "update" if overwrite else "create"
    reply = connection.call(
        "PUT",
        connection.path(f"{what}s", name),
        doing=f"{verb} {what} {name!r}",
        params={"overwrite": "true" if overwrite else "false"},
        body=body,
    )
    output.say(reply.body, f"{verb}d {what} {name}", as_json)


def _fetch(connection: Connection, what: str, name: str) -> Any:
    path = connection.path(f"{what}s", name)
    return connection.call("GET", path, doing=f"get {what} {name!r}").body


def _delete(connection: Connection, what: str, name: str, as_json: bool) -> None:
    path = connection.path(f"{what}s", name)
    reply = connection.call("DELETE", path, doing=f"delete {what} {name!r}")
    output.say(reply.body, f"deleted {what} {name}", as_json)


@trigger.command(name="get")
@click.argument("name")
@api_command
def get_trigger(connection: Connection, name: str, as_json: bool) -> None:
    """Print trigger NAME, with its rules, as JSON."""
    output.print_json(_fetch(connection, "trigger", name))


@trigger.command(name="list")
@list_options
@api_command
def list_triggers(
    connection: Connection, limit: int, skip: int, count: bool, as_json: bool
) -> None:
    """List triggers, the one changed last first."""
    reply = connection.call(
        "GET",
        connection.path("triggers"),
        doing="list triggers",
        params=list_query(limit, skip, count),
    )
    output.print_list(
        reply.body, "triggers", output.TRIGGER_COLUMNS, output.trigger_row, as_json=as_json
    )


@trigger.command(name="delete")
@click.argument("name")
@api_command
def delete_trigger(connection: Connection, name: str, as_json: bool) -> None:
    """Delete trigger NAME; its rules stay, and do nothing."""
    _delete(connection, "trigger", name, as_json)


@trigger.command()
@click.argument("name")
@parameter_options
@api_command
def fire(
    connection: Connection,
    name: str,
    param: tuple[tuple[str, str], ...],
    param_file: Path | None,
    as_json: bool,
) -> None:
    """Fire trigger NAME: the actions of its active rules are invoked."""
    reply = connection.call(
        "POST",
        connection.path("triggers", name),
        doing=f"fire trigger {name!r}",
        body=read_parameters(param, param_file),
        may_be_empty=True,
    )
    if reply.activation_id is None:
        output.say({}, f"trigger {name} has no active rule, nothing was invoked", as_json)
    else:
        output.say(reply.body, f"fired trigger {name} with id {reply.activation_id}", as_json)


@click.group()
def rule() -> None:
    """Join triggers with the actions that they invoke."""


@rule.command(name="create")
@click.argument("name")
@click.argument("trigger_name", metavar="TRIGGER")
@click.argument("action_name", metavar="ACTION")
@api_command
def create_rule(
    connection: Connection, name: str, trigger_name: str, action_name: str, as_json: bool
) -> None:
    """Create rule NAME: when TRIGGER is fired, ACTION is invoked."""
    body = _rule_body(connection, trigger_name, action_name)
    _put(connection, "rule", name, body, overwrite=False, as_json=as_json)


@rule.command(name="update")
@click.argument("name")
@click.argument("trigger_name", metavar="TRIGGER")
@click.argument("action_name", metavar="ACTION")
@api_command
def update_rule(
    connection: Connection, name: str, trigger_name: str, action_name: str, as_json: bool
) -> None:
    """Change rule NAME, or create it."""
    body = _rule_body(connection, trigger_name, action_name)
    _put(connection, "rule", name, body, overwrite=True, as_json=as_json)


def _rule_body(connection: Connection, trigger_name: str, action_name: str) -> dict[str, str]:
    return {
        "trigger": connection.full_name(trigger_name),
        "action": connection.full_name(action_name),
    }


@rule.command(name="get")
@click.argument("name")
@api_command
def get_rule(connection: Connection, name: str, as_json: bool) -> None:
    """Print rule NAME as JSON."""
    output.print_json(_fetch(connection, "rule", name))


@rule.command(name="list")
@list_options
@api_command
def list_rules(connection: Connection, limit: int, skip: int, count: bool, as_json: bool) -> None:
    """List rules with their status, the one changed last first."""
    body: Any = connection.call(
        "GET", connection.path("rules"), doing="list rules", params=list_query(limit, skip, count)
    ).body
    if not count:
        # A list tells no status.
        body = [_fetch(connection, "rule", each["name"]) for each in body]
    output.print_list(body, "rules", output.RULE_COLUMNS, output.rule_row, as_json=as_json)


@rule.command(name="delete")
@click.argument("name")
@api_command
def delete_rule(connection: Connection, name: str, as_json: bool) -> None:
    """Delete rule NAME."""
    _delete(connection, "rule", name, as_json)


@rule.command()
@click.argument("name")
@api_command
def enable(connection: Connection, name: str, as_json: bool) -> None:
    """Have rule NAME's trigger invoke its action."""
    _switch(connection, name, "active", "enabled", as_json)


@rule.command()
@click.argument("name")
@api_command
def disable(connection: Connection, name: str, as_json: bool) -> None:
    """Have rule NAME do nothing until it is enabled."""
    _switch(connection, name, "inactive", "disabled", as_json)


def _switch(connection: Connection, name: str, status: str, done: str, as_json: bool) -> None:
    connection.call(
        "POST",
        connection.path("rules", name),
        doing=f"switch rule {name!r}",
        body={"status": status},
        may_be_empty=True,
    )
    output.say({"status": status}, f"{done} rule {name}", as_json)


@rule.command()
@click.argument("name")
@api_command
def status(connection: Connection, name: str, as_json: bool) -> None:
    """Print whether rule NAME is active."""
    found = _fetch(connection, "rule", name)["status"]
    if as_json:
        output.print_json({"status": found})
    else:
        click.echo(f"ok: rule {name} is {found}")
