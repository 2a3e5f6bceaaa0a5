# cython: nonecheck=True
"""What a scheduler holds, and the small moves that all its other parts make.

``Scheduler`` is one object in six layers, each a module and a class that extends the one before:
this one, ``scheduler_delivery`` (work to slots), ``scheduler_room`` (places and memory),
``scheduler_decisions`` (what to add, when to lift and to end), ``scheduler_queues`` and
``scheduler_containers`` (what happens to these) and ``scheduler`` (the public face and the hot
path).  A layer calls itself and those below it, never one above, so each can be read with what
is below in mind alone.

Here: the fields, when a queue is looked at next, how work is refused, how a container, a
reservation, a queue is let go.
"""

from __future__ import annotations

from collections import deque

from . import limits
from .action_queue import ActivationTable, DeadlineIndex
from .effects import Cause, CloseQueue, Place, Reject, Release, Throttle, Unreserve
from .events import Activation, FailureClass
from .forecast import Forecast
from .history import RunHistory
from .ledger import ContainerEntry, InvokerEntry, Ledger, QueueEntry
from .nesting import Calls
from .queue_states import QueueState, Signal
from .scheduler_config import SchedulerConfig, UnknownQueue
from .snapshot import Snapshot
from .starving import Starving

# Enum members as plain integers: comparing them costs nothing when compiled.
_IDLE = int(QueueState.IDLE)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_ACTION_THROTTLED = int(QueueState.ACTION_THROTTLED)
_REMOVING = int(QueueState.REMOVING)
_RECOVERABLE = int(FailureClass.RECOVERABLE)
_UNFIT = int(FailureClass.UNFIT)
_NEVER = 2**63 - 1  # beyond the last time there is, which something may be due at
_LOOKS_MAX = limits.LOOKS_MAX


