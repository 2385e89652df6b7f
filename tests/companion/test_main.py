"""The command line on odd terminals and disks: what is said, and with which exit code."""

from __future__ import annotations

import copy
import errno
import io
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from companion.chapters import Chapter
from companion.commands import main
from companion.execution import executed_path, sealed
from companion.notebooks import Execution

STATEMENT = "Größer als $x$: ≤."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A chapter with an umlaut in its name, and one that is measured (by hand: nothing is executed)."""
    chapters = {"zwei Wörter": {"code": []}, "one": {"code": [""], "boxes": [tiny.box("D1-one", statement=STATEMENT)]}}
    made: Path = tiny.project(tmp_path_factory.mktemp("main"), chapters)
    chapter = Chapter(made, Path("book/one.ipynb"))
    notebook = copy.deepcopy(chapter.notebook)
    record = {"id": "D1-one", "value": 1e-15, "control": 1e-3}
    data = {"text/plain": "", "application/vnd.companion.measured+json": record}
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", data=data)]
    execution = Execution(None, 1.0, "2026-01-02T03:04:05+00:00", {"python": platform.python_version()}, "a machine")
    executed = executed_path(chapter)
    executed.parent.mkdir(parents=True)
    executed.write_bytes(sealed(notebook, chapter, {}, execution))
    return made


def run(root: Path, *arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "companion", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_a_terminal_without_the_letters_shows_their_codes(root: Path, encoding: str) -> None:
    done = run(root, "claims", encoding=encoding)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    said = (done.stdout + done.stderr).decode(encoding)
    assert ("≤ 1e-12" if encoding == "utf-8" else "<= 1e-12") in said
    assert "ö".encode(encoding, "backslashreplace").decode(encoding) in said
    done = run(root, "run", "drei Wörter", encoding=encoding)
    assert done.returncode == 2
    assert b"zwei W" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_json_is_json_on_every_terminal(root: Path, encoding: str) -> None:
    (entry,) = json.loads(run(root, "claims", "--json", encoding=encoding).stdout)
    assert entry["statement"] == STATEMENT


@pytest.mark.parametrize("arguments", [["claims"], ["claims", "--json"], ["status"]])
def test_a_reader_who_has_enough_is_no_error(root: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "companion", *arguments]
    done = subprocess.run(command, cwd=root, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert b"rror" not in done.stderr.replace(b"companion: not up to date", b"")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_said_in_words(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code), "_build/table.csv")

    monkeypatch.chdir(root)
    monkeypatch.setattr("companion.commands._run", lambda *arguments: [])
    monkeypatch.setattr("companion.commands.table_of", lambda *arguments: None)
    monkeypatch.setattr("companion.commands.write_table", refuse)
    (root / "s.yml").write_text("one: {k: [2]}", encoding="utf-8")
    assert main(["sweep", "s.yml"]) == 1
    assert capsys.readouterr().err == f"companion: _build/table.csv: {os.strerror(code)}\n"


def test_another_stream_in_place_of_the_terminal_is_left_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["status"]) == 0
    assert "zwei Wörter" in sys.stdout.getvalue()


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted; nothing was begun"),
        ("import no_such_package", 1, "the package no_such_package is missing; `make book` installs what"),
    ],
)
def test_what_happens_while_packages_are_loaded_is_said_in_words(
    tmp_path: Path, fault: str, status: int, said: str
) -> None:
    (tmp_path / "yaml.py").write_text(fault, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "companion", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
