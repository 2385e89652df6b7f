"""The claims of a book as tests of another project, which has it in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import companion

SOURCES = Path(companion.__file__).parents[1]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A repository with a test of its own, and a book in a folder."""
    made = tmp_path_factory.mktemp("repository")
    (made / "test_own.py").write_text("def test_own() -> None: ...\n", encoding="utf-8")
    box = tiny.box
    tiny.project(
        made / "vendored",
        {
            "part/good": {
                "code": [tiny.claim("D1-one"), tiny.claim("D1-two")],
                "boxes": [box("D1-one"), box("D1-two")],
            },
            "part/off": {
                "code": [tiny.claim("D2-one"), tiny.claim("D2-two", "0.5")],
                "boxes": [box("D2-one"), box("D2-two"), box("D2-three")],
            },
            "part/ends": {"code": ["raise OSError('no disk')"], "boxes": [box("D3-one"), box("D3-two")]},
            "part/more": {"code": [tiny.claim("D4-one"), tiny.claim("D4-two")], "boxes": [box("D4-one")]},
            "part/bad": {"code": [], "boxes": [box("D5-one", bound="<= 0")]},
        },
    )
    return made


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest as there: nothing of this project is in its configuration, and the plugin is loaded by name."""
    plugin = ["-p", "companion.regression", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *arguments],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_claims_that_hold_are_tests_that_pass_beside_the_project_s_own(repository: Path) -> None:
    chapter = "vendored/book/part/good.ipynb"
    done = run(repository, "--embedding-claims", chapter, "test_own.py", "--junitxml", "report.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case.get("name") for case in ElementTree.parse(repository / "report.xml").iter("testcase")}
    assert cases == {"D1-one", "D1-two", "test_own"}
    assert (repository / "vendored/_build/executed/book/part/good.ipynb").is_file()
    done = run(repository, "--embedding-claims", chapter, "-k", "two")
    assert "1 passed, 1 deselected" in done.stdout


def test_what_does_not_hold_fails_in_words(repository: Path) -> None:
    names = [f"vendored/book/part/{name}.ipynb" for name in ("off", "ends", "more")]
    done = run(repository, "--embedding-claims", *names, "-q")
    assert done.returncode == 1
    assert "5 failed, 1 passed" in done.stdout
    assert "claim D2-two is failed, expected reproduced: measured 0.5, bound ≤ 1e-12" in done.stdout
    assert "claim D2-three is declared but not measured" in done.stdout
    assert done.stdout.count("part/ends did not run to its end: cell [2] raised OSError: no disk") >= 2
    assert "claim D4-two is measured but not declared" in done.stdout
    assert "Traceback" not in done.stdout


def test_declarations_that_cannot_be_used_and_paths_without_claims_have_their_own_status(repository: Path) -> None:
    done = run(repository, "--embedding-claims", "vendored/book/part/bad.ipynb")
    assert done.returncode == 2
    assert "book/part/bad.ipynb: claim D5-one: a control cannot miss <= 0 by a factor" in done.stdout
    assert run(repository, "--embedding-claims", "vendored/book/part/none.ipynb").returncode == 4
    assert run(repository, "--embedding-claims", "vendored/src").returncode == 5


def test_without_the_option_notebooks_are_passed_over(repository: Path) -> None:
    done = run(repository, ".")
    assert done.returncode == 0
    assert "1 passed" in done.stdout
