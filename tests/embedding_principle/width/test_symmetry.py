"""Symmetry-induced critical points: counts by three channels, members, paths, local dimensions, classes."""

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Generator

from embedding_principle.activations import Activation, elu, sigmoid, softplus, tanh
from embedding_principle.curvature.hessian import hessian
from embedding_principle.datasets import wine
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy
from embedding_principle.width.symmetry import (
    along,
    bell,
    classified,
    configurations,
    count_by_orbits,
    critical_subspaces,
    crossover,
    fit,
    global_subspaces,
    member,
    relaxed_path,
    subspace_dimension,
    swap_path,
)

WIDTHS = [(r, m) for m in range(1, 8) for r in range(1, m + 1)]


def teacher(r: int, activation: Activation = tanh, inputs: int = 2, outputs: int = 1, seed: int = 0) -> Parametrised:
    generator = Generator().manual_seed(seed)
    outgoing = torch.randn(outputs, r, generator=generator).double()
    layers = [
        Layer(1.5 * torch.randn(r, inputs, generator=generator).double(), torch.randn(r, generator=generator).double()),
        Layer(outgoing.sign() * (outgoing.abs() + 0.5), torch.randn(outputs, generator=generator).double()),
    ]
    return Parametrised(Network.uniform((inputs, r, outputs), activation), flatten(layers))


def points(n: int = 60, inputs: int = 2) -> torch.Tensor:
    return torch.randn(n, inputs, generator=Generator().manual_seed(1)).double()


@pytest.mark.parametrize(("r", "m"), WIDTHS)
def test_the_formulas_count_what_is_listed_and_what_the_orbits_give(r: int, m: int) -> None:
    listed = configurations(r, m)
    assert len(set(listed)) == len(listed) == global_subspaces(r, m) == count_by_orbits(r, m)
    plain = [labels for labels in listed if max(labels) < r]
    assert len(plain) == critical_subspaces(r, m) == count_by_orbits(r, m, zero_groups=False)


@pytest.mark.parametrize(("r", "m"), [(1, 4), (2, 5), (3, 5), (5, 6)])
def test_the_list_is_what_a_filter_over_all_labellings_leaves(r: int, m: int) -> None:
    def canonical(labels: tuple[int, ...]) -> bool:
        zero = list(dict.fromkeys(label for label in labels if label >= r))
        return set(range(r)) <= set(labels) and zero == list(range(r, r + len(zero)))

    everything = itertools.product(range(m + 1), repeat=m)
    assert set(configurations(r, m)) == {labels for labels in everything if canonical(labels)}


@pytest.mark.parametrize(("r", "m"), [(1, 3), (2, 4), (3, 6)])
def test_with_an_output_bias_constant_neurons_are_one_more_class(r: int, m: int) -> None:
    # One of the zero groups, or none, is the class of constant neurons.
    groups = Counter(len(set(labels)) - r for labels in configurations(r, m))
    assert global_subspaces(r, m, output_bias=True) == sum(count * (j + 1) for j, count in groups.items())


def test_bell_numbers_follow_their_recursion() -> None:
    for n in range(12):
        assert bell(n + 1) == sum(math.comb(n, k) * bell(k) for k in range(n + 1))


def test_the_crossover_is_where_brute_sums_cross() -> None:
    assert [crossover(r) for r in (2, 3, 5, 10, 20, 40)] == [0, 1, 1, 3, 8, 17]
    h = crossover(5)
    for excess in range(4):
        below = sum(critical_subspaces(s, 5 + excess) for s in range(1, 5))
        assert (global_subspaces(5, 5 + excess) > below) == (excess >= h)


@pytest.mark.parametrize("activation", [tanh, sigmoid, softplus, elu])
@pytest.mark.parametrize("outputs", [1, 2])
def test_members_compute_the_narrow_function_everywhere(activation: Activation, outputs: int) -> None:
    narrow = teacher(3, activation, outputs=outputs)
    far = 5 * points(20)
    for seed, labels in enumerate(configurations(3, 5)):
        wide = member(narrow, labels, generator=Generator().manual_seed(seed))
        assert (wide.forward(far) - narrow.forward(far)).abs().max() < 1e-12


@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
def test_criticality_is_inherited_without_zero_groups_only(loss: str) -> None:
    data = wine()
    inputs = data.inputs[::2]
    narrow = teacher(2, sigmoid, inputs.shape[1], 3)
    options = {"loss": cross_entropy, "residual": 0.5} if loss == "cross-entropy" else {}
    risk = plant(narrow, inputs, generator=Generator().manual_seed(3), **options)  # type: ignore[arg-type]
    for labels in configurations(2, 4):
        wide = member(narrow, labels, generator=Generator().manual_seed(4))
        gradient = risk.on(wide.network).gradient(wide.theta).norm()
        assert (gradient < 1e-12) == (max(labels) < 2), labels


