"""The charts against 300-bit ball arithmetic of another library, and whether they cover the half-plane."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from embedding_principle.certificates.charts import Chart, charts
from embedding_principle.certificates.intervals import Ball, Floats

flint = pytest.importorskip("flint")

BOXES = 40


@pytest.fixture(autouse=True)
def precise() -> Iterator[None]:
    with flint.ctx.workprec(300):
        yield


def arb(value: float) -> "flint.arb":
    return flint.arb(float(value))


def neuron(chart: Chart, n: int, u: "flint.arb", v: "flint.arb") -> list["flint.arb"]:
    """tanh(w j + b) at the coordinates, by the definition of the chart."""
    if chart.name == "flat":
        return [(u * (j - flint.arb(n - 1) / 2) + v.atanh()).tanh() for j in range(n)]
    if chart.name == "left":
        w, c = -v.log() / 2, -u.log() / v.log()
    elif chart.name == "right":
        w, c = -v.log() / 2, n - 1 + u.log() / v.log()
    else:
        w = -(u * v).log() / 2
        c = int(chart.name[5:]) + u.log() / (u * v).log()
    return [(w * (j - c)).tanh() for j in range(n)]


def drawn(chart: Chart, seed: int) -> tuple[tuple[Ball, Ball], list[tuple["flint.arb", "flint.arb"]]]:
    """Boxes of all sizes in the inside of a chart, and a point of each."""
    rng = np.random.default_rng(seed)
    low, size = np.array(chart.lower), np.array(chart.upper) - chart.lower
    middle = low + size * (0.02 + 0.96 * rng.random((BOXES, 2)))
    radius = size * 10.0 ** rng.uniform(-14, -2, (BOXES, 2)) * rng.integers(0, 2, (BOXES, 2))
    place = rng.uniform(-1, 1, (BOXES, 2))
    points = [
        tuple(arb(m) + arb(r) * arb(t) for m, r, t in zip(*rows)) for rows in zip(middle, radius, place, strict=True)
    ]
    return (Ball(middle[:, 0], radius[:, 0]), Ball(middle[:, 1], radius[:, 1])), points


def holds(ball: Ball, exact: list[list["flint.arb"]]) -> bool:
    """Whether no entry (n, B) of a ball is proved to miss these numbers, given box by box; most radii are finite."""
    assert np.isfinite(ball.radius).mean() > 0.9
    return all(
        not np.isfinite(ball.radius[j, i]) or not bool(abs(value - arb(ball.middle[j, i])) > arb(ball.radius[j, i]))
        for i, row in enumerate(exact)
        for j, value in enumerate(row)
    )


Curve = Callable[["flint.arb", "flint.arb"], list["flint.arb"]]


def difference(curve: Curve, coordinate: int) -> Curve:
    """The derivative of a function on a chart, as a difference of 300 bits: its error is below 1e-38."""
    step = flint.arb(2) ** -70

    def change(u: "flint.arb", v: "flint.arb") -> list["flint.arb"]:
        ends = [curve(u + sign * step, v) if coordinate == 0 else curve(u, v + sign * step) for sign in (1, -1)]
        return [(a - b) / (2 * step) + flint.arb(0, 1e-36) for a, b in zip(*ends)]

    return change


def feature(chart: Chart, n: int) -> Curve:
    """φ of the table in the module."""

    def phi(u: "flint.arb", v: "flint.arb") -> list["flint.arb"]:
        values = neuron(chart, n, u, v)
        if chart.name == "flat":
            # tanh(z + artanh T) = T + (1 − T²) θ / (1 + T θ)
            return [(value - v) / ((1 - v * v) * u) for value in values]
        if chart.name in ("left", "right"):
            # ±tanh = 1 − 2 s φ
            return [(1 - value if chart.name == "left" else 1 + value) / (2 * u) for value in values]
        return values

    return phi


def spanning(chart: Chart, n: int) -> tuple[Curve, Curve]:
    """g_1 and g_2, from the derivatives of φ."""
    phi = feature(chart, n)
    first, second = difference(phi, 0), difference(phi, 1)

    def combined(combine: Callable[..., "flint.arb"], *curves: Curve) -> Curve:
        return lambda u, v: [combine(u, v, *values) for values in zip(*(curve(u, v) for curve in curves))]

    if chart.name == "flat":
        square = combined(lambda u, v, f: f * f, phi)
        return square, combined(lambda u, v, f, d: (d + v * f * f) / u, phi, first)
    if chart.name in ("left", "right"):
        return combined(lambda u, v, d: -d, first), second
    return combined(lambda u, v, d: -d / 2, first), combined(lambda u, v, d: -d / 2, second)


@pytest.mark.parametrize("name", ["cell 0", "cell 2", "cell 4", "left", "right", "flat"])
def test_features_and_their_derivatives_hold_the_oracle(name: str) -> None:
    n = 6
    chart = next(each for each in charts(n) if each.name == name)
    (u, v), points = drawn(chart, 7)
    found = chart.features(u, v)
    assert found.slopes is not None
    assert found.bends is not None
    phi, vectors = feature(chart, n), spanning(chart, n)
    checks = [(found.value, phi)]
    checks += [(found.spanning[i], vectors[i]) for i in range(2)]
    checks += [(found.slopes[k], difference(phi, k)) for k in range(2)]
    for ball, curve in checks:
        assert holds(ball, [curve(*point) for point in points])
    for i, k in itertools.product(range(2), range(2)):
        # Differences of differences: the inner error of 1e-36 over 2^-70, about 1e21, is below 1e-14.
        exact = [difference(vectors[i], k)(*point) for point in points]
        loose = Ball(found.bends[i][k].middle, found.bends[i][k].radius + 1e-13)
        assert holds(loose, exact)
    short = chart.features(u, v, derivatives=False)
    assert short.slopes is None
    assert np.array_equal(short.spanning[1].middle, found.spanning[1].middle)


def coordinates(chart: Chart, n: int, w: float, b: float) -> tuple["flint.arb", "flint.arb"]:
    """The coordinates of a point, by their definition."""
    steep, shift = arb(w), arb(b)
    if chart.name == "flat":
        return steep, (shift + steep * (n - 1) / 2).tanh()
    if chart.name == "left":
        return (-2 * shift).exp(), (-2 * steep).exp()
    if chart.name == "right":
        return (2 * (shift + steep * (n - 1))).exp(), (-2 * steep).exp()
    k = int(chart.name[5:])
    return (2 * (shift + steep * k)).exp(), (-2 * (shift + steep * (k + 1))).exp()


def draw_half_plane(count: int) -> Iterator[tuple[float, float]]:
    """Points with w from 1e-3 to 50 and signs that change within the data, at them, and far outside."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        w = float(10 ** rng.uniform(-3, 1.7))
        c = float(rng.choice([rng.uniform(-1, 7), rng.integers(0, 7), rng.normal() * 100]))
        yield w, -w * c


