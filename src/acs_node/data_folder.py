"""The data folder of a server: which process holds it, and how to tell it of a change.

A server holds the lock of its folder while it runs, and its process id stands in there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from pathlib import Path
from typing import Final

__all__ = ["LOCK", "poke"]

LOCK: Final = "lock"
"""Name of the file that is locked."""


def poke(data: Path) -> bool:
    """Have the server that runs on ``data`` read its namespaces again; False: none runs.

    A server takes SIGHUP for that from its first moment on.  Raises: OSError.
    """
    try:
        lock = os.open(data / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).strip()
            if not owner.isdigit():
                return False  # it has only just begun, and reads them anyway
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(owner), signal.SIGHUP)
            return True
        return False
    finally:
        os.close(lock)
