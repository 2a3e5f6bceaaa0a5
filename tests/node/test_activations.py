"""Activation records: what is committed when, what replaces what, and what a full disk does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError
from waiting import until

from acs_node import activations as activations_module
from acs_node.activations import (
    ACCEPTED,
    DEFINITE,
    UNKNOWN,
    ActivationStore,
    Record,
    StoreFailing,
)
from acs_node.database import Database, DatabaseUnavailable
from acs_node.database import activations as table
from acs_node.errors import ApiError
from acs_node.records import SWEEP_MARGIN_MS, SWEEP_ROWS_MAX

T0 = 1_700_000_000_000
SECONDS_MAX = 20.0
"""Deadline of every wait in these tests."""


def an_id(number: int) -> str:
    return f"{number:032x}"


def a_record(
    number: int,
    *,
    rank: int = DEFINITE,
    result: object = None,
    path: str = "hello",
    namespace: str = "guest",
    logs: bytes = b"[]",
) -> Record:
    start = T0 + number
    document = {
        "namespace": namespace,
        "name": path.rpartition("/")[2],
        "version": "0.0.1",
        "activationId": an_id(number),
        "publish": False,
        "start": start,
        "end": start + 5,
        "duration": 5,
        "response": {"status": "success", "success": True, "result": result, "size": 4},
        "annotations": [{"key": "path", "value": f"{namespace}/{path}"}],
    }
    head = json.dumps(document).encode()[:-1]
    return Record(an_id(number), namespace, path, start, start + 5, 0, rank, head, logs)


def accept(store: ActivationStore, number: int, deadline_ms: int = T0) -> asyncio.Future[None]:
    head = json.dumps({"namespace": "guest", "name": "hello", "activationId": an_id(number)})
    start = T0 + number
    return store.accept(an_id(number), "guest", "hello", start, deadline_ms, head.encode()[:-1])


def open_store(database: Database, **settings: Any) -> ActivationStore:
    settings = {"buffer_max": 1000, "linger_ms": 0.0} | settings
    return ActivationStore(database, clock_ms=lambda: T0, **settings)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


async def rank_on_disk(database: Database, number: int) -> int | None:
    statement = select(table.c.rank).where(table.c.activation_id == bytes.fromhex(an_id(number)))
    return await database.read(lambda connection: connection.scalar(statement))


async def rows_on_disk(database: Database) -> int | None:
    statement = select(func.count()).select_from(table)
    return await database.read(lambda connection: connection.scalar(statement))


def result_of(record: Record | None) -> Any:
    assert record is not None
    return json.loads(record.full())["response"]["result"]


def count_writes(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the transactions that are started from now on."""
    writes = 0
    start_write = database.start_write

    def counting(work: Callable[[Connection], Any]) -> asyncio.Future[Any]:
        nonlocal writes
        writes += 1
        return start_write(work)

    monkeypatch.setattr(database, "start_write", counting)
    return lambda: writes


REFUSE_LARGE_ROWS = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF length(NEW.head) > 8192 THEN
        RAISE EXCEPTION 'could not extend file: the disk is full' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON activations FOR EACH ROW EXECUTE FUNCTION full_disk()
"""


class FullDisk:
    """A database that may not grow, and answers as on a full disk.

    The file of SQLite does so; PostgreSQL raises what it would raise, by a trigger.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> None:
        def stop_growth(connection: Connection) -> None:
            if connection.dialect.name == "sqlite":
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            else:
                connection.exec_driver_sql(REFUSE_LARGE_ROWS)

        await self._database.write(stop_growth)

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        def grow(connection: Connection) -> None:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA max_page_count = 1073741823").close()
            else:
                connection.exec_driver_sql("DROP FUNCTION IF EXISTS full_disk CASCADE")

        await self._database.write(grow)


LARGE = "x" * 200_000
"""A result that does not fit into the free space of any page."""


# Finding what was put.


