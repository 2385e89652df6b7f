"""The Gaussian measure of the cone of admissible neurons.

A ReLU neuron (a, c) inserted after features f_1, …, f_n acts as the identity on the training set exactly when
(a, c) lies in the open convex cone K_S = {(a, c) : a·f_i + c > 0 ∀i} (layer linearization of Bai et al.,
arXiv:2205.13283). Its measure under N(0, I) is the chance that a random neuron is admissible;
`embedding_principle.depth.cones.laws` has what is known of it in closed form. It is found here

* exactly when the normals span at most three dimensions (angles),
* by minimax tilting when the irredundant normals are linearly independent (`embedding_principle.depth.cones.tilting`),
* by multilevel splitting otherwise (`embedding_principle.depth.cones.multilevel`).
"""

import contextlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Generator, Tensor
from torch.nn.functional import normalize

from embedding_principle.arguments import checked, real, whole
from embedding_principle.depth.cones import multilevel, tilting
from embedding_principle.networks import with_ones
from embedding_principle.scaling import scaled

Array = NDArray[np.float64]

# Rounding in non-negative least squares stays near 1e-15 times a small condition number. A cone with an inscribed
# radius below the tolerance counts as empty, a normal that near to the cone of the others as redundant.
_TOLERANCE = 1e-12
# Normals that are tried as vertices by one product with so many rows at a time (0.3 GB).
_CANDIDATES, _ROWS = 1000, 1 << 15


@dataclass(frozen=True)
class ConeMeasure:
    """The Gaussian measure p of a cone.

    Attributes:
        log_measure: log p; −∞ for an empty cone.
        standard_error: of log_measure; 0 where the method is exact.
        method: "empty", "angle", "minimax tilting" or "multilevel splitting".
    """

    log_measure: float
    standard_error: float
    method: str


@checked
def admissible_normals(features: Tensor) -> Tensor:
    """The normals (f_i, 1) of K_S, (n, D + 1), for features (n, D).

    Raises:
        ValueError: if features are not finite, or there is none.

    Example:
        >>> admissible_normals(torch.tensor([[2.0], [3.0]]))
        tensor([[2., 1.],
                [3., 1.]], dtype=torch.float64)
    """
    return with_ones(real("features", features, ("n", "D")))


@checked
def gaussian_measure(
    normals: Tensor, *, generator: Generator, points: int = 4096, particles: int = 2000, runs: int = 8
) -> ConeMeasure:
    """The probability that f_i·u > 0 for every i, u ~ N(0, I).

    Args:
        normals: f, (n, D); their lengths do not matter.
        generator: source of randomness of the two sampling methods.
        points: quasi-random points of each run of minimax tilting (a power of two).
        particles: of each run of multilevel splitting; its standard error falls as particles^(−1/2).
        runs: independent estimates, whose spread gives the standard error.

    Raises:
        ValueError: if normals are not a finite matrix with at least one row, runs < 2, the points are no power of two,
            the particles are so few that none reached the cone, a cone of three dimensions is so thin that rounding
            spoils its angles, or rounding hides which rows bound the cone.

    Example:
        >>> octant = gaussian_measure(torch.eye(3, dtype=torch.float64), generator=torch.Generator())
        >>> round(math.exp(octant.log_measure), 15), octant.method
        (0.125, 'angle')
    """
    # A standard error needs two.
    runs = whole("runs", runs, 2)
    points, particles = tilting.power_of_two("points", points), whole("particles", particles, 1)
    rows = _in_their_span(_unit_rows(normals))
    centre = interior_direction(rows)
    if centre is None:
        return ConeMeasure(-math.inf, 0.0, "empty")
    facets = rows[irredundant(rows)]
    n, rank = facets.shape
    if rank <= 3:
        return ConeMeasure(math.log(_checked(_exact_measure(facets))), 0.0, "angle")
    if n == rank:
        logs = tilting.log_estimates(facets, points=points, runs=runs, generator=generator)
        return _pooled(logs, "minimax tilting")
    logs = multilevel.log_estimates(facets, centre, particles=particles, runs=runs, generator=generator)
    return _pooled(logs, "multilevel splitting")


