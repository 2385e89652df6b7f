"""Training of S networks at once, on the full data, with trajectories recorded on a logarithmic grid.

Nothing is stochastic but the start: the gradients are those of `Risk`, found by `Backpropagation` for a whole block of
networks, and one update of the flat tensor (S, P) of parameters moves them all. A block is as large as a core's cache.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator, Tensor

from embedding_principle.arguments import check_fields, checked, number, require_room, variable, whole
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.training.backpropagation import Backpropagation

Observer = Callable[[Tensor], Tensor]

# Measured: below it the calls cost more than the work, far above it memory does.
_BLOCK_BYTES = 4 << 20


# Records for each power of ten: enough for every curve, and few enough for memory.
_FINEST = 10_000


@dataclass(frozen=True)
class GradientDescent:
    """θ ← θ − rate · ∇R_S(θ).

    Raises:
        ValueError: if the rate is negative.
    """

    rate: float

    def __post_init__(self) -> None:
        check_fields(self)
        number("rate", self.rate, at_least=0.0)


@dataclass(frozen=True)
class Adam:
    """Adam of Kingma and Ba (arXiv:1412.6980), with ε added to √v̂ as in torch.optim.Adam.

    Raises:
        ValueError: if the rate is negative, a β is not in [0, 1), or ε is not positive.
    """

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_fields(self)
        number("rate", self.rate, at_least=0.0)
        number("beta1", self.beta1, at_least=0.0, below=1.0)
        number("beta2", self.beta2, at_least=0.0, below=1.0)
        number("epsilon", self.epsilon, above=0.0)


@dataclass(frozen=True, eq=False)
class Training:
    """What S networks did in training.

    Attributes:
        steps: the recorded steps, 0 (before training) first, (T,) int64.
        risk: R_S at those steps, (S, T); not finite where a network diverged.
        observations: what each observer returned at those steps, (S, T, ...), by name.
        theta: the parameters at the end, (S, P).
        reached: the first step at which R_S was at most the k-th threshold, (S, K) float64; infinite if none was.
    """

    steps: Tensor
    risk: Tensor
    observations: dict[str, Tensor] = field(repr=False)
    theta: Tensor = field(repr=False)
    reached: Tensor


@checked
def ensemble(
    network: Network, generator: Generator, size: int, *, scale: float = 1.0, bias_scale: float = 0.0
) -> Tensor:
    """Initial parameters of `size` networks, (size, P): `Network.initial`, drawn one network after the other.

    Network s is the same whatever the size.

    Raises:
        ValueError: if the size is not positive, or so many do not fit in memory.

    Example:
        >>> few, many = (ensemble(Network((1, 2)), torch.Generator().manual_seed(0), size) for size in (2, 9))
        >>> torch.equal(few, many[:2])
        True
    """
    require_room("size", whole("size", size, 1), network.n_parameters)
    return torch.stack([network.initial(generator, scale=scale, bias_scale=bias_scale) for _ in range(size)])


@checked
def log_grid(last: int, per_decade: int) -> list[int]:
    """Whole numbers from 0 to `last`, about `per_decade` to each power of ten, both ends among them.

    Raises:
        ValueError: if `last` is negative, or `per_decade` not among 1 … 10 000.

    Example:
        >>> log_grid(100, 3)
        [0, 1, 2, 5, 10, 22, 46, 100]
    """
    last, per_decade = whole("last", last, 0), whole("per_decade", per_decade, 1, _FINEST)
    exponents = range(1 + math.floor(per_decade * math.log10(max(last, 1))))
    return sorted({0, last, *(round(10 ** (k / per_decade)) for k in exponents if last)})


@checked
def train(
    risk: Risk,
    starts: Tensor,
    method: GradientDescent | Adam,
    *,
    steps: int,
    thresholds: Sequence[float] = (),
    observers: Mapping[str, Observer] | None = None,
    per_decade: int = 20,
) -> Training:
    """Train S networks by full-batch descent on the risk.

    Args:
        risk: R_S; batch normalization, if the network has it, uses the statistics of the full data.
        starts: (S, P), of any float type. A start that is not finite stops at once, and leaves the others alone.
        method: `GradientDescent` or `Adam`.
        steps: the number of updates.
        thresholds: values of R_S whose first crossing is wanted to the step. A network that has crossed them all stops
            there; a threshold of 0 keeps it going. One whose risk is no longer finite stops too.
        observers: functions of θ (B, P) that return (B, ...), called at the recorded steps with B networks at a time.
        per_decade: recorded steps for each power of ten.

    Raises:
        ValueError: if the starts are not floating-point numbers of shape (S, P), S > 0, or the steps are negative.

    Example:
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network((1, 1)), x, 3 * x + 1)
        >>> run = train(risk, torch.zeros(1, 2).double(), GradientDescent(0.4), steps=100, thresholds=[1e-2, 0])
        >>> run.theta.round(decimals=6), run.reached
        (tensor([[3., 1.]], dtype=torch.float64), tensor([[6., inf]], dtype=torch.float64))
    """
    starts = variable("starts", starts, ("S", risk.network.n_parameters)).detach()
    thresholds = [number("thresholds", threshold) for threshold in thresholds]
    grid = log_grid(whole("steps", steps, 0), per_decade)
    runs = [_Run(risk, block, method, thresholds, observers or {}) for block in torch.split(starts, _block_size(risk))]
    for run in runs:
        run.train(grid)
    return Training(
        torch.tensor(grid),
        torch.cat([torch.stack(run.risks, 1) for run in runs]),
        {name: torch.cat([torch.stack(run.observed[name], 1) for run in runs]) for name in runs[0].observed},
        torch.cat([run.theta for run in runs]),
        torch.cat([run.reached for run in runs]),
    )


def _block_size(risk: Risk) -> int:
    """How many networks fit in the cache: z, its δ and f for every layer; parameters, gradient and two moments."""
    floats = 3 * len(risk.inputs) * sum(risk.network.widths[1:]) + 4 * risk.network.n_parameters
    return max(1, _BLOCK_BYTES // (8 * floats))


class _Run:
    """One block of networks in training; those that have crossed every threshold are no longer active."""

    def __init__(
        self,
        risk: Risk,
        starts: Tensor,
        method: GradientDescent | Adam,
        thresholds: Sequence[float],
        observers: Mapping[str, Observer],
    ) -> None:
        self.objective, self.observers = risk, observers
        self.thresholds = torch.tensor(thresholds, dtype=torch.float64)
        self.theta = starts.clone()
        self.current = starts.new_zeros(len(starts))
        self.reached = starts.new_full((len(starts), len(thresholds)), torch.inf)
        self.active = torch.arange(len(starts))
        self.propagation = Backpropagation(risk, starts)
        self.update = (
            _Descent(method)
            if isinstance(method, GradientDescent)
            else _AdamUpdate(method, self.propagation.parameters)
        )
        self.risks: list[Tensor] = []
        self.observed: dict[str, list[Tensor]] = {name: [] for name in observers}
        self._look_ahead()

    def train(self, grid: list[int]) -> None:
        """Take as many steps as the last entry of the grid says, and record at its entries."""
        recorded = set(grid)
        with np.errstate(over="ignore", invalid="ignore"):  # a network that diverges shows in its risk
            for step in range(grid[-1] + 1):
                self.propagation.forward()
                if step in recorded or len(self.thresholds):
                    self._cross(step, self.propagation.risk(), due=step in recorded)
                if step in recorded:
                    self._record()
                if not len(self.active):
                    break
                if step < grid[-1]:
                    self.propagation.backward()
                    self.update(self.propagation.parameters, self.propagation.gradient)
        self._complete(len(grid))

    def _cross(self, step: int, risk: Tensor, *, due: bool) -> None:
        """Note who crosses which threshold; stop those that have crossed them all or diverged."""
        if not due and (risk > self.next).all():  # the usual case, and false for NaN
            return
        self.current[self.active] = risk
        crossed = self.current[:, None] <= self.thresholds
        self.reached[crossed & self.reached.isinf()] = step
        unfinished = self.reached.isinf().any(-1) | (len(self.thresholds) == 0)
        going = (unfinished & self.current.isfinite())[self.active]
        if not going.all():
            self.theta[self.active] = self.propagation.theta
            self.active, before = self.active[going], self.propagation
            self.propagation = Backpropagation(self.objective, self.theta[self.active])
            self.propagation.forward()
            self.update.keep(lambda moment: self.propagation.pack(before.unpack(moment)[going]))
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Find the largest threshold that each active network has not crossed yet; −∞ if there is none."""
        ahead = torch.where(self.reached.isinf(), self.thresholds, -torch.inf)[self.active]
        self.next = torch.cat([ahead, torch.full((len(ahead), 1), -torch.inf)], -1).amax(-1)

    def _record(self) -> None:
        self.theta[self.active] = self.propagation.theta
        self.risks.append(self.current.clone())
        for name, observer in self.observers.items():
            self.observed[name].append(observer(self.theta))

    def _complete(self, count: int) -> None:
        """Repeat the state in which all networks stopped at the recorded steps that are left."""
        if len(self.risks) < count:
            self._record()
        for series in (self.risks, *self.observed.values()):
            series += [series[-1]] * (count - len(series))


