"""What several controllers know of each other: changes of entities, and what namespaces ask for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from node.test_entities import BODY, open_store
from waiting import until

from acs_node.action_schema import SystemLimits
from acs_node.cluster import changes as changes_module
from acs_node.cluster.changes import Changes
from acs_node.cluster.shared_limits import STALE_US, SharedLimits
from acs_node.entities import Action, EntityStore
from acs_node.entity_types import Entity, Identity, NamespaceLimits
from acs_node.errors import ApiError
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, Lease
from acs_node.packages import Package
from acs_node.throttles import Throttle, Throttles, Usage

MINUTE = 60_000


class House:
    """A controller's part of this: its store, with what it has told and heard."""

    def __init__(
        self, etcd: Etcd, cluster: str, name: str, lease: Lease, store: EntityStore
    ) -> None:
        self.store = store
        self.told: list[tuple[str, str, bool]] = []  # collection, path, whether it is still there
        self.heard = 0
        self.forgotten: list[str] = []
        store.listeners.append(self._on_change)
        store.namespace_listeners.append(self.forgotten.append)
        self.changes = Changes(etcd, cluster, name, lease, store, self._hear)

    def _on_change(self, old: Entity, new: Entity | None) -> None:
        self.told.append((old.collection, old.path, new is not None))

    def _hear(self) -> None:
        self.heard += 1


@pytest.fixture
async def etcd(etcd_endpoint: str) -> AsyncIterator[Etcd]:
    client = Etcd(EtcdConfig((etcd_endpoint,)))
    yield client
    await client.close()


@pytest.fixture
async def cluster() -> str:
    return f"shared-{secrets.token_hex(4)}"


@pytest.fixture
async def houses(etcd: Etcd, cluster: str, tmp_path: Path) -> AsyncIterator[list[House]]:
    """Two controllers on one database."""
    made = []
    for name in ("c0-1", "c1-1"):
        store = await open_store(f"sqlite:///{tmp_path}/acs.db")
        if not made:
            await store.create_namespace("guest")
        await store.refresh()
        made.append(House(etcd, cluster, name, await Lease.begin(etcd, 20), store))
        await made[-1].changes.start()
    yield made
    for house in made:
        await house.changes.close()
        await house.changes._lease.end()
        await house.store._database.close()


async def put(house: House, path: str = "act", **annotations: str) -> Action:
    body: dict[str, Any] = dict(BODY)
    body["annotations"] = [{"key": key, "value": value} for key, value in annotations.items()]
    return await house.store.put_action("guest", path, body, overwrite=True)


async def test_an_update_elsewhere_is_read_anew(houses: list[House]) -> None:
    here, there = houses
    first = await put(here)
    assert await there.store.get(Action, "guest", "act") == first
    second = await put(here, color="red")
    await until(lambda: there.told, "the news")
    assert there.told == [("actions", "act", True)]
    assert await there.store.get(Action, "guest", "act") == second
    # Who has told it does not hear of it.
    assert here.told == [("actions", "act", True)]
    # And back.
    third = await put(there, color="blue")
    await until(lambda: here.store.cached(Action, "guest", "act") != second, "the news")
    assert await here.store.get(Action, "guest", "act") == third


async def test_a_deletion_elsewhere_is_heard(houses: list[House]) -> None:
    here, there = houses
    await put(here)
    await there.store.get(Action, "guest", "act")
    await here.store.delete_action("guest", "act")
    await until(lambda: there.told, "the news")
    assert there.told == [("actions", "act", False)]
    with pytest.raises(ApiError):
        await there.store.get(Action, "guest", "act")


async def test_what_is_not_in_memory_is_told_as_far_as_it_is_known(houses: list[House]) -> None:
    here, there = houses
    await put(here)
    await put(here, color="red")
    await until(lambda: there.told, "an update of what was never read")
    assert there.told == [("actions", "act", True)]
    there.store._cache_drop(("guest", "act"))
    await here.store.delete_action("guest", "act")
    await until(lambda: there.forgotten, "a deletion of what nobody knows")
    assert there.forgotten == ["guest"]


async def test_a_package_and_things_of_other_kinds(houses: list[House]) -> None:
    here, there = houses
    await here.store.put_package("guest", "p", {}, overwrite=False)
    await there.store.get(Package, "guest", "p")
    await here.store.put_package("guest", "p", {"annotations": []}, overwrite=True)
    await until(lambda: there.told, "the news")
    assert there.told == [("packages", "p", True)]
    await there.store.get(Package, "guest", "p")
    # Replaced by something of another kind.
    await here.store.delete_package("guest", "p", False)
    await put(here, "p")
    await until(lambda: len(there.told) > 1, "the news")
    assert there.told[1][:2] == ("packages", "p")


async def test_what_was_read_since_is_no_news(houses: list[House]) -> None:
    here, there = houses
    await put(here)
    newest = await put(here, color="red")
    await until(lambda: there.told, "the news")
    assert await there.store.get(Action, "guest", "act") == newest
    there.told.clear()
    await there.store.changed_elsewhere([("guest", "act")])
    assert there.told == []
    assert there.store.cached(Action, "guest", "act") == newest


