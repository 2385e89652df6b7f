"""Critical points: what is called critical is, what is critical is accepted, and drift is told from both."""

from collections.abc import Callable
from unittest.mock import MagicMock

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle import compiled_steps, critical_points
from embedding_principle.activations import (
    Activation,
    elu,
    gelu,
    identity,
    leaky_relu,
    relu,
    selu,
    sigmoid,
    softplus,
    tanh,
)
from embedding_principle.critical_points import (
    CriticalPoints,
    NotCriticalError,
    critical_inertia,
    search,
)
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.inertia import inertia
from embedding_principle.curvature.kinks import KinkError
from embedding_principle.datasets import iris, one_dimensional
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.networks import Network, with_ones
from embedding_principle.risks import Risk, cross_entropy
from embedding_principle.trust_region import Array, Rows

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator | int) -> Tensor:
    generator = torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def line(name: str, width: int, activation: Activation = tanh) -> Risk:
    data = one_dimensional(name)
    return Risk(Network.uniform((1, width, 1), activation), data.inputs, data.targets)


def starts(risk: Risk, count: int, seed: int = 0) -> Tensor:
    return normal(count, risk.network.n_parameters, generator=seed)


def verdict(risk: Risk, theta: Tensor) -> set[str]:
    """What the search says of these points when it may not move them."""
    return set(search(risk, theta, descend=False, max_iterations=0).status)


@pytest.fixture(scope="module")
def minima() -> CriticalPoints:
    """Width 2 on y = sin 2x + 0.3x: about one start in six ends in the minimum, the others in valleys to infinity."""
    risk = line("wave", 2)
    return search(risk, starts(risk, 48))


@pytest.fixture(scope="module")
def saddles() -> CriticalPoints:
    risk = line("wave", 2)
    return search(risk, starts(risk, 48), descend=False)


# Closed forms.


@given(inputs=st.integers(1, 3), outputs=st.integers(1, 3), extra=st.integers(1, 10), generator=generators)
def test_linear_regression_is_solved_in_closed_form(
    inputs: int, outputs: int, extra: int, generator: torch.Generator
) -> None:
    n = inputs + 1 + extra
    x, y = normal(n, inputs, generator=generator), normal(n, outputs, generator=generator)
    risk = Risk(Network((inputs, outputs)), x, y)
    found = search(risk, normal(3, risk.network.n_parameters, generator=generator))
    extended = torch.cat([x, torch.ones(n, 1).double()], dim=1)
    best = torch.linalg.lstsq(extended, y).solution
    (layer,) = risk.network.layers(found.theta)
    solution = torch.cat([layer.weight, layer.bias[..., None]], dim=-1).mT
    assert set(found.status) == {"converged"}
    # The error is round-off times the condition number of the normal equations.
    conditioning = float(torch.linalg.cond(extended)) ** 2
    assert float((solution - best).abs().max()) <= 1e-14 * conditioning * (1 + float(best.abs().max()))


def affine(scale: float, slope: float) -> Risk:
    """NN(1, 1) on inputs of this scale: the risk is a quadratic with its minimum at (slope, 1)."""
    x = scale * torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    return Risk(Network((1, 1)), x, slope * x + 1)


def test_a_small_gradient_far_from_its_zero_is_not_critical() -> None:
    """Curvature 1e-8 along the weight: the gradient is below the tolerance, the minimum a step of length one away."""
    risk, there = affine(1e-4, 1.0), torch.tensor([[1.0, 1.0]]).double()
    away = there + torch.tensor([[1.0, 0.0]])
    assert risk.gradient(away).norm() < 1e-7
    assert search(risk, there, tolerance=1e-7, max_iterations=0).status == ("converged",)
    assert search(risk, away, tolerance=1e-7, max_iterations=0).status == ("drifting",)


