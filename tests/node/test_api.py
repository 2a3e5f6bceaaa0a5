"""The REST API as clients see it: statuses, texts and headers, by HTTP against the real stores."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from node.rest import T0, Server, open_server

from acs_node.activations import DEFINITE, Record
from acs_node.api import authenticate_header
from acs_node.entities import NamespaceLimits
from acs_node.errors import ApiError

NAMESPACES = "/api/v1/namespaces"
ACTIONS = f"{NAMESPACES}/_/actions"
ACTIVATIONS = f"{NAMESPACES}/_/activations"
BODY: dict[str, Any] = {"exec": {"kind": "python:3", "code": "def main(args): return args"}}
NOT_JSON = "The request's Content-Type is not supported. Expected:\napplication/json"
ID = "0123456789abcdef" * 2


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(tmp_path) as server:
        yield server


def put_record(
    server: Server, activation_id: str = ID, start_ms: int = T0, nested: int = 0
) -> None:
    result = b'{"a":' + nested * b"[" + b"1" + nested * b"]" + b"}"
    head = (
        b'{"namespace":"guest","name":"hello","activationId":"%b","start":%d,"response":'
        b'{"status":"success","success":true,"result":%b,"size":%d},"annotations":[]'
    ) % (activation_id.encode(), start_ms, result, len(result))
    server.activations.put(
        Record(activation_id, "guest", "hello", start_ms, start_ms + 1, 0, DEFINITE, head, b'["l"]')
    )


# What every answer has.


async def test_the_api_describes_itself_to_everyone(server: Server) -> None:
    for path in ("/api/v1", "/api/v1/"):
        response = await server.client.get(path)
        assert response.status_code == 200
        assert response.json() == {
            "description": "OpenWhisk API",
            "api_version": "1.0.0",
            "api_version_path": "v1",
            "build": "2026-01-01",
            "buildno": "1",
            "swagger_paths": {"ui": "/docs", "api-docs": "/api-docs"},
        }
    ping = await server.client.get("/ping")
    assert (ping.status_code, ping.text) == (200, "pong")
    assert ping.headers["content-type"].startswith("text/plain")


async def test_every_answer_has_the_requests_id_and_the_cors_headers(server: Server) -> None:
    for path in ("/api/v1", "/nowhere", ACTIONS, f"{ACTIONS}/absent"):
        response = await server.call("GET", path, headers={"X-Request-ID": "mine"})
        assert response.headers["x-request-id"] == "mine"
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-allow-methods"] == "GET, DELETE, POST, PUT, HEAD"
        own = await server.call("GET", path, headers={"X-Request-ID": "sid_x"})
        assert own.headers["x-request-id"] != "sid_x"
        assert len(own.headers["x-request-id"]) == 32


async def test_options_needs_no_credentials(server: Server) -> None:
    for path in (ACTIONS, f"{ACTIONS}/a", "/api/v1/anything"):
        response = await server.client.options(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["access-control-allow-headers"] == (
            "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
        )


async def test_an_unknown_route_is_told_so(server: Server) -> None:
    for path in (
        "/",
        "/api/v2",
        f"{NAMESPACES}/guest",
        f"{ACTIONS}/a/b/c",
        f"{ACTIVATIONS}/{ID}/x",
    ):
        assert await server.error("GET", path) == (
            404,
            "The requested resource could not be found.",
        )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", NAMESPACES, "GET"),
        ("DELETE", "/api/v1", "GET"),
        ("PUT", ACTIONS, "GET"),
        ("POST", f"{ACTIONS}/", "GET"),
        ("PATCH", f"{ACTIONS}/hello", "DELETE, GET, POST, PUT"),
        ("PATCH", f"{ACTIONS}/pkg/hello", "DELETE, GET, POST, PUT"),
        ("DELETE", f"{ACTIONS}/pkg/", "GET"),
        ("POST", ACTIVATIONS, "GET"),
        ("DELETE", f"{ACTIVATIONS}/{ID}", "GET"),
        ("PUT", f"{ACTIVATIONS}/{ID}/logs", "GET"),
        ("PUT", f"{NAMESPACES}/_/limits", "GET"),
        ("PUT", f"{NAMESPACES}/_/limits/x", "GET"),
    ],
)
async def test_a_method_that_is_not_supported_is_told_which_are(
    server: Server, method: str, path: str, allowed: str
) -> None:
    text = f"HTTP method not allowed, supported methods: {allowed}"
    assert await server.error(method, path) == (405, text)
    response = await server.call(method, path)
    assert response.headers["allow"] == allowed


# Authentication and entitlement.


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "The resource requires authentication, which was not supplied with the request"),
        ("", "The resource requires authentication, which was not supplied with the request"),
        ("Bearer abc", "The supplied authentication is invalid"),
        ("Basic", "The supplied authentication is invalid"),
        ("Basic ***", "The supplied authentication is invalid"),
        ("Basic /w==", "The supplied authentication is invalid"),
        (basic("nocolon"), "The supplied authentication is invalid"),
        (basic("nobody:nothing"), "The supplied authentication is invalid"),
    ],
)
async def test_without_valid_credentials_there_is_a_challenge(
    server: Server, header: str | None, text: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", ACTIONS), ("PUT", f"{ACTIONS}/-bad"), ("PATCH", ACTIONS)):
        assert await server.error(method, path, headers=headers, auth=None) == (401, text)
        response = await server.call(method, path, headers=headers, auth=None)
        assert response.headers["www-authenticate"] == ('Basic realm="OpenWhisk secure realm"')


async def test_a_wrong_key_is_refused_and_the_scheme_is_matched_in_any_case(
    server: Server,
) -> None:
    uuid, key = await server.entities.create_namespace("other")
    right = base64.b64encode(f"{uuid}:{key}".encode())
    for scheme in (b"Basic ", b"basic  ", b" BASIC "):
        assert authenticate_header(server.entities, scheme + right).namespace == "other"
    wrong = base64.b64encode(f"{uuid}:{key[:-1]}".encode())
    with pytest.raises(ApiError, match="The supplied authentication is invalid"):
        authenticate_header(server.entities, b"Basic " + wrong)


async def test_a_foreign_namespace_is_forbidden_whether_it_exists_or_not(server: Server) -> None:
    await server.entities.create_namespace("other")
    for namespace in ("other", "absent"):
        base = f"{NAMESPACES}/{namespace}"
        for method, path, resource in (
            ("GET", "actions", ""),
            ("GET", "actions/hello", "/hello"),
            ("PUT", "actions/hello", "/hello"),
            ("DELETE", "actions/pkg/hello", "/pkg/hello"),
            ("GET", "activations", ""),
            ("GET", f"activations/{ID}", ""),
            ("GET", "limits", ""),
        ):
            assert await server.error(method, f"{base}/{path}", json=BODY) == (
                403,
                f"The supplied authentication is not authorized to access '{namespace}{resource}'.",
            )


async def test_an_illegal_name_beats_what_else_is_wrong(server: Server) -> None:
    illegal = (400, "The name of the entity contains illegal characters.")
    for path in (
        f"{ACTIONS}/-a",
        f"{ACTIONS}/a%20",
        f"{ACTIONS}/a%2Fb",
        f"{ACTIONS}/pkg/a%2Fb",
        f"{ACTIONS}/-p/",
        f"{NAMESPACES}/other/actions/-a",
    ):
        assert await server.error("GET", path) == illegal
    assert await server.error("PATCH", f"{ACTIONS}/-a") == illegal
    assert await server.error("GET", f"{ACTIONS}/{'x' * 257}") == (
        400,
        "Name segement longer than allowed: 257 > 256.",
    )
    assert await server.error("GET", f"{NAMESPACES}/-n/actions") == (
        400,
        "The namespace contains illegal characters.",
    )
    assert await server.error("GET", f"{NAMESPACES}/{'n' * 257}/actions") == (
        400,
        "Namespace longer than allowed: 257 > 256.",
    )


# Namespaces and limits.


async def test_a_caller_has_one_namespace(server: Server) -> None:
    for path in (NAMESPACES, f"{NAMESPACES}/"):
        response = await server.call("GET", path)
        assert (response.status_code, response.json()) == (200, ["guest"])


async def test_the_limits_are_the_systems_or_the_namespaces_own(server: Server) -> None:
    for path in (f"{NAMESPACES}/_/limits", f"{NAMESPACES}/guest/limits/"):
        assert (await server.call("GET", path)).json() == {
            "invocationsPerMinute": 2147483647, "concurrentInvocations": 2147483647,
            "firesPerMinute": 2147483647, "maxActionMemory": 512, "minActionMemory": 128,
            "maxActionLogs": 10, "minActionLogs": 0, "maxActionTimeout": 300000,
            "minActionTimeout": 100, "maxActionConcurrency": 1, "minActionConcurrency": 1,
            "maxParameterSize": "1000 B", "maxActionInstances": 10000,
        }  # fmt: skip
    limits = NamespaceLimits(
        invocations_per_minute=0, concurrent_invocations=7, timeout_ms_max=500,
        memory_mb_max=4096, allowed_kinds=("python:3",),
    )  # fmt: skip
    credential = await server.entities.create_namespace("small", limits=limits)
    response = await server.call("GET", f"{NAMESPACES}/_/limits", auth=credential)
    document = response.json()
    assert document["invocationsPerMinute"] == 0
    assert document["concurrentInvocations"] == document["maxActionInstances"] == 7
    assert document["maxActionTimeout"] == 500
    assert document["maxActionMemory"] == 512  # never above the system's
    assert document["allowedKinds"] == ["python:3"]


async def test_limits_have_no_parts(server: Server) -> None:
    status, text = await server.error("GET", f"{NAMESPACES}/_/limits/x")
    assert (status, "'x'" in text) == (400, True)


# Actions.


async def test_an_action_is_created_read_updated_listed_and_deleted(server: Server) -> None:
    path = f"{ACTIONS}/hello%20world"
    created = await server.call("PUT", path, json=BODY)
    assert created.status_code == 200
    document = created.json()
    assert document["namespace"] == "guest"
    assert document["name"] == "hello world"
    assert document["version"] == "0.0.1"
    assert document["exec"] == BODY["exec"] | {"binary": False}
    read = await server.call("GET", path)
    assert read.json() == document
    assert (await server.call("GET", path, params={"code": "true"})).json() == document
    bare = (await server.call("GET", path, params={"code": "false"})).json()
    assert bare == document | {"exec": {"kind": "python:3", "binary": False}}
    head = await server.call("HEAD", path)
    assert head.status_code == 200

    assert await server.error("PUT", path, json=BODY) == (409, "resource already exists")
    no = {"overwrite": "false"}
    assert await server.error("PUT", path, json=BODY, params=no) == (409, "resource already exists")
    updated = await server.call("PUT", path, json={"publish": True}, params={"overwrite": "true"})
    assert updated.json() == document | {"version": "0.0.2", "publish": True}

    for collection in (ACTIONS, f"{ACTIONS}/"):
        assert (await server.call("GET", collection)).json() == [
            {
                "namespace": "guest",
                "name": "hello world",
                "version": "0.0.2",
                "publish": True,
                "annotations": document["annotations"],
                "updated": T0,
                "limits": document["limits"],
                "exec": {"binary": False},
            }
        ]
    counted = await server.call("GET", ACTIONS, params={"count": "true"})
    assert counted.json() == {"actions": 1}
    deleted = await server.call("DELETE", path)
    assert (deleted.status_code, deleted.json()) == (200, updated.json())
    absent = (404, "The requested resource does not exist.")
    assert await server.error("GET", path) == absent
    assert await server.error("DELETE", path) == absent
    assert (await server.call("GET", ACTIONS)).json() == []


async def test_a_package_that_does_not_exist_has_no_actions(server: Server) -> None:
    named = (404, "The requested resource 'guest/pkg' does not exist.")
    assert await server.error("GET", f"{ACTIONS}/pkg/") == named
    assert await server.error("PUT", f"{ACTIONS}/pkg/hello", json=BODY) == named
    assert (await server.error("GET", f"{ACTIONS}/pkg/hello"))[0] == 404


@pytest.mark.parametrize("collection", ["actions", "activations"])
@pytest.mark.parametrize(
    ("query", "parameter", "detail"),
    [
        ("limit=201", "limit", "The value '201' is not in the range of 0 to 200 for {}."),
        ("limit=-1", "limit", "The value '-1' is not in the range of 0 to 200 for {}."),
        ("limit=x", "limit", "The value 'x' is not an integer for {}."),
        ("limit=1_0", "limit", "The value '1_0' is not an integer for {}."),
        ("limit=", "limit", "The value '' is not an integer for {}."),
        ("skip=-1", "skip", "The value '-1' is not greater than or equal to 0 for {}."),
        ("skip=1.5", "skip", "The value '1.5' is not an integer for {}."),
        ("count=maybe", "count", "The value 'maybe' is neither true nor false."),
    ],
)
async def test_a_malformed_query_parameter_is_named(
    server: Server, collection: str, query: str, parameter: str, detail: str
) -> None:
    assert await server.error("GET", f"{NAMESPACES}/_/{collection}?{query}") == (
        400,
        f"The query parameter '{parameter}' was malformed:\n{detail.format(collection)}",
    )


async def test_lists_have_30_rows_unless_asked_for_more(server: Server) -> None:
    for number in range(35):
        await server.entities.put_action("guest", f"a{number}", BODY, False)
        put_record(server, f"{number:032x}", T0 + number)
    for path in (ACTIONS, ACTIVATIONS):
        for query, rows in (
            ("", 30),
            ("limit=0", 35),
            ("limit=200&skip=30", 5),
            ("limit=2&unknown=1", 2),
            (f"skip={10**30}", 0),
        ):
            response = await server.call("GET", f"{path}?{query}")
            assert (response.status_code, len(response.json())) == (200, rows)


@pytest.mark.parametrize(
    ("content", "headers", "status", "text"),
    [
        (b"{", {}, 400, "The request content was malformed:\n"),
        (b'{"a":"\xff"}', {}, 400, "The request content was malformed:\n"),
        (b"[" * 5000, {}, 400, "The request content was malformed:\n"),
        (b"[]", {}, 400, "The request content was malformed:\nThe body must be a JSON object."),
        (b"", {}, 400, "The request content was malformed:\nThe body is empty"),
        (b"", {"Content-Type": ""}, 400, "The request content was malformed:\nThe body is empty"),
        (b"{}", {"Content-Type": "text/plain"}, 415, NOT_JSON),
        (b"{}", {"Content-Type": ""}, 415, NOT_JSON),
        (b"{}", {"Content-Type": "Application/JSON; charset=utf-8"}, 400, "exec undefined"),
    ],
)
async def test_a_body_must_be_a_json_object(
    server: Server, content: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    headers = {"Content-Type": "application/json"} | headers
    refusal = await server.error("PUT", f"{ACTIONS}/hello", content=content, headers=headers)
    assert refusal[0] == status
    assert refusal[1].startswith(text)


async def test_a_body_is_read_to_its_bound_and_no_further(server: Server) -> None:
    bound = server.entities.limits.body_bytes_max
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b" " * 100_000

    headers = {"Content-Type": "application/json"}
    status, text = await server.error("PUT", f"{ACTIONS}/hello", content=chunks(), headers=headers)
    assert status == 413
    assert text.endswith(f" > {bound} bytes.")
    assert bound < sent <= bound + 200_000
    announced = headers | {"Content-Length": str(bound + 1)}
    assert await server.error("PUT", f"{ACTIONS}/hello", content=b"{}", headers=announced) == (
        413,
        f"Request larger than allowed: {bound + 1} > {bound} bytes.",
    )


async def test_code_that_is_too_large_is_told_its_size(server: Server) -> None:
    body = {"exec": {"kind": "python:3", "code": "#" * 1001}}
    assert await server.error("PUT", f"{ACTIONS}/hello", json=body) == (
        413,
        "exec larger than allowed: 1001 > 1000 bytes.",
    )


# Activations.


async def test_a_record_is_read_whole_and_in_parts(server: Server) -> None:
    put_record(server)
    path = f"{ACTIVATIONS}/{ID}"
    record = (await server.call("GET", path)).json()
    assert record["activationId"] == ID
    assert record["logs"] == ["l"]
    result = await server.call("GET", f"{path}/result")
    assert result.json() == {"status": "success", "success": True, "result": {"a": 1}, "size": 7}
    logs = await server.call("GET", f"{path}/logs")
    assert logs.json() == {"logs": ["l"]}
    (row,) = (await server.call("GET", ACTIVATIONS)).json()
    assert row["statusCode"] == 0
    assert "response" not in row
    (full,) = (await server.call("GET", f"{ACTIVATIONS}/?docs=true")).json()
    assert full == record
    counted = await server.call("GET", ACTIVATIONS, params={"count": "true"})
    assert counted.json() == {"activations": 1}


async def test_a_result_that_nests_deep_is_read(server: Server) -> None:
    put_record(server, nested=900)
    result = await server.call("GET", f"{ACTIVATIONS}/{ID}/result")
    assert result.status_code == 200
    assert result.json()["size"] == 1807
    assert result.content.startswith(b'{"status":"success","success":true,"result":{"a":[[[[')
    assert result.content.endswith(b']]]]},"size":1807}')


async def test_an_activation_that_is_not_there_is_not_found(server: Server) -> None:
    for part in ("", "/result", "/logs"):
        assert await server.error("GET", f"{ACTIVATIONS}/{ID}{part}") == (
            404,
            "The requested resource does not exist.",
        )
    assert await server.error("GET", f"{ACTIVATIONS}/abc") == (
        400,
        "Activation id length is 3 but must be 32.",
    )
    assert await server.error("GET", f"{ACTIVATIONS}/{ID.upper()}/logs") == (
        400,
        "The activation id is not valid.",
    )


async def test_activations_are_filtered_by_name_and_start(server: Server) -> None:
    for number in range(3):
        put_record(server, f"{number:032x}", T0 + number)
    for query, rows in (
        ("name=hello", 3),
        ("name=", 3),
        ("name=pkg/hello", 0),
        (f"since={T0 + 1}", 2),
        (f"upto={T0 + 1}", 2),
        (f"since={T0 + 1}&upto={T0 + 1}", 1),
        (f"since={10**30}", 0),
    ):
        assert len((await server.call("GET", f"{ACTIVATIONS}?{query}")).json()) == rows
        counted = await server.call("GET", f"{ACTIVATIONS}?{query}&count=true")
        assert counted.json() == {"activations": rows}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "name=a/b/c",
            "The query parameter 'name' was malformed:\n"
            "Parameter may be a 'simple' name or 'package-name/simple' name: a/b/c",
        ),
        (
            "since=x",
            "The query parameter 'since' was malformed:\n"
            "Parameter is not a valid value for epoch seconds: x",
        ),
        (
            "upto=-1",
            "The query parameter 'upto' was malformed:\n"
            "Parameter is not a valid value for epoch seconds: -1",
        ),
        ("count=true&docs=true", "The parameter 'docs' is not permitted with 'count'."),
    ],
)
async def test_a_malformed_filter_is_named(server: Server, query: str, text: str) -> None:
    assert await server.error("GET", f"{ACTIVATIONS}?{query}") == (400, text)


# Failures of our own.


async def test_an_internal_error_is_logged_with_its_id_and_without_credentials(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("planted fault")

    monkeypatch.setattr(server.entities, "get", broken)
    headers = {"X-Request-ID": "request-7"}
    assert await server.error("GET", f"{ACTIONS}/hello", headers=headers) == (
        500,
        "There was an internal server error.",
    )
    (entry,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert entry.getMessage() == (
        "request request-7 failed: GET /api/v1/namespaces/_/actions/hello"
    )
    assert "planted fault" in caplog.text
    credential = server.auth._auth_header.partition(" ")[2]
    key = base64.b64decode(credential).decode().partition(":")[2]
    assert credential not in caplog.text
    assert key not in caplog.text
