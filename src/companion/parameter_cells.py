"""Reading the cell of a chapter that is tagged ``parameters``: names, defaults, and what the comments say of them.

.. code-block:: python

    seeds = 1000  # how many lifted points (≥ 1)
    colour = "#0072B2"

A comment may end in the range of the parameter (:mod:`companion.ranges`).
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from companion.ranges import Range, split_range

RULE = "the cell tagged parameters holds lines NAME = LITERAL alone"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a chapter.

    Args:
        name: its name.
        default: its value in the book.
        code: the default as the cell has it, in one line.
        help: the comment at the end of its line, without the range.
        range: the values that it may have; ``None`` for all of the default's kind.
    """

    name: str
    default: Any
    code: str
    help: str
    range: Range | None


def parameters_in(source: str) -> dict[str, Parameter]:
    r"""The parameters by name, in the order of the cell.

    Raises:
        ValueError: naming the line that is no assignment of a literal to names, or a name that is given twice. What is
            computed from a parameter does not follow when another value is put in behind this cell. Or a range that
            is none, or that does not hold the default.

    Example:
        >>> cell = parameters_in('seeds = 1000  # how many (≥ 1)\ncolour = "#0072B2"')
        >>> cell["seeds"].help, str(cell["seeds"].range), cell["colour"].default
        ('how many', '≥ 1', '#0072B2')
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ValueError(f"line {line} is no Python ({getattr(error, 'msg', error)}); {RULE}") from error
    comments = _comments(source)
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        for name, value in _assigned(statement):
            if name in parameters:
                raise ValueError(f"line {statement.lineno}: {name} is given twice; {RULE}")
            comment = comments.get(statement.end_lineno or 0, "")
            parameters[name] = _parameter(name, value, _code(source, value), comment)
    return parameters


def parameters_source(notebook: Mapping[str, Any]) -> str:
    """The source of the cell tagged ``parameters``; empty without one.

    Raises:
        ValueError: when there are several, it holds no code, or a cell with values of an earlier run was left.
    """
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) > 1 or any(cell["cell_type"] != "code" for cell in tagged):
        raise ValueError(f"{len(tagged)} cells are tagged parameters; tag one code cell")
    if any("injected-parameters" in cell["metadata"].get("tags", []) for cell in notebook["cells"]):
        raise ValueError("a cell is tagged injected-parameters and would replace the book's values; delete it")
    return tagged[0]["source"] if tagged else ""


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match statement:
        case ast.Assign(targets=targets, value=value):
            pass
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            targets = [target]
        case _:
            targets, value = [], ast.Constant(None)
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    if not targets or len(names) < len(targets):
        raise ValueError(f"line {statement.lineno}: {RULE}; move {ast.unparse(statement)[:40]!r} to another cell")
    yield from ((name, value) for name in names)


def _parameter(name: str, value: ast.expr, code: str, comment: str) -> Parameter:
    default = _literal(name, value)
    try:
        help_text, allowed = split_range(comment)
    except ValueError as error:
        raise ValueError(f"line {value.lineno}: the comment of {name}: {error}") from error
    if allowed and not allowed.holds(default):
        raise ValueError(f"line {value.lineno}: the default of {name} is out of its range ({allowed}); correct one")
    return Parameter(name, default, code, help_text, allowed)


def _literal(name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"line {value.lineno}: the default of {name} is no literal; {RULE}") from error


def _code(source: str, value: ast.expr) -> str:
    code = ast.get_source_segment(source, value) or ""
    return code if "\n" not in code else ast.unparse(value)


def _comments(source: str) -> dict[int, str]:
    """Line → what its comment says."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("#").strip() for token in tokens if token.type == tokenize.COMMENT}
