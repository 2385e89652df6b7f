"""Steps of a trust-region method: minimizers of a quadratic model in a ball.

The minimizer of g·s + ½ s·Hs over ‖s‖ ≤ r is s = −(H + σ)⁻¹ g with the smallest σ ≥ 0 for which H + σ is positive
semidefinite and ‖s‖ ≤ r; where σ > 0 it lies on the sphere (Moré and Sorensen, SIAM J. Sci. Stat. Comput. 4 (1983)
553–572). Two ways lead to σ, both by Newton's method for 1/‖s‖ = 1/r. A *descent step* factorizes H + σ = L Lᵀ for each
σ that is tried, at a small fraction of the cost of eigenvectors. A *polishing step*, for the model ½‖g + Hs‖² of the
gradient, must tell flat directions from curved ones, and takes eigenvectors; so do the few descent steps that a handful
of factorizations does not settle.

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

import numpy as np
import torch
from numpy.linalg import norm
from numpy.typing import NDArray
from torch import Tensor

from embedding_principle.arguments import checked, real

# NumPy starts its calls on small arrays in a quarter of torch's time, and there are many here; torch factorizes.
Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

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
# Parameters up to which compiled loops are quicker than LAPACK, which works on several numbers at once.
_MOST_COMPILED = 60
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
    slope, lengths = real("slope", slope, tuple(values.shape)), _positive(radius, len(values))
    with np.errstate(all="ignore"):
        step = _spectral_step(values.numpy(), slope.numpy(), lengths)
    if not np.isfinite(step).all():
        raise ValueError("radius: the step overflows float64; scale values, slope and radius")
    return torch.from_numpy(step)


def _spectral_step(values: Array, slope: Array, radius: Array) -> Array:
    least = np.abs(slope) / radius[:, None]
    shift = np.maximum((least - values).max(-1, keepdims=True), 0)
    for _ in range(_SECULAR_ITERATIONS):
        denominator = np.maximum(np.maximum(values + shift, least), _TINY)
        step = slope / denominator
        squares = step * step
        length = np.sqrt(squares.sum(-1, keepdims=True))
        excess = length / radius[:, None] - 1
        if not (excess > _RADIUS_SLACK).any():
            break
        pull = np.maximum((squares / denominator).sum(-1, keepdims=True), _TINY)
        shift = shift + np.maximum(excess * length**2 / pull, 0)
    negative: Array = -step
    return negative


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
    h, g, r = _model(matrix, gradient, radius)
    values, vectors = _eigen(h)
    moduli = np.abs(values)
    flat = moduli <= FLAT * moduli.max(-1, keepdims=True)
    with np.errstate(all="ignore"):
        slope = _product(vectors.swapaxes(1, 2), g)
        slope, values = np.where(flat, 0.0, values * slope), values**2
        move = _spectral_step(values, slope, r)
        decrease = -(move * (slope + values * move / 2)).sum(-1)
        return torch.from_numpy(_product(vectors, move)), torch.from_numpy(decrease)


@checked
def descent_step(
    matrix: Tensor, gradient: Tensor, radius: Tensor, shift: Tensor, *, compiled: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps that take 98 % of the largest decrease of g·s + ½ s·Hs over ‖s‖ ≤ radius at least, and their decrease.

    Inside the ball the step is Newton's.

    Args:
        matrix: H, (S, P, P), symmetric and finite.
        gradient: g, (S, P).
        radius: r, (S,), positive.
        shift: a guess of σ, (S,), the last step's, say; zeros will do.
        compiled: True runs loops that numba compiles, in a fraction of the time, for up to sixty parameters; for
            more LAPACK is quicker. See `compiled_steps`: the steps are as good, but not the same to the last bit.

    Returns:
        The steps s, (S, P), −g·s − ½ s·Hs, (S,), and their σ, (S,), as the next guess; not finite where float64
        overflows.

    Raises:
        ValueError: for other shapes, numbers that are not finite, a radius that is not positive, or compiled steps
            without numba.

    Example:
        >>> saddle = torch.diag(torch.tensor([2.0, -1.0]))[None]
        >>> step, decrease, _ = descent_step(saddle, torch.tensor([[2.0, 0.1]]), torch.ones(1), torch.zeros(1))
        >>> 1 <= float(step.norm()) <= 1.05, float(decrease) > 1.2
        (True, True)
    """
    h, g, r = _model(matrix, gradient, radius)
    guess = real("shift", shift, tuple(r.shape)).clamp(min=0).numpy()
    if compiled:
        require_numba()
    settle = _compiled_settle if compiled and g.shape[1] <= _MOST_COMPILED else _settle
    step, sigma, left = settle(h, g, r, guess)
    with np.errstate(all="ignore"):
        if len(left):
            step[left] = _spectral_descent(h[left], g[left], r[left])
        decrease = -(step * (g + _product(h, step) / 2)).sum(-1)
    return torch.from_numpy(step), torch.from_numpy(decrease), torch.from_numpy(sigma)


def require_numba() -> None:
    """Refuse where compiled steps cannot be had.

    Raises:
        ValueError: without numba, with the command that installs it.

    Example:
        >>> require_numba()
    """
    # numba takes half a second to load.
    from embedding_principle.compiled_steps import INSTALLED

    if not INSTALLED:
        raise ValueError(
            'compiled: needs numba; install it with pip install "embedding-principle-companion[compiled]", or leave '
            "compiled=True out"
        )


