"""Leadership and reservations in memory."""

import pytest

from acs_core.effects import Place
from acs_node.coordination import MemoryCoordination


def places(*spots: str) -> list[Place]:
    """Make places from ``container@invoker``."""
    return [Place(*spot.split("@")) for spot in spots]


async def test_every_epoch_is_higher_than_all_before_it_also_after_resigning() -> None:
    coordination = MemoryCoordination({})
    first = await coordination.lead("a")
    second = await coordination.lead("b")
    await coordination.resign("a")
    assert first < second < await coordination.lead("a")


async def test_memory_bounds_what_is_granted_on_each_invoker() -> None:
    coordination = MemoryCoordination({"i0": 512, "i1": 256})
    wanted = places("c1@i0", "c2@i0", "c3@i0", "c4@i1", "c5@i1")
    granted, reason = await coordination.reserve("ns", 10, 256, wanted)
    assert granted == ["c1", "c2", "c4"]
    assert reason == "256 MB do not fit on invoker i1"


async def test_the_namespace_bounds_what_is_granted_beside_others() -> None:
    coordination = MemoryCoordination({"i0": 10_000})
    assert (await coordination.reserve("other", 1, 128, places("o1@i0")))[0] == ["o1"]
    granted, reason = await coordination.reserve("ns", 2, 128, places("a@i0", "b@i0", "c@i0"))
    assert granted == ["a", "b"]
    assert reason == "namespace ns holds 2 containers (allowed: 2)"


async def test_an_unknown_invoker_has_no_room() -> None:
    granted, reason = await MemoryCoordination({}).reserve("ns", 1, 128, places("c@gone"))
    assert granted == []
    assert "gone" in reason


@pytest.mark.parametrize("bound", ["memory", "namespace"])
async def test_what_is_released_may_be_reserved_again(bound: str) -> None:
    memory_mb, containers_max = (256, 10) if bound == "memory" else (9999, 1)
    coordination = MemoryCoordination({"i0": memory_mb})
    assert (await coordination.reserve("ns", containers_max, 256, places("a@i0")))[0] == ["a"]
    assert (await coordination.reserve("ns", containers_max, 256, places("b@i0")))[0] == []
    coordination.release("unknown")
    coordination.release("a")
    assert (await coordination.reserve("ns", containers_max, 256, places("b@i0")))[0] == ["b"]
