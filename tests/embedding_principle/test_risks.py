"""Risks, residuals and gradients, through autograd, closed forms and finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding_principle.activations import named, tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

LOSSES = [squared_error, cross_entropy]


def random_risk(seed: int, loss: Loss, name: str = "tanh", widths: tuple[int, ...] = (2, 3, 3)) -> Risk:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(6, widths[0], generator=g, dtype=torch.float64)
    y = torch.randn(6, widths[-1], generator=g, dtype=torch.float64)
    return Risk(Network.uniform(widths, named(name)), x, torch.softmax(y, -1) if loss is cross_entropy else y, loss)


def theta_of(risk: Risk, seed: int, batch: tuple[int, ...] = ()) -> torch.Tensor:
    return risk.network.initial(torch.Generator().manual_seed(seed), bias_scale=1.0, batch=batch)


def test_the_risk_is_the_mean_over_samples_and_the_sum_over_outputs() -> None:
    risk = random_risk(0, squared_error)
    theta = theta_of(risk, 1)
    outputs = risk.network.forward(theta, risk.inputs)
    by_hand = sum(
        (outputs[i, j] - risk.targets[i, j]).item() ** 2 for i in range(len(outputs)) for j in range(outputs.shape[1])
    ) / len(outputs)
    assert risk(theta).item() == pytest.approx(by_hand, rel=1e-13)


def test_cross_entropy_agrees_with_torch() -> None:
    risk = random_risk(0, cross_entropy)
    theta = theta_of(risk, 1)
    outputs = risk.network.forward(theta, risk.inputs)
    expected = torch.nn.functional.cross_entropy(outputs, risk.targets)
    torch.testing.assert_close(risk(theta), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_derivatives_of_the_loss_agree_with_autograd(loss: Loss) -> None:
    risk = random_risk(2, loss)
    outputs = risk.network.forward(theta_of(risk, 3), risk.inputs)

    def total(f: torch.Tensor) -> torch.Tensor:
        return loss.value(f, risk.targets).sum()

    torch.testing.assert_close(loss.residuals(outputs, risk.targets), torch.func.grad(total)(outputs))
    second = torch.func.hessian(total)(outputs)
    for i in range(len(outputs)):
        torch.testing.assert_close(loss.curvature(outputs, risk.targets)[i], second[i, :, i, :])


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@given(seed=st.integers(0, 2**31))
def test_the_gradient_agrees_with_central_differences(loss: Loss, seed: int) -> None:
    risk = random_risk(seed, loss)
    theta = theta_of(risk, seed + 1)
    h = 1e-5
    steps = h * torch.eye(len(theta), dtype=torch.float64)
    differences = (risk(theta + steps) - risk(theta - steps)) / (2 * h)
    # Rounding: a few ε · R / h; truncation: h² times third derivatives, which grow with the cube of the weights.
    scale = 1 + risk(theta).item() + theta.abs().max().item() ** 4
    torch.testing.assert_close(risk.gradient(theta), differences, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_batch_of_gradients_is_a_loop(loss: Loss) -> None:
    risk = random_risk(4, loss)
    theta = theta_of(risk, 5, batch=(3, 2))
    gradient = risk.gradient(theta)
    assert gradient.shape == theta.shape
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(gradient[i, j], torch.func.grad(risk)(theta[i, j]), rtol=1e-12, atol=1e-14)


def test_least_squares_is_critical_for_a_linear_network() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, k, generator=g, dtype=torch.float64) for k in (3, 2))
    design = torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, y).solution
    theta = torch.cat([solution[:3].T.flatten(), solution[3]])
    assert Risk(Network((3, 2)), x, y).gradient(theta).norm().item() < 1e-14


def test_at_zero_parameters_cross_entropy_is_the_log_of_the_class_number() -> None:
    risk = random_risk(0, cross_entropy)
    assert risk(torch.zeros(risk.network.n_parameters, dtype=torch.float64)).item() == pytest.approx(math.log(3))


def test_bad_data_are_named() -> None:
    network = Network.uniform((2, 3, 1), tanh)
    x, y = torch.zeros(4, 2).double(), torch.zeros(4, 1).double()
    with pytest.raises(ValueError, match=r"inputs: expected shape \(4, 2\), got \(4, 3\)"):
        Risk(network, torch.zeros(4, 3).double(), y)
    with pytest.raises(ValueError, match=r"targets: expected shape \(4, 1\), got \(3, 1\)"):
        Risk(network, x, y[:3])
    with pytest.raises(ValueError, match="inputs: expected float64"):
        Risk(network, x.float(), y)
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match="inputs: sample 2 is not finite"):
        Risk(network, x, y)
    with pytest.raises(ValueError, match="targets: cross-entropy needs rows that are probabilities"):
        Risk(network, torch.zeros(4, 2).double(), y, cross_entropy)
