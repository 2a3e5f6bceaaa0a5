"""What a controller does because others use the same database.

What one changes the others hear of (``changes``), and how much a namespace asks of all of them
(``shared_limits``).  Keys that functions call with hold at each.  What a dead controller had
accepted ends as *unknown* when another one starts, or when it is overdue.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

from .. import clock
from ..activations import ActivationStore
from ..entities import EntityStore
from ..etcd import Etcd, backoff, get, is_absent, put
from ..ids import controller_of
from ..run_keys import SECRET_BYTES, RunKeys
from ..throttles import Throttles
from .changes import Changes
from .process import Node
from .shared_limits import SharedLimits

log = logging.getLogger(__name__)

SECRET_KEY: Final = "secret/run-keys"


class Sharing:
    """Keeps one controller's memory true beside the others'."""

    def __init__(
        self, node: Node, entities: EntityStore, activations: ActivationStore, throttles: Throttles
    ) -> None:
        self._etcd = node.etcd
        self._cluster = node.config.cluster
        self._entities = entities
        self._activations = activations
        self._instance = node.me.instance
        self._stale = asyncio.Event()  # the namespaces in memory
        here = node.etcd, node.config.cluster, node.me.instance, node.lease
        self._changes = Changes(*here, entities, self._stale.set)
        self._limits = SharedLimits(*here, throttles)
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, before anything is served.  Raises: EtcdError, and what the database raises."""
        secret = await shared_secret(self._etcd, self._cluster)
        self._entities.run_keys = RunKeys(secret)
        await self._changes.start()
        await self._entities.refresh()  # they may have changed since they were read
        self._refreshing = asyncio.ensure_future(self._keep_refreshing())
        await self._limits.start()

    async def close(self) -> None:
        """Tell and hear no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await self._changes.close()
        await self._limits.close()

    def namespaces_changed(self) -> None:
        """Have the others read the namespaces anew."""
        self._changes.namespaces_changed()

    async def sweep_of_the_dead(self) -> int:
        """End as *unknown* what controllers had accepted that are no more; return how many.

        What was accepted is read first, and who lives then: nothing is taken of who came between.
        """
        accepted = await self._activations.accepted_ids()
        if not accepted:
            return 0
        dead = await self.of_the_dead(accepted)
        return await self._activations.end_as_unknown(dead, clock.wall_ms())

    async def of_the_dead(self, activation_ids: list[str]) -> list[str]:
        """Return those ids that are of no controller that lives, or of this one.

        Raises: EtcdError.
        """
        keys, _ = await self._etcd.list(f"{self._cluster}/number/")
        others = {
            int(kv.key.rpartition(b"/")[2]) for kv in keys if kv.value.decode() != self._instance
        }
        return [id_ for id_ in activation_ids if controller_of(id_) not in others]

    async def _keep_refreshing(self) -> None:
        tries = 0
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._entities.refresh()
                tries = 0
            except Exception:
                log.exception("the namespaces could not be read again; the next try is soon")
                self._stale.set()
                await backoff(tries)
                tries += 1


async def shared_secret(etcd: Etcd, cluster: str) -> bytes:
    """Return what all controllers sign the keys of runs with; the first one has made it.

    Raises: EtcdError.
    """
    key = f"{cluster}/{SECRET_KEY}"
    made = secrets.token_bytes(SECRET_BYTES)
    answer = await etcd.transaction((is_absent(key),), (put(key, made),), (get(key),))
    if answer.succeeded:
        return made
    return bytes(answer.responses[0].response_range.kvs[0].value)
