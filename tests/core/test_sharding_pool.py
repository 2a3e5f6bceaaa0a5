"""The baseline's pool: what the original's tests say of it, and each way a container ends."""

from __future__ import annotations

import pytest

from acs_core import events as ev
from acs_core.effects import (
    Abort,
    AssignSandbox,
    Cause,
    Initialise,
    PauseSandbox,
    PrewarmSandbox,
    Reject,
    Remove,
    ResumeSandbox,
    Run,
    StartSandbox,
)
from acs_core.prewarm import Prewarm
from acs_core.sharding_container import PushContainer, least_recently_used
from acs_core.sharding_feed import Acknowledged, FedPool, Feed
from acs_core.sharding_pool import Processed, Push, PushPool, PushPoolConfig

SECOND = 1_000_000


def spec_of(queue: str, memory_mb: int = 256, concurrency: int = 1, kind: str = "") -> ev.QueueSpec:
    return ev.QueueSpec(
        queue, "n", queue, 0, memory_mb=memory_mb, concurrency=concurrency, kind=kind
    )


def push(name: str, spec: ev.QueueSpec) -> Push:
    return Push(spec, ev.Activation(name, b"", 0))


def short(effect: object) -> str:
    if isinstance(effect, Processed):
        return "processed"
    if isinstance(effect, Reject):
        return f"reject {effect.activation.activation_id}"
    words = {
        StartSandbox: "start",
        Initialise: "init",
        Run: "run",
        Remove: "remove",
        PauseSandbox: "pause",
        ResumeSandbox: "resume",
        PrewarmSandbox: "prewarm",
        AssignSandbox: "assign",
        Abort: "abort",
    }
    name = str(getattr(effect, "container", "")).rpartition("-")[2]
    activation = getattr(effect, "activation", None)
    suffix = f" {activation.activation_id}" if activation is not None else ""
    return f"{words[type(effect)]} {name}{suffix}"


class World:
    """A pool whose effects are named shortly, with a clock that stands until it is moved."""

    def __init__(self, memory_mb: int, **config: object) -> None:
        self.pool = PushPool(PushPoolConfig("i", memory_mb, **config))  # type: ignore[arg-type]
        self.now_us = 0

    def step(self, event: ev.Event) -> list[str]:
        effects = self.pool.step(event, self.now_us)
        self.pool.check()
        return [short(effect) for effect in effects]

    def push(self, name: str, spec: ev.QueueSpec) -> list[str]:
        return self.step(push(name, spec))

    def warm_up(self, number: int) -> list[str]:
        """Let a container's sandbox start and be initialised."""
        ready = self.step(ev.SandboxReady(f"i-push-{number}"))
        return ready + self.step(ev.Initialised(f"i-push-{number}", 5))

    def end(self, number: int, name: str, outcome: int = 0) -> list[str]:
        return self.step(ev.RunEnded(f"i-push-{number}", name, 10, outcome))

    def idle(self, number: int, name: str, spec: ev.QueueSpec) -> None:
        """Have a warm container that runs nothing."""
        self.push(name, spec)
        self.warm_up(number)
        self.end(number, name)

    def wait(self, seconds: int) -> list[str]:
        self.now_us += seconds * SECOND
        return self.step(ev.TimeReached())


A, B, C = spec_of("a"), spec_of("b"), spec_of("c", 512)


def test_a_run_from_cold_and_one_from_warm() -> None:
    world = World(256)
    assert world.push("x", A) == ["start 1"]
    assert world.warm_up(1) == ["init 1 x", "run 1 x"]
    assert world.end(1, "x") == ["processed"]
    assert world.push("y", A) == ["run 1 y"]
    assert world.pool.counts()["cold_starts"] == world.pool.counts()["warm_starts"] == 1


def test_an_idle_container_is_evicted_for_another_action() -> None:
    world = World(256)
    world.idle(1, "x", A)
    assert world.push("y", B) == ["remove 1", "start 2", "processed"]
    assert world.step(ev.SandboxRemoved("i-push-1")) == []
    assert world.pool.counts()["recreated_starts"] == 1


def test_two_are_evicted_for_one_that_is_larger() -> None:
    world = World(512)
    world.idle(1, "x", A)
    world.idle(2, "y", B)
    assert world.push("z", C)[:3] == ["remove 1", "remove 2", "start 3"]


def test_a_large_action_may_overbook() -> None:
    world = World(512)
    world.push("x", A)
    world.idle(2, "y", B)
    # The quirk: all free containers hold 256, and no more is asked for.
    assert world.push("z", C)[:2] == ["remove 2", "start 3"]
    assert world.pool.used_mb() == 768


