"""Notes every file of the project that a kernel reads, when it reads it.

A kernel, and whatever Python it starts, runs this file as its ``sitecustomize``, before anything else; it is handed
over as text, to workers of a cluster too, so it imports the standard library alone. Each line of the record is a JSON
list: ``["read", path, SHA-256]`` (``null`` for a file that was asked for and is not there), ``["write", path]``,
``["import", module]`` or, where no installed library but the chapter itself asks for it, ``["own import", module]``.
Paths are relative to the project's root.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from _thread import get_ident
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any

ROOT, RECORD = "COMPANION_ROOT", "COMPANION_RECORD"  # variables of the kernel
PROSE = "companion.prose"  # event: from now on a thread reads prose, on which no number depends, or does so no longer


class Recorder:
    """An audit hook.

    Args:
        root: directory of the project.
        record: the file to append to, at once: a kernel may end at any moment.
    """

    def __init__(self, root: str, record: str) -> None:
        self._root = os.path.join(os.path.realpath(root), "")
        self._record = record
        places = (self._root + "_build", sys.prefix, sys.base_prefix, os.path.dirname(record))
        within = [os.path.join(os.path.realpath(place), "") for place in places]
        self._ignored = tuple(place for place in within if place.startswith(self._root))
        self._installed = ("<frozen", sys.prefix, sys.base_prefix)
        self._imported: set[tuple[str, str]] = set()
        self._silent: set[int] = set()  # threads that read prose, or are in this very recorder

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of an event without disturbing it: what is wrong with it, it says itself."""
        thread = get_ident()
        if event == PROSE:
            (self._silent.add if arguments[0] else self._silent.discard)(thread)
        elif event in _NOTED and thread not in self._silent:
            self._silent.add(thread)
            try:
                _NOTED[event](self, *arguments)
            except (OSError, ValueError, TypeError):
                pass
            finally:
                self._silent.discard(thread)

    def name(self, path: Any) -> str | None:
        """The path relative to the root; ``None`` for a file that is none of the project's, or is made from it."""
        if isinstance(path, int):
            return None
        plain = os.path.abspath(os.fsdecode(path))
        for place in (plain, os.path.realpath(plain)):
            if place.startswith(self._root) and not place.startswith(self._ignored):
                return place.removeprefix(self._root)
        return None

    def opened(self, path: Any, mode: Any, flags: int) -> None:
        """Note an opened file; one that is opened to be changed may be read too."""
        if not flags & (os.O_WRONLY | os.O_TRUNC | os.O_EXCL):
            self.read(path)
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.wrote(path)

    def imported(self, module: str, file: str | None, *paths: Any) -> None:
        """Note that a module was asked for, and the file of one that was compiled."""
        if file:
            self.read(file)
            return
        caller = sys._getframe(2).f_code.co_filename
        kind = "import" if caller.startswith(self._installed) else "own import"
        if (kind, module) not in self._imported:
            self._imported.add((kind, module))
            self._note(kind, module)

    def connected(self, database: Any, *more: Any) -> None:
        """Note a database that is a file."""
        if not os.fsdecode(database).startswith((":", "file:")):
            self.read(database)

    def renamed(self, source: Any, target: Any, *directories: Any) -> None:
        """Note what a file is renamed to."""
        self.wrote(target)

    def read(self, path: Any) -> None:
        """Note a file with what is in it now."""
        if name := self.name(path):
            try:
                if stat.S_ISREG(os.stat(self._root + name).st_mode):
                    with open(self._root + name, "rb") as file:
                        self._note("read", name, hashlib.file_digest(file, "sha256").hexdigest())
            except (FileNotFoundError, NotADirectoryError):
                self._note("read", name, None)

    def wrote(self, path: Any) -> None:
        """Note a file that the chapter makes itself."""
        if name := self.name(path):
            self._note("write", name)

    def _note(self, *line: str | None) -> None:
        """Append a line; the file is opened each time, since code may close what it has not opened."""
        file = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)


_NOTED: dict[str, Callable[..., None]] = {
    "open": Recorder.opened,
    "import": Recorder.imported,
    "os.rename": Recorder.renamed,
    "ctypes.dlopen": Recorder.read,
    "sqlite3.connect": Recorder.connected,
}


def install(root: str, record: str) -> None:
    """Record from now on, and compile the project's modules from their sources.

    Python takes cached bytecode for good if a source has its size and time, which an edit can keep.
    """
    recorder = Recorder(root, record)
    cached = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        path = loader.get_filename(name)
        if recorder.name(path) is None:
            return cached(loader, name)
        return loader.source_to_code(loader.get_data(path), path)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
    sys.addaudithook(recorder)


if __name__ == "sitecustomize" and RECORD in os.environ:
    install(os.environ[ROOT], os.environ[RECORD])
