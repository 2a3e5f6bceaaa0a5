"""The trace of a scheduler among others: a file for each start, or a reason why not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from acs_core.scheduler import SchedulerConfig
from acs_core.trace import replay
from acs_node.cluster.process import NodeError
from acs_node.cluster.scheduler import _trace


def node(trace: str, instance: str = "s0-1") -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(trace=trace), me=SimpleNamespace(instance=instance)
    )


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
