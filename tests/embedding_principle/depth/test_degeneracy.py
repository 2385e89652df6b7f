"""The inertia of lifted critical points: Sylvester's law where Dφ is onto, interlacing where it is not."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle.activations import Activation, elu, hard_tanh, leaky_relu, relu, selu, tanh
from embedding_principle.critical_points import CriticalPoints, search
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.curvature.inertia import UnclearInertiaError, inertia
from embedding_principle.depth.degeneracy import differential, lifted_inertia
from embedding_principle.depth.lifting import Insertion, lift, violations
from embedding_principle.networks import Network, Parametrised, with_ones
from embedding_principle.planting import plant
from embedding_principle.risks import Risk

LIFTABLE = (relu, leaky_relu(0.1), hard_tanh, elu, selu)
# Nonzero eigenvalues of a lifted Hessian stay above σ_min(Dφ)² times the shallow ones, about 1e-9 ‖H‖ here.
LIFTED_THRESHOLD = 1e-11


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def critical(widths: tuple[int, ...], seed: int, *, size: float = 3.0) -> tuple[Risk, Tensor]:
    """A random θ and targets f − r that make it critical: the residuals r are orthogonal to the Jacobian's columns.

    Large residuals make the Hessian indefinite.
    """
    g, network = generator(seed), Network.uniform(widths, tanh)
    n = 2 * network.n_parameters
    x = torch.randn(n, widths[0], generator=g, dtype=torch.float64)
    theta = network.initial(g, scale=1.0, bias_scale=0.5)
    return plant(Parametrised(network, theta), x, generator=g, residual=size), theta


every_piece = pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Insertion], int]:
    """Widths, one or two insertions of ReLU layers, and a seed."""
    widths = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=4)))
    insertions, current = [], list(widths)
    for _ in range(draw(st.integers(1, 2))):
        q = draw(st.integers(0, len(current) - 2))
        k = min(current[q : q + 2]) + draw(st.integers(0, 2))
        insertions.append(Insertion(q, k, relu))
        current.insert(q + 1, k)
    return widths, insertions, draw(st.integers(0, 2**31))


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_the_deep_hessian_is_the_shallow_one_seen_through_the_differential(
    activation: Activation, case: tuple[tuple[int, ...], list[Insertion], int]
) -> None:
    widths, insertions, seed = case
    insertions = [replace(insertion, activation=activation) for insertion in insertions]
    risk, theta = critical(widths, seed)
    lifted = lift(risk.at(theta), risk.inputs, insertions, generator=generator(seed))
    outer = differential(lifted, risk.inputs, [i.position for i in insertions])
    expected = outer.mT @ hessian(risk, theta) @ outer
    found = differentiated_hessian(risk.on(lifted.network), lifted.theta[None])[0]
    # Slopes of 0.1 twice in a row enlarge B and the rounding errors by a hundred.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_zero_eigenvalues_are_added_and_nothing_else(
    activation: Activation, case: tuple[tuple[int, ...], list[Insertion], int]
) -> None:
    widths, insertions, seed = case
    insertions = [replace(insertion, activation=activation) for insertion in insertions]
    risk, theta = critical(widths, seed)
    lifted = lift(risk.at(theta), risk.inputs, insertions, generator=generator(seed))
    values = torch.linalg.eigvalsh(hessian(risk, theta))
    # A nearly flat direction of θ itself (a chain of small weights has some) drowns in rounding below.
    assume(values.abs().min() > 1e-6 * values.abs().max())
    negative = int((values < 0).sum())
    added = lifted.network.n_parameters - risk.network.n_parameters
    deep = inertia(hessian(risk.on(lifted.network), lifted.theta), relative_threshold=LIFTED_THRESHOLD)
    assert deep.counts == (negative, added, len(values) - negative)


@given(seed=st.integers(0, 2**31))
def test_eigenvalues_change_by_factors_between_the_squared_singular_values(seed: int) -> None:
    """Ostrowski's theorem: the i-th nonzero eigenvalues differ by a factor in [σ_min(Dφ)², σ_max(Dφ)²]."""
    risk, theta = critical((2, 2, 1), seed)
    lifted = lift(risk.at(theta), risk.inputs, [Insertion(1, 3, relu)], generator=generator(seed))
    scales = torch.linalg.svdvals(differential(lifted, risk.inputs, [1]))
    shallow = torch.linalg.eigvalsh(hessian(risk, theta))
    deep = torch.linalg.eigvalsh(hessian(risk.on(lifted.network), lifted.theta))
    kept = deep[deep.abs().topk(len(shallow)).indices.sort().values]
    factors = kept / shallow
    assert (factors > scales[-1] ** 2 * (1 - 1e-6)).all()
    assert (factors < scales[0] ** 2 * (1 + 1e-6)).all()


def low_rank(seed: int) -> tuple[Risk, Tensor]:
    """A critical point of NN(3, 3) whose weight matrix has rank 1: all targets lie on one line."""
    g = generator(seed)
    x = torch.randn(12, 3, generator=g, dtype=torch.float64)
    line = torch.randn(3, generator=g, dtype=torch.float64)
    slope = torch.randn(3, generator=g, dtype=torch.float64)
    noise = torch.randn(12, generator=g, dtype=torch.float64)
    basis, _ = torch.linalg.qr(with_ones(x))
    targets = torch.outer(x @ slope + noise - basis @ (basis.mT @ noise), line)
    theta = torch.cat([torch.outer(line, slope).flatten(), torch.zeros(3, dtype=torch.float64)])
    return Risk(Network((3, 3)), x, targets), theta


