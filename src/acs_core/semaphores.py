"""Counting permits: what the push scheduler of ``sharding`` keeps of every invoker.

``ForcibleSemaphore`` counts permits that may also be taken by force, into debt;
``ResizableSemaphore`` the free runs of containers that come and go; ``NestedSemaphore`` memory,
and inside it the free runs of the containers of each action.  Nobody waits in any of them.

All are safe to use from several threads: the lock of a semaphore is held over the whole of an
operation that changes it.  (In the original a release of ``NestedSemaphore`` may meet an acquire
half way, and the memory of a container is lost.)  An operation is done whole or, when it raises,
not at all.  Every operation costs O(1) unless it says otherwise.

Every ``n``, ``memory`` and ``max_concurrent`` is in 1..2**31 - 1, every count an int32, as the
original's.  Operations raise TypeError for what is no integer, ValueError for less than 1, and
OverflowError where an argument or a count would leave int32.

Source: the semaphores of OpenWhisk's sharding load balancer.
"""

from __future__ import annotations

# The one exception to "nothing in the core holds a lock": a semaphore is for many threads.
from _thread import allocate_lock
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_INT32_MAX: Final = 2**31 - 1
_INT32_MIN: Final = -(2**31)


class ConcurrentState(NamedTuple):
    """The runs of one key in a ``NestedSemaphore`` at one moment."""

    available_permits: int
    operation_count: int


class ForcibleSemaphore:
    """Permits that are taken if there are enough, or by force.

    Args:
      max_allowed: Permits at the start, an int32.

    permits = max_allowed - acquired - forced + released; there is no upper bound but int32's.
    """

    def __init__(self, max_allowed: int) -> None:
        self._permits = _int32("max_allowed", max_allowed)
        self._lock = allocate_lock()

    @property
    def available_permits(self) -> int:
        """Free permits; below 0 while what was taken by force is not yet released."""
        return self._permits

    def try_acquire(self, n: int = 1) -> bool:
        """Take ``n`` permits; False, and nothing changed, if there are fewer."""
        n = _positive("n", n)
        with self._lock:
            if self._permits < n:
                return False
            self._permits -= n
            return True

    def force_acquire(self, n: int = 1) -> None:
        """Take ``n`` permits, though there may be fewer."""
        n = _positive("n", n)
        with self._lock:
            self._permits = _sum("permits", self._permits, -n)

    def release(self, n: int = 1) -> None:
        """Give back ``n`` permits."""
        n = _positive("n", n)
        with self._lock:
            self._permits = _sum("permits", self._permits, n)


class ResizableSemaphore:
    """Permits that shrink: a release that reaches a multiple of ``reduction_size`` takes it away.

    Args:
      max_allowed: Permits at the start, an int32.
      reduction_size: Permits that belong together (the runs of one container), 1..2**31 - 1.
    """

    def __init__(self, max_allowed: int, reduction_size: int) -> None:
        self._permits = _int32("max_allowed", max_allowed)
        self._reduction_size = _positive("reduction_size", reduction_size)
        self._operation_count = 0
        self._lock = allocate_lock()

    @property
    def available_permits(self) -> int:
        """Free permits."""
        return self._permits

    @property
    def reduction_size(self) -> int:
        """Permits that go away together."""
        return self._reduction_size

    @property
    def operation_count(self) -> int:
        """Operations begun and not completed, counted once whatever their ``n``."""
        return self._operation_count

    def try_acquire(self, n: int = 1) -> bool:
        """Take ``n`` permits and begin an operation; False, and nothing changed, if fewer."""
        n = _positive("n", n)
        with self._lock:
            if self._permits < n:
                return False
            self._operation_count = _sum("operation_count", self._operation_count, 1)
            self._permits -= n
            return True

    def release(self, n: int = 1, operation_complete: bool = True) -> tuple[bool, bool]:
        """Give back ``n`` permits; complete an operation, or else begin one.

        Returns: (whether ``reduction_size`` permits went away, at most once a call even where
          more would fit; whether no operation is left).
        """
        n = _positive("n", n)
        with self._lock:
            change = -1 if operation_complete else 1
            count = _sum("operation_count", self._operation_count, change)
            permits = _sum("permits", self._permits, n)
            reduced = permits % self._reduction_size == 0
            if reduced:
                permits = _sum("permits", permits, -self._reduction_size)
            self._permits = permits
            self._operation_count = count
            return reduced, count == 0


