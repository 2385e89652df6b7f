"""Degenerate lifted points: the differential of φ, and the members of T_S(θ) at which it is not onto.

Near a lifted point the deeper risk is R_shallow ∘ φ, φ(A, c, B, b′, rest) = (BΛA, B(Λc + μ) + b′, rest). So at a lifted
critical point H_deep = Dφᵀ H Dφ. The image of (Ȧ, Ḃ) ↦ Ḃ Λ A + B Λ Ȧ misses (m_q − rank A)(m_{q+1} − rank B)
dimensions: Dφ is onto unless A lacks column rank and B lacks row rank at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from embedding_principle.curvature.inertia import MINIMAL_GAP, RELATIVE_THRESHOLD, Counts, UnclearInertiaError, inertia
from embedding_principle.depth.lifting import Insertion, collapse, deepened, occupied_pieces
from embedding_principle.networks import Layer, Parametrised

# Singular values below this fraction of the largest are round-off of a rank-deficient matrix (1e-16 to 1e-15 for
# sizes in the tens); dropping them changes the output by no more than that fraction.
_RANK_THRESHOLD = 1e-13


def differential(point: Parametrised, inputs: Tensor, positions: Sequence[int]) -> Tensor:
    """Dφ at a lifted point, (P, P′), for layers inserted one after the other at these positions.

    Args:
        point: a member of the lifted set, (P′,).
        inputs: x, (n, m_0).
        positions: q of each `Insertion`, in the order of `lift`; φ undoes the last one first.

    Raises:
        ValueError: if an inserted neuron leaves its affine piece on some input: there φ does not exist.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> member = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())
        >>> differential(member, torch.tensor([[-1.0], [1.0]]).double(), [0])
        tensor([[2., 0., 1., 0.],
                [0., 2., 2., 1.]], dtype=torch.float64)
    """
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
        return collapse(point.with_theta(theta), position, pieces.slope, pieces.intercept)

    derivative: Tensor = torch.func.jacrev(lambda theta: phi(theta).theta)(point.theta)
    return derivative, phi(point.theta)


def lifted_inertia(hessian: Tensor, differential: Tensor) -> Counts:
    """(n−, n0, n+) of the deeper Hessian Dφᵀ H Dφ at a lifted critical point.

    Where Dφ is onto this is (n−, n0 + P′ − P, n+); otherwise H is restricted to the image of Dφ.

    Args:
        hessian: H, the shallow Hessian at the critical point, (P, P).
        differential: Dφ at the lifted point, (P, P′), see `differential`.

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


def singular_lift(
    point: Parametrised, inputs: Tensor, insertion: Insertion, *, ranks: tuple[int, int], generator: Generator
) -> Parametrised:
    """A random member of T_S(θ) whose A and B have given ranks.

    With W[q+1] = U S Vᵀ of rank r, the rows of ΛA span the row space of W and random further directions, the columns
    of B the column space of W and random further ones. Every neuron sits on the last piece of its activation.

    Args:
        point: θ, (P,).
        inputs: x, (n, m_0).
        insertion: the layer to insert; its activation's last piece must extend to +∞.
        ranks: (rank A, rank B), each at least r, rank A + rank B − r ≤ k.
        generator: the source of randomness.

    Raises:
        ValueError: if no member has these ranks, or the last piece is bounded.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> g, x = torch.Generator().manual_seed(0), torch.randn(5, 2).double()
        >>> origin = Parametrised(Network((2, 2)), torch.zeros(6).double())
        >>> deep = singular_lift(origin, x, Insertion(0, 3, relu), ranks=(1, 1), generator=g)
        >>> torch.linalg.matrix_rank(differential(deep, x, [0])).item()
        5
    """
    q, k, piece = insertion.position, insertion.width, insertion.activation.pieces[-1]
    if piece.upper != math.inf:
        raise ValueError(f"activation: the last piece of {insertion.activation.name} is bounded; use one that is not")
    # Refuses an impossible insertion.
    deepened(point.network, insertion)
    weight, bias = point.layers()[q]
    incoming, outgoing = _factors(weight, k, ranks, generator)
    incoming = incoming / piece.slope
    # Neurons differ in their distance to the kink.
    margin = 0.5 + torch.rand(k, generator=generator, dtype=torch.float64)
    offset = max(piece.lower, 0.0) + margin - (point.trace(inputs).features[q] @ incoming.mT).amin(0)
    remaining = bias - outgoing @ (piece.slope * offset + piece.intercept)
    return point.inserted(q, Layer(incoming, offset), Layer(outgoing, remaining), insertion.activation)


def _factors(weight: Tensor, k: int, ranks: tuple[int, int], generator: Generator) -> tuple[Tensor, Tensor]:
    """Random ΛA (k, m_q) and B (m_{q+1}, k) of these ranks with B ΛA = W."""
    left, values, right = torch.linalg.svd(weight)
    rank = int((values > _RANK_THRESHOLD * values[0]).sum())
    a, b = ranks
    if not (rank <= a <= weight.shape[1] and rank <= b <= weight.shape[0] and a + b - rank <= k):
        raise ValueError(
            f"ranks: {ranks} is impossible for a weight matrix {tuple(weight.shape)} of rank {rank} and width {k}; "
            f"each must lie between that rank and the matrix's size, their sum be at most {k + rank}"
        )
    core = torch.zeros(b, a, dtype=weight.dtype)
    core.diagonal()[:rank] = values[:rank]
    columns = _extended(left, rank, b, generator)
    rows = _extended(right.mT, rank, a, generator)
    size = 0.5 + torch.rand(k, 1, generator=generator, dtype=weight.dtype)
    # Orthonormal columns up to the sizes of the rows: Gaussian ones are nearly dependent too often.
    inner = size * torch.linalg.qr(torch.randn(k, a, generator=generator, dtype=weight.dtype)).Q
    inverse = torch.linalg.pinv(inner)
    free = torch.randn(b, k, generator=generator, dtype=weight.dtype) / k**0.5
    return inner @ rows.mT, columns @ (core @ inverse + free - free @ inner @ inverse)


def _extended(basis: Tensor, rank: int, size: int, generator: Generator) -> Tensor:
    """The first columns of an orthonormal basis, followed by random combinations of the others."""
    others = basis[:, rank:]
    mixed, _ = torch.linalg.qr(torch.randn(others.shape[1], size - rank, generator=generator, dtype=basis.dtype))
    return torch.cat([basis[:, :rank], others @ mixed], dim=1)
