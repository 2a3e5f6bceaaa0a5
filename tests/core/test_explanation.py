"""What is said of a queue, and that nothing is said unless somebody asks."""

from __future__ import annotations

from typing import Any

import pytest

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import Decision, Snapshot, Verdict
from acs_core.forecast import Forecast
from acs_core.queue_states import QueueState
from acs_core.scheduler import Scheduler, SchedulerConfig


class Desk:
    """A scheduler and its clock."""

    def __init__(self, memory_mb: int = 1_000, **config: Any) -> None:
        self.scheduler = Scheduler(SchedulerConfig(name="c", **config))
        self.now_us = 0
        self.do(ev.InvokerReported("i1", memory_mb))

    def do(self, *events: ev.Event) -> list[object]:
        effects: list[object] = []
        for event in events:
            effects += self.scheduler.step(event, self.now_us)
        return effects

    def open(self, **spec: Any) -> None:
        self.do(ev.QueueOpened(ev.QueueSpec("n/a", "n", "a", 0, **spec), 1))

    def arrive(self, *names: str) -> list[object]:
        arrivals = [ev.Arrived("n/a", ev.Activation(n, b"", self.now_us)) for n in names]
        return self.do(*arrivals)


def desk(**config: Any) -> Desk:
    """Return one with queue n/a open and adopted."""
    made = Desk(**config)
    made.open()
    made.do(ev.Adopted("i1", "n/a", 1))
    return made


def serving(**config: Any) -> Desk:
    """Return one with container c-1, which runs a1."""
    made = desk(**config)
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)), ev.ContainerServing("c-1", "i1"))
    made.do(ev.Pulled("c-1", 1, 1))
    return made


def shown(made: Desk) -> dict[str, Any]:
    return made.scheduler.explain("n/a")


def test_a_decision_is_explained_with_its_inputs_and_its_alternative() -> None:
    made = desk()
    assert shown(made)["alternative"] == ""
    assert shown(made)["inputs"] == {}
    assert shown(made)["decided_ms_ago"] is None
    assert shown(made)["least_wait_ms"] is None
    assert shown(made)["count"] == 0
    made.now_us = 1_000
    made.arrive("a1")
    made.now_us = 3_000
    made.arrive("a2")
    seen = shown(made)
    assert (seen["verdict"], seen["count"], seen["decided_ms_ago"]) == ("ADD_INITIAL", 1, 2.0)
    assert seen["inputs"]["waiting"] == 1
    assert str(seen["alternative"]).startswith("add fewer than 1")
    assert seen["predicted_wait_ms"] is None  # no run has ended
    assert seen["least_wait_ms"] is None


def test_predicted_waits_on_what_there_is_and_on_all_there_may_be() -> None:
    made = serving()
    made.now_us = 400_000
    made.do(ev.Pulled("c-1", 1, 1, (), (ev.Completion("a1", 0, 400_000, 0),)))
    made.arrive("b1", "b2", "b3")
    seen = shown(made)
    # Two wait behind a run on one container; on 9,999 they wait for a run of those there are.
    assert 1_200.0 <= seen["predicted_wait_ms"] < 1_200.01
    assert seen["least_wait_ms"] == 400.001
    assert seen["mean_run_ms"] == 400.0


def test_what_is_not_known_is_not_said() -> None:
    made = serving()
    made.arrive("a2")
    seen = shown(made)
    assert (seen["mean_run_ms"], seen["predicted_wait_ms"], seen["no_room"]) == (None, None, False)
    made.now_us = 200_000
    made.do(ev.TimeReached())
    assert shown(made)["inputs"]["existing"] == 1
    assert shown(made)["predicted_wait_ms"] is None
    # A run time from before, and no container yet.
    made = Desk()
    spec = ev.QueueSpec("n/a", "n", "a", 0)
    made.do(ev.QueueOpened(spec, 1, 500_000), ev.Adopted("i1", "n/a", 1))
    made.arrive("a1")
    seen = shown(made)
    assert (seen["mean_run_ms"], seen["predicted_wait_ms"]) == (500.0, None)
    assert seen["least_wait_ms"] == 300.001


