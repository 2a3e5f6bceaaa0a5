"""The connection to a container, against a scripted server on a real Unix socket."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from node.house import DEADLINE_S
from waiting import until

from acs_node.container_connection import (
    BODY_KEPT_MAX,
    ContainerConnection,
    ContainerConnections,
    FreshConnections,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="acs-") as name:
        yield Path(name)


@dataclass
class Talk:
    """Both ends: what the client was told, and the server's streams."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: ContainerConnection
    losses: list[str]
    replies: list[tuple[int, bytes, int]] = field(default_factory=list)

    def post(self, route: bytes = b"/run", body: bytes = b"{}") -> None:
        self.connection.post(route, body, lambda *reply: self.replies.append(reply))

    async def answer(self, *parts: bytes) -> None:
        """Send the parts one by one, so that each arrives in a read of its own."""
        loop = asyncio.get_running_loop()
        for part in parts:
            self.writer.write(part)
            with suppress(ConnectionError):
                await self.writer.drain()
            turn = loop.create_future()
            loop.call_later(0.002, turn.set_result, None)
            await turn

    async def replied(self) -> tuple[int, bytes, int]:
        return (await until(lambda: self.replies, "the reply"))[0]

    async def lost(self) -> None:
        await until(lambda: self.losses, "the loss")
        assert self.losses == ["lost"], "told once"
        assert self.connection.lost


@asynccontextmanager
async def talk(folder: Path) -> AsyncIterator[Talk]:
    came: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
        asyncio.get_running_loop().create_future()
    )
    path = str(folder / "run.sock")
    server = await asyncio.start_unix_server(lambda r, w: came.set_result((r, w)), path)
    losses: list[str] = []
    connection = await ContainerConnection.open(path, lambda: losses.append("lost"))
    reader, writer = await asyncio.wait_for(came, DEADLINE_S)
    try:
        yield Talk(reader, writer, connection, losses)
    finally:
        connection.close()
        writer.close()
        server.close()
        await server.wait_closed()


async def test_a_request_is_framed_by_its_length(folder: Path) -> None:
    async with talk(folder) as t:
        t.post(b"/init", b'{"value":{}}')
        got = await t.reader.readuntil(b"}}")
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /init HTTP/1.1"
    assert b"Content-Length: 12" in lines
    assert b"Content-Type: application/json" in lines
    assert any(line.startswith(b"Host: ") for line in lines)
    assert body == b'{"value":{}}'


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((OK,), (200, b"{}", 2)),
        ((OK[:30], OK[30:]), (200, b"{}", 2)),
        ((OK[:-2], b"{", b"}"), (200, b"{}", 2)),
        ((OK[:-4], OK[-4:]), (200, b"{}", 2)),
        ((b"HTTP/1.1 502 Bad Gateway\r\ncontent-length:7\r\n\r\n{\"a\":1}",), (502, b'{"a":1}', 7)),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",), (200, b"", 0)),
        ((CHUNKED,), (200, b'{"a":1}', 7)),
        ((CHUNKED[:60], CHUNKED[60:]), (200, b'{"a":1}', 7)),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK), (200, b"{}", 2)),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" + OK,), (200, b"{}", 2)),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",), (200, b"{}", 2)),
    ],
)  # fmt: skip
async def test_an_answer_in_any_legal_form_and_any_pieces(
    folder: Path, parts: tuple[bytes, ...], expected: tuple[int, bytes, int]
) -> None:
    async with talk(folder) as t:
        t.post()
        await t.answer(*parts)
        assert await t.replied() == expected
        assert not t.losses
        t.post()
        await t.answer(OK)
        await until(lambda: len(t.replies) == 2, "the answer to a second request")
        assert t.replies[1] == (200, b"{}", 2)


async def test_more_than_is_kept_of_a_body_is_counted(folder: Path) -> None:
    size = BODY_KEPT_MAX + 12_345
    async with talk(folder) as t:
        t.post()
        await t.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)
        status, body, told = await t.replied()
        assert (status, told) == (200, size)
        assert body == b"x" * BODY_KEPT_MAX
        t.post()
        await t.answer(OK)
        await until(lambda: len(t.replies) == 2, "the next answer")
        assert t.replies[1] == (200, b"{}", 2)


