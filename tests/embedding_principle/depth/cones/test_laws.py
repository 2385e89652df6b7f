"""The closed-form laws of cones, through independent channels."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Generator, Tensor

from embedding_principle.depth.cones import laws
from embedding_principle.depth.cones.measure import admissible_normals, gaussian_measure, interior_direction


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_symmetric_mean_against_a_partition() -> None:
    # The 2^n cones of all sign patterns partition the space, so that their mean is 2^(−n) for any features.
    features = normal(4, 3)
    patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    logs = [gaussian_measure(s.unsqueeze(1) * features, generator=generator()).log_measure for s in patterns]
    assert np.mean(np.exp(logs)) == pytest.approx(laws.symmetric_mean(4), rel=1e-12, abs=0)


def test_wendel_against_counted_cells() -> None:
    # In general position n points have Wendel's share of non-empty sign patterns, exactly.
    for n, dimension in ((5, 2), (6, 3), (4, 4)):
        features = normal(n, dimension, seed=n)
        patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * n)
        occupied = [interior_direction(s.unsqueeze(1) * features) is not None for s in patterns]
        assert np.mean(occupied) == laws.wendel_probability(n, dimension)


def test_wendel_stays_finite_for_many_points() -> None:
    # P(Binomial(n − 1, ½) < D), an independent route.
    assert laws.wendel_probability(3000, 1500) == pytest.approx(stats.binom.cdf(1499, 2999, 0.5), rel=1e-10, abs=0)


@pytest.mark.parametrize(("n", "dimension"), [(1, 1), (10, 1), (100, 3), (1000, 20), (10**6, 5)])
def test_gaussian_mean_against_quadrature_in_the_angle(n: int, dimension: int) -> None:
    # c/‖a‖ = tan θ with density cos^(D−1) θ / B(½, D/2): the midpoint rule, which for n = 1e6 needs its many points.
    theta = (np.arange(400_000) + 0.5) / 400_000 * math.pi - math.pi / 2
    values = np.exp(n * special.log_ndtr(np.tan(theta))) * np.cos(theta) ** (dimension - 1)
    expected = values.mean() * math.pi / special.beta(0.5, dimension / 2)
    assert math.exp(laws.log_gaussian_mean(n, dimension)) == pytest.approx(expected, rel=1e-9, abs=0)


def test_gaussian_mean_against_measured_cones() -> None:
    measures = [
        math.exp(gaussian_measure(admissible_normals(normal(20, 2, seed=s)), generator=generator()).log_measure)
        for s in range(200)
    ]
    error = np.std(measures) / math.sqrt(len(measures))
    assert abs(np.mean(measures) - math.exp(laws.log_gaussian_mean(20, 2))) < 4 * error


def test_limits_are_reached_from_above() -> None:
    # A regular polygon of unit circumradius fills the disc; its cone exceeds the limit by O(corners^-2).
    angle = 2 * math.pi * torch.arange(2000, dtype=torch.float64) / 2000
    disc = gaussian_measure(
        admissible_normals(0.5 * torch.stack((angle.cos(), angle.sin()), 1)), generator=generator()
    ).log_measure
    assert 0 < disc - math.log(laws.ball_limit(0.5, 2)) < 1e-5
    non_negative = normal(200, 2).abs()
    orthant = gaussian_measure(admissible_normals(non_negative), generator=generator()).log_measure
    assert orthant > math.log(laws.orthant_limit(2))
    # Adding far multiples of the axes and the origin completes the closed conic hull up to 1e-9.
    corners = torch.tensor([[1e9, 0.0], [0.0, 1e9], [0.0, 0.0]], dtype=torch.float64)
    full = gaussian_measure(admissible_normals(torch.cat((non_negative, corners))), generator=generator()).log_measure
    assert full == pytest.approx(math.log(laws.orthant_limit(2)), abs=1e-8)
