"""Every declared affine piece is checked against the function; derivatives against automatic differentiation."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from decimal import Context, Decimal, localcontext
from functools import partial

import mpmath as mp
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, Activation, AffinePiece, leaky_relu, named
from embedding_principle.networks import Network
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

ALL = [*ACTIVATIONS.values(), leaky_relu(0.3), leaky_relu(-0.5)]
PIECES = [(activation, piece) for activation in ALL for piece in activation.pieces]
WITHOUT_PIECES = ["tanh", "sigmoid", "softplus", "gelu"]


def by_name(value: object) -> str:
    return value.name if isinstance(value, Activation) else ""


def inside(piece: AffinePiece, share: float) -> float:
    """A point of the piece; unbounded ends are cut 50 away from the finite one."""
    lower = piece.lower if math.isfinite(piece.lower) else min(piece.upper, 50.0) - 50
    upper = piece.upper if math.isfinite(piece.upper) else max(piece.lower, -50.0) + 50
    return lower + share * (upper - lower)


@pytest.mark.parametrize(("activation", "piece"), PIECES, ids=by_name)
@given(share=st.floats(0.001, 0.999))
def test_a_declared_piece_is_affine(activation: Activation, piece: AffinePiece, share: float) -> None:
    z = torch.tensor([inside(piece, share)], dtype=torch.float64)
    # One multiplication and one addition: a few units in the last place of numbers below 60.
    torch.testing.assert_close(activation(z), piece.slope * z + piece.intercept, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("activation", "piece"), PIECES, ids=by_name)
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_declared_piece_is_maximal(activation: Activation, piece: AffinePiece, side: str) -> None:
    end = getattr(piece, side)
    if math.isinf(end):
        return  # nothing lies beyond
    beyond = torch.tensor([end - 1e-3 if side == "lower" else end + 1e-3], dtype=torch.float64)
    deviation = activation(beyond) - (piece.slope * beyond + piece.intercept)
    # ELU leaves its line quadratically, by half the square of the distance: 5e-7 here; the others linearly.
    assert deviation.abs().item() > 1e-7


@pytest.mark.parametrize(("activation", "piece"), PIECES, ids=by_name)
def test_a_piece_is_open(activation: Activation, piece: AffinePiece) -> None:
    ends = torch.tensor([piece.lower, piece.upper], dtype=torch.float64)
    assert piece.contains(ends).tolist() == [False, False]
    assert bool(piece.contains(torch.tensor(inside(piece, 0.5))))


@pytest.mark.parametrize("name", WITHOUT_PIECES)
def test_smooth_activations_have_no_piece(name: str) -> None:
    activation = named(name)
    assert activation.pieces == ()
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)
    # Analytic and curved: the second derivative vanishes at isolated points only.
    assert (activation.second(z).abs() > 1e-6).double().mean() > 0.98


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_derivatives_agree_with_automatic_differentiation(activation: Activation) -> None:
    # No grid point is a kink (0 or ±1).
    z = torch.linspace(-3.05, 3.07, 101, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(activation(z).sum(), z, create_graph=True)
    torch.testing.assert_close(activation.first(z), first, rtol=1e-12, atol=1e-14)
    second = torch.zeros_like(z)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(activation.second(z), second, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_derivatives_agree_with_central_differences(activation: Activation) -> None:
    z = torch.linspace(-3.05, 3.07, 101, dtype=torch.float64)
    h = 1e-5
    slope = (activation(z + h) - activation(z - h)) / (2 * h)
    # Truncation |σ‴| h²/6 < 1e-10, rounding 4 ε / (2h) < 1e-10.
    torch.testing.assert_close(activation.first(z), slope, rtol=0, atol=2e-10)


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_kinks_take_the_derivative_of_autograd(activation: Activation) -> None:
    z = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(activation(z).sum(), z)
    torch.testing.assert_close(activation.first(z), first, rtol=1e-14, atol=1e-15)


def test_softplus_leaves_neither_arm() -> None:
    """log(1 + eᶻ) and its derivatives by the decimal module, far beyond where torch's own softplus is cut to z."""
    z = torch.linspace(-40, 40, 161, dtype=torch.float64)
    with localcontext(Context(prec=50)):
        powers = [Decimal(value).exp() for value in z.tolist()]
        expected = torch.tensor([float((1 + power).ln()) for power in powers], dtype=torch.float64)
        above = torch.tensor([float((1 + 1 / power).ln()) for power in powers], dtype=torch.float64)
        slopes = torch.tensor([float(power / (1 + power)) for power in powers], dtype=torch.float64)
        bends = torch.tensor([float(power / (1 + power) ** 2) for power in powers], dtype=torch.float64)
    softplus = named("softplus")
    # A few units in the last place; over the arm they are units of numbers up to 40, of 4e-15 each.
    torch.testing.assert_close(softplus(z), expected, rtol=1e-15, atol=0)
    torch.testing.assert_close(softplus(z) - z, above, rtol=1e-15, atol=8e-15)
    first = torch.func.grad(softplus)
    second = torch.func.grad(first)
    for declared, differentiated, reference in ((softplus.first, first, slopes), (softplus.second, second, bends)):
        # The exponential of z enlarges a rounding of z up to 40 times; s (1 − s) is off by a unit of s, near one.
        torch.testing.assert_close(torch.func.vmap(differentiated)(z), reference, rtol=1e-14, atol=0)
        torch.testing.assert_close(declared(z), reference, rtol=1e-14, atol=4e-16)


