"""How to cite the book and what it examines, made from `CITATION.cff`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from companion.chapters import ProjectError

FILE = Path("CITATION.cff")


def read_citations(root: Path) -> list[Mapping[str, Any]]:
    """The book's own record and those of its references, in the Citation File Format.

    Args:
        root: directory of the project.

    Raises:
        ProjectError: when the file is no mapping with titles and authors.
    """
    try:
        record = yaml.safe_load((root / FILE).read_text(encoding="utf-8"))
        records = [record, *record.get("references", [])]
        if all(one["title"] and [_full_name(author) for author in one["authors"]] for one in records):
            return records
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ProjectError(f"{FILE}: no record in the Citation File Format ({error!r}); mend it") from error
    raise ProjectError(f"{FILE}: a record has no title or no authors; add them")


def bibtex(record: Mapping[str, Any]) -> str:
    """One record as BibTeX; its key is the first author's name and the year.

    Example:
        >>> authors = [{"family-names": "Bai", "given-names": "Zhiwei"}]
        >>> print(bibtex({"type": "article", "title": "On depth", "authors": authors, "journal": "J", "year": 2024}))
        @article{Bai2024,
          author = {Bai, Zhiwei},
          title = {{On depth}},
          journal = {J},
          year = {2024},
        }
    """
    fields = {
        "author": " and ".join(_bibtex_name(author) for author in record["authors"]),
        "title": f"{{{record['title']}}}",
        "journal": record.get("journal"),
        "volume": record.get("volume"),
        "pages": "--".join(str(record[end]) for end in ("start", "end") if end in record),
        "year": _year(record),
        "version": record.get("version"),
        "doi": record.get("doi"),
        "url": record.get("repository-code", record.get("url")),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    kind = "article" if record.get("type") == "article" else "software"
    return "\n".join([f"@{kind}{{{_key(record)},", *lines, "}"])


def apa(record: Mapping[str, Any]) -> str:
    """One record in the style of the American Psychological Association, as plain text.

    Example:
        >>> authors = [{"family-names": "Luo", "given-names": "Tao"}, {"name": "The others"}]
        >>> apa({"title": "On depth", "authors": authors, "version": "1.0"})
        'Luo, T., & The others. (n.d.). On depth (Version 1.0) [Computer software].'
    """
    names = [_short_name(author) for author in record["authors"]]
    authors = ", & ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    head = f"{authors.removesuffix('.')}. ({_year(record) or 'n.d.'}). {record['title']}"
    if record.get("type") != "article":
        version = f" (Version {record['version']})" if "version" in record else ""
        return f"{head}{version} [Computer software]."
    pages = f", {record['start']}–{record['end']}" if {"start", "end"} <= set(record) else ""
    place = ", ".join(str(record[name]) for name in ("journal", "volume") if name in record)
    doi = f" doi:{record['doi']}" if "doi" in record else ""
    return f"{head}. {place}{pages}.{doi}"


def citations_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Both forms of every record as MyST Markdown, in blocks that can be copied."""
    blocks = []
    for record in records:
        blocks.append(f"**{record['title']}**\n\n```bibtex\n{bibtex(record)}\n```\n\n```text\n{apa(record)}\n```\n")
    return "\n".join(blocks)


def _full_name(author: Mapping[str, str]) -> str:
    return author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"


def _bibtex_name(author: Mapping[str, str]) -> str:
    """Braces keep the name of a group whole."""
    return f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"


def _short_name(author: Mapping[str, str]) -> str:
    if "name" in author:
        return author["name"]
    initials = " ".join("-".join(f"{part[0]}." for part in name.split("-")) for name in author["given-names"].split())
    return f"{author['family-names']}, {initials}"


def _year(record: Mapping[str, Any]) -> str:
    return str(record.get("year", record.get("date-released", "")))[:4]


def _key(record: Mapping[str, Any]) -> str:
    first = record["authors"][0]
    name = first.get("family-names", "".join(word.capitalize() for word in first.get("name", "").split()))
    return f"{name}{_year(record)}"
