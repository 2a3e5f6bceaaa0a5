"""F1: giving back ends in max-min shares.  F2: nobody is left below who was above by it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from acs_core.fairness import Holding, giver


def max_min(demands: list[int], room: int) -> list[int]:
    """Fill one by one, the poorest that still wants more first: the definition of max-min."""
    shares = [0] * len(demands)
    for _ in range(room):
        wanting = [i for i, demand in enumerate(demands) if shares[i] < demand]
        if not wanting:
            break
        shares[min(wanting, key=lambda i: shares[i])] += 1
    return shares


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=7),
    st.integers(2, 30),
    st.randoms(use_true_random=False),
)
def test_repeated_giving_reaches_max_min_between_queues(demands, room, random) -> None:
    """F1, F2: from any allocation of the room, with room for all that have work."""
    room = min(max(room, len(demands)), sum(demands))
    shares = [0] * len(demands)
    for _ in range(room):
        shares[random.choice([i for i, d in enumerate(demands) if shares[i] < d])] += 1
    while True:
        held = [Holding(f"q{i}", "n", n) for i, n in enumerate(shares)]
        poor = [i for i in range(len(demands)) if shares[i] < demands[i]]
        moves = [(i, giver([h for h in held if h.containers], held[i], 1, True)) for i in poor]
        moves = [(i, g) for i, g in moves if g is not None]
        if not moves:
            break
        i, g = moves[0]
        before = min(shares[i], g.containers)
        shares[i] += 1
        shares[int(g.queue[1:])] -= 1
        assert min(shares[i], g.containers - 1) > before or g.containers - 1 >= shares[i]
    assert sorted(shares) == sorted(max_min(demands, room))


@given(st.data())
def test_namespaces_move_towards_their_weights(data) -> None:
    """F1: outside of turns, a gift never leaves the giver's namespace with the smaller share."""
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=2, max_size=4))
    held = [
        Holding(f"q{i}", f"n{i % len(weights)}", n, weight=weights[i % len(weights)])
        for i, n in enumerate(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=9)))
    ]
    index = data.draw(st.integers(0, len(weights) - 1))
    needy = Holding("needy", f"n{index}", 0, weight=weights[index])
    found = giver(held, needy, 1_000, False)
    if found is None or found.namespace == needy.namespace:
        return

    def share(holdings: list[Holding], namespace: str, weight: float) -> float:
        return sum(h.containers for h in holdings if h.namespace == namespace) / weight

    after = [replace(h, containers=h.containers - (h is found)) for h in held]
    after.append(replace(needy, containers=1))
    given_share = share(after, found.namespace, found.weight)
    assert given_share >= share(after, needy.namespace, needy.weight)
