"""Plant faults in copies of the core, one at a time, and say what finds each.

python proofs/mutants                    the chosen ones (chosen.toml), each by its proof
python proofs/mutants --generic 200      and before them 200 of the generic ones, drawn by --seed
python proofs/mutants --each 10          and before them ten generic ones of every module
python proofs/mutants --generic all      and before them all generic ones

A chosen one is run against the one proof that is to find it, a generic one against the tests and
proofs of its module (``TESTS``).  Exit status 1 if a chosen one is missed, if a generic one
survives that ``survivors.toml`` does not explain, or if fewer than 95 % of the generic ones are
found.  The last line is of the chosen ones: ``N planted, M found``.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import sys
import time
import tomllib
from itertools import takewhile
from pathlib import Path

from generic import Mutant, mutants_of
from planting import CORE, Planter, Run

HERE = Path(__file__).parent
FIELDS = {"name", "file", "old", "new", "fault", "invariants", "proof"}
RATE_MIN = 0.95

# What tests a module, the quickest first.
_SCHEDULER = [
    "tests/core/test_scheduler.py",
    "tests/core/test_scenarios.py",
    "tests/core/test_give_back.py",
    "tests/core/test_nesting.py",
    "tests/core/test_pausing.py",
    "tests/core/test_floor.py",
    "tests/core/test_answers.py",
    "tests/core/test_starving.py",
    "tests/core/test_hunger.py",
    "proofs/test_forecast.py",
    "proofs/test_scheduler.py",
    "proofs/test_turns.py",
]
_TRACE = ["tests/core/test_trace.py", "proofs/test_trace.py"]
_SIMULATION = ["tests/core/test_simulation.py", "proofs/test_simulation.py"]
_SHARDING = [
    "tests/core/test_sharding.py",
    "tests/core/test_sharding_pool.py",
    "proofs/test_sharding.py",
]
_DEMAND = [
    "tests/core/test_demand.py",
    "tests/core/test_demand_edges.py",
    "tests/core/test_limits.py",
    "proofs/test_demand.py",
]
TESTS = {
    "__init__": ["tests/core/test_build.py", "tests/core/test_trace.py"],
    "abi": ["tests/core/test_abi.py", "tests/core/test_build.py"],
    "action_queue": [
        "tests/core/test_action_queue.py",
        "tests/core/test_nesting.py",
        "proofs/test_action_queue.py",
    ],
    "chance": ["tests/core/test_workload.py", *_SIMULATION],
    "containers": [
        "tests/core/test_limits.py",
        "tests/core/test_containers.py",
        "tests/core/test_pausing.py",
        "tests/core/test_prewarm.py",
        "tests/core/test_scenarios.py",
        "proofs/test_containers.py",
    ],
    "demand": _DEMAND,
    "effects": ["tests/core/test_events.py", "proofs/test_events.py", "tests/core/test_trace.py"],
    "engine_speed": ["tests/core/test_engine_speed.py"],
    "events": ["tests/core/test_events.py", "proofs/test_events.py", *_TRACE],
    "fairness": [
        "tests/core/test_fairness.py",
        "tests/core/test_give_back.py",
        "proofs/test_fairness.py",
    ],
    "explanation": ["tests/core/test_explanation.py"],
    "forecast": ["tests/core/test_explanation.py", "proofs/test_forecast.py"],
    "history": ["tests/core/test_history.py", "proofs/test_history.py"],
    "ledger": ["tests/core/test_ledger.py", "proofs/test_nesting.py", *_SCHEDULER],
    "limits": ["tests/core/test_limits.py", *_TRACE],
    "load": [
        "tests/core/test_load.py",
        "tests/core/test_load_steady.py",
        "proofs/test_load.py",
        "tests/core/test_give_back.py",
    ],
    "nesting": ["tests/core/test_nesting.py", "proofs/test_nesting.py"],
    "openwhisk_rule": _DEMAND,
    "placement": ["tests/core/test_placement.py", "proofs/test_placement.py"],
    "planning": ["tests/core/test_workload.py"],
    "prewarm": ["tests/core/test_prewarm.py", "proofs/test_containers.py"],
    "processors": ["tests/core/test_processors.py"],
    "queue_states": ["tests/core/test_queue_states.py", "proofs/test_queue_states.py"],
    "scheduler": _SCHEDULER,
    "scheduler_base": _SCHEDULER,
    "scheduler_config": ["tests/core/test_limits.py", *_SCHEDULER],
    "scheduler_containers": _SCHEDULER,
    "scheduler_decisions": _SCHEDULER,
    "scheduler_delivery": _SCHEDULER,
    "scheduler_queues": _SCHEDULER,
    "scheduler_room": _SCHEDULER,
    "semaphores": ["tests/core/test_semaphores.py", "proofs/test_semaphores.py"],
    "shadow": ["tests/core/test_shadow.py", "proofs/test_shadow.py"],
    "sharding": _SHARDING,
    "sharding_container": ["tests/core/test_sharding_pool.py", "proofs/test_sharding.py"],
    "sharding_feed": ["tests/core/test_sharding_pool.py", "proofs/test_sharding.py"],
    "sharding_pool": ["tests/core/test_sharding_pool.py", "proofs/test_sharding.py"],
    "sharding_supervision": _SHARDING,
    "simulation": _SIMULATION,
    "simulation_engine": _SIMULATION,
    "simulation_config": _SIMULATION,
    "simulation_pull": _SIMULATION,
    "simulation_push": _SIMULATION,
    "simulation_report": _SIMULATION,
    "hunger": ["tests/core/test_hunger.py", "proofs/test_hunger.py"],
    "health": ["tests/core/test_health.py", "proofs/test_health.py"],
    "snapshot": _DEMAND,
    "spreading": ["tests/core/test_spreading.py", "proofs/test_spreading.py"],
    "starving": ["tests/core/test_starving.py", *_SCHEDULER],
    "trace": _TRACE,
    "trace_fields": _TRACE,
    "workload": ["tests/core/test_workload.py", "tests/core/test_simulation.py"],
}


class Rotten(Exception):
    """A list beside this file does not fit the core any more."""


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="mutants",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="of chosen mutants; none: all")
    parser.add_argument("--generic", metavar="N", help="plant N generic ones first, or all")
    parser.add_argument("--each", type=int, metavar="N", help="plant N generic ones of each module")
    parser.add_argument("--seed", type=int, default=1, help="draws the generic ones (1)")
    parser.add_argument("--module", help="generic ones of this module alone, and no chosen ones")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (2)")
    parser.add_argument("--results", type=Path, help="file of generic results, to go on from")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no generic run later")
    arguments = parser.parse_args()
    good = True
    if arguments.generic or arguments.each:
        results = Results(arguments.results)
        mutants, reasons = generic_mutants()
        drawn = [m for m in mutants if arguments.module in (None, m.module)]
        if arguments.each:
            modules = sorted({mutant.module for mutant in drawn})
            parts = [[m for m in drawn if m.module == module] for module in modules]
            drawn = [m for part in parts for m in sample(part, arguments.each, arguments.seed)]
        elif arguments.generic != "all":
            drawn = sample(drawn, int(arguments.generic), arguments.seed)
        run_generic(drawn, results, arguments.jobs, time.monotonic() + arguments.seconds)
        good = report(drawn, results.found_by, reasons)
    if arguments.module is None:
        good &= run_chosen(arguments.names, arguments.jobs)
    return 0 if good else 1


def sample(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return as many as asked for, drawn by the seed, in their order."""
    chosen = set(random.Random(seed).sample(range(len(mutants)), min(count, len(mutants))))
    return [mutant for n, mutant in enumerate(mutants) if n in chosen]


