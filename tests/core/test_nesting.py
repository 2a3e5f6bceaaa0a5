"""Calls within calls, step by step; what holds for all of them is proved in proofs/test_nesting."""

from __future__ import annotations

import pytest

from acs_core import effects as fx
from acs_core import events as ev
from acs_core.action_queue import ActionQueue
from acs_core.limits import CAUSES_MAX, TIME_MAX_US
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
