"""The bench programs work and write well-formed results; how fast anything is, is not tested."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import ModuleType
from typing import Any

import pytest
from requirements import missing

import acs_core

BENCH = Path(__file__).parents[1] / "bench"
PROGRAM_S = 240


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let programs of the folder be imported as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture
def wrk() -> None:
    if shutil.which("wrk") is None:
        missing("wrk", "the load generator wrk is not installed")


def run(
    program: str, *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / program), *arguments],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
    )


def result_of(tmp_path: Path, program: str, *arguments: str) -> Any:
    """Run a program to its good end and return what it wrote."""
    path = tmp_path / "result.json"
    done = run(program, *arguments, "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text())


@pytest.mark.usefixtures("wrk")
def test_standalone_is_measured_against_the_yardstick(tmp_path: Path) -> None:
    result = result_of(
        tmp_path,
        "standalone.py",
        *("--pairs", "1", "--seconds", "1", "--actions", "1,3", "--containers", "as-it-comes,2"),
    )
    assert result["sandbox"] == "process"
    comes, two, three = result["comparisons"]
    for comparison in (comes, two, three):
        (pair,) = comparison["pairs"]
        base, ours = pair["base"], pair["ours"]
        assert comparison["errors"] == 0
        assert base["load"]["requests_per_s"] > 0 < ours["load"]["requests_per_s"]
        assert 0 < ours["load"]["p50_ms"] <= ours["load"]["p99_ms"]
        ratio = ours["load"]["requests_per_s"] / base["load"]["requests_per_s"]
        assert comparison["median_ratio"] == pair["ratio"] == pytest.approx(ratio)
    assert comes["pairs"][0]["ours"]["containers"] >= 1
    assert two["pairs"][0]["ours"]["containers"] == 2
    assert three["ours"].startswith("3 actions")
    assert three["pairs"][0]["base"]["containers"] == three["pairs"][0]["ours"]["containers"] == 3


def test_the_speed_of_simulations_is_measured() -> None:
    done = run("simulation_speed.py", "--queues", "10", "--runs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^10 queues, \w+: [\d,]+, median [\d,]+ activations", done.stdout)


@pytest.mark.usefixtures("wrk")
def test_logs_are_measured_kept_and_not_kept(tmp_path: Path) -> None:
    arguments = ("--pairs", "1", "--seconds", "1", "--containers", "2", "--lines", "2")
    (pair,) = result_of(tmp_path, "logs.py", *arguments)["comparison"]["pairs"]
    assert pair["base"]["load"]["errors"] == pair["ours"]["load"]["errors"] == 0
    assert pair["ours"]["load"]["requests"] > 0


@pytest.mark.usefixtures("wrk")
def test_the_added_wait_is_measured_in_an_open_loop(tmp_path: Path) -> None:
    options = ("--seconds", "1", "--containers", "2", "--shares", "0.25,0.5")
    results = result_of(tmp_path, "added_wait.py", *options)["results"]
    for result, share in zip(results, (0.25, 0.5), strict=True):
        assert result["containers"] == 2
        assert result["created"] == result["errors"] == 0
        assert result["share"] == share
        assert result["offered_per_s"] == pytest.approx(result["closed_per_s"] * share, rel=0.2)
        assert result["answered"] == int(result["closed_per_s"] * share)
        assert 0 < result["processors_busy"] <= 1
        for what in ("wait", "client", "late"):
            assert 0 < result[f"{what}_p50_ms"] <= result[f"{what}_p99_ms"]


def test_the_open_loop_dials_again_where_a_server_let_go() -> None:
    class Once(StreamRequestHandler):
        def handle(self) -> None:
            if self.request.recv(1024):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    class Server(ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 256  # all connections are dialled at once

    with on_path(BENCH):
        import added_wait

        with Server(("127.0.0.1", 0), Once) as server, added_wait.generator() as program:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            request = b"GET / HTTP/1.1\r\n\r\n"
            # Whichever is free is used again, the last one first; by then the server has let go.
            times = [0.05 * number for number in range(1, 40)]
            seen = added_wait.open_loop(program, server.server_address[1], request, times)
            server.shutdown()
    assert (len(seen.latencies), seen.errors) == (len(times), 0)


@pytest.mark.usefixtures("docker_images")
def test_an_engine_is_measured_under_load(tmp_path: Path) -> None:
    result = result_of(
        tmp_path, "engine.py", *("--part", "load", "--rounds", "1", "--containers", "1")
    )
    assert len(result["load"]) == 5
    for seen in result["load"].values():
        assert len(seen["until ready"]) == 1
        assert len(seen["start"]) == len(seen["remove_container"]) == 2
        assert 0 < seen["until ready"][0] <= seen["until all are ready"][0]


@pytest.mark.usefixtures("wrk", "docker_images")
def test_containers_and_activations_leave_nothing_behind(tmp_path: Path) -> None:
    result = result_of(
        tmp_path,
        "leaks.py",
        *("--sandbox", "docker", "--cycles", "24", "--activations", "5000"),
    )
    assert result["leaks"] == []
    assert len(result["seen"]) == 3
    for seen in result["seen"].values():
        assert seen["containers"] == seen["folders"] == 0
        assert seen["descriptors"] > seen["sockets"] > 0 < seen["rss_mb"]


def test_it_is_looked_at_after_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    leaks = load_program("leaks", monkeypatch)

    class Subject:
        done = 0

        def turn_over(self, cycles: int) -> int:
            self.done += cycles
            return cycles

        def load(self, activations: int) -> int:
            self.done += activations
            return activations

        def at_rest(self) -> int:
            return self.done

    assert leaks.measure(Subject(), 1_000, 100_000) == {
        "before": 300_016,
        "after 1,000 containers": 301_016,
        "after 100,000 activations": 401_016,
    }


def test_what_is_left_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    leaks = load_program("leaks", monkeypatch)
    before = leaks.Seen(0, 0, 1, 7, 49, 31, 6, 76.0)
    assert leaks.leaks(before, leaks.Seen(0, 0, 1, 9, 57, 39, 6, 77.0)) == []
    assert leaks.leaks(before, leaks.Seen(1, 2, 1, 10, 58, 40, 7, 77.5)) == [
        "containers: 0 before, 1 after (allowed: 0 more)",
        "folders: 0 before, 2 after (allowed: 0 more)",
        "threads: 7 before, 10 after (allowed: 2 more)",
        "descriptors: 49 before, 58 after (allowed: 8 more)",
        "sockets: 31 before, 40 after (allowed: 8 more)",
        "pipes: 6 before, 7 after (allowed: 0 more)",
        "rss_mb: 76 before, 77.5 after (allowed: 1 more)",
    ]
    assert leaks.leaks(before, leaks.Seen(0, 0, 1, 7, 49, 31, 6, 109.0), 32.0) == []
    assert leaks.leaks(before, leaks.Seen(0, 0, 1, 7, 49, 31, 6, 110.0), 32.0) == [
        "rss_mb: 76 before, 110 after (allowed: 33 more)"
    ]


@pytest.mark.parametrize("program", ["standalone.py", "added_wait.py", "leaks.py"])
def test_without_a_load_generator_it_says_so(program: str, tmp_path: Path) -> None:
    done = run(program, environ={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "bench: the load generator wrk is not installed" in done.stderr


def test_core_benchmarks_check_what_they_measure(tmp_path: Path) -> None:
    options = ["--benchmark-disable", "-q", "-k", "not 100000", f"--basetemp={tmp_path / 'pytest'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(BENCH / "core"), *options],
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_instructions_are_counted(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        missing("valgrind", "valgrind is not installed")
    if not acs_core.COMPILED:
        missing("valgrind", "instructions are counted of the compiled core")
    result = result_of(
        tmp_path,
        "callgrind_step.py",
        *("--queues", "1", "--activations", "400", "--cases", "a container waits"),
    )
    assert 100 < result["instructions"]["a container waits"]["1"] < 1_000_000


def test_no_more_instructions_than_were_counted_before() -> None:
    if shutil.which("valgrind") is None:
        missing("valgrind", "valgrind is not installed")
    if not acs_core.COMPILED:
        missing("valgrind", "instructions are counted of the compiled core")
    done = run(
        "callgrind_step.py",
        *("--queues", "1,1000", "--activations", "4000"),
        *("--check", str(BENCH / "callgrind_step.json")),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_regression_of_instructions_is_named(callgrind: ModuleType) -> None:
    case = "a container waits"
    before = {case: {"1": 1000.0, "1000": 1100.0}}
    more = {case: {"1": 1051.0, "1000": 1155.0}}
    assert callgrind.regressions(before, before, True) == []
    assert callgrind.regressions(more, before, True) == [
        "a container waits, 1: 1,051 instructions, 1,000 before (allowed: 5% more)"
    ]
    assert callgrind.regressions(more, before, False) == []
    steep = {case: {"1": 1000.0, "1000": 1301.0}}
    assert callgrind.regressions(steep, before, False) == [
        "a container waits, 1000: 1.30 times as many as at 1 (allowed: 1.3)"
    ]


WRK = """\
Running 4s test @ http://127.0.0.1:7100/
  1 threads and 64 connections
  Latency Distribution
     50%    2.97ms
     75%    3.10ms
     90%    4.00ms
     99%  600.00us
  80321 requests in 4.00s, 12.41MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:  20063.94
