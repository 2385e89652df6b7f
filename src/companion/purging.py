"""Style sheets without the rules that no page of a site can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tinycss2

WORD = re.compile(r"[\w-]+")
# What stands in :not(…) need not be on a page for the rest of its selector to apply.
NEGATION = re.compile(r":not\([^()]*(?:\([^()]*\)[^()]*)*\)")
NAMED = re.compile(r"[.#]((?:\\.|[\w-])+)")
NESTING = ("media", "supports", "layer", "container")


def purge_site(site: Path) -> None:
    """Take from every style sheet of a rendered site, in place, the rules whose classes no page or script names.

    Args:
        site: directory of the rendered pages.
    """
    pages = {word for page in site.rglob("*.html") for word in _attributes(page.read_text(encoding="utf-8"))}
    scripts = {word for file in site.rglob("*.js") for word in WORD.findall(file.read_text(encoding="utf-8"))}
    named = pages | scripts
    # `bs-popover-${place}`: a script may put a class together.
    beginnings = tuple(word for word in scripts if word.endswith("-") and len(word) > 2)
    for sheet in site.rglob("*.css"):
        text = purged(sheet.read_text(encoding="utf-8"), lambda name: name in named or name.startswith(beginnings))
        sheet.write_text(text, encoding="utf-8")


def purged(css: str, known: Callable[[str], bool]) -> str:
    """A style sheet without selectors that need a class or id which is not known, and without rules that lose all.

    Example:
        >>> purged(".a:not(.b), .c d {color: red} @media print {.c {top: 0}}", {"a"}.__contains__)
        '.a:not(.b){color: red}'
    """
    return "".join(_written(rule, known) for rule in tinycss2.parse_stylesheet(css, skip_comments=True)).strip()


def _attributes(page: str) -> Iterable[str]:
    """The words of all classes and ids of a page."""
    for value in re.findall(r"""\b(?:class|id)=(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", page):
        yield from " ".join(value).split()


def _written(rule: Any, known: Callable[[str], bool]) -> str:
    if rule.type == "at-rule" and rule.lower_at_keyword in NESTING and rule.content is not None:
        nested = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        content = "".join(_written(inner, known) for inner in nested)
        prelude = tinycss2.serialize(rule.prelude).strip()
        return f"@{rule.at_keyword} {prelude}{{{content}}}" if content else ""
    if rule.type != "qualified-rule":
        return str(rule.serialize())
    kept = [selector for selector in _selectors(rule.prelude) if _possible(selector, known)]
    return f"{','.join(kept)}{{{tinycss2.serialize(rule.content).strip()}}}" if kept else ""


def _selectors(prelude: list[Any]) -> list[str]:
    """What commas separate; those within parentheses belong to their function."""
    groups: list[list[Any]] = [[]]
    for token in prelude:
        if token == ",":
            groups.append([])
        else:
            groups[-1].append(token)
    return [str(tinycss2.serialize(group)).strip() for group in groups]


def _possible(selector: str, known: Callable[[str], bool]) -> bool:
    # :is(…) and :where(…) offer alternatives: they are left alone.
    plain = re.sub(r":(?:is|where)\([^()]*(?:\([^()]*\)[^()]*)*\)", "", NEGATION.sub("", selector))
    return all(known(re.sub(r"\\(.)", r"\1", name)) for name in NAMED.findall(re.sub(r"\[[^]]*\]", "", plain)))
