"""Several controllers on one PostgreSQL database: any of them serves, and one may die."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cluster.load import WAITS, Client, Load, check
from cluster.started import started
from postgres import PostgresServer
from waiting import Gate, eventually, until, wait_until

from acs_node.cli import main
from acs_node.cluster.local import LocalCluster

# Calls itself at the next of the controllers, so many times in each other.
NEST = """
import base64, http.client, json, os, urllib.parse
def main(args):
    if not args["depth"]:
        return {"id": os.environ["__OW_ACTIVATION_ID"]}
    here, *others = args["urls"]
    server = http.client.HTTPConnection(urllib.parse.urlsplit(here).netloc)
    key = os.environ["__OW_API_KEY"].encode()
    headers = {
        "Authorization": "Basic " + base64.b64encode(key).decode(),
        "Content-Type": "application/json",
    }
    body = json.dumps({"depth": args["depth"] - 1, "urls": [*others, here]})
    path = "/api/v1/namespaces/_/actions/nest?blocking=true&result=true"
    server.request("POST", path, body, headers)
    answer = server.getresponse()
    said = {"status": answer.status, "said": json.loads(answer.read())}
    return {**said, "id": os.environ["__OW_ACTIVATION_ID"]}
"""


def two_controllers(postgres: PostgresServer, **settings: Any) -> Any:
    """Two controllers, one scheduler, one invoker; see ``started``."""

    def prepare(folder: Path) -> dict[str, Any]:
        url = folder / "database-url"
        url.touch(mode=0o600)
        url.write_text(postgres.new_database())
        return {"database_url_file": url}

    return started(prepare, controllers=2, schedulers=1, invokers=1, lease_s=2, **settings)


@pytest.fixture(scope="module")
def cluster(postgres: PostgresServer) -> Iterator[LocalCluster]:
    with two_controllers(postgres) as made:
        yield made


@pytest.fixture
async def clients(cluster: LocalCluster) -> list[Client]:
    return [Client(url, cluster.auth) for url in cluster.urls]


async def put(client: Client, name: str, code: str) -> None:
    body = {"exec": {"kind": "python:3", "code": code}, "limits": {"memory": 128, "logs": 0}}
    status, answer = await client.request("PUT", f"actions/{name}?overwrite=true", body)
    assert status == 200, answer


async def invoke(client: Client, name: str) -> object:
    status, answer = await client.request("POST", f"actions/{name}?blocking=true&result=true", {})
    assert status == 200, answer
    return answer


async def record(client: Client, activation_id: str) -> object:
    async def found() -> object:
        status, answer = await client.request("GET", f"activations/{activation_id}")
        return answer if status == 200 else None

    return await eventually(found, f"the record of {activation_id}", 30)


async def _answers(client: Client, wanted: object) -> bool:
    return await invoke(client, "act") == wanted


async def has_status(client: Client, wanted: Callable[[int], bool], method: str, path: str) -> None:
    async def seen() -> bool:
        body = {} if method == "POST" else None
        return wanted((await client.request(method, path, body))[0])

    await eventually(seen, f"another answer to {method} {path}", 30)


async def test_what_one_deploys_the_other_runs_and_both_have_the_records(
    clients: list[Client],
) -> None:
    here, there = clients
    for version in range(3):
        await put(here, "act", f"def main(args):\n    return {{'version': {version}}}")
        assert await invoke(here, "act") == {"version": version}
        # The watch takes its time; nothing but the newest may be seen after that.
        newest = partial(_answers, there, {"version": version})
        await eventually(newest, f"version {version} at the other", 30)
        assert await invoke(there, "act") == {"version": version}
    status, answer = await there.request("POST", "actions/act", {})
    assert status == 202
    assert await record(here, answer["activationId"]) == await record(there, answer["activationId"])
    assert (await here.request("DELETE", "actions/act"))[0] == 200
    await has_status(there, lambda status: status == 404, "POST", "actions/act?blocking=true")


async def test_a_limit_holds_over_both(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (cluster.folder / "database-url").read_text()
    monkeypatch.setenv("ACS_DATABASE_URL", url)
    data = ["--data", str(cluster.folder / "controller0" / "data")]
    arguments = ["namespace", "create", "limited", "--concurrent-invocations", "1", "--json"]
    shown = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, *data])
    assert shown.exit_code == 0, shown.output
    auth = json.loads(shown.stdout)["auth"]
    here, there = (Client(url, auth) for url in cluster.urls)
    # The one that is told tells the other.
    await has_status(there, lambda status: status != 401, "GET", "actions")
    await put(here, "waits", WAITS)
    await put(here, "quick", "def main(args):\n    return {}")
    go, started = Gate(tmp_path / "go"), tmp_path / "started"
    arguments_ = {"go": str(go), "started": str(started)}
    assert (await here.request("POST", "actions/waits", arguments_))[0] == 202
    await until(started.exists, "the run")
    # What is asked for here ends at once: what is refused then is refused for the other's.
    status = 200
    while status == 200:
        status, answer = await there.request("POST", "actions/quick?blocking=true", {})
    assert (status, answer["error"]) == (
        429,
        "Too many concurrent requests in flight (count: 1, allowed: 1).",
    )
    go.open()
    await has_status(there, lambda status: status != 429, "POST", "actions/quick?blocking=true")
    here.close()
    there.close()


async def test_a_killed_controller_loses_nothing_that_was_accepted(
    cluster: LocalCluster,
) -> None:
    folder = Path(tempfile.mkdtemp(dir=cluster.folder))
    loads = [Load(url, cluster.auth, folder / "runs", users=4) for url in cluster.urls]
    await loads[0].deploy()
    dies = cluster.of("controller")[1]
    stays, lost = loads

    def fault() -> None:
        def served(load: Load, count: int) -> None:
            before = len(load.answered_s)
            wait_until(lambda: len(load.answered_s) >= before + count, f"{count} answers", 60)

        for load in loads:
            served(load, 50)
        dies.kill()
        served(stays, 100)  # the other one serves on
        dies.start()
        served(lost, 50)

    done = asyncio.Event()

    async def other() -> None:
        # Its users go on until the fault is over.
        users = [asyncio.ensure_future(lost._user(n)) for n in range(lost.users)]
        await done.wait()
        lost._stopping = True
        await asyncio.gather(*users)

    running = asyncio.ensure_future(other())
    await stays.run(fault)
    done.set()
    await running
    assert stays.broken == 0
    assert set(stays.statuses) <= {200, 202}
    for load in loads:
        verdict = await check(load)
        print(dict(load.statuses), load.broken, "broken", str(verdict)[:400])
        assert (verdict.lost, verdict.twice, verdict.unrun, verdict.failed) == ([], [], [], [])
        if load is stays:
            assert verdict.unknown == 0


def test_several_controllers_need_a_database_for_all() -> None:
    shown = CliRunner().invoke(main, ["cluster", "up", "--controllers=2"])
    assert shown.exit_code == 2
    assert "more than one need a PostgreSQL database" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("postgresql://acs:hunter2@127.0.0.1/acs", 0o644, "has mode 0644; nobody else may read"),
        ("sqlite:///hunter2.db", 0o600, "has no URL of PostgreSQL"),
    ],
)
def test_a_wrong_url_is_told_and_not_shown(tmp_path: Path, text: str, mode: int, says: str) -> None:
    file = tmp_path / "url"
    file.write_text(text)
    os.chmod(file, mode)
    environment = {"ACS_NAME": "c0", "ACS_DATABASE_URL_FILE": str(file)}
    shown = CliRunner(env=environment).invoke(main, ["config", "check", "controller"])
    assert shown.exit_code == 2
    assert says in " ".join(shown.output.split())
    assert "hunter2" not in shown.output.replace(str(tmp_path), "")


async def test_a_call_at_another_controller_than_its_callers_has_the_whole_chain(
    postgres: PostgresServer,
) -> None:
    # Two containers, of which one is kept for calls.
    with two_controllers(postgres, namespace_containers=2) as cluster:
        here = Client(cluster.url, cluster.auth)
        document = {
            "exec": {"kind": "python:3", "code": NEST},
            "annotations": [{"key": "provide-api-key", "value": True}],
        }
        assert (await here.request("PUT", "actions/nest", document))[0] == 200
        path = "actions/nest?blocking=true&result=true"
        urls = cluster.urls[::-1]
        status, answer = await here.request("POST", path, {"depth": 1, "urls": urls})
        assert (status, answer["status"]) == (200, 200), answer
        status, outer = await here.request("POST", path, {"depth": 2, "urls": urls})
        assert status == 200
        inner = outer["said"]
        assert inner["status"] == 429, outer
        chain = " > ".join([outer["id"], inner["id"]])
        assert chain in inner["said"]["error"], "the refusal names who waits"
