"""Certificates on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from companion.commands import main


def test_verify_passes_the_checkers_answer_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}\n")
    assert main(["verify", str(broken)]) == 1
    assert f"{broken}: refused: altered" in capfd.readouterr().out
    assert main(["verify", str(tmp_path / "missing.json")]) == 1


def test_an_output_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "_toc.yml").write_text("root: a", encoding="utf-8")
    (tmp_path / "broken.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, "-m", "companion", "verify", "broken.json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "companion: a file: No space left on device\n"
