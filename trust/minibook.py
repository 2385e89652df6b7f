"""A small book of a few seconds, which can be killed and spoilt while the real one is left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from companion.chapters import find_chapters
from companion.execution import executed_path, state_of
from embedding_principle.certificates.certify import certify
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from trust.pieces import ROOT, load

PART = "small"
CHAPTERS = ("left", "right", "kept")
PATIENCE = 120  # seconds for a command on a busy machine
CONFIG = """title: Small
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [attrs_inline, colon_fence, dollarmath]}
sphinx:
  config:
    extensions:
      [myst_nb, jupyter_book, sphinx_comments, sphinx_external_toc, sphinx_book_theme, companion.sphinx_executed]
    mathjax3_config: {tex: {macros: {N: '\\mathbb{N}'}}}
"""
SWEEP = f"{PART}/left: {{k: [3, 4]}}\n"
READ = "from pathlib import Path\nvalue = float(Path('../../data/a.txt').read_text())"


@contextmanager
def minibook() -> Iterator[Path]:
    """A copy of a book of three chapters, all with good copies, in a folder of its own beside its temporary files."""
    # /tmp, whatever the caller's folder is: the sockets of kernels need short paths.
    with TemporaryDirectory(prefix="trust-", dir="/tmp") as folder:
        root = Path(folder, "book")
        shutil.copytree(_template(), root, symlinks=True)
        Path(folder, "tmp").mkdir()
        yield root


def run(
    root: Path, arguments: Sequence[str], *, at: Path | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """One command of the companion in the small book, whose temporary files lie beside it."""
    return subprocess.run(
        command(arguments),
        cwd=at or root,
        env=environment(root),
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )


def command(arguments: Sequence[str]) -> list[str]:
    """The companion's command line, run by this interpreter."""
    return [sys.executable, "-m", "companion", *arguments]


def environment(root: Path) -> Mapping[str, str]:
    """The environment of a command: the project's sources, and a folder for temporary files of its own."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(root.parent / "tmp")}


def copies(root: Path) -> dict[str, bytes]:
    """The bytes of the executed copies that are there, by chapter."""
    paths = {chapter.path.stem: executed_path(chapter) for chapter in find_chapters(root)}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def lost(root: Path, before: Mapping[str, bytes]) -> list[str]:
    """The chapters whose copy is neither as it was nor a fresh one."""
    now = copies(root)
    chapters = {chapter.path.stem: chapter for chapter in find_chapters(root)}
    return [name for name in before if now.get(name) != before[name] and state_of(chapters[name]) != "fresh"]


def edit(root: Path, *names: str) -> None:
    """Change a chapter's code, so that it is executed again and comes to the same result."""
    for name in names:
        path = root / "book" / PART / f"{name}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"][-1]["source"] = [*notebook["cells"][-1]["source"], "\n# again"]
        path.write_text(json.dumps(notebook), encoding="utf-8")


def _template() -> Path:
    """The book that is copied, made and executed once in a campaign and process."""
    global _made
    if _made is None:
        _made = TemporaryDirectory(prefix="trust-template-", dir="/tmp")
        _make(Path(_made.name, "book"))
    return Path(_made.name, "book")


_made: TemporaryDirectory[str] | None = None
run_seconds = 0.0  # of the run that executed the template


def _make(root: Path) -> None:
    tests = load("tests/companion/conftest.py")
    chapters = {
        f"{PART}/{name}": {
            "code": [
                "import time\ntime.sleep(0.3)",
                READ,
                "time.sleep(0.3)",
                tests.claim_code(f"D{i}-{name}", "value"),
            ],
            "boxes": [tests.claim_box(f"D{i}-{name}")],
        }
        for i, name in enumerate(CHAPTERS, 1)
    }
    tests.make_project(root, chapters)
    files = {"_config.yml": CONFIG, "sweep.yml": SWEEP, "data/a.txt": "1e-15", "proof.json": proof()}
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root.parent / "tmp").mkdir()
    global run_seconds
    began = time.perf_counter()
    done = run(root, ["run", "--workers", "2"])
    run_seconds = time.perf_counter() - began
    ledger = run(root, ["claims", "--json"])
    if done.returncode or ledger.returncode:
        raise RuntimeError(f"the small book cannot be made: {done.stderr}{ledger.stderr}")
    (root / "ledger.json").write_text(ledger.stdout, encoding="utf-8")


def proof() -> str:
    """A certificate that the checker accepts."""
    inputs, targets = (torch.tensor(values, dtype=torch.float64)[:, None] for values in ([0.0, 1, 2], [0.0, 1, 1]))
    return certify(Risk(Network((1, 1)), inputs, targets), torch.tensor([0.5, 0.2], dtype=torch.float64)).document
