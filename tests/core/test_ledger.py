"""What the ledger says of all invokers together, and of a namespace."""

from __future__ import annotations

import pytest

from acs_core.effects import Place
from acs_core.events import InvokerReported, QueueSpec
from acs_core.ledger import ContainerEntry, Ledger, NamespaceEntry, QueueEntry
from acs_core.limits import CREATION_US
from acs_core.load import QueueLoad


def ledger_of(*reports: InvokerReported) -> Ledger:
    ledger = Ledger()
    for report in reports:
        assert ledger.report(report)
    return ledger


def queue_of(ledger: Ledger, containers_max: int = 10) -> QueueEntry:
    spec = QueueSpec("q", "n", "a", 0, memory_mb=100)
    queue = QueueEntry(spec, 1, 5, NamespaceEntry(containers_max, 0), QueueLoad(0), 0)
    queue.namespace.queues = 1
    ledger.queues["q"] = queue
    ledger.namespaces["n"] = queue.namespace
    return queue


def test_a_namespace_has_room_for_what_it_does_not_hold_in_any_way() -> None:
    ledger = ledger_of(InvokerReported("i", 1_000))
    queue = queue_of(ledger)
    serving = ContainerEntry("c1", "i", queue)
    for container in (serving, ContainerEntry("c2", "i", queue), ContainerEntry("c3", "i", queue)):
        ledger.enter(container, 0)
    ledger.serve(serving, 7)
    ledger.reserve(queue, 1, tuple([Place(f"p{n}", "i") for n in range(4)]), 0, 0)
    ledger.check()
    assert queue.namespace.room() == 10 - 1 - 2 - 4
    assert (serving.idle_since_us, serving.serving_since_us) == (7, 7)
    (view,) = ledger.views()
    assert (view.free_mb, view.creations) == (1_000 - 700, 2)


def test_a_report_is_new_once() -> None:
    ledger = ledger_of(InvokerReported("i", 1_000))
    assert not ledger.report(InvokerReported("i", 2_000, 500))
    assert ledger.largest_mb() == 1_500


def test_an_invoker_without_a_measure_takes_the_assumed_time() -> None:
    assert ledger_of(InvokerReported("i", 1)).creation_us() == CREATION_US
    assert ledger_of(InvokerReported("i", 1, 0, 5)).creation_us() == 5


def test_the_best_invoker_says_when_a_container_would_be_ready() -> None:
    assert Ledger().creation_us() == CREATION_US
    both = ledger_of(InvokerReported("i", 1, 0, 90_000), InvokerReported("j", 1, 0, 70_000))
    assert both.creation_us() == 70_000


def test_the_largest_invoker_is_the_one_with_most_for_us() -> None:
    assert Ledger().largest_mb() == 0
    both = ledger_of(InvokerReported("i", 1_000, 900), InvokerReported("j", 500, 100))
    assert both.largest_mb() == 400


@pytest.mark.parametrize(
    ("rates", "together"),
    [([], 0.0), ([0.5], 0.5), ([4.0, 2.5], 6.5), ([4.0, 0.0], 0.0), ([0.0], 0.0)],
)
def test_engines_swap_together_as_far_as_all_are_known(rates: list[float], together: float) -> None:
    reports = [InvokerReported(f"i{n}", 1, 0, 0, rate) for n, rate in enumerate(rates)]
    assert ledger_of(*reports).swaps_per_s() == together


def test_a_new_queue_was_never_decided_nor_given_up() -> None:
    queue = queue_of(Ledger())
    assert queue.decided_us < 0
    assert not queue.final
    assert not queue.initialized


@pytest.mark.parametrize(
    ("held", "levels", "rooms"),
    [
        (0, {}, [2, 3, 4]),
        (2, {}, [0, 1, 2]),
        (3, {2: 1}, [0, 1, 1]),
        (3, {1: 1}, [0, 0, 1]),
        (2, {1: 1, 2: 1}, [2, 2, 2]),
        (4, {1: 2}, [-1, -1, 0]),
    ],
)
def test_each_depth_has_the_room_that_the_reserve_leaves(
    held: int, levels: dict[int, int], rooms: list[int]
) -> None:
    namespace = NamespaceEntry(4, 2)
    namespace.reserving = held
    namespace.levels = levels
    assert [namespace.room(depth) for depth in range(3)] == rooms
    assert namespace.room() == rooms[0]
    # The lowest level with room is the one that a container gets, none above its depth.
    for depth in range(5):
        free = [level for level in range(min(depth, 2) + 1) if rooms[level] > 0]
        assert namespace.level_for(depth) == (free[0] if free else -1)


def test_the_levels_of_what_is_reserved_and_held_are_counted() -> None:
    ledger = ledger_of(InvokerReported("i", 1_000))
    queue = queue_of(ledger)
    assert queue.reserving_level == 0
    ledger.reserve(queue, 1, (Place("p1", "i"), Place("p2", "i")), 1, 0)
    assert queue.namespace.levels == {1: 2}
    ledger.end_reservation(queue)
    assert (queue.namespace.levels, queue.reserving_level) == ({}, 0)
    container = ContainerEntry("c1", "i", queue)
    assert container.resuming is False
    container.level = 1
    ledger.enter(container, 0)
    assert queue.namespace.levels == {1: 1}
    ledger.forget(container)
    assert queue.namespace.levels == {}
