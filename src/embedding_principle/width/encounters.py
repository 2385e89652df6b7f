r"""Where critical points of a wide network come from: merged and silent neurons, and the origin.

Zhang et al. (arXiv:2105.14573), Figure 4, sort the critical points of a network of width m by their
*origin*: the narrowest network with the same function, of width m₀. Neurons that receive the same incoming weights
and bias are merged, and their outgoing weights are added; for an odd activation, σ(−z) = −σ(z), so are neurons of
opposite weights. Neurons that transmit nothing, or whose incoming weights vanish, are left out; the constant of the
latter moves into the output bias. At m₀ copies of shares that are not zero the degeneracy of the Hessian is m − m₀,
if the origin's own Hessian and its blocks M are regular (book, chapter on splitting).
"""

import torch
from torch import Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked, number, real
from embedding_principle.networks import Layer, Parametrised

# The labels of neurons that are left out.
SILENT, CONSTANT = -1, -2

# Outputs of converged searches for the same critical function agree to 1e-7 at least, along flat directions too.
_SAME = 1e-5


@checked
def equal_neurons(point: Parametrised, *, position: int = 0, tolerance: float = _SAME) -> Tensor:
    """Which neurons of a hidden layer are copies: labels 0, 1, …, or −1 for silent ones, −2 for constant ones.

    Incoming weights and bias agree if no entry differs by more than `tolerance` of 1 + the largest entry. A group is
    silent if its outgoing weights sum to less than that in modulus, a neuron constant if its incoming weights (without
    bias) are as small.

    Args:
        point: without batch normalization, (P,).
        position: q, of the hidden layer q + 1.
        tolerance: relative to 1 + size.

    Returns:
        (m,) of integers; the groups are numbered by their first neuron.

    Raises:
        ValueError: if the network has no such hidden layer or batch normalization, the point is a batch or not finite,
            or the tolerance is negative.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([2.0, -2.0, 3.0, 0.0, 1.0, -1.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0, 0.0]).double()
        >>> equal_neurons(Parametrised(Network.uniform((1, 4, 1), tanh), theta)).tolist()
        [0, 0, -1, -2]
    """
    return _labels(point, position, number("tolerance", tolerance, at_least=0.0))


@checked
def origin(point: Parametrised, *, tolerance: float = _SAME) -> Parametrised:
    """The narrowest network with the same function: copies merged, silent and constant neurons left out.

    Of a deep network every hidden layer is narrowed, until none gets narrower.

    Args:
        point: without batch normalization, (P,).
        tolerance: as for `equal_neurons`.

    Returns:
        θ of width m₀, in the order of the groups; a point without copies and silent neurons is its own origin.

    Raises:
        ValueError: as `equal_neurons`, or if no neuron is left: the function is constant, and has no origin of width 1.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([2.0, 2.0, 3.0, 1.0, 1.0, 0.0, 0.5, 0.25, 0.0, 0.1]).double()
        >>> origin(Parametrised(Network.uniform((1, 3, 1), tanh), theta)).theta
        tensor([2.0000, 1.0000, 0.7500, 0.1000], dtype=torch.float64)
    """
    tolerance = number("tolerance", tolerance, at_least=0.0)
    point.network.check_hidden(0)
    narrowed = point
    # From the last layer: what feeds only silent neurons is silent.
    for position in reversed(range(point.network.depth - 1)):
        narrowed = _narrowed(narrowed, position, tolerance)
    return narrowed if narrowed.network == point.network else origin(narrowed, tolerance=tolerance)


def _narrowed(point: Parametrised, position: int, tolerance: float) -> Parametrised:
    """The same function with the copies of one hidden layer merged."""
    labels = _labels(point, position, tolerance)
    width = int(labels.max()) + 1
    if width < 1:
        raise ValueError("point: its function is constant, and no neuron is left; leave such points out")
    point = point.single("point")
    first, second = point.layers()[position : position + 2]
    leaders = torch.stack([(labels == group).nonzero()[0, 0] for group in range(width)])
    member = torch.nn.functional.one_hot(labels.clamp(min=0), width).to(first.weight) * (labels >= 0)[:, None]
    activation = point.network.activations[position]
    if _odd(activation):
        # Whether a neuron points the same way as its leader.
        member *= torch.where(first.incoming @ first.incoming[leaders].mT >= 0, 1.0, -1.0)
    constants = labels == CONSTANT
    bias = second.bias + second.weight[:, constants] @ activation.function(first.bias[constants])
    narrower = Layer(first.weight[leaders], first.bias[leaders])
    return point.replaced(position, narrower, Layer(second.weight @ member, bias))


@checked
def equal_functions(outputs: Tensor, *, tolerance: float = _SAME) -> Tensor:
    """Number critical points by their function over the data: the first of each new function opens a group.

    Args:
        outputs: over the samples, (S, n, p).
        tolerance: largest difference of an output, relative to 1 + the largest modulus of the group's.

    Returns:
        (S,) of integers 0, 1, …

    Raises:
        ValueError: if the outputs are not finite numbers of that shape, or the tolerance is negative.

    Example:
        >>> outputs = torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]], [[0.0], [1.0 + 1e-9]]]).double()
        >>> equal_functions(outputs).tolist()
        [0, 1, 0]
    """
    outputs = real("outputs", outputs, ("S", "n", "p")).detach()
    tolerance = number("tolerance", tolerance, at_least=0.0)
    flat = outputs.flatten(1)
    labels, groups = torch.full((len(flat),), -1), 0
    while (labels < 0).any():
        leader = flat[int((labels < 0).nonzero()[0, 0])]
        near = (flat - leader).abs().amax(1) <= tolerance * (1 + leader.abs().max())
        labels[near & (labels < 0)] = groups
        groups += 1
    return labels


def _labels(point: Parametrised, position: int, tolerance: float) -> Tensor:
    real("point", point.theta, (point.network.n_parameters,))
    point.network.check_hidden(position)
    if point.network.batch_norm_epsilon is not None:
        raise ValueError("point: copies are sought without batch normalization; give a network without it")
    first, second = point.single("point").layers()[position : position + 2]
    both = first.incoming
    odd = _odd(point.network.activations[position])
    constant = first.weight.abs().amax(1) <= tolerance
    labels, groups = torch.where(constant, CONSTANT, SILENT), 0
    placed = constant.clone()
    for neuron in range(len(both)):
        if placed[neuron]:
            continue
        room = tolerance * (1 + both[neuron].abs().max())
        same = (both - both[neuron]).abs().amax(1) <= room
        opposite = ((both + both[neuron]).abs().amax(1) <= room) & odd
        found = (same | opposite) & ~placed
        total = second.weight[:, found & same].sum(1) - second.weight[:, found & ~same].sum(1)
        audible = float(total.abs().max()) > tolerance * (1 + float(second.weight.abs().max()))
        labels[found] = groups if audible else SILENT
        groups += audible
        placed |= found
    return labels


def _odd(activation: Activation) -> bool:
    z = torch.linspace(0.1, 4, 9, dtype=torch.float64)
    return bool(torch.equal(activation.function(-z), -activation.function(z)))
