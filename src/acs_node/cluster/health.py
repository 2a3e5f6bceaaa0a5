"""An invoker watches over itself: tests when it is unwell, and says when that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from acs_core.health import InvokerHealth, Trial
from acs_core.limits import TIME_MAX_US
from acs_core.sharding import InvokerStatus
from acs_core.sharding_supervision import InvocationResult

from .. import clock

log = logging.getLogger(__name__)


class HealthWatch:
    """``test`` tests once; ``changed`` is called after each change of ``status``."""

    def __init__(
        self, test: Callable[[], Awaitable[InvocationResult]], changed: Callable[[], None]
    ) -> None:
        self._health = InvokerHealth(clock.now_us())
        self._test = test
        self._changed = changed
        self._wake = asyncio.Event()
        self._testing: asyncio.Task[None] | None = None

    @property
    def status(self) -> InvokerStatus:
        """How it is; only what is UP gets containers."""
        return self._health.status

    async def start(self) -> None:
        """Test for the first time, and whenever that is due from then on."""
        await self._test_once()
        self._testing = asyncio.ensure_future(self._keep_testing())

    async def close(self) -> None:
        """Test no more."""
        if self._testing is not None:
            self._testing.cancel()
            await asyncio.gather(self._testing, return_exceptions=True)

    def completed(self, trial: Trial, result: InvocationResult) -> None:
        """Take in what became of a creation or a run."""
        if self._health.completed(trial, result, clock.now_us()):
            self._tell()
            self._wake.set()

    async def _keep_testing(self) -> None:
        while True:
            due_us = self._health.test_due_us
            self._wake.clear()
            wait_s = None if due_us == TIME_MAX_US else max(0, due_us - clock.now_us()) / 1e6
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                await self._test_once()

    async def _test_once(self) -> None:
        self._health.test_begun()
        result = await self._test()
        if self._health.test_ended(result, clock.now_us()):
            self._tell()

    def _tell(self) -> None:
        status = self._health.status
        level = logging.INFO if status == InvokerStatus.UP else logging.ERROR
        log.log(level, "this invoker is %s", status.name.lower())
        self._changed()
