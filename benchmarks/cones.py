"""Gaussian measure of thin cones: `depth.cones` against SciPy's multivariate normal distribution.

All cones have a known measure. SciPy's quasi-Monte Carlo integration gives up at its limit of points, so that the
times compare what a user gets by default; the facts beside them are errors of the logarithm of the measure.
"""

import math

import torch
from benchmarks.timing import Comparison, compare, one_thread, report
from scipy.stats import multivariate_normal
from torch import Generator, Tensor
from torch.nn.functional import normalize

from embedding_principle.depth.cones.measure import gaussian_measure


def weyl_chamber(dimension: int) -> tuple[Tensor, float]:
    """u_1 < … < u_D, one of D! congruent cones."""
    eye = torch.eye(dimension, dtype=torch.float64)
    return eye[1:] - eye[:-1], -math.lgamma(dimension + 1)


def polygons(corners: int, radius: float, copies: int) -> tuple[Tensor, float]:
    """A product of three-dimensional cones over regular polygons with this inradius at height one."""
    angle = 2 * math.pi * torch.arange(corners, dtype=torch.float64) / corners
    facets = torch.stack((torch.cos(angle), torch.sin(angle), torch.full_like(angle, radius)), 1)
    turn = math.acos((math.cos(2 * math.pi / corners) + radius**2) / (1 + radius**2))
    measure = (2 * math.pi - corners * turn) / (4 * math.pi)
    return torch.block_diag(*[facets] * copies), copies * math.log(measure)


def scipy_log_measure(normals: Tensor) -> float:
    rows = normalize(normals, dim=1).numpy()
    law = multivariate_normal(cov=rows @ rows.T, allow_singular=True)
    return math.log(max(float(law.cdf([0.0] * len(rows))), 1e-300))


def case(name: str, cone: tuple[Tensor, float], rounds: int = 5) -> Comparison:
    normals, exact = cone
    ours = gaussian_measure(normals, generator=Generator().manual_seed(0))
    facts = {
        "log10 p": exact / math.log(10),
        "our error": ours.log_measure - exact,
        "our standard error": ours.standard_error,
        "SciPy's error": scipy_log_measure(normals) - exact,
    }
    return compare(
        f"{name}, n = {len(normals)}, D = {normals.shape[1]}, {ours.method}",
        lambda: gaussian_measure(normals, generator=Generator().manual_seed(0)),
        {"scipy.stats.multivariate_normal": lambda: scipy_log_measure(normals)},
        rounds=rounds,
        facts=facts,
    )


if __name__ == "__main__":
    one_thread()
    rows = [
        case("Weyl chamber", weyl_chamber(10)),
        case("Weyl chamber", weyl_chamber(28)),
        case("4 polygons", polygons(12, 0.2, 4)),
        case("10 polygons", polygons(12, 0.1, 10)),
    ]
    report("cones", "Gaussian measure of cones; errors are of log p", rows)
