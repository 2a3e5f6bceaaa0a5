"""Making the objects of the hot path, beside plain Python ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from acs_core.effects import Deliver, Run
from acs_core.events import Activation, Arrived, Completion, Pulled, RunEnded

COUNT = 1_000
ID = "0" * 32
WORK = Activation(ID, b"{}", 1)
ENDED = (Completion(ID, 0, 2_000, 0),)


@dataclass(slots=True)
class PlainPulled:
    """``Pulled`` as one would write it without a compiler."""

    container: str
    epoch: int
    free_slots: int
    started: tuple[str, ...] = ()
    completions: tuple[Completion, ...] = ()


MAKERS: dict[str, Callable[[], object]] = {
    "Activation": lambda: Activation(ID, b"{}", 1),
    "Arrived": lambda: Arrived("queue", WORK),
    "Completion": lambda: Completion(ID, 0, 2_000, 0),
    "Pulled": lambda: Pulled("container", 1, 1, (), ENDED),
    "Deliver": lambda: Deliver("container", "invoker", 1, WORK),
    "Run": lambda: Run("container", WORK, 0),
    "RunEnded": lambda: RunEnded("container", ID, 2_000, 0),
    "a plain slots class": lambda: PlainPulled("container", 1, 1, (), ENDED),
    "a tuple": lambda: ("container", 1, 1, (), ENDED[0]),
}


@pytest.mark.parametrize("name", MAKERS)
def test_make(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.group = f"{COUNT:,} objects made"
    make = MAKERS[name]

    def run() -> object:
        made = None
        for _ in range(COUNT):
            made = make()
        return made

    assert type(benchmark(run)) is type(make())
