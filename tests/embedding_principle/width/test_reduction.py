"""Reduction of trained ReLU networks: groups against a plain loop, merging against the exact output."""

import pytest
import torch
from torch import Generator, Tensor

from embedding_principle.activations import relu, tanh
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.width.reduction import aligned_groups, reduced, shuffled_groups


def network(incoming: Tensor, outgoing: Tensor) -> Parametrised:
    """From incoming vectors with bias (m, d + 1) and outgoing ones (m, p)."""
    layers = [Layer(incoming[:, :-1], incoming[:, -1]), Layer(outgoing.mT, torch.ones(outgoing.shape[1]).double())]
    widths = (incoming.shape[1] - 1, *outgoing.shape)
    return Parametrised(Network.uniform(widths, relu), flatten(layers))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed)).double()


def collinear() -> tuple[Parametrised, Tensor]:
    """Twelve neurons in four directions, of several lengths, and which direction each has."""
    labels = torch.arange(12) % 4
    lengths = 0.5 + normal(12, 1, seed=1).abs()
    return network(lengths * normal(4, 4)[labels], normal(12, 2, seed=2)), labels


@pytest.mark.parametrize("published", [True, False])
def test_neurons_of_one_direction_merge_without_a_change_on_any_input(published: bool) -> None:
    point, labels = collinear()
    generator = Generator().manual_seed(3) if published else None
    narrow = reduced(point, labels, generator=generator)
    x = 10 * normal(50, 3, seed=4)
    assert narrow.network.widths == (3, 4, 2)
    torch.testing.assert_close(narrow.forward(x), point.forward(x), rtol=1e-12, atol=1e-12)


def test_groups_of_collinear_neurons_are_found() -> None:
    point, labels = collinear()
    found = aligned_groups(point, cosine=0.999)
    assert len(found.unique()) == 4
    assert all(len(found[labels == k].unique()) == 1 for k in range(4))


@pytest.mark.parametrize("cosine", [0.5, 0.8, 0.95])
def test_groups_are_those_of_a_plain_loop(cosine: float) -> None:
    incoming, outgoing = normal(40, 3, seed=5), normal(40, 2, seed=6)
    strength = [float(u.norm() * a.norm()) for u, a in zip(incoming, outgoing)]
    means: list[Tensor] = []
    expected = {}
    for j in sorted(range(40), key=lambda j: -strength[j]):
        u = incoming[j] / incoming[j].norm()
        cosines = [float(mean @ u / mean.norm()) for mean in means]
        if not cosines or max(cosines) < cosine:
            means.append(torch.zeros(3).double())
            cosines.append(2.0)
        label = cosines.index(max(cosines))
        means[label] = means[label] + strength[j] * u
        expected[j] = label
    found = aligned_groups(network(incoming, outgoing), cosine=cosine, silent=0.0)
    assert found.tolist() == [expected[j] for j in range(40)]


def test_silent_neurons_are_left_out_and_change_little() -> None:
    incoming, outgoing = normal(6, 3, seed=7), normal(6, 1, seed=8)
    outgoing[4:] *= 1e-6
    point = network(incoming, outgoing)
    labels = aligned_groups(point, cosine=1.0)
    assert labels[4:].tolist() == [-1, -1]
    x = normal(20, 2, seed=9)
    difference = (reduced(point, labels).forward(x) - point.forward(x)).abs().max()
    assert 0 < difference < 1e-4


def test_the_published_rule_keeps_a_neuron_of_each_group_with_the_sum_of_strengths() -> None:
    incoming, outgoing = normal(9, 3, seed=10), normal(9, 2, seed=11)
    labels = torch.arange(9) % 3
    narrow = reduced(network(incoming, outgoing), labels, generator=Generator().manual_seed(12))
    first, second = narrow.layers()
    kept = torch.cat([first.weight, first.bias[:, None]], 1)
    for k in range(3):
        members = incoming[labels == k]
        assert any(torch.equal(kept[k], member) for member in members)
        total = (members.norm(dim=1, keepdim=True) * outgoing[labels == k]).sum(0)
        torch.testing.assert_close(second.weight[:, k] * kept[k].norm(), total)


def test_shuffled_groups_have_the_same_sizes() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2, -1, -1])
    mixed = shuffled_groups(labels, generator=Generator().manual_seed(13))
    assert mixed.sort().values.tolist() == labels.sort().values.tolist()
    assert torch.equal(mixed == -1, labels == -1)
    assert not torch.equal(mixed, labels)


def test_errors_name_the_parameter() -> None:
    point, labels = collinear()
    with pytest.raises(ValueError, match="labels: expected groups 0, 1"):
        reduced(point, labels + 1)
    with pytest.raises(ValueError, match="labels: expected dense integers from -1 on"):
        reduced(point, labels.double())
    with pytest.raises(ValueError, match="point: expected ReLU"):
        reduced(Parametrised(Network.uniform((3, 12, 2), tanh), point.theta), labels)
