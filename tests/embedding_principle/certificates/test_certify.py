"""The prover: what it proves, what it must not prove and why, and that the checker agrees."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from embedding_principle.activations import (
    Activation,
    AffinePiece,
    gelu,
    hard_tanh,
    leaky_relu,
    relu,
    sigmoid,
    softplus,
    tanh,
)
from embedding_principle.certificates import check
from embedding_principle.certificates.certify import TOO_SMALL, Certificate, Problem, Verdict, certify
from embedding_principle.certificates.enclosures import enclosure
from embedding_principle.certificates.intervals import Ball
from embedding_principle.critical_points import search
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy

from .documents import classified, planted


def clear_inertia(risk: Risk, theta: Tensor) -> tuple[int, int, int] | None:
    """The signs of the eigenvalues in floats, where they are far from rounding."""
    values = torch.linalg.eigvalsh(torch.func.hessian(risk)(theta))
    zeros = risk.network.widths[-2] + 1 if risk.loss is cross_entropy else 0
    sizes = values.abs().sort().values
    clear = sizes[zeros] > 1e-9 * sizes[-1] and (not zeros or sizes[zeros - 1] < 1e-12 * sizes[-1])
    negative = int((values < -1e-9 * sizes[-1]).sum())
    return (negative, zeros, len(values) - zeros - negative) if clear else None


def agrees(found: Certificate, risk: Risk, theta: Tensor) -> None:
    """A proof is about the point that was given, is that of floats, and the checker finds it again."""
    assert found.result == "proved", found.reason
    centre = torch.tensor(found.centre)
    assert (theta - centre).abs().max() < 1e-6
    assert found.risk is not None
    assert found.risk[0] <= found.risk[1]
    # A float that was computed with rounding errors may lie outside of the interval, but not far.
    assert found.risk[0] * (1 - 1e-12) <= risk(centre).item() <= found.risk[1] * (1 + 1e-12)
    assert found.risk[1] - found.risk[0] < 1e-6
    assert found.inertia is not None
    assert sum(found.inertia) == len(theta)
    expected = clear_inertia(risk, centre)
    assert expected in (None, found.inertia)
    assert check.verify(found.document) == list(found.inertia)


SMOOTH = [
    ((1, 1, 1), 9),
    ((2, 2, 1), 16),
    ((1, 1, 1, 1), 10),
    ((1, 2, 2), 12),
    ((2, 2, 1, 1), 18),
    ((1, 1, 1, 1, 1), 14),
]


@pytest.mark.parametrize("activation", [tanh, sigmoid, softplus], ids=lambda a: a.name)
def test_planted_points_of_the_squared_error_are_proved_and_checked(activation: Activation) -> None:
    """At seeds 0 to 2 of each network; those with a Hessian too near to singular stay undecided, for that reason."""
    proved = clear = 0
    for widths, n in SMOOTH:
        for seed in range(3):
            risk, theta = planted(activation, widths, seed=seed, n=n)
            found = certify(risk, theta)
            if found.result == "proved":
                agrees(found, risk, theta)
                proved += 1
                clear += clear_inertia(risk, theta) is not None
            else:
                assert found.result == "undecided"
                assert "singular" in found.reason
                assert clear_inertia(risk, theta) is None
    assert proved >= 9
    assert clear >= 3


@pytest.mark.parametrize("activation", [tanh, sigmoid, softplus], ids=lambda a: a.name)
@pytest.mark.parametrize(("widths", "n"), [((1, 1, 2), 8), ((2, 2, 2), 14), ((1, 1, 1, 3), 9), ((2, 3), 9)], ids=str)
def test_points_of_cross_entropy_are_proved_and_checked(
    activation: Activation, widths: tuple[int, ...], n: int
) -> None:
    proved = 0
    for seed in range(3):
        risk, theta = classified(activation, widths, seed=seed, n=n)
        found = certify(risk, theta)
        if found.result == "proved":
            agrees(found, risk, theta)
            assert found.inertia is not None
            assert found.inertia[1] == widths[-2] + 1
            proved += 1
    assert proved >= 1


def test_piecewise_affine_networks_are_proved_on_their_pieces() -> None:
    """Hard tanh with samples on all its pieces; ReLU and leaky ReLU neurons have a free scale, so H is singular."""
    proved = 0
    for seed in range(18):
        for widths, n in [((1, 1, 1), 9), ((2, 1, 1), 12)]:
            risk, theta = planted(hard_tanh, widths, seed=seed, n=n)
            found = certify(risk, theta)
            if found.result == "proved":
                agrees(found, risk, theta)
                proved += 1
    assert proved >= 8
    for activation in (relu, leaky_relu(0.25)):
        risk, theta = planted(activation, (1, 2, 1), n=12)
        assert "singular" in certify(risk, theta).reason


def test_the_constant_and_the_affine_network_are_proved() -> None:
    x = torch.linspace(-1, 1, 5)[:, None]
    line = Risk(Network((1, 1)), x, x**3)
    agrees(certify(line, torch.tensor([0.85, 0.0])), line, torch.tensor([0.85, 0.0]))
    plane = Risk(Network((2, 2)), torch.cat([x, x**2], 1), torch.cat([x**3, x.cos()], 1))
    theta = certify(plane, torch.zeros(6)).centre
    agrees(certify(plane, torch.tensor(theta)), plane, torch.tensor(theta))


def test_an_ill_conditioned_point_is_proved_with_more_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neurons 0.03 apart: with the gradient in floats alone the error would be 10⁶ times that of the parameters."""
    network = Network.uniform((1, 2, 1), tanh)
    theta = torch.tensor([1.0, 1.03, 0.3, 0.315, 0.5, -0.7, 0.1])
    x = torch.linspace(-2, 2, 12)[:, None]
    risk = plant(Parametrised(network, theta), x, generator=torch.Generator().manual_seed(0), residual=0.1)
    values = torch.linalg.eigvalsh(torch.func.hessian(risk)(theta)).abs()
    assert values.min() < 1e-10 * values.max()
    found = certify(risk, theta)
    assert found.result == "proved", found.reason
    assert found.radius < 1e-12
    assert check.verify(found.document) == list(found.inertia or ())
    coarse = lambda problem, centre: enclosure(risk, Ball(centre)).gradient[problem.free]  # noqa: E731
    monkeypatch.setattr(Problem, "_exact_gradient", coarse)
    assert certify(risk, theta).result == "undecided"


