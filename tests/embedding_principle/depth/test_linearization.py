import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedding_principle.activations import elu, hard_tanh, leaky_relu, relu, tanh
from embedding_principle.depth.lifting import Insertion, lift, occupied_pieces
from embedding_principle.depth.linearization import (
    batch_norm_thresholds,
    linear_fraction,
    linear_neurons,
    linearization_index,
    neuron_indices,
    threshold_bounds,
    with_batch_norm,
)
from embedding_principle.networks import Network

N = 12


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(activation, *, seed, widths=(2, 4, 3, 1), batch=(), bias_scale=1.0):
    network = Network.uniform(widths, activation)
    inputs = torch.randn(N, widths[0], generator=generator(seed), dtype=torch.float64)
    return network, network.initial(generator(seed + 1), bias_scale=bias_scale, batch=batch), inputs


@pytest.mark.parametrize("activation", [tanh, relu, elu])
def test_a_neurons_index_is_one_minus_the_squared_correlation(activation):
    network, theta, inputs = case(activation, seed=0)
    trace = network.trace(theta, inputs)
    for z, f, index in zip(trace.preactivations, trace.features[1:], neuron_indices(network, theta, inputs)):
        for j in range(z.shape[-1]):
            expected = 1 - stats.linregress(z[:, j], f[:, j]).rvalue ** 2 if f[:, j].std() > 0 else 0.0
            # scipy subtracts two numbers near one.
            assert index[j] == pytest.approx(expected, abs=1e-12)


def test_a_layers_index_weighs_its_neurons_by_their_variance():
    network, theta, inputs = case(tanh, seed=3, batch=(5,))
    trace = network.trace(theta, inputs)
    for layer, indices in enumerate(neuron_indices(network, theta, inputs)):
        weights = trace.features[layer + 1].numpy().var(-2)
        expected = (indices.numpy() * weights).sum(-1) / weights.sum(-1)
        np.testing.assert_allclose(linearization_index(network, theta, inputs)[:, layer], expected, rtol=1e-12)


def test_the_index_keeps_its_digits_where_tanh_is_nearly_linear():
    # tanh z = z − z³/3 for small z: the part of −z³/3 that is uncorrelated with z, over the variance of z.
    network = Network.uniform((1, 1, 1), tanh)
    inputs = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None]
    scale = 1e-4
    x = inputs[:, 0].numpy() * scale
    cubic = -(x**3) / 3
    cubic -= x * (cubic @ x) / (x @ x)
    expected = (cubic @ cubic) / (x @ x)
    index = linearization_index(network, torch.tensor([scale, 0.0, 1.0, 0.0], dtype=torch.float64), inputs)
    assert 1e-19 < expected < 1e-17, "below what a difference of variances would resolve"
    # The next term of the series is smaller by scale² = 1e-8; residuals of 1e-13 carry rounding of 1e-20 each.
    assert index.item() == pytest.approx(expected, rel=1e-5)