def test_what_has_no_room_waits_and_blocks_what_has() -> None:
    world = World(512)
    world.push("x", A)
    assert world.push("large", C) == []
    assert world.push("small", B) == []  # it would fit
    assert world.pool.counts()["waiting"] == 2
    world.warm_up(1)
    assert world.end(1, "x") == ["remove 1", "start 2"]
    world.warm_up(2)
    assert world.end(2, "large") == ["remove 2", "start 3", "processed", "processed"]


def test_each_completion_takes_the_next_one_of_the_line() -> None:
    world = World(256)
    assert [world.push(name, A) for name in "xyz"] == [["start 1"], [], []]
    world.warm_up(1)
    assert world.end(1, "x") == ["run 1 y"]
    assert world.end(1, "y") == ["processed", "run 1 z"]
    assert world.end(1, "z") == ["processed"]


def test_runs_that_share_a_container() -> None:
    several = spec_of("s", concurrency=3)
    world = World(512)
    for name in "xyz":
        world.push(name, several)
    assert world.push("four", several) == ["start 2"]
    assert world.step(ev.SandboxReady("i-push-1")) == ["init 1 x"]
    assert world.step(ev.Initialised("i-push-1", 5)) == ["run 1 x", "run 1 y", "run 1 z"]
    assert world.end(1, "y") == ["processed"]
    assert world.push("five", several) == ["run 1 five"]
    assert world.push("six", several) == []  # the other one is on its way
    assert world.push("seven", several) == []
    assert world.push("eight", A) == []
    assert world.pool.counts()["waiting"] == 1


def test_the_least_recently_used_go() -> None:
    def pool_of(*used: int | None) -> dict[str, PushContainer]:
        pool = {}
        for place, at_us in enumerate(used):
            container = PushContainer(str(place), A, 0)
            if at_us is None:
                container.assigned = 1
            else:
                container.last_used_us = at_us
            pool[str(place)] = container
        return pool

    def victims(pool: dict[str, PushContainer], memory_mb: int) -> list[str]:
        return [each.container for each in least_recently_used(pool, memory_mb)]

    assert victims({}, 256) == []
    assert victims(pool_of(1), 512) == []
    assert victims(pool_of(1), 256) == ["0"]
    assert victims(pool_of(1, 2, 0), 256) == ["2"]
    assert victims(pool_of(1, 2, 3, 0), 512) == ["3", "0"]
    assert victims(pool_of(1, 2, 3), 257) == ["0", "1"]
    assert victims(pool_of(None, 1, 2), 256) == ["1"]
    assert victims(pool_of(1), 0) == []
    warming = pool_of(0)
    warming["0"].warming = 2
    assert victims(warming, 256) == []


def test_pause_wake_and_keep_alive() -> None:
    world = World(256)
    world.idle(1, "x", A)
    assert world.wait(9) == []
    assert world.pool.next_deadline_us() == 10 * SECOND
    assert world.wait(1) == ["pause 1"]
    assert world.step(ev.SandboxPaused("i-push-1")) == []
    assert world.push("y", A) == ["resume 1"]
    assert world.step(ev.SandboxResumed("i-push-1")) == ["run 1 y"]
    assert world.step(ev.SandboxResumed("i-push-1")) == []
    assert world.end(1, "y") == ["processed"]
    world.wait(10)
    world.step(ev.SandboxPaused("i-push-1"))
    assert world.wait(599) == []
    assert world.wait(1) == ["remove 1"]
    assert world.step(ev.SandboxRemoved("i-push-1")) == []
    assert world.pool.next_deadline_us() is None


def test_a_run_has_a_deadline() -> None:
    world = World(256)
    world.push("x", A)
    assert world.pool.next_deadline_us() is None
    world.step(ev.SandboxReady("i-push-1"))
    assert world.pool.next_deadline_us() == 60 * SECOND


def test_what_was_given_back_waits_its_turn() -> None:
    world = World(256)
    world.idle(1, "x", A)
    world.wait(10)
    world.step(ev.SandboxPaused("i-push-1"))
    world.push("y", A)
    world.push("z", B)
    world.push("w", B)
    # Its container is gone, so the head of the line goes first.
    assert world.step(ev.SandboxBroke("i-push-1", "lost")) == ["remove 1", "start 2"]
    assert world.pool.counts()["waiting"] == 2


def test_a_run_that_comes_while_its_container_is_being_paused() -> None:
    world = World(256)
    world.idle(1, "x", A)
    world.wait(10)
    assert world.push("y", A) == []
    assert world.step(ev.SandboxPaused("i-push-1")) == ["resume 1"]
    assert world.step(ev.SandboxPaused("i-push-1")) == []
    assert world.step(ev.SandboxResumed("i-push-1")) == ["run 1 y"]


