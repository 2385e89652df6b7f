"""Small faults put into the source one at a time: which tests notice them.

``python tests/mutants [NAME …]`` applies each mutant of ``mutants.toml`` to a copy of the project and runs the tests
that are to notice it. A mutant that no test notices, and that its entry does not explain as equivalent, is an error of
the tests. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.toml")
COPIED = ("src", "tests", "pyproject.toml", "constraints.txt", "environment.yml", "benchmarks")
LINKED = (
    "book",
    "data",
    "_toc.yml",
    "_config.yml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
    ".github",
)
SECONDS = 600  # a mutant that makes its tests hang is noticed too


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


def mutants() -> list[Mutant]:
    """The entries of ``mutants.toml``.

    Raises:
        ValueError: naming an entry whose passage does not stand in its file exactly once, or whose tests are missing.
    """
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
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


def noticed(mutant: Mutant, python: str = sys.executable) -> bool:
    """Whether the tests of a mutant fail once it is applied."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        copy = Path(directory)
        _copy_project(copy)
        path = copy / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
        command = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *mutant.tests]
        try:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return True
        # 1: a test failed; 2: one could not be imported. Anything else is no verdict on the mutant.
        if done.returncode not in (0, 1, 2):
            raise RuntimeError(f"{mutant.name}: pytest ended with {done.returncode}:\n{done.stdout.decode()}")
        return done.returncode != 0


def _copy_project(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    for name in LINKED:
        (target / name).symlink_to(ROOT / name)


def _verdicts(chosen: Sequence[Mutant], workers: int) -> Iterator[tuple[Mutant, bool]]:
    with ThreadPoolExecutor(workers) as pool:
        yield from zip(chosen, pool.map(noticed, chosen))


def main(arguments: list[str] | None = None) -> int:
    """Try mutants and say what became of each; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of the name of a mutant, or of its file")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="mutants at a time")
    options = parser.parse_args(arguments)
    every = mutants()
    chosen = [m for m in every if not options.names or any(name in f"{m.name} {m.file}" for name in options.names)]
    unexplained = 0
    for mutant, caught in _verdicts(chosen, options.workers):
        lives = not caught and not mutant.equivalent
        wrong = caught and bool(mutant.equivalent)
        unexplained += lives or wrong
        word = "LIVES" if lives else "NOT EQUIVALENT" if wrong else "caught" if caught else "equivalent"
        print(f"{word:<14} {mutant.name}", flush=True)
    print(f"{len(chosen)} mutants, {unexplained} unexplained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
