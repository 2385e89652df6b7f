"""One forward and one backward pass of S networks at once, with all that a closed-form Hessian needs of them.

Arrays are laid out (S, units, n): a batch of S networks first, the samples last, so that a sum over samples is one
matrix product. In lists, entry l of 0, …, L − 1 belongs to the theory's layer l + 1. (Training needs the gradient only,
many times over: `training.backpropagation` finds the same a, z and δ in buffers that it keeps.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from embedding_principle.arguments import checked, require_common_batch, variable, whole
from embedding_principle.networks import with_ones
from embedding_principle.risks import Risk

# Doubles in one operand of a matrix product (4 MB): blocks of networks and of samples are chosen so that operands stay
# near the processor's caches and memory stays bounded, however many networks and samples there are.
OPERAND = 1 << 19
# A product over fewer samples than this no longer runs at full speed.
_FEWEST_SAMPLES = 128


@dataclass(frozen=True, eq=False)
class Passes:
    """What the two passes leave behind; derivatives of the risk R_S carry its factor 1/n.

    Attributes:
        weights: W[l], each (S, m_l, m_{l−1}).
        features: a[l−1] = (f[l−1], 1), what layer l receives, each (S, m_{l−1} + 1, n); S = 1 for the inputs.
        slopes: σ′(z[l]) of each hidden layer, (S, m_l, n).
        bends: σ″(z[l]) ∂R_S/∂f[l] of each hidden layer, (S, m_l, n).
        deltas: δ[l] = ∂R_S/∂z[l], each (S, m_l, n).
        curvature: ∂²R_S/∂f[L]², (S, m_L, m_L, n).
    """

    weights: list[Tensor]
    features: list[Tensor]
    slopes: list[Tensor]
    bends: list[Tensor]
    deltas: list[Tensor]
    curvature: Tensor


@checked
def passes_over(risk: Risk, theta: Tensor, samples: slice = slice(None)) -> Passes:
    """Both passes over some of the samples for θ (S, P).

    Raises:
        ValueError: if θ is not of that shape, or the network has batch normalization.

    Example:
        >>> import torch
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.ones(5, 2).double()
        >>> risk = Risk(Network.uniform((2, 3, 1), tanh), x, x[:, :1])
        >>> passes_over(risk, torch.zeros(4, 13).double()).deltas[0].shape
        torch.Size([4, 3, 5])
    """
    return _passes(risk, _plain(risk, theta), samples)


def _plain(risk: Risk, theta: Tensor) -> Tensor:
    """θ (S, P) in float64, if the network has no batch normalization."""
    if risk.network.batch_norm_epsilon is not None:
        raise ValueError("risk: these passes are for networks without batch normalization; see differentiated_hessian")
    return variable("theta", theta, ("S", risk.network.n_parameters)).detach()


def _passes(risk: Risk, theta: Tensor, samples: slice) -> Passes:
    n, activations, layers = len(risk.inputs), risk.network.activations, risk.network.layers(theta)
    features, preactivations = [with_ones(risk.inputs[samples].mT.unsqueeze(0), dim=-2)], []
    for layer, activation in zip(layers, activations):
        preactivations.append(layer.weight @ features[-1][:, :-1] + layer.bias.unsqueeze(-1))
        features.append(with_ones(activation.function(preactivations[-1]), dim=-2))
    output = (layers[-1].weight @ features[-1][:, :-1] + layers[-1].bias.unsqueeze(-1)).mT
    slopes = [activation.first(z) for activation, z in zip(activations, preactivations)]
    deltas, bends = [risk.loss.residuals(output, risk.targets[samples]).mT.contiguous() / n], list[Tensor]()
    for hidden in reversed(range(len(activations))):
        pulled = layers[hidden + 1].weight.mT @ deltas[0]
        deltas.insert(0, slopes[hidden] * pulled)
        bends.insert(0, activations[hidden].second(preactivations[hidden]).mul_(pulled))
    curvature = risk.loss.curvature(output, risk.targets[samples]).movedim(-3, -1) / n
    return Passes([layer.weight for layer in layers], features, slopes, bends, deltas, curvature)


@checked
def blocks_of_passes(risk: Risk, theta: Tensor, *, units: int) -> Iterator[tuple[slice, Iterator[Passes]]]:
    """Passes over blocks of networks and, within each, over blocks of samples.

    Args:
        risk: the empirical risk.
        theta: (S, P).
        units: rows that the largest operand has for each network and sample; it sets the size of the blocks.

    Returns:
        The rows of θ in a block of networks, and the passes of these over each block of samples.

    Raises:
        ValueError: as `passes_over` does, or if `units` is not positive.

    Example:
        >>> import torch
        >>> from embedding_principle.networks import Network
        >>> x = torch.ones(300, 1).double()
        >>> networks = blocks_of_passes(Risk(Network((1, 1)), x, x), torch.zeros(1, 2).double(), units=OPERAND)
        >>> [[passes.deltas[0].shape[-1] for passes in samples] for rows, samples in networks]
        [[128, 128, 44]]
    """
    n, units, theta = len(risk.inputs), whole("units", units, 1), _plain(risk, theta)
    samples = min(n, max(_FEWEST_SAMPLES, OPERAND // units))
    networks = max(1, OPERAND // (units * samples))
    blocks = (slice(first, first + networks) for first in range(0, len(theta), networks))
    return ((rows, _passes_over_blocks(risk, theta[rows], samples)) for rows in blocks)


def _passes_over_blocks(risk: Risk, theta: Tensor, samples: int) -> Iterator[Passes]:
    return (_passes(risk, theta, slice(start, start + samples)) for start in range(0, len(risk.inputs), samples))


def outer(left: Tensor, right: Tensor) -> Tensor:
    """All products of a unit of the one (S, a, n) with a unit of the other (S, b, n), (S, a · b, n).

    Raises:
        ValueError: for other shapes; a batch S of one goes with every other.

    Example:
        >>> import torch
        >>> outer(torch.ones(1, 2, 7), torch.ones(4, 3, 7)).shape
        torch.Size([4, 6, 7])
    """
    left = variable("left", left, ("S", "a", "n"))
    right = variable("right", right, ("S", "b", left.shape[2]))
    require_common_batch(left.shape[:1], right.shape[:1])
    # (S, a, 1, n) times (S, 1, b, n).
    return (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)