def test_beyond_its_radius_a_search_neither_moves_nor_converges() -> None:
    risk = affine(1.0, 3.0)
    found = search(risk, torch.tensor([[3.0, 1.0], [30.0, 0.0], [0.5, 0.5]]).double(), radius=2.0)
    assert found.status == ("drifting",) * 3
    assert found.iterations[:2].tolist() == [0, 0]
    assert 2.0 < found.theta[2].norm() < 2.5
    assert search(risk, torch.tensor([[0.5, 0.5]]).double(), radius=4.0).status == ("converged",)


def test_a_search_that_is_still_growing_when_it_ends_drifts() -> None:
    """The minimum lies at a hundred, and steps are a tenth of ‖θ‖; from nearer the search goes inwards and stalls."""
    risk = affine(1.0, 100.0)
    outwards, inwards = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[500.0, 1.0]]).double()
    assert search(risk, outwards, max_iterations=20).status == ("drifting",)
    assert search(risk, inwards, max_iterations=5).status == ("stalled",)


def test_deep_linear_saddle_has_the_closed_form_of_baldi_and_hornik() -> None:
    # y = 2x + 1 through x ↦ w₂(w₁x + b₁) + b₂: besides the minima the one critical risk is that of the constant,
    # 4 · mean(x²), taken where w₁ = w₂ = b₁ = 0 or on a line through it.
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    risk = Risk(Network.uniform((1, 1, 1), identity), x, 2 * x + 1)
    near_zero = 0.05 * starts(risk, 8)
    found = search(risk, near_zero, descend=False)
    assert set(found.status) == {"converged"}
    torch.testing.assert_close(found.risk, torch.full((8,), 4 * float((x**2).mean())).double())
    assert all(float(torch.linalg.eigvalsh(hessian(risk, theta))[0]) < -0.1 for theta in found.theta)
    assert float(search(risk, near_zero).risk.max()) < 1e-24  # descent passes by the same saddle and fits


# What is called critical is.


def independent_gradient(risk: Risk, theta: Tensor) -> Tensor:
    """∇R of a one-hidden-layer tanh network by torch.func on a formula written out here."""
    x, y, width = risk.inputs[:, 0], risk.targets[:, 0], risk.network.widths[1]

    def value(flat: Tensor) -> Tensor:
        w, b, a, c = flat[:width], flat[width : 2 * width], flat[2 * width : 3 * width], flat[3 * width]
        return ((torch.tanh(x[:, None] * w + b) @ a + c - y) ** 2).mean()

    gradient: Tensor = torch.func.grad(value)(theta)
    return gradient


@pytest.mark.parametrize("descend", [True, False])
@pytest.mark.parametrize("name", ["wave", "sin"])
def test_converged_points_have_a_vanishing_independent_gradient(name: str, descend: bool) -> None:
    risk = line(name, 2)
    found = search(risk, starts(risk, 32), descend=descend)
    # Of 256 starts 14 % converge at least (descent on "wave"): none of 32 would have a chance below 1 %.
    assert found.converged.any()
    for theta in found.theta[found.converged]:
        assert float(independent_gradient(risk, theta).norm()) <= 1e-12


def exact_gradient(risk: Risk) -> Callable[..., list[mpmath.mpf]]:
    """∇R of a width-1 tanh network in mpmath's current precision; the data are exact binary floats."""
    samples = [(mpmath.mpf(x), mpmath.mpf(y)) for x, y in zip(risk.inputs[:, 0].tolist(), risk.targets[:, 0].tolist())]

    def gradient(*theta: mpmath.mpf) -> list[mpmath.mpf]:
        w, b, a, c = theta
        total = [mpmath.mpf(0)] * 4
        for x, y in samples:
            h = mpmath.tanh(w * x + b)
            pull = 2 * (a * h + c - y) / len(samples)
            slope = pull * a * (1 - h**2)
            total = [t + part for t, part in zip(total, (slope * x, slope, pull * h, pull))]
        return total

    return gradient


