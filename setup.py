"""Build the C extensions of acs_core; everything else is in pyproject.toml.

A module is compiled exactly when a ``.pxd`` stands beside it.  ``ACS_EXT`` steers:
``auto`` (default) compiles and falls back to plain Python where no compiler works,
``require`` fails instead, ``none`` builds the pure wheel.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

MODE = os.environ.get("ACS_EXT", "auto")
if MODE not in ("auto", "require", "none"):
    raise SystemExit(f"ACS_EXT is {MODE!r}; it must be auto, require or none")


def extensions() -> list[Extension]:
    if MODE == "none":
        return []
    from Cython.Build import cythonize

    modules = [
        Extension(
            f"acs_core.{pxd.stem}",
            [str(pxd.with_suffix(".py"))],
            # No debug information: it would make each module five times as large.  No fused
            # multiply-add: a decision must be the same on every build and processor.
            extra_compile_args=["-O2", "-g0", "-ffp-contract=off"],
            optional=MODE == "auto",
        )
        for pxd in sorted(Path("src/acs_core").glob("*.pxd"))
        if pxd.stem != "__init__"
    ]
    return cythonize(
        modules,
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={"language_level": "3", "annotation_typing": False},
    )


setup(
    ext_modules=extensions(),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
