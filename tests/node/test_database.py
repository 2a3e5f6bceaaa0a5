"""The database itself: what it refuses, its versions, and a server of it that goes and comes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from node.house import ECHO
from node.server import rest_client, running_server
from postgres import PostgresServer, running_postgres
from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import IntegrityError
from waiting import wait_until

from acs_node import database_engines, standalone
from acs_node.action_schema import RuntimeKinds, SystemLimits
from acs_node.activations import ActivationStore, Record, StoreFailing
from acs_node.cli import main
from acs_node.database import SCHEMA_VERSION, Database, DatabaseError, DatabaseUnavailable
from acs_node.database import activations as table
from acs_node.entities import Action, EntityStore
from acs_node.tables import meta, namespaces

ACTIONS, ACTIVATIONS = "namespaces/_/actions", "namespaces/_/activations"
ACTION = {"exec": {"kind": "python:3", "code": ECHO}}

FIRST_RELEASE = """
CREATE TABLE meta (name VARCHAR(32) NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (name));
CREATE TABLE namespaces (name VARCHAR(256) NOT NULL, subject VARCHAR(256) NOT NULL,
    uuid VARCHAR(64) NOT NULL, key_hash BLOB NOT NULL, limits BLOB NOT NULL,
    PRIMARY KEY (name), UNIQUE (uuid));
CREATE TABLE entities (namespace VARCHAR(256) NOT NULL, path VARCHAR(513) NOT NULL,
    collection VARCHAR(16) NOT NULL, revision BIGINT NOT NULL, updated BIGINT NOT NULL,
    document BLOB NOT NULL, code TEXT, PRIMARY KEY (namespace, path));
CREATE INDEX entities_by_update ON entities (namespace, collection, updated);
CREATE TABLE activations (activation_id BLOB NOT NULL, namespace VARCHAR(256) NOT NULL,
    path VARCHAR(513) NOT NULL, start_ms BIGINT NOT NULL, end_ms BIGINT NOT NULL,
    status_code INTEGER NOT NULL, rank INTEGER NOT NULL, deadline_ms BIGINT NOT NULL,
    head BLOB NOT NULL, logs BLOB NOT NULL, PRIMARY KEY (activation_id));
