"""What a test needs of the machine: missing, it skips, or fails if ACS_REQUIRE says so.

ACS_REQUIRE is a list such as ``docker,etcd``.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(program: str, reason: str) -> NoReturn:
    """Skip the test because ``program`` is missing; fail it where that is not allowed."""
    if program in os.environ.get("ACS_REQUIRE", "").split(","):
        pytest.fail(f"ACS_REQUIRE has {program}, but {reason}")
    pytest.skip(reason)
