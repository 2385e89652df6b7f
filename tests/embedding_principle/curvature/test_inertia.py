"""Inertia against congruences, and from structure against the eigenvalues of the Hessian that is formed in full."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, tanh
from embedding_principle.critical_points import CriticalPoints, search
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.inertia import Counts, UnclearInertiaError, inertia, one_hidden_layer_inertia
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def random_risk(network: Network, generator: torch.Generator, n: int) -> Risk:
    x = torch.randn(n, network.widths[0], generator=generator, dtype=torch.float64)
    return Risk(network, x, torch.randn(n, 1, generator=generator, dtype=torch.float64))


def both_ways(risk: Risk, theta: torch.Tensor) -> tuple[Counts, Counts]:
    """By structure and by eigenvalues; random points where either finds no clear sign are left out."""
    try:
        return one_hidden_layer_inertia(risk, theta), inertia(hessian(risk, theta)).counts
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
def test_the_structured_inertia_equals_the_signs_of_the_eigenvalues(
    inputs: int, width: int, n: int, name: str, generator: torch.Generator
) -> None:
    risk = random_risk(Network.uniform((inputs, width, 1), ACTIVATIONS[name]), generator, n)
    theta = risk.network.initial(generator, bias_scale=0.5)
    by_structure, by_eigenvalues = both_ways(risk, theta)
    assert by_structure == by_eigenvalues


@given(width=st.integers(1, 4), copies=st.integers(1, 3), generator=generators)
def test_the_structured_inertia_at_a_perfect_fit_counts_the_rank_of_the_jacobian(
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


def test_the_structured_inertia_refuses_an_eigenvalue_at_the_threshold() -> None:
    """At a perfect fit with outgoing weight v the eigenvalues of (w, b) shrink like v²."""
    network = Network.uniform((1, 1, 1), tanh)
    theta = torch.tensor([1.0, 0.0, 5e-5, 0.0]).double()
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    risk = Risk(network, x, network.forward(theta, x))
    with pytest.raises(UnclearInertiaError, match="eigenvalues lie within a factor 10 of the zero threshold"):
        one_hidden_layer_inertia(risk, theta)


@pytest.mark.parametrize("widths", [(1, 1), (1, 2, 2), (1, 2, 2, 1)], ids=str)
def test_the_structured_inertia_refuses_other_architectures(widths: tuple[int, ...]) -> None:
    network = Network.uniform(widths, tanh)
    risk = Risk(network, torch.ones(3, 1).double(), torch.ones(3, widths[-1]).double())
    with pytest.raises(ValueError, match="needs widths"):
        one_hidden_layer_inertia(risk, torch.zeros(network.n_parameters).double())


def test_the_structured_inertia_refuses_a_batch(wave: Risk) -> None:
    with pytest.raises(ValueError, match=r"theta: expected shape \(7,\), got \(2, 7\)"):
        one_hidden_layer_inertia(wave, torch.zeros(2, 7).double())


def test_the_structured_inertia_refuses_derivatives_that_are_not_finite(wave: Risk) -> None:
    with pytest.raises(ValueError, match="not finite"):
        one_hidden_layer_inertia(wave, torch.full((7,), torch.nan).double())


def test_the_structured_inertia_at_critical_points(wave: Risk, critical: CriticalPoints) -> None:
    found = critical.distinct()
    assert found
    for index in found:
        theta = critical.theta[index]
        assert one_hidden_layer_inertia(wave, theta) == inertia(hessian(wave, theta)).counts


@given(negative=st.integers(0, 4), zero=st.integers(0, 4), positive=st.integers(0, 4), generator=generators)
def test_inertia_is_invariant_under_congruence(
    negative: int, zero: int, positive: int, generator: torch.Generator
) -> None:
    """Sylvester's law: In(SᵀDS) = In(D) for invertible S; here S is orthogonal times a positive diagonal."""
    size = negative + zero + positive
    signs = torch.tensor([-1.0] * negative + [0.0] * zero + [1.0] * positive).double()
    orthogonal = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    mixed = orthogonal * (0.5 + torch.rand(size, generator=generator, dtype=torch.float64))
    if size:
        assert inertia(mixed.mT @ torch.diag(signs) @ mixed).counts == (negative, zero, positive)


def test_inertia_refuses_an_eigenvalue_between_zero_and_not_zero() -> None:
    with pytest.raises(UnclearInertiaError, match="the sign of an eigenvalue is not clear"):
        inertia(torch.diag(torch.tensor([1.0, 2e-9, 0.9e-9]).double()))


def test_inertia_refuses_entries_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        inertia(torch.tensor([[torch.nan]]).double())


def test_inertia_of_zero_is_all_zero() -> None:
    found = inertia(torch.zeros(3, 3).double())
    assert (found.counts, found.gap) == ((0, 3, 0), float("inf"))
