"""The scheduler as a node: opening queues, reserving, and what happens when those fail."""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

import pytest
from waiting import until

from acs_core.demand import Decision, Snapshot, Verdict
from acs_core.effects import Adopt, Cause, Create, Deliver, Place, Reject
from acs_core.events import (
    Activation,
    Adopted,
    Completion,
    ContainerGone,
    ContainerServing,
    CreationFailed,
    Event,
    FailureClass,
    InvokerReported,
    Outcome,
    Pulled,
    QueueSpec,
    Returned,
)
from acs_core.scheduler import SchedulerConfig
from acs_node import clock, scheduler_node
from acs_node.coordination import LedElsewhere, MemoryCoordination
from acs_node.links import (
    Cancel,
    Close,
    Inbox,
    Inquiry,
    LocalLink,
    Misdirected,
    NotHeld,
    QueueClosed,
    Submit,
)
from acs_node.scheduler_node import SchedulerNode

SPEC = QueueSpec("guest/hello@1", "guest", "guest/hello", 1, memory_mb=256)


class SlowCoordination(MemoryCoordination):
    """Memory that answers when the test lets it, or fails as the test says."""

    def __init__(self, memory_mb: int = 1024) -> None:
        super().__init__({"i0": memory_mb})
        self.may_lead = asyncio.Event()
        self.may_lead.set()
        self.may_reserve = asyncio.Event()
        self.may_reserve.set()
        self.may_resign = asyncio.Event()
        self.may_resign.set()
        self.failing: Exception | None = None
        self.resigned: list[str] = []

    async def lead(self, queue: str) -> int:
        await self.may_lead.wait()
        if self.failing:
            raise self.failing
        return await super().lead(queue)

    async def resign(self, queue: str) -> None:
        self.resigned.append(queue)
        await self.may_resign.wait()
        if self.failing:
            raise self.failing

    async def reserve(
        self,
        namespace: str,
        containers_max: int,
        memory_mb: int,
        places: Sequence[Place],
        queue: str = "",
    ) -> tuple[list[str], str]:
        await self.may_reserve.wait()
        if self.failing:
            raise self.failing
        return await super().reserve(namespace, containers_max, memory_mb, places, queue)


class Stage:
    """A node with recorded links; the invoker's part is played by the test."""

    def __init__(self, memory_mb: int = 1024, **config: Any) -> None:
        self.coordination = SlowCoordination(memory_mb)
        self.node = SchedulerNode(
            SchedulerConfig(name="s", retry_min_us=1_000, **config), self.coordination
        )
        self.to_controller: list[object] = []
        self.to_invoker: list[object] = []
        inbox = Inbox()
        controller = LocalLink(self.to_controller.append, inbox)
        self.node.connect(controller, {"i0": LocalLink(self._on_invoker, inbox)})
        self._to_scheduler = LocalLink(self.node.receive, inbox)
        self.node.report_invoker(InvokerReported("i0", memory_mb))

    def _on_invoker(self, effect: object) -> None:
        self.to_invoker.append(effect)
        if isinstance(effect, Adopt):
            self._to_scheduler.send(Adopted("i0", effect.queue, effect.epoch))

    def submit(self, activation_id: str, spec: QueueSpec = SPEC) -> None:
        self.node.receive(Submit(spec, Activation(activation_id, b"", clock.now_us())))

    async def created(self, count: int = 1) -> Create:
        """Wait for the creation of a container."""
        await until(lambda: len(self.sent(Create)) >= count, "a creation")
        create = self.sent(Create)[-1]
        assert isinstance(create, Create)
        return create

    async def serve(self) -> Create:
        """Wait for the creation of a container and let it pull."""
        create = await self.created()
        self.node.receive(ContainerServing(create.container, "i0"))
        self.node.receive(Pulled(create.container, create.epoch, 1))
        return create

    def sent(self, kind: type) -> list[Any]:
        return [each for each in (*self.to_invoker, *self.to_controller) if type(each) is kind]

    def rejected(self) -> list[tuple[str, int]]:
        return [(each.activation.activation_id, each.cause) for each in self.sent(Reject)]


