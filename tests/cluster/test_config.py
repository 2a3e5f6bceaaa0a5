"""The settings of nodes: where they come from, and what a wrong one is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acs_node import certificates
from acs_node.certificates import Pair
from acs_node.cli import main
from acs_node.cluster.config import ConfigError, NodeConfig, read_config, settings_of


def read(role: str = "scheduler", **sources: Any) -> NodeConfig:
    sources.setdefault("environ", {})
    sources.setdefault("flags", {"name": "s0"})
    return read_config(role, **sources)[0]


def test_flags_go_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path,
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('name = "file"\nlease_s = 5\nport = 1\netcd = ["a:1", "b:2"]\n')
    config, shown = read_config(
        "scheduler",
        file=file,
        environ={"ACS_PORT": "2", "ACS_LEASE_S": "6", "OTHER": "x"},
        flags={"port": "3", "host": None},
    )
    assert (config.name, config.lease_s, config.port) == ("file", 6, 3)
    assert config.etcd == ("a:1", "b:2")
    assert config.cluster == "acs"
    sources = {each.key: each.source for each in shown}
    assert sources["name"] == f"name in {file}"
    assert sources["lease_s"] == "environment ACS_LEASE_S"
    assert sources["port"] == "flag --port"
    assert sources["cluster"] == "default"


@pytest.mark.parametrize(
    ("role", "flags", "says"),
    [
        ("scheduler", {"name": None}, "name is missing"),
        ("scheduler", {"name": "a b"}, r"flag --name is 'a b'; it must be 1..64 letters"),
        ("scheduler", {"lease_s": "1"}, r"flag --lease-s is '1'; it must be an integer in 2..120"),
        ("scheduler", {"lease_s": "x"}, "flag --lease-s is 'x'"),
        ("scheduler", {"port": True}, "flag --port is True"),
        ("scheduler", {"port": "65536"}, r"in 0..65535"),
        ("scheduler", {"etcd": "nowhere"}, "flag --etcd is 'nowhere'; it must be 1..16 addresses"),
        ("scheduler", {"etcd": "h:0"}, "it must be 1..16 addresses"),
        ("scheduler", {"etcd": ()}, "it must be 1..16 addresses"),
        ("scheduler", {"host": "0.0.0.0"}, "host is '0.0.0.0'; links have no TLS"),
        ("scheduler", {"host": "example.org"}, "host is 'example.org'; links have no TLS"),
        ("scheduler", {"links_without_tls": "maybe"}, "it must be true or false"),
        ("scheduler", {"links": "pigeons"}, "it must be one of grpc, frames"),
        ("scheduler", {"advertise": "here"}, "advertise is 'here'; it must be an address HOST:PO"),
        ("scheduler", {"advertise": "here:0"}, "it must be an address HOST:PORT"),
        ("scheduler", {"advertise": "h:1", "links": "frames"}, "so give frames_advertise as well"),
        ("scheduler", {"tls_ca": "c"}, "go together; tls_certificate is missing"),
        ("scheduler", {"tls_key": "k", "tls_certificate": "c"}, "go together; tls_ca is missing"),
        ("scheduler", {"tls_ca": "c", "tls_certificate": "d"}, "go together; tls_key is missing"),
        (
            "scheduler",
            {"tls_ca": "a", "tls_certificate": "b", "tls_key": "c", "links_without_tls": "true"},
            "links_without_tls is true, and tls_ca is given",
        ),
        (
            "scheduler",
            {"tls_ca": "a", "tls_certificate": "b", "tls_key": "c", "cluster": "a.b"},
            "cluster is 'a.b'; with TLS it must be",
        ),
        ("scheduler", {"etcd_key": "k"}, "etcd_certificate and etcd_key go together"),
        (
            "scheduler",
            {"etcd_key": "k", "etcd_certificate": "c"},
            "etcd_certificate needs etcd_ca",
        ),
        ("scheduler", {"etcd_user": "u"}, "etcd_user and etcd_password_file go together"),
        ("scheduler", {"etcd_user": "x" * 1025}, "a text of at most 1024"),
        ("invoker", {"health_test": "java:8"}, "flag --health-test is 'java:8'; it must be none"),
        ("invoker", {"health_test": ""}, "it must be none, or a kind of python or nodejs"),
        ("invoker", {"sandbox": "vm"}, "flag --sandbox is 'vm'; it must be one of docker, process"),
        ("invoker", {"memory_mb": "127"}, "flag --memory-mb is '127'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_value_and_limit(
    role: str, flags: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        read(role, flags={"name": "s0", **flags})


def test_an_invoker_may_be_believed_to_be_well() -> None:
    assert read("invoker").health_test == "python:3"
    for kind in ("none", "nodejs:20"):
        assert read("invoker", flags={"name": "i0", "health_test": kind}).health_test == kind


def test_beyond_loopback_only_in_so_many_words() -> None:
    config = read(flags={"name": "s0", "host": "0.0.0.0", "links_without_tls": "true"})
    assert config.links_without_tls
    assert read(flags={"name": "s0", "host": "localhost"}).host == "localhost"
    assert read(flags={"name": "s0", "host": "::1"}).host == "::1"


class Files:
    """The files of scheduler s0, in a folder; each test spoils one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificates.make_authority("acs", 1)
        self.write("ca", self.authority)
        self.node("scheduler", "s0")

    def node(self, role: str, name: str, days: int = 1) -> None:
        self.write("node", certificates.make_node(self.authority, "acs", role, name, days))

    def write(self, name: str, pair: Pair) -> None:
        for path in self.folder.glob(f"{name}.*"):
            path.unlink()
        certificates.write_pair(self.folder, name, pair)

    def config(self) -> NodeConfig:
        return read(
            flags={
                "name": "s0",
                "host": "0.0.0.0",
                "tls_ca": str(self.folder / "ca.pem"),
                "tls_certificate": str(self.folder / "node.pem"),
                "tls_key": str(self.folder / "node.key"),
            }
        )