def test_a_sleeping_container_is_evicted_without_asking_the_feed() -> None:
    world = World(256)
    world.idle(1, "x", A)
    world.wait(10)
    world.step(ev.SandboxPaused("i-push-1"))
    assert world.push("y", B) == ["remove 1", "start 2"]


def test_a_run_whose_container_cannot_wake_goes_to_another() -> None:
    world = World(256)
    world.idle(1, "x", A)
    world.wait(10)
    world.step(ev.SandboxPaused("i-push-1"))
    world.push("y", A)
    assert world.step(ev.SandboxBroke("i-push-1", "lost")) == ["remove 1", "start 2"]


def test_a_run_that_ends_badly_ends_its_container() -> None:
    world = World(256)
    world.push("x", A)
    world.push("y", A)
    world.warm_up(1)
    assert world.end(1, "x", ev.Outcome.DEVELOPER_ERROR) == ["remove 1", "start 2", "processed"]


def test_others_in_a_container_of_a_bad_run_end_first() -> None:
    several = spec_of("s", concurrency=2)
    world = World(256)
    world.push("x", several)
    world.push("y", several)
    world.push("z", several)
    world.warm_up(1)
    # It is forgotten at once, so that the next one has room.
    assert world.end(1, "x", ev.Outcome.DEVELOPER_ERROR) == ["start 2", "processed"]
    assert world.end(1, "y") == ["remove 1"]


def test_an_init_that_fails_fails_what_waits_for_it() -> None:
    several = spec_of("s", concurrency=2)
    world = World(256)
    world.push("x", several)
    world.push("y", several)
    world.step(ev.SandboxReady("i-push-1"))
    assert world.end(1, "x", ev.Outcome.DEVELOPER_ERROR) == ["reject y", "processed", "remove 1"]


def test_a_sandbox_that_does_not_start() -> None:
    several = spec_of("s", concurrency=2)
    world = World(256)
    world.push("x", several)
    world.push("y", several)
    failed = ev.SandboxFailed("i-push-1", ev.FailureClass.FINAL, "no image")
    assert world.step(failed) == ["reject x", "reject y", "processed"]
    assert world.step(failed) == []
    unfit = World(256)
    unfit.push("x", several)
    told = unfit.pool.step(ev.SandboxFailed("i-push-1", ev.FailureClass.UNFIT, "no image"), 0)
    assert [each.cause for each in told if isinstance(each, Reject)] == [Cause.UNFIT]
    world.idle(2, "z", several)
    assert world.step(ev.SandboxFailed("i-push-2", 1, "late")) == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_sandbox_that_ends_by_itself(gone: bool) -> None:
    several = spec_of("s", concurrency=2)
    world = World(256)
    end = ev.SandboxRemoved("i-push-1") if gone else ev.SandboxBroke("i-push-1", "killed")
    removal = [] if gone else ["remove 1"]
    world.push("x", several)
    assert world.step(end) == []  # its start will fail
    world.push("y", several)
    world.step(ev.SandboxReady("i-push-1"))
    # While it was being initialised, what waited for it fails like it.
    assert world.step(end) == ["reject y", "processed", *removal]
    assert world.step(ev.RunEnded("i-push-1", "x", 1, 3)) == []
    assert world.step(ev.Initialised("i-push-1", 1)) == []


def test_a_sandbox_that_breaks_on_its_way_out() -> None:
    several = spec_of("s", concurrency=2)
    world = World(256)
    world.push("x", several)
    world.push("y", several)
    world.warm_up(1)
    world.end(1, "x", ev.Outcome.PLATFORM_ERROR)
    assert world.step(ev.SandboxBroke("i-push-1", "killed")) == ["remove 1"]
    assert world.step(ev.SandboxBroke("i-push-1", "killed")) == []
    assert world.step(ev.SandboxReady("i-push-1")) == []
    assert world.step(ev.SandboxRemoved("i-push-1")) == []


def test_init_and_run_have_the_time_limit_each() -> None:
    world = World(256)
    world.push("x", A)
    world.step(ev.SandboxReady("i-push-1"))
    assert world.wait(59) == []
    assert world.step(ev.Initialised("i-push-1", 59 * SECOND)) == ["run 1 x"]
    assert world.step(ev.Initialised("i-push-1", 59 * SECOND)) == []
    assert world.wait(59) == []
    assert world.wait(1) == ["abort 1"]
    assert world.wait(1) == []
    assert world.end(1, "x", ev.Outcome.DEVELOPER_ERROR) == ["processed", "remove 1"]


