"""HTTP as the internet is: what dawdles, never ends, lies or goes away, on a real server.

Whatever it is, nobody else is disturbed.  ``bench/hostile_http.py`` measures the memory.
"""

import json
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from node.house import ECHO
from node.raw_http import Wire
from node.server import rest_client, running_server
from waiting import wait_until

from acs_node.demo import ServerProcess
from acs_node.errors import missing_credentials
from acs_node.front_connection import HEADERS_MAX
from acs_node.front_cycle import PAYLOAD_BYTES_MAX, STRANGER_BYTES_MAX, InvokeCycle

ACTIONS = "namespaces/_/actions"
INVOKE = "_/actions/echo?blocking=true&result=true"
CHUNKED: dict[str, Any] = {"length": False, "Transfer_Encoding": "chunked"}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server() as running, rest_client(running) as client:
        action = {"exec": {"kind": "python:3", "code": ECHO}}
        client.put(f"{ACTIONS}/echo", json=action).raise_for_status()
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A well-behaved client, which must be served at the end of each test."""
    with rest_client(server) as made:
        yield made
        assert made.post(f"namespaces/{INVOKE}", json={"still": "there"}).json() == {
            "still": "there"
        }


@pytest.fixture
def wire(server: ServerProcess, client: httpx.Client) -> Iterator[Wire]:
    with Wire(server) as made:
        yield made


# --- what dawdles --------------------------------------------------------------------------------


def test_clients_that_dawdle_are_cut_off_and_told_why(
    server: ServerProcess, client: httpx.Client
) -> None:
    def cut_off(started: bytes, drip: bytes) -> tuple[int, str] | None:
        with Wire(server) as wire:
            wire.socket.settimeout(0.5)
            wire.send(started)
            for _ in range(60):
                try:
                    if not wire.socket.recv(1, socket.MSG_PEEK):
                        return None
                    wire.socket.settimeout(20)
                    reply = wire.reply()
                    return (reply.status, reply.json["error"]) if wire.ended() else None
                except TimeoutError:
                    wire.send(drip)
            raise AssertionError("it was not cut off")

    with Wire(server) as wire, ThreadPoolExecutor(5) as pool:
        whole = wire.request(INVOKE, b"{}" + b" " * 1_000)
        chunked = wire.request(INVOKE, b"", **CHUNKED)
        put = wire.request("_/actions/new", b" " * 1_000, method="PUT")
        slow_head, slow_body, slow_chunks, silent, slow_put = pool.map(
            cut_off,
            [whole[:30], whole[:-900], chunked, b"", put[:-900]],
            [b"x", b" ", b"1\r\n \r\n", b"", b" "],
        )
    too_slow = (408, "The request comes slower than 1024 bytes per second.")
    assert slow_head == slow_body == slow_chunks == too_slow
    assert silent is None
    assert slow_put is None  # the application has begun; it hears that the client has gone
    assert client.get(f"{ACTIONS}/new").status_code == 404


# --- what never ends -----------------------------------------------------------------------------


def test_a_head_has_a_largest_number_of_headers(wire: Wire) -> None:
    many = b"".join(b"a%d:\r\n" % number for number in range(HEADERS_MAX + 1))
    wire.send(b"POST /api/v1/namespaces/_/actions/echo HTTP/1.1\r\n" + many + b"\r\n")
    reply = wire.reply()
    assert reply.status == 431
    assert f"{HEADERS_MAX} headers" in reply.json["error"]
    assert wire.ended()


def test_a_hundred_thousand_headers_are_not_read_to_their_end(wire: Wire) -> None:
    sent_all(wire, b"GET /ping HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n")
    assert wire.reply().status == 431


@pytest.mark.parametrize(
    ("start", "more", "text"),
    [
        (b"1;", b"x", "The body is little and its framing much."),
        (b"1\r\n \r\n0\r\nTrailer: ", b"x", "The body is little and its framing much."),
        (b"1\r\n \r\n0\r\n", b"a: b\r\n", "The body is little and its framing much."),
        (b"", b"100000\r\n%b\r\n" % (b" " * MIB), "Request larger than allowed:"),
    ],
    ids=["chunk extension", "one trailer", "trailers", "body"],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_has_no_end_is_ended(
    wire: Wire, start: bytes, more: bytes, text: str, method: str
) -> None:
    target = INVOKE if method == "POST" else "_/actions/new"
    wire.send(wire.request(target, b"", method=method, **CHUNKED), start)
    more *= max(1, 65_536 // len(more))
    for _ in range(300 * MIB // len(more)):
        if not sent_all(wire, more):
            break
    else:
        raise AssertionError("300 MiB of it were read")
    if method == "POST":
        reply = wire.reply()
        assert reply.status in (400, 413)
        assert reply.json["error"].startswith(text)


def sent_all(wire: Wire, data: bytes) -> bool:
    """Send, and say whether the server still took it."""
    try:
        wire.send(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_little_chunks_are_no_endless_framing(wire: Wire) -> None:
    body = json.dumps({"a": "x" * 200_000}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    wire.send(wire.request(INVOKE, b"", **CHUNKED), chunks)
    assert wire.reply().json == json.loads(body)


def test_of_a_strangers_body_little_is_kept() -> None:
    protocol = Mock(url=b"", headers=[])
    protocol.front.identity.side_effect = missing_credentials()
    cycle = InvokeCycle(protocol)
    cycle.add(b"x" * STRANGER_BYTES_MAX)
    assert len(cycle._parts) == 1
    cycle.add(b"x")
    cycle.add(b"x" * 1_000)
    assert not cycle._parts


def test_of_a_body_that_is_too_large_nothing_is_kept() -> None:
    cycle = InvokeCycle(Mock(url=b"", headers=[]))
    cycle.add(b"x" * PAYLOAD_BYTES_MAX)
    cycle.add(b"x")
    assert not cycle._parts


def test_a_stranger_with_a_large_body_gets_401(wire: Wire) -> None:
    wire.send(wire.request(INVOKE, b'{"a":"%b"}' % (b"x" * 500_000), auth=False))
    assert wire.reply().status == 401
    wire.send(wire.request(INVOKE))  # the connection goes on
    assert wire.reply().status == 200


# --- what lies -----------------------------------------------------------------------------------


def test_a_trailer_is_no_header(wire: Wire) -> None:
    head, _, credential = wire.request(INVOKE, b"", auth=False, **CHUNKED).partition(b"\r\n\r\n")
    credential = wire.request("x").split(b"\r\n")[2]
    assert credential.startswith(b"Authorization: Basic ")
    body = b"2\r\n{}\r\n0\r\n" + credential + b"\r\n\r\n"
    wire.send(head + b"\r\n\r\n" + body)
    assert wire.reply().status == 401


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -2\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: gzip, identity\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
    ],
)
def test_a_request_whose_end_is_unclear_is_refused(wire: Wire, headers: bytes) -> None:
    wire.send(b"POST /api/v1/namespaces/_/actions/echo HTTP/1.1\r\nHost: x\r\n" + headers)
    wire.send(b"\r\n{}")
    reply = wire.reply()
    assert reply.status == 400
    assert wire.ended()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_bytes_that_are_no_utf_8_are_told_so(wire: Wire, method: str) -> None:
    for target in ("_/actions/%FF", "%FF/actions/echo", "%C3%28/actions/echo"):
        wire.send(wire.request(target, b"{}", method=method))
        assert wire.reply().status == 400
    if method in ("POST", "PUT"):
        wire.send(wire.request("_/actions/echo", b'{"exec":"\xff"}', method=method))
        reply = wire.reply()
        assert reply.status == 400
        assert reply.json["error"].startswith("The request content was malformed:")
    raw = wire.request("_/actions/nobody", b"", method=method, X_Request_ID="!")
    wire.send(raw.replace(b"ID: !", b"ID: \xff\xfe"))
    reply = wire.reply()
    assert reply.status < 500
    assert reply.headers["x-request-id"] == "\xff\xfe"
    wire.send(raw.replace(b"actions/nobody", b"actions/\xff"))
    assert wire.reply().status == 400


# --- what goes away ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_cut_off_is_nothing(
    server: ServerProcess, client: httpx.Client, method: str, chunked: bool
) -> None:
    action = {"exec": {"kind": "python:3", "code": "x" * 100_000}}
    client.put(f"{ACTIONS}/cut?overwrite=true", json=action).raise_for_status()
    body = json.dumps(action).encode()
    target = "_/actions/new" if method == "PUT" else "_/actions/cut"
    with Wire(server) as wire:
        if chunked:
            head = wire.request(target, b"", method=method, **CHUNKED)
            wire.send(head, b"%x\r\n" % len(body), body, b"\r\n")  # and no last chunk
        else:
            wire.send(wire.request(target, body, method=method)[:-1])
    later = client.post(f"namespaces/{INVOKE}", json={})
    run = later.headers["x-openwhisk-activation-id"]
    client.get(f"namespaces/_/activations/{run}").raise_for_status()
    assert client.get(f"{ACTIONS}/new").status_code == 404
    assert client.get("acs/status").json()["pending"] == 0
    assert client.get("namespaces/_/activations?name=cut").json() == []


def test_clients_that_leave_their_answers_unread_are_forgotten(
    server: ServerProcess, client: httpx.Client
) -> None:
    client.put(
        f"{ACTIONS}/large?overwrite=true",
        json={"exec": {"kind": "python:3", "code": "#" * 5_000_000}},
    ).raise_for_status()
    before = descriptors(server)
    for _ in range(20):
        with Wire(server) as wire:
            wire.send(wire.request("_/actions/large", b"", method="GET"))
            assert wire.socket.recv(1)
    wait_until(lambda: descriptors(server) <= before, "the end of the connections")


def descriptors(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


# --- old and odd ---------------------------------------------------------------------------------


def test_http_1_0_gets_the_rest_of_the_api_as_well(wire: Wire) -> None:
    wire.send(wire.request("_/actions/echo", b"", method="GET", version="1.0"))
    assert wire.reply().json["name"] == "echo"
    assert wire.ended()


def test_a_client_that_expects_100_continue_uploads_after_it(wire: Wire) -> None:
    body = json.dumps({"exec": {"kind": "python:3", "code": ECHO}}).encode()
    request = wire.request("_/actions/up?overwrite=true", body, method="PUT", Expect="100-continue")
    wire.send(request[: -len(body)])
    assert wire.reply().status == 100
    wire.send(body)
    assert wire.reply().json["name"] == "up"


def test_a_client_that_expects_100_continue_may_be_refused_before_it(wire: Wire) -> None:
    head = wire.request("_/actions/up", b"", method="PUT", auth=False, Expect="100-continue")
    wire.send(head)
    assert wire.reply().status == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_url_with_its_host_means_the_same(wire: Wire, method: str) -> None:
    request = wire.request(INVOKE, b'{"a":1}', method=method)
    wire.send(request.replace(b" /api", b" http://localhost:1234/api", 1))
    answer = wire.reply().json
    assert answer == {"a": 1} if method == "POST" else answer["name"] == "echo"


# --- too many ------------------------------------------------------------------------------------


def test_connections_beyond_the_bound_are_told_so_and_the_others_served() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        starting = running_server()
        server = starting.__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        stack.push(starting)
        wires = [stack.enter_context(Wire(server)) for _ in range(128)]
        with Wire(server) as one_more:
            reply = one_more.reply()
            assert reply.status == 503
            assert "connections are open (count: 129, allowed: 128)" in reply.json["error"]
            assert int(reply.headers["retry-after"]) >= 1
            assert one_more.ended()
        wires[0].send(wires[0].request("_/limits", b"", method="GET"))
        assert wires[0].reply().status == 200
