"""Inertia from structure, against the eigenvalues of the Hessian that is formed in full."""

from functools import partial

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, leaky_relu, relu, tanh
from embedding_principle.critical_points import CriticalPoints, search
from embedding_principle.depth.lifting import Insertion, collapse, lift, occupied_pieces
from embedding_principle.hessians import UnclearInertiaError, hessian, inertia
from embedding_principle.inertias import Counts, lifted_inertia, shallow_inertia
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def random_risk(network: Network, generator: torch.Generator, n: int) -> Risk:
    x = torch.randn(n, network.widths[0], generator=generator, dtype=torch.float64)
    return Risk(network, x, torch.randn(n, 1, generator=generator, dtype=torch.float64))


def both_ways(risk: Risk, theta: torch.Tensor) -> tuple[Counts, Counts]:
    """By structure and by eigenvalues; random points where either finds no clear sign are left out."""
    try:
        return shallow_inertia(risk, theta), inertia(hessian(risk, theta)).counts
    except UnclearInertiaError:
        assume(False)
        raise


@pytest.fixture(scope="module")
def wave() -> Risk:
    """A one-dimensional problem whose minima for narrow tanh networks are finite."""
    x = torch.linspace(-3, 3, 20, dtype=torch.float64)[:, None]
    return Risk(Network.uniform((1, 2, 1), tanh), x, torch.sin(2 * x) + 0.3 * x)


@pytest.fixture(scope="module")
def critical(wave: Risk) -> CriticalPoints:
    starts = wave.network.initial(torch.Generator().manual_seed(0), scale=1.0, bias_scale=1.0, batch=(40,))
    return search(wave, starts)


@given(
    inputs=st.integers(1, 4),
    width=st.integers(1, 8),
    n=st.integers(1, 30),
    name=st.sampled_from(sorted(ACTIVATIONS)),
    generator=generators,
)
def test_shallow_inertia_equals_the_signs_of_the_eigenvalues(
    inputs: int, width: int, n: int, name: str, generator: torch.Generator
) -> None:
    risk = random_risk(Network.uniform((inputs, width, 1), ACTIVATIONS[name]), generator, n)
    theta = risk.network.initial(generator, bias_scale=0.5)
    by_structure, by_eigenvalues = both_ways(risk, theta)
    assert by_structure == by_eigenvalues


@given(width=st.integers(1, 4), copies=st.integers(1, 3), generator=generators)
def test_shallow_inertia_at_a_perfect_fit_counts_the_rank_of_the_jacobian(
    width: int, copies: int, generator: torch.Generator
) -> None:
    """Without residuals H = J Jᵀ; neurons with equal incoming weights make its kernel larger."""
    network = Network.uniform((1, width + copies, 1), tanh)
    theta = network.initial(generator, scale=2.0, bias_scale=1.0)
    layer = network.layers(theta)[0]
    layer.weight[width:], layer.bias[width:] = layer.weight[0].clone(), layer.bias[0].clone()
    x = torch.linspace(-2, 2, 60, dtype=torch.float64)[:, None]
    risk = Risk(network, x, network.forward(theta, x))
    by_structure, by_eigenvalues = both_ways(risk, theta)
    assert by_structure == by_eigenvalues
    assert by_structure[0] == 0
    assert by_structure[1] >= 3 * copies  # each of (w, b, v) of a copy acts on f like that of the original


def test_shallow_inertia_refuses_an_eigenvalue_at_the_threshold() -> None:
    """At a perfect fit with outgoing weight v the eigenvalues of (w, b) shrink like v²."""
    network = Network.uniform((1, 1, 1), tanh)
    theta = torch.tensor([1.0, 0.0, 5e-5, 0.0]).double()
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    risk = Risk(network, x, network.forward(theta, x))
    with pytest.raises(UnclearInertiaError, match="eigenvalues lie within a factor 10 of the zero threshold"):
        shallow_inertia(risk, theta)


@pytest.mark.parametrize("widths", [(1, 1), (1, 2, 2), (1, 2, 2, 1)], ids=str)
def test_shallow_inertia_refuses_other_architectures(widths: tuple[int, ...]) -> None:
    network = Network.uniform(widths, tanh)
    risk = Risk(network, torch.ones(3, 1).double(), torch.ones(3, widths[-1]).double())
    with pytest.raises(ValueError, match="needs widths"):
        shallow_inertia(risk, torch.zeros(network.n_parameters).double())


def test_shallow_inertia_refuses_a_batch(wave: Risk) -> None:
    with pytest.raises(ValueError, match=r"theta: expected shape \(7,\), got \(2, 7\)"):
        shallow_inertia(wave, torch.zeros(2, 7).double())


def test_shallow_inertia_refuses_derivatives_that_are_not_finite(wave: Risk) -> None:
    with pytest.raises(ValueError, match="not finite"):
        shallow_inertia(wave, torch.full((7,), torch.nan).double())


def test_shallow_inertia_at_critical_points(wave: Risk, critical: CriticalPoints) -> None:
    found = critical.distinct()
    assert found
    for index in found:
        theta = critical.theta[index]
        assert shallow_inertia(wave, theta) == inertia(hessian(wave, theta)).counts


@pytest.mark.parametrize("activation", [relu, leaky_relu()], ids=lambda activation: activation.name)
@pytest.mark.parametrize(("position", "width"), [(0, 1), (1, 2), (1, 4)])
def test_lifted_inertia_is_that_of_the_deeper_hessian(
    wave: Risk, critical: CriticalPoints, position: int, width: int, activation: object
) -> None:
    insertion = Insertion(position, width, activation)
    for index in critical.distinct():
        theta = critical.theta[index]
        lifted = lift(wave.network, theta, wave.inputs, [insertion], generator=torch.Generator().manual_seed(1))
        pieces = occupied_pieces(lifted.network, lifted.theta, wave.inputs, position)
        below = partial(collapse, lifted.network, position=position, slope=pieces.slope, intercept=pieces.intercept)
        differential = torch.func.jacrev(below)(lifted.theta)
        counts = lifted_inertia(hessian(wave, theta), differential)
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
