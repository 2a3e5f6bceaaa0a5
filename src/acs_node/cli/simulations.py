"""``acs replay`` of a load, and ``acs plan``: what a cluster would do with it, simulated."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from acs_node.cli import output
from acs_node.cli.errors import BadSetting
from acs_node.cli.options import json_option
from acs_node.workload_file import open_trace

if TYPE_CHECKING:
    from acs_core.planning import Trial
    from acs_core.simulation_report import SimulationReport
    from acs_core.workload import Workload

RULES = ("fit", "openwhisk", "sharding")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s)")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a simulated cluster is made of, but for the number of its invokers."""

    rule: str = "fit"
    invoker_mb: int = 8_192
    memory_mb: int = 256
    shape: str = "poisson"
    seed: int = 0
    keep_alive_s: float = 10.0
    prewarm: int = 0
    cap: int = 10_000
    wait_target_ms: float | None = None


class DurationMs(click.ParamType[float]):
    """A time as ``50ms`` or ``1.5s``; its value is in milliseconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        found = _DURATION.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no time; it must be as 50ms or 1.5s", param, ctx)
        return float(found[1]) * (1 if found[2] == "ms" else 1000)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a simulated cluster is told; ``setting_of`` reads it."""
    for option in (
        click.option("--seed", type=click.IntRange(0), default=0, help="Of all that is drawn."),
        click.option(
            "--arrivals",
            "shape",
            type=click.Choice(["poisson", "bursty"]),
            default="poisson",
            show_default=True,
            help="How calls lie in a minute, where TRACE only counts them.",
        ),
        click.option(
            "--minutes", type=click.IntRange(1, 527_040), default=None, help="Take the first N."
        ),
        click.option(
            "--memory",
            "memory_mb",
            type=click.IntRange(1, 2**20),
            default=256,
            show_default=True,
            help="Of a container, in MB.",
        ),
        click.option(
            "--invoker-memory",
            "invoker_mb",
            type=click.IntRange(1, 2**30),
            default=8_192,
            show_default=True,
            help="Of an invoker for containers, in MB.",
        ),
        click.option(
            "--wait-target",
            "wait_target_ms",
            type=DurationMs(),
            default=None,
            help="The annotation acs-wait-target of all actions, as 300ms; obeyed by the rule fit.",
        ),
    ):
        function = option(function)
    return function


def simulate(
    workload: Workload, setting: Setting, invokers: int, progress: Progress
) -> SimulationReport:
    """Let the load go through a cluster."""
    from acs_core.demand import DemandRule, OpenWhiskRule, RuntimeFitRule
    from acs_core.planning import KIND, pass_time, prepare
    from acs_core.prewarm import Prewarm
    from acs_core.simulation import Cluster
    from acs_core.simulation_config import SimulationConfig
    from acs_core.simulation_pull import PullCluster
    from acs_core.simulation_push import PushCluster
    from acs_core.workload import Shape

    kind: type[Cluster] = PushCluster if setting.rule == "sharding" else PullCluster
    rule: DemandRule = OpenWhiskRule() if setting.rule == "openwhisk" else RuntimeFitRule()
    prewarm = (Prewarm(KIND, setting.memory_mb, setting.prewarm),) if setting.prewarm else ()
    config = SimulationConfig(
        invokers=invokers,
        invoker_mb=setting.invoker_mb,
        rule=rule,
        keep_alive_us=round(setting.keep_alive_s * 1_000_000),
        namespace_containers_max=setting.cap,
        prewarm=prewarm,
    )
    cluster = prepare(
        kind,
        workload,
        config,
        seed=setting.seed,
        shape=Shape(setting.shape),
        memory_mb=setting.memory_mb,
        wait_target_us=_microseconds(setting.wait_target_ms),
    )
    for share in pass_time(cluster, workload):
        progress.show(f"{setting.rule}, {invokers} invokers: {share:4.0%}")
    progress.clear()
    return cluster.report()


def _microseconds(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1_000)


