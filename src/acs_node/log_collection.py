"""What containers print, collected on a tick and handed on by activation.

Neither a reply nor a container waits for it: a run's result is sent before its log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from . import clock
from .invoker_container import Container
from .links import Logs

log = logging.getLogger(__name__)

TICK_S = 0.02
"""How often the logs of busy containers are read: a pipe of 1 MiB takes 50 MB/s in between."""

GRACE_US = 2_000_000
"""How long the end of a log is waited for after the result, as upstream."""

UNMARKED_US = 100_000
"""How long after the result a log is taken whose end nothing marks: it comes by the engine."""

INCOMPLETE = "There was an issue while collecting your logs. Data might be missing."
AFTER_FAILURE = "The action did not initialize or run as expected. Log data might be missing."
CONTAINER_FAILED = "The container failed: it {}."
"""The error of the result is OpenWhisk's, and does not say why."""


class LogCollection:
    """Reads the containers that run something or owe a log; ``send`` takes what they printed."""

    def __init__(self, send: Callable[[Logs], None]) -> None:
        self.talking: dict[str, Container] = {}
        self._send = send
        # What was read and not handed on yet.
        self._collected: list[tuple[str, list[str]]] = []
        self._tick: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def listen(self, container: Container) -> None:
        """Have the container's logs read from the next tick on."""
        if container.sandbox is None:
            return
        self.talking[container.name] = container
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def expect(self, container: Container, activation_id: str, now_us: int) -> None:
        """Hand on the log of a run that has ended, when its end is read or ``GRACE_US`` later."""
        container.unlogged.append((activation_id, now_us + GRACE_US))

    def take_last(self, container: Container) -> None:
        """Hand on what a container that goes has printed, for the run that it ended with."""
        self.talking.pop(container.name, None)
        sandbox = container.sandbox
        if sandbox is None:
            return
        now_ns = clock.wall_ns()
        self._collect(container, now_ns, clock.now_us())
        for activation_id, _ in container.unlogged:
            lines = sandbox.logs.take_rest(now_ns)
            if container.failed:
                said = CONTAINER_FAILED.format(container.failed)
                lines.append(sandbox.logs.stderr_line(said, now_ns))
            lines.append(sandbox.logs.stderr_line(AFTER_FAILURE, now_ns))
            self._collected.append((activation_id, lines))
        container.unlogged.clear()
        self._hand_on()

    def close(self) -> None:
        """Read nothing more."""
        if self._tick is not None:
            self._tick.cancel()

    def _on_tick(self) -> None:
        self._tick = None
        now_ns = clock.wall_ns()
        now_us = clock.now_us()
        for name, container in list(self.talking.items()):
            try:
                self._collect(container, now_ns, now_us)
            except Exception:
                log.exception("the logs of container %s are lost", name)
                container.unlogged.clear()
            if not container.runs and not container.unlogged:
                del self.talking[name]
        self._hand_on()
        if self.talking:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _collect(self, container: Container, now_ns: int, now_us: int) -> None:
        sandbox = container.sandbox
        if sandbox is None:
            return
        logs = sandbox.logs
        logs.drain(now_ns)
        told = 0
        for activation_id, until_us in container.unlogged:
            if not sandbox.sentinels:
                if now_us < until_us - GRACE_US + UNMARKED_US:
                    break
                told += 1
                self._collected.append((activation_id, logs.take_rest(now_ns)))
                continue
            lines = logs.next_log()
            if lines is None:
                if now_us < until_us:
                    break
                lines = [*logs.take_rest(now_ns), logs.stderr_line(INCOMPLETE, now_ns)]
            told += 1
            self._collected.append((activation_id, lines))
        del container.unlogged[:told]

    def _hand_on(self) -> None:
        if self._collected:
            self._send(Logs(self._collected))
            self._collected = []
