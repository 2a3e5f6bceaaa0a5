"""What one controller changes in the database, the others hear of by a watch and read anew.

A controller's last changes are the value of its key ``change/{instance}``; each has a number.  A
change is in the database before it is told: who misses one, because etcd has forgotten it or its
controller died in between, looks at nothing that he has in memory any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import orjson

from ..entities import EntityStore
from ..entity_types import Entity
from ..etcd import Etcd, EtcdError, Lease, Watched, backoff

log = logging.getLogger(__name__)

TOLD_MAX: Final = 1_000
"""Entities in one value; of more the others look at everything anew."""


class Changes:
    """Tells and hears; ``heard`` is called when the namespaces are to be read again."""

    def __init__(
        self,
        etcd: Etcd,
        cluster: str,
        instance: str,
        lease: Lease,
        entities: EntityStore,
        heard: Callable[[], None],
    ) -> None:
        self._etcd = etcd
        self._prefix = f"{cluster}/change/"
        self._instance = instance
        self._lease = lease
        self._entities = entities
        self._heard = heard
        self._number = 0
        self._changed: dict[tuple[str, str], None] = {}
        self._namespaces = False
        self._wake = asyncio.Event()
        self._numbers: dict[str, int] = {}  # the last one of each other controller
        self._watched = Watched(etcd, self._prefix, self._on_key)
        self._tasks: list[asyncio.Task[None]] = []
        # What is to be read anew; None: everything.
        self._to_read: asyncio.Queue[list[tuple[str, str]] | None] = asyncio.Queue()

    async def start(self) -> None:
        """Begin, before anything is read.  Raises: EtcdError."""
        self._entities.commit_listeners.append(self._on_change)
        await self._watched.start()
        self._tasks = [
            asyncio.ensure_future(w) for w in (self._keep_telling(), self._keep_reading())
        ]

    async def close(self) -> None:
        """Tell and hear no more."""
        if self._on_change in self._entities.commit_listeners:
            self._entities.commit_listeners.remove(self._on_change)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watched.close()

    # --- telling -------------------------------------------------------------------------------

    def namespaces_changed(self) -> None:
        """Tell the others that namespaces, their keys or their limits are not what they were."""
        self._namespaces = True
        self._wake.set()

    def _on_change(self, old: Entity, new: Entity | None) -> None:
        self._changed[old.namespace, old.path] = None
        self._wake.set()

    async def _keep_telling(self) -> None:
        tries = 0
        while True:
            if not (self._changed or self._namespaces):
                self._wake.clear()
                await self._wake.wait()
            changed, namespaces = self._changed, self._namespaces
            self._changed, self._namespaces = {}, False
            self._number += 1
            value = {
                "number": self._number,
                "entities": list(changed) if len(changed) <= TOLD_MAX else None,
                "namespaces": namespaces,
            }
            try:
                await self._etcd.put(
                    f"{self._prefix}{self._instance}", orjson.dumps(value), self._lease.id
                )
            except EtcdError as error:
                if tries == 0:
                    log.warning("other controllers do not know yet what has changed: %s", error)
                # Under a number of its own: this one may have been written all the same.
                self._changed = {**changed, **self._changed}
                self._namespaces |= namespaces
                await backoff(tries)
                tries += 1
            else:
                tries = 0

    # --- hearing -------------------------------------------------------------------------------

    def _on_key(self, instance: str, value: bytes | None) -> None:
        if instance == self._instance:
            return
        if value is None:
            # It may have changed something and died before it said so.
            self._numbers.pop(instance, None)
            self._read(None, namespaces=True)
            return
        told = _read(instance, value)
        before, self._numbers[instance] = self._numbers.get(instance, 0), told["number"]
        if told["number"] != before + 1:
            self._read(None, namespaces=True)
        else:
            self._read(told["entities"], namespaces=told["namespaces"])

    def _read(self, at: list[tuple[str, str]] | None, *, namespaces: bool) -> None:
        if at is None or at:
            self._to_read.put_nowait(at)
        if namespaces:
            self._heard()

    async def _keep_reading(self) -> None:
        tries = 0
        while True:
            at = await self._to_read.get()
            if at is None:
                self._entities.forget_all()
                continue
            try:
                await self._entities.changed_elsewhere(at)
                tries = 0
            except Exception:
                log.exception("what another controller has changed could not be read; again soon")
                self._to_read.put_nowait(at)
                await backoff(tries)
                tries += 1


_UNREADABLE: Final[dict[str, Any]] = {"number": -1, "entities": None, "namespaces": True}


def _read(instance: str, value: bytes) -> dict[str, Any]:
    """Return what a value says; of one that has no meaning, that everything may have changed."""
    try:
        told = orjson.loads(value)
        at = told["entities"]
        return {
            "number": int(told["number"]),
            "entities": None if at is None else [(str(ns), str(path)) for ns, path in at],
            "namespaces": bool(told["namespaces"]),
        }
    except (ValueError, TypeError, KeyError) as error:
        log.error("what %s has changed cannot be read: %s", instance, error)
        return _UNREADABLE