async def test_the_first_work_opens_its_queue_and_is_delivered_in_order() -> None:
    stage = Stage()
    stage.coordination.may_lead.clear()
    for name in ("a1", "a2", "a3"):
        stage.submit(name)
    assert not stage.to_invoker, "nothing happens under an epoch that is not known"
    stage.coordination.may_lead.set()
    create = await stage.serve()
    assert isinstance(stage.to_invoker[0], Adopt), "before anything else under the epoch"
    for ended in ("a1", "a2"):
        completion = Completion(ended, 0, 100, Outcome.SUCCESS)
        stage.node.receive(Pulled(create.container, create.epoch, 1, (), (completion,)))
    assert [d.activation.activation_id for d in stage.sent(Deliver)] == ["a1", "a2", "a3"]
    assert {d.epoch for d in stage.sent(Deliver)} == {create.epoch}
    assert stage.node._opening == {}
    await stage.node.close()


async def test_a_close_that_comes_while_the_queue_opens_is_not_lost() -> None:
    stage = Stage()
    stage.coordination.may_lead.clear()
    stage.submit("a1")
    stage.node.receive(Close(SPEC.queue, "the action was updated"))
    stage.submit("a2")
    stage.coordination.may_lead.set()
    await until(lambda: stage.node.scheduler.has_queue(SPEC.queue), "the queue")
    assert stage.node.scheduler.explain(SPEC.queue)["state"] == "REMOVING"
    assert stage.rejected() == [("a2", Cause.CLOSED)], "what came before the close still runs"
    create = await stage.serve()
    assert [d.activation.activation_id for d in stage.sent(Deliver)] == ["a1"]
    stage.node.receive(ContainerGone(create.container, "planted"))
    await until(lambda: stage.coordination.resigned, "the end of the queue")
    assert [message.queue for message in stage.sent(QueueClosed)] == [SPEC.queue]
    assert not stage.node.scheduler.has_queue(SPEC.queue)
    await stage.node.close()


async def test_a_close_of_a_queue_that_is_not_there_does_nothing() -> None:
    stage = Stage()
    stage.node.receive(Close("guest/other@1", "gone"))
    stage.node.receive(Cancel("unknown"))
    assert not stage.to_controller
    await stage.node.close()


async def test_work_whose_queue_cannot_be_opened_is_answered_and_the_next_one_tries_anew() -> None:
    stage = Stage()
    stage.coordination.failing = ConnectionError("no quorum")
    stage.submit("a1")
    stage.submit("a2")
    await until(lambda: len(stage.rejected()) == 2, "the answers")
    assert stage.rejected() == [("a1", Cause.CREATION_FAILED), ("a2", Cause.CREATION_FAILED)]
    assert "no quorum" in stage.sent(Reject)[0].reason
    assert len(stage.sent(QueueClosed)) == 1
    assert stage.node._opening == {}
    stage.coordination.failing = None
    stage.submit("a3")
    await stage.serve()
    assert [d.activation.activation_id for d in stage.sent(Deliver)] == ["a3"]
    await stage.node.close()


async def test_work_for_a_queue_that_another_leads_is_sent_back_with_its_name() -> None:
    stage = Stage()
    stage.coordination.may_lead.clear()
    for n in range(2):
        stage.node.receive(Submit(SPEC, Activation(f"a{n}", b"", clock.now_us())))
    stage.node.receive(Close(SPEC.queue, "why"))
    stage.coordination.failing = LedElsewhere(SPEC.queue, "s9-1")
    stage.coordination.may_lead.set()
    await until(lambda: stage.to_controller, "the answers")
    assert stage.to_controller == [Misdirected(f"a{n}", SPEC.queue, "s9-1") for n in range(2)]
    assert not stage.node._opening
    await stage.node.close()


async def test_what_is_not_held_any_more_is_told_and_nothing_else() -> None:
    stage = Stage()
    other = QueueSpec("guest/other@1", "guest", "guest/other", 1)
    stage.submit("delivered")
    create = await stage.serve()
    stage.submit("ended")
    stage.submit("waits")
    completion = Completion("delivered", 0, 100, Outcome.SUCCESS)
    stage.node.receive(Pulled(create.container, create.epoch, 1, (), (completion,)))
    stage.coordination.may_lead.clear()
    stage.submit("opens", other)
    asked = ("ended", "waits", "opens")
    stage.node.receive(Inquiry(asked))
    stage.node.receive(Inquiry(("delivered", *asked)))
    await until(lambda: stage.sent(NotHeld), "the answer")
    assert stage.sent(NotHeld) == [NotHeld(("delivered",))]
    stage.coordination.may_resign.clear()
    stage.node.move(SPEC.queue, "s2-1")
    stage.node.receive(Inquiry(("waits",)))  # it is on its way from here
    stage.coordination.may_resign.set()
    await until(lambda: stage.sent(Misdirected), "what waited")
    stage.node.receive(Inquiry(("waits",)))
    await until(lambda: len(stage.sent(NotHeld)) == 2, "the second answer")
    assert stage.sent(NotHeld)[1] == NotHeld(("waits",))
    stage.coordination.may_lead.set()
    await stage.node.close()


