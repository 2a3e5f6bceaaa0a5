"""A scheduler as a node: a ``Scheduler`` with links, clock and timers.

Decides nothing: opens queues when work comes for them, asks the coordination for what the
core wants reserved, and passes on what it says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Final

from acs_core.effects import (
    Adopt,
    Cause,
    CloseQueue,
    Create,
    Decided,
    Deliver,
    Differed,
    Forward,
    Reject,
    Release,
    Reserve,
    Resume,
    Throttle,
    Unreserve,
)
from acs_core.events import (
    Activation,
    Arrived,
    Cancelled,
    ContainerGone,
    CreationFailed,
    Denied,
    Event,
    FailureClass,
    InvokerReported,
    LeadershipLost,
    QueueClosing,
    QueueOpened,
    QueueSpec,
    Reserved,
    Returned,
)
from acs_core.scheduler import Scheduler, SchedulerConfig

from .coordination import Coordination, LedElsewhere
from .links import Cancel, Close, Inquiry, Link, Misdirected, NotHeld, QueueClosed, Submit
from .stepper import Recorder, Stepper

log = logging.getLogger(__name__)

MOVED_S: Final = 10.0
"""For how long after a queue has moved work that still comes here is sent after it."""

RESIGN_RETRY_S: Final = 0.5
"""After the coordination did not take back the leadership of a queue that moves."""


class SchedulerNode:
    """Runs one ``Scheduler``; ``receive`` takes everything that links bring."""

    def __init__(
        self,
        config: SchedulerConfig,
        coordination: Coordination,
        recorder: Recorder | None = None,
    ) -> None:
        self.scheduler = Scheduler(config)
        self._containers_max = config.namespace_containers_max
        self._coordination = coordination
        self._controller: Link | None = None
        self._invokers: Mapping[str, Link] = {}
        # What came for queues whose leadership is being asked for.
        self._opening: dict[str, list[Submit | Close]] = {}
        # Queues that another scheduler is to lead: who that is.
        self._moved: dict[str, str] = {}
        # The epochs of queues: of those that are led here, and of those that have moved.
        self._epochs: dict[str, int] = {}
        self._epochs_moved: dict[int, str] = {}
        # What waited in those that move, until it is sent on.
        self._leaving: dict[str, tuple[Activation, ...]] = {}
        # What came for each queue since it was last asked for.
        self._arrived: dict[str, int] = {}
        # How often the shadow rule would have decided otherwise about each queue that is open.
        self._differed_counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stepper = Stepper(
            self.scheduler,
            {
                Deliver: self._to_invoker,
                Create: self._to_invoker,
                Resume: self._to_invoker,
                Release: self._to_invoker,
                Adopt: self._adopt,
                Reserve: self._reserve,
                Unreserve: self._unreserve,
                Reject: self._to_controller,
                Throttle: self._to_controller,
                CloseQueue: self._closed,
                Forward: self._forward,
                Decided: self._decided,
                Differed: self._differed,
            },
            self._failed,
            recorder,
        )

    def connect(self, controller: Link, invokers: Mapping[str, Link]) -> None:
        """Set the links on which this node speaks; ``invokers`` may change."""
        self._controller = controller
        self._invokers = invokers

    def receive(self, message: object) -> None:
        """Take a message of a controller, or an event of an invoker."""
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Cancel):
            self._stepper.step(Cancelled(message.activation_id))
        elif isinstance(message, Close):
            if self.scheduler.has_queue(message.queue):
                self._stepper.step(QueueClosing(message.queue, message.why))
            elif message.queue in self._opening:
                self._opening[message.queue].append(message)
        elif isinstance(message, Inquiry):
            self._answer(message)
        elif isinstance(message, Event):
            if isinstance(message, (ContainerGone, CreationFailed)):
                # Before the core hears of it: what it reserves next may need the room.
                self._coordination.release(message.container)
            elif isinstance(message, Returned) and message.epoch in self._epochs_moved:
                self._returned_late(message)
                return
            self._stepper.step(message)
        else:
            raise TypeError(f"{type(message).__name__} is no message for a scheduler")

    def _answer(self, inquiry: Inquiry) -> None:
        """Say what of it has neither to wait nor to run here, nor is on its way from here."""
        here = {each.activation_id for leaving in self._leaving.values() for each in leaving}
        for waiting in self._opening.values():
            here |= {m.activation.activation_id for m in waiting if isinstance(m, Submit)}
        holds = self.scheduler.has_activation
        ids = [id_ for id_ in inquiry.activation_ids if not (holds(id_) or id_ in here)]
        if ids:
            self._say(NotHeld(tuple(ids)))

    def _returned_late(self, returned: Returned) -> None:
        """Send on what was delivered just before its queue moved, and met the next leader."""
        queue = self._epochs_moved[returned.epoch]
        leader = self._moved.get(queue, self.scheduler.config.name)
        for activation_id in returned.activation_ids:
            self._say(Misdirected(activation_id, queue, leader))

    def report_invoker(self, report: InvokerReported) -> None:
        """Tell the core of an invoker."""
        self._stepper.step(report)

    def take_arrived(self) -> dict[str, int]:
        """Return how many activations came for each queue since the last call."""
        arrived, self._arrived = self._arrived, {}
        return arrived

    def move(self, queue: str, to: str) -> None:
        """Have the scheduler of the instance ``to`` lead the queue, which is here and can move.

        It is opened there by the first activation that comes, those that wait here at the latest.
        """
        self._moved[queue] = to
        self._epochs_moved[self._epochs.pop(queue)] = queue
        self._stepper.step(LeadershipLost(queue, to))

    def not_moved_to(self, instance: str) -> None:
        """Lead again, when work comes, what was to be led by one that is gone."""
        self._moved = {queue: to for queue, to in self._moved.items() if to != instance}

    async def close(self) -> None:
        """Stop timers and what is under way with the coordination."""
        self._stepper.close()
        for queue in list(self._differed_counts):
            self._sum_up_shadow(queue)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- queues ------------------------------------------------------------------------------

    def _submit(self, message: Submit) -> None:
        queue = message.spec.queue
        if self.scheduler.has_queue(queue):
            self._arrived[queue] = self._arrived.get(queue, 0) + 1
            try:
                self._stepper.step(Arrived(queue, message.activation))
            except Exception as error:
                log.exception("an activation for %s could not be taken in", queue)
                self._refuse(message.activation, Cause.UNKNOWN, f"The scheduler failed: {error}")
        elif queue in self._opening:
            self._opening[queue].append(message)
        elif queue in self._moved:
            self._misdirect(message.activation, queue, self._moved[queue])
        else:
            self._opening[queue] = [message]
            self._start(self._open(message.spec))

    async def _open(self, spec: QueueSpec) -> None:
        try:
            epoch = await self._coordination.lead(spec.queue)
            self._epochs[spec.queue] = epoch
            self._stepper.step(QueueOpened(spec, epoch))
        except LedElsewhere as error:
            for message in self._opening.pop(spec.queue):
                if isinstance(message, Submit):
                    self._misdirect(message.activation, spec.queue, error.leader)
            return
        except Exception as error:
            log.exception("queue %s could not be opened", spec.queue)
            reason = f"The queue could not be opened: {error}"
            for message in self._opening.pop(spec.queue):
                if isinstance(message, Submit):
                    self._refuse(message.activation, Cause.CREATION_FAILED, reason)
            self._say(QueueClosed(spec.queue))
            return
        for message in self._opening.pop(spec.queue):
            self.receive(message)

    def _closed(self, effect: CloseQueue) -> None:
        self._say(QueueClosed(effect.queue))
        self._sum_up_shadow(effect.queue)
        self._epochs.pop(effect.queue, None)
        self._start(self._coordination.resign(effect.queue))

    def _forward(self, effect: Forward) -> None:
        self._sum_up_shadow(effect.queue)
        # What comes while the leadership is given back waits behind what is handed over.
        self._opening[effect.queue] = []
        self._leaving[effect.queue] = tuple(effect.activations)
        self._start(self._hand_over(effect))

    async def _hand_over(self, effect: Forward) -> None:
        """Give up the leadership, and only then send the work on: the next one finds it free."""
        while True:
            try:
                await self._coordination.resign(effect.queue)
                break
            except Exception:
                log.exception("queue %s is still led here; the next try is soon", effect.queue)
                await asyncio.sleep(RESIGN_RETRY_S)
        for activation in self._leaving.pop(effect.queue):
            self._misdirect(activation, effect.queue, effect.to)
        for message in self._opening.pop(effect.queue):
            if isinstance(message, Submit):
                self._misdirect(message.activation, effect.queue, effect.to)
        await asyncio.sleep(MOVED_S)
        self._moved.pop(effect.queue, None)
        moved = self._epochs_moved
        self._epochs_moved = {e: queue for e, queue in moved.items() if queue != effect.queue}

    def _misdirect(self, activation: Activation, queue: str, leader: str) -> None:
        self._say(Misdirected(activation.activation_id, queue, leader))

    # --- effects -----------------------------------------------------------------------------

    def _to_invoker(self, effect: Deliver | Create | Resume | Release) -> None:
        self._invokers[effect.invoker].send(effect)

    def _adopt(self, effect: Adopt) -> None:
        for name, link in self._invokers.items():
            if effect.invoker in ("", name):
                link.send(effect)

    def _to_controller(self, effect: Reject | Throttle) -> None:
        self._say(effect)

    def _say(self, message: object) -> None:
        assert self._controller is not None
        self._controller.send(message)

    def _refuse(self, activation: Activation, cause: Cause, reason: str) -> None:
        self._say(Reject(activation, cause, reason, 0))

    def _reserve(self, effect: Reserve) -> None:
        self._start(self._ask(effect))

    async def _ask(self, effect: Reserve) -> None:
        try:
            granted, reason = await self._coordination.reserve(
                effect.namespace,
                self._containers_max,
                effect.memory_mb,
                effect.places,
                effect.queue,
            )
        except Exception as error:
            log.exception("containers for %s could not be reserved", effect.queue)
            granted, reason = [], f"the coordination failed: {error}"
        if granted:
            self._stepper.step(Reserved(effect.queue, effect.serial, tuple(granted)))
        else:
            self._stepper.step(Denied(effect.queue, effect.serial, reason))

    def _unreserve(self, effect: Unreserve) -> None:
        for container in effect.containers:
            self._coordination.release(container)

    def _decided(self, effect: Decided) -> None:
        log.debug("%s: %r", effect.queue, effect.decision)

    def _differed(self, effect: Differed) -> None:
        count = self._differed_counts.get(effect.queue, 0)
        self._differed_counts[effect.queue] = count + 1
        # Once for each queue: a wish that is not granted comes again with every look.
        level = logging.DEBUG if count else logging.INFO
        log.log(level, "%s: the shadow rule would decide %r", effect.queue, effect.decision)

    def _sum_up_shadow(self, queue: str) -> None:
        count = self._differed_counts.pop(queue, 0)
        if count:
            log.info("%s: the shadow rule would have decided otherwise %d times", queue, count)

    def _failed(self, effect: object, cause: str) -> None:
        """Answer for what an effect that was not carried out was about."""
        if isinstance(effect, Deliver):
            # It may be on its way or not; its slot comes back when the container goes.
            self._refuse(effect.activation, Cause.UNKNOWN, f"The delivery failed: {cause}")
        elif isinstance(effect, Create):
            self.receive(CreationFailed(effect.container, FailureClass.RECOVERABLE, cause))
        elif isinstance(effect, Reserve):
            self._stepper.step(Denied(effect.queue, effect.serial, cause))

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the scheduler lost a task", exc_info=task.exception())