@pytest.mark.parametrize("labels", [(0, 0, 1), (0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1, 2, 3)])
def test_the_dimension_is_that_of_the_affine_hull_and_of_nearby_zeros(labels: tuple[int, ...]) -> None:
    narrow, x = teacher(2), points()
    expected = subspace_dimension(labels, 2, 3)
    generator = Generator().manual_seed(5)
    cloud = torch.stack([member(narrow, labels, generator=generator).theta for _ in range(40)])
    assert int(torch.linalg.matrix_rank(cloud - cloud.mean(0), rtol=1e-10)) == expected
    wide = member(narrow, labels, generator=generator)
    risk = Risk(wide.network, x, narrow.forward(x))
    noise = torch.randn(30, len(wide.theta), generator=generator).double()
    noise[:, -1] = 0
    starts, free = wide.theta + 1e-2 * noise, torch.arange(len(wide.theta) - 1)
    ends = fit(risk, starts, free, steps=300, goal=1e-30)
    ends = ends[risk(ends) < 1e-26]
    assert len(ends) > 20
    scales = torch.linalg.svdvals(ends - ends.mean(0))
    assert int((scales > 1e-2 * scales[0]).sum()) == expected


@pytest.mark.parametrize("activation", [tanh, softplus, sigmoid, elu])
@pytest.mark.parametrize("r", [2, 3, 4])
def test_the_path_keeps_the_output_and_ends_at_the_exchange(activation: Activation, r: int) -> None:
    narrow, x = teacher(r, activation), points()
    wide = member(narrow, (*range(r), r), generator=Generator().manual_seed(6))
    for i, j in itertools.permutations(range(r), 2):
        corners = swap_path(wide.with_theta(_without_outgoing(wide, r)), i, j, r)
        line = along(corners)
        assert (wide.network.forward(line, x) - narrow.forward(x)).abs().max() < 1e-12
        order = list(range(r + 1))
        order[i], order[j] = j, i
        first, second = Parametrised(wide.network, corners[0]).layers()
        swapped = [Layer(first.weight[order], first.bias[order]), Layer(second.weight[:, order], second.bias)]
        torch.testing.assert_close(corners[-1], flatten(swapped), rtol=0, atol=0)
        assert ((corners[1:] - corners[:-1]).norm(dim=1) > 0).all()


def _without_outgoing(point: Parametrised, neuron: int) -> torch.Tensor:
    theta = point.theta.clone()
    point.network.layers(theta)[1].weight[:, neuron] = 0
    return theta


def test_a_relaxed_path_is_lower_than_the_straight_one_and_keeps_its_ends() -> None:
    narrow, x = teacher(2), points()
    risk = Risk(narrow.network, x, narrow.forward(x))
    first, second = narrow.layers()
    end = flatten([Layer(first.weight.flip(0), first.bias.flip(0)), Layer(second.weight.flip(1), second.bias)])
    path = relaxed_path(risk, narrow.theta, end, generator=Generator().manual_seed(7), steps=200)
    assert torch.equal(path[0], narrow.theta)
    assert torch.equal(path[-1], end)
    straight = risk(along(torch.stack([narrow.theta, end]), steps=100)).max()
    assert 1e-6 < risk(along(path)).max() < 0.7 * straight
    lengths = (path[1:] - path[:-1]).norm(dim=1)
    assert lengths.max() < 1.3 * lengths.min()


def test_the_fit_lowers_the_risk_moves_the_free_parameters_only_and_ends_critical() -> None:
    narrow, x = teacher(2, sigmoid), points()
    risk = Risk(Network.uniform((2, 3, 1), sigmoid), x, narrow.forward(x) + 0.1 * x[:, :1] ** 2)
    starts = torch.randn(4, risk.network.n_parameters, generator=Generator().manual_seed(8)).double()
    free = torch.cat([torch.arange(6), torch.arange(9, risk.network.n_parameters)])
    ends = fit(risk, starts, free, steps=30)
    assert (risk(ends) < risk(starts)).all()
    assert torch.equal(ends[:, 6:9], starts[:, 6:9])
    stages = torch.stack([risk(fit(risk, starts, free, steps=steps)) for steps in range(12)])
    assert (stages[1:] <= stages[:-1]).all()
    reached = Risk(Network.uniform((2, 2, 1), sigmoid), x, narrow.forward(x))
    everything = torch.arange(reached.network.n_parameters)
    ends = fit(reached, narrow.theta + 0.01 * starts[:, :9], everything, steps=60)
    assert reached(ends).max() < 1e-20
    assert torch.linalg.eigvalsh(hessian(reached, ends[0]))[0] > 0


def test_neurons_are_classified_as_they_were_built() -> None:
    narrow = teacher(3)
    for seed, labels in enumerate(configurations(3, 5)):
        wide = member(narrow, labels, generator=Generator().manual_seed(seed))
        assert classified(wide, narrow) == labels


def test_a_group_that_does_not_cancel_is_of_no_class() -> None:
    narrow = teacher(2)
    wide = member(narrow, (0, 1, 2, 2, 3), generator=Generator().manual_seed(9))
    wide.layers()[1].weight[0, 2] += 1e-3
    assert classified(wide, narrow) == (0, 1, -1, -1, 2)
    assert classified(wide, narrow, outgoing=1e-2) == (0, 1, 2, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_subspaces(3, 2), "m: expected a whole number from 3 to"),
        (lambda: configurations(1, 14), "m: there are more than"),
        (lambda: subspace_dimension((0, 2), 1, 2), "labels: expected each of 0"),
        (lambda: member(teacher(2), (0, 0), generator=Generator()), "labels: expected each of 0"),
        (lambda: swap_path(teacher(3), 0, 1, 1), "spare: expected three different neurons"),
        (lambda: swap_path(teacher(3), 0, 1, 2), "spare: its outgoing weights are not zero"),
        (lambda: along(torch.ones(1, 2)), "corners: expected at least two"),
    ],
)
def test_errors_name_the_parameter_and_the_remedy(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