async def test_a_queue_that_moves_is_given_up_before_its_work_is_sent_on() -> None:
    stage = Stage()
    stage.submit("a0")
    create = await stage.serve()
    for n in range(1, 4):
        stage.submit(f"a{n}")
    assert stage.node.take_arrived() == {SPEC.queue: 4}
    assert stage.node.take_arrived() == {}
    assert stage.node.scheduler.can_move(SPEC.queue)
    stage.coordination.may_resign.clear()
    stage.node.move(SPEC.queue, "s2-1")
    stage.submit("a4")
    stage.node.receive(Close(SPEC.queue, "why"))
    assert stage.sent(Misdirected) == []  # the next one would not find it free
    stage.coordination.may_resign.set()
    await until(lambda: len(stage.sent(Misdirected)) == 4, "what waited, and what came")
    stage.submit("late")
    sent = [Misdirected(f"{n}", SPEC.queue, "s2-1") for n in ("a1", "a2", "a3", "a4", "late")]
    await until(lambda: stage.sent(Misdirected) == sent, "the late one, in order")
    assert stage.coordination.resigned == [SPEC.queue]
    assert not stage.node.scheduler.has_queue(SPEC.queue)
    # It met the next leader at the invoker, which knows nothing of it.
    stage.node.receive(Returned(create.container, create.epoch, ("a0",)))
    stage.node.not_moved_to("s3-1")
    stage.node.not_moved_to("s2-1")
    stage.node.receive(Returned(create.container, create.epoch, ("a0",)))
    sent += [Misdirected("a0", SPEC.queue, leader) for leader in ("s2-1", "s")]
    await until(lambda: stage.sent(Misdirected) == sent, "what was given back")
    # The other one is gone: work that still comes is taken here again.
    stage.submit("again")
    await until(lambda: stage.node.scheduler.has_queue(SPEC.queue), "the queue")
    await stage.node.close()


async def test_the_leadership_of_a_queue_that_moves_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_node, "RESIGN_RETRY_S", 0.0)
    monkeypatch.setattr(scheduler_node, "MOVED_S", 0.0)
    stage = Stage()
    stage.submit("a0")
    await stage.serve()
    stage.submit("a1")
    stage.coordination.failing = ConnectionError("no quorum")
    stage.node.move(SPEC.queue, "s2-1")
    await until(lambda: len(stage.coordination.resigned) > 1, "another try")
    stage.coordination.failing = None
    await until(lambda: stage.sent(Misdirected), "what waited")
    await until(lambda: not stage.node._tasks, "the end of the move")
    stage.submit("a2")  # work that comes long after is taken
    await until(lambda: stage.node.scheduler.has_queue(SPEC.queue), "the queue")
    await stage.node.close()


async def test_a_reservation_that_fails_is_tried_again() -> None:
    stage = Stage()
    stage.coordination.may_reserve.clear()
    stage.submit("a1")
    await until(lambda: stage.node._tasks, "the reservation")
    await until(lambda: stage.node.scheduler.has_queue(SPEC.queue), "the queue")
    stage.coordination.failing = ConnectionError("no quorum")
    stage.coordination.may_reserve.set()
    explain = stage.node.scheduler.explain
    await until(lambda: "no quorum" in str(explain(SPEC.queue)["trouble"]), "the trouble")
    stage.coordination.failing = None
    await stage.serve()
    assert [d.activation.activation_id for d in stage.sent(Deliver)] == ["a1"]
    stage.node.scheduler.check()
    await stage.node.close()


@pytest.mark.parametrize("how", ["gone", "failed"])
async def test_the_room_of_a_container_that_goes_is_there_for_what_the_core_reserves_then(
    how: str,
) -> None:
    stage = Stage(memory_mb=256)
    stage.submit("a1")
    create = await stage.created()
    stage.submit("a2")
    if how == "gone":
        stage.node.receive(ContainerServing(create.container, "i0"))
        stage.node.receive(Pulled(create.container, create.epoch, 1))
        stage.node.receive(ContainerGone(create.container, "planted"))
    else:
        failure = FailureClass.RECOVERABLE
        stage.node.receive(CreationFailed(create.container, failure, "planted"))
    again = await stage.created(2)
    assert again.container != create.container
    assert list(stage.coordination._containers) == [again.container]
    assert stage.rejected() == ([("a1", Cause.UNKNOWN)] if how == "gone" else [])
    await stage.node.close()