def uncovered(parts: list[Chart], n: int, points: list[tuple[float, float]]) -> int:
    """How many points lie in no chart's part."""
    missed = 0
    for w, b in points:
        for chart in parts:
            at = coordinates(chart, n, w, b)
            # A point on the border of two charts is on the border of both.
            near = flint.arb(2) ** -200
            inside = all(
                arb(low) - near <= value <= arb(high) + near
                for value, low, high in zip(at, chart.lower, chart.upper, strict=True)
            )
            place = np.array([[float(value.mid()) for value in at]])
            if inside and not chart.beyond(place, np.zeros((1, 2)))[0]:
                break
        else:
            missed += 1
    return missed


def test_the_charts_cover_the_half_plane_and_none_can_be_spared() -> None:
    n, points = 7, list(draw_half_plane(600))
    whole = list(charts(n))
    assert uncovered(whole, n, points) == 0
    for left_out in whole:
        assert uncovered([chart for chart in whole if chart is not left_out], n, points) > 0


@pytest.mark.parametrize("chart", charts(6), ids=lambda chart: chart.name)
def test_coordinates_and_their_inverse(chart: Chart) -> None:
    for u, v in ((0.25, 0.5), (0.125, 0.03125)):
        place = chart.lower[0] + u * (chart.upper[0] - chart.lower[0]), v
        w, b = chart.half_plane(*place)
        found = chart.coordinates(Ball(w, 1e-12), Ball(b, 1e-12))
        for ball, value, exact in zip(found, place, coordinates(chart, 6, w, b)):
            assert bool(abs(arb(ball.middle) - exact) <= arb(ball.radius))
            assert abs(ball.middle - value) <= 1e-10
        assert chart.within(*found) == "inside"


def test_points_outside_of_the_half_plane_and_on_its_border_are_told() -> None:
    everything = {chart.name: chart for chart in charts(6)}
    cell, left, flat = (everything[name] for name in ("cell 1", "left", "flat"))
    assert cell.within(Ball(-0.1, 0.05), Ball(0.5)) == "outside"
    assert cell.within(Ball(0.01, 0.05), Ball(0.5)) == "unclear"
    assert cell.within(Ball(1.1), Ball(0.95)) == "outside"
    assert left.within(Ball(0.5), Ball(0.0)) == "unclear"
    assert flat.within(Ball(0.1), Ball(1.0, 1e-20)) == "unclear"
    assert flat.within(Ball(0.1), Ball(-1.01)) == "outside"
    assert flat.within(Ball(np.nan), Ball(0.0)) == "unclear"


def test_on_some_faces_one_value_stands_for_all() -> None:
    for chart in charts(6):
        for fixed, value, low, high in chart.faces:
            if low < high:
                continue
            free = np.linspace(chart.lower[1 - fixed], chart.upper[1 - fixed], 5)
            sides: list[Floats] = [free, free]
            sides[fixed] = np.full(5, value)
            phi = chart.features(Ball(sides[0]), Ball(sides[1])).value.middle
            flat = phi - phi.mean(0)
            flat /= np.linalg.norm(flat, axis=0)
            assert abs(abs(flat.T @ flat) - 1).max() < 1e-14


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_series_claims_nothing_beyond_its_reach() -> None:
    flat = charts(6)[-1]
    wide = flat.features(Ball([flat.upper[0] * 1.2]), Ball([0.0])).value
    assert np.isnan(wide.radius[0, 0])
    assert np.isfinite(flat.features(Ball([flat.upper[0] * 1.02]), Ball([0.0])).value.radius).all()
