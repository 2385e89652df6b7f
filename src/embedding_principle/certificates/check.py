"""Check certificates with the standard library alone: integers, no floating-point number in the proof.

Run as ``python -S -I check.py FILE …``; the exit status is 0 if every file is proved, 1 otherwise.

A certificate says: *within ``radius`` of ``centre``, coordinate by coordinate, lies exactly one critical point of the
risk, its Hessian has this inertia, and its risk lies in this interval*. The steps: the digest; the derivatives of the
network as integers with error radii; Krawczyk's test: with C an approximate inverse of the Hessian, |C ∇R(centre)| +
|I − C H| ρ < ρ for every matrix H between the bounds of the Hessian over the box. Then θ ↦ θ − C ∇R(θ) maps the box
into its inside (there is a zero), every such H is regular (only one), and all symmetric ones have one inertia.
"""

import hashlib
import json
import sys
from functools import reduce
from operator import add, mul
from pathlib import Path

BITS = 192  # a number v stands for v / 2^BITS
ONE = 1 << BITS
GUARD = 64
STATEMENT = "exactly one critical point in the box"


class Refused(Exception):
    """Why a certificate is not accepted."""


class Ball:
    """One number for each sample: within radius r of the midpoints m."""

    def __init__(self, m, r=0):
        self.m, self.r = m, r
        self.top = max(map(abs, m)) + r

    def __add__(self, other):
        return Ball([a + b for a, b in zip(self.m, other.m)], self.r + other.r)

    def __sub__(self, other):
        return Ball([a - b for a, b in zip(self.m, other.m)], self.r + other.r)

    def __mul__(self, other):  # the floors lose less than one unit each
        radius = (self.top * other.r + other.top * self.r >> BITS) + 2
        return Ball([a * b >> BITS for a, b in zip(self.m, other.m)], radius)

    def dot(self, other):
        """The sum over the samples of the products: one interval."""
        radius = len(self.m) * (self.top * other.r + other.top * self.r)
        return sum(map(mul, self.m, other.m)) >> BITS, (radius >> BITS) + 2


def read(text):
    """The interval of a hexadecimal float."""
    top, bottom = float.fromhex(text).as_integer_ratio()
    return (top << BITS) // bottom, int((top << BITS) % bottom != 0)


def exact(text):
    """A hexadecimal float that has no digits below the last unit."""
    value, rest = read(text)
    if rest:
        raise Refused("a radius or a bound has too many digits")
    return value


def decay(x):
    """e^-x for x >= 0, error below one unit: Taylor's series at x / 2^20, then twenty squarings with guard digits."""
    if x > 140 * ONE:  # e^-140 < 2^-192
        return 0
    one, x = ONE << GUARD, x << GUARD >> 20
    term = total = one
    k = 0
    while term:
        k += 1
        term = term * x // (k * one)
        total += -term if k % 2 else term
    for _ in range(20):  # an error of 2^6 at most doubles and gains one: below 2^28
        total = total * total // one
    return total >> GUARD


def logistic(z):
    """1 / (1 + e^-z), error below 3 units."""
    small = decay(abs(z))
    return (ONE if z >= 0 else small) * ONE // (ONE + small)


def soft(z):
    """log(1 + e^z) = max(z, 0) + 2 artanh(t / (2 + t)), t = e^-|z|; error below 400 units."""
    t = decay(abs(z))
    u = power = t * ONE // (2 * ONE + t)
    total, k = 0, 1
    while power:
        total += power // k
        power, k = power * u // ONE * u // ONE, k + 2
    return max(z, 0) + 2 * total


def activate(name, z):
    """An activation with its first two derivatives; slopes are at most 1, so a radius grows by rounding only."""
    one = Ball([ONE] * len(z.m))
    if name == "tanh":
        f = Ball([2 * logistic(2 * v) - ONE for v in z.m], z.r + 8)
        slope = one - f * f
        return f, slope, f * slope * Ball([-2 * ONE] * len(z.m))
    s = Ball([logistic(v) for v in z.m], z.r + 4)
    slope = s * (one - s)
    if name == "sigmoid":
        return s, slope, slope * (one - s - s)
    if name == "softplus":
        return Ball([soft(v) for v in z.m], z.r + 400), s, slope
    raise Refused(f"unknown activation {name}")


