"""What is said to an action proxy, and what its answers mean."""

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_node import runtime_protocol
from acs_node.entity_types import Action, ActionLimits, Exec, Parameter
from acs_node.runtime_protocol import (
    APPLICATION_ERROR,
    DEVELOPER_ERROR,
    PLATFORM_ERROR,
    RESULT_BYTES_MAX,
    SUCCESS,
    Response,
    RunTemplate,
)

ID = "0123456789abcdef" * 2
ACTION = Action(
    namespace="owner", package="tools", name="hello", version="0.0.3", revision=7,
    updated=0, publish=False, exec=Exec("python:3", "def main(a): return a", binary=False),
    parameters=(), limits=ActionLimits(60_000, 256, 10, 1), annotations=(),
)  # fmt: skip


def init_value(action: Action) -> Any:
    return json.loads(runtime_protocol.init_body(action, "guest", ID, "tid", 99))["value"]


def test_init_says_what_to_run_and_for_whom() -> None:
    assert init_value(ACTION) == {
        "name": "hello",
        "main": "main",
        "code": "def main(a): return a",
        "binary": False,
        "env": {
            "__OW_NAMESPACE": "guest",
            "__OW_ACTION_NAME": "/owner/tools/hello",
            "__OW_ACTION_VERSION": "0.0.3",
            "__OW_ACTIVATION_ID": ID,
            "__OW_TRANSACTION_ID": "tid",
            "__OW_DEADLINE": "99",
        },
    }


def test_init_takes_another_entry_point_and_an_archive() -> None:
    code = Exec("python:3", "UEsDBA==", binary=True, main="start")
    value = init_value(replace(ACTION, exec=code))
    assert (value["main"], value["binary"], value["code"]) == ("start", True, "UEsDBA==")


def test_an_action_without_code_sends_none() -> None:
    assert "code" not in init_value(replace(ACTION, exec=Exec("blackbox", None, binary=False)))


@pytest.mark.parametrize(
    ("value", "text"),
    [("a b", "a b"), (None, ""), (True, "true"), (1.5, "1.5"), ({"k": [1]}, '{"k":[1]}')],
)
def test_init_parameters_go_to_the_environment_as_text(value: Any, text: str) -> None:
    parameters = (Parameter("SET", value, init=True), Parameter("ARG", 1))
    environment = init_value(replace(ACTION, parameters=parameters))["env"]
    assert environment["SET"] == text
    assert "ARG" not in environment


def test_run_says_the_arguments_and_the_circumstances() -> None:
    payload = RunTemplate(ACTION, "guest").payload(b'{"a":1}', ID, b"tid")
    assert json.loads(runtime_protocol.run_body(payload, 1234)) == {
        "value": {"a": 1},
        "namespace": "guest",
        "action_name": "/owner/tools/hello",
        "action_version": "0.0.3",
        "activation_id": ID,
        "transaction_id": "tid",
        "deadline": "1234",
    }


@given(st.text(st.characters(codec="utf-8")), st.dictionaries(st.text(), st.text()))
def test_any_transaction_id_survives_beside_any_arguments(tid: str, value: dict[str, str]) -> None:
    arguments = orjson.dumps({**value, "x": '"transaction_id":"y"', ':"': ':"'})
    payload = RunTemplate(ACTION, "guest").payload(arguments, ID, orjson.dumps(tid)[1:-1])
    assert runtime_protocol.transaction_id_of(payload) == tid
    assert json.loads(runtime_protocol.run_body(payload, 1))["transaction_id"] == tid


@given(st.text(st.characters(codec="utf-8")))
def test_a_key_is_found_beside_anything_else(tid: str) -> None:
    arguments = orjson.dumps({"api_key": "mine", "x": '"api_key":"y"'})
    template = RunTemplate(ACTION, "guest")
    for key in ("", "uuid:run-key"):
        payload = template.payload(arguments, ID, orjson.dumps(tid)[1:-1], key)
        assert runtime_protocol.api_key_of(payload) == key
        assert runtime_protocol.transaction_id_of(payload) == tid
        assert json.loads(runtime_protocol.run_body(payload, 1)).get("api_key", "") == key
    environment = json.loads(runtime_protocol.init_body(ACTION, "guest", ID, tid, 1, "k"))
    assert environment["value"]["env"]["__OW_API_KEY"] == "k"


@pytest.mark.parametrize("tid", ["a:", 'a":"b', "\\", '"transaction_id":"', "é", ""])
def test_transaction_ids_that_look_like_json(tid: str) -> None:
    payload = RunTemplate(ACTION, "guest").payload(b"{}", ID, orjson.dumps(tid)[1:-1])
    assert runtime_protocol.transaction_id_of(payload) == tid


