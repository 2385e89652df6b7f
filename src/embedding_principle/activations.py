"""Activation functions and their affine pieces.

An *affine piece* of σ is a maximal open interval (u, v) with a slope λ ≠ 0 and an intercept μ such that
σ(z) = λz + μ on it. The lifting of Bai et al. (arXiv:2205.13283) inserts neurons that stay inside one such
piece on the whole training set; an activation without pieces (tanh, sigmoid, softplus, GELU) cannot be lifted exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embedding_principle.arguments import check_fields, checked, number, variable

Elementwise = Callable[[Tensor], Tensor]

_SELU_SCALE = 1.0507009873554805  # λ of Klambauer et al. (2017), as in torch.nn.functional.selu
_SELU_ALPHA = 1.6732632423543772
_INVERSE_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_SQRT_HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class AffinePiece:
    """One affine piece: σ(z) = slope · z + intercept for lower < z < upper.

    Attributes:
        lower: u, possibly -inf.
        upper: v, possibly +inf.
        slope: λ, never zero: a constant piece transmits nothing, so it cannot carry a lifting.
        intercept: μ.

    Raises:
        ValueError: if the interval is empty, the slope is zero, or slope or intercept is not finite.

    Example:
        >>> AffinePiece(0.0, math.inf, slope=1.0).contains(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([False, False,  True])
    """

    lower: float
    upper: float
    slope: float
    intercept: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.lower < self.upper:
            raise ValueError(f"lower: an affine piece needs lower < upper, got ({self.lower}, {self.upper})")
        if number("slope", self.slope) == 0:
            raise ValueError("slope: an affine piece needs one other than zero, got 0; a constant piece is none")
        number("intercept", self.intercept)

    def contains(self, z: Tensor) -> Tensor:
        """Whether each entry of z lies in the open interval (lower, upper); a boolean tensor of z's shape."""
        z = variable("z", z, (...,))
        return (z > self.lower) & (z < self.upper)


@dataclass(frozen=True)
class Activation:
    """An activation σ with its first two derivatives and its affine pieces.

    It is a value, equal to any other of the same name and parameters: a curve of your own needs a name of its own.
    Those of this module can be pickled, and so can networks of them.

    Attributes:
        name: the name by which `named` finds it.
        function: σ, elementwise.
        first: σ′ (at a kink: the derivative that torch's autograd takes).
        second: σ″ (zero at kinks: the Hessian of the smooth part). Those of this module keep their relative accuracy
            in the tails, where 1 − tanh² would be zero, and reverse-mode autograd of σ and σ′ gives the same numbers.
        pieces: the affine pieces with non-zero slope, in increasing order; empty for a smooth curved σ.
        parameters: what tells σ from others of its name, such as the slope of a leaky ReLU.

    Example:
        >>> relu(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.], dtype=torch.float64)
        >>> [piece.slope for piece in leaky_relu().pieces]
        [0.01, 1.0]
        >>> leaky_relu(0.3) == leaky_relu(0.3)
        True
    """

    name: str
    function: Elementwise = field(repr=False, compare=False)
    first: Elementwise = field(repr=False, compare=False)
    second: Elementwise = field(repr=False, compare=False)
    pieces: tuple[AffinePiece, ...] = field(default=(), compare=False)
    parameters: tuple[float, ...] = ()

    @staticmethod
    def instead_of(value: object) -> str:
        """What to write instead of a text, a module of torch or a function that means an activation; for messages.

        Example:
            >>> Activation.instead_of("Hardtanh"), Activation.instead_of(torch.nn.Tanh())
            ('write activations.hard_tanh', 'write activations.tanh')
        """
        name = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
        known = {_plain(each): each for each in ACTIVATIONS} | {_plain("leaky_relu"): "leaky_relu(slope)"}
        return (
            f"write activations.{known[_plain(name)]}"
            if _plain(name) in known
            else f"known are {', '.join(ACTIVATIONS)}"
        )

    def __call__(self, z: Tensor) -> Tensor:
        """σ(z), elementwise, in float64."""
        return self.function(variable("z", z, (...,)))


def _plain(name: str) -> str:
    """A name without what torch and this library spell differently."""
    return name.lower().replace("_", "")


def _step(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


def _leaky_step(z: Tensor, slope: float) -> Tensor:
    return slope + (1 - slope) * _step(z)


@checked
def leaky_relu(slope: float = 0.01) -> Activation:
    """Leaky ReLU: z for z > 0 and slope · z otherwise; two affine pieces.

    Raises:
        ValueError: if the slope is not finite, or 0 (that is `relu`) or 1 (that is `identity`).

    Example:
        >>> leaky_relu(0.1)(torch.tensor([-1.0]))
        tensor([-0.1000], dtype=torch.float64)
    """
    slope = number("slope", slope)
    if slope in (0.0, 1.0):
        raise ValueError(f"slope: {slope} is not leaky; use relu (0) or identity (1)")
    return Activation(
        "leaky_relu" if slope == 0.01 else f"leaky_relu({slope:g})",
        partial(functional.leaky_relu, negative_slope=slope),
        partial(_leaky_step, slope=slope),
        torch.zeros_like,
        (AffinePiece(-math.inf, 0.0, slope), AffinePiece(0.0, math.inf, 1.0)),
        (slope,),
    )


def _negative_exponential(z: Tensor, factor: float) -> Tensor:
    return torch.where(z > 0, torch.zeros_like(z), factor * torch.exp(z.clamp(max=0)))


def _exponential_linear_first(z: Tensor, scale: float, factor: float) -> Tensor:
    return scale * _step(z) + _negative_exponential(z, factor)


def _exponential_linear(name: str, scale: float, alpha: float, function: Elementwise) -> Activation:
    return Activation(
        name,
        function,
        partial(_exponential_linear_first, scale=scale, factor=scale * alpha),
        partial(_negative_exponential, factor=scale * alpha),
        (AffinePiece(0.0, math.inf, scale),),
    )


def _inside_unit(z: Tensor) -> Tensor:
    return ((z > -1) & (z < 1)).to(z.dtype)


def _same(z: Tensor) -> Tensor:
    return z


class _Differentiated(torch.autograd.Function):
    """A function of each entry by one formula, and its derivative by another: neither is derived from the other."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, function: Elementwise, derivative: Elementwise) -> Tensor:
        """The values, of z's shape."""
        return function(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Elementwise, Elementwise], output: Tensor) -> None:
        """Keep z and the formula of the derivative."""
        z, _, ctx.derivative = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times the derivative at z."""
        (z,) = ctx.saved_tensors
        return gradient * ctx.derivative(z), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """The tangent times the derivative at z."""
        (z,) = ctx.saved_tensors
        product: Tensor = tangent * ctx.derivative(z)
        return product


def _differentiated(z: Tensor, function: Elementwise, derivative: Elementwise) -> Tensor:
    if not (z.requires_grad and torch.is_grad_enabled()):
        # Where nobody asks for a derivative, the detour would take longer than σ itself.
        return function(z)
    values: Tensor = _Differentiated.apply(z, function, derivative)  # type: ignore[no-untyped-call]
    return values


def _tanh(z: Tensor) -> Tensor:
    return _differentiated(z, torch.tanh, _tanh_first)


def _tanh_first(z: Tensor) -> Tensor:
    return _differentiated(z, _squared_secant, _tanh_second)


def _tanh_second(z: Tensor) -> Tensor:
    return -2 * torch.tanh(z) * _squared_secant(z)


def _squared_secant(z: Tensor) -> Tensor:
    # 1/cosh², not 1 − tanh², which has no digit left beyond |z| = 19.
    return torch.cosh(z).reciprocal().square()


def _sigmoid(z: Tensor) -> Tensor:
    return _differentiated(z, torch.sigmoid, _sigmoid_first)


def _sigmoid_first(z: Tensor) -> Tensor:
    return _differentiated(z, _sigmoid_product, _sigmoid_second)


def _sigmoid_second(z: Tensor) -> Tensor:
    # tanh(z/2) = 2s − 1, without the difference.
    return -torch.tanh(z / 2) * _sigmoid_product(z)


def _sigmoid_product(z: Tensor) -> Tensor:
    # σ(−z) = 1 − σ(z), without the difference.
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _softplus(z: Tensor) -> Tensor:
    return _differentiated(z, _log_one_plus_exponential, _sigmoid)


def _log_one_plus_exponential(z: Tensor) -> Tensor:
    # torch's own softplus is z from z = 20 on, where it still is 2e-9 above z.
    return torch.logaddexp(z, torch.zeros_like(z))


def _gaussian(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) * _INVERSE_SQRT_2PI


def _normal_distribution(z: Tensor) -> Tensor:
    # torch.special.ndtr is 1 + erf, which is zero below z = −8.3.
    upper: Tensor = torch.special.erfc(z * -_SQRT_HALF)
    return upper / 2


def _gelu(z: Tensor) -> Tensor:
    return _differentiated(z, _gelu_product, _gelu_first)


def _gelu_product(z: Tensor) -> Tensor:
    return z * _normal_distribution(z)


def _gelu_first(z: Tensor) -> Tensor:
    return _differentiated(z, _gelu_slope, _gelu_second)


def _gelu_slope(z: Tensor) -> Tensor:
    return _normal_distribution(z) + z * _gaussian(z)


def _gelu_second(z: Tensor) -> Tensor:
    return (2 - z**2) * _gaussian(z)


relu = Activation("relu", torch.relu, _step, torch.zeros_like, (AffinePiece(0.0, math.inf, 1.0),))
hard_tanh = Activation("hard_tanh", functional.hardtanh, _inside_unit, torch.zeros_like, (AffinePiece(-1.0, 1.0, 1.0),))
elu = _exponential_linear("elu", 1.0, 1.0, functional.elu)
selu = _exponential_linear("selu", _SELU_SCALE, _SELU_ALPHA, functional.selu)
identity = Activation("identity", _same, torch.ones_like, torch.zeros_like, (AffinePiece(-math.inf, math.inf, 1.0),))
tanh = Activation("tanh", _tanh, _tanh_first, _tanh_second)
sigmoid = Activation("sigmoid", _sigmoid, _sigmoid_first, _sigmoid_second)
softplus = Activation("softplus", _softplus, _sigmoid, _sigmoid_first)
gelu = Activation("gelu", _gelu, _gelu_first, _gelu_second)

ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (relu, leaky_relu(), hard_tanh, elu, selu, identity, tanh, sigmoid, softplus, gelu)
}


@checked
def named(name: str) -> Activation:
    """The activation of that name; chapters take names as papermill parameters.

    Raises:
        ValueError: for an unknown name, listing the known ones.

    Example:
        >>> named("tanh").pieces
        ()
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"name: unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
