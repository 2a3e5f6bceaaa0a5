"""Leadership and reservations: one suite for memory and for a real etcd."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from waiting import until

from acs_core.effects import Place
from acs_node.coordination import Coordination, LedElsewhere, MemoryCoordination
from acs_node.etcd import Etcd, EtcdConfig, EtcdError, Lease
from acs_node.etcd_coordination import RESERVE_PART, EtcdCoordination

Make = Callable[[dict[str, int]], Awaitable[Coordination]]


def places(*spots: str) -> list[Place]:
    """Make places from ``container@invoker``."""
    return [Place(*spot.split("@")) for spot in spots]


class EtcdHouse:
    """Nodes in one cluster of a real etcd, each with a lease of its own."""

    def __init__(self, endpoint: str, stack: AsyncExitStack) -> None:
        self.cluster = f"test-{secrets.token_hex(4)}"
        self.etcd = Etcd(EtcdConfig((endpoint,)))
        self.leases: dict[str, Lease] = {}
        self._stack = stack

    async def node(self, instance: str) -> EtcdCoordination:
        lease = await Lease.begin(self.etcd, 5)
        self._stack.push_async_callback(lease.end)
        self.leases[instance] = lease
        node = EtcdCoordination(self.etcd, self.cluster, instance, lease)
        self._stack.push_async_callback(node.close)
        return node

    async def invokers(self, memory: dict[str, int]) -> None:
        for name, memory_mb in memory.items():
            value = json.dumps({"memory_mb": memory_mb}).encode()
            await self.etcd.put(f"{self.cluster}/member/invoker/{name}", value)

    async def held(self) -> list[str]:
        found, _ = await self.etcd.list(f"{self.cluster}/held/invoker/")
        return sorted(kv.key.decode().rpartition("/")[2] for kv in found)


@pytest.fixture
async def house(etcd_endpoint: str) -> AsyncIterator[EtcdHouse]:
    async with AsyncExitStack() as stack:
        made = EtcdHouse(etcd_endpoint, stack)
        stack.push_async_callback(made.etcd.close)
        yield made


@pytest.fixture(params=["memory", "etcd"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "memory":

        async def in_memory(invokers: dict[str, int]) -> Coordination:
            return MemoryCoordination(invokers)

        return in_memory
    house: EtcdHouse = request.getfixturevalue("house")

    async def in_etcd(invokers: dict[str, int]) -> Coordination:
        await house.invokers(invokers)
        return await house.node("s0")

    return in_etcd


async def test_every_epoch_is_higher_than_all_before_it_also_after_resigning(make: Make) -> None:
    coordination = await make({})
    first = await coordination.lead("a")
    second = await coordination.lead("b")
    await coordination.resign("a")
    assert first < second < await coordination.lead("a")


async def test_memory_bounds_what_is_granted_on_each_invoker(make: Make) -> None:
    coordination = await make({"i0": 512, "i1": 256})
    wanted = places("c1@i0", "c2@i0", "c3@i0", "c4@i1", "c5@i1")
    granted, reason = await coordination.reserve("ns", 10, 256, wanted)
    assert granted == ["c1", "c2", "c4"]
    assert reason == "256 MB do not fit on invoker i1"


async def test_the_namespace_bounds_what_is_granted_beside_others(make: Make) -> None:
    coordination = await make({"i0": 10_000})
    assert (await coordination.reserve("other", 1, 128, places("o1@i0")))[0] == ["o1"]
    granted, reason = await coordination.reserve("ns", 2, 128, places("a@i0", "b@i0", "c@i0"))
    assert granted == ["a", "b"]
    assert reason == "namespace ns holds 2 containers (allowed: 2)"


async def test_an_unknown_invoker_has_no_room(make: Make) -> None:
    coordination = await make({})
    granted, reason = await coordination.reserve("ns", 1, 128, places("c@gone"))
    assert granted == []
    assert "gone" in reason


@pytest.mark.parametrize("bound", ["memory", "namespace"])
async def test_what_is_released_may_be_reserved_again(make: Make, bound: str) -> None:
    memory_mb, containers_max = (256, 10) if bound == "memory" else (9999, 1)
    coordination = await make({"i0": memory_mb})
    assert (await coordination.reserve("ns", containers_max, 256, places("a@i0")))[0] == ["a"]
    assert (await coordination.reserve("ns", containers_max, 256, places("b@i0")))[0] == []
    coordination.release("unknown")
    coordination.release("a")
    assert (await coordination.reserve("ns", containers_max, 256, places("b@i0")))[0] == ["b"]


async def test_a_hundred_places_are_reserved_at_once_up_to_the_cap(make: Make) -> None:
    coordination = await make({f"i{n}": 1_000 for n in range(100)})
    wanted = places(*[f"c{n}@i{n}" for n in range(100)])
    granted, reason = await coordination.reserve("ns", 90, 10, wanted)
    assert granted == [f"c{n}" for n in range(90)]
    assert reason == "namespace ns holds 90 containers (allowed: 90)"


async def test_a_reservation_is_converted_once_it_is_up_and_again_after_a_lost_answer(
    make: Make,
) -> None:
    coordination = await make({"i0": 1_000})
    await coordination.reserve("ns", 9, 128, places("a@i0"))
    assert await coordination.convert("ns", "a", "i0", 128)
    assert await coordination.convert("ns", "a", "i0", 128)
    granted, _ = await coordination.reserve("ns", 1, 128, places("b@i0"))
    assert granted == []


async def test_what_is_not_reserved_is_not_converted(make: Make) -> None:
    coordination = await make({"i0": 1_000})
    assert not await coordination.convert("ns", "never", "i0", 128)
    await coordination.reserve("ns", 9, 128, places("a@i0"))
    coordination.release("a")
    await coordination.reserve("ns", 9, 128, places("b@i0"))  # after the release is done
    assert not await coordination.convert("ns", "a", "i0", 128)


# --- of etcd alone: several nodes, and nodes that die -------------------------------------------


async def test_one_scheduler_leads_and_others_are_told_which(house: EtcdHouse) -> None:
    one, two = await house.node("s1"), await house.node("s2")
    epoch = await one.lead("q")
    with pytest.raises(LedElsewhere, match="queue q is led by s1") as caught:
        await two.lead("q")
    assert caught.value.leader == "s1"
    assert await one.lead("q") == epoch  # as after an answer that got lost
    await one.resign("q")
    assert await two.lead("q") > epoch


async def test_a_late_resignation_takes_nothing_from_the_next_leader(house: EtcdHouse) -> None:
    one, two = await house.node("s1"), await house.node("s2")
    await one.lead("q")
    await house.etcd.revoke(house.leases["s1"].id)
    epoch = await two.lead("q")
    await one.resign("q")
    assert await two.lead("q") == epoch


async def test_leadership_and_reservations_end_with_the_lease(house: EtcdHouse) -> None:
    await house.invokers({"i0": 1_000})
    one, two = await house.node("s1"), await house.node("s2")
    await one.lead("q")
    await one.reserve("ns", 9, 128, places("a@i0", "b@i0"))
    assert await house.held() == ["a", "b"]
    await house.etcd.revoke(house.leases["s1"].id)
    assert await house.held() == []
    assert await two.lead("q")
    assert not await two.convert("ns", "a", "i0", 128)


async def test_a_serving_container_outlives_its_scheduler_and_not_its_invoker(
    house: EtcdHouse,
) -> None:
    await house.invokers({"i0": 1_000})
    scheduler, invoker = await house.node("s1"), await house.node("i0-1")
    await scheduler.reserve("ns", 9, 128, places("a@i0", "b@i0"))
    assert await invoker.convert("ns", "a", "i0", 128)
    await house.etcd.revoke(house.leases["s1"].id)
    assert await house.held() == ["a"]
    await house.etcd.revoke(house.leases["i0-1"].id)
    assert await house.held() == []


async def test_a_reservation_of_which_another_invoker_took_hold_is_not_converted(
    house: EtcdHouse,
) -> None:
    await house.invokers({"i0": 1_000})
    scheduler = await house.node("s1")
    one, two = await house.node("i0-1"), await house.node("i0-2")
    await scheduler.reserve("ns", 9, 128, places("a@i0"))
    assert await one.convert("ns", "a", "i0", 128)
    assert not await two.convert("ns", "a", "i0", 128)


@pytest.mark.parametrize("bound", ["namespace", "memory"])
async def test_caps_hold_while_many_schedulers_reserve_at_the_same_moment(
    house: EtcdHouse, bound: str
) -> None:
    await house.invokers({f"i{n}": 10_000 for n in range(1, 9)} | {"i0": 1_000})
    nodes = [await house.node(f"s{n}") for n in range(8)]

    async def reserve(number: int) -> int:
        granted = 0
        for turn in range(3):
            # Nothing in common but what binds: each guard holds alone.
            by_memory = bound == "memory"
            invoker = "i0" if by_memory else f"i{number + 1}"
            wanted = places(*[f"c{number}-{turn}-{n}@{invoker}" for n in range(4)])
            namespace = f"ns{number}" if by_memory else "ns"
            more, _ = await nodes[number].reserve(namespace, 10, 250, wanted)
            granted += len(more)
        return granted

    granted = sum(await asyncio.gather(*[reserve(n) for n in range(8)]))
    held = await house.held()
    assert len(held) == granted
    assert granted == (4 if bound == "memory" else 10)


async def test_more_places_than_a_transaction_takes_go_in_parts(house: EtcdHouse) -> None:
    await house.invokers({f"i{n}": 1_000 for n in range(RESERVE_PART + 1)})
    node = await house.node("s0")
    wanted = places(*[f"c{n}@i{n}" for n in range(RESERVE_PART + 1)])
    granted, reason = await node.reserve("ns", 1_000, 128, wanted)
    assert (len(granted), reason) == (RESERVE_PART + 1, "")


async def test_a_conversion_whose_answer_got_lost_is_undone_by_a_release(
    house: EtcdHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.invokers({"i0": 1_000})
    scheduler, invoker = await house.node("s0"), await house.node("i0-1")
    await scheduler.reserve("ns", 9, 128, places("a@i0"))
    transaction = house.etcd.transaction

    async def lossy(*arguments: Any) -> Any:
        await transaction(*arguments)
        raise EtcdError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(house.etcd, "transaction", lossy)
        with pytest.raises(EtcdError):
            await invoker.convert("ns", "a", "i0", 128)
    assert await house.held() == ["a"]
    invoker.release("a")
    await until(lambda: not invoker._deleting, "the release")
    assert await house.held() == []


async def test_a_release_that_etcd_did_not_answer_is_tried_until_it_does(
    house: EtcdHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.invokers({"i0": 1_000})
    node = await house.node("s0")
    await node.reserve("ns", 9, 128, places("a@i0"))
    delete, failures = house.etcd.delete, 2

    async def fragile(*keys: str) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise EtcdError("planted")
        await delete(*keys)

    monkeypatch.setattr(house.etcd, "delete", fragile)
    node.release("a")
    await until(lambda: not node._deleting, "the release")
    assert failures == 0
    assert await house.held() == []
