"""Room that queues of several schedulers share: told in etcd, and given back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
from cluster.load import CODE, Client
from cluster.started import started
from cluster.test_cluster import ready
from harness import Desk
from waiting import until

from acs_core import events as ev
from acs_core.effects import Place
from acs_core.events import HungerElsewhere
from acs_core.hunger import Hunger
from acs_node.cluster.hunger import GivingBack, Holders, read, write
from acs_node.etcd import Etcd, EtcdConfig, Lease
from acs_node.etcd_coordination import EtcdCoordination
from acs_node.scheduler_node import SchedulerNode


class Told:
    """A ``SchedulerNode`` that has nothing but a core, and what that was told."""

    def __init__(self) -> None:
        self.desk = Desk(namespace_reserve=0, namespace_containers_max=2)
        self.scheduler = self.desk.scheduler
        self.words: list[str] = []
        self.desk.do(ev.InvokerReported("i", 10_000))

    def receive(self, event: ev.Event) -> None:
        self.words += self.desk.do(event)

    def open(self, queue: str, *held: ev.Held) -> None:
        self.desk.open(queue, memory_mb=100)
        self.desk.do(ev.Adopted("i", queue, 1, held))


class House:
    """Schedulers in one cluster of a real etcd."""

    def __init__(self, etcd: Etcd, stack: AsyncExitStack) -> None:
        self.etcd = etcd
        self.cluster = f"test-{secrets.token_hex(4)}"
        self._stack = stack

    async def lease(self) -> Lease:
        lease = await Lease.begin(self.etcd, 5)
        self._stack.push_async_callback(lease.end)
        return lease

    async def scheduler(self, name: str) -> tuple[Told, GivingBack, Lease]:
        told, lease = Told(), await self.lease()
        node = cast(SchedulerNode, told)
        giving = GivingBack(self.etcd, self.cluster, name, lease, node)
        await giving.start()
        self._stack.push_async_callback(giving.close)
        return told, giving, lease

    async def holds(self, queue: str, *containers: str) -> EtcdCoordination:
        """Have containers of the queue counted."""
        for container in containers:
            await self.etcd.put(f"{self.cluster}/held/namespace/n/{container}", queue.encode())
        return EtcdCoordination(self.etcd, self.cluster, "s", await self.lease())

    async def written(self) -> list[bytes]:
        found, _ = await self.etcd.list(f"{self.cluster}/starving/")
        return [kv.value for kv in found]


@pytest.fixture
async def house(etcd_endpoint: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        etcd = Etcd(EtcdConfig((etcd_endpoint,)))
        stack.push_async_callback(etcd.close)
        yield House(etcd, stack)


async def test_who_is_denied_is_heard_and_the_richest_gives(house: House) -> None:
    await house.holds("n/rich", "c-0", "c-1")
    poor, asks, lease = await house.scheduler("s1")
    rich, gives, _ = await house.scheduler("s2")
    poor.open("n/poor")
    rich.open("n/rich", ev.Held("c-0", True), ev.Held("c-1", True))
    rich.desk.pull("c-0")
    await asks.look()
    await gives.look()
    assert await house.written() == [], "who lacks nothing writes nothing"

    poor.desk.arrive("a1", queue="n/poor")
    poor.desk.do(ev.Denied("n/poor", 1, "no room"))
    assert poor.scheduler.hungers() == [Hunger("n/poor", "n", 0, 2, False)]
    await asks.look()
    await until(lambda: rich.words, "the word on the hunger")
    assert rich.words == ["release c-0: n/poor has too few containers"]
    before = await house.written()
    await gives.look()
    assert len(await house.written()) == 2, "what it gives is told as well"

    def nobody_is_asked() -> bool:
        return "s2" in asks._gives and bool(asks._gives["s2"])

    await until(nobody_is_asked, "the word on what is given")
    await asks.look()
    told = read((await house.written())[0])[0]["n/poor"]
    assert (told.giver, told.namespace_containers) == ("", 2)
    assert before != await house.written()

    # What a scheduler lacks ends with it.
    assert list(gives._hungers) == ["s1"]
    await lease.end()
    await until(lambda: not gives._hungers, "the end of its hunger")


async def test_who_is_asked_looks_again_by_itself(house: House) -> None:
    rich, gives, _ = await house.scheduler("s2")
    rich.open("n/rich", ev.Held("c-0", True, ("run",)))
    hunger = HungerElsewhere("n/poor", "n", 0, 0, False, "n/rich", 1)
    await house.etcd.put(f"{house.cluster}/starving/s1", write([hunger], {}))
    await until(lambda: gives._hungers, "the word on the hunger")
    assert rich.words == []
    rich.desk.do(ev.Pulled("c-0", 1, 1, (), (ev.Completion("run", 0, 1, 0),)))
    await gives.look()
    assert rich.words == ["release c-0: n/poor has too few containers"]


@pytest.mark.parametrize(
    "value",
    [b"", b"7", b"{}", b'{"hungers": [{}], "gives": {}}', b'{"hungers": [], "gives": {"q": "x"}}'],
)
async def test_a_word_without_meaning_is_none(
    house: House, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    told, giving, _ = await house.scheduler("s1")
    await house.etcd.put(f"{house.cluster}/starving/s9", value)
    await until(lambda: "s9 lacks cannot be read" in caplog.text, "the warning")
    assert (giving._hungers, told.words) == ({}, [])


async def test_containers_are_counted_by_queue_from_reservation_to_release(house: House) -> None:
    holders = Holders(house.etcd, house.cluster)
    await holders.start()
    await house.etcd.put(f"{house.cluster}/member/invoker/i", b'{"memory_mb": 1000}')
    scheduler = await house.holds("")
    invoker = EtcdCoordination(house.etcd, house.cluster, "i", await house.lease())
    places = [Place("a", "i"), Place("b", "i")]
    await scheduler.reserve("n", 9, 100, places, "n/q")
    await until(lambda: holders.counts == {"n/q": ("n", 2)}, "both")
    assert await invoker.convert("n", "a", "i", 100, "n/q")
    scheduler.release("b")
    await until(lambda: holders.counts == {"n/q": ("n", 1)}, "the one that is left")
    invoker.release("a")
    await until(lambda: not holders.counts, "none")
    await holders.close()


# --- a whole cluster ---------------------------------------------------------------------------


class Users:
    """Keep an action at a number of runs until they are stopped; ``pids`` of its containers."""

    def __init__(self, url: str, auth: str, action: str, log: Path, count: int) -> None:
        self._log = log
        self._going = True
        self._tasks = [
            asyncio.ensure_future(self._one(Client(url, auth), action)) for _ in range(count)
        ]

    async def _one(self, client: Client, action: str) -> None:
        body = {"log": str(self._log), "n": 1, "ms": 200}
        while self._going:
            status, answer = await client.request("POST", f"actions/{action}?blocking=true", body)
            assert status == 200, answer

    def pids(self) -> set[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return {line.split()[1] for line in lines}

    async def stop(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)


async def test_a_queue_gets_its_share_of_what_another_scheduler_s_queue_works_with(
    tmp_path: Path,
) -> None:
    with started(schedulers=2, invokers=1, lease_s=5, namespace_containers=4) as cluster:
        client = Client(cluster.url, cluster.auth)
        document = {"exec": {"kind": "python:3", "code": CODE}, "limits": {"memory": 128}}

        def led() -> list[int]:
            shown = [ready(node.health)[1]["queues"] for node in cluster.of("scheduler")]
            return [cast(int, count) for count in shown]

        at: dict[int, str] = {}
        number = 0
        while len(at) < 2:
            before, name = led(), f"act{number}"
            assert (await client.request("PUT", f"actions/{name}", document))[0] == 200
            body = {"log": str(tmp_path / "first"), "n": 1, "ms": 0}
            assert (await client.request("POST", f"actions/{name}?blocking=true", body))[0] == 200
            at[[now > was for now, was in zip(led(), before, strict=True)].index(True)] = name
            number += 1
        rich = Users(cluster.url, cluster.auth, at[0], tmp_path / "rich", 16)
        await until(lambda: len(rich.pids()) >= 3, "the containers of the first", within_s=60)
        poor = Users(cluster.url, cluster.auth, at[1], tmp_path / "poor", 16)
        # None of the first one's ever idles: it gives some back.
        await until(lambda: len(poor.pids()) >= 2, "the containers of the second", within_s=90)
        await rich.stop()
        await poor.stop()
