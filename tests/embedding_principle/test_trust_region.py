"""Steps in a ball: minimizers, whatever the condition of the Hessian, with eigenvectors as the other channel."""

from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle import compiled_steps, trust_region
from embedding_principle.trust_region import descent_step, polishing_step, trust_region_step

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(size=st.integers(1, 6), radius=st.floats(1e-3, 1e3), generator=generators)
def test_the_trust_region_step_is_the_minimizer(size: int, radius: float, generator: torch.Generator) -> None:
    values, slope = 10 * normal(1, size, generator=generator), normal(1, size, generator=generator)
    step = trust_region_step(values, slope, torch.tensor([radius]).double())

    def model(s: Tensor) -> float:
        return float((slope * s + values * s**2 / 2).sum())

    # The multiplier by bisection: ‖s‖ decreases as the shift grows from the lowest eigenvalue's negative.
    low, high = max(0.0, -float(values.min())), 1e6
    for _ in range(200):
        middle = (low + high) / 2
        longer = float((slope / (values + middle)).norm()) > radius
        low, high = (middle, high) if longer else (low, middle)
    best = model(-slope / (values + high))
    assert float(step.norm()) <= 1.05 * radius  # the slack that is allowed
    # A step that is too long lowers the model no less; values + shift cancel to a few digits near the hard case.
    assert model(step) <= best + 1e-5 * abs(best)


# What a step takes of the largest decrease, at least: 1 − 0.02, and the rounding of a Hessian of condition 1e14.
TAKEN = 0.979


