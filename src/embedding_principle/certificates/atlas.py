"""Every critical point of a tanh(w x + b) + d under the mean squared error, over the whole parameter space.

The data are targets y on an equidistant grid, which an affine map of (w, b) makes 0, 1, …, n − 1. Let their regression
slope not be zero.

**Theorem.** If the atlas has no undecided box or zero, the critical points of the risk are (1) its `points`, each with
its mirror image (−w, −b, −a, d), and (2) the set C = {a = 0, d = ȳ, M(w, b) = 0}, M = Σ (y_j − ȳ) tanh(w j + b), which
is a smooth curve (of one or more branches) of strict saddles with inertia (1, 1, 2) and the risk of the constant ȳ.

*Proof.* A point with w = 0 computes a constant. There ∂R/∂d = 0 makes it ȳ, and ∂R/∂w = 0 reads
a (1 − tanh² b) Σ (y_j − ȳ) j = 0, so a = 0; M = 0 for all b. Points with w < 0 are mirror images. Let w > 0. If a = 0,
then d = ȳ and M = 0, and every such point is critical. If a ≠ 0, the derivatives by a and d make e the residual of the
regression on 1 and tanh(w j + b), and those by w and b vanish if and only if e is orthogonal to the derivatives of that
feature, or of another one with the same span: φ = α tanh + β with functions α ≠ 0, β of (w, b) has
φ_u − α tanh_u in that span. So (w, b) is a zero of F in every chart that holds it (`sheets`). Points of C with ∇M = 0
are zeros of F, too: their e is y − ȳ. The charts cover {w > 0} (`charts`), boxes without a zero hold none of these, and
each of the others holds at most one, which was found equal to a certified critical point with w > 0, a ≠ 0, or to lie
outside of the half-plane. So there is no point of C with ∇M = 0 and w > 0. For w = 0, M_w = (1 − tanh² b) Σ (y_j − ȳ) j
is not zero. By the implicit function theorem C is a smooth curve. At its points the Hessian by (a, u, d, t), u along ∇M
and t along C, is [[*, g, *, 0], [g, 0, 0, 0], [*, 0, 2, 0], [0, 0, 0, 0]] with g = −2 |∇M| / n: a zero along C, one
negative and one positive eigenvalue from the pair (a, u), and the Schur complement of that pair, 2 > 0. ∎

**Minimum.** The least risk over a and d is a continuous function on the compact charts. Where it is least in {w > 0}
is a critical point with a ≠ 0: a = 0 gives the risk of the constant, which straight lines undercut. So if the least
risk of the points is below that on all faces at infinity, it is the global minimum; if that on some face is below all
points, the infimum is not attained.

**Sealed "computed".** That the list is complete rests on this module, `sheets`, `charts` and what `intervals` trusts:
IEEE 754 arithmetic, NumPy with its tanh and exp, Python's integers. For one data set at a time `check_atlas.py`, a
program of the standard library alone, can prove it again, in whole numbers: see `replayable`. The points themselves
are proved by `certify`, once on the exact grid and once on the floats of the risk, and `check.py` proves both again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from embedding_principle.activations import tanh
from embedding_principle.arguments import checked, whole
from embedding_principle.certificates import check_atlas
from embedding_principle.certificates.certify import Certificate, certify
from embedding_principle.certificates.charts import Chart, charts
from embedding_principle.certificates.intervals import Ball, Floats
from embedding_principle.certificates.sheets import Sheet, Zero, conditions, explore
from embedding_principle.risks import Risk, squared_error

_UP = 1 + 2.0**-40
# Of the targets: their squares and those of the weights are floats with all digits.
_LEAST, _MOST = 1e-60, 1e60
# Of the risk's bounds at infinity over the variance of the targets.
_SHARP = 1e-10
_HALVINGS = 40


@dataclass(frozen=True, eq=False)
class Point:
    """A critical point (w, b, a, d) with w > 0 and a ≠ 0; (−w, −b, −a, d) is its mirror image.

    Attributes:
        inertia: (n−, n0, n+) of the Hessian.
        risk: floats between which its risk lies, on the exact grid.
        theta: (4,), the middle of the box of `certificate`.
        certificate: of the critical point on the risk's own floats.
        exact: of the critical point on the grid 0, 1, …, n − 1, in the coordinates of that.
        charts: in which it was found.
    """

    inertia: tuple[int, int, int]
    risk: tuple[float, float]
    theta: torch.Tensor
    certificate: Certificate
    exact: Certificate
    charts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Atlas:
    """All critical points of one tanh neuron on given data.

    Attributes:
        points: the isolated ones, each for itself and its mirror image, by risk.
        sheets: the boxes of every chart.
        undecided: boxes and zeros of which it is not known whether they belong to another critical point; if it is 0,
            the points are all.
        infinity: floats between which lies the infimum of the risk over the networks at infinity.
        face: the chart, the coordinate and its value where that infimum lies, as "cell 3, p = 0".
        minimum: whether the risk has a global minimum: "attained", "at infinity" (it has none) or "undecided".
    """

    points: tuple[Point, ...]
    sheets: tuple[Sheet, ...]
    undecided: int
    infinity: tuple[float, float]
    face: str
    minimum: Literal["attained", "at infinity", "undecided"]

    @property
    def evaluated(self) -> int:
        """How many boxes were looked at."""
        return sum(sheet.evaluated for sheet in self.sheets)

    def halvings(self, w: Floats, c: Floats) -> NDArray[np.int64]:
        """How often the box about each tanh(w (x − c)), w > 0, on the grid 0, 1, …, n − 1 was cut."""
        found = np.zeros(len(w), dtype=np.int64)
        for sheet in self.sheets:
            with np.errstate(over="ignore", invalid="ignore"):
                u, v = sheet.chart.coordinates(Ball(w), Ball(-w * c))
                kept = ~sheet.chart.beyond(np.stack([u.middle, v.middle], 1), np.zeros((len(w), 2)))
                cut = sheet.halvings(np.nan_to_num(u.middle), np.nan_to_num(v.middle))
            found = np.where(kept, np.maximum(found, cut), found)
        return found


@checked
def atlas(risk: Risk, *, depth: int = 30) -> Atlas:
    """All critical points of a risk of one tanh neuron, on the exact equidistant grid next to its inputs.

    Args:
        risk: of the squared error of the network (1, 1, 1) with tanh, on equidistant inputs in increasing order.
        depth: how often a side of a chart may be halved before a box is undecided, from 3 to 45.

    Raises:
        ValueError: for another risk, fewer than 5 samples, inputs that are not equidistant, or targets that are very
            large or small or have the regression slope zero.

    Example:
        >>> from embedding_principle.datasets import one_dimensional
        >>> from embedding_principle.networks import Network
        >>> data = one_dimensional("sin", n=8)
        >>> found = atlas(Risk(Network.uniform((1, 1, 1), tanh), data.inputs, data.targets))
        >>> found.undecided, found.minimum, [point.inertia for point in found.points]
        (0, 'attained', [(0, 0, 4)])
    """
    depth = whole("depth", depth, 3, 45)
    grid = _on_grid(risk)
    targets = _centred(grid.targets)
    sheets = tuple(explore(chart, targets, depth) for chart in charts(len(grid.targets)))
    points, unclear = _identified(risk, grid, sheets)
    undecided = unclear + sum(int((sheet.verdict == 3).sum()) for sheet in sheets)
    infinity, face = _at_infinity([sheet.chart for sheet in sheets], targets)
    least = min((point.risk for point in points), default=(math.inf, math.inf))
    minimum: Literal["attained", "at infinity", "undecided"] = "undecided"
    if undecided == 0 and least[1] < infinity[0]:
        minimum = "attained"
    if undecided == 0 and infinity[1] < least[0]:
        minimum = "at infinity"
    return Atlas(points, sheets, undecided, infinity, face, minimum)


@checked
def replayable(found: Atlas, risk: Risk) -> str:
    """A file by which `check_atlas.py`, a program of the standard library alone, proves the list to be complete again.

    Args:
        found: an atlas without undecided boxes.
        risk: that of the atlas.

    Raises:
        ValueError: if the atlas has undecided boxes or zeros.

    Example:
        >>> from embedding_principle.datasets import one_dimensional
        >>> from embedding_principle.networks import Network
        >>> data = one_dimensional("wave", n=6)
        >>> steps = Risk(Network.uniform((1, 1, 1), tanh), data.inputs, data.targets)
        >>> check_atlas.verify(replayable(atlas(steps), steps))
        0
    """
    if found.undecided:
        raise ValueError(f"found: {found.undecided} boxes or zeros are undecided; raise the depth of the atlas")
    zeros = {
        sheet.chart.name: [
            [float(value).hex() for value in (*zero.alone.middle, *zero.alone.radius)] for zero in sheet.zeros
        ]
        for sheet in found.sheets
    }
    text: str = check_atlas.sealed(
        {
            "statement": check_atlas.STATEMENT,
            "targets": [float(value).hex() for value in risk.targets.flatten()],
            "trees": {sheet.chart.name: sheet.tree() for sheet in found.sheets},
            "zeros": zeros,
        }
    )
    return text


def _on_grid(risk: Risk) -> Risk:
    """The same targets at 0, 1, …, n − 1."""
    network, inputs = risk.network, risk.inputs
    if network.widths != (1, 1, 1) or network.activations != (tanh,) or network.batch_norm_epsilon is not None:
        raise ValueError(f"risk: the atlas is one of the network (1, 1, 1) with tanh, got {network}")
    if risk.loss is not squared_error:
        raise ValueError(f"risk: the atlas is one of the squared error, got {risk.loss.name}; take risks.squared_error")
    n = len(inputs)
    if n < 5:
        raise ValueError(f"risk: has {n} samples, not more than parameters; give 5 or more")
    given = [Fraction(float(value)) for value in inputs[:, 0]]
    spacing = (given[-1] - given[0]) / (n - 1)
    # Ways to compute equidistant points differ by some units in the last place.
    slack = spacing / 2**36
    if not (spacing > 0 and all(abs(value - given[0] - j * spacing) <= slack for j, value in enumerate(given))):
        raise ValueError("risk: the atlas needs equidistant inputs in increasing order; sort or resample them")
    return Risk(network, torch.arange(n, dtype=torch.float64)[:, None], risk.targets)


def _centred(targets: torch.Tensor) -> Ball:
    """Enclosures, (n, 1), of the targets without their mean, if their regression slope is not zero."""
    exact = [Fraction(float(value)) for value in targets[:, 0]]
    mean = sum(exact, Fraction(0)) / len(exact)
    spread = max(abs(value - mean) for value in exact)
    if not _LEAST < spread < _MOST:
        raise ValueError(f"risk: the targets are up to {float(spread):.0e} from their mean; scale them to about 1")
    if sum(j * (value - mean) for j, value in enumerate(exact)) == 0:
        raise ValueError("risk: the regression slope of the targets is zero, which the theorem excludes; move one")
    middle = np.array([float(value - mean) for value in exact])
    return Ball(middle, abs(middle) * 2.0**-52 + 1e-300).reshape(-1, 1)


def _identified(risk: Risk, grid: Risk, sheets: tuple[Sheet, ...]) -> tuple[tuple[Point, ...], int]:
    """The critical points that are the zeros, and how many zeros could not be told."""
    known: list[tuple[Certificate, list[str]]] = []
    unclear = 0
    for sheet in sheets:
        for zero in sheet.zeros:
            if sheet.chart.within(zero.sharp[0], zero.sharp[1]) == "outside":
                continue
            same = [charts for proof, charts in known if _is_zero(proof, sheet.chart, zero)]
            if same:
                same[0].append(sheet.chart.name)
                continue
            proof = _proposed(sheet.chart, zero, grid)
            if not _is_zero(proof, sheet.chart, zero) or not all(_apart(proof, other) for other, _ in known):
                unclear += 1
                continue
            known.append((proof, [sheet.chart.name]))
    points = [_point(risk, proof, names) for proof, names in known]
    sound = [point for point in points if point is not None]
    return tuple(sorted(sound, key=lambda point: point.risk)), unclear + len(points) - len(sound)


def _proposed(chart: Chart, zero: Zero, grid: Risk) -> Certificate:
    """What can be proved about a critical point where the zero should be."""
    u, v = (float(value) for value in zero.sharp.middle)
    w, b = chart.half_plane(u, v) if chart.within(Ball(u), Ball(v)) == "inside" else (0.0, 0.0)
    outputs = torch.tanh(w * grid.inputs + b)
    fit = torch.linalg.lstsq(torch.cat([outputs, torch.ones_like(outputs)], 1), grid.targets).solution[:, 0]
    return certify(grid, torch.tensor([w, b, float(fit[0]), float(fit[1])], dtype=torch.float64))


def _is_zero(proof: Certificate, chart: Chart, zero: Zero) -> bool:
    """Whether the certified critical point is this zero: it has w > 0, a ≠ 0 and lies where there is only one zero."""
    w, b, a, _ = (Ball(value, proof.radius) for value in proof.centre)
    if not (proof.result == "proved" and w.middle > 0 and w.least() > 0 and a.least() > 0):
        return False
    pairs = zip(chart.coordinates(w, b), zero.alone.middle, zero.alone.radius)
    return all(bool((place - middle).magnitude() < radius) for place, middle, radius in pairs)


def _apart(first: Certificate, second: Certificate) -> bool:
    distance = abs(np.array(first.centre) - np.array(second.centre))
    return bool(distance.max() > (first.radius + second.radius) * _UP)


def _point(risk: Risk, proof: Certificate, names: list[str]) -> Point | None:
    """The point on the floats of the risk, if it is proved there with the same inertia."""
    first, last = float(risk.inputs[0]), float(risk.inputs[-1])
    w, b, a, d = proof.centre
    slope = w * (len(risk.inputs) - 1) / (last - first)
    own = certify(risk, torch.tensor([slope, b - slope * first, a, d], dtype=torch.float64))
    if proof.inertia is None or proof.risk is None or own.inertia != proof.inertia:
        return None
    theta = torch.tensor(own.centre, dtype=torch.float64)
    return Point(proof.inertia, proof.risk, theta, own, proof, tuple(dict.fromkeys(names)))


_COORDINATES = {"left": ("s", "ρ"), "right": ("s", "ρ"), "flat": ("w", "T")}


def _at_infinity(sheets: list[Chart], targets: Ball) -> tuple[tuple[float, float], str]:
    """Bounds of the infimum of the risk over all faces, and the face where it lies."""
    variance = float((targets * targets).sum(0).middle[0])
    pieces = []
    for chart in sheets:
        for fixed, value, first, last in chart.faces:
            parts = 16 if first < last else 1
            middle = first + (last - first) * (np.arange(parts) + 0.5) / parts
            pieces.append((chart, fixed, value, middle, (last - first) / parts / 2))
    best, where, floor = math.inf, "", -math.inf
    for _ in range(_HALVINGS):
        bounds = []
        for chart, fixed, value, middle, radius in pieces:
            middle, low, high = _loss_on_face(chart, fixed, value, targets, middle, radius)
            bounds.append((middle, low))
            if len(high) and high.min() < best:
                best = float(high.min())
                where = f"{chart.name}, {_COORDINATES.get(chart.name, ('p', 'q'))[fixed]} = {value:g}"
        floor = min(float(low.min()) for _, low in bounds if len(low))
        if best - floor <= _SHARP * variance:
            break
        pieces = [
            (chart, fixed, value, _halves(middle[low <= best], radius), radius / 2)
            for (chart, fixed, value, _, radius), (middle, low) in zip(pieces, bounds)
            if (low <= best).any()
        ]
    n = len(targets.middle)
    return (math.nextafter(floor / n, -math.inf), math.nextafter(best / n, math.inf)), where


def _halves(middle: Floats, radius: float) -> Floats:
    return np.concatenate([middle - radius / 2, middle + radius / 2]) if radius > 0 else middle


def _loss_on_face(
    chart: Chart, fixed: int, value: float, targets: Ball, middle: Floats, radius: float
) -> tuple[Floats, Floats, Floats]:
    """Of those pieces of a face that belong to it: the middles, lower bounds of the loss, losses there rounded up."""
    centre = np.full((len(middle), 2), value)
    centre[:, 1 - fixed] = middle
    sides = np.zeros_like(centre)
    sides[:, 1 - fixed] = radius
    kept = ~chart.beyond(centre, sides)
    centre, sides = centre[kept], sides[kept]
    points = Ball(centre[:, 0]), Ball(centre[:, 1])
    boxes = Ball(centre[:, 0], sides[:, 0]), Ball(centre[:, 1], sides[:, 1])
    with np.errstate(all="ignore"):
        at = conditions(chart.features(*points, derivatives=False), targets).loss
        over = conditions(chart.features(*boxes), targets)
        assert over.falls is not None
        slope = at - Ball(np.zeros(len(middle[kept])), over.falls[1 - fixed].magnitude() * radius * _UP)
        # fmax takes the number where the other is none; where both are none nothing is known.
        low = np.nan_to_num(np.fmax(slope.bounds()[0], over.loss.bounds()[0]), nan=-np.inf)
    return middle[kept], low, np.nan_to_num(at.bounds()[1], nan=np.inf)
