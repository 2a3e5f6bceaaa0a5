"""The invoker's pool: the life of a container, and what it answers to what comes too late."""

from __future__ import annotations

from typing import Any

import pytest
from harness import describe

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import limits
from acs_core.containers import ContainerPool, PoolConfig

SPEC = ev.QueueSpec("q", "n", "a", 0, memory_mb=100, timeout_us=1_000)
TWO = ev.QueueSpec("t", "n", "t", 0, memory_mb=100, timeout_us=1_000, concurrency=2)
WIDE = ev.QueueSpec("w", "n", "b", 0, memory_mb=100, timeout_us=1_000, concurrency=3)
OF_UNKNOWN: list[tuple[ev.Event, list[str]]] = [
    (ev.RunEnded("x", "a", 1, 0), []),
    (fx.Deliver("x", "i1", 1, ev.Activation("a", b"", 0)), ["return from x a"]),
    (fx.Release("x", "i1", 1, "why"), []),
    (fx.Adopt("x", 1), ["adopted x epoch 1"]),
    (ev.SandboxReady("x"), []),
    (ev.SandboxFailed("x", 0, "why"), []),
    (ev.SandboxBroke("x", "why"), []),
    (ev.SandboxRemoved("x"), []),
    (ev.Initialised("x", 1), []),
    (fx.Resume("x", "i1", 1), []),
    (ev.SandboxPaused("x"), []),
    (ev.SandboxResumed("x"), []),
    (ev.DrainRequested(), []),
    (ev.IdleHeld(True), []),
    (ev.TimeReached(), []),
]


class Pool:
    """A pool with its clock; ``do`` returns what it asks for, in words."""

    def __init__(
        self, memory_mb: int = 200, keep_alive_us: int = 500, pause_grace_us: int = 0
    ) -> None:
        self.pool = ContainerPool(PoolConfig("i1", memory_mb, keep_alive_us, pause_grace_us))
        self.now_us = 0

    def do(self, *events: ev.Event) -> list[str]:
        words = []
        for event in events:
            words += [describe(effect) for effect in self.pool.step(event, self.now_us)]
            self.pool.check()
        return words

    def deliver(self, container: str, name: str, epoch: int = 1) -> list[str]:
        return self.do(fx.Deliver(container, "i1", epoch, ev.Activation(name, b"", self.now_us)))

    def end(self, container: str, name: str, outcome: int = 0) -> list[str]:
        return self.do(ev.RunEnded(container, name, 10, outcome))


def fresh(spec: ev.QueueSpec = SPEC, **config: int) -> Pool:
    """Return a pool with container c1 up and not initialised."""
    pool = Pool(**config)
    pool.do(fx.Create("c1", "i1", 1, spec), ev.SandboxReady("c1"))
    return pool


def ready(spec: ev.QueueSpec = SPEC, **config: int) -> Pool:
    """Return a pool with container c1, in which a1 runs after its initialisation."""
    pool = fresh(spec, **config)
    pool.deliver("c1", "a1")
    pool.do(ev.Initialised("c1", 7))
    return pool


def test_a_container_is_started_initialised_and_used_again() -> None:
    pool = Pool()
    assert pool.do(fx.Create("c1", "i1", 1, SPEC)) == ["start c1"]
    assert pool.do(ev.SandboxReady("c1")) == ["serving c1", "pull c1 epoch 1 free 1"]
    assert pool.deliver("c1", "a1") == ["init c1 for a1"]
    assert pool.do(ev.Initialised("c1", 7)) == ["run a1 in c1"]
    assert pool.end("c1", "a1") == ["pull c1 epoch 1 free 1 ended a1 SUCCESS"]
    assert pool.deliver("c1", "a2") == ["run a2 in c1"]
    counts = pool.pool.counts()
    assert {name: count for name, count in counts.items() if count} == {"ready": 1, "created": 1}


