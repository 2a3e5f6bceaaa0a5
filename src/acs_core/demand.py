# cython: nonecheck=True
# (None in place of a snapshot is an AttributeError on both builds, not a crash.)
"""How many containers a queue needs: pure rules from a ``Snapshot`` to a ``Decision``.

Two rules of one Protocol: ``RuntimeFitRule``, the default, asks whether a new container would
serve sooner than those there are; ``OpenWhiskRule`` is the original, with its quirks.  Where a
container goes is ``placement``'s business, who keeps the counts is ``scheduler``'s.

**The predicted wait of the newest activation**, on n containers, is the least t with

    S(n, t) >= Q,  where
    S(n, t) = idle * k(t) + busy(t) + c * paused * k(t - U) + c * (n - existing) * k(t - C)
    k(x)    = 0 for x < 0, else 1 + floor(x / d)           starts of a slot that is ready at 0
    busy(t) = starts of the R running slots.  With g = min(a, d) they become free at
              d - g + g/R, d - g + 2g/R, ..., d, evenly staggered, and then every d.
              When a > d the last one becomes free at a instead: it may last as long again.

Q waiting and incoming, R running, c concurrency, d mean run, a age of the oldest run (0 means
unknown, and then g = d), C creation, U resume of a paused container (at most C), and
idle = c * (existing - paused) - R.  While no run has ended, a is the lower bound of d that is
used in its place: containers then grow with what is known (a bounded slow start).  Where the
namespace's other actions are known, what is typical of them is another, for the decision alone.

**Backlog term.**  With W the wait target and L = max(C, W), the containers there are must start
what they can within L, and those in the making (in progress or added) within L from when they
are ready, so that the newest waits at most C + L:

    S(existing, L) + c * (in progress + added) * k(L) >= Q

Without containers in the making it adds exactly when the predicted wait exceeds L.  To count
new ones only up to L, not C + L, was dropped: with L = C each would be worth a single run,
however short, and 100 runs of 30 ms would get 90 containers.

**Steady term.**  Besides, the smallest N whose predicted p99 of the wait is at most W, once
that has asked for more for 5 * C.  With m = c * N slots, A = arrivals/s * d the offered load
and E(m, A) the Erlang-C probability of waiting (Poisson arrivals):

    p99 = d * (1 + (spread/d)^2) / 2 / (m - A) * ln(100 * E(m, A)), 0 when E <= 0.01,
          infinite when m <= A

Exponential runs make it exact; other spreads scale the tail as the Allen-Cunneen approximation
scales the mean.  Sakasegawa's closed form in place of E was dropped: with two slots at load
0.375 it gives E 18 % too large, and that costs a third container.

Callers who wait for an answer before they ask again arrive as fast as they are served, so that
A never exceeds m.  Where no target is given, a queue is therefore short as well (*saturated*)
while every slot runs and has another activation waiting behind it, the newest is predicted to
wait for more than SATURATED_WAIT_MS, and A is at least 0.9 m (with less, something else than
the runs keeps the slots from starting).  Then half as many containers again are asked for, but
only by a queue with GROWTH_SHARE_MIN of its namespace's: whether one of a hundred pays does not
show.  ``load.judge_growth`` ends what does not pay.

**Overdue term.**  Runs that differ much from one another deceive every prediction from their mean.
Where the first in the line has waited for OVERDUE_MS and C + L is less, this is so: what waits then
asks for a slot each, with as many containers in the making at a time as there are.

**Bounds.**  Never more than ceil((Q + R) / c) containers, the action's or the namespace's cap.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf, log, sqrt
from typing import Final, Protocol

from .limits import CONTAINERS_MAX, COUNT_MAX, CREATION_US
from .queue_states import STATES, QueueState

CREATION_MS: Final = CREATION_US / 1000
"""C while no creation has been measured."""

RESUME_MS: Final = 30.0
"""U: unpausing a container.  Docker was published at 37 pauses and unpauses a second."""

STEADY_HOLD_CREATIONS: Final = 5
"""The steady term is obeyed after so many creation times: an estimate of the arrival rate over
less is noise, and a container that it costs is not."""

WAIT_TARGET_MAX_MS: Final = 1_500.0
"""Longest wait that a long run alone excuses, in W: a container costs its creation and keep-alive,
however long its runs are, so that runs of minutes are no reason to wait for minutes (ADR 9)."""

EXCUSING_MAX: Final = 20
"""Containers of a queue up to which long runs are an excuse.  One of more will nearly always use
another, so that it costs little, and more callers would wait without it (ADR 14)."""

GROWTH_SHARE_MIN: Final = 0.1
"""Share of its namespace's containers from which a saturated queue asks for more."""

