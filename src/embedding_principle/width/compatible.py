"""Compatible embeddings: copies of neurons whose weights are shared out so that critical points stay critical.

An index map I[l] sends every neuron of a wide layer to the narrow neuron that it copies, or to none: a *null* neuron.
Between copies the weights are W′[l]_ij = α[l]_ij W[l]_{I(i)I(j)}; where i or j is null, α[l]_ij is the weight itself.

- *Forward*: Σ_{j over s} α_ij is 1 for a copy i and 0 for a null i, for every narrow s. Then the output is kept.
- *Backward*: there are β with β[L] = 1 and Σ_{i over k} β[l]_i α[l]_ij = β[l−1]_j for a copy j, 0 for a null j, for
  every narrow k. Then the errors are δ′_i = β_i δ_I(i), and β = 0 at null neurons.
- *Bias*: b′_i = b_I(i) − Σ_{j null} α_ij σ(c_j), where c_j is the constant pre-activation of a null neuron.

Source: Zhang, Li, Zhang, Luo, Xu, J. Mach. Learn. 1 (2022) 60–113, Def. 5.2–5.4, Conditions 1 and 2, Thm 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from embedding_principle.arguments import (
    check_fields,
    checked,
    number,
    real,
    require_room,
    require_tensor,
    variable,
    whole,
)
from embedding_principle.curvature.passes import passes_over
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.risks import Risk

# Ranks are read from singular values relative to the largest: rounding leaves 1e-15, and what counts is of order one.
_RANK = 1e-9
# How far from the threshold, on both sides, a singular value must be.
_GAP = 100.0


class UnclearRankError(ValueError):
    """A singular value is neither clearly zero nor clearly not."""


@dataclass(frozen=True)
class Violation:
    """A condition that a wide point breaks.

    Attributes:
        condition: "copy", "forward", "bias" or "backward".
        layer: l, from 1 to L, whose weights or biases break it.
        neuron: of the wide layer l, or of layer l − 1 for the backward condition.
        size: by how much, in units of the layer's largest weight.
    """

    condition: str
    layer: int
    neuron: int
    size: float


@dataclass(frozen=True, eq=False)
class Embedding:
    """An embedding of every point of a narrow network into a wider one, by index maps and factors.

    The factors need not satisfy the conditions: an embedding that breaks one can be written down, and examined.

    Attributes:
        network: the narrow architecture, (m_0, …, m_L).
        indices: I[0], …, I[L], each (m′_l,): the narrow neuron that is copied, or −1 for a null one.
        factors: α[1], …, α[L], each (m′_l, m′_{l−1}).
        constants: c[1], …, c[L−1], each (m′_l,): pre-activations of null neurons; other entries are not used.

    Raises:
        ValueError: if shapes do not fit, a narrow neuron has no copy, inputs or outputs are not copied one to one, or
            the network has batch normalization.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((1, 1, 1), tanh)
        >>> one, both = torch.zeros(1).long(), torch.zeros(2).long()
        >>> factors = torch.ones(2, 1), torch.tensor([[0.25, 0.75]])
        >>> split = Embedding(network, (one, both, one), factors, (torch.zeros(2),))
        >>> embed(split, Parametrised(network, torch.tensor([1.0, 2.0, 4.0, 3.0]))).theta
        tensor([1., 1., 2., 2., 1., 3., 3.], dtype=torch.float64)
    """

    network: Network
    indices: tuple[Tensor, ...] = field(repr=False)
    factors: tuple[Tensor, ...] = field(repr=False)
    constants: tuple[Tensor, ...] = field(repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.network.batch_norm_epsilon is not None:
            raise ValueError("network: compatible embeddings are for networks without batch normalization; fold it")
        depth = self.network.depth
        for name, expected in (("indices", depth + 1), ("factors", depth), ("constants", depth - 1)):
            if len(getattr(self, name)) != expected:
                raise ValueError(f"{name}: {expected} are needed for depth {depth}, got {len(getattr(self, name))}")
        indices = _checked_indices(self.network, self.indices)
        widths = [len(index) for index in indices]
        factors = (
            real(f"factors[{level}]", each, (widths[level + 1], widths[level]))
            for level, each in enumerate(self.factors)
        )
        constants = (
            real(f"constants[{level}]", each, (widths[level + 1],)) for level, each in enumerate(self.constants)
        )
        # The class is frozen.
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "constants", tuple(constants))

    @cached_property
    def wide(self) -> Network:
        """The wide architecture, (m′_0, …, m′_L)."""
        return replace(self.network, widths=tuple(len(index) for index in self.indices))

    @cached_property
    def silent(self) -> tuple[Tensor, ...]:
        """What a null neuron sends, σ(c), and 0 for a copy; of layers 0 to L − 1, each (m′_l,)."""
        hidden = (
            torch.where(index < 0, activation.function(constant), 0.0)
            for index, activation, constant in zip(self.indices[1:], self.network.activations, self.constants)
        )
        return torch.zeros(len(self.indices[0]), dtype=torch.float64), *hidden


def _checked_indices(network: Network, indices: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Index maps as int64, which reach every narrow neuron and leave inputs and outputs as they are."""
    if len(indices) != network.depth + 1:
        raise ValueError(f"indices: {network.depth + 1} are needed for widths {network.widths}, got {len(indices)}")
    checked_maps = []
    for level, (index, width) in enumerate(zip(indices, network.widths)):
        require_tensor(f"indices[{level}]", index)
        whole_numbers = index.dtype in (torch.int64, torch.int32) and index.layout is torch.strided and index.is_cpu
        if index.dim() != 1 or not whole_numbers:
            raise ValueError(
                f"indices[{level}]: expected a row of whole numbers from −1 to {width - 1}; convert with .long()"
            )
        if sorted(set(index.tolist())) not in ([*range(width)], [*range(-1, width)]):
            raise ValueError(f"indices[{level}]: must name each of 0 … {width - 1}, and else only −1 for null neurons")
        if level in (0, network.depth) and index.tolist() != [*range(width)]:
            raise ValueError(f"indices[{level}]: inputs and outputs stay as they are; give torch.arange({width})")
        checked_maps.append(index.long())
    return tuple(checked_maps)


