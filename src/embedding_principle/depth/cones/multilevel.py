"""Measure of a thin cone by multilevel splitting.

For unit normals f_i and a unit vector c that lies both in the cone K_0 = {u : f_i·u > 0 ∀i} and in the cone that the
f_i generate (the max-margin direction does), the cones K_τ = {u : f_i·u + τ c·u > 0 ∀i} grow with τ ≥ 0 to the
half-space c·u > 0 of measure ½. So the measure of K_0 is ½ times a product of conditional probabilities, each of
which is the fraction of particles of one level that reach the next (Cérou and Guyader, Adaptive multilevel
splitting, Stoch. Anal. Appl. 25 (2007) 417–443). Particles move by hit-and-run with closed-form chords along a
random orthonormal frame, which leaves the Gaussian law on K_τ invariant whatever the cone's shape. With levels fixed
beforehand the product of the fractions is therefore unbiased for any number of particles (Del Moral, Feynman-Kac
Formulae, Springer 2004, section 7.4).
"""

import math

import torch
from torch import Generator, Tensor

from embedding_principle.arguments import checked, real, require_room, whole

_SURVIVING = 0.25  # any value from 0.1 to 0.5 is within a third of the least variance for equal cost, at 0.2
_FEWEST = 500  # particles of a pilot run: a level's probability is then ¼ ± 0.02, which costs no variance to speak of
_UNIT = 1e-9  # the length of a normalized vector is off by 1e-16
_PARALLEL = 1e-150  # in place of f_i·v = 0: the facet is far away, and its distance comes back at the next axis
_BLOCK = 2000  # particles whose distances to a hundred facets the cache holds, or nearly so


@checked
def log_estimates(normals: Tensor, centre: Tensor, *, particles: int, runs: int, generator: Generator) -> Tensor:
    """Independent estimates of the logarithm of the Gaussian measure of {u : f_i·u > 0 ∀i}.

    A pilot run chooses the levels. Levels chosen by a run's own particles would bias its estimate upwards, by about
    3/N a level; with given levels the exponential of each estimate is unbiased.

    Args:
        normals: f, (n, D), unit rows.
        centre: c, (D,), the unit max-margin direction.
        particles: N of one run. The relative variance of a run is about 3/N per level of probability ¼.
        runs: number of runs.
        generator: source of randomness.

    Returns:
        Logarithms, (runs,); −∞ for a run in which no particle reached a level.

    Raises:
        ValueError: if c is not a unit vector in the cone, there are no particles or no runs, or the particles of one
            run do not fit in memory, or one number of each particle of all runs.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> eye = torch.eye(4, dtype=torch.float64)
        >>> runs = log_estimates(eye, torch.full((4,), 0.5).double(), particles=4000, runs=4, generator=g)
        >>> abs(runs.exp().mean().item() * 16 - 1) < 0.2  # four standard errors of the orthant's 1/16
        True
    """
    normals = real("normals", normals, ("n", "D"))
    centre, runs = real("centre", centre, (normals.shape[1],)), whole("runs", runs, 1)
    require_room("particles", whole("particles", particles, 1), sum(normals.shape))
    require_room("runs", runs, particles)
    if not (normals @ centre > 0).all() or abs(float(centre.norm()) - 1) > _UNIT:
        raise ValueError("centre: expected a unit vector inside the cone; see interior_direction")
    levels = _levels(normals, centre, particles, generator)
    logs = [_log_estimate(normals, centre, levels, particles, generator) for _ in range(runs)]
    return torch.tensor(logs, dtype=torch.float64)


