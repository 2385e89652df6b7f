"""Reading the claims that prose declares: where they stand, and what is refused by claim and option."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from types import SimpleNamespace

import pytest

from companion.declarations import declarations_in, declared_nearby


def test_options_may_be_long_and_claims_stand_in_any_cell_in_the_order_of_the_prose(tiny: SimpleNamespace) -> None:
    first = tiny.box("D1-first", statement="One\nsentence, $a < b$.", source="one paper,\n  its theorem")
    second = tiny.box("N2-second", bound="== 3", factor="2", verdict="conditional", conditions="for tanh")
    listed = "1. In a list:\n\n" + indent(tiny.box("W8-x"), "   ")
    declared = declarations_in(["no claim", f"{first}\n\nBetween.\n\n{second}", listed])
    assert list(declared) == ["D1-first", "N2-second", "W8-x"]
    assert declared["D1-first"].statement == "One sentence, $a < b$."
    assert declared["D1-first"].source == "one paper, its theorem"
    assert (declared["D1-first"].printed_bound, declared["D1-first"].factor) == ("≤ 1e-12", 1e3)
    assert (type(declared["N2-second"].bound), declared["N2-second"].conditions) == (int, "for tanh")
    assert declared["D1-first"].verdict == "reproduced"


def test_a_claim_that_is_only_shown_or_spoken_of_is_not_declared(tiny: SimpleNamespace) -> None:
    shown = f"````markdown\n{tiny.box('D1-one')}\n````"
    assert declarations_in([shown, "the directive `{claim} D1-one`", "```python\nclaim\n```"]) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": None}, ":title: is missing; the options are title, bound, control, factor, source, verdict, cond"),
        ({"bound": None, "factor": None}, ":bound: is missing, :factor: is missing; the options are"),
        ({"control": None}, ":control: is missing"),
        ({"source": None}, ":source: is missing"),
        ({"certificate": "x"}, ":certificate: is unknown; the options are title, bound, control, factor, source"),
        ({"Bound": ">= 1"}, ":Bound: is unknown"),
        ({"factor": "10\n:factor: 20"}, ":factor: is given twice"),
        ({"bound": "<= small"}, ":bound: must end in a number, not 'small'"),
        ({"bound": "<=1e-12"}, ":bound: must end in a number, not ''"),
        ({"bound": ""}, ":bound: must end in a number, not ''"),
        ({"bound": "<= 10 * eps"}, r":bound: must end in a number, not '10 \* eps'"),
        ({"bound": "< 1"}, "relation must be one of <=, >=, ==, not '<'"),
        ({"bound": "1e-12"}, ":bound: must end in a number"),
        ({"bound": "<= nan"}, ":bound: must end in a number, not 'nan'"),
        ({"bound": "<= .nan"}, "bound must be finite"),
        ({"bound": ">= -.inf"}, "bound must be finite"),
        ({"bound": "== 1.0"}, "'==' compares counts, so the bound must be an integer, not 1.0"),
        ({"bound": "<= 0"}, "a control cannot miss <= 0 by a factor"),
        ({"bound": ">= -1"}, "a control cannot miss >= -1 by a factor"),
        ({"factor": "large"}, ":factor: must end in a number, not 'large'"),
        ({"factor": "1"}, "factor must exceed 1, it is 1"),
        ({"factor": "0.5"}, "a finite number of at least 1"),
        ({"factor": "inf"}, ":factor: must end in a number, not 'inf'"),
        ({"factor": ".inf"}, "a finite number of at least 1"),
        ({"factor": "0", "bound": "== 3"}, "a finite number of at least 1"),
        ({"verdict": "passed"}, "verdict must be one of reproduced, conditional, not reproduced, not 'passed'"),
        ({"conditions": "for tanh"}, "a conditional claim states its conditions, a reproduced one has none"),
        ({"verdict": "conditional"}, "a conditional claim states its conditions, a reproduced one has none"),
        ({"statement": ""}, "statement must be a text"),
        ({"title": ""}, "title must be a text"),
        ({"true-object": ""}, "true-object must be a text"),
        ({"trusted": ""}, "trusted must be a text"),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_be_used_is_refused_by_claim_and_option(
    tiny: SimpleNamespace, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^claim D1-one: .*{message}"):
        declarations_in([tiny.box("D1-one", **changes)])


@pytest.mark.parametrize("option", ["title", "statement", "source", "control", "conditions", "true-object", "trusted"])
@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "It costs $5, <script>alert(1)</script> and that is $ 5 more, <b>",
        "$x$ <img src=x onerror=alert(1)>",
        r"\$ <script> \$5",
        "in *<b>bold</b>*",
        "a <!-- hidden --> text",
        "<script src=x.js",
        "<div onclick=alert(1)",
        "</div",
        "![<b>](x.svg) [<i>](y)",
    ],
)
def test_html_is_refused_wherever_it_stands(tiny: SimpleNamespace, option: str, text: str) -> None:
    changes = {"verdict": "conditional", "conditions": "for tanh", option: text}
    with pytest.raises(ValueError, match=f"^claim D1-one: {option} holds HTML"):
        declarations_in([tiny.box("D1-one", **changes)])


@pytest.mark.parametrize("option", ["title", "statement", "source", "control", "conditions", "true-object", "trusted"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{raw}`<b>`", "holds the role {raw}; the roles that are read are cite:p"),
        ("see {glue:}`figure`", "holds the role {glue:}"),
        ("*{eval-rst}`x`*", "holds the role {eval-rst}"),
        ("[x](javascript:alert(1))", "holds a link that begins with 'javascript:'"),
        ("**[x](JaVa&#115;cript:alert(1))**", "holds a link that begins with 'JaVascript:'"),
        ("[x](javascript%3Aalert(1))", "holds a link that begins with 'javascript:'"),
        ("<vbscript:x>", "holds a link that begins with 'vbscript:'"),
        ("![x](data:text/html;base64,PGI+)", "holds a link that begins with 'data:'"),
        ("[![x](data:a)](https://a.b)", "holds a link that begins with 'data:'"),
        ("[x](file:///etc/passwd)", "holds a link that begins with 'file:'"),
        ("```{include} /etc/passwd", "is no single paragraph"),
        ("```{raw} html", "is no single paragraph"),
        ("~~~{eval-rst}", "is no single paragraph"),
        ("::: {raw} html", "is no single paragraph"),
        ("+++", "is no single paragraph"),
        ("(target)=", "is no single paragraph"),
        ("% hidden", "is no single paragraph"),
        ("# heading", "is no single paragraph"),
        ("[x]: javascript:a", "is no single paragraph"),
    ],
)
def test_other_ways_to_html_and_blocks_are_refused_wherever_they_stand(
    tiny: SimpleNamespace, option: str, text: str, problem: str
) -> None:
    changes = {"verdict": "conditional", "conditions": "for tanh", option: text}
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message is compared as it is)
        declarations_in([tiny.box("D1-one", **changes)])
    assert str(refusal.value).startswith(f"claim D1-one: {option} {problem}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bound": "<= 010"}, ":bound: 010 is another number to other readers; write 10"),
        ({"bound": "<= 1_0"}, ":bound: must end in a number, not '1_0'"),
        ({"bound": "<= ٣"}, ":bound: must end in a number, not '٣'"),
        ({"bound": "<= 1e-999"}, ":bound: 1e-999 is too small for a float"),
        ({"factor": "1e999"}, ":factor: 1e999 is too large for a float"),
        ({"factor": "1e3 times"}, ":factor: must end in a number, not '1e3 times'"),
    ],
)
def test_numbers_are_decimal_numbers(tiny: SimpleNamespace, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        declarations_in([tiny.box("D1-one", **changes)])
    assert f"claim D1-one: {message}" in str(refusal.value)


def test_a_declaration_is_found_beside_notebooks_that_are_none(tmp_path: Path, tiny: SimpleNamespace) -> None:
    root = tiny.project(tmp_path, {"one": {"code": [], "boxes": [tiny.box("D1-one")]}})
    named = "{claim} D1-one"
    bad = {"latin": f"{named} \u00e4".encode("latin-1"), "list": b"[]", "half": f'{{"cells": "{named}'.encode()}
    bad |= {"number": f'{{"cells": [3], "a": "{named}"}}'.encode(), "none": f'["{named}"]'.encode(), "empty": b""}
    for name, content in bad.items():
        (root / f"book/a_{name}.ipynb").write_bytes(content)
    (root / "book/a_folder.ipynb").mkdir()
    found = declared_nearby("D1-one", root / "book")
    assert found is not None
    assert found.title == "Doubling is adding"


def test_what_only_looks_like_html_is_text_or_a_formula(tiny: SimpleNamespace) -> None:
    text = r"$a<b$, a < b > c, $ <script> $5, `<b>`, \<i>"
    assert declarations_in([tiny.box("D1-one", statement=text)])["D1-one"].statement == text


@pytest.mark.parametrize("name", ["", "one", "T1-one", "D11-one", "W0-one", "D1", "D1-One", "D1-one more", "D1-<b>"])
def test_an_id_is_a_row_and_a_word(tiny: SimpleNamespace, name: str) -> None:
    with pytest.raises(ValueError, match=r"the id must be a row \(D0 … U1\), a dash and a word in lower case"):
        declarations_in([tiny.box(name)])


def test_an_id_is_used_once(tiny: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="claim D1-one is declared twice"):
        declarations_in([tiny.box("D1-one"), tiny.box("D1-two"), tiny.box("D1-one", bound=">= 1")])
