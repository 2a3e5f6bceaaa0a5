"""Proofs of ``acs_core.semaphores``: state machines beside plain models (P1-P4)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from models import at_least
from models_semaphores import PlainForcible, PlainNested, PlainResizable

from acs_core.semaphores import ForcibleSemaphore, NestedSemaphore, ResizableSemaphore

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)
SETTINGS = settings(at_least(150), stateful_step_count=40)

wrong_counts = st.sampled_from([0, -1, INT32_MIN, INT32_MAX + 1, INT32_MIN - 1, 1.0, True])
counts = st.integers(1, 9)
# Far from the ends, where every operation fits, and right at them, where it may not.
starts = st.integers(0, 20) | st.sampled_from([INT32_MAX, INT32_MAX - 5, INT32_MIN, INT32_MIN + 5])
REFUSED = (ValueError, TypeError, OverflowError)


class ForcibleMachine(RuleBasedStateMachine):
    """permits = allowed - acquired - forced + released, within int32 or refused."""

    @initialize(permits=starts)
    def build(self, permits: int) -> None:
        self.real, self.model = ForcibleSemaphore(permits), PlainForcible(permits)

    @rule(n=counts)
    def try_acquire(self, n: int) -> None:
        assert self.real.try_acquire(n) is self.model.try_acquire(n)

    @rule(n=counts)
    def force_acquire(self, n: int) -> None:
        if self.model.permits - n < INT32_MIN:
            with pytest.raises(OverflowError):
                self.real.force_acquire(n)
        else:
            self.real.force_acquire(n)
            self.model.force_acquire(n)

    @rule(n=counts)
    def release(self, n: int) -> None:
        if self.model.permits + n > INT32_MAX:
            with pytest.raises(OverflowError):
                self.real.release(n)
        else:
            self.real.release(n)
            self.model.release(n)

    @rule(n=wrong_counts)
    def misuse(self, n: int) -> None:
        for call in (self.real.try_acquire, self.real.force_acquire, self.real.release):
            with pytest.raises(REFUSED):
                call(n)

    @invariant()
    def same(self) -> None:
        assert self.real.available_permits == self.model.permits


class ResizableMachine(RuleBasedStateMachine):
    """Multiples of the size go away; operations are counted once a call."""

    @initialize(permits=st.integers(-9, 20), size=st.integers(1, 7))
    def build(self, permits: int, size: int) -> None:
        self.real, self.model = ResizableSemaphore(permits, size), PlainResizable(permits, size)

    @rule(n=counts)
    def try_acquire(self, n: int) -> None:
        assert self.real.try_acquire(n) is self.model.try_acquire(n)

    @rule(n=counts, complete=st.booleans())
    def release(self, n: int, complete: bool) -> None:
        assert self.real.release(n, complete) == self.model.release(n, complete)

    @rule(n=wrong_counts)
    def misuse(self, n: int) -> None:
        for call in (self.real.try_acquire, self.real.release):
            with pytest.raises(REFUSED):
                call(n)

    @invariant()
    def same(self) -> None:
        found = (self.real.available_permits, self.real.operation_count)
        assert found == (self.model.permits, self.model.operations)


SIZES = {"a": 2, "b": 3, "c": 5}


class NestedMachine(RuleBasedStateMachine):
    """containers * size = active + free for every key, and memory counts the containers."""

    @initialize(memory=st.integers(-3, 20) | st.just(INT32_MAX) | st.just(INT32_MIN + 4))
    def build(self, memory: int) -> None:
        self.allowed = memory
        self.real, self.model = NestedSemaphore(memory), PlainNested(memory)
        self.plain: list[int] = []

    @rule(key=st.sampled_from(sorted(SIZES)), force=st.booleans())
    def acquire(self, key: str, force: bool) -> None:
        memory = len(SIZES) + SIZES[key]
        full = self.model.state().get(key, (0, 0))[0] == 0
        if force and full and self.model.memory - memory < INT32_MIN:
            with pytest.raises(OverflowError):
                self.real.force_acquire_concurrent(key, SIZES[key], memory)
            return
        expected = self.model.acquire(key, SIZES[key], memory, force)
        if force:
            self.real.force_acquire_concurrent(key, SIZES[key], memory)
        else:
            assert self.real.try_acquire_concurrent(key, SIZES[key], memory) is expected

    @precondition(lambda self: any(self.model.active.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([k for k, n in sorted(self.model.active.items()) if n]))
        memory = len(SIZES) + SIZES[key]
        free, active = self.model.state()[key]
        ends_one = (free + 1) % SIZES[key] == 0
        if ends_one and self.model.memory + memory > INT32_MAX:
            # P4: the memory does not fit, so the run has not ended either.
            with pytest.raises(OverflowError):
                self.real.release_concurrent(key, SIZES[key], memory)
            assert self.real.concurrent_state[key] == (free, active)
            return
        self.real.release_concurrent(key, SIZES[key], memory)
        self.model.release(key, memory)

    @precondition(lambda self: self.model.memory < INT32_MAX)
    @rule(close=st.booleans(), count=counts)
    def give(self, close: bool, count: int) -> None:
        """Memory from elsewhere: a little, or so much that what is held may not come back."""
        room = min(INT32_MAX, INT32_MAX - self.model.memory)
        count = max(1, room - count) if close else min(count, room)
        self.real.release(count)
        self.model.memory += count
        self.allowed += count

    @rule(memory=counts)
    def acquire_single(self, memory: int) -> None:
        enough = self.model.memory >= memory
        assert self.real.try_acquire_concurrent("single", 1, memory) is enough
        if enough:
            self.model.memory -= memory
            self.plain.append(memory)

    @precondition(lambda self: self.plain)
    @rule()
    def release_single(self) -> None:
        memory = self.plain[-1]
        if self.model.memory + memory > INT32_MAX:
            with pytest.raises(OverflowError):
                self.real.release_concurrent("single", 1, memory)
            return
        self.plain.pop()
        self.real.release_concurrent("single", 1, memory)
        self.model.memory += memory

    @rule(wrong=wrong_counts)
    def misuse(self, wrong: int) -> None:
        """P4."""
        for call in (
            self.real.try_acquire_concurrent,
            self.real.force_acquire_concurrent,
            self.real.release_concurrent,
        ):
            for arguments in ((wrong, 1), (2, wrong), (1, wrong)):
                with pytest.raises(REFUSED):
                    call("a", *arguments)
        with pytest.raises(KeyError):
            self.real.release_concurrent("nobody", 2, 1)

    @invariant()
    def same(self) -> None:
        assert self.real.available_permits == self.model.memory
        assert self.real.concurrent_state == self.model.state()
        held = sum(n * (len(SIZES) + SIZES[key]) for key, n in self.model.containers.items())
        assert self.model.memory == self.allowed - held - sum(self.plain)


TestForcible = ForcibleMachine.TestCase
TestResizable = ResizableMachine.TestCase
TestNested = NestedMachine.TestCase
TestForcible.settings = TestResizable.settings = TestNested.settings = SETTINGS
