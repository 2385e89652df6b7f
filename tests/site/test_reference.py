"""The reference pages: every module of the library has its place, and chapters and entries lead to each other."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from companion import sphinx_reference
from companion.chapters import Chapter, find_chapters
from companion.sphinx_reference import figure_rows, names_used

# Hands on the names of the others.
LEFT_OUT = {"embedding_principle"}


def modules(root: Path) -> set[str]:
    """The modules that define something."""
    found = set()
    for path in (root / "src/embedding_principle").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body):
            found.add(".".join(path.relative_to(root / "src").with_suffix("").parts).removesuffix(".__init__"))
    return found


def test_every_module_has_one_place(root: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (root / "book/reference").glob("*.md")]
    listed = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page)]
    assert len(listed) == len(set(listed))
    assert modules(root) - LEFT_OUT == set(listed)


def test_chapters_and_what_they_use_lead_to_each_other(site: Path, root: Path) -> None:
    entries = "".join(path.read_text(encoding="utf-8") for path in (site / "book/reference").glob("*.html"))
    for chapter in find_chapters(root):
        page = (site / chapter.path.with_suffix(".html")).read_text(encoding="utf-8")
        used = [name for name in names_used(chapter) if f'id="{name}"' in entries]
        assert used, chapter.name
        assert [name for name in used if f'.html#{name}"' not in page] == []
        assert f"{chapter.path.stem}.html" in entries


def test_every_figure_is_mapped_to_what_it_was_computed_with(site: Path, root: Path) -> None:
    page = (site / "book/appendix/status.html").read_text(encoding="utf-8")
    captioned = [
        cell.metadata["mystnb"]["figure"]["name"]
        for chapter in find_chapters(root)
        for cell in chapter.code_cells
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert [name for name in captioned if f"#{name}" not in page] == []
    (row,) = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*#fig-your-network.*?</tr>", page, flags=re.DOTALL)
    assert "embedding_principle.depth.pruning.prune" in row, "it reads the library's names as ep.prune"
    (row,) = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*#fig-cone-laws.*?</tr>", page, flags=re.DOTALL)
    assert "embedding_principle.depth.cones.measure.gaussian_measure" in row
    assert float(re.findall(r"<p>([\d.]+)</p></td>\s*</tr>", row)[0]) > 0


def test_names_read_from_the_package_in_another_cell_are_used(root: Path, tmp_path: Path) -> None:
    cells = [
        "import embedding_principle as ep",
        "point = ep.lift(\n    ep.relu)",
        "from embedding_principle import prune",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "book").mkdir()
    nbformat.write(notebook, tmp_path / "book/one.ipynb")
    assert names_used(Chapter(tmp_path, Path("book/one.ipynb"))) == [
        "embedding_principle.activations.relu",
        "embedding_principle.depth.lifting.lift",
        "embedding_principle.depth.pruning.prune",
    ]


def test_a_figure_has_the_names_and_seconds_of_the_cells_since_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ("import embedding_principle as ep\npoint = ep.lift", 2.0), ("figure(ep.relu)", 0.5)
    cells = [
        nbformat.v4.new_code_cell(source, metadata={"papermill": {"duration": seconds}})
        for source, seconds in (first, second, ("ep.relu", 1.0))
    ]
    for cell, name in zip(cells[1:], ("one", "two")):
        cell.metadata["mystnb"] = {"figure": {"name": name}}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (tmp_path / "book").mkdir()
    nbformat.write(notebook, tmp_path / "book/one.ipynb")
    monkeypatch.setattr(sphinx_reference, "read_copy", lambda _: notebook)
    relu = "embedding_principle.activations.relu"
    assert list(figure_rows(Chapter(tmp_path, Path("book/one.ipynb")))) == [
        ("one", [relu, "embedding_principle.depth.lifting.lift"], 2.5),
        ("two", [relu], 1.0),
    ]


def test_no_entry_shows_markup(site: Path) -> None:
    for path in (site / "book/reference").glob("*.html"):
        text = re.sub(r"<(script|pre).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"problematic|system-message|:py:\w+:`|\\\|", text), path.name
