"""The inertia (n−, n0, n+) of a Hessian: from its eigenvalues, or without them from its structure.

One hidden layer: H = J Jᵀ + B with a block-diagonal B (see `one_hidden_layer`). For a shift s, H − sI is a Schur
complement of M = [[B − sI, J], [Jᵀ, −I]], and so is −I − Jᵀ(B − sI)⁻¹J, which has only as many rows as there are
samples. Inertia is additive over Schur complements (Haynsworth 1968): the small one tells the signs of the large one.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.arguments import checked, exact, number, real
from embedding_principle.curvature.hessian import formal_hessian
from embedding_principle.curvature.kinks import require_smooth
from embedding_principle.curvature.one_hidden_layer import has_one_hidden_layer, hessian_parts, neurons
from embedding_principle.curvature.passes import passes_over
from embedding_principle.risks import Risk

Counts = tuple[int, int, int]

# Eigenvalues that are zero in exact arithmetic come out as rounding errors, at most _ROUNDING · P · ε · ‖H‖: of 2448
# lifted critical points of one-dimensional problems (P = 8 to 34) they left 1.6 P ε ‖H‖ at most, 0.02 in the median.
_ROUNDING = 4.0
# What rounding leaves is below 1e-12 · ‖H‖ for P < 1e3; 1e-9 stands three decades above that noise.
RELATIVE_THRESHOLD = 1e-9
MINIMAL_GAP = 100.0

# An eigen-direction of B is eliminated if its eigenvalue is farther than this from the shift, relative to the squared
# norm of its row of J; otherwise it stays in the bordered matrix. So each term of the Schur complement is below 100,
# and P < 4000 terms leave a rounding error below 1e-10 even if all errors add up. In units of the bound on ‖H‖ that
# error moves the counts no more than a shift of H of that size would: the shift that is used, 1e-9, is ten times it.
_ELIMINATED = 1e-2


class UnclearInertiaError(ValueError):
    """An eigenvalue is neither clearly zero nor clearly of one sign."""


@dataclass(frozen=True)
class Inertia:
    """The numbers of negative, zero and positive eigenvalues of a symmetric matrix, and how clear they are.

    Attributes:
        negative: n−, eigenvalues below −threshold.
        zero: n0, eigenvalues that the error of the matrix explains; none lies between that and the threshold.
        positive: n+, eigenvalues above the threshold.
        threshold: the absolute threshold that was used.
        gap: smallest modulus above the threshold over the error that explains the others; infinite when all
            eigenvalues are zero.
        eigenvalues: all of them in increasing order, (P,).
    """

    negative: int
    zero: int
    positive: int
    threshold: float = field(compare=False)
    gap: float = field(compare=False)
    eigenvalues: Tensor = field(compare=False, repr=False)

    @property
    def counts(self) -> tuple[int, int, int]:
        """(n−, n0, n+)."""
        return self.negative, self.zero, self.positive


@checked
def inertia(
    matrix: Tensor,
    *,
    relative_threshold: float = RELATIVE_THRESHOLD,
    minimal_gap: float = MINIMAL_GAP,
    error: float = 0.0,
) -> Inertia:
    """The inertia of a symmetric matrix (P, P), by eigenvalues.

    An eigenvalue counts as zero if its modulus is at most error + 4 P ε max |λ|, which rounding explains. It has a sign
    if its modulus is above relative_threshold · max |λ| and `minimal_gap` times what counts as zero. Anything between
    is refused: there the sign is not known.

    Args:
        matrix: symmetric up to rounding, float64.
        relative_threshold: modulus, over max |λ|, above which an eigenvalue has a sign. A smaller one trusts the
            matrix to more digits.
        minimal_gap: how many times the error an eigenvalue must be to have a sign.
        error: a bound, in the spectral norm, on the known error of the matrix beyond rounding. At a lifted point whose
            gradient g of the shallow risk is not quite zero the Hessian is Dφᵀ H Dφ + Σ g_i ∇²φ_i, and the sum, of the
            order of ‖g‖, is such an error.

    Raises:
        UnclearInertiaError: if an eigenvalue is neither zero nor of a sign.
        ValueError: if the matrix is not a symmetric finite float64 matrix, or empty, or its eigenvalues overflow; or
            threshold or error is negative, or the gap below one.

    Example:
        >>> inertia(torch.diag(torch.tensor([-2.0, 0.0, 1.0, 3.0]).double())).counts
        (1, 1, 2)
        >>> inertia(torch.diag(torch.tensor([-2.0, 1e-12, 3.0]).double()), error=1e-11).counts
        (1, 1, 1)
    """
    matrix = exact("matrix", matrix, ("P", "P"))
    relative_threshold = number("relative_threshold", relative_threshold, at_least=0.0)
    minimal_gap, error = number("minimal_gap", minimal_gap, at_least=1.0), number("error", error, at_least=0.0)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    if not torch.isfinite(eigenvalues).all():
        raise ValueError("matrix: its eigenvalues overflow float64; scale it")
    moduli = eigenvalues.abs()
    largest = float(moduli.max())
    rounding = _relative_rounding(matrix) * largest
    if float((matrix - matrix.mT).abs().max()) > rounding:
        raise ValueError("matrix: not symmetric; the inertia is that of a symmetric matrix, such as (H + Hᵀ)/2")
    threshold, noise = relative_threshold * largest, rounding + error
    explained = moduli <= noise
    if explained.all():
        return Inertia(0, len(matrix), 0, threshold, math.inf, eigenvalues)
    smallest = float(moduli[~explained].min())
    if smallest <= max(threshold, minimal_gap * noise):
        raise UnclearInertiaError(
            f"the sign of an eigenvalue is not clear: {smallest:.2e} is above the {noise:.2e} that rounding explains, "
            f"and below the zero threshold {threshold:.2e} or {minimal_gap:g} times that; polish the point further, "
            "state the known error of the matrix or give another relative_threshold"
        )
    negative, zero = int((eigenvalues < -noise).sum()), int(explained.sum())
    return Inertia(negative, zero, len(matrix) - negative - zero, threshold, smallest / noise, eigenvalues)


def _relative_rounding(matrix: Tensor) -> float:
    return _ROUNDING * len(matrix) * torch.finfo(matrix.dtype).eps


@checked
def one_hidden_layer_inertia(risk: Risk, theta: Tensor) -> Counts:
    """(n−, n0, n+) of ∇²R_S(θ) for one hidden layer and a scalar output, in O(n² P) operations if it is regular.

    Where no eigenvalue has a modulus below 1e-9 (‖J Jᵀ‖ + ‖B‖), a bound on 1e-9 ‖H‖, they are counted without being
    computed. Otherwise the answer, or refusal, is that of `inertia` on ∇²R_S(θ). It pays where there are fewer samples
    than parameters and the residuals do not vanish; at a perfect fit B = 0.

    Source: the module's formula; Haynsworth, Linear Algebra Appl. 1 (1968) 73–81.

    Args:
        risk: of a network with one hidden layer, scalar output and no batch normalization.
        theta: θ, (P,), of any float type.

    Raises:
        KinkError: if a sample sits on a kink, so that there is no Hessian, see `kinks.require_smooth`.
        UnclearInertiaError: if an eigenvalue is neither clearly zero nor clearly of one sign, see `inertia`.
        ValueError: for another architecture or shape, or where the derivatives are not finite.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> one_hidden_layer_inertia(Risk(Network.uniform((1, 2, 1), tanh), x, x + 1), torch.zeros(7).double())
        (2, 2, 3)
    """
    if not has_one_hidden_layer(risk.network):
        raise ValueError(f"risk: needs widths (m_0, m_1, 1) and no batch normalization, got {risk.network.widths}")
    theta = real("theta", theta, (risk.network.n_parameters,))
    require_smooth(risk, theta)
    residual, jacobian = _diagonalized(risk, theta)
    below, upto = _counts_below(residual, jacobian, RELATIVE_THRESHOLD)
    if below != upto:  # eigenvalues near zero: only their values tell whether rounding explains them
        return inertia(formal_hessian(risk, theta)).counts
    return below, 0, len(residual) - upto


def _diagonalized(risk: Risk, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of B (P,) and J (P, n) in the basis of its eigenvectors, for H over the bound on its norm."""
    parts = hessian_parts(passes_over(risk, theta[None]))
    jacobian, residual = parts.jacobian[0], parts.residual[0]
    gram = jacobian.mT @ jacobian
    if not (torch.isfinite(gram).all() and torch.isfinite(residual).all()):
        raise ValueError("theta: the derivatives there are not finite; they overflow float64")
    values, vectors = torch.linalg.eigh(residual)
    rotated = vectors.mT @ jacobian[neurons(risk.network)]
    # Not zero where all derivatives vanish: then all eigenvalues lie near zero.
    bound = (torch.linalg.eigvalsh(gram)[-1] + values.abs().max()).clamp(min=torch.finfo(values.dtype).tiny)
    # The output's bias, last in θ, has no residual part.
    eigenvalues = torch.cat([values.flatten(), values.new_zeros(1)])
    return eigenvalues / bound, torch.cat([rotated.flatten(0, 1), jacobian[-1:]]) / bound.sqrt()


