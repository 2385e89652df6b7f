"""Values for the parameters of a chapter: as its reader gives them, and as its cell of defaults wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from companion.chapters import Chapter, ProjectError


def parse_parameters(chapter: Chapter, given: Mapping[str, str]) -> dict[str, Any]:
    """Values for a chapter's parameters from texts in YAML; those equal to the default are left out.

    Raises:
        ProjectError: as :func:`check_parameters`, and when a text does not parse.
    """
    values = {}
    for name, text in given.items():
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {text!r}: {error}") from error
    return changed_parameters(chapter, check_parameters(chapter, values))


def check_parameters(chapter: Chapter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a chapter's parameters, each as the type of its default.

    Raises:
        ProjectError: naming the parameter that the chapter does not have, or whose value has another type than
            the default.
    """
    for name in given:
        if name not in chapter.parameters:
            known = ", ".join(chapter.parameters) or "none"
            raise ProjectError(f"{chapter.name} has no parameter {name!r}; its parameters are: {known}")
    return {name: _like_default(chapter, name, value) for name, value in given.items()}


def changed_parameters(chapter: Chapter, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the chapter's defaults."""
    return {name: value for name, value in values.items() if value != chapter.parameters[name]}


def _like_default(chapter: Chapter, name: str, value: Any) -> Any:
    """One value; a float may be written 1 or 1e-3, which YAML 1.1 reads as an integer and a text."""
    default, given = chapter.parameters[name], value
    if isinstance(default, float) and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            value = float(value)
        except ValueError as error:
            raise ProjectError(f"{chapter.name}: parameter {name}: cannot read {given!r}: {error}") from error
    value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
    if default is not None and type(value) is not type(default):
        kinds = f"a value of type {type(default).__name__} like its default {default!r}"
        raise ProjectError(f"{chapter.name}: parameter {name} takes {kinds}, not {given!r}")
    return value
