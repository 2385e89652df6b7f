"""How linear the layers of a network are on a training set, and how batch normalization keeps them from it.

A lifted critical point needs every neuron of the inserted layer inside one affine piece of its activation on S
(layer linearization, Bai et al., arXiv:2205.13283). `linear_neurons` tests just that; the linearization index measures
how far a neuron of any activation, smooth ones too, is from acting affinely.

With batch normalization before σ neuron j receives γ_j ẑ_ij + β_j, where ẑ_j has mean 0 over S and mean square
v/(v + ε) ≤ 1. It stays in ReLU's affine piece exactly when β_j/|γ_j| > max_i(−sign(γ_j) ẑ_ij), and that threshold is
at least sqrt(v/(v + ε)/(n − 1)): weights and bias before the normalization cannot bring it to zero.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from embedding_principle.activations import Activation
from embedding_principle.networks import Layer, Network, flatten


def neuron_indices(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """The linearization index of each hidden neuron: 1 − R² of the regression of σ(z_i) on z_i over S.

    0 for a neuron that acts affinely on S, 1 for one whose output is uncorrelated with its input. A neuron with
    constant output has index 0: a constant is affine.

    Args:
        network: with or without batch normalization; z is what σ is applied to.
        theta: (..., P).
        inputs: (n, m_0).

    Returns:
        For each hidden layer a tensor (..., m_l).

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.tensor([[-1.0], [1.0], [3.0]]).double()
        >>> network = Network.uniform((1, 2, 1), relu)
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0]).double()
        >>> neuron_indices(network, theta, x)[0].round(decimals=3)  # the second has z + 2 > 0 throughout
        tensor([0.0360, 0.0000], dtype=torch.float64)
    """
    return tuple(unexplained / _one_if_zero(total) for unexplained, total in _variances(network, theta, inputs))


def linearization_index(network: Network, theta: Tensor, inputs: Tensor) -> Tensor:
    """The linearization index of each hidden layer: the mean over its neurons, weighted by the variance of σ(z).

    It compares each neuron's output with its own input. An affine fit from layer input to layer output would be
    exact, and say nothing, as soon as n ≤ m_{l−1} + 1.

    Returns:
        (..., L − 1), between 0 (every neuron acts affinely on S) and 1.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> theta = torch.tensor([[1e-3, 0.0, 1.0, 0.0], [3.0, 0.0, 1.0, 0.0]]).double()
        >>> linearization_index(Network.uniform((1, 1, 1), tanh), theta, x)[:, 0] < 1e-3
        tensor([ True, False])
    """
    layers = [
        unexplained.sum(-1) / _one_if_zero(total.sum(-1)) for unexplained, total in _variances(network, theta, inputs)
    ]
    return torch.stack(layers, -1)


def _variances(network: Network, theta: Tensor, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each hidden layer the variance of σ(z) that z leaves unexplained, and all of it, (..., m_l) each."""
    trace = network.trace(theta, inputs)
    pairs = []
    for z, f in zip(trace.preactivations, trace.features[1:]):
        z, f = z - z.mean(-2, keepdim=True), f - f.mean(-2, keepdim=True)
        slope = (z * f).sum(-2, keepdim=True) / _one_if_zero((z * z).sum(-2, keepdim=True))
        # Squares of residuals: the difference of two variances would lose every digit below 1e-16.
        pairs.append((((f - slope * z) ** 2).sum(-2), (f * f).sum(-2)))
    return pairs


def _one_if_zero(denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, 1.0, denominator)


def linear_neurons(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """Whether each hidden neuron keeps all of S in one affine piece of its activation: layer linearization, exactly.

    A neuron on a constant piece (a dead ReLU) is not linear in this sense: it transmits nothing. No neuron of a
    smooth curved activation is.

    Returns:
        For each hidden layer a boolean tensor (..., m_l).

    Example:
        >>> from embedding_principle.activations import relu
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0])
        >>> linear_neurons(Network.uniform((1, 2, 1), relu), theta, torch.tensor([[-1.0], [1.0]]))
        (tensor([False,  True]),)
    """
    trace = network.trace(theta, inputs)
    return tuple(_within_a_piece(activation, z) for z, activation in zip(trace.preactivations, network.activations))


def _within_a_piece(activation: Activation, z: Tensor) -> Tensor:
    found = torch.zeros_like(z[..., 0, :], dtype=torch.bool)
    for piece in activation.pieces:
        found |= piece.contains(z).all(-2)
    return found


def linear_fraction(network: Network, theta: Tensor, inputs: Tensor) -> Tensor:
    """The share of each hidden layer's neurons that `linear_neurons` finds linear, (..., L − 1).

    Example:
        >>> from embedding_principle.activations import relu
        >>> theta = torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0]).double()
        >>> linear_fraction(Network.uniform((1, 2, 1), relu), theta, torch.tensor([[-1.0], [1.0]]).double())
        tensor([0.5000], dtype=torch.float64)
    """
    shares = [linear.to(theta.dtype).mean(-1) for linear in linear_neurons(network, theta, inputs)]
    return torch.stack(shares, -1)


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


def batch_norm_thresholds(network: Network, theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """max_i(−sign(γ_j) ẑ_ij) of each hidden neuron: it keeps z > 0 on all of S exactly when β_j/|γ_j| exceeds this.

    Proof: γẑ_i + β > 0 for all i reads β > |γ| max_i(−sign(γ) ẑ_i). The threshold is at least
    `threshold_bound`.

    Returns:
        For each hidden layer a tensor (..., m_l).

    Raises:
        ValueError: if the network has no batch normalization.

    Example:
        >>> from embedding_principle.activations import relu
        >>> network, theta = with_batch_norm(Network.uniform((1, 1, 1), relu), torch.ones(4).double(), epsilon=0.0)
        >>> batch_norm_thresholds(network, theta, torch.tensor([[-1.0], [-1.0], [2.0]]).double())[0]
        tensor([0.7071], dtype=torch.float64)
    """
    return tuple((-gamma.sign().unsqueeze(-2) * z).amax(-2) for gamma, z in _standardized(network, theta, inputs))


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
    return tuple((z.square().mean(-2) / (len(inputs) - 1)).sqrt() for _, z in _standardized(network, theta, inputs))


def _standardized(network: Network, theta: Tensor, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """γ (..., m_l) and ẑ (..., n, m_l) of each hidden layer."""
    if network.batch_norm_epsilon is None:
        raise ValueError("network: it has no batch normalization (batch_norm_epsilon is None); see with_batch_norm")
    features = network.trace(theta, inputs).features
    pairs = []
    for (weight, bias, gamma, _), f in zip(network.layers(theta)[:-1], features):
        assert gamma is not None  # every hidden layer is normalized
        z = f @ weight.mT + bias.unsqueeze(-2)
        variance, mean = torch.var_mean(z, dim=-2, keepdim=True, correction=0)
        pairs.append((gamma, (z - mean) * torch.rsqrt(variance + network.batch_norm_epsilon)))
    return pairs
