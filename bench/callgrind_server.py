"""Instructions per activation of a whole ``acs standalone``, by the number of actions.

Where 100 actions are slower than one with the same containers, this tells whether the server does
more for each activation, or the same more slowly.  Counted by valgrind's callgrind in a closed
loop; what the idle server does in as long is subtracted.  The server is some thirty times slower
under it, so what it does by the clock (looks at its queues, batches of records) weighs as much
more.  With Docker alone: Debian 12's valgrind lacks ``pidfd_open(2)``, which watches processes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from standalone import (
    BenchFailed,
    Server,
    counts,
    folder,
    machine,
    require_wrk,
    write_json,
)

from acs_node.demo import DemoFailed

START_S = 180.0
CONTROL_S = 60.0


@dataclass(frozen=True, slots=True)
class Counted:
    """What one server needed; instructions of all its threads, the kernel's not among them."""

    actions: int
    containers: int
    requests: int
    errors: int
    idle_instructions: int
    instructions: int

    @property
    def per_activation(self) -> float:
        return (self.instructions - self.idle_instructions) / self.requests

    def print(self) -> None:
        print(
            f"{self.actions:4} actions, {self.containers} containers: "
            f"{self.per_activation / 1000:,.1f} thousand instructions an activation "
            f"({self.requests} of them, {self.errors} errors)",
            flush=True,
        )


class CountedServer(Server):
    """A server under callgrind, which counts when it is told to."""

    def __init__(self, folder: Path, actions: int, containers: int, users: int) -> None:
        super().__init__(folder, "docker", actions, containers, users)
        self.start_s = START_S
        self._out = folder / "callgrind.out"
        self.process.command = (
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=no"),
            *(f"--callgrind-out-file={self._out}", *self.process.command),
        )

    def count(self, work: Callable[[], object]) -> int:
        """Return how many instructions the server executes while ``work`` runs."""
        self._control("--instr=on")
        work()
        self._control("--instr=off")
        seen = set(self._out.parent.glob("callgrind.out.*"))
        self._control("--dump")
        (new,) = set(self._out.parent.glob("callgrind.out.*")) - seen
        total = re.search(r"^totals: (\d+)$", new.read_text(), re.MULTILINE)
        if total is None:
            raise BenchFailed(f"callgrind wrote no total into {new}")
        return int(total[1])

    def _control(self, order: str) -> None:
        done = subprocess.run(
            ["callgrind_control", order, str(self.process.pid)],
            capture_output=True,
            text=True,
            timeout=CONTROL_S,
        )
        if done.returncode:
            raise BenchFailed(f"callgrind_control {order}: {done.stderr.strip()}")


def measure(actions: int, containers: int, seconds: int) -> Counted:
    """Start a server with so many actions, and count."""
    with folder() as here, CountedServer(here, actions, containers, 2 * containers) as server:
        server.prime()
        idle = server.count(lambda: time.sleep(seconds))
        loads = []
        instructions = server.count(lambda: loads.append(server.load(seconds)))
        has, _ = server.containers()
        return Counted(actions, has, loads[0].requests, loads[0].errors, idle, instructions)


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="instructions of a server per activation")
    options.add_argument("--actions", type=counts, default=[1, 100])
    options.add_argument("--containers", type=int, default=100, help="at least one an action")
    options.add_argument("--seconds", type=int, default=10, help="of each count")
    options.add_argument("--json", type=Path, metavar="FILE", help="for the raw numbers")
    chosen = options.parse_args(arguments)
    results = []
    try:
        require_wrk()
        if shutil.which("valgrind") is None:
            raise BenchFailed("valgrind is not installed")
        for actions in chosen.actions:
            results.append(measure(actions, chosen.containers, chosen.seconds))
            results[-1].print()
    except (BenchFailed, DemoFailed, httpx.HTTPError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document = {"machine": machine(), "results": [asdict(result) for result in results]}
    write_json(chosen.json, document)
    return 1 if any(result.errors for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
