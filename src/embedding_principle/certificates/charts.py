"""Charts of the half-plane of one tanh neuron on the grid 0, 1, …, n − 1, which reach infinity.

The neuron tanh(w x + b) with w > 0 matters through the span of 1 and its values alone, and so through any *feature*
φ(u, v) with span(1, φ) = span(1, tanh(w x + b)). With c = −b / w, where the neuron changes its sign, the charts are

- cell k: (u, v) = (p, q), p = e^(−2w(c−k)), q = e^(−2w(k+1−c)), φ_j = ∓(1 − Q_j) / (1 + Q_j), Q_j = p^α q^β; it covers
  k ≤ c ≤ k + 1, w ≥ w₀;
- left: (s, ρ), s = e^(2wc), ρ = e^(−2w), φ_j = ρ^j / (1 + s ρ^j); it covers c ≤ 0, w ≥ w₀;
- right: the mirror image of left, with n − 1 − j in place of j; it covers c ≥ n − 1, w ≥ w₀;
- flat: (w, T), T = tanh(b + w (n−1)/2), φ_j = θ / (w (1 + T θ)), θ = tanh(w (j − (n−1)/2)); it covers w ≤ w₀,

with (α, β) = (k+1−j, k−j) and the upper sign for j ≤ k, (j−k−1, j−k) and the lower sign for j > k. Every point of the
half-plane has w ≤ w₀ or w ≥ w₀, and in the second case c ≤ 0, or c ≥ n − 1, or c in some [k, k + 1]: the charts cover
it. All features are analytic on the closed domains, where a zero coordinate, or T = ±1, is a network at infinity: steps
with one value between them (p = 0 or q = 0, ρ = 0), exponentials (s = 0, T = ±1), and straight lines (w = 0).

The series of the chart flat. From tanh z = Σ_m 2z / (z² + A_m²), A_m = (m + ½) π, in powers of z² for |z| < π/2,

    tanh z = Σ_k c_k z^(2k+1),    |c_k| = 2 Σ_m A_m^(−2k−2) ≤ 2 (4/π²)^(k+1) Σ_m (2m+1)^(−2) = (π²/4) (4/π²)^(k+1),

since (2m+1)^(−2k−2) ≤ (2m+1)^(−2), whose sum is π²/8. So |c_k| ≤ (4/π²)^k < 0.4053^k. With |z²| ≤ Z, q = 0.4053 Z < 1
and weights that grow at most by the factor g from each k ≥ K to the next, g q < 1, the terms from k = K on of
Σ weight_k c_k z^(2k) add up to at most weight_K q^K / (1 − g q). The coefficients are exact, from tanh' = 1 − tanh².
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedding_principle.arguments import checked, require_room, whole
from embedding_principle.certificates.intervals import Ball, Floats

# |w (j − (n−1)/2)| in the chart flat; boxes about its zeros may reach a little beyond.
_REACH = 1.0
_SQUARE = 1.1 * _REACH**2
_TERMS = 44


@dataclass(frozen=True, eq=False)
class Features:
    """The feature on boxes (B,) of a chart, and vectors that span its two derivatives.

    The second part is None where it was not asked for.
    """

    value: Ball  # φ, (n, B)
    spanning: tuple[
        Ball, Ball
    ]  # g_1, g_2: each φ_u, φ_v is a combination of them wherever no coordinate is at infinity
    slopes: tuple[Ball, Ball] | None  # φ_u, φ_v
    bends: tuple[tuple[Ball, Ball], tuple[Ball, Ball]] | None  # bends[i][l]: g_i by the l-th coordinate


class Chart(ABC):
    """A chart of the half-plane {w > 0}, closed at infinity.

    Attributes:
        name: "cell k", "left", "right" or "flat".
        samples: n.
        lower, upper: corners of the rectangle of its coordinates, with few binary digits.
        faces: the sides that are at infinity, or have w = 0: (which coordinate, its value, where the other one begins
            and ends). Where the span of 1 and φ is the same for all values of the other, as on w = 0, on ρ = 0, on
            q = 0 of the first cell and p = 0 of the last, one value stands for all.
    """

    name: str
    samples: int
    lower: tuple[float, float] = (0.0, 0.0)
    upper: tuple[float, float] = (1.0, 1.0)
    faces: tuple[tuple[int, float, float, float], ...]

    @abstractmethod
    def features(self, u: Ball, v: Ball, *, derivatives: bool = True) -> Features:
        """The feature on boxes with sides u and v, (B,) each, and what belongs to its derivatives."""

    @abstractmethod
    def coordinates(self, w: Ball, b: Ball) -> tuple[Ball, Ball]:
        """The coordinates of points of the half-plane."""

    @abstractmethod
    def half_plane(self, u: float, v: float) -> tuple[float, float]:
        """The w and b of coordinates that are not at infinity, rounded."""

    @abstractmethod
    def beyond(self, middle: Floats, radius: Floats) -> NDArray[np.bool_]:
        """Which boxes, (B, 2), hold no point with w ≥ w₀: the chart flat has theirs."""

    @abstractmethod
    def conditions(self, u: Ball, v: Ball) -> tuple[Ball, ...]:
        """What is positive where (u, v) belongs to the half-plane, and only there."""

    def within(self, u: Ball, v: Ball) -> Literal["inside", "outside", "unclear"]:
        """Whether a point with these enclosures belongs to the half-plane, as no network at infinity does."""
        ends = [condition.bounds() for condition in self.conditions(u, v)]
        if all(low > 0 for low, _ in ends):
            return "inside"
        return "outside" if any(high < 0 for _, high in ends) else "unclear"


class Cell(Chart):
    """c between two neighbouring samples."""

    def __init__(self, samples: int, steepness: float, k: int) -> None:
        """The chart for k ≤ c ≤ k + 1, w ≥ steepness."""
        self.name, self.samples, self._k = f"cell {k}", samples, k
        # With one sample on a side of the step its value does not matter.
        self.faces = (0, 0.0, 0.0, float(k < samples - 2)), (1, 0.0, 0.0, float(k > 0))
        self._decay = _decay(steepness)
        j = np.arange(samples)
        self._first, self._second = np.where(j <= k, k + 1 - j, j - k - 1), np.where(j <= k, k - j, j - k)
        self._sign = np.where(j <= k, -1.0, 1.0)[:, None]

    def features(self, u: Ball, v: Ball, *, derivatives: bool = True) -> Features:
        """φ = ∓(1 − Q) / (1 + Q) with Q_j = p^α q^β."""
        of_p, of_q = _powers(u, self.samples), _powers(v, self.samples)

        def monomial(less: int, lesser: int) -> Ball:
            return of_p(self._first - less) * of_q(self._second - lesser)

        alpha, beta = self._first[:, None].astype(float), self._second[:, None].astype(float)
        product = monomial(0, 0)
        inverse = (1.0 + product).inverse()
        square = inverse * inverse
        value = (1.0 - product) * inverse * self._sign
        by_p, by_q = monomial(1, 0), monomial(0, 1)
        spanning = by_p * square * (self._sign * alpha), by_q * square * (self._sign * beta)
        if not derivatives:
            return Features(value, spanning, None, None)
        cube = square * inverse
        mixed = monomial(1, 1) * (1.0 - product) * cube * (self._sign * alpha * beta)
        twice_p = cube * ((alpha - 1) * monomial(2, 0) - (alpha + 1) * (by_p * by_p)) * (self._sign * alpha)
        twice_q = cube * ((beta - 1) * monomial(0, 2) - (beta + 1) * (by_q * by_q)) * (self._sign * beta)
        slopes = -2.0 * spanning[0], -2.0 * spanning[1]
        return Features(value, spanning, slopes, ((twice_p, mixed), (mixed, twice_q)))

    def coordinates(self, w: Ball, b: Ball) -> tuple[Ball, Ball]:
        """The coordinates p and q."""
        return (2.0 * (b + w * float(self._k))).exp(), (-2.0 * (b + w * float(self._k + 1))).exp()

    def half_plane(self, u: float, v: float) -> tuple[float, float]:
        """Rounded: w = −log(p q) / 2 and b = log(p) / 2 − w k."""
        w = -math.log(u * v) / 2
        return w, math.log(u) / 2 - w * self._k

    def beyond(self, middle: Floats, radius: Floats) -> NDArray[np.bool_]:
        """Where p q > e^(−2 w₀) throughout."""
        least = _least(middle, radius)
        return np.asarray(least[:, 0] * least[:, 1] > self._decay)

    def conditions(self, u: Ball, v: Ball) -> tuple[Ball, ...]:
        """Of p, q and 1 − e^(−2w)."""
        return u, v, 1.0 - u * v


class Outside(Chart):
    """c to the left of all samples, or to the right of all."""

    def __init__(self, samples: int, steepness: float, *, mirrored: bool) -> None:
        """The chart for c ≤ 0, or for c ≥ n − 1, and w ≥ steepness."""
        self.name, self.samples = "right" if mirrored else "left", samples
        self.faces = (0, 0.0, 0.0, 1.0), (1, 0.0, 1.0, 1.0)
        self._mirrored, self._decay = mirrored, _decay(steepness)
        self._exponents = np.arange(samples)[:: -1 if mirrored else 1]

    def features(self, u: Ball, v: Ball, *, derivatives: bool = True) -> Features:
        """φ_j = ρ^j / (1 + s ρ^j), or its mirror image."""
        powers, steps = _powers(v, self.samples), self._exponents[:, None].astype(float)
        power, less, lesser = (powers(self._exponents - lower) for lower in range(3))
        inverse = (1.0 + u * power).inverse()
        square = inverse * inverse
        value = power * inverse
        spanning = value * value, less * square * steps
        if not derivatives:
            return Features(value, spanning, None, None)
        mixed = 2.0 * (value * spanning[1])
        twice_s = -2.0 * (spanning[0] * value)
        twice_rho = steps * ((steps - 1) * lesser - (steps + 1) * (u * less * less)) * (square * inverse)
        return Features(value, spanning, (-spanning[0], spanning[1]), ((twice_s, mixed), (-mixed, twice_rho)))

    def coordinates(self, w: Ball, b: Ball) -> tuple[Ball, Ball]:
        """The coordinates s and ρ."""
        s = 2.0 * (b + w * float(self.samples - 1)) if self._mirrored else -2.0 * b
        return s.exp(), (-2.0 * w).exp()

    def half_plane(self, u: float, v: float) -> tuple[float, float]:
        """Rounded: w = −log(ρ) / 2 and b = −log(s) / 2, or its mirror image."""
        w = -math.log(v) / 2
        return w, math.log(u) / 2 - w * (self.samples - 1) if self._mirrored else -math.log(u) / 2

    def beyond(self, middle: Floats, radius: Floats) -> NDArray[np.bool_]:
        """Where ρ > e^(−2 w₀) throughout."""
        return np.asarray(_least(middle, radius)[:, 1] > self._decay)

    def conditions(self, u: Ball, v: Ball) -> tuple[Ball, ...]:
        """Of s, ρ and 1 − e^(−2w)."""
        return u, v, 1.0 - v


class Flat(Chart):
    """w from zero on."""

    def __init__(self, samples: int, steepness: float) -> None:
        """The chart for w ≤ steepness, a number of few digits."""
        self.name, self.samples = "flat", samples
        self.lower, self.upper = (0.0, -1.0), (steepness, 1.0)
        self.faces = (0, 0.0, 0.0, 0.0), (1, -1.0, 0.0, steepness), (1, 1.0, 0.0, steepness)
        self._x = np.arange(samples)[:, None] - (samples - 1) / 2

    def features(self, u: Ball, v: Ball, *, derivatives: bool = True) -> Features:
        """φ = θ / (w (1 + T θ)); g_1 = φ², g_2 = x³ κ / (1 + T θ)², z³ κ(z²) = z tanh'(z) − tanh(z)."""
        x, z = self._x, u * self._x
        square = z * z
        over_z, kappa = _series(square, lambda k: 1, 0), _series(square, lambda k: 2 * k, 1)
        theta = z * over_z
        inverse = (1.0 + v * theta).inverse()
        twice = inverse * inverse
        value = over_z * inverse * x
        spanning = value * value, kappa * twice * x**3
        if not derivatives:
            return Features(value, spanning, None, None)
        kappa_z = z * _series(square, lambda k: 2 * k * (2 * k - 2), 2)
        by_w, by_bend = u * spanning[1] - v * spanning[0], -(u * spanning[0])
        steep = (1.0 - theta * theta) * x
        of_kappa = kappa_z * twice * x**4 - 2.0 * spanning[1] * v * steep * inverse
        bends = (
            (2.0 * value * by_w, 2.0 * value * by_bend),
            (of_kappa, -2.0 * spanning[1] * theta * inverse),
        )
        return Features(value, spanning, (by_w, by_bend), bends)

    def coordinates(self, w: Ball, b: Ball) -> tuple[Ball, Ball]:
        """The coordinates w and T."""
        return w, (b + w * ((self.samples - 1) / 2)).tanh()

    def half_plane(self, u: float, v: float) -> tuple[float, float]:
        """Rounded: w and b = artanh(T) − w (n − 1) / 2."""
        return u, math.atanh(v) - u * (self.samples - 1) / 2

    def beyond(self, middle: Floats, radius: Floats) -> NDArray[np.bool_]:
        """None of them."""
        return np.zeros(len(middle), dtype=bool)

    def conditions(self, u: Ball, v: Ball) -> tuple[Ball, ...]:
        """Of w and 1 − T²."""
        return u, 1.0 - v * v


