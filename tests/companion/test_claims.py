"""What a claim must say to be one, and the verdict that follows from what was measured."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.claims import ROWS, Claim, Declaration, Measurement, format_number, join

DECLARED: dict[str, Any] = {
    "id": "D1-output",
    "title": "Outputs are preserved",
    "statement": "Outputs are equal.",
    "relation": "<=",
    "bound": 1e-12,
    "control": "weight moved",
    "factor": 1e3,
    "source": "Bai2024",
}


def declare(**changes: Any) -> Declaration:
    return Declaration(**{**DECLARED, **changes})


def make(*, measured: Any = 1e-15, control: Any = 1e-3, **changes: Any) -> Claim:
    """A claim that holds, with its numbers or fields of its declaration changed."""
    declared = declare(**changes)
    return Claim("part/one", declared, Measurement.of(declared.id, measured, control))


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
    claim = make(relation=relation, measured=measured, bound=bound, control=control, factor=factor)
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
    claim = make(relation=">=", bound=1.0, measured=measured, control=control, factor=2, verdict="not reproduced")
    assert claim.verdict == verdict


@pytest.mark.parametrize("relation", ["<=", ">=", "=="])
@pytest.mark.parametrize("expected", ["reproduced", "not reproduced"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_never_passes(relation: str, expected: str, bad: float) -> None:
    for numbers in ({"measured": bad}, {"control": bad}):
        for other in (0.0, 1.0, 100.0):
            defaults = {"measured": other, "control": 100.0 - other}
            claim = make(relation=relation, bound=1, factor=2, verdict=expected, **{**defaults, **numbers})
            assert claim.verdict == "failed"
            assert json.loads(json.dumps(claim.as_json(), allow_nan=False))["verdict"] == "failed"


@pytest.mark.parametrize("relation", ["<=", ">="])
@given(
    measured=st.floats(),
    bound=st.floats(1e-12, 1e12),
    control=st.floats(),
    factor=st.floats(1.001, 1e9),
)
def test_one_number_never_passes_as_both_measurement_and_control(
    measured: float, bound: float, control: float, factor: float, relation: str
) -> None:
    for value in (measured, control):
        claim = make(relation=relation, bound=bound, measured=value, control=value, factor=factor)
        assert claim.verdict == "failed"


HUGE = 10**400


@pytest.mark.parametrize(
    ("relation", "measured", "bound", "control", "verdict"),
    [
        ("==", HUGE, HUGE, HUGE + 5, "reproduced"),
        ("==", HUGE, HUGE, 1.0, "reproduced"),
        ("==", HUGE, HUGE, HUGE + 1, "failed"),
        ("==", HUGE + 1, HUGE, 0, "failed"),
        ("==", 3, 3, -HUGE, "reproduced"),
        ("<=", 1, 2, HUGE, "reproduced"),
        ("<=", HUGE, 2, HUGE, "failed"),
        (">=", HUGE, 2, 0, "reproduced"),
        (">=", HUGE, 2, -HUGE, "reproduced"),
        (">=", HUGE, 2, HUGE, "failed"),
    ],
)
def test_counts_that_no_float_holds_are_judged_and_printed(
    relation: str, measured: float, bound: float, control: float, verdict: str
) -> None:
    claim = make(relation=relation, measured=measured, bound=bound, control=control, factor=2)
    assert claim.verdict == verdict
    assert json.loads(json.dumps(claim.as_json()))["measured"] == measured
    assert len(f"{claim.bound} {claim.control} {format_number(measured)}") < 60


@pytest.mark.parametrize("field", ["bound", "factor"])
def test_a_factor_or_an_inexact_bound_that_no_float_holds_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=r"finite number of at least 1|no float is as large as the bound"):
        declare(**{field: HUGE})


def test_a_count_that_no_notebook_can_hold_is_refused() -> None:
    assert Measurement.of("D1-output", 10**4300 - 1, -(10**4299)).value is not None
    with pytest.raises(ValueError, match="claim D1-output: control has more than 4300 digits"):
        Measurement.of("D1-output", 1, -(10**4300))


def test_conditions_make_a_claim_conditional() -> None:
    said = {"verdict": "conditional", "conditions": "for tanh"}
    assert make(**said).verdict == "conditional"
    assert make(**said, measured=1.0).verdict == "failed"


def test_a_claim_that_is_not_reproduced_may_say_under_which_conditions() -> None:
    assert declare(verdict="not reproduced", conditions="for tanh").conditions == "for tanh"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "D1:output"}, "id must be"),
        ({"id": "D11-output"}, "id must be"),
        ({"id": "D1-Output"}, "id must be"),
        ({"title": ""}, "title must be a text"),
        ({"statement": " "}, "statement must be a text"),
        ({"source": None}, "source must be a text"),
        ({"conditions": ""}, "conditions must be a text"),
        ({"control": ""}, "control must be a text"),
        ({"relation": "<"}, "relation must be one of"),
        ({"verdict": "passed"}, "verdict must be one of"),
        ({"verdict": "conditional"}, "a conditional claim states its conditions"),
        ({"conditions": "for tanh"}, "a reproduced one has none"),
        ({"bound": "1e-3"}, "bound must be a number"),
        ({"bound": True}, "bound must be a number"),
        ({"bound": math.nan}, "bound must be finite"),
        ({"bound": 0.0}, "a control cannot miss <= 0.0 by a factor"),
        ({"bound": -1.0, "relation": ">="}, "a control cannot miss >= -1.0 by a factor"),
        ({"bound": 0.5, "relation": "=="}, "bound must be an integer"),
        ({"factor": 0.5}, "at least 1"),
        ({"factor": math.nan}, "at least 1"),
        ({"factor": 0.5, "bound": 1, "relation": "=="}, "at least 1"),
        ({"factor": 1}, "must exceed 1"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"claim .*{message}"):
        declare(**changes)


@pytest.mark.parametrize(
    ("value", "message"),
    [("1e-3", "must be a number"), (True, "must be a number"), (None, "must be a number"), (np.ones(2), "one number")],
)
def test_what_is_no_number_is_not_measured(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"claim D1-output: value .*{message}"):
        Measurement.of("D1-output", value, 1.0)
    with pytest.raises(ValueError, match=f"claim D1-output: control .*{message}"):
        Measurement.of("D1-output", 1.0, value)


def test_scalars_of_numpy_and_torch_become_numbers() -> None:
    claim = make(measured=torch.tensor(1e-15, dtype=torch.float64), bound=np.float64(1e-12))
    assert (type(claim.measured), type(claim.declared.bound)) == (float, float)
    claim = make(relation="==", bound=np.int64(3), measured=torch.tensor(3))
    assert (type(claim.measured), type(claim.declared.bound)) == (int, int)


def test_the_rows_are_the_statements_that_the_book_examines() -> None:
    parts = {part: [int(row[1:]) for row in ROWS if row[0] == part] for part in "DNWXCRU"}
    assert parts == {
        "D": list(range(11)),
        "N": list(range(1, 9)),
        "W": list(range(1, 9)),
        "X": [1],
        "C": list(range(1, 6)),
        "R": [1],
        "U": [1],
    }
    assert sum(map(len, parts.values())) == len(ROWS) == len(set(ROWS))
    assert [declare(id=f"{row}-word").row for row in ROWS] == list(ROWS)


def test_only_what_is_declared_and_measured_once_with_its_verdict_is_no_problem() -> None:
    names = ("D1-good", "D1-bad", "D1-missing", "D1-twice")
    declared = {name: declare(id=name) for name in names}
    measurements = [
        Measurement.of("D1-bad", 1.0, 1e-3),
        Measurement.of("D1-good", 1e-15, 1e-3),
        *[Measurement.of("D1-twice", 1e-15, 1e-3)] * 2,
        *[Measurement.of("D1-unknown", 1e-15, 1e-3)] * 2,
    ]
    claims, problems = join("part/one", declared, measurements)
    assert [(claim.id, claim.verdict) for claim in claims] == [
        ("D1-good", "reproduced"),
        ("D1-bad", "failed"),
        ("D1-twice", "reproduced"),
    ]
    assert problems == [
        "claim D1-missing is declared but not measured",
        "claim D1-unknown is measured but not declared",
        "claim D1-twice is measured more than once",
        "claim D1-unknown is measured more than once",
        "claim D1-bad is failed, expected reproduced: measured 1, bound ≤ 1e-12, control 0.001 (flips)",
    ]


def test_the_record_of_a_claim_is_strict_json_with_every_fact() -> None:
    claim = make(measured=math.nan, verdict="conditional", conditions="for tanh")
    record = json.loads(json.dumps(claim.as_json(), allow_nan=False))
    assert record == {
        "id": "D1-output",
        "row": "D1",
        "title": "Outputs are preserved",
        "chapter": "part/one",
        "statement": "Outputs are equal.",
        "source": "Bai2024",
        "conditions": "for tanh",
        "measured": None,
        "relation": "<=",
        "bound": 1e-12,
        "expected": "conditional",
        "verdict": "failed",
        "control": {"description": "weight moved", "factor": 1000.0, "measured": 1e-3, "flipped": True},
        "seal": None,
    }
