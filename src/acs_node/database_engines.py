"""What only SQLite or only PostgreSQL understands: URLs, connections, locks, and sizes.

Both give the same promises: write transactions come one after the other, a read sees one state,
and a commit is on the disk when it returns.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url

__all__ = [
    "POSTGRESQL",
    "SQLITE",
    "Backend",
    "DatabaseInUse",
    "UrlError",
    "backend_of",
    "mark_of",
    "used_bytes",
]

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"

BUSY_TIMEOUT_S: Final = 5.0
"""How long to wait for a lock that another process holds (a backup, a server that ends)."""

CONNECT_TIMEOUT_S: Final = 5
"""How long a server may take to answer at all."""

STATEMENT_TIMEOUT_S: Final = 60
"""How long a statement may take on a server; the longest list takes seconds."""

SILENT_S: Final = 10
"""After so long without a sign of life on the network a server counts as gone."""

_WRITER_LOCK: Final = 0x6163735F77726974  # "acs_writ": each write transaction, one after the other
_SERVER_LOCK: Final = 0x6163735F73657276  # "acs_serv": the one server that has the database

SAMPLED_PAGES: Final = 1_000
"""Of the records' table, to tell how much is in use; a smaller table is counted whole."""

_ROW_BYTES: Final = 300
"""What a record takes beside its head and logs: its other columns, and a row in each index."""


class UrlError(ValueError):
    """A database's URL has no meaning here.  The text shows nothing of it: it may have secrets."""


class DatabaseInUse(Exception):
    """Another server has the database."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A database's two engines; ``name`` is its URL without the password."""

    dialect: str
    name: str
    writing: Engine
    reading: Engine


def backend_of(url: str, *, exclusive: bool, readers: int) -> Backend:
    """Return the engines of a URL; nothing is connected yet.  Raises: UrlError."""
    parsed = _parse(url)
    name = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == SQLITE:
        writing, reading = _sqlite(parsed, "BEGIN IMMEDIATE"), _sqlite(parsed, "BEGIN")
        return Backend(SQLITE, name, writing, reading)
    writing = _postgresql(parsed, 1)
    _serialise(writing, exclusive, name)
    reading = _postgresql(
        parsed,
        readers,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )
    return Backend(POSTGRESQL, name, writing, reading)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except Exception:  # whatever it says may show the URL
        raise UrlError(
            "the database's URL cannot be read; it must be as"
            " postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, with %40 for @ and the like in"
            " a password"
        ) from None
    if parsed.drivername == POSTGRESQL:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UrlError(
            f"there is no database {parsed.drivername!r} here; the URL must begin with"
            " postgresql+psycopg:// or sqlite:///"
        )
    if "password" in parsed.query:
        raise UrlError("in a database's URL the password stands behind the user, not in the query")
    if parsed.get_backend_name() == POSTGRESQL and importlib.util.find_spec("psycopg") is None:
        raise UrlError(
            'PostgreSQL needs the package psycopg: pip install "acs-scheduler[node,postgres]"'
        )
    return parsed


def mark_of(connection: Connection) -> str:
    """Return what stands for a parameter in a statement of the driver's own."""
    return "?" if connection.dialect.name == SQLITE else "%s"


# --- SQLite --------------------------------------------------------------------------------------


def _sqlite(url: URL, begin: str) -> Engine:
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


# --- PostgreSQL ----------------------------------------------------------------------------------


def _postgresql(url: URL, connections: int, **more: Any) -> Engine:
    """Make an engine of so many connections, each of which is looked at before it is used."""
    arguments: dict[str, Any] = {
        "application_name": "acs",
        # A database without an encoding (SQL_ASCII, as of initdb in the locale C) holds it as well;
        # the driver would take its texts for bytes.
        "client_encoding": "utf8",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": SILENT_S // 2,
        "keepalives_interval": 1,
        "keepalives_count": SILENT_S // 2,
        "tcp_user_timeout": SILENT_S * 1000,
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT_S}s"
        f" -c lock_timeout={BUSY_TIMEOUT_S * 1000:.0f}ms",
    }
    return create_engine(
        url,
        connect_args={key: each for key, each in arguments.items() if key not in url.query},
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,  # after a restart of the server the first request is served as well
        hide_parameters=True,
        **more,
    )


def _serialise(engine: Engine, exclusive: bool, name: str) -> None:
    """Let write transactions come one after the other, whoever makes them.

    With ``exclusive`` a connection that writes also holds the lock of the one server: whoever lost
    it with a connection must get it again before he writes.
    """
    if exclusive:

        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, _: object) -> None:
            import psycopg

            try:
                connection.execute(f"SELECT pg_advisory_lock({_SERVER_LOCK})")
                connection.commit()
            except psycopg.errors.LockNotAvailable:
                connection.close()
                raise DatabaseInUse(
                    f"{name} is in use by another server; stop it, or use another database"
                ) from None

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")


# --- sizes ---------------------------------------------------------------------------------------


def used_bytes(connection: Connection) -> int:
    """Return how much of the database is in use; not what was deleted and waits to be used again.

    SQLite counts pages.  PostgreSQL's files say nothing of it, so there the rows count: those of
    some pages, taken at random, where a table is large.
    """
    if connection.dialect.name == SQLITE:
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    pages = _number(
        connection,
        "SELECT pg_relation_size('activations') / current_setting('block_size')::bigint",
    )
    percent = min(100.0, 100.0 * SAMPLED_PAGES / max(1, pages))
    sampled = _number(
        connection,
        f"SELECT coalesce(sum(pg_column_size(head) + pg_column_size(logs) + {_ROW_BYTES}), 0)"
        f" FROM activations TABLESAMPLE SYSTEM ({percent:.6f})",
    )
    entities = _number(
        connection,
        "SELECT coalesce(sum(pg_column_size(document) + coalesce(pg_column_size(code), 0)), 0)"
        " FROM entities",
    )
    return round(sampled * 100.0 / percent) + entities


def _number(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())
