"""``acs images``: build, list. The work is in ``acs_node.images``."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from acs_node.cli import output
from acs_node.cli.errors import NoAccess, Rejected
from acs_node.cli.options import json_option

if TYPE_CHECKING:  # these need the docker package, which is slow to import
    from docker import DockerClient

    from acs_node.images import RuntimeImage


@click.group()
def images() -> None:
    """Build and show the images that containers start from."""


@images.command()
@click.option(
    "--mode",
    type=click.Choice(["auto", "dockerfile", "host"]),
    default="auto",
    show_default=True,
    help="From a Dockerfile, or from this machine's files; auto asks whether a registry answers.",
)
@json_option
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
def build(mode: str, as_json: bool, kinds: tuple[str, ...]) -> None:
    """Build the images that are missing or out of date.

    KIND is one such as nodejs:20, or nodejs alone; without any, all that can be made here.
    """
    from acs_node.images import build_images, named_kinds

    def progress(line: str) -> None:
        click.echo(line, err=True)

    _show(
        lambda client: build_images(client, progress, kinds=named_kinds(kinds), mode=mode),
        as_json,
    )


@images.command(name="list")
@json_option
def list_built(as_json: bool) -> None:
    """List the images that this engine has."""
    from acs_node.images import list_images

    _show(list_images, as_json)


def _show(ask: Callable[["DockerClient"], "Iterable[RuntimeImage]"], as_json: bool) -> None:
    """Print the images that ``ask`` finds or makes."""
    from acs_node.docker_client import connect
    from acs_node.sandboxes import EngineUnavailable, SandboxError

    try:
        client = connect()
        try:
            found = list(ask(client))
        finally:
            client.close()
    except EngineUnavailable as error:
        raise NoAccess(f"cannot {error}") from None
    except SandboxError as error:
        raise Rejected(f"cannot {error}") from None
    if as_json:
        output.print_json([asdict(image) for image in found])
    else:
        rows = [(i.reference, i.kind, f"{i.size_bytes / 1e6:.0f} MB", i.source) for i in found]
        output.print_table(("Image", "Kind", "Size", "Made from"), rows)
