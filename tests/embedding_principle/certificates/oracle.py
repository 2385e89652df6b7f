"""An oracle of 300 bits: second-order Taylor arithmetic in arb, and the verdict on what a certificate says.

It shares no formula with the prover or the checker: derivatives are carried forwards with the values, numbers are read
by rules of its own, and the Hessian of a split network is that of the wide network itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flint
from flint import arb, arb_mat

flint.ctx.prec = 300

Numbers = list[arb]
Layers = list[list[list[arb]]]
Pieces = list[list[arb]]
Verdict = Literal["malformed", "true", "false", "unclear"]

_HEXADECIMAL = re.compile(r"(-?)0x([01])\.([0-9a-f]{1,13})p([+-]\d+)")


class MalformedError(Exception):
    """What is written is no statement."""


class UnclearError(Exception):
    """The oracle cannot decide."""


class Jet:
    """A number with its first and second derivatives by P variables."""

    def __init__(self, value: arb, slope: arb_mat, bend: arb_mat) -> None:
        self.value, self.slope, self.bend = value, slope, bend

    @staticmethod
    def constant(value: arb, size: int) -> Jet:
        return Jet(value, arb_mat(size, 1), arb_mat(size, size))

    @staticmethod
    def variable(value: arb, place: int, size: int) -> Jet:
        jet = Jet.constant(value, size)
        jet.slope[place, 0] = arb(1)
        return jet

    def __add__(self, other: Jet) -> Jet:
        return Jet(self.value + other.value, self.slope + other.slope, self.bend + other.bend)

    def times(self, factor: arb) -> Jet:
        return Jet(self.value * factor, self.slope * factor, self.bend * factor)

    def __mul__(self, other: Jet) -> Jet:
        cross = self.slope * other.slope.transpose()
        bend = self.bend * other.value + other.bend * self.value + cross + cross.transpose()
        return Jet(self.value * other.value, self.slope * other.value + other.slope * self.value, bend)

    def through(self, value: arb, first: arb, second: arb) -> Jet:
        """A function of this number, of which value and derivatives are given."""
        outer = self.slope * self.slope.transpose()
        return Jet(value, self.slope * first, self.bend * first + outer * second)


def total(jets: Sequence[Jet]) -> Jet:
    result = jets[0]
    for jet in jets[1:]:
        result = result + jet
    return result


def derivatives(activation: str | Pieces, z: arb) -> tuple[arb, arb, arb]:
    """σ, σ′ and σ″ over a ball."""
    if activation == "tanh":
        slope = 1 / z.cosh() ** 2
        return z.tanh(), slope, -2 * z.tanh() * slope
    if activation in ("sigmoid", "softplus"):
        logistic = 1 / (1 + (-z).exp())
        slope = 1 / (2 + 2 * z.cosh())
        if activation == "softplus":
            return z.exp().log1p(), logistic, slope
        return logistic, slope, -(z / 2).tanh() * slope
    if isinstance(activation, str):
        raise MalformedError(f"no activation {activation}")
    slope, shift = piece_at(activation, z)
    return slope * z + shift, slope, arb(0)


def piece_at(table: Pieces, z: arb) -> Numbers:
    """Slope and intercept of the piece in which a ball lies."""
    for low, high, slope, shift in table:
        if low < z < high:
            return [slope, shift]
    raise UnclearError("a kink")


class Problem:
    """A risk: its data, and its derivatives by the parameters, neuron by neuron with the bias last."""

    def __init__(
        self, loss: str, activations: list[str | Pieces], inputs: list[Numbers], targets: list[Numbers]
    ) -> None:
        self.loss, self.activations, self.inputs, self.targets = loss, activations, inputs, targets

    def outputs(self, layers: list[list[list[Jet]]], x: Numbers, shift: Callable[[int, list[Jet]], list[Jet]]) -> Any:
        """Of one sample; `shift` may change the pre-activations of a layer."""
        size = layers[0][0][0].slope.nrows()
        features = [Jet.constant(value, size) for value in x]
        for level, rows in enumerate(layers):
            if any(len(row) != len(features) + 1 for row in rows) or not rows:
                raise MalformedError("a row of another length")
            z = shift(level, [total([row[-1], *(w * f for w, f in zip(row, features))]) for row in rows])
            if level == len(layers) - 1:
                return z
            features = [jet.through(*derivatives(self.activations[level], jet.value)) for jet in z]
        raise MalformedError("no layer")

    def loss_of(self, z: list[Jet], y: Numbers) -> Jet:
        if len(y) != len(z):
            raise MalformedError("targets of another length")
        size = z[0].slope.nrows()
        if self.loss == "squared error":
            errors = [jet + Jet.constant(-target, size) for jet, target in zip(z, y)]
            return total([error * error for error in errors])
        grown = [jet.through(jet.value.exp(), jet.value.exp(), jet.value.exp()) for jet in z]
        mass = total(grown)
        logarithm = mass.through(mass.value.log(), 1 / mass.value, -1 / mass.value**2)
        return total([logarithm, *(jet.times(-target) for jet, target in zip(z, y))])

    def risk(self, layers: Layers) -> Jet:
        """The mean loss, with its derivatives by all parameters."""
        size, place, rows_of = sum(len(row) for rows in layers for row in rows), 0, []
        for rows in layers:
            rows_of.append([])
            for row in rows:
                rows_of[-1].append([Jet.variable(value, place + j, size) for j, value in enumerate(row)])
                place += len(row)
        losses = [
            self.loss_of(self.outputs(rows_of, x, lambda level, z: z), y) for x, y in zip(self.inputs, self.targets)
        ]
        return total(losses).times(arb(1) / len(losses))

    def features(self, layers: Layers, level: int) -> list[Numbers]:
        """What layer `level` reads at each sample, with a one at the end."""
        found = []
        for x in self.inputs:
            features = [*x, arb(1)]
            for rows, activation in zip(layers[:level], self.activations):
                z = [sum((w * f for w, f in zip(row, features)), arb(0)) for row in rows]
                features = [*(derivatives(activation, value)[0] for value in z), arb(1)]
            found.append(features)
        return found

    def errors(self, layers: Layers, level: int) -> list[Numbers]:
        """The derivatives of the risk by the pre-activations of layer `level` at each sample."""
        width, found = len(layers[level]), []
        constants = [[[Jet.constant(value, width) for value in row] for row in rows] for rows in layers]

        def shift(at: int, z: list[Jet]) -> list[Jet]:
            if at != level:
                return z
            return [jet + Jet.variable(arb(0), j, width) for j, jet in enumerate(z)]

        for x, y in zip(self.inputs, self.targets):
            slope = self.loss_of(self.outputs(constants, x, shift), y).slope
            found.append([slope[j, 0] / len(self.inputs) for j in range(width)])
        return found


def inertia(matrix: arb_mat) -> tuple[int, int]:
    """How many eigenvalues of a regular symmetric matrix are negative and positive: Sylvester's law of GMGᵀ.

    G is a random matrix of determinant one, so that elimination meets no pivot that vanishes by structure.
    """
    n, draw, negative = matrix.nrows(), random.Random(0), 0
    G = arb_mat(n, n, [(i == j) + (i > j) * draw.randrange(-8, 9) / 8 for i in range(n) for j in range(n)])
    G = G * arb_mat(n, n, [(i == j) + (i < j) * draw.randrange(-8, 9) / 8 for i in range(n) for j in range(n)])
    rows = (G * matrix * G.transpose()).tolist()
    for k in range(n):
        best = max(range(k, n), key=lambda i: float(abs(rows[i][i]).mid()))
        rows[k], rows[best] = rows[best], rows[k]
        for row in rows:
            row[k], row[best] = row[best], row[k]
        pivot = rows[k][k]
        if not (pivot > 0 or pivot < 0):
            raise UnclearError("a pivot may be zero")
        negative += bool(pivot < 0)
        for i in range(k + 1, n):
            factor = rows[i][k] / pivot
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k])]
    return negative, n - negative


def largest(values: Any) -> arb:
    """The largest absolute value, an upper bound."""
    return arb(max((abs(value).upper() for value in values), key=float))


def ball(middle: arb, radius: arb) -> arb:
    return middle + arb(0, 1) * radius


def parts(layers: Layers) -> Numbers:
    return [value for rows in layers for row in rows for value in row]


def shaped(values: Numbers, like: Layers) -> Layers:
    remaining = iter(values)
    return [[[next(remaining) for _ in row] for row in rows] for rows in like]


def block(matrix: arb_mat, kept: Sequence[int]) -> arb_mat:
    return arb_mat(len(kept), len(kept), [matrix[i, j] for i in kept for j in kept])


# What a certificate says


def number(text: Any) -> arb:
    """A hexadecimal float of the format, exactly, whatever Python's reader would round."""
    match = _HEXADECIMAL.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise MalformedError(f"{text} is no number of the format")
    sign, whole, digits, exponent = match.groups()
    value = arb(int(whole + digits, 16)) * arb(2) ** (int(exponent) - 4 * len(digits))
    return -value if sign else value


