"""The HTTP front on a real server: what is asked on the wire, and what is answered."""

import json
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from node.house import ECHO, WAITS
from node.raw_http import Wire
from node.server import rest_client, running_server
from waiting import Gate, wait_until

from acs_node.demo import ServerProcess
from acs_node.errors import ApiError
from acs_node.front import is_invocation, parse_invocation
from acs_node.front_connection import HEAD_BYTES_MAX
from acs_node.front_cycle import PAYLOAD_BYTES_MAX

ACTIONS = "namespaces/_/actions"

# --- reading URLs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (b"/api/v1/namespaces/_/actions/a", True),
        (b"/api/v1/namespaces/_/actions/a?blocking=true", True),
        (b"/api/v1/namespaces/_/actions/p/a/", True),
        (b"/api/v1/namespaces/_/actions", False),
        (b"/api/v1/namespaces/_/actions/?x=/y", False),
        (b"/api/v1/namespaces/_/actions/p/a/b", False),
        (b"/api/v1/namespaces/_/activations/a", False),
        (b"/api/v2/namespaces/_/actions/a", False),
    ],
)
def test_the_invoke_route_is_told_from_all_others(url: bytes, expected: bool) -> None:
    assert is_invocation(url) is expected


def test_an_url_says_what_to_invoke_and_how() -> None:
    base = b"/api/v1/namespaces/_/actions/"
    plain = parse_invocation(base + b"my%20act", "me")
    assert (plain.namespace, plain.path) == ("me", "my act")
    assert (plain.blocking, plain.result_only, plain.timeout_ms) == (False, False, 60_000)
    full = parse_invocation(base + b"p/a?blocking=TRUE&result=true&timeout=007&x=1&y", "me")
    assert (full.path, full.blocking, full.result_only, full.timeout_ms) == ("p/a", True, True, 7)
    assert parse_invocation(b"/api/v1/namespaces/you/actions/a", "me").namespace == "you"


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        (b"_/actions/a%2Fb", "The name of the entity contains illegal characters."),
        (b"_/actions/%C3%A9", "The name of the entity contains illegal characters."),
        (b"_/actions/%ff", "The name of the entity contains illegal characters."),
        (b"_/actions//a", "The name of the entity contains illegal characters."),
        (b"_/actions/" + b"a" * 257, "Name segement longer than allowed: 257 > 256."),
        (b"a%2Fb/actions/a", "The namespace contains illegal characters."),
        (b"_/actions/a?timeout=0", "up to 60000."),
        (b"_/actions/a?timeout=60001", "up to 60000."),
        (b"_/actions/a?timeout=-1", "up to 60000."),
        (b"_/actions/a?timeout=", "up to 60000."),
        (b"_/actions/a?timeout=%D9%A1", "up to 60000."),
        (b"_/actions/a?timeout=" + b"1" * 5_000, "up to 60000."),
        (b"_/actions/a?blocking=yes", "'yes' is neither true nor false"),
        (b"_/actions/a?result=", "'' is neither true nor false"),
    ],
)
def test_what_cannot_be_read_in_an_url_is_named(rest: bytes, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_invocation(b"/api/v1/namespaces/" + rest, "me")
    assert caught.value.status == 400
    assert text in caught.value.text


# --- a server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server() as running, rest_client(running) as client:
        put(client, "echo", ECHO)
        put(client, "wait", WAITS)
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with rest_client(server) as made:
        yield made


def put(client: httpx.Client, name: str, code: str, **body: Any) -> None:
    document = {"exec": {"kind": "python:3", "code": code}, **body}
    client.put(f"{ACTIONS}/{name}?overwrite=true", json=document).raise_for_status()


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    with Wire(server) as made:
        yield made


# --- statuses and bodies -------------------------------------------------------------------------


def test_an_answer_carries_the_headers_of_the_api(client: httpx.Client) -> None:
    reply = client.post(
        f"{ACTIONS}/echo?blocking=true&result=true", json={"a": 1},
        headers={"X-Request-ID": "my-own id"},
    )  # fmt: skip
    assert (reply.status_code, reply.json()) == (200, {"a": 1})
    assert reply.headers["x-request-id"] == "my-own id"
    assert len(reply.headers["x-openwhisk-activation-id"]) == 32
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["content-type"] == "application/json"
    fresh = client.post(f"{ACTIONS}/echo?blocking=true", headers={"X-Request-ID": "sid_1"})
    assert len(fresh.headers["x-request-id"]) == 32
    assert fresh.json()["activationId"] == fresh.headers["x-openwhisk-activation-id"]


def test_a_202_has_the_id_in_its_body_and_header(client: httpx.Client) -> None:
    reply = client.post(f"{ACTIONS}/echo", json={"a": 1})
    activation_id = reply.headers["x-openwhisk-activation-id"]
    assert (reply.status_code, reply.json()) == (202, {"activationId": activation_id})
    path = f"namespaces/_/activations/{activation_id}"
    record = wait_until(lambda: found(client, path), "the record")
    assert record["response"]["result"] == {"a": 1}


def found(client: httpx.Client, path: str) -> Any:
    """Return the JSON at a path, None while it is not there."""
    reply = client.get(path)
    assert reply.status_code in (200, 404)
    return reply.json() if reply.status_code == 200 else None


def test_a_wait_that_is_too_short_gets_202(client: httpx.Client, tmp_path: Path) -> None:
    go = Gate(tmp_path / "go")
    reply = client.post(f"{ACTIONS}/wait?blocking=true&timeout=30", json={"go": str(go)})
    assert reply.status_code == 202
    path = f"namespaces/_/activations/{reply.json()['activationId']}"
    assert found(client, path) is None
    go.open()
    assert wait_until(lambda: found(client, path), "the record")["response"]["success"]


@pytest.mark.parametrize(
    ("target", "options", "status", "error"),
    [
        ("_/actions/echo", {"body": b"{"}, 400, "The request content was malformed:\n"),
        ("_/actions/echo", {"body": b"[1]"}, 400, "The body must be a JSON object."),
        ("_/actions/echo", {"content_type": "text/plain"}, 415, "Content-Type is not supported"),
        ("_/actions/echo", {"content_type": ""}, 415, "Expected:\napplication/json"),
        ("_/actions/echo", {"content_type": "application/jsonx"}, 415, "not supported"),
        ("_/actions/absent", {}, 404, "The requested resource does not exist."),
        ("_/actions/p/absent", {}, 404, "The requested resource 'guest/p' does not exist."),
        ("other/actions/echo", {}, 403, "not authorized to access 'other/echo'."),
        ("_/actions/a%21b", {}, 400, "contains illegal characters."),
        ("_/actions/echo?timeout=x", {}, 400, "Timeout must be number of milliseconds up to 60000"),
        ("_/actions/echo", {"auth": False}, 401, "which was not supplied with the request"),
        ("_/actions/echo", {"auth": False, "Authorization": "Basic !"}, 401, "is invalid"),
        ("_/actions/echo", {"auth": False, "Authorization": "Basic YTpi"}, 401, "is invalid"),
        ("_/actions/echo", {"auth": False, "Authorization": "Bearer YTpi"}, 401, "is invalid"),
    ],
)  # fmt: skip
def test_a_bad_request_is_told_what_is_wrong(
    wire: Wire, target: str, options: dict[str, Any], status: int, error: str
) -> None:
    wire.send(wire.request(target, **options, X_Request_ID="abc"))
    reply = wire.reply()
    assert reply.status == status
    assert error in reply.json["error"]
    assert reply.json["code"] == reply.headers["x-request-id"] == "abc"
    assert ("www-authenticate" in reply.headers) is (status == 401)
    wire.send(wire.request("_/actions/echo?blocking=true&result=true", b'{"after":1}'))
    assert wire.reply().json == {"after": 1}


def test_content_types_with_parameters_and_empty_bodies_without_a_type_are_fine(wire: Wire) -> None:
    target = "_/actions/echo?blocking=true&result=true"
    wire.send(wire.request(target, b'{"a":1}', content_type="Application/JSON ; charset=utf-8"))
    assert wire.reply().json == {"a": 1}
    wire.send(wire.request(target, b"", content_type=""))
    assert wire.reply().json == {}


def test_a_payload_has_a_largest_size(wire: Wire) -> None:
    target = "_/actions/echo?blocking=true&result=true"
    fits = b'{"a":"%b"}' % (b"x" * (PAYLOAD_BYTES_MAX - 8))
    wire.send(wire.request(target, fits))
    assert wire.reply().body == fits
    wire.send(wire.request(target, fits + b" "))
    reply = wire.reply()
    assert reply.status == 413
    assert reply.json["error"] == "Request larger than allowed: 1048577 > 1048576 bytes."
    wire.send(wire.request(target, b'{"a":1}'))
    assert wire.reply().json == {"a": 1}


def test_other_methods_and_routes_are_left_to_the_rest_of_the_api(wire: Wire) -> None:
    wire.send(wire.request("_/actions/echo", method="GET"))
    assert wire.reply().json["name"] == "echo"
    wire.send(wire.request("_/actions/echo", method="PATCH"))
    assert wire.reply().status == 405
    wire.send(wire.request("_/nothing/echo"))
    assert wire.reply().json["error"] == "The requested resource could not be found."
    wire.send(wire.request("_/actions/echo", method="OPTIONS", auth=False))
    assert wire.reply().status == 200


# --- framing -------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(wire: Wire, tmp_path: Path) -> None:
    go = Gate(tmp_path / "go")
    wait = json.dumps({"go": str(go), "n": 1}).encode()
    wire.send(
        wire.request("_/actions/wait?blocking=true&result=true", wait)
        + wire.request("_/actions/echo?blocking=true&result=true", b'{"n":2}')
        + wire.request("_/actions/echo", method="GET", length=False, body=b"")
        + wire.request("_/actions/absent")
        + wire.request("_/actions/echo?blocking=true&result=true", b'{"n":5}')
    )
    go.open()
    replies = [wire.reply() for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 404, 200]
    assert replies[0].json == {"n": 1}
    assert replies[1].json == {"n": 2}
    assert replies[2].json["name"] == "echo"
    assert replies[4].json == {"n": 5}


def test_the_body_of_a_pipelined_request_may_come_later(wire: Wire, tmp_path: Path) -> None:
    go = Gate(tmp_path / "go")
    wait = json.dumps({"go": str(go)}).encode()
    second = wire.request("_/actions/echo?blocking=true&result=true", b'{"n":2}')
    third = wire.request("_/actions/echo?blocking=true&result=true", b'{"n":3}')
    wire.send(wire.request("_/actions/wait?blocking=true", wait) + second[:-3])
    go.open()
    assert wire.reply().status == 200
    wire.send(second[-3:] + third)
    assert [wire.reply().json for _ in range(2)] == [{"n": 2}, {"n": 3}]


def test_thousands_of_pipelined_requests_are_answered_one_after_the_other(
    wire: Wire, tmp_path: Path
) -> None:
    go = Gate(tmp_path / "go")
    wait = json.dumps({"go": str(go)}).encode()
    wire.send(wire.request("_/actions/wait?blocking=true", wait))
    refused = b"POST /api/v1/namespaces/_/actions/a HTTP/1.1\r\n\r\n"
    count = 3_000
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(wire.send, refused * count, wire.request("_/actions/absent"))
        go.open()
        assert wire.reply().status == 200
        assert {wire.reply().status for _ in range(count)} == {401}
        assert wire.reply().status == 404
        sending.result()


def test_a_client_that_reads_nothing_is_read_no_further(server: ServerProcess) -> None:
    with Wire(server) as wire:
        wire.socket.setblocking(False)
        refused = wire.request("_/actions/echo", auth=False) * 1_000
        sent = 0
        while select.select([], [wire.socket], [], 2.0)[1]:
            with suppress(BlockingIOError):
                sent += wire.socket.send(refused[sent % len(refused) :])
            assert sent < 50_000_000, "the answers to all that would be held in memory"


def test_http_1_0_gets_its_answer_and_the_end(wire: Wire) -> None:
    wire.send(wire.request("_/actions/echo?blocking=true&result=true", b'{"a":1}', version="1.0"))
    reply = wire.reply()
    assert (reply.json, reply.headers["connection"]) == ({"a": 1}, "close")
    assert wire.ended()


def test_connection_close_is_obeyed(wire: Wire) -> None:
    wire.send(wire.request("_/actions/echo?blocking=true", Connection="close"))
    assert wire.reply().headers["connection"] == "close"
    assert wire.ended()


def test_a_client_that_expects_100_continue_is_told_to(wire: Wire) -> None:
    body = b'{"a":1}'
    request = wire.request("_/actions/echo?blocking=true&result=true", body, Expect="100-continue")
    wire.send(request[: -len(body)])
    assert wire.reply().status == 100
    wire.send(body)
    assert wire.reply().json == {"a": 1}


def test_a_chunked_body_is_put_together(wire: Wire) -> None:
    head = wire.request(
        "_/actions/echo?blocking=true&result=true", b"", length=False, Transfer_Encoding="chunked"
    )
    wire.send(head, b'5\r\n{"a":', b"\r\n2\r\n1}\r\n0\r\n", b"\r\n")
    assert wire.reply().json == {"a": 1}
    wire.send(head, b"1\r\n \r\n" * 5, b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n")
    assert wire.reply().json["error"] == "Request larger than allowed: 1048582 > 1048576 bytes."


def test_a_request_may_come_byte_by_byte(wire: Wire) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = wire.request("_/actions/echo?blocking=true&result=true", b'{"a":1}')
    wire.send(*(request[at : at + 1] for at in range(len(request))))
    assert wire.reply().json == {"a": 1}


@pytest.mark.parametrize("cut", [10, -1])
def test_half_a_request_and_a_disconnect_disturb_nobody(
    server: ServerProcess, client: httpx.Client, cut: int
) -> None:
    with Wire(server) as wire:
        wire.send(wire.request("_/actions/echo?blocking=true", b'{"a":1}')[:cut])
    assert client.post(f"{ACTIONS}/echo?blocking=true&result=true", json={}).json() == {}


@pytest.mark.parametrize("form", ["one header", "many headers", "a long URL", "little by little"])
def test_a_head_has_a_largest_size(server: ServerProcess, form: str) -> None:
    start = b"POST /api/v1/namespaces/_/actions/echo"
    x = b"x" * 1_000
    many = b"".join(b"H%d: %b\r\n" % (number, x) for number in range(70))
    parts = {
        "one header": [start + b" HTTP/1.1\r\nX: " + x * 70 + b"\r\n\r\n"],
        "many headers": [start + b" HTTP/1.1\r\n" + many + b"\r\n"],
        "a long URL": [start + b"?" + x * 70 + b" HTTP/1.1\r\n\r\n"],
        "little by little": [start + b" HTTP/1.1\r\nX: ", *[x] * 400],
    }[form]
    with Wire(server) as wire:
        try:
            wire.send(*parts)
        except (BrokenPipeError, ConnectionResetError):
            assert form == "little by little", "it is cut off before its end"
            return
        reply = wire.reply()
        assert reply.status == 431
        assert str(HEAD_BYTES_MAX) in reply.json["error"]
        assert wire.ended()


def test_a_long_head_in_pieces_that_is_short_enough_is_read(wire: Wire) -> None:
    target = "_/actions/echo?blocking=true&result=true"
    request = wire.request(target, b'{"a":1}', X="x" * 60_000)
    pieces = [request[at : at + 7_000] for at in range(0, len(request), 7_000)]
    wire.send(*pieces, *pieces, *pieces)
    assert [wire.reply().json for _ in range(3)] == [{"a": 1}] * 3


@pytest.mark.parametrize(
    "said",
    [
        b"this is no HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api/v1/namespaces/_/actions/echo HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/namespaces/_/actions/echo HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET http://[bad HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400_in_the_form_of_the_api(wire: Wire, said: bytes) -> None:
    wire.send(said)
    reply = wire.reply()
    assert reply.status == 400
    assert reply.json["error"] == "Invalid HTTP request received."
    assert reply.json["code"] == reply.headers["x-request-id"]
    assert wire.ended()


def test_what_came_before_nonsense_is_answered_first(wire: Wire, tmp_path: Path) -> None:
    go = Gate(tmp_path / "go")
    wait = json.dumps({"go": str(go), "n": 1}).encode()
    wire.send(
        wire.request("_/actions/wait?blocking=true&result=true", wait)
        + wire.request("_/actions/echo?blocking=true&result=true", b'{"n":2}')
        + b"nonsense\r\n\r\n"
    )
    go.open()
    assert [wire.reply().json for _ in range(2)] == [{"n": 1}, {"n": 2}]
    assert wire.reply().status == 400
    assert wire.ended()


@pytest.mark.parametrize("before", [False, True])
def test_a_body_that_cannot_be_read_is_answered_in_its_turn(
    wire: Wire, tmp_path: Path, before: bool
) -> None:
    go = Gate(tmp_path / "go")
    chunked = wire.request("_/actions/echo", b"", length=False, Transfer_Encoding="chunked")
    if before:
        wait = json.dumps({"go": str(go)}).encode()
        wire.send(wire.request("_/actions/wait?blocking=true", wait))
    wire.send(chunked + b"zz\r\n")
    go.open()
    if before:
        assert wire.reply().status == 200
    assert wire.reply().status == 400
    assert wire.ended()


UPGRADE: dict[str, Any] = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2_Settings": "AA",
}


def test_a_client_that_offers_another_protocol_is_served_in_this_one(wire: Wire) -> None:
    target = "_/actions/echo?blocking=true&result=true"
    offers = [wire.request(target, b'{"n":%d}' % n, **UPGRADE) for n in range(3)]
    plain = wire.request(target, b'{"n":3}')
    wire.send(b"".join(offers) + plain)
    assert [wire.reply().json for _ in range(4)] == [{"n": n} for n in range(4)]
    wire.send(offers[1][:-2])
    wire.send(offers[1][-2:] + plain)
    assert [wire.reply().json for _ in range(2)] == [{"n": 1}, {"n": 3}]
    action = json.dumps({"exec": {"kind": "python:3", "code": ECHO}}).encode()
    wire.send(wire.request("_/actions/new?overwrite=true", action, method="PUT", **UPGRADE))
    assert wire.reply().json["name"] == "new"
    wire.send(wire.request("_/actions/new", b"", method="GET", length=False, **UPGRADE))
    assert wire.reply().json["name"] == "new"


def test_many_offers_in_one_piece_are_no_deeper_than_one(wire: Wire) -> None:
    offer = wire.request("_/actions/a", b"", auth=False, **UPGRADE)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(wire.send, offer * 1_500)
        assert {wire.reply().status for _ in range(1_500)} == {401}


def test_connect_is_no_request_for_this_server(wire: Wire) -> None:
    wire.send(b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n\x16\x03")
    assert wire.reply().status in (400, 404)


# --- clients -------------------------------------------------------------------------------------


def test_a_client_that_goes_while_it_waits_leaves_an_activation_that_is_recorded(
    server: ServerProcess, client: httpx.Client, tmp_path: Path
) -> None:
    go = Gate(tmp_path / "go")
    put(client, "left", WAITS)
    with Wire(server) as wire:
        body = json.dumps({"go": str(go), "n": 9}).encode()
        wire.send(wire.request("_/actions/left?blocking=true", body))
        wait_until(lambda: pending(client), "the activation")
    go.open()
    path = "namespaces/_/activations?name=left&docs=true"
    (record,) = wait_until(lambda: client.get(path).json(), "the record")
    assert record["response"]["result"] == {"n": 9}
    assert not pending(client)


def pending(client: httpx.Client) -> int:
    return int(client.get("acs/status").json()["pending"])


def test_sixty_four_clients_at_once(server: ServerProcess) -> None:
    def user(number: int) -> list[Any]:
        with rest_client(server) as client:
            url = f"{ACTIONS}/echo?blocking=true&result=true"
            return [client.post(url, json={"n": [number, turn]}).json() for turn in range(10)]

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(user, range(64)))
    assert results == [[{"n": [number, turn]} for turn in range(10)] for number in range(64)]


def test_an_idle_connection_is_ended_and_a_busy_one_is_not(
    server: ServerProcess, tmp_path: Path
) -> None:
    go = Gate(tmp_path / "go")
    with Wire(server) as busy, Wire(server) as idle:
        for wire in (busy, idle):
            wire.send(wire.request("_/actions/echo?blocking=true"))
            assert wire.reply().status == 200
        busy.send(
            busy.request("_/actions/wait?blocking=true", json.dumps({"go": str(go)}).encode())
        )
        assert idle.ended()  # uvicorn's five seconds
        go.open()
        assert busy.reply().status == 200
