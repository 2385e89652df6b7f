"""Certificates on the command line: files, and archives as the pages offer them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from companion.certificates import LIMIT, Certificates, find_checker
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


def archive(path: Path, *texts: str) -> Path:
    path.write_bytes(Certificates.of(texts).archive(path.stem))
    return path


def test_every_member_of_an_archive_is_checked(
    tmp_path: Path, tiny: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    good = archive(tmp_path / "C1-good.zip", tiny.certificate(), tiny.certificate(2.0))
    assert main(["verify", str(good)]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "C1-good.zip/C1-good-001.json: proved: inertia [0, 0, 2]",
        "C1-good.zip/C1-good-002.json: proved: inertia [0, 0, 2]",
    ]
    bad = archive(tmp_path / "C1-bad.zip", tiny.certificate(), tiny.certificate(inertia=[2, 0, 0]))
    (tmp_path / "one.json").write_text(tiny.certificate(), encoding="utf-8")
    assert main(["verify", str(bad), str(tmp_path / "one.json"), str(good)]) == 1
    said = capfd.readouterr().out
    assert "C1-bad.zip/C1-bad-002.json: refused: false: the inertia is [0, 0, 2]" in said
    assert f"{tmp_path}/one.json: proved" in said
    assert said.count("proved") == 4


def test_the_plain_way_needs_no_companion(tmp_path: Path, tiny: SimpleNamespace) -> None:
    with zipfile.ZipFile(archive(tmp_path / "C1-good.zip", tiny.certificate())) as packed:
        packed.extractall(tmp_path)
    command = [sys.executable, "-S", "-I", str(find_checker()), "C1-good-001.json"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout.startswith(b"C1-good-001.json")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "it is empty"),
        ([("../C1.json", "")], "it holds '../C1.json', which is no certificate"),
        ([("a/C1.json", "")], "it holds 'a/C1.json', which is no certificate"),
        ([("check.py", "")], "it holds 'check.py', which is no certificate"),
        ([("a.json", ""), ("a.json", "x")], "it holds 'a.json', which is no certificate"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_of_something_else_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], members: list[tuple[str, str]], reason: str
) -> None:
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in members:
            packed.writestr(name, text)
    assert main(["verify", str(path)]) == 1
    assert capfd.readouterr().out == f"{path}: refused: {reason}\n"


def test_a_damaged_or_missing_archive_is_refused(
    tmp_path: Path, tiny: SimpleNamespace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "C1-cut.zip", tiny.certificate())
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert main(["verify", str(path)]) == 1
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    assert main(["verify", str(path)]) == 1
    assert main(["verify", str(tmp_path / "missing.zip")]) == 1
    monkeypatch.setattr("companion.certificates.LIMIT", 10)
    path.write_bytes(whole)
    assert main(["verify", str(path)]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert all(": refused: " in line for line in lines)
    assert len(lines) == 4
    assert LIMIT > 2**20


def test_without_the_checker_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("companion.certificates.importlib.util.find_spec", lambda name: None)
    assert main(["verify", str(tmp_path / "a.json")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("companion: the checker of certificates cannot be found; it is part of embedding_principle")
