"""What the campaign `make trust` found, as a page: its outcome file names the sources that it tried, by digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from companion.chapters import code_digest, find_chapters
from companion.claims import RELATIONS, format_number
from companion.files import file_record
from companion.tables import MISSING, code_span, list_table, plain

RESULTS = Path("trust/results.json")
BOOK = "book"
TITLES = {
    "mutants": "Faults put into the source",
    "calls": "Calls of the library",
    "options": "Command lines",
    "kills": "Kills",
    "faults": "Spoilt ground",
    "executions": "The book, executed again",
    "supply": "What the book is made of",
}
NOT_YET = "*The campaign has not been run: `make trust` runs it.*"


def digest_of(root: Path, name: str) -> str:
    """SHA-256 of a file of the project, or of all files below a folder but those that tools leave there.

    Of :data:`BOOK` the code of the chapters counts alone, as for their executed copies.

    Args:
        root: directory of the project.
        name: path of the file or the folder, relative to the root.

    Raises:
        ProjectError: when the chapters cannot be read.
    """
    if name == BOOK:
        codes = [f"{chapter.name} {code_digest(chapter)}\n" for chapter in find_chapters(root)]
        return hashlib.sha256("".join(codes).encode()).hexdigest()
    paths = [root / name] if (root / name).is_file() else sorted((root / name).rglob("*"))
    files = [path.relative_to(root) for path in paths if path.is_file()]
    kept = [path for path in files if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    return hashlib.sha256(file_record(root, kept)).hexdigest()


def trust_markdown(root: Path) -> str:
    """The outcome file as MyST Markdown: a section a part, which says what was tried, where, and what was found.

    Raises:
        ValueError: when the file holds something else than the campaign writes.
    """
    if not (root / RESULTS).is_file():
        return NOT_YET
    try:
        parts = json.loads((root / RESULTS).read_text(encoding="utf-8"))["parts"]
        sections = [_section(root, name, parts[name]) for name in TITLES if name in parts]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{RESULTS}: not what `make trust` writes ({error!r}); run it again") from error
    missing = [f"*{TITLES[name]}*" for name in TITLES if name not in parts]
    not_run = f"Not run yet: {', '.join(missing)}.\n\n" if missing else ""
    return not_run + "\n".join(sections)


def _section(root: Path, name: str, part: Mapping[str, Any]) -> str:
    summary = part["summary"]
    counts = [(key, f"{value:,}") for key, value in summary.items() if isinstance(value, int | float)]
    texts = [(key, plain(value)) for key, value in summary.items() if isinstance(value, str)]
    lists = [
        (key, ", ".join(map(plain, value)) or "none")
        for key, value in summary.items()
        if isinstance(value, list) and all(isinstance(item, str) for item in value)
    ]
    paragraphs = [
        f"## {TITLES[name]}",
        _provenance(root, part),
        list_table(("What", "Figure"), [*counts, *texts, *lists], "trust-table"),
        _problems(part["problems"]),
    ]
    if rows := summary.get("changes"):
        paragraphs.append(changes_markdown(rows, summary["variants"]))
    if packages := summary.get("packages"):
        table = list_table(("Package", "Version", "Licence"), _packages(packages), "licences-table")
        paragraphs.append(f"````{{dropdown}} The licences of {len(packages)} packages\n{table}\n````")
    return "\n\n".join(paragraphs) + "\n"


def _provenance(root: Path, part: Mapping[str, Any]) -> str:
    """Where and when a part was done, and plainly whether the sources are others by now."""
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    said = (
        f"Done at commit {code_span(part['commit'])} on {part['date']} in {_minutes(part['seconds'])}: "
        f"{plain(part['machine'])}; {plain(versions)}."
    )
    changed = [name for name, digest in part["tested"].items() if _is_shown(name) and digest_of(root, name) != digest]
    if not changed:
        return f"{said} What it tried is as it was then."
    return f"{said} **The book is another by now**: {', '.join(map(code_span, changed))} changed since."


def _minutes(seconds: float) -> str:
    count = max(1, round(seconds / 60))
    return f"{count} minute{'s' * (count > 1)}"


def _is_shown(name: str) -> bool:
    """Whether pages are made of a source, so that they follow its changes."""
    return name.startswith((BOOK, "src", "constraints.txt"))


def _problems(problems: list[str]) -> str:
    if not problems:
        return "Nothing was found to be wrong."
    listed = "\n".join(f"- {plain(problem)}" for problem in problems)
    return f"**Found to be wrong** ({len(problems)}):\n\n{listed}"


def changes_markdown(rows: list[Mapping[str, Any]], variants: list[str]) -> str:
    """A row a claim: its measured value and bound, and by how much each execution differs from it."""
    cells = [
        (
            code_span(row["id"]),
            format_number(row["measured"]),
            f"{RELATIONS.get(row['relation'], row['relation'])} {format_number(row['bound'])}",
            *(_change(row["changes"].get(variant)) for variant in variants),
        )
        for row in rows
    ]
    return list_table(("Claim", "Measured", "Bound", *(f"Change: {name}" for name in variants)), cells, "changes-table")


def _change(value: float | None) -> str:
    return MISSING if value is None else format_number(value)


def _packages(packages: list[list[str]]) -> Iterator[list[str]]:
    yield from ([plain(cell) for cell in row] for row in packages)
