"""The guide of docs/operations.md, run as it stands there: each machine is a network namespace."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from cluster.faults.network import Network, NetworkMissing
from cluster.load import Client
from requirements import missing
from waiting import wait_until

from acs_node.cluster.config import ConfigError, read_config

ROOT = Path(__file__).parents[2]
MACHINES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def blocks(document: str, heading: str) -> dict[str, str]:
    """Return the fenced blocks below a heading, by their first line's comment."""
    section = document.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^```\n# ([^\n]*)\n(.*?)^```$", section, re.M | re.S)
    return {first: text.replace("\\\n", " ") for first, text in found}


class Machines:
    """Three machines with the files of the guide, and what runs there."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.hosts = {name: network.add(f"m{n}") for n, name in enumerate(MACHINES)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in MACHINES:
            (folder / name).mkdir()

    def here(self, text: str, machine: str) -> str:
        """Return text of the guide with this network's addresses and this machine's folders."""
        for name, host in self.hosts.items():
            text = text.replace(name, host.address)
        return text.replace("/var/lib/", f"{self.folder / machine}/")

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def popen(self, machine: str, command: str, output: object) -> subprocess.Popen[bytes]:
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            [*self.hosts[machine].command, "sh", "-c", f"exec env {self.here(command, machine)}"],
            cwd=self.folder / machine,
            env={
                "PATH": programs,
                "HOME": str(self.folder / machine),
                "ACS_SANDBOX": "process",  # needs no engine; nothing else is added
                "ACS_LEASE_S": "5",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,  # type: ignore[arg-type]
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def start(self, machine: str, line: str) -> None:
        """Start what a line of the guide starts."""
        name = re.search(r"--name (\S+)", line)
        key = name[1] if name else line.split()[0]
        with open(self.log(key), "wb") as output:
            self.running[key] = self.popen(machine, line, output)

    def said(self, name: str) -> str:
        return self.log(name).read_text("utf-8", "replace")

    def stop(self) -> dict[str, int]:
        """End the nodes, controllers first, and etcd last; return the exit codes of nodes."""
        codes = {}
        for name in sorted(self.running, key=lambda each: "csie".index(each[0])):
            self.running[name].terminate()
            codes[name] = self.running[name].wait(90)
        del codes["etcd"]
        return codes

    def kill(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def machines() -> Iterator[Machines]:
    if shutil.which("etcd") is None:
        missing("etcd", "there is no program etcd; install the package etcd-server")
    try:
        network = Network()
    except NetworkMissing as error:
        missing("netns", str(error))
    # Not below tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        made = Machines(Path(folder), network)
        try:
            yield made
        finally:
            made.kill()
            network.close()


def until(condition: Callable[[], object], what: str, machines: Machines) -> None:
    try:
        wait_until(condition, what, 60)
    except AssertionError as error:
        said = {name: machines.said(name)[-800:] for name in machines.running}
        raise AssertionError(f"{error}: {said}") from None


def get(url: str) -> object:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
    except OSError as error:
        return error


async def test_three_machines_by_the_commands_of_the_guide(machines: Machines) -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    guide = blocks(document, "On three machines")
    assert set(guide) == {"anywhere", "node.toml", *MACHINES}
    anywhere = machines.folder / "anywhere"
    anywhere.mkdir()
    for line in guide["anywhere"].splitlines():
        command = machines.here(line, "anywhere").replace(
            "acs", f"{sys.executable} -m acs_node.cli", 1
        )
        subprocess.run(command.split(), cwd=anywhere, check=True, capture_output=True)
    for machine in MACHINES:
        folder = machines.folder / machine
        (folder / "node.toml").write_text(machines.here(guide["node.toml"], machine))
        shutil.copytree(anywhere / "certs", folder / "certs")
        (folder / "certs" / "ca.key").unlink()
    # In the worst order: who needs the others first.
    for machine in reversed(MACHINES):
        for line in reversed(guide[machine].splitlines()):
            machines.start(machine, line)

    url = machines.here("http://10.0.0.1:3233", MACHINES[0])
    until(lambda: get(f"{url}/invokers/ready") == {"healthy": "2/2"}, "the invokers", machines)
    key = re.search(r"--auth (\S+)", machines.said("c1"))
    assert key is not None
    client = Client(url, key[1])
    for n in range(6):
        body = {
            "exec": {"kind": "python:3", "code": "def main(args):\n    return {'n': args['n']}"},
            "limits": {"memory": 256},
        }
        assert (await client.request("PUT", f"actions/a{n}", body))[0] == 200
        path = f"actions/a{n}?blocking=true&result=true"
        assert await client.request("POST", path, {"n": n}) == (200, {"n": n})
    client.close()

    (drain,) = blocks(document, "Upgrade and restart").items()
    machine = drain[0].partition(",")[0]
    with open(machines.folder / "drain.log", "w+b") as output:
        assert machines.popen(machine, drain[1].strip(), output).wait(120) == 0
        output.seek(0)
        assert output.read().startswith(b"invoker i3 (i3-")
    assert machines.running["i3"].wait(30) == 0
    until(lambda: get(f"{url}/invokers/ready") == {"healthy": "1/1"}, "the news", machines)
    assert set(machines.stop().values()) == {0}


def test_the_settings_of_compose_yaml_have_a_meaning() -> None:
    folder = ROOT / "examples" / "cluster"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    nodes = {name: each for name, each in services.items() if each.get("image") == "acs"}
    assert set(nodes) == {"c0", "c1", "s0", "s1", "i0", "i1"}
    for name, node in nodes.items():
        (role,) = node["command"]
        environment = node["environment"]
        config, shown = read_config(role, environ=environment)
        assert config.name == name
        assert config.advertise == f"{name}:7000"
        assert config.tls_certificate == f"/certs/{role}-{name}.pem"
        # Each is a setting of this role, and none is misspelled.
        known = {f"ACS_{each.key.upper()}" for each in shown}
        assert set(environment) <= known
    for name in ("i0", "i1"):
        data = nodes[name]["environment"]["ACS_DATA"]
        assert f"{data}:{data}" in nodes[name]["volumes"]
    with pytest.raises(ConfigError):
        read_config("invoker", environ={**nodes["i0"]["environment"], "ACS_MEMORY_MB": "x"})


def test_the_unit_starts_a_node_and_leaves_a_drained_one_stopped() -> None:
    unit = (ROOT / "examples" / "cluster" / "acs@.service").read_text()
    assert "ExecStart=/usr/bin/env acs %i --config /etc/acs/node.toml\n" in unit
    assert "Restart=on-failure\n" in unit
    example = dict(re.findall(r"^#   (ACS_\w+)=(\S+)$", unit, re.M))
    assert read_config("invoker", environ={**example, "ACS_TLS_CA": "/etc/acs/certs/ca.pem"})


def test_compose_takes_its_file(tmp_path: Path) -> None:
    """What it makes of it: every node with the files, names and ports that it is told of."""
    if shutil.which("docker-compose") is None:
        missing("compose", "docker-compose is not installed")
    file = ROOT / "examples" / "cluster" / "compose.yaml"
    command = ["docker-compose", "-f", str(file), "config"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    services = yaml.safe_load(ran.stdout)["services"]
    assert set(services) == {"etcd", "postgres", "c0", "c1", "s0", "s1", "i0", "i1"}
    for name in ("c0", "c1", "s0", "s1", "i0", "i1"):
        service = services[name]
        assert "etcd" in service["depends_on"], name
        assert service["environment"]["ACS_NAME"] == name
        assert any(volume.endswith(":/certs:ro") for volume in map(str, service["volumes"])), name
    broken = tmp_path / "compose.yaml"
    broken.write_text(file.read_text().replace("restart:", "restarts:"))
    command[2] = str(broken)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode != 0, "it would say of a misspelled word"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd", "systemd-analyze is not installed")
    unit = (ROOT / "examples" / "cluster" / "acs@.service").read_text()

    def verify(text: str) -> str:
        (tmp_path / "acs@.service").write_text(text)
        command = ["systemd-analyze", "verify", str(tmp_path / "acs@.service")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return ran.stdout + ran.stderr

    assert "acs@" not in verify(unit)
    assert "'Restarts'" in verify(unit.replace("Restart=", "Restarts="))
