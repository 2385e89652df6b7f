"""The inertia (n−, n0, n+) of a Hessian: from its eigenvalues, or without them from its structure.

One hidden layer: H = J Jᵀ + B with a block-diagonal B (see `one_hidden_layer`). For a shift s, H − sI is a Schur
complement of M = [[B − sI, J], [Jᵀ, −I]], and so is −I − Jᵀ(B − sI)⁻¹J, which has only as many rows as there are
samples. Inertia is additive over Schur complements (Haynsworth 1968): the small one tells the signs of the large one.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.curvature.one_hidden_layer import has_one_hidden_layer, hessian_parts, neurons
from embedding_principle.curvature.passes import passes_over
from embedding_principle.risks import Risk

Counts = tuple[int, int, int]

# Eigenvalues of a Hessian assembled in float64 carry errors of a few P · ε · ‖H‖, below 1e-12 · ‖H‖ for P < 1e3;
# 1e-9 stands three decades above that noise.
RELATIVE_THRESHOLD = 1e-9
MINIMAL_GAP = 100.0

# An eigen-direction of B is eliminated if its eigenvalue is farther than this from the shift, relative to the squared
# norm of its row of J; otherwise it stays in the bordered matrix. So each term of the Schur complement is below 100,
# and P < 4000 terms leave a rounding error below 1e-10 even if all errors add up. In units of the bound on ‖H‖ that
# error moves the counts no more than a shift of H of that size would: shifts of 1e-10 and more are used.
_ELIMINATED = 1e-2


class UnclearInertiaError(ValueError):
    """An eigenvalue stands too near the zero threshold for its sign to be told."""


@dataclass(frozen=True)
class Inertia:
    """The numbers of negative, zero and positive eigenvalues of a symmetric matrix, and how clear they are.

    Attributes:
        negative: n−, eigenvalues below −threshold.
        zero: n0, eigenvalues of modulus at most the threshold.
        positive: n+, eigenvalues above the threshold.
        threshold: the absolute threshold that was used.
        gap: smallest modulus above the threshold over the largest one below it (or over the rounding error of the
            eigenvalues, where that is larger); infinite when all eigenvalues are zero.
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


def inertia(
    matrix: Tensor, *, relative_threshold: float = RELATIVE_THRESHOLD, minimal_gap: float = MINIMAL_GAP
) -> Inertia:
    """The inertia of a symmetric matrix (P, P), by eigenvalues.

    An eigenvalue counts as zero when its modulus is at most relative_threshold · max |λ|.

    Raises:
        UnclearInertiaError: if the gap around the threshold is smaller than `minimal_gap`.
        ValueError: if the matrix has entries that are not finite.

    Example:
        >>> inertia(torch.diag(torch.tensor([-2.0, 0.0, 1.0, 3.0]).double())).counts
        (1, 1, 2)
    """
    if not torch.isfinite(matrix).all():
        raise ValueError("inertia: the matrix has entries that are not finite")
    eigenvalues = torch.linalg.eigvalsh(matrix)
    moduli = eigenvalues.abs()
    largest = float(moduli.max())
    threshold = relative_threshold * largest
    noise = len(matrix) * torch.finfo(matrix.dtype).eps * largest
    below = max([noise, *moduli[moduli <= threshold].tolist()])
    above = moduli[moduli > threshold]
    gap = float(above.min()) / below if len(above) else float("inf")
    if gap < minimal_gap:
        raise UnclearInertiaError(
            f"the sign of an eigenvalue is not clear: {float(above.min()):.2e} is only {gap:.1f} times {below:.2e} "
            f"(zero threshold {threshold:.2e}); polish the point further or give another relative_threshold"
        )
    negative, positive = int((eigenvalues < -threshold).sum()), int((eigenvalues > threshold).sum())
    return Inertia(negative, len(matrix) - negative - positive, positive, threshold, gap, eigenvalues)


def one_hidden_layer_inertia(risk: Risk, theta: Tensor) -> Counts:
    """(n−, n0, n+) of ∇²R_S(θ) for one hidden layer and a scalar output, in O(n² P) operations.

    An eigenvalue counts as zero when its modulus is at most 1e-9 (‖J Jᵀ‖ + ‖B‖), a bound on ‖H‖. It pays where there
    are fewer samples than parameters and the residuals do not vanish; at a perfect fit B = 0 and nothing is
    eliminated.

    Source: the module's formula; Haynsworth, Linear Algebra Appl. 1 (1968) 73–81.

    Args:
        risk: of a network with one hidden layer, scalar output and no batch normalization.
        theta: θ, (P,).

    Raises:
        UnclearInertiaError: if an eigenvalue lies within a factor 10 of the threshold.
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
    if theta.shape != (risk.network.n_parameters,):
        raise ValueError(f"theta: expected shape ({risk.network.n_parameters},), got {tuple(theta.shape)}")
    residual, jacobian = _diagonalized(risk, theta.detach())
    threshold, margin = RELATIVE_THRESHOLD, math.sqrt(MINIMAL_GAP)
    below, upto = _counts_below(residual, jacobian, threshold * margin)
    if below != upto:  # otherwise no eigenvalue is anywhere near zero
        inner_below, inner_upto = _counts_below(residual, jacobian, threshold / margin)
        if (inner_below, inner_upto) != (below, upto):
            raise UnclearInertiaError(
                f"{inner_below - below + upto - inner_upto} eigenvalues lie within a factor {margin:g} of the zero "
                f"threshold, {threshold:g} of the bound on the Hessian's norm; polish the point further"
            )
    return below, upto - below, len(residual) - upto


def _diagonalized(risk: Risk, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of B (P,) and J (P, n) in the basis of its eigenvectors, for H over the bound on its norm."""
    parts = hessian_parts(passes_over(risk, theta[None]))
    jacobian, residual = parts.jacobian[0], parts.residual[0]
    gram = jacobian.mT @ jacobian
    if not (torch.isfinite(gram).all() and torch.isfinite(residual).all()):
        raise ValueError("one_hidden_layer_inertia: the derivatives at theta are not finite")
    values, vectors = torch.linalg.eigh(residual)
    rotated = vectors.mT @ jacobian[neurons(risk.network)]
    bound = torch.linalg.eigvalsh(gram)[-1] + values.abs().max()
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
