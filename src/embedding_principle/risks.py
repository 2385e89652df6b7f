"""Losses and the empirical risk R_S(θ) = (1/n) Σ_i ℓ(f_θ(x_i), y_i) on a training set S."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from embedding_principle.arguments import check_fields, real, variable
from embedding_principle.networks import Network, Parametrised

_Curve = Callable[[Tensor, Tensor], Tensor]
_Product = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss ℓ(f, y) of one sample with its first two derivatives in the output f.

    Attributes:
        name: for messages.
        value: ℓ, maps outputs and targets (..., n, m) to (..., n).
        residuals: ∂ℓ/∂f, (..., n, m).
        curvature: ∂²ℓ/∂f², (..., n, m, m).
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    residuals: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    curvature: Callable[[Tensor, Tensor], Tensor] = field(repr=False)


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).sum(-1)


def _squared_error_residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    return 2 * (outputs - targets)


def _squared_error_curvature(outputs: Tensor, targets: Tensor) -> Tensor:
    width = outputs.shape[-1]
    return (2 * torch.eye(width, dtype=outputs.dtype)).expand(*outputs.shape, width)


def _log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    # Classes first: they are few, and sums over a short last dimension are slow.
    f, y = outputs.mT, targets.mT
    largest, index = f.max(dim=-2, keepdim=True)
    below = f - largest
    # log Σ exp = largest + log1p of the others: a small loss keeps its digits, for no term is negative.
    others = below.exp().scatter(-2, index, 0.0).sum(-2)
    return others.log1p() - (y * below).sum(-2)


def _probability_differences(outputs: Tensor, targets: Tensor) -> Tensor:
    y = targets.mT
    difference = torch.softmax(outputs.mT, dim=-2) - y
    # The entries of p − y sum to zero, so their sum is the rounding of p where y was subtracted: with it taken off
    # where y = 1, that entry becomes minus the sum of the other p, and keeps its digits.
    return torch.addcmul(difference, y, difference.sum(-2, keepdim=True), value=-1).mT


class _Differentiated(torch.autograd.Function):
    """A function of (f, y) by one formula, and its derivative in f by others; y is data, and not differentiated.

    `pull` multiplies the derivative by a gradient from the left, `push` by a tangent from the right.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(outputs: Tensor, targets: Tensor, function: _Curve, pull: _Product, push: _Product) -> Tensor:
        """The values of the function at (f, y)."""
        return function(outputs, targets)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep (f, y) and the two products with the derivative."""
        outputs, targets, _, ctx.pull, ctx.push = inputs
        ctx.save_for_backward(outputs, targets)
        ctx.save_for_forward(outputs, targets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient times the derivative in f."""
        return ctx.pull(*ctx.saved_tensors, gradient), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """The derivative in f times the tangent."""
        product: Tensor = ctx.push(*ctx.saved_tensors, tangent)
        return product


def _differentiated(outputs: Tensor, targets: Tensor, function: _Curve, pull: _Product, push: _Product) -> Tensor:
    if not (outputs.requires_grad and torch.is_grad_enabled()):
        # Training asks for residuals alone, and the detour would take longer than they do.
        return function(outputs, targets)
    values: Tensor = _Differentiated.apply(outputs, targets, function, pull, push)  # type: ignore[no-untyped-call]
    return values


