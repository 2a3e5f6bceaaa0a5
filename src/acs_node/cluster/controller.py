"""``acs controller``: the REST API and the stores, with links to schedulers and invokers.

Several share a PostgreSQL database and hold nothing that another could not take over: what one
changes the others hear of (``changes``), and how much a namespace asks of all of them
(``shared_limits``).  With SQLite there is one, and a data folder has one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import uvicorn

from .. import acs_pb2 as pb
from .. import clock, standalone
from ..api import create_app
from ..controller import Controller
from ..entities import EntityStore
from ..errors import ApiError
from ..etcd import Watched, is_absent, put
from ..firing import Firing
from ..front import Front
from ..ids import CONTROLLERS_MAX
from ..links import ActionFound, ActionWanted
from ..peer_link import Peer, PeerLink
from ..routes import action_behind, entities_behind
from .config import NodeConfig
from .periodic import Periodic
from .process import Node, NodeError, run
from .reach import Unreached
from .routing import CUT_OFF, Routing
from .sharing import Sharing
from .spreading import Loads

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""Between two looks whether anybody is there, and for activations that nobody tells the end of."""

EARLY_MAX = 200_000
"""Messages that are kept until this node has started: every result that invokers may have kept."""

DRAIN_S = 60.0
"""At the end: how long what was accepted may take; the rest ends as *unknown*."""