def _copied(weight: Tensor, rows: Tensor, columns: Tensor, null: float) -> Tensor:
    """W_{I(i)I(j)} for copies i and j, and this number where one of them is null, (..., m′_l, m′_{l−1})."""
    copies = (rows >= 0)[:, None] & (columns >= 0)
    chosen = weight[..., rows.clamp(min=0), :][..., columns.clamp(min=0)]
    return torch.where(copies, chosen, torch.full((), null, dtype=weight.dtype))


def _groups(index: Tensor, width: int) -> Tensor:
    """Which copies lie over which narrow neuron, (m′, m) of zeros and ones; a null neuron's row is zero."""
    return one_hot(index + 1, width + 1)[:, 1:].double()


@checked
def embed(embedding: Embedding, point: Parametrised) -> Parametrised:
    """The wide point T(θ), for θ (P,) or a batch (..., P). T is affine in θ.

    Raises:
        ValueError: if the point is of another network.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((2, 2, 1), tanh)
        >>> point = Parametrised(network, torch.linspace(-1, 1, 9))
        >>> wide = embed(three_fold(network), point)
        >>> x = torch.ones(1, 2)
        >>> wide.network.widths, bool((wide.forward(x) - point.forward(x)).abs() < 1e-15)
        ((2, 6, 1), True)
    """
    if point.network != embedding.network:
        raise ValueError(f"point: expected one of {embedding.network.widths}, got {point.network.widths}")
    layers = []
    for level, layer in enumerate(point.layers()):
        columns, rows = embedding.indices[level : level + 2]
        weight = embedding.factors[level] * _copied(layer.weight, rows, columns, 1.0)
        bias = layer.bias[..., rows.clamp(min=0)]
        if level < len(embedding.constants):
            bias = torch.where(rows >= 0, bias, embedding.constants[level])
        layers.append(Layer(weight, bias - embedding.factors[level] @ embedding.silent[level]))
    return Parametrised(embedding.wide, flatten(layers))


@checked
def differential(embedding: Embedding) -> Tensor:
    """T, the constant derivative of the embedding, (P′, P): injective where the forward condition holds.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> differential(three_fold(Network.uniform((1, 1, 1), tanh))).shape
        torch.Size([10, 4])
    """
    count = embedding.network.n_parameters
    basis = torch.cat([torch.zeros(1, count, dtype=torch.float64), torch.eye(count, dtype=torch.float64)])
    images = embed(embedding, Parametrised(embedding.network, basis)).theta
    return (images[1:] - images[0]).mT


