"""``acs replay`` of a load and ``acs plan``: what they print and end with, and each fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from acs_core.workload import read_workload
from acs_node.cli import main
from acs_node.workload_file import TRACES, shipped

LOAD = "HashFunction,1,2\nf,5,5\ng,0,3\n"


def acs(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], input=text)


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(LOAD)
    return path


def test_shipped_loads_are_whole() -> None:
    assert shipped() == ["azure2019", "azure2021"]
    sizes = {}
    for name in shipped():
        with open(TRACES / f"{name}.csv") as lines:
            workload = read_workload(lines)
        sizes[name] = (len(workload.names), workload.count)
    assert sizes == {"azure2019": (50, 23076), "azure2021": (31, 199)}
    assert "Attribution 4.0" in (TRACES / "LICENSE.CC-BY-4.0").read_text()


def test_a_load_under_every_rule(load: Path) -> None:
    result = acs("replay", load)
    assert result.exit_code == 0, result.output
    first, columns, *rows = result.output.splitlines()
    assert first.startswith("13 calls of 2 actions in 2.0 minutes on 4 invokers of 8192 MB")
    assert columns.split()[:3] == ["Rule", "Run", "Refused"]
    assert [row.split()[:2] for row in rows] == [
        ["fit", "13"],
        ["openwhisk", "13"],
        ["sharding", "13"],
    ]


def test_a_shipped_load_of_some_minutes_as_json() -> None:
    arguments = ["azure2021", "--json", "--rule", "openwhisk", "--minutes", "3", "--memory", "512"]
    report = json.loads(acs("replay", *arguments).output)
    assert list(report) == ["openwhisk"]
    assert report["openwhisk"]["ended"] == report["openwhisk"]["arrived"] > 0
    assert report["openwhisk"]["started_twice"] == 0


def test_the_seed_and_the_shape_change_what_comes(load: Path) -> None:
    def wait(*options: str) -> dict[str, float]:
        result = acs("replay", load, "--rule", "sharding", "--json", *options)
        waits: dict[str, float] = json.loads(result.output)["sharding"]["latency"]
        return waits

    assert wait() == wait("--seed", "0")
    assert wait() != wait("--seed", "1")
    assert wait() != wait("--arrivals", "bursty")


def test_a_load_from_standard_input() -> None:
    assert acs("replay", "-", "--rule", "fit", text=LOAD).exit_code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("HashFunction,1\nf,-1\n", "line 2, column 1: '-1'; expected an integer in 0..10000000"),
        ("HashFunction,1\nf,\udcff\n", "line 2, column 1: '\\udcff'; expected an integer"),
        ("a,b\n", "line 1: the columns are 'a,b'; expected those of the Azure Functions traces"),
    ],
)
@pytest.mark.parametrize("command", [["replay"], ["plan", "--wait-p99", "1s"]])
def test_what_is_no_load(tmp_path: Path, command: list[str], text: str, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = acs(*command, path)
    assert result.exit_code == 2
    assert result.output.startswith(f"acs: {path}: {words}")


def test_a_load_that_is_missing() -> None:
    result = acs("plan", "nowhere", "--wait-p99", "1s")
    assert result.exit_code == 2
    assert "nowhere: it does not exist; shipped are azure2019, azure2021" in result.output


def test_sharding_decides_nothing_of_a_trace_of_decisions() -> None:
    path = Path(__file__).parents[1] / "core" / "traces" / "scheduler.ndjson"
    result = acs("replay", path, "--rule", "sharding")
    assert result.exit_code == 2
    assert "--rule sharding decides nothing" in result.output


def test_a_plan_and_what_if(load: Path) -> None:
    options = ["--wait-p99", "1.5s", "--invoker-memory", "512", "--what-if", "keep-alive=120s"]
    result = acs("plan", load, *options, "--what-if", "prewarm=1", "--what-if", "cap=1")
    assert result.exit_code == 0, result.output
    answers = [line for line in result.stdout.splitlines() if " container seconds" in line]
    assert answers[0].startswith("as asked: ")
    assert " invokers of 512 MB, p99 " in answers[0]
    assert ", margin " in answers[0]
    assert any("1 invokers: p99 " in line for line in result.stderr.splitlines())


def test_a_plan_as_json(load: Path) -> None:
    result = acs("plan", load, "--wait-p99", "2s", "--what-if", "rule=sharding", "--json")
    answers = json.loads(result.stdout)
    assert list(answers) == ["as asked", "rule=sharding"]
    asked = answers["as asked"]
    assert asked["met"] is True
    assert asked["invokers"] in [invokers for invokers, _, enough in asked["tried"] if enough]
    assert asked["report"]["wait"]["p99_ms"] <= 2000


def test_a_target_that_cannot_be_met(load: Path) -> None:
    result = acs("plan", load, "--wait-p99", "1ms", "--most", "4")
    assert result.exit_code == 1
    assert "as asked: cannot be met with up to " in result.stdout
    assert "the best is " in result.stdout
    answer = json.loads(acs("plan", load, "--wait-p99", "1ms", "--most", "4", "--json").stdout)
    assert answer["as asked"]["met"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wait-p99", "50"], "'50' is no time; it must be as 50ms or 1.5s"),
        (["--wait-p99", "1s", "--what-if", "colour=red"], "it must be NAME=VALUE with one of rule"),
        (["--wait-p99", "1s", "--what-if", "rule=x"], "rule=x: the value must be one of fit"),
        (["--wait-p99", "1s", "--what-if", "keep-alive=9"], "the value must be a time as 30s"),
        (["--wait-p99", "1s", "--what-if", "cap=0"], "the value must be how many containers"),
        (["--wait-p99", "1s", "--what-if", "prewarm=many"], "the value must be how many on each"),
    ],
)
def test_a_bad_command_line(load: Path, arguments: list[str], words: str) -> None:
    result = acs("plan", load, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