async def test_what_is_made_of_the_newest_revision_is_not_out_of_date(houses: list[House]) -> None:
    # An invoker asks a controller for an action that it has not read yet: the queue of another
    # controller, of this very revision, must not be closed as if something had changed.
    here, there = houses
    newest = await put(here)
    before: list[Entity] = []
    there.store.listeners.append(lambda old, new: before.append(old))
    await there.store.changed_elsewhere([("guest", "act")])
    assert [old.revision < newest.revision for old in before] == [True]


async def test_what_was_heard_is_not_told_on(houses: list[House]) -> None:
    here, there = houses
    await put(here)
    await put(here, color="red")
    await until(lambda: there.told, "the news")
    assert not there.changes._changed
    assert there.changes._number == 0


async def test_namespaces_are_read_anew(houses: list[House]) -> None:
    here, there = houses
    await here.store.create_namespace("dev")
    here.changes.namespaces_changed()
    await until(lambda: there.heard, "the news")
    await there.store.refresh()
    assert await there.store.namespace("dev") is not None
    assert here.heard == 0


async def test_who_missed_something_trusts_nothing_in_memory(
    houses: list[House], etcd: Etcd, cluster: str
) -> None:
    here, there = houses
    await put(here)
    await there.store.get(Action, "guest", "act")
    here.changes._number += 5  # as if values had come and gone between two looks
    await put(here, color="red")
    await until(lambda: there.heard and there.forgotten, "the news")
    assert there.heard == 1
    assert there.store.cached(Action, "guest", "act") is None


