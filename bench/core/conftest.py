"""Which build of the loops is measured: driven from Python, or compiled like an embedder's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import acs_core

sys.path.append(str(Path(__file__).parent))

from build_loop import CannotBuild, build_loop


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, object]) -> None:
    """Let saved results say which build of the core they are of."""
    machine_info["acs_core_compiled"] = acs_core.COMPILED


@pytest.fixture(scope="session")
def compiled_loop_file(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled loop; None, and its cases are skipped, where it cannot be built."""
    try:
        return build_loop(tmp_path_factory.mktemp("loop"))
    except CannotBuild:
        return None


@pytest.fixture(params=["from python", "compiled loop"])
def step_loop(request: pytest.FixtureRequest, compiled_loop_file: Path | None) -> ModuleType:
    """The module with the loops, in both builds."""
    path: Path | None = Path(__file__).with_name("step_loop.py")
    if request.param == "compiled loop":
        path = compiled_loop_file
        if path is None:
            pytest.skip("needs the compiled core, Cython and a C compiler")
    assert path is not None
    spec = importlib.util.spec_from_file_location("step_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
