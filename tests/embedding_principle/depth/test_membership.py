"""Membership in the lifted set does not depend on the units of inputs, outputs and neurons."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, Activation, leaky_relu, relu, tanh
from embedding_principle.depth.lifting import Insertion, lift, violations
from embedding_principle.networks import Layer, Network, Parametrised, flatten

# Those whose pieces stay what they are when a neuron gets another unit, and all that can be lifted.
HOMOGENEOUS = [relu, leaky_relu(), leaky_relu(0.3), ACTIVATIONS["identity"]]
LIFTABLE = [*(activation for activation in ACTIVATIONS.values() if activation.pieces), leaky_relu(0.3)]
# 2^±40 is 1e±12: powers of two, by which nothing is rounded.
exponents = st.integers(-40, 40)
Problem = tuple[Parametrised, Parametrised, torch.Tensor, Insertion]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(activation: Activation, seed: int, position: int = 0) -> Problem:
    g = generator(seed)
    network, insertion = Network.uniform((2, 3, 2), tanh), Insertion(position, 4, activation)
    x = torch.randn(7, 2, generator=g, dtype=torch.float64)
    point = Parametrised(network, network.initial(g, bias_scale=0.5))
    return point, lift(point, x, [insertion], generator=g), x, insertion


def by_name(activation: Activation) -> str:
    return activation.name


def with_layers(point: Parametrised, layers: list[Layer]) -> Parametrised:
    return point.with_theta(flatten(layers))


def rescaled(case: Problem, unit: float) -> Problem:
    """Inputs times s, and the weights on them over s."""
    point, deep, x, insertion = case
    points = []
    for each in (point, deep):
        first, *others = each.layers()
        points.append(with_layers(each, [Layer(first.weight / unit, first.bias), *others]))
    return points[0], points[1], unit * x, insertion


def off(deep: Parametrised, insertion: Insertion) -> Parametrised:
    """B, b′ and so every equation of condition 3 off by a millionth."""
    layers = deep.layers()
    second = layers[insertion.position + 1]
    layers[insertion.position + 1] = Layer((1 + 1e-6) * second.weight, (1 + 1e-6) * second.bias)
    return with_layers(deep, layers)


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
@pytest.mark.parametrize("position", [0, 1])
@given(exponent=exponents, seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_the_unit_of_the_inputs_does_not_matter(
    activation: Activation, exponent: int, seed: int, position: int
) -> None:
    point, deep, x, insertion = rescaled(problem(activation, seed, position), 2.0**exponent)
    assert violations(point, deep, x, insertion) == ()
    found = violations(point, off(deep, insertion), x, insertion)
    assert {violation.condition for violation in found} == {"output preservation"}


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
@given(units=st.tuples(exponents, exponents), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_nor_do_the_units_of_the_outputs(activation: Activation, units: tuple[int, int], seed: int) -> None:
    point, deep, x, insertion = problem(activation, seed, 1)
    factors = torch.tensor([2.0**unit for unit in units], dtype=torch.float64)
    for each in (point, deep):
        last = each.layers()[-1]
        last.weight.mul_(factors[:, None])
        last.bias.mul_(factors)
    assert violations(point, deep, x, insertion) == ()
    assert violations(point, off(deep, insertion), x, insertion) != ()


@pytest.mark.parametrize("activation", HOMOGENEOUS, ids=by_name)
@pytest.mark.parametrize("position", [0, 1])
@given(units=st.lists(exponents, min_size=4, max_size=4), seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_nor_do_the_units_of_inserted_neurons(
    activation: Activation, units: list[int], seed: int, position: int
) -> None:
    point, deep, x, insertion = problem(activation, seed, position)
    factors = torch.tensor([2.0**unit for unit in units], dtype=torch.float64)
    first, second = deep.layers()[position : position + 2]
    first.weight.mul_(factors[:, None])
    first.bias.mul_(factors)
    second.weight.div_(factors)
    assert violations(point, deep, x, insertion) == ()
    assert violations(point, off(deep, insertion), x, insertion) != ()


def test_small_weights_of_large_inputs_are_not_members_of_anything() -> None:
    """W = 1e-9 on inputs of 1e9: an error of 9 % in W is one of 9 % in the output, though 1e-10 in W."""
    x = torch.tensor([[-1e9], [1e9]], dtype=torch.float64)
    line = Parametrised(Network((1, 1)), torch.tensor([1e-9, 0.0]).double())
    member = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1e-9, 2.0, 1.0, -2.0]).double())
    assert violations(line, member, x, Insertion(0, 1, relu)) == ()
    wrong = member.with_theta(torch.tensor([1.09e-9, 2.0, 1.0, -2.0]).double())
    (violation,) = violations(line, wrong, x, Insertion(0, 1, relu))
    assert violation.condition == "output preservation"


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
@pytest.mark.parametrize("exponent", [-40, 0, 40])
def test_inherited_parameters_are_compared_with_their_own_size(activation: Activation, exponent: int) -> None:
    point, deep, x, insertion = problem(activation, 0, 1)
    for each in (point, deep):
        each.layers()[0].weight[0, 0] = 2.0**exponent
    deep = lift(point, x, [insertion], generator=generator(1))
    assert violations(point, deep, x, insertion) == ()
    deep.layers()[0].weight[0, 0] *= 1 + 1e-6
    assert "inheritance" in {violation.condition for violation in violations(point, deep, x, insertion)}


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
@pytest.mark.parametrize("position", [0, 1])
def test_a_parameter_that_is_not_a_number_makes_no_member(activation: Activation, position: int) -> None:
    point, deep, x, insertion = problem(activation, 0, position)
    for index in range(len(deep.theta)):
        theta = deep.theta.clone()
        theta[index] = math.nan
        assert violations(point, deep.with_theta(theta), x, insertion) != ()
    nowhere = point.with_theta(torch.full_like(point.theta, math.nan))
    assert violations(nowhere, deep.with_theta(torch.full_like(deep.theta, math.nan)), x, insertion) != ()


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
def test_the_weight_of_a_feature_that_is_zero_on_the_training_set_counts(activation: Activation) -> None:
    point, _, x, insertion = problem(activation, 0)
    x[:, 1] = 0
    deep = lift(point, x, [insertion], generator=generator(1))
    assert violations(point, deep, x, insertion) == ()
    layers = point.layers()
    layers[0].weight[0, 1] *= 1 + 1e-6
    assert {v.condition for v in violations(point, deep, x, insertion)} == {"output preservation"}


@pytest.mark.parametrize("activation", LIFTABLE, ids=by_name)
def test_zero_weights_are_lifted_up_to_rounding(activation: Activation) -> None:
    point, _, x, insertion = problem(activation, 0)
    point.layers()[0].weight.zero_()
    deep = lift(point, x, [insertion], generator=generator(1))
    assert violations(point, deep, x, insertion) == ()
    deep.layers()[1].bias[0] += 1e-6
    assert violations(point, deep, x, insertion) != ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_float_types_are_converted(dtype: torch.dtype) -> None:
    x = torch.tensor([[-1.0], [1.0]], dtype=dtype)
    line = Parametrised(Network((1, 1)), torch.tensor([2.0, 0.0], dtype=dtype))
    member = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0], dtype=dtype))
    assert violations(line, member, x, Insertion(0, 1, relu)) == ()
