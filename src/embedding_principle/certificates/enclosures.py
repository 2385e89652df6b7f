"""Risk, gradient and Hessian of a network over a box of parameters, by interval arithmetic on floats.

With J_l the derivative of the pre-activations of layer l by θ, D_l the second derivatives of the risk by them and δ_l
the first, H = Σ_l J_lᵀ D_l J_l + S + Sᵀ: a weight that multiplies a feature gives S the entries Σ_i δ ∂f/∂θ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from embedding_principle.activations import ACTIVATIONS, Activation, leaky_relu
from embedding_principle.arguments import checked
from embedding_principle.certificates.intervals import Ball, Piece
from embedding_principle.risks import Risk, cross_entropy

SMOOTH = ("tanh", "sigmoid", "softplus")
_UNBOUNDED = 2.0**900  # the end of a piece that has none: a float that the checker can read


@dataclass(frozen=True, eq=False)
class Enclosure:
    """What a network computes over a box of parameters, and the derivatives of its risk.

    Attributes:
        weights: (W, b) of each layer.
        features: f[0], …, f[L−1], each (n, m_l).
        slopes: σ′(z) of each hidden layer.
        bends: σ″(z) · ∂R/∂f of each hidden layer.
        deltas: ∂R/∂z of layers 1, …, L, each (n, m_l).
        curvature: the probabilities of cross-entropy, (n, m_L); None for squared error.
        risk: a number.
        gradient: (P,).
    """

    weights: list[tuple[Ball, Ball]]
    features: list[Ball]
    slopes: list[Ball]
    bends: list[Ball]
    deltas: list[Ball]
    curvature: Ball | None
    risk: Ball
    gradient: Ball

    def hessian(self) -> Ball:
        """The Hessian of the risk, (P, P): it holds that of every point of the box, and is symmetric."""
        size, n, start = self.gradient.shape[0], self.features[0].shape[0], 0
        before = Ball(np.zeros((n, self.features[0].shape[1], size)))
        total, mixed = Ball(np.zeros((size, size))), []
        for level, (weight, _) in enumerate(self.weights):
            out, fan = weight.shape
            mixed += [(self.deltas[level].T @ before.reshape(n, fan * size)).reshape(out * fan, size)]
            mixed += [Ball(np.zeros((out, size)))]
            jacobian = self._with_own(weight @ before, level, start)
            if level < len(self.bends):
                flat = jacobian.reshape(n * out, size)
                total = total + (self.bends[level].reshape(n * out, 1) * flat).T @ flat
                before = self.slopes[level].reshape(n, out, 1) * jacobian
            else:
                total = total + self._outputs(jacobian)
            start += out * (fan + 1)
        # A layer's weights meet those of earlier layers: the lower triangle has it all.
        lower = total + Ball.joined(mixed)
        return Ball(*(np.tril(part) + np.tril(part, -1).T for part in (lower.middle, lower.radius)))

    def _with_own(self, through: Ball, level: int, start: int) -> Ball:
        """∂z/∂θ, (n, m_{l+1}, P): what comes through the layers below, and the layer's own weights and biases."""
        middle, radius = through.middle, through.radius.copy()
        out, fan = self.weights[level][0].shape
        for j in range(out):
            here = slice(start + j * fan, start + (j + 1) * fan)
            middle[:, j, here] = self.features[level].middle
            radius[:, j, here] = self.features[level].radius
            middle[:, j, start + out * fan + j] = 1.0
            radius[:, j, start + out * fan + j] = 0.0
        return Ball(middle, radius)

    def _outputs(self, jacobian: Ball) -> Ball:
        """Jᵀ D J for the outputs, (n, m_L, P): D = 2/n, or (diag p − p pᵀ)/n."""
        n, out, size = jacobian.shape
        flat = jacobian.reshape(n * out, size)
        if self.curvature is None:
            return (2.0 * _share(n)) * (flat.T @ flat)
        weighted = self.curvature.reshape(n, out, 1) * jacobian
        expected = weighted.sum(1)
        return _share(n) * (weighted.reshape(n * out, size).T @ flat - expected.T @ expected)


@checked
def enclosure(risk: Risk, theta: Ball) -> Enclosure:
    """The network over a box of parameters, (P,).

    Raises:
        ValueError: if its activations are not among tanh, sigmoid, softplus and those that are piecewise affine, or it
            has batch normalization.

    Example:
        >>> import torch
        >>> from embedding_principle.networks import Network
        >>> line = Risk(Network((1, 1)), torch.ones(4, 1).double(), torch.zeros(4, 1).double())
        >>> over = enclosure(line, Ball([2.0, 1.0], 1e-3))
        >>> over.risk.holds(9.0), over.hessian().holds([[2.0, 2.0], [2.0, 2.0]])
        (True, True)
    """
    if theta.shape != (risk.network.n_parameters,):
        raise ValueError(f"theta: expected a ball of {risk.network.n_parameters} parameters, got {theta.shape}")
    if risk.network.batch_norm_epsilon is not None:
        raise ValueError("risk: cannot be enclosed with batch normalization; see depth.batch_normalization")
    n, weights = len(risk.inputs), _weights(risk, theta)
    features, slopes, curved = [Ball(risk.inputs.numpy())], list[Ball](), list[Ball]()
    for activation, (weight, bias) in zip(risk.network.activations, weights):
        value, slope, bend = _activated(activation, features[-1] @ weight.T + bias)
        features, slopes, curved = [*features, value], [*slopes, slope], [*curved, bend]
    weight, bias = weights[-1]
    value, delta, curvature = _loss(risk, features[-1] @ weight.T + bias)
    deltas, bends = [_share(n) * delta], list[Ball]()
    for level in reversed(range(len(slopes))):
        seen = deltas[0] @ weights[level + 1][0]
        bends.insert(0, seen * curved[level])
        deltas.insert(0, seen * slopes[level])
    parts = [part for d, f in zip(deltas, features) for part in ((d.T @ f).reshape(-1), d.sum(0))]
    risk_there = (_share(n) * value).sum(0)
    return Enclosure(weights, features, slopes, bends, deltas, curvature, risk_there, Ball.joined(parts))


