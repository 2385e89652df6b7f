"""What a chapter's outputs depend on, and how a chapter is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from companion.chapters import (
    Chapter,
    ProjectError,
    choose_chapters,
    code_digest,
    find_chapters,
    find_page,
    find_root,
)
from companion.commands import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    uses = {"code": ["%time 1\nfrom toy import first"]}
    return tiny.project(tmp_path, {"a/one": uses, "a/two": {"code": ["import toy.third"]}, "b/two": {"code": ["1"]}})


def names(root: Path, *wanted: str) -> list[str]:
    return [chapter.name for chapter in choose_chapters(root, wanted)]


def test_chapters_are_the_notebooks_of_the_toc_in_its_order(root: Path) -> None:
    (root / "book/unlisted.ipynb").write_text("{}")
    assert names(root) == ["a/one", "a/two", "b/two"]


def test_a_toc_entry_without_a_file_is_refused(root: Path) -> None:
    (root / "book/b/two.ipynb").unlink()
    with pytest.raises(ProjectError, match="'book/b/two', but there is no such file"):
        find_chapters(root)


@pytest.mark.parametrize(
    ("toc", "message"),
    [
        (b"", "must be a mapping, with the key root"),
        (b"- file: book/a/one", "must be a mapping, with the key root"),
        (b"format: jb-book", "must be a mapping, with the key root"),
        (b"root:", "root: must be the path of a page, not None"),
        (b"root: 3", "root: must be the path of a page, not 3"),
        (b"root: book/intro\nchapters:\n- file: 3", "file: must be the path of a page, not 3"),
        (b"root: book/intro\nchapters:\n- file:", "file: must be the path of a page, not None"),
        (b"root: book/intro\nchapters:\n- file: [a]", "file: must be the path of a page, not ['a']"),
        (b"root: book/intro\nchapters:\n- file: 010", "line 3: chapters: file: 010 is another number"),
        (b"root: book/intro\nchapters:\n\t- file: book/a/one", "not YAML: line 3: while scanning"),
        (b"root: book/intro\nchapters:\n- glob: book/a/*", "glob: book/a/*: patterns are not read; list each file"),
        (b"root: book/intro\nroot: book/intro", "line 2: 'root' is given twice"),
        (b"root: book/\xe4", "not UTF-8"),
        (b"\x00\x01", "not YAML"),
        (b"<<<<<<< HEAD\nroot: book/intro\n=======", "not YAML"),
        (b"root: book/intro\nchapters:\n- file: book/a/one\n- file: book/a/one", "lists 'book/a/one.ipynb' twice"),
        (b"root: book/intro\nchapters:\n- file: book/a/one\n- file: ./book//a/one.ipynb", "'book/a/one.ipynb' twice"),
        (b"root: book/intro\nparts:\n- chapters:\n  - file: book/intro.md", "lists 'book/intro.md' twice"),
        (b"root: book/intro\nchapters:\n- file: book/a/one\n- file: a/one", "are both called a/one"),
        (b"root: book/intro\nchapters:\n- file: ../outside", "lists '../outside', which is not in the project"),
        (b"root: /etc/passwd", "lists '/etc/passwd', which is not in the project"),
        (b"root: book", "lists 'book', but there is no such file"),
        (b"root: book/nowhere", "lists 'book/nowhere', but there is no such file"),
        (b"root: book/-a", "lists 'book/-a', which no command line can name"),
        (b'root: "book/a\\nb"', "lists 'book/a\\nb', which no command line can name"),
    ],
)
def test_a_toc_that_cannot_be_used_is_refused_in_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toc: bytes, message: str
) -> None:
    (root / "a").mkdir()
    shutil.copy(root / "book/a/one.ipynb", root / "a/one.ipynb")
    (root / "_toc.yml").write_bytes(toc)
    monkeypatch.chdir(root)
    assert main(["run"]) == main(["status"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert first.startswith("companion: _toc.yml: ")
    assert message in first


def test_names_with_spaces_and_umlauts_are_names(root: Path) -> None:
    (root / "book/a/one.ipynb").rename(root / "book/a/zwei Wörter.ipynb")
    toc = root / "_toc.yml"
    toc.write_text(toc.read_text(encoding="utf-8").replace("a/one", "a/zwei Wörter"), encoding="utf-8")
    assert names(root, "zwei Wörter") == ["a/zwei Wörter"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../outside", "a", "a/three"])
def test_a_page_outside_the_book_is_unknown(root: Path, name: str) -> None:
    (root / "outside.md").write_text("# Outside", encoding="utf-8")
    (root / "book/.md").write_text("# Nameless", encoding="utf-8")
    with pytest.raises(ProjectError, match="no page"):
        find_page(root, name)


def test_a_chapter_is_chosen_by_path_or_by_its_last_part(root: Path) -> None:
    assert names(root, "b/two", "one", "a/one") == ["b/two", "a/one"]


def test_an_unknown_or_ambiguous_name_is_refused_with_the_names_there_are(root: Path) -> None:
    with pytest.raises(ProjectError, match="unknown chapter 'three'; the chapters are: a/one, a/two, b/two"):
        choose_chapters(root, ["one", "three"])
    with pytest.raises(ProjectError, match="unknown chapter 'on'"):
        choose_chapters(root, ["on"])
    with pytest.raises(ProjectError, match="ambiguous chapter 'two'; the chapters are: a/two, b/two"):
        choose_chapters(root, ["two"])


def test_the_root_is_the_nearest_directory_with_a_toc(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert find_root(root / "book" / "a") == root.resolve()
    with pytest.raises(ProjectError, match=r"no _toc\.yml"):
        find_root(tmp_path_factory.mktemp("elsewhere"))


def test_parameters_are_names_with_the_values_of_the_defaults(root: Path) -> None:
    assert choose_chapters(root, ["one"])[0].parameters == {"k": 2, "rate": 1e-3, "name": "a"}


def edit_cell(index: int, text: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / "book/a/one.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[index].source = text
        nbformat.write(notebook, path)

    return edit


def test_code_and_parameters_make_the_digest_and_prose_does_not(root: Path) -> None:
    def digest(**parameters: object) -> str:
        return code_digest(Chapter(root, Path("book/a/one.ipynb")), parameters)

    before = digest()
    assert digest(k=3) not in {before, digest(k=4)}
    edit_cell(0, "# Other prose")(root)
    assert digest() == before
    edit_cell(1, "k = 3")(root)
    assert digest() != before


@pytest.mark.parametrize("text", ["", "[]", "3", "<<<<<<< HEAD", '{"cells": 3}', '{"cells": [3]}'])
def test_a_file_that_is_no_notebook_is_refused(root: Path, text: str) -> None:
    (root / "book/a/one.ipynb").write_text(text)
    with pytest.raises(ProjectError, match=r"book/a/one\.ipynb: not a readable notebook"):
        _ = Chapter(root, Path("book/a/one.ipynb")).notebook


def test_settings_of_a_notebook_that_cannot_be_used_are_refused(root: Path, tiny: SimpleNamespace) -> None:
    path = root / "book/a/one.ipynb"
    tiny.notebook(path, [], boxes=[tiny.box("D1-one", verdict="passed")])
    with pytest.raises(ProjectError, match=r"book/a/one\.ipynb: claim D1-one: the verdict must be one of reproduced"):
        _ = Chapter(root, Path("book/a/one.ipynb")).declarations
    path.write_text("not JSON")
    with pytest.raises(ProjectError, match=r"book/a/one\.ipynb: not a readable notebook"):
        _ = Chapter(root, Path("book/a/one.ipynb")).notebook


def test_a_default_that_is_no_literal_is_refused(root: Path) -> None:
    edit_cell(1, "k = len('abc')")(root)
    with pytest.raises(ProjectError, match="no literal"):
        _ = Chapter(root, Path("book/a/one.ipynb")).parameters