def _residuals_scaled(outputs: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
    return gradient.unsqueeze(-1) * _cross_entropy_residuals(outputs, targets)


def _residuals_along(outputs: Tensor, targets: Tensor, tangent: Tensor) -> Tensor:
    return (tangent * _cross_entropy_residuals(outputs, targets)).sum(-1)


def _curvature_times(outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
    return (_cross_entropy_curvature(outputs, targets) @ vector.unsqueeze(-1)).squeeze(-1)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return _differentiated(outputs, targets, _log_loss, _residuals_scaled, _residuals_along)


def _cross_entropy_residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    return _differentiated(outputs, targets, _probability_differences, _curvature_times, _curvature_times)


def _cross_entropy_curvature(outputs: Tensor, targets: Tensor) -> Tensor:
    p = torch.softmax(outputs, dim=-1)
    off = p.unsqueeze(-1) * p.unsqueeze(-2) * (1 - torch.eye(p.shape[-1], dtype=p.dtype))
    # p (1 − p) on the diagonal as p times the sum of the others, which keeps its digits where p is nearly one.
    return torch.diag_embed(off.sum(-1)) - off


squared_error = Loss("squared error", _squared_error, _squared_error_residuals, _squared_error_curvature)
"""ℓ = ‖f − y‖², summed over outputs: the risk is the mean squared error of Bai et al. (arXiv:2205.13283)."""

cross_entropy = Loss("cross-entropy", _cross_entropy, _cross_entropy_residuals, _cross_entropy_curvature)
"""ℓ = −Σ_c y_c log softmax(f)_c for targets y that are probabilities (one-hot labels among them).

Loss, residuals and curvature of one-hot labels keep their relative accuracy however sure the network is of a class, and
autograd gives the same residuals and curvature.
"""


@dataclass(frozen=True, eq=False)
class Risk:
    """The empirical risk R_S of a network on S = {(x_i, y_i)}: a function of θ (..., P).

    Attributes:
        network: the architecture.
        inputs: x, (n, m_0).
        targets: y, (n, m_L).
        loss: `squared_error` or `cross_entropy`.

    Data and θ of other floating-point types are converted to float64. Where θ is not finite, or so large that float64
    overflows, neither is its risk, nor the gradient.

    Raises:
        ValueError: if there is no sample, shapes do not fit the network, data are not floating-point numbers or not
            finite, or cross-entropy targets are not probabilities.

    Example:
        >>> risk = Risk(Network((1, 1)), torch.ones(4, 1).double(), torch.zeros(4, 1).double())
        >>> risk(torch.tensor([2.0, 1.0]).double()).item()
        9.0
        >>> risk.gradient(torch.tensor([2.0, 1.0]).double())
        tensor([6., 6.], dtype=torch.float64)
    """

    network: Network
    inputs: Tensor
    targets: Tensor
    loss: Loss = squared_error

    def __post_init__(self) -> None:
        check_fields(self)
        widths = self.network.widths
        # The class is frozen.
        object.__setattr__(self, "inputs", real("inputs", self.inputs, ("n", widths[0])))
        if self.loss == cross_entropy and self.targets.dim() == 1 and not self.targets.is_floating_point():
            raise ValueError(
                "targets: expected rows of probabilities, got class numbers; give one_hot(labels).double()"
            )
        object.__setattr__(self, "targets", real("targets", self.targets, (len(self.inputs), widths[-1])))
        if self.loss == cross_entropy:
            sums = self.targets.sum(-1)
            # Targets are sums of at most m_L floats: their rounding stays far below 1e-12.
            if (self.targets < 0).any() or ((sums - 1).abs() > 1e-12).any():
                raise ValueError("targets: cross-entropy needs rows that are probabilities (one-hot labels, say)")

    def __call__(self, theta: Tensor) -> Tensor:
        """R_S(θ), of shape (...)."""
        return self.loss.value(self._outputs(theta), self.targets).mean(-1)

    def residuals(self, theta: Tensor) -> Tensor:
        """∂ℓ/∂f at every sample, (..., n, m_L)."""
        return self.loss.residuals(self._outputs(theta), self.targets)

    def _outputs(self, theta: Tensor) -> Tensor:
        return self.network.forward(theta, self.inputs)

    def gradient(self, theta: Tensor) -> Tensor:
        """∇R_S(θ), of θ's shape; a batch of θ is differentiated in one backward pass."""
        # Outside inference mode, and with gradients, whatever the caller's mode is.
        with torch.inference_mode(False):
            theta = variable("theta", theta, (..., self.network.n_parameters)).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self(theta).sum(), theta)
        return gradient

    def at(self, theta: Tensor) -> Parametrised:
        """θ (..., P) with the network that this is the risk of."""
        return Parametrised(self.network, theta)

    def on(self, network: Network) -> "Risk":
        """The risk of another network on the same training set and loss."""
        return Risk(network, self.inputs, self.targets, self.loss)
