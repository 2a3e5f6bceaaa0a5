"""A scheduler that lives and is not reached: who tells that, and where its queues go."""

from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from acs_node import clock
from acs_node.cluster import reach
from acs_node.cluster.reach import Reach, Unreached
from acs_node.etcd import EtcdError


class FakeEtcd:
    """Keys, and what was done to them; ``failing`` takes nothing."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.failing = False
        self.asked = 0

    async def put(self, key: str, value: bytes, lease: int) -> None:
        self.asked += 1
        if self.failing:
            raise EtcdError("planted")
        self.keys[key] = lease

    async def delete(self, key: str) -> None:
        self.asked += 1
        if self.failing:
            raise EtcdError("planted")
        del self.keys[key]


def links(**silent_s: float) -> Any:
    """Return links that were heard so long ago."""
    now_us = clock.now_us()
    return {
        name: SimpleNamespace(heard_us=now_us - int(seconds * 1e6))
        for name, seconds in silent_s.items()
    }


def unreached(etcd: FakeEtcd) -> Unreached:
    lease: Any = SimpleNamespace(id=7)
    fake: Any = etcd
    return Unreached(fake, "acs", "c0-1", lease, 10)


async def test_a_scheduler_that_is_silent_for_longer_than_a_lease_is_told_until_it_is_heard() -> (
    None
):
    etcd = FakeEtcd()
    teller = unreached(etcd)
    teller.look(links(s0=10.5, s1=0))
    assert teller._telling is None
    teller.look(links(s0=11.5, s1=0))
    teller.look(links(s0=11.5, s1=0))  # one at a time
    await until(lambda: etcd.keys == {"acs/unreached/s0/c0-1": 7}, "the key")
    await until(lambda: teller._told == {"s0"}, "the end of that")
    teller.look(links(s0=11.5, s1=0))
    assert etcd.asked == 1
    teller.look(links(s0=0, s1=0))
    await until(lambda: not etcd.keys, "the end of the key")
    await teller.close()


async def test_what_etcd_does_not_take_is_told_at_the_next_look() -> None:
    etcd = FakeEtcd()
    etcd.failing = True
    teller = unreached(etcd)
    teller.look(links(s0=20))
    await until(lambda: etcd.asked == 1, "the first try")
    await teller.close()
    etcd.failing = False
    teller.look(links(s0=20))
    await until(lambda: bool(etcd.keys), "the second one")
    teller.look({})  # it is gone: so is what was said of it
    await until(lambda: not etcd.keys, "the end of the key")


class Stage:
    """A scheduler with queues, and who else there is."""

    def __init__(self, *queues: str) -> None:
        self.moves: list[tuple[str, str]] = []
        self.queues = list(queues)
        self.others = ["s1", "s2"]
        core = SimpleNamespace(
            queues=lambda: list(self.queues), can_move=lambda queue: queue != "busy"
        )
        node: Any = SimpleNamespace(scheduler=core, move=self._move)
        etcd: Any = None
        self.reach = Reach(etcd, "acs", "s0", node, lambda: self.others)

    def _move(self, queue: str, to: str) -> None:
        self.queues.remove(queue)
        self.moves.append((queue, to))

    def missed(self, *names: str) -> None:
        """Say what keys there are."""
        self.reach._watched.values = dict.fromkeys(names, b"")
        self.reach._changed("", b"")


def test_its_queues_go_to_the_one_that_fewest_miss() -> None:
    stage = Stage("a", "b", "busy")
    stage.reach.look()
    assert stage.moves == []
    stage.missed("s0/c0", "s0/c1", "s1/c1")
    assert not stage.reach.is_worse("s1")
    stage.reach.look()
    assert stage.moves == [("a", "s2"), ("b", "s2")]
    stage.reach.look()
    assert stage.queues == ["busy"], "it follows when it can"
    stage.missed("s1/c1")
    assert stage.reach.is_worse("s1")


def test_nothing_moves_where_it_would_be_missed_as_much() -> None:
    stage = Stage("a")
    stage.missed("s0/c0", "s1/c1", "s2/c0")
    stage.reach.look()
    stage.missed("s0/c0")
    stage.others = []
    stage.reach.look()
    assert stage.moves == []


def test_so_many_move_at_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "MOVES_MAX", 2)
    stage = Stage("a", "b", "c")
    stage.missed("s0/c0")
    stage.reach.look()
    assert [queue for queue, _ in stage.moves] == ["a", "b"]
