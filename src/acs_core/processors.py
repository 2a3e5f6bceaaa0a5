"""Which processors functions may use beside a platform's event loop.

Where functions are short the loop is what all of them wait for, and sixteen of their processes
push it from processor to processor.  So a busy loop gets a processor to itself, and gives it
back when it is calm: functions that compute for long leave the loop little to do, and then have
every processor.

Leaves out how processes and threads are kept where they belong, and when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable

from .limits import LOOP_BUSY, LOOP_CALM


class LoopProcessor:
    """Decides whether the loop has a processor to itself.

    ``available`` are the processors that the platform may use; of less than two none is spared.
    ``for_functions`` are those that functions may use now, ``for_loop`` those of the loop.
    """

    def __init__(self, available: Iterable[int]) -> None:
        self.available = frozenset(available)
        # The last one: the first ones are where most machines handle their interrupts.
        spare = len(self.available) > 1
        self._own = frozenset(sorted(self.available)[-1:]) if spare else frozenset()
        self.for_functions = self.available
        self._looked_us = 0
        self._used_us = 0

    @property
    def for_loop(self) -> frozenset[int]:
        """Where the loop is to run: on its own processor while it has one."""
        return self.available if self.for_functions == self.available else self._own

    def share(self) -> None:
        """Let functions and the loop use every processor, until the loop is busy again."""
        self.for_functions = self.available

    def look(self, now_us: int, used_us: int) -> bool:
        """Tell whether ``for_functions`` has changed.

        ``now_us`` is the time, ``used_us`` the processor time of the loop, both from any beginning;
        the first call only notes them.
        """
        passed_us, self._looked_us = now_us - self._looked_us, now_us
        used_us, self._used_us = used_us - self._used_us, used_us
        shared = self.for_functions == self.available
        if shared and used_us > LOOP_BUSY * passed_us:
            self.for_functions = self.available - self._own
        elif not shared and used_us < LOOP_CALM * passed_us:
            self.for_functions = self.available
        return shared != (self.for_functions == self.available)
