"""What arrives, read from the lines of a published trace: the load of a simulation.

Two formats are known by their first line, both of the Azure Functions traces.  Of 2019: a row for
each function with its calls in each minute (columns ``HashOwner``, ``HashApp``, ``HashFunction``,
maybe ``Trigger``, then one for each minute).  Of 2021: a row for each call (``app``, ``func``,
``end_timestamp``, ``duration``, in seconds).  Lines are read once, one by one; numbers are kept.

What the format of 2019 does not say is drawn: when in its minute a call comes (``POISSON``: each
anywhere; ``BURSTY``: all of a function within moments of one another), and how long it runs: each
function has a median from the log-normal distribution that was published for that trace (log mean
-0.38, sigma 2.36, in seconds; quoted, not checked), its runs a spread of RUN_SIGMA about it.
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NoReturn

from .chance import Chance

MINUTE_US: Final = 60_000_000
CALLS_MAX: Final = 10_000_000
"""Calls of a function in one minute."""
MINUTES_MAX: Final = 60 * 24 * 366
RUN_MIN_US: Final = 1_000
RUN_MAX_US: Final = 300_000_000
"""Runs are kept within these: a log-normal distribution has a tail that no time limit allows."""
RUN_LOG_MEAN: Final = -0.38
RUN_LOG_SIGMA: Final = 2.36
RUN_SIGMA: Final = 0.3
BURST_GAP_US: Final = 20_000.0
"""Mean time between the calls of a burst."""
SECONDS_MAX: Final = 1e9

_MINUTE = re.compile(r"(?:minute_)?([1-9][0-9]{0,6})")


class Shape(Enum):
    """How the calls of a minute lie in it, where a trace only counts them."""

    POISSON = "poisson"
    BURSTY = "bursty"


class WorkloadError(ValueError):
    """The lines are no trace: says which line and column, what is there, and what was expected."""


class Workload:
    """Calls in the order of time, of actions that are numbered from 0.

    ``names`` are the actions, ``count`` all calls, ``span_us`` when the last may come.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.count = 0
        self.span_us = 0

    def arrivals(self, seed: int, shape: Shape = Shape.POISSON) -> Iterator[tuple[int, int, int]]:
        """Yield (when, which action, how long it runs) in microseconds; the same for each seed."""
        raise NotImplementedError


class _Counted(Workload):
    """Calls per minute.  Of each minute: action and calls, one after the other."""

    def __init__(self, names: list[str], minutes: list[array[int]]) -> None:
        super().__init__(names)
        self._minutes = minutes
        self.count = sum([sum(minute[1::2]) for minute in minutes])
        self.span_us = len(minutes) * MINUTE_US

    def arrivals(self, seed: int, shape: Shape = Shape.POISSON) -> Iterator[tuple[int, int, int]]:
        chance = Chance(seed)
        median_us = math.exp(RUN_LOG_MEAN) * 1_000_000
        medians = [chance.lognormal(median_us, RUN_LOG_SIGMA) for _ in self.names]
        for index, minute in enumerate(self._minutes):
            calls = []
            for place in range(0, len(minute), 2):
                action, count = minute[place], minute[place + 1]
                at_us = float(chance.below(MINUTE_US))
                for _ in range(count):
                    run_us = int(chance.lognormal(medians[action], RUN_SIGMA))
                    run_us = min(max(run_us, RUN_MIN_US), RUN_MAX_US)
                    calls.append((int(at_us), action, run_us))
                    if shape is Shape.POISSON:
                        at_us = float(chance.below(MINUTE_US))
                    else:
                        at_us += chance.exponential(BURST_GAP_US)
                        at_us %= MINUTE_US  # what is beyond it is of this minute all the same
            calls.sort()
            for at_in_us, action, run_us in calls:
                yield index * MINUTE_US + at_in_us, action, run_us


class _Listed(Workload):
    """Single calls, sorted by their start."""

    def __init__(
        self, names: list[str], starts: array[int], actions: array[int], runs: array[int]
    ) -> None:
        super().__init__(names)
        self._order = array("q", sorted(range(len(starts)), key=starts.__getitem__))
        self._starts, self._actions, self._runs = starts, actions, runs
        self._first_us = starts[self._order[0]]
        self.count = len(starts)
        self.span_us = starts[self._order[-1]] - self._first_us

    def arrivals(self, seed: int, shape: Shape = Shape.POISSON) -> Iterator[tuple[int, int, int]]:
        for row in self._order:
            yield self._starts[row] - self._first_us, self._actions[row], self._runs[row]


