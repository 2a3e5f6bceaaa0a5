"""What a test needs of machine and build: missing, it skips, or fails where it is required.

ACS_REQUIRE is a list such as ``docker,etcd``; ACS_EXPECT is the build that is under test.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

import acs_core


def missing(program: str, reason: str) -> NoReturn:
    """Skip the test because ``program`` is missing; fail it where that is not allowed."""
    if program in os.environ.get("ACS_REQUIRE", "").split(","):
        pytest.fail(f"ACS_REQUIRE has {program}, but {reason}")
    pytest.skip(reason)


def needs_build(build: str) -> None:
    """Skip on another build of the core; fail there if ACS_EXPECT says that it is this one."""
    is_compiled = acs_core.COMPILED
    if (build == "compiled") is is_compiled:
        return
    found = "compiled" if is_compiled else "plain"
    if os.environ.get("ACS_EXPECT") == build:
        pytest.fail(f"ACS_EXPECT is {build}, but the core is {found}")
    pytest.skip(f"of the {build} build; the core is {found}")