# --- the chosen ones ---------------------------------------------------------------------------


def run_chosen(names: list[str], jobs: int) -> bool:
    """Plant the chosen mutants, each against its proof; tell whether all were found."""
    runs = chosen_runs(names)
    proofs = sorted({run.tests[0] for run in runs})
    times: dict[str, float] = {}
    with Planter(1, {}) as planter:
        for run, clean in planter.run(Run([proof]) for proof in proofs):
            must_pass(run, clean.found_by, clean.output)
            times |= clean.times
    found = 0
    with Planter(jobs, times) as planter:
        for run, result in planter.run(runs):
            found += bool(result.found_by)
            said = f"found by {result.found_by}" if result.found_by else f"MISSED by {run.tests[0]}"
            print(f"{run.subject}\n    {said}, {result.seconds:.1f} s", flush=True)
    print(f"{len(runs)} planted, {found} found", flush=True)
    return found == len(runs)


def chosen_runs(names: list[str]) -> list[Run]:
    """Return the runs of the chosen mutants, all of them or those named.

    Raises: Rotten that names the mutant and what is wrong with it.
    """
    entries = tomllib.loads((HERE / "chosen.toml").read_text())["mutant"]
    if len({entry["name"] for entry in entries}) != len(entries):
        raise Rotten("chosen.toml has two mutants of one name")
    unknown = set(names) - {entry["name"] for entry in entries}
    if unknown:
        raise Rotten(f"chosen.toml has no mutant {', '.join(sorted(unknown))}")
    runs = []
    for entry in entries:
        name, original = entry["name"], entry.pop("original", "")
        if entry.keys() != FIELDS:
            raise Rotten(f"{name} has the fields {sorted(entry)}; wanted are {sorted(FIELDS)}")
        source = (CORE / entry["file"]).read_text()
        count = source.count(entry["old"])
        if count != 1:
            raise Rotten(f"{name}: its text is {count} times in {entry['file']}, not once")
        altered = source.replace(entry["old"], entry["new"])
        subject = f"{name}: {entry['fault']}" + (f" [the original: {original}]" if original else "")
        if not names or name in names:
            proof = entry["proof"]
            proof = proof if proof.startswith("tests/") else f"proofs/{proof}"
            runs.append(Run([proof], entry["file"], altered, subject))
    return runs


