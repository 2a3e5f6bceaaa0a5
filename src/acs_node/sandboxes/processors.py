"""Which processors functions may use beside the platform's event loop.

Where functions are short the loop is what all of them wait for, and sixteen of their processes
push it from processor to processor.  So a busy loop gets a processor to itself, and gives it
back when it is calm: functions that compute for long leave the loop little to do, and then have
every processor.  Measured with two processors and functions that do nothing: 1.17 times the
throughput, and 1.08 times that where the loop keeps to its processor as well, instead of changing
it with whoever wakes there (docs/performance.md).
"""

from __future__ import annotations

from typing import Final

LOOK_S: Final = 0.5
"""Between two looks at how busy the loop is."""

BUSY: Final = 0.3
"""Share of a processor above which the loop gets one to itself: well below what half of its highest
throughput takes, where it would swing.  Functions that compute leave the loop far less to do."""

CALM: Final = 0.15
"""Share below which it gives it back; well below BUSY, so that nothing swings."""


class LoopProcessor:
    """Decides whether the loop has a processor to itself.  Pure: it is told the times.

    ``available`` are the processors that the platform may use; of less than two none is spared.
    ``for_functions`` are those that functions may use now, ``for_loop`` those of the loop.
    """

    def __init__(self, available: set[int]) -> None:
        self.available = frozenset(available)
        # The last one: the first ones are where most machines handle their interrupts.
        self._own = frozenset(sorted(available)[-1:]) if len(available) > 1 else frozenset()
        self.for_functions = self.available
        self._looked_s = 0.0
        self._used_s = 0.0

    @property
    def for_loop(self) -> frozenset[int]:
        """Where the loop is to run: on its own processor while it has one."""
        return self.available if self.for_functions == self.available else self._own

    def share(self) -> None:
        """Let functions and the loop use every processor, until the loop is busy again."""
        self.for_functions = self.available

    def look(self, now_s: float, used_s: float) -> bool:
        """Tell whether ``for_functions`` has changed.

        ``now_s`` is the time, ``used_s`` the processor time of the loop, both in seconds from
        any beginning; the first call only notes them.
        """
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        used_s, self._used_s = used_s - self._used_s, used_s
        shared = self.for_functions == self.available
        if shared and used_s > BUSY * passed_s:
            self.for_functions = self.available - self._own
        elif not shared and used_s < CALM * passed_s:
            self.for_functions = self.available
        return shared != (self.for_functions == self.available)