def test_an_affine_activation_and_a_constant_neuron_have_index_zero():
    network = Network.uniform((1, 2, 1), relu)
    inputs = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None]
    theta = torch.tensor([1.0, 1.0, 5.0, -5.0, 1.0, 1.0, 0.0], dtype=torch.float64)  # one alive, one dead
    # The residuals of an exact line are rounding: (1e-16)² relative to the variance.
    assert neuron_indices(network, theta, inputs)[0].max() < 1e-28
    assert linear_neurons(network, theta, inputs)[0].tolist() == [True, False]
    dead = torch.tensor([1.0, 1.0, -5.0, -5.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert linearization_index(network, dead, inputs).tolist() == [0.0]


@pytest.mark.parametrize("activation", [relu, leaky_relu(), hard_tanh, elu, tanh])
def test_linear_neurons_are_those_with_all_samples_in_one_piece(activation):
    network, theta, inputs = case(activation, seed=5, batch=(6,))
    found = linear_neurons(network, theta, inputs)
    for row in range(6):
        trace = network.trace(theta[row], inputs)
        for layer, z in enumerate(trace.preactivations):
            for j, column in enumerate(z.T.tolist()):
                expected = any(all(p.lower < value < p.upper for value in column) for p in activation.pieces)
                assert found[layer][row, j].item() == expected
    shares = torch.stack([each.double().mean(-1) for each in found], -1)
    assert torch.equal(linear_fraction(network, theta, inputs), shares)


def test_a_lifted_layer_is_linear_and_its_neighbours_need_not_be():
    network, theta, inputs = case(tanh, seed=7, widths=(2, 3, 1))
    lifted = lift(network, theta, inputs, [Insertion(1, 4, relu)], generator=generator(8))
    index = linearization_index(lifted.network, lifted.theta, inputs)
    assert index[1] < 1e-24 < 1e-6 < index[0]
    assert linear_fraction(lifted.network, lifted.theta, inputs).tolist() == [0.0, 1.0]
    assert not occupied_pieces(lifted.network, lifted.theta, inputs, 1).outside


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    gamma_scale=st.sampled_from([0.1, 1.0, 10.0]),
    beta=st.sampled_from([-1.0, 0.0, 0.3, 1.5, 4.0]),
    epsilon=st.sampled_from([0.0, 1e-5, 1.0]),
)
def test_the_threshold_decides_which_normalized_relu_neurons_are_linear(seed, gamma_scale, beta, epsilon):
    plain, start, inputs = case(relu, seed=seed)
    network, theta = with_batch_norm(plain, start, beta=beta, epsilon=epsilon)
    layers = network.layers(theta)
    for layer in layers[:-1]:
        layer.gamma.copy_(gamma_scale * torch.randn(layer.gamma.shape, generator=generator(seed), dtype=torch.float64))
    thresholds = batch_norm_thresholds(network, theta, inputs)
    trace = network.trace(theta, inputs)
    for layer, z, threshold, linear in zip(
        layers, trace.preactivations, thresholds, linear_neurons(network, theta, inputs)
    ):
        margin = layer.beta / layer.gamma.abs() - threshold
        clear = margin.abs() > 1e-9  # rounding decides on the threshold itself
        assert torch.equal((margin > 0)[clear], linear[clear])
        assert torch.equal(linear, (z > 0).all(0))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), epsilon=st.sampled_from([0.0, 1e-5, 1.0]))
def test_no_threshold_lies_below_its_bound(seed, epsilon):
    plain, start, inputs = case(tanh, seed=seed)
    network, theta = with_batch_norm(plain, start, epsilon=epsilon)
    for threshold, bound in zip(
        batch_norm_thresholds(network, theta, inputs), threshold_bounds(network, theta, inputs)
    ):
        assert (threshold >= bound * (1 - 1e-12)).all()
        assert (bound <= 1 / math.sqrt(N - 1) * (1 + 1e-12)).all()
        if epsilon == 0:
            torch.testing.assert_close(bound, torch.full_like(bound, 1 / math.sqrt(N - 1)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_bound_is_attained_by_one_sample_against_the_others(n):
    network, theta = with_batch_norm(Network.uniform((1, 1, 1), relu), torch.ones(4).double(), epsilon=0.0)
    inputs = torch.ones(n, 1, dtype=torch.float64)
    inputs[0] = 1.0 - n  # the outlier lies below, so the largest of −ẑ is the outlier's, and of ẑ the others'
    layers = network.layers(theta)
    layers[0].gamma.fill_(-1.0)
    threshold = batch_norm_thresholds(network, theta, inputs)[0].item()
    assert threshold == pytest.approx(1 / math.sqrt(n - 1), rel=1e-12)
    layers[0].gamma.fill_(1.0)
    assert batch_norm_thresholds(network, theta, inputs)[0].item() == pytest.approx(math.sqrt(n - 1), rel=1e-12)


def test_weights_before_the_normalization_cannot_lower_the_threshold():
    plain, start, inputs = case(relu, seed=11)
    network, theta = with_batch_norm(plain, start, epsilon=0.0)
    before = batch_norm_thresholds(network, theta, inputs)
    network.layers(theta)[0].weight.mul_(7.0)
    network.layers(theta)[0].bias.add_(5.0)
    after = batch_norm_thresholds(network, theta, inputs)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)


def test_batch_norm_leaves_weights_and_biases_as_they_are():
    plain, start, _ = case(tanh, seed=12, batch=(3,))
    network, theta = with_batch_norm(plain, start, gamma=0.1, beta=2.0)
    for old, new in zip(plain.layers(start), network.layers(theta)):
        assert torch.equal(old.weight, new.weight)
        assert torch.equal(old.bias, new.bias)
    assert all((layer.gamma == 0.1).all() and (layer.beta == 2.0).all() for layer in network.layers(theta)[:-1])


def test_thresholds_need_batch_normalization():
    with pytest.raises(ValueError, match="no batch normalization"):
        batch_norm_thresholds(*case(relu, seed=0))
