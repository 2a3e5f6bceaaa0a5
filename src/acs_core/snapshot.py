# cython: nonecheck=True
# (None in place of a snapshot is an AttributeError on both builds, not a crash.)
"""What a demand rule is asked and what it answers; see ``demand`` and ``openwhisk_rule``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from .limits import COUNT_MAX
from .queue_states import STATES, QueueState

RUN_MIN_MS: Final = 0.001
"""Shortest run that is reckoned with: a microsecond, the core's unit of time."""

MS_MAX: Final = 2**62 / 1000
"""Longest duration in a snapshot; the core's longest time."""


class Verdict(IntEnum):
    """What to do with a queue; ``Decision.count`` containers are created besides."""

    SKIP = 0
    ADD_INITIAL = 1
    """Create the queue's first containers."""
    ADD = 2
    THROTTLE_NAMESPACE = 3
    """More is needed and the namespace's cap binds."""
    UNTHROTTLE_NAMESPACE = 4
    PAUSE = 5
    """No container is allowed at all: a limit is 0."""


class Snapshot:
    """What a rule knows of one queue at one moment; never changed.

    Args:
      state: The queue's QueueState.
      initialized: Whether a first container was ever asked for.
      incoming, waiting: Activations about to be enqueued, and in the queue.
      existing: Containers that serve this action, paused ones included.
      in_progress: Containers requested and not yet serving.
      stale: Waiting activations older than ``OpenWhiskRule``'s stale_ms.
      namespace_existing, namespace_in_progress: The same for the whole namespace.
      average_duration_ms: Mean run without init; None until a run has ended.
      namespace_limit, action_limit: Most containers; 0 or less: none.
      concurrency: Runs at once in one container, >= 1.
      arrivals_per_s: Smoothed rate of arrivals.
      creation_ms: From request to a serving container; None: CREATION_MS.
      wait_target_ms: W, target for the p99 of the wait; None: max(C, d/4), where the second is at
        most WAIT_TARGET_MAX_MS, and 0 beyond EXCUSING_MAX containers.
      running: Activations delivered and not ended.
      paused: How many of ``existing`` are paused.
      oldest_run_ms: Age of the oldest run, 0 when unknown.
      contending_queues: Other queues of the namespace that have work and no container.
      duration_spread_ms: Standard deviation of the run; None: equal to the mean.
      steady_short_ms: How long every decision has said ``steady_short``.
      oldest_wait_ms: How long the first in the line has waited.
      typical_run_ms: What runs of an earlier revision took, or of the namespace's other actions
        take, 0 when unknown.  Counts for decisions of ``RuntimeFitRule`` until a run of this one
        has ended, for no prediction.
    Counts are 0..COUNT_MAX, durations 0..MS_MAX; average_duration_ms and limits may be negative.
    Raises: TypeError or ValueError that names the field, the value and the limit.
    """

    def __init__(
        self,
        *,
        state: QueueState,
        initialized: bool,
        incoming: int,
        waiting: int,
        existing: int,
        in_progress: int,
        stale: int,
        namespace_existing: int,
        namespace_in_progress: int,
        average_duration_ms: float | None,
        namespace_limit: int,
        action_limit: int,
        concurrency: int,
        arrivals_per_s: float = 0.0,
        creation_ms: float | None = None,
        wait_target_ms: float | None = None,
        running: int = 0,
        paused: int = 0,
        oldest_run_ms: float = 0.0,
        contending_queues: int = 0,
        duration_spread_ms: float | None = None,
        steady_short_ms: float = 0.0,
        oldest_wait_ms: float = 0.0,
        typical_run_ms: float = 0.0,
    ) -> None:
        if not isinstance(state, QueueState):
            raise TypeError(f"state is {state!r}; it must be a QueueState")
        # Checked here because C would wrap or truncate without a word.
        self.state_index = int(state)
        self.initialized = bool(initialized)
        self.incoming = _count("incoming", incoming, 0)
        self.waiting = _count("waiting", waiting, 0)
        self.existing = _count("existing", existing, 0)
        self.in_progress = _count("in_progress", in_progress, 0)
        self.stale = _count("stale", stale, 0)
        self.namespace_existing = _count("namespace_existing", namespace_existing, 0)
        self.namespace_in_progress = _count("namespace_in_progress", namespace_in_progress, 0)
        self.namespace_limit = _count("namespace_limit", namespace_limit, -COUNT_MAX)
        self.action_limit = _count("action_limit", action_limit, -COUNT_MAX)
        self.concurrency = _count("concurrency", concurrency, 1)
        self.running = _count("running", running, 0)
        self.paused = _count("paused", paused, 0)
        self.contending_queues = _count("contending_queues", contending_queues, 0)
        if self.paused > self.existing:
            raise ValueError(f"paused is {paused}; it must be at most existing ({existing})")
        self.arrivals_per_s = _number("arrivals_per_s", arrivals_per_s, 0.0)
        self.oldest_run_ms = _number("oldest_run_ms", oldest_run_ms, 0.0)
        self.steady_short_ms = _number("steady_short_ms", steady_short_ms, 0.0)
        self.oldest_wait_ms = _number("oldest_wait_ms", oldest_wait_ms, 0.0)
        self.typical_run_ms = _number("typical_run_ms", typical_run_ms, 0.0)
        self.average_duration_ms = _optional("average_duration_ms", average_duration_ms, -MS_MAX)
        self.creation_ms = _optional("creation_ms", creation_ms, 0.0)
        self.wait_target_ms = _optional("wait_target_ms", wait_target_ms, 0.0)
        self.duration_spread_ms = _optional("duration_spread_ms", duration_spread_ms, 0.0)

    @property
    def state(self) -> QueueState:
        """The queue's state as a member of ``QueueState``."""
        return STATES[self.state_index]


