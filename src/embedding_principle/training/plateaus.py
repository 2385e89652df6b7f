"""Plateaus of the risk in training, and how near a network comes there to a given critical function.

On a plateau the risk hardly changes while the number of steps grows by a factor. Bai et al. (arXiv:2205.13283,
abstract of version 4) report that deep networks encounter lifted critical points in training: then the outputs on a
plateau are those of a shallower network's critical point, and some layers act affinely.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedding_principle.arguments import checked, number, real, whole
from embedding_principle.linearity import linearization_index
from embedding_principle.risks import Risk
from embedding_principle.training.ensembles import Observer, Training

FIRST_STEP = 10  # before it neighbouring whole steps lie so far apart in log t that the slope is coarse


@dataclass(frozen=True)
class Plateau:
    """A stretch of the recorded steps on which the risk hardly falls.

    Attributes:
        first: index of its first recorded step.
        last: index of its last recorded step.
        decades: log10 of the ratio of these steps.
    """

    first: int
    last: int
    decades: float


@checked
def plateaus(steps: Sequence[int], risk: Sequence[float], *, slope: float, decades: float) -> list[Plateau]:
    """The longest stretches with |d log R / d log t| < slope between neighbouring records, from `FIRST_STEP` on.

    Args:
        steps: the recorded steps t, increasing, (T,).
        risk: R_S there, not negative, (T,). A risk that stays 0 is flat; one that falls to 0, or is not finite (a
            network that diverged), is not.
        slope: bound of the log–log slope; −1 would be a risk that falls as 1/t.
        decades: shortest length to report.

    Raises:
        ValueError: if there is not one risk for each step, steps do not increase, or a number is negative.

    Example:
        >>> plateaus([10, 100, 1000, 10000], [1.0, 0.99, 0.01, 0.0099], slope=0.05, decades=0.5)
        [Plateau(first=0, last=1, decades=1.0), Plateau(first=2, last=3, decades=1.0)]
    """
    _require_records(steps, risk)
    slope, decades = number("slope", slope, at_least=0.0), number("decades", decades, at_least=0.0)
    found, first = [], None
    for index in range(len(steps)):
        flat = index + 1 < len(steps) and steps[index] >= FIRST_STEP and _slope(steps, risk, index) < slope
        if flat and first is None:
            first = index
        if not flat and first is not None:
            found.append(Plateau(first, index, math.log10(steps[index] / steps[first])))
            first = None
    return [plateau for plateau in found if plateau.decades >= decades]


def _require_records(steps: Sequence[int], risk: Sequence[float]) -> None:
    if len(steps) != len(risk):
        raise ValueError(f"risk: expected one for each of {len(steps)} steps, got {len(risk)}")
    numbers = [whole("steps", step, 0) for step in steps]
    if any(later <= step for step, later in zip(numbers, numbers[1:])):
        raise ValueError("steps: expected them to increase; sort them")
    if any(isinstance(value, int) and value > sys.float_info.max for value in risk):
        raise ValueError("risk: a whole number is too large for a float; give floats")
    if any(value < 0 for value in risk):
        raise ValueError("risk: a negative one has no logarithm; leave it out")


def _slope(steps: Sequence[int], risk: Sequence[float], index: int) -> float:
    before, after = risk[index], risk[index + 1]
    if before == after == 0:
        return 0.0
    if not (math.isfinite(before) and math.isfinite(after) and before > 0):
        return math.inf
    ratio = after / before
    # Of a ratio that over- or underflows the slope is beyond every bound too.
    fall = math.log(ratio) if 0 < ratio < math.inf else math.inf
    return abs(fall / math.log(steps[index + 1] / steps[index]))


@dataclass(frozen=True, eq=False)
class Encounters:
    """For each of S networks, its plateau that is nearest to a reference function (NaN where it has no plateau).

    All but `decades` are taken at the plateau's record with the smallest gradient norm.

    Attributes:
        distance: ‖f − g‖ / ‖y − mean y‖ over S, g the reference; infinite without a plateau, (S,).
        gap: R_S / R_S(g) − 1, (S,); for a perfect g it is 0 where R_S is 0, and infinite elsewhere.
        decades: the plateau's length, (S,).
        record: index of that record; −1 without a plateau, (S,) int64.
        index: the linearization index of each hidden layer, (S, L − 1).
    """

    distance: Tensor
    gap: Tensor
    decades: Tensor
    record: Tensor
    index: Tensor = field(repr=False)


@checked
def plateau_observers(risk: Risk) -> dict[str, Observer]:
    """The observers that `encounters` needs of a training: outputs, gradient norm and linearization index."""
    return {
        "outputs": lambda theta: risk.at(theta).forward(risk.inputs),
        "gradient": lambda theta: risk.gradient(theta).norm(dim=-1),
        "index": lambda theta: linearization_index(risk.at(theta), risk.inputs),
    }


@checked
def encounters(
    run: Training, risk: Risk, reference: Tensor, *, slope: float = 0.05, decades: float = 0.3
) -> Encounters:
    """Compare each network's plateaus with a reference function and keep the nearest.

    A network that has crossed all its thresholds is looked at up to there: the records after it repeat its last state.

    Args:
        run: a training with `plateau_observers(risk)`.
        risk: the risk that was trained on.
        reference: g(x_i), (n, m_L): the outputs of a shallow critical point, say.
        slope: see `plateaus`.
        decades: see `plateaus`.

    Raises:
        ValueError: if the training lacks these observers, the reference is not finite or of another shape, or the
            targets are constant, so that distances have no unit.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> from embedding_principle.training.ensembles import GradientDescent, train
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network.uniform((1, 1, 1), tanh), x, x**3)
        >>> start, observers = torch.zeros(1, 4).double(), plateau_observers(risk)
        >>> run = train(risk, start, GradientDescent(0.1), steps=99, observers=observers)
        >>> encounters(run, risk, torch.zeros_like(x)).distance  # zero is a critical point: it never leaves
        tensor([0.], dtype=torch.float64)
    """
    missing = plateau_observers(risk).keys() - run.observations.keys()
    if missing:
        raise ValueError(f"run: no observations {sorted(missing)}; train with observers=plateau_observers(risk)")
    reference = real("reference", reference, tuple(risk.targets.shape))
    slope, decades = number("slope", slope, at_least=0.0), number("decades", decades, at_least=0.0)
    size = (risk.targets - risk.targets.mean(0)).norm()
    if not 0 < size < torch.inf:
        raise ValueError(f"risk: the targets differ from their mean by {float(size):g}, which is no unit of distances")
    outputs = run.observations["outputs"]
    if outputs.shape[2:] != reference.shape:
        raise ValueError(f"run: outputs {tuple(outputs.shape[2:])} are not of this risk's {tuple(reference.shape)}")
    distance = (outputs - reference).flatten(2).norm(dim=-1) / size
    own = risk.loss.value(reference, risk.targets).mean()
    gap = torch.where((run.risk == 0) & (own == 0), 0.0, run.risk / own - 1)
    rows = [_nearest(run, s, distance[s], slope, decades) for s in range(len(distance))]
    record = torch.tensor([record for record, _ in rows])
    length = torch.tensor([length for _, length in rows], dtype=torch.float64)
    met, seeds = record >= 0, torch.arange(len(rows))
    return Encounters(
        torch.where(met, distance[seeds, record], torch.inf),
        torch.where(met, gap[seeds, record], torch.nan),
        torch.where(met, length, torch.nan),
        record,
        torch.where(met[:, None], run.observations["index"][seeds, record], torch.nan),
    )


def _nearest(run: Training, seed: int, distance: Tensor, slope: float, decades: float) -> tuple[int, float]:
    """The record that stands for the nearest plateau and the plateau's length; (−1, NaN) if there is no plateau."""
    steps = run.steps[run.steps <= _stop(run, seed)].tolist()
    gradient = run.observations["gradient"][seed]
    best, length = -1, math.nan
    for plateau in plateaus(steps, run.risk[seed, : len(steps)].tolist(), slope=slope, decades=decades):
        record = plateau.first + int(gradient[plateau.first : plateau.last + 1].argmin())
        if best < 0 or distance[record] < distance[best]:
            best, length = record, plateau.decades
    return best, length


def _stop(run: Training, seed: int) -> float:
    """The step at which a network stopped because it had crossed every threshold; infinite if it went on."""
    crossings = run.reached[seed]
    return float(crossings.max()) if len(crossings) else math.inf
