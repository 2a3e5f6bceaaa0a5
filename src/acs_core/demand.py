# cython: nonecheck=True
# (None in place of a snapshot is an AttributeError on both builds, not a crash.)
"""How many containers a queue needs: pure rules from a ``Snapshot`` to a ``Decision``.

``RuntimeFitRule``, the default, asks whether a new container would serve sooner than those there
are.  What a rule is asked and answers is in ``snapshot``, the original's rule in
``openwhisk_rule``; both can be had from here.  Where a container goes is ``placement``'s business,
who keeps the counts is ``scheduler``'s.

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
used in its place: containers then grow with what is known (a bounded slow start).  What the
revision before took, or what is typical of the namespace's other actions, is another, up to
GUESSED_MAX containers and for the decision alone.

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

from math import inf, log, sqrt
from typing import Final

from .limits import CONTAINERS_MAX, CREATION_US
from .openwhisk_rule import OpenWhiskRule
from .queue_states import QueueState
from .snapshot import (
    ADD_ANYWAY,
    CAUSE_GONE,
    KEEP_WAITING,
    LIMIT_ZERO,
    MS_MAX,
    NAMESPACE_FULL,
    NO_ROOM,
    PAUSE_AGAIN,
    RUN_MIN_MS,
    STAY_THROTTLED,
    Decision,
    DemandRule,
    Snapshot,
    Verdict,
)

__all__ = [
    "DemandRule",
    "Decision",
    "MS_MAX",
    "OpenWhiskRule",
    "RuntimeFitRule",
    "Snapshot",
    "Verdict",
    "predicted_wait_ms",
    "resumptions",
    "starts_within",
    "steady_containers",
    "wait_behind_ms",
]

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

GUESSED_MAX: Final = 20
"""Containers of a queue up to which a guess at its runs is followed: what it may cost at most."""

GUESSED_PART: Final = 20
"""... and at most that part of its namespace's cap: where it is small, others need the places."""

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

_UNINITIALIZED = int(QueueState.UNINITIALIZED)
_IDLE = int(QueueState.IDLE)
_FLUSHING = int(QueueState.FLUSHING)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_REMOVED = int(QueueState.REMOVED)


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
                return Decision(Verdict.SKIP, 0, snapshot, LIMIT_ZERO, PAUSE_AGAIN)
            return Decision(Verdict.PAUSE, 0, snapshot, LIMIT_ZERO, KEEP_WAITING)
        return self._weigh(snapshot, state)

    def _weigh(self, snapshot: Snapshot, state: int) -> Decision:
        """Weigh both terms against the caps."""
        total = snapshot.existing + snapshot.in_progress
        creation_ms = _creation_ms(snapshot)
        run_ms = _run_ms(snapshot)
        target_ms = _wait_target_ms(snapshot, creation_ms, run_ms)
        limit_ms = max(creation_ms, target_ms)
        useful = _useful_containers(snapshot) - total
        # Never more than is useful: each slot starts at least one within the limit.
        backlog = _backlog_containers(snapshot, run_ms, creation_ms, limit_ms)
        guess = -1
        if snapshot.average_duration_ms is None and snapshot.typical_run_ms > run_ms:
            guess = _backlog_containers(snapshot, snapshot.typical_run_ms, creation_ms, limit_ms)
            most = min(GUESSED_MAX, snapshot.namespace_limit // GUESSED_PART)
            guess = min(guess, most - total)
        guessed = guess > backlog
        backlog = max(backlog, guess)
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

        verdict, reason, rejected = Verdict.ADD, _GUESSED if guessed else _WOULD_WAIT, _FEWER
        if wanted > backlog:
            reason, rejected = _STEADY_SHORT, _WAIT_LONGER
        if wanted > max(backlog, steady - total):
            reason, rejected = _OVERDUE, _TRUST
        if count < wanted:
            rejected = ADD_ANYWAY
        if state == _FLUSHING and (count > 1 or snapshot.in_progress > 0):
            count = min(count, 1 if snapshot.in_progress == 0 else 0)
            reason, rejected = _PROBE, _ALL_AT_ONCE
        if backlog > 0 and namespace_full and state != _FLUSHING:
            verdict, reason, rejected = Verdict.THROTTLE_NAMESPACE, NAMESPACE_FULL, ADD_ANYWAY
        elif state == _NAMESPACE_THROTTLED:
            verdict, reason, rejected = Verdict.UNTHROTTLE_NAMESPACE, CAUSE_GONE, STAY_THROTTLED
        elif wanted == 0:
            verdict, reason = Verdict.SKIP, _ENOUGH
            rejected = _STEADY_LATER if steady > total else _ADD_ONE
        elif room <= 0:
            verdict, reason, rejected = Verdict.SKIP, NO_ROOM, ADD_ANYWAY
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


def _floor(value: float) -> float:
    # A quotient that is whole on paper may come out a hair below.
    return (value + 1e-9) // 1.0


def _ceil(value: float) -> float:
    return -(-value // 1.0)


# The words of a decision: {0} is the decision, {1} its snapshot.
_NOT_OPEN = "the queue is {1.state.name}: nothing is created before or after its life"
_OPEN_LATER = "add for the {1.waiting} waiting: whoever leads the queue decides that"
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
_GUESSED = (
    "no run has ended, and {1.typical_run_ms:g} ms are usual here: of {1.waiting} waiting on "
    "{1.existing} containers and {1.in_progress} in progress the newest would wait longer than "
    "{0.limit_ms:g} ms"
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