# --- the generic ones --------------------------------------------------------------------------


class Results:
    """What found each generic mutant, "" what survived; also in a file, when there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.found_by: dict[str, str] = {}
        if path is not None and path.exists():
            self.found_by.update(json.loads(line) for line in path.read_text().splitlines())

    def add(self, key: str, found_by: str) -> None:
        self.found_by[key] = found_by
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([key, found_by]) + "\n")


def generic_mutants() -> tuple[list[Mutant], dict[str, str]]:
    """Return all generic mutants, and why some are known to survive.

    Raises: Rotten when a reason is given for one that does not exist.
    """
    mutants = [m for p in sorted(CORE.glob("*.py")) for m in mutants_of(p.stem, p.read_text())]
    keys = {mutant.key for mutant in mutants}
    reasons = {}
    for group in tomllib.loads((HERE / "survivors.toml").read_text())["survivors"]:
        for key in group["mutants"]:
            if key not in keys:
                raise Rotten(f"survivors.toml explains a mutant that does not exist: {key}")
            reasons[key] = group["why"]
    return mutants, reasons


def run_generic(drawn: list[Mutant], results: Results, jobs: int, until: float) -> None:
    """Plant the mutants that have no result yet, module by module, while there is time."""
    for module in sorted({mutant.module for mutant in drawn}):
        left = [m for m in drawn if m.module == module and m.key not in results.found_by]
        if not left or time.monotonic() > until:
            continue
        tests = TESTS[module]
        with Planter(1, {}) as planter:
            ((run, clean),) = planter.run([Run(tests)])
        must_pass(run, clean.found_by, clean.output)
        runs = (Run(tests, f"{module}.py", mutant.source, mutant.key) for mutant in left)
        with Planter(jobs, clean.times) as planter:
            for run, result in planter.run(takewhile(lambda _: time.monotonic() < until, runs)):
                results.add(run.subject, result.found_by)


def report(drawn: list[Mutant], found_by: dict[str, str], reasons: dict[str, str]) -> bool:
    """Print the survivors and the rates; tell whether they are good enough."""
    unexplained = 0
    for mutant in drawn:
        if found_by.get(mutant.key) != "":
            continue
        why = reasons.get(mutant.key)
        print(f"survived: {mutant.key}\n    {why or 'NOT EXPLAINED'}")
        if why is None:
            unexplained += 1
            old = (CORE / f"{mutant.module}.py").read_text().splitlines(keepends=True)
            new = mutant.source.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(old, new, "the core", "survived", n=2))
    rate = 1.0
    for name in [*sorted({mutant.module for mutant in drawn}), "all modules"]:
        ran = [m for m in drawn if m.key in found_by and name in (m.module, "all modules")]
        found = sum(found_by[m.key] != "" for m in ran)
        rate = found / len(ran) if ran else 0.0
        print(f"{name}: {len(ran)} planted, {found} found, {rate:.1%}")
    missing = sum(mutant.key not in found_by for mutant in drawn)
    print(f"not run: {missing}; survivors not explained: {unexplained}")
    return rate >= RATE_MIN and not unexplained and not missing


def must_pass(run: Run, found_by: str, output: str) -> None:
    if found_by:
        raise Rotten(f"{found_by} of {run.tests} fails on the core as it is:\n{output}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Rotten as rotten:
        sys.exit(f"mutants: {rotten}")
