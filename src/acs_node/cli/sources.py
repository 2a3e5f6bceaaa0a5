"""From a file, folder or zip to the ``exec`` of an action."""

import base64
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

CODE_BYTES_MAX = 48 * 1024 * 1024  # what the API takes, base64 included

# What a file name's ending, or the file that a folder or zip starts from, says about the kind.
_KINDS_BY_SUFFIX = {
    ".py": "python:default",
    ".js": "nodejs:default",
    ".mjs": "nodejs:default",
    ".cjs": "nodejs:default",
}
_KINDS_BY_ENTRY = {
    "__main__.py": "python:default",
    "package.json": "nodejs:default",
    "index.js": "nodejs:default",
}
_SUFFIXES_BY_FAMILY = {"python": ".py", "nodejs": ".js"}

# Left out of folders: made anew on every machine, or not part of the program.
_LEFT_OUT = frozenset({"__pycache__", ".git", ".hg", ".svn"})
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say


def read_exec(source: Path, kind: str | None, main: str | None) -> dict[str, object]:
    """Read an action's code.

    A folder is zipped; the same content gives the same bytes on every machine. Without ``kind``
    the name's ending or the entry file decides.

    Raises click.UsageError naming the source when it cannot be read, is too large, lacks the entry
    file of its kind, or leaves the kind open.
    """
    try:
        if source.is_dir():
            code: bytes | str = zip_folder(source)
        else:
            code = _read_file(source)
    except OSError as error:
        raise click.UsageError(
            f"cannot read {error.filename or source}: {error.strerror}"
        ) from None
    if isinstance(code, bytes):
        kind = _check_entry(source, code, kind)
        code = base64.b64encode(code).decode("ascii")
    elif kind is None:
        kind = _KINDS_BY_SUFFIX.get(source.suffix.lower())
    if kind is None:
        raise click.UsageError(f"{source}: its name does not tell the kind; say --kind")
    if len(code) > CODE_BYTES_MAX:
        _too_large(source)
    return {"kind": kind, "code": code, **({"main": main} if main else {})}


def zip_folder(folder: Path) -> bytes:
    """Pack a folder's files, in the order of their names and without their times.

    Links are followed, except back into a folder that is being packed.

    Raises OSError on what cannot be read, click.UsageError when the zip gets too large.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(folder, ()):
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
            info.create_system = 3  # Unix, whatever packs it: else the modes above mean nothing
            with path.open("rb") as file, archive.open(info, "w") as member:
                while chunk := file.read(1 << 20):
                    member.write(chunk)
                    if buffer.tell() > CODE_BYTES_MAX:
                        break
            if buffer.tell() > CODE_BYTES_MAX:
                _too_large(folder)
    return buffer.getvalue()


def save_name(name: str, kind: str, binary: bool) -> str:
    """Name the file that an action's code is saved to."""
    suffix = ".zip" if binary else _SUFFIXES_BY_FAMILY.get(kind.partition(":")[0], ".txt")
    return f"{name.rpartition('/')[2]}{suffix}"


def _read_file(source: Path) -> bytes | str:
    """Read a zip as bytes, any other file as text."""
    if source.stat().st_size > CODE_BYTES_MAX:
        _too_large(source)
    content = source.read_bytes()
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{source} is neither UTF-8 text nor a zip") from None


def _check_entry(source: Path, code: bytes, kind: str | None) -> str | None:
    """Give the kind of a zip, making sure that a python one can start."""
    try:
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            names = frozenset(archive.namelist())
    except zipfile.BadZipFile as error:
        raise click.UsageError(f"{source} is no zip: {error}") from None
    if kind is None:
        kind = next((kind for entry, kind in _KINDS_BY_ENTRY.items() if entry in names), None)
        if kind is None:
            wanted = "__main__.py (python), package.json or index.js (nodejs)"
            raise click.UsageError(f"{source} has no {wanted} at its root; add it or say --kind")
    if kind.startswith("python") and "__main__.py" not in names:
        raise click.UsageError(f"{source} has no __main__.py at its root, where python starts")
    return kind


def _files(folder: Path, ancestors: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT:
            continue
        if path.is_dir():
            yield from _files(path, (*ancestors, real))
        elif path.is_file():
            yield path


def _too_large(source: Path) -> NoReturn:
    limit_mb = CODE_BYTES_MAX // (1024 * 1024)
    raise click.UsageError(f"{source} is too large: an action's code has at most {limit_mb} MB")
