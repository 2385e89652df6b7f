"""Symmetry-induced critical points: how many affine subspaces a narrow network's critical points fill in a wider one.

Şimşek et al. (arXiv:2105.12221). A network with one hidden layer of r neurons, incoming vectors u_k distinct, outgoing
weights a_k ≠ 0. A neuron of the network of width m is a *copy* of a narrow one, or belongs to a *zero group*: neurons
that share an incoming vector, which is free, and whose outgoing weights sum to zero. Copies of neuron k share u_k, and
their outgoing weights sum to a_k. A *configuration* says which neuron is what, and belongs to one affine subspace: of
critical points if there are no zero groups, of points of zero loss if the narrow point has loss zero.
The counts hold without an output bias and for activations without symmetry such as σ(−z) = −σ(z).
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from embedding_principle.arguments import checked, class_numbers, number, real, require_room, whole
from embedding_principle.networks import Layer, Parametrised, with_ones
from embedding_principle.risks import Risk, squared_error

# More configurations than this are not listed.
_MOST = 2_000_000
_LARGEST_WIDTH = 4096


@checked
def bell(n: int) -> int:
    """The number of partitions of n things into groups.

    Raises:
        ValueError: if n is negative.

    Example:
        >>> [bell(n) for n in range(6)]
        [1, 1, 2, 5, 15, 52]
    """
    n = whole("n", n, 0, _LARGEST_WIDTH)
    return _bells(n)[n]


@checked
def critical_subspaces(r: int, m: int) -> int:
    """G(r, m): affine subspaces of critical points in width m over an irreducible one of width r, up to its symmetry.

    The maps of m neurons onto r: Σ_i (−1)^i binom(r, i) (r − i)^m. The r! orders of the narrow neurons are counted.

    Raises:
        ValueError: if a width is less than 1 or m is less than r.

    Example:
        >>> critical_subspaces(2, 3), critical_subspaces(3, 3)
        (6, 6)
    """
    r, m = _widths(r, m)
    return _surjections(r, m)


@checked
def global_subspaces(r: int, m: int, *, output_bias: bool = False) -> int:
    """T(r, m): affine subspaces of zero loss in width m, if an irreducible network of width r has loss zero.

    Σ_u binom(m, u) G(r, m − u) Bell(u), u the neurons in zero groups.

    Args:
        r: the least width of loss zero.
        m: the wide network's width.
        output_bias: with one, neurons of incoming weights zero, whose constant the bias takes up, make one more class:
            Bell(u + 1) instead of Bell(u). Their sets are not all affine.

    Raises:
        ValueError: if a width is less than 1 or m is less than r.

    Example:
        >>> global_subspaces(2, 3), global_subspaces(2, 3, output_bias=True)
        (12, 18)
    """
    r, m = _widths(r, m)
    bells = _bells(m - r + 1)
    terms = (math.comb(m, u) * _surjections(r, m - u) * bells[u + output_bias] for u in range(m - r + 1))
    return sum(terms)


@checked
def configurations(r: int, m: int) -> list[tuple[int, ...]]:
    """All configurations of m neurons over r, by exhaustion: labels 0 … r − 1 for copies, r, r + 1, … for zero groups.

    Zero groups are numbered by their first neuron. Every narrow neuron has a copy.

    Raises:
        ValueError: if a width is less than 1, m is less than r, or the list would be too long.

    Example:
        >>> configurations(1, 2)
        [(0, 0), (0, 1), (1, 0)]
    """
    r, m = _widths(r, m)
    if global_subspaces(r, m) > _MOST:
        raise ValueError(f"m: there are more than {_MOST} configurations; count them by global_subspaces")
    return list(_labelled((), frozenset(range(r)), r, m))


def _labelled(labels: tuple[int, ...], missing: frozenset[int], free: int, left: int) -> Iterator[tuple[int, ...]]:
    """Every way to go on for so many neurons: no narrow one stays missing, a new zero group has the number `free`."""
    if left == 0:
        yield labels
        return
    for label in missing if len(missing) == left else range(free + 1):
        yield from _labelled((*labels, label), missing - {label}, max(free, label + 1), left - 1)


@checked
def count_by_orbits(r: int, m: int, *, zero_groups: bool = True) -> int:
    """The same numbers by the action of S_m: each orbit has m! over the order of its stabiliser as its length.

    Orbits are the sizes (k_1, …, k_r) of the copies and the sizes, without order, of the zero groups. A configuration
    is fixed by the permutations within groups, and by those that exchange zero groups of one size.

    Args:
        r: narrow width.
        m: wide width.
        zero_groups: False counts those without, which is G; True all, which is T.

    Raises:
        ValueError: if a width is less than 1 or m is less than r.

    Example:
        >>> count_by_orbits(2, 3), count_by_orbits(2, 3, zero_groups=False)
        (12, 6)
    """
    r, m = _widths(r, m)
    return sum(
        math.factorial(m) // _stabiliser(copies, groups)
        for u in range((m - r + 1) if zero_groups else 1)
        for copies in _compositions(m - u, r)
        for groups in _partitions(u, u)
    )


def _stabiliser(copies: Sequence[int], groups: Sequence[int]) -> int:
    within = math.prod(map(math.factorial, (*copies, *groups)))
    return within * math.prod(map(math.factorial, Counter(groups).values()))


def _compositions(n: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Ordered sums of n with so many terms, each at least 1."""
    for cuts in itertools.combinations(range(1, n), parts - 1):
        yield tuple(after - before for before, after in itertools.pairwise((0, *cuts, n)))


