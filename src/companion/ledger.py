"""The ledger of claims and the state of the chapters, read from the executed copies and judged by the present prose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from companion.chapters import Chapter, find_chapters
from companion.claims import Claim
from companion.execution import SECONDS, claims_of, executed_path, state_of, stored_metadata


@dataclass(frozen=True)
class Status:
    """The state of a chapter.

    Args:
        chapter: its name.
        path: of the notebook, relative to the root.
        state: "fresh", "stale", "failed" (it did not run to its end, or a claim is not as declared) or "missing".
        problems: the claims of a fresh copy that are not as declared.
        seconds: how long the executed copy took; ``None`` without one, like the rest.
        executed_at: when it was made, as an ISO date.
        versions: package → version that made it.
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
    copies = [(chapter, executed_path(chapter)) for chapter in find_chapters(root)]
    return [claim for chapter, copy in copies if copy.is_file() for claim in claims_of(chapter, copy)[0]]


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
    """
    seconds = {entry.chapter: round(entry.seconds) for entry in status(root) if entry.seconds is not None}
    (root / SECONDS).parent.mkdir(exist_ok=True)
    (root / SECONDS).write_text(json.dumps(seconds, indent=2) + "\n")
    return root / SECONDS


def _status(chapter: Chapter) -> Status:
    copy, state = executed_path(chapter), state_of(chapter)
    problems = tuple(claims_of(chapter, copy)[1]) if state == "fresh" else ()
    noted = stored_metadata(copy)
    return Status(
        chapter.name,
        chapter.path.as_posix(),
        "failed" if problems else state,
        problems,
        noted.get("seconds"),
        noted.get("executed_at"),
        noted.get("versions", {}),
        noted.get("machine"),
    )
