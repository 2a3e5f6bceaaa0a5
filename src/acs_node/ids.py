"""Activation ids: UUIDs of version 7 without dashes (ADR 5), which of several controllers made one.

A controller of a cluster has a number of three hexadecimal digits; it stands behind the digit 7.
Whoever has a result finds by it who waits for it.
"""

from __future__ import annotations

import re
from typing import Final

CONTROLLERS_MAX: Final = 4_096

_ID: Final = re.compile(r"[0-9a-f]{12}7([0-9a-f]{3})[0-9a-f]{16}")


def controller_of(activation_id: str) -> int:
    """Return the number of the controller; -1 for an id that no controller made."""
    match = _ID.fullmatch(activation_id)
    return -1 if match is None else int(match[1], 16)
