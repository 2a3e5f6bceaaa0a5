"""The nodes of ``acs standalone``, linked in one process: ours, and the baseline that pushes.

Both have the same controller, sandboxes and invoker node; they differ in the scheduler behind the
links and in the pools of the invokers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from acs_core.containers import ContainerPool, ContainerState, PoolConfig
from acs_core.scheduler import SchedulerConfig
from acs_core.sharding_container import ProxyState
from acs_core.sharding_feed import FedPool
from acs_core.sharding_pool import PushPoolConfig

from .controller import Controller
from .coordination import MemoryCoordination
from .invoker import Invoker
from .links import Inbox, Link, LocalLink
from .log_collection import LogCollection
from .push_node import PushNode
from .sandboxes.metered import MeteredEngine
from .scheduler_node import SchedulerNode
from .trace_file import TraceFile
from .waits import WaitHistogram

log = logging.getLogger(__name__)

PING_S: Final = 1.0
"""Between two pings of an invoker of the baseline."""


@dataclass(slots=True)
class House:
    """The nodes of one process; ``names`` are those of the invokers, for people."""

    controller: Controller
    scheduler: SchedulerNode | PushNode
    invokers: Sequence[Invoker]
    names: Sequence[str]
    engine: MeteredEngine
    trace: TraceFile | None = None
    pinging: asyncio.Task[None] | None = field(default=None)

    async def drain(self) -> None:
        """Take no more work, and wait until every container is gone."""
        await asyncio.gather(*[invoker.drain() for invoker in self.invokers])

    async def close(self) -> None:
        """Stop all nodes but the controller at once, and remove every sandbox."""
        if self.pinging is not None:
            self.pinging.cancel()
        await self.scheduler.close()
        for invoker in self.invokers:
            await invoker.close()
        if self.trace is not None:
            self.trace.close()

    def document(self) -> dict[str, Any]:
        """Return what there is and was, in numbers."""
        counts: dict[str, int] = {}
        for invoker in self.invokers:
            for name, count in invoker.pool.counts().items():
                counts[name] = counts.get(name, 0) + count
        waits = WaitHistogram()
        for invoker in self.invokers:
            waits.counts = [a + b for a, b in zip(waits.counts, invoker.waits.counts, strict=True)]
        states: type[ContainerState] | type[ProxyState]
        if isinstance(self.scheduler, PushNode):
            states, account = ProxyState, self.scheduler.counts()
        else:
            states, account = ContainerState, self.scheduler.scheduler.counts()
        return {
            "sandbox": self.engine.name,
            "containers": sum([counts[state.name.lower()] for state in states]),
            "containers_paused": counts["paused"],
            "sandboxes_prewarmed": counts.get("prewarm_ready", 0),
            "containers_created": counts["created"],
            "engine": self.engine.document(),
            "activations": account,
            "pending": self.controller.counts()["pending"],
            "added_wait_us": {f"p{p}": waits.percentile_us(p) for p in (50, 99)},
            # For whoever wants the waits of a while: the difference of two readings.
            "added_wait_counts": waits.counts,
        }


def pull_house(
    controller: Controller,
    engine: MeteredEngine,
    pool: PoolConfig,
    config: SchedulerConfig,
    environment: Mapping[str, str],
    trace: TraceFile | None,
) -> House:
    """Link a scheduler from which the containers of one invoker pull."""
    name = pool.invoker
    scheduler = SchedulerNode(
        config,
        MemoryCoordination({name: pool.memory_mb}),
        None if trace is None else trace.record,
    )
    invoker = Invoker(ContainerPool(pool), engine, controller.action_of, environment)
    inbox = Inbox()
    to_controller = LocalLink(controller.receive, inbox)
    to_scheduler = LocalLink(scheduler.receive, inbox)
    controller.connect(to_scheduler)
    scheduler.connect(to_controller, {name: LocalLink(invoker.receive, inbox)})
    invoker.connect(to_scheduler, to_controller)
    to_scheduler.send(invoker.report())
    return House(controller, scheduler, [invoker], [name], engine, trace)


def push_house(
    controller: Controller,
    engine: MeteredEngine,
    pools: Sequence[PushPoolConfig],
    controllers: int,
    concurrency_max: int,
    environment: Mapping[str, str],
) -> House:
    """Link so many controllers' balancers, which push, to an invoker for each pool."""
    # Names of containers are made of these, and must be new for each start.
    start = secrets.token_hex(4)
    names = [pool.invoker for pool in pools]
    node = PushNode(controllers, controller.action_of, lambda: random.getrandbits(31))
    inbox = Inbox()
    to_controller = LocalLink(controller.receive, inbox)
    to_node = LocalLink(node.receive, inbox)
    # Shared: with a tick and messages for each, logs would cost more than with our one invoker.
    logs = LogCollection(to_controller.send)
    invokers = []
    links: dict[str, Link] = {}
    for pool in pools:
        named = PushPoolConfig(
            f"{pool.invoker}-{start}",
            pool.memory_mb,
            pool.keep_alive_us,
            pool.pause_grace_us,
            pool.prewarm,
        )
        fed = FedPool(named, concurrency_max)
        invoker = Invoker(fed, engine, controller.action_of, environment, logs=logs)
        links[named.invoker] = LocalLink(invoker.receive, inbox)
        invokers.append(invoker)
    controller.connect(to_node)
    node.connect(to_controller, links)
    for invoker in invokers:
        invoker.connect(to_node, to_controller)
        to_node.send(invoker.report())
    house = House(controller, node, invokers, names, engine)
    house.pinging = asyncio.ensure_future(_ping(invokers, to_node))
    return house


async def _ping(invokers: Sequence[Invoker], to_node: Link) -> None:
    while True:
        await asyncio.sleep(PING_S)
        for invoker in invokers:
            to_node.send(invoker.report())
