"""Extreme eigenvalues from Hessian-vector products, against the eigenvalues of the Hessian that is formed in full."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import gelu, tanh
from embedding_principle.curvature import extreme
from embedding_principle.curvature.extreme import extreme_eigenvalues, hessian_vector_product
from embedding_principle.curvature.hessian import hessian
from embedding_principle.networks import Network
from embedding_principle.risks import Risk, cross_entropy, squared_error

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def random_risk(network: Network, generator: torch.Generator, loss: object = squared_error) -> Risk:
    x = torch.randn(20, network.widths[0], generator=generator, dtype=torch.float64)
    y = torch.softmax(torch.randn(20, network.widths[-1], generator=generator, dtype=torch.float64), dim=-1)
    return Risk(network, x, y, loss)


@pytest.mark.parametrize("epsilon", [None, 1e-3], ids=["plain", "batch norm"])
@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@settings(max_examples=5)  # each takes hundreds of Hessian-vector products
@given(generator=generators)
def test_both_ends_agree_with_all_eigenvalues(epsilon: float | None, loss: object, generator: torch.Generator) -> None:
    network = Network.uniform((3, 3, 3, 2), tanh, batch_norm_epsilon=epsilon)
    risk = random_risk(network, generator, loss)
    theta = network.initial(generator, bias_scale=0.5)
    ends = extreme_eigenvalues(risk, theta, generator=generator, count=2)
    expected = torch.linalg.eigvalsh(hessian(risk, theta))
    # The tolerance asked for is 1e-8 of a shift of twice the norm; the error bound of a symmetric matrix holds exactly
    # but for rounding, 1e-13 of the norm at this size.
    norm = float(expected.abs().max())
    assert ends.error <= 1e-7 * norm
    assert (ends.smallest - expected[:2]).abs().max() <= ends.error + 1e-13 * norm
    assert (ends.largest - expected[-2:]).abs().max() <= ends.error + 1e-13 * norm
    assert ends.products >= 4


def test_the_error_is_that_of_the_worst_eigenpair(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four vectors is turned away from its eigenvector, in either order."""
    risk = random_risk(Network.uniform((3, 3, 2), tanh), torch.Generator().manual_seed(0))
    theta = risk.network.initial(torch.Generator().manual_seed(1), bias_scale=0.5)
    solve = extreme.eigsh
    for spoilt in range(4):

        def spoiling(*arguments: Any, spoilt: int = spoilt, **options: Any) -> Any:
            found = solve(*arguments, **options)
            if not options.get("return_eigenvectors", True):
                return found
            values, vectors = found
            vectors[:, spoilt] = vectors[:, 0] + vectors[:, 3]
            return values, vectors

        monkeypatch.setattr(extreme, "eigsh", spoiling)
        ends = extreme_eigenvalues(risk, theta, generator=torch.Generator().manual_seed(2), count=2)
        assert ends.error > 0.1 * float(hessian(risk, theta).norm())


@given(generator=generators)
def test_products_agree_with_the_closed_form(generator: torch.Generator) -> None:
    network = Network.uniform((3, 6, 2), gelu)
    risk = random_risk(network, generator)
    theta = network.initial(generator)
    vector = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    # Both sum a few hundred rounded products; relative to the largest entry that stays far below 1e-12.
    expected = hessian(risk, theta) @ vector
    product = hessian_vector_product(risk, theta)
    for _ in range(2):  # the graph is kept for a second product
        assert (product(vector) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_too_few_parameters_are_refused() -> None:
    risk = random_risk(Network((1, 1)), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"P > 2, got \(2,\)"):
        extreme_eigenvalues(risk, torch.zeros(2).double(), generator=torch.Generator().manual_seed(0))
