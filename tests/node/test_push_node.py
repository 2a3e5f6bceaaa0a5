"""The controllers of the baseline as a node: who gets the work, and what is heard of it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from acs_core.effects import Cause, Reject
from acs_core.events import Activation, InvokerReported, QueueSpec
from acs_core.sharding import Acknowledgement, InvokerStatus
from acs_core.sharding_feed import Acknowledged
from acs_core.sharding_pool import Push
from acs_node import clock
from acs_node.entity_types import Action, ActionLimits, Exec
from acs_node.links import Cancel, Close, Inbox, LocalLink, QueueClosed, Submit
from acs_node.push_node import PushNode

SECOND = 1_000_000
SPEC = QueueSpec("guest/hello@1", "guest", "guest/hello", 1, memory_mb=256)


def action(image: str | None) -> Action:
    kind = "python:3" if image is None else "blackbox"
    return Action(
        "guest", None, "hello", "0.0.1", 1, 0, False, Exec(kind, "", False, image=image), (),
        ActionLimits(60_000, 256, 1, 1), (),
    )  # fmt: skip


class Stage:
    """A node with its invokers' links, and what it said; the clock stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, controllers: int, invokers: int) -> None:
        self.now_us = SECOND
        monkeypatch.setattr(clock, "now_us", lambda: self.now_us)
        self.said: list[Any] = []
        self.pushed: dict[str, list[Push]] = {f"i{number}": [] for number in range(invokers)}
        self.image: str | None = None
        self.action_error: Exception | None = None
        self.node = PushNode(controllers, self._action_of, lambda: 0)
        inbox = Inbox()
        links = {name: LocalLink(there.append, inbox) for name, there in self.pushed.items()}
        self.node.connect(LocalLink(self.said.append, inbox), links)

    def _action_of(self, queue: str) -> Action:
        if self.action_error:
            raise self.action_error
        return action(self.image)

    def ping(self, *names: str) -> None:
        for name in names or self.pushed:
            self.node.receive(InvokerReported(name, 1024))

    def submit(self, *ids: str, spec: QueueSpec = SPEC) -> None:
        for each in ids:
            self.node.receive(Submit(spec, Activation(each, b"", self.now_us)))

    def acknowledge(self, name: str, activation_id: str, error: bool = False) -> None:
        self.node.receive(Acknowledged(name, activation_id, error))

    def wait(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND)
        self.node._on_tick()

    def where(self) -> dict[str, list[str]]:
        return {
            name: [push.activation.activation_id for push in pushes]
            for name, pushes in self.pushed.items()
            if pushes
        }

    def refused(self) -> list[tuple[str, Cause, str]]:
        rejects = [each for each in self.said if isinstance(each, Reject)]
        return [(r.activation.activation_id, Cause(r.cause), r.reason) for r in rejects]


MakeStage = Callable[..., Stage]


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[Stage] = []

    def make(controllers: int = 1, invokers: int = 2) -> Stage:
        made.append(Stage(monkeypatch, controllers, invokers))
        return made[-1]

    yield make
    for each in made:
        for balancer in each.node.balancers:
            balancer.check()
        await each.node.close()


async def test_an_action_goes_to_its_home_until_that_is_full(stage: MakeStage) -> None:
    s = stage()
    s.ping()
    s.submit("a", "b", "c", "d")
    ((home, ids),) = s.where().items()
    assert ids == ["a", "b", "c", "d"], "an invoker has room for four"
    s.submit("e")
    assert len(s.where()) == 2, "the fifth goes elsewhere"
    s.acknowledge(home, "a")
    s.submit("f")
    assert s.where()[home][-1] == "f"
    counts = s.node.counts()
    assert (counts["accepted"], counts["delivered"], counts["ended"]) == (6, 5, 1)


async def test_without_a_slot_one_is_forced(stage: MakeStage) -> None:
    s = stage(invokers=1)
    s.ping()
    s.submit(*"abcde")
    assert s.where() == {"i0": list("abcde")}
    assert s.node.counts()["forced"] == 1


async def test_controllers_take_turns_and_have_a_part_of_each_invoker(stage: MakeStage) -> None:
    s = stage(controllers=2)
    s.ping()
    s.submit(*"abcd")
    assert [balancer.in_flight() for balancer in s.node.balancers] == [2, 2]
    assert len(s.where()) == 1
    s.submit("e", "f")
    assert len(s.where()) == 2, "each controller has two of the four places at home"


