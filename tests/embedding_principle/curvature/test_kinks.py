"""Kinks: where a sample makes the risk not differentiable, or not twice, by one-sided differences of the risk."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from embedding_principle.activations import ACTIVATIONS, Activation, AffinePiece, elu, hard_tanh, relu, selu, tanh
from embedding_principle.curvature.hessian import formal_hessian, hessian
from embedding_principle.curvature.kinks import KinkError, kinks, require_smooth
from embedding_principle.networks import Network
from embedding_principle.risks import Risk


def three_samples(activation: Activation, *hidden: int, epsilon: float | None = None) -> Risk:
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    network = Network.uniform((1, *(hidden or (1,)), 1), activation, batch_norm_epsilon=epsilon)
    return Risk(network, x, torch.tensor([[-0.5], [0.5], [1.0]]).double())


def point(*theta: float) -> Tensor:
    return torch.tensor(theta).double()


def jumps(risk: Risk, theta: Tensor, order: int) -> bool:
    """Whether the derivative of this order by the first bias jumps, by one-sided differences of R with small steps."""
    step = torch.zeros_like(theta)
    step[risk.network.widths[1]] = h = 1e-4

    def right(direction: Tensor) -> float:
        near, far = float(risk(theta + direction) - risk(theta)), float(risk(theta + 2 * direction) - risk(theta))
        return (4 * near - far) / (2 * h) if order == 1 else (far - 2 * near) / h**2

    sign = -1 if order == 1 else 1
    # Smooth functions err by h here, kinks jump by a tenth at least.
    return abs(right(step) - sign * right(-step)) > 0.05


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("bias", [0.0, 0.3, -1.0, 1.0])
def test_kinks_are_where_one_sided_differences_disagree(name: str, order: int, bias: float) -> None:
    risk, theta = three_samples(ACTIVATIONS[name]), point(1.0, bias, 1.3, 0.1)
    expected = any(jumps(risk, theta, each) for each in range(1, order + 1))
    assert bool(kinks(risk, theta, order=order) > 0) == expected


def test_a_kink_of_the_second_derivative_alone_leaves_the_gradient() -> None:
    theta = point(1.0, 0.0, 1.3, 0.1)
    assert [int(kinks(three_samples(elu), theta, order=order)) for order in (1, 2)] == [0, 1]
    assert [int(kinks(three_samples(selu), theta, order=order)) for order in (1, 2)] == [1, 1]


def test_kinks_of_an_activation_of_ones_own_are_found() -> None:
    own = Activation(
        "shifted",
        lambda z: functional.relu(z - 2) + z**3,
        lambda z: (z > 2).to(z.dtype) + 3 * z**2,
        lambda z: 6 * z,
        (AffinePiece(2.0, math.inf, 1.0),),
    )
    assert int(kinks(three_samples(own), point(1.0, 1.0, 1.0, 0.0))) == 1
    assert int(kinks(three_samples(own), point(1.0, 0.0, 1.0, 0.0))) == 0


def test_a_silent_neuron_bends_the_gradient_but_not_the_risk() -> None:
    """With outgoing weight zero R does not react to (w, b), but ∂R/∂v = Σ δ σ(z) has a kink."""
    risk, theta = three_samples(relu), point(1.0, 0.0, 0.0, 0.0)
    assert [int(kinks(risk, theta, order=order)) for order in (1, 2)] == [0, 1]


def test_a_sample_that_is_fitted_transmits_nothing() -> None:
    risk = three_samples(relu)
    assert int(kinks(risk, point(1.0, 0.0, 1.0, 0.5))) == 0  # f(0) = 0.5, as it should be


def test_rounding_does_not_hide_a_kink() -> None:
    x = torch.tensor([[0.1], [0.7]]).double()
    risk = Risk(Network.uniform((1, 1, 1), relu), x, x + 1)
    theta = torch.tensor([[3.0, -0.3, 1.0, 0.0], [3.0, -0.3 + 1e-9, 1.0, 0.0]]).double()
    assert float(risk.network.trace(theta, x).preactivations[0][0, 0, 0]) != 0  # 0.3 and 3 · 0.1 differ
    assert kinks(risk, theta).tolist() == [1, 0]


def test_deeper_layers_and_batches_count() -> None:
    risk = three_samples(hard_tanh, 1, 1)
    # z[2] = 2 z[1] − 1 is −3, −1 and 1 on the three samples, and z[1] is −1, 0 and 1.
    theta = torch.stack([point(1, 0, 2, -1, 1, 0), point(0.3, 0, 2, -0.2, 1, 0)])
    # The first sample is cut off by the second layer, the third one is fitted: only the second transmits an error.
    assert kinks(risk, theta).tolist() == [1, 0]
    assert kinks(risk, theta, order=2).tolist() == [4, 0]


def test_batch_normalization_is_followed() -> None:
    """The samples standardize to −s, 0 and s: a kink at the middle one when β = 0."""
    risk = three_samples(relu, epsilon=1e-5)
    assert kinks(risk, torch.stack([point(1, 5, 1, 0, 1, 0), point(1, 5, 1, 0.1, 1, 0)])).tolist() == [1, 0]


def test_networks_without_kinks_have_none() -> None:
    risk = Risk(Network((1, 1)), torch.ones(3, 1).double(), torch.ones(3, 1).double())
    assert kinks(risk, torch.zeros(4, 2).double()).tolist() == [0] * 4
    require_smooth(three_samples(tanh), torch.zeros(4).double())


def test_the_error_names_the_place() -> None:
    with pytest.raises(KinkError, match="layer 1, neuron 0: sample 1 sits on a kink of relu"):
        require_smooth(three_samples(relu), point(1.0, 0.0, 1.0, 0.0))


def test_an_impossible_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order: expected a whole number from 1 to 2, got 3"):
        kinks(three_samples(relu), torch.zeros(4).double(), order=3)


@pytest.mark.parametrize("widths", [(1, 1, 1), (1, 2, 2, 1)])
def test_no_hessian_is_given_at_a_kink(widths: tuple[int, ...]) -> None:
    """Also where only one point of a batch has a sample on it; the formula's value is there for steps of a search."""
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    risk = Risk(Network.uniform(widths, relu), x, x + 1)
    off = torch.ones(risk.network.n_parameters).double()
    risk.network.layers(off)[0].bias.fill_(1.5)
    on = off.clone()
    risk.network.layers(on)[0].bias.zero_()
    assert hessian(risk, off).isfinite().all()
    for theta in (on, torch.stack([off, on])):
        with pytest.raises(KinkError, match="layer 1, neuron 0: sample 1 sits on a kink of relu"):
            hessian(risk, theta)
        assert formal_hessian(risk, theta).isfinite().all()


def test_where_a_pre_activation_overflows_no_number_is_told() -> None:
    theta = torch.stack([point(1e308, 1e308, 1.3, 0.1), point(1.0, 0.3, 1.3, 0.1)])
    assert kinks(three_samples(relu), theta).tolist() == [-1, 0]
