import itertools

import pytest
import torch

from embedding_principle.activations import elu, gelu, sigmoid, softplus, tanh
from embedding_principle.critical_points import search
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.curvature.inertia import UnclearInertiaError, inertia
from embedding_principle.datasets import one_dimensional, wine
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy, squared_error
from embedding_principle.width.compatible import violations
from embedding_principle.width.splitting import (
    coupling_rank,
    neuron_blocks,
    null_blocks,
    null_coordinates,
    split,
    splitting_block,
    splitting_coordinates,
    splitting_inertia,
    with_null_neuron,
)

SHARES = [(0.5, 0.5), (0.2, 0.8), (1.0, 0.0), (-0.5, 1.5), (0.25, 0.25, 0.5), (2.0, -1.5, 0.0, 0.5)]
CASES = [
    ((2, 3, 1), tanh, squared_error),
    ((2, 3, 2), sigmoid, cross_entropy),
    ((2, 3, 2, 2), softplus, squared_error),
    ((1, 2, 3, 2), elu, cross_entropy),
    ((3, 2, 2, 2, 1), gelu, squared_error),
]


def problem(widths, activation, loss, seed=0, n=12):
    """A random point of a random risk; targets of cross-entropy are probabilities."""
    generator = torch.Generator().manual_seed(seed)
    network = Network.uniform(widths, activation)
    inputs = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    targets = torch.randn(n, widths[-1], generator=generator, dtype=torch.float64)
    targets = torch.softmax(targets, -1) if loss == cross_entropy else targets
    return Risk(network, inputs, targets, loss), network.initial(generator, bias_scale=0.5)


def by_autograd(risk, theta):
    return differentiated_hessian(risk, theta[None])[0]


def places(network):
    return [(q, neuron) for q in range(network.depth - 1) for neuron in range(network.widths[q + 1])]


