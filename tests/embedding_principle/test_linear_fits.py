import pytest
import torch

from embedding_principle.activations import identity
from embedding_principle.critical_points import search
from embedding_principle.datasets import iris
from embedding_principle.linear_fits import affine_fit, least_squares, low_rank_fit
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.training.ensembles import GradientDescent, ensemble, train


def error(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return ((outputs - targets) ** 2).sum(-1).mean().item()


def test_the_affine_fit_is_the_minimum_that_the_search_finds():
    flowers = iris()
    risk = Risk(Network((4, 3)), flowers.inputs, flowers.targets)
    found = search(risk, torch.zeros(1, 15, dtype=torch.float64))
    torch.testing.assert_close(least_squares(flowers.inputs, flowers.targets).theta, found.theta[0], rtol=0, atol=1e-9)
    expected = risk.at(found.theta[0]).forward(flowers.inputs)
    torch.testing.assert_close(affine_fit(flowers.inputs, flowers.targets), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_linear_network_of_that_width_is_trained_to_the_low_rank_fit(rank):
    flowers = iris()
    expected = error(low_rank_fit(flowers.inputs, flowers.targets, rank), flowers.targets)
    risk = Risk(Network.uniform((4, rank, 3), identity), flowers.inputs, flowers.targets)
    starts = ensemble(risk.network, torch.Generator().manual_seed(0), 8)
    run = train(risk, starts, GradientDescent(0.03), steps=8000)
    # Baldi and Hornik: no other local minima, so every network ends there; the last digits come slowly, as the
    # measurements are correlated.
    torch.testing.assert_close(run.risk[:, -1], torch.full((8,), expected, dtype=torch.float64), rtol=1e-3, atol=0)
    assert (run.risk >= expected * (1 - 1e-12)).all()


def test_ranks_are_nested_and_the_fit_with_full_rank_is_the_affine_one():
    flowers = iris()
    fits = [low_rank_fit(flowers.inputs, flowers.targets, rank) for rank in range(4)]
    errors = [error(fit, flowers.targets) for fit in fits]
    assert errors[0] == pytest.approx(2 / 3)
    assert errors[0] > errors[1] > errors[2]
    for rank, fit in enumerate(fits[:3]):
        assert torch.linalg.matrix_rank(fit - fit.mean(0), atol=1e-10) == rank
    torch.testing.assert_close(fits[3], affine_fit(flowers.inputs, flowers.targets), rtol=0, atol=1e-12)
