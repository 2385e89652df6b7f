"""The chapters of the book: what ``_toc.yml`` lists, and what each chapter's outputs depend on.

A chapter's outputs depend on its code cells and parameters, of which this module makes a digest, and on the files and
versions that its kernel loads, which :mod:`companion.execution` notes with the outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import nbformat

from companion.claims import Declaration
from companion.declarations import declarations_in
from companion.notebook_format import UNREADABLE, parse_notebook, timeout_of
from companion.parameter_cells import Parameter, parameters_in, parameters_source
from companion.plain_yaml import read_yaml

Result = TypeVar("Result")
PAGES = (".ipynb", ".md")  # what pages of the book are written in


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
            ProjectError: when the file is no notebook that can be used.
        """
        return self._read(lambda: parse_notebook((self.root / self.path).read_bytes()))

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
        prose = [cell.source for cell in self.notebook.cells if cell.cell_type == "markdown"]
        return self._read(lambda: declarations_in(prose))

    @property
    def timeout(self) -> int:
        """Seconds that one cell may take."""
        return timeout_of(self.notebook)

    @cached_property
    def parameter_cell(self) -> dict[str, Parameter]:
        """What the cell tagged ``parameters`` says, by name.

        Raises:
            ProjectError: when it holds anything but literals for names, or is not the only one.
        """
        return self._read(lambda: parameters_in(parameters_source(self.notebook)))

    @property
    def parameters(self) -> dict[str, Any]:
        """Names and default values of the parameters."""
        return {name: parameter.default for name, parameter in self.parameter_cell.items()}

    def _read(self, read: Callable[[], Result]) -> Result:
        """What ``read`` returns; what it cannot use is said with the notebook's name."""
        try:
            return read()
        except OSError as error:
            raise ProjectError(f"{self.path}: {UNREADABLE}: {error.strerror}") from error
        except ValueError as error:
            raise ProjectError(f"{self.path}: {error}") from error


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
        ProjectError: when ``_toc.yml`` cannot be used, or one of its entries has no file in the project or comes twice.
    """
    try:
        paths = [_page(root, item["file"]) for item in toc_items((root / "_toc.yml").read_text(encoding="utf-8"))]
        _require_once(paths)
    except UnicodeDecodeError as error:
        raise ProjectError(f"_toc.yml: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise ProjectError(f"_toc.yml: {error.strerror}") from error
    except ValueError as error:
        raise ProjectError(f"_toc.yml: {error}") from error
    return [Chapter(root, path) for path in paths if path.suffix == ".ipynb"]


def toc_items(toc: str) -> list[dict[str, Any]]:
    """What lists a page in a table of contents, depth first, with the page's path as ``file``.

    Raises:
        ValueError: in one sentence, with the key that cannot be used.

    Example:
        >>> toc_items("{root: intro, chapters: [{file: a, title: A}]}")
        [{'file': 'intro'}, {'file': 'a', 'title': 'A'}]
    """
    content = read_yaml(toc)
    if not isinstance(content, dict) or "root" not in content:
        raise ValueError("must be a mapping, with the key root")
    return [{"file": _path("root", content["root"])}, *_items(content)]


def choose_chapters(root: Path, names: Iterable[str]) -> list[Chapter]:
    """The chapters with these names, or all when no name is given.

    Args:
        root: directory of the project.
        names: paths without suffix relative to ``book/``, or their last parts where these are unique; or paths of files
            as a shell completes them, ``./book/depth/lifting.ipynb``.

    Raises:
        ProjectError: naming what is unknown or ambiguous and the names there are.
    """
    chapters = find_chapters(root)
    chosen = [_choose(chapters, name_in_book(root, name)) for name in names]
    return list({chapter.path: chapter for chapter in chosen}.values()) or chapters


def name_in_book(root: Path, text: str) -> str:
    """The name that a text stands for, if it is the path of a page, from the working directory or the root.

    Args:
        root: directory of the project.
        text: ``./book/depth/lifting.ipynb``, ``/somewhere/book/depth/lifting.ipynb``, or a name already.

    Example:
        >>> name_in_book(Path("/project"), "/project/book/depth/lifting.ipynb")
        'depth/lifting'
        >>> name_in_book(Path("/project"), "depth/lifting")
        'depth/lifting'
    """
    path = Path(text)
    if path.suffix not in PAGES:
        return text
    # Links are followed for the folder alone: a notebook may itself be one, to elsewhere.
    files = [place.parent.resolve() / place.name for place in (Path.cwd() / path, root / path)]
    inside = [file for file in files if file.is_relative_to(root)]
    file = next((file for file in inside if file.is_file()), inside[0] if inside else None)
    return Chapter(root, file.relative_to(root)).name if file else text


def find_page(root: Path, name: str) -> Path:
    """The file of a page, relative to the root, whether `_toc.yml` lists it or not.

    Args:
        root: directory of the project.
        name: its path without suffix relative to ``book/``, or the path of its file.

    Raises:
        ProjectError: when there is no such file.
    """
    name = name_in_book(root, name)
    inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
    for candidate in (Path("book", f"{name}{suffix}") for suffix in PAGES):
        if inside and (root / candidate).is_file():
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


def _items(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from _items(item)
    elif isinstance(node, dict):
        if "glob" in node:
            raise ValueError(f"glob: {node['glob']}: patterns are not read; list each file, in the order of the book")
        if "file" in node:
            yield {**node, "file": _path("file", node["file"])}
        for value in node.values():
            yield from _items(value)


def _path(key: str, value: Any) -> str:
    if not (isinstance(value, str) and value):
        raise ValueError(f"{key}: must be the path of a page, not {value!r}")
    return value


def _page(root: Path, entry: str) -> Path:
    """The file of an entry, which may be written without its suffix."""
    path = Path(entry)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"lists {entry!r}, which is not in the project; write a path relative to _toc.yml")
    if not entry.isprintable() or path.name.startswith("-"):
        raise ValueError(f"lists {entry!r}, which no command line can name; rename the file")
    for candidate in (entry, f"{entry}.ipynb", f"{entry}.md"):
        if (root / candidate).is_file():
            return Path(candidate)
    raise ValueError(f"lists {entry!r}, but there is no such file in {root}")


def _require_once(paths: list[Path]) -> None:
    """Refuse a page that is listed twice, and two pages of one name."""
    names: dict[str, str] = {}
    for path in paths:
        name, shown = Chapter(Path(), path).name, path.as_posix()
        if names.get(name) == shown:
            raise ValueError(f"lists {shown!r} twice; keep one of the entries")
        if name in names:
            raise ValueError(f"lists {names[name]!r} and {shown!r}, which are both called {name}; rename one")
        names[name] = shown
