"""Waiting for what comes by itself: the one place where tests look again and again.

Each returns the first true value, or fails and names what did not come.  And a ``Gate``, at which
functions wait for a test.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

WAIT_S = 10.0
_LOOK_S = 0.002
_ASK_S = 0.02

T = TypeVar("T")


async def until(condition: Callable[[], T | None], what: str, within_s: float = WAIT_S) -> T:
    """Wait on an event loop, which goes on meanwhile."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(_LOOK_S)
    return value


async def eventually(
    ask: Callable[[], Awaitable[T | None]],
    what: str,
    within_s: float = WAIT_S,
    look_s: float = _ASK_S,
) -> T:
    """Ask, on an event loop, until the answer is true; every ``look_s`` where asking is dear."""
    deadline_s = time.monotonic() + within_s
    while not (value := await ask()):
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(look_s)
    return value


def wait_until(condition: Callable[[], T | None], what: str, within_s: float = WAIT_S) -> T:
    """Wait without an event loop."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        time.sleep(_ASK_S)
    return value


WAITS_AT_GATE = """\
import os, signal

def at_gate(args):
    if args["go"] == "never":
        signal.pause()
    os.close(os.open(args["go"], os.O_RDONLY))
"""
"""Of a function's code.  What it opens is a ``Gate``, or "/", which keeps nobody waiting."""


class Gate:
    """A FIFO: who opens it for reading gets on once it was opened here; its text is its path."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._fd = -1

    def __str__(self) -> str:
        return str(self._path)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def open(self) -> None:
        """Let through who waits and, as long as this object is there, who comes later."""
        self._fd = os.open(self._path, os.O_RDWR)
