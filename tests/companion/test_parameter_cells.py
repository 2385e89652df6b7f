"""The cell of parameters: what it may hold, and what a comment says of which line."""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
import pytest

from companion.parameter_cells import parameters_in, parameters_source


def test_defaults_are_read_as_python_reads_them_and_comments_as_those_of_their_line() -> None:
    cell = parameters_in(
        "# a heading\n"
        'colour = "#0072B2"  # with a # in it\n'
        'text = "a=b"\n'
        "kind: Literal['a', 'b'] = 'a'  # annotated = yes\n"
        "a = 1; b = 2  # both\n"
        "widths = [\n    3,  # not this\n    5,\n]  # of the layers\n"
        'long = """one\n# two = 2"""\n'
        "same = other = -1.5e3\n"
    )
    assert {name: parameter.default for name, parameter in cell.items()} == {
        "colour": "#0072B2", "text": "a=b", "kind": "a", "a": 1, "b": 2, "widths": [3, 5],
        "long": "one\n# two = 2", "same": -1500.0, "other": -1500.0,
    }  # fmt: skip
    helped = {name: parameter.help for name, parameter in cell.items() if parameter.help}
    said = {"colour": "with a # in it", "kind": "annotated = yes", "a": "both", "b": "both", "widths": "of the layers"}
    assert helped == said
    assert (cell["same"].code, cell["widths"].code, cell["colour"].code) == ("-1.5e3", "[3, 5]", '"#0072B2"')
    assert "\n" not in cell["long"].code


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("k = 2\nhalf = k // 2", "line 2: the default of half is no literal"),
        ("k = len('abc')", "line 1: the default of k is no literal"),
        ("k = float('nan')", "no literal"),
        ("k = f'{1}'", "no literal"),
        ("k = {[]: 1}", "no literal"),
        ("a, b = 1, 2", r"line 1: .* move 'a, b = \(1, 2\)' to another cell"),
        ("k = 1\nk += 1", "line 2: .* move 'k \\+= 1'"),
        ("k: int", "move 'k: int'"),
        ("x.k = 1", "move 'x.k = 1'"),
        ("import math", "move 'import math'"),
        ("k = 1\nk = 2", "line 2: k is given twice"),
        ("k = k = 1", "line 1: k is given twice"),
        ("%time k = 1", "line 1 is no Python"),
        ("k = 1\nl = [", "line 2 is no Python"),
        ("k = " + "(" * 300, "line 1 is no Python"),
        ("k = 1\0", "is no Python"),
    ],
)
def test_what_is_no_literal_for_a_name_is_refused_by_line(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parameters_in(source)
    assert "the cell tagged parameters holds lines NAME = LITERAL alone" in str(refusal.value)


def test_a_cell_without_a_statement_has_no_parameters() -> None:
    assert parameters_in("") == parameters_in("# nothing = 1") == {}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([("code", "parameters"), ("code", "parameters")], "2 cells are tagged parameters; tag one code cell"),
        ([("markdown", "parameters")], "1 cells are tagged parameters; tag one code cell"),
        ([("code", "parameters"), ("code", "injected-parameters")], "tagged injected-parameters .* delete it"),
    ],
)
def test_one_code_cell_is_the_cell_of_parameters(cells: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters_source(nbformat.v4.new_notebook(cells=list(tagged(cells))))


def tagged(cells: list[tuple[str, str]]) -> Iterator[nbformat.NotebookNode]:
    for kind, tag in cells:
        new = getattr(nbformat.v4, f"new_{kind}_cell")
        yield new("k = 1", metadata={"tags": [tag]})


@pytest.mark.parametrize(
    ("line", "inside", "outside"),
    [
        ("k = 3  # (≥ 1)", [1, 10**30, [1, 2]], [0, -1, True, "2", [1, 0], None]),
        ("k = 0.5  # share (> 0, < 1)", [1e-300, 0.999], [0.0, 1.0, float("nan"), float("inf")]),
        ("k = 20  # (≤ 50, multiple of 10)", [10, 50, 0], [5, 60]),
        ("k = 14  # (one of 7, 14)", [7], [8, 7.0, "7"]),
        ("k = 'tanh'  # σ (smooth) (one of relu, tanh)", ["relu"], ["sine", "tanh "]),
        ("k = [3, 5]  # widths (≥ 1)", [[1], []], [[0], [1, -1]]),
    ],
)
def test_a_range_says_which_values_there_are(line: str, inside: list[object], outside: list[object]) -> None:
    allowed = parameters_in(line)["k"].range
    assert allowed is not None
    assert [value for value in inside if not allowed.holds(value)] == []
    assert [value for value in outside if allowed.holds(value)] == []


def test_what_is_in_parentheses_and_no_range_is_help() -> None:
    cell = parameters_in("a = 1  # squared (see below)\nb = 2  # (≥ 1) at least\nc = 3  # how (often) (≥ 2)")
    assert [(one.help, str(one.range)) for one in cell.values()] == [
        ("squared (see below)", "None"),
        ("(≥ 1) at least", "None"),
        ("how (often)", "≥ 2"),
    ]


@pytest.mark.parametrize(
    "text", ["=> 1", ">= 1", "≥ one", "≥ 1 and < 2", "multiple of 0", "one of", "≥", "> 1,", "<> 1"]
)
def test_what_begins_like_a_range_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: the comment of k: \(.*\) is no range; a range is as \(≥ 1\)"):
        parameters_in(f"j = 1\nk = 1  # how many ({text})")


@pytest.mark.parametrize("line", ["k = 0  # (≥ 1)", "k = 'a'  # (> 0)", "k = None  # (> 0)", "k = 3  # (one of 1, 2)"])
def test_a_default_out_of_its_range_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: the default of k is out of its range \(.*\); correct one"):
        parameters_in(line)
