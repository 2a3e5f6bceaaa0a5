"""Sandboxes that are child processes.  THEY ISOLATE NOTHING.

A function here is a program of the user who runs the platform: it reads his files, talks to his
network, and can signal the platform itself.  What there is, is tidiness: limits on what one
process may take by mistake, a folder of its own, an environment without the platform's secrets,
and removal of its process group.  A function that leaves its process group (setsid) outlives its
container; ``remove_leftovers`` of the next start finds it by its environment.  It is not paused
either.  A paused proxy does not see that the platform was killed: it stays until that next start.

The memory limit holds for each process, not for the container's sum, and is met with a
MemoryError inside the function, so ``out_of_memory`` is never known here.

Needs Linux 5.3 (pidfd), and for the nodejs kinds a ``node`` in PATH.  The proxies' contract is in
``acs_node/runtimes/python/proxy.py``; how proxies become processes, in ``processes.py``.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock

from acs_core.processors import LoopProcessor
from acs_node.runtimes import NODEJS_PROXY, PYTHON_PROXY, PYTHON_TEMPLATE, find_node

from . import EngineUnavailable, Sandbox, SandboxEnd, SandboxError, SandboxSpec
from .leash import Leash
from .logpipes import LogPipes
from .processes import LOST, Process, Spawned, Template

OPTIONS = ("-I", "-B", "-S", "-X", "utf8")  # why: the head of proxy.py

STARTS_MAX = 4  # proxies that start at once: each takes 2 ms of a core, a program 10-20
START_SECONDS = 10.0  # from spawn to listening: 20 ms, or seconds on a machine that swaps
END_SECONDS = 5.0  # from SIGKILL to the end: only a process stuck in the kernel takes longer
ENDING_SECONDS = 2.0  # the interface's bound on ``ending``
DELETE_TRIES = 6  # of a folder; the pauses between them double from 10 ms
SOCKET_PATH_BYTES_MAX = 107  # sun_path without its closing zero
LOOK_SECONDS = 0.5  # between two looks at how busy the event loop is
NICE = 5  # of functions, above the platform's own; 6 % more throughput on two busy processors
OPEN_FILES_MAX = 1024  # as a container of OpenWhisk gets
FILE_BYTES_MAX = 512 * 1024 * 1024  # of one file; Python sees OSError (EFBIG), not the signal
SAID_CHARACTERS_MAX = 2_000  # of a failed start's output, in the error
# Beside its heap node needs the stacks of ten threads, 8 MB each, and code; the heap itself gets
# what the action may have, and node ends when that is full.
NODE_ROOM_MB = 256

_RUNS = "still runs"
_CONTAINER = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,100}")  # "." and ".." are no folder's names


class ProcessEngine:
    """The engine ``process``: action proxies as child processes, in ``data_dir/sandboxes``.

    ``python`` runs the proxies (3.9 or later), each as a program of its own; by default they are
    forked from a template in the platform's interpreter, without its site-packages.  One engine
    at a time may use a ``data_dir``.  Kinds: ``python:*``, and ``nodejs:*`` with the ``node`` that
    PATH names, whatever its version.  ``silence_s``: see ``Leash``.
    """

    name = "process"

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        python: str | None = None,
        silence_s: float = 0.0,
    ) -> None:
        """Raises: EngineUnavailable where there is no pidfd; OSError for an unusable folder."""
        if not hasattr(os, "pidfd_open"):
            raise EngineUnavailable("The process sandbox needs Linux 5.3 or later (pidfd).")
        self.folder = Path(data_dir).absolute() / "sandboxes"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._python = python
        self._leash = Leash(silence_s)
        self._template: Template | None = None
        self._template_lock = Lock()
        self._children: dict[str, _Child] = {}
        self._starts = asyncio.Semaphore(STARTS_MAX)
        # Folders and processes are made and removed here: the event loop waits for neither.
        self._threads = ThreadPoolExecutor(STARTS_MAX, thread_name_prefix="acs-process")
        self._early: Future[Template] | None = None
        if python is None:
            # Ahead of need.  Should it fail, the first start tries again, and says why.
            self._early = self._threads.submit(self._ready_template)
        self._closed = False
        self._processors = LoopProcessor(os.sched_getaffinity(0))
        self._look: asyncio.TimerHandle | None = None

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Start a proxy and return once it listens; see ``SandboxEngine``."""
        socket_path = self._checked_socket_path(spec)
        async with self._starts:
            if self._closed:
                raise EngineUnavailable("The process sandbox is closed.")
            if spec.container in self._children:
                raise SandboxError(f"container {spec.container} exists already", final=True)
            starter = self._starter(spec)
            child = _Child(spec, self.folder / spec.container, self._leash)
            self._children[spec.container] = child
            loop = asyncio.get_running_loop()
            child.spawning = loop.run_in_executor(self._threads, child.spawn, starter)
            try:
                # Shielded, as is the removal: a start that is cancelled leaves nothing either.
                logs = await asyncio.shield(child.spawning)
                self._leash.hold(str(child.folder))
                child.confine(self._processors.for_functions)
                if self._look is None:
                    self._look_at_loop()
                await child.listening(logs)
                if self._closed:
                    raise EngineUnavailable("The process sandbox is closed.")
            except BaseException as error:
                await self._removed(child)
                if isinstance(error, (OSError, ValueError)):
                    message = f"container {spec.container} could not be started: {error}"
                    raise SandboxError(message) from error
                raise
        return Sandbox(spec, socket_path, logs, child)

    async def pause(self, sandbox: Sandbox) -> None:
        """Stop the process group; see ``SandboxEngine``."""
        assert isinstance(sandbox.handle, _Child)
        sandbox.handle.signal(signal.SIGSTOP)

    async def resume(self, sandbox: Sandbox) -> None:
        """Let the process group continue; see ``SandboxEngine``."""
        assert isinstance(sandbox.handle, _Child)
        sandbox.handle.signal(signal.SIGCONT)

    async def remove(self, sandbox: Sandbox) -> None:
        """Kill the process group, reap the proxy, delete the folder; see ``SandboxEngine``.

        Raises: SandboxError if the process or the folder resists for seconds; call again.
        """
        assert isinstance(sandbox.handle, _Child)
        await self._removed(sandbox.handle)

    async def ending(self, sandbox: Sandbox) -> SandboxEnd:
        """Say how the proxy ended; see ``SandboxEngine``."""
        child = sandbox.handle
        assert isinstance(child, _Child)
        await asyncio.wait([child.ended], timeout=ENDING_SECONDS)
        return SandboxEnd(child.ending())

    async def remove_leftovers(self) -> int:
        """Kill and delete what the data folder holds of earlier engines; see ``SandboxEngine``."""
        loop = asyncio.get_running_loop()
        mine = frozenset(self._children)
        return await loop.run_in_executor(self._threads, _remove_leftovers, self.folder, mine)

    async def close(self) -> None:
        """Remove every sandbox, also those that are being started; idempotent."""
        self._closed = True
        while self._children:
            await asyncio.gather(*map(self._removed, list(self._children.values())))
        if self._look is not None:
            self._look.cancel()
        self._processors.share()
        self._pin_loop()
        self._leash.close()
        if self._early is not None:
            await asyncio.gather(asyncio.wrap_future(self._early), return_exceptions=True)
        self._threads.shutdown(wait=False)
        if self._template is not None:
            self._template.close()

    def _starter(self, spec: SandboxSpec) -> Callable[[Path, Path, dict[str, str]], Process]:
        """Return what starts a proxy of the kind.  Raises: SandboxError."""
        family = spec.kind.partition(":")[0]
        if family == "python":
            return self._python_proxy
        if family != "nodejs":
            message = f"kind {spec.kind!r}: the process sandbox runs only python and nodejs kinds"
            raise SandboxError(message, final=True)
        node = find_node()
        heap = f"--max-old-space-size={spec.memory_mb}"
        return lambda folder, work, environment: Spawned(
            [node, heap, str(NODEJS_PROXY), str(folder)], folder, work, environment
        )

    def _python_proxy(self, folder: Path, work: Path, environment: dict[str, str]) -> Process:
        """Start a proxy in its folder.  Blocks.  Raises: OSError, ValueError."""
        if self._python is not None:
            command = [self._python, *OPTIONS, str(PYTHON_PROXY), str(folder)]
            return Spawned(command, folder, work, environment)
        return self._ready_template().fork(folder, work, environment)

    def _ready_template(self) -> Template:
        """Return a template that answers, a new one if need be.  Blocks.  Raises: OSError."""
        with self._template_lock:
            if self._template is not None and self._template.broken:
                self._template.close()
                self._template = None
            if self._template is None:
                self._template = Template(
                    [sys.executable, *OPTIONS, str(PYTHON_TEMPLATE), str(PYTHON_PROXY)]
                )
            return self._template

    def _checked_socket_path(self, spec: SandboxSpec) -> str:
        if not _CONTAINER.fullmatch(spec.container):
            message = f"container {spec.container!r} does not match {_CONTAINER.pattern}"
            raise SandboxError(message, final=True)
        if not spec.network:
            message = "the process sandbox cannot keep an action from the network"
            raise SandboxError(message, final=True)
        if spec.memory_mb <= 0:
            raise SandboxError(f"memory_mb {spec.memory_mb}: it must be above 0", final=True)
        path = str(self.folder / spec.container / "run.sock")
        size = len(os.fsencode(path))
        if size > SOCKET_PATH_BYTES_MAX:
            message = f"socket path {path} has {size} bytes, the limit is {SOCKET_PATH_BYTES_MAX}"
            raise SandboxError(f"{message}: use a data folder with a shorter path", final=True)
        return path

    async def _removed(self, child: _Child) -> None:
        """Wait until ``child`` is removed; one removal is under way, whoever waits for it."""
        if child.removal is None or (child.removal.done() and not self._gone(child)):
            child.removal = asyncio.create_task(self._remove(child))
        await asyncio.shield(child.removal)

    def _look_at_loop(self) -> None:
        """Keep functions off the loop's processor, and the loop on it, while the loop is busy."""
        self._look = None
        if not self._children:
            self._processors.share()
            self._pin_loop()
            return
        if self._processors.look(time.monotonic_ns() // 1000, time.thread_time_ns() // 1000):
            for child in self._children.values():
                child.confine(self._processors.for_functions)
        self._pin_loop()
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_at_loop)

    def _pin_loop(self) -> None:
        """Keep this thread, the loop's, where it belongs, and the process's others off it."""
        if os.sched_getaffinity(0) != self._processors.for_loop:
            os.sched_setaffinity(0, self._processors.for_loop)
        if self._processors.for_loop == self._processors.available:
            return
        mine = threading.get_native_id()
        for thread in map(int, os.listdir("/proc/self/task")):
            # One that the loop has started meanwhile began where the loop is.
            with suppress(OSError):  # it is ending
                if thread != mine and os.sched_getaffinity(thread) == self._processors.for_loop:
                    os.sched_setaffinity(thread, self._processors.available)

    def _gone(self, child: _Child) -> bool:
        return self._children.get(child.spec.container) is not child

    async def _remove(self, child: _Child) -> None:
        if self._gone(child):
            return
        await child.kill()
        self._leash.drop(str(child.folder))
        if not child.foreign_folder:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, _delete, child.folder)
        del self._children[child.spec.container]