def symmetric(values: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symmetric matrices (S, P, P) with these eigenvalues, and their eigenvectors."""
    size = values.shape[-1]
    vectors = torch.linalg.qr(normal(len(values), size, size, generator=generator)).Q
    matrix = (vectors * values[:, None]) @ vectors.mT
    return (matrix + matrix.mT) / 2, vectors


def model(matrix: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
    return (gradient * step).sum(-1) + (step * (matrix @ step[..., None])[..., 0]).sum(-1) / 2


def graded(size: int, decades: float, negative: int, generator: torch.Generator) -> Tensor:
    """Eigenvalues over so many decades, the least in modulus first, of which so many are negative."""
    values = 10 ** torch.linspace(3 - decades, 3, size, dtype=torch.float64)
    signs = torch.ones(size, dtype=torch.float64)
    signs[torch.randperm(size, generator=generator)[:negative]] = -1
    return (values * signs).expand(20, size)


both_ways = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])


@both_ways
@pytest.mark.parametrize("decades", [1, 6, 10, 14])
@pytest.mark.parametrize("negative", [0, 1, 5])
@pytest.mark.parametrize("size", [5, 16, 40])
def test_a_descent_step_is_as_good_as_with_eigenvectors(
    size: int, negative: int, decades: float, compiled: bool
) -> None:
    generator = torch.Generator().manual_seed(size + negative)
    matrix, vectors = symmetric(graded(size, decades, negative, generator), generator)
    values, vectors = torch.linalg.eigh(matrix)
    for scale in (1e-8, 1e-2, 1.0, 1e6):
        gradient = scale * normal(20, size, generator=generator)
        radius = 10 ** normal(20, generator=generator)
        best = (vectors @ trust_region_step(values, (vectors.mT @ gradient[..., None])[..., 0], radius)[..., None])[
            ..., 0
        ]
        for guess in (torch.zeros(20), 10 ** normal(20, generator=generator)):
            step, decrease, shift = descent_step(matrix, gradient, radius, guess, compiled=compiled)
            assert (step.norm(dim=-1) <= 1.0501 * radius).all()
            # The other may be longer than the radius by a twentieth, which takes a tenth more at most.
            assert (decrease >= TAKEN / 1.1025 * -model(matrix, gradient, best)).all()
            torch.testing.assert_close(decrease, -model(matrix, gradient, step))
            assert (shift >= 0).all()


@both_ways
@pytest.mark.parametrize("slope", [0.0, 1e-300, 1e-12, 1e-6])
def test_hard_cases_go_down_the_lowest_eigenvector(slope: float, compiled: bool) -> None:
    """The gradient has next to no part along the one negative curvature, and the Newton step of the rest is short."""
    generator = torch.Generator().manual_seed(0)
    matrix, vectors = symmetric(torch.tensor([-1.0, 1.0, 1e3, 1e6]).double().expand(20, 4), generator)
    part = torch.tensor([slope, 0.1, 1.0, 1.0]).double()
    gradient, radius = vectors @ part, torch.ones(20).double()
    step, decrease, _ = descent_step(matrix, gradient, radius, torch.zeros(20), compiled=compiled)
    # Along the eigenvector −½ more than Newton's step takes, for which rounding of the gradient (1e-16) is enough.
    assert (decrease >= TAKEN * (0.5 * (1 - 0.05**2) + 0.05**2)).all()
    assert (step.norm(dim=-1) <= 1.0501).all()


@both_ways
def test_newtons_step_is_taken_where_it_is_inside(compiled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, _ = symmetric(torch.tensor([1e-9, 1e-3, 1.0, 1e3]).double().expand(20, 4), generator)
    step = 0.1 * normal(20, 4, generator=generator)
    gradient = -(matrix @ step[..., None])[..., 0]
    found, decrease, shift = descent_step(matrix, gradient, torch.ones(20), torch.full((20,), 0.3), compiled=compiled)
    # The condition number is 1e12: the step along the flattest direction keeps four digits, the decrease all.
    torch.testing.assert_close(found, step, rtol=0, atol=1e-3)
    torch.testing.assert_close(decrease, -(gradient * step).sum(-1) / 2, rtol=1e-9, atol=0)
    assert not shift.any()


@pytest.mark.parametrize(("compiled", "most"), [(False, 200), (True, 1)])
def test_few_factorizations_are_enough_and_eigenvectors_the_exception(
    compiled: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    whole = trust_region._spectral_descent
    monkeypatch.setattr(
        trust_region, "_spectral_descent", lambda *model: (rows.append(len(model[0])), whole(*model))[1]
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        matrix = normal(20, 8, 8, generator=generator)
        gradient = normal(20, 8, generator=generator)
        descent_step(matrix + matrix.mT, gradient, torch.ones(20), torch.zeros(20), compiled=compiled)
    # Of a thousand, from a guess of zero, which says nothing; 121 were seen, and none with compiled steps.
    assert sum(rows) < most


@both_ways
def test_a_model_that_overflows_has_no_step_of_a_finite_decrease(compiled: bool) -> None:
    matrix = torch.diag(torch.tensor([1e300, -1e300, 1.0]))[None].double()
    gradient = torch.tensor([[1e300, 1e300, 0.0]]).double()
    radius = torch.tensor([1e200]).double()
    assert not descent_step(matrix, gradient, radius, torch.zeros(1), compiled=compiled)[1].isfinite().any()


def test_compiled_steps_are_the_same_where_both_are_settled_by_factorizations() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 7, 33):
        half = normal(30, size, size, generator=generator)
        matrix = half @ half.mT / size + torch.eye(size, dtype=torch.float64)
        model = matrix, normal(30, size, generator=generator), 10 ** normal(30, generator=generator)
        plain, compiled = (descent_step(*model, torch.zeros(30), compiled=each) for each in (False, True))
        for one, other in zip(plain, compiled):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("size", "loops"), [(60, 1), (61, 0)])
def test_loops_are_for_few_parameters(size: int, loops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = MagicMock(wraps=compiled_steps.settle)
    monkeypatch.setattr(compiled_steps, "settle", steps)
    matrix, gradient = torch.eye(size, dtype=torch.float64)[None], torch.ones(1, size)
    step, _, _ = descent_step(matrix, gradient, torch.full((1,), 100.0), torch.zeros(1), compiled=True)
    torch.testing.assert_close(step, -gradient.double())
    assert steps.call_count == loops


def test_a_polishing_step_lowers_the_gradient_of_the_model_and_leaves_flat_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, vectors = symmetric(torch.tensor([0.0, -1.0, 2.0, 1e3]).double().expand(20, 4), generator)
    gradient = normal(20, 4, generator=generator)
    step, decrease = polishing_step(matrix, gradient, torch.full((20,), 1e3))
    assert float((vectors[..., 0] * step).sum(-1).abs().max()) < 1e-12
    remaining = gradient + (matrix @ step[..., None])[..., 0]
    torch.testing.assert_close(remaining.norm(dim=-1), (vectors[..., 0] * gradient).sum(-1).abs())
    torch.testing.assert_close(decrease, (gradient.square().sum(-1) - remaining.square().sum(-1)) / 2)