@checked
def charts(samples: int) -> tuple[Chart, ...]:
    """The charts for n samples: n − 1 cells, left, right and flat.

    Args:
        samples: n ≥ 3.

    Raises:
        ValueError: for fewer samples, or more than memory holds.

    Example:
        >>> [chart.name for chart in charts(4)]
        ['cell 0', 'cell 1', 'cell 2', 'left', 'right', 'flat']
    """
    n = whole("samples", samples, 3)
    require_room("samples", n, n)
    # Four binary digits, so that halving the domain is exact.
    exponent = math.floor(math.log2(2 * _REACH / (n - 1))) - 3
    steepness = math.ldexp(math.floor(math.ldexp(2 * _REACH / (n - 1), -exponent)), exponent)
    sides = (Outside(n, steepness, mirrored=mirrored) for mirrored in (False, True))
    return *(Cell(n, steepness, k) for k in range(n - 1)), *sides, Flat(n, steepness)


def _decay(steepness: float) -> float:
    """e^(−2w), rounded up."""
    return math.exp(-2 * steepness) * (1 + 1e-14)


def _least(middle: Floats, radius: Floats) -> Floats:
    """The least coordinates of boxes, rounded down so that the product of two is too."""
    return np.asarray(np.maximum(middle - radius, 0) * (1 - 1e-15))


