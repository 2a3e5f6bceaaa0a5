"""The baseline: the load balancer that pushes each activation to a container host.

It is the scheduler that OpenWhisk had before queues that containers pull from, rebuilt so that
it can be compared: hash to a home invoker, steps from there, a shard of every invoker's memory for
each controller, assignment by force when all shards are full, completions that are forced when
they stay away.  Names of actions are ``namespace[/package/]name``.  An invoker's health is
``sharding_supervision``'s business, its containers are ``sharding_pool``'s; what is left out
here is how activations and acknowledgements travel.

The state of one controller is one ``Balancer``, single-threaded.  Nothing is random: where the
original draws, the caller passes the draw.

Source: OpenWhisk's ShardingContainerPoolBalancer.  What differs: the absolute value of the
smallest int32 stays negative there and is 0 here; a completion of what was scheduled before the
cluster changed its size cannot break the balancer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from .events import _check_name, _check_range
from .limits import (
    ACK_ADDON_US,
    ACK_FACTOR,
    ACK_TIMEOUT_MIN_US,
    BLACKBOX_FRACTION,
    CONCURRENCY_MAX,
    MANAGED_FRACTION,
    SHARD_MIN_MB,
    TIME_MAX_US,
)
from .semaphores import NestedSemaphore

_INT32_MAX: Final = 2**31 - 1
SHARDED_MEMORY_MAX_MB: Final = _INT32_MAX
"""Memory of an invoker and of an action here: what its semaphore counts."""


class InvokerStatus(IntEnum):
    """Health of an invoker as a controller sees it; only what is UP gets activations."""

    UP = 0
    UNHEALTHY = 1
    """It answers with errors of the system, or has not answered yet."""
    UNRESPONSIVE = 2
    """It pings, but completions stay away."""
    DOWN = 3


_UP: Final = InvokerStatus.UP


@dataclass(frozen=True, slots=True)
class ShardedInvoker:
    """An invoker in a controller's list; ``invoker`` counts from 0.

    Raises: ValueError that names the field, the value and the limit.
    """

    invoker: int
    status: InvokerStatus
    memory_mb: int

    def __post_init__(self) -> None:
        _check_range("invoker", self.invoker, 0, _INT32_MAX)
        _check_range("memory_mb", self.memory_mb, 0, SHARDED_MEMORY_MAX_MB)


def generate_hash(namespace: str, action: str) -> int:
    """Return the number that an action's home and step are taken from, in 0..2**31 - 1.

    Args:
      namespace: The invoking one, so that a shared action has a home per caller.
      action: Its name with its own namespace, without a version.
    """
    mixed = _string_hash(namespace) ^ _string_hash(action)
    if mixed > _INT32_MAX:
        mixed = 2**32 - mixed
    return mixed if mixed <= _INT32_MAX else 0


def _string_hash(text: str) -> int:
    """Return the hash that a JVM gives a string, as 32 bits without a sign."""
    value = 0
    units = text.encode("utf-16-le", "surrogatepass")
    for index in range(0, len(units), 2):
        value = (31 * value + units[index] + 256 * units[index + 1]) % 2**32
    return value


def pairwise_coprimes(n: int) -> list[int]:
    """Return the numbers in 1..n that are coprime to ``n`` and to those before them; [] below 1.

    Cost: O(n x result).
    """
    chosen: list[int] = []
    for candidate in range(1, n + 1):
        if all(math.gcd(candidate, other) == 1 for other in (n, *chosen)):
            chosen.append(candidate)
    return chosen


def partition(count: int, managed_fraction: float, blackbox_fraction: float) -> tuple[int, int]:
    """Return how many of ``count`` invokers are for managed actions, the first, and how many for
    blackbox ones, the last.  One is both where they are few."""
    managed = min(max(managed_fraction, 0.0), 1.0)
    blackbox = max(1.0 - managed, min(1.0, blackbox_fraction))
    return (
        min(count, max(1, math.ceil(count * managed))),
        min(count, max(1, math.floor(count * blackbox))),
    )


def schedule(
    max_concurrent: int,
    key: str,
    invokers: Sequence[ShardedInvoker],
    slots: Sequence[NestedSemaphore],
    memory_mb: int,
    index: int,
    step: int,
    draw: int,
) -> tuple[int, bool] | None:
    """Choose an invoker and take a slot of it.

    Args:
      max_concurrent, key, memory_mb: Of the action; ``key`` is its name with version.
      invokers: The pool that is walked; a place in it is not an invoker's number.
      slots: By the invoker's number.
      index, step: Where the walk begins, and how it goes on.
      draw: What is drawn, 0 or more, in case that nobody has a slot.
    Returns: (the invoker's number, whether its slot was taken by force), None where none is up.

    Two invokers are asked twice before force is used: the walk ends after len(invokers) + 1 steps.
    Cost: O(invokers).
    """
    if not invokers:
        return None
    for _ in range(len(invokers) + 2):
        chosen = invokers[index]
        if chosen.status is _UP:
            number = chosen.invoker
            slot = slots[number]
            if slot.try_acquire_concurrent(key, max_concurrent, memory_mb):
                return number, False
        index = (index + step) % len(invokers)
    usable = [each.invoker for each in invokers if each.status is _UP]
    if not usable:
        return None
    forced = usable[draw % len(usable)]
    slots[forced].force_acquire_concurrent(key, max_concurrent, memory_mb)
    return forced, True


class Shards:
    """What one controller knows of the invokers, and its part of their memory.

    Args:
      managed_fraction, blackbox_fraction: Shares of the invokers, see ``partition``.
    """

    def __init__(
        self,
        managed_fraction: float = MANAGED_FRACTION,
        blackbox_fraction: float = BLACKBOX_FRACTION,
    ) -> None:
        self._managed_fraction = managed_fraction
        self._blackbox_fraction = blackbox_fraction
        self.cluster_size = 1
        self.invokers: list[ShardedInvoker] = []
        self.managed: list[ShardedInvoker] = []
        self.blackbox: list[ShardedInvoker] = []
        self.managed_steps: list[int] = []
        self.blackbox_steps: list[int] = []
        self.slots: list[NestedSemaphore] = []

    def update_invokers(self, invokers: Sequence[ShardedInvoker]) -> None:
        """Take over the list.  Slots of those that were known, and what is taken of them, stay.

        Raises: ValueError when an invoker does not stand at its number; nothing changed.
        """
        for place, each in enumerate(invokers):
            if each.invoker != place:
                raise ValueError(f"invokers[{place}] is invoker {each.invoker}; it must be {place}")
        managed, blackbox = partition(
            len(invokers), self._managed_fraction, self._blackbox_fraction
        )
        if len(invokers) != len(self.invokers):
            self.managed_steps = pairwise_coprimes(managed)
            self.blackbox_steps = pairwise_coprimes(blackbox)
        self.invokers = list(invokers)
        self.managed = self.invokers[:managed]
        self.blackbox = self.invokers[len(invokers) - blackbox :]
        for each in self.invokers[len(self.slots) :]:
            self.slots.append(NestedSemaphore(self._shard_mb(each)))

    def update_cluster(self, size: int) -> None:
        """Share the invokers with so many controllers, at least 1.  When that is new all slots
        are as if nothing were taken of them."""
        size = max(size, 1)
        if size != self.cluster_size:
            self.cluster_size = size
            self.slots = [NestedSemaphore(self._shard_mb(each)) for each in self.invokers]

    def _shard_mb(self, invoker: ShardedInvoker) -> int:
        """Return this controller's part of an invoker: never less than the smallest action."""
        return max(invoker.memory_mb // self.cluster_size, SHARD_MIN_MB)


@dataclass(frozen=True, slots=True)
class PushedAction:
    """An action as the balancer needs it.

    Args:
      namespace: The invoking one.
      name: With its own namespace, without a version.
      version: Part of the key of its slots.
      blackbox: Its image is the user's own.

    Raises: ValueError that names the field, the value and the limit.
    """

    namespace: str
    name: str
    version: str = "0.0.1"
    memory_mb: int = 256
    concurrency: int = 1
    timeout_us: int = 60_000_000
    blackbox: bool = False
    key: str = dataclasses.field(init=False)
    """Name of its slots."""
    number: int = dataclasses.field(init=False)
    """Its ``generate_hash``."""

    def __post_init__(self) -> None:
        for field, text in (
            ("namespace", self.namespace),
            ("name", self.name),
            ("version", self.version),
        ):
            _check_name(field, text)
        _check_range("memory_mb", self.memory_mb, 1, SHARDED_MEMORY_MAX_MB)
        _check_range("concurrency", self.concurrency, 1, CONCURRENCY_MAX)
        _check_range("timeout_us", self.timeout_us, 1, TIME_MAX_US // ACK_FACTOR - ACK_ADDON_US)
        object.__setattr__(self, "key", f"{self.name}@{self.version}")
        object.__setattr__(self, "number", generate_hash(self.namespace, self.name))


class Acknowledgement(Enum):
    """What became of a completion; the names are those of the original's counters."""

    __hash__ = object.__hash__  # an enum's own is Python code, asked twice for every completion

    REGULAR = "regular"
    FORCED = "forced"
    """It stayed away for too long: the slot is free again, the caller gets an error."""
    HEALTHCHECK = "healthcheck"
    """Of an activation that tests an invoker: it holds no slot."""
    REGULAR_AFTER_FORCED = "regularAfterForced"
    FORCED_AFTER_REGULAR = "forcedAfterRegular"


def ack_timeout_us(timeout_us: int, factor: int = ACK_FACTOR, addon_us: int = ACK_ADDON_US) -> int:
    """Return how long a completion is waited for when a run may take ``timeout_us``."""
    return max(timeout_us, ACK_TIMEOUT_MIN_US) * factor + addon_us


class Balancer:
    """The balancer of one controller: slots, activations under way, and forced completions."""

    def __init__(self, shards: Shards | None = None) -> None:
        self.shards = shards or Shards()
        # What is under way: its action, the invoker whose slot it holds, and when it is given up.
        self._entries: dict[str, tuple[PushedAction, int, int]] = {}
        # Nothing is given up before this.  It is minutes ahead of nearly all completions, so that
        # looking through all once it is reached costs less than keeping them in order.
        self._due_us = TIME_MAX_US
        # Managed and blackbox assignments by force since the start.
        self.overloads = [0, 0]
        self.acknowledgements = dict.fromkeys(Acknowledgement, 0)

    def publish(
        self, activation_id: str, action: PushedAction, now_us: int, draw: int
    ) -> int | None:
        """Assign an activation, and return the invoker to send it to; None where none is up.

        ``draw`` is what is drawn in case of an overload, 0 or more.
        Raises: ValueError when the activation is under way already; nothing changed.
        Cost: O(invokers).
        """
        if activation_id in self._entries:
            raise ValueError(f"activation {activation_id} is under way already")
        shards = self.shards
        pool = shards.blackbox if action.blackbox else shards.managed
        if not pool:
            return None
        steps = shards.blackbox_steps if action.blackbox else shards.managed_steps
        number = action.number
        chosen = schedule(
            action.concurrency,
            action.key,
            pool,
            shards.slots,
            action.memory_mb,
            number % len(pool),
            steps[number % len(steps)],
            draw,
        )
        if chosen is None:
            return None
        invoker, forced = chosen
        if forced:
            self.overloads[action.blackbox] += 1
        due_us = now_us + ack_timeout_us(action.timeout_us)
        self._entries[activation_id] = (action, invoker, due_us)
        self._due_us = min(self._due_us, due_us)
        return invoker

    def complete(
        self, activation_id: str, *, forced: bool = False, health: bool = False
    ) -> Acknowledgement:
        """Take in that an activation has left its invoker, and free its slot if it holds one.

        ``forced``: it is given up; ``health``: it tests an invoker.  Cost: O(1).
        """
        entry = self._entries.pop(activation_id, None)
        if entry is not None:
            self._release(entry[0], entry[1])
            kind = Acknowledgement.FORCED if forced else Acknowledgement.REGULAR
        elif health:
            kind = Acknowledgement.HEALTHCHECK
        elif forced:
            kind = Acknowledgement.FORCED_AFTER_REGULAR
        else:
            kind = Acknowledgement.REGULAR_AFTER_FORCED
        self.acknowledgements[kind] += 1
        return kind

    def next_deadline_us(self) -> int | None:
        """Return when ``give_up`` is wanted next, None when nothing is under way.  Cost: O(n)."""
        return min([due_us for _, _, due_us in self._entries.values()], default=None)

    def give_up(self, now_us: int) -> list[tuple[str, int]]:
        """Force the completions that are overdue; return each activation and its invoker.

        That is what supervision hears as a timeout.  What is due longest comes first.
        Cost: O(n), once in as long as a completion is waited for; else O(1).
        """
        if now_us < self._due_us:
            return []
        overdue = sorted(
            [
                (due_us, activation_id, invoker)
                for activation_id, (_, invoker, due_us) in self._entries.items()
                if due_us <= now_us
            ]
        )
        for _, activation_id, _ in overdue:
            self.complete(activation_id, forced=True)
        dues = [due_us for _, _, due_us in self._entries.values()]
        self._due_us = min(dues, default=TIME_MAX_US)
        return [(activation_id, invoker) for _, activation_id, invoker in overdue]

    def in_flight(self) -> int:
        """Return how many activations are under way."""
        return len(self._entries)

    def check(self) -> None:
        """Assert that no activation is given up too late.  Cost: O(n)."""
        for _, _, due_us in self._entries.values():
            assert self._due_us <= due_us

    def _release(self, action: PushedAction, invoker: int) -> None:
        slots = self.shards.slots
        if invoker >= len(slots):
            return
        slot = slots[invoker]
        try:
            slot.release_concurrent(action.key, action.concurrency, action.memory_mb)
        except KeyError:
            return  # taken before the cluster changed its size: nobody counts it any more
