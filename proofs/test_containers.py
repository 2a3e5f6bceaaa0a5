"""Proof of ``acs_core.containers`` beside ``models.PlainPool``, and from outside (C1-C6).

Reports of sandboxes and messages of schedulers come in any order, twice, or without cause.
"""

from __future__ import annotations

from typing import Any

import pytest
from harness import describe
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from models import PlainPool, at_least

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.containers import ContainerPool, ContainerState, PoolConfig

SPECS = {
    "q1": ev.QueueSpec("q1", "n", "a", 0, memory_mb=100, timeout_us=70),
    "q3": ev.QueueSpec("q3", "n", "b", 0, memory_mb=150, concurrency=3, timeout_us=90),
}
MEMORY_MB = 400
KEEP_ALIVE_US = 100
NAMES = ["c1", "c2", "c3"]
names = st.sampled_from(NAMES)
epochs = st.integers(1, 3)


def line(effect: Any) -> str:
    """Return the effect without the words that are for people."""
    if isinstance(effect, fx.Run):
        return f"{describe(effect)} init {effect.init_us}"
    if isinstance(effect, fx.Abort):
        return f"abort {effect.activation_id}"
    text = describe(effect)
    if isinstance(effect, (ev.ContainerLeaving, ev.ContainerGone, ev.CreationFailed, fx.Remove)):
        text, _, cause = text.partition(":")
        assert cause.strip()
    return text


