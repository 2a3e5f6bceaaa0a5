"""What every node of a cluster does from its start to its end.

It gets a lease, listens for other nodes, learns who is there, builds its part (``House``), becomes
a member, and serves until a signal comes or its lease is lost.  A node without a lease has no say:
others may have taken over what it had, so it ends, and whoever runs it starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
import uvloop

from .. import acs_pb2 as pb
from .. import clock, frame_link, grpc_link, wire
from ..database import DatabaseError
from ..etcd import Etcd, EtcdError, Lease, backoff
from ..etcd_coordination import EtcdCoordination
from ..membership import Member, Membership
from ..peer_link import Dialler, Disowned, Peer, PeerLink, Reception, Refused, role_name
from ..sandboxes import SandboxError
from .config import ConfigError, NodeConfig

log = logging.getLogger(__name__)

START_S: Final = 30.0
"""How long etcd may take to answer at the start."""

NEIGHBOURS_S: Final = 3.0
"""How long the links to those who are there already are waited for before work is taken."""

LINKS_MAX: Final = 2_000
"""Nodes that one speaks with: a guard against one that starts again and again."""

FLUSH_S: Final = 5.0
"""At the end: how long what was sent may take to be confirmed."""

NUMBERS: Final = {"controller": pb.CONTROLLER, "scheduler": pb.SCHEDULER, "invoker": pb.INVOKER}

LAST_KINDS: Final[dict[tuple[int, int], frozenset[str]]] = {
    (pb.INVOKER, pb.CONTROLLER): frozenset({"result", "logs"})
}
"""What is still read of a node that is gone, by its role and this node's: how a run has ended is a
fact, and who tells it need not be a member."""

EXIT_FAILED: Final = 1
EXIT_LEASE_LOST: Final = 3


class NodeError(Exception):
    """The node cannot start or go on; the text says why."""


class House(Protocol):
    """What is particular to a role."""

    async def start(self) -> None:
        """Be ready to serve; links may come up before."""
        ...

    async def joined(self) -> None:
        """Begin what needs that the others know this node: it is a member now."""
        ...

    def serving(self) -> str:
        """Return what people may want to know now, such as an address."""
        ...

    def receive(self, peer: Peer, message: object) -> None:
        """Take a message of another node."""
        ...

    def linked(self, link: PeerLink) -> None:
        """A peer is known from now on; what is sent to it arrives once the link is up."""
        ...

    def up(self, link: PeerLink) -> None:
        """The link has come up, for the first time or again."""
        ...

    def down(self, link: PeerLink) -> None:
        """The link has gone down; it may come up again."""
        ...

    def gone(self, peer: Peer) -> None:
        """The peer's lease has ended; its link is cut."""
        ...

    def status(self) -> dict[str, object]:
        """Return what a look from outside should show."""
        ...

    async def stop(self) -> None:
        """End what was begun, as far as that makes sense without a lease as well."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


class Node:
    """The parts that every role has.  ``build`` makes the rest.

    ``leaving`` is set, by whoever wants that, to have the node end in good order.
    """

    def __init__(
        self, config: NodeConfig, etcd: Etcd, lease: Lease, leaving: asyncio.Event | None = None
    ) -> None:
        self.leaving = leaving or asyncio.Event()
        self.config = config
        self.etcd = etcd
        self.lease = lease
        self.number = 0
        self.me = Peer(NUMBERS[config.role], config.name, f"{config.name}-{secrets.token_hex(4)}")
        self.coordination = EtcdCoordination(etcd, config.cluster, self.me.instance, lease)
        self.membership = Membership(
            etcd, config.cluster, self.me.instance, self._joined, self._member_gone
        )
        self.tls = config.link_tls()
        reception = Reception(self.me, self._accept, self.tls)
        self.server = grpc_link.GrpcServer(reception)
        self.frame_server = frame_link.FrameServer(reception) if config.links == "frames" else None
        self.links: dict[str, PeerLink] = {}
        self.house: House | None = None
        self.memory_mb = 0
        self.health = "up"
        self.ready = False
        self._closing: set[asyncio.Task[None]] = set()
        # Peers with which this node has nothing to do any more, though they may not know it yet.
        self._fenced: dict[str, None] = {}

    # --- links ---------------------------------------------------------------------------------

    def _link(self, peer: Peer) -> PeerLink:
        house = self.house
        assert house is not None
        link = PeerLink(
            peer,
            lambda message: house.receive(peer, message),
            self._changed,
            kinds=wire.kinds(peer.role, self.me.role),
            disowned=self._disowned,
        )
        self.links[peer.instance] = link
        house.linked(link)
        return link

    def _changed(self, link: PeerLink) -> None:
        assert self.house is not None
        (self.house.up if link.up else self.house.down)(link)

    def _accept(self, peer: Peer) -> PeerLink:
        if self.house is None:
            raise Refused("this node is starting")
        if peer.instance in self._fenced:
            raise Disowned(f"{peer} counts as gone here")
        if not wire.kinds(peer.role, self.me.role):
            raise Refused(f"a {self.config.role} does not speak with {peer}")
        if not self.membership.is_known(role_name(peer.role), peer.name, peer.instance):
            # Or not yet: it dials again.
            raise Refused(f"{peer} is no member of the cluster {self.config.cluster}")
        link = self.links.get(peer.instance)
        if link is None and len(self.links) >= LINKS_MAX:
            raise Refused(f"this node has {len(self.links)} links (allowed: {LINKS_MAX})")
        return link or self._link(peer)

    def _joined(self, member: Member) -> None:
        # Who is dialled by whom: towards the invokers, and controllers dial both others.
        role = NUMBERS[member.role]
        if self.me.role < role and member.instance not in self.links:
            peer = Peer(role, member.name, member.instance)
            self._link(peer).dial(self.me, self._dialler(peer, member))

    def _dialler(self, peer: Peer, member: Member) -> Dialler:
        if self.frame_server is not None and member.frames_address:
            return frame_link.dialler(peer, member.frames_address, self.tls)
        return grpc_link.dialler(peer, member.address, self.tls)

    def _member_gone(self, member: Member) -> None:
        self.fence(Peer(NUMBERS[member.role], member.name, member.instance))

    def fence(self, peer: Peer) -> None:
        """Take nothing more from a peer but ``LAST_KINDS``, from this moment on; tell the house."""
        self._fenced[peer.instance] = None
        if len(self._fenced) > 10_000:
            del self._fenced[next(iter(self._fenced))]
        link = self.links.pop(peer.instance, None)
        if link is None:
            return
        link.cut(LAST_KINDS.get((peer.role, self.me.role), frozenset()))
        task = asyncio.ensure_future(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        assert self.house is not None
        self.house.gone(peer)

    def _disowned(self) -> None:
        """End: another node has seen the lease end.  etcd may not be reached from here for long."""
        if not self.lease.is_valid():
            self.lease.lose()

    def tell_health(self, status: str) -> None:
        """Have the others know how this node is."""
        self.health = status
        self.membership.tell_status(status)

    # --- life ----------------------------------------------------------------------------------

    async def start(self, build: Callable[[Node], House]) -> None:
        """Become a member.  Raises: EtcdError, OSError, NodeError."""
        config = self.config
        self.house = build(self)
        port = await self.server.listen(f"{config.host}:{config.port}")
        member = Member(
            config.role,
            config.name,
            self.me.instance,
            config.advertise or f"{config.host}:{port}",
            frames_address=await self._listen_for_frames(),
        )
        await self.membership.announce(member, self.lease)
        await self.membership.start()
        await self.house.start()
        await self._neighbours()
        member = replace(member, memory_mb=self.memory_mb, number=self.number, status=self.health)
        await self.membership.join(member, self.lease)
        await self.house.joined()
        await self.server.set_ready(True)
        self.ready = True

    async def _listen_for_frames(self) -> str:
        """Return where nodes may dial without gRPC; empty: nowhere.  Raises: OSError."""
        config = self.config
        if self.frame_server is None:
            return ""
        port = await self.frame_server.listen(f"{config.host}:{config.frames_port}")
        return config.frames_advertise or f"{config.host}:{port}"

    async def _neighbours(self) -> None:
        """Wait for the links that this node dials, so that it knows whom to work with."""
        try:
            async with asyncio.timeout(NEIGHBOURS_S):
                while not all(link.up for link in self.links.values()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            down = [str(link.peer) for link in self.links.values() if not link.up]
            log.warning("starting without %s", ", ".join(down))

    async def stop(self) -> None:
        """Leave: end the work, have the others know, close everything."""
        self.ready = False
        await self.server.set_ready(False)
        assert self.house is not None
        await self.house.stop()
        try:
            async with asyncio.timeout(FLUSH_S):
                while any(link.up and link.unconfirmed() for link in self.links.values()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("not everything that was sent was confirmed")

    async def close(self) -> None:
        """Release everything; the lease goes first, so that the others need not wait for it."""
        await self.lease.end()
        await self.membership.close()
        if self.house is not None:
            await self.house.close()
        await self.coordination.close()
        for link in list(self.links.values()):
            await link.close()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.server.close()
        if self.frame_server is not None:
            await self.frame_server.close()
        await self.etcd.close()

    def status(self) -> dict[str, object]:
        """Return what ``/health/ready`` shows."""
        assert self.house is not None
        return {
            "role": self.config.role,
            "name": self.config.name,
            "instance": self.me.instance,
            "ready": self.ready and not self.lease.lost.done(),
            "lease_valid": self.lease.is_valid(),
            "links": {
                str(link.peer): {"up": link.up, "unconfirmed": link.unconfirmed()}
                for link in self.links.values()
            },
            **self.house.status(),
        }


def run(config: NodeConfig, build: Callable[[Node], House]) -> int:
    """Run a node until a signal or the loss of its lease; return the exit code."""
    try:
        return uvloop.run(_run(config, build))
    except (ConfigError, NodeError, EtcdError, DatabaseError, SandboxError, OSError) as error:
        print(f"acs {config.role}: {error}", file=sys.stderr)
        return EXIT_FAILED


async def _run(config: NodeConfig, build: Callable[[Node], House]) -> int:
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    etcd = Etcd(config.etcd_config())
    lease = await _lease(etcd, config)
    node = Node(config, etcd, lease, leaving)
    health = Health(node)
    code = 0
    try:
        health_port = await health.listen(config.health_port)
        await node.start(build)
        assert node.house is not None
        print(
            f"acs {config.role} {config.name}: {node.house.serving()}, "
            f"health on http://127.0.0.1:{health_port}",
            flush=True,
        )
        stopping = asyncio.ensure_future(leaving.wait())
        doubted = asyncio.ensure_future(_grace_over(node))
        ends: list[asyncio.Future[Any]] = [stopping, doubted, lease.lost]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.is_set():
            code = EXIT_LEASE_LOST
            log.error("without a lease others take over; this node ends")
        stopping.cancel()
        doubted.cancel()
        await node.stop()
    finally:
        await node.close()
        await health.close()
    return code


async def _lease(etcd: Etcd, config: NodeConfig) -> Lease:
    tries = 0
    deadline_us = clock.now_us() + int(START_S * 1e6)
    while True:
        try:
            return await Lease.begin(etcd, config.lease_s)
        except EtcdError as error:
            if clock.now_us() > deadline_us:
                await etcd.close()
                raise NodeError(
                    f"etcd at {', '.join(config.etcd)} does not answer: {error}; "
                    "start it, or say with --etcd where it is"
                ) from None
            log.warning("etcd does not answer yet: %s", error)
            await backoff(tries)
            tries += 1


async def _grace_over(node: Node) -> None:
    """Return when the lease has been doubtful for longer than this node may serve without."""
    while True:
        await asyncio.sleep(1)
        over_us = clock.now_us() - node.lease.valid_us
        if over_us > node.config.etcd_grace_s * 1_000_000:
            log.error("etcd has not answered for %d s beyond the lease", over_us // 1_000_000)
            return


class Health:
    """``/health/live`` and ``/health/ready`` on loopback, for whoever watches over processes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listen and return the port.  Raises: OSError."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=8_192)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Answer nothing more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(2):
                head = await reader.readuntil(b"\r\n\r\n")
            status, document = self.answer(head.split(b" ", 2)[1].decode("ascii", "replace"))
            body = orjson.dumps(document)
            writer.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, b"OK" if status == 200 else b"Not OK", len(body), body)
            )
            await writer.drain()
        except (OSError, TimeoutError, EOFError, IndexError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or asks for something else
        finally:
            writer.close()

    def answer(self, path: str) -> tuple[int, dict[str, object]]:
        """Return status and document of a path."""
        if path == "/health/live":
            return 200, {"live": True}
        if path == "/health/ready" and self._node.house is not None:
            document = self._node.status()
            return (200 if document["ready"] else 503), document
        return (503, {"ready": False}) if path == "/health/ready" else (404, {"error": "no such"})


def data_folder(path: Path, setting: str = "data") -> Path:
    """Make the folder that a setting names.  Raises: NodeError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NodeError(f"{setting}: the folder {path} cannot be used: {error.strerror}") from None
    return path
