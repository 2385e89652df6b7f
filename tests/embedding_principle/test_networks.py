"""The network as a function of flat θ, against torch.nn and against plain loops."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedding_principle import networks
from embedding_principle.activations import ACTIVATIONS, identity, named, relu, tanh
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.risks import Risk

widths = st.lists(st.integers(1, 5), min_size=2, max_size=5).map(tuple)
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_module(network: Network, theta: torch.Tensor) -> nn.Sequential:
    """The same network of torch.nn.Linear layers, which hold their parameters in the order of θ."""
    parts: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(zip(network.widths, network.widths[1:])):
        parts.append(nn.Linear(fan_in, fan_out, dtype=torch.float64))
        if index < network.depth - 1:
            parts.append({"tanh": nn.Tanh(), "relu": nn.ReLU()}[network.activations[index].name])
    module = nn.Sequential(*parts)
    nn.utils.vector_to_parameters(theta, module.parameters())
    return module


@pytest.mark.parametrize("name", ["tanh", "relu"])
@given(widths=widths, seed=seeds)
def test_forward_agrees_with_torch_modules(widths: tuple[int, ...], seed: int, name: str) -> None:
    network = Network.uniform(widths, named(name))
    theta = network.initial(generator(seed), bias_scale=1.0)
    x = torch.randn(7, widths[0], generator=generator(seed + 1), dtype=torch.float64)
    torch.testing.assert_close(network.forward(theta, x), as_module(network, theta)(x), rtol=1e-13, atol=1e-13)


@given(widths=widths, seed=seeds)
def test_identity_networks_are_matrix_products(widths: tuple[int, ...], seed: int) -> None:
    network = Network.uniform(widths, identity)
    theta = network.initial(generator(seed))
    x = torch.randn(3, widths[0], generator=generator(seed), dtype=torch.float64)
    product = x
    for layer in network.layers(theta):
        product = product @ layer.weight.T  # biases are zero
    torch.testing.assert_close(network.forward(theta, x), product, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("normalized", [False, True])
@given(widths=widths, seed=seeds)
def test_splitting_and_flattening_are_inverse(widths: tuple[int, ...], seed: int, normalized: bool) -> None:
    network = Network.uniform(widths, tanh, batch_norm_epsilon=1e-5 if normalized else None)
    theta = network.initial(generator(seed), batch=(2, 3))
    layers = network.layers(theta)
    assert torch.equal(flatten(layers), theta)
    assert [tuple(layer.weight.shape) for layer in layers] == [(2, 3, b, a) for a, b in zip(widths, widths[1:])]


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)
@pytest.mark.parametrize("epsilon", [None, 1e-5])
def test_a_batch_is_a_loop(activation: object, epsilon: float | None) -> None:
    network = Network.uniform((3, 4, 2, 2), activation, batch_norm_epsilon=epsilon)
    theta = network.initial(generator(0), bias_scale=0.5, batch=(2, 3))
    x = torch.randn(6, 3, generator=generator(1), dtype=torch.float64)
    batched = network.forward(theta, x)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(batched[i, j], network.forward(theta[i, j], x), rtol=1e-13, atol=1e-13)


@given(n=st.integers(1, 40), cached=st.integers(1, 400), seed=seeds)
def test_inputs_in_blocks_are_inputs_at_once(n: int, cached: int, seed: int) -> None:
    """Outputs and derivatives do not depend on how many inputs the cache holds; tolerance: rounding of sums of 4."""
    network = Network.uniform((3, 4, 2), tanh)
    theta = network.initial(generator(seed), bias_scale=1.0, batch=(3,))
    x = torch.randn(n, 3, generator=generator(seed + 1), dtype=torch.float64)
    risk, output = Risk(network, x, torch.zeros(n, 2).double()), network.trace(theta, x).output
    gradient, hessian = risk.gradient(theta), torch.func.vmap(torch.func.hessian(risk))(theta)
    with patch.object(networks, "_CACHED", cached):
        torch.testing.assert_close(network.forward(theta, x), output, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(risk.gradient(theta), gradient, rtol=1e-12, atol=1e-12)
        found = torch.func.vmap(torch.func.hessian(risk))(theta)
    torch.testing.assert_close(found, hessian, rtol=1e-12, atol=1e-12)


def test_no_networks_have_no_outputs() -> None:
    assert Network((2, 1)).forward(torch.ones(0, 3), torch.ones(5, 2)).shape == (0, 5, 1)


def test_statistics_of_a_batch_are_those_of_all_inputs() -> None:
    network = Network.uniform((3, 4, 2), tanh, batch_norm_epsilon=1e-5)
    theta, x = network.initial(generator(0)), torch.randn(20, 3, generator=generator(1), dtype=torch.float64)
    with patch.object(networks, "_CACHED", 1):
        assert torch.equal(network.forward(theta, x), network.trace(theta, x).output)


def test_trace_holds_every_layer() -> None:
    network = Network((2, 3, 4, 1), (relu, tanh))
    theta = network.initial(generator(3), bias_scale=1.0)
    x = torch.randn(5, 2, generator=generator(4), dtype=torch.float64)
    trace, layers = network.trace(theta, x), network.layers(theta)
    assert [f.shape[-1] for f in trace.features] == [2, 3, 4]
    for index, activation in enumerate(network.activations):
        z = trace.features[index] @ layers[index].weight.T + layers[index].bias
        torch.testing.assert_close(trace.preactivations[index], z)
        torch.testing.assert_close(trace.features[index + 1], activation(z))


def test_batch_normalization_agrees_with_torch() -> None:
    network = Network.uniform((3, 5, 2), tanh, batch_norm_epsilon=1e-3)
    theta = network.initial(generator(0), bias_scale=1.0)
    first, second = network.layers(theta)
    first.gamma.copy_(torch.randn(5, generator=generator(1), dtype=torch.float64))
    first.beta.copy_(torch.randn(5, generator=generator(2), dtype=torch.float64))
    x = torch.randn(9, 3, generator=generator(3), dtype=torch.float64)
    z = nn.functional.batch_norm(
        x @ first.weight.T + first.bias, None, None, first.gamma, first.beta, training=True, eps=1e-3
    )
    expected = torch.tanh(z) @ second.weight.T + second.bias
    torch.testing.assert_close(network.forward(theta, x), expected, rtol=1e-12, atol=1e-13)


def test_initialisation_has_the_stated_scale() -> None:
    network = Network.uniform((50, 200, 10), tanh)
    theta = network.initial(generator(0), scale=3.0, bias_scale=0.5, batch=(4,))
    for layer in network.layers(theta):
        count, fan_in = layer.weight.numel(), layer.weight.shape[-1]
        # The sample deviation of N normals has relative standard error 1/sqrt(2N): five of them.
        assert layer.weight.std().item() * math.sqrt(fan_in) == pytest.approx(3.0, rel=5 / math.sqrt(2 * count), abs=0)
        assert layer.bias.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * layer.bias.numel()), abs=0)


def test_the_seed_decides() -> None:
    network = Network.uniform((2, 3, 1), tanh)
    assert torch.equal(network.initial(generator(7)), network.initial(generator(7)))
    assert not torch.equal(network.initial(generator(7)), network.initial(generator(8)))


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"widths: need at least two positive integers, got \(3,\)"):
        Network((3,))
    with pytest.raises(ValueError, match="widths"):
        Network((3, 0, 1), (tanh,))
    with pytest.raises(ValueError, match="activations: 2 hidden layers need as many activations, got 1"):
        Network((1, 2, 2, 1), (tanh,))
    with pytest.raises(ValueError, match=r"theta: expected shape \(..., 7\), got \(8,\)"):
        Network.uniform((1, 2, 1), tanh).layers(torch.zeros(8))
    with pytest.raises(
        ValueError, match=r"layers: expected parts of one batch, got shapes \[\(5, 2\), \(5, 1\), \(2,\)"
    ):
        flatten([Layer(torch.ones(5, 1, 2), torch.ones(5, 1)), Layer(torch.ones(2, 1), torch.ones(2))])


def parametrised(widths: tuple[int, ...], seed: int = 0, batch: tuple[int, ...] = ()) -> Parametrised:
    network = Network.uniform(widths, tanh)
    return Parametrised(network, network.initial(generator(seed), bias_scale=1.0, batch=batch))


def test_a_point_computes_what_its_network_does() -> None:
    point, x = parametrised((2, 3, 1), batch=(4,)), torch.ones(5, 2).double()
    assert torch.equal(point.forward(x), point.network.forward(point.theta, x))
    assert torch.equal(point.trace(x).features[1], point.network.trace(point.theta, x).features[1])
    assert torch.equal(flatten(point.layers()), point.theta)
    assert [torch.equal(one.theta, theta) for one, theta in zip(point, point.theta)] == [True] * 4
    assert torch.equal(point[1:3].theta, point.theta[1:3])
    assert point[2].expand(6, 2).theta.shape == (6, 2, 13)


@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=4), seed=seeds, data=st.data())
def test_a_layer_inserted_and_removed_leaves_the_point(widths: list[int], seed: int, data: st.DataObject) -> None:
    point = parametrised(tuple(widths), seed, (2,))
    q = data.draw(st.integers(0, len(widths) - 2))
    given = point.layers()[q]
    size = widths[q]
    copy = Layer(torch.eye(size).double().expand(2, -1, -1), torch.zeros(2, size).double())
    deep = point.inserted(q, copy, given, relu)
    assert deep.network.widths == (*widths[: q + 1], size, *widths[q + 1 :])
    assert deep.network.activations[q] == relu
    straight = deep.replaced(q, copy, activation=identity)
    x = torch.randn(5, widths[0], generator=generator(seed), dtype=torch.float64)
    torch.testing.assert_close(straight.forward(x), point.forward(x), rtol=1e-13, atol=1e-13)
    back = straight.without(q, given)
    assert back.network == point.network
    assert torch.equal(back.theta, point.theta)


def test_replaced_layers_may_have_another_width() -> None:
    point, x = parametrised((2, 3, 1)), torch.ones(5, 2).double()
    first, second = point.layers()
    doubled = Layer(first.weight.repeat(2, 1), first.bias.repeat(2))
    wide = point.replaced(0, doubled, Layer(second.weight.repeat(1, 2) / 2, second.bias))
    assert wide.network.widths == (2, 6, 1)
    torch.testing.assert_close(wide.forward(x), point.forward(x), rtol=1e-14, atol=1e-14)


def test_what_does_not_fit_is_refused() -> None:
    point = parametrised((2, 3, 1))
    first, second = point.layers()
    with pytest.raises(ValueError, match=r"theta: expected shape \(..., 13\), got \(12,\)"):
        point.with_theta(point.theta[:-1])
    with pytest.raises(ValueError, match=r"theta: expected shape \(..., 13\), got \(\)"):
        point.with_theta(point.theta[0])
    with pytest.raises(ValueError, match="position: 2 is not among 0 … 1"):
        point.inserted(2, second, second, relu)
    for position in (-1, 1):
        with pytest.raises(ValueError, match=rf"no hidden layer at {position}; .* positions 0 … 0"):
            point.without(position, second)
        with pytest.raises(ValueError, match="no hidden layer"):
            point.network.with_activation(position, relu)
    with pytest.raises(ValueError, match=r"layer 1: expected weights \(1, 2\), got \(1, 3\)"):
        point.without(0, second)
    with pytest.raises(ValueError, match=r"layer 2: expected weights \(1, 2\), got \(1, 3\)"):
        point.replaced(0, Layer(first.weight[:2], first.bias[:2]))
    with pytest.raises(ValueError, match="position: expected a whole number from 0 to 0, got 1"):
        point.replaced(1, second, second)