def congruence(risk, theta, wide, coordinates, block, hessian_of):
    """The largest entry of Tᵀ H′ T − H ⊕ Q, relative to the largest of H′."""
    H, wider = hessian_of(risk, theta), hessian_of(risk.on(wide.network), wide.theta)
    expected = torch.block_diag(H, block)
    return ((coordinates.mT @ wider @ coordinates - expected).abs().max() / wider.abs().max()).item()


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
def test_splitting_keeps_the_function_for_every_input(widths, activation, loss, shares):
    risk, theta = problem(widths, activation, loss)
    point, anywhere = risk.at(theta), 3 * torch.randn(50, widths[0], dtype=torch.float64)
    for q, neuron in places(risk.network):
        wide = split(point, q, neuron, shares)
        torch.testing.assert_close(wide.forward(anywhere), point.forward(anywhere), rtol=0, atol=1e-13)
    null = with_null_neuron(point, 0, 0.7)
    torch.testing.assert_close(null.forward(anywhere), point.forward(anywhere), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
def test_the_law_is_a_congruence_at_every_point(widths, activation, loss, shares):
    risk, theta = problem(widths, activation, loss)
    for q, neuron in places(risk.network):
        coordinates = splitting_coordinates(risk.network, q, neuron, shares)
        block = splitting_block(neuron_blocks(risk, theta, q, neuron), shares)
        wide = split(risk.at(theta), q, neuron, shares)
        # Entries are sums of some hundred products.
        assert congruence(risk, theta, wide, coordinates, block, by_autograd) < 1e-13
        assert torch.linalg.matrix_rank(coordinates) == len(coordinates)


@pytest.mark.parametrize("bias", [0.0, 0.8, -1.3])
@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
def test_the_law_of_null_neurons_is_a_congruence_at_every_point(widths, activation, loss, bias):
    risk, theta = problem(widths, activation, loss)
    for q in range(risk.network.depth - 1):
        coordinates = null_coordinates(risk.network, q, bias)
        blocks = null_blocks(risk, theta, q, bias)
        corners = [
            torch.zeros(len(side), len(side), dtype=torch.float64) for side in (blocks.coupling.mT, blocks.coupling)
        ]
        block = torch.cat([torch.cat([corners[0], blocks.coupling.mT], 1), torch.cat([blocks.coupling, corners[1]], 1)])
        wide = with_null_neuron(risk.at(theta), q, bias)
        assert congruence(risk, theta, wide, coordinates, block, by_autograd) < 1e-13


@pytest.mark.parametrize(("widths", "activation", "loss"), CASES[:3])
def test_the_law_agrees_with_finite_differences_of_the_gradient(widths, activation, loss):
    """Central differences of step h are off by h² times third derivatives, and by ε/h of the gradient."""
    risk, theta = problem(widths, activation, loss)
    wide = split(risk.at(theta), 0, 1, (0.3, 0.7))
    deeper, step = risk.on(wide.network), 1e-5
    moves = step * torch.eye(len(wide.theta), dtype=torch.float64)
    differences = (deeper.gradient(wide.theta + moves) - deeper.gradient(wide.theta - moves)) / (2 * step)
    coordinates = splitting_coordinates(risk.network, 0, 1, (0.3, 0.7))
    block = splitting_block(neuron_blocks(risk, theta, 0, 1), (0.3, 0.7))
    expected = torch.block_diag(hessian(risk, theta), block)
    found = coordinates.mT @ differences @ coordinates
    assert (found - expected).abs().max() < 1e-8 * (1 + expected.abs().max())


@pytest.mark.parametrize("shares", SHARES)
def test_the_predicted_inertia_is_that_of_the_block_and_of_the_wider_hessian(shares):
    """At planted critical points; where a sign is not clear, on either side, nothing is compared."""
    decided = 0
    for seed, (widths, activation) in enumerate(
        itertools.product([(2, 3, 1), (2, 3, 3), (2, 2, 3, 1), (1, 3, 2, 2)], [tanh, sigmoid])
    ):
        generator = torch.Generator().manual_seed(seed)
        network = Network.uniform(widths, activation)
        point = Parametrised(network, network.initial(generator, scale=2.0, bias_scale=1.0))
        inputs = torch.randn(80, widths[0], generator=generator, dtype=torch.float64)
        risk = plant(point, inputs, generator=generator, residual=0.5)
        for q, neuron in places(network):
            wide = split(point, q, neuron, shares)
            try:
                narrow = inertia(hessian(risk, point.theta)).counts
                found = inertia(hessian(risk.on(wide.network), wide.theta)).counts
                added = splitting_inertia(neuron_blocks(risk, point.theta, q, neuron), shares)
            except UnclearInertiaError:
                continue
            assert found == tuple(a + b for a, b in zip(narrow, added))
            decided += 1
    assert decided >= 15


def test_at_a_critical_point_the_outgoing_weights_are_orthogonal_to_the_coupling():
    """∂R/∂u = Σ (V·δ) σ′ a = Vᵀ N: so ρ ≤ p − 1, and N = 0 for a scalar next layer."""
    risk, theta = problem((2, 3, 2), tanh, squared_error)
    layers = risk.network.layers(theta)
    gradient = risk.network.layers(risk.gradient(theta))[0]
    for neuron in range(3):
        coupling = neuron_blocks(risk, theta, 0, neuron).coupling
        expected = torch.cat([gradient.weight[neuron], gradient.bias[neuron : neuron + 1]])
        torch.testing.assert_close(layers[1].weight[:, neuron] @ coupling, expected, rtol=1e-12, atol=1e-14)
    generator, network = torch.Generator().manual_seed(3), Network.uniform((2, 3, 1), tanh)
    point = Parametrised(network, network.initial(generator, bias_scale=0.5))
    inputs = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    scalar = plant(point, inputs, generator=generator)
    assert [coupling_rank(neuron_blocks(scalar, point.theta, 0, neuron)) for neuron in range(3)] == [0, 0, 0]


def test_sigmoid_on_wine_gains_what_the_law_says():
    data = wine()
    risk = Risk(Network.uniform((13, 2, 3), sigmoid), data.inputs, data.targets)
    theta = risk.network.initial(torch.Generator().manual_seed(1), bias_scale=0.3)
    for neuron in range(2):
        coordinates = splitting_coordinates(risk.network, 0, neuron, (0.4, 0.6))
        block = splitting_block(neuron_blocks(risk, theta, 0, neuron), (0.4, 0.6))
        wide = split(risk.at(theta), 0, neuron, (0.4, 0.6))
        assert congruence(risk, theta, wide, coordinates, block, hessian) < 1e-13


def test_splitting_keeps_criticality():
    data = one_dimensional("wave")
    risk = Risk(Network.uniform((1, 2, 1), tanh), data.inputs, data.targets)
    found = search(risk, risk.network.initial(torch.Generator().manual_seed(0), scale=2.0, bias_scale=1.0, batch=(64,)))
    theta = found.lowest()
    for shares in SHARES:
        wide = split(risk.at(theta), 0, 1, shares)
        assert risk.on(wide.network).gradient(wide.theta).norm() < 1e-12 * max(map(abs, shares))


@pytest.mark.parametrize("shares", SHARES)
def test_batches_are_split_like_their_members(shares):
    network = Network.uniform((2, 3, 2), tanh, batch_norm_epsilon=1e-3)
    point = Parametrised(network, network.initial(torch.Generator().manual_seed(0), bias_scale=0.5, batch=(4,)))
    wide = split(point, 0, 1, shares)
    for row, theta in zip(wide.theta, point.theta):
        assert torch.equal(row, split(Parametrised(network, theta), 0, 1, shares).theta)
    x = torch.randn(9, 2, dtype=torch.float64)
    torch.testing.assert_close(wide.forward(x), point.forward(x), rtol=0, atol=1e-13)


def test_what_is_no_splitting_is_named():
    """A splitting is a compatible embedding: its index map sends the copies to their neuron."""
    risk, theta = problem((2, 3, 2, 1), tanh, squared_error)
    narrow, wide = risk.at(theta), split(risk.at(theta), 1, 0, (0.3, 0.7))
    indices = (torch.arange(2), torch.arange(3), torch.tensor([0, 1, 0]), torch.arange(1))
    assert violations(narrow, wide, indices) == []
    # What enters a copy is that of its neuron; all copies together send what it sent.
    for layer, row, column in ((1, 2, 0), (2, 0, 0)):
        moved = wide.with_theta(wide.theta.clone())
        moved.layers()[layer].weight[row, column] += 1e-3
        assert ("forward", layer + 1) in {(one.condition, one.layer) for one in violations(narrow, moved, indices)}


def test_copies_with_other_directions_are_no_splitting():
    """Copies share V; outgoing weights that are no multiples of it keep the function, and not criticality."""
    risk, theta = problem((2, 3, 2), tanh, squared_error)
    narrow, wide = risk.at(theta), split(risk.at(theta), 0, 1, (0.3, 0.7))
    indices = (torch.arange(2), torch.tensor([0, 1, 2, 1]), torch.arange(2))
    moved = wide.with_theta(wide.theta.clone())
    outgoing = moved.layers()[1].weight
    outgoing[0, 1] += 0.5
    outgoing[0, 3] -= 0.5
    assert {one.condition for one in violations(narrow, moved, indices)} == {"backward"}
    torch.testing.assert_close(moved.forward(risk.inputs), narrow.forward(risk.inputs))


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.6), (), (float("nan"), 1.0)])
def test_shares_that_do_not_add_up_are_refused(shares):
    point = Parametrised(Network.uniform((1, 2, 1), tanh), torch.zeros(7).double())
    with pytest.raises(ValueError, match="shares"):
        split(point, 0, 0, shares)


def test_a_layer_that_is_not_there_is_refused():
    network = Network.uniform((1, 2, 1), tanh)
    with pytest.raises(ValueError, match="no hidden layer at 1"):
        split(Parametrised(network, torch.zeros(7).double()), 1, 0, (0.5, 0.5))
    with pytest.raises(ValueError, match="batch normalization"):
        with_null_neuron(
            Parametrised(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1.0), torch.zeros(11).double()), 0
        )
