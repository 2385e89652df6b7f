"""The search for σ of a descent step, see `trust_region`, compiled by numba: one loop for each row.

A factorization of a few parameters takes a microsecond, and a call of a library that factorizes takes several. The
rules and bounds are those of `trust_region`, which says why they are stable, and which is the oracle; only are more
factorizations tried, since they cost so little. Arithmetic is IEEE's: what is not a number stays so.

numba is optional: the extra `compiled`. Without it the loops are plain Python, which `trust_region` does not run.
Machine code is kept beside this file or, where that place is read-only, in numba's folder of the user; where neither
can be written each process compiles anew, in some seconds.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

try:
    from numba import njit
except ImportError:  # not installed, or made for another NumPy
    njit = None
INSTALLED = njit is not None

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_Loop = TypeVar("_Loop", bound=Callable[..., Any])

# Up to a sixth of the rows takes more than five; a hard case, which none settles, is left to eigenvectors.
_FACTORIZATIONS = 30


def _compiled(loop: _Loop) -> _Loop:
    if not INSTALLED:
        return loop
    try:
        compiled: _Loop = njit(loop, cache=True, error_model="numpy")
    except RuntimeError:  # no folder for machine code
        compiled = njit(loop, error_model="numpy")
    return compiled


def settle(matrix: Array, gradient: Array, radius: Array, guess: Array, missed: float) -> tuple[Array, Array, Rows]:
    """Steps s that take the largest decrease of g·s + ½ s·Hs over ‖s‖ ≤ r, but for a share of it (Moré and Sorensen).

    What is given is not checked: `trust_region.descent_step` does that.

    Args:
        matrix: H, (S, P, P), symmetric and finite.
        gradient: g, (S, P).
        radius: r, (S,), positive.
        guess: of σ, (S,), from zero on.
        missed: that share.

    Returns:
        The steps, (S, P), their σ, (S,), and the rows that no factorization settled, whose step says nothing.

    Example:
        >>> saddle, one = np.diag([2.0, -1.0])[None], np.ones(1)
        >>> step, shift, left = settle(saddle, np.array([[2.0, 0.1]]), one, 0 * one, 0.02)
        >>> bool(shift[0] > 1), len(left)
        (True, 0)
    """
    step, shift = np.zeros(gradient.shape), np.zeros(guess.shape)
    with np.errstate(all="ignore"):
        h, g, r, start = map(np.ascontiguousarray, (matrix, gradient, radius, guess))
        settled = _settle(h, g, r, start, missed, step, shift)
    return step, shift, np.flatnonzero(~settled)


@_compiled
def _settle(
    matrix: Array, gradient: Array, radius: Array, guess: Array, missed: float, step: Array, shift: Array
) -> NDArray[np.bool_]:
    settled = np.zeros(len(guess), dtype=np.bool_)
    factor, turned = np.empty_like(matrix[0]), np.empty_like(gradient[0])
    for row in range(len(guess)):
        sigma = _descend(matrix[row], gradient[row], radius[row], guess[row], missed, step[row], turned, factor)
        settled[row], shift[row] = sigma >= 0, sigma if sigma >= 0 else guess[row]
    return settled


@_compiled
def _descend(
    matrix: Array,
    gradient: Array,
    radius: float,
    shift: float,
    missed: float,
    step: Array,
    turned: Array,
    factor: Array,
) -> float:
    """Write one step and give its σ, or −1."""
    low = high = math.nan
    for attempt in range(_FACTORIZATIONS):
        newton, short = math.nan, True
        if _factorize(matrix, shift, factor):
            step[:] = -gradient
            energy = _solve(factor, step)
            length = _norm(step)
            if shift == 0 and length <= radius:
                return shift
            turned[:] = step
            pull, size = _solve(factor, turned), _norm(turned)
            # The smaller root of ‖s + τz‖ = r, z = turned / size; where there is none it is no number.
            room, along = radius**2 - length**2, pull / size
            tau = room / (along + np.sqrt(along**2 + room))
            if (tau / size) ** 2 * pull <= missed * (energy + shift * radius**2):
                step += turned * (tau / size)
                return shift
            newton, short = shift + (length / radius - 1) * length**2 / pull, length > radius
        if attempt == 0:
            low, high = _bounds(matrix, gradient, radius)
        if short:
            low = max(shift, low)
        else:
            high = shift
        shift = _guess(low, high, newton)
    return -1.0


@_compiled
def _bounds(matrix: Array, gradient: Array, radius: float) -> tuple[float, float]:
    """Bounds of σ: −λ_min lies between −min H_ii and ‖H‖; beyond it, ‖s‖ ≤ ‖g‖/(σ − ‖H‖)."""
    low, total = -math.inf, np.float64(0.0)
    for i in range(len(gradient)):
        low = max(low, -matrix[i, i])
        for j in range(len(gradient)):
            total += matrix[i, j] ** 2
    return low, _norm(gradient) / radius + np.sqrt(total)


@_compiled
def _guess(low: float, high: float, newton: float) -> float:
    """Newton's σ where it lies between the bounds; below them zero, if that may do; else a mean of the bounds."""
    floor = max(low, 0.0)
    if floor < newton < high:
        return newton
    if low < 0 and newton <= 0:
        return 0.0
    return max(float(np.sqrt(floor * high)), floor + 0.01 * (high - floor))


@_compiled
def _factorize(matrix: Array, shift: float, factor: Array) -> bool:
    """Write L, lower triangular, L Lᵀ = H + σ, its diagonal inverted; False where that is not positive definite."""
    for i in range(len(factor)):
        for j in range(i):
            rest = matrix[i, j]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            factor[i, j] = rest * factor[j, j]
        pivot = matrix[i, i] + shift
        for k in range(i):
            pivot -= factor[i, k] ** 2
        if not pivot > 0:  # nor where it is not a number
            return False
        factor[i, i] = 1.0 / np.sqrt(pivot)
    return True


@_compiled
def _solve(factor: Array, vector: Array) -> float:
    """Put (L Lᵀ)⁻¹ v in the place of v, and give ‖L⁻¹ v‖²."""
    energy, size = 0.0, len(vector)
    for i in range(size):
        rest = vector[i]
        for k in range(i):
            rest -= factor[i, k] * vector[k]
        vector[i] = rest * factor[i, i]
        energy += vector[i] ** 2
    for i in range(size - 1, -1, -1):
        last = vector[i] * factor[i, i]
        vector[i] = last
        for k in range(i):
            vector[k] -= factor[i, k] * last
    return energy


@_compiled
def _norm(vector: Array) -> float:
    total = np.float64(0.0)
    for entry in vector:
        total += entry**2
    return float(np.sqrt(total))
