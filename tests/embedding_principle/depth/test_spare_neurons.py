"""Spare neurons: the equations they solve, the strict saddles they make, and when there is none."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import Activation, elu, hard_tanh, identity, leaky_relu, relu, selu, tanh
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.curvature.inertia import inertia
from embedding_principle.depth import spare_neurons
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.depth.spare_neurons import (
    NoSpareNeuronError,
    SpareNeuronLift,
    backpropagated,
    find_spare_neuron,
    probability_of_spare_neuron,
    spare_neuron_inertia,
    spare_neuron_lift,
    with_spare_neuron,
)
from embedding_principle.linear_fits import least_squares
from embedding_principle.networks import Network, with_ones
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

LIFTABLE = [relu, leaky_relu(0.1), hard_tanh, elu, selu]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def affine_fit(inputs: int, outputs: int, seed: int, n: int = 20) -> tuple[Risk, torch.Tensor]:
    """The affine network NN(m_0, m_1) at its only critical point, the least-squares fit of random data."""
    g = generator(seed)
    x = torch.randn(n, inputs, generator=g, dtype=torch.float64)
    y = torch.randn(n, outputs, generator=g, dtype=torch.float64)
    return Risk(Network((inputs, outputs)), x, y), least_squares(x, y).theta


def random_problem(seed: int, loss: Loss = squared_error) -> tuple[Risk, torch.Tensor]:
    g = generator(seed)
    network = Network.uniform((2, 3, 2, 2), tanh)
    x = torch.randn(12, 2, generator=g, dtype=torch.float64)
    y = torch.softmax(torch.randn(12, 2, generator=g, dtype=torch.float64), dim=-1)
    return Risk(network, x, y, loss), network.initial(g, scale=1.5, bias_scale=0.5)


def saddle(activation: Activation, inputs: int = 3, outputs: int = 1, seed: int = 0) -> tuple[Risk, SpareNeuronLift]:
    risk, theta = affine_fit(inputs, outputs, seed)
    insertion = Insertion(0, min(inputs, outputs) + 2, activation)
    lifted = spare_neuron_lift(risk, theta, insertion, generator=generator(seed))
    return risk.on(lifted.point.network), lifted


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@given(seed=st.integers(0, 2**31), position=st.integers(0, 2))
def test_errors_are_the_gradient_of_their_layer(loss: Loss, seed: int, position: int) -> None:
    """(1/n) Σ δ_i (f_i, 1)ᵀ is ∂R/∂(W, b) of layer q+1, which `Risk.gradient` finds on another way."""
    risk, theta = random_problem(seed, loss)
    features = risk.network.trace(theta, risk.inputs).features[position]
    errors = backpropagated(risk, theta, position) / len(features)
    expected = risk.network.layers(risk.gradient(theta))[position]
    torch.testing.assert_close(errors.T @ features, expected.weight, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(errors.sum(0), expected.bias, rtol=1e-12, atol=1e-14)


def test_errors_of_the_last_layer_are_the_residuals() -> None:
    risk, theta = random_problem(0)
    torch.testing.assert_close(backpropagated(risk, theta, 2), risk.residuals(theta), rtol=0, atol=0)


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_minimum_becomes_a_strict_saddle(activation: Activation, outputs: int) -> None:
    shallow, theta = affine_fit(3, outputs, seed=1)
    risk, lifted = saddle(activation, outputs=outputs, seed=1)
    outputs_moved = lifted.point.forward(risk.inputs) - shallow.at(theta).forward(risk.inputs)
    # Rounding: some 1e2 products of size up to 1e1.
    assert float(outputs_moved.abs().max()) < 1e-12
    assert float(risk.gradient(lifted.point.theta).norm()) < 1e-12
    assert lifted.neuron.rank == outputs
    counts = inertia(hessian(risk, lifted.point.theta)).counts
    base = lift(shallow.at(theta), risk.inputs, [Insertion(0, outputs + 1, activation)], generator=generator(2))
    before = inertia(hessian(risk.on(base.network), base.theta)).counts
    assert before[0] == 0
    assert counts == spare_neuron_inertia(before, 3, outputs)


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
def test_the_block_of_the_spare_neuron(activation: Activation) -> None:
    """The rows of u in the Hessian by automatic differentiation: V in the columns of β, zeros elsewhere."""
    risk, lifted = saddle(activation, outputs=2)
    matrix = differentiated_hessian(risk, lifted.point.theta[None])[0]
    index = torch.arange(len(lifted.point.theta))
    first, second = lifted.point.network.layers(index)
    u = torch.cat([first.weight[-1], first.bias[-1:]])
    beta = second.weight[:, -1]
    torch.testing.assert_close(matrix[beta][:, u], lifted.neuron.coupling, rtol=1e-10, atol=1e-13)
    elsewhere = torch.ones_like(index, dtype=torch.bool)
    elsewhere[beta] = False
    assert float(matrix[u][:, elsewhere].abs().max()) < 1e-13


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
def test_the_risk_falls_along_the_direction(activation: Activation) -> None:
    risk, lifted = saddle(activation)
    assert float(lifted.direction.norm()) == pytest.approx(1, abs=1e-12)
    # Inside the margin; the cubic term of the risk is then below a tenth of the quadratic one, at both signs.
    t = 1e-4 * min(lifted.neuron.margin, 1)
    for sign in (-1, 1):
        change = float(risk(lifted.point.theta + sign * t * lifted.direction) - risk(lifted.point.theta))
        gradient = risk.gradient(lifted.point.theta + sign * t * lifted.direction)
        # Beside a small margin the change is below the rounding of the risk, a few 1e-16, so the slope is asked too.
        assert change <= 1e-15
        assert float(gradient @ lifted.direction) * sign / t == pytest.approx(lifted.curvature, rel=0.1, abs=0)


def test_relu_and_leaky_relu_have_the_same_spare_neurons() -> None:
    risk, theta = affine_fit(3, 1, seed=4)
    neuron = find_spare_neuron(risk, theta, 0, relu, generator=generator(0))
    extended = with_ones(risk.inputs)
    errors = backpropagated(risk, theta, 0)[:, 0]
    z = extended @ neuron.incoming
    assert abs(float(errors @ leaky_relu(0.1)(z))) < 1e-12 * float(errors.abs() @ z.abs())
    other = (errors * leaky_relu(0.1).first(z)) @ extended / len(z)
    torch.testing.assert_close(other, 0.9 * neuron.coupling[0], rtol=1e-10, atol=1e-13)


def test_the_spread_sets_the_size_of_the_neuron() -> None:
    """ReLU neurons of any size solve the same equations; at a small one the curvature comes near to −‖V‖."""
    risk, theta = affine_fit(3, 1, seed=5)
    curvatures = [
        spare_neuron_lift(risk, theta, Insertion(0, 2, relu), generator=generator(0), spread=spread)
        for spread in (1.0, 1e-3)
    ]
    small = curvatures[1]
    torch.testing.assert_close(small.neuron.incoming, 1e-3 * curvatures[0].neuron.incoming)
    assert -small.curvature == pytest.approx(float(small.neuron.coupling.norm()), rel=0.05, abs=0)
    assert -curvatures[0].curvature < -small.curvature


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
@pytest.mark.parametrize("position", [0, 1, 2])
@settings(max_examples=3)
@given(seed=st.integers(0, 2**31))
def test_a_silent_neuron_changes_neither_output_nor_other_gradients(
    seed: int, activation: Activation, position: int
) -> None:
    risk, theta = random_problem(seed)
    base = Insertion(position, 3, activation)
    lifted = lift(risk.at(theta), risk.inputs, [base], generator=generator(seed))
    incoming = torch.randn(risk.network.widths[position] + 1, generator=generator(seed), dtype=torch.float64)
    wider = with_spare_neuron(lifted, position, incoming)
    assert [a - b for a, b in zip(wider.network.widths, lifted.network.widths)].index(1) == position + 1
    torch.testing.assert_close(wider.forward(risk.inputs), lifted.forward(risk.inputs))
    layers = wider.network.layers(risk.on(wider.network).gradient(wider.theta))
    assert float(layers[position].weight[-1].abs().max()) == 0
    silent = layers[position + 1].weight[:, -1]
    features = risk.network.trace(theta, risk.inputs).features[position]
    z = features @ incoming[:-1] + incoming[-1]
    expected = backpropagated(risk, theta, position).T @ activation(z) / len(z)
    torch.testing.assert_close(silent, expected, rtol=1e-9, atol=1e-11)


def test_errors_of_one_sign_pattern_leave_no_spare_neuron() -> None:
    """Three points off a line: δ ∝ (1, −2, 1), so Σ δ_i |u·F_i| ≥ 0 by the convexity of |·|."""
    x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    risk, theta = Risk(Network((1, 1)), x, -(x**2)), torch.tensor([0.0, -2 / 3], dtype=torch.float64)
    assert float(risk.gradient(theta).norm()) < 1e-15
    for activation in (relu, leaky_relu(0.1)):
        with pytest.raises(NoSpareNeuronError, match=r"1 equation\(s\) in 2 unknowns"):
            spare_neuron_lift(risk, theta, Insertion(0, 2, activation), generator=generator(0))


def both_signs(risk: Risk, errors: torch.Tensor) -> bool:
    """Whether Q(u) = Σ δ_i |u·F_i| takes both signs: its extremes lie on the lines where m_q of the u·F_i vanish."""
    inputs = risk.network.widths[0]
    extended = with_ones(risk.inputs)
    lines = []
    for rows in torch.combinations(torch.arange(len(extended)), inputs):
        minors = [torch.cat([extended[rows, :j], extended[rows, j + 1 :]], 1).det() for j in range(inputs + 1)]
        lines.append(torch.stack([(-1) ** j * minor for j, minor in enumerate(minors)]))
    q = (torch.stack(lines) @ extended.T).abs() @ errors
    rounding = 1e-9 * q.abs().max()  # on the edges of {u·F_i > 0 ∀i} the sum is zero
    return bool(q.max() > rounding and q.min() < -rounding)


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_a_neuron_is_found_exactly_where_the_sum_takes_both_signs(inputs: int) -> None:
    exists, found = [], []
    for seed in range(60):
        risk, theta = affine_fit(inputs, 1, seed, n=inputs + 2 + seed % 6)
        exists.append(both_signs(risk, backpropagated(risk, theta, 0)[:, 0]))
        try:
            find_spare_neuron(risk, theta, 0, relu, generator=generator(seed))
            found.append(True)
        except NoSpareNeuronError:
            found.append(False)
    assert found == exists
    assert set(exists) == {True, False}


def corner(dihedral: float) -> float:
    """The solid angle between three planes that meet at equal angles, as a share of the sphere."""
    return (3 * dihedral - math.pi) / (4 * math.pi)


# Gram's relation for the regular 4-simplex: Σ (−1)^dim (angle) over 5 vertices, 10 edges, 10 triangles, 5 facets and
# itself is zero; the edges have solid angles, the triangles dihedral ones.
FOUR_SIMPLEX = (10 * corner(math.acos(1 / 4)) - 10 * math.acos(1 / 4) / (2 * math.pi) + 5 / 2 - 1) / 5


@pytest.mark.parametrize(
    ("inputs", "expected"), [(1, 0.0), (2, 1 - 8 * corner(math.acos(1 / 3))), (3, 1 - 10 * FOUR_SIMPLEX)]
)
def test_the_probability_is_that_of_known_angles(inputs: int, expected: float) -> None:
    # The quadrature's own error estimate is 1e-8; it comes out near 1e-15.
    assert probability_of_spare_neuron(inputs) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("inputs", [1, 2, 3, 4, 5])
def test_the_probability_is_that_of_random_signs(inputs: int) -> None:
    """Residuals of the fit, without the fit: Gaussian vectors less their mean; one entry alone with its sign or not."""
    draws, samples = 40_000, inputs + 2
    errors = torch.randn(draws, samples, generator=generator(0), dtype=torch.float64)
    positive = (errors > errors.mean(-1, keepdim=True)).sum(-1)
    share = float(((positive > 1) & (positive < samples - 1)).double().mean())
    # Four standard errors of a share near one half, the largest there is: 0.01.
    assert probability_of_spare_neuron(inputs) == pytest.approx(share, abs=4 * 0.5 / draws**0.5)


def test_without_inputs_there_is_no_probability() -> None:
    with pytest.raises(ValueError, match="dimension: expected a whole number from 1 on, got 0"):
        probability_of_spare_neuron(0)


def test_a_dead_neuron_solves_no_equations() -> None:
    errors, features = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[1.0], [2.0]]).double()
    equations = spare_neurons._Equations(errors, features, relu)
    dead, exact = torch.tensor([[-1.0, 0.0], [0.0, 1.0]]).double().unbind()
    assert equations.residual(dead[None]).tolist() == [math.inf]
    assert equations.residual(exact[None]).tolist() == [0.0]


def test_a_root_at_a_kink_is_refused() -> None:
    """x³ on a grid that holds 0: by symmetry the only crossing has the sample x = 0 at the kink."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    slope = float((x**4).sum() / (x**2).sum())
    with pytest.raises(NoSpareNeuronError, match=r"[1-9]\d* with a sample at a kink"):
        find_spare_neuron(
            Risk(Network((1, 1)), x, x**3), torch.tensor([slope, 0.0]).double(), 0, relu, generator=generator(0)
        )


