"""The plainest correct semaphores: no locks, no shared parts, a list of what must hold."""

from __future__ import annotations


class PlainForcible:
    def __init__(self, permits: int) -> None:
        self.permits = permits

    def try_acquire(self, n: int) -> bool:
        enough = self.permits - n >= 0
        self.permits -= n if enough else 0
        return enough

    def force_acquire(self, n: int) -> None:
        self.permits -= n

    def release(self, n: int) -> None:
        self.permits += n


class PlainResizable:
    def __init__(self, permits: int, size: int) -> None:
        self.permits, self.size, self.operations = permits, size, 0

    def try_acquire(self, n: int) -> bool:
        if n > self.permits:
            return False
        self.permits, self.operations = self.permits - n, self.operations + 1
        return True

    def release(self, n: int, complete: bool) -> tuple[bool, bool]:
        self.operations += -1 if complete else 1
        self.permits += n
        reduced = self.permits % self.size == 0
        self.permits -= self.size if reduced else 0
        return reduced, self.operations == 0


class PlainNested:
    """Containers are counted, not derived: each holds ``size`` runs and ``memory``."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.size: dict[str, int] = {}
        self.containers: dict[str, int] = {}
        self.active: dict[str, int] = {}

    def acquire(self, key: str, size: int, memory: int, force: bool) -> bool:
        self.size.setdefault(key, size)
        self.containers.setdefault(key, 0)
        self.active.setdefault(key, 0)
        if self.active[key] == self.containers[key] * self.size[key]:
            if self.memory < memory and not force:
                return False
            self.memory -= memory
            self.containers[key] += 1
        self.active[key] += 1
        return True

    def release(self, key: str, memory: int) -> None:
        self.active[key] -= 1
        free = self.containers[key] * self.size[key] - self.active[key]
        if free == self.size[key]:
            self.containers[key] -= 1
            self.memory += memory
        if self.active[key] == 0:
            del self.size[key], self.containers[key], self.active[key]

    def state(self) -> dict[str, tuple[int, int]]:
        return {
            key: (self.containers[key] * size - self.active[key], self.active[key])
            for key, size in self.size.items()
        }
