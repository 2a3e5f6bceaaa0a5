"""What is in a wheel, and that pyproject.toml says one thing about the versions it is made for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

from requirements import missing

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "acs_core"
BUILD_S = 300


def build(tmp_path: Path, mode: str) -> Path:
    """Build a wheel from a copy of the sources: nothing is left in the tree."""
    try:
        found = version("setuptools")
    except ImportError:
        found = "0"
    if int(found.partition(".")[0]) < 77:
        missing("setuptools", f"setuptools 77 is needed to build a wheel, {found} is installed")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
            *("-w", str(tmp_path), str(source)),
        ],
        env={**os.environ, "ACS_EXT": mode},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


def test_without_extensions_the_wheel_is_pure(tmp_path: Path) -> None:
    wheel = build(tmp_path, "none")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"acs_core/{path.name}" for path in CORE.iterdir() if path.is_file()}
    assert expected <= names
    assert {"acs_core/py.typed", "acs_core/scheduler.pxd", "acs_node/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".c"))]


def test_an_unknown_mode_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), "--version"],
        env={**os.environ, "ACS_EXT": "maybe"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode != 0
    assert "ACS_EXT is 'maybe'; it must be auto, require or none" in done.stderr


def test_the_versions_agree() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(document["project"]["classifiers"]))
    built = [f"cp{each.replace('.', '')}-*" for each in classified]
    assert document["tool"]["cibuildwheel"]["build"] == built
    assert document["project"]["requires-python"] == f">={classified[0]}"
    major, minor = sys.version_info[:2]
    assert f"{major}.{minor}" in classified
