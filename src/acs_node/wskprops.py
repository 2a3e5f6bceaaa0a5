"""The ``.wskprops`` file: where clients of this API look for server, key and namespace.

Lines are ``KEY=VALUE``; other lines (comments, blanks) carry nothing. The file is shared with other
clients, so it is written only when it is ours: absent, empty, or already naming the same server.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_APIHOST = "http://127.0.0.1:3233"
API_PATH = "/api/v1"

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OURS = frozenset({"APIHOST", "AUTH"})
_OWN = {"NAMESPACE": "_"}  # the namespace that the key belongs to


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Name the file in use: ``WSK_CONFIG_FILE``, else ``~/.wskprops``."""
    configured = environ.get("WSK_CONFIG_FILE")
    return Path(configured) if configured else Path.home() / ".wskprops"


def parse(text: str) -> dict[str, str]:
    """Read the settings of a file's text; a key that comes twice has its last value."""
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            settings[key.strip().upper()] = value.strip()
    return settings


def format_settings(settings: Mapping[str, str]) -> str:
    """Write settings as lines that ``parse`` reads back."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def read(path: Path) -> dict[str, str]:
    """Read a file's settings; an absent file has none.

    Raises OSError when the file exists and cannot be read.
    """
    try:
        return parse(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        return {}


def base_url(apihost: str) -> str:
    """Complete an API host to a URL without a trailing slash or the API's own path.

    A host without a scheme means https, as for other clients, but http on loopback names, where
    ``acs standalone`` listens.

    Raises ValueError naming the value when it is not a host, or not http or https.
    """
    apihost = apihost.strip()
    if "://" not in apihost:
        name = urlsplit(f"//{apihost}").hostname
        apihost = f"{'http' if name in _LOOPBACK_NAMES else 'https'}://{apihost}"
    parts = urlsplit(apihost)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"API host {apihost!r} is not [http[s]://]HOST[:PORT]")
    _ = parts.port  # urlsplit checks the port only when it is asked for
    path = parts.path.rstrip("/").removesuffix(API_PATH)
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def is_loopback(url: str) -> bool:
    """Tell whether a URL of ``base_url`` names this machine's loopback interface."""
    return urlsplit(url).hostname in _LOOPBACK_NAMES


def change(path: Path, settings: Mapping[str, str | None]) -> None:
    """Set these settings of a file, or remove those that are None; its other lines stay.

    Raises OSError when it cannot be read or written.
    """
    path = Path(os.path.realpath(path))
    try:
        old = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        old = ""
    kept = [line for line in old.splitlines() if not parse(line).keys() & settings.keys()]
    given = {key: value for key, value in settings.items() if value is not None}
    _place(path, "\n".join([*kept, format_settings(given)]), replace=True)


def write_if_ours(path: Path, apihost: str, auth: str) -> str:
    """Point the file at a server, unless it points to another one.

    The file gets mode 0600 and appears whole or not at all; its other lines stay.

    Returns what was done, in words without the key. A file that cannot be read or written is such
    an outcome too: the server runs without it.
    """
    try:
        path = Path(os.path.realpath(path))  # a link to a file elsewhere stays a link
        try:
            old = path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            old = None
        settings = parse(old or "")
        pointed = settings.get("APIHOST")
        if pointed and not _same_server(pointed, apihost):
            return f"left {path} alone: it points to {pointed}"
        if pointed and settings.get("AUTH") == auth:
            return f"{path} already points here"
        if "AUTH" in settings and not pointed:
            return f"left {path} alone: it holds a key for an unnamed server"
        kept = [line for line in (old or "").splitlines() if not parse(line).keys() & _OURS]
        ours = {"APIHOST": apihost, "AUTH": auth} | ({} if "NAMESPACE" in settings else _OWN)
        _place(path, "\n".join([*kept, format_settings(ours)]), replace=old is not None)
        return f"{'wrote' if old is None else 'updated'} {path}"
    except FileExistsError:
        return f"left {path} alone: somebody else just wrote it"
    except OSError as error:
        return f"could not write {path}: {error.strerror or error}"


def _same_server(one: str, other: str) -> bool:
    try:
        return base_url(one) == base_url(other)
    except ValueError:
        return False


def _place(path: Path, text: str, *, replace: bool) -> None:
    """Write a file of mode 0600 in one visible move; without ``replace`` an existing one wins."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, fails when the name is taken meanwhile
    finally:
        Path(temporary).unlink(missing_ok=True)
