"""What a PUT of an action may say, and the action that comes of it.

Pure: a parsed JSON body in, an ``Action`` or an ``ApiError`` out; stores nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from acs_core.limits import CONTAINERS_MAX, COUNT_MAX, WAIT_MAX_US

from .entity_types import (
    CONTAINERS_MIN,
    NETWORK_NOTE,
    WAIT_TARGET,
    Action,
    ActionLimits,
    Exec,
    NamespaceLimits,
    Parameter,
)
from .errors import ApiError, kind_forbidden, malformed_content, too_large
from .fields import (
    FIRST_VERSION,
    check_size,
    entity_name,
    next_version,
    pairs,
    publish,
    version,
)

__all__ = [
    "RuntimeKind",
    "RuntimeKinds",
    "SEQUENCE",
    "SEQUENCE_ACTIONS_MAX",
    "SystemLimits",
    "components",
    "create_action",
    "update_action",
]

MIB: Final = 1024 * 1024

BLACKBOX: Final = "blackbox"
"""The kind of an action that is a container image."""

SEQUENCE: Final = "sequence"
"""The kind of an action that is other actions, one after the other."""

SEQUENCE_ACTIONS_MAX: Final = 50
"""Actions of a sequence, those of sequences in it included, and of a composition."""


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """A kind that has a runtime; ``default``: what ``<family>:default`` means.

    ``deprecated``: actions of it may be read and deleted; ``require_main``: they must name theirs.
    ``image``: of its containers, as clients are told.
    """

    kind: str
    default: bool = False
    deprecated: bool = False
    require_main: bool = False
    image: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeKinds:
    """The kinds that can run here, by family."""

    families: Mapping[str, tuple[RuntimeKind, ...]] = field(
        default_factory=lambda: {
            "python": (RuntimeKind("python:3", default=True),),
            "nodejs": (RuntimeKind("nodejs:20", default=True),),
        }
    )

    def resolve(self, kind: str, also: tuple[str, ...] = ()) -> str:
        """Return the real kind of ``kind``, which may be ``<family>:default``.

        Raises: ApiError 400 for one that cannot run here, naming those that can, and ``also``; or
        for one that is deprecated.
        """
        wanted = kind.strip().lower()
        for family, kinds in self.families.items():
            for each in kinds:
                if wanted == each.kind or (each.default and wanted == f"{family}:default"):
                    if each.deprecated:
                        raise ApiError(
                            400,
                            f"The '{each.kind}' runtime is no longer supported."
                            " You may read and delete but not update or invoke this action.",
                        )
                    return each.kind
        here = [each.kind for kinds in self.families.values() for each in kinds]
        known = ", ".join(f"'{each}'" for each in (*here, *also))
        raise malformed_content(
            f"The specified runtime '{wanted}' is not supported by this platform."
            f" Valid values are: {known}."
        )

    def requires_main(self, kind: str) -> bool:
        """Tell whether actions of a kind must name their main function."""
        everyone = (each for kinds in self.families.values() for each in kinds)
        return any(each.kind == kind and each.require_main for each in everyone)


@dataclass(frozen=True, slots=True)
class SystemLimits:
    """What the system allows; the defaults are those of OpenWhisk.

    None in a rate or a count: unlimited, which is right for one machine of one's own.
    """

    timeout_ms_min: int = 100
    timeout_ms: int = 60_000
    timeout_ms_max: int = 300_000
    memory_mb_min: int = 128
    memory_mb: int = 256
    memory_mb_max: int = 512
    logs_mb_min: int = 0
    logs_mb: int = 10
    logs_mb_max: int = 10
    concurrency_min: int = 1
    concurrency: int = 1
    concurrency_max: int = 1
    invocations_per_minute: int | None = None
    concurrent_invocations: int | None = None
    fires_per_minute: int | None = None
    code_bytes_max: int = 48 * MIB
    parameters_bytes_max: int = MIB
    annotations_bytes_max: int = MIB
    payload_bytes_max: int = MIB

    @property
    def body_bytes_max(self) -> int:
        """Largest PUT body: everything at its maximum, and 1 MiB for JSON's escapes and keys."""
        return self.code_bytes_max + self.parameters_bytes_max + self.annotations_bytes_max + MIB

    @property
    def instances_max(self) -> int:
        """Most containers that an action may be given."""
        most = self.concurrent_invocations
        return CONTAINERS_MAX if most is None else most

    def of_namespace(self, limits: NamespaceLimits) -> SystemLimits:
        """Return what holds for a namespace: its own limits, never above the system's maxima."""

        def rate(own: int | None, system: int | None) -> int | None:
            return system if own is None else own

        def maximum(own: int | None, system: int) -> int:
            return system if own is None else min(own, system)

        return replace(
            self,
            timeout_ms_max=maximum(limits.timeout_ms_max, self.timeout_ms_max),
            memory_mb_max=maximum(limits.memory_mb_max, self.memory_mb_max),
            logs_mb_max=maximum(limits.logs_mb_max, self.logs_mb_max),
            concurrency_max=maximum(limits.concurrency_max, self.concurrency_max),
            invocations_per_minute=rate(limits.invocations_per_minute, self.invocations_per_minute),
            concurrent_invocations=rate(limits.concurrent_invocations, self.concurrent_invocations),
            fires_per_minute=rate(limits.fires_per_minute, self.fires_per_minute),
        )


