"""``acs replay``: a trace of decisions, run through this build's core again, or a load."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from acs_node.cli import output
from acs_node.cli.connection import Connection
from acs_node.cli.errors import BadSetting
from acs_node.cli.live import replay_live
from acs_node.cli.options import GlobalOptions, json_option
from acs_node.cli.simulations import RULES, Setting, cluster_options, replay_load
from acs_node.workload_file import open_trace

if TYPE_CHECKING:
    from acs_core.trace import Comparison, Difference, ReplayReport
    from acs_core.workload import Workload


@click.command()
@click.argument("trace")
@click.option(
    "--rule",
    type=click.Choice(RULES),
    help="Of decisions: ask this rule as well, and show where it would decide otherwise. "
    "Of a load: simulate this one only.",
)
@click.option(
    "--check", is_flag=True, help="Of decisions: also assert the invariants after each step."
)
@click.option("--cut", is_flag=True, help="Accept a trace that was cut off.")
@click.option(
    "--invokers",
    type=click.IntRange(1, 100_000),
    default=4,
    show_default=True,
    help="Of the simulated cluster.",
)
@click.option(
    "--server",
    "to_server",
    is_flag=True,
    help="Of a load: send it to the running server that --apihost names, and simulate nothing.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0.01, 10_000),
    default=1,
    show_default=True,
    help="With --server: divide all times of the load by this.",
)
@cluster_options
@json_option
@click.pass_context
def replay(
    context: click.Context,
    /,
    trace: str,
    rule: str | None,
    cut: bool,
    check: bool,
    invokers: int,
    to_server: bool,
    speed: float,
    minutes: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run TRACE again.  It is a file, - for standard input, or a shipped load.

    \b
    A trace of decisions, as a server with --trace writes it: through the scheduler,
    comparing every effect.  Exits 0 when all are the same, 1 at the first that
    differs, 2 when TRACE is damaged.

    \b
    A load, a trace of Azure Functions of 2019 or 2021 (shipped: azure2019,
    azure2021): through a simulated cluster, under each rule; the other options say
    of what cluster.  With --server: to a running server, as functions that sleep as
    long as a call ran.  Exits 0, 1 when calls failed there, 2 when TRACE is damaged.
    """
    from acs_core.demand import DemandRule, OpenWhiskRule, RuntimeFitRule
    from acs_core.trace import replay as run
    from acs_core.workload import MINUTES_MAX, read_workload

    rules: dict[str, DemandRule] = {"openwhisk": OpenWhiskRule(), "fit": RuntimeFitRule()}
    try:
        with open_trace(trace) as (is_load, lines):
            if is_load:
                workload = read_workload(lines, minutes or MINUTES_MAX)
                if to_server:
                    context.exit(_to_server(context, workload, speed, options, as_json=as_json))
                asked = RULES if rule is None else (rule,)
                replay_load(workload, Setting(**options), asked, invokers, as_json=as_json)
                return
            if to_server:
                raise BadSetting("a trace of decisions has no calls to send; leave out --server")
            if rule == "sharding":
                raise BadSetting("--rule sharding decides nothing that a trace of decisions has")
            other = None if rule is None else rules[rule]
            report = run(lines, rule=other, cut=cut, check=check)
    except (ValueError, OSError) as error:
        raise BadSetting(f"{trace}: {error}") from None
    if as_json:
        output.print_json(asdict(report))
    else:
        _print(report)
    context.exit(0 if report.difference is None else 1)


def _to_server(
    context: click.Context,
    workload: Workload,
    speed: float,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    """Send the load to the server that the options before the command name; the exit code."""
    given = context.find_object(GlobalOptions)
    assert given is not None, "the main group puts it there"
    report = replay_live(
        Connection.find(given.apihost, given.auth, given.namespace, transport=given.transport),
        workload,
        speed=speed,
        seed=options["seed"],
        shape=options["shape"],
        memory_mb=options["memory_mb"],
        as_json=as_json,
    )
    return 1 if report.failed else 0


def _print(report: ReplayReport) -> None:
    span_s = (report.last_us - report.first_us) / 1_000_000
    cut = "" if report.complete or report.difference else "; the trace has no end line"
    click.echo(
        f"{report.steps} steps of a {report.core} in {span_s:.3f} s, "
        f"recorded by a {report.build} build of ABI {report.abi}{cut}"
    )
    if report.difference is None:
        click.echo("every effect is the same")
    else:
        _print_difference(report.difference)
    if report.comparison is not None:
        _print_comparison(report.comparison)


def _print_difference(difference: Difference) -> None:
    click.echo(f"line {difference.line}, at {difference.at_us} us, differs: {difference.event}")
    length = max(len(difference.expected), len(difference.got))
    for index in range(length):
        pair = [
            effects[index] if index < len(effects) else "(nothing)"
            for effects in (difference.expected, difference.got)
        ]
        if pair[0] == pair[1]:
            click.echo(f"  same      {pair[0]}")
        else:
            click.echo(f"  recorded  {pair[0]}")
            click.echo(f"  now       {pair[1]}")


def _print_comparison(comparison: Comparison) -> None:
    click.echo(
        f"of {comparison.decisions} decisions the other rule asks for more containers in "
        f"{comparison.more}, for fewer in {comparison.fewer}, and for as many with another "
        f"verdict in {comparison.verdicts}"
    )
    if comparison.examples:
        click.echo("the first of them:")
        rows = [
            (str(example.line), example.queue_state, example.recorded, example.other)
            for example in comparison.examples
        ]
        output.print_table(("Line", "Queue is", "Recorded", "Other rule"), rows)
