"""Runs the kept inputs of the fuzzer, on both builds and without it (S6, T2): ``fuzz/run.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import worlds

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.containers import ContainerPool
from acs_core.scheduler import Scheduler

CORPUS = Path(__file__).parent / "fuzz" / "corpus"


@pytest.mark.parametrize("target", sorted(worlds.TARGETS))
def test_the_kept_inputs_break_nothing(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) >= 4
    for path in inputs:
        try:
            worlds.TARGETS[target](path.read_bytes())
        except Exception as error:
            error.add_note(f"input {path.name}")
            raise


def test_the_kept_traces_are_read_beyond_their_first_line() -> None:
    """Otherwise nothing of them is fuzzed; ``fuzz/seeds.py`` makes them anew."""
    for path in sorted((CORPUS / "trace").iterdir()):
        data = path.read_bytes()
        lines = data[1:].decode().splitlines(keepends=True)
        assert worlds.trace.replay(lines, cut=data[:1] == b"c").steps >= 1, path.name


def test_every_event_is_told_to_the_core_that_takes_it() -> None:
    told = {cls for kinds in worlds.TAKEN.values() for cls in kinds}
    assert {ev.Arrived, ev.Pulled, ev.Adopted} <= set(worlds.TAKEN[Scheduler])
    assert {fx.Create, fx.Deliver, ev.RunEnded} <= set(worlds.TAKEN[ContainerPool])
    assert {cls.__name__ for cls in told} == set(worlds.trace_fields.EVENTS)
