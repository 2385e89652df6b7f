"""Which neurons count as saturated: steps and constants on their way to infinity, and nothing else."""

import pytest
import torch
from torch import Tensor

from embedding_principle.activations import Activation, leaky_relu, relu, sigmoid, tanh
from embedding_principle.networks import Layer, Network, flatten
from embedding_principle.risks import Risk
from embedding_principle.saturation import saturated


def line(*hidden: int, activation: Activation = tanh) -> Risk:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    return Risk(Network.uniform((1, *hidden, 1), activation), x, x)


def neuron(weight: float, bias: float) -> Tensor:
    """θ (4,) of one hidden neuron that transmits."""
    return torch.tensor([weight, bias, 1.0, 0.0]).double()


@pytest.mark.parametrize("activation", [tanh, sigmoid], ids=lambda activation: activation.name)
def test_constants_and_steps_are_saturated(activation: Activation) -> None:
    # The step's slope has vanished at all samples but the middle one.
    theta = torch.stack([neuron(1.0, 0.0), neuron(1.0, 50.0), neuron(200.0, 0.0)])
    assert saturated(line(1, activation=activation), theta).tolist() == [False, True, True]


@pytest.mark.parametrize("activation", [relu, leaky_relu()], ids=lambda activation: activation.name)
def test_an_exactly_flat_piece_is_no_saturation(activation: Activation) -> None:
    assert not saturated(line(1, activation=activation), neuron(1.0, -50.0))


def test_saturation_needs_a_neuron_that_transmits() -> None:
    theta = torch.tensor([[1.0, 0.0, 0.0, 30.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 30.0, 1.0, 0.0, 0.0]]).double()
    assert saturated(line(2), theta).tolist() == [True, False]


def test_merged_features_are_no_saturation() -> None:
    # Two equal neurons below a third one: their difference moves no pre-activation, so it cannot show saturation.
    narrow = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second, third = line(1, 1).network.layers(narrow)
    doubled = [
        Layer(first.weight.expand(1, 2, 1), first.bias.expand(1, 2)),
        Layer(second.weight.expand(1, 1, 2) / 2, second.bias),
        third,
    ]
    assert saturated(line(2, 1), flatten(doubled)).tolist() == [False]


def test_directions_that_no_change_of_weights_moves_show_no_saturation() -> None:
    # Slopes are left at two samples: enough for the plane of (f, 1), too few for a third direction, which two equal
    # features, whose difference is rounding, do not span.
    x = line(1).inputs
    first = Layer(torch.ones(1, 1).double(), torch.zeros(1).double())
    features = torch.tanh(x)[:, 0]
    centre = float(features[2:4].mean())
    second, third = (
        Layer(torch.tensor([[22.0]]), torch.tensor([-22.0 * centre])),
        Layer(torch.ones(1, 1), torch.zeros(1)),
    )
    assert not saturated(line(1, 1), flatten([first, second, third]))
    doubled = Layer(first.weight.expand(2, 1) * torch.tensor([[1.0], [1 + 2**-50]]), first.bias.expand(2))
    shared = Layer(second.weight.expand(1, 2) / 2, second.bias)
    assert not saturated(line(2, 1), flatten([doubled, shared, third]))
