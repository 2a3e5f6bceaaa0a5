"""Throughput of two builds of ``acs standalone``, the same bench in the same run.

python bench/before_after.py --before PYTHON [--pairs 5] [--seconds 4] [--json FILE]

PYTHON is the interpreter of an environment in which the other build is installed; this one is the
build after.  They are loaded alternately, with one action on containers as they come, and on 16.
"""

from __future__ import annotations

import sys
from pathlib import Path

import standalone

from acs_node.demo import ServerProcess

CONTAINERS = (None, 16)


class Build(standalone.Server):
    """A server of one build."""

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


def main(arguments: list[str]) -> int:
    options = standalone.parser("Two builds of acs standalone, alternately")
    options.add_argument("--before", required=True, metavar="PYTHON")
    options.add_argument("--pairs", type=int, default=5)
    chosen = options.parse_args(arguments)
    document = {"seconds": chosen.seconds, "machine": standalone.machine()}
    print(f"{chosen.seconds} s each, {document['machine']}")
    results = []
    for containers in CONTAINERS:
        with (
            standalone.folder() as here,
            standalone.folder() as there,
            Build("before", chosen.before, here, containers) as before,
            Build("after", sys.executable, there, containers) as after,
        ):
            results.append(standalone.compare(before, after, chosen.pairs, chosen.seconds))
    document["comparisons"] = [result.document() for result in results]
    standalone.write_json(chosen.json, document)
    return 1 if any(result.errors() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
