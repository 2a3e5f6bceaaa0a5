"""An engine with a meter: what was asked of it, and for how long it was at work.

Several invokers of one process share it; it closes with the last of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .. import clock
from . import Sandbox, SandboxEnd, SandboxEngine, SandboxSpec


class MeteredEngine:
    """Passes everything on to ``engine`` and counts.

    ``users``: how many will call ``close``; the last one closes the engine.
    """

    def __init__(self, engine: SandboxEngine, users: int = 1) -> None:
        self.name = engine.name
        self._engine = engine
        self._users = users
        self._done = dict.fromkeys(("started", "removed", "paused", "resumed"), 0)
        self._failed = 0
        self._under_way = 0
        self._busy_since_us = 0
        self._busy_us = 0

    def document(self) -> dict[str, int]:
        """Return what it has done, and for how long at least one call was under way."""
        busy_us = self._busy_us
        if self._under_way:
            busy_us += clock.now_us() - self._busy_since_us
        return {**self._done, "failed": self._failed, "busy_ms": busy_us // 1000}

    async def start(self, spec: SandboxSpec) -> Sandbox:
        with self._metered("started"):
            return await self._engine.start(spec)

    async def pause(self, sandbox: Sandbox) -> None:
        with self._metered("paused"):
            await self._engine.pause(sandbox)

    async def resume(self, sandbox: Sandbox) -> None:
        with self._metered("resumed"):
            await self._engine.resume(sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        with self._metered("removed"):
            await self._engine.remove(sandbox)

    async def ending(self, sandbox: Sandbox) -> SandboxEnd:
        return await self._engine.ending(sandbox)

    async def remove_leftovers(self) -> int:
        return await self._engine.remove_leftovers()

    async def close(self) -> None:
        """Close the engine, if all others have closed it already."""
        self._users -= 1
        if self._users == 0:
            await self._engine.close()

    @contextlib.contextmanager
    def _metered(self, what: str) -> Iterator[None]:
        if self._under_way == 0:
            self._busy_since_us = clock.now_us()
        self._under_way += 1
        try:
            yield
        except BaseException:
            self._failed += 1
            raise
        else:
            self._done[what] += 1
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._busy_us += clock.now_us() - self._busy_since_us
