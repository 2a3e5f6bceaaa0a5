"""What is remembered of actions whose queue has closed, and what a new action is taken for."""

from __future__ import annotations

from acs_core import events as ev
from acs_core.demand import Snapshot
from acs_core.effects import CloseQueue, Create, Decided, Deliver, Reject, Reserve
from acs_core.history import RunHistory
from acs_core.limits import HISTORY_MAX, TYPICAL_ACTIONS, TYPICAL_KNOWN_MIN
from acs_core.load import QueueLoad
from acs_core.scheduler import Scheduler
from acs_core.scheduler_config import SchedulerConfig


def known(namespace: str, *runs_us: int) -> RunHistory:
    """Return a history of one action for each of the runs."""
    history = RunHistory()
    for number, run_us in enumerate(runs_us):
        opens(history, namespace, f"known-{number}").ran(run_us)
    return history


def opens(
    history: RunHistory, namespace: str, action: str, revision: int = 0, history_us: int = 0
) -> QueueLoad:
    spec = ev.QueueSpec(f"{namespace}/{action}@{revision}", namespace, action, revision)
    return history.open(spec, 0, history_us)


def test_an_action_is_taken_for_what_it_took() -> None:
    history = known("n", 5_000)
    again = opens(history, "n", "known-0")
    assert (again.mean_us, again.samples, again.typical_us) == (5_000.0, 1, 0)
    again.ran(1_000)
    assert opens(history, "n", "known-0").mean_us == 3_000.0
    assert opens(history, "n", "known-0", history_us=40_000).mean_us == 40_000.0


def test_a_new_revision_is_guessed_from_the_last_one() -> None:
    history = known("n", *[9_000] * TYPICAL_KNOWN_MIN)
    opens(history, "n", "updated").ran(5_000)
    again = opens(history, "n", "updated", revision=1)
    assert (again.samples, again.typical_us) == (0, 5_000)
    # Nothing has run of that one: the guess is as good for the next.
    assert opens(history, "n", "updated", revision=2).typical_us == 5_000
    again = opens(history, "n", "updated", revision=3)
    again.ran(1_000)
    assert opens(history, "n", "updated", revision=3).mean_us == 1_000.0


def test_a_run_too_short_to_be_measured_is_known_all_the_same() -> None:
    again = opens(known("n", 0), "n", "known-0")
    assert (again.samples, again.mean_us) == (1, 1.0)


def test_a_queue_that_closes_without_a_run_loses_nothing() -> None:
    history = known("n", 5_000)
    opens(history, "n", "known-0")
    assert opens(history, "n", "known-0").mean_us == 5_000.0


def test_a_new_action_is_taken_for_the_median_of_its_namespace() -> None:
    runs_us = [1_000_000, 9_000, 20_000, 300_000, 1_000]
    assert len(runs_us) == TYPICAL_KNOWN_MIN
    history = known("n", *runs_us)
    assert history.typical_us("n") == 20_000
    assert history.typical_us("nobody's") == 0
    load = opens(history, "n", "new")
    assert (load.samples, load.typical_us) == (0, 20_000)
    assert opens(history, "m", "new").typical_us == 0, "another namespace's is its own"
    assert known("n", *runs_us[1:]).typical_us("n") == 0, "too few"
    assert opens(history, "n", "told", history_us=5).typical_us == 0


