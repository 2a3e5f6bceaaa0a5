"""A controller as a node: accepts invocations, waits for results, writes records.

The delivery promise lives here.  *Accepted* is what was answered with 202 or 200; a 202 goes
out only after its accept row is committed; every accepted activation ends in one record.
Payload and result are bytes from end to end: they are joined, not encoded again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

import orjson

from acs_core.effects import Cause, Reject, Throttle
from acs_core.events import Activation
from acs_core.limits import CAUSES_MAX, WAIT_MAX_US

from . import clock, records, runtime_protocol
from .activations import DEFINITE, UNKNOWN, ActivationStore, Record, StoreFailing
from .admission import DISABLED, STOPPING, Admission
from .composer import Composer, Run
from .compositions import is_composition
from .database import DatabaseUnavailable
from .entities import EntityStore
from .entity_types import Action, Entity, Identity
from .errors import ApiError, database_unavailable, forbidden, internal_error, too_many_in_flight
from .ids import ActivationIds, controller_of
from .invocations import COMPONENT, Caller, Invocation, Pending, accepted_body, tell
from .links import Close, Link, Logs, QueueClosed, Result, Submit
from .packages import Package
from .patience import Patience
from .resolution import Resolved, resolve_action
from .route_cache import RouteCache
from .routes import CompositionRoute, Route
from .runtime_protocol import APPLICATION_ERROR, DEVELOPER_ERROR, PLATFORM_ERROR
from .throttles import Throttles
from .unlogged import Unlogged

log = logging.getLogger(__name__)

OVERDUE_MARGIN_US: Final = 5_000_000
"""After the latest moment at which an activation should have ended: time for the news to travel."""

_HTTP_STATUS: Final = (200, 502, 502, 500)  # by outcome

# What a caller who waits is told at once, without a record: it was never accepted.
_OUTCOMES: Final[dict[int, int]] = {
    Cause.CANCELLED: APPLICATION_ERROR,
    Cause.UNFIT: DEVELOPER_ERROR,
}
"""Whose fault it is that an activation ends without a run, where not the platform's."""
_REFUSALS: Final = (Cause.QUEUE_FULL, Cause.WOULD_EXPIRE, Cause.CALLERS_HOLD)


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
        self._number = number
        self._next_id = ActivationIds(number).next
        self._entities = entities
        self._activations = activations
        self._containers_max = namespace_containers_max
        self._scheduler: Link | None = None
        self.throttles = Throttles(entities.limits)
        self._routes = RouteCache(entities, self.throttles)
        self._open_queues: dict[str, Route] = {}
        self._throttled: dict[str, str] = {}
        self._pending: dict[str, Pending] = {}  # in the order of arrival
        self._patience = Patience(self._waited_long_enough)
        self._unlogged = Unlogged(activations)
        self.settled = self._unlogged.settled
        self._admission = Admission(activations)
        self._idle: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._composer = Composer(entities, self._run_component, self._next_id, self._record)
        self._loop = asyncio.get_running_loop()
        entities.listeners.append(self._on_change)
        entities.namespace_listeners.append(self._routes.namespace_changed)

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
            self._unlogged.take(message)
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
        if not self._admission.is_open():
            raise self._admission.refusal(len(self._pending))
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
            route = self._routes.make(identity, Resolved(action, (namespace, action.path)))
        self._invoke(route, identity.callers, invocation, body, tid, caller)

    def fire_id(self, identity: Identity) -> str:
        """Return the id of a trigger activation of a namespace.

        Raises: ApiError 429 or 503.
        """
        if not self._admission.is_open():
            raise self._admission.refusal(len(self._pending))
        now_ms = clock.wall_ms()
        throttle = self.throttles.of(identity)
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
            if self._admission.closed:
                raise self._admission.refusal(len(self._pending))
            route = self._routes.make(identity, resolved)
            self._invoke(route, identity.callers, invocation, body, tid, caller)
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
        if not self._routes.is_newest(resolved):
            # What was read may be older than a change that was committed since.
            resolved = await resolve_action(self._entities, identity.namespace, *at)
        return resolved

    def _invoke(
        self,
        route: Route,
        callers: tuple[str, ...],
        invocation: Invocation,
        body: bytes,
        tid: str,
        caller: Caller,
    ) -> None:
        queue = route.spec.queue
        if queue in self._throttled:
            raise too_many_in_flight(self._throttled[queue])
        if self._containers_max <= 0:
            raise too_many_in_flight("the namespace may hold no containers (allowed: 0)")
        arguments = route.arguments(body)
        causes = self._causes(callers) if invocation.blocking else ()
        now_ms = clock.wall_ms()
        throttle = route.throttle
        if throttle is not None:
            throttle.admit(now_ms)
        activation = self._activation(route, arguments, tid, causes, now_ms)
        activation_id = activation.activation_id
        if throttle is not None:
            throttle.in_flight.add(activation_id)
        pending = Pending(route, invocation, caller, activation.arrived_us, now_ms, causes)
        self._pending[activation_id] = pending
        if not invocation.blocking:
            self._start(self._accept_then_submit(activation, pending))
            return
        self._patience.wait(activation_id, pending)
        self._submit(route, activation)

    def _activation(
        self, route: Route, arguments: bytes, tid: str, causes: tuple[str, ...], now_ms: int
    ) -> Activation:
        """Return a new activation of an action."""
        activation_id = self._next_id(now_ms)
        api_key = ""
        if route.uuid:
            until_ms = now_ms + route.longest_us // 1000
            api_key = self._entities.run_keys.key(route.uuid, activation_id, until_ms, causes)
            api_key = f"{route.uuid}:{api_key}"
        payload = route.template.payload(arguments, activation_id, orjson.dumps(tid)[1:-1], api_key)
        return Activation(activation_id, payload, clock.now_us(), causes=causes)

    def _causes(self, callers: tuple[str, ...]) -> tuple[str, ...]:
        """Return the chain of callers, of which the last one calls; none if that one has ended.

        Of another controller's that is not known here: it is believed while its key is valid.

        Raises: ApiError 429 when the chain is too long.
        """
        if not callers:
            return ()
        own = self._number is None or controller_of(callers[-1]) == self._number
        if own and callers[-1] not in self._pending:
            return ()
        if len(callers) > CAUSES_MAX:
            raise too_many_in_flight(
                f"{len(callers)} calls nest in each other (allowed: {CAUSES_MAX})"
            )
        return callers

    def _submit(self, route: Route, activation: Activation) -> None:
        # Not before now: while an accept row was written the queue may have been closed.
        self._open_queues[route.spec.queue] = route
        assert self._scheduler is not None
        self._scheduler.send(Submit(route.spec, activation))

    async def _accept_then_submit(self, activation: Activation, pending: Pending) -> None:
        activation_id = activation.activation_id
        caller = await self._accepted(activation_id, pending)
        if caller is not None:
            self._submit(pending.route, activation)
            caller.reply(202, accepted_body(activation_id), activation_id)

    async def _accepted(self, activation_id: str, pending: Pending) -> Caller | None:
        """Accept what nobody waits for; return who asked, or None: it is refused."""
        caller, pending.caller = pending.caller, None
        assert caller is not None
        try:
            await self._accept(activation_id, pending)
        except StoreFailing:
            self._forget(activation_id)
            caller.fail(self._admission.not_accepted())
            return None
        return caller

    async def _accept(self, activation_id: str, pending: Pending) -> None:
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

    def _waited_long_enough(self, activation_id: str) -> None:
        """A blocking caller gets 202; the activation goes on."""
        pending = self._pending[activation_id]
        self._patience.forget(activation_id, pending)
        caller, pending.caller = pending.caller, None
        if caller is not None:
            self._start(self._accept_late(activation_id, pending, caller))

    async def _accept_late(self, activation_id: str, pending: Pending, caller: Caller) -> None:
        try:
            await self._accept(activation_id, pending)
        except StoreFailing:
            caller.fail(self._admission.not_accepted())
            return
        caller.reply(202, accepted_body(activation_id), activation_id)

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
        if self._admission.closed:
            raise self._admission.refusal(len(self._pending))
        throttle = self.throttles.of(identity)
        route = CompositionRoute(resolved, identity, throttle)
        arguments = route.arguments(body)
        causes = self._causes(identity.callers) if invocation.blocking else ()
        now_ms = clock.wall_ms()
        if throttle is not None:
            throttle.admit(now_ms)
        run = Run(identity, tid, causes, self._next_id(now_ms), start_ms=now_ms)
        if throttle is not None:
            throttle.in_flight.add(run.activation_id)
        pending = Pending(route, invocation, caller, clock.now_us(), now_ms, causes)
        self._pending[run.activation_id] = pending
        if invocation.blocking:
            self._patience.wait(run.activation_id, pending)
        self._start(self._run_composition(run, route, pending, arguments))

    async def _run_composition(
        self, run: Run, route: CompositionRoute, pending: Pending, arguments: bytes
    ) -> None:
        if not pending.invocation.blocking:
            caller = await self._accepted(run.activation_id, pending)
            if caller is None:
                return
            caller.reply(202, accepted_body(run.activation_id), run.activation_id)
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
            route = self._routes.get(key) or self._routes.make(run.identity, resolved)
        if route.spec.queue in self._throttled:
            raise too_many_in_flight(self._throttled[route.spec.queue])
        now_ms = clock.wall_ms()
        activation = self._activation(
            route, route.component_arguments(arguments), run.tid, run.causes, now_ms
        )
        ended: asyncio.Future[tuple[Record, bytes]] = self._loop.create_future()
        self._pending[activation.activation_id] = Pending(
            route, COMPONENT, None, activation.arrived_us, now_ms, run.causes,
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
            self._unlogged.expect(record)
        else:
            self._activations.put(record)
        if pending.caller is not None:
            self._answer(pending, record, result.response)
        elif pending.ended is not None:
            tell(pending.ended, record, result.response)

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

    def _answer(self, pending: Pending, record: Record, response: bytes) -> None:
        """Send the answer of a blocking invocation; a JSON array is sent bare, as upstream."""
        assert pending.caller is not None
        bare = pending.invocation.result_only or response.lstrip()[:1] == b"["
        body = response if bare else record.full()
        pending.caller.reply(_HTTP_STATUS[record.status_code], body, record.activation_id)

    def _on_reject(self, reject: Reject) -> None:
        activation_id = reject.activation.activation_id
        pending = self._forget(activation_id)
        if pending is None:
            return
        if reject.cause in _REFUSALS and pending.caller is not None:
            pending.caller.fail(too_many_in_flight(reject.reason, reject.retry_after_us))
            return  # it was not accepted
        outcome = _OUTCOMES.get(reject.cause, PLATFORM_ERROR)
        rank = UNKNOWN if reject.cause == Cause.UNKNOWN else DEFINITE
        self._end_without_result(activation_id, pending, outcome, rank, reject.reason)

    def _end_without_result(
        self, activation_id: str, pending: Pending, outcome: int, rank: int, reason: str
    ) -> None:
        """Record, and answer, an activation of whose run nothing is known."""
        route = pending.route
        response = runtime_protocol.failure(outcome, reason).result
        now_ms = clock.wall_ms()
        head = route.record_head(
            activation_id, now_ms, now_ms, outcome, response, b"", False, pending.cause
        )
        at = route.namespace, route.action.path
        record = Record(activation_id, *at, now_ms, now_ms, outcome, rank, head, b"[]")
        self._record(record)
        if pending.caller is not None:
            self._answer(pending, record, response)
        elif pending.ended is not None:
            tell(pending.ended, record, response)

    def _forget(self, activation_id: str) -> Pending | None:
        """Return what was pending, and hold it no longer."""
        pending = self._pending.pop(activation_id, None)
        if pending is None:
            return None
        self._patience.forget(activation_id, pending)
        if pending.route.throttle is not None:
            pending.route.throttle.in_flight.discard(activation_id)
        if self._idle is not None and not self._pending and not self._idle.done():
            self._idle.set_result(None)
        return pending

    # --- what others need of it ----------------------------------------------------------------

    def in_flight(self) -> list[tuple[str, str]]:
        """Return id and ``namespace/action`` of each activation that has not ended."""
        return [
            (activation_id, f"{pending.route.action.namespace}/{pending.route.action.path}")
            for activation_id, pending in self._pending.items()
        ]

    def is_pending(self, activation_id: str) -> bool:
        """Tell whether the activation was accepted here and has not ended."""
        return activation_id in self._pending

    def disable(self) -> None:
        """Refuse every further invocation; what was accepted ends.  A start lifts it."""
        log.warning("an operator disables this controller")
        self.stop_accepting(DISABLED)

    def counts(self) -> dict[str, int]:
        """Return what is under way."""
        return {"pending": len(self._pending), "unlogged": len(self._unlogged)}

    def stop_accepting(self, why: str = STOPPING) -> None:
        """Refuse every further invocation with 503, which says why."""
        self._admission.closed = why

    def pause_accepting(self, why: str) -> None:
        """Refuse invocations until ``accept_again``, unless they are refused already."""
        self._admission.closed = self._admission.closed or why

    def accept_again(self, why: str) -> None:
        """Take back the refusal that was made with that reason, if it is the one that holds."""
        if self._admission.closed == why:
            self._admission.closed = ""

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
        self._unlogged.sweep()

    def _end_as_unknown(self, activation_id: str, why: str) -> None:
        pending = self._forget(activation_id)
        assert pending is not None
        text = f"It is not known whether the action ran or how it ended: {why}."
        log.error("activation %s ends as unknown: %s", activation_id, why)
        self._end_without_result(activation_id, pending, PLATFORM_ERROR, UNKNOWN, text)

    def close(self) -> None:
        """Write what is left, as the invoker is gone: records without logs, and *unknown* ones."""
        self._entities.listeners.remove(self._on_change)
        self._entities.namespace_listeners.remove(self._routes.namespace_changed)
        for task in self._tasks:
            task.cancel()
        for activation_id in list(self._pending):
            self._end_as_unknown(activation_id, "the server stopped before")
        self._patience.close()
        self._unlogged.close()

    # --- routes ------------------------------------------------------------------------------

    def _on_change(self, old: Entity, new: Entity | None) -> None:
        """Something was updated or deleted: the next invocation starts a queue of the new one."""
        self._routes.changed(old)
        if isinstance(old, (Action, Package)):
            what = type(old).__name__.lower()
            why = f"the {what} was {'deleted' if new is None else 'updated'}"
            self._start(self._close_queues(old, why))

    async def _close_queues(self, old: Action | Package, why: str) -> None:
        # A closing queue takes nothing more, so what is being accepted for it goes first.
        await self._activations.flush()
        assert self._scheduler is not None
        for queue, route in list(self._open_queues.items()):
            if route.is_of(old):
                self._scheduler.send(Close(queue, why))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the controller lost a task", exc_info=task.exception())