def numbers(value: Any, depth: int) -> Any:
    if depth == 0:
        return number(value)
    if not isinstance(value, list) or not value:
        raise MalformedError("a list is missing")
    return [numbers(each, depth - 1) for each in value]


def whole(value: Any, end: int) -> int:
    if type(value) is not int or not 0 <= value < end:
        raise MalformedError(f"{value} is no index below {end}")
    return value


def pieces(value: Any) -> Pieces:
    table: Pieces = numbers(value, 2)
    ends = [end for piece in table for end in piece[:2]]
    if any(len(piece) != 4 for piece in table) or any(b < a for a, b in zip(ends, ends[1:])):
        raise MalformedError("pieces out of order")
    return table


def judge(text: str) -> Verdict:
    """What the statement of a certificate is: no statement at all, true, false, or not for this oracle to decide."""
    try:
        found = _truth(json.loads(text))
    except (MalformedError, KeyError, TypeError, AttributeError, json.JSONDecodeError):
        return "malformed"
    except (UnclearError, ZeroDivisionError):
        return "unclear"
    return "unclear" if found is None else "true" if found else "false"


def _all(*answers: bool | None) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def _least(value: arb, bound: arb) -> bool | None:
    """Whether value ≤ bound."""
    return True if value <= bound else False if value > bound else None


