"""What is in a wheel and a source archive; pyproject.toml says one thing about the versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from requirements import missing, needs_build

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "acs_core"
BUILD_S = 300


def sources(tmp_path: Path) -> Path:
    """Return a copy of what is packed: nothing is left in the tree."""
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
    return source


def run(folder: Path, *arguments: str) -> None:
    """Run this Python without extensions in mind."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "ACS_EXT": "none"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_extensions_the_wheel_is_pure(tmp_path: Path) -> None:
    source = sources(tmp_path)
    pip = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(source, *pip, "-w", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"acs_core/{path.name}" for path in CORE.iterdir() if path.is_file()}
    assert expected <= names
    assert {"acs_core/py.typed", "acs_core/scheduler.pxd", "acs_node/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".c"))]


def test_the_source_archive_has_all_that_a_compiled_build_needs(tmp_path: Path) -> None:
    source = sources(tmp_path)
    run(source, "setup.py", "-q", "sdist")
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {f"src/acs_core/{path.name}" for path in CORE.iterdir() if path.is_file()} <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert "src/acs_node/py.typed" in names
    assert "src/acs_node/runtimes/python/proxy.py" in names
    assert "src/acs_node/runtimes/nodejs/proxy.js" in names
    assert not [name for name in names if name.endswith((".so", ".c"))]


def test_what_a_compiled_wheel_installs_is_whole() -> None:
    """The wheel that is under test is looked at where it was installed: it is built once."""
    try:
        files = distribution("acs-scheduler").files or []
    except PackageNotFoundError:
        files = []
    names = {str(file) for file in files if str(file).startswith("acs_core/")}
    needs_build("compiled")
    if not names:
        missing("wheel", "the core that is under test was not installed from a wheel")
    assert {f"acs_core/{path.name}" for path in CORE.iterdir() if path.is_file()} <= names
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    declared = {path.stem for path in CORE.glob("*.pxd") if path.stem != "__init__"}
    built = {name for name in names if name.endswith(".so")}
    assert built == {f"acs_core/{module}{suffix}" for module in declared}
    assert not [name for name in names if name.endswith(".c")]


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
