"""What a chapter's code leaves in its notebook, and what a reader who runs it by hand sees."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest

from companion import measuring
from companion.claims import Measurement
from companion.measuring import MEASURED_MIME, glue, measured, measurements_of

Shown = list[tuple[dict[str, Any], dict[str, Any]]]  # what was displayed: pairs of data and metadata


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    bundles: Shown = []
    monkeypatch.setattr(measuring, "display", lambda data, raw, metadata=None: bundles.append((data, metadata or {})))
    return bundles


@pytest.fixture
def root(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    chapter = {"code": [], "boxes": [tiny.box("D1-one-more", bound="<= 2"), tiny.box("D1-one")]}
    root: Path = tiny.project(tmp_path, {"part/one": chapter, "part/two": {"code": []}})
    return root


def test_what_is_measured_is_what_is_read(shown: Shown, tmp_path: Path) -> None:
    measured("D1-one", math.nan, control=np.float64(1e-3))
    measured("D1-two", np.int64(3), control=math.inf)
    outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata) for data, metadata in shown]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)]), tmp_path / "a.ipynb")
    found = measurements_of(nbformat.read(tmp_path / "a.ipynb", as_version=4))
    assert found == [Measurement("D1-one", None, 1e-3), Measurement("D1-two", 3, None)]
    glued = {metadata["scrapbook"]["name"]: list(data.values()) for data, metadata in shown if metadata}
    assert glued == {"D1-one": ["nan"], "D1-one-control": ["0.001"], "D1-two": ["3"], "D1-two-control": ["inf"]}


def test_both_numbers_are_asked_for(shown: Shown) -> None:
    with pytest.raises(TypeError, match="control"):
        measured("D1-one", 1.0)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="claim D1-one: control must be a number"):
        measured("D1-one", 1.0, control="broken")
    assert not shown


def text_of(shown: Shown) -> str:
    text: str = next(data["text/plain"] for data, _ in shown if MEASURED_MIME in data)
    return text


@pytest.mark.parametrize(("value", "verdict"), [(1e-15, "reproduced"), (math.nan, "failed")])
def test_a_notebook_in_the_project_shows_bound_and_verdict(
    root: Path,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    verdict: str,
) -> None:
    monkeypatch.chdir(root / "book/part")
    measured("D1-one", value, control=1e-3)
    first, second = text_of(shown).splitlines()
    assert first == f"Doubling is adding (D1-one): {verdict}"
    assert second.endswith("bound ≤ 1e-12, control 0.001 (flips)")


def test_an_older_state_that_jupyterlab_keeps_is_not_what_is_declared(
    root: Path,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
    tiny: SimpleNamespace,
) -> None:
    kept = root / "book/part/.ipynb_checkpoints/one-checkpoint.ipynb"
    tiny.notebook(kept, [], boxes=[tiny.box("D1-one", bound="<= 1e-300")])
    monkeypatch.chdir(root)
    measured("D1-one", 1e-15, control=1e-3)
    assert "reproduced" in text_of(shown)


@pytest.mark.parametrize("where", ["elsewhere", "book/part"])
def test_without_a_declaration_the_numbers_are_shown(
    root: Path,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere") if where == "elsewhere" else root / where)
    measured("D1-unknown", 1e-15, control=1e-3)
    said = "D1-unknown: measured 1e-15, control 0.001; bound and verdict stand on the chapter's page of the book"
    assert text_of(shown) == said


def test_a_declaration_that_cannot_be_used_is_named_and_stops_nobody(
    root: Path,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
    tiny: SimpleNamespace,
) -> None:
    tiny.notebook(root / "book/part/two.ipynb", [], boxes=[tiny.box("D1-two", bound="<= small")])
    monkeypatch.chdir(root)
    measured("D1-two", 1e-15, control=1e-3)
    assert text_of(shown) == (
        "D1-two: its declaration cannot be used: claim D1-two: :bound: must end in a number, not 'small'"
    )


def test_measuring_needs_ipython_alone(tmp_path: Path) -> None:
    code = "import sys, companion.measuring\nprint({'torch', 'numpy', 'nbformat', 'markdown_it'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("name", "value"), [("a:b", 1), ("", 1), ("a", [1]), ("a", None)])
def test_glue_refuses_what_no_page_could_show(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="glue"):
        glue(name, value)
