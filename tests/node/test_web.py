"""Web actions: what a request is to the action, what its result is to the client, who may call."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from node.house import WAITS, House
from node.rest import Server, open_whole_server
from waiting import Gate

WEB = "/api/v1/web/guest"
RESERVED = "Request defines parameters that are not allowed (e.g., reserved properties)."
ID = "x-openwhisk-activation-id"
ECHO = "def main(args):\n    return {'body': args}\n"
SAY = "def main(args):\n    return args['result']\n"
WEB_ACTION = {"web-export": True}
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH",
    "access-control-allow-headers": (
        "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
    ),
}


@dataclass
class Web:
    """A house with its API, used without credentials."""

    server: Server
    house: House

    async def put(self, name: str, code: str = ECHO, **more: Any) -> None:
        annotations = WEB_ACTION | {key.replace("_", "-"): value for key, value in more.items()}
        parameters = annotations.pop("parameters", {})
        body = {
            "exec": {"kind": "python:3", "code": code},
            "annotations": pairs(annotations),
            "parameters": pairs(parameters),
        }
        path = f"/api/v1/namespaces/_/actions/{name}"
        answer = await self.server.call("PUT", f"{path}?overwrite=true", json=body)
        assert answer.status_code == 200, answer.text

    async def call(self, path: str, method: str = "GET", **request: Any) -> httpx.Response:
        return await self.server.client.request(method, f"{WEB}/{path}", **request)

    async def arguments(self, path: str, method: str = "GET", **request: Any) -> Any:
        """Return what an action that gives back its arguments was called with."""
        answer = await self.call(path, method, **request)
        assert answer.status_code == 200, answer.text
        assert len(answer.headers[ID]) == 32
        return answer.json()

    async def said(self, result: Any, extension: str = "") -> httpx.Response:
        """Return what the answer is when the action returns ``result``."""
        return await self.call(f"default/say{extension}", "POST", json={"result": result})

    async def error(self, path: str, method: str = "GET", **request: Any) -> tuple[int, str]:
        answer = await self.call(path, method, **request)
        body = answer.json()
        assert set(body) == {"error", "code"}
        assert body["code"] == answer.headers["x-request-id"]
        return answer.status_code, body["error"]


def pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with open_whole_server() as (server, house):
        web = Web(server, house)
        await web.put("echo")
        await web.put("say", SAY)
        yield web


# --- the request ---------------------------------------------------------------------------------


async def test_a_request_is_told_to_the_action(web: Web) -> None:
    got = await web.arguments("default/echo/a%20b/c?x=1&y=&x=2", headers={"X-Mine": "here"})
    assert got["__ow_method"] == "get"
    assert got["__ow_path"] == "/a b/c"
    assert got["__ow_headers"]["x-mine"] == "here"
    assert (got["x"], got["y"]) == ("2", "")
    assert "__ow_user" not in got
    assert "__ow_body" not in got
    assert (await web.arguments("default/echo"))["__ow_path"] == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_fields_of_objects_and_forms_are_arguments(web: Web, method: str) -> None:
    got = await web.arguments("default/echo?a=query&b=2", method, json={"a": ["body"]})
    assert (got["a"], got["b"], got["__ow_method"]) == (["body"], "2", method.lower())
    got = await web.arguments("default/echo", method, data={"f": "1 2", "g": "ü"})
    assert (got["f"], got["g"]) == ("1 2", "ü")


@pytest.mark.parametrize(
    ("content", "content_type", "body"),
    [
        (b"[1,2]", "application/json", [1, 2]),
        (b'"x"', "application/vnd.y+json", "x"),
        ("hü".encode(), "text/plain; charset=utf-8", "hü"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"\x89PNG", "image/png", base64.b64encode(b"\x89PNG").decode()),
        (b"\x00\x01", "", base64.b64encode(b"\x00\x01").decode()),
    ],
)
async def test_what_has_no_fields_is_the_body(
    web: Web, content: bytes, content_type: str, body: Any
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    got = await web.arguments("default/echo", "POST", content=content, headers=headers)
    assert got["__ow_body"] == body


async def test_a_raw_action_gets_query_and_body_as_they_are(web: Web) -> None:
    await web.put("raw", raw_http=True)
    json = {"content": b'{"a":1}', "headers": {"Content-Type": "application/json"}}
    got = await web.arguments("default/raw?a=%20&__ow_x=1", "POST", **json)
    assert got["__ow_query"] == "a=%20&__ow_x=1"
    assert base64.b64decode(got["__ow_body"]) == b'{"a":1}'
    assert "a" not in got
    text = {"content": b"hi", "headers": {"Content-Type": "text/plain"}}
    assert (await web.arguments("default/raw", "POST", **text))["__ow_body"] == "hi"
    got = await web.arguments("default/raw")
    assert (got["__ow_query"], got["__ow_body"]) == ("", "")


async def test_bound_parameters_are_under_the_requests_and_final_ones_are_kept(web: Web) -> None:
    await web.put("bound", parameters={"a": 1, "b": 2})
    assert (await web.arguments("default/bound?a=9"))["a"] == "9"
    await web.put("bound", parameters={"a": 1, "b": None}, final=True)
    assert (await web.arguments("default/bound?b=3"))["b"] == "3"
    assert await web.error("default/bound?a=9") == (400, RESERVED)
    assert await web.error("default/bound", "POST", json={"a": 9}) == (400, RESERVED)


async def test_reserved_names_are_nobodys_to_give(web: Web) -> None:
    assert await web.error("default/echo?__ow_user=root") == (400, RESERVED)
    assert await web.error("default/echo", "POST", json={"__ow_method": "x"}) == (400, RESERVED)
    assert await web.error("default/echo", "POST", data={"__ow_body": "x"}) == (400, RESERVED)


async def test_a_body_that_cannot_be_used_is_told_so(web: Web) -> None:
    headers = {"Content-Type": "application/json"}
    status, text = await web.error("default/echo", "POST", content=b"{", headers=headers)
    assert (status, text[:38]) == (400, "The request content was malformed:\nune"[:38])
    deep = b"[" * 260 + b"]" * 260
    status, text = await web.error("default/echo", "POST", content=deep, headers=headers)
    assert status == 400
    size = web.house.entities.limits.payload_bytes_max + 1
    assert await web.error("default/echo", "POST", content=b"x" * size) == (
        413, f"Request larger than allowed: {size} > {size - 1} bytes.",
    )  # fmt: skip


# --- the answer ----------------------------------------------------------------------------------


async def test_a_result_is_status_headers_and_body(web: Web) -> None:
    answer = await web.said(
        {"statusCode": 418, "headers": {"Set-Cookie": ["a=1", "b=2"], "X-N": 1}, "body": "tea"}
    )
    assert (answer.status_code, answer.text) == (418, "tea")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["x-n"] == "1"
    assert answer.headers["content-length"] == "3"
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    png = await web.said({"headers": {"content-type": "image/png"}, "body": "iVBORw=="})
    assert png.content == b"\x89PNG"
    assert (await web.said({})).status_code == 204


@pytest.mark.parametrize(
    ("extension", "result", "content_type", "text"),
    [
        (".json", {"a": 1}, "application/json", '{"a":1}'),
        (".json", [1], "application/json", "[1]"),
        (".html", {"html": "<p>"}, "text/html; charset=UTF-8", "<p>"),
        (".svg", {"svg": "<svg/>"}, "image/svg+xml", "<svg/>"),
        (".text", {"text": "t"}, "text/plain; charset=UTF-8", "t"),
        (".http", {"body": "b"}, "text/html; charset=UTF-8", "b"),
    ],
)
async def test_the_extension_says_what_the_answer_is(
    web: Web, extension: str, result: Any, content_type: str, text: str
) -> None:
    answer = await web.said(result, extension)
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    assert answer.text == text


async def test_an_error_of_the_action_has_the_same_forms(web: Web) -> None:
    answer = await web.said({"error": {"statusCode": 403, "body": "no"}})
    assert (answer.status_code, answer.text) == (403, "no")
    assert (await web.said({"error": {"a": 1}}, ".json")).json() == {"a": 1}
    assert (await web.said({"error": "plain"}, ".text")).text == "plain"
    answer = await web.said({"error": "plain"})
    assert (answer.status_code, answer.json()["error"]) == (
        400, "Response is not valid 'message/http'.",
    )  # fmt: skip
    assert len(answer.headers[ID]) == 32


async def test_an_action_that_breaks_is_told_without_its_cause(web: Web) -> None:
    await web.put("breaks", "import os\ndef main(args):\n    os._exit(3)\n")
    told = (400, "There was an error processing your request.")
    assert await web.error("default/breaks") == told
    await web.put("breaks", "no python")
    assert await web.error("default/breaks.json") == told


async def test_an_answer_that_takes_too_long_comes_later(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    await web.put("wait", WAITS)
    monkeypatch.setattr("acs_node.web.WAIT_MS", 50)
    go = Gate(tmp_path / "go")
    answer = await web.call("default/wait", params={"go": str(go)})
    assert (answer.status_code, answer.json()["error"]) == (202, "Response not yet ready.")
    go.open()
    assert (await web.house.document(answer.headers[ID]))["response"]["success"] is True


async def test_the_record_is_the_owners(web: Web) -> None:
    answer = await web.call("default/echo")
    record = await web.house.document(answer.headers[ID])
    assert (record["namespace"], record["name"]) == ("guest", "echo")


# --- which actions, and who ----------------------------------------------------------------------


async def test_an_action_of_a_package_is_called_through_it_and_its_binding(web: Web) -> None:
    packages = "/api/v1/namespaces/_/packages"
    body: dict[str, Any] = {"parameters": pairs({"p": "of the package"})}
    await web.server.call("PUT", f"{packages}/pack", json=body)
    await web.put("pack/echo")
    assert (await web.arguments("pack/echo"))["p"] == "of the package"
    assert (await web.arguments("pack/echo.http/x"))["__ow_path"] == "/x"
    body = {"binding": {"namespace": "_", "name": "pack"}, "parameters": pairs({"p": "bound"})}
    await web.server.call("PUT", f"{packages}/bound", json=body)
    assert (await web.arguments("bound/echo"))["p"] == "bound"


async def test_a_name_may_have_a_dot_that_is_no_extension(web: Web) -> None:
    await web.put("v1.2")
    assert (await web.arguments("default/v1.2"))["__ow_path"] == ""
    assert (await web.arguments("default/v1.2.http/x"))["__ow_path"] == "/x"


@pytest.mark.parametrize(
    "path", ["default/private", "default/none", "none/echo", "echo", "default/a%2Fb", "default/%FF"]
)
async def test_what_is_not_exported_is_not_there(web: Web, path: str) -> None:
    await web.put("private", web_export=False)
    assert await web.error(path) == (404, "The requested resource does not exist.")


async def test_a_namespace_that_is_not_there_has_no_web_actions(web: Web) -> None:
    answer = await web.server.client.get("/api/v1/web/nobody/default/echo")
    assert answer.status_code == 404


async def test_a_user_of_the_system_is_known_and_his_key_is_not_passed_on(web: Web) -> None:
    got = await web.arguments("default/echo", auth=web.server.auth)
    assert got["__ow_user"] == "guest"
    assert "authorization" not in got["__ow_headers"]
    got = await web.arguments("default/echo", headers={"Authorization": "Bearer x"})
    assert got["__ow_headers"]["authorization"] == "Bearer x"


async def test_credentials_may_be_required(web: Web) -> None:
    await web.put("guarded", require_whisk_auth=True)
    assert (await web.error("default/guarded"))[0] == 401
    assert (await web.call("default/guarded", auth=("a", "b"))).status_code == 401
    assert (await web.arguments("default/guarded", auth=web.server.auth))["__ow_user"] == "guest"


@pytest.mark.parametrize(("required", "right"), [("se cret", "se cret"), (42, "42")])
async def test_a_secret_may_be_required(web: Web, required: Any, right: str) -> None:
    await web.put("guarded", require_whisk_auth=required)
    assert await web.error("default/guarded") == (401, "The supplied authentication is invalid")
    wrong = {"X-Require-Whisk-Auth": right + "x"}
    assert (await web.call("default/guarded", headers=wrong)).status_code == 401
    await web.arguments("default/guarded", headers={"X-Require-Whisk-Auth": right})


@pytest.mark.parametrize("required", ["", [], {}])
async def test_a_secret_that_is_none_lets_nobody_in(web: Web, required: Any) -> None:
    await web.put("guarded", require_whisk_auth=required)
    for headers in ({}, {"X-Require-Whisk-Auth": ""}, {"X-Require-Whisk-Auth": "[]"}):
        assert (await web.call("default/guarded", headers=headers)).status_code == 401


async def test_false_requires_nothing(web: Web) -> None:
    await web.put("open", require_whisk_auth=False)
    await web.arguments("default/open")


# --- other origins -------------------------------------------------------------------------------


async def test_browsers_of_other_origins_are_let_in(web: Web) -> None:
    options = await web.call("default/echo", "OPTIONS")
    assert (options.status_code, options.content) == (200, b"")
    assert ID not in options.headers  # nothing ran
    for answer in (options, await web.call("default/echo"), await web.said("no http")):
        assert {name: answer.headers[name] for name in CORS} == CORS
    asked = {"Access-Control-Request-Headers": "X-Mine"}
    options = await web.call("default/echo", "OPTIONS", headers=asked)
    assert options.headers["access-control-allow-headers"] == "X-Mine"
    assert (await web.call("default/none", "OPTIONS")).status_code == 404


async def test_an_actions_own_headers_go_before_those(web: Web) -> None:
    answer = await web.said({"headers": {"Access-Control-Allow-Origin": "https://a"}})
    assert answer.headers.get_list("access-control-allow-origin") == ["https://a"]


async def test_an_action_may_answer_options_itself(web: Web) -> None:
    await web.put("custom", web_custom_options=True)
    answer = await web.call("default/custom", "OPTIONS")
    assert answer.json()["__ow_method"] == "options"
    assert "access-control-allow-origin" not in answer.headers


async def test_methods_that_http_has_not_are_refused(web: Web) -> None:
    assert (await web.error("default/echo", "BREW"))[0] == 405
    head = await web.call("default/echo", "HEAD")
    assert head.status_code == 200
    assert len(head.headers[ID]) == 32


async def test_a_server_that_stops_says_so(web: Web) -> None:
    web.house.controller.stop_accepting()
    assert (await web.error("default/echo"))[0] == 503
