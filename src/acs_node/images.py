"""The images that containers start from: which kind uses which, how they are made and listed.

An image is built by its Dockerfile where the engine reaches a registry.  Where it does not, it is
made from this machine's own python: interpreter, standard library, the shared libraries they
need, time zones, certificates.  Such an image has no shell and no package manager.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from docker import DockerClient
from docker.errors import APIError, BuildError, NotFound

from acs_node.docker_client import engine_calls, refused
from acs_node.sandboxes import SandboxError

REPOSITORIES = {"python:3": "acs/python3"}
"""Runtime kind to the repository of its image."""

SHARED_DIRECTORY = "/acs"
"""Where a container finds the directory that it shares with the host."""

USER = "65532:65532"
"""User and group of every container: no user of any distribution, no file of the host's."""

BASE_IMAGE = "python:3.11-slim"
REGISTRY_PROBE_S = 10.0
"""How long a registry may take to describe the base image before it counts as out of reach."""
BUILD_S = 600.0
"""The longest silence of an engine that pulls, builds or imports."""

KIND_LABEL = "acs.kind"
CONTENT_LABEL = "acs.content"
SOURCE_LABEL = "acs.source"

_RECIPE = 1  # part of the content hash: raise it when how an image is made changes
_PYTHON = Path(__file__).parent / "runtimes" / "python"
_PREFIX = Path("/usr/local")
_ENTRY_POINT = ["/usr/local/bin/python3", "-I", "-B", "-X", "utf8", "/opt/acs/proxy.py", "/acs"]
_MODIFIED_S = 315_532_800  # 1980: the earliest that zip files can express

_LEFT_OUT = re.compile(
    r"""(^|/)( __pycache__ | site-packages | dist-packages | tests? | idle_test )(/|$)
      | ^( config-.* | ensurepip | idlelib | lib2to3 | tkinter | turtledemo )(/|$)
      | ^turtle\.py$
      | ^lib-dynload/( _tkinter | nis | ossaudiodev | xx.* | _xxtest.* | _test.* | .*_test )\.
      | \.(a|o|exe|pyc)$""",
    re.VERBOSE,
)
"""Paths below the standard library that no function needs; they are three quarters of it."""


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """An image of a kind; ``source`` is ``dockerfile`` or ``host``, ``built`` says: just now."""

    kind: str
    reference: str
    size_bytes: int
    source: str
    built: bool = False


def image_reference(kind: str) -> str:
    """Return the image of a runtime kind with the tag of this version.

    Raises: SandboxError (final) for a kind without an image.
    """
    repository = REPOSITORIES.get(kind)
    if repository is None:
        known = ", ".join(sorted(REPOSITORIES))
        raise SandboxError(f"kind '{kind}' has no image; kinds with one: {known}", final=True)
    return f"{repository}:{_version()}"


def build_images(
    client: DockerClient,
    progress: Callable[[str], None] = print,
    *,
    mode: str = "auto",
    base_image: str = BASE_IMAGE,
    interpreter: str | None = None,
) -> list[RuntimeImage]:
    """Build the image of every kind that is not there yet with the same content.

    ``mode`` is ``dockerfile``, ``host`` or ``auto``: as an image of this version was made before,
    else by the Dockerfile if the engine has ``base_image`` or gets an answer about it from the
    registry within 10 s, else host.  ``interpreter`` is the python whose files a host image gets
    (default: the one that runs this, outside its virtual environment).  ``progress`` takes one
    line at a time.  Not to be called twice at once with the same client.

    Raises: SandboxError with the end of the build's output; EngineUnavailable; ValueError.
    Cost: host some seconds, less than one when nothing changed; dockerfile what the registry takes.
    """
    if mode not in ("auto", "dockerfile", "host"):
        raise ValueError(f"mode is '{mode}', must be auto, dockerfile or host")
    timeout_s, client.api.timeout = client.api.timeout, BUILD_S
    try:
        with engine_calls("build images"):
            return [
                _build(client, kind, progress, mode, base_image, interpreter)
                for kind in REPOSITORIES
            ]
    except APIError as error:
        raise refused("build images", error) from error
    finally:
        client.api.timeout = timeout_s


