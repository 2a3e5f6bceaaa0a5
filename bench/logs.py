"""What collecting logs costs: a function that prints, with and without its logs being kept.

Both sides run the same function, which prints ``--lines`` lines; on one the action's log limit is
0, so nothing is read into records.  Measured alternately; the ratio is with logs over without.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from standalone import (
    BenchFailed,
    Comparison,
    Server,
    compare,
    folder,
    machine,
    parser,
    require_wrk,
    write_json,
)

from acs_node import wskprops

RECORD_S = 30.0


class Printing(Server):
    """A server whose one action prints, with a log limit of so many megabytes."""

    def __init__(
        self, folder: Path, sandbox: str, containers: int, lines: int, logs_mb: int
    ) -> None:
        super().__init__(folder, sandbox, containers=containers)
        self.name = f"{lines} lines a run, log limit {logs_mb} MB, {containers} containers"
        self._lines = lines
        self._logs_mb = logs_mb

    def _deploy(self) -> None:
        """Create the action, and look whether its log is kept, or not, as it should be."""
        code = (
            "def main(args):\n"
            f"    for number in range({self._lines}):\n"
            "        print('a line of a log, as long as most are:', number)\n"
            "    return {'greeting': 'hi'}\n"
        )
        body = {
            "exec": {"kind": "python:default", "code": code},
            "limits": {"logs": self._logs_mb},
            "annotations": self.annotations(),
        }
        headers = {"Authorization": self.authorization()}
        with httpx.Client(base_url=self.process.url, headers=headers, trust_env=False) as client:
            client.put(self.path().partition("?")[0], json=body).raise_for_status()
            reply = client.post(self.path(), json={}, timeout=90)
            if reply.status_code != 200:
                raise BenchFailed(f"wrong answer: {reply.status_code} {reply.text}")
            kept = len(self._record(client, reply.json()["activationId"])["logs"])
        if kept != (self._lines if self._logs_mb else 0):
            raise BenchFailed(f"{self.name}: the record has {kept} lines")

    def _record(self, client: httpx.Client, activation_id: str) -> Any:
        deadline_s = time.monotonic() + RECORD_S
        while True:
            path = f"{wskprops.API_PATH}/namespaces/_/activations/{activation_id}"
            reply = client.get(path)
            if reply.status_code == 200:
                return reply.json()
            if time.monotonic() > deadline_s:
                raise BenchFailed(f"no record of {activation_id} after {RECORD_S:g} s")
            time.sleep(0.01)


def comparison(options: argparse.Namespace) -> Comparison:
    """Measure both sides in turn."""
    with folder() as here, folder() as there:
        sides = [
            Printing(place, options.sandbox, options.containers, options.lines, logs_mb)
            for place, logs_mb in ((here, 0), (there, 10))
        ]
        with sides[0] as without, sides[1] as kept:
            return compare(without, kept, options.pairs, options.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser("throughput with logs over that without")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--lines", type=int, default=1, help="that the function prints")
    options.add_argument("--containers", type=int, default=4)
    chosen = options.parse_args(arguments)
    document = {"sandbox": chosen.sandbox, "seconds": chosen.seconds, "machine": machine()}
    print(f"sandbox {chosen.sandbox}, {chosen.seconds} s each, {document['machine']}")
    try:
        require_wrk()
        result = comparison(chosen)
    except (BenchFailed, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    document["comparison"] = result.document()
    write_json(chosen.json, document)
    return 1 if result.errors() else 0


if __name__ == "__main__":
    sys.exit(main())