async def test_a_record_is_found_before_and_after_it_is_written(database: Database) -> None:
    store = open_store(database, linger_ms=3_600_000)
    record = a_record(1, result="r", logs=b'["a line"]')
    store.put(record)
    assert await store.get("guest", an_id(1)) is record
    assert await rows_on_disk(database) == 0
    await store.flush()
    found = await store.get("guest", an_id(1))
    assert found is not record
    assert found == record
    assert json.loads(record.full())["logs"] == ["a line"]


async def test_a_record_is_found_while_it_is_being_written(database: Database) -> None:
    store = open_store(database)
    gate, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def occupy(_: Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        gate.wait(SECONDS_MAX)

    occupied = database.start_write(occupy)
    await asyncio.wait_for(entered.wait(), SECONDS_MAX)
    store.put(a_record(1, result="first"))
    await until(lambda: store._writing is not None, "a write")
    assert result_of(await store.get("guest", an_id(1))) == "first"
    gate.set()
    await occupied
    await store.flush()
    assert result_of(await store.get("guest", an_id(1))) == "first"


async def test_a_record_belongs_to_its_namespace(database: Database) -> None:
    store = open_store(database, linger_ms=3_600_000)
    store.put(a_record(1))
    assert await store.get("other", an_id(1)) is None
    await store.flush()
    assert await store.get("other", an_id(1)) is None
    assert await store.get("guest", an_id(2)) is None


async def test_an_id_that_is_not_hexadecimal_changes_nothing(database: Database) -> None:
    store = open_store(database)
    record = a_record(1)
    record.activation_id = "z" * 32
    with pytest.raises(ValueError, match="non-hexadecimal"):
        store.put(record)
    store.put(a_record(2))
    await store.flush()
    assert await rows_on_disk(database) == 1


# Ranks.


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (UNKNOWN, DEFINITE, "second"),
        (DEFINITE, UNKNOWN, "first"),
        (DEFINITE, DEFINITE, "first"),
        (UNKNOWN, UNKNOWN, "first"),
    ],
)
async def test_only_a_higher_rank_replaces_a_record(
    database: Database, first: int, second: int, kept: str, apart: bool
) -> None:
    store = open_store(database)
    store.put(a_record(1, rank=first, result="first"))
    if apart:
        await store.flush()
    store.put(a_record(1, rank=second, result="second"))
    assert result_of(await store.get("guest", an_id(1))) == kept
    await store.flush()
    assert result_of(await store.get("guest", an_id(1))) == kept
    assert await rows_on_disk(database) == 1


# Accepting.


async def test_an_accept_is_committed_when_its_future_is_done(database: Database) -> None:
    store = open_store(database, linger_ms=3_600_000)
    future = accept(store, 1)
    assert not future.done()
    await future
    assert await rank_on_disk(database, 1) == ACCEPTED
    assert await store.get("guest", an_id(1)) is None
    assert await store.list("guest") == []
    assert await store.count("guest") == 0
    store.put(a_record(1, result="done"))
    await store.flush()
    assert await rank_on_disk(database, 1) == DEFINITE
    assert result_of(await store.get("guest", an_id(1))) == "done"


async def test_accepts_of_one_turn_share_one_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(database)
    writes = count_writes(database, monkeypatch)
    await asyncio.gather(*(accept(store, number) for number in range(300)))
    assert writes() == 1
    assert await rows_on_disk(database) == 300


