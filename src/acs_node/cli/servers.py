"""Commands that run a server, and ``acs version``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acs_node.cli import output
from acs_node.cli.errors import ActivationFailed
from acs_node.cli.options import json_option

if TYPE_CHECKING:
    from acs_core.prewarm import Prewarm
    from acs_node.manifest import Manifest

_sandbox_option = click.option(
    "--sandbox",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="What functions run in; process is no isolation, auto takes it only without an engine.",
)


def _read_prewarm(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> "tuple[Prewarm, ...]":
    from acs_node.pool_settings import PoolError, parse_prewarm

    try:
        return tuple([parse_prewarm(value) for value in values])
    except PoolError as error:
        raise click.BadParameter(str(error)) from None


def _read_manifest(
    context: click.Context, option: click.Parameter, path: Path | None
) -> "Manifest | None":
    from acs_node.manifest import ManifestError, load

    try:
        return None if path is None else load(path)
    except ManifestError as error:
        raise click.BadParameter(str(error)) from None


def default_data_folder() -> Path:
    """Name the folder for data where this user's programs keep theirs."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "acs"


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_folder,
    show_default="~/.local/share/acs",
    help="Folder of the server's database.",
)

database_option = click.option(
    "--database-url",
    envvar="ACS_DATABASE_URL",
    default="",
    metavar="URL",
    help="Keep it in PostgreSQL instead: postgresql+psycopg://USER:PASSWORD@HOST/NAME. Others on"
    " this machine see a command line, so a password is better in ACS_DATABASE_URL.",
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=3233,
    show_default=True,
    help="Port, 0 for a free one.",
)
@data_option
@database_option
@_sandbox_option
@click.option(
    "--memory",
    type=click.IntRange(128),
    metavar="MB",
    help="Memory for all containers together; unless given, half of this machine's.",
)
@click.option(
    "--containers",
    type=click.IntRange(1),
    metavar="N",
    help="Cap of containers per namespace, one of them kept for calls between functions; "
    "unless given, memory is the bound.",
)
@click.option(
    "--pause-grace",
    type=click.FloatRange(0),
    default=0,
    show_default="never",
    metavar="SECONDS",
    help="Pause a container that has idled so long; it is resumed when work comes.",
)
@click.option(
    "--prewarm",
    multiple=True,
    callback=_read_prewarm,
    metavar="KIND:MEMORY_MB:COUNT",
    help="Keep COUNT sandboxes ready for new containers of this kind and memory. Repeatable.",
)
@click.option(
    "--concurrency-max",
    type=click.IntRange(1, 500),
    default=1,
    show_default=True,
    metavar="N",
    help="Most runs at once in one container that an action's limits may ask for.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    callback=_read_manifest,
    metavar="FILE",
    help="Runtimes in OpenWhisk's format: kinds, their images, what of them is prewarmed.",
)
@click.option(
    "--network",
    default="acs",
    show_default=True,
    metavar="NAME",
    help="Docker network of functions, made where it is missing; 'none' for no network.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(0),
    default=7,
    show_default=True,
    metavar="DAYS",
    help="Delete activation records, with their logs, that are older. 0: no bound.",
)
@click.option(
    "--keep-mb",
    type=click.IntRange(0),
    default=2048,
    show_default=True,
    metavar="MB",
    help="Delete the oldest records while the database uses more. 0: no bound.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write every step of the scheduler to FILE, for acs replay.",
)
@click.option(
    "--shadow-rule",
    type=click.Choice(["fit", "openwhisk"]),
    help="Ask this rule of demand as well, obey it never, and log where it would differ.",
)
@click.option(
    "--operator-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with user:password, with which POST /disable takes the server out of service.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["pull", "sharding"]),
    default="pull",
    show_default=True,
    help="sharding is the one that pushes, to compare with.",
)
@click.option(
    "--controllers",
    type=click.IntRange(1, 100),
    default=1,
    metavar="N",
    help="With sharding: play N controllers, each with its part of every invoker.",
)
@click.option(
    "--invokers",
    type=click.IntRange(1, 1_000),
    default=1,
    metavar="M",
    help="With sharding: play M invokers, which share the memory.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every step.")
@click.pass_context
def standalone(
    context: click.Context,
    host: str,
    port: int,
    data: Path,
    database_url: str,
    sandbox: str,
    memory: int | None,
    containers: int | None,
    pause_grace: float,
    prewarm: "tuple[Prewarm, ...]",
    concurrency_max: int,
    manifest: "Manifest | None",
    network: str,
    keep_days: float,
    keep_mb: int,
    trace: Path | None,
    shadow_rule: str | None,
    operator_file: Path | None,
    scheduler: str,
    controllers: int,
    invokers: int,
    verbose: bool,
) -> None:
    """Run controller, scheduler and invoker in this process, until SIGTERM or SIGINT."""
    import logging

    from acs_node.standalone import StandaloneConfig, run

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    config = StandaloneConfig(
        host=host,
        port=port,
        data=data,
        database_url=database_url,
        sandbox=sandbox,
        memory_mb=memory,
        namespace_containers=containers,
        trace=trace,
        pause_grace_s=pause_grace,
        keep_days=keep_days,
        keep_mb=keep_mb,
        prewarm=prewarm,
        concurrency_max=concurrency_max,
        manifest=manifest,
        network=network,
        shadow_rule=shadow_rule,
        operator_file=operator_file,
        scheduler=scheduler,
        controllers=controllers,
        invokers=invokers,
    )
    context.exit(run(config))


@click.command()
@_sandbox_option
@json_option
def demo(sandbox: str, as_json: bool) -> None:
    """Start a server, run a function 2,501 times, check every answer, and show how fast it was.

    Everything is temporary: folder, settings and port. Exits 1 on any wrong answer.
    """
    from dataclasses import asdict

    from acs_node.demo import DemoFailed, run_demo

    try:
        report = run_demo(sandbox, say=lambda text: click.echo(text, err=True))
    except DemoFailed as error:
        message, _, details = str(error).partition("\n")
        raise ActivationFailed(f"the demo failed: {message}", details) from None
    if as_json:
        output.print_json(asdict(report))
    else:
        output.print_table(("what", "seen"), report.rows())


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version of ACS and of what it runs on."""
    import platform
    from importlib import metadata

    from acs_core import ABI, COMPILED

    try:
        number = metadata.version("acs-scheduler")
    except metadata.PackageNotFoundError:  # run from a source folder
        number = "unknown"
    core = "compiled" if COMPILED else "plain"
    python = platform.python_version()
    if as_json:
        output.print_json({"version": number, "core": core, "abi": ABI, "python": python})
    else:
        click.echo(f"acs {number} ({core} core, ABI {ABI}, Python {python})")
