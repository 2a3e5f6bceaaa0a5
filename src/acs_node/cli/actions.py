"""``acs action``: create, update, get, list, delete, invoke."""

import json
from pathlib import Path
from typing import Any

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection, Reply
from acs_node.cli.errors import ActivationFailed, BadSetting, StillRunning
from acs_node.cli.options import (
    api_command,
    as_pairs,
    list_options,
    list_query,
    parameter_options,
    parse_value,
    read_parameters,
)

WAIT_MS_MAX = 60_000  # how long the server lets a blocking invocation wait
WAIT_MARGIN_S = 15.0  # what its answer may take besides


@click.group()
def action() -> None:
    """Create, change, show and invoke actions."""


def _settings_options(function: Any) -> Any:
    """Add the options that ``create`` and ``update`` share."""
    for option in (
        click.option("-c", "--concurrency", type=int, help="Runs at once in one container."),
        click.option("-l", "--logsize", type=int, metavar="MB", help="Log of one activation."),
        click.option("-m", "--memory", type=int, metavar="MB", help="Memory of a container."),
        click.option("-t", "--timeout", type=int, metavar="MS", help="Time limit of a run."),
        click.option(
            "-a", "--annotation", nargs=2, multiple=True, metavar="KEY VALUE", help="Annotation."
        ),
        parameter_options,
        click.option(
            "--web",
            type=click.Choice(["true", "yes", "raw", "false", "no"]),
            help="Answer HTTP without a key; raw: the request as it came.",
        ),
        click.option(
            "--web-secure", metavar="SECRET", help="What a web request must bring; false: nothing."
        ),
        click.option(
            "--sequence",
            metavar="ACTION[,ACTION]",
            help="Instead of SOURCE: run these, each with the result of the one before.",
        ),
        click.option("--main", help="Function to call; `main` unless given."),
        click.option("--kind", help="Runtime, for example python:3; else the file's name decides."),
    ):
        function = option(function)
    return function


@action.command()
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@_settings_options
@api_command
def create(connection: Connection, name: str, source: Path | None, **settings: Any) -> None:
    """Create action NAME from SOURCE: a file, a folder or a zip."""
    if (source is None) == (settings["sequence"] is None):
        raise click.UsageError("give either the SOURCE of the action or a --sequence")
    _put(connection, name, source, overwrite=False, **settings)


@action.command()
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@_settings_options
@api_command
def update(connection: Connection, name: str, source: Path | None, **settings: Any) -> None:
    """Change action NAME, or create it. What is not given stays."""
    _put(connection, name, source, overwrite=True, **settings)


def _put(
    connection: Connection,
    name: str,
    source: Path | None,
    *,
    overwrite: bool,
    sequence: str | None,
    web: str | None,
    web_secure: str | None,
    kind: str | None,
    main: str | None,
    param: tuple[tuple[str, str], ...],
    param_file: Path | None,
    annotation: tuple[tuple[str, str], ...],
    timeout: int | None,
    memory: int | None,
    logsize: int | None,
    concurrency: int | None,
    as_json: bool,
) -> None:
    from acs_node.cli.sources import read_exec

    body: dict[str, object] = {}
    if source is not None and sequence is None:
        body["exec"] = read_exec(source, kind, main)
    elif source or kind or main:
        raise click.UsageError(
            "--kind and --main need the SOURCE they are about, and no --sequence"
        )
    elif sequence is not None:
        names = [connection.full_name(each.strip()) for each in sequence.split(",")]
        body["exec"] = {"kind": "sequence", "components": names}
    if param or param_file:
        body["parameters"] = as_pairs(read_parameters(param, param_file))
    notes = {key: parse_value(value) for key, value in annotation}
    if web is not None:
        notes |= web_annotations(web)
    if web_secure is not None:
        notes["require-whisk-auth"] = parse_value(web_secure)
    if notes:
        body["annotations"] = as_pairs(notes)
    limits = {"timeout": timeout, "memory": memory, "logs": logsize, "concurrency": concurrency}
    if given := {key: value for key, value in limits.items() if value is not None}:
        body["limits"] = given
    verb = "update" if overwrite else "create"
    reply = connection.call(
        "PUT",
        connection.path("actions", name),
        doing=f"{verb} action {name!r}",
        params={"overwrite": "true" if overwrite else "false"},
        body=body,
    )
    output.say(reply.body, f"{verb}d action {name}", as_json)


def web_annotations(web: str) -> dict[str, object]:
    """Return what makes an action answer HTTP, or not any more."""
    is_web = web in ("true", "yes", "raw")
    # What the action is given by its owner is not for the internet to change.
    return {"web-export": is_web, "raw-http": web == "raw", "final": is_web}


