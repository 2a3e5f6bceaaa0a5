"""Fuzz one target, guided by the coverage of ``acs_core`` on the plain build.

    python proofs/fuzz/run.py scheduler|pool|trace [libFuzzer's arguments, folders of inputs]

New inputs go to the first folder.  ``make fuzz`` runs all three.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

PROOFS = Path(__file__).parents[1]
sys.path += [str(PROOFS), str(PROOFS.parent / "tests")]

with atheris.instrument_imports(include=["acs_core"]):
    import acs_core
    import acs_core.trace  # which the package does not import by itself

from fuzz import worlds  # noqa: E402 (after what it uses was instrumented)

if __name__ == "__main__":
    if acs_core.COMPILED:
        sys.exit("fuzzing is guided by the coverage of Python code: use the plain build")
    target = worlds.TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