def test_the_time_of_init_goes_to_the_run_that_it_was_for() -> None:
    pool = ready()
    (pulled,) = pool.pool.step(ev.RunEnded("c1", "a1", 10, 0), 0)
    assert isinstance(pulled, ev.Pulled)
    assert [(c.init_us, c.run_us) for c in pulled.completions] == [(7, 10)]
    pool.deliver("c1", "a2")
    (pulled,) = pool.pool.step(ev.RunEnded("c1", "a2", 10, 1), 0)
    assert isinstance(pulled, ev.Pulled)
    assert [(c.init_us, c.outcome) for c in pulled.completions] == [(0, 1)]


def test_slots_open_when_initialised_and_starts_are_reported() -> None:
    pool = fresh(WIDE)
    pool.deliver("c1", "a1")
    assert pool.deliver("c1", "a2") == ["return from c1 a2"]
    assert pool.do(ev.Initialised("c1", 0)) == [
        "run a1 in c1",
        "pull c1 epoch 1 free 2 started a1",
    ]
    assert pool.deliver("c1", "a2") == ["run a2 in c1"]
    assert pool.deliver("c1", "a3") == ["run a3 in c1"]
    assert pool.deliver("c1", "a4") == ["return from c1 a4"]
    assert pool.end("c1", "a2") == ["pull c1 epoch 1 free 1 started a3 ended a2 SUCCESS"]


@pytest.mark.parametrize("outcome", [2, 3])
def test_a_container_that_ended_a_run_badly_is_removed(outcome: int) -> None:
    pool = ready()
    assert pool.end("c1", "a1", outcome) == [
        f"pull c1 epoch 1 free 0 ended a1 {ev.Outcome(outcome).name}",
        "leaving c1: its last run ended badly",
        "remove c1: its last run ended badly",
    ]
    assert pool.deliver("c1", "a2") == ["return from c1 a2"]
    assert pool.pool.used_mb() == 100
    assert pool.do(ev.SandboxRemoved("c1")) == ["gone c1: its last run ended badly"]
    assert pool.pool.used_mb() == 0
    assert pool.deliver("c1", "a3") == ["return from c1 a3"]


def test_a_failed_init_ends_the_activation_and_the_container() -> None:
    pool = fresh()
    pool.deliver("c1", "a1")
    pulled = pool.pool.step(ev.RunEnded("c1", "a1", 10, 2), 0)[0]
    assert describe(pulled) == "pull c1 epoch 1 free 0 ended a1 DEVELOPER_ERROR"
    assert isinstance(pulled, ev.Pulled)
    assert pulled.completions[0].init_us == 0
    assert pool.do(ev.Initialised("c1", 7)) == []


def test_memory_bounds_creations_until_the_engine_confirmed_a_removal() -> None:
    pool = fresh(memory_mb=150)
    refusal = "failed c2 RECOVERABLE: 100 MB do not fit: 100 of 150 MB are in use at invoker i1"
    assert pool.do(fx.Create("c2", "i1", 1, SPEC)) == [refusal]
    pool.do(fx.Release("c1", "i1", 1, "room"))
    assert pool.do(fx.Create("c2", "i1", 1, SPEC)) == [refusal]
    pool.do(ev.SandboxRemoved("c1"))
    assert pool.do(fx.Create("c2", "i1", 1, SPEC)) == ["start c2"]


def test_the_keep_alive_counts_from_the_last_run() -> None:
    pool = ready()
    pool.now_us = 400
    pool.end("c1", "a1")
    assert pool.pool.next_deadline_us() == 900
    pool.now_us = 899
    assert pool.do(ev.TimeReached()) == []
    pool.now_us = 900
    assert pool.do(ev.TimeReached()) == [
        "leaving c1: it was idle for its keep-alive",
        "remove c1: it was idle for its keep-alive",
    ]


def test_a_run_is_given_up_once_and_init_has_a_limit_of_its_own() -> None:
    pool = fresh()
    pool.deliver("c1", "a1")
    pool.now_us = 900
    pool.do(ev.Initialised("c1", 900))
    pool.now_us = 1_000
    assert pool.do(ev.TimeReached()) == []
    assert pool.pool.next_deadline_us() == 1_900
    pool.now_us = 1_900
    assert pool.do(ev.TimeReached(), ev.TimeReached()) == ["abort a1 after 1 ms"]
    assert pool.pool.next_deadline_us() is None
    assert pool.end("c1", "a1", 2)[1:] == [
        "leaving c1: its last run ended badly",
        "remove c1: its last run ended badly",
    ]