OVERDUE_MS: Final = 3_000.0
"""From which age waiting work is overdue: twice WAIT_TARGET_MAX_MS, so that no prediction that was
kept is taken for one that failed."""

SATURATED_WAIT_MS: Final = 20.0
"""Wait that nobody minds, however many runs it is: 64 users of a no-op on two processors wait for
5 ms, and more containers would but share the processors."""

SATURATED_HOLD_MS: Final = 2_000.0
"""A queue must have been short for so long at least, where a creation takes a few milliseconds: a
crowded machine stalls for longer than five of those."""

SATURATED_LOAD_MIN: Final = 0.9
"""Offered load of a slot from which it counts as busy all the time."""

STEADY_EXACT_MAX: Final = 100_000.0
"""Offered load up to which Erlang's formula is evaluated, which bounds its loop to 2,000 steps.
Above, 2.5 deviations more than the load are taken: with them less than 1 in 100 waits."""

RUN_MIN_MS: Final = 0.001
"""Shortest run that is reckoned with: a microsecond, the core's unit of time."""

MS_MAX: Final = 2**62 / 1000
"""Longest duration in a snapshot; the core's longest time."""

_UNINITIALIZED = int(QueueState.UNINITIALIZED)
_RUNNING = int(QueueState.RUNNING)
_IDLE = int(QueueState.IDLE)
_FLUSHING = int(QueueState.FLUSHING)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_REMOVING = int(QueueState.REMOVING)
_REMOVED = int(QueueState.REMOVED)


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
      typical_run_ms: What runs of the namespace's other actions take, 0 when unknown.  Counts for
        decisions of ``RuntimeFitRule`` until a run of this one has ended, for no prediction.
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


