"""The frame of a chapter: where it is listed, what it refuses while blank, and that it runs once filled in."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from companion.chapters import ProjectError, choose_chapters, find_chapters
from companion.commands import main
from companion.execution import run_chapters
from companion.new_chapter import new_chapter
from companion.rendering import render_page

TOC = """\
format: jb-book
root: book/intro
parts:
  - caption: Depth
    numbered: true
    chapters:
      - file: book/depth/one  # a comment stays
  - caption: Appendix
    chapters:
      - file: book/appendix/end
"""
# A new line behind the chapter would take its sections for its own.
NESTED = """\
root: book/intro
chapters:
  - file: book/depth/one
    sections:
      - file: book/appendix/end
"""


@pytest.fixture
def root(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    tiny.project(tmp_path, {"depth/one": {"code": ["1"]}})
    (tmp_path / "book/appendix").mkdir()
    (tmp_path / "book/appendix/end.md").write_text("# End")
    (tmp_path / "_toc.yml").write_text(TOC, encoding="utf-8")
    return tmp_path


def filled(path: Path) -> None:
    """Fill the blanks of a chapter in."""
    text = path.read_text(encoding="utf-8").replace("«D1»-«word»", "D1-toy").replace("ex-«chapter»-«word»", "ex-toy")
    path.write_text(re.sub("«([^»]*)»", "text", text), encoding="utf-8")


def test_a_new_chapter_comes_behind_its_part_and_a_new_part_before_the_appendix(root: Path) -> None:
    new_chapter(root, "depth/two")
    new_chapter(root, "width/splitting", "Neurons, split")
    new_chapter(root, "depth/three")
    names = [chapter.name for chapter in find_chapters(root)]
    assert names == ["depth/one", "depth/two", "depth/three", "width/splitting"]
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    assert toc.index("width/splitting") < toc.index("caption: Appendix")
    assert "# a comment stays" in toc
    assert "# Neurons, split" in choose_chapters(root, ["splitting"])[0].notebook.cells[0].source


@pytest.mark.parametrize("name", ["splitting", "width/Splitting", "../width/x", "width/a/b", "depth/one"])
def test_a_bad_or_taken_name_is_refused_and_nothing_is_written(root: Path, name: str) -> None:
    with pytest.raises(ProjectError, match=r"a part and a word|exists"):
        new_chapter(root, name)
    assert (root / "_toc.yml").read_text(encoding="utf-8") == TOC


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("<script>alert(1)</script>", "--title holds HTML"),
        ("Neurons\n\n<b>", "--title is no single line"),
        ("{raw}`x`", "--title holds the role {raw}"),
        ("[x](javascript:a)", "--title holds a link that begins with 'javascript:'"),
        ("# Neurons", "--title is no single paragraph"),
    ],
)
def test_a_title_is_a_line_of_text(root: Path, title: str, message: str) -> None:
    with pytest.raises(ProjectError) as refusal:
        new_chapter(root, "width/splitting", title)
    assert str(refusal.value).startswith(message)
    assert (root / "_toc.yml").read_text(encoding="utf-8") == TOC
    assert not (root / "book/width").exists()


@pytest.mark.parametrize(
    ("toc", "message"),
    [
        (TOC + "\t- x", "_toc.yml: not YAML"),
        (TOC.replace("appendix/end", "appendix/gone"), "_toc.yml: lists 'book/appendix/gone'"),
        (NESTED, "no place for book/depth/two"),
        ("{root: book/intro, chapters: [{file: book/depth/one}]}", "no part 'depth'|no place"),
    ],
)
def test_a_toc_in_which_there_is_no_place_is_left_as_it_is(root: Path, toc: str, message: str) -> None:
    (root / "_toc.yml").write_text(toc, encoding="utf-8")
    with pytest.raises(ProjectError, match=message):
        new_chapter(root, "depth/two")
    assert (root / "_toc.yml").read_text(encoding="utf-8") == toc
    assert not (root / "book/depth/two.ipynb").exists()


def test_blanks_are_refused_before_anything_runs_and_a_filled_chapter_holds(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["new", "width/splitting"]) == 0
    assert "python -m companion page width/splitting" in capsys.readouterr().out
    assert main(["run", "splitting"]) == 2
    assert "the id must be a row" in capsys.readouterr().err
    filled(root / "book/width/splitting.ipynb")
    (outcome,) = run_chapters(choose_chapters(root, ["splitting"]))
    assert (outcome.error, outcome.problems) == (None, ())
    assert [(claim.id, claim.verdict) for claim in outcome.claims] == [("D1-toy", "reproduced")]


def test_a_page_is_rendered_alone_without_an_execution(root: Path) -> None:
    (root / "_config.yml").write_text(
        "title: Tiny\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"
        "sphinx: {extra_extensions: [companion.sphinx_executed, sphinx_exercise]}\n"
    )
    filled(new_chapter(root, "width/splitting"))
    page, complaints = render_page(root, Path("book/width/splitting.ipynb"))
    assert complaints == ""
    assert "not measured" in page.read_text(encoding="utf-8")
    assert not (root / "_build/executed").exists()
    assert not (root / "_build/html").exists()
