"""The ledger of claims and the state of the chapters, read from the executed copies and judged by the present prose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from companion.chapters import Chapter, ProjectError, find_chapters
from companion.claims import Claim
from companion.execution import SECONDS, claims_of, executed_path, state_of, stored_metadata, why_stale
from companion.files import write_through
from companion.notebooks import PACKAGES


@dataclass(frozen=True)
class Status:
    """The state of a chapter.

    Args:
        chapter: its name.
        path: of the notebook, relative to the root.
        state: "fresh", "stale", "failed" (it did not run to its end, or a claim is not as declared) or "missing".
        problems: the claims of a fresh copy that are not as declared, or why a copy is stale.
        seconds: how long the executed copy took; ``None`` without one, like the rest.
        executed_at: when it was made, as an ISO date.
        versions: package → version that made it, for the packages that results depend on most.
        machine: on which it was made.
    """

    chapter: str
    path: str
    state: str
    problems: tuple[str, ...]
    seconds: float | None
    executed_at: str | None
    versions: Mapping[str, str]
    machine: str | None


def ledger(root: Path) -> list[Claim]:
    """Every claim that is declared and measured, in the order of the book.

    Args:
        root: directory of the project.
    """
    return [claim for chapter in find_chapters(root) for claim in claims_of(chapter, executed_path(chapter))[0]]


def book_claims(chapter: Chapter) -> tuple[list[Claim], str | None]:
    """The claims of the book's own copy of a chapter; where that is not fresh none, and the reason in words."""
    copy = executed_path(chapter)
    reason = why_stale(chapter, copy)
    return ([], reason) if reason else (claims_of(chapter, copy)[0], None)


def status(root: Path) -> list[Status]:
    """The state of every chapter, in the order of the book.

    Args:
        root: directory of the project.
    """
    return [_status(chapter) for chapter in find_chapters(root)]


def save_seconds(root: Path) -> Path:
    """Write how long each chapter took to the committed table, for the order of a fresh clone's first run.

    Returns:
        The table's path.

    Raises:
        ProjectError: when it cannot be written.
    """
    seconds = {entry.chapter: round(entry.seconds) for entry in status(root) if entry.seconds is not None}
    try:
        write_through(root / SECONDS, (json.dumps(seconds, indent=2) + "\n").encode())
    except OSError as error:
        raise ProjectError(f"{SECONDS} cannot be written: {error}") from error
    return root / SECONDS


def _status(chapter: Chapter) -> Status:
    copy = executed_path(chapter)
    noted = stored_metadata(copy)
    state, problems = _judged(chapter, copy)
    versions = noted.get("versions", {})
    return Status(
        chapter.name,
        chapter.path.as_posix(),
        state,
        problems,
        noted.get("seconds"),
        noted.get("executed_at"),
        {name: versions[name] for name in ("python", *PACKAGES) if name in versions},
        noted.get("machine"),
    )


def _judged(chapter: Chapter, copy: Path) -> tuple[str, tuple[str, ...]]:
    """State and problems of a chapter; one that cannot be read has failed, and hides no other."""
    try:
        state = state_of(chapter)
        if state == "stale":
            return state, (str(why_stale(chapter, copy)),)
        problems = tuple(claims_of(chapter, copy)[1]) if state == "fresh" else ()
    except ProjectError as error:
        return "failed", (str(error),)
    return ("failed" if problems else state), problems