@checked
def betas(embedding: Embedding) -> tuple[Tensor, ...]:
    """β[0], …, β[L], each (m′_l,): the shares of the error that copies carry, 0 at null neurons.

    β[l−1]_j is the mean over narrow k of Σ_{i over k} β[l]_i α[l]_ij; under the backward condition all k agree.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> betas(three_fold(Network.uniform((1, 1, 1), tanh)))[1]
        tensor([ 1.,  1., -1.], dtype=torch.float64)
    """
    shares = [torch.ones(len(embedding.indices[-1]), dtype=torch.float64)]
    for level in reversed(range(embedding.network.depth)):
        over = _groups(embedding.indices[level + 1], embedding.network.widths[level + 1])
        share = (over.mT @ (shares[0][:, None] * embedding.factors[level])).mean(0)
        shares.insert(0, torch.where(embedding.indices[level] >= 0, share, 0.0))
    return tuple(shares)


@checked
def embedded_gradient(embedding: Embedding, gradient: Tensor) -> Tensor:
    """B ∇R(θ) for ∇R (..., P), of shape (..., P′): under the conditions the gradient ∇R′ at T(θ), at every θ.

    For copies ∂R′/∂W′_ij = β_i ∂R/∂W_{I(i)I(j)} and ∂R′/∂b′_i = β_i ∂R/∂b_I(i); a weight from a null neuron j has
    β_i σ(c_j) ∂R/∂b_I(i), and all that enters a null neuron has gradient 0. Whatever the loss and the data.

    Raises:
        ValueError: if the gradient has not an entry for each narrow parameter.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> narrow = Network.uniform((1, 1, 1), tanh)
        >>> embedded_gradient(three_fold(narrow), torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([ 1.,  1., -1.,  2.,  2., -2.,  3.,  3.,  3.,  4.], dtype=torch.float64)
    """
    gradient = variable("gradient", gradient, (..., embedding.network.n_parameters))
    shares, layers = betas(embedding), []
    for level, layer in enumerate(embedding.network.layers(gradient)):
        columns, rows = embedding.indices[level : level + 2]
        bias = shares[level + 1] * layer.bias[..., rows.clamp(min=0)]
        weight = shares[level + 1][:, None] * _copied(layer.weight, rows, columns, 0.0)
        layers.append(Layer(weight + bias[..., None] * embedding.silent[level], bias))
    return flatten(layers)


@checked
def gradient_matrix(embedding: Embedding) -> Tensor:
    """B, (P′, P), with ∇R′(T(θ)) = B ∇R(θ) and H′T = BH at every θ; see `embedded_gradient`.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> split = three_fold(Network.uniform((1, 1, 1), tanh))
        >>> torch.equal(differential(split).mT @ gradient_matrix(split), torch.eye(4).double())
        True
    """
    return embedded_gradient(embedding, torch.eye(embedding.network.n_parameters, dtype=torch.float64)).mT


@checked
def three_fold(network: Network) -> Embedding:
    """Three copies of the whole network with last weights (W, W, −W): Example 5.1 of Zhang et al. (2022).

    Raises:
        ValueError: if there is no hidden layer, or batch normalization, or the copies would not fit in memory.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> three_fold(Network.uniform((2, 2, 3, 1), tanh)).wide.widths
        (2, 6, 9, 1)
    """
    network.check_hidden(0)
    widths, depth = network.widths, network.depth
    require_room("network", 3 * max(widths), 3 * max(widths))
    copies = [torch.arange(width).repeat(3 if 0 < level < depth else 1) for level, width in enumerate(widths)]
    factors = [torch.ones(len(copies[1]), widths[0])]
    factors += [torch.eye(3).kron(torch.ones(widths[level + 1], widths[level])) for level in range(1, depth - 1)]
    last = torch.ones(widths[-1], len(copies[-2]))
    last[:, 2 * widths[-2] :] = -1
    constants = tuple(torch.zeros(len(index)) for index in copies[1:-1])
    return Embedding(network, tuple(copies), (*factors, last), constants)


