"""Proof of ``acs_core.containers`` beside ``models.PlainPool``, and from outside (C1-C12).

Reports of sandboxes and messages of schedulers come in any order, twice, or without cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from harness import describe
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from models import PlainPool, at_least

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import limits
from acs_core.containers import ContainerPool, ContainerState, PoolConfig
from acs_core.prewarm import Prewarm

SPECS = {
    "q1": ev.QueueSpec("q1", "n", "a", 0, memory_mb=100, timeout_us=70),
    "q3": ev.QueueSpec("q3", "n", "b", 0, memory_mb=150, concurrency=3, timeout_us=90),
}
MEMORY_MB = 400
KEEP_ALIVE_US = 100
GRACE_US = 40
NAMES = ["c1", "c2", "c3"]
names = st.sampled_from(NAMES)
epochs = st.integers(1, 3)


def line(effect: Any) -> str:
    """Return the effect without the words that are for people."""
    if isinstance(effect, fx.Run):
        return f"{describe(effect)} init {effect.init_us}"
    if isinstance(effect, fx.Abort):
        return f"abort {effect.activation_id}" + " drained" * effect.drained
    text = describe(effect)
    if isinstance(effect, (ev.ContainerLeaving, ev.ContainerGone, ev.CreationFailed, fx.Remove)):
        text, _, cause = text.partition(":")
        assert cause.strip()
    return text


class HostilePool(RuleBasedStateMachine):
    """One pool; its model; and what must hold of its effects whatever the model says."""

    @initialize(grace_us=st.sampled_from([0, GRACE_US, GRACE_US]))
    def build(self, grace_us: int) -> None:
        self.real = ContainerPool(PoolConfig("i1", MEMORY_MB, KEEP_ALIVE_US, grace_us))
        self.model = PlainPool(MEMORY_MB, KEEP_ALIVE_US, grace_us)
        self.now_us = 0
        self.serial = 0
        self.delivered: dict[str, str] = {}
        self.lives: dict[str, str] = {}
        # Seen from outside, by life of a container.
        self.memory: dict[str, int] = {}
        self.ready: set[str] = set()
        self.once: set[tuple[str, str]] = set()
        self.begun: set[str] = set()
        self.ran: set[str] = set()
        # Runs by container, containers that are asleep as far as anybody knows, and deliveries
        # that neither run nor came back.
        self.runs: dict[str, set[str]] = {}
        self.asleep: set[str] = set()
        self.waking: set[str] = set()
        self.owed: dict[str, str] = {}
        self.drained_us = 2**62

    def step(self, event: Any) -> None:
        if isinstance(event, fx.Deliver) and event.activation.activation_id not in self.begun:
            self.owed.setdefault(event.activation.activation_id, event.container)
        if isinstance(event, ev.RunEnded):
            self.runs.get(event.container, set()).discard(event.activation_id)
        if isinstance(event, ev.SandboxBroke):
            self.runs.pop(event.container, None)
        if isinstance(event, ev.DrainRequested) and event.limit_us:
            self.drained_us = min(self.drained_us, self.now_us + event.limit_us)
        effects = self.real.step(event, self.now_us)
        expected = self.model.step(event, self.now_us)
        assert [line(effect) for effect in effects] == expected
        if isinstance(event, ev.SandboxReady) and event.container in self.memory:
            self.ready.add(event.container)
        if isinstance(event, ev.SandboxBroke):
            self.ready.discard(event.container)
        if isinstance(event, ev.SandboxResumed) and event.container in self.waking:
            self.waking.remove(event.container)
            self.asleep.remove(event.container)
        for effect in effects:
            self.seen(effect)
        self.real.check()
        for name in self.owed.values():  # C8: what has not begun waits for a sandbox to wake
            assert name in self.asleep

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
            self.asleep.discard(name)
            self.waking.discard(name)
            self.runs.pop(name, None)
        elif isinstance(effect, ev.Returned):
            for activation_id in effect.activation_ids:
                assert activation_id not in self.begun  # C2, C8: unstarted
                self.owed.pop(activation_id, None)
        elif isinstance(effect, fx.PauseSandbox):
            assert (life, "init") in self.once  # C7
            assert not self.runs.get(name)
            assert name not in self.asleep
            self.asleep.add(name)
        elif isinstance(effect, fx.ResumeSandbox):
            assert name in self.asleep
            assert name not in self.waking
            self.waking.add(name)
        elif isinstance(effect, (fx.Initialise, fx.Run)):
            assert name in self.ready  # C3
            assert name not in self.asleep  # C8
            activation_id = effect.activation.activation_id
            self.owed.pop(activation_id, None)
            self.begun.add(activation_id)
            self.runs.setdefault(name, set()).add(activation_id)
            kind = "init" if isinstance(effect, fx.Initialise) else "run"
            if kind == "init":
                assert (life, kind) not in self.once
                self.once.add((life, kind))
            else:
                assert (life, "init") in self.once
                assert activation_id not in self.ran
                self.ran.add(activation_id)
        elif isinstance(effect, (fx.Abort, fx.Remove)):
            what = getattr(effect, "activation_id", "remove")
            if isinstance(effect, fx.Abort) and effect.drained:
                assert self.drained_us <= self.now_us  # C11: not before
            assert (life, what) not in self.once  # C4
            self.once.add((life, what))

    # --- schedulers --------------------------------------------------------------------------

    @rule(
        name=names,
        queue=st.sampled_from(sorted(SPECS)),
        epoch=epochs,
        ready=st.booleans(),
        keep=st.booleans(),
    )
    def create(self, name: str, queue: str, epoch: int, ready: bool, keep: bool) -> None:
        self.step(fx.Create(name, "i1", epoch, SPECS[queue], keep))
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
        stage=st.integers(1, 7),
        us=st.sampled_from([0, 60]),
        keep=st.booleans(),
    )
    def course_of_a_life(
        self, name: str, queue: str, stage: int, us: int, keep: bool = False
    ) -> None:
        """A good start, so that the rest is reached; from the middle on if there is one."""
        self.create(name, queue, 3, True, keep)
        if stage > 1:
            self.deliver(name, False)
        if stage > 2:
            self.now_us += us
            self.step(ev.Initialised(name, 5))
            self.now_us += us // 2
            self.tick()
        if stage > 3:
            self.run_ends(name, 0, 0)
        if stage > 4:
            self.now_us += GRACE_US
            self.tick()
        if stage > 5:
            self.step(ev.SandboxPaused(name))
        if stage > 6:
            self.step(fx.Resume(name, "i1", 9))

    @rule(
        name=names,
        queue=st.sampled_from(sorted(SPECS)),
        stage=st.integers(4, 7),
        deeds=st.lists(st.sampled_from(["deliver", "again", "adopt", "wait"]), max_size=4),
    )
    def deeds_around_a_sleep(self, name: str, queue: str, stage: int, deeds: list[str]) -> None:
        self.course_of_a_life(name, queue, stage, 0)
        for deed in deeds:
            if deed == "deliver":
                self.deliver(name, False)
            elif deed == "again":
                self.deliver_again(name)
            elif deed == "adopt":
                self.step(fx.Adopt(queue, 3))
            else:
                self.now_us += GRACE_US - 1
                self.tick()

    @rule(name=names, outcome=st.sampled_from(ev.Outcome))
    def run_of_one(self, name: str, outcome: int) -> None:
        self.deliver(name, False)
        self.run_ends(name, outcome, -1)

    @rule(name=names)
    def deliver_again(self, name: str) -> None:
        container = self.model.containers.get(name)
        there = [*container.running, *container.kept] if container is not None else []
        for running in there:
            self.step(fx.Deliver(name, "i1", 9, ev.Activation(running, b"", 0)))

    @rule(name=names, epoch=epochs)
    def resume(self, name: str, epoch: int) -> None:
        self.step(fx.Resume(name, "i1", epoch))

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
    def paused_report(self, name: str) -> None:
        self.step(ev.SandboxPaused(name))

    @rule(name=names)
    def resumed_report(self, name: str) -> None:
        self.step(ev.SandboxResumed(name))

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

    @rule(us=st.sampled_from([1, 30, GRACE_US, 60, 100, 500]), tick=st.booleans())
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

    @rule(chance=st.integers(0, 9), limit_us=st.sampled_from([0, 20, 60]))
    def drain(self, chance: int, limit_us: int) -> None:
        if chance == 0:
            self.step(ev.DrainRequested(limit_us))

    @rule(chance=st.integers(0, 9), name=names, stage=st.integers(2, 3))
    def drain_during_a_run(self, chance: int, name: str, stage: int) -> None:
        if chance == 0:
            self.course_of_a_life(name, "q3", stage, 0)
            self.step(ev.DrainRequested(20))
            self.step(ev.Initialised(name, 5))
            self.now_us += 20
            self.tick()

    @rule(kind=st.integers(0, 3))
    def misuse(self, kind: int) -> None:
        wrong: list[tuple[Any, int, type[Exception]]] = [
            (ev.TimeReached(), self.now_us - 1, ValueError),
            (ev.Denied("q1", 1, "why"), self.now_us, TypeError),
            (None, self.now_us, TypeError),
            (ev.DrainRequested(-1), self.now_us, ValueError),
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
        """C6: drained, and answered by its node, a pool is empty.  C11: within the limit."""
        if not hasattr(self, "real"):
            return
        self.step(ev.DrainRequested(30))
        assert not self.owed
        self.now_us += 30
        self.tick()
        for container in self.model.containers.values():  # given up, all that runs
            assert not [us for us in container.running.values() if us is not None]
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
TestHostilePool.settings = at_least(300)


FIXED = Prewarm("k", 100, count=2)
GROWING = Prewarm("k", 150, count=1, expiry_us=1_200_000, count_max=3, threshold=2, increment=1)
CHECK_US = 1_000_000
KINDS = [("k", 100), ("k", 150), ("k", 300), ("x", 100)]


@dataclass
class Sandbox:
    """A sandbox as it really is; ``container`` is what it serves as, "" while it is nobody's."""

    kind: str
    memory_mb: int
    started_us: int
    container: str = ""
    up: bool = False
    going: bool = False
    removed: bool = False


