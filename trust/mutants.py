"""Small faults in every module of the source, one at a time: each is noticed by a test, or explained as equivalent."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from trust.pieces import ROOT, Found, Piece, Scope, load

NAME = "mutants"
MINUTES = 60
PARALLEL = False
TESTED = ("src/embedding_principle", "src/companion", "tests", "trust/mutants.py")
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
        return {"mutants": {ONE: "caught"}, "files": {}, "minutes": 0, "problems": [said[-500:]] * (status != 0)}
    lines = {line["name"]: line for line in _lines()}
    unexplained = [f"{name}: {line['outcome']}" for name, line in lines.items() if line["outcome"].lower() not in GOOD]
    if not lines or (status and not unexplained):
        unexplained.append(f"status {status}: {said[-300:]}")
    outcomes = {name: line["outcome"].lower() for name, line in lines.items()}
    return {
        "mutants": outcomes,
        "files": dict(Counter(line["file"] for line in lines.values())),
        "minutes": round(sum(line["seconds"] for line in lines.values()) / 60),
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


def _lines() -> Iterator[Mapping[str, Any]]:
    """The outcomes of the mutants that are listed now, of their files and tests as they are."""
    harness = load("tests/mutants/__main__.py")
    known = harness.known_outcomes()
    return (known[mutant.digest] for mutant in harness.mutants() if mutant.digest in known)


def summary(outcomes: Mapping[str, Found]) -> Found:
    """How many mutants there are, what became of them, and the modules that have none."""
    (found,) = outcomes.values()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    # A package that only names its parts has nothing to be changed.
    without = sorted(name for name in modules - found["files"].keys() if not name.endswith("__init__.py"))
    counts = Counter(found["mutants"].values())
    return {
        "mutants": len(found["mutants"]),
        **counts,
        "files": len(found["files"]),
        "modules without one": without,
        "minutes of tests, in one run or several": found["minutes"],
    }
