"""How long blocking callers wait: one timer for all who wait as usual, one for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from . import clock
from .invocations import BLOCKING_MS_MAX, Pending

__all__ = ["Patience"]

WAIT_TICK_S: Final = 0.1
"""How exactly that wait is kept."""


class Patience:
    """Calls ``enough`` with the id of an activation whose caller has waited long enough."""

    def __init__(self, enough: Callable[[str], None]) -> None:
        # Those with the usual wait, in the order in which it ends.
        self.waiting: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._enough = enough
        self._loop = asyncio.get_running_loop()

    def wait(self, activation_id: str, pending: Pending) -> None:
        """See to it that a blocking caller does not wait too long."""
        timeout_ms = pending.invocation.timeout_ms
        if timeout_ms == BLOCKING_MS_MAX:
            self.waiting[activation_id] = pending.arrived_us + BLOCKING_MS_MAX * 1000
            if self._timer is None:
                self._timer = self._loop.call_later(WAIT_TICK_S, self._look)
        else:
            pending.timer = self._loop.call_later(timeout_ms / 1000, self._enough, activation_id)

    def forget(self, activation_id: str, pending: Pending) -> None:
        """Nobody waits for it any more."""
        self.waiting.pop(activation_id, None)
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None

    def close(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        now_us = clock.now_us()
        while self.waiting:
            activation_id = next(iter(self.waiting))
            if self.waiting[activation_id] > now_us:
                self._timer = self._loop.call_later(WAIT_TICK_S, self._look)
                return
            self._enough(activation_id)
