"""Small faults in every module of the source, one at a time: each is noticed by a test, or explained as equivalent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping

from trust.pieces import ROOT, Found, Piece, Scope

NAME = "mutants"
MINUTES = 60
PARALLEL = False
TESTED = ("src/embedding_principle", "src/companion", "tests", "trust/mutants.py")
OUTCOMES = "_build/mutants*.jsonl"  # what `python tests/mutants --resume` writes, a line a mutant
GOOD = ("caught", "equivalent")
ONE = "agreement about the least likely class"


def pieces(scope: Scope) -> Iterator[Piece]:
    """One piece: the tool takes up by itself what was interrupted."""
    yield Piece("one" if scope.sample else "all", lambda: tried(scope))


def tried(scope: Scope) -> Found:
    """What became of every mutant."""
    arguments = [ONE] if scope.sample else ["--resume", "--workers", str(scope.workers)]
    status, said = _ended([sys.executable, "tests/mutants", *arguments])
    if scope.sample:
        return {
            "mutants": {ONE: "caught"},
            "files": {},
            "problems": [said[-500:]] * (status != 0),
        }
    lines = {line["name"]: line for line in _lines()}
    unexplained = [f"{name}: {line['outcome']}" for name, line in lines.items() if line["outcome"].lower() not in GOOD]
    if not lines or (status and not unexplained):
        unexplained.append(f"status {status}: {said[-300:]}")
    outcomes = {name: line["outcome"].lower() for name, line in lines.items()}
    return {
        "mutants": outcomes,
        "files": dict(Counter(line["file"] for line in lines.values())),
        "problems": unexplained,
    }


def _ended(command: list[str]) -> tuple[int, str]:
    """The exit status of a command and what it said; when the campaign is interrupted, it may remove its copies."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    return process.returncode, said


def _lines() -> Iterator[Mapping[str, str]]:
    """The lines of the tool's files; the last of a mutant counts."""
    for file in sorted(ROOT.glob(OUTCOMES), key=lambda path: path.stat().st_mtime):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def summary(outcomes: Mapping[str, Found]) -> Found:
    """How many mutants there are, what became of them, and the modules that have none."""
    (found,) = outcomes.values()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    # A package that only names its parts has nothing to be changed.
    without = sorted(name for name in modules - found["files"].keys() if not name.endswith("__init__.py"))
    counts = Counter(found["mutants"].values())
    return {"mutants": len(found["mutants"]), **counts, "files": len(found["files"]), "modules without one": without}
