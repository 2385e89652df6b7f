"""Steps of a trust-region method: minimizers of a quadratic model in a ball.

The minimizer of g·s + ½ s·Hs over ‖s‖ ≤ r is s = −(H + σ)⁻¹ g with the smallest σ ≥ 0 for which H + σ is positive
semidefinite and ‖s‖ ≤ r; where σ > 0 it lies on the sphere (Moré and Sorensen, SIAM J. Sci. Stat. Comput. 4 (1983)
553–572). Two ways lead to σ, both by Newton's method for 1/‖s‖ = 1/r. A *descent step* factorizes H + σ = L Lᵀ for each
σ that is tried, at a small fraction of the cost of eigenvectors. A *polishing step*, for the model ½‖g + Hs‖² of the
gradient, must tell flat directions from curved ones, and takes eigenvectors; so do descent steps in few dimensions, and
the few that a handful of factorizations does not settle.

A descent step need not wait for the exact σ. For every σ ≥ 0 with H + σ = L Lᵀ and every p with ‖p‖ ≤ r

    q(p) = ½‖Lᵀ(p − s)‖² − ½‖Lᵀs‖² − ½σ‖p‖² ≥ −½(‖Lᵀs‖² + σr²),

so the point p = s + τz of the sphere, z a unit vector, takes the share 1 − κ of the largest decrease there is, at
least, where κ = τ²‖Lᵀz‖²/(‖Lᵀs‖² + σr²) (their lemma 3.4). With z along (H + σ)⁻¹s, which turns to the eigenvector of
the lowest eigenvalue as H + σ becomes singular, most *hard cases* are settled as well, g nearly orthogonal to that
eigenvector.

Stability. Where the factorization ends, L Lᵀ = H + σ + E with ‖E‖ ≤ c P² ε ‖H + σ‖ whatever the condition of H, and
the two triangular solves add no more (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., theorems 10.3,
10.4); where H + σ has an eigenvalue below −‖E‖ the factorization breaks down. So p is a step of that quality for a
Hessian that differs from H by no more than rounding does anyway. An ill-conditioned H + σ makes the direction of s
sensitive to E, but not the value of the model, by which a step is judged; τ is found from the lengths that were
computed, and the predicted decrease from p and H themselves, without σ and L.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from embedding_principle.arguments import checked, real

# Curvature below this fraction of ‖H‖ counts as flat: the rounding errors of a null eigenvalue (1e-15 ‖H‖ when P < 10,
# 1e-14 ‖H‖ at P = 100) stay below it.
FLAT = 1e-12

# An eigenvector step may be that much too long: the radius is a guess anyway.
_RADIUS_SLACK = 0.05
# Quadratic convergence: two or three are the rule.
_SECULAR_ITERATIONS = 10
# A descent step may miss that share of the largest decrease. With a tenth, which is usual and saves a tenth of the
# time, three searches more of a hundred drifted on a target without a ridge.
_MISSED = 0.02
# One or two are the rule.
_FACTORIZATIONS = 5
# Measured: with fewer parameters eigenvectors take less time than the calls of two factorizations.
_SMALL = 16
# Turns 0 / 0 into 0.
_TINY = 1e-300


@checked
def trust_region_step(values: Tensor, slope: Tensor, radius: Tensor) -> Tensor:
    """The minimizer of slope·s + ½ Σ values_i s_i² over ‖s‖ ≤ radius, in the coordinates of the eigenvectors.

    s = −slope / (values + shift) with the smallest shift ≥ 0 that makes all denominators non-negative and ‖s‖ ≤ radius.
    Newton's method for 1/‖s‖ = 1/radius starts from the left, where it increases monotonically: there some |s_i| alone
    has the length of the radius. (In the hard case, slope exactly orthogonal to the lowest eigenvector, the step is
    shorter.)

    Shapes: values, slope and the result (S, P); radius (S,).

    Raises:
        ValueError: for other shapes, numbers that are not finite, a radius that is not positive, or overflow.

    Example:
        >>> one = torch.tensor([1.0])
        >>> trust_region_step(torch.tensor([[2.0, -1.0]]), torch.tensor([[0.0, 1e-9]]), one)
        tensor([[-0.0000, -1.0000]], dtype=torch.float64)
    """
    values = real("values", values, ("S", "P"))
    slope, radius = real("slope", slope, tuple(values.shape)), _positive(radius, len(values))
    step = _spectral_step(values, slope, radius)
    if not torch.isfinite(step).all():
        raise ValueError("radius: the step overflows float64; scale values, slope and radius")
    return step


def _spectral_step(values: Tensor, slope: Tensor, radius: Tensor) -> Tensor:
    least = slope.abs() / radius[..., None]
    shift = (least - values).amax(-1, keepdim=True).clamp(min=0)
    for _ in range(_SECULAR_ITERATIONS):
        denominator = torch.maximum(values + shift, least).clamp(min=_TINY)
        step = slope / denominator
        length = vector_norm(step, dim=-1, keepdim=True)
        excess = length / radius[..., None] - 1
        if not (excess > _RADIUS_SLACK).any():
            break
        pull = (step**2 / denominator).sum(-1, keepdim=True).clamp(min=_TINY)
        shift = shift + (excess * length**2 / pull).clamp(min=0)
    return -step


@checked
def polishing_step(matrix: Tensor, gradient: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The minimizer of ½‖g + Hs‖² over ‖s‖ ≤ radius, with no part along flat directions, and its predicted decrease.

    Args:
        matrix: H, (S, P, P), symmetric and finite.
        gradient: g, (S, P).
        radius: (S,), positive.

    Returns:
        The steps s, (S, P), and ½‖g‖² − ½‖g + Hs‖², (S,); not finite where float64 overflows.

    Raises:
        ValueError: for other shapes, numbers that are not finite, or a radius that is not positive.

    Example:
        >>> saddle = torch.diag(torch.tensor([2.0, -1.0]))[None]
        >>> step, decrease = polishing_step(saddle, torch.ones(1, 2), torch.ones(1))
        >>> step.round(decimals=2), decrease.round(decimals=2)
        (tensor([[-0.4800,  0.8800]], dtype=torch.float64), tensor([0.9900], dtype=torch.float64))
    """
    matrix, gradient, radius = _model(matrix, gradient, radius)
    values, vectors = torch.linalg.eigh(matrix)
    slope = _product(vectors.mT, gradient)
    flat = values.abs() <= FLAT * values.abs().amax(-1, keepdim=True)
    slope, values = torch.where(flat, 0.0, values * slope), values**2
    move = _spectral_step(values, slope, radius)
    return _product(vectors, move), -(slope * move + values * move**2 / 2).sum(-1)


