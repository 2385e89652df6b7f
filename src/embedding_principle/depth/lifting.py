"""One-layer lifting: the embedding principle in depth of Bai et al. (arXiv:2205.13283), with lifting defined as here.

Insert a layer of width k between layers q and q+1 of NN(m_0, …, m_L). New parameters A ∈ R^{k×m_q}, c ∈ R^k feed it;
B ∈ R^{m_{q+1}×k}, b′ ∈ R^{m_{q+1}} replace W[q+1], b[q+1]. The lifted set T_S(θ) holds every deeper parameter with

1. *inheritance*: all other layers are those of θ,
2. *layer linearization*: for each inserted neuron j one affine piece (λ_j, μ_j) of its activation contains
   A_j·f[q](x_i) + c_j for every training input x_i,
3. *output preservation*: B Λ A = W[q+1] and B (Λc + μ) + b′ = b[q+1], with Λ = diag(λ).

Every member has the output of θ on S, and is critical wherever θ is. k ≥ min(m_q, m_{q+1}) is enough for members to
exist for every θ; for one θ, k ≥ rank W[q+1] is needed and enough. `dimensions` says which ranks A and B can have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import (
    check_fields,
    checked,
    number,
    real,
    require_common_batch,
    require_finite,
    require_room,
    variable,
    whole,
)
from embedding_principle.networks import Layer, Network, Parametrised
from embedding_principle.scaling import scale_of

# Singular values below this fraction of the largest are round-off of a rank-deficient matrix (1e-16 to 1e-15 for
# sizes in the tens); dropping them changes the output by no more than that fraction.
_RANK_THRESHOLD = 1e-13
# Weights are drawn for features of order one, and shortened for features beyond this factor of it: by as much would the
# terms of an output exceed the output, whose digits they then share.
_ORDER_ONE = 2.0**12


@dataclass(frozen=True)
class Insertion:
    """Which layer a lifting inserts.

    Attributes:
        position: q, the layer is inserted between layers q and q+1; 0 is right behind the inputs.
        width: k.
        activation: of the inserted layer; it needs at least one affine piece.
        ranks: (rank A, rank B) of the members that `lift` draws. None stands for A of full column rank where k ≥ m_q,
            B of full row rank where m_q > k ≥ m_{q+1}, and (k, rank W[q+1]) where k is smaller than both.

    Raises:
        ValueError: if the position or a rank is negative, or the width not positive.
    """

    position: int
    width: int
    activation: Activation
    ranks: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        whole("position", self.position, 0)
        whole("width", self.width, 1)
        if self.ranks is not None and (len(self.ranks) != 2 or min(self.ranks) < 0):
            raise ValueError(f"ranks: expected (rank A, rank B), neither negative, got {self.ranks}")


@dataclass(frozen=True)
class Violation:
    """One condition of D0 that a deeper parameter fails.

    Attributes:
        condition: "inheritance", "layer linearization" or "output preservation".
        detail: what differs, in words.
        amount: by how much (for layer linearization: distance from the affine piece); not a number where the candidate
            is none, or overflows.
        neuron: index of the inserted neuron, for layer linearization.
        sample: index of the training input, for layer linearization.
    """

    condition: str
    detail: str
    amount: float
    neuron: int | None = None
    sample: int | None = None


@dataclass(frozen=True, eq=False)
class Occupation:
    """The affine pieces that the neurons of one layer occupy on S.

    Attributes:
        slope: λ of the piece that holds most samples of each neuron, (k,).
        intercept: its μ, (k,).
        outside: one violation for each sample of a neuron outside that piece; empty for a linear layer.
    """

    slope: Tensor
    intercept: Tensor
    outside: tuple[Violation, ...]


@checked
def smallest_width(network: Network, position: int) -> int:
    """min(m_q, m_{q+1}): with so many neurons inserted at position q members exist for every θ.

    Raises:
        ValueError: if the position is not among 0 … L−1.

    Example:
        >>> smallest_width(Network((3, 2)), 0)
        2
    """
    whole("position", position, 0, network.depth - 1)
    return min(network.widths[position : position + 2])


@checked
def smallest_insertions(network: Network, activation: Activation, *, spare: int = 0) -> list[Insertion]:
    """At every position the narrowest layer with members for every θ, so many spare neurons wider.

    Raises:
        ValueError: if there are so few, spare negative, that none are left.

    Example:
        >>> from embedding_principle.activations import relu, tanh
        >>> [insertion.width for insertion in smallest_insertions(Network.uniform((3, 2, 1), tanh), relu, spare=2)]
        [4, 3]
    """
    return [Insertion(q, smallest_width(network, q) + spare, activation) for q in range(network.depth)]


@checked
def deepened(network: Network, insertion: Insertion) -> Network:
    """The architecture with the layer inserted.

    Raises:
        ValueError: for a position outside 0 … L−1, an activation without affine piece, or a network with batch
            normalization.

    Example:
        >>> from embedding_principle.activations import relu, tanh
        >>> deepened(Network.uniform((1, 2, 1), tanh), Insertion(1, 3, relu)).widths
        (1, 2, 3, 1)
    """
    activation = insertion.activation
    deeper = network.inserted(insertion.position, insertion.width, activation)
    if not activation.pieces:
        raise ValueError(
            f"activation: {activation.name} has no affine piece, so no layer of it can be exactly linear; "
            "use one with pieces (relu, leaky_relu, hard_tanh, elu, selu, identity)"
        )
    if network.batch_norm_epsilon is not None:
        raise ValueError("network: lifting is defined for networks without batch normalization")
    return deeper


@checked
def lift(point: Parametrised, inputs: Tensor, insertions: Sequence[Insertion], *, generator: Generator) -> Parametrised:
    """A random member of the lifted set T_S(θ), for each θ of a batch; several insertions are composed in order.

    Each inserted neuron sits on a random affine piece at a random place and has a random size. Up to these sizes, A
    (where k ≥ m_q) or B (where m_q > k ≥ m_{q+1}) is Haar-distributed with orthonormal columns or rows, and the other
    one is a random solution of BΛA = W[q+1]. So members are well-conditioned, whatever the rank of W[q+1]. With given
    ranks, or a width below both, the row space of A and the column space of B are those of W[q+1] and random
    directions beyond; so every stratum of T_S(θ) can be drawn from.

    Args:
        point: θ, (..., P); `point.expand(count)` draws many members over one θ.
        inputs: the training inputs x, (n, m_0).
        insertions: the positions count layers of the network as it is when its turn comes.
        generator: the source of randomness.

    Returns:
        A member for each θ, (..., P′).
        Bai et al. (arXiv:2205.13283): outputs and inherited features on S are those of θ, and ∇R_S = 0 if it is at θ.

    Raises:
        ValueError: for an impossible insertion (see `deepened`), θ or data that are not finite, ranks that no member
            has (k below rank W[q+1] among them, where T_S(θ) is empty), or members that do not fit in memory.

    Example:
        >>> from embedding_principle.activations import relu, tanh
        >>> network, x = Network.uniform((1, 2, 1), tanh), torch.linspace(-1, 1, 5).double()[:, None]
        >>> g = torch.Generator().manual_seed(0)
        >>> point = Parametrised(network, network.initial(g))
        >>> deep = lift(point, x, [Insertion(1, 3, relu)], generator=g)
        >>> torch.allclose(deep.forward(x), point.forward(x), atol=1e-14)
        True
    """
    inputs = real("inputs", inputs, ("n", point.network.widths[0]))
    require_finite("theta", point.theta)
    for insertion in insertions:
        # Refuses an impossible insertion.
        deeper, members = deepened(point.network, insertion), point.theta.shape[:-1]
        require_room("insertions", *members, deeper.n_parameters + len(inputs) * insertion.width)
        point = _insert(point, inputs, insertion, generator)
    return point


def _insert(point: Parametrised, inputs: Tensor, insertion: Insertion, generator: Generator) -> Parametrised:
    q, k, pieces = insertion.position, insertion.width, insertion.activation.pieces
    features = point.trace(inputs).features[q]
    weight, bias = point.layers()[q]
    # W f = (W unit)(f / unit): lift that, and put the unit back into A.
    unit = _unit(features)
    features, weight = features / unit, weight * unit
    (following, preceding), batch = weight.shape[-2:], bias.shape[:-1]
    table = torch.tensor([(p.lower, p.upper, p.slope, p.intercept) for p in pieces], dtype=torch.float64)
    choice = torch.randint(len(pieces), (*batch, k), generator=generator)
    lower, upper, slope, intercept = table[choice].unbind(-1)

    # Neither tiny nor huge: keeps members well-conditioned.
    size = 0.5 + _uniform((*batch, k), generator)
    if insertion.ranks or k < min(preceding, following):
        image, carrier = _factors(weight, k, insertion.ranks, generator)
        size, offset = _place(image / slope[..., None], size, features, lower, upper, generator)
        incoming, outgoing = (size / slope)[..., None] * image, carrier / size[..., None, :]
    elif k >= preceding:
        direction = _orthonormal(batch, k, preceding, generator)
        size, offset = _place(direction, size, features, lower, upper, generator)
        incoming = size[..., None] * direction
        outgoing = _outgoing(weight, slope[..., None] * incoming, generator)
    else:
        carrier = _orthonormal(batch, k, following, generator).mT
        direction = _carried(weight, carrier, generator) / slope[..., None]
        size, offset = _place(direction, size, features, lower, upper, generator)
        incoming, outgoing = size[..., None] * direction, carrier / size[..., None, :]
    remaining = bias - (outgoing @ (slope * offset + intercept)[..., None])[..., 0]
    return point.inserted(q, Layer(incoming / unit, offset), Layer(outgoing, remaining), insertion.activation)


def _unit(features: Tensor) -> Tensor:
    """The power of two by which the features (..., n, m_q) are larger or smaller than of order one, (..., 1, 1)."""
    scale = scale_of(features.flatten(-2), dim=-1)[..., None]
    return torch.where((scale > _ORDER_ONE) | (scale < 1 / _ORDER_ONE) & (scale > 0), scale, 1.0)


def _carried(weight: Tensor, carrier: Tensor, generator: Generator) -> Tensor:
    """A random M (..., k, m_q) with carrier M = W, for a carrier (..., m_{q+1}, k) of orthonormal rows."""
    free = torch.randn(
        *carrier.shape[:-2], carrier.shape[-1], weight.shape[-1], generator=generator, dtype=torch.float64
    )
    free = free / weight.shape[-1] ** 0.5
    image: Tensor = carrier.mT @ (weight - carrier @ free) + free
    return image


def _place(
    direction: Tensor, size: Tensor, features: Tensor, lower: Tensor, upper: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Sizes of the rows of A, shrunk where a bounded piece asks for it, and c that puts every pre-activation inside."""
    z = features @ (size[..., None] * direction).mT
    smallest, largest = z.amin(-2), z.amax(-2)
    # A bounded piece is filled to between 20 % and 80 % of its length.
    room = (0.2 + 0.6 * _uniform(lower.shape, generator)) * (upper - lower)
    shrink = torch.where(largest - smallest > room, room / (largest - smallest), 1.0)
    smallest, largest = shrink * smallest, shrink * largest
    share = 0.05 + 0.9 * _uniform(lower.shape, generator)
    margin = share * (1 + largest - smallest)
    from_below, from_above = lower - smallest + margin, upper - largest - margin
    between = lower - smallest + share * (upper - lower - (largest - smallest))
    anywhere = torch.randn(lower.shape, generator=generator, dtype=torch.float64)
    bounded_below, bounded_above = torch.isfinite(lower), torch.isfinite(upper)
    one_sided = torch.where(bounded_below, from_below, torch.where(bounded_above, from_above, anywhere))
    return shrink * size, torch.where(bounded_below & bounded_above, between, one_sided)


