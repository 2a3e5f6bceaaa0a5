"""Fixtures around real engines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from postgres import PostgresServer, running_postgres
from requirements import missing

if TYPE_CHECKING:
    from docker import DockerClient


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
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the session's own; who stops it starts it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database, of each of those that the stores know."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/acs.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture(scope="session")
def docker_images(docker_client: DockerClient) -> None:
    """The runtime images, made from this machine's python: the same with and without a registry."""
    from acs_node.images import build_images

    build_images(docker_client, mode="host")


@pytest.fixture(scope="session")
def etcd_endpoint() -> Iterator[str]:
    """Where a real etcd of these tests listens; every test takes a cluster name of its own."""
    try:
        from acs_node.cluster.etcd_process import EtcdMissing, EtcdProcess
    except ImportError as error:
        missing("etcd", f"the node's dependencies are not installed: {error}")
    with tempfile.TemporaryDirectory(prefix="acs-etcd-") as folder:
        etcd = EtcdProcess(Path(folder))
        try:
            etcd.start()
        except EtcdMissing as error:
            missing("etcd", str(error))
        yield etcd.endpoint
        etcd.kill()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the scenarios of tests/scenarios do now into their files",
    )