def _levels(normals: Tensor, centre: Tensor, particles: int, generator: Generator) -> list[float]:
    """Decreasing τ, the last one 0, each passed by about a quarter of the particles at the one before."""
    particles = min(particles, max(_FEWEST, particles // 4))
    u, levels = _half_space(centre, particles, generator), [math.inf]
    while levels[-1] > 0:
        passing, fittest = _entry(normals, centre, u).topk(math.ceil(_SURVIVING * particles), largest=False)
        levels.append(max(passing[-1].item(), 0.0))
        u = _hit_and_run(normals + levels[-1] * centre, _copied(u, fittest, generator), generator)
    return levels[1:]


def _log_estimate(normals: Tensor, centre: Tensor, levels: list[float], particles: int, generator: Generator) -> float:
    u = _half_space(centre, particles, generator)
    log_measure = math.log(0.5)
    for tau in levels:
        inside = (_entry(normals, centre, u) <= tau).nonzero()[:, 0]
        if not len(inside):
            return -math.inf
        log_measure += math.log(len(inside) / particles)
        if tau > 0:
            u = _hit_and_run(normals + tau * centre, _copied(u, inside, generator), generator)
    return log_measure


def _half_space(centre: Tensor, particles: int, generator: Generator) -> Tensor:
    """Normal particles, the columns of (D, particles), reflected into the half-space c·u > 0."""
    u = torch.randn(len(centre), particles, generator=generator, dtype=torch.float64)
    return u - 2 * torch.outer(centre, (centre @ u).clamp(max=0))


def _entry(normals: Tensor, centre: Tensor, u: Tensor) -> Tensor:
    """The infimum of the τ for which K_τ contains each particle, (particles,)."""
    ratios = torch.mm(normals, u).div_(centre @ u)
    return torch.from_numpy(-ratios.numpy().min(0))  # in a quarter of torch's time, as below


def _copied(u: Tensor, chosen: Tensor, generator: Generator) -> Tensor:
    """As many particles as before, all copies of the chosen ones; chance decides which have one copy more."""
    order = chosen[torch.randperm(len(chosen), generator=generator)]
    return u[:, order.repeat(math.ceil(u.shape[1] / len(order)))[: u.shape[1]]]


def _hit_and_run(normals: Tensor, u: Tensor, generator: Generator) -> Tensor:
    """One hit-and-run move of every particle (a column of u) along each axis of a random orthonormal frame.

    Kept are, for the axis v in turn, how far each particle is from each facet along it, d_i = f_i·u / f_i·v: the chord
    reaches back by the least d_i of the facets with f_i·v > 0 and forth by the greatest of the others, −d_i > 0. A move
    by t adds t to all d_i, and the next axis multiplies each by the same factor for all particles: no division by
    f_i·u is needed. Where rounding has put a particle behind a facet, by 1e-16 or so, the chord begins before it.
    """
    dimension, particles = u.shape
    noise = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    frame = torch.linalg.qr(noise).Q
    uniforms = torch.rand(dimension, particles, generator=generator, dtype=torch.float64)
    slopes = (normals @ frame).T
    slopes = torch.where(slopes == 0, _PARALLEL, slopes)
    u = frame.T @ u
    heights = normals @ (frame @ u)
    for block in map(slice, range(0, particles, _BLOCK), range(_BLOCK, particles + _BLOCK, _BLOCK)):
        _move_along_axes(slopes, heights[:, block], u[:, block], uniforms[:, block])
    return torch.mm(frame, u)


def _move_along_axes(slopes: Tensor, heights: Tensor, u: Tensor, uniforms: Tensor) -> None:
    """Move particles (D, N), given in the frame, along its axes in place; slopes are f_i·v, (D, n), heights f_i·u."""
    distances, factors = heights.contiguous(), torch.cat([torch.ones_like(slopes[:1]), slopes[:-1]]) / slopes
    # NumPy takes rows, and the least of a column, in less time than torch.
    for slope, factor, coordinate, uniform in zip(slopes.numpy(), factors, u, uniforms):
        distances.mul_(factor[:, None])
        ahead, rows = slope > 0, distances.numpy()
        back = torch.from_numpy(rows[ahead].min(0, initial=math.inf))
        forth = torch.from_numpy(rows[~ahead].max(0, initial=-math.inf))
        moved = _truncated_normal(coordinate - back, coordinate - forth, uniform)
        distances.add_(moved - coordinate)
        coordinate.copy_(moved)


def _truncated_normal(lower: Tensor, upper: Tensor, uniform: Tensor) -> Tensor:
    """The standard normal restricted to (lower, upper) at these quantiles, elementwise."""
    flip = lower > 0  # work in the left tail, where Φ keeps its relative precision
    left, right = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    below, up_to = torch.special.ndtr(left), torch.special.ndtr(right)
    z = torch.special.ndtri(below + (up_to - below) * uniform).clamp(left, right)
    return torch.where(flip, -z, z)
