"""Cones of known measure, and the closed-form laws, through independent channels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Generator, Tensor

from embedding_principle.depth.cones import multilevel, tilting
from embedding_principle.depth.cones.measure import (
    ConeMeasure,
    admissible_normals,
    gaussian_measure,
    interior_direction,
    irredundant,
)

SEEDS = st.integers(0, 2**32)
# A statistical check may miss by chance: at 5 standard errors of t with 7 degrees of freedom once in 600 cases, and the
# seeds are fixed, so what passes once passes always.
STANDARD_ERRORS = 5


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rotated(normals: Tensor) -> Tensor:
    return normals @ torch.linalg.qr(normal(normals.shape[1], normals.shape[1])).Q


def weyl_chamber(dimension: int) -> Tensor:
    """u_1 < u_2 < … < u_D: one of D! congruent cones that fill the space."""
    eye = torch.eye(dimension, dtype=torch.float64)
    return rotated(eye[1:] - eye[:-1])


def polygon(corners: int, radius: float) -> tuple[Tensor, float]:
    """The cone over a regular polygon with this inradius at height one, and its measure by Girard's formula.

    Neighbouring facets meet at π minus the angle of their normals; the excess of these angles is the solid angle.
    """
    angle = 2 * math.pi * torch.arange(corners, dtype=torch.float64) / corners
    normals = torch.stack((torch.cos(angle), torch.sin(angle), torch.full_like(angle, radius)), 1)
    turn = math.acos((math.cos(2 * math.pi / corners) + radius**2) / (1 + radius**2))
    return normals, (2 * math.pi - corners * turn) / (4 * math.pi)


def product(normals: Tensor, copies: int) -> Tensor:
    return rotated(torch.block_diag(*[normals] * copies))


def assert_measures(result: ConeMeasure, log_measure: float, *, within: float) -> None:
    assert abs(result.log_measure - log_measure) <= STANDARD_ERRORS * result.standard_error + 1e-9
    assert abs(result.log_measure - log_measure) <= within


@pytest.mark.parametrize("angle", [3.0, 1.0, 1e-3, 1e-9])
def test_a_wedge_has_its_angle(angle: float) -> None:
    normals = torch.tensor([[0.0, 1.0], [math.sin(angle), -math.cos(angle)]], dtype=torch.float64)
    result = gaussian_measure(normals, generator=generator())
    # −cos rounds to 1e-16, which is 1e-16/angle of the angle.
    assert math.exp(result.log_measure) == pytest.approx(angle / (2 * math.pi), rel=1e-14 + 1e-15 / angle, abs=0)


def test_runs_are_pooled_by_their_mean_with_its_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that find 1, 2 and 6 times a small number: the mean is 3 times it, the standard error √7/√3 times."""
    runs = torch.tensor([1.0, 2.0, 6.0]).double().log() - 700
    monkeypatch.setattr(multilevel, "log_estimates", lambda *_, **__: runs)
    monkeypatch.setattr(tilting, "log_estimates", lambda *_, **__: runs)
    for normals in (weyl_chamber(6), torch.cat([torch.eye(5), torch.eye(5) - 0.3 * torch.eye(5).roll(1, 0)]).double()):
        found = gaussian_measure(normals, generator=generator(), runs=3)
        assert found.log_measure == pytest.approx(math.log(3) - 700, rel=1e-14, abs=0)
        assert found.standard_error == pytest.approx(math.sqrt(7) / 3 / math.sqrt(3), rel=1e-12, abs=0)


@pytest.mark.parametrize(("corners", "radius"), [(3, 0.5), (12, 0.2), (7, 0.01), (500, 1.0)])
def test_a_cone_over_a_polygon_has_its_solid_angle(corners: int, radius: float) -> None:
    normals, measure = polygon(corners, radius)
    result = gaussian_measure(rotated(normals), generator=generator())
    # Girard's formula cancels 2π against the turns: its own error is 1e-15 · corners relative to a measure ≥ 2e-5.
    assert math.exp(result.log_measure) == pytest.approx(measure, rel=1e-9, abs=0)
    assert result.method == "angle"


