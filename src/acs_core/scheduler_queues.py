# cython: nonecheck=True
"""The life of queues: opened, adopted, begun, closed, handed over; and a namespace's limits."""

from __future__ import annotations

from . import limits
from .effects import Adopt, Forward
from .events import (
    Activation,
    Adopted,
    HungerElsewhere,
    HungerEnded,
    LeadershipLost,
    LimitsChanged,
    QueueClosing,
    QueueOpened,
)
from .ledger import ContainerEntry, NamespaceEntry, QueueEntry
from .queue_states import QueueState, Signal
from .scheduler_decisions import SchedulerDecisions

# Enum members as plain integers: comparing them costs nothing when compiled.
_UNINITIALIZED = int(QueueState.UNINITIALIZED)


class SchedulerQueues(SchedulerDecisions):
    """Handlers of the events of queues; see the module."""

    def _queue_opened(self, event: QueueOpened, now_us: int, out: list[object]) -> None:
        spec = event.spec
        if spec.queue in self._queues:
            raise ValueError(f"queue {spec.queue} is open already")
        namespace = self._namespaces.get(spec.namespace)
        if namespace is None:
            namespace = NamespaceEntry(
                self.config.namespace_containers_max, self.config.namespace_reserve
            )
            self._namespaces[spec.namespace] = namespace
        namespace.queues += 1
        load = self._history.open(spec, now_us, event.history_us)
        capacity = self.config.waiting_max
        queue = QueueEntry(
            spec, event.epoch, capacity, namespace, load, now_us, self._calls, self._wait_max_us
        )
        queue.adopting = dict.fromkeys(self._invokers, True)
        for invoker in self._invokers.values():
            invoker.unheard[spec.queue] = queue
        self._queues[spec.queue] = queue
        out.append(Adopt(spec.queue, event.epoch))
        self._adoption_over(queue, now_us, out)

    def _adopted(self, event: Adopted, now_us: int, out: list[object]) -> None:
        queue = self._queues.get(event.queue)
        if queue is None or event.epoch != queue.epoch:
            return
        for held in event.held:
            if len(held.activation_ids) > queue.spec.concurrency:
                raise ValueError(
                    f"container {held.container} holds {len(held.activation_ids)} activations; "
                    f"it must be at most {queue.spec.concurrency}"
                )
        invoker = self._invokers.get(event.invoker)
        if invoker is None or invoker.unheard.pop(event.queue, None) is None:
            return
        if queue.adopting.pop(event.invoker, None) is None and queue.failures:
            queue.retry_us = now_us  # it has joined: what failed before may succeed there
        for held in event.held:
            if held.container in self._containers:
                continue
            container = ContainerEntry(held.container, event.invoker, queue, held.keep)
            self._given_up.pop(held.container, None)
            self._ledger.enter(container, now_us)
            if held.serving:
                self._serve(container, now_us)
            for activation_id in held.activation_ids:
                known = self._activations.get(activation_id)
                if known is not None and known.delivered_us >= 0:
                    continue
                if known is None:
                    self._accepted += 1
                else:  # a controller has sent it again, and it waits here
                    self._queues[known.queue].line.withdraw(known)
                # Its payload stays where it runs; here it only must not be delivered again.
                activation = Activation(activation_id, b"", now_us)
                activation.queue = event.queue
                activation.delivered_us = now_us
                activation.started = True
                self._activations[activation_id] = activation
                container.outstanding[activation_id] = activation
                queue.delivered[activation_id] = activation
        self._adoption_over(queue, now_us, out)

    def _adoption_over(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        """Begin to serve, unless some invoker has not told yet what it holds."""
        if not queue.adopting:
            self._begin(queue, now_us, out)
            self._consider(queue, now_us, out)
            self._settle(queue, now_us, out)

    def _begin(self, queue: QueueEntry, now_us: int, out: list[object]) -> None:
        queue.adopting = {}  # without the table that the emptied one keeps
        if queue.life.state_index == _UNINITIALIZED:
            queue.life.fire(Signal.ADOPTED)
        self._serve_line(queue, now_us, out)

    def _queue_closing(self, event: QueueClosing, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        self._move(queue, Signal.CLOSE_REQUESTED, event.why, out)
        queue.cause = event.why
        self._consider(queue, now_us, out)
        self._settle(queue, now_us, out)

    def _hunger_elsewhere(self, event: HungerElsewhere, now_us: int, out: list[object]) -> None:
        if event.queue not in self._queues:
            self._starving.hear(event)
        giver = self._queues.get(event.giver)
        if giver is not None and not giver.adopting and self.config.give_back:
            self._give_elsewhere(giver, event, now_us, out)
            self._wake(giver, self._next_look_us(giver, now_us))

    def _hunger_ended(self, event: HungerEnded, now_us: int, out: list[object]) -> None:
        ended = self._starving.elsewhere.forget(event.queue)
        if ended is not None:
            self._feed_starved(ended.namespace, now_us, out)

    def _leadership_lost(self, event: LeadershipLost, now_us: int, out: list[object]) -> None:
        queue = self._entry(event.queue)
        waiting = []
        activation = queue.line.take()
        while activation is not None:
            del self._activations[activation.activation_id]
            waiting.append(activation)
            activation = queue.line.take()
        # What was delivered reports to the new leader, and so do the containers.
        for container in [*queue.in_progress.values(), *queue.serving.values()]:
            for activation_id in container.outstanding:
                del self._activations[activation_id]
            self._forwarded += len(container.outstanding)
            self._ledger.forget(container)
        self._forwarded += len(waiting)
        queue.delivered.clear()
        self._move(queue, Signal.SUPERSEDED, f"{event.to} leads the queue", out)
        if queue.reserving:
            self._drop_reservation(queue, queue.reserving, out)
        self._drop_queue(queue)
        out.append(Forward(event.queue, tuple(waiting), event.to))

    def _limits_changed(self, event: LimitsChanged, now_us: int, out: list[object]) -> None:
        if not 0.0 < event.weight <= limits.WEIGHT_MAX:
            raise ValueError(f"weight is {event.weight}; it must be in 0..{limits.WEIGHT_MAX}")
        namespace = self._namespaces.get(event.namespace)
        if namespace is None:
            namespace = NamespaceEntry(event.containers_max, event.reserve)
            self._namespaces[event.namespace] = namespace
        namespace.containers_max = event.containers_max
        namespace.reserve = event.reserve
        namespace.weight = event.weight
        concerned = [queue for queue in self._queues.values() if queue.namespace is namespace]
        for queue in concerned:
            queue.retry_us = now_us  # what failed before may succeed now
        for queue in self._rest_soon(concerned):
            self._decide(queue, now_us, out)
        self._tidy(event.namespace)
