"""The process engine: starting, limits, removal, and what a crash leaves."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import DEADLINE_S, Container  # noqa: E402
from waiting import wait_until  # noqa: E402

from acs_node.sandboxes import EngineUnavailable, SandboxError, SandboxSpec, process  # noqa: E402
from acs_node.sandboxes.process import ProcessEngine  # noqa: E402


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        yield Path(folder)


@pytest.fixture
async def engine(data_dir: Path) -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine(data_dir)
    yield engine
    await engine.close()


def spec(container: str = "c1", memory_mb: int = 256, **environment: str) -> SandboxSpec:
    return SandboxSpec(container, "python:3", memory_mb, environment)


def alive(pid: int) -> bool:
    """Say whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def result(container: Container, code: str, value: object = None) -> object:
    """Initialise and run ``code`` and return its result."""
    assert await container.init(code) == (200, {"ok": True})
    status, body = await container.run(value)
    assert status == 200, body
    return body


async def test_the_environment_holds_nothing_of_the_platform(
    engine: ProcessEngine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("LANG", "C.UTF-8")
    container = Container(await engine.start(spec(GIVEN="yes", HOME="/elsewhere")))
    code = "import os\nSEEN = dict(os.environ)\ndef main(args):\n    return SEEN\n"
    folder = data_dir / "sandboxes" / "c1"
    assert await result(container, code) == {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "GIVEN": "yes",
        "HOME": str(folder / "work"),
        "TMPDIR": str(folder / "tmp"),
    }


async def test_where_a_function_works(engine: ProcessEngine, data_dir: Path) -> None:
    container = Container(await engine.start(spec()))
    code = """
import os, sys, tempfile
def main(args):
    with open("scratch", "w") as file:
        file.write("x")
    fds = {os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")[:3]}
    return {"cwd": os.getcwd(), "tmp": tempfile.gettempdir(), "session": os.getsid(0),
            "pid": os.getpid(), "site": [p for p in sys.path if "site-packages" in p]}
"""
    seen = await result(container, code)
    folder = data_dir / "sandboxes" / "c1"
    assert isinstance(seen, dict)
    assert seen["cwd"] == str(folder / "work")
    assert seen["tmp"] == str(folder / "tmp")
    assert seen["session"] == seen["pid"]
    assert seen["site"] == [], "the platform's own packages are not for functions"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (data_dir / "sandboxes").stat().st_mode & 0o777 == 0o700


async def test_limits(engine: ProcessEngine) -> None:
    container = Container(await engine.start(spec(memory_mb=128)))
    code = """
import resource as r
def main(args):
    names = ["RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_FSIZE"]
    limits = {name: r.getrlimit(getattr(r, name)) for name in names}
    errors = []
    for attempt in (lambda: bytearray(200 * 1024 * 1024), too_large_file):
        try:
            attempt()
        except (MemoryError, OSError) as error:
            errors.append(type(error).__name__)
    return {"limits": limits, "errors": errors}
def too_large_file():
    with open("large", "wb") as file:
        file.truncate(600 * 1024 * 1024)
"""
    seen = await result(container, code)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 1024 if hard == resource.RLIM_INFINITY else min(1024, hard)
    assert seen == {
        "limits": {
            "RLIMIT_DATA": [128 * 1024 * 1024] * 2,
            "RLIMIT_NOFILE": [files] * 2,
            "RLIMIT_CORE": [0, 0],
            "RLIMIT_FSIZE": [process.FILE_BYTES_MAX] * 2,
        },
        "errors": ["MemoryError", "OSError"],
    }
    assert await container.run() == (200, seen), "the container outlives it"


def session_nice(pid: int | str) -> str | None:
    """Return how nice the session is.

    None where the kernel does not share by sessions, and for a process that nobody in its line
    has given a session: the file is there then, and empty.
    """
    try:
        said = Path(f"/proc/{pid}/autogroup").read_text()
    except FileNotFoundError:
        return None
    return said.split(" nice ")[1].strip() if said else None


@pytest.mark.parametrize("nice", [process.NICE, 99])
async def test_a_functions_session_comes_after_the_platforms(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch, nice: int
) -> None:
    monkeypatch.setattr(process, "NICE", nice)  # 99 is none that the kernel takes
    before = session_nice("self")
    container = Container(await engine.start(spec()))
    pid = await result(container, "import os\ndef main(args):\n    return {'pid': os.getpid()}")
    anothers = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        untouched = session_nice(anothers.pid)
    finally:
        anothers.kill()
        anothers.wait()
    assert session_nice(pid["pid"]) == (str(nice) if untouched and nice != 99 else untouched)
    assert session_nice("self") == before


FAMILY = """
import os, signal, sys
def main(args):
    pids = [os.getpid()]
    for own_session in (False, True)[: args["children"]]:
        pid = os.fork()
        if pid == 0:
            if own_session:
                os.setsid()
            while True:
                signal.pause()
        pids.append(pid)
    os.mkdir("closed")
    open("closed/file", "w").close()
    os.chmod("closed", 0)
    return pids
"""


async def test_removal_takes_children_files_and_descriptors(
    engine: ProcessEngine, data_dir: Path
) -> None:
    await engine.remove(await engine.start(spec("first")))  # with it comes the template
    descriptors = len(os.listdir("/proc/self/fd"))
    container = Container(await engine.start(spec()))
    pids = await result(container, FAMILY, {"children": 1})
    assert isinstance(pids, list)
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    await asyncio.gather(engine.remove(container.sandbox), engine.remove(container.sandbox))
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of the process group")
    assert not Path(f"/proc/{pids[0]}").exists(), "reaped"
    assert list((data_dir / "sandboxes").iterdir()) == []
    assert (await engine.ending(container.sandbox)).cause == "was killed by SIGKILL"
    container.http.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_children_of_a_proxy_that_died_are_removed_too(engine: ProcessEngine) -> None:
    container = Container(await engine.start(spec()))
    pids = await result(container, FAMILY, {"children": 1})
    assert isinstance(pids, list)
    os.kill(pids[0], signal.SIGSEGV)
    ending = await engine.ending(container.sandbox)
    assert (ending.cause, ending.out_of_memory) == ("was killed by SIGSEGV", False)
    assert alive(pids[1])
    await engine.remove(container.sandbox)
    wait_until(lambda: not alive(pids[1]), "the end of the child")
    assert (await engine.ending(container.sandbox)).cause == "was killed by SIGSEGV"


async def test_the_ending_of_one_that_runs(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ENDING_SECONDS", 0.01)
    sandbox = await engine.start(spec())
    assert (await engine.ending(sandbox)).cause == "still runs"


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_pause_stops_the_process_group_and_resume_lets_it_run(engine: ProcessEngine) -> None:
    container = Container(await engine.start(spec()))
    pids = await result(container, FAMILY, {"children": 1})
    assert isinstance(pids, list)
    for _ in range(2):
        await engine.pause(container.sandbox)
        wait_until(lambda: all(map(stopped, pids)), "the stop of proxy and child")
        await engine.resume(container.sandbox)
        wait_until(lambda: not any(map(stopped, pids)), "that they go on")
    assert (await container.init(FAMILY))[0] == 403, "it answers"


async def test_a_paused_sandbox_is_removed_with_its_children(
    engine: ProcessEngine, data_dir: Path
) -> None:
    container = Container(await engine.start(spec()))
    pids = await result(container, FAMILY, {"children": 1})
    assert isinstance(pids, list)
    await engine.pause(container.sandbox)
    await engine.remove(container.sandbox)
    wait_until(lambda: not any(map(alive, pids)), "the end of the process group")
    assert list((data_dir / "sandboxes").iterdir()) == []


async def test_one_that_ended_is_neither_paused_nor_resumed(engine: ProcessEngine) -> None:
    sandbox = await engine.start(spec())
    await engine.pause(sandbox)
    os.kill(int((engine.folder / "c1" / "pid").read_text().split()[0]), signal.SIGKILL)
    assert (await engine.ending(sandbox)).cause == "was killed by SIGKILL"
    message = "container c1: the proxy was killed by SIGKILL"
    with pytest.raises(SandboxError, match=message):
        await engine.resume(sandbox)
    await engine.remove(sandbox)
    with pytest.raises(SandboxError, match=message):
        await engine.pause(sandbox)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (spec("../up"), "container '../up' does not match"),
        (spec(".."), "container '..' does not match"),
        (spec("c" * 101), "does not match"),
        (SandboxSpec("c1", "ruby:3", 256), "kind 'ruby:3': the process sandbox runs only"),
        (spec(memory_mb=0), "memory_mb 0"),
        (
            SandboxSpec("c1", "python:3", 256, network=False),
            "the process sandbox cannot keep an action from the network",
        ),
        (spec("c" * 90), "bytes, the limit is 107"),
    ],
)
async def test_specs_that_are_refused(
    engine: ProcessEngine, data_dir: Path, wrong: SandboxSpec, message: str
) -> None:
    with pytest.raises(SandboxError) as caught:
        await engine.start(wrong)
    assert message in str(caught.value)
    assert caught.value.final
    assert list((data_dir / "sandboxes").iterdir()) == []


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("/no/such/python", "No such file or directory: '/no/such/python'"),
        ("exit 3", "the proxy does not listen: it exited with status 3; it said: nothing"),
        ("echo out of order >&2; exit 1", "it exited with status 1; it said: "),
        ("kill -9 $$", "it was killed by SIGKILL"),
        ("exec sleep 1000", "it still runs; it said: nothing"),
    ],
)
async def test_a_proxy_that_does_not_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    monkeypatch.setattr(process, "START_SECONDS", 0.2 if "sleep" in program else DEADLINE_S)
    if not program.startswith("/"):
        script = data_dir / "python"
        script.write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o700)
        program = str(script)
    engine = ProcessEngine(data_dir, python=program)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError) as caught:
        await engine.start(spec())
    assert message in str(caught.value)
    assert not caught.value.final
    assert list((data_dir / "sandboxes").iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    await engine.close()


async def test_what_a_failed_start_said_is_in_the_error(data_dir: Path) -> None:
    script = data_dir / "python"
    script.write_text("#!/bin/sh\necho libc is missing >&2\nexit 1\n")
    script.chmod(0o700)
    engine = ProcessEngine(data_dir, python=str(script))
    with pytest.raises(SandboxError, match="libc is missing"):
        await engine.start(spec())
    await engine.close()


async def test_an_environment_that_no_process_can_have(engine: ProcessEngine) -> None:
    with pytest.raises(SandboxError, match="embedded null byte"):
        await engine.start(SandboxSpec("c1", "python:3", 256, {"A": "\0"}))


async def test_a_container_starts_once(engine: ProcessEngine, data_dir: Path) -> None:
    await engine.start(spec())
    with pytest.raises(SandboxError, match="container c1 exists already"):
        await engine.start(spec())
    (data_dir / "sandboxes" / "c2").mkdir()
    with pytest.raises(SandboxError, match=r"c2 could not be started: .* File exists"):
        await engine.start(spec("c2"))
    assert (data_dir / "sandboxes" / "c2").exists(), "a folder of somebody else stays"


async def test_limits_that_cannot_be_set(
    engine: ProcessEngine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = []

    def refuse(pid: int, *rest: object) -> None:
        pids.append(pid)
        raise PermissionError("no limits here")

    monkeypatch.setattr(process.resource, "prlimit", refuse)
    with pytest.raises(SandboxError, match="no limits here"):
        await engine.start(spec())
    assert not Path(f"/proc/{pids[0]}").exists()
    assert list((data_dir / "sandboxes").iterdir()) == []


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_cancelled_start_leaves_nothing(
    engine: ProcessEngine, data_dir: Path, turns: int
) -> None:
    starting = asyncio.create_task(engine.start(spec()))
    for _ in range(turns):
        await asyncio.wait([starting], timeout=0.001)
    starting.cancel()
    try:
        sandbox = await starting
    except asyncio.CancelledError:
        assert engine._children == {}
    else:
        await engine.remove(sandbox)
    assert list((data_dir / "sandboxes").iterdir()) == []


async def test_close_also_ends_starts_under_way(data_dir: Path) -> None:
    engine = ProcessEngine(data_dir)
    await engine.start(spec("done"))
    starting = [asyncio.create_task(engine.start(spec(f"c{i}"))) for i in range(8)]
    _, pending = await asyncio.wait(starting, timeout=0.001)
    await engine.close()
    await engine.close()
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, SandboxError)] == []
    assert list((data_dir / "sandboxes").iterdir()) == []
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.start(spec("late"))


