"""``bench/simulated_talk.py``: a mix under every scheduler, and what is no mix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "simulated_talk.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_mix_under_every_scheduler(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    done = run("--mixes", "4x2", "--seconds", "4", "--json", str(path))
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    assert [each["side"] for each in results] == ["sharding", "fit", "openwhisk"]
    # Four users, a slot each, 11.7 ms of it and the links for a run.
    assert 300 < results[0]["tps"] < 4 / 0.0117
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments", [["--mixes", "4"], ["--mixes", "0x1"], ["--sides", "x"], ["--seconds", "1"]]
)
def test_a_bad_command_line(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "as 2000x100, both 1 or more; --seconds: 2 or more; --sides: of" in done.stderr