def test_what_is_in_the_making_is_counted() -> None:
    made = Desk()
    spec = ev.QueueSpec("n/a", "n", "a", 0)
    made.do(ev.QueueOpened(spec, 1, 500_000), ev.Adopted("i1", "n/a", 1))
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert shown(made)["namespace_containers"] == 1
    made.now_us = 200_000
    made.arrive("a2")
    assert shown(made)["inputs"]["in_progress"] == 1
    assert shown(made)["predicted_wait_ms"] is not None


def test_numbers_have_three_digits() -> None:
    made = serving()
    for name, run_us in (("a1", 1_000), ("a2", 1_002), ("a3", 1_002)):
        made.now_us += 70_000
        made.do(ev.Pulled("c-1", 1, 1, (), (ev.Completion(name, 0, run_us, 0),)))
        made.arrive(f"a{int(name[1]) + 1}")
    made.now_us += 150_000
    made.arrive("b1")
    seen = shown(made)
    assert seen["mean_run_ms"] == 1.001
    rate = seen["inputs"]["arrivals_per_s"]
    assert rate != seen["arrivals_per_s"] == round(rate, 3)
    assert round(rate, 4) != seen["arrivals_per_s"]


def test_what_is_kept_for_calls_binds_the_rest() -> None:
    made = serving(namespace_containers_max=2)
    made.arrive("a2")
    assert shown(made)["binds"] == (
        "1 of 2 containers of namespace n, of which 1 are kept for calls; lifted when one of them"
        " goes, by a higher limit or a smaller reserve"
    )


def test_what_binds_is_named_with_count_limit_and_cure() -> None:
    made = Desk(300)
    made.open()
    assert shown(made)["binds"].startswith("invokers that have not told what they hold: i1;")
    made.do(ev.Adopted("i1", "n/a", 1))
    assert shown(made)["binds"] == "nothing"
    made.do(ev.LimitsChanged("n", 1))
    made.arrive("a1")
    assert shown(made)["binds"].startswith("1 of 1 containers of namespace n; lifted when one")
    made.do(ev.LimitsChanged("n", 3))
    assert shown(made)["binds"] == "nothing"
    made.do(ev.LimitsChanged("n", 5))
    made.now_us = 50_000
    made.do(ev.Denied("n/a", 1, "no quorum"))
    assert shown(made)["binds"] == "1 failures in a row: no quorum; tried again in 100 ms"


def test_the_action_limit_and_the_backlog_are_named() -> None:
    made = Desk(waiting_max=2)
    made.open(action_limit=1)
    made.do(ev.Adopted("i1", "n/a", 1))
    assert shown(made)["binds"] == "nothing"
    made.arrive("a1")
    made.do(ev.Reserved("n/a", 1, ("c-1",)))
    assert shown(made)["binds"].startswith("1 of 1 containers of the action; lifted by a higher")
    made.arrive("a2")
    assert shown(made)["binds"] == "2 of 2 activations wait; lifted when fewer do"
    (refused,) = made.arrive("a3")
    assert isinstance(refused, fx.Reject)
    assert "(allowed: 2); taken in again when no more than 1 wait" in refused.reason


def test_lacking_memory_is_named() -> None:
    made = serving(memory_mb=256)
    assert not shown(made)["no_room"]
    made.now_us = 5_000_000
    made.arrive("a2")
    assert shown(made)["no_room"]
    assert shown(made)["binds"].startswith("memory: 0 of the 256 MB a container needs are free")
    made.do(ev.Cancelled("a2"))
    assert not shown(made)["no_room"]  # nobody waits for it


