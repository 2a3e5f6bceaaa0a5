"""The runtimes manifest: which kinds there are, the image of each, and what stands prewarmed.

The format is OpenWhisk's ``runtimes.json``.  Pure but for ``load``, which reads a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from acs_core.prewarm import Prewarm

from .action_schema import RuntimeKind, RuntimeKinds

MANIFEST_BYTES_MAX: Final = 1024 * 1024


class ManifestError(ValueError):
    """The manifest cannot be used; the text names the field, what is there and what may be."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A kind with its image.

    ``sentinels``: it marks the end of each activation in its logs.  ``prewarm``: sandboxes of
    this kind that stand ready.
    """

    kind: str
    image: str
    default: bool = False
    deprecated: bool = False
    require_main: bool = False
    sentinels: bool = True
    prewarm: tuple[Prewarm, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Runtimes by family, and blackbox images that are known here: they are never pulled."""

    families: Mapping[str, tuple[Runtime, ...]] = field(default_factory=dict)
    blackboxes: frozenset[str] = frozenset()

    def runtimes(self) -> dict[str, Runtime]:
        """Return the runtimes by kind."""
        return {each.kind: each for family in self.families.values() for each in family}

    def kinds(self) -> RuntimeKinds:
        """Return what actions may be made of."""
        return RuntimeKinds(
            {
                family: tuple(
                    RuntimeKind(
                        each.kind, each.default, each.deprecated, each.require_main, each.image
                    )
                    for each in runtimes
                )
                for family, runtimes in self.families.items()
            }
        )

    def prewarm(self) -> tuple[Prewarm, ...]:
        """Return which sandboxes stand ready, of all kinds."""
        return tuple(each for runtime in self.runtimes().values() for each in runtime.prewarm)


def load(path: Path) -> Manifest:
    """Read a manifest.  Raises: ManifestError, naming the file."""
    try:
        with path.open("rb") as file:
            text = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    if len(text) > MANIFEST_BYTES_MAX:
        raise ManifestError(f"{path}: it has more than {MANIFEST_BYTES_MAX} bytes")
    try:
        return parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}: no JSON: {error}") from None
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from None


def parse(document: object) -> Manifest:
    """Read the JSON of a manifest.  Raises: ManifestError."""
    top = _Object(document, "the manifest")
    families = {}
    for family, entries in _Object(top.need("runtimes"), "runtimes").items():
        where = f"runtimes.{family}"
        families[family] = _family(family, _list(entries, where), where)
    kinds = [each.kind for family in families.values() for each in family]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ManifestError(f"runtimes has the kind '{kind}' {kinds.count(kind)} times")
    if not kinds:
        raise ManifestError("runtimes has no kind")
    known = _list(top.get("blackboxes", []), "blackboxes")
    images = [_image(each, f"blackboxes[{index}]") for index, each in enumerate(known)]
    return Manifest(families, frozenset(images))


def _family(family: str, entries: list[object], where: str) -> tuple[Runtime, ...]:
    runtimes = [_runtime(family, each, f"{where}[{i}]") for i, each in enumerate(entries)]
    defaults = sum(each.default for each in runtimes)
    if len(runtimes) == 1:
        return (replace(runtimes[0], default=True),)
    if defaults != 1:
        raise ManifestError(f"{where} has {defaults} kinds with default: true; it must be 1")
    return tuple(runtimes)


def _runtime(family: str, entry: object, where: str) -> Runtime:
    fields = _Object(entry, where)
    kind = fields.text("kind").strip().lower()
    if not re.fullmatch(r"[a-z][a-z0-9_.-]*:[a-z0-9_.-]+", kind) or kind.endswith(":default"):
        raise ManifestError(f"{where}.kind is '{kind}'; it must be FAMILY:VERSION")
    if kind.partition(":")[0] != family:
        raise ManifestError(f"{where}.kind is '{kind}'; it must begin with '{family}:'")
    cells = _list(fields.get("stemCells", []), f"{where}.stemCells")
    return Runtime(
        kind,
        _image(fields.need("image"), f"{where}.image"),
        default=fields.flag("default", False),
        deprecated=fields.flag("deprecated", False),
        require_main=fields.flag("requireMain", False),
        sentinels=fields.flag("sentinelledLogs", True),
        prewarm=tuple(
            _prewarm(kind, cell, f"{where}.stemCells[{index}]") for index, cell in enumerate(cells)
        ),
    )


