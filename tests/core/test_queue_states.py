"""The life of a queue: its first state, refused signals, and the page that shows the table."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

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


@pytest.fixture
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", ROOT / "tools" / "draw_states.py")
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    return draw


def test_the_page_and_its_picture_show_the_table_as_it_is(draw: ModuleType) -> None:
    assert {path.name for path in draw.FILES} == {"states.md", "states.svg"}
    for path, drawn in draw.FILES.items():
        assert path.read_text() == drawn(), "run tools/draw_states.py"


def test_the_picture_has_an_arrow_for_every_move(draw: ModuleType) -> None:
    svg = ElementTree.fromstring(draw.picture())
    texts = [element.text for element in svg.iter() if element.get("class", "").startswith("sig")]
    drawn = Counter([name for text in texts for name in str(text).split(", ")])
    expected: Counter[str] = Counter()
    for state, moves in TRANSITIONS.items():
        expected.update([signal.name for signal, target in moves.items() if target is not state])
    # A frame's one arrow stands for those of all its states.
    for members, *_, signal, _, _, _ in draw.FRAMES:
        expected[signal.name] -= len(members) - 1
    assert drawn == expected


@pytest.mark.parametrize(
    ("state", "signal", "target", "complaint"),
    [
        ("IDLE", "BACKLOG_FULL", "ACTION_THROTTLED", "disagree on IDLE to ACTION_THROTTLED"),
        ("RUNNING", "QUIET_LONG", "RUNNING", "disagree on RUNNING to IDLE"),
        ("IDLE", "CLOSE_REQUESTED", "IDLE", "IDLE does not move to REMOVING on CLOSE_REQUESTED"),
    ],
)
def test_a_picture_of_another_table_is_not_drawn(
    draw: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    signal: str,
    target: str,
    complaint: str,
) -> None:
    moves = {**TRANSITIONS[QueueState[state]], Signal[signal]: QueueState[target]}
    monkeypatch.setattr(draw, "TRANSITIONS", {**TRANSITIONS, QueueState[state]: moves})
    with pytest.raises(ValueError, match=complaint):
        draw.picture()
