"""How the node reaches the Docker Engine, and what its failures are called.

All calls block; callers on an event loop make them in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker import DockerClient
from docker.errors import APIError, DockerException, InvalidArgument

from acs_node.sandboxes import EngineUnavailable, SandboxError

CALL_S = 30.0
"""The longest wait for an engine's answer.  A start takes 0.3 s alone and some seconds when 16
come at once; an engine that is silent for longer hangs."""

CONNECTIONS_MAX = 16
"""Connections that one client keeps open; more threads than this would open new ones each time."""


def connect(call_s: float = CALL_S) -> DockerClient:
    """Return a client of the engine that DOCKER_HOST names (else the default socket).

    ``call_s`` is the time-out in seconds of every call, this one included.
    Raises: EngineUnavailable.
    """
    with engine_calls("connect"):
        return docker.from_env(timeout=call_s, max_pool_size=CONNECTIONS_MAX)


@contextmanager
def engine_calls(what: str) -> Iterator[None]:
    """Translate what the ``docker`` package raises while it does ``what``.

    No answer becomes EngineUnavailable.  A refusal stays docker's own APIError, for a caller who
    knows what it means there; ``refused`` words it for all others.
    """
    try:
        yield
    except (APIError, SandboxError):
        raise
    except InvalidArgument as error:
        raise SandboxError(f"{what}: {error}", final=True) from error
    except (DockerException, OSError) as error:  # every exception of requests is an OSError
        host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock (DOCKER_HOST unset)"
        raise EngineUnavailable(
            f"{what}: no answer from the Docker Engine at {host}: {error}; "
            "is it running, and may this user open its socket?"
        ) from error


def refused(what: str, error: APIError) -> SandboxError:
    """Word a refusal of the engine; one that faults the request itself is final."""
    code = error.status_code
    return SandboxError(
        f"{what}: the Docker Engine answered {code}: {error.explanation}", final=code == 400
    )
