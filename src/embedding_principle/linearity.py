"""How linear the layers of a network are on a training set.

A lifted critical point needs every neuron of the inserted layer inside one affine piece of its activation on S
(layer linearization, Bai et al., arXiv:2205.13283). `linear_neurons` tests just that; the linearization index measures
how far a neuron of any activation, smooth ones too, is from acting affinely.
"""

import torch
from torch import Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked
from embedding_principle.networks import Parametrised
from embedding_principle.scaling import scaled


@checked
def neuron_indices(point: Parametrised, inputs: Tensor) -> tuple[Tensor, ...]:
    """The linearization index of each hidden neuron: 1 − R² of the regression of σ(z_i) on z_i over S.

    0 for a neuron that acts affinely on S, 1 for one whose output is uncorrelated with its input. A neuron with
    constant output has index 0: a constant is affine. It does not depend on units, and is not a number where
    pre-activations are not finite.

    Args:
        point: θ (..., P), with or without batch normalization; z is what σ is applied to.
        inputs: (n, m_0), n > 1: every function is affine on one sample.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if there are fewer than two samples.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0], [3.0]]).double()
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0]).double()
        >>> point = Parametrised(Network.uniform((1, 2, 1), relu), theta)
        >>> neuron_indices(point, x)[0].round(decimals=3)  # the second has z + 2 > 0 throughout
        tensor([0.0360, 0.0000], dtype=torch.float64)
    """
    return tuple(unexplained / _one_if_zero(total) for unexplained, total, _ in _variances(point, inputs))


@checked
def linearization_index(point: Parametrised, inputs: Tensor) -> Tensor:
    """The linearization index of each hidden layer: the mean over its neurons, weighted by the variance of σ(z).

    It compares each neuron's output with its own input. An affine fit from layer input to layer output would be
    exact, and say nothing, as soon as n ≤ m_{l−1} + 1.

    Returns:
        (..., L − 1), between 0 (every neuron acts affinely on S) and 1; not a number as for `neuron_indices`.

    Raises:
        ValueError: if there are fewer than two samples, or no hidden layer.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> theta = torch.tensor([[1e-3, 0.0, 1.0, 0.0], [3.0, 0.0, 1.0, 0.0]]).double()
        >>> linearization_index(Parametrised(Network.uniform((1, 1, 1), tanh), theta), x)[:, 0] < 1e-3
        tensor([ True, False])
    """
    _require_hidden(point)
    layers = []
    for unexplained, total, scale in _variances(point, inputs):
        weight = (scale / _one_if_zero(scale.amax(-1, keepdim=True))) ** 2
        layers.append((weight * unexplained).sum(-1) / _one_if_zero((weight * total).sum(-1)))
    return torch.stack(layers, -1)


def _variances(point: Parametrised, inputs: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each hidden layer the variance of σ(z) that z leaves unexplained, and all of it, over scale², and the scale.

    Each is (..., m_l); every neuron has a scale of its own.
    """
    trace = point.trace(inputs)
    if inputs.shape[-2] < 2:
        raise ValueError("inputs: expected two samples at least, got 1; every function is affine on one")
    variances = []
    for z, f in zip(trace.preactivations, trace.features[1:]):
        z, _ = scaled(z - z.mean(-2, keepdim=True), dim=-2)
        f, scale = scaled(f - f.mean(-2, keepdim=True), dim=-2)
        slope = (z * f).sum(-2, keepdim=True) / _one_if_zero((z * z).sum(-2, keepdim=True))
        # Squares of residuals: the difference of two variances would lose every digit below 1e-16.
        variances.append((((f - slope * z) ** 2).sum(-2), (f * f).sum(-2), scale.squeeze(-2)))
    return variances


def _one_if_zero(denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 1.0, denominator)


@checked
def linear_neurons(point: Parametrised, inputs: Tensor) -> tuple[Tensor, ...]:
    """Whether each hidden neuron keeps all of S in one affine piece of its activation: layer linearization, exactly.

    A neuron on a constant piece (a dead ReLU) is not linear in this sense: it transmits nothing. No neuron of a
    smooth curved activation is, and none with a pre-activation that is not a number.

    Returns:
        For each hidden layer a boolean tensor (..., m_l).

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0])
        >>> linear_neurons(Parametrised(Network.uniform((1, 2, 1), relu), theta), torch.tensor([[-1.0], [1.0]]))
        (tensor([False,  True]),)
    """
    preactivations = point.trace(inputs).preactivations
    return tuple(_within_a_piece(activation, z) for z, activation in zip(preactivations, point.network.activations))


def _within_a_piece(activation: Activation, z: Tensor) -> Tensor:
    found = torch.zeros_like(z[..., 0, :], dtype=torch.bool)
    for piece in activation.pieces:
        found |= piece.contains(z).all(-2)
    return found


@checked
def linear_fraction(point: Parametrised, inputs: Tensor) -> Tensor:
    """The share of each hidden layer's neurons that `linear_neurons` finds linear, (..., L − 1).

    It is not a number where pre-activations are not finite.

    Raises:
        ValueError: if there is no hidden layer.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0]).double()
        >>> point = Parametrised(Network.uniform((1, 2, 1), relu), theta)
        >>> linear_fraction(point, torch.tensor([[-1.0], [1.0]]).double())
        tensor([0.5000], dtype=torch.float64)
    """
    _require_hidden(point)
    preactivations = point.trace(inputs).preactivations
    shares = []
    for z, activation in zip(preactivations, point.network.activations):
        share = _within_a_piece(activation, z).double().mean(-1)
        shares.append(torch.where(z.isfinite().all(-1).all(-1), share, torch.nan))
    return torch.stack(shares, -1)


def _require_hidden(point: Parametrised) -> None:
    if point.network.depth < 2:
        raise ValueError(f"point: no hidden layer in widths {point.network.widths}; give a deeper network")