async def test_what_is_not_created_after_all_is_given_back() -> None:
    stage = Stage(wait_max_us=20_000)
    stage.coordination.may_reserve.clear()
    stage.submit("a1")
    stage.node.receive(Close(SPEC.queue, "deleted"))
    await until(lambda: stage.rejected() == [("a1", Cause.EXPIRED)], "the expiry")
    stage.coordination.may_reserve.set()
    await until(lambda: stage.coordination.resigned, "the end of the queue")
    assert not stage.sent(Create)
    assert stage.coordination._containers == {}
    await stage.node.close()


async def test_a_core_that_fails_on_an_arrival_costs_that_activation_only() -> None:
    stage = Stage()
    stage.submit("a1")
    create = await stage.serve()
    # Of the compiled core no method can be replaced; the node's own way to it can.
    step = stage.node._stepper.step

    def broken(event: Event) -> None:
        raise AssertionError("planted")

    stage.node._stepper.step = broken  # type: ignore[method-assign]
    stage.submit("a2")
    stage.node._stepper.step = step  # type: ignore[method-assign]
    assert stage.rejected() == [("a2", Cause.UNKNOWN)]
    assert "planted" in stage.sent(Reject)[0].reason
    stage.submit("a3")
    stage.node.receive(ContainerGone(create.container, "planted"))
    await stage.created(2)
    await stage.node.close()


async def test_effects_that_cannot_be_carried_out_are_answered_for() -> None:
    stage = Stage()
    stage.submit("a1")
    create = await stage.created()
    stage.node.connect(LocalLink(stage.to_controller.append, Inbox()), {})  # no invoker any more
    stage.node.receive(ContainerServing(create.container, "i0"))
    stage.node.receive(Pulled(create.container, create.epoch, 1))
    assert stage.rejected() == [("a1", Cause.UNKNOWN)]
    stage.node.receive(ContainerGone(create.container, "planted"))
    stage.submit("a2")
    explain = stage.node.scheduler.explain
    await until(lambda: "KeyError" in str(explain(SPEC.queue)["trouble"]), "the trouble")
    assert stage.coordination._containers == {}
    await stage.node.close()


async def test_messages_that_are_not_for_a_scheduler_are_refused() -> None:
    stage = Stage()
    with pytest.raises(TypeError, match="QueueClosed is no message for a scheduler"):
        stage.node.receive(QueueClosed("q"))
    await stage.node.close()


async def test_close_ends_what_is_under_way() -> None:
    stage = Stage()
    stage.coordination.may_lead.clear()
    stage.submit("a1")
    tasks = list(stage.node._tasks)
    assert tasks
    await stage.node.close()
    assert all(task.cancelled() for task in tasks)


async def test_an_invoker_that_joins_is_asked_alone() -> None:
    stage = Stage()
    stage.submit("a1")
    await stage.serve()
    joined: list[Any] = []
    stage.node._invokers["i1"] = LocalLink(joined.append, Inbox())
    stage.node.report_invoker(InvokerReported("i1", 1024))
    await until(lambda: joined, "the question")
    assert [(each.queue, each.invoker) for each in joined] == [(SPEC.queue, "i1")]
    assert len(stage.sent(Adopt)) == 1, "when the queue was opened"
    await stage.node.close()


class Greedy:
    """A rule that would always have seven containers more."""

    def decide(self, snapshot: Snapshot) -> Decision:
        return Decision(Verdict.ADD, 7, snapshot, "greed", "")


async def test_a_shadow_rule_is_logged_once_a_queue_and_summed_up_and_obeyed_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "acs_node.scheduler_node")
    stage = Stage(report_decisions=True, shadow=Greedy(), decision_interval_us=1)
    stage.submit("a1")
    create = await stage.created()
    assert stage.node.scheduler.counts()["waiting"] == 1
    stage.node.receive(CreationFailed(create.container, FailureClass.RECOVERABLE, "down"))
    await stage.created(2)
    await stage.node.close()
    said = [record.getMessage() for record in caplog.records if "shadow" in record.getMessage()]
    first = f"{SPEC.queue}: the shadow rule would decide Decision(ADD, 7: greed)"
    last = rf"{SPEC.queue}: the shadow rule would have decided otherwise (\d+) times"
    assert said[0] == first
    found = re.fullmatch(last, said[1])
    assert found is not None, said
    assert int(found[1]) >= 2
    assert len(said) == 2
