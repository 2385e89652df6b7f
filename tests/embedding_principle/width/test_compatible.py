"""Compatible embeddings: identities by the library's derivatives, by finite differences, and by enumeration."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedding_principle.activations import Activation, elu, sigmoid, softplus, tanh
from embedding_principle.critical_points import search
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.curvature.inertia import inertia
from embedding_principle.datasets import one_dimensional, wine
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.planting import plant
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error
from embedding_principle.width.compatible import (
    Embedding,
    UnclearRankError,
    betas,
    compatible_dimension,
    constraint_dimension,
    copies_dimension,
    differential,
    embed,
    embedded_gradient,
    gradient_matrix,
    random_embedding,
    three_fold,
    violations,
)

CASES: list[tuple[tuple[int, ...], Activation, Loss]] = [
    ((3, 2, 2, 1), tanh, squared_error),
    ((4, 2, 3), sigmoid, cross_entropy),
    ((2, 2, 3, 2, 2), elu, squared_error),
    ((3, 3, 2), softplus, cross_entropy),
    ((1, 1, 4), tanh, squared_error),
]
every_case = pytest.mark.parametrize(("widths", "activation", "loss"), CASES, ids=lambda case: str(case))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_risk(widths: tuple[int, ...], activation: Activation, loss: Loss, seed: int) -> tuple[Risk, Tensor]:
    g, network = generator(seed), Network.uniform(widths, activation)
    x, y = (torch.randn(12, widths[i], generator=g, dtype=torch.float64) for i in (0, -1))
    y = torch.softmax(y, -1) if loss == cross_entropy else y
    return Risk(network, x, y, loss), network.initial(g, bias_scale=0.5)


def wider(widths: tuple[int, ...], seed: int) -> list[int]:
    more = torch.randint(1, 4, (len(widths),), generator=generator(seed)).tolist()
    return [widths[0], *(m + k for m, k in zip(widths[1:-1], more)), widths[-1]]


def embedded(risk: Risk, seed: int, null: float = 0.4) -> Embedding:
    return random_embedding(risk.network, wider(risk.network.widths, seed), generator=generator(seed), null=null)


def changed(embedding: Embedding, layer: int, *, keep_output: bool) -> Embedding:
    """Noise on the factors of a layer, with or without the sums over copies of the same neuron."""
    factors, below = list(embedding.factors), embedding.indices[layer - 1]
    noise = torch.randn(factors[layer - 1].shape, generator=generator(7), dtype=torch.float64)
    same = (below[:, None] == below).double()
    factors[layer - 1] = factors[layer - 1] + noise - keep_output * (noise @ same / same.sum(0))
    return replace(embedding, factors=tuple(factors))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@every_case
@pytest.mark.parametrize("seed", range(4))
def test_outputs_gradients_and_hessians_obey_the_identities(
    widths: tuple[int, ...], activation: Activation, loss: Loss, seed: int
) -> None:
    risk, theta = some_risk(widths, activation, loss, seed)
    embedding = embedded(risk, seed)
    point = embed(embedding, risk.at(theta))
    wide, t, b = risk.on(point.network), differential(embedding), gradient_matrix(embedding)
    inputs = torch.randn(50, widths[0], generator=generator(seed), dtype=torch.float64)
    assert relative(point.forward(inputs), risk.at(theta).forward(inputs)) < 1e-13
    assert relative(wide.gradient(point.theta), b @ risk.gradient(theta)) < 1e-12
    narrow_hessian = hessian(risk, theta)
    # The library's closed form, and autograd.
    for matrix in (hessian(wide, point.theta), differentiated_hessian(wide, point.theta[None])[0]):
        assert relative(t.mT @ matrix @ t, narrow_hessian) < 1e-12
        assert relative(matrix @ t, b @ narrow_hessian) < 1e-12
    torch.testing.assert_close(t.mT @ b, torch.eye(len(theta), dtype=torch.float64))


@every_case
def test_identities_hold_for_finite_differences(widths: tuple[int, ...], activation: Activation, loss: Loss) -> None:
    """Central differences of the wide risk along T v err by h² times a third derivative, and ε / h."""
    risk, theta = some_risk(widths, activation, loss, 11)
    embedding = embedded(risk, 11)
    point = embed(embedding, risk.at(theta))
    wide, step = risk.on(point.network), 1e-5
    image = differential(embedding) @ torch.ones(len(theta), dtype=torch.float64)
    sides = [wide.gradient(point.theta + sign * step * image) for sign in (1, -1)]
    found = (sides[0] - sides[1]) / (2 * step)
    expected = embedded_gradient(embedding, hessian(risk, theta) @ torch.ones(len(theta), dtype=torch.float64))
    far = [wide.gradient(point.theta + sign * 1e-3 * image) for sign in (2, 1, -1, -2)]
    third = (far[0] - 2 * far[1] + 2 * far[2] - far[3]) / (2 * 1e-9)
    # Twice h² / 6 times the third difference, and the rounding of gradients of P terms.
    bound = step**2 / 3 * third.norm() + 100 * 2.3e-16 * (1 + sides[0].norm()) / step
    assert (found - expected).norm() < bound
    basis = torch.eye(len(point.theta), dtype=torch.float64) * step
    slopes = (wide(point.theta + basis) - wide(point.theta - basis)) / (2 * step)
    gradient = embedded_gradient(embedding, risk.gradient(theta))
    torch.testing.assert_close(slopes, gradient, atol=1e-8, rtol=1e-6)


@every_case
def test_the_test_of_membership_says_which_condition_fails(
    widths: tuple[int, ...], activation: Activation, loss: Loss
) -> None:
    risk, theta = some_risk(widths, activation, loss, 3)
    embedding, narrow = embedded(risk, 3, null=0.0), risk.at(theta)
    depth = risk.network.depth
    assert violations(narrow, embed(embedding, narrow), embedding.indices) == []
    kept = changed(embedding, depth, keep_output=True)
    found = violations(narrow, embed(kept, narrow), embedding.indices)
    # With one output any shares are a backward sum of the last layer, and lower layers inherit them.
    assert {each.condition for each in found} <= {"backward"}
    assert found or widths[-1] == 1
    tilted = violations(narrow, embed(changed(embedding, depth, keep_output=False), narrow), embedding.indices)
    assert ("forward", depth) in {(each.condition, each.layer) for each in tilted}
    first = embed(changed(embedding, 1, keep_output=False), narrow)
    assert ("copy", 1) in {(v.condition, v.layer) for v in violations(narrow, first, embedding.indices)}
    layers = list(embed(embedding, narrow).layers())
    layers[0] = Layer(layers[0].weight, layers[0].bias + 1)
    shifted = Parametrised(embedding.wide, flatten(layers))
    found = violations(narrow, shifted, embedding.indices)
    assert [(v.condition, v.layer, v.neuron) for v in found] == [("bias", 1, i) for i in range(len(layers[0].bias))]


def test_a_null_neuron_that_receives_an_error_breaks_the_backward_condition() -> None:
    risk, theta = some_risk((2, 2, 2), tanh, squared_error, 0)
    ends = torch.arange(2)
    factors = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.0]])
    silent = Embedding(risk.network, (ends, torch.tensor([0, 1, -1]), ends), factors, (torch.ones(3),))
    point = embed(silent, risk.at(theta))
    # The bias makes up for the constant, so that the output is kept.
    torch.testing.assert_close(point.forward(risk.inputs), risk.at(theta).forward(risk.inputs))
    found = violations(risk.at(theta), point, silent.indices)
    assert [(each.condition, each.layer, each.neuron) for each in found] == [("backward", 2, 2)]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), min_size=2, max_size=4), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_dimension_of_the_equations(layers: list[tuple[int, int]], seed: int) -> None:
    narrow = [width for width, _ in layers]
    wide = [width + more * (0 < i < len(layers) - 1) for i, (width, more) in enumerate(layers)]
    network = Network.uniform(narrow, tanh)
    embedding = random_embedding(network, wide, generator=generator(seed), null=0.4)
    assert constraint_dimension(embedding) == compatible_dimension(narrow, wide)


def test_three_fold_splitting_is_compatible_and_has_shares_of_both_signs() -> None:
    risk, theta = some_risk((2, 2, 3, 2), tanh, squared_error, 5)
    fold = three_fold(risk.network)
    narrow = risk.at(theta)
    wide = embed(fold, narrow)
    assert violations(narrow, wide, fold.indices) == []
    assert betas(fold)[1].tolist() == [1, 1, 1, 1, -1, -1]
    weight = narrow.layers()[-1].weight
    torch.testing.assert_close(wide.layers()[-1].weight, torch.cat([weight, weight, -weight], 1))
    assert constraint_dimension(fold) == compatible_dimension((2, 2, 3, 2), fold.wide.widths) == 10 + 24


@every_case
@pytest.mark.parametrize("residual", [0.1, 1.0])
def test_no_count_decreases_at_planted_points(
    widths: tuple[int, ...], activation: Activation, loss: Loss, residual: float
) -> None:
    g, network = generator(17), Network.uniform(widths, activation)
    point = Parametrised(network, network.initial(g, bias_scale=0.5))
    inputs = torch.randn(3 * network.n_parameters + 20, widths[0], generator=g, dtype=torch.float64)
    risk = plant(point, inputs, generator=g, residual=residual, loss=loss)
    embedding = random_embedding(network, wider(widths, 2), generator=g, null=0.3, spread=0.2)
    wide = embed(embedding, point)
    matrices = hessian(risk, point.theta), hessian(risk.on(wide.network), wide.theta)
    before, after = (
        inertia(each, error=1e-12 * float(each.norm()), relative_threshold=1e-10, minimal_gap=5).counts
        for each in matrices
    )
    assert risk.on(wide.network).gradient(wide.theta).norm() < 1e-13
    assert all(old <= new for old, new in zip(before, after))
    assert sum(after) > sum(before)


def test_no_count_decreases_at_searched_points_and_on_wine() -> None:
    line = one_dimensional("wave")
    risk = Risk(Network.uniform((1, 2, 1), tanh), line.inputs, line.targets)
    starts = risk.network.initial(generator(0), bias_scale=1.0, batch=(24,))
    found = search(risk, starts, descend=False, max_iterations=200)
    theta = found.theta[found.distinct()[0]]
    wines = wine()
    network = Network.uniform((13, 1, 3), sigmoid)
    point = Parametrised(network, network.initial(generator(1), bias_scale=0.5))
    pairs = [(risk, theta), (plant(point, wines.inputs, generator=generator(2), residual=0.2), point.theta)]
    for risk, theta in pairs:
        widths = (risk.network.widths[0], risk.network.widths[1] + 2, risk.network.widths[2])
        wide = embed(random_embedding(risk.network, widths, generator=generator(3)), risk.at(theta))
        before, after = (
            inertia(each, error=1e-11 * float(each.norm()), relative_threshold=1e-10, minimal_gap=5).counts
            for each in (hessian(risk, theta), hessian(risk.on(wide.network), wide.theta))
        )
        assert all(old <= new for old, new in zip(before, after))


@pytest.mark.parametrize("widths", [(1, 2, 4), (2, 1, 5), (1, 2, 1)])
def test_critical_points_of_copies_by_the_kernel_of_the_wide_hessian(widths: tuple[int, int, int]) -> None:
    g, network = generator(4), Network.uniform(widths, tanh)
    point = Parametrised(network, network.initial(g, bias_scale=0.5))
    inputs = torch.randn(40, widths[0], generator=g, dtype=torch.float64)
    risk = plant(point, inputs, generator=g, residual=0.3)
    copies = [3] * widths[1]
    wide = (widths[0], 3 * widths[1], widths[2])
    embedding = random_embedding(network, (widths[0], widths[1], widths[2]), generator=g)
    thrice = torch.arange(widths[1]).repeat(3)
    factors = (embedding.factors[0].repeat(3, 1), embedding.factors[1].repeat(1, 3) / 3)
    equal = Embedding(network, (embedding.indices[0], thrice, embedding.indices[2]), factors, (torch.zeros(wide[1]),))
    matrix = hessian(risk.on(equal.wide), embed(equal, point).theta)
    zeros = inertia(matrix, error=1e-13 * float(matrix.norm()), relative_threshold=1e-10, minimal_gap=5).zero
    assert zeros == copies_dimension(risk, point.theta, copies)
    # At a perfect fit every sharing of the weights is critical.
    fit = Risk(network, inputs, point.forward(inputs))
    assert copies_dimension(fit, point.theta, copies) == 2 * widths[1] * widths[2]


def test_what_does_not_fit_is_refused() -> None:
    network = Network.uniform((1, 2, 1), tanh)
    good = three_fold(network)
    with pytest.raises(ValueError, match="must name each"):
        replace(good, indices=(good.indices[0], torch.zeros(6).long(), good.indices[2]))
    two = three_fold(Network.uniform((2, 1, 1), tanh))
    with pytest.raises(ValueError, match="inputs and outputs stay"):
        replace(two, indices=(torch.tensor([1, 0]), torch.zeros(3).long(), torch.zeros(1).long()))
    with pytest.raises(ValueError, match="whole numbers"):
        replace(good, indices=(good.indices[0], torch.zeros(6), good.indices[2]))
    with pytest.raises(ValueError, match="3 are needed"):
        replace(good, indices=good.indices[:2])
    with pytest.raises(ValueError, match="batch normalization"):
        three_fold(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1e-5))
    with pytest.raises(ValueError, match="expected one of"):
        embed(good, Parametrised(Network((1, 1)), torch.zeros(2)))
    with pytest.raises(ValueError, match="at least that"):
        random_embedding(network, (1, 1, 1), generator=generator(0))
    with pytest.raises(ValueError, match="same ends"):
        compatible_dimension((1, 2, 1), (2, 2, 1))
    with pytest.raises(ValueError, match="probability"):
        random_embedding(network, (1, 3, 1), generator=generator(0), null=1.5)
    risk, theta = some_risk((1, 2, 1), tanh, squared_error, 0)
    with pytest.raises(ValueError, match="a number for each"):
        copies_dimension(risk, theta, [1])
    wide = embed(good, Parametrised(network, torch.ones(7)))
    with pytest.raises(ValueError, match="not that of the index maps"):
        violations(Parametrised(network, torch.ones(7)), wide, (good.indices[0], good.indices[1][:3], good.indices[2]))


def test_a_rank_between_zero_and_not_is_refused() -> None:
    g, network = generator(4), Network.uniform((1, 2, 1), tanh)
    point = Parametrised(network, network.initial(g, bias_scale=0.5))
    risk = plant(point, torch.randn(40, 1, generator=g, dtype=torch.float64), generator=g)
    noise = torch.randn(40, 1, generator=g, dtype=torch.float64)
    assert copies_dimension(risk, point.theta, [2, 2]) == 2
    with pytest.raises(UnclearRankError):
        copies_dimension(replace(risk, targets=risk.targets + 1e-8 * noise), point.theta, [2, 2])


def test_a_null_neuron_has_no_share_whatever_it_sends() -> None:
    indices = (torch.tensor([0]), torch.tensor([0, -1]), torch.tensor([0]))
    factors = (torch.ones(2, 1), torch.tensor([[1.0, 3.0]]))
    embedding = Embedding(Network.uniform((1, 1, 1), tanh), indices, factors, (torch.tensor([0.0, 0.5]),))
    assert betas(embedding)[1].tolist() == [1.0, 0.0]
