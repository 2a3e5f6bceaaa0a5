"""Sandboxes as hardened containers of a Docker Engine on this machine.

Every call of the engine blocks and is made in one bounded thread pool; the calls, and what a
container may do, are in ``docker_containers``; which image it starts from, in ``acs_node.images``.

A container shares one directory with the host, ``DATA/sandboxes/CONTAINER``, mounted at /acs:

- ``stdout``, ``stderr``: FIFOs, made and opened by the host before the container exists.  The
  function can write anything into them (it is its log) and read them (it loses its own log).
- ``leash``: the host's sign of life (``leash``); the function can read it.
- ``run.sock``: made by the proxy.  The host connects once, before any user code is sent, and
  never by that path again, so replacing it would gain nothing.

The directory belongs to the host's user, never to the container's.  It is writable for the
container only until the proxy listens, and no user code has been sent by then.  So a function can
neither add a file (and fill the host's disk), nor a symbolic link, nor remove one of these.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from docker import DockerClient

from acs_node.docker_client import CALL_S
from acs_node.images import KIND_LABEL, image_reference
from acs_node.manifest import Manifest
from acs_node.sandboxes import (
    EngineUnavailable,
    Sandbox,
    SandboxEnd,
    SandboxError,
    SandboxSpec,
    stock,
)
from acs_node.sandboxes.docker_containers import ENDING_S, Containers
from acs_node.sandboxes.leash import Leash
from acs_node.sandboxes.logpipes import LogPipes
from acs_node.sandboxes.pulls import Pulls, cannot_be_had, moves

READY_S = 30.0
"""The longest wait for the proxy; it takes 20 ms on an idle machine."""
LOOK_S = 1.0
"""How often a container that is not ready is looked at, to see that it has ended."""
ANSWER_S = 1.0
"""How long it waits for the engine to say so, beside that: a run's answer waits for it."""
OWED_S = 1.0
"""Between two looks for what an engine made of starts that it did not answer."""
OWED_LOOKS = 3
"""Looks in a row that must find nothing: an engine that hung works off late what it was sent."""
SOCKET_PATH_BYTES_MAX = 107
_CONTAINER_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class DockerEngine:
    """A SandboxEngine on the Docker Engine that DOCKER_HOST names, or that ``client`` reaches.

    ``data_dir``: where the shared directories lie; the engine must run on the same machine.
    ``instance``: the id of the data folder; only containers labelled with it are ever removed.
    ``network``: ``none``, or the name of a network; one that does not exist is created as a
    bridge without traffic between its containers.  The engine's own default bridge is refused: its
    containers reach each other.  ``workers``: calls made at once, beside one for resumes; at most
    half of them are removals and pauses, so that these never keep a start waiting.
    ``call_s``: time-out in seconds of each call (a given client has its own).
    ``manifest``: which image a kind has (default: ours); its other images may be pulled.
    ``host_memory_mb``: what a container's CPU share is measured against (default: this machine's
    memory).  ``silence_s``: see ``Leash``; only our own images heed it.

    Nothing is called before the first method is.
    """

    name = "docker"

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        instance: str,
        client: DockerClient | None = None,
        network: str = "acs",
        manifest: Manifest | None = None,
        workers: int = 4,
        call_s: float = CALL_S,
        host_memory_mb: int | None = None,
        silence_s: float = 0.0,
    ) -> None:
        if workers < 2:
            raise ValueError(f"workers is {workers}, must be at least 2 (starts and removals)")
        if network in ("host", "bridge", "default", "") or network.startswith("container:"):
            raise ValueError(
                f"network is '{network}', must be 'none' or the name of a network of its own"
            )
        self._directory = Path(data_dir).resolve() / "sandboxes"
        self._leash = Leash(silence_s)
        self._runtimes = {} if manifest is None else manifest.runtimes()
        self._blackboxes = frozenset() if manifest is None else manifest.blackboxes
        if host_memory_mb is None:
            host_memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        # A container's user must not own the shared directory, or it could open it again.
        uid = 65532 if os.getuid() != 65532 else 65533
        self._containers = Containers(
            instance, client, network, f"{uid}:{uid}", call_s, host_memory_mb
        )
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="docker")
        # Somebody waits for a resume, and it takes a tenth of a start: it queues behind none.
        self._resuming = ThreadPoolExecutor(1, thread_name_prefix="docker-resume")
        self._unhurried = asyncio.Semaphore(workers // 2)  # removals and pauses
        self._pulls = Pulls()
        self._sandboxes: dict[str, Sandbox | None] = {}  # by container; None: it starts
        # While the engine may have, or may still make, containers of starts that it did not answer.
        self._owing: asyncio.Task[None] | None = None
        self._quiet_looks = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def ping(self) -> None:
        """Check that the engine answers and that the network is there.  Raises: SandboxError."""
        await self._call(self._containers.prepare)

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Create and start a container and return once its proxy listens.

        Cancelling leaves nothing behind either: the start is finished and undone.  Only when the
        engine does not answer may a container stay; it is removed once the engine answers again,
        and before anything else is started.

        Raises: SandboxError (final: image missing, bad spec), EngineUnavailable.
        Cost: about 0.3 s, nearly all of it in the engine.
        """
        if self._closed:
            raise EngineUnavailable(f"start container {spec.container}: the engine is closed")
        work = self._spawn(self._start(spec))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._spawn(self._undo(work))
            raise

    async def pause(self, sandbox: Sandbox) -> None:
        """Freeze the container's processes; see ``SandboxEngine``.  Cost: some ms in the engine."""
        async with self._unhurried:
            await self._call(self._containers.freeze, str(sandbox.handle), "pause")

    async def resume(self, sandbox: Sandbox) -> None:
        """Let the container's processes run on; see ``SandboxEngine``.  Cost: as ``pause``."""
        await asyncio.get_running_loop().run_in_executor(
            self._resuming, self._containers.freeze, str(sandbox.handle), "unpause"
        )

    async def remove(self, sandbox: Sandbox) -> None:
        """End and remove a container, then its directory, and close its logs; idempotent.

        Raises: EngineUnavailable or SandboxError when the engine did not confirm the removal:
        the container may still hold its memory, so it has to stay in the caller's account.
        """
        container = sandbox.spec.container
        if self._sandboxes.get(container) is not sandbox:
            return
        await self._remove_container(str(sandbox.handle))
        sandbox.logs.close()
        self._remove_directory(container)
        self._sandboxes.pop(container, None)

    async def ending(self, sandbox: Sandbox) -> SandboxEnd:
        """Say how a container ended; see ``SandboxEngine``."""
        try:
            async with asyncio.timeout(ENDING_S + ANSWER_S):
                state = await self._call(self._containers.wait_and_inspect, str(sandbox.handle))
        except TimeoutError:
            raise EngineUnavailable("inspect container: the engine does not answer") from None
        if state is None:
            return SandboxEnd("was removed by somebody else")
        if state["OOMKilled"]:
            return SandboxEnd("was killed by the kernel: out of memory", out_of_memory=True)
        if state["Running"]:
            return SandboxEnd("still runs")
        return SandboxEnd(f"exited with status {state['ExitCode']}")

    async def remove_leftovers(self) -> int:
        """Remove containers and directories of this data folder that this object did not start.

        Returns the number of containers.  Raises: SandboxError, EngineUnavailable.
        """
        found = await self._call(self._containers.list)
        leftovers = [handle for handle, name in found.items() if name not in self._sandboxes]
        await asyncio.gather(*map(self._remove_container, leftovers))
        if self._directory.is_dir():
            for entry in list(self._directory.iterdir()):
                if entry.name not in self._sandboxes:
                    self._remove_directory(entry.name)
        return len(leftovers)

    async def close(self) -> None:
        """Remove every container of this data folder, release threads and connections; idempotent.

        Starts under way are waited for, pulls of images are not.  Raises: the first error of a
        removal, after everything else was done.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._pulls.close()
            while self._tasks:
                await asyncio.wait(self._tasks)
            if self._owing is not None:
                self._owing.cancel()
            self._leash.close()
            sandboxes = [sandbox for sandbox in self._sandboxes.values() if sandbox is not None]
            await self._remove_all(sandboxes)
            if self._containers.connected:
                await self.remove_leftovers()
        finally:
            for pool in (self._pool, self._resuming):
                pool.shutdown(wait=False, cancel_futures=True)
            self._containers.close()

    async def _call(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _start(self, spec: SandboxSpec) -> Sandbox:
        directory = self._check(spec)
        image, ours = await self._find_image(spec)
        if self._owing is not None:
            await self.remove_leftovers()  # or it would hold memory that this start was promised
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir()
        except OSError as error:
            raise SandboxError(f"container {spec.container}: {error}") from error
        self._sandboxes[spec.container] = None
        logs, output, port = None, None, 0
        try:
            directory.chmod(0o733)
            if ours:
                self._leash.put(str(directory))
                self._leash.hold(str(directory))
                logs = LogPipes.create(str(directory))
            else:
                output = stock.Output(str(directory))
                logs = output.logs
            handle = await self._call(
                self._containers.create_and_start, spec, image, directory, output
            )
            if output is None:
                ready = logs.ready()
            else:
                port = await self._call(self._containers.port_of, handle)
                ready = stock.accepts(port)
            await self._wait_ready(ready, handle)
            directory.chmod(0o711)
        except BaseException as error:
            if output is not None:
                output.close()
            await self._discard(spec, logs, error)
            if isinstance(error, OSError):
                raise SandboxError(f"container {spec.container}: {error}") from error
            raise
        marks = ours or self._marks_its_logs(spec)
        sandbox = Sandbox(spec, str(directory / "run.sock"), logs, handle, port, marks)
        self._sandboxes[spec.container] = sandbox
        return sandbox

    async def _find_image(self, spec: SandboxSpec) -> tuple[str, bool]:
        """Return the image to start from, and whether its proxy is ours.  Raises: SandboxError."""
        image = spec.image
        if not image:
            runtime = self._runtimes.get(spec.kind)
            if runtime is None:
                return image_reference(spec.kind), True
            image = runtime.image
        pulled = image not in self._blackboxes
        labels = None
        if not (pulled and moves(image)):
            labels = await self._call(self._containers.labels_of, image)
        if labels is None:
            if not pulled:
                raise SandboxError(f"image {image} is missing; it is not pulled", final=True)
            await self._pulls.pull(image)
            labels = await self._call(self._containers.labels_of, image)
            if labels is None:
                raise cannot_be_had(image)
        ours = bool(labels.get(KIND_LABEL))
        if not ours and self._containers.network_of(spec) == "none":
            message = f"image {image} is reached by TCP, and the network of containers is none"
            raise SandboxError(message, final=True)
        return image, ours

    def _check(self, spec: SandboxSpec) -> Path:
        """Return the directory of a container.  Raises: SandboxError for a spec that cannot be."""
        name = spec.container
        if not _CONTAINER_ID.fullmatch(name) or name in (".", ".."):
            raise SandboxError(
                f"container is '{name}', must match {_CONTAINER_ID.pattern}", final=True
            )
        directory = self._directory / name
        socket_bytes = len(os.fsencode(directory / "run.sock"))
        if socket_bytes > SOCKET_PATH_BYTES_MAX:
            raise SandboxError(
                f"{directory}/run.sock has {socket_bytes} bytes, a Unix socket's path at most "
                f"{SOCKET_PATH_BYTES_MAX}: use a data folder with a shorter path",
                final=True,
            )
        return directory

    def _marks_its_logs(self, spec: SandboxSpec) -> bool:
        if spec.image:
            return spec.image in self._blackboxes
        return self._runtimes[spec.kind].sentinels

    async def _wait_ready(self, listening: Coroutine[Any, Any, None], handle: str) -> None:
        """Wait for the proxy; a container that has ended or is too slow is a SandboxError."""
        ready = asyncio.ensure_future(listening)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + READY_S
        try:
            while not ready.done():
                # An ended container closes nothing that the host could see: it holds the FIFOs
                # open itself.  So a container that is late is looked at.
                await asyncio.wait([ready], timeout=LOOK_S)
                if not ready.done():
                    ended = await self._call(self._containers.why_ended, handle)
                    if ended is not None:
                        raise SandboxError(f"the container ended at its start: {ended}")
                    if loop.time() > deadline_s:
                        raise SandboxError(f"the action proxy was not ready within {READY_S:g} s")
            await ready
        finally:
            ready.cancel()
            await asyncio.wait([ready])  # it reads from a FIFO that may be closed next

    async def _discard(
        self, spec: SandboxSpec, logs: LogPipes | None, error: BaseException
    ) -> None:
        """Leave nothing of a start that failed by ``error``; never raises."""
        if logs is not None:
            logs.close()
        self._remove_directory(spec.container)
        # An engine that does not answer is not asked again at once: it would time out again.
        owes = isinstance(error, EngineUnavailable)
        if not owes:
            try:
                # By the labels, for a name that was taken belongs to somebody else.
                for handle in await self._call(self._containers.list, spec.container):
                    await self._remove_container(handle)
            except SandboxError as failure:
                error, owes = failure, True
        del self._sandboxes[spec.container]
        if owes:
            _log.warning("container %s may not be removed yet: %s", spec.container, error)
            self._quiet_looks = 0
            if self._owing is None and not self._closed:
                self._owing = asyncio.create_task(self._remove_owed())

    async def _remove_owed(self) -> None:
        """Remove what failed starts may have left, as soon as the engine answers again."""
        while self._quiet_looks < OWED_LOOKS:
            await asyncio.sleep(OWED_S)
            self._quiet_looks += 1
            try:
                if await self.remove_leftovers():
                    self._quiet_looks = 0
            except SandboxError:
                self._quiet_looks = 0
        self._owing = None

    async def _remove_all(self, sandboxes: list[Sandbox]) -> None:
        """Try to remove every one; of an engine that does not answer nothing more is asked.

        Raises: the first error, at the end.
        """
        errors: list[SandboxError] = []
        # Else each would be on its way, and be waited for in turn, before the first has failed.
        under_way = asyncio.Semaphore(self._workers // 2)

        async def remove(sandbox: Sandbox) -> None:
            async with under_way:
                if any(isinstance(error, EngineUnavailable) for error in errors):
                    return
                try:
                    await self.remove(sandbox)
                except SandboxError as error:
                    errors.append(error)

        await asyncio.gather(*map(remove, sandboxes))
        if errors:
            raise errors[0]

    async def _undo(self, work: asyncio.Task[Sandbox]) -> None:
        """Undo a start whose caller has gone."""
        try:
            await self.remove(await work)
        except SandboxError as error:
            _log.warning("a cancelled start: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _remove_container(self, handle: str) -> None:
        async with self._unhurried:
            await self._call(self._containers.remove, handle)

    def _remove_directory(self, container: str) -> None:
        self._leash.drop(str(self._directory / container))
        # rmtree works on descriptors and never follows a symbolic link.
        try:
            shutil.rmtree(self._directory / container)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("the directory of container %s stays: %s", container, error)