CREATE INDEX activations_open ON activations (deadline_ms) WHERE rank = 0;
CREATE INDEX activations_by_start ON activations (namespace, start_ms);
CREATE INDEX activations_by_path ON activations (namespace, path, start_ms);
INSERT INTO meta VALUES ('schema', 1), ('revision', 7);
INSERT INTO namespaces VALUES ('guest', 'guest', 'u', x'00', x'7b7d');
"""


def a_record(number: int, rank: int = 2) -> Record:
    return Record(f"{number:032x}", "guest", "hello", number, number, 0, rank, b'{"a":1', b"[]")


def columns_of_the_order(connection: Connection) -> list[str | None]:
    found = inspect(connection).get_indexes("entities")
    (index,) = (each for each in found if each["name"] == "entities_by_update")
    return index["column_names"]


# --- versions ------------------------------------------------------------------------------------


async def version_of(database: Database) -> int | None:
    statement = select(meta.c.value).where(meta.c.name == "schema")
    return await database.read(lambda connection: connection.scalar(statement))


async def test_a_database_of_the_first_release_is_brought_up_with_what_is_in_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "acs.db"
    old = sqlite3.connect(path)
    old.executescript(FIRST_RELEASE)
    old.close()
    for _ in range(2):
        database = Database(f"sqlite:///{path}")
        await database.open()
        assert await version_of(database) == SCHEMA_VERSION > 1
        order = await database.read(columns_of_the_order)
        assert order == ["namespace", "collection", "updated", "revision"]
        rows = await database.read(lambda c: c.execute(select(namespaces.c.name)).all())
        assert rows == [("guest",)]
        await database.close()


async def test_each_step_is_taken_once_and_a_failed_one_leaves_everything(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def back_to_the_first(connection: Connection) -> None:
        connection.exec_driver_sql("DROP INDEX entities_by_update")
        connection.exec_driver_sql(
            "CREATE INDEX entities_by_update ON entities (namespace, collection, updated)"
        )
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=1))

    database = Database(database_url)
    await database.open()
    await database.write(back_to_the_first)
    await database.close()

    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("DROP TABLE namespaces")
        raise IntegrityError("planted", None, Exception("planted"))

    with monkeypatch.context() as patch:
        patch.setattr("acs_node.migrations.STEPS", (broken,))
        database = Database(database_url)
        with pytest.raises(DatabaseError, match="planted"):
            await database.open()
        assert await version_of(database) == 1
        assert await database.read(lambda c: c.execute(select(namespaces)).all()) == []
        await database.close()

    database = Database(database_url)
    await database.open()
    assert await version_of(database) == SCHEMA_VERSION
    assert "revision" in await database.read(columns_of_the_order)
    await database.close()


async def test_a_database_of_a_newer_program_is_refused_and_left_alone(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    newer = meta.update().where(meta.c.name == "schema").values(value=SCHEMA_VERSION + 1)
    await database.write(lambda connection: connection.execute(newer))
    await database.close()
    again = Database(database_url)
    with pytest.raises(DatabaseError, match=f"has schema {SCHEMA_VERSION + 1}") as caught:
        await again.open()
    assert f"knows up to {SCHEMA_VERSION}" in str(caught.value)
    assert await version_of(again) == SCHEMA_VERSION + 1
    await again.close()


# --- URLs and secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://acs:s3cret@host:s3cret/acs", "cannot be read"),
        ("s3cret", "cannot be read"),
        ("mysql://acs:s3cret@host/acs", "no database 'mysql' here"),
        ("postgresql+asyncpg://acs:s3cret@host/acs", "no database 'postgresql+asyncpg' here"),
        ("postgresql://host/acs?password=s3cret", "not in the query"),
    ],
)
def test_a_url_without_meaning_is_refused_and_not_shown(url: str, told: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        Database(url)
    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_without_the_driver_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match=r"acs-scheduler\[node,postgres\]"):
        Database("postgresql://acs@host/acs")


async def test_a_wrong_password_is_not_shown(postgres: PostgresServer) -> None:
    url = postgres.url("postgres").replace(postgres.password, "s3cret")
    database = Database(url)
    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        await database.open()
    assert "acs:***@127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    await database.close()


async def test_an_error_shows_no_row(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    row = {"name": "s3cret", "subject": "s", "uuid": "u", "key_hash": b"k", "limits": b"{}"}
    await database.write(lambda connection: connection.execute(namespaces.insert(), row))
    with pytest.raises(IntegrityError) as caught:
        await database.write(lambda connection: connection.execute(namespaces.insert(), row))
    assert "s3cret" not in str(caught.value)
    await database.close()


def test_the_settings_do_not_show_the_url() -> None:
    config = standalone.StandaloneConfig(database_url="postgresql://acs:s3cret@host/acs")
    assert "s3cret" not in repr(config)


async def test_code_may_have_any_character(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    code = "#\0 \N{SNOWMAN} \N{GRINNING FACE}\n"
    for _ in range(2):
        store = EntityStore(
            database, kinds=RuntimeKinds(), limits=SystemLimits(), clock_ms=lambda: 1
        )
        body = {"exec": {"kind": "python:3", "code": code}}
        await store.put_action("guest", "odd", body, True)
        store._cache_drop(("guest", "odd"))
        found = await store.get(Action, "guest", "odd")
        assert found.exec.code == code
    await database.close()


async def test_a_database_without_an_encoding_serves_as_well(postgres: PostgresServer) -> None:
    url = postgres.new_database("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    await test_code_may_have_any_character(url)
    postgres.drop(url)


# --- one server on a database of PostgreSQL ------------------------------------------------------


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    url = postgres.new_database()
    yield url
    postgres.drop(url)


async def test_a_second_server_is_refused_and_an_operator_is_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_engines, "BUSY_TIMEOUT_S", 0.05)
    first = Database(url, exclusive=True)
    await first.open()
    second = Database(url, exclusive=True)
    with pytest.raises(DatabaseError, match="in use by another server") as caught:
        await second.open()
    assert "***" in str(caught.value)
    operator = Database(url)
    await operator.open()
    await operator.close()
    await first.close()
    await second.open()
    await second.close()


async def test_a_read_sees_one_state_and_changes_nothing(url: str) -> None:
    database = Database(url)
    await database.open()
    settings = await database.read(
        lambda c: [
            c.exec_driver_sql(f"SHOW transaction_{name}").scalar()
            for name in ("isolation", "read_only")
        ]
    )
    assert settings == ["repeatable read", "on"]
    await database.close()


# --- a server that goes and comes ----------------------------------------------------------------


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which stops it."""
    with running_postgres() as server:
        yield server


