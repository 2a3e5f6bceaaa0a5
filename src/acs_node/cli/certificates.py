"""``acs cert``: a small authority for a cluster, and certificates that it signs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acs_node.cli.cluster import ROLES
from acs_node.cli.errors import BadSetting

if TYPE_CHECKING:
    from acs_node.certificates import Pair


@click.group()
def cert() -> None:
    """Certificates for the links between nodes.

    The authority's key is a file of the folder: keep it where no node runs. Nothing is revoked
    but by making another authority. Nodes take certificates of any other authority as well, if
    each has the DNS name NAME.ROLE.CLUSTER.acs.internal.
    """


def _options(days: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option(
            "--days", type=click.IntRange(1, 36_500), default=days, show_default=True
        )(function)
        return click.option(
            "--dir",
            "folder",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("certs"),
            show_default=True,
            help="Folder of the authority, and of what it signs.",
        )(function)

    return add


_cluster = click.option("--cluster", default="acs", show_default=True, help="As the nodes' own.")


@cert.command()
@_cluster
@_options(3650)
def ca(cluster: str, folder: Path, days: int) -> None:
    """Make an authority: ca.pem for every node, ca.key for nobody."""
    from acs_node.certificates import make_authority

    _write(folder, "ca", make_authority(cluster, days))


@cert.command()
@click.argument("role", type=click.Choice(ROLES))
@click.argument("name")
@_cluster
@_options(365)
def node(role: str, name: str, cluster: str, folder: Path, days: int) -> None:
    """Make the certificate and the key of one node."""
    from acs_node.certificates import CertificateError, make_node

    try:
        pair = make_node(_authority(folder), cluster, role, name, days)
    except (ValueError, CertificateError) as error:
        raise BadSetting(str(error)) from None
    _write(folder, f"{role}-{name}", pair)


@cert.command()
@click.argument("name")
@click.option(
    "--host", "hosts", multiple=True, required=True, help="Address or DNS name; may be repeated."
)
@_options(365)
def server(name: str, hosts: tuple[str, ...], folder: Path, days: int) -> None:
    """Make the certificate and the key of a server that nodes talk to, as etcd."""
    from acs_node.certificates import CertificateError, make_server

    if not name or "/" in name or name.startswith("."):
        raise BadSetting(f"NAME is {name!r}; it must be a file's name")
    try:
        pair = make_server(_authority(folder), hosts, days)
    except CertificateError as error:
        raise BadSetting(str(error)) from None
    _write(folder, name, pair)


def _authority(folder: Path) -> "Pair":
    from acs_node.certificates import Pair

    try:
        return Pair((folder / "ca.pem").read_bytes(), (folder / "ca.key").read_bytes())
    except OSError as error:
        raise BadSetting(
            f"{error.filename} cannot be read: {error.strerror}; "
            f"acs cert ca --dir {folder} makes an authority"
        ) from None


def _write(folder: Path, name: str, pair: "Pair") -> None:
    from acs_node.certificates import write_pair

    try:
        written = write_pair(folder, name, pair)
    except OSError as error:
        raise BadSetting(f"{error.filename} cannot be written: {error.strerror}") from None
    for path in written:
        click.echo(path)