@checked
def random_embedding(
    network: Network, widths: Sequence[int], *, generator: Generator, null: float = 0.0, spread: float = 0.5
) -> Embedding:
    """A random compatible embedding into these widths.

    For every block of copies of k over copies of s, α = 1 β[l−1]ᵀ + Z with Z1 = 0 and β[l]ᵀZ = 0; β and Z are normal.

    Args:
        network: the narrow architecture.
        widths: m′, with m′_0 = m_0, m′_L = m_L and m′_l ≥ m_l.
        generator: of the index maps, the shares and the factors.
        null: the probability that an added neuron is null.
        spread: standard deviation of shares and factors about equal ones.

    Raises:
        ValueError: if the widths do not fit, or a number is out of range.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> g = torch.Generator().manual_seed(0)
        >>> random = random_embedding(Network.uniform((1, 2, 2, 1), tanh), (1, 4, 3, 1), generator=g)
        >>> round(betas(random)[1].sum().item(), 12)
        2.0
    """
    null, spread = number("null", null, at_least=0.0), number("spread", spread, at_least=0.0)
    if null > 1:
        raise ValueError(f"null: expected a probability, got {null}")
    _check_widths(network.widths, widths)
    indices = [_random_map(few, many, null, generator) for few, many in zip(network.widths, widths)]
    normal = [torch.randn(len(index), generator=generator, dtype=torch.float64) for index in indices]
    over = [_groups(index, width) for index, width in zip(indices, network.widths)]
    # Equal shares, and noise without its mean over the copies of a neuron; of inputs and outputs 1 remains.
    equal = [each @ (1 / each.sum(0)) for each in over]
    shares = [share + spread * _centred(noise, each) for share, noise, each in zip(equal, normal, over)]
    factors = []
    for level in range(network.depth):
        noise = torch.randn(len(indices[level + 1]), len(indices[level]), generator=generator, dtype=torch.float64)
        factor = spread * _balanced(noise, shares[level + 1], over[level + 1], over[level])
        factors.append(factor + (indices[level + 1] >= 0)[:, None] * shares[level])
    return Embedding(network, tuple(indices), tuple(factors), tuple(normal[1:-1]))


def _check_widths(narrow: Sequence[int], wide: Sequence[int]) -> None:
    for level, width in enumerate(wide):
        whole(f"widths[{level}]", width, 1)
    if len(wide) != len(narrow) or (wide[0], wide[-1]) != (narrow[0], narrow[-1]):
        raise ValueError(f"widths: expected as many as {tuple(narrow)}, with the same ends, got {tuple(wide)}")
    if any(many < few for few, many in zip(narrow, wide)):
        raise ValueError(f"widths: each must be at least that of {tuple(narrow)}, got {tuple(wide)}")


def _random_map(few: int, many: int, null: float, generator: Generator) -> Tensor:
    if few == many:
        return torch.arange(few)
    extra = torch.randint(few, (many - few,), generator=generator)
    extra[torch.rand(many - few, generator=generator) < null] = -1
    return torch.cat([torch.arange(few), extra])


def _centred(noise: Tensor, over: Tensor) -> Tensor:
    """Noise (..., m′) with mean zero over the copies of each neuron, and zero at null ones."""
    return noise * over.sum(1) - (noise @ over / over.sum(0)) @ over.mT


