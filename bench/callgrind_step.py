"""Instructions per activation through ``Scheduler.step``, counted by valgrind's callgrind.

A count hardly depends on what else the machine does.  The loop is compiled.  Valgrind counts
between two marks that the process sets, so the set-up, which is not counted, also runs several
times as fast; before the first mark every queue has been used once, and a quarter as many
activations have gone the same way.

``callgrind_step.json`` holds what was counted last.  ``--check`` counts again and fails where there
are more than TOLERANCE more.  Interpreters and compilers differ by more than that, so counts are
compared only under the versions that they were made with; how they grow with the number of queues
is compared with GROWTH_MAX on any.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import acs_core

sys.path.insert(0, str(Path(__file__).parent / "core"))

from build_loop import CannotBuild, build_loop

# What is done first, and the method that is counted.
CASES = {
    "a container waits": ("loop.touch()", "run_idle"),
    "work waits": ("loop.touch(); loop.fill()", "run_backlog"),
    "a run in a pool": ("", "run"),
}
MARKS = """\
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; }
void end(void) { CALLGRIND_STOP_INSTRUMENTATION; }
"""
RUN_S = 600
TOLERANCE = 0.05
GROWTH_MAX = {"a container waits": 1.3}

Counts = dict[str, dict[str, float]]


def versions() -> dict[str, str]:
    """Return what the counts depend on beside the core."""
    import Cython

    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "cython": Cython.__version__,
        "machine": platform.machine(),
    }


def regressions(counted: Counts, before: Counts, same_versions: bool) -> list[str]:
    """Say where more instructions were counted than before, or growth is beyond its bound."""
    found = []
    for case, sizes in counted.items():
        for size, count in sizes.items():
            known = before.get(case, {}).get(size)
            if same_versions and known is not None and count > known * (1 + TOLERANCE):
                found.append(
                    f"{case}, {size}: {count:,.0f} instructions, {known:,.0f} before"
                    f" (allowed: {TOLERANCE:.0%} more)"
                )
            growth = count / next(iter(sizes.values()))
            if growth > GROWTH_MAX.get(case, growth):
                found.append(
                    f"{case}, {size}: {growth:.2f} times as many as at {next(iter(sizes))}"
                    f" (allowed: {GROWTH_MAX[case]})"
                )
    return found


def build_marks(folder: Path) -> Path:
    """Build the library that tells valgrind what to count, and return the file.

    Raises: SystemExit where the compiler or valgrind's headers are missing.
    """
    source, built = folder / "marks.c", folder / "marks.so"
    source.write_text(MARKS)
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-O1", "-shared", "-fPIC", "-o", str(built), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"callgrind_step: no marks for valgrind: {error}") from None
    if done.returncode:
        raise SystemExit(f"callgrind_step: no marks for valgrind: {done.stderr}")
    return built


def instructions(folder: Path, case: str, size: int, count: int) -> float:
    """Count the instructions of each of ``count`` activations, after a quarter as many.

    ``folder`` has the compiled loop and the marks.
    """
    loop = "PoolLoop" if case == "a run in a pool" else "SchedulerLoop"
    prepare, run = CASES[case]
    code = f"""
import ctypes, os, step_loop
marks = ctypes.CDLL({str(folder / "marks.so")!r})
loop = step_loop.{loop}({size})
{prepare}
loop.{run}({max(1, count // 4)})
marks.begin()
loop.{run}({count})
marks.end()
os._exit(0)  # without tearing down what was set up
"""
    core = Path(acs_core.__file__).parents[1]
    paths = [str(folder), str(core), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
            *(f"--callgrind-out-file={folder / 'callgrind.out'}", sys.executable, "-c", code),
        ],
        # The same hashes in every run.
        env={**os.environ, "PYTHONPATH": ":".join(paths), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"callgrind_step: valgrind failed: {done.stderr}")
    return int(found[1]) / count


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="instructions per activation")
    options.add_argument("--queues", default="1,1000", help="e.g. 1,1000,100000")
    options.add_argument("--activations", type=int, default=20_000)
    options.add_argument("--cases", default=",".join(CASES))
    options.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    options.add_argument("--check", type=Path, metavar="FILE", help="raw numbers to compare with")
    chosen = options.parse_args(arguments)
    if shutil.which("valgrind") is None:
        raise SystemExit("callgrind_step: valgrind is not installed")
    results: Counts = {}
    with tempfile.TemporaryDirectory(prefix="acs-bench-") as folder:
        try:
            build_loop(Path(folder))
        except CannotBuild as error:
            raise SystemExit(f"callgrind_step: no compiled loop: {error}") from None
        build_marks(Path(folder))
        sizes = [int(size) for size in chosen.queues.split(",")]
        for case in chosen.cases.split(","):
            results[case] = {}
            for size in sizes:
                each = instructions(Path(folder), case, size, chosen.activations)
                results[case][str(size)] = each
                growth = each / results[case][str(sizes[0])]
                print(f"{case:18} {size:7,}  {each:8,.0f} instructions  x {growth:.2f}", flush=True)
    if chosen.json is not None:
        document = {
            "versions": versions(),
            "activations": chosen.activations,
            "instructions": results,
        }
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    if chosen.check is not None:
        before = json.loads(chosen.check.read_text())
        same = before["versions"] == versions()
        if not same:
            print(f"callgrind_step: {chosen.check.name} was counted under {before['versions']}")
            print("callgrind_step: only growth is compared here")
        found = regressions(results, before["instructions"], same)
        for line in found:
            print(f"callgrind_step: {line}")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
