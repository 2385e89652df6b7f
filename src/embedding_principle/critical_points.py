"""Critical points of the empirical risk, found from many starts at once and polished to round-off.

Two trust-region methods take minimizers of a quadratic model in a ball, see `trust_region`. *Descent* takes the model
of the risk, so that negative curvature is used; it leads to minima. *Polishing* takes the Gauss–Newton model of
½‖∇R‖² (Levenberg–Marquardt); it converges to minima and saddles alike, at a quadratic rate, and goes on where the
decrease of the risk drowns in round-off.

Many unregularized risks have no finite minimum: neurons merge while their outgoing weights grow with opposite signs,
or a neuron saturates. The gradient tends to zero along these valleys, so a small gradient alone proves nothing. A point
is called critical only if the Newton step that remains is small as well and no neuron is saturated.

Where a sample sits on a kink of a neuron that transmits, as at z = 0 of a ReLU, the gradient is a choice of autograd's
and proves nothing either: the risk may fall along one side. Such points are never called critical.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.linalg import norm
from torch import Tensor

from embedding_principle.arguments import checked, number, real, sums_are_finite, variable, whole
from embedding_principle.curvature.hessian import derivatives, hessian
from embedding_principle.curvature.inertia import Inertia, inertia
from embedding_principle.curvature.kinks import kinks
from embedding_principle.curvature.passes import Derivatives
from embedding_principle.risks import Risk
from embedding_principle.saturation import saturated
from embedding_principle.trust_region import FLAT, Array, Mask, Rows, descent_step, polishing_step, require_numba

CONVERGED, DRIFTING, STALLED, AT_A_KINK = "converged", "drifting", "stalled", "at a kink"
NOT_FINITE = "not finite"

_REMEDIES = {
    DRIFTING: "a valley leads to infinity, where a ridge (ridge=1e-3, say) makes minima finite; but lifting keeps the "
    "critical points of the risk without a ridge only",
    STALLED: "give more max_iterations or other starts",
    AT_A_KINK: "a sample sits on a kink of its neuron, so give other starts or a smooth activation",
    NOT_FINITE: "scale the data, or give smaller starts",
}

# The risk of a perfect fit is round-off, (1e-15)² times the targets' scale squared: differences below this are noise.
_PERFECT_FIT = 1e-20


@dataclass(frozen=True, eq=False)
class CriticalPoints:
    """The outcome of a search from S starts.

    Attributes:
        theta: where each search ended, (S, P).
        risk: R_S there (with the ridge term, if any), (S,).
        gradient_norm: the norm of its gradient there, (S,).
        newton_step: length of the Newton step that remains, with curvatures below 1e-12 ‖H‖ raised to that, (S,).
        iterations: steps that were tried, (S,).
        status: "converged" (a critical point to round-off), "drifting" (the parameters left the search radius or were
            still growing, or the gradient vanishes along a valley without a critical point), "at a kink" (a sample sits
            on a kink there, so that the risk has one-sided slopes only: the point may be a minimum, or no critical
            point at all), "not finite" (the risk, its gradient or its Hessian is not finite there, as at the end of a
            training that diverged) or "stalled" (no step helps any more, as at a local minimum of the gradient norm,
            or iterations ran out).
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

    @checked
    def distinct(self, *, relative_tolerance: float = 1e-8) -> list[int]:
        """Indices of converged points whose risks differ, in increasing order of risk."""
        number("relative_tolerance", relative_tolerance, at_least=0.0)
        found: list[int] = []
        for index in torch.argsort(self.risk).tolist():
            apart = max(relative_tolerance * abs(float(self.risk[index])), _PERFECT_FIT)
            known = found and float(self.risk[index] - self.risk[found[-1]]) <= apart
            if self.status[index] == CONVERGED and not known:
                found.append(index)
        return found

    def lowest(self) -> Tensor:
        """The critical point of least risk, θ (P,).

        Raises:
            ValueError: if no search converged, with what became of them and the remedies.

        Example:
            >>> from embedding_principle.networks import Network
            >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
            >>> search(Risk(Network((1, 1)), x, 3 * x + 1), torch.zeros(1, 2).double()).lowest().round(decimals=6)
            tensor([3., 1.], dtype=torch.float64)
        """
        if not self.converged.any():
            became = "; ".join(
                f"{count} {status}: {_REMEDIES[status]}" for status, count in Counter(self.status).items()
            )
            raise ValueError(f"starts: none of {len(self.status)} led to a critical point ({became})")
        return self.theta[self.distinct()[0]]