class NestedSemaphore(ForcibleSemaphore):
    """Memory permits, and per key the free runs of the containers that took them.

    Args:
      memory_permits: Memory at the start, an int32.

    A ``max_concurrent`` of 1 stands for containers with one run: then only memory is counted.
    Otherwise one container's memory buys ``max_concurrent`` runs, and comes back whenever the
    free runs of a key reach that many, whichever container they belong to.  The
    ``max_concurrent`` of a key's first call decides when, until its last run has ended.
    """

    def __init__(self, memory_permits: int) -> None:
        super().__init__(_int32("memory_permits", memory_permits))
        self._runs: dict[str, ResizableSemaphore] = {}

    @property
    def concurrent_state(self) -> Mapping[str, ConcurrentState]:
        """The keys and their runs at this moment, read-only.  Cost: O(keys)."""
        with self._lock:
            return MappingProxyType(
                {
                    key: ConcurrentState(runs.available_permits, runs.operation_count)
                    for key, runs in self._runs.items()
                }
            )

    def try_acquire_concurrent(self, key: str, max_concurrent: int, memory: int) -> bool:
        """Take a free run of ``key``, or else memory for a further container.

        Returns: False if there is neither; the key is then known, with no runs.
        """
        max_concurrent = _positive("max_concurrent", max_concurrent)
        return self._acquire_concurrent(key, max_concurrent, _positive("memory", memory), False)

    def force_acquire_concurrent(self, key: str, max_concurrent: int, memory: int) -> None:
        """Take a free run of ``key``, or else memory by force."""
        max_concurrent = _positive("max_concurrent", max_concurrent)
        self._acquire_concurrent(key, max_concurrent, _positive("memory", memory), True)

    def release_concurrent(self, key: str, max_concurrent: int, memory: int) -> None:
        """End a run of ``key``; give memory back where a container's worth of runs is free.

        Raises, besides: KeyError for an unknown key; nothing changed.
        """
        max_concurrent = _positive("max_concurrent", max_concurrent)
        memory = _positive("memory", memory)
        with self._lock:
            if max_concurrent == 1:
                self._permits = _sum("memory permits", self._permits, memory)
                return
            runs = self._runs[key]
            permits = self._permits
            # Nobody but us changes ``runs``, so that looking ahead is safe: memory that cannot
            # be given back must not leave a run ended.
            if (runs.available_permits + 1) % runs.reduction_size == 0:
                permits = _sum("memory permits", permits, memory)
            _, idle = runs.release(1, True)
            if idle:
                del self._runs[key]
            self._permits = permits

    def _acquire_concurrent(self, key: str, max_concurrent: int, memory: int, force: bool) -> bool:
        if max_concurrent == 1 and not force and self._permits < memory:
            return False  # most answers where all is taken; reading one number needs no lock
        with self._lock:
            runs = None
            if max_concurrent > 1:
                runs = self._runs.get(key)
                if runs is None:
                    runs = ResizableSemaphore(0, max_concurrent)
                if runs.try_acquire():
                    return True
            bought = force or self._permits >= memory
            if bought:
                permits = _sum("memory permits", self._permits, -memory)
                if runs is not None:
                    # Where an other max_concurrent than the key's first is passed, this may
                    # reach a multiple of the first; the original ignores that as well.
                    runs.release(max_concurrent - 1, False)
                self._permits = permits
            if runs is not None:
                self._runs[key] = runs
            return bought


def _positive(field: str, value: int) -> int:
    value = _int32(field, value)
    if value < 1:
        raise ValueError(f"{field} is {value}; it must be at least 1")
    return value


def _int32(field: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} is {value!r}; it must be an integer")
    if not _INT32_MIN <= value <= _INT32_MAX:
        raise _overflow(field, value)
    return value


def _sum(field: str, value: int, change: int) -> int:
    """Return value + change, both int32."""
    total = value + change
    if not _INT32_MIN <= total <= _INT32_MAX:
        raise _overflow(field, total)
    return total


def _overflow(field: str, value: int) -> OverflowError:
    return OverflowError(f"{field} would be {value}; it must be in {_INT32_MIN}..{_INT32_MAX}")
