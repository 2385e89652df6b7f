"""Reduce a critical point to a narrow one that is not degenerate for a structural reason.

A wide or deep critical point is often the embedding of a narrow one, with a singular Hessian that no test of Krawczyk's
can see. Undoing the embeddings of this book leads to the narrow point: layers that work in one affine piece are merged
with the next (the inverse of lifting), copies of neurons with each other (of splitting), and silent and constant
neurons are left out (of null neurons), down to the constant function, a network of width zero.
"""

from torch import Tensor

from embedding_principle.arguments import checked, real
from embedding_principle.depth.lifting import collapse, occupied_pieces
from embedding_principle.networks import Parametrised
from embedding_principle.width.encounters import equal_neurons, origin


@checked
def irreducible(point: Parametrised, inputs: Tensor, *, tolerance: float = 1e-5) -> Parametrised | None:
    """The narrowest network with the outputs of a point on the training inputs that these reductions lead to.

    Args:
        point: a critical point, say, without batch normalization, (P,).
        inputs: x, (n, m_0).
        tolerance: within which neurons are copies, silent or constant; see `encounters.equal_neurons`.

    Returns:
        The narrow point, `point` itself if nothing can be reduced; None if the function is constant: width zero.

    Raises:
        ValueError: if the point is a batch or not finite, has batch normalization, or the inputs do not fit it.

    Example:
        >>> import torch
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([2.0, 2.0, 0.5, 0.5, 1.0, 1.0, 0.1], dtype=torch.float64)
        >>> wide = Parametrised(Network.uniform((1, 2, 1), tanh), theta)
        >>> narrow = irreducible(wide, torch.tensor([[0.0], [1.0]], dtype=torch.float64))
        >>> narrow.theta
        tensor([2.0000, 0.5000, 2.0000, 0.1000], dtype=torch.float64)
    """
    point = point.single("point")
    inputs = real("inputs", inputs, ("n", point.network.widths[0]))
    for position in reversed(range(point.network.depth - 1)):
        if point.network.activations[position].pieces:
            held = occupied_pieces(point, inputs, position)
            if not held.outside:
                point = collapse(point, position, held.slope, held.intercept)
    for position in range(point.network.depth - 1):
        if int(equal_neurons(point, position=position, tolerance=tolerance).max()) < 0:
            return None
    if point.network.depth == 1:
        return point
    smaller = origin(point, tolerance=tolerance)
    return point if smaller.network == point.network else irreducible(smaller, inputs, tolerance=tolerance)
