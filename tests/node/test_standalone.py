"""``acs standalone`` as a program: starts, stops, crashes, and functions that misbehave."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from node.house import ECHO, WAITS
from node.server import rest_client, running_server
from waiting import Gate, until, wait_until

from acs_node import addresses, database_engines, standalone, wskprops
from acs_node.activations import DEFINITE, UNKNOWN, Record
from acs_node.controller import Controller
from acs_node.demo import ServerProcess

ACTIONS = "namespaces/_/actions"
ACTIVATIONS = "namespaces/_/activations"
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="acs-") as name:
        yield Path(name)


def put(client: httpx.Client, name: str, code: str, **body: Any) -> None:
    document = {"exec": {"kind": "python:3", "code": code}, **body}
    client.put(f"{ACTIONS}/{name}?overwrite=true", json=document).raise_for_status()


def invoke(
    client: httpx.Client, name: str, arguments: Any = None, query: str = ""
) -> httpx.Response:
    """Invoke an action and wait for its record."""
    return client.post(f"{ACTIONS}/{name}?blocking=true{query}", json=arguments or {})


def accept(client: httpx.Client, name: str, arguments: Any) -> str:
    """Invoke an action and return the id of the accepted activation."""
    reply = client.post(f"{ACTIONS}/{name}", json=arguments)
    assert reply.status_code == 202
    return str(reply.json()["activationId"])


def record(client: httpx.Client, activation_id: str) -> Any:
    """Wait for a record."""

    def found() -> Any:
        reply = client.get(f"{ACTIVATIONS}/{activation_id}")
        assert reply.status_code in (200, 404)
        return reply.json() if reply.status_code == 200 else None

    return wait_until(found, f"the record of {activation_id}")


def recorded(client: httpx.Client) -> int:
    """Return how many records there are."""
    return int(client.get(f"{ACTIVATIONS}?count=true").json()["activations"])


def status(client: httpx.Client) -> Any:
    return client.get("acs/status").json()


def processes(server: ServerProcess) -> list[int]:
    """Return the processes of the server's sandboxes, by where their home is."""
    mark = f"HOME={server.data.absolute()}/sandboxes/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not ended and any(each.startswith(mark) for each in variables):
            found.append(int(entry.name))
    return found


def start_again(server: ServerProcess) -> None:
    """Start a server that has ended, when all that it wrote has been read."""
    wait_until(lambda: server._ended, "the end of its output")
    server.start()


def start_fails(*arguments: str, environ: dict[str, str] | None = None) -> str:
    """Run a server that cannot start and return what it said."""
    with tempfile.TemporaryDirectory(prefix="acs-") as home:
        ended = subprocess.run(
            [*ServerProcess.command, *arguments],
            env={**os.environ, "HOME": home, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=20,
        )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "Traceback" not in said
    assert "listening" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("acs standalone: ")]
    return line


# --- starting ------------------------------------------------------------------------------------


def test_only_the_first_start_creates_guest_and_shows_its_key(folder: Path) -> None:
    with running_server(folder=folder) as server:
        (auth,) = re.findall(r"--auth (\S+)", server.output)
        assert auth == server.auth
        assert f"wrote {folder}/.wskprops" in server.output
        props = folder / ".wskprops"
        assert props.stat().st_mode & 0o777 == 0o600
        assert wskprops.read(props) == {"APIHOST": server.url, "AUTH": auth, "NAMESPACE": "_"}
        before = props.read_bytes(), props.stat().st_mtime_ns
        with rest_client(server) as client:
            put(client, "echo", ECHO)
            assert invoke(client, "echo", {"a": 1}).status_code == 200
        assert server.stop() == 0
        start_again(server)
        assert "guest" not in server.output
        assert auth not in server.output
        assert (props.read_bytes(), props.stat().st_mtime_ns) == before
        with rest_client(server) as client:
            assert invoke(client, "echo", {"a": 2}).json()["response"]["result"] == {"a": 2}
            wait_until(lambda: recorded(client) == 2, "both records")


