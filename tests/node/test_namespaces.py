"""Namespaces for operators: keys, limits and their end, in one server and in another process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from node.server import rest_client, running_server
from waiting import wait_until

from acs_node.activations import DEFINITE, ActivationStore, Record
from acs_node.cli import main
from acs_node.data_folder import LOCK, poke
from acs_node.database import Database
from acs_node.demo import ServerProcess
from acs_node.entities import Action, EntityStore, NamespaceLimits, RuntimeKinds, SystemLimits
from acs_node.errors import ApiError

BODY: dict[str, Any] = {"exec": {"kind": "python:3", "code": "x"}}


async def open_store(database: Database) -> EntityStore:
    store = EntityStore(database, kinds=RuntimeKinds(), limits=SystemLimits(), clock_ms=lambda: 1)
    await store.open()
    return store


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[tuple[EntityStore, EntityStore]]:
    """Two stores on one database, as two processes have them; with a namespace ``guest``."""
    database = Database(database_url)
    await database.open()
    first = await open_store(database)
    await first.create_namespace("guest")
    yield first, await open_store(database)
    await database.close()


async def test_another_key_ends_the_old_one_everywhere(
    stores: tuple[EntityStore, EntityStore],
) -> None:
    first, second = stores
    uuid, key = await first.rotate_key("guest")
    identity = first.authenticate(uuid, key)
    assert identity is not None
    await second.refresh()
    other = second.authenticate(uuid, key)
    assert other is not None
    told: list[str] = []
    second.namespace_listeners.append(told.append)
    await second.refresh()
    assert (told, second.is_current(other)) == ([], True)
    fresh = await first.rotate_key("guest")
    assert (fresh[0], fresh[1] == key) == (uuid, False)
    assert first.authenticate(uuid, key) is None
    assert not first.is_current(identity)
    await second.refresh()
    assert second.authenticate(uuid, key) is None
    assert not second.is_current(other)
    assert told == ["guest"]
    assert second.authenticate(*fresh) is not None


async def test_a_run_keeps_its_key_over_a_rotation_but_not_over_a_deletion(
    stores: tuple[EntityStore, EntityStore],
) -> None:
    store, _ = stores
    uuid, _ = await store.rotate_key("guest")
    run_key = store.run_keys.key(uuid, 32 * "a", 1000)
    run = store.authenticate(uuid, run_key)
    assert run is not None
    assert run.callers == (32 * "a",)
    await store.rotate_key("guest")
    assert store.is_current(run)
    await store.delete_namespace("guest")
    assert not store.is_current(run)
    assert store.authenticate(uuid, run_key) is None


async def test_limits_are_replaced_and_known_to_the_other(
    stores: tuple[EntityStore, EntityStore],
) -> None:
    first, second = stores
    limits = NamespaceLimits(memory_mb_max=128, allowed_kinds=("python:3",))
    await first.set_limits("guest", limits)
    await second.refresh()
    for store in stores:
        identity = await store.namespace("guest")
        assert identity is not None
        assert identity.limits == limits


async def test_a_deleted_namespace_leaves_nothing_to_the_next_of_its_name(
    stores: tuple[EntityStore, EntityStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stores
    monkeypatch.setattr("acs_node.namespaces._RECORDS_PER_WRITE", 2)
    await second.put_action("guest", "act", BODY, False)
    records = ActivationStore(second._database, clock_ms=lambda: 1, buffer_max=10)
    for index in range(5):
        head = b'{"namespace":"guest","response":{"size":0}'
        records.put(Record(f"{index:032x}", "guest", "act", 1, 1, 0, DEFINITE, head, b"[]"))
    await records.flush()
    await first.delete_namespace("guest")
    assert first.namespaces() == []
    await second.refresh()
    assert second.cached(Action, "guest", "act") is None
    await first.create_namespace("guest")
    assert await first.count(Action, "guest") == 0
    assert await records.count("guest") == 0
    await records.close()


@pytest.mark.parametrize("work", ["rotate_key", "delete_namespace"])
async def test_what_is_not_there_is_not_found(
    stores: tuple[EntityStore, EntityStore], work: str
) -> None:
    with pytest.raises(ApiError, match="404"):
        await getattr(stores[0], work)("absent")
    with pytest.raises(ApiError, match="404"):
        await stores[0].set_limits("absent", NamespaceLimits())


# --- poking --------------------------------------------------------------------------------------


def test_without_a_server_nobody_is_poked(tmp_path: Path) -> None:
    assert poke(tmp_path) is False
    (tmp_path / LOCK).write_text(f"{os.getpid()}\n")  # of a server that is gone
    assert poke(tmp_path) is False


def test_a_server_that_has_only_begun_is_left_alone(tmp_path: Path) -> None:
    script = (
        "import fcntl, sys, time\n"
        f"file = open({str(tmp_path / LOCK)!r}, 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert poke(tmp_path) is False
        (tmp_path / LOCK).write_text("999999999\n")  # it has just ended, somebody else holds it
        assert poke(tmp_path) is True
        holder.communicate()


# --- the command ---------------------------------------------------------------------------------


def acs(data: Path, *arguments: str, exits: int = 0) -> Result:
    result = CliRunner().invoke(main, ["namespace", *arguments, "--data", str(data)])
    assert result.exit_code == exits, result.output
    return result


def status(server: ServerProcess, auth: str) -> int:
    user, _, key = auth.partition(":")
    url = f"{server.url}/api/v1/namespaces/_/actions"
    return httpx.get(url, auth=(user, key), trust_env=False).status_code


def test_operators_change_namespaces_of_a_running_server() -> None:
    with running_server() as server, rest_client(server) as client:
        data = server.data
        made = json.loads(acs(data, "create", "dev", "--fires-per-minute", "5", "--json").stdout)
        wait_until(lambda: status(server, made["auth"]) == 200, "the new key")
        text = acs(data, "rotate-key", "dev").stdout
        rotated = text.splitlines()[-1]
        wait_until(lambda: status(server, made["auth"]) == 401, "the end of the old key")
        assert status(server, rotated) == 200
        listed = json.loads(acs(data, "list", "--json").stdout)
        assert [each["namespace"] for each in listed] == ["dev", "guest"]
        assert listed[0]["limits"] == {"fires_per_minute": 5}
        assert "fires_per_minute 5" in acs(data, "list").stdout
        # The server has seen this namespace before.
        client.get("namespaces/_/limits").raise_for_status()
        shown = acs(
            data, "limits", "guest", "--memory-mb-max", "256", "--allowed-kinds", "python:3"
        )
        assert shown.stdout == "guest: memory_mb_max 256, allowed_kinds python:3\n"

        def limited() -> bool:
            return bool(client.get("namespaces/_/limits").json()["maxActionMemory"] == 256)

        wait_until(limited, "the new limits")
        assert json.loads(acs(data, "limits", "guest", "--clear", "--json").stdout) == {}
        wait_until(lambda: not limited(), "the server's limits")
        assert acs(data, "limits", "guest").stdout == "guest: as the server's\n"
        assert acs(data, "delete", "dev", "--force").stdout == "ok: deleted namespace dev\n"
        wait_until(lambda: status(server, rotated) == 401, "the end of the namespace")
        stored = b"".join(path.read_bytes() for path in data.glob("acs.db*"))
        for secret in (made["auth"], rotated, server.auth):
            key = secret.partition(":")[2]
            assert key.encode() not in stored
            assert key not in server.output.replace(server.auth, "")


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    result = acs(tmp_path, "list", exits=2)
    assert "start `acs standalone` on it first" in result.stderr
    assert "as the server's" not in result.output

    async def prepare() -> None:
        database = Database(f"sqlite:///{tmp_path}/acs.db")
        await database.open()
        await (await open_store(database)).create_namespace("guest")
        await database.close()

    asyncio.run(prepare())
    assert "there is no namespace 'x' (404)" in acs(tmp_path, "rotate-key", "x", exits=3).stderr
    assert "there is no namespace 'x'" in acs(tmp_path, "limits", "x", exits=3).stderr
    assert "resource already exists (409)" in acs(tmp_path, "create", "guest", exits=3).stderr
    assert "illegal characters" in acs(tmp_path, "create", "a!", exits=3).stderr
    question = CliRunner().invoke(
        main, ["namespace", "delete", "guest", "--data", str(tmp_path)], input="n\n"
    )
    assert question.exit_code == 1
    assert json.loads(acs(tmp_path, "delete", "guest", "--force", "--json").stdout) == {
        "deleted": "guest"
    }
    assert re.search(r"^Namespace +UUID +Limits *$", acs(tmp_path, "list").stdout, re.M)
    (tmp_path / "acs.db").write_bytes(b"no database" * 100)
    assert "cannot open the database" in acs(tmp_path, "list", exits=2).stderr


def test_a_server_that_may_not_be_told_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(1, "Operation not permitted")

    async def prepare() -> None:
        database = Database(f"sqlite:///{tmp_path}/acs.db")
        await database.open()
        await database.close()

    asyncio.run(prepare())
    monkeypatch.setattr("acs_node.data_folder.poke", refuse)
    result = acs(tmp_path, "create", "dev", exits=2)
    assert "it is done, but the server on" in result.stderr
    assert "Operation not permitted" in result.stderr
