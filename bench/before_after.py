"""Throughput of two builds of ``acs standalone``, the same bench in the same run.

python bench/before_after.py --before PYTHON [--pairs 5] [--seconds 4] [--json FILE]

PYTHON is the interpreter of an environment in which the other build is installed; this one is the
build after.  They are loaded alternately, with one action on containers as they come, and on 16.

On a machine with other work the rates say little; the processor time of the server and its
functions for an activation, which is printed as well, says more.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from pathlib import Path

import standalone

from acs_node.demo import ServerProcess

CONTAINERS = (None, 16)


TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(root: int) -> tuple[float, float]:
    """Return the processor time of a process, and of all that are below it."""
    parents, times = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = entry.read_text().rpartition(")")[2].split()
            pid = int(entry.parent.name)
            parents[pid] = int(fields[1])
            times[pid] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def is_below(pid: int) -> bool:
        while pid > 1 and pid != root:
            pid = parents.get(pid, 0)
        return pid == root

    below = sum(each for pid, each in times.items() if pid != root and is_below(pid))
    return times[root], below


class Build(standalone.Server):
    """A server of one build; ``cpu_us``: what an activation took of it, and of its functions."""

    def __init__(self, called: str, python: str, folder: Path, containers: int | None) -> None:
        super().__init__(folder, "process", containers=containers)
        self.name = f"{called}, containers: {'as they come' if containers is None else containers}"
        if called == "before" and containers is not None:
            # It keeps no place of the cap for calls between functions.
            memory_mb = str(max(4_000, 400 * containers))
            self.process = ServerProcess(
                folder, "--sandbox", "process", "--containers", str(containers),
                "--memory", memory_mb,
            )  # fmt: skip
        self.process.command = (python, *ServerProcess.command[1:])
        self.cpu_us: list[tuple[float, float]] = []
        self._priming = False

    def prime(self) -> None:
        self._priming = True
        super().prime()
        self._priming = False

    def load(self, seconds: int) -> standalone.Load:
        before = cpu_s(self.process.pid)
        load = super().load(seconds)
        after = cpu_s(self.process.pid)
        took = [(b - a) / load.requests * 1e6 for a, b in zip(before, after, strict=True)]
        if not self._priming:
            self.cpu_us.append((took[0], took[1]))
        return load


def main(arguments: list[str]) -> int:
    options = standalone.parser("Two builds of acs standalone, alternately")
    options.add_argument("--before", required=True, metavar="PYTHON")
    options.add_argument("--pairs", type=int, default=5)
    chosen = options.parse_args(arguments)
    document = {"seconds": chosen.seconds, "machine": standalone.machine()}
    print(f"{chosen.seconds} s each, {document['machine']}")
    results, cpu = [], []
    for containers in CONTAINERS:
        with (
            standalone.folder() as here,
            standalone.folder() as there,
            Build("before", chosen.before, here, containers) as before,
            Build("after", sys.executable, there, containers) as after,
        ):
            found = standalone.compare(before, after, chosen.pairs, chosen.seconds)
        results.append(found)
        used = {each.name: each.cpu_us for each in (before, after)}
        for name, pairs in used.items():
            server, functions = (statistics.median(each) for each in zip(*pairs, strict=True))
            print(f"  {name}: {server:.0f} us of the server, {functions:.0f} us of functions each")
        cpu.append(used)
    document["comparisons"] = [
        {**result.document(), "cpu_us": used} for result, used in zip(results, cpu, strict=True)
    ]
    standalone.write_json(chosen.json, document)
    return 1 if any(result.errors() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
