"""The list of what works names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_list_names_exists() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    named = re.findall(r"`(?:tests/node/)?(test_\w+)(\.py)?`", text)
    files = {name for name, suffix in named if suffix}
    functions = {name for name, suffix in named if not suffix}
    assert len(files) > 10
    assert len(functions) > 5
    sources = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    assert files - sources.keys() == set()
    everything = "\n".join(sources.values())
    assert {name for name in functions if f"def {name}(" not in everything} == set()