class RuntimeFitRule:
    """Adds a container only where it would serve sooner than those there are; see the module.

    In every state: nothing before a queue is adopted or after it is removed; PAUSE when a
    limit is 0; one container at a time while creations fail (FLUSHING); THROTTLE_NAMESPACE as
    long as the backlog needs more and the namespace has no place, UNTHROTTLE_NAMESPACE as soon
    as one of the two is over.  THROTTLE_NAMESPACE is said again at each look, also in
    ACTION_THROTTLED and REMOVING, where it moves no state but asks the caller to make room.
    A place of the namespace is left for each queue that has none, except by a queue that has
    none itself.  Waiting work is never dropped: ``drop`` is False.

    Cost: O(1), the steady term O(sqrt(offered load)).
    """

    def decide(self, snapshot: Snapshot) -> Decision:
        """Return what to do with the queue that the snapshot shows."""
        state = snapshot.state_index
        if state in (_UNINITIALIZED, _REMOVED):
            return Decision(Verdict.SKIP, 0, snapshot, _NOT_OPEN, _OPEN_LATER)
        if min(snapshot.namespace_limit, snapshot.action_limit) <= 0:
            if state in (_FLUSHING, _IDLE):
                return Decision(Verdict.SKIP, 0, snapshot, _LIMIT_ZERO, _PAUSE_AGAIN)
            return Decision(Verdict.PAUSE, 0, snapshot, _LIMIT_ZERO, _KEEP_WAITING)
        return self._weigh(snapshot, state)

    def _weigh(self, snapshot: Snapshot, state: int) -> Decision:
        """Weigh both terms against the caps."""
        total = snapshot.existing + snapshot.in_progress
        creation_ms = _creation_ms(snapshot)
        run_ms = _run_ms(snapshot)
        if snapshot.average_duration_ms is None:
            run_ms = max(run_ms, snapshot.typical_run_ms)
        target_ms = _wait_target_ms(snapshot, creation_ms, run_ms)
        limit_ms = max(creation_ms, target_ms)
        useful = _useful_containers(snapshot) - total
        # Never more than is useful: each slot starts at least one within the limit.
        backlog = _backlog_containers(snapshot, run_ms, creation_ms, limit_ms)
        room = _namespace_room(snapshot)
        namespace_full = room <= 0
        room = min(room, snapshot.action_limit - total)

        steady = _steady_size(snapshot, run_ms, target_ms, total + max(1, min(useful, room)))
        saturated = _saturated_size(snapshot, run_ms, creation_ms, total)
        hold_ms = STEADY_HOLD_CREATIONS * creation_ms
        if saturated > steady:
            steady, hold_ms = saturated, max(hold_ms, SATURATED_HOLD_MS)
        wanted = backlog
        if steady > total and snapshot.steady_short_ms >= hold_ms:
            wanted = max(wanted, min(steady - total, useful))
        overdue = 0
        if snapshot.oldest_wait_ms >= OVERDUE_MS > creation_ms + limit_ms:
            overdue = min(_overdue_containers(snapshot), useful)
        wanted = max(0, wanted, overdue)
        count = max(0, min(wanted, room))

        verdict, reason, rejected = Verdict.ADD, _WOULD_WAIT, _FEWER
        if wanted > backlog:
            reason, rejected = _STEADY_SHORT, _WAIT_LONGER
        if wanted > max(backlog, steady - total):
            reason, rejected = _OVERDUE, _TRUST
        if count < wanted:
            rejected = _ADD_ANYWAY
        if state == _FLUSHING and (count > 1 or snapshot.in_progress > 0):
            count = min(count, 1 if snapshot.in_progress == 0 else 0)
            reason, rejected = _PROBE, _ALL_AT_ONCE
        if backlog > 0 and namespace_full and state != _FLUSHING:
            verdict, reason, rejected = Verdict.THROTTLE_NAMESPACE, _NAMESPACE_FULL, _ADD_ANYWAY
        elif state == _NAMESPACE_THROTTLED:
            verdict, reason, rejected = Verdict.UNTHROTTLE_NAMESPACE, _CAUSE_GONE, _STAY_THROTTLED
        elif wanted == 0:
            verdict, reason = Verdict.SKIP, _ENOUGH
            rejected = _STEADY_LATER if steady > total else _ADD_ONE
        elif room <= 0:
            verdict, reason, rejected = Verdict.SKIP, _NO_ROOM, _ADD_ANYWAY
        elif count == 0:
            verdict = Verdict.SKIP
        elif total == 0 and not snapshot.initialized:
            verdict = Verdict.ADD_INITIAL
        return Decision(
            verdict,
            count,
            snapshot,
            reason,
            rejected,
            steady_short=steady > total,
            wanted=wanted,
            room=max(0, room),
            steady=steady,
            limit_ms=limit_ms,
        )


