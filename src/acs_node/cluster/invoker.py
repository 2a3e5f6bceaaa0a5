"""``acs invoker``: the containers of one host, for several schedulers and controllers.

Which scheduler a container belongs to is known from who created or adopted it.  The action of a
queue is asked of a controller once, before its first container is created here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from acs_core.containers import ContainerPool, ContainerState
from acs_core.effects import Create, Deliver, Release
from acs_core.events import (
    Adopted,
    ContainerGone,
    ContainerLeaving,
    ContainerPaused,
    ContainerServing,
    CreationFailed,
    FailureClass,
    InvokerReported,
    Pulled,
    QueueSpec,
    Returned,
)
from acs_core.health import Trial
from acs_core.sharding import InvokerStatus
from acs_core.sharding_supervision import InvocationResult

from .. import acs_pb2 as pb
from ..entity_types import Action
from ..health_test import HealthTest
from ..ids import controller_of
from ..invoker import Invoker
from ..links import ActionFound, ActionWanted, Drained, Fence, Fenced, Logs, Result
from ..peer_link import Peer, PeerLink
from ..sandboxes import SandboxEngine
from .config import NodeConfig
from .drain import DrainWatch
from .farewells import Farewells
from .health import HealthWatch
from .periodic import Periodic
from .process import Node, NodeError, data_folder, run

log = logging.getLogger(__name__)

ACTION_S: Final = 10.0
"""How long a controller may take to say what the action of a queue is."""

ACTIONS_MAX: Final = 1_000
"""Actions that are kept although nothing of them is here now."""

RESULTS_WAITING_MAX: Final = 10_000
"""Results that are kept while there is no controller at all."""

LOOK_S: Final = 0.5
"""Between two looks whether etcd is there."""

DRAIN_S: Final = 600.0
"""At the end: how long what runs may go on; then it is given up."""

LEASH_LEASES: Final = 2
"""After so many leases without a sign of this process its containers end by themselves."""


class InvokerHouse:
    """An ``Invoker`` among others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._config = node.config
        node.memory_mb = node.config.memory_mb
        self._engine: SandboxEngine | None = None
        self._invoker: Invoker | None = None
        self._schedulers: dict[str, PeerLink] = {}
        self._controllers: dict[str, PeerLink] = {}
        self._actions: dict[str, Action] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._owners: dict[str, PeerLink] = {}  # of containers
        self._queues: dict[str, str] = {}  # of containers
        self._speaking: PeerLink | None = None  # whose message is being received
        self._delivered = ""  # the activation that is being received
        self._farewells: Farewells[PeerLink] = Farewells(lambda link, gone: link.send(gone))
        # Delivered and not ended; the invoker answers a fence from it.
        self._held: set[str] = set()
        self._homeless: deque[Result | Logs] = deque(maxlen=RESULTS_WAITING_MAX)
        self._drain = DrainWatch(
            node.etcd, node.config.cluster, node.me.instance, self._asked_to_leave
        )
        self._test: HealthTest | None = None
        self._health: HealthWatch | None = None
        self._draining = False
        self._looking = Periodic(LOOK_S, self._look, "holding idle containers")
        self._idle_held = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        data = data_folder(Path(self._config.data))
        silence_s = LEASH_LEASES * self._config.lease_s
        if self._config.sandbox == "docker":
            from ..sandboxes.docker import DockerEngine

            try:
                docker = DockerEngine(
                    data,
                    instance=f"{self._config.cluster}-{self._config.name}",
                    network=self._config.network,
                    manifest=self._config.runtimes(),
                    silence_s=silence_s,
                )
            except ValueError as error:
                raise NodeError(str(error)) from None
            await docker.ping()
            self._engine = docker
        else:
            from ..sandboxes.process import ProcessEngine

            log.warning("functions run as PROCESSES OF THIS USER, WITHOUT ISOLATION")
            try:
                self._engine = ProcessEngine(data, silence_s=silence_s)
            except OSError as error:
                raise NodeError(f"data: the folder {data} cannot be used: {error}") from None
        await self._drain.start()
        removed = await self._engine.remove_leftovers()
        if removed:
            log.info("removed %d containers that an earlier run left behind", removed)
        self._invoker = Invoker(
            ContainerPool(self._config.pool()),
            self._engine,
            self._actions.__getitem__,
            {"__OW_API_HOST": self._config.api_url},
            self._convert,
            self._completed,
        )
        self._invoker.connect(_Way(self.to_scheduler), _Way(self.to_controller))
        if self._config.health_test != "none":
            self._test = HealthTest(self._engine, self._config.health_test)
            self._health = HealthWatch(self._test.run, self._health_changed)
            await self._health.start()
            self._node.health = self._status()
        for link in self._schedulers.values():
            link.send(self.report())

    async def joined(self) -> None:
        self._looking.start()
        # It may have changed on the way.
        self._node.tell_health(self._status())

    def _look(self) -> None:
        """Let no container go for idling while etcd is away: none would come in its place."""
        doubtful = not self._node.lease.is_valid()
        if doubtful is not self._idle_held and self._invoker is not None:
            self._idle_held = doubtful
            self._invoker.hold_idle(doubtful)

    def _asked_to_leave(self) -> None:
        log.warning("this invoker is drained: it takes no more work, and ends when none is left")
        self._node.leaving.set()

    def serving(self) -> str:
        assert self._engine is not None
        return f"{self._config.memory_mb} MB for containers, sandbox {self._engine.name}"

    def status(self) -> dict[str, object]:
        containers = {} if self._invoker is None else self._invoker.pool.counts()
        there = sum([containers.get(state.name.lower(), 0) for state in ContainerState])
        waits = None if self._invoker is None else self._invoker.waits
        return {
            "containers": containers,
            # While the lease is doubtful others may not count them; they count them apart.
            "orphans": 0 if self._node.lease.is_valid() else there,
            "health": self._status(),
            "draining": self._draining,
            "held": len(self._held),
            "homeless_results": len(self._homeless),
            "added_wait_us": {}
            if waits is None
            else {f"p{p}": waits.percentile_us(p) for p in (50, 99)},
            "added_wait_counts": [] if waits is None else waits.counts,
        }

    async def stop(self) -> None:
        """Take no more work, let what runs end, remove the containers."""
        if self._invoker is None or self._node.lease.lost.done():
            return
        self._draining = True
        for link in self._schedulers.values():
            link.send(self.report())
        await self._invoker.drain(int(DRAIN_S * 1e6))
        for link in self._controllers.values():
            link.send(Drained())

    async def close(self) -> None:
        await self._drain.close()
        await self._looking.close()
        if self._health is not None and self._test is not None:
            await self._health.close()
            await self._test.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._invoker is not None:
            await self._invoker.close()
        elif self._engine is not None:
            await self._engine.close()

    # --- health --------------------------------------------------------------------------------

    def _status(self) -> str:
        status = InvokerStatus.UP if self._health is None else self._health.status
        return status.name.lower()

    def _completed(self, trial: Trial, result: InvocationResult) -> None:
        if self._health is not None:
            self._health.completed(trial, result)

    def _health_changed(self) -> None:
        self._node.tell_health(self._status())
        for link in self._schedulers.values():
            link.send(self.report())

    def report(self) -> InvokerReported:
        """Return what a scheduler is told of this invoker."""
        assert self._invoker is not None
        report = self._invoker.report()
        if self._draining or self._status() != "up":
            # Without memory: nothing more is placed here.
            return InvokerReported(report.invoker, 0, 0, report.creation_us)
        return report

    # --- peers ---------------------------------------------------------------------------------

    def linked(self, link: PeerLink) -> None:
        if link.peer.role == pb.SCHEDULER:
            self._schedulers[link.peer.instance] = link
            if self._invoker is not None:
                link.send(self.report())
        else:
            self._controllers[link.peer.instance] = link
            for queue, wanted in self._wanted.items():
                wanted.asked.add(link.peer.instance)
                link.send(ActionWanted(queue))

    def up(self, link: PeerLink) -> None:
        if link.peer.role == pb.CONTROLLER:
            homeless, self._homeless = self._homeless, deque(maxlen=RESULTS_WAITING_MAX)
            for message in homeless:
                self.to_controller(message)

    def down(self, link: PeerLink) -> None:
        pass

    def gone(self, peer: Peer) -> None:
        link = self._controllers.pop(peer.instance, None)
        if link is not None:
            for wanted in self._wanted.values():
                wanted.asked.discard(peer.instance)
            for message in link.undelivered():
                if isinstance(message, (Result, Logs)):
                    self.to_controller(message)
        scheduler = self._schedulers.pop(peer.instance, None)
        if scheduler is not None:
            self._farewells.forget(scheduler)
        for container in [c for c, link in self._owners.items() if link.peer is peer]:
            del self._owners[container]  # whoever adopts it is told all anew

    def receive(self, peer: Peer, message: object) -> None:
        if peer.role == pb.CONTROLLER:
            if isinstance(message, Fence):
                self._fence(peer, message)
            elif isinstance(message, ActionFound):
                self._action_found(peer, message)
        elif peer.instance in self._schedulers:
            assert self._invoker is not None
            self._speaking = self._schedulers[peer.instance]
            if isinstance(message, Deliver):
                if self._node.lease.is_over_in_sleep():
                    # It may count as gone, and its containers as free for others.
                    id_ = message.activation.activation_id
                    self._speaking.send(Returned(message.container, message.epoch, (id_,)))
                    return
                self._deliver(message)
                return
            if isinstance(message, Create):
                self._owners[message.container] = self._speaking
                self._queues[message.container] = message.spec.queue
                if message.spec.queue not in self._actions:
                    self._start(self._create(message))
                    return
            elif isinstance(message, Release):
                self._farewells.answered(message.container, self._speaking)
            self._invoker.receive(message)

    def _deliver(self, message: Deliver) -> None:
        assert self._invoker is not None
        self._delivered = message.activation.activation_id
        self._held.add(self._delivered)
        try:
            self._invoker.receive(message)
        finally:
            self._delivered = ""

    def _fence(self, peer: Peer, message: Fence) -> None:
        self._node.fence(_peer_of(self._schedulers, message.scheduler))
        link = self._controllers.get(peer.instance)
        if link is not None:
            known = tuple([id_ for id_ in message.activation_ids if id_ in self._held])
            link.send(Fenced(message.scheduler, known))

    # --- actions -------------------------------------------------------------------------------

    async def _create(self, message: Create) -> None:
        """Learn the action, then create; what follows for the container comes after it serves."""
        assert self._invoker is not None
        try:
            await self._action(message.spec.queue)
        except LookupError as error:
            self.to_scheduler(CreationFailed(message.container, FailureClass.FINAL, str(error)))
            return
        except TimeoutError:
            cause = f"no controller named the action within {ACTION_S:g} s"
            self.to_scheduler(CreationFailed(message.container, FailureClass.RECOVERABLE, cause))
            return
        self._invoker.receive(message)

    async def _action(self, queue: str) -> Action:
        wanted = self._wanted.get(queue)
        if wanted is None:
            wanted = _Wanted(set(self._controllers))
            self._wanted[queue] = wanted
            for link in self._controllers.values():
                link.send(ActionWanted(queue))
        try:
            async with asyncio.timeout(ACTION_S):
                return await asyncio.shield(wanted.found)
        finally:
            if self._wanted.get(queue) is wanted:
                del self._wanted[queue]

    def _action_found(self, peer: Peer, message: ActionFound) -> None:
        wanted = self._wanted.get(message.queue)
        if wanted is None or wanted.found.done():
            return
        if not message.document:
            # One that has opened the queue knows its action, though others know a newer one only.
            wanted.asked.discard(peer.instance)
            if not wanted.asked:
                wanted.found.set_exception(LookupError(message.error))
            return
        try:
            document = orjson.loads(message.document)
            code = document["exec"].get("code")
            action = Action.from_document(document, revision=message.revision, code=code)
        except (ValueError, KeyError, TypeError) as error:
            wanted.found.set_exception(LookupError(f"the action cannot be read: {error!r}"))
            return
        self._actions[message.queue] = action
        # Those of queues that have containers are in use; the oldest of the others goes.
        if len(self._actions) > ACTIONS_MAX:
            used = set(self._queues.values())
            for queue in [q for q in self._actions if q not in used]:
                if len(self._actions) > ACTIONS_MAX and queue != message.queue:
                    del self._actions[queue]
        wanted.found.set_result(action)

    async def _convert(self, container: str, spec: QueueSpec) -> bool:
        return await self._node.coordination.convert(
            spec.namespace, container, self._config.name, spec.memory_mb, spec.queue
        )

    # --- to others -----------------------------------------------------------------------------

    def to_scheduler(self, event: object) -> None:
        """Tell the scheduler that the container belongs to; nobody, while that one is gone."""
        if isinstance(event, Pulled):
            link = self._owners.get(event.container)
        elif isinstance(event, Adopted):
            link = self._speaking
            if link is not None:
                for held in event.held:
                    self._owners[held.container] = link
        elif isinstance(event, InvokerReported):
            for each in self._schedulers.values():
                each.send(self.report())
            return
        else:
            assert isinstance(event, _OF_A_CONTAINER)
            container = event.container
            link = self._owners.get(container)
            if isinstance(event, Returned):
                self._held.difference_update(event.activation_ids)
                if link is None or event.activation_ids == (self._delivered,):
                    link = self._speaking  # whoever leads the queue now knows nothing of it
            elif isinstance(event, ContainerLeaving) and link is not None:
                self._farewells.leaving(container, link)
            elif isinstance(event, (ContainerGone, CreationFailed)):
                self._owners.pop(container, None)
                self._queues.pop(container, None)
                self._node.coordination.release(container)
                if isinstance(event, ContainerGone) and link is not None:
                    self._farewells.gone(event, link)
                    return
        if link is not None:
            link.send(event)

    def to_controller(self, message: object) -> None:
        """Tell the controller that waits for it; any other when that one is gone."""
        if isinstance(message, Result):
            self._held.discard(message.activation_id)
            self._to_number(controller_of(message.activation_id), message)
            return
        assert isinstance(message, Logs)
        by_number: dict[int, list[tuple[str, list[str]]]] = {}
        for entry in message.entries:
            by_number.setdefault(controller_of(entry[0]), []).append(entry)
        for number, entries in by_number.items():
            self._to_number(number, Logs(entries))

    def _to_number(self, number: int, message: Result | Logs) -> None:
        links = self._controllers
        for member in self._node.membership.members("controller"):
            if member.number == number and member.instance in links:
                links[member.instance].send(message)
                return
        for link in links.values():
            if link.up and link.has_room():
                link.send(message)
                return
        self._homeless.append(message)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_OF_A_CONTAINER: Final = (
    Returned,
    ContainerServing,
    ContainerPaused,
    ContainerLeaving,
    ContainerGone,
    CreationFailed,
)


class _Wanted:
    """An action that is asked for, and the controllers that have not said that they have none."""

    def __init__(self, asked: set[str]) -> None:
        self.asked = asked
        self.found: asyncio.Future[Action] = asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Way:
    """A ``Link`` of the ``Invoker`` that leads to this house."""

    send: Callable[[object], None]


def _peer_of(links: dict[str, PeerLink], instance: str) -> Peer:
    link = links.get(instance)
    return Peer(pb.SCHEDULER, "", instance) if link is None else link.peer


def run_invoker(config: NodeConfig) -> int:
    """Run ``acs invoker``."""
    return run(config, InvokerHouse)