def test_an_init_that_was_given_up_is_not_run() -> None:
    world = World(256)
    world.push("x", A)
    world.step(ev.SandboxReady("i-push-1"))
    assert world.wait(60) == ["abort 1"]
    assert world.step(ev.Initialised("i-push-1", 60 * SECOND)) == []


def test_a_prewarmed_sandbox_is_taken_and_replaced() -> None:
    world = World(768, prewarm=(Prewarm("python", 256),))
    assert world.wait(0) == ["prewarm 1"]
    world.step(ev.SandboxReady("i-prewarm-1"))
    assert world.push("x", spec_of("other", kind="go")) == ["start 1"]
    taken = world.push("y", spec_of("a", kind="python"))
    assert taken == ["assign 2", "init 2 y", "prewarm 2"]
    assert world.step(ev.Initialised("i-push-2", 1)) == ["run 2 y"]
    assert world.pool.counts()["prewarmed_starts"] == 1


def test_only_as_many_are_prewarmed_as_fit() -> None:
    assert World(256, prewarm=(Prewarm("python", 256, 2),)).wait(0) == ["prewarm 1"]


def test_prewarmed_sandboxes_that_fail() -> None:
    world = World(256, prewarm=(Prewarm("python", 256),))
    world.wait(0)
    assert world.step(ev.SandboxFailed("i-prewarm-1", 0, "busy")) == ["processed"]
    world.now_us = world.pool.next_deadline_us() or 0
    assert world.wait(0) == ["prewarm 2"]
    world.step(ev.SandboxReady("i-prewarm-2"))
    assert world.step(ev.SandboxBroke("i-prewarm-2", "killed")) == ["remove 2"]
    assert world.step(ev.SandboxRemoved("i-prewarm-2")) == ["processed"]


def test_a_prewarmed_sandbox_on_its_way_out_holds_no_memory() -> None:
    world = World(256, prewarm=(Prewarm("python", 256),))
    world.wait(0)
    world.step(ev.SandboxReady("i-prewarm-1"))
    assert world.pool.used_mb() == 256
    world.step(ev.SandboxBroke("i-prewarm-1", "killed"))
    assert world.pool.used_mb() == 0
    assert world.push("x", A)[-1] == "start 1"


def test_what_nobody_knows() -> None:
    world = World(256)
    for event in (
        ev.SandboxReady("?"),
        ev.SandboxFailed("?", 0, ""),
        ev.SandboxBroke("?", ""),
        ev.SandboxRemoved("?"),
        ev.SandboxPaused("?"),
        ev.SandboxResumed("?"),
        ev.Initialised("?", 0),
        ev.RunEnded("?", "x", 0, 0),
    ):
        assert world.step(event) == []


def test_misuse() -> None:
    world = World(256)
    world.wait(1)
    with pytest.raises(TypeError, match="InvokerGone is no event of a push pool"):
        world.step(ev.InvokerGone("i"))
    world.now_us = 0
    with pytest.raises(ValueError, match="now_us is 0; time was 1000000 already"):
        world.wait(0)
    with pytest.raises(ValueError, match="keep_alive_us is 0"):
        PushPoolConfig(keep_alive_us=0)
    assert PushPool().config.memory_mb == 1_024


def test_a_feed_lets_through_what_the_pool_has_asked_for() -> None:
    feed = Feed(300)
    runs = [push(name, A) for name in "wxyz"]
    assert feed.capacity == 2
    assert [len(feed.offer(each)) for each in runs] == [1, 1, 0, 0]
    assert feed.processed() == [runs[2]]
    assert feed.processed() == [runs[3]]
    assert [feed.processed() for _ in range(3)] == [[], [], []]
    assert feed.capacity == 2
    assert Feed(1024, 100).capacity == 400


# --- draining ----------------------------------------------------------------------------------


def test_a_drained_pool_removes_what_idles_and_lets_runs_end() -> None:
    world = World(1024)
    world.idle(1, "x", A)
    world.push("y", B)
    world.warm_up(2)
    assert world.step(ev.DrainRequested()) == ["remove 1"]
    assert world.push("late", A) == ["reject late"]
    assert world.end(2, "y") == ["remove 2"]
    for number in (1, 2):
        world.step(ev.SandboxRemoved(f"i-push-{number}"))
    assert world.pool.counts()["removing"] == 0


