"""The inertia (n−, n0, n+) from the structure of a Hessian, without its eigenvalues.

One hidden layer: H = J Jᵀ + B with a block-diagonal B (see `shallow`). For a shift s, H − sI is a Schur complement of
M = [[B − sI, J], [Jᵀ, −I]], and so is −I − Jᵀ(B − sI)⁻¹J, which has only as many rows as there are samples. Inertia is
additive over Schur complements (Haynsworth 1968), so the small one tells the signs of the large one.

Lifted points: H_deep = Dφᵀ H Dφ, where φ maps deeper parameters to shallow ones, so Sylvester's law of inertia applies.
"""

import math

import torch
from torch import Tensor

from embedding_principle.hessians import MINIMAL_GAP, RELATIVE_THRESHOLD, UnclearInertiaError, inertia
from embedding_principle.risks import Risk
from embedding_principle.shallow import is_shallow, neurons, shallow_parts
from embedding_principle.sweeps import sweep

Counts = tuple[int, int, int]

# An eigen-direction of B is eliminated if its eigenvalue is farther than this from the shift, relative to the squared
# norm of its row of J; otherwise it stays in the bordered matrix. So each term of the Schur complement is below 100,
# and P < 4000 terms leave a rounding error below 1e-10 even if all errors add up. In units of the bound on ‖H‖ that
# error moves the counts no more than a shift of H of that size would: shifts of 1e-10 and more are used.
_ELIMINATED = 1e-2


def shallow_inertia(risk: Risk, theta: Tensor) -> Counts:
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
        >>> shallow_inertia(Risk(Network.uniform((1, 2, 1), tanh), x, x + 1), torch.zeros(7).double())
        (2, 2, 3)
    """
    if not is_shallow(risk.network):
        raise ValueError(f"shallow_inertia: needs widths (m_0, m_1, 1), no batch norm; got {risk.network.widths}")
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
    parts = shallow_parts(sweep(risk, theta[None]))
    jacobian, blocks = parts.jacobian[0], parts.blocks[0]
    gram = jacobian.mT @ jacobian
    if not (torch.isfinite(gram).all() and torch.isfinite(blocks).all()):
        raise ValueError("shallow_inertia: the derivatives at theta are not finite")
    values, vectors = torch.linalg.eigh(blocks)
    rotated = vectors.mT @ jacobian[neurons(risk.network)]
    bound = torch.linalg.eigvalsh(gram)[-1] + values.abs().max()
    residual = torch.cat([values.flatten(), values.new_zeros(1)])  # the output's bias has no residual part
    return residual / bound, torch.cat([rotated.flatten(0, 1), jacobian[-1:]]) / bound.sqrt()


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


def lifted_inertia(hessian: Tensor, differential: Tensor) -> Counts:
    """(n−, n0, n+) of the deeper Hessian Dφᵀ H Dφ at a lifted critical point.

    Where Dφ is onto this is (n−, n0 + P′ − P, n+); otherwise H is restricted to the image of Dφ.

    Args:
        hessian: H, the shallow Hessian at the critical point, (P, P).
        differential: Dφ at the lifted point, (P, P′), φ being `depth.lifting.collapse`.

    Raises:
        UnclearInertiaError: if the rank of Dφ, or the sign of an eigenvalue, is not clear.

    Example:
        >>> shallow = torch.diag(torch.tensor([-1.0, 2.0]).double())
        >>> lifted_inertia(shallow, torch.eye(2, 5).double())
        (1, 3, 1)
    """
    directions, scales, _ = torch.linalg.svd(differential, full_matrices=False)
    threshold = RELATIVE_THRESHOLD * scales[0]
    margin = math.sqrt(MINIMAL_GAP)
    rank = int((scales > threshold * margin).sum())
    if rank != int((scales > threshold / margin).sum()):
        raise UnclearInertiaError(
            f"the rank of the differential is not clear: a singular value of {float(scales[rank]):.2e} is within a "
            f"factor {margin:g} of the threshold {float(threshold):.2e}"
        )
    image = directions[:, :rank]
    negative, zero, positive = inertia(image.mT @ hessian @ image).counts
    return negative, zero + differential.shape[1] - rank, positive
