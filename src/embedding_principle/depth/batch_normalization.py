"""Batch normalization keeps layers from being linear on the training set (Bai et al., arXiv:2205.13283).

With the normalization of Ioffe and Szegedy (2015) before σ, over the full training set S, neuron j receives
γ_j ẑ_ij + β_j, where ẑ_j has mean 0 over S and mean square v/(v + ε) ≤ 1. It stays in ReLU's affine piece exactly when
β_j/|γ_j| > max_i(−sign(γ_j) ẑ_ij), and that threshold is at least sqrt(v/(v + ε)/(n − 1)): the weights and the bias
before the normalization cannot bring it to zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedding_principle.arguments import checked, number, variable
from embedding_principle.networks import Layer, Parametrised, flatten


@dataclass(frozen=True, eq=False)
class _Normalized:
    """One hidden layer's normalization on S; mean, deviation s, γ and β are (..., m_l), ẑ is (..., n, m_l)."""

    mean: Tensor
    deviation: Tensor
    standardized: Tensor
    gamma: Tensor
    beta: Tensor


def _normalized(point: Parametrised, inputs: Tensor) -> list[_Normalized]:
    epsilon = point.network.batch_norm_epsilon
    if epsilon is None:
        raise ValueError("point: no batch normalization (batch_norm_epsilon is None); add it by with_batch_norm")
    inputs = variable("inputs", inputs, ("n", point.network.widths[0]))
    layers = []
    for (weight, bias, gamma, beta), f in zip(point.layers(), point.trace(inputs).features[:-1]):
        z = f @ weight.mT + bias.unsqueeze(-2)
        variance, mean = torch.var_mean(z, dim=-2, correction=0)
        deviation = (variance + epsilon).sqrt()
        standardized = (z - mean.unsqueeze(-2)) / deviation.unsqueeze(-2)
        layers.append(_Normalized(mean, deviation, standardized, gamma, beta))
    return layers


@checked
def with_batch_norm(
    point: Parametrised, *, gamma: float = 1.0, beta: float = 0.0, epsilon: float = 1e-5
) -> Parametrised:
    """The same weights and biases in a network with batch normalization before every σ.

    Args:
        point: θ, (..., P), without batch normalization.
        gamma: the scale of every hidden neuron.
        beta: the shift of every hidden neuron.
        epsilon: the ε of the normalization.

    Returns:
        The parameters with batch normalization, (..., P′).

    Raises:
        ValueError: if the network has batch normalization already, γ or β is not finite, or ε is negative.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> point = Parametrised(Network.uniform((1, 2, 1), tanh), torch.zeros(7))
        >>> with_batch_norm(point, beta=3.0).layers()[0].beta
        tensor([3., 3.], dtype=torch.float64)
    """
    if point.network.batch_norm_epsilon is not None:
        raise ValueError("point: has batch normalization already; fold_batch_norm takes it away")
    gamma, beta = number("gamma", gamma), number("beta", beta)
    *hidden, last = point.layers()
    constant: Callable[[Tensor, float], Tensor] = torch.full_like
    normalized = [Layer(w, b, constant(b, gamma), constant(b, beta)) for w, b in hidden]
    return Parametrised(replace(point.network, batch_norm_epsilon=epsilon), flatten([*normalized, last]))


@checked
def fold_batch_norm(point: Parametrised, inputs: Tensor) -> Parametrised:
    """The network without batch normalization that has the same features and outputs on S.

    Each neuron takes its normalization into its weights: w ← γ w/s, b ← γ (b − mean)/s + β, with the mean and the
    deviation s = sqrt(v + ε) of its pre-activations over S.

    Args:
        point: θ, (..., P), with batch normalization.
        inputs: (n, m_0).

    Returns:
        The parameters without batch normalization, (..., P′).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.tensor([[-1.0], [0.0], [2.0]]).double()
        >>> from embedding_principle.networks import Network
        >>> point = with_batch_norm(Parametrised(Network.uniform((1, 2, 1), relu), torch.arange(7.0).double()))
        >>> torch.allclose(fold_batch_norm(point, x).forward(x), point.forward(x))
        True
    """
    *hidden, last = point.layers()
    folded = []
    for (weight, bias, *_), each in zip(hidden, _normalized(point, inputs)):
        scale = each.gamma / each.deviation
        folded.append(Layer(weight * scale.unsqueeze(-1), (bias - each.mean) * scale + each.beta))
    return Parametrised(replace(point.network, batch_norm_epsilon=None), flatten([*folded, last]))


@checked
def linearity_thresholds(point: Parametrised, inputs: Tensor) -> tuple[Tensor, ...]:
    """max_i(−sign(γ_j) ẑ_ij) of each hidden neuron: it keeps z > 0 on all of S exactly when β_j/|γ_j| exceeds this.

    Proof: γẑ_i + β > 0 for all i reads β > |γ| max_i(−sign(γ) ẑ_i). The threshold is at least
    what `threshold_bounds` says.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> plain = Parametrised(Network.uniform((1, 1, 1), relu), torch.ones(4).double())
        >>> point = with_batch_norm(plain, epsilon=0.0)
        >>> linearity_thresholds(point, torch.tensor([[-1.0], [-1.0], [2.0]]).double())[0]
        tensor([0.7071], dtype=torch.float64)
    """
    neurons = _normalized(point, inputs)
    return tuple((-each.gamma.sign().unsqueeze(-2) * each.standardized).amax(-2) for each in neurons)


@checked
def threshold_bounds(point: Parametrised, inputs: Tensor) -> tuple[Tensor, ...]:
    """sqrt(mean_i ẑ_ij² / (n − 1)), below which the threshold of a neuron cannot lie.

    Proof: let M = max, m = min of x_i with mean 0 and mean square s. (x_i − M)(x_i − m) ≤ 0 sums to s ≤ −mM, and
    m² ≤ (n − 1) s (n − 1 others must balance m), so M ≥ s/|m| ≥ sqrt(s/(n − 1)). Equality: one value against n − 1
    equal ones. s = v/(v + ε) is 1 when ε = 0.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if the network has no batch normalization, or there are fewer than two samples.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> plain = Parametrised(Network.uniform((1, 1, 1), relu), torch.ones(4).double())
        >>> point = with_batch_norm(plain, epsilon=0.0)
        >>> threshold_bounds(point, torch.tensor([[-1.0], [0.0], [0.0], [0.0], [1.0]]).double())[0]
        tensor([0.5000], dtype=torch.float64)
    """
    if isinstance(inputs, Tensor) and inputs.dim() and len(inputs) == 1:
        raise ValueError("inputs: expected two samples at least, got 1; one alone is its own mean")
    neurons = _normalized(point, inputs)
    return tuple((each.standardized.square().mean(-2) / (len(inputs) - 1)).sqrt() for each in neurons)