@pytest.mark.parametrize("dimension", [5, 10, 20, 28, 60])
def test_a_weyl_chamber_has_measure_one_over_the_factorial(dimension: int) -> None:
    result = gaussian_measure(weyl_chamber(dimension), generator=generator())
    assert result.method == "minimax tilting"
    assert_measures(result, -math.lgamma(dimension + 1), within=0.01)


def test_redundant_constraints_of_a_weyl_chamber_are_dropped() -> None:
    eye = torch.eye(12, dtype=torch.float64)
    every_pair = torch.stack([eye[j] - eye[i] for j in range(12) for i in range(j)])
    assert len(irredundant(every_pair)) == 11
    result = gaussian_measure(rotated(every_pair), generator=generator())
    assert_measures(result, -math.lgamma(13), within=0.01)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 50])
def test_an_orthant_is_one_of_two_to_the_dimension(dimension: int) -> None:
    result = gaussian_measure(rotated(torch.eye(dimension, dtype=torch.float64)), generator=generator())
    assert_measures(result, -dimension * math.log(2), within=1e-9)


@pytest.mark.parametrize(("corners", "radius", "copies", "particles"), [(4, 0.3, 2, 2000), (12, 0.2, 3, 300)])
def test_a_product_of_polygons_by_splitting(corners: int, radius: float, copies: int, particles: int) -> None:
    normals, measure = polygon(corners, radius)
    result = gaussian_measure(product(normals, copies), generator=generator(), particles=particles)
    assert result.method == "multilevel splitting"
    # Eight runs of N particles have a relative error near sqrt(3 levels / 8N): at most 0.1 for 8 levels, N = 300.
    assert_measures(result, copies * math.log(measure), within=0.3)


@pytest.mark.parametrize("redundant", [False, True])
@pytest.mark.parametrize(("corners", "copies"), [(12, 12), (24, 10), (34, 13)])
def test_margins_where_many_facets_are_equally_near(corners: int, copies: int, redundant: bool) -> None:
    # A non-negative least-squares problem with many minimizers: SciPy's nnls ends too early in one of ten rotations
    # and more, and the cone was called empty.
    rows = torch.nn.functional.normalize(torch.block_diag(*[polygon(corners, 0.1)[0]] * copies), dim=1)
    if redundant:
        rows = torch.cat([rows, torch.nn.functional.normalize(rows + rows.roll(1, 0), dim=1)])
    margin = 0.1 / math.hypot(1, 0.1) / math.sqrt(copies)
    for seed in range(30):
        turned = rows @ torch.linalg.qr(normal(rows.shape[1], rows.shape[1], seed=seed)).Q
        direction = interior_direction(turned)
        assert direction is not None
        assert (turned @ direction).min().item() == pytest.approx(margin, rel=1e-10, abs=0)


def test_where_one_solver_gives_up_the_other_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    expected = interior_direction(weyl_chamber(6))
    monkeypatch.setattr(optimize, "nnls", gives_up)
    torch.testing.assert_close(interior_direction(weyl_chamber(6)), expected)


def test_what_the_solver_cannot_settle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = optimize.OptimizeResult(x=np.array([1.0, 0.0]))
    monkeypatch.setattr(optimize, "nnls", lambda *_, **__: (unfinished.x, 0.0))
    monkeypatch.setattr(optimize, "lsq_linear", lambda *_, **__: unfinished)
    with pytest.raises(ValueError, match="normals: rounding hides which of them bound the cone; leave out rows"):
        interior_direction(torch.eye(2, dtype=torch.float64))


def test_splitting_is_unbiased_with_few_particles() -> None:
    normals, measure = polygon(4, 0.2)
    rows = torch.nn.functional.normalize(product(normals, 2), dim=1)
    centre = interior_direction(rows)
    assert centre is not None
    logs = [multilevel.log_estimates(rows, centre, particles=40, runs=4, generator=generator(s)) for s in range(50)]
    ratios = (torch.stack(logs) - 2 * math.log(measure)).exp().mean(1)  # runs of one pilot share its levels
    # Levels chosen by each run's own particles would give 1.8 here.
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(50)
    assert ratios.std() / math.sqrt(50) < 0.08


