"""Which scheduler gets a queue, and which queue leaves a hot one."""

from __future__ import annotations

import pytest

from acs_core import limits
from acs_core.spreading import choose, coolest, is_hotter, refuge, to_move, work_per_s


def test_work_is_what_arrives_in_a_second_and_what_is_in_hand() -> None:
    assert work_per_s(1_000, 20, 2_000_000) == 520.0
    assert work_per_s(1, 0, 0) == 1e6  # no time has passed


def test_queues_are_spread_and_only_those_of_one_that_went_move() -> None:
    three = dict.fromkeys(["s0", "s1", "s2"], 0.0)
    two = dict.fromkeys(["s0", "s1"], 0.0)
    before = {f"q{n}": choose(f"q{n}", three) for n in range(300)}
    after = {queue: choose(queue, two) for queue in before}
    assert all(list(before.values()).count(name) > 60 for name in three)
    assert all(after[q] == before[q] for q in before if before[q] != "s2")


def test_the_second_choice_is_taken_where_the_first_is_hotter() -> None:
    first = choose("q", {"a": 0.0, "b": 0.0})
    other = "b" if first == "a" else "a"
    load = limits.SPREAD_MIN_PER_S
    assert choose("q", {first: load, other: 0.0}) == first
    assert choose("q", {first: load + 1, other: 0.0}) == other
    assert choose("q", {first: 1e9}) == first


def test_nobody_but_the_first_two_is_looked_at() -> None:
    names = {"a", "b", "c"}
    first = choose("q", dict.fromkeys(names, 0.0))
    second = choose("q", dict.fromkeys(names - {first}, 0.0))
    loads = dict.fromkeys(names, 0.0) | {first: 1e6, second: 1e6}
    assert choose("q", loads) == first


def test_hotter_is_more_than_noise() -> None:
    ratio, least = limits.SPREAD_RATIO, limits.SPREAD_MIN_PER_S
    assert not is_hotter(10_000 * ratio + least, 10_000)
    assert is_hotter(10_000 * ratio + least + 1, 10_000)


def test_the_coolest_gets_it_where_one_is_hot() -> None:
    assert coolest("a", {"a": 9_000.0, "b": 100.0, "c": 50.0}) == "c"
    assert coolest("a", {"a": 9_000.0, "b": 50.0, "c": 50.0}) == "b"  # among equals by name
    assert coolest("a", {"a": 100.0, "b": 50.0}) == ""
    assert coolest("a", {"a": 9_000.0}) == ""


@pytest.mark.parametrize(
    ("gap", "chosen"), [(10.0, "five"), (9.9, "four"), (2.0, "one"), (1.9, ""), (100.0, "nine")]
)
def test_the_largest_that_makes_nobody_hotter_moves(gap: float, chosen: str) -> None:
    assert to_move(gap, [("one", 1.0), ("four", 4.0), ("five", 5.0), ("nine", 9.0)]) == chosen


@pytest.mark.parametrize(
    ("missed", "others", "to"),
    [
        ({}, ["s1"], ""),
        ({"s0": 1}, [], ""),
        ({"s0": 1}, ["s2", "s1"], "s1"),
        ({"s0": 2, "s1": 1}, ["s1", "s2"], "s2"),
        ({"s0": 2, "s1": 1, "s2": 3}, ["s1", "s2"], "s1"),
        # Each is missed by somebody: nothing would be better.
        ({"s0": 1, "s1": 1}, ["s1"], ""),
        ({"s0": 1, "s1": 2}, ["s1"], ""),
    ],
)
def test_where_the_queues_of_one_that_is_not_reached_go(
    missed: dict[str, int], others: list[str], to: str
) -> None:
    assert refuge("s0", missed, others) == to