@pytest.mark.parametrize("descend", [True, False])
def test_a_critical_point_of_exact_arithmetic_lies_beside_each_converged_one(descend: bool) -> None:
    risk = line("wave", 1)
    found = search(risk, starts(risk, 12), descend=descend)
    assert found.converged.any()
    for index in found.distinct():
        eigenvalues = torch.linalg.eigvalsh(hessian(risk, found.theta[index]))
        if float(eigenvalues.abs().min()) < 1e-9:
            continue  # Newton's method needs an isolated point; degenerate ones have tests of their own
        with mpmath.workdps(50):
            near = mpmath.findroot(exact_gradient(risk), found.theta[index].tolist(), tol=1e-60)
            distance = max(abs(exact - float(given)) for exact, given in zip(near, found.theta[index].tolist()))
        # Round-off of the gradient (1e-16) over the smallest curvature (1e-3 here), with a decade to spare.
        assert distance < 1e-12


def test_merging_neurons_drift(minima: CriticalPoints) -> None:
    # w₁ − w₂ → 0 while the outgoing weights grow with opposite signs: the infimum 0.0815 is that of a network with the
    # neuron (α + βx) tanh′(wx + b), and no parameters reach it. (A second such valley ends at 0.1717.)
    valley = ~minima.converged
    assert {minima.status[i] for i in valley.nonzero()[:, 0].tolist()} == {"drifting"}
    first, last = line("wave", 2).network.layers(minima.theta[valley])
    assert float(last.weight.abs().amin()) > 100
    slopes = first.weight[..., 0] * last.weight.sign()[..., 0, :]  # tanh is odd: neurons are alike up to a sign
    assert float((slopes.sum(-1) / slopes.abs().sum(-1)).abs().max()) < 0.01
    assert float(minima.risk[valley].min()) < 0.09 < float(minima.risk[minima.converged].min())