def _image(value: object, where: str) -> str:
    """Return ``[registry/][prefix/]name[:tag]``."""
    fields = _Object(value, where)
    parts = [fields.text(name) for name in ("registry", "prefix") if fields.get(name)]
    tag = fields.text("tag") if fields.get("tag") else ""
    name = "/".join(part.strip("/") for part in [*parts, fields.text("name")])
    return f"{name}:{tag}" if tag else name


def _prewarm(kind: str, cell: object, where: str) -> Prewarm:
    fields = _Object(cell, where)
    count = fields.number("initialCount" if fields.get("count") is None else "count")
    memory_mb = _memory_mb(fields.text("memory"), f"{where}.memory")
    growth = fields.get("reactive")
    try:
        if growth is None:
            return Prewarm(kind, memory_mb, count)
        reactive = _Object(growth, f"{where}.reactive")
        return Prewarm(
            kind,
            memory_mb,
            count,
            expiry_us=_duration_us(reactive.text("ttl"), f"{where}.reactive.ttl"),
            count_min=reactive.number("minCount"),
            count_max=reactive.number("maxCount"),
            threshold=reactive.number("threshold"),
            increment=reactive.number("increment"),
        )
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError(f"{where}: {error}") from None


_UNITS_MB: Final = {"m": 1, "g": 1024}
_UNITS_US: Final = {
    "ms": 1_000, "millis": 1_000, "milliseconds": 1_000, "millisecond": 1_000,
    "s": 1_000_000, "sec": 1_000_000, "seconds": 1_000_000, "second": 1_000_000,
    "m": 60_000_000, "min": 60_000_000, "minutes": 60_000_000, "minute": 60_000_000,
    "h": 3_600_000_000, "hours": 3_600_000_000, "hour": 3_600_000_000,
}  # fmt: skip


def _memory_mb(text: str, where: str) -> int:
    found = re.fullmatch(r"(\d{1,9})\s*([mg])i?b?", text.strip().lower())
    if found is None:
        raise ManifestError(f"{where} is '{text}'; it must be as '256 MB' or '1 GB'")
    return int(found[1]) * _UNITS_MB[found[2]]


def _duration_us(text: str, where: str) -> int:
    found = re.fullmatch(r"(\d{1,9})\s*([a-z]+)", text.strip().lower())
    if found is None or found[2] not in _UNITS_US:
        raise ManifestError(f"{where} is '{text}'; it must be as '2 minutes' or '30 s'")
    return int(found[1]) * _UNITS_US[found[2]]


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ManifestError(f"{where} is {_shown(value)}; it must be a list")
    return value


def _shown(value: object) -> str:
    return f"{json.dumps(value)!s:.60}"


class _Object:
    """A JSON object at a place in the manifest, for errors that name both."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ManifestError(f"{where} is {_shown(value)}; it must be an object")
        self._value: dict[str, Any] = value
        self._where = where

    def items(self) -> list[tuple[str, object]]:
        return list(self._value.items())

    def get(self, name: str, default: object = None) -> object:
        return self._value.get(name, default)

    def need(self, name: str) -> object:
        if name not in self._value:
            raise ManifestError(f"{self._where} has no '{name}'")
        return self._value[name]

    def text(self, name: str) -> str:
        value = self.need(name)
        if not isinstance(value, str) or not value.strip():
            raise ManifestError(f"{self._where}.{name} is {_shown(value)}; it must be a text")
        return value.strip()

    def number(self, name: str) -> int:
        value = self.need(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ManifestError(f"{self._where}.{name} is {_shown(value)}; it must be a number")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise ManifestError(
                f"{self._where}.{name} is {_shown(value)}; it must be true or false"
            )
        return value
