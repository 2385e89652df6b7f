"""A tiny project with chapters of its own, so that the machinery is tested without the book."""

from __future__ import annotations

import runpy
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

import companion
from companion.certificates import find_checker

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
BOX = {
    "title": "Doubling is adding",
    "bound": "<= 1e-12",
    "control": "tripled",
    "factor": "1e3",
    "source": "this test",
    "statement": "Doubling $x$ is adding it.",
}


def claim_code(name: str, measured: str = "1e-15") -> str:
    """A cell that measures one claim, which holds as :func:`claim_box` declares it unless ``measured`` is changed."""
    return f'from companion.measuring import measured\nmeasured("{name}", {measured}, control=1e-3)'


def claim_box(name: str, **changes: str | None) -> str:
    """A declaration with options (and the statement) changed, added or, with ``None``, left out."""
    options = {key: text for key, text in {**BOX, **changes}.items() if text is not None}
    statement = options.pop("statement")
    head = "\n".join(f":{key}: {text}" for key, text in options.items())
    return f"```{{claim}} {name}\n{head}\n\n{statement}\n```"


def certificate(weight: float = 1.0, **changes: Any) -> str:
    """A true statement in the form of the checker: a line through (0, 0) and (1, weight) has risk 0 there."""
    content = {
        "loss": "squared error",
        "activations": [],
        "inputs": [[(0.0).hex()], [(1.0).hex()]],
        "targets": [[(0.0).hex()], [weight.hex()]],
        "layers": [[[weight.hex(), (0.0).hex()]]],
        "radius": (2.0**-20).hex(),
        "inertia": [0, 0, 2],
        "risk": [(-1.0).hex(), (1.0).hex()],
    }
    sealed: str = runpy.run_path(str(find_checker()))["sealed"]({**content, **changes})
    return sealed


def write_notebook(
    path: Path, code: Iterable[str], *, prose: str = "# Title", boxes: Iterable[str] = (), **settings: Any
) -> None:
    """A chapter: prose with claims, a parameters cell ``k = 2; rate = 1e-3 (> 0); name = "a"``, and code cells."""
    cells = [
        nbformat.v4.new_markdown_cell("\n\n".join([prose, *boxes]), id="prose"),
        nbformat.v4.new_code_cell(
            'k = 2\nrate = 1e-3  # (> 0)\nname = "a"', id="parameters", metadata={"tags": ["parameters"]}
        ),
        *(nbformat.v4.new_code_cell(source, id=f"code-{i}") for i, source in enumerate(code)),
    ]
    metadata = {"kernelspec": KERNEL, "companion": settings}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


def make_project(root: Path, chapters: dict[str, dict[str, Any]]) -> Path:
    """A project with these chapters (name → arguments of :func:`write_notebook`), and a package ``toy`` to import."""
    toc = ["format: jb-book", "root: book/intro", "chapters:", *(f"- file: book/{name}" for name in chapters)]
    files = {
        "_toc.yml": "\n".join(toc),
        "constraints.txt": "numpy==2.0",
        "book/intro.md": "# Intro",
        "src/toy/__init__.py": "",
        "src/toy/first.py": "def value():\n    from toy import second\n    return second.VALUE\n",
        "src/toy/second.py": "VALUE = 1\n",
        "src/toy/third.py": "VALUE = 3\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    # Kernels get no PYTHONPATH of ours: they would import the companion from wherever it is installed.
    (root / "src/companion").symlink_to(Path(companion.__file__).parent)
    for name, arguments in chapters.items():
        write_notebook(root / "book" / f"{name}.ipynb", **arguments)
    return root


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The makers of tiny projects; fixtures, because test files import nothing from one another."""
    return SimpleNamespace(
        project=make_project, notebook=write_notebook, claim=claim_code, box=claim_box, certificate=certificate
    )
