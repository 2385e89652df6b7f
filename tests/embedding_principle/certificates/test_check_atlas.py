"""The program that proves an atlas again: it accepts true files, refuses false ones, and agrees with the prover."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from embedding_principle.activations import tanh
from embedding_principle.certificates import check_atlas
from embedding_principle.certificates.atlas import Atlas, atlas, replayable
from embedding_principle.certificates.charts import charts
from embedding_principle.certificates.intervals import Ball
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

Content = dict[str, Any]


@cache
def atlas_of(seed: int, n: int) -> tuple[Risk, Atlas]:
    targets = torch.randn(n, 1, generator=Generator().manual_seed(seed), dtype=torch.float64)
    inputs = torch.arange(n, dtype=torch.float64)[:, None]
    risk = Risk(Network.uniform((1, 1, 1), tanh), inputs, targets)
    return risk, atlas(risk)


@cache
def file_of(seed: int, n: int) -> tuple[str, int]:
    """A file, and how many points it should prove."""
    risk, found = atlas_of(seed, n)
    return replayable(found, risk), len(found.points)


def test_true_files_are_accepted() -> None:
    for seed, n in ((0, 7), (224, 5)):
        text, points = file_of(seed, n)
        assert check_atlas.verify(text) >= points


def test_it_runs_alone(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(file_of(224, 5)[0], encoding="utf-8")
    bad.write_text(file_of(224, 5)[0].replace("ss", "sx", 1), encoding="utf-8")
    program = [sys.executable, "-S", "-I", str(Path(check_atlas.__file__))]
    run = subprocess.run([*program, str(good)], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert ": proved: all critical neurons" in run.stdout
    run = subprocess.run([*program, str(bad), str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout.count(": refused: ") == 2
    assert "the digest differs" in run.stdout


def hidden(content: Content) -> None:
    """A box with a zero is said to hold none."""
    content["trees"] = {name: tree.replace("A", "x") for name, tree in content["trees"].items()}


def forgotten(content: Content) -> None:
    content["zeros"] = {}


def cut_off(content: Content) -> None:
    content["trees"]["left"] = content["trees"]["left"][:-1]


def too_long(content: Content) -> None:
    content["trees"]["right"] += "x"


def given_away(content: Content) -> None:
    """Boxes are said to belong to the chart flat, which do not."""
    content["trees"]["cell 0"] = content["trees"]["cell 0"].replace("x", "e")


def without_a_chart(content: Content) -> None:
    del content["trees"]["flat"]


def with_another_chart(content: Content) -> None:
    content["trees"]["cell 99"] = "x"


def beside_a_zero(content: Content) -> None:
    """One more box, which ends just before the zero of another one."""
    sheet = next(sheet for sheet in atlas_of(5, 8)[1].sheets if sheet.zeros)
    u, v = sheet.zeros[0].sharp.middle.tolist()
    content["zeros"][sheet.chart.name].append([value.hex() for value in (u + 2.0**-10 + 2.0**-24, v, *[2.0**-10] * 2)])


def one_box(content: Content) -> None:
    content["trees"]["flat"] = "x"


def moved(content: Content) -> None:
    for boxes in content["zeros"].values():
        for box in boxes:
            box[0] = (float.fromhex(box[0]) + 0.01).hex()


def other_targets(content: Content) -> None:
    content["targets"][3] = (5.0).hex()


def level(content: Content) -> None:
    content["targets"] = [(0.0).hex() for _ in content["targets"]]


def other_statement(content: Content) -> None:
    content["statement"] = "there is none"


CHANGES = (
    *(hidden, forgotten, cut_off, too_long, given_away, without_a_chart, with_another_chart),
    *(one_box, beside_a_zero, moved, other_targets, level, other_statement),
)


@pytest.mark.parametrize("change", CHANGES)
def test_resealed_false_files_are_refused(change: Callable[[Content], None]) -> None:
    content = json.loads(file_of(5, 8)[0])
    change(content)
    with pytest.raises(check_atlas.Refused):
        check_atlas.verify(check_atlas.sealed(content))


def test_changed_characters_are_refused() -> None:
    text = file_of(224, 5)[0]
    for place in range(0, len(text), len(text) // 40):
        other = "1" if text[place] != "1" else "2"
        with pytest.raises(check_atlas.Refused):
            check_atlas.verify(text[:place] + other + text[place + 1 :])


def meet(ball: Ball, exact: "check_atlas.Ball") -> bool:
    """Whether two enclosures of the same numbers, (n, 1) and n, have a common point."""
    rows = zip(ball.middle[:, 0], ball.radius[:, 0], exact.m, exact.r, strict=True)
    unit = check_atlas.ONE
    return all(abs(a - m / unit) <= (r + s / unit) * (1 + 1e-12) + 1e-300 for a, r, m, s in rows)


@pytest.mark.parametrize("chart", charts(6), ids=lambda chart: chart.name)
def test_its_features_agree_with_those_of_the_prover(chart: Any) -> None:
    own = check_atlas.Chart(chart.name, 6, check_atlas.dyadic(check_atlas.Fraction(2, 5)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = np.array(chart.lower) + rng.random(2) * (np.array(chart.upper) - chart.lower)
        u, v = (float(value) for value in place)
        found = chart.features(Ball([u]), Ball([v]))
        value, g, slopes, bends = own.features(
            check_atlas.number(check_atlas.Fraction(u)), check_atlas.number(check_atlas.Fraction(v)), True
        )
        assert meet(found.value, value)
        for i in range(2):
            assert meet(found.spanning[i], g[i])
            assert meet(found.slopes[i], slopes[i])
            assert all(meet(found.bends[i][k], bends[i][k]) for k in range(2))


def test_the_coefficients_are_those_of_tanh() -> None:
    values = [check_atlas.tangent(k) for k in range(5)]
    assert values == [check_atlas.Fraction(*pair) for pair in ((1, 1), (-1, 3), (2, 15), (-17, 315), (62, 2835))]
    assert float(check_atlas.decay(check_atlas.Fraction(1, 2))) == pytest.approx(np.exp(-0.5), rel=1e-15, abs=0)


def test_a_product_and_an_inverse_hold_what_they_should() -> None:
    rng = np.random.default_rng(1)
    unit = check_atlas.Fraction(check_atlas.ONE)
    for _ in range(300):
        a, b = ([int(v) for v in rng.integers(-(2**60), 2**60, 2)] for _ in range(2))
        first, second = (check_atlas.Ball([m << 38], [abs(r) << 20]) for m, r in (a, b))
        x, y = (
            check_atlas.Fraction(ball.m[0] + int(rng.choice((-1, 1))) * ball.r[0]) / unit for ball in (first, second)
        )
        product = first * second
        assert abs(x * y * unit - product.m[0]) <= product.r[0]
        inverse = first.inverse()
        assert abs(unit / x - inverse.m[0]) <= inverse.r[0]
