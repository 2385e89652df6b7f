"""Tolerances of tests: a relative one is the only one where it is given, so that a small number is still compared."""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def hidden_tolerances(source: str) -> list[int]:
    """The lines of calls of `approx` with a relative tolerance beside which pytest's absolute one of 1e-12 stands."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = ((call, {keyword.arg for keyword in call.keywords}) for call in calls)
    return [call.lineno for call, names in named if ast.unparse(call.func).endswith("approx") and names == {"rel"}]


def test_no_absolute_tolerance_stands_beside_a_relative_one_unseen() -> None:
    assert hidden_tolerances(
        "x == pytest.approx(1e-18, rel=1e-5)\ny == approx(2.0)\nz == approx(3, rel=0.1, abs=0)"
    ) == [1]
    found = {path.name: hidden_tolerances(path.read_text(encoding="utf-8")) for path in FOLDER.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}
