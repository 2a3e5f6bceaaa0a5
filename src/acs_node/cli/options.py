"""Options that several commands share, and how their values are read."""

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from acs_node.cli.connection import Connection

if TYPE_CHECKING:
    import httpx

LIST_LIMIT = 30  # rows, as other clients ask for


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stood before the command's name, and the transport that a test put in."""

    apihost: str | None
    auth: str | None
    namespace: str | None
    transport: "httpx.BaseTransport | None"


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def connection_options(*, hidden: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that say where the server is and who asks."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, text in (
            ("--namespace", "Namespace; _ is the key's own."),
            ("--auth", "Key, UUID:KEY. Others can see it here; the file or ACS_AUTH hides it."),
            ("--apihost", "Server, [http[s]://]HOST[:PORT]."),
        ):
            function = click.option(name, help=text, hidden=hidden)(function)
        return function

    return add


def api_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--json`` and the connection options, and pass a Connection as first argument."""

    @json_option
    @connection_options(hidden=True)
    @click.pass_context
    @functools.wraps(function)
    def command(
        context: click.Context,
        /,
        apihost: str | None,
        auth: str | None,
        namespace: str | None,
        **options: Any,
    ) -> None:
        before = context.find_object(GlobalOptions)
        assert before is not None, "the main group puts it there"
        connection = Connection.find(
            apihost or before.apihost,
            auth or before.auth,
            namespace or before.namespace,
            transport=before.transport,
        )
        function(connection, **options)

    return command


def list_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--limit``, ``--skip`` and ``--count``."""
    for option in (
        click.option("--count", is_flag=True, help="Print only how many there are."),
        click.option("--skip", type=click.IntRange(0), default=0, help="Leave out the newest N."),
        click.option(
            "--limit",
            type=click.IntRange(0, 200),
            default=LIST_LIMIT,
            show_default=True,
            help="Print at most N, 0 for 200.",
        ),
    ):
        function = option(function)
    return function


def list_query(limit: int, skip: int, count: bool) -> dict[str, str | int]:
    """Turn the options of ``list_options`` into query parameters."""
    # A count is of everything behind the skipped ones; a limit would be ignored at best.
    return {"skip": skip, "count": "true"} if count else {"limit": limit, "skip": skip}


def parameter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-p KEY VALUE`` and ``-P FILE``; ``read_parameters`` reads them."""
    for option in (
        click.option(
            "-P",
            "--param-file",
            type=click.Path(path_type=Path),
            help="File with a JSON object of parameters; -p goes over it.",
        ),
        click.option(
            "-p",
            "--param",
            nargs=2,
            multiple=True,
            metavar="KEY VALUE",
            help="Parameter; a VALUE that is JSON is taken as such, else as a string.",
        ),
    ):
        function = option(function)
    return function


annotation_option = click.option(
    "-a", "--annotation", nargs=2, multiple=True, metavar="KEY VALUE", help="Annotation."
)


def entity_body(
    param: Iterable[tuple[str, str]],
    param_file: Path | None,
    annotation: Iterable[tuple[str, str]],
) -> dict[str, object]:
    """Return the PUT body of parameters and annotations, as far as there are any."""
    body: dict[str, object] = {}
    if parameters := read_parameters(param, param_file):
        body["parameters"] = as_pairs(parameters)
    if notes := {key: parse_value(value) for key, value in annotation}:
        body["annotations"] = as_pairs(notes)
    return body


def read_parameters(param: Iterable[tuple[str, str]], param_file: Path | None) -> dict[str, object]:
    """Merge the parameters of ``parameter_options``.

    Raises click.BadParameter naming the option, the file and the fault.
    """
    parameters = {} if param_file is None else _read_json_object(param_file, "-P")
    return parameters | {key: parse_value(value) for key, value in param}


def parse_value(text: str) -> object:
    """Take a text as JSON if it is JSON, else as a string."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)  # 1e999 reads as infinity, which JSON cannot carry
    except (ValueError, RecursionError):
        return text
    return value


def as_pairs(values: dict[str, object]) -> list[dict[str, object]]:
    """Write a mapping in the API's form of parameters and annotations."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _read_json_object(path: Path, option: str) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint=option) from None
    except ValueError as error:
        raise click.BadParameter(f"{path} is no JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter(f"{path} does not hold a JSON object", param_hint=option)
    return value
