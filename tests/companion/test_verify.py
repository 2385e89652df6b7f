"""Certificates on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from companion.commands import main


def test_verify_passes_the_checkers_answer_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}\n")
    assert main(["verify", str(broken)]) == 1
    assert f"{broken}: refused: altered" in capfd.readouterr().out
    assert main(["verify", str(tmp_path / "missing.json")]) == 1
