"""Lifting: what it preserves, what breaks it, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, Activation, AffinePiece, leaky_relu, relu, tanh
from embedding_principle.depth.dimensions import (
    OutputEquations,
    jacobian_dimension,
    lifted_dimension,
    sampled_dimension,
)
from embedding_principle.depth.lifting import (
    Insertion,
    collapse,
    deepened,
    lift,
    merge,
    occupied_pieces,
    smallest_insertions,
    violations,
)
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.risks import Risk, cross_entropy, squared_error

LIFTABLE = [activation for activation in [*ACTIVATIONS.values(), leaky_relu(0.3)] if activation.pieces]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


every_piece = pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Network, Insertion, int]:
    """A shallow tanh network, a possible insertion of a ReLU layer, and a seed."""
    widths = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    network = Network.uniform(widths, tanh)
    position = draw(st.integers(0, network.depth - 1))
    width = min(widths[position : position + 2]) + draw(st.integers(0, 3))
    return network, Insertion(position, width, relu), draw(st.integers(0, 2**31))


def random_problem(network: Network, seed: int, n: int = 9) -> tuple[Parametrised, torch.Tensor]:
    g = generator(seed)
    x = torch.randn(n, network.widths[0], generator=g, dtype=torch.float64)
    return Parametrised(network, network.initial(g, scale=1.5, bias_scale=0.5)), x


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_a_random_member_satisfies_the_definition(activation: Activation, case: tuple[Network, Insertion, int]) -> None:
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    assert violations(point, lifted, x, insertion) == ()


@every_piece
@pytest.mark.parametrize("unit", [2.0**-400, 2.0**-40, 2.0**40, 2.0**400])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_inputs_of_any_size_are_lifted(activation: Activation, unit: float, width: int) -> None:
    network, insertion = Network.uniform((3, 1, 1), tanh), Insertion(0, width, activation)
    point, x = random_problem(network, 0)
    first, last = point.layers()
    point = point.with_theta(flatten([Layer(first.weight / unit, first.bias), last]))
    assert violations(point, lift(point, unit * x, [insertion], generator=generator(0)), unit * x, insertion) == ()


def test_parameters_in_autograds_graph_are_lifted_without_a_warning() -> None:
    network, x = Network.uniform((2, 3, 1), relu), torch.linspace(-1, 1, 10).view(5, 2)
    point = Parametrised(network, torch.linspace(-1, 1, network.n_parameters).requires_grad_())
    deep = lift(point, x, [Insertion(1, 3, relu)], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deep.forward(x), point.forward(x))


def test_the_intercept_of_a_piece_is_kept() -> None:
    """Zero for every piece of the library's own activations: |z − 2| has the pieces 2 − z and z − 2."""
    pieces = (AffinePiece(-math.inf, 2.0, -1.0, 2.0), AffinePiece(2.0, math.inf, 1.0, -2.0))
    bent = Activation("bent", lambda z: (z - 2).abs(), lambda z: (z - 2).sign(), torch.zeros_like, pieces)
    network, g = Network.uniform((2, 3, 2), tanh), generator(0)
    point, x = Parametrised(network, network.initial(g, bias_scale=1.0)), torch.randn(6, 2, generator=g).double()
    for position, width in ((0, 2), (0, 4), (1, 2), (1, 5)):
        deep = lift(point.expand(8), x, [Insertion(position, width, bent)], generator=g)
        torch.testing.assert_close(deep.forward(x), point.forward(x).expand(8, -1, -1), rtol=0, atol=1e-12)
        assert not any(violations(point, each, x, Insertion(position, width, bent)) for each in deep)


@every_piece
@pytest.mark.parametrize("size", [0.0, 1e-14, 1e-7])
@settings(max_examples=4)
@given(case=cases())
def test_a_zero_or_nearly_singular_layer_is_lifted_as_accurately(
    activation: Activation, case: tuple[Network, Insertion, int], size: float
) -> None:
    """All singular values of W[q+1] but the first are made small, or zero."""
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    weight = point.layers()[insertion.position].weight
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    values[int(size > 0) :] = size
    weight.copy_(left @ torch.diag(values) @ right)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    assert violations(point, lifted, x, insertion, tolerance=1e-11) == ()


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_output_and_inherited_features_are_preserved(
    activation: Activation, case: tuple[Network, Insertion, int]
) -> None:
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    shallow, deep = point.trace(x), lifted.trace(x)
    inherited = deep.features[: insertion.position + 1] + deep.features[insertion.position + 2 :]
    for a, b in zip((*shallow.features, shallow.output), (*inherited, deep.output)):
        # The slope 0.01 of leaky ReLU multiplies rounding errors by a hundred.
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_the_deep_gradient_is_the_shallow_one_pulled_back(
    activation: Activation, case: tuple[Network, Insertion, int]
) -> None:
    """∇R_deep = Dφᵀ ∇R_shallow: stronger than criticality, and true at any θ."""
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    y = torch.randn(len(x), network.widths[-1], generator=generator(seed), dtype=torch.float64)
    risk = Risk(network, x, y)
    pieces = occupied_pieces(lifted, x, insertion.position)

    def below(t: torch.Tensor) -> torch.Tensor:
        return collapse(lifted.with_theta(t), insertion.position, pieces.slope, pieces.intercept).theta

    expected = torch.func.jacrev(below)(lifted.theta).T @ risk.gradient(point.theta)
    torch.testing.assert_close(risk.on(lifted.network).gradient(lifted.theta), expected, rtol=1e-9, atol=1e-10)


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_collapsing_inverts_lifting(activation: Activation, case: tuple[Network, Insertion, int]) -> None:
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    pieces = occupied_pieces(lifted, x, insertion.position)
    assert pieces.outside == ()
    below = collapse(lifted, insertion.position, pieces.slope, pieces.intercept)
    torch.testing.assert_close(below.theta, point.theta, rtol=1e-11, atol=1e-11)


