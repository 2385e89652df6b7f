"""Balls of floats hold every exact result: an oracle of 300 bits draws points of the arguments."""

from __future__ import annotations

import os
from collections.abc import Callable

import flint
import numpy as np
import pytest

from embedding_principle.certificates.intervals import Ball

CASES = int(os.environ.get("CONTAINMENT_CASES", "3000"))  # 10 000 and more by hand

Points = list[flint.arb]


def exact(values: np.ndarray) -> Points:
    return [flint.arb(float(value)) for value in values.ravel()]


def drawn(seed: int, size: int = CASES) -> tuple[Ball, Points]:
    """Balls of sizes over many decades, and in each a point: inside, at an end, or the midpoint of radius zero."""
    flint.ctx.prec = 300
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal(size) * 10.0 ** rng.uniform(-8, 2, size)
    radius = abs(middle) * 10.0 ** rng.uniform(-16, 0.3, size) * (rng.random(size) < 0.8)
    place = np.where(rng.random(size) < 0.3, 1.0, rng.uniform(-1, 1, size))
    points = [m + r * t for m, r, t in zip(exact(middle), exact(radius), exact(place))]
    return Ball(middle, radius), points


def outside(ball: Ball, points: Points) -> int:
    """How many points are proved to lie outside of their balls; the latter are not all infinite."""
    assert np.isfinite(ball.radius).mean() > 0.5
    pairs = zip(exact(ball.middle), ball.radius.ravel(), points, strict=True)
    return sum(bool(np.isfinite(r)) and not bool(abs(p - m) <= flint.arb(float(r))) for m, r, p in pairs)


@pytest.mark.parametrize(
    "operation",
    [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: 1.0 - a * 3.0 / b],
)
def test_arithmetic_holds_the_oracle(operation: Callable[..., Ball]) -> None:
    (first, a), (second, b) = drawn(0), drawn(1)
    assert outside(operation(first, second), [operation(x, y) for x, y in zip(a, b)]) == 0


ORACLE: dict[str, Callable[[flint.arb], flint.arb]] = {
    "tanh": lambda z: z.tanh(),
    "sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "softplus": lambda z: z.exp().log1p(),
    "exp": lambda z: z.exp(),
    "log": lambda z: z.log(),
    "inverse": lambda z: 1 / z,
}


@pytest.mark.parametrize("name", ORACLE)
def test_functions_hold_the_oracle(name: str) -> None:
    balls, points = drawn(2)
    if name == "log":
        balls, points = balls * balls, [point * point for point in points]
    with np.errstate(all="ignore"):
        result = getattr(balls, name)()
    assert outside(result, [ORACLE[name](point) for point in points]) == 0
    sharp = balls.radius == 0
    assert np.all(result.radius[sharp] <= 1e-14 * np.maximum(abs(result.middle[sharp]), 1))


def test_products_and_sums_of_matrices_hold_the_oracle() -> None:
    (left, a), (right, b) = drawn(3, 12 * 30), drawn(4, 30 * 11)
    product = left.reshape(12, 30) @ right.reshape(30, 11)
    zero = flint.arb(0)
    exact_product = [
        sum((a[i * 30 + k] * b[k * 11 + j] for k in range(30)), zero) for i in range(12) for j in range(11)
    ]
    assert outside(product, exact_product) == 0
    assert outside(left.reshape(12, 30).sum(1), [sum(a[i * 30 : i * 30 + 30], zero) for i in range(12)]) == 0


def test_magnitudes_and_bounds_are_on_the_safe_side() -> None:
    balls, points = drawn(5)
    low, high = balls.bounds()
    for point, most, least, lower, upper in zip(points, balls.magnitude(), balls.least(), low, high):
        assert abs(point) <= flint.arb(float(most))
        assert abs(point) >= flint.arb(float(least))
        assert flint.arb(float(lower)) < point < flint.arb(float(upper))


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_what_is_not_known_is_never_held_small() -> None:
    unknown = [
        Ball(1.0, 1.0).inverse(),
        Ball(0.0).inverse(),
        Ball(1e308) * 10.0,
        Ball(1e300, 1e300) * Ball(1e300),
        Ball(800.0).exp(),
    ]
    for ball in unknown:
        assert not (ball * 0.5).magnitude() < 1e300
        assert not (ball - ball).radius < 1e300


def test_balls_are_taken_apart_and_put_together() -> None:
    pair = Ball.stacked([Ball([1.0, 2.0], 0.5), Ball([3.0, 4.0])], 1)
    assert pair.shape == (2, 2)
    assert pair.T[1].middle.tolist() == [3.0, 4.0]
    assert pair[:, 0].radius.tolist() == [0.5, 0.5]
    assert pair.holds([[1.4, 3.0], [1.5, 4.0]])
    assert not pair.holds([[1.4, 3.0], [1.5, 4.1]])


def test_an_exponential_whose_middle_underflows_holds_its_upper_end() -> None:
    flint.ctx.prec = 300
    for middle, radius in [(-745.5, 709.0), (-800.0, 790.0), (-1500.0, 1490.0), (-700.0, 650.0), (-746.0, 1.0)]:
        ball = Ball(middle, radius).exp()
        upper = (flint.arb(middle) + flint.arb(radius)).exp()
        assert abs(upper - flint.arb(float(ball.middle))) <= flint.arb(float(ball.radius))
