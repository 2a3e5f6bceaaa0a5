"""Commands that run the nodes of a cluster, and look at their settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from acs_node.cli import output
from acs_node.cli.errors import NoAccess, Rejected, StillRunning
from acs_node.cli.options import json_option

ROLES = ("controller", "scheduler", "invoker")


class NodeCommand(click.Command):
    """A command whose options are the settings of a role; read only when they are needed."""

    def __init__(self, role: str, **attributes: Any) -> None:
        super().__init__(
            role, callback=_runner(role), help=f"Run a node: one {role}.", **attributes
        )
        self._role = role
        self._complete = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._complete:
            from acs_node.cluster.config import settings_of

            self._complete = True
            self.params.append(
                click.Option(
                    ["--config", "config_file"],
                    type=click.Path(path_type=Path, dir_okay=False),
                    help='File with settings (TOML): name = "s0", lease_s = 5.',
                )
            )
            self.params.append(click.Option(["--verbose", "-v"], is_flag=True, help="Log more."))
            for key, default, text in settings_of(self._role):
                shown = ", ".join(default) if isinstance(default, tuple) else default
                unless = "" if shown in (None, "") else f" Unless given: {shown}."
                self.params.append(
                    click.Option([f"--{key.replace('_', '-')}", key], help=f"{text}{unless}")
                )
        return super().get_params(ctx)


def _runner(role: str) -> Callable[..., None]:
    @click.pass_context
    def command(
        context: click.Context, /, config_file: Path | None, verbose: bool, **flags: Any
    ) -> None:
        if context.invoked_subcommand is not None:
            return
        import logging

        from acs_node.cluster import config, controller, invoker, scheduler

        try:
            settings, _ = config.read_config(role, file=config_file, flags=flags)
        except config.ConfigError as error:
            raise click.UsageError(str(error)) from None
        logging.basicConfig(
            level=logging.DEBUG if verbose else logging.INFO,
            format=f"%(asctime)s %(levelname)s {settings.name} %(name)s: %(message)s",
        )
        runs = {
            "controller": controller.run_controller,
            "scheduler": scheduler.run_scheduler,
            "invoker": invoker.run_invoker,
        }
        context.exit(runs[role](settings))

    return command


class InvokerCommand(NodeCommand, click.Group):
    """``acs invoker`` runs one; what stands behind it says what to do with one that runs."""

    def __init__(self) -> None:
        super().__init__("invoker", invoke_without_command=True)


controller, scheduler = NodeCommand("controller"), NodeCommand("scheduler")
invoker = InvokerCommand()


@invoker.command()
@click.argument("name")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with settings, as of a node: where etcd is, and what opens it.",
)
@click.option("--etcd", help="Endpoints of etcd, HOST:PORT.")
@click.option("--cluster", help="Name of the cluster.")
@click.option(
    "--timeout",
    "within_s",
    type=click.IntRange(0, 86_400),
    default=660,
    show_default=True,
    metavar="S",
    help="How long to wait for it.",
)
def drain(
    name: str, config_file: Path | None, etcd: str | None, cluster: str | None, within_s: int
) -> None:
    """Have the invoker NAME leave: no new work, what runs may end, its containers go, it ends.

    A later start of it takes work again. Settings come from the environment as well (ACS_ETCD).
    """
    import asyncio

    from acs_node.cluster import drain as draining
    from acs_node.cluster.config import ConfigError, read_config
    from acs_node.etcd import Etcd, EtcdError

    try:
        flags = {"name": name, "etcd": etcd, "cluster": cluster}
        settings, _ = read_config("invoker", file=config_file, flags=flags)
        endpoints = settings.etcd_config()
    except ConfigError as error:
        raise click.UsageError(str(error)) from None

    async def ask() -> str:
        client = Etcd(endpoints)
        try:
            return await draining.drain(client, settings.cluster, name, within_s)
        finally:
            await client.close()

    try:
        instance = asyncio.run(ask())
    except draining.DrainTooLong as error:
        raise StillRunning(str(error)) from None
    except draining.DrainError as error:
        raise Rejected(str(error)) from None
    except EtcdError as error:
        raise NoAccess(f"etcd at {', '.join(settings.etcd)}: {error}") from None
    click.echo(f"invoker {name} ({instance}) has left")


@click.group()
def config() -> None:
    """Look at the settings of nodes."""


@config.command()
@click.argument("role", type=click.Choice(ROLES))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with settings, as of the node's own --config.",
)
@json_option
def check(role: str, config_file: Path | None, as_json: bool) -> None:
    """Show what a node of ROLE would be set to by FILE and the environment, and from where.

    Exits 2 when a setting has no meaning, and names it.
    """
    from acs_node.cluster.config import ConfigError, read_config

    try:
        settings, shown = read_config(role, file=config_file)
        settings.etcd_config()
        settings.link_tls()
        settings.database_url()
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json(
            {
                each.key: {
                    "value": each.value if isinstance(each.value, (int, str)) else str(each.value),
                    "source": each.source,
                }
                for each in shown
            }
        )
    else:
        output.print_table(
            ("setting", "value", "from"),
            [(each.key, str(each.value), each.source) for each in shown],
        )


@click.group()
def cluster() -> None:
    """A whole cluster on this machine."""


@cluster.command()
@click.option("--controllers", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--schedulers", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--invokers", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("acs-cluster"),
    show_default=True,
    help="Folder for etcd's and the nodes' data and logs.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["docker", "process"]),
    default="docker",
    show_default=True,
    help="What functions run in; process is no isolation.",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=3233, show_default=True)
@click.option("--memory", type=click.IntRange(128), default=1024, show_default=True, metavar="MB")
@click.option("--lease", type=click.IntRange(2, 120), default=10, show_default=True, metavar="S")
@click.option(
    "--database-url-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the URL of a PostgreSQL database; several controllers need one.",
)
@click.option("--tls", is_flag=True, help="Certificates for all links, and those to etcd.")
@click.option(
    "--links",
    type=click.Choice(["grpc", "frames"]),
    default="grpc",
    show_default=True,
    help="What links are made of; frames over plain sockets cost less.",
)
@click.pass_context
def up(
    context: click.Context,
    controllers: int,
    schedulers: int,
    invokers: int,
    data: Path,
    sandbox: str,
    port: int,
    memory: int,
    lease: int,
    tls: bool,
    links: str,
    database_url_file: Path | None,
) -> None:
    """Run an etcd of its own and the nodes as processes, until SIGTERM or SIGINT.

    A node that fails is started anew. Several controllers listen on ports one after the other.
    """
    from acs_node.cluster.local import LocalCluster, run

    if controllers > 1 and database_url_file is None:
        raise click.UsageError(
            f"--controllers is {controllers}; more than one need a PostgreSQL database, so give "
            "--database-url-file (records are in SQLite otherwise, which has one writer)"
        )
    context.exit(
        run(
            LocalCluster(
                data,
                controllers=controllers,
                schedulers=schedulers,
                invokers=invokers,
                sandbox=sandbox,
                port=port,
                memory_mb=memory,
                lease_s=lease,
                tls=tls,
                links=links,
                database_url_file=database_url_file,
            )
        )
    )
