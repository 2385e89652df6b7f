"""Closed forms for the measure p_n of the cone of admissible neurons, K_S = {(a, c) : a·f_i + c > 0, i = 1..n}.

p_n is the chance that a neuron with standard normal (a, c) ∈ R^{D+1}, or a ∈ R^D where there is no bias, keeps all n
features f_i ∈ R^D inside ReLU's affine piece. `embedding_principle.depth.cones.measure` measures it for given features;
the laws here hold in the mean over random features, or in the limit n → ∞.
"""

import math

import numpy as np
from scipy import special

from embedding_principle.arguments import checked, number, whole

# For an integrand that is analytic near the real line the trapezoidal rule converges exponentially in 1/step; beyond
# the ends it is below e^(−40).
_NODES = np.linspace(-40.0, 40.0, 8001)

# Features for which `wendel_probability` is found at once.
_MOST = 10_000


@checked
def symmetric_mean(n: int) -> float:
    """E p_n without bias for i.i.d. features symmetric about the origin: 2^(−n), whatever their dimension.

    Given a, the signs of a·f_i are independent and fair (as long as a·f_i = 0 has probability zero).

    Raises:
        ValueError: if n is negative.

    Example:
        >>> symmetric_mean(3)
        0.125
    """
    return 2.0 ** -whole("n", n, 0)


@checked
def wendel_probability(n: int, dimension: int) -> float:
    """The probability that K_S is not empty, without bias: 2^(1−n) Σ_{j<D} binom(n − 1, j).

    For features in general position whose signs are independent and fair (Wendel, A problem in geometric probability,
    Math. Scand. 11 (1962) 109–111; the count of cells is Cover's function counting theorem).

    Raises:
        ValueError: if n or the dimension is not positive, or n above 10 000.

    Example:
        >>> wendel_probability(6, 3)
        0.5
    """
    n, dimension = whole("n", n, 1, _MOST), whole("dimension", dimension, 1)
    total, binomial = 0, 1
    # The sum is exact, in integers of n bits.
    for j in range(min(dimension, n)):
        total += binomial
        binomial = binomial * (n - 1 - j) // (j + 1)
    return 2 * total / (1 << n)


@checked
def log_gaussian_mean(n: int, dimension: int) -> float:
    """The logarithm of E p_n = E Φ(t/√D)^n, t Student (D), with bias and i.i.d. standard normal features.

    Given (a, c), each a·f_i + c > 0 has probability Φ(c/‖a‖), and c/‖a‖ = t/√D. With c/‖a‖ = sinh s the density of s
    is cosh^(−D) s / B(½, D/2), and the mean is an integral over the line.
    As n grows, E p_n falls only as (2 log n)^(−D/2) / (D B(½, D/2)).

    Raises:
        ValueError: if n is negative, or the dimension not positive.

    Example:
        >>> round(math.exp(log_gaussian_mean(1, 7)), 12)
        0.5
    """
    n, dimension = whole("n", n, 0), whole("dimension", dimension, 1)
    log_cosh = np.logaddexp(_NODES, -_NODES) - math.log(2)
    logs = n * special.log_ndtr(np.sinh(_NODES)) - dimension * log_cosh + math.log(_NODES[1] - _NODES[0])
    return float(special.logsumexp(logs) - special.betaln(0.5, dimension / 2))


@checked
def ball_limit(radius: float, dimension: int) -> float:
    """The limit of p_n with bias for features dense in a ball about the origin: P(t > radius √D), t Student (D).

    As n → ∞ the cone K_S decreases to the dual cone of the closed conic hull of all (f, 1): here {c ≥ radius ‖a‖}.

    Raises:
        ValueError: if the radius is negative, or the dimension not positive.

    Example:
        >>> round(ball_limit(1.0, 1), 12)  # |a| < c: a quarter of the plane
        0.25
    """
    radius, dimension = number("radius", radius, at_least=0.0), whole("dimension", dimension, 1)
    return float(special.stdtr(dimension, -radius * math.sqrt(dimension)))


@checked
def orthant_limit(dimension: int) -> float:
    """The limit of p_n with bias for features dense in the orthant of non-negative vectors, ReLU's own: 2^(−D−1).

    The dual cone is {a ≥ 0, c ≥ 0}. Features that fill only a part of the orthant leave a larger cone, so this is a
    lower bound of p_n for every n and every set of non-negative features.

    Raises:
        ValueError: if the dimension is not positive.

    Example:
        >>> orthant_limit(2)
        0.125
    """
    return 2.0 ** -(whole("dimension", dimension, 1) + 1)