def test_settings_that_point_elsewhere_are_left_alone(folder: Path) -> None:
    props = folder / ".wskprops"
    props.write_text("APIHOST=https://example.org\nAUTH=a:b\n")
    with running_server(folder=folder) as server:
        assert f"left {props} alone: it points to https://example.org" in server.output
        assert "--auth" in server.output, "the key is shown all the same"
    assert props.read_text() == "APIHOST=https://example.org\nAUTH=a:b\n"


def test_a_second_server_on_the_same_data_folder_refuses_and_names_the_first(folder: Path) -> None:
    with running_server(folder=folder) as server:
        said = start_fails("--port", "0", "--data", str(server.data), "--sandbox", "process")
        assert f"the data folder {server.data} is in use" in said
        assert f"process {server.pid}" in said
        with rest_client(server) as client:
            assert client.get("").status_code == 200


def test_a_crashed_server_does_not_hold_its_data_folder(folder: Path) -> None:
    with running_server(folder=folder) as server:
        server.kill()
        start_again(server)


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start_fails("--port", str(port), "--data", str(folder), "--sandbox", "process")
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_crowd_is_accepted_in_a_few_turns_of_the_loop() -> None:
    async def turns_for_a_crowd() -> int:
        accepted: list[asyncio.Protocol] = []

        class Accepted(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.append(self)
                transport.close()

        loop = asyncio.get_running_loop()
        for each in listeners:
            await loop.create_server(Accepted, sock=each)
        turns = 0
        while len(accepted) < len(clients):
            turns += 1
            await asyncio.sleep(0)
        return turns

    listeners = standalone.several(standalone.listen(standalone.StandaloneConfig(port=0)))
    address = listeners[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(4 * len(listeners))]
    turns = uvloop.run(turns_for_a_crowd())
    for client in clients:
        client.close()
    # One socket takes one connection in a turn.
    assert turns < len(clients) / 2


@pytest.mark.parametrize("what", ["lock", "instance", "sandboxes", "acs.db", "the folder"])
def test_a_data_folder_that_cannot_be_used_is_named(folder: Path, what: str) -> None:
    data = folder / "data"
    if what == "the folder":
        data.write_text("a file")
        data = data / "below"
    else:
        data.mkdir()
        if what == "sandboxes":
            (data / what).write_text("a file")
        else:
            (data / what).mkdir()
    said = start_fails("--port", "0", "--data", str(data), "--sandbox", "process")
    assert str(data) in said


def test_a_database_that_is_none_is_named(folder: Path) -> None:
    (folder / "acs.db").write_bytes(b"this is no database" * 1000)
    said = start_fails("--port", "0", "--data", str(folder), "--sandbox", "process")
    assert f"cannot open the database sqlite:///{folder}/acs.db" in said


def test_an_empty_instance_file_is_filled(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "instance").touch()
    with running_server(folder=folder):
        assert len((folder / "data" / "instance").read_text()) == 16


def test_without_an_engine_auto_does_not_serve_others_without_isolation(folder: Path) -> None:
    arguments = ("--port", "0", "--data", str(folder), "--host", "0.0.0.0", "--sandbox", "auto")
    said = start_fails(*arguments, environ=NO_ENGINE)
    assert "no container engine answers" in said
    assert "0.0.0.0" in said


def test_without_an_engine_docker_does_not_start(folder: Path) -> None:
    arguments = ("--port", "0", "--data", str(folder), "--sandbox", "docker")
    assert "/nonexistent/docker.sock" in start_fails(*arguments, environ=NO_ENGINE)


def test_without_an_engine_auto_takes_processes_on_loopback_and_says_so() -> None:
    with running_server(sandbox="auto", environ=NO_ENGINE) as server, rest_client(server) as client:
        assert "PROCESSES OF THIS USER, WITHOUT ISOLATION" in server.output
        assert status(client)["sandbox"] == "process"


def test_loopback_is_told_from_everything_else() -> None:
    assert all(map(addresses.is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(addresses.is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.org", ""]))


def test_the_status_is_for_clients_on_this_machine(folder: Path) -> None:
    with running_server(folder=folder) as server, rest_client(server) as client:
        put(client, "echo", ECHO)
        invoke(client, "echo")
        assert status(client)["added_wait_us"]["p99"] is None, "of warm containers alone"
        invoke(client, "echo")
        seen = status(client)
    assert (seen["containers"], seen["containers_created"], seen["pending"]) == (1, 1, 0)
    assert seen["activations"]["ended"] == 2
    assert seen["added_wait_us"]["p99"] > 0


def test_a_server_with_a_prewarmed_sandbox_and_containers_that_sleep(folder: Path) -> None:
    options = ("--prewarm", "python:default:256:1", "--pause-grace", "0.05")
    with running_server(*options, folder=folder) as server, rest_client(server) as client:
        wait_until(lambda: status(client)["sandboxes_prewarmed"] == 1, "the prewarmed sandbox")
        assert status(client)["containers"] == 0
        put(client, "echo", ECHO)
        assert invoke(client, "echo", {"n": 1}).json()["response"]["result"] == {"n": 1}
        for number in range(2):
            wait_until(lambda: status(client)["containers_paused"] == 1, "its sleep")
            reply = invoke(client, "echo", {"n": number})
            assert reply.json()["response"]["result"] == {"n": number}
        assert status(client)["containers_created"] == 1, "woken, not made anew"
        wait_until(lambda: status(client)["sandboxes_prewarmed"] == 1, "another one")
        assert len(processes(server)) == 2
        sandboxes = [each.name for each in (server.data / "sandboxes").iterdir()]
        assert [name[0] for name in sandboxes] == ["p", "p"], "both were started for nobody"
        assert server.stop() == 0
        assert processes(server) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pause-grace", "10"), "the pause grace is 10 s; it must be at least 0 and less than"),
        (("--pause-grace", "nan"), "the pause grace is nan s"),
        (("--prewarm", "python:2:256:1"), "python:2:256:1: The specified runtime 'python:2' is"),
        (("--prewarm", "python:3:64:1"), "python:3:64:1: the memory is 64 MB; actions have 128.."),
        (("--prewarm", "python:3:513:1"), "the memory is 513 MB; actions have 128..512 MB"),
        (
            ("--memory", "512", "--prewarm", "python:3:256:2", "--prewarm", "python:3:128:1"),
            "the prewarmed sandboxes need 640 MB; all containers have 512 MB",
        ),
    ],
)
def test_settings_without_a_meaning_are_named(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    data = ("--port", "0", "--data", str(folder / "data"), "--sandbox", "process")
    assert message in start_fails(*data, *options)
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("sandbox", "network", "message"),
    [
        ("process", "none", "without a container engine functions cannot be kept from the network"),
        ("docker", "host", "network is 'host', must be 'none' or the name of a network"),
    ],
)
def test_a_network_that_cannot_be_had_is_refused(
    folder: Path, sandbox: str, network: str, message: str
) -> None:
    data = ("--port", "0", "--data", str(folder / "data"))
    said = start_fails(*data, "--sandbox", sandbox, "--network", network, environ=NO_ENGINE)
    assert message in said


# --- stopping ------------------------------------------------------------------------------------


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stop_lets_everything_end_and_records_it(folder: Path) -> None:
    go = Gate(folder / "go")
    with running_server("--containers", "1", folder=folder) as server:
        with rest_client(server) as client, ThreadPoolExecutor(4) as pool:
            put(client, "wait", WAITS)
            blocking = [
                pool.submit(invoke, client, "wait", {"go": str(go), "n": n}) for n in range(4)
            ]
            accepted = [accept(client, "wait", {"go": str(go), "n": n}) for n in range(4, 8)]
            seen = {"accepted": 8, "delivered": 1, "waiting": 7}
            wait_until(
                lambda: seen.items() <= status(client)["activations"].items(), "one run, 7 waiting"
            )
            os.kill(server.pid, signal.SIGTERM)
            server.wait_for_output("stopping: 8 activations to end")
            wait_until(lambda: refuses(server.port), "new connections to be refused")
            assert server.is_running()
            os.kill(server.pid, signal.SIGINT)
            server.wait_for_output("stopping is under way")
            go.open()
            replies = [each.result() for each in blocking]
        assert server.stop() == 0, server.output
        assert [reply.status_code for reply in replies] == [200] * 4
        assert [reply.json()["response"]["result"]["n"] for reply in replies] == [0, 1, 2, 3]
        assert processes(server) == []
        assert list((server.data / "sandboxes").iterdir()) == []
        start_again(server)
        with rest_client(server) as client:
            for n, activation_id in enumerate(accepted, 4):
                assert record(client, activation_id)["response"]["result"] == {"n": n}
            for reply in replies:
                assert record(client, reply.json()["activationId"])["response"]["success"]


def test_a_stop_ends_a_run_at_its_limit_and_answers_for_it(folder: Path) -> None:
    with running_server(folder=folder) as server:
        with rest_client(server) as client, ThreadPoolExecutor(1) as pool:
            put(client, "sleep", "import signal\ndef main(args):\n    signal.pause()\n",
                limits={"timeout": 500})  # fmt: skip
            waiting = pool.submit(invoke, client, "sleep")
            wait_until(lambda: status(client)["pending"], "the activation")
            assert server.stop() == 0, server.output
            assert waiting.result().status_code == 502
        assert processes(server) == []


def test_a_client_that_neither_writes_nor_reads_on_does_not_hold_up_a_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(folder=folder) as server:
        head = b"POST /api/v1/namespaces/_/actions/a HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf"
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head)
            with rest_client(server) as other:
                assert other.get("").status_code == 200, "the half was read before"
            assert server.stop(within_s=15) == 0
        assert "cutting off 1 clients" in server.output


def test_a_crash_leaves_neither_processes_nor_activations_without_an_end(folder: Path) -> None:
    go = Gate(folder / "go")
    with running_server("--containers", "1", folder=folder) as server:
        with rest_client(server) as client:
            put(client, "wait", WAITS)
            accepted = [accept(client, "wait", {"go": str(go)}) for _ in range(3)]
            done = accept(client, "wait", {"go": "/"})
            wait_until(lambda: status(client)["activations"]["delivered"], "the first run")
        (pid,) = processes(server)
        os.kill(pid, signal.SIGSTOP)  # or its leash would end it before the next start could
        server.kill()
        assert processes(server) == [pid]
        start_again(server)
        assert processes(server) == []
        assert list((server.data / "sandboxes").iterdir()) == []
        assert "removed 1 containers" in server.output
        assert "4 accepted activations of an earlier run ended as unknown" in server.output
        with rest_client(server) as client:
            for activation_id in (*accepted, done):
                response = record(client, activation_id)["response"]
                assert response["status"] == "whisk internal error"
                assert "not known whether" in response["result"]["error"]
            assert recorded(client) == 4
            assert invoke(client, "wait", {"go": "/"}).status_code == 200
            wait_until(lambda: recorded(client) == 5, "the record of the new run")
        assert server.stop() == 0
        start_again(server)
        assert "unknown" not in server.output
        with rest_client(server) as client:
            assert recorded(client) == 5


def test_a_killed_server_keeps_the_record_of_everything_it_answered(folder: Path) -> None:
    answered: list[str] = []

    def call(client: httpx.Client) -> None:
        try:
            while True:
                answered.append(invoke(client, "echo", {"a": 1}).json()["activationId"])
        except (httpx.HTTPError, ValueError):
            pass  # the server is gone

    with running_server(folder=folder) as server:
        with rest_client(server) as client, ThreadPoolExecutor(8) as callers:
            put(client, "echo", ECHO)
            invoke(client, "echo")
            for _ in range(8):
                callers.submit(call, client)
            wait_until(lambda: len(answered) > 400, "some answers")
            server.kill()
        start_again(server)
        assert "records of an earlier run are taken from its journal" in server.output
        with rest_client(server) as client:
            for activation_id in answered:
                found = client.get(f"{ACTIVATIONS}/{activation_id}").json()
                assert found["response"]["result"] == {"a": 1}
        assert server.stop() == 0
        assert list((server.data / "journal").iterdir()) == []


async def test_records_that_the_database_does_not_take_are_given_up_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_engines, "BUSY_TIMEOUT_S", 0.02)
    monkeypatch.setattr(standalone, "RECORDS_S", 0.1)
    config = standalone.StandaloneConfig(data=folder)
    row = Record("0" * 32, "guest", "act", 1, 2, 0, DEFINITE, b"{", b"[]")

    async def put_while_it_is_locked() -> None:
        async with standalone.stores(config) as (_, activations):
            blocker.execute("BEGIN IMMEDIATE")
            activations.put(row)

    async with standalone.stores(config):
        blocker = sqlite3.connect(folder / "acs.db", isolation_level=None)
    with pytest.raises(standalone.StartError, match="does not take the last activation records"):
        await put_while_it_is_locked()
    blocker.close()
    async with standalone.stores(config) as (_, activations):
        assert await activations.get("guest", "0" * 32) is None


