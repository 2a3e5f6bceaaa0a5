"""The models of the protocol: searched to their end without an error, and each planted fault found.

docs/protocol-model.md says what is modelled.  A fault is a preprocessor switch of its model.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from requirements import missing

HERE = Path(__file__).parent
MEMORY_MB = 2000
DEPTH_MAX = 200_000
SEARCH_S = 600.0
"""Against a search that hangs; it takes far less."""

FAULTS = [
    ("delivery", "ADOPTION", "running"),
    ("delivery", "EPOCH", "ended"),
    ("delivery", "RETURN", "ended"),
    ("delivery", "REDELIVERY", "starts"),
    ("delivery", "UNKNOWN", "starts"),
    ("delivery", "AWAIT", "starts"),
    ("delivery", "FENCE", "starts"),
    ("creation", "GUARD", "i_lease"),
    ("creation", "CONVERSION", "i_lease"),
    ("creation", "EARLY_DELETE", "i_lease"),
    ("creation", "LEASE", "serving"),
    ("creation", "LEAK", "box"),
    ("creation", "ORPHAN", "box"),
]


ENDLESS = [("creation", ""), ("delivery", "-DSMALL")]
"""What is searched for endless loops, which doubles the states: the second one made smaller."""

LOOPS = [("creation", "RETRY"), ("delivery", "BOUNCE")]


def search(folder: Path, model: str, *switches: str, loops: bool = False) -> str:
    """Search the state space of ``model``; returns spin's report.

    ``loops``: for ways to go on for ever without getting anywhere, else for broken rules.
    """
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            missing("spin", f"{program} is not installed")
    source = str(HERE / f"{model}.pml")
    kind = "-DNP" if loops else "-DSAFETY"
    compiler = ["gcc", "-O2", "-w", kind, "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", "-o", "pan"]
    subprocess.run(["spin", *switches, "-a", source], cwd=folder, check=True, capture_output=True)
    subprocess.run([*compiler, "pan.c"], cwd=folder, check=True, capture_output=True)
    verifier = [str(folder / "pan"), f"-m{DEPTH_MAX}", *(["-l"] if loops else [])]
    ran = subprocess.run(
        verifier, cwd=folder, capture_output=True, text=True, timeout=SEARCH_S, check=False
    )
    return ran.stdout


@pytest.mark.parametrize("model", ["creation", "delivery"])
def test_the_whole_state_space_is_searched_without_an_error(model: str, tmp_path: Path) -> None:
    assert_complete(search(tmp_path, model))


@pytest.mark.parametrize(("model", "smaller"), ENDLESS)
def test_nothing_goes_on_for_ever_but_runs_of_functions(
    model: str, smaller: str, tmp_path: Path
) -> None:
    assert_complete(search(tmp_path, model, *smaller.split(), loops=True))


@pytest.mark.parametrize(("model", "fault"), LOOPS)
def test_a_planted_endless_loop_is_found(model: str, fault: str, tmp_path: Path) -> None:
    smaller = dict(ENDLESS)[model].split()
    report = search(tmp_path, model, *smaller, f"-DFAULT_{fault}", loops=True)
    assert "non-progress cycle" in report, report


def assert_complete(report: str) -> None:
    """Assert that all was searched and no error found."""
    assert "errors: 0" in report, report
    # Cut short, by memory or depth, it would have proved nothing.
    assert "Search not completed" not in report, report
    assert "max search depth too small" not in report, report


@pytest.mark.parametrize(("model", "fault", "rule"), FAULTS)
def test_a_planted_fault_is_found_by_its_rule(
    model: str, fault: str, rule: str, tmp_path: Path
) -> None:
    report = search(tmp_path, model, f"-DFAULT_{fault}")
    violated = re.search(r"assertion violated (.*)", report)
    assert violated is not None, report
    assert rule in violated[1], report
