"""What a chapter's outputs depend on, and how a chapter is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from companion.chapters import Chapter, ProjectError, choose_chapters, code_digest, find_chapters, find_root


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


def test_a_chapter_is_chosen_by_path_or_by_its_last_part(root: Path) -> None:
    assert names(root, "b/two", "one", "a/one") == ["b/two", "a/one"]


def test_an_unknown_or_ambiguous_name_is_refused_with_the_names_there_are(root: Path) -> None:
    with pytest.raises(ProjectError, match="unknown chapter 'three'; the chapters are: a/one, a/two, b/two"):
        choose_chapters(root, ["one", "three"])
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


def old_format(notebook: dict[str, Any]) -> None:
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        del cell["id"]


def third_format(notebook: dict[str, Any]) -> None:
    notebook["nbformat"], notebook["nbformat_minor"] = 3, 0
    notebook["worksheets"] = [{"cells": notebook.pop("cells")}]


def same_ids(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        cell["id"] = "same"


@pytest.mark.parametrize("change", [old_format, third_format, same_ids])
def test_cells_without_an_id_of_their_own_are_refused(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "book/a/one.ipynb"
    notebook = json.loads(path.read_text())
    change(notebook)
    path.write_text(json.dumps(notebook))
    with pytest.raises(ProjectError, match=r"book/a/one\.ipynb: each cell needs an id .* save it in JupyterLab"):
        _ = Chapter(root, Path("book/a/one.ipynb")).notebook


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
