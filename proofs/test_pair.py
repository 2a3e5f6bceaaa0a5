"""Proof of both cores together: random work over a wire that delays, repeats and breaks.

Every activation ends exactly once and starts at most once; after quiet nothing is left (S2, K1,
L2, C6).  What the harness asserts of each run and each result counts here, too; so does M1, which
`Outside` computes from the runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from harness import SchedulerPair, Times
from hypothesis import given
from hypothesis import strategies as st
from models import Outside, at_least

from acs_core import events as ev
from acs_core.prewarm import Prewarm
from acs_core.scheduler import SchedulerConfig

CONFIG = SchedulerConfig(
    name="c",
    waiting_max=20,
    wait_max_us=5_000_000,
    namespace_containers_max=4,
    idle_grace_us=2_000_000,
    stop_grace_us=1_000_000,
    retry_max_us=1_000_000,
    report_decisions=True,
)
INVOKERS = {"i1": 600, "i2": 400, "i3": 300}
KEEP_ALIVE_US = 1_500_000
GRACE_US = 200_000
# What stands ready for nobody: the growing one goes when it expires, once it is not wanted.
PREWARM = (
    Prewarm("p", 100, count=1, expiry_us=900_000, count_max=3),
    Prewarm("p", 150, count=0, expiry_us=500_000, count_max=2),
)
TIMEOUT_US = 1_000_000
# L2: the longest wait, /init and /run to their limits, removal, keep-alive, and the graces.
QUIET_US = 5_000_000 + 2 * TIMEOUT_US + KEEP_ALIVE_US + 3_000_000 + 2_000_000


class Workload:
    """Draws what happens next to a pair; every step has the same form."""

    def __init__(self, seed: int, latency_us: int) -> None:
        self.random = random.Random(seed)
        times = Times(creation_us=150_000, init_us=5_000, run_us=20_000, reserve_us=2_000)
        self.pair = SchedulerPair(
            INVOKERS,
            config=CONFIG,
            keep_alive_us=KEEP_ALIVE_US,
            pause_grace_us=GRACE_US if self.random.random() < 0.7 else 0,
            prewarm=PREWARM if self.random.random() < 0.5 else (),
            prewarm_check_us=700_000,
            times=times,
            delay=lambda message: self.random.randint(0, latency_us),
            copies=lambda message: 1 + (self.random.random() < 0.1),
        )
        self.outside = Outside(self.pair.scheduler, CONFIG)
        for invoker, memory_mb in INVOKERS.items():
            self.outside.invokers[invoker] = ev.InvokerReported(invoker, memory_mb)
        self.pair.watch = self.outside.saw
        self.serial = 0
        # Delivered by a leader that is no more: unknown for ever when the invoker was cut off, or
        # gave it back to the next leader, which does not have it.
        self.handed_over: dict[str, str] = {}
        self.unknown: set[str] = set()
        for _ in range(3):
            self.open()

    def open(self) -> None:
        self.serial += 1
        number = self.random.randint(0, 2)
        spec = ev.QueueSpec(
            f"n{number}/q{self.serial}",
            f"n{number}",
            "q",
            self.serial,
            memory_mb=self.random.choice([100, 150, 300]),
            concurrency=self.random.choice([1, 1, 4]),
            timeout_us=TIMEOUT_US,
            action_limit=self.random.choice([None, None, 2]),
            kind="p",
            containers_min=self.random.choice([0, 0, 0, 0, 1, 2]),
        )
        self.pair.open(spec)

    def work(self, count: int) -> None:
        queue = self.queue()
        if queue is None:
            return
        for _ in range(count):
            self.serial += 1
            name = f"a{self.serial}"
            self.pair.run_us[name] = self.random.choice([1, 3_000, 50_000, 400_000, 2_000_000])
            self.pair.outcomes[name] = self.random.choice([*ev.Outcome, ev.Outcome.SUCCESS])
            deadline_us = self.random.choice([0, 0, 0, self.pair.now_us + 300_000])
            self.pair.arrive(queue, name, deadline_us=deadline_us)

    def work_and_time(self) -> None:
        self.work(3)
        self.pair.advance(250_000)

    def queue(self) -> str | None:
        names = sorted(self.outside.queues)
        return self.random.choice(names) if names else None

    def send_again(self) -> None:
        for name, activation in list(self.outside.objects.items()):
            if name in self.outside.live and activation.queue in self.outside.queues:
                again = ev.Activation(name, b"", activation.arrived_us)
                self.pair.tell(ev.Arrived(activation.queue, again))
                return

    def cancel(self) -> None:
        self.pair.tell(ev.Cancelled(f"a{self.random.randint(0, self.serial)}"))

    def close(self) -> None:
        queue = self.queue()
        if queue is not None:
            self.pair.tell(ev.QueueClosing(queue, "updated"))
            self.open()

    def lose(self) -> None:
        queue = self.queue()
        if queue is None:
            return
        spec = self.outside.queues[queue].spec
        for container in self.outside.containers.values():
            if container.queue == queue:
                self.handed_over.update(dict.fromkeys(container.held, container.invoker))
        self.pair.tell(ev.LeadershipLost(queue, "s2"))
        self.pair.advance(self.random.randint(0, 20_000))
        self.pair.open(spec)

    def break_sandbox(self) -> None:
        invoker = self.random.choice(sorted(INVOKERS))
        for container in self.pair.containers_of(invoker)[:1]:
            self.pair.break_sandbox(invoker, container)

    def cut_off(self) -> None:
        invoker = self.random.choice(sorted(INVOKERS))
        if invoker in self.outside.invokers:
            lost = [name for name, at in self.handed_over.items() if at == invoker]
            self.unknown.update(lost)
            self.pair.cut_off(invoker)

    def join(self) -> None:
        for invoker in INVOKERS:
            self.pair.join(invoker)

    def engine(self) -> None:
        engine = self.pair.engines[self.random.choice(sorted(INVOKERS))]
        engine.fault = self.random.choice(["", "", "down", "no image", "no pause"])

    def cap(self) -> None:
        self.pair.cap(f"n{self.random.randint(0, 2)}", self.random.randint(0, 3))

    def deny(self) -> None:
        self.pair.denial = self.random.choice(["", "", "etcd is away"])

    def drain(self) -> None:
        limit_us = self.random.choice([0, 100_000])
        self.pair.tell_pool("i3", ev.DrainRequested(limit_us))

    def become_kind(self) -> None:
        self.join()
        self.pair.denial = ""
        for engine in self.pair.engines.values():
            engine.fault = ""
        for number in range(3):
            self.pair.cap(f"n{number}", 2)

    def close_floors(self) -> None:
        for key, queue in list(self.outside.queues.items()):
            if queue.spec.containers_min:
                self.pair.tell(ev.QueueClosing(key, "it is over"))

    def left(self) -> set[str]:
        """Return what was accepted and has not ended, beside what is unknown by design."""
        pair = self.pair
        given_back = self.handed_over.keys() - pair.starts.keys()
        ended = pair.results.keys() | pair.rejected.keys()
        return pair.accepted - ended - self.unknown - given_back


STEPS: list[tuple[str, Callable[[Workload], object]]] = [
    ("work", lambda w: w.work(w.random.randint(1, 6))),
    ("work and time", lambda w: w.work_and_time()),
    ("burst", lambda w: w.work(25)),
    ("a moment", lambda w: w.pair.advance(w.random.randint(0, 30_000))),
    ("time", lambda w: w.pair.advance(w.random.randint(0, 800_000))),
    ("long", lambda w: w.pair.advance(w.random.randint(0, 7_000_000))),
    ("send again", Workload.send_again),
    ("cancel", Workload.cancel),
    ("close", Workload.close),
    ("lose", Workload.lose),
    ("break", Workload.break_sandbox),
    ("cut off", Workload.cut_off),
    ("join", Workload.join),
    ("engine", Workload.engine),
    ("cap", Workload.cap),
    ("deny", Workload.deny),
    ("drain", Workload.drain),
    ("open", Workload.open),
]
steps = st.sampled_from([*STEPS[:5], *STEPS])


@at_least(250)
@given(
    seed=st.integers(0, 2**32),
    latency_us=st.sampled_from([0, 500, 20_000]),
    plan=st.lists(steps, min_size=5, max_size=40),
)
def test_everything_ends_once_and_nothing_is_left(
    seed: int, latency_us: int, plan: list[tuple[str, Callable[[Workload], object]]]
) -> None:
    workload = Workload(seed, latency_us)
    for _, step in plan:
        step(workload)
    workload.become_kind()
    pair = workload.pair
    pair.advance(QUIET_US)  # what is prewarmed never is quiet
    assert not workload.left()
    # L6: only floors are left, and what belongs to them.
    outside = workload.outside
    assert all(queue.spec.containers_min for queue in outside.queues.values())
    assert all(container.keep for container in outside.containers.values())
    workload.close_floors()
    pair.advance(QUIET_US)
    for name, cause in pair.rejected.items():
        # Only what nobody knew can have a result besides.
        assert name not in pair.results or cause.name == "UNKNOWN"
    assert not workload.outside.queues
    assert not workload.outside.containers
    for invoker in INVOKERS:
        pair.tell_pool(invoker, ev.DrainRequested())
    pair.run_until_quiet(QUIET_US)
    assert not any(pool.used_mb() for pool in pair.pools.values())
    assert not pair.held()
    counts = pair.scheduler.counts()
    assert counts["accepted"] == counts["ended"] + counts["rejected"] + counts["forwarded"]


@pytest.mark.parametrize("actions", [1, 20])
def test_a_kind_world_rejects_nothing_and_creates_no_more_than_needed(actions: int) -> None:
    pair = SchedulerPair({"i1": 1_000, "i2": 1_000}, keep_alive_us=2_000_000)
    for number in range(actions):
        pair.open(ev.QueueSpec(f"n/q{number}", "n", f"q{number}", 0, memory_mb=100))
    for turn in range(200):
        pair.arrive(f"n/q{turn % actions}", f"a{turn}")
        pair.advance(5_000)
    pair.run_until_quiet(60_000_000)
    assert len(pair.results) == 200
    assert not pair.rejected
    created = sum([pool.counts()["created"] for pool in pair.pools.values()])
    assert created <= max(20, actions)
