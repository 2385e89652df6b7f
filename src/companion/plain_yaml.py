"""YAML without surprises: the core of YAML 1.2, and a refusal of whatever another reader would take for another value.

YAML 1.1, which most programs still read, takes ``010`` for 8, ``1:30`` for 90 and ``no`` for false. A seed that is read
as another one gives a wrong result that looks like a right one, so such texts are refused with the remedy. So are
tags, anchors, keys that are given twice or are no texts, and numbers that a float cannot hold.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

_CONSTANTS = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile("[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OCTAL = re.compile("([-+]?)(0[0-9_]+|0o[0-7]+)")
_NOT_PRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT = "tag:yaml.org,2002:str"
_YAML_1_1 = yaml.resolver.Resolver()


def read_yaml(text: str, *, value_only: bool = False) -> Any:
    """The content of a YAML document: mappings with texts for keys, lists, texts, numbers, booleans and ``None``.

    Args:
        text: the document.
        value_only: refuse an empty document, and a comment behind the value: on a command line neither is meant.

    Raises:
        ValueError: in one sentence, with the line and the key, when it is no YAML or can be read in two ways.

    Example:
        >>> read_yaml("{rate: 1e-3, seeds: [8, 9], name: relu}")
        {'rate': 0.001, 'seeds': [8, 9], 'name': 'relu'}
        >>> read_yaml("seed: 010")
        Traceback (most recent call last):
        ValueError: seed: 010 is another number to other readers; write 10, or '010' for a text
    """
    try:
        node = yaml.compose(text, _Loader)
        if value_only:
            _require_value_only(text, node)
        return None if node is None else _value(node, ())
    except yaml.MarkedYAMLError as error:
        problem = " ".join(filter(None, (error.context, error.problem)))
        remedy = "; indent and separate with spaces" if "'\\t'" in problem else ""
        raise ValueError(f"not YAML: {_place(error.problem_mark)}{problem}{remedy}") from error
    except yaml.reader.ReaderError as error:
        raise ValueError(
            f"not YAML: it holds the character U+{error.character:04X}, which YAML does not allow"
        ) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_yaml(value: Any) -> str:
    """One line that :func:`read_yaml` reads as the value; a text stands without quotes where it can.

    Example:
        >>> write_yaml("relu"), write_yaml("010"), write_yaml(["a", 1e-3, None, math.inf])
        ('relu', '"010"', '["a", 0.001, null, .inf]')
    """
    if isinstance(value, str):
        try:
            if read_yaml(value, value_only=True) == value:
                return value
        except ValueError:
            pass
    return _flow(value)


def read_number(text: str) -> int | float | None:
    """The number that a text is, in decimal notation, or ``None`` for another text.

    Raises:
        ValueError: when other readers take it for another number, or neither an integer nor a float can hold it.

    Example:
        >>> read_number("12"), read_number("1e-3"), read_number("-.inf"), read_number("relu")
        (12, 0.001, -inf, None)
    """
    if found := _OCTAL.fullmatch(text):
        meant = int(found[2], 8) if "o" in text else found[2].replace("_", "").lstrip("0") or "0"
        raise ValueError(f"{text} is another number to other readers; write {found[1]}{meant}, or '{text}' for a text")
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError as error:
            raise ValueError(f"{text[:8]}… has {len(text)} digits, more than Python reads") from error
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value) or (value == 0 and re.search("[1-9]", text.lower().partition("e")[0])):
            raise ValueError(f"{text} is too {'large' if value else 'small'} for a float")
        return value
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else None


class _Loader(yaml.BaseLoader):
    """Nodes without a meaning as yet, and none that stands for another."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._keys: tuple[str, ...] = ()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, refused if it has an anchor, is an alias or says its own type."""
        above = self._keys
        if isinstance(index, yaml.ScalarNode):
            self._keys = (*above, index.value)
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        place = _place(event.start_mark, self._keys)
        if getattr(event, "anchor", None):
            raise ValueError(f"{place}anchors and aliases ({event.anchor}) are not read; write the value out")
        if getattr(event, "tag", None):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(f"{place}tags ({tag}) are not read; write the plain value")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._keys = above
        return node


def _value(node: yaml.Node, keys: tuple[str, ...]) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, keys) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys)
    try:
        return _scalar(node.value, plain=getattr(node, "style", None) is None)
    except ValueError as error:
        raise ValueError(f"{_place(node.start_mark, keys)}{error}") from error


def _mapping(node: yaml.MappingNode, keys: tuple[str, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _value(key_node, keys)
        place = _place(key_node.start_mark, keys)
        if not isinstance(key, str):
            raise ValueError(f"{place}a key must be a text, not {key!r}; write it in quotes")
        if key in content:
            raise ValueError(f"{place}{key!r} is given twice")
        content[key] = _value(value_node, (*keys, key))
    return content


def _scalar(text: str, *, plain: bool) -> Any:
    if _SURROGATE.search(text):
        raise ValueError(f"{text!a} holds half a character; write the character itself")
    if not plain:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = read_number(text)
    other = _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if number is None and other != _TEXT:
        raise ValueError(f"{text} is no text to other readers; write a decimal number, true, false, or '{text}'")
    return text if number is None else number


def _require_value_only(text: str, node: yaml.Node | None) -> None:
    if node is None:
        raise ValueError("there is no value; write null, or '' for an empty text")
    if rest := text[node.end_mark.index :].strip():
        raise ValueError(f"what follows the value ({rest}) would be lost; put a text in quotes")


def _place(mark: yaml.Mark | None, keys: tuple[str, ...] = ()) -> str:
    line = f"line {mark.line + 1}: " if mark and (mark.line or "\n" in (mark.buffer or "")) else ""
    return line + "".join(f"{key}: " for key in keys)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    # What JSON leaves as it is, but YAML does not allow or takes for the end of a line.
    return _NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
