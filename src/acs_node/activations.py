"""The store of activation records: written in groups off the request's path, read by clients.

A record is an upsert by id with a rank: accepted < unknown < definite.  A higher rank replaces
a lower one, and nothing else is replaced.

One state, one owner: all fields belong to the event loop.  It hands a whole batch of rows to
the database's writer thread and hands over the next one when the thread has reported back, so
there is no lock, and batches form by themselves while the thread is busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from . import records
from .database import Database, DatabaseUnavailable
from .database import activations as table
from .errors import too_large
from .journal import Journal
from .records import ACCEPTED, DEFINITE, UNKNOWN, Record, filters, from_row, summary

__all__ = [
    "ACCEPTED",
    "DEFINITE",
    "UNKNOWN",
    "ActivationStore",
    "Record",
    "StoreFailing",
    "summary",
]

log = logging.getLogger(__name__)

LINGER_ROWS_MAX: Final = 1024
"""A batch of this size is written without waiting for more."""

RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 1_000
"""Back-off of a write that failed; an accept that arrives meanwhile waits this long at most."""

LIST_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest list: 200 records with logs could otherwise fill the memory."""

LIST_WAIT_S: Final = 1.0
"""How long a list waits for records that are not written yet; then it does without them."""


class StoreFailing(Exception):
    """An accept could not be committed: the activation is not accepted, nothing is kept."""


@dataclass(slots=True)
class _Batch:
    """What is written, and committed, together; one row per id, the one of highest rank."""

    rows: dict[bytes, tuple[Record, int]] = field(default_factory=dict)  # with deadline or 0
    size_bytes: int = 0
    accepts: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    flushes: list[asyncio.Future[None]] = field(default_factory=list)

    def add(self, key: bytes, record: Record, deadline_ms: int) -> None:
        old = self.rows.get(key)
        if old is None or record.rank > old[0].rank:
            self.rows[key] = (record, deadline_ms)
            self.size_bytes += len(record.head) + len(record.logs)
            if old is not None:
                self.size_bytes -= len(old[0].head) + len(old[0].logs)

    def drop(self, key: bytes) -> None:
        record, _ = self.rows.pop(key)
        self.size_bytes -= len(record.head) + len(record.logs)


