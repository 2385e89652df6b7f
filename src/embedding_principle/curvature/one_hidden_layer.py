"""Networks with one hidden layer and a scalar output: H = J Jᵀ + a block-diagonal residual part.

With f_θ(x) = Σ_i v_i σ(w_i·x + b_i) + c, every second derivative of f involves one neuron alone. So the Hessian of
the risk is J Jᵀ, J = (∂f/∂θ) sqrt(ℓ″/n) with a column for each sample (the Gauss–Newton part), plus one symmetric
block of size m_0 + 2 for each neuron's parameters (w_i, b_i, v_i):

    Σ_samples δ [[v_i σ″(z_i) a aᵀ, σ′(z_i) a], [σ′(z_i) aᵀ, 0]],    a = (x, 1),  δ = ∂R_S/∂f.
"""

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import torch
from torch import Tensor

from embedding_principle.arguments import checked
from embedding_principle.curvature.passes import Derivatives, Passes, blocks_of_passes, outer
from embedding_principle.networks import Network
from embedding_principle.risks import Risk


@dataclass(frozen=True, eq=False)
class HessianParts:
    """The two parts of the Hessian H = J Jᵀ + B.

    Attributes:
        jacobian: J, (S, P, n).
        residual: the block of B that belongs to each neuron, (S, m_1, m_0 + 2, m_0 + 2); B is zero for c.
    """

    jacobian: Tensor
    residual: Tensor


@checked
def has_one_hidden_layer(network: Network) -> bool:
    """Whether this module applies: one hidden layer, scalar output, no batch normalization.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> [has_one_hidden_layer(Network.uniform(widths, tanh)) for widths in ((3, 4, 1), (3, 4, 2))]
        [True, False]
    """
    return network.depth == 2 and network.widths[-1] == 1 and network.batch_norm_epsilon is None


@checked
def hessian_parts(passes: Passes) -> HessianParts:
    """Both parts from both passes; passes over blocks of the samples give summands of H.

    Raises:
        ValueError: if these are passes of another network than one with one hidden layer and a scalar output.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.curvature.passes import passes_over
        >>> x = torch.ones(5, 2).double()
        >>> risk = Risk(Network.uniform((2, 3, 1), tanh), x, x[:, :1])
        >>> parts = hessian_parts(passes_over(risk, torch.zeros(1, 13).double()))
        >>> parts.jacobian.shape, parts.residual.shape
        (torch.Size([1, 13, 5]), torch.Size([1, 3, 4, 4]))
    """
    widths = [weight.shape[1] for weight in passes.weights]
    if len(widths) != 2 or widths[1] != 1:
        raise ValueError(f"passes: need one hidden layer and a scalar output, got layers of widths {widths}")
    return _parts(passes)


def _parts(passes: Passes) -> HessianParts:
    return HessianParts(_jacobian(passes), _residual(passes))


def _jacobian(passes: Passes) -> Tensor:
    inputs, hidden = passes.features
    scale = passes.curvature[:, 0].sqrt()
    incoming = passes.slopes[0] * (passes.weights[1].mT * scale)
    (count, width, samples), fan_in = incoming.shape, inputs.shape[1] - 1
    jacobian = incoming.new_empty(count, width * (fan_in + 2) + 1, samples)
    # In the order of θ: all w, all b, then all v with c, whose feature is the constant one.
    weights, biases, outgoing = torch.split(jacobian, [width * fan_in, width, width + 1], dim=1)
    # (S, i, 1, n) times (1, 1, j, n).
    torch.mul(incoming.unsqueeze(2), inputs[:, :-1].unsqueeze(1), out=weights.view(count, width, fan_in, samples))
    biases.copy_(incoming)
    torch.mul(hidden, scale, out=outgoing)
    return jacobian


