"""The versions of the tables: a database of an older program is brought up to the present one.

A new database gets the tables as they are now.  Whoever changes them adds a step at the end of
``STEPS``, for the databases that there are.  All steps happen in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, select

from .database_engines import POSTGRESQL
from .tables import entities, meta, metadata

__all__ = ["SCHEMA_VERSION", "STEPS", "migrate"]

Step = Callable[[Connection], None]


def _order_of_lists(connection: Connection) -> None:
    """1 to 2: the index of the lists of entities has the revision, so that none is sorted.

    Some databases of version 1 have it already: it was first changed without a version.
    """
    (index,) = (each for each in entities.indexes if each.name == "entities_by_update")
    index.drop(connection, checkfirst=True)
    index.create(connection)


STEPS: Final[Sequence[Step]] = (_order_of_lists,)
"""The first leads from version 1 to 2, and so on."""

SCHEMA_VERSION: Final = 1 + len(STEPS)
"""Of the tables here; a program refuses a database that is newer than itself."""


def migrate(connection: Connection) -> int:
    """Create the tables, or bring them up; return their version.

    Those of a newer program are left as they are.
    """
    meta.create(connection, checkfirst=True)
    version = connection.scalar(select(meta.c.value).where(meta.c.name == "schema"))
    if version is None:
        metadata.create_all(connection)
        rows = [{"name": "schema", "value": SCHEMA_VERSION}, {"name": "revision", "value": 0}]
        connection.execute(meta.insert(), rows)
        return SCHEMA_VERSION
    if version < SCHEMA_VERSION:
        if connection.dialect.name == POSTGRESQL:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # an index takes minutes
        for step in STEPS[version - 1 :]:
            step(connection)
        newer = meta.update().where(meta.c.name == "schema").values(value=SCHEMA_VERSION)
        connection.execute(newer)
        return SCHEMA_VERSION
    return int(version)