async def test_sweeps_go_on_after_one_that_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "SWEEP_S", 0.001)
    config = standalone.StandaloneConfig(data=folder)
    async with standalone.stores(config) as (entities, activations):
        controller = Controller(entities, activations, 1)
        sweeps = []

        def sweep() -> None:
            sweeps.append(1)
            if len(sweeps) == 1:
                raise AssertionError("planted")

        monkeypatch.setattr(controller, "sweep", sweep)
        await activations.accept("0" * 32, "guest", "act", 1, 2, b'{"a":1')
        sweeping = asyncio.ensure_future(standalone.sweep(controller, activations))
        await until(lambda: len(sweeps) >= 3, "the next sweeps")
        sweeping.cancel()
        await asyncio.wait([sweeping])
        ended = await activations.get("guest", "0" * 32)
        assert ended is not None
        assert ended.rank == UNKNOWN, "it was overdue"


async def test_a_wall_clock_that_jumps_ends_nothing_that_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "SWEEP_S", 0.001)
    ids = ["0" * 31 + digit for digit in "123"]  # under way here, at another controller, nowhere
    config = standalone.StandaloneConfig(data=folder)
    async with standalone.stores(config) as (entities, activations):
        controller = Controller(entities, activations, 1)
        monkeypatch.setattr(controller, "is_pending", lambda id_: id_ == ids[0])
        asked: list[list[str]] = []

        async def of_the_dead(some: list[str]) -> list[str]:
            asked.append(some)
            return [id_ for id_ in some if id_ != ids[1]]

        for id_ in ids:  # whose deadline has passed, as the wall has it
            await activations.accept(id_, "guest", "act", 1, 2, b'{"a":1')
        sweeping = asyncio.ensure_future(standalone.sweep(controller, activations, of_the_dead))
        await until(lambda: len(asked) >= 2, "two sweeps")
        sweeping.cancel()
        await asyncio.wait([sweeping])
        assert asked[0] == ids[1:]
        assert asked[1] == [ids[1]]
        ended = [await activations.get("guest", id_) for id_ in ids]
        assert [each is not None for each in ended] == [False, False, True]


