"""Check that a list of critical points of one tanh neuron is complete: with the standard library alone, in integers.

Run as ``python -S -I check_atlas.py FILE …``; the exit status is 0 if every file is proved, 1 otherwise.

A file says: *for these targets on the grid 0, 1, …, n − 1, every neuron tanh(w x + b) with w > 0 at which the
residual e of the regression on 1 and the neuron is orthogonal to the neuron's derivatives by w and b lies in one of
these boxes, each of which holds exactly one, with a weight a ≠ 0.* Neighbouring boxes may hold the same. The file
contains a tree for each chart: s halves a box across its longer side, x claims that it holds no zero, e that it
belongs to the chart flat, and A, B, … that what it holds is a zero of the list. The charts and why they cover the
half-plane are described in the book's chapter and in `certificates.charts`.
"""

import hashlib
import json
import sys
from fractions import Fraction
from functools import cache
from math import comb
from operator import add, mul, sub
from pathlib import Path

BITS = 100  # a number v stands for v / 2^BITS
ONE = 1 << BITS
STATEMENT = "all critical neurons in the half-plane"
TERMS = 44
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Refused(Exception):
    """Why a file is not accepted."""


class Ball:
    """Numbers, one for each sample or one alone: each within its radius of its midpoint."""

    def __init__(self, m, r=None):
        self.m, self.r = m, r or [0] * len(m)

    def like(self, other):
        """Repeated for each sample, if the other one has them and this one is alone."""
        n = len(other.m)
        return self if len(self.m) >= n else Ball(self.m * n, self.r * n)

    def __add__(self, other):
        one, two = self.like(other), other.like(self)
        return Ball(list(map(add, one.m, two.m)), list(map(add, one.r, two.r)))

    def __sub__(self, other):
        one, two = self.like(other), other.like(self)
        return Ball(list(map(sub, one.m, two.m)), list(map(add, one.r, two.r)))

    def __mul__(self, other):
        if isinstance(other, list):  # whole numbers
            return Ball(list(map(mul, self.m, other)), [r * abs(k) for r, k in zip(self.r, other)])
        one, two = self.like(other), other.like(self)
        rows = zip(one.m, one.r, two.m, two.r)
        radius = [(abs(a) * s + (abs(b) + s) * r >> BITS) + 2 for a, r, b, s in rows]
        return Ball([v >> BITS for v in map(mul, one.m, two.m)], radius)

    def inverse(self):
        """1 / x; ZeroDivisionError where x may be zero."""
        least = [abs(a) - r for a, r in zip(self.m, self.r)]
        if min(least) <= 0:
            raise ZeroDivisionError
        rows = zip(self.m, self.r, least)
        return Ball([ONE * ONE // a for a in self.m], [r * ONE * ONE // (abs(a) * low) + 2 for a, r, low in rows])

    def total(self):
        """The sum over the samples."""
        return Ball([sum(self.m)], [sum(self.r)])

    def dot(self, other):
        """The sum over the samples of the products."""
        rows = zip(self.m, self.r, other.m, other.r)
        radius = sum(abs(a) * s + abs(b) * r + r * s for a, r, b, s in rows)
        return Ball([sum(map(mul, self.m, other.m)) >> BITS], [(radius >> BITS) + 2])


def number(value):
    """A fraction as a ball."""
    return Ball([value.numerator * ONE // value.denominator], [1])


UNIT = Ball([ONE])


def powers(base, most):
    """The powers of one number, by exponents; one below zero is taken for zero, and stands where a zero follows."""
    found = [UNIT, base]
    while len(found) <= most:
        found.append(found[-1] * base)
    m, r = [b.m[0] for b in found], [b.r[0] for b in found]
    return lambda exponents: Ball([m[max(e, 0)] for e in exponents], [r[max(e, 0)] for e in exponents])


def cell(n, k, p, q, bent):
    """φ = ∓(1 − Q) / (1 + Q), Q_j = p^α q^β; g = −φ_u / 2, −φ_v / 2; the derivatives of φ; those of g."""
    alpha = [k + 1 - j if j <= k else j - k - 1 for j in range(n)]
    beta = [k - j if j <= k else j - k for j in range(n)]
    sign = [-1 if j <= k else 1 for j in range(n)]
    of_u, of_v = powers(p, n), powers(q, n)

    def monomial(less, lesser):
        return of_u([a - less for a in alpha]) * of_v([b - lesser for b in beta])

    product, by_p, by_q = monomial(0, 0), monomial(1, 0), monomial(0, 1)
    inverse = (UNIT + product).inverse()
    square = inverse * inverse
    of_p, of_q = list(map(mul, sign, alpha)), list(map(mul, sign, beta))
    g, value = [by_p * square * of_p, by_q * square * of_q], (UNIT - product) * inverse * sign
    if not bent:
        return value, g, None, None
    cube = square * inverse
    mixed = monomial(1, 1) * (UNIT - product) * cube * list(map(mul, of_p, beta))
    pp = monomial(2, 0) * [a - 1 for a in alpha] - by_p * by_p * [a + 1 for a in alpha]
    qq = monomial(0, 2) * [b - 1 for b in beta] - by_q * by_q * [b + 1 for b in beta]
    slopes = [each * ([-2] * n) for each in g]
    return value, g, slopes, [[pp * cube * of_p, mixed], [mixed, qq * cube * of_q]]


def outside(steps, s, rho, bent):
    """φ_j = ρ^j / (1 + s ρ^j); g = −φ_s, φ_ρ."""
    n = len(steps)
    of_rho = powers(rho, n)
    power, less, lesser = (of_rho([j - lower for j in steps]) for lower in range(3))
    inverse = (UNIT + power * s).inverse()
    square, value = inverse * inverse, power * inverse
    g = [value * value, less * square * steps]
    if not bent:
        return value, g, None, None
    mixed, twice_s = value * g[1] * ([2] * n), value * g[0] * ([-2] * n)
    inner = lesser * [j - 1 for j in steps] - less * less * s * [j + 1 for j in steps]
    slopes = [g[0] * ([-1] * n), g[1]]
    return value, g, slopes, [[twice_s, mixed], [mixed * ([-1] * n), inner * square * inverse * steps]]


@cache
def tangent(k):
    """c_k of tanh z = Σ c_k z^(2k+1), from the Taylor series of tanh · cosh = sinh."""
    top = 1
    for i in range(k):
        top -= comb(2 * k + 1, 2 * i + 1) * odd(i)
    return Fraction(top, factorial(2 * k + 1))


@cache
def odd(i):
    """The derivative of tanh of order 2i + 1 at 0."""
    return int(tangent(i) * factorial(2 * i + 1))


@cache
def factorial(k):
    """1 · 2 · … · k."""
    return k * factorial(k - 1) if k else 1


def series(square, weight, first):
    """Σ weight(k) c_k z^(2k − 2 first), k ≥ first, for z² ≤ 1.1; |c_k| ≤ 0.4053^k bounds what is left out."""
    if any(a + r > ONE * 11 // 10 for a, r in zip(square.m, square.r)):
        raise ZeroDivisionError
    total = Ball([0] * len(square.m))
    for k in reversed(range(first, TERMS)):
        total = total * square + number(weight(k) * tangent(k))
    ratio = Fraction(4053, 10000) * Fraction(11, 10)
    tail = weight(TERMS) * ratio**TERMS / (1 - ratio * Fraction(weight(TERMS + 1), weight(TERMS)))
    return total + Ball([0], [int(tail * ONE) + 1])


def flat(n, w, T, bent):
    """φ = θ / (w (1 + T θ)), θ = tanh(w x); g_1 = φ², g_2 = x³ κ / (1 + T θ)²."""
    x = [2 * j - n + 1 for j in range(n)]  # twice
    half = Ball([ONE // 2])
    z = half * Ball([ONE] * n) * w * x
    square = z * z
    over_z, kappa = series(square, lambda k: 1, 0), series(square, lambda k: 2 * k, 1)
    theta = z * over_z
    inverse = (UNIT + theta * T).inverse()
    twice = inverse * inverse
    value = over_z * inverse * half * x
    cubes, fourth = [v**3 for v in x], [v**4 for v in x]
    eighth = Ball([ONE // 8])
    g = [value * value, kappa * twice * eighth * cubes]
    if not bent:
        return value, g, None, None
    by_w, by_T = g[1] * w - g[0] * T, g[0] * w * ([-1] * n)
    kappa_z = z * series(square, lambda k: 2 * k * (2 * k - 2), 2)
    steep = (UNIT - theta * theta) * half * x
    g_w = kappa_z * twice * half * eighth * fourth - g[1] * T * steep * inverse * ([2] * n)
    two = [2] * n
    bends = [[value * by_w * two, value * by_T * two], [g_w, g[1] * theta * inverse * ([-2] * n)]]
    return value, g, [by_w, by_T], bends


def conditions(parts, y):
    """<e, g_1>, <e, g_2>, their derivatives, and the weight a; y has the mean zero."""
    value, g, slopes, bends = parts
    n = len(y.m)
    share = number(Fraction(1, n))
    phi = value - Ball([sum(value.m) // n])

    mean = phi.total() * share

    def with_phi(other):
        return phi.dot(other) - mean * other.total()

    spread = with_phi(phi).inverse()
    weight = phi.dot(y) * spread
    shares = [with_phi(each) for each in g]
    values = [each.dot(y) - weight * part for each, part in zip(g, shares)]
    if slopes is None:
        return values, None, weight
    change = [(s.dot(y) - weight * with_phi(s) * [2]) * spread for s in slopes]
    jacobian = [[None, None], [None, None]]
    for i, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
        bend = bends[i][k]
        fall = slopes[k].dot(g[i]) - slopes[k].total() * g[i].total() * share + with_phi(bend)
        jacobian[i][k] = bend.dot(y) - change[k] * shares[i] - weight * fall
    return values, jacobian, weight


class Chart:
    """One chart: its rectangle and its features."""

    def __init__(self, name, n, steepness):
        self.name, self.limit = name, decay(2 * steepness)
        low, high = ((0, -1), (steepness, 1)) if name == "flat" else ((0, 0), (1, 1))
        self.middle = [int((a + b) * Fraction(ONE, 2)) for a, b in zip(low, high)]
        self.radius = [int((b - a) * Fraction(ONE, 2)) for a, b in zip(low, high)]
        if name == "flat":
            self.features = lambda u, v, bent: flat(n, u, v, bent)
        elif name in ("left", "right"):
            steps = list(range(n)) if name == "left" else list(range(n))[::-1]
            self.features = lambda u, v, bent: outside(steps, u, v, bent)
        else:
            self.features = lambda u, v, bent: cell(n, int(name[5:]), u, v, bent)

    def elsewhere(self, m, r):
        """Whether w < w₀ in the whole box."""
        low = [max(a - b, 0) for a, b in zip(m, r)]
        least = low[1] * ONE if self.name in ("left", "right") else low[0] * low[1]
        return self.name != "flat" and least > self.limit * ONE * ONE

    def place(self, m, r):
        """Whether a box belongs to the half-plane: 1 if all of it does, -1 if nothing does, 0 otherwise."""
        low, high = [a - b for a, b in zip(m, r)], [a + b for a, b in zip(m, r)]
        if self.name == "flat":
            ends = [(low[0], high[0]), (ONE + low[1], ONE + high[1]), (ONE - high[1], ONE - low[1])]
        elif self.name in ("left", "right"):
            ends = [*zip(low, high), (ONE - high[1], ONE - low[1])]
        else:
            least, most = (max(ends[0], 0) * max(ends[1], 0) for ends in (low, high))
            ends = [*zip(low, high), (ONE * ONE - most, ONE * ONE - least)]
        return 1 if all(least > 0 for least, _ in ends) else -int(any(most < 0 for _, most in ends))

    def image(self, y, m, r):
        """Krawczyk's image of a box, a box; None if the box holds no zero."""
        values, _, _ = conditions(self.features(*(Ball([a]) for a in m), False), y)
        _, jacobian, _ = conditions(self.features(*(Ball([a], [b]) for a, b in zip(m, r)), True), y)
        for value, row in zip(values, jacobian):
            reach = sum((abs(J.m[0]) + J.r[0]) * b for J, b in zip(row, r))
            if abs(value.m[0]) - value.r[0] > (reach >> BITS) + 1:
                return None
        (a, b), (c, d) = [[J.m[0] / ONE for J in row] for row in jacobian]
        size = a * d - b * c
        middle, radius = [], []
        for i, row in enumerate([[d / size, -b / size], [-c / size, a / size]]):
            C = [number(Fraction(v)) for v in row]
            move = C[0] * values[0] + C[1] * values[1]
            spread = move.r[0]
            for k in range(2):
                gap = Ball([ONE * (i == k)]) - C[0] * jacobian[0][k] - C[1] * jacobian[1][k]
                spread += ((abs(gap.m[0]) + gap.r[0]) * r[k] >> BITS) + 1
            if abs(move.m[0]) > spread + r[i]:
                return None
            middle.append(m[i] - move.m[0])
            radius.append(spread)
        return middle, radius

    def empty(self, y, m, r, depth=8):
        """Whether a box holds no zero, with some halvings of its own."""
        try:
            if self.image(y, m, r) is None:
                return True
        except (ZeroDivisionError, OverflowError, ValueError):
            pass
        return depth > 0 and all(self.empty(y, *half, depth - 1) for half in self.halves(m, r))

    def halves(self, m, r):
        """A box cut across its longer side, relative to the chart."""
        k = int(r[0] * self.radius[1] < r[1] * self.radius[0])
        if r[k] % 2:
            raise Refused("the boxes are too small")
        shorter = [b // 2 if i == k else b for i, b in enumerate(r)]
        for sign in (-1, 1):
            yield [a + sign * shorter[k] if i == k else a for i, a in enumerate(m)], shorter


def decay(x):
    """Above e^-x, 0 ≤ x ≤ 2: Taylor's series, ended after a positive term."""
    return sum((-x) ** k / factorial(k) for k in range(31))


def within(small, large):
    """Whether a box lies in the inside of another one."""
    return all(abs(a - b) + r < s for a, b, r, s in zip(small[0], large[0], small[1], large[1]))


def one_zero(chart, y, box):
    """Whether the zero in a box, exactly one, belongs to the half-plane; there it has a weight."""
    for _ in range(12):
        image = chart.image(y, *box)
        if image is None or not within(image, box):
            raise Refused(f"{chart.name}: a box is not proved to hold exactly one zero")
        box = image[0], [r + r // 8 + 1 for r in image[1]]
        if max(box[1]) < ONE >> 40:
            break
    place = chart.place(*box)
    weight = conditions(chart.features(*(Ball([a], [b]) for a, b in zip(*box)), False), y)[2]
    if place == 0 or (place > 0 and abs(weight.m[0]) <= weight.r[0]):
        raise Refused(f"{chart.name}: a zero is not proved to be in the half-plane with a weight, or outside")
    return place > 0


def replay(chart, y, tree, zeros):
    """Go through a tree."""
    boxes, labels = [(chart.middle, chart.radius)], iter(tree)
    while boxes:
        m, r = boxes.pop()
        label = next(labels, "")
        if label == "s":
            low, high = chart.halves(m, r)
            boxes += [high, low]
        elif label in zeros:
            image = chart.image(y, m, r)
            if image is not None and not within(image, zeros[label]):
                raise Refused(f"{chart.name}: zeros of a box need not be {label}")
        elif not (label == "e" and chart.elsewhere(m, r)) and not (label == "x" and chart.empty(y, m, r)):
            raise Refused(f"{chart.name}: a box labelled {label!r} is not proved")
    if next(labels, ""):
        raise Refused(f"{chart.name}: labels are left over")


def verify(text):
    """How many boxes, each with one critical neuron, a file proves to hold all; Refused, with the reason, otherwise."""
    try:
        document = json.loads(text)
        if sealed(document) != text:
            raise Refused("altered: the digest differs")
        if len(document) != 5 or document["statement"] != STATEMENT:
            raise Refused("a statement that this program does not know")
        targets = [Fraction(float.fromhex(value)) for value in document["targets"]]
        n = len(targets)
        mean = sum(targets) / n
        if n < 5 or sum(j * (value - mean) for j, value in enumerate(targets)) == 0:
            raise Refused("fewer than five samples, or the regression slope vanishes")
        y = Ball([int((value - mean) * ONE // 1) for value in targets], [1] * n)
        trees, names = document["trees"], [*(f"cell {k}" for k in range(n - 1)), "left", "right", "flat"]
        if sorted(trees) != sorted(names):
            raise Refused("malformed: the charts")
        steepness = dyadic(Fraction(2, n - 1))
        boxes = {name: document["zeros"].get(name, []) for name in names}
        if (
            sum(map(len, boxes.values())) != sum(map(len, document["zeros"].values()))
            or max(map(len, boxes.values())) > 26
        ):
            raise Refused("malformed: the zeros")
        count = 0
        for name in sorted(names, key=lambda name: not boxes[name]):
            chart, zeros = Chart(name, n, steepness), {}
            for label, box in zip(LETTERS, boxes[name]):
                u, v, ru, rv = (int(Fraction(float.fromhex(value)) * ONE // 1) for value in box)
                zeros[label] = [u, v], [ru, rv]
                count += one_zero(chart, y, zeros[label])
            replay(chart, y, trees[name], zeros)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError, AttributeError, RecursionError) as error:
        raise Refused(f"malformed: {type(error).__name__}") from None
    except ZeroDivisionError:
        raise Refused("undecided: a box is too large") from None
    return count


def dyadic(value):
    """Rounded down to four binary digits."""
    unit = Fraction(1)
    while value / unit >= 16:
        unit *= 2
    while value / unit < 8:
        unit /= 2
    return value // unit * unit


def sealed(document):
    """The one way to write a file, with the SHA-256 of the rest of it."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(body | {"sha256": digest}, sort_keys=True, separators=(",", ":")) + "\n"


def main(files):
    """Check files; the exit status."""
    status = 0
    for name in files:
        try:
            print(f"{name}: proved: {STATEMENT}: {verify(Path(name).read_bytes().decode())}")
        except (Refused, OSError, UnicodeDecodeError) as reason:
            print(f"{name}: refused: {reason}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else 2)
