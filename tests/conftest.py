"""Fixtures around real engines.  A missing engine skips a test, or fails it if ACS_REQUIRE says so.

ACS_REQUIRE is a list such as ``docker,etcd``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from docker import DockerClient


def missing(program: str, reason: str) -> NoReturn:
    """Skip the test because ``program`` is missing; fail it where that is not allowed."""
    if program in os.environ.get("ACS_REQUIRE", "").split(","):
        pytest.fail(f"ACS_REQUIRE has {program}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def docker_client() -> Iterator[DockerClient]:
    """A client of the real Docker Engine that DOCKER_HOST names, else of the default socket."""
    # Not imported at the top: tests of the core run where the node's dependencies are missing.
    try:
        from acs_node.docker_client import connect
        from acs_node.sandboxes import EngineUnavailable
    except ImportError as error:
        missing("docker", f"the node's dependencies are not installed: {error}")
    try:
        client = connect(call_s=60)
    except EngineUnavailable as error:
        missing("docker", str(error))
    yield client
    client.close()


@pytest.fixture(scope="session")
def docker_images(docker_client: DockerClient) -> None:
    """The runtime images, made from this machine's python: the same with and without a registry."""
    from acs_node.images import build_images

    build_images(docker_client, mode="host")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the scenarios of tests/scenarios do now into their files",
    )
