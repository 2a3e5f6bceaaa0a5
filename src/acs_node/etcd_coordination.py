"""Leadership and reservations of a cluster, in etcd.  ``coordination`` has the interface.

Keys, below the cluster's name:

  queue/{queue}                      who leads it; its creation revision is the epoch
  held/namespace/{ns}/{container}    a container, reserved (scheduler's lease) or serving; the value
                                     is the queue that it is of
  held/invoker/{invoker}/{container} the same one; the value is its memory in MB
  guard/namespace/{ns}, guard/invoker/{invoker}
                                     touched by every reservation: two that read the same
                                     containers cannot both be committed
  member/invoker/{name}              a node (``membership``); has the invoker's memory

There is no counter that could leak: what is used is read from the keys of the containers, in the
transaction that the guards make valid.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Final

from acs_core.effects import Place

from . import etcd_pb2 as pb
from .coordination import LedElsewhere
from .etcd import (
    TRANSACTION_MAX,
    Etcd,
    EtcdError,
    Lease,
    backoff,
    delete,
    get,
    has_version,
    is_absent,
    put,
    split,
    was_changed_at,
    was_created_at,
)

log = logging.getLogger(__name__)

RESERVE_PART: Final = (TRANSACTION_MAX - 2) // 3
"""Places in one transaction: two keys for each, at most a guard of each one's invoker, and the
namespace's."""

CONFLICTS_MAX: Final = 10
"""Tries of one reservation; others have changed what it had read.  Then it is denied, and the
core asks again later."""


class EtcdCoordination:
    """The coordination of one node; ``instance`` and ``lease`` are the node's."""

    def __init__(self, etcd: Etcd, cluster: str, instance: str, lease: Lease) -> None:
        self._etcd = etcd
        self._root = f"{cluster}/"
        self._instance = instance
        self._lease = lease
        self._epochs: dict[str, int] = {}
        # Of containers that this node has reserved: their keys.
        self._keys: dict[str, tuple[str, str]] = {}
        self._deleting: set[asyncio.Task[None]] = set()

    # --- leadership ----------------------------------------------------------------------------

    async def lead(self, queue: str) -> int:
        key = self._leader_key(queue)
        value = self._instance.encode()
        answer = await self._etcd.transaction(
            (is_absent(key),), (put(key, value, self._lease.id),), (get(key),)
        )
        if answer.succeeded:
            epoch = answer.header.revision
        else:
            found = answer.responses[0].response_range.kvs[0]
            if found.value != value:
                raise LedElsewhere(queue, found.value.decode("utf-8", "replace"))
            epoch = found.create_revision  # an answer that got lost
        self._epochs[queue] = epoch
        return epoch

    async def resign(self, queue: str) -> None:
        """Give up the leadership; without an answer from etcd it ends with the lease."""
        epoch = self._epochs.get(queue, 0)
        key = self._leader_key(queue)
        await self._etcd.transaction((was_created_at(key, epoch),), (delete(key),))
        if self._epochs.get(queue) == epoch:  # not after a failure: who asks again means this one
            del self._epochs[queue]

    # --- reservations --------------------------------------------------------------------------

    async def reserve(
        self,
        namespace: str,
        containers_max: int,
        memory_mb: int,
        places: Sequence[Place],
        queue: str = "",
    ) -> tuple[list[str], str]:
        if self._deleting:
            await asyncio.wait(self._deleting)
        granted: list[str] = []
        reason = ""
        for part in split(places, RESERVE_PART):
            more, reason = await self._reserve(namespace, containers_max, memory_mb, part, queue)
            granted += more
            if len(more) < len(part):
                break
        return granted, reason

    async def _reserve(
        self,
        namespace: str,
        containers_max: int,
        memory_mb: int,
        places: Sequence[Place],
        queue: str,
    ) -> tuple[list[str], str]:
        invokers = list(dict.fromkeys(place.invoker for place in places))
        for tries in range(CONFLICTS_MAX):
            answer = await self._read(namespace, invokers)
            granted, reason = _choose(answer, namespace, containers_max, memory_mb, places)
            if not granted:
                return [], reason
            if await self._commit(answer, namespace, (queue.encode(), b"%d" % memory_mb), granted):
                for place in granted:
                    self._keys[place.container] = self._held_keys(namespace, place)
                return [place.container for place in granted], reason
            await backoff(tries)
        return [], f"{CONFLICTS_MAX} times others reserved at the same moment"

    async def _read(self, namespace: str, invokers: list[str]) -> _Read:
        operations = [
            get(self._guard("namespace", namespace)),
            get(f"{self._root}held/namespace/{namespace}/", prefix=True, count_only=True),
        ]
        for invoker in invokers:
            operations += (
                get(self._guard("invoker", invoker)),
                get(f"{self._root}held/invoker/{invoker}/", prefix=True),
                get(f"{self._root}member/invoker/{invoker}"),
            )
        answer = await self._etcd.transaction((), operations)
        return _Read(invokers, [each.response_range for each in answer.responses])

    async def _commit(
        self, read: _Read, namespace: str, values: tuple[bytes, bytes], granted: Sequence[Place]
    ) -> bool:
        guards = {self._guard("namespace", namespace): read.namespace_guard}
        for place in granted:
            guards[self._guard("invoker", place.invoker)] = read.invoker_guards[place.invoker]
        operations = [put(guard, b"") for guard in guards]
        for place in granted:
            keys = self._held_keys(namespace, place)
            operations += map(put, keys, values, (self._lease.id,) * 2)
        answer = await self._etcd.transaction(
            [was_changed_at(guard, revision) for guard, revision in guards.items()], operations
        )
        return answer.succeeded

    async def convert(
        self, namespace: str, container: str, invoker: str, memory_mb: int, queue: str = ""
    ) -> bool:
        """Turn the reservation into a serving container that hangs on this invoker's lease."""
        keys = self._held_keys(namespace, Place(container, invoker))
        # Before the answer, which may get lost: whatever is written is deleted in the end.
        self._keys[container] = keys
        values = queue.encode(), b"%d" % memory_mb
        operations = list(map(put, keys, values, (self._lease.id,) * 2))
        # Names are unique for ever and nobody else writes: a version of 1 is the reservation.
        conditions = [has_version(key, 1) for key in keys]
        answer = await self._etcd.transaction(conditions, operations, [get(keys[0])])
        if not answer.succeeded:
            found = answer.responses[0].response_range.kvs
            if not found or found[0].lease != self._lease.id:  # else an answer got lost
                return False
        return True

    def release(self, container: str) -> None:
        keys = self._keys.pop(container, None)
        if keys is not None:
            task = asyncio.ensure_future(self._delete(container, keys))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _delete(self, container: str, keys: tuple[str, str]) -> None:
        tries = 0
        while True:
            try:
                await self._etcd.delete(*keys)
                return
            except EtcdError as error:
                if self._lease.lost.done():
                    return  # they are gone with it
                if tries == 0:
                    log.warning("container %s is still counted: %s", container, error)
                await backoff(tries)
                tries += 1

    async def close(self) -> None:
        """Wait no longer for etcd; what hangs on the lease goes with it."""
        for task in self._deleting:
            task.cancel()
        await asyncio.gather(*self._deleting, return_exceptions=True)

    # --- keys ----------------------------------------------------------------------------------

    def _leader_key(self, queue: str) -> str:
        return f"{self._root}queue/{queue}"

    def _guard(self, kind: str, name: str) -> str:
        return f"{self._root}guard/{kind}/{name}"

    def _held_keys(self, namespace: str, place: Place) -> tuple[str, str]:
        return (
            f"{self._root}held/namespace/{namespace}/{place.container}",
            f"{self._root}held/invoker/{place.invoker}/{place.container}",
        )


