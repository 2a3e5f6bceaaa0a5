"""Traces as loads: both formats, what is drawn, each fault of a file; and how many are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from acs_core.planning import Trial, pass_time, prepare, search
from acs_core.simulation_config import SimulationConfig
from acs_core.simulation_engine import EngineModel
from acs_core.simulation_pull import PullCluster
from acs_core.simulation_push import PushCluster
from acs_core.simulation_report import SimulationReport
from acs_core.workload import (
    CALLS_MAX,
    MINUTE_US,
    RUN_MAX_US,
    RUN_MIN_US,
    Shape,
    Workload,
    WorkloadError,
    read_workload,
)

COUNTED = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,2,0,1\no,a,g,timer,0,0,3.0\n"
SAMPLE = "HashFunction,HashApp,HashOwner,minute_1,minute_2\nf,a,o,0,50\n"
LISTED = "app,func,end_timestamp,duration\na,f,10.5,0.5\nb,f,9.75,4\na,f,130,1e3\na,f,100,1\n"


def read(text: str, **options: int) -> Workload:
    return read_workload(text.splitlines(keepends=True), **options)


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(Shape))
def test_calls_that_are_counted_by_the_minute(shape: Shape) -> None:
    workload = read(COUNTED)
    assert (workload.names, workload.count, workload.span_us) == (["f", "g"], 6, 3 * MINUTE_US)
    calls = list(workload.arrivals(1, shape))
    assert calls == sorted(calls)
    assert Counter((at_us // MINUTE_US, action) for at_us, action, _ in calls) == {
        (0, 0): 2,
        (2, 0): 1,
        (2, 1): 3,
    }
    assert all(RUN_MIN_US <= run_us <= RUN_MAX_US for _, _, run_us in calls)
    assert calls == list(workload.arrivals(1, shape))
    assert calls != list(workload.arrivals(2, shape))


def test_bursts_are_short_and_others_are_not() -> None:
    workload = read(SAMPLE)

    def gaps(shape: Shape) -> list[int]:
        times = [at_us for at_us, _, _ in workload.arrivals(3, shape)]
        assert all(MINUTE_US <= at_us < 2 * MINUTE_US for at_us in times)
        return sorted(after - before for before, after in pairwise(times))

    assert sum(gaps(Shape.BURSTY)[:-1]) < 3_000_000
    assert sum(gaps(Shape.POISSON)[:-1]) > 30_000_000


def test_a_burst_that_reaches_the_end_of_its_minute_stays_in_it() -> None:
    workload = read("HashOwner,HashApp,HashFunction,1,2\no,a,f,3000,0\n")
    times = [at_us for at_us, _, _ in workload.arrivals(1, Shape.BURSTY)]
    # About a minute of calls from anywhere in it: some went round.
    assert min(times) < MINUTE_US // 10 < 9 * MINUTE_US // 10 < max(times) < MINUTE_US


def test_single_calls() -> None:
    workload = read(LISTED)
    assert (workload.names, workload.count) == (["f", "f"], 4)
    # They are sorted by their start, which counts from the first one's; a run has its bound.
    first_us = -870_000_000
    assert list(workload.arrivals(0)) == [
        (0, 0, RUN_MAX_US),
        (5_750_000 - first_us, 1, 4_000_000),
        (10_000_000 - first_us, 0, 500_000),
        (99_000_000 - first_us, 0, 1_000_000),
    ]
    assert workload.span_us == 99_000_000 - first_us


def test_blank_lines_are_nothing() -> None:
    assert read(COUNTED + "\n\n").count == 6


def test_only_the_first_minutes() -> None:
    assert (read(COUNTED, minutes_max=2).count, read(LISTED, minutes_max=1).count) == (2, 1)


def test_a_trace_is_read_line_by_line() -> None:
    def lines() -> object:
        yield "app,func,end_timestamp,duration\n"
        yield "a,f,1,nonsense\n"
        raise AssertionError("nobody reads beyond a fault")

    with pytest.raises(WorkloadError, match="line 2"):
        read_workload(lines())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: there is nothing; expected a line with the names of columns"),
        ("a,b\n1,2\n", "line 1: the columns are 'a,b'; expected those of the Azure Functions"),
        ("HashFunction\nf\n", "line 1: no column is a minute; expected 1,2,... or minute_1"),
        ("HashFunction,9999999\nf,1\n", "line 1, column 9999999: expected minutes in 1..527040"),
        ("HashFunction,1\n", "line 2: there is nothing; expected a row for each function"),
        ("HashFunction,1\nf,1\nf\n", "line 3: it has 1 columns; expected 2, as line 1"),
        ("HashFunction,1\nf,-3\n", "line 2, column 1: '-3'; expected an integer in 0..10000000"),
        ("HashFunction,1\nf,2.5\n", "line 2, column 1: '2.5'; expected an integer"),
        ("HashFunction,1\nf,\n", "line 2, column 1: ''; expected an integer"),
        (f"HashFunction,1\nf,{CALLS_MAX + 1}\n", "line 2, column 1: '10000001'; expected"),
        ("HashFunction,1\nf,99999999999\n", "line 2, column 1: '99999999999'; expected"),
        ('HashFunction,1\nf,"1\n', "line 2: unexpected end of data; expected comma-separated"),
        ("app,end_timestamp\n", "line 1: there is no column func; expected one"),
        ("app,func,end_timestamp,duration\n", "line 2: there is nothing; expected a row for each"),
        (
            "app,func,end_timestamp,duration\na,f,1,12ms\n",
            "line 2, column duration: '12ms'; expected seconds in 0..1000000000",
        ),
        ("app,func,end_timestamp,duration\na,f,nan,1\n", "line 2, column end_timestamp: 'nan'"),
        (
            "app,func,end_timestamp,duration\na,f,1630000000000,1\n",
            "line 2, column end_timestamp: '1630000000000'; expected seconds in 0..1000000000",
        ),
    ],
)
def test_what_is_no_trace(text: str, words: str) -> None:
    with pytest.raises(WorkloadError) as raised:
        read(text)
    assert str(raised.value).startswith(words)


def test_a_load_says_how_it_comes() -> None:
    nothing = Workload([])
    assert (nothing.count, nothing.span_us) == (0, 0)
    with pytest.raises(NotImplementedError):
        nothing.arrivals(0)
    assert (RUN_MIN_US, RUN_MAX_US) == (1_000, 300_000_000)


# --- simulations of it ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PullCluster, PushCluster])
def test_a_load_goes_through_a_cluster(kind: type[PullCluster]) -> None:
    workload = read(COUNTED)
    cluster = prepare(kind, workload, SimulationConfig(invokers=2), seed=1)
    shares = list(pass_time(cluster, workload, steps=4))
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (5, 1.0)
    assert cluster.now_us == 3 * MINUTE_US + 3 * RUN_MAX_US
    cluster = prepare(kind, workload, SimulationConfig(invokers=2), seed=1)
    times = [cluster.now_us for _ in pass_time(cluster, workload, steps=4)]
    assert times[:4] == [3 * MINUTE_US * step // 4 for step in (1, 2, 3, 4)]
    report = cluster.report()
    assert (report.arrived, report.ended, report.open) == (6, 6, 0)


def reporting(
    p99_of: Callable[[int], float], rejected: int = 0
) -> Callable[[int], SimulationReport]:
    cluster = PullCluster(SimulationConfig(engine=EngineModel()), [], 0)
    empty = cluster.report()
    fields = {name: getattr(empty, name) for name in SimulationReport.__slots__}

    def measure(invokers: int) -> SimulationReport:
        times = {name: getattr(empty.wait, name) for name in type(empty.wait).__slots__}
        wait = type(empty.wait)(**(times | {"p99_ms": p99_of(invokers)}))
        return SimulationReport(**(fields | {"wait": wait, "rejected": rejected}))

    return measure


def tried(trials: list[Trial]) -> list[int]:
    return [trial.invokers for trial in trials]


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 13, 20])
def test_the_fewest_invokers_are_found(needed: int) -> None:
    trials = list(search(reporting(lambda n: 10.0 if n >= needed else 99.0 - n), 10.0, 20))
    enough = [trial.invokers for trial in trials if trial.enough]
    assert min(enough) == needed
    assert len(trials) <= 9
    assert len(set(tried(trials))) == len(trials)


def test_a_target_that_nothing_meets() -> None:
    trials = list(search(reporting(lambda n: 99.0 - n), 10.0, 20))
    assert tried(trials) == [1, 2, 4, 8, 16, 20]
    assert not any(trial.enough for trial in trials)


def test_no_more_are_tried_where_more_change_nothing() -> None:
    trials = list(search(reporting(lambda n: max(50.0, 99.0 - 20 * n)), 10.0, 1000))
    assert tried(trials) == [1, 2, 4, 8]


def test_what_is_refused_is_not_served_in_time() -> None:
    assert not any(trial.enough for trial in search(reporting(lambda n: 0.0, 1), 10.0, 2))
