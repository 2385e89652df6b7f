"""What a chapter's outputs depend on beside its own cells: the modules it imports, the data, and the versions.

Imports are followed from file to file below ``src``. Nothing here knows which module reads data: they count for every
chapter.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

NOT_DATA = {".md", ".py"}  # beside the data lie their description and the script that fetched them


def input_files(root: Path, code: Iterable[str]) -> list[Path]:
    """Files that the outputs of these code cells depend on, relative to the root.

    Args:
        root: directory of the project.
        code: the cells' sources, magics allowed.
    """
    data = {path for path in (root / "data").rglob("*") if path.suffix not in NOT_DATA}
    files = reached_files(root / "src", code) | data | {root / "constraints.txt"}
    return sorted(path.relative_to(root) for path in files if path.is_file())


def reached_files(src: Path, code: Iterable[str]) -> set[Path]:
    """Files below ``src`` that code cells reach by imports."""
    transform = TransformerManager().transform_cell  # turns magics into Python that parses
    pending = {path for cell in code for path in imported_files(transform(cell), src)}
    reached: set[Path] = set()
    while pending:
        path = pending.pop()
        reached.add(path)
        package = path.relative_to(src).with_suffix("").parts[:-1]
        pending |= set(imported_files(path.read_text(), src, package)) - reached
    return reached


def file_record(root: Path, paths: Iterable[Path]) -> bytes:
    """Names and SHA-256 of files (relative to ``root``), so that no two sets of files look alike."""
    digests = ((path.as_posix(), hashlib.sha256((root / path).read_bytes()).hexdigest()) for path in paths)
    return "".join(f"{name}\0{digest}\n" for name, digest in digests).encode()


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
