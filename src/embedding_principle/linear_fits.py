"""The critical functions of deep linear networks that are best for their rank, in closed form (Baldi, Hornik 1989)."""

import torch
from torch import Tensor

from embedding_principle.risks import check_data


def affine_fit(inputs: Tensor, targets: Tensor) -> Tensor:
    """The outputs on S, (n, m_L), of the affine map of smallest squared error.

    Example:
        >>> x = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
        >>> torch.allclose(affine_fit(x, 3 * x - 1), 3 * x - 1)
        True
    """
    check_data("targets", targets, (len(inputs), targets.shape[-1]))
    design = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
    # gelsd: inputs may be dependent (pixels that are always blank).
    outputs: Tensor = design @ torch.linalg.lstsq(design, targets, driver="gelsd").solution
    return outputs


def low_rank_fit(inputs: Tensor, targets: Tensor, rank: int) -> Tensor:
    """The same with a linear part of this rank at most: reduced-rank regression.

    Least squares splits the error of a candidate into that of the affine fit and the distance to it, so the candidate
    is the best approximation of the centred fit of that rank (Eckart and Young). Rank 0 is the constant.

    Example:
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> low_rank_fit(x, torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), 0)[0]
        tensor([1.0000, 0.6667, 0.3333], dtype=torch.float64)
    """
    mean = targets.mean(0)
    u, s, v = torch.linalg.svd(affine_fit(inputs, targets) - mean, full_matrices=False)
    outputs: Tensor = mean + u[:, :rank] * s[:rank] @ v[:rank]
    return outputs
