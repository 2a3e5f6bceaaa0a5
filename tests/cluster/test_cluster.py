"""A whole cluster as processes, with a real etcd: what clients get, and what dies may cost."""

import json
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from cluster.load import CODE, Client, Load, Verdict, check, pause
from cluster.started import started
from waiting import wait_until

from acs_node.cli import main
from acs_node.cluster.local import LocalCluster

LEASE_S = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One controller, two schedulers, two invokers."""
    with started(schedulers=2, invokers=2, lease_s=LEASE_S) as made:
        yield made


@pytest.fixture
async def client(cluster: LocalCluster) -> Client:
    return Client(cluster.url, cluster.auth)


def ready(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def put(client: Client, name: str, code: str) -> None:
    body = {"exec": {"kind": "python:3", "code": code}, "limits": {"memory": 128}}
    status, answer = await client.request("PUT", f"actions/{name}?overwrite=true", body)
    assert status == 200, answer


# --- without faults ------------------------------------------------------------------------------


async def test_blocking_and_non_blocking_invocations_end_in_records_with_logs(
    client: Client,
) -> None:
    code = "def main(args):\n    print('adding')\n    return {'sum': args['a'] + 1}"
    await put(client, "add", code)
    status, answer = await client.request("POST", "actions/add?blocking=true", {"a": 1})
    assert (status, answer["response"]["result"]) == (200, {"sum": 2})
    status, answer = await client.request("POST", "actions/add", {"a": 2})
    assert status == 202
    path = f"activations/{answer['activationId']}"
    status, record = await client.request("GET", path)
    while status == 404:
        status, record = await client.request("GET", path)
    assert record["response"]["result"] == {"sum": 3}
    assert [line.split(" ", 1)[1] for line in record["logs"]] == ["stdout: adding"]


async def test_errors_of_functions_and_of_code_arrive_as_such(client: Client) -> None:
    await put(client, "fails", "def main(args):\n    return {'error': 'no'}")
    status, answer = await client.request("POST", "actions/fails?blocking=true", {})
    assert (status, answer["response"]["result"]) == (502, {"error": "no"})
    await put(client, "broken", "def main(args:\n")
    status, answer = await client.request("POST", "actions/broken?blocking=true", {})
    assert (status, answer["response"]["status"]) == (502, "action developer error")


async def test_an_updated_action_is_what_runs_next(client: Client) -> None:
    for version in range(3):
        await put(client, "changes", f"def main(args):\n    return {{'version': {version}}}")
        status, answer = await client.request("POST", "actions/changes?blocking=true", {})
        assert (status, answer["response"]["result"]) == (200, {"version": version})


async def test_queues_are_on_both_schedulers_and_containers_on_both_invokers(
    cluster: LocalCluster, client: Client
) -> None:
    for n in range(12):
        await put(client, f"many{n}", "def main(args):\n    return {}")
        status, _ = await client.request("POST", f"actions/many{n}?blocking=true", {})
        assert status == 200
    schedulers = [ready(node.health)[1] for node in cluster.of("scheduler")]
    assert all(int(str(each["queues"])) > 0 for each in schedulers)
    invokers = [ready(node.health)[1] for node in cluster.of("invoker")]
    assert all(each["containers"]["created"] > 0 for each in invokers)  # type: ignore[index]


async def test_sequences_and_triggers_work_as_in_one_process(client: Client) -> None:
    code = "def main(args):\n    return {'n': args.get('n', 0) + 1}"
    await put(client, "add", code)
    sequence = {"exec": {"kind": "sequence", "components": ["/_/add", "/_/add"]}}
    assert (await client.request("PUT", "actions/twice?overwrite=true", sequence))[0] == 200
    path = "actions/twice?blocking=true&result=true"
    assert await client.request("POST", path, {"n": 1}) == (200, {"n": 3})
    assert (await client.request("PUT", "triggers/when?overwrite=true", {}))[0] == 200
    rule = {"trigger": "/_/when", "action": "/_/twice"}
    assert (await client.request("PUT", "rules/then?overwrite=true", rule))[0] == 200
    status, fired = await client.request("POST", "triggers/when", {"n": 5})
    assert status == 202
    _, record = await client.request("GET", f"activations/{fired['activationId']}")
    assert [json.loads(line)["success"] for line in record["logs"]] == [True]


def test_a_revoked_key_stops_while_the_controller_runs(cluster: LocalCluster) -> None:
    data = ["--data", str(cluster.folder / "controller0" / "data")]

    def namespace(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["namespace", *arguments, *data, "--json"])
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout).get("auth"))

    def until_it_gets(auth: str, status: int) -> None:
        user, _, key = auth.partition(":")
        url = f"{cluster.url}/api/v1/namespaces/_/actions"

        def gets_it() -> bool:
            return httpx.get(url, auth=(user, key), trust_env=False).status_code == status

        wait_until(gets_it, f"status {status}", 10)

    old = namespace("create", "dev")
    until_it_gets(old, 200)
    new = namespace("rotate-key", "dev")
    until_it_gets(old, 401)
    until_it_gets(new, 200)
    namespace("delete", "dev", "--force")
    until_it_gets(new, 401)


def test_the_controller_tells_its_invokers(cluster: LocalCluster) -> None:
    def told() -> object:
        try:
            with urllib.request.urlopen(f"{cluster.url}/invokers/ready", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    # The controller dials an invoker when it hears of it, in its own time.
    wait_until(lambda: told() == {"healthy": "2/2"}, "the links", 30)


def test_every_node_says_that_it_is_ready_and_with_whom_it_is_linked(
    cluster: LocalCluster,
) -> None:
    for node in cluster.nodes:
        status, document = ready(node.health)
        assert (status, document["ready"], document["name"]) == (200, True, node.name)
        links: dict[str, dict[str, object]] = document["links"]  # type: ignore[assignment]
        assert len(links) == (4 if node.role == "controller" else 3)
        assert all(link["up"] for link in links.values())


def test_health_knows_other_paths_too(cluster: LocalCluster) -> None:
    url = cluster.nodes[0].health
    with urllib.request.urlopen(f"{url}/health/live", timeout=5) as answer:
        assert json.load(answer) == {"live": True}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/else", timeout=5)


# --- faults --------------------------------------------------------------------------------------


async def load(cluster: LocalCluster, during: Callable[[], None]) -> tuple[Load, Verdict]:
    """Run a load with a fault in its middle, and check what became of it."""
    folder = Path(tempfile.mkdtemp(dir=cluster.folder))
    users = Load(cluster.url, cluster.auth, folder / "runs")
    await users.deploy()
    await users.run(during)
    verdict = await check(users)
    print(dict(users.statuses), users.broken, "broken", str(verdict)[:500])
    assert verdict.accepted > 200
    assert verdict.lost == []
    assert verdict.twice == []
    assert verdict.unrun == []
    return users, verdict


async def test_a_killed_scheduler_costs_nothing(cluster: LocalCluster) -> None:
    node = cluster.of("scheduler")[0]

    def fault() -> None:
        pause(1.5)
        node.kill()
        pause(LEASE_S + 2)
        node.start()
        pause(1)

    _, verdict = await load(cluster, fault)
    assert verdict.unknown == 0
    assert verdict.failed == []


async def test_a_stopped_scheduler_costs_nothing(cluster: LocalCluster) -> None:
    node = cluster.of("scheduler")[1]

    def restart() -> None:
        pause(1)
        assert node.stop() == 0
        pause(0.5)
        node.start()
        pause(1)

    users, verdict = await load(cluster, restart)
    assert (verdict.unknown, verdict.failed, users.broken) == (0, [], 0)
    assert set(users.statuses) <= {200, 202}


async def test_a_scheduler_that_slept_past_its_lease_delivers_nothing(
    cluster: LocalCluster,
) -> None:
    node = cluster.of("scheduler")[0]

    def fault() -> None:
        pause(1)
        node.signal(signal.SIGSTOP)
        pause(2 * LEASE_S + 1)
        node.signal(signal.SIGCONT)
        wait_until(lambda: not node.is_running(), "the zombie to end", 30)
        node.start()
        pause(1)

    _, verdict = await load(cluster, fault)
    assert verdict.unknown == 0
    assert verdict.failed == []


async def test_a_killed_invoker_costs_no_more_than_it_had(cluster: LocalCluster) -> None:
    node = cluster.of("invoker")[0]

    def fault() -> None:
        pause(1.5)
        node.kill()
        pause(LEASE_S + 2)
        node.start()
        pause(1)

    users, verdict = await load(cluster, fault)
    # A user has one that waits for it, and a few that are queued.
    assert verdict.unknown <= users.users * 2
    assert verdict.failed == []


async def test_a_drained_invoker_costs_nothing(cluster: LocalCluster) -> None:
    node = cluster.of("invoker")[1]

    def restart() -> None:
        pause(1)
        assert node.stop() == 0
        node.start()
        pause(1)

    users, verdict = await load(cluster, restart)
    assert (verdict.unknown, verdict.failed, users.broken) == (0, [], 0)
    assert set(users.statuses) <= {200, 202}


async def test_a_killed_controller_keeps_what_it_accepted(cluster: LocalCluster) -> None:
    node = cluster.of("controller")[0]

    def fault() -> None:
        pause(1.5)
        node.kill()
        node.start()
        pause(1.5)

    _, verdict = await load(cluster, fault)
    assert verdict.failed == []


async def test_work_goes_on_while_etcd_is_away(cluster: LocalCluster) -> None:
    away: list[float] = []

    def fault() -> None:
        pause(2)  # every queue has its containers
        cluster.etcd.kill()
        pause(LEASE_S + 2)
        away.append(time.monotonic())
        pause(1)
        away.append(time.monotonic())
        cluster.etcd.start()
        pause(3)

    users, verdict = await load(cluster, fault)
    assert verdict.unknown == 0
    meanwhile = [t for t in users.answered_s if away[0] < t < away[1]]
    assert len(meanwhile) > 20
    for node in cluster.nodes:
        assert node.is_running(), node.output()


def test_a_node_without_etcd_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acs_node.cluster import process, scheduler
    from acs_node.cluster.config import read_config

    monkeypatch.setattr(process, "START_S", 0.2)
    monkeypatch.setattr("acs_node.etcd.CALL_S", 0.2)
    config, _ = read_config("scheduler", environ={}, flags={"name": "s0", "etcd": "127.0.0.1:1"})
    assert scheduler.run_scheduler(config) == 1


def test_the_code_of_the_load_is_python() -> None:
    compile(CODE, "load", "exec")
