"""What is said of a queue, and that nothing is said unless somebody asks."""

from __future__ import annotations

from typing import Any

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.demand import Decision, Snapshot
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
    made.arrive("a1")
    made.now_us = 2_000
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
    assert seen["predicted_wait_ms"] > seen["least_wait_ms"] > 0


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
    made.do(ev.LimitsChanged("n", 5))
    made.do(ev.Denied("n/a", 1, "no quorum"))
    assert shown(made)["binds"] == "1 failures in a row: no quorum; tried again in 100 ms"


def test_the_action_limit_and_the_backlog_are_named() -> None:
    made = Desk(waiting_max=2)
    made.open(action_limit=1)
    made.do(ev.Adopted("i1", "n/a", 1))
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
    made.now_us = 5_000_000
    made.arrive("a2", "a3")
    assert shown(made)["binds"].startswith("memory: 0 of the 256 MB a container needs are free")


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
