"""The dimension of the lifted set T_S(θ): a formula, and two ways to count it numerically.

T_S(θ) is the set of (A, c, B, b′) with B Λ A = W[q+1] and B (Λc + μ) + b′ = b[q+1] whose pre-activations stay inside
their affine pieces, an open condition. Where B has full row rank or A has full column rank, these
m_{q+1} (m_q + 1) equations are independent, and T_S(θ) is a manifold of dimension P′ − P.
"""

import torch
from torch import Generator, Tensor

from embedding_principle.activations import identity
from embedding_principle.depth.lifting import merge
from embedding_principle.networks import Layer, Network, flatten


def lifted_dimension(preceding: int, following: int, width: int) -> int:
    """P′ − P = k (m_q + m_{q+1} + 1) − m_q m_{q+1}, the dimension of T_S(θ) at members of full rank (ours).

    Args:
        preceding: m_q.
        following: m_{q+1}.
        width: k.

    Example:
        >>> lifted_dimension(2, 1, 2)
        6
    """
    return width * (preceding + following + 1) - preceding * following


class OutputEquations:
    """The map (A, c, B, b′) ↦ (B Λ A, B (Λc + μ) + b′) around one member of T_S(θ), as a function of a flat vector.

    Args:
        first: A (k, m_q) and c (k,).
        second: B (m_{q+1}, k) and b′ (m_{q+1},).
        slope: λ, (k,).
        intercept: μ, (k,).

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> equations = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> equations(equations.member)
        tensor([1., 0.], dtype=torch.float64)
    """

    def __init__(self, first: Layer, second: Layer, slope: Tensor, intercept: Tensor) -> None:
        width, preceding = first.weight.shape
        self._shapes = Network((preceding, width, len(second.weight)), (identity,))
        self._slope, self._intercept = slope, intercept
        self.member = flatten([first, second])

    def __call__(self, parameters: Tensor) -> Tensor:
        """The merged layer of flat (A, c, B, b′)."""
        first, second = self._shapes.layers(parameters)
        return flatten([merge(first, second, self._slope, self._intercept)])


def jacobian_dimension(equations: OutputEquations) -> int:
    """The dimension of T_S(θ) at the member, as the corank of the Jacobian of its equations.

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> member = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> jacobian_dimension(member) == lifted_dimension(1, 1, 1)
        True
    """
    jacobian: Tensor = torch.func.jacrev(equations)(equations.member)
    return len(equations.member) - int(torch.linalg.matrix_rank(jacobian))


def sampled_dimension(equations: OutputEquations, *, generator: Generator, radius: float = 1e-5) -> int:
    """The dimension of T_S(θ) at the member, counted by principal component analysis of random members nearby.

    Random points at a distance of about `radius` are pulled back onto the equations by Gauss–Newton steps. Their
    spread is of order radius along T_S(θ) and of order radius² across it; what exceeds radius^1.5 is counted.

    Example:
        >>> one, zero = torch.ones(1).double(), torch.zeros(1).double()
        >>> member = OutputEquations(Layer(one[:, None], zero), Layer(one[:, None], zero), one, zero)
        >>> sampled_dimension(member, generator=torch.Generator().manual_seed(0))
        2
    """
    centre, size = equations.member, len(equations.member)
    count = 4 * size
    members = centre + radius * torch.randn(count, size, generator=generator, dtype=torch.float64)
    goal = equations(centre)
    jacobian = torch.func.vmap(torch.func.jacrev(equations))
    for _ in range(3):  # quadratic convergence: the excess falls from radius to radius², radius⁴, rounding
        excess = equations(members) - goal
        members = members - (torch.linalg.pinv(jacobian(members)) @ excess[..., None])[..., 0]
    spread = torch.linalg.svdvals(members - centre) / count**0.5
    return int((spread > radius**1.5).sum())
