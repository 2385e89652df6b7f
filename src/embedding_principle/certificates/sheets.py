"""Branch and prune: the zeros of the conditions for a critical point, in one chart of the half-plane.

With e the residual of the regression of the targets on 1 and the feature φ, a critical point with a ≠ 0 is a zero of
F = (<e, φ_u>, <e, φ_v>), or of (<e, g_1>, <e, g_2>) where g_1 and g_2 span the same. A box with centre m and half
sides r holds no zero if 0 is not in F(m) + J [−r, r], J the interval Jacobian over the box (mean value theorem). Its
zeros lie in Krawczyk's image K = m − C F(m) + (I − C J) [−r, r], for any matrix C: none if K misses the box. If K
lies inside the box, the box holds exactly one. Where K is small, a box about K is tested, which holds all zeros of
the first one; it may reach a little beyond the chart, where the features are still analytic. Boxes are halved
exactly, in dyadic numbers. No number (NaN) and infinity fail every comparison that decides. Krawczyk, Computing 4
(1969) 187–201.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedding_principle.arguments import checked, whole
from embedding_principle.certificates import check_atlas
from embedding_principle.certificates.charts import Chart, Features
from embedding_principle.certificates.intervals import Ball, Floats

Mask = NDArray[np.bool_]
Pair = tuple[Ball, Ball]

_BATCH = 1024
_MOST = 300_000  # boxes of a chart: more mean zeros that are not isolated
_UP = 1 + 2.0**-40


@dataclass(frozen=True, eq=False)
class Conditions:
    """What vanishes at critical points with a ≠ 0, and the regression of the targets on 1 and the feature.

    Attributes:
        values: <e, g_1> and <e, g_2>, (B,).
        slopes: slopes[i][k] is the derivative of values[i] by the k-th coordinate; None where not asked for.
        outer: a, the weight of the feature.
        loss: <e, e>.
        falls: the derivatives of the loss by the coordinates; None where not asked for.
    """

    values: Pair
    slopes: tuple[Pair, Pair] | None
    outer: Ball
    loss: Ball
    falls: Pair | None


def _dot(a: Ball, b: Ball) -> Ball:
    return (a * b).sum(0)


@checked
def conditions(features: Features, targets: Ball) -> Conditions:
    """The conditions on boxes, (B,), of a chart.

    Covariances are what regression on 1 and φ leaves: a = cov(φ, y) / cov(φ, φ), <e, g> = cov(g, y) − a cov(g, φ), and
    <e, e> = cov(y, y) − a cov(φ, y), whose derivative is −2 a <e, φ_u> since e is orthogonal to 1 and φ.

    Args:
        features: of the boxes.
        targets: (n, 1), without their mean.

    Example:
        >>> from embedding_principle.certificates.charts import charts
        >>> line = charts(5)[-1].features(Ball([0.0]), Ball([0.5]))
        >>> slope = conditions(line, Ball([[-2.0], [-1.0], [0.0], [1.0], [2.0]])).outer
        >>> slope.holds(1.0)
        True
    """
    portion = Ball(1.0) / float(len(targets.middle))
    # The same span, with less overestimation.
    phi: Ball = features.value - features.value.middle.mean(0)
    total = phi.sum(0) * portion

    # No mean is subtracted where the targets add up to zero.
    def with_targets(g: Ball) -> Ball:
        return (targets.T @ g)[0]

    def with_phi(g: Ball) -> Ball:
        return _dot(phi, g) - total * g.sum(0)

    spread, common = with_phi(phi).inverse(), with_targets(phi)
    outer = common * spread
    loss = _dot(targets, targets) - common * outer
    shares = [with_phi(g) for g in features.spanning]
    values = [with_targets(g) - outer * share for g, share in zip(features.spanning, shares)]
    if features.slopes is None or features.bends is None:
        return Conditions((values[0], values[1]), None, outer, loss, None)
    moved = [(with_targets(slope), outer * with_phi(slope)) for slope in features.slopes]
    change = [(first - 2.0 * second) * spread for first, second in moved]
    left, right = (-2.0 * outer * (first - second) for first, second in moved)
    slopes = [
        [
            with_targets(bends[k]) - change[k] * share - outer * (with_phi(bends[k]) + _covariance(slope, g, portion))
            for k, slope in enumerate(features.slopes)
        ]
        for g, share, bends in zip(features.spanning, shares, features.bends)
    ]
    jacobian = (slopes[0][0], slopes[0][1]), (slopes[1][0], slopes[1][1])
    return Conditions((values[0], values[1]), jacobian, outer, loss, (left, right))


def _covariance(a: Ball, b: Ball, portion: Ball) -> Ball:
    return _dot(a, b) - a.sum(0) * b.sum(0) * portion


class _Step(NamedTuple):
    empty: Mask  # no zero in the box
    narrow: Mask  # the box is so small that Krawczyk's map contracts it
    unique: Mask  # exactly one zero in the box
    middle: Floats  # zeros of the box lie within `radius` of these, (B, 2)
    radius: Floats


def _step(chart: Chart, targets: Ball, middle: Floats, radius: Floats) -> _Step:
    """Mean value and Krawczyk tests for the conditions on boxes, (B, 2)."""
    with np.errstate(all="ignore"):
        at = conditions(chart.features(Ball(middle[:, 0]), Ball(middle[:, 1]), derivatives=False), targets).values
        box = Ball(middle[:, 0], radius[:, 0]), Ball(middle[:, 1], radius[:, 1])
        slopes = conditions(chart.features(*box), targets).slopes
        assert slopes is not None
        moves, spreads = _krawczyk(at, slopes, radius)
        empty = _misses_zero(at, slopes, radius)
        empty |= (abs(moves.middle) > (moves.radius + spreads + radius) * _UP).any(1)
        spread = (moves.radius + spreads) * _UP
        unique = ((abs(moves.middle) + spread) * _UP < radius).all(1)
        # The subtraction rounds.
        room = spread + 4e-16 * (abs(middle) + abs(moves.middle))
        return _Step(empty, (spread < 0.7 * radius).all(1) & ~empty, unique & ~empty, middle - moves.middle, room)


def _misses_zero(at: Pair, slopes: tuple[Pair, Pair], radius: Floats) -> Mask:
    """Whether some condition cannot vanish in a box, by its values at the centre and its slopes."""
    misses = np.zeros(len(radius), dtype=bool)
    for value, row in zip(at, slopes):
        reach = value.radius + row[0].magnitude() * radius[:, 0] + row[1].magnitude() * radius[:, 1]
        misses |= abs(value.middle) > reach * _UP
    return misses


def _krawczyk(at: Pair, slopes: tuple[Pair, Pair], radius: Floats) -> tuple[Ball, Floats]:
    """C F(m) and bounds of |I − C J| r, (B, 2) each, with C near the inverse of J; rounded up but for a few units."""
    (a, b), (c, d) = [[each.middle for each in row] for row in slopes]
    determinant = a * d - b * c
    moves, spreads = [], []
    for i, (left, right) in enumerate(((d, -b), (-c, a))):
        row = Ball(left / determinant), Ball(right / determinant)
        moves.append(row[0] * at[0] + row[1] * at[1])
        gaps = [float(i == k) - (row[0] * slopes[0][k] + row[1] * slopes[1][k]) for k in range(2)]
        spreads.append(gaps[0].magnitude() * radius[:, 0] + gaps[1].magnitude() * radius[:, 1])
    return Ball.stacked(moves, 1), np.stack(spreads, 1)


@dataclass(frozen=True, eq=False)
class Zero:
    """A zero of the conditions in a chart.

    Attributes:
        leaf: the box of the sheet, (2,), in which it was found.
        alone: a box, (2,), that holds it and no other.
        sharp: the smallest box about it, (2,).
    """

    leaf: Ball
    alone: Ball
    sharp: Ball


VERDICTS = ("no zero", "one zero", "elsewhere", "undecided")


@dataclass(frozen=True, eq=False)
class Sheet:
    """The boxes into which a chart was cut.

    Attributes:
        chart: the chart.
        middle, radius: (B, 2): they cover the chart's rectangle, and overlap in sides alone.
        verdict: (B,), positions in `VERDICTS`: "elsewhere" is beyond the part that the chart has to cover.
        zeros: those that were found; neighbouring boxes may have found the same.
        evaluated: how many boxes were looked at.
    """

    chart: Chart
    middle: Floats
    radius: Floats
    verdict: NDArray[np.int8]
    zeros: tuple[Zero, ...]
    evaluated: int

    def covers(self) -> bool:
        """Whether the areas of the boxes add up to that of the rectangle: exactly, for all sides are dyadic."""
        whole_area = math.prod(b - a for a, b in zip(self.chart.lower, self.chart.upper))
        return math.fsum(4 * self.radius.prod(1)) == whole_area

    def tree(self) -> str:
        """The boxes as `check_atlas.py` reads them: how each was halved, and its verdict, zeros by letters.

        Raises:
            ValueError: if boxes are undecided, or more than 26 hold a zero.
        """
        if len(self.zeros) > len(check_atlas.LETTERS) or (self.verdict == 3).any():
            raise ValueError("sheet: has undecided boxes, or more than 26 with a zero; raise the depth")
        size = np.array(self.chart.upper) - self.chart.lower
        leaves = {(*m, *r): "xze"[v] for m, r, v in zip(self.middle.tolist(), self.radius.tolist(), self.verdict)}
        for letter, zero in zip(check_atlas.LETTERS, self.zeros):
            leaves[(*zero.leaf.middle.tolist(), *zero.leaf.radius.tolist())] = letter
        labels, boxes = [], [(self.chart.lower + size / 2, size / 2)]
        while boxes:
            middle, radius = boxes.pop()
            labels.append(leaves.get((*middle.tolist(), *radius.tolist()), "s"))
            if labels[-1] == "s":
                low, high = zip(*_halved(middle[None], radius[None], size))
                boxes += [high, low]
        return "".join(labels)

    def halvings(self, u: Floats, v: Floats) -> NDArray[np.int64]:
        """How often the box that holds each point was cut; 0 for points outside of the rectangle."""
        corner, size = np.array(self.chart.lower), np.array(self.chart.upper) - self.chart.lower
        place = (np.stack([u, v], -1) - corner) / size
        found = np.zeros(len(place), dtype=np.int64)
        for half in np.unique(self.radius, axis=0):
            cells = np.rint(size / (2 * half)).astype(np.int64)
            boxes = np.floor((self.middle[(self.radius == half).all(1)] - corner) / (2 * half)).astype(np.int64)
            # A point of the upper side belongs to the last box.
            at = np.minimum(np.floor(place * cells).astype(np.int64), cells - 1)
            inside = ((place >= 0) & (place <= 1)).all(1) & np.isin(at @ (cells[1], 1), boxes @ (cells[1], 1))
            found[inside] = round(math.log2(math.prod(cells)))
        return found


@checked
def explore(chart: Chart, targets: Ball, depth: int) -> Sheet:
    """Cut a chart into boxes until each is decided, a side was halved `depth` times, or they are too many.

    Args:
        chart: the chart.
        targets: (n, 1), without their mean.
        depth: how often a side may be halved, from the whole rectangle on: from 3 to 45.

    Raises:
        ValueError: for another depth.

    Example:
        >>> from embedding_principle.certificates.charts import charts
        >>> sheet = explore(charts(5)[0], Ball([[-2.0], [1.0], [0.0], [2.0], [-1.0]]), 30)
        >>> sheet.covers(), sheet.zeros
        (True, ())
    """
    depth = whole("depth", depth, 3, 45)
    corner, size = np.array(chart.lower), np.array(chart.upper) - chart.lower
    parts = (np.arange(8) + 0.5) / 8
    middle = corner + size * np.stack(np.meshgrid(parts, parts, indexing="ij"), -1).reshape(-1, 2)
    radius = np.broadcast_to(size / 16, middle.shape)
    least = size * 0.5 ** (depth + 1)
    done: list[tuple[Floats, Floats, Any]] = []
    zeros: list[Zero] = []
    evaluated = 0
    while len(middle):
        following = []
        away = chart.beyond(middle, radius)
        done.append((middle[away], radius[away], np.full(away.sum(), 2)))
        middle, radius = middle[~away], radius[~away]
        for start in range(0, len(middle), _BATCH):
            m, r = middle[start : start + _BATCH], radius[start : start + _BATCH]
            verdict, found = _judged(chart, targets, m, r)
            evaluated += len(m)
            zeros += found
            small = (verdict == 3) & ((r <= least).all(1) | (evaluated > _MOST))
            final = (verdict != 3) | small
            done.append((m[final], r[final], verdict[final]))
            following.append(_halved(m[~final], r[~final], size))
        middle = np.concatenate([m for m, _ in following]) if following else middle[:0]
        radius = np.concatenate([r for _, r in following]) if following else radius[:0]
    joined = [np.concatenate(parts) for parts in zip(*done)]
    return Sheet(chart, joined[0], joined[1], joined[2].astype(np.int8), tuple(zeros), evaluated)


def _halved(middle: Floats, radius: Floats, size: Floats) -> tuple[Floats, Floats]:
    """Boxes cut in two across the longer side, exactly."""
    across = np.arange(2) == (radius / size).argmax(1)[:, None]
    half = np.where(across, radius / 2, radius)
    aside = np.where(across, half, 0.0)
    return np.concatenate([middle - aside, middle + aside]), np.concatenate([half, half])


def _judged(chart: Chart, targets: Ball, middle: Floats, radius: Floats) -> tuple[NDArray[np.int8], list[Zero]]:
    """Verdicts on boxes, and the zeros of those that hold at most one."""
    step = _step(chart, targets, middle, radius)
    verdict = np.where(step.empty, 0, 3).astype(np.int8)
    zeros = []
    tried = np.flatnonzero(step.narrow)
    if len(tried):
        # A zero of the box lies in its image; a box about that may reach beyond the chart, as the features do.
        m, r = step.middle[tried], 1.5 * step.radius[tried] + 1e-15
        again = _step(chart, targets, m, r)
        verdict[tried[again.empty]] = 0
        verdict[tried[again.unique]] = 1
        for i in np.flatnonzero(again.unique):
            leaf = Ball(middle[tried[i]], radius[tried[i]])
            zeros.append(Zero(leaf, Ball(m[i], r[i]), _tightened(chart, targets, m[i], r[i])))
    return verdict, zeros


def _tightened(chart: Chart, targets: Ball, middle: Floats, radius: Floats) -> Ball:
    """A box about the one zero of a box, as small as floats allow."""
    while True:
        step = _step(chart, targets, middle[None], radius[None])
        if not step.unique[0] or (step.radius[0] > 0.9 * radius).any():
            return Ball(middle, radius)
        middle, radius = step.middle[0], step.radius[0] * 1.05
