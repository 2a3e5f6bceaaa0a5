# cython: nonecheck=True
"""What is told of reservations, containers and invokers, and what was never told in time."""

from __future__ import annotations

from . import limits
from .effects import Adopt, Cause, Create, Release, Unreserve
from .events import (
    Cancelled,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    Denied,
    FailureClass,
    InvokerGone,
    InvokerReported,
    Reserved,
    Returned,
)
from .ledger import ContainerEntry, QueueEntry
from .queue_states import QueueState
from .scheduler_queues import SchedulerQueues

# Enum members as plain integers: comparing them costs nothing when compiled.
_REMOVING = int(QueueState.REMOVING)
_RECOVERABLE = int(FailureClass.RECOVERABLE)


class SchedulerContainers(SchedulerQueues):
    """Handlers of the events of containers and invokers; see the module."""

    def _cancelled(self, event: Cancelled, now_us: int, out: list[object]) -> None:
        activation = self._activations.get(event.activation_id)
        if activation is None or activation.delivered_us >= 0:
            return
        queue = self._queues[activation.queue]
        queue.line.withdraw(activation)
        self._reject(activation, Cause.CANCELLED, "cancelled before its turn", 0, out)
        self._settle(queue, now_us, out)

    def _returned(self, event: Returned, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.epoch != container.queue.epoch:
            return
        queue = container.queue
        container.free = 0  # whoever returns work has no use for more
        for activation_id in reversed(event.activation_ids):
            activation = container.outstanding.get(activation_id)
            # One that is known to have started is never run again, whatever is said of it.
            if activation is not None and not activation.started:
                del container.outstanding[activation_id]
                del queue.delivered[activation_id]
                activation.delivered_us = -1
                queue.line.put_back(activation)
        self._serve_line(queue, now_us, out)
        self._consider(queue, now_us, out)

    def _reserved(self, event: Reserved, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        asked = queue is not None and event.serial == queue.reserving_serial
        spots = queue.reserving if queue is not None and asked else ()
        granted = [spot for spot in spots if spot.container in event.containers]
        usable = [spot for spot in granted if self._may_create(event.queue, spot.invoker)]
        kept = [spot.container for spot in usable]
        # A repeated grant may name containers that exist by now: they keep their places.
        late = tuple([n for n in event.containers if n not in kept and n not in self._containers])
        if late:
            out.append(Unreserve(event.queue, queue.epoch if queue is not None else 0, late))
        if queue is None or not granted:
            return
        level = queue.reserving_level
        self._ledger.end_reservation(queue)
        self._starving.elsewhere.end(event.queue)
        if usable and queue.life.state_index == _REMOVING and queue.line.waiting == 0:
            self._drop_reservation(queue, tuple(usable), out)
            usable = []
        closing = queue.life.state_index == _REMOVING
        for spot in usable:
            keep = queue.floor_lacks() > 0 and not closing
            container = ContainerEntry(spot.container, spot.invoker, queue, keep)
            container.level = level
            self._ledger.enter(container, now_us)
            out.append(Create(spot.container, spot.invoker, queue.epoch, queue.spec, keep))
        if not usable:
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)
        self._wake(queue, self._next_look_us(queue, now_us))

    def _may_create(self, queue: str, invoker: str) -> bool:
        """Tell whether the invoker is there, and has told what it holds of the queue."""
        entry = self._invokers.get(invoker)
        return entry is not None and queue not in entry.unheard

    def _denied(self, event: Denied, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        if queue is None or not queue.reserving or event.serial != queue.reserving_serial:
            return
        self._ledger.end_reservation(queue)
        self._starving.lack(event.queue, False)
        self._starving.drop(event.queue)  # it lacks that from before it asked
        self._failed(queue, event.reason, _RECOVERABLE, now_us, out)
        self._settle(queue, now_us, out)

    def _container_serving(self, event: ContainerServing, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._release_late(event.container, out)
        elif event.container in container.queue.in_progress:
            self._serve(container, now_us)

    def _release_late(self, name: str, out: list[object]) -> None:
        """Let a container go that serves after its creation was given up (L7)."""
        given_up = self._given_up.pop(name, None)
        if given_up is not None:
            invoker, epoch = given_up
            out.append(Release(name, invoker, epoch, "it serves too late: it was given up"))

    def _give_up(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Take for failed what the queue has asked for and not been answered in time (L7)."""
        if queue.reserving and now_us - queue.asked_us >= self._reserve_answer_us:
            cause = f"no answer to a reservation for {self._reserve_answer_us // 1000} ms"
            self._drop_reservation(queue, queue.reserving, out)
            self._failed(queue, cause, _RECOVERABLE, now_us, out)
        given_up = False
        for container in list(queue.in_progress.values()):
            if now_us - container.entered_us < self._create_answer_us:
                break
            cause = f"no answer to a creation for {self._create_answer_us // 1000} ms"
            given_up = True
            self._given_up[container.container] = (container.invoker, queue.epoch)
            if len(self._given_up) > limits.GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
            self._lose(container, cause, out)
            self._failed(queue, cause, _RECOVERABLE, now_us, out)
        if given_up:
            self._feed_starved(queue.spec.namespace, now_us, out)

    def _container_leaving(self, event: ContainerLeaving, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None or event.container not in container.queue.serving:
            return
        self._ledger.leave(container)
        self._consider(container.queue, now_us, out)

    def _container_paused(self, event: ContainerPaused, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            return
        queue = container.queue
        name = event.container
        if name not in queue.serving or name in queue.leaving or name in queue.paused:
            return
        container.free = 0
        if not container.outstanding:  # else what was delivered meanwhile wakes it
            container.resuming = False
            queue.paused[name] = container
        self._consider(queue, now_us, out)

    def _container_gone(self, event: ContainerGone, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._given_up.pop(event.container, None)
            return
        self._lose(container, event.cause, out)
        self._after_loss(container.queue, now_us, out)
        self._feed_starved(container.queue.spec.namespace, now_us, out)

    def _after_loss(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        if not (queue.serving or queue.in_progress):
            queue.quiet_since_us = now_us
        self._consider(queue, now_us, out)
        self._settle(queue, now_us, out)

    def _creation_failed(self, event: CreationFailed, now_us: int, out: list[object]) -> None:
        container = self._containers.get(event.container)
        if container is None:
            self._given_up.pop(event.container, None)
            return
        queue = container.queue
        self._lose(container, event.cause, out)
        self._failed(queue, event.cause, event.failure, now_us, out)
        self._settle(queue, now_us, out)
        self._feed_starved(queue.spec.namespace, now_us, out)

    def _invoker_reported(self, event: InvokerReported, now_us: int, out: list[object]) -> None:
        if self._ledger.report(event) and self._queues:
            self._asking[event.invoker] = self._invokers[event.invoker]
            self._ask_joined(out)
        self._feed_starved(None, now_us, out)

    def _ask_joined(self, out: list[object]) -> None:
        """Ask invokers that have joined what they hold of the queues that were open then."""
        left = limits.ASKS_MAX
        for name, invoker in list(self._asking.items()):
            while invoker.unasked and left > 0:
                left -= 1
                key, queue = invoker.unasked.popitem()
                if invoker.unheard.get(key) is queue:
                    out.append(Adopt(key, queue.epoch, name))
            if not invoker.unasked:
                del self._asking[name]

    def _invoker_gone(self, event: InvokerGone, now_us: int, out: list[object]) -> None:
        entry = self._invokers.pop(event.invoker, None)
        if entry is None:
            return
        self._asking.pop(event.invoker, None)
        touched: dict[str, QueueEntry] = {}
        for container in list(entry.containers.values()):
            touched[container.queue.spec.queue] = container.queue
            self._lose(container, f"invoker {event.invoker} is gone", out)
        for queue in entry.unheard.values():
            if queue.adopting.pop(event.invoker, None) is not None and not queue.adopting:
                self._begin(queue, now_us, out)
                touched[queue.spec.queue] = queue
            elif queue.life.state_index == _REMOVING:
                touched[queue.spec.queue] = queue
        for queue in touched.values():
            if not (queue.serving or queue.in_progress):
                queue.quiet_since_us = now_us
        for queue in self._rest_soon(list(touched.values())):
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)