@pytest.mark.parametrize("ranks", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("activation", [relu, leaky_relu(0.1), elu, selu])
def test_singular_members_have_the_asked_ranks_and_defect(ranks: tuple[int, int], activation: object) -> None:
    risk, theta = low_rank(0)
    insertion = Insertion(0, 4, activation, ranks)
    lifted = lift(risk.at(theta), risk.inputs, [insertion], generator=generator(1))
    assert violations(risk.at(theta), lifted, risk.inputs, insertion) == ()
    first, second = lifted.layers()
    assert (int(torch.linalg.matrix_rank(first.weight)), int(torch.linalg.matrix_rank(second.weight))) == ranks
    outer = differential(lifted, risk.inputs, [0])
    assert int(torch.linalg.matrix_rank(outer)) == risk.network.n_parameters - (3 - ranks[0]) * (3 - ranks[1])


@pytest.mark.parametrize("seed", range(8))
def test_a_positive_definite_hessian_loses_as_many_eigenvalues_as_the_differential_misses(seed: int) -> None:
    risk, theta = low_rank(seed)
    lifted = lift(risk.at(theta), risk.inputs, [Insertion(0, 3, relu, (2, 1))], generator=generator(seed))
    shallow = hessian(risk, theta)
    outer = differential(lifted, risk.inputs, [0])
    deep = inertia(hessian(risk.on(lifted.network), lifted.theta), relative_threshold=LIFTED_THRESHOLD)
    assert inertia(shallow).counts == (0, 0, 12)
    assert deep.counts == lifted_inertia(shallow, outer) == (0, 14, 10)


def test_a_strict_saddle_can_lose_its_negative_curvature_at_a_singular_member() -> None:
    """θ = 0 of a 1-1-1 tanh network, lifted with A = B = 0."""
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    risk, theta = Risk(Network.uniform((1, 1, 1), tanh), x, x), torch.zeros(4, dtype=torch.float64)
    lifted = lift(risk.at(theta), x, [Insertion(0, 1, relu, (0, 0))], generator=generator(0))
    deep = risk.on(lifted.network)
    assert deep.gradient(lifted.theta).norm() < 1e-15  # rounding in the sum of seven residuals
    assert inertia(hessian(risk, theta)).counts == (1, 1, 2)
    assert inertia(hessian(deep, lifted.theta)).counts == (0, 5, 1)


def test_the_differential_is_refused_where_a_neuron_leaves_its_piece() -> None:
    point = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 0.5, 2.0, -1.0]).double())
    with pytest.raises(ValueError, match="position 0 is not linear"):
        differential(point, torch.tensor([[-1.0], [1.0]]).double(), [0])


@pytest.fixture(scope="module")
def wave() -> Risk:
    """A one-dimensional problem whose minima for narrow tanh networks are finite."""
    x = torch.linspace(-3, 3, 20, dtype=torch.float64)[:, None]
    return Risk(Network.uniform((1, 2, 1), tanh), x, torch.sin(2 * x) + 0.3 * x)


@pytest.fixture(scope="module")
def found(wave: Risk) -> CriticalPoints:
    starts = wave.network.initial(torch.Generator().manual_seed(0), scale=1.0, bias_scale=1.0, batch=(40,))
    return search(wave, starts)


@pytest.mark.parametrize("activation", [relu, leaky_relu()], ids=lambda activation: activation.name)
@pytest.mark.parametrize(("position", "width"), [(0, 1), (1, 2), (1, 4)])
def test_lifted_inertia_is_that_of_the_deeper_hessian(
    wave: Risk, found: CriticalPoints, position: int, width: int, activation: object
) -> None:
    insertion = Insertion(position, width, activation)
    for index in found.distinct():
        theta = found.theta[index]
        lifted = lift(wave.at(theta), wave.inputs, [insertion], generator=torch.Generator().manual_seed(1))
        counts = lifted_inertia(hessian(wave, theta), differential(lifted, wave.inputs, [position]))
        assert counts == inertia(hessian(wave.on(lifted.network), lifted.theta)).counts
        negative, zero, positive = inertia(hessian(wave, theta)).counts
        added = lifted.network.n_parameters - wave.network.n_parameters
        assert counts == (negative, zero + added, positive)


def test_lifted_inertia_restricts_to_the_image_where_the_differential_is_not_onto() -> None:
    shallow = torch.diag(torch.tensor([-1.0, 2.0, 3.0]).double())
    differential = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).double()
    assert lifted_inertia(shallow, differential) == (0, 1, 1)
    assert inertia(differential.T @ shallow @ differential).counts == (0, 1, 1)


def test_lifted_inertia_refuses_an_unclear_rank() -> None:
    with pytest.raises(UnclearInertiaError, match="the rank of the differential is not clear"):
        lifted_inertia(torch.eye(2).double(), torch.diag(torch.tensor([1.0, 1e-9]).double()))
