"""Small faults put into the source one at a time: which tests notice them.

``python tests/mutants [NAME …]`` applies each mutant of the lists beside this file to a copy of the project and runs
the tests that are to notice it. A mutant that no test notices, and that its entry does not explain as equivalent, is an
error of the tests. Exit status 1 if there is one. Outcomes are kept in ``_build/mutants.jsonl``, one JSON object a
line; with ``--resume`` those are kept whose entry, file and tests have not changed since.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent
SERVER = Path(__file__).with_name("server.py")
OUTCOMES = ROOT / "_build" / "mutants.jsonl"
COPIED = ("src", "tests", "pyproject.toml", "constraints.txt", "environment.yml", "benchmarks")
LINKED = (
    "book",
    "data",
    "_toc.yml",
    "_config.yml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "Makefile",
    ".github",
)
SECONDS = 120  # a mutant that makes its tests hang is noticed too


@dataclass(frozen=True)
class Mutant:
    """One small fault.

    Args:
        name: what goes wrong, in words.
        file: relative to the project.
        old: a passage that stands there once.
        new: what takes its place.
        tests: files or tests, relative to the project, that are to notice it.
        equivalent: why no test can; empty for a mutant that one must.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    @property
    def digest(self) -> str:
        """Of the entry, its file and its tests: an outcome holds as long as these are the same."""
        files = (self.file, *(test.partition("::")[0] for test in self.tests))
        contents = [hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in files]
        return hashlib.sha256(json.dumps([asdict(self), contents]).encode()).hexdigest()[:16]


def mutants() -> list[Mutant]:
    """The entries of the lists.

    Raises:
        ValueError: naming an entry whose passage does not stand in its file exactly once, or whose tests are missing.
    """
    lists = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(LISTS.glob("*.toml"))]
    entries = [entry for each in lists for entry in each["mutant"]]
    found = [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    for mutant in found:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            raise ValueError(
                f"{mutant.name}: its passage stands {count} times in {mutant.file}; it must stand there once"
            )
        for test in mutant.tests:
            if not (ROOT / test.partition("::")[0]).is_file():
                raise ValueError(f"{mutant.name}: there is no {test}")
    return found


class Bench:
    """A copy of the project in which one mutant after the other is tried."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self._copy = Path(self._folder.name)
        self._passing: set[tuple[str, ...]] = set()
        _copy_project(self._copy)
        # By content, not by time: a file that was put back is the one that was compiled.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self._copy / "src", quiet=1, invalidation_mode=checked)
        own = {"PYTHONPATH": str(self._copy / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER), str(SECONDS)],
            cwd=self._copy,
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def noticed(self, mutant: Mutant) -> bool:
        """Whether the tests of a mutant pass, and fail once it is applied.

        Raises:
            RuntimeError: if pytest gave no verdict, as where a test is not there.
        """
        path = self._copy / mutant.file
        kept = path.read_text(encoding="utf-8")
        path.write_text(kept.replace(mutant.old, mutant.new), encoding="utf-8")
        try:
            failed = self._fail(mutant.tests)
        finally:
            path.write_text(kept, encoding="utf-8")
        if failed and mutant.tests not in self._passing:
            # What fails anyway, as a test of the book where there is none, notices nothing.
            if self._fail(mutant.tests):
                return False
            self._passing.add(mutant.tests)
        return failed

    def close(self) -> None:
        """End the server and remove the copy."""
        self._server.communicate()
        self._folder.cleanup()

    def _fail(self, tests: tuple[str, ...]) -> bool:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(tests) + "\n")
        self._server.stdin.flush()
        status, said = json.loads(self._server.stdout.readline())
        # 1: a test failed; 2: one could not be imported; −1: time ran out. Anything else is no verdict on the mutant.
        if status not in (0, 1, 2, -1):
            raise RuntimeError(f"{', '.join(tests)}: pytest ended with {status}:\n{said}")
        return bool(status)


def _copy_project(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    for name in LINKED:
        (target / name).symlink_to(ROOT / name)


def known_outcomes() -> dict[str, dict[str, Any]]:
    """The outcomes that were kept, by digest; of a line that was cut short nothing is known."""
    found = {}
    for line in OUTCOMES.read_text(encoding="utf-8").splitlines() if OUTCOMES.is_file() else []:
        try:
            entry = json.loads(line)
            found[entry["digest"]] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return found


def outcomes(chosen: Sequence[Mutant], workers: int, known: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What became of each mutant, in the order of the list: those that are known, and the others tried."""
    benches: SimpleQueue[Bench] = SimpleQueue()
    rest = [mutant for mutant in chosen if mutant.digest not in known]
    made = [Bench() for _ in range(min(workers, len(rest)))]
    for bench in made:
        benches.put(bench)
    try:
        with ThreadPoolExecutor(workers) as pool:
            tried = pool.map(lambda mutant: _tried(mutant, benches), rest)
            for mutant in chosen:
                yield known[mutant.digest] if mutant.digest in known else next(tried)
    finally:
        for bench in made:
            bench.close()


def _tried(mutant: Mutant, benches: SimpleQueue[Bench]) -> dict[str, Any]:
    bench, began = benches.get(), time.monotonic()
    try:
        caught = bench.noticed(mutant)
    finally:
        benches.put(bench)
    outcome = {
        "name": mutant.name,
        "file": mutant.file,
        "outcome": "caught" if caught else "equivalent" if mutant.equivalent else "survived",
        "seconds": round(time.monotonic() - began, 2),
        "digest": mutant.digest,
    }
    OUTCOMES.parent.mkdir(exist_ok=True)
    with OUTCOMES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome, ensure_ascii=False) + "\n")
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """Try mutants and say what became of each; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of the name of a mutant, or of its file")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="mutants at a time")
    parser.add_argument("--resume", action="store_true", help="keep the outcomes of mutants that have not changed")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no copy is left behind
    every = mutants()
    chosen = [m for m in every if not options.names or any(name in f"{m.name} {m.file}" for name in options.names)]
    known = known_outcomes() if options.resume else {}
    unexplained, seconds = 0, 0.0
    for mutant, outcome in zip(chosen, outcomes(chosen, options.workers, known)):
        wrong = outcome["outcome"] == "caught" and bool(mutant.equivalent)
        unexplained += outcome["outcome"] == "survived" or wrong
        seconds += outcome["seconds"]
        print(f"{'not equivalent' if wrong else outcome['outcome']:<14} {mutant.name}", flush=True)
    print(f"{len(chosen)} mutants, {unexplained} unexplained, {seconds:.0f} s")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
