"""A controller's way to the schedulers, step by step: where work goes, and what follows a death."""

from typing import Any

import pytest

from acs_core.effects import Cause, Reject, Throttle
from acs_core.events import Activation, QueueSpec
from acs_core.spreading import choose
from acs_node import acs_pb2 as pb
from acs_node.cluster import routing
from acs_node.cluster.routing import DOUBT_US, Routing
from acs_node.links import (
    Cancel,
    Close,
    Drained,
    Fence,
    Fenced,
    Inquiry,
    Misdirected,
    NotHeld,
    QueueClosed,
    Result,
    Submit,
)
from acs_node.peer_link import LinkFull, Peer


class FakeLink:
    """Keeps what it is given; ``full`` refuses it, ``down`` writes nothing."""

    def __init__(self, role: int, instance: str) -> None:
        self.peer = Peer(role, instance.partition("-")[0], instance)
        self.sent: list[Any] = []
        self.full = False
        self.down = False
        self.up = True
        self.kept: list[Any] = []

    def send(self, message: object) -> None:
        if self.full:
            raise LinkFull("planted")
        (self.kept if self.down else self.sent).append(message)

    def unwritten(self) -> list[Any]:
        return self.kept

    def take_unwritten(self) -> list[Any]:
        kept, self.kept = self.kept, []
        return kept

    def take(self) -> list[Any]:
        sent, self.sent = self.sent, []
        return sent


