"""The baseline's controllers as a node: balancers that push, and what they think of the invokers.

It stands where ``scheduler_node`` does, behind the same links, and serves the same REST API: one
``Balancer`` and one ``Supervision`` for each controller that is played.  Work goes to the
controllers in turn, as a proxy before them would spread it.  An invoker pings with its report.  The
original tests invokers with an activation of its own; here, where they live in the same process,
such a test succeeds at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from acs_core.effects import Cause, Reject
from acs_core.events import Activation, InvokerReported, QueueSpec
from acs_core.sharding import Balancer, PushedAction
from acs_core.sharding_feed import Acknowledged
from acs_core.sharding_pool import Push
from acs_core.sharding_supervision import InvocationResult, Supervision

from . import clock
from .entity_types import Action
from .links import Cancel, Close, Link, QueueClosed, Submit

log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""Between two looks at what is overdue; by then an invoker has pinged again."""

_NO_INVOKER: Final = "No invokers are available to run the action"
_NO_ACK: Final = "The invoker did not acknowledge in time that it has ended"


@dataclass(slots=True)
class _Queue:
    """What is under way of an action; it has no line of its own."""

    action: PushedAction
    activation_ids: set[str] = field(default_factory=set)
    closing: bool = False
    # Nothing has come for it since the last tick.
    still: bool = False


@dataclass(slots=True)
class _Assigned:
    """An activation that an invoker has."""

    queue: str
    activation: Activation
    controller: int