def _partitions(n: int, most: int) -> Iterator[tuple[int, ...]]:
    """Sums of n without order, in terms of at most `most`."""
    if n == 0:
        yield ()
    for first in range(min(n, most), 0, -1):
        for rest in _partitions(n - first, first):
            yield (first, *rest)


@checked
def subspace_dimension(labels: Sequence[int], r: int, d: int) -> int:
    """The dimension m − r + j(d − 1) of a configuration's subspace, with j zero groups and one output.

    Args:
        labels: of the m neurons, as in `configurations`.
        r: narrow width.
        d: parameters that enter a neuron, its bias included if there is one.

    Raises:
        ValueError: if the labels are no configuration of r narrow neurons, or d is less than 1.

    Example:
        >>> subspace_dimension((0, 1, 2), 2, 3), subspace_dimension((0, 1, 1), 2, 3)
        (3, 1)
    """
    groups = _zero_groups(labels, r)
    return len(labels) - r + groups * (whole("d", d, 1) - 1)


@checked
def crossover(r: int) -> int:
    """The least h with T(r, r + h) > Σ_{s<r} G(s, r + h): from there on, subspaces of zero loss outnumber the others.

    Σ_{s<r} G(s, m) counts, one critical point of each width s below r taken, the subspaces of these in width m.

    Raises:
        ValueError: if r is less than 1.

    Example:
        >>> [crossover(r) for r in (2, 3, 5, 10)]
        [0, 1, 1, 3]
    """
    r = whole("r", r, 1, _LARGEST_WIDTH)
    return next(
        h
        for h in itertools.count()
        if global_subspaces(r, r + h) > sum(critical_subspaces(s, r + h) for s in range(1, r))
    )


