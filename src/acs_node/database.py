"""The database behind the stores: the threads in which it is used, and what goes wrong with it.

SQLAlchemy Core on SQLite or PostgreSQL.  The tables are in ``tables``, their versions in
``migrations``, and what only one of the two understands is in ``database_engines``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from .database_engines import POSTGRESQL, Backend, DatabaseInUse, UrlError, backend_of, used_bytes
from .migrations import SCHEMA_VERSION, migrate
from .tables import activations, entities, meta, namespaces

__all__ = [
    "SCHEMA_VERSION",
    "Database",
    "DatabaseError",
    "DatabaseUnavailable",
    "activations",
    "entities",
    "meta",
    "namespaces",
    "upsert_text",
    "used_bytes",
]

T = TypeVar("T")

READERS: Final = 2
"""Threads that read: a slow listing must not keep a single look-up waiting."""


class DatabaseError(Exception):
    """The database cannot be used at all: not reachable, not ours, or newer than the program."""


class DatabaseUnavailable(DatabaseError):
    """The database's server does not answer, or refuses for now; it may be better soon.

    Nothing was changed, unless ``uncertain``: then a commit was under way, and it is not known
    whether all of it was made or nothing.
    """

    def __init__(self, text: str, *, uncertain: bool = False) -> None:
        super().__init__(text)
        self.uncertain = uncertain


class Database:
    """One writer thread and a few reader threads on one database; used from one event loop.

    ``url`` is SQLAlchemy's, such as ``sqlite:////var/lib/acs/acs.db`` or
    ``postgresql+psycopg://acs@db.example/acs``.  ``exclusive``: no other server may have it open
    so; on SQLite that is the data folder's business.  Call ``open`` first.

    Raises: DatabaseError for a URL that has no meaning; no error has a password in it.
    """

    def __init__(self, url: str, *, exclusive: bool = False) -> None:
        try:
            self._backend: Backend = backend_of(url, exclusive=exclusive, readers=READERS)
        except UrlError as error:
            raise DatabaseError(str(error)) from None
        self._name = self._backend.name
        self._writer = ThreadPoolExecutor(1, "acs-database-writer")
        self._readers = ThreadPoolExecutor(READERS, "acs-database-reader")

    async def open(self) -> None:
        """Create what is missing, and bring up what an older program made.

        Raises: DatabaseError when it cannot be opened, or was made by a newer program.
        """
        try:
            version = await self.write(migrate)
        except (SQLAlchemyError, DatabaseUnavailable) as error:
            told = str(error) if self._name in str(error) else f"{self._name}: {error}"
            raise DatabaseError(f"cannot open the database {told}") from error
        if version > SCHEMA_VERSION:
            raise DatabaseError(
                f"the database {self._name} has schema {version}, this program knows up to"
                f" {SCHEMA_VERSION}: use the program that wrote it, or another data folder"
            )

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` in a reader thread; it sees one state of the database.

        Raises: DatabaseUnavailable, SQLAlchemyError, and what ``work`` raises.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` in the writer thread and commit: all of it or nothing.

        A cancelled caller does not cancel the work.  Raises: as ``read``.
        """
        return await asyncio.shield(self.start_write(work))

    def start_write(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Queue ``work`` for the writer thread; writes happen in the order of these calls."""
        return asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    async def close(self) -> None:
        """Let what was queued end, then stop the threads and close the file."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._readers.shutdown()
        self._backend.reading.dispose()
        self._writer.shutdown()
        # The last connection to close folds SQLite's write-ahead log into the file.
        self._backend.writing.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._backend.reading.begin() as connection:
                return work(connection)
        except (DBAPIError, DatabaseInUse) as error:
            raise self._explained(error) from None

    def _write(self, work: Callable[[Connection], T]) -> T:
        committing = False
        try:
            with self._backend.writing.begin() as connection:
                result = work(connection)
                committing = True
            return result
        except (DBAPIError, DatabaseInUse) as error:
            raise self._explained(error, committing) from None

    def _explained(self, error: DBAPIError | DatabaseInUse, uncertain: bool = False) -> Exception:
        """Return what to raise for an error: of a server it may be that it is not there.

        PostgreSQL's errors show rows and keys behind their first line, and errors are logged.
        """
        if isinstance(error, DatabaseInUse):
            return DatabaseUnavailable(str(error))
        gone = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        if self._backend.dialect != POSTGRESQL:
            return error
        cause = str(error.orig).strip().partition("\n")[0]
        if not gone:
            brief = Exception(cause)
            return type(error)(error.statement, None, brief, hide_parameters=True)
        return DatabaseUnavailable(f"{self._name} does not serve: {cause}", uncertain=uncertain)


@lru_cache(maxsize=256)
def upsert_text(
    table: str, columns: tuple[str, ...], key: str, order: str, rows: int, mark: str
) -> str:
    """Return the INSERT of ``rows`` rows, in which a row of higher ``order`` replaces another.

    One statement of many rows, since ``executemany`` takes the interpreter lock once a row.
    The parameters are those of all rows, one after the other; ``mark`` stands for each.
    """
    row = f"({', '.join([mark] * len(columns))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
        f" ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE excluded.{order} > {table}.{order}"
    )
