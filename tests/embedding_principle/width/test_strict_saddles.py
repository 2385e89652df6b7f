"""Minima that one neuron more opens: by the full Hessian, by automatic differentiation and by built residuals."""

import itertools

import pytest
import torch
from torch import Tensor

from embedding_principle.activations import Activation, elu, sigmoid, tanh
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.datasets import wine
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error
from embedding_principle.width import strict_saddles as module
from embedding_principle.width.splitting import split
from embedding_principle.width.strict_saddles import NoStrictSaddleError, second_order_part, strict_saddle_embedding

CASES: list[tuple[tuple[int, ...], Activation, Loss]] = [
    ((1, 2, 1), tanh, squared_error),
    ((3, 2, 2, 1), elu, squared_error),
    ((3, 2, 3), sigmoid, cross_entropy),
]


def planted(
    widths: tuple[int, ...],
    activation: Activation,
    loss: Loss,
    residual: float,
    inputs: Tensor | None = None,
    seed: int = 3,
) -> tuple[Risk, Tensor]:
    g, network = torch.Generator().manual_seed(seed), Network.uniform(widths, activation)
    point = Parametrised(network, network.initial(g, bias_scale=0.5))
    if inputs is None:
        inputs = torch.randn(3 * network.n_parameters + 20, widths[0], generator=g, dtype=torch.float64)
    return plant(point, inputs, generator=g, residual=residual, loss=loss), point.theta


@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
@pytest.mark.parametrize("null", [True, False])
def test_the_direction_leads_down(widths: tuple[int, ...], activation: Activation, loss: Loss, null: bool) -> None:
    risk, theta = planted(widths, activation, loss, 0.1)
    saddle = strict_saddle_embedding(risk, theta, null=null)
    wide, point = risk.on(saddle.point.network), saddle.point.theta
    assert (saddle.neuron is None) == null
    assert wide.gradient(point).norm() < 1e-13
    torch.testing.assert_close(wide(point), risk(theta))
    matrix = differentiated_hessian(wide, point[None])[0]
    curvature = float(saddle.direction @ matrix @ saddle.direction)
    assert curvature == pytest.approx(saddle.curvature, rel=1e-6, abs=0)
    assert float(torch.linalg.eigvalsh(matrix)[0]) <= curvature < 0
    # Central differences of the gradient, which err by the step squared times a fourth derivative of order one.
    sides = [wide.gradient(point + sign * 1e-5 * saddle.direction) for sign in (1, -1)]
    found = float((sides[0] - sides[1]) @ saddle.direction) / 2e-5
    assert found == pytest.approx(curvature, rel=1e-3, abs=1e-10)


def test_of_all_that_is_tried_the_most_negative_curvature_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = set()
    for seed, sign in itertools.product(range(6), (1, -1)):
        risk, theta = planted((1, 1, 1), tanh, squared_error, 0.1, seed=seed)
        outputs = risk.network.forward(theta, risk.inputs)
        # The other sign of the residuals turns Q over.
        risk = Risk(risk.network, risk.inputs, outputs + sign * (risk.targets - outputs))
        tried = []
        for shares in ((0.5, 0.5), (2.0, -1.0)):
            wide = split(risk.at(theta), 0, 0, shares)
            if float(torch.linalg.eigvalsh(hessian(risk.on(wide.network), wide.theta))[0]) < -1e-9:
                tried.append(shares)
        saddle = strict_saddle_embedding(risk, theta, null=False)
        assert saddle.shares in tried
        each = [module._by_splitting(risk, theta, 0, 0, shares, 0.0) for shares in tried]
        assert saddle.curvature == min(one.curvature for one in each if one)
        chosen.add(saddle.shares)
    assert len(chosen) == 2
    monkeypatch.setattr(module, "_by_null_neuron", lambda *_: pytest.fail("null neurons were not asked for"))
    strict_saddle_embedding(risk, theta, null=False)


def test_wine() -> None:
    risk, theta = planted((13, 1, 3), sigmoid, squared_error, 0.1, wine().inputs)
    assert strict_saddle_embedding(risk, theta).curvature < 0


@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
def test_without_residuals_there_is_no_second_order_part_and_no_way_down(
    widths: tuple[int, ...], activation: Activation, loss: Loss
) -> None:
    risk, theta = planted(widths, activation, loss, 0.0)
    assert second_order_part(risk, theta).norm() < 1e-13
    with pytest.raises(NoStrictSaddleError, match="has negative curvature"):
        strict_saddle_embedding(risk, theta)


@pytest.mark.parametrize(("widths", "activation", "loss"), CASES)
def test_second_order_part_is_the_hessian_of_the_outputs_at_fixed_residuals(
    widths: tuple[int, ...], activation: Activation, loss: Loss
) -> None:
    risk, theta = planted(widths, activation, loss, 0.5)
    residuals = risk.residuals(theta) / len(risk.inputs)
    expected = torch.func.hessian(lambda t: (residuals * risk.network.forward(t, risk.inputs)).sum())(theta)
    torch.testing.assert_close(second_order_part(risk, theta), expected, atol=1e-13, rtol=1e-9)
    assert expected.norm() > 1e-6 * hessian(risk, theta).norm()