# Digits in the tails: against fifty-digit arithmetic.


def _distribution(z: mp.mpf) -> mp.mpf:
    return mp.erfc(-z / mp.sqrt(2)) / 2


def _density(z: mp.mpf) -> mp.mpf:
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def _logistic(z: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-z))


def _bell(z: mp.mpf) -> mp.mpf:
    return _logistic(z) * _logistic(-z)


def _exponential_unit(z: mp.mpf, scale: float, alpha: float) -> mp.mpf:
    return mp.mpf(scale) * (z if z > 0 else mp.mpf(alpha) * mp.expm1(z))


def _exponential_unit_first(z: mp.mpf, scale: float, alpha: float) -> mp.mpf:
    return mp.mpf(scale) * (1 if z > 0 else mp.mpf(alpha) * mp.exp(z))


def _exponential_unit_second(z: mp.mpf, scale: float, alpha: float) -> mp.mpf:
    return mp.mpf(0) if z > 0 else mp.mpf(scale) * mp.mpf(alpha) * mp.exp(z)


def _piecewise(slope: float) -> tuple[Callable[[mp.mpf], mp.mpf], ...]:
    return lambda z: z if z > 0 else mp.mpf(slope) * z, lambda z: mp.mpf(1 if z > 0 else slope), lambda z: mp.mpf(0)


def _exponential(scale: float, alpha: float) -> tuple[Callable[[mp.mpf], mp.mpf], ...]:
    curves = _exponential_unit, _exponential_unit_first, _exponential_unit_second
    return tuple(partial(curve, scale=scale, alpha=alpha) for curve in curves)


# σ, σ′, σ″ of every activation.
EXACT: dict[str, tuple[Callable[[mp.mpf], mp.mpf], ...]] = {
    "relu": _piecewise(0),
    "leaky_relu": _piecewise(0.01),
    "leaky_relu(0.3)": _piecewise(0.3),
    "leaky_relu(-0.5)": _piecewise(-0.5),
    "hard_tanh": (lambda z: max(-1, min(z, 1)), lambda z: mp.mpf(abs(z) < 1), lambda z: mp.mpf(0)),
    "elu": _exponential(1.0, 1.0),
    "selu": _exponential(1.0507009873554805, 1.6732632423543772),
    "identity": _piecewise(1),
    "tanh": (mp.tanh, lambda z: mp.sech(z) ** 2, lambda z: -2 * mp.tanh(z) * mp.sech(z) ** 2),
    "sigmoid": (_logistic, _bell, lambda z: -_bell(z) * mp.tanh(z / 2)),
    "softplus": (lambda z: mp.log1p(mp.exp(z)), _logistic, _bell),
    "gelu": (
        lambda z: z * _distribution(z),
        lambda z: _distribution(z) + z * _density(z),
        lambda z: (2 - z * z) * _density(z),
    ),
}
_SIZES = torch.cat([torch.logspace(-12, math.log10(700), 19).double(), torch.linspace(0.3, 40, 28).double()])
ARGUMENTS = torch.cat([-_SIZES, _SIZES])
# The smallest normal float, times z² ≤ 2¹²: a product with z² has no more digits than its subnormal factor.
_SMALLEST = 2.0**-1010


