"""Waiting for what comes by itself: the one place where tests look again and again.

Each returns the first true value, or fails and names what did not come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
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
    ask: Callable[[], Awaitable[T | None]], what: str, within_s: float = WAIT_S
) -> T:
    """Ask, on an event loop, until the answer is true."""
    deadline_s = time.monotonic() + within_s
    while not (value := await ask()):
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(_ASK_S)
    return value


def wait_until(condition: Callable[[], T | None], what: str, within_s: float = WAIT_S) -> T:
    """Wait without an event loop."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s for {what}"
        time.sleep(_ASK_S)
    return value