# --- functions that misbehave --------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server() as running:
        yield running
        assert running.stop() == 0, running.output
        assert processes(running) == []
        assert list((running.data / "sandboxes").iterdir()) == []


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with rest_client(server) as made:
        yield made


MiB = 1024 * 1024
NO_RESPONSE = "The action did not produce a valid response and exited unexpectedly."
DEVELOPER, APPLICATION = "action developer error", "application error"


@pytest.mark.parametrize(
    ("code", "limits", "how", "says"),
    [
        ("def main(:\n", {}, DEVELOPER, "SyntaxError"),
        ("x = 1\n", {}, DEVELOPER, "Action entrypoint 'main' is not a function."),
        ("1 / 0\n", {}, DEVELOPER, "ZeroDivisionError"),
        ("import os\nos._exit(1)\n", {}, DEVELOPER, "did not initialize and exited unexpectedly"),
        ("return 'text'", {}, DEVELOPER, "did not return a dictionary or array"),
        ("return None", {}, DEVELOPER, "did not return a dictionary or array"),
        ("return {'a': object()}", {}, DEVELOPER, "JSON cannot express"),
        ("raise ValueError('boom')", {}, APPLICATION, "boom"),
        ("sys.exit(3)", {}, APPLICATION, "SystemExit: 3"),
        ("os._exit(0)", {}, DEVELOPER, NO_RESPONSE),
        ("os.kill(os.getpid(), 9)", {}, DEVELOPER, NO_RESPONSE),
        ("os.kill(os.getpid(), 11)", {}, DEVELOPER, NO_RESPONSE),
        ("os.closerange(0, 64)", {"timeout": 300}, DEVELOPER, NO_RESPONSE),
        ("signal.pause()", {"timeout": 100}, DEVELOPER,
         "The action exceeded its time limits of 100 milliseconds."),
        ("while True: pass", {"timeout": 100}, DEVELOPER, "time limits of 100 milliseconds."),
        ("signal.pause()\n", {"timeout": 100}, DEVELOPER, "100 milliseconds during initialization"),
        ("return {'a': 'x' * 1024 * 1024}", {}, APPLICATION,
         "exceeded the allowed length: 1048584 > 1048576 bytes."),
        ("return {'a': 'x' * 9 * 1024 * 1024}", {}, APPLICATION, "exceeded the allowed length"),
        ("return {'a': 'x' * 300 * 1024 * 1024}", {"memory": 128}, APPLICATION, "MemoryError"),
    ],
)  # fmt: skip
def test_the_record_says_what_a_function_did_wrong_and_the_next_one_runs(
    client: httpx.Client, code: str, limits: dict[str, int], how: str, says: str
) -> None:
    if not code.endswith("\n"):
        code = f"def main(args):\n    if args.get('good'): return {{'good': True}}\n    {code}\n"
    client.delete(f"{ACTIONS}/bad")  # an update would keep the limits of the one before
    put(client, "bad", "import os, signal, sys\n" + code, limits=limits)
    reply = invoke(client, "bad")
    assert reply.status_code == 502
    found = record(client, reply.json()["activationId"])
    assert found["response"]["status"] == how
    assert says in found["response"]["result"]["error"]
    timed_out = {note["key"]: note["value"] for note in found["annotations"]}["timeout"]
    assert timed_out is ("100 milliseconds" in says)
    if "good" in code:
        good = invoke(client, "bad", {"good": True}, "&result=true")
        assert (good.status_code, good.json()) == (200, {"good": True})
    put(client, "good", ECHO)
    assert invoke(client, "good", {"n": 1}, "&result=true").json() == {"n": 1}


