"""Records whose logs are on their way: they are put when these have come, or will not come."""

from __future__ import annotations

import asyncio

import orjson

from .activations import ActivationStore, Record
from .links import Logs

__all__ = ["Unlogged"]


class Unlogged:
    """Holds such records, and who wants to know when one has its logs."""

    def __init__(self, activations: ActivationStore) -> None:
        self.records: dict[str, Record] = {}
        self.settling: dict[str, list[asyncio.Future[None]]] = {}
        self._activations = activations
        self._at_sweep: set[str] = set()

    def __len__(self) -> int:
        return len(self.records)

    def expect(self, record: Record) -> None:
        """Hold a record until its logs come."""
        self.records[record.activation_id] = record

    def take(self, logs: Logs) -> None:
        """Put the records whose logs these are."""
        for activation_id, lines in logs.entries:
            if activation_id in self.records:
                self._put(activation_id, lines)

    async def settled(self, activation_id: str) -> None:
        """Wait until a record whose activation has ended has its logs as well."""
        if activation_id in self.records:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.settling.setdefault(activation_id, []).append(future)
            await future

    def sweep(self) -> None:
        """Put what was here at the last sweep: logs follow within seconds, so these will not."""
        for activation_id in self._at_sweep & self.records.keys():
            self._put(activation_id, [])
        self._at_sweep = set(self.records)

    def close(self) -> None:
        """Put all of them, as no logs come any more."""
        for activation_id in list(self.records):
            self._put(activation_id, [])

    def _put(self, activation_id: str, lines: list[str]) -> None:
        record = self.records.pop(activation_id)
        if lines:
            record.logs = orjson.dumps(lines)
        self._activations.put(record)
        for future in self.settling.pop(activation_id, ()):
            if not future.done():
                future.set_result(None)
