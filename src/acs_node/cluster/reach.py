"""A scheduler that lives but is not reached by every controller gives its queues to one that is.

Nobody takes a queue from a scheduler whose lease holds, so what a controller has for it would wait
until the network is whole again.  A controller that has heard nothing of a scheduler for longer
than a lease and a second says so by a key under its own lease, and takes that back when it hears of
it.  The scheduler itself then moves its queues, as it does when it is too hot, to the one that
fewest controllers miss.  Only to one that fewer miss than itself: where each controller misses
another scheduler nothing is moved to and fro.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from acs_core import spreading

from .. import clock
from ..etcd import Etcd, EtcdError, Lease, Watched
from ..peer_link import PeerLink
from ..scheduler_node import SchedulerNode
from .periodic import Periodic

log = logging.getLogger(__name__)

MARGIN_US: Final = 1_000_000
"""How much longer than a lease a scheduler is not heard before that is told."""

LOOK_S: Final = 0.5
"""Between two looks whether queues are to be given away."""

MOVES_MAX: Final = 200
"""Queues that are given away at one look: each is a transaction."""


def prefix(cluster: str) -> str:
    """Return what the keys begin with; a scheduler's and a controller's instance follow."""
    return f"{cluster}/unreached/"


class Unreached:
    """What a controller tells of schedulers that it does not hear."""

    def __init__(self, etcd: Etcd, cluster: str, me: str, lease: Lease, lease_s: int) -> None:
        self._etcd = etcd
        self._prefix = prefix(cluster)
        self._me = me
        self._lease = lease
        self._silence_us = lease_s * 1_000_000 + MARGIN_US
        self._told: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def look(self, links: Mapping[str, PeerLink]) -> None:
        """Tell what has changed; ``links`` are those to the schedulers that are members."""
        if self._telling is not None and not self._telling.done():
            return
        oldest_us = clock.now_us() - self._silence_us
        silent = {name for name, link in links.items() if link.heard_us < oldest_us}
        if silent != self._told:
            self._telling = asyncio.ensure_future(self._tell(silent))

    async def _tell(self, silent: set[str]) -> None:
        try:
            for instance in silent - self._told:
                await self._etcd.put(self._key(instance), b"", self._lease.id)
                self._told.add(instance)
                log.warning("scheduler %s is not reached; it is to give its queues away", instance)
            for instance in self._told - silent:
                await self._etcd.delete(self._key(instance))
                self._told.discard(instance)
        except EtcdError as error:
            log.debug("which schedulers are not reached is not told: %s", error)

    def _key(self, instance: str) -> str:
        return f"{self._prefix}{instance}/{self._me}"

    async def close(self) -> None:
        """Tell nothing more; the keys end with the lease."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)


class Reach:
    """What a scheduler does about it; ``others`` are the instances of the other schedulers."""

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        me: str,
        node: SchedulerNode,
        others: Callable[[], Iterable[str]],
    ) -> None:
        self._me = me
        self._node = node
        self._others = others
        self._missed: Counter[str] = Counter()
        self._watched = Watched(etcd, prefix(cluster), self._changed)
        self._looking = Periodic(LOOK_S, self.look, "giving queues away")

    async def start(self) -> None:
        """Begin to look.  Raises: EtcdError."""
        await self._watched.start()
        self._looking.start()

    async def close(self) -> None:
        """Look no more."""
        await self._looking.close()
        await self._watched.close()

    def is_worse(self, instance: str) -> bool:
        """Tell whether more controllers miss that scheduler than this one."""
        return self._missed[instance] > self._missed[self._me]

    def _changed(self, name: str, value: bytes | None) -> None:
        self._missed = Counter(key.partition("/")[0] for key in self._watched.values)

    def look(self) -> None:
        """Give queues away while controllers miss this scheduler, and another one less."""
        to = spreading.refuge(self._me, self._missed, self._others())
        if not to:
            return
        core = self._node.scheduler
        queues = [queue for queue in core.queues() if core.can_move(queue)][:MOVES_MAX]
        for queue in queues:
            self._node.move(queue, to)
        if queues:
            log.warning("%d controllers miss this scheduler: %d queues go to %s",
                        self._missed[self._me], len(queues), to)  # fmt: skip