@every_piece
@settings(max_examples=6)
@given(case=cases())
def test_three_counts_of_the_dimension_agree(activation: Activation, case: tuple[Network, Insertion, int]) -> None:
    network, insertion, seed = case
    insertion = replace(insertion, activation=activation)
    point, x = random_problem(network, seed)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    q = insertion.position
    first, second = lifted.layers()[q : q + 2]
    pieces = occupied_pieces(lifted, x, q)
    equations = OutputEquations(first, second, pieces.slope, pieces.intercept)
    formula = lifted_dimension(network.widths[q], network.widths[q + 1], insertion.width)
    assert formula == lifted.network.n_parameters - network.n_parameters
    assert jacobian_dimension(equations) == formula
    assert sampled_dimension(equations, generator=generator(seed + 1)) == formula


def test_a_batch_of_members_is_drawn_over_one_theta() -> None:
    network = Network.uniform((2, 3, 2), tanh)
    point, x = random_problem(network, 0)
    lifted = lift(point.expand(50), x, [Insertion(1, 4, leaky_relu())], generator=generator(1))
    assert lifted.theta.shape == (50, lifted.network.n_parameters)
    assert len(torch.unique(lifted.theta[:, -1])) == 50
    for member in lifted:
        assert violations(point, member, x, Insertion(1, 4, leaky_relu())) == ()


def test_neurons_of_one_layer_use_different_pieces() -> None:
    network = Network.uniform((2, 3, 2), tanh)
    point, x = random_problem(network, 0)
    lifted = lift(point, x, [Insertion(0, 40, leaky_relu())], generator=generator(1))
    slopes = occupied_pieces(lifted, x, 0).slope
    # Forty fair coins: fewer than 8 of either kind has probability below 1e-4.
    assert 8 <= int((slopes == 1.0).sum()) <= 32
    assert int((slopes == 0.01).sum()) + int((slopes == 1.0).sum()) == 40


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
def test_two_inserted_layers_are_a_composition(loss: object) -> None:
    network = Network.uniform((2, 3, 2), tanh)
    point, x = random_problem(network, 3)
    insertions = [Insertion(0, 3, relu), Insertion(2, 4, ACTIVATIONS["hard_tanh"])]
    lifted = lift(point, x, insertions, generator=generator(4))
    assert lifted.network.widths == (2, 3, 3, 4, 2)
    assert [a.name for a in lifted.network.activations] == ["relu", "tanh", "hard_tanh"]
    torch.testing.assert_close(lifted.forward(x), point.forward(x), rtol=0, atol=1e-13)


LINE = Parametrised(Network((1, 1)), torch.tensor([2.0, 0.0]).double())
MEMBER = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())


def test_lifting_is_closed_form_on_a_linear_network() -> None:
    """NN(1, 1): W = 2, b = 0 on x ∈ {−1, 1}. By hand: A = 1, c = 2, B = 2, b′ = −4."""
    x = torch.tensor([[-1.0], [1.0]]).double()
    assert violations(LINE, MEMBER, x, Insertion(0, 1, relu)) == ()
    assert MEMBER.forward(torch.tensor([[-3.0]]).double()).item() == -4.0  # off S: ReLU(−1) = 0, not −6


# Each entry breaks one condition: (where in θ′, by how much, which condition is named).
BREAKS = [
    ("inherited", 1e-3, "inheritance"),
    ("outgoing", 1e-3, "output preservation"),
    ("offset", -1e3, "layer linearization"),
]


