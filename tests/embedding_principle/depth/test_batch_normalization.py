import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import elu, identity, relu, tanh
from embedding_principle.depth.batch_normalization import (
    fold_batch_norm,
    linearity_thresholds,
    threshold_bounds,
    with_batch_norm,
)
from embedding_principle.linearity import linear_neurons
from embedding_principle.networks import Network, Parametrised

N = 12


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(activation, *, seed, widths=(2, 4, 3, 1), batch=()):
    network = Network.uniform(widths, activation)
    inputs = torch.randn(N, widths[0], generator=generator(seed), dtype=torch.float64)
    return Parametrised(network, network.initial(generator(seed + 1), bias_scale=1.0, batch=batch)), inputs


@pytest.mark.parametrize("gamma_scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.3, 1.5, 4.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1.0])
@settings(max_examples=3)
@given(seed=st.integers(0, 10_000))
def test_the_threshold_decides_which_normalized_relu_neurons_are_linear(seed, gamma_scale, beta, epsilon):
    plain, inputs = case(relu, seed=seed)
    point = with_batch_norm(plain, beta=beta, epsilon=epsilon)
    layers = point.layers()
    for layer in layers[:-1]:
        layer.gamma.copy_(gamma_scale * torch.randn(layer.gamma.shape, generator=generator(seed), dtype=torch.float64))
    thresholds = linearity_thresholds(point, inputs)
    trace = point.trace(inputs)
    for layer, z, threshold, linear in zip(layers, trace.preactivations, thresholds, linear_neurons(point, inputs)):
        margin = layer.beta / layer.gamma.abs() - threshold
        clear = margin.abs() > 1e-9  # rounding decides on the threshold itself
        assert torch.equal((margin > 0)[clear], linear[clear])
        assert torch.equal(linear, (z > 0).all(0))


def flattest_shift(point: Parametrised, inputs: torch.Tensor, neuron: int) -> float:
    """Bisection for the least β at which a one-layer network's outputs say that one neuron is affine on S.

    With outgoing weight 1 for this neuron alone and the identity in place of σ, the same network gives what an affine
    neuron would: nothing is read but outputs of forward passes.
    """
    layers = point.layers()
    layers[1].weight.zero_()[:, neuron] = 1.0
    affine = Parametrised(replace(point.network, activations=(identity,)), point.theta)
    low, high = -100.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        layers[0].beta[neuron] = middle  # a view of both θ
        same = torch.equal(point.forward(inputs), affine.forward(inputs))
        low, high = (low, middle) if same else (middle, high)
    return high


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1.0])
@pytest.mark.parametrize("n", [3, 12, 60])
def test_bisection_through_the_outputs_finds_the_threshold(n, epsilon, sign):
    plain = Network.uniform((2, 4, 1), relu)
    inputs = torch.randn(n, 2, generator=generator(n), dtype=torch.float64)
    point = with_batch_norm(Parametrised(plain, plain.initial(generator(n + 1), bias_scale=1.0)), epsilon=epsilon)
    gamma = point.layers()[0].gamma
    gamma.copy_(sign * torch.tensor([0.1, 0.5, 1.0, 3.0]))
    predicted = linearity_thresholds(point, inputs)[0] * gamma.abs()
    found = torch.tensor([flattest_shift(point, inputs, neuron) for neuron in range(4)])
    # The bisection stops at 1e-9, twice the rounding of outputs of order one is far below it.
    torch.testing.assert_close(found.double(), predicted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1.0])
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_no_threshold_lies_below_its_bound(seed, epsilon):
    plain, inputs = case(tanh, seed=seed)
    point = with_batch_norm(plain, epsilon=epsilon)
    for threshold, bound in zip(linearity_thresholds(point, inputs), threshold_bounds(point, inputs)):
        assert (threshold >= bound * (1 - 1e-12)).all()
        assert (bound <= 1 / math.sqrt(N - 1) * (1 + 1e-12)).all()
        if epsilon == 0:
            torch.testing.assert_close(bound, torch.full_like(bound, 1 / math.sqrt(N - 1)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_bound_is_attained_by_one_sample_against_the_others(n):
    plain = Parametrised(Network.uniform((1, 1, 1), relu), torch.ones(4).double())
    point = with_batch_norm(plain, epsilon=0.0)
    inputs = torch.ones(n, 1, dtype=torch.float64)
    inputs[0] = 1.0 - n  # the outlier lies below, so the largest of −ẑ is the outlier's, and of ẑ the others'
    layers = point.layers()
    layers[0].gamma.fill_(-1.0)
    threshold = linearity_thresholds(point, inputs)[0].item()
    assert threshold == pytest.approx(1 / math.sqrt(n - 1), rel=1e-12, abs=0)
    layers[0].gamma.fill_(1.0)
    assert linearity_thresholds(point, inputs)[0].item() == pytest.approx(math.sqrt(n - 1), rel=1e-12, abs=0)


def test_without_epsilon_the_weights_before_the_normalization_cannot_lower_the_threshold():
    plain, inputs = case(relu, seed=11)
    point = with_batch_norm(plain, epsilon=0.0)
    before = linearity_thresholds(point, inputs)
    point.layers()[0].weight.mul_(7.0)
    point.layers()[0].bias.add_(5.0)
    after = linearity_thresholds(point, inputs)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)


def test_small_weights_lower_the_threshold_through_epsilon_alone():
    plain, inputs = case(relu, seed=11)
    point = with_batch_norm(plain, epsilon=1e-5)
    before = linearity_thresholds(point, inputs)[0]
    first = point.layers()[0]
    variance = (inputs @ first.weight.mT).var(0, correction=0)
    first.weight.mul_(1e-4)
    expected = before * 1e-4 * ((variance + 1e-5) / (1e-8 * variance + 1e-5)).sqrt()
    torch.testing.assert_close(linearity_thresholds(point, inputs)[0], expected, rtol=1e-10, atol=0)
    assert (expected < before / 10).all()


def test_batch_norm_leaves_weights_and_biases_as_they_are():
    plain, _ = case(tanh, seed=12, batch=(3,))
    point = with_batch_norm(plain, gamma=0.1, beta=2.0)
    for old, new in zip(plain.layers(), point.layers()):
        assert torch.equal(old.weight, new.weight)
        assert torch.equal(old.bias, new.bias)
    assert all((layer.gamma == 0.1).all() and (layer.beta == 2.0).all() for layer in point.layers()[:-1])


def test_thresholds_need_batch_normalization():
    with pytest.raises(ValueError, match="no batch normalization"):
        linearity_thresholds(*case(relu, seed=0))


@pytest.mark.parametrize("activation", [relu, tanh, elu], ids=lambda activation: activation.name)
@pytest.mark.parametrize("epsilon", [1e-5, 1e-2, 1.0])
@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_folding_keeps_features_and_outputs(seed, activation, epsilon):
    plain, inputs = case(activation, seed=seed, batch=(3,))
    point = with_batch_norm(plain, epsilon=epsilon)
    noise = torch.randn(point.theta.shape, generator=generator(seed), dtype=torch.float64)
    point = point.with_theta(point.theta + 0.3 * noise)
    folded = fold_batch_norm(point, inputs)
    before, after = point.trace(inputs), folded.trace(inputs)
    # Division by s ≥ sqrt(ε) ≥ 3e-3, layer after layer, can cost three digits twice.
    for old, new in zip([*before.features, before.output], [*after.features, after.output]):
        torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-9)
    assert folded.network == plain.network


def test_folding_at_initialization_gives_unit_variance():
    plain, inputs = case(tanh, seed=3)
    folded = fold_batch_norm(with_batch_norm(plain, epsilon=1e-12), inputs)
    for z in folded.trace(inputs).preactivations:
        torch.testing.assert_close(z.var(0, correction=0), torch.ones(z.shape[-1]).double(), rtol=1e-8, atol=0)