class Progress:
    """One line on a terminal's stderr that is written over; nothing elsewhere."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Show the text instead of the last one."""
        if self._on:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def clear(self) -> None:
        """Leave an empty line."""
        self.show("")


def replay_load(
    workload: Workload, setting: Setting, rules: tuple[str, ...], invokers: int, *, as_json: bool
) -> None:
    """Simulate the load under each rule, and print what came of it."""
    progress = Progress()
    reports = {}
    for rule in rules:
        reports[rule] = simulate(workload, replace(setting, rule=rule), invokers, progress)
    if as_json:
        output.print_json({rule: asdict(report) for rule, report in reports.items()})
        return
    click.echo(
        f"{workload.count} calls of {len(workload.names)} actions in "
        f"{workload.span_us / 60_000_000:.1f} minutes on {invokers} invokers of "
        f"{setting.invoker_mb} MB, simulated; waits in ms"
    )
    columns = [
        "Rule",
        "Run",
        "Refused",
        "Lost",
        "Cold",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "Created",
        "Container-s",
        "GB-s",
    ]
    rows = [(rule, *_row(report)) for rule, report in reports.items()]
    output.print_table(columns, rows)


def _row(report: SimulationReport) -> tuple[str, ...]:
    wait = report.wait
    times = [f"{ms:,.1f}" for ms in (wait.p50_ms, wait.p90_ms, wait.p99_ms, wait.p999_ms)]
    counts = [
        report.ended,
        report.rejected,
        report.unknown + report.open,
        report.cold,
    ]
    return (
        *map(str, counts),
        *times,
        str(report.created),
        f"{report.container_s:,.0f}",
        f"{report.memory_mb_s / 1024:,.0f}",
    )


def read_load(trace: str, minutes: int | None) -> Workload:
    """Read a load.  Raises BadSetting naming the file, line and column."""
    from acs_core.workload import MINUTES_MAX, WorkloadError, read_workload

    try:
        with open_trace(trace) as (is_load, lines):
            if not is_load:
                raise WorkloadError(
                    "line 1: there are no columns; expected a load, as of the Azure Functions "
                    "traces, and no trace of decisions"
                )
            return read_workload(lines, minutes or MINUTES_MAX)
    except (ValueError, OSError) as error:
        raise BadSetting(f"{trace}: {error}") from None


_WHAT_IF: dict[str, tuple[str, Callable[[str], Any]]] = {
    "rule": ("one of fit, openwhisk, sharding", lambda text: RULES[RULES.index(text)]),
    "keep-alive": ("a time as 30s", lambda text: DurationMs().convert(text, None, None) / 1000),
    "prewarm": ("how many on each invoker, 0..1000", lambda text: _integer(text, 0, 1_000)),
    "wait-target": ("a time as 300ms", lambda text: DurationMs().convert(text, None, None)),
    "cap": ("how many containers at most, 1..1000000", lambda text: _integer(text, 1, 10**6)),
}
_FIELDS = {
    "rule": "rule",
    "keep-alive": "keep_alive_s",
    "prewarm": "prewarm",
    "wait-target": "wait_target_ms",
    "cap": "cap",
}


def _integer(text: str, low: int, high: int) -> int:
    value = int(text)
    if not low <= value <= high:
        raise ValueError
    return value


def read_what_if(text: str, setting: Setting) -> Setting:
    """Change a setting as ``NAME=VALUE`` says.  Raises click.BadParameter."""
    name, _, value = text.partition("=")
    if name not in _WHAT_IF:
        known = ", ".join(_WHAT_IF)
        raise click.BadParameter(f"{text}: it must be NAME=VALUE with one of {known}")
    expected, read = _WHAT_IF[name]
    try:
        change = {_FIELDS[name]: read(value)}
    except (ValueError, click.BadParameter):
        raise click.BadParameter(f"{text}: the value must be {expected}") from None
    return replace(setting, **change)


