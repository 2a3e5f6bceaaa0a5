"""Proxies end when their host is silent: a file in each sandbox's folder that the host touches.

A host that is killed is noticed at once, for its connections close.  One that is stopped, or hangs,
keeps them open; its containers would hold their memory, and run on, while others have long taken
its work.  So the file ``leash`` says after how many seconds of silence the proxy ends, and its time
of change is the sign of life (the proxy compares it with what it saw before, not with a clock).
The file is the host's: a container's user cannot touch it.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Final

NAME: Final = "leash"

BEATS: Final = 8
"""Signs of life within the time that the silence may last: some of them may come late."""


class Leash:
    """Keeps the proxies of one host alive; ``silence_s`` 0: their connection is all that counts.

    Cost: BEATS system calls in ``silence_s`` for each sandbox.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._paths: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, folder: str) -> None:
        """Have the proxy that is to be started in the folder know; on the loop or in a thread.

        Raises: OSError.
        """
        if self._silence_s:
            with open(os.path.join(folder, NAME), "x", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(f"{self._silence_s:g}\n")

    def hold(self, folder: str) -> None:
        """Begin to give signs of life in the folder.  On the loop."""
        if self._silence_s:
            self._paths.add(os.path.join(folder, NAME))
            if self._timer is None:
                self._beat()

    def drop(self, folder: str) -> None:
        """Give no more signs in the folder; one that is not held is fine."""
        self._paths.discard(os.path.join(folder, NAME))

    def close(self) -> None:
        """Fall silent; idempotent."""
        self._paths.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        for path in self._paths:
            with suppress(OSError):  # the sandbox is being removed, or its function tore it down
                os.utime(path)
        self._timer = None
        if self._paths:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._silence_s / BEATS, self._beat)
