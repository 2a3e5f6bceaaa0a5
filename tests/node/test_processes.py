"""Proxies that are forked from a template: what they are, and what becomes of them without it."""

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("node.runtime_cases")

from node.runtime_cases import Container  # noqa: E402
from node.test_process_sandbox import FAMILY, alive, result, spec  # noqa: E402
from waiting import wait_until  # noqa: E402

from acs_node.runtimes import PYTHON_PROXY, PYTHON_TEMPLATE  # noqa: E402
from acs_node.sandboxes import SandboxError, process, processes  # noqa: E402
from acs_node.sandboxes.process import OPTIONS, ProcessEngine  # noqa: E402
from acs_node.sandboxes.processes import Template  # noqa: E402

ECHO = "def main(args):\n    return args\n"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="acs-") as folder:
        yield Path(folder)


@pytest.fixture
async def engine(data_dir: Path) -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine(data_dir)
    yield engine
    await engine.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def pid_of(container: Container) -> int:
    pid = (await result(container, "import os\ndef main(args):\n    return [os.getpid()]\n"))[0]
    assert isinstance(pid, int)
    return pid


async def test_proxies_share_a_template_and_nothing_else(engine: ProcessEngine) -> None:
    code = """
import os, sys
def main(args):
    fds = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")]
    with open("/proc/self/environ") as file:
        shown = file.read().strip("\\0").split("\\0")
    return {"pid": os.getpid(), "fds": [fd for fd in fds if "socket" in fd], "shown": shown,
            "environ": sorted(f"{k}={v}" for k, v in os.environ.items() if "__OW" not in k),
            "main": sys.modules["__main__"].__name__, "argv": sys.argv[1:],
            "input": sys.stdin.read()}
"""
    seen = []
    for name in ("c1", "c2"):
        sandbox = await engine.start(spec(name, GIVEN=name))
        seen.append(await result(Container(sandbox), code))
    first, second = seen
    assert parent(first["pid"]) == parent(second["pid"]) != os.getpid()
    for name, of_one in zip(("c1", "c2"), seen, strict=True):
        assert len(of_one["fds"]) == 2, "its listener and the host's connection"
        assert f"GIVEN={name}" in of_one["environ"]
        assert of_one["shown"][0] == f"HOME={engine.folder / name / 'work'}"
        assert sorted(of_one["shown"]) == of_one["environ"]
        assert of_one["main"] == "__main__"
        assert of_one["argv"] == [str(engine.folder / name)]
        assert of_one["input"] == ""


async def test_an_environment_without_room_still_shows_whose_it_is(engine: ProcessEngine) -> None:
    sandbox = await engine.start(spec(LARGE="x" * 3 * processes.ROOM_BYTES))
    code = """
import os
def main(args):
    with open("/proc/self/environ") as file:
        return {"shown": file.read().split("\\0")[0], "size": len(os.environ["LARGE"])}
"""
    assert await result(Container(sandbox), code) == {
        "shown": f"HOME={engine.folder / 'c1' / 'work'}",
        "size": 3 * processes.ROOM_BYTES,
    }


async def test_a_killed_template_is_replaced_and_its_proxies_live_on(
    engine: ProcessEngine, data_dir: Path
) -> None:
    old = Container(await engine.start(spec("old")))
    dying = Container(await engine.start(spec("dying")))
    pids = await result(old, FAMILY, {"children": 1})
    dying_pid = await pid_of(dying)
    template = parent(pids[0])
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: parent(pids[0]) != template, "the end of the template")

    assert (await old.init(ECHO))[0] == 403, "it answers"
    with pytest.raises(SandboxError, match="could not be started"):
        await engine.start(spec("c1"))
    new = Container(await engine.start(spec("c2")))
    assert await result(new, ECHO, {"a": 1}) == {"a": 1}

    os.kill(dying_pid, signal.SIGKILL)
    assert (await engine.ending(dying.sandbox)).cause == processes.LOST
    for container in (old, dying, new):
        await engine.remove(container.sandbox)
    wait_until(lambda: not any(map(alive, pids)), "the end of the process group")
    assert list((data_dir / "sandboxes").iterdir()) == []


async def test_a_template_that_does_not_answer_is_given_up(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await pid_of(Container(await engine.start(spec("first"))))
    assert engine._template is not None
    engine._template._socket.settimeout(0.05)
    os.kill(parent(pid), signal.SIGSTOP)
    with pytest.raises(SandboxError, match="could not be started: timed out"):
        await engine.start(spec("c1"))
    assert await result(Container(await engine.start(spec("c2"))), ECHO, {"a": 1}) == {"a": 1}


async def test_a_template_that_does_not_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = data_dir / "template.py"
    broken.write_text("raise SystemExit('no room')\n")
    monkeypatch.setattr(process, "PYTHON_TEMPLATE", broken)
    engine = ProcessEngine(data_dir)
    descriptors = None
    for number in range(3):
        with pytest.raises(
            SandboxError, match="the template of the proxies ended; it said: no room"
        ):
            await engine.start(spec(f"c{number}"))
        assert list((data_dir / "sandboxes").iterdir()) == []
        descriptors = descriptors or len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) == descriptors
    monkeypatch.setattr(process, "PYTHON_TEMPLATE", PYTHON_TEMPLATE)
    assert await result(Container(await engine.start(spec())), ECHO, {"a": 1}) == {"a": 1}
    await engine.close()


def test_no_interpreter() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/python"):
        Template(["/no/such/python"])


def test_what_a_template_refuses(data_dir: Path) -> None:
    template = Template([sys.executable, *OPTIONS, str(PYTHON_TEMPLATE), str(PYTHON_PROXY)])
    try:
        with pytest.raises(processes.TemplateError, match="ChildProcessError"):
            template.ended(1, reap=False)
        assert not template.broken
    finally:
        template.close()
    template.close()
    with pytest.raises(OSError):
        template.ended(1, reap=False)