class NotCriticalError(ValueError):
    """The point is not critical, and the inertia of its Hessian says nothing about the landscape near by."""


# Of a risk R in float64 about 1e-15 R is round-off. A step whose predicted decrease is smaller than a hundred times
# that, or than the round-off of a perfect fit, cannot be judged by the risk any more, but still by the gradient.
_UNRESOLVED_DECREASE = 1e-13
_PERFECT_FIT_DECREASE = 1e-26
# Turns 0 / 0 into 0.
_TINY = 1e-300


class _Search:
    """The state of S searches; every array has S rows."""

    def __init__(self, risk: Risk, ridge: float, starts: Tensor, descend: bool, compiled: bool = False) -> None:
        count = len(starts)
        self.objective, self.ridge, self.compiled = risk, ridge, compiled
        self.theta = starts.numpy().copy()
        found = derivatives(risk, starts, ridge=ridge)
        self.risk, self.gradient, self.hessian = (part.numpy() for part in (found.risk, found.gradient, found.hessian))
        self.lost = _lost(found)
        self.gradient_norm, self.norm = norm(self.gradient, axis=-1), norm(self.theta, axis=-1)
        self.radius = _longest_step(self.norm)
        self.shift = np.zeros(count)
        self.polishing = np.full(count, not descend)
        self.improving = np.full(count, True)
        self.iterations = np.zeros(count, dtype=np.int64)

    def step(self, rows: Rows) -> None:
        """Try one step from each of these rows and keep those that improve."""
        move, predicted = self.propose(rows)
        theta, moved = self.theta[rows] + move, norm(move, axis=-1)
        found = derivatives(self.objective, torch.from_numpy(theta), ridge=self.ridge)
        before, after = self.gradient_norm[rows], norm(found.gradient.numpy(), axis=-1)
        decrease = np.where(self.polishing[rows], (before**2 - after**2) / 2, self.risk[rows] - found.risk.numpy())
        ratio = decrease / np.maximum(predicted, _TINY)
        better = ratio > 1e-4  # false for NaN
        self.iterations[rows] += 1
        self.improving[rows] = better & (after < before / 2)
        self._accept(rows, better, theta, found)
        radius = _next_radius(self.radius[rows], moved, np.where(np.isnan(ratio), -1.0, ratio))
        exact = ~self.polishing[rows] & (np.abs(ratio - 1) < _EXACT)
        self.radius[rows] = np.minimum(radius, _longest_step(self.norm[rows]) * np.where(exact, _FARTHER, 1.0))

    def propose(self, rows: Rows) -> tuple[Array, Array]:
        """The trust-region step of each row and the decrease of the objective that its model predicts."""
        move, predicted = np.empty_like(self.theta[rows]), np.empty(len(rows))
        descending = np.flatnonzero(~self.polishing[rows])
        if len(descending):
            some = rows[descending]
            move[descending], predicted[descending], self.shift[some] = descent_step(
                *self._model(some), torch.from_numpy(self.shift[some]), compiled=self.compiled
            )
            resolved = predicted > np.maximum(_UNRESOLVED_DECREASE * np.abs(self.risk[rows]), _PERFECT_FIT_DECREASE)
            late = rows[descending[~resolved[descending]]]
            self.polishing[late] = True
            self.radius[late] = _longest_step(self.norm[late])
        polishing = np.flatnonzero(self.polishing[rows])
        if len(polishing):
            move[polishing], predicted[polishing] = polishing_step(*self._model(rows[polishing]))
        return move, predicted

    def _model(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        hessian, gradient, radius = (
            torch.from_numpy(part[rows]) for part in (self.hessian, self.gradient, self.radius)
        )
        return hessian, gradient, radius

    def _accept(self, rows: Rows, better: Mask, theta: Array, found: Derivatives) -> None:
        kept = rows[better]
        self.theta[kept], self.norm[kept] = theta[better], norm(theta[better], axis=-1)
        self.risk[kept], self.hessian[kept] = found.risk.numpy()[better], found.hessian.numpy()[better]
        gradient = found.gradient.numpy()[better]
        self.gradient[kept], self.gradient_norm[kept] = gradient, norm(gradient, axis=-1)
        self.lost[kept] = _lost(found)[better]

    def newton_step(self) -> Array:
        """Length of −H⁻¹∇R, moduli of eigenvalues raised to the level of a flat direction at least."""
        # LAPACK gives up on all matrices for the sake of one that is not finite.
        finite = np.where(self.lost[:, None, None], 0.0, self.hessian)
        values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(finite)))
        slope, moduli = np.matmul(self.gradient[:, None], vectors)[:, 0], np.abs(values)
        floor = FLAT * moduli.max(-1, keepdims=True)
        return np.where(self.lost, np.nan, norm(slope / np.maximum(np.maximum(moduli, floor), _TINY), axis=-1))


