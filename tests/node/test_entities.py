"""Namespaces and actions: what a PUT makes of a body, what is refused, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from acs_node import entities as entities_module
from acs_node.database import Database, DatabaseError, namespaces
from acs_node.database import entities as table
from acs_node.entities import (
    Action,
    EntityStore,
    NamespaceLimits,
    RuntimeKinds,
    SystemLimits,
    annotation,
)
from acs_node.errors import ApiError

CODE = "def main(args):\n    return args\n"
BODY: dict[str, Any] = {"exec": {"kind": "python:3", "code": CODE}}


class Clock:
    now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


async def open_store(url: str, limits: SystemLimits | None = None) -> EntityStore:
    database = Database(url)
    await database.open()
    store = EntityStore(
        database, kinds=RuntimeKinds(), limits=limits or SystemLimits(), clock_ms=Clock()
    )
    await store.open()
    return store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[EntityStore]:
    store = await open_store(database_url)
    await store.create_namespace("guest")
    yield store
    await store._database.close()


async def refused(awaitable: Any) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.status, caught.value.text


# Namespaces.


async def test_a_credential_opens_its_namespace_and_only_the_whole_key_does(
    store: EntityStore,
) -> None:
    uuid, key = await store.create_namespace("mine")
    identity = store.authenticate(uuid, key)
    assert identity is not None
    assert (identity.namespace, identity.subject, identity.uuid) == ("mine", "mine", uuid)
    assert len(key) == 64
    for wrong in ("", key[:-1], key + "x", key.swapcase(), "\ud800"):
        assert store.authenticate(uuid, wrong) is None
    assert store.authenticate("nobody", key) is None
    assert await store.namespace("mine") == identity
    assert await store.namespace("other") is None


async def test_keys_are_not_stored_and_namespaces_survive_a_restart(database_url: str) -> None:
    first = await open_store(database_url)
    limits = NamespaceLimits(invocations_per_minute=5, allowed_kinds=("python:3",))
    uuid, key = await first.create_namespace("guest", limits=limits)
    row = await first._database.read(lambda c: c.execute(select(namespaces)).one())
    assert len(row.key_hash) == 32
    assert key not in repr(row)
    await first._database.close()
    if database_url.startswith("sqlite"):
        assert key.encode() not in Path(database_url.removeprefix("sqlite:///")).read_bytes()
    second = await open_store(database_url)
    identity = second.authenticate(uuid, key)
    assert identity is not None
    assert identity.limits == limits
    await second._database.close()


async def test_a_namespace_is_created_once_and_by_a_legal_name(store: EntityStore) -> None:
    before = await store.namespace("guest")
    assert await refused(store.create_namespace("guest")) == (409, "resource already exists")
    assert await store.namespace("guest") == before
    assert (await refused(store.create_namespace("a/b")))[0] == 400


def floor_of(count: Any) -> dict[str, Any]:
    return {"annotations": [{"key": "acs-containers-min", "value": count}]}


WRONG_TARGET = "annotation acs-wait-target must be a number of milliseconds, 0 to 60000"


def target_of(milliseconds: Any) -> dict[str, Any]:
    return {"annotations": [{"key": "acs-wait-target", "value": milliseconds}]}


@pytest.mark.parametrize("content", [None, b"this is a text, not a database" * 100])
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ("missing/acs.db" if content is None else "acs.db")
    if content is not None:
        path.write_bytes(content)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseError, match="cannot open the database"):
        await database.open()
    await database.close()


# What a PUT makes.


async def test_a_new_action_gets_defaults(store: EntityStore) -> None:
    action = await store.put_action("guest", "hello", BODY, False)
    assert action.document() == {
        "namespace": "guest",
        "name": "hello",
        "version": "0.0.1",
        "publish": False,
        "updated": action.updated,
        "exec": {"kind": "python:3", "code": CODE, "binary": False},
        "parameters": [],
        "limits": {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1},
        "annotations": [
            {"key": "provide-api-key", "value": False},
            {"key": "exec", "value": "python:3"},
        ],
    }
    assert store.cached(Action, "guest", "hello") is action


async def test_an_action_is_the_same_after_a_restart(database_url: str) -> None:
    first = await open_store(database_url)
    body = {
        "exec": {"kind": "python:default", "code": "Y29kZQ==", "main": "run"},
        "parameters": [
            {"key": "a", "value": {"b": [1, None]}},
            {"key": "S", "value": 1, "init": True},
        ],
        "limits": {"timeout": 1000, "instances": 3},
        "publish": True,
        "version": "1.2.3",
    }  # fmt: skip
    written = await first.put_action("guest", "hello", body, False)
    await first._database.close()
    second = await open_store(database_url)
    assert second.cached(Action, "guest", "hello") is None
    read = await second.get(Action, "guest", "hello")
    assert read == written
    assert (read.exec.kind, read.exec.binary, read.exec.main) == ("python:3", True, "run")
    assert second.cached(Action, "guest", "hello") is read
    await second._database.close()


async def test_an_update_merges_annotations_and_limits_and_replaces_parameters(
    store: EntityStore,
) -> None:
    def notes(**values: Any) -> list[dict[str, Any]]:
        return [{"key": key, "value": value} for key, value in values.items()]

    body = BODY | {
        "annotations": notes(a=1, b=2, c=3),
        "parameters": notes(p=1),
        "limits": {"timeout": 500, "memory": 128},
    }
    old = await store.put_action("guest", "hello", body, False)
    change = {
        "annotations": notes(b=20, d=4, exec="lies"),
        "delAnnotations": ["a", "exec"],
        "limits": {"memory": 512},
    }
    new = await store.put_action("guest", "hello", change, True)
    assert {note.key: note.value for note in new.annotations} == {
        "b": 20, "c": 3, "d": 4, "provide-api-key": False, "exec": "python:3",
    }  # fmt: skip
    assert (new.limits.timeout_ms, new.limits.memory_mb) == (500, 512)
    assert new.parameters == old.parameters
    assert new.exec == old.exec
    assert new.version == "0.0.2"
    assert new.revision > old.revision
    assert new.updated > old.updated
    newest = await store.put_action("guest", "hello", {"parameters": notes(q=2)}, True)
    assert [each.key for each in newest.parameters] == ["q"]
    assert annotation(newest, "d") == 4
    assert annotation(newest, "a", "gone") == "gone"


async def test_provide_api_key_is_set_on_create_only(store: EntityStore) -> None:
    own = BODY | {"annotations": [{"key": "provide-api-key", "value": True}]}
    action = await store.put_action("guest", "hello", own, False)
    assert annotation(action, "provide-api-key") is True
    action = await store.put_action("guest", "hello", {"delAnnotations": ["provide-api-key"]}, True)
    assert annotation(action, "provide-api-key") is None


async def test_of_a_parameter_given_twice_the_last_wins(store: EntityStore) -> None:
    body = BODY | {"parameters": [{"key": "a", "value": 1}, {"key": "a", "value": 2}]}
    action = await store.put_action("guest", "hello", body, False)
    assert [(each.key, each.value) for each in action.parameters] == [("a", 2)]


@pytest.mark.parametrize(
    ("code", "binary"),
    [
        ("code", True),
        (" Y29kZQ== \n", True),
        ("Y29kZQ=", False),
        ("abc", False),
        ("a===", False),
        ("====", False),
        ("", False),
        ("ab-_", False),
        ("Y29k\nZQ==", False),
    ],
)
async def test_binary_is_what_looks_like_base64(
    store: EntityStore, code: str, binary: bool
) -> None:
    body = {"exec": {"kind": "python:3", "code": code, "binary": not binary}}
    action = await store.put_action("guest", "hello", body, False)
    assert action.exec.binary is binary
    assert action.exec.code == code


@pytest.mark.parametrize("kind", ["python:3", "python:default", " Python:3 "])
async def test_the_stored_kind_is_the_real_one(store: EntityStore, kind: str) -> None:
    body = {"exec": {"kind": kind, "code": CODE}}
    action = await store.put_action("guest", "hello", body, False)
    assert action.exec.kind == "python:3"
    assert annotation(action, "exec") == "python:3"


# What a PUT refuses.

UNSUPPORTED = (
    "The specified runtime '{}' is not supported by this platform."
    " Valid values are: 'python:3', 'nodejs:20', 'sequence', 'blackbox'."
)


async def test_an_action_of_an_image(store: EntityStore) -> None:
    body = {"exec": {"kind": " BlackBox", "image": "localhost:5000/some/image:1"}}
    action = await store.put_action("guest", "own", body, False)
    expected = {"kind": "blackbox", "binary": False, "image": "localhost:5000/some/image:1"}
    assert action.document()["exec"] == expected
    body["exec"]["code"] = "echo"
    action = await store.put_action("guest", "own", body, True)
    assert action.document()["exec"] == {**expected, "code": "echo", "binary": True}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"exec": {"kind": "cobol:1", "code": ""}}, UNSUPPORTED.format("cobol:1")),
        ({"exec": {"kind": "blackbox"}}, "exec.image must be a string for kind 'blackbox'"),
        (
            {"exec": {"kind": "blackbox", "image": "Not/A reference"}},
            "exec.image 'Not/A reference' is no reference of a container image",
        ),
        (
            {"exec": {"kind": "blackbox", "image": "i", "code": 3}},
            "exec.code must be a string for kind 'blackbox'",
        ),
        ({"exec": []}, "exec must be an object"),
        ({"exec": {"code": CODE}}, "exec.kind must be a string"),
        ({"exec": {"kind": "python:3"}}, "exec.code must be a string for kind 'python:3'"),
        ({"exec": {"kind": "python:3", "code": "", "main": 1}}, "exec.main must be a string"),
        ({"parameters": {}}, "parameters malformed!"),
        ({"parameters": [{"key": 1, "value": 1}]}, "parameters malformed!"),
        ({"parameters": [{"key": "a"}]}, "parameters malformed!"),
        ({"parameters": [{"key": "a", "value": 1, "init": 1}]}, "parameters malformed!"),
        ({"annotations": [1]}, "annotations malformed!"),
        # A list could not be written with it, though a single action could.
        (
            {"annotations": [{"key": "a", "value": orjson.loads("[" * 248 + "]" * 248)}]},
            "annotations: 'a' is nested too deep",
        ),
        (
            {"annotations": [{"key": "acs-network", "value": "off"}]},
            "annotation acs-network must be 'none'",
        ),
        ({"publish": "yes"}, "publish must be true or false"),
        ({"version": "1.x"}, "version must be a string such as '0.0.1'"),
        ({"limits": []}, "limits must be an object"),
        ({"limits": {"timeout": "1"}}, "limits.timeout must be a whole number"),
        ({"limits": {"memory": 128.5}}, "limits.memory must be a whole number"),
        ({"limits": {"logs": True}}, "limits.logs must be a whole number"),
        (
            {"limits": {"timeout": 50}},
            "duration 50 milliseconds below allowed threshold of 100 milliseconds",
        ),
        (
            {"limits": {"timeout": 300001}},
            "duration 300001 milliseconds exceeds allowed threshold of 300000 milliseconds",
        ),
        ({"limits": {"memory": 64}}, "memory size 64 MB below allowed threshold of 128 MB"),
        ({"limits": {"memory": 513}}, "memory size 513 MB exceeds allowed threshold of 512 MB"),
        ({"limits": {"logs": 11}}, "log size 11 MB exceeds allowed threshold of 10 MB"),
        ({"limits": {"logs": -1}}, "log size -1 MB below allowed threshold of 0 MB"),
        ({"limits": {"concurrency": 2}}, "concurrency 2 exceeds allowed threshold of 1"),
        ({"limits": {"concurrency": 0}}, "concurrency 0 below allowed threshold of 1"),
        ({"limits": {"instances": 0}}, "instances 0 below allowed threshold of 1"),
        ({"limits": {"instances": 10001}}, "instances 10001 exceeds allowed threshold of 10000"),
        (target_of("1"), WRONG_TARGET),
        (target_of(True), WRONG_TARGET),
        (
            target_of(-0.1),
            "annotation acs-wait-target must be a number of milliseconds, 0 to 60000",
        ),
        (target_of(60_001), WRONG_TARGET),
        (floor_of("1"), "annotation acs-containers-min must be a whole number"),
        (floor_of(True), "annotation acs-containers-min must be a whole number"),
        (floor_of(-1), "acs-containers-min -1 below allowed threshold of 0"),
        (
            floor_of(2**31),
            "acs-containers-min 2147483648 exceeds allowed threshold of 2147483647",
        ),
    ],
)
async def test_a_malformed_field_is_named(
    store: EntityStore, body: dict[str, Any], detail: str
) -> None:
    expected = (400, f"The request content was malformed:\n{detail}")
    assert await refused(store.put_action("guest", "new", BODY | body, False)) == expected
    assert (await refused(store.get(Action, "guest", "new")))[0] == 404
    old = await store.put_action("guest", "old", BODY, False)
    assert await refused(store.put_action("guest", "old", body, True)) == expected
    assert await store.get(Action, "guest", "old") == old


async def test_annotations_to_delete_are_an_array_of_strings(store: EntityStore) -> None:
    await store.put_action("guest", "hello", BODY, False)
    for wrong in ("a", [1]):
        status, text = await refused(
            store.put_action("guest", "hello", {"delAnnotations": wrong}, True)
        )
        assert (status, text.splitlines()[1]) == (
            400,
            "delAnnotations must be an array of strings",
        )


async def test_the_limits_at_their_ends_are_allowed(store: EntityStore) -> None:
    for limits in (
        {"timeout": 100, "memory": 128, "logs": 0, "concurrency": 1},
        {"timeout": 300000, "memory": 512.0, "logs": 10, "instances": 10_000},
    ):
        action = await store.put_action("guest", "hello", BODY | {"limits": limits}, True)
        assert action.limits.document().items() >= limits.items()


async def test_a_namespace_may_have_tighter_limits(store: EntityStore) -> None:
    await store.create_namespace("small", limits=NamespaceLimits(allowed_kinds=("nodejs:20",)))
    assert await refused(store.put_action("small", "a", BODY, False)) == (
        403,
        "The supplied authentication is not authorized to access actions of kind 'python:3'.",
    )
    narrow = NamespaceLimits(memory_mb_max=128, concurrent_invocations=2)
    await store.create_namespace("narrow", limits=narrow)
    action = await store.put_action("narrow", "a", BODY, False)
    assert action.limits.memory_mb == 128
    for body, detail in (
        ({"memory": 129}, "memory size 129 MB exceeds allowed threshold of 128 MB"),
        ({"instances": 3}, "instances 3 exceeds allowed threshold of 2"),
    ):
        put = store.put_action("narrow", "b", BODY | {"limits": body}, False)
        status, text = await refused(put)
        assert (status, text.splitlines()[1]) == (400, detail)
    assert (await refused(store.put_action("narrow", "b", BODY | floor_of(3), False)))[0] == 400
    await store.put_action("narrow", "b", BODY | floor_of(2), False)


async def test_what_is_too_large_is_told_its_size(database_url: str) -> None:
    limits = SystemLimits(code_bytes_max=10, parameters_bytes_max=10, annotations_bytes_max=40)
    store = await open_store(database_url, limits)

    def put(overwrite: bool = False, **body: Any) -> Any:
        return store.put_action("guest", "hello", body, overwrite)

    def pair(key: str, value: str) -> list[dict[str, str]]:
        return [{"key": key, "value": value}]

    python = {"kind": "python:3", "code": "0123456789"}
    assert await refused(put(exec=python | {"code": "éééééé"})) == (
        413,
        "exec larger than allowed: 12 > 10 bytes.",
    )
    assert await refused(put(exec=python, parameters=pair("a", "12345678"))) == (
        413,
        "parameters larger than allowed: 11 > 10 bytes.",
    )
    assert await refused(put(exec=python, annotations=pair("a", "x" * 40))) == (
        413,
        "annotations larger than allowed: 43 > 40 bytes.",
    )
    await put(exec=python, parameters=pair("a", "1234567"))
    # 20 bytes are the system's own; growing by small steps ends at the bound as well.
    await put(True, annotations=pair("a", "x"))
    status, text = await refused(put(True, annotations=pair("b", "x" * 10)))
    assert (status, text.partition(":")[0]) == (413, "annotations larger than allowed")
    await store._database.close()


async def test_an_action_needs_an_exec_to_be_created(store: EntityStore) -> None:
    assert await refused(store.put_action("guest", "hello", {}, True)) == (400, "exec undefined")


async def test_an_existing_action_is_only_replaced_on_request(store: EntityStore) -> None:
    old = await store.put_action("guest", "hello", BODY, False)
    assert await refused(store.put_action("guest", "hello", BODY, False)) == (
        409,
        "resource already exists",
    )
    assert await store.get(Action, "guest", "hello") == old
    assert (await store.put_action("guest", "hello", BODY, True)).version == "0.0.2"


async def test_a_package_that_does_not_exist_is_named(store: EntityStore) -> None:
    assert await refused(store.put_action("guest", "pkg/hello", BODY, True)) == (
        404,
        "The requested resource 'guest/pkg' does not exist.",
    )


async def test_a_name_of_another_collection_is_no_action(store: EntityStore) -> None:
    row = {"namespace": "guest", "path": "hello", "collection": "triggers", "revision": 1,
           "updated": 1, "document": b"{}"}  # fmt: skip
    await store._database.write(lambda connection: connection.execute(table.insert(), row))
    expected = (409, "Resource by this name exists but is not in this collection.")
    assert await refused(store.get(Action, "guest", "hello")) == expected
    assert await refused(store.put_action("guest", "hello", BODY, True)) == expected
    assert await refused(store.delete_action("guest", "hello")) == expected
    assert await store.list(Action, "guest", 0, 200) == []


# Concurrency, listeners, cache.


@pytest.fixture
def racing(store: EntityStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Make the next two changes both read before either of them writes."""

    def arrange() -> None:
        load = store._load
        barrier = asyncio.Barrier(2)

        async def load_together(kind: Any, namespace: str, path: str) -> Any:
            action = await load(kind, namespace, path)
            await barrier.wait()
            return action

        monkeypatch.setattr(store, "_load", load_together)

    yield arrange
    monkeypatch.undo()


