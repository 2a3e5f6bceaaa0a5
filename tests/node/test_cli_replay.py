"""``acs replay``: what it prints and ends with; and the trace of a real server under load."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from node.server import rest_client, running_server
from waiting import wait_until

import acs_core
from acs_core.events import Activation, Adopted, Arrived, InvokerReported, QueueOpened, QueueSpec
from acs_core.scheduler import Scheduler, SchedulerConfig
from acs_core.trace import TraceWriter
from acs_node.cli import main
from acs_node.demo import LOAD_COUNT, WARM_COUNT, exercise


def acs_replay(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments)], input=text)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    scheduler = Scheduler(SchedulerConfig())
    writer = TraceWriter(scheduler.config)
    lines = [writer.header()]
    for at_us, event in enumerate(
        [
            InvokerReported("i", 1024),
            QueueOpened(QueueSpec("q", "n", "a", 0), 1),
            QueueOpened(QueueSpec("r", "n", "b", 0), 2),
            Adopted("i", "q", 1),
            Arrived("q", Activation("x", b"", 3)),
        ]
    ):
        lines.append(writer.line(event, at_us, scheduler.step(event, at_us)))
    path = tmp_path / "trace"
    path.write_text("".join([*lines, writer.end()]))
    return path


def test_an_exact_replay(trace: Path) -> None:
    result = acs_replay(trace)
    assert result.exit_code == 0, result.output
    first, second = result.output.splitlines()
    assert first.startswith("5 steps of a scheduler in 0.000 s, recorded by a ")
    assert second == "every effect is the same"


def test_invariants_are_asserted_if_asked(trace: Path) -> None:
    result = acs_replay(trace, "--check")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("every effect is the same\n")


def test_json(trace: Path) -> None:
    report = json.loads(acs_replay(trace, "--json").output)
    assert report["steps"] == 5
    assert report["complete"] is True
    assert report["difference"] is report["comparison"] is None


def test_standard_input(trace: Path) -> None:
    assert acs_replay("-", text=trace.read_text()).exit_code == 0


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        (
            '{"Adopt":{"queue":"r","epoch":2,"invoker":""}},{"CloseQueue":{"queue":"r","epoch":3}}',
            [
                '  same      {"Adopt":{"epoch":2,"invoker":"","queue":"r"}}',
                '  recorded  {"CloseQueue":{"epoch":3,"queue":"r"}}',
                "  now       (nothing)",
            ],
        ),
        (
            "",
            ["  recorded  (nothing)", '  now       {"Adopt":{"epoch":2,"invoker":"","queue":"r"}}'],
        ),
    ],
)
def test_a_difference(trace: Path, recorded: str, shown: list[str]) -> None:
    made = '"effects":[{"Adopt":{"queue":"r","epoch":2,"invoker":""}}]'
    text = trace.read_text()
    assert made in text
    trace.write_text(text.replace(made, f'"effects":[{recorded}]'))
    result = acs_replay(trace)
    assert result.exit_code == 1
    assert "end line" not in result.output
    assert result.output.splitlines()[1:] == [
        'line 4, at 2 us, differs: {"QueueOpened":{"spec":{"queue":"r","namespace":"n",'
        '"action":"b","revision":0,"memory_mb":256,"concurrency":1,"timeout_us":60000000,'
        '"action_limit":null,"kind":"","containers_min":0,"wait_target_us":null,'
        '"wait_max_us":null},"epoch":2,"history_us":0}}',
        *shown,
    ]
    as_json = acs_replay(trace, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.output)["difference"]["line"] == 4


def test_another_rule(trace: Path) -> None:
    result = acs_replay(trace, "--rule", "fit")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == (
        "of 1 decisions the other rule asks for more containers in 0, for fewer in 0, "
        "and for as many with another verdict in 0"
    )


def test_examples_of_another_rule() -> None:
    path = Path(__file__).parents[1] / "core" / "traces" / "scheduler.ndjson"
    result = acs_replay(path, "--rule", "openwhisk")
    assert result.exit_code == 0, result.output
    columns = next(line for line in result.output.splitlines() if line.startswith("Line"))
    assert columns.split() == ["Line", "Queue", "is", "Recorded", "Other", "rule"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the line is not JSON (it is empty); expected a header"),
        ("\udcff{}", "line 1: the line is not JSON"),
        ('{"format":"pcap"}', "line 1: format is 'pcap'; expected 'acs-trace'"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = acs_replay(path)
    assert result.exit_code == 2
    assert result.output.startswith(f"acs: {path}: {words}")


def test_a_trace_that_is_missing(tmp_path: Path) -> None:
    result = acs_replay(tmp_path / "none")
    assert result.exit_code == 2
    assert "does not exist" in result.output


def test_a_cut_trace(trace: Path) -> None:
    trace.write_text(trace.read_text()[:-20])
    result = acs_replay(trace)
    assert result.exit_code == 2
    assert "line 6: the line is not JSON" in result.output
    result = acs_replay(trace, "--cut")
    assert result.exit_code == 0
    assert result.output.startswith("4 steps of a scheduler")
    assert "the trace has no end line" in result.output


# --- a real server ---------------------------------------------------------------------------


def test_the_trace_of_a_server_under_load_replays_exactly(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with running_server("--trace", str(path), "--shadow-rule", "openwhisk") as server:
        asyncio.run(exercise(server.port, server.auth, lambda text: None))
        assert server.stop() == 0, server.output
    with path.open() as lines:
        assert '"shadow":{"OpenWhiskRule":' in lines.readline()
    result = acs_replay(path, "--json", "--rule", "openwhisk")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["complete"] is True
    assert report["difference"] is None
    # Each has arrived and ended.
    assert report["steps"] > 2 * (WARM_COUNT + LOAD_COUNT)
    assert report["comparison"]["decisions"] > 0
    assert replayed_plain(path, tmp_path) == f"False {report['steps']} None"


REPLAYS = """
import sys
from acs_core import COMPILED, trace
with open(sys.argv[1]) as lines:
    report = trace.replay(lines)
