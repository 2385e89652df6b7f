"""The strata of the lifted set T_S(θ) and their dimensions: a theorem, and two ways to count them numerically.

T_S(θ) is the set of (A, c, B, b′) with B Λ A = W[q+1] and B (Λc + μ) + b′ = b[q+1] whose pre-activations stay inside
their affine pieces, an open condition. The members with rank A = a and rank B = b form a *stratum*. With r = rank W,

    r ≤ a ≤ min(k, m_q),    r ≤ b ≤ min(k, m_{q+1}),    a + b ≤ k + r.

Where neither rank can grow the stratum is open in T_S(θ), and of dimension P′ − P + (m_q − a)(m_{q+1} − b). The open
strata are dense in T_S(θ) (proved in the book's chapter on lifting).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from embedding_principle.activations import identity
from embedding_principle.arguments import checked, number, real, require_room, variable, whole
from embedding_principle.depth.lifting import merge
from embedding_principle.networks import Layer, Network, flatten

# Singular values of the equations' Jacobian below this fraction of the largest are zero: at members as `lift` draws
# them the others stay above 1e-4, and rounding leaves 1e-15.
_RANK_THRESHOLD = 1e-9
_PULLS = 4


@checked
def lifted_dimension(preceding: int, following: int, width: int) -> int:
    """P′ − P = k (m_q + m_{q+1} + 1) − m_q m_{q+1}: the dimension where A has full column rank or B full row rank.

    Args:
        preceding: m_q.
        following: m_{q+1}.
        width: k.

    Raises:
        ValueError: if one of them is not positive.

    Example:
        >>> lifted_dimension(2, 1, 2)
        6
    """
    preceding, following, width = _positive(preceding=preceding, following=following, width=width)
    return width * (preceding + following + 1) - preceding * following


def _positive(**sizes: int) -> list[int]:
    return [whole(name, size, 1) for name, size in sizes.items()]


@dataclass(frozen=True)
class Stratum:
    """The members with given ranks of A and B, in fixed affine pieces.

    Attributes:
        ranks: (a, b) = (rank A, rank B).
        dimension: of this smooth manifold.
        is_open: whether it is open in T_S(θ): neither rank can grow.
        excess: e = (m_q − a)(m_{q+1} − b), by how much dim ker Dφ exceeds P′ − P there.
    """

    ranks: tuple[int, int]
    dimension: int
    is_open: bool
    excess: int


@checked
def strata(preceding: int, following: int, width: int, rank: int) -> list[Stratum]:
    """Every stratum of T_S(θ) that is not empty, by increasing ranks; none when k < r.

    Source: this book, theorem on the strata of the lifted set.

    Args:
        preceding: m_q.
        following: m_{q+1}.
        width: k.
        rank: r = rank W[q+1].

    Raises:
        ValueError: if a size is not positive, the rank is not one of a matrix of that size, or there are so many
            strata that they do not fit in memory.

    Example:
        >>> [(s.ranks, s.dimension, s.excess) for s in strata(4, 3, 3, 2) if s.is_open]
        [((2, 3), 12, 0), ((3, 2), 13, 1)]
    """
    preceding, following, width = _positive(preceding=preceding, following=following, width=width)
    rank = whole("rank", rank, 0, min(preceding, following))
    # The largest ranks of A and B, where k allows for r.
    incoming, outgoing = min(width, preceding), min(width, following)
    # An object takes the memory of fifty numbers.
    require_room("width", 50, max(0, incoming - rank + 1), max(0, outgoing - rank + 1))

    def admissible(a: int, b: int) -> bool:
        """Whether the bounds of the theorem allow these ranks."""
        return rank <= a <= incoming and rank <= b <= outgoing and a + b <= width + rank

    found = []
    for a in range(rank, incoming + 1):
        for b in range(rank, outgoing + 1):
            if admissible(a, b):
                free = (a - rank) * (preceding - a) + (b - rank) * (following - b)
                is_open = not (admissible(a + 1, b) or admissible(a, b + 1))
                excess = (preceding - a) * (following - b)
                found.append(Stratum((a, b), width * (1 + a + b) - a * b + free, is_open, excess))
    return found


class OutputEquations:
    """The map (A, c, B, b′) ↦ (B Λ A, B (Λc + μ) + b′) around one member of T_S(θ), as a function of a flat vector.

    Args:
        first: A (k, m_q) and c (k,).
        second: B (m_{q+1}, k) and b′ (m_{q+1},).
        slope: λ, (k,).
        intercept: μ, (k,).

    Raises:
        ValueError: if these are not finite, or their shapes do not go together.

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> equations = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> equations(equations.member)
        tensor([1., 0.], dtype=torch.float64)
    """

    @checked
    def __init__(self, first: Layer, second: Layer, slope: Tensor, intercept: Tensor) -> None:
        width, preceding = real("first.weight", first.weight, ("k", "m_q")).shape
        (following, _) = real("second.weight", second.weight, ("m_{q+1}", width)).shape
        self._shapes = Network((preceding, width, following), (identity,))
        self._slope, self._intercept = real("slope", slope, (width,)), real("intercept", intercept, (width,))
        self.member = real("first.bias", flatten([first, second]), (self._shapes.n_parameters,))

    def __call__(self, parameters: Tensor) -> Tensor:
        """The merged layer of flat (A, c, B, b′), (..., unknowns); ValueError for another shape."""
        parameters = variable("parameters", parameters, (..., len(self.member)))
        first, second = self._shapes.layers(parameters)
        return flatten([merge(first, second, self._slope, self._intercept)])

    def jacobian(self) -> Tensor:
        """The derivative at the member, (equations, unknowns)."""
        # Outside inference mode, whatever the caller's mode is.
        with torch.inference_mode(False):
            derivative: Tensor = torch.func.jacrev(self)(self.member)
        return derivative


@checked
def jacobian_dimension(equations: OutputEquations) -> int:
    """The dimension of T_S(θ) at a member of an open stratum, as the corank of the Jacobian of its equations.

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> member = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> jacobian_dimension(member) == lifted_dimension(1, 1, 1)
        True
    """
    return len(equations.member) - int(torch.linalg.matrix_rank(equations.jacobian(), rtol=_RANK_THRESHOLD))


@checked
def sampled_dimension(equations: OutputEquations, *, generator: Generator, radius: float = 1e-5) -> int:
    """The dimension of T_S(θ) at a member of an open stratum, by principal component analysis of neighbours.

    Random points at a distance of about `radius` are pulled onto the equations by steps with the pseudo-inverse of the
    member's own Jacobian, each of which gains a factor of about radius. Along T_S(θ) the neighbours spread by radius,
    across it by radius² times its curvature; what exceeds a tenth of radius is counted.

    Raises:
        ValueError: if the pulled points miss the equations: the member lies on no open stratum, or radius is too large
            (or not positive).

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> member = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> sampled_dimension(member, generator=torch.Generator().manual_seed(0))
        2
    """
    centre, size = equations.member, len(equations.member)
    count = 4 * size
    # The spread along T_S(θ) is told from that across by radius² being small beside radius.
    number("radius", radius, above=0.0, below=1.0)
    require_room("equations", count, size)
    members = centre + radius * torch.randn(count, size, generator=generator, dtype=torch.float64)
    goal, pull = equations(centre), torch.linalg.pinv(equations.jacobian(), rtol=_RANK_THRESHOLD)
    for _ in range(_PULLS):
        members = members - (equations(members) - goal) @ pull.mT
    missed = float((equations(members) - goal).abs().max())
    # Where T_S(θ) is no manifold of that tangent space a remainder of second order stays; rounding is far below it.
    if not missed <= 1e-2 * radius**2 * (1 + float(centre.abs().max())):
        raise ValueError(f"equations: neighbours of the member miss them by {missed:.1e}; is its stratum open?")
    spread = torch.linalg.svdvals(members - centre) / count**0.5
    return int((spread > radius / 10).sum())
