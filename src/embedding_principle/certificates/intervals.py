"""Interval arithmetic on arrays: midpoints and radii in float64.

A `Ball` stands for all arrays whose entries lie within `radius` of `middle`. Every operation returns a ball that holds
all exact results, whatever was rounded: Rump, BIT 39 (1999) 534–554, with three matrix products for one of intervals.

Trusted are IEEE 754 arithmetic rounded to nearest, a BLAS that adds products in some order (with or without fused
multiplication, without Strassen's trick), so that an inner product of k terms errs by at most γ_k = k u / (1 − k u)
times that of the absolute values (Higham, Accuracy and Stability, 2002, section 3.1), and an exp, log, tanh and log1p
of NumPy whose relative error is below 16 u, u = 2^-53. A number that overflows, or the inverse of a ball with zero,
makes radii that are infinite or no numbers; every comparison for a proof must be one that these fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Piece = tuple[float, float, float, float]  # of an affine function: lower and upper end, slope, intercept

_UNIT = 2.0**-53
# Larger than what up to 31 roundings of terms that are not negative lose.
_UP = 1 + 2.0**-48
_TINY = 1e-290  # above all that underflows
_FUNCTION = 16 * _UNIT


class Ball:
    """All arrays whose entries lie within a radius of a midpoint.

    Attributes:
        middle: an array of floats.
        radius: of its shape, none negative; infinite or no number where nothing is known.

    Example:
        >>> third = Ball(1.0) / Ball(3.0)
        >>> bool(third.radius < 1e-15), (third * Ball(3.0) - Ball(1.0)).holds(0.0)
        (True, True)
    """

    __slots__ = ("middle", "radius")
    __array_ufunc__ = None  # an array to the left leaves the operation to the ball

    def __init__(self, middle: ArrayLike, radius: ArrayLike = 0.0) -> None:
        """The arrays within `radius` (of a shape that broadcasts) of `middle`."""
        self.middle: Floats = np.asarray(middle, dtype=np.float64)
        self.radius: Floats = np.asarray(radius, dtype=np.float64)
        if self.radius.shape != self.middle.shape:
            self.radius = np.broadcast_to(self.radius, self.middle.shape)

    @staticmethod
    def of(value: Ball | ArrayLike) -> Ball:
        """A ball as it is, an array of floats as the ball of radius zero."""
        return value if isinstance(value, Ball) else Ball(value)

    @staticmethod
    def stacked(balls: Sequence[Ball], axis: int) -> Ball:
        """Balls of one shape along a new axis."""
        return Ball(np.stack([each.middle for each in balls], axis), np.stack([each.radius for each in balls], axis))

    @staticmethod
    def joined(balls: Sequence[Ball]) -> Ball:
        """Balls one after the other along the first axis."""
        return Ball(np.concatenate([each.middle for each in balls]), np.concatenate([each.radius for each in balls]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the arrays."""
        return self.middle.shape

    @property
    def T(self) -> Ball:
        """The transposes."""
        return Ball(self.middle.T, self.radius.T)

    def __getitem__(self, index: Any) -> Ball:
        """The entries at these places."""
        return Ball(self.middle[index], self.radius[index])

    def reshape(self, *shape: int) -> Ball:
        """The same entries in another shape."""
        return Ball(self.middle.reshape(*shape), self.radius.reshape(*shape))

    def magnitude(self) -> Floats:
        """The largest absolute value of each entry, rounded up."""
        return np.asarray((abs(self.middle) + self.radius) * _UP)

    def least(self) -> Floats:
        """The least absolute value of each entry, rounded down; negative where the ball holds zero inside."""
        return np.asarray(abs(self.middle) * (2 - _UP) - self.radius * _UP)

    def bounds(self) -> tuple[Floats, Floats]:
        """The ends of each interval, rounded outwards."""
        margin = self.radius * _UP + abs(self.middle) * 2 * _UNIT + _TINY
        return self.middle - margin, self.middle + margin

    def norm(self) -> float:
        """The largest row sum of absolute values of any matrix of the ball, rounded up."""
        sums = self.magnitude().sum(-1) * (1 + 2.0**-50 * (2 + self.shape[-1]))
        return float(sums.max(initial=0.0))

    def near_inverse(self) -> Floats | None:
        """The inverse of the midpoints in floats, without proof; None where there is none."""
        try:
            inverse = np.asarray(np.linalg.inv(self.middle), dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        return inverse if bool(np.isfinite(inverse).all()) else None

    def negative_directions(self) -> int | None:
        """How many eigenvalues of the midpoints, a symmetric matrix, are negative, proved; None where it is not clear.

        Where VᵀMV is strictly diagonally dominant, V and M are regular, and the signs on its diagonal are those of M's
        eigenvalues (Sylvester, Gershgorin). If all matrices of the ball are regular, they are those of every symmetric
        one.
        """
        if not np.isfinite(self.middle).all():
            return None
        try:
            values, vectors = np.linalg.eigh(self.middle)
        except np.linalg.LinAlgError:
            return None
        scaled = vectors / np.sqrt(abs(values))
        form = Ball(scaled.T) @ (Ball(self.middle) @ Ball(scaled))
        diagonal = np.diag(form.middle)
        sums = form.magnitude().sum(1) * (1 + 2.0**-50 * (2 + len(scaled)))
        # The row sum holds the diagonal entry too: it must be more than half of it.
        clear = 2 * (abs(diagonal) - np.diag(form.radius)) > sums * (1 + 2.0**-50)
        return int((diagonal < 0).sum()) if bool(clear.all()) else None

    def holds(self, value: ArrayLike) -> bool:
        """Whether every entry of an array of floats lies in the ball, up to the rounding of this comparison."""
        return bool(np.all(abs(np.asarray(value) - self.middle) <= self.radius * _UP))

    def placed(self, pieces: Sequence[Piece]) -> tuple[Floats, Floats]:
        """Slope and intercept of the open piece in which each entry lies; no numbers where one may be at an end."""
        low, high = self.bounds()
        slopes, shifts = np.full(self.shape, np.nan), np.full(self.shape, np.nan)
        for lower, upper, slope, shift in pieces:
            inside = (lower < low) & (high < upper)
            slopes[inside], shifts[inside] = slope, shift
        return slopes, shifts

    def __neg__(self) -> Ball:
        return Ball(-self.middle, self.radius)

    def __add__(self, other: Ball | ArrayLike) -> Ball:
        right = Ball.of(other)
        middle = self.middle + right.middle
        radius = _UNIT * abs(middle)
        radius += self.radius
        radius += right.radius
        radius *= _UP
        radius += _TINY
        return Ball(middle, radius)

    __radd__ = __add__

    def __sub__(self, other: Ball | ArrayLike) -> Ball:
        return self + (-Ball.of(other))

    def __rsub__(self, other: ArrayLike) -> Ball:
        return Ball.of(other) + (-self)

    def __mul__(self, other: Ball | ArrayLike) -> Ball:
        # In place: most of the time goes into memory.
        if isinstance(other, Ball):
            middle = self.middle * other.middle
            radius = _UNIT * abs(middle)
            radius += abs(self.middle) * other.radius
            radius += self.radius * (abs(other.middle) + other.radius)
        else:
            middle = self.middle * np.asarray(other, dtype=np.float64)
            radius = _UNIT * abs(middle)
            radius += self.radius * abs(np.asarray(other, dtype=np.float64))
        radius *= _UP
        radius += _TINY
        return Ball(middle, radius)

    __rmul__ = __mul__

    def inverse(self) -> Ball:
        """1 / x; no number where x may be zero."""
        least = self.least()
        sound = least > 0
        middle = np.divide(1.0, self.middle, out=np.full(self.shape, np.nan), where=sound)
        spread = np.divide(self.radius * abs(middle), least, out=np.full(self.shape, np.nan), where=sound)
        return Ball(middle, (spread + 2 * _UNIT * abs(middle)) * _UP + _TINY)

    def __truediv__(self, other: Ball | ArrayLike) -> Ball:
        return self * Ball.of(other).inverse()

    def __rtruediv__(self, other: ArrayLike) -> Ball:
        return Ball.of(other) * self.inverse()

    def __matmul__(self, other: Ball | ArrayLike) -> Ball:
        right = Ball.of(other)
        terms = self.shape[-1]
        gamma = (terms + 2) * _UNIT * 1.01
        spread = abs(self.middle) @ (right.radius + gamma * abs(right.middle))
        if self.radius.any():
            spread = spread + self.radius @ (abs(right.middle) + right.radius)
        return Ball(self.middle @ right.middle, spread * (1 + 4 * gamma) * _UP + terms * _TINY)

    def __rmatmul__(self, other: ArrayLike) -> Ball:
        return Ball.of(other) @ self

    def sum(self, axis: int) -> Ball:
        """The sums along an axis."""
        terms = self.shape[axis]
        gamma = (terms + 2) * _UNIT * 1.01
        spread = self.radius.sum(axis) + gamma * abs(self.middle).sum(axis)
        return Ball(self.middle.sum(axis), spread * (1 + 4 * gamma) * _UP + terms * _TINY)

    def tanh(self) -> Ball:
        """The hyperbolic tangent; its slope is at most 1."""
        middle = np.tanh(self.middle)
        return Ball(middle, (self.radius + _FUNCTION * abs(middle)) * _UP + _TINY)

    def sigmoid(self) -> Ball:
        """1 / (1 + e^-z); its slope is at most 1/4."""
        middle = (1 + np.tanh(self.middle / 2)) / 2
        return Ball(middle, (self.radius / 4 + 2 * _FUNCTION) * _UP)

    def softplus(self) -> Ball:
        """log(1 + e^z); its slope is at most 1."""
        middle = np.maximum(self.middle, 0) + np.log1p(np.exp(-abs(self.middle)))
        return Ball(middle, (self.radius + 3 * _FUNCTION * abs(middle)) * _UP + _TINY)

    def log(self) -> Ball:
        """The natural logarithm; no number where x may not be positive."""
        sound = (self.middle > 0) & (self.least() > 0)
        middle = np.log(self.middle, out=np.full(self.shape, np.nan), where=sound)
        spread = np.divide(self.radius, self.least(), out=np.full(self.shape, np.nan), where=sound)
        return Ball(middle, (spread + _FUNCTION * abs(middle)) * _UP + _TINY)

    def exp(self) -> Ball:
        """e^z."""
        with np.errstate(over="ignore", invalid="ignore"):
            middle = np.exp(self.middle)
            grown = np.expm1(self.radius) * (1 + 2 * _FUNCTION)
            radius = middle * (grown + _FUNCTION * (1 + grown)) * _UP + _TINY
            # Where the middle underflows, the upper end may not; the sum in the exponent is known to 2^-40.
            upper = np.exp(self.middle + self.radius + 2.0**-40 * (1 + self.radius)) * (1 + 2 * _FUNCTION)
        return Ball(middle, np.where(middle < 1e-280, upper * _UP + _TINY, radius))
