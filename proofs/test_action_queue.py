"""Proof of ``acs_core.action_queue``: a list and a dictionary answer the same (Q1, Q2, B2)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from models import PlainIndex, PlainQueue

from acs_core.action_queue import ActionQueue, DeadlineIndex
from acs_core.events import Activation


class QueueMachine(RuleBasedStateMachine):
    """Whatever is offered, taken, put back and withdrawn: order and bound hold."""

    @initialize(capacity=st.integers(1, 40))
    def build(self, capacity: int) -> None:
        self.real, self.model = ActionQueue(capacity), PlainQueue(capacity)
        self.now = 0
        self.known: dict[str, Activation] = {}
        self.taken: list[Activation] = []

    @rule(count=st.integers(1, 12))
    def offer(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            activation = Activation(f"a{self.now}", b"", self.now)
            assert self.real.offer(activation) is self.model.offer(activation.activation_id)
            if activation.activation_id in self.model.names:
                self.known[activation.activation_id] = activation

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        for _ in range(count):
            activation = self.real.take()
            name = self.model.take()
            assert (activation and activation.activation_id) == name
            if activation is not None:
                self.taken.append(activation)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        activation = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        self.real.put_back(activation)
        self.model.put_back(activation.activation_id)

    @precondition(lambda self: self.model.names)
    @rule(data=st.data(), count=st.integers(1, 30))
    def withdraw(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.model.names))):
            name = data.draw(st.sampled_from(self.model.names))
            self.real.withdraw(self.known[name])
            self.model.withdraw(name)
            self.real.check()

    @rule(data=st.data())
    def count_older(self, data: st.DataObject) -> None:
        arrived_us = data.draw(st.integers(0, self.now + 1))
        ages = [self.known[name].arrived_us for name in self.model.names]
        younger = [age > arrived_us for age in ages]
        expected = younger.index(True) if True in younger else len(ages)
        assert self.real.older_than(arrived_us) == expected

    @invariant()
    def same(self) -> None:
        self.real.check()
        assert self.real.waiting == len(self.model.names)
        head = self.real.head()
        assert (head and head.activation_id) == (self.model.names[0] if self.model.names else None)

    def teardown(self) -> None:
        while self.model.names:
            activation = self.real.take()
            assert activation is not None
            assert activation.activation_id == self.model.take()
        assert self.real.take() is None


class IndexMachine(RuleBasedStateMachine):
    """At most one time a key; the one that is due longest first, by name among equals."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.model = DeadlineIndex(), PlainIndex()

    keys = st.sampled_from("abcdef")
    times = st.integers(0, 9) | st.integers(0, 2**62)

    @rule(key=keys, due_us=times)
    def set(self, key: str, due_us: int) -> None:
        self.real.set(key, due_us)
        self.model.times[key] = due_us

    @rule(key=keys)
    def discard(self, key: str) -> None:
        self.real.discard(key)
        self.model.times.pop(key, None)

    @rule(now_us=times)
    def pop_due(self, now_us: int) -> None:
        assert self.real.pop_due(now_us) == self.model.pop_due(now_us)

    @invariant()
    def same(self) -> None:
        self.real.check()
        assert self.real.next_us() == self.model.next_us()
        for key in "abcdef":
            assert self.real.time_of(key) == self.model.times.get(key, -1)


TestQueue = QueueMachine.TestCase
TestIndex = IndexMachine.TestCase
TestQueue.settings = TestIndex.settings = settings(stateful_step_count=40)