def lost_digits(values: torch.Tensor, exact: Callable[[mp.mpf], mp.mpf]) -> float:
    """The largest relative error in units of ε (1 + κ), κ = |z f′/f| the condition of the exact function.

    Values below `_SMALLEST` are held to that many ε of it.
    """
    worst = 0.0
    with mp.workdps(50):
        for z, value in zip(map(mp.mpf, ARGUMENTS.tolist()), values.tolist()):
            expected = mp.mpf(exact(z))
            size = max(abs(expected), mp.mpf(_SMALLEST))
            condition = abs(z * mp.diff(exact, z, h=abs(z) * mp.mpf(10) ** -20)) / size
            error = abs(mp.mpf(value) - expected) / size
            worst = max(worst, float(error / (2.0**-52 * (1 + condition))))
    return worst


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_no_digit_is_lost_in_the_tails(activation: Activation, order: int) -> None:
    curve = (activation.function, activation.first, activation.second)[order]
    # Four operations at most, each off by an ulp, which is up to ε.
    assert lost_digits(curve(ARGUMENTS), EXACT[activation.name][order]) <= 8


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_automatic_differentiation_loses_no_digit_either(activation: Activation) -> None:
    z = ARGUMENTS.clone().requires_grad_(True)
    (first,) = torch.autograd.grad(activation(z).sum(), z, create_graph=True)
    second = torch.zeros_like(z)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True, materialize_grads=True)
    (slope,) = torch.autograd.grad(activation.first(z).sum() + 0 * z.sum(), z)
    for values, order in ((first, 1), (second, 2), (slope, 2)):
        assert lost_digits(values.detach(), EXACT[activation.name][order]) <= 8


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_the_functional_transforms_give_the_declared_derivatives(activation: Activation) -> None:
    z = torch.linspace(-3.05, 3.07, 21, dtype=torch.float64)
    gradient = torch.func.vmap(torch.func.grad(activation))(z)
    torch.testing.assert_close(gradient, activation.first(z), rtol=1e-15, atol=0)
    hessian = torch.func.hessian(lambda x: activation(x).sum())(z)
    torch.testing.assert_close(hessian, torch.diag(activation.second(z)), rtol=1e-15, atol=0)


# Values.


@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_a_pickled_activation_comes_back_as_it_was(activation: Activation) -> None:
    back = pickle.loads(pickle.dumps(activation))
    assert back == activation
    assert hash(back) == hash(activation)
    assert back.pieces == activation.pieces
    z = torch.linspace(-3, 3, 101, dtype=torch.float64)
    for ours, theirs in zip((back, back.first, back.second), (activation, activation.first, activation.second)):
        assert torch.equal(ours(z), theirs(z))


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@pytest.mark.parametrize("activation", ALL, ids=by_name)
def test_a_pickled_risk_comes_back_as_it_was(activation: Activation, loss: Loss) -> None:
    network = Network.uniform((2, 3, 2), activation)
    assert pickle.loads(pickle.dumps(network)) == network
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    risk = Risk(network, x, torch.softmax(x, dim=-1), loss)
    back = pickle.loads(pickle.dumps(risk))
    assert (back.network, back.loss) == (network, loss)
    theta = network.initial(torch.Generator().manual_seed(1))
    assert torch.equal(back.gradient(theta), risk.gradient(theta))


def test_name_and_parameters_make_an_activation() -> None:
    assert len(set(ALL)) == len(ALL)
    assert leaky_relu() == ACTIVATIONS["leaky_relu"]
    assert leaky_relu(0.3) == leaky_relu(0.3)
    first, second = leaky_relu(0.1234567), leaky_relu(0.12345671)
    assert first.name == second.name
    assert first != second
    assert replace(first, name="a curve of one's own") != first


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown activation 'swish'; known: relu, leaky_relu"):
        named("swish")
    with pytest.raises(ValueError, match="slope: an affine piece needs one other than zero"):
        AffinePiece(0.0, 1.0, slope=0.0)
    with pytest.raises(ValueError, match="lower < upper"):
        AffinePiece(1.0, 1.0, slope=1.0)
    with pytest.raises(ValueError, match=r"slope: 1\.0 is not leaky"):
        leaky_relu(1.0)
