"""The Hessian of the empirical risk and its inertia (n−, n0, n+)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.closed_form import closed_form_hessian
from embedding_principle.risks import Risk
from embedding_principle.shallow import is_shallow, shallow_hessian

# Eigenvalues of a Hessian assembled in float64 carry errors of a few P · ε · ‖H‖, below 1e-12 · ‖H‖ for P < 1e3;
# 1e-9 stands three decades above that noise.
RELATIVE_THRESHOLD = 1e-9
MINIMAL_GAP = 100.0


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


def hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ), (..., P, P), exactly symmetric.

    In closed form (see `closed_form` and, for one hidden layer and a scalar output, `shallow`); with batch
    normalization by automatic differentiation. At a kink of σ it is the Hessian of the smooth part.

    Args:
        risk: the empirical risk.
        theta: θ, (..., P) float64.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> hessian(Risk(Network((1, 1)), x, x), torch.zeros(2).double())
        tensor([[2., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    flat = theta.detach().reshape(-1, theta.shape[-1])
    if risk.network.batch_norm_epsilon is not None:
        matrix = differentiated_hessian(risk, flat)
    elif is_shallow(risk.network):
        matrix = shallow_hessian(risk, flat)
    else:
        matrix = closed_form_hessian(risk, flat)
    return matrix.view(*theta.shape, theta.shape[-1])


def differentiated_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P) by automatic differentiation: any network, but many times slower.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> differentiated_hessian(Risk(Network((1, 1)), x, x), torch.zeros(5, 2).double()).shape
        torch.Size([5, 2, 2])
    """
    matrix: Tensor = torch.func.vmap(torch.func.hessian(risk))(theta)
    return (matrix + matrix.mT) / 2


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