def read_workload(lines: Iterable[str], minutes_max: int = MINUTES_MAX) -> Workload:
    """Read a trace of either format.

    Args:
      lines: Of the file, with their ends; read to the last.
      minutes_max: How many minutes are taken from the beginning, >= 1.
    Raises: WorkloadError.  Memory: O(minutes with calls), or O(calls) where each has a row.
    """
    rows = csv.reader(lines, strict=True)
    try:
        for row in rows:
            header = [name.strip().lower() for name in row]
            if "hashfunction" in header:
                return _read_counted(rows, header, minutes_max)
            if "end_timestamp" in header:
                return _read_listed(rows, header, minutes_max)
            raise WorkloadError(
                f"line 1: the columns are {','.join(row)!r:.120}; expected those of the Azure "
                f"Functions traces, HashOwner,HashApp,HashFunction,1,2,... or "
                f"app,func,end_timestamp,duration"
            )
    except csv.Error as error:
        fault = f"line {rows.line_num}: {error}; expected comma-separated values"
        raise WorkloadError(fault) from None
    raise WorkloadError("line 1: there is nothing; expected a line with the names of columns")


def _read_counted(rows: Iterator[list[str]], header: list[str], minutes_max: int) -> Workload:
    name_column = header.index("hashfunction")
    minute_of: list[int] = []
    for column, name in enumerate(header):
        found = _MINUTE.fullmatch(name)
        minute_of.append(int(found[1]) - 1 if found is not None else -1)
        if minute_of[column] >= MINUTES_MAX:
            raise WorkloadError(
                f"line 1, column {name}: expected minutes in 1..{MINUTES_MAX}, as 1 or minute_1"
            )
    if max(minute_of) < 0:
        raise WorkloadError("line 1: no column is a minute; expected 1,2,... or minute_1,minute_2")
    length = min(max(minute_of) + 1, minutes_max)
    minutes: list[array[int]] = [array("q") for _ in range(length)]
    names: list[str] = []
    for line, row in _checked(rows, header):
        action = len(names)
        names.append(row[name_column])
        for column, minute in enumerate(minute_of):
            if not 0 <= minute < length:
                continue
            text = row[column].strip()
            # Some tools write counts as 3.0; nothing else behind a point is one.
            whole = text.removesuffix(".0")
            if not (whole.isascii() and whole.isdigit()) or int(whole[:9]) > CALLS_MAX:
                expected = f"an integer in 0..{CALLS_MAX}"
                _refuse(line, header[column], text, expected)
            if int(whole) > 0:
                minutes[minute].extend((action, int(whole)))
    if not names:
        raise WorkloadError("line 2: there is nothing; expected a row for each function")
    return _Counted(names, minutes)


def _read_listed(rows: Iterator[list[str]], header: list[str], minutes_max: int) -> Workload:
    for name in ("app", "func", "duration"):
        if name not in header:
            raise WorkloadError(f"line 1: there is no column {name}; expected one")
    columns = [header.index(name) for name in ("app", "func", "end_timestamp", "duration")]
    number_of: dict[tuple[str, str], int] = {}
    starts, actions, runs = array("q"), array("q"), array("q")
    for line, row in _checked(rows, header):
        app, func, end, duration = [row[column].strip() for column in columns]
        end_us = _microseconds(line, "end_timestamp", end)
        run_us = _microseconds(line, "duration", duration)
        starts.append(end_us - run_us)
        runs.append(min(run_us, RUN_MAX_US))
        actions.append(number_of.setdefault((app, func), len(number_of)))
    if not starts:
        raise WorkloadError("line 2: there is nothing; expected a row for each call")
    names = [func for _, func in number_of]
    first_us = min(starts)
    kept = [row for row, at in enumerate(starts) if at - first_us < minutes_max * MINUTE_US]
    starts, actions, runs = [
        array("q", [numbers[row] for row in kept]) for numbers in (starts, actions, runs)
    ]
    return _Listed(names, starts, actions, runs)


def _checked(rows: Iterator[list[str]], header: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with its line."""
    for line, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise WorkloadError(
                f"line {line}: it has {len(row)} columns; expected {len(header)}, as line 1"
            )
        yield line, row


def _microseconds(line: int, column: str, text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= SECONDS_MAX:
        _refuse(line, column, text, f"seconds in 0..{SECONDS_MAX:.0f}")
    return round(seconds * 1_000_000)


def _refuse(line: int, column: str, text: str, expected: str) -> NoReturn:
    raise WorkloadError(f"line {line}, column {column}: {text!r:.60}; expected {expected}")
