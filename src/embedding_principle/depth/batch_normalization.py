"""Batch normalization keeps layers from being linear on the training set (Bai et al., arXiv:2205.13283).

With the normalization of Ioffe and Szegedy (2015) before σ, over the full training set S, neuron j receives
γ_j ẑ_ij + β_j, where ẑ_j has mean 0 over S and mean square v/(v + ε) ≤ 1. It stays in ReLU's affine piece exactly when
β_j/|γ_j| > max_i(−sign(γ_j) ẑ_ij), and that threshold is at least sqrt(v/(v + ε)/(n − 1)): the weights and the bias
before the normalization cannot bring it to zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.networks import Layer, Network, flatten


@dataclass(frozen=True)
class _Normalized:
    """One hidden layer's normalization on S; mean, deviation s, γ and β are (..., m_l), ẑ is (..., n, m_l)."""

    mean: Tensor
    deviation: Tensor
    standardized: Tensor
    gamma: Tensor
    beta: Tensor


def _normalized(network: Network, theta: Tensor, inputs: Tensor) -> list[_Normalized]:
    if network.batch_norm_epsilon is None:
        raise ValueError(
            "network: it has no batch normalization (batch_norm_epsilon is None); add it by with_batch_norm"
        )
    layers = []
    for (weight, bias, gamma, beta), f in zip(network.layers(theta), network.trace(theta, inputs).features[:-1]):
        assert gamma is not None, "every hidden layer is normalized"
        assert beta is not None
        z = f @ weight.mT + bias.unsqueeze(-2)
        variance, mean = torch.var_mean(z, dim=-2, correction=0)
        deviation = (variance + network.batch_norm_epsilon).sqrt()
        standardized = (z - mean.unsqueeze(-2)) / deviation.unsqueeze(-2)
        layers.append(_Normalized(mean, deviation, standardized, gamma, beta))
    return layers


def with_batch_norm(
    network: Network, theta: Tensor, *, gamma: float = 1.0, beta: float = 0.0, epsilon: float = 1e-5
) -> tuple[Network, Tensor]:
    """The same weights and biases in a network with batch normalization before every σ.

    Args:
        network: without batch normalization.
        theta: (..., P).
        gamma: the scale of every hidden neuron.
        beta: the shift of every hidden neuron.
        epsilon: the ε of the normalization.

    Returns:
        The network with batch normalization and its parameters (..., P′).

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network, theta = with_batch_norm(Network.uniform((1, 2, 1), tanh), torch.zeros(7), beta=3.0)
        >>> network.layers(theta)[0].beta
        tensor([3., 3.])
    """
    layers = network.layers(theta)
    constant: Callable[[Tensor, float], Tensor] = torch.full_like
    hidden = [Layer(w, b, constant(b, gamma), constant(b, beta)) for w, b, *_ in layers[:-1]]
    return Network(network.widths, network.activations, epsilon), flatten([*hidden, layers[-1]])


def fold_batch_norm(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Network, Tensor]:
    """The network without batch normalization that has the same features and outputs on S.

    Each neuron takes its normalization into its weights: w ← γ w/s, b ← γ (b − mean)/s + β, with the mean and the
    deviation s = sqrt(v + ε) of its pre-activations over S.

    Args:
        network: with batch normalization.
        theta: (..., P).
        inputs: (n, m_0).

    Returns:
        The network without batch normalization and its parameters (..., P′).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.tensor([[-1.0], [0.0], [2.0]]).double()
        >>> network, theta = with_batch_norm(Network.uniform((1, 2, 1), relu), torch.arange(7.0).double())
        >>> folded, weights = fold_batch_norm(network, theta, x)
        >>> torch.allclose(folded.forward(weights, x), network.forward(theta, x))
        True
    """
    *hidden, last = network.layers(theta)
    folded = []
    for (weight, bias, *_), each in zip(hidden, _normalized(network, theta, inputs)):
        scale = each.gamma / each.deviation
        folded.append(Layer(weight * scale.unsqueeze(-1), (bias - each.mean) * scale + each.beta))
    return Network(network.widths, network.activations), flatten([*folded, last])


def linearity_thresholds(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """max_i(−sign(γ_j) ẑ_ij) of each hidden neuron: it keeps z > 0 on all of S exactly when β_j/|γ_j| exceeds this.

    Proof: γẑ_i + β > 0 for all i reads β > |γ| max_i(−sign(γ) ẑ_i). The threshold is at least
    what `threshold_bounds` says.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> network, theta = with_batch_norm(Network.uniform((1, 1, 1), relu), torch.ones(4).double(), epsilon=0.0)
        >>> linearity_thresholds(network, theta, torch.tensor([[-1.0], [-1.0], [2.0]]).double())[0]
        tensor([0.7071], dtype=torch.float64)
    """
    neurons = _normalized(network, theta, inputs)
    return tuple((-each.gamma.sign().unsqueeze(-2) * each.standardized).amax(-2) for each in neurons)


def threshold_bounds(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """sqrt(mean_i ẑ_ij² / (n − 1)), below which the threshold of a neuron cannot lie.

    Proof: let M = max, m = min of x_i with mean 0 and mean square s. (x_i − M)(x_i − m) ≤ 0 sums to s ≤ −mM, and
    m² ≤ (n − 1) s (n − 1 others must balance m), so M ≥ s/|m| ≥ sqrt(s/(n − 1)). Equality: one value against n − 1
    equal ones. s = v/(v + ε) is 1 when ε = 0.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> network, theta = with_batch_norm(Network.uniform((1, 1, 1), relu), torch.ones(4).double(), epsilon=0.0)
        >>> threshold_bounds(network, theta, torch.tensor([[-1.0], [0.0], [0.0], [0.0], [1.0]]).double())[0]
        tensor([0.5000], dtype=torch.float64)
    """
    neurons = _normalized(network, theta, inputs)
    return tuple((each.standardized.square().mean(-2) / (len(inputs) - 1)).sqrt() for each in neurons)