def logs_of(reply: httpx.Response, client: httpx.Client) -> list[str]:
    assert reply.status_code == 200, reply.text
    path = f"{ACTIVATIONS}/{reply.json()['activationId']}"
    assert record(client, reply.json()["activationId"])
    return [line.partition(" ")[2] for line in client.get(f"{path}/logs").json()["logs"]]


def test_logs_are_in_the_record_in_their_order(client: httpx.Client) -> None:
    code = (
        "import sys\ndef main(args):\n    print('one')\n    print('two')\n"
        "    sys.stderr.write('err')\n    return {}\n"
    )
    put(client, "talk", code)
    for _ in range(3):
        lines = logs_of(invoke(client, "talk"), client)
        assert [line for line in lines if "stdout" in line] == ["stdout: one", "stdout: two"]
        assert [line for line in lines if "stderr" in line] == ["stderr: err"]


def test_logs_over_their_limit_are_cut_and_the_next_ones_are_not(client: httpx.Client) -> None:
    put(client, "flood", "def main(args):\n    for n in range(args.get('lines', 1)):\n"
        "        print('x' * 1000)\n    return {}\n", limits={"logs": 1})  # fmt: skip
    lines = logs_of(invoke(client, "flood", {"lines": 5_000}), client)
    assert sum(map(len, lines)) < 1.1 * MiB
    assert len(lines) > 900
    assert lines[-1] == (
        "stderr: Logs were truncated because the total bytes size exceeds the limit of"
        " 1048576 bytes."
    )
    assert logs_of(invoke(client, "flood"), client) == ["stdout: " + "x" * 1000]