@checked
def interior_direction(normals: Tensor) -> Tensor | None:
    """The unit vector c, (D,), that maximizes min_i f_i·c/‖f_i‖; None when {u : f_i·u > 0 ∀i} is empty.

    c points to the element of the unit normals' convex hull that is nearest to the origin, a problem of non-negative
    least squares. The cone is empty exactly when the hull contains the origin (Gordan's alternative).

    Raises:
        ValueError: if normals are not a finite matrix with at least one row, or rounding hides the nearest element.

    Example:
        >>> interior_direction(torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
        tensor([0.7071, 0.7071], dtype=torch.float64)
        >>> interior_direction(torch.tensor([[1.0], [-1.0]], dtype=torch.float64)) is None
        True
    """
    rows = _unit_rows(normals).numpy()
    # The row of ones asks for weights that sum to one: rowsᵀ weights is the nearest point up to a positive factor.
    weights = _non_negative(np.vstack((rows.T, np.ones(len(rows)))), np.append(np.zeros(rows.shape[1]), 1.0))
    nearest = rows[weights > 0]
    # That sum cancels in a thin cone; c has equal products with the rows that span the nearest face: so it is found.
    centre = np.linalg.lstsq(nearest, np.ones(len(nearest)))[0]
    if (rows @ centre).min() <= _TOLERANCE * np.linalg.norm(centre):
        return None
    return torch.from_numpy(centre / np.linalg.norm(centre))


@checked
def irredundant(normals: Tensor) -> Tensor:
    """The rows that alone define the cone {u : f_i·u > 0 ∀i}: the extreme rays of the cone of the normals.

    Scaled to c·f = 1, the normals are points of a hyperplane, and the rows sought are the vertices of their convex
    hull. They are collected by Clarkson's algorithm (More output-sensitive geometric algorithms, FOCS 1994): a point
    that is no combination of the vertices known so far (non-negative least squares) yields a direction, and the
    farthest point in that direction is a new vertex.

    Args:
        normals: (n, D), of a cone that is not empty.

    Returns:
        Indices in increasing order; of equal rows one stays.

    Raises:
        ValueError: if the cone is empty, normals are not a finite matrix with at least one row, or rounding hides which
            rows bound the cone.

    Example:
        >>> irredundant(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
        tensor([0, 2])
    """
    normals = _scaled_rows(normals)
    centre = interior_direction(normals)
    if centre is None:
        raise ValueError("normals: the cone is empty, so no row is redundant or irredundant")
    points: Array = (normals / (normals @ centre).unsqueeze(1)).numpy()
    vertices = _plain_vertices(points)
    for i, point in enumerate(points):
        while i not in vertices:
            known = points[vertices].T
            residual = point - known @ _non_negative(known, point)
            if np.linalg.norm(residual) <= _TOLERANCE * np.linalg.norm(point):
                break
            vertex = _farthest(points, residual)
            # In very thin cones rounding may name a known vertex; the point itself is then kept, at worst needlessly.
            vertices.append(i if vertex in vertices else vertex)
    return torch.tensor(sorted(vertices))


def _scaled_rows(normals: Tensor) -> Tensor:
    """The rows with largest entries from 1 to 2: of other lengths squares may overflow or vanish."""
    return scaled(real("normals", normals, ("n", "D")), dim=1)[0]


def _unit_rows(normals: Tensor) -> Tensor:
    # A zero row, which no u satisfies, stays.
    return normalize(_scaled_rows(normals), dim=1, eps=torch.finfo(torch.float64).tiny)


def _non_negative(matrix: Array, target: Array) -> Array:
    """The x ≥ 0 that minimizes ‖matrix x − target‖."""
    # Lawson and Hanson's method is finite, yet SciPy's default of 3 iterations a column is at times too few.
    with contextlib.suppress(RuntimeError):  # at the end of these it raises
        solution: Array = optimize.nnls(matrix, target, maxiter=30 * matrix.shape[1])[0]
        if _is_minimum(matrix, target, solution):
            return solution
    # Where many faces meet SciPy's method may end too early, and not say so (scipy/scipy#25389); the other is slower.
    solution = optimize.lsq_linear(matrix, target, (0, np.inf), method="bvls", tol=1e-15).x
    if not _is_minimum(matrix, target, solution):
        raise ValueError("normals: rounding hides which of them bound the cone; leave out rows that nearly repeat")
    return solution


