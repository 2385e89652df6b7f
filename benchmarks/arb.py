"""Krawczyk's test as a user of python-flint would write it: arb_mat for every product, arb for every number.

python-flint comes with the extra `test`. It is for tanh networks with the squared error.
"""

from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import NDArray

from embedding_principle.risks import Risk

Floats = NDArray[np.float64]


class Passes:
    """A network over a box of parameters, with `bits` of precision."""

    def __init__(self, risk: Risk, centre: Floats, side: float, bits: int) -> None:
        ctx.prec = bits
        spread = arb(0, side) if side else arb(0)
        theta, start = [arb(float(value)) + spread for value in centre], 0
        self.n, self.size = len(risk.inputs), len(centre)
        self.weights, self.features, self.slopes, self.bends = [], [matrix(risk.inputs.tolist())], [], []
        for fan, out in zip(risk.network.widths, risk.network.widths[1:]):
            weight, bias = arb_mat(out, fan, theta[start : start + out * fan]), theta[start + out * fan :][:out]
            start += out * (fan + 1)
            self.weights.append(weight)
            z = self.features[-1] * weight.transpose() + arb_mat(self.n, out, bias * self.n)
            if len(self.weights) < risk.network.depth:
                value = each(z, arb.tanh)
                slope = each(value, lambda t: 1 - t * t)
                self.slopes.append(slope)
                self.bends.append(pairwise(value, slope, lambda t, s: -2 * t * s))
                self.features.append(value)
        delta = (z - matrix(risk.targets.tolist())) * (arb(2) / self.n)
        self.deltas = [delta]
        for level in reversed(range(len(self.slopes))):
            seen = self.deltas[0] * self.weights[level + 1]
            self.bends[level] = pairwise(seen, self.bends[level], arb.__mul__)
            self.deltas.insert(0, pairwise(seen, self.slopes[level], arb.__mul__))

    def gradient(self) -> arb_mat:
        """By all parameters, (P, 1)."""
        ones = arb_mat(1, self.n, [1] * self.n)
        parts = [((d.transpose() * f).entries(), (ones * d).entries()) for d, f in zip(self.deltas, self.features)]
        return arb_mat(self.size, 1, list(chain(*chain(*parts))))

    def hessian(self) -> arb_mat:
        """Σ J′DJ + S + S′, (P, P)."""
        start, zero = 0, arb(0)
        total, mixed = arb_mat(self.size, self.size), []
        before = arb_mat(self.n, self.features[0].ncols() * self.size)
        for level, weight in enumerate(self.weights):
            out, fan = weight.nrows(), weight.ncols()
            mixed += (self.deltas[level].transpose() * before).entries() + [zero] * (out * self.size)
            rows, lines, features = [], before.tolist(), self.features[level].tolist()
            for line, feature in zip(lines, features):
                for j, row in enumerate((weight * arb_mat(fan, self.size, line)).tolist()):
                    row[start + j * fan : start + (j + 1) * fan] = feature
                    row[start + out * fan + j] = arb(1)
                    rows.append(row)
            jacobian = arb_mat(rows)
            if level < len(self.bends):
                total += scaled(rows, self.bends[level]).transpose() * jacobian
                before = arb_mat(self.n, out * self.size, scaled(rows, self.slopes[level]).entries())
            else:
                total += jacobian.transpose() * jacobian * (arb(2) / self.n)
            start += out * (fan + 1)
        half = arb_mat(self.size, self.size, mixed)
        return total + half + half.transpose()


def matrix(rows: Iterable[Iterable[float]]) -> arb_mat:
    return arb_mat([[arb(value) for value in row] for row in rows])


def each(values: arb_mat, function: Callable[[arb], arb]) -> arb_mat:
    return arb_mat(values.nrows(), values.ncols(), list(map(function, values.entries())))


def pairwise(left: arb_mat, right: arb_mat, function: Callable[[arb, arb], arb]) -> arb_mat:
    return arb_mat(left.nrows(), left.ncols(), list(map(function, left.entries(), right.entries())))


def scaled(rows: list[list[arb]], factors: arb_mat) -> arb_mat:
    return arb_mat([[factor * value for value in row] for row, factor in zip(rows, factors.entries())])


def floats(values: arb_mat) -> Floats:
    return np.array([[float(value) for value in row] for row in values.mid().tolist()])


def largest(rows: Iterable[Iterable[arb]]) -> float:
    """An upper bound of all row sums of absolute values."""
    return max(float(sum(map(abs, row), arb(0)).upper()) for row in rows) * (1 + 2.0**-50)


def krawczyk(risk: Risk, centre: Floats, side: float, *, bits: int, gradient_bits: int) -> int | None:
    """How many eigenvalues of the Hessian at the one critical point in the box are negative; None without a proof."""
    gradient = Passes(risk, centre, 0.0, gradient_bits).gradient()
    hessian = Passes(risk, centre, side, bits).hessian()
    near = floats(hessian)
    inverse = matrix(np.linalg.inv(near).tolist())
    product = (inverse * hessian).tolist()
    for i, row in enumerate(product):
        row[i] = row[i] - 1
    spread = largest(product)
    if not (spread < 1 and largest((inverse * gradient).tolist()) < side * (1 - spread) * (1 - 2.0**-50)):
        return None
    values, vectors = np.linalg.eigh(near)
    V = matrix((vectors / np.sqrt(abs(values))).tolist())
    form = (V.transpose() * matrix(near.tolist()) * V).tolist()
    if any(2 * abs(row[i]).lower() <= sum(map(abs, row), arb(0)).upper() for i, row in enumerate(form)):
        return None
    return sum(bool(row[i] < 0) for i, row in enumerate(form))
