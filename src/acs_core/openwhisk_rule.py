# cython: nonecheck=True
# (None in place of a snapshot is an AttributeError on both builds, not a crash.)
"""The original's rule of demand, exact, with its quirks; ``demand`` has ours."""

from __future__ import annotations

from .limits import COUNT_MAX
from .queue_states import QueueState
from .snapshot import (
    ADD_ANYWAY,
    CAUSE_GONE,
    KEEP_WAITING,
    LIMIT_ZERO,
    NAMESPACE_FULL,
    NO_ROOM,
    PAUSE_AGAIN,
    RUN_MIN_MS,
    STAY_THROTTLED,
    Decision,
    Snapshot,
    Verdict,
    _number,
)

_RUNNING = int(QueueState.RUNNING)
_FLUSHING = int(QueueState.FLUSHING)
_NAMESPACE_THROTTLED = int(QueueState.NAMESPACE_THROTTLED)
_REMOVING = int(QueueState.REMOVING)


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
                return Decision(Verdict.SKIP, 0, s, LIMIT_ZERO, PAUSE_AGAIN)
            return Decision(Verdict.PAUSE, 0, s, LIMIT_ZERO, KEEP_WAITING)

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
                Verdict.UNTHROTTLE_NAMESPACE, 0, s, CAUSE_GONE, STAY_THROTTLED, room=room
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
                NAMESPACE_FULL,
                ADD_ANYWAY,
                drop=total == 0,
            )
        if state == _NAMESPACE_THROTTLED and may_exceed:
            return Decision(Verdict.UNTHROTTLE_NAMESPACE, 0, snapshot, CAUSE_GONE, STAY_THROTTLED)
        return Decision(Verdict.SKIP, 0, snapshot, NO_ROOM, ADD_ANYWAY)

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


def _old_add(snapshot: Snapshot, wanted: int, room: int, namespace_room: int) -> Decision:
    """Fit what the original wants into its room; throttle when the namespace's limit binds."""
    verdict, reason, rejected = Verdict.ADD, _OLD_WANTED, _OLD_FEWER
    count = wanted
    if wanted > room:
        count = room
        if room >= namespace_room:
            verdict, reason, rejected = Verdict.THROTTLE_NAMESPACE, NAMESPACE_FULL, ADD_ANYWAY
    elif wanted <= 0:
        count = 0
        verdict, reason, rejected = Verdict.SKIP, _OLD_NOTHING, _OLD_MORE
    return Decision(verdict, count, snapshot, reason, rejected, wanted=max(0, wanted), room=room)


def _ceil_int(value: float) -> int:
    """Round up to an int32 as the original's runtime does: beyond it saturates."""
    if value >= COUNT_MAX:
        return COUNT_MAX
    return int(-(-value // 1.0))


# The words of a decision: {0} is the decision, {1} its snapshot.
_NONE_YET = "no container yet, {1.waiting} waiting"
_OLD_WANTED = "{0.wanted} wanted for {1.stale} stale of {1.waiting} waiting, room {0.room}"
_OLD_FEWER = "wait for running containers: the original does not weigh that"
_OLD_NOTHING = "{1.stale} stale of {1.waiting} waiting ask for no more than there is"
_OLD_MORE = "add 1: whether that would be sooner, the original does not weigh"