def step_through_a_sample() -> Risk:
    """The best fit is a step whose middle sample lies on the slope: infinitely steep, never reached."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    y = torch.tensor([-1, -1, 0.3, 1, 1], dtype=torch.float64)[:, None]
    return Risk(Network.uniform((1, 1, 1), tanh), x, y)


@pytest.mark.parametrize("descend", [True, False])
def test_where_the_model_overflows_a_search_ends_and_says_so(descend: bool) -> None:
    risk = line("wave", 2)
    found = search(risk, torch.ones(2, risk.network.n_parameters), ridge=1e300, descend=descend)
    assert set(found.status) == {"stalled"}
    assert bool(found.theta.isfinite().all())


def test_a_step_that_becomes_infinitely_steep_drifts() -> None:
    risk = step_through_a_sample()
    found = search(risk, starts(risk, 16))
    assert set(found.status) == {"drifting"}
    # All else says "critical": gradient, Newton step and risk are round-off, and one sample keeps its slope.
    assert float(found.gradient_norm.max()) < 1e-12
    assert float(found.newton_step.min()) < 1e-10
    slopes = tanh.first(risk.network.trace(found.theta, risk.inputs).preactivations[0])
    assert float(slopes.amax((-1, -2)).min()) > 0.5


def test_a_gentle_slope_without_critical_point_is_not_called_critical() -> None:
    # Far out on the valley the gradient is below any fixed tolerance; the Newton step is still of the order of ‖θ‖.
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    risk = Risk(Network.uniform((1, 1, 1), softplus), x, torch.zeros(5, 1).double())
    theta = torch.tensor([[0.0, -29.0, 1.0, 0.0]]).double()  # softplus(−29) = 3e-13
    assert float(risk.gradient(theta).norm()) < 1e-11
    assert "converged" not in search(risk, theta, max_iterations=0, tolerance=1e-11).status


def test_the_inertia_of_a_point_that_is_not_critical_is_refused(minima: CriticalPoints) -> None:
    risk, theta = line("wave", 2), minima.lowest()
    assert float(minima.risk[minima.converged].min()) == pytest.approx(float(risk(theta)), rel=1e-12, abs=0)
    assert critical_inertia(risk, theta).counts == inertia(hessian(risk, theta)).counts == (0, 0, 7)
    away = theta + 1e-3
    with pytest.raises(
        NotCriticalError, match=r"the gradient norm is .*, above the tolerance 1e-12; polish it with"
    ) as no:
        critical_inertia(risk, away)
    assert f"{float(risk.gradient(away).norm()):.1e}" in str(no.value)
    # The remedy that it names.
    polished = search(risk, away[None], descend=False).lowest()
    assert critical_inertia(risk, polished).counts == (0, 0, 7)


def test_the_inertia_in_a_valley_is_refused_though_the_gradient_vanishes() -> None:
    """On the way to an infinitely steep step, and a step of length one from the minimum of a curvature of 1e-8."""
    steep, gentle = step_through_a_sample(), affine(1e-4, 1.0)
    end = search(steep, starts(steep, 1)).theta[0]
    for risk, theta, tolerance in ((steep, end, 1e-12), (gentle, torch.tensor([2.0, 1.0]), 1e-7)):
        assert float(risk.gradient(theta).norm()) <= tolerance
        with pytest.raises(NotCriticalError, match=r"the Newton step that .* or a neuron is saturated: .* a ridge"):
            critical_inertia(risk, theta, tolerance=tolerance)


def test_the_inertia_of_lifted_points_is_that_of_their_hessian(minima: CriticalPoints) -> None:
    risk = line("wave", 2)
    generator = torch.Generator().manual_seed(1)
    lifted = lift(risk.at(minima.lowest()), risk.inputs, [Insertion(1, 4, relu)], generator=generator)
    found = critical_inertia(risk.on(lifted.network), lifted.theta)
    # Seven positive eigenvalues below stay, and the law of degeneracy gives the rest zeros.
    assert found.counts == (0, lifted.network.n_parameters - 7, 7)


def test_the_inertia_at_a_kink_or_beyond_float64_is_refused() -> None:
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    risk = Risk(Network.uniform((1, 1, 1), relu), x, torch.tensor([[-0.5], [0.5], [1.0]]).double())
    with pytest.raises(KinkError):
        critical_inertia(risk, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    smooth = Risk(Network.uniform((1, 1, 1), tanh), x, x)
    with pytest.raises(NotCriticalError, match="theta: the risk or a derivative overflows there; scale the data"):
        critical_inertia(smooth, torch.full((4,), 1e200).double())


def test_a_search_that_drifts_suggests_a_ridge_and_says_what_lifting_loses() -> None:
    risk = step_through_a_sample()
    with pytest.raises(ValueError, match=r"none of 16 led to .* \(16 drifting: .* a ridge .* lifting keeps .* without"):
        search(risk, starts(risk, 16)).lowest()
    # The remedy, and its price: the lifted point is critical for the risk, or for none.
    theta = search(risk, starts(risk, 16), ridge=1e-3).lowest()
    assert critical_inertia(risk, theta, ridge=1e-3).counts == (0, 0, 4)
    with pytest.raises(NotCriticalError):
        critical_inertia(risk, theta)
    generator = torch.Generator().manual_seed(0)
    lifted = lift(risk.at(theta), risk.inputs, [Insertion(1, 2, relu)], generator=generator)
    with pytest.raises(NotCriticalError, match=r"search\(risk, theta\[None\], ridge=0.001, descend=False\)"):
        critical_inertia(risk.on(lifted.network), lifted.theta, ridge=1e-3)


def test_the_hessian_with_a_ridge_is_that_of_the_penalized_risk() -> None:
    risk, ridge = line("wave", 2), 0.3
    theta = starts(risk, 1)[0]
    expected = torch.func.hessian(lambda theta: risk(theta) + ridge * (theta**2).sum())(theta)
    torch.testing.assert_close(hessian(risk, theta, ridge=ridge), expected, rtol=1e-12, atol=1e-12)


def test_a_point_where_the_risk_falls_along_a_bias_is_not_called_critical() -> None:
    """With autograd's choice σ′(0) = 0 the gradient vanishes; the one-sided slope along the bias is −1/3."""
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    risk = Risk(Network.uniform((1, 1, 1), relu), x, torch.tensor([[-0.5], [0.5], [1.0]]).double())
    theta = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()
    assert float(risk.gradient(theta).norm()) == 0.0
    step = 1e-6 * torch.tensor([0.0, 1.0, 0.0, 0.0]).double()
    assert float(risk(theta + step) - risk(theta)) / 1e-6 == pytest.approx(-1 / 3, abs=1e-5)
    assert set(search(risk, theta).status) == {"at a kink"}


