"""``acs replay``: a trace, run through this build's core again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from acs_node.cli import output
from acs_node.cli.errors import BadSetting
from acs_node.cli.options import json_option

if TYPE_CHECKING:
    from acs_core.trace import Comparison, Difference, ReplayReport


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--rule",
    type=click.Choice(["openwhisk", "fit"]),
    help="Ask this rule as well at every decision, and show where it would decide otherwise.",
)
@click.option("--cut", is_flag=True, help="Accept a trace that was cut off.")
@json_option
@click.pass_context
def replay(context: click.Context, trace: str, rule: str | None, cut: bool, as_json: bool) -> None:
    """Run TRACE through the scheduler again and compare every effect; - reads standard input.

    Exits 0 when all are the same, 1 at the first that differs, 2 when TRACE is damaged.
    """
    from acs_core.demand import DemandRule, OpenWhiskRule, RuntimeFitRule
    from acs_core.trace import replay as run

    rules: dict[str, DemandRule] = {"openwhisk": OpenWhiskRule(), "fit": RuntimeFitRule()}
    try:
        # A line that is not ASCII is damaged, and the reader says which one it is.
        with click.open_file(trace, encoding="utf-8", errors="surrogateescape") as lines:
            report = run(lines, rule=rules[rule] if rule is not None else None, cut=cut)
    except (ValueError, OSError) as error:
        raise BadSetting(f"{trace}: {error}") from None
    if as_json:
        output.print_json(asdict(report))
    else:
        _print(report)
    context.exit(0 if report.difference is None else 1)


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
