"""The notebooks that readers download: readable where there is no Sphinx, and with the code of the book."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from companion.chapters import Chapter, find_chapters
from companion.downloads import LEFT, MISSING, Downloads
from companion.measuring import GLUE_PREFIX

ROOT = Path(__file__).resolve().parents[2]
DOWNLOADS = Downloads(ROOT, {})

pytestmark = pytest.mark.executed
each_chapter = pytest.mark.parametrize("chapter", find_chapters(ROOT), ids=lambda chapter: chapter.name)


def prose(chapter: Chapter) -> str:
    return "\n\n".join(cell.source for cell in DOWNLOADS.to_run(chapter).cells if cell.cell_type == "markdown")


@each_chapter
def test_nothing_of_myst_is_left(chapter: Chapter) -> None:
    text = prose(chapter)
    assert not re.findall(r"\{[\w:.-]+\}`[^`]*`", text), "roles"
    assert not re.findall(r"^[\s>]*(?:`{3,}|:{3,})\{.*$", text, re.MULTILINE), "directives"
    assert not re.findall(r"^\([\w-]+\)=|^:[\w-]+:", text, re.MULTILINE), "targets and options"
    assert MISSING not in text
    assert not re.findall(r"\b(?:thm|def|prop|cor|ex|fig|claim)-[a-z][\w-]*", text), "labels in the place of names"


@each_chapter
def test_no_macro_of_the_book_is_left(chapter: Chapter) -> None:
    macros = DOWNLOADS.macros
    assert len(macros) > 5
    assert [name for name in re.findall(r"\\([A-Za-z]+)", prose(chapter)) if name in macros] == []


@each_chapter
def test_every_claim_and_statement_is_there(chapter: Chapter) -> None:
    text = prose(chapter)
    for name, said in chapter.declarations.items():
        assert re.search(rf"> \*\*Claim {name}: .*\. {said.verdict.capitalize()}\.\*\*", text), name
    source = "\n".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    for kind in ("theorem", "proposition", "definition", "corollary", "proof"):
        assert len(re.findall(rf"> \*\*{kind.capitalize()}(?: \(|\.\*\*)", text)) == len(
            re.findall(rf"^`+\{{prf:{kind}\}}", source, re.MULTILINE)
        )
    assert text.count("> **Solution of exercise") == len(re.findall(r"^`+\{solution\}", source, re.MULTILINE))


@each_chapter
def test_the_code_is_that_of_the_book_and_the_notebook_is_one(chapter: Chapter) -> None:
    for notebook in (DOWNLOADS.to_run(chapter), DOWNLOADS.executed(chapter)):
        nbformat.validate(notebook)
        code = [
            (cell.id, cell.source, cell.metadata.get("tags")) for cell in notebook.cells if cell.cell_type == "code"
        ]
        assert code == [(cell.id, cell.source, cell.metadata.get("tags")) for cell in chapter.code_cells]


@each_chapter
def test_one_has_the_outputs_and_the_other_none(chapter: Chapter) -> None:
    assert not any(cell.get("outputs") for cell in DOWNLOADS.to_run(chapter).cells)
    executed = DOWNLOADS.executed(chapter)
    kinds = [kind for cell in executed.cells for out in cell.get("outputs", []) for kind in out.get("data", {})]
    assert "image/svg+xml" in kinds
    assert not [kind for kind in kinds if kind in LEFT or kind.startswith(GLUE_PREFIX)]
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code" and cell.source.strip())


def test_committed_chapters_are_left_as_they_are() -> None:
    chapter = find_chapters(ROOT)[0]
    before = nbformat.writes(chapter.notebook)
    DOWNLOADS.executed(chapter)
    assert nbformat.writes(chapter.notebook) == before
