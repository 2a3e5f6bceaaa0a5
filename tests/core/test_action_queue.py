"""The line of one action and the deadline index: refusals, gaps, and what an empty one says."""

from __future__ import annotations

import gc

import pytest

from acs_core.action_queue import ActionQueue, ActivationTable, DeadlineIndex
from acs_core.events import Activation
from acs_core.nesting import Calls


def activations(count: int) -> list[Activation]:
    return [Activation(f"a{number}", b"", number) for number in range(count)]


def test_capacity_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="capacity is 0; it must be at least 1"):
        ActionQueue(0)
    assert ActionQueue(1).capacity == 1


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue = ActionQueue(1)
    assert queue.take() is None
    assert queue.head() is None
    assert queue.waiting == 0
    assert queue.older_than(2**62) == 0


def test_a_full_queue_refuses_and_takes_back_all_the_same() -> None:
    queue = ActionQueue(2)
    first, second, third = activations(3)
    assert queue.offer(first)
    assert queue.offer(second)
    assert not queue.offer(third)
    assert queue.waiting == 2
    queue.put_back(third)
    assert queue.waiting == 3
    assert [queue.take(), queue.take(), queue.take()] == [third, first, second]


def test_a_withdrawn_activation_is_skipped_wherever_it_stands() -> None:
    queue = ActionQueue(10)
    line = activations(5)
    for activation in line:
        queue.offer(activation)
    for gone in (line[0], line[2], line[4]):
        queue.withdraw(gone)
    assert queue.waiting == 2
    assert queue.older_than(3) == 2
    assert queue.head() is line[1]
    assert queue.take() is line[1]
    assert queue.take() is line[3]
    assert queue.take() is None
    queue.check()


def test_gaps_are_bounded() -> None:
    queue = ActionQueue(1_000)
    line = activations(1_000)
    for activation in line:
        queue.offer(activation)
    for activation in line[10:]:
        queue.withdraw(activation)
        queue.check()
    assert queue.waiting == 10


def test_gaps_are_bounded_whatever_calls_wait() -> None:
    queue = ActionQueue(1_000)
    line = activations(40)
    for activation in line:
        queue.offer(activation)
        queue.offer(Activation(f"{activation.activation_id}.1", b"", 50, 0, ("a0",)))
    for activation in line[1:]:
        queue.withdraw(activation)
        queue.check()
    assert queue.waiting == 41


def test_the_head_is_the_oldest_whatever_its_depth() -> None:
    calls = Calls()
    queue = ActionQueue(10, calls)
    late = Activation("late", b"", 5, 0, ("r",))
    deep = Activation("deep", b"", 3, 0, ("r", "s"))
    queue.offer(late)
    queue.offer(deep)
    assert queue.head() is deep
    root = Activation("root", b"", 3)
    queue.offer(root)
    assert queue.head() is root  # of the same age
    assert list(calls.waiting) == ["late", "deep"]
    assert [queue.take(), queue.take(), queue.take()] == [deep, late, root]
    assert calls.waiting == {}


def test_withdrawing_twice_is_a_callers_bug() -> None:
    queue = ActionQueue(2)
    activation = activations(1)[0]
    queue.offer(activation)
    queue.withdraw(activation)
    with pytest.raises(AssertionError):
        queue.withdraw(activation)
    assert queue.waiting == 0


def test_counting_the_old_stops_at_the_first_younger_one() -> None:
    queue = ActionQueue(5)
    for arrived_us in (1, 2, 9, 3):
        queue.offer(Activation(f"a{arrived_us}", b"", arrived_us))
    assert queue.older_than(3) == 2


def test_index_keeps_one_time_a_key() -> None:
    index = DeadlineIndex()
    assert index.next_us() == -1
    assert index.pop_due(2**62) is None
    index.set("b", 5)
    index.set("a", 5)
    index.set("b", 3)
    assert (index.next_us(), index.time_of("b"), index.time_of("c")) == (3, 3, -1)
    assert index.pop_due(2) is None
    assert [index.pop_due(9), index.pop_due(9), index.pop_due(9)] == ["b", "a", None]
    index.discard("nobody")
    index.check()


def test_index_forgets_a_key_that_was_popped() -> None:
    index = DeadlineIndex()
    index.set("a", 5)
    index.set("b", 7)
    assert index.pop_due(5) == "a"
    assert (index.time_of("a"), index.next_us()) == (-1, 7)
    index.discard("a")
    assert (index.time_of("a"), index.next_us()) == (-1, 7)
    index.set("a", 6)
    assert (index.time_of("a"), index.next_us()) == (6, 6)
    index.check()


def test_table_holds_what_was_put_in_last() -> None:
    table = ActivationTable()
    line = activations(1_000)
    for activation in line:
        table[activation.activation_id] = activation
    assert len(table) == 1_000
    assert all(table.get(activation.activation_id) is activation for activation in line)
    again = Activation("a7", b"", 9)
    table["a7"] = again
    assert (len(table), table.get("a7")) == (1_000, again)
    del table["a7"]
    assert "a7" not in table
    assert "a8" in table
    assert table.get("a7") is None
    assert len(table) == 999
    with pytest.raises(KeyError, match="a7"):
        del table["a7"]


def test_a_deadline_is_nothing_for_the_collector_to_look_at() -> None:
    index = DeadlineIndex()
    index.set("first", 1)
    before = len(gc.get_objects())
    for number in range(1_000):
        index.set(f"q{number}", number)
    assert len(gc.get_objects()) - before < 100
    index.check()


def test_gaps_never_outnumber_what_waits() -> None:
    """Nor after those before them were taken, or after some came that make the line longer."""
    queue = ActionQueue(100)
    waiting = [Activation(f"a{number}", b"", number) for number in range(40)]
    for activation in waiting:
        assert queue.offer(activation)
    for activation in waiting[20:]:
        queue.withdraw(activation)
        queue.check()
    for _ in range(10):
        assert queue.take() is not None
        queue.check()
    for _ in range(10):
        queue.drop_head()
        queue.check()
    assert (queue.waiting, queue.take()) == (0, None)

    few = [Activation(f"b{number}", b"", number) for number in range(12)]
    for activation in few:
        assert queue.offer(activation)
    for activation in few[2:]:
        queue.withdraw(activation)
    for number in range(5):
        assert queue.offer(Activation(f"c{number}", b"", 100))
        queue.check()
