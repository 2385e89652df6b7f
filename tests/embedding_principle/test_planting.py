import pytest
import torch

from embedding_principle.activations import elu, sigmoid, tanh
from embedding_principle.curvature.hessian import hessian
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import cross_entropy, squared_error


def planted(widths, activation, seed, n=60, **options):
    generator = torch.Generator().manual_seed(seed)
    network = Network.uniform(widths, activation)
    point = Parametrised(network, network.initial(generator, bias_scale=0.5))
    inputs = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    return plant(point, inputs, generator=generator, **options), point.theta


@pytest.mark.parametrize("loss", [squared_error, cross_entropy])
@pytest.mark.parametrize("activation", [tanh, sigmoid, elu])
@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 2, 2, 2)])
def test_the_point_is_critical_and_its_residuals_do_not_vanish(widths, activation, loss):
    for seed in range(5):
        risk, theta = planted(widths, activation, seed, loss=loss)
        residuals = risk.residuals(theta)
        assert risk.gradient(theta).norm() < 1e-14 * len(theta)
        assert residuals.norm() > 1e-3


def test_the_residual_is_the_root_mean_square():
    risk, theta = planted((1, 2, 1), tanh, 0, residual=0.25)
    assert risk(theta).sqrt().item() == pytest.approx(0.25, rel=1e-12, abs=0)


def test_small_residuals_make_minima_and_large_ones_saddles():
    small, theta = planted((2, 2, 1), tanh, 1, residual=1e-4)
    large, _ = planted((2, 2, 1), tanh, 1, residual=1e4)
    assert torch.linalg.eigvalsh(hessian(small, theta)).min() > 0
    assert torch.linalg.eigvalsh(hessian(large, theta)).min() < 0


def test_further_directions_are_left_out():
    inputs = torch.randn(40, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    network = Network.uniform((2, 2, 1), tanh)
    generator = torch.Generator().manual_seed(4)
    point = Parametrised(network, network.initial(generator))
    risk = plant(point, inputs, generator=generator, orthogonal_to=inputs.T)
    assert (inputs.T @ risk.residuals(point.theta)).abs().max() < 1e-13


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="give more than 7 / m_L samples"):
        planted((1, 2, 1), tanh, 0, n=7)


def test_cross_entropy_refuses_more_than_probabilities_allow():
    with pytest.raises(ValueError, match="at most 1"):
        planted((1, 2, 2), tanh, 0, loss=cross_entropy, residual=1.5)