def test_too_few_particles_are_refused() -> None:
    cone = product(polygon(12, 0.2)[0], 3)  # of measure 1e-6, which a single particle enters at the pilot's levels only
    with pytest.raises(ValueError, match="particles: none reached the cone"):
        gaussian_measure(cone, generator=generator(), particles=1, runs=2)


@pytest.mark.parametrize("points", [3, 100, 2**20 + 1])
def test_sobol_points_come_in_powers_of_two(points: int) -> None:
    with pytest.raises(ValueError, match=f"points: expected a power of two, which balances Sobol points, got {points}"):
        gaussian_measure(weyl_chamber(3), generator=generator(), points=points)


def test_splitting_and_tilting_agree() -> None:
    rows = torch.nn.functional.normalize(weyl_chamber(8), dim=1)
    centre = interior_direction(rows)
    assert centre is not None
    logs = multilevel.log_estimates(rows, centre, particles=2000, runs=8, generator=generator())
    tilted = gaussian_measure(rows, generator=generator())
    error = logs.exp().std().item() / math.sqrt(8)
    assert abs(logs.exp().mean().item() - math.exp(tilted.log_measure)) < STANDARD_ERRORS * error


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 8), dimension=st.integers(1, 4))
def test_small_cones_against_plain_sampling(seed: int, n: int, dimension: int) -> None:
    normals = normal(n, dimension, seed=seed)
    result = gaussian_measure(normals, generator=generator(seed), points=256, particles=500)
    samples = normal(100_000, dimension, seed=seed + 1)
    hits = (samples @ normals.T > 0).all(1).double().mean().item()
    p = math.exp(result.log_measure)
    # Six standard deviations of both: hypothesis draws the seeds.
    assert abs(hits - p) <= 6 * math.hypot(math.sqrt(p * (1 - p) / 1e5), p * result.standard_error) + 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 12), dimension=st.integers(1, 5))
def test_emptiness_and_margin_against_a_linear_programme(seed: int, n: int, dimension: int) -> None:
    rows = torch.nn.functional.normalize(normal(n, dimension, seed=seed), dim=1)
    # max t with f_i·u ≥ t, |u_j| ≤ 1: positive exactly where the open cone is not empty.
    objective = np.append(np.zeros(dimension), -1.0)
    programme = optimize.linprog(
        objective,
        A_ub=np.hstack((-rows.numpy(), np.ones((n, 1)))),
        b_ub=np.zeros(n),
        bounds=[(-1, 1)] * (dimension + 1),
    )
    direction = interior_direction(rows)
    # HiGHS works to 1e-7, so that far below that its answer says nothing.
    assert (direction is not None) == (-programme.fun > 1e-7)
    if direction is not None:
        margin = (rows @ direction).min()
        assert direction.norm().item() == pytest.approx(1.0)
        others = torch.nn.functional.normalize(direction + 0.01 * normal(1000, dimension, seed=seed + 1), dim=1)
        assert ((others @ rows.T).amin(1) <= margin + 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 30), dimension=st.integers(1, 5))
def test_irredundant_rows_generate_all_others_and_none_of_themselves(seed: int, n: int, dimension: int) -> None:
    normals = admissible_normals(normal(n, dimension, seed=seed))  # never empty: (0, 1) is inside
    kept = irredundant(normals)
    for row in range(n):
        others = normals[kept[kept != row]].T.numpy()
        residual = optimize.nnls(others, normals[row].numpy())[1] if others.size else normals[row].norm().item()
        assert (residual > 1e-9) == (row in kept)


def test_ties_leave_vertices_only() -> None:
    # A 3 × 3 grid with every point twice: edge midpoints tie with corners in their own direction.
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 2)
    assert irredundant(admissible_normals(grid.repeat(2, 1))).tolist() == [0, 2, 6, 8]


@pytest.mark.parametrize("thinness", [1e-3, 1e-6, 1e-8])
def test_a_thin_cone_is_measured(thinness: float) -> None:
    # A thin square pyramid times a wedge: five facets, in general position after the rotation.
    pyramid = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    pyramid[:, 2] = thinness
    normals = rotated(torch.block_diag(pyramid, torch.ones(1, 1, dtype=torch.float64)))
    measure = math.asin(thinness**2 / (1 + thinness**2)) / math.pi  # 4 asin(…) / 4π of the pyramid
    result = gaussian_measure(normals, generator=generator(), particles=500)
    assert_measures(result, math.log(measure / 2), within=0.5)


