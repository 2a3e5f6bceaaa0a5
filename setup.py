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

# Their objects hold text, numbers, tuples of such, and one another: no cycle goes through them, so
# the collector need not look at the hundreds of thousands that may be there.  A `.pxd` beside a
# plain source cannot say it: Cython takes directives like this one from the source alone.
WITHOUT_CYCLES = ("demand", "effects", "events", "forecast")


def extensions() -> list[Extension]:
    if MODE == "none":
        return []
    from Cython.Build import cythonize
    from Cython.Compiler.Options import get_directive_defaults

    # Known to Cython as a decorator only; a default makes it one that can be given here.
    get_directive_defaults()["no_gc"] = False
    modules = {
        pxd.stem: Extension(
            f"acs_core.{pxd.stem}",
            [str(pxd.with_suffix(".py"))],
            # No debug information: it would make each module five times as large.  No fused
            # multiply-add: a decision must be the same on every build and processor.
            extra_compile_args=["-O2", "-g0", "-ffp-contract=off"],
            optional=MODE == "auto",
        )
        for pxd in sorted(Path("src/acs_core").glob("*.pxd"))
        if pxd.stem != "__init__"
    }
    extensions = []
    for no_gc in (False, True):
        extensions += cythonize(
            [module for name, module in modules.items() if (name in WITHOUT_CYCLES) == no_gc],
            build_dir="build/cython",
            nthreads=os.cpu_count() or 1,
            compiler_directives={
                "language_level": "3",
                "annotation_typing": False,
                "no_gc": no_gc,
            },
        )
    return extensions


setup(
    ext_modules=extensions(),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