def test_what_floats_leave_undecided_is_tried_in_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    risk, theta = planted(widths=(1, 2, 1), n=20)
    floats = certify(risk, theta)
    monkeypatch.setattr(Problem, "by_floats", lambda self, centre, side: Verdict("undecided", "not tried"))
    whole = certify(risk, theta)
    agrees(whole, risk, theta)
    assert (whole.inertia, whole.radius) == (floats.inertia, floats.radius)
    assert certify(risk, theta + 0.1, radius=1e-9).result == "undecided"


# What must not be proved


def test_far_from_a_critical_point_there_is_none_in_the_box() -> None:
    risk, theta = planted(widths=(1, 2, 1), n=20)
    for distance in (1e-3, 1e-1):
        found = certify(risk, theta + distance, radius=1e-9)
        assert (found.result, found.reason) == ("refuted", "no critical point in the box")
        assert (found.inertia, found.risk, found.document) == (None, None, "")


def test_a_box_may_be_too_large_or_too_small() -> None:
    risk, theta = planted(n=20)
    proof = certify(risk, theta)
    large = certify(risk, theta, radius=0.5)
    assert (large.result, "too large" in large.reason) == ("undecided", True)
    small = certify(risk, torch.tensor(proof.centre), radius=proof.radius * 2.0**-40)
    assert small.result != "proved"
    assert small.result == "refuted" or small.reason == TOO_SMALL
    # A box that has the critical point near its edge: neither a proof that it is inside, nor that it is not.
    edge = certify(risk, torch.tensor(proof.centre) + 1e-9, radius=1e-9)
    assert (edge.result, edge.reason) == ("undecided", TOO_SMALL)


def test_degenerate_points_stay_undecided() -> None:
    network, generator = Network.uniform((1, 2, 1), tanh), torch.Generator().manual_seed(0)
    x = torch.randn(20, 1, generator=generator)
    twins = torch.tensor([1.0, 1.0, 0.3, 0.3, 0.5, 0.5, 0.1])
    silent = torch.tensor([1.0, 0.0, 0.3, 0.2, 0.5, 0.0, 0.1])
    for theta in (twins, silent):
        risk = plant(Parametrised(network, theta), x, generator=generator, residual=0.1)
        found = certify(risk, theta)
        assert (found.result, "singular" in found.reason) == ("undecided", True)


def test_a_kink_in_the_box_stays_undecided() -> None:
    """The second sample is at the end of the middle piece of hard tanh, or nearer to it than the side of the box."""
    risk, theta = next(
        (risk, theta)
        for seed in range(8)
        for risk, theta in [planted(hard_tanh, seed=seed, n=9)]
        if certify(risk, theta).result == "proved"
    )
    proof = certify(risk, theta)
    w, b = proof.centre[:2]
    z = w * risk.inputs[:, 0] + b
    gap = float((z.abs() - 1).abs().min() / (1 + risk.inputs.abs().max()))
    wide = certify(risk, torch.tensor(proof.centre), radius=8 * gap)
    assert wide.result == "undecided"
    kinked = torch.cat([risk.inputs, torch.tensor([[(1 - b) / w]])])
    with_kink = Risk(risk.network, kinked, torch.cat([risk.targets, torch.tensor([[1.0]])]))
    assert certify(with_kink, torch.tensor(proof.centre), radius=1e-9).result == "undecided"


