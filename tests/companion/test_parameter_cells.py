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
