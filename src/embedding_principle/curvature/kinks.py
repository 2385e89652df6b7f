"""Samples that sit on a kink, where derivatives of the risk that autograd and closed forms give need not exist.

At a kink of σ the risk has one-sided derivatives only, and autograd's choice of σ′ there is one of many: a gradient of
zero does not make the point critical, the risk may fall in some direction at once. Whether it does matter is told by
the back-propagated error e = ∂R_S/∂f of that neuron on that sample: across the kink the derivative by the neuron's bias
jumps by e (σ′(z+) − σ′(z−)). Where σ′ is continuous and σ″ jumps (an ELU at 0) only the Hessian is in doubt.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked, number, real, variable, whole
from embedding_principle.networks import Layer, Trace
from embedding_principle.risks import Risk

# A forward pass rounds a pre-activation to a few m ε of the sum of its terms' moduli, 1e-13 for widths of a hundred.
# A sample that is nearer to a kink than ten times that counts as on it; one drawn at random is with probability 1e-12.
_ON_KINK = 1e-12
# Steps to both sides by one ulp change a smooth derivative of order one by about 1e-16.
_JUMP = 1e-12


class KinkError(ValueError):
    """A sample sits on a kink: the derivative that is asked for does not exist."""


@checked
def kinks(risk: Risk, theta: Tensor, *, order: int = 1, tolerance: float = 1e-12) -> Tensor:
    """How many pairs of a hidden neuron and a sample keep R_S from being `order` times differentiable, integers (...).

    For order 1 a pair counts if its pre-activation is, up to rounding, an end of an affine piece of σ at which σ′
    jumps, and the jump of the risk's slope along the neuron's bias is above the tolerance. So a neuron that transmits
    nothing does not count, nor a sample without error. For order 2 pairs count in the same way where σ″ jumps; where σ′
    jumps they all count, since the derivative by an outgoing weight has a kink even if that weight is zero.

    It is −1 where no number can be told: a pre-activation of a σ with kinks, or the slope of the risk there, is not
    finite.

    Args:
        risk: the empirical risk; batch normalization is allowed.
        theta: θ, (..., P), of any float type.
        order: 1 asks for the gradient, 2 for the Hessian too.
        tolerance: jumps of the slope, or of the curvature, up to it are taken for zero.

    Raises:
        ValueError: if the order is neither 1 nor 2, or the tolerance is negative.

    Example:
        >>> from embedding_principle.activations import elu, relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
        >>> theta = torch.tensor([1.0, 0.0, 1.0, 0.0])
        >>> risks = [Risk(Network.uniform((1, 1, 1), activation), x, x + 0.5) for activation in (relu, elu)]
        >>> [[kinks(risk, theta, order=order).item() for order in (1, 2)] for risk in risks]
        [[1, 1], [0, 1]]
    """
    theta = variable("theta", theta, (..., risk.network.n_parameters)).detach()
    order, tolerance = whole("order", order, 1, 2), number("tolerance", tolerance, at_least=0.0)
    counts = torch.zeros(theta.shape[:-1], dtype=torch.long)
    lost = torch.zeros_like(counts, dtype=torch.bool)
    for found, unknown in _pairs(risk, theta, order, tolerance):
        counts += found.sum((-2, -1))
        lost |= unknown
    return torch.where(lost, -1, counts)


@checked
def require_smooth(risk: Risk, theta: Tensor) -> None:
    """Refuse points at which a kink keeps R_S from being twice differentiable: they have no Hessian, and no inertia.

    Args:
        risk: the empirical risk.
        theta: θ, (..., P).

    Raises:
        KinkError: naming the first neuron and sample on a kink, see `kinks` with order 2.
        ValueError: if θ is not finite, or so large that derivatives overflow.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
        >>> risk = Risk(Network.uniform((1, 1, 1), relu), x, x)
        >>> require_smooth(risk, torch.tensor([1.0, 0.5, 1.0, 0.0]))
        >>> require_smooth(risk, torch.tensor([1.0, 0.0, 1.0, 0.0]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        embedding_principle.curvature.kinks.KinkError: theta: layer 1, neuron 0: sample 1 sits on a kink of relu, ...
    """
    theta = real("theta", theta, (..., risk.network.n_parameters))
    for layer, (found, unknown) in enumerate(_pairs(risk, theta, 2, 1e-12), start=1):
        if unknown.any():
            raise ValueError(f"theta: layer {layer}: pre-activations or slopes overflow float64; take a smaller one")
        if found.any():
            sample, neuron = found.nonzero()[0, -2:].tolist()
            raise KinkError(
                f"theta: layer {layer}, neuron {neuron}: sample {sample} sits on a kink of "
                f"{risk.network.activations[layer - 1].name}, so that the Hessian does not exist; take a point off it"
            )


def _pairs(risk: Risk, theta: Tensor, order: int, tolerance: float) -> list[tuple[Tensor, Tensor]]:
    """For each hidden layer which samples sit on a kink of which neurons, boolean (..., n, m_l), and where it is lost.

    Lost, boolean (...), is what depends on numbers that are not finite.
    """
    bent = [_kinks_of(activation) for activation in risk.network.activations]
    if not any(bent):
        return []
    trace, errors = _trace_and_errors(risk, theta)
    found = []
    for layer, features, z, error, ends in zip(
        risk.network.layers(theta), trace.features, trace.preactivations, errors, bent
    ):
        size, pairs = _size(layer, features), torch.zeros_like(z, dtype=torch.bool)
        for kink in ends:
            near = (z - kink.place).abs() <= _ON_KINK * (size + abs(kink.place))
            pairs |= near & kink.matters(error, order, tolerance)
        known = z.isfinite() & error.isfinite()
        found.append((pairs, bool(ends) & ~known.all((-2, -1))))
    return found


def _trace_and_errors(risk: Risk, theta: Tensor) -> tuple[Trace, list[Tensor]]:
    """The forward pass, and ∂R_S/∂f of each hidden layer on each sample, (..., n, m_l)."""
    # Outside inference mode, and with gradients, whatever the caller's mode is.
    with torch.inference_mode(False):
        trace = risk.network.trace(theta.detach().requires_grad_(True), risk.inputs)
        risks = risk.loss.value(trace.output, risk.targets).mean(-1)
        errors = torch.autograd.grad(risks.sum(), trace.features[1:])
    preactivations = tuple(z.detach() for z in trace.preactivations)
    features = tuple(values.detach() for values in trace.features)
    return Trace(preactivations, features, trace.output.detach()), list(errors)


def _size(layer: Layer, features: Tensor) -> Tensor:
    """The sum of moduli that rounding in the pre-activations is proportional to, (..., n, m_l)."""
    size = features.abs() @ layer.weight.abs().mT + layer.bias.abs().unsqueeze(-2)
    if layer.gamma is None or layer.beta is None:
        return size
    raw = features @ layer.weight.mT + layer.bias.unsqueeze(-2)
    # A constant pre-activation has deviation zero, and standardizes to zero.
    deviation = raw.std(-2, correction=0, keepdim=True).clamp(min=torch.finfo(raw.dtype).tiny)
    return layer.gamma.abs().unsqueeze(-2) * size / deviation + layer.beta.abs().unsqueeze(-2)


@dataclass(frozen=True)
class _Kink:
    """A place at which σ′ or σ″ jumps, with the moduli of both jumps."""

    place: float
    first: float
    second: float

    def matters(self, errors: Tensor, order: int, tolerance: float) -> Tensor:
        """Whether the derivative of R_S of this order jumps here, by the back-propagated errors."""
        if order == 2 and self.first > _JUMP:
            return torch.ones_like(errors, dtype=torch.bool)
        jump = self.first if order == 1 else self.second
        return (errors.abs() * jump > tolerance) & (jump > _JUMP)


def _kinks_of(activation: Activation) -> list[_Kink]:
    """The finite ends of affine pieces at which σ′ or σ″ jumps, in increasing order."""
    ends = {end for piece in activation.pieces for end in (piece.lower, piece.upper)}
    found = []
    for end in sorted(filter(math.isfinite, ends)):
        step = torch.finfo(torch.float64).eps * max(1.0, abs(end))
        sides = torch.tensor([end - step, end + step], dtype=torch.float64)
        jumps = [float(derivative(sides).diff().abs()) for derivative in (activation.first, activation.second)]
        if max(jumps) > _JUMP:
            found.append(_Kink(end, *jumps))
    return found