@pytest.mark.parametrize(
    ("existing", "action_limit", "places", "words"),
    [
        (5, 3, 9, "those there are; the limits are lower"),
        (5, 9, 4, "those there are; the limits are lower"),
        (3, 3, 9, "the action's limit is 3"),
        (1, 4, 4, "the action's limit is 4"),
        (1, 9, 4, "the memory of all invokers holds 4"),
        (1, 9, 9, "the namespace's limit is 9"),
    ],
)
def test_what_binds_a_forecast_is_named(
    existing: int, action_limit: int, places: int, words: str
) -> None:
    snapshot = Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        incoming=0,
        waiting=0,
        existing=existing,
        in_progress=0,
        stale=0,
        namespace_existing=existing,
        namespace_in_progress=0,
        average_duration_ms=1.0,
        namespace_limit=9,
        action_limit=action_limit,
        concurrency=1,
    )
    assert Forecast(snapshot, places, 1_000, 0).limit() == words


class Asked:
    """Stands for a verdict and counts how often words are made of it."""

    name = "NOTHING"
    made = 0

    def __format__(self, spec: str) -> str:
        Asked.made += 1
        return self.name

    def __int__(self) -> int:
        return 0


class Wordy:
    """A rule whose every word counts."""

    def decide(self, snapshot: Snapshot) -> Decision:
        verdict: Any = Asked()
        return Decision(verdict, 0, snapshot, "{0.verdict}", "{0.verdict}")


def test_no_word_is_made_of_a_decision_unless_somebody_asks() -> None:
    for reports in (False, True):
        made = desk(rule=Wordy(), report_decisions=reports)
        Asked.made = 0
        words: list[object] = []
        for number in range(20):
            made.now_us += 150_000
            event = ev.Arrived("n/a", ev.Activation(f"a{number}", b"", made.now_us))
            words += made.scheduler.step(event, made.now_us)
        decided = [effect for effect in words if isinstance(effect, fx.Decided)]
        assert len(decided) == (20 if reports else 0)
        assert Asked.made == 0
        assert (shown(made)["reason"], shown(made)["alternative"]) == ("NOTHING", "NOTHING")
        assert Asked.made == 4


def test_a_refusal_says_that_the_limits_are_lower_than_what_there_is() -> None:
    made = serving()
    made.do(ev.LimitsChanged("n", 0))
    made.now_us = 50_000_000
    made.do(ev.Pulled("c-1", 1, 1, (), (ev.Completion("a1", 0, 50_000_000, 0),)))
    effects = made.arrive("a2", "a3", "a4")
    (refused,) = [effect for effect in effects if isinstance(effect, fx.Reject)]
    assert "1 containers, those there are; the limits are lower" in refused.reason


class GreedyRule:
    """Adds more than any cap allows, whatever it is shown."""

    def decide(self, snapshot: Snapshot) -> Decision:
        return Decision(Verdict.ADD, 5, snapshot, "it is greedy", "")


def test_a_rule_that_asks_beyond_the_cap_gets_what_the_cap_leaves() -> None:
    made = desk(rule=GreedyRule(), namespace_containers_max=3, namespace_reserve=1)
    (reserve,) = made.arrive("a1")
    assert isinstance(reserve, fx.Reserve)
    assert len(reserve.places) == 2  # one is for calls
    names = tuple([place.container for place in reserve.places])
    made.do(ev.Reserved("n/a", reserve.serial, names))
    made.now_us = 200_000
    assert made.arrive("a2") == []
    assert made.do(ev.TimeReached()) == []
    made.scheduler.check()


@pytest.mark.parametrize(("run_ms", "words"), [(0.01234567, "0.01235"), (50_000.4, "50000")])
def test_a_refusal_has_plain_numbers(run_ms: float, words: str) -> None:
    snapshot = Snapshot(
        state=QueueState.RUNNING,
        initialized=True,
        incoming=0,
        waiting=0,
        existing=1,
        in_progress=0,
        stale=0,
        namespace_existing=1,
        namespace_in_progress=0,
        average_duration_ms=run_ms,
        namespace_limit=1,
        action_limit=1,
        concurrency=1,
        creation_ms=100.0,
    )
    reason = Forecast(snapshot, 1, 1_000_000, 0).refusal(1_000, 1_000_000)
    assert f" {words} ms a run" in reason
