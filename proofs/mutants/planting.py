"""Runs tests against a copy of the core in which one module was altered.

pytest and Hypothesis are loaded once; each run is a fork of that process, which imports the
altered core and the tests anew.  The tree itself is only read.  Every test has five times the
processor time that it takes on the core as it is; whoever needs more, or sleeps, has found the
fault as well.
"""

from __future__ import annotations

import os
import py_compile
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "acs_core"

os.environ["HYPOTHESIS_PROFILE"] = "faults"
# Plugins that the core's tests do not need cost as much as most tests.
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
os.environ.pop("ACS_EXPECT", None)

import hypothesis.stateful  # noqa: E402
import hypothesis.strategies  # noqa: F401, E402
import pytest  # noqa: E402
import sortedcontainers  # noqa: F401, E402

MEMORY_MAX_BYTES = 4 << 30
TIMES_MAX = 5
SPARE_S = 2.0
NEW_TEST_S = 30.0
"""Processor time taken for the clean time of a test that was never measured."""


@dataclass
class Run:
    """Tests to run, files or node ids, in this order; the module to alter and its text, if any.

    ``subject`` says what is planted.
    """

    tests: list[str]
    file: str = ""
    source: str = ""
    subject: str = ""


@dataclass
class Result:
    """How a run ended: ``found_by`` names the first test that failed, "" when all passed.

    ``times`` has the processor time of each test that ended.
    """

    found_by: str
    seconds: float
    output: str
    times: dict[str, float]


class Planter:
    """Copies of the core, one for each of ``jobs`` runs at the same time."""

    def __init__(self, jobs: int, times: dict[str, float]) -> None:
        self._times = times
        self._directory = Path(tempfile.mkdtemp(prefix="mutants."))
        self._copies = []
        for number in range(jobs):
            copy = self._directory / str(number) / "acs_core"
            shutil.copytree(CORE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
            for path in copy.glob("*.py"):
                py_compile.compile(str(path))
            self._copies.append(copy)

    def __enter__(self) -> Planter:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._directory)

    def run(self, runs: Iterable[Run]) -> Iterator[tuple[Run, Result]]:
        """Yield each run with its result, as they end."""
        free = list(self._copies)
        busy: dict[int, tuple[Run, Path, float]] = {}
        waiting = iter(runs)
        more = True
        while True:
            while more and free:
                run = next(waiting, None)
                if run is None:
                    more = False
                    break
                copy = free.pop()
                self._plant(run, copy)
                pid = os.fork()
                if pid == 0:
                    self._child(run, copy)
                busy[pid] = run, copy, time.monotonic()
            if not busy:
                return
            pid, status = os.wait()
            run, copy, began = busy.pop(pid)
            result = self._result(copy, status, time.monotonic() - began)
            self._restore(run, copy)
            free.append(copy)
            yield run, result

    def _plant(self, run: Run, copy: Path) -> None:
        if run.file:
            (copy / run.file).write_text(run.source)
            # Two texts of one second and one length have the same bytecode for the importer.
            for stale in (copy / "__pycache__").glob(f"{Path(run.file).stem}.*"):
                stale.unlink()

    def _restore(self, run: Run, copy: Path) -> None:
        if run.file:
            shutil.copy2(CORE / run.file, copy / run.file)
            py_compile.compile(str(copy / run.file))

    def _child(self, run: Run, copy: Path) -> None:
        code = 99
        try:
            code = self._tests(run, copy)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _tests(self, run: Run, copy: Path) -> int:
        out = os.open(copy.parent / "output", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(ROOT)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(copy.parent))
        watch = _Watch(self._times, copy.parent)
        options = ["-q", "-x", "--tb=short", "-p", "no:faulthandler", "-W", "ignore"]
        options += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
        return int(pytest.main([*options, *run.tests], plugins=[watch]))

    def _result(self, copy: Path, status: int, seconds: float) -> Result:
        output = (copy.parent / "output").read_text(errors="replace")
        notes = copy.parent / "notes"
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        times = {}
        begun = failed = ""
        for line in lines:
            what, _, test = line.partition(" ")
            if what == "begun":
                begun = test
            elif what == "failed":
                failed = failed or test
            else:
                times[test] = float(what)
        found_by = ""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            how = "time-out" if number in _ALARMS else signal.Signals(number).name
            found_by = f"{begun or 'the import'} ({how})"
        elif os.WEXITSTATUS(status) in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
            found_by = failed or "the import of the tests"
        elif os.WEXITSTATUS(status) != pytest.ExitCode.OK:
            raise RuntimeError(f"pytest ended with {os.WEXITSTATUS(status)}:\n{output[-2000:]}")
        return Result(found_by, seconds, output, times)


_ALARMS = (signal.SIGPROF, signal.SIGALRM)


class _Watch:
    """A plugin that limits the time of each test, and notes what became of it."""

    def __init__(self, times: dict[str, float], directory: Path) -> None:
        self._times = times
        self._notes = (directory / "notes").open("a", buffering=1)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        print("begun", item.nodeid, file=self._notes)
        limit_s = TIMES_MAX * self._times.get(item.nodeid, NEW_TEST_S) + SPARE_S
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        # Whoever waits for ever uses no processor; ten times, because others use it, too.
        signal.setitimer(signal.ITIMER_REAL, 10 * limit_s)
        self._began = time.process_time()

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        print(time.process_time() - self._began, item.nodeid, file=self._notes)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print("failed", report.nodeid, file=self._notes)
