"""What links are made of, for tests that must hold over each: gRPC, and frames on plain sockets."""

from collections.abc import Callable
from dataclasses import dataclass

from acs_node import frame_link, grpc_link
from acs_node.peer_link import Dialler, Peer, Reception
from acs_node.tls import LinkTls

Server = grpc_link.GrpcServer | frame_link.FrameServer


@dataclass(frozen=True)
class Transport:
    """One of them."""

    name: str
    server: Callable[[Reception], Server]
    connect: Callable[[Peer, str, LinkTls | None], Dialler]

    async def listen(self, reception: Reception, port: int = 0) -> tuple[Server, int]:
        """Return a server on loopback, and its port."""
        server = self.server(reception)
        return server, await server.listen(f"127.0.0.1:{port}")

    def dialler(self, peer: Peer, port: int, tls: LinkTls | None = None) -> Dialler:
        """Return what connects to ``peer`` at a port of loopback."""
        return self.connect(peer, f"127.0.0.1:{port}", tls)


GRPC = Transport("grpc", grpc_link.GrpcServer, grpc_link.dialler)
FRAMES = Transport("frames", frame_link.FrameServer, frame_link.dialler)
