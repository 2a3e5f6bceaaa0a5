"""Drives an object of the core: feeds it events, performs its effects, keeps its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from acs_core.events import Event, TimeReached

from . import clock

log = logging.getLogger(__name__)

_NEVER = 2**62


class Steppable(Protocol):
    """``Scheduler`` and ``ContainerPool``."""

    def step(self, event: Event, now_us: int) -> list[object]: ...

    def next_deadline_us(self) -> int | None: ...


class Stepper:
    """One core object with its clock and timer.

    ``perform`` maps the type of each effect to what carries it out.  The loop's timer is moved
    only when the core wants to be called earlier, so a step costs no timer.
    """

    def __init__(self, core: Steppable, perform: Mapping[type, Callable[..., None]]) -> None:
        self._core = core
        self._perform = perform
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us = _NEVER
        self._loop = asyncio.get_running_loop()
        self._time_reached = TimeReached()

    def step(self, event: Event) -> None:
        """Apply the event now and carry out what follows from it, in order."""
        for effect in self._core.step(event, clock.now_us()):
            self._perform[type(effect)](effect)
        due_us = self._core.next_deadline_us()
        if due_us is not None and due_us < self._armed_us:
            self._arm(due_us)

    def close(self) -> None:
        """Stop the timer; no step may follow."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, due_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_us = due_us
        delay_s = max(0, due_us - clock.now_us()) / 1_000_000
        self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._armed_us = _NEVER
        self.step(self._time_reached)
        due_us = self._core.next_deadline_us()
        if due_us is not None and due_us < self._armed_us:
            self._arm(due_us)
