"""Clients as people have them, from npm, against a real server: none of them may need a change."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from node.server import rest_client, running_server
from requirements import missing
from waiting import wait_until

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
    shutil.copytree(HERE / "shop", folder / "shop")
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
    run(program, modules, server)


def run(program: str, modules: Path, server: ServerProcess, *arguments: str) -> None:
    done = subprocess.run(
        ["node", program, server.url, server.auth, *arguments],
        cwd=modules,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a Redis of the test's own, which keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis", "there is no program redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", "/tmp"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), "redis")
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_parallel_compositions_run_where_there_is_a_redis(
    modules: Path, server: ServerProcess, redis: str
) -> None:
    run("compositions.js", modules, server, redis)


def test_serverless_deploys_invokes_and_removes_a_service(
    modules: Path, server: ServerProcess
) -> None:
    environment = {
        **os.environ,
        "HOME": str(server.home),
        "OW_APIHOST": server.url,
        "OW_AUTH": server.auth,
        "SLS_TRACKING_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }

    def serverless(*arguments: str) -> str:
        done = subprocess.run(
            ["node", str(modules / "node_modules/serverless/bin/serverless.js"), *arguments],
            cwd=modules / "shop",
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    names = {"shop-dev-greet", "shop-dev-count", "shop-dev-both", "shop-dev-told"}
    with rest_client(server) as client:

        def listed(collection: str) -> set[str]:
            return {row["name"] for row in client.get(f"namespaces/_/{collection}").json()}

        before = listed("actions")
        serverless("deploy")
        assert listed("actions") - before == names
        assert (listed("triggers"), listed("rules")) == ({"visit"}, {"shop_visit_to_told"})
        greeted = serverless("invoke", "-f", "greet", "-d", '{"name": "Ann"}')
        assert '"text": "Hello, Ann"' in greeted
        assert '"letters": 10' in serverless("invoke", "-f", "both", "-d", '{"name": "Ann"}')
        serverless("remove")
        assert listed("actions") == before
        assert (listed("triggers"), listed("rules")) == (set(), set())