def list_images(client: DockerClient) -> list[RuntimeImage]:
    """Return the runtime images of this engine, all versions, by reference.

    Raises: SandboxError, EngineUnavailable.
    """
    with engine_calls("list images"):
        try:
            found = client.api.images(filters={"label": [KIND_LABEL]})
        except APIError as error:
            raise refused("list images", error) from error
    images = [
        RuntimeImage(
            kind=image["Labels"][KIND_LABEL],
            reference=reference,
            size_bytes=image["Size"],
            source=image["Labels"].get(SOURCE_LABEL, ""),
        )
        for image in found
        for reference in image["RepoTags"] or ()
        if reference != "<none>:<none>"
    ]
    return sorted(images, key=lambda image: image.reference)


@cache
def _version() -> str:
    """Return the version of the distribution as a tag; ``source`` when it is not installed."""
    try:
        return metadata.version("acs-scheduler").replace("+", "-")
    except metadata.PackageNotFoundError:
        return "source"


def _build(
    client: DockerClient,
    kind: str,
    progress: Callable[[str], None],
    mode: str,
    base_image: str,
    interpreter: str | None,
) -> RuntimeImage:
    """Build the image of one kind unless the engine has it with the same content."""
    reference = image_reference(kind)
    try:
        before = client.api.inspect_image(reference)
        present = before["Config"]["Labels"] or {}
    except NotFound:
        before, present = None, {}
    if mode == "auto":
        mode = present.get(SOURCE_LABEL) or _choose_mode(client, base_image, progress)
    recipe = _HostRecipe(client, interpreter) if mode == "host" else _DockerfileRecipe(base_image)
    content = recipe.content_hash()
    built = present.get(CONTENT_LABEL) != content
    started_s = time.monotonic()
    if built:
        progress(f"{reference}: building from {recipe.description}")
        labels = {KIND_LABEL: kind, SOURCE_LABEL: mode, CONTENT_LABEL: content}
        recipe.build(client, reference, labels)
        if before is not None:
            _remove_unused(client, before["Id"])
    size_bytes = client.api.inspect_image(reference)["Size"]
    outcome = f"built in {time.monotonic() - started_s:.1f} s" if built else f"up to date ({mode})"
    progress(f"{reference}: {outcome}, {size_bytes / 1e6:.0f} MB")
    return RuntimeImage(kind, reference, size_bytes, mode, built)


def _remove_unused(client: DockerClient, image_id: str) -> None:
    """Remove an image that has lost its tag, unless it has another one or a container uses it."""
    try:
        client.api.remove_image(image_id)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise


def _choose_mode(client: DockerClient, base_image: str, progress: Callable[[str], None]) -> str:
    """Say how to build, and why: only the engine knows which registries it can reach."""
    try:
        client.api.inspect_image(base_image)
    except NotFound:
        pass
    else:
        progress(f"the engine has {base_image}: using the Dockerfile")
        return "dockerfile"
    timeout_s, client.api.timeout = client.api.timeout, REGISTRY_PROBE_S
    try:
        client.api.inspect_distribution(base_image)
    except OSError as error:  # APIError and the time-outs of requests alike
        reason = error.explanation if isinstance(error, APIError) else error
        progress(f"no registry answers for {base_image} ({reason}): using this machine's python")
        return "host"
    finally:
        client.api.timeout = timeout_s
    progress(f"the registry has {base_image}: using the Dockerfile")
    return "dockerfile"


class _DockerfileRecipe:
    """The image as its Dockerfile says."""

    def __init__(self, base_image: str) -> None:
        self.description = f"its Dockerfile on {base_image}"
        self._base_image = base_image
        self._files: dict[str, Path | bytes] = {
            "Dockerfile": _PYTHON / "Dockerfile",
            "proxy.py": _PYTHON / "proxy.py",
        }

    def content_hash(self) -> str:
        return _hash(self._files, {}, self._base_image)

    def build(self, client: DockerClient, reference: str, labels: dict[str, str]) -> None:
        with tempfile.TemporaryFile() as context:
            _write_tar(context, self._files, {})
            try:
                client.images.build(
                    fileobj=context,
                    custom_context=True,
                    tag=reference,
                    labels=labels,
                    buildargs={"BASE": self._base_image},
                    rm=True,
                    forcerm=True,
                )
            except BuildError as error:
                lines = [str(line.get("stream", "")) for line in error.build_log]
                output = "".join(lines)[-2000:]
                raise SandboxError(f"{reference}: {error.msg}\n{output}", final=True) from error