def _residual(passes: Passes) -> Tensor:
    inputs, slopes = passes.features[0], passes.slopes[0]
    (count, width, _), size = slopes.shape, inputs.shape[1]
    residual = slopes.new_zeros(count, width, size + 1, size + 1)
    # (S, m_1, n) times (n, (m_0 + 1)²), in one product.
    bent = passes.bends[0] @ outer(inputs, inputs)[0].mT
    bent = bent.view(count, width, size, size)
    residual[..., :-1, :-1] = (bent + bent.mT) / 2  # a matrix product rounds unsymmetrically
    residual[..., -1, :-1] = residual[..., :-1, -1] = (passes.deltas[1] * slopes) @ inputs[0].mT
    return residual


@checked
def neurons(network: Network) -> Tensor:
    """Where θ holds (w_i, b_i, v_i) of each neuron i, integers (m_1, m_0 + 2).

    Raises:
        ValueError: for another architecture, see `has_one_hidden_layer`.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> neurons(Network.uniform((2, 2, 1), tanh))
        tensor([[0, 1, 4, 6],
                [2, 3, 5, 7]])
    """
    return _neurons(network)


@cache
def _neurons(network: Network) -> Tensor:
    if not has_one_hidden_layer(network):
        raise ValueError(f"network: needs widths (m_0, m_1, 1) and no batch normalization, got {network.widths}")
    first, last = network.layers(torch.arange(network.n_parameters))
    return torch.cat([first.weight, first.bias[:, None], last.weight.mT], dim=1)


@checked
def one_hidden_layer_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P), exactly symmetric; not finite where float64 overflows.

    Raises:
        ValueError: if θ is not of that shape, or for another architecture.

    Example:
        >>> from embedding_principle.activations import identity
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> risk = Risk(Network.uniform((1, 1, 1), identity), x, x)
        >>> one_hidden_layer_hessian(risk, torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double())
        tensor([[[2., 0., 2., 0.],
                 [0., 2., 0., 2.],
                 [2., 0., 2., 0.],
                 [0., 2., 0., 2.]]], dtype=torch.float64)
    """
    return one_hidden_layer_derivatives(risk, theta).hessian


def _share(found: Derivatives, rows: slice, passes: Passes, own: Tensor) -> Tensor:
    """The share of some of the samples in H; in risk and gradient it is added."""
    found.add(rows, passes)
    parts = _parts(passes)
    jacobian = parts.jacobian.numpy()
    # NumPy finds J Jᵀ with half of the products, and symmetric to the last bit. The threads are its BLAS's.
    with np.errstate(all="ignore"):
        matrix = torch.from_numpy(np.matmul(jacobian, jacobian.swapaxes(1, 2)))
    matrix.view(len(matrix), -1).index_add_(1, own, parts.residual.flatten(1))
    return matrix


@cache
def _own_entries(network: Network) -> Tensor:
    """Where H, flattened, holds the blocks of the neurons, integers (m_1 (m_0 + 2)²,)."""
    own = _neurons(network)
    return (network.n_parameters * own.unsqueeze(2) + own.unsqueeze(1)).flatten()


@checked
def one_hidden_layer_derivatives(risk: Risk, theta: Tensor) -> Derivatives:
    """R_S, ∇R_S and ∇²R_S for θ (S, P), by the same passes.

    Raises:
        ValueError: as `one_hidden_layer_hessian` does.

    Example:
        >>> from embedding_principle.activations import identity
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> risk = Risk(Network.uniform((1, 1, 1), identity), x, x)
        >>> one_hidden_layer_derivatives(risk, torch.tensor([[1.0, 0.0, 2.0, 0.0]]).double()).gradient
        tensor([[4., 0., 2., 0.]], dtype=torch.float64)
    """
    own = _own_entries(risk.network)
    blocks = blocks_of_passes(risk, theta, units=risk.network.n_parameters)
    found = Derivatives.sums(theta)
    for rows, samples in blocks:
        found.hessian[rows] = reduce(Tensor.add_, (_share(found, rows, passes, own) for passes in samples))
    return found