class _Read:
    """What one transaction has read of a namespace and of invokers."""

    def __init__(self, invokers: list[str], ranges: list[pb.RangeResponse]) -> None:
        self.namespace_guard = _mod_revision(ranges[0])
        self.held = ranges[1].count
        self.invoker_guards: dict[str, int] = {}
        self.free_mb: dict[str, int] = {}
        for number, invoker in enumerate(invokers):
            guard, held, member = ranges[2 + 3 * number : 5 + 3 * number]
            self.invoker_guards[invoker] = _mod_revision(guard)
            if member.kvs:
                whole_mb = int(json.loads(member.kvs[0].value)["memory_mb"])
                self.free_mb[invoker] = whole_mb - sum(int(kv.value) for kv in held.kvs)


def _mod_revision(found: pb.RangeResponse) -> int:
    return found.kvs[0].mod_revision if found.kvs else 0


def _choose(
    read: _Read, namespace: str, containers_max: int, memory_mb: int, places: Sequence[Place]
) -> tuple[list[Place], str]:
    """Return which places fit under the caps, and why the others do not."""
    free_mb = dict(read.free_mb)
    granted: list[Place] = []
    reason = ""
    for place in places:
        held = read.held + len(granted)
        if held >= containers_max:
            reason = f"namespace {namespace} holds {held} containers (allowed: {containers_max})"
            break
        if free_mb.get(place.invoker, 0) < memory_mb:
            reason = f"{memory_mb} MB do not fit on invoker {place.invoker}"
            continue
        free_mb[place.invoker] -= memory_mb
        granted.append(place)
    return granted, reason