def _lost(found: Derivatives) -> Mask:
    """Where risk, gradient or Hessian is not finite, boolean (S,)."""
    if sums_are_finite(found.risk, found.gradient, found.hessian):
        return np.zeros(len(found.risk), dtype=np.bool_)
    finite = found.hessian.isfinite().all((-2, -1)) & found.risk.isfinite()
    lost: Mask = (~(finite & found.gradient.isfinite().all(-1))).numpy()
    return lost


# The longest step, as a fraction of max(1, ‖θ‖), but for the exception below. Short steps keep a search in the basin of
# its start: on targets on the line, steps three times as long led a third of the searches for saddles out of it, into
# valleys to infinity.
_LONGEST_STEP = 0.1
# Descent goes that many times as far where its model has just foretold the decrease to a tenth. At width 2 it saves a
# quarter of the iterations on one target and a twelfth on another, at width 5 none; of 18 432 starts without a ridge
# as many as before ended at a critical point, 14 811 instead of 14 777.
_FARTHER = 3.0
_EXACT = 0.1


def _longest_step(norm: Array) -> Array:
    longest: Array = _LONGEST_STEP * np.maximum(norm, 1)
    return longest


def _next_radius(radius: Array, moved: Array, ratio: Array) -> Array:
    # The usual rule: shrink below a poor step, grow behind a good one that the radius had cut short. Where the model
    # overflows, a step has no length.
    grown = np.where((ratio > 0.75) & (moved > 0.9 * radius), 2 * radius, radius)
    return np.where(ratio < 0.25, np.where(np.isfinite(moved), moved, radius) / 4, grown)