async def test_blackbox_actions_have_invokers_of_their_own(stage: MakeStage) -> None:
    s = stage(invokers=10)
    s.ping()
    s.image = "some/image"
    s.submit("a")
    assert s.where() == {"i9": ["a"]}


async def test_who_has_not_pinged_gets_nothing(stage: MakeStage) -> None:
    s = stage()
    s.submit("a")
    ((name, cause, reason),) = s.refused()
    assert (name, cause) == ("a", Cause.CREATION_FAILED)
    assert "No invokers are available" in reason
    s.ping("i1")
    s.submit("b")
    assert s.where() == {"i1": ["b"]}


async def test_an_invoker_that_falls_silent_gets_nothing_until_it_pings_again(
    stage: MakeStage,
) -> None:
    s = stage()
    s.ping()
    s.wait(9)
    s.ping("i1")
    s.wait(2)
    s.submit("a")
    assert s.where() == {"i1": ["a"]}
    s.ping("i0")
    assert [each.status for each in s.node.supervisions[0].invokers] == [InvokerStatus.UP] * 2


async def test_a_sick_invoker_is_tested_and_well_again(stage: MakeStage) -> None:
    s = stage(invokers=1)
    s.ping()
    for number in range(6):
        s.submit(f"a{number}")
        s.acknowledge("i0", f"a{number}", error=True)
    s.submit("b")
    assert s.where()["i0"][-1] == "b"


async def test_what_is_not_acknowledged_in_time_is_given_up(stage: MakeStage) -> None:
    s = stage()
    s.ping()
    s.submit("a")
    (home,) = s.where()
    for _ in range(19):
        s.wait(9)
        s.ping()
    assert s.refused() == [], "twice its limit and a minute are not over"
    s.wait(9)
    ((name, cause, reason),) = s.refused()
    assert (name, cause) == ("a", Cause.UNKNOWN)
    assert "did not acknowledge" in reason
    assert s.node.balancers[0].acknowledgements[Acknowledgement.FORCED] == 1
    s.acknowledge(home, "a")
    assert s.node.counts()["ended"] == 0, "what comes too late changes nothing"
    assert s.node.counts()["delivered"] == 0


async def test_a_closed_action_is_forgotten_when_the_last_of_it_has_ended(
    stage: MakeStage,
) -> None:
    s = stage()
    s.ping()
    s.submit("a")
    s.node.receive(Close(SPEC.queue, "the action was deleted"))
    s.node.receive(Close("guest/other@1", "the action was deleted"))
    assert s.said == []
    (home,) = s.where()
    s.acknowledge(home, "a")
    assert [each.queue for each in s.said if isinstance(each, QueueClosed)] == [SPEC.queue]
    s.submit("b")
    s.node.receive(Close(SPEC.queue, "it came before"))
    s.acknowledge(home, "b")
    assert len(s.said) == 2


async def test_an_action_without_work_is_forgotten(stage: MakeStage) -> None:
    s = stage()
    s.ping()
    s.submit("a")
    s.wait(1)
    s.wait(1)
    assert s.said == [], "something of it is under way"
    s.acknowledge(next(iter(s.where())), "a")
    s.wait(1)
    assert s.said == []
    s.wait(1)
    assert [each.queue for each in s.said] == [SPEC.queue]


async def test_an_action_that_is_not_known_is_refused(
    stage: MakeStage, caplog: pytest.LogCaptureFixture
) -> None:
    s = stage()
    s.ping()
    s.action_error = KeyError("planted")
    with caplog.at_level(logging.CRITICAL):
        s.submit("a")
    ((_, cause, reason),) = s.refused()
    assert cause == Cause.CREATION_FAILED
    assert "planted" in reason
    assert s.node.counts()["rejected"] == 1


async def test_what_was_pushed_is_not_taken_back(stage: MakeStage) -> None:
    s = stage()
    s.ping()
    s.submit("a")
    s.node.receive(Cancel("a"))
    assert s.node.counts()["delivered"] == 1


async def test_it_takes_no_other_messages(stage: MakeStage) -> None:
    s = stage()
    with pytest.raises(TypeError, match="str is no message for a controller that pushes"):
        s.node.receive("hello")


async def test_time_passes_by_itself(stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = asyncio.Event()
    s = stage()
    s.node._timer.cancel()  # type: ignore[union-attr]
    monkeypatch.setattr("acs_node.push_node.TICK_S", 0.001)
    monkeypatch.setattr(s.node, "_update", lambda _: ticked.set())
    s.node._on_tick()
    ticked.clear()
    await asyncio.wait_for(ticked.wait(), 10)
