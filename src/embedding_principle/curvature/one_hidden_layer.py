"""Networks with one hidden layer and a scalar output: H = J Jᵀ + a block-diagonal residual part.

With f_θ(x) = Σ_i v_i σ(w_i·x + b_i) + c, every second derivative of f involves one neuron alone. So the Hessian of
the risk is J Jᵀ, J = (∂f/∂θ) sqrt(ℓ″/n) with a column for each sample (the Gauss–Newton part), plus one symmetric
block of size m_0 + 2 for each neuron's parameters (w_i, b_i, v_i):

    Σ_samples δ [[v_i σ″(z_i) a aᵀ, σ′(z_i) a], [σ′(z_i) aᵀ, 0]],    a = (x, 1),  δ = ∂R/∂f.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.curvature.passes import Passes, blocks_of_passes, outer
from embedding_principle.networks import Network
from embedding_principle.risks import Risk


@dataclass(frozen=True)
class HessianParts:
    """The two parts of the Hessian H = J Jᵀ + residual.

    Attributes:
        jacobian: J, (S, P, n).
        blocks: the residual part of each neuron, (S, m_1, m_0 + 2, m_0 + 2); zero for c.
    """

    jacobian: Tensor
    blocks: Tensor


def has_one_hidden_layer(network: Network) -> bool:
    """Whether this module applies: one hidden layer, scalar output, no batch normalization.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> [has_one_hidden_layer(Network.uniform(widths, tanh)) for widths in ((3, 4, 1), (3, 4, 2))]
        [True, False]
    """
    return network.depth == 2 and network.widths[-1] == 1 and network.batch_norm_epsilon is None


def hessian_parts(part: Passes) -> HessianParts:
    """Both parts from both passes; passes over blocks of the samples give summands of H.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.curvature.passes import passes_over
        >>> x = torch.ones(5, 2).double()
        >>> risk = Risk(Network.uniform((2, 3, 1), tanh), x, x[:, :1])
        >>> parts = hessian_parts(passes_over(risk, torch.zeros(1, 13).double()))
        >>> parts.jacobian.shape, parts.blocks.shape
        (torch.Size([1, 13, 5]), torch.Size([1, 3, 4, 4]))
    """
    inputs, hidden, slopes = part.features[0], part.features[1], part.slopes[0]
    (count, width, samples), fan_in = slopes.shape, inputs.shape[1] - 1
    scale = part.curvature[:, 0].sqrt()
    incoming = slopes * (part.weights[1].mT * scale)
    jacobian = slopes.new_empty(count, width * (fan_in + 2) + 1, samples)
    weights, biases, outgoing = torch.split(jacobian, [width * fan_in, width, width + 1], dim=1)
    torch.mul(incoming.unsqueeze(2), inputs[:, :-1].unsqueeze(1), out=weights.view(count, width, fan_in, samples))
    biases.copy_(incoming)
    torch.mul(hidden, scale, out=outgoing)
    blocks = slopes.new_zeros(count, width, fan_in + 2, fan_in + 2)
    bent = part.bends[0] @ outer(inputs, inputs).mT
    blocks[..., :-1, :-1] = bent.view(count, width, fan_in + 1, fan_in + 1)
    blocks[..., -1, :-1] = blocks[..., :-1, -1] = (part.deltas[1] * slopes) @ inputs.mT
    return HessianParts(jacobian, blocks)


def neurons(network: Network) -> Tensor:
    """Where θ holds (w_i, b_i, v_i) of each neuron i, integers (m_1, m_0 + 2).

    Example:
        >>> from embedding_principle.activations import tanh
        >>> neurons(Network.uniform((2, 2, 1), tanh))
        tensor([[0, 1, 4, 6],
                [2, 3, 5, 7]])
    """
    inputs, width, _ = network.widths
    incoming, i = torch.arange(width * inputs).view(width, inputs), torch.arange(width)[:, None]
    return torch.cat([incoming, width * inputs + i, width * inputs + width + i], dim=1)


def one_hidden_layer_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P), exactly symmetric.

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
    own = neurons(risk.network)
    matrix = theta.new_empty(*theta.shape, theta.shape[-1])
    for rows, sums in blocks_of_passes(risk, theta, units=theta.shape[-1]):
        total = torch.zeros_like(matrix[rows])
        for part in map(hessian_parts, sums):
            total.baddbmm_(part.jacobian, part.jacobian.mT)
            total[:, own.unsqueeze(2), own.unsqueeze(1)] += part.blocks
        torch.add(total, total.mT, out=matrix[rows]).div_(2)  # a matrix product rounds J Jᵀ unsymmetrically
    return matrix
