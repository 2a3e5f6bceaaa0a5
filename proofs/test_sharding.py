"""Proofs of the baseline: the walk, the slots of a balancer, and the pool that is pushed to."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from models import at_least

from acs_core import events as ev
from acs_core.effects import (
    Initialise,
    PauseSandbox,
    Reject,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from acs_core.sharding import (
    Balancer,
    InvokerStatus,
    PushedAction,
    ShardedInvoker,
    generate_hash,
    pairwise_coprimes,
    partition,
)
from acs_core.sharding_pool import Processed, Push, PushPool, PushPoolConfig


@given(st.text(max_size=30), st.text(max_size=30))
def test_hash_is_that_of_polynomials(namespace: str, action: str) -> None:
    def polynomial(text: str) -> int:
        units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
        return sum(unit * 31**power for power, unit in enumerate(reversed(units))) & 0xFFFFFFFF

    mixed = polynomial(namespace) ^ polynomial(action)
    signed = mixed - 2**32 if mixed >= 2**31 else mixed
    assert generate_hash(namespace, action) == (abs(signed) if signed != -(2**31) else 0)


@given(st.integers(1, 300), st.data())
def test_every_walk_visits_every_invoker(count: int, data: st.DataObject) -> None:
    steps = pairwise_coprimes(count)
    assert steps[0] == 1
    assert all(math.gcd(a, b) == 1 for a in steps for b in steps if a < b)
    step = data.draw(st.sampled_from(steps))
    assert len({index * step % count for index in range(count)}) == count


@given(st.integers(0, 500), st.floats(-1, 2), st.floats(-1, 2))
def test_both_parts_are_there_and_cover_all(count: int, managed: float, blackbox: float) -> None:
    first, last = partition(count, managed, blackbox)
    assert min(count, 1) <= first <= count
    assert min(count, 1) <= last <= count
    # One may be nobody's: what is rounded up and what is rounded down leave none out.
    assert first + last >= count


class BalancerMachine(RuleBasedStateMachine):
    """R1: the slots of invokers are those of what is under way, and force is the last resort."""

    SHARD_MB = 1024

    def __init__(self) -> None:
        super().__init__()
        self.balancer = Balancer()
        self.up = [True] * 4
        self.now_us = 0
        self.entries: dict[str, tuple[int, PushedAction, int]] = {}
        self.serial = 0
        self.update()

    def update(self) -> None:
        self.balancer.shards.update_invokers(
            [
                ShardedInvoker(
                    number, InvokerStatus.UP if up else InvokerStatus.DOWN, self.SHARD_MB
                )
                for number, up in enumerate(self.up)
            ]
        )

    def free_mb(self, invoker: int) -> int:
        held = [action.memory_mb for each, action, _ in self.entries.values() if each == invoker]
        return self.SHARD_MB - sum(held)

    @rule(
        name=st.sampled_from("abc"),
        memory_mb=st.sampled_from([128, 256, 512]),
        timeout_s=st.sampled_from([1, 60, 100]),
        draw=st.integers(0, 99),
    )
    def publish(self, name: str, memory_mb: int, timeout_s: int, draw: int) -> None:
        self.serial += 1
        timeout_us = timeout_s * 1_000_000
        action = PushedAction("n", name, memory_mb=memory_mb, timeout_us=timeout_us)
        free = [self.free_mb(number) for number in range(4)]
        invoker = self.balancer.publish(str(self.serial), action, self.now_us, draw)
        up = [number for number in range(4) if self.up[number]]
        if not up:
            assert invoker is None
            return
        assert invoker is not None
        fitting = [number for number in up if free[number] >= memory_mb]
        if fitting:
            home = generate_hash("n", name)
            steps = pairwise_coprimes(4)
            step = steps[home % len(steps)]
            walk = [(home + step * index) % 4 for index in range(4)]
            assert invoker == next(number for number in walk if number in fitting)
        else:
            assert invoker == up[draw % len(up)]
        due_us = self.now_us + 2 * max(timeout_us, 60_000_000) + 60_000_000
        self.entries[str(self.serial)] = (invoker, action, due_us)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.entries)))
        self.balancer.complete(name)
        del self.entries[name]

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        self.now_us += seconds * 1_000_000
        overdue = {name for name, entry in self.entries.items() if entry[2] <= self.now_us}
        given_up = self.balancer.give_up(self.now_us)
        in_turn = sorted(overdue, key=lambda name: (self.entries[name][2], name))
        assert [name for name, _ in given_up] == in_turn
        for name, invoker in given_up:
            assert self.entries.pop(name)[0] == invoker

    @rule(number=st.integers(0, 3), up=st.booleans())
    def change(self, number: int, up: bool) -> None:
        self.up[number] = up
        self.update()

    @invariant()
    def slots_are_what_is_under_way(self) -> None:
        self.balancer.check()
        slots = self.balancer.shards.slots
        assert [each.available_permits for each in slots] == [self.free_mb(n) for n in range(4)]
        due_us = min([entry[2] for entry in self.entries.values()], default=None)
        assert self.balancer.next_deadline_us() == due_us


TestBalancer = BalancerMachine.TestCase


class PushPoolMachine(RuleBasedStateMachine):
    """R2, R3, R4: what is pushed starts at most once and ends, in turn, where there is room."""

    MEMORY_MB = 768

    def __init__(self) -> None:
        super().__init__()
        self.pool = PushPool(
            PushPoolConfig("i", self.MEMORY_MB, keep_alive_us=20_000_000, pause_grace_us=5_000_000)
        )
        self.now_us = 0
        self.serial = 0
        self.specs = {
            name: ev.QueueSpec(name, "n", name, 0, memory_mb=memory_mb, concurrency=concurrency)
            for name, memory_mb, concurrency in (("a", 256, 1), ("b", 256, 2), ("c", 512, 1))
        }
        self.queue_of: dict[str, str] = {}
        self.pushed: list[str] = []
        self.started: list[str] = []
        self.ended: set[str] = set()
        # By container: what its sandbox does, and what runs in it.
        self.sandboxes: dict[str, str] = {}
        self.runs: dict[str, set[str]] = {}
        self.first: dict[str, str] = {}
        self.removals: set[str] = set()

    def tell(self, event: ev.Event) -> None:
        for effect in self.pool.step(event, self.now_us):
            if isinstance(effect, StartSandbox):
                self.sandboxes[effect.container] = "starting"
                self.runs[effect.container] = set()
            elif isinstance(effect, Initialise):
                assert self.sandboxes[effect.container] == "up"
                assert effect.container not in self.first
                name = effect.activation.activation_id
                self.first[effect.container] = name
                self.runs[effect.container].add(name)
                self.begin(name)
            elif isinstance(effect, Run):
                assert self.sandboxes[effect.container] == "up"
                name = effect.activation.activation_id
                if name not in self.runs[effect.container]:
                    self.runs[effect.container].add(name)
                    self.begin(name)
                spec = self.specs[self.queue_of[name]]
                assert len(self.runs[effect.container]) <= spec.concurrency
            elif isinstance(effect, Reject):
                self.end(effect.activation.activation_id)
            elif isinstance(effect, PauseSandbox):
                assert not self.runs[effect.container]
                self.sandboxes[effect.container] = "pausing"
            elif isinstance(effect, ResumeSandbox):
                assert self.sandboxes[effect.container] == "asleep"
                self.sandboxes[effect.container] = "waking"
            elif isinstance(effect, Remove):
                assert not self.runs[effect.container]
                assert effect.container not in self.removals
                self.removals.add(effect.container)
                self.sandboxes[effect.container] = "going"
            else:
                assert isinstance(effect, Processed)
        self.pool.check()

    def begin(self, name: str) -> None:
        assert name not in self.started
        assert name not in self.ended
        self.started.append(name)

    def end(self, name: str) -> None:
        assert name not in self.ended
        self.ended.add(name)

    def containers(self, state: str) -> list[str]:
        return [name for name, each in self.sandboxes.items() if each == state]

    @rule(queue=st.sampled_from("abc"))
    def push(self, queue: str) -> None:
        self.serial += 1
        name = str(self.serial)
        self.pushed.append(name)
        self.queue_of[name] = queue
        waiting = self.pool.counts()["waiting"]
        before = list(self.started), dict(self.sandboxes)
        self.tell(Push(self.specs[queue], ev.Activation(name, b"", self.now_us)))
        if waiting:  # R3: the head blocks, whatever would fit
            assert self.pool.counts()["waiting"] == waiting + 1
            assert (self.started, self.sandboxes) == before

    @precondition(lambda self: self.containers("starting"))
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def started_or_not(self, data: st.DataObject, fails: bool) -> None:
        container = data.draw(st.sampled_from(self.containers("starting")))
        if fails:
            self.sandboxes[container] = "gone"
            self.tell(ev.SandboxFailed(container, 0, "busy"))
        else:
            self.sandboxes[container] = "up"
            self.tell(ev.SandboxReady(container))

    @precondition(lambda self: self.initialising())
    @rule(data=st.data())
    def initialised(self, data: st.DataObject) -> None:
        container = data.draw(st.sampled_from(self.initialising()))
        del self.first[container]
        self.first[container] = ""
        self.tell(ev.Initialised(container, 1))

    def initialising(self) -> list[str]:
        return [c for c, name in self.first.items() if name and name in self.runs.get(c, ())]

    def running(self) -> list[tuple[str, str]]:
        return sorted((c, name) for c, names in self.runs.items() for name in names)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), outcome=st.sampled_from([0, 0, 0, 1, 2]))
    def run_ends(self, data: st.DataObject, outcome: int) -> None:
        container, name = data.draw(st.sampled_from(self.running()))
        if self.first[container] == name:
            outcome = 2  # it has not been initialised
        self.finish(container, name, outcome)

    def finish(self, container: str, name: str, outcome: int) -> None:
        self.runs[container].discard(name)
        self.end(name)
        self.tell(ev.RunEnded(container, name, 1, outcome))

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        # Less than a time limit, and never beyond one: runs end by themselves here.
        for container, name in self.running():
            self.finish(container, name, 2 if self.first[container] == name else 0)
        self.now_us += seconds * 1_000_000
        due_us = self.pool.next_deadline_us()
        if due_us is not None and due_us <= self.now_us:
            self.tell(ev.TimeReached())

    @precondition(lambda self: self.containers("pausing") or self.containers("waking"))
    @rule(data=st.data(), breaks=st.sampled_from([False, False, True]))
    def paused_or_awake(self, data: st.DataObject, breaks: bool) -> None:
        both = self.containers("pausing") + self.containers("waking")
        container = data.draw(st.sampled_from(both))
        if breaks:
            self.tell(ev.SandboxBroke(container, "lost"))
        elif self.sandboxes[container] == "pausing":
            self.sandboxes[container] = "asleep"
            self.tell(ev.SandboxPaused(container))
        else:
            self.sandboxes[container] = "up"
            self.tell(ev.SandboxResumed(container))

    @precondition(lambda self: self.containers("going"))
    @rule(data=st.data())
    def removed(self, data: st.DataObject) -> None:
        container = data.draw(st.sampled_from(self.containers("going")))
        self.sandboxes[container] = "gone"
        self.tell(ev.SandboxRemoved(container))

    def teardown(self) -> None:
        """R4: in a kind world all that was pushed ends."""
        for _ in range(10 * len(self.pushed) + 100):
            for container in self.containers("starting"):
                self.sandboxes[container] = "up"
                self.tell(ev.SandboxReady(container))
            for container in self.initialising():
                self.first[container] = ""
                self.tell(ev.Initialised(container, 1))
            for container, name in self.running():
                if self.first[container] != name and name in self.runs[container]:
                    self.finish(container, name, 0)
            for container in self.containers("pausing"):
                self.sandboxes[container] = "asleep"
                self.tell(ev.SandboxPaused(container))
            for container in self.containers("waking"):
                self.sandboxes[container] = "up"
                self.tell(ev.SandboxResumed(container))
        assert self.ended == set(self.pushed)
        assert self.pool.counts()["waiting"] == 0


TestPushPool = PushPoolMachine.TestCase
TestPushPool.settings = settings(at_least(200), stateful_step_count=60)