class Decision:
    """What a rule decided, and from what; never changed.

    ``count`` containers are to be created, whatever the verdict.  ``drop``: reject what waits.
    ``steady_short``: the steady term asks for more than there is; the caller keeps since when.
    ``wanted`` is what the rule would add without caps, ``room`` what the caps leave,
    ``steady`` the steady term's containers, ``limit_ms`` the wait L that is aimed at.
    """

    def __init__(
        self,
        verdict: Verdict,
        count: int,
        snapshot: Snapshot,
        reason: str,
        rejected: str,
        *,
        drop: bool = False,
        steady_short: bool = False,
        wanted: int = 0,
        room: int = 0,
        steady: int = 0,
        limit_ms: float = 0.0,
    ) -> None:
        self.verdict = verdict
        self.count = count
        self.snapshot = snapshot
        self.drop = drop
        self.steady_short = steady_short
        self.wanted = wanted
        self.room = room
        self.steady = steady
        self.limit_ms = limit_ms
        self._reason = reason
        self._rejected = rejected

    # Few decisions are ever read: the words are put together when somebody asks.
    @property
    def reason(self) -> str:
        """Why, in words with the numbers that mattered."""
        return self._reason.format(self, self.snapshot)

    @property
    def rejected(self) -> str:
        """The alternative that was not taken, and why not, in words."""
        return self._rejected.format(self, self.snapshot)

    def __repr__(self) -> str:
        return f"Decision({self.verdict.name}, {self.count}: {self.reason})"


class DemandRule(Protocol):
    """How many containers to add; exchangeable.

    Pure: the same snapshot gives the same decision, and nothing else changes.
    """

    def decide(self, snapshot: Snapshot) -> Decision:
        """Return what to do with the queue that the snapshot shows."""
        ...


def _count(field: str, value: int, low: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} is {value!r}; it must be an integer")
    if not low <= value <= COUNT_MAX:
        raise ValueError(f"{field} is {value}; it must be in {low}..{COUNT_MAX}")
    return value


def _number(field: str, value: float, low: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{field} is {value!r}; it must be a number")
    if not low <= value <= MS_MAX:
        raise ValueError(f"{field} is {value}; it must be in {low}..{MS_MAX}")
    return float(value)


def _optional(field: str, value: float | None, low: float) -> float | None:
    return None if value is None else _number(field, value, low)


# Words of decisions that every rule has: {0} is the decision, {1} its snapshot.
LIMIT_ZERO = (
    "no container is allowed: namespace limit {1.namespace_limit}, action limit {1.action_limit}"
)
PAUSE_AGAIN = "pause: the queue is {1.state.name}"
KEEP_WAITING = "let {1.waiting} wait: nothing would ever serve them"
NAMESPACE_FULL = (
    "more is needed and the namespace holds {1.namespace_existing} and "
    "{1.namespace_in_progress} in progress of {1.namespace_limit} containers "
    "({1.contending_queues} other queues have none)"
)
NO_ROOM = (
    "no room: namespace {1.namespace_existing} and {1.namespace_in_progress} in progress of "
    "{1.namespace_limit}, action {1.existing} and {1.in_progress} in progress of {1.action_limit}"
)
ADD_ANYWAY = "add {0.wanted}: beyond the limit"
CAUSE_GONE = "room {0.room}, wanted {0.wanted}: the cause of the throttle is gone"
STAY_THROTTLED = "stay throttled: nothing requires it"
