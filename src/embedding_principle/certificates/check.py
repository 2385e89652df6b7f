"""Check certificates of critical points with the standard library alone: whole numbers, no rounded number in the proof.

A file for ``python -S -I check.py FILE …`` says: *within* ``radius`` *of* ``layers`` *(of each neuron weights and bias)
lies exactly one critical point of the risk (the last output of cross-entropy held fixed), with this inertia and a risk
in this interval*; or speaks of a wider network over it: `Network.lift`, `Network.split`. The proof is Krawczyk's test
|C ∇R(centre)| + |I − C H| ρ < ρ for all H between the bounds of the Hessian over the box: θ ↦ θ − C ∇R(θ) maps the box
into itself, all H are regular, and all symmetric ones have one inertia.
"""

import hashlib
import json
import sys
from decimal import localcontext
from functools import cache, reduce
from itertools import count
from operator import add, mul
from pathlib import Path

BITS = 192  # a number v stands for v / 2^BITS
ONE = 1 << BITS


class Ball:
    """One number for each sample: within radius r of the midpoints m."""

    def __init__(self, m, r=0):
        self.m, self.r, self.top = m, r, max(map(abs, m)) + r

    def __add__(self, other):
        return Ball(list(map(add, self.m, other.m)), self.r + other.r)

    def __sub__(self, other):
        return Ball([a - b for a, b in zip(self.m, other.m, strict=True)], self.r + other.r)

    def __mul__(self, other):  # the floors lose less than one unit each
        radius = (self.top * other.r + other.top * self.r >> BITS) + 2
        return Ball([a * b >> BITS for a, b in zip(self.m, other.m, strict=True)], radius)

    def dot(self, other):
        """The sum over the samples of the products."""
        radius = len(self.m) * (self.top * other.r + other.top * self.r)
        return Ball([sum(map(mul, self.m, other.m)) >> BITS], (radius >> BITS) + 2)

    def placed(self, pieces):
        """Slopes and intercepts of the open affine pieces (low, high, slope, intercept) in which the samples lie."""
        table = [Ball(piece).m for piece in read(pieces)]  # numbers, no lists of them
        found = [[piece for piece in table if piece[0] < m - self.r and m + self.r < piece[1]] for m in self.m]
        if not all(found) or (ends := [end for low, high, _, _ in table for end in (low, high)]) != sorted(ends):
            raise ValueError("undecided: a sample may be at a kink, or the pieces are not in order")
        return [Ball([each[0][part] for each in found]) for part in (2, 3)]

    def activated(self, activation):
        """An activation and its first two derivatives; a slope of at most 1 lets a radius grow by rounding only."""
        one = Ball([ONE] * len(self.m))
        if isinstance(activation, list):
            slope, shift = self.placed(activation)
            return slope * self + shift, slope, one - one
        small = [exponential(-abs(v) << (activation == "tanh")) for v in self.m]
        s = Ball([(ONE if v >= 0 else t) * ONE // (ONE + t) for v, t in zip(self.m, small)], self.r // 2 + 4)
        slope, two = s * (one - s), one + one
        bend = slope * (one - s - s)
        if activation == "softplus":
            return Ball([exponential(0, v, top=max(0, v)) for v in self.m], self.r + 2), s, slope
        tanh = (s + s - one, two * two * slope, two * two * two * bend)  # 2 s(2z) - 1
        return {"sigmoid": (s, slope, bend), "tanh": tanh}[activation]


def inner(left, right):
    """The sum of the products of balls."""
    return reduce(add, (a * b for a, b in zip(left, right, strict=True)))


def read(value):
    """A float, or lists of them, as whole numbers of units; a float has one way to be written, that of `float.hex`."""
    if isinstance(value, list):
        return [read(each) for each in value]
    top, bottom = (number := float.fromhex(value)).as_integer_ratio()
    if number.hex() != value or ONE % bottom:
        raise ValueError(f"malformed: {value} is no hexadecimal float, or has digits below 2^-192")
    return top * (ONE // bottom)


@cache
def exponential(*x, top=None):
    """e^x, or with their top the logarithm of the sum of all e^x; error about a unit, by Python's decimal numbers."""
    with localcontext(prec=68) as context:
        value = sum(context.exp(context.divide(v - (top or 0), ONE)) for v in x)
        return int(value * ONE) if top is None else top + int(value.ln() * ONE)


class Network:
    """A network over a box of parameters: the risk, its gradient, and what its Hessian is made of."""

    def __init__(self, loss, activations, inputs, targets, layers, radius=0):
        n, place, gradient = len(inputs[0].m), count(), {}
        self.one, self.mean, self.features = Ball([ONE] * n), Ball([ONE // n] * n, 1), [[*inputs, Ball([ONE] * n)]]
        self.layers = [[[Ball([v] * n, radius) for v in row] for row in rows] for rows in layers]
        self.places = [[[next(place) for _ in row] for row in rows] for rows in layers]
        self.free, self.fixed, self.slopes, self.bends, self.deltas = list(range(next(place))), 0, [], [], []
        for rows, activation in zip(self.layers, [*activations, None], strict=True):
            z = [inner(self.features[-1], row) for row in rows]
            if len(self.features) < len(layers):  # a bias is the weight of a last feature, which is one
                features, slopes, bends = map(list, zip(*(v.activated(activation) for v in z)))
                self.features.append([*features, self.one])
            else:
                back, slopes, bends = {"squared error": self.squares, "cross-entropy": self.entropy}[loss](z, targets)
            self.slopes, self.bends = [*self.slopes, slopes], [*self.bends, bends]
        for level in reversed(range(len(self.layers))):  # backwards: d risk / d pre-activation
            self.deltas.insert(0, back)
            for place, delta in zip(self.places[level], back):
                gradient |= {q: delta.dot(f) for q, f in zip(place, self.features[level])}
            if level:
                seen = [inner(back, column) for column in list(zip(*self.layers[level]))[:-1]]
                self.bends[level - 1] = list(map(mul, seen, self.bends[level - 1]))
                back = list(map(mul, seen, self.slopes[level - 1]))
        self.gradient = [gradient[q] for q in self.free]

    def squares(self, z, targets):
        """First and second derivatives by the outputs, between them those of the activation of the outputs: none."""
        errors = [a - b for a, b in zip(z, targets, strict=True)]
        self.risk = reduce(add, (e.dot(e * self.mean) for e in errors))
        return [(e + e) * self.mean for e in errors], [self.one - self.one] * len(z), [self.mean + self.mean] * len(z)

    def entropy(self, z, targets):
        """The same for logits, and the probabilities; logits may be shifted together, so the last one is held fixed."""
        if any(sum(y) != ONE for y in zip(*(column.m for column in targets))):
            raise ValueError("malformed: the targets of a sample must add up to one")
        r = max(v.r for v in z) + 4  # slopes: of log-sum-exp their sum is 1, of p absolutely at most 1/2
        logs = Ball([exponential(*column, top=max(column)) for column in zip(*(v.m for v in z))], r)
        p = [Ball([exponential(a - b) for a, b in zip(v.m, logs.m)], r) for v in z]
        self.risk = (logs - inner(z, targets)).dot(self.mean)
        self.free, self.fixed = self.free[: -len(self.places[-1][-1])], len(self.places[-1][-1])
        return [(a - b) * self.mean for a, b in zip(p, targets)], p, [v * self.mean for v in p]

    def hessian(self):
        """For each layer J' D J with D the second derivatives, and the terms of weight times feature."""
        H, terms, before = {}, [], [{} for _ in self.features[0]]  # of each feature: d feature / d parameter
        for level, rows in enumerate(self.layers):
            after, parts = [{}], (self.places, self.deltas, self.slopes, self.bends)
            for row, place, delta, slope, bend in zip(rows, *(part[level] for part in parts)):
                J = {q: inner(*zip(*((b[q], w) for b, w in zip(before, row) if q in b))) for q in set().union(*before)}
                terms += [(q, p, delta.dot(d)) for q, b in zip(place, before) for p, d in b.items()]
                J |= zip(place, self.features[level])
                terms += [(a, b, bent.dot(J[b])) for a in J for bent in [J[a] * bend] for b in J if b <= a]
                after.insert(-1, {q: d * slope for q, d in J.items()})
            before = after
        J = {q: reduce(add, (b[q] for b in before if q in b)) for q in set().union(*before)}
        minus = self.mean - self.mean - self.mean  # cross-entropy: D = diag(p) - p p'
        terms += [(a, b, bent.dot(J[b])) for a in J for bent in [J[a] * minus] for b in J if b <= a]
        for a, b, ball in terms:
            H[a, b] = H.get((a, b), Ball([0])) + ball
        return [[H[max(a, b), min(a, b)] for b in self.free] for a in self.free]

    def lift(self, inertia, position, pieces, A, B, rows, distance, spare=None):
        """Near these floats (biases last) a deeper network has a critical point that computes what the true one does.

        Inserted neurons stay in one affine piece λz + μ each, λ ≠ 0. As `rows` of ΛA are regular, BΛA = W for some B
        and R = R_shallow ∘ φ, φ onto: P' − P zeros. A spare neuron, outgoing weights 0, Σδσ(u·f) = Vu + h = 0, adds
        (r, m + 1 − r, r) where V has full row rank r.
        """
        F, n, distance = self.features[position], len(self.one.m), read(distance)
        W, A, B = self.layers[position], *([[Ball([v]) for v in row] for row in read(table)] for table in (A, B))
        pieces_of = [inner([Ball(v.m * n) for v in row], F).placed(pieces) for row in A]
        if any(len({*zip(slope.m, shift.m)}) > 1 or not slope.m[0] for slope, shift in pieces_of):
            raise ValueError("undecided: an inserted neuron is not in one affine piece")
        maps = [[Ball(part.m[:1]) for part in piece] for piece in pieces_of]
        maps = [[s * v for v in row[:-1]] + [s * row[-1] + shift] for row, (s, shift) in zip(A, maps)]
        columns = list(zip(*maps, [Ball([0])] * (len(F) - 1) + [Ball([ONE])], strict=True))
        missed = [[Ball(w.m[:1], w.r) - inner(b, c) for w, c in zip(w, columns)] for w, b in zip(W, B, strict=True)]
        most = solved([[column[j] for j in rows] for column in columns[:-1]], [line[:-1] for line in missed])[1]
        reach = max(line[-1].top for line in missed) + (most * sum(columns[-1][j].top for j in rows) >> BITS) + 1
        inertia[1] += len(A) * (len(F) + len(W)) - len(W) * (len(F) - 1)
        if spare is not None:
            u, free, errors = read(spare.pop("u")), spare.pop("free"), self.deltas[position]
            slope, shift = inner([Ball([v] * n, distance) for v in u], F).placed(pieces)
            V = [[(delta * slope).dot(f) for f in F] for delta in errors]
            rest = [inner(row, [Ball([v]) for v in u]) + delta.dot(shift) for row, delta in zip(V, errors)]
            reach = max(reach, solved([[row[t] for t in free] for row in V], [rest])[1])
            inertia = list(map(add, inertia, [len(W), len(F) - len(W), len(W)]))
        if spare or max(most, reach) > distance:
            raise ValueError("undecided: the point may be farther away, or the spare neuron has more")
        return inertia

    def split(self, inertia, level, neuron, share):
        """Double a neuron, with shares α and 1 − α of its outgoing weight a: H' ≅ H ⊕ 0 ⊕ α(1 − α) Σ aδσ''ff'."""
        F, bend, share = self.features[level], self.bends[level][neuron], read(share)
        (row,) = self.layers[level + 1]
        if abs(row[neuron].m[0]) <= row[neuron].r or share in (0, ONE):
            raise ValueError("undecided: the outgoing weight may be zero, or a share is")
        negative = solved([[(f * g).dot(bend) for g in F] for f in F], [])[0]
        return list(map(add, inertia, [negative, 1, len(F) - negative][:: 1 if 0 < share < ONE else -1]))


def solved(matrix, sides):
    """n−, and the most that an entry of M⁻¹s can be for all M of the matrix, which are regular, and all sides s."""
    n, negative, C = len(matrix), 0, [[v.m[0] for v in row] for row in matrix]
    columns = [([v.m[0] for v in column], [v.r + n for v in column]) for column in zip(*matrix, strict=True)]
    for k in range(n):  # the signs are those of a matrix within n units, as a step moves entries by at most one
        pivot, row = C[k][k] or 1, C[k]
        negative, row[k] = negative + (pivot < 0), ONE
        for i in (i for i in range(n) if i != k):
            factor, C[i][k] = C[i][k], 0
            C[i] = [a - factor * b // pivot for a, b in zip(C[i], row)]
        C[k] = [ONE * v // pivot for v in row]
    sums = [0] * n
    for i, (row, _) in enumerate(zip(C, columns, strict=True)):
        for j, (middle, radius) in enumerate(columns):
            sums[i] += abs(ONE * ONE * (i == j) - sum(map(mul, row, middle))) + sum(map(mul, map(abs, row), radius))
    gap = ONE - (max(sums) >> BITS) - 1
    if gap <= 0:
        raise ValueError("undecided: the box is too large, or a matrix nearly singular in it")
    tops = [inner([Ball([v]) for v in row], side).top for row in C for side in sides]
    return negative, max(tops, default=0) * ONE // gap + 1


def sealed(document):
    """The one way to write a certificate, with the SHA-256 of the rest of it."""
    body = json.dumps({key: value for key, value in document.items() if key != "sha256"}, sort_keys=True)
    return json.dumps({**document, "sha256": hashlib.sha256(body.encode()).hexdigest()}, sort_keys=True) + "\n"


def verify(text):
    """The inertia that a certificate states, if all of it is proved; otherwise an error. Bare numbers are counts."""
    given = json.loads(text, parse_int=lambda t: int(t) if t.isdigit() else t, parse_float=str, parse_constant=str)
    if sealed(given) != text or not given.pop("sha256") or any(word in text for word in ("true", "false", "null")):
        raise ValueError("altered: the digest differs")
    xy = [[Ball([*column]) for column in zip(*read(given.pop(key)), strict=True)] for key in ("inputs", "targets")]
    problem = [given.pop("loss"), list.copy(given.pop("activations")), *xy, read(given.pop("layers"))]
    radius = read(given.pop("radius"))
    box = Network(*problem, radius)
    negative, reach = solved(box.hessian(), [Network(*problem).gradient])
    if reach >= radius:
        raise ValueError("undecided: the box is too small, or holds no critical point")
    inertia = [negative, box.fixed, len(box.free) - negative]
    for kind in [kind for kind in ("lift", "split") if kind in given][:1]:
        inertia = getattr(box, kind)(inertia, **given.pop(kind))
    claimed, low, high = given.pop("inertia"), *read(given.pop("risk"))
    if claimed != inertia or given or not low <= box.risk.m[0] - box.risk.r <= box.risk.m[0] + box.risk.r <= high:
        raise ValueError(f"false: the inertia is {inertia}, or the risk not so sharp, or it says more: {list(given)}")
    return inertia


if __name__ == "__main__":
    failed = len(sys.argv) < 2
    for name in sys.argv[1:]:
        try:
            print(f"{name}: proved: inertia {verify(Path(name).read_bytes().decode())}")
        except Exception as reason:  # whatever goes wrong, nothing is proved
            failed = print(f"{name}: refused: {reason or type(reason).__name__}") is None
    sys.exit(failed)
