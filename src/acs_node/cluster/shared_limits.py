"""How much a namespace asks of all controllers together: each tells the others what it has.

No request waits for this.  A controller writes its key ``usage/{instance}`` at most once in
``TELL_S``, and only where a namespace with such limits asks for something.  So a namespace may
exceed its limit by what the other controllers admit in that time and that of a watch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import orjson

from .. import clock
from ..etcd import Etcd, Lease, Watched
from ..throttles import Throttles, Usage
from .periodic import Periodic

log = logging.getLogger(__name__)

TELL_S: Final = 0.5
"""How often what has changed is told."""

REPEAT_US: Final = 5_000_000
"""How often it is told although nothing has changed."""

STALE_US: Final = 15_000_000
"""What is older is not believed: etcd, or who has told it, may be away."""

NAMESPACES_MAX: Final = 10_000
"""In one value, which etcd bounds by 1.5 MB: those that have the most under way."""


class SharedLimits:
    """Tells what ``throttles`` count here, and has them know what the others count."""

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        instance: str,
        lease: Lease,
        throttles: Throttles,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._etcd = etcd
        self._key = f"{cluster}/usage/{instance}"
        self._instance = instance
        self._lease = lease
        self._throttles = throttles
        self._now_us = now_us
        self._told: dict[str, Usage] = {}
        self._told_us = 0
        self._others: dict[str, tuple[int, dict[str, Usage]]] = {}  # and when that was heard
        self._watched = Watched(etcd, f"{cluster}/usage/", self._on_key)
        self._telling = Periodic(TELL_S, self._add_up_and_tell, "telling what is asked for")

    async def start(self) -> None:
        """Begin.  Raises: EtcdError."""
        await self._watched.start()
        self._telling.start()

    async def close(self) -> None:
        """Tell and hear no more."""
        await self._telling.close()
        await self._watched.close()

    async def _add_up_and_tell(self) -> None:
        self._add_up()
        await self.tell()

    async def tell(self) -> None:
        """Tell what is asked for here, if that is news.  Raises: EtcdError."""
        usages = self._throttles.usage()
        now_us = self._now_us()
        if usages == self._told and (not usages or now_us < self._told_us + REPEAT_US):
            return
        await self._etcd.put(self._key, _to_json(usages), self._lease.id)
        self._told, self._told_us = usages, now_us

    def _on_key(self, instance: str, value: bytes | None) -> None:
        if instance == self._instance:
            return
        if value is None:
            self._others.pop(instance, None)
        else:
            self._others[instance] = self._now_us(), _from_json(instance, value)
        self._add_up()

    def _add_up(self) -> None:
        oldest_us = self._now_us() - STALE_US
        total: dict[str, Usage] = {}
        for heard_us, usages in self._others.values():
            if heard_us >= oldest_us:
                for name, usage in usages.items():
                    total[name] = total[name] + usage if name in total else usage
        self._throttles.set_elsewhere(total)


def _to_json(usages: dict[str, Usage]) -> bytes:
    most = sorted(usages.items(), key=lambda each: each[1].in_flight, reverse=True)
    return orjson.dumps(
        {name: (u.in_flight, u.minute, u.invocations, u.fires) for name, u in most[:NAMESPACES_MAX]}
    )


def _from_json(instance: str, value: bytes) -> dict[str, Usage]:
    """Return what a value says; nothing, and a line in the log, for one that has no meaning."""
    try:
        document: dict[str, Any] = orjson.loads(value)
        return {name: Usage(*map(int, counts)) for name, counts in document.items()}
    except (ValueError, TypeError, AttributeError) as error:
        log.error("what is asked for at %s cannot be read: %s", instance, error)
        return {}
