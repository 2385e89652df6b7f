"""Work in pieces: what became of each stands in a file as soon as it is finished, and is not done again.

A part of the campaign is a module of this package with `NAME`, `MINUTES` (about how long it takes), `PARALLEL` (whether
several pieces can be done at a time), `TESTED` (files and folders whose change makes what was found worthless),
`pieces(scope)` and `summary(outcomes)`. A piece is what an interruption can cost.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed

from companion.campaign import digest_of

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "_build" / "trust"
Found = dict[str, Any]


class Interrupted(BaseException):
    """The campaign was told to end; a command that is tried does not take it for its own interruption."""


_told: list[int] = []  # the exit status, once
# Whether threads do the pieces: they see by themselves that the campaign was told, and raising amid locks is unsafe.
_pooled = Event()


def end_in_order() -> None:
    """From now on SIGINT and SIGTERM end the campaign by `Interrupted`, and what is under way is no outcome."""
    _told.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _tell)


def _tell(number: int, _frame: object) -> None:
    _told.append(128 + number)
    if not _pooled.is_set():
        raise Interrupted(_told[0])


def _go_on() -> None:
    if _told:
        raise Interrupted(_told[0])


def repeatable(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test of hypothesis so that it tries as many examples, the same ones each time."""
    drawn = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    return lambda test: with_seed(0)(drawn(test))


@dataclass(frozen=True)
class Scope:
    """How much of a part is to be done.

    Attributes:
        sample: whether a small sample of each part is enough.
        chapters: names of the chapters to execute; all if there are none.
        workers: processes at a time.
        place: folder of the campaign's own files.
    """

    sample: bool = False
    chapters: tuple[str, ...] = ()
    workers: int = 2
    place: Path = PLACE


@dataclass(frozen=True)
class Piece:
    """One piece of a part.

    Attributes:
        name: unlike all others of its part.
        run: does it, and says what was found, as JSON has it; what is listed under "problems" is wrong with the book.
    """

    name: str
    run: Callable[[], Found]


def done(pieces: Iterable[Piece], file: Path, tested: Sequence[str], workers: int = 1) -> Iterator[tuple[str, Found]]:
    """Do what is not done yet; yields name and outcome of each piece, in order.

    Args:
        pieces: of one part.
        file: JSON lines, one for each piece that was finished, in this campaign or an earlier one.
        tested: files and folders of the project; when one of them changed, all is done again.
        workers: pieces at a time.
    """
    digest = hashlib.sha256("".join(digest_of(ROOT, name) for name in tested).encode()).hexdigest()
    known = {line["name"]: line["found"] for line in _lines(file) if line["digest"] == digest}
    writing = Lock()

    def found(piece: Piece) -> Found:
        if piece.name in known:
            return known[piece.name]
        _go_on()
        began = time.perf_counter()
        try:
            outcome = piece.run()
        except subprocess.TimeoutExpired as late:
            outcome = {"problems": [f"never came to its end: {late}"]}
        _go_on()  # what it started may have been told, too
        outcome["seconds"] = round(time.perf_counter() - began, 2)
        with writing:
            _add(file, {"name": piece.name, "digest": digest, "found": outcome})
        return outcome

    if workers == 1:
        yield from ((piece.name, found(piece)) for piece in pieces)
        return
    pieces = list(pieces)
    _pooled.set()
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from zip((piece.name for piece in pieces), pool.map(found, pieces))
    finally:
        _pooled.clear()


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """What can be read of a file of lines whose writer may have been killed."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.keys() == {"name", "digest", "found"}:
            yield entry


def _add(file: Path, line: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        # First the end of a line that a killed writer may have left.
        lines.write(f"\n{json.dumps(line)}\n")
        lines.flush()
        os.fsync(lines.fileno())


def load(path: str) -> ModuleType:
    """A module among the tests, whose lists and makers the campaign shares with them."""
    name = f"trust_{Path(path).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