class OpenWhiskRule:
    """The original's decisions, branch by branch, with its quirks; for comparison.

    Args:
      stale_ms: Age from which waiting activations count as stale, in ms, > 0.
      over_provision: Let a queue without containers exceed the namespace's limit by one ...
      over_provision_ratio: ... up to this multiple of the limit, >= 0.
    Raises: TypeError or ValueError that names the argument, the value and the limit.

    Cost: O(1).  Source: OpenWhisk's SchedulingDecisionMaker.
    """

    def __init__(
        self,
        stale_ms: float = 100,
        over_provision: bool = False,
        over_provision_ratio: float = 1.5,
    ) -> None:
        self.stale_ms = _number("stale_ms", stale_ms, RUN_MIN_MS)
        self.over_provision = bool(over_provision)
        self.over_provision_ratio = _number("over_provision_ratio", over_provision_ratio, 0.0)

    def decide(self, snapshot: Snapshot) -> Decision:
        """Return what the original would do with the queue that the snapshot shows."""
        s = snapshot
        state = s.state_index
        if min(s.namespace_limit, s.action_limit) <= 0:
            if state == _FLUSHING:
                return Decision(Verdict.SKIP, 0, s, _LIMIT_ZERO, _PAUSE_AGAIN)
            return Decision(Verdict.PAUSE, 0, s, _LIMIT_ZERO, _KEEP_WAITING)

        total = s.existing + s.in_progress
        available = s.waiting + s.incoming
        used = s.namespace_existing + s.namespace_in_progress
        over = _ceil_int(s.namespace_limit * self.over_provision_ratio) - used
        namespace_room = s.namespace_limit - used
        room = min(namespace_room, s.action_limit - total)
        if self.over_provision and total == 0:
            room = 1 if over > 0 else 0
        if room <= 0:
            return self._full(s, total, over)
        if state == _NAMESPACE_THROTTLED:
            # The original could add in the same step, and does not.
            return Decision(
                Verdict.UNTHROTTLE_NAMESPACE, 0, s, _CAUSE_GONE, _STAY_THROTTLED, room=room
            )
        if state == _FLUSHING and total == 0:
            return Decision(Verdict.ADD_INITIAL, 1, s, _NONE_YET, _OLD_FEWER, room=room)
        if state == _RUNNING and total == 0:
            if s.average_duration_ms is None and not s.initialized:
                return Decision(Verdict.ADD_INITIAL, 1, s, _NONE_YET, _OLD_FEWER, room=room)
            if available > 0:
                return Decision(Verdict.ADD, 1, s, _NONE_YET, _OLD_FEWER, room=room)
        wanted = 0
        if state in (_RUNNING, _REMOVING):
            wanted = self._wanted(s, total, available)
        return _old_add(s, wanted, room, namespace_room)

    def _full(self, snapshot: Snapshot, total: int, over: int) -> Decision:
        """Decide where the limits leave no room."""
        state = snapshot.state_index
        may_exceed = self.over_provision and over > 0
        if state == _RUNNING and not may_exceed:
            return Decision(
                Verdict.THROTTLE_NAMESPACE,
                0,
                snapshot,
                _NAMESPACE_FULL,
                _ADD_ANYWAY,
                drop=total == 0,
            )
        if state == _NAMESPACE_THROTTLED and may_exceed:
            return Decision(Verdict.UNTHROTTLE_NAMESPACE, 0, snapshot, _CAUSE_GONE, _STAY_THROTTLED)
        return Decision(Verdict.SKIP, 0, snapshot, _NO_ROOM, _ADD_ANYWAY)

    def _wanted(self, snapshot: Snapshot, total: int, available: int) -> int:
        """Return how many containers the stale and the other waiting activations ask for."""
        s = snapshot
        if s.average_duration_ms is None:
            if s.stale == 0:
                return 0
            return min(_ceil_int(s.stale / s.concurrency) - s.in_progress, available)
        duration_ms = float(s.average_duration_ms)
        # Messages that one container absorbs while a message becomes stale.
        throughput = float(s.concurrency)
        if duration_ms > 0:
            throughput = self.stale_ms / duration_ms * s.concurrency
        stale = 0
        if s.stale > 0:
            stale = min(_ceil_int(s.stale / throughput), s.stale) - s.in_progress
        if s.state_index == _REMOVING:
            return stale
        fresh = available - s.stale
        # Total below fresh: from here on fresh and throughput are positive.
        if fresh >= throughput * total and total < fresh and duration_ms > 0:
            fresh_share = _ceil_int(fresh / throughput - s.existing - s.in_progress)
            return min(fresh_share, fresh - total) + stale
        return stale