async def test_of_two_updates_of_one_revision_one_is_refused(
    store: EntityStore, racing: Callable[[], None]
) -> None:
    await store.put_action("guest", "hello", BODY, False)
    racing()
    body = {"publish": True}
    outcomes = await asyncio.gather(
        *(store.put_action("guest", "hello", body, True) for _ in range(2)),
        return_exceptions=True,
    )
    refusals = [each for each in outcomes if isinstance(each, ApiError)]
    assert [(each.status, each.text) for each in refusals] == [
        (409, "Concurrent modification to resource detected.")
    ]
    assert (await store.get(Action, "guest", "hello")).version == "0.0.2"


@pytest.mark.parametrize(
    ("overwrite", "text"),
    [
        (False, "resource already exists"),
        (True, "Concurrent modification to resource detected."),
    ],
)
async def test_of_two_creations_one_is_refused(
    store: EntityStore, racing: Callable[[], None], overwrite: bool, text: str
) -> None:
    racing()
    outcomes = await asyncio.gather(
        *(store.put_action("guest", "hello", BODY, overwrite) for _ in range(2)),
        return_exceptions=True,
    )
    assert [str(each) for each in outcomes if isinstance(each, ApiError)] == [f"409: {text}"]
    assert (await store.get(Action, "guest", "hello")).version == "0.0.1"


