"""Proof of ``acs_core.queue_states``: its table is walked as it stands and has no trap (Q3, L3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_core.queue_states import TRANSITIONS, IllegalSignal, QueueLife, QueueState, Signal

S = QueueState
ENDS = {S.REMOVED}


def reachable(start: QueueState) -> set[QueueState]:
    """Return the states that moves lead to, the start included."""
    found, open_ends = {start}, [start]
    while open_ends:
        for target in TRANSITIONS[open_ends.pop()].values():
            if target not in found:
                found.add(target)
                open_ends.append(target)
    return found


@given(st.lists(st.sampled_from(Signal), max_size=60))
def test_life_follows_the_table_and_nothing_else(signals: list[Signal]) -> None:
    life, state = QueueLife(), S.UNINITIALIZED
    for signal in signals:
        target = TRANSITIONS[state].get(signal)
        assert life.can(signal) is (target is not None)
        if target is None:
            with pytest.raises(IllegalSignal, match=f"{signal.name} in {state.name}"):
                life.fire(signal)
        else:
            assert life.fire(signal) is (target is not state)
            state = target
        assert life.state is state
        assert life.state_index == int(state)


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(S)
    assert reachable(S.UNINITIALIZED) == set(S)


@pytest.mark.parametrize("state", sorted(set(S) - ENDS))
def test_no_state_is_a_trap(state: QueueState) -> None:
    assert S.REMOVED in reachable(state)
    # Closing and losing the leadership are possible at any time.
    assert {Signal.CLOSE_REQUESTED, Signal.SUPERSEDED} <= TRANSITIONS[state].keys()
    if state is not S.REMOVING:
        assert S.RUNNING in reachable(state)


@pytest.mark.parametrize(
    ("state", "signal"),
    [
        (S.NAMESPACE_THROTTLED, Signal.NAMESPACE_FREE),
        (S.ACTION_THROTTLED, Signal.BACKLOG_LOW),
        (S.FLUSHING, Signal.CREATION_SUCCEEDED),
    ],
)
def test_what_brings_trouble_has_a_signal_that_ends_it(state: QueueState, signal: Signal) -> None:
    assert TRANSITIONS[state][signal] is S.RUNNING


def test_removal_is_final() -> None:
    assert TRANSITIONS[S.REMOVED] == {}
    closing = reachable(S.REMOVING)
    assert closing == {S.REMOVING, S.REMOVED}
