"""Proof of ``acs_core.spreading``: moving queues cools the hottest, and ends (G1, G2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acs_core.spreading import choose, coolest, is_hotter, to_move

names = st.sampled_from(["s0", "s1", "s2", "s3"])
# As many to do a second as one queue may have: whole numbers, so that sums are exact.
houses = st.dictionaries(names, st.lists(st.integers(1, 20_000), max_size=6), min_size=1)


@given(st.text(min_size=1, max_size=9), st.dictionaries(names, st.floats(0, 1e6), min_size=1))
def test_who_opens_a_queue_is_no_hotter_than_its_first_choice(
    queue: str, loads: dict[str, float]
) -> None:
    chosen = choose(queue, loads)
    first = choose(queue, dict.fromkeys(loads, 0.0))
    assert chosen == first or is_hotter(loads[first], loads[chosen])
    assert choose(queue, dict(reversed(loads.items()))) == chosen  # everybody names the same


@given(houses)
def test_moves_cool_the_hot_one_and_end(house: dict[str, list[int]]) -> None:
    moves = 0
    queues = sum(len(each) for each in house.values())
    while True:
        loads = {name: float(sum(each)) for name, each in house.items()}
        moved = False
        for name in house:
            to = coolest(name, loads)
            if not to:
                continue
            named = {str(n): float(load) for n, load in enumerate(house[name])}
            queue = to_move(loads[name] - loads[to], named.items())
            if not queue:
                # None is small enough: each would make the other the hotter one.
                gap = loads[name] - loads[to]
                assert all(load > gap / 2 for load in house[name])
                continue
            load = house[name].pop(int(queue))
            house[to].append(load)
            assert sum(house[to]) <= sum(house[name])
            moved = True
            moves += 1
            break
        if not moved:
            break
        # The sum of squares falls at each move, by the load times the gap at least; so it ends.
        assert moves <= 50 * max(1, queues)