class PushNode:
    """Plays the controllers; ``receive`` takes everything that links bring.

    ``action_of`` returns the action of a queue for which work comes; ``draw`` returns a number, 0
    or more, for an assignment by force.
    """

    def __init__(
        self, controllers: int, action_of: Callable[[str], Action], draw: Callable[[], int]
    ) -> None:
        self.balancers = [Balancer() for _ in range(controllers)]
        self.supervisions = [Supervision() for _ in range(controllers)]
        for balancer in self.balancers:
            balancer.shards.update_cluster(controllers)
        self._seen = [0] * controllers
        self._turns = itertools.cycle(range(controllers))
        self._action_of = action_of
        self._draw = draw
        self._controller: Link | None = None
        self._invokers: list[Link] = []
        self._numbers: dict[str, int] = {}
        self._queues: dict[str, _Queue] = {}
        self._assigned: dict[str, _Assigned] = {}
        self._account = {"accepted": 0, "ended": 0, "rejected": 0}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connect(self, controller: Link, invokers: Mapping[str, Link]) -> None:
        """Set the links on which this node speaks; the invokers are numbered in their order."""
        self._controller = controller
        self._invokers = list(invokers.values())
        self._numbers = {name: number for number, name in enumerate(invokers)}
        self._timer = self._loop.call_later(TICK_S, self._on_tick)

    def receive(self, message: object) -> None:
        """Take a message of a controller, or an event of an invoker."""
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Acknowledged):
            self._acknowledged(message)
        elif isinstance(message, InvokerReported):
            self._pinged(message)
        elif isinstance(message, Close):
            queue = self._queues.get(message.queue)
            if queue is not None:
                queue.closing = True
                self._close_if_empty(message.queue, queue)
        elif not isinstance(message, Cancel):  # what was pushed is not taken back
            raise TypeError(f"{type(message).__name__} is no message for a controller that pushes")

    def counts(self) -> dict[str, int]:
        """Return the account of activations, as a scheduler does; what waits is delivered."""
        return {
            **self._account,
            "waiting": 0,
            "delivered": len(self._assigned),
            "forwarded": 0,
            "forced": sum([sum(balancer.overloads) for balancer in self.balancers]),
        }

    async def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    # --- activations -------------------------------------------------------------------------

    def _submit(self, message: Submit) -> None:
        activation = message.activation
        self._account["accepted"] += 1
        controller = next(self._turns)
        try:
            queue = self._queue(message.spec)
            chosen = self.balancers[controller].publish(
                activation.activation_id, queue.action, clock.now_us(), self._draw()
            )
        except Exception as error:
            log.exception("an activation for %s could not be taken in", message.spec.queue)
            text = f"The balancer failed: {error}"
            self._refuse(Reject(activation, Cause.CREATION_FAILED, text, 0))
            return
        if chosen is None:
            self._refuse(Reject(activation, Cause.CREATION_FAILED, _NO_INVOKER, 0))
            return
        queue.still = False
        queue.activation_ids.add(activation.activation_id)
        assigned = _Assigned(message.spec.queue, activation, controller)
        self._assigned[activation.activation_id] = assigned
        self._invokers[chosen].send(Push(message.spec, activation))

    def _queue(self, spec: QueueSpec) -> _Queue:
        queue = self._queues.get(spec.queue)
        if queue is None:
            action = PushedAction(
                spec.namespace,
                spec.action,
                str(spec.revision),
                spec.memory_mb,
                spec.concurrency,
                spec.timeout_us,
                blackbox=self._action_of(spec.queue).exec.image is not None,
            )
            queue = self._queues[spec.queue] = _Queue(action)
        return queue

    def _acknowledged(self, message: Acknowledged) -> None:
        activation_id = message.activation_id
        assigned = self._assigned.get(activation_id)
        if assigned is None:
            return  # it was given up
        self.balancers[assigned.controller].complete(activation_id)
        self._account["ended"] += 1
        self._left(activation_id, assigned)
        result = InvocationResult.SUCCESS
        if message.system_error:
            result = InvocationResult.SYSTEM_ERROR
        self._tell(assigned.controller, self._numbers[message.invoker], result)

    def _left(self, activation_id: str, assigned: _Assigned) -> None:
        del self._assigned[activation_id]
        queue = self._queues[assigned.queue]
        queue.activation_ids.discard(activation_id)
        if queue.closing:
            self._close_if_empty(assigned.queue, queue)

    def _close_if_empty(self, name: str, queue: _Queue) -> None:
        """Let the controllers forget an action: no invoker asks for it any more."""
        if not queue.activation_ids:
            del self._queues[name]
            self._say(QueueClosed(name))

    def _refuse(self, reject: Reject) -> None:
        self._account["rejected"] += 1
        self._say(reject)

    def _say(self, message: object) -> None:
        assert self._controller is not None
        self._controller.send(message)

    # --- what the controllers think of the invokers --------------------------------------------

    def _pinged(self, report: InvokerReported) -> None:
        number = self._numbers[report.invoker]
        now_us = clock.now_us()
        for controller, supervision in enumerate(self.supervisions):
            if supervision.pinged(number, report.memory_mb, now_us):
                self._test(controller, number)
            self._update(controller)

    def _tell(self, controller: int, number: int, result: InvocationResult) -> None:
        if self.supervisions[controller].completed(number, result, clock.now_us()):
            self._test(controller, number)
        self._update(controller)

    def _test(self, controller: int, number: int) -> None:
        supervision = self.supervisions[controller]
        while supervision.completed(number, InvocationResult.SUCCESS, clock.now_us()):
            pass  # a success in bad health asks for another test

    def _update(self, controller: int) -> None:
        """Tell a balancer of the invokers' health when it has changed."""
        supervision = self.supervisions[controller]
        if supervision.changes != self._seen[controller]:
            self._seen[controller] = supervision.changes
            self.balancers[controller].shards.update_invokers(supervision.invokers)

    def _on_tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._on_tick)
        now_us = clock.now_us()
        for controller, balancer in enumerate(self.balancers):
            for number in self.supervisions[controller].time_reached(now_us):
                self._test(controller, number)
            self._update(controller)
            for activation_id, number in balancer.give_up(now_us):
                self._give_up(activation_id, number)
        for name, queue in list(self._queues.items()):
            if queue.still:
                self._close_if_empty(name, queue)
            queue.still = not queue.activation_ids

    def _give_up(self, activation_id: str, number: int) -> None:
        """Force the completion of what was not acknowledged in time."""
        assigned = self._assigned[activation_id]
        self._refuse(Reject(assigned.activation, Cause.UNKNOWN, _NO_ACK, 0))
        self._left(activation_id, assigned)
        self._tell(assigned.controller, number, InvocationResult.TIMEOUT)
