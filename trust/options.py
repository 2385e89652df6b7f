"""Generated command lines: every command and option of the companion answers or refuses in one sentence.

Notebooks are not executed and pages not rendered here: an execution is at once what the notebook says, so that hundreds
of command lines take seconds. What executions and renderings do on spoilt ground is tried by `faults` and `kills`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from companion import commands
from companion.chapters import Chapter, ProjectError, find_chapters
from companion.execution import executed_path
from companion.notebooks import Execution
from trust import minibook
from trust.pieces import Found, Piece, Scope, repeatable

NAME = "options"
MINUTES = 3
PARALLEL = False
TESTED = ("src/companion", "trust/options.py", "trust/minibook.py")
EXAMPLES = 80
SECONDS = 15  # for one command line
SHOWN = 3

# No argument of a program holds a NUL; what no encoding has comes from the shell as a surrogate.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12)
paths = st.sampled_from(
    ["", ".", "..", "/", "/dev/null", "book", "no/such/file", "x" * 300, "_toc.yml", "-", "--", "~"]
)
odd = st.one_of(words, paths)
known = st.sampled_from(["left", "small/left", "book/small/left.ipynb", "right"])
chapters = st.one_of(known, known, known, odd)
numbers = st.one_of(
    st.integers(0, 9).map(str),
    st.integers().map(str),
    st.sampled_from(["1", "2", "٣", "1e3", "0x1", "1.0", "999999999"]),
    odd,
)
values = st.one_of(
    st.sampled_from(
        [
            "3",
            "1e-3",
            "0",
            "-1",
            "true",
            "null",
            "[1]",
            "{a: 1}",
            "'a'",
            "!!python/object:os.system",
            "&a 1",
            "*a",
            "1_0",
            ".nan",
            ".inf",
        ]
    ),
    st.floats().map(str),
    st.integers(0, 9).map(str),
    odd,
)
names = st.one_of(st.sampled_from(["k", "rate", "name"]), st.sampled_from(["k", "seed", ""]), words)
texts = st.one_of(
    words,
    st.recursive(
        st.none() | st.integers() | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
)
addresses = st.one_of(
    st.sampled_from(
        ["tcp://127.0.0.1:9", "127.0.0.1:9", "tls://127.0.0.1:9", "inproc://x", "tcp://", "x://127.0.0.1:9"]
    ),
    words,
)


def spoilt(name: str) -> SearchStrategy[str | None]:
    """The content of a file that is right, cut, changed in one place or something else; None for a missing one."""

    @st.composite
    def content(draw: st.DrawFn) -> str | None:
        right = _right(name)
        kind = draw(st.sampled_from(["right", "cut", "changed", "other", "missing"]))
        if kind in ("cut", "changed"):
            place = draw(st.integers(0, max(0, len(right) - 1)))
            return right[:place] + (draw(st.sampled_from([*string.printable])) + right[place + 1 :]) * (
                kind == "changed"
            )
        return {"right": right, "other": draw(texts), "missing": None}[kind]

    return content()


def _right(name: str) -> str:
    with minibook.minibook() as root:
        return (root / name).read_text(encoding="utf-8")


def _with_file(command: str, name: str, *more: str) -> SearchStrategy[tuple[list[str], dict[str, str | None]]]:
    return spoilt(name).map(lambda content: ([command, name, *more], {name: content}))


def _lists(*parts: str | SearchStrategy[str]) -> SearchStrategy[tuple[list[str], dict[str, str | None]]]:
    """Command lines of these words, without files of their own."""
    drawn = st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts))
    return drawn.map(lambda line: (list(line), {}))


OPTIONS: Mapping[str, SearchStrategy[tuple[list[str], dict[str, str | None]]]] = {
    "run CHAPTER": _lists("run", chapters),
    "run -p NAME=VALUE": _lists("run", "left", "-p", st.tuples(names, values).map("=".join)),
    "run -p NAME VALUE": _lists("run", "-p", names, values),
    "run --force": _lists("run", "--force", chapters),
    "run --workers": _lists("run", "--workers", numbers),
    "run --scheduler": _lists("run", "left", "--scheduler", addresses),
    "parameters CHAPTER": _lists("parameters", chapters),
    "sweep FILE": _with_file("sweep", "sweep.yml"),
    "sweep --workers": _lists("sweep", "sweep.yml", "--workers", numbers),
    "sweep --scheduler": _lists("sweep", "sweep.yml", "--scheduler", addresses),
    "status": spoilt("_toc.yml").map(lambda content: (["status"], {"_toc.yml": content})),
    "status --save-seconds": spoilt(f"book/{minibook.PART}/left.ipynb").map(
        lambda content: (["status", "--save-seconds"], {f"book/{minibook.PART}/left.ipynb": content})
    ),
    "claims": spoilt(f"_build/executed/book/{minibook.PART}/left.ipynb").map(
        lambda content: (["claims"], {f"_build/executed/book/{minibook.PART}/left.ipynb": content})
    ),
    "claims --json": spoilt(f"book/{minibook.PART}/left.ipynb").map(
        lambda content: (["claims", "--json"], {f"book/{minibook.PART}/left.ipynb": content})
    ),
    "check CHAPTER": _lists("check", chapters),
    "check --junit": _lists("check", "--junit", odd),
    "check --workers": _lists("check", "--workers", numbers),
    "check --scheduler": _lists("check", "left", "--scheduler", addresses),
    "compare BEFORE AFTER": _with_file("compare", "ledger.json", "other.json"),
    "build --workers": _lists("build", "--workers", numbers),
    "build --scheduler": _lists("build", "--scheduler", addresses),
    "pdf": spoilt("_config.yml").map(lambda content: (["pdf"], {"_config.yml": content})),
    "page PAGE": _lists("page", chapters),
    "new PART/NAME": _lists("new", st.one_of(st.from_regex(r"small/[a-z_]{1,3}", fullmatch=True), odd)),
    "new --title": _lists("new", "small/more", "--title", st.one_of(words, values)),
    "verify FILE": _with_file("verify", "proof.json"),
    "--version": _lists("--version", odd),
    "COMMAND": _lists(odd, odd),
}


def pieces(scope: Scope) -> Iterator[Piece]:
    """A piece an option."""
    for name in [*OPTIONS][:: 9 if scope.sample else 1]:
        yield Piece(name, lambda name=name: called(name, 20 if scope.sample else EXAMPLES))


def summary(outcomes: Mapping[str, Found]) -> Found:
    """The counts of all options together."""
    total: Counter[str] = Counter()
    for found in outcomes.values():
        total.update({name: found[name] for name in ("calls", "answered", "refused")})
    fewest = min((found["calls"] for found in outcomes.values()), default=0)
    return {"commands and options": len(outcomes), **total, "fewest calls of one": fewest}


def called(name: str, examples: int) -> Found:
    """Draw command lines with one option and say what became of them."""
    outcomes: Counter[str] = Counter()
    problems: dict[str, list[str]] = {}

    @repeatable(examples)
    @given(OPTIONS[name])
    def one(call: tuple[list[str], dict[str, str | None]]) -> None:
        line, files = call
        kind = outcome(line, files)
        outcomes[kind if kind in ("answered", "refused") else "problem"] += 1
        if kind not in ("answered", "refused"):
            problems.setdefault(kind, []).append(f"{line} {files}"[:400])

    one()
    # Where there is little to vary, drawing ends early: the same command lines count again.
    missing = max(0, 50 - outcomes.total())
    for _ in range(missing if outcomes.total() else 0):
        outcomes["answered" if outcome(["status"], {}) == "answered" else "problem"] += 1
    said = [f"{kind} ({len(found)}): {words}" for kind, found in problems.items() for words in found[:SHOWN]]
    counts = {kind: outcomes[kind] for kind in ("answered", "refused")}
    return {"calls": outcomes.total(), **counts, "problems": said}


def outcome(line: list[str], files: Mapping[str, str | None]) -> str:
    """What became of a command: "answered", "refused", or what is wrong with it."""
    with minibook.minibook() as root, _at(root), _instead():
        before = minibook.copies(root)
        _write(root, files)
        out, err = io.StringIO(), io.StringIO()
        began = time.perf_counter()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = commands.main(line)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:150]}"
        return _judged(root, status, err.getvalue(), time.perf_counter() - began, before, files)


def _judged(
    root: Path, status: int, said: str, seconds: float, before: Mapping[str, bytes], files: Mapping[str, str | None]
) -> str:
    if seconds > SECONDS:
        return f"took {seconds:.0f} s"
    if status not in (0, 1, 2):
        return f"status {status}"
    if "Traceback" in said:
        return f"a traceback: {said[-200:]}"
    if status == 2 and not re.search(r"^(companion|python -m companion.*|usage): ?", said, re.M):
        return f"a refusal without words: {said[-200:]}"
    return (
        _lost(root, before) or ("refused" if status else "answered")
        if not files
        else "refused"
        if status
        else "answered"
    )


def _lost(root: Path, before: Mapping[str, bytes]) -> str:
    """What a command took from a book on good ground."""
    try:
        if not {chapter.path.stem for chapter in find_chapters(root)} >= set(minibook.CHAPTERS):
            return "a chapter is lost from the table of contents"
        return "a good copy is lost" if minibook.lost(root, before) else ""
    except ProjectError as error:
        return f"the book cannot be read any more: {error}"


def _write(root: Path, files: Mapping[str, str | None]) -> None:
    (root / "other.json").write_bytes((root / "ledger.json").read_bytes())
    for name, content in files.items():
        if content is None:
            (root / name).unlink()
        else:
            (root / name).write_bytes(content.encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    """As the working directory, where a command may leave a report."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


@contextlib.contextmanager
def _instead() -> Iterator[None]:
    """Executions that are over at once, pages that are not rendered, and little patience with schedulers."""

    def execute(engine: Any, chapter: Chapter, parameters: object, output: Path) -> Execution:
        # The outputs are those of the good copy, whatever the parameters are.
        copy = executed_path(chapter)
        nbformat.write(nbformat.read(copy, as_version=4) if copy.is_file() else chapter.notebook, output)
        return Execution(None, 0.0, "2026-01-02T03:04:05+00:00", {}, "none")

    rendered: Callable[..., Any] = lambda root, page, run=None: (root / "page.html", "")  # noqa: E731
    with (
        patch("companion.execution.LocalKernels.execute", execute),
        patch("companion.commands.render", lambda root: True),
        patch("companion.commands.render_page", rendered),
        patch("companion.printing.run_jupyter_book", lambda *arguments: None),
        patch("companion.printing._typeset", lambda root, folder: folder / "none.pdf"),
        patch("companion.cluster.CONNECT_SECONDS", 0.2),
    ):
        yield
