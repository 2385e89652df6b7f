"""Files as the machinery handles them: digests by which a change is seen, and writing that a failure cannot halve."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

ABANDONED_SECONDS = 60  # no writing takes as long: what is older was left by a process that was killed


def write_through(path: Path, content: bytes) -> None:
    """Write a file as a whole: whatever interrupts it, the place holds the old content or the new one.

    The content is on the disk before it takes the place of the old; folders are made as needed.

    Raises:
        OSError: when it cannot be written; what was there is as it was.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_through(Path(folder, "new", "a.txt"), b"a")
        ...     Path(folder, "new", "a.txt").read_text()
        'a'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file as it is now; ``None`` where there is no file that can be read.

    A file that has not been touched since is not read again.
    """
    try:
        stamp = file_stamp(path)
        return _digest(path, stamp)
    except OSError:
        return None


def file_stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever a file does.

    Raises:
        OSError: when there is no such file.
    """
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def file_record(root: Path, paths: Iterable[Path]) -> bytes:
    """Names and SHA-256 of files (relative to ``root``), so that no two sets of files look alike."""
    return "".join(f"{path.as_posix()}\0{file_digest(root / path)}\n" for path in paths).encode()


@lru_cache(maxsize=4096)
def _digest(path: Path, stamp: tuple[int, ...]) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove_abandoned(path: Path) -> None:
    for part in path.parent.glob(f".{path.name}.*.part"):
        if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
            part.unlink(missing_ok=True)