@action.command()
@click.argument("name")
@click.option("--url", is_flag=True, help="Print where it is invoked over HTTP instead.")
@click.option("--save", is_flag=True, help="Write the code to a file in this folder instead.")
@api_command
def get(connection: Connection, name: str, url: bool, save: bool, as_json: bool) -> None:
    """Print action NAME as JSON."""
    if url:
        _print_url(connection, name, as_json)
        return
    reply = connection.call(
        "GET",
        connection.path("actions", name),
        doing=f"get action {name!r}",
        params={"code": "true"},
    )
    if not save:
        output.print_json(reply.body)
        return
    path = _save(reply.body)
    output.say({"saved": str(path)}, f"saved the code of action {name} to {path}", as_json)


def _print_url(connection: Connection, name: str, as_json: bool) -> None:
    path = connection.path("actions", name)
    reply = connection.call("GET", path, doing=f"get action {name!r}", params={"code": "false"})
    entity: Any = reply.body
    if output.annotation(entity, "web-export"):
        namespace, _, package = entity["namespace"].partition("/")
        path = connection.quoted("web", namespace, package or "default", entity["name"])
    url = connection.url(path)
    if as_json:
        output.print_json({"url": url})
    else:
        click.echo(url)


def _save(entity: Any) -> Path:
    import base64

    from acs_node.cli.sources import save_name

    code = entity["exec"].get("code")
    if code is None:
        raise BadSetting(f"action {entity['name']!r} has no code to save")
    binary = entity["exec"].get("binary", False)
    path = Path(save_name(entity["name"], entity["exec"]["kind"], binary))
    content = base64.b64decode(code) if binary else code.encode("utf-8", "surrogatepass")
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise BadSetting(f"{path} exists; move it away first") from None
    except OSError as error:
        raise BadSetting(f"cannot write {path}: {error.strerror}") from None
    return path


@action.command(name="list")
@list_options
@api_command
def list_actions(connection: Connection, limit: int, skip: int, count: bool, as_json: bool) -> None:
    """List actions, the one changed last first."""
    reply = connection.call(
        "GET",
        connection.path("actions"),
        doing="list actions",
        params=list_query(limit, skip, count),
    )
    output.print_list(
        reply.body, "actions", output.ACTION_COLUMNS, output.action_row, as_json=as_json
    )


@action.command()
@click.argument("name")
@api_command
def delete(connection: Connection, name: str, as_json: bool) -> None:
    """Delete action NAME."""
    reply = connection.call(
        "DELETE", connection.path("actions", name), doing=f"delete action {name!r}"
    )
    output.say(reply.body, f"deleted action {name}", as_json)


@action.command()
@click.argument("name")
@parameter_options
@click.option("-b", "--blocking", is_flag=True, help="Wait for the end; print the record.")
@click.option("-r", "--result", is_flag=True, help="Wait for the end; print the result alone.")
@click.option(
    "--timeout",
    type=click.IntRange(1, WAIT_MS_MAX),
    metavar="MS",
    help=f"Wait at most so long, {WAIT_MS_MAX} unless given; the activation goes on.",
)
@api_command
def invoke(
    connection: Connection,
    name: str,
    param: tuple[tuple[str, str], ...],
    param_file: Path | None,
    blocking: bool,
    result: bool,
    timeout: int | None,
    as_json: bool,
) -> None:
    """Invoke action NAME.

    Without -b or -r it prints the activation's id at once; `acs activation get` shows the rest.
    """
    waits = blocking or result
    if timeout is not None and not waits:
        raise click.UsageError("--timeout needs --blocking or --result, which wait")
    params: dict[str, str | int] = {
        "blocking": "true" if waits else "false",
        "result": "true" if result else "false",
    }
    reply = connection.call(
        "POST",
        connection.path("actions", name),
        doing=f"invoke action {name!r}",
        params=params | ({} if timeout is None else {"timeout": timeout}),
        body=read_parameters(param, param_file),
        answer_s=(timeout or WAIT_MS_MAX) / 1_000 + WAIT_MARGIN_S,
    )
    _report(reply, name, waits=waits, result=result, as_json=as_json)


def _report(reply: Reply, name: str, *, waits: bool, result: bool, as_json: bool) -> None:
    """Print what an invocation answered, and leave with the code that says how it ended."""
    body: Any = reply.body
    record = body if isinstance(body, dict) else {}
    activation_id = reply.activation_id or record.get("activationId")
    if reply.status == 202 and not waits:
        output.say(body, f"invoked action {name} with id {activation_id}", as_json)
    elif reply.status == 202:
        if as_json:
            output.print_json(body)
        hint = f"`acs activation get {activation_id}` shows its record then"
        raise StillRunning(f"action {name!r} still runs as {activation_id}; {hint}")
    elif reply.status < 400:
        if not (as_json or result):
            click.echo(f"ok: invoked action {name} with id {activation_id}")
        output.print_json(body)
    else:
        output.print_json(body)
        response = {"result": record} if result else record.get("response", {})
        status = response.get("status", "an error")
        error = (response.get("result") or {}).get("error", "no details")
        raise ActivationFailed(
            f"action {name!r} ended with {status} in activation {activation_id}: "
            f"{error if isinstance(error, str) else json.dumps(error)}",
        )
