"""Where traces are: files, standard input, and those that are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import click

TRACES = Path(__file__).parent / "traces"


def shipped() -> list[str]:
    """Return the names of the traces that are installed with this package."""
    return sorted([path.stem for path in TRACES.glob("*.csv")])


@contextmanager
def open_trace(trace: str) -> Iterator[tuple[bool, Iterator[str]]]:
    """Open a file, - for standard input, or a shipped trace where no file has its name.

    Returns: (whether it is a load, and not a trace of decisions; its lines).
    Raises: OSError; FileNotFoundError names the shipped ones.
    """
    path = trace
    if trace != "-" and not Path(trace).exists():
        if trace not in shipped():
            raise FileNotFoundError(f"it does not exist; shipped are {', '.join(shipped())}")
        path = str(TRACES / f"{trace}.csv")
    # A line that is not ASCII is damaged, and the reader says which one it is.
    with click.open_file(path, encoding="utf-8", errors="surrogateescape") as lines:
        first = lines.readline()
        is_load = "," in first and not first.lstrip().startswith("{")
        # Without a line chain would read on at the end of a terminal's input.
        yield is_load, chain([first], lines) if first else iter(())