@pytest.mark.parametrize(("where", "amount", "condition"), BREAKS)
def test_the_membership_test_names_the_broken_condition(where: str, amount: float, condition: str) -> None:
    network, insertion = Network.uniform((2, 3, 2), tanh), Insertion(1, 3, relu)
    point, x = random_problem(network, 5)
    broken = lift(point, x, [insertion], generator=generator(6))
    layers = broken.layers()
    part = {"inherited": layers[0].weight, "outgoing": layers[2].weight, "offset": layers[1].bias}[where]
    part.view(-1)[1] += amount
    found = violations(point, broken, x, insertion)
    assert condition in {violation.condition for violation in found}
    if condition == "layer linearization":
        named = [v for v in found if v.condition == condition]
        assert {v.neuron for v in named} == {1}
        assert {v.sample for v in named} == set(range(len(x)))
        assert all(v.amount > 0 for v in named)
    else:
        assert {v.condition for v in found} == {condition}
        assert all(0 < v.amount <= 10 * amount for v in found)


def test_a_sample_moved_out_of_the_piece_is_named() -> None:
    x = torch.tensor([[-1.0], [1.0], [-5.0]]).double()
    (violation,) = violations(LINE, MEMBER, x, Insertion(0, 1, relu))
    assert (violation.condition, violation.neuron, violation.sample) == ("layer linearization", 0, 2)
    assert violation.amount == 3.0
    assert "-3 lies outside (0, inf)" in violation.detail


@pytest.mark.parametrize(
    ("insertion", "message"),
    [
        (Insertion(1, 3, tanh), "activation: tanh has no affine piece"),
        (Insertion(1, 1, relu), "width: 1 is below the rank 2 of the weights"),
        (Insertion(2, 3, relu), r"position: 2 is not among 0 … 1 for widths \(2, 3, 2\)"),
    ],
    ids=["no piece", "too narrow", "too deep"],
)
def test_impossible_liftings_are_refused(insertion: Insertion, message: str) -> None:
    network = Network.uniform((2, 3, 2), tanh)
    point, x = random_problem(network, 0)
    with pytest.raises(ValueError, match=message):
        lift(point, x, [insertion], generator=generator(0))


def test_bad_data_are_refused() -> None:
    network, insertion = Network.uniform((2, 3, 2), tanh), Insertion(1, 3, relu)
    point, x = random_problem(network, 0)
    x[3, 0] = math.nan
    with pytest.raises(ValueError, match="inputs: row 3 is not finite"):
        lift(point, x, [insertion], generator=generator(0))
    with pytest.raises(ValueError, match="without batch normalization"):
        deepened(Network.uniform((2, 3, 2), tanh, batch_norm_epsilon=1e-5), insertion)
    with pytest.raises(ValueError, match="theta: row 0 is not finite"):
        lift(point.with_theta(math.nan * point.theta), torch.zeros(4, 2).double(), [insertion], generator=generator(0))
    with pytest.raises(ValueError, match="position: expected a whole number from 0 on, got -1"):
        Insertion(-1, 3, relu)


def test_a_candidate_of_another_architecture_is_refused() -> None:
    x = torch.tensor([[-1.0], [1.0]]).double()
    with pytest.raises(ValueError, match=r"deep: .*relu.* is not .* with the .*leaky_relu"):
        violations(LINE, MEMBER, x, Insertion(0, 1, leaky_relu()))


@given(case=cases())
def test_the_smallest_insertions_are_the_narrowest_that_are_possible(case: tuple[Network, Insertion, int]) -> None:
    network, insertion, _ = case
    point, x = random_problem(network, 0)
    for q, smallest in enumerate(smallest_insertions(network, insertion.activation)):
        assert deepened(network, smallest).widths[q + 1] == smallest.width
        if smallest.width > 1:
            # Random weights have full rank.
            with pytest.raises(ValueError, match="below the rank"):
                lift(point, x, [Insertion(q, smallest.width - 1, insertion.activation)], generator=generator(0))


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda a: a.name)
def test_constant_features_can_be_lifted(activation: Activation) -> None:
    """A single training sample leaves every pre-activation without spread."""
    network = Network.uniform((2, 3, 2), tanh)
    point, x = random_problem(network, 0, n=1)
    insertion = Insertion(1, 3, activation)
    lifted = lift(point, x, [insertion], generator=generator(1))
    assert violations(point, lifted, x, insertion) == ()


def test_merging_is_the_composition_of_affine_maps() -> None:
    g = generator(0)
    first = Layer(torch.randn(4, 2, generator=g).double(), torch.randn(4, generator=g).double())
    second = Layer(torch.randn(3, 4, generator=g).double(), torch.randn(3, generator=g).double())
    slope, intercept = torch.randn(4, generator=g).double(), torch.randn(4, generator=g).double()
    merged = merge(first, second, slope, intercept)
    x = torch.randn(2, generator=g).double()
    by_hand = second.weight @ (slope * (first.weight @ x + first.bias) + intercept) + second.bias
    torch.testing.assert_close(merged.weight @ x + merged.bias, by_hand)
