"""Containers of images that are not ours, as OpenWhisk's own: TCP port 8080, output to the engine.

They need a network to be reached and a root that they can write to, so less stands between such a
function and the host's disk than in a container of an image of ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from threading import Thread
from typing import Any

from docker import DockerClient
from docker.errors import DockerException, NotFound

from acs_node.sandboxes import SandboxError
from acs_node.sandboxes.logpipes import PIPE_BYTES, LogPipes

PORT = 8080
LOOK_S = 0.02
"""Between two looks whether a proxy listens."""
OPEN_S = 0.05
"""How long a connection must last to count: what forwards the port may accept one before the proxy
listens, and then closes it at once."""


def published(config: dict[str, Any]) -> dict[str, Any]:
    """Return the host config of a container of ours, as one of these has it.

    It shares no directory with the host, writes to its own root, and its port is on loopback.
    """
    return {
        **config,
        "ReadonlyRootfs": False,
        "Mounts": [],
        "PortBindings": {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
    }


def port_of(client: DockerClient, handle: str) -> int:
    """Return the port of loopback on which a started container is reached.

    Raises: SandboxError where it has none; APIError.
    """
    try:
        ports = client.api.inspect_container(handle)["NetworkSettings"]["Ports"] or {}
    except NotFound:
        ports = {}
    bindings = ports.get(f"{PORT}/tcp")
    if not bindings:
        raise SandboxError("the container ended before its port was published")
    return int(bindings[0]["HostPort"])


async def accepts(port: int) -> None:
    """Wait until connections to the port last.  The caller bounds the wait."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.timeout(OPEN_S):
                    await reader.read(1)
            except TimeoutError:
                return
            finally:
                writer.close()
        await asyncio.sleep(LOOK_S)


class Output:
    """What a container prints, from the engine into pipes that ``LogPipes`` reads.

    ``attach`` must be called before the container starts.  The thread ends with the container, or
    when the pipes are closed.
    """

    def __init__(self, directory: str) -> None:
        pairs = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
        self._inputs = [pair[1] for pair in pairs]
        for reader, _ in pairs:
            os.set_blocking(reader, False)
            with suppress(OSError):  # the user's share of pipes is used up: it only waits more
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.logs = LogPipes(directory, *(pair[0] for pair in pairs))

    def attach(self, client: DockerClient, handle: str) -> None:
        """Begin to copy.  Raises: APIError, OSError."""
        frames = client.api.attach(handle, stdout=True, stderr=True, stream=True, demux=True)
        Thread(target=self._copy, args=(frames,), name="acs-output", daemon=True).start()

    def close(self) -> None:
        """Let go of the pipes where nothing was attached."""
        for fd in self._inputs:
            os.close(fd)
        self._inputs = []

    def _copy(self, frames: Any) -> None:
        inputs, self._inputs = self._inputs, []
        try:
            # A pipe that is full makes the engine wait, and that the container: as with a FIFO.
            for pieces in frames:
                for fd, piece in zip(inputs, pieces, strict=True):
                    while piece:
                        piece = piece[os.write(fd, piece) :]
        except (OSError, DockerException, ValueError):
            pass  # the container is being removed: its pipes are closed, or the engine is gone
        finally:
            for fd in inputs:
                os.close(fd)
            with suppress(Exception):
                frames.close()
