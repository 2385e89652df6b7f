"""Prove that a critical point lies near given floats, with its inertia and a risk interval.

The proof is Krawczyk's test, Computing 4 (1969) 187–201. It is tried with a gradient of 192 bits and the Hessian in
floats with bounds of their errors, then with all in 192 bits. What is proved becomes a file, which
`certificates.check`, a program of its own, proves again.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, arange, cat, from_numpy

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked, variable
from embedding_principle.certificates import check
from embedding_principle.certificates.enclosures import SMOOTH, affine_pieces, enclosure, known_here
from embedding_principle.certificates.intervals import Ball, Floats
from embedding_principle.risks import Risk, cross_entropy

Result = Literal["proved", "refuted", "undecided"]
Counts = tuple[int, int, int]

TOO_LARGE = "the box is too large, or the Hessian nearly singular in it"
TOO_SMALL = "the box is too small, or holds no critical point"
_Network: Any = check.Network  # without annotations
_SINGULAR = "the Hessian is singular, or no critical point is near"
_NOT_THERE = "no critical point in the box has the last output's weights and bias as at its centre"
_FACTORS = (3.0, 30.0, 1000.0)  # of the box over Newton's last step
_NEWTON_STEPS = 4
_CLEAR = 2.0**-6  # of |I − CH|: the checker has one radius for all samples, and less clear boxes are left to its test
_NEAR = 2.0**-20  # after a step as short as this the gradient is worth more digits
_SETTLED = 2.0**-50  # a step that moves no float by more than a few units is none


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was found out about the critical points in a box, or about a wider network over them.

    Attributes:
        result: "proved" (exactly one in the box), "refuted" (none in the box) or "undecided". Under cross-entropy
            "proved" says: exactly one of those with the last output's weights and bias as at the centre.
        reason: why it is not proved; empty if it is.
        inertia: (n−, n0, n+) of the Hessian at the critical point; None unless proved.
        risk: floats between which its risk lies; None unless proved.
        radius: half the side of the box; that critical point is no farther from `centre` in any coordinate.
        centre: the floats in the middle of the box.
        document: the certificate as text, which `check.py` proves again; empty unless proved.
    """

    result: Result
    reason: str
    inertia: Counts | None
    risk: tuple[float, float] | None
    radius: float
    centre: tuple[float, ...]
    document: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of one test of one box."""

    result: Result
    reason: str = ""
    inertia: Counts = (0, 0, 0)
    risk: tuple[float, float] = (0.0, 0.0)


@checked
def certify(risk: Risk, theta: Tensor, *, radius: float | None = None) -> Certificate:
    """Prove that exactly one critical point lies in a box about θ.

    Without a radius Newton's method improves θ first, and boxes of growing size are tried. A degenerate critical point,
    such as that of a network with two equal neurons, is never proved: Krawczyk's test needs a regular Hessian; see
    `irreducible`. Under cross-entropy the outputs may be shifted together, so the weights and bias of the last one are
    held fixed: exactly one point of that slice of the box is critical, and they give m_{L−1} + 1 zero eigenvalues.

    Args:
        risk: without batch normalization; the activations are tanh, sigmoid, softplus or piecewise affine.
        theta: (P,), near a critical point.
        radius: half the side of the box about θ itself, rounded down to 30 significant bits; None proposes one.

    Raises:
        ValueError: for another network or shape, a θ that is not finite, a radius that is not positive, targets of
            cross-entropy that do not add up to one exactly, or data with digits below 2^-192, which the checker cannot
            read.

    Example:
        >>> import torch
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> line = Risk(Network((1, 1)), x, torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64))
        >>> proof = certify(line, torch.tensor([0.5, 0.2], dtype=torch.float64))
        >>> proof.result, proof.inertia
        ('proved', (0, 0, 2))
    """
    theta = variable("theta", theta, (risk.network.n_parameters,))
    if not bool(theta.isfinite().all()):
        raise ValueError("theta: is not finite; give a point near a critical one")
    if radius is not None and not (math.isfinite(radius) and radius > 2.0**-150):
        raise ValueError(f"radius: must be finite and above 2^-150, got {radius}; None proposes one")
    problem = Problem(risk)
    verdict, centre, side = Verdict("undecided", _SINGULAR), _readable(theta.detach().numpy()), radius or math.nan
    with np.errstate(all="ignore"):
        for test in (problem.by_floats, problem.by_whole_numbers):
            boxes = problem.proposals(centre) if radius is None else iter([(centre, problem.short(radius))])
            for centre, side in boxes:
                verdict = test(centre, side)
                if verdict.result != "undecided" or verdict.reason == _NOT_THERE:
                    return problem.certificate(verdict, centre, side)
    return problem.certificate(verdict, centre, side)


class Problem:
    """Krawczyk's test for one risk, in two precisions, in the checker's order of the parameters.

    Attributes:
        risk: what the certificate is about.
        document: the part of it that says so.
        order: of each parameter in the checker's order, neuron by neuron with the bias last, its place in θ.
        fixed: how many of the last of them are held fixed: under cross-entropy those of the last output.
        free: the places of the others.

    Raises:
        ValueError: if the risk cannot be certified; see `certify`.
    """

    def __init__(self, risk: Risk) -> None:
        """The problem of certifying critical points of this risk."""
        self.risk = risk
        places = risk.network.layers(arange(float(risk.network.n_parameters)))
        self.order = cat([layer.incoming.flatten() for layer in places]).long().numpy()
        self.fixed = risk.network.widths[-2] + 1 if risk.loss is cross_entropy else 0
        self.free = self.order[: len(self.order) - self.fixed]
        if not len(self.free):
            raise ValueError("risk: with one output cross-entropy is constant, and nothing is left to certify")
        self.document: dict[str, Any] = {
            "loss": risk.loss.name,
            "activations": [self.described(activation) for activation in risk.network.activations],
            "inputs": self.texts(risk.inputs, "inputs"),
            "targets": self.texts(risk.targets, "targets"),
        }
        sums = {sum(map(check.read, row)) for row in self.document["targets"]}
        if risk.loss is cross_entropy and sums != {check.ONE}:
            raise ValueError(
                "targets: rows must add up to one exactly to be certified; round all entries but the last of a row to "
                "multiples of 2^-40, say, and let the last be the rest"
            )
        self._given: list[Any] = [self.document["loss"], self.document["activations"]]
        for key in ("inputs", "targets"):
            columns = zip(*self.document[key])
            self._given.append([check.Ball([check.read(text) for text in column]) for column in columns])

    @staticmethod
    def described(activation: Activation) -> str | list[list[str]]:
        """An activation as certificates write it: its name, or its affine pieces."""
        if activation.name in SMOOTH and known_here(activation):
            return activation.name
        return [[float(number).hex() for number in piece] for piece in affine_pieces(activation)]

    @staticmethod
    def texts(table: Tensor, name: str) -> list[list[str]]:
        """Rows of floats in hexadecimal; a ValueError, under this name, for digits below 2^-192."""
        rows = [[float(value).hex() for value in row] for row in table]
        try:
            [check.read(text) for row in rows for text in row]
        except ValueError:
            raise ValueError(f"{name}: has digits below 2^-192, which certificates do not hold; scale it") from None
        return rows

    @staticmethod
    def short(side: float) -> float:
        """A positive number rounded down to 30 significant bits, so that no digit is below the checker's last unit."""
        fraction, exponent = math.frexp(side)
        return math.ldexp(math.floor(math.ldexp(fraction, 30)), exponent - 30)

    def proposals(self, centre: Floats) -> Iterator[tuple[Floats, float]]:
        """Newton's method from the centre, then boxes of several sizes over the size of what is left."""
        size = math.inf
        for left in range(_NEWTON_STEPS, -1, -1):
            there, near = enclosure(self.risk, Ball(centre)), left <= 1 or size < _NEAR
            inverse = self._free(there.hessian()).near_inverse()
            if inverse is None:
                return
            step = Ball(inverse) @ (self._exact_gradient(centre) if near else there.gradient[self.free])
            size = float(step.magnitude().max(initial=0.0))
            if not size < 1.0:
                return
            if size < _SETTLED * (1 + abs(centre).max()) and near:
                break
            if left:
                centre = centre.copy()
                centre[self.free] -= step.middle
                centre = _readable(centre)
        for factor in _FACTORS:
            yield centre, self.short(factor * size + 2.0**-100)

    def _exact_gradient(self, centre: Floats) -> Ball:
        """The gradient by the checker's arithmetic, rounded at the end: ill-conditioned points need it."""
        exact = _Network(*self._given, self._layers(centre)).gradient
        middle = np.array([_in_floats(ball.m[0]) for ball in exact])
        radius = np.array([_in_floats(ball.r + 1) for ball in exact])
        return Ball(middle, radius * (1 + 2.0**-50) + abs(middle) * 2.0**-52)

    def _free(self, hessian: Ball) -> Ball:
        """The rows and columns of the parameters that are not held fixed."""
        return hessian[np.ix_(self.free, self.free)]

    def _layers(self, centre: Floats) -> list[list[list[int]]]:
        return [[[check.read(text) for text in row] for row in rows] for rows in self.layer_texts(centre)]

    def layer_texts(self, centre: Floats) -> list[list[list[str]]]:
        """θ as certificates write it: layer by layer, for each neuron its weights and bias."""
        return [self.texts(layer.incoming, "theta") for layer in self.risk.network.layers(from_numpy(centre))]

    def by_floats(self, centre: Floats, side: float) -> Verdict:
        """The test in floats with bounds of their errors, but for the gradient."""
        over = enclosure(self.risk, Ball(centre, side))
        hessian = self._free(over.hessian())
        inverse = hessian.near_inverse()
        if inverse is None:
            return Verdict("undecided", TOO_LARGE)
        newton = Ball(inverse) @ self._exact_gradient(centre)
        spread = (np.eye(len(inverse)) - Ball(inverse) @ hessian).norm()
        if bool((newton.least() > side * (1 + spread) * (1 + 2.0**-50)).any()):
            # Under cross-entropy only points with the last output as at the centre are looked at.
            return (
                Verdict("undecided", _NOT_THERE) if self.fixed else Verdict("refuted", "no critical point in the box")
            )
        if not spread < _CLEAR:
            return Verdict("undecided", TOO_LARGE)
        if not float(newton.magnitude().max()) < side * (1 - spread) * (1 - 2.0**-50):
            return Verdict("undecided", TOO_SMALL)
        negative = hessian.negative_directions()
        if negative is None:
            return Verdict("undecided", "the signs of the eigenvalues are not clear in floats")
        return self._proved(negative, float(over.risk.middle), float(over.risk.radius))

    def by_whole_numbers(self, centre: Floats, side: float) -> Verdict:
        """The test as the checker makes it."""
        layers = self._layers(centre)
        try:
            box = _Network(*self._given, layers, check.read(side.hex()))
            negative, reach = check.solved(box.hessian(), [_Network(*self._given, layers).gradient])
        except ValueError as error:
            return Verdict("undecided", str(error).removeprefix("undecided: "))
        if reach >= check.read(side.hex()):
            return Verdict("undecided", TOO_SMALL)
        return self._proved(negative, _in_floats(box.risk.m[0]), _in_floats(box.risk.r + 1))

    def _proved(self, negative: int, risk: float, radius: float) -> Verdict:
        # The checker's radii are those of the least certain sample, so it is given room.
        room = 16 * radius + 2.0**-50 * abs(risk) + 2.0**-150
        ends = _rounded(risk - room, math.floor), _rounded(risk + room, math.ceil)
        if not all(map(math.isfinite, ends)):
            return Verdict("undecided", "the risk overflows float64")
        return Verdict("proved", "", (negative, self.fixed, len(self.free) - negative), ends)

    def certificate(self, verdict: Verdict, centre: Floats, side: float) -> Certificate:
        """The verdict as a user gets it."""
        where = (side, tuple(map(float, centre)))
        if verdict.result != "proved":
            return Certificate(verdict.result, verdict.reason, None, None, *where, "")
        said = {"inertia": list(verdict.inertia), "risk": [end.hex() for end in verdict.risk]}
        where_texts = {"layers": self.layer_texts(centre), "radius": side.hex()}
        text = check.sealed(self.document | where_texts | said)
        return Certificate("proved", "", verdict.inertia, verdict.risk, *where, text)


def _in_floats(units: int) -> float:
    """Units of the checker as a float, infinite where it overflows."""
    try:
        return units / check.ONE
    except OverflowError:
        return math.inf


def _readable(values: Floats) -> Floats:
    """Floats without digits below 2^-185, which the checker reads exactly."""
    unit = 2.0**-185
    readable: Floats = np.where(abs(values) < 2.0**-120, np.round(values / unit) * unit, values)
    return readable


def _rounded(value: float, towards: Callable[[float], int]) -> float:
    """A number near zero rounded to whole multiples of 2^-180, which the checker reads."""
    return math.ldexp(towards(math.ldexp(value, 180)), -180) if abs(value) < 2.0**-120 else value
