"""A client of etcd 3.4 and later: its own gRPC API, as far as a cluster needs it.

Every call has a deadline and is tried once: only who asks knows whether asking twice is harmless.
After a failure the next call goes to the next endpoint.  A watch resumes by itself, from the
revision after the last one that it has told, and lists anew where etcd has forgotten that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from . import clock
from . import etcd_pb2 as pb

log = logging.getLogger(__name__)

CALL_S: Final = 3.0
"""Deadline of a call: longer than an election of etcd's."""

RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
"""Wait before a watch or a keep-alive is tried again; doubled, half of it left to chance."""

AWAKE_TICK_S: Final = 0.25
SLEPT_US: Final = 1_000_000
"""A loop that has not run for so long was stopped, or its machine was."""

TRANSACTION_MAX: Final = 128
"""Operations in one transaction that etcd takes unless it is told otherwise."""

_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    # A list of all members or queues comes as one message.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class EtcdError(Exception):
    """etcd did not do it, or nobody knows whether it did; the text says what it said."""


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Where etcd is.  ``ca``, ``certificate`` and ``key`` are PEM; no ``ca``, no TLS."""

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    user: str = ""
    password: str = field(default="", repr=False)
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with ``prefix``."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"


def get(key: str, *, prefix: bool = False, count_only: bool = False) -> pb.RequestOp:
    """Return the operation that reads a key, or all that begin with it."""
    end = prefix_end(key.encode()) if prefix else b""
    request = pb.RangeRequest(key=key.encode(), range_end=end, count_only=count_only)
    return pb.RequestOp(request_range=request)


def put(key: str, value: bytes, lease: int = 0) -> pb.RequestOp:
    """Return the operation that writes a key; it goes with the lease, if there is one."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=value, lease=lease))


