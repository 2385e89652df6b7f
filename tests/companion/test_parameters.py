"""Values for parameters: each as the kind of its default, or refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from companion.chapters import Chapter, ProjectError
from companion.parameters import parse_parameters

CELL = """
k = 2  # (≥ 1)
rate = 1e-3
flag = True
widths = [3, 5]  # of layers (≥ 1, < 100)
steps = [0.5]
mixed = [1, "a"]
options = {"depth": 2, "rate": 0.5}
limit = None
sizes = (1, 2)
zero = 0.0
"""


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Chapter:
    root = tiny.project(tmp_path_factory.mktemp("parameters"), {"one": {"code": []}})
    path = root / "book/one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = CELL
    nbformat.write(notebook, path)
    return Chapter(root, Path("book/one.ipynb"))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "1", 1.0),
        ("rate", ".inf", float("inf")),
        ("widths", "[]", []),
        ("widths", "[7]", [7]),
        ("steps", "[1, 1e-3]", [1.0, 1e-3]),
        ("mixed", "[b, 2, 0.5]", ["b", 2, 0.5]),
        ("options", "{depth: 3, rate: 1}", {"depth": 3, "rate": 1.0}),
        ("limit", "[1, a]", [1, "a"]),
        ("zero", "-0.0", -0.0),
    ],
)
def test_a_value_becomes_the_kind_of_its_default(chapter: Chapter, name: str, text: str, value: object) -> None:
    assert repr(parse_parameters(chapter, {name: text})) == repr({name: value})


@pytest.mark.parametrize(
    ("name", "text"), [("k", "2"), ("rate", "0.001"), ("flag", "true"), ("widths", "[3, 5]"), ("limit", "null")]
)
def test_the_default_is_no_change(chapter: Chapter, name: str, text: str) -> None:
    assert parse_parameters(chapter, {name: text}) == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("k", "true", "parameter k takes a value of type int like its default 2, not True"),
        ("k", "2.0", "not 2.0"),
        ("k", "-1", "parameter k must be ≥ 1, not -1"),
        ("widths", "[3, 0]", r"parameter widths must be ≥ 1, < 100, not \[3, 0\]"),
        ("k", ".nan", "not nan"),
        ("k", "'3'", "not '3'"),
        ("rate", "true", "parameter rate takes a value of type float"),
        ("rate", "'1e-3'", "not '1e-3'"),
        ("rate", "inf", r"not 'inf'; write \.inf, -\.inf or \.nan"),
        ("rate", str(10**400), "takes a float, and none is equal to 1000"),
        ("flag", "1", "parameter flag takes a value of type bool"),
        ("widths", "3", "parameter widths takes a value of type list"),
        ("widths", "[3, true]", "parameter widths: each item takes a value of type int like its default 3, not True"),
        ("widths", "[3.0]", "each item takes a value of type int"),
        ("options", "{depth: 0.5}", "parameter options: depth takes a value of type int"),
        ("options", "{depth: 1, depth: 2}", "'depth' is given twice"),
        ("sizes", "[1, 2]", r"parameter sizes cannot be set: its default \(1, 2\) is a tuple; make it a list"),
    ],
)
def test_a_value_of_another_kind_is_refused(chapter: Chapter, name: str, text: str, message: str) -> None:
    with pytest.raises(ProjectError, match=f"^one: .*{message}"):
        parse_parameters(chapter, {name: text})