@click.command()
@click.argument("trace")
@click.option(
    "--wait-p99",
    "wait_p99_ms",
    type=DurationMs(),
    required=True,
    help="Longest wait of 99 in 100 calls, as 50ms or 1.5s.",
)
@click.option("--rule", type=click.Choice(RULES), default="fit", show_default=True)
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Search once more with another rule, keep-alive, prewarm, wait-target or cap.",
)
@click.option(
    "--most",
    type=click.IntRange(1, 10_000),
    default=256,
    show_default=True,
    help="Look no further than this many invokers.",
)
@cluster_options
@json_option
@click.pass_context
def plan(
    context: click.Context,
    /,
    trace: str,
    wait_p99_ms: float,
    rule: str,
    changes: tuple[str, ...],
    most: int,
    minutes: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the fewest invokers that serve the load of TRACE with short waits.

    TRACE is a file with a trace of Azure Functions of 2019 or 2021, - for standard input, or the
    name of a shipped one: azure2019, azure2021. Each trial is a simulation. Unless --wait-target
    is given, actions have one with which the rule fit promises the wait that is asked for.

    Exits 0 when the target can be met, 1 when it cannot.
    """
    from acs_core.planning import search
    from acs_core.simulation_engine import EngineModel

    if options["wait_target_ms"] is None:
        # It promises that nobody waits for longer than a creation and the target.
        options["wait_target_ms"] = max(0.0, wait_p99_ms - EngineModel().creation_us() / 1_000)
    setting = Setting(rule=rule, **options)
    settings = {"as asked": setting}
    for change in changes:
        settings[change] = read_what_if(change, setting)
    workload = read_load(trace, minutes)
    progress = Progress()
    found = {}
    for name, each in settings.items():
        trials = []
        for trial in search(
            lambda count, each=each: simulate(workload, each, count, progress),  # type: ignore[misc]
            wait_p99_ms,
            most,
        ):
            trials.append(trial)
            if not as_json:
                click.echo(f"{name}: {_trial(trial)}", err=True)
        found[name] = trials
    if as_json:
        output.print_json({name: _answer(trials) for name, trials in found.items()})
    else:
        for name, trials in found.items():
            click.echo(f"{name}: {_verdict(trials, wait_p99_ms, setting)}")
    context.exit(0 if _smallest(found["as asked"]) is not None else 1)


def _trial(trial: Trial) -> str:
    report = trial.report
    refused = report.rejected + report.unknown + report.open
    return (
        f"{trial.invokers} invokers: p99 {report.wait.p99_ms:,.1f} ms, {refused} not served, "
        f"{'enough' if trial.enough else 'too few'}"
    )


def _smallest(trials: list[Trial]) -> Trial | None:
    return min([t for t in trials if t.enough], key=lambda t: t.invokers, default=None)


def _best(trials: list[Trial]) -> Trial:
    """Return the trial that came nearest to the target: most served, then the shortest wait."""
    return min(trials, key=lambda t: (-t.report.ended, t.report.wait.p99_ms))


def _verdict(trials: list[Trial], wait_p99_ms: float, setting: Setting) -> str:
    smallest = _smallest(trials)
    if smallest is None:
        best = _best(trials)
        return (
            f"cannot be met with up to {max(t.invokers for t in trials)} invokers of "
            f"{setting.invoker_mb} MB, where more change nothing or none are allowed; the best is "
            f"{_trial(best)}"
        )
    margin_ms = wait_p99_ms - smallest.report.wait.p99_ms
    fewer = [t for t in trials if t.invokers == smallest.invokers - 1]
    with_fewer = f"; {_trial(fewer[0])}" if fewer else ""
    return (
        f"{smallest.invokers} invokers of {setting.invoker_mb} MB, p99 "
        f"{smallest.report.wait.p99_ms:,.1f} ms, margin {margin_ms:,.1f} ms, "
        f"{smallest.report.container_s:,.0f} container seconds{with_fewer}"
    )


def _answer(trials: list[Trial]) -> dict[str, object]:
    smallest = _smallest(trials)
    shown = smallest or _best(trials)
    return {
        "met": smallest is not None,
        "invokers": shown.invokers,
        "report": asdict(shown.report),
        "tried": [[t.invokers, t.report.wait.p99_ms, t.enough] for t in trials],
    }