class HostilePrewarm(RuleBasedStateMachine):
    """A pool that prewarms, seen from outside: its sandboxes, their memory and their numbers."""

    @initialize()
    def build(self) -> None:
        config = PoolConfig("i1", 500, 600_000, 300_000, (FIXED, GROWING), CHECK_US)
        self.pool = ContainerPool(config)
        self.now_us = 0
        self.serial = 0
        self.sandboxes: dict[str, Sandbox] = {}
        self.waiting: list[str] = []
        self.memory: dict[str, int] = {}
        self.wanted = {FIXED: 2, GROWING: 1}
        self.cold = {FIXED: 0, GROWING: 0}
        # Not started again before; whether something has come in between since.
        self.not_before = {FIXED: 0, GROWING: 0}
        self.failures = {FIXED: 0, GROWING: 0}
        self.trouble = {FIXED: False, GROWING: False}
        self.next_check_us = -1
        self.draining = False

    def config_of(self, kind: str, memory_mb: int) -> Prewarm | None:
        for config in (FIXED, GROWING):
            if (config.kind, config.memory_mb) == (kind, memory_mb):
                return config
        return None

    def ready(self, kind: str, memory_mb: int) -> list[str]:
        """Return what stands ready for a container, the oldest first."""
        found = []
        for name, s in self.sandboxes.items():
            if (s.kind, s.memory_mb) == (kind, memory_mb) and s.up and not s.going:
                found += [name] if not s.container else []
        return found

    def alive(self, config: Prewarm) -> int:
        wanted = (config.kind, config.memory_mb)
        there = [s for s in self.sandboxes.values() if not (s.container or s.going)]
        return sum([(s.kind, s.memory_mb) == wanted for s in there])

    def step(self, event: Any) -> list[Any]:
        effects = self.pool.step(event, self.now_us)
        self.pool.check()
        for effect in effects:
            self.seen(effect)
        assert sum([s.memory_mb for s in self.sandboxes.values()]) <= 500  # C1
        assert self.pool.used_mb() == sum([s.memory_mb for s in self.sandboxes.values()])
        going = [s for s in self.sandboxes.values() if s.going and not s.container]
        assert all(s.removed == s.up for s in going)  # C10: these, as soon as they can
        assert going or not self.waiting  # C10: somebody makes way for it
        return effects

    def seen(self, effect: Any) -> None:
        if isinstance(effect, fx.PrewarmSandbox):
            config = self.config_of(effect.kind, effect.memory_mb)
            assert config is not None
            assert effect.container not in self.sandboxes
            assert not self.draining
            assert self.alive(config) < self.wanted[config]  # C9
            assert self.now_us >= self.not_before[config]  # C9: backed off
            sandbox = Sandbox(effect.kind, effect.memory_mb, self.now_us)
            self.sandboxes[effect.container] = sandbox
        elif isinstance(effect, fx.StartSandbox):
            name, spec = effect.container, effect.spec
            if name in self.waiting:
                assert self.waiting.pop(0) == name  # C10: in their order
            sandbox = Sandbox(spec.kind, spec.memory_mb, self.now_us, name)
            self.sandboxes[name] = sandbox
        elif isinstance(effect, fx.AssignSandbox):
            spec = effect.spec
            assert effect.sandbox == self.ready(spec.kind, spec.memory_mb)[0]  # C9
            sandbox = self.sandboxes.pop(effect.sandbox)
            sandbox.container = effect.container
            sandbox.up = False  # as long as the node has not said so of this container
            self.sandboxes[effect.container] = sandbox
        elif isinstance(effect, fx.Remove):
            sandbox = self.sandboxes[effect.container]
            if not sandbox.container and effect.cause == "nobody took it":
                assert sandbox.memory_mb == GROWING.memory_mb  # C9: those alone expire
                assert self.now_us >= sandbox.started_us + GROWING.expiry_us
            if not sandbox.container and effect.cause == "its memory is needed":
                assert sandbox.going  # C10: no more than are needed
            assert sandbox.up
            sandbox.going = sandbox.removed = True
        elif isinstance(effect, ev.ContainerGone):
            self.memory.pop(effect.container)
        elif isinstance(effect, ev.CreationFailed):
            self.memory.pop(effect.container, None)
            if effect.container in self.waiting:
                self.waiting.remove(effect.container)

    @rule(kind=st.sampled_from(KINDS), count=st.integers(1, 3))
    def create(self, kind: tuple[str, int], count: int) -> None:
        for _ in range(count):
            self.create_one(*kind)

    def create_one(self, kind: str, memory_mb: int) -> None:
        self.serial += 1
        name = f"c{self.serial}"
        spec = ev.QueueSpec("q", "n", "a", 0, memory_mb=memory_mb, kind=kind, timeout_us=100_000)
        fits = sum(self.memory.values()) + memory_mb <= 500 and not self.draining
        config = self.config_of(kind, memory_mb)
        stands_ready = bool(self.ready(kind, memory_mb))
        free_mb = 500 - sum([s.memory_mb for s in self.sandboxes.values()])
        free_mb -= sum([self.memory[c] for c in self.waiting])
        if fits:
            self.memory[name] = memory_mb
            if config is not None and stands_ready:
                self.failures[config] = 0
                self.not_before[config] = self.now_us
            elif config is not None:
                self.cold[config] += 1
            if not stands_ready and memory_mb > free_mb:
                self.waiting.append(name)
                # Those that are starting go when they are up: they are not alive any more.
                self.mark_unwanted(memory_mb - free_mb)
        effects = self.step(fx.Create(name, "i1", 1, spec))
        assert fits != any(isinstance(e, ev.CreationFailed) for e in effects)  # C10
        begun = (fx.AssignSandbox, fx.StartSandbox)
        started = [e for e in effects if isinstance(e, begun)]
        assert len(started) == (fits and name not in self.waiting)
        assert [isinstance(e, fx.AssignSandbox) for e in started] == [stands_ready] * len(started)
        if config is not None and stands_ready and self.alive(config) < self.wanted[config]:
            # C9: what was taken is replaced in the same step, or does not fit and waits.
            free_mb = 500 - self.pool.used_mb() - sum([self.memory[c] for c in self.waiting])
            assert free_mb < config.memory_mb
            self.trouble[config] = True

    def mark_unwanted(self, missing_mb: int) -> None:
        """C10: so many make way as are needed, those that are up first, the oldest first."""
        nobodys = [s for s in self.sandboxes.values() if not s.container]
        missing_mb -= sum([s.memory_mb for s in nobodys if s.going])
        for up in (True, False):
            for sandbox in nobodys:
                if missing_mb > 0 and sandbox.up is up and not sandbox.going:
                    sandbox.going = True
                    missing_mb -= sandbox.memory_mb
                    config = self.config_of(sandbox.kind, sandbox.memory_mb)
                    assert config is not None
                    self.trouble[config] = True

    @rule(data=st.data(), report=st.integers(0, 5), again=st.booleans())
    def report(self, data: st.DataObject, report: int, again: bool) -> None:
        """The node reports; sometimes twice, or of sandboxes that are gone."""
        name = data.draw(st.sampled_from([*self.sandboxes, *self.waiting, "i1-prewarm-1"]))
        for _ in range(1 + again):
            self.report_of(name, report)

    def report_of(self, name: str, report: int) -> None:
        sandbox = self.sandboxes.get(name)
        config = None
        if sandbox is not None and not sandbox.container:
            config = self.config_of(sandbox.kind, sandbox.memory_mb)
        if report <= 1:
            if sandbox is not None:
                sandbox.up = True
            self.step(ev.SandboxReady(name))
        elif report == 2:
            if sandbox is not None and not sandbox.up:
                del self.sandboxes[name]
                self.fails(config)
            self.step(ev.SandboxFailed(name, 0, "no"))
        elif report == 3:
            if sandbox is not None and not sandbox.going:
                self.fails(config)
                sandbox.going = sandbox.going or config is not None
            self.step(ev.SandboxBroke(name, "it exited"))
        else:
            if sandbox is not None:
                del self.sandboxes[name]
                if not sandbox.going:
                    self.fails(config)
            self.step(ev.SandboxRemoved(name))

    def fails(self, config: Prewarm | None) -> None:
        if config is not None and not self.draining and self.wanted[config]:
            wait_us = min(100_000 * 2 ** self.failures[config], limits.RETRY_MAX_US)
            self.failures[config] += 1
            self.not_before[config] = self.now_us + wait_us
            self.trouble[config] = True

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.memory:
            name = data.draw(st.sampled_from(sorted(self.memory)))
            self.step(fx.Release(name, "i1", 1, "room"))

    @rule(us=st.sampled_from([1, 50_000, 250_000, 1_000_000, 12_000_000]))
    def time_passes(self, us: int) -> None:
        self.now_us += us
        self.tick()

    @rule()
    def next_deadline(self) -> None:
        due_us = self.pool.next_deadline_us()
        assert due_us is not None or self.draining
        self.now_us = max(self.now_us, due_us or 0)
        self.tick()

    def tick(self) -> None:
        if self.next_check_us <= self.now_us and not self.draining:
            if self.next_check_us >= 0:
                grown = self.cold[GROWING] // 2
                self.wanted[GROWING] = min(max(0, grown), 3)
                for config in (FIXED, GROWING):
                    self.cold[config] = self.failures[config] = 0
                    self.not_before[config] = self.now_us
                    self.trouble[config] = False
            self.next_check_us = self.now_us + CHECK_US
        effects = self.step(ev.TimeReached())
        free_mb = 500 - self.pool.used_mb() - sum([self.memory[c] for c in self.waiting])
        for config in () if self.draining else (FIXED, GROWING):
            if free_mb < config.memory_mb:
                self.trouble[config] = True
            elif not self.trouble[config]:
                assert self.alive(config) >= self.wanted[config]  # C9: nobody is missing
        due_us = self.pool.next_deadline_us()
        assert due_us is None or due_us > self.now_us, effects

    @rule()
    def a_kind_while(self) -> None:
        for name, sandbox in list(self.sandboxes.items()):
            if not sandbox.up:
                self.report_of(name, 0)
            if self.sandboxes[name].going:
                self.report_of(name, 4)

    @rule(chance=st.integers(0, 19))
    def drain(self, chance: int) -> None:
        if chance == 0:
            self.drained()

    def drained(self) -> None:
        self.draining = True
        for sandbox in self.sandboxes.values():
            sandbox.going = sandbox.going or not sandbox.container
        self.step(ev.DrainRequested())

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.drained()
        for _ in range(2):
            for name, sandbox in list(self.sandboxes.items()):
                if not sandbox.up:
                    self.report_of(name, 0)
                self.report_of(name, 4)
        assert self.pool.used_mb() == 0
        assert self.pool.next_deadline_us() is None


TestHostilePrewarm = HostilePrewarm.TestCase
TestHostilePrewarm.settings = at_least(300)
