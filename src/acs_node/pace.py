"""How fast a client must send and read, so that none holds a place for ever.

Pure: told every ``LOOK_S`` what a connection did, it says when to cut it off.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOK_S", "Pace"]

LOOK_S: Final = 5
"""Between two looks at a connection; also how long one may idle between requests."""

SENT_BYTES_MIN: Final = 5 * 1024
"""Of a request that is under way, between two looks.  1 KiB/s: the longest head takes a minute."""

SLOW_LOOKS_MAX: Final = 2
"""In a row: a request that begins just before a look is given a whole turn."""

STUCK_LOOKS_MAX: Final = 6
"""In a row, at which a client has taken nothing of an answer: half a minute."""


class Pace:
    """Of one connection.  ``received`` is raised by what is read from it."""

    __slots__ = ("_slow", "_stuck", "_unsent_bytes", "received")

    def __init__(self) -> None:
        self.received = 0
        self._slow = 0
        self._stuck = 0
        self._unsent_bytes = 0

    def look(self, *, receiving: bool, unsent_bytes: int) -> str:
        """Return why the client is to be cut off, or nothing.

        ``receiving``: a request has begun, its end is missing, and the server reads.
        ``unsent_bytes``: of answers that the client has not taken.
        """
        slow = receiving and self.received < SENT_BYTES_MIN
        self.received = 0
        self._slow = self._slow + 1 if slow else 0
        stuck = 0 < self._unsent_bytes <= unsent_bytes
        self._unsent_bytes = unsent_bytes
        self._stuck = self._stuck + 1 if stuck else 0
        if self._slow >= SLOW_LOOKS_MAX:
            return f"The request comes slower than {SENT_BYTES_MIN // LOOK_S} bytes per second."
        if self._stuck >= STUCK_LOOKS_MAX:
            return f"Nothing of the answer was read for {STUCK_LOOKS_MAX * LOOK_S} s."
        return ""