def _balanced(noise: Tensor, shares: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """The part Z of noise (m′_l, m′_{l−1}) with Z1 = 0 over each s, and βᵀZ = 0 over each k; free between nulls."""
    copies = below.sum(1)
    centred = _centred(noise, below) + noise * (1 - copies)
    weights = shares[:, None] * above
    squares = weights.square().sum(0)
    return centred - (weights / squares) @ (weights.mT @ centred)


@checked
def violations(
    narrow: Parametrised, wide: Parametrised, indices: Sequence[Tensor], *, tolerance: float = 1e-9
) -> list[Violation]:
    """Which conditions a wide point breaks, for given index maps; none for a compatible embedding of the narrow point.

    The conditions are read from the weights themselves, so factors need not be known: Σ_{j over s} W′_ij = W_{I(i)s},
    Σ_{i over k} β_i W′_ij = β_j W_{kI(j)}, with β_j by least squares over k (equal shares where all W_{kI(j)} vanish).

    Args:
        narrow: θ, (P,).
        wide: θ′, (P′,), of the same depth and activations.
        indices: I[0], …, I[L], as for `Embedding`.
        tolerance: largest deviation, in units of the layer's largest weight, that is none.

    Raises:
        ValueError: if the networks or index maps do not go together, or a point is not a single finite one.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((1, 1, 1), tanh)
        >>> narrow = Parametrised(network, torch.tensor([1.0, 2.0, 4.0, 3.0]))
        >>> fold = three_fold(network)
        >>> wide = embed(fold, narrow)
        >>> violations(narrow, wide, fold.indices)
        []
        >>> shifted = wide.with_theta(wide.theta + 0.5 * torch.eye(10)[9])
        >>> violations(narrow, shifted, fold.indices)
        [Violation(condition='bias', layer=2, neuron=0, size=0.125)]
    """
    tolerance, indices = number("tolerance", tolerance, at_least=0.0), _checked_indices(narrow.network, indices)
    if wide.network != replace(narrow.network, widths=tuple(len(index) for index in indices)):
        raise ValueError(f"wide: its network is not that of the index maps, got widths {wide.network.widths}")
    real("narrow", narrow.theta, (narrow.network.n_parameters,))
    real("wide", wide.theta, (wide.network.n_parameters,))
    over = [_groups(index, width) for index, width in zip(indices, narrow.network.widths)]
    found = []
    for condition, level, errors in (
        *_forward_errors(narrow, wide, indices, over),
        *_backward_errors(narrow, wide, over),
    ):
        scale = max(float(layer.abs().max()) for layer in narrow.layers()[level]) or 1.0
        sizes = errors / scale
        found += [
            Violation(condition, level + 1, int(i), float(sizes[i])) for i in torch.nonzero(sizes > tolerance)[:, 0]
        ]
    return found


def _forward_errors(
    narrow: Parametrised, wide: Parametrised, indices: Sequence[Tensor], over: Sequence[Tensor]
) -> list[tuple[str, int, Tensor]]:
    """By how much each neuron misses the sums of its weights and its bias: (condition, layer from 0, (m′,))."""
    errors, silent = [], torch.zeros(len(indices[0]), dtype=torch.float64)
    for level, (few, many) in enumerate(zip(narrow.layers(), wide.layers())):
        copied = over[level + 1] @ few.weight
        errors.append(("forward" if level else "copy", level, (many.weight @ over[level] - copied).abs().amax(1)))
        constant = many.bias + many.weight @ silent
        copies = indices[level + 1] >= 0
        errors.append(("bias", level, (constant - over[level + 1] @ few.bias).abs() * copies))
        if level < len(narrow.network.activations):
            silent = torch.where(copies, 0.0, narrow.network.activations[level].function(constant))
    return errors


def _backward_errors(narrow: Parametrised, wide: Parametrised, over: Sequence[Tensor]) -> list[tuple[str, int, Tensor]]:
    """By how much each neuron's outgoing weights miss the backward condition."""
    errors, share = [], torch.ones(len(over[-1]), dtype=torch.float64)
    for level in reversed(range(1, narrow.network.depth)):
        weight, outgoing = narrow.layers()[level].weight, wide.layers()[level].weight
        # (m_l, m′_{l−1}): what arrives at j from the errors of each narrow k, and what the narrow neuron receives.
        arriving = over[level + 1].mT @ (share[:, None] * outgoing)
        expected = weight @ over[level].mT
        squares = expected.square().sum(0)
        equal = over[level] @ (1 / over[level].sum(0))
        share = torch.where(squares > 0, (arriving * expected).sum(0) / squares, equal)
        errors.append(("backward", level, (arriving - share * expected).abs().amax(0)))
    return errors


@checked
def compatible_dimension(narrow: Sequence[int], wide: Sequence[int]) -> int:
    """K + Σ_l K_l K_{l−1}, K_l = m′_l − m_l, K = Σ K_l: the dimension of the set of compatible embeddings.

    It is the same for all index maps, null neurons included.

    Source: Zhang et al. (2022), by a heuristic argument; proved in the chapter on compatible embeddings.

    Raises:
        ValueError: if the wide network is not at least as wide in every layer, with the same ends.

    Example:
        >>> compatible_dimension((1, 2, 2, 1), (1, 4, 3, 1))
        5
    """
    for level, width in enumerate(narrow):
        whole(f"narrow[{level}]", width, 1)
    if len(narrow) < 2:
        raise ValueError(f"narrow: need at least two widths, got {tuple(narrow)}")
    _check_widths(narrow, wide)
    added = [many - few for few, many in zip(narrow, wide)]
    return sum(added) + sum(below * above for below, above in zip(added, added[1:]))


@checked
def constraint_dimension(embedding: Embedding) -> int:
    """The dimension of the solutions of both conditions at an embedding: unknowns minus the rank of their Jacobian.

    Unknowns are the factors of layers 2 to L, the shares β of hidden copies, and the constants of null neurons.

    Raises:
        UnclearRankError: if a singular value is within a factor 100 of 1e-9 of the largest.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> constraint_dimension(three_fold(Network.uniform((1, 1, 1, 1), tanh)))
        8
    """
    network, depth = embedding.network, embedding.network.depth
    copies = [index >= 0 for index in embedding.indices]
    given = (*embedding.factors[1:], *(share[one] for share, one in zip(betas(embedding)[1:-1], copies[1:-1])))
    nulls = sum(int((~one).sum()) for one in copies)
    if not given:
        return 0
    sizes = [each.numel() for each in given]
    over = [_groups(index, width) for index, width in zip(embedding.indices, network.widths)]

    def residuals(unknowns: Tensor) -> Tensor:
        """By how much these unknowns miss the conditions, one after the other."""
        parts = torch.split(unknowns, sizes)
        factors = [part.view(each.shape) for part, each in zip(parts, given)][: depth - 1]
        ends = (over[0].new_ones(network.widths[0]), over[-1].new_ones(network.widths[-1]))
        # Shares of all neurons from those of the copies.
        shares = [
            part @ torch.eye(len(one), dtype=torch.float64)[one]
            for one, part in zip(copies, (ends[0], *parts[depth - 1 :], ends[1]))
        ]
        rows = [(share @ each - 1) for share, each in zip(shares[1:-1], over[1:-1])]
        for level, factor in enumerate(factors, start=1):
            rows.append((factor @ over[level] - copies[level + 1].double()[:, None]).flatten())
            rows.append((over[level + 1].mT @ (shares[level + 1][:, None] * factor) - shares[level]).flatten())
        return torch.cat(rows)

    with torch.inference_mode(False):
        unknowns = torch.cat([each.flatten() for each in given])
        jacobian: Tensor = torch.func.jacrev(residuals)(unknowns)
    return len(unknowns) + nulls - _clear_rank(jacobian, "the Jacobian of the conditions")


def _clear_rank(matrix: Tensor, what: str, scale: float | None = None) -> int:
    values = torch.linalg.svdvals(matrix)
    relative = values / (scale or float(values[0]) or 1.0)
    if ((relative > _RANK / _GAP) & (relative < _RANK * _GAP)).any():
        raise UnclearRankError(f"the rank of {what} is not clear: singular values are near {_RANK:g} of the largest")
    return int((relative >= _RANK).sum())


@checked
def copies_dimension(risk: Risk, theta: Tensor, copies: Sequence[int]) -> int:
    """Σ_k (t_k − 1)(p − ρ_k): the dimension of the critical points that are t_k copies of each hidden neuron k.

    For one hidden layer and a critical θ. Outgoing weights v_j ∈ R^p of the copies of k with Σ v_j = V give a critical
    point if and only if N_kᵀv_j = 0, N_k = Σ_i σ′ δ_i a_iᵀ of rank ρ_k; compatible embeddings are v_j = β_j V.

    Source: this book.

    Args:
        risk: of a network with one hidden layer and without batch normalization.
        theta: θ, (P,), a critical point.
        copies: t_k ≥ 1 for each hidden neuron.

    Raises:
        UnclearRankError: if a singular value of N_k is within a factor 100 of 1e-9 of Σ_i |σ′| ‖δ_i‖ ‖a_i‖.
        ValueError: for another architecture, or another number of copies.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> x = torch.linspace(-1, 1, 9)[:, None].double()
        >>> risk = Risk(Network.uniform((1, 1, 1), tanh), x, torch.tanh(2 * x))
        >>> copies_dimension(risk, torch.tensor([2.0, 0.0, 1.0, 0.0]), [3])
        2
    """
    theta = real("theta", theta, (risk.network.n_parameters,))
    if risk.network.depth != 2:
        raise ValueError(f"risk: needs one hidden layer, got widths {risk.network.widths}")
    if len(copies) != risk.network.widths[1]:
        raise ValueError(f"copies: expected a number for each of {risk.network.widths[1]} neurons, got {len(copies)}")
    copies = [whole(f"copies[{k}]", count, 1) for k, count in enumerate(copies)]
    passes = passes_over(risk, theta[None])
    deltas, inputs = passes.deltas[-1][0], passes.features[0][0]
    ranks = []
    for slope in passes.slopes[0][0]:
        # What rounding of N is measured by: where all errors vanish N is zero, and rounding alone has any rank.
        scale = float((deltas.norm(dim=0) * slope.abs() * inputs.norm(dim=0)).sum())
        exact = scale <= torch.finfo(torch.float64).eps
        ranks.append(0 if exact else _clear_rank((deltas * slope) @ inputs.mT, "N", scale))
    return sum((count - 1) * (risk.network.widths[2] - rank) for count, rank in zip(copies, ranks))
