# cython: nonecheck=True
"""Waiting work meets free slots: which container is served next, and with what.

Leaves out when: an arrival and a pull are ``scheduler``'s, an adoption's end ``scheduler_queues``'.
"""

from __future__ import annotations

from .effects import Cause, Deliver
from .events import Activation
from .ledger import ContainerEntry, QueueEntry
from .queue_states import QueueState, Signal
from .scheduler_base import SchedulerBase

# Enum members as plain integers: comparing them costs nothing when compiled.
_REMOVING = int(QueueState.REMOVING)


class SchedulerDelivery(SchedulerBase):
    """Deliveries from the line to free slots; see the module."""

    def _deliver(
        self,
        queue: QueueEntry,
        container: ContainerEntry,
        activation: Activation,
        now_us: int,
        out: list[object],
    ) -> None:
        assert container.free > 0
        container.free -= 1
        container.outstanding[activation.activation_id] = activation
        queue.delivered[activation.activation_id] = activation
        activation.delivered_us = now_us
        out.append(Deliver(container.container, container.invoker, queue.epoch, activation))

    def _top(self, queue: QueueEntry) -> ContainerEntry | None:
        """Return the container with a free slot that pulled last; forget those without."""
        stack = queue.open
        while stack:
            container = stack[-1]
            if container.free > 0:
                return container
            container.stacked = False
            stack.pop()
        return None

    def _take(self, queue: QueueEntry, now_us: int, out: list[object]) -> Activation | None:
        """Take the oldest activation that has not expired; the expired before it are rejected."""
        while True:
            activation = queue.line.take()
            if activation is None:
                return None
            if self._expires_us(queue, activation) > now_us:
                return activation
            text = self._waited_too_long(queue, activation)
            self._reject(activation, Cause.EXPIRED, text, 0, out)

    def _serve_line(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Hand waiting activations to free slots until one of both runs out."""
        while queue.line.waiting > 0 and not queue.adopting:
            container = self._top(queue)
            if container is None:
                self._serve_calls(queue, now_us, out)
                return
            activation = self._take(queue, now_us, out)
            if activation is not None:
                self._deliver(queue, container, activation, now_us, out)

    def _serve_calls(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Hand waiting calls to the free slots that are for them alone."""
        if queue.adopting:
            return
        for container in list(queue.open_to_calls):
            while container.free > 0:
                call = queue.line.take_call(container.level)
                if call is None:
                    break
                if self._expires_us(queue, call) > now_us:
                    self._deliver(queue, container, call, now_us, out)
                else:
                    text = self._waited_too_long(queue, call)
                    self._reject(call, Cause.EXPIRED, text, 0, out)
            if container.free == 0:
                container.stacked = False
                queue.open_to_calls.remove(container)

    def _lower_levels(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Let containers that are kept for calls serve the rest where the reserve is free again."""
        for container in list(queue.serving.values()):
            lowered = container.level > 0 and self._ledger.lower_level(container)
            if lowered and container.level == 0 and container.stacked:
                queue.open_to_calls.remove(container)
                queue.open.append(container)
        self._serve_line(queue, now_us, out)

    def _refuse_full(self, queue: QueueEntry, activation: Activation, out: list[object]) -> None:
        waiting = queue.line.waiting
        low = int(queue.line.capacity * self.config.waiting_low_fraction)
        reason = (
            f"{waiting} activations of this action wait (allowed: {queue.line.capacity});"
            f" taken in again when no more than {low} wait"
        )
        slots = max(1, len(queue.serving) * queue.spec.concurrency)
        retry_us = int(waiting * queue.load.mean_us / slots)
        self._reject_new(activation, Cause.QUEUE_FULL, reason, retry_us, out)

    def _serve(self, container: ContainerEntry, now_us: int) -> None:
        """Let a container that was in progress serve: what failed before is over."""
        self._ledger.serve(container, now_us)
        queue = container.queue
        queue.failures = 0
        queue.retry_us = 0
        queue.final = False
        queue.cause = "" if queue.life.state_index != _REMOVING else queue.cause
        if queue.life.can(Signal.CREATION_SUCCEEDED):
            queue.life.fire(Signal.CREATION_SUCCEEDED)
