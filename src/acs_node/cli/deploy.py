"""``acs deploy``: everything that a manifest names, in one go.

The manifest has the form that deployment tools of this API share: packages with their actions,
sequences, triggers and rules.  Reading it is apart from sending it: a manifest with a fault
changes nothing on the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from acs_node.cli import output
from acs_node.cli.actions import web_annotations
from acs_node.cli.connection import Connection, split_name
from acs_node.cli.errors import BadSetting
from acs_node.cli.options import api_command, as_pairs

MANIFESTS = ("manifest.yaml", "manifest.yml")
DEFAULT_PACKAGE = "default"

_LIMITS = {
    "timeout": "timeout",
    "memorySize": "memory",
    "memory": "memory",
    "logSize": "logs",
    "logs": "logs",
    "concurrentActivations": "concurrency",
    "concurrency": "concurrency",
    "instances": "instances",
}


class Step(NamedTuple):
    """One entity to put."""

    what: str  # "package", "action", "trigger", "rule"
    name: str
    body: dict[str, object]


@click.command()
@click.option(
    "-m",
    "--manifest",
    type=click.Path(path_type=Path),
    help="The file, or a folder with a manifest.yaml; unless given, the one in this folder.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@api_command
def deploy(connection: Connection, manifest: Path | None, dry_run: bool, as_json: bool) -> None:
    """Create or update all packages, actions, sequences, triggers and rules of a manifest.

    \b
    packages:
      default:                    # or a package's name
        actions:
          hello:
            function: hello.py    # a file, a folder or a zip, beside the manifest
            runtime: python:3     # unless the name tells it
            inputs: {greeting: hi}
            limits: {timeout: 10000, memorySize: 256}
            annotations: {web-export: true}
            web: true
        sequences:
          both: {actions: "hello, hello"}
        triggers:
          morning: {inputs: {name: you}}
        rules:
          greet: {trigger: morning, action: hello}
    """
    path = _find(manifest)
    steps = list(read_manifest(path, connection))
    for step in steps:
        if not dry_run:
            connection.call(
                "PUT",
                connection.path(f"{step.what}s", step.name),
                doing=f"update {step.what} {step.name!r}",
                params={"overwrite": "true"},
                body=step.body,
            )
        if not as_json:
            done = "would update" if dry_run else "updated"
            click.echo(f"ok: {done} {step.what} {step.name}")
    if as_json:
        output.print_json([{"kind": step.what, "name": step.name} for step in steps])


def _find(manifest: Path | None) -> Path:
    path = manifest or Path()
    if not path.is_dir():
        return path
    for name in MANIFESTS:
        if (path / name).is_file():
            return path / name
    raise BadSetting(f"there is no {MANIFESTS[0]} in {path.absolute()}")


def read_manifest(path: Path, connection: Connection) -> Iterator[Step]:
    """Yield what to put, in an order in which each finds what it needs.

    Raises BadSetting naming the file, the place in it and the fault.
    """
    document = _load(path)
    root = document.get("project", document)
    packages = _mapping(root, "packages", f"{path}")
    if not packages:
        raise BadSetting(f"{path} has no packages")
    found: dict[str, list[Step]] = {"package": [], "action": [], "sequence": [], "rest": []}
    rules: list[Step] = []
    for package, content in packages.items():
        where = f"{path}: packages.{package}"
        content = _as_mapping(content, where)
        is_default = package == DEFAULT_PACKAGE
        prefix = "" if is_default else f"{package}/"
        if not is_default:
            body = _settings(content, where)
            if "public" in content:
                body["publish"] = content["public"]
            found["package"].append(Step("package", package, body))
        for name, each in _mapping(content, "actions", where).items():
            at = f"{where}.actions.{name}"
            body = _action_body(_as_mapping(each, at), path.parent, at)
            found["action"].append(Step("action", prefix + name, body))
        for name, each in _mapping(content, "sequences", where).items():
            at = f"{where}.sequences.{name}"
            body = _sequence_body(_as_mapping(each, at), prefix, connection, at)
            found["sequence"].append(Step("action", prefix + name, body))
        for name, each in _mapping(content, "triggers", where).items():
            at = f"{where}.triggers.{name}"
            found["rest"].append(Step("trigger", name, _settings(_as_mapping(each, at), at)))
        for name, each in _mapping(content, "rules", where).items():
            at = f"{where}.rules.{name}"
            rule = _as_mapping(each, at)
            trigger, action = _text(rule, "trigger", at), _text(rule, "action", at)
            targets: dict[str, object] = {
                "trigger": _full_name(connection, trigger, "", at),
                "action": _full_name(connection, action, prefix, at),
            }
            rules.append(Step("rule", name, targets))
    for steps in found.values():
        yield from steps
    yield from rules


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise BadSetting(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise BadSetting(f"{path} is no YAML: {error}") from None
    return _as_mapping(document, str(path))


def _action_body(action: Mapping[str, Any], folder: Path, where: str) -> dict[str, object]:
    from acs_node.cli.sources import read_exec

    kind = action.get("runtime", action.get("kind"))
    try:
        execution = read_exec(
            folder / _text(action, "function", where),
            None if kind is None else str(kind),
            action.get("main"),
        )
    except click.UsageError as error:
        raise BadSetting(f"{where}: {error.message}") from None
    body = {"exec": execution, **_settings(action, where)}
    limits = {}
    for key, value in _mapping(action, "limits", where).items():
        if key not in _LIMITS:
            raise BadSetting(f"{where}.limits has {key!r}; it may have {', '.join(_LIMITS)}")
        limits[_LIMITS[key]] = value
    if limits:
        body["limits"] = limits
    return body


def _sequence_body(
    sequence: Mapping[str, Any], prefix: str, connection: Connection, where: str
) -> dict[str, object]:
    names = sequence.get("actions")
    if isinstance(names, str):
        names = [each.strip() for each in names.split(",")]
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise BadSetting(f"{where}.actions is to be a list of names, or names with commas between")
    components = [_full_name(connection, each, prefix, where) for each in names]
    execution = {"kind": "sequence", "components": components}
    return {"exec": execution, **_settings(sequence, where, inputs=False)}


def _settings(entity: Mapping[str, Any], where: str, inputs: bool = True) -> dict[str, object]:
    """Return parameters and annotations of an entity, as far as there are any."""
    body: dict[str, object] = {}
    given = {**_mapping(entity, "inputs", where), **_mapping(entity, "parameters", where)}
    if inputs and given:
        body["parameters"] = as_pairs({key: _input(value) for key, value in given.items()})
    notes = dict(_mapping(entity, "annotations", where))
    web = entity.get("web", entity.get("web-export"))
    if web is not None:
        word = str(web).lower()
        if word not in ("true", "yes", "raw", "false", "no"):
            raise BadSetting(f"{where}.web is {web!r}; it may be true, false or raw")
        notes |= web_annotations(word)
    if notes:
        body["annotations"] = as_pairs(notes)
    return body


def _input(value: Any) -> object:
    """Return the value of an input, which may say its type beside it."""
    if isinstance(value, dict) and value.keys() <= {"type", "value", "default", "description"}:
        return value.get("value", value.get("default"))
    return value


def _full_name(connection: Connection, name: str, prefix: str, where: str) -> str:
    """Return the whole name of an action that stands in a package's part of the manifest."""
    try:
        split_name(name)
    except click.UsageError as error:
        raise BadSetting(f"{where}: {error.message}") from None
    return connection.full_name(name if "/" in name else prefix + name)


def _text(entity: Mapping[str, Any], key: str, where: str) -> str:
    value = entity.get(key)
    if not isinstance(value, str):
        raise BadSetting(f"{where} has no {key}")
    return value


def _mapping(entity: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    return _as_mapping(entity.get(key), f"{where}.{key}")


def _as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a mapping whose keys are texts; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadSetting(f"{where} is no mapping of names")
    return value