def test_a_run_with_the_longest_limit_is_not_taken_for_one_that_was_given_up() -> None:
    pool = fresh(ev.QueueSpec("q", "n", "a", 0, memory_mb=100, timeout_us=limits.TIME_MAX_US))
    assert pool.deliver("c1", "a1") == ["init c1 for a1"]
    assert pool.do(ev.Initialised("c1", 7)) == ["run a1 in c1"]
    assert pool.do(ev.DrainRequested(5)) == ["leaving c1: the invoker is draining"]
    pool.now_us = 5
    assert pool.do(ev.TimeReached()) == ["abort a1 for the drain"]


def test_nothing_runs_after_its_init_was_given_up() -> None:
    pool = fresh()
    pool.deliver("c1", "a1")
    pool.now_us = 1_000
    assert pool.do(ev.TimeReached()) == ["abort a1 after 1 ms"]
    assert pool.do(ev.Initialised("c1", 1_000)) == []


def test_a_released_container_ends_its_run_first() -> None:
    pool = ready()
    assert pool.do(fx.Release("c1", "i1", 1, "room"), fx.Release("c1", "i1", 1, "again")) == []
    assert pool.do(ev.Initialised("c1", 7)) == []  # said before
    assert pool.deliver("c1", "a2") == ["return from c1 a2"]
    assert pool.end("c1", "a1") == [
        "pull c1 epoch 1 free 0 ended a1 SUCCESS",
        "remove c1: room",
    ]


def test_a_container_released_while_it_initialises_still_runs() -> None:
    pool = fresh()
    pool.deliver("c1", "a1")
    pool.do(fx.Release("c1", "i1", 1, "room"))
    assert pool.do(ev.Initialised("c1", 7)) == ["run a1 in c1"]


def test_a_container_released_while_it_starts_goes_when_it_is_up() -> None:
    pool = Pool()
    pool.do(fx.Create("c1", "i1", 1, SPEC))
    assert pool.do(fx.Release("c1", "i1", 1, "room")) == []
    assert pool.do(ev.SandboxReady("c1")) == ["remove c1: room"]
    assert pool.do(ev.SandboxReady("c1")) == []


@pytest.mark.parametrize("failure", list(ev.FailureClass))
def test_a_failed_start_is_reported_with_its_class(failure: ev.FailureClass) -> None:
    pool = Pool()
    pool.do(fx.Create("c1", "i1", 1, SPEC))
    expected = [f"failed c1 {failure.name}: no image"]
    assert pool.do(ev.SandboxFailed("c1", failure, "no image")) == expected
    assert pool.pool.used_mb() == 0


def test_a_start_fails_also_after_its_release() -> None:
    pool = Pool()
    pool.do(fx.Create("c1", "i1", 1, SPEC), fx.Release("c1", "i1", 1, "room"))
    assert pool.do(ev.SandboxFailed("c1", 0, "no")) == ["failed c1 RECOVERABLE: no"]


def test_a_failure_of_what_is_up_is_no_failed_creation() -> None:
    pool = ready()
    assert pool.do(ev.SandboxFailed("c1", 0, "no")) == []
    assert pool.do(fx.Release("c1", "i1", 1, "room"), ev.SandboxFailed("c1", 0, "no")) == []
    assert pool.pool.used_mb() == 100


def test_a_sandbox_that_breaks_is_removed_and_its_runs_are_not_waited_for() -> None:
    pool = ready()
    assert pool.do(ev.SandboxBroke("c1", "it exited")) == [
        "leaving c1: it exited",
        "remove c1: it exited",
    ]
    assert pool.do(ev.SandboxBroke("c1", "again")) == []
    assert pool.end("c1", "a1") == []


