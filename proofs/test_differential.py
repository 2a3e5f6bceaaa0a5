"""Proof of D1 and P1-P3 by mass: 100,000 random inputs each beside the plain models, seeded."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from models_demand import original
from models_semaphores import PlainForcible, PlainNested, PlainResizable

from acs_core.demand import OpenWhiskRule, Snapshot
from acs_core.queue_states import QueueState
from acs_core.semaphores import ForcibleSemaphore, NestedSemaphore, ResizableSemaphore

INPUTS = 100_000
STATES = [*QueueState, *[QueueState.RUNNING] * 8, QueueState.REMOVING]


def random_snapshot(chance: random.Random) -> Snapshot:
    """Return one that often lies near a limit, where the table branches."""
    existing, in_progress = chance.choice([0, 0, 1, 2, 5, 12]), chance.choice([0, 0, 1, 4])
    return Snapshot(
        state=chance.choice(STATES),
        initialized=chance.random() < 0.5,
        incoming=chance.randrange(3),
        waiting=chance.randrange(chance.choice([2, 20, 300])),
        existing=existing,
        in_progress=in_progress,
        stale=chance.choice([0, chance.randrange(60)]),
        namespace_existing=existing + chance.randrange(4),
        namespace_in_progress=in_progress + chance.randrange(4),
        average_duration_ms=chance.choice([None, 0.0, 0.3, 7.0, 50.0, 100.0, 333.3, 1e4]),
        namespace_limit=chance.choice([-1, 5, 12, 18, 40, 100, 1_000]),
        action_limit=chance.choice([0, 5, 12, 18, 40, 100, 1_000]),
        concurrency=chance.choice([1, 1, 2, 4]),
    )


def test_original_decides_as_its_model() -> None:
    chance = random.Random(20191)
    verdicts: Counter[str] = Counter()
    for _ in range(INPUTS):
        snapshot = random_snapshot(chance)
        config = chance.choice([(100, False, 1.5), (100, True, 1.5), (250.5, True, 1.0)])
        decision = OpenWhiskRule(*config).decide(snapshot)
        found = (decision.verdict.name, decision.count, decision.drop)
        assert found == original(snapshot, *config)
        verdicts[decision.verdict.name] += 1
    assert len(verdicts) == 6
    assert min(verdicts.values()) > 1_000


def test_forcible_semaphores_count_as_their_model() -> None:
    chance = random.Random(1)
    for start in range(INPUTS // 50):
        real, plain = ForcibleSemaphore(start % 20), PlainForcible(start % 20)
        for _ in range(50):
            name = chance.choice(["try_acquire", "try_acquire", "force_acquire", "release"])
            n = chance.randint(1, 6)
            assert getattr(real, name)(n) == getattr(plain, name)(n)
            assert real.available_permits == plain.permits


def test_resizable_semaphores_count_as_their_model() -> None:
    chance = random.Random(2)
    for start in range(INPUTS // 50):
        arguments = (start % 20, 1 + start % 7)
        real, plain = ResizableSemaphore(*arguments), PlainResizable(*arguments)
        for _ in range(50):
            n = chance.randint(1, 6)
            if chance.random() < 0.5:
                assert real.try_acquire(n) is plain.try_acquire(n)
            else:
                complete = chance.random() < 0.6
                assert real.release(n, complete) == plain.release(n, complete)
            found = (real.available_permits, real.operation_count)
            assert found == (plain.permits, plain.operations)


def test_nested_semaphores_count_as_their_model() -> None:
    chance = random.Random(3)
    sizes = {"a": 2, "b": 3, "c": 5}
    for start in range(INPUTS // 50):
        real, plain = NestedSemaphore(start % 40), PlainNested(start % 40)
        for _ in range(50):
            key: Any = chance.choice(sorted(sizes))
            size, memory = sizes[key], 3 + sizes[key]
            force = chance.random() < 0.2
            if chance.random() < 0.45 and plain.active.get(key):
                real.release_concurrent(key, size, memory)
                plain.release(key, memory)
            elif force:
                real.force_acquire_concurrent(key, size, memory)
                plain.acquire(key, size, memory, True)
            else:
                got = real.try_acquire_concurrent(key, size, memory)
                assert got is plain.acquire(key, size, memory, False)
            assert real.available_permits == plain.memory
            assert real.concurrent_state == plain.state()
