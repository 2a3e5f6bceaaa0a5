"""Functions that call functions: the key of a run, and the chain of callers that it tells."""

import json
from typing import Any

import httpx
import pytest
from node.server import rest_client, running_server

from acs_core.limits import CAUSES_MAX
from acs_node.demo import ServerProcess
from acs_node.run_keys import SECRET_BYTES, RunKeys

ID = 32 * "a"
UUID = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502"
KEYS = RunKeys(bytes(SECRET_BYTES))

# Calls itself so many times in each other, and says what it was answered.
NEST = """
import base64, http.client, json, os, urllib.parse
def main(args):
    key = os.environ["__OW_API_KEY"]
    if not args.get("depth"):
        return {"key": key, "given": args.get("key")}
    server = http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["__OW_API_HOST"]).netloc)
    path = "/api/v1/namespaces/_/actions/nest?blocking=true&result=true"
    headers = {
        "Authorization": "Basic " + base64.b64encode(key.encode()).decode(),
        "Content-Type": "application/json",
    }
    server.request("POST", path, json.dumps({"depth": args["depth"] - 1}), headers)
    answer = server.getresponse()
    return {"status": answer.status, "said": json.loads(answer.read())}
"""


def test_a_key_is_its_activations_own_until_its_time_is_over() -> None:
    key = KEYS.key(UUID, ID, 1000)
    assert KEYS.chain_of(UUID, key, 1000) == (ID,)
    assert KEYS.chain_of(UUID, key, 1001) == ()


def test_a_key_says_who_waits_for_its_activation_as_far_as_calls_nest() -> None:
    callers = tuple([f"{n:032x}" for n in range(CAUSES_MAX)])
    assert KEYS.chain_of(UUID, KEYS.key(UUID, ID, 1000, callers), 1000) == (*callers, ID)
    assert KEYS.chain_of(UUID, KEYS.key(UUID, ID, 1000, (*callers, ID)), 1000) == ()


@pytest.mark.parametrize(
    "key",
    [
        "",
        64 * "A",
        KEYS.key("another", ID, 1000),
        RunKeys(SECRET_BYTES * b"x").key(UUID, ID, 1000),
        KEYS.key(UUID, ID, 1000).replace("a", "b", 1),
        KEYS.key(UUID, ID, 1000).replace("0000000003e8", "0000000003e9"),
        KEYS.key(UUID, ID, 1000) + "0",
        KEYS.key(UUID, ID, 1000).replace("run-", f"run-{32 * 'b'}."),
        KEYS.key(UUID, ID, 1000, (32 * "b",)).replace(f"{32 * 'b'}.", ""),
    ],
)
def test_any_other_key_is_none(key: str) -> None:
    assert KEYS.chain_of(UUID, key, 0) == ()


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret has 31 bytes; it must have 32"):
        RunKeys(bytes(31))


def put(client: httpx.Client, provide: bool = True) -> None:
    document = {
        "exec": {"kind": "python:3", "code": NEST},
        "annotations": [{"key": "provide-api-key", "value": provide}],
    }
    client.put("namespaces/_/actions/nest?overwrite=true", json=document).raise_for_status()


def nest(client: httpx.Client, depth: int) -> Any:
    query = "blocking=true&result=true"
    return client.post(f"namespaces/_/actions/nest?{query}", json={"depth": depth}).json()


def as_function(server: ServerProcess, key: str) -> int:
    """Return the status of a request with a function's key."""
    user, _, secret = key.partition(":")
    url = f"{server.url}/api/v1/namespaces/_/actions"
    return httpx.get(url, auth=(user, secret), trust_env=False).status_code


def test_calls_go_as_deep_as_the_reserve_and_say_why_not_deeper() -> None:
    # Two containers, of which one is kept for calls.
    with running_server("--containers", "2") as server, rest_client(server) as client:
        put(client)
        assert nest(client, 1)["status"] == 200
        refused = nest(client, 2)["said"]
        assert refused["status"] == 429
        error = refused["said"]["error"]
        assert error.startswith("Too many concurrent requests in flight: ")
        assert "guest/nest" in error, error
        # Nothing is left of it: the next calls work.
        assert nest(client, 1)["status"] == 200


def test_every_run_has_a_key_of_its_own_and_no_record_shows_it() -> None:
    with running_server() as server, rest_client(server) as client:
        put(client)
        first, second = nest(client, 0)["key"], nest(client, 0)["key"]
        assert first != second
        assert first.split(":")[0] == server.auth.split(":")[0]
        assert as_function(server, first) == 200
        assert as_function(server, f"{first}0") == 401
        for row in client.get("namespaces/_/activations?docs=true").json():
            row["response"] = {}
            assert "run-" not in json.dumps(row)
        assert "run-" not in server.output
        put(client, provide=False)
        assert "__OW_API_KEY" in nest(client, 0)["error"]