@checked
def search(
    risk: Risk,
    starts: Tensor,
    *,
    descend: bool = True,
    ridge: float = 0.0,
    tolerance: float = 1e-12,
    max_iterations: int = 400,
    radius: float = 1e3,
    compiled: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CriticalPoints:
    """Search a critical point of R_S(θ) + ridge ‖θ‖² from each start.

    Args:
        risk: the empirical risk R_S.
        starts: (S, P), of any float type; the search is in float64. A start that is not finite, or with derivatives
            that are not, is a result of its own, "not finite", and leaves the others alone.
        descend: True seeks minima; False takes the critical point that least squares on the gradient finds, a
            saddle more often than not.
        ridge: weight of ‖θ‖², for `curvature.hessian` and `critical_inertia` too. A positive one makes minima finite,
            where searches drift to infinity without; but lifted points are critical for ridge 0 only, since the deeper
            parameters have another norm.
        tolerance: largest gradient norm of a point that is called critical.
        max_iterations: of each start.
        radius: a search whose ‖θ‖ passes it has drifted off.
        compiled: True takes descent steps from loops that numba compiles, which saves about a third of the time of a
            search for up to sixty parameters. Steps then differ by rounding errors, and a search may end elsewhere.
        progress: called with (iteration, searches still running).

    Returns:
        One row for each start, in order; a row depends on the others through rounding errors only. Only rows with
        status "converged" are critical points: gradient norm at most `tolerance`, the remaining Newton step at most
        1e-4 · max(1, ‖θ‖), no neuron saturated, and no kink across which a slope of the risk jumps by more than
        `tolerance`. That is to say, to the resolution of float64: a flat direction's slope
        can be told from zero down to about 1e-16 ‖H‖ ‖θ‖.

    Raises:
        ValueError: if the starts are not floating-point numbers of shape (S, P), S > 0, ridge, tolerance or
            max_iterations is negative, the radius is not positive, or compiled steps are asked for without numba.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> found = search(Risk(Network((1, 1)), x, 3 * x + 1), torch.zeros(1, 2).double())
        >>> found.status, found.theta.round(decimals=6)
        (('converged',), tensor([[3., 1.]], dtype=torch.float64))
    """
    starts = variable("starts", starts, ("S", risk.network.n_parameters)).detach()
    ridge, tolerance = number("ridge", ridge, at_least=0.0), number("tolerance", tolerance, at_least=0.0)
    max_iterations, radius = whole("max_iterations", max_iterations, 0), number("radius", radius, above=0.0)
    if compiled:
        require_numba()
    with np.errstate(all="ignore"):  # what is not finite shows in the outcome
        state = _Search(risk, ridge, starts, descend, compiled)
        midway = state.norm.copy()
        for iteration in range(max_iterations):
            rows = _running(state, tolerance, radius)
            if progress:
                progress(iteration, len(rows))
            if not len(rows):
                break
            if iteration == max_iterations // 2:
                midway = state.norm.copy()
            state.step(rows)
        return _outcome(state, tolerance, radius, midway)


@checked
def critical_inertia(risk: Risk, theta: Tensor, *, ridge: float = 0.0, tolerance: float = 1e-12) -> Inertia:
    """The inertia of ∇²(R_S + ridge ‖·‖²) at a critical point, and a refusal at any other.

    What is critical is judged as `search` does, without a step: by the gradient, the Newton step that remains,
    saturated neurons and kinks. The gradient's norm g is what `inertia` is told of the error: where curvature is zero
    at the critical point near by, it may be of the order of g here.

    Args:
        risk: the empirical risk R_S.
        theta: θ, (P,), of any float type.
        ridge: weight of ‖θ‖².
        tolerance: largest gradient norm of a point that is called critical.

    Returns:
        The counts with the threshold, the gap and the eigenvalues that they rest on.

    Raises:
        NotCriticalError: with the size of the gradient, or of the step that remains, and the remedy.
        KinkError: if a sample sits on a kink, where there is no Hessian; see `curvature.kinks`.
        UnclearInertiaError: if an eigenvalue is neither clearly zero nor clearly of one sign; see `inertia`.
        ValueError: for a θ that is not finite or not of that shape, or a negative ridge or tolerance.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network((1, 1)), x, 3 * x + 1)
        >>> critical_inertia(risk, torch.tensor([3.0, 1.0])).counts
        (0, 0, 2)
        >>> critical_inertia(risk, torch.tensor([3.0, 0.9]))
        Traceback (most recent call last):
        ...
        embedding_principle.critical_points.NotCriticalError: theta: no critical point, the gradient norm is 2.0e-01,
        above the tolerance 1e-12; polish it with search(risk, theta[None], descend=False)
    """
    theta = real("theta", theta, (risk.network.n_parameters,))
    ridge, tolerance = number("ridge", ridge, at_least=0.0), number("tolerance", tolerance, at_least=0.0)
    matrix = hessian(risk, theta, ridge=ridge)
    with np.errstate(all="ignore"):
        state = _Search(risk, ridge, theta[None], descend=False)
        found = _outcome(state, tolerance, math.inf, state.norm)
    if not found.converged:
        raise NotCriticalError(_why_not_critical(found, ridge, tolerance))
    return inertia(matrix, error=float(found.gradient_norm))


def _why_not_critical(found: CriticalPoints, ridge: float, tolerance: float) -> str:
    size = float(found.gradient_norm)
    if found.status == (NOT_FINITE,):
        return "theta: the risk or a derivative overflows there; scale the data, or give a smaller θ"
    if size > tolerance:
        penalty = f"ridge={ridge:g}, " if ridge else ""
        return (
            f"theta: no critical point, the gradient norm is {size:.1e}, above the tolerance {tolerance:g}; "
            f"polish it with search(risk, theta[None], {penalty}descend=False)"
        )
    return (
        f"theta: the gradient norm is {size:.1e}, but the Newton step that remains has length "
        f"{float(found.newton_step):.1e}, or a neuron is saturated: {_REMEDIES[DRIFTING]}"
    )


def _running(state: _Search, tolerance: float, radius: float) -> Rows:
    # Below the tolerance a search goes on while steps still halve the gradient: that ends at round-off.
    done = (state.gradient_norm <= tolerance) & ~state.improving
    immobile = state.radius < np.finfo(np.float64).eps * np.maximum(state.norm, 1)
    over = done | immobile | (state.norm > radius) | (state.gradient_norm == 0) | state.lost
    return np.flatnonzero(~over)


# The Newton step that remains at a critical point, as a fraction of max(1, ‖θ‖): 1e-12 at a non-degenerate one, up to
# 2e-6 at lifted points with many flat directions (round-off over FLAT), 1e-5 where the risk is of order four; in a
# valley that leads to infinity it is about 0.3. Together with FLAT it asks the slope along flat directions to be below
# 1e-16 ‖H‖ ‖θ‖, about what rounding θ does to the gradient.
_SMALL_STEP = 1e-4
# Growth of ‖θ‖ in the second half of a search that ran out of iterations, above which it is said to drift. In the
# valleys of eleven one-dimensional problems it was 1.2 to 3 in the median; round a near-perfect fit, 1.02.
_DRIFT_GROWTH = 1.1


def _outcome(state: _Search, tolerance: float, radius: float, midway: Array) -> CriticalPoints:
    newton_step, size, theta = state.newton_step(), state.norm, torch.from_numpy(state.theta)
    vanishing = state.gradient_norm <= tolerance
    critical = vanishing & (newton_step <= _SMALL_STEP * np.maximum(size, 1)) & (size <= radius)
    critical &= ~saturated(state.objective, theta).numpy()
    growing = (size > radius) | (size > _DRIFT_GROWTH * midway)
    bent = kinks(state.objective, theta, tolerance=tolerance).numpy() > 0
    # The first that holds.
    outcomes = (
        (NOT_FINITE, state.lost),
        (CONVERGED, critical & ~bent),
        (AT_A_KINK, bent & ~growing),
        (DRIFTING, vanishing | growing),
    )
    status = tuple(next((name for name, holds in outcomes if holds[row]), STALLED) for row in range(len(size)))
    risk, gradient_norm, step, iterations = map(
        torch.from_numpy, (state.risk, state.gradient_norm, newton_step, state.iterations)
    )
    return CriticalPoints(theta, risk, gradient_norm, step, iterations, status)
