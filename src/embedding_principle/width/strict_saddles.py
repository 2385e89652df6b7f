"""Strict saddles over minima: wider networks in which a minimum with a residual part of the Hessian has a way down.

The Hessian is H = H1 + H2: the Gauss–Newton part H1 = Σ_i J_iᵀ ∂²ℓ/∂f² J_i, positive semidefinite for a convex loss,
and the second-order part H2 = Σ_i Σ_c ∂ℓ/∂f_c ∇²f_c(x_i). A critical point with H2 ≠ 0 becomes a strict saddle through
some compatible embedding, so "truly bad" points, which stay minima under all of them, have H2 = 0.

Source: Zhang, Li, Zhang, Luo, Xu, J. Mach. Learn. 1 (2022) 60–113, Def. 6.2, Lemmas 6.1 and 6.2, Thm 6.3.
"""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.arguments import checked, number, real
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.passes import passes_over
from embedding_principle.networks import Parametrised
from embedding_principle.risks import Risk
from embedding_principle.width.splitting import (
    neuron_blocks,
    null_blocks,
    null_coordinates,
    split,
    splitting_block,
    splitting_coordinates,
    with_null_neuron,
)

# Blocks below this, relative to the largest curvature, count as zero: rounding leaves 1e-15 of what they are sums of.
_SMALLEST = 1e-9
# Inside and outside of (0, 1): the signs of α(1 − α) M.
_SHARES = ((0.5, 0.5), (2.0, -1.0))


class NoStrictSaddleError(ValueError):
    """No split of one neuron and no null neuron has negative curvature."""


@dataclass(frozen=True, eq=False)
class StrictSaddle:
    """A wider critical point with a direction of negative curvature.

    Attributes:
        point: θ′, with one neuron more.
        position: q, the neuron is one of hidden layer q + 1.
        neuron: that was split, or None for a null neuron.
        shares: of the copies, empty for a null neuron.
        curvature: dᵀH′d, negative.
        direction: d, (P′,), of norm one.
    """

    point: Parametrised
    position: int
    neuron: int | None
    shares: tuple[float, ...]
    curvature: float
    direction: Tensor = field(repr=False)


@checked
def second_order_part(risk: Risk, theta: Tensor) -> Tensor:
    """H2 = H − H1, the part of the Hessian that comes with the residuals, (P, P); not finite where float64 overflows.

    Args:
        risk: of a network without batch normalization.
        theta: θ, (P,).

    Raises:
        ValueError: for another shape, a θ that is not finite, or batch normalization.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5).double()[:, None]
        >>> network, theta = Network.uniform((1, 1, 1), tanh), torch.tensor([1.0, 0.5, 2.0, 0.0]).double()
        >>> fit = Risk(network, x, network.forward(theta, x))
        >>> bool(second_order_part(fit, theta).abs().max() < 1e-14)
        True
    """
    theta = real("theta", theta, (risk.network.n_parameters,))
    curvature = passes_over(risk, theta[None]).curvature[0].movedim(-1, 0)
    jacobian = risk.at(theta).jacobian(risk.inputs)
    gauss_newton = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian)
    return hessian(risk, theta) - (gauss_newton + gauss_newton.mT) / 2


@checked
def strict_saddle_embedding(risk: Risk, theta: Tensor, *, null: bool | None = None, bias: float = 0.3) -> StrictSaddle:
    """The embedding with one neuron more that has the most negative curvature.

    Every hidden neuron is tried with shares (1/2, 1/2) and (2, −1), and a null neuron in every hidden layer. What is
    negative is read from the block Q of `splitting`, for which Tᵀ H′ T = H ⊕ Q at every point.

    Args:
        risk: of a network without batch normalization.
        theta: θ, (P,), a critical point.
        null: True tries null neurons alone, False splits alone, None both.
        bias: of the null neurons.

    Raises:
        NoStrictSaddleError: if no block has an eigenvalue below −1e-9 of the largest curvature of the risk.
        ValueError: for another shape or batch normalization, or where the Hessian is not finite.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> from embedding_principle.planting import plant
        >>> point = Parametrised(Network.uniform((1, 2, 1), tanh), torch.linspace(-1, 1, 7).double())
        >>> x, g = torch.linspace(-2, 2, 20).double()[:, None], torch.Generator().manual_seed(0)
        >>> saddle = strict_saddle_embedding(plant(point, x, generator=g, residual=0.1), point.theta)
        >>> saddle.point.network.widths, saddle.curvature < 0
        ((1, 3, 1), True)
    """
    theta, bias = real("theta", theta, (risk.network.n_parameters,)), number("bias", bias)
    matrix = hessian(risk, theta)
    if not torch.isfinite(matrix).all():
        raise ValueError("theta: the Hessian there is not finite, it overflows float64; scale the data")
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    found = list[StrictSaddle]()
    for position, width in enumerate(risk.network.widths[1:-1]):
        if null is not True:
            found += [
                saddle
                for neuron, shares in itertools.product(range(width), _SHARES)
                if (saddle := _by_splitting(risk, theta, position, neuron, shares, largest)) is not None
            ]
        if null is not False and (saddle := _by_null_neuron(risk, theta, position, bias, largest)) is not None:
            found.append(saddle)
    if not found:
        raise NoStrictSaddleError(
            "theta: no split of one neuron and no null neuron that was tried has negative curvature; where the "
            "residuals vanish none has, else give another bias, or lift with a spare neuron"
        )
    return min(found, key=lambda saddle: saddle.curvature)


def _by_splitting(
    risk: Risk, theta: Tensor, position: int, neuron: int, shares: tuple[float, ...], largest: float
) -> StrictSaddle | None:
    """The splitting with these shares, if it opens a way down."""
    way = _way_down(splitting_block(neuron_blocks(risk, theta, position, neuron), shares), largest)
    if way is None:
        return None
    down = splitting_coordinates(risk.network, position, neuron, shares)[:, len(theta) :] @ way
    return _saddle(risk, split(risk.at(theta), position, neuron, shares), position, neuron, shares, down)


def _by_null_neuron(risk: Risk, theta: Tensor, position: int, bias: float, largest: float) -> StrictSaddle | None:
    """The null neuron, if it opens a way down."""
    # With M = 0 the shares do not matter.
    way = _way_down(splitting_block(null_blocks(risk, theta, position, bias), _SHARES[0]), largest)
    if way is None:
        return None
    down = null_coordinates(risk.network, position, bias)[:, len(theta) :] @ way
    return _saddle(risk, with_null_neuron(risk.at(theta), position, bias), position, None, (), down)


def _way_down(block: Tensor, largest: float) -> Tensor | None:
    """The eigenvector of Q's smallest eigenvalue, if that is clearly negative."""
    values, vectors = torch.linalg.eigh(block)
    return vectors[:, 0] if float(values[0]) < -_SMALLEST * largest else None


def _saddle(
    risk: Risk, wide: Parametrised, position: int, neuron: int | None, shares: tuple[float, ...], down: Tensor
) -> StrictSaddle:
    direction = down / down.norm()
    curvature = float(direction @ hessian(risk.on(wide.network), wide.theta) @ direction)
    return StrictSaddle(wide, position, neuron, shares, curvature, direction)
