r"""Splitting a neuron and adding a silent one: embeddings in width, and an exact law for the Hessian.

*Splitting* (one-step splitting embedding of Zhang et al., arXiv:2105.14573, and Fukumizu and Amari 2000): m copies of a
hidden neuron with its incoming weights u and bias, and with outgoing weights α_j V, Σ_j α_j = 1, in place of V. The
function is kept for every input, and so is criticality.

*The law* (proved in the book): let a_i be the features that the neuron receives at sample i and a constant one
(d entries), δ_i = ∂R/∂z_i for the pre-activation z of the next layer (p entries), σ′ and σ″ those of the neuron, and

    M = Σ_i (V·δ_i) σ″ a_i a_iᵀ  (d × d),    N = Σ_i σ′ δ_i a_iᵀ  (p × d).

In the coordinates u_j = ū + η_j with Σ_j α_j η_j = 0, v_j = α_j V̄ + ζ_j with Σ_j ζ_j = 0 the Hessian of the wider risk
is H ⊕ Q, at every θ, critical or not, with

    Q = [[G ⊗ M, I ⊗ Nᵀ], [I ⊗ N, 0]],    G = diag(α) on {Σ_j α_j t_j = 0}.

`compatible.violations` says whether a wider point is a splitting of a narrow one, with the index map that sends every
copy to its neuron.

*A null neuron* with incoming weights zero, bias c and outgoing weights zero adds the same Q with M = 0, G = 1 and
N₀ = σ′(c) Σ_i δ_i a_iᵀ in the place of N.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.arguments import checked, number, real, require_room, whole
from embedding_principle.curvature.inertia import Counts, inertia
from embedding_principle.curvature.passes import Passes, passes_over
from embedding_principle.networks import Layer, Network, Parametrised
from embedding_principle.risks import Risk

# Shares are given as decimal numbers, whose sum is off by a few roundings.
_SHARES_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class SplittingBlocks:
    """What the Hessian gains when a neuron is split: M and N of the module's law.

    Attributes:
        curvature: M, (d, d), symmetric; zero for a null neuron.
        coupling: N, (p, d).
        error: a bound on the rounding of both, in the Frobenius norm.
    """

    curvature: Tensor
    coupling: Tensor
    error: float


@checked
def split(point: Parametrised, position: int, neuron: int, shares: Sequence[float]) -> Parametrised:
    """The neuron replaced by copies that share its outgoing weights: the function is kept for every input.

    Zhang et al. (arXiv:2105.14573), Definition 5 and Lemma 1; splitting keeps criticality (Theorem 1).

    Args:
        point: θ, (..., P).
        position: q, the neuron is one of hidden layer q + 1.
        neuron: its index.
        shares: α_1, …, α_m with sum one, of any sign. The first copy stays in the neuron's place, the others follow
            behind the last neuron of the layer.

    Returns:
        θ′, (..., P′).

    Raises:
        ValueError: if there is no such neuron, there are fewer than two shares, or their sum is not one.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> point = Parametrised(Network.uniform((1, 1, 1), tanh), torch.tensor([2.0, 0.5, 3.0, 0.0]).double())
        >>> [layer.weight.tolist() for layer in split(point, 0, 0, (0.25, 0.75)).layers()]
        [[[2.0], [2.0]], [[0.75, 2.25]]]
    """
    neuron, copies = _neuron(point.network, position, neuron), _shares(shares)
    first, second = point.layers()[position : position + 2]
    kept = range(point.network.widths[position + 1])
    places = torch.tensor([*kept, *[neuron] * (len(copies) - 1)])
    factors = torch.ones(len(places), dtype=torch.float64)
    factors[neuron], factors[len(kept) :] = copies[0], copies[1:]
    copied = Layer(first.weight[..., places, :], *(part[..., places] for part in (*first,)[1:]))
    return point.replaced(position, copied, Layer(second.weight[..., places] * factors, *(*second,)[1:]))


@checked
def with_null_neuron(point: Parametrised, position: int, bias: float = 0.0) -> Parametrised:
    """One neuron more in hidden layer q + 1, with incoming and outgoing weights zero and this bias.

    The null embedding of Zhang et al. (J. Mach. Learn. 1, 2022): the function is kept for every input, and a critical
    point stays one.

    Args:
        point: θ, (..., P), without batch normalization.
        position: q; the new neuron is the last one of hidden layer q + 1.
        bias: c, of the new neuron.

    Raises:
        ValueError: if there is no such layer, or the network has batch normalization: a constant neuron has none.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> point = Parametrised(Network.uniform((1, 1, 1), tanh), torch.tensor([2.0, 0.5, 3.0, 0.0]).double())
        >>> with_null_neuron(point, 0, 0.1).theta
        tensor([2.0000, 0.0000, 0.5000, 0.1000, 3.0000, 0.0000, 0.0000],
               dtype=torch.float64)
    """
    point.network.check_hidden(position)
    _plain(point.network)
    first, second = point.layers()[position : position + 2]
    silent = Layer(_with_zeros(first.weight, -2), _with_zeros(first.bias, -1, number("bias", bias)))
    return point.replaced(position, silent, Layer(_with_zeros(second.weight, -1), second.bias))


def _with_zeros(part: Tensor, dim: int, value: float = 0.0) -> Tensor:
    return torch.cat([part, torch.full_like(part.narrow(dim, 0, 1), value)], dim)


@checked
def splitting_coordinates(network: Network, position: int, neuron: int, shares: Sequence[float]) -> Tensor:
    """The matrix T of the module's coordinates: with it Tᵀ H′ T = H ⊕ Q at every point split with these shares.

    Args:
        network: the narrow architecture, without batch normalization.
        position: q, as for `split`.
        neuron: as for `split`.
        shares: α, as for `split`.

    Returns:
        (P′, P′), invertible. Its columns are the directions of θ itself; then η_k, d of them for each copy but the
        last; then ζ_k, p for each copy but the last.

    Raises:
        ValueError: as `split`, or for batch normalization, or if T would not fit in memory.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> splitting_coordinates(Network.uniform((1, 1, 1), tanh), 0, 0, (0.5, 0.5)).shape
        torch.Size([7, 7])
    """
    _plain(network)
    copies = _shares(shares)
    require_room("network", network.n_parameters, network.n_parameters)
    base = split(Parametrised(network, torch.eye(network.n_parameters, dtype=torch.float64)), position, neuron, shares)
    wider, count = base.network, len(copies) - 1
    width, (d, p) = network.widths[position + 1], _sizes(network, position)
    places = torch.tensor([neuron, *range(width, width + count)])
    incoming = torch.zeros(count, d, wider.n_parameters, dtype=torch.float64)
    outgoing = torch.zeros(count, p, wider.n_parameters, dtype=torch.float64)
    for k in range(count):
        # e_k − α_k 1 and e_k − e_m are dual bases of {Σ α_j t_j = 0} and {Σ t_j = 0}.
        spread = -copies[k].expand(count + 1).clone()
        spread[k] += 1
        for entry in range(d):
            layer = wider.layers(incoming[k, entry])[position]
            target = layer.bias if entry == d - 1 else layer.weight[:, entry]
            target[places] = spread
        for entry in range(p):
            weight = wider.layers(outgoing[k, entry])[position + 1].weight
            weight[entry, places[k]], weight[entry, places[-1]] = 1.0, -1.0
    return torch.cat([base.theta, incoming.flatten(0, 1), outgoing.flatten(0, 1)]).mT


@checked
def null_coordinates(network: Network, position: int, bias: float = 0.0) -> Tensor:
    """The matrix T for a null neuron: Tᵀ H′ T = H ⊕ [[0, N₀ᵀ], [N₀, 0]] at every point.

    A change ζ of the outgoing weights is accompanied by −σ(c) ζ in the next layer's biases, which keeps its inputs.

    Args:
        network: the narrow architecture, without batch normalization.
        position: q, as for `with_null_neuron`.
        bias: c, of the new neuron.

    Returns:
        (P′, P′), invertible; columns in the order θ, u (d of them), ζ (p of them).

    Raises:
        ValueError: if there is no such layer, or for batch normalization, or if T would not fit in memory.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> null_coordinates(Network.uniform((1, 1, 1), tanh), 0).shape
        torch.Size([7, 7])
    """
    _plain(network)
    bias = number("bias", bias)
    require_room("network", network.n_parameters, network.n_parameters)
    base = with_null_neuron(Parametrised(network, torch.eye(network.n_parameters, dtype=torch.float64)), position)
    wider = base.network
    d, p = _sizes(network, position)
    constant = network.activations[position].function(torch.tensor(bias, dtype=torch.float64))
    added = torch.zeros(d + p, wider.n_parameters, dtype=torch.float64)
    for entry, row in enumerate(added):
        first, second = wider.layers(row)[position : position + 2]
        if entry < d - 1:
            first.weight[-1, entry] = 1.0
        elif entry == d - 1:
            first.bias[-1] = 1.0
        else:
            second.weight[entry - d, -1], second.bias[entry - d] = 1.0, -constant
    return torch.cat([base.theta, added]).mT


@checked
def neuron_blocks(risk: Risk, theta: Tensor, position: int, neuron: int) -> SplittingBlocks:
    """M and N of a neuron, of the module's law.

    Args:
        risk: the empirical risk, of a network without batch normalization.
        theta: θ, (P,), any point.
        position: q, the neuron is one of hidden layer q + 1.
        neuron: its index.

    Raises:
        ValueError: if there is no such neuron, θ is not a single finite point, or for batch normalization.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> x = torch.linspace(-1, 1, 5).double()[:, None]
        >>> risk = Risk(Network.uniform((1, 2, 1), tanh), x, x**2)
        >>> blocks = neuron_blocks(risk, torch.linspace(-1, 1, 7).double(), 0, 1)
        >>> blocks.curvature.shape, blocks.coupling.shape
        (torch.Size([2, 2]), torch.Size([1, 2]))
    """
    neuron, passes = _neuron(risk.network, position, neuron), _passes(risk, theta)
    features, delta = passes.features[position][0], passes.deltas[position + 1][0]
    slope, bend = passes.slopes[position][0, neuron], passes.bends[position][0, neuron]
    return _blocks(features, bend, slope * delta)


@checked
def null_blocks(risk: Risk, theta: Tensor, position: int, bias: float = 0.0) -> SplittingBlocks:
    """N₀ = σ′(c) Σ_i δ_i a_iᵀ for a null neuron with bias c in hidden layer q + 1, and M = 0.

    Arguments and errors are those of `neuron_blocks`; the bias is c.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.linspace(-1, 1, 5).double()[:, None]
        >>> risk = Risk(Network.uniform((1, 2, 1), relu), x, x**2)
        >>> null_blocks(risk, torch.linspace(-1, 1, 7).double(), 0, -1.0).coupling
        tensor([[0., 0.]], dtype=torch.float64)
    """
    risk.network.check_hidden(position)
    passes, constant = _passes(risk, theta), torch.tensor([number("bias", bias)], dtype=torch.float64)
    features, delta = passes.features[position][0], passes.deltas[position + 1][0]
    slope = risk.network.activations[position].first(constant)
    return _blocks(features, torch.zeros_like(features[0]), slope * delta)


def _passes(risk: Risk, theta: Tensor) -> Passes:
    return passes_over(risk, real("theta", theta, (risk.network.n_parameters,))[None])


def _blocks(features: Tensor, bend: Tensor, transmitted: Tensor) -> SplittingBlocks:
    sizes = (bend.abs() * features.square().sum(0)).sum() + (transmitted.norm(dim=0) * features.norm(dim=0)).sum()
    # A sum of n terms is off by n ε of the sum of their moduli at most, and each term is a product of three factors
    # that are themselves rounded sums; without their own rounding (of δ) this is the size of what cancels.
    error = (features.shape[1] + 8) * torch.finfo(torch.float64).eps * float(sizes)
    return SplittingBlocks((bend * features) @ features.mT, transmitted @ features.mT, error)


@checked
def splitting_block(blocks: SplittingBlocks, shares: Sequence[float]) -> Tensor:
    """Q = [[G ⊗ M, I ⊗ Nᵀ], [I ⊗ N, 0]], in the coordinates of `splitting_coordinates`.

    Args:
        blocks: M and N.
        shares: α; G_kl = α_k δ_kl − α_k α_l for all copies but the last.

    Returns:
        ((m − 1)(d + p), (m − 1)(d + p)).

    Raises:
        ValueError: as `split` for the shares.

    Example:
        >>> blocks = SplittingBlocks(torch.eye(2).double(), torch.zeros(1, 2).double(), 0.0)
        >>> splitting_block(blocks, (0.5, 0.5)).diag()
        tensor([0.2500, 0.2500, 0.0000], dtype=torch.float64)
    """
    gram = _gram(_shares(shares))
    coupling = torch.kron(torch.eye(len(gram), dtype=torch.float64), blocks.coupling)
    corner = coupling.new_zeros(len(coupling), len(coupling))
    above = torch.cat([torch.kron(gram, blocks.curvature), coupling.mT], 1)
    return torch.cat([above, torch.cat([coupling, corner], 1)])


def _gram(shares: Tensor) -> Tensor:
    """diag(α) in the basis e_k − α_k 1 of {Σ α_j t_j = 0}."""
    kept = shares[:-1]
    return torch.diag(kept) - kept[:, None] * kept


@checked
def coupling_rank(blocks: SplittingBlocks) -> int:
    """ρ, the rank of N; UnclearInertiaError where a singular value is neither clearly zero nor clearly not.

    Example:
        >>> coupling_rank(SplittingBlocks(torch.eye(2).double(), torch.tensor([[0.0, 3.0]]).double(), 1e-15))
        1
    """
    p, d = blocks.coupling.shape
    corner = blocks.coupling.new_zeros
    symmetric = torch.cat(
        [torch.cat([corner(d, d), blocks.coupling.mT], 1), torch.cat([blocks.coupling, corner(p, p)], 1)]
    )
    return inertia(symmetric, error=blocks.error).positive


@checked
def splitting_inertia(blocks: SplittingBlocks, shares: Sequence[float]) -> Counts:
    """What a splitting adds to the inertia: (m − 1)(ρ, p − ρ, ρ) + In(G ⊗ M on ker N), ρ = rank N.

    With one more copy, shares α and 1 − α, that is (ρ, p − ρ, ρ) + In(α(1 − α) M on ker N). The inertia of the wider
    Hessian is that of H plus this, at every point (book, chapter on splitting).

    Raises:
        UnclearInertiaError: where the rank of N or a sign of M on its kernel is not clear.
        ValueError: as `split` for the shares.

    Example:
        >>> M, N = torch.diag(torch.tensor([1.0, -2.0])).double(), torch.zeros(1, 2).double()
        >>> [splitting_inertia(SplittingBlocks(M, N, 1e-15), (a, 1 - a)) for a in (0.5, 0.0, 2.0)]
        [(1, 1, 1), (0, 3, 0), (1, 1, 1)]
    """
    gram, rank = _gram(_shares(shares)), coupling_rank(blocks)
    p, d = blocks.coupling.shape
    kernel = torch.linalg.svd(blocks.coupling).Vh[rank:].mT
    added = [len(gram) * rank, len(gram) * (p - rank), len(gram) * rank]
    if d > rank:
        form = torch.kron(gram, kernel.mT @ blocks.curvature @ kernel)
        # An error e of N turns its kernel by e / s, s its smallest singular value that is not zero.
        turned = float(torch.linalg.matrix_norm(blocks.curvature, 2)) / _smallest(blocks.coupling, rank)
        error = float(torch.linalg.matrix_norm(gram, 2)) * blocks.error * (1 + 2 * turned)
        counts = inertia((form + form.mT) / 2, error=error).counts
        added = [a + b for a, b in zip(added, counts)]
    return added[0], added[1], added[2]


def _smallest(coupling: Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(coupling)[rank - 1]) if rank else float("inf")


def _neuron(network: Network, position: int, neuron: int) -> int:
    network.check_hidden(position)
    return whole("neuron", neuron, 0, network.widths[position + 1] - 1)


def _shares(shares: Sequence[float]) -> Tensor:
    values = [number("shares", share) for share in shares]
    if len(values) < 2 or abs(sum(values) - 1) > _SHARES_ROUNDING * sum(map(abs, values)):
        raise ValueError(f"shares: expected two or more numbers with sum one, got {values}")
    return torch.tensor(values, dtype=torch.float64)


def _sizes(network: Network, position: int) -> tuple[int, int]:
    """Sizes d and p: incoming parameters of a neuron of hidden layer q + 1, and its outgoing weights."""
    return network.widths[position] + 1, network.widths[position + 2]


def _plain(network: Network) -> None:
    if network.batch_norm_epsilon is not None:
        raise ValueError("network: the law is for networks without batch normalization; see fold_batch_norm")
