"""What a scheduler among others is told, and its trace: a file for each start, or a reason."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acs_core.effects import Reserve
from acs_core.events import (
    Activation,
    Adopted,
    Arrived,
    Denied,
    InvokerReported,
    QueueOpened,
    QueueSpec,
    TimeReached,
)
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import replay
from acs_node.cluster.process import NodeError
from acs_node.cluster.scheduler import _trace, core_config


def node(trace: str, instance: str = "s0-1") -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(trace=trace), me=SimpleNamespace(instance=instance)
    )


def test_a_denied_reservation_is_asked_for_again_within_two_seconds_however_often() -> None:
    """Others' containers leave the namespace's cap, and nobody tells this scheduler."""
    made = node("")
    made.config.namespace_containers = 8
    scheduler = Scheduler(core_config(made))
    now_us = 1_000_000
    effects = scheduler.step(QueueOpened(QueueSpec("q", "ns", "a", 1, memory_mb=128), 1), now_us)
    effects += scheduler.step(InvokerReported("i0", 1_024), now_us)
    effects += scheduler.step(Adopted("i0", "q", 1), now_us)
    effects += scheduler.step(Arrived("q", Activation("1", b"", now_us)), now_us)
    pauses_us = []
    for _ in range(10):
        asked = [each for each in effects if isinstance(each, Reserve)]
        while not asked:
            due_us = scheduler.next_deadline_us()
            assert due_us is not None
            now_us = due_us
            asked = [e for e in scheduler.step(TimeReached(), now_us) if isinstance(e, Reserve)]
        pauses_us.append(now_us)
        effects = scheduler.step(Denied("q", asked[0].serial, "the cap"), now_us)
    gaps_us = [later - earlier for earlier, later in itertools.pairwise(pauses_us)]
    assert max(gaps_us) == gaps_us[-1] == 2_000_000


def test_nothing_is_traced_unless_a_folder_is_given() -> None:
    assert _trace(node(""), SchedulerConfig()) is None


def test_each_start_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    for instance in ("s0-1", "s0-2"):
        trace = _trace(node(str(folder), instance), SchedulerConfig(name=instance))
        assert trace is not None
        trace.close()
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["s0-1.trace", "s0-2.trace"]
    for file in files:
        assert replay(file.read_text().splitlines(keepends=True)).complete


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match=r"trace: the folder .*/file/below cannot be used"):
        _trace(node(str(tmp_path / "file" / "below")), SchedulerConfig())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "s0-1.trace").mkdir()
    with pytest.raises(NodeError, match=r"trace: .*/s0-1.trace cannot be written: Is a directory"):
        _trace(node(str(tmp_path)), SchedulerConfig())
