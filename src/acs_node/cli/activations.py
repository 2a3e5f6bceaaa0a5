"""``acs activation``: list, get, logs, result."""

from collections.abc import Callable
from time import monotonic, sleep, time
from typing import Any

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection
from acs_node.cli.errors import Rejected
from acs_node.cli.options import api_command, list_options, list_query

POLL_S = 2.0
POLL_BACK_MS = 300_000  # the longest time limit


@click.group()
def activation() -> None:
    """Show activations: what ran, how it ended, what it printed."""


@activation.command(name="list")
@list_options
@click.option("--since", type=click.IntRange(0), metavar="MS", help="Started at epoch MS or later.")
@click.option("--upto", type=click.IntRange(0), metavar="MS", help="Started at epoch MS or before.")
@click.option("--name", help="Of this action, [PACKAGE/]NAME.")
@api_command
def list_activations(
    connection: Connection,
    limit: int,
    skip: int,
    count: bool,
    since: int | None,
    upto: int | None,
    name: str | None,
    as_json: bool,
) -> None:
    """List activations, the one started last first."""
    filters = {"since": since, "upto": upto, "name": name}
    given = {key: value for key, value in filters.items() if value is not None}
    reply = connection.call(
        "GET",
        connection.path("activations"),
        doing="list activations",
        params=list_query(limit, skip, count) | given,
    )
    output.print_list(
        reply.body,
        "activations",
        output.ACTIVATION_COLUMNS,
        output.activation_row,
        as_json=as_json,
    )


def _one_activation(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``[ID | --last]`` to a command about one activation."""
    for option in (
        click.option("--last", is_flag=True, help="The one started last."),
        click.argument("activation_id", metavar="[ID]", required=False),
    ):
        function = option(function)
    return function


@activation.command()
@_one_activation
@api_command
def get(connection: Connection, activation_id: str | None, last: bool, as_json: bool) -> None:
    """Print an activation's record as JSON."""
    output.print_json(_fetch(connection, activation_id, last))


@activation.command()
@_one_activation
@api_command
def logs(connection: Connection, activation_id: str | None, last: bool, as_json: bool) -> None:
    """Print what an activation wrote to stdout and stderr."""
    body = _fetch(connection, activation_id, last, "logs")
    if as_json:
        output.print_json(body)
    else:
        for line in body["logs"]:
            click.echo(line.encode("utf-8", "backslashreplace"))


@activation.command()
@_one_activation
@api_command
def result(connection: Connection, activation_id: str | None, last: bool, as_json: bool) -> None:
    """Print an activation's result; with --json also how it ended."""
    body = _fetch(connection, activation_id, last, "result")
    output.print_json(body if as_json else body["result"])


@activation.command()
@click.argument("name", required=False)
@click.option(
    "--exit", "exit_s", type=click.FloatRange(0), metavar="SECONDS", help="End after so long."
)
@click.option(
    "--since-seconds",
    type=click.FloatRange(0),
    default=0,
    metavar="SECONDS",
    help="Begin with those that started so long ago.",
)
@api_command
def poll(
    connection: Connection, name: str | None, exit_s: float | None, since_seconds: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Print activations with their logs as they end, of all actions or of [PACKAGE/]NAME.

    Ends with Ctrl-C. One that takes longer than the newest that is shown may be left out.
    """
    begun_s = monotonic()
    since_ms = int((time() - since_seconds) * 1000)
    shown: dict[str, int] = {}
    if not as_json:
        click.echo("Polling for activations; Ctrl-C ends it.", err=True)
    while True:
        params: dict[str, str | int] = {"limit": 0, "skip": 0, "since": since_ms, "docs": "true"}
        body: Any = connection.call(
            "GET",
            connection.path("activations"),
            doing="poll activations",
            params=params | ({} if name is None else {"name": name}),
        ).body
        for record in sorted(body, key=lambda each: int(each["start"])):
            if record["activationId"] not in shown:
                shown[record["activationId"]] = record["start"]
                _print_polled(record, as_json)
        if shown:
            # Those that started before the newest may still end: some seconds are asked for again.
            since_ms = max(since_ms, max(shown.values()) - POLL_BACK_MS)
            shown = {each: start for each, start in shown.items() if start >= since_ms}
        if exit_s is not None and monotonic() - begun_s + POLL_S > exit_s:
            return
        sleep(POLL_S)


def _print_polled(record: Any, as_json: bool) -> None:
    if as_json:
        output.print_json(record)
        return
    click.echo(f"\nActivation: '{record['name']}' ({record['activationId']})")
    for line in record["logs"]:
        click.echo(line.encode("utf-8", "backslashreplace"))


def _fetch(connection: Connection, activation_id: str | None, last: bool, part: str = "") -> Any:
    if last == bool(activation_id):
        raise click.UsageError("give either an activation's ID or --last")
    if activation_id is None:
        activation_id = _last_id(connection)
    if "/" in activation_id:
        raise click.UsageError(f"{activation_id!r} is no activation ID")
    path = connection.path("activations", activation_id, part)
    what = f"{part} of activation" if part else "activation"
    return connection.call("GET", path, doing=f"get {what} {activation_id!r}").body


def _last_id(connection: Connection) -> str:
    body: Any = connection.call(
        "GET",
        connection.path("activations"),
        doing="find the last activation",
        params={"limit": 1, "skip": 0},
    ).body
    if not body:
        raise Rejected("there is no activation yet; `acs action invoke` makes one")
    return str(body[0]["activationId"])
