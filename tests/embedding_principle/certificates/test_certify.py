"""Proofs against an oracle of 300 bits, controls that must not be proved, and files that were changed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import flint
import pytest
import torch
from torch import Tensor

from embedding_principle.activations import Activation, relu, sigmoid, softplus, tanh
from embedding_principle.certificates import check
from embedding_principle.certificates.certify import Certificate, certify
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy

CASES = int(os.environ.get("CONTAINMENT_CASES", "200"))  # 10 000 and more by hand


def planted(activation: Activation = tanh, widths: tuple[int, ...] = (1, 2, 1), seed: int = 0) -> tuple[Risk, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    network = Network.uniform(widths, activation)
    theta = torch.randn(network.n_parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(20, widths[0], generator=generator, dtype=torch.float64)
    return plant(Parametrised(network, theta), x, generator=generator, residual=0.1), theta


@pytest.fixture(scope="module")
def proof() -> Certificate:
    return certify(*planted())


def resealed(document: str, **changes: object) -> str:
    return check.sealed(json.loads(document) | changes)


def oracle(name: str, z: flint.arb) -> tuple[flint.arb, flint.arb, flint.arb]:
    s = 1 / (1 + (-z).exp())
    if name == "sigmoid":
        return s, s * (1 - s), s * (1 - s) * (1 - 2 * s)
    if name == "softplus":
        return (1 + z.exp()).log(), s, s * (1 - s)
    t = z.tanh()
    return t, 1 - t * t, -2 * t * (1 - t * t)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus"])
def test_activations_contain_the_oracle(name: str) -> None:
    draw = random.Random(0)
    flint.ctx.prec = 300
    for _ in range(CASES):
        z = int(draw.gauss(0, 1) * 10 ** draw.uniform(-3, 2.5) * check.ONE)
        width = int(10 ** draw.uniform(-40, 0) * check.ONE)
        inside = z + int(draw.uniform(-1, 1) * width)
        found = check.activate(name, check.Ball([z], width))
        for ball, true in zip(found, oracle(name, flint.arb(inside) / check.ONE)):
            gap = abs(true * check.ONE - ball.m[0])
            assert gap <= ball.r, (name, z / check.ONE, width / check.ONE)


def test_derivatives_over_a_box_contain_the_oracle_at_points_of_it() -> None:
    """The gradient and Hessian of 1-1-1 by formulas of their own, in 300 bits."""
    draw = random.Random(1)
    flint.ctx.prec = 300
    for case in range(max(CASES // 10, 10)):
        name = ("tanh", "sigmoid", "softplus")[case % 3]
        width = int(10 ** draw.uniform(-20, -1) * check.ONE)
        middle = [int(draw.gauss(0, 1) * check.ONE) for _ in range(4)]
        w, b, a, d = (flint.arb(m + int(draw.uniform(-1, 1) * width)) / check.ONE for m in middle)
        xs, ys = ([int(draw.gauss(0, 1) * check.ONE) for _ in range(5)] for _ in range(2))
        box = [(m, width) for m in middle]
        risk, gradient, H = check.derivatives((1, 1, 1), [name], [check.Ball(xs)], [check.Ball(ys)], box)
        true = [[flint.arb(0)] * 4 for _ in range(4)]
        slope, value = [flint.arb(0)] * 4, flint.arb(0)
        for x, y in ((flint.arb(p) / check.ONE, flint.arb(q) / check.ONE) for p, q in zip(xs, ys)):
            f, f1, f2 = oracle(name, w * x + b)
            e = a * f + d - y
            J = [a * f1 * x, a * f1, f, flint.arb(1)]
            second = {(0, 0): a * f2 * x * x, (1, 0): a * f2 * x, (1, 1): a * f2, (2, 0): f1 * x, (2, 1): f1}
            value += e * e / 5
            for i in range(4):
                slope[i] += 2 * e * J[i] / 5
                for j in range(4):
                    true[i][j] += 2 * (J[i] * J[j] + e * second.get((max(i, j), min(i, j)), 0)) / 5
        pairs = [(risk, value), *zip(gradient, slope), *((H[i][j], true[i][j]) for i in range(4) for j in range(4))]
        for (m, r), exact in pairs:
            assert abs(exact * check.ONE - m) <= r


@pytest.mark.parametrize("activation", [tanh, sigmoid, softplus], ids=lambda a: a.name)
@pytest.mark.parametrize("widths", [(1, 2, 1), (2, 2, 2, 1), (2, 2, 3)], ids=str)
def test_planted_points_are_proved_and_checked_again(activation: Activation, widths: tuple[int, ...]) -> None:
    risk, theta = planted(activation, widths)
    found = certify(risk, theta)
    assert found.result == "proved", found.reason
    eigenvalues = torch.linalg.eigvalsh(torch.func.hessian(risk)(theta))
    assert eigenvalues.abs().min() > 1e-14 * eigenvalues.abs().max()
    assert found.inertia == (int((eigenvalues < 0).sum()), 0, int((eigenvalues > 0).sum()))
    assert found.risk is not None
    assert found.risk[0] <= risk(theta).item() * (1 + 1e-13)
    assert found.risk[1] >= risk(theta).item() * (1 - 1e-13)
    assert (theta - torch.tensor(found.centre)).abs().max() < 1e-6
    assert check.verify(found.document) == list(found.inertia)


@pytest.mark.parametrize("widths", [(2, 3, 1), (2, 3, 2, 2), (1, 2, 2, 2, 1)], ids=str)
def test_deep_derivatives_are_those_of_autograd(widths: tuple[int, ...]) -> None:
    risk, theta = planted(softplus, widths) if widths[1] == 3 else planted(tanh, widths)
    data = [
        [check.Ball([check.read(v.hex())[0] for v in c], 1) for c in t.T.tolist()] for t in (risk.inputs, risk.targets)
    ]
    names = [activation.name for activation in risk.network.activations]
    moved = theta + 0.1  # the gradient does not vanish here
    at = [check.read(v.hex()) for v in moved.tolist()]
    value, gradient, hessian = check.derivatives(widths, names, *data, at)
    true = torch.func.hessian(risk)(moved)
    found = torch.tensor([[m / check.ONE for m, _ in row] for row in hessian], dtype=torch.float64)
    assert torch.allclose(found, true, rtol=1e-11, atol=1e-11)
    slope = torch.tensor([m / check.ONE for m, _ in gradient], dtype=torch.float64)
    assert torch.allclose(slope, risk.gradient(moved), rtol=1e-11, atol=1e-12)
    assert value[0] / check.ONE == pytest.approx(risk(moved).item(), rel=1e-12)
    assert max(r for row in hessian for _, r in row) < check.ONE >> 150


def test_what_must_not_be_proved() -> None:
    risk, theta = planted()
    refuted = certify(risk, theta + 0.1, radius=1e-9)
    assert (refuted.result, refuted.reason) == ("refuted", "no critical point in the box")
    large = certify(risk, theta, radius=0.5)
    assert (large.result, "too large" in large.reason) == ("undecided", True)
    small = certify(risk, theta, radius=1e-25)
    assert small.result != "proved"
    network = Network.uniform((1, 2, 1), tanh)
    twins = torch.tensor([1.0, 1.0, 0.3, 0.3, 0.5, 0.5, 0.1], dtype=torch.float64)  # a singular Hessian
    degenerate = plant(Parametrised(network, twins), risk.inputs, generator=torch.Generator().manual_seed(0))
    assert certify(degenerate, twins).result == "undecided"


def test_what_cannot_be_certified_is_refused_by_name() -> None:
    risk, theta = planted()
    network = Network.uniform((1, 2, 1), relu)
    with pytest.raises(ValueError, match="squared error"):
        certify(Risk(risk.network, risk.inputs, torch.ones_like(risk.targets), cross_entropy), theta)
    with pytest.raises(ValueError, match="tanh, sigmoid, softplus"):
        certify(Risk(network, risk.inputs, risk.targets), theta)
    with pytest.raises(ValueError, match="radius"):
        certify(risk, theta, radius=0.0)
    with pytest.raises(ValueError, match="finite"):
        certify(risk, theta * float("nan"))


def test_every_changed_byte_is_refused(proof: Certificate) -> None:
    draw = random.Random(2)
    for _ in range(500):
        place = draw.randrange(len(proof.document))
        letter = draw.choice([c for c in '0123456789abcdef-+ .,"' if c != proof.document[place]])
        with pytest.raises(check.Refused):
            check.verify(proof.document[:place] + letter + proof.document[place + 1 :])


def test_false_statements_are_refused_though_they_are_sealed(proof: Certificate) -> None:
    document = json.loads(proof.document)
    assert check.verify(resealed(proof.document)) == document["inertia"]
    moved = [(float.fromhex(v) + 1e-3).hex() for v in document["centre"]]
    false: list[dict[str, object]] = [
        {"inertia": [document["inertia"][0] + 1, 0, document["inertia"][2] - 1]},
        {"activations": ["sigmoid"]},
        {"activations": ["sine"]},
        {"inputs": document["inputs"][1:], "targets": document["targets"][1:]},
        {"inputs": document["inputs"][1:]},
        {"centre": moved},
        {"radius": [(1.0).hex()] * 7},
        {"radius": [(0.0).hex()] * 7},
        {"radius": [(-1.0).hex()] * 7},
        {"radius": ["inf"] * 7},
        {"risk": [(0.0).hex(), (1e-9).hex()]},
        {"risk": document["risk"][::-1]},
        {"loss": "cross-entropy"},
        {"statement": "every point in the box is critical"},
        {"widths": [1, 1, 1]},
        {"more": 1},
    ]
    for changes in false:
        with pytest.raises(check.Refused):
            check.verify(resealed(proof.document, **changes))


def test_the_program_runs_without_the_project(proof: Certificate, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(proof.document)
    bad.write_text(proof.document.replace("tanh", "sigmoid"))
    for files, code in [([good], 0), ([good, bad], 1), ([tmp_path / "none"], 1)]:
        run = subprocess.run(
            [sys.executable, "-S", "-I", check.__file__, *map(str, files)], capture_output=True, text=True
        )
        assert run.returncode == code, run.stdout + run.stderr
        assert not run.stderr
