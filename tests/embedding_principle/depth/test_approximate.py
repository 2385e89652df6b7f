"""Approximate lifting: orders of output and gradient, their leading terms, and the exponential far field."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle.activations import Activation, gelu, identity, relu, sigmoid, softplus, tanh
from embedding_principle.depth.approximate import (
    ASYMPTOTE,
    approximate_lift,
    first_bend,
    leading_gradient,
    tangent,
)
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk

# The order p at centres of each kind, and σ^(p) from tables of derivatives.
GAUSSIAN = 1 / math.sqrt(2 * math.pi)
BENDS = [
    (tanh, 0.0, 3, -2.0),
    (sigmoid, 0.0, 3, -1 / 8),
    (softplus, 0.0, 2, 1 / 4),
    (gelu, 0.0, 2, 2 * GAUSSIAN),
    (gelu, math.sqrt(2), 3, -2 * math.sqrt(2) * GAUSSIAN * math.exp(-1)),
    (gelu, -math.sqrt(2), 3, 2 * math.sqrt(2) * GAUSSIAN * math.exp(-1)),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def critical(seed: int, *, position: int = 1, width: int = 3) -> tuple[Risk, Tensor, Parametrised]:
    """A critical point of NN(2, 2, 1) with residuals that do not vanish, and an identity layer over it."""
    g, network = generator(seed), Network.uniform((2, 2, 1), tanh)
    x = torch.randn(20, 2, generator=g, dtype=torch.float64)
    theta = network.initial(g, bias_scale=0.5)
    risk = plant(Parametrised(network, theta), x, generator=g)
    return risk, theta, lift(risk.at(theta), x, [Insertion(position, width, identity)], generator=g)


@pytest.mark.parametrize(("activation", "centre", "order", "value"), BENDS)
def test_the_first_bend(activation: Activation, centre: float, order: int, value: float) -> None:
    found = first_bend(activation, centre)
    assert found[0] == order
    assert found[1] == pytest.approx(value, rel=1e-14, abs=0)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("case", BENDS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_the_output_error_is_the_leading_term(
    seed: int, case: tuple[Activation, float, int, float], position: int
) -> None:
    """Behind the inserted layer: f_ε − f = ε^(p−1) κ/p! B₀ s^p + O(ε^p)."""
    activation, centre, order, value = case
    network, g = Network((2, 1)), generator(seed)
    x, shallow = torch.randn(9, 2, generator=g).double(), Parametrised(network, network.initial(g, bias_scale=1.0))
    straight = lift(shallow, x, [Insertion(0, 1 + position, identity)], generator=g)
    sizes = torch.tensor([1e-3], dtype=torch.float64)
    bent = approximate_lift(straight, 0, activation, line=tangent(activation, centre), centre=centre, sizes=sizes)
    s, outgoing = straight.trace(x).preactivations[0], straight.layers()[1]
    kappa = value / float(activation.first(torch.tensor(centre, dtype=torch.float64)))
    expected = sizes ** (order - 1) * kappa / math.factorial(order) * (s**order @ outgoing.weight.mT)
    found = bent.forward(x)[0] - shallow.forward(x)
    # Next terms are smaller by ε s and ε² s² (s up to 5), rounding is 1e-16 / ε.
    scale = sizes ** (order - 1) * float((s.abs() ** order @ outgoing.weight.abs().mT).max())
    torch.testing.assert_close(found, expected, rtol=0, atol=float(0.03 * scale) + 1e-12)


@pytest.mark.parametrize(("activation", "centre", "order", "_"), BENDS)
@pytest.mark.parametrize("position", [0, 1])
def test_the_gradient_tends_to_its_leading_term(
    activation: Activation, centre: float, order: int, _: float, position: int
) -> None:
    risk, _theta, straight = critical(0, position=position)
    sizes = torch.tensor([1e-2, 1e-3], dtype=torch.float64)
    bent = approximate_lift(
        straight, position, activation, line=tangent(activation, centre), centre=centre, sizes=sizes
    )
    found = risk.on(bent.network).gradient(bent.theta) * sizes[:, None] ** (2 - order)
    limit = leading_gradient(risk, straight, position, activation, centre)
    errors = (found - limit).norm(dim=-1) / limit.norm()
    # First order in ε at least. Rounding is 1e-16 / ε² in the gradient, 1e-16 / ε³ behind the factor ε^(2−p).
    assert errors[0] < 0.1
    assert errors[1] < max(0.12 * errors[0], 1e-5)


def test_with_a_line_for_an_activation_the_lift_is_exact() -> None:
    risk, theta, straight = critical(1)
    line = Activation("line", lambda z: 0.3 * z - 2, lambda z: 0.3 + 0 * z, torch.zeros_like)
    sizes = torch.tensor([1.0, 0.1], dtype=torch.float64)
    bent = approximate_lift(straight, 1, line, line=tangent(line, 0.7), centre=0.7, sizes=sizes)
    difference = bent.forward(risk.inputs) - risk.network.forward(theta, risk.inputs)
    assert difference.abs().max() < 1e-13  # rounding, enlarged by B of order 1 / (0.3 ε)
    assert risk.on(bent.network).gradient(bent.theta).norm(dim=-1).max() < 1e-12


def test_far_from_the_origin_softplus_is_off_by_its_exponential_tail() -> None:
    """softplus(z) − z = log(1 + e^(−z)): the output error is the sum of these tails, weighted by B₀."""
    shallow = Parametrised(Network((1, 1)), torch.tensor([2.0, -1.0], dtype=torch.float64))
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    straight = lift(shallow, x, [Insertion(0, 2, identity)], generator=generator(0))
    one = torch.ones(1, dtype=torch.float64)
    for centre in (5.0, 10.0, 15.0):
        bent = approximate_lift(straight, 0, softplus, line=ASYMPTOTE, centre=centre, sizes=one)
        z = bent.trace(x).preactivations[0][0]
        expected = torch.log1p(torch.exp(-z)) @ bent.layers()[1].weight[0].mT
        found = (bent.forward(x) - shallow.forward(x))[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-13)


def test_a_batch_of_members_gives_a_batch_for_each_size() -> None:
    network, x = Network.uniform((1, 2, 1), tanh), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    shallow = Parametrised(network, network.initial(generator(0)))
    straight = lift(shallow.expand(4), x, [Insertion(1, 3, identity)], generator=generator(1))
    sizes = torch.tensor([0.1, 0.01, 0.001], dtype=torch.float64)
    both = approximate_lift(straight, 1, tanh, line=tangent(tanh, 0.0), centre=0.0, sizes=sizes)
    assert both.theta.shape == (3, 4, straight.theta.shape[-1])
    one = approximate_lift(straight[2], 1, tanh, line=tangent(tanh, 0.0), centre=0.0, sizes=sizes[1:2])
    assert torch.equal(one.theta[0], both.theta[1, 2])
    risk = Risk(network, x, x)
    limits = leading_gradient(risk, straight, 1, tanh, 0.0)
    torch.testing.assert_close(limits[2], leading_gradient(risk, straight[2], 1, tanh, 0.0), rtol=1e-12, atol=1e-14)


def test_what_cannot_be_bent_is_refused() -> None:
    with pytest.raises(ValueError, match="tanh has a flat tangent at 50"):
        tangent(tanh, 50.0)
    with pytest.raises(ValueError, match="lift exactly"):
        first_bend(relu, 1.0)
    network, x = Network.uniform((1, 2, 1), tanh), torch.ones(3, 1, dtype=torch.float64)
    shallow = Parametrised(network, network.initial(generator(0)))
    straight = lift(shallow, x, [Insertion(1, 2, relu)], generator=generator(0))
    with pytest.raises(ValueError, match="position 1 is not an identity layer"):
        approximate_lift(straight, 1, tanh, line=ASYMPTOTE, centre=0.0, sizes=torch.ones(1, dtype=torch.float64))