def test_a_log_limit_of_zero_keeps_nothing_and_stops_nobody(client: httpx.Client) -> None:
    put(client, "mute", "def main(args):\n    print('x' * 3_000_000)\n    return {}\n",
        limits={"logs": 0})  # fmt: skip
    for _ in range(2):
        assert logs_of(invoke(client, "mute"), client) == []


def test_a_thread_that_floods_stdout_for_ever_costs_its_container_alone(
    client: httpx.Client,
) -> None:
    put(client, "thread", "import threading\ndef flood():\n    while True: print('y' * 500)\n"
        "def main(args):\n    threading.Thread(target=flood, daemon=True).start()\n"
        "    return {}\n", limits={"logs": 1, "timeout": 2_000})  # fmt: skip
    assert invoke(client, "thread").status_code in (200, 502)
    put(client, "good", ECHO)
    assert invoke(client, "good", {"n": 1}, "&result=true").json() == {"n": 1}


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_container_that_is_killed_is_replaced(
    server: ServerProcess, client: httpx.Client, folder: Path, when: str
) -> None:
    code = WAITS.replace("args.get('n')", "os.getpid()")
    put(client, f"victim-{when}", code)
    go = {"go": "/"}
    pid = invoke(client, f"victim-{when}", go, "&result=true").json()["n"]
    assert pid in processes(server)
    if when == "idle":
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in processes(server), "the end of the process")
        assert status(client), "the server has heard of it by now"
    else:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(invoke, client, f"victim-{when}", {"go": "never"})
            wait_until(lambda: status(client)["activations"]["delivered"], "the run")
            os.kill(pid, signal.SIGKILL)
            reply = waiting.result()
        assert reply.status_code == 502
        assert reply.json()["response"]["result"] == {"error": NO_RESPONSE}
    replies = [invoke(client, f"victim-{when}", go, "&result=true") for _ in range(5)]
    assert [reply.status_code for reply in replies] == [200] * 5
    assert {reply.json()["n"] for reply in replies}.isdisjoint({pid})
    wait_until(lambda: pid not in processes(server), "the end of the process")


