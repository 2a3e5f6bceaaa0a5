"""Compile ``step_loop`` against the installed core."""

from __future__ import annotations

import shutil
from pathlib import Path

import acs_core

SOURCES = ("step_loop.py", "step_loop.pxd")


class CannotBuild(Exception):
    """Why there is no compiled loop."""


def build_loop(folder: Path) -> Path:
    """Build the compiled loop into ``folder`` and return the file.

    Raises: CannotBuild when the core is the plain build, or Cython or a compiler is missing.
    """
    if not acs_core.COMPILED:
        raise CannotBuild("the core is the plain build")
    try:
        from Cython.Build import cythonize
        from setuptools import Distribution, Extension
        from setuptools.errors import BaseError
    except ImportError as error:
        raise CannotBuild(str(error)) from None
    for name in SOURCES:
        shutil.copy(Path(__file__).with_name(name), folder)
    modules = cythonize(
        Extension("step_loop", [str(folder / "step_loop.py")], extra_compile_args=["-O2", "-g0"]),
        include_path=[str(Path(acs_core.__file__).parents[1])],
        compiler_directives={"language_level": "3", "annotation_typing": False},
        quiet=True,
    )
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder), str(folder / "objects")
    command.ensure_finalized()
    try:
        command.run()
    except BaseError as error:
        raise CannotBuild(str(error)) from None
    for name in SOURCES:
        # Beside the compiled module a source of the same name would only confuse.
        (folder / name).unlink()
    (built,) = folder.glob("step_loop.*.so")
    return built