def create_action(
    namespace: str,
    package: str | None,
    name: str,
    body: Mapping[str, Any],
    *,
    revision: int,
    now_ms: int,
    kinds: RuntimeKinds,
    limits: SystemLimits,
    owner: NamespaceLimits,
) -> Action:
    """Return the new action that ``body`` describes.

    Raises: ApiError 400, 403 (kind not allowed to the namespace) or 413, naming the field.
    """
    effective = limits.of_namespace(owner)
    execution = _exec(body, kinds, effective, owner, namespace)
    if execution is None:
        raise ApiError(400, "exec undefined")
    notes = pairs(body, "annotations", effective.annotations_bytes_max) or ()
    if not any(note.key == "provide-api-key" for note in notes):
        notes = (*notes, Parameter("provide-api-key", False))
    defaults = ActionLimits(
        timeout_ms=min(effective.timeout_ms, effective.timeout_ms_max),
        memory_mb=min(effective.memory_mb, effective.memory_mb_max),
        logs_mb=min(effective.logs_mb, effective.logs_mb_max),
        concurrency=min(effective.concurrency, effective.concurrency_max),
    )
    return Action(
        namespace=namespace,
        package=package,
        name=name,
        version=version(body) or FIRST_VERSION,
        revision=revision,
        updated=now_ms,
        publish=publish(body, False),
        exec=execution,
        parameters=_parameters(body, execution, effective) or (),
        limits=_limits(body, defaults, effective),
        annotations=_checked_notes(notes, execution.kind, effective),
    )


def update_action(
    old: Action,
    body: Mapping[str, Any],
    *,
    revision: int,
    now_ms: int,
    kinds: RuntimeKinds,
    limits: SystemLimits,
    owner: NamespaceLimits,
) -> Action:
    """Return ``old`` with what ``body`` says.

    Annotations and limits are merged, parameters and exec replaced; what is absent is kept.
    Raises: as ``create_action``.
    """
    effective = limits.of_namespace(owner)
    execution = _exec(body, kinds, effective, owner, old.namespace) or old.exec
    parameters = _parameters(body, execution, effective)
    removed = _removed_annotations(body)
    notes = {note.key: note for note in old.annotations if note.key not in removed}
    for note in pairs(body, "annotations", effective.annotations_bytes_max) or ():
        notes[note.key] = note
    # The merged set counts, or many small updates would grow it beyond the bound.
    check_size("annotations", notes.values(), effective.annotations_bytes_max)
    return replace(
        old,
        version=version(body) or next_version(old.version),
        revision=revision,
        updated=now_ms,
        publish=publish(body, old.publish),
        exec=execution,
        parameters=old.parameters if parameters is None else parameters,
        limits=_limits(body, old.limits, effective),
        annotations=_checked_notes(notes.values(), execution.kind, effective),
    )