def predicted_wait_ms(snapshot: Snapshot, containers: int) -> float:
    """Predict how long the newest waiting activation waits on so many containers.

    Those beyond ``existing`` are taken to be ready after the creation time.

    Args:
      containers: All containers of the queue, at least ``snapshot.existing``.
    Returns: Milliseconds, rounded up to a microsecond; 0.0 when nothing waits, infinite when
      something waits and there is no container.
    Raises: ValueError if ``containers`` is less than ``existing``.
    Cost: O(log of the wait).  To compare with a bound, ``starts_within`` is O(1).
    """
    return wait_behind_ms(snapshot, containers, snapshot.waiting + snapshot.incoming)


def wait_behind_ms(snapshot: Snapshot, containers: int, backlog: int) -> float:
    """Predict how long the last of ``backlog`` activations waits, whatever waits in the snapshot.

    All else is as in ``predicted_wait_ms``.
    """
    if starts_within(snapshot, containers, 0.0) >= backlog:
        return 0.0
    if containers == 0:
        return inf
    run_ms = _run_ms(snapshot)
    # When all slots are ready, and each has then had its share of the backlog.
    ready_ms = _creation_ms(snapshot) + run_ms + snapshot.oldest_run_ms
    low_ms = 0.0
    high_ms = ready_ms + run_ms * backlog / (float(containers) * snapshot.concurrency)
    while high_ms - low_ms > max(0.001, high_ms * 1e-12):
        middle_ms = (low_ms + high_ms) / 2
        if starts_within(snapshot, containers, middle_ms) >= backlog:
            high_ms = middle_ms
        else:
            low_ms = middle_ms
    return high_ms


def starts_within(snapshot: Snapshot, containers: int, within_ms: float) -> float:
    """Return S(containers, within_ms): how many waiting activations would start by then.

    An arrival would wait longer than ``within_ms`` exactly when this is at most Q.

    Raises: ValueError if ``containers`` is less than ``existing``.
    Cost: O(1).
    """
    making = containers - snapshot.existing
    if making < 0:
        raise ValueError(
            f"containers is {containers}; it must be at least existing ({snapshot.existing})"
        )
    run_ms = _run_ms(snapshot)
    creation_ms = _creation_ms(snapshot)
    slots = float(making) * snapshot.concurrency
    return _starts_there(snapshot, run_ms, creation_ms, within_ms) + slots * _slot_starts(
        within_ms - creation_ms, run_ms
    )


def resumptions(snapshot: Snapshot) -> int:
    """Return how many of the paused containers to have resumed, those being resumed included.

    A resume is a creation that takes U: as many as let all that waits start within U of when they
    are awake, beside what the containers that are awake start by then.  0 where waiting is cheaper.
    Whether there is work for more containers is no question here, nor is any cap: these are there.

    Cost: O(1).
    """
    run_ms = _run_ms(snapshot)
    resume_ms = min(RESUME_MS, _creation_ms(snapshot))
    # Of each paused container, one start a slot is in this: just when it is awake.
    there = _starts_there(snapshot, run_ms, resume_ms, resume_ms)
    awake = there - float(snapshot.concurrency) * snapshot.paused
    left = snapshot.waiting + snapshot.incoming - awake
    each = snapshot.concurrency * _slot_starts(resume_ms, run_ms)
    return int(max(0.0, min(float(snapshot.paused), _ceil(left / each))))


