"""The talk's experiment: the engine alone, both schedulers for real, and simulated; one report.

    python bench/experiment.py            # make experiment: under half an hour
    python bench/experiment.py --quick    # make experiment-quick: simulations alone, 3 minutes

Writes into ``--out`` (build): ``experiment.json``, ``report.html``, ``experiment/*.csv`` and
``experiment/talk.svg``, and where an engine answers ``experiment/measured.svg``.  Keys of the JSON,
besides the raw ``parts``:

  tps_ratio_100_actions           ours / baseline, TPS with 2,000 users of 100 actions
  mean_latency_ratio_100_actions  baseline / ours, mean latency of the same
  flatness_100_over_1             ours with 100 actions / with 1, TPS, the same containers where
                                  that was measured
  baseline_1_action_over_ours     baseline / ours, TPS with 1 action; void below 0.95
                                  (each is null where nothing was answered)
  measured_by                     what these four are of: "interference.py, sandbox docker" where an
                                  engine answers, else "simulation"
  simulated                       the same four of the simulation
  skipped                         by part, why it did not run, or not to its end
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import report
import simulated_talk

import acs_core
from acs_core.chance import Chance
from acs_core.demand import OpenWhiskRule, RuntimeFitRule
from acs_core.events import QueueSpec
from acs_core.planning import pass_time, prepare
from acs_core.simulation import Cluster
from acs_core.simulation_config import SimulationConfig
from acs_core.simulation_pull import PullCluster
from acs_core.simulation_push import PushCluster
from acs_core.simulation_report import SimulationReport
from acs_core.workload import Workload, read_workload
from acs_node.workload_file import open_trace

BENCH = Path(__file__).parent
PART_S = 1_500
STOP_S = 120
"""Seconds that a program has to stop its servers when it did not end within the former."""
PROGRAMS = {"interference": ("--out",), "docker_daemon": ("--seconds", "3", "--json")}
"""What measures an engine, with its arguments but the last, a file."""

SIDES = {"sharding": "baseline (push)", "fit": "ours", "openwhisk": "ours, OpenWhiskRule"}
MEASURED_SIDES = {"sharding": "sharding", "pull": "fit"}
"""What ``interference.py`` calls its sides."""

TALK_ACTIONS = (1, 10, 100)
TALK_SECONDS = 40
MIXES = ((50, 1), (50, 50), (200, 1), (200, 100), (1_000, 10), (1_000, 100))
SCALE_ACTIONS = (1, 10, 100, 1_000, 10_000, 100_000)
SCALE_INVOKERS = 100
SCALE_PER_S = 3_000
SCALE_SECONDS = 10
SCALE_SHORT = {100_000: 4}
"""By actions, fewer seconds: all that starve look for room at each interval."""

SCALE_LARGE = (1_000, 2)
"""Invokers and seconds of the largest cluster, in which each new queue asks each invoker."""

TRACE_INVOKERS = 40
WAIT_TARGET_MS = 300
PUBLISHED = {("sharding", 1): "13,731", ("sharding", 100): "90", ("fit", 100): "14,000"}

Row = dict[str, Any]


class Progress:
    """One line for each part, with how long it took."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._done = 0

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """Run a part and return what it returned."""
        self._done += 1
        print(f"[{self._done}/{self._parts}] {name} ...", flush=True)
        start_s = time.monotonic()
        result = part()
        print(f"      {time.monotonic() - start_s:.0f} s", flush=True)
        return result


def row(side: str, result: SimulationReport, **of: Any) -> Row:
    """Flatten a report into a row of a table."""
    flat: Row = {**of, "side": side}
    for name, value in asdict(result).items():
        if isinstance(value, dict):
            flat |= {f"{name}_{each}": number for each, number in value.items()}
        else:
            flat[name] = value
    return flat