"""


def load_program(program: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    name = f"bench_{program}"
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{program}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def standalone(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_program("standalone", monkeypatch)


@pytest.fixture
def callgrind(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_program("callgrind_step", monkeypatch)


def test_steps_are_timed_each_kind_apart(tmp_path: Path) -> None:
    result = result_of(
        tmp_path,
        "step_latency.py",
        *("--queues", "20", "--waiting", "200", "--steps", "50000", "--turn-us", "200"),
    )
    assert result["steps"] >= 50_000
    assert result["waiting"] == 200
    kinds = result["kinds"]
    assert {"Arrived", "Pulled", "TimeReached", "Cancelled", "Returned"} <= kinds.keys()
    assert sum(kind["steps"] for kind in kinds.values()) == result["steps"]
    for kind in kinds.values():
        for clock in ("wall_us", "cpu_us"):
            found = kind[clock]
            assert 0 < found["p50"] <= found["p99"] <= found["p99.9"] <= found["max"]


def test_memory_is_that_of_many_objects(tmp_path: Path) -> None:
    sizes = result_of(tmp_path, "core_memory.py")["bytes"]
    for counts in sizes.values():
        assert all(50 < size < 100_000 for size in counts.values())
    for plain, warm in zip(
        sizes["idle queue"].values(), sizes["idle queue with a container"].values(), strict=True
    ):
        assert plain < warm


def test_every_kind_of_error_of_the_load_generator_counts(standalone: ModuleType) -> None:
    load = standalone.parse_wrk(WRK)
    assert load == standalone.Load(20063.94, 2.97, 0.6, 80321, 20)


def test_output_without_a_result_is_an_error(standalone: ModuleType) -> None:
    with pytest.raises(standalone.BenchFailed, match="unable to connect"):
        standalone.parse_wrk("unable to connect to 127.0.0.1:7100 Connection refused")


@pytest.mark.usefixtures("docker_images")
def test_the_start_of_a_container_is_measured(tmp_path: Path) -> None:
    result = result_of(tmp_path, "cold_start.py", "--rounds", "1", "--network", "none")
    samples, summary = result["samples"], result["summary"]
    runs = {"bare": 1, "cold": 1, "warm": 20, "prewarmed": 1, "resumed": 1}
    assert {kind: len(parts["total"]) for kind, parts in samples.items()} == runs
    cold = {part: values[0] for part, values in samples["cold"].items()}
    engine_ms = cold["create"] + cold["start"] + cold["ready"]
    assert cold["total"] == pytest.approx(engine_ms + cold["function"] + cold["added"], abs=0.01)
    assert cold["init"] > 0
    assert summary["cold"]["total"] == dict.fromkeys(("p50", "p90", "p99"), cold["total"])
    assert {*samples["warm"]["init"], *samples["resumed"]["init"]} == {0}
    assert "create" not in samples["prewarmed"], "it stood ready"
    assert samples["resumed"]["unpause"][0] > 0, "it slept"


def test_the_experiment_degrades_and_writes_its_documented_keys(tmp_path: Path) -> None:
    program = BENCH / "experiment.py"
    # A load so small that only what is written is looked at.
    small = (
        "import sys; sys.path.insert(0, sys.argv[1]); import experiment as e;"
        "e.TALK_SECONDS = 2; e.SCALE_ACTIONS = (1, 3, 5, 7); e.SCALE_SECONDS = 1;"
        "e.TRACE_INVOKERS = 8; sys.exit(e.main(['--quick', '--out', sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", small, str(program.parent), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "experiment.json").read_text())
    # In two seconds the baseline answers nothing of 100 actions: said as null.
    assert document["tps_ratio_100_actions"] is None or document["tps_ratio_100_actions"] > 1
    assert document["mean_latency_ratio_100_actions"] is None
    assert document["flatness_100_over_1"] > 0
    assert document["baseline_1_action_over_ours"] > 0
    assert document["measured_by"] == "simulation"
    for name, value in document["simulated"].items():
        assert document[name] == value
    assert document["skipped"].keys() == {"docker_daemon", "interference"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "#0101" not in page, "every drawn colour follows the theme"
    assert "prefers-color-scheme:dark" in page
    for name in ("talk", "scale", "traces"):
        header, *rows = (tmp_path / "experiment" / f"{name}.csv").read_text().splitlines()
        assert "wait_p99_ms" in header.split(",")
        assert rows


def test_interference_knows_its_parts() -> None:
    done = run("interference.py", "--parts", "ax")
    assert done.returncode == 2
    assert "there is no part x; there are a, b, c, d, f, g" in done.stderr


def test_interference_measures_both_sides(tmp_path: Path) -> None:
    path = str(tmp_path / "result.json")
    few = ("--quick", "--sandbox", "process", "--actions", "1", "--parts", "cdg", "--out", path)
    done = run("interference.py", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(Path(path).read_text())
    for part, times in (("c", 2), ("d", 1)):
        rows = found["parts"][part]
        assert [row["side"] for row in rows] == ["sharding"] * times + ["pull"] * times
        for row in rows:
            assert row["tps"] > 0
            assert row["errors"] == 0
            assert min(row["mean_ms"], row["at_least_mean_ms"]) > 0
            assert row["little_mean_ms"] == pytest.approx(1_000 * row["users"] / row["tps"])
    assert min(row["prime_s"] for row in found["parts"]["c"]) > 0
    assert {row["prime_s"] for row in found["parts"]["d"]} == {0}
    assert found["keys"]["baseline_1_action_over_ours"] > 0
    flat = found["parts"]["g"]
    assert [(row["actions"], row["run_ms"]) for row in flat] == [(1, 0), (1, 5), (3, 0), (3, 5)]
    for row in flat:
        assert (row["containers"], row["started"], row["errors"]) == (3, 0, 0)
        assert row["tps"] > 0
    assert found["keys"]["flatness_1_over_1"] == flat[2]["tps"] / flat[0]["tps"]


def test_interference_says_why_there_is_no_result(tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    path = tmp_path / "result.json"
    done = run("interference.py", "--quick", "--parts", "a", "--out", str(path), environ=nowhere)
    assert done.returncode == 1
    assert "interference: the server ended" in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_the_experiment_reports_what_was_measured_before_what_was_simulated() -> None:
    sides = ("sharding", "openwhisk", "fit")
    simulated = [
        {"side": side, "users": 2_000, "actions": actions, "tps": 10.0, "latency_mean_ms": 5.0}
        for side in sides
        for actions in (1, 100)
    ]
    figures = {
        "tps_ratio_100_actions": 99.0,
        "mean_latency_ratio_100_actions": 98.0,
        "flatness_100_over_1": 0.97,
        "baseline_1_action_over_ours": 0.96,
    }
    measured = {"sandbox": "docker", "keys": figures, "parts": {}}
    with on_path(BENCH):
        import experiment

        found = experiment.keys(simulated, measured)
        small = {**measured, "keys": {"tps_ratio_4_actions": 99.0}}
        other = experiment.keys(simulated, small)
        nothing = experiment.keys(simulated, None)
    assert figures.items() <= found.items()
    assert found["measured_by"] == "interference.py, sandbox docker"
    assert found["simulated"]["tps_ratio_100_actions"] == 1.0
    assert other == nothing, "figures of other sizes are not the talk's"
    assert nothing["measured_by"] == "simulation"
    assert nothing["tps_ratio_100_actions"] == 1.0


def test_the_experiment_keeps_what_a_program_measured_before_it_failed(tmp_path: Path) -> None:
    with on_path(BENCH):
        import experiment

        for code, kept in ((0, True), (1, True), (2, False)):
            program = tmp_path / f"ends{code}.py"
            program.write_text(
                f"import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('[1]');sys.exit({code})"
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(experiment, "BENCH", tmp_path)
                found, why = experiment.program(program.name, tmp_path)
            assert (found == [1]) == kept
            assert bool(why) != kept


def test_a_part_of_the_experiment_that_takes_too_long_stops_its_servers_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text(
        "import sys, threading\n"
        "try:\n"
        "    open(sys.argv[1], 'w').write('{\"part\": 1}')\n"
        "    threading.Event().wait()\n"
        "finally:\n"
        "    open(sys.argv[1] + '.stopped', 'w')\n"
    )
    with on_path(BENCH):
        import experiment

        monkeypatch.setattr(experiment, "BENCH", tmp_path)
        monkeypatch.setattr(experiment, "PART_S", 1)
        found, why = experiment.program("endless.py", tmp_path)
    assert (found, why) == ({"part": 1}, "endless.py did not end within 1 s")
    assert (tmp_path / "endless.json.stopped").exists()


def test_a_part_of_the_experiment_that_does_not_stop_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal, threading\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "threading.Event().wait()\n"
    )
    with on_path(BENCH):
        import experiment

        monkeypatch.setattr(experiment, "BENCH", tmp_path)
        monkeypatch.setattr(experiment, "PART_S", 1)
        monkeypatch.setattr(experiment, "STOP_S", 0.1)
        found, why = experiment.program("deaf.py", tmp_path)
    assert found is None
    assert why.startswith("deaf.py did not end within 1 s and was killed")


@pytest.mark.usefixtures("wrk", "docker_images")
def test_instructions_of_a_server_are_counted(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        missing("valgrind", "valgrind is not installed")
    options = ("--actions", "1,2", "--containers", "2", "--seconds", "1")
    results = result_of(tmp_path, "callgrind_server.py", *options)["results"]
    assert [result["actions"] for result in results] == [1, 2]
    for result in results:
        assert result["containers"] == 2
        assert result["requests"] > 0
        assert result["errors"] == 0
        assert 0 <= result["idle_instructions"] < result["instructions"]
