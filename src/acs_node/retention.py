"""How long activation records, and the logs in them, are kept: so many days, and so many bytes.

The oldest go first, by their ids, which begin with the time.  What was accepted and has not ended
is kept.  Each deletion is small, so that the records of new activations are written in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, select

from .database import Database, used_bytes
from .database import activations as table
from .records import ACCEPTED

__all__ = ["KEEP_DAYS", "KEEP_MB", "Retention"]

log = logging.getLogger(__name__)

KEEP_DAYS: Final = 7.0
KEEP_MB: Final = 2_048
"""What is kept unless something else is said."""

ROWS_PER_DELETION: Final = 1_024
"""A few milliseconds of the writer thread."""

_ID_BYTES: Final = 16
_TIME_BYTES: Final = 6


class Retention:
    """Deletes what is older than ``keep_ms``, and the oldest while ``keep_bytes`` are exceeded.

    ``keep_bytes`` bounds what is used of the whole database.  The file of SQLite does not shrink:
    the room of what was deleted is used again.  0 in either: no bound.
    """

    def __init__(
        self, database: Database, *, keep_ms: int, keep_bytes: int, clock_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._keep_ms = keep_ms
        self._keep_bytes = keep_bytes
        self._clock_ms = clock_ms
        self._told = False

    async def enforce(self) -> int:
        """Delete what is not to be kept; return how many records that were.

        Raises: SQLAlchemyError when the database cannot be written.
        """
        deleted = 0
        if self._keep_ms:
            deleted += await self._delete_older(self._clock_ms() - self._keep_ms)
        if self._keep_bytes:
            deleted += await self._delete_beyond()
        if deleted:
            log.info("%d activation records were old enough, or too many, and are deleted", deleted)
        return deleted

    async def _delete_older(self, start_ms: int) -> int:
        bound = start_ms.to_bytes(_TIME_BYTES, "big").ljust(_ID_BYTES, b"\0")
        deleted = part = await self._delete(bound)
        while part == ROWS_PER_DELETION:
            part = await self._delete(bound)
            deleted += part
        return deleted

    async def _delete_beyond(self) -> int:
        deleted = 0
        while (used := await self._database.read(used_bytes)) > self._keep_bytes:
            part = await self._delete(None)
            deleted += part
            if not part:
                if not self._told:
                    log.warning(
                        "the database uses %d bytes without any activation record, and is to use"
                        " at most %d", used, self._keep_bytes,
                    )  # fmt: skip
                self._told = True
                return deleted
        self._told = False
        return deleted

    async def _delete(self, bound: bytes | None) -> int:
        """Delete some of the oldest records, below an id; return how many."""
        oldest = select(table.c.activation_id).where(table.c.rank > ACCEPTED)
        if bound is not None:
            oldest = oldest.where(table.c.activation_id < bound)
        oldest = oldest.order_by(table.c.activation_id).limit(ROWS_PER_DELETION)
        statement = delete(table).where(table.c.activation_id.in_(oldest))

        def work(connection: Connection) -> int:
            return connection.execute(statement).rowcount

        return await self._database.write(work)
