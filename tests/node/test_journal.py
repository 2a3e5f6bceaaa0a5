"""The journal: what a killed process had answered, and what is left of a damaged file."""

import errno
import logging
import os
from pathlib import Path

import pytest

from acs_node import journal
from acs_node.journal import Journal, forget, recover
from acs_node.records import DEFINITE, Record


def a_record(number: int, size: int = 0) -> Record:
    head = b'{"name":"hello","x":"' + size * b"x" + b'"'
    return Record(f"{number:032x}", "guest", "p/hello", 5, number, 0, DEFINITE, head, b'["l"]')


def key(number: int) -> bytes:
    return number.to_bytes(16)


def note(made: Journal, *numbers: int, size: int = 0) -> None:
    for number in numbers:
        made.note(key(number), a_record(number, size))


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_was_noted_is_recovered_in_order(tmp_path: Path) -> None:
    made = Journal(tmp_path / "journal")
    note(made, 3, 1)
    made.sync()
    note(made, 2)
    made.sync()
    assert recover(tmp_path / "journal") == [a_record(3), a_record(1), a_record(2)]
    (file,) = files(tmp_path / "journal")
    assert file.stat().st_mode & 0o777 == 0o600
    forget(tmp_path / "journal")
    assert recover(tmp_path / "journal") == []


def test_nothing_is_written_before_sync_nor_without_a_note(tmp_path: Path) -> None:
    made = Journal(tmp_path)
    made.sync()
    note(made, 1)
    assert files(tmp_path) == []


def test_a_file_goes_when_all_in_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FILE_BYTES_MAX", 1_000)
    made = Journal(tmp_path)
    note(made, 1, 2, size=600)
    made.sync()
    note(made, 3)
    made.sync()
    first, second = files(tmp_path)
    made.committed([key(1), key(9)])
    assert files(tmp_path) == [first, second]
    made.committed([key(2)])
    assert files(tmp_path) == [second]
    made.committed([key(3)])
    assert recover(tmp_path) == [a_record(3)]  # more may come
    made.close()
    assert files(tmp_path) == []


def test_a_close_keeps_what_is_not_committed(tmp_path: Path) -> None:
    made = Journal(tmp_path)
    note(made, 1)
    made.close()
    assert recover(tmp_path) == [a_record(1)]


def test_another_journal_does_not_touch_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    note(first, 1)
    first.sync()
    second = Journal(tmp_path)
    note(second, 2)
    second.sync()
    assert recover(tmp_path) == [a_record(1), a_record(2)]


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_a_torn_end_costs_the_torn_record_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    made = Journal(tmp_path)
    note(made, 1, 2)
    made.sync()
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    assert recover(tmp_path) == [a_record(1)]
    assert "bytes are damaged" in caplog.text


@pytest.mark.parametrize("length", range(1, 8))
def test_a_torn_beginning_of_a_frame_is_found(tmp_path: Path, length: int) -> None:
    made = Journal(tmp_path)
    note(made, 1)
    made.sync()
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes() + b"\0" * length)
    assert recover(tmp_path) == [a_record(1)]


def test_no_damaged_record_is_taken(tmp_path: Path) -> None:
    made = Journal(tmp_path)
    note(made, 1, 2)
    made.sync()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        file.write_bytes(damaged)
        assert recover(tmp_path) in ([], [a_record(1)])


def test_a_full_disk_is_logged_once_and_tried_again_after_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    made = Journal(tmp_path)
    note(made, 1)
    made.sync()
    write = os.write

    def torn(fd: int, data: bytes) -> int:
        write(fd, data[:11])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", torn)
    note(made, 2)
    made.sync()
    note(made, 3)
    made.sync()
    assert caplog.text.count("No space left on device") == 1
    monkeypatch.undo()
    assert recover(tmp_path) == [a_record(1)]
    made.committed([key(2)])
    assert "tried again" in caplog.text
    note(made, 4)
    made.sync()
    assert recover(tmp_path) == [a_record(1), a_record(4)]
    made.committed([key(1), key(4)])
    made.close()
    assert files(tmp_path) == []


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Journal(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    note(made, 1)
    made.sync()
    assert recover(tmp_path) == [a_record(1)]
