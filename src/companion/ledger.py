"""The ledger of claims and the state of the chapters, read from the executed copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from companion.chapters import find_chapters
from companion.claims import RELATIONS, format_number, read_claims
from companion.execution import executed_path, state_of, stored_metadata

LEDGER_KEYS = ("id", "row", "chapter", "statement", "source", "measured", "relation", "bound", "verdict")


def ledger(root: Path) -> list[dict[str, Any]]:
    """Every claim of the executed copies, in the order of the book.

    Args:
        root: directory of the project.

    Returns:
        One object a claim, fit for strict JSON: ``id``, ``row``, ``chapter`` (its name), ``statement``,
        ``source``, ``measured`` (``None`` when it was not finite), ``relation``, ``bound``, ``verdict``,
        ``control`` {``measured``, ``flipped``} and ``certificate`` (a path or ``None``).
    """
    entries = []
    for chapter in find_chapters(root):
        copy = executed_path(chapter)
        for claim in read_claims(copy) if copy.is_file() else []:
            entries.append(_entry(chapter.name, claim))
    return entries


def status(root: Path) -> list[dict[str, Any]]:
    """The state of every chapter, in the order of the book.

    Args:
        root: directory of the project.

    Returns:
        One object a chapter: ``chapter`` (its name), ``path`` (of the notebook, relative to the root), ``state``
        (fresh, stale, failed, missing) and, from the executed copy or ``None`` without one, ``seconds``,
        ``executed_at``, ``versions`` (package → version) and ``machine``.
    """
    return [
        {
            "chapter": chapter.name,
            "path": chapter.path.as_posix(),
            "state": state_of(chapter),
            **_noted(stored_metadata(executed_path(chapter))),
        }
        for chapter in find_chapters(root)
    ]


def claims_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """The claims as a table of text: claim, measured, bound, verdict."""
    rows = [
        (
            f"{entry['id']} ({entry['chapter']})",
            format_number(entry["measured"]),
            f"{RELATIONS[entry['relation']]} {format_number(entry['bound'])}",
            entry["verdict"],
        )
        for entry in entries
    ]
    return text_table(("claim", "measured", "bound", "verdict"), rows)


def status_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """The states as a table of text: chapter, state, seconds."""
    rows = [
        (entry["chapter"], entry["state"], "" if entry["seconds"] is None else f"{entry['seconds']:.1f}")
        for entry in entries
    ]
    return text_table(("chapter", "state", "seconds"), rows)


def text_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns as wide as their widest entry, below a ruled head.

    Example:
        >>> print(text_table(("a", "value"), [("long name", "1")]))
        a          value
        ---------  -----
        long name  1
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def format_duration(seconds: float) -> str:
    """A time to three digits, in the unit that suits it.

    Example:
        >>> format_duration(0.0123), format_duration(12.34), format_duration(4.56e-6)
        ('12.3 ms', '12.3 s', '4.56 µs')
    """
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def _entry(chapter: str, claim: Mapping[str, Any]) -> dict[str, Any]:
    control = {key: claim["control"][key] for key in ("measured", "flipped")}
    known = {**claim, "chapter": chapter}
    return {**{key: known[key] for key in LEDGER_KEYS}, "control": control, "certificate": claim["certificate"]}


def _noted(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metadata.get(key) for key in ("seconds", "executed_at", "versions", "machine")}
