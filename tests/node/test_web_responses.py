"""What a web action's result is over HTTP, form by form."""

from typing import Any

import pytest

from acs_node.errors import ApiError
from acs_node.web_responses import web_response

TEXT = "text/html; charset=UTF-8"


def answered(extension: str, result: Any) -> tuple[int, str, bytes]:
    """Return status, content type and body."""
    response = web_response(extension, result)
    headers = {name.lower().decode(): value.decode() for name, value in response.headers}
    return response.status, headers.get("content-type", ""), response.body


@pytest.mark.parametrize(
    ("extension", "result", "content_type", "body"),
    [
        (".json", {"a": 1}, "application/json", b'{"a":1}'),
        (".json", [1, "x"], "application/json", b'[1,"x"]'),
        (".json", {}, "application/json", b"{}"),
        (".text", {"body": "hi"}, "text/plain; charset=UTF-8", b"hi"),
        (".text", {"text": "hü"}, "text/plain; charset=UTF-8", "hü".encode()),
        (".text", {"text": {"a": 1}}, "text/plain; charset=UTF-8", b'{"a":1}'),
        (".text", [1, 2], "text/plain; charset=UTF-8", b"[1,2]"),
        (".text", "plain", "text/plain; charset=UTF-8", b"plain"),
        (".text", 7, "text/plain; charset=UTF-8", b"7"),
        (".text", {"text": None}, "text/plain; charset=UTF-8", b"null"),
        (".html", {"html": "<p>"}, TEXT, b"<p>"),
        (".html", {"body": "<b>", "html": "<p>"}, TEXT, b"<b>"),
        (".html", "<i>", TEXT, b"<i>"),
        (".svg", {"svg": "<svg/>"}, "image/svg+xml", b"<svg/>"),
        (".http", {"body": "<p>"}, TEXT, b"<p>"),
        (".http", {"body": {"a": 1}}, "application/json", b'{"a":1}'),
        (".http", {"body": [1]}, "application/json", b"[1]"),
        (".http", {"body": 7}, "application/json", b"7"),
        (".http", {"body": False}, "application/json", b"false"),
        (
            ".http",
            {"headers": {"Content-Type": "application/vnd.x+json"}, "body": {"a": 1}},
            "application/vnd.x+json",
            b'{"a":1}',
        ),
        (
            ".http",
            {"headers": {"content-type": "text/plain"}, "body": "aGk="},
            "text/plain",
            b"aGk=",
        ),
        (
            ".http",
            {"headers": {"content-type": "image/png"}, "body": "iVBORw=="},
            "image/png",
            b"\x89PNG",
        ),
        (
            ".http",
            {"headers": {"content-type": "image/svg+xml"}, "body": "<svg/>"},
            "image/svg+xml",
            b"<svg/>",
        ),
        (
            ".http",
            {"headers": {"content-type": "application/json"}, "body": "eyJhIjoxfQ=="},
            "application/json",
            b'{"a":1}',
        ),
        (
            ".http",
            {"headers": {"content-type": "application/json"}, "body": '{"a":1}'},
            "application/json",
            b'{"a":1}',
        ),
        (
            ".http",
            {"headers": {"content-type": 'text/plain; charset="iso-8859-1"'}, "body": "ü"},
            'text/plain; charset="iso-8859-1"',
            b"\xfc",
        ),
        (
            ".http",
            {"headers": {"content-type": "text/plain; charset=none-such"}, "body": "ü"},
            "text/plain; charset=none-such",
            "ü".encode(),
        ),
        (
            ".http",
            {"headers": {"content-type": "text/plain; charset=ascii"}, "body": "ü"},
            "text/plain; charset=ascii",
            "ü".encode(),
        ),
    ],
)
def test_a_result_has_the_form_that_the_extension_asks_for(
    extension: str, result: Any, content_type: str, body: bytes
) -> None:
    assert answered(extension, result) == (200, content_type, body)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({}, 204),
        ({"body": ""}, 204),
        ({"body": None}, 204),
        ({"statusCode": 201}, 201),
        ({"statusCode": "404", "body": "no"}, 404),
        ({"statusCode": 302, "headers": {"location": "/x"}}, 302),
        ({"statusCode": 204, "body": "is dropped"}, 204),
        ({"statusCode": 304, "body": "is dropped"}, 304),
        ({"statusCode": 599, "body": "x"}, 599),
    ],
)
def test_a_status_is_the_results_own_or_what_its_body_means(result: Any, status: int) -> None:
    response = web_response(".http", result)
    assert response.status == status
    if "is dropped" in str(result):
        assert response.body == b""


def test_headers_are_texts_truths_numbers_and_lists_of_them() -> None:
    headers = {"Set-Cookie": ["a=1", "b=2"], "X-A": True, "X-N": 1.5, "X-U": "ü", "X-None": []}
    response = web_response(".http", {"headers": headers})
    assert response.headers == (
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"X-A", b"true"),
        (b"X-N", b"1.5"),
        (b"X-U", "ü".encode()),
    )


def test_headers_of_the_connection_are_the_servers() -> None:
    headers = {"Content-Length": 3, "transfer-encoding": "chunked", "Connection": "close", "X": 1}
    assert web_response(".http", {"headers": headers}).headers == ((b"X", b"1"),)


NO_HTTP = "Response is not valid 'message/http'."
MISMATCH = "Response type in header did not match generated content type."
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("extension", "result", "status", "text"),
    [
        (".json", "x", 400, "Response is not valid 'application/json'."),
        (".json", None, 400, "Response is not valid 'application/json'."),
        (".json", DEEP, 400, "Response is not valid 'application/json'."),
        (".text", {"a": 1}, 404, "Response does not include requested property."),
        (".html", {"a": 1}, 400, "Response is not valid 'text/html'."),
        (".html", {"html": 1}, 400, "Response is not valid 'text/html'."),
        (".svg", [1], 400, "Response is not valid 'image/svg+xml'."),
        (".http", "x", 400, NO_HTTP),
        (".http", [1], 400, NO_HTTP),
        (".http", {"statusCode": 99}, 400, NO_HTTP),
        (".http", {"statusCode": 101}, 400, NO_HTTP),
        (".http", {"statusCode": 600}, 400, NO_HTTP),
        (".http", {"statusCode": "abc"}, 400, NO_HTTP),
        (".http", {"statusCode": True}, 400, NO_HTTP),
        (".http", {"statusCode": 200.5}, 400, NO_HTTP),
        (".http", {"headers": []}, 400, NO_HTTP),
        (".http", {"headers": {"x": {}}}, 400, NO_HTTP),
        (".http", {"headers": {"x": [[]]}}, 400, NO_HTTP),
        (".http", {"headers": {"x": None}}, 400, NO_HTTP),
        (".http", {"headers": {"x": "a\r\nSet-Cookie: b"}}, 400, NO_HTTP),
        (".http", {"headers": {"x y": "a"}}, 400, NO_HTTP),
        (".http", {"headers": {"": "a"}}, 400, NO_HTTP),
        (
            ".http",
            {"headers": {"content-type": "nonsense"}, "body": "x"},
            400,
            "Response did not specify a known content-type.",
        ),
        (".http", {"headers": {"content-type": "image/png"}, "body": "no base64"}, 400, MISMATCH),
        (".http", {"headers": {"content-type": "image/png"}, "body": {"a": 1}}, 400, MISMATCH),
    ],
)
def test_what_has_not_the_form_is_told_so(
    extension: str, result: Any, status: int, text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        web_response(extension, result)
    assert (caught.value.status, caught.value.text) == (status, text)
