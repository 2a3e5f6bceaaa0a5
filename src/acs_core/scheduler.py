# cython: nonecheck=True
# (None in place of what an event carries is an error on both builds, not a crash.)
"""The scheduler of one node: owns its queues and their containers, decides, does nothing.

``step(event, now_us)`` returns effects; the caller performs them in order and reports what
happened as new events.  An event is applied whole or not at all.  One thread at a time.

Who holds what is kept in ``ledger``; what a queue's states are is ``queue_states``; how many
containers it needs ``demand``; where they go ``placement``.  This module leaves out what happens
inside an invoker: ``containers``.

Time: all of it is the caller's ``now_us``.  A queue has at most one entry in the deadline
index, never later than its next due moment; a look that finds nothing due costs one entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from . import fairness, limits, nesting
from .action_queue import ActivationTable, DeadlineIndex
from .demand import (
    RESUME_MS,
    STEADY_HOLD_CREATIONS,
    Decision,
    DemandRule,
    RuntimeFitRule,
    Snapshot,
    Verdict,
    resumptions,
)
from .effects import (
    Adopt,
    Cause,
    CloseQueue,
    Create,
    Decided,
    Deliver,
    Differed,
    Forward,
    Place,
    Reject,
    Release,
    Reserve,
    Resume,
    Throttle,
    Unreserve,
)
from .events import (
    Activation,
    Adopted,
    Arrived,
    Cancelled,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    Denied,
    Event,
    FailureClass,
    InvokerGone,
    InvokerReported,
    LeadershipLost,
    LimitsChanged,
    Outcome,
    Pulled,
    QueueClosing,
    QueueOpened,
    Reserved,
    Returned,
    TimeReached,
    refused_time,
)
from .explanation import INPUTS, binds, explain
from .forecast import Forecast
from .ledger import ContainerEntry, InvokerEntry, Ledger, NamespaceEntry, QueueEntry
from .load import QueueLoad
from .nesting import Calls
from .placement import place
from .queue_states import QueueState, Signal
from .shadow import ShadowTally
from .starving import Starving

# Enum members as plain integers: comparing them costs nothing when compiled.
_UNINITIALIZED = int(QueueState.UNINITIALIZED)
_RUNNING = int(QueueState.RUNNING)
_IDLE = int(QueueState.IDLE)
_FLUSHING = int(QueueState.FLUSHING)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_ACTION_THROTTLED = int(QueueState.ACTION_THROTTLED)
_REMOVING = int(QueueState.REMOVING)
_APPLICATION_ERROR = int(Outcome.APPLICATION_ERROR)
_NEVER = limits.TIME_MAX_US
_LOOKS_MAX = limits.LOOKS_MAX
_RESUME_US = int(RESUME_MS * 1000)
_POOREST = (-1, -1, "")
_SHORTEST = (-1, "")


class UnknownQueue(KeyError):
    """The event names a queue that is not open here; nothing changed."""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What a scheduler is told once.

    ``name`` starts every container id, so it must be new for each start of a node.  Bounds and
    durations are explained in ``limits``.  With ``report_decisions`` each decision is an effect;
    without ``give_back`` a queue keeps the containers that it has work for, as in the original;
    without ``throttle_by_wait`` it takes in work that would expire, as there.  ``shadow`` is asked
    for each decision as well and obeyed in none; see ``shadow``.

    Raises: ValueError that names the field, the value and the limit.
    """

    name: str = "scheduler"
    rule: DemandRule = field(default_factory=RuntimeFitRule)
    waiting_max: int = limits.WAITING_MAX
    waiting_low_fraction: float = limits.WAITING_LOW_FRACTION
    wait_max_us: int = limits.WAIT_MAX_US
    namespace_containers_max: int = limits.CONTAINERS_MAX
    namespace_reserve: int = limits.CALLS_RESERVE
    decision_interval_us: int = limits.DECISION_INTERVAL_US
    backlog_interval_us: int = limits.BACKLOG_INTERVAL_US
    idle_grace_us: int = limits.IDLE_GRACE_US
    stop_grace_us: int = limits.STOP_GRACE_US
    retry_min_us: int = limits.RETRY_MIN_US
    retry_max_us: int = limits.RETRY_MAX_US
    reserve_answer_us: int = limits.RESERVE_ANSWER_US
    create_answer_us: int = limits.CREATE_ANSWER_US
    report_decisions: bool = False
    give_back: bool = True
    throttle_by_wait: bool = True
    shadow: DemandRule | None = None

    def __post_init__(self) -> None:
        # A look that is due again at once would never let ``step`` return.
        for name in (
            "waiting_max",
            "wait_max_us",
            "decision_interval_us",
            "idle_grace_us",
            "stop_grace_us",
            "retry_min_us",
            "retry_max_us",
            "reserve_answer_us",
            "create_answer_us",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= limits.TIME_MAX_US:
                raise ValueError(f"{name} is {value}; it must be in 1..{limits.TIME_MAX_US}")
        for name in ("namespace_containers_max", "namespace_reserve", "backlog_interval_us"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= limits.TIME_MAX_US:
                raise ValueError(f"{name} is {value}; it must be in 0..{limits.TIME_MAX_US}")
        for name in ("waiting_max", "namespace_containers_max", "namespace_reserve"):
            value = getattr(self, name)
            if value > limits.COUNT_MAX:  # a snapshot for the rule could not be made
                raise ValueError(f"{name} is {value}; it must be at most {limits.COUNT_MAX}")
        if not 0.0 <= self.waiting_low_fraction < 1.0:
            raise ValueError(
                f"waiting_low_fraction is {self.waiting_low_fraction}; it must be in 0..1, below 1"
            )


class Scheduler:
    """Queues, containers and decisions of one scheduler node; see the module.

    Invariants: S1-S7, K1, L1-L7, B1, N1-N4, W1, W2, X1 (docs/invariants.md).
    """

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

    # --- the public face -----------------------------------------------------------------

    def step(self, event: Event, now_us: int) -> list[object]:
        """Apply the event at ``now_us`` and return what is to be done, in order.

        Args:
          event: Any event that ``events`` says is told to a scheduler.
          now_us: Time in microseconds; never earlier than in the last call.
        Raises:
          ValueError: Time goes backwards or beyond TIME_MAX_US, a queue is opened twice, a weight
            is out of its range, or a container is said to hold more than it takes; nothing changed.
          UnknownQueue: The event names a queue that is not open; nothing changed.
          TypeError: Not a scheduler's event, or a time that is no integer; nothing changed.
        Cost: O(1) amortised for arrivals and pulls; O(invokers) for a decision that adds.
        """
        # "| 0" refuses what is no integer; in C, where nothing else comes, it costs nothing.
        if not self._now_us <= now_us | 0 <= _NEVER:
            raise refused_time(now_us, self._now_us)
        out: list[object] = []
        if isinstance(event, Arrived):
            self._arrived(event, now_us, out)
        elif isinstance(event, Pulled):
            self._pulled(event, now_us, out)
        elif isinstance(event, TimeReached):
            self._time_reached(now_us, out)
        else:
            handler = _HANDLERS.get(type(event))
            if handler is None:
                raise TypeError(f"{type(event).__name__} is no event of a scheduler")
            handler(self, event, now_us, out)
        self._scanned = 0
        self._now_us = now_us
        return out

    def next_deadline_us(self) -> int | None:
        """Return when ``TimeReached`` is wanted next, None when nothing is due.  Cost: O(1).

        It may be a time that has passed: one step looks at a bounded number of queues.
        """
        if self._soon or self._asking:
            return self._now_us
        due_us = self._due.next_us()
        return None if due_us < 0 else due_us

    def has_queue(self, queue: str) -> bool:
        """Tell whether the queue is here, open or closing.  Cost: O(1)."""
        return queue in self._queues

    def queues(self) -> list[str]:
        """Return the names of the queues that are here, open or closing.  Cost: O(queues)."""
        return list(self._queues)

    def containers(self) -> list[str]:
        """Return the names of the containers that are known here.  Cost: O(containers)."""
        return list(self._containers)

    def in_hand(self) -> int:
        """Return how many activations are here: waiting or delivered, not ended.  Cost: O(1)."""
        return len(self._activations)

    def can_move(self, queue: str) -> bool:
        """Tell whether the queue may go to another scheduler now (``LeadershipLost``).

        Not while containers are reserved or created for it: those hang on who asked for them.
        Nor while it is adopted or closes.  Cost: O(1).
        """
        entry = self._queues.get(queue)
        if entry is None or entry.life.state_index == _REMOVING:
            return False
        return not (entry.reserving or entry.in_progress or entry.adopting)

    def counts(self) -> dict[str, int]:
        """Return the account of activations: accepted is the sum of the rest.  Cost: O(queues)."""
        return {
            "accepted": self._accepted,
            "waiting": sum([q.line.waiting for q in self._queues.values()]),
            "delivered": sum([len(q.delivered) for q in self._queues.values()]),
            "ended": self._ended,
            "rejected": self._rejected,
            "forwarded": self._forwarded,
        }

    def explain(self, queue: str) -> dict[str, object]:
        """Return the state of the queue in words and numbers.

        Raises: UnknownQueue.  Cost: O(invokers).
        """
        return explain(self._entry(queue), self._ledger, self._starving, self._now_us)

    def check(self) -> None:
        """Assert every invariant that can be seen from inside.  Cost: O(everything)."""
        self._ledger.check()
        self._due.check()
        self._calls.check()
        counts = self.counts()
        assert counts["accepted"] == sum(counts.values()) - counts["accepted"]  # K1
        assert len(self._activations) == counts["waiting"] + counts["delivered"]
        self._starving.check()
        assert set(self._starving.names()) <= self._queues.keys()
        soon = [queue for queue in self._queues.values() if queue.soon]
        assert soon == [q for q in soon if q in self._soon]
        for key, queue in self._queues.items():
            assert queue.life.state_index != QueueState.REMOVED
            assert bool(queue.adopting) or queue.life.state_index != _UNINITIALIZED
            assert not queue.adopting or queue.life.state_index != _RUNNING
            asks = queue.reserving or (queue.in_progress and not queue.adopting)
            works = queue.line.waiting or queue.load.arrivals
            if works or asks or self._sees_to_floor(queue):
                assert self._due.time_of(key) >= 0  # L3: somebody will look
            if queue.line.waiting:
                # L1: nobody idles beside work, once it may be served (S5).
                free = [c for c in queue.serving.values() if c.level <= queue.line.depth()]
                assert queue.adopting or not any(c.free for c in free)

    # --- arrivals, pulls, deliveries: the hot path -------------------------------------------

    def _arrived(self, event: Arrived, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        activation = event.activation
        if activation.activation_id in self._activations:
            return  # a controller's resend of what is waiting or delivered already
        if activation.withdrawn or activation.delivered_us >= 0:
            return  # the same object again, after its end
        self._accepted += 1
        if self._expires_us(activation) <= now_us:
            self._reject_new(activation, Cause.EXPIRED, self._waited_too_long(activation), 0, out)
            return
        state = queue.life.state_index
        if state != _RUNNING and not self._admit(queue, activation, now_us, out):
            return
        queue.load.arrivals += 1
        if queue.line.waiting == 0 and (state == _RUNNING or not queue.adopting):
            container = self._top(queue)
            if container is not None:
                activation.queue = event.queue
                self._activations[activation.activation_id] = activation
                self._deliver(queue, container, activation, now_us, out)
                # From the first arrival until the look that counts it, a look is due.
                if queue.load.arrivals == 1 and self._due.time_of(event.queue) < 0:
                    self._wake(queue, now_us + self._decision_interval_us)
                return
        forecast = queue.forecast
        if (
            forecast is not None
            and not activation.causes  # calls go before what was forecast
            and queue.line.waiting > 0
            and (queue.line.waiting >= forecast.startable or activation.deadline_us > 0)
            and self._refuse_late(queue, activation, now_us, out)
        ):
            return
        if not queue.line.offer(activation):
            self._refuse_full(queue, activation, out)
            return
        activation.queue = event.queue
        self._activations[activation.activation_id] = activation
        if queue.line.waiting >= queue.line.capacity and queue.life.can(Signal.BACKLOG_FULL):
            queue.life.fire(Signal.BACKLOG_FULL)
            out.append(Throttle(event.queue, True, f"{queue.line.waiting} activations wait"))
        if activation.causes:
            self._serve_calls(queue, now_us, out)
        self._consider(queue, now_us, out)
        if activation.causes:
            self._refuse_stuck(queue, now_us, out)

    def _pulled(self, event: Pulled, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch != container.queue.epoch:
            # late: the container is gone or was given up, or speaks to an earlier leader
            self._release_late(event.container, out)
            return
        queue = container.queue
        if container.serving_since_us < 0:
            self._serve(container, now_us)  # its ContainerServing was overtaken
        for activation_id in event.started:
            activation = container.outstanding.get(activation_id)
            if activation is not None:
                activation.started = True
        for completion in event.completions:
            if container.outstanding.pop(completion.activation_id, None) is not None:
                del self._activations[completion.activation_id]
                del queue.delivered[completion.activation_id]
                self._ended += 1
                queue.load.runs_ended += 1
                if completion.outcome <= _APPLICATION_ERROR:
                    queue.load.ran(completion.run_us)
        if not container.leaving:
            room = queue.spec.concurrency - len(container.outstanding)
            container.free = min(container.free + event.free_slots, room)
            if container.free > 0:
                container.idle_since_us = now_us
                if queue.paused:
                    queue.paused.pop(event.container, None)
                if not container.stacked:
                    container.stacked = True
                    stack = queue.open if container.level == 0 else queue.open_to_calls
                    stack.append(container)
                if container.level > 0:
                    self._serve_calls(queue, now_us, out)
                while (
                    container.level == 0
                    and container.free > 0
                    and queue.line.waiting > 0
                    and not queue.adopting
                ):
                    activation = self._take(queue, now_us, out)
                    if activation is None:
                        break
                    self._deliver(queue, container, activation, now_us, out)
        if queue.life.state_index != _RUNNING:
            self._settle(queue, now_us, out)

    def _deliver(
        self,
        queue: QueueEntry,
        container: ContainerEntry,
        activation: Activation,
        now_us: int,
        out: list[object],
    ) -> None:
        assert container.free > 0
        container.free -= 1
        container.outstanding[activation.activation_id] = activation
        queue.delivered[activation.activation_id] = activation
        activation.delivered_us = now_us
        out.append(Deliver(container.container, container.invoker, queue.epoch, activation))

    def _top(self, queue: QueueEntry) -> ContainerEntry | None:
        """Return the container with a free slot that pulled last; forget those without."""
        stack = queue.open
        while stack:
            container = stack[-1]
            if container.free > 0:
                return container
            container.stacked = False
            stack.pop()
        return None

    def _take(self, queue: QueueEntry, now_us: int, out: list[object]) -> Activation | None:
        """Take the oldest activation that has not expired; the expired before it are rejected."""
        while True:
            activation = queue.line.take()
            if activation is None:
                return None
            if self._expires_us(activation) > now_us:
                return activation
            self._reject(activation, Cause.EXPIRED, self._waited_too_long(activation), 0, out)

    def _serve_line(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Hand waiting activations to free slots until one of both runs out."""
        while queue.line.waiting > 0 and not queue.adopting:
            container = self._top(queue)
            if container is None:
                self._serve_calls(queue, now_us, out)
                return
            activation = self._take(queue, now_us, out)
            if activation is not None:
                self._deliver(queue, container, activation, now_us, out)

    # --- calls: activations for which others wait; see nesting -----------------------------------

    def _serve_calls(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Hand waiting calls to the free slots that are for them alone."""
        if queue.adopting:
            return
        for container in list(queue.open_to_calls):
            while container.free > 0:
                call = queue.line.take_call(container.level)
                if call is None:
                    break
                if self._expires_us(call) > now_us:
                    self._deliver(queue, container, call, now_us, out)
                else:
                    self._reject(call, Cause.EXPIRED, self._waited_too_long(call), 0, out)
            if container.free == 0:
                container.stacked = False
                queue.open_to_calls.remove(container)

    def _refuse_stuck(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Reject calls, the newest first, until none of this queue is stuck (N3)."""
        refused = True
        while refused:
            refused = False
            for call in queue.line.newest_calls():
                victim = nesting.victim(self._ledger, self._calls, call)
                if victim is not None:
                    reason = nesting.why_stuck(self._ledger, victim)
                    other = self._queues[victim.queue]
                    other.line.withdraw(victim)
                    self._reject(victim, Cause.CALLERS_HOLD, reason, 0, out)
                    self._settle(other, now_us, out)
                    refused = True
                    break

    def _lower_levels(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Let containers that are kept for calls serve the rest where the reserve is free again."""
        for container in list(queue.serving.values()):
            lowered = container.level > 0 and self._ledger.lower_level(container)
            if lowered and container.level == 0 and container.stacked:
                queue.open_to_calls.remove(container)
                queue.open.append(container)
        self._serve_line(queue, now_us, out)

    # --- arrivals off the hot path -----------------------------------------------------------

    def _admit(
        self, queue: QueueEntry, activation: Activation, now_us: int, out: list[object]
    ) -> bool:
        """Tell whether a queue that is not RUNNING takes the activation; reject it if not."""
        life = queue.life
        if life.state_index == _REMOVING:
            self._reject_new(activation, Cause.CLOSED, queue.cause, 0, out)
            return False
        if life.state_index == _ACTION_THROTTLED:
            self._refuse_full(queue, activation, out)
            return False
        if life.state_index == _FLUSHING and queue.final and now_us < queue.retry_us:
            self._reject_new(
                activation, Cause.CREATION_FAILED, queue.cause, queue.retry_us - now_us, out
            )
            return False
        life.fire(Signal.WORK_ARRIVED)
        return True

    def _refuse_full(self, queue: QueueEntry, activation: Activation, out: list[object]) -> None:
        waiting = queue.line.waiting
        low = int(queue.line.capacity * self.config.waiting_low_fraction)
        reason = (
            f"{waiting} activations of this action wait (allowed: {queue.line.capacity});"
            f" taken in again when no more than {low} wait"
        )
        slots = max(1, len(queue.serving) * queue.spec.concurrency)
        retry_us = int(waiting * queue.load.mean_us / slots)
        self._reject_new(activation, Cause.QUEUE_FULL, reason, retry_us, out)

    def _refuse_late(
        self, queue: QueueEntry, activation: Activation, now_us: int, out: list[object]
    ) -> bool:
        """Tell whether the activation would expire in the line, and reject it then (W1).

        With a new forecast where the last one is older than ``backlog_interval_us``: nothing else
        lifts this throttle, so nothing can forget to (L3).
        """
        forecast = queue.forecast
        assert forecast is not None
        if now_us - forecast.at_us >= self._backlog_interval_us:
            snapshot = self._snapshot(queue, self._ledger.creation_us(), now_us)
            forecast = self._foresee(queue, snapshot, now_us)
        waiting = queue.line.waiting
        within_us = self._expires_us(activation) - now_us
        if waiting < forecast.startable_within(within_us):
            return False
        reason = forecast.refusal(waiting, within_us)
        self._reject_new(activation, Cause.WOULD_EXPIRE, reason, forecast.wait_us(waiting), out)
        return True

    def _foresee(self, queue: QueueEntry, snapshot: Snapshot, now_us: int) -> Forecast:
        places = self._ledger.places(queue.spec.memory_mb)
        forecast = Forecast(snapshot, places, self._wait_max_us, now_us)
        queue.forecast = forecast
        return forecast

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

    def _expires_us(self, activation: Activation) -> int:
        bound_us = activation.arrived_us + self._wait_max_us
        if 0 < activation.deadline_us < bound_us:
            return activation.deadline_us
        return bound_us

    def _waited_too_long(self, activation: Activation) -> str:
        waited_ms = (self._expires_us(activation) - activation.arrived_us) // 1000
        return f"Activation processing is not initiated for {waited_ms} ms"

    def _cancelled(self, event: Cancelled, now_us: int, out: list[object]) -> None:
        activation = self._activations.get(event.activation_id)
        if activation is None or activation.delivered_us >= 0:
            return
        queue = self._queues[activation.queue]
        queue.line.withdraw(activation)
        self._reject(activation, Cause.CANCELLED, "cancelled before its turn", 0, out)
        self._settle(queue, now_us, out)

    def _returned(self, event: Returned, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch != container.queue.epoch:
            return
        queue = container.queue
        container.free = 0  # whoever returns work has no use for more
        for activation_id in reversed(event.activation_ids):
            activation = container.outstanding.get(activation_id)
            # One that is known to have started is never run again, whatever is said of it.
            if activation is not None and not activation.started:
                del container.outstanding[activation_id]
                del queue.delivered[activation_id]
                activation.delivered_us = -1
                queue.line.put_back(activation)
        self._serve_line(queue, now_us, out)
        self._consider(queue, now_us, out)

    # --- the life of queues ------------------------------------------------------------------

    def _queue_opened(self, event: QueueOpened, now_us: int, out: list[object]) -> None:
        spec = event.spec
        if spec.queue in self._queues:
            raise ValueError(f"queue {spec.queue} is open already")
        namespace = self._namespaces.get(spec.namespace)
        if namespace is None:
            namespace = NamespaceEntry(
                self.config.namespace_containers_max, self.config.namespace_reserve
            )
            self._namespaces[spec.namespace] = namespace
        namespace.queues += 1
        load = QueueLoad(now_us, event.history_us)
        capacity = self.config.waiting_max
        queue = QueueEntry(spec, event.epoch, capacity, namespace, load, now_us, self._calls)
        queue.adopting = dict.fromkeys(self._invokers, True)
        for invoker in self._invokers.values():
            invoker.unheard[spec.queue] = queue
        self._queues[spec.queue] = queue
        out.append(Adopt(spec.queue, event.epoch))
        self._adoption_over(queue, now_us, out)

    def _adopted(self, event: Adopted, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        if queue is None or event.epoch != queue.epoch:
            return
        for held in event.held:
            if len(held.activation_ids) > queue.spec.concurrency:
                raise ValueError(
                    f"container {held.container} holds {len(held.activation_ids)} activations; "
                    f"it must be at most {queue.spec.concurrency}"
                )
        invoker = self._invokers.get(event.invoker)
        if invoker is None or invoker.unheard.pop(event.queue, None) is None:
            return
        if queue.adopting.pop(event.invoker, None) is None and queue.failures:
            queue.retry_us = now_us  # it has joined: what failed before may succeed there
        for held in event.held:
            if held.container in self._containers:
                continue
            container = ContainerEntry(held.container, event.invoker, queue, held.keep)
            self._given_up.pop(held.container, None)
            self._ledger.enter(container, now_us)
            if held.serving:
                self._serve(container, now_us)
            for activation_id in held.activation_ids:
                known = self._activations.get(activation_id)
                if known is not None and known.delivered_us >= 0:
                    continue
                if known is None:
                    self._accepted += 1
                else:  # a controller has sent it again, and it waits here
                    self._queues[known.queue].line.withdraw(known)
                # Its payload stays where it runs; here it only must not be delivered again.
                activation = Activation(activation_id, b"", now_us)
                activation.queue = event.queue
                activation.delivered_us = now_us
                activation.started = True
                self._activations[activation_id] = activation
                container.outstanding[activation_id] = activation
                queue.delivered[activation_id] = activation
        self._adoption_over(queue, now_us, out)

    def _adoption_over(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Begin to serve, unless some invoker has not told yet what it holds."""
        if not queue.adopting:
            self._begin(queue, now_us, out)
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)

    def _begin(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        queue.adopting = {}  # without the table that the emptied one keeps
        if queue.life.state_index == _UNINITIALIZED:
            queue.life.fire(Signal.ADOPTED)
        self._serve_line(queue, now_us, out)

    def _queue_closing(self, event: QueueClosing, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        self._move(queue, Signal.CLOSE_REQUESTED, event.why, out)
        queue.cause = event.why
        self._consider(queue, now_us, out)
        self._settle(queue, now_us, out)

    def _move(self, queue: QueueEntry, signal: Signal, why: str, out: list[object]) -> None:
        """Move the queue along; whatever leads out of ACTION_THROTTLED lifts the throttle (L3)."""
        throttled = queue.life.state_index == _ACTION_THROTTLED
        queue.life.fire(signal)
        if throttled and queue.life.state_index != _ACTION_THROTTLED:
            out.append(Throttle(queue.spec.queue, False, why))

    def _leadership_lost(self, event: LeadershipLost, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        waiting = []
        activation = queue.line.take()
        while activation is not None:
            del self._activations[activation.activation_id]
            waiting.append(activation)
            activation = queue.line.take()
        # What was delivered reports to the new leader, and so do the containers.
        for container in [*queue.in_progress.values(), *queue.serving.values()]:
            for activation_id in container.outstanding:
                del self._activations[activation_id]
            self._forwarded += len(container.outstanding)
            self._ledger.forget(container)
        self._forwarded += len(waiting)
        queue.delivered.clear()
        self._move(queue, Signal.SUPERSEDED, f"{event.to} leads the queue", out)
        if queue.reserving:
            self._drop_reservation(queue, queue.reserving, out)
        self._drop_queue(queue)
        out.append(Forward(event.queue, tuple(waiting), event.to))

    def _limits_changed(self, event: LimitsChanged, now_us: int, out: list[object]) -> None:
        if not 0.0 < event.weight <= limits.WEIGHT_MAX:
            raise ValueError(f"weight is {event.weight}; it must be in 0..{limits.WEIGHT_MAX}")
        namespace = self._namespaces.get(event.namespace)
        if namespace is None:
            namespace = NamespaceEntry(event.containers_max, event.reserve)
            self._namespaces[event.namespace] = namespace
        namespace.containers_max = event.containers_max
        namespace.reserve = event.reserve
        namespace.weight = event.weight
        concerned = [queue for queue in self._queues.values() if queue.namespace is namespace]
        for queue in concerned:
            queue.retry_us = now_us  # what failed before may succeed now
        for queue in self._rest_soon(concerned):
            self._decide(queue, now_us, out)
        self._tidy(event.namespace)

    def _rest_soon(self, queues: list[QueueEntry]) -> list[QueueEntry]:
        """Return the first LOOKS_MAX queues, which this step sees to; ticks look at the others."""
        for queue in queues[_LOOKS_MAX:]:
            if not queue.soon:
                queue.soon = True
                self._soon.append(queue)
        return queues[:_LOOKS_MAX]

    def _settle(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Lift throttles whose cause is gone, and end a queue that has nothing left."""
        state = queue.life.state_index
        if state == _ACTION_THROTTLED:
            low = int(queue.line.capacity * self.config.waiting_low_fraction)
            if queue.line.waiting <= low:
                text = f"{queue.line.waiting} activations wait"
                self._move(queue, Signal.BACKLOG_LOW, text, out)
                self._consider(queue, now_us, out)
        elif (
            state == _REMOVING
            and not (queue.line.waiting or queue.delivered)
            and not self._is_unheard(queue)
        ):
            for container in list(queue.serving.values()):
                if container.container not in queue.leaving:
                    self._release(container, queue.cause, now_us, out)
            if not (queue.serving or queue.in_progress or queue.reserving):
                queue.life.fire(Signal.EMPTIED)
                self._close(queue, out)

    def _is_unheard(self, queue: QueueEntry) -> bool:
        """Tell whether an invoker has not told yet what it holds of the queue."""
        key = queue.spec.queue
        return bool([key for invoker in self._invokers.values() if key in invoker.unheard])

    def _close(self, queue: QueueEntry, out: list[object]) -> None:
        self._drop_queue(queue)
        out.append(CloseQueue(queue.spec.queue, queue.epoch))

    def _drop_queue(self, queue: QueueEntry) -> None:
        key = queue.spec.queue
        del self._queues[key]
        self._due.discard(key)
        self._starving.drop(key)
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

    # --- decisions ---------------------------------------------------------------------------

    def _consider(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Decide now if it is time to, and see to it that somebody looks again."""
        self._resume_paused(queue, now_us, out)
        if queue.line.waiting > 0 and not queue.reserving:
            due_us = queue.retry_us
            if queue.decided_us >= 0 and (
                queue.serving
                or queue.in_progress
                or (queue.line.depth() == 0 and queue.spec.queue in self._starving)
            ):
                due_us = max(due_us, queue.decided_us + self._backlog_interval_us)
            if now_us < due_us:
                head = queue.line.head()
                assert head is not None
                due_us = min(due_us, self._expires_us(head))
                if queue.paused:
                    due_us = min(due_us, now_us + self._decision_interval_us)
                self._wake(queue, due_us)
                return
            self._decide(queue, now_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _sees_to_floor(self, queue: QueueEntry) -> bool:
        """Tell whether the queue's floor is to be restored once its pause is over."""
        return (
            queue.spec.containers_min != len(queue.kept)
            and not (queue.reserving or queue.adopting)
            and queue.life.state_index != _REMOVING
        )

    def _keep_floor(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Bring the queue up to its floor, or down where adopted ones are too many (L6).

        From what is free or idles: nobody who works gives anything for it.
        """
        if not self._sees_to_floor(queue) or now_us < max(queue.floor_us, queue.retry_us):
            return
        queue.floor_us = now_us + limits.FLOOR_INTERVAL_US
        lacks = queue.floor_lacks()
        for container in list(queue.kept.values()) if lacks < 0 else ():
            idles = container.serving_since_us >= 0 and not container.outstanding
            if lacks < 0 and idles and queue.line.waiting == 0:
                lacks += 1
                self._release(container, "more than the floor are kept", now_us, out)
        if lacks > 0 and queue.namespace.room(queue.line.depth()) <= 0:
            self._make_room(queue, 1, True, False, now_us, out)
        elif lacks > 0:
            self._reserve(queue, lacks, False, now_us, out)

    def _decide(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Ask the rule, act on its verdict, and note whether the queue lacks room for it."""
        state = queue.life.state_index
        if state == _IDLE or queue.adopting or queue.reserving:
            return
        if queue.namespace.levels:
            self._lower_levels(queue, now_us, out)
        creation_us = self._ledger.creation_us()
        containers = len(queue.serving) + len(queue.in_progress)
        queue.load.judge_growth(containers, STEADY_HOLD_CREATIONS * creation_us, now_us)
        snapshot = self._snapshot(queue, creation_us, now_us)
        decision = self.config.rule.decide(snapshot)
        queue.decided_us = now_us
        queue.decision = decision
        if self._throttle_by_wait:
            self._foresee(queue, snapshot, now_us)
        queue.load.note_steady(decision.steady_short, decision.count > 0, now_us)
        if self.config.report_decisions:
            out.append(Decided(queue.spec.queue, snapshot, decision))
        if self._shadow is not None:
            self._ask_shadow(queue, snapshot, decision, now_us, out)
        verdict = decision.verdict
        lacks_place = lacks_memory = False
        if verdict is Verdict.PAUSE:
            self._no_container_allowed(queue, now_us, out)
        elif verdict is Verdict.THROTTLE_NAMESPACE:
            if queue.life.can(Signal.NAMESPACE_FULL):
                queue.life.fire(Signal.NAMESPACE_FULL)
            if decision.drop:
                self._reject_waiting(
                    queue,
                    Cause.NO_CONTAINER,
                    "Too many concurrent requests in flight. "
                    + binds(queue, self._ledger, self._starving, now_us),
                    self._decision_interval_us,
                    out,
                )
            if queue.line.waiting > 0:
                lacks_place = True
                self._make_room(queue, 1, True, True, now_us, out)
        elif (
            state == _FLUSHING
            and queue.line.waiting > 0
            and not queue.in_progress
            and queue.namespace.room(queue.line.depth()) <= 0
        ):
            # The rules name no throttle here; without a place it could not even be tried again.
            lacks_place = True
            self._make_room(queue, 1, True, True, now_us, out)
        elif verdict is Verdict.UNTHROTTLE_NAMESPACE and queue.life.can(Signal.NAMESPACE_FREE):
            queue.life.fire(Signal.NAMESPACE_FREE)
            # The original waits for its next tick here; nothing is won by that.
            self._decide(queue, now_us, out)
            return
        if decision.count > 0:
            queue.initialized = True
            lacks_memory = self._reserve(queue, decision.count, True, now_us, out)
        if lacks_place or lacks_memory:
            self._starve(queue, lacks_memory)
        elif self._starving:
            self._starving.drop(queue.spec.queue)
        if queue.line.depth() > 0:
            self._refuse_stuck(queue, now_us, out)

    def _resume_paused(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Wake the paused containers that serve sooner than waiting does, the last idle first.

        No rule of demand is asked, and no failed creation holds it up: these containers are there.
        """
        if not queue.paused or queue.line.waiting == 0 or queue.adopting:
            return
        wanted = resumptions(self._snapshot(queue, self._ledger.creation_us(), now_us))
        head = queue.line.head()
        assert head is not None
        if wanted == 0 and now_us - head.arrived_us > _RESUME_US:
            wanted = 1  # it was to be served by now: runs last longer than predicted
        asleep = [c for c in queue.paused.values() if not c.resuming]
        wanted -= len(queue.paused) - len(asleep)
        for container in asleep[::-1][: max(0, wanted)]:
            container.resuming = True
            out.append(Resume(container.container, container.invoker, queue.epoch))

    def _ask_shadow(
        self,
        queue: QueueEntry,
        snapshot: Snapshot,
        decision: Decision,
        now_us: int,
        out: list[object],
    ) -> None:
        assert self._shadow is not None
        if self._shadow_stale_us not in (0, self._stale_us):
            # What is stale is each rule's own word.
            shown = {name: getattr(snapshot, name) for name in INPUTS}
            shown["stale"] = queue.line.older_than(now_us - self._shadow_stale_us)
            snapshot = Snapshot(state=snapshot.state, initialized=snapshot.initialized, **shown)
        if queue.shadow is None:
            queue.shadow = ShadowTally()
        other = queue.shadow.ask(self._shadow, snapshot, decision)
        if other is not None and self.config.report_decisions:
            out.append(Differed(queue.spec.queue, snapshot, other))

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
        )

    def _reserve(
        self, queue: QueueEntry, count: int, give_back: bool, now_us: int, out: list[object]
    ) -> bool:
        """Ask for up to ``count`` places within the caps; tell whether memory for some lacks.

        With ``give_back`` also those who work are asked for it.
        """
        level = queue.namespace.level_for(queue.line.depth())
        room = queue.namespace.room(level) if level >= 0 else 0
        if queue.spec.action_limit is not None:
            held = len(queue.serving) + len(queue.in_progress)
            room = min(room, queue.spec.action_limit - held)
        count = min(count, room, limits.RESERVE_MAX)
        if count <= 0:
            return False
        memory_mb = queue.spec.memory_mb
        largest_mb = self._ledger.largest_mb()
        if memory_mb > largest_mb:
            cause = f"no invoker has {memory_mb} MB (the largest: {largest_mb} MB)"
            self._failed(queue, cause, False, now_us, out)
            return False
        names = []
        if not self._is_overtaking(queue, now_us):
            names = place(self._ledger.views(queue.spec.queue), memory_mb, count)
        if len(names) < count:
            self._make_room(queue, count - len(names), False, give_back, now_us, out)
        if names:
            places = []
            for name in names:
                self._serial += 1
                places.append(Place(f"{self.config.name}-{self._serial}", name))
            serial = self._serial
            self._ledger.reserve(queue, serial, tuple(places), level, now_us)
            self._wake(queue, now_us + self._reserve_answer_us)
            spec = queue.spec
            out.append(
                Reserve(spec.queue, queue.epoch, serial, spec.namespace, memory_mb, queue.reserving)
            )
        return len(names) < count

    def _starve(self, queue: QueueEntry, lacks_memory: bool) -> None:
        """Note that the queue found no room, or how rich it has become meanwhile."""
        share, containers = self._wealth(queue)
        spec = queue.spec
        self._starving.put(spec.queue, spec.namespace, lacks_memory, share, containers)

    def _line(self, namespace: str | None) -> list[QueueEntry]:
        """Return who is first in the line for a place of the namespace; None: for memory.

        Those in front stand by what they have now, the others by what they had when they were
        looked at, which they are at each interval.  Cost: O(LINE_MAX).
        """
        if not self._starving:
            return []
        for name in self._starving.first(namespace):
            self._starve(self._queues[name], self._starving.lacks_memory(name))
        return [self._queues[name] for name in self._starving.first(namespace)]

    def _needier(self, queue: QueueEntry, in_namespace: bool) -> list[QueueEntry]:
        """Return the first LINE_MAX queues that room belongs to before this one.

        First those of the namespace with the smaller share, then those with fewer containers,
        then those that starve longer.
        """
        line = self._line(queue.spec.namespace if in_namespace else None)
        if queue in line:
            return line[: line.index(queue)]
        own = self._wealth(queue)
        return [other for other in line if self._wealth(other) <= own]

    def _wealth(self, queue: QueueEntry) -> tuple[float, int]:
        """Return the share of the queue's namespace, and the queue's own containers."""
        namespace = queue.namespace
        held = namespace.held()
        own = len(queue.serving) - len(queue.leaving) + len(queue.in_progress)
        return held / namespace.weight, own + len(queue.reserving)

    def _is_overtaking(self, queue: QueueEntry, now_us: int) -> bool:
        """Tell whether memory belongs to another queue first, which could take it now."""
        for other in self._needier(queue, False):
            could = other.line.waiting > 0 and not other.reserving and other.retry_us <= now_us
            if could:
                return True
        return False

    def _make_room(
        self,
        queue: QueueEntry,
        count: int,
        in_namespace: bool,
        give_back: bool,
        now_us: int,
        out: list[object],
    ) -> None:
        """See to it that ``count`` containers get room: from who idles, else from who has most.

        Floors are spared, except for calls: these go before them, or callers might wait for ever.

        With ``in_namespace`` the namespace's cap is what binds, else the memory.  What is on its
        way out already is counted, for the queues that it belongs to first, so that a second
        look releases nothing more.
        """
        needier = self._needier(queue, in_namespace)
        if len(needier) == limits.LINE_MAX:
            return  # it is made for those before it, who get it
        containers = queue.namespace.serving if in_namespace else self._containers
        if self._scanned > 0 and self._scanned + len(containers) > limits.ROOM_SCAN_MAX:
            # Others of this step were looked at first; a little later it is this one.
            self._wake(queue, now_us + max(1, self._backlog_interval_us))
            return
        self._scanned += len(containers)
        # A container that goes gives its place to levels from its own on.
        level = min(queue.line.depth(), queue.namespace.spare())
        wanted = count * (1 if in_namespace else queue.spec.memory_mb)
        for other in needier:
            wanted += 1 if in_namespace else other.spec.memory_mb
        calls = bool(self._calls.below)
        idle = []
        for container in containers.values():
            other = container.queue
            if in_namespace and container.level > level:
                continue
            if container.leaving:
                if calls and self._calls.hold(container):
                    continue  # it goes after the call that needs the room
                wanted -= 1 if in_namespace else other.spec.memory_mb
            elif (
                (container.free > 0 or (other.paused and container.container in other.paused))
                and not container.outstanding
                and other is not queue
                and (not container.keep or queue.line.depth() > 0)
                and (other.line.waiting == 0 or container.level > other.line.depth())
            ):
                idle.append((container.idle_since_us, container.container))
        idle.sort()
        for _, name in idle:
            if wanted <= 0:
                return
            container = self._containers[name]
            wanted -= 1 if in_namespace else container.queue.spec.memory_mb
            self._release(container, f"{queue.spec.action} needs the room", now_us, out)
        if wanted > 0 and give_back and self.config.give_back:
            self._give_back(queue, in_namespace, now_us, out)

    def _give_back(
        self, queue: QueueEntry, in_namespace: bool, now_us: int, out: list[object]
    ) -> None:
        """Let the richest queue give a container to this one, after the run that is in it."""
        spares_floors = queue.line.depth() == 0
        places = (queue.namespace.serving, queue.namespace.in_progress)
        holders: dict[str, QueueEntry] = {}
        for where in places if in_namespace else (self._containers,):
            for container in where.values():
                holders[container.queue.spec.queue] = container.queue
        totals: dict[str, int] = {}
        richest: dict[str, tuple[int, int, str]] = {}
        longest: dict[str, tuple[int, str]] = {}
        containers = holder_count = 0
        for name, other in holders.items():
            there = self._there(other)
            containers += there
            if len(other.serving) <= len(other.leaving):
                continue
            holder_count += 1
            namespace = other.spec.namespace
            totals[namespace] = totals.get(namespace, 0) + there
            if other is queue or not self._can_give(other, spares_floors):
                continue
            turn_us = self._turn_us(other, spares_floors, now_us)
            if (there, turn_us, name) > richest.get(namespace, _POOREST):
                richest[namespace] = (there, turn_us, name)
            if (turn_us, name) > longest.get(namespace, _SHORTEST):
                longest[namespace] = (turn_us, name)
        best = [name for _, _, name in richest.values()] + [name for _, name in longest.values()]
        holdings = [self._holding(self._queues[name], spares_floors, now_us) for name in best]
        # Everybody's turn has to come within the wait bound.
        rounds = 1 + (holder_count + len(self._starving)) // max(1, containers)
        turn_us = fairness.quantum_us(
            containers,
            self._ledger.creation_us(),
            self._ledger.swaps_per_s(),
            self._wait_max_us // (2 * rounds),
        )
        needy = self._holding(queue, spares_floors, now_us)
        found = fairness.giver(holdings, needy, turn_us, in_namespace, totals)
        if found is None:
            return
        giver = self._queues[found.queue]
        for container in [*giver.paused.values(), *giver.serving.values()]:
            if _may_go(container, spares_floors) and not (
                self._calls.below and self._calls.hold(container)
            ):
                why = f"{queue.spec.action} has too few containers"
                self._release(container, why, now_us, out)
                return

    def _can_give(self, queue: QueueEntry, spares_floors: bool) -> bool:
        """Tell whether the queue has a serving container that may go for another queue."""
        if not queue.kept or not spares_floors:
            return True
        return bool([c for c in queue.serving.values() if _may_go(c, True)])

    def _holding(self, queue: QueueEntry, spares_floors: bool, now_us: int) -> fairness.Holding:
        return fairness.Holding(
            queue.spec.queue,
            queue.spec.namespace,
            self._there(queue),
            self._turn_us(queue, spares_floors, now_us),
            queue.namespace.weight,
        )

    def _there(self, queue: QueueEntry) -> int:
        """Count what the queue has and will have, without what is on its way out."""
        there = len(queue.serving) - len(queue.leaving) + len(queue.in_progress)
        if queue.line.depth() > 0:
            # What waits for a call is of no use to it; else two queues would seem equally rich.
            held = [c for c in queue.serving.values() if self._calls.hold(c)]
            there -= len([c for c in held if c.container not in queue.leaving])
        return there + len(queue.reserving)

    def _turn_us(self, queue: QueueEntry, spares_floors: bool, now_us: int) -> int:
        """Return how long the container that serves longest and may go has served; 0: none."""
        for container in queue.serving.values():
            if _may_go(container, spares_floors):
                return now_us - container.serving_since_us
        return 0

    def _reserved(self, event: Reserved, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        asked = queue is not None and event.serial == queue.reserving_serial
        spots = queue.reserving if queue is not None and asked else ()
        granted = [spot for spot in spots if spot.container in event.containers]
        usable = [spot for spot in granted if self._may_create(event.queue, spot.invoker)]
        kept = [spot.container for spot in usable]
        # A repeated grant may name containers that exist by now: they keep their places.
        late = tuple([n for n in event.containers if n not in kept and n not in self._containers])
        if late:
            out.append(Unreserve(event.queue, queue.epoch if queue is not None else 0, late))
        if queue is None or not granted:
            return
        level = queue.reserving_level
        self._ledger.end_reservation(queue)
        if usable and queue.life.state_index == _REMOVING and queue.line.waiting == 0:
            self._drop_reservation(queue, tuple(usable), out)
            usable = []
        closing = queue.life.state_index == _REMOVING
        for spot in usable:
            keep = queue.floor_lacks() > 0 and not closing
            container = ContainerEntry(spot.container, spot.invoker, queue, keep)
            container.level = level
            self._ledger.enter(container, now_us)
            out.append(Create(spot.container, spot.invoker, queue.epoch, queue.spec, keep))
        if not usable:
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _may_create(self, queue: str, invoker: str) -> bool:
        """Tell whether the invoker is there, and has told what it holds of the queue."""
        entry = self._invokers.get(invoker)
        return entry is not None and queue not in entry.unheard

    def _denied(self, event: Denied, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        if queue is None or not queue.reserving or event.serial != queue.reserving_serial:
            return
        self._ledger.end_reservation(queue)
        self._failed(queue, event.reason, False, now_us, out)
        self._settle(queue, now_us, out)

    def _drop_reservation(
        self, queue: QueueEntry, places: tuple[Place, ...], out: list[object]
    ) -> None:
        if queue.reserving:
            self._ledger.end_reservation(queue)
        names = tuple([unwanted.container for unwanted in places])
        out.append(Unreserve(queue.spec.queue, queue.epoch, names))

    # --- containers --------------------------------------------------------------------------

    def _serve(self, container: ContainerEntry, now_us: int) -> None:
        """Let a container that was in progress serve: what failed before is over."""
        self._ledger.serve(container, now_us)
        queue = container.queue
        queue.failures = 0
        queue.retry_us = 0
        queue.final = False
        queue.cause = "" if queue.life.state_index != _REMOVING else queue.cause
        if queue.life.can(Signal.CREATION_SUCCEEDED):
            queue.life.fire(Signal.CREATION_SUCCEEDED)

    def _release(self, container: ContainerEntry, why: str, now_us: int, out: list[object]) -> None:
        """Let a serving container take no more work and go when it is done."""
        queue = container.queue
        self._ledger.leave(container)
        out.append(Release(container.container, container.invoker, queue.epoch, why))
        if container.keep:  # the place is not for its floor, but for who needs it now
            queue.floor_us = now_us + limits.FLOOR_INTERVAL_US
            self._wake(queue, self._next_look_us(queue, now_us))

    def _container_serving(self, event: ContainerServing, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._release_late(event.container, out)
        elif event.container in container.queue.in_progress:
            self._serve(container, now_us)

    def _release_late(self, name: str, out: list[object]) -> None:
        """Let a container go that serves after its creation was given up (L7)."""
        given_up = self._given_up.pop(name, None)
        if given_up is not None:
            invoker, epoch = given_up
            out.append(Release(name, invoker, epoch, "it serves too late: it was given up"))

    def _give_up(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Take for failed what the queue has asked for and not been answered in time (L7)."""
        if queue.reserving and now_us - queue.asked_us >= self._reserve_answer_us:
            cause = f"no answer to a reservation for {self._reserve_answer_us // 1000} ms"
            self._drop_reservation(queue, queue.reserving, out)
            self._failed(queue, cause, False, now_us, out)
        given_up = False
        for container in list(queue.in_progress.values()):
            if now_us - container.entered_us < self._create_answer_us:
                break
            cause = f"no answer to a creation for {self._create_answer_us // 1000} ms"
            given_up = True
            self._given_up[container.container] = (container.invoker, queue.epoch)
            if len(self._given_up) > limits.GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
            self._lose(container, cause, out)
            self._failed(queue, cause, False, now_us, out)
        if given_up:
            self._feed_starved(queue.spec.namespace, now_us, out)

    def _container_leaving(self, event: ContainerLeaving, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.container not in container.queue.serving:
            return
        self._ledger.leave(container)
        self._consider(container.queue, now_us, out)

    def _container_paused(self, event: ContainerPaused, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            return
        queue = container.queue
        name = event.container
        if name not in queue.serving or name in queue.leaving or name in queue.paused:
            return
        container.free = 0
        if not container.outstanding:  # else what was delivered meanwhile wakes it
            container.resuming = False
            queue.paused[name] = container
        self._consider(queue, now_us, out)

    def _container_gone(self, event: ContainerGone, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._given_up.pop(event.container, None)
            return
        self._lose(container, event.cause, out)
        self._after_loss(container.queue, now_us, out)
        self._feed_starved(container.queue.spec.namespace, now_us, out)

    def _lose(self, container: ContainerEntry, cause: str, out: list[object]) -> None:
        """Forget a container; nobody knows what became of the work that it still had."""
        queue = container.queue
        for activation in list(container.outstanding.values()):
            del queue.delivered[activation.activation_id]
            text = f"The container is gone ({cause}); it is unknown whether the activation ran."
            self._reject(activation, Cause.UNKNOWN, text, 0, out)
        container.outstanding.clear()
        self._ledger.forget(container)

    def _after_loss(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        if not (queue.serving or queue.in_progress):
            queue.quiet_since_us = now_us
        self._consider(queue, now_us, out)
        self._settle(queue, now_us, out)

    def _creation_failed(self, event: CreationFailed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._given_up.pop(event.container, None)
            return
        queue = container.queue
        self._lose(container, event.cause, out)
        final = event.failure == FailureClass.FINAL
        self._failed(queue, event.cause, final, now_us, out)
        self._settle(queue, now_us, out)
        self._feed_starved(queue.spec.namespace, now_us, out)

    def _failed(
        self, queue: QueueEntry, cause: str, final: bool, now_us: int, out: list[object]
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
            queue.final = final
            if final:
                self._reject_waiting(queue, Cause.CREATION_FAILED, cause, wait_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _no_container_allowed(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """The limit is 0: what waits keeps until its wait bound, in case the limit is raised."""
        self._failed(queue, "no container is allowed: its limit is 0", False, now_us, out)

    def _feed_starved(self, namespace: str | None, now_us: int, out: list[object]) -> None:
        """Memory has appeared, and a place in the namespace: the first ones in line look again.

        Who finds none of it ends that line: what is left belongs to those who come later no more
        than to it.  The rest have their next look.  Cost: 2 x LINE_MAX decisions at most.
        """
        if not self._starving:
            return
        line = self._line(None)
        if namespace is not None:
            both = {queue.spec.queue: queue for queue in (*self._line(namespace), *line)}
            line = sorted(both.values(), key=self._wealth)
        depth_in_vain = -1
        for queue in line:
            key = queue.spec.queue
            if queue.reserving or key not in self._starving:
                continue
            if not self._starving.lacks_memory(key) and queue.line.depth() <= depth_in_vain:
                continue
            self._decide(queue, now_us, out)
            if self._starving.lacks_memory(key):
                return
            if key in self._starving:
                depth_in_vain = max(depth_in_vain, queue.line.depth())

    # --- invokers and time -------------------------------------------------------------------

    def _invoker_reported(self, event: InvokerReported, now_us: int, out: list[object]) -> None:
        if self._ledger.report(event) and self._queues:
            self._asking[event.invoker] = self._invokers[event.invoker]
            self._ask_joined(out)
        self._feed_starved(None, now_us, out)

    def _ask_joined(self, out: list[object]) -> None:
        """Ask invokers that have joined what they hold of the queues that were open then."""
        left = limits.ASKS_MAX
        for name, invoker in list(self._asking.items()):
            while invoker.unasked and left > 0:
                left -= 1
                key, queue = invoker.unasked.popitem()
                if invoker.unheard.get(key) is queue:
                    out.append(Adopt(key, queue.epoch, name))
            if not invoker.unasked:
                del self._asking[name]

    def _invoker_gone(self, event: InvokerGone, now_us: int, out: list[object]) -> None:
        entry = self._invokers.pop(event.invoker, None)
        if entry is None:
            return
        self._asking.pop(event.invoker, None)
        touched: dict[str, QueueEntry] = {}
        for container in list(entry.containers.values()):
            touched[container.queue.spec.queue] = container.queue
            self._lose(container, f"invoker {event.invoker} is gone", out)
        for queue in entry.unheard.values():
            if queue.adopting.pop(event.invoker, None) is not None and not queue.adopting:
                self._begin(queue, now_us, out)
                touched[queue.spec.queue] = queue
            elif queue.life.state_index == _REMOVING:
                touched[queue.spec.queue] = queue
        for queue in touched.values():
            if not (queue.serving or queue.in_progress):
                queue.quiet_since_us = now_us
        for queue in self._rest_soon(list(touched.values())):
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)

    def _time_reached(self, now_us: int, out: list[object]) -> None:
        if self._asking:
            self._ask_joined(out)
        for _ in range(_LOOKS_MAX):
            key = self._due.pop_due(now_us)
            if key is not None:
                self._look(self._queues[key], now_us, out)
            elif self._soon:
                queue = self._soon.popleft()
                queue.soon = False
                if self._queues.get(queue.spec.queue) is queue:
                    self._look(queue, now_us, out)
            else:
                return

    def _look(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Do what time alone brings: expiry, a decision, idleness, the end."""
        head = queue.line.head()
        while head is not None and self._expires_us(head) <= now_us:
            queue.line.drop_head()
            self._reject(head, Cause.EXPIRED, self._expiry_reason(queue, head), 0, out)
            head = queue.line.head()
        if queue.reserving or queue.in_progress:
            self._give_up(queue, now_us, out)
        self._resume_paused(queue, now_us, out)
        if now_us >= queue.retry_us and (
            queue.line.waiting > 0
            or queue.load.arrivals > 0
            or queue.life.state_index == _NAMESPACE_THROTTLED
        ):
            self._decide(queue, now_us, out)
        self._keep_floor(queue, now_us, out)
        self._settle(queue, now_us, out)
        key = queue.spec.queue
        if key not in self._queues:
            return
        if self._is_quiet(queue):
            state = queue.life.state_index
            grace_us = self.config.stop_grace_us if state == _IDLE else self.config.idle_grace_us
            if now_us - queue.quiet_since_us >= grace_us and queue.life.can(Signal.QUIET_LONG):
                queue.quiet_since_us = now_us
                queue.life.fire(Signal.QUIET_LONG)
                if queue.life.state_index != _IDLE:
                    self._close(queue, out)
                    return
        self._wake(queue, self._next_look_us(queue, now_us))

    def _expiry_reason(self, queue: QueueEntry, activation: Activation) -> str:
        reason = self._waited_too_long(activation)
        if queue.cause:
            return f"{reason}: {queue.cause}"
        what = binds(queue, self._ledger, self._starving, self._now_us)
        return reason if what == "nothing" else f"{reason}: {what}"

    def _is_quiet(self, queue: QueueEntry) -> bool:
        there = queue.serving or queue.in_progress or queue.reserving
        return not (queue.line.waiting or there or queue.spec.containers_min)

    def _next_look_us(self, queue: QueueEntry, now_us: int) -> int:
        """Return when time alone could change something for the queue; -1: never."""
        due_us = _NEVER
        head = queue.line.head()
        if head is not None:
            due_us = self._expires_us(head)
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

    def _wake(self, queue: QueueEntry, due_us: int) -> None:
        """See to it that the queue is looked at by ``due_us``; -1 asks for nothing."""
        key = queue.spec.queue
        if due_us < 0 or key not in self._queues:
            return
        known_us = self._due.time_of(key)
        if known_us < 0 or due_us < known_us:
            self._due.set(key, due_us)

    def _entry(self, queue: str) -> QueueEntry:
        entry = self._queues.get(queue)
        if entry is None:
            raise UnknownQueue(f"queue {queue} is not open here")
        return entry


def _may_go(container: ContainerEntry, spares_floors: bool) -> bool:
    """Tell whether a serving container may be given back."""
    return not container.leaving and not (container.keep and spares_floors)


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    QueueOpened: Scheduler._queue_opened,
    QueueClosing: Scheduler._queue_closing,
    LeadershipLost: Scheduler._leadership_lost,
    LimitsChanged: Scheduler._limits_changed,
    Cancelled: Scheduler._cancelled,
    Reserved: Scheduler._reserved,
    Denied: Scheduler._denied,
    InvokerReported: Scheduler._invoker_reported,
    InvokerGone: Scheduler._invoker_gone,
    Adopted: Scheduler._adopted,
    ContainerServing: Scheduler._container_serving,
    CreationFailed: Scheduler._creation_failed,
    Returned: Scheduler._returned,
    ContainerLeaving: Scheduler._container_leaving,
    ContainerPaused: Scheduler._container_paused,
    ContainerGone: Scheduler._container_gone,
}