def test_sandboxes_that_cannot_be_started_are_tried_until_they_can(folder: Path) -> None:
    with running_server(folder=folder) as server:
        sandboxes = server.data / "sandboxes"
        with rest_client(server) as client, ThreadPoolExecutor(1) as pool:
            put(client, "echo", ECHO)
            sandboxes.rmdir()
            sandboxes.write_text("in the way")
            waiting = pool.submit(invoke, client, "echo", {"n": 1})
            server.wait_for_output("was not created: .*Not a directory")
            sandboxes.unlink()
            sandboxes.mkdir()
            assert waiting.result().json()["response"]["result"] == {"n": 1}


# --- bounds --------------------------------------------------------------------------------------


def most_while(work: Callable[[], object], measure: Callable[[], int]) -> int:
    """Return the largest measurement while the work is done."""
    most = 0
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while not working.done():
            most = max(most, measure())
        working.result()
    return most


def test_the_cap_of_containers_holds_and_everybody_is_served() -> None:
    with running_server("--containers", "2") as server, rest_client(server) as client:
        put(client, "echo", ECHO)

        def load() -> None:
            with ThreadPoolExecutor(64) as pool:
                replies = list(pool.map(lambda n: invoke(client, "echo", {"n": n}), range(64)))
            results = [reply.json()["response"]["result"] for reply in replies]
            assert results == [{"n": n} for n in range(64)]

        most = most_while(load, lambda: status(client)["containers"])
        assert most <= 2
        assert 1 <= status(client)["containers_created"] <= 2


def test_idle_containers_make_room_for_other_actions() -> None:
    with running_server("--memory", "512") as server, rest_client(server) as client:
        for name in "abc":
            put(client, name, ECHO)

        def load() -> None:
            for turn in range(3):
                for name in "abc":
                    reply = invoke(client, name, {"turn": turn}, "&result=true")
                    assert (reply.status_code, reply.json()) == (200, {"turn": turn})

        assert most_while(load, lambda: len(processes(server))) <= 2
        assert json.loads(client.get("acs/status").text)["containers"] <= 2
