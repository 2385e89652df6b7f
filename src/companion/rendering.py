"""Rendering the executed book as HTML, only when something that the pages show has changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from companion.chapters import Chapter, ProjectError, find_chapters
from companion.execution import executed_path, lock
from companion.files import file_record, write_through
from companion.repository import repository, with_links

HTML = Path("_build/html")
STAMP = Path("_build/rendered.json")
DRAFT = Path("_build/draft")
RUN = "html"  # beside the executed copy of a reader's run
LOG = Path("_build/rendering.log")


class RenderingError(Exception):
    """Jupyter Book failed; the message holds its warnings and errors."""


def render(root: Path) -> bool:
    """Render the book with Jupyter Book, warnings as errors, unless the pages are up to date.

    The pages are made in a directory of their own and swapped in at the end, so a failed rendering leaves the
    last good ones, and a renderer that outlived its killed parent meets no other.

    Args:
        root: directory of the project.

    Returns:
        Whether there was anything to render.

    Raises:
        RenderingError: with the warnings and errors of the log when Jupyter Book fails.
    """
    if _is_rendered(root):  # where nothing is to be written, nothing needs to be locked
        return False
    with workshop(root / HTML) as folder:
        if _is_rendered(root):
            return False
        digest = rendering_digest(root)
        run_jupyter_book(root, folder, "--all", "-W", "-n", "--keep-going", *_links(root, folder))
        # First, or it would stand for pages that it does not describe if the swap were the last thing done.
        (root / STAMP).unlink(missing_ok=True)
        swap(folder / "_build" / "html", root / HTML)
        write_through(root / STAMP, json.dumps({"inputs": digest}).encode())
    return True


def _links(root: Path, folder: Path) -> list[str]:
    """The option by which the pages get links to the repository, if its address is given."""
    address = repository()
    if address is None:
        return []
    write_through(folder / "_config.yml", yaml.safe_dump(with_links(read_config(root), address)).encode())
    return [f"--config={folder / '_config.yml'}"]


def _is_rendered(root: Path) -> bool:
    stamp = _stamp(root)
    return stamp is not None and (root / HTML / "index.html").is_file() and stamp == rendering_digest(root)


@contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for one rendering; what renderings that were killed left there is removed."""
    with lock(target):
        for leftover in target.parent.glob(f"{target.name}.*.rendering"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".rendering", dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def rendering_digest(root: Path) -> str:
    """SHA-256 over all that the pages are made of: book, settings, sources, outcomes and executed copies.

    The address of the repository belongs to it, if it is given.

    Raises:
        ProjectError: when the address cannot be used.
    """
    address = repository() or ""
    files = [
        path
        for folder in ("book", "src", "benchmarks/results")
        for path in (root / folder).rglob("*")
        if path.is_file()
    ]
    others = ("_config.yml", "_toc.yml", "constraints.txt", "CITATION.cff", "trust/results.json")
    files += [root / name for name in others]
    files += [executed_path(chapter) for chapter in find_chapters(root)]
    paths = {path.relative_to(root) for path in files if path.is_file()}
    # Tools leave caches here (Ruff's stands beside book/ruff.toml), and no page is made of them.
    shown = sorted(path for path in paths if not any(part.startswith((".", "__pycache__")) for part in path.parts))
    return hashlib.sha256(file_record(root, shown) + address.encode()).hexdigest()


def render_page(root: Path, page: Path, *, run: Path | None = None) -> tuple[Path, str]:
    """Render one page as a draft, with the outputs there are; nothing is executed, and the book's pages stay.

    Args:
        root: directory of the project.
        page: the page's file, relative to the root; `_toc.yml` need not list it yet.
        run: a copy of the chapter that was executed with a reader's parameters: the page shows it in the place of the
            book's, and lies beside it.

    Returns:
        The rendered file, and what Jupyter Book complained of, but for references to pages that are not rendered.

    Raises:
        ProjectError: when ``_config.yml`` or the notebook cannot be used.
        RenderingError: when Jupyter Book fails.
    """
    if page.suffix == ".ipynb":
        _ = Chapter(root, page).notebook
    config = read_config(root)
    settings = sphinx_settings(config)
    settings["companion_draft"] = True
    if run is not None:
        settings["companion_run"] = run.relative_to(root).as_posix()
    target = root / DRAFT if run is None else run.parent / RUN
    listed = {"format": "jb-book", "root": page.with_suffix("").as_posix()}
    others = [{"file": path.with_suffix("").as_posix()} for path in _reference_pages(root) if path != page]
    with workshop(target) as folder:
        for name, content in (("config", config), ("toc", listed | ({"chapters": others} if others else {}))):
            write_through(folder / f"_{name}.yml", yaml.safe_dump(content).encode())
        options = [f"--{name}={folder / f'_{name}.yml'}" for name in ("config", "toc")]
        log = run_jupyter_book(root, folder, *options)
        swap(folder / "_build" / "html", target)
    expected = r"cross-reference|undefined label|label '.*' not found|unknown document|toctree|not included|term not in"
    if page.suffix == ".ipynb" and not (run or executed_path(Chapter(root, page))).is_file():
        expected += "|No key "
    complaints = _complaints(log).splitlines()
    shown = [line for line in complaints if re.search("WARNING|ERROR", line) and not re.search(expected, line)]
    return target / page.with_suffix(".html"), "\n".join(shown)


def read_config(root: Path) -> dict[str, Any]:
    """The settings in ``_config.yml``; ProjectError where it holds none."""
    try:
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(f"_config.yml: not YAML in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ProjectError("_config.yml: must be a mapping of settings")
    return config


def sphinx_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The mapping ``sphinx.config`` of the settings, made if there is none; ProjectError for something else."""
    found: Any = config
    for name in ("sphinx", "config"):
        if found.get(name) is None:
            found[name] = {}
        found = found[name]
        if not isinstance(found, dict):
            raise ProjectError("_config.yml: sphinx and its config must be mappings of settings")
    settings: dict[str, Any] = found
    return settings


def _reference_pages(root: Path) -> list[Path]:
    """The pages that citations and terms lead to."""
    pages = sorted((root / "book").rglob("*.md"))
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in pages if path.is_file())
    return [path.relative_to(root) for path, text in texts if re.search("{(bibliography|glossary)}", text)]


def run_jupyter_book(root: Path, folder: Path, *options: str) -> str:
    """Render into ``folder``; returns the log, which is kept as :data:`LOG` too."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)]
    with (folder / LOG.name).open("w", encoding="utf-8") as file:
        failed = subprocess.run(
            [*command, "--path-output", str(folder), *options],
            cwd=root,
            env={**os.environ, "PYTHONUTF8": "1"},  # whatever the terminal's encoding is
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    log = (folder / LOG.name).replace(root / LOG).read_text(encoding="utf-8", errors="replace")
    if failed:
        raise RenderingError(f"Jupyter Book failed; from {LOG}:\n{_complaints(log)}")
    return log


def _stamp(root: Path) -> str | None:
    try:
        stamp: str | None = json.loads((root / STAMP).read_bytes())["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stamp


def swap(new: Path, old: Path) -> None:
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
