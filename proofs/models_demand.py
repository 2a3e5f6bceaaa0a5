"""The plainest correct versions of what ``acs_core.demand`` decides, and a small cluster.

The models enumerate: every slot is a number in a list, every sum is exact (fractions).  The
code under test has closed forms instead.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from acs_core.demand import RuntimeFitRule, Snapshot
from acs_core.queue_states import QueueState

RESUME_MS = 30


def original(
    s: Snapshot, stale_ms: float, over_provision: bool, ratio: float
) -> tuple[str, int, bool]:
    """Return (verdict, count, drop) of the original, as the first row that matches."""
    state = s.state.name
    total = s.existing + s.in_progress
    avail = s.waiting + s.incoming
    ns_cap = s.namespace_limit - s.namespace_existing - s.namespace_in_progress
    act_cap = s.action_limit - total
    op_cap = math.ceil(s.namespace_limit * ratio) - s.namespace_existing - s.namespace_in_progress
    special = over_provision and total == 0
    capacity = (1 if op_cap > 0 else 0) if special else min(ns_cap, act_cap)
    d = s.average_duration_ms
    has = d is not None
    tp = 0.0 if d is None else (s.concurrency if d <= 0 else stale_ms / d * s.concurrency)

    def add(n: int) -> tuple[str, int, bool]:
        if n > capacity:
            if capacity >= ns_cap:
                return "THROTTLE_NAMESPACE", capacity, False
            return "ADD", capacity, False
        return ("SKIP", 0, False) if n <= 0 else ("ADD", n, False)

    def unknown() -> int:
        return min(math.ceil(s.stale / s.concurrency) - s.in_progress, avail)

    def stale_share() -> int:
        return min(math.ceil(s.stale / tp), s.stale) - s.in_progress

    def known_running() -> tuple[str, int, bool]:
        assert d is not None
        non_stale = avail - s.stale
        stale = stale_share() if s.stale > 0 else 0
        if non_stale >= tp * total and total < non_stale and d > 0:
            k = math.ceil(non_stale / tp - s.existing - s.in_progress)
            if k + total > non_stale:
                k = non_stale - total
            return add(k + stale)
        return add(stale) if stale > 0 else ("SKIP", 0, False)

    running, throttled = state == "RUNNING", state == "NAMESPACE_THROTTLED"
    flushing, removing = state == "FLUSHING", state == "REMOVING"
    none_allowed, full = min(s.namespace_limit, s.action_limit) <= 0, capacity <= 0
    exceed = over_provision and op_cap > 0
    stale = s.stale > 0
    rows: list[tuple[bool, Callable[[], tuple[str, int, bool]]]] = [
        (none_allowed and flushing, lambda: ("SKIP", 0, False)),
        (none_allowed, lambda: ("PAUSE", 0, False)),
        (full and running and not exceed, lambda: ("THROTTLE_NAMESPACE", 0, total == 0)),
        (full and throttled and exceed, lambda: ("UNTHROTTLE_NAMESPACE", 0, False)),
        (full, lambda: ("SKIP", 0, False)),
        (
            running and not has and total == 0 and not s.initialized,
            lambda: ("ADD_INITIAL", 1, False),
        ),
        (throttled, lambda: ("UNTHROTTLE_NAMESPACE", 0, False)),
        (running and total == 0 and avail > 0, lambda: ("ADD", 1, False)),
        (flushing and total == 0, lambda: ("ADD_INITIAL", 1, False)),
        (running and not has and stale, lambda: add(unknown())),
        (running and has, known_running),
        (removing and has and stale, lambda: add(stale_share())),
        (removing and not has and stale, lambda: add(unknown())),
        (True, lambda: ("SKIP", 0, False)),
    ]
    return next(result() for condition, result in rows if condition)


@dataclass
class Slots:
    """When each slot is first free, in exact milliseconds; ``making`` ones count apart."""

    there: list[Fraction]
    making: list[Fraction]
    run: Fraction
    creation: Fraction


def slots_of(s: Snapshot, containers: int, *, typical: bool = False) -> Slots:
    """List the slots of so many containers; ``typical``: of what the namespace's others take."""
    creation = Fraction(300 if s.creation_ms is None else s.creation_ms)
    oldest = Fraction(s.oldest_run_ms)
    known = max(oldest, Fraction(s.typical_run_ms)) if typical else oldest
    if s.average_duration_ms is not None:
        known = Fraction(s.average_duration_ms)
    run = max(Fraction(0.001), known)
    active = s.concurrency * (s.existing - s.paused)
    busy = min(s.running, active)
    window = min(oldest, run) if oldest > 0 else run
    ends = [run - window + window * i / busy for i in range(1, busy + 1)]
    if busy and oldest > run:
        ends[-1] = oldest
    there = [Fraction(0)] * (active - busy) + ends
    there += [min(Fraction(RESUME_MS), creation)] * (s.paused * s.concurrency)
    making = [creation] * ((containers - s.existing) * s.concurrency)
    return Slots(there, making, run, creation)


