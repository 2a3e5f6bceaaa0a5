"""How the images of runtimes are made: by a Dockerfile, or from files of this machine.

A recipe knows its content before it builds, so that what is there already is not built again.
Which images there are, and which recipe is used when, is in ``images``.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from docker import DockerClient
from docker.errors import BuildError

from acs_node.runtimes import NODEJS_PROXY, PYTHON_PROXY, find_node
from acs_node.sandboxes import SandboxError

SHARED_DIRECTORY = "/acs"
"""Where a container finds the directory that it shares with the host."""

USER = "65532:65532"
"""User and group of every container: no user of any distribution, no file of the host's."""

_RECIPE = 1  # part of the content hash: raise it when how an image is made changes
_PREFIX = Path("/usr/local")
_MODIFIED_S = 315_532_800  # 1980: the earliest that zip files can express

_LEFT_OUT = re.compile(
    r"""(^|/)( __pycache__ | site-packages | dist-packages | tests? | idle_test )(/|$)
      | ^( config-.* | ensurepip | idlelib | lib2to3 | tkinter | turtledemo )(/|$)
      | ^turtle\.py$
      | ^lib-dynload/( _tkinter | nis | ossaudiodev | xx.* | _xxtest.* | _test.* | .*_test )\.
      | \.(a|o|exe|pyc)$""",
    re.VERBOSE,
)
"""Paths below python's standard library that no function needs; they are three quarters of it."""

_NODE_PARTS = ("acorn", "acorn-walk", "cjs-module-lexer", "undici")
"""Parts of node that Debian's reads from /usr/share/nodejs when it starts."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime of ours: its action proxy, its start, and what its image is made from."""

    family: str
    proxy: Path
    entry_point: tuple[str, ...]
    base_image: str

    def program(self) -> str:
        """Return the interpreter of this machine.  Raises: SandboxError where there is none."""
        if self.family == "python":
            # Outside a virtual environment: sys._base_executable is the one name for it.
            return str(getattr(sys, "_base_executable", sys.executable))
        return find_node()


RUNTIMES = {
    "python:3": Runtime(
        "python",
        PYTHON_PROXY,
        ("/usr/local/bin/python3", "-I", "-B", "-X", "utf8", "/opt/acs/proxy.py", SHARED_DIRECTORY),
        "python:3.11-slim",
    ),
    "nodejs:20": Runtime(
        "nodejs",
        NODEJS_PROXY,
        ("/usr/local/bin/node", "/opt/acs/proxy.js", SHARED_DIRECTORY),
        "node:20-slim",
    ),
}
"""The runtimes that come with this program, by kind."""


class DockerfileRecipe:
    """The image as its Dockerfile says."""

    def __init__(self, runtime: Runtime, base_image: str) -> None:
        self.description = f"its Dockerfile on {base_image}"
        self._base_image = base_image
        self._files: dict[str, Path | bytes] = {
            "Dockerfile": runtime.proxy.parent / "Dockerfile",
            runtime.proxy.name: runtime.proxy,
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


class HostRecipe:
    """A root file system of a program of this machine, imported as one layer.

    ``program`` is the interpreter whose files it gets; None: the runtime's own choice.
    Raises: SandboxError where there is none, or the engine is of another architecture.
    """

    def __init__(self, client: DockerClient, runtime: Runtime, program: str | None) -> None:
        architecture = client.info()["Architecture"]
        if architecture != platform.machine():
            raise SandboxError(
                f"the engine runs {architecture}, this machine's programs {platform.machine()}: "
                "a host image would not start there; use mode dockerfile",
                final=True,
            )
        path = os.path.realpath(program or runtime.program())
        self.description = f"the files of {path}"
        self._runtime = runtime
        self._program = path
        collect = _collect_python if runtime.family == "python" else _collect_node
        self._files, self._links = collect(path)
        self._files |= {
            f"/opt/acs/{runtime.proxy.name}": runtime.proxy,
            "/etc/passwd": f"root:x:0:0::/:/\nacs:x:{USER}::/tmp:/\n".encode(),
            "/etc/group": f"root:x:0:\nacs:x:{USER.partition(':')[2]}:\n".encode(),
            "/etc/nsswitch.conf": b"hosts: files dns\n",
        }
        _add_shared_libraries(self._files)

    def content_hash(self) -> str:
        return _hash(self._files, self._links, f"recipe {_RECIPE}")

    def build(self, client: DockerClient, reference: str, labels: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory() as stage, tempfile.NamedTemporaryFile() as layer:
            files = self._files
            if self._runtime.family == "python":
                # Root is read-only in a container, so byte code must be in the image: without it
                # each start would compile what it imports.
                files = files | _compile(self._program, files, Path(stage))
            _write_tar(layer, files, self._links)
            repository, tag = reference.rsplit(":", 1)
            changes = [
                *(f"LABEL {json.dumps(name)}={json.dumps(text)}" for name, text in labels.items()),
                "ENV PATH=/usr/local/bin HOME=/tmp TMPDIR=/tmp",
                "WORKDIR /tmp",
                f"USER {USER}",
                f"ENTRYPOINT {json.dumps(self._runtime.entry_point)}",
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


def _collect_python(interpreter: str) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Return the files of a python image (path in the image to source) and its symbolic links.

    The prefix of the interpreter becomes /usr/local whatever it is here: an interpreter finds its
    library from where it lies itself.
    """
    facts = json.loads(_output([interpreter, "-I", "-c", _FACTS]))
    library = Path(facts["library"])
    target = _PREFIX / library.relative_to(facts["prefix"])
    files: dict[str, Path | bytes] = {f"{_PREFIX}/bin/{facts['name']}": Path(interpreter)}
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
    return files, {f"{_PREFIX}/bin/python3": facts["name"]}


def _collect_node(node: str) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Return the files of a nodejs image.  Certificates and time zones are in the program."""
    _output([node, "--version"])  # one that does not run here would not run there
    files: dict[str, Path | bytes] = {f"{_PREFIX}/bin/node": Path(node)}
    for name in _NODE_PARTS:
        for path in _files_below(Path("/usr/share/nodejs", name)):
            files[str(path)] = path
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.is_file():  # what else runs there, and Debian's node, look for them
        files[str(certificates)] = certificates
    return files, {}


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
