"""F3: with more queues that have work than containers, every queue's turn comes within the bound.

ceil(n/k) * (quantum + longest run) + n / (swap rate of the engines), as the design states it, with
``quantum`` = max(C, k / (0.5 * swap rate)), no more than lets a turn fit the wait bound.  Beside it
a hand-over takes what nobody's schedule can leave out: the removal of one sandbox and the look that
sees the place (the bound's second term pays for the creation).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from harness import SchedulerPair, Times
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.scheduler import SchedulerConfig

MEMORY_MB = 100
REMOVE_US = 50_000
USERS = 3
TURN_US = 20_000


@dataclass(frozen=True)
class World:
    """So many queues that always have work, and room for fewer containers."""

    queues: int
    containers: int
    run_us: int
    creation_us: int
    wait_max_us: int
    namespaces: int
    by_cap: bool

    def quantum_us(self) -> int:
        swap_us = self.creation_us  # one engine, whose rate nobody has reported: one by one
        rounds = 1 + self.queues // self.containers
        wanted_us = max(self.creation_us, 2 * self.containers * swap_us)
        return min(wanted_us, self.wait_max_us // (2 * rounds))

    def bound_us(self) -> int:
        rounds = ceil(self.queues / self.containers)
        hand_over_us = REMOVE_US + self.config().decision_interval_us
        turn_us = self.quantum_us() + self.run_us + hand_over_us
        return rounds * turn_us + self.queues * self.creation_us

    def config(self) -> SchedulerConfig:
        return SchedulerConfig(
            name="c",
            wait_max_us=self.wait_max_us,
            namespace_containers_max=self.containers if self.by_cap else 1_000,
            namespace_reserve=0,
        )


@st.composite
def worlds(draw) -> World:
    containers = draw(st.integers(1, 3))
    by_cap = draw(st.booleans())
    return World(
        queues=draw(st.integers(containers + 1, 7)),
        containers=containers,
        run_us=draw(st.integers(60_000, 600_000)),
        creation_us=draw(st.integers(50_000, 400_000)),
        wait_max_us=draw(st.sampled_from([40_000_000, 600_000_000])),
        namespaces=1 if by_cap else draw(st.integers(1, 2)),
        by_cap=by_cap,
    )


class Busy:
    """A pair in which every queue has work at all times; notes the longest pause of each."""

    def __init__(self, world: World) -> None:
        times = Times(creation_us=world.creation_us, run_us=world.run_us, remove_us=REMOVE_US)
        memory_mb = MEMORY_MB * (100 if world.by_cap else world.containers)
        self.pair = SchedulerPair({"i": memory_mb}, config=world.config(), times=times)
        self.pair.watch = self._saw
        self.last_us: dict[str, int] = {}
        self.longest_us: dict[str, int] = {}
        self.owed: dict[str, int] = {}
        self._serial = 0
        for number in range(world.queues):
            name = f"q{number}"
            namespace = f"n{number % world.namespaces}"
            self.pair.open(ev.QueueSpec(name, namespace, name, 1, memory_mb=MEMORY_MB))
            self.last_us[name] = self.pair.now_us
            self.longest_us[name] = 0
            self.owed[name] = USERS

    def run(self, us: int) -> None:
        until_us = self.pair.now_us + us
        while self.pair.now_us < until_us:
            for queue, count in self.owed.items():
                for _ in range(count):
                    self._serial += 1
                    self.pair.arrive(queue, f"{queue}-{self._serial}")
                self.owed[queue] = 0
            self.pair.advance(TURN_US)
        for queue in self.last_us:
            self._note(queue)

    def _note(self, queue: str) -> None:
        pause_us = self.pair.now_us - self.last_us[queue]
        self.longest_us[queue] = max(self.longest_us[queue], pause_us)
        self.last_us[queue] = self.pair.now_us

    def _saw(self, event: ev.Event, now_us: int, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Deliver):
                self._note(effect.activation.queue)
                self.owed[effect.activation.queue] += 1


@settings(max_examples=max(30, settings().max_examples // 10))  # each is a long simulation
@given(worlds())
def test_every_turn_comes_within_the_bound(world: World) -> None:
    busy = Busy(world)
    busy.run(3 * world.bound_us())
    assert not busy.pair.rejected
    assert max(busy.longest_us.values()) <= world.bound_us(), busy.longest_us
