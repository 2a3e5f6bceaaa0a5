"""A Docker Engine of one invoker's own, and how functions in its containers tell of their runs."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from docker import DockerClient

from acs_node.cluster.local import NodeFailed
from acs_node.images import build_images
from acs_node.sandboxes.docker_containers import INSTANCE_LABEL

_TOOL: Final = Path(__file__).parents[3] / "tools" / "private_dockerd"


class Engine:
    """An engine below ``folder``, with the runtime images.  Raises: NodeFailed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder / 'docker.sock'}"

    def prepare(self) -> None:
        """Start it and make the images."""
        self.start()
        client = DockerClient(base_url=self.host, version="1.41", timeout=120)
        build_images(client, mode="host")
        client.close()

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._tool("start")

    def stop(self) -> None:
        """End it, and every container with it."""
        self._tool("stop")

    def containers(self, instance: str) -> list[str]:
        """Return what ``docker ps -a`` shows of an invoker."""
        client = DockerClient(base_url=self.host, version="1.41", timeout=60)
        labels = {"label": f"{INSTANCE_LABEL}={instance}"}
        found = client.api.containers(all=True, filters=labels)
        client.close()
        return [str(each["Id"]) for each in found]

    def _tool(self, verb: str) -> None:
        done = subprocess.run(
            [sys.executable, str(_TOOL), verb, str(self._folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NodeFailed(f"the engine does not {verb}: {done.stderr.strip()}")


class RunServer:
    """Takes the lines of those who do not see the file ``log``, and appends them to it."""

    def __init__(self, log: Path) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    with open(log, "ab") as file:
                        file.write(line)
                    self.wfile.write(b".")  # it is told, whatever becomes of the container

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("0.0.0.0", 0), Handler)  # containers come over bridges
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()
