"""Origins of critical points: against the embeddings they came from, exact outputs, and dense Hessians."""

import pytest
import torch
from torch import Generator, Tensor

from embedding_principle.activations import Activation, elu, sigmoid, tanh
from embedding_principle.critical_points import search
from embedding_principle.curvature.inertia import inertia
from embedding_principle.datasets import one_dimensional, wine
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy
from embedding_principle.width.encounters import CONSTANT, SILENT, equal_functions, equal_neurons, origin
from embedding_principle.width.splitting import split, with_null_neuron


def narrow(widths: tuple[int, ...], activation: Activation, seed: int = 0) -> Parametrised:
    network = Network.uniform(widths, activation)
    return Parametrised(network, network.initial(Generator().manual_seed(seed), scale=2.0, bias_scale=1.0))


def silent(point: Parametrised) -> Parametrised:
    """One neuron more, with incoming weights of its own and no outgoing ones."""
    wide = with_null_neuron(point, 0, 0.3)
    first, second = wide.layers()
    weight = first.weight.clone()
    weight[-1] = torch.linspace(1, 2, weight.shape[1])
    return wide.with_theta(flatten([Layer(weight, first.bias), second]))


@pytest.mark.parametrize("activation", [tanh, sigmoid, elu], ids=lambda one: one.name)
@pytest.mark.parametrize("widths", [(1, 2, 1), (3, 2, 2), (13, 3, 3)])
def test_the_origin_of_an_embedded_point_is_the_point(widths: tuple[int, int, int], activation: Activation) -> None:
    point = narrow(widths, activation)
    wide = with_null_neuron(silent(split(split(point, 0, 0, (0.3, 0.7)), 0, 1, (-1.0, 1.5, 0.5))), 0, -0.4)
    back = origin(wide)
    assert back.network == point.network
    torch.testing.assert_close(back.theta, point.theta, rtol=1e-14, atol=1e-14)
    copies = widths[1]
    assert equal_neurons(wide).tolist() == [*range(copies), 0, 1, 1, SILENT, CONSTANT]


def test_neurons_of_opposite_weights_merge_for_odd_activations_only() -> None:
    first = Layer(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0.5, -0.5]).double())
    second = Layer(torch.tensor([[2.0, -3.0]]).double(), torch.tensor([0.1]).double())
    x = torch.linspace(-3, 3, 11).double()[:, None]
    for activation, width in ((tanh, 1), (sigmoid, 2)):
        point = Parametrised(Network.uniform((1, 2, 1), activation), flatten([first, second]))
        assert origin(point).network.widths == (1, width, 1)
        torch.testing.assert_close(origin(point).forward(x), point.forward(x), rtol=1e-14, atol=1e-14)


def test_opposite_copies_that_cancel_are_silent() -> None:
    point = narrow((2, 2, 1), tanh)
    wide = silent(point)
    first, second = wide.layers()
    weight, bias = torch.cat([first.weight, -first.weight[-1:]]), torch.cat([first.bias, -first.bias[-1:]])
    outgoing = torch.cat([second.weight, torch.full((1, 1), 0.8).double()], 1)
    outgoing[:, 2] = 0.8
    point_of_four = Parametrised(
        Network.uniform((2, 4, 1), tanh), flatten([Layer(weight, bias), Layer(outgoing, second.bias)])
    )
    assert equal_neurons(point_of_four).tolist() == [0, 1, SILENT, SILENT]
    torch.testing.assert_close(origin(point_of_four).theta, point.theta)


def test_the_constant_of_a_neuron_without_inputs_moves_into_the_output_bias() -> None:
    point = with_null_neuron(narrow((2, 2, 2), sigmoid), 0, 0.7)
    first, second = point.layers()
    weight = second.weight.clone()
    weight[:, -1] = torch.tensor([1.0, -2.0])
    point = point.with_theta(flatten([first, Layer(weight, second.bias)]))
    x = torch.randn(9, 2, generator=Generator().manual_seed(1)).double()
    assert origin(point).network.widths == (2, 2, 2)
    torch.testing.assert_close(origin(point).forward(x), point.forward(x), rtol=1e-14, atol=1e-14)


def dense_zeros(risk: Risk, theta: Tensor) -> int:
    """Zero eigenvalues of the Hessian that autograd makes, one derivative after the other."""
    matrix = torch.func.hessian(risk)(theta)
    return inertia((matrix + matrix.mT) / 2).zero