def test_with_certificates_a_node_listens_anywhere(tmp_path: Path) -> None:
    files = Files(tmp_path)
    tls = files.config().link_tls()
    assert tls is not None
    assert tls.ca == files.authority.certificate
    assert read().link_tls() is None


def test_etcd_is_shown_the_certificate_for_links_unless_there_is_another(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("other", certificates.make_node(files.authority, "acs", "scheduler", "s0", 1))
    flags = {
        "name": "s0",
        "etcd_ca": str(tmp_path / "ca.pem"),
        "tls_ca": str(tmp_path / "ca.pem"),
        "tls_certificate": str(tmp_path / "node.pem"),
        "tls_key": str(tmp_path / "node.key"),
    }
    config = read(flags=flags).etcd_config()
    assert config.certificate == (tmp_path / "node.pem").read_bytes()
    assert config.key == (tmp_path / "node.key").read_bytes()
    flags |= {
        "etcd_certificate": str(tmp_path / "other.pem"),
        "etcd_key": str(tmp_path / "other.key"),
    }
    config = read(flags=flags).etcd_config()
    assert config.certificate == (tmp_path / "other.pem").read_bytes()
    assert config.key == (tmp_path / "other.key").read_bytes()
    del flags["etcd_ca"], flags["etcd_certificate"], flags["etcd_key"]
    assert read(flags=flags).etcd_config().certificate is None


def test_a_certificate_that_an_intermediate_has_signed_is_left_to_the_handshake(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    chain = (tmp_path / "node.pem").read_bytes() + files.authority.certificate
    (tmp_path / "node.pem").write_bytes(chain)
    files.write("ca", certificates.make_authority("above", 1))
    assert files.config().link_tls() is not None


def _others_key(files: Files) -> None:
    (files.folder / "node.key").write_bytes(files.authority.key)


def _readable_key(files: Files) -> None:
    (files.folder / "node.key").chmod(0o644)


def _other_authority(files: Files) -> None:
    files.write("ca", certificates.make_authority("acs", 1))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda files: files.node("scheduler", "s1"),
            "tls_certificate is for s1.scheduler.acs.acs.internal; this node is s0.scheduler.acs",
        ),
        (lambda files: files.node("invoker", "s0"), r"is for s0.invoker.acs.acs.internal; this"),
        (lambda files: files.write("node", files.authority), "tls_certificate is for no name"),
        (lambda files: files.node("scheduler", "s0", days=0), "UTC, and not now"),
        (_others_key, "tls_key is not the key of tls_certificate"),
        (_readable_key, r"tls_key: the file .*node.key has mode 0644; nobody else may read it"),
        (_other_authority, "tls_certificate is signed by none of tls_ca"),
        (lambda files: (files.folder / "ca.pem").write_bytes(b"x"), "tls_ca is no PEM"),
        (lambda files: (files.folder / "node.pem").write_bytes(b"x"), "tls_certificate is no PEM"),
        (lambda files: (files.folder / "node.key").write_bytes(b"hunter2"), "tls_key is no PEM"),
        (lambda files: (files.folder / "node.key").unlink(), "tls_key: the file .* cannot be read"),
    ],
)
def test_a_certificate_that_is_not_this_nodes_is_told_at_the_start(
    tmp_path: Path, spoil: Callable[[Files], object], says: str
) -> None:
    files = Files(tmp_path)
    spoil(files)
    with pytest.raises(ConfigError, match=says) as raised:
        files.config().link_tls()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"lease_s = ", "is no TOML"),
        (b"\xff", "is no TOML"),
        (b"leese_s = 5", "leese_s in .* is no setting; there are advertise, api_host"),
        (b'lease_s = "many"', "lease_s in .* is 'many'; it must be an integer"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=says):
        read(file=file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.toml cannot be read: No such file"):
        read(file=tmp_path / "missing.toml")
    config = read(
        flags={
            "name": "s0",
            "etcd_ca": str(tmp_path / "ca.pem"),
        }
    )
    with pytest.raises(ConfigError, match=r"etcd_ca: the file .*ca.pem cannot be read"):
        config.etcd_config()


def test_secrets_are_read_from_files_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    flags = {
        "name": "s0",
        "etcd_user": "acs",
        "etcd_password_file": str(tmp_path / "password"),
    }
    config, shown = read_config("scheduler", environ={}, flags=flags)
    assert config.etcd_config().password == "hunter2"
    assert "hunter2" not in str(shown) + repr(config)


def test_a_role_has_its_own_settings_only() -> None:
    keys = {role: {key for key, _, _ in settings_of(role)} for role in ("scheduler", "invoker")}
    assert "sandbox" in keys["invoker"] - keys["scheduler"]
    # One file and one environment for all roles: what is another's is not looked at.
    assert read(environ={"ACS_SANDBOX": "nonsense"}).sandbox == "docker"


def test_config_check_shows_values_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('name = "i0"\nmemory_mb = 2048\n')
    arguments = ["config", "check", "invoker", "--config", str(file)]
    shown = CliRunner(env={"ACS_LEASE_S": "7"}).invoke(main, [*arguments, "--json"])
    document = json.loads(shown.output)
    assert document["memory_mb"] == {"value": 2048, "source": f"memory_mb in {file}"}
    assert document["lease_s"] == {"value": 7, "source": "environment ACS_LEASE_S"}
    table = CliRunner().invoke(main, arguments)
    assert table.exit_code == 0
    assert "memory_mb" in table.output


def test_config_check_exits_2_and_names_the_setting(tmp_path: Path) -> None:
    shown = CliRunner(env={"ACS_NAME": "s0", "ACS_LEASE_S": "1"}).invoke(
        main, ["config", "check", "scheduler"]
    )
    assert shown.exit_code == 2
    assert "environment ACS_LEASE_S is '1'; it must be an integer in 2..120" in shown.output


@pytest.mark.parametrize("role", ["controller", "scheduler", "invoker"])
def test_every_setting_is_an_option_of_its_node(role: str) -> None:
    text = CliRunner().invoke(main, [role, "--help"]).output
    for key, _, _ in settings_of(role):
        assert f"--{key.replace('_', '-')}" in text


def test_a_node_with_a_wrong_setting_does_not_start() -> None:
    shown = CliRunner(env={"ACS_NAME": ""}).invoke(main, ["scheduler", "--name=s0", "--port=x"])
    assert shown.exit_code == 2
    assert "flag --port is 'x'" in shown.output
