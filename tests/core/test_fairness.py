"""Who gives a container back."""

from __future__ import annotations

from acs_core.fairness import Holding, giver, quantum_us

QUANTUM = 1_000


def name(holding: Holding | None) -> str | None:
    return None if holding is None else holding.queue


def test_the_richest_queue_of_the_namespace_gives() -> None:
    held = [Holding("a", "n", 5), Holding("b", "n", 7), Holding("c", "n", 2)]
    assert name(giver(held, Holding("d", "n", 0), QUANTUM, True)) == "b"


def test_nobody_gives_who_would_be_poorer_than_the_needy_then_is() -> None:
    held = [Holding("a", "n", 2), Holding("b", "n", 1, turn_us=QUANTUM)]
    assert giver(held, Holding("b", "n", 1), QUANTUM, True) is None


def test_with_one_container_each_the_longest_turn_ends_after_its_quantum() -> None:
    held = [Holding("a", "n", 1, QUANTUM), Holding("b", "n", 1, QUANTUM + 1)]
    assert name(giver(held, Holding("c", "n", 0), QUANTUM, True)) == "b"
    assert giver(held, Holding("c", "n", 0), QUANTUM + 2, True) is None


def test_a_turn_ends_with_its_quantum() -> None:
    held = [Holding("a", "n", 1, QUANTUM)]
    assert name(giver(held, Holding("c", "n", 0), QUANTUM, True)) == "a"
    assert giver(held, Holding("c", "n", 0), QUANTUM + 1, True) is None


def test_who_has_just_begun_has_no_turn_and_weighs_one() -> None:
    assert Holding("a", "n", 1) == Holding("a", "n", 1, turn_us=0, weight=1.0)


def test_a_queue_that_has_one_takes_no_turn_from_another() -> None:
    held = [Holding("a", "n", 1, 10 * QUANTUM), Holding("b", "n", 1)]
    assert giver(held, held[1], QUANTUM, True) is None


def test_the_namespace_with_more_than_its_share_gives_first() -> None:
    held = [Holding("a", "rich", 6), Holding("b", "rich", 1), Holding("c", "poor", 3)]
    assert name(giver(held, Holding("d", "poor", 0), QUANTUM, False)) == "a"


def test_weights_move_the_shares() -> None:
    held = [Holding("a", "heavy", 6, weight=3.0), Holding("c", "light", 3)]
    assert name(giver(held, Holding("d", "light", 0), QUANTUM, False)) == "c"
    assert name(giver(held, Holding("d", "heavy", 0, weight=3.0), QUANTUM, False)) == "a"


def test_a_namespace_cap_is_not_relieved_by_another_namespace() -> None:
    held = [Holding("a", "other", 9)]
    assert giver(held, Holding("b", "n", 0), QUANTUM, True) is None
    assert name(giver(held, Holding("b", "n", 0), QUANTUM, False)) == "a"


def test_namespaces_with_one_container_each_take_turns_as_well() -> None:
    held = [Holding("a", "m", 1, QUANTUM), Holding("b", "o", 1, QUANTUM + 1)]
    assert name(giver(held, Holding("c", "n", 0), QUANTUM, False)) == "b"
    assert giver(held, Holding("c", "n", 0), QUANTUM + 2, False) is None


def test_the_quantum_respects_the_engines_and_the_wait_bound() -> None:
    assert quantum_us(1, 300_000, 10.0, 60_000_000) == 300_000
    assert quantum_us(50, 300_000, 5.0, 60_000_000) == 20_000_000
    assert quantum_us(1_000, 300_000, 5.0, 30_000_000) == 30_000_000
    assert quantum_us(3, 300_000, 0.5, 60_000_000) == 12_000_000
    # Unknown: one creation after the other, if it takes any time at all.
    assert quantum_us(10, 500_000, 0.0, 60_000_000) == 10_000_000
    assert quantum_us(3, 1, 0.0, 60_000_000) == 6
    assert quantum_us(3, 0, 0.0, 60_000_000) == 6
