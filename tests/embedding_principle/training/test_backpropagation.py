"""Both passes against automatic differentiation and finite differences."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle.activations import ACTIVATIONS, Activation, leaky_relu, relu, sigmoid, softplus, tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error
from embedding_principle.training.backpropagation import Backpropagation, _tanh_by_exp, _tanh_by_numpy


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_risk(network: Network, *, n: int, seed: int, loss: Loss = squared_error) -> Risk:
    targets = torch.softmax(normal(n, network.widths[-1], seed=seed), dim=-1)
    return Risk(network, normal(n, network.widths[0], seed=seed + 1), targets, loss)


def propagated(risk: Risk, theta: Tensor) -> Backpropagation:
    propagation = Backpropagation(risk, theta)
    propagation.forward()
    propagation.backward()
    return propagation


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), leaky_relu(0.3)], ids=lambda activation: activation.name)
@pytest.mark.parametrize("epsilon", [None, 1e-5])
@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@settings(deadline=None, max_examples=8)
@given(widths=st.lists(st.integers(1, 5), min_size=2, max_size=5), size=st.integers(1, 4), seed=st.integers(0, 1000))
def test_gradients_agree_with_automatic_differentiation(
    activation: Activation, epsilon: float | None, loss: Loss, widths: list[int], size: int, seed: int
) -> None:
    network = Network.uniform(widths, activation, batch_norm_epsilon=epsilon)
    risk = random_risk(network, n=6, seed=seed, loss=loss)
    theta = normal(size, network.n_parameters, seed=seed)
    propagation = propagated(risk, theta)
    # Sums of at most 30 products in float64; batch normalization divides by a standard deviation that may be as small
    # as sqrt(ε) ≈ 3e-3, once a layer, which can cost two digits each time.
    gradient = propagation.unpack(propagation.gradient)
    torch.testing.assert_close(gradient, risk.gradient(theta), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(propagation.risk(), risk(theta), rtol=1e-10, atol=1e-12)
    assert torch.equal(propagation.theta, theta)


def test_the_gradient_agrees_with_finite_differences() -> None:
    network = Network.uniform((2, 3, 2), tanh, batch_norm_epsilon=1e-3)
    risk = random_risk(network, n=5, seed=1)
    theta = normal(network.n_parameters, seed=1)
    step = 1e-5 * torch.eye(len(theta), dtype=torch.float64)
    expected = (risk(theta + step) - risk(theta - step)) / 2e-5
    propagation = propagated(risk, theta[None])
    # Central differences err by h²/6 · |third derivative| ≈ 1e-10 and by rounding, ε/h ≈ 1e-11.
    gradient = propagation.unpack(propagation.gradient)[0]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", [_tanh_by_exp, _tanh_by_numpy])
def test_the_tanh_of_training_differs_from_the_function_by_roundings_of_one(
    form: Callable[[Tensor, Tensor], None],
) -> None:
    grid = torch.linspace(-25, 25, 100_001, dtype=torch.float64)
    extremes = torch.tensor([1e-17, 1e-300, 1e308, torch.inf, 0.0], dtype=torch.float64)
    z = torch.cat([grid, extremes, -extremes])
    f = torch.empty_like(z)
    form(z.clone(), f)
    assert (f - z.tanh()).abs().max() <= 2 * torch.finfo(torch.float64).eps
    assert (f[z == 0] == 0).all()
    form(torch.full_like(z, torch.nan), f)
    assert f.isnan().all()


@pytest.mark.parametrize("activation", [tanh, sigmoid, relu], ids=lambda activation: activation.name)
def test_another_curve_of_the_same_name_is_computed_as_it_says(activation: Activation) -> None:
    namesake = replace(softplus, name=activation.name)
    assert namesake == activation
    risk = random_risk(Network.uniform((2, 3, 1), namesake), n=5, seed=0)
    theta = normal(4, risk.network.n_parameters, seed=2)
    propagation = propagated(risk, theta)
    # Sums of a dozen products of order one.
    torch.testing.assert_close(propagation.risk(), risk(theta), rtol=1e-13, atol=0)
    gradient = propagation.unpack(propagation.gradient)
    torch.testing.assert_close(gradient, risk.gradient(theta), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", [tanh, sigmoid, relu], ids=lambda activation: activation.name)
def test_a_derivative_of_its_own_is_used(activation: Activation) -> None:
    """A straight-through slope: σ is the well-known one, σ′ is not."""
    straight = replace(activation, name="straight through", first=torch.ones_like)
    x, theta = torch.tensor([[0.5]]).double(), torch.tensor([[2.0, 0.0, 1.0, 0.0]]).double()
    propagation = propagated(Risk(Network.uniform((1, 1, 1), straight), x, 0 * x), theta)
    # δ = 2f reaches the incoming weight unchanged and is multiplied by x.
    assert propagation.gradient[0] == 2 * propagation.outputs[0, 0, 0] * 0.5
