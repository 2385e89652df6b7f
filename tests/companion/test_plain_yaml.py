"""YAML without surprises: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from companion.plain_yaml import read_number, read_yaml, write_yaml

# Texts without surrogates, which no file holds.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("+3", 3), ("-0", 0), ("0", 0), ("10", 10), ("1e3", 1000.0), ("1e-3", 1e-3), ("1E+3", 1000.0),
        (".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("0e-999", 0.0), (".inf", math.inf), ("-.Inf", -math.inf),
        ("true", True), ("False", False), ("null", None), ("~", None), ("inf", "inf"), ("y", "y"), ("\u00b2", "\u00b2"),
        ("\u0663", "\u0663"), ("'010'", "010"), ('"no"', "no"), ("relu", "relu"), ("\ufeff3", 3),
        ("{a: [1, b]}", {"a": [1, "b"]}), ("a:\n- 1\n- 2  # two", {"a": [1, 2]}),
    ],
)  # fmt: skip
def test_numbers_texts_and_constants_are_those_of_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(text)
    assert (read, type(read)) == (value, type(value))


def test_nan_is_a_float() -> None:
    assert math.isnan(read_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "010 is another number to other readers; write 10, or '010' for a text"),
        ("-007", "write -7, or '-007' for a text"),
        ("08", "write 8"),
        ("00", "write 0"),
        ("0o17", "write 15"),
        *[
            (text, f"{text} is no text to other readers")
            for text in ("1:30", "1:30:00.5", "1_000", "1_0.5", "0b1", "0x1F", "yes", "No", "ON", "off", "2026-01-02",
                         "2026-01-02T03:04:05Z", "=", "<<")
        ],
        ("1e999", "1e999 is too large for a float"),
        ("-1e999", "-1e999 is too large"),
        ("1e-999", "1e-999 is too small for a float"),
        ("9" * 5000, "has 5000 digits, more than Python reads"),
        ("!!str 3", "tags (!!str) are not read; write the plain value"),
        ("! 3", "tags (!) are not read"),
        ("!!binary aGVsbG8=", "tags (!!binary) are not read"),
        ("a: !!python/object/apply:os.getcwd []", "a: tags (!!python/object/apply:os.getcwd) are not read"),
        ("a: {b: &x 1}", "a: b: anchors and aliases (x) are not read; write the value out"),
        ("*x", "anchors and aliases (x) are not read"),
        ("a: {<<: {b: 1}}", "a: << is no text"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("a: {1: 2}", "a: a key must be a text, not 1; write it in quotes"),
        ("? [1]\n: 2", "a key must be a text, not [1]"),
        ("{null: 1}", "a key must be a text, not None"),
        ('"\\ud800"', "holds half a character"),
        ("\udcff", "not YAML: it holds the character U+DCFF"),
        ("\x00", "not YAML: it holds the character U+0000"),
        ("[" * 5000, "nested too deeply"),
        ("a:\n\tb: 1", "line 2: while scanning for the next token found character '\\t' that cannot"),
        ("a: [1", "not YAML: while parsing a flow sequence"),
        ("1\n--- 2", "another document"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_or_in_none_is_refused_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message is compared as it is)
        read_yaml(text)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.from_regex(r"[-+0-9._:eExobEnyYNoO]{1,6}", fullmatch=True))
def test_what_is_read_is_what_yaml_1_1_reads_but_for_floats_that_it_takes_for_texts(text: str) -> None:
    try:
        value = read_yaml(text)
    except ValueError:
        return
    try:
        other = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return
    assert repr(value) == repr(other) or (type(value), type(other)) == (float, str)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no value; write null, or '' for an empty text"),
        ("#0072B2", "there is no value"),
        ("a #b", "what follows the value (#b) would be lost; put a text in quotes"),
        ("[1] # two", "what follows the value (# two) would be lost"),
    ],
)
def test_a_value_alone_has_no_comment(text: str, message: str) -> None:
    read_yaml(text)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        read_yaml(text, value_only=True)
    assert message in str(refusal.value)


@given(VALUES)
def test_what_is_written_is_read_back_and_fits_a_line(value: object) -> None:
    text = write_yaml(value)
    assert text.isprintable() or not json.dumps(value, ensure_ascii=False).isprintable()
    assert "\n" not in text
    assert repr(read_yaml(text, value_only=True)) == repr(value)


@pytest.mark.parametrize(
    "text", ["a#b", "it's", "#0072B2", "010", "true", "", " a", "a: b", "\x7f", "\x85", "\u2028", "-"]
)
def test_texts_that_mean_something_else_are_quoted(text: str) -> None:
    assert read_yaml(write_yaml(text), value_only=True) == text


def test_a_text_that_is_no_number_is_none() -> None:
    assert [read_number(text) for text in ("", "relu", "1 2", "1e", "yes")] == [None] * 5