def test_a_sandbox_that_breaks_before_it_is_up_goes_when_it_is() -> None:
    pool = Pool()
    pool.do(fx.Create("c1", "i1", 1, SPEC))
    assert pool.do(ev.SandboxBroke("c1", "it exited")) == ["leaving c1: it exited"]
    assert pool.do(ev.SandboxBroke("c1", "it exited")) == []
    assert pool.do(ev.SandboxReady("c1")) == ["remove c1: it exited"]


def test_a_sandbox_that_is_gone_unasked_leaves_nothing() -> None:
    pool = fresh()
    assert pool.do(ev.SandboxRemoved("c1")) == ["gone c1: its sandbox is gone"]
    assert pool.pool.next_deadline_us() is None


def test_a_draining_invoker_ends_what_it_has_and_takes_nothing() -> None:
    pool = ready()
    pool.do(fx.Create("c2", "i1", 1, SPEC))
    words = "the invoker is draining"
    assert pool.do(ev.DrainRequested()) == [f"leaving c1: {words}", f"leaving c2: {words}"]
    assert pool.do(ev.DrainRequested()) == []
    assert pool.do(ev.TimeReached()) == []  # what runs has its own limit still
    refused = pool.do(fx.Create("c3", "i1", 1, SPEC))
    assert refused == ["failed c3 RECOVERABLE: invoker i1 is draining"]
    assert pool.do(ev.SandboxReady("c2")) == [f"remove c2: {words}"]
    assert pool.end("c1", "a1")[-1] == f"remove c1: {words}"


def test_a_drain_gives_up_what_runs_after_its_limit() -> None:
    pool = ready(WIDE)
    pool.now_us = 100
    pool.deliver("c1", "a2")
    pool.do(ev.DrainRequested(500))
    assert pool.pool.next_deadline_us() == 600
    pool.now_us = 599
    assert pool.do(ev.TimeReached(), ev.DrainRequested(900)) == []  # the first limit holds
    pool.now_us = 600
    assert pool.do(ev.TimeReached()) == ["abort a1 for the drain", "abort a2 for the drain"]
    assert pool.do(ev.TimeReached()) == []
    pool.end("c1", "a1", 3)
    assert pool.end("c1", "a2", 3)[-1] == "remove c1: the invoker is draining"


def test_a_drain_lengthens_no_limit_and_holds_for_a_run_after_its_init() -> None:
    pool = fresh()
    pool.deliver("c1", "a1")
    pool.do(ev.DrainRequested(1_500))
    assert pool.pool.next_deadline_us() == 1_000
    pool.now_us = 900
    assert pool.do(ev.Initialised("c1", 900)) == ["run a1 in c1"]
    pool.now_us = 1_500
    assert pool.do(ev.TimeReached()) == ["abort a1 for the drain"]


@pytest.mark.parametrize("limit_us", [-1, 2**62])
def test_the_limit_of_a_drain_is_checked(limit_us: int) -> None:
    pool = fresh()
    words = rf"limit_us is {limit_us}; it must be in 0\.\.{2**62 - 1}"
    with pytest.raises(ValueError, match=words):
        pool.do(ev.DrainRequested(limit_us))
    assert pool.do(fx.Create("c2", "i1", 1, SPEC)) == ["start c2"]  # nothing changed


@pytest.mark.parametrize(("limit_us", "due_us"), [(1, 1), (2**62 - 1, 1_000)])
def test_the_limit_of_a_drain_is_any_time(limit_us: int, due_us: int) -> None:
    pool = ready()
    pool.do(ev.DrainRequested(limit_us))
    assert pool.pool.next_deadline_us() == due_us


# --- several runs in one container -----------------------------------------------------------


def test_what_idles_is_kept_while_nothing_could_replace_it() -> None:
    pool = ready()
    pool.end("c1", "a1")
    pool.now_us = 1_000
    assert pool.do(ev.IdleHeld(True), ev.TimeReached()) == []
    assert pool.pool.next_deadline_us() is None
    assert pool.do(ev.IdleHeld(False)) == []
    assert pool.pool.next_deadline_us() == 500
    assert pool.do(ev.TimeReached())[1] == "remove c1: it was idle for its keep-alive"


