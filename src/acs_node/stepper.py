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

Recorder = Callable[[Event, int, list[object]], None]
"""Told of each step once it is taken and before its effects are performed; it must not raise."""

RETRY_S = 1.0
"""After a timed step that failed by a fault of ours, when the next one is tried."""


class Steppable(Protocol):
    """``Scheduler`` and ``ContainerPool``."""

    def step(self, event: Event, now_us: int) -> list[object]: ...

    def next_deadline_us(self) -> int | None: ...


class Stepper:
    """One core object with its clock and timer.

    ``perform`` maps the type of each effect to what carries it out.  The loop's timer is moved
    only when the core wants to be called earlier, so a step costs no timer.

    An effect whose performance raises does not keep those after it from being carried out:
    they belong to other containers and activations.  ``failed`` is told of it, with the cause
    in words, and answers for the activation or the container that depended on it.  ``recorder``
    is told of every step that the core took.
    """

    def __init__(
        self,
        core: Steppable,
        perform: Mapping[type, Callable[..., None]],
        failed: Callable[[object, str], None],
        recorder: Recorder | None = None,
    ) -> None:
        self._core = core
        self._perform = perform
        self._failed = failed
        self._recorder = recorder
        self._performing: list[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us = _NEVER
        self._loop = asyncio.get_running_loop()
        self._time_reached = TimeReached()

    def step(self, event: Event) -> None:
        """Apply the event now and carry out what follows from it, in order.

        Within the performance of an effect: the event is applied at once, and what follows
        from it is carried out after the effects that the core has asked for before.
        """
        now_us = clock.now_us()
        effects = self._core.step(event, now_us)
        if self._recorder is not None:
            self._recorder(event, now_us, effects)
        if self._performing is not None:
            self._performing += effects
            return
        self._performing = effects
        for effect in effects:  # which become more on the way
            try:
                self._perform[type(effect)](effect)
            except Exception as error:
                self._give_up(effect, error)
        self._performing = None
        due_us = self._core.next_deadline_us()
        if due_us is not None and due_us < self._armed_us:
            self._arm(due_us)

    def close(self) -> None:
        """Stop the timer; no step may follow."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self, effect: object, error: Exception) -> None:
        name = type(effect).__name__
        log.error("a %s was not carried out", name, exc_info=error)
        try:
            self._failed(effect, f"{type(error).__name__}: {error}")
        except Exception:
            log.exception("the failure of a %s was not answered for", name)

    def _arm(self, due_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_us = due_us
        delay_s = max(0, due_us - clock.now_us()) / 1_000_000
        self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._armed_us = _NEVER
        try:
            self.step(self._time_reached)
        except Exception:
            # Without a timer nothing would expire or time out until something else happens.
            log.exception("a timed step failed")
            self._arm(clock.now_us() + int(RETRY_S * 1_000_000))
