"""Rendering a tiny book: what the pages show, when they are made again, and what survives a failure."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from companion.__main__ import main
from companion.rendering import STAMP, rendering_digest

CONFIG = """
title: Tiny
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: "off"}
sphinx:
  config:
    extensions:
      [myst_nb, jupyter_book, sphinx_comments, sphinx_external_toc, sphinx_book_theme, companion.sphinx_executed]
"""
GLUED = """
from companion.claims import glue
import numpy as np
glue("count", np.int64(1000))
glue("ratio", 2 / 3)
glue("word", "it's text")
"""
PROSE = """# Title

$x$ {glue:text}`T1` {glue:text}`T1:.1e` {glue:text}`T1-bound:.0e` {glue:text}`T1-control:.2f` {glue:text}`count`
{glue:text}`count:d` {glue:text}`ratio:.3f` {glue:text}`ratio:.0%` {glue:text}`word` {glue:text}`two.ipynb::other:.1f`
"""
SHOWN = ["1.5e-15", "1.5e-15", "1e-12", "0.00", "1000", "1000", "0.667", "67%", "it's text", "0.5"]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A book of two chapters, executed and rendered."""
    root: Path = tiny.project(
        tmp_path_factory.mktemp("book"),
        {
            "one": {"code": [tiny.claim("T1", "1.5e-15"), GLUED], "prose": PROSE, "claims": {"T1": "reproduced"}},
            "two": {"code": ["from companion.claims import glue\nglue('other', 0.5)"]},
        },
    )
    (root / "_config.yml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["build"]) == 0
    return root


def test_glued_values_are_shown_in_every_format(book: Path) -> None:
    html = (book / "_build/html/book/one.html").read_text()
    assert re.findall(r'<span class="pasted-text">([^<]*)</span>', html.replace("’", "'")) == SHOWN


def test_the_claim_box_is_in_the_page_with_its_formula(book: Path) -> None:
    html = (book / "_build/html/book/one.html").read_text()
    assert html.count('<div class="claim claim-reproduced mathjax_process" id="claim-T1"') == 1
    assert r"Doubling \(T1\) is adding it." in html
    assert "papermill.record" not in html


def test_nothing_is_done_twice_and_the_last_line_says_where_the_book_is(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    pages = {path: path.stat().st_mtime_ns for path in (book / "_build/html").rglob("*")}
    assert main(["build"]) == 0
    said = capsys.readouterr().out
    assert "0 of 2 chapters executed" in said
    assert re.search(r"T1 \(one\) +1.5e-15 +≤ 1e-12 +reproduced", said)
    last = said.splitlines()[-1]
    assert last == f"Open _build/html/index.html ({(book / '_build/html/index.html').as_uri()})"
    assert {path: path.stat().st_mtime_ns for path in (book / "_build/html").rglob("*")} == pages


@pytest.mark.parametrize(
    "name",
    [
        "book/intro.md",
        "_config.yml",
        "_toc.yml",
        "constraints.txt",
        "src/toy/first.py",
        "_build/executed/book/two.ipynb",
    ],
)
def test_whatever_the_pages_are_made_of_makes_them_out_of_date(book: Path, name: str) -> None:
    before, content = rendering_digest(book), (book / name).read_bytes()
    (book / name).write_bytes(content + b"\n")
    after = rendering_digest(book)
    (book / name).write_bytes(content)
    assert after != before == rendering_digest(book)


@pytest.mark.parametrize("folder", [".ruff_cache", "__pycache__", ".ipynb_checkpoints"])
def test_the_cache_of_a_tool_leaves_the_pages_up_to_date(book: Path, folder: str) -> None:
    before = rendering_digest(book)
    cache = book / "book" / folder / "entry"
    cache.parent.mkdir()
    cache.write_text("")
    after = rendering_digest(book)
    shutil.rmtree(cache.parent)
    assert after == before


def test_a_failed_rendering_leaves_the_last_good_pages_and_says_what_is_wrong(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    intro = (book / "book/intro.md").read_text()
    before = (book / "_build/html/book/intro.html").read_bytes()
    (book / "book/intro.md").write_text("# Intro\n\n{glue:text}`nowhere`")
    assert main(["build"]) == 1
    assert "No key 'nowhere' found" in capsys.readouterr().err
    assert (book / "_build/html/book/intro.html").read_bytes() == before
    assert json.loads((book / STAMP).read_text())["inputs"] != rendering_digest(book)  # so the next build tries again
    (book / "book/intro.md").write_text(intro)


def test_a_failing_chapter_stops_the_build_after_the_others_have_run(
    book: Path, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(book)
    monkeypatch.setattr("companion.__main__.render", None)  # whatever renders would raise TypeError
    tiny.notebook(book / "book/one.ipynb", ["1 / 0"])
    tiny.notebook(book / "book/two.ipynb", ["1 / 1"])
    assert main(["build"]) == 1
    said = capsys.readouterr()
    assert "2 of 2 chapters executed, 1 failed" in said.out
    assert "one failed; see _build/executed/book/one.failed.ipynb\n  cell [2] raised ZeroDivisionError" in said.err