def _truth(document: dict[str, Any]) -> bool | None:
    keys = {"loss", "activations", "inputs", "targets", "layers", "radius", "inertia", "risk", "sha256"}
    more = document.keys() - keys
    if more not in (set(), {"lift"}, {"split"}) or document["loss"] not in ("squared error", "cross-entropy"):
        raise MalformedError("other keys, or another loss")
    inputs, targets, layers = (
        numbers(document[key], depth) for key, depth in (("inputs", 2), ("targets", 2), ("layers", 3))
    )
    if len(inputs) != len(targets) or len({*map(len, inputs)}) > 1 or len({*map(len, targets)}) > 1:
        raise MalformedError("samples of different lengths")
    if not isinstance(document["activations"], list) or len(document["activations"]) != len(layers) - 1:
        raise MalformedError("activations of another number")
    activations = [a if isinstance(a, str) else pieces(a) for a in document["activations"]]
    entropy = document["loss"] == "cross-entropy"
    if entropy and any(sum(y, arb(0)) != 1 for y in targets):
        raise MalformedError("targets that do not add up")
    claimed = document["inertia"]
    if not isinstance(claimed, list) or any(type(count) is not int for count in claimed) or len(claimed) != 3:
        raise MalformedError("no inertia")
    ends = numbers(document["risk"], 1)
    if len(ends) != 2:
        raise MalformedError("no interval")
    problem, radius = Problem(document["loss"], activations, inputs, targets), number(document["radius"])
    fixed = len(layers[-1][-1]) if entropy else 0
    there, point, counts = _critical(problem, layers, radius, fixed)
    if point is None:
        return there
    value = problem.risk(point).value
    there = _all(there, _least(ends[0], value), _least(value, ends[1]))
    if "lift" in document:
        found = lifted(problem, point, counts, document["lift"])
    elif "split" in document:
        found = split(problem, point, counts, fixed, document["split"])
    else:
        found = (True, counts)
    return _all(there, found[0], None if found[1] is None else found[1] == claimed)


