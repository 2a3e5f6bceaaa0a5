"""``bench/docker_daemon.py`` on a real engine: both cycles are measured, nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from docker import DockerClient

BENCH = Path(__file__).parents[2] / "bench" / "docker_daemon.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.usefixtures("docker_images")
def test_both_cycles_are_measured(tmp_path: Path, docker_client: DockerClient) -> None:
    path = tmp_path / "daemon.json"
    done = run("--users", "2", "--networks", "none", "--seconds", "0.2", "--json", str(path))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cells = json.loads(path.read_text())["cells"]
    assert [(cell["cycle"], cell["users"]) for cell in cells] == [
        ("run-rm", 2),
        ("pause-unpause", 2),
    ]
    # Engines fail now and then at a pause when much is asked of them; that is told.
    assert done.returncode == any(cell["errors"] for cell in cells)
    for cell, operations in zip(cells, (["run", "rm"], ["pause", "unpause"]), strict=True):
        assert list(cell["latencies_ms"]) == operations
        assert cell["cycles"] >= 2
    left = docker_client.containers.list(all=True, filters={"label": "acs-docker-daemon-bench"})
    assert left == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users", "0"], "--users 0: numbers in 1..200"),
        (["--users", "many"], "--users many: numbers in 1..200"),
        (["--seconds", "0"], "--seconds: more than 0"),
        (["--cycles", "run"], "--cycles run: it must be of run-rm, pause-unpause"),
    ],
)
def test_a_bad_command_line(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    done = run("--users", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("docker_daemon: connect: no answer from the Docker Engine at ")


@pytest.mark.usefixtures("docker_images")
def test_a_network_that_there_is_none_of() -> None:
    done = run("--users", "1", "--networks", "acs-no-such-network", "--seconds", "0.1")
    assert done.returncode != 0
    assert "acs-no-such-network" in done.stdout + done.stderr