def delete(key: str) -> pb.RequestOp:
    """Return the operation that deletes a key."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key.encode()))


def is_absent(key: str) -> pb.Compare:
    """Return the condition that there is no such key."""
    return has_version(key, 0)


def has_version(key: str, version: int) -> pb.Compare:
    """Return the condition that the key was written so often since it was created."""
    return pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.VERSION, key=key.encode(), version=version
    )


def was_changed_at(key: str, mod_revision: int) -> pb.Compare:
    """Return the condition that the key was last written at that revision; 0: that it is absent."""
    return pb.Compare(
        result=pb.Compare.EQUAL,
        target=pb.Compare.MOD,
        key=key.encode(),
        mod_revision=mod_revision,
    )


def was_created_at(key: str, create_revision: int) -> pb.Compare:
    """Return the condition that it is still the key that was created at that revision."""
    return pb.Compare(
        result=pb.Compare.EQUAL,
        target=pb.Compare.CREATE,
        key=key.encode(),
        create_revision=create_revision,
    )


class Etcd:
    """A connection to etcd.  Every method raises EtcdError."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._endpoint = 0
        self._channel: grpc.aio.Channel | None = None
        self._token = ""
        self._beats: Any = None  # the stream of keep-alives
        self._beating = asyncio.Lock()
        self._login = asyncio.Lock()

    async def transaction(
        self,
        compare: Iterable[pb.Compare],
        success: Iterable[pb.RequestOp],
        failure: Iterable[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """Do ``success`` if every condition holds, else ``failure``, and all at once."""
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        answer: pb.TxnResponse = await self._call("KV/Txn", request, pb.TxnResponse)
        return answer

    async def list(self, prefix: str) -> tuple[list[pb.KeyValue], int]:
        """Return what lies under the prefix, and the revision at which that was so."""
        answer = await self.transaction((), (get(prefix, prefix=True),))
        return list(answer.responses[0].response_range.kvs), answer.header.revision

    async def put(self, key: str, value: bytes, lease: int = 0) -> None:
        """Write a key."""
        await self.transaction((), (put(key, value, lease),))

    async def delete(self, *keys: str) -> None:
        """Delete keys, in one transaction; those that are not there are fine."""
        await self.transaction((), [delete(key) for key in keys])

    async def compact(self, revision: int) -> None:
        """Have etcd forget what was before the revision."""
        request = pb.CompactionRequest(revision=revision)
        await self._call("KV/Compact", request, pb.CompactionResponse)

    async def grant(self, ttl_s: int) -> tuple[int, int]:
        """Begin a lease; return its id and the TTL in seconds that etcd chose."""
        request = pb.LeaseGrantRequest(TTL=ttl_s)
        answer = await self._call("Lease/LeaseGrant", request, pb.LeaseGrantResponse)
        if answer.error:
            raise EtcdError(f"etcd grants no lease: {answer.error}")
        return answer.ID, answer.TTL

    async def revoke(self, lease: int) -> None:
        """End a lease and with it every key that hangs on it."""
        request = pb.LeaseRevokeRequest(ID=lease)
        await self._call("Lease/LeaseRevoke", request, pb.LeaseRevokeResponse)

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease; return its TTL in seconds, 0 or less when it is over."""
        async with self._beating:
            channel = self._channel
            try:
                async with asyncio.timeout(CALL_S):
                    channel = await self._connected()
                    if self._beats is None:
                        method = channel.stream_stream(
                            "/etcdserverpb.Lease/LeaseKeepAlive",
                            pb.LeaseKeepAliveRequest.SerializeToString,
                            pb.LeaseKeepAliveResponse.FromString,
                        )
                        self._beats = method(metadata=self._metadata())
                    await self._beats.write(pb.LeaseKeepAliveRequest(ID=lease))
                    answer = await self._beats.read()
            except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                await self._failed(error, channel or self._channel)
                raise _explained("Lease/LeaseKeepAlive", error) from None
            except asyncio.CancelledError:
                self._beats = None
                raise _given_up("Lease/LeaseKeepAlive") from None
            if answer is grpc.aio.EOF:
                await self._failed(None, channel or self._channel)
                raise EtcdError("Lease/LeaseKeepAlive: etcd ended the stream")
            return int(answer.TTL)

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[pb.WatchResponse]:
        """Yield what changes under the prefix from a revision on, until the stream breaks."""
        create = pb.WatchCreateRequest(
            key=prefix.encode(),
            range_end=prefix_end(prefix.encode()),
            start_revision=revision,
            progress_notify=True,
        )
        channel = self._channel
        try:
            channel = await self._connected()
            method = channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                pb.WatchRequest.SerializeToString,
                pb.WatchResponse.FromString,
            )
            call = method(metadata=self._metadata())
            try:
                async with asyncio.timeout(CALL_S):
                    await call.write(pb.WatchRequest(create_request=create))
                    answer = await call.read()
                while isinstance(answer, pb.WatchResponse):  # and not the end
                    yield answer
                    answer = await call.read()
            finally:
                call.cancel()
        except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            await self._failed(error, channel or self._channel)
            raise _explained("Watch/Watch", error) from None
        except asyncio.CancelledError:
            raise _given_up("Watch/Watch") from None
        raise EtcdError("Watch/Watch: etcd ended the stream")

    async def close(self) -> None:
        """End every stream and the connection."""
        channel, self._channel, self._beats = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def _call(self, method: str, request: Any, answer_type: Any) -> Any:
        channel = self._channel
        try:
            async with asyncio.timeout(CALL_S):
                channel = await self._connected()
                call = channel.unary_unary(
                    f"/etcdserverpb.{method}",
                    type(request).SerializeToString,
                    answer_type.FromString,
                )
                return await call(request, metadata=self._metadata(), wait_for_ready=True)
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            await self._failed(error, channel or self._channel)
            raise _explained(method, error) from None
        except asyncio.CancelledError:
            raise _given_up(method) from None

    async def _connected(self) -> grpc.aio.Channel:
        """Return the channel; log in first where etcd wants that."""
        config = self._config
        if self._channel is None:
            endpoint = config.endpoints[self._endpoint % len(config.endpoints)]
            if config.ca is None:
                self._channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            else:
                credentials = grpc.ssl_channel_credentials(
                    config.ca, config.key, config.certificate
                )
                self._channel = grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
        channel = self._channel
        if config.user and not self._token:
            async with self._login:
                if not self._token:
                    login = channel.unary_unary(
                        "/etcdserverpb.Auth/Authenticate",
                        pb.AuthenticateRequest.SerializeToString,
                        pb.AuthenticateResponse.FromString,
                    )
                    request = pb.AuthenticateRequest(name=config.user, password=config.password)
                    answer = await login(request, wait_for_ready=True)
                    self._token = answer.token
        return channel

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    async def _failed(self, error: Exception | None, on: grpc.aio.Channel | None) -> None:
        """Have the next call go to another endpoint, or log in anew.

        Of several calls that fail on one connection the first one moves on: were each to do so,
        they could come round to the endpoint that had failed.
        """
        if on is not self._channel:
            return
        beats, self._beats = self._beats, None
        if beats is not None:
            beats.cancel()
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNKNOWN,
            ):
                return  # it answered
            self._token = ""
        self._endpoint += 1
        # Also where there is one alone: after lost packets the kernel waits ever longer before it
        # tries a connection again, a new one is there a second after the network.
        if len(self._config.endpoints) > 1 or isinstance(error, TimeoutError):
            # Not closed at once: other calls may be under way on it.
            channel, self._channel = self._channel, None
            if channel is not None:
                asyncio.ensure_future(channel.close(CALL_S))  # noqa: RUF006


def _explained(method: str, error: BaseException) -> EtcdError:
    if isinstance(error, grpc.aio.AioRpcError):
        return EtcdError(f"{method}: {error.code().name}: {error.details()}")
    if isinstance(error, TimeoutError):
        return EtcdError(f"{method}: no answer within {CALL_S:g} s")
    return EtcdError(f"{method}: the stream is over")


def _given_up(method: str) -> BaseException:
    """Return what a cancelled call is to raise: a failure, unless its own task was cancelled.

    When one call fails, ``_failed`` gives up the connection, and gRPC tells every other call on it
    the same as if its caller wanted to end: a lease or a watch would end and nobody know of it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return EtcdError(f"{method}: the connection was given up when another call failed")


async def backoff(tries: int) -> None:
    """Wait before the next try; longer after each, and not all at the same time."""
    delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(tries, 10))
    await asyncio.sleep(delay_s * random.uniform(0.5, 1))


class Lease:
    """A lease that is kept alive.  ``lost`` is done when etcd has said that it is over.

    ``valid_us`` is the time until which it certainly holds: the last confirmed renewal was asked
    for a TTL before.
    """

    def __init__(self, etcd: Etcd, id_: int, ttl_s: int, asked_us: int) -> None:
        self.id = id_
        self.ttl_s = ttl_s
        self.valid_us = asked_us + ttl_s * 1_000_000
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._etcd = etcd
        self._slept = False
        self._awake_us = clock.now_us()
        self._keeping = asyncio.ensure_future(self._keep())
        self._tick = asyncio.get_running_loop().call_later(AWAKE_TICK_S, self._on_tick)

    @classmethod
    async def begin(cls, etcd: Etcd, ttl_s: int) -> Lease:
        """Begin one.  Raises: EtcdError."""
        asked_us = clock.now_us()
        id_, granted_s = await etcd.grant(ttl_s)
        return cls(etcd, id_, granted_s, asked_us)

    def is_valid(self) -> bool:
        """Tell whether it certainly holds now."""
        return not self.lost.done() and clock.now_us() < self.valid_us

    def is_over_in_sleep(self) -> bool:
        """Tell whether the lease is doubtful because this process was stopped meanwhile.

        Then others may have taken over already, and it is for them to act.  Without an answer of
        etcd, but awake, one is in doubt as everybody else is.
        """
        if self.is_valid():
            self._slept = False
        elif clock.now_us() - self._awake_us > SLEPT_US:
            self._slept = True
        return self._slept

    def _on_tick(self) -> None:
        self.is_over_in_sleep()
        self._awake_us = clock.now_us()
        self._tick = asyncio.get_running_loop().call_later(AWAKE_TICK_S, self._on_tick)

    async def _keep(self) -> None:
        tries = 0
        while True:
            asked_us = clock.now_us()
            try:
                ttl_s = await self._etcd.keep_alive(self.id)
            except EtcdError as error:
                if tries == 0:
                    log.warning("the lease %x was not renewed: %s", self.id, error)
                await backoff(tries)
                tries += 1
                continue
            if ttl_s <= 0:
                self.lose()
                return
            if tries:
                log.info("the lease %x is renewed again", self.id)
            tries = 0
            self.valid_us = asked_us + ttl_s * 1_000_000
            await asyncio.sleep(ttl_s / 3)

    def lose(self) -> None:
        """Learn that it has ended, from etcd or from a node that etcd has told so."""
        if not self.lost.done():
            log.error("the lease %x is over", self.id)
            self.lost.set_result(None)

    async def end(self) -> None:
        """Revoke it, as far as etcd answers."""
        self._keeping.cancel()
        self._tick.cancel()
        if self.lost.done():
            return
        try:
            await self._etcd.revoke(self.id)
        except EtcdError as error:
            log.warning("the lease %x was not revoked and ends by itself: %s", self.id, error)


class Watched:
    """The keys under a prefix, kept up to date; ``changed(name, value or None)`` for each change.

    ``name`` is the key without the prefix.  A key that is deleted and written again between two
    looks is told as both where its creation shows that.
    """

    def __init__(
        self, etcd: Etcd, prefix: str, changed: Callable[[str, bytes | None], None]
    ) -> None:
        self.values: dict[str, bytes] = {}
        self._created: dict[str, int] = {}
        self._etcd = etcd
        self._prefix = prefix
        self._changed = changed
        self._revision = 0
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """List once, then follow.  Raises: EtcdError when the list cannot be had."""
        await self._list()
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Follow no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _list(self) -> None:
        found, self._revision = await self._etcd.list(self._prefix)
        names = {self._name(kv): kv for kv in found}
        for name in [name for name in self.values if name not in names]:
            self._tell(name, None)
        for name, kv in names.items():
            self._put(name, kv)

    async def _watch(self) -> None:
        tries = 0
        while True:
            try:
                async with aclosing(self._etcd.watch(self._prefix, self._revision + 1)) as answers:
                    async for answer in answers:
                        if answer.compact_revision or answer.canceled:
                            why = answer.cancel_reason or f"compacted at {answer.compact_revision}"
                            log.warning("the watch of %s begins anew: %s", self._prefix, why)
                            await self._list()
                            break
                        tries = 0
                        self._take(answer)
            except EtcdError as error:
                if tries == 0:
                    log.warning("the watch of %s is down: %s", self._prefix, error)
                await backoff(tries)
                tries += 1

    def _take(self, answer: pb.WatchResponse) -> None:
        for event in answer.events:
            name = self._name(event.kv)
            if event.type == pb.Event.DELETE:
                if name in self.values:
                    self._tell(name, None)
            else:
                self._put(name, event.kv)
        self._revision = max(self._revision, answer.header.revision)

    def _put(self, name: str, kv: pb.KeyValue) -> None:
        if name in self.values:
            if self._created[name] != kv.create_revision:
                self._tell(name, None)
            elif self.values[name] == kv.value:
                return
        self._created[name] = kv.create_revision
        self._tell(name, kv.value)

    def _tell(self, name: str, value: bytes | None) -> None:
        if value is None:
            del self.values[name], self._created[name]
        else:
            self.values[name] = value
        try:
            self._changed(name, value)
        except Exception:
            log.exception("a change of %s%s was not taken", self._prefix, name)

    def _name(self, kv: pb.KeyValue) -> str:
        return kv.key.decode("utf-8", "replace").removeprefix(self._prefix)


def split(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Yield the items in parts of at most ``size``."""
    return (items[at : at + size] for at in range(0, len(items), size))
