"""The database behind the stores: its tables, and the threads in which it is used.

SQLAlchemy Core on one SQLite file.  All that only SQLite understands is in ``_sqlite_engine``;
the rest of the SQL here and in the stores is common to SQLite and PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

__all__ = [
    "SCHEMA_VERSION",
    "Database",
    "DatabaseError",
    "activations",
    "entities",
    "meta",
    "namespaces",
    "upsert_text",
    "used_bytes",
]

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
"""Raised by every change of a table; a program refuses a database that is newer than itself."""

READERS: Final = 2
"""Threads that read: a slow listing must not keep a single look-up waiting."""

BUSY_TIMEOUT_S: Final = 5.0
"""How long SQLite waits for a lock that another process holds (a backup) before it fails."""

_metadata = MetaData()

meta = Table(
    "meta",
    _metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``schema``: version of these tables.  ``revision``: the last revision given to an entity."""

namespaces = Table(
    "namespaces",
    _metadata,
    Column("name", String(256), primary_key=True),
    Column("subject", String(256), nullable=False),
    Column("uuid", String(64), nullable=False, unique=True),
    Column("key_hash", LargeBinary, nullable=False),
    Column("limits", LargeBinary, nullable=False),
)

entities = Table(
    "entities",
    _metadata,
    Column("namespace", String(256), primary_key=True),
    Column("path", String(513), primary_key=True),  # "hello" or "package/hello"
    Column("collection", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("code", Text),
    # The order of every list.  All collections share one key space: hence one table.
    # With the revision, which orders changes of one millisecond, else each list is sorted.
    Index("entities_by_update", "namespace", "collection", "updated", "revision"),
)

activations = Table(
    "activations",
    _metadata,
    # Half the bytes of the hexadecimal form, in an index where each insertion is a random place.
    Column("activation_id", LargeBinary(16), primary_key=True),
    Column("namespace", String(256), nullable=False),
    Column("path", String(513), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("head", LargeBinary, nullable=False),
    # Last: a read without it then skips its pages.
    Column("logs", LargeBinary, nullable=False),
    Index("activations_by_start", "namespace", "start_ms"),
    Index("activations_by_path", "namespace", "path", "start_ms"),
)
Index(
    "activations_open",
    activations.c.deadline_ms,
    sqlite_where=activations.c.rank == 0,
    postgresql_where=activations.c.rank == 0,
)


class DatabaseError(Exception):
    """The database cannot be used at all: not reachable, not ours, or newer than the program."""


class Database:
    """One writer thread and a few reader threads on one database; used from one event loop.

    ``url`` is SQLAlchemy's, such as ``sqlite:////var/lib/acs/acs.db``.  Call ``open`` first.
    """

    def __init__(self, url: str) -> None:
        self._name = make_url(url).render_as_string(hide_password=True)
        self._writing_engine = _sqlite_engine(url, begin="BEGIN IMMEDIATE")
        self._reading_engine = _sqlite_engine(url, begin="BEGIN")
        self._writer = ThreadPoolExecutor(1, "acs-database-writer")
        self._readers = ThreadPoolExecutor(READERS, "acs-database-reader")

    async def open(self) -> None:
        """Create what is missing.

        Raises: DatabaseError when it cannot be opened, or was made by a newer program.
        """
        try:
            version = await self.write(_create_schema)
        except SQLAlchemyError as error:
            raise DatabaseError(f"cannot open the database {self._name}: {error}") from error
        if version > SCHEMA_VERSION:
            raise DatabaseError(
                f"the database {self._name} has schema {version}, this program knows up to"
                f" {SCHEMA_VERSION}: use the program that wrote it, or another data folder"
            )

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` in a reader thread; it sees one state of the database."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, _in_transaction, self._reading_engine, work
        )

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work(connection)`` in the writer thread and commit: all of it or nothing.

        A cancelled caller does not cancel the work.
        """
        return await asyncio.shield(self.start_write(work))

    def start_write(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Queue ``work`` for the writer thread; writes happen in the order of these calls."""
        return asyncio.get_running_loop().run_in_executor(
            self._writer, _in_transaction, self._writing_engine, work
        )

    async def close(self) -> None:
        """Let what was queued end, then stop the threads and close the file."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._readers.shutdown()
        self._reading_engine.dispose()
        self._writer.shutdown()
        # The last connection to close folds the write-ahead log into the file.
        self._writing_engine.dispose()


def _in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _create_schema(connection: Connection) -> int:
    """Create the tables if there are none and return the version of those there are."""
    meta.create(connection, checkfirst=True)
    version = connection.scalar(select(meta.c.value).where(meta.c.name == "schema"))
    if version is None:
        _metadata.create_all(connection)
        rows = [{"name": "schema", "value": SCHEMA_VERSION}, {"name": "revision", "value": 0}]
        connection.execute(meta.insert(), rows)
        return SCHEMA_VERSION
    return int(version)


@lru_cache(maxsize=256)
def upsert_text(table: str, columns: tuple[str, ...], key: str, order: str, rows: int) -> str:
    """Return the INSERT of ``rows`` rows, in which a row of higher ``order`` replaces another.

    One statement of many rows, since ``executemany`` takes the interpreter lock once a row.
    The parameters are those of all rows, one after the other.
    """
    row = f"({', '.join('?' * len(columns))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"
        f" ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE excluded.{order} > {table}.{order}"
    )


def used_bytes(connection: Connection) -> int:
    """Return how much of the file is in use: it keeps the room of what was deleted."""
    pages, free, size = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _sqlite_engine(url: str, *, begin: str) -> Engine:
    """Make an engine whose transactions start with ``begin``.

    ``BEGIN IMMEDIATE`` takes the write lock at the start: a deferred one may fail in the middle.
    """
    # A connection serves one thread at a time, though not always the same one.
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,  # an error is logged; users' code and results are not
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in (
            "journal_mode = WAL",
            # A commit is on the disk when it returns.  NORMAL would survive a killed process,
            # but not a power cut, and a 202 is a promise.  Nothing but a 202 and a change of an
            # entity waits for it, and group commit shares it.
            "synchronous = FULL",
            # Pages that are changed again and again are copied into the file once per 32 MB
            # of log; the default of 4 MB costs 10-15 % more CPU per activation record.
            "wal_autocheckpoint = 8000",
            "cache_size = -32000",  # KiB; the upper part of every index
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