def test_runs_end_in_any_order_and_each_frees_its_slot() -> None:
    pool = ready(WIDE)
    pool.deliver("c1", "a2")
    pool.deliver("c1", "a3")
    assert pool.end("c1", "a3") == ["pull c1 epoch 1 free 1 started a2 ended a3 SUCCESS"]
    assert pool.deliver("c1", "a4") == ["run a4 in c1"]
    assert pool.end("c1", "a1") == ["pull c1 epoch 1 free 1 started a4 ended a1 SUCCESS"]
    assert pool.pool.counts()["idle"] == 0
    pool.end("c1", "a4", 1)
    assert pool.pool.next_deadline_us() == 1_000  # a2 runs on: no keep-alive
    pool.end("c1", "a2")
    assert pool.pool.counts()["idle"] == 1


def test_a_run_is_given_up_while_others_go_on_to_their_ends() -> None:
    pool = ready(WIDE)
    pool.now_us = 400
    pool.deliver("c1", "a2")
    pool.deliver("c1", "a3")
    pool.now_us = 1_000
    assert pool.do(ev.TimeReached()) == ["abort a1 after 1 ms"]
    assert pool.pool.next_deadline_us() == 1_400
    words = "its last run ended badly"
    # The container is poisoned, its other runs are not.
    assert pool.end("c1", "a1", 2) == [
        "pull c1 epoch 1 free 0 started a2, a3 ended a1 DEVELOPER_ERROR",
        f"leaving c1: {words}",
    ]
    assert pool.deliver("c1", "a4") == ["return from c1 a4"]
    assert pool.end("c1", "a2") == ["pull c1 epoch 1 free 0 ended a2 SUCCESS"]
    pool.now_us = 1_400
    assert pool.do(ev.TimeReached()) == ["abort a3 after 1 ms"]
    assert pool.end("c1", "a3", 2)[-1] == f"remove c1: {words}"


def test_what_answers_after_it_was_given_up_is_not_heard() -> None:
    pool = ready(WIDE)
    pool.deliver("c1", "a2")
    pool.do(ev.SandboxBroke("c1", "it exited"))
    assert pool.end("c1", "a2") == []
    for late in (ev.SandboxReady("c1"), ev.SandboxPaused("c1"), ev.SandboxResumed("c1")):
        assert pool.do(late) == []
    assert pool.do(ev.SandboxRemoved("c1")) == ["gone c1: it exited"]
    assert pool.end("c1", "a1") == []


# --- pausing ---------------------------------------------------------------------------------


def asleep(spec: ev.QueueSpec = SPEC, *, paused: bool = True) -> Pool:
    """Return a pool whose container c1 idled since 0, and was paused at 100."""
    pool = ready(spec, pause_grace_us=100)
    pool.end("c1", "a1")
    assert pool.pool.next_deadline_us() == 100
    pool.now_us = 100
    assert pool.do(ev.TimeReached()) == ["paused c1", "pause c1"]
    if paused:
        assert pool.do(ev.SandboxPaused("c1"), ev.SandboxPaused("c1")) == []
    return pool


def test_an_idle_container_is_paused_after_the_grace_and_not_before() -> None:
    pool = ready(pause_grace_us=100)
    pool.now_us = 50
    pool.end("c1", "a1")
    pool.now_us = 149
    assert pool.do(ev.TimeReached()) == []
    pool.deliver("c1", "a2")  # it works again: the grace begins anew with its end
    assert pool.do(ev.TimeReached()) == []
    pool.end("c1", "a2")
    assert pool.pool.next_deadline_us() == 249


def test_a_container_that_was_never_initialised_is_not_paused() -> None:
    pool = fresh(pause_grace_us=100)
    assert pool.pool.next_deadline_us() == 500


def test_the_shortest_grace_is_one() -> None:
    pool = ready(pause_grace_us=1)
    pool.end("c1", "a1")
    assert pool.pool.next_deadline_us() == 1


def test_a_sandbox_that_vanishes_while_it_idles_is_not_paused() -> None:
    pool = ready(pause_grace_us=100)
    pool.end("c1", "a1")
    assert pool.do(ev.SandboxRemoved("c1")) == ["gone c1: its sandbox is gone"]
    pool.now_us = 100
    assert pool.do(ev.TimeReached()) == []


