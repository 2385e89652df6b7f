"""Charts of the half-plane of one tanh neuron on the grid 0, 1, …, n − 1, which reach infinity.

The neuron tanh(w x + b) with w > 0 matters through the span of 1 and its values alone, and so through any *feature*
φ(u, v) with span(1, φ) = span(1, tanh(w x + b)). With c = −b / w, where the neuron changes its sign, the charts are

=========  ==========================================  =========================================  ======================
chart      coordinates (u, v)                          φ_j, j = 0 … n − 1                         covers, with w₀ of it
=========  ==========================================  =========================================  ======================
cell k     p = e^(−2w(c−k)), q = e^(−2w(k+1−c))        ∓(1 − Q_j) / (1 + Q_j), Q_j = p^α q^β      k ≤ c ≤ k + 1, w ≥ w₀
left       s = e^(2wc), ρ = e^(−2w)                    ρ^j / (1 + s ρ^j)                          c ≤ 0, w ≥ w₀
right      the mirror image of left                    with n − 1 − j in place of j               c ≥ n − 1, w ≥ w₀
flat       w, T = tanh(b + w (n−1)/2)                  θ / (w (1 + T θ)), θ = tanh(w (j−(n−1)/2)) w ≤ w₀
=========  ==========================================  =========================================  ======================

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
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedding_principle.arguments import checked, whole
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


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart of the half-plane {w > 0}, closed at infinity.

    Attributes:
        name: "cell k", "left", "right" or "flat".
        lower, upper: corners of the rectangle of its coordinates, with few binary digits.
        faces: the sides that are at infinity, or have w = 0: (which coordinate, its value, where the other one begins
            and ends). Where the span of 1 and φ is the same for all values of the other, as on w = 0, on ρ = 0, on
            q = 0 of the first cell and p = 0 of the last, one value stands for all.
    """

    name: str
    lower: tuple[float, float]
    upper: tuple[float, float]
    faces: tuple[tuple[int, float, float, float], ...]
    _samples: int
    _features: Callable[[Ball, Ball, bool], Features]
    _decay: float  # e^(−2 w₀), rounded up

    def features(self, u: Ball, v: Ball, *, derivatives: bool = True) -> Features:
        """The feature on boxes with sides u and v, (B,) each, and what belongs to its derivatives."""
        return self._features(u, v, derivatives)

    def beyond(self, middle: Floats, radius: Floats) -> NDArray[np.bool_]:
        """Which boxes, (B, 2), hold no point with w ≥ w₀: the chart flat has theirs."""
        if self.name == "flat":
            return np.zeros(len(middle), dtype=bool)
        least = np.maximum(middle - radius, 0) * (1 - 1e-15)
        decay = least[:, 1] if self.name in ("left", "right") else least[:, 0] * least[:, 1]
        return np.asarray(decay > self._decay)

    def within(self, u: Ball, v: Ball) -> Literal["inside", "outside", "unclear"]:
        """Whether a point with these enclosures belongs to the half-plane, as no network at infinity does."""
        if self.name == "flat":
            conditions = [u, 1.0 - v * v]
        else:
            conditions = [u, v, 1.0 - (v if self.name in ("left", "right") else u * v)]
        ends = [condition.bounds() for condition in conditions]
        if all(low > 0 for low, _ in ends):
            return "inside"
        return "outside" if any(high < 0 for _, high in ends) else "unclear"

    def coordinates(self, w: Ball, b: Ball) -> tuple[Ball, Ball]:
        """The coordinates of points of the half-plane."""
        last = float(self._samples - 1)
        if self.name == "flat":
            return w, (b + w * (last / 2)).tanh()
        if self.name == "left":
            return (-2.0 * b).exp(), (-2.0 * w).exp()
        if self.name == "right":
            return (2.0 * (b + w * last)).exp(), (-2.0 * w).exp()
        k = float(self.name[5:])
        return (2.0 * (b + w * k)).exp(), (-2.0 * (b + w * (k + 1))).exp()

    def half_plane(self, u: float, v: float) -> tuple[float, float]:
        """The w and b of coordinates that are not at infinity, rounded."""
        last = self._samples - 1
        if self.name == "flat":
            return u, math.atanh(v) - u * last / 2
        if self.name == "left":
            return -math.log(v) / 2, -math.log(u) / 2
        if self.name == "right":
            return -math.log(v) / 2, (math.log(u) + last * math.log(v)) / 2
        w = -math.log(u * v) / 2
        return w, math.log(u) / 2 - w * int(self.name[5:])


