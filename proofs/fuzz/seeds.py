"""Write the inputs of the target ``trace`` anew: beginnings of the recorded traces.

    PYTHONPATH=src python proofs/fuzz/seeds.py

Wanted whenever the form of traces has changed: an earlier one is refused at its first line, and
nothing behind that is fuzzed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus" / "trace"
TRACES = Path(__file__).parents[2] / "tests" / "core" / "traces"
SIZE_MAX = 4096
"""Bytes; `make fuzz` looks at no more of an input."""


def main() -> None:
    for path in CORPUS.iterdir():
        path.unlink()
    for path in sorted(TRACES.iterdir()):
        lines = path.read_bytes().splitlines(keepends=True)
        for count in (2, 5, 9, 14):
            data = b"c" + b"".join(lines[:count])
            if len(data) <= SIZE_MAX:
                (CORPUS / hashlib.sha1(data).hexdigest()[:12]).write_bytes(data)


if __name__ == "__main__":
    main()