@pytest.mark.parametrize(
    "said",
    [
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 abc\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_nonsense_ends_the_connection_without_an_answer(folder: Path, said: bytes) -> None:
    async with talk(folder) as t:
        t.post()
        await t.answer(said)
        await t.lost()
        assert not t.replies


async def test_an_answer_that_nobody_asked_for_ends_the_connection(folder: Path) -> None:
    async with talk(folder) as t:
        await t.answer(OK)
        await t.lost()


async def test_two_answers_to_one_request_end_the_connection_after_the_first(folder: Path) -> None:
    async with talk(folder) as t:
        t.post()
        await t.answer(OK + OK)
        await t.lost()
        assert len(t.replies) <= 1


@pytest.mark.parametrize("said", [b"", OK[:20], OK[:-1]])
async def test_a_peer_that_closes_before_its_answer_is_whole_is_lost(
    folder: Path, said: bytes
) -> None:
    async with talk(folder) as t:
        t.post()
        await t.reader.readuntil(b"{}")
        await t.answer(said)
        t.writer.close()
        await t.lost()
        assert not t.replies


async def test_close_loses_the_connection_and_a_late_answer_goes_nowhere(folder: Path) -> None:
    async with talk(folder) as t:
        t.post()
        t.connection.close()
        await t.answer(OK)
        await t.lost()
        t.connection.close()
        assert not t.replies
    assert t.losses == ["lost"]


async def test_one_request_at_a_time(folder: Path) -> None:
    async with talk(folder) as t:
        t.post()
        with pytest.raises(AssertionError, match="one request at a time"):
            t.post()


async def test_opening_where_nobody_listens_raises_oserror(folder: Path) -> None:
    with pytest.raises(OSError):
        await ContainerConnection.open(str(folder / "absent.sock"), lambda: None)


# Several connections, and fresh ones


@dataclass
class Host:
    """A server on TCP that answers each request when it is told to, in the order they came."""

    port: int
    came: list[tuple[bytes, asyncio.StreamWriter]]
    open_count: int = 0

    async def request(self, number: int) -> tuple[bytes, asyncio.StreamWriter]:
        await until(lambda: len(self.came) > number, f"request {number}")
        return self.came[number]

    async def reply(self, number: int) -> None:
        (await self.request(number))[1].write(OK)


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    made = Host(0, [])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.open_count += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                made.came.append((await reader.readexactly(length), writer))
        made.open_count -= 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def test_requests_wait_for_a_connection_until_more_are_allowed() -> None:
    replies: list[int] = []
    async with host() as h:
        losses: list[str] = []

        def owner() -> None:
            losses.append("lost")
            connections.close()

        first = await ContainerConnection.open("", owner, h.port)

        async def open_more(on_lost: Callable[[], None]) -> ContainerConnection:
            return await ContainerConnection.open("", on_lost, h.port)

        connections = ContainerConnections(first, open_more)

        def post(number: int) -> None:
            connections.post(b"/run", b"%d" % number, lambda *_: replies.append(number))

        for number in range(2):
            post(number)
        await h.reply(0)
        assert (await h.request(1))[0] == b"1"
        assert h.open_count == 1
        connections.connections_max = 3
        for number in range(2, 5):
            post(number)
        await h.request(3)
        assert h.open_count == 3
        for number in range(1, 5):
            await h.reply(number)
        await until(lambda: len(replies) == 5, "all replies")
        assert sorted(replies) == [0, 1, 2, 3, 4]
        assert h.open_count == 3
        # One that ends takes all with it, and its owner is told once.
        post(5)
        (await h.request(5))[1].close()
        await until(lambda: losses, "the loss")
        await until(lambda: h.open_count == 0, "the end of the others")
        assert connections.lost
        assert losses == ["lost"]


async def test_fresh_connections_end_with_their_answers() -> None:
    replies: list[tuple[int, bytes, int]] = []
    async with host() as h:
        losses: list[str] = []
        fresh = FreshConnections(h.port, lambda: losses.append("lost"))
        for _ in range(2):
            fresh.post(b"/run", b"{}", lambda *reply: replies.append(reply))
        await h.reply(1)
        await h.reply(0)
        await until(lambda: len(replies) == 2, "the replies")
        assert replies == [(200, b"{}", 2)] * 2
        await until(lambda: h.open_count == 0, "the end of both")
        assert not losses
        fresh.post(b"/run", b"{}", lambda *reply: replies.append(reply))
        (await h.request(2))[1].close()
        await until(lambda: losses, "the loss")
        assert fresh.lost
    gone = FreshConnections(h.port, lambda: losses.append("refused"))
    gone.post(b"/run", b"{}", lambda *reply: replies.append(reply))
    await until(lambda: "refused" in losses, "the refusal")
    assert len(replies) == 2


async def test_fresh_connections_that_are_closed_tell_nobody() -> None:
    async with host() as h:
        losses: list[str] = []
        fresh = FreshConnections(h.port, lambda: losses.append("lost"))
        fresh.post(b"/run", b"{}", lambda *_: None)
        await h.request(0)
        fresh.post(b"/run", b"{}", lambda *_: None)  # is being opened
        fresh.close()
        await until(lambda: h.open_count == 0, "the end")
        assert not losses


async def test_a_request_that_comes_as_a_connection_opens_gets_one_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    async with host() as h:
        first = await ContainerConnection.open("", lambda: None, h.port)

        def post(number: int) -> None:
            connections.post(b"/run", b"%d" % number, lambda *_: None)

        async def open_more(on_lost: Callable[[], None]) -> ContainerConnection:
            connection = await ContainerConnection.open("", on_lost, h.port)
            if h.open_count < 3:
                loop.call_soon(post, 2)  # before the task that opened this one is done
            return connection

        connections = ContainerConnections(first, open_more)
        connections.connections_max = 3
        post(0)
        post(1)
        await h.request(2)  # nobody was answered
        connections.close()