class SchedulerBase:
    """Fields and small moves; see the module."""

    def __init__(self, config: SchedulerConfig | None = None) -> None:
        self.config = config or SchedulerConfig()
        self._now_us = 0
        self._serial = 0
        self._ledger = Ledger()
        # The ledger's own, at hand for the hot path.
        self._queues = self._ledger.queues
        self._containers = self._ledger.containers
        self._namespaces = self._ledger.namespaces
        self._invokers = self._ledger.invokers
        self._activations = ActivationTable()
        self._due = DeadlineIndex()
        # Queues that an event concerned beyond those that its step could look at.
        self._soon: deque[QueueEntry] = deque()
        # Queues that found no room: looked at again when room appears.
        self._starving = Starving()
        self._history = RunHistory()
        # Containers that this step has looked through to make room.
        self._scanned = 0
        # Invokers that have joined and were not asked of every queue yet.
        self._asking: dict[str, InvokerEntry] = {}
        # Containers whose creation was given up: invoker and epoch, the oldest first.
        self._given_up: dict[str, tuple[str, int]] = {}
        self._calls = Calls()
        self._accepted = 0
        self._ended = 0
        self._rejected = 0
        self._forwarded = 0
        self._wait_max_us = self.config.wait_max_us
        self._decision_interval_us = self.config.decision_interval_us
        self._reserve_answer_us = self.config.reserve_answer_us
        self._create_answer_us = self.config.create_answer_us
        self._backlog_interval_us = self.config.backlog_interval_us
        self._throttle_by_wait = self.config.throttle_by_wait
        self._stale_us = int(getattr(self.config.rule, "stale_ms", 0) * 1000)
        self._shadow = self.config.shadow
        self._shadow_stale_us = int(getattr(self._shadow, "stale_ms", 0) * 1000)

    def _entry(self, queue: str) -> QueueEntry:
        entry = self._queues.get(queue)
        if entry is None:
            raise UnknownQueue(f"queue {queue} is not open here")
        return entry

    def _expires_us(self, queue: QueueEntry, activation: Activation) -> int:
        bound_us = activation.arrived_us + queue.wait_max_us
        if 0 < activation.deadline_us < bound_us:
            return activation.deadline_us
        return bound_us

    def _waited_too_long(self, queue: QueueEntry, activation: Activation) -> str:
        waited_ms = (self._expires_us(queue, activation) - activation.arrived_us) // 1000
        return f"Activation processing is not initiated for {waited_ms} ms"

    def _reject_new(
        self, activation: Activation, cause: int, reason: str, retry_us: int, out: list[object]
    ) -> None:
        self._rejected += 1
        out.append(Reject(activation, cause, reason, retry_us))

    def _reject(
        self, activation: Activation, cause: int, reason: str, retry_us: int, out: list[object]
    ) -> None:
        """Reject an activation that was taken in before."""
        del self._activations[activation.activation_id]
        self._reject_new(activation, cause, reason, retry_us, out)

    def _reject_waiting(
        self, queue: QueueEntry, cause: int, reason: str, retry_us: int, out: list[object]
    ) -> None:
        activation = queue.line.take()
        while activation is not None:
            self._reject(activation, cause, reason, retry_us, out)
            activation = queue.line.take()

    def _move(self, queue: QueueEntry, signal: Signal, why: str, out: list[object]) -> None:
        """Move the queue along; whatever leads out of ACTION_THROTTLED lifts the throttle (L3)."""
        throttled = queue.life.state_index == _ACTION_THROTTLED
        queue.life.fire(signal)
        if throttled and queue.life.state_index != _ACTION_THROTTLED:
            out.append(Throttle(queue.spec.queue, False, why))

    def _wake(self, queue: QueueEntry, due_us: int) -> None:
        """See to it that the queue is looked at by ``due_us``; -1 asks for nothing."""
        key = queue.spec.queue
        if due_us < 0 or key not in self._queues:
            return
        known_us = self._due.time_of(key)
        if known_us < 0 or due_us < known_us:
            self._due.set(key, due_us)

    def _next_look_us(self, queue: QueueEntry, now_us: int) -> int:
        """Return when time alone could change something for the queue; -1: never."""
        due_us = _NEVER
        head = queue.line.head()
        if head is not None:
            due_us = self._expires_us(queue, head)
            if not queue.reserving:
                due_us = min(due_us, max(now_us + self._decision_interval_us, queue.retry_us))
            if queue.paused:
                due_us = min(due_us, now_us + self._decision_interval_us)
        elif queue.load.arrivals > 0 or queue.life.state_index == _NAMESPACE_THROTTLED:
            due_us = max(now_us + self._decision_interval_us, queue.retry_us)
        elif self._is_quiet(queue) and queue.life.can(Signal.QUIET_LONG):
            idle = queue.life.state_index == _IDLE
            grace_us = self.config.stop_grace_us if idle else self.config.idle_grace_us
            due_us = queue.quiet_since_us + grace_us
        if queue.reserving:
            due_us = min(due_us, queue.asked_us + self._reserve_answer_us)
        if queue.in_progress:
            oldest = next(iter(queue.in_progress.values()))
            due_us = min(due_us, oldest.entered_us + self._create_answer_us)
        if self._sees_to_floor(queue):
            due_us = min(due_us, max(now_us, queue.floor_us, queue.retry_us))
        return -1 if due_us == _NEVER else due_us

    def _is_quiet(self, queue: QueueEntry) -> bool:
        there = queue.serving or queue.in_progress or queue.reserving
        return not (queue.line.waiting or there or queue.spec.containers_min)

    def _sees_to_floor(self, queue: QueueEntry) -> bool:
        """Tell whether the queue's floor is to be restored once its pause is over."""
        return (
            queue.spec.containers_min != len(queue.kept)
            and not (queue.reserving or queue.adopting)
            and queue.life.state_index != _REMOVING
        )

    def _release(self, container: ContainerEntry, why: str, now_us: int, out: list[object]) -> None:
        """Let a serving container take no more work and go when it is done."""
        queue = container.queue
        self._ledger.leave(container)
        out.append(Release(container.container, container.invoker, queue.epoch, why))
        if container.keep:  # the place is not for its floor, but for who needs it now
            queue.floor_us = now_us + limits.FLOOR_INTERVAL_US
            self._wake(queue, self._next_look_us(queue, now_us))

    def _lose(self, container: ContainerEntry, cause: str, out: list[object]) -> None:
        """Forget a container; nobody knows what became of the work that it still had."""
        queue = container.queue
        for activation in list(container.outstanding.values()):
            del queue.delivered[activation.activation_id]
            text = f"The container is gone ({cause}); it is unknown whether the activation ran."
            self._reject(activation, Cause.UNKNOWN, text, 0, out)
        container.outstanding.clear()
        self._ledger.forget(container)

    def _foresee(self, queue: QueueEntry, snapshot: Snapshot, now_us: int) -> Forecast:
        places = self._ledger.places(queue.spec.memory_mb)
        forecast = Forecast(snapshot, places, queue.wait_max_us, now_us)
        queue.forecast = forecast
        return forecast

    def _snapshot(self, queue: QueueEntry, creation_us: int, now_us: int) -> Snapshot:
        load = queue.load
        load.update_rate(now_us, self._decision_interval_us)
        namespace = queue.namespace
        spec = queue.spec
        limit = namespace.containers_max
        existing = len(queue.serving) - len(queue.leaving)
        running = len(queue.delivered)
        if limit > 0 and (namespace.reserve > 0 or namespace.levels):
            # All that work of this depth may get, with what is held already.
            limit = namespace.held() + namespace.room(queue.line.depth())
        if queue.line.depth() > 0:
            # Nothing waits for containers that wait for calls: they come free after these.
            for container in queue.serving.values():
                if self._calls.hold(container):
                    running -= len(container.outstanding)
                    existing -= container.container not in queue.leaving
        known = load.samples > 0
        oldest_us = now_us
        for activation in queue.delivered.values():
            oldest_us = activation.delivered_us
            break
        head = queue.line.head()
        return Snapshot(
            state=queue.life.state,
            initialized=queue.initialized,
            incoming=0,
            waiting=queue.line.waiting,
            existing=existing,
            in_progress=len(queue.in_progress),
            stale=queue.line.older_than(now_us - self._stale_us) if self._stale_us else 0,
            namespace_existing=len(namespace.serving),
            namespace_in_progress=len(namespace.in_progress) + namespace.reserving,
            average_duration_ms=load.mean_us / 1000 if known else None,
            namespace_limit=limit,
            action_limit=limit if spec.action_limit is None else min(limit, spec.action_limit),
            concurrency=spec.concurrency,
            arrivals_per_s=load.rate_per_s,
            creation_ms=creation_us / 1000,
            wait_target_ms=None if spec.wait_target_us is None else spec.wait_target_us / 1000,
            running=running,
            paused=len(queue.paused),
            oldest_run_ms=(now_us - oldest_us) / 1000,
            duration_spread_ms=load.spread_us() / 1000 if known else None,
            steady_short_ms=load.steady_short_us(now_us) / 1000,
            oldest_wait_ms=0.0 if head is None else max(0, now_us - head.arrived_us) / 1000,
            typical_run_ms=0.0 if load.runs_ended or known else load.typical_us / 1000,
        )

    def _failed(
        self, queue: QueueEntry, cause: str, failure: int, now_us: int, out: list[object]
    ) -> None:
        """Wait before the next try; flush when no container is left that could do the work."""
        wait_us = min(self.config.retry_min_us << min(queue.failures, 30), self.config.retry_max_us)
        queue.failures += 1
        queue.retry_us = now_us + wait_us
        if queue.life.state_index != _REMOVING:
            queue.cause = cause
        if not (queue.serving or queue.in_progress):
            queue.quiet_since_us = now_us
            if queue.life.can(Signal.CREATION_FAILED):
                self._move(queue, Signal.CREATION_FAILED, cause, out)
            queue.final = failure != _RECOVERABLE
            if queue.final:
                unfit = failure == _UNFIT
                queue.hopeless = Cause.UNFIT if unfit else Cause.CREATION_FAILED
                self._reject_waiting(queue, queue.hopeless, cause, wait_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _drop_reservation(
        self, queue: QueueEntry, places: tuple[Place, ...], out: list[object]
    ) -> None:
        if queue.reserving:
            self._ledger.end_reservation(queue)
        names = tuple([unwanted.container for unwanted in places])
        out.append(Unreserve(queue.spec.queue, queue.epoch, names))

    def _close(self, queue: QueueEntry, out: list[object]) -> None:
        self._drop_queue(queue)
        out.append(CloseQueue(queue.spec.queue, queue.epoch))

    def _drop_queue(self, queue: QueueEntry) -> None:
        key = queue.spec.queue
        del self._queues[key]
        self._due.discard(key)
        self._starving.drop(key)
        self._starving.elsewhere.end(key)
        for invoker in self._invokers.values():
            invoker.unheard.pop(key, None)
        queue.namespace.queues -= 1
        self._tidy(queue.spec.namespace)

    def _tidy(self, name: str) -> None:
        """Forget a namespace of which nothing is left but what every one has."""
        namespace = self._namespaces[name]
        if (
            namespace.queues == 0
            and namespace.weight == 1.0
            and namespace.containers_max == self.config.namespace_containers_max
            and namespace.reserve == self.config.namespace_reserve
        ):
            del self._namespaces[name]

    def _rest_soon(self, queues: list[QueueEntry]) -> list[QueueEntry]:
        """Return the first LOOKS_MAX queues, which this step sees to; ticks look at the others."""
        for queue in queues[_LOOKS_MAX:]:
            if not queue.soon:
                queue.soon = True
                self._soon.append(queue)
        return queues[:_LOOKS_MAX]