async def test_an_action_that_is_deleted_while_it_is_updated_is_not_revived(
    store: EntityStore, racing: Callable[[], None]
) -> None:
    await store.put_action("guest", "hello", BODY, False)
    racing()
    outcomes = await asyncio.gather(
        store.delete_action("guest", "hello"),
        store.put_action("guest", "hello", {"publish": True}, True),
        return_exceptions=True,
    )
    errors = [each for each in outcomes if isinstance(each, ApiError)]
    assert [each.text for each in errors] == ["Concurrent modification to resource detected."]
    stored = await store.count(Action, "guest")
    assert (store.cached(Action, "guest", "hello") is not None) == (stored == 1)


async def test_a_look_up_that_a_change_overtook_does_not_stay_in_the_cache(
    store: EntityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_action("guest", "hello", BODY, False)
    store._cache_drop(("guest", "hello"))
    read = store._database.read
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def slow_read(work: Any) -> Any:
        result = await read(work)
        has_read.set()
        await go_on.wait()
        return result

    monkeypatch.setattr(store._database, "read", slow_read)
    looking = asyncio.create_task(store.get(Action, "guest", "hello"))
    await asyncio.wait_for(has_read.wait(), 10)
    monkeypatch.undo()
    new = await store.put_action("guest", "hello", {"publish": True}, True)
    go_on.set()
    assert (await looking).version == "0.0.1"
    assert store.cached(Action, "guest", "hello") is new


async def test_a_created_again_action_has_a_new_revision(store: EntityStore) -> None:
    first = await store.put_action("guest", "hello", BODY, False)
    assert await store.delete_action("guest", "hello") == first
    assert await refused(store.get(Action, "guest", "hello")) == (
        404,
        "The requested resource does not exist.",
    )
    assert (await refused(store.delete_action("guest", "hello")))[0] == 404
    second = await store.put_action("guest", "hello", BODY, False)
    assert (second.version, second.revision) == ("0.0.1", first.revision + 1)


async def test_listeners_are_told_of_changes_of_existing_actions(store: EntityStore) -> None:
    told: list[tuple[Action, Action | None]] = []
    store.listeners.append(lambda old, new: told.append((old, new)))
    first = await store.put_action("guest", "hello", BODY, False)
    second = await store.put_action("guest", "hello", BODY, True)
    await refused(store.put_action("guest", "hello", BODY, False))
    await store.delete_action("guest", "hello")
    assert told == [(first, second), (second, None)]


async def test_a_change_is_told_even_if_its_caller_goes_away(
    store: EntityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_action("guest", "hello", BODY, False)
    told, writing = asyncio.Event(), asyncio.Event()
    store.listeners.append(lambda old, new: told.set())
    write = store._database.write

    async def noticed(work: Any) -> Any:
        writing.set()
        return await write(work)

    monkeypatch.setattr(store._database, "write", noticed)
    caller = asyncio.create_task(store.put_action("guest", "hello", BODY, True))
    await writing.wait()
    caller.cancel()
    await asyncio.wait_for(told.wait(), 10)
    assert caller.cancelled()
    cached = store.cached(Action, "guest", "hello")
    assert cached is not None
    assert cached.version == "0.0.2"


async def test_lists_are_by_update_and_have_no_code(store: EntityStore) -> None:
    for name in ("a", "b", "c"):
        await store.put_action("guest", name, BODY, False)
    await store.put_action("guest", "a", {"publish": True}, True)
    found = await store.list(Action, "guest", 0, 2)
    assert [(each.name, each.exec.code) for each in found] == [("a", None), ("c", None)]
    assert [each.name for each in await store.list(Action, "guest", 2, 200)] == ["b"]
    assert [await store.count(Action, "guest", skip) for skip in (0, 2, 5)] == [3, 1, 0]
    assert await store.list(Action, "other", 0, 200) == []


async def test_the_cache_is_bounded_by_count_and_by_code(
    store: EntityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached() -> list[str]:
        return [name for name in "abcd" if (("guest", name) in store._cache)]

    monkeypatch.setattr(entities_module, "CACHED_ENTITIES_MAX", 2)
    for name in "abc":
        await store.put_action("guest", name, BODY, False)
    assert cached() == ["b", "c"]
    store.cached(Action, "guest", "b")
    await store.get(Action, "guest", "a")
    assert cached() == ["a", "b"]
    monkeypatch.setattr(entities_module, "CACHED_CODE_BYTES_MAX", 100)
    body = {"exec": {"kind": "python:3", "code": "# " + "x" * 95}}
    await store.put_action("guest", "d", body, False)
    assert cached() == ["d"]
    assert store._cached_code_bytes == 97
    await store.put_action("guest", "d", BODY, True)
    await store.delete_action("guest", "d")
    assert (cached(), store._cached_code_bytes) == ([], 0)
