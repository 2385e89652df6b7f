"""Degenerate lifted points: the differential of φ, and the members of T_S(θ) at which it is not onto.

Near a lifted point the deeper risk is R_shallow ∘ φ, φ(A, c, B, b′, rest) = (BΛA, B(Λc + μ) + b′, rest). So at a lifted
critical point H_deep = Dφᵀ H Dφ. The image of (Ȧ, Ḃ) ↦ Ḃ Λ A + B Λ Ȧ misses (m_q − rank A)(m_{q+1} − rank B)
dimensions: Dφ is onto unless A lacks column rank and B lacks row rank at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from embedding_principle.arguments import checked, exact, number, real
from embedding_principle.curvature.inertia import MINIMAL_GAP, RELATIVE_THRESHOLD, Counts, UnclearInertiaError, inertia
from embedding_principle.depth.lifting import collapse, occupied_pieces
from embedding_principle.networks import Parametrised


@checked
def differential(point: Parametrised, inputs: Tensor, positions: Sequence[int]) -> Tensor:
    """Dφ at a lifted point, (P, P′), for layers inserted one after the other at these positions.

    Args:
        point: a member of the lifted set, (P′,).
        inputs: x, (n, m_0).
        positions: q of each `Insertion`, in the order of `lift`; φ undoes the last one first.

    Raises:
        ValueError: if an inserted neuron leaves its affine piece on some input: there φ does not exist. Or if the
            point is not a single finite one, or has no hidden layer at some position.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> member = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())
        >>> differential(member, torch.tensor([[-1.0], [1.0]]).double(), [0])
        tensor([[2., 0., 1., 0.],
                [0., 2., 2., 1.]], dtype=torch.float64)
    """
    point = point.with_theta(real("point", point.theta, (point.network.n_parameters,)))
    product = torch.eye(len(point.theta), dtype=point.theta.dtype)
    for q in reversed(positions):
        derivative, point = _collapsed(point, inputs, q)
        product = derivative @ product
    return product


def _collapsed(point: Parametrised, inputs: Tensor, position: int) -> tuple[Tensor, Parametrised]:
    """Dφ at a member, for one inserted layer, and the point below it."""
    pieces = occupied_pieces(point, inputs, position)
    if pieces.outside:
        raise ValueError(f"point: the layer inserted at position {position} is not linear: {pieces.outside[0].detail}")

    def phi(theta: Tensor) -> Parametrised:
        """The shallow point below a deep θ (P′,) on the same pieces."""
        return collapse(point.with_theta(theta), position, pieces.slope, pieces.intercept)

    # Outside inference mode, whatever the caller's mode is.
    with torch.inference_mode(False):
        derivative: Tensor = torch.func.jacrev(lambda theta: phi(theta).theta)(point.theta)
    return derivative, phi(point.theta)


@checked
def lifted_inertia(hessian: Tensor, differential: Tensor, *, error: float = 0.0) -> Counts:
    """(n−, n0, n+) of the deeper Hessian Dφᵀ H Dφ at a lifted critical point.

    Where Dφ is onto this is (n−, n0 + P′ − P, n+); otherwise H is restricted to the image of Dφ.

    Args:
        hessian: H, the shallow Hessian at the critical point, (P, P).
        differential: Dφ at the lifted point, (P, P′), see `differential`.
        error: a bound on the known error of H beyond rounding, see `inertia`.

    Raises:
        UnclearInertiaError: if the rank of Dφ, or the sign of an eigenvalue, is not clear.
        ValueError: if a matrix is not finite float64 of that shape.

    Example:
        >>> shallow = torch.diag(torch.tensor([-1.0, 2.0]).double())
        >>> lifted_inertia(shallow, torch.eye(2, 5).double())
        (1, 3, 1)
    """
    hessian = exact("hessian", hessian, ("P", "P"))
    differential = exact("differential", differential, (len(hessian), "P′"))
    error = number("error", error, at_least=0.0)
    if not torch.isfinite(differential.abs().sum()):
        raise ValueError("differential: its singular values overflow float64; scale it")
    directions, scales, _ = torch.linalg.svd(differential, full_matrices=False)
    threshold = RELATIVE_THRESHOLD * scales[0]
    margin = math.sqrt(MINIMAL_GAP)
    rank = int((scales > threshold * margin).sum())
    if rank != int((scales > threshold / margin).sum()):
        raise UnclearInertiaError(
            f"the rank of the differential is not clear: a singular value of {float(scales[rank]):.2e} is within a "
            f"factor {margin:g} of the threshold {float(threshold):.2e}"
        )
    if not rank:
        return 0, differential.shape[1], 0
    image = directions[:, :rank]
    negative, zero, positive = inertia(image.mT @ hessian @ image, error=error).counts
    return negative, zero + differential.shape[1] - rank, positive