def talk(quick: bool) -> list[Row]:
    """The talk's cluster: its mixes, and in a full run a surface of users and actions."""
    mixes = [(2_000, actions) for actions in TALK_ACTIONS]
    rows = []
    for users, actions in mixes if quick else [*mixes, *MIXES]:
        for side in SIDES:
            if quick and side == "openwhisk":
                continue
            found = simulated_talk.simulate(side, users, actions, TALK_SECONDS)
            rows.append(row(side, found, users=users, actions=actions))
            print(
                f"      {users:5,} users, {actions:3} actions, {SIDES[side]}: {found.tps:,.0f} TPS",
                flush=True,
            )
    return rows


def arrivals(actions: int, seconds: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """Yield calls of all actions alike, Poisson, of runs of 2 ms."""
    chance = Chance(seed)
    at_us = 0.0
    while True:
        at_us += chance.exponential(1_000_000 / SCALE_PER_S)
        if at_us >= seconds * 1_000_000:
            return
        yield int(at_us), chance.below(actions), simulated_talk.RUN_US


def scale_one(side: str, actions: int, invokers: int, seconds: int) -> SimulationReport:
    """Let calls come to a large cluster, and measure from when the first containers are up.

    Waits are of what was served in time: those of a baseline that falls behind are longer still.
    """
    kind, config = simulated_talk.SIDES[side]
    specs = [
        QueueSpec(f"talk/{number}", "talk", str(number), 0, memory_mb=simulated_talk.MEMORY_MB)
        for number in range(actions)
    ]
    config = replace(config, invokers=invokers, namespace_containers_max=1_000_000)
    cluster = kind(config, specs, seed=1)
    cluster.load(arrivals(actions, seconds, 1))
    cluster.measure_from(seconds * 200_000)
    cluster.run_until(seconds * 1_000_000)
    return cluster.report()


def scale(quick: bool) -> list[Row]:
    """Throughput and wait from 1 to 100,000 actions, the load being the same."""
    cells = [
        (side, actions, SCALE_INVOKERS, SCALE_SHORT.get(actions, SCALE_SECONDS))
        for actions in (SCALE_ACTIONS[:4] if quick else SCALE_ACTIONS)
        for side in ("sharding", "fit")
    ]
    if not quick:
        cells += [(side, SCALE_ACTIONS[-1], *SCALE_LARGE) for side in ("sharding", "fit")]
    rows = []
    for side, actions, invokers, seconds in cells:
        start_s = time.process_time()
        found = scale_one(side, actions, invokers, seconds)
        took_s = round(time.process_time() - start_s, 2)
        rows.append(
            row(
                side, found, actions=actions, invokers=invokers, seconds=seconds, processor_s=took_s
            )
        )
        print(
            f"      {actions:7,} actions, {invokers:5,} invokers, {SIDES[side]}: "
            f"{found.tps:,.0f} TPS, p99 of the wait {found.wait.p99_ms:,.0f} ms; {took_s:.1f} s",
            flush=True,
        )
    return rows


def replay(
    workload: Workload, side: str, wait_target_ms: int | None, seed: int
) -> SimulationReport:
    """Let a trace go through a cluster."""
    kind: type[Cluster] = PushCluster if side == "sharding" else PullCluster
    rule = OpenWhiskRule() if side == "openwhisk" else RuntimeFitRule()
    config = SimulationConfig(invokers=TRACE_INVOKERS, invoker_mb=8_192, rule=rule)
    target_us = None if wait_target_ms is None else wait_target_ms * 1_000
    cluster = prepare(kind, workload, config, seed=seed, wait_target_us=target_us)
    for _ in pass_time(cluster, workload, 1):
        pass
    return cluster.report()


def traces(quick: bool) -> list[Row]:
    """The shipped hours under each rule; durations of 2019 are drawn, so by more than one seed."""
    rows = []
    for name, seeds in (("azure2019", (0,) if quick else (0, 1, 2, 3)), ("azure2021", (0,))):
        with open_trace(name) as (_, lines):
            workload = read_workload(lines)
        for seed in seeds:
            runs_s = sum([run_us for _, _, run_us in workload.arrivals(seed)]) / 1_000_000
            for side, target_ms in (
                ("sharding", None),
                ("openwhisk", None),
                ("fit", None),
                ("fit", WAIT_TARGET_MS),
            ):
                found = replay(workload, side, target_ms, seed)
                rows.append(
                    row(
                        side,
                        found,
                        trace=name,
                        seed=seed,
                        wait_target_ms=target_ms or "",
                        runs_s=runs_s,
                        beyond_runs_s=found.container_s - runs_s,
                    )
                )
    return rows


def program(name: str, out: Path, *arguments: str) -> tuple[Any, str]:
    """Run a benchmark of its own; return what it wrote, and why not if it did not."""
    path = BENCH / name
    if not path.exists():
        return None, f"there is no {path.name}"
    result = out / f"{path.stem}.json"
    result.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, str(path), *arguments, str(result)]) as process:
        try:
            code = process.wait(PART_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does: it stops its servers
            why = f"{name} did not end within {PART_S} s"
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                why += " and was killed: its servers may be there still"
            # It writes each part when it has it.
            found = json.loads(result.read_text()) if result.exists() else None
            return found, why
    # With code 1 it has measured, and something of it went wrong, which stands in what it wrote.
    if code not in (0, 1) or not result.exists():
        return None, f"{name} ended with code {code}; its last lines say why"
    return json.loads(result.read_text()), ""


def engine_answers() -> str:
    """Return why no Docker Engine can be measured, nothing when one can."""
    try:
        import docker

        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except Exception as error:  # whatever it is, it is the reason
        return f"no Docker Engine answers: {str(error)[:120]}"
    return ""


def keys(rows: Sequence[Row], interference: Row | None) -> Row:
    """The four figures that are compared with the talk's: measured ones where there are any.

    ``simulated`` has those of the simulation in any case.
    """
    at = {(r["side"], r["actions"]): r for r in rows if r["users"] == 2_000}
    ours, base = at["fit", 100], at["sharding", 100]
    simulated = {
        "tps_ratio_100_actions": ratio(ours["tps"], base["tps"]),
        "mean_latency_ratio_100_actions": ratio(base["latency_mean_ms"], ours["latency_mean_ms"]),
        "flatness_100_over_1": ratio(ours["tps"], at["fit", 1]["tps"]),
        "baseline_1_action_over_ours": ratio(at["sharding", 1]["tps"], at["fit", 1]["tps"]),
    }
    if interference is None or set(interference.get("keys", ())) != set(simulated):
        return {**simulated, "measured_by": "simulation", "simulated": simulated}
    by = f"interference.py, sandbox {interference['sandbox']}"
    return {**interference["keys"], "measured_by": by, "simulated": simulated}


def ratio(one: float, other: float) -> float | None:
    """Divide; None where one of them is 0, because nothing was answered."""
    return one / other if one > 0 and other > 0 else None


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that all have the columns of the first, and maybe more."""
    columns = list(dict.fromkeys([name for each in rows for name in each]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def lines(rows: Sequence[Row], x: str, y: str, **where: Any) -> report.Series:
    """Pick the points of each side."""
    return {
        SIDES[side]: [
            (r[x], r[y])
            for r in rows
            if r["side"] == side and all(r[name] == value for name, value in where.items())
        ]
        for side in dict.fromkeys([r["side"] for r in rows])
    }


def draw_talk(rows: Sequence[Row]) -> str:
    """The main chart."""
    return report.chart(
        lines(rows, "actions", "tps", users=2_000),
        "The talk's cluster, simulated: 2,000 users, runs of 2 ms",
        "different actions",
        "activations answered per second",
    )


def draw_measured(rows: Sequence[Row]) -> str:
    """Part c of ``interference.py``."""
    series = {
        f"{SIDES[name]}, {users:,} users": [
            (r["actions"], r["tps"]) for r in rows if r["side"] == side and r["users"] == users
        ]
        for users in sorted({r["users"] for r in rows}, reverse=True)
        for side, name in MEASURED_SIDES.items()
    }
    title = "On one Docker Engine: runs of 2 ms, 180 slots"
    return report.chart(series, title, "different actions", "activations answered per second")


def page(document: Row) -> str:
    """Put the report together."""
    talk_rows, scale_rows, trace_rows = (document["parts"][n] for n in ("talk", "scale", "traces"))
    figures = [[name, document[name], document["simulated"][name]] for name in KEYS]
    even = lines(scale_rows, "actions", "tps", invokers=SCALE_INVOKERS)
    waits = lines(scale_rows, "actions", "wait_p99_ms", invokers=SCALE_INVOKERS)
    parts = [
        (
            "In short",
            report.table(["figure", document["measured_by"], "simulated"], figures)
            + skipped(document["skipped"]),
        ),
        (
            "Push against pull",
            report.themed(draw_talk(talk_rows))
            + report.table(
                ["scheduler", "users", "actions", "TPS", "published TPS", "mean ms", "p99 ms"],
                [
                    [
                        SIDES[r["side"]],
                        r["users"],
                        r["actions"],
                        r["tps"],
                        PUBLISHED.get((r["side"], r["actions"]), "") if r["users"] == 2_000 else "",
                        r["latency_mean_ms"],
                        r["latency_p99_ms"],
                    ]
                    for r in talk_rows
                ],
            ),
        ),
        (
            f"From 1 to {max(r['actions'] for r in scale_rows):,} actions",
            f"<p>{SCALE_INVOKERS} invokers of {simulated_talk.CONTAINERS_PER_INVOKER} containers, "
            f"{SCALE_PER_S:,} calls per second spread over all actions alike. Waits are of "
            f"what was served within the {SCALE_SECONDS} s (at 100,000 actions 4 s): who falls "
            "behind makes others wait for longer still.</p>"
            + report.themed(
                report.chart(even, "Throughput", "different actions", "answered per second")
            )
            + report.themed(
                report.chart(waits, "99th percentile of the wait", "different actions", "ms")
            ),
        ),
        (
            "Traces",
            "<p>Container-seconds beyond the runs are what a rule can save; the runs themselves "
            f"take what they take. {TRACE_INVOKERS} invokers of 8 GB.</p>"
            + report.table(
                [
                    "trace, seed",
                    "rule",
                    "target ms",
                    "p50 ms",
                    "p99 ms",
                    "cold",
                    "container-s",
                    "beyond runs",
                    "memory GB-s",
                    "refused",
                ],
                [
                    [
                        f"{r['trace']}, {r['seed']}",
                        SIDES[r["side"]],
                        r["wait_target_ms"],
                        r["wait_p50_ms"],
                        r["wait_p99_ms"],
                        r["cold"],
                        r["container_s"],
                        r["beyond_runs_s"],
                        r["memory_mb_s"] / 1024,
                        r["rejected"],
                    ]
                    for r in trace_rows
                ],
            ),
        ),
    ]
    measured = document["parts"].get("interference")
    if measured is not None:
        parts.insert(1, ("Push against pull, measured", interference_tables(measured)))
    for name in ("docker_daemon", "interference"):
        if document["parts"].get(name) is not None:
            raw = json.dumps(document["parts"][name], indent=1)
            parts.append(
                (name, f"<details><summary>raw numbers</summary><pre>{raw}</pre></details>")
            )
    machine = ", ".join([f"{name} {value}" for name, value in document["machine"].items()])
    parts.append(("Machine", f"<p>{machine}</p>"))
    return report.page("Push against pull: the talk's experiment", parts)


INTERFERENCE = {
    "a": ("Two actions with the same home, called in turn (published: 650 times as long)",
          ("alone_p50_ms", "in_turn_p50_ms", "times_as_long", "started")),
    "b": ("One slot busy for 20 ms, a second call arrives (published: 520 ms against 40 ms)",
          ("second_p50_ms",)),
    "c": ("Many users (published: 100 actions 90 against 14,000 TPS; means by Little's law, of "
          "what was answered, and with those who still wait)",
          ("users", "actions", "tps", "little_mean_ms", "mean_ms", "at_least_mean_ms", "p50_ms",
           "p99_ms", "p999_ms", "containers", "started", "removed", "engine_busy_share", "errors")),
    "d": ("More actions than containers",
          ("times_as_many", "users", "tps", "mean_ms", "worst_action_p99_ms", "smallest_share",
           "swaps_per_s", "errors")),
    "f": ("Is it a fair opponent: 1 action, the same containers, all in use",
          ("users", "tps", "mean_ms", "p99_ms", "containers", "started", "errors")),
    "g": ("Ours alone, many actions and one with the same containers, in turns",
          ("run_ms", "actions", "users", "tps", "mean_ms", "p99_ms", "containers", "errors")),
}  # fmt: skip


def interference_tables(measured: Row) -> str:
    """What both schedulers did on the same engine: a chart and a table for each part."""
    html = f"<p>Sandbox {measured['sandbox']}; both in turns, one engine, one machine.</p>"
    rows = measured["parts"].get("c", ())
    if rows:
        html += report.themed(draw_measured(rows))
    for part, (title, columns) in INTERFERENCE.items():
        if measured["parts"].get(part):
            table = [
                [SIDES[MEASURED_SIDES[r["side"]]], *[r[name] for name in columns]]
                for r in measured["parts"][part]
            ]
            html += f"<h3>{title}</h3>" + report.table(["scheduler", *columns], table)
    return html


KEYS = (
    "tps_ratio_100_actions",
    "mean_latency_ratio_100_actions",
    "flatness_100_over_1",
    "baseline_1_action_over_ours",
)


def skipped(reasons: dict[str, str]) -> str:
    """Say which parts did not run."""
    return "".join([f"<p>Not run: {name}: {why}.</p>" for name, why in reasons.items()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, and write what came of them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="simulations alone, and fewer of them")
    parser.add_argument("--out", type=Path, default=Path("build"))
    options = parser.parse_args(arguments)
    # Also where a shell has started this with &, which has it and its programs ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    quick = options.quick
    folder = options.out / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(3 if quick else 5)
    parts: Row = {}
    reasons = {}
    if quick:
        reasons = dict.fromkeys(PROGRAMS, "a quick run simulates alone")
    else:
        why_not = engine_answers()
        for name, given in PROGRAMS.items():
            if why_not:
                parts[name], reasons[name] = None, why_not
                print(f"{name}: skipped, {why_not}", flush=True)
                continue
            parts[name], why = progress.run(name, partial(program, f"{name}.py", folder, *given))
            if why:
                reasons[name] = why
    parts["talk"] = progress.run("the talk's cluster, simulated", lambda: talk(quick))
    parts["scale"] = progress.run("1 to 100,000 actions, simulated", lambda: scale(quick))
    parts["traces"] = progress.run("traces, simulated", lambda: traces(quick))
    document = {
        **keys(parts["talk"], parts.get("interference")),
        "quick": quick,
        "skipped": reasons,
        "machine": {
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "python": platform.python_version(),
            "core_compiled": acs_core.COMPILED,
        },
        "parts": parts,
    }
    for name in ("talk", "scale", "traces"):
        write_csv(folder / f"{name}.csv", parts[name])
    (options.out / "experiment.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "report.html").write_text(page(document))
    (folder / "talk.svg").write_text(report.standing(draw_talk(parts["talk"])))
    if measured := (parts.get("interference") or {"parts": {}})["parts"].get("c"):
        (folder / "measured.svg").write_text(report.standing(draw_measured(measured)))
    for name in KEYS:
        print(f"{name}: {report.shown(document[name])}")
    for name, why in reasons.items():
        print(f"not run: {name}: {why}")
    print(f"{options.out / 'report.html'}, {options.out / 'experiment.json'}, {folder}/*.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