class _HostRecipe:
    """A root file system of this machine's python, imported as one layer."""

    def __init__(self, client: DockerClient, interpreter: str | None) -> None:
        architecture = client.info()["Architecture"]
        if architecture != platform.machine():
            raise SandboxError(
                f"the engine runs {architecture}, this machine's python {platform.machine()}: "
                "a host image would not start there; use mode dockerfile",
                final=True,
            )
        # Outside a virtual environment: sys._base_executable is the one name for it.
        path = os.path.realpath(
            interpreter or str(getattr(sys, "_base_executable", sys.executable))
        )
        self.description = f"the files of {path}"
        self._interpreter = path
        self._facts = json.loads(_output([path, "-I", "-c", _FACTS]))
        self._files, self._links = _collect(path, self._facts)

    def content_hash(self) -> str:
        return _hash(self._files, self._links, f"recipe {_RECIPE}")

    def build(self, client: DockerClient, reference: str, labels: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory() as stage, tempfile.NamedTemporaryFile() as layer:
            # Root is read-only in a container, so byte code must be in the image: without it each
            # start would compile what it imports.
            files = self._files | _compile(self._interpreter, self._files, Path(stage))
            _write_tar(layer, files, self._links)
            repository, tag = reference.rsplit(":", 1)
            changes = [
                *(f"LABEL {json.dumps(name)}={json.dumps(text)}" for name, text in labels.items()),
                "ENV PATH=/usr/local/bin HOME=/tmp TMPDIR=/tmp",
                "WORKDIR /tmp",
                f"USER {USER}",
                f"ENTRYPOINT {json.dumps(_ENTRY_POINT)}",
            ]
            answer = client.api.import_image_from_file(layer.name, repository, tag, changes)
            if "error" in answer:  # sent with status 200
                raise SandboxError(f"{reference}: import failed: {answer}")


_FACTS = """
import json, ssl, sys, sysconfig
paths = ssl.get_default_verify_paths()
json.dump({
    "name": "python%d.%d" % sys.version_info[:2],
    "prefix": sys.base_prefix,
    "library": sysconfig.get_path("stdlib"),
    "certificates": paths.openssl_cafile,
    "certificates_found": paths.cafile,
}, sys.stdout)
"""


def _collect(
    interpreter: str, facts: dict[str, Any]
) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Return the files of a host image (path in the image to source) and its symbolic links.

    The prefix of the interpreter becomes /usr/local whatever it is here: an interpreter finds its
    library from where it lies itself.
    """
    library = Path(facts["library"])
    target = _PREFIX / library.relative_to(facts["prefix"])
    binary = f"{_PREFIX}/bin/{facts['name']}"
    files: dict[str, Path | bytes] = {
        binary: Path(interpreter),
        "/opt/acs/proxy.py": _PYTHON / "proxy.py",
        "/etc/passwd": f"root:x:0:0::/:/\nacs:x:{USER}::/tmp:/\n".encode(),
        "/etc/group": f"root:x:0:\nacs:x:{USER.partition(':')[2]}:\n".encode(),
        "/etc/nsswitch.conf": b"hosts: files dns\n",
    }
    for path in _files_below(library):
        relative = path.relative_to(library)
        if not _LEFT_OUT.search(relative.as_posix()):
            files[f"{target / relative}"] = path
    zones = Path("/usr/share/zoneinfo")
    for path in _files_below(zones):
        # posix/ and right/ repeat all zones, without and with leap seconds.
        if path.relative_to(zones).parts[0] not in ("posix", "right"):
            files[str(path)] = path
    for certificates in (facts["certificates_found"], "/etc/ssl/certs/ca-certificates.crt"):
        if certificates and Path(certificates).is_file():
            files[facts["certificates"]] = Path(certificates)
            break
    _add_shared_libraries(files)
    return files, {f"{_PREFIX}/bin/python3": facts["name"]}


def _add_shared_libraries(files: dict[str, Path | bytes]) -> None:
    """Add what the interpreter and its extension modules load; drop modules that cannot load.

    All libraries go where libc lies, the one folder that its loader surely searches: run paths of
    this machine mean nothing in the image.  The loader keeps its path, which is in every program.
    """
    programs = {
        str(source): target
        for target, source in files.items()
        if isinstance(source, Path) and ("/bin/" in target or target.endswith(".so"))
    }
    libraries: dict[str, Path] = {}
    program = ""
    for line in _output(["ldd", *programs]).splitlines():
        if not line.startswith("\t"):
            program = line.rstrip(":")
        elif match := re.fullmatch(r"\t(\S+) => (/.+) \(0x[0-9a-f]+\)", line):
            libraries.setdefault(match[1], Path(match[2]))
        elif match := re.fullmatch(r"\t(/.+) \(0x[0-9a-f]+\)", line):
            files[match[1]] = Path(match[1])
        elif "not found" in line:
            if not program.endswith(".so"):
                raise SandboxError(f"{program} itself cannot load: {line.strip()}", final=True)
            files.pop(programs[program], None)
    if "libc.so.6" not in libraries:
        raise SandboxError("host images need glibc; use mode dockerfile", final=True)
    folder = libraries["libc.so.6"].parent
    # Loaded by libc by name, where they are not a part of it (before 2.34).
    for name in ("libnss_files.so.2", "libnss_dns.so.2"):
        if (folder / name).is_file():
            libraries.setdefault(name, folder / name)
    for name, path in libraries.items():
        files[f"{folder / name}"] = path


def _compile(
    interpreter: str, files: dict[str, Path | bytes], stage: Path
) -> dict[str, Path | bytes]:
    """Return the byte code of the python sources, which is made in ``stage``.

    It names no time (unchecked-hash), so the layer stays the same whenever it is made.
    """
    for target, source in files.items():
        if target.endswith(".py") and isinstance(source, Path):
            copy = stage / target[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    _output(
        [
            *(interpreter, "-I", "-m", "compileall", "-q"),
            *("--invalidation-mode", "unchecked-hash", "-s", str(stage), "-p", "/", str(stage)),
        ]
    )
    return {f"/{path.relative_to(stage)}": path for path in stage.rglob("*.pyc")}


def _files_below(folder: Path) -> list[Path]:
    """Return the regular files below ``folder`` (links to files count, links to folders do not)."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.isfile(os.path.join(parent, name))
    ]