def test_a_container_that_is_being_paused_wakes_when_it_is_asked_to() -> None:
    pool = asleep(paused=False)
    assert pool.do(fx.Resume("c1", "i1", 1)) == []
    assert pool.do(ev.SandboxPaused("c1")) == ["resume c1"]


def test_nothing_is_paused_without_a_grace() -> None:
    pool = ready()
    pool.end("c1", "a1")
    assert pool.pool.next_deadline_us() == 500


def test_a_paused_container_wakes_when_it_is_asked_to() -> None:
    pool = asleep()
    assert pool.pool.counts()["paused"] == 1
    wake = fx.Resume("c1", "i1", 1)
    assert pool.do(wake, wake) == ["resume c1"]
    pool.now_us = 600
    assert pool.do(ev.TimeReached()) == []  # wanted: no keep-alive meanwhile
    assert pool.do(ev.SandboxResumed("c1")) == ["pull c1 epoch 1 free 1"]
    assert pool.do(ev.SandboxResumed("c1")) == []
    assert pool.pool.next_deadline_us() == 700
    assert pool.deliver("c1", "a2") == ["run a2 in c1"]


def test_who_asks_an_awake_container_to_wake_hears_of_its_slots() -> None:
    pool = ready(WIDE)
    assert pool.do(fx.Resume("c1", "i1", 1)) == ["pull c1 epoch 1 free 2"]
    pool.deliver("c1", "a2")
    pool.deliver("c1", "a3")
    assert pool.do(fx.Resume("c1", "i1", 1)) == []
    assert fresh().do(fx.Resume("c1", "i1", 1)) == []


def test_an_earlier_leader_wakes_nobody() -> None:
    pool = asleep()
    pool.do(fx.Adopt("q", 3))
    assert pool.do(fx.Resume("c1", "i1", 2)) == []
    assert pool.deliver("c1", "a2", epoch=2) == ["return from c1 a2"]
    assert pool.do(fx.Resume("c1", "i1", 3)) == ["resume c1"]


def test_what_is_delivered_to_a_paused_container_wakes_it_and_runs_then() -> None:
    pool = asleep(WIDE)
    assert pool.deliver("c1", "a2") == ["resume c1"]
    assert pool.deliver("c1", "a3") == []
    assert pool.deliver("c1", "a2") == []  # a repeated message
    assert pool.do(ev.SandboxResumed("c1")) == [
        "run a2 in c1",
        "run a3 in c1",
        "pull c1 epoch 1 free 1 started a2, a3",
    ]
    pool.now_us = 1_000
    assert pool.do(ev.TimeReached()) == []
    assert pool.pool.next_deadline_us() == 1_100  # their limits begin when they do


def test_a_delivery_meets_a_container_that_is_being_paused() -> None:
    pool = asleep(paused=False)
    assert pool.deliver("c1", "a2") == []
    assert pool.deliver("c1", "a3") == ["return from c1 a3"]  # more than it has slots
    assert pool.do(fx.Resume("c1", "i1", 1)) == []
    assert pool.do(ev.SandboxPaused("c1")) == ["resume c1"]
    assert pool.do(ev.SandboxResumed("c1")) == ["run a2 in c1"]
    assert pool.end("c1", "a2") == ["pull c1 epoch 1 free 1 ended a2 SUCCESS"]


def test_a_container_that_cannot_be_resumed_gives_its_work_back() -> None:
    pool = asleep(WIDE)
    pool.deliver("c1", "a2")
    pool.deliver("c1", "a3")
    assert pool.do(ev.SandboxBroke("c1", "no answer")) == [
        "leaving c1: no answer",
        "return from c1 a2, a3",
        "remove c1: no answer",
    ]
    assert pool.do(ev.SandboxResumed("c1")) == []


def test_a_container_that_cannot_be_paused_is_given_up() -> None:
    pool = asleep(paused=False)
    words = ["leaving c1: no answer", "remove c1: no answer"]
    assert pool.do(ev.SandboxBroke("c1", "no answer")) == words
    assert pool.do(ev.SandboxPaused("c1")) == []