def error_of(response: Response | None) -> Any:
    assert response is not None
    result = json.loads(response.result)
    assert list(result) == ["error"]
    return result["error"]


@pytest.mark.parametrize("body", [b"{}", b'{"a": 1}', b"[]", b"[1, 2]", b' {"error_": 1}\n'])
def test_an_object_or_array_is_a_result_as_it_was_written(body: bytes) -> None:
    assert runtime_protocol.run_response(200, body, len(body)) == Response(SUCCESS, body)


@pytest.mark.parametrize("body", [b'{"error":"no"}', b'{"error":null}', b'{"a":1,"error":{}}'])
def test_a_result_with_an_error_is_the_applications(body: bytes) -> None:
    found = runtime_protocol.run_response(200, body, len(body))
    assert found == Response(APPLICATION_ERROR, body)


def test_the_error_of_another_status_is_the_developers() -> None:
    body = b'{"error":{"why":"bad"}}'
    found = runtime_protocol.run_response(502, body, len(body))
    assert found.outcome == DEVELOPER_ERROR
    assert error_of(found) == {"why": "bad"}


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"3"), (200, b'"text"'), (200, b"null"), (200, b""), (200, b"{"), (502, b"{}"),
     (500, b"oops"), (200, b"\xff\xfe")],
)  # fmt: skip
def test_what_is_no_result_is_shown_to_the_developer(status: int, body: bytes) -> None:
    found = runtime_protocol.run_response(status, body, len(body))
    assert found.outcome == DEVELOPER_ERROR
    shown = body.decode("utf-8", "replace")
    assert error_of(found) == (
        f"The action did not produce a valid JSON or JSON Array response: {shown}"
    )


def test_only_the_beginning_of_a_long_answer_is_shown() -> None:
    body = b"x" * 100_000
    error = error_of(runtime_protocol.run_response(200, body, len(body)))
    assert len(error) < 1_200


def test_a_result_has_a_largest_size() -> None:
    fits = b'{"a":"%b"}' % (b"x" * (RESULT_BYTES_MAX - 8))
    assert runtime_protocol.run_response(200, fits, len(fits)).outcome == SUCCESS
    found = runtime_protocol.run_response(200, fits, len(fits) + 1)
    assert found.outcome == APPLICATION_ERROR
    assert error_of(found) == (
        "The action produced a response that exceeded the allowed length: 1048577 > 1048576 bytes."
    )


def test_an_init_is_ready_whatever_else_it_says() -> None:
    assert runtime_protocol.init_response(200, b"OK", 2) is None


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b'{"error":"a stack"}', "a stack"),
        (403, b"{}", "The action failed during initialization: {}"),
        (500, b"oops", "The action failed during initialization: oops"),
    ],
)
def test_a_failed_init_is_the_developers(status: int, body: bytes, error: str) -> None:
    found = runtime_protocol.init_response(status, body, len(body))
    assert found is not None
    assert (found.outcome, error_of(found)) == (DEVELOPER_ERROR, error)


def test_an_oversized_answer_to_init_is_the_developers() -> None:
    found = runtime_protocol.init_response(502, b"x", RESULT_BYTES_MAX + 1)
    assert found is not None
    assert found.outcome == DEVELOPER_ERROR
    assert "1048577 > 1048576" in error_of(found)


def test_the_texts_of_runs_that_did_not_end_well() -> None:
    assert error_of(runtime_protocol.timed_out(100, initialising=False)) == (
        "The action exceeded its time limits of 100 milliseconds."
    )
    assert error_of(runtime_protocol.timed_out(100, initialising=True)) == (
        "The action exceeded its time limits of 100 milliseconds during initialization."
    )
    assert error_of(runtime_protocol.broke(initialising=True, out_of_memory=False)) == (
        "The action did not initialize and exited unexpectedly."
    )
    assert error_of(runtime_protocol.broke(initialising=False, out_of_memory=False)) == (
        "The action did not produce a valid response and exited unexpectedly."
    )
    assert error_of(runtime_protocol.broke(initialising=False, out_of_memory=True)) == (
        "The action exhausted its memory and was aborted."
    )


def test_the_texts_of_the_outcomes() -> None:
    texts = runtime_protocol.STATUS_TEXTS
    assert texts[SUCCESS] == b"success"
    assert texts[APPLICATION_ERROR] == b"application error"
    assert texts[DEVELOPER_ERROR] == b"action developer error"
    assert texts[PLATFORM_ERROR] == b"whisk internal error"