@checked
def charts(samples: int) -> tuple[Chart, ...]:
    """The charts for n samples: n − 1 cells, left, right and flat.

    Args:
        samples: n ≥ 3.

    Raises:
        ValueError: for fewer samples.

    Example:
        >>> [chart.name for chart in charts(4)]
        ['cell 0', 'cell 1', 'cell 2', 'left', 'right', 'flat']
    """
    n = whole("samples", samples, 3)
    # Four binary digits, so that halving the domain is exact.
    exponent = math.floor(math.log2(2 * _REACH / (n - 1))) - 3
    steepness = math.ldexp(math.floor(math.ldexp(2 * _REACH / (n - 1), -exponent)), exponent)
    decay = math.exp(-2 * steepness) * (1 + 1e-14)
    unit = (0.0, 0.0), (1.0, 1.0)
    outer = *unit, ((0, 0.0, 0.0, 1.0), (1, 0.0, 1.0, 1.0))
    flat = (0.0, -1.0), (steepness, 1.0), ((0, 0.0, 0.0, 0.0), (1, -1.0, 0.0, steepness), (1, 1.0, 0.0, steepness))
    steps = np.arange(n, dtype=float)[:, None]
    return (
        *(Chart(f"cell {k}", *unit, _cell_faces(n, k), n, _cell(n, k), decay) for k in range(n - 1)),
        Chart("left", *outer, n, _outer(steps), decay),
        Chart("right", *outer, n, _outer(steps[::-1].copy()), decay),
        Chart("flat", *flat, n, _flat(steps - (n - 1) / 2), decay),
    )


def _cell_faces(n: int, k: int) -> tuple[tuple[int, float, float, float], ...]:
    """P = 0 and q = 0; with one sample on a side of the step its value does not matter."""
    return (0, 0.0, 0.0, float(k < n - 2)), (1, 0.0, 0.0, float(k > 0))


def _powers(base: Ball, most: int) -> Callable[[NDArray[np.int64]], Ball]:
    """The powers of (B,) by exponents (n,), those below zero taken for zero: (n, B)."""
    found = [Ball(np.ones(base.shape)), base]
    while len(found) <= most:
        found.append(found[-1] * base)
    table = Ball.stacked(found, 0)
    return lambda exponents: table[np.maximum(exponents, 0)]


def _cell(n: int, k: int) -> Callable[[Ball, Ball, bool], Features]:
    j = np.arange(n)
    first, second = np.where(j <= k, k + 1 - j, j - k - 1), np.where(j <= k, k - j, j - k)
    sign = np.where(j <= k, -1.0, 1.0)[:, None]
    alpha, beta = first[:, None].astype(float), second[:, None].astype(float)

    def features(p: Ball, q: Ball, derivatives: bool) -> Features:
        of_p, of_q = _powers(p, n), _powers(q, n)

        def monomial(less: int, lesser: int) -> Ball:
            return of_p(first - less) * of_q(second - lesser)

        product = monomial(0, 0)
        inverse = (1.0 + product).inverse()
        square = inverse * inverse
        value = (sign * (1.0 - product)) * inverse
        by_p, by_q = monomial(1, 0), monomial(0, 1)
        spanning = (sign * alpha) * by_p * square, (sign * beta) * by_q * square
        if not derivatives:
            return Features(value, spanning, None, None)
        cube = square * inverse
        mixed = (sign * alpha * beta) * monomial(1, 1) * (1.0 - product) * cube
        twice_p = (sign * alpha) * cube * ((alpha - 1) * monomial(2, 0) - (alpha + 1) * (by_p * by_p))
        twice_q = (sign * beta) * cube * ((beta - 1) * monomial(0, 2) - (beta + 1) * (by_q * by_q))
        slopes = -2.0 * spanning[0], -2.0 * spanning[1]
        return Features(value, spanning, slopes, ((twice_p, mixed), (mixed, twice_q)))

    return features


def _outer(steps: Floats) -> Callable[[Ball, Ball, bool], Features]:
    exponents = steps[:, 0].astype(int)

    def features(s: Ball, rho: Ball, derivatives: bool) -> Features:
        powers = _powers(rho, len(steps))
        power, less, lesser = powers(exponents), powers(exponents - 1), powers(exponents - 2)
        inverse = (1.0 + s * power).inverse()
        square = inverse * inverse
        value = power * inverse
        spanning = value * value, steps * less * square
        if not derivatives:
            return Features(value, spanning, None, None)
        mixed = 2.0 * (value * spanning[1])
        twice_s = -2.0 * (spanning[0] * value)
        twice_rho = steps * ((steps - 1) * lesser - (steps + 1) * (s * less * less)) * (square * inverse)
        return Features(value, spanning, (-spanning[0], spanning[1]), ((twice_s, mixed), (-mixed, twice_rho)))

    return features


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


def _flat(x: Floats) -> Callable[[Ball, Ball, bool], Features]:
    cubes = x**3

    def features(w: Ball, bend: Ball, derivatives: bool) -> Features:
        z = x * w
        square = z * z
        over_z, kappa = _series(square, lambda k: 1, 0), _series(square, lambda k: 2 * k, 1)
        theta = z * over_z
        inverse = (1.0 + bend * theta).inverse()
        twice = inverse * inverse
        value = x * over_z * inverse
        spanning = value * value, cubes * kappa * twice
        if not derivatives:
            return Features(value, spanning, None, None)
        kappa_z = z * _series(square, lambda k: 2 * k * (2 * k - 2), 2)
        by_w, by_bend = w * spanning[1] - bend * spanning[0], -(w * spanning[0])
        steep = x * (1.0 - theta * theta)
        bends = (
            (2.0 * value * by_w, 2.0 * value * by_bend),
            (
                (cubes * x) * kappa_z * twice - 2.0 * spanning[1] * bend * steep * inverse,
                -2.0 * spanning[1] * theta * inverse,
            ),
        )
        return Features(value, spanning, (by_w, by_bend), bends)

    return features