def _parameters(
    body: Mapping[str, Any], execution: Exec, limits: SystemLimits
) -> tuple[Parameter, ...] | None:
    """Read the parameters; those of a sequence are its components, whatever the body says."""
    if execution.kind == SEQUENCE:
        return (Parameter("_actions", list(execution.components)),)
    return pairs(body, "parameters", limits.parameters_bytes_max)


def _exec(
    body: Mapping[str, Any],
    kinds: RuntimeKinds,
    limits: SystemLimits,
    owner: NamespaceLimits,
    namespace: str,
) -> Exec | None:
    value = body.get("exec")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise malformed_content("exec must be an object")
    if not isinstance(value.get("kind"), str):
        raise malformed_content("exec.kind must be a string")
    if _is_sequence(value["kind"]):
        return Exec(SEQUENCE, None, False, components=_components(value, namespace))
    if value["kind"].strip().lower() == BLACKBOX:
        kind, image = BLACKBOX, _image(value)
    else:
        kind, image = kinds.resolve(value["kind"], (SEQUENCE, BLACKBOX)), None
    if owner.allowed_kinds is not None and kind not in owner.allowed_kinds:
        raise kind_forbidden(kind)
    code, main = value.get("code"), value.get("main")
    if not isinstance(code, str) and not (kind == BLACKBOX and code is None):
        raise malformed_content(f"exec.code must be a string for kind '{kind}'")
    if main is not None and not isinstance(main, str):
        raise malformed_content("exec.main must be a string")
    if main is None and kinds.requires_main(kind):
        raise malformed_content(f"exec.main must be a string for kind '{kind}'")
    if code is None:
        return Exec(kind=kind, code=None, binary=False, main=main, image=image)
    size = len(code) if code.isascii() else len(code.encode())
    if size > limits.code_bytes_max:
        raise too_large("exec", size, limits.code_bytes_max)
    return Exec(kind=kind, code=code, binary=_is_base64(code), main=main, image=image)


# Of a reference: [registry[:port]/][path/]name[:tag][@digest], as the engine's grammar has it.
_IMAGE = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?/)?"
    r"([a-z0-9]+([._-]+[a-z0-9]+)*/)*[a-z0-9]+([._-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
IMAGE_CHARACTERS_MAX: Final = 255


def _image(value: Mapping[str, Any]) -> str:
    image = value.get("image")
    if not isinstance(image, str) or not image.strip():
        raise malformed_content(f"exec.image must be a string for kind '{BLACKBOX}'")
    image = image.strip()
    if len(image) > IMAGE_CHARACTERS_MAX or not _IMAGE.fullmatch(image):
        raise malformed_content(f"exec.image '{image:.80}' is no reference of a container image")
    return image


def components(body: Mapping[str, Any], namespace: str) -> tuple[str, ...]:
    """Return the names of the actions of what ``body`` makes a sequence; else none.

    Whether they exist is not known here.  Raises: ApiError 400.
    """
    value = body.get("exec")
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return ()
    return _components(value, namespace) if _is_sequence(value["kind"]) else ()


def _is_sequence(kind: str) -> bool:
    return kind.strip().lower() == SEQUENCE


def _components(value: Mapping[str, Any], namespace: str) -> tuple[str, ...]:
    names = value.get("components")
    if not isinstance(names, list):
        raise malformed_content("exec.components must be an array of names of actions")
    if not names:
        raise ApiError(400, "No component specified for the sequence.")
    if len(names) > SEQUENCE_ACTIONS_MAX:
        raise ApiError(400, "Too many actions in the sequence.")
    return tuple("/" + "/".join(entity_name("component", each, namespace)) for each in names)


