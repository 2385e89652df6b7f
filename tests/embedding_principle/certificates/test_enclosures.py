"""Risk, gradient and Hessian over boxes hold those of automatic differentiation and of an oracle of 300 bits."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from flint import arb

from embedding_principle.activations import elu, gelu, hard_tanh, leaky_relu, relu, sigmoid, softplus, tanh
from embedding_principle.certificates.certify import Problem
from embedding_principle.certificates.enclosures import Enclosure, affine_pieces, enclosure
from embedding_principle.certificates.intervals import Ball
from embedding_principle.networks import Network
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

from . import oracle

CASES = int(os.environ.get("CONTAINMENT_CASES", "100"))  # 10 000 and more by hand
SIGMAS = (tanh, sigmoid, softplus, hard_tanh, leaky_relu(0.25), relu)
WIDTHS = ((1, 1), (2, 2), (1, 1, 1), (1, 2, 2), (2, 1, 1, 1), (1, 1, 2, 2), (1, 2, 1, 1, 1))


def drawn(loss: Loss, draw: random.Random, n: int = 2) -> tuple[Risk, np.ndarray]:
    """A network, data and parameters at random; the targets of cross-entropy are half the one, half the other label."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    widths = draw.choice(WIDTHS)
    if loss is cross_entropy:
        widths = (*widths[:-1], widths[-1] + 1)
    network = Network(widths, tuple(draw.choice(SIGMAS) for _ in widths[2:]))
    x, y, theta = (
        torch.randn(shape, generator=generator) for shape in ((n, widths[0]), (n, widths[-1]), (network.n_parameters,))
    )
    if loss is cross_entropy:
        y = torch.zeros_like(y).index_fill_(1, torch.tensor([0, len(y[0]) - 1]), 0.5)
    return Risk(network, x, y, loss), theta.numpy()


def known(over: Enclosure, hessian: Ball) -> bool:
    """Whether no sample may be at a kink."""
    return bool(np.isfinite(hessian.radius).all() and np.isfinite(over.gradient.radius).all())


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
def test_boxes_hold_the_oracle_at_points_of_them(loss: Loss) -> None:
    draw, found = random.Random(loss.name), 0
    for _ in range(CASES):
        risk, centre = drawn(loss, draw)
        side = 10.0 ** draw.uniform(-16, -1)
        place = draw.choice([1.0, 1.0, draw.random()])
        with np.errstate(all="ignore"):
            over = enclosure(risk, Ball(centre, side))
            hessian = over.hessian()
        if not known(over, hessian):
            continue
        found += 1
        point = [arb(float(value)) + draw.choice([-1, 1]) * place * arb(side) for value in centre]
        places = Problem(risk).order
        ordered = iter([point[place] for place in places])
        layers = [
            [[next(ordered) for _ in row] for row in layer.incoming]
            for layer in risk.network.layers(torch.from_numpy(centre))
        ]
        sigmas = [
            a.name if not a.pieces else [[arb(number) for number in piece] for piece in affine_pieces(a)]
            for a in risk.network.activations
        ]
        data = [[[arb(float(value)) for value in row] for row in table] for table in (risk.inputs, risk.targets)]
        jet = oracle.Problem(loss.name, sigmas, *data).risk(layers)

        def inside(middle: float, radius: float, true: arb) -> bool:
            return bool(abs(true - arb(float(middle))) <= arb(float(radius)))

        assert inside(over.risk.middle, over.risk.radius, jet.value)
        gradient, hessian = over.gradient[places], hessian[np.ix_(places, places)]
        size = range(len(places))
        assert all(inside(gradient.middle[i], gradient.radius[i], jet.slope[i, 0]) for i in size)
        assert all(inside(hessian.middle[i, j], hessian.radius[i, j], jet.bend[i, j]) for i in size for j in size)
    print(loss.name, found)
    assert found > CASES / 2


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 2), (2, 3, 2, 2), (1, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("sigma", [tanh, sigmoid, softplus, hard_tanh, leaky_relu(0.25)], ids=lambda a: a.name)
def test_derivatives_are_those_of_automatic_differentiation(loss: Loss, widths: tuple[int, ...], sigma: object) -> None:
    generator = torch.Generator().manual_seed(0)
    network = Network.uniform(widths, sigma)
    x, y = (torch.randn(5, m, generator=generator) for m in (widths[0], widths[-1]))
    if loss is cross_entropy:
        y = torch.softmax(y, -1)
    risk = Risk(network, x, y, loss)
    theta = torch.randn(network.n_parameters, generator=generator)
    over = enclosure(risk, Ball(theta.numpy()))
    hessian = over.hessian()
    assert np.array_equal(hessian.middle, hessian.middle.T)
    # Automatic differentiation errs by rounding too, and it has no bound.
    for ball, true in (
        (over.risk, risk(theta)),
        (over.gradient, risk.gradient(theta)),
        (hessian, torch.func.hessian(risk)(theta)),
    ):
        scale = 1 + abs(ball.middle).max()
        assert abs(ball.middle - true.numpy()).max() < 1e-13 * scale
        # Five layers of sums, each term with an error of some 2^-48.
        assert ball.radius.max() < 1e-11 * scale
    moved = theta + 1e-4 * (2 * torch.rand(len(theta), generator=generator) - 1)
    wide = enclosure(risk, Ball(theta.numpy(), 1e-4))
    if known(wide, wide.hessian()):
        assert wide.risk.holds(risk(moved).numpy())
        assert wide.gradient.holds(risk.gradient(moved).numpy())
        assert wide.hessian().holds(torch.func.hessian(risk)(moved).numpy())
    else:
        assert sigma.pieces


def test_a_kink_makes_everything_unknown() -> None:
    x = torch.tensor([[1.0], [2.0]])
    risk = Risk(Network.uniform((1, 1, 1), relu), x, x)
    theta = [1.0, -1.0, 1.0, 0.0]  # the first sample is at the kink
    with np.errstate(all="ignore"):
        over = enclosure(risk, Ball(theta, 1e-9))
        assert not known(over, over.hessian())
        away = enclosure(risk, Ball([1.0, -0.99, 1.0, 0.0], 1e-4))
        assert known(away, away.hessian())


def test_what_has_no_enclosure_is_refused_by_name() -> None:
    x = torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
    risk = Risk(Network.uniform((1, 1, 1), gelu), x, x)
    with pytest.raises(ValueError, match="the piecewise affine ones of `activations`, got gelu"):
        enclosure(risk, Ball(np.ones(4)))
    with pytest.raises(ValueError, match="a ball of 2 parameters"):
        enclosure(Risk(Network((1, 1)), x, x), Ball(np.ones(3)))
    normalized = Risk(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1e-5), x, x)
    with pytest.raises(ValueError, match="batch normalization"):
        enclosure(normalized, Ball(np.ones(normalized.network.n_parameters)))


def test_affine_pieces_agree_with_the_activation() -> None:
    for sigma in (relu, leaky_relu(0.25), hard_tanh, elu):
        for low, high, slope, shift in affine_pieces(sigma):
            z = torch.linspace(max(low, -9.0), min(high, 9.0), 7)[1:-1]
            assert torch.allclose(sigma(z), slope * z + shift, atol=1e-15)
    assert len(affine_pieces(elu)) == 1
    with pytest.raises(ValueError, match="got tanh"):
        affine_pieces(tanh)
