"""What a node does again and again, whatever becomes of one time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..etcd import EtcdError

log = logging.getLogger(__name__)


class Periodic:
    """Does ``work`` every ``every_s`` seconds between ``start`` and ``close``.

    A time that fails is not the last one.  It is logged as "``what`` failed": where etcd does not
    answer for whoever looks closely, since that is said elsewhere.
    """

    def __init__(
        self, every_s: float, work: Callable[[], Awaitable[None] | None], what: str
    ) -> None:
        self._every_s = every_s
        self._work = work
        self._what = what
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first time is one interval from now."""
        self._task = asyncio.create_task(self._keep_on())

    async def close(self) -> None:
        """Do it no more; what is under way is cancelled.  Fine before ``start``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                under_way = self._work()
                if under_way is not None:
                    await under_way
            except EtcdError as error:
                log.debug("%s failed: %s", self._what, error)
            except Exception:
                log.exception("%s failed", self._what)
