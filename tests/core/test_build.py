"""What the core is made of: compiled exactly where a ``.pxd`` stands, and without a window outside.

ACS_EXPECT=compiled or plain says which build is meant to be under test.
"""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path

import pytest
from requirements import missing

import acs_core

FOLDER = Path(acs_core.__file__).parent
MODULES = sorted([path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"])
DECLARED = {path.stem for path in FOLDER.glob("*.pxd") if path.stem != "__init__"}
EXPECTED = os.environ.get("ACS_EXPECT", "")

FORBIDDEN = {
    "asyncio",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "time",
    "uuid",
}
LOCKING = {"semaphores"}
"""The one module that may hold a lock."""


def imports_of(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def compiled() -> set[str]:
    files = {name: importlib.import_module(f"acs_core.{name}").__file__ or "" for name in MODULES}
    return {name for name, file in files.items() if not file.endswith(".py")}


def test_the_build_is_the_expected_one() -> None:
    if EXPECTED not in ("compiled", "plain"):
        missing("build", f"ACS_EXPECT is {EXPECTED!r}, which names no build")
    assert compiled() == (DECLARED if EXPECTED == "compiled" else set())
    assert (EXPECTED == "compiled") is acs_core.COMPILED


def test_a_build_is_whole() -> None:
    assert compiled() in (set(), DECLARED), "some modules are compiled and some are not"
    assert (compiled() == DECLARED) is acs_core.COMPILED


def test_every_declaration_has_its_module() -> None:
    assert set(MODULES) >= DECLARED
    assert (FOLDER / "py.typed").exists()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reaches_outside(module: str) -> None:
    imports = imports_of(module)
    assert not imports & FORBIDDEN
    assert "threading" not in imports or module in LOCKING
    assert "acs_node" not in imports


@pytest.mark.parametrize("module", MODULES)
def test_no_module_opens_or_prints(module: str) -> None:
    calls = {
        node.func.id
        for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}
