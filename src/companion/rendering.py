"""Rendering the executed book as HTML, only when something that the pages show has changed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from companion.chapters import Chapter, find_chapters
from companion.execution import executed_path, lock
from companion.files import file_record

HTML = Path("_build/html")
STAMP = Path("_build/rendered.json")
DRAFT = Path("_build/draft")
LOG = Path("_build/rendering.log")


class RenderingError(Exception):
    """Jupyter Book failed; the message holds its warnings and errors."""


def render(root: Path) -> bool:
    """Render the book with Jupyter Book, warnings as errors, unless the pages are up to date.

    The pages are made in a directory of their own and swapped in at the end, so a failed rendering leaves the
    last good ones.

    Args:
        root: directory of the project.

    Returns:
        Whether there was anything to render.

    Raises:
        RenderingError: with the warnings and errors of the log when Jupyter Book fails.
    """
    with lock(root / HTML):
        digest = rendering_digest(root)
        if (root / HTML / "index.html").is_file() and _stamp(root) == digest:
            return False
        output = root / "_build" / "rendering"
        shutil.rmtree(output, ignore_errors=True)
        _run_jupyter_book(root, output, "--all", "-W", "-n", "--keep-going")
        _swap(output / "_build" / "html", root / HTML)
        shutil.rmtree(output)
        (root / STAMP).write_text(json.dumps({"inputs": digest}))
    return True


def rendering_digest(root: Path) -> str:
    """SHA-256 over all that the pages are made of: book, settings, sources, benchmarks and executed copies."""
    files = [
        path
        for folder in ("book", "src", "benchmarks/results")
        for path in (root / folder).rglob("*")
        if path.is_file()
    ]
    files += [root / name for name in ("_config.yml", "_toc.yml", "constraints.txt")]
    files += [executed_path(chapter) for chapter in find_chapters(root)]
    paths = {path.relative_to(root) for path in files if path.is_file()}
    # Tools leave caches here (Ruff's stands beside book/ruff.toml), and no page is made of them.
    shown = sorted(path for path in paths if not any(part.startswith((".", "__pycache__")) for part in path.parts))
    return hashlib.sha256(file_record(root, shown)).hexdigest()


def render_page(root: Path, page: Path) -> tuple[Path, str]:
    """Render one page as a draft, with the outputs there are; nothing is executed, and the book's pages stay.

    Args:
        root: directory of the project.
        page: the page's file, relative to the root; `_toc.yml` need not list it yet.

    Returns:
        The rendered file, and what Jupyter Book complained of, but for references to pages that are not rendered.

    Raises:
        RenderingError: when Jupyter Book fails.
    """
    output = root / DRAFT
    output.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((root / "_config.yml").read_text())
    config.setdefault("sphinx", {}).setdefault("config", {})["companion_draft"] = True
    listed = {"format": "jb-book", "root": page.with_suffix("").as_posix()}
    others = [{"file": path.with_suffix("").as_posix()} for path in _bibliographies(root) if path != page]
    (output / "_config.yml").write_text(yaml.safe_dump(config))
    (output / "_toc.yml").write_text(yaml.safe_dump(listed | ({"chapters": others} if others else {})))
    options = [f"--{name}={output / f'_{name}.yml'}" for name in ("config", "toc")]
    with lock(output):
        _run_jupyter_book(root, output, *options)
    complaints = _complaints((root / LOG).read_text()).splitlines()
    expected = r"cross-reference|undefined label|unknown document|toctree|not included|term not in"
    if page.suffix == ".ipynb" and not executed_path(Chapter(root, page)).is_file():
        expected += "|No key "
    shown = [line for line in complaints if re.search("WARNING|ERROR", line) and not re.search(expected, line)]
    return output / "_build" / "html" / page.with_suffix(".html"), "\n".join(shown)


def _bibliographies(root: Path) -> list[Path]:
    """The pages that citations lead to."""
    pages = (root / "book").rglob("*.md")
    return [path.relative_to(root) for path in sorted(pages) if "{bibliography}" in path.read_text()]


def _run_jupyter_book(root: Path, output: Path, *options: str) -> None:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)]
    with (root / LOG).open("w") as log:
        failed = subprocess.run(
            [*command, "--path-output", str(output), *options],
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if failed:
        raise RenderingError(f"Jupyter Book failed; from {LOG}:\n{_complaints((root / LOG).read_text())}")


def _stamp(root: Path) -> str | None:
    try:
        stamp: str | None = json.loads((root / STAMP).read_text())["inputs"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return stamp


def _swap(new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``old``; only for the moment between two renames is there neither."""
    retired = old.with_name(f"{old.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if old.exists():
        old.rename(retired)
    new.rename(old)
    shutil.rmtree(retired, ignore_errors=True)


def _complaints(log: str) -> str:
    """The warnings and errors in a log of Jupyter Book, or its end when it names none."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", log).splitlines()  # without colours
    found = [line for line in lines if re.search(r"WARNING|ERROR|CRITICAL|Error:|error:", line)]
    return "\n".join(dict.fromkeys(found or lines[-40:]))