def test_kinks_that_do_not_matter_leave_a_point_critical() -> None:
    """A sample that is fitted, a neuron that is silent, and an ELU, whose first derivative is continuous."""
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    fitted = Risk(Network.uniform((1, 1, 1), relu), x, relu(x))
    assert verdict(fitted, torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()) == {"converged"}
    # Σ r = Σ r x₊ = 0 with the outgoing weight zero: residuals (1, −1, 0).
    silent = Risk(Network.uniform((1, 1, 1), relu), x, torch.tensor([[1.0], [-1.0], [0.0]]).double())
    assert verdict(silent, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double()) == {"converged"}


@pytest.mark.parametrize(("activation", "status"), [(elu, "converged"), (selu, "at a kink")], ids=["elu", "selu"])
def test_a_jump_of_the_second_derivative_leaves_a_point_critical(activation: Activation, status: str) -> None:
    """Five samples, one at z = 0, and residuals orthogonal to the four derivatives of f with autograd's σ′(0)."""
    x = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]]).double()
    slopes = activation.first(x)
    derivatives = torch.cat([slopes * x, slopes, activation(x), torch.ones_like(x)], dim=1)
    residuals = torch.linalg.svd(derivatives).U[:, -1:]
    assert float(residuals[2].abs()) > 0.01  # the sample on the kink transmits
    risk = Risk(Network.uniform((1, 1, 1), activation), x, activation(x) + residuals)
    assert verdict(risk, torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()) == {status}


def test_starts_of_another_float_type_are_converted() -> None:
    risk = line("sin", 1)
    begin = starts(risk, 3).float()
    single, double = (search(risk, theta, max_iterations=20) for theta in (begin, begin.double()))
    assert torch.equal(single.theta, double.theta)


# What is critical is accepted.


@pytest.mark.parametrize("activation", [relu, leaky_relu(), identity], ids=lambda activation: activation.name)
@pytest.mark.parametrize("position", [0, 1])
def test_lifted_points_are_accepted(
    minima: CriticalPoints, saddles: CriticalPoints, activation: Activation, position: int
) -> None:
    shallow = line("wave", 2)
    generator = torch.Generator().manual_seed(1)
    # Saddles with a silent neuron lie on plateaus of their own; the proper saddle of width 2 has the risk 0.168.
    proper = [i for i in saddles.distinct() if float(saddles.risk[i]) < 0.2]
    assert proper
    for theta in (minima.theta[minima.distinct()[0]], saddles.theta[proper[0]]):
        lifted = lift(
            shallow.at(theta).expand(20), shallow.inputs, [Insertion(position, 4, activation)], generator=generator
        )
        assert verdict(shallow.on(lifted.network), lifted.theta) == {"converged"}
        moved = lifted.theta + 1e-6 * normal(*lifted.theta.shape, generator=generator)
        assert "converged" not in verdict(shallow.on(lifted.network), moved)


def test_split_neurons_are_accepted(minima: CriticalPoints) -> None:
    narrow = line("wave", 2)
    first, last = narrow.network.layers(minima.theta[minima.distinct()[0]])
    shares = torch.tensor([-0.5, 0.3, 0.99, 1.7]).double()  # of the second neuron's outgoing weight
    kept, shared = last.weight[0, 0].expand(4), last.weight[0, 1]
    outgoing = torch.stack([kept, (1 - shares) * shared, shares * shared], dim=1)
    incoming = torch.cat([first.weight[[0, 1, 1], 0], first.bias[[0, 1, 1]]]).expand(4, 6)
    wide = torch.cat([incoming, outgoing, last.bias.expand(4, 1)], dim=1)
    assert verdict(line("wave", 3), wide) == {"converged"}