def steady_containers(
    arrivals_per_s: float,
    duration_ms: float,
    spread_ms: float,
    concurrency: int,
    wait_target_ms: float,
    containers_max: int = CONTAINERS_MAX,
) -> int:
    """Return the fewest containers whose predicted p99 of the wait is within the target.

    Args:
      arrivals_per_s: Rate of arrivals; 0 needs no container.
      duration_ms, spread_ms: Mean, > 0, and standard deviation of a run.
      concurrency: Runs at once in one container, >= 1.
      wait_target_ms: Target for the p99 of the wait, >= 0.
      containers_max: Answer when no fewer suffice.
    Raises: ValueError if ``duration_ms`` or ``concurrency`` is too small.
    Cost: O(sqrt(offered load)).
    """
    if not duration_ms > 0.0:
        raise ValueError(f"duration_ms is {duration_ms}; it must be more than 0")
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it must be at least 1")
    offered = arrivals_per_s * duration_ms / 1000.0
    if not offered > 0.0:
        return 0
    slots_max = float(containers_max) * concurrency
    if offered >= slots_max:
        return containers_max
    ratio = spread_ms / duration_ms
    tail_ms = duration_ms * (1.0 + ratio * ratio) / 2.0
    # Erlang's recursion forgets where it began: six deviations below the load, where its value
    # is almost 1 - slots/load, it is exact again when it matters.
    deviation = sqrt(offered)
    if offered > STEADY_EXACT_MAX:
        return min(containers_max, int(_ceil((offered + 2.5 * deviation) / concurrency)))
    slots = max(0.0, (offered - 6.0 * deviation) // 1.0)
    blocked = 1.0 - slots / offered
    while slots < slots_max:
        slots += 1.0
        blocked = offered * blocked / (slots + offered * blocked)
        if slots <= offered:
            continue
        waits = blocked / (1.0 - offered / slots * (1.0 - blocked))
        if waits <= 0.01 or tail_ms / (slots - offered) * log(100.0 * waits) <= wait_target_ms:
            return int(_ceil(slots / concurrency))
    return containers_max


def _backlog_containers(
    snapshot: Snapshot, run_ms: float, creation_ms: float, limit_ms: float
) -> int:
    """Return how many containers the backlog term would add; may be negative."""
    left = (
        snapshot.waiting
        + snapshot.incoming
        - _starts_there(snapshot, run_ms, creation_ms, limit_ms)
    )
    each = snapshot.concurrency * _slot_starts(limit_ms, run_ms)
    return int(max(-1.0, _ceil(left / each - snapshot.in_progress)))


def _starts_there(snapshot: Snapshot, run_ms: float, creation_ms: float, within_ms: float) -> float:
    """Return S(existing, within_ms)."""
    concurrency = float(snapshot.concurrency)
    slots = concurrency * (snapshot.existing - snapshot.paused)
    running = min(float(snapshot.running), slots)
    # Nobody would resume a container that takes longer than a new one.
    resumed_ms = within_ms - min(RESUME_MS, creation_ms)
    return (
        (slots - running) * _slot_starts(within_ms, run_ms)
        + concurrency * snapshot.paused * _slot_starts(resumed_ms, run_ms)
        + _busy_starts(running, snapshot.oldest_run_ms, run_ms, within_ms)
    )


def _busy_starts(running: float, oldest_ms: float, run_ms: float, within_ms: float) -> float:
    """Return busy(within_ms), how often the running slots start again."""
    if running < 1.0:
        return 0.0
    window_ms = min(oldest_ms, run_ms) if oldest_ms > 0.0 else run_ms
    starts = 0.0
    staggered = running
    if oldest_ms > run_ms:
        staggered = running - 1.0
        starts = _slot_starts(within_ms - oldest_ms, run_ms)
    since_ms = within_ms - (run_ms - window_ms)
    if since_ms >= 0.0:
        rounds = _floor(since_ms / run_ms)
        ended = _floor((since_ms - rounds * run_ms) / window_ms * running)
        starts += rounds * staggered + max(0.0, min(staggered, ended))
    return starts


def _slot_starts(since_ms: float, run_ms: float) -> float:
    """Return k(since_ms), the starts of one slot since it was ready."""
    if since_ms < 0.0:
        return 0.0
    return 1.0 + _floor(since_ms / run_ms)


def _steady_size(snapshot: Snapshot, run_ms: float, target_ms: float, containers_max: int) -> int:
    """Return the steady term's containers; 0 until a run has ended."""
    if snapshot.average_duration_ms is None:
        return 0
    spread_ms = run_ms
    if snapshot.duration_spread_ms is not None:
        spread_ms = snapshot.duration_spread_ms
    return steady_containers(
        snapshot.arrivals_per_s, run_ms, spread_ms, snapshot.concurrency, target_ms, containers_max
    )


def _overdue_containers(snapshot: Snapshot) -> int:
    """Return how many containers the overdue term would add; may be negative."""
    asked = (snapshot.waiting + snapshot.concurrency - 1) // snapshot.concurrency
    return min(asked, snapshot.existing) - snapshot.in_progress


def _saturated_size(snapshot: Snapshot, run_ms: float, creation_ms: float, total: int) -> int:
    """Return how many containers a saturated queue asks for; 0 for any other."""
    slots = total * snapshot.concurrency
    if snapshot.wait_target_ms is not None or min(snapshot.waiting, snapshot.running) < slots:
        return 0
    if snapshot.in_progress > 0 or total == 0:
        return 0
    if snapshot.arrivals_per_s * run_ms / 1000.0 < SATURATED_LOAD_MIN * slots:
        return 0
    if _starts_there(snapshot, run_ms, creation_ms, SATURATED_WAIT_MS) >= snapshot.waiting:
        return 0
    if total < GROWTH_SHARE_MIN * (snapshot.namespace_existing + snapshot.namespace_in_progress):
        return 0
    return total + (total + 1) // 2


def _useful_containers(snapshot: Snapshot) -> int:
    """Return in how many containers every activation would have a slot of its own."""
    slots = snapshot.waiting + snapshot.incoming + snapshot.running
    return (slots + snapshot.concurrency - 1) // snapshot.concurrency


def _namespace_room(snapshot: Snapshot) -> int:
    room = snapshot.namespace_limit - snapshot.namespace_existing - snapshot.namespace_in_progress
    if snapshot.existing + snapshot.in_progress > 0:
        room -= snapshot.contending_queues
    return room


def _run_ms(snapshot: Snapshot) -> float:
    """Return d."""
    if snapshot.average_duration_ms is None:
        return max(RUN_MIN_MS, snapshot.oldest_run_ms)
    return max(RUN_MIN_MS, snapshot.average_duration_ms)


def _creation_ms(snapshot: Snapshot) -> float:
    """Return C."""
    return CREATION_MS if snapshot.creation_ms is None else snapshot.creation_ms


def _wait_target_ms(snapshot: Snapshot, creation_ms: float, run_ms: float) -> float:
    """Return W."""
    if snapshot.wait_target_ms is not None:
        return snapshot.wait_target_ms
    if snapshot.existing + snapshot.in_progress > EXCUSING_MAX:
        return creation_ms
    return max(creation_ms, min(run_ms / 4.0, WAIT_TARGET_MAX_MS))


def _old_add(snapshot: Snapshot, wanted: int, room: int, namespace_room: int) -> Decision:
    """Fit what the original wants into its room; throttle when the namespace's limit binds."""
    verdict, reason, rejected = Verdict.ADD, _OLD_WANTED, _OLD_FEWER
    count = wanted
    if wanted > room:
        count = room
        if room >= namespace_room:
            verdict, reason, rejected = Verdict.THROTTLE_NAMESPACE, _NAMESPACE_FULL, _ADD_ANYWAY
    elif wanted <= 0:
        count = 0
        verdict, reason, rejected = Verdict.SKIP, _OLD_NOTHING, _OLD_MORE
    return Decision(verdict, count, snapshot, reason, rejected, wanted=max(0, wanted), room=room)


def _floor(value: float) -> float:
    # A quotient that is whole on paper may come out a hair below.
    return (value + 1e-9) // 1.0


def _ceil(value: float) -> float:
    return -(-value // 1.0)


def _ceil_int(value: float) -> int:
    """Round up to an int32 as the original's runtime does: beyond it saturates."""
    if value >= COUNT_MAX:
        return COUNT_MAX
    return int(_ceil(value))


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


# The words of a decision: {0} is the decision, {1} its snapshot.
_NOT_OPEN = "the queue is {1.state.name}: nothing is created before or after its life"
_OPEN_LATER = "add for the {1.waiting} waiting: whoever leads the queue decides that"
_LIMIT_ZERO = (
    "no container is allowed: namespace limit {1.namespace_limit}, action limit {1.action_limit}"
)
_PAUSE_AGAIN = "pause: the queue is {1.state.name}"
_KEEP_WAITING = "let {1.waiting} wait: nothing would ever serve them"
_NONE_YET = "no container yet, {1.waiting} waiting"
_ENOUGH = (
    "{1.existing} containers and {1.in_progress} in progress are enough for {1.waiting} waiting "
    "and {1.running} running (wait limit {0.limit_ms:g} ms)"
)
_ADD_ONE = "add 1: nobody waits too long without it"
_STEADY_LATER = (
    "add up to {0.steady} containers, which {1.arrivals_per_s:g} arrivals/s need: "
    "short for {1.steady_short_ms:g} ms only, or no work for them now"
)
_WOULD_WAIT = (
    "{1.waiting} waiting and {1.running} running on {1.existing} containers and "
    "{1.in_progress} in progress: the newest would wait longer than {0.limit_ms:g} ms"
)
_FEWER = "add fewer than {0.count} (wanted {0.wanted}, room {0.room}): it would wait too long"
_STEADY_SHORT = (
    "{1.arrivals_per_s:g} arrivals/s, {1.waiting} waiting behind {1.running} running: "
    "{0.steady} containers are needed, short for {1.steady_short_ms:g} ms"
)
_WAIT_LONGER = "wait with {1.existing} containers: the p99 of the wait would miss its target"
_OVERDUE = (
    "the first of {1.waiting} has waited for {1.oldest_wait_ms:g} ms, though {1.existing} "
    "containers were to start it within {0.limit_ms:g} ms: runs differ too much to be predicted"
)
_TRUST = "wait for the {1.running} running: that has failed"
_PROBE = "creations fail: {0.count} more to try ({1.in_progress} in progress)"
_ALL_AT_ONCE = "add all {0.wanted} at once: they would likely fail as well"
_NAMESPACE_FULL = (
    "more is needed and the namespace holds {1.namespace_existing} and "
    "{1.namespace_in_progress} in progress of {1.namespace_limit} containers "
    "({1.contending_queues} other queues have none)"
)
_NO_ROOM = (
    "no room: namespace {1.namespace_existing} and {1.namespace_in_progress} in progress of "
    "{1.namespace_limit}, action {1.existing} and {1.in_progress} in progress of {1.action_limit}"
)
_ADD_ANYWAY = "add {0.wanted}: beyond the limit"
_CAUSE_GONE = "room {0.room}, wanted {0.wanted}: the cause of the throttle is gone"
_STAY_THROTTLED = "stay throttled: nothing requires it"
_OLD_WANTED = "{0.wanted} wanted for {1.stale} stale of {1.waiting} waiting, room {0.room}"
_OLD_FEWER = "wait for running containers: the original does not weigh that"
_OLD_NOTHING = "{1.stale} stale of {1.waiting} waiting ask for no more than there is"
_OLD_MORE = "add 1: whether that would be sooner, the original does not weigh"
