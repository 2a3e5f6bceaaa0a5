"""A controller as a node: accepts invocations, waits for results, writes records.

The delivery promise lives here.  *Accepted* is what was answered with 202 or 200; a 202 goes
out only after its accept row is committed; every accepted activation ends in one record.
Payload and result are bytes from end to end: they are joined, not encoded again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from acs_core.effects import Cause, Reject, Throttle
from acs_core.events import Activation
from acs_core.limits import CAUSES_MAX, WAIT_MAX_US

from . import clock, records, runtime_protocol
from .activations import (
    DEFINITE,
    UNKNOWN,
    ActivationStore,
    Record,
    StoreFailing,
)
from .composer import Composer, Run
from .compositions import is_composition
from .database import DatabaseUnavailable
from .entities import CACHED_CODE_BYTES_MAX, EntityStore
from .entity_types import Action, Entity, Identity
from .errors import (
    UNAVAILABLE_RETRY_S,
    ApiError,
    database_unavailable,
    forbidden,
    internal_error,
    unavailable,
)
from .links import Close, Link, Logs, QueueClosed, Result, Submit
from .packages import Package
from .resolution import Resolved, resolve_action
from .routes import CompositionRoute, Route
from .runtime_protocol import APPLICATION_ERROR, PLATFORM_ERROR
from .throttles import Throttles

log = logging.getLogger(__name__)

BLOCKING_MS_MAX: Final = 60_000
"""Longest wait of a blocking invocation, and what it waits when nothing is said."""

WAIT_TICK_S: Final = 0.1
"""How exactly that wait is kept."""

ROUTES_MAX: Final = 10_000
"""Actions whose route is kept ready; others are made anew from the entity store.  Their code
is bounded as in the store, ``CACHED_CODE_BYTES_MAX``: a route keeps its action in memory."""

OVERDUE_MARGIN_US: Final = 5_000_000
"""After the latest moment at which an activation should have ended: time for the news to travel."""

RESTART_S: Final = 5
"""When a caller may come back whom a node refused that stops: a restart takes seconds."""

_STOPPING: Final = "It is stopping; another server, or this one once it has started, takes requests"

_DISABLED: Final = "An operator has disabled it; another server, or its next start, takes requests"

_HTTP_STATUS: Final = (200, 502, 502, 500)  # by outcome
_SPARE_IDS: Final = 256


# What a caller who waits is told at once, without a record: it was never accepted.
_REFUSALS: Final = (Cause.QUEUE_FULL, Cause.WOULD_EXPIRE, Cause.CALLERS_HOLD)


class Caller(Protocol):
    """Who waits for the answer: one HTTP request."""

    def reply(
        self, status: int, body: bytes, activation_id: str | None, retry_after_s: int = 0
    ) -> None:
        """Send the answer; a caller that has gone takes it and does nothing."""
        ...

    def fail(self, error: ApiError) -> None:
        """Send an error in the API's form."""
        ...


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a request asks for, as read from its URL."""

    namespace: str
    path: str
    blocking: bool = False
    result_only: bool = False
    timeout_ms: int = BLOCKING_MS_MAX


_COMPONENT: Final = Invocation("", "")
"""What a composition invokes has no request of its own."""


@dataclass(slots=True)
class _Pending:
    """An activation that has not ended.  ``caller`` is None when nobody waits any more."""

    route: Route
    invocation: Invocation
    caller: Caller | None
    arrived_us: int
    arrived_ms: int
    causes: tuple[str, ...] = ()
    timer: asyncio.TimerHandle | None = None
    cause: str = ""  # the composition that this is a part of, and who in it waits for the end
    ended: asyncio.Future[tuple[Record, bytes]] | None = None


class Controller:
    """Accepts invocations and sees each to its record; ``receive`` takes what links bring."""

    def __init__(
        self,
        entities: EntityStore,
        activations: ActivationStore,
        namespace_containers_max: int,
        number: int | None = None,
    ) -> None:
        """``number``: 0..4095, which controller this is of several; its ids say so."""
        self._mark = "" if number is None else f"{number:03x}"
        self._entities = entities
        self._activations = activations
        self._containers_max = namespace_containers_max
        self._scheduler: Link | None = None
        self._throttles = Throttles(entities.limits)
        self._routes: dict[tuple[str, str, str], Route] = {}
        self._routes_code_bytes = 0
        self._open_queues: dict[str, Route] = {}
        self._throttled: dict[str, str] = {}
        self._pending: dict[str, _Pending] = {}  # in the order of arrival
        # Blocking callers with the usual wait, in the order in which it ends.
        self._waiting: dict[str, int] = {}
        self._wait_timer: asyncio.TimerHandle | None = None
        # Records whose logs are on their way, and who wants to know when they are there.
        self._unlogged: dict[str, Record] = {}
        self._unlogged_at_sweep: set[str] = set()
        self._settling: dict[str, list[asyncio.Future[None]]] = {}
        self._closed = ""  # why nothing is accepted any more
        self._idle: asyncio.Future[None] | None = None
        self._randomness: list[str] = []  # 18 hexadecimal characters for each id
        self._tasks: set[asyncio.Task[None]] = set()
        self._composer = Composer(entities, self._run_component, self._next_id, self._record)
        self._loop = asyncio.get_running_loop()
        entities.listeners.append(self._on_change)
        entities.namespace_listeners.append(self._on_namespace)

    def connect(self, scheduler: Link) -> None:
        """Set the link on which this node speaks."""
        self._scheduler = scheduler

    def action_of(self, queue: str) -> Action:
        """Return the action of an open queue.  Raises: KeyError."""
        return self._open_queues[queue].action

    def receive(self, message: object) -> None:
        """Take a message of an invoker or a scheduler."""
        if isinstance(message, Result):
            self._on_result(message)
        elif isinstance(message, Logs):
            self._on_logs(message)
        elif isinstance(message, Reject):
            self._on_reject(message)
        elif isinstance(message, Throttle):
            if message.on:
                self._throttled[message.queue] = message.reason
            else:
                self._throttled.pop(message.queue, None)
        elif isinstance(message, QueueClosed):
            self._open_queues.pop(message.queue, None)
            self._throttled.pop(message.queue, None)
        else:
            raise TypeError(f"{type(message).__name__} is no message for a controller")

    # --- invocations -------------------------------------------------------------------------

    def invoke(
        self, identity: Identity, invocation: Invocation, body: bytes, tid: str, caller: Caller
    ) -> None:
        """Invoke an action; the caller gets its answer now or later.

        Raises: ApiError when the request is refused at once.
        """
        if self._closed or not self._activations.has_room():
            raise self._unavailable()
        namespace = invocation.namespace
        route = self._routes.get((identity.namespace, namespace, invocation.path))
        if route is None:
            foreign = namespace != identity.namespace
            if foreign and "/" not in invocation.path:
                raise forbidden(f"{namespace}/{invocation.path}")
            action = self._entities.cached(Action, namespace, invocation.path)
            ready = action is not None and action.package is None and not is_composition(action)
            if action is None or foreign or not ready:
                self._start(self._invoke_uncached(identity, invocation, body, tid, caller))
                return
            route = self._make_route(identity, Resolved(action, (namespace, action.path)))
        self._invoke(route, identity.caller, invocation, body, tid, caller)

    def fire_id(self, identity: Identity) -> str:
        """Return the id of a trigger activation of a namespace.

        Raises: ApiError 429 or 503.
        """
        if self._closed or not self._activations.has_room():
            raise self._unavailable()
        now_ms = clock.wall_ms()
        throttle = self._throttles.of(identity)
        if throttle is not None:
            throttle.admit_fire(now_ms)
        return self._next_id(now_ms)

    async def _invoke_uncached(
        self, identity: Identity, invocation: Invocation, body: bytes, tid: str, caller: Caller
    ) -> None:
        try:
            resolved = await self._resolve(identity, invocation)
            if is_composition(resolved.action):
                await self._composer.check(identity, resolved)
                self._compose(identity, resolved, invocation, body, tid, caller)
                return
            if self._closed:
                raise self._unavailable()
            route = self._make_route(identity, resolved)
            self._invoke(route, identity.caller, invocation, body, tid, caller)
        except ApiError as error:
            caller.fail(error)
        except DatabaseUnavailable as gone:
            log.error("request %s: %s", tid, gone)
            caller.fail(database_unavailable(gone.uncertain))
        except Exception:
            log.exception("request %s failed", tid)
            caller.fail(internal_error())

    async def _resolve(self, identity: Identity, invocation: Invocation) -> Resolved:
        """Return what an invocation means.  Raises: ApiError."""
        at = invocation.namespace, invocation.path
        resolved = await resolve_action(self._entities, identity.namespace, *at)
        if not self._is_newest(resolved):
            # What was read may be older than a change that was committed since.
            resolved = await resolve_action(self._entities, identity.namespace, *at)
        return resolved

    def _invoke(
        self,
        route: Route,
        calling_id: str,
        invocation: Invocation,
        body: bytes,
        tid: str,
        caller: Caller,
    ) -> None:
        queue = route.spec.queue
        if queue in self._throttled:
            raise self._too_many(self._throttled[queue])
        if self._containers_max <= 0:
            raise self._too_many("the namespace may hold no containers (allowed: 0)")
        arguments = route.arguments(body)
        causes = self._causes(calling_id) if calling_id and invocation.blocking else ()
        now_ms = clock.wall_ms()
        throttle = route.throttle
        if throttle is not None:
            throttle.admit(now_ms)
        activation = self._activation(route, arguments, tid, causes, now_ms)
        activation_id = activation.activation_id
        if throttle is not None:
            throttle.in_flight.add(activation_id)
        pending = _Pending(route, invocation, caller, activation.arrived_us, now_ms, causes)
        self._pending[activation_id] = pending
        if not invocation.blocking:
            self._start(self._accept_then_submit(activation, pending))
            return
        self._wait(activation_id, pending)
        self._submit(route, activation)

    def _activation(
        self, route: Route, arguments: bytes, tid: str, causes: tuple[str, ...], now_ms: int
    ) -> Activation:
        """Return a new activation of an action."""
        activation_id = self._next_id(now_ms)
        api_key = ""
        if route.uuid:
            until_ms = now_ms + route.longest_us // 1000
            api_key = self._entities.run_keys.key(route.uuid, activation_id, until_ms)
            api_key = f"{route.uuid}:{api_key}"
        payload = route.template.payload(arguments, activation_id, orjson.dumps(tid)[1:-1], api_key)
        return Activation(activation_id, payload, clock.now_us(), causes=causes)

    def _wait(self, activation_id: str, pending: _Pending) -> None:
        """See to it that a blocking caller does not wait too long."""
        timeout_ms = pending.invocation.timeout_ms
        if timeout_ms == BLOCKING_MS_MAX:
            self._waiting[activation_id] = pending.arrived_us + BLOCKING_MS_MAX * 1000
            if self._wait_timer is None:
                self._wait_timer = self._loop.call_later(WAIT_TICK_S, self._end_waits)
        else:
            pending.timer = self._loop.call_later(
                timeout_ms / 1000, self._waited_long_enough, activation_id
            )

    def _causes(self, calling_id: str) -> tuple[str, ...]:
        """Return the chain of callers that ends with this one; none if it has ended.

        Raises: ApiError 429 when the chain is too long.
        """
        calling = self._pending.get(calling_id)
        if calling is None:
            return ()
        if len(calling.causes) >= CAUSES_MAX:
            raise self._too_many(
                f"{len(calling.causes) + 1} calls nest in each other (allowed: {CAUSES_MAX})"
            )
        return (*calling.causes, calling_id)

    def _submit(self, route: Route, activation: Activation) -> None:
        # Not before now: while an accept row was written the queue may have been closed.
        self._open_queues[route.spec.queue] = route
        assert self._scheduler is not None
        self._scheduler.send(Submit(route.spec, activation))

    async def _accept_then_submit(self, activation: Activation, pending: _Pending) -> None:
        activation_id = activation.activation_id
        caller = await self._accepted(activation_id, pending)
        if caller is not None:
            self._submit(pending.route, activation)
            caller.reply(202, _accepted_body(activation_id), activation_id)

    async def _accepted(self, activation_id: str, pending: _Pending) -> Caller | None:
        """Accept what nobody waits for; return who asked, or None: it is refused."""
        caller, pending.caller = pending.caller, None
        assert caller is not None
        try:
            await self._accept(activation_id, pending)
        except StoreFailing:
            self._forget(activation_id)
            caller.fail(self._not_accepted())
            return None
        return caller

    async def _accept(self, activation_id: str, pending: _Pending) -> None:
        """Commit the accept row.  Raises: StoreFailing."""
        route = pending.route
        await self._activations.accept(
            activation_id,
            route.namespace,
            route.action.path,
            pending.arrived_ms,
            pending.arrived_ms + route.longest_us // 1000,
            route.accept_head(activation_id, pending.arrived_ms),
        )

    def _end_waits(self) -> None:
        self._wait_timer = None
        now_us = clock.now_us()
        while self._waiting:
            activation_id = next(iter(self._waiting))
            if self._waiting[activation_id] > now_us:
                self._wait_timer = self._loop.call_later(WAIT_TICK_S, self._end_waits)
                return
            self._waited_long_enough(activation_id)

    def _waited_long_enough(self, activation_id: str) -> None:
        """A blocking caller gets 202; the activation goes on."""
        self._waiting.pop(activation_id, None)
        pending = self._pending[activation_id]
        pending.timer = None
        caller, pending.caller = pending.caller, None
        if caller is not None:
            self._start(self._accept_late(activation_id, pending, caller))

    async def _accept_late(self, activation_id: str, pending: _Pending, caller: Caller) -> None:
        try:
            await self._accept(activation_id, pending)
        except StoreFailing:
            caller.fail(self._not_accepted())
            return
        caller.reply(202, _accepted_body(activation_id), activation_id)

    # --- compositions --------------------------------------------------------------------------

    def _compose(
        self,
        identity: Identity,
        resolved: Resolved,
        invocation: Invocation,
        body: bytes,
        tid: str,
        caller: Caller,
    ) -> None:
        """Start a sequence or a conductor.  Raises: ApiError."""
        if self._closed:
            raise self._unavailable()
        throttle = self._throttles.of(identity)
        route = CompositionRoute(resolved, identity, throttle)
        arguments = route.arguments(body)
        calling_id = identity.caller if invocation.blocking else ""
        causes = self._causes(calling_id) if calling_id else ()
        now_ms = clock.wall_ms()
        if throttle is not None:
            throttle.admit(now_ms)
        run = Run(identity, tid, causes, self._next_id(now_ms), start_ms=now_ms)
        if throttle is not None:
            throttle.in_flight.add(run.activation_id)
        pending = _Pending(route, invocation, caller, clock.now_us(), now_ms, causes)
        self._pending[run.activation_id] = pending
        if invocation.blocking:
            self._wait(run.activation_id, pending)
        self._start(self._run_composition(run, route, pending, arguments))

    async def _run_composition(
        self, run: Run, route: CompositionRoute, pending: _Pending, arguments: bytes
    ) -> None:
        if not pending.invocation.blocking:
            caller = await self._accepted(run.activation_id, pending)
            if caller is None:
                return
            caller.reply(202, _accepted_body(run.activation_id), run.activation_id)
        try:
            record, result = await self._composer.run(run, route, arguments)
        except Exception:
            log.exception("composition %s failed", run.activation_id)
            text = "There was an internal error while the composition ran."
            result = runtime_protocol.failure(PLATFORM_ERROR, text).result
            record = route.record(run, PLATFORM_ERROR, result)
        if self._forget(run.activation_id) is None:
            return  # an end that was told before
        self._record(record)
        if pending.caller is not None:
            self._answer(pending, record, result)

    def _record(self, record: Record) -> None:
        self._activations.note(record)
        self._activations.put(record)

    async def _run_component(
        self, run: Run, resolved: Resolved, arguments: bytes
    ) -> tuple[Record, bytes]:
        """Run an action as a part of a composition; see ``composer.Component``."""
        if is_composition(resolved.action):
            route = Route(resolved, run.identity)  # the conductor; invoking it is something else
        else:
            key = (run.identity.namespace, *resolved.at)
            route = self._routes.get(key) or self._make_route(run.identity, resolved)
        if route.spec.queue in self._throttled:
            raise self._too_many(self._throttled[route.spec.queue])
        now_ms = clock.wall_ms()
        activation = self._activation(
            route, route.component_arguments(arguments), run.tid, run.causes, now_ms
        )
        ended: asyncio.Future[tuple[Record, bytes]] = self._loop.create_future()
        self._pending[activation.activation_id] = _Pending(
            route, _COMPONENT, None, activation.arrived_us, now_ms, run.causes,
            cause=run.activation_id, ended=ended,
        )  # fmt: skip
        self._submit(route, activation)
        return await ended

    # --- ends --------------------------------------------------------------------------------

    def _on_result(self, result: Result) -> None:
        activation_id = result.activation_id
        pending = self._forget(activation_id)
        if pending is None:
            self._start(self._on_late_result(result))
            return
        route = pending.route
        end_ms = result.start_ms + result.duration_us // 1000
        if result.init_us:
            notes = b',{"key":"waitTime","value":%d},{"key":"initTime","value":%d}' % (
                result.wait_us // 1000,
                result.init_us // 1000,
            )
        else:
            notes = b',{"key":"waitTime","value":%d}' % (result.wait_us // 1000)
        head = route.record_head(
            activation_id,
            result.start_ms,
            end_ms,
            result.outcome,
            result.response,
            notes,
            result.timed_out,
            pending.cause,
        )
        record = Record(
            activation_id,
            route.namespace,
            route.action.path,
            result.start_ms,
            end_ms,
            result.outcome,
            DEFINITE,
            head,
            b"[]",
        )
        # First of all, so that no failure of an answer costs the record.
        self._activations.note(record)
        if result.logs_follow:
            self._unlogged[activation_id] = record
        else:
            self._activations.put(record)
        if pending.caller is not None:
            self._answer(pending, record, result.response)
        elif pending.ended is not None:
            _tell(pending.ended, record, result.response)

    async def _on_late_result(self, result: Result) -> None:
        """Record the end of what another controller accepted, or an earlier start of this one."""
        known = await self._activations.find(result.activation_id)
        if known is None or known.rank == DEFINITE:
            return  # told before, or never accepted: its caller went with its controller
        end_ms = result.start_ms + result.duration_us // 1000
        record = records.with_end(
            known, result.outcome, result.response, result.start_ms, end_ms, result.timed_out
        )
        self._activations.put(record)

    def _answer(self, pending: _Pending, record: Record, response: bytes) -> None:
        """Send the answer of a blocking invocation; a JSON array is sent bare, as upstream."""
        assert pending.caller is not None
        bare = pending.invocation.result_only or response.lstrip()[:1] == b"["
        body = response if bare else record.full()
        pending.caller.reply(_HTTP_STATUS[record.status_code], body, record.activation_id)

    def _on_logs(self, logs: Logs) -> None:
        for activation_id, lines in logs.entries:
            if activation_id in self._unlogged:
                self._put_unlogged(activation_id, lines)

    def _put_unlogged(self, activation_id: str, lines: list[str]) -> None:
        record = self._unlogged.pop(activation_id)
        if lines:
            record.logs = orjson.dumps(lines)
        self._activations.put(record)
        for future in self._settling.pop(activation_id, ()):
            if not future.done():
                future.set_result(None)

    def _on_reject(self, reject: Reject) -> None:
        activation_id = reject.activation.activation_id
        pending = self._forget(activation_id)
        if pending is None:
            return
        if reject.cause in _REFUSALS and pending.caller is not None:
            pending.caller.fail(self._too_many(reject.reason, reject.retry_after_us))
            return  # it was not accepted
        outcome = APPLICATION_ERROR if reject.cause == Cause.CANCELLED else PLATFORM_ERROR
        rank = UNKNOWN if reject.cause == Cause.UNKNOWN else DEFINITE
        self._end_without_result(activation_id, pending, outcome, rank, reject.reason)

    def _end_without_result(
        self, activation_id: str, pending: _Pending, outcome: int, rank: int, reason: str
    ) -> None:
        """Record, and answer, an activation of whose run nothing is known."""
        route = pending.route
        response = runtime_protocol.failure(outcome, reason).result
        now_ms = clock.wall_ms()
        head = route.record_head(
            activation_id, now_ms, now_ms, outcome, response, b"", False, pending.cause
        )
        record = Record(
            activation_id,
            route.namespace,
            route.action.path,
            now_ms,
            now_ms,
            outcome,
            rank,
            head,
            b"[]",
        )
        self._record(record)
        if pending.caller is not None:
            self._answer(pending, record, response)
        elif pending.ended is not None:
            _tell(pending.ended, record, response)

    def _forget(self, activation_id: str) -> _Pending | None:
        """Return what was pending, and hold it no longer."""
        pending = self._pending.pop(activation_id, None)
        if pending is None:
            return None
        self._waiting.pop(activation_id, None)
        if pending.timer is not None:
            pending.timer.cancel()
        if pending.route.throttle is not None:
            pending.route.throttle.in_flight.discard(activation_id)
        if self._idle is not None and not self._pending and not self._idle.done():
            self._idle.set_result(None)
        return pending

    # --- what others need of it ----------------------------------------------------------------

    async def settled(self, activation_id: str) -> None:
        """Wait until a record whose activation has ended has its logs as well."""
        if activation_id in self._unlogged:
            future: asyncio.Future[None] = self._loop.create_future()
            self._settling.setdefault(activation_id, []).append(future)
            await future

    def in_flight(self) -> list[tuple[str, str]]:
        """Return id and ``namespace/action`` of each activation that has not ended."""
        return [
            (activation_id, f"{pending.route.action.namespace}/{pending.route.action.path}")
            for activation_id, pending in self._pending.items()
        ]

    def disable(self) -> None:
        """Refuse every further invocation; what was accepted ends.  A start lifts it."""
        log.warning("an operator disables this controller")
        self.stop_accepting(_DISABLED)

    def counts(self) -> dict[str, int]:
        """Return what is under way."""
        return {"pending": len(self._pending), "unlogged": len(self._unlogged)}

    def stop_accepting(self, why: str = _STOPPING) -> None:
        """Refuse every further invocation with 503, which says why."""
        self._closed = why

    async def drained(self) -> None:
        """Wait until every activation has ended."""
        self.stop_accepting()
        while self._tasks or self._pending:
            if self._tasks:
                await asyncio.wait(self._tasks)
            elif self._pending:
                self._idle = self._loop.create_future()
                await self._idle

    def sync(self) -> None:
        """See to it, before answers are sent, that a killed process loses none of their records."""
        self._activations.sync()

    def sweep(self) -> None:
        """End as *unknown* what should have ended long ago; call it every few seconds.

        Whatever goes wrong elsewhere, an activation ends in a record, and nothing is held for
        ever.  Cost: O(activations that are older than the wait bound).
        """
        now_us = clock.now_us()
        overdue = []
        for activation_id, pending in self._pending.items():
            if pending.arrived_us + WAIT_MAX_US > now_us:
                break
            if pending.arrived_us + pending.route.longest_us + OVERDUE_MARGIN_US <= now_us:
                overdue.append(activation_id)
        for activation_id in overdue:
            self._end_as_unknown(activation_id, "nobody reported its end in time")
        # Logs follow within seconds; those that were missing at the last sweep will not come.
        for activation_id in self._unlogged_at_sweep & self._unlogged.keys():
            self._put_unlogged(activation_id, [])
        self._unlogged_at_sweep = set(self._unlogged)

    def _end_as_unknown(self, activation_id: str, why: str) -> None:
        pending = self._forget(activation_id)
        assert pending is not None
        text = f"It is not known whether the action ran or how it ended: {why}."
        log.error("activation %s ends as unknown: %s", activation_id, why)
        self._end_without_result(activation_id, pending, PLATFORM_ERROR, UNKNOWN, text)

    def close(self) -> None:
        """Write what is left, as the invoker is gone: records without logs, and *unknown* ones."""
        self._entities.listeners.remove(self._on_change)
        self._entities.namespace_listeners.remove(self._on_namespace)
        for task in self._tasks:
            task.cancel()
        for activation_id in list(self._pending):
            self._end_as_unknown(activation_id, "the server stopped before")
        if self._wait_timer is not None:
            self._wait_timer.cancel()
        for activation_id in list(self._unlogged):
            self._put_unlogged(activation_id, [])

    # --- routes ------------------------------------------------------------------------------

    def _make_route(self, identity: Identity, resolved: Resolved) -> Route:
        route = Route(resolved, identity, self._throttles.of(identity))
        # One that was changed or deleted since it was read serves this once: nobody would tell.
        if self._is_newest(resolved):
            key = (identity.namespace, *resolved.at)
            self._drop_route(key)
            self._routes[key] = route
            self._routes_code_bytes += len(resolved.action.exec.code or "")
            while len(self._routes) > ROUTES_MAX or self._routes_code_bytes > CACHED_CODE_BYTES_MAX:
                self._drop_route(next(iter(self._routes)))
        return route

    def _is_newest(self, resolved: Resolved) -> bool:
        """Tell whether nothing of it was changed since it was read."""
        parts: tuple[Action | Package, ...] = (resolved.action, *resolved.packages)
        for each in parts:
            known = self._entities.cached(type(each), each.namespace, each.path)
            if known is None or known.revision != each.revision:
                return False
        return True

    def _drop_route(self, key: tuple[str, str, str]) -> None:
        route = self._routes.pop(key, None)
        if route is not None:
            self._routes_code_bytes -= len(route.action.exec.code or "")

    def _on_change(self, old: Entity, new: Entity | None) -> None:
        """Something was updated or deleted: the next invocation starts a queue of the new one."""
        for key in [key for key, route in self._routes.items() if route.depends_on(old)]:
            self._drop_route(key)
        if isinstance(old, (Action, Package)):
            what = type(old).__name__.lower()
            why = f"the {what} was {'deleted' if new is None else 'updated'}"
            self._start(self._close_queues(old, why))

    def _on_namespace(self, name: str) -> None:
        """Its owner's limits changed, or it is gone."""
        for key in [key for key, route in self._routes.items() if route.is_in(name)]:
            self._drop_route(key)

    async def _close_queues(self, old: Action | Package, why: str) -> None:
        # A closing queue takes nothing more, so what is being accepted for it goes first.
        await self._activations.flush()
        assert self._scheduler is not None
        for queue, route in list(self._open_queues.items()):
            if route.is_of(old):
                self._scheduler.send(Close(queue, why))

    def _unavailable(self) -> ApiError:
        """Return the 503 of a node that takes no work now."""
        if self._closed:
            ends = f"{len(self._pending)} activations have to end first (new ones allowed: 0)"
            return unavailable(f"{self._closed}: {ends}.", RESTART_S)
        backlog = self._activations.backlog()
        return unavailable(f"{backlog}. It goes on when they are written.", UNAVAILABLE_RETRY_S)

    def _not_accepted(self) -> ApiError:
        """Return the 503 of an activation whose accept row could not be written."""
        return unavailable(
            "The database does not take what would be accepted, so it is not;"
            f" {self._activations.backlog()}. The server's log has the cause,"
            " and it goes on when that is gone.",
            UNAVAILABLE_RETRY_S,
        )

    def _too_many(self, reason: str, retry_after_us: int = 0) -> ApiError:
        retry_s = max(1, -(-retry_after_us // 1_000_000))
        return ApiError(
            429,
            f"Too many concurrent requests in flight: {reason.rstrip('.')}.",
            (("Retry-After", str(retry_s)),),
        )

    def _next_id(self, now_ms: int) -> str:
        """Return a fresh activation id: a UUID of version 7 without dashes.

        It starts with the time, so that records of the same time lie side by side in the
        database: with random ids each row costs a page of the index, and three times the CPU.
        """
        spare = self._randomness
        if not spare:
            text = os.urandom(9 * _SPARE_IDS).hex()
            spare.extend(text[at : at + 18] for at in range(0, len(text), 18))
        chance = spare.pop()
        return f"{now_ms:012x}7{self._mark or chance[:3]}8{chance[3:]}"

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the controller lost a task", exc_info=task.exception())


def _tell(ended: asyncio.Future[tuple[Record, bytes]], record: Record, response: bytes) -> None:
    if not ended.done():
        ended.set_result((record, response))


def _accepted_body(activation_id: str) -> bytes:
    return b'{"activationId":"%b"}' % activation_id.encode()
