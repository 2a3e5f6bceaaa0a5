"""The example in Cython: built against the installed core, run, and refused by another ABI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from requirements import missing, needs_build

import acs_core

EXAMPLE = Path(__file__).parents[2] / "examples" / "cython_driver"
SITE = Path(acs_core.__file__).parents[1]
BUILD_S = 300


def python(folder: Path, *arguments: str, site: Path = SITE) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "built"), str(site)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "CFLAGS": "-O1 -g0"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )


def built(folder: Path, site: Path = SITE) -> Path:
    shutil.copytree(EXAMPLE, folder)
    done = python(folder, *("setup.py", "-q", "build_ext", "--build-lib", "built"), site=site)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(autouse=True)
def compiler() -> None:
    needs_build("compiled")
    try:
        import Cython  # noqa: F401
    except ImportError as error:
        missing("cython", str(error))


def test_it_runs_and_its_hot_path_looks_nothing_up(tmp_path: Path) -> None:
    folder = built(tmp_path / "example")
    done = python(folder, "-c", "import driver; driver.main()")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "100000 jobs of 8 kinds in 4 containers\n"
    code = (folder / "driver.c").read_text()
    for name in ("submit", "drive", "perform"):
        start = re.search(rf"^static PyObject \*__pyx_f_6driver_6Driver_{name}\(.*\{{$", code, re.M)
        assert start is not None
        body = code[start.start() : code.index("\n}\n", start.start())]
        # Neither an attribute nor a method is looked up by its name.
        assert not re.search("GetAttr|CallMethod|VectorcallMethod", body)


def test_it_is_refused_where_the_abi_is_another(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "acs_core").mkdir(parents=True)
    number = acs_core.ABI + 1
    for path in (SITE / "acs_core").glob("*.pxd"):
        text = path.read_text().replace(f"Abi{acs_core.ABI}", f"Abi{number}")
        (other / "acs_core" / path.name).write_text(text)
    (other / "acs_core" / "__init__.py").touch()
    done = python(built(tmp_path / "example", other), "-c", "import driver")
    assert done.returncode == 1
    assert (
        f"ImportError: an extension was built against ABI {number} of acs_core, "
        f"but the one installed has ABI {acs_core.ABI}: build the extension again" in done.stderr
    )