def _hash(files: dict[str, Path | bytes], links: dict[str, str], recipe: str) -> str:
    """Return a hash of all that goes into an image."""
    digest = hashlib.sha256(f"{recipe}\n{json.dumps(sorted(links.items()))}\n".encode())
    for target, source in sorted(files.items()):
        content = source if isinstance(source, bytes) else source.read_bytes()
        digest.update(f"{target}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _write_tar(out: IO[bytes], files: dict[str, Path | bytes], links: dict[str, str]) -> None:
    """Write a tar that depends on nothing but names and contents; leaves ``out`` at its start."""
    folders = {str(parent) for path in [*files, *links] for parent in Path(path).parents}
    if any(path.startswith("/") for path in files):
        folders |= {"/tmp", "/proc", "/sys", "/dev", SHARED_DIRECTORY}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folders | files.keys() | links.keys()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mtime = _MODIFIED_S
            entry.mode = 0o755
            if path in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[path]
                tar.addfile(entry)
            elif path not in files:
                if path in ("/", "."):
                    continue
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o1777 if path == "/tmp" else 0o755
                tar.addfile(entry)
            else:
                source = files[path]
                content = source if isinstance(source, bytes) else source.read_bytes()
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    out.seek(0)


def _output(command: list[str]) -> str:
    """Run a program of this machine and return what it prints.  Raises: SandboxError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"cannot run {command[0]}: {error}", final=True) from error
    # ldd exits 1 when one of its files is not dynamic, which is no fault here.
    if done.returncode != 0 and command[0] != "ldd":
        output = (done.stdout + done.stderr)[-2000:]
        raise SandboxError(f"{command[0]} exited {done.returncode}: {output}", final=True)
    return done.stdout