class ActivationStore:
    """Records of activations in ``database``.

    ``buffer_max`` and ``buffer_bytes_max`` bound what is held while the database is slow or
    fails: see ``has_room``.  ``linger_ms`` is how long a record may wait for company when
    nobody waits for it: a record costs half the CPU in a batch of hundreds.  Accepts and
    ``flush`` end the wait at once.  ``journal`` keeps what callers were told meanwhile.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock_ms: Callable[[], int],
        buffer_max: int,
        buffer_bytes_max: int = 256 * 1024 * 1024,
        linger_ms: float = 20.0,
        journal: Journal | None = None,
    ) -> None:
        self._database = database
        self._clock_ms = clock_ms
        self._buffer_max = buffer_max
        self._buffer_bytes_max = buffer_bytes_max
        self._linger_s = linger_ms / 1000
        self._waiting = _Batch()
        self._writing: _Batch | None = None
        self._timer: asyncio.Handle | None = None
        self._failing: str | None = None  # the cause, while the last write has failed
        # Accepts that were refused after a commit of which it is not known whether it was made.
        self._refused: set[bytes] = set()
        self._failing_since_ms = 0
        self._retry_ms = RETRY_MS_MIN
        self._closed = False
        self._journal = journal

    # Writing.

    def has_room(self) -> bool:
        """Say whether another activation may be accepted; if not, refuse it with 503.

        Asked *before* accepting.  ``put`` itself never refuses, as an accepted activation must
        get its record: the buffer may exceed its bound by the activations then in flight.
        """
        rows, size = self._held()
        return rows < self._buffer_max and size < self._buffer_bytes_max

    def backlog(self) -> str:
        """Say what waits for the database and how much of it may; for who is refused."""
        rows, size = self._held()
        return (
            f"{rows} activation records wait for the database (allowed: {self._buffer_max}),"
            f" with {size} bytes (allowed: {self._buffer_bytes_max})"
        )

    def _held(self) -> tuple[int, int]:
        rows, size = len(self._waiting.rows), self._waiting.size_bytes
        if self._writing is not None:
            rows += len(self._writing.rows)
            size += self._writing.size_bytes
        return rows, size

    def note(self, record: Record) -> None:
        """Take a record that is put later and whose caller is answered before; see ``sync``."""
        if self._journal is not None:
            self._journal.note(bytes.fromhex(record.activation_id), record)

    def sync(self) -> None:
        """Make sure, before callers are answered, that a killed process loses nothing noted."""
        if self._journal is not None:
            self._journal.sync()

    def put(self, record: Record) -> None:
        """Take a record to be written soon; returns at once.  About 1 µs.

        ``get`` finds it from now on.  A write that fails is repeated until it succeeds.
        Raises: ValueError for an id that is not hexadecimal, and nothing changed.
        """
        if self._closed:
            raise RuntimeError("the activation store is closed")
        batch = self._waiting
        batch.add(bytes.fromhex(record.activation_id), record, 0)
        if self._writing is not None:
            return  # _written goes on
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._linger_s, self._hand_over)
        elif len(batch.rows) >= LINGER_ROWS_MAX and self._failing is None:
            self._hand_over()

    def accept(
        self,
        activation_id: str,
        namespace: str,
        path: str,
        start_ms: int,
        deadline_ms: int,
        head: bytes,
    ) -> asyncio.Future[None]:
        """Write an accept row; the future is done when the row is committed, on the disk.

        ``head`` has all of the record that is known yet: everything but ``end``, ``duration``,
        ``response`` and ``logs``.  The row is invisible to clients until it ends, by a record
        or by ``sweep``.
        The future raises: StoreFailing, and then the activation is not accepted.
        """
        if self._closed:
            raise RuntimeError("the activation store is closed")
        key = bytes.fromhex(activation_id)
        record = Record(activation_id, namespace, path, start_ms, 0, 0, ACCEPTED, head, b"[]")
        self._waiting.add(key, record, deadline_ms)
        future = asyncio.get_running_loop().create_future()
        self._waiting.accepts[key] = future
        self._hurry()
        return future

    async def flush(self) -> None:
        """Return when all that was put before this call is committed."""
        if self._waiting.rows or self._writing is not None or self._refused:
            await self._flushed()

    def _flushed(self) -> asyncio.Future[None]:
        # With the next batch, which is handed over once the present one is written.
        future = asyncio.get_running_loop().create_future()
        self._waiting.flushes.append(future)
        self._hurry()
        return future

    async def close(self) -> None:
        """Write what is left and take no more; the database stays open.

        Waits for as long as the database fails: bound it by a time-out where giving up is right.
        """
        self._closed = True
        await self.flush()
        if self._journal is not None:
            self._journal.close()

    async def restore(self, found: Sequence[Record]) -> None:
        """Commit the records that an earlier run left in its journal.

        Raises: DatabaseError, and then some may be committed: restore them again.
        """
        rows = [(bytes.fromhex(each.activation_id), (each, 0)) for each in found]
        for first in range(0, len(rows), LINGER_ROWS_MAX):
            part = rows[first : first + LINGER_ROWS_MAX]
            await self._database.write(partial(records.upsert, rows=list(dict(part).items())))

    def _hurry(self) -> None:
        """Hand over at the end of this turn of the loop, with all that the turn still brings."""
        if self._writing is not None:
            return  # _written goes on
        if self._timer is not None:
            if self._failing is not None:
                return  # it is the back-off's
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, _Batch()
        self._writing = batch
        rows, refused = list(batch.rows.items()), list(self._refused)

        def work(connection: Connection) -> None:
            if refused:
                records.withdraw(connection, refused)
            records.upsert(connection, rows)

        self._database.start_write(work).add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        batch, self._writing = self._writing, None
        assert batch is not None
        error = done.exception()
        if error is not None:
            self._keep(batch, error)
            return
        if self._failing is not None:
            after_ms = self._clock_ms() - self._failing_since_ms
            log.warning("activation records are written again after %d ms", after_ms)
            self._failing, self._retry_ms = None, RETRY_MS_MIN
            self._refused.clear()
        if self._journal is not None:
            ended = [key for key, (record, _) in batch.rows.items() if record.rank != ACCEPTED]
            self._journal.committed(ended)
        for future in (*batch.accepts.values(), *batch.flushes):
            if not future.done():  # cancelled: its caller has gone
                future.set_result(None)
        if self._waiting.accepts or self._waiting.flushes:
            self._hand_over()
        elif self._waiting.rows:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._linger_s, self._hand_over)

    def _keep(self, batch: _Batch, error: BaseException) -> None:
        """Put a batch that could not be written before what waits, and retry it later."""
        cause = str(error.orig if isinstance(error, DBAPIError) else error)
        if self._failing is None:
            log.error(
                "%d activation records cannot be written and are kept: %s",
                len(batch.rows),
                cause,
                exc_info=None if isinstance(error, (DBAPIError, DatabaseUnavailable)) else error,
            )
            self._failing_since_ms = self._clock_ms()
        self._failing = cause
        # Refused now means never there: the client is told so, and no row may say otherwise.
        for key, future in batch.accepts.items():
            if batch.rows[key][0].rank == ACCEPTED:
                batch.drop(key)
                if isinstance(error, DatabaseUnavailable) and error.uncertain:
                    self._refused.add(key)
            if not future.done():
                future.set_exception(StoreFailing(f"the accept row was not written: {cause}"))
        batch.accepts = self._waiting.accepts
        batch.flushes += self._waiting.flushes
        for key, (record, deadline_ms) in self._waiting.rows.items():
            batch.add(key, record, deadline_ms)
        self._waiting = batch
        # With nothing to write or to withdraw, the next row is the attempt that shows a recovery.
        if batch.rows or batch.flushes or self._refused:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._retry_ms / 1000, self._hand_over)
            self._retry_ms = min(2 * self._retry_ms, RETRY_MS_MAX)

    async def sweep(self, now_ms: int) -> int:
        """End everything that was accepted and has not ended as *unknown*.

        For a start, when nobody is left who could end it.  Returns how many were ended.  A definite
        result that comes later still replaces the record.
        """
        ended = 0
        while True:
            part = await self._database.write(partial(records.sweep, now_ms=now_ms))
            ended += part
            if part < records.SWEEP_ROWS_MAX:
                return ended

    async def overdue_ids(self, now_ms: int) -> list[str]:
        """Return the ids of what should have ended ``records.SWEEP_MARGIN_MS`` ago."""
        due_ms = now_ms - records.SWEEP_MARGIN_MS
        keys = await self._database.read(partial(records.accepted_ids, due_ms=due_ms))
        return [key.hex() for key in keys]

    async def accepted_ids(self) -> list[str]:
        """Return the ids of all that was accepted, by whomever, and has not ended."""
        keys = await self._database.read(records.accepted_ids)
        return [key.hex() for key in keys]

    async def end_as_unknown(self, activation_ids: Sequence[str], now_ms: int) -> int:
        """End these as *unknown*, as far as they have not ended; return how many were ended."""
        ended = 0
        for at in range(0, len(activation_ids), records.SWEEP_ROWS_MAX):
            some = [bytes.fromhex(id_) for id_ in activation_ids[at : at + records.SWEEP_ROWS_MAX]]
            ended += await self._database.write(partial(records.sweep, now_ms=now_ms, only=some))
        return ended

    # Reading.

    async def get(self, namespace: str, activation_id: str) -> Record | None:
        """Return a record, also one that is not written yet; None while it has not ended."""
        best = await self.find(activation_id)
        if best is None or best.rank == ACCEPTED or best.namespace != namespace:
            return None
        return best

    async def find(self, activation_id: str) -> Record | None:
        """Return what is known of an activation, of whatever rank and namespace."""
        key = bytes.fromhex(activation_id)
        found: list[Record] = []  # oldest first: of equal rank the first stays, as in a write
        for batch in (self._writing, self._waiting):
            row = batch.rows.get(key) if batch is not None else None
            if row is not None:
                found.append(row[0])
        stored = await self._database.read(partial(records.get, key=key))
        if stored is not None:
            found.insert(0, stored)
        return max(found, key=lambda each: each.rank, default=None)

    async def list(
        self,
        namespace: str,
        *,
        name: str | None = None,
        since: int | None = None,
        upto: int | None = None,
        skip: int = 0,
        limit: int = 30,
        docs: bool = False,
    ) -> Sequence[bytes]:
        """Return the JSON of each record, or of its summary without ``docs``, latest first.

        ``name`` is "hello" or "package/hello"; ``since`` and ``upto`` are start times in ms,
        inclusive.  Raises: ApiError 413 when the answer would exceed ``LIST_BYTES_MAX``.
        """
        await self._settle()
        columns = table.c if docs else [each for each in table.c if each.name != "logs"]
        statement = (
            select(*columns)
            .where(*filters(namespace, name, since, upto))
            .order_by(table.c.start_ms.desc(), table.c.activation_id)
            .offset(skip)
            .limit(limit)
        )

        def collect(connection: Connection) -> list[bytes]:
            rows: list[bytes] = []
            size = 0
            # One by one: a record may have a megabyte of which its summary needs little.
            for row in connection.execution_options(yield_per=1).execute(statement):
                text = from_row(row).full() if docs else summary(row.head, row.status_code)
                size += len(text)
                if size > LIST_BYTES_MAX:
                    raise too_large("Response", size, LIST_BYTES_MAX)
                rows.append(text)
            return rows

        return await self._database.read(collect)

    async def count(
        self,
        namespace: str,
        *,
        name: str | None = None,
        since: int | None = None,
        upto: int | None = None,
        skip: int = 0,
    ) -> int:
        """Return how many records ``list`` would find after the first ``skip``."""
        await self._settle()
        wanted = filters(namespace, name, since, upto)
        statement = select(func.count()).select_from(table).where(*wanted)
        total = await self._database.read(lambda c: c.scalar(statement))
        return max(0, (total or 0) - skip)

    async def _settle(self) -> None:
        """Wait until a list would contain what was put before, unless writing is in trouble."""
        if self._failing is None and (self._waiting.rows or self._writing is not None):
            await asyncio.wait([self._flushed()], timeout=LIST_WAIT_S)
