"""A real ``acs standalone`` for tests.

with running_server() as server, rest_client(server) as client:
    client.get("namespaces/_/actions")
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from acs_node import wskprops
from acs_node.demo import ServerProcess


@contextmanager
def running_server(
    *arguments: str,
    folder: Path | None = None,
    sandbox: str = "process",
    environ: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Run a server; ``arguments`` go behind ``acs standalone``.

    Its HOME is ``folder``, or a temporary one. pytest's ``tmp_path`` is often too long: the Unix
    sockets of containers lie below it, and a socket's path has at most 107 bytes.

    Stops it by SIGTERM at the end, and then checks that it ended with code 0, unless the test has
    ended it already. See ``ServerProcess`` for ``pid``, ``url``, ``auth``, ``output``, ``kill``,
    ``start`` and ``stop``.
    """
    with tempfile.TemporaryDirectory(prefix="acs-") as temporary:
        home = folder or Path(temporary)
        with ServerProcess(home, "--sandbox", sandbox, *arguments, environ=environ) as server:
            yield server
            if server.is_running():
                assert server.stop() == 0, server.output


def rest_client(server: ServerProcess, timeout_s: float = 30.0) -> httpx.Client:
    """Make a client with the server's key; paths are below ``/api/v1/``."""
    user, _, key = server.auth.partition(":")
    return httpx.Client(
        base_url=f"{server.url}{wskprops.API_PATH}/",
        auth=(user, key),
        timeout=timeout_s,
        trust_env=False,
    )
