"""The nodejs runtime in containers of a real Docker Engine."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator

import pytest
from docker import DockerClient
from requirements import missing

for module in ("node.runtime_cases", "node.nodejs_cases"):
    pytest.register_assert_rewrite(module)

from node.nodejs_cases import NodejsRuntimeCases  # noqa: E402

from acs_node.sandboxes.docker import DockerEngine  # noqa: E402


@pytest.fixture
async def engine(docker_client: DockerClient, docker_images: None) -> AsyncIterator[DockerEngine]:
    if shutil.which("node") is None:
        missing("node", "there is no node in PATH, so there is no image")
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        instance = f"test-{uuid.uuid4().hex}"
        engine = DockerEngine(folder, instance=instance, client=docker_client, network="none")
        yield engine
        await engine.close()


class TestNodejsInDocker(NodejsRuntimeCases):
    """The cases of every runtime, and those of this one."""
