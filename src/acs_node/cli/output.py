"""What commands print: JSON, tables, and the short forms of times and states."""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import click

JsonObject = dict[str, Any]  # an entity or record as the server sent it

STATUS_NAMES = ("success", "application error", "developer error", "internal error")

_WIDTH_COLUMNS = 10_000  # never fold: a terminal wraps lines itself, and a pipe wants them whole


def print_json(value: object) -> None:
    """Print a value as indented JSON in UTF-8."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # What a function returned may hold half a surrogate pair, which only an escape can carry.
    click.echo(text.encode("utf-8", "backslashreplace"))


def say(body: object, done: str, as_json: bool) -> None:
    """Print what the server answered as JSON, or in a line what was done."""
    if as_json:
        print_json(body)
    else:
        click.echo(f"ok: {done}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print rows under their column names."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=_WIDTH_COLUMNS, markup=False, highlight=False, emoji=False).print(table)


def print_list(
    body: Any,
    collection: str,
    columns: Sequence[str],
    row: Callable[[JsonObject], tuple[str, ...]],
    *,
    as_json: bool,
) -> None:
    """Print the answer to a list query: a table, or the number that ``count=true`` asked for."""
    if as_json:
        print_json(body)
    elif isinstance(body, dict):
        click.echo(body[collection])
    else:
        print_table(columns, map(row, body))


def format_duration(duration_ms: int | None) -> str:
    """Shorten milliseconds: ``7ms``, ``1.5s``, ``2m3.25s``; unknown is empty."""
    if duration_ms is None:
        return ""
    if duration_ms < 1_000:
        return f"{duration_ms}ms"
    minutes, rest_ms = divmod(duration_ms, 60_000)
    return f"{minutes}m{rest_ms / 1_000:g}s" if minutes else f"{rest_ms / 1_000:g}s"


def format_time(epoch_ms: int) -> str:
    """Write an instant as local date and time."""
    return datetime.fromtimestamp(epoch_ms / 1_000).strftime("%Y-%m-%d %H:%M:%S")


def annotation(entity: JsonObject, key: str) -> Any:
    """Look up an annotation; absent is None."""
    pairs = entity.get("annotations", [])
    return next((pair.get("value") for pair in pairs if pair.get("key") == key), None)


def activation_row(summary: JsonObject) -> tuple[str, ...]:
    """Arrange an activation's summary under ``ACTIVATION_COLUMNS``."""
    status = summary.get("statusCode", 0)
    path = annotation(summary, "path") or f"{summary['namespace']}/{summary['name']}"
    return (
        format_time(summary["start"]),
        summary["activationId"],
        annotation(summary, "kind") or "unknown",
        "warm" if annotation(summary, "initTime") is None else "cold",
        format_duration(summary.get("duration")),
        STATUS_NAMES[status] if status in range(len(STATUS_NAMES)) else f"status {status}",
        f"{path}:{summary['version']}",
    )


ACTIVATION_COLUMNS = (
    "Datetime",
    "Activation ID",
    "Kind",
    "Start",
    "Duration",
    "Status",
    "Entity",
)


def action_row(summary: JsonObject) -> tuple[str, ...]:
    """Arrange an action's summary under ``ACTION_COLUMNS``."""
    return (
        f"/{summary['namespace']}/{summary['name']}",
        annotation(summary, "exec") or "unknown",
        summary["version"],
        format_time(summary["updated"]),
    )


ACTION_COLUMNS = ("Action", "Kind", "Version", "Updated")


def package_row(summary: JsonObject) -> tuple[str, ...]:
    """Arrange a package's summary under ``PACKAGE_COLUMNS``."""
    binding = summary.get("binding") or {}
    return (
        f"/{summary['namespace']}/{summary['name']}",
        "shared" if summary.get("publish") else "private",
        f"/{binding['namespace']}/{binding['name']}" if binding else "",
        summary["version"],
        format_time(summary["updated"]),
    )


PACKAGE_COLUMNS = ("Package", "Access", "Binding of", "Version", "Updated")


def trigger_row(summary: JsonObject) -> tuple[str, ...]:
    """Arrange a trigger's summary under ``TRIGGER_COLUMNS``."""
    return (
        f"/{summary['namespace']}/{summary['name']}",
        summary["version"],
        format_time(summary["updated"]),
    )


TRIGGER_COLUMNS = ("Trigger", "Version", "Updated")


def rule_row(rule: JsonObject) -> tuple[str, ...]:
    """Arrange a rule, with its status, under ``RULE_COLUMNS``."""
    return (
        f"/{rule['namespace']}/{rule['name']}",
        *(f"/{rule[each]['path']}/{rule[each]['name']}" for each in ("trigger", "action")),
        rule["status"],
        format_time(rule["updated"]),
    )


RULE_COLUMNS = ("Rule", "Trigger", "Action", "Status", "Updated")