@pytest.mark.parametrize("activation", [tanh, sigmoid], ids=lambda one: one.name)
def test_the_degeneracy_at_copies_is_the_number_of_neurons_too_many(activation: Activation) -> None:
    point = narrow((1, 2, 1), activation, seed=3)
    x = torch.linspace(-2, 2, 30).double()[:, None]
    risk = plant(point, x, generator=Generator().manual_seed(0), residual=0.5)
    assert dense_zeros(risk, point.theta) == 0
    for shares in ((0.5, 0.5), (0.3, -0.5, 1.2)):
        wide = split(point, 0, 0, shares)
        width = int(equal_neurons(wide).max()) + 1
        assert dense_zeros(risk.on(wide.network), wide.theta) == wide.network.widths[1] - width == len(shares) - 1


def test_origins_of_points_that_a_search_finds_are_critical() -> None:
    data = one_dimensional("wave")
    risk = Risk(Network.uniform((1, 3, 1), tanh), data.inputs, data.targets)
    starts = risk.network.initial(Generator().manual_seed(5), scale=2.0, bias_scale=1.0, batch=(48,))
    found = search(risk, starts, descend=False)
    narrower = 0
    for theta in found.theta[found.converged]:
        labels = equal_neurons(risk.at(theta))
        if labels.max() < 0:
            continue
        back = origin(risk.at(theta))
        narrower += back.network.widths[1] < 3
        reduced = risk.on(back.network)
        torch.testing.assert_close(
            back.forward(data.inputs), risk.network.forward(theta, data.inputs), rtol=0, atol=1e-4
        )
        # The tolerance of equal neurons, times the curvature of the risk.
        assert float(reduced.gradient(back.theta).norm()) < 1e-4
    assert narrower > 5


def test_origins_with_the_cross_entropy_on_wine() -> None:
    data = wine()
    point = narrow((13, 2, 3), sigmoid)
    wide = split(point, 0, 1, (0.25, 0.75))
    risk = Risk(wide.network, data.inputs, data.targets, cross_entropy)
    back = origin(wide)
    assert float(risk.on(back.network)(back.theta)) == pytest.approx(float(risk(wide.theta)), rel=1e-13, abs=0)


def test_functions_are_told_apart_as_a_plain_loop_does() -> None:
    generator = Generator().manual_seed(0)
    kinds = torch.randint(4, (40,), generator=generator)
    functions = torch.randn(4, 7, 2, generator=generator).double()
    outputs = functions[kinds] + 1e-7 * torch.randn(40, 7, 2, generator=generator).double()
    seen: list[int] = []
    expected = []
    for kind in kinds.tolist():
        seen += [kind] if kind not in seen else []
        expected.append(seen.index(kind))
    assert equal_functions(outputs).tolist() == expected
    assert len(set(equal_functions(outputs, tolerance=1e-9).tolist())) == 40


def test_a_function_between_two_others_stays_with_the_first() -> None:
    outputs = torch.tensor([0.0, 0.9e-3, 1.8e-3, 1.0]).double()[:, None, None]
    assert equal_functions(outputs, tolerance=1e-3).tolist() == [0, 0, 1, 2]


def test_what_has_no_origin_is_refused() -> None:
    network = Network.uniform((1, 2, 1), tanh)
    with pytest.raises(ValueError, match="point: its function is constant"):
        origin(Parametrised(network, torch.zeros(7).double()))
    with pytest.raises(ValueError, match="position: no hidden layer at 2"):
        equal_neurons(narrow((1, 2, 2, 1), tanh), position=2)
    with pytest.raises(ValueError, match="point: copies are sought without batch normalization"):
        origin(Parametrised(Network.uniform((1, 2, 1), tanh, batch_norm_epsilon=1e-5), torch.zeros(11)))


def test_every_hidden_layer_is_narrowed_until_none_is_left_to_narrow() -> None:
    point = narrow((2, 2, 2, 1), tanh)
    wide = split(split(point, 1, 0, [0.3, 0.7]), 0, 1, [0.6, 0.4])
    wide = with_null_neuron(wide, 1, 0.3)
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = origin(wide)
    assert wide.network.widths == (2, 3, 4, 1)
    assert back.network.widths == (2, 2, 2, 1)
    torch.testing.assert_close(back.forward(x), wide.forward(x), rtol=1e-13, atol=1e-13)


def test_neurons_that_become_copies_once_others_have_merged_are_merged_too() -> None:
    inner = Layer(torch.tensor([[2.0], [2.0]]), torch.tensor([0.5, 0.5]))
    middle = Layer(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.1, 0.1]))
    last = Layer(torch.tensor([[1.0, 3.0]]), torch.zeros(1))
    wide = Parametrised(Network.uniform((1, 2, 2, 1), tanh), flatten([inner, middle, last]))
    x = torch.linspace(-1, 1, 5).double()[:, None]
    back = origin(wide)
    assert back.network.widths == (1, 1, 1, 1)
    torch.testing.assert_close(back.forward(x), wide.forward(x), rtol=1e-13, atol=1e-13)