def _is_wait(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value * 1000 <= WAIT_MAX_US


_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)


def _is_base64(code: str) -> bool:
    """Say whether ``code`` looks like an archive; a short word such as "code" does as well."""
    text = code.strip()
    return len(text) % 4 == 0 and _BASE64.fullmatch(text) is not None


def _removed_annotations(body: Mapping[str, Any]) -> frozenset[str]:
    value = body.get("delAnnotations")
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise malformed_content("delAnnotations must be an array of strings")
    return frozenset(value)


def _checked_notes(
    notes: Iterable[Parameter], kind: str, allowed: SystemLimits
) -> tuple[Parameter, ...]:
    """Return the annotations with the kind among them; those that are obeyed here are right.

    Raises: ApiError 400.
    """
    kept = [note for note in notes if note.key != "exec"]
    for note in kept:
        # A word that means nothing would leave an action the network that it was to lose.
        if note.key == NETWORK_NOTE and note.value != "none":
            raise malformed_content(f"annotation {NETWORK_NOTE} must be 'none'")
        if note.key == CONTAINERS_MIN:
            if not isinstance(note.value, int) or isinstance(note.value, bool):
                raise malformed_content(f"annotation {CONTAINERS_MIN} must be a whole number")
            most = allowed.concurrent_invocations
            most = COUNT_MAX if most is None else most
            _check_range({"floor": note.value}, "floor", CONTAINERS_MIN, "", 0, most)
        if note.key == WAIT_TARGET and not _is_wait(note.value):
            raise malformed_content(
                f"annotation {WAIT_TARGET} must be a number of milliseconds,"
                f" 0 to {WAIT_MAX_US // 1000}"
            )
    return (*kept, Parameter("exec", kind))


def _limits(body: Mapping[str, Any], old: ActionLimits, allowed: SystemLimits) -> ActionLimits:
    """Merge ``body``'s limits over ``old``; only the ones that ``body`` gives are checked."""
    value = body.get("limits")
    if value is None:
        return old
    if not isinstance(value, dict):
        raise malformed_content("limits must be an object")
    given = {name: _whole(name, value[name]) for name in _LIMIT_FIELDS if name in value}
    _check_range(given, "timeout", "duration", " milliseconds",
                 allowed.timeout_ms_min, allowed.timeout_ms_max)  # fmt: skip
    _check_range(given, "memory", "memory size", " MB",
                 allowed.memory_mb_min, allowed.memory_mb_max)  # fmt: skip
    _check_range(given, "logs", "log size", " MB",
                 allowed.logs_mb_min, allowed.logs_mb_max)  # fmt: skip
    _check_range(given, "concurrency", "concurrency", "",
                 allowed.concurrency_min, allowed.concurrency_max)  # fmt: skip
    _check_range(given, "instances", "instances", "", 1, allowed.instances_max)
    return replace(old, **{_LIMIT_FIELDS[name]: number for name, number in given.items()})


_LIMIT_FIELDS: Final = {
    "timeout": "timeout_ms",
    "memory": "memory_mb",
    "logs": "logs_mb",
    "concurrency": "concurrency",
    "instances": "instances",
}


def _whole(name: str, value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise malformed_content(f"limits.{name} must be a whole number")
    return int(value)


def _check_range(
    given: Mapping[str, int], field: str, label: str, unit: str, least: int, most: int
) -> None:
    value = given.get(field)
    if value is None:
        return
    if value < least:
        detail = f"{label} {value}{unit} below allowed threshold of {least}{unit}"
        raise malformed_content(detail)
    if value > most:
        detail = f"{label} {value}{unit} exceeds allowed threshold of {most}{unit}"
        raise malformed_content(detail)
