"""The scheduler's answers one by one; whole stories are in ``tests/scenarios``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import describe

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import OpenWhiskRule
from acs_core.limits import LOOKS_MAX, TIME_MAX_US
from acs_core.scheduler import Scheduler, SchedulerConfig, UnknownQueue


class Desk:
    """A scheduler with its clock; ``do`` returns what it asks for, in words."""

    def __init__(self, **config: Any) -> None:
        self.scheduler = Scheduler(SchedulerConfig(name="c", **config))
        self.now_us = 0

    def do(self, *events: ev.Event) -> list[str]:
        words = []
        for event in events:
            words += [describe(effect) for effect in self.scheduler.step(event, self.now_us)]
            self.scheduler.check()
        return words

    def open(self, queue: str = "n/a", epoch: int = 1, **spec: Any) -> list[str]:
        namespace, action = queue.split("/")
        return self.do(ev.QueueOpened(ev.QueueSpec(queue, namespace, action, 0, **spec), epoch))

    def arrive(self, *names: str, queue: str = "n/a", deadline_us: int = 0) -> list[str]:
        words = []
        for name in names:
            activation = ev.Activation(name, b"", self.now_us, deadline_us)
            words += self.do(ev.Arrived(queue, activation))
        return words

    def pull(
        self, container: str, free: int = 1, epoch: int = 1, *, ended: str = "", started: str = ""
    ) -> list[str]:
        done = (ev.Completion(ended, 0, 1_000, 0),) if ended else ()
        return self.do(ev.Pulled(container, epoch, free, (started,) if started else (), done))

    def wait(self, us: int) -> list[str]:
        """Let time pass and every deadline in it be met."""
        end_us = self.now_us + us
        words = []
        while True:
            due_us = self.scheduler.next_deadline_us()
            if due_us is None or due_us > end_us:
                break
            self.now_us = max(self.now_us, due_us)
            words += self.do(ev.TimeReached())
        self.now_us = end_us
        return words

    def state(self, queue: str = "n/a") -> str:
        return str(self.scheduler.explain(queue)["state"])


def desk(*, memory_mb: int = 1_000, **config: Any) -> Desk:
    """Return a scheduler with one invoker and queue n/a, epoch 1, open and adopted."""
    made = Desk(**config)
    made.do(ev.InvokerReported("i1", memory_mb))
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1))
    return made


def serving(**config: Any) -> Desk:
    """Return one with container c-1, which runs a1."""
    made = desk(**config)
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)), ev.ContainerServing("c-1", "i1"))
    made.pull("c-1")
    return made


# --- misuse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("waiting_max", 0),
        ("wait_max_us", 0),
        ("decision_interval_us", 0),
        ("idle_grace_us", -1),
        ("stop_grace_us", 0),
        ("retry_min_us", 0),
        ("retry_max_us", TIME_MAX_US + 1),
        ("namespace_containers_max", -1),
        ("namespace_reserve", -1),
        ("backlog_interval_us", -1),
        ("waiting_low_fraction", 1.0),
        ("waiting_low_fraction", -0.1),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}; it must be in"):
        SchedulerConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "event",
    [
        ev.Arrived("x", ev.Activation("a", b"", 0)),
        ev.QueueClosing("x", "why"),
        ev.LeadershipLost("x", "s2"),
    ],
)
def test_an_unknown_queue_is_named(event: ev.Event) -> None:
    made = desk()
    before = made.scheduler.counts()
    with pytest.raises(UnknownQueue, match="queue x is not open here"):
        made.do(event)
    assert made.scheduler.counts() == before
    with pytest.raises(UnknownQueue):
        made.scheduler.explain("x")
    assert not made.scheduler.has_queue("x")


def test_an_activation_is_here_until_it_ends() -> None:
    made = desk()
    assert not made.scheduler.has_activation("1")
    made.do(ev.Arrived("n/a", ev.Activation("1", b"", 0)))
    assert made.scheduler.has_activation("1")
    made.do(ev.Cancelled("1"))
    assert not made.scheduler.has_activation("1")


def test_a_queue_opens_once() -> None:
    made = desk()
    with pytest.raises(ValueError, match="queue n/a is open already"):
        made.open(epoch=2)
    assert made.scheduler.explain("n/a")["epoch"] == 1


def test_time_does_not_go_back() -> None:
    made = desk()
    made.now_us = 5
    made.do(ev.TimeReached())
    with pytest.raises(ValueError, match="now_us is 4; time was 5 already"):
        made.scheduler.step(ev.TimeReached(), 4)


@pytest.mark.parametrize("event", [ev.SandboxReady("c"), ev.DrainRequested(), "text", None])
def test_what_is_no_event_of_a_scheduler_is_refused(event: Any) -> None:
    with pytest.raises(TypeError, match="is no event of a scheduler"):
        Scheduler().step(event, 0)


@pytest.mark.parametrize(
    "event",
    [
        ev.Arrived("n/a", None),  # type: ignore[arg-type]
        ev.QueueOpened(None, 1),  # type: ignore[arg-type]
        ev.Reserved("n/a", 1, None),  # type: ignore[arg-type]
    ],
)
def test_nothing_in_place_of_something_is_refused(event: ev.Event) -> None:
    made = serving()
    before = (made.scheduler.counts(), made.scheduler.explain("n/a"))
    with pytest.raises((AttributeError, TypeError)):
        made.do(event)
    assert (made.scheduler.counts(), made.scheduler.explain("n/a")) == before


def test_a_limit_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"containers_max is -1; it must be an integer in 0\.\."):
        Scheduler().step(ev.LimitsChanged("n", -1), 0)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1_001.0, float("nan")])
def test_a_weight_is_above_zero_and_bounded(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weight is .*; it must be in 0\.\.1000"):
        Scheduler().step(ev.LimitsChanged("n", 1, weight), 0)


LATE: list[ev.Event] = [
    ev.Cancelled("x"),
    ev.Reserved("x", 1, ()),
    ev.Denied("x", 1, "why"),
    ev.Denied("n/a", 1, "nothing was asked for"),
    ev.InvokerGone("x"),
    ev.Adopted("i1", "x", 1),
    ev.Adopted("i1", "n/a", 9),
    ev.Adopted("i1", "n/a", 1),
    ev.ContainerServing("x", "i1"),
    ev.CreationFailed("x", 0, "why"),
    ev.Pulled("x", 1, 1),
    ev.Returned("x", 1, ("a",)),
    ev.ContainerLeaving("x", "why"),
    ev.ContainerGone("x", "why"),
]


@pytest.mark.parametrize("event", LATE, ids=lambda event: type(event).__name__)
def test_what_comes_too_late_does_nothing(event: ev.Event) -> None:
    made = desk()
    before = (made.scheduler.counts(), made.scheduler.explain("n/a"))
    assert made.do(event) == []
    assert (made.scheduler.counts(), made.scheduler.explain("n/a")) == before


def test_a_grant_for_a_queue_that_is_gone_is_given_back() -> None:
    assert Desk().do(ev.Reserved("x", 1, ("c-1",))) == ["unreserve c-1"]


# --- arrivals and deliveries -----------------------------------------------------------------


def test_without_an_event_there_is_nothing_to_tell() -> None:
    made = desk()
    shown = made.scheduler.explain("n/a")
    assert (shown["verdict"], shown["count"], shown["mean_run_ms"]) == (None, 0, None)
    assert shown["reason"] == "nothing was decided yet"
    assert Scheduler().next_deadline_us() is None


def test_history_is_the_first_mean() -> None:
    made = Desk()
    made.do(ev.QueueOpened(ev.QueueSpec("q", "n", "a", 0), 1, 7_000))
    assert made.scheduler.explain("q")["mean_run_ms"] == 7.0


def test_a_resend_is_ignored_while_the_first_lives() -> None:
    made = serving()
    made.arrive("a2")
    assert made.arrive("a1", "a2") == []
    assert made.scheduler.counts()["accepted"] == 2


def test_the_same_object_is_not_taken_again_after_its_end() -> None:
    made = serving()
    cancelled, ended = ev.Activation("a2", b"", 0), ev.Activation("a3", b"", 0)
    made.do(ev.Arrived("n/a", cancelled), ev.Cancelled("a2"))
    made.pull("c-1", ended="a1")
    made.do(ev.Arrived("n/a", ended))
    made.pull("c-1", ended="a3")
    assert made.do(ev.Arrived("n/a", cancelled), ev.Arrived("n/a", ended)) == []
    counts = made.scheduler.counts()
    assert (counts["accepted"], counts["waiting"]) == (3, 0)


def test_cancelling_reaches_only_what_waits() -> None:
    made = serving()
    made.arrive("a2")
    assert made.do(ev.Cancelled("a1")) == []
    assert made.do(ev.Cancelled("a2")) == ["reject a2 CANCELLED: cancelled before its turn"]
    assert made.do(ev.Cancelled("a2")) == []


def test_expired_work_before_the_head_is_rejected_when_a_slot_comes() -> None:
    made = serving()
    made.arrive("a2", deadline_us=10)
    made.arrive("a3", deadline_us=20)
    made.arrive("a4")
    made.now_us = 20
    assert made.pull("c-1", ended="a1") == [
        "reject a2 EXPIRED: Activation processing is not initiated for 0 ms",
        "reject a3 EXPIRED: Activation processing is not initiated for 0 ms",
        "deliver a4 to c-1",
    ]


def test_a_slot_stays_free_when_all_that_waited_has_expired() -> None:
    made = serving()
    made.arrive("a2", deadline_us=10)
    made.now_us = 10
    assert len(made.pull("c-1", ended="a1")) == 1
    assert made.arrive("a3") == ["deliver a3 to c-1"]


def test_work_in_a_pause_after_failures_expires_in_time() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Denied("n/a", 1, "etcd is away"), ev.Cancelled("a1"))
    made.wait(50_000)
    made.arrive("a2", deadline_us=80_000)
    assert made.scheduler.next_deadline_us() == 80_000
    assert made.wait(30_000)[0].startswith("reject a2 EXPIRED")


def test_returned_work_goes_to_another_container_at_once() -> None:
    made = serving(memory_mb=10_000)
    made.arrive("a2", "a3")
    made.wait(300_000)
    made.do(ev.Reserved("n/a", 2, ("c-2",)))
    made.pull("c-2", 0)
    made.do(ev.Returned("c-1", 1, ("a1",)))
    assert made.pull("c-2") == ["deliver a1 to c-2"]


def test_returned_work_goes_to_another_free_container_at_once() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000))
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True), ev.Held("y", True))))
    made.pull("x")
    made.pull("y")
    assert made.arrive("a1") == ["deliver a1 to y"]
    assert made.do(ev.Returned("y", 1, ("a1",))) == ["deliver a1 to x"]


def test_returned_work_can_be_cancelled() -> None:
    made = serving()
    made.do(ev.Returned("c-1", 1, ("a1",)))
    assert made.do(ev.Cancelled("a1")) == ["reject a1 CANCELLED: cancelled before its turn"]
    assert made.pull("c-1") == []


def test_a_rule_is_told_how_long_the_first_has_waited() -> None:
    scheduler = Scheduler(SchedulerConfig(report_decisions=True))
    scheduler.step(ev.InvokerReported("i1", 1_000), 0)
    scheduler.step(ev.QueueOpened(ev.QueueSpec("q", "n", "a", 0), 1), 0)
    scheduler.step(ev.Arrived("q", ev.Activation("a1", b"", 1_000)), 1_000)
    out = scheduler.step(ev.Adopted("i1", "q", 1), 8_000)
    seen = [effect.snapshot.oldest_wait_ms for effect in out if isinstance(effect, fx.Decided)]
    assert seen == [7.0]


def test_a_full_queue_says_when_its_line_will_be_served() -> None:
    scheduler = Scheduler(SchedulerConfig(waiting_max=4, throttle_by_wait=False))
    scheduler.step(ev.InvokerReported("i1", 10_000), 0)
    spec = ev.QueueSpec("q", "n", "a", 0, concurrency=2, action_limit=2)
    scheduler.step(ev.QueueOpened(spec, 1, history_us=3_000_000), 0)
    held = tuple([ev.Held(name, True) for name in ("x", "y")])
    scheduler.step(ev.Adopted("i1", "q", 1, held), 0)
    for number in range(4):
        scheduler.step(ev.Arrived("q", ev.Activation(f"a{number}", b"", 0)), 0)
    (refused,) = scheduler.step(ev.Arrived("q", ev.Activation("late", b"", 0)), 0)
    assert isinstance(refused, fx.Reject)
    # 4 runs of 3 s, and 2 slots in each of 2 containers.
    assert (refused.cause, refused.retry_after_us) == (fx.Cause.QUEUE_FULL, 3_000_000)


def test_returned_work_that_has_expired_meanwhile_is_rejected() -> None:
    made = serving()
    made.arrive("a2", deadline_us=0)
    made.do(ev.Returned("c-1", 1, ("a1",)))
    made.now_us = 60_000_000
    assert [w.split()[:3] for w in made.pull("c-1")] == [
        ["reject", "a1", "EXPIRED:"],
        ["reject", "a2", "EXPIRED:"],
    ]


def test_several_returned_ones_keep_their_order() -> None:
    made = desk()
    made.open("n/w", 2, concurrency=3)
    made.do(ev.Adopted("i1", "n/w", 2))
    made.arrive("a1", "a2", "a3", "a4", queue="n/w")
    made.do(ev.Reserved("n/w", 1, ("c-1",)))
    made.pull("c-1", 3, 2)
    made.do(ev.Returned("c-1", 2, ("a1", "a3", "nobody")))
    assert made.pull("c-1", 2, 2) == ["deliver a1 to c-1", "deliver a3 to c-1"]


def test_what_an_earlier_leader_delivered_is_not_taken_back() -> None:
    made = serving()
    assert made.do(ev.Returned("c-1", 0, ("a1",))) == []
    assert made.scheduler.counts()["delivered"] == 1


def test_what_has_started_is_not_run_again_whatever_is_said() -> None:
    made = serving()
    made.pull("c-1", 0, started="a1")
    assert made.do(ev.Returned("c-1", 1, ("a1",))) == []
    assert made.scheduler.counts()["delivered"] == 1


def test_slots_of_a_repeated_pull_are_not_counted_twice() -> None:
    made = serving()
    assert made.pull("c-1") == []
    made.arrive("a2")
    assert made.pull("c-1") == []
    assert made.scheduler.counts()["waiting"] == 1


def test_a_pull_overtakes_the_word_that_its_container_serves() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert made.pull("c-1") == ["deliver a1 to c-1"]
    assert made.do(ev.ContainerServing("c-1", "i1")) == []


def test_runs_that_failed_do_not_count_for_the_run_time() -> None:
    made = serving()
    made.do(ev.Pulled("c-1", 1, 0, (), (ev.Completion("a1", 0, 5_000_000, 2),)))
    assert made.scheduler.explain("n/a")["mean_run_ms"] is None
    assert made.scheduler.counts()["ended"] == 1


# --- reservations and creations --------------------------------------------------------------


def test_a_repeated_grant_takes_no_place_away() -> None:
    made = desk()
    made.arrive("a1")
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["create c-1@i1 for n/a"]
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == []
    made.do(ev.CreationFailed("c-1", 0, "no"))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1"]


def test_an_answer_to_an_earlier_reservation_says_nothing_of_this_one() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.LeadershipLost("n/a", "s2"))
    made.open(epoch=2)
    made.do(ev.Adopted("i1", "n/a", 2))
    assert made.arrive("a1") == ["reserve for n/a c-2@i1"]
    assert made.do(ev.Denied("n/a", 1, "no room")) == []
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1"]
    assert made.do(ev.Reserved("n/a", 1, ("c-2",))) == ["unreserve c-2"]
    assert made.scheduler.explain("n/a")["reserving"] == 1
    assert made.do(ev.Reserved("n/a", 2, ("c-2",))) == ["create c-2@i1 for n/a"]


def test_a_grant_in_part_is_used_and_the_rest_is_forgotten() -> None:
    made = desk(memory_mb=10_000)
    made.do(ev.QueueOpened(ev.QueueSpec("n/b", "n", "b", 0), 2, 10_000_000))
    made.arrive("a1", "a2", "a3", queue="n/b")
    asked = made.do(ev.Adopted("i1", "n/b", 2))
    assert asked == ["reserve for n/b c-1@i1, c-2@i1, c-3@i1"]
    assert made.do(ev.Reserved("n/b", 3, ("c-2",))) == ["create c-2@i1 for n/b"]
    assert made.scheduler.explain("n/b")["reserving"] == 0


def test_a_grant_for_a_closing_queue_without_work_is_given_back() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Cancelled("a1"), ev.QueueClosing("n/a", "updated"))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1", "close n/a epoch 1"]


def test_a_denial_ends_a_closing_queue_without_work() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Cancelled("a1"), ev.QueueClosing("n/a", "updated"))
    assert made.do(ev.Denied("n/a", 1, "no")) == ["close n/a epoch 1"]


def test_a_closing_queue_with_work_creates_for_it() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.QueueClosing("n/a", "updated"))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["create c-1@i1 for n/a"]
    assert made.pull("c-1") == ["deliver a1 to c-1"]
    assert made.pull("c-1", ended="a1") == ["release c-1: updated"]
    assert made.do(ev.ContainerGone("c-1", "updated")) == ["close n/a epoch 1"]


def test_places_on_an_invoker_that_is_gone_are_asked_for_elsewhere() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.InvokerReported("i2", 500), ev.Adopted("i2", "n/a", 1), ev.InvokerGone("i1"))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1", "reserve for n/a c-2@i2"]


def test_an_invoker_that_comes_back_still_has_its_reserved_places() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.InvokerGone("i1"), ev.InvokerReported("i1", 1_000), ev.Adopted("i1", "n/a", 1))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["create c-1@i1 for n/a"]


def test_without_an_invoker_work_waits_for_one() -> None:
    made = Desk()
    made.open()
    assert made.arrive("a1") == []
    assert str(made.scheduler.explain("n/a")["trouble"]).startswith("no invoker ")
    assert made.do(ev.InvokerReported("i1", 500)) == ["adopt n/a epoch 1 by i1"]
    assert made.do(ev.Adopted("i1", "n/a", 1)) == ["reserve for n/a c-1@i1"]


def test_nothing_is_placed_on_an_invoker_that_joins_before_it_has_answered() -> None:
    made = desk()  # of which i1 has 1,000 MB
    assert made.do(ev.InvokerReported("i2", 100_000)) == ["adopt n/a epoch 1 by i2"]
    assert made.do(ev.InvokerReported("i2", 100_000)) == []
    assert made.arrive("a1") == ["reserve for n/a c-1@i1"]  # nobody else waits for it
    made.do(ev.InvokerGone("i1"), ev.InvokerReported("i1", 1_000))
    assert made.do(ev.Reserved("n/a", 1, ("c-1",))) == ["unreserve c-1"]
    assert made.do(ev.Adopted("i2", "n/a", 2)) == []  # of another leader
    made.do(ev.Adopted("i2", "n/a", 1))
    made.now_us += 5_000
    assert made.do(ev.TimeReached()) == ["reserve for n/a c-2@i2"]
    made.do(ev.Adopted("i2", "n/a", 1, (ev.Held("late", True),)))
    assert made.scheduler.containers() == []


def test_what_a_joining_invoker_holds_is_not_delivered_again() -> None:
    made = desk()
    made.arrive("a1", "a2")
    made.do(ev.InvokerReported("i2", 500))
    held = ev.Held("old", True, ("a1",))
    made.do(ev.Adopted("i2", "n/a", 1, (held,)))
    assert made.scheduler.counts()["waiting"] == 1
    assert made.pull("old", ended="a1") == ["deliver a2 to old"]


def test_a_closing_queue_releases_no_container_that_goes_already() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    made.pull("c-1")
    made.pull("c-1", ended="a1")
    made.do(ev.ContainerLeaving("c-1", "idle"))
    assert made.do(ev.QueueClosing("n/a", "updated")) == []
    assert made.do(ev.ContainerGone("c-1", "idle")) == ["close n/a epoch 1"]


def test_what_a_joining_invoker_holds_of_a_closing_queue_goes_first() -> None:
    made = desk()
    made.do(ev.InvokerReported("i2", 500))
    assert made.do(ev.QueueClosing("n/a", "updated")) == []
    held = ev.Held("old", True)
    assert made.do(ev.Adopted("i2", "n/a", 1, (held,))) == ["release old: updated"]
    assert made.do(ev.ContainerGone("old", "released")) == ["close n/a epoch 1"]


def test_a_closing_queue_does_not_wait_for_a_joining_invoker_that_is_gone() -> None:
    made = desk()
    made.do(ev.InvokerReported("i2", 500), ev.QueueClosing("n/a", "updated"))
    assert made.do(ev.InvokerGone("i2")) == ["close n/a epoch 1"]


def test_an_invoker_that_joins_many_queues_is_asked_over_several_steps() -> None:
    made = Desk()
    names = [f"n/{number}" for number in range(250)]
    for name in names:
        made.open(name)
    asked = made.do(ev.InvokerReported("i1", 500))
    assert len(asked) == 100
    made.do(ev.LeadershipLost(names[3], "s2"))
    made.open(names[3], 2)  # which asks everybody
    asked += made.do(ev.InvokerReported("i2", 500))
    made.do(ev.InvokerGone("i2"))
    while made.scheduler.next_deadline_us() == made.now_us:
        steps = made.do(ev.TimeReached())
        assert len(steps) <= 100
        asked += steps
    others = [f"adopt {name} epoch 1 by i1" for name in names if name != names[3]]
    assert sorted(asked) == sorted(others)


def test_pauses_after_failures_double_up_to_their_bound() -> None:
    made = desk(retry_min_us=100_000, retry_max_us=300_000)
    made.arrive("a1")
    pauses = []
    for serial in range(1, 5):
        made.do(ev.Denied("n/a", serial, "no"))
        since_us = made.now_us
        while made.scheduler.explain("n/a")["reserving"] == 0:
            made.wait(10_000)
        pauses.append(made.now_us - since_us)
    assert pauses == [100_000, 200_000, 300_000, 300_000]
    made.do(ev.Reserved("n/a", 5, ("c-5",)))
    made.pull("c-5")
    made.do(ev.ContainerGone("c-5", "it died"))
    made.arrive("a2")
    made.do(ev.Denied("n/a", 6, "no"))
    assert made.wait(100_000) == ["reserve for n/a c-7@i1"]  # a success ends the long pauses


@pytest.mark.parametrize("name", ["UNFIT", "FINAL"])
def test_an_action_that_is_unfit_is_told_apart_from_a_platform_that_lacks_something(
    name: str,
) -> None:
    cause = {"FINAL": "CREATION_FAILED"}.get(name, name)
    made = desk()
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    words = made.do(ev.CreationFailed("c-1", ev.FailureClass[name], "no such image"))
    assert [word for word in words if "reject" in word] == [
        f"reject a1 {cause}: no such image (retry after 100 ms)"
    ]
    # So is what comes before the next try.
    assert made.arrive("a2") == [f"reject a2 {cause}: no such image (retry after 100 ms)"]


def test_a_failure_beside_a_living_container_flushes_nothing() -> None:
    made = serving(memory_mb=10_000)
    made.arrive("a2")
    made.wait(400_000)
    made.do(ev.Reserved("n/a", 2, ("c-2",)))
    assert made.do(ev.CreationFailed("c-2", ev.FailureClass.FINAL, "no image")) == []
    assert made.state() == "RUNNING"
    assert made.scheduler.counts()["waiting"] == 1


def test_no_more_than_a_hundred_places_are_asked_for_at_once() -> None:
    made = desk(memory_mb=1_000_000)
    made.do(ev.QueueOpened(ev.QueueSpec("n/b", "n", "b", 0), 2, 10_000_000))
    made.arrive(*[f"a{number}" for number in range(200)], queue="n/b")
    (asked,) = made.do(ev.Adopted("i1", "n/b", 2))
    assert asked.count("@i1") == 100


def test_the_limit_of_the_action_counts_leaving_containers() -> None:
    made = desk(memory_mb=10_000)
    made.open("n/b", 2, action_limit=1)
    made.do(ev.Adopted("i1", "n/b", 2))
    made.arrive("b1", queue="n/b")
    made.do(ev.Reserved("n/b", 1, ("c-1",)))
    made.pull("c-1", 1, 2)
    made.do(ev.ContainerLeaving("c-1", "idle"))
    assert made.arrive("b2", queue="n/b") == []
    assert made.wait(400_000) == []
    assert made.do(ev.ContainerGone("c-1", "idle"))[1:] == ["reserve for n/b c-2@i1"]


def test_each_decision_is_told_when_somebody_listens() -> None:
    made = desk(report_decisions=True)
    assert made.arrive("a1") == ["decide n/a ADD_INITIAL 1", "reserve for n/a c-1@i1"]


# --- throttles, limits -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [ev.QueueClosing("n/a", "updated"), ev.LeadershipLost("n/a", "s2")]
)
def test_no_throttle_outlives_its_state(event: ev.Event) -> None:
    made = desk(waiting_max=1)
    assert made.arrive("a1")[0] == "throttle n/a on: 1 activations wait"
    assert made.do(event)[0].startswith("throttle n/a off: ")


def test_cancelling_lifts_the_throttle() -> None:
    made = desk(waiting_max=1)
    made.arrive("a1")
    assert made.do(ev.Cancelled("a1"))[1] == "throttle n/a off: 0 activations wait"


def test_a_full_queue_that_flushes_refuses_without_a_throttle() -> None:
    made = desk(waiting_max=1)
    made.arrive("a1")
    assert made.do(ev.Denied("n/a", 1, "etcd is away")) == ["throttle n/a off: etcd is away"]
    (refused,) = made.arrive("a2")
    assert refused.startswith("reject a2 QUEUE_FULL: 1 activations of this action wait")
    assert made.state() == "FLUSHING"


def test_the_original_rule_drops_where_the_namespace_is_full() -> None:
    made = Desk(rule=OpenWhiskRule())
    made.do(ev.InvokerReported("i1", 1_000), ev.LimitsChanged("n", 1))
    for epoch, queue in enumerate(("n/a", "n/b"), 1):
        made.open(queue, epoch)
        made.do(ev.Adopted("i1", queue, epoch))
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    made.pull("c-1")
    (dropped,) = made.arrive("b1", queue="n/b")
    assert dropped == (
        "reject b1 NO_CONTAINER: Too many concurrent requests in flight. 1 of 1 containers of"
        " namespace n; lifted when one of them goes or by a higher limit (retry after 100 ms)"
    )
    assert made.state("n/b") == "NAMESPACE_THROTTLED"
    made.do(ev.LimitsChanged("n", 2, reserve=0))
    assert made.state("n/b") == "RUNNING"


def test_limits_known_before_and_after_a_queue_are_kept_and_others_are_not() -> None:
    made = Desk(namespace_containers_max=7)
    made.do(ev.LimitsChanged("n", 3), ev.LimitsChanged("m", 7))
    for queue in ("n/a", "m/a"):
        made.open(queue)
        assert made.do(ev.QueueClosing(queue, "over")) == [f"close {queue} epoch 1"]
        made.open(queue)
    assert made.scheduler.explain("n/a")["namespace_containers_max"] == 3
    assert made.scheduler.explain("m/a")["namespace_containers_max"] == 7


# --- leaders ---------------------------------------------------------------------------------


def test_nothing_is_served_before_every_invoker_has_told_what_it_holds() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000), ev.InvokerReported("i2", 1_000))
    made.open()
    held = (ev.Held("old", True, ("a0",)), ev.Held("new", False))
    made.do(ev.Adopted("i1", "n/a", 1, held))
    assert made.state() == "UNINITIALIZED"
    assert made.arrive("a1") == []
    assert made.pull("old", ended="a0") == []
    assert made.wait(1_000_000) == []
    assert made.do(ev.InvokerGone("i2")) == ["deliver a1 to old"]
    shown = made.scheduler.explain("n/a")
    assert (shown["serving"], shown["in_progress"]) == (1, 1)


def test_a_queue_closed_before_it_was_adopted_waits_for_the_answers() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000))
    made.open()
    assert made.do(ev.QueueClosing("n/a", "updated")) == []
    assert made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("old", True),))) == ["release old: updated"]
    assert made.do(ev.ContainerGone("old", "updated")) == ["close n/a epoch 1"]


def test_a_creation_of_an_earlier_leader_may_fail_before_the_queue_is_adopted() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000), ev.InvokerReported("i2", 1_000))
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("new", False),)))
    assert made.do(ev.CreationFailed("new", 0, "no")) == []
    assert made.state() == "UNINITIALIZED"


def test_one_step_looks_at_a_bounded_number_of_queues() -> None:
    made = Desk()
    for number in range(LOOKS_MAX + 1):
        made.open(f"n/{number}", number)
        made.arrive(f"a{number}", queue=f"n/{number}")
    made.now_us = 60_000_000
    for looked_at in (LOOKS_MAX, 1):
        due_us = made.scheduler.next_deadline_us()
        assert due_us is not None
        assert due_us <= made.now_us
        rejected = [word for word in made.do(ev.TimeReached()) if word.startswith("reject")]
        assert len(rejected) == looked_at


def test_work_that_has_expired_meanwhile_is_not_served_after_adoption() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000), ev.InvokerReported("i2", 1_000))
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("old", True),)))
    made.pull("old")
    made.arrive("a1", deadline_us=10)
    made.now_us = 10
    (rejected,) = made.do(ev.Adopted("i2", "n/a", 1))
    assert rejected.startswith("reject a1 EXPIRED")
    assert made.arrive("a2") == ["deliver a2 to old"]


def test_a_closing_queue_ends_when_its_last_work_has_expired() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.QueueClosing("n/a", "updated"), ev.Denied("n/a", 1, "no"))
    made.now_us = 60_000_000
    rejected, closed = made.do(ev.TimeReached())
    assert rejected.startswith("reject a1 EXPIRED")
    assert closed == "close n/a epoch 1"


def test_a_known_start_of_another_containers_work_is_ignored() -> None:
    made = serving()
    made.pull("c-1", 0, started="nobody")
    assert made.pull("c-1", 0, ended="nobody") == []
    assert made.scheduler.counts()["delivered"] == 1


def test_time_passes_over_a_queue_that_nobody_has_adopted() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000), ev.InvokerReported("i2", 1_000))
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("old", True),)), ev.ContainerGone("old", "died"))
    made.now_us = 3_600_000_000
    assert made.do(ev.TimeReached()) == []
    assert made.scheduler.next_deadline_us() is None
    assert made.state() == "UNINITIALIZED"


def test_what_runs_elsewhere_is_taken_out_of_the_line() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000))
    made.open()
    made.arrive("a1", "a2")
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("old", True, ("a1",)),)))
    assert made.scheduler.counts() == {
        "accepted": 2,
        "waiting": 1,
        "delivered": 1,
        "ended": 0,
        "rejected": 0,
        "forwarded": 0,
    }
    assert made.pull("old", ended="a1") == ["deliver a2 to old"]


def test_containers_and_ids_that_are_known_are_not_counted_twice() -> None:
    made = Desk()
    made.do(ev.InvokerReported("i1", 1_000), ev.InvokerReported("i2", 1_000))
    made.open(concurrency=2)
    made.do(ev.Adopted("i1", "n/a", 1, (ev.Held("old", True, ("a1",)),)))
    held = (ev.Held("old", True, ("a1",)), ev.Held("odd", True, ("a1", "a2")))
    made.do(ev.Adopted("i2", "n/a", 1, held))
    counts = made.scheduler.counts()
    assert (counts["accepted"], counts["delivered"]) == (2, 2)


def test_a_lost_leadership_forwards_what_waits_and_forgets_the_rest() -> None:
    made = serving(memory_mb=10_000)
    made.arrive("a2", "a3")
    made.wait(400_000)
    assert made.do(ev.LeadershipLost("n/a", "s2"))[-1] == "forward to s2: a2, a3"
    assert made.scheduler.counts()["forwarded"] == 3
    assert made.pull("c-1", ended="a1") == []
    assert made.scheduler.next_deadline_us() is None


def test_a_lost_leadership_gives_reserved_places_back() -> None:
    made = desk()
    made.arrive("a1")
    assert made.do(ev.LeadershipLost("n/a", "s2")) == ["unreserve c-1", "forward to s2: a1"]


# --- containers and invokers that go ---------------------------------------------------------


LOSSES: list[Callable[[], ev.Event]] = [
    lambda: ev.ContainerGone("c-1", "it died"),
    lambda: ev.CreationFailed("c-1", 0, "it died"),
    lambda: ev.InvokerGone("i1"),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_lost_container_had_is_unknown(loss: Callable[[], ev.Event]) -> None:
    made = serving()
    words = made.do(loss())
    assert words[0].startswith("reject a1 UNKNOWN: The container is gone (")
    assert made.scheduler.counts()["delivered"] == 0
    assert made.scheduler.explain("n/a")["serving"] == 0


def test_a_scheduler_names_the_queues_and_containers_that_it_knows() -> None:
    made = serving()
    made.open("n/b")
    assert (made.scheduler.queues(), made.scheduler.containers()) == (["n/a", "n/b"], ["c-1"])
    made.do(ev.ContainerGone("c-1", "died"), ev.LeadershipLost("n/b", "s2"))
    assert (made.scheduler.queues(), made.scheduler.containers()) == (["n/a"], [])


def test_a_container_that_leaves_counts_until_it_is_gone() -> None:
    made = serving()
    made.pull("c-1", ended="a1")
    made.do(ev.ContainerLeaving("c-1", "idle"))
    made.arrive("a2")
    assert made.wait(5_000) == ["reserve for n/a c-2@i1"]
    assert made.pull("c-1") == []
    shown = made.scheduler.explain("n/a")
    assert (shown["serving"], shown["leaving"], shown["namespace_containers"]) == (1, 1, 1)


def test_a_container_that_leaves_before_it_serves_is_still_counted() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert made.do(ev.ContainerLeaving("c-1", "drain")) == []
    assert made.scheduler.explain("n/a")["in_progress"] == 1


def test_the_largest_weight_is_taken() -> None:
    scheduler = Scheduler()
    assert scheduler.step(ev.LimitsChanged("n", 1, 1_000.0), 0) == []


@pytest.mark.parametrize(
    ("target_us", "containers"), [(None, 2), (2_000_000, 1), (20_000, 2), (0, 2)]
)
def test_a_queue_has_the_wait_target_of_its_action(target_us: int | None, containers: int) -> None:
    # Two runs of 40 ms come at once, so that one waits for 40 ms; the rule's own target is 10 ms.
    desk = Desk()
    desk.do(ev.InvokerReported("i", 4_096, creation_us=1_000))
    spec = ev.QueueSpec("n/a", "n", "a", 0, wait_target_us=target_us)
    desk.do(ev.QueueOpened(spec, 1, history_us=40_000))
    desk.do(ev.Adopted("i", "n/a", 1, (ev.Held("h", True),)), ev.Pulled("h", 1, 1))
    for turn in range(10):
        names = (f"a{turn}", f"b{turn}")
        desk.arrive(*names)
        for name in names:
            desk.wait(40_000)
            desk.do(ev.Pulled("h", 1, 1, (), (ev.Completion(name, 0, 40_000, 0),)))
        desk.wait(420_000)
    assert 1 + desk.scheduler.explain("n/a")["reserving"] == containers


@pytest.mark.parametrize(("own_us", "bound_ms"), [(None, 60_000), (300_000_000, 300_000), (1, 0)])
def test_a_queue_has_the_wait_bound_of_its_action(own_us: int | None, bound_ms: int) -> None:
    desk = Desk()
    desk.open("n/a", wait_max_us=own_us)  # no invoker: nothing is ever served
    desk.open("n/b")
    desk.arrive("a")
    desk.arrive("b", queue="n/b")
    words: list[str] = []
    for at_us, name, waited_ms in sorted(
        [(own_us or 60_000_000, "a", bound_ms), (60_000_000, "b", 60_000)]
    ):
        if desk.now_us < at_us:
            words += desk.wait(at_us - 1 - desk.now_us)
            assert not [w for w in words if w.startswith(f"reject {name} ")]
            words += desk.wait(1)
        reason = f"Activation processing is not initiated for {waited_ms} ms"
        assert [w for w in words if w.startswith(f"reject {name} EXPIRED: {reason}")]


@pytest.mark.parametrize("late_us", [-1, 0])
def test_what_has_waited_to_its_bound_is_not_delivered(late_us: int) -> None:
    """L2: also to a container that pulls at that very moment, before anybody looks at the time."""
    desk = Desk()
    desk.do(ev.InvokerReported("i", 1_000))
    desk.open(wait_max_us=2_000_000)
    desk.do(ev.Adopted("i", "n/a", 1, (ev.Held("c", True),)))
    desk.arrive("a")
    desk.now_us += 2_000_000 + late_us
    words = desk.pull("c")
    if late_us < 0:
        assert words == ["deliver a to c"]
    else:
        assert [word.partition(":")[0] for word in words] == ["reject a EXPIRED"]


def test_who_may_wait_longer_is_refused_later() -> None:
    """W1: by prediction, too, each action has its own bound."""
    refused_at = {}
    for own_us in (None, 300_000_000):
        desk = Desk()
        desk.do(ev.InvokerReported("i1", 256))
        spec = ev.QueueSpec("n/a", "n", "a", 0, wait_max_us=own_us)
        desk.do(ev.QueueOpened(spec, 1, history_us=10_000_000))
        desk.do(ev.Adopted("i1", "n/a", 1, (ev.Held("x", True),)))
        desk.pull("x")
        taken = 0
        while not any(w.startswith("reject") for w in desk.arrive(f"a{taken}")):
            taken += 1
        refused_at[own_us] = taken
    assert refused_at == {None: 7, 300_000_000: 31}


def test_work_given_back_twice_in_a_row_is_given_back_once() -> None:
    made = desk()
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert made.pull("c-1") == ["deliver a1 to c-1"]
    back = ev.Returned("c-1", 1, ("a1",))
    made.do(back)
    before = made.scheduler.explain("n/a")
    assert made.do(back) == []
    assert made.scheduler.explain("n/a") == before
    assert made.pull("c-1") == ["deliver a1 to c-1"]


def test_a_queue_may_move_once_nothing_is_on_its_way_to_it() -> None:
    desk = Desk()
    can_move = desk.scheduler.can_move
    desk.do(ev.InvokerReported("i", 1_000))
    desk.open()
    assert not can_move("n/a")  # the invoker has not told what it holds
    assert not can_move("elsewhere")
    desk.do(ev.Adopted("i", "n/a", 1))
    assert can_move("n/a")
    assert desk.scheduler.in_hand() == 0
    desk.arrive("a1")
    assert desk.scheduler.in_hand() == 1
    assert not can_move("n/a")  # reserved for
    desk.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert not can_move("n/a")  # created for
    desk.do(ev.ContainerServing("c-1", "i"))
    desk.pull("c-1")
    assert can_move("n/a")
    desk.do(ev.QueueClosing("n/a", "deleted"))
    assert not can_move("n/a")
    desk.pull("c-1", ended="a1")
    assert desk.scheduler.in_hand() == 0


def test_numbers_that_no_snapshot_could_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=f"waiting_max is {2**31}; it must be at most"):
        SchedulerConfig(name="c", waiting_max=2**31)


def test_times_beyond_the_last_one_are_refused_and_nothing_changed() -> None:
    desk = Desk()
    desk.open()
    with pytest.raises(ValueError, match=f"now_us is {TIME_MAX_US + 1}; it must be at most"):
        desk.scheduler.step(ev.TimeReached(), TIME_MAX_US + 1)
    with pytest.raises(OverflowError):
        desk.scheduler.step(ev.TimeReached(), 2**63)
    assert desk.arrive("a1") == []  # time is still 0


def test_an_inventory_that_cannot_be_is_refused_and_the_invoker_still_awaited() -> None:
    desk = Desk()
    desk.do(ev.InvokerReported("i", 1_000))
    desk.open()
    held = ev.Held("c-1", True, ("a1", "a2"))
    with pytest.raises(ValueError, match="container c-1 holds 2 activations; it must be at most 1"):
        desk.do(ev.Adopted("i", "n/a", 1, (held,)))
    assert not desk.scheduler.can_move("n/a")


def test_who_expires_while_a_reservation_is_under_way_does_so_in_time() -> None:
    desk = Desk()
    desk.do(ev.InvokerReported("i", 1_000))
    desk.open()
    desk.do(ev.Adopted("i", "n/a", 1))
    assert desk.arrive("a1", deadline_us=5_000) == ["reserve for n/a c-1@i"]
    desk.arrive("a2", deadline_us=9_000)
    desk.now_us = 5_000
    [words] = desk.do(ev.TimeReached())
    assert words.startswith("reject a1 EXPIRED")
    assert desk.scheduler.next_deadline_us() == 9_000  # not sooner: the answer is waited for


def test_without_the_throttle_nobody_is_refused_for_a_prediction() -> None:
    for throttle in (False, True):
        desk = Desk(throttle_by_wait=throttle, wait_max_us=2_000_000)
        desk.do(ev.InvokerReported("i", 128))
        desk.open(memory_mb=128)
        desk.do(ev.Adopted("i", "n/a", 1))
        desk.arrive("a1")
        desk.do(ev.Reserved("n/a", 1, ("c-1",)), ev.ContainerServing("c-1", "i"))
        desk.pull("c-1")
        desk.now_us = 1_500_000
        desk.do(ev.Pulled("c-1", 1, 1, (), (ev.Completion("a1", 0, 1_500_000, 0),)))
        words = desk.arrive("b1", "b2", "b3", "b4")
        refused = [each for each in words if "WOULD_EXPIRE" in each]
        assert bool(refused) == throttle, words
        # A forecast that is older than a look is made anew: what it foretells is later by then.
        desk.now_us += 10_000
        words = desk.arrive("b5")
        assert bool([each for each in words if "WOULD_EXPIRE" in each]) == throttle
