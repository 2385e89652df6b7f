"""Reduction of a trained wide ReLU network to a narrower one: neurons that point the same way are merged.

Zhang et al. (arXiv:2105.14573), Figure 5. A ReLU neuron is positively homogeneous, a σ(w·x + b) = ‖u‖ a σ(û·x) with
u = (w, b) and û its direction (x with a one appended): neurons of the same direction are one neuron with the sum of
their ‖u‖a. The *strength* of a neuron is ‖u‖‖a‖.
"""

import torch
from torch import Generator, Tensor

from embedding_principle.arguments import checked, class_numbers, number
from embedding_principle.networks import Layer, Parametrised

SILENT = -1


@checked
def aligned_groups(point: Parametrised, *, cosine: float = 0.9, silent: float = 1e-3) -> Tensor:
    """Groups of neurons whose directions û agree, numbered from 0 by strength of their first; −1 for silent neurons.

    The strongest neuron leads the first group. Each next one joins the group whose mean direction, weighted by
    strength, is nearest, if the cosine is at least `cosine`; otherwise it leads a group of its own.

    Args:
        point: one hidden layer, (P,).
        cosine: least cosine of a neuron and its group.
        silent: the weakest neurons, with this share of all strength together, are silent.

    Returns:
        (m,) of integers.

    Raises:
        ValueError: if the network has another number of hidden layers or several points, or a number is out of range.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 2.0, -1.0, 0.0, 0.1, 0.0, 1.0, 1.0, 3.0, 0.0]).double()
        >>> aligned_groups(Parametrised(Network.uniform((1, 3, 1), relu), theta)).tolist()
        [1, 1, 0]
    """
    incoming, outgoing = _parts(point)
    cosine = number("cosine", cosine, at_least=-1.0)
    silent = number("silent", silent, at_least=0.0, below=1.0)
    strengths = incoming.norm(dim=1) * outgoing.norm(dim=1)
    directions = torch.nn.functional.normalize(incoming, dim=1)
    order = strengths.argsort(descending=True)
    # What is left, this neuron included, when the stronger ones are placed.
    left = strengths[order].flip(0).cumsum(0).flip(0)
    labels = torch.full((len(incoming),), SILENT)
    means = torch.zeros_like(incoming)
    groups = 0
    for neuron in order[left > silent * left[0]].tolist():
        cosines = torch.nn.functional.normalize(means[:groups], dim=1) @ directions[neuron]
        label = int(cosines.argmax()) if groups and float(cosines.max()) >= cosine else groups
        groups = max(groups, label + 1)
        means[label] += strengths[neuron] * directions[neuron]
        labels[neuron] = label
    return labels


@checked
def shuffled_groups(labels: Tensor, *, generator: Generator) -> Tensor:
    """The same groups' sizes with neurons drawn at random; silent neurons stay silent.

    Args:
        labels: (m,), as `aligned_groups` gives them.
        generator: of the permutation.

    Raises:
        ValueError: if the labels are not integers from −1 on, (m,).

    Example:
        >>> shuffled_groups(torch.tensor([0, -1, 0, 1]), generator=Generator().manual_seed(0)).sort().values.tolist()
        [-1, 0, 0, 1]
    """
    labels = _labels(labels, labels.numel())
    live = (labels != SILENT).nonzero().flatten()
    mixed = labels.clone()
    mixed[live] = labels[live[torch.randperm(len(live), generator=generator)]]
    return mixed


@checked
def reduced(point: Parametrised, labels: Tensor, *, generator: Generator | None = None) -> Parametrised:
    """The network with one neuron for each group, without the silent ones.

    Args:
        point: one hidden layer of ReLU neurons, (P,).
        labels: of the groups, (m,), −1 for what is left out.
        generator: with one, the published rule: a random neuron j of each group is kept, with outgoing weights
            Σ_k a_k ‖u_k‖ / ‖u_j‖. Without, the direction is the mean weighted by strength, of length 1.

    Raises:
        ValueError: if the network has another number of hidden layers, another activation, or several points, or the
            labels are not those of groups 0, 1, … without a gap.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 0.0]).double()
        >>> wide = Parametrised(Network.uniform((1, 3, 1), relu), theta)
        >>> reduced(wide, torch.tensor([0, 0, 1])).theta.tolist()
        [1.0, -1.0, 0.0, 0.0, 3.0, 3.0, 0.0]
    """
    incoming, outgoing = _parts(point)
    if point.network.activations[0].name != "relu":
        raise ValueError("point: expected ReLU, whose neurons are positively homogeneous; give such a network")
    labels = _labels(labels, len(incoming))
    groups = int(labels.max()) + 1
    if not groups or len(torch.unique(labels[labels != SILENT])) < groups:
        raise ValueError("labels: expected groups 0, 1, … without a gap, at least one; number them anew")
    lengths = incoming.norm(dim=1)
    place = torch.nn.functional.one_hot(labels.clamp(min=0), groups).double() * (labels != SILENT)[:, None]
    total = place.mT @ (lengths[:, None] * outgoing)
    if generator is None:
        weighted = place * outgoing.norm(dim=1)[:, None]
        kept = torch.nn.functional.normalize(weighted.mT @ incoming, dim=1)
    else:
        # The largest of uniform random keys in each group.
        keys = place * (1 + torch.rand(len(labels), 1, generator=generator, dtype=torch.float64))
        kept = incoming[keys.argmax(0)]
    length = kept.norm(dim=1, keepdim=True)
    weights = torch.where(length > 0, total / length, torch.zeros_like(total))
    second = Layer(weights.mT, point.single("point").layers()[1].bias)
    return point.single("point").replaced(0, Layer(kept[:, :-1], kept[:, -1]), second)


def _parts(point: Parametrised) -> tuple[Tensor, Tensor]:
    """Incoming vectors, (m, d + 1), and outgoing ones, (m, p)."""
    point.network.check_one_hidden_layer("point")
    first, second = point.single("point").layers()
    return first.incoming, second.weight.mT


def _labels(labels: Tensor, count: int) -> Tensor:
    """Integers from −1 on, (count,)."""
    if labels.layout is torch.strided and labels.is_cpu and labels.dtype in (torch.int64, torch.int32):
        return class_numbers("labels", labels + 1, count) - 1
    raise ValueError(f"labels: expected dense integers from -1 on, got {labels.dtype}; convert with .to_dense().long()")
