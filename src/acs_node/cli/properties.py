"""``acs property``: the settings file that this and other clients of the API read."""

import os
from pathlib import Path
from typing import Any

import click

from acs_node import wskprops
from acs_node.cli import output
from acs_node.cli.errors import BadSetting
from acs_node.cli.options import GlobalOptions, json_option

KEYS = ("APIHOST", "AUTH", "NAMESPACE")


@click.group(name="property")
def properties() -> None:
    """Show and change where the server is, the key, and the namespace."""


def _flags(function: Any) -> Any:
    for key in reversed(KEYS):
        function = click.option(f"--{key.lower()}", is_flag=True, help=f"The {key}.")(function)
    return function


@properties.command()
@_flags
@json_option
@click.pass_context
def get(context: click.Context, /, as_json: bool, **wanted: bool) -> None:
    """Print the settings in use, all of them unless some are named.

    The environment goes over the file, and options over both.
    """
    path = wskprops.default_path()
    try:
        settings = wskprops.read(path)
    except OSError as error:
        raise BadSetting(f"cannot read {path}: {error.strerror}") from None
    given = context.find_object(GlobalOptions)
    defaults = {"APIHOST": wskprops.DEFAULT_APIHOST, "NAMESPACE": "_"}
    found = {}
    for key in KEYS:
        if wanted[key.lower()] or not any(wanted.values()):
            sources = (
                getattr(given, key.lower()),
                os.environ.get(f"ACS_{key}"),
                settings.get(key),
                defaults.get(key),
            )
            found[key] = next((value for value in sources if value), "")
    if as_json:
        output.print_json(found)
    else:
        output.print_table(("Property", "Value"), found.items())


@properties.command(name="set")
@click.option("--apihost", help="Server, [http[s]://]HOST[:PORT].")
@click.option("--auth", help="Key, UUID:KEY.")
@click.option("--namespace", help="Namespace; _ is the key's own.")
@json_option
def set_properties(as_json: bool, **values: str | None) -> None:
    """Write settings into the file."""
    given = {key: value for key in KEYS if (value := values[key.lower()]) is not None}
    if not given:
        raise click.UsageError("give at least one of --apihost, --auth, --namespace")
    if "APIHOST" in given:
        try:
            wskprops.base_url(given["APIHOST"])
        except ValueError as error:
            raise BadSetting(str(error)) from None
    if ":" not in given.get("AUTH", ":"):
        raise BadSetting("the key is not UUID:KEY")
    if any(len(value.splitlines()) != 1 for value in given.values()):
        raise BadSetting("a setting is one line, and not empty")
    path = _change(dict(given))
    output.say({"changed": sorted(given)}, f"set {', '.join(given)} in {path}", as_json)


@properties.command()
@_flags
@json_option
def unset(as_json: bool, **chosen: bool) -> None:
    """Remove settings from the file."""
    keys = [key for key in KEYS if chosen[key.lower()]]
    if not keys:
        raise click.UsageError("give at least one of --apihost, --auth, --namespace")
    path = _change(dict.fromkeys(keys))
    output.say({"changed": keys}, f"removed {', '.join(keys)} from {path}", as_json)


def _change(settings: dict[str, str | None]) -> Path:
    path = wskprops.default_path()
    try:
        wskprops.change(path, settings)
    except OSError as error:
        raise BadSetting(f"cannot write {path}: {error.strerror}") from None
    return path
