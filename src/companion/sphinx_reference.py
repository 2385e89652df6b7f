"""Sphinx extension: reference pages made from docstrings, with links from chapters to what they use, and back.

Sphinx's own extensions ``autodoc`` and ``napoleon`` make the pages. Here docstrings become reStructuredText that means
what they say, every entry gains the chapters that import it, and every chapter a list of what it imports. Which names
a chapter imports is read from its code, without running it. The directive ``figure-map`` lists all figures with the
names of the library behind them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from companion.chapters import Chapter, find_chapters
from companion.execution import executed_path, read_copy
from companion.sphinx_executed import fresh_project

LIBRARY = "embedding_principle"
# Absolute values and shapes such as (*batch, P), which are substitutions and emphasis in reStructuredText.
SIGNS = re.compile(r"\||(?<=\()\*(?=\w)")


def names_used(chapter: Chapter) -> list[str]:
    """The names of the library that a chapter's cells import, dotted, sorted.

    Args:
        chapter: a chapter; lines in IPython's own syntax (``%config``, ``!ls``) are passed over.
    """
    trees = [_python(cell.source) for cell in chapter.code_cells]
    return sorted(set(_imports(trees).values()) | set(_attributes(trees, _packages(trees))))


def _imports(trees: Iterable[ast.AST]) -> dict[str, str]:
    """What a name of a chapter is in the library, for the names that are imported from it."""
    froms = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: _home(node.module or "", alias.name)
        for node in froms
        if (node.module or "").partition(".")[0] == LIBRARY
        for alias in node.names
    }


def _packages(trees: Iterable[ast.AST]) -> set[str]:
    """The names under which a chapter has the library itself, as ``ep``."""
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return {alias.asname or alias.name for node in imports for alias in node.names if alias.name == LIBRARY}


def _attributes(trees: Iterable[ast.AST], packages: set[str]) -> Iterator[str]:
    """What is read from the library under these names (``ep.lift``), dotted."""
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            yield _home(LIBRARY, node.attr)


def _home(module: str, name: str) -> str:
    """Where a name stands that may be imported from the library's top."""
    homes = importlib.import_module(LIBRARY)._HOMES if module == LIBRARY else {}
    return f"{module}.{homes[name]}.{name}" if name in homes else f"{module}.{name}"


def _python(source: str) -> ast.Module:
    """The syntax tree of a cell, without the lines that IPython alone understands."""
    return ast.parse(re.sub(r"(?m)^[%!].*$", "", source))


def reference(name: str) -> str:
    """A link to a name's entry, as MyST; constants without a description of their own lead to their module's.

    Example:
        >>> reference("embedding_principle.depth.lifting.lift")
        '{py:obj}`lift <embedding_principle.depth.lifting.lift>`'
    """
    module, _, last = name.rpartition(".")
    named = getattr(importlib.import_module(module), last, None)
    if inspect.isclass(named) or inspect.isfunction(named):
        target = f"{named.__module__}.{named.__qualname__}"
    else:
        described = ("", last) in ModuleAnalyzer.for_module(module).find_attr_docs()
        target = name if described or named is None or inspect.ismodule(named) else module
    return f"{{py:obj}}`{last} <{target}>`"


def list_used(app: Sphinx, docname: str, source: list[str]) -> None:
    """At a chapter's end, what it uses of the library (handler of Sphinx's ``source-read``)."""
    chapter = Chapter(Path(app.srcdir), Path(f"{docname}.ipynb"))
    if Path(app.env.doc2path(docname)).suffix != ".ipynb" or not (names := names_used(chapter)):
        return
    notebook = nbformat.reads(source[0], as_version=4)
    links = ", ".join(map(reference, names))
    notebook.cells.append(nbformat.v4.new_markdown_cell(f"**Of the library this chapter uses** {links}."))
    source[0] = nbformat.writes(notebook)


class FigureMap(SphinxDirective):
    """Directive ``figure-map``: every captioned figure, its chapter, what of the library is behind it, and the time."""

    def run(self) -> list[nodes.Node]:
        """Make the table from the chapters and their executed copies."""
        lines = ["| figure | chapter | computed with | seconds |", "|---|---|---|---:|"]
        for chapter in find_chapters(fresh_project(self.env)):
            page = f"{{doc}}`/{chapter.path.with_suffix('').as_posix()}`"
            for name, used, seconds in figure_rows(chapter):
                links = ", ".join(map(reference, used))
                lines.append(f"| {{numref}}`{name}` | {page} | {links} | {seconds:.1f} |")
        return self.parse_text_to_nodes("\n".join(lines))


def figure_rows(chapter: Chapter) -> Iterator[tuple[str, list[str], float]]:
    """For each captioned figure its name, and of the cells since the last one the names they use and their seconds."""
    trees = [_python(cell.source) for cell in chapter.code_cells]
    imported, packages = _imports(trees), _packages(trees)
    copy = read_copy(executed_path(chapter))
    used, seconds = set[str](), 0.0
    for cell in copy.cells if copy else []:
        if cell.cell_type == "code":
            tree = _python(cell.source)
            read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            used |= {imported[name] for name in read & imported.keys()} | {*_attributes([tree], packages)}
            seconds += cell.metadata.get("papermill", {}).get("duration") or 0.0
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            yield figure["name"], sorted(used), seconds
            used, seconds = set(), 0.0


def note_users(app: Sphinx) -> None:
    """Read which chapters use which name (handler of Sphinx's ``builder-inited``)."""
    users: dict[str, list[str]] = {}
    for chapter in find_chapters(Path(app.srcdir)):
        for name in names_used(chapter):
            users.setdefault(name, []).append(chapter.path.with_suffix("").as_posix())
    app.config.companion_users = users


def plain_signs(
    app: Sphinx, what: str, name: str, subject: object, options: Any, lines: list[str]
) -> None:  # the signature is Sphinx's
    r"""Let bars and stars of formulas stand for themselves (handler of ``autodoc-process-docstring``, before napoleon).

    >>> lines = ["Shape (*batch, P), |x| < 1.", ">>> a | b"]
    >>> plain_signs(None, "", "", None, None, lines); lines
    ['Shape (\\*batch, P), \\|x\\| < 1.', '>>> a | b']
    """
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")) and "``" not in line:
            lines[i] = SIGNS.sub(r"\\\g<0>", line)


def name_users(app: Sphinx, what: str, name: str, subject: object, options: Any, lines: list[str]) -> None:
    """Below an entry, the chapters that use it (handler of ``autodoc-process-docstring``, after napoleon)."""
    if users := app.config.companion_users.get(name):
        lines += ["", "*Used in* " + ", ".join(f":doc:`/{user}`" for user in users) + ".", ""]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handlers, in the order in which they are to run."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_config_value("companion_users", {}, "")
    app.add_directive("figure-map", FigureMap)
    app.connect("builder-inited", note_users)
    app.connect("source-read", list_used, priority=600)  # after companion.sphinx_executed, which puts the outputs in
    app.connect("autodoc-process-docstring", plain_signs, priority=400)
    app.connect("autodoc-process-docstring", name_users, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