def _critical(
    problem: Problem, layers: Layers, radius: arb, fixed: int
) -> tuple[bool | None, Layers | None, list[int]]:
    """Whether the box holds exactly one critical point, and one, inside or not, in a tiny box with its inertia."""
    if not radius > 0:
        return False, None, []
    centre = parts(layers)
    free = range(len(centre) - fixed)
    if not free:
        return False, None, []

    def at(values: Numbers) -> tuple[arb_mat, arb_mat]:
        jet = problem.risk(shaped(values, layers))
        return arb_mat(len(free), 1, [jet.slope[i, 0] for i in free]), block(jet.bend, free)

    def boxed(values: Numbers, side: arb) -> Numbers:
        return [ball(v, side) if i < len(free) else v for i, v in enumerate(values)]

    def spread(inverse: arb_mat, values: Numbers) -> arb:
        H = at(values)[1]
        product = inverse * H
        return largest(sum((abs((1 if i == j else 0) - product[i, j]) for j in free), arb(0)) for i in free)

    gradient, H = at(centre)
    inverse = H.mid().inv().mid()
    moves = inverse * gradient
    try:
        gap = spread(inverse, boxed(centre, radius))
    except UnclearError:
        gap = arb("inf")
    outside = any(abs(moves[i, 0]) > radius * (1 + gap) for i in free)
    if outside:
        return False, None, []
    values = list(centre)
    for _ in range(12):
        slope, bend = at(values)
        step = bend.mid().solve(slope.mid())
        values = [(v - step[i, 0]).mid() if i < len(free) else v for i, v in enumerate(values)]
        if largest(step.entries()) < arb(2) ** -250:
            break
    else:
        raise UnclearError("Newton's method does not settle")
    tiny = arb(2) ** -200
    slope, bend = at(values)
    inverse_there = bend.mid().inv().mid()
    gap_there = spread(inverse_there, boxed(values, tiny))
    if not largest((inverse_there * slope).entries()) + gap_there * tiny < tiny:
        raise UnclearError("no proof of the point")
    point = boxed(values, tiny)
    counts = list(inertia(at(point)[1]))
    inside = [_least(abs(point[i] - centre[i]), radius) for i in free]
    if None in inside:
        raise UnclearError("at the edge of the box")
    if False in inside:
        # Another one might be in the box, unless the gradient is injective on a box that holds both.
        reach = radius + largest([a - b for a, b in zip(point, centre)])
        return (False if spread(inverse, boxed(centre, reach)) < 1 else None), None, []
    unique = True if gap < 1 else None
    return unique, shaped(point, layers), [counts[0], fixed, counts[1]]


Found = tuple[bool | None, list[int] | None]


def lifted(problem: Problem, point: Layers, counts: list[int], lift: dict[str, Any]) -> Found:
    """Whether the lifted point is near, and the inertia there."""
    if lift.keys() - {"spare"} != {"position", "pieces", "A", "B", "rows", "distance"}:
        raise MalformedError("another lift")
    position, sigma = whole(lift["position"], len(point)), pieces(lift["pieces"])
    A, B, distance = numbers(lift["A"], 2), numbers(lift["B"], 2), number(lift["distance"])
    F, W = problem.features(point, position), point[position]
    k, m, p = len(A), len(F[0]) - 1, len(W)
    if any(len(row) != m + 1 for row in A) or any(len(row) != k + 1 for row in B) or len(B) != p:
        raise MalformedError("rows of other lengths")
    if not distance > 0:
        return False, None
    if _apart(F, W, sigma, A, B, distance):
        return False, None
    rows = [whole(row, k) for row in lift["rows"]]
    if len({*rows}) != len(rows) or len(rows) != m:
        raise MalformedError("other rows")
    maps = []
    for row in A:
        z = [sum((a * f for a, f in zip(row, features)), arb(0)) for features in F]
        (slope, shift), *others = [piece_at(sigma, value) for value in z]
        if any(other != [slope, shift] for other in others) or slope == 0:
            return None, None
        maps.append([slope * a for a in row[:-1]] + [slope * row[-1] + shift])
    matrix = arb_mat(m, m, [maps[j][t] for t in range(m) for j in rows])
    near: list[bool | None] = []
    for w, b in zip(W, B):
        missed = [w[t] - sum((b[j] * maps[j][t] for j in range(k)), arb(0)) for t in range(m + 1)]
        change = matrix.solve(arb_mat(m, 1, missed[:m]))
        last = missed[m] - b[k] - sum((change[i, 0] * maps[j][m] for i, j in enumerate(rows)), arb(0))
        near += [_least(abs(each), distance) for each in [*change.entries(), last]]
    there = True if all(near) else None
    gained = [0, k * (m + 1 + p) - p * m, 0]
    if "spare" in lift:
        spare, more = _spare(problem, point, position, F, sigma, lift["spare"], distance)
        there, gained = _all(there, spare), [a + b for a, b in zip(gained, more)]
    return there, [a + b for a, b in zip(counts, gained)]


