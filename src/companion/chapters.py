"""The chapters of the book: what ``_toc.yml`` lists, and what each chapter's outputs depend on.

A chapter's outputs depend on its code cells, on the modules of ``src`` that these import (directly or not), on
the data, on the versions of the packages and on the parameters. The digest of these inputs decides whether an
executed copy is still good. Nothing here knows which module reads data: they count for every chapter.
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
from IPython.core.inputtransformer2 import TransformerManager

from companion.claims import VERDICTS

NO_DATA = {".md", ".py"}  # beside the data lie their description and the script that fetched them
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
            notebook: nbformat.NotebookNode = nbformat.read(self.root / self.path, as_version=4)
        except (OSError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            raise ProjectError(f"{self.path}: not a readable notebook: {error}") from error
        return notebook

    @property
    def code_cells(self) -> list[nbformat.NotebookNode]:
        """The code cells in order."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    @property
    def declared_claims(self) -> dict[str, str]:
        """Claim id → verdict, as the notebook's metadata ``companion: {claims: ...}`` declares them.

        Raises:
            ProjectError: when a declared verdict is none of the three that a chapter may declare.
        """
        claims = dict(self._settings.get("claims", {}))
        for name, verdict in claims.items():
            if verdict not in VERDICTS:
                raise ProjectError(
                    f"{self.path}: metadata declares claim {name} as {verdict!r}; choose {', '.join(VERDICTS)}"
                )
        return claims

    @property
    def timeout(self) -> int:
        """Seconds that one cell may take."""
        return int(self._settings.get("timeout", DEFAULT_TIMEOUT))

    @property
    def expected_seconds(self) -> int:
        """About how long the chapter takes, for the order of a run: nothing else depends on it."""
        return int(self._settings.get("expected_seconds", 0))

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

    def sources(self) -> set[Path]:
        """Files below ``src`` that the code cells reach by imports, relative to the root."""
        transform = TransformerManager().transform_cell  # turns magics into Python that parses
        pending = {
            path for cell in self.code_cells for path in imported_files(transform(cell.source), self.root / "src")
        }
        reached: set[Path] = set()
        while pending:
            path = pending.pop()
            reached.add(path)
            package = path.relative_to(self.root / "src").with_suffix("").parts[:-1]
            pending |= set(imported_files(path.read_text(), self.root / "src", package)) - reached
        return {path.relative_to(self.root) for path in reached}

    def input_files(self) -> list[Path]:
        """Files beside the notebook that its outputs depend on, relative to the root."""
        data = (path.relative_to(self.root) for path in (self.root / "data").rglob("*") if path.is_file())
        files = self.sources() | {path for path in data if path.suffix not in NO_DATA}
        if (self.root / "constraints.txt").is_file():
            files.add(Path("constraints.txt"))
        return sorted(files)

    @cached_property
    def input_record(self) -> bytes:
        """Names and digests of the input files when first asked for: a sweep asks once a parameter set."""
        return file_record(self.root, self.input_files())


def inputs_digest(chapter: Chapter, parameters: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over everything that the chapter's outputs depend on; its prose is not part of it.

    Cell ids count, because outputs find their cell by id, and so do the declared claims, because a copy is
    good only when it records them.
    """
    digest = hashlib.sha256()
    cells = [(cell.get("id"), cell.source) for cell in chapter.code_cells]
    head = [cells, chapter.declared_claims, dict(parameters or {})]
    digest.update(json.dumps(head, sort_keys=True, default=repr).encode())
    digest.update(chapter.input_record)
    return digest.hexdigest()


def file_record(root: Path, paths: Iterable[Path]) -> bytes:
    """Names and SHA-256 of files (relative to ``root``), so that no two sets of files look alike."""
    digests = ((path.as_posix(), hashlib.sha256((root / path).read_bytes()).hexdigest()) for path in paths)
    return "".join(f"{name}\0{digest}\n" for name, digest in digests).encode()


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


def imported_files(code: str, src: Path, package: tuple[str, ...] = ()) -> Iterator[Path]:
    """Files below ``src`` that Python code imports directly, inside functions too.

    Args:
        code: Python source. What does not parse imports nothing: it cannot run either, and running says why.
        src: directory of the packages.
        package: the package that the code belongs to, for relative imports.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        for module in _imported_modules(node, package):
            yield from _module_files(src, module)


def _imported_modules(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Dotted names that an import statement may load; ``from a import b`` may load module ``a.b``."""
    if isinstance(node, ast.Import):
        yield from (tuple(alias.name.split(".")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        base += tuple(node.module.split(".")) if node.module else ()
        yield from ((*base, alias.name) for alias in node.names)


def _module_files(src: Path, module: tuple[str, ...]) -> Iterator[Path]:
    """The files that run when a module is imported: its packages' and its own."""
    for depth in range(1, len(module) + 1):
        path = src.joinpath(*module[:depth])
        yield from (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())
