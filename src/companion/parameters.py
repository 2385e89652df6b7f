"""Values for the parameters of a chapter: as its reader gives them, and as its cell of defaults wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from companion.chapters import Chapter, ProjectError
from companion.plain_yaml import read_yaml, write_yaml

# What can be written into a notebook's code from outside; a tuple, for one, would arrive as a text.
_KINDS = (type(None), bool, int, float, str, list, dict)


def parse_parameters(chapter: Chapter, given: Mapping[str, str]) -> dict[str, Any]:
    """Values for a chapter's parameters from texts in YAML; those equal to the default are left out.

    Raises:
        ProjectError: as :func:`check_parameters`, and when a text does not parse.
    """
    values = {}
    for name, text in given.items():
        try:
            values[name] = read_yaml(text, value_only=True)
        except ValueError as error:
            raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {text!a}: {error}") from error
    return changed_parameters(chapter, check_parameters(chapter, values))


def check_parameters(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a chapter's parameters, each as the type of its default.

    Raises:
        ProjectError: naming the parameter that the chapter does not have, or whose value has another type than
            the default or is out of the range that the chapter declares.
    """
    defaults = chapter.parameters
    for name in given:
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ProjectError(f"{chapter.name} has no parameter {name!r}; its parameters are: {known}")
    try:
        values = {name: _like(defaults[name], value, f"parameter {name}") for name, value in given.items()}
    except ValueError as error:
        raise ProjectError(f"{chapter.name}: {error}") from error
    for name, value in values.items():
        allowed = chapter.parameter_cell[name].range
        if allowed and not allowed.holds(value):
            raise ProjectError(f"{chapter.name}: parameter {name} must be {allowed}, not {write_yaml(value)}")
    return values


def changed_parameters(chapter: Chapter, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the chapter's defaults, be it in the sign of a zero only."""
    return {name: value for name, value in values.items() if repr(value) != repr(chapter.parameters[name])}


def can_be_set(default: Any) -> bool:
    """Whether a parameter with this default takes values from outside.

    Example:
        >>> can_be_set([1, 2]), can_be_set((1, 2))
        (True, False)
    """
    return type(default) in _KINDS


def _like(default: Any, value: Any, what: str) -> Any:
    """The value as the kind of its default; an integer serves for a float that is equal to it."""
    if not can_be_set(default):
        kind = type(default).__name__
        raise ValueError(f"{what} cannot be set: its default {default!r} is a {kind}; make it a list in the chapter")
    if isinstance(default, float) and type(value) is int:
        return _exact_float(value, what)
    if default is not None and type(value) is not type(default):
        kind = f"a value of type {type(default).__name__} like its default {default!r}"
        raise ValueError(f"{what} takes {kind}, not {value!r}{_remedy(default, value)}")
    if isinstance(default, list) and len({type(item) for item in default}) == 1:
        return [_like(default[0], item, f"{what}: each item") for item in value]
    if isinstance(default, dict):
        return {key: _like(default.get(key), item, f"{what}: {key}") for key, item in value.items()}
    return value


def _exact_float(value: int, what: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = 0.0
    if number != value:
        raise ValueError(f"{what} takes a float, and none is equal to {value}; write it with a point or an exponent")
    return number


def _remedy(default: Any, value: Any) -> str:
    """How the value is to be written, where only that is wrong."""
    if isinstance(default, str) and not isinstance(value, list | dict):
        return f"; put a text in quotes: '{value}'"
    if isinstance(default, float) and str(value).lower().lstrip("+-") in {"inf", "nan"}:
        return "; write .inf, -.inf or .nan"
    return ""