class ControllerHouse:
    """A ``Controller`` among others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._config = node.config
        self._controller: Controller | None = None
        self._entities: EntityStore | None = None
        recent_us = 2 * node.config.lease_s * 1_000_000
        self._routing = Routing(self._receive, clock.now_us, recent_us, node.lease.is_valid)
        # What came before there was anybody to take it.
        self._early: list[tuple[Peer, object]] = []
        self._leaders = Watched(node.etcd, f"{node.config.cluster}/queue/", self._on_leader)
        self._loads = Loads(node.etcd, node.config.cluster, self._routing.is_loaded)
        self._unreached: Unreached | None = None
        self._stack = AsyncExitStack()
        self._listener: socket.socket | None = None
        self._server: standalone.Server | None = None
        self._serving: asyncio.Future[None] | None = None
        self._sweeping: asyncio.Future[None] | None = None
        self._refreshing: asyncio.Future[None] | None = None
        self._looking = Periodic(LOOK_S, self._look, "asking what became of activations")
        self._tasks: set[asyncio.Task[None]] = set()
        self._url = ""
        self._sharing: Sharing | None = None

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        config = standalone.StandaloneConfig(
            host=self._config.api_host,
            port=self._config.api_port,
            data=Path(self._config.data),
            database_url=self._config.database_url(),
            shared=bool(self._config.database_url_file),
            manifest=self._config.runtimes(),
            concurrency_max=self._config.concurrency_max,
            operator_file=Path(self._config.operator_file) if self._config.operator_file else None,
        )
        try:
            await self._start(config)
        except standalone.StartError as error:
            raise NodeError(str(error)) from None

    async def _start(self, config: standalone.StandaloneConfig) -> None:
        operator = standalone.operator_of(config.operator_file)
        self._stack.enter_context(standalone.data_folder(config.data))
        listener = standalone.listen(config)
        shown = f"[{config.host}]" if ":" in config.host else config.host
        self._url = f"http://{shown}:{listener.getsockname()[1]}"
        entities, activations = await self._stack.enter_async_context(standalone.stores(config))
        self._entities = entities
        if not config.shared:
            _warn(await activations.sweep(clock.wall_ms()))
        await self._first_start(entities)
        number = await self._claim_number()
        self._node.number = number
        controller = Controller(entities, activations, self._config.namespace_containers, number)
        self._begin(controller)
        if config.shared:
            self._sharing = Sharing(self._node, entities, activations, controller.throttles)
            await self._sharing.start()
        await self._leaders.start()
        await self._loads.start()
        app = create_app(
            entities,
            activations,
            info={"build": "", "buildno": ""},
            settled=controller.settled,
            fire=Firing(entities, activations, controller).fire,
            invoke=controller.invoke,
            pending=lambda: controller.counts()["pending"],
            invokers=self._invokers,
            in_flight=controller.in_flight,
            disable=controller.disable,
            operator=operator,
        )
        self._server = standalone.Server(
            uvicorn.Config(
                app,
                http=Front(controller, entities).protocol(),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
            )
        )
        self._listener = listener
        of_the_dead = None if self._sharing is None else self._sharing.of_the_dead
        self._sweeping = asyncio.ensure_future(
            standalone.sweep(controller, activations, of_the_dead)
        )
        told = None if self._sharing is None else self._sharing.namespaces_changed
        self._refreshing = asyncio.ensure_future(standalone.refresh_when_poked(entities, told))
        self._looking.start()

    async def _first_start(self, entities: EntityStore) -> None:
        try:
            await standalone.first_start(entities, self._url)
        except ApiError:
            # Another controller, which starts at the same moment, has made the namespace.
            await entities.refresh()

    def _invokers(self) -> dict[str, str]:
        """Return how each invoker says that it is; down is who is not reached."""
        links = self._node.links
        return {
            f"{each.name}/{each.instance}/{each.name}": each.status
            if each.instance in links and links[each.instance].up
            else "down"
            for each in self._node.membership.members("invoker")
        }

    async def joined(self) -> None:
        assert self._server is not None
        assert self._listener is not None
        if self._sharing is not None:
            # Not before: a start of this name that was killed has counted as alive until now.
            _warn(await self._sharing.sweep_of_the_dead())
        node = self._node
        lease_s = self._config.lease_s
        self._unreached = Unreached(
            node.etcd, self._config.cluster, node.me.instance, node.lease, lease_s
        )
        # Not before: results find their way by the number in the membership.
        self._serving = asyncio.ensure_future(
            self._server.serve(sockets=standalone.several(self._listener))
        )
        standalone.spare_the_collector()

    async def _claim_number(self) -> int:
        while True:
            number = secrets.randbelow(CONTROLLERS_MAX)
            key = f"{self._config.cluster}/number/{number}"
            value = self._node.me.instance.encode()
            answer = await self._node.etcd.transaction(
                (is_absent(key),), (put(key, value, self._node.lease.id),)
            )
            if answer.succeeded:
                return number

    def serving(self) -> str:
        return f"listening on {self._url}"

    def status(self) -> dict[str, object]:
        counts = {} if self._controller is None else self._controller.counts()
        return {"activations": counts, "routing": self._routing.counts()}

    async def stop(self) -> None:
        """Accept nothing more, and let what was accepted end and be recorded.

        Without a lease nobody tells this node anything any more: what it waited for would not
        come, and meanwhile its name is taken.  The next start ends what is open.
        """
        if self._controller is None or self._server is None or self._serving is None:
            return
        self._controller.stop_accepting()
        self._server.should_exit = True
        if self._node.lease.lost.done():
            await standalone.end_clients(self._server, self._serving, 0.0)
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._controller.drained()
        except TimeoutError:
            log.error("the stop takes too long; what has not ended is cut off")
        await standalone.end_clients(self._server, self._serving)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._looking.close()
        for each in (self._sweeping, self._refreshing):
            if each is not None:
                each.cancel()
        if self._server is not None and self._serving is not None and not self._serving.done():
            self._server.should_exit = True
            await standalone.end_clients(self._server, self._serving)
        if self._sharing is not None:
            await self._sharing.close()
        if self._unreached is not None:
            await self._unreached.close()
        await self._leaders.close()
        await self._loads.close()
        if self._controller is not None:
            self._controller.close()
        await self._stack.aclose()

    def _begin(self, controller: Controller) -> None:
        """Take what comes from now on, and what has come before."""
        self._controller = controller
        controller.connect(self._routing)
        early, self._early = self._early, []
        for peer, message in early:
            self.receive(peer, message)

    def _look(self) -> None:
        assert self._controller is not None
        self._routing.look()
        if self._unreached is not None:
            self._unreached.look(self._routing.schedulers)
        if self._routing.is_cut_off():
            self._controller.pause_accepting(CUT_OFF)
        else:
            self._controller.accept_again(CUT_OFF)

    # --- peers ---------------------------------------------------------------------------------

    def linked(self, link: PeerLink) -> None:
        if link.peer.role == pb.SCHEDULER:
            self._routing.scheduler_linked(link)
        else:
            self._routing.invoker_linked(link)

    def up(self, link: PeerLink) -> None:
        pass

    def down(self, link: PeerLink) -> None:
        if self._controller is not None:
            self._look()

    def gone(self, peer: Peer) -> None:
        if peer.role == pb.SCHEDULER:
            self._routing.scheduler_gone(peer.instance)
        else:
            self._routing.invoker_gone(peer.instance)

    def receive(self, peer: Peer, message: object) -> None:
        if self._controller is None:
            # Invokers have results of an earlier start, and send them to the first who is there.
            if len(self._early) >= EARLY_MAX:
                raise OverflowError(f"{EARLY_MAX} messages came before this node has started")
            self._early.append((peer, message))
        elif isinstance(message, ActionWanted):
            link = self._node.links.get(peer.instance)
            if link is not None:
                task = asyncio.ensure_future(self._find_action(message.queue, link))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        else:
            self._routing.take(peer.instance, message)

    def _receive(self, message: object) -> None:
        assert self._controller is not None
        self._controller.receive(message)

    def _on_leader(self, queue: str, value: bytes | None) -> None:
        self._routing.leads(queue, None if value is None else value.decode("utf-8", "replace"))

    async def _find_action(self, queue: str, link: PeerLink) -> None:
        """Tell an invoker what the action of a queue is, in the revision that the queue has."""
        assert self._controller is not None
        assert self._entities is not None
        try:
            action = self._controller.action_of(queue)
        except KeyError:
            # Another controller, or an earlier start of this one, has opened the queue.
            try:
                if self._sharing is not None:
                    # That other one may have changed it a moment ago.
                    await self._entities.changed_elsewhere(entities_behind(queue))
                action = await action_behind(self._entities, queue)
            except ApiError as error:
                link.send(ActionFound(queue, b"", 0, f"no action for {queue}: {error.text}"))
                return
        link.send(ActionFound(queue, orjson.dumps(action.document()), action.revision, ""))


def _warn(lost: int) -> None:
    if lost:
        log.warning("%d accepted activations of an earlier run ended as unknown", lost)


def run_controller(config: NodeConfig) -> int:
    """Run ``acs controller``."""
    standalone.ignore_pokes()
    return run(config, ControllerHouse)
