"""The frame of a new chapter: a notebook whose blanks are to be filled, and its line in the table of contents."""

from __future__ import annotations

import json
import re
from pathlib import Path

from companion.chapters import ProjectError, find_chapters, name_in_book, toc_items
from companion.declarations import markup_problem
from companion.files import write_through

TEMPLATE = Path(__file__).with_name("template.ipynb")
NEXT_STEPS = """\
next:
  1. fill in what stands between « and », the rows and words of the claims among it
  2. python -m companion run {name}      executes it and judges its claims
  3. python -m companion page {name}     renders the page in a few seconds
  4. name it in README.md (table of chapters), in book/intro.md and in CHANGELOG.md
  5. make test
"""


def new_chapter(root: Path, name: str, title: str | None = None) -> Path:
    """Write the frame of a chapter, and list it in ``_toc.yml`` behind the last chapter of its part.

    Args:
        root: directory of the project.
        name: part and name in lower case, as ``width/splitting``, or the path of its file; a part that is new is put
            before the appendix.
        title: of the chapter; by default its name in words.

    Returns:
        The notebook's path.

    Raises:
        ProjectError: when the name has another form, or the chapter exists.
    """
    name = name_in_book(root, name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*", name):
        raise ProjectError(f"a chapter's name is a part and a word in lower case, as width/splitting, not {name!r}")
    path = root / "book" / f"{name}.ipynb"
    if path.exists():
        raise ProjectError(f"{path.relative_to(root)} exists; choose another name, or edit it")
    title = title or name.rpartition("/")[2].replace("_", " ").capitalize()
    if problem := markup_problem(title) if title.isprintable() else "is no single line":
        raise ProjectError(f"--title {problem} ({title!r}); write it in a line of plain Markdown")
    find_chapters(root)  # refuses what cannot be read, before anything is written
    contents = _listed((root / "_toc.yml").read_text(encoding="utf-8"), name)
    if {"file": f"book/{name}"} not in toc_items(contents):
        raise ProjectError(f"_toc.yml: no place for book/{name} was found in it: list it by hand")
    # A title in JSON, without its quotes.
    notebook = TEMPLATE.read_text(encoding="utf-8").replace("«title»", json.dumps(title, ensure_ascii=False)[1:-1])
    write_through(path, notebook.encode())
    write_through(root / "_toc.yml", contents.encode())
    return path


def _listed(toc: str, name: str) -> str:
    """The table of contents with the chapter behind its part's last one; as text, which keeps comments."""
    part = name.partition("/")[0]
    entry = f"- file: book/{name}\n"
    neighbours = list(re.finditer(rf"^( *)- file: book/{part}/.*\n?", toc, re.MULTILINE))
    if neighbours:
        last = neighbours[-1]
        return f"{toc[: last.end()].rstrip()}\n{last[1]}{entry}{toc[last.end() :]}"
    block = f"  - caption: {part.capitalize()}\n    numbered: true\n    chapters:\n      {entry}"
    appendix = toc.find("  - caption: Appendix\n")
    if appendix < 0:
        raise ProjectError(f"_toc.yml has no part {part!r} and no appendix to put one before: list book/{name} by hand")
    return toc[:appendix] + block + toc[appendix:]