def test_other_statements_about_a_proved_point_are_refused() -> None:
    risk, theta = planted(n=20)
    document = json.loads(certify(risk, theta).document)
    negative, zero, positive = document["inertia"]
    false: list[dict[str, object]] = [
        {"inertia": [negative + 1, zero, positive - 1]},
        {"inertia": [negative, zero + 1, positive - 1]},
        {"activations": ["sigmoid"]},
        {"inputs": document["inputs"][1:], "targets": document["targets"][1:]},
        {"radius": (1.0).hex()},
        {"radius": (2.0**-190).hex()},
        {"risk": document["risk"][::-1]},
        {"loss": "cross-entropy"},
    ]
    for more in false:
        with pytest.raises((ValueError, KeyError)):
            check.verify(check.sealed(document | more))


def test_what_cannot_be_certified_is_refused_by_name() -> None:
    risk, theta = planted(widths=(1, 1, 2), n=12)
    network = risk.network
    with pytest.raises(ValueError, match="got gelu"):
        certify(Risk(Network.uniform((1, 1, 2), gelu), risk.inputs, risk.targets), theta)
    with pytest.raises(ValueError, match="targets: rows must add up to one exactly"):
        certify(
            Risk(
                network, risk.inputs, torch.full_like(risk.targets, 0.5) + torch.tensor([2.0**-50, 0.0]), cross_entropy
            ),
            theta,
        )
    with pytest.raises(ValueError, match=r"radius: must be finite and above 2\^-150"):
        certify(risk, theta, radius=0.0)
    with pytest.raises(ValueError, match="theta: is not finite"):
        certify(risk, theta * float("nan"))
    with pytest.raises(ValueError, match=r"inputs: has digits below 2\^-192"):
        certify(Risk(network, risk.inputs * 2.0**-160, risk.targets), theta)
    normalized = Risk(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1e-5), risk.inputs, risk.targets[:, :1])
    with pytest.raises(ValueError, match="batch normalization"):
        certify(normalized, torch.ones(normalized.network.n_parameters))


def test_under_cross_entropy_a_box_without_points_of_its_slice_is_not_refuted() -> None:
    """All outputs may be shifted together: critical points of other slices may lie in the box."""
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    y = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    risk = Risk(Network((1, 2)), x, y, cross_entropy)
    found = search(risk, torch.zeros(1, 4, dtype=torch.float64)).lowest()
    proof = certify(risk, found)
    assert proof.result == "proved"
    shifted = torch.tensor(proof.centre, dtype=torch.float64)
    shifted[2:] += torch.tensor([0.9e-3, -0.9e-3], dtype=torch.float64)
    away = certify(risk, shifted, radius=1e-3)
    assert (away.result, "last output" in away.reason) == ("undecided", True)
    with pytest.raises(ValueError, match="risk: with one output cross-entropy is constant"):
        certify(Risk(Network((1, 1)), x, torch.ones_like(x), cross_entropy), torch.zeros(2))


def test_only_this_librarys_own_activations_are_believed() -> None:
    x = torch.linspace(-5, 5, 9, dtype=torch.float64)[:, None]
    theta = torch.tensor([1.0, 0.3, 0.5, 0.1], dtype=torch.float64)
    bent = Activation(
        "bent",
        lambda z: torch.nn.functional.hardtanh(z) + (z < -3.5) * (z + 3.5) ** 2,
        lambda z: (z.abs() < 1) + (z < -3.5) * 2 * (z + 3.5),
        torch.zeros_like,
        (AffinePiece(-1.0, 1.0, 1.0),),
    )
    disguised = Activation("tanh", torch.sin, torch.cos, lambda z: -torch.sin(z))
    for activation in (bent, disguised):
        with pytest.raises(ValueError, match="activation: "):
            certify(Risk(Network.uniform((1, 1, 1), activation), x, x**2), theta)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("size", [1e154, 1e160, 1e200])
def test_a_risk_that_overflows_is_not_proved(size: float) -> None:
    x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    risk = Risk(Network((1, 1)), x, size * torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64))
    found = certify(risk, size * torch.tensor([0.5, 1 / 6], dtype=torch.float64), radius=size * 1e-10)
    assert found.result != "proved" or all(map(math.isfinite, found.risk or (math.nan,)))
