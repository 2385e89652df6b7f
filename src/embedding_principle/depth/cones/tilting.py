"""Measure of a simplicial cone by minimax tilting.

The cone {u : f_i·u > 0, i = 1..n} with independent unit normals is an orthant in the coordinates F u ~ N(0, F Fᵀ).
With F Fᵀ = L Lᵀ and u = (z_1, …, z_n) along the rows' Gram–Schmidt frame, row k reads z_k > l_k(z_1, …, z_{k−1}), so
the z_k can be drawn one after the other from truncated normals. Botev (The normal law under linear restrictions,
J. R. Stat. Soc. B 79 (2017) 125–148) shifts their means by the μ that solves the minimax problem
min_μ max_x ψ(x, μ), ψ the logarithm of the importance weight: the relative error stays bounded as the cone thins.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.stats import qmc
from torch import Generator, Tensor
from torch.nn.functional import normalize

from embedding_principle.arguments import checked, real, require_room, whole
from embedding_principle.scaling import scaled

Array = NDArray[np.float64]

_HALF_CELL = 2.0**-31  # Sobol points are multiples of 2^-30: half a cell keeps them off 0, where Φ⁻¹ is infinite


def power_of_two(name: str, value: int) -> int:
    """A number of Sobol points; ValueError unless it is a power of two up to 2^30, which balances them.

    Example:
        >>> power_of_two("points", 4096)
        4096
    """
    if whole(name, value, 1, 1 << 30).bit_count() != 1:
        raise ValueError(f"{name}: expected a power of two, which balances Sobol points, got {value}")
    return value


@checked
def log_estimates(normals: Tensor, *, points: int, runs: int, generator: Generator) -> Tensor:
    """Independent estimates of the logarithm of the Gaussian measure of {u : f_i·u > 0 ∀i}.

    Each run averages the importance weights of one scrambled Sobol sequence; its exponential is unbiased.

    Args:
        normals: f, (n, D), linearly independent rows, n ≥ 2.
        points: of one sequence, a power of two.
        runs: number of sequences.
        generator: seeds the scrambling.

    Returns:
        Logarithms, (runs,).

    Raises:
        ValueError: if rows are linearly dependent or fewer than two, the points are no power of two, there is no run,
            or the weights of all runs, or the points of one, do not fit in memory.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> estimates = log_estimates(torch.eye(50, dtype=torch.float64), points=4, runs=2, generator=g)
        >>> (estimates / np.log(0.5)).round(decimals=9).tolist()  # independent constraints: no variance
        [50.0, 50.0]
    """
    normals = real("normals", normals, ("n", "D"))
    points, runs = power_of_two("points", points), whole("runs", runs, 1)
    require_room("points", points, len(normals))
    require_room("runs", runs, points)
    rows = normalize(scaled(normals, dim=1)[0], dim=1).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = _lower_slopes(rows @ rows.T)
    if len(rows) < 2 or not np.isfinite(slopes).all():
        raise ValueError("normals: expected two rows at least, all linearly independent; see irredundant")
    shift = _minimax_shift(slopes)
    seeds = torch.randint(2**31, (runs,), generator=generator).tolist()
    logs = [_log_weights(slopes, shift, _sobol(len(rows) - 1, points, seed)) for seed in seeds]
    return torch.from_numpy(special.logsumexp(logs, axis=1) - np.log(points))


def _sobol(dimension: int, points: int, seed: int) -> Array:
    sample: Array = qmc.Sobol(dimension, rng=seed).random(points).T
    return sample + _HALF_CELL


def _hazard(t: Array) -> Array:
    """φ(t)/Φ(−t), the inverse Mills ratio: the mean of a standard normal beyond t."""
    hazard: Array = np.exp(-(t**2) / 2 - special.log_ndtr(-t)) / np.sqrt(2 * np.pi)
    return hazard


def _lower_slopes(covariance: Array) -> Array:
    """The strictly lower triangular S of the bounds l(z) = −S z, hardest constraints first.

    The order (Gibson, Glasbey, Elston 1994) takes next the constraint that is least likely to hold given the means
    of those before it; it is a permutation of the rows, so the measure does not depend on it.
    """
    n = len(covariance)
    covariance, factor, means = covariance.copy(), np.zeros((n, n)), np.zeros(n)
    for j in range(n):
        deviations = np.sqrt(covariance.diagonal()[j:] - (factor[j:, :j] ** 2).sum(1))
        bounds = -(factor[j:, :j] @ means[:j]) / deviations
        hardest = j + int(np.argmax(bounds))
        order = [j, hardest], [hardest, j]
        covariance[order[0]] = covariance[order[1]]
        covariance[:, order[0]] = covariance[:, order[1]]
        factor[order[0]] = factor[order[1]]
        factor[j, j] = deviations[hardest - j]
        factor[j + 1 :, j] = (covariance[j + 1 :, j] - factor[j + 1 :, :j] @ factor[j, :j]) / factor[j, j]
        means[j] = _hazard(bounds[hardest - j])
    slopes: Array = factor / factor.diagonal()[:, None] - np.eye(n)
    return slopes


def _minimax_shift(slopes: Array) -> Array:
    """The μ of the saddle point of ψ(x, μ) = Σ_k [μ_k²/2 − μ_k x_k + log Φ(μ_k + (S x)_k)], with x_n = μ_n = 0.

    ψ is concave in x and convex in μ. Any μ gives an unbiased estimate, so an inexact solution costs variance only.
    """
    n = len(slopes)
    last = [n - 1, 2 * n - 1]

    def split(free: Array) -> tuple[Array, Array, Array]:
        """X and μ with their last entries, which are 0, and the lower bounds that they imply, each (n,)."""
        x, shift = np.append(free[: n - 1], 0.0), np.append(free[n - 1 :], 0.0)
        return x, shift, -(slopes @ x) - shift

    def gradient(free: Array) -> Array:
        """∇ψ in the free entries of (x, μ), (2n − 2,)."""
        x, shift, bounds = split(free)
        hazard = _hazard(bounds)
        return np.delete(np.concatenate((slopes.T @ hazard - shift, shift - x + hazard)), last)

    def jacobian(free: Array) -> Array:
        """∇²ψ in the same entries, (2n − 2, 2n − 2)."""
        _, _, bounds = split(free)
        hazard = _hazard(bounds)
        slope = hazard * (hazard - bounds)
        mixed = -np.eye(n) - slope[:, None] * slopes
        curvature = -slopes.T @ (slope[:, None] * slopes)
        full = np.block([[curvature, mixed.T], [mixed, np.diag(1 - slope)]])
        return np.delete(np.delete(full, last, 0), last, 1)

    solution = optimize.root(gradient, np.zeros(2 * n - 2), jac=jacobian)
    return np.append(solution.x[n - 1 :], 0.0)


def _log_weights(slopes: Array, shift: Array, uniforms: Array) -> Array:
    """Logarithms of the importance weights of the points drawn from uniforms (n − 1, points)."""
    n, points = len(slopes), uniforms.shape[1]
    z, log_weights = np.zeros((n, points)), np.zeros(points)
    for k in range(n):
        bound = -(slopes[k, :k] @ z[:k]) - shift[k]
        log_tail = special.log_ndtr(-bound)
        log_weights += log_tail
        if k < n - 1:  # the last coordinate bounds nothing
            z[k] = shift[k] - special.ndtri_exp(np.log(uniforms[k]) + log_tail)
            log_weights += shift[k] ** 2 / 2 - shift[k] * z[k]
    return log_weights