def _apart(
    F: list[Numbers], W: list[Numbers], sigma: Pieces, A: list[Numbers], B: list[Numbers], distance: arb
) -> bool:
    """Whether no network within the distance computes what the layer should."""
    for features in F:
        values = []
        for row in A:
            z = sum((ball(a, distance) * f for a, f in zip(row, features)), arb(0))
            try:
                values.append(derivatives(sigma, z)[0])
            except UnclearError:
                return False
        for w, b in zip(W, B):
            wanted = sum((v * f for v, f in zip(w, features)), arb(0))
            found = sum((ball(c, distance) * v for c, v in zip(b, [*values, arb(1)])), arb(0))
            if not (found - wanted).contains(0):
                return True
    return False


def _spare(
    problem: Problem, point: Layers, position: int, F: list[Numbers], sigma: Pieces, spare: Any, distance: arb
) -> tuple[bool | None, list[int]]:
    if spare.keys() != {"u", "free"}:
        raise MalformedError("another spare neuron")
    u, delta = numbers(spare["u"], 1), problem.errors(point, position)
    m, p = len(F[0]) - 1, len(delta[0])
    if len(u) != m + 1:
        raise MalformedError("a spare neuron of another length")
    free = [whole(t, m + 1) for t in spare["free"]]
    if len({*free}) != len(free) or len(free) != p:
        raise MalformedError("other free weights")

    def values(weights: Numbers) -> list[tuple[arb, arb, arb]]:
        return [derivatives(sigma, sum((a * f for a, f in zip(weights, features)), arb(0))) for features in F]

    over = values([ball(v, distance) for v in u])
    sums = [sum((d[j] * v[0] for d, v in zip(delta, over)), arb(0)) for j in range(p)]
    if any(not each.contains(0) for each in sums):
        return False, [0, 0, 0]
    here = values(u)
    V = arb_mat(
        p, p, [sum((d[j] * v[1] * f[t] for d, v, f in zip(delta, here, F)), arb(0)) for j in range(p) for t in free]
    )
    rest = arb_mat(p, 1, [sum((d[j] * v[0] for d, v in zip(delta, here)), arb(0)) for j in range(p)])
    change = V.solve(rest)
    near = [_least(abs(each), distance) for each in change.entries()]
    return True if all(near) else None, [p, m + 1 - p, p]


def split(problem: Problem, point: Layers, counts: list[int], fixed: int, said: dict[str, Any]) -> Found:
    """The inertia of the split network, from its own Hessian without the directions known to be null."""
    if said.keys() != {"level", "neuron", "share"}:
        raise MalformedError("another split")
    level = whole(said["level"], len(point) - 1)
    neuron, share = whole(said["neuron"], len(point[level])), number(said["share"])
    if len(point[level + 1]) != 1:
        raise UnclearError("several outgoing weights")
    if share == 0 or share == 1:  # one copy only listens: all that is new is null
        silent = len(point[level][neuron]) + 1
        return True, [counts[0], counts[1] + silent, counts[2]]
    wide = [[list(row) for row in rows] for rows in point]
    wide[level].append(list(point[level][neuron]))
    out = wide[level + 1][0]
    out.insert(len(out) - 1, out[neuron] * (1 - share))
    out[neuron] = out[neuron] * share
    silent = sum(len(row) for rows in wide[: level + 1] for row in rows) + len(out) - 2
    jet = problem.risk(wide)
    size = jet.slope.nrows()
    kept = [i for i in range(size - fixed) if i != silent]
    negative, positive = inertia(block(jet.bend, kept))
    return True, [negative, 1 + fixed, positive]
