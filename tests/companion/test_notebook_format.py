"""Committed notebooks in every state: each that cannot be used is refused in one sentence, and its neighbours run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from companion.commands import main
from companion.notebook_format import DEFAULT_TIMEOUT, parse_notebook, timeout_of

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def good(tmp_path: Path, tiny: SimpleNamespace) -> dict[str, Any]:
    """The JSON of a notebook that can be used."""
    tiny.notebook(tmp_path / "good.ipynb", ["1\n2"])
    data: dict[str, Any] = json.loads((tmp_path / "good.ipynb").read_bytes())
    return data


def test_what_can_be_used_is_read_as_nbformat_reads_it(good: dict[str, Any]) -> None:
    content = json.dumps(good).encode()
    notebook = parse_notebook(content)
    assert notebook == nbformat.reads(content.decode(), as_version=4)
    assert notebook.cells[2].source == "1\n2"
    assert timeout_of(notebook) == DEFAULT_TIMEOUT
    assert parse_notebook(b"\xef\xbb\xbf" + content) == notebook
    good["metadata"]["companion"]["timeout"] = 7
    assert timeout_of(parse_notebook(json.dumps(good).encode())) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; restore the file"),
        (b" \n", "it is empty"),
        (b"[]", "it is no mapping; restore the file"),
        (b"3", "it is no mapping"),
        (b"{}", "its format is None.None"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"# Prose", "not JSON"),
        ('{"cells": "ä"}'.encode("latin-1"), "not UTF-8 .* save it as UTF-8"),
        (b"\x00\x01\xff\xfe", "not UTF-8"),
        (b'{\n<<<<<<< HEAD\n "a": 1\n=======\n "a": 2\n>>>>>>> other\n}', "marks of a merge; resolve the conflict"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_remedy(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^not a readable notebook: .*{message}"):
        parse_notebook(content)


def put(*path: str | int, value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("nbformat", value=5), "format 5.5 is newer than what can be read; save it as format 4.5"),
        (put("nbformat", value=3), "format 3.5 has no ids of cells, .* bring it to format 4.5: python -c"),
        (put("nbformat_minor", value=4), "format 4.4 has no ids of cells"),
        (put("nbformat", value="4"), "its format is '4'.5"),
        (put("nbformat", value=True), "its format is True.5"),
        (drop("nbformat_minor"), "its format is 4.None"),
        (drop("cells"), "not a readable notebook: 'cells'"),
        (put("cells", value={}), "not a readable notebook"),
        (put("cells", value=3), "not a readable notebook"),
        (put("cells", 0, value="prose"), "not a readable notebook"),
        (drop("cells", 1, "id"), "cell 2 has no id, .* bring it to format 4.5"),
        (put("cells", 1, "id", value=7), "cell 2 has no id"),
        (put("cells", 1, "id", value="prose"), "the id 'prose' stands in 2 cells; give each an id of its own"),
        (put("cells", 1, "id", value="a b"), "not a readable notebook: 'a b'"),
        (put("cells", 1, "source", value=3), "not a readable notebook"),
        (drop("cells", 1, "source"), "not a readable notebook"),
        (put("cells", 1, "cell_type", value="poem"), "not a readable notebook"),
        (put("cells", 1, "metadata", value=[]), "not a readable notebook"),
        (put("cells", 1, "metadata", "tags", value="parameters"), "not a readable notebook"),
        (put("metadata", value=[]), "not a readable notebook"),
        (drop("metadata", "kernelspec"), "the metadata have no kernelspec; open and save it in JupyterLab"),
        (put("metadata", "kernelspec", "language", value="R"), "kernelspec.language is 'R', but chapters are"),
        (put("metadata", "kernelspec", value={"name": "ir", "display_name": "R"}), "kernelspec.language is None"),
        (put("metadata", "kernelspec", value="python3"), "not a readable notebook|no kernelspec"),
        (put("metadata", "companion", value=[1]), "metadata companion must be a mapping"),
        *[
            (put("metadata", "companion", "timeout", value=value), "companion.timeout must be a positive number of")
            for value in ("long", "600", 0, -1, 1.5, float("nan"), True, None, [])
        ],
    ],
)  # fmt: skip
def test_a_notebook_of_another_form_is_refused_in_one_sentence(
    good: dict[str, Any], change: Change, message: str
) -> None:
    parse_notebook(json.dumps(good).encode())
    change(good)
    with pytest.raises(ValueError, match=message) as refusal:
        parse_notebook(json.dumps(good).encode())
    assert "\n" not in str(refusal.value)


def test_the_remedy_for_an_old_notebook_works(good: dict[str, Any], tmp_path: Path) -> None:
    for cell in good["cells"]:
        del cell["id"]
    good["nbformat_minor"] = 4
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(good), encoding="utf-8")
    with pytest.raises(ValueError, match="bring it to format") as refusal:
        parse_notebook(path.read_bytes())
    command = str(refusal.value).partition('python -c "')[2].partition('" NOTEBOOK')[0]
    subprocess.run([sys.executable, "-c", command, str(path)], check=True)
    assert [cell.source for cell in parse_notebook(path.read_bytes()).cells][2] == "1\n2"


@pytest.mark.parametrize("state", ["missing", "directory", "latin-1", "format 3", "link"])
def test_a_bad_notebook_is_named_and_leaves_its_neighbours_alone(
    tmp_path: Path,
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
) -> None:
    root = tiny.project(tmp_path, {"good": {"code": []}, "bad": {"code": []}})
    bad = root / "book/bad.ipynb"
    if state in ("missing", "directory", "link"):
        bad.unlink()
    if state == "directory":
        bad.mkdir()
    if state == "link":
        bad.symlink_to("nowhere")
    if state == "latin-1":
        bad.write_bytes(b'{"cells": "\xe4"}')
    if state == "format 3":
        bad.write_text('{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}', encoding="utf-8")
    monkeypatch.chdir(root)
    for command in (["run"], ["build"], ["run", "bad"], ["run", "bad", "-p", "k=3"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "book/bad" in said
        assert said.count("\n") == 1
    if state in ("latin-1", "format 3"):
        monkeypatch.setattr("companion.commands.run_chapters", lambda *arguments, **options: [])
        assert main(["run", "good", "-p", "k=3"]) == 0
        capsys.readouterr()
        assert main(["claims", "--json"]) == 1
        shown = capsys.readouterr()
        assert json.loads(shown.out) == []
        assert "not up to date: good" in shown.err
        assert "book/bad" in shown.err