@pytest.mark.parametrize(
    ("activation", "outputs", "message"),
    [
        (identity, 1, r"at position 0: .* σ = identity, has 1 equation\(s\) in 3 unknowns .* with V = 0"),
        (relu, 5, r"5 equation\(s\) in 3 unknowns"),
    ],
    ids=["affine", "overdetermined"],
)
def test_impossible_spare_neurons_are_named(activation: Activation, outputs: int, message: str) -> None:
    risk, theta = affine_fit(2, outputs, seed=6)
    with pytest.raises(NoSpareNeuronError, match=message):
        find_spare_neuron(risk, theta, 0, activation, generator=generator(0))


def test_impossible_insertions_are_refused() -> None:
    risk, theta = affine_fit(3, 2, seed=7)
    with pytest.raises(ValueError, match=r"width: 2 leaves no room .* \+ 1 = 3"):
        spare_neuron_lift(risk, theta, Insertion(0, 2, relu), generator=generator(0))
    with pytest.raises(ValueError, match="tanh has no affine piece"):
        spare_neuron_lift(risk, theta, Insertion(0, 3, tanh), generator=generator(0))
    with pytest.raises(ValueError, match="no full row rank"):
        spare_neuron_inertia((0, 0, 1), preceding=1, following=3)


def test_the_same_seed_gives_the_same_saddle() -> None:
    _, one = saddle(relu)
    _, two = saddle(relu)
    # Threads sum in different orders.
    torch.testing.assert_close(one.point.theta, two.point.theta, rtol=1e-9, atol=1e-9)
    assert math.isfinite(one.neuron.margin)