class House:
    """A routing with fake links, the controller's ear, and a clock."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.now_us = 10**9
        self.member = True
        self.routing = Routing(
            self.heard.append, lambda: self.now_us, 20_000_000, lambda: self.member
        )

    def scheduler(self, instance: str) -> FakeLink:
        link = FakeLink(pb.SCHEDULER, instance)
        self.routing.scheduler_linked(link)  # type: ignore[arg-type]
        return link

    def invoker(self, instance: str) -> FakeLink:
        link = FakeLink(pb.INVOKER, instance)
        self.routing.invoker_linked(link)  # type: ignore[arg-type]
        return link

    def submit(self, *ids: str, queue: str = "q") -> None:
        for id_ in ids:
            self.routing.send(Submit(QueueSpec(queue, "ns", "a", 1), Activation(id_, b"", 0)))

    def rejected(self) -> dict[str, int]:
        """Return the causes by activation, once what is in doubt has waited for its result."""
        self.now_us += DOUBT_US
        self.routing.look()
        return {m.activation.activation_id: m.cause for m in self.heard if isinstance(m, Reject)}


def ids(messages: list[Any]) -> list[str]:
    return [m.activation.activation_id for m in messages if isinstance(m, Submit)]


def result(id_: str) -> Result:
    return Result(id_, 0, b"{}", 0, 0, 0, 0, False, False)


def test_work_waits_for_the_first_scheduler_and_goes_in_order() -> None:
    house = House()
    house.submit("1", "2")
    assert house.routing.counts()["parked"] == 2
    link = house.scheduler("s0-1")
    house.submit("3")
    assert ids(link.take()) == ["1", "2", "3"]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "PARKED_MAX", 1)
    house = House()
    house.submit("1", "2")
    assert house.rejected() == {"2": Cause.QUEUE_FULL}


def test_the_leader_gets_the_work_once_it_is_known() -> None:
    house = House()
    links = {name: house.scheduler(name) for name in ("s0-1", "s1-1")}
    first = choose("q", dict.fromkeys(links, 0.0))
    other = next(name for name in links if name != first)
    house.submit("1")
    assert ids(links[first].take()) == ["1"]
    house.routing.leads("q", other)
    house.submit("2")
    assert ids(links[other].take()) == ["2"]
    house.routing.leads("q", None)
    house.submit("3")
    assert ids(links[first].take()) == ["3"]


def test_a_queue_is_opened_where_there_is_clearly_less_to_do() -> None:
    house = House()
    links = {name: house.scheduler(name) for name in ("s0-1", "s1-1")}
    first = choose("q", dict.fromkeys(links, 0.0))
    other = next(name for name in links if name != first)
    house.routing.is_loaded(first, 5_000.0)
    house.submit("1")
    assert ids(links[other].take()) == ["1"]
    house.routing.is_loaded(first, None)  # its load is not known any more
    house.submit("2")
    assert ids(links[first].take()) == ["2"]


def test_what_was_sent_on_to_one_that_is_gone_goes_elsewhere() -> None:
    house = House()
    link = house.scheduler("s0-1")
    house.scheduler("s1-1")
    house.routing.scheduler_gone("s1-1")
    house.submit("1")
    link.take()
    house.routing.take("s0-1", Misdirected("1", "q", "s1-1"))
    assert ids(link.take()) == ["1"]
    assert house.routing.counts()["parked"] == 0


def test_what_came_to_the_wrong_one_goes_to_the_leader() -> None:
    house = House()
    links = {name: house.scheduler(name) for name in ("s0-1", "s1-1")}
    first = choose("q", dict.fromkeys(links, 0.0))
    other = next(name for name in links if name != first)
    house.submit("1")
    house.routing.take(first, Misdirected("1", "q", other))
    assert ids(links[other].take()) == ["1"]
    house.submit("2")
    assert ids(links[other].take()) == ["2"]


def test_what_a_leader_that_nobody_has_met_should_get_waits_for_it() -> None:
    house = House()
    house.scheduler("s0-1")
    house.submit("1")
    house.routing.take("s0-1", Misdirected("1", "q", "s9-1"))
    house.routing.take("s0-1", Misdirected("unknown", "q", "s9-1"))
    assert house.routing.counts()["parked"] == 1
    assert ids(house.scheduler("s9-1").take()) == ["1"]


def test_what_waits_for_a_dead_leader_goes_elsewhere_when_its_key_is_gone() -> None:
    house = House()
    link = house.scheduler("s0-1")
    house.routing.leads("q", "dead-1")
    house.submit("1")
    assert link.take() == []
    house.routing.leads("q", None)
    assert ids(link.take()) == ["1"]


def test_a_full_link_refuses_with_a_time() -> None:
    house = House()
    house.scheduler("s0-1").full = True
    house.submit("1")
    assert house.rejected() == {"1": Cause.QUEUE_FULL}
    assert house.heard[0].retry_after_us > 0
    assert house.routing.counts()["sent"] == 0


def test_cancels_and_closes_go_where_the_work_is() -> None:
    house = House()
    link = house.scheduler("s0-1")
    house.submit("1")
    house.routing.leads("q", "s0-1")
    link.take()
    house.routing.send(Cancel("1"))
    house.routing.send(Cancel("unknown"))
    house.routing.send(Close("q", "why"))
    house.routing.send(Close("unknown", "why"))
    assert link.take() == [Cancel("1"), Close("q", "why")]
    with pytest.raises(TypeError, match="str is no message"):
        house.routing.send("x")


def test_ends_are_told_and_forgotten() -> None:
    house = House()
    house.scheduler("s0-1")
    house.submit("1", "2")
    rejection = Reject(Activation("2", b"", 0), Cause.EXPIRED, "", 0)
    house.routing.take("i0-1", result("1"))
    house.routing.take("s0-1", rejection)
    house.routing.take("s0-1", QueueClosed("q"))
    assert house.heard == [result("1"), rejection, QueueClosed("q")]
    assert house.routing.counts()["sent"] == 0


# --- a scheduler is gone -----------------------------------------------------------------------


def test_what_no_invoker_was_given_is_sent_again_and_the_rest_is_left_where_it_is() -> None:
    house = House()
    house.scheduler("s0-1")
    invokers = [house.invoker("i0-1"), house.invoker("i1-1")]
    house.submit("ran", "runs", "waits")
    house.routing.take("i0-1", result("ran"))
    house.routing.scheduler_gone("s0-1")
    other = house.scheduler("s1-1")
    for invoker in invokers:
        assert invoker.take() == [Fence("s0-1", ("runs", "waits"))]
    house.routing.take("i0-1", Fenced("s0-1", ("runs",)))
    assert ids(other.take()) == []  # the other may have it
    house.routing.take("i1-1", Fenced("s0-1", ()))
    assert ids(other.take()) == ["waits"]
    house.routing.take("i0-1", result("runs"))
    assert house.rejected() == {}
    assert house.routing.counts()["sent"] == 1


def test_with_no_invoker_at_all_nothing_can_have_started() -> None:
    house = House()
    house.scheduler("s0-1")
    house.submit("1")
    house.routing.scheduler_gone("s0-1")
    assert ids(house.scheduler("s1-1").take()) == ["1"]


def test_what_ends_during_the_fence_is_not_sent_again() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.submit("1")
    house.routing.scheduler_gone("s0-1")
    house.routing.take("i0-1", result("1"))
    house.routing.take("i0-1", Fenced("s0-1", ()))
    assert ids(house.scheduler("s1-1").take()) == []


def test_an_invoker_that_dies_during_the_fence_makes_unknown_what_nobody_else_has() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.invoker("i1-1")
    house.submit("runs", "who knows")
    house.routing.scheduler_gone("s0-1")
    other = house.scheduler("s1-1")
    house.routing.take("i0-1", Fenced("s0-1", ("runs",)))
    house.routing.invoker_gone("i1-1")
    assert house.rejected() == {"who knows": Cause.UNKNOWN}
    assert ids(other.take()) == []
    house.routing.take("i0-1", result("runs"))
    assert house.heard[-1] == result("runs")


def test_an_invoker_that_died_shortly_before_may_have_had_it_too() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.submit("1")
    house.routing.invoker_gone("i0-1")
    house.now_us += 19_000_000
    house.routing.scheduler_gone("s0-1")
    assert house.rejected() == {"1": Cause.UNKNOWN}


def test_what_never_reached_a_dead_scheduler_is_not_in_doubt_whoever_died_with_it() -> None:
    house = House()
    dying = house.scheduler("s0-1")
    invoker = house.invoker("i0-1")
    house.submit("taken", "taken too")
    dying.down = True
    house.submit("never", "ended too")
    dying.send(Cancel("taken"))
    house.routing.take("i0-1", result("ended too"))
    house.routing.invoker_gone("i0-1")
    house.routing.scheduler_gone("s0-1")
    assert ids(house.scheduler("s1-1").take()) == ["never"]
    assert house.rejected() == {"taken": Cause.UNKNOWN, "taken too": Cause.UNKNOWN}
    assert invoker.take() == []


def test_what_never_reached_a_dead_scheduler_waits_for_no_fence() -> None:
    house = House()
    dying = house.scheduler("s0-1")
    other = house.scheduler("s1-1")
    invoker = house.invoker("i0-1")
    house.routing.leads("q", "s0-1")
    house.submit("taken")
    dying.down = True
    house.submit("never")
    house.routing.scheduler_gone("s0-1")
    assert invoker.take() == [Fence("s0-1", ("taken",))]
    assert ids(other.take()) == ["never"]
    house.routing.take("i0-1", Fenced("s0-1", ()))
    assert ids(other.take()) == ["taken"]


def test_who_is_cut_off_refuses_work_instead_of_keeping_it() -> None:
    house = House()
    link = house.scheduler("s0-1")
    house.member = False
    house.submit("etcd is away and the scheduler is not")
    assert len(link.take()) == 1
    assert not house.routing.is_cut_off()
    house.routing.take("i0-1", result("etcd is away and the scheduler is not"))
    link.up = False
    house.submit("1")
    assert house.routing.is_cut_off()
    assert link.take() == []
    assert house.rejected() == {"1": Cause.QUEUE_FULL}
    house.routing.scheduler_gone("s0-1")
    house.submit("2")
    assert house.rejected() == {"1": Cause.QUEUE_FULL, "2": Cause.QUEUE_FULL}
    house.member = True
    assert not house.routing.is_cut_off()
    house.submit("3")  # a scheduler may come
    assert ids(house.scheduler("s1-1").take()) == ["3"]


def test_a_link_that_is_down_for_a_moment_keeps_work_as_long_as_the_lease_holds() -> None:
    house = House()
    link = house.scheduler("s0-1")
    link.up = False
    house.submit("1")
    assert ids(link.take()) == ["1"]
    assert not house.routing.is_cut_off()


def test_what_ended_on_a_dead_invoker_without_our_knowing_is_asked_for() -> None:
    """Its scheduler was told of the completion, and the result got lost with the invoker."""
    house = House()
    link = house.scheduler("s0-1")
    house.invoker("i0-1")
    other = house.invoker("i1-1")
    house.submit("waits", "lost", "late", "left")
    link.take()
    house.routing.invoker_gone("i0-1")
    house.routing.look()
    assert link.take() == []  # the scheduler may not have noticed yet
    house.now_us += 10_000_000
    house.routing.look()
    assert link.take() == [Inquiry(("waits", "lost", "late", "left"))]
    house.routing.look()
    assert link.take() == []  # once for each death
    house.routing.take("s0-1", NotHeld(("lost", "late", "left", "nobody's")))
    house.routing.look()
    assert other.take() == []  # its results may be on their way
    house.routing.take("i1-1", result("late"))
    house.now_us += 10_000_000
    house.routing.look()
    assert other.take() == [Fence("i0-1", ("lost", "left"))]
    assert house.rejected() == {}
    house.routing.take("s0-1", NotHeld(("waits",)))
    house.now_us += 10_000_000
    house.routing.look()
    assert other.take() == []  # one after the other
    house.routing.take("i1-1", Fenced("i0-1", ("left",)))
    assert house.rejected() == {"lost": Cause.UNKNOWN}
    house.routing.look()
    assert other.take() == [Fence("i0-1", ("waits",))]
    house.routing.take("i1-1", result("waits"))
    house.routing.take("i1-1", Fenced("i0-1", ()))
    house.routing.take("i1-1", result("left"))
    assert house.rejected() == {"lost": Cause.UNKNOWN}
    assert house.routing.counts()["sent"] == 0


def test_what_its_scheduler_has_sent_on_is_held_elsewhere() -> None:
    house = House()
    house.scheduler("s0-1")
    other = house.scheduler("s1-1")
    house.routing.leads("q", "s0-1")
    house.submit("1")
    house.routing.take("s0-1", NotHeld(("1",)))
    house.routing.take("s0-1", Misdirected("1", "q", "s1-1"))
    assert ids(other.take()) == ["1"]
    house.now_us += 10_000_000
    house.routing.look()
    assert house.rejected() == {}


def test_an_invoker_that_drained_makes_nobody_ask() -> None:
    house = House()
    link = house.scheduler("s0-1")
    house.invoker("i0-1")
    house.submit("1")
    link.take()
    house.routing.take("i0-1", Drained())
    house.routing.invoker_gone("i0-1")
    house.now_us += 10_000_000
    house.routing.look()
    assert link.take() == []


def test_many_are_asked_for_in_parts_as_long_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routing, "FENCE_PART", 2)
    house = House()
    link, full = house.scheduler("s0-1"), house.scheduler("s1-1")
    house.invoker("i0-1")
    for queue, leader in (("q", "s0-1"), ("r", "s1-1")):
        house.routing.leads(queue, leader)
    house.submit("1", "2", "3")
    house.submit("4", queue="r")
    link.take()
    full.full = True
    house.routing.invoker_gone("i0-1")
    house.now_us += 10_000_000
    house.routing.look()
    assert link.take() == [Inquiry(("1", "2")), Inquiry(("3",))]
    assert "is not asked: planted" in caplog.text


def test_one_that_had_ended_everything_leaves_no_doubt() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.invoker("i1-1")
    house.submit("1")
    house.routing.take("i0-1", Drained())
    house.routing.take("i1-1", Drained())
    house.routing.invoker_gone("i0-1")
    house.routing.scheduler_gone("s0-1")
    other = house.scheduler("s1-1")
    assert other.take() == []
    house.routing.invoker_gone("i1-1")
    assert ids(other.take()) == ["1"]
    assert house.rejected() == {}


def test_one_that_died_long_before_was_reported_by_the_scheduler() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.routing.invoker_gone("i0-1")
    house.now_us += 21_000_000
    house.submit("1")
    house.routing.scheduler_gone("s0-1")
    assert ids(house.scheduler("s1-1").take()) == ["1"]


def test_an_invoker_that_answered_and_died_takes_what_it_had_with_it() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.invoker("i1-1")
    house.submit("before", "after")
    house.routing.scheduler_gone("s0-1")
    house.routing.take("i0-1", Fenced("s0-1", ("before", "after")))
    house.routing.take("i0-1", result("before"))
    house.routing.take("i1-1", Fenced("s0-1", ()))
    house.routing.invoker_gone("i0-1")
    assert house.rejected() == {"after": Cause.UNKNOWN}


def test_an_invoker_that_answered_and_died_before_the_last_answer_as_well() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.invoker("i1-1")
    house.submit("1")
    house.routing.scheduler_gone("s0-1")
    house.routing.take("i0-1", Fenced("s0-1", ("1",)))
    house.routing.invoker_gone("i0-1")
    house.routing.take("i1-1", Fenced("s0-1", ()))
    assert house.rejected() == {"1": Cause.UNKNOWN}


def test_an_invoker_whose_link_is_full_counts_as_one_that_does_not_answer() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1").full = True
    house.submit("1")
    house.routing.scheduler_gone("s0-1")
    assert house.rejected() == {"1": Cause.UNKNOWN}
    assert house.routing.counts()["fencing"] == 0


def test_many_activations_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "FENCE_PART", 2)
    house = House()
    house.scheduler("s0-1")
    invoker = house.invoker("i0-1")
    house.submit("1", "2", "3")
    house.routing.scheduler_gone("s0-1")
    other = house.scheduler("s1-1")
    assert invoker.take() == [Fence("s0-1", ("1", "2")), Fence("s0-1", ("3",))]
    house.routing.take("i0-1", Fenced("s0-1", ("1",)))
    assert ids(other.take()) == []
    house.routing.take("i0-1", Fenced("s0-1", ()))
    assert ids(other.take()) == ["2", "3"]
    house.routing.take("i0-1", Fenced("s0-1", ("late",)))  # nobody asks any more


def test_throttles_of_a_dead_scheduler_are_lifted() -> None:
    house = House()
    house.scheduler("s0-1")
    house.routing.take("s0-1", Throttle("q", True, "full"))
    house.routing.take("s0-1", Throttle("q2", True, "full"))
    house.routing.take("s0-1", Throttle("q2", False, ""))
    house.routing.take("s0-1", Throttle("q3", True, "full"))
    house.routing.take("s0-1", QueueClosed("q3"))
    house.heard.clear()
    house.routing.scheduler_gone("s0-1")
    assert [(m.queue, m.on) for m in house.heard] == [("q", False)]


def test_what_a_scheduler_never_got_goes_to_who_leads_instead() -> None:
    house = House()
    links = {name: house.scheduler(name) for name in ("s0-1", "s1-1")}
    first = choose("q", dict.fromkeys(links, 0.0))
    other = next(name for name in links if name != first)
    house.routing.leads("q", first)
    house.submit("1")
    links[first].down, links[first].up = True, False
    house.submit("2", "3")
    house.routing.send(Cancel("2"))
    house.routing.take(other, result("3"))
    house.routing.look()
    assert links[other].take() == []
    house.routing.leads("q", other)
    house.routing.look()
    assert ids(links[other].take()) == ["2"]
    assert [type(m) for m in links[first].kept] == [Cancel]
    assert ids(links[first].take()) == ["1"], "that one may have it"
    assert house.routing.schedulers == links


def test_a_queue_that_nobody_leads_goes_to_a_scheduler_that_is_reached() -> None:
    house = House()
    links = {name: house.scheduler(name) for name in ("s0-1", "s1-1")}
    first = choose("q", dict.fromkeys(links, 0.0))
    other = next(name for name in links if name != first)
    links[first].up = False
    house.submit("1")
    assert ids(links[other].take()) == ["1"]
    links[other].up = False
    house.submit("2")
    assert ids(links[first].take()) == ["2"], "nobody is reached: it is kept for the first"


def test_a_result_that_was_read_late_ends_what_its_invoker_took_with_it() -> None:
    house = House()
    house.scheduler("s0-1")
    house.invoker("i0-1")
    house.submit("read late", "lost", "lost too")
    house.routing.invoker_gone("i0-1")
    unknown = [
        Reject(Activation(id_, b"", 0), Cause.UNKNOWN, "gone", 0)
        for id_ in ("read late", "lost", "lost too")
    ]
    for message in unknown[:2]:
        house.routing.take("s0-1", message)
    assert house.routing.counts()["doubted"] == 2
    house.now_us += DOUBT_US // 2
    house.routing.take("s0-1", unknown[2])
    house.routing.take("s0-1", unknown[1])  # twice, and waits no longer for that
    house.routing.look()
    assert house.heard == []
    house.routing.take("i0-1", result("read late"))
    house.now_us += DOUBT_US // 2
    house.routing.look()
    assert house.heard == [result("read late"), unknown[1]]
    house.now_us += DOUBT_US // 2
    house.routing.look()
    assert house.heard == [result("read late"), unknown[1], unknown[2]]
    assert house.routing.counts()["doubted"] == 0