class _Child:
    """One proxy process with its folder and pipes, from spawn to removal."""

    def __init__(self, spec: SandboxSpec, folder: Path, leash: Leash) -> None:
        loop = asyncio.get_running_loop()
        self._leash = leash
        self.spec = spec
        self.folder = folder
        self.foreign_folder = False
        self.spawning: asyncio.Future[LogPipes] | None = None
        self.removal: asyncio.Task[None] | None = None
        self.ended: asyncio.Future[None] = loop.create_future()
        self._logs: LogPipes | None = None
        self._process: Process | None = None
        self._pidfd = -1
        self._how = ""

    def spawn(self, start: Callable[[Path, Path, dict[str, str]], Process]) -> LogPipes:
        """Make the folder and start the process.  Blocks for about 2 ms; runs in a thread."""
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            self.foreign_folder = True  # a leftover, which is not ours to delete
            raise
        work = self.folder / "work"
        work.mkdir(mode=0o700)
        temporary = self.folder / "tmp"
        temporary.mkdir(mode=0o700)
        self._leash.put(str(self.folder))
        self._logs = LogPipes.create(str(self.folder))
        self._process = start(
            self.folder,
            work,
            {
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": os.environ.get("LANG", "C.UTF-8"),
                **self.spec.environment,
                "HOME": str(work),  # remove_leftovers knows strays by it
                "TMPDIR": str(temporary),
            },
        )
        pid = self._process.pid
        try:
            self._limit(pid)
            (self.folder / "pid").write_text(f"{pid} {_start_time(pid)}\n")
            self._pidfd = os.pidfd_open(pid)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            self._process.reap()
            raise
        return self._logs

    def _limit(self, pid: int) -> None:
        # From outside and after the start: no user code runs before the host connects, and a
        # preexec_fn would turn the vfork() of Popen into a fork() of the whole platform.
        memory_mb = self.spec.memory_mb
        if self.spec.kind.startswith("nodejs"):
            memory_mb += NODE_ROOM_MB
        limits = {
            # Private writable memory.  The address space would be the wrong measure: libraries,
            # thread stacks and malloc's arenas reserve far more of it than they ever use.
            resource.RLIMIT_DATA: memory_mb * 1024 * 1024,
            resource.RLIMIT_NOFILE: OPEN_FILES_MAX,
            resource.RLIMIT_FSIZE: FILE_BYTES_MAX,
            resource.RLIMIT_CORE: 0,
            # Not RLIMIT_NPROC: it counts all processes of the user, not those of the container.
        }
        for which, limit in limits.items():
            _, hard = resource.prlimit(pid, which)
            if hard != resource.RLIM_INFINITY:
                limit = min(limit, hard)
            resource.prlimit(pid, which, (limit, limit))
        # Where both want the processor the platform comes first: it serves all functions.
        os.setpriority(os.PRIO_PROCESS, pid, NICE)

    def confine(self, processors: frozenset[int]) -> None:
        """Let the proxy, with all of its threads, run on ``processors`` only.

        What a function has started as a process of its own keeps what it was started with.
        """
        if self._process is None or self._process.reaped:
            return  # the number of one that was reaped may be another's
        with suppress(OSError):  # it is ending
            for thread in os.listdir(f"/proc/{self._process.pid}/task"):
                os.sched_setaffinity(int(thread), processors)

    async def listening(self, logs: LogPipes) -> None:
        """Wait until the proxy listens.  Raises: SandboxError if it ends or takes too long."""
        self._watch()
        ready = asyncio.create_task(logs.ready())
        try:
            await asyncio.wait(
                [ready, self.ended], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if ready.done() and ready.exception() is None:
                self._give_way()
                return
            said = "\n".join(logs.take_rest(time.time_ns()))[-SAID_CHARACTERS_MAX:]
            message = f"container {self.spec.container}: the proxy does not listen: it"
            raise SandboxError(f"{message} {self.ending()}; it said: {said or 'nothing'}")
        finally:
            ready.cancel()
            await asyncio.wait([ready])

    def _give_way(self) -> None:
        """Have the functions' sessions come after the platform's.

        Where the kernel groups processes by session (``sched_autogroup_enabled``), each session
        gets the same share of a processor and ``nice`` counts within one alone: a hundred
        containers would get a hundred shares beside the platform's one.  Only when the proxy
        listens, since until then it may still be in the session of who forked it.
        """
        assert self._process is not None
        # Without this file, or with a kernel that lets only root set it often, it stays as it is.
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/autogroup").write_text(str(NICE))

    def ending(self) -> str:
        """Say what became of the process, in words that complete "it ..."."""
        if self._process is None:
            return "was never started"
        if not self._how:
            if self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]:
                return _RUNS
            self._how = self._process.ending() or ""
        return self._how or _RUNS

    def signal(self, number: signal.Signals) -> None:
        """Signal the process group.  Raises: SandboxError if the proxy has ended."""
        ending = self.ending()  # not ``ended``: that becomes done a turn of the loop later
        if self._process is None or ending != _RUNS:
            raise SandboxError(f"container {self.spec.container}: the proxy {ending}")
        os.killpg(self._process.pid, number)

    async def kill(self) -> None:
        """End the whole process group and close the pipes.  Raises: SandboxError after 5 s."""
        if self.spawning is not None:
            await asyncio.wait([self.spawning])
            self.spawning.exception()  # was the start's to raise; one that is cancelled cannot
        if self._process is not None and not self._process.reaped:
            self._watch()
            if self.ending() != LOST:  # else the number may be another's
                for kill in (os.killpg, os.kill):  # just forked, it leads no group yet
                    with suppress(ProcessLookupError):
                        kill(self._process.pid, signal.SIGKILL)
            await asyncio.wait([self.ended], timeout=END_SECONDS)
            if not self.ended.done():
                message = f"container {self.spec.container}: process {self._process.pid}"
                raise SandboxError(f"{message} did not end within {END_SECONDS:g} s of SIGKILL")
            self.ending()
            self._process.reap()
        elif not self.ended.done():
            self.ended.set_result(None)
        if self._logs is not None:
            self._logs.close()

    def _watch(self) -> None:
        """Let ``ended`` become done when the process has ended."""
        if self._pidfd < 0 or self.ended.done():
            return
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            self.ended.set_result(None)

        loop.add_reader(self._pidfd, end)