def test_a_drained_pool_refuses_what_waits_for_a_container_and_what_is_held_in_one() -> None:
    two = spec_of("two", 256, concurrency=2)
    world = World(512)
    world.push("first", two)
    world.push("held", two)  # its container is being started
    world.push("running", A)
    world.warm_up(2)
    assert world.push("waits", B) == []
    assert world.step(ev.DrainRequested()) == ["reject waits", "reject held"]
    assert world.warm_up(1) == ["init 1 first", "run 1 first"], "it serves whom it was started for"
    assert world.end(1, "first") == ["remove 1"]
    assert world.end(2, "running") == ["remove 2"]
    assert world.step(ev.DrainRequested()) == []


def test_a_drained_pool_refuses_what_a_broken_container_gives_back() -> None:
    world = World(256, pause_grace_us=SECOND)
    world.idle(1, "x", A)
    assert world.wait(1) == ["pause 1"]
    world.step(ev.SandboxPaused("i-push-1"))
    assert world.push("held", A) == ["resume 1"]
    assert world.step(ev.DrainRequested()) == ["remove 1", "reject held"]


def test_a_drained_pool_lets_go_what_is_prewarmed() -> None:
    world = World(512, prewarm=(Prewarm("python:3", 256, 1),))
    assert world.step(ev.TimeReached()) == ["prewarm 1"]
    world.step(ev.SandboxReady("i-prewarm-1"))
    assert world.step(ev.DrainRequested()) == ["remove 1"]


# --- behind its feed -----------------------------------------------------------------------------


class FedWorld:
    """A fed pool whose effects are named shortly; its clock stands."""

    def __init__(self, memory_mb: int) -> None:
        self.pool = FedPool(PushPoolConfig("i", memory_mb))

    def step(self, event: ev.Event) -> list[str]:
        effects = self.pool.step(event, 7)
        self.pool.check()
        assert self.pool.next_deadline_us() == self.pool.pool.next_deadline_us()
        return [self._short(effect) for effect in effects]

    @staticmethod
    def _short(effect: object) -> str:
        if isinstance(effect, Acknowledged):
            assert effect.invoker == "i"
            return f"ack {effect.activation_id}{' error' * effect.system_error}"
        return short(effect)


def test_what_ends_is_acknowledged_and_lets_the_next_one_through() -> None:
    world = FedWorld(256)  # room for one container, two at once through the feed
    assert world.step(push("x", A)) == ["start 1"]
    assert world.step(push("y", A)) == []
    assert world.step(push("z", A)) == []
    assert world.pool.counts()["topic"] == 1
    world.step(ev.SandboxReady("i-push-1"))
    world.step(ev.Initialised("i-push-1", 5))
    assert world.step(ev.RunEnded("i-push-1", "x", 10, 0)) == ["run 1 y", "ack x"]
    assert world.pool.counts()["topic"] == 0
    assert world.step(ev.RunEnded("i-push-1", "y", 10, ev.Outcome.PLATFORM_ERROR)) == [
        "remove 1", "start 2", "ack y error",
    ]  # fmt: skip
    assert world.pool.counts()["created"] == 2


def test_what_is_refused_is_acknowledged_as_an_error_of_the_system() -> None:
    world = FedWorld(256)
    world.step(push("x", A))
    failed = ev.SandboxFailed("i-push-1", ev.FailureClass.FINAL, "no image")
    assert world.step(failed) == ["reject x", "ack x error"]


def test_a_drained_feed_refuses_its_topic_and_all_that_comes() -> None:
    world = FedWorld(128)
    small = spec_of("small", 128)
    world.step(push("x", small))
    world.step(push("y", small))
    assert world.pool.counts()["topic"] == 1
    assert world.step(ev.DrainRequested()) == ["reject y", "ack y error"]
    assert world.step(push("z", small)) == ["reject z", "ack z error"]


def test_a_fed_pool_refuses_what_its_pool_refuses_and_takes_in_nothing() -> None:
    world = FedWorld(256)
    world.step(push("x", A))
    before = world.pool.counts()
    with pytest.raises(ValueError, match="time was 7 already"):
        world.pool.step(push("y", A), 6)
    with pytest.raises(TypeError, match="Event is no event of a push pool"):
        world.pool.step(ev.Event(), 7)
    assert world.pool.counts() == before


def test_another_try_at_an_invoker_that_drains_is_never_worth_it() -> None:
    pool = FedPool(PushPoolConfig("i", 256))
    pool.step(ev.DrainRequested(), 0)
    refused, left = pool.step(push("x", A), 0)
    assert isinstance(refused, Reject)
    assert (refused.cause, refused.retry_after_us) == (Cause.CLOSED, 0)
    assert isinstance(left, Acknowledged)
