"""Every declared affine piece is checked against the function; derivatives against automatic differentiation."""

import math
import pickle
from dataclasses import replace
from decimal import Context, Decimal, localcontext

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
    with pytest.raises(ValueError, match="slope other than zero"):
        AffinePiece(0.0, 1.0, slope=0.0)
    with pytest.raises(ValueError, match="lower < upper"):
        AffinePiece(1.0, 1.0, slope=1.0)
    with pytest.raises(ValueError, match=r"slope 1\.0 is not leaky"):
        leaky_relu(1.0)
