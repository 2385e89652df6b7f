"""The whole book as one PDF, made by LaTeX from the same executed copies as the pages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from companion.chapters import ProjectError
from companion.files import write_through
from companion.rendering import RenderingError, read_config, run_jupyter_book, sphinx_settings, workshop

PDF = Path("_build/embedding-principle-in-depth.pdf")
LOG = Path("_build/latex.log")
PROGRAMS = ("latexmk", "xelatex", "rsvg-convert")
CONVERTER = "sphinxcontrib.rsvgconverter"
# They have every sign of the book.
FONTS = r"\setmainfont{DejaVu Serif}\setsansfont{DejaVu Sans}\setmonofont[Scale=0.9]{DejaVu Sans Mono}"
INSTALLATION = (
    "on Debian and Ubuntu `apt install latexmk texlive-xetex texlive-latex-extra texlive-fonts-recommended "
    "fonts-dejavu librsvg2-bin`, on macOS `brew install --cask mactex-no-gui && brew install librsvg`"
)


def render_pdf(root: Path) -> Path:
    """Write the book as a PDF, with proofs and solutions unfolded; a failure leaves the last good one.

    Args:
        root: directory of the project.

    Returns:
        The file, relative to the root.

    Raises:
        ProjectError: naming what is not installed, with the remedy.
        RenderingError: when Jupyter Book or LaTeX fails, with what they say.
    """
    _require_programs()
    with workshop(root / PDF) as folder:
        write_through(folder / "_config.yml", yaml.safe_dump(_printed(read_config(root))).encode())
        run_jupyter_book(root, folder, "--all", "--builder=latex", f"--config={folder / '_config.yml'}")
        _typeset(root, folder / "_build" / "latex").replace(root / PDF)
    return PDF


def _require_programs() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise ProjectError(f"a PDF needs {', '.join(missing)}, which cannot be found; {INSTALLATION}")
    if importlib.util.find_spec("sphinxcontrib") is None or importlib.util.find_spec(CONVERTER) is None:
        raise ProjectError(f"a PDF needs the package of {CONVERTER}; `make pdf` installs it, or pip install '.[pdf]'")


def _printed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the pages, with what LaTeX needs besides: figures as PDF, and the book's macros."""
    settings = sphinx_settings(config)
    settings["extensions"] = [*settings.get("extensions", []), CONVERTER]
    settings["nb_mime_priority_overrides"] = [["latex", "image/svg+xml", 5]]
    settings["nb_render_markdown_format"] = "myst"  # tables of outputs, see `companion.printable`
    settings |= {"latex_engine": "xelatex", "latex_use_xindy": False}  # makeindex is part of every TeX
    settings["latex_elements"] = {
        "fontpkg": FONTS,
        "papersize": "a4paper",
        "extraclassoptions": "openany,oneside",
        "preamble": _preamble(settings.get("mathjax3_config", {}).get("tex", {}).get("macros", {})),
        "tableofcontents": r"\sphinxtableofcontents",
    }
    config["latex"] = {"latex_documents": {"targetname": "book.tex"}, "use_jupyterbook_latex": False}
    return config


def _preamble(macros: dict[str, str | list[Any]]) -> str:
    r"""The macros of MathJax as those of LaTeX, put in place after all packages have defined theirs.

    >>> print(_preamble({"R": r"\mathbb{R}", "abs": [r"\lvert #1 \rvert", 1]}))
    \newcommand{\BookR}{\mathbb{R}}\AtBeginDocument{\let\R\BookR}
    \newcommand{\Bookabs}[1]{\lvert #1 \rvert}\AtBeginDocument{\let\abs\Bookabs}
    """
    lines = []
    for name, meaning in macros.items():
        body, count = meaning if isinstance(meaning, list) else (meaning, 0)
        definition = rf"\newcommand{{\Book{name}}}{f'[{count}]' if count else ''}{{{body}}}"
        lines.append(rf"{definition}\AtBeginDocument{{\let\{name}\Book{name}}}")
    return "\n".join(lines)


def _typeset(root: Path, folder: Path) -> Path:
    """Run LaTeX as often as references need; returns the PDF."""
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-halt-on-error", "book.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    said = folder / "book.log"
    if said.is_file():
        shutil.copy(said, root / LOG)
    if done.returncode:
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        faults = [line for line in lines if line.startswith(("!", "l."))] or lines[-20:]
        raise RenderingError(f"LaTeX failed; from {LOG}:\n" + "\n".join(faults[:20]))
    return folder / "book.pdf"