class HostilePool(RuleBasedStateMachine):
    """One pool; its model; and what must hold of its effects whatever the model says."""

    @initialize()
    def build(self) -> None:
        self.real = ContainerPool(PoolConfig("i1", MEMORY_MB, KEEP_ALIVE_US))
        self.model = PlainPool(MEMORY_MB, KEEP_ALIVE_US)
        self.now_us = 0
        self.serial = 0
        self.delivered: dict[str, str] = {}
        self.lives: dict[str, str] = {}
        # Seen from outside, by life of a container.
        self.memory: dict[str, int] = {}
        self.ready: set[str] = set()
        self.once: set[tuple[str, str]] = set()
        self.ran: set[str] = set()
        self.limits: dict[str, int] = {}

    def step(self, event: Any) -> None:
        effects = self.real.step(event, self.now_us)
        expected = self.model.step(event, self.now_us)
        assert [line(effect) for effect in effects] == expected
        if isinstance(event, ev.SandboxReady) and event.container in self.memory:
            self.ready.add(event.container)
        if isinstance(event, ev.SandboxBroke):
            self.ready.discard(event.container)
        for effect in effects:
            self.seen(effect)
        self.real.check()

    def seen(self, effect: Any) -> None:
        name = getattr(effect, "container", "")
        life = self.lives.get(name, name)
        if isinstance(effect, fx.StartSandbox):
            self.serial += 1
            self.lives[name] = life = f"{name}#{self.serial}"
            assert name not in self.memory
            self.memory[name] = effect.spec.memory_mb
            assert sum(self.memory.values()) <= MEMORY_MB  # C1
        elif isinstance(effect, (ev.ContainerGone, ev.CreationFailed)):
            self.memory.pop(name, None)
            self.ready.discard(name)
        elif isinstance(effect, (fx.Initialise, fx.Run)):
            assert name in self.ready  # C3
            activation_id = effect.activation.activation_id
            kind = "init" if isinstance(effect, fx.Initialise) else "run"
            if kind == "init":
                assert (life, kind) not in self.once
                self.once.add((life, kind))
                self.limits[activation_id] = self.now_us
            else:
                assert (life, "init") in self.once
                assert activation_id not in self.ran
                self.ran.add(activation_id)
        elif isinstance(effect, (fx.Abort, fx.Remove)):
            what = getattr(effect, "activation_id", "remove")
            assert (life, what) not in self.once  # C4
            self.once.add((life, what))

    # --- schedulers --------------------------------------------------------------------------

    @rule(name=names, queue=st.sampled_from(sorted(SPECS)), epoch=epochs, ready=st.booleans())
    def create(self, name: str, queue: str, epoch: int, ready: bool) -> None:
        self.step(fx.Create(name, "i1", epoch, SPECS[queue]))
        if ready:
            self.step(ev.SandboxReady(name))

    @rule(name=names, late=st.booleans())
    def deliver(self, name: str, late: bool) -> None:
        self.serial += 1
        container = self.model.containers.get(name)
        epoch = (container.epoch if container is not None else 1) - late
        activation = ev.Activation(f"a{self.serial}", b"", self.now_us)
        self.step(fx.Deliver(name, "i1", epoch, activation))

    @rule(name=names, count=st.integers(1, 4))
    def deliver_and_initialise(self, name: str, count: int) -> None:
        self.deliver(name, False)
        self.step(ev.Initialised(name, 5))
        for _ in range(count - 1):
            self.deliver(name, False)

    @rule(
        name=names,
        queue=st.sampled_from(sorted(SPECS)),
        stage=st.integers(1, 4),
        us=st.sampled_from([0, 60]),
    )
    def course_of_a_life(self, name: str, queue: str, stage: int, us: int) -> None:
        """A good start, so that the rest is reached; from the middle on if there is one."""
        self.create(name, queue, 3, True)
        if stage > 1:
            self.deliver(name, False)
        if stage > 2:
            self.now_us += us
            self.step(ev.Initialised(name, 5))
            self.now_us += us // 2
            self.tick()
        if stage > 3:
            self.run_ends(name, 0, 0)

    @rule(name=names, outcome=st.sampled_from(ev.Outcome))
    def run_of_one(self, name: str, outcome: int) -> None:
        self.deliver(name, False)
        self.run_ends(name, outcome, -1)

    @rule(name=names)
    def deliver_again(self, name: str) -> None:
        container = self.model.containers.get(name)
        for running in list(container.running if container is not None else ()):
            self.step(fx.Deliver(name, "i1", 9, ev.Activation(running, b"", 0)))

    @rule(name=names, epoch=epochs)
    def release(self, name: str, epoch: int) -> None:
        self.step(fx.Release(name, "i1", epoch, "room is needed"))

    @rule(queue=st.sampled_from(sorted(SPECS)), epoch=epochs)
    def adopt(self, queue: str, epoch: int) -> None:
        self.step(fx.Adopt(queue, epoch))

    # --- sandboxes ---------------------------------------------------------------------------

    @rule(name=names)
    def ready_report(self, name: str) -> None:
        self.step(ev.SandboxReady(name))

    @rule(name=names, failure=st.sampled_from(ev.FailureClass))
    def failed_report(self, name: str, failure: int) -> None:
        self.step(ev.SandboxFailed(name, failure, "no"))

    @rule(name=names)
    def broke_report(self, name: str) -> None:
        self.step(ev.SandboxBroke(name, "it exited"))

    @rule(name=names)
    def removed_report(self, name: str) -> None:
        self.step(ev.SandboxRemoved(name))

    @rule(name=names)
    def initialised_report(self, name: str) -> None:
        self.step(ev.Initialised(name, 5))

    @rule(name=names, outcome=st.sampled_from([0, 0, 0, 1, 2, 3]), index=st.integers(0, 3))
    def run_ends(self, name: str, outcome: int, index: int) -> None:
        container = self.model.containers.get(name)
        running = list(container.running) if container is not None else []
        activation_id = running[index % len(running)] if running else "nobody"
        self.step(ev.RunEnded(name, activation_id, 10, outcome))

    # --- time, drain, misuse -----------------------------------------------------------------

    @rule(us=st.sampled_from([1, 30, 60, 100, 500]), tick=st.booleans())
    def time_passes(self, us: int, tick: bool) -> None:
        self.now_us += us
        if tick:
            self.tick()

    @rule()
    def next_deadline(self) -> None:
        due_us = self.real.next_deadline_us()
        if due_us is not None:
            self.now_us = max(self.now_us, due_us)
            self.tick()

    def tick(self) -> None:
        self.step(ev.TimeReached())
        due_us = self.real.next_deadline_us()
        assert due_us is None or due_us > self.now_us

    @rule(chance=st.integers(0, 9))
    def drain(self, chance: int) -> None:
        if chance == 0:
            self.step(ev.DrainRequested())

    @rule(kind=st.integers(0, 2))
    def misuse(self, kind: int) -> None:
        wrong: list[tuple[Any, int, type[Exception]]] = [
            (ev.TimeReached(), self.now_us - 1, ValueError),
            (ev.Denied("q1", "why"), self.now_us, TypeError),
            (None, self.now_us, TypeError),
        ]
        event, now_us, error = wrong[kind]
        before = (self.real.counts(), self.real.used_mb(), self.real.next_deadline_us())
        if now_us < self.now_us:
            self.step(ev.SandboxReady("nobody"))  # makes the pool's time this time
        with pytest.raises(error):
            self.real.step(event, now_us)
        assert (self.real.counts(), self.real.used_mb(), self.real.next_deadline_us()) == before

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "real"):
            return
        assert self.real.used_mb() == self.model.used_mb() == sum(self.memory.values())  # C1
        due_us, wanted_us = self.real.next_deadline_us(), self.model.next_deadline_us()
        if wanted_us is not None:  # asked for too early it costs a look, too late it is a fault
            assert due_us is not None
            assert due_us <= wanted_us
        counts = self.real.counts()
        assert counts["idle"] == sum([c.idle for c in self.model.containers.values()])
        assert counts["starting"] == sum(
            [not c.up and not c.leaving for c in self.model.containers.values()]
        )
        assert sum([counts[state.name.lower()] for state in ContainerState]) == len(self.memory)

    def teardown(self) -> None:
        """C6: drained, and answered by its node, a pool is empty."""
        if not hasattr(self, "real"):
            return
        self.step(ev.DrainRequested())
        for _ in range(3):
            for name, container in list(self.model.containers.items()):
                self.step(ev.SandboxReady(name))
                for activation_id in list(container.running):
                    self.step(ev.RunEnded(name, activation_id, 1, 0))
                if container.removing:
                    self.step(ev.SandboxRemoved(name))
        assert self.real.used_mb() == 0
        while self.real.next_deadline_us() is not None:
            self.next_deadline()


TestHostilePool = HostilePool.TestCase
TestHostilePool.settings = at_least(500)
