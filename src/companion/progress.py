"""A bar that moves with every cell, for whoever waits at a terminal; nothing of it where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from tqdm import tqdm

from companion.chapters import Chapter
from companion.execution import Outcome


class Progress:
    """How many of all code cells are done, over several chapters that may run at the same time.

    Args:
        chapters: what is to be run, in the order of ``parameters``.
        parameters: of each of them.
    """

    def __init__(self, chapters: Iterable[Chapter], parameters: Iterable[Mapping[str, Any]]) -> None:
        total = sum(_cells(chapter, values) for chapter, values in zip(chapters, parameters, strict=True))
        # disable=None: no bar where there is no terminal.
        self._bar = tqdm(total=total, unit="cell", disable=None)
        self._lock = Lock()
        self._done: Counter[str] = Counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def done(self) -> int:
        """Cells that are done, those of chapters that were fresh among them."""
        return self._done.total()

    def cell(self, chapter: Chapter, parameters: Mapping[str, Any]) -> None:
        """A cell has run."""
        self._move(chapter, parameters, 1)

    def chapter(self, outcome: Outcome) -> None:
        """A chapter has come to its end, whichever of its cells were run and seen."""
        self._move(outcome.chapter, outcome.parameters, _cells(outcome.chapter, outcome.parameters))

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line)

    def _move(self, chapter: Chapter, parameters: Mapping[str, Any], cells: int) -> None:
        key = f"{chapter.name} {sorted(parameters.items())}"
        with self._lock:  # each chapter runs in a thread of its own
            before, total = self._done[key], _cells(chapter, parameters)
            # The cell that the machinery adds at the end is none of the chapter's.
            self._done[key] = min(before + cells, total)
            self._bar.set_postfix_str(f"{chapter.name} {self._done[key]}/{total}", refresh=False)
            self._bar.update(self._done[key] - before)


def _cells(chapter: Chapter, parameters: Mapping[str, Any]) -> int:
    """The code cells that are executed: papermill adds one with the parameters, and passes over those without code."""
    return sum(bool(cell.source.strip()) for cell in chapter.code_cells) + bool(parameters)
