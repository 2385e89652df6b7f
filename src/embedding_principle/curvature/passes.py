"""One forward and one backward pass of S networks at once, with all that a closed-form Hessian needs of them.

Arrays are laid out (S, units, n): a batch of S networks first, the samples last, so that a sum over samples is one
matrix product. In lists, entry l of 0, …, L − 1 belongs to the theory's layer l + 1. (Training needs the gradient only,
many times over: `training.backpropagation` finds the same a, z and δ in buffers that it keeps.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embedding_principle.activations import Activation, Elementwise, tanh
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
        risk: the share of these samples in R_S, (S,).
    """

    weights: list[Tensor]
    features: list[Tensor]
    slopes: list[Tensor]
    bends: list[Tensor]
    deltas: list[Tensor]
    curvature: Tensor
    risk: Tensor

    def gradient(self) -> Tensor:
        """The share of these samples in ∇R_S, (S, P): δ[l] a[l−1]ᵀ for each layer."""
        parts = [_times(delta, features.mT) for delta, features in zip(self.deltas, self.features)]
        return torch.cat([part for v in parts for part in (v[..., :-1].flatten(1), v[..., -1])], dim=1)


@dataclass(frozen=True, eq=False)
class Derivatives:
    """The risk of S networks with its first two derivatives in θ; not finite where float64 overflows.

    Attributes:
        risk: R_S(θ), (S,).
        gradient: ∇R_S(θ), (S, P).
        hessian: ∇²R_S(θ), (S, P, P), exactly symmetric.
    """

    risk: Tensor
    gradient: Tensor
    hessian: Tensor

    @classmethod
    def sums(cls, theta: Tensor) -> "Derivatives":
        """Zeros for risk and gradient, to add passes to, and an empty Hessian, to write."""
        return cls(
            torch.zeros(len(theta), dtype=torch.float64),
            torch.zeros(theta.shape, dtype=torch.float64),
            torch.empty(*theta.shape, theta.shape[-1], dtype=torch.float64),
        )

    def add(self, rows: slice, passes: Passes) -> None:
        """Add the share of some of the samples to the risk and the gradient of these networks."""
        self.risk[rows] += passes.risk
        self.gradient[rows] += passes.gradient()


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
    features, slopes, seconds = [with_ones(risk.inputs[samples].mT.unsqueeze(0), dim=-2)], [], []
    for layer, activation in zip(layers, activations):
        curve, slope, second = _curve(activation, _times(layer.weight, features[-1][:, :-1]) + layer.bias.unsqueeze(-1))
        features.append(with_ones(curve, dim=-2))
        slopes.append(slope)
        seconds.append(second)
    output = (_times(layers[-1].weight, features[-1][:, :-1]) + layers[-1].bias.unsqueeze(-1)).mT
    deltas, bends = [risk.loss.residuals(output, risk.targets[samples]).mT.contiguous() / n], list[Tensor]()
    for hidden in reversed(range(len(activations))):
        pulled = _times(layers[hidden + 1].weight.mT, deltas[0])
        deltas.insert(0, slopes[hidden] * pulled)
        bends.insert(0, seconds[hidden] * pulled)
    curvature = risk.loss.curvature(output, risk.targets[samples]).movedim(-3, -1) / n
    share = risk.loss.value(output, risk.targets[samples]).sum(-1) / n
    return Passes([layer.weight for layer in layers], features, slopes, bends, deltas, curvature, share)


def _curve(activation: Activation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """σ, σ′ and σ″ at z; together where that takes less time."""
    together = _TOGETHER.get((activation.function, activation.first, activation.second))
    return together(z) if together else (activation.function(z), activation.first(z), activation.second(z))


def _tanh(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # 1/cosh² = 4e/(1 + e)², e = exp(−2|z|): relative accuracy in the tails, as in `activations`, without cosh.
    curve, e = _quick_tanh(z), z.abs().mul_(-2.0).exp_()
    slope = (4.0 * e).div_(e.add_(1.0).square_())
    return curve, slope, (curve * slope).mul_(-2.0)


def _quick_tanh(z: Tensor) -> Tensor:
    """Tanh by NumPy: with AVX-512 in a fraction of torch's time, else in as much or a third more."""
    try:
        given = z.numpy()
    except RuntimeError:  # in autograd's graph or under torch.func
        return torch.tanh(z)
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.tanh(given))


# By the functions themselves: another curve that bears the name of one of these is computed as it says.
_TOGETHER: dict[tuple[Elementwise, ...], Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    (tanh.function, tanh.first, tanh.second): _tanh
}


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


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Products of the matrices (S, a, b) and (S, b, c) of a batch; one single product where all share the right one."""
    if left.shape[-1] == 1:
        return left * right  # for an outer product matmul is slow
    return left @ (right[0] if len(right) == 1 else right)


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
