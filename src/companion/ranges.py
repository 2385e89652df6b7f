"""Ranges of parameters, as the comment of a parameter ends in one: ``seeds = 1000  # how many lifted points (≥ 1)``.

A range is a list of conditions, of which each has to hold: ``≥ 1``, ``> 0``, ``≤ 10``, ``< 1``, ``multiple of 10``;
or, alone, ``one of 7, 14, 28``. (Not as >=: papermill's command line reads no line with two equality signs.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from companion.plain_yaml import read_number, read_yaml, write_yaml

FORMS = "a range is as (≥ 1), (> 0, < 1), (≥ 10, multiple of 10) or (one of 7, 14, 28)"
_AT_THE_END = re.compile(r"\s*\(([^()]*)\)$")
# Also what only looks like the beginning of a range: a slip of the pen must not pass for a help text.
_BEGINS = re.compile(r"\s*([<>=≤≥]|multiple of\b|one of\b)")
_CONDITION = re.compile(r"(≥|≤|>|<|multiple of)\s*(\S+)")
_JUDGES: dict[str, Callable[[float, float], bool]] = {
    "≥": lambda value, limit: value >= limit,
    "≤": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
    "multiple of": lambda value, limit: value % limit == 0,
}


@dataclass(frozen=True)
class Range:
    """The values that a parameter may have; of a list, each item.

    Args:
        conditions: relation and number, each of which has to hold.
        choices: the values themselves; empty for all that meet the conditions.

    Example:
        >>> at_least_one = Range((("multiple of", 10), ("≥", 10)))
        >>> at_least_one.holds(20), at_least_one.holds([20, 5]), str(at_least_one)
        (True, False, 'multiple of 10, ≥ 10')
    """

    conditions: tuple[tuple[str, int | float], ...] = ()
    choices: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the range; what is no number meets no condition."""
        if isinstance(value, list):
            return all(map(self.holds, value))
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        return type(value) in (int, float) and all(_JUDGES[name](value, limit) for name, limit in self.conditions)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(write_yaml, self.choices))}"
        return ", ".join(f"{name} {limit}" for name, limit in self.conditions)


def split_range(comment: str) -> tuple[str, Range | None]:
    """A comment without the range that it ends in, and the range.

    Raises:
        ValueError: when what stands in the parentheses begins like a range and is none.

    Example:
        >>> split_range("how many (≥ 1)")
        ('how many', Range(conditions=(('≥', 1),), choices=()))
        >>> split_range("squared (see below)")
        ('squared (see below)', None)
        >>> split_range("how many (=> 1)")
        Traceback (most recent call last):
        ValueError: (=> 1) is no range; a range is as (≥ 1), (> 0, < 1), (≥ 10, multiple of 10) or (one of 7, 14, 28)
    """
    found = _AT_THE_END.search(comment)
    if found is None or not _BEGINS.match(found[1]):
        return comment, None
    return comment[: found.start()], _range(found[1].strip())


def _range(text: str) -> Range:
    try:
        if text.startswith("one of "):
            choices = read_yaml(f"[{text.removeprefix('one of ')}]")
            if all(isinstance(choice, int | float | str) for choice in choices):
                return Range(choices=tuple(choices))
        else:
            return Range(tuple(_condition(part) for part in text.split(",")))
    except ValueError:
        pass
    raise ValueError(f"({text}) is no range; {FORMS}")


def _condition(text: str) -> tuple[str, int | float]:
    found = _CONDITION.fullmatch(text.strip())
    limit = read_number(found[2]) if found else None
    if found is None or limit is None or (found[1] == "multiple of" and limit <= 0):
        raise ValueError(f"{text} is no condition")
    return found[1], limit