def starts(ready: list[Fraction], run: Fraction, within: Fraction) -> int:
    """Count the starts of all slots up to and including ``within``."""
    return sum(1 + (within - first) // run for first in ready if first <= within)


def wait_of_newest(s: Snapshot, containers: int) -> Fraction:
    """Hand out the waiting activations one by one, each to the slot that is free first."""
    slots = slots_of(s, containers)
    free = slots.there + slots.making
    heapq.heapify(free)
    now = Fraction(0)
    for _ in range(s.waiting + s.incoming):
        now = heapq.heappop(free)
        heapq.heappush(free, now + slots.run)
    return now


def wait_limit(s: Snapshot) -> Fraction:
    slots = slots_of(s, s.existing)
    excuse = min(slots.run / 4, Fraction(1500)) if s.existing + s.in_progress <= 20 else 0
    target = max(slots.creation, excuse)
    if s.wait_target_ms is not None:
        target = Fraction(s.wait_target_ms)
    return max(slots.creation, target)


def backlog_containers(s: Snapshot) -> int:
    """Add containers one by one until the backlog is started in time or all have a slot.

    By what is known, and by the guess up to 20 of them and a twentieth of the cap.
    """
    total = s.existing + s.in_progress
    known = added_one_by_one(s, typical=False)
    return max(
        known, min(added_one_by_one(s, typical=True), min(20, s.namespace_limit // 20) - total)
    )


def added_one_by_one(s: Snapshot, *, typical: bool) -> int:
    limit = wait_limit(s)
    total = s.existing + s.in_progress
    useful = math.ceil(Fraction(s.waiting + s.incoming + s.running, s.concurrency))
    added = 0
    while total + added < useful:
        slots = slots_of(s, total + added, typical=typical)
        in_time = starts(slots.there, slots.run, limit)
        in_time += starts(slots.making, slots.run, slots.creation + limit)
        if in_time >= s.waiting + s.incoming:
            break
        added += 1
    return added


def steady_p99_ms(arrivals_per_s: float, run_ms: float, spread_ms: float, slots: int) -> float:
    """Return the p99 of the wait by Erlang's C as it is usually written."""
    offered = arrivals_per_s * run_ms / 1000
    if offered >= slots:
        return math.inf
    term, below = 1.0, 0.0
    for k in range(slots):
        below += term
        term *= offered / (k + 1)
    last = term * slots / (slots - offered)
    waits = last / (below + last)
    if waits <= 0.01:
        return 0.0
    mean_ms = run_ms / (slots - offered) * (1 + (spread_ms / run_ms) ** 2) / 2
    return mean_ms * math.log(waits / 0.01)


@dataclass
class Loop:
    """A queue under constant load, with containers that the rule asks for.

    Idle containers are used latest first and leave after ``keep_alive_ms``, so that those too
    many are found out.  ``created`` and ``removed`` hold times.
    """

    per_s: float
    run_ms: float
    creation_ms: float
    keep_alive_ms: float
    concurrent_start: int = 0
    seed: int | None = None
    target_ms: float | None = None
    created: list[float] = field(default_factory=list)
    removed: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def arrivals(self) -> Iterator[float]:
        chance = random.Random(self.seed)
        now = 0.0
        while True:
            gap = 1000 / self.per_s
            now += gap if self.seed is None else chance.expovariate(1 / gap)
            yield now

    def run(self, until_ms: float) -> None:
        rule = RuntimeFitRule()
        arrivals = self.arrivals()
        queue: list[float] = []
        idle = [(0.0, n) for n in range(self.concurrent_start)]  # (since, container)
        busy: dict[int, float] = {}
        making = 0
        short_since: float | None = None
        names = iter(range(self.concurrent_start, 10**9))
        events: list[tuple[float, int, str, Any]] = []
        order = iter(range(10**9))

        def at(when: float, what: str, which: Any = None) -> None:
            heapq.heappush(events, (when, next(order), what, which))

        at(next(arrivals), "arrive")
        at(100.0, "tick")
        while events and events[0][0] <= until_ms:
            now, _, what, which = heapq.heappop(events)
            if what == "arrive":
                queue.append(now)
                at(next(arrivals), "arrive")
            elif what == "end":
                del busy[which]
                idle.append((now, which))
            elif what == "ready":
                making -= 1
                idle.append((now, next(names)))
            elif what == "tick":
                at(now + 100.0, "tick")
            while queue and idle:
                _, container = idle.pop()
                self.waits.append(now - queue.pop(0))
                busy[container] = now
                at(now + self.run_ms, "end", container)
            while idle and now - idle[0][0] >= self.keep_alive_ms:
                idle.pop(0)
                self.removed.append(now)
            if what not in ("arrive", "tick"):
                continue
            existing = len(idle) + len(busy)
            decision = rule.decide(
                Snapshot(
                    state=QueueState.RUNNING,
                    initialized=True,
                    incoming=0,
                    waiting=len(queue),
                    existing=existing,
                    in_progress=making,
                    stale=0,
                    namespace_existing=existing,
                    namespace_in_progress=making,
                    average_duration_ms=self.run_ms,
                    namespace_limit=1000,
                    action_limit=1000,
                    concurrency=1,
                    arrivals_per_s=self.per_s,
                    creation_ms=self.creation_ms,
                    wait_target_ms=self.target_ms,
                    running=len(busy),
                    oldest_run_ms=now - min(busy.values(), default=now),
                    duration_spread_ms=0.0,
                    steady_short_ms=0.0 if short_since is None else now - short_since,
                )
            )
            if not decision.steady_short:
                short_since = None
            elif short_since is None:
                short_since = now
            for _ in range(decision.count):
                making += 1
                self.created.append(now)
                at(now + self.creation_ms, "ready")


def most_in_a_window(times: list[float], window_ms: float, after_ms: float) -> int:
    """Return the largest number of times within any window after the settling."""
    late = [t for t in times if t >= after_ms]
    return max((sum(t <= u < t + window_ms for u in late) for t in late), default=0)
