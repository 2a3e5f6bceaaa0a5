"""The life of a queue: its first state, refused signals, and the page that shows the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from acs_core.queue_states import TRANSITIONS, IllegalSignal, QueueLife, QueueState, Signal

ROOT = Path(__file__).parents[2]


def test_a_queue_begins_uninitialized_and_is_adopted() -> None:
    life = QueueLife()
    states = [life.state]
    assert life.can(Signal.ADOPTED)
    assert life.fire(Signal.ADOPTED)
    states.append(life.state)
    assert not life.fire(Signal.WORK_ARRIVED)
    states.append(life.state)
    assert states == [QueueState.UNINITIALIZED, QueueState.RUNNING, QueueState.RUNNING]


def test_a_refused_signal_is_named_and_changes_nothing() -> None:
    life = QueueLife()
    assert not life.can(Signal.QUIET_LONG)
    with pytest.raises(IllegalSignal, match="QUIET_LONG in UNINITIALIZED"):
        life.fire(Signal.QUIET_LONG)
    assert life.state is QueueState.UNINITIALIZED


@pytest.mark.parametrize("signal", [-1, len(Signal)])
def test_what_is_no_signal_is_a_callers_bug(signal: int) -> None:
    life = QueueLife()
    with pytest.raises(AssertionError):
        life.can(signal)
    with pytest.raises(AssertionError):
        life.fire(signal)
    assert life.state is QueueState.UNINITIALIZED


def test_the_numbers_of_states_are_part_of_traces() -> None:
    assert [state.name for state in QueueState] == [
        "UNINITIALIZED",
        "RUNNING",
        "IDLE",
        "FLUSHING",
        "NAMESPACE_THROTTLED",
        "ACTION_THROTTLED",
        "REMOVING",
        "REMOVED",
    ]
    assert [int(state) for state in QueueState] == list(range(8))
    assert list(TRANSITIONS) == list(QueueState)


def test_the_page_shows_the_table_as_it_is() -> None:
    spec = importlib.util.spec_from_file_location("draw", ROOT / "tools" / "draw_states.py")
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    assert draw.PATH.read_text() == draw.drawn(), "run tools/draw_states.py"