def derivatives(widths, activations, inputs, targets, theta, hessian=True):
    """Risk, gradient and Hessian of mean squared error where each parameter is an interval."""
    n, layers, start, features, slopes, bends = len(inputs[0].m), [], 0, [inputs], [], []
    one, mean, theta = Ball([ONE] * n), Ball([ONE // n] * n, 1), [Ball([m] * n, r) for m, r in theta]
    for level, (fan, out) in enumerate(zip(widths, widths[1:])):
        rows = [theta[start + j * fan : start + (j + 1) * fan] for j in range(out)]
        bias = start + out * fan
        layers.append((start, bias, rows))
        z = [reduce(add, map(mul, features[-1], row), theta[bias + j]) for j, row in enumerate(rows)]
        start = bias + out
        if level < len(activations):
            f, d, e = zip(*(activate(activations[level], v) for v in z))
            features, slopes, bends = [*features, f], [*slopes, d], [*bends, e]
    errors = [a - b for a, b in zip(z, targets)]
    back = [(e + e) * mean for e in errors]
    risk = tuple(map(sum, zip(*(e.dot(e * mean) for e in errors))))
    gradient, deltas, seen = [None] * start, [None] * len(layers), [None] * len(layers)
    for level in reversed(range(len(layers))):  # backwards: d risk / d pre-activation
        first, bias, rows = layers[level]
        fan, deltas[level] = widths[level], back
        for j, delta in enumerate(back):
            gradient[bias + j] = delta.dot(one)
            for c, f in enumerate(features[level]):
                gradient[first + j * fan + c] = delta.dot(f)
        if level:
            seen[level - 1] = [reduce(add, (d * row[c] for d, row in zip(back, rows))) for c in range(fan)]
            back = [s * d for s, d in zip(seen[level - 1], slopes[level - 1])]
    if not hessian:
        return risk, gradient, None
    seen[-1], bends, slopes = [one] * len(z), [*bends, [mean + mean] * len(z)], [*slopes, [one] * len(z)]
    return risk, gradient, second(layers, features, slopes, bends, deltas, seen, start)


def second(layers, features, slopes, bends, deltas, seen, size):
    """The Hessian: for each layer J' D J with D the second derivative, and the terms of weight times feature."""
    H, one = [[[0, 0] for _ in range(size)] for _ in range(size)], Ball([ONE] * len(features[0][0].m))
    before = [{} for _ in features[0]]  # of each feature: d feature / d parameter
    for level, (first, bias, rows) in enumerate(layers):
        terms, after = [], []
        for j, row in enumerate(rows):
            J = {q: reduce(add, (b[q] * w for b, w in zip(before, row) if q in b)) for q in set().union(*before)}
            J[bias + j] = one
            for c, f in enumerate(features[level]):
                here = first + j * len(row) + c
                J[here] = f
                terms += [(here, q, deltas[level][j].dot(ball)) for q, ball in before[c].items()]
            bent = {q: ball * (seen[level][j] * bends[level][j]) for q, ball in J.items()}
            terms += [(a, b, bent[a].dot(J[b])) for a in J for b in J if b <= a]
            after.append({q: ball * slopes[level][j] for q, ball in J.items()})
        for a, b, (m, r) in terms:
            H[a][b] = [H[a][b][0] + m, H[a][b][1] + r]
        before = after
    return [[H[max(a, b)][min(a, b)] for b in range(size)] for a in range(size)]


def inverse(matrix):
    """An approximate inverse in floats; a bad one makes the test fail and cannot make it pass wrongly."""
    n = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    for k in range(n):
        best = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[best] = rows[best], rows[k]
        if not rows[k][k]:
            raise Refused("undecided: the Hessian is singular")
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k])]
    return [row[n:] for row in rows]


def signs(matrix):
    """The inertia by elimination; each floor moves an entry by less than one unit, an entry by less than n in all."""
    n, A, negative = len(matrix), [row[:] for row in matrix], 0
    for k in range(n):
        if not A[k][k]:
            raise Refused("undecided: a pivot vanishes")
        negative += A[k][k] < 0
        for i in range(k + 1, n):
            for j in range(k + 1, i + 1):
                A[i][j] = A[j][i] = A[i][j] - A[i][k] * A[j][k] // A[k][k]
    return [negative, 0, n - negative]


