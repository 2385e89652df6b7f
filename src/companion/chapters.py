"""The chapters of the book: what ``_toc.yml`` lists, and what each chapter's outputs depend on.

A chapter's outputs depend on its code cells and parameters, of which this module makes a digest, and on the files and
versions that its kernel loads, which :mod:`companion.execution` notes with the outputs.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml

from companion.claims import Declaration
from companion.declarations import declarations_in

DEFAULT_TIMEOUT = 600


class ProjectError(Exception):
    """A request or a file of the project that cannot be used; the message names it and the remedy."""


def find_root(start: Path | None = None) -> Path:
    """The nearest directory at or above ``start`` (default: the working directory) with a ``_toc.yml``.

    Raises:
        ProjectError: when there is none.
    """
    start = (start or Path.cwd()).resolve()
    for directory in (start, *start.parents):
        if (directory / "_toc.yml").is_file():
            return directory
    raise ProjectError(f"no _toc.yml in {start} or above it: change to the project's directory")


@dataclass(frozen=True)
class Chapter:
    """One notebook of the book.

    Args:
        root: directory of the project.
        path: the notebook's path relative to ``root``.
    """

    root: Path
    path: Path

    @property
    def name(self) -> str:
        """The path without suffix, relative to ``book/``: ``depth/lifting``."""
        path = self.path.with_suffix("")
        return Path(*path.parts[1:]).as_posix() if path.parts[0] == "book" else path.as_posix()

    @cached_property
    def notebook(self) -> nbformat.NotebookNode:
        """The notebook as committed.

        Raises:
            ProjectError: when the file is no notebook.
        """
        try:
            text = (self.root / self.path).read_text(encoding="utf-8-sig")
            # Reading gives ids to cells that have none of their own, other ones each time.
            ids = [cell.get("id") for cell in json.loads(text).get("cells", [{}])]
            if None in ids or len(set(ids)) < len(ids):
                raise ProjectError(f"{self.path}: each cell needs an id of its own: open and save it in JupyterLab")
            notebook: nbformat.NotebookNode = nbformat.reads(text, as_version=4)
        except (OSError, ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
            raise ProjectError(f"{self.path}: not a readable notebook: {error}") from error
        return notebook

    @property
    def code_cells(self) -> list[nbformat.NotebookNode]:
        """The code cells in order."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    @cached_property
    def declarations(self) -> dict[str, Declaration]:
        """The claims that the prose declares, by id.

        Raises:
            ProjectError: when a declaration cannot be used.
        """
        try:
            return declarations_in(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")
        except ValueError as error:
            raise ProjectError(f"{self.path}: {error}") from error

    @property
    def timeout(self) -> int:
        """Seconds that one cell may take."""
        return int(self._settings.get("timeout", DEFAULT_TIMEOUT))

    @property
    def _settings(self) -> Mapping[str, Any]:
        settings: Mapping[str, Any] = self.notebook.metadata.get("companion", {})
        return settings

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Names and default values of the cell tagged ``parameters``.

        Raises:
            ProjectError: when the notebook names no kernel or a default is not a literal.
        """
        from papermill import inspect_notebook  # takes a second to import: only when parameters are asked for

        if "kernelspec" not in self.notebook.metadata:
            raise ProjectError(f"{self.path}: the metadata have no kernelspec; open and save it in JupyterLab")
        found = inspect_notebook(str(self.root / self.path))
        try:
            return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}
        except (ValueError, SyntaxError) as error:
            raise ProjectError(f"{self.path}: a default in the parameters cell is no literal: {error}") from error


def code_digest(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over the chapter's code cells and parameters; its prose is not part of it.

    Cell ids count, because outputs find their cell by id. The declared claims do not: they are prose, and what was
    measured is judged by them when it is read.
    """
    cells = [(cell.id, cell.source) for cell in chapter.code_cells]
    return hashlib.sha256(repr([cells, sorted((parameters or {}).items())]).encode()).hexdigest()


def find_chapters(root: Path) -> list[Chapter]:
    """The notebooks that ``_toc.yml`` lists, in its order.

    Raises:
        ProjectError: when an entry of ``_toc.yml`` has no file.
    """
    paths = [_page(root, entry) for entry in _entries(yaml.safe_load((root / "_toc.yml").read_text()))]
    return [Chapter(root, path) for path in paths if path.suffix == ".ipynb"]


def choose_chapters(root: Path, names: Iterable[str]) -> list[Chapter]:
    """The chapters with these names, or all when no name is given.

    Args:
        root: directory of the project.
        names: paths without suffix relative to ``book/``, or their last parts where these are unique.

    Raises:
        ProjectError: naming what is unknown or ambiguous and the names there are.
    """
    chapters = find_chapters(root)
    chosen = [_choose(chapters, name) for name in names]
    return list({chapter.path: chapter for chapter in chosen}.values()) or chapters


def find_page(root: Path, name: str) -> Path:
    """The file of a page, relative to the root, whether `_toc.yml` lists it or not.

    Args:
        root: directory of the project.
        name: its path without suffix relative to ``book/``.

    Raises:
        ProjectError: when there is no such file.
    """
    for candidate in (Path("book", f"{name}{suffix}") for suffix in (".ipynb", ".md")):
        if (root / candidate).is_file():
            return candidate
    raise ProjectError(f"no page {name!r}: there is neither book/{name}.ipynb nor book/{name}.md")


def _choose(chapters: list[Chapter], name: str) -> Chapter:
    exact = [chapter for chapter in chapters if chapter.name == name]
    found = exact or [chapter for chapter in chapters if Path(chapter.name).name == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(chapter.name for chapter in (found or chapters)) or "none: _toc.yml lists no notebook"
    problem = "ambiguous" if found else "unknown"
    raise ProjectError(f"{problem} chapter {name!r}; the chapters are: {known}")


def _entries(node: Any) -> Iterator[str]:
    """Every file of a table of contents, depth first."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from [value] if key in {"root", "file"} else _entries(value)
    elif isinstance(node, list):
        for item in node:
            yield from _entries(item)


def _page(root: Path, entry: str) -> Path:
    """The file of an entry, which may be written without its suffix."""
    for candidate in (entry, f"{entry}.ipynb", f"{entry}.md"):
        if (root / candidate).is_file():
            return Path(candidate)
    raise ProjectError(f"_toc.yml lists {entry!r}, but there is no such file in {root}")