def _counts_below(residual: Tensor, jacobian: Tensor, shift: float) -> tuple[int, int]:
    """How many eigenvalues of diag(residual) + J Jᵀ are smaller than −shift, and how many smaller than shift."""
    norms = jacobian.square().sum(1)
    return _count_below(residual + shift, jacobian, norms), _count_below(residual - shift, jacobian, norms)


def _count_below(shifted: Tensor, jacobian: Tensor, norms: Tensor) -> int:
    """How many eigenvalues of diag(shifted) + J Jᵀ are negative; norms are the squared ones of the rows of J."""
    kept = shifted.abs() <= _ELIMINATED * norms
    weights = torch.where(kept, 0.0, 1 / shifted)
    n, border = jacobian.shape[1], jacobian[kept]
    complement = -torch.eye(n, dtype=jacobian.dtype) - jacobian.mT @ (weights[:, None] * jacobian)
    bordered = torch.cat(
        [torch.cat([torch.diag(shifted[kept]), border], dim=1), torch.cat([border.mT, complement], dim=1)]
    )
    return int((weights < 0).sum()) + _negative(bordered) - n


def _negative(matrix: Tensor) -> int:
    """The number of negative eigenvalues, by a symmetric indefinite factorization L D Lᵀ (Bunch and Kaufman)."""
    factors, pivots = torch.linalg.ldl_factor(matrix)
    paired = pivots < 0  # a block of D of size two has one eigenvalue of each sign
    return int((factors.diagonal()[~paired] < 0).sum()) + int(paired.sum()) // 2
