"""`acs cert`: an authority and what it signs, in files that others cannot read."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from acs_node.cli import main


def cert(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cert", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an authority."""
    made = tmp_path / "certs"
    shown = cert("ca", "--dir", str(made))
    assert shown.exit_code == 0, shown.output
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


def test_keys_are_for_their_owner_alone(folder: Path) -> None:
    shown = cert("node", "invoker", "i0", "--dir", str(folder))
    assert shown.exit_code == 0, shown.output
    assert shown.output.split() == [str(folder / "invoker-i0.pem"), str(folder / "invoker-i0.key")]
    assert mode(folder) == 0o700
    assert mode(folder / "ca.key") == mode(folder / "invoker-i0.key") == 0o600
    assert "PRIVATE" not in (folder / "invoker-i0.pem").read_text()


def test_a_nodes_certificate_has_its_role_and_a_servers_has_none(folder: Path) -> None:
    assert cert("node", "invoker", "i0", "--cluster=east", "--dir", str(folder)).exit_code == 0
    assert names(folder / "invoker-i0.pem") == ["i0.invoker.east.acs.internal"]
    hosts = ["--host=10.0.0.1", "--host=etcd.example", "--host=::1"]
    assert cert("server", "etcd", *hosts, "--dir", str(folder)).exit_code == 0
    assert names(folder / "etcd.pem") == ["10.0.0.1", "etcd.example", "::1"]


def test_what_is_signed_cannot_sign(folder: Path) -> None:
    assert cert("node", "invoker", "i0", "--dir", str(folder)).exit_code == 0
    for name, is_authority in (("ca", True), ("invoker-i0", False)):
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert extension.value.ca is is_authority
        assert extension.critical


def test_nothing_is_replaced(folder: Path) -> None:
    before = (folder / "ca.key").read_bytes()
    shown = cert("ca", "--dir", str(folder))
    assert shown.exit_code == 2
    assert "ca.key cannot be written: File exists" in shown.output
    assert (folder / "ca.key").read_bytes() == before
    # Nor is half of it left behind.
    (folder / "invoker-i0.pem").write_text("mine")
    assert cert("node", "invoker", "i0", "--dir", str(folder)).exit_code == 2
    assert not (folder / "invoker-i0.key").exists()
    assert (folder / "invoker-i0.pem").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["node", "invoker", "I0"], "name is 'I0'"),
        (["node", "invoker", "i0", "--cluster=a.b"], "cluster is 'a.b'"),
        (["node", "worker", "i0"], "'worker' is not one of"),
        (["node", "invoker", "i0", "--days=0"], "0 is not in the range"),
        (["server", "../etcd", "--host=a"], "NAME is '../etcd'"),
        (["server", "etcd"], "Missing option '--host'"),
        (["server", "etcd", "--host=h\u00f6st"], "is neither an address nor a DNS name"),
    ],
)
def test_what_cannot_be_certified_is_told(folder: Path, arguments: list[str], says: str) -> None:
    shown = cert(*arguments, "--dir", str(folder))
    assert shown.exit_code == 2
    assert says in shown.output
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem"]


def test_without_an_authority_it_says_how_to_make_one(tmp_path: Path) -> None:
    shown = cert("node", "invoker", "i0", "--dir", str(tmp_path))
    assert shown.exit_code == 2
    assert f"acs cert ca --dir {tmp_path} makes an authority" in " ".join(shown.output.split())


def test_a_spoilt_authority_is_told(folder: Path) -> None:
    (folder / "ca.key").write_text("hunter2")
    shown = cert("node", "invoker", "i0", "--dir", str(folder))
    assert shown.exit_code == 2
    assert "the authority's key is no PEM" in shown.output
    assert "hunter2" not in shown.output