print(COMPILED, report.steps, report.difference)
"""


def replayed_plain(path: Path, folder: Path) -> str:
    """Return what the plain build of this very core makes of a trace."""
    package = folder / "plain" / "acs_core"
    package.mkdir(parents=True)
    for source in Path(acs_core.__file__).parent.glob("*.py"):
        shutil.copy(source, package)
    command = [sys.executable, "-P", "-c", REPLAYS, str(path)]
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_killed_server_leaves_a_cut_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    with running_server("--trace", str(path)) as server:
        asyncio.run(exercise(server.port, server.auth, lambda text: None))
        wait_until(lambda: path.stat().st_size > 0, "the first write")
        server.kill()
    assert acs_replay(path).exit_code == 2
    report = json.loads(acs_replay(path, "--json", "--cut").output)
    assert report["difference"] is None
    assert report["complete"] is False
    assert report["steps"] > WARM_COUNT


def test_a_full_disk_ends_the_trace_and_not_the_server() -> None:
    with running_server("--trace", "/dev/full") as server:
        asyncio.run(exercise(server.port, server.auth, lambda text: None))
        assert server.output.count("the trace /dev/full ends here: [Errno 28]") == 1
        with rest_client(server) as client:
            assert client.get("namespaces/_/actions").status_code == 200


def test_a_trace_that_cannot_be_opened_keeps_the_server_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "trace"
    arguments = ["standalone", "--port", "0", "--sandbox", "process", "--trace", str(path)]
    result = CliRunner(env={"HOME": str(tmp_path), "WSK_CONFIG_FILE": str(tmp_path / "w")}).invoke(
        main, [*arguments, "--data", str(tmp_path / "d")]
    )
    assert result.exit_code == 1
    assert f"the trace cannot be written to {path}: No such file" in result.output
