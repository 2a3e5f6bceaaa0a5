"""Triggers and rules by HTTP: what is stored, what is refused, and what firing does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from node.house import ECHO
from node.rest import T0, Server, open_server, open_whole_server

NAMESPACES = "/api/v1/namespaces"
TRIGGERS = f"{NAMESPACES}/_/triggers"
RULES = f"{NAMESPACES}/_/rules"
EXEC = {"kind": "python:3", "code": ECHO}
NOT_THERE = "The requested resource does not exist."


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(tmp_path) as server:
        yield server


def pairs(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


async def put(server: Server, path: str, **body: Any) -> Any:
    response = await server.call("PUT", f"{NAMESPACES}/_/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def read(server: Server, path: str) -> Any:
    response = await server.call("GET", f"{NAMESPACES}/_/{path}")
    assert response.status_code == 200, response.text
    return response.json()


async def one_rule(server: Server, rule: str = "rule") -> Any:
    """Make a trigger, an action and the rule that joins them."""
    await put(server, "triggers/when?overwrite=true")
    await put(server, "actions/act?overwrite=true", exec=EXEC)
    return await put(server, f"rules/{rule}", trigger="/_/when", action="/guest/act")


async def switch(server: Server, rule: str, status: Any) -> Any:
    return await server.call("POST", f"{RULES}/{rule}", json={"status": status})


# Triggers.


async def test_a_trigger_is_created_read_listed_changed_and_deleted(server: Server) -> None:
    created = await put(server, "triggers/when", parameters=pairs(a=1), annotations=pairs(x=1))
    summary = {
        "namespace": "guest",
        "name": "when",
        "version": "0.0.1",
        "publish": False,
        "updated": T0,
        "annotations": pairs(x=1),
    }
    assert created == {**summary, "parameters": pairs(a=1), "limits": {}}
    assert await read(server, "triggers/when") == created
    assert await read(server, "triggers") == [summary]
    assert await read(server, "triggers?count=true") == {"triggers": 1}
    assert (await server.error("PUT", f"{TRIGGERS}/when", json={}))[0] == 409
    changed = await put(server, "triggers/when?overwrite=true", parameters=[], publish=True)
    assert (changed["version"], changed["parameters"]) == ("0.0.2", [])
    assert (changed["annotations"], changed["publish"]) == (pairs(x=1), True)
    deleted = await server.call("DELETE", f"{TRIGGERS}/when")
    assert (deleted.status_code, deleted.json()) == (200, changed)
    for method in ("GET", "DELETE"):
        assert await server.error(method, f"{TRIGGERS}/when") == (404, NOT_THERE)


@pytest.mark.parametrize(
    ("name", "body", "status", "text"),
    [
        ("t", {"annotations": pairs(feed="/a/b/c/d")}, 400, "Feed name is not valid"),
        ("t", {"annotations": pairs(feed=1)}, 400, "Feed name is not valid"),
        ("t", {"limits": []}, 400, None),
        ("t", {"limits": 1}, 400, "malformed:\nlimits must be an object"),
        ("t", {"parameters": {}}, 400, "malformed:\nparameters malformed!"),
        ("t", {"parameters": pairs(a="x" * 1000)}, 413, "parameters larger than allowed: 1003"),
        ("act", {}, 409, "Resource by this name exists but is not in this collection."),
    ],
)
async def test_a_trigger_that_cannot_be_is_refused(
    server: Server, name: str, body: Any, status: int, text: str | None
) -> None:
    await put(server, "actions/act", exec=EXEC)
    if text is None:  # an empty list says as little as an empty object
        await put(server, f"triggers/{name}", **body)
        return
    told, error = await server.error("PUT", f"{TRIGGERS}/{name}?overwrite=true", json=body)
    assert (told, text in error) == (status, True), error


async def test_a_valid_feed_is_an_annotation(server: Server) -> None:
    made = await put(server, "triggers/t", annotations=pairs(feed="/ns/pkg/feed"))
    assert made["annotations"] == pairs(feed="/ns/pkg/feed")


# Rules.


async def test_a_rule_joins_a_trigger_and_an_action(server: Server) -> None:
    created = await one_rule(server)
    summary = {
        "namespace": "guest",
        "name": "rule",
        "version": "0.0.1",
        "publish": False,
        "updated": T0,
        "annotations": [],
        "trigger": {"path": "guest", "name": "when"},
        "action": {"path": "guest", "name": "act"},
    }
    assert created == {**summary, "status": "active"}
    assert await read(server, "rules/rule") == created
    assert await read(server, "rules") == [summary]
    assert await read(server, "rules?count=true") == {"rules": 1}
    reaction = {"action": {"path": "guest", "name": "act"}, "status": "active"}
    assert (await read(server, "triggers/when"))["rules"] == {"guest/rule": reaction}
    deleted = await server.call("DELETE", f"{RULES}/rule")
    assert (deleted.status_code, deleted.json()) == (200, {**summary, "status": "inactive"})
    assert "rules" not in await read(server, "triggers/when")
    for method, body in (("GET", None), ("DELETE", None), ("POST", {"status": "active"})):
        assert await server.error(method, f"{RULES}/rule", json=body) == (404, NOT_THERE)


async def test_a_rule_is_switched_off_and_on(server: Server) -> None:
    await one_rule(server)
    for status in ("inactive", "inactive", "active"):
        response = await switch(server, "rule", status)
        assert (response.status_code, response.content) == (200, b"")
        assert (await read(server, "rules/rule"))["status"] == status
    for wrong in ("on", 1, None):
        assert (await switch(server, "rule", wrong)).status_code == 400


async def test_a_changed_rule_stays_what_it_was(server: Server) -> None:
    await one_rule(server)
    await put(server, "triggers/then")
    await put(server, "packages/p")
    await put(server, "actions/p/act", exec=EXEC)
    await switch(server, "rule", "inactive")
    changed = await put(
        server, "rules/rule?overwrite=true", trigger="/_/then", action="/_/p/act", version="1.0.0"
    )
    assert (changed["status"], changed["version"]) == ("inactive", "1.0.0")
    assert changed["action"] == {"path": "guest/p", "name": "act"}
    assert "rules" not in await read(server, "triggers/when")
    rules = (await read(server, "triggers/then"))["rules"]
    assert rules["guest/rule"]["action"] == {"path": "guest/p", "name": "act"}
    changed = await put(server, "rules/rule?overwrite=true", annotations=pairs(x=1))
    assert (changed["version"], changed["annotations"]) == ("1.0.1", pairs(x=1))
    changed = await put(server, "rules/rule?overwrite=true", trigger={"path": "_", "name": "when"})
    assert changed["trigger"] == {"path": "guest", "name": "when"}
    assert (await server.error("PUT", f"{RULES}/rule", json={}))[0] == 409


async def test_a_rule_without_its_trigger_is_inactive(server: Server) -> None:
    await one_rule(server)
    await server.call("DELETE", f"{TRIGGERS}/when")
    assert (await read(server, "rules/rule"))["status"] == "inactive"
    assert await server.error("POST", f"{RULES}/rule", json={"status": "active"}) == (
        404,
        "Only rules with existing triggers can be activated",
    )
    assert (await server.call("DELETE", f"{RULES}/rule")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "rule requires a valid trigger and a valid action"),
        ({"trigger": "/_/when"}, 400, "rule requires a valid trigger and a valid action"),
        ({"trigger": "/_/x", "action": "/_/act"}, 400, "trigger /guest/x does not exist"),
        ({"trigger": "/_/when", "action": "/_/x"}, 400, "action /guest/x does not exist"),
        ({"trigger": "/_/when", "action": "/_/p/x"}, 400, "action /guest/p/x does not exist"),
        ({"trigger": "/o/when", "action": "/_/act"}, 403, "not authorized to access 'o/when'"),
        ({"trigger": "/_/when", "action": "/o/act"}, 403, "not authorized to access 'o/act'"),
        ({"trigger": "/_/act", "action": "/_/act"}, 409, "is not in this collection."),
        ({"trigger": "when", "action": "/_/act"}, 400, "malformed:\ntrigger must be a name such"),
        ({"trigger": {"path": 1}, "action": "/_/act"}, 400, "trigger must be a name such as"),
        ({"trigger": "/_/when", "action": "/_/a/b/c"}, 400, "contains illegal characters."),
    ],
)
async def test_a_rule_that_cannot_be_is_refused(
    server: Server, body: Any, status: int, text: str
) -> None:
    await one_rule(server)
    told, error = await server.error("PUT", f"{RULES}/new", json=body)
    assert (told, text in error) == (status, True), error
    assert (await read(server, "rules?count=true")) == {"rules": 1}


# Firing.


async def fire(server: Server, body: Any = None) -> Any:
    return await server.call("POST", f"{TRIGGERS}/when", json=body)


async def test_firing_invokes_the_actions_of_active_rules_and_records_what_came_of_it() -> None:
    async with open_whole_server() as (server, house):
        await one_rule(server)
        await put(server, "rules/off", trigger="/_/when", action="/_/act")
        await put(server, "triggers/when?overwrite=true", parameters=pairs(a="trigger", b=1))
        await switch(server, "off", "inactive")
        response = await fire(server, {"a": "body"})
        assert response.status_code == 202
        activation_id = response.json()["activationId"]
        assert response.headers["x-openwhisk-activation-id"] == activation_id
        record = await read(server, f"activations/{activation_id}")
        lines = {line["rule"]: line for line in map(json.loads, record.pop("logs"))}
        run_id = lines["guest/rule"].pop("activationId")
        assert lines == {
            "guest/rule": {
                "statusCode": 0, "success": True, "rule": "guest/rule", "action": "guest/act",
            },
            "guest/off": {
                "statusCode": 1, "success": False, "rule": "guest/off", "action": "guest/act",
                "error":
                    "Rule 'guest/off' is inactive, action 'guest/act' was not activated.",
            },
        }  # fmt: skip
        assert record.pop("start") > 0
        assert record == {
            "namespace": "guest", "name": "when", "version": "0.0.2", "subject": "guest",
            "publish": False, "activationId": activation_id, "annotations": [],
            "response": {
                "status": "success", "success": True, "result": {"a": "body"}, "size": 12,
            },
        }  # fmt: skip
        result = (await house.document(run_id))["response"]["result"]
        headers = result.pop("__ow_headers")
        assert result == {"a": "body", "b": 1}
        assert headers["content-type"] == "application/json"
        assert "authorization" not in headers
        rows = await read(server, "activations?name=when")
        assert [row["activationId"] for row in rows] == [activation_id]
        assert rows[0]["statusCode"] == 0
        assert "end" not in rows[0]


async def test_without_an_active_rule_nothing_happens() -> None:
    async with open_whole_server() as (server, _):
        await put(server, "triggers/when")
        assert ((await fire(server)).status_code, (await fire(server)).content) == (204, b"")
        await one_rule(server)
        await switch(server, "rule", "inactive")
        assert (await fire(server)).status_code == 204
        assert await read(server, "activations") == []


async def test_a_rule_whose_action_cannot_be_invoked_says_why() -> None:
    async with open_whole_server() as (server, _):
        assert await server.error("POST", f"{TRIGGERS}/when") == (404, NOT_THERE)
        await one_rule(server)
        await server.call("DELETE", f"{NAMESPACES}/_/actions/act")
        response = await fire(server)
        record = await read(server, f"activations/{response.json()['activationId']}")
        (line,) = map(json.loads, record["logs"])
        assert (line["statusCode"], line["success"], line["error"]) == (1, False, NOT_THERE)


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"a":"' + b"x" * 2**20 + b'"}', "application/json", 413),
        (b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}", "application/json", 400),
    ],
)
async def test_a_body_that_is_no_object_is_refused(
    content: bytes, content_type: str, status: int
) -> None:
    async with open_whole_server() as (server, _):
        await one_rule(server)
        headers = {"content-type": content_type}
        path = f"{TRIGGERS}/when"
        assert (await server.error("POST", path, content=content, headers=headers))[0] == status
        assert await read(server, "activations") == []


async def test_a_server_that_stops_fires_nothing() -> None:
    async with open_whole_server() as (server, house):
        await one_rule(server)
        house.controller.stop_accepting()
        refused = await fire(server)
        assert refused.status_code == 503
        assert "It is stopping" in refused.json()["error"]
        assert refused.headers["retry-after"] == "5"


async def test_where_nothing_is_invoked_nothing_is_fired(server: Server) -> None:
    await one_rule(server)
    refused = await fire(server)
    assert refused.status_code == 503
    assert "It runs no actions (allowed: 0)." in refused.json()["error"]
    assert "retry-after" not in refused.headers, "waiting does not help"
