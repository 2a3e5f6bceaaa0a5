"""Streams of links over plain sockets: the frames of ``acs.proto``, each behind its length.

The same links as over gRPC for a fraction of the cost of a frame (docs/performance.md); health and
reflection stay with ``grpc_link``.  A frame's length has four bytes, the highest first.  Who is
refused, or breaks the protocol, is told in a last frame (``Frame.refusal``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, Final

from google.protobuf.message import DecodeError

from . import acs_pb2 as pb
from .peer_link import (
    CLOSE_S,
    FRAME_RECEIVED_BYTES_MAX,
    HELLO_S,
    Dialler,
    Disowned,
    LinkBroken,
    Peer,
    Reception,
    Refused,
    Stream,
    role_name,
)
from .tls import LinkTls

log = logging.getLogger(__name__)

LENGTH_BYTES: Final = 4

HELLO_BYTES_MAX: Final = 4_096
"""Of the first frame: who it is from is not known yet."""

STREAMS_MAX: Final = 4_000
"""Connections that one server has at a time, whoever they are of."""


class _Connection:
    """A connection's frames (``Stream``)."""

    gathers = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._bytes_max = HELLO_BYTES_MAX

    async def read(self) -> pb.Frame | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES))
            if size > self._bytes_max:
                raise LinkBroken(f"a frame has {size} bytes (allowed: {self._bytes_max})")
            frame = pb.Frame.FromString(await self._reader.readexactly(size))
        except asyncio.IncompleteReadError as error:
            if error.partial or error.expected != LENGTH_BYTES:
                raise LinkBroken("the connection ended within a frame") from None
            return None
        except DecodeError:
            raise LinkBroken("what came is no frame") from None
        except OSError as error:
            raise LinkBroken(_text(error)) from None
        if frame.HasField("refusal"):
            raise (Disowned if frame.refusal.gone else LinkBroken)(frame.refusal.reason)
        self._bytes_max = FRAME_RECEIVED_BYTES_MAX
        return frame

    async def write(self, frame: bytes) -> None:
        try:
            self._put(frame)
            await self._writer.drain()
        except OSError as error:
            raise LinkBroken(_text(error)) from None

    def _put(self, frame: bytes) -> None:
        if self._writer.transport.is_closing():
            # uvloop's would raise a RuntimeError, asyncio's write nothing.
            raise LinkBroken("the connection has ended")
        self._writer.writelines((len(frame).to_bytes(LENGTH_BYTES), frame))

    def names(self) -> list[str]:
        """Return the names in the other side's certificate, which TLS has verified."""
        certificate = self._writer.get_extra_info("peercert") or {}
        return [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]

    def end(self) -> None:
        """Close the connection; the other side may read what was written for ``CLOSE_S``."""
        self._writer.close()
        asyncio.get_running_loop().call_later(CLOSE_S, self._writer.transport.abort)

    def refuse(self, why: Exception) -> None:
        """Close it and have the other side know why, if that still reads."""
        if not self._writer.transport.is_closing():
            refusal = pb.Refusal(gone=isinstance(why, Disowned), reason=str(why))
            self._put(pb.Frame(refusal=refusal).SerializeToString())


def _text(error: OSError) -> str:
    return error.strerror or str(error)


def _place(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.  Raises: ValueError."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _with_tls(context: SSLContext | None) -> dict[str, Any]:
    """Return how a connection begins and ends: without these it may take a minute."""
    if context is None:
        return {}
    return {
        "ssl": context,
        "ssl_handshake_timeout": HELLO_S,
        "ssl_shutdown_timeout": CLOSE_S,
    }


def dialler(peer: Peer, address: str, tls: LinkTls | None = None) -> Dialler:
    """Return what connects to a node at ``HOST:PORT``."""
    secured = _with_tls(None if tls is None else tls.client_context())

    @asynccontextmanager
    async def connect() -> AsyncIterator[Stream]:
        try:
            async with asyncio.timeout(HELLO_S):
                host, port = _place(address)
                streams = await asyncio.open_connection(host, port, **secured)
        except TimeoutError:
            raise LinkBroken(f"no connection within {HELLO_S:g} s") from None
        except OSError as error:
            raise LinkBroken(_text(error)) from None
        except ValueError as error:
            raise LinkBroken(f"the address has no meaning: {error}") from None
        connection = _Connection(*streams)
        try:
            names = connection.names()
            if tls is not None and not tls.is_proven(role_name(peer.role), peer.name, names):
                raise Refused(f"its certificate is of {', '.join(names)}")
            yield connection
        finally:
            connection.end()

    return Dialler(address, connect)


class FrameServer:
    """Where other nodes dial in.  With TLS, who has no certificate of its authority cannot."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def listen(self, address: str) -> int:
        """Listen on ``host:port`` and return the port.  Raises: OSError."""
        tls = self._reception.tls
        secured = _with_tls(None if tls is None else tls.server_context())
        self._server = await asyncio.start_server(self._take, *_place(address), **secured)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End every stream."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= STREAMS_MAX:
            log.warning("this node has %d connections (allowed: %d)", STREAMS_MAX, STREAMS_MAX)
            writer.close()
            return
        # A task of our own: asyncio's would log the cancellation of one as an error.
        task = asyncio.ensure_future(self._serve(_Connection(reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: _Connection) -> None:
        try:
            await self._reception.serve(connection, connection.names())
        except (LinkBroken, Refused) as error:
            connection.refuse(error)
        finally:
            connection.end()
