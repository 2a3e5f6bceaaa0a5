"""``acs replay --server``: a load sent to a running server, and what can go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from node.server import rest_client, running_server

from acs_core.workload import Shape, read_workload
from acs_node.cli import main
from acs_node.live_replay import LiveReplay, percentiles

LOAD = "app,func,end_timestamp,duration\na,f,1.0,0.5\na,f,1.5,0.5\na,g,2.0,1.0\na,f,3.0,0.1\n"


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(LOAD)
    return path


def acs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize("scheduler", ["pull", "sharding"])
def test_a_load_is_sent_to_a_server_and_its_actions_are_removed(load: Path, scheduler: str) -> None:
    with running_server("--scheduler", scheduler) as server:
        at = ("--apihost", server.url, "--auth", server.auth)
        done = acs(*at, "replay", load, "--server", "--speed", "10", "--json")
        assert done.exit_code == 0, done.output
        report = json.loads(done.output)
        assert report["calls"] == report["answered"] == 4
        assert 2 <= report["cold"] <= 4, "each of two actions begins cold"
        assert report["refused"] == report["open"] == report["failed"] == 0
        assert report["latency_ms"]["p99"] >= report["wait_ms"]["p50"] >= 0
        assert report["elapsed_s"] >= 0.24, "the last call comes 2.4 s after the first"
        with rest_client(server) as client:
            assert client.get("namespaces/_/actions").json() == []
        shown = acs(*at, "replay", load, "--server", "--speed", "10")
        assert shown.exit_code == 0, shown.output
        assert "4 calls of 2 actions" in shown.output
        assert "latency" in shown.output


def test_a_server_that_is_not_there(load: Path) -> None:
    done = acs("--apihost", "http://127.0.0.1:9", "--auth", "a:b", "replay", load, "--server")
    assert done.exit_code == 4
    assert "cannot create an action" in done.output


def test_a_trace_of_decisions_has_no_calls_to_send(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text('{"acs_trace": 1}\n')
    done = acs("replay", trace, "--server")
    assert done.exit_code == 2
    assert "no calls to send" in done.output


async def test_each_kind_of_answer_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = [{"key": "waitTime", "value": 7}, {"key": "initTime", "value": 3}]
    answers = iter(
        [
            httpx.Response(200, json={"annotations": annotations}),
            httpx.Response(200, json={"annotations": annotations[:1]}),
            httpx.Response(202, json={}),
            httpx.Response(429, json={}),
            httpx.Response(503, json={}),
            httpx.Response(502, json={}),
            httpx.ConnectError("planted"),
        ]
    )

    def answer(request: httpx.Request) -> httpx.Response:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    made = httpx.AsyncClient

    def client(**settings: object) -> httpx.AsyncClient:
        return made(transport=httpx.MockTransport(answer))

    monkeypatch.setattr("acs_node.live_replay.httpx.AsyncClient", client)
    rows = "".join([f"a,f,{number}.0,0.5\n" for number in range(1, 8)])
    workload = read_workload(iter(f"app,func,end_timestamp,duration\n{rows}".splitlines(True)))
    shares: list[float] = []
    live = LiveReplay(lambda action: f"http://server/{action}", {}, speed=1_000)
    report = await live.run(workload, 0, Shape.POISSON, shares.append)
    assert (report.calls, report.answered, report.cold) == (7, 2, 1)
    assert (report.open, report.refused, report.failed) == (1, 2, 2)
    assert report.wait_ms["p99"] == 7
    assert shares, "there is progress"


def test_percentiles_are_values_that_were_there() -> None:
    assert percentiles([]) == {}
    assert percentiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p90": 3.0, "p99": 3.0, "p99.9": 3.0}
