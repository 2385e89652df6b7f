"""Risks, residuals and gradients, through autograd, closed forms and finite differences."""

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from embedding_principle.activations import named, tanh
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.inertia import inertia
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
    assert risk(theta).item() == pytest.approx(by_hand, rel=1e-13, abs=0)


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


# Digits where the network is sure of a class: against fifty-digit arithmetic.

SURE = [[40.0, 0.0, -3.0], [0.0, 40.0, 39.5], [300.0, -300.0, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [-9.0, 9.0, 8.0]]
OUTPUTS = torch.tensor(SURE, dtype=torch.float64).repeat_interleave(3, 0)
LABELS = torch.eye(3, dtype=torch.float64).repeat(len(SURE), 1)


def exactly(outputs: list[float], label: int) -> tuple[list[mp.mpf], list[mp.mpf], list[list[mp.mpf]]]:
    """Loss, residuals and curvature of one sample."""
    powers = [mp.exp(mp.mpf(f)) for f in outputs]
    p = [power / sum(powers) for power in powers]
    residuals = [p[c] - (c == label) for c in range(len(p))]
    return [-mp.log(p[label])], residuals, [[p[c] * ((c == d) - p[d]) for d in range(len(p))] for c in range(len(p))]


def relative_error(values: torch.Tensor, order: int) -> float:
    """Of loss (0), residuals (1) or curvature (2) at `OUTPUTS`, in units of ε (1 + largest difference of outputs)."""
    worst = 0.0
    with mp.workdps(600):
        for outputs, label, given_values in zip(OUTPUTS.tolist(), LABELS.argmax(-1).tolist(), values):
            # The exponential of a difference d enlarges its rounding d times.
            unit = 2.0**-52 * (1 + max(outputs) - min(outputs))
            expected = torch.tensor([float(e) for e in mp.matrix(exactly(outputs, label)[order])], dtype=torch.float64)
            expected = expected.reshape(given_values.shape)
            errors = (given_values - expected).abs() / torch.where(expected == 0, 1.0, expected.abs())
            worst = max(worst, float(errors.max()) / unit)
    return worst


@pytest.mark.parametrize("order", [0, 1, 2])
def test_cross_entropy_keeps_its_digits_where_it_is_small(order: int) -> None:
    of_order = (cross_entropy.value, cross_entropy.residuals, cross_entropy.curvature)[order]
    assert relative_error(of_order(OUTPUTS, LABELS), order) <= 8


def test_autograd_of_cross_entropy_keeps_them_too() -> None:
    outputs = OUTPUTS.clone().requires_grad_(True)
    (residuals,) = torch.autograd.grad(cross_entropy.value(outputs, LABELS).sum(), outputs, create_graph=True)
    assert relative_error(residuals.detach(), 1) <= 8
    rows = [torch.autograd.grad(residuals[:, c].sum(), outputs, retain_graph=True)[0] for c in range(3)]
    assert relative_error(torch.stack(rows, 1), 2) <= 8


def test_targets_that_are_no_labels_have_the_residuals_of_the_softmax() -> None:
    g = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(50, 4, generator=g, dtype=torch.float64)
    targets = torch.softmax(torch.randn(50, 4, generator=g, dtype=torch.float64), -1)
    expected = torch.softmax(outputs, -1) - targets
    torch.testing.assert_close(cross_entropy.residuals(outputs, targets), expected, rtol=0, atol=1e-15)


def test_a_convex_softmax_problem_has_no_negative_eigenvalue() -> None:
    """Two classes, p(1 − p) = 4e-18: the Hessian is that times two positive semidefinite blocks of rank one each."""
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    risk = Risk(Network((1, 2)), x, torch.eye(2, dtype=torch.float64), cross_entropy)
    point = torch.tensor([20.0, -20.0, 0.0, 0.0], dtype=torch.float64)
    matrix = hessian(risk, point)
    p = math.exp(-40)
    expected = torch.kron(torch.eye(2), torch.tensor([[p, -p], [-p, p]])).double()
    torch.testing.assert_close(matrix, expected, rtol=1e-13, atol=0)
    assert inertia(matrix).counts == (0, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_other_float_types_become_float64(loss: Loss, dtype: torch.dtype) -> None:
    network, x, theta = Network.uniform((2, 3, 2), tanh), torch.eye(2, dtype=dtype), torch.ones(17, dtype=dtype)
    risk, exact = Risk(network, x, x, loss), Risk(network, x.double(), x.double(), loss)
    assert risk.inputs.dtype == risk.targets.dtype == torch.float64
    for of_theta in (Risk.__call__, Risk.gradient, Risk.residuals):
        assert torch.equal(of_theta(risk, theta), of_theta(exact, theta.double()))
    assert risk.at(theta).theta.dtype == torch.float64


@pytest.mark.parametrize(("dtype", "remedy"), [(torch.int64, "convert with"), (torch.complex128, "take real numbers")])
def test_other_numbers_are_refused(dtype: torch.dtype, remedy: str) -> None:
    labels = torch.eye(2, dtype=dtype)
    with pytest.raises(ValueError, match=f"targets: expected floating-point numbers, got {dtype}; {remedy}"):
        Risk(Network((2, 2)), torch.eye(2).double(), labels, cross_entropy)


def test_bad_data_are_named() -> None:
    network = Network.uniform((2, 3, 1), tanh)
    x, y = torch.zeros(4, 2).double(), torch.zeros(4, 1).double()
    with pytest.raises(ValueError, match=r"inputs: expected shape \(n, 2\), got \(4, 3\)"):
        Risk(network, torch.zeros(4, 3).double(), y)
    with pytest.raises(ValueError, match=r"targets: expected shape \(4, 1\), got \(3, 1\)"):
        Risk(network, x, y[:3])
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match="inputs: row 2 is not finite"):
        Risk(network, x, y)
    with pytest.raises(ValueError, match="targets: cross-entropy needs rows that are probabilities"):
        Risk(network, torch.zeros(4, 2).double(), y, cross_entropy)
    with pytest.raises(ValueError, match="targets: cross-entropy needs rows that are probabilities"):
        Risk(Network((2, 2)), torch.zeros(4, 2), torch.tensor([2.0, -1.0]).expand(4, 2), cross_entropy)


def test_a_risk_on_another_network_keeps_data_and_loss() -> None:
    risk = random_risk(4, cross_entropy)
    found = risk.on(Network((2, 3)))
    assert found.network.widths == (2, 3)
    assert found.loss is cross_entropy
    assert torch.equal(found.inputs, risk.inputs)
    assert torch.equal(found.targets, risk.targets)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_forward_derivatives_of_the_loss_are_along_the_tangent(loss: Loss) -> None:
    risk = random_risk(5, loss)
    outputs = risk.network.forward(theta_of(risk, 6), risk.inputs).requires_grad_(True)
    tangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with forward_ad.dual_level():
        value = loss.value(forward_ad.make_dual(outputs, tangent), risk.targets)
        along = forward_ad.unpack_dual(value).tangent
    torch.testing.assert_close(along, (tangent * loss.residuals(outputs, risk.targets)).sum(-1))