class _Descent:
    def __init__(self, method: GradientDescent) -> None:
        self.rate = method.rate

    def __call__(self, parameters: Tensor, gradient: Tensor) -> None:
        parameters.sub_(gradient, alpha=self.rate)

    def keep(self, kept: Callable[[Tensor], Tensor]) -> None:
        """There is no memory of past steps to keep."""


class _AdamUpdate:
    def __init__(self, method: Adam, parameters: Tensor) -> None:
        self.method, self.step = method, 0
        self.mean, self.square, self.scale = (torch.zeros_like(parameters) for _ in range(3))

    def __call__(self, parameters: Tensor, gradient: Tensor) -> None:
        self.step += 1
        beta1, beta2 = self.method.beta1, self.method.beta2
        self.mean.lerp_(gradient, 1 - beta1)
        self.square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # √(v/c) + ε = (√v + ε√c)/√c: both bias corrections move into the rate, which saves a pass.
        correction = math.sqrt(1 - beta2**self.step)
        # NumPy's root takes less time than torch's.
        np.sqrt(self.square.numpy(), out=self.scale.numpy())
        self.scale.add_(self.method.epsilon * correction)
        parameters.addcdiv_(self.mean, self.scale, value=-self.method.rate * correction / (1 - beta1**self.step))

    def keep(self, kept: Callable[[Tensor], Tensor]) -> None:
        """Forget the moments of the networks that stopped."""
        self.mean, self.square = kept(self.mean), kept(self.square)
        self.scale = torch.zeros_like(self.mean)
