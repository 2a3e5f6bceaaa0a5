"""Streams of links over gRPC, and the server that takes them, with health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from . import acs_pb2 as pb
from .peer_link import (
    FRAME_RECEIVED_BYTES_MAX,
    Dialler,
    Disowned,
    LinkBroken,
    Peer,
    Reception,
    Refused,
    Stream,
    role_name,
)
from .tls import LinkTls, presented_names

SERVICE: Final = "acs.v1.Node"
METHOD: Final = f"/{SERVICE}/Link"

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", FRAME_RECEIVED_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # Else channels to one address share their waits, also those of a link that is over.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Another server must not get in on the same port without anybody noticing.
    ("grpc.so_reuseport", 0),
)

_CODES: Final = (
    (Disowned, grpc.StatusCode.NOT_FOUND),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (LinkBroken, grpc.StatusCode.INVALID_ARGUMENT),
)
"""How a stream ends, for the other side; the first that fits."""


def _ended(code: grpc.StatusCode, details: str | None) -> Exception:
    """Return what the end of a stream means to the side that dialled."""
    text = f"{code.name}: {details}"
    return Disowned(text) if code == grpc.StatusCode.NOT_FOUND else LinkBroken(text)


class _Dialled:
    """A stream that this node has dialled (``Stream``)."""

    gathers = True

    def __init__(self, call: Any) -> None:
        self._call = call

    async def read(self) -> pb.Frame | None:
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _ended(error.code(), error.details()) from None
        if frame is not grpc.aio.EOF:
            assert isinstance(frame, pb.Frame)
            return frame
        code = await self._call.code()
        if code != grpc.StatusCode.OK:
            raise _ended(code, await self._call.details())
        return None

    async def write(self, frame: bytes) -> None:
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise _ended(error.code(), error.details()) from None
        except asyncio.InvalidStateError as error:
            raise LinkBroken(str(error)) from None


def dialler(peer: Peer, address: str, tls: LinkTls | None = None) -> Dialler:
    """Return what connects to a node at ``HOST:PORT``."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Stream]:
        async with _channel(peer, address, tls) as channel:
            yield _Dialled(channel.stream_stream(METHOD, None, pb.Frame.FromString)())

    return Dialler(address, connect)


def _channel(peer: Peer, address: str, tls: LinkTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    try:
        expected = tls.expecting(role_name(peer.role), peer.name)
    except ValueError as error:  # no certificate can have such a name
        raise Refused(str(error)) from None
    return grpc.aio.secure_channel(
        address, tls.channel_credentials(), options=(*_OPTIONS, *expected)
    )


class _Served:
    """A stream that another node has dialled (``Stream``)."""

    gathers = True

    def __init__(self, context: Any) -> None:
        self._context = context

    async def read(self) -> pb.Frame | None:
        frame = await self._context.read()
        return frame if isinstance(frame, pb.Frame) else None

    async def write(self, frame: bytes) -> None:
        await self._context.write(frame)


class GrpcServer:
    """Where other nodes dial in.  With TLS, who has no certificate of its authority cannot."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        # Kept: a server that nobody holds is collected and closes its port without a word.
        self._server = grpc.aio.server(options=_OPTIONS)
        self._health = health.aio.HealthServicer()

    async def listen(self, address: str) -> int:
        """Listen on ``host:port`` and return the port.  Raises: OSError."""
        handler: Any = grpc.stream_stream_rpc_method_handler(self._serve, pb.Frame.FromString, None)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Link": handler}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        tls = self._reception.tls
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.server_credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for other nodes: {error}") from None
        await self.set_ready(False)
        await self._server.start()
        return int(port)

    async def set_ready(self, ready: bool) -> None:
        """Say in gRPC's health protocol whether this node does its work."""
        status = health_pb2.HealthCheckResponse
        await self._health.set("", status.SERVING if ready else status.NOT_SERVING)

    async def close(self) -> None:
        """End every stream."""
        await self._server.stop(0.2)

    async def _serve(self, _: object, context: Any) -> None:
        try:
            names = presented_names(context.auth_context())
            await self._reception.serve(_Served(context), names)
        except (LinkBroken, Refused) as error:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            await context.abort(code, str(error))
