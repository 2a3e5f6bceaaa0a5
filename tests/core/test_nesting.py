"""Calls within calls, step by step; what holds for all of them is proved in proofs/test_nesting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from acs_core import effects as fx
from acs_core import events as ev
from acs_core import nesting
from acs_core.action_queue import ActionQueue
from acs_core.limits import CAUSES_MAX, TIME_MAX_US
from acs_core.nesting import Calls
from acs_core.scheduler import Scheduler, SchedulerConfig


class Desk:
    """A scheduler with queues n/a and n/b, one invoker, and containers that come at once."""

    def __init__(self, cap: int, reserve: int, memory_mb: int = 10_000) -> None:
        config = SchedulerConfig(name="c", namespace_containers_max=cap, namespace_reserve=reserve)
        self.scheduler = Scheduler(config)
        self.where: dict[str, str] = {}
        self.rejected: dict[str, fx.Reject] = {}
        self.released: list[str] = []
        self.do(ev.InvokerReported("i1", memory_mb))
        for epoch, queue in enumerate(("n/a", "n/b"), 1):
            self.do(ev.QueueOpened(ev.QueueSpec(queue, "n", queue[-1], 0), epoch))
            self.do(ev.Adopted("i1", queue, epoch))

    def do(self, event: ev.Event, now_us: int = 0) -> None:
        for effect in self.scheduler.step(event, now_us):
            if isinstance(effect, fx.Reserve):
                names = tuple([place.container for place in effect.places])
                self.do(ev.Reserved(effect.queue, effect.serial, names), now_us)
            elif isinstance(effect, fx.Create):
                self.do(ev.ContainerServing(effect.container, "i1"), now_us)
                self.do(ev.Pulled(effect.container, effect.epoch, 1), now_us)
            elif isinstance(effect, fx.Deliver):
                self.where[effect.activation.activation_id] = effect.container
            elif isinstance(effect, fx.Reject):
                self.rejected[effect.activation.activation_id] = effect
            elif isinstance(effect, fx.Release):
                self.released.append(effect.container)
        self.scheduler.check()

    def arrive(self, queue: str, name: str, *causes: str, now_us: int = 0) -> None:
        self.do(ev.Arrived(queue, ev.Activation(name, b"", now_us, 0, causes)), now_us)


def test_a_call_waits_for_no_place_behind_others() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.do(ev.QueueOpened(ev.QueueSpec("n/d", "n", "d", 0), 3))
    desk.do(ev.Adopted("i1", "n/d", 3))
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1")  # it starves, and is the first in the line
    desk.arrive("n/d", "d1", "a1")
    assert desk.where == {"a1": "c-1", "d1": "c-2"}


def test_for_a_call_of_itself_an_action_needs_another_container() -> None:
    desk = Desk(cap=3, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/a", "a2", "a1", now_us=10_000)
    assert desk.where == {"a1": "c-1", "a2": "c-2"}


def test_a_call_takes_the_place_that_other_work_may_not_take() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1")
    assert desk.where == {"a1": "c-1"}
    desk.arrive("n/b", "b2", "a1")
    assert desk.where == {"a1": "c-1", "b2": "c-2"}
    done = ev.Completion("b2", 0, 1_000, 0)
    desk.do(ev.Pulled("c-2", 2, 1, (), (done,)))
    assert "b1" not in desk.where  # the place is for calls still
    desk.arrive("n/b", "b3", "a1")
    assert desk.where["b3"] == "c-2"


def test_what_was_kept_for_calls_serves_the_rest_when_the_reserve_is_free_again() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    desk.do(ev.Pulled("c-2", 2, 1, (), (ev.Completion("b1", 0, 1_000, 0),)))
    desk.arrive("n/b", "b2")
    assert "b2" not in desk.where
    desk.do(ev.ContainerGone("c-1", "it died"), 1)
    desk.do(ev.TimeReached(), 200_000)
    assert desk.where["b2"] == "c-2"


def test_a_call_whose_callers_hold_everything_is_refused_with_the_chain() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    desk.arrive("n/a", "a2", "a1", "b1")
    refused = desk.rejected["a2"]
    assert refused.cause == fx.Cause.CALLERS_HOLD
    assert "a1 > b1 > a2" in refused.reason
    assert "holds 2 containers (allowed: 2, of them for calls: 1)" in refused.reason


def test_a_block_that_arises_when_the_cap_falls_is_found_as_well() -> None:
    desk = Desk(cap=3, reserve=0)
    desk.arrive("n/a", "a1")
    desk.do(ev.LimitsChanged("n", 2, reserve=0))
    desk.arrive("n/b", "b1")
    desk.arrive("n/b", "b2", "a1")
    assert not desk.rejected  # b1 will end
    desk.do(ev.LimitsChanged("n", 1, reserve=0))
    assert not desk.rejected
    desk.arrive("n/a", "a2", "b1")
    assert desk.rejected["a2"].cause == fx.Cause.CALLERS_HOLD


def test_room_is_not_awaited_from_a_container_that_waits_for_the_call() -> None:
    desk = Desk(cap=2, reserve=0)
    desk.arrive("n/a", "a1")
    desk.arrive("n/a", "a2")
    desk.do(ev.TimeReached(), 400_000)
    assert desk.where == {"a1": "c-1", "a2": "c-2"}
    desk.arrive("n/b", "b1", now_us=400_000)
    assert desk.released == ["c-1"]  # given back, after a1
    desk.arrive("n/b", "b2", "a1", now_us=400_000)
    desk.do(ev.Pulled("c-2", 1, 1, (), (ev.Completion("a2", 0, 1_000, 0),)), 500_000)
    desk.do(ev.TimeReached(), 600_000)
    assert desk.released == ["c-1", "c-2"]
    assert not desk.rejected


def test_who_holds_a_call_up_is_not_asked_to_give_its_container_back() -> None:
    desk = Desk(cap=2, reserve=0)
    desk.arrive("n/a", "a1")
    desk.arrive("n/a", "a2")
    desk.do(ev.TimeReached(), 400_000)
    desk.arrive("n/b", "b1", "a1", now_us=400_000)
    assert desk.released == ["c-2"]


def test_where_everybody_holds_a_call_up_nobody_gives_a_container_back() -> None:
    desk = Desk(cap=4, reserve=0)
    desk.arrive("n/b", "b0")
    desk.arrive("n/a", "a1")
    desk.arrive("n/a", "a2")
    desk.arrive("n/a", "a3")
    desk.do(ev.TimeReached(), 400_000)
    assert set(desk.where) == {"b0", "a1", "a2", "a3"}
    for number in (1, 2, 3):
        desk.arrive("n/b", f"b{number}", f"a{number}", now_us=400_000)
    desk.do(ev.TimeReached(), 800_000)
    assert not desk.released
    assert not desk.rejected  # they wait for b0's container


def test_a_container_that_is_kept_for_calls_makes_no_room_for_other_work() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    desk.do(ev.Pulled("c-2", 2, 1, (), (ev.Completion("b1", 0, 1_000, 0),)))
    desk.arrive("n/a", "a2")
    desk.do(ev.TimeReached(), 400_000)
    assert not desk.released
    assert "a2" not in desk.where
    desk.arrive("n/b", "b2", "a1", now_us=400_000)
    assert desk.where["b2"] == "c-2"


def test_callers_that_hold_all_memory_are_found_as_well() -> None:
    desk = Desk(cap=10, reserve=1, memory_mb=256)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    assert desk.rejected["b1"].cause == fx.Cause.CALLERS_HOLD


def test_an_expired_call_is_not_served_from_the_reserve() -> None:
    desk = Desk(cap=2, reserve=1)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    desk.arrive("n/b", "b2", "a1")
    late_us = desk.scheduler.config.wait_max_us
    desk.do(ev.Pulled("c-2", 2, 1, (), (ev.Completion("b1", 0, 1_000, 0),)), late_us)
    assert desk.rejected["b2"].cause == fx.Cause.EXPIRED


def test_a_call_that_is_given_back_goes_to_a_slot_that_is_for_calls() -> None:
    desk = Desk(cap=3, reserve=2)
    desk.arrive("n/a", "a1")
    desk.arrive("n/b", "b1", "a1")
    desk.arrive("n/b", "b2", "a1", "x")
    late_us = 400_000
    desk.do(ev.TimeReached(), late_us)
    assert desk.where == {"a1": "c-1", "b1": "c-2", "b2": "c-3"}
    desk.do(ev.Pulled("c-2", 2, 1, (), (ev.Completion("b1", 0, 1_000, 0),)), late_us)
    desk.do(ev.Returned("c-3", 2, ("b2",)), late_us)
    assert desk.where["b2"] == "c-2"


@pytest.mark.parametrize("reserve", [-1, TIME_MAX_US + 1])
def test_a_wrong_reserve_is_refused_and_nothing_changed(reserve: int) -> None:
    desk = Desk(cap=2, reserve=1)
    with pytest.raises(ValueError, match=f"reserve is {reserve}; it must be an integer in 0.."):
        desk.do(ev.LimitsChanged("n", 5, reserve=reserve))
    assert desk.scheduler.explain("n/a")["namespace_containers_max"] == 2


def test_wrong_causes_are_named() -> None:
    with pytest.raises(ValueError, match=f"causes has {CAUSES_MAX + 1} ids"):
        ev.Activation("a", b"", 0, 0, tuple([f"c{n}" for n in range(CAUSES_MAX + 1)]))
    with pytest.raises(ValueError, match="causes is ''"):
        ev.Activation("a", b"", 0, 0, ("",))


def test_calls_go_first_the_deepest_before_the_others() -> None:
    line = ActionQueue(10)
    shallow, deep = (ev.Activation(n, b"", 5, 0, c) for n, c in (("s", ("r",)), ("d", ("r", "q"))))
    root, other = ev.Activation("root", b"", 1), ev.Activation("s2", b"", 6, 0, ("r",))
    for activation in (root, shallow, deep, other):
        assert line.offer(activation)
    assert line.older_than(5) == 3
    assert line.head() is root
    assert line.take_call(3) is None
    assert line.take() is deep
    line.put_back(deep)
    assert line.newest_calls() == [other, deep]
    line.withdraw(other)
    assert line.take_call(2) is deep
    line.drop_head()
    assert line.head() is shallow
    line.drop_head()
    line.check()
    assert line.waiting == 0


class Held:
    """What ``nesting`` looks at of a scheduler: containers, and who runs in them.

    Queues n/a, n/b, n/c and m/d; containers of 100 MB each, on invoker i1 where not said.
    """

    def __init__(
        self, cap: int = 9, reserve: int = 0, memory_mb: int = 9_000, **of_a_queue: Any
    ) -> None:
        self.calls = Calls()
        self.largest = memory_mb
        self.invokers: dict[str, Any] = {}
        self.invoker("i1", memory_mb)
        self.queues: dict[str, Any] = {}
        names = ("n/a", "n/b", "n/c"), ("m/d",)
        for (namespace, limit), queues in zip({"n": cap, "m": 9}.items(), names, strict=True):
            spare = min(reserve, limit - 1)
            shared = SimpleNamespace(containers_max=limit, serving={}, spare=lambda n=spare: n)
            shared.held = lambda s=shared: len(s.serving)
            for name in queues:
                spec = ev.QueueSpec(name, namespace, name[-1], 0, memory_mb=100, **of_a_queue)
                entry = SimpleNamespace(spec=spec, namespace=shared, serving={}, leaving={})
                entry.adopting, entry.in_progress, entry.reserving = {}, {}, ()
                self.queues[name] = entry

    def largest_mb(self) -> int:
        return self.largest

    def invoker(self, name: str, memory_mb: int) -> None:
        report = ev.InvokerReported(name, memory_mb)
        self.invokers[name] = SimpleNamespace(report=report, containers={})

    def container(
        self, queue: str, *running: str, level: int = 0, leaving: bool = False, at: str = "i1"
    ) -> None:
        entry = self.queues[queue]
        name = f"c{len(self.invokers[at].containers)}{at}"
        there = SimpleNamespace(container=name, queue=entry, level=level)
        there.outstanding = dict.fromkeys(running)
        for containers in (entry.serving, entry.namespace.serving, self.invokers[at].containers):
            containers[name] = there
        if leaving:
            entry.leaving[name] = there

    def call(self, queue: str, name: str, *causes: str) -> ev.Activation:
        made = ev.Activation(name, b"", 0, 0, causes)
        made.queue = queue
        self.calls.enter(made)
        return made

    def victim(self, call: ev.Activation) -> str | None:
        ledger: Any = self
        found = nesting.victim(ledger, self.calls, call)
        return None if found is None else found.activation_id


def stuck(**limits: int) -> Held:
    """Return n/a with one container, in which r runs; with a cap of 1 a call of it is stuck."""
    held = Held(**{"cap": 1} | limits)
    held.container("n/a", "r")
    return held


def test_a_call_is_stuck_where_its_callers_hold_the_cap() -> None:
    held = stuck()
    assert held.victim(held.call("n/b", "x", "r")) == "x"
    held = stuck(cap=2)
    assert held.victim(held.call("n/b", "x", "r")) is None
    # Without a cap, or without an invoker that is large enough, its callers are not to blame.
    held = stuck(cap=0)
    assert held.victim(held.call("n/b", "x", "r")) is None
    held = stuck(cap=2, memory_mb=99)
    assert held.victim(held.call("n/b", "x", "r")) is None
    # Another run in its place ends by itself.
    held = Held(cap=1)
    held.container("n/a", "other")
    assert held.victim(held.call("n/b", "x", "r")) is None


@pytest.mark.parametrize(
    ("field", "value"), [("adopting", {"i": True}), ("in_progress", {"c": 1}), ("reserving", "c")]
)
def test_who_gets_a_container_soon_is_not_stuck(field: str, value: object) -> None:
    held = stuck()
    setattr(held.queues["n/b"], field, value)
    assert held.victim(held.call("n/b", "x", "r")) is None


@pytest.mark.parametrize(
    ("concurrency", "level", "leaving", "found"),
    [
        (2, 0, False, None),
        (2, 1, False, None),
        (2, 2, False, "x"),  # serves only what is deeper
        (2, 0, True, "x"),
        (1, 0, False, "x"),  # has no slot that comes free
    ],
)
def test_a_slot_beside_the_caller_serves_the_call(
    concurrency: int, level: int, leaving: bool, found: str | None
) -> None:
    held = Held(cap=1, concurrency=concurrency)
    held.container("n/b", "r", level=level, leaving=leaving)
    assert held.victim(held.call("n/b", "x", "r")) == found


@pytest.mark.parametrize(
    ("limit", "own", "found"), [(1, 1, "x"), (2, 1, None), (1, 0, None), (0, 1, None), (2, 2, "x")]
)
def test_the_actions_own_limit_may_bind(limit: int, own: int, found: str | None) -> None:
    held = Held(action_limit=limit)
    for _ in range(own):
        held.container("n/b", "r")
    assert held.victim(held.call("n/b", "x", "r")) == found


@pytest.mark.parametrize(
    ("cap", "reserve", "levels", "depth", "found"),
    [
        (4, 2, [0, 0, 1], 1, "x"),
        (4, 2, [0, 0, 2], 1, None),
        (4, 2, [0, 0, 2, 2], 1, "x"),
        (4, 2, [0, 0, 1], 2, None),
        (4, 2, [0, 0, 1, 1], 3, "x"),
        (4, 2, [0, 0, 1], 3, None),
        (2, 1, [0, 2], 1, "x"),  # of a time when the reserve was larger
        (3, 0, [0, 0], 1, None),
        (3, 0, [0, 0, 0], 1, "x"),
    ],
)
def test_each_level_has_its_places(
    cap: int, reserve: int, levels: list[int], depth: int, found: str | None
) -> None:
    held = Held(cap=cap, reserve=reserve)
    for level in levels:
        held.container("n/a", "r", level=level)
    call = held.call("n/b", "x", *["r", "s", "t"][:depth])
    assert held.victim(call) == found


@pytest.mark.parametrize(
    ("memory_mb", "others_mb", "found"), [(300, 99, None), (299, 99, "x"), (299, 100, None)]
)
def test_memory_is_short_where_callers_hold_that_of_every_invoker(
    memory_mb: int, others_mb: int, found: str | None
) -> None:
    held = Held(memory_mb=memory_mb)
    held.invoker("i2", others_mb)
    for running in ("r", "r", "somebody else"):
        held.container("n/a", running)
    assert held.victim(held.call("n/b", "x", "r")) == found


def test_those_are_let_off_that_could_be_served_and_whom_their_end_serves() -> None:
    """What s waits for can be served, so its container comes free, for x or not."""
    held = stuck(cap=2)
    held.container("n/b", "s")
    call = held.call("n/c", "x", "r")
    held.call("m/d", "y", "s")
    assert held.victim(call) is None
    held = stuck()
    call = held.call("n/c", "x", "r")
    held.call("m/d", "y", "s")
    assert held.victim(call) == "x"


def test_the_newest_beyond_the_reserve_goes_first() -> None:
    held = stuck(cap=2, reserve=1)
    held.container("n/b", "s")
    promised = held.call("n/c", "x", "r")
    held.call("n/c", "y", "r", "s")
    held.call("n/c", "z", "r", "s")
    assert held.victim(promised) == "z"
    held = stuck(cap=2, reserve=1)
    held.container("n/b", "r")
    assert held.victim(held.call("n/c", "x", "r")) == "x"  # nobody is deeper


def test_the_reason_names_the_chain_the_containers_and_the_cure() -> None:
    held: Any = stuck()
    assert nesting.why_stuck(held, held.call("n/b", "x", "r", "s")) == (
        "Every container that b could get is held by activations that wait for this call or for"
        " others like it: r > s > x. Namespace n holds 1 containers (allowed: 1, of them for"
        " calls: 0); a larger cap or reserve, or more memory, would lift this"
    )