def _compiled_settle(matrix: Array, gradient: Array, radius: Array, guess: Array) -> tuple[Array, Array, Rows]:
    from embedding_principle.compiled_steps import settle

    return settle(matrix, gradient, radius, guess, _MISSED)


def _settle(matrix: Array, gradient: Array, radius: Array, guess: Array) -> tuple[Array, Array, Rows]:
    """Steps, their σ, and the rows that a handful of factorizations does not settle."""
    search = _ShiftSearch(matrix, gradient, radius, guess)
    with np.errstate(all="ignore"):
        for _ in range(_FACTORIZATIONS):
            search.factorize()
            if not len(search.rows):
                break
    return search.step, search.shift, search.rows


def _model(matrix: Tensor, gradient: Tensor, radius: Tensor) -> tuple[Array, Array, Array]:
    gradient = real("gradient", gradient, ("S", "P"))
    matrix = real("matrix", matrix, (*gradient.shape, gradient.shape[1]))
    return matrix.numpy(), gradient.numpy(), _positive(radius, len(gradient))


def _positive(radius: Tensor, size: int) -> Array:
    radius = real("radius", radius, (size,))
    if not (radius > 0).all():
        raise ValueError(f"radius: expected positive numbers, got {float(radius.min()):g}")
    return radius.numpy()


def _product(matrices: Array, vectors: Array) -> Array:
    product: Array = np.matmul(matrices, vectors[..., None])[..., 0]
    return product


def _eigen(matrix: Array) -> tuple[Array, Array]:
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    return values.numpy(), vectors.numpy()


def _spectral_descent(matrix: Array, gradient: Array, radius: Array) -> Array:
    values, vectors = _eigen(matrix)
    return _product(vectors, _spectral_step(values, _product(vectors.swapaxes(1, 2), gradient), radius))


class _ShiftSearch:
    """The search for σ of each row, between bounds: where σ is too small H + σ is indefinite, or the step too long.

    Attributes:
        step: of the rows that are settled, (S, P).
        shift: σ of those, (S,).
        rows: those that are not.
    """

    def __init__(self, matrix: Array, gradient: Array, radius: Array, guess: Array) -> None:
        self.step, self.shift, self.rows = np.zeros_like(gradient), guess.copy(), np.arange(len(gradient))
        self._matrix, self._gradient, self._radius, self._guess = matrix, gradient, radius, guess
        self._low = self._high = guess

    def factorize(self) -> None:
        """Try the guess of each row, settle those where it will do, and guess again for the others."""
        guess, radius, shifted = self._guess, self._radius, self._matrix.copy()
        np.einsum("spp->sp", shifted)[:] += guess[:, None]
        factor, info = torch.linalg.cholesky_ex(torch.from_numpy(shifted))
        solution, energy = _solution(factor, -self._gradient)
        turned, pull = _solution(factor, solution)
        definite, length, size = info.numpy() == 0, norm(solution, axis=-1), norm(turned, axis=-1)
        # The smaller root of ‖s + τz‖ = r, z = turned / size; where there is none τ is no number, and settles nothing.
        room, along = radius**2 - length**2, pull / size
        tau = room / (along + np.sqrt(along**2 + room))
        inside = (guess == 0) & (length <= radius)
        missed = (tau / size) ** 2 * pull
        settled = definite & (inside | (missed <= _MISSED * (energy + guess * radius**2)))
        rows = self.rows[settled]
        self.step[rows] = (solution + turned * np.where(inside, 0.0, tau / size)[:, None])[settled]
        self.shift[rows] = guess[settled]
        left = np.flatnonzero(~settled)
        if len(left):
            newton = guess + (length / radius - 1) * length**2 / pull
            self._leave(left)
            self._guess_again(np.where(definite, newton, np.nan)[left], (~definite | (length > radius))[left])
        self.rows = self.rows[left]

    def _leave(self, left: Rows) -> None:
        first, self._matrix, self._gradient = self._low is self._high, self._matrix[left], self._gradient[left]
        self._radius, self._guess = self._radius[left], self._guess[left]
        if not first:
            self._low, self._high = self._low[left], self._high[left]
            return
        # −λ_min lies between −min H_ii and ‖H‖; beyond it, ‖s‖ ≤ ‖g‖/(σ − ‖H‖). Below a negative bound lies σ = 0.
        self._low = (-np.einsum("spp->sp", self._matrix)).max(-1)
        size = norm(self._matrix, axis=(1, 2))
        self._high = norm(self._gradient, axis=-1) / self._radius + size

    def _guess_again(self, newton: Array, short: Mask) -> None:
        """Newton's σ where it lies between the bounds; below them zero, if that may do; else a mean of the bounds."""
        self._low = np.where(short, np.maximum(self._guess, self._low), self._low)
        self._high = np.where(short, self._high, self._guess)
        low = np.maximum(self._low, 0)
        # The geometric mean, as σ may be of any size; the other keeps it off a lower bound of zero.
        middle = np.maximum(np.sqrt(low * self._high), low + 0.01 * (self._high - low))
        middle = np.where((self._low < 0) & (newton <= 0), 0.0, middle)
        self._guess = np.where((newton > low) & (newton < self._high), newton, middle)


def _solution(factor: Tensor, vectors: Array) -> tuple[Array, Array]:
    """Give u = (L Lᵀ)⁻¹ v, (S, P), and v·u as ‖L⁻¹v‖², (S,)."""
    half = torch.linalg.solve_triangular(factor, torch.from_numpy(vectors)[..., None], upper=False)
    solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution.numpy()[..., 0], np.square(half.numpy()).sum((1, 2))