def _outgoing(weight: Tensor, image: Tensor, generator: Generator) -> Tensor:
    """A random solution B of B (ΛA) = W."""
    inverse: Tensor = torch.linalg.pinv(image)
    free = torch.randn(*weight.shape[:-1], image.shape[-2], generator=generator, dtype=torch.float64)
    free = free / image.shape[-2] ** 0.5
    solution: Tensor = weight @ inverse + free - (free @ image) @ inverse
    if image.shape[-2] == image.shape[-1]:
        # One solution only, and no size that its rounding would be small beside.
        solution = torch.where((weight == 0).all(-1, keepdim=True), 0.0, solution)
    return solution


def _factors(weight: Tensor, k: int, ranks: tuple[int, int] | None, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random ΛA (..., k, m_q) and B (..., m_{q+1}, k) of these ranks with B ΛA = W."""
    left, values, right = torch.linalg.svd(weight)
    batch, (following, preceding), rank = weight.shape[:-2], weight.shape[-2:], _rank(values)
    if k < rank:
        raise ValueError(
            f"width: {k} is below the rank {rank} of the weights, so the lifted set is empty; widen the layer"
        )
    a, b = ranks or (k, rank)
    if not (rank <= a <= min(k, preceding) and rank <= b <= min(k, following) and a + b <= k + rank):
        raise ValueError(
            f"ranks: no member has {(a, b)} for weights {(following, preceding)} of rank {rank} and width {k}; each "
            f"must lie between {rank} and the least of width and size, and their sum be at most {k + rank}"
        )
    core = torch.zeros(*batch, b, a, dtype=torch.float64)
    core.diagonal(dim1=-2, dim2=-1)[..., :rank] = values[..., :rank]
    columns, rows = _extended(left, rank, b, generator), _extended(right.mT, rank, a, generator)
    # Orthonormal columns: Gaussian ones are nearly dependent too often.
    inner = _orthonormal(batch, k, a, generator)
    free = torch.randn(*batch, b, k, generator=generator, dtype=torch.float64) / k**0.5
    return inner @ rows.mT, columns @ (core @ inner.mT + free - free @ inner @ inner.mT)


def _rank(values: Tensor) -> int:
    """The rank of matrices with these singular values (..., r), the same for all of them."""
    ranks = (values > _RANK_THRESHOLD * values[..., :1]).sum(-1).flatten()
    if (ranks != ranks[0]).any():
        raise ValueError("theta: the weights of the batch differ in rank; lift points of one rank at a time")
    return int(ranks[0])


def _extended(basis: Tensor, rank: int, size: int, generator: Generator) -> Tensor:
    """The first columns of an orthonormal basis, followed by random combinations of the others."""
    others = basis[..., rank:]
    mixed = _orthonormal(basis.shape[:-2], others.shape[-1], size - rank, generator)
    return torch.cat([basis[..., :rank], others @ mixed], dim=-1)


def _uniform(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _orthonormal(batch: Sequence[int], rows: int, columns: int, generator: Generator) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(*batch, rows, columns, generator=generator, dtype=torch.float64)).Q
    return basis


@checked
def violations(
    shallow: Parametrised, deep: Parametrised, inputs: Tensor, insertion: Insertion, *, tolerance: float = 1e-10
) -> tuple[Violation, ...]:
    """Every way in which a deeper parameter fails to be in T_S(θ); an empty tuple means that it is a member.

    Args:
        shallow: θ, (P,).
        deep: the candidate, (P′,).
        inputs: x, (n, m_0).
        insertion: where the layer of the candidate is inserted.
        tolerance: of conditions 1 and 3, relative: inherited parameters to their own size, the equations of condition 3
            by their largest effect on S to the largest that the terms of that pre-activation of layer q + 1 have (to
            its own size for the weight of a feature that is zero on S), beside the rounding of the products in them.
            Where weights and bias of θ are zero, that size is the largest that the terms of the candidate have there.
            So the answer does not change when inputs, outputs or neurons get other units.

    Parameters and inputs of any floating-point type are compared in float64.

    Raises:
        ValueError: for an impossible insertion (see `deepened`), if the candidate's architecture is not the one with
            the layer inserted, if θ or the candidate is a batch, or the inputs are not finite.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x, insertion = torch.tensor([[-1.0], [1.0]]).double(), Insertion(0, 1, relu)
        >>> shallow = Parametrised(Network((1, 1)), torch.tensor([2.0, 0.0]).double())
        >>> deep = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())
        >>> violations(shallow, deep, x, insertion)
        ()
        >>> outside = deep.with_theta(torch.tensor([1.0, 0.5, 2.0, -1.0]).double())
        >>> [(v.condition, v.neuron, v.sample) for v in violations(shallow, outside, x, insertion)]
        [('layer linearization', 0, 0)]
    """
    if deep.network != deepened(shallow.network, insertion):
        raise ValueError(f"deep: {deep.network} is not {shallow.network} with the {insertion}; give the one inserted")
    shallow, deep = shallow.single("shallow"), deep.single("deep")
    inputs, tolerance = (
        real("inputs", inputs, ("n", deep.network.widths[0])),
        number("tolerance", tolerance, at_least=0.0),
    )
    q, given, kept = insertion.position, deep.layers(), shallow.layers()
    inherited = zip(kept[:q] + kept[q + 1 :], given[:q] + given[q + 2 :])
    numbers = [*range(1, q + 1), *range(q + 2, len(kept) + 1)]
    found: list[Violation] = []
    for place, (ours, theirs) in zip(numbers, inherited):
        allowed = Layer(tolerance * ours.weight.abs(), tolerance * ours.bias.abs())
        found += _differences("inheritance", f"of layer {place}", ours, theirs, allowed)
    occupation = occupied_pieces(deep, inputs, q)
    found += occupation.outside
    merged = merge(given[q], given[q + 1], occupation.slope, occupation.intercept)
    sizes = shallow.trace(inputs).features[q].abs().amax(0)
    allowed = _allowed(kept[q], given[q], given[q + 1], occupation, sizes, tolerance)
    found += _differences("output preservation", "merged through the inserted layer", kept[q], merged, allowed)
    return tuple(found)


def _allowed(
    kept: Layer, first: Layer, second: Layer, occupation: Occupation, sizes: Tensor, tolerance: float
) -> Layer:
    """How far the merged layer may be off, entry by entry, for features of these largest moduli on S, (m_q,)."""
    ingoing, outgoing = (Layer(layer.weight.abs(), layer.bias.abs()) for layer in (first, second))
    terms = merge(ingoing, outgoing, occupation.slope.abs(), occupation.intercept.abs())
    # Inner products of length k, and two more operations: each adds half an ε of the terms at most, and those of a
    # row share their rounding, for B was solved for.
    rounding = (second.weight.shape[-1] + 2) * torch.finfo(torch.float64).eps
    reach, rounded = (layer.weight.abs() @ sizes + layer.bias.abs() for layer in (kept, terms))
    reach = tolerance * torch.where(reach > 0, reach, rounded) + rounding * rounded
    own = tolerance * kept.weight.abs() + rounding * terms.weight.amax(-1, keepdim=True)
    return Layer(torch.where(sizes > 0, reach[:, None] / sizes, own), reach)


def _differences(condition: str, where: str, kept: Layer, given: Layer, allowed: Layer) -> list[Violation]:
    found = []
    for name, a, b, bound in zip(("weights", "biases"), kept, given, allowed):
        # NaN is within no bound.
        beyond = ~((a - b).abs() <= bound)
        if beyond.any():
            amount = float((a - b).abs()[beyond].max())
            found.append(Violation(condition, f"{name} {where} differ by {amount:.2e}", amount))
    return found


@checked
def occupied_pieces(point: Parametrised, inputs: Tensor, position: int) -> Occupation:
    """Which affine piece each neuron of one hidden layer works in on the training inputs.

    Args:
        point: θ, (P,), of a network with an activation that has affine pieces behind `position`.
        inputs: x, (n, m_0).
        position: q: the layer looked at is layer q + 1, as `lift` inserts it.

    Returns:
        The pieces. A pre-activation that is not a number lies outside every one.

    Raises:
        ValueError: if the point is a batch, the inputs are not finite, there is no hidden layer at that position, or
            its activation has no affine piece.

    Example:
        >>> from embedding_principle.activations import leaky_relu
        >>> point = Parametrised(Network((1, 1, 1), (leaky_relu(0.1),)), torch.ones(4).double())
        >>> occupied_pieces(point, torch.tensor([[-3.0], [-1.0]]).double(), 0).slope
        tensor([0.1000], dtype=torch.float64)
    """
    point, inputs = point.single("point"), real("inputs", inputs, ("n", point.network.widths[0]))
    point.network.check_hidden(position)
    z = point.trace(inputs).preactivations[position]
    pieces = point.network.activations[position].pieces
    if not pieces:
        raise ValueError(
            f"point: {point.network.activations[position].name} at position {position} has no affine piece"
        )
    held = torch.stack([piece.contains(z) for piece in pieces])
    best = held.sum(1).argmax(0).tolist()
    outside = []
    for neuron, index in enumerate(best):
        for sample in torch.nonzero(~held[index, :, neuron])[:, 0].tolist():
            piece, value = pieces[index], float(z[sample, neuron])
            amount = max(piece.lower - value, value - piece.upper)
            detail = f"pre-activation {value:.3g} lies outside ({piece.lower:g}, {piece.upper:g})"
            outside.append(Violation("layer linearization", detail, amount, neuron, sample))
    slope = torch.tensor([pieces[index].slope for index in best], dtype=torch.float64)
    intercept = torch.tensor([pieces[index].intercept for index in best], dtype=torch.float64)
    return Occupation(slope, intercept, tuple(outside))


@checked
def merge(first: Layer, second: Layer, slope: Tensor, intercept: Tensor) -> Layer:
    """φ on two layers: the affine layer (B Λ A, B (Λc + μ) + b′) that they make when the layer between is linear.

    Args:
        first: A (..., k, m_q) and c (..., k).
        second: B (..., m_{q+1}, k) and b′ (..., m_{q+1}).
        slope: λ, (..., k).
        intercept: μ, (..., k).

    Raises:
        ValueError: if the shapes do not go together.

    Example:
        >>> one = torch.ones(1).double()
        >>> merge(Layer(2 * torch.eye(1).double(), one), Layer(3 * torch.eye(1).double(), one), one, 0 * one).bias
        tensor([4.], dtype=torch.float64)
    """
    first, second = first.variables("first"), second.variables("second")
    width = first.bias.shape[-1]
    if second.weight.shape[-1] != width:
        raise ValueError(f"second: expected weights (..., m, {width}), got {tuple(second.weight.shape)}")
    slope, intercept = variable("slope", slope, (..., width)), variable("intercept", intercept, (..., width))
    require_common_batch(first.bias.shape[:-1], second.bias.shape[:-1], slope.shape[:-1], intercept.shape[:-1])
    weight = second.weight @ (slope[..., None] * first.weight)
    bias = (second.weight @ (slope * first.bias + intercept)[..., None])[..., 0] + second.bias
    return Layer(weight, bias)


@checked
def collapse(point: Parametrised, position: int, slope: Tensor, intercept: Tensor) -> Parametrised:
    """The shallow θ over a deeper one: φ(A, c, B, b′, rest) = (BΛA, B(Λc + μ) + b′, rest), the inverse of lifting.

    Near a member of T_S(θ) the deeper risk is R_shallow ∘ φ.

    Args:
        point: the deeper one, (..., P′).
        position: q, where the layer was inserted.
        slope: λ of each inserted neuron, (k,) or (..., k).
        intercept: μ of each inserted neuron, likewise.

    Returns:
        The shallow θ, (..., P).

    Raises:
        ValueError: if there is no hidden layer at that position, or λ and μ are not of its width.

    Example:
        >>> from embedding_principle.activations import relu
        >>> member = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())
        >>> collapse(member, 0, torch.ones(1).double(), torch.zeros(1).double()).theta
        tensor([2., 0.], dtype=torch.float64)
    """
    point.network.check_hidden(position)
    first, second = point.layers()[position : position + 2]
    return point.without(position, merge(first, second, slope, intercept))
