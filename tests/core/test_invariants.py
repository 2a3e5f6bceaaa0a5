"""docs/invariants.md, the proofs and the planted faults name each other, and nothing is left out.

A proof names an invariant in its docstrings and comments: ``S4``, or ``C1-C12`` for a range.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROOFS = ROOT / "proofs"

sys.path.append(str(PROOFS / "mutants"))

import generic  # noqa: E402  # it is a program's, and no package's

ROW = re.compile(r"^\| ([A-Z]\d+) \| (.*) \| (.*) \|$", re.M)
NUMBER = r"[A-Z]\d{1,2}"


def invariants() -> dict[str, str]:
    """Return each invariant with all that its row says."""
    rows = ROW.findall((ROOT / "docs" / "invariants.md").read_text())
    found = {number: f"{says} | {proof}" for number, says, proof in rows}
    assert len(found) == len(rows) > 60
    return found


def spread_out(text: str) -> str:
    """Write ranges of numbers out: N1-N3 and N1 to N3 are N1 N2 N3."""

    def written(match: re.Match[str]) -> str:
        letter, low, high = match[1], int(match[2]), int(match[3])
        return " ".join(f"{letter}{number}" for number in range(low, high + 1))

    return re.sub(r"\b([A-Z])(\d{1,2})(?:-| to )\1(\d{1,2})\b", written, text)


def prose(source: str) -> str:
    """Return the docstrings and comments of a file."""
    parts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            parts.append(ast.get_docstring(node) or "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            parts.append(token.string)
    return spread_out("\n".join(parts))


def named_by_proofs() -> dict[str, set[str]]:
    """Return, by proof file, the numbers that it names."""
    letters = {number[0] for number in invariants()}
    found = {}
    for path in PROOFS.glob("test_*.py"):
        numbers = set(re.findall(rf"\b{NUMBER}\b", prose(path.read_text())))
        found[path.name] = {number for number in numbers if number[0] in letters}
    return found


def chosen() -> list[dict[str, object]]:
    return tomllib.loads((PROOFS / "mutants" / "chosen.toml").read_text())["mutant"]  # type: ignore[no-any-return]


NAMED = named_by_proofs()


@pytest.mark.parametrize("number", invariants())
def test_an_invariant_is_named_by_a_proof(number: str) -> None:
    assert [name for name, numbers in NAMED.items() if number in numbers]


@pytest.mark.parametrize("name", NAMED)
def test_a_proof_names_an_invariant_and_only_such_that_are_there(name: str) -> None:
    assert NAMED[name]
    assert NAMED[name] <= invariants().keys()


def test_what_the_rows_name_is_there() -> None:
    """Files, state machines, tests (to their first dots) and scenarios."""
    files = [*PROOFS.glob("*.py"), *(ROOT / "tests").glob("**/*.py")]
    source = "\n".join(path.read_text() for path in files)
    names = {path.name for path in files}
    text = (ROOT / "docs" / "invariants.md").read_text()
    quoted = re.findall(r"`(?:\w+/)*(\w+\.py)`", text)
    assert len(quoted) > 20
    assert set(quoted) <= names
    original = (ROOT / "docs" / "original.md").read_text()
    starts = re.findall(r"`(test_\w+?)(?:_?…)?`", text + original)
    assert len(starts) > 20
    for start in starts:
        assert f"def {start}" in source, start
    for scenario in re.findall(r"scenarios? ((?:`\w+…?`(?:, )?)+)", text):
        for name in re.findall(r"`(\w+?)_?…?`", scenario):
            assert list((ROOT / "tests" / "scenarios").glob(f"{name}*.txt")), name
    for machine in set(re.findall(r"\b[A-Z]\w+(?:Machine|World|Pool|Prewarm)\b", text)):
        if machine not in ("NestedSemaphore", "ContainerPool"):
            assert f"class {machine}(" in source, machine


def test_every_invariant_has_a_planted_fault_that_its_proof_finds() -> None:
    """A proof that has never failed proves little; so no invariant is without one."""
    planted: set[str] = set()
    for mutant in chosen():
        numbers = set(mutant["invariants"])  # type: ignore[call-overload]
        assert numbers <= invariants().keys(), mutant["name"]
        proof = str(mutant["proof"]).partition("::")[0]
        if not proof.startswith("tests/"):
            assert numbers <= NAMED[proof], (mutant["name"], proof)
        planted |= numbers
    assert invariants().keys() - planted == set()


def test_each_planted_fault_has_its_place_in_the_core() -> None:
    for mutant in chosen():
        source = (ROOT / "src" / "acs_core" / str(mutant["file"])).read_text()
        assert source.count(str(mutant["old"])) == 1, mutant["name"]


def test_each_fault_that_is_said_to_survive_can_be_planted() -> None:
    """A reason for what nobody could plant any more would hide what came in its place."""
    listed = tomllib.loads((PROOFS / "mutants" / "survivors.toml").read_text())["survivors"]
    core = (ROOT / "src" / "acs_core").glob("*.py")
    there = {m.key for path in core for m in generic.mutants_of(path.stem, path.read_text())}
    assert {key for group in listed for key in group["mutants"]} - there == set()


def test_the_generic_faults_of_every_module_have_tests_to_find_them() -> None:
    source = (PROOFS / "mutants" / "__main__.py").read_text()
    for path in (ROOT / "src" / "acs_core").glob("*.py"):
        assert f'    "{path.stem}": ' in source, path.stem


def test_each_known_fault_of_the_original_has_its_counterpart_or_a_reason() -> None:
    rows = re.findall(
        r"^\| (\d+) \| .* \| (.*) \| (.*) \|$", (ROOT / "docs" / "original.md").read_text(), re.M
    )
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) == 43
    names = {str(mutant["name"]) for mutant in chosen()}
    named: set[str] = set()
    for number, here, planted in rows:
        faults = set(re.findall(r"`([a-z\d]+(?:-[a-z\d]+)+)`", planted))
        assert faults <= names, number
        assert faults or re.match(r"none: \w+", planted), number
        assert set(re.findall(rf"\b{NUMBER}\b", here)) <= invariants().keys(), number
        named |= faults
    assert {str(m["name"]) for m in chosen() if "original" in m} <= named