def krawczyk(gradient, H, radius):
    """How far the map moves each coordinate, and how far its linear part may spread it: two lists of bounds."""
    n = len(radius)
    C = [[read(v.hex())[0] for v in row] for row in inverse([[v[0] / ONE for v in row] for row in H])]
    columns, moved, spread = list(zip(*H)), [], []
    for i, row in enumerate(C):
        size = list(map(abs, row))
        middle, error = (sum(a * g[part] for a, g in zip(c, gradient)) for part, c in ((0, row), (1, size)))
        moved.append((abs(middle) >> BITS, (error >> BITS) + 2))
        reach = 0
        for j in range(n):
            gap = abs(ONE * ONE * (i == j) - sum(a * v[0] for a, v in zip(row, columns[j])))
            reach += ((gap + sum(a * v[1] for a, v in zip(size, columns[j])) >> BITS) + 1) * radius[j]
        spread.append((reach >> BITS) + 1)
    return moved, spread


def prove(widths, activations, inputs, targets, centre, radius):
    """Inertia and risk interval of the one critical point in the box; Refused, with the reason, if it is not proved."""
    box = [(m, r + rho) for (m, r), rho in zip(centre, radius)]
    risk, gradient, _ = derivatives(widths, activations, inputs, targets, centre, hessian=False)
    H = derivatives(widths, activations, inputs, targets, box)[2]
    H = [[(m, r + len(radius)) for m, r in row] for row in H]  # room for the floors of `signs`
    moved, spread = krawczyk(gradient, H, radius)
    for (middle, error), wide, rho in zip(moved, spread, radius):
        if middle - error - wide > rho:
            raise Refused("refuted: no critical point in the box")
    if any(wide >= rho for wide, rho in zip(spread, radius)):
        raise Refused("undecided: the box is too large, or the Hessian nearly singular in it")
    if any(middle + error + wide >= rho for (middle, error), wide, rho in zip(moved, spread, radius)):
        raise Refused("undecided: the box is too small, or holds no critical point")
    slack = risk[1] + 1  # Taylor: |g| rho + rho |H| rho
    for (m, r), row, rho in zip(gradient, H, radius):
        slack += (
            rho * (abs(m) + r + 1 + (sum((abs(a) + b) * s for (a, b), s in zip(row, radius)) >> BITS)) >> BITS
        ) + 1
    return signs([[v[0] for v in row] for row in H]), (risk[0] - slack, risk[0] + slack)


def sealed(document):
    """The one way to write a certificate, with the SHA-256 of the rest of it."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(body | {"sha256": digest}, sort_keys=True, separators=(",", ":")) + "\n"


def verify(text):
    """Inertia that a certificate proves; Refused, with the reason, otherwise."""
    try:
        document = json.loads(text)
        if sealed(document) != text:
            raise Refused("altered: the digest differs")
        if len(document) != 11 or [document["statement"], document["loss"]] != [STATEMENT, "squared error"]:
            raise Refused("a statement that this program does not know")
        widths, activations, claimed = document["widths"], document["activations"], document["inertia"]
        inputs, targets = ([[read(v) for v in row] for row in document[key]] for key in ("inputs", "targets"))
        centre, radius = [read(v) for v in document["centre"]], [exact(v) for v in document["radius"]]
        low, high = map(exact, document["risk"])
        size = sum((fan + 1) * out for fan, out in zip(widths, widths[1:]))
        shapes = [(inputs, widths[0]), (targets, widths[-1])]
        sound = all(type(w) is int and w > 0 for w in widths) and len(activations) == len(widths) - 2
        sound = sound and len(centre) == len(radius) == size and min(radius) > 0 and len(inputs) == len(targets) > 0
        if not sound or any(len(row) != width for rows, width in shapes for row in rows):
            raise Refused("malformed: lengths, or a radius that is not positive")
        inputs, targets = ([Ball([v[0] for v in column], 1) for column in zip(*rows)] for rows, _ in shapes)
        inertia, (least, most) = prove(widths, activations, inputs, targets, centre, radius)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError, AttributeError, RecursionError) as error:
        raise Refused(f"malformed: {type(error).__name__}") from None
    if inertia != claimed:
        raise Refused(f"false: the inertia is {inertia}")
    if not low <= least <= most <= high:
        raise Refused("false or too sharp: the risk")
    return inertia


def main(files):
    """Check files; the exit status."""
    status = 0
    for name in files:
        try:
            print(f"{name}: proved: {STATEMENT}, inertia {verify(Path(name).read_bytes().decode())}")
        except (Refused, OSError, UnicodeDecodeError) as reason:
            print(f"{name}: refused: {reason}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else 2)