async def test_when_a_controller_ends_nothing_in_memory_is_trusted(houses: list[House]) -> None:
    # It may have changed something, and died before it said so.
    here, there = houses
    await put(here)
    await put(here, color="red")
    await until(lambda: there.told, "the news")
    await here.changes._lease.end()
    await until(lambda: there.forgotten, "its end")
    assert there.store.cached(Action, "guest", "act") is None


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"number": 1, "entities": [1]}'])
async def test_a_value_without_meaning_may_mean_everything(
    houses: list[House], etcd: Etcd, cluster: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, there = houses
    await etcd.put(f"{cluster}/change/odd", value)
    await until(lambda: there.heard and there.forgotten, "the news")
    assert there.forgotten == ["guest"]
    assert "what odd has changed cannot be read" in caplog.text


async def test_very_many_changes_are_told_as_everything(
    houses: list[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "TOLD_MAX", 1)
    here, there = houses
    actions = [await put(here, f"a{n}") for n in range(3)]
    for action in actions:
        here.changes._on_change(action, None)
    await until(lambda: there.forgotten, "the news")


async def test_a_change_is_told_when_etcd_is_back(
    houses: list[House], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = houses
    failures = [EtcdError("planted"), EtcdError("planted")]
    put_ = Etcd.put

    async def failing(self: Etcd, *arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await put_(self, *arguments)

    monkeypatch.setattr(Etcd, "put", failing)
    await put(here)
    await put(here, color="red")
    await until(lambda: there.told or there.forgotten, "the news")
    assert caplog.text.count("other controllers do not know yet what has changed") == 1


async def test_what_cannot_be_read_now_is_read_later(
    houses: list[House], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = houses
    read = there.store.changed_elsewhere
    failures = [OSError("planted")]

    async def failing(at: Any) -> None:
        if failures:
            raise failures.pop()
        await read(at)

    monkeypatch.setattr(there.store, "changed_elsewhere", failing)
    await put(here)
    await put(here, color="red")
    await until(lambda: there.told, "the news")
    assert "could not be read; again soon" in caplog.text


# --- limits -------------------------------------------------------------------------------------


def identity(**limits: int) -> Identity:
    return Identity("guest", "guest", "u", NamespaceLimits(**limits))


class Controllers:
    """Two controllers' throttles of one namespace, and a clock for what is stale."""

    def __init__(self, etcd: Etcd, cluster: str, leases: list[Lease], **limits: int) -> None:
        self.now_us = 0
        self.throttles = [Throttles(SystemLimits()) for _ in range(2)]
        self.shared = [
            SharedLimits(etcd, cluster, f"c{n}", leases[n], self.throttles[n], lambda: self.now_us)
            for n in range(2)
        ]
        self.each: list[Throttle] = []
        for throttles in self.throttles:
            throttle = throttles.of(identity(**limits))
            assert throttle is not None
            self.each.append(throttle)


Make = Callable[..., Any]


@pytest.fixture
async def controllers(etcd: Etcd, cluster: str) -> AsyncIterator[Make]:
    leases = [await Lease.begin(etcd, 20) for _ in range(2)]
    made: list[Controllers] = []

    async def make(**limits: int) -> Controllers:
        made.append(Controllers(etcd, cluster, leases, **limits))
        for each in made[-1].shared:
            await each.start()
        return made[-1]

    yield make
    for each in [shared for controllers in made for shared in controllers.shared]:
        await each.close()
    for lease in leases:
        await lease.end()


async def test_what_is_in_flight_elsewhere_counts(controllers: Make) -> None:
    two = await controllers(concurrent_invocations=3)
    here, there = two.each
    here.in_flight |= {"a", "b"}
    await until(lambda: there.elsewhere.in_flight == 2, "the news")
    there.admit(0)
    there.in_flight.add("c")
    with pytest.raises(ApiError, match=r"count: 3, allowed: 3"):
        there.admit(0)
    await until(lambda: here.elsewhere.in_flight == 1, "the news")
    with pytest.raises(ApiError, match=r"count: 3, allowed: 3"):
        here.admit(0)
    here.in_flight.clear()
    await until(lambda: there.elsewhere == Usage(), "the news")
    there.admit(0)


async def test_what_was_asked_for_elsewhere_in_this_minute_counts(controllers: Make) -> None:
    two = await controllers(invocations_per_minute=5, fires_per_minute=3)
    here, there = two.each
    for n in range(3):
        here.admit(MINUTE + n)
    here.admit_fire(MINUTE)
    here.admit_fire(MINUTE)
    await until(lambda: there.elsewhere == Usage(0, 1, 3, 2), "the news")
    there.admit(MINUTE)
    there.admit(MINUTE)
    with pytest.raises(ApiError, match=r"count: 6, allowed: 5"):
        there.admit(MINUTE)
    there.admit_fire(MINUTE)
    with pytest.raises(ApiError, match=r"count: 4, allowed: 3"):
        there.admit_fire(MINUTE)
    there.admit(2 * MINUTE)  # of another minute is what the other has told


async def test_a_throttle_that_is_made_later_knows_as_well(controllers: Make) -> None:
    two = await controllers(concurrent_invocations=1)
    two.each[0].in_flight.add("a")
    await until(lambda: two.each[1].elsewhere.in_flight == 1, "the news")
    two.throttles[1]._by_namespace.clear()
    later = two.throttles[1].of(identity(concurrent_invocations=1))
    assert later is not None
    with pytest.raises(ApiError, match=r"count: 1, allowed: 1"):
        later.admit(0)


async def test_who_ends_or_is_silent_has_nothing_under_way(controllers: Make) -> None:
    two = await controllers(concurrent_invocations=1)
    here, there = two.each
    here.in_flight.add("a")
    await until(lambda: there.elsewhere.in_flight == 1, "the news")
    await two.shared[0].close()
    two.now_us = STALE_US + 1
    await until(lambda: there.elsewhere == Usage(), "doubt")
    two.now_us = 0
    await until(lambda: there.elsewhere.in_flight == 1, "belief")
    await two.shared[0]._lease.end()
    await until(lambda: there.elsewhere == Usage(), "its end")


async def test_it_is_told_only_where_there_is_news(
    controllers: Make, etcd: Etcd, cluster: str
) -> None:
    two = await controllers(concurrent_invocations=1)
    shared = two.shared[0]
    await shared.close()

    async def version() -> int:
        found = (await etcd.list(f"{cluster}/usage/c0"))[0]
        return found[0].version if found else 0

    await shared.tell()
    assert await version() == 0
    two.each[0].in_flight.add("a")
    for _ in range(3):
        await shared.tell()
    assert await version() == 1
    two.now_us = 6_000_000
    await shared.tell()
    assert await version() == 2


@pytest.mark.parametrize("value", [b"", b"[]", b'{"guest": 1}', b'{"guest": [1, 2, 3, 4, 5]}'])
async def test_a_usage_without_meaning_is_none(
    controllers: Make, etcd: Etcd, cluster: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    two = await controllers(concurrent_invocations=1)
    await etcd.put(f"{cluster}/usage/odd", value)
    await until(lambda: "what is asked for at odd cannot be read" in caplog.text, "the log")
    assert two.each[0].elsewhere == Usage()


def test_of_two_minutes_the_later_one_counts() -> None:
    assert Usage(1, 7, 3, 4) + Usage(2, 7, 5, 6) == Usage(3, 7, 8, 10)
    assert Usage(1, 7, 3, 4) + Usage(2, 8, 5, 6) == Usage(3, 8, 5, 6)
    assert Usage(1, 9, 3, 4) + Usage(2, 8, 5, 6) == Usage(3, 9, 3, 4)


async def test_a_failure_of_etcd_ends_nothing(
    controllers: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = await controllers(concurrent_invocations=5)
    here, there = two.each
    failures = [EtcdError("planted")] * 2
    put_ = Etcd.put

    async def failing(self: Etcd, *arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await put_(self, *arguments)

    monkeypatch.setattr(Etcd, "put", failing)
    here.in_flight.add("a")
    await until(lambda: there.elsewhere.in_flight == 1, "the news")
    assert not failures
    await asyncio.sleep(0)
