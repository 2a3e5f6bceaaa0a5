"""Which activation records are deleted, and when: by age, by size, the oldest first."""

import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from node.house import ECHO
from node.server import rest_client, running_server
from sqlalchemy import Connection
from waiting import wait_until

from acs_node import records
from acs_node.activations import ACCEPTED, DEFINITE, Record
from acs_node.database import Database, entities, used_bytes
from acs_node.database import activations as table
from acs_node.retention import ROWS_PER_DELETION, Retention

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


async def write(
    database: Database, starts_ms: list[int], rank: int = DEFINITE, size: int = 2
) -> None:
    """Write a record for each start; its id begins with the time, as the controller's do."""
    rows = []
    for number, start_ms in enumerate(starts_ms):
        key = start_ms.to_bytes(6, "big") + number.to_bytes(10, "big")
        head = b"x" * size
        rows.append((key, (Record(key.hex(), "guest", "a", start_ms, 0, 0, rank, head, b"[]"), 0)))
    await database.write(lambda connection: records.upsert(connection, rows))


async def starts(database: Database) -> list[int]:
    def read(connection: Connection) -> list[int]:
        query = table.select().order_by(table.c.start_ms)
        return [row.start_ms for row in connection.execute(query)]

    return await database.read(read)


def retention(database: Database, *, keep_ms: int = 0, keep_bytes: int = 0) -> Retention:
    return Retention(database, keep_ms=keep_ms, keep_bytes=keep_bytes, clock_ms=lambda: NOW_MS)


async def test_what_is_older_is_deleted_and_what_has_not_ended_is_kept(database: Database) -> None:
    old = NOW_MS - 7 * DAY_MS
    await write(database, [old - 1, old, NOW_MS])
    await write(database, [old - 5], rank=ACCEPTED)
    assert await retention(database, keep_ms=7 * DAY_MS).enforce() == 1
    assert await starts(database) == [old - 5, old, NOW_MS]
    assert await retention(database, keep_ms=7 * DAY_MS).enforce() == 0


async def test_many_are_deleted_in_small_parts(database: Database) -> None:
    count = 2 * ROWS_PER_DELETION + 1
    await write(database, [NOW_MS - 10] * count)
    assert await retention(database, keep_ms=5).enforce() == count
    assert await starts(database) == []


async def test_the_oldest_are_deleted_while_the_database_is_too_large(database: Database) -> None:
    count = 3 * ROWS_PER_DELETION
    await write(database, [NOW_MS + n for n in range(count)], size=1_000)
    whole = await database.read(used_bytes)
    deleted = await retention(database, keep_bytes=whole * 3 // 4).enforce()
    assert deleted == ROWS_PER_DELETION
    assert await starts(database) == [NOW_MS + n for n in range(deleted, count)]
    assert await database.read(used_bytes) <= whole * 3 // 4


async def test_room_that_others_take_is_told_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    small = retention(database, keep_bytes=1)
    row = {
        "namespace": "guest", "path": "a", "collection": "actions", "revision": 1, "updated": 1,
        "document": b"{}", "code": "code",
    }  # fmt: skip
    await database.write(lambda connection: connection.execute(entities.insert(), row))
    await write(database, [NOW_MS])
    with caplog.at_level(logging.WARNING):
        assert await small.enforce() == 1
        assert await small.enforce() == 0
    (told,) = caplog.messages
    assert "without any activation record, and is to use at most 1" in told


async def test_without_bounds_everything_is_kept(database: Database) -> None:
    await write(database, [1, NOW_MS])
    assert await retention(database).enforce() == 0
    assert await starts(database) == [1, NOW_MS]


def test_a_server_deletes_what_is_older_than_it_was_told_to_keep() -> None:
    with tempfile.TemporaryDirectory(prefix="acs-") as temporary:
        folder = Path(temporary)
        with running_server(folder=folder) as server, rest_client(server) as client:
            action = {"exec": {"kind": "python:3", "code": ECHO}}
            client.put("namespaces/_/actions/echo", json=action).raise_for_status()
            run = client.post("namespaces/_/actions/echo?blocking=true").json()["activationId"]
            assert client.get(f"namespaces/_/activations/{run}").status_code == 200
        short = ("--keep-days", "0.0000001")
        with running_server(*short, folder=folder) as server, rest_client(server) as client:
            told = "1 activation records were old enough"
            wait_until(lambda: told in server.output, "the deletion")
            assert client.get("namespaces/_/activations").json() == []
