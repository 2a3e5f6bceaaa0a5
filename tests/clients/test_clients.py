"""Clients as people have them, from npm, against a real server: none of them may need a change."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from node.server import running_server
from requirements import missing

from acs_node.demo import ServerProcess

HERE = Path(__file__).parent
INSTALL_S = 240
RUN_S = 120


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients that package.json names, and the programs that use them."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        missing("npm", "there is no program npm or node")
    folder = tmp_path_factory.mktemp("clients")
    for path in (HERE / "package.json", *HERE.glob("*.js")):
        shutil.copy(path, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = subprocess.run(
        install, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        missing("npm", f"the clients cannot be installed: {done.stderr.strip()[-500:]}")
    return folder


@pytest.fixture(scope="module")
def server(modules: Path) -> Iterator[ServerProcess]:
    """A server whose functions of nodejs find the module openwhisk, which compositions need."""
    with running_server() as running:
        (running.data / "node_modules").symlink_to(modules / "node_modules")
        yield running


@pytest.mark.parametrize("program", ["openwhisk_client.js", "compositions.js"])
def test_a_client_works_unchanged(program: str, modules: Path, server: ServerProcess) -> None:
    done = subprocess.run(
        ["node", program, server.url, server.auth],
        cwd=modules,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
