"""Embeddings undone: what splitting, null neurons and lifting have made wide leads back to the narrow point."""

from __future__ import annotations

import pytest
import torch

from embedding_principle.activations import elu, hard_tanh, leaky_relu, relu, sigmoid, softplus, tanh
from embedding_principle.certificates.irreducible import irreducible
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.networks import Network, Parametrised
from embedding_principle.width.splitting import split, with_null_neuron

X = torch.linspace(-2, 2, 11)[:, None].expand(11, 2) * torch.tensor([1.0, -0.5]) + torch.tensor([0.0, 0.3])


def drawn(widths: tuple[int, ...], activation: object = tanh, seed: int = 0) -> Parametrised:
    network = Network.uniform(widths, activation)
    return Parametrised(network, torch.randn(network.n_parameters, generator=torch.Generator().manual_seed(seed)))


def same_function(wide: Parametrised, narrow: Parametrised) -> bool:
    return torch.allclose(wide.forward(X), narrow.forward(X), atol=1e-9)


@pytest.mark.parametrize("activation", [tanh, sigmoid, softplus], ids=lambda a: a.name)
@pytest.mark.parametrize("widths", [(2, 1, 1), (2, 3, 2), (2, 2, 3, 1)], ids=str)
def test_splits_and_null_neurons_are_undone(activation: object, widths: tuple[int, ...]) -> None:
    narrow = drawn(widths, activation)
    wide = narrow
    for position in range(len(widths) - 2):
        wide = with_null_neuron(split(wide, position, 0, [0.3, 0.2, 0.5]), position, bias=0.7)
        wide = split(wide, position, wide.network.widths[position + 1] - 2, [2.0, -1.0])
    found = irreducible(wide, X)
    assert found is not None
    assert found.network == narrow.network
    assert same_function(wide, found)
    # In the order of the groups, which is that of the narrow neurons.
    assert torch.allclose(found.theta, narrow.theta, atol=1e-12)


@pytest.mark.parametrize("sigma", [relu, leaky_relu(0.25), hard_tanh, elu], ids=lambda a: a.name)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_lifts_are_undone(sigma: object, position: int) -> None:
    narrow = drawn((2, 2, 2, 1))
    deep = lift(narrow, X, [Insertion(position, 3, sigma)], generator=torch.Generator().manual_seed(1))
    found = irreducible(deep, X)
    assert found is not None
    assert found.network == narrow.network
    assert torch.allclose(found.theta, narrow.theta, atol=1e-12)


def test_embeddings_of_both_kinds_are_undone_together() -> None:
    narrow, generator = drawn((2, 2, 1)), torch.Generator().manual_seed(1)
    wide = split(narrow, 0, 1, [0.25, 0.75])
    wide = lift(wide, X, [Insertion(0, 4, relu), Insertion(2, 3, hard_tanh)], generator=generator)
    assert wide.network.depth == 4
    found = irreducible(wide, X)
    assert found is not None
    assert torch.allclose(found.theta, narrow.theta, atol=1e-12)


def test_a_deep_affine_network_becomes_an_affine_map() -> None:
    line = drawn((2, 2))
    deep = lift(
        line, X, [Insertion(0, 3, relu), Insertion(0, 3, hard_tanh)], generator=torch.Generator().manual_seed(0)
    )
    found = irreducible(deep, X)
    assert found is not None
    assert found.network == line.network
    assert torch.allclose(found.theta, line.theta, atol=1e-12)


def test_a_constant_function_leads_to_no_network() -> None:
    for activation in (tanh, sigmoid):
        constant = with_null_neuron(drawn((2, 1, 1), activation), 0)
        theta = constant.theta.clone()
        theta[:4] = 0.0  # incoming weights: both neurons are constant
        assert irreducible(Parametrised(constant.network, theta), X) is None
    deep = drawn((2, 2, 2, 1))
    layers = deep.layers()
    silent = deep.theta.clone()
    start = layers[0].weight.numel() + 2 + layers[1].weight.numel() + 2
    silent[start : start + 2] = 0.0  # nothing of the last hidden layer is heard
    assert irreducible(Parametrised(deep.network, silent), X) is None


@pytest.mark.parametrize("widths", [(2, 1), (2, 3, 1), (2, 2, 2, 2)], ids=str)
def test_an_irreducible_point_stays_as_it_is(widths: tuple[int, ...]) -> None:
    point = drawn(widths)
    assert irreducible(point, X) is point or torch.equal(irreducible(point, X).theta, point.theta)
    bent = drawn(widths, relu)  # ReLU on both of its sides is no affine layer
    found = irreducible(bent, X)
    assert found is not None
    assert same_function(bent, found)


def test_tolerance_says_what_copies_are() -> None:
    point = split(drawn((2, 1, 1)), 0, 0, [0.5, 0.5])
    moved = Parametrised(point.network, point.theta + torch.tensor([1e-4, *[0.0] * (len(point.theta) - 1)]))
    assert irreducible(moved, X).network == moved.network
    assert irreducible(moved, X, tolerance=1e-3).network.widths == (2, 1, 1)
    with pytest.raises(ValueError, match="tolerance"):
        irreducible(moved, X, tolerance=-1.0)
    with pytest.raises(ValueError, match="point"):
        irreducible(moved.expand(2), X)
