"""What documents say holds: blocks of Python run, and tests that are named are there.

The blocks of one document run in one namespace.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/embedding.md"])
def test_blocks_run(name: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(), re.M | re.S)
    assert blocks
    namespace: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


def test_promises_of_security_name_tests_that_are_there() -> None:
    paths = [
        p for folder in ("node", "cluster") for p in (ROOT / "tests" / folder).glob("test_*.py")
    ]
    files = {path.stem: path.read_text() for path in paths}
    named = set(re.findall(r"\btest_\w+", (ROOT / "docs" / "security.md").read_text()))
    assert len(named) > 10
    for name in named - files.keys():
        assert any(f"def {name}(" in text for text in files.values()), name
