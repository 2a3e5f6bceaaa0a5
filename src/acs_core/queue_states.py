"""The life of a queue: its states, the signals that move it, and the one table of moves.

Everything that affects a queue's state is in this file.  What a move *means* (which effects
it has, what is rejected) is ``scheduler``'s business.  ``docs/states.md`` shows the table.

Source: the states of OpenWhisk's MemoryQueue.  Signals and moves are ours: in the original
some states can be entered and never left; here each throttle has a signal that lifts it, and
``docs/invariants.md`` L3 says so.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class QueueState(IntEnum):
    """Where a queue is in its life; the numbers are part of traces and of the wire."""

    UNINITIALIZED = 0
    """Opened, but not every invoker has told yet what it holds of this queue."""
    RUNNING = 1
    IDLE = 2
    """No work and no containers for a while; the queue costs nothing but its memory."""
    FLUSHING = 3
    """Its containers cannot be created; arrivals are answered with the cause."""
    NAMESPACE_THROTTLED = 4
    """The namespace's cap binds: served by what there is, nothing is added."""
    ACTION_THROTTLED = 5
    """The backlog is full: arrivals are rejected until it has shrunk."""
    REMOVING = 6
    """Closing: drains through the containers there are, takes no arrivals."""
    REMOVED = 7


STATES: Final = tuple(QueueState)
"""The states by their numbers."""


class Signal(IntEnum):
    """What can move a queue from one state to another."""

    ADOPTED = 0
    WORK_ARRIVED = 1
    QUIET_LONG = 2
    NAMESPACE_FULL = 3
    NAMESPACE_FREE = 4
    BACKLOG_FULL = 5
    BACKLOG_LOW = 6
    CREATION_FAILED = 7
    CREATION_SUCCEEDED = 8
    CLOSE_REQUESTED = 9
    EMPTIED = 10
    SUPERSEDED = 11


class IllegalSignal(Exception):
    """A signal that the state does not know; the state has not changed."""


_S = QueueState
_E = Signal

# fmt: off
TRANSITIONS: Final[dict[QueueState, dict[Signal, QueueState]]] = {
    _S.UNINITIALIZED: {
        _E.ADOPTED: _S.RUNNING,
        _E.WORK_ARRIVED: _S.UNINITIALIZED,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.RUNNING: {
        _E.WORK_ARRIVED: _S.RUNNING,
        _E.QUIET_LONG: _S.IDLE,
        _E.NAMESPACE_FULL: _S.NAMESPACE_THROTTLED,
        _E.BACKLOG_FULL: _S.ACTION_THROTTLED,
        _E.CREATION_FAILED: _S.FLUSHING, _E.CREATION_SUCCEEDED: _S.RUNNING,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.IDLE: {
        _E.WORK_ARRIVED: _S.RUNNING,
        _E.QUIET_LONG: _S.REMOVED,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.FLUSHING: {
        _E.WORK_ARRIVED: _S.FLUSHING,
        _E.QUIET_LONG: _S.REMOVED,
        _E.CREATION_FAILED: _S.FLUSHING, _E.CREATION_SUCCEEDED: _S.RUNNING,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.NAMESPACE_THROTTLED: {
        _E.WORK_ARRIVED: _S.NAMESPACE_THROTTLED,
        _E.NAMESPACE_FREE: _S.RUNNING,
        _E.BACKLOG_FULL: _S.ACTION_THROTTLED,
        _E.CREATION_FAILED: _S.FLUSHING, _E.CREATION_SUCCEEDED: _S.NAMESPACE_THROTTLED,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.ACTION_THROTTLED: {
        _E.BACKLOG_LOW: _S.RUNNING,
        _E.CREATION_FAILED: _S.FLUSHING, _E.CREATION_SUCCEEDED: _S.ACTION_THROTTLED,
        _E.CLOSE_REQUESTED: _S.REMOVING, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.REMOVING: {
        _E.CREATION_FAILED: _S.REMOVING, _E.CREATION_SUCCEEDED: _S.REMOVING,
        _E.CLOSE_REQUESTED: _S.REMOVING,
        _E.EMPTIED: _S.REMOVED, _E.SUPERSEDED: _S.REMOVED,
    },
    _S.REMOVED: {},
}
# fmt: on

_ILLEGAL = 255
_SIGNALS = len(Signal)
# The same table, flat: one byte load on the hot path instead of two dictionary look-ups.
_NEXT = bytes(TRANSITIONS[s].get(e, _ILLEGAL) for s in QueueState for e in Signal)


class QueueLife:
    """The state of one queue; moves along ``TRANSITIONS`` and in no other way.

    Invariants: Q3, L3 (docs/invariants.md).
    """

    def __init__(self) -> None:
        self.state_index = int(QueueState.UNINITIALIZED)

    @property
    def state(self) -> QueueState:
        """The state as a member of ``QueueState``."""
        return STATES[self.state_index]

    def can(self, signal: int) -> bool:
        """Tell whether ``signal`` is legal now.  Cost: O(1)."""
        assert 0 <= signal < _SIGNALS
        return _NEXT[self.state_index * _SIGNALS + signal] != _ILLEGAL

    def fire(self, signal: int) -> bool:
        """Move along ``signal``; tell whether the state is another one now.

        Raises: IllegalSignal if the state does not know the signal; nothing changed.
        Cost: O(1).
        """
        # Off the table is a caller's bug: flat indexing would run into the next state's row.
        assert 0 <= signal < _SIGNALS
        new = _NEXT[self.state_index * _SIGNALS + signal]
        if new == _ILLEGAL:
            raise IllegalSignal(f"{Signal(signal).name} in {self.state.name}")
        moved = new != self.state_index
        self.state_index = new
        return moved
