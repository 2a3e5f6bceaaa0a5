"""The waiting activations of one action; over all queues the deadline index, and a table by id.

Holds order and bounds.  Leaves out who may be served and why: that is ``scheduler``.
"""

from __future__ import annotations

from collections import deque

from sortedcontainers import SortedList

from .events import Activation
from .nesting import Calls

_PARTS = 256
"""A power of two."""

_TIME_DIGITS = 19
"""Of 2**63 - 1: the index pads each time to as many."""


class ActionQueue:
    """A bounded FIFO of activations; returned ones go to the front.

    Calls (activations with causes) go before the rest, the deepest first, because somebody holds
    a container until they have ended; among those of one depth it is a FIFO.

    ``calls`` is told of those that wait; None: of this queue alone.

    ``waiting`` counts those that can be taken.  A withdrawn activation leaves a gap that
    ``take`` skips; gaps are swept when they outnumber the rest, so they are bounded, too.

    Invariants: Q1 order, Q2 bound (docs/invariants.md).
    """

    def __init__(self, capacity: int, calls: Calls | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        self.capacity = capacity
        self.waiting = 0
        # None while nothing waits for long: an empty deque takes 600 bytes.
        self._line: deque[Activation] | None = None
        self._calls = calls or Calls()
        # Calls by depth; there is no empty one.
        self._nested: dict[int, deque[Activation]] = {}

    def offer(self, activation: Activation) -> bool:
        """Append the activation unless the queue is full; then nothing changed.  Cost: O(1)."""
        if self.waiting >= self.capacity:
            return False
        if activation.causes:
            self._line_of_call(activation).append(activation)
        else:
            if self._line is None:
                self._line = deque()
            self._line.append(activation)
        self.waiting += 1
        return True

    def put_back(self, activation: Activation) -> None:
        """Put a returned activation to the front, beyond the bound if need be.

        It was accepted once and may not be lost; deliveries are bounded by the slots of
        containers.  Returned ones are put back youngest first.  Cost: O(1).
        """
        if activation.causes:
            self._line_of_call(activation).appendleft(activation)
        else:
            if self._line is None:
                self._line = deque()
            self._line.appendleft(activation)
        self.waiting += 1

    def take(self) -> Activation | None:
        """Remove and return whose turn it is, None if nothing waits.  Cost: as head()."""
        if self._nested:
            return self.take_call(1)
        while self._line:
            activation = self._line.popleft()
            if not activation.withdrawn:
                self.waiting -= 1
                if self.waiting * 2 < len(self._line):
                    self._sweep()
                return activation
        return None

    def take_call(self, depth_min: int) -> Activation | None:
        """Remove and return the deepest call, the oldest of that depth; None if none is so deep.

        Cost: O(depths).
        """
        depth = self.depth()
        if depth < max(1, depth_min):
            return None
        call = self._nested[depth][0]
        self._remove_call(call)
        return call

    def head(self) -> Activation | None:
        """Return the oldest activation and leave it.

        With calls, the first to arrive among those whose turn it is at their depth.
        Cost: O(1), amortised over gaps; O(depths) with calls.
        """
        oldest = None
        while self._line:
            activation = self._line[0]
            if not activation.withdrawn:
                oldest = activation
                break
            self._line.popleft()
        if not self._line:
            self._line = None
        for line in self._nested.values():
            if oldest is None or line[0].arrived_us < oldest.arrived_us:
                oldest = line[0]
        return oldest

    def drop_head(self) -> None:
        """Remove what ``head`` returns.  Cost: as head()."""
        activation = self.head()
        assert activation is not None
        if activation.causes:
            self._remove_call(activation)
        else:
            assert self._line is not None
            self._line.popleft()
            self.waiting -= 1
            self._sweep()

    def depth(self) -> int:
        """Return the depth of the deepest call that waits, 0 without calls.  Cost: O(depths)."""
        return max(self._nested) if self._nested else 0

    def newest_calls(self) -> list[Activation]:
        """Return the newest call of each depth.  Cost: O(depths)."""
        return [line[-1] for line in self._nested.values()]

    def older_than(self, arrived_us: int) -> int:
        """Count the activations from the head that arrived no later.  Cost: O(answer)."""
        count = 0
        for activation in self._line or ():
            if activation.withdrawn:
                continue
            if activation.arrived_us > arrived_us:
                break
            count += 1
        for line in self._nested.values():
            for activation in line:
                if activation.arrived_us > arrived_us:
                    break
                count += 1
        return count

    def withdraw(self, activation: Activation) -> None:
        """Take a waiting activation out of the line, wherever it stands.

        Cost: O(1), amortised; O(calls of its depth) for a call.
        """
        assert not activation.withdrawn
        activation.withdrawn = True
        if activation.causes:
            self._remove_call(activation)
            return
        assert self._line is not None
        self.waiting -= 1
        self._sweep()

    def _sweep(self) -> None:
        """Forget the gaps of withdrawn ones where they outnumber what waits.

        Cost: O(1), amortised: whoever is swept was withdrawn once.
        """
        assert self._line is not None
        nested = sum([len(line) for line in self._nested.values()])
        if len(self._line) > 16 and (self.waiting - nested) * 2 < len(self._line):
            self._line = deque([a for a in self._line if not a.withdrawn])

    def check(self) -> None:
        """Assert the invariants.  Cost: O(n)."""
        plain = self._line or ()
        nested = [call for line in self._nested.values() for call in line]
        alone = self.waiting - len(nested)
        assert alone == sum(not a.withdrawn for a in plain)
        assert len(plain) - alone <= max(16, alone)  # Q2
        for depth, line in self._nested.items():
            assert line
            assert all(len(call.causes) == depth and not call.withdrawn for call in line)
        waiting = self._calls.waiting
        assert all(waiting.get(call.activation_id) is call for call in nested)

    def _line_of_call(self, call: Activation) -> deque[Activation]:
        """Return the line that the call is about to join."""
        self._calls.enter(call)
        return self._nested.setdefault(len(call.causes), deque())

    def _remove_call(self, call: Activation) -> None:
        depth = len(call.causes)
        line = self._nested[depth]
        if line[0] is call:
            line.popleft()
        else:
            line.remove(call)
        if not line:
            del self._nested[depth]
        self._calls.leave(call)
        self.waiting -= 1


class DeadlineIndex:
    """Which key is due when: at most one time per key.

    Invariants: B2 (docs/invariants.md).
    Source of the ordering: ``sortedcontainers``.  Cost of each call: O(log n) unless said.
    """

    def __init__(self) -> None:
        # -1 where the key was popped: taking it out would let the table be built anew every so
        # often, which takes milliseconds at 100,000 keys.
        self._times: dict[str, int] = {}
        # One string for each key that is due, its time in front: tuples would be objects for the
        # garbage collector, and 10,000 new ones make it run in the middle of a step.
        self._order = SortedList()
        # The earliest time, asked after every step of a scheduler; -1 when there is none.
        self._next_us = -1

    def next_us(self) -> int:
        """Return the earliest time, -1 when there is none.  Cost: O(1)."""
        return self._next_us

    def time_of(self, key: str) -> int:
        """Return the time at which the key is due, -1 when it is not.  Cost: O(1)."""
        return self._times.get(key, -1)

    def set(self, key: str, due_us: int) -> None:
        """Let the key be due at ``due_us`` and at no other time."""
        known_us = self._times.get(key, -1)
        if known_us >= 0:
            self._order.remove(_entry(known_us, key))
        self._times[key] = due_us
        self._order.add(_entry(due_us, key))
        if known_us < 0:
            if self._next_us < 0 or due_us < self._next_us:
                self._next_us = due_us
        else:
            self._find_next()

    def discard(self, key: str) -> None:
        """Let the key not be due; a key that was not is fine."""
        due_us = self._times.pop(key, -1)
        if due_us >= 0:
            self._order.remove(_entry(due_us, key))
            self._find_next()

    def pop_due(self, now_us: int) -> str | None:
        """Remove and return the key that is due longest, None when none is due at ``now_us``."""
        if self._next_us < 0 or self._next_us > now_us:
            return None
        entry: str = self._order.pop(0)
        key = entry[_TIME_DIGITS:]
        self._times[key] = -1
        self._find_next()
        return key

    def check(self) -> None:
        """Assert that both views agree.  Cost: O(n log n)."""
        times = {key: due for key, due in self._times.items() if due >= 0}
        assert sorted([_entry(due, key) for key, due in times.items()]) == list(self._order)
        assert self._next_us == min(times.values(), default=-1)

    def _find_next(self) -> None:
        if self._order:
            first: str = self._order[0]
            self._next_us = self._times[first[_TIME_DIGITS:]]
        else:
            self._next_us = -1


def _entry(due_us: int, key: str) -> str:
    """Return text that sorts by time, then by key."""
    return f"{due_us:019d}{key}"


class ActivationTable:
    """Activations by id: a dictionary in many parts.

    A dictionary in which ids come and go is built anew every so often, all at once: 10 ms at
    100,000 ids.  A part of it takes less than 0.1 ms.  In which part an id is depends on its hash,
    so the parts are never iterated.  Cost of each call: O(1), amortised; of ``len``: O(parts).
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, Activation]] = [{} for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum([len(part) for part in self._parts])

    def __contains__(self, activation_id: str) -> bool:
        return activation_id in self._part(activation_id)

    def __setitem__(self, activation_id: str, activation: Activation) -> None:
        self._part(activation_id)[activation_id] = activation

    def __delitem__(self, activation_id: str) -> None:
        del self._part(activation_id)[activation_id]

    def get(self, activation_id: str) -> Activation | None:
        """Return the activation with this id, None when there is none."""
        return self._part(activation_id).get(activation_id)

    def _part(self, activation_id: str) -> dict[str, Activation]:
        return self._parts[hash(activation_id) & (_PARTS - 1)]
