"""Sequences and conductors: what they ask for step by step, then real ones with their records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from node.house import ECHO, WAITS, House, open_house
from node.rest import Server, open_whole_server
from waiting import Gate

from acs_node.compositions import Budget, Call, Ended, conductor, sequence
from acs_node.runtime_protocol import APPLICATION_ERROR, DEVELOPER_ERROR, PLATFORM_ERROR, SUCCESS

ADD = "def main(args):\n    return {'n': args.get('n', 0) + args.get('by', 1)}\n"
FAIL = "def main(args):\n    return {'error': 'no'}\n"
CRASH = "import os\ndef main(args):\n    os._exit(1)\n"
ARRAY = "def main(args):\n    return [1, 2]\n"
# Does what it is told: the steps are in its arguments, or in the state.
FOLLOW = """
def main(args):
    steps = args.pop("steps")
    seen = args.pop("seen", [])
    seen.append(args)
    if not steps:
        return {"params": {"seen": seen}}
    return {"action": steps[0], "params": {"n": 1}, "state": {"steps": steps[1:], "seen": seen}}
"""
CONDUCTOR = [{"key": "conductor", "value": True}]


def pairs(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def drive(steps: Any, *ends: Ended) -> tuple[list[Call], Ended | None]:
    """Answer the calls with these ends; return the calls, and the end of all if it came."""
    calls = [next(steps)]
    for end in ends:
        try:
            calls.append(steps.send(end))
        except StopIteration as stop:
            return calls, stop.value
    return calls, None


def good(value: Any = None) -> Ended:
    return Ended(SUCCESS, json.dumps({} if value is None else value).encode())


# --- steps ---------------------------------------------------------------------------------------


def test_a_sequence_passes_each_result_on() -> None:
    steps = sequence([("g", "a"), ("g", "p/b")], b'{"error":1}')
    calls, end = drive(steps, good({"x": 1}), good({"y": 2}))
    assert calls == [Call(("g", "a"), b'{"error":1}'), Call(("g", "p/b"), b'{"x": 1}')]
    assert end == good({"y": 2})


@pytest.mark.parametrize("outcome", [APPLICATION_ERROR, DEVELOPER_ERROR, PLATFORM_ERROR])
def test_a_sequence_ends_with_the_first_failure(outcome: int) -> None:
    failed = Ended(outcome, b'{"error":"x"}')
    calls, end = drive(sequence([("g", "a"), ("g", "b")], b"{}"), failed)
    assert (len(calls), end) == (1, failed)


def conduct(*ends: Ended, arguments: bytes = b"{}", budget: Budget | None = None) -> Any:
    return drive(conductor(("g", "c"), "g", arguments, budget or Budget()), *ends)


def test_a_conductor_that_names_no_action_ends_with_its_params_or_its_result() -> None:
    assert conduct(good({"a": 1}))[1] == good({"a": 1})
    assert json.loads(conduct(good({"params": {"a": 1}}))[1].result) == {"a": 1}
    assert json.loads(conduct(good({"params": 5, "state": {}}))[1].result) == {"value": 5}
    assert conduct(good([1]))[1] == good([1])
    failed = Ended(DEVELOPER_ERROR, b'{"error":"x"}')
    assert conduct(failed)[1] == failed


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a", ("g", "a")),
        ("p/a", ("g", "p/a")),
        ("/_/a", ("g", "a")),
        ("/n/a", ("n", "a")),
        ("/n/p/a", ("n", "p/a")),
        ("n/p/a", ("n", "p/a")),
    ],
)
def test_a_conductor_names_actions_in_every_form(name: str, target: Any) -> None:
    calls, _ = conduct(good({"action": name, "params": {"x": 1}}))
    assert calls[1] == Call(target, b'{"x":1}')


@pytest.mark.parametrize("name", [5, None, "", "/a", "a/b/c/d", "!", {"a": 1}])
def test_a_conductor_is_told_of_a_name_that_is_none(name: Any) -> None:
    calls, _ = conduct(good({"action": name}))
    shown = json.dumps(name, separators=(",", ":"))
    assert calls[1].itself
    assert json.loads(calls[1].arguments) == {
        "error": f"Failed to parse action name from json value {shown} during composition."
    }


def test_the_state_comes_back_over_the_result() -> None:
    first = good({"action": "a", "state": {"n": 1, "m": 1}})
    calls, _ = conduct(first, good({"n": 2, "o": 2}))
    assert calls[1].arguments == b"{}"
    assert calls[2].itself
    assert json.loads(calls[2].arguments) == {"n": 1, "m": 1, "o": 2}
    calls, _ = conduct(good({"action": "a", "state": 7}), good([1]))
    assert json.loads(calls[2].arguments) == {"value": [1], "state": 7}
    calls, _ = conduct(good({"action": "a"}), good([1]))
    assert calls[2].arguments == b"[1]"


def test_a_composition_has_so_many_actions_and_runs() -> None:
    budget = Budget(actions=50)
    calls, _ = conduct(good({"action": "a"}), budget=budget)
    assert json.loads(calls[1].arguments) == {"error": "Too many actions in the composition."}
    budget = Budget(conductor_runs=100)
    _, end = conduct(good({"action": "a"}), good(), budget=budget)
    assert end == Ended(APPLICATION_ERROR, b'{"error":"Too many actions in the composition."}')


# --- what is put ---------------------------------------------------------------------------------


async def put(server: Server, name: str, *names: str, **more: Any) -> Any:
    """Create an action, or a sequence of ``names``."""
    execution: dict[str, Any] = {"kind": "python:3", "code": ECHO}
    if names:
        execution = {"kind": "sequence", "components": list(names)}
    path = f"/api/v1/namespaces/_/actions/{name}?overwrite=true"
    response = await server.call("PUT", path, json={"exec": execution, **more})
    return response.json()


async def test_a_sequence_shows_its_components() -> None:
    async with open_whole_server() as (server, _):
        await put(server, "a")
        made = await put(server, "s", "/_/a", "/guest/a", parameters=pairs(x=1))
        names = ["/guest/a", "/guest/a"]
        assert made["exec"] == {"kind": "sequence", "binary": False, "components": names}
        assert made["parameters"] == pairs(_actions=names)
        assert {"key": "exec", "value": "sequence"} in made["annotations"]
        path = "/api/v1/namespaces/_/actions/s?overwrite=true"
        kept = (await server.call("PUT", path, json={"publish": True})).json()
        assert (kept["exec"], kept["parameters"]) == (made["exec"], made["parameters"])


@pytest.mark.parametrize(
    ("names", "status", "text"),
    [
        ([], 400, "No component specified for the sequence."),
        (5, 400, "malformed:\nexec.components must be an array of names of actions"),
        (["a"], 400, "malformed:\ncomponent must be a name such as '/namespace/name'"),
        (["/_/absent"], 400, "Sequence component does not exist."),
        (["/_/p/absent"], 400, "Sequence component does not exist."),
        (["/other/a"], 403, "not authorized to access 'other/a'."),
        (["/_/a"] * 51, 400, "Too many actions in the sequence."),
        (["/_/many"] * 2, 400, "Too many actions in the sequence."),
        (["/_/outer"], 400, "Sequence may not refer to itself."),
        (["/_/s"], 400, "Sequence may not refer to itself."),
    ],
)
async def test_a_sequence_that_cannot_be_is_refused(names: Any, status: int, text: str) -> None:
    async with open_whole_server() as (server, _):
        await put(server, "a")
        await put(server, "s", "/_/a")
        await put(server, "outer", "/_/s")
        await put(server, "many", *["/_/a"] * 30)
        body = {"exec": {"kind": "sequence", "components": names}}
        path = "/api/v1/namespaces/_/actions/s?overwrite=true"
        told, error = await server.error("PUT", path, json=body)
        assert (told, text in error) == (status, True), error


# --- what runs -----------------------------------------------------------------------------------


async def put_sequence(house: House, name: str, *names: str, **body: Any) -> None:
    components = [f"/guest/{each}" for each in names]
    document = {"exec": {"kind": "sequence", "components": components}, **body}
    await house.entities.put_action("guest", name, document, overwrite=True)


def notes_of(document: Any) -> dict[str, Any]:
    return {note["key"]: note["value"] for note in document["annotations"]}


async def test_a_sequence_runs_and_each_part_has_its_record() -> None:
    async with open_house() as house:
        await house.put("add", ADD, limits={"memory": 512})
        await house.put("two", ADD, parameters=pairs(by=2))
        limits = {"timeout": 1000, "logs": 1}
        await put_sequence(house, "s", "add", "two", limits=limits)
        answer = await house.invoke("s", {"n": 1}, result=False)
        assert (answer.status, answer.body["response"]["result"]) == (200, {"n": 4})
        assert answer.activation_id is not None
        stored = await house.document(answer.activation_id)
        assert stored == answer.body
        parts = [await house.document(each) for each in stored["logs"]]
        assert [part["name"] for part in parts] == ["add", "two"]
        assert [part["response"]["result"] for part in parts] == [{"n": 2}, {"n": 4}]
        for part in parts:
            assert part["cause"] == answer.activation_id
            assert notes_of(part)["causedBy"] == "sequence"
        assert "cause" not in stored
        assert stored["duration"] == sum(part["duration"] for part in parts)
        assert stored["end"] >= stored["start"]
        notes = notes_of(stored)
        limits = notes.pop("limits")
        assert notes == {"topmost": True, "path": "guest/s", "kind": "sequence"}
        assert (limits["timeout"], limits["logs"], limits["memory"]) == (1000, 1, 512)


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [(FAIL, "application error", "no"), (CRASH, "action developer error", "exited unexpectedly")],
)
async def test_the_failure_of_a_part_is_the_sequences(code: str, status: str, text: str) -> None:
    async with open_house() as house:
        await house.put("bad", code)
        await house.put("add", ADD)
        await put_sequence(house, "s", "bad", "add")
        answer = await house.invoke("s", {}, result=False)
        assert answer.status == 502
        assert answer.body["response"]["status"] == status
        assert text in answer.body["response"]["result"]["error"]
        assert len(answer.body["logs"]) == 1


async def test_an_array_is_passed_on_bare() -> None:
    async with open_house() as house:
        await house.put("array", ARRAY)
        await house.put("count", "def main(args):\n    return {'n': len(args)}\n")
        await put_sequence(house, "s", "array", "count")
        assert (await house.invoke("s")).body == {"n": 2}


async def test_sequences_nest_and_a_missing_part_is_an_error_of_the_run() -> None:
    async with open_house() as house:
        await house.put("add", ADD)
        await put_sequence(house, "inner", "add", "add")
        await put_sequence(house, "outer", "inner", "add")
        answer = await house.invoke("outer", result=False)
        assert answer.body["response"]["result"] == {"n": 3}
        inner_id, _ = answer.body["logs"]
        inner = await house.document(inner_id)
        assert inner["cause"] == answer.activation_id
        notes = notes_of(inner)
        assert (notes["topmost"], notes["causedBy"]) == (False, "sequence")
        assert len(inner["logs"]) == 2
        assert (await house.document(inner["logs"][0]))["cause"] == inner_id
        await house.entities.delete_action("guest", "add")
        answer = await house.invoke("outer")
        assert answer.body == {"error": "Sequence component does not exist."}
        assert answer.status == 502


async def test_a_sequence_that_became_endless_ends() -> None:
    async with open_house() as house:
        await house.put("add", ADD)
        await put_sequence(house, "s", "add")
        await put_sequence(house, "t", "s")
        await put_sequence(house, "s", "t")  # as two writers could, past the check of each
        answer = await house.invoke("s")
        assert (answer.status, answer.body) == (502, {"error": "Too many actions in the sequence."})


async def test_more_actions_than_a_sequence_may_have_end_it() -> None:
    async with open_house() as house:
        await house.put("add", ADD)
        await put_sequence(house, "many", *["add"] * 30)
        await put_sequence(house, "s", "many", "many")
        assert (await house.invoke("s")).body == {"error": "Too many actions in the sequence."}


async def test_one_who_may_not_invoke_a_part_may_not_invoke_the_sequence() -> None:
    async with open_house() as house:
        await house.entities.create_namespace("other")
        components = ["/other/a"]
        body = {"exec": {"kind": "sequence", "components": components}}
        await house.entities.put_action("guest", "s", body, overwrite=True)
        answer = await house.invoke("s")
        assert (answer.status, "'other/a'" in answer.body) == (403, True)
        assert house.controller.counts()["pending"] == 0


async def test_a_sequence_that_nobody_waits_for_is_accepted_and_recorded() -> None:
    async with open_house() as house:
        await house.put("wait", WAITS)
        await put_sequence(house, "s", "wait", "wait")
        go = Gate(house.folder / "go")
        answer = await house.invoke("s", {"go": str(go), "n": 1}, blocking=False)
        assert answer.status == 202
        late = await house.invoke("s", {"go": str(go)}, timeout_ms=1)
        assert late.status == 202
        go.open()
        assert answer.activation_id is not None
        assert late.activation_id is not None
        # The second one gets what the first one returned, which names no file.
        for activation_id in (answer.activation_id, late.activation_id):
            record = await house.document(activation_id)
            assert record["response"]["success"] is False
            assert len(record["logs"]) == 2


async def test_a_conductor_is_told_results_and_what_went_wrong() -> None:
    async with open_house() as house:
        await house.put("c", FOLLOW, annotations=CONDUCTOR)
        await house.put("add", ADD)
        await house.put("bad", FAIL)
        await put_sequence(house, "s", "add", "add")
        steps = ["add", "bad", "s", "absent", "/other/x", 5]
        answer = await house.invoke("c", {"steps": steps, "a": 1}, result=False)
        assert answer.body["response"]["result"] == {
            "seen": [
                {"a": 1},
                {"n": 2},
                {"error": "no"},
                {"n": 3},
                {"error": "Failed to resolve action with name 'guest/absent' during composition."},
                {
                    "error": "Failed entitlement check for action with name 'other/x'"
                    " during composition."
                },
                {"error": "Failed to parse action name from json value 5 during composition."},
            ]
        }
        notes = notes_of(answer.body)
        assert (notes["conductor"], notes["kind"], notes["topmost"]) == (True, "sequence", True)
        parts = [await house.document(each) for each in answer.body["logs"]]
        names = [part["name"] for part in parts]
        assert names == ["c", "add", "c", "bad", "c", "s", "c", "c", "c", "c"]
        assert {part["cause"] for part in parts} == {answer.activation_id}
        assert {notes_of(part)["causedBy"] for part in parts} == {"sequence"}
        assert notes_of(parts[0])["kind"] == "python:3"
        assert answer.body["duration"] == sum(part["duration"] for part in parts)


async def test_conductors_nest_and_share_what_they_may_do() -> None:
    async with open_house() as house:
        await house.put("c", FOLLOW, annotations=CONDUCTOR)
        await house.put("d", FOLLOW.replace('"n": 1', '"steps": []'), annotations=CONDUCTOR)
        answer = await house.invoke("d", {"steps": ["c"]}, result=False)
        # The state goes over the result of the inner one, which has the same key.
        assert answer.body["response"]["result"] == {"seen": [{}, {}]}
        inner = await house.document(answer.body["logs"][1])
        assert (notes_of(inner)["topmost"], notes_of(inner)["conductor"]) == (False, True)
        assert inner["cause"] == answer.activation_id
        # That a conductor has run bare as a part changes nothing for who invokes it next.
        for name in ("c", "d"):
            again = await house.invoke(name, {"steps": []}, result=False)
            assert notes_of(again.body)["conductor"] is True


async def test_a_conductor_that_never_ends_is_ended() -> None:
    forever = "def main(args):\n    return {'action': '!'}\n"
    async with open_house() as house:
        await house.put("c", forever, annotations=CONDUCTOR)
        answer = await house.invoke("c", result=False)
        assert answer.status == 502
        error = {"error": "Too many actions in the composition."}
        assert answer.body["response"]["result"] == error
        assert len(answer.body["logs"]) == 101


async def test_a_throttled_part_is_an_error_of_the_composition() -> None:
    async with open_house() as house:
        await house.put("add", ADD)
        await put_sequence(house, "s", "add")
        assert (await house.invoke("s")).status == 200
        (queue,) = house.controller._open_queues
        house.controller._throttled[queue] = "planted"
        answer = await house.invoke("s")
        text = "Too many concurrent requests in flight: planted."
        assert (answer.status, answer.body) == (502, {"error": text})


async def test_an_internal_failure_is_a_record_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house:
        await house.put("add", ADD)
        await put_sequence(house, "s", "add")

        async def broken(*_: object) -> None:
            raise RuntimeError("planted")

        monkeypatch.setattr(house.controller._composer, "run", broken)
        answer = await house.invoke("s", result=False)
        assert answer.status == 500
        assert answer.body["response"]["status"] == "whisk internal error"
        assert answer.activation_id is not None
        assert (await house.document(answer.activation_id)) == answer.body


async def test_what_was_accepted_ends_while_the_server_stops() -> None:
    async with open_house() as house:
        await house.put("wait", WAITS.replace("{'n'", "{'go': args['go'], 'n'"))
        await put_sequence(house, "s", "wait", "wait")
        go = Gate(house.folder / "go")
        answer = await house.invoke("s", {"go": str(go), "n": 7}, blocking=False)
        house.controller.stop_accepting()
        assert (await house.invoke("s", {})).status == 503
        go.open()
        await house.controller.drained()
        assert answer.activation_id is not None
        record = await house.document(answer.activation_id)
        assert record["response"]["result"]["n"] == 7
        assert len(record["logs"]) == 2
