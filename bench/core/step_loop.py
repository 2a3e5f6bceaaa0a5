"""The measured loops: activations through ``Scheduler.step`` and ``ContainerPool.step``.

Plain Python that also compiles (``step_loop.pxd``): the first is what a node in Python pays,
the second what an embedder in Cython pays.  Every loop leaves the state as it found it.

Ids are made once and used again, so making and hashing them is not measured.
"""

from __future__ import annotations

import random

from acs_core.containers import ContainerPool, PoolConfig
from acs_core.effects import Create, Deliver
from acs_core.events import (
    Activation,
    Adopted,
    Arrived,
    Completion,
    Held,
    Initialised,
    InvokerReported,
    Pulled,
    QueueOpened,
    QueueSpec,
    RunEnded,
    SandboxReady,
    TimeReached,
)
from acs_core.limits import DECISION_INTERVAL_US
from acs_core.scheduler import Scheduler, SchedulerConfig

ORDER_COUNT = 2**17
IDS_COUNT = 2**10
RUN_US = 2_000
EPOCH = 1
INVOKER = "invoker0"


def queue_name(index: int) -> str:
    """Name a queue as a node would."""
    return f"guest/action{index}@1"


class SchedulerLoop:
    """A scheduler with ``queue_count`` queues, each with one warm container.

    Work comes for uniformly random queues, the same ones in each run (``seed``).  An activation
    is two steps: its arrival, and the pull that reports a completion and offers a slot.
    """

    def __init__(self, queue_count: int, seed: int = 1) -> None:
        self.scheduler = Scheduler(SchedulerConfig(namespace_containers_max=2 * queue_count))
        self.now_us = 1
        self.position = 0
        self.queues = [queue_name(index) for index in range(queue_count)]
        self.containers = [f"container-{index}" for index in range(queue_count)]
        self.ids = [f"{index:032x}" for index in range(IDS_COUNT)]
        self.order = random.Random(seed).choices(range(queue_count), k=ORDER_COUNT)
        self.ended = 0
        # The activation that runs in each container, while there is a backlog.
        self.running: list[str] = []
        scheduler = self.scheduler
        scheduler.step(InvokerReported(INVOKER, 2 * queue_count), self.now_us)
        for queue, container in zip(self.queues, self.containers, strict=True):
            spec = QueueSpec(queue, "guest", queue, 1, memory_mb=1)
            scheduler.step(QueueOpened(spec, EPOCH, RUN_US), self.now_us)
            held = (Held(container, True),)
            scheduler.step(Adopted(INVOKER, queue, EPOCH, held), self.now_us)
            scheduler.step(Pulled(container, EPOCH, 1), self.now_us)

    def run_idle(self, count: int) -> None:
        """Let ``count`` activations arrive where a container waits for them, and end."""
        scheduler = self.scheduler
        now_us = self.now_us
        for index in range(self.position, self.position + count):
            place = self.order[index % ORDER_COUNT]
            activation_id = self.ids[index % IDS_COUNT]
            now_us += 1
            activation = Activation(activation_id, b"{}", now_us)
            scheduler.step(Arrived(self.queues[place], activation), now_us)
            completion = Completion(activation_id, 0, RUN_US, 0)
            scheduler.step(Pulled(self.containers[place], EPOCH, 1, (), (completion,)), now_us)
        self.position = (self.position + count) % (ORDER_COUNT * IDS_COUNT)
        self.now_us = now_us
        self.ended += count

    def touch(self) -> None:
        """Let one activation through every queue: from then on nothing happens the first time."""
        order, self.order = self.order, list(range(len(self.queues)))
        self.order += [0] * (ORDER_COUNT - len(self.queues))
        self.run_idle(len(self.queues))
        self.order, self.position = order, 0

    def fill(self) -> None:
        """Let every container run something, so that arrivals wait for a pull."""
        for queue in self.queues:
            self.scheduler.step(Arrived(queue, Activation(queue, b"{}", self.now_us)), self.now_us)
        self.running = list(self.queues)

    def run_backlog(self, count: int) -> None:
        """Let ``count`` activations wait, each until the next pull; after ``fill``."""
        scheduler = self.scheduler
        now_us = self.now_us
        for index in range(self.position, self.position + count):
            place = self.order[index % ORDER_COUNT]
            # Two ids for each queue, in turn: the one before is still running there.
            activation_id = self.queues[place]
            if self.running[place] is activation_id:
                activation_id = self.containers[place]
            now_us += 1
            activation = Activation(activation_id, b"{}", now_us)
            scheduler.step(Arrived(self.queues[place], activation), now_us)
            completion = Completion(self.running[place], 0, RUN_US, 0)
            scheduler.step(Pulled(self.containers[place], EPOCH, 1, (), (completion,)), now_us)
            self.running[place] = activation_id
        self.position = (self.position + count) % (ORDER_COUNT * IDS_COUNT)
        self.now_us = now_us
        self.ended += count

    def tick(self) -> None:
        """Let the interval between two looks pass, and every queue be looked at in one step."""
        self.now_us += DECISION_INTERVAL_US
        self.scheduler.step(TimeReached(), self.now_us)

    def check(self) -> None:
        """Assert that the state is as before, and that what was let through has ended."""
        counts = self.scheduler.counts()
        assert counts["ended"] == self.ended > 0, counts
        assert counts["waiting"] == 0, counts
        assert counts["rejected"] == 0, counts
        assert counts["delivered"] == len(self.running), counts
        self.scheduler.check()


class PoolLoop:
    """A pool with ``container_count`` warm containers; one run is a delivery and its end."""

    def __init__(self, container_count: int, seed: int = 1) -> None:
        self.pool = ContainerPool(PoolConfig(INVOKER, container_count))
        self.now_us = 1
        self.position = 0
        self.containers = [f"container-{index}" for index in range(container_count)]
        self.ids = [f"{index:032x}" for index in range(IDS_COUNT)]
        self.order = random.Random(seed).choices(range(container_count), k=ORDER_COUNT)
        for index, container in enumerate(self.containers):
            spec = QueueSpec(queue_name(index), "guest", f"action{index}", 1, memory_mb=1)
            first = Activation(f"first-{index}", b"{}", self.now_us)
            for event in (
                Create(container, INVOKER, EPOCH, spec),
                SandboxReady(container),
                Deliver(container, INVOKER, EPOCH, first),
                Initialised(container, 1),
                RunEnded(container, first.activation_id, RUN_US, 0),
            ):
                self.pool.step(event, self.now_us)

    def run(self, count: int) -> None:
        """Let ``count`` activations run."""
        pool = self.pool
        now_us = self.now_us
        for index in range(self.position, self.position + count):
            container = self.containers[self.order[index % ORDER_COUNT]]
            activation_id = self.ids[index % IDS_COUNT]
            now_us += 1
            activation = Activation(activation_id, b"{}", now_us)
            pool.step(Deliver(container, INVOKER, EPOCH, activation), now_us)
            pool.step(RunEnded(container, activation_id, RUN_US, 0), now_us)
        self.position = (self.position + count) % (ORDER_COUNT * IDS_COUNT)
        self.now_us = now_us

    def check(self) -> None:
        """Assert that every container is ready and idle."""
        counts = self.pool.counts()
        assert counts["ready"] == counts["idle"] == len(self.containers), counts
        self.pool.check()
