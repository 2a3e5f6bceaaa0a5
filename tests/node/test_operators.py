"""What only operators may do over HTTP: see what is under way, and take a controller out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from node.house import WAITS, open_house
from node.server import rest_client, running_server
from waiting import Gate, until, wait_until

from acs_node.action_schema import RuntimeKinds, SystemLimits
from acs_node.api import create_app
from acs_node.operators import Operator, OperatorFileError

CREDENTIAL = ("root", "s3cret:with:colons")


def client_of(
    operator: Operator | None, disabled: list[str] | None = None, address: str = "192.0.2.7"
) -> httpx.AsyncClient:
    entities = Mock(limits=SystemLimits(), kinds=RuntimeKinds())
    app = create_app(
        entities,
        Mock(),
        info={},
        operator=operator,
        in_flight=lambda: [("0" * 32, "guest/hello")],
        disable=lambda: None if disabled is None else disabled.append("yes"),
    )
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://acs")


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    (tmp_path / "operator").write_text(":".join(CREDENTIAL) + "\n")
    return Operator.of_file(tmp_path / "operator")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_what_is_under_way_is_told_to_programs_on_this_machine(address: str) -> None:
    async with client_of(None, address=address) as client:
        for path in ("/activation", "/activation/"):
            assert (await client.get(path)).json() == [["0" * 32, "guest/hello"]]
        assert (await client.put("/activation")).status_code == 405


@pytest.mark.parametrize("address", ["192.0.2.7", "a socket without an address"])
async def test_others_need_the_operators_credential(address: str, operator: Operator) -> None:
    async with client_of(operator, address=address) as client:
        assert (await client.get("/activation")).status_code == 401
        assert (await client.get("/activation", auth=("root", "wrong"))).status_code == 401
        assert (await client.get("/activation", auth=CREDENTIAL)).status_code == 200


async def test_the_operator_disables_and_nobody_else(operator: Operator) -> None:
    disabled: list[str] = []
    async with client_of(operator, disabled, address="127.0.0.1") as client:
        refused = [
            await client.post("/disable"),
            await client.post("/disable", auth=("root", "wrong")),
            await client.post("/disable", headers={"Authorization": "Basic ="}),
            await client.post("/disable", headers={"Authorization": "Bearer cm9vdDo="}),
        ]
        assert [each.status_code for each in refused] == [401] * 4
        assert all("www-authenticate" in each.headers for each in refused)
        assert (await client.get("/disable", auth=CREDENTIAL)).status_code == 405
        assert not disabled
        answer = await client.post("/disable", auth=CREDENTIAL)
    assert (answer.status_code, answer.text, disabled) == (200, "controller is disabled", ["yes"])


async def test_without_a_credential_nobody_disables() -> None:
    disabled: list[str] = []
    async with client_of(None, disabled, address="127.0.0.1") as client:
        assert (await client.post("/disable", auth=("", ""))).status_code == 401
        assert (await client.post("/disable", auth=CREDENTIAL)).status_code == 401
    assert not disabled


@pytest.mark.parametrize(
    "content", [None, "", "no colon", "nobody:", ":word", "a:b\nc:d", "a:" * 4000]
)
def test_a_file_without_one_credential_is_refused_and_not_shown(
    content: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "operator"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OperatorFileError) as caught:
        Operator.of_file(path)
    assert str(path) in str(caught.value)
    assert not content or content not in str(caught.value)


async def test_the_controller_lists_what_has_not_ended() -> None:
    async with open_house() as house:
        await house.put("slow", WAITS)
        await house.put("steps", exec={"kind": "sequence", "components": ["/_/slow"]})
        go = Gate(house.folder / "go")
        caller = house.start("steps", {"go": str(go)})
        await until(lambda: len(house.controller.in_flight()) == 2, "sequence and component")
        assert sorted(name for _, name in house.controller.in_flight()) == [
            "guest/slow",
            "guest/steps",
        ]
        go.open()
        await asyncio.wait_for(caller.answered, 10)
        assert house.controller.in_flight() == []


def test_a_disabled_server_lets_work_end_and_takes_no_more(tmp_path: Path) -> None:
    path, go = tmp_path / "operator", Gate(tmp_path / "go")
    path.write_text(":".join(CREDENTIAL))
    with (
        running_server("--operator-file", str(path)) as server,
        rest_client(server) as client,
    ):
        action = {"exec": {"kind": "python:3", "code": WAITS}}
        client.put("namespaces/_/actions/slow", json=action).raise_for_status()
        invoke = "namespaces/_/actions/slow"
        accepted = client.post(invoke, json={"go": str(go)}).json()["activationId"]
        assert client.get(f"{server.url}/activation").json() == [[accepted, "guest/slow"]]
        assert client.post(f"{server.url}/disable", auth=CREDENTIAL).status_code == 200
        refused = client.post(invoke, json={})
        assert refused.status_code == 503
        assert "An operator has disabled it" in refused.json()["error"]
        assert "1 activations have to end first (new ones allowed: 0)" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get(invoke).status_code == 200
        go.open()
        record = wait_until(
            lambda: (
                (answer := client.get(f"namespaces/_/activations/{accepted}")).is_success
                and answer.json()
            ),
            "the record",
        )
        assert record["response"]["success"]
        assert CREDENTIAL[1] not in server.output