def test_a_dead_relu_neuron_may_rest() -> None:
    x = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    risk = Risk(Network.uniform((1, 2, 1), relu), x, x**2)
    theta = torch.tensor([[1.0, -3.0, 1.0, -1.0, 0.5, 2.0, 0.0]]).double()  # the second neuron is off on all of x
    found = search(risk, theta)
    assert found.status == ("converged",)
    # The live neuron stays linear, so the risk is that of the regression line.
    line_fit = torch.linalg.lstsq(with_ones(x), x**2).solution
    residual = with_ones(x) @ line_fit - x**2
    assert float(found.risk[0]) == pytest.approx(float((residual**2).mean()), rel=1e-12, abs=0)


def test_a_minimum_of_order_four_is_accepted() -> None:
    # x ↦ a·w·x with target 0: R = mean(x²)(aw)² + …, at the origin of order four in (w, a) and degenerate twice over.
    x = torch.tensor([[-1.0], [1.0]]).double()
    risk = Risk(Network.uniform((1, 1, 1), identity), x, torch.zeros(2, 1).double())
    found = search(risk, starts(risk, 8))
    assert set(found.status) == {"converged"}
    assert verdict(risk, torch.zeros(1, 4).double()) == {"converged"}


def test_scale_invariant_weights_of_batch_normalization_are_accepted() -> None:
    # Behind batch normalization scale and bias of the incoming weights change nothing: flat directions all over.
    data = one_dimensional("sin")
    risk = Risk(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1e-5), data.inputs, data.targets)
    begin = risk.network.initial(torch.Generator().manual_seed(0), batch=(6,))
    found = search(risk, begin, descend=False, max_iterations=100)
    assert found.converged.any()
    for theta in found.theta[found.converged]:
        curvatures = torch.linalg.eigvalsh(hessian(risk, theta)).abs()
        # Both neurons' biases and, up to the ε of batch normalization, both scales.
        assert int((curvatures < 1e-4 * curvatures.max()).sum()) >= 4


@pytest.mark.parametrize("width", [1, 2])
def test_saddles_on_iris_reach_round_off(width: int) -> None:
    flowers = iris()
    risk = Risk(Network.uniform((4, width, 3), sigmoid), flowers.inputs, flowers.targets)
    found = search(risk, starts(risk, 12), descend=False, max_iterations=100)
    assert found.converged.any()
    assert float(found.gradient_norm[found.converged].max()) <= 1e-13
    for theta in found.theta[found.converged]:
        assert float(torch.linalg.eigvalsh(hessian(risk, theta))[0]) < 0


def test_minima_reach_round_off(minima: CriticalPoints) -> None:
    assert float(minima.gradient_norm[minima.converged].max()) <= 1e-13
    assert [round(float(minima.risk[i]), 6) for i in minima.distinct()] == [0.160145]


def test_cross_entropy_of_overlapping_classes_has_its_minimum() -> None:
    data = one_dimensional("two classes")
    risk = Risk(Network((1, 2)), data.inputs, data.targets, cross_entropy)
    found = search(risk, starts(risk, 6))
    assert set(found.status) == {"converged"}
    assert len(found.distinct()) == 1  # convex


# Ridge, batches and options.


@pytest.mark.parametrize("activation", [tanh, gelu], ids=lambda activation: activation.name)
def test_with_a_ridge_every_start_converges(activation: Activation) -> None:
    risk, ridge = line("wave", 3, activation), 1e-2
    found = search(risk, starts(risk, 32), ridge=ridge, max_iterations=100)
    assert set(found.status) == {"converged"}

    def penalized(theta: Tensor) -> Tensor:
        return risk(theta) + ridge * (theta**2).sum()

    gradients = torch.func.vmap(torch.func.grad(penalized))(found.theta)
    assert float(gradients.norm(dim=-1).max()) <= 1e-12
    torch.testing.assert_close(found.risk, penalized_rows(penalized, found.theta))