def test_the_newest_actions_are_typical() -> None:
    history = known("n", *[9_000] * TYPICAL_ACTIONS, *[1_000] * (TYPICAL_ACTIONS // 2))
    assert history.typical_us("n") == 9_000
    opens(history, "n", "one more").ran(1_000)
    assert history.typical_us("n") == 1_000


def test_who_opens_again_is_among_the_newest() -> None:
    half = TYPICAL_ACTIONS // 2
    history = known("n", 1_000, *[9_000] * (half + 1), *[1_000] * half)
    assert history.typical_us("n") == 9_000
    opens(history, "n", "known-0")
    assert history.typical_us("n") == 1_000


def test_those_that_have_not_run_are_not_typical() -> None:
    history = known("n", *[9_000] * TYPICAL_ACTIONS)
    for number in range(TYPICAL_ACTIONS - TYPICAL_KNOWN_MIN):
        opens(history, "n", f"new-{number}")
    assert history.typical_us("n") == 9_000
    opens(history, "n", "one more")
    assert history.typical_us("n") == 0


def test_who_opened_longest_ago_is_forgotten_first() -> None:
    history = known("m", *[1_000] * TYPICAL_KNOWN_MIN)
    opens(history, "n", "kept", history_us=2_000)
    for number in range(HISTORY_MAX - TYPICAL_KNOWN_MIN - 1):
        opens(history, "n", f"other-{number}")
    assert history.typical_us("m") == 1_000, "all fit"
    opens(history, "n", "kept")  # no longer among the oldest
    opens(history, "n", "beyond")
    assert history.typical_us("m") == 0, "one of them is gone"
    for number in range(1, TYPICAL_KNOWN_MIN + 1):
        opens(history, "n", f"beyond-{number}")
    assert opens(history, "n", "kept").mean_us == 2_000.0
    assert opens(history, "m", "known-4").samples == 0


# --- in a scheduler ------------------------------------------------------------------------------


def opened(scheduler: Scheduler, action: str, revision: int = 0) -> str:
    queue = f"n/{action}@{revision}"
    scheduler.step(ev.QueueOpened(ev.QueueSpec(queue, "n", action, revision), 1), 0)
    scheduler.step(ev.Adopted("i1", queue, 1), 0)
    return queue


def arrive(scheduler: Scheduler, queue: str, activation_id: str) -> list[object]:
    return scheduler.step(ev.Arrived(queue, ev.Activation(activation_id, b"", 0)), 0)


def ran(scheduler: Scheduler, queue: str, run_us: int, outcome: int = 0) -> None:
    """Let the queue have one run, on a container that goes afterwards."""
    out = arrive(scheduler, queue, f"a {queue}")
    (asked,) = [effect for effect in out if isinstance(effect, Reserve)]
    (place,) = asked.places
    out = scheduler.step(ev.Reserved(queue, asked.serial, (place.container,)), 0)
    assert [effect.container for effect in out if isinstance(effect, Create)] == [place.container]
    scheduler.step(ev.ContainerServing(place.container, "i1"), 0)
    out = scheduler.step(ev.Pulled(place.container, 1, 1), 0)
    (delivered,) = [effect for effect in out if isinstance(effect, Deliver)]
    ended = ev.Completion(delivered.activation.activation_id, 0, run_us, outcome)
    scheduler.step(ev.Pulled(place.container, 1, 0, (), (ended,)), 0)
    scheduler.step(ev.ContainerGone(place.container, "idle"), 0)


def seen(out: list[object]) -> Snapshot:
    (decided,) = [effect for effect in out if isinstance(effect, Decided)]
    return decided.snapshot


def scheduler_of_known(*runs_us: int, memory_mb: int = 100_000) -> Scheduler:
    scheduler = Scheduler(SchedulerConfig(report_decisions=True))
    scheduler.step(ev.InvokerReported("i1", memory_mb), 0)
    for number, run_us in enumerate(runs_us):
        ran(scheduler, opened(scheduler, f"known-{number}"), run_us)
    return scheduler


def test_a_new_revision_begins_with_the_run_of_the_last() -> None:
    scheduler = scheduler_of_known(7_000_000)
    snapshot = seen(arrive(scheduler, opened(scheduler, "known-0", 1), "first"))
    assert (snapshot.average_duration_ms, snapshot.typical_run_ms) == (None, 7_000.0)


def test_a_queue_that_opens_again_begins_with_its_last_run() -> None:
    scheduler = scheduler_of_known(7_000_000)
    out = scheduler.step(ev.QueueClosing("n/known-0@0", "deleted"), 0)
    assert [type(effect) for effect in out] == [CloseQueue]
    snapshot = seen(arrive(scheduler, opened(scheduler, "known-0"), "first"))
    assert snapshot.average_duration_ms == 7_000.0


def test_a_burst_of_a_new_action_gets_what_its_siblings_would_need() -> None:
    scheduler = scheduler_of_known(*[7_000_000] * TYPICAL_KNOWN_MIN)
    queue = opened(scheduler, "new")
    out = arrive(scheduler, queue, "first")
    assert (seen(out).average_duration_ms, seen(out).typical_run_ms) == (None, 7_000.0)
    (asked,) = [effect for effect in out if isinstance(effect, Reserve)]
    for number in range(11):
        arrive(scheduler, queue, f"more {number}")
    (first,) = asked.places
    scheduler.step(ev.Reserved(queue, asked.serial, (first.container,)), 0)
    look_us = scheduler.next_deadline_us()
    assert look_us is not None
    out = scheduler.step(ev.TimeReached(), look_us)
    (asked,) = [effect for effect in out if isinstance(effect, Reserve)]
    assert len(asked.places) == 11, "twelve wait, one container is in the making"


def test_a_guess_ends_with_the_first_run_however_it_ended() -> None:
    for outcome, run_ms in ((ev.Outcome.SUCCESS, 2.0), (ev.Outcome.DEVELOPER_ERROR, None)):
        scheduler = scheduler_of_known(*[7_000_000] * TYPICAL_KNOWN_MIN)
        ran(scheduler, opened(scheduler, "new"), 2_000, outcome)
        snapshot = seen(arrive(scheduler, "n/new@0", "next"))
        assert (snapshot.average_duration_ms, snapshot.typical_run_ms) == (run_ms, 0.0)


def test_nobody_is_refused_by_a_guess() -> None:
    """As many arrive as two containers that run for 20 s could not serve within the bound."""
    refused = {}
    for known_us in (20_000_000, 0):
        scheduler = scheduler_of_known(*[20_000_000] * TYPICAL_KNOWN_MIN, memory_mb=512)
        spec = ev.QueueSpec("n/new@0", "n", "new", 0)
        scheduler.step(ev.QueueOpened(spec, 1, known_us), 0)
        scheduler.step(ev.Adopted("i1", spec.queue, 1, (ev.Held("x", True),)), 0)
        out = [effect for n in range(30) for effect in arrive(scheduler, spec.queue, f"a{n}")]
        refused[known_us] = sum(isinstance(effect, Reject) for effect in out)
    assert refused[20_000_000] > 0
    assert refused[0] == 0
