"""Verdicts, controls and the record that a claim leaves."""

from __future__ import annotations

import json
import math
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import claims
from companion.claims import CLAIM_MIME, Claim, Control, as_html, as_text, glue, read_claims, record


def make(**changes: Any) -> Claim:
    """A claim that holds, with fields changed; ``control`` is a triple."""
    fields: dict[str, Any] = {
        "id": "D1-output",
        "row": "D1",
        "statement": "Outputs are equal.",
        "source": "Bai2024",
        "measured": 1e-15,
        "relation": "<=",
        "bound": 1e-12,
        "control": ("weight moved", 1e-3, 1e3),
    }
    fields |= changes
    return Claim(**fields | {"control": Control(*fields["control"])})


@pytest.mark.parametrize(
    ("relation", "measured", "bound", "control", "factor", "verdict"),
    [
        ("<=", 1e-12, 1e-12, 1e-9, 1e3, "reproduced"),  # both sides exactly on their edges
        ("<=", 1.1e-12, 1e-12, 1e-3, 1e3, "failed"),  # bound missed
        ("<=", 1e-15, 1e-12, 9e-10, 1e3, "failed"),  # control misses the bound, but not by its factor
        ("<=", 1e-15, 1e-12, 1e-13, 2, "failed"),  # control meets the bound
        (">=", 1.0, 1.0, 0.5, 2, "reproduced"),  # in 100 % of the cases against half of them
        (">=", 1.0, 1.0, 0.0, 1e6, "reproduced"),
        (">=", 0.999, 1.0, 0.0, 2, "failed"),
        (">=", 1.0, 1.0, 0.6, 2, "failed"),
        (">=", 3.0, 1.0, -4.0, 2, "reproduced"),
        ("==", 22, 22, 20, 2, "reproduced"),
        ("==", 22, 22, 24, 2, "reproduced"),
        ("==", 22, 22, 21, 2, "failed"),
        ("==", 21, 22, 0, 1, "failed"),
        ("==", 0, 0, 1, 1, "reproduced"),
        ("==", 0, 0, 0, 1, "failed"),
    ],
)
def test_a_claim_holds_when_the_bound_is_met_and_the_control_misses_it_by_the_factor(
    relation: str, measured: float, bound: float, control: float, factor: float, verdict: str
) -> None:
    claim = make(relation=relation, measured=measured, bound=bound, control=("broken", control, factor))
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("measured", "control", "verdict"),
    [
        (0.5, 1.0, "not reproduced"),  # misses by the factor; the control shows that the bound can be met
        (0.6, 1.0, "failed"),  # misses, but not clearly
        (1.0, 1.0, "failed"),  # holds after all
        (0.5, 0.9, "failed"),  # nothing meets the bound: the measurement may be blind
    ],
)
def test_a_claim_expected_not_to_hold_needs_a_control_that_meets_the_bound(
    measured: float, control: float, verdict: str
) -> None:
    claim = make(relation=">=", bound=1.0, measured=measured, control=("intact", control, 2), expected="not reproduced")
    assert claim.verdict == verdict


@pytest.mark.parametrize("relation", ["<=", ">=", "=="])
@pytest.mark.parametrize("expected", ["reproduced", "not reproduced"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_never_passes(relation: str, expected: str, bad: float) -> None:
    for fields in ({"measured": bad}, {"control": ("broken", bad, 2)}):
        for other in (0.0, 1.0, 100.0):
            defaults = {"measured": other, "control": ("broken", 100.0 - other, 2)}
            claim = make(relation=relation, bound=1, expected=expected, **{**defaults, **fields})
            assert claim.verdict == "failed"
            assert json.loads(json.dumps(claim.as_record(), allow_nan=False))["verdict"] == "failed"


@given(
    measured=st.floats(),
    bound=st.floats(1e-12, 1e12),
    control=st.floats(),
    factor=st.floats(1.001, 1e9),
    relation=st.sampled_from(["<=", ">="]),
)
def test_one_number_never_passes_as_both_measurement_and_control(
    measured: float, bound: float, control: float, factor: float, relation: str
) -> None:
    for value in (measured, control):
        assert make(relation=relation, bound=bound, measured=value, control=("same", value, factor)).verdict == "failed"


def test_conditions_make_a_claim_conditional() -> None:
    assert make(conditions="for tanh").verdict == "conditional"
    assert make(conditions="for tanh", measured=1.0).verdict == "failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "D1:output"}, "id must be"),
        ({"statement": " "}, "statement must be a text"),
        ({"source": None}, "source must be a text"),
        ({"conditions": ""}, "conditions must be a text"),
        ({"relation": "<"}, "relation must be one of"),
        ({"expected": "conditional"}, "says its conditions instead"),
        ({"measured": "1e-3"}, "measured must be a number"),
        ({"measured": True}, "measured must be a number"),
        ({"measured": np.ones(2)}, "measured must be one number"),
        ({"bound": math.nan}, "bound must be finite"),
        ({"bound": 0.0}, "a control cannot miss <= 0.0 by a factor"),
        ({"bound": 0.5, "relation": "=="}, "bound must be an integer"),
        ({"control": ("", 1.0, 2)}, "description must be a text"),
        ({"control": ("broken", 1.0, 0.5)}, "at least 1"),
        ({"control": ("broken", 1.0, math.nan)}, "at least 1"),
        ({"control": ("broken", 1.0, 1)}, "must exceed 1"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_scalars_of_numpy_and_torch_become_numbers() -> None:
    claim = make(measured=torch.tensor(1e-15, dtype=torch.float64), bound=np.float64(1e-12))
    assert (type(claim.measured), type(claim.bound)) == (float, float)
    assert type(make(relation="==", bound=np.int64(3), measured=torch.tensor(3)).measured) is int


def test_the_box_is_accessible_escaped_html_with_formulas_for_mathjax() -> None:
    html = as_html(make(statement="$a < b$ costs \\$5 & more", expected="not reproduced", conditions="<often>"))
    assert 'class="claim claim-failed mathjax_process" id="claim-D1-output" role="group"' in html
    assert 'aria-label="Claim D1-output, failed"' in html
    assert r"\(a &lt; b\) costs $5 &amp; more" in html
    assert "&lt;often&gt;" in html
    assert "style=" not in html


def test_the_box_for_a_terminal_names_every_fact() -> None:
    text = as_text(make(conditions="for tanh", certificate="certificates/D1.json"))
    for fact in ("D1-output: conditional", "Bai2024", "1e-15", "≤ 1e-12", "weight moved: 0.001 (flips)", "for tanh"):
        assert fact in text
    assert "certificates/D1.json" in text


def test_what_is_recorded_is_what_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(claims, "display", lambda data, raw, metadata=None: shown.append((data, metadata or {})))
    record(make(measured=math.nan))  # a failed verdict is shown, not raised
    outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata) for data, metadata in shown]
    cell = nbformat.v4.new_code_cell(outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    (entry,) = read_claims(tmp_path / "a.ipynb")
    glued = {metadata["scrapbook"]["name"]: data for data, metadata in shown[1:]}
    assert set(glued) == {"D1-output", "D1-output-bound", "D1-output-control"}
    assert entry == shown[0][0][CLAIM_MIME]
    assert (entry["verdict"], entry["measured"], entry["control"]["flipped"]) == ("failed", None, True)


@pytest.mark.parametrize(("name", "value"), [("a:b", 1), ("", 1), ("a", [1]), ("a", None)])
def test_glue_refuses_what_no_page_could_show(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="glue"):
        glue(name, value)
