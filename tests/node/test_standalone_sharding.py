"""``acs standalone --scheduler sharding``: the baseline, in processes and in Docker."""

import json
from typing import Any

import httpx
import pytest
from docker import DockerClient
from node.server import rest_client, running_server
from node.test_standalone import invoke, processes, put, start_again, start_fails, status
from waiting import wait_until

from acs_node.sandboxes.docker_containers import INSTANCE_LABEL

SHARDING = ("--scheduler", "sharding")
SMALL = (*SHARDING, "--controllers", "2", "--invokers", "2", "--memory", "1024")
WHO = "def main(args):\n    print('I am', {name!r})\n    return {{'name': {name!r}, **args}}\n"
SLOW_S = 60.0


def test_more_actions_than_containers_are_all_served() -> None:
    with running_server(*SMALL) as server, rest_client(server, SLOW_S) as client:
        names = [f"act{number}" for number in range(6)]
        for name in names:
            put(client, name, WHO.format(name=name))
        for turn in range(2):
            for name in names:
                reply = invoke(client, name, {"turn": turn})
                assert reply.json()["response"]["result"] == {"name": name, "turn": turn}
        found = wait_until(lambda: settled(client), "the removals")
        assert found["engine"]["removed"] >= 2, "some had to go"
        assert found["containers_created"] == found["engine"]["started"] >= 6
        assert found["activations"]["ended"] == 12
        assert processes(server), "they are processes"
        assert invokers(client) == {"invoker0/0/standalone", "invoker1/0/standalone"}
    assert processes(server) == [], "a stop leaves nothing behind"


def settled(client: httpx.Client) -> Any:
    """Return the status once nothing is being removed: 1024 MB are four containers.

    A pool that pushes does not wait for the memory of those that go.
    """
    found = status(client)
    return found if found["containers"] <= 4 else None


def invokers(client: httpx.Client) -> set[str]:
    return set(client.get(str(client.base_url.join("/invokers"))).json())


def test_functions_that_fail_and_the_ones_after_them() -> None:
    with running_server(*SMALL) as server, rest_client(server, SLOW_S) as client:
        put(client, "app", "def main(args):\n    return {'error': 'mine'}\n")
        put(client, "exit", "import os\ndef main(args):\n    os._exit(3)\n")
        put(client, "init", "raise ValueError('at load')\n")
        put(client, "slow", "import signal\ndef main(args):\n    signal.pause()\n",
            limits={"timeout": 200})  # fmt: skip
        put(client, "good", WHO.format(name="good"))
        for turn in range(2):
            for name, says in (
                ("app", "mine"),
                ("exit", "did not"),
                ("init", "at load"),
                ("slow", "time limit"),
            ):
                reply = invoke(client, name, {"turn": turn})
                assert reply.status_code == 502, reply.text
                assert says in json.dumps(reply.json()), reply.text
            assert invoke(client, "good", {"turn": turn}).json()["response"]["success"]
        assert status(client)["pending"] == 0


def test_a_changed_action_runs_its_new_code() -> None:
    with running_server(*SMALL) as server, rest_client(server, SLOW_S) as client:
        put(client, "act", WHO.format(name="old"))
        assert invoke(client, "act").json()["response"]["result"] == {"name": "old"}
        put(client, "act", WHO.format(name="new"))
        assert invoke(client, "act").json()["response"]["result"] == {"name": "new"}


def test_what_was_accepted_has_a_record_after_a_stop_and_logs() -> None:
    with running_server(*SMALL) as server:
        with rest_client(server, SLOW_S) as client:
            put(client, "act", WHO.format(name="act"))
            ids = [
                client.post("namespaces/_/actions/act", json={}).json()["activationId"]
                for _ in range(8)
            ]
        assert server.stop() == 0, server.output
        start_again(server)
        with rest_client(server) as client:
            for each in ids:
                record = client.get(f"namespaces/_/activations/{each}").json()
                assert record["response"]["success"], record
                assert "I am act" in json.dumps(record["logs"])


def test_a_killed_server_starts_again_and_removes_what_was_left() -> None:
    with running_server(*SMALL) as server:
        with rest_client(server, SLOW_S) as client:
            put(client, "act", WHO.format(name="act"))
            assert invoke(client, "act").status_code == 200
        server.kill()
        start_again(server)
        with rest_client(server, SLOW_S) as client:
            assert invoke(client, "act").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*SHARDING, "--containers", "3"), "--containers has no meaning here"),
        ((*SHARDING, "--trace", "t"), "--trace has no meaning here"),
        ((*SHARDING, "--shadow-rule", "fit"), "--shadow-rule has no meaning here"),
        (("--invokers", "2"), "--invokers has no meaning here: only --scheduler sharding"),
        (("--controllers", "2"), "--controllers has no meaning here: only --scheduler sharding"),
        (
            (*SHARDING, "--invokers", "10", "--memory", "1000"),
            "each of 10 invokers would have 100 MB; it needs at least 128 MB",
        ),
    ],
)
def test_an_option_that_would_not_be_heeded_is_refused(
    arguments: tuple[str, ...], says: str
) -> None:
    assert says in start_fails("--sandbox", "process", *arguments)


@pytest.mark.usefixtures("docker_images")
def test_it_runs_in_docker_and_leaves_nothing_behind(docker_client: DockerClient) -> None:
    with running_server(*SMALL, sandbox="docker") as server, rest_client(server, SLOW_S) as client:
        names = [f"act{number}" for number in range(5)]
        for name in names:
            put(client, name, WHO.format(name=name))
        for name in [*names, *names]:
            assert invoke(client, name).json()["response"]["result"] == {"name": name}
        found = wait_until(lambda: settled(client), "the removals", SLOW_S)
        assert found["sandbox"] == "docker"
        assert found["engine"]["removed"] >= 1
        instance = (server.data / "instance").read_text()
        mine = {"label": f"{INSTANCE_LABEL}={instance}"}
        assert len(docker_client.api.containers(all=True, filters=mine)) == found["containers"]
    assert docker_client.api.containers(all=True, filters=mine) == []
