"""A checkout in which nothing was executed: what bare `pytest` says, once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, without what `make book` makes."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*cache", "mathjax")
    for name in ("tests", "book", "src", "data"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "_toc.yml", "_config.yml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    return root


def bare(root: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, encoding="utf-8")
    return done.returncode, done.stdout


def test_one_failure_says_what_to_run(checkout: Path) -> None:
    code, said = bare(checkout, "tests/site/test_pages.py", "tests/site/test_notation.py", "--numprocesses", "1")
    assert code == 1
    assert re.search(r"^1 failed, 5 passed", said.splitlines()[-1].strip("= "))
    assert said.count("`python -m companion build`") <= 2, "the failure, and its line in the summary"
    assert re.search(r"\d\d+ tests of the book were not run \(chapters without an executed copy: depth/lifting, ", said)
    assert "_build/html holds no rendered book). Run `make test`" in said


def test_chapters_alone_are_missed_too(checkout: Path) -> None:
    code, said = bare(checkout, "--numprocesses", "0", "tests/chapters", "-k", "control or longer")
    assert code == 1
    assert re.search(r"1 failed, \d+ passed, \d+ deselected", said)
    assert re.search(r"^\d+ tests of the book were not run", said, re.MULTILINE)


def test_what_needs_no_book_does_not_miss_it(checkout: Path) -> None:
    needless = "name_of_the_notation or longer"
    code, said = bare(checkout, "--numprocesses", "0", "tests/site", "tests/chapters", "-k", needless)
    assert code == 0
    assert "tests of the book" not in said
