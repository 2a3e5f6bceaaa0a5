"""The settings of a node: one typed schema, read from a file, the environment and the command line.

A flag goes before the environment (``ACS_LEASE_S``), that before the file (``lease_s = 5``, TOML),
that before the default.  Every error names the setting, where it came from, its value and what
would be allowed.  A secret is the name of a file that holds it, never a value.
"""

from __future__ import annotations

import datetime
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from acs_core.containers import PoolConfig
from acs_core.limits import CONCURRENCY_MAX, CONTAINERS_MAX, MEMORY_MAX_MB

from ..action_schema import SystemLimits
from ..addresses import is_loopback
from ..etcd import EtcdConfig
from ..manifest import Manifest, ManifestError, load
from ..membership import ROLES
from ..pool_settings import PoolError, parse_prewarm, pool_config
from ..tls import LinkTls, node_domain

ENVIRONMENT_PREFIX: Final = "ACS_"

LEASE_MIN_S, LEASE_MAX_S = 2, 120
"""etcd counts in seconds and renews slowly under load; longer than this nobody wants to wait."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


class ConfigError(Exception):
    """A setting has no meaning; the text says which, where it is from, and what is allowed."""


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"an integer in {low}..{high}")
        return value

    return read


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("1..64 letters, digits, dots, dashes or underscores")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1_024:
        raise ValueError("a text of at most 1024 characters")
    return value


def _addresses(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 16:
        raise ValueError("1..16 addresses HOST:PORT")
    for each in value:
        match = _ADDRESS.fullmatch(each) if isinstance(each, str) else None
        if match is None or not 0 < int(match[2]) < 65_536:
            raise ValueError("1..16 addresses HOST:PORT")
    return tuple(value)


def _advertised(value: Any) -> str:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if value != "" and (match is None or not 0 < int(match[2]) < 65_536):
        raise ValueError("an address HOST:PORT")
    return str(value)


def _choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return read


def _tested_kind(value: Any) -> str:
    if value != "none" and not (
        isinstance(value, str) and re.fullmatch(r"(python|nodejs):[a-z0-9.]{1,32}", value)
    ):
        raise ValueError("none, or a kind of python or nodejs, as python:3")
    return str(value)


def _seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 86_400:
        raise ValueError("a number of seconds in 0..86400")
    return number


def _prewarm(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise ValueError("texts KIND:MEMORY_MB:COUNT, as python:3:256:2")
    for each in value:
        try:
            parse_prewarm(each)
        except PoolError as error:
            raise ValueError(f"texts KIND:MEMORY_MB:COUNT; {error}") from None
    return tuple(value)


def _switch(value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str):
        value = words.get(value)
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _setting(
    default: Any, read: Callable[[Any], Any], help_: str, roles: tuple[str, ...] = ROLES
) -> Any:
    return field(default=default, metadata={"read": read, "help": help_, "roles": roles})


_PORT = _integer(0, 65_535)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All settings of one node.  Those of other roles keep their defaults."""

    role: str
    name: str = _setting("", _name, "Name of the node, stable over its starts.")
    cluster: str = _setting("acs", _name, "Name of the cluster: its keys in etcd lie below it.")
    etcd: tuple[str, ...] = _setting(
        ("127.0.0.1:2379",), _addresses, "Endpoints of etcd, HOST:PORT."
    )
    etcd_user: str = _setting("", _text, "User of etcd; none unless given.")
    etcd_password_file: str = _setting("", _text, "File with the password of that user.")
    etcd_ca: str = _setting(
        "", _text, "PEM of etcd's authority; given, etcd is spoken to over TLS."
    )
    etcd_certificate: str = _setting(
        "", _text, "PEM of this node's certificate to etcd; unless given, tls_certificate."
    )
    etcd_key: str = _setting("", _text, "PEM of the key of that certificate.")
    lease_s: int = _setting(
        10,
        _integer(LEASE_MIN_S, LEASE_MAX_S),
        "After so many seconds without a sign of life a node counts as gone.",
    )
    host: str = _setting("127.0.0.1", _text, "Address to listen on for other nodes.")
    port: int = _setting(0, _PORT, "Port to listen on for other nodes, 0 for a free one.")
    advertise: str = _setting(
        "",
        _advertised,
        "HOST:PORT where other nodes reach this one; unless given, where it listens.",
    )
    links: str = _setting(
        "grpc",
        _choice("grpc", "frames"),
        "What links are made of: gRPC, or frames over plain sockets, which cost less, with the "
        "nodes that have them too.",
    )
    frames_port: int = _setting(
        0, _PORT, "Port to listen on for frames over plain sockets, 0 for a free one."
    )
    frames_advertise: str = _setting(
        "", _advertised, "Like advertise, for frames; unless given, host and the port of frames."
    )
    tls_ca: str = _setting(
        "", _text, "PEM of the authority of all nodes' certificates; given, links have TLS."
    )
    tls_certificate: str = _setting("", _text, "PEM of this node's certificate for links.")
    tls_key: str = _setting("", _text, "PEM of the key of that certificate; for nobody to read.")
    links_without_tls: bool = _setting(
        False,
        _switch,
        "Listen for other nodes beyond loopback although links have no TLS.",
    )
    health_port: int = _setting(0, _PORT, "Port of /health/live and /health/ready on loopback.")
    api_host: str = _setting("127.0.0.1", _text, "Address of the REST API.", ("controller",))
    api_port: int = _setting(
        3233, _PORT, "Port of the REST API, 0 for a free one.", ("controller",)
    )
    api_url: str = _setting(
        "http://127.0.0.1:3233", _text, "URL of the REST API, for functions.", ("invoker",)
    )
    data: str = _setting("acs-data", _text, "Folder of the node's data.", ("controller", "invoker"))
    operator_file: str = _setting(
        "",
        _text,
        "File with user:password, with which POST /disable takes this node out of service.",
        ("controller",),
    )
    database_url_file: str = _setting(
        "",
        _text,
        "File with the URL of the PostgreSQL database that all controllers share; unless given, "
        "there is one controller, with SQLite in its data folder.",
        ("controller",),
    )
    namespace_containers: int = _setting(
        CONTAINERS_MAX,
        _integer(0, CONTAINERS_MAX),
        "Cap of containers of each namespace, in the whole cluster.",
        ("controller", "scheduler"),
    )
    trace: str = _setting(
        "",
        _text,
        "Folder for traces of what is decided, one for each start; nothing is traced unless given.",
        ("scheduler",),
    )
    sandbox: str = _setting(
        "docker",
        _choice("docker", "process"),
        "What functions run in; process is no isolation.",
        ("invoker",),
    )
    memory_mb: int = _setting(
        1_024, _integer(128, MEMORY_MAX_MB), "Memory for all containers, in MB.", ("invoker",)
    )
    health_test: str = _setting(
        "python:3",
        _tested_kind,
        "Kind of the test activations (python:… or nodejs:…); none: an invoker is believed "
        "to be well, and never tested.",
        ("invoker",),
    )
    manifest: str = _setting(
        "",
        _text,
        "File with the runtimes in OpenWhisk's format, the same on all nodes; ours unless given.",
        ("controller", "invoker"),
    )
    concurrency_max: int = _setting(
        1,
        _integer(1, CONCURRENCY_MAX),
        "Most runs at once in one container that an action's limits may ask for.",
        ("controller",),
    )
    network: str = _setting(
        "acs", _text, "Docker network of functions, or none for no network.", ("invoker",)
    )
    pause_grace_s: float = _setting(
        0.0, _seconds, "Pause a container that has idled so long; 0: never.", ("invoker",)
    )
    prewarm: tuple[str, ...] = _setting(
        (),
        _prewarm,
        "Sandboxes that stand ready, KIND:MEMORY_MB:COUNT, several with commas.",
        ("invoker",),
    )
    etcd_grace_s: int = _setting(
        300,
        _integer(0, 86_400),
        "How long to serve on while etcd does not answer.",
        ("scheduler", "invoker"),
    )

    def etcd_config(self) -> EtcdConfig:
        """Read what the files hold.  Raises: ConfigError."""
        password = _content("etcd_password_file", self.etcd_password_file)
        own = "etcd" if self.etcd_certificate or not self.etcd_ca else "tls"
        return EtcdConfig(
            self.etcd,
            self.etcd_user,
            (password or b"").decode().strip(),
            _content("etcd_ca", self.etcd_ca),
            _content(f"{own}_certificate", getattr(self, f"{own}_certificate")),
            _secret(f"{own}_key", getattr(self, f"{own}_key")),
        )

    def database_url(self) -> str:
        """Read where the stores are; empty: in the data folder.  Raises: ConfigError."""
        content = _secret("database_url_file", self.database_url_file)
        if content is None:
            return ""
        url = content.decode("utf-8", "replace").strip()
        if not url.startswith("postgresql"):
            raise ConfigError(
                f"database_url_file: the file {self.database_url_file} has no URL of PostgreSQL; "
                "it must be as postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME"
            )
        return url

    def link_tls(self) -> LinkTls | None:
        """Read what links are secured with, and see that it is this node's; None: nothing is.

        Raises: ConfigError.
        """
        ca = _content("tls_ca", self.tls_ca)
        certificate = _content("tls_certificate", self.tls_certificate)
        key = _secret("tls_key", self.tls_key)
        if ca is None or certificate is None or key is None:
            return None  # all three are missing: ``_check``
        from ..certificates import CertificateError, Pair, check_node  # cryptography is large

        domain = node_domain(self.cluster, self.role, self.name)
        now = datetime.datetime.now(datetime.UTC)
        try:
            check_node(Pair(certificate, key), ca, domain, now)
        except CertificateError as error:
            files = f"{self.tls_certificate}, {self.tls_key}, {self.tls_ca}"
            raise ConfigError(f"{error} ({files})") from None
        return LinkTls(self.cluster, ca, certificate, key)

    def runtimes(self) -> Manifest | None:
        """Read the manifest; None: our own runtimes.  Raises: ConfigError."""
        try:
            return load(Path(self.manifest).expanduser()) if self.manifest else None
        except ManifestError as error:
            raise ConfigError(f"manifest: {error}") from None

    def pool(self) -> PoolConfig:
        """Return how an invoker keeps its containers.  Raises: ConfigError."""
        try:
            return pool_config(
                self.name,
                self.memory_mb,
                pause_grace_s=self.pause_grace_s,
                prewarm=tuple([parse_prewarm(each) for each in self.prewarm]),
                manifest=self.runtimes(),
                limits=SystemLimits(),
            )
        except PoolError as error:
            raise ConfigError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people see it: ``source`` says where its value is from."""

    key: str
    value: Any
    source: str
    help: str


def settings_of(role: str) -> list[tuple[str, Any, str]]:
    """Return key, default and help of every setting of a role."""
    return [
        (each.name, each.default, each.metadata["help"])
        for each in fields(NodeConfig)
        if role in each.metadata.get("roles", ())
    ]


def read_config(
    role: str,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> tuple[NodeConfig, list[Setting]]:
    """Return the settings of a node, and where each is from.  Raises: ConfigError."""
    given = [
        ("flag --{}", {k: v for k, v in (flags or {}).items() if v is not None}),
        (f"environment {ENVIRONMENT_PREFIX}{{}}", _of_environment(environ)),
        (f"{{}} in {file}", {} if file is None else _of_file(file)),
    ]
    values: dict[str, Any] = {}
    shown: list[Setting] = []
    for each in fields(NodeConfig):
        if role not in each.metadata.get("roles", ()):
            continue
        value, source = each.default, "default"
        for form, found in given:
            if each.name in found:
                source = form.format(_spelled(form, each.name))
                value = _read(each.metadata["read"], source, found[each.name])
                break
        values[each.name] = value
        shown.append(Setting(each.name, value, source, each.metadata["help"]))
    config = NodeConfig(role, **values)
    _check(config)
    return config, shown


def _spelled(form: str, name: str) -> str:
    if form.startswith("flag"):
        return name.replace("_", "-")
    return name.upper() if form.startswith("environment") else name


def _read(read: Callable[[Any], Any], source: str, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ConfigError(f"{source} is {value!r:.200}; it must be {error}") from None


def _of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    keys = {f"{ENVIRONMENT_PREFIX}{each.name.upper()}": each.name for each in fields(NodeConfig)}
    return {keys[name]: value for name, value in environ.items() if name in keys}


def _of_file(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file {path} is no TOML: {error}") from None
    known = {each.name for each in fields(NodeConfig)} - {"role"}
    for key in found:
        if key not in known:
            raise ConfigError(
                f"{key} in {path} is no setting; there are {', '.join(sorted(known))}"
            )
    return found


def _content(key: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: the file {path} cannot be read: {error.strerror}") from None


def _secret(key: str, path: str) -> bytes | None:
    """Return what a file holds that strangers must not read.  Raises: ConfigError."""
    content = _content(key, path)
    if content is not None:
        mode = Path(path).expanduser().stat().st_mode & 0o777
        if mode & 0o007:
            raise ConfigError(
                f"{key}: the file {path} has mode {mode:04o}; nobody else may read it: chmod 600"
            )
    return content


def _check(config: NodeConfig) -> None:
    """Look at what must fit together.  Raises: ConfigError."""
    if not config.name:
        raise ConfigError("name is missing; every node has one, as s0 or invoker-7")
    if config.role == "invoker":
        config.pool()
    else:
        config.runtimes()
    _check_links(config)
    if bool(config.etcd_certificate) != bool(config.etcd_key):
        raise ConfigError("etcd_certificate and etcd_key go together; one of them is missing")
    if config.etcd_certificate and not config.etcd_ca:
        raise ConfigError("etcd_certificate needs etcd_ca")
    if bool(config.etcd_user) != bool(config.etcd_password_file):
        raise ConfigError("etcd_user and etcd_password_file go together; one of them is missing")


def _check_links(config: NodeConfig) -> None:
    """Look at who may speak with this node, and where.  Raises: ConfigError."""
    if config.links == "frames" and config.advertise and not config.frames_advertise:
        raise ConfigError(
            f"advertise is {config.advertise!r}, and links is 'frames': frames have a port of "
            "their own, so give frames_advertise as well"
        )
    files = {
        "tls_ca": config.tls_ca,
        "tls_certificate": config.tls_certificate,
        "tls_key": config.tls_key,
    }
    missing = [key for key, path in files.items() if not path]
    if not missing:
        if config.links_without_tls:
            raise ConfigError("links_without_tls is true, and tls_ca is given: take one of them")
        try:
            node_domain(config.cluster, config.role, config.name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    elif len(missing) < len(files):
        raise ConfigError(f"{', '.join(files)} go together; {missing[0]} is missing")
    elif not config.links_without_tls and not is_loopback(config.host):
        raise ConfigError(
            f"host is {config.host!r}; links have no TLS, so it must be a loopback address unless "
            "tls_ca is given, or links_without_tls is true (then the network must keep strangers "
            "out)"
        )
