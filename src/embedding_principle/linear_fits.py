"""The critical functions of deep linear networks that are best for their rank, in closed form (Baldi, Hornik 1989)."""

import torch
from torch import Tensor

from embedding_principle.arguments import checked, real, whole
from embedding_principle.networks import Layer, Network, Parametrised, flatten, with_ones


@checked
def least_squares(inputs: Tensor, targets: Tensor) -> Parametrised:
    """The affine network NN(m_0, m_L) of smallest squared error on S, and of smallest norm among these.

    Args:
        inputs: x, (n, m_0).
        targets: y, (n, m_L).

    Raises:
        ValueError: if data are not finite, have other shapes, or are so large that float64 overflows.

    Example:
        >>> x = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
        >>> least_squares(x, 3 * x - 1).theta.round(decimals=9)
        tensor([ 3., -1.], dtype=torch.float64)
    """
    inputs = real("inputs", inputs, ("n", "m_0"))
    targets = real("targets", targets, (len(inputs), "m_L"))
    solution = _least_squares(with_ones(inputs), targets)
    network = Network((inputs.shape[1], targets.shape[1]))
    return Parametrised(network, flatten([Layer(solution[:-1].mT, solution[-1])]))


def _least_squares(design: Tensor, targets: Tensor) -> Tensor:
    """The solution of least norm, (k, m)."""
    solution = torch.full_like(targets, torch.nan)
    # Larger ones than that LAPACK cannot take.
    if torch.isfinite(design.abs().sum() + targets.abs().sum()):
        # gelsd: inputs may be dependent (pixels that are always blank).
        solution = torch.linalg.lstsq(design, targets, driver="gelsd").solution
    if not torch.isfinite(solution).all():
        raise ValueError("inputs: the fit overflows float64; scale inputs or targets")
    return solution


def affine_fit(inputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs on S, (n, m_L), of the affine map of smallest squared error.

    Example:
        >>> x = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
        >>> torch.allclose(affine_fit(x, 3 * x - 1), 3 * x - 1)
        True
    """
    return least_squares(inputs, targets).forward(inputs)


@checked
def low_rank_fit(inputs: Tensor, targets: Tensor, rank: int) -> Tensor:
    """The same with a linear part of this rank at most: reduced-rank regression.

    Least squares splits the error of a candidate into that of the affine fit and the distance to it, so the candidate
    is the best approximation of the centred fit of that rank (Eckart and Young). Rank 0 is the constant.

    Raises:
        ValueError: if the rank is negative, or as `least_squares` does.

    Example:
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> low_rank_fit(x, torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), 0)[0]
        tensor([1.0000, 0.6667, 0.3333], dtype=torch.float64)
    """
    whole("rank", rank, 0)
    fit = affine_fit(inputs, targets)
    mean = real("targets", targets, fit.shape).mean(0)
    u, s, v = torch.linalg.svd(fit - mean, full_matrices=False)
    outputs: Tensor = mean + u[:, :rank] * s[:rank] @ v[:rank]
    return outputs