@checked
def descent_step(matrix: Tensor, gradient: Tensor, radius: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps that take 98 % of the largest decrease of g·s + ½ s·Hs over ‖s‖ ≤ radius at least, and their decrease.

    Inside the ball the step is Newton's.

    Args:
        matrix: H, (S, P, P), symmetric and finite.
        gradient: g, (S, P).
        radius: r, (S,), positive.
        shift: a guess of σ, (S,), the last step's, say; zeros will do.

    Returns:
        The steps s, (S, P), −g·s − ½ s·Hs, (S,), and their σ, (S,), as the next guess; not finite where float64
        overflows.

    Raises:
        ValueError: for other shapes, numbers that are not finite, or a radius that is not positive.

    Example:
        >>> saddle = torch.diag(torch.tensor([2.0, -1.0]))[None]
        >>> step, decrease, _ = descent_step(saddle, torch.tensor([[2.0, 0.1]]), torch.ones(1), torch.zeros(1))
        >>> 1 <= float(step.norm()) <= 1.05, float(decrease) > 1.2
        (True, True)
    """
    matrix, gradient, radius = _model(matrix, gradient, radius)
    search = _ShiftSearch(matrix, gradient, radius, real("shift", shift, tuple(radius.shape)).clamp(min=0))
    for _ in range(_FACTORIZATIONS if gradient.shape[1] >= _SMALL else 0):
        search.factorize()
        if not len(search.rows):
            break
    if len(search.rows):
        search.step[search.rows] = _spectral_descent(*(part[search.rows] for part in (matrix, gradient, radius)))
    decrease = -(search.step * (gradient + _product(matrix, search.step) / 2)).sum(-1)
    return search.step, decrease, search.shift


def _model(matrix: Tensor, gradient: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradient = real("gradient", gradient, ("S", "P"))
    matrix = real("matrix", matrix, (*gradient.shape, gradient.shape[1]))
    return matrix, gradient, _positive(radius, len(gradient))


def _positive(radius: Tensor, size: int) -> Tensor:
    radius = real("radius", radius, (size,))
    if not (radius > 0).all():
        raise ValueError(f"radius: expected positive numbers, got {float(radius.min()):g}")
    return radius


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def _spectral_descent(matrix: Tensor, gradient: Tensor, radius: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return _product(vectors, _spectral_step(values, _product(vectors.mT, gradient), radius))


class _ShiftSearch:
    """The search for σ of each row, between bounds: where σ is too small H + σ is indefinite, or the step too long.

    Attributes:
        step: of the rows that are settled, (S, P).
        shift: σ of those, (S,).
        rows: those that are not.
    """

    def __init__(self, matrix: Tensor, gradient: Tensor, radius: Tensor, guess: Tensor) -> None:
        self.step, self.shift, self.rows = torch.zeros_like(gradient), guess.clone(), torch.arange(len(gradient))
        self._matrix, self._gradient, self._radius, self._guess = matrix, gradient, radius, guess
        self._low = self._high = guess

    def factorize(self) -> None:
        """Try the guess of each row, settle those where it will do, and guess again for the others."""
        guess, radius, shifted = self._guess, self._radius, self._matrix.clone()
        shifted.diagonal(dim1=1, dim2=2).add_(guess[:, None])
        factor, info = torch.linalg.cholesky_ex(shifted)
        solution, energy = _solution(factor, self._gradient.neg())
        turned, pull = _solution(factor, solution)
        definite, length, size = info == 0, vector_norm(solution, dim=-1), vector_norm(turned, dim=-1)
        # The smaller root of ‖s + τz‖ = r, z = turned / size; where there is none τ is no number, and settles nothing.
        room, along = radius**2 - length**2, pull / size
        tau = room / (along + (along**2 + room).sqrt())
        inside = (guess == 0) & (length <= radius)
        missed = (tau / size) ** 2 * pull
        settled = definite & (inside | (missed <= _MISSED * (energy + guess * radius**2)))
        rows = self.rows[settled]
        self.step[rows] = torch.addcmul(solution, turned, torch.where(inside, 0.0, tau / size)[:, None])[settled]
        self.shift[rows] = guess[settled]
        newton = guess + (length / radius - 1) * length**2 / pull
        left = torch.nonzero(~settled)[:, 0]
        if len(left):
            self._leave(left)
            self._guess_again(torch.where(definite, newton, torch.nan)[left], (~definite | (length > radius))[left])
        self.rows = self.rows[left]

    def _leave(self, left: Tensor) -> None:
        first, self._matrix, self._gradient = self._low is self._high, self._matrix[left], self._gradient[left]
        self._radius, self._guess = self._radius[left], self._guess[left]
        if not first:
            self._low, self._high = self._low[left], self._high[left]
            return
        # −λ_min lies between −min H_ii and ‖H‖; beyond it, ‖s‖ ≤ ‖g‖/(σ − ‖H‖). Below a negative bound lies σ = 0.
        self._low = self._matrix.diagonal(dim1=1, dim2=2).neg().amax(-1)
        size = vector_norm(self._matrix, dim=(1, 2))
        self._high = vector_norm(self._gradient, dim=-1) / self._radius + size

    def _guess_again(self, newton: Tensor, short: Tensor) -> None:
        """Newton's σ where it lies between the bounds; below them zero, if that may do; else a mean of the bounds."""
        self._low = torch.where(short, torch.maximum(self._guess, self._low), self._low)
        self._high = torch.where(short, self._high, self._guess)
        low = self._low.clamp(min=0)
        # The geometric mean, as σ may be of any size; the other keeps it off a lower bound of zero.
        middle = torch.maximum((low * self._high).sqrt(), low + 0.01 * (self._high - low))
        middle = torch.where((self._low < 0) & (newton <= 0), 0.0, middle)
        self._guess = torch.where((newton > low) & (newton < self._high), newton, middle)


def _solution(factor: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Give u = (L Lᵀ)⁻¹ v, (S, P), and v·u as ‖L⁻¹v‖², (S,)."""
    half = torch.linalg.solve_triangular(factor, vectors[..., None], upper=False)
    solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution[..., 0], half.square().sum((1, 2))
