"""Who leads a queue, and which containers are reserved where: the interface, and one in memory.

A cluster's is in ``etcd_coordination``; the nodes around do not know the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from acs_core.effects import Place


class LedElsewhere(Exception):
    """Another scheduler leads the queue: that of the instance ``leader``."""

    def __init__(self, queue: str, leader: str) -> None:
        super().__init__(f"queue {queue} is led by {leader}")
        self.leader = leader


class Coordination(Protocol):
    """Leadership and reservations, shared by all nodes."""

    async def lead(self, queue: str) -> int:
        """Become the leader of the queue and return the epoch, higher than any before it.

        Raises: LedElsewhere.
        """
        ...

    async def resign(self, queue: str) -> None:
        """Give up the leadership of a removed queue."""
        ...

    async def reserve(
        self,
        namespace: str,
        containers_max: int,
        memory_mb: int,
        places: Sequence[Place],
        queue: str = "",
    ) -> tuple[list[str], str]:
        """Reserve as many of the places as the caps allow, in one transaction.

        ``queue`` is whose they are; others may see it.
        Returns the names of the granted containers, and why the others were not granted.
        """
        ...

    async def convert(
        self, namespace: str, container: str, invoker: str, memory_mb: int, queue: str = ""
    ) -> bool:
        """Say, as its invoker, that a reserved container is up; no run may start in it before.

        Returns False when its reservation is gone: then it must not serve.  May be repeated.
        """
        ...

    def release(self, container: str) -> None:
        """Forget a container that is gone or will not be created; unknown ones are fine."""
        ...


class MemoryCoordination:
    """The coordination of a single process.

    ``invokers`` maps each to its memory in MB.  What is used is summed up from the containers
    that there are; nothing is counted beside them.
    """

    def __init__(self, invokers: dict[str, int]) -> None:
        self._invokers = invokers
        self._containers: dict[str, tuple[str, str, int]] = {}
        self._epoch = 0

    async def lead(self, queue: str) -> int:
        self._epoch += 1
        return self._epoch

    async def resign(self, queue: str) -> None:
        """Nothing is kept of a leader in a single process."""

    async def reserve(
        self,
        namespace: str,
        containers_max: int,
        memory_mb: int,
        places: Sequence[Place],
        queue: str = "",
    ) -> tuple[list[str], str]:
        held = sum(owner == namespace for owner, _, _ in self._containers.values())
        free_mb = dict(self._invokers)
        for _, invoker, used_mb in self._containers.values():
            free_mb[invoker] -= used_mb
        granted: list[str] = []
        reason = ""
        for place in places:
            if held >= containers_max:
                reason = (
                    f"namespace {namespace} holds {held} containers (allowed: {containers_max})"
                )
                break
            if free_mb.get(place.invoker, 0) < memory_mb:
                reason = f"{memory_mb} MB do not fit on invoker {place.invoker}"
                continue
            self._containers[place.container] = (namespace, place.invoker, memory_mb)
            free_mb[place.invoker] -= memory_mb
            held += 1
            granted.append(place.container)
        return granted, reason

    async def convert(
        self, namespace: str, container: str, invoker: str, memory_mb: int, queue: str = ""
    ) -> bool:
        return self._containers.get(container) == (namespace, invoker, memory_mb)

    def release(self, container: str) -> None:
        self._containers.pop(container, None)
