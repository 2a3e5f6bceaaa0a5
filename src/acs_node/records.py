"""What is stored of an activation, and the statements that store and find it.

Functions on a connection, for the threads of the database; ``activations`` decides when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Connection, Row, bindparam, select

from .database import activations, upsert_text
from .database_engines import mark_of
from .runtime_protocol import STATUS_TEXTS

__all__ = [
    "ACCEPTED",
    "DEFINITE",
    "UNKNOWN",
    "Record",
    "filters",
    "from_row",
    "get",
    "summary",
    "sweep",
    "upsert",
    "withdraw",
    "with_end",
]

ACCEPTED: Final = 0
UNKNOWN: Final = 1
DEFINITE: Final = 2

ROWS_PER_STATEMENT: Final = 128
"""Past this more rows in one statement gain nothing measurable."""

SWEEP_MARGIN_MS: Final = 5_000
"""After an activation's deadline: time for its result to travel and to be written."""

SWEEP_ROWS_MAX: Final = 1_024
"""Rows that one sweep ends; the writer thread serves others in between."""

_UNKNOWN_TEXT = (
    "It is not known whether the action ran or how it ended: the activation was accepted, but"
    " nobody reported its end by its deadline."
)
_INTERNAL_ERROR = 3
_INTERNAL_ERROR_TEXT = b"whisk internal error"


# What stands before the response has no such key, and what stands after it has no such size.
_RESPONSE: Final = b',"response":'
_SIZE: Final = b',"size":'


@dataclass(slots=True)
class Record:
    """One activation as it is stored.

    ``path`` is "hello" or "package/hello".  ``head`` is the record's JSON object without
    ``logs`` and without its closing brace, ``logs`` a JSON array.  ``status_code``: 0 success,
    1 application error, 2 developer error, 3 internal error.
    """

    activation_id: str
    namespace: str
    path: str
    start_ms: int
    end_ms: int
    status_code: int
    rank: int
    head: bytes
    logs: bytes

    def full(self) -> bytes:
        """Return the JSON of the whole record."""
        return b"".join((self.head, b',"logs":', self.logs, b"}"))

    def response(self) -> bytes:
        """Return the JSON of the response; cut out, as results nest deeper than can be written."""
        start = self.head.index(_RESPONSE) + len(_RESPONSE)
        size_key = self.head.rindex(_SIZE)
        return self.head[start : self.head.index(b"}", size_key) + 1]


def summary(head: bytes, status_code: int) -> bytes:
    """Return the JSON of a record's row in a list.  Costs a parse of ``head``."""
    document = orjson.loads(head + b"}")
    row = {name: document[name] for name in _SUMMARY_FIELDS if name in document}
    row["statusCode"] = status_code
    return orjson.dumps(row)


_SUMMARY_FIELDS: Final = (
    "namespace", "name", "version", "publish", "annotations", "activationId", "start", "end",
    "duration", "cause",
)  # fmt: skip

_COLUMNS: Final = tuple(column.name for column in activations.c)


def upsert(connection: Connection, rows: list[tuple[bytes, tuple[Record, int]]]) -> None:
    """Write rows of (id, (record, deadline or 0)); a row of higher rank stays as it is."""
    for first in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[first : first + ROWS_PER_STATEMENT]
        text = upsert_text(
            activations.name, _COLUMNS, "activation_id", "rank", len(part), mark_of(connection)
        )
        parameters: list[Any] = []
        for key, (each, deadline_ms) in part:
            parameters += (
                key, each.namespace, each.path, each.start_ms, each.end_ms,
                each.status_code, each.rank, deadline_ms, each.head, each.logs,
            )  # fmt: skip
        connection.exec_driver_sql(text, tuple(parameters))


def withdraw(connection: Connection, keys: Iterable[bytes]) -> None:
    """Delete the accept rows of these ids; what has ended meanwhile stays."""
    statement = activations.delete().where(
        activations.c.activation_id == bindparam("key"), activations.c.rank == ACCEPTED
    )
    connection.execute(statement, [{"key": key} for key in keys])


def accepted_ids(connection: Connection, due_ms: int | None = None) -> list[bytes]:
    """Return the ids of all that was accepted and has not ended, or of what is due by then."""
    statement = select(activations.c.activation_id).where(activations.c.rank == ACCEPTED)
    if due_ms is not None:
        statement = statement.where(activations.c.deadline_ms <= due_ms)
    return [bytes(row.activation_id) for row in connection.execute(statement)]


def sweep(connection: Connection, now_ms: int, only: Sequence[bytes] | None = None) -> int:
    """Turn up to ``SWEEP_ROWS_MAX`` accept rows into *unknown* records.

    Any, or any of ``only``, which are no more than that.
    """
    accepted = [activations.c.rank == ACCEPTED]
    if only is not None:
        accepted.append(activations.c.activation_id.in_(only))
    statement = select(activations).where(*accepted).limit(SWEEP_ROWS_MAX)
    rows = [
        (row.activation_id, (_unknown(from_row(row), now_ms), 0))
        for row in connection.execute(statement)
    ]
    upsert(connection, rows)
    return len(rows)


def _unknown(accepted: Record, now_ms: int) -> Record:
    result = orjson.dumps({"error": _UNKNOWN_TEXT})
    ending = b',"end":%d,"duration":%d,"response":{"status":"%s","success":false,"result":%s,' % (
        now_ms, now_ms - accepted.start_ms, _INTERNAL_ERROR_TEXT, result,
    ) + b'"size":%d}' % len(result)  # fmt: skip
    return replace(
        accepted,
        end_ms=now_ms,
        status_code=_INTERNAL_ERROR,
        rank=UNKNOWN,
        head=accepted.head + ending,
    )


def with_end(
    known: Record, outcome: int, response: bytes, start_ms: int, end_ms: int, timed_out: bool
) -> Record:
    """Return the definite record of what was accepted, or *unknown*, and is known after all.

    ``response`` is JSON.  Costs a parse of the head.
    """
    document = orjson.loads(known.head + b"}")
    notes = [note for note in document["annotations"] if note["key"] != "timeout"]
    document |= {
        "start": start_ms,
        "end": end_ms,
        "duration": end_ms - start_ms,
        "response": {
            "status": STATUS_TEXTS[outcome].decode(),
            "success": outcome == 0,
            "result": orjson.Fragment(response),
            "size": len(response),
        },
        "annotations": [*notes, {"key": "timeout", "value": timed_out}],
    }
    return replace(
        known,
        start_ms=start_ms,
        end_ms=end_ms,
        status_code=outcome,
        rank=DEFINITE,
        head=orjson.dumps(document)[:-1],
    )


def get(connection: Connection, key: bytes) -> Record | None:
    """Return the row of an id, of whatever rank."""
    statement = select(activations).where(activations.c.activation_id == key)
    row = connection.execute(statement).one_or_none()
    return None if row is None else from_row(row)


def from_row(row: Row[Any]) -> Record:
    """Return the record of a row with all columns."""
    return Record(
        row.activation_id.hex(), row.namespace, row.path, row.start_ms, row.end_ms,
        row.status_code, row.rank, row.head, row.logs,
    )  # fmt: skip


def filters(
    namespace: str, name: str | None, since: int | None, upto: int | None
) -> Iterable[ColumnElement[bool]]:
    """Yield the conditions of a list; see ``ActivationStore.list``."""
    yield activations.c.namespace == namespace
    yield activations.c.rank > ACCEPTED
    if name is not None:
        yield activations.c.path == name
    if since is not None:
        yield activations.c.start_ms >= since
    if upto is not None:
        yield activations.c.start_ms <= upto