def _delete(folder: Path) -> None:
    """Delete a sandbox's folder.  Raises: SandboxError, naming what resists."""
    for turn in range(DELETE_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        # Either a process of the group has not ended yet and still writes, or the function took
        # away its own rights to a folder.
        for path, names, _ in os.walk(folder):
            for name in names:
                inner = os.path.join(path, name)
                if not os.path.islink(inner):
                    with suppress(OSError):
                        os.chmod(inner, 0o700)
        time.sleep(0.01 * 2**turn)
    raise SandboxError(f"the folder {folder} cannot be deleted")


def _remove_leftovers(folder: Path, mine: frozenset[str]) -> int:
    """Remove the sandboxes in ``folder`` that are not ``mine``; return how many there were."""
    leftovers = [entry for entry in folder.iterdir() if entry.name not in mine]
    for leftover in leftovers:
        _kill_recorded(leftover / "pid")
    _kill_strays(folder, mine)
    for leftover in leftovers:
        _delete(leftover)
    return len(leftovers)


def _kill_recorded(file: Path) -> None:
    """Kill the process group in a pid file, unless its leader is gone or the pid is another's."""
    try:
        pid, start_time = (int(word) for word in file.read_text().split())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return  # never written, or the process is gone
    try:
        if _start_time(pid) == start_time:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(END_SECONDS * 1000)
    finally:
        os.close(pidfd)


def _kill_strays(folder: Path, mine: frozenset[str]) -> None:
    """Kill every process whose HOME is in a sandbox that is not ``mine``."""
    mark = b"HOME=" + os.fsencode(folder) + b"/"
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            pidfd = os.pidfd_open(int(entry))
        except OSError:
            continue  # it ended
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
            for variable in environment.split(b"\0"):
                if variable.startswith(mark):
                    container = os.fsdecode(variable[len(mark) :].partition(b"/")[0])
                    if container not in mine:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            pass  # it ended, or belongs to another user and so is none of ours
        finally:
            os.close(pidfd)


def _start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; 0 if it is gone."""
    try:
        status = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return 0
    # The name, in brackets, may hold anything; the start time is field 22.
    return int(status.rpartition(")")[2].split()[19])
