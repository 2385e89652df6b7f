import numpy as np
import pytest
import torch
from scipy import stats

from embedding_principle.activations import elu, hard_tanh, leaky_relu, relu, tanh
from embedding_principle.depth.lifting import Insertion, lift, occupied_pieces
from embedding_principle.linearity import (
    linear_fraction,
    linear_neurons,
    linearization_index,
    neuron_indices,
)
from embedding_principle.networks import Network, Parametrised

N = 12


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(activation, *, seed, widths=(2, 4, 3, 1), batch=(), bias_scale=1.0):
    network = Network.uniform(widths, activation)
    inputs = torch.randn(N, widths[0], generator=generator(seed), dtype=torch.float64)
    return Parametrised(network, network.initial(generator(seed + 1), bias_scale=bias_scale, batch=batch)), inputs


@pytest.mark.parametrize("activation", [tanh, relu, elu])
def test_a_neurons_index_is_one_minus_the_squared_correlation(activation):
    point, inputs = case(activation, seed=0)
    trace = point.trace(inputs)
    for z, f, index in zip(trace.preactivations, trace.features[1:], neuron_indices(point, inputs)):
        for j in range(z.shape[-1]):
            expected = 1 - stats.linregress(z[:, j], f[:, j]).rvalue ** 2 if f[:, j].std() > 0 else 0.0
            # scipy subtracts two numbers near one.
            assert index[j] == pytest.approx(expected, abs=1e-12)


def test_a_layers_index_weighs_its_neurons_by_their_variance():
    point, inputs = case(tanh, seed=3, batch=(5,))
    trace = point.trace(inputs)
    for layer, indices in enumerate(neuron_indices(point, inputs)):
        weights = trace.features[layer + 1].numpy().var(-2)
        expected = (indices.numpy() * weights).sum(-1) / weights.sum(-1)
        np.testing.assert_allclose(linearization_index(point, inputs)[:, layer], expected, rtol=1e-12)


def test_the_index_keeps_its_digits_where_tanh_is_nearly_linear():
    # tanh z = z − z³/3 for small z: the part of −z³/3 that is uncorrelated with z, over the variance of z.
    inputs = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None]
    scale = 1e-4
    x = inputs[:, 0].numpy() * scale
    cubic = -(x**3) / 3
    cubic -= x * (cubic @ x) / (x @ x)
    expected = (cubic @ cubic) / (x @ x)
    theta = torch.tensor([scale, 0.0, 1.0, 0.0], dtype=torch.float64)
    index = linearization_index(Parametrised(Network.uniform((1, 1, 1), tanh), theta), inputs)
    assert 1e-19 < expected < 1e-17, "below what a difference of variances would resolve"
    # The next term of the series is smaller by scale² = 1e-8; residuals of 1e-13 carry rounding of 1e-20 each.
    assert index.item() == pytest.approx(expected, rel=1e-5, abs=0)


def test_an_affine_activation_and_a_constant_neuron_have_index_zero():
    network = Network.uniform((1, 2, 1), relu)
    inputs = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None]
    theta = torch.tensor([1.0, 1.0, 5.0, -5.0, 1.0, 1.0, 0.0], dtype=torch.float64)  # one alive, one dead
    point = Parametrised(network, theta)
    # The residuals of an exact line are rounding: (1e-16)² relative to the variance.
    assert neuron_indices(point, inputs)[0].max() < 1e-28
    assert linear_neurons(point, inputs)[0].tolist() == [True, False]
    dead = torch.tensor([1.0, 1.0, -5.0, -5.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert linearization_index(point.with_theta(dead), inputs).tolist() == [0.0]


@pytest.mark.parametrize("activation", [relu, leaky_relu(), hard_tanh, elu, tanh])
def test_linear_neurons_are_those_with_all_samples_in_one_piece(activation):
    point, inputs = case(activation, seed=5, batch=(6,))
    found = linear_neurons(point, inputs)
    for row in range(6):
        trace = point[row].trace(inputs)
        for layer, z in enumerate(trace.preactivations):
            for j, column in enumerate(z.T.tolist()):
                expected = any(all(p.lower < value < p.upper for value in column) for p in activation.pieces)
                assert found[layer][row, j].item() == expected
    shares = torch.stack([each.double().mean(-1) for each in found], -1)
    assert torch.equal(linear_fraction(point, inputs), shares)


def test_a_lifted_layer_is_linear_and_its_neighbours_need_not_be():
    point, inputs = case(tanh, seed=7, widths=(2, 3, 1))
    lifted = lift(point, inputs, [Insertion(1, 4, relu)], generator=generator(8))
    index = linearization_index(lifted, inputs)
    assert index[1] < 1e-24 < 1e-6 < index[0]
    assert linear_fraction(lifted, inputs).tolist() == [0.0, 1.0]
    assert not occupied_pieces(lifted, inputs, 1).outside


def test_where_pre_activations_overflow_there_is_no_share():
    point = Parametrised(Network.uniform((1, 1, 1), relu), torch.tensor([[1e200, 0, 1, 0], [1, 2, 1, 0]]).double())
    found = linear_fraction(point, torch.tensor([[1e200], [1.0]]).double())
    assert found[0].isnan().all()
    assert found[1].tolist() == [1.0]
