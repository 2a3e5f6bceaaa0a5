"""``acs replay --server``: a load sent to a running server; its actions, and what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection

if TYPE_CHECKING:
    from acs_core.workload import Workload
    from acs_node.live_replay import LiveReport

TIMEOUT_MS = 300_000  # the longest run of a load


def replay_live(
    connection: Connection,
    workload: Workload,
    *,
    speed: float,
    seed: int,
    shape: str,
    memory_mb: int,
    as_json: bool,
) -> LiveReport:
    """Deploy the load's actions, send its calls, remove the actions, print the report."""
    from acs_core.workload import Shape
    from acs_node.cli.simulations import Progress
    from acs_node.live_replay import FUNCTION, LiveReplay

    progress = Progress()
    paths = [
        connection.path("actions", f"acs-replay-{number}") for number in range(len(workload.names))
    ]
    body = {
        "exec": {"kind": "python:default", "code": FUNCTION},
        "limits": {"timeout": TIMEOUT_MS, "memory": memory_mb},
    }
    made = []
    try:
        for path in paths:
            progress.show(f"creating {path}")
            connection.call("PUT", path, doing="create an action", body=body)
            made.append(path)
        live = LiveReplay(
            lambda action: connection.url(f"{paths[action]}?blocking=true"),
            connection.headers(),
            speed,
        )
        report = asyncio.run(
            live.run(
                workload, seed, Shape(shape), lambda share: progress.show(f"sending: {share:4.0%}")
            )
        )
    finally:
        progress.clear()
        for path in made:
            connection.call("DELETE", path, doing="delete an action")
    if as_json:
        output.print_json(asdict(report))
    else:
        _print(report, workload, speed)
    return report


def _print(report: LiveReport, workload: Workload, speed: float) -> None:
    click.echo(
        f"{report.calls} calls of {len(workload.names)} actions in {report.elapsed_s:.1f} s, "
        f"{speed:g} times as fast as they came; times in ms of the clock on the wall"
    )
    columns = ["Answered", "Cold", "Refused", "Open", "Failed", "Late"]
    counts = [report.answered, report.cold, report.refused, report.open, report.failed, report.late]
    output.print_table(columns, [tuple(map(str, counts))])
    shares = ("p50", "p90", "p99", "p99.9")
    rows = [
        (name, *(f"{times[share]:,.1f}" if times else "-" for share in shares))
        for name, times in (("wait", report.wait_ms), ("latency", report.latency_ms))
    ]
    output.print_table(["", *shares], rows)