def test_a_sandbox_that_vanishes_while_it_is_resumed_loses_no_work() -> None:
    pool = asleep()
    pool.deliver("c1", "a2")
    words = ["return from c1 a2", "gone c1: its sandbox is gone"]
    assert pool.do(ev.SandboxRemoved("c1")) == words


@pytest.mark.parametrize("paused", [False, True])
def test_a_paused_container_goes_like_any_other(paused: bool) -> None:
    pool = asleep(paused=paused)
    assert pool.do(fx.Release("c1", "i1", 1, "room")) == ["remove c1: room"]
    pool = asleep(paused=paused)
    assert pool.pool.next_deadline_us() == 500
    pool.now_us = 500
    assert pool.do(ev.TimeReached())[1] == "remove c1: it was idle for its keep-alive"
    pool = asleep(paused=paused)
    pool.deliver("c1", "a2")
    words = "the invoker is draining"
    drained = [f"leaving c1: {words}", "return from c1 a2", f"remove c1: {words}"]
    assert pool.do(ev.DrainRequested()) == drained


def test_a_new_leader_learns_who_sleeps_and_what_waits_there() -> None:
    pool = asleep()
    assert pool.do(fx.Adopt("q", 2)) == ["adopted q epoch 2 holds c1", "paused c1"]
    pool.deliver("c1", "a2", epoch=2)
    assert pool.do(fx.Adopt("q", 3)) == ["adopted q epoch 3 holds c1 with a2", "paused c1"]
    assert pool.do(ev.SandboxResumed("c1")) == ["run a2 in c1"]


def test_the_keep_alive_comes_before_a_longer_grace() -> None:
    pool = ready(pause_grace_us=900)
    pool.end("c1", "a1")
    pool.now_us = 900
    words = "it was idle for its keep-alive"
    assert pool.do(ev.TimeReached()) == [f"leaving c1: {words}", f"remove c1: {words}"]
    assert pool.do(ev.TimeReached()) == []


@pytest.mark.parametrize(
    ("field", "value", "low"),
    [
        ("memory_mb", -1, 0),
        ("keep_alive_us", -1, 0),
        ("pause_grace_us", -5, 0),
        ("prewarm_check_us", 0, 1),
        ("pause_grace_us", 2**62, 0),
    ],
)
def test_a_pool_is_configured_within_bounds(field: str, value: int, low: int) -> None:
    words = rf"{field} is {value}; it must be in {low}\.\.{2**62 - 1}"
    with pytest.raises(ValueError, match=words):
        PoolConfig(**{field: value})  # type: ignore[arg-type]
    PoolConfig(**{field: 2**62 - 1})  # type: ignore[arg-type]


def test_an_earlier_leader_is_not_obeyed() -> None:
    pool = fresh()
    assert pool.do(fx.Adopt("q", 5)) == ["adopted q epoch 5 holds c1", "pull c1 epoch 5 free 1"]
    assert pool.do(fx.Adopt("q", 4)) == []
    assert pool.deliver("c1", "a1", epoch=4) == ["return from c1 a1"]
    assert pool.do(fx.Release("c1", "i1", 4, "room")) == []
    refused = pool.do(fx.Create("c2", "i1", 4, SPEC))
    assert refused == ["failed c2 RECOVERABLE: epoch 4 of q is over"]
    assert pool.deliver("c1", "a1", epoch=5) == ["init c1 for a1"]


def test_a_new_leader_learns_what_there_is() -> None:
    pool = ready(WIDE)
    pool.do(fx.Create("c2", "i1", 1, WIDE))
    pool.deliver("c1", "a2")
    assert pool.do(fx.Adopt("w", 2), fx.Adopt("q", 3)) == [
        "adopted w epoch 2 holds c1 with a1, a2, c2 (starting)",
        "pull c1 epoch 2 free 1 started a2",
        "adopted q epoch 3",
    ]
    assert pool.end("c1", "a1") == ["pull c1 epoch 2 free 1 ended a1 SUCCESS"]


