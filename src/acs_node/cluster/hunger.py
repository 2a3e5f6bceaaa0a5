"""Whose queues find no room, told by keys in etcd, and one of another scheduler's that gives some.

Each scheduler has one key, under its lease: its queues that lack what others have, each with the
queue that it asks for a container, and what its own queues give.  It looks every LOOK_S and puts
the key where that has changed: who lacks nothing writes nothing.  Whose containers there are is
known from the keys of the containers (``etcd_coordination``); ``acs_core.hunger`` says whom to ask,
and the core of the scheduler that leads the asked queue whether that one gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from acs_core.events import HungerElsewhere, HungerEnded
from acs_core.hunger import Asking

from ..etcd import Etcd, Lease, Watched
from ..scheduler_node import SchedulerNode
from .periodic import Periodic

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Between two looks at what a scheduler's queues lack."""

_FIELDS: Final = (
    "queue",
    "namespace",
    "containers",
    "namespace_containers",
    "lacks_memory",
    "giver",
    "giver_containers",
)


class Holders:
    """How many containers each queue of the cluster has, from the keys of the containers."""

    def __init__(self, etcd: Etcd, cluster: str) -> None:
        self.counts: dict[str, tuple[str, int]] = {}
        self._queues: dict[str, str] = {}  # by namespace/container
        self._watched = Watched(etcd, f"{cluster}/held/namespace/", self._changed)

    async def start(self) -> None:
        """Learn all, then follow.  Raises: EtcdError."""
        await self._watched.start()

    async def close(self) -> None:
        """Follow no more."""
        await self._watched.close()

    def _changed(self, name: str, value: bytes | None) -> None:
        namespace = name.rpartition("/")[0]
        before = self._queues.pop(name, "")
        after = "" if value is None else value.decode("utf-8", "replace")
        if after:
            self._queues[name] = after
        for queue, more in ((before, -1), (after, 1)):
            count = self.counts.get(queue, ("", 0))[1] + more
            if count > 0:
                self.counts[queue] = namespace, count
            else:
                self.counts.pop(queue, None)
        self.counts.pop("", None)  # of a release that did not say whose they are


class GivingBack:
    """What one scheduler does about room that it shares with others; ``me`` is its instance."""

    def __init__(
        self, etcd: Etcd, cluster: str, me: str, lease: Lease, node: SchedulerNode
    ) -> None:
        self._etcd = etcd
        self._key = f"{cluster}/starving/{me}"
        self._lease = lease
        self._node = node
        self._holders = Holders(etcd, cluster)
        self._watched = Watched(etcd, f"{cluster}/starving/", self._on_told)
        # What each scheduler has told, by instance and queue; and what it gives, by queue.
        self._hungers: dict[str, dict[str, HungerElsewhere]] = {}
        self._gives: dict[str, Mapping[str, int]] = {}
        self._told = _NOTHING
        self._asking = Asking()
        self._looking = Periodic(LOOK_S, self.look, "telling what queues lack")

    async def start(self) -> None:
        """Begin to look.  Raises: EtcdError."""
        await self._holders.start()
        await self._watched.start()
        self._looking.start()

    async def close(self) -> None:
        """Look no more."""
        await self._looking.close()
        await self._watched.close()
        await self._holders.close()

    async def look(self) -> None:
        """Tell what the queues here lack and give, and let those that are asked look again.

        Raises: EtcdError.
        """
        core = self._node.scheduler
        for hungers in list(self._hungers.values()):
            for hunger in hungers.values():
                if core.has_queue(hunger.giver):
                    self._node.receive(hunger)
        hungry = core.hungers()
        told = []
        if hungry:
            given_to = {queue for gives in self._gives.values() for queue in gives}
            own = frozenset(core.queues())
            told = self._asking.look(hungry, self._holders.counts, own, given_to)
        document = write(told, core.gives())
        if document != self._told:
            await self._etcd.put(self._key, document, self._lease.id)
            self._told = document

    def _on_told(self, instance: str, value: bytes | None) -> None:
        before = self._hungers.pop(instance, {})
        self._gives.pop(instance, None)
        now: dict[str, HungerElsewhere] = {}
        if value is not None:
            try:
                now, self._gives[instance] = read(value)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("what the scheduler %s lacks cannot be read: %r", instance, error)
        self._hungers[instance] = now
        if not now:
            del self._hungers[instance]
        for queue in before.keys() - now.keys():
            self._node.receive(HungerEnded(queue))
        for hunger in now.values():
            self._node.receive(hunger)


def write(hungers: Iterable[HungerElsewhere], gives: Mapping[str, int]) -> bytes:
    """Return the value of a scheduler's key."""
    told = [{name: getattr(hunger, name) for name in _FIELDS} for hunger in hungers]
    return orjson.dumps({"hungers": told, "gives": gives})


def read(value: bytes) -> tuple[dict[str, HungerElsewhere], Mapping[str, int]]:
    """Return what a scheduler's key says: its hungers by queue, and what it gives.

    Raises: ValueError, TypeError, KeyError, AttributeError where somebody else wrote it.
    """
    document: dict[str, Any] = orjson.loads(value)
    hungers = [HungerElsewhere(*(each[name] for name in _FIELDS)) for each in document["hungers"]]
    gives = {str(queue): int(count) for queue, count in document["gives"].items()}
    return {hunger.queue: hunger for hunger in hungers}, gives


_NOTHING: Final = write((), {})