@checked
def member(narrow: Parametrised, labels: Sequence[int], *, generator: Generator) -> Parametrised:
    """A random point of the wide network in the subspace of a configuration.

    With several outputs, copies have multiples of the narrow neuron's outgoing weights: other vectors with the same sum
    keep the output, but not criticality.

    Args:
        narrow: one hidden layer, (P,); the wide network has its inputs, activation, outputs and output bias.
        labels: of the wide neurons, as in `configurations`.
        generator: of the outgoing weights' parts and the zero groups' incoming vectors.

    Raises:
        ValueError: if the network has another number of hidden layers or more than one point, or the labels are no
            configuration of its neurons.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> narrow = Parametrised(Network.uniform((1, 1, 1), tanh), torch.tensor([2.0, 1.0, 3.0, 0.5]).double())
        >>> wide = member(narrow, (0, 0, 1), generator=Generator().manual_seed(0))
        >>> x = torch.linspace(-1, 1, 5).double()[:, None]
        >>> bool((wide.forward(x) - narrow.forward(x)).abs().max() < 1e-14)
        True
    """
    first, second = _one_hidden_layer("narrow", narrow)
    r, m = len(first.bias), len(labels)
    groups = _zero_groups(labels, r)
    outputs, inputs = second.weight.shape[0], first.weight.shape[1]
    free = torch.randn(groups, inputs + 1, generator=generator, dtype=torch.float64)
    incoming = torch.cat([first.incoming, free])
    place = torch.nn.functional.one_hot(torch.as_tensor(list(labels)), r + groups).double()
    copies, rest = place[:, :r], place[:, r:]
    # Copies have parts that add up to 1 of the narrow neuron's outgoing weights, zero groups any that add up to zero.
    parts = torch.randn(m, 1, generator=generator, dtype=torch.float64) * copies
    parts = parts + copies * (1 - parts.sum(0)) / copies.sum(0)
    noise = torch.randn(outputs, m, generator=generator, dtype=torch.float64) * rest.sum(1)
    outgoing = second.weight @ parts.mT + noise - (noise @ rest / rest.sum(0)) @ rest.mT
    chosen = incoming[list(labels)]
    return narrow.replaced(0, Layer(chosen[:, :-1], chosen[:, -1]), Layer(outgoing, second.bias))


@checked
def swap_path(point: Parametrised, first: int, second: int, spare: int) -> Tensor:
    """The corners of a path of constant output that exchanges two neurons by way of a third, (8, P).

    The spare neuron has outgoing weight zero. Its incoming vector moves to that of `first`, takes over its outgoing
    weight, and so on: seven segments, alternately of an incoming vector with outgoing weight zero, and of outgoing
    weights between two equal neurons. The last brings the spare neuron back.

    Args:
        point: one hidden layer, (P,).
        first: a neuron.
        second: another.
        spare: a third, of outgoing weights zero.

    Raises:
        ValueError: if the network has another number of hidden layers or more than one point, the neurons are not
            three different ones, or the spare one has an outgoing weight.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 2.0, 5.0, 0.0, 0.5, 0.0, 3.0, 4.0, 0.0, 0.0]).double()
        >>> corners = swap_path(Parametrised(Network.uniform((1, 3, 1), tanh), theta), 0, 1, 2)
        >>> corners.shape, corners[-1]
        (torch.Size([8, 10]), tensor([2.0000, 1.0000, 5.0000, 0.5000, 0.0000, 0.0000, 4.0000, 3.0000, 0.0000, 0.0000],
               dtype=torch.float64))
    """
    _one_hidden_layer("point", point)
    width = point.network.widths[1]
    first, second = whole("first", first, 0, width - 1), whole("second", second, 0, width - 1)
    spare = whole("spare", spare, 0, width - 1)
    if len({first, second, spare}) < 3:
        raise ValueError(f"spare: expected three different neurons, got {first}, {second} and {spare}")
    if point.layers()[1].weight[:, spare].any():
        raise ValueError("spare: its outgoing weights are not zero; add a neuron without any")
    home = _incoming(point, spare)
    moves = ((first, spare), (second, first), (spare, second))
    corners = [point]
    for source, goal in moves:
        corners.append(_moved(corners[-1], goal, _incoming(corners[-1], source)))
        corners.append(_handed_over(corners[-1], source, goal))
    corners.append(_moved(corners[-1], spare, home))
    return torch.stack([corner.theta for corner in corners])


def _incoming(point: Parametrised, neuron: int) -> tuple[Tensor, Tensor]:
    layer = point.layers()[0]
    return layer.weight[neuron].clone(), layer.bias[neuron].clone()


