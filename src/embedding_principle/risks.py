"""Losses and the empirical risk R_S(θ) = (1/n) Σ_i ℓ(f_θ(x_i), y_i) on a training set S."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.networks import Network, Parametrised


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


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(targets * torch.log_softmax(outputs, dim=-1)).sum(-1)


def _cross_entropy_residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.softmax(outputs, dim=-1) - targets


def _cross_entropy_curvature(outputs: Tensor, targets: Tensor) -> Tensor:
    p = torch.softmax(outputs, dim=-1)
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


squared_error = Loss("squared error", _squared_error, _squared_error_residuals, _squared_error_curvature)
"""ℓ = ‖f − y‖², summed over outputs: the risk is the mean squared error of Bai et al. (arXiv:2205.13283)."""

cross_entropy = Loss("cross-entropy", _cross_entropy, _cross_entropy_residuals, _cross_entropy_curvature)
"""ℓ = −Σ_c y_c log softmax(f)_c for targets y that are probabilities (one-hot labels among them)."""


@dataclass(frozen=True, eq=False)
class Risk:
    """The empirical risk R_S of a network on S = {(x_i, y_i)}: a function of θ (..., P).

    Attributes:
        network: the architecture.
        inputs: x, (n, m_0).
        targets: y, (n, m_L).
        loss: `squared_error` or `cross_entropy`.

    Raises:
        ValueError: if shapes do not fit the network, data are not float64 or not finite, or cross-entropy targets
            are not probabilities.

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
        first, last = self.network.widths[0], self.network.widths[-1]
        n = len(self.inputs)
        check_data("inputs", self.inputs, (n, first))
        check_data("targets", self.targets, (n, last))
        if self.loss == cross_entropy:
            sums = self.targets.sum(-1)
            # Targets are sums of at most m_L floats: their rounding stays far below 1e-12.
            if (self.targets < 0).any() or ((sums - 1).abs() > 1e-12).any():
                raise ValueError("targets: cross-entropy needs rows that are probabilities (one-hot labels, say)")

    def __call__(self, theta: Tensor) -> Tensor:
        """R_S(θ), of shape (...)."""
        return self.loss.value(self.network.forward(theta, self.inputs), self.targets).mean(-1)

    def residuals(self, theta: Tensor) -> Tensor:
        """∂ℓ/∂f at every sample, (..., n, m_L)."""
        return self.loss.residuals(self.network.forward(theta, self.inputs), self.targets)

    def gradient(self, theta: Tensor) -> Tensor:
        """∇R_S(θ), of θ's shape; a batch of θ is differentiated in one backward pass."""
        theta = theta.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self(theta).sum(), theta)
        return gradient

    def at(self, theta: Tensor) -> Parametrised:
        """θ (..., P) with the network that this is the risk of."""
        return Parametrised(self.network, theta)

    def on(self, network: Network) -> "Risk":
        """The risk of another network on the same training set and loss."""
        return Risk(network, self.inputs, self.targets, self.loss)


def check_data(name: str, data: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse data that are not a finite float64 tensor of this shape.

    Raises:
        ValueError: naming the argument and what is wrong with it.
    """
    if tuple(data.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(data.shape)}")
    if data.dtype != torch.float64:
        raise ValueError(f"{name}: expected float64, got {data.dtype}; convert with .double()")
    if not torch.isfinite(data).all():
        row = int((~torch.isfinite(data)).any(-1).nonzero()[0])
        raise ValueError(f"{name}: sample {row} is not finite")