def _is_minimum(matrix: Array, target: Array, solution: Array) -> bool:
    """Whether the slope is zero where x > 0 and leads below zero elsewhere, to rounding (Karush, Kuhn and Tucker)."""
    lengths = np.linalg.norm(matrix, axis=0)
    downhill = matrix.T @ (target - matrix @ solution)
    steep = np.where(solution > 0, np.abs(downhill), downhill)
    return bool((steep <= _TOLERANCE * lengths * (np.linalg.norm(target) + lengths @ solution)).all())


def _plain_vertices(points: Array) -> list[int]:
    """Points farther in their own direction, seen from the mean, than all others: vertices found by one product."""
    offsets = points - points.mean(0)
    own = (offsets**2).sum(1)
    farthest = np.argsort(-own)[:_CANDIDATES]
    reach = np.full(len(farthest), -np.inf)
    for start in range(0, len(points), _ROWS):
        products = offsets[start : start + _ROWS] @ offsets[farthest].T
        here = (farthest >= start) & (farthest < start + _ROWS)
        products[farthest[here] - start, np.flatnonzero(here)] = -np.inf
        np.maximum(reach, products.max(0), out=reach)
    plain = own[farthest] > reach + _TOLERANCE * own[farthest]
    plain[0] = True  # the point farthest from the mean is a vertex even where others tie with it
    return list(farthest[plain])


def _farthest(points: Array, direction: Array) -> int:
    """The point farthest in this direction; of several the one of greatest norm, which is a vertex of their face."""
    heights = points @ direction
    face = np.flatnonzero(heights >= heights.max() - _TOLERANCE * abs(heights.max()))
    return int(face[np.argmax(np.linalg.norm(points[face], axis=1))])


def _in_their_span(rows: Tensor) -> Tensor:
    """Coordinates (n, rank) of the rows in an orthonormal basis of their span."""
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    coordinates: Tensor = (left * values)[:, values >= _TOLERANCE * values[0]]
    return coordinates


def _exact_measure(facets: Tensor) -> float:
    """The measure of a cone of at most three dimensions from its irredundant unit normals (n, rank)."""
    if facets.shape[1] == 1:
        return 0.5
    if facets.shape[1] == 2:
        first, second = facets
        sine = first[0] * second[1] - first[1] * second[0]
        return math.atan2(abs(sine), -(first @ second)) / (2 * math.pi)
    return _solid_angle(_extreme_rays(facets)) / (4 * math.pi)


def _checked(measure: float) -> float:
    """The measure of a cone, which lies in a half-space; rounding can leave redundant facets, and then it need not."""
    if not 0 < measure <= 0.5 + _TOLERANCE:
        raise ValueError(
            f"normals: the cone is too thin for its angles in float64 (measure {measure:.1e}); scale the features so "
            "that their sizes differ less, or leave out the redundant rows"
        )
    return measure


def _extreme_rays(facets: Tensor) -> Tensor:
    """The unit edges of a three-dimensional cone in cyclic order: where neighbouring facets meet."""
    axis = facets.sum(
        0
    )  # inside the cone of the normals, so it sees them, and every edge has a positive product with it
    first, second = torch.linalg.svd(axis.unsqueeze(0)).Vh[1:] @ facets.T
    ordered = facets[torch.atan2(second, first).argsort()]
    rays = torch.linalg.cross(ordered, ordered.roll(-1, 0))
    return normalize(rays * torch.sign(rays @ axis).unsqueeze(1), dim=1)  # the two axes may turn either way


def _solid_angle(rays: Tensor) -> float:
    """Sum over the triangles from an inner ray (van Oosterom and Strackee, IEEE Trans. Biomed. Eng. 30 (1983) 125)."""
    apex = normalize(rays.sum(0), dim=0)
    following = rays.roll(-1, 0)
    volume = (torch.linalg.cross(rays, following) @ apex).abs()
    halves = torch.atan2(volume, 1 + rays @ apex + following @ apex + (rays * following).sum(1))
    return 2 * halves.sum().item()


def _pooled(logs: Tensor, method: str) -> ConeMeasure:
    """The logarithm of the mean of exp(logs), with its standard error by the delta method."""
    log_mean = torch.logsumexp(logs, 0) - math.log(len(logs))
    if log_mean == -math.inf:
        raise ValueError("particles: none reached the cone in any run, so that its measure is unknown; use more")
    spread = (logs - log_mean).exp().std()
    return ConeMeasure(log_mean.item(), spread.item() / math.sqrt(len(logs)), method)