def _moved(point: Parametrised, neuron: int, incoming: tuple[Tensor, Tensor]) -> Parametrised:
    """The point with this incoming vector at a neuron."""
    changed = point.with_theta(point.theta.clone())
    layer = changed.layers()[0]
    layer.weight[neuron], layer.bias[neuron] = incoming
    return changed


def _handed_over(point: Parametrised, source: int, goal: int) -> Parametrised:
    """The point with one neuron's outgoing weights added to another's."""
    changed = point.with_theta(point.theta.clone())
    outgoing = changed.layers()[1].weight
    outgoing[:, goal] += outgoing[:, source]
    outgoing[:, source] = 0
    return changed


@checked
def along(corners: Tensor, *, steps: int = 20) -> Tensor:
    """Points on the straight segments between corners, (segments · steps + 1, P).

    Args:
        corners: (C, P), C at least 2.
        steps: in each segment.

    Raises:
        ValueError: if there are fewer corners, or no step, or the points would not fit in memory.

    Example:
        >>> along(torch.tensor([[0.0], [1.0], [3.0]]), steps=2).flatten().tolist()
        [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    corners, steps = real("corners", corners, ("C", "P")), whole("steps", steps, 1)
    if len(corners) < 2:
        raise ValueError("corners: expected at least two, got one; add where the path ends")
    require_room("steps", steps, *corners.shape)
    part = (torch.arange(steps, dtype=torch.float64) / steps)[:, None]
    inner = corners[:-1, None] + part * (corners[1:, None] - corners[:-1, None])
    return torch.cat([inner.flatten(0, 1), corners[-1:]])


@checked
def relaxed_path(
    risk: Risk,
    start: Tensor,
    end: Tensor,
    *,
    generator: Generator,
    beads: int = 21,
    steps: int = 600,
    rate: float = 0.02,
    noise: float = 0.1,
) -> Tensor:
    """A path between two points, lowered by gradient descent across it: its top is an upper bound of the barrier.

    A string of beads: each moves against the gradient's part orthogonal to the path, by at most `rate`, and all are
    spaced evenly again. No path found so proves that there is no lower one.

    Args:
        risk: R_S.
        start: (P,).
        end: (P,).
        generator: of the noise that bends the straight line at the beginning.
        beads: on the path, its ends among them.
        steps: of descent.
        rate: the step for gradients up to 1; larger ones are shortened to 1.
        noise: standard deviation of that bend.

    Returns:
        The beads, (beads, P), the first and last as given; not finite where float64 overflows.

    Raises:
        ValueError: if a point is not a finite (P,), or a number is out of range.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> line = Risk(Network((1, 1)), x, 0 * x)
        >>> ends = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
        >>> relaxed_path(line, *ends, generator=Generator().manual_seed(0), steps=10).shape
        torch.Size([21, 2])
    """
    size = risk.network.n_parameters
    start, end = real("start", start, (size,)), real("end", end, (size,))
    beads, steps = whole("beads", beads, 3), whole("steps", steps, 0)
    rate, noise = number("rate", rate, above=0.0), number("noise", noise, at_least=0.0)
    path = along(torch.stack([start, end]), steps=beads - 1)
    path[1:-1] += noise * torch.randn(beads - 2, size, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        tangent = torch.nn.functional.normalize(path[2:] - path[:-2], dim=1)
        slope = risk.gradient(path[1:-1])
        slope = slope - (slope * tangent).sum(1, keepdim=True) * tangent
        path[1:-1] -= rate * slope / slope.norm(dim=1, keepdim=True).clamp(min=1.0)
        path = _evenly_spaced(path)
    return path


def _evenly_spaced(path: Tensor) -> Tensor:
    """As many points at equal distances along the same polygon."""
    lengths = (path[1:] - path[:-1]).norm(dim=1)
    reached = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    wanted = torch.linspace(0, 1, len(path), dtype=torch.float64) * reached[-1]
    right = torch.searchsorted(reached, wanted).clamp(1, len(path) - 1)
    # Beads that coincide have no distance to divide by.
    part = ((wanted - reached[right - 1]) / lengths[right - 1].clamp(min=1e-300)).clamp(0, 1)[:, None]
    spaced: Tensor = path[right - 1] * (1 - part) + path[right] * part
    spaced[0], spaced[-1] = path[0], path[-1]
    return spaced


@checked
def fit(risk: Risk, starts: Tensor, free: Tensor, *, steps: int = 200, goal: float = 0.0) -> Tensor:
    """Levenberg–Marquardt on a network with one hidden layer and one output, from several starts at once.

    Args:
        risk: of the squared error.
        starts: (S, P).
        free: numbers of the parameters that move, (F,). Where biases are fixed at zero the network has none.
        steps: at most.
        goal: a start whose risk is not above it rests.

    Returns:
        θ after the steps, (S, P). The risk never increases.

    Raises:
        ValueError: if the network or the loss is another, a start is not finite, or `free` names no parameter.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network.uniform((1, 1, 1), tanh), x, 2 * torch.tanh(x))
        >>> theta = fit(risk, torch.tensor([[0.5, 0.0, 1.0, 0.0]]), torch.tensor([0, 2]))
        >>> bool(risk(theta).max() < 1e-20)
        True
    """
    size = risk.network.n_parameters
    theta = real("starts", starts, ("S", size)).clone()
    steps, goal = whole("steps", steps, 0), number("goal", goal, at_least=0.0)
    free = torch.unique(class_numbers("free", free, free.numel()))
    if not len(free) or free[-1] >= size:
        raise ValueError(f"free: expected numbers of parameters from 0 to {size - 1}, at least one; give such")
    risk.network.check_one_hidden_layer("risk")
    if risk.network.widths[2] != 1 or risk.loss != squared_error:
        raise ValueError("risk: expected one output and the squared error; give such a risk")
    damping = torch.full((len(theta),), 1e-3, dtype=torch.float64)
    value = risk(theta)
    for _ in range(steps):
        rows = (value > goal).nonzero().flatten()
        if not len(rows):
            break
        proposal = theta[rows]
        proposal[:, free] += _damped_step(risk, proposal, free, damping[rows])
        reached = risk(proposal)
        better = reached < value[rows]
        damping[rows] = (damping[rows] * torch.where(better, 0.3, 4.0)).clamp(1e-15, 1e12)
        rows, kept = rows[better], proposal[better]
        theta[rows], value[rows] = kept, reached[better]
    return theta


def _damped_step(risk: Risk, theta: Tensor, free: Tensor, damping: Tensor) -> Tensor:
    """−(JᵀJ + δ diag(JᵀJ) + ε)⁻¹ Jᵀr on the free parameters, (S, F)."""
    jacobian = _jacobian(risk, theta)[..., free]
    residual = risk.network.forward(theta, risk.inputs) - risk.targets
    square = jacobian.mT @ jacobian
    diagonal = square.diagonal(dim1=-2, dim2=-1)
    # A neuron without outgoing weight has a row of zeros: the small rest keeps the matrix regular.
    shift = damping[:, None] * (diagonal + 1e-3 * diagonal.amax(-1, keepdim=True)) + 1e-300
    slope = jacobian.mT @ residual
    factor, _ = torch.linalg.cholesky_ex(square + torch.diag_embed(shift))
    step: Tensor = -torch.cholesky_solve(slope, factor)[..., 0]
    return torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)


def _jacobian(risk: Risk, theta: Tensor) -> Tensor:
    """∂f/∂θ at each sample, (S, n, P), in the order of the parameters."""
    first, second = risk.network.layers(theta)
    z = risk.inputs @ first.weight.mT + first.bias[..., None, :]
    sigma = risk.network.activations[0]
    back = sigma.first(z) * second.weight[..., 0, None, :]
    incoming = (back[..., None] * risk.inputs[:, None, :]).flatten(-2)
    return with_ones(torch.cat([incoming, back, sigma.function(z)], -1))


@checked
def classified(
    point: Parametrised, narrow: Parametrised, *, degrees: float = 1.0, outgoing: float = 1e-6
) -> tuple[int, ...]:
    """What each neuron of a trained network is: a label as in `configurations`, or −1 for none of them.

    A neuron is a copy of the narrow neuron whose incoming vector is within this angle of its own. The others form
    groups within the angle; one is a zero group if its outgoing weights sum to less than `outgoing`, each output alone.

    Args:
        point: one hidden layer, (P,).
        narrow: one hidden layer on the same inputs, (P,).
        degrees: the largest angle, between (w, b) of the neurons; their lengths are not compared.
        outgoing: the largest sum in a zero group.

    Raises:
        ValueError: if a network has another number of hidden layers or several points, their inputs differ, or a
            threshold is not positive.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> narrow = Parametrised(Network.uniform((1, 1, 1), tanh), torch.tensor([2.0, 1.0, 3.0, 0.5]).double())
        >>> wide = member(narrow, (0, 0, 1, 1), generator=Generator().manual_seed(0))
        >>> classified(wide, narrow)
        (0, 0, 1, 1)
    """
    (first, second), (known, _) = _one_hidden_layer("point", point), _one_hidden_layer("narrow", narrow)
    if first.weight.shape[1] != known.weight.shape[1]:
        raise ValueError("narrow: expected as many inputs as the point has; give a network on the same inputs")
    degrees, outgoing = number("degrees", degrees, above=0.0), number("outgoing", outgoing, above=0.0)
    own, narrows = _directions(first), _directions(known)
    least = math.cos(math.radians(min(degrees, 180.0)))
    r = len(narrows)
    labels: list[int] = []
    leaders: list[int] = []
    for j, direction in enumerate(own):
        others = torch.cat([narrows, own[leaders]])
        cosines = others @ direction
        nearest = int(cosines.argmax())
        if float(cosines[nearest]) < least:
            nearest = len(others)
            leaders.append(j)
        labels.append(nearest)
    sums = {k: second.weight[:, [each == k for each in labels]].sum(1).abs().max() for k in set(labels) if k >= r}
    # The zero groups are numbered without the groups that are none.
    zero = {k: r + i for i, k in enumerate(sorted(k for k in sums if float(sums[k]) < outgoing))}
    return tuple(label if label < r else zero.get(label, -1) for label in labels)


def _directions(layer: Layer) -> Tensor:
    return torch.nn.functional.normalize(layer.incoming, dim=1)


def _one_hidden_layer(name: str, point: Parametrised) -> list[Layer]:
    point.network.check_one_hidden_layer(name)
    return point.single(name).layers()


def _zero_groups(labels: Sequence[int], r: int) -> int:
    """How many zero groups a configuration has."""
    r = whole("r", r, 1, _LARGEST_WIDTH)
    found = {whole("labels", label, 0) for label in labels}
    if found != set(range(len(found))) or len(found) < r:
        expected = f"each of 0 … {r - 1}, and zero groups from {r} on without a gap"
        raise ValueError(f"labels: expected {expected}; relabel them")
    return len(found) - r


def _widths(r: int, m: int) -> tuple[int, int]:
    r = whole("r", r, 1, _LARGEST_WIDTH)
    return r, whole("m", m, r, _LARGEST_WIDTH)


def _surjections(r: int, m: int) -> int:
    return sum((-1) ** i * math.comb(r, i) * (r - i) ** m for i in range(r + 1))


def _bells(n: int) -> list[int]:
    """Bell(0) … Bell(n), by the triangle of differences."""
    row, numbers = [1], [1]
    for _ in range(n):
        row = list(itertools.accumulate(row, initial=row[-1]))
        numbers.append(row[0])
    return numbers
