"""A file with the trace of a node's core, as ``acs_core.trace`` writes it."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from acs_core.events import Event
from acs_core.scheduler import SchedulerConfig
from acs_core.trace import TraceWriter

log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 256 * 1024
"""Held in memory: what a crash loses, and some hundred steps for one write."""

TRACE_BYTES_MAX: Final = 4 * 2**30
"""Longest trace: at 10,000 activations a second ten minutes.  The disk is not the trace's alone."""


class TraceFile:
    """Writes each step of a core to a file, without payloads; ``record`` is a Stepper's recorder.

    A file that is there is overwritten; only its owner may read it.  When it cannot be written
    or is full, that is logged once, the trace ends there, and the node serves on.

    Raises: OSError when the file cannot be opened.
    """

    def __init__(
        self, path: Path, config: SchedulerConfig, *, bytes_max: int = TRACE_BYTES_MAX
    ) -> None:
        self._path = path
        self._writer = TraceWriter(config, payloads=False)
        self._bytes_left = bytes_max
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "wb", buffering=BUFFER_BYTES)  # noqa: SIM115
        self._open = True
        self._put(self._writer.header())

    def record(self, event: Event, now_us: int, effects: list[object]) -> None:
        """Add a step.  Cost: O(size of its line), and now and then a write."""
        if not self._open:
            return
        try:
            self._put(self._writer.line(event, now_us, effects))
        except Exception as error:  # whatever it is, the step's effects must be carried out
            log.exception("the trace %s ends here: %s; serving goes on", self._path, error)
            self._abandon()
            return
        if self._bytes_left <= 0:
            log.warning("the trace %s is full and ends here; serving goes on", self._path)
            self.close()

    def close(self) -> None:
        """Write the end line and all that is held; a trace that has ended stays as it is."""
        if not self._open:
            return
        try:
            self._put(self._writer.end())
            self._file.close()
        except OSError as error:
            log.error("the trace %s lacks its end: %s", self._path, error)
        self._abandon()

    def _put(self, line: str) -> None:
        self._bytes_left -= len(line)
        self._file.write(line.encode("ascii"))

    def _abandon(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):  # it tries once more to write what it holds
            self._file.close()
