"""The tables of the stores, the same in SQLite and PostgreSQL.  A change of them is a migration."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

__all__ = ["activations", "entities", "meta", "metadata", "namespaces"]


class Code(TypeDecorator[str]):
    """The code of an action: any text.  PostgreSQL's has no NUL, so there it is kept in UTF-8."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        kept_as = Text() if dialect.name == "sqlite" else LargeBinary()
        return dialect.type_descriptor(kept_as)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "sqlite" else value.encode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value


metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``schema``: version of these tables.  ``revision``: the last revision given to an entity."""

namespaces = Table(
    "namespaces",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("subject", String(256), nullable=False),
    Column("uuid", String(64), nullable=False, unique=True),
    Column("key_hash", LargeBinary, nullable=False),
    Column("limits", LargeBinary, nullable=False),
)

entities = Table(
    "entities",
    metadata,
    Column("namespace", String(256), primary_key=True),
    Column("path", String(513), primary_key=True),  # "hello" or "package/hello"
    Column("collection", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("code", Code),
    # The order of every list.  All collections share one key space: hence one table.
    # With the revision, which orders changes of one millisecond, else each list is sorted.
    Index("entities_by_update", "namespace", "collection", "updated", "revision"),
)

activations = Table(
    "activations",
    metadata,
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
