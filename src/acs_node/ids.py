"""Activation ids: UUIDs of version 7 without dashes (ADR 5), which of several controllers made one.

A controller of a cluster has a number of three hexadecimal digits; it stands behind the digit 7.
Whoever has a result finds by it who waits for it.
"""

from __future__ import annotations

import os
import re
from typing import Final

CONTROLLERS_MAX: Final = 4_096

_ID: Final = re.compile(r"[0-9a-f]{12}7([0-9a-f]{3})[0-9a-f]{16}")


_SPARE: Final = 256
"""Ids whose randomness is drawn at once."""


class ActivationIds:
    """Makes ids; ``number`` 0..4095: of one controller of several, which they say."""

    def __init__(self, number: int | None = None) -> None:
        self._mark = "" if number is None else f"{number:03x}"
        self._randomness: list[str] = []  # 18 hexadecimal characters for each id

    def next(self, now_ms: int) -> str:
        """Return a fresh activation id: a UUID of version 7 without dashes.

        It starts with the time, so that records of the same time lie side by side in the
        database: with random ids each row costs a page of the index, and three times the CPU.
        """
        spare = self._randomness
        if not spare:
            text = os.urandom(9 * _SPARE).hex()
            spare.extend(text[at : at + 18] for at in range(0, len(text), 18))
        chance = spare.pop()
        return f"{now_ms:012x}7{self._mark or chance[:3]}8{chance[3:]}"


def controller_of(activation_id: str) -> int:
    """Return the number of the controller; -1 for an id that no controller made."""
    match = _ID.fullmatch(activation_id)
    return -1 if match is None else int(match[1], 16)
