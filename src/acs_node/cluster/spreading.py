"""How busy the schedulers are, told by keys in etcd, and a queue moved off one that is too hot.

``acs_core.spreading`` decides.  Every few seconds each scheduler puts its load, if it has changed
much, under its lease: at a steady load etcd hears nothing.  The hot one moves its own queues, so
nobody has to agree on it, and one at a time: its load of the next look shows what came of it.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from typing import Final

from acs_core import spreading
from acs_core.limits import SPREAD_QUEUES_MAX

from .. import clock
from ..etcd import Etcd, Lease, Watched
from ..scheduler_node import SchedulerNode
from .periodic import Periodic

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""Between two looks at the load of a scheduler."""

TOLD_CHANGE_MIN: Final = 0.2
"""A load is told when it is so far from the one that was told last, in parts of the larger."""


class Loads:
    """The last told load of every scheduler, by instance; ``changed`` is called for each."""

    def __init__(
        self, etcd: Etcd, cluster: str, changed: Callable[[str, float | None], None]
    ) -> None:
        self._changed = changed
        self.values: dict[str, float] = {}
        self._watched = Watched(etcd, prefix(cluster), self._on_load)

    async def start(self) -> None:
        """Learn all, then follow.  Raises: EtcdError."""
        await self._watched.start()

    async def close(self) -> None:
        """Follow no more."""
        await self._watched.close()

    def _on_load(self, instance: str, value: bytes | None) -> None:
        load = None if value is None else read_load(value)
        if load is None:
            self.values.pop(instance, None)
        else:
            self.values[instance] = load
        self._changed(instance, load)


def prefix(cluster: str) -> str:
    """Return what the keys of all loads begin with; the instance follows."""
    return f"{cluster}/load/scheduler/"


def read_load(value: bytes) -> float | None:
    """Return the load that a key holds, None where it is none: somebody else wrote it."""
    try:
        load = float(value)
    except ValueError:
        return None
    return load if 0.0 <= load < float("inf") else None


class Spreading:
    """What one scheduler does about loads; ``me`` is its instance.

    To one that ``is_avoided`` no queue is moved, see ``reach``.
    """

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        me: str,
        lease: Lease,
        node: SchedulerNode,
        is_avoided: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._etcd = etcd
        self._key = prefix(cluster) + me
        self._me = me
        self._lease = lease
        self._node = node
        self._is_avoided = is_avoided
        self._loads = Loads(etcd, cluster, self._on_load)
        self._told = -1.0
        self._looked_us = clock.now_us()
        self._looking = Periodic(LOOK_S, self.look, "telling the load")

    async def start(self) -> None:
        """Begin to look.  Raises: EtcdError."""
        await self._loads.start()
        self._looking.start()

    async def close(self) -> None:
        """Look no more."""
        await self._looking.close()
        await self._loads.close()

    def _on_load(self, instance: str, load: float | None) -> None:
        if load is None:
            self._node.not_moved_to(instance)

    async def look(self) -> None:
        """Tell the load, and move a queue away if it is too high.  Raises: EtcdError."""
        now_us = clock.now_us()
        arrived = self._node.take_arrived()
        span_us, self._looked_us = now_us - self._looked_us, now_us
        load = spreading.work_per_s(
            sum(arrived.values()), self._node.scheduler.in_hand(), max(1, span_us)
        )
        self._move(load, arrived, span_us)
        if abs(load - self._told) > TOLD_CHANGE_MIN * max(load, self._told, 1.0):
            await self._etcd.put(self._key, b"%.1f" % load, self._lease.id)
            self._told = load

    def _move(self, load: float, arrived: dict[str, int], span_us: int) -> None:
        told = self._loads.values.items()
        loads = {name: value for name, value in told if not self._is_avoided(name)}
        loads[self._me] = load
        to = spreading.coolest(self._me, loads)
        if not to:
            return
        gap = load - loads[to]
        rates = ((queue, count * 1e6 / max(1, span_us)) for queue, count in arrived.items())
        small = [(queue, rate) for queue, rate in rates if rate <= gap / 2.0]
        busiest = heapq.nlargest(SPREAD_QUEUES_MAX, small, key=lambda each: each[1])
        queue = spreading.to_move(
            gap, [each for each in busiest if self._node.scheduler.can_move(each[0])]
        )
        if queue:
            log.warning("queue %s moves to %s: %.0f to do a second here", queue, to, load)
            self._node.move(queue, to)
