"""Files: digests that see every change, and writing that leaves the old content or the new."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from companion.files import file_digest, write_through


def test_a_failed_writing_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder/a.txt"
    write_through(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_through(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    path, killed, writing = (tmp_path / name for name in ("a.txt", ".a.txt.00000000.part", ".a.txt.11111111.part"))
    killed.touch()
    writing.touch()
    os.utime(killed, (time.time() - 3600,) * 2)
    write_through(path, b"new")
    assert {one.name for one in tmp_path.iterdir()} == {path.name, writing.name}


def test_a_digest_sees_an_edit_that_keeps_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert file_digest(path) is None
    path.write_text("1")
    state, first = path.stat(), file_digest(path)
    path.write_text("2")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert first != file_digest(path) is not None
    assert file_digest(tmp_path) is None
