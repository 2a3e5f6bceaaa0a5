"""What an explained decision costs: alone, reported, and reported and read."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from acs_core import events as ev
from acs_core.effects import Decided
from acs_core.scheduler import Scheduler, SchedulerConfig

DECISIONS = 1_000


@pytest.mark.parametrize("listener", ["nobody", "reported", "reported and read"])
def test_1000_decisions(benchmark: BenchmarkFixture, listener: str) -> None:
    benchmark.group = "1,000 arrivals with a decision each"
    reports = listener != "nobody"

    def ready() -> tuple[tuple[Scheduler, list[ev.Arrived]], dict[str, object]]:
        config = SchedulerConfig(report_decisions=reports, backlog_interval_us=0)
        scheduler = Scheduler(config)
        for event in (
            ev.InvokerReported("i", 256),
            ev.QueueOpened(ev.QueueSpec("q", "n", "q", 1), 1, 5_000),
            ev.Adopted("i", "q", 1),
            ev.Arrived("q", ev.Activation("first", b"", 0)),
            ev.Reserved("q", 1, ("scheduler-1",)),
        ):
            scheduler.step(event, 0)
        arrivals = [ev.Arrived("q", ev.Activation(f"a{i}", b"", i)) for i in range(DECISIONS)]
        return (scheduler, arrivals), {}

    def decide(scheduler: Scheduler, arrivals: list[ev.Arrived]) -> int:
        told = 0
        for now_us, event in enumerate(arrivals):
            for effect in scheduler.step(event, now_us):
                if isinstance(effect, Decided):
                    told += 1
                    if listener == "reported and read":
                        assert effect.decision.reason  # type: ignore[attr-defined]
                        assert effect.decision.rejected  # type: ignore[attr-defined]
        return told

    assert benchmark.pedantic(decide, setup=ready, rounds=10) == DECISIONS * reports
