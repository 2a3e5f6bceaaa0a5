"""How an invoker keeps its containers, from what people write; the same for every way to run one.

Pure.  Every error is a PoolError that names the setting, its value and what it may be.
"""

from __future__ import annotations

from dataclasses import replace

from acs_core.containers import PoolConfig
from acs_core.limits import KEEP_ALIVE_US
from acs_core.prewarm import Prewarm

from .action_schema import RuntimeKinds, SystemLimits
from .errors import ApiError
from .manifest import Manifest


class PoolError(ValueError):
    """The settings of a pool have no meaning; the text is for who wrote them."""


def parse_prewarm(text: str) -> Prewarm:
    """Read ``KIND:MEMORY_MB:COUNT``; the kind has colons of its own."""
    kind, *numbers = text.rsplit(":", 2)
    if len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
        raise PoolError(f"'{text}' is not KIND:MEMORY_MB:COUNT, as python:3:256:2")
    try:
        return Prewarm(kind, int(numbers[0]), int(numbers[1]))
    except ValueError as error:
        raise PoolError(f"'{text}': {error}") from None


def kinds_of(manifest: Manifest | None) -> RuntimeKinds:
    """Return what actions may be made of: what the manifest says, else our own runtimes."""
    if manifest is not None:
        return manifest.kinds()
    from .images import image_reference  # the engine's client takes long to load

    ours = RuntimeKinds().families
    return RuntimeKinds(
        {
            family: tuple(replace(each, image=image_reference(each.kind)) for each in kinds)
            for family, kinds in ours.items()
        }
    )


def pool_config(
    invoker: str,
    memory_mb: int,
    *,
    pause_grace_s: float,
    prewarm: tuple[Prewarm, ...],
    manifest: Manifest | None,
    limits: SystemLimits,
) -> PoolConfig:
    """Return the settings of a pool; stem cells of the manifest are prewarmed as well."""
    keep_alive_s = KEEP_ALIVE_US / 1e6
    if not 0 <= pause_grace_s < keep_alive_s:
        raise PoolError(
            f"the pause grace is {pause_grace_s:g} s; it must be at least 0 and less than "
            f"the {keep_alive_s:g} s after which an idle container is removed"
        )
    kinds = kinds_of(manifest)
    resolved = []
    for wanted in (*prewarm, *(() if manifest is None else manifest.prewarm())):
        shown = f"the prewarmed sandboxes {wanted.kind}:{wanted.memory_mb}:{wanted.count}"
        try:
            kind = kinds.resolve(wanted.kind)
        except ApiError as error:
            raise PoolError(f"{shown}: {error.text.splitlines()[-1]}") from None
        if not limits.memory_mb_min <= wanted.memory_mb <= limits.memory_mb_max:
            raise PoolError(
                f"{shown}: the memory is {wanted.memory_mb} MB; actions have "
                f"{limits.memory_mb_min}..{limits.memory_mb_max} MB"
            )
        resolved.append(replace(wanted, kind=kind))
    prewarm_mb = sum(each.memory_mb * each.count for each in resolved)
    if prewarm_mb > memory_mb:
        raise PoolError(
            f"the prewarmed sandboxes need {prewarm_mb} MB; all containers have {memory_mb} MB"
        )
    return PoolConfig(
        invoker,
        memory_mb,
        pause_grace_us=round(pause_grace_s * 1e6),
        prewarm=tuple(resolved),
    )