def test_a_new_leader_learns_who_is_on_the_way_out() -> None:
    pool = ready()
    pool.do(fx.Release("c1", "i1", 1, "room"))
    assert pool.do(fx.Adopt("q", 2)) == [
        "adopted q epoch 2 holds c1 with a1",
        "leaving c1: room",
    ]


def test_the_epochs_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EPOCHS_MAX", 2)
    pool = Pool()
    for queue in ("q", "b", "c"):
        pool.do(fx.Adopt(queue, 5))
    # The one adopted longest ago is forgotten, the others are not.
    assert pool.do(fx.Create("c1", "i1", 1, SPEC)) == ["start c1"]
    assert pool.do(fx.Adopt("b", 4)) == []


def test_repeated_messages_do_nothing() -> None:
    pool = ready()
    assert pool.do(fx.Create("c1", "i1", 1, SPEC)) == []
    assert pool.do(ev.SandboxReady("c1")) == []
    assert pool.deliver("c1", "a1") == []
    assert pool.do(ev.Initialised("c1", 7)) == []
    pool.end("c1", "a1")
    assert pool.end("c1", "a1") == []


@pytest.mark.parametrize(("event", "expected"), OF_UNKNOWN, ids=lambda it: type(it).__name__)
def test_what_is_said_of_unknown_containers_does_nothing(
    event: ev.Event, expected: list[str]
) -> None:
    assert Pool().do(event) == expected


def test_nothing_in_place_of_something_is_refused() -> None:
    pool = ready()
    for event in (fx.Deliver("c1", "i1", 1, None), fx.Create("c2", "i1", 1, None)):  # type: ignore[arg-type]
        with pytest.raises(AttributeError):
            pool.do(event)
    assert pool.pool.used_mb() == 100


def test_time_does_not_go_back() -> None:
    pool = Pool()
    pool.now_us = 5
    pool.do(ev.TimeReached())
    with pytest.raises(ValueError, match="now_us is 4; time was 5 already"):
        pool.pool.step(fx.Create("c1", "i1", 1, SPEC), 4)
    assert pool.pool.used_mb() == 0


@pytest.mark.parametrize("event", [ev.Denied("q", 1, "why"), "text", None])
def test_what_is_no_event_of_a_pool_is_refused(event: Any) -> None:
    with pytest.raises(TypeError, match="is no event of a pool"):
        Pool().pool.step(event, 0)


def test_the_first_epoch_of_all_is_obeyed() -> None:
    assert Pool().do(fx.Create("c1", "i1", 0, SPEC)) == ["start c1"]
    assert Pool().do(fx.Adopt("q", 0)) == ["adopted q epoch 0"]


def test_the_epoch_that_was_told_last_is_kept_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EPOCHS_MAX", 2)
    pool = Pool()
    for queue, epoch in (("q", 5), ("r", 5), ("q", 6), ("s", 5)):
        pool.do(fx.Adopt(queue, epoch))
    assert pool.do(fx.Adopt("q", 5)) == []
    assert pool.do(fx.Adopt("r", 4)) == ["adopted r epoch 4"]


def test_the_last_time_of_all_is_taken() -> None:
    assert Pool().pool.step(ev.TimeReached(), 2**62 - 1) == []


def test_of_two_slots_the_second_opens_when_initialised() -> None:
    pool = fresh(TWO)
    pool.deliver("c1", "a1")
    started = "pull c1 epoch 1 free 1 started a1"
    assert pool.do(ev.Initialised("c1", 7)) == ["run a1 in c1", started]
    pool.deliver("c1", "a2")
    assert pool.end("c1", "a1") == ["pull c1 epoch 1 free 1 started a2 ended a1 SUCCESS"]


def test_the_time_of_init_waits_for_the_run_that_it_was_for() -> None:
    pool = ready(TWO)
    pool.deliver("c1", "a2")
    for name, init_us in (("a2", 0), ("a1", 7)):
        (pulled,) = pool.pool.step(ev.RunEnded("c1", name, 10, 0), 0)
        assert isinstance(pulled, ev.Pulled)
        assert [c.init_us for c in pulled.completions] == [init_us]