ACCEPT_AND_WAIT = """
import asyncio, sys
from acs_node.activations import ActivationStore
from acs_node.database import Database

async def main():
    database = Database(sys.argv[1])
    await database.open()
    store = ActivationStore(database, clock_ms=lambda: 0, buffer_max=100)
    await store.accept("0" * 31 + "1", "guest", "hello", 1, 1, b'{"name":"hello"')
    print("accepted", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_an_accepted_activation_survives_a_killed_process(database_url: str) -> None:
    url = database_url
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ACCEPT_AND_WAIT, url,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        line = await asyncio.wait_for(child.stdout.readline(), SECONDS_MAX)
        assert line == b"accepted\n"
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    database = Database(url)
    await database.open()
    assert await rank_on_disk(database, 1) == ACCEPTED
    store = open_store(database)
    assert await swept(store, 1 + SWEEP_MARGIN_MS) == 1
    assert await store.get("guest", an_id(1)) is not None
    await database.close()


# Sweeping.


async def swept(store: ActivationStore, now_ms: int) -> int:
    """End what is overdue; return how many that were."""
    return await store.end_as_unknown(await store.overdue_ids(now_ms), now_ms)


async def test_an_overdue_activation_becomes_unknown_once(database: Database) -> None:
    store = open_store(database)
    deadline = T0 + 1_000
    await asyncio.gather(accept(store, 1, deadline), accept(store, 2, deadline + 1))
    now = deadline + SWEEP_MARGIN_MS
    assert await swept(store, now - 1) == 0
    assert await swept(store, now) == 1
    assert await swept(store, now) == 0
    record = await store.get("guest", an_id(1))
    assert record is not None
    document = json.loads(record.full())
    assert (record.rank, record.status_code) == (UNKNOWN, 3)
    assert document["end"] - (T0 + 1) == document["duration"]
    response = document["response"]
    assert (response["status"], response["success"]) == ("whisk internal error", False)
    assert "not known whether the action ran" in response["result"]["error"]
    assert document["logs"] == []
    assert json.loads(record.response()) == response
    assert await store.get("guest", an_id(2)) is None
    store.put(a_record(1, result="late"))
    await store.flush()
    assert result_of(await store.get("guest", an_id(1))) == "late"
    assert await swept(store, now + 1) == 1


async def test_a_sweep_ends_more_than_one_transaction_takes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(database, buffer_max=10_000)
    await asyncio.gather(*(accept(store, number) for number in range(SWEEP_ROWS_MAX + 1)))
    writes = count_writes(database, monkeypatch)
    now = T0 + SWEEP_MARGIN_MS
    assert await swept(store, now) == SWEEP_ROWS_MAX + 1
    assert writes() == 2
    assert await swept(store, now) == 0


async def test_a_sweep_of_everything_ends_what_is_not_overdue(database: Database) -> None:
    store = open_store(database)
    await accept(store, 1, deadline_ms=T0 + 3_600_000)
    store.put(a_record(2, result="kept"))
    await store.flush()
    assert await swept(store, T0) == 0
    assert await store.sweep(T0) == 1
    assert await rank_on_disk(database, 1) == UNKNOWN
    assert result_of(await store.get("guest", an_id(2))) == "kept"


# Failing.


async def test_a_full_disk_loses_nothing_and_refuses_accepts(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(database)
    store.put(a_record(1, result=LARGE))
    await store.flush()
    async with FullDisk(database):
        for number in range(2, 12):
            store.put(a_record(number, result=LARGE))
        with pytest.raises(StoreFailing, match="full"):
            await accept(store, 100)
        store.put(a_record(12, result=LARGE))
        with pytest.raises(StoreFailing, match="full"):
            await accept(store, 101)
        assert await rows_on_disk(database) == 1  # nothing of a batch that failed
        for number in range(1, 13):
            assert result_of(await store.get("guest", an_id(number))) == LARGE
    await asyncio.wait_for(store.flush(), SECONDS_MAX)
    assert await rows_on_disk(database) == 12
    assert await rank_on_disk(database, 100) is None
    await accept(store, 102)
    assert await rank_on_disk(database, 102) == ACCEPTED
    messages = [(each.levelno, each.getMessage()) for each in caplog.records]
    assert [level for level, _ in messages] == [logging.ERROR, logging.WARNING]
    assert "cannot be written and are kept: " in messages[0][1]
    assert "disk is full" in messages[0][1]
    assert "written again" in messages[1][1]
    assert "xxx" not in caplog.text


async def test_nothing_is_tried_before_the_back_off_is_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations_module, "RETRY_MS_MIN", 3_600_000)
    store = open_store(database)
    async with FullDisk(database):
        store.put(a_record(1, result=LARGE))
        await until(lambda: store._failing is not None, "the failure")
    # The disk has room again: a write that was tried now would succeed.
    writes = count_writes(database, monkeypatch)
    waiting = accept(store, 2)
    store.put(a_record(3))
    assert await rows_on_disk(database) == 0  # the loop has turned meanwhile
    assert writes() == 0
    assert not waiting.done()
    waiting.cancel()


async def test_an_error_of_the_database_shows_no_data(database: Database) -> None:
    row: dict[str, Any] = {column.name: 0 for column in table.c}
    row |= {"activation_id": bytes(16), "namespace": "guest", "path": "secret"}
    row |= {"head": LARGE.encode(), "logs": b"[]"}
    async with FullDisk(database):
        with pytest.raises((OperationalError, DatabaseUnavailable), match="full") as caught:
            await database.write(lambda connection: connection.execute(table.insert(), row))
    assert "secret" not in str(caught.value)


async def test_a_commit_is_on_the_disk_and_does_not_stop_readers(database: Database) -> None:
    """What a power cut does cannot be tested here; that it is told to withstand it can."""

    def settings(connection: Connection) -> list[Any]:
        if connection.dialect.name == "sqlite":
            names = ("PRAGMA journal_mode", "PRAGMA synchronous")
        else:
            names = ("SHOW wal_level", "SHOW synchronous_commit")
        return [connection.exec_driver_sql(name).scalar() for name in names]

    assert await database.write(settings) in (["wal", 2], ["replica", "on"])


async def test_after_only_accepts_failed_the_next_one_is_tried_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations_module, "RETRY_MS_MIN", 3_600_000)
    store = open_store(database)

    def head(size: int) -> bytes:
        return b'{"a":"%s"' % (b"x" * size)

    async with FullDisk(database):
        with pytest.raises(StoreFailing, match="full"):
            await store.accept(an_id(1), "guest", "hello", T0, T0, head(200_000))
    await asyncio.wait_for(accept(store, 2), SECONDS_MAX)
    assert await rows_on_disk(database) == 1


async def test_a_locked_database_is_waited_for(database: Database, database_url: str) -> None:
    other = Database(database_url)
    gate, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(entered.set)
        gate.wait(SECONDS_MAX)

    held = other.start_write(hold)
    await asyncio.wait_for(entered.wait(), SECONDS_MAX)
    store = open_store(database)
    future = accept(store, 1)
    await until(lambda: store._writing is not None, "a write")
    assert not future.done()
    gate.set()
    await asyncio.wait_for(future, SECONDS_MAX)
    await held
    await other.close()


async def test_room_is_bounded_by_count_and_by_bytes(database: Database) -> None:
    store = open_store(database, buffer_max=3, linger_ms=3_600_000)
    for number in range(3):
        assert store.has_room()
        store.put(a_record(number))
    assert not store.has_room()
    store.put(a_record(3))  # accepted before: kept all the same
    await store.flush()
    assert store.has_room()
    assert await rows_on_disk(database) == 4

    small = open_store(database, buffer_bytes_max=1_000, linger_ms=3_600_000)
    small.put(a_record(10, rank=UNKNOWN, result="x" * 1_000))
    assert not small.has_room()
    small.put(a_record(10, rank=DEFINITE))  # replaces it, and its size
    assert small.has_room()
    await small.flush()


async def test_a_large_batch_is_written_without_lingering(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations_module, "LINGER_ROWS_MAX", 10)
    store = open_store(database, linger_ms=3_600_000)
    for number in range(10):
        store.put(a_record(number))
    await until(lambda: store._writing is None and not store._waiting.rows, "all writes")
    assert await rows_on_disk(database) == 10


async def test_close_writes_what_is_left_and_takes_no_more(database: Database) -> None:
    store = open_store(database, linger_ms=3_600_000)
    for number in range(300):
        store.put(a_record(number))
    await store.close()
    assert await rows_on_disk(database) == 300
    with pytest.raises(RuntimeError, match="closed"):
        store.put(a_record(1000))
    with pytest.raises(RuntimeError, match="closed"):
        accept(store, 1001)
    await store.close()


async def test_records_survive_a_restart(database_url: str) -> None:
    url = database_url
    for number in range(3):
        database = Database(url)
        await database.open()
        store = open_store(database)
        assert await store.count("guest") == number
        store.put(a_record(number))
        await store.close()
        await database.close()


# Lists.


async def test_a_list_contains_what_was_put_just_before(database: Database) -> None:
    store = open_store(database, linger_ms=3_600_000)
    store.put(a_record(1))
    assert await store.count("guest") == 1
    store.put(a_record(2))
    assert [json.loads(row)["start"] for row in await store.list("guest")] == [T0 + 2, T0 + 1]


async def test_lists_filter_by_name_and_time(database: Database) -> None:
    store = open_store(database)
    for number in range(10):
        store.put(a_record(number, path="pkg/hello" if number % 2 else "hello"))
    store.put(a_record(10, namespace="other"))

    async def starts(**filters: Any) -> list[int]:
        rows = [json.loads(row)["start"] - T0 for row in await store.list("guest", **filters)]
        unpaged = {name: value for name, value in filters.items() if name != "limit"}
        if "limit" not in filters:
            assert await store.count("guest", **unpaged) == len(rows)
        return rows

    assert await starts() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert await starts(name="hello") == [8, 6, 4, 2, 0]
    assert await starts(name="pkg/hello", since=T0 + 3, upto=T0 + 7) == [7, 5, 3]
    assert await starts(since=T0 + 8) == [9, 8]
    assert await starts(upto=T0 + 1) == [1, 0]
    assert await starts(skip=2, limit=3) == [7, 6, 5]
    assert await starts(skip=8) == [1, 0]
    assert await store.count("guest", skip=20) == 0


async def test_summaries_have_the_status_and_no_result_nor_logs(database: Database) -> None:
    store = open_store(database)
    record = a_record(1, result="secret", logs=b'["line"]')
    record.status_code = 2
    store.put(record)
    (row,) = await store.list("guest")
    assert json.loads(row) == {
        "namespace": "guest", "name": "hello", "version": "0.0.1", "publish": False,
        "annotations": [{"key": "path", "value": "guest/hello"}], "activationId": an_id(1),
        "start": T0 + 1, "end": T0 + 6, "duration": 5, "statusCode": 2,
    }  # fmt: skip
    (row,) = await store.list("guest", docs=True)
    assert row == record.full()


async def test_a_list_that_would_fill_the_memory_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations_module, "LIST_BYTES_MAX", 1_000)
    store = open_store(database)
    store.put(a_record(1, result="x" * 1_000))
    with pytest.raises(ApiError, match=r"Response larger than allowed: \d+ > 1000 bytes") as caught:
        await store.list("guest", docs=True)
    assert caught.value.status == 413
    assert len(await store.list("guest")) == 1


async def test_lists_work_while_writing_fails(database: Database) -> None:
    store = open_store(database)
    store.put(a_record(1))
    await store.flush()
    async with FullDisk(database):
        store.put(a_record(2, result=LARGE))
        await until(lambda: store._failing is not None, "the failure")
        assert await store.count("guest") == 1
        assert len(await store.list("guest")) == 1
    await asyncio.wait_for(store.flush(), SECONDS_MAX)
    assert await store.count("guest") == 2