def _powers(base: Ball, most: int) -> Callable[[NDArray[np.int64]], Ball]:
    """The powers of (B,) by exponents (n,), those below zero taken for zero: (n, B)."""
    found = [Ball(np.ones(base.shape)), base]
    while len(found) <= most:
        found.append(found[-1] * base)
    table = Ball.stacked(found, 0)
    return lambda exponents: table[np.maximum(exponents, 0)]


@cache
def _tanh_series() -> tuple[Fraction, ...]:
    """c_k of tanh z = Σ c_k z^(2k+1), from tanh' = 1 − tanh²."""
    found = [Fraction(1)]
    for k in range(1, _TERMS):
        found.append(-sum((found[i] * found[k - 1 - i] for i in range(k)), Fraction(0)) / (2 * k + 1))
    return tuple(found)


def _series(square: Ball, weight: Callable[[int], int], first: int) -> Ball:
    """Σ weight(k) c_k z^(2k − 2 first) over k ≥ first; no number where z² may exceed the bound of the tail."""
    total = Ball(np.zeros(square.shape))
    for k in reversed(range(first, _TERMS)):
        exact = weight(k) * _tanh_series()[k]
        total = total * square + Ball(float(exact), abs(float(exact)) * 2.0**-52)
    ratio = 0.4053 * _SQUARE
    growth = ratio * weight(_TERMS + 1) / weight(_TERMS)
    tail = 1.01 * weight(_TERMS) * ratio**_TERMS / (1 - growth) / _SQUARE**first
    return total + Ball(np.zeros(square.shape), np.where(square.magnitude() <= _SQUARE, tail, np.nan))