def _weights(risk: Risk, theta: Ball) -> list[tuple[Ball, Ball]]:
    weights, start = [], 0
    for fan, out in zip(risk.network.widths, risk.network.widths[1:]):
        bias = start + out * fan
        weights.append((theta[start:bias].reshape(out, fan), theta[bias : bias + out]))
        start = bias + out
    return weights


def _loss(risk: Risk, outputs: Ball) -> tuple[Ball, Ball, Ball | None]:
    """Of every sample the loss and its derivatives by the outputs; for cross-entropy the probabilities too."""
    targets = risk.targets.numpy()
    if risk.loss is not cross_entropy:
        errors = outputs - targets
        return (errors * errors).sum(1), 2.0 * errors, None
    top = outputs.middle.max(1, keepdims=True)
    grown = (outputs - top).exp()
    total = grown.sum(1)
    value = total.log() - ((outputs - top) * targets).sum(1)
    probabilities = grown / total.reshape(len(targets), 1)
    return value, probabilities - targets, probabilities


def _activated(activation: Activation, z: Ball) -> tuple[Ball, Ball, Ball]:
    """σ, σ′ and σ″ over a ball of pre-activations; no numbers where a piecewise affine σ may be at a kink."""
    smooth = activation.name if known_here(activation) else ""
    if smooth == "tanh":
        value = z.tanh()
        slope = 1.0 - value * value
        return value, slope, -2.0 * (value * slope)
    if smooth in ("sigmoid", "softplus"):
        logistic = z.sigmoid()
        slope = logistic * (1.0 - logistic)
        if smooth == "softplus":
            return z.softplus(), logistic, slope
        return logistic, slope, slope * (1.0 - 2.0 * logistic)
    slopes, shifts = z.placed(affine_pieces(activation))
    return slopes * z + shifts, Ball(slopes), Ball(0.0 * slopes)


@checked
def affine_pieces(activation: Activation) -> list[Piece]:
    """The intervals on which σ is affine, constants included: (lower, upper, slope, intercept) in increasing order.

    Raises:
        ValueError: if there is none.

    Example:
        >>> from embedding_principle.activations import hard_tanh
        >>> [piece[2:] for piece in affine_pieces(hard_tanh)]
        [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0)]
    """
    ends = sorted({end for piece in activation.pieces for end in (piece.lower, piece.upper) if math.isfinite(end)})
    known = {piece.lower: (piece.slope, piece.intercept) for piece in activation.pieces}
    found = []
    for lower, upper in zip([-math.inf, *ends], [*ends, math.inf]):
        affine = known.get(lower) or _constant(activation, lower, upper)
        if affine:
            found.append((max(lower, -_UNBOUNDED), min(upper, _UNBOUNDED), *affine))
    if not found or not activation.pieces or not known_here(activation):
        raise ValueError(
            f"activation: certified are {', '.join(SMOOTH)} and the piecewise affine ones of `activations`, got "
            f"{activation.name}; take one of these"
        )
    return found


@checked
def known_here(activation: Activation) -> bool:
    """Whether σ is this library's own: of another one, only its name and pieces are known, and they may be wrong.

    Example:
        >>> from embedding_principle.activations import leaky_relu
        >>> known_here(leaky_relu(0.2)), known_here(Activation("tanh", torch.sin, torch.cos, torch.sin))
        (True, False)
    """
    own = leaky_relu(*activation.parameters) if activation.parameters else ACTIVATIONS.get(activation.name)
    if own is None or own != activation or own.pieces != activation.pieces:
        return False
    return _told(own.function) == _told(activation.function)


def _told(function: Callable[[Tensor], Tensor]) -> tuple[object, ...]:
    """What tells a function from others, inside of a partial one too."""
    if isinstance(function, partial):
        return function.func, function.args, tuple(function.keywords.items())
    return (function,)


def _constant(activation: Activation, lower: float, upper: float) -> tuple[float, float] | None:
    """Slope and intercept where σ is constant between two kinks, by its values at a few points there."""
    start = lower if math.isfinite(lower) else upper - 2.0
    end = upper if math.isfinite(upper) else start + 2.0
    points = torch.linspace(start, end, 5, dtype=torch.float64)[1:-1]
    values = activation(points)
    constant = bool((activation.first(points) == 0).all()) and bool((values == values[0]).all())
    return (0.0, float(values[0])) if constant else None


def _share(n: int) -> Ball:
    """1 / n."""
    return Ball(1.0 / n, 2.0**-52 / n)
