"""The book on paper: what it needs is named, tables and figures to touch become text, and macros those of LaTeX."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
import yaml

from companion import printing
from companion.chapters import ProjectError
from companion.printable import make_printable, printed
from companion.printing import PDF, PROGRAMS, render_pdf
from companion.rendering import RenderingError

ROOT = Path(__file__).resolve().parents[2]


def with_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, latexmk: str) -> None:
    """Programs of these names, of which one is a script; and no other is found."""
    folder.mkdir()
    for program in PROGRAMS:
        (folder / program).write_text(f"#!/bin/sh\n{latexmk}\n", encoding="utf-8")
        (folder / program).chmod(0o755)
    monkeypatch.setattr("companion.printing.importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize("missing", PROGRAMS)
def test_a_program_that_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr("companion.printing.shutil.which", lambda name: None if name == missing else f"/bin/{name}")
    with pytest.raises(ProjectError, match=f"needs {missing}, which cannot be found; .*apt install latexmk") as refusal:
        render_pdf(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_fault_of_latex_is_said_and_the_last_good_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_programs(tmp_path / "bin", monkeypatch, "echo '! Undefined control sequence.'; echo l.7; exit 12")
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / PDF).parent.mkdir()
    (tmp_path / PDF).write_bytes(b"good")

    def written(root: Path, folder: Path, *options: str) -> str:
        (folder / "_build/latex").mkdir(parents=True)
        return ""

    monkeypatch.setattr("companion.printing.run_jupyter_book", written)
    with pytest.raises(RenderingError, match=r"! Undefined control sequence\.\nl\.7"):
        render_pdf(tmp_path)
    assert (tmp_path / PDF).read_bytes() == b"good"
    assert [path.name for path in (tmp_path / PDF).parent.iterdir() if path.suffix not in (".lock", ".pdf")] == []


def test_every_macro_of_the_pages_is_one_of_latex() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    macros = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    preamble = printing._printed(config)["sphinx"]["config"]["latex_elements"]["preamble"]
    assert [name for name in macros if rf"\let\{name}\Book{name}" not in preamble] == []


def test_cells_that_span_others_leave_them_empty() -> None:
    header = "<tr><th rowspan=2>a</th><th colspan=2>b</th><th>e</th></tr>"
    table = f"<table>{header}<tr><td>c</td><td>d</td><td>f</td></tr></table>"
    cells = [line.lstrip("* -") for line in printed(table).splitlines()[3:-1]]
    assert cells == ["a", "b", "", "e", "", "c", "d", "f"]


def test_only_what_is_html_alone_becomes_text() -> None:
    outputs = [
        nbformat.v4.new_output("display_data", data={"text/html": "<p>words</p>", "text/plain": "<Styler>"}),
        nbformat.v4.new_output("display_data", data={"image/svg+xml": "<svg/>", "text/html": "<p/>"}),
        nbformat.v4.new_output("stream", text="said"),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    make_printable(notebook)
    first, second, third = notebook.cells[0].outputs
    assert first.data == {"text/markdown": "words"}
    assert "image/svg+xml" in second.data
    assert third.text == "said"


@pytest.mark.parametrize(
    "settings", ["title: A", "sphinx:", "sphinx: {config: }", "sphinx: {config: {extensions: [a]}}"]
)
def test_settings_without_macros_or_extensions_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    with_programs(tmp_path / "bin", monkeypatch, "exit 0")
    (tmp_path / "_config.yml").write_text(settings, encoding="utf-8")
    given = []

    def written(root: Path, folder: Path, *options: str) -> str:
        given.append(yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8")))
        raise RenderingError("not here")

    monkeypatch.setattr(printing, "run_jupyter_book", written)
    with pytest.raises(RenderingError, match="not here"):
        render_pdf(tmp_path)
    assert given[0]["sphinx"]["config"]["extensions"][-1] == printing.CONVERTER


@pytest.mark.parametrize("settings", ["sphinx: [a]", "sphinx: {config: 3}"])
def test_settings_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> None:
    with_programs(tmp_path / "bin", monkeypatch, "exit 0")
    (tmp_path / "_config.yml").write_text(settings, encoding="utf-8")
    with pytest.raises(ProjectError, match=r"_config.yml: sphinx and its config must be mappings"):
        render_pdf(tmp_path)
