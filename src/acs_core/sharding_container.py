"""A container of the baseline's pool, and which of them go when room is needed."""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from .events import Activation, QueueSpec


class ProxyState(IntEnum):
    """Where a container is in its life."""

    STARTING = 0
    """Created for a run; its sandbox is being started."""
    RUNNING = 1
    """Being initialised or running something."""
    READY = 2
    PAUSING = 3
    PAUSED = 4
    RESUMING = 5
    REMOVING = 6
    """Takes nothing more; removed when the last run has ended."""


class PushContainer:
    """One container, as the pool counts it and as it is."""

    def __init__(self, container: str, spec: QueueSpec, warming: int) -> None:
        self.container = container
        self.spec = spec
        # The pool's view: 0 warm, 1 warming (it was prewarmed), 2 warming from cold.
        self.warming = warming
        self.assigned = 0
        self.last_used_us = 0
        # What it is.
        self.state = int(ProxyState.STARTING)
        self.initialised = False
        # What runs, with its deadline; _NEVER once it was given up.
        self.running: dict[str, int] = {}
        # On whose behalf it is initialised.
        self.first: Activation | None = None
        # Assigned, and not started.
        self.held: deque[Activation] = deque()
        self.idle_since_us = 0
        self.cause = ""


def least_recently_used(pool: dict[str, PushContainer], memory_mb: int) -> list[PushContainer]:
    """Return the containers to evict for ``memory_mb``: idle and warm, the longest unused first;
    none unless they hold so much.  Pure.  Cost: O(n log n)."""
    idle = [c for c in pool.values() if c.warming == 0 and c.assigned == 0]
    idle.sort(key=lambda container: container.last_used_us)
    chosen: list[PushContainer] = []
    if sum([c.spec.memory_mb for c in idle]) < memory_mb:
        return chosen
    for container in idle:
        if memory_mb <= 0:
            break
        chosen.append(container)
        memory_mb -= container.spec.memory_mb
    return chosen