async def test_a_kernel_without_pidfd(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(EngineUnavailable, match=r"Linux 5\.3"):
        ProcessEngine(data_dir)


HOST = """
import asyncio, json, os, signal, sys
from node.runtime_cases import Container
from acs_node.sandboxes import SandboxSpec
from acs_node.sandboxes.process import ProcessEngine
from node.test_process_sandbox import FAMILY
async def main():
    engine = ProcessEngine(sys.argv[1])
    container = Container(await engine.start(SandboxSpec("crashed", "python:3", 256)))
    await container.init(FAMILY)
    print(json.dumps((await container.run({"children": 2}))[1]), flush=True)
    if sys.argv[2] == "paused":
        await engine.pause(container.sandbox)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["awake", "paused"])
async def test_what_a_crash_leaves_is_removed(
    engine: ProcessEngine, data_dir: Path, how: str
) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    crashed = subprocess.run(
        [sys.executable, "-c", HOST, str(data_dir), how],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert crashed.returncode == -signal.SIGKILL
    pids = json.loads(crashed.stdout)
    assert len(pids) == 3
    if how == "awake":
        wait_until(lambda: not alive(pids[0]), "the end of the proxy, by its leash")
    assert alive(pids[1])
    assert alive(pids[2])
    mine = await engine.start(spec("mine"))
    assert await engine.remove_leftovers() == 1
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of the strays")
    assert [entry.name for entry in (data_dir / "sandboxes").iterdir()] == ["mine"]
    assert await engine.remove_leftovers() == 0
    assert (await Container(mine).init("def main(args):\n    return {}\n"))[0] == 200


@pytest.mark.parametrize("content", ["own", "recycled", "", "12 x", "999999999 1", None])
async def test_pid_files(engine: ProcessEngine, data_dir: Path, content: str | None) -> None:
    left = data_dir / "sandboxes" / "left"
    left.mkdir()
    # Its environment does not name the folder, so only the pid file can lead to it.
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as bystander:
        started = process._start_time(bystander.pid)
        if content == "own":
            content = f"{bystander.pid} {started}\n"
        elif content == "recycled":
            content = f"{bystander.pid} {started - 1}\n"
        if content is not None:
            (left / "pid").write_text(content)
        assert await engine.remove_leftovers() == 1
        try:
            if content == f"{bystander.pid} {started}\n":
                assert bystander.wait(DEADLINE_S) == -signal.SIGKILL
            else:
                assert bystander.poll() is None, "a recycled pid belongs to somebody else"
        finally:
            with suppress(ProcessLookupError):
                bystander.kill()
    assert not left.exists()


async def test_starts_run_side_by_side(engine: ProcessEngine) -> None:
    sandboxes = await asyncio.gather(*(engine.start(spec(f"c{i}")) for i in range(12)))
    containers = [Container(sandbox) for sandbox in sandboxes]
    for number, container in enumerate(containers):
        code = f"def main(args):\n    return {{'number': {number}}}\n"
        assert await result(container, code) == {"number": number}