def penalized_rows(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.stack([function(row) for row in theta])


@settings(max_examples=5)
@given(generator=generators)
def test_the_order_of_starts_does_not_matter(generator: torch.Generator) -> None:
    risk = line("sin", 2)
    begin = normal(6, risk.network.n_parameters, generator=generator)
    order = torch.randperm(6, generator=generator)
    straight = search(risk, begin, ridge=1e-2)
    permuted = search(risk, begin[order], ridge=1e-2)
    # Rounding differs with the place in a batch; both end at the same critical point to its conditioning.
    torch.testing.assert_close(straight.theta[order], permuted.theta, rtol=0, atol=1e-9)


def test_the_same_starts_give_the_same_bits() -> None:
    risk = line("wave", 2)
    first, second = (search(risk, starts(risk, 8, seed=5), max_iterations=60) for _ in range(2))
    assert torch.equal(first.theta, second.theta)
    assert first.status == second.status


def test_compiled_steps_end_at_the_same_minima(monkeypatch: pytest.MonkeyPatch) -> None:
    risk, begin = line("wave", 2), starts(line("wave", 2), 32)
    plain = search(risk, begin, ridge=1e-3)
    steps = MagicMock(wraps=compiled_steps.settle)
    monkeypatch.setattr(compiled_steps, "settle", steps)
    compiled = search(risk, begin, ridge=1e-3, compiled=True)
    assert steps.call_count > 10
    assert compiled.status == plain.status == ("converged",) * 32
    # From a start near a watershed rounding may lead to either side.
    same = (compiled.theta - plain.theta).norm(dim=-1) < 1e-9
    assert same.sum() >= 30
    assert (compiled.iterations - plain.iterations)[same].abs().max() <= 5  # at round-off, of some twenty


def test_descent_goes_farther_where_its_model_is_exact_and_polishing_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    risk, begin = line("wave", 2), starts(line("wave", 2), 32)
    lengths: list[tuple[Tensor, Tensor]] = []

    class Watched(critical_points._Search):
        def propose(self, rows: Rows) -> tuple[Array, Array]:
            move, predicted = super().propose(rows)
            shares = np.linalg.norm(move, axis=-1) / np.maximum(self.norm[rows], 1)
            lengths.append((torch.from_numpy(shares), torch.from_numpy(self.polishing[rows])))
            return move, predicted

    monkeypatch.setattr(critical_points, "_Search", Watched)
    search(risk, begin, ridge=1e-3)
    search(risk, begin, descend=False)
    shares, polishing = map(torch.cat, zip(*lengths))
    # A step may be longer than its radius by a twentieth.
    assert shares[polishing].max() <= 0.1 * 1.06
    assert 0.2 < shares[~polishing].max() <= 0.3 * 1.06


def test_progress_counts_down() -> None:
    risk = line("sin", 1)
    calls: list[tuple[int, int]] = []
    search(risk, starts(risk, 4), progress=lambda *call: calls.append(call))
    assert [iteration for iteration, _ in calls] == list(range(len(calls)))
    running = [left for _, left in calls]
    assert (running[0], running[-1]) == (4, 0)
    assert running == sorted(running, reverse=True)


def test_distinct_takes_perfect_fits_as_one() -> None:
    risks = torch.tensor([1e-30, 0.5, 3e-27, 0.5 + 1e-12, 0.7, 0.6]).double()
    nothing = torch.zeros(6)
    status = ("converged",) * 5 + ("drifting",)
    found = CriticalPoints(torch.zeros(6, 2), risks, nothing, nothing, nothing, status)
    assert found.distinct() == [0, 1, 4]


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        (torch.zeros(7).double(), {}, "shape"),
        (torch.zeros(2, 7, dtype=torch.long), {}, "starts: expected floating-point numbers"),
        (torch.zeros(2, 7).double(), {"ridge": -1.0}, "ridge"),
    ],
)
def test_impossible_arguments_are_refused(bad: Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(line("wave", 2), bad, **options)  # type: ignore[arg-type]
