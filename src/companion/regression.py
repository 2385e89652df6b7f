"""Plugin for pytest: ``pytest --embedding-claims BOOK`` makes a test of each claim, for other projects' own checks.

BOOK is the directory of the project or one of its notebooks. A chapter is executed, if it is not up to date, when the
first of its claims is tested. Every pytest loads this module where the package is installed: the book's packages are
imported only when the option is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from companion.execution import Outcome

OPTION = "--embedding-claims"


class ClaimError(Exception):
    """A claim that is not as declared; the message holds all that a reader needs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("embedding principle")
    group.addoption(OPTION, action="store_true", help="make a test of each claim of the book's chapters in the paths")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A chapter of a book, if claims are asked for; other notebooks are none of this plugin's business."""
    if not parent.config.getoption(OPTION) or file_path.suffix != ".ipynb":
        return None
    from companion.chapters import ProjectError, find_chapters, find_root

    try:
        root = find_root(file_path.parent)
        chapters = [chapter for chapter in find_chapters(root) if root / chapter.path == file_path.resolve()]
    except ProjectError as error:
        raise pytest.UsageError(f"{file_path}: {error}") from error
    return ChapterFile.from_chapter(chapters[0], file_path, parent) if chapters else None


class ChapterFile(pytest.File):
    """One chapter, executed once when its first claim is tested."""

    chapter: Any

    @classmethod
    def from_chapter(cls, chapter: Any, path: Path, parent: pytest.Collector) -> ChapterFile:
        """The collector of one chapter's claims."""
        made: ChapterFile = cls.from_parent(parent, path=path)
        made.chapter = chapter
        return made

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each claim that the chapter declares."""
        from companion.chapters import ProjectError

        try:
            names = list(self.chapter.declarations)
        except ProjectError as error:
            raise self.CollectError(str(error)) from error
        for name in names:
            yield ClaimItem.from_parent(self, name=name)

    @cached_property
    def outcome(self) -> Outcome:
        """What became of the chapter."""
        from companion.execution import run_chapter

        return run_chapter(self.chapter)


class ClaimItem(pytest.Item):
    """One claim, as a test."""

    parent: ChapterFile

    def runtest(self) -> None:
        """Fail unless the claim is as declared."""
        outcome = self.parent.outcome
        if outcome.error:
            raise ClaimError(f"{self.parent.chapter.name} did not run to its end: {outcome.error}")
        others = {name for name in self.parent.chapter.declarations if name != self.name}
        # What concerns no declared claim, such as one that is measured alone, spoils all of them.
        own = [said for said in outcome.problems if not any(f"claim {name} " in said for name in others)]
        if own:
            raise ClaimError("; ".join(own))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The reason in words; a fault of this plugin itself as a traceback."""
        return str(excinfo.value) if isinstance(excinfo.value, ClaimError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The claim by its name."""
        return self.path, None, f"claim {self.name}"
