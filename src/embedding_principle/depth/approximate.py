r"""Approximate lifting for smooth activations without an affine piece: tanh, sigmoid, softplus, GELU (ours).

Start from an exact lifting by an *identity* layer with A₀, c₀ in and B₀, b₀ out: B₀A₀ = W[q+1], B₀c₀ + b₀ = b[q+1].
Use σ in a window of size ε around a centre z₀, where it comes near a line λz + μ:

    A = εA₀,   c = z₀ + εc₀,   B = B₀ / (ελ),   b′ = b₀ − B(λz₀ + μ).

Were σ that line, the output would be the shallow one. With the tangent at z₀, the deeper network computes what the
identity layer would with z ↦ g_ε(z) = (σ(z₀ + εz) − σ(z₀)) / (εσ′(z₀)) in place of z, and

    g_ε(z) = z + ε^(p−1) κ z^p / p! + O(ε^p),   κ = σ^(p)(z₀) / σ′(z₀),

p ≥ 2 the first order above one with σ^(p)(z₀) ≠ 0. The output is off by O(ε^(p−1)), the gradient over a critical point
only by O(ε^(p−2)), for ∂/∂A = ε⁻¹ ∂/∂A₀. The asymptote of softplus or GELU with ε = 1 makes both errors vanish
exponentially as z₀ → ∞.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from embedding_principle.activations import Activation, AffinePiece, identity
from embedding_principle.arguments import checked, number, real
from embedding_principle.networks import Layer, Network, Parametrised, flatten
from embedding_principle.risks import Risk

ASYMPTOTE = AffinePiece(-math.inf, math.inf, slope=1.0)
"""The line z ↦ z that softplus and GELU approach as z → ∞."""

# Where derivatives of the book's activations do not vanish they are of order one; at the float64 nearest to a zero such
# as √2 they are about 1e-16.
_VANISHING = 1e-12
_HIGHEST_ORDER = 8


@checked
def tangent(activation: Activation, centre: float) -> AffinePiece:
    """The tangent of σ at z₀ as a line: λ = σ′(z₀), μ = σ(z₀) − σ′(z₀) z₀.

    Raises:
        ValueError: if σ′(z₀) = 0, as for GELU near −0.75: a flat tangent transmits nothing. Or if z₀ is not finite.

    Example:
        >>> from embedding_principle.activations import sigmoid
        >>> line = tangent(sigmoid, 0.0)
        >>> line.slope, line.intercept
        (0.25, 0.5)
    """
    centre = number("centre", centre)
    point = torch.tensor(centre, dtype=torch.float64)
    slope = float(activation.first(point))
    if abs(slope) <= _VANISHING:
        raise ValueError(f"centre: {activation.name} has a flat tangent at {centre:g}; choose another centre")
    return AffinePiece(-math.inf, math.inf, slope, float(activation(point)) - slope * centre)


@checked
def first_bend(activation: Activation, centre: float) -> tuple[int, float]:
    """The first order p ≥ 2 at which a derivative of σ does not vanish at z₀, and σ^(p)(z₀).

    Raises:
        ValueError: if the orders 2 to 8 all vanish, as inside an affine piece, or z₀ is not finite.

    Example:
        >>> from embedding_principle.activations import gelu, tanh
        >>> first_bend(tanh, 0.0)
        (3, -2.0)
        >>> [first_bend(gelu, centre)[0] for centre in (0.0, 2**0.5, -(2**0.5))]
        [2, 3, 3]
    """
    centre = number("centre", centre)
    derivative, point = activation.second, torch.tensor(centre, dtype=torch.float64)
    for order in range(2, _HIGHEST_ORDER + 1):
        # Outside inference mode, whatever the caller's mode is.
        with torch.inference_mode(False):
            value = float(derivative(point))
        if abs(value) > _VANISHING:
            return order, value
        derivative = torch.func.grad(derivative)
    raise ValueError(
        f"centre: {activation.name} has no bend of order 2 to {_HIGHEST_ORDER} at {centre:g}; lift exactly"
    )


@checked
def approximate_lift(
    straight: Parametrised, position: int, activation: Activation, *, line: AffinePiece, centre: float, sizes: Tensor
) -> Parametrised:
    """Replace an inserted identity layer by one of σ, used near z₀ in windows of given sizes.

    Args:
        straight: a lifting by an identity layer, θ (..., P′), as `lift` draws it.
        position: q, where that layer was inserted.
        activation: σ.
        line: what σ is taken for: its `tangent` at z₀, or `ASYMPTOTE`.
        centre: z₀.
        sizes: ε, (E,).

    Returns:
        The network with σ in the inserted layer, and its θ (E, ..., P′).

    Raises:
        ValueError: if the layer at this position is not one of the identity, a size is not positive, or z₀ not finite.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.depth.lifting import Insertion, lift
        >>> x, g = torch.linspace(-1, 1, 5).double()[:, None], torch.Generator().manual_seed(0)
        >>> shallow = Parametrised(Network((1, 1)), torch.tensor([2.0, 1.0]).double())
        >>> straight = lift(shallow, x, [Insertion(0, 2, identity)], generator=g)
        >>> bent = approximate_lift(
        ...     straight, 0, tanh, line=tangent(tanh, 0.0), centre=0.0, sizes=torch.tensor([0.1, 0.01]).double()
        ... )
        >>> coarse, fine = (bent.forward(x) - shallow.forward(x)).abs().amax((-2, -1))
        >>> round(float(coarse / fine))
        99
    """
    _require_identity(straight.network, position)
    centre, sizes = number("centre", centre), real("sizes", sizes, ("E",))
    if not (sizes > 0).all():
        raise ValueError(f"sizes: expected positive ones, got {float(sizes.min()):g}")
    first, second = straight.layers()[position : position + 2]
    epsilon = sizes.view(-1, *[1] * first.bias.dim())
    outgoing = second.weight / (epsilon * line.slope)[..., None]
    inner = Layer(epsilon[..., None] * first.weight, centre + epsilon * first.bias)
    outer = Layer(outgoing, second.bias - outgoing.sum(-1) * (line.slope * centre + line.intercept))
    return straight.expand(len(sizes)).replaced(position, inner, outer, activation=activation)


def _require_identity(network: Network, position: int) -> None:
    network.check_hidden(position)
    if network.batch_norm_epsilon is not None:
        raise ValueError("straight: lifting is defined for networks without batch normalization")
    if network.activations[position] != identity:
        raise ValueError(f"straight: the layer at position {position} is not an identity layer; insert one with `lift`")


@checked
def leading_gradient(
    risk: Risk, straight: Parametrised, position: int, activation: Activation, centre: float
) -> Tensor:
    """The limit of ε^(2−p) ∇R at approximate lifts over a critical point, for the tangent at z₀ and ε → 0.

    It is the gradient with respect to A₀ and c₀ of Q = d/dt R(z ↦ z + tκz^p/p!) at t = 0, the first change of the risk
    that the bend of σ causes; the entries of all other parameters vanish. For p = 2 the gradient itself has this limit.

    Args:
        risk: the shallow risk, or that of any network on the same data.
        straight: a lifting of critical points by an identity layer, θ (..., P′).
        position: q.
        activation: σ.
        centre: z₀.

    Returns:
        (..., P′).

    Raises:
        ValueError: as `tangent`, `first_bend` and `approximate_lift` do.

    Example:
        >>> from embedding_principle.activations import softplus
        >>> from embedding_principle.depth.lifting import Insertion, lift
        >>> x = torch.linspace(-1, 1, 5).double()[:, None]
        >>> risk, g = Risk(Network((1, 1)), x, 2 * x + 1), torch.Generator().manual_seed(0)
        >>> shallow = risk.at(torch.tensor([2.0, 1.0]).double())
        >>> straight = lift(shallow, x, [Insertion(0, 1, identity)], generator=g)
        >>> bool(leading_gradient(risk, straight, 0, softplus, 0.0).norm() > 1)
        True
    """
    _require_identity(straight.network, position)
    order, value = first_bend(activation, centre)
    strength = value / tangent(activation, centre).slope / math.factorial(order)

    def first_change(theta: Tensor) -> Tensor:
        """The derivative of the risk in the strength of the bend, summed over the batch."""

        def bent(amount: Tensor) -> Tensor:
            """The risk with that share of the bend."""
            # Only the values of this curve are used, not the derivatives that it inherits.
            curve = replace(identity, name="bent", function=lambda z: z + amount * strength * z**order)
            return risk.on(straight.network.with_activation(position, curve))(theta).sum()

        zero = torch.zeros((), dtype=theta.dtype)
        change: Tensor = torch.func.jvp(bent, (zero,), (torch.ones_like(zero),))[1]
        return change

    # Outside inference mode, whatever the caller's mode is.
    with torch.inference_mode(False):
        gradient: Tensor = torch.func.grad(first_change)(straight.theta.detach())
    layers = straight.network.layers(gradient)
    return flatten([layer if q == position else Layer(*map(torch.zeros_like, layer)) for q, layer in enumerate(layers)])
