"""The batched search for critical points against SciPy, start by start.

With a ridge every start has a minimum to reach, and time is compared. SciPy's BFGS + hybr appears twice: with the risk
and gradient of this library, as a user would call it, and with both written out in NumPy, ten times faster a call. So
does this library: without and with the steps that numba compiles.

Without a ridge many starts drift to infinity whatever the method. There this library descends, and polishes from the
starts where descent found nothing. The shares of starts that end at a critical point are shown as well; every method's
end point is judged by the same `search(..., max_iterations=0)`.
"""

import cProfile
import pstats
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from benchmarks.timing import Comparison, compare, one_thread, report
from numpy.typing import NDArray
from scipy.optimize import minimize, root
from torch import Tensor

from embedding_principle.activations import tanh
from embedding_principle.critical_points import CriticalPoints, search
from embedding_principle.curvature.hessian import hessian
from embedding_principle.datasets import one_dimensional
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

Vector = NDArray[np.float64]
Method = Callable[[Vector], Vector]
Function = Callable[[Vector], tuple[float, Vector]]


def problem(name: str, width: int, count: int) -> tuple[Risk, Tensor]:
    """The risk of a 1-width-1 tanh network on a named target, and normally distributed starts."""
    data = one_dimensional(name)
    risk = Risk(Network.uniform((1, width, 1), tanh), data.inputs, data.targets)
    generator = torch.Generator().manual_seed(width)
    return risk, torch.randn(count, risk.network.n_parameters, generator=generator, dtype=torch.float64)


def by_hand(risk: Risk, ridge: float) -> Function:
    """R and ∇R for one θ, by hand in NumPy."""
    x, y, m = risk.inputs[:, 0].numpy(), risk.targets[:, 0].numpy(), risk.network.widths[1]

    def both(theta: Vector) -> tuple[float, Vector]:
        w, b, a, c = theta[:m], theta[m : 2 * m], theta[2 * m : 3 * m], theta[3 * m]
        h = np.tanh(np.outer(x, w) + b)
        r = h @ a + c - y
        pull = 2 / len(x) * r
        slope = pull[:, None] * (1 - h * h) * a
        gradient = np.concatenate([x @ slope, slope.sum(0), pull @ h, [pull.sum()]])
        return r @ r / len(x) + ridge * theta @ theta, gradient + 2 * ridge * theta

    return both


def by_autograd(risk: Risk, ridge: float) -> Function:
    """R and ∇R for one θ, by this library."""

    def both(theta: Vector) -> tuple[float, Vector]:
        point = torch.from_numpy(theta)
        return float(risk(point)) + ridge * theta @ theta, risk.gradient(point).numpy() + 2 * ridge * theta

    return both


def scipy_methods(risk: Risk, ridge: float, both: Function) -> dict[str, Method]:
    """What a SciPy user would try, from one start each."""

    def curvature(theta: Vector) -> Vector:
        return hessian(risk, torch.from_numpy(theta)).numpy() + 2 * ridge * np.eye(len(theta))

    def zero(start: Vector, method: str, **options: float) -> Vector:
        options = {"xtol": 1e-15, **options}
        return np.asarray(root(lambda t: both(t)[1], start, jac=curvature, method=method, options=options).x)

    def descent(start: Vector, method: str, **options: float) -> Vector:
        second = {"hess": curvature} if method == "trust-exact" else {}
        return np.asarray(minimize(both, start, jac=True, method=method, options=options, **second).x)

    return {
        "BFGS + hybr": lambda start: zero(descent(start, "BFGS", gtol=1e-6, maxiter=2000), "hybr"),
        "trust-exact": lambda start: descent(start, "trust-exact", gtol=1e-12, maxiter=200),
        "hybr": lambda start: zero(start, "hybr"),
        "lm": lambda start: zero(start, "lm", ftol=1e-15),
    }


def from_each(method: Method, starts: Tensor) -> Tensor:
    """Where a method ends from each start."""
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.stack([method(start) for start in starts.numpy()])).nan_to_num()


def profile(run: Callable[[], object]) -> dict[str, float]:
    """Shares of the time of a search: derivatives, and steps by factorizations and by eigenvectors."""
    profiler = cProfile.Profile()
    profiler.runcall(run)
    statistics = pstats.Stats(profiler)
    cumulative = {name: entry[3] for (_, _, name), entry in statistics.stats.items()}
    parts = {
        "risk, gradient, Hessian": cumulative["derivatives"],
        "factorizations": cumulative["descent_step"],
        "polishing": cumulative["polishing_step"],
    }
    return {f"% time in {part}": 100 * time / statistics.total_tt for part, time in parts.items()}


def percent(found: CriticalPoints) -> float:
    """The share of searches that converged."""
    return 100 * float(found.converged.double().mean())


def both_ways(risk: Risk, starts: Tensor) -> list[CriticalPoints]:
    """Descent from all starts, then polishing from those, if any, where it found no critical point."""
    descended = search(risk, starts)
    left = starts[~descended.converged]
    return [descended, search(risk, left, descend=False)] if len(left) else [descended]


def with_ridge(name: str, width: int, ridge: float, *, compiled: bool) -> Comparison:
    """All starts have a minimum to reach."""
    risk, starts = problem(name, width, 256)
    slow, fast = (scipy_methods(risk, ridge, make(risk, ridge))["BFGS + hybr"] for make in (by_autograd, by_hand))
    peers = {"BFGS + hybr by hand": fast}
    if not compiled:
        peers["BFGS + hybr"] = slow  # it takes minutes: once is enough

    def ours() -> CriticalPoints:
        return search(risk, starts, ridge=ridge, compiled=compiled)

    found = ours()
    theirs = search(risk, from_each(fast, starts), ridge=ridge, max_iterations=0)
    facts = {"% ours": percent(found), "% SciPy": percent(theirs), "most iterations": float(found.iterations.max())}
    return compare(
        f"{name}, width {width}, ridge {ridge:g}, {len(starts)} starts{', compiled steps' * compiled}",
        ours,
        {peer: partial(from_each, method, starts) for peer, method in peers.items()},
        rounds=5,
        goal=25.0,
        facts=facts | profile(ours),
    )


def without_ridge(name: str, width: int) -> Comparison:
    """Some starts drift to infinity."""
    risk, starts = problem(name, width, 128)
    methods = scipy_methods(risk, 0.0, by_hand(risk, 0.0))
    found = both_ways(risk, starts)
    arrived = sum(int(points.converged.sum()) for points in found)
    facts = {"% ours": 100 * arrived / len(starts), "% ours, descent alone": percent(found[0])}
    for method, run in methods.items():
        facts[f"% {method}"] = percent(search(risk, from_each(run, starts), max_iterations=0))
    return compare(
        f"{name}, width {width}, no ridge, {len(starts)} starts",
        lambda: both_ways(risk, starts),
        {"BFGS + hybr by hand": lambda: from_each(methods["BFGS + hybr"], starts)},
        rounds=5,
        facts=facts,
    )


def main() -> None:
    """Measure and write the table."""
    one_thread()
    ridges = ((2, 1e-2), (2, 1e-3), (5, 1e-3))
    ways = (False, True) if find_spec("numba") else (False,)
    rows = [with_ridge("wave", *case, compiled=compiled) for compiled in ways for case in ridges]
    rows += [without_ridge(name, width) for name in ("wave", "sin") for width in (1, 2, 3)]
    report("critical_points", "Critical points from many starts", rows)


if __name__ == "__main__":
    main()
