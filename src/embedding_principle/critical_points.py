"""Critical points of the empirical risk, found from many starts at once and polished to round-off.

A damped saddle-free Newton method descends on the risk; near a critical point (or from the first step, when saddles
are wanted) a Levenberg–Marquardt method minimizes the gradient norm, which converges to minima and saddles alike.

Many unregularized risks have no finite minimum at all: parameters drift to infinity along a valley while the gradient
tends to zero. So a small gradient is not enough here: the Newton step that remains must be small as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.hessians import hessian
from embedding_principle.risks import Risk

CONVERGED, DRIFTING, STALLED = "converged", "drifting", "stalled"

# The gradient norm below which the search passes from descent on the risk to least squares on the gradient: there
# Newton's method is in, or near, its region of quadratic convergence.
_POLISH_BELOW = 1e-7
# At a non-degenerate critical point the last Newton steps are far below this; in a valley that leads to infinity
# they stay of the order of one.
_SMALL_STEP = 1e-3
_LARGEST_DAMPING = 1e12
# A tanh neuron whose slope is below this on every sample (|z| > 7) is a constant or a step: it is on its way to
# infinity, where float64 sees a vanishing gradient but no critical point exists.
_SATURATED_SLOPE = 1e-6


@dataclass(frozen=True)
class CriticalPoints:
    """The outcome of a search from S starts.

    Attributes:
        theta: where each search ended, (S, P).
        risk: R_S there, (S,).
        gradient_norm: ‖∇R_S‖ there, (S,).
        newton_step: length of the Newton step that remains (directions of zero curvature left out), (S,).
        iterations: steps that were tried, (S,).
        status: "converged" (a critical point to round-off), "drifting" (the parameters left the search radius, or the
            gradient vanishes along a valley without a critical point) or "stalled" (no step helps any more).
    """

    theta: Tensor
    risk: Tensor
    gradient_norm: Tensor
    newton_step: Tensor
    iterations: Tensor
    status: tuple[str, ...]

    @property
    def converged(self) -> Tensor:
        """Which searches ended in a critical point, boolean (S,)."""
        return torch.tensor([status == CONVERGED for status in self.status])

    def distinct(self, *, relative_tolerance: float = 1e-8) -> list[int]:
        """Indices of converged points whose risks differ, in increasing order of risk."""
        found: list[int] = []
        for index in torch.argsort(self.risk).tolist():
            known = found and abs(self.risk[index] - self.risk[found[-1]]) <= relative_tolerance * (
                1e-300 + abs(self.risk[index])
            )
            if self.status[index] == CONVERGED and not known:
                found.append(index)
        return found


class _Search:
    """The state of S searches; every array has S rows."""

    def __init__(self, risk: Risk, starts: Tensor, descend: bool) -> None:
        count = len(starts)
        self.objective = risk
        self.theta = starts.clone()
        self.risk, self.gradient, self.hessian = self.evaluate(starts)
        self.damping = torch.full((count,), 1e-2, dtype=starts.dtype)
        self.polishing = torch.full((count,), not descend)
        self.iterations = torch.zeros(count, dtype=torch.long)
        self.last_step = torch.zeros(count, dtype=starts.dtype)
        self.improvement = torch.full((count,), torch.inf, dtype=starts.dtype)
        self.eigenvalues, self.eigenvectors = torch.linalg.eigh(self.hessian)

    def evaluate(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.objective(theta), self.objective.gradient(theta), hessian(self.objective, theta)

    @property
    def gradient_norm(self) -> Tensor:
        return self.gradient.norm(dim=-1)

    def step(self, rows: Tensor) -> None:
        """Try one damped step from each of these rows and keep those that improve."""
        values, vectors = self.eigenvalues[rows], self.eigenvectors[rows]
        slope = _coordinates(vectors, self.gradient[rows])
        polishing, damping = self.polishing[rows], self.damping[rows]
        scaled = torch.where(
            polishing[:, None],
            values * slope / (values**2 + damping[:, None] ** 2),
            slope / (values.abs() + damping[:, None]),
        )
        move = -(vectors @ scaled[..., None])[..., 0]
        risk, gradient, curvature = self.evaluate(self.theta[rows] + move)
        before, after = self.gradient_norm[rows], gradient.norm(dim=-1)
        predicted = (slope * scaled - values * scaled**2 / 2).sum(-1)
        better = torch.where(polishing, after < before, self.risk[rows] - risk > 1e-4 * predicted.abs())
        better &= torch.isfinite(after)
        self.iterations[rows] += 1
        self.damping[rows] = torch.where(better, damping / 5, damping * 4).clamp(1e-30, 2 * _LARGEST_DAMPING)
        self.improvement[rows] = torch.where(better, before / after, torch.ones_like(after))
        self._accept(rows[better], move[better], risk[better], gradient[better], curvature[better])
        self.polishing[rows] |= self.gradient_norm[rows] < _POLISH_BELOW

    def _accept(self, rows: Tensor, move: Tensor, risk: Tensor, gradient: Tensor, curvature: Tensor) -> None:
        self.theta[rows] += move
        self.last_step[rows] = move.norm(dim=-1)
        self.risk[rows], self.gradient[rows], self.hessian[rows] = risk, gradient, curvature
        self.eigenvalues[rows], self.eigenvectors[rows] = torch.linalg.eigh(curvature)

    def newton_step(self) -> Tensor:
        """Length of −H⁺∇R, eigenvalues at the level of rounding taken as zero."""
        slope = _coordinates(self.eigenvectors, self.gradient)
        noise = self.eigenvalues.abs().amax(-1, keepdim=True) * self.theta.shape[-1] * torch.finfo(torch.float64).eps
        curved = self.eigenvalues.abs() > noise
        return torch.where(curved, slope / self.eigenvalues, 0.0).norm(dim=-1)


def _coordinates(vectors: Tensor, gradient: Tensor) -> Tensor:
    return (vectors.mT @ gradient[..., None])[..., 0]


def search(
    risk: Risk,
    starts: Tensor,
    *,
    descend: bool = True,
    tolerance: float = 1e-12,
    max_iterations: int = 400,
    radius: float = 1e3,
    progress: Callable[[int, int], None] | None = None,
) -> CriticalPoints:
    """Search a critical point of R_S from each start.

    Args:
        risk: the empirical risk.
        starts: (S, P) float64.
        descend: True seeks minima (saddles can still be met); False takes the critical point that least squares on
            the gradient finds, a saddle more often than not.
        tolerance: largest gradient norm of a point that is called critical.
        max_iterations: of each start.
        radius: a search whose ‖θ‖ passes it has drifted off.
        progress: called with (iteration, searches still running).

    Returns:
        One row for each start, in order. Only rows with status "converged" are critical points: gradient norm at most
        `tolerance`, and the remaining Newton step and the last step taken at most 1e-3 · max(1, ‖θ‖).

    Raises:
        ValueError: if the starts are not a finite float64 tensor of shape (S, P).

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> found = search(Risk(Network((1, 1)), x, 3 * x + 1), torch.zeros(1, 2).double())
        >>> found.status, found.theta.round(decimals=6)
        (('converged',), tensor([[3., 1.]], dtype=torch.float64))
    """
    if starts.dim() != 2 or starts.dtype != torch.float64 or not torch.isfinite(starts).all():
        raise ValueError("starts: expected a finite float64 tensor of shape (S, P)")
    state = _Search(risk, starts, descend)
    for iteration in range(max_iterations):
        rows = _running(state, tolerance, radius)
        if progress:
            progress(iteration, len(rows))
        if not len(rows):
            break
        state.step(rows)
    return _outcome(state, tolerance, radius)


def _running(state: _Search, tolerance: float, radius: float) -> Tensor:
    # Below the tolerance a search goes on while steps still halve the gradient: that ends at round-off.
    done = (state.gradient_norm <= tolerance) & (state.improvement < 2)
    lost = (state.theta.norm(dim=-1) > radius) | (state.damping > _LARGEST_DAMPING)
    return torch.nonzero(~(done | lost | (state.gradient_norm == 0)))[:, 0]


def _outcome(state: _Search, tolerance: float, radius: float) -> CriticalPoints:
    newton_step, norm = state.newton_step(), state.theta.norm(dim=-1)
    vanishing = state.gradient_norm <= tolerance
    still = torch.maximum(newton_step, state.last_step) <= _SMALL_STEP * norm.clamp(min=1)
    still &= ~saturated(state.objective, state.theta)
    status = tuple(
        CONVERGED if v and s and n <= radius else DRIFTING if v or n > radius else STALLED
        for v, s, n in zip(vanishing.tolist(), still.tolist(), norm.tolist())
    )
    return CriticalPoints(state.theta, state.risk, state.gradient_norm, newton_step, state.iterations, status)


def saturated(risk: Risk, theta: Tensor) -> Tensor:
    """Whether some hidden neuron of a smooth activation has no slope left on any sample, boolean (...).

    An exactly flat piece (ReLU below zero) is no saturation: a neuron may rest there at a finite critical point.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.ones(3, 1).double()
        >>> saturated(Risk(Network.uniform((1, 1, 1), tanh), x, x), torch.tensor([0.0, 30.0, 1.0, 0.0]).double())
        tensor(True)
    """
    found = torch.zeros(theta.shape[:-1], dtype=torch.bool)
    preactivations = risk.network.trace(theta, risk.inputs).preactivations
    for z, activation in zip(preactivations, risk.network.activations):
        slope = activation.first(z).abs().amax(-2)
        flat = (slope == 0) if activation.pieces else torch.zeros_like(slope, dtype=torch.bool)
        found |= ((slope < _SATURATED_SLOPE) & ~flat).any(-1)
    return found