async def test_stores_live_through_a_server_that_goes_and_comes(
    own_postgres: PostgresServer,
) -> None:
    database = Database(own_postgres.new_database(), exclusive=True)
    await database.open()
    store = ActivationStore(database, clock_ms=lambda: 1, buffer_max=100, linger_ms=0)
    store.put(a_record(1))
    await store.flush()
    own_postgres.stop()

    store.put(a_record(2))
    with pytest.raises(StoreFailing, match="does not serve"):
        await store.accept(f"{3:032x}", "guest", "hello", 3, 3, b'{"a":1')
    with pytest.raises(DatabaseUnavailable) as caught:
        await store.get("guest", f"{1:032x}")
    assert not caught.value.uncertain
    assert own_postgres.password not in str(caught.value)

    own_postgres.start()
    await store.flush()
    for number in (1, 2):
        assert await store.get("guest", f"{number:032x}") is not None
    assert await store.find(f"{3:032x}") is None
    await store.close()
    await database.close()


class LostCommits:
    """A database whose server makes a commit and goes before it has said so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.left = 1

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write = self._database._write

        def lost(work: Any) -> Any:
            result = write(work)
            if self.left:
                self.left -= 1
                raise DatabaseUnavailable("planted", uncertain=True)
            return result

        monkeypatch.setattr(self._database, "_write", lost)


async def test_an_accept_that_was_refused_leaves_no_row_even_if_it_was_committed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    await database.open()
    store = ActivationStore(database, clock_ms=lambda: 1, buffer_max=100, linger_ms=0)
    LostCommits(database).install(monkeypatch)
    with pytest.raises(StoreFailing):
        await store.accept(f"{3:032x}", "guest", "hello", 3, 3, b'{"a":1')
    await store.flush()
    rows = await database.read(lambda c: c.execute(select(table.c.rank)).all())
    assert rows == []
    # What ends although its accept was refused, as its caller had waited for long, is kept.
    LostCommits(database).install(monkeypatch)
    with pytest.raises(StoreFailing):
        await store.accept(f"{4:032x}", "guest", "hello", 4, 4, b'{"a":1')
    store.put(a_record(4))
    await store.close()
    assert await store.get("guest", f"{4:032x}") is not None
    await database.close()


async def test_after_a_change_that_may_have_been_made_it_is_read_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    await database.open()
    store = EntityStore(database, kinds=RuntimeKinds(), limits=SystemLimits(), clock_ms=lambda: 1)
    await store.put_action("guest", "a", ACTION, False)
    told: list[Any] = []
    store.listeners.append(lambda old, new: told.append(old.path))
    LostCommits(database).install(monkeypatch)
    changed = {"exec": {"kind": "python:3", "code": "changed"}}
    with pytest.raises(DatabaseUnavailable):
        await store.put_action("guest", "a", changed, True)
    assert told == ["a"]
    assert (await store.get(Action, "guest", "a")).exec.code == "changed"
    await database.close()


def test_a_server_goes_on_when_its_database_returns(own_postgres: PostgresServer) -> None:
    environ = {"ACS_DATABASE_URL": own_postgres.new_database()}
    invoke = f"{ACTIONS}/echo?blocking=true"
    with running_server(environ=environ) as server, rest_client(server) as client:
        client.put(f"{ACTIONS}/echo", json=ACTION).raise_for_status()
        ids = [client.post(invoke, json={}).json()["activationId"]]
        assert client.get(f"{ACTIVATIONS}/{ids[0]}").status_code == 200
        assert not list(server.data.glob("acs.db*"))
        own_postgres.stop()

        refused = [
            client.get(ACTIVATIONS),
            client.get(f"{ACTIONS}/absent"),
            client.put(f"{ACTIONS}/new", json=ACTION),
            client.post(f"{ACTIONS}/absent", json={}),
            client.post(f"{ACTIONS}/echo", json={}),
        ]
        assert [each.status_code for each in refused] == [503] * len(refused)
        for each in refused:
            assert "database" in each.json()["error"]
            assert int(each.headers["retry-after"]) >= 1
        assert "nothing was changed" in refused[2].json()["error"]
        # Whoever waits for his result gets it.
        answer = client.post(invoke, json={"n": 1})
        assert answer.status_code == 200
        ids.append(answer.json()["activationId"])
        wait_until(lambda: "records cannot be written and are kept" in server.output, "the log")

        own_postgres.start()
        wait_until(lambda: "records are written again" in server.output, "the recovery", 30)
        client.put(f"{ACTIONS}/new", json=ACTION).raise_for_status()
        later = client.post(f"{ACTIONS}/echo", json={})
        assert later.status_code == 202
        ids.append(later.json()["activationId"])
        wait_until(
            lambda: client.get(f"{ACTIVATIONS}/{ids[-1]}").status_code == 200, "the last record"
        )
        kept = [row["activationId"] for row in client.get(ACTIVATIONS).json()]
        assert sorted(kept) == sorted(ids), "nothing of what was refused is there"
        assert server.stop() == 0
        assert own_postgres.password not in server.output


def test_functions_do_not_get_the_url(own_postgres: PostgresServer) -> None:
    code = (
        "import os\ndef main(args):\n"
        "    with open('/proc/self/environ') as file:\n"
        "        return {'seen': [*os.environ, file.read()]}\n"
    )
    environ = {"ACS_DATABASE_URL": own_postgres.new_database()}
    with running_server(environ=environ) as server, rest_client(server) as client:
        action = {"exec": {"kind": "python:3", "code": code}}
        client.put(f"{ACTIONS}/spy", json=action).raise_for_status()
        seen = client.post(f"{ACTIONS}/spy?blocking=true&result=true", json={}).text
        assert "PATH" in seen
        assert "ACS_DATABASE_URL" not in seen
        assert own_postgres.password not in seen


def test_a_database_that_is_not_there_ends_the_start_with_the_reason(
    own_postgres: PostgresServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = own_postgres.new_database()
    own_postgres.stop()
    config = standalone.StandaloneConfig(port=0, data=tmp_path, sandbox="process", database_url=url)
    assert standalone.run(config) == 1
    said = capfd.readouterr().err
    assert "cannot open the database postgresql+psycopg://acs:***@127.0.0.1" in said
    assert "refused" in said
    assert own_postgres.password not in said


def test_operators_change_namespaces_in_postgresql(url: str, tmp_path: Path) -> None:
    def acs(*arguments: str) -> str:
        command = ["namespace", *arguments, "--data", str(tmp_path), "--database-url", url]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return result.output

    assert "created" in acs("create", "dev", "--fires-per-minute", "3")
    assert "fires_per_minute 3" in acs("list")
    assert "another key" in acs("rotate-key", "dev")
    acs("delete", "dev", "--force")
    assert "dev" not in acs("list")
