"""A reader's own run: how it is asked for, what it answers, and the page that it becomes."""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from companion.chapters import Chapter, name_in_book
from companion.commands import main
from companion.progress import Progress
from companion.rendering import RenderingError, render_page

CONFIG = """
title: Tiny
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [attrs_inline, colon_fence, dollarmath]}
sphinx:
  config:
    extensions:
      [myst_nb, jupyter_book, sphinx_comments, sphinx_external_toc, sphinx_book_theme, companion.sphinx_executed]
"""
# Holds for k = 2 and misses its bound for any other value.
CODE = """from companion.measuring import glue, measured
glue("k-squared", k**2)
measured("D1-one", abs(k - 2) + 1e-15, control=1e-3 if k < 5 else 0.5)"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A chapter whose claim depends on its parameter, executed as the book has it."""
    chapter = {"code": [CODE], "boxes": [tiny.box("D1-one")], "prose": "# Title\n\nIt is {glue:text}`k-squared`."}
    made: Path = tiny.project(tmp_path_factory.mktemp("reruns"), {"part/one": chapter, "two": {"code": ["1"]}})
    (made / "_config.yml").write_text(CONFIG, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert main(["run"]) == 0
    return made


@pytest.fixture(autouse=True)
def _within(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are made at once, for tests of the table."""
    monkeypatch.setattr("companion.commands.render_page", lambda root, page, run: (run.parent / "html/page.html", ""))


def test_a_run_ends_with_a_table_and_a_page_of_its_numbers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "book/part/one.ipynb", "-p", "k", "3"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"D1-one +1e-15 +1 +≤ 1e-12 +failed \(book: reproduced\)", said)
    assert re.search(r"part/one k=3: _build/runs/part/one/\w+/one\.ipynb", said)
    page = Path(re.findall(r"^Open (\S+)", said, re.MULTILINE)[0])
    assert page.parts[:2] == ("_build", "runs")
    html = page.read_text(encoding="utf-8")
    assert '<span class="pasted-text">9</span>' in html, "the prose has the numbers of the run"
    assert 'aria-label="Claim D1-one, failed"' in html
    assert "A run with other parameters" in html
    assert not (root / "_build/draft").exists()
    shown, _ = render_page(root, Path("book/part/one.ipynb"))
    assert '<span class="pasted-text">4</span>' in shown.read_text(encoding="utf-8"), "the book's copy is as it was"


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("given", [["-p", "k=4"], ["-p", "k", "4"], ["-p", "k", "4", "-p", "name=b"]])
def test_parameters_are_given_in_either_way(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *given, "--", "part/one"]) == 0
    assert "part/one k=4" in capsys.readouterr().out


@pytest.mark.usefixtures("unrendered")
def test_the_book_s_own_values_are_answered_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "part/one", "-p", "k=2"]) == 0
    said = capsys.readouterr().out
    assert "0 of 1 chapters executed" in said
    assert re.search(r"D1-one +1e-15 +1e-15 +≤ 1e-12 +reproduced$", said, re.MULTILINE)


@pytest.mark.usefixtures("unrendered")
def test_a_book_that_is_not_up_to_date_gives_no_value(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = root / "_build/executed/book/part/one.ipynb"
    kept = copy.rename(copy.with_suffix(".kept"))
    try:
        assert main(["run", "part/one", "-p", "k=3"]) == 0
    finally:
        kept.rename(copy)
    said = capsys.readouterr()
    assert re.search(r"D1-one +— +1 +≤ 1e-12 +failed$", said.out, re.MULTILINE)
    assert "companion: no values of the book: there is no executed copy" in said.err
    assert "`python -m companion run part/one` makes them" in said.err


@pytest.mark.usefixtures("unrendered")
def test_a_terminal_without_the_signs_has_columns_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["run", "part/one", "-p", "k=3"]) == 0
    lines = written.getvalue().decode("ascii").splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("---"))
    head, rule, row = lines[place - 1 : place + 2]
    starts = [found.start() for found in re.finditer("-+", rule)]
    assert [row[start:].split("  ")[0] for start in starts] == ["D1-one", "1e-15", "1", "<= 1e-12", row[starts[-1] :]]
    assert [head[start:].split()[0] for start in starts] == ["claim", "book", "yours", "bound", "verdict"]


def test_a_page_that_fails_loses_no_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RenderingError("Jupyter Book failed")

    monkeypatch.setattr("companion.commands.render_page", refuse)
    assert main(["run", "part/one", "-p", "k=6"]) == 0
    said = capsys.readouterr()
    assert re.search(r"D1-one +1e-15 +4 +≤ 1e-12 +failed", said.out)
    assert said.err.splitlines()[-1] == "companion: no page of this run: Jupyter Book failed"
    assert main(["run", "part/one", "-p", "k=6"]) == 0
    assert "0 of 1 chapters executed" in capsys.readouterr().out


@pytest.mark.parametrize("given", [["-p", "k"], ["-p", "=3"], ["-p", "k=1", "-p", "k", "2"]])
def test_what_gives_no_value_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "part/one", *given]) == 2
    assert re.match(r"companion: -p (takes NAME=VALUE or NAME VALUE|k is given twice)", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (".", "book/part/one.ipynb"),
        (".", "./book/part/one.ipynb"),
        (".", "{root}/book/part/one.ipynb"),
        ("book/part", "one.ipynb"),
        ("book", "../book/part/one.ipynb"),
        ("src", "book/part/one.ipynb"),
        (".", "part/one"),
    ],
)
def test_the_path_that_a_shell_completes_is_a_name(
    root: Path, place: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / place)
    assert name_in_book(root, text.format(root=root)) == "part/one"


@pytest.mark.parametrize("text", ["../elsewhere/one.ipynb", "/one.ipynb", "one", ""])
def test_what_is_no_path_of_the_project_stays_as_it_is(root: Path, text: str) -> None:
    assert name_in_book(root, text) == text


def test_every_command_takes_the_path_of_a_chapter(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(root / "book/part/one.ipynb")
    assert main(["parameters", path]) == 0
    assert re.search(r"^rate +1e-3", capsys.readouterr().out, re.MULTILINE)
    assert main(["run", path]) == 0
    assert main(["new", path]) == 2
    assert "book/part/one.ipynb exists" in capsys.readouterr().err
    (root / "s.yml").write_text("./book/part/one.ipynb: {k: [2]}", encoding="utf-8")
    assert main(["sweep", "s.yml"]) == 0
    assert main(["page", "book/part/nowhere.md"]) == 2
    assert "no page 'part/nowhere'" in capsys.readouterr().err


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("embedding-principle-companion")


def test_a_version_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("companion.commands.DISTRIBUTION", "no-such-distribution")
    assert main(["--version"]) == 2
    assert "is not installed; `make book` installs it" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_progress_moves_with_the_cells_of_all_chapters(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    chapters = [Chapter(root, Path("book/part/one.ipynb")), Chapter(root, Path("book/two.ipynb"))]
    with Progress(chapters, [{"k": 3}, {}]) as progress:
        # Parameters, those given, and one cell of code; then parameters and one cell of code.
        for done in (1, 2, 3, 3):
            progress.cell(chapters[0], {"k": 3})
            assert progress.done == done
        progress.cell(chapters[1], {})
    last = terminal.getvalue().rpartition("\r")[2]
    assert "4/5" in last
    assert "two 1/2" in last


def test_where_no_terminal_is_nothing_of_progress_is_said(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "two", "--force"]) == 0
    assert capfd.readouterr().err == ""


def test_cells_are_counted_while_they_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(Progress, "cell", lambda self, chapter, parameters: seen.append((chapter.name, os.getpid())))
    assert main(["run", "--force", "--workers", "2"]) == 0
    # The parameters, a cell of code, and the one that the machinery adds at the end.
    assert sorted(name for name, _ in seen) == ["part/one"] * 3 + ["two"] * 3
