"""``acs scheduler``: the queues that this node leads, with links to controllers and invokers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from acs_core.effects import Reject, Release
from acs_core.events import ContainerLeaving, InvokerGone, InvokerReported
from acs_core.scheduler import SchedulerConfig

from .. import acs_pb2 as pb
from ..etcd import Watched
from ..ids import controller_of
from ..links import Misdirected
from ..peer_link import Peer, PeerLink
from ..scheduler_node import SchedulerNode
from ..trace_file import TraceFile
from .config import NodeConfig
from .hunger import GivingBack
from .process import Node, NodeError, data_folder, run
from .reach import Reach
from .spreading import Spreading

RETRY_MAX_US = 2_000_000
"""Longest pause after a denial: what others hold of a namespace comes free unheard of here."""

LOOK_S = 0.05
"""After a container of anybody came or went: more of them may follow at once."""


class SchedulerHouse:
    """A ``SchedulerNode`` among others."""

    def __init__(self, node: Node) -> None:
        config = core_config(node)
        self._trace = _trace(node, config)
        recorder = None if self._trace is None else self._trace.record
        self.scheduler = SchedulerNode(config, node.coordination, recorder)
        self._controllers: dict[str, PeerLink] = {}
        self._invokers: dict[str, PeerLink] = {}
        self._node = node
        self._reports: dict[str, InvokerReported] = {}
        self._held = Watched(node.etcd, f"{node.config.cluster}/held/invoker/", self._on_held)
        self._looking: asyncio.TimerHandle | None = None
        self._spreading = Spreading(
            node.etcd,
            node.config.cluster,
            node.me.instance,
            node.lease,
            self.scheduler,
            lambda instance: self._reach.is_worse(instance),
        )
        self._reach = Reach(
            node.etcd,
            node.config.cluster,
            node.me.instance,
            self.scheduler,
            lambda: [each.instance for each in node.membership.members("scheduler")],
        )
        self._giving_back = GivingBack(
            node.etcd,
            node.config.cluster,
            node.me.instance,
            node.lease,
            self.scheduler,
        )
        self.scheduler.connect(_ToControllers(node, self._controllers), self._invokers)

    async def start(self) -> None:
        await self._held.start()

    async def joined(self) -> None:
        await self._spreading.start()
        await self._reach.start()
        await self._giving_back.start()

    def serving(self) -> str:
        return "leads queues"

    def receive(self, peer: Peer, message: object) -> None:
        if isinstance(message, InvokerReported):
            self._reports[message.invoker] = message
            message = self._with_others(message, self._elsewhere())
        self.scheduler.receive(message)
        if isinstance(message, ContainerLeaving):
            self._answer(peer, message)

    def _answer(self, peer: Peer, leave: ContainerLeaving) -> None:
        """Say that nothing more is delivered to a container; see ``farewells``."""
        link = self._node.links.get(peer.instance)
        if link is not None:
            link.send(Release(leave.container, peer.name, 0, "it leaves"))

    # --- memory of others ----------------------------------------------------------------------

    def _on_held(self, name: str, value: bytes | None) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Tell the core what other schedulers' containers hold of each invoker."""
        self._looking = None
        elsewhere = self._elsewhere()
        for report in self._reports.values():
            self.scheduler.receive(self._with_others(report, elsewhere))

    def _elsewhere(self) -> dict[str, int]:
        """Return the memory by invoker that is not this scheduler's own.  Cost: O(containers)."""
        own = set(self.scheduler.scheduler.containers())
        used: dict[str, int] = {}
        for name, value in self._held.values.items():
            invoker, _, container = name.partition("/")
            if container not in own and not container.startswith(self._node.me.instance):
                used[invoker] = used.get(invoker, 0) + int(value)
        return used

    def _with_others(self, report: InvokerReported, elsewhere: dict[str, int]) -> InvokerReported:
        return InvokerReported(
            report.invoker,
            report.memory_mb,
            elsewhere.get(report.invoker, 0),
            report.creation_us,
            report.creations_per_s,
        )

    # --- peers ---------------------------------------------------------------------------------

    def linked(self, link: PeerLink) -> None:
        if link.peer.role == pb.CONTROLLER:
            self._controllers[link.peer.instance] = link
        else:
            self._invokers[link.peer.name] = link

    def up(self, link: PeerLink) -> None:
        pass

    def down(self, link: PeerLink) -> None:
        pass

    def gone(self, peer: Peer) -> None:
        if peer.role == pb.CONTROLLER:
            self._controllers.pop(peer.instance, None)
        elif self._invokers.pop(peer.name, None) is not None:
            self._reports.pop(peer.name, None)
            self.scheduler.receive(InvokerGone(peer.name))

    def status(self) -> dict[str, object]:
        core = self.scheduler.scheduler
        return {"queues": len(core.queues()), "activations": core.counts()}

    async def stop(self) -> None:
        """Nothing: the controllers fence this node and send again what it had not delivered."""

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self._spreading.close()
        await self._reach.close()
        await self._giving_back.close()
        await self._held.close()
        await self.scheduler.close()
        if self._trace is not None:
            self._trace.close()


def core_config(node: Node) -> SchedulerConfig:
    """Return what the core of a scheduler among others is told."""
    return SchedulerConfig(
        name=node.me.instance,  # names of containers begin with it, and are unique for ever
        namespace_containers_max=node.config.namespace_containers,
        retry_max_us=RETRY_MAX_US,
    )


def _trace(node: Node, config: SchedulerConfig) -> TraceFile | None:
    """Begin the trace of this start, if there is to be one.  Raises: NodeError."""
    if not node.config.trace:
        return None
    folder = data_folder(Path(node.config.trace), "trace")
    path = folder / f"{node.me.instance}.trace"
    try:
        return TraceFile(path, config)
    except OSError as error:
        raise NodeError(f"trace: {path} cannot be written: {error.strerror}") from None


class _ToControllers:
    """The link of a ``SchedulerNode`` to the controllers."""

    def __init__(self, node: Node, links: dict[str, PeerLink]) -> None:
        self._node = node
        self._links = links

    def send(self, message: object) -> None:
        """Tell the one who waits for it, or all."""
        activation_id = ""
        if isinstance(message, Reject):
            activation_id = message.activation.activation_id
        elif isinstance(message, Misdirected):
            activation_id = message.activation_id
        if not activation_id:
            for link in self._links.values():
                link.send(message)
            return
        number = controller_of(activation_id)
        for member in self._node.membership.members("controller"):
            if member.number == number and member.instance in self._links:
                self._links[member.instance].send(message)
                return
        # Its controller is gone: the sweeper of another ends it by its accept row.


def run_scheduler(config: NodeConfig) -> int:
    """Run ``acs scheduler``."""
    return run(config, SchedulerHouse)
