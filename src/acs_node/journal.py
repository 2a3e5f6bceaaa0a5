"""What was answered and is not in the database yet: a file that a killed process leaves behind.

Records are committed in groups, after their callers have been answered.  So each is written
here first, all of a turn of the loop with one write and without waiting for the disk: that
survives the process, not the machine's power.  What the database has committed is forgotten by
removing whole files; at a start ``recover`` returns the rest.

A frame is length and CRC-32, four bytes each, and the fields of a record by ``marshal``.
"""

from __future__ import annotations

import logging
import marshal
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .records import Record

log = logging.getLogger(__name__)

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Then the next file begins: small enough that what is committed soon leaves the disk."""

_FRAME: Final = struct.Struct(">II")
_SUFFIX: Final = ".journal"


class Journal:
    """The journal in ``folder``, which is made; owned by the event loop.

    A journal that cannot be written costs the promise to survive a kill, not the service: that
    is logged once, and tried again after the database's next commit.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: OSError when the folder cannot be made."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._frames: list[bytes] = []
        self._file = _File(folder, _last_number(folder) + 1)
        # Where each record is that the database has not committed.
        self._files: dict[bytes, _File] = {}
        self._failing = False

    def note(self, key: bytes, record: Record) -> None:
        """Take a record whose answer follows; ``sync`` writes it.  About 2 us."""
        if self._failing:
            return
        text = marshal.dumps(
            (
                record.activation_id,
                record.namespace,
                record.path,
                record.start_ms,
                record.end_ms,
                record.status_code,
                record.rank,
                record.head,
                record.logs,
            )
        )
        self._frames.append(_FRAME.pack(len(text), zlib.crc32(text)))
        self._frames.append(text)
        if key not in self._files:
            self._files[key] = self._file
            self._file.records += 1

    def sync(self) -> None:
        """Write what was noted; call it before the answers are sent.  One write to the cache."""
        if not self._frames:
            return
        data = b"".join(self._frames)
        self._frames.clear()
        try:
            self._file.write(data)
        except OSError as error:
            log.error(
                "the journal in %s cannot be written, a killed server would lose records: %s",
                self._folder,
                error.strerror,
            )
            self._failing = True
            self._next_file()  # nothing can be read behind a frame that was torn
            return
        if self._file.size >= FILE_BYTES_MAX:
            self._next_file()

    def committed(self, keys: Iterable[bytes]) -> None:
        """Forget the records that the database has."""
        for key in keys:
            file = self._files.pop(key, None)
            if file is not None:
                file.records -= 1
                if not file.records and file is not self._file:
                    file.remove()
        if self._failing:
            self._failing = False
            log.warning("the journal in %s is tried again", self._folder)

    def close(self) -> None:
        """Write nothing more; remove the files unless they hold what is not committed."""
        self.sync()
        for file in {self._file, *self._files.values()}:
            file.close()
            if not file.records:
                file.remove()

    def _next_file(self) -> None:
        old, self._file = self._file, _File(self._folder, self._file.number + 1)
        old.close()
        if not old.records:
            old.remove()


class _File:
    """One file of the journal, made when it is first written to."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.records = 0  # that are not committed
        self.size = 0
        self._path = folder / f"{number:012d}{_SUFFIX}"
        self._fd = -1

    def write(self, data: bytes) -> None:
        """Append ``data``.  Raises: OSError, and then its end may be torn."""
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        self.size += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        if self.size:
            self._path.unlink(missing_ok=True)
            self.size = 0


def recover(folder: Path) -> list[Record]:
    """Return the records in the files of an earlier run, the oldest first.

    A file is read up to the first frame that is torn or damaged; what is lost is logged.
    Raises: OSError.
    """
    records: list[Record] = []
    for path in _paths(folder):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            start = at + _FRAME.size
            if start > len(data):
                break
            size, crc = _FRAME.unpack_from(data, at)
            text = data[start : start + size]
            if len(text) < size or zlib.crc32(text) != crc:
                break
            records.append(Record(*marshal.loads(text)))
            at = start + size
        if at < len(data):
            log.warning("%s: the last %d bytes are damaged", path, len(data) - at)
    return records


def forget(folder: Path) -> None:
    """Remove the files of an earlier run, when the database has what they hold."""
    for path in _paths(folder):
        path.unlink()


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{_SUFFIX}"))


def _last_number(folder: Path) -> int:
    paths = _paths(folder)
    return int(paths[-1].name.removesuffix(_SUFFIX)) if paths else 0