def test_more_data_never_enlarge_the_cone() -> None:
    normals = admissible_normals(normal(12, 2))
    logs = [gaussian_measure(normals[:n], generator=generator()).log_measure for n in range(1, 13)]
    assert all(after <= before + 1e-12 for before, after in zip(logs, logs[1:]))  # exact angles: rounding only


def test_lengths_and_copies_of_normals_do_not_matter() -> None:
    normals = admissible_normals(normal(9, 2))
    plain = gaussian_measure(normals, generator=generator())
    scaled = gaussian_measure(torch.cat((normals * 1e-100, normals * 1e5)), generator=generator())
    assert scaled.log_measure == pytest.approx(plain.log_measure, rel=1e-13, abs=0)


@pytest.mark.parametrize(
    "normals", [[[1.0], [-1.0]], [[0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]]
)
def test_an_empty_cone_is_reported(normals: list[list[float]]) -> None:
    rows = torch.tensor(normals, dtype=torch.float64)
    assert gaussian_measure(rows, generator=generator()) == ConeMeasure(-math.inf, 0.0, "empty")
    with pytest.raises(ValueError, match="the cone is empty"):
        irredundant(rows)


def test_a_cone_too_thin_for_its_angles_is_refused() -> None:
    # Features of both signs up to 1e5: rounding leaves redundant facets, with a "solid angle" larger than the sphere.
    g = generator()
    features = torch.rand(300, 2, generator=g, dtype=torch.float64).pow(-2) - 1
    features *= torch.randn(300, 2, generator=g, dtype=torch.float64).sign()
    with pytest.raises(ValueError, match="normals: the cone is too thin"):
        gaussian_measure(admissible_normals(features), generator=g)


def test_bad_normals_are_refused() -> None:
    with pytest.raises(ValueError, match="normals: expected floating-point numbers"):
        gaussian_measure(torch.ones(2, 2, dtype=torch.int64), generator=generator())
    with pytest.raises(ValueError, match="normals: row 1 is not finite"):
        gaussian_measure(torch.tensor([[1.0], [math.nan]], dtype=torch.float64), generator=generator())
    with pytest.raises(ValueError, match="normals: expected shape"):
        gaussian_measure(torch.ones(0, 3, dtype=torch.float64), generator=generator())


def test_the_generator_decides_the_estimate() -> None:
    normals, _ = polygon(5, 0.5)
    cone = product(normals, 2)
    first, second = (gaussian_measure(cone, generator=generator(3), particles=100) for _ in range(2))
    assert first == second
    assert first != gaussian_measure(cone, generator=generator(4), particles=100)


@pytest.mark.parametrize("position", [0.01, 0.5, 0.99])
def test_particles_move_within_their_chords(position: float) -> None:
    """Distances to the facets that are kept from axis to axis, against chords found anew by division at each."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator, dtype=torch.float64), dim=1)
    u = torch.randn(6, 200, generator=generator, dtype=torch.float64)
    heights = normals @ u
    offset = 0.1 - heights.amin(1, keepdim=True)  # facets moved, so that every particle is inside
    expected, uniforms = u.clone(), torch.full_like(u, position)
    for axis in range(6):
        rates = normals[:, axis, None] / (normals @ expected + offset)
        lower = torch.where(rates.amax(0) > 0, -1 / rates.amax(0), -math.inf)
        upper = torch.where(rates.amin(0) < 0, -1 / rates.amin(0), math.inf)
        ends = expected[axis] + lower, expected[axis] + upper
        expected[axis] = multilevel._truncated_normal(*ends, uniforms[axis])
    multilevel._move_along_axes(normals.T.contiguous(), heights + offset, u, uniforms)
    torch.testing.assert_close(u, expected, rtol=1e-9, atol=1e-9)
    assert float((normals @ u + offset).min()) > -1e-12
